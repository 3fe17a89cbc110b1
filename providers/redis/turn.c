/* SPDX-License-Identifier: Apache-2.0 */

#include "providers/common/cond.h"
#include "turn.h"

void mw_redis_turn_init(mw_redis_turn_t *turn)
{
    pthread_mutex_init(&turn->mutex, NULL);
    mw_cond_init(&turn->ended);
}

void mw_redis_turn_destroy(mw_redis_turn_t *turn)
{
    pthread_cond_destroy(&turn->ended);
    pthread_mutex_destroy(&turn->mutex);
}

static apr_status_t turn_wait(mw_redis_turn_t *turn, apr_int64_t deadline)
{
    while (turn->is_taken
           && mw_cond_wait(&turn->ended, &turn->mutex, deadline)) {
    }
    return turn->is_taken ? APR_TIMEUP : APR_EAGAIN;
}

apr_status_t mw_redis_turn_begin(mw_redis_turn_t *turn, const mw_redis_t *store,
                                 apr_interval_time_t pause,
                                 apr_int64_t deadline)
{
    const apr_int64_t now = mw_redis_clock(store);
    apr_status_t rv = APR_SUCCESS;

    /* who has no time left would find out nothing, and keep others from it */
    if (now >= deadline) {
        return APR_TIMEUP;
    }
    pthread_mutex_lock(&turn->mutex);
    if (turn->is_taken) {
        rv = turn_wait(turn, deadline);
    }
    else if (turn->last && now - turn->last < pause) {
        rv = APR_EAGAIN;
    }
    else {
        turn->is_taken = 1;
    }
    pthread_mutex_unlock(&turn->mutex);
    return rv;
}

void mw_redis_turn_end(mw_redis_turn_t *turn, const mw_redis_t *store)
{
    pthread_mutex_lock(&turn->mutex);
    turn->is_taken = 0;
    turn->last = mw_redis_clock(store);
    pthread_cond_broadcast(&turn->ended);
    pthread_mutex_unlock(&turn->mutex);
}
