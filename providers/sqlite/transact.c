/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>

#include "files.h"
#include "log.h"
#include "providers/common/cond.h"
#include "room.h"
#include "statements.h"
#include "transact.h"

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
    struct mw_sql_job_t *next;  /* of those who wait */
    struct mw_sql_job_t *taken; /* of those taken with it */
    pthread_cond_t news;        /* of its state, or that it may write */
    mw_sql_work_fn *work;
    const cachemw_call_t *call;
    void *baton;
    int state;  /* JOB_… or, when it is done, a result; under the mutex */
    int result; /* of who has taken it */
} job_t;

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
            pthread_cond_wait(&job->news, &pool->mutex);
        }
        else if (!mw_cond_wait(&job->news, &pool->mutex, until)
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

/* With the mutex held, when nobody writes: the next one wakes up, alone, for it
 * does the jobs of the others. */
static void jobs_wake(mw_sql_pool_t *pool)
{
    job_t *job = pool->jobs;

    while (job && job->state >= 0) {
        job = job->next;
    }
    if (job) {
        pthread_cond_signal(&job->news);
    }
}

/* One thread of a child writes at a time. When this one is to, its job is not
 * done; job_end() follows. */
static apr_status_t job_begin(mw_sql_pool_t *pool, job_t *job,
                              apr_int64_t until)
{
    job_t **last = &pool->jobs;
    apr_status_t rv;

    mw_cond_init(&job->news);
    pthread_mutex_lock(&pool->mutex);
    if (until > mw_sql_clock()) {
        while (*last) {
            last = &(*last)->next;
        }
        *last = job;
    }
    rv = job_wait(pool, job, until);
    job_leave(pool, job);
    if (rv == APR_SUCCESS && job->state < 0) {
        pool->is_writing = 1;
    }
    else if (!pool->is_writing) {
        jobs_wake(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    pthread_cond_destroy(&job->news);
    return rv;
}

static void job_end(mw_sql_pool_t *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->is_writing = 0;
    jobs_wake(pool);
    pthread_mutex_unlock(&pool->mutex);
}

/* The one that waits longest, or NULL. */
static job_t *job_take(mw_sql_pool_t *pool)
{
    job_t *job;

    pthread_mutex_lock(&pool->mutex);
    job = pool->jobs;
    while (job && job->state != JOB_WAITS) {
        job = job->next;
    }
    if (job) {
        job->state = JOB_TAKEN;
    }
    pthread_mutex_unlock(&pool->mutex);
    return job;
}

static void jobs_return(mw_sql_pool_t *pool, job_t *jobs, int is_committed)
{
    job_t *next;

    pthread_mutex_lock(&pool->mutex);
    for (; jobs; jobs = next) {
        next = jobs->taken;
        jobs->state = is_committed ? jobs->result : JOB_BACK;
        pthread_cond_signal(&jobs->news);
    }
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
        job->taken = *taken;
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
    apr_status_t rv = mw_sql_pool_take(store, until, 1, &conn);
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
    mw_sql_pool_give(store, conn);
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
