/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "providers/common/cond.h"

/* Who has not been used for so long is closed. */
#define POOL_IDLE_MAX apr_time_from_sec(60)

/* Of what is left, what a connection that was idle for long may take to show
 * that it lives. */
#define POOL_HEALTH_SHARE 4

struct mw_redis_pool_t {
    const mw_redis_t *store;
    const mw_redis_greeting_t *greeting;
    mw_redis_endpoint_t endpoint;
    int refs;              /* atomic */
    pthread_mutex_t mutex; /* covers what follows; never held over a call */
    pthread_cond_t given;
    int connections;         /* idle and in use */
    int idle_count;          /* of idle */
    unsigned int generation; /* those of another one are not kept */
    mw_redis_conn_t *idle[]; /* max_connections; the last used one last */
};

/* --- life ----------------------------------------------------------------- */

mw_redis_pool_t *mw_redis_pool_make(const mw_redis_t *store,
                                    const mw_redis_endpoint_t *endpoint,
                                    const mw_redis_greeting_t *greeting)
{
    apr_size_t most = (apr_size_t)store->settings.max_connections;
    apr_size_t size = sizeof(mw_redis_pool_t) + most * sizeof(void *);
    apr_size_t len = strlen(endpoint->host) + 1;
    mw_redis_pool_t *pool = calloc(1, size + len);

    if (!pool || pthread_mutex_init(&pool->mutex, NULL) != 0
        || mw_cond_init(&pool->given) != 0) {
        free(pool);
        return NULL;
    }
    pool->store = store;
    pool->greeting = greeting;
    pool->endpoint = *endpoint;
    pool->endpoint.host = memcpy((char *)pool + size, endpoint->host, len);
    pool->refs = 1;
    return pool;
}

mw_redis_pool_t *mw_redis_pool_ref(mw_redis_pool_t *pool)
{
    __atomic_add_fetch(&pool->refs, 1, __ATOMIC_RELAXED);
    return pool;
}

void mw_redis_pool_unref(mw_redis_pool_t *pool)
{
    if (__atomic_sub_fetch(&pool->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    mw_redis_pool_drop(pool);
    pthread_cond_destroy(&pool->given);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

const mw_redis_endpoint_t *mw_redis_pool_endpoint(const mw_redis_pool_t *pool)
{
    return &pool->endpoint;
}

apr_status_t mw_redis_pool_connect(const mw_redis_pool_t *pool,
                                   apr_int64_t deadline, mw_redis_conn_t **conn)
{
    return mw_redis_conn_open(pool->store, &pool->endpoint, pool->greeting,
                              deadline, conn);
}

void mw_redis_pool_drop(mw_redis_pool_t *pool)
{
    mw_redis_conn_t *conn = NULL;

    pthread_mutex_lock(&pool->mutex);
    pool->generation++;
    pthread_mutex_unlock(&pool->mutex);
    do {
        pthread_mutex_lock(&pool->mutex);
        conn = pool->idle_count ? pool->idle[--pool->idle_count] : NULL;
        pool->connections -= conn != NULL;
        pthread_mutex_unlock(&pool->mutex);
        if (conn) {
            mw_redis_conn_close(conn);
        }
    } while (conn);
    pthread_cond_broadcast(&pool->given);
}

/* --- taking and giving ---------------------------------------------------- */

/* An idle connection, or the right to make one, with *conn NULL. Where a new
 * one is wanted an idle one may have to be closed for it. The mutex is held.
 * @return 0: all are in use */
static int conn_pick(mw_redis_pool_t *pool, int is_new, mw_redis_conn_t **conn)
{
    int is_full = pool->connections >= pool->store->settings.max_connections;

    if (pool->idle_count && (!is_new || is_full)) {
        *conn = pool->idle[--pool->idle_count];
        return 1;
    }
    pool->connections += !is_full;
    return !is_full;
}

/* Who has waited in vain could do nothing any more with a connection that is
 * given at that moment, but may have taken the wake-up from another one. */
static apr_status_t pool_reserve(mw_redis_pool_t *pool, apr_int64_t deadline,
                                 int is_new, mw_redis_conn_t **conn,
                                 unsigned int *generation)
{
    int is_picked;

    *conn = NULL;
    pthread_mutex_lock(&pool->mutex);
    do {
        is_picked = conn_pick(pool, is_new, conn);
    } while (!is_picked && mw_cond_wait(&pool->given, &pool->mutex, deadline));
    if (!is_picked) {
        pthread_cond_signal(&pool->given);
    }
    *generation = pool->generation;
    pthread_mutex_unlock(&pool->mutex);
    if (!is_picked) {
        mw_redis_count(pool->store, "all-in-use");
    }
    return is_picked ? APR_SUCCESS : APR_EAGAIN;
}

static void pool_discard(mw_redis_pool_t *pool, mw_redis_conn_t *conn)
{
    if (conn) {
        mw_redis_conn_close(conn);
    }
    pthread_mutex_lock(&pool->mutex);
    pool->connections--;
    pthread_cond_signal(&pool->given);
    pthread_mutex_unlock(&pool->mutex);
}

static void pool_give(mw_redis_pool_t *pool, mw_redis_conn_t *conn,
                      unsigned int generation)
{
    mw_redis_conn_t *old = NULL;

    conn->used = mw_redis_clock(pool->store);
    pthread_mutex_lock(&pool->mutex);
    if (conn->is_bad || generation != pool->generation) {
        old = conn;
    }
    else {
        if (pool->idle_count
            && conn->used - pool->idle[0]->used > POOL_IDLE_MAX) {
            old = pool->idle[0];
            memmove(pool->idle, pool->idle + 1,
                    (apr_size_t)--pool->idle_count * sizeof(old));
        }
        pool->idle[pool->idle_count++] = conn;
    }
    pool->connections -= old != NULL;
    pthread_cond_signal(&pool->given);
    pthread_mutex_unlock(&pool->mutex);
    if (old) {
        mw_redis_conn_close(old);
    }
}

/* --- batches -------------------------------------------------------------- */

static apr_status_t conn_ping(mw_redis_conn_t *conn, apr_pool_t *pool,
                              apr_int64_t deadline)
{
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, 1024, pool);
    mw_redis_batch_words(&batch, "PING", NULL);
    rv = mw_redis_conn_batch(conn, &batch, deadline, &replies);
    if (rv == APR_SUCCESS && !mw_redis_reply_is(replies[0], "PONG")) {
        rv = EPROTO;
    }
    return rv;
}

/* Whether a connection that nobody used for a while can be used. */
static int conn_is_fit(mw_redis_conn_t *conn, apr_pool_t *pool,
                       apr_int64_t deadline)
{
    const mw_redis_t *store = conn->store;
    apr_interval_time_t interval = store->settings.health_check_interval;
    apr_int64_t now;

    if (!interval) {
        return 1;
    }
    now = mw_redis_clock(store);
    if (now - conn->used < interval) {
        return 1;
    }
    return conn->stream.ops->is_quiet(&conn->stream)
           && conn_ping(conn, pool, now + (deadline - now) / POOL_HEALTH_SHARE)
                  == APR_SUCCESS;
}

/* On one connection. *is_fresh: in: it must be a new one; out: it was. */
static apr_status_t pool_try(mw_redis_pool_t *pool, mw_redis_batch_t *batch,
                             apr_int64_t deadline, apr_int64_t patience,
                             int *is_fresh, mw_redis_reply_t ***replies)
{
    mw_redis_conn_t *conn;
    unsigned int generation;
    apr_status_t rv =
        pool_reserve(pool, deadline, *is_fresh, &conn, &generation);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (conn && (*is_fresh || !conn_is_fit(conn, batch->pool, patience))) {
        mw_redis_conn_close(conn);
        conn = NULL;
    }
    *is_fresh = conn == NULL;
    if (!conn) {
        rv = mw_redis_conn_open(pool->store, &pool->endpoint, pool->greeting,
                                patience, &conn);
    }
    if (rv == APR_SUCCESS) {
        rv = mw_redis_conn_batch(conn, batch, patience, replies);
    }
    if (rv == APR_SUCCESS) {
        pool_give(pool, conn, generation);
    }
    else {
        pool_discard(pool, conn);
    }
    return rv;
}

apr_status_t mw_redis_pool_batch(mw_redis_pool_t *pool, mw_redis_batch_t *batch,
                                 apr_int64_t deadline,
                                 mw_redis_reply_t ***replies)
{
    apr_int64_t patience = deadline;
    apr_int64_t now;
    int is_fresh = 0;
    int is_again;
    apr_status_t rv;

    if (pool->store->settings.retry_on_timeout) {
        now = mw_redis_clock(pool->store);
        patience = now + (deadline - now) / 2;
    }
    rv = pool_try(pool, batch, deadline, patience, &is_fresh, replies);
    if (rv == APR_SUCCESS || rv == APR_EAGAIN || rv == APR_EINCOMPLETE
        || batch->failed != APR_SUCCESS) {
        return rv;
    }
    if (APR_STATUS_IS_TIMEUP(rv)) {
        is_again = pool->store->settings.retry_on_timeout;
    }
    else {
        /* its server may have gone and come again: the others end, too */
        is_again = !is_fresh && rv != EPROTO;
        if (!is_fresh) {
            mw_redis_pool_drop(pool);
        }
    }
    if (is_again && mw_redis_batch_again(batch) == APR_SUCCESS) {
        mw_redis_count(pool->store, "retried");
        is_fresh = 1;
        rv = pool_try(pool, batch, deadline, deadline, &is_fresh, replies);
    }
    return rv;
}
