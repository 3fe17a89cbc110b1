/* SPDX-License-Identifier: Apache-2.0 */

#include <time.h>

#include "chain.h"
#include "lock.h"

/* The thread sanitizer does not know the function everywhere. */
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30) && !defined(MW_CHAIN_TSAN)
#define LOCK_CLOCK CLOCK_MONOTONIC
#define LOCK_UNTIL(mutex, until) \
    pthread_mutex_clocklock((mutex), LOCK_CLOCK, (until))
#else
#define LOCK_CLOCK CLOCK_REALTIME
#define LOCK_UNTIL(mutex, until) pthread_mutex_timedlock((mutex), (until))
#endif

int mw_lock_wait(pthread_mutex_t *mutex, unsigned char *stuck)
{
    struct timespec until;
    int rv;

    if (MW_MEM_LOAD(stuck)) {
        return ETIMEDOUT;
    }
    clock_gettime(LOCK_CLOCK, &until);
    until.tv_nsec += MW_LOCK_WAIT * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    rv = LOCK_UNTIL(mutex, &until);
    if (rv == ETIMEDOUT) {
        MW_MEM_STORE(stuck, 1);
    }
    return rv;
}
