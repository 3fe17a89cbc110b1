/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "files.h"
#include "log.h"
#include "pool.h"
#include "room.h"
#include "schema.h"
#include "statements.h"

/* How often who only reads looks at the file: has it been deleted or set
 * aside? Who writes always does, or what he stores or removes could be lost. */
#define LOOK_INTERVAL 1000000
/* After a failure to open. */
#define RETRY_INTERVAL 1000000
/* How long a child that begins waits for its first connection: it may have to
 * wait until another one has made the tables. */
#define FIRST_WAIT 500000
/* At least, for a page that was purged or invalidated. */
#define REMOVE_WAIT 1000000
/* How often a transaction is tried that finds the database full. */
#define FULL_TRIES 6
/* Jobs of others that one transaction does, and how long it may have lasted
 * when it begins another one, µs: other processes wait meanwhile. */
#define JOBS_MAX 16
#define JOBS_TIME 5000

enum {
    JOB_WAITS = -1, /* until a transaction takes it, or its thread may write */
    JOB_TAKEN = -2,
    JOB_BACK = -3 /* to be done by its thread, in a transaction of its own */
};

/* What a thread wants to have written. It is the thread's, and what it points
 * to, but while it is taken. */
typedef struct mw_sql_job_t {
    struct mw_sql_job_t *next;
    mw_sql_work_fn *work;
    const cachemw_call_t *call;
    void *baton;
    int state;  /* JOB_… or, when it is done, a result; under the mutex */
    int result; /* of who has taken it */
} job_t;

apr_int64_t mw_sql_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (apr_int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static apr_status_t status_of_system(mw_sql_conn_t *conn, apr_status_t other)
{
    int error = conn->db ? sqlite3_system_errno(conn->db) : 0;

    return error ? error : other;
}

apr_status_t mw_sql_status(mw_sql_conn_t *conn, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
        return APR_SUCCESS;
    case SQLITE_NOTFOUND:
        return APR_NOTFOUND;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return APR_TIMEUP;
    case SQLITE_FULL:
    case SQLITE_TOOBIG:
        return APR_ENOSPC;
    }
    conn->is_bad = 1;
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
        conn->damage = "the database is damaged";
        return APR_EGENERAL;
    case SQLITE_NOTADB:
        conn->damage = "it is not a database";
        return APR_EGENERAL;
    case SQLITE_NOMEM:
        return APR_ENOMEM;
    case SQLITE_READONLY:
        return status_of_system(conn, EROFS);
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        return status_of_system(conn, APR_EACCES);
    case SQLITE_IOERR:
        return status_of_system(conn, EIO);
    default:
        return APR_EGENERAL;
    }
}

/* --- one connection ------------------------------------------------------- */

static void conn_close(mw_sql_conn_t *conn)
{
    int i;

    for (i = 0; i < MW_SQL_STATEMENTS; i++) {
        sqlite3_finalize(conn->statements[i]);
    }
    sqlite3_close_v2(conn->db);
    free(conn);
}

static void conns_close(mw_sql_conn_t *conn)
{
    mw_sql_conn_t *next;

    for (; conn; conn = next) {
        next = conn->next;
        conn_close(conn);
    }
}

static apr_status_t conn_try(mw_sql_t *store, apr_int64_t until,
                             mw_sql_conn_t **result)
{
    mw_sql_conn_t *conn = calloc(1, sizeof(*conn));
    mw_sql_file_t file;
    const char *damage;
    apr_status_t rv;

    if (!conn) {
        return APR_ENOMEM;
    }
    conn->until = until;
    rv = mw_sql_schema_open(store, conn);
    if (rv == APR_SUCCESS) {
        *result = conn;
        return rv;
    }
    /* closed before its file is renamed: it may hold locks */
    file = conn->file;
    damage = conn->damage;
    conn_close(conn);
    if (damage) {
        mw_sql_files_set_aside(store, &file, damage, until);
        return APR_EINCOMPLETE;
    }
    return rv;
}

/* Once more, when it was damaged: a new one may be in its place now. */
static apr_status_t conn_open(mw_sql_t *store, apr_int64_t until,
                              mw_sql_conn_t **result)
{
    apr_status_t rv = conn_try(store, until, result);

    if (rv == APR_EINCOMPLETE) {
        rv = conn_try(store, until, result);
    }
    return rv == APR_EINCOMPLETE ? APR_EGENERAL : rv;
}

/* --- the pool ------------------------------------------------------------- */

static int cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                     apr_int64_t until)
{
    struct timespec ts = { .tv_sec = until / 1000000,
                           .tv_nsec = until % 1000000 * 1000 };

    return pthread_cond_timedwait(cond, mutex, &ts) == 0;
}

/* Those in use are closed when they are given back, if this process still
 * lives then. */
static apr_status_t pool_end(void *baton)
{
    mw_sql_t *store = baton;
    mw_sql_pool_t *pool = &store->pool;
    mw_sql_conn_t *conn;

    pthread_mutex_lock(&pool->mutex);
    pool->is_open = 0;
    conn = pool->idle;
    pool->idle = NULL;
    pthread_cond_broadcast(&pool->given);
    pthread_cond_broadcast(&pool->written);
    pthread_mutex_unlock(&pool->mutex);
    conns_close(conn);
    return APR_SUCCESS;
}

/* With the mutex held, but not while it looks: whether the path still names
 * the file that was opened. */
static void pool_look(mw_sql_t *store, apr_int64_t now, int is_writer)
{
    mw_sql_pool_t *pool = &store->pool;
    mw_sql_file_t file;

    if (is_writer || !pool->looked || now - pool->looked >= LOOK_INTERVAL) {
        pool->looked = now;
        pthread_mutex_unlock(&pool->mutex);
        mw_sql_files_look(store, &file, NULL);
        pthread_mutex_lock(&pool->mutex);
        pool->file = file;
    }
}

/* With the mutex held: wait until there may be a connection. */
static apr_status_t pool_enter(mw_sql_pool_t *pool, apr_int64_t until)
{
    while (pool->is_open && !pool->idle
           && pool->connections >= MW_SQL_CONNECTIONS) {
        if (!cond_wait(&pool->given, &pool->mutex, until)) {
            break;
        }
    }
    if (pool->is_open
        && (pool->idle || pool->connections < MW_SQL_CONNECTIONS)) {
        return APR_SUCCESS;
    }
    return pool->is_open ? APR_TIMEUP : APR_NOTFOUND;
}

/* An idle connection to the right file; stale ones are put on *old. */
static mw_sql_conn_t *pool_pick(mw_sql_pool_t *pool, mw_sql_conn_t **old)
{
    mw_sql_conn_t *conn;

    while ((conn = pool->idle)) {
        pool->idle = conn->next;
        if (mw_sql_files_same(&conn->file, &pool->file)) {
            return conn;
        }
        conn->next = *old;
        *old = conn;
        pool->connections--;
    }
    pool->connections++; /* the one to be opened */
    return NULL;
}

/* With the mutex held: the one that was to be opened is not. */
static apr_status_t pool_fail(mw_sql_pool_t *pool, apr_status_t rv)
{
    pool->connections--;
    pthread_cond_signal(&pool->given);
    return rv;
}

static apr_status_t pool_connect(mw_sql_t *store, apr_int64_t until,
                                 mw_sql_conn_t **conn)
{
    mw_sql_pool_t *pool = &store->pool;
    apr_status_t rv = conn_open(store, until, conn);

    pthread_mutex_lock(&pool->mutex);
    if (rv == APR_SUCCESS) {
        pool->file = (*conn)->file;
    }
    else {
        pool->failure = pool_fail(pool, rv);
        if (!APR_STATUS_IS_TIMEUP(rv)) {
            /* else the next one may have more patience */
            pool->retry = mw_sql_clock() + RETRY_INTERVAL;
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    if (rv != APR_SUCCESS && !APR_STATUS_IS_TIMEUP(rv)) {
        store->services->log(store->services, CACHEMW_LOG_WARNING, rv,
                             "db_path=%s cannot be opened: nothing is found or "
                             "stored until that is put right",
                             store->path);
    }
    return rv;
}

/* For this thread alone, to the file that the path names. APR_NOTFOUND: the
 * child is ending. */
static apr_status_t pool_take(mw_sql_t *store, apr_int64_t until, int is_writer,
                              mw_sql_conn_t **conn)
{
    mw_sql_pool_t *pool = &store->pool;
    apr_int64_t now = mw_sql_clock();
    mw_sql_conn_t *old = NULL;
    apr_status_t rv;

    *conn = NULL;
    pthread_mutex_lock(&pool->mutex);
    pool_look(store, now, is_writer);
    rv = pool_enter(pool, until);
    if (rv == APR_SUCCESS) {
        *conn = pool_pick(pool, &old);
        if (!*conn && now < pool->retry) {
            rv = pool_fail(pool, pool->failure);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    conns_close(old);
    if (rv == APR_SUCCESS && !*conn) {
        rv = pool_connect(store, until, conn);
    }
    if (rv == APR_SUCCESS) {
        (*conn)->until = until;
    }
    return rv;
}

static void pool_give(mw_sql_t *store, mw_sql_conn_t *conn)
{
    mw_sql_pool_t *pool = &store->pool;
    const mw_sql_file_t file = conn->file;
    const char *damage = conn->damage;
    const apr_int64_t until = conn->until;
    int is_kept;

    pthread_mutex_lock(&pool->mutex);
    is_kept = pool->is_open && !conn->is_bad;
    if (is_kept) {
        conn->next = pool->idle;
        pool->idle = conn;
    }
    else {
        pool->connections--;
        pool->looked = 0;
    }
    pthread_cond_signal(&pool->given);
    pthread_mutex_unlock(&pool->mutex);
    if (is_kept) {
        return;
    }
    conn_close(conn);
    if (damage) {
        mw_sql_files_set_aside(store, &file, damage, until);
    }
}

void mw_sql_pool_begin(mw_sql_t *store, apr_pool_t *pchild)
{
    mw_sql_pool_t *pool = &store->pool;
    pthread_condattr_t monotonic;
    mw_sql_conn_t *conn;

    memset(pool, 0, sizeof(*pool));
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->given, &monotonic);
    pthread_cond_init(&pool->written, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pool->is_open = 1;
    apr_pool_cleanup_register(pchild, store, pool_end, apr_pool_cleanup_null);
    if (pool_take(store, mw_sql_clock() + FIRST_WAIT, 0, &conn)
        == APR_SUCCESS) {
        pool_give(store, conn);
    }
}

static apr_interval_time_t patience(const mw_sql_t *store,
                                    const cachemw_call_t *call,
                                    apr_interval_time_t most)
{
    const cachemw_services_t *services = store->services;
    apr_interval_time_t left = services->remaining(services, call);

    return left >= 0 && left < most ? left : most;
}

apr_interval_time_t mw_sql_patience(const mw_sql_t *store,
                                    const cachemw_call_t *call)
{
    return patience(store, call, store->busy_timeout);
}

apr_interval_time_t mw_sql_patience_to_remove(const mw_sql_t *store,
                                              const cachemw_call_t *call)
{
    apr_interval_time_t most = store->busy_timeout;

    return patience(store, call, most < REMOVE_WAIT ? REMOVE_WAIT : most);
}

apr_status_t mw_sql_consult(mw_sql_t *store, const cachemw_call_t *call,
                            apr_interval_time_t wait, mw_sql_work_fn *work,
                            void *baton)
{
    mw_sql_conn_t *conn;
    apr_status_t rv = pool_take(store, mw_sql_clock() + wait, 0, &conn);

    if (rv == APR_SUCCESS) {
        rv = mw_sql_status(conn, work(store, conn, call, baton));
        pool_give(store, conn);
    }
    return rv;
}

/* --- jobs ----------------------------------------------------------------- */

static void job_leave(mw_sql_pool_t *pool, const job_t *job)
{
    job_t **place = &pool->jobs;

    while (*place && *place != job) {
        place = &(*place)->next;
    }
    if (*place) {
        *place = job->next;
    }
}

/* With the mutex held: wait until this thread may write, or its job is done. */
static apr_status_t job_wait(mw_sql_pool_t *pool, job_t *job, apr_int64_t until)
{
    while (job->state == JOB_TAKEN
           || (job->state < 0 && pool->is_open && pool->is_writing)) {
        if (job->state == JOB_TAKEN) {
            /* not for long: it is being done */
            pthread_cond_wait(&pool->written, &pool->mutex);
        }
        else if (!cond_wait(&pool->written, &pool->mutex, until)
                 && job->state != JOB_TAKEN) {
            break;
        }
    }
    if (job->state >= 0) {
        return APR_SUCCESS;
    }
    if (!pool->is_open) {
        return APR_NOTFOUND;
    }
    return pool->is_writing ? APR_TIMEUP : APR_SUCCESS;
}

/* One thread of a child writes at a time. When this one is to, its job is not
 * done; job_end() follows. */
static apr_status_t job_begin(mw_sql_pool_t *pool, job_t *job,
                              apr_int64_t until)
{
    job_t **last = &pool->jobs;
    apr_status_t rv;

    pthread_mutex_lock(&pool->mutex);
    if (until > mw_sql_clock()) {
        while (*last) {
            last = &(*last)->next;
        }
        *last = job;
    }
    rv = job_wait(pool, job, until);
    job_leave(pool, job);
    pool->is_writing |= rv == APR_SUCCESS && job->state < 0;
    pthread_mutex_unlock(&pool->mutex);
    return rv;
}

static void job_end(mw_sql_pool_t *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->is_writing = 0;
    pthread_cond_broadcast(&pool->written);
    pthread_mutex_unlock(&pool->mutex);
}

/* The one that waits longest, or NULL. */
static job_t *job_take(mw_sql_pool_t *pool)
{
    job_t *job;

    pthread_mutex_lock(&pool->mutex);
    job = pool->jobs;
    if (job) {
        job->state = JOB_TAKEN;
        pool->jobs = job->next;
    }
    pthread_mutex_unlock(&pool->mutex);
    return job;
}

static void jobs_return(mw_sql_pool_t *pool, job_t *jobs, int is_committed)
{
    job_t *next;

    pthread_mutex_lock(&pool->mutex);
    for (; jobs; jobs = next) {
        next = jobs->next;
        jobs->next = NULL;
        jobs->state = is_committed ? jobs->result : JOB_BACK;
    }
    pthread_cond_broadcast(&pool->written);
    pthread_mutex_unlock(&pool->mutex);
}

/* Within a transaction. What fails is undone, and comes back to its thread,
 * unless it is no trouble. */
static int job_run(mw_sql_t *store, mw_sql_conn_t *conn, job_t *job)
{
    const apr_uint64_t evicted = conn->evicted, expired = conn->expired;
    int rc = mw_sql_do(store, conn, MW_SQL_SAVE);

    if (rc != SQLITE_OK) {
        return rc;
    }
    job->result = job->work(store, conn, job->call, job->baton);
    if (job->result != SQLITE_OK) {
        job->result =
            job->result == SQLITE_NOTFOUND ? SQLITE_NOTFOUND : JOB_BACK;
        conn->evicted = evicted;
        conn->expired = expired;
        rc = mw_sql_do(store, conn, MW_SQL_SAVE_UNDO);
    }
    return rc == SQLITE_OK ? mw_sql_do(store, conn, MW_SQL_SAVE_END) : rc;
}

/* @param begun when the transaction did
 * @param taken gets the jobs that were run, also when it fails */
static int jobs_run(mw_sql_t *store, mw_sql_conn_t *conn, apr_int64_t begun,
                    job_t **taken)
{
    job_t *job;
    int rc = SQLITE_OK;
    int n;

    for (n = 0;
         rc == SQLITE_OK && n < JOBS_MAX && mw_sql_clock() - begun < JOBS_TIME;
         n++) {
        job = job_take(&store->pool);
        if (!job) {
            break;
        }
        job->next = *taken;
        *taken = job;
        rc = job_run(store, conn, job);
    }
    return rc;
}

/* --- transactions --------------------------------------------------------- */

static void transaction_count(mw_sql_t *store, const mw_sql_conn_t *conn)
{
    const cachemw_services_t *services = store->services;

    if (conn->evicted) {
        services->count(services, CACHEMW_COUNT_EVICTED, conn->evicted);
    }
    if (conn->expired) {
        services->count(services, CACHEMW_COUNT_EXPIRED, conn->expired);
    }
}

/* @param others gets the jobs that were done in it; NULL: none are */
static int transaction_run(mw_sql_t *store, mw_sql_conn_t *conn, job_t *own,
                           job_t **others)
{
    apr_int64_t begun;
    int rc = mw_sql_do(store, conn, MW_SQL_BEGIN);

    begun = mw_sql_clock();
    conn->evicted = conn->expired = 0;
    if (rc != SQLITE_OK) {
        return rc;
    }
    rc = own->work(store, conn, own->call, own->baton);
    if (rc == SQLITE_OK && others) {
        rc = jobs_run(store, conn, begun, others);
    }
    if (rc == SQLITE_OK) {
        rc = mw_sql_do(store, conn, MW_SQL_COMMIT);
    }
    if (rc == SQLITE_OK) {
        transaction_count(store, conn);
    }
    else if (!sqlite3_get_autocommit(conn->db)
             && mw_sql_do(store, conn, MW_SQL_ROLLBACK) != SQLITE_OK) {
        conn->is_bad = 1;
    }
    return rc;
}

static int evict_work(mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, void *baton)
{
    return mw_sql_room_evict(store, conn, call, *(int *)baton);
}

/* A disk that is full: what is in the log goes into the database, where it has
 * its place, and the log begins again at its front. */
static void transaction_relieve(mw_sql_t *store, mw_sql_conn_t *conn,
                                const cachemw_call_t *call, int tries)
{
    int n = 8 << tries;
    job_t evict = { .work = evict_work, .call = call, .baton = &n };

    if (mw_sql_files_disk_is_full(store)) {
        sqlite3_wal_checkpoint_v2(conn->db, NULL, SQLITE_CHECKPOINT_PASSIVE,
                                  NULL, NULL);
    }
    transaction_run(store, conn, &evict, NULL);
}

/* The job of this thread, and of those who wait meanwhile. */
static int transaction_do(mw_sql_t *store, mw_sql_conn_t *conn, job_t *own)
{
    job_t *others = NULL;
    int tries = 0;
    int rc = transaction_run(store, conn, own, &others);

    if (others) {
        jobs_return(&store->pool, others, rc == SQLITE_OK);
        if (rc != SQLITE_OK) {
            rc = transaction_run(store, conn, own, NULL);
        }
    }
    while ((rc & 0xff) == SQLITE_FULL && tries < FULL_TRIES) {
        transaction_relieve(store, conn, own->call, tries++);
        rc = transaction_run(store, conn, own, NULL);
    }
    return rc;
}

/* Nobody waits for what follows job_end(). */
static apr_status_t transaction_lead(mw_sql_t *store, job_t *job,
                                     apr_int64_t until)
{
    const cachemw_services_t *services = store->services;
    mw_sql_conn_t *conn;
    apr_status_t rv = pool_take(store, until, 1, &conn);
    int rc;

    if (rv != APR_SUCCESS) {
        job_end(&store->pool);
        return rv;
    }
    conn->is_log_stuck = mw_sql_log_is_stuck(conn);
    rc = transaction_do(store, conn, job);
    job_end(&store->pool);
    if ((rc & 0xff) == SQLITE_FULL && mw_sql_files_disk_is_full(store)) {
        services->log(services, CACHEMW_LOG_WARNING, ENOSPC,
                      "%s: the disk is full: responses are not stored",
                      store->path);
    }
    rv = mw_sql_status(conn, rc);
    if (rv == APR_SUCCESS) {
        mw_sql_log_shorten(conn);
    }
    pool_give(store, conn);
    return rv;
}

apr_status_t mw_sql_transact(mw_sql_t *store, const cachemw_call_t *call,
                             apr_interval_time_t wait, mw_sql_work_fn *work,
                             void *baton)
{
    const apr_int64_t until = mw_sql_clock() + wait;
    job_t job = {
        .work = work, .call = call, .baton = baton, .state = JOB_WAITS
    };
    apr_status_t rv = job_begin(&store->pool, &job, until);

    if (rv == APR_SUCCESS && job.state == SQLITE_NOTFOUND) {
        rv = APR_NOTFOUND;
    }
    else if (rv == APR_SUCCESS && job.state != SQLITE_OK) {
        rv = transaction_lead(store, &job, until);
    }
    return rv;
}
