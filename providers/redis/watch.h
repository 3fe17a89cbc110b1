/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file watch.h
 * @brief Listening to what other servers tell: each listener has a
 *        connection for that alone.
 */
#ifndef MW_REDIS_WATCH_H
#define MW_REDIS_WATCH_H

#include "redis.h"

/** In a child: what the slot makes ends with pchild. */
void mw_redis_watch_child_init(mw_redis_t *store, apr_pool_t *pchild);

/** The slot. */
apr_status_t mw_redis_watch(void *self, const cachemw_call_t *call,
                            cachemw_watch_fn *each, void *baton);

#endif
