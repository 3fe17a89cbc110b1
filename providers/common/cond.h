/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file cond.h
 * @brief Conditions that are waited for until a time of the monotonic clock,
 *        as deadlines are: setting the clock neither ends nor prolongs a wait.
 */
#ifndef MW_COMMON_COND_H
#define MW_COMMON_COND_H

#include <pthread.h>
#include <time.h>

#include "apr_time.h"

/** @return 0; an error: there is none to destroy */
static inline int mw_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rv = pthread_condattr_init(&attr);

    if (rv == 0) {
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        rv = pthread_cond_init(cond, &attr);
        pthread_condattr_destroy(&attr);
    }
    return rv;
}

/**
 * With the mutex held.
 * @param until monotonic µs
 * @return 0: it is over; other: woken up, perhaps for nothing
 */
static inline int mw_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                               apr_int64_t until)
{
    const struct timespec ts = { .tv_sec = until / APR_USEC_PER_SEC,
                                 .tv_nsec = until % APR_USEC_PER_SEC * 1000 };

    return pthread_cond_timedwait(cond, mutex, &ts) == 0;
}

#endif
