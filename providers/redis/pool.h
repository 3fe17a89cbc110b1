/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file pool.h
 * @brief A child's connections to one server.
 */
#ifndef MW_REDIS_POOL_H
#define MW_REDIS_POOL_H

#include "conn.h"

/**
 * Make a pool: nothing is connected. It lives until mw_redis_pool_unref() was
 * called for it and for every mw_redis_pool_ref(); malloc'ed.
 * @param endpoint copied
 * @param greeting must outlive the pool
 */
mw_redis_pool_t *mw_redis_pool_make(const mw_redis_t *store,
                                    const mw_redis_endpoint_t *endpoint,
                                    const mw_redis_greeting_t *greeting);

/** Any thread. */
void mw_redis_pool_ref(mw_redis_pool_t *pool);
/** Any thread. The last one closes what is idle; what is in use, its user. */
void mw_redis_pool_unref(mw_redis_pool_t *pool);

const mw_redis_endpoint_t *mw_redis_pool_endpoint(const mw_redis_pool_t *pool);

/** Close what is idle, and what is in use when it is given back: its server is
 *  another one now, or the child ends. */
void mw_redis_pool_drop(mw_redis_pool_t *pool);

/**
 * Run a batch on a connection of the pool: the one used last, else a new one;
 * waits for one when there are max_connections. Tried once more, on a new
 * connection, when an idle one turns out to have ended; with retry_on_timeout,
 * when half of the time has passed without an answer.
 * @return see mw_redis_conn_batch(), mw_redis_conn_open(); APR_TIMEUP: no
 *         connection became free
 */
apr_status_t mw_redis_pool_batch(mw_redis_pool_t *pool, mw_redis_batch_t *batch,
                                 apr_int64_t deadline,
                                 mw_redis_reply_t ***replies);

#endif
