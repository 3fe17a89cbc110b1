/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "pool.h"
#include "providers/common/cond.h"
#include "schema.h"

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

/* Who only looks leaves it to the server. */
static void damage_deal(const mw_sql_t *store, const mw_sql_file_t *file,
                        const char *damage, apr_int64_t until)
{
    if (!store->is_look) {
        mw_sql_files_set_aside(store, file, damage, until);
        return;
    }
    store->services->log(store->services, CACHEMW_LOG_ERR, APR_SUCCESS,
                         "%s: %s", store->path, damage);
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
        damage_deal(store, &file, damage, until);
        return APR_EINCOMPLETE;
    }
    return rv;
}

/* Once more, when it was damaged: a new one may be in its place now. */
static apr_status_t conn_open(mw_sql_t *store, apr_int64_t until,
                              mw_sql_conn_t **result)
{
    apr_status_t rv = conn_try(store, until, result);

    if (store->is_look) {
        return rv;
    }
    if (rv == APR_EINCOMPLETE) {
        rv = conn_try(store, until, result);
    }
    return rv == APR_EINCOMPLETE ? APR_EGENERAL : rv;
}

/* --- the pool ------------------------------------------------------------- */

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
        if (!mw_cond_wait(&pool->given, &pool->mutex, until)) {
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

apr_status_t mw_sql_pool_take(mw_sql_t *store, apr_int64_t until, int is_writer,
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

void mw_sql_pool_give(mw_sql_t *store, mw_sql_conn_t *conn)
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
        damage_deal(store, &file, damage, until);
    }
}

void mw_sql_pool_begin(mw_sql_t *store, apr_pool_t *pchild)
{
    mw_sql_pool_t *pool = &store->pool;
    mw_sql_conn_t *conn;

    memset(pool, 0, sizeof(*pool));
    pthread_mutex_init(&pool->mutex, NULL);
    mw_cond_init(&pool->given);
    pool->is_open = 1;
    apr_pool_cleanup_register(pchild, store, pool_end, apr_pool_cleanup_null);
    if (mw_sql_pool_take(store, mw_sql_clock() + FIRST_WAIT, 0, &conn)
        == APR_SUCCESS) {
        mw_sql_pool_give(store, conn);
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
    apr_status_t rv = mw_sql_pool_take(store, mw_sql_clock() + wait, 0, &conn);

    if (rv == APR_SUCCESS) {
        rv = mw_sql_status(conn, work(store, conn, call, baton));
        if (store->is_look && conn->damage) {
            rv = APR_EINCOMPLETE;
        }
        mw_sql_pool_give(store, conn);
    }
    return rv;
}
