/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file pool.h
 * @brief A child's connections to one server.
 *
 * Those that nobody uses are a stack: the one used last is used next, and what
 * has not been used for a minute is closed.
 */
#ifndef MW_REDIS_POOL_H
#define MW_REDIS_POOL_H

#include "conn.h"

/**
 * Make a pool; nothing is connected. malloc'ed: it lives until
 * mw_redis_pool_unref() was called for it and for each mw_redis_pool_ref().
 * @param endpoint copied
 * @param greeting must outlive the pool, and what it points to
 * @return NULL: no memory
 */
mw_redis_pool_t *mw_redis_pool_make(const mw_redis_t *store,
                                    const mw_redis_endpoint_t *endpoint,
                                    const mw_redis_greeting_t *greeting);

/** Any thread. @return pool */
mw_redis_pool_t *mw_redis_pool_ref(mw_redis_pool_t *pool);
/** Any thread. The last one closes what is idle and frees it. */
void mw_redis_pool_unref(mw_redis_pool_t *pool);

/** Where its server is; as long as the pool. */
const mw_redis_endpoint_t *mw_redis_pool_endpoint(const mw_redis_pool_t *pool);

/** Close what is idle, and what is in use when it is given back: its server is
 *  not what it was, or the child ends. Any thread. */
void mw_redis_pool_drop(mw_redis_pool_t *pool);

/**
 * A connection beside those of the pool, for who needs one for long; the caller
 * closes it, before the pool goes. See mw_redis_conn_open().
 */
apr_status_t mw_redis_pool_connect(const mw_redis_pool_t *pool,
                                   apr_int64_t deadline,
                                   mw_redis_conn_t **conn);

/**
 * Run a batch on a connection of the pool. Any thread. It is tried once more,
 * on a new connection, when an idle one turns out to have ended; and with
 * retry_on_timeout when half of the time has passed without an answer.
 * @return see mw_redis_conn_batch() and mw_redis_conn_open(); APR_EAGAIN: all
 *         connections were in use until the deadline
 */
apr_status_t mw_redis_pool_batch(mw_redis_pool_t *pool, mw_redis_batch_t *batch,
                                 apr_int64_t deadline,
                                 mw_redis_reply_t ***replies);

#endif
