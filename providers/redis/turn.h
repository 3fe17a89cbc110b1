/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file turn.h
 * @brief Something that one thread of a child does for all: asking who serves
 *        what. Others wait for what it finds.
 */
#ifndef MW_REDIS_TURN_H
#define MW_REDIS_TURN_H

#include <pthread.h>

#include "redis.h"

typedef struct mw_redis_turn_t {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    int is_taken;
    apr_int64_t last; /**< when it was done last */
} mw_redis_turn_t;

void mw_redis_turn_init(mw_redis_turn_t *turn);
void mw_redis_turn_destroy(mw_redis_turn_t *turn);

/**
 * Ask for the turn.
 * @param pause how long after it was done it need not be done again
 * @return APR_SUCCESS: the caller's; mw_redis_turn_end() follows.
 *         APR_EAGAIN: somebody else has just done it. APR_TIMEUP
 */
apr_status_t mw_redis_turn_begin(mw_redis_turn_t *turn, const mw_redis_t *store,
                                 apr_interval_time_t pause,
                                 apr_int64_t deadline);

void mw_redis_turn_end(mw_redis_turn_t *turn, const mw_redis_t *store);

#endif
