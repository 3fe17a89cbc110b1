/* SPDX-License-Identifier: Apache-2.0 */

#include <time.h>

#include "lock.h"

/* A clock that nobody sets; the thread sanitizer knows only the other function
 * everywhere. */
#if defined(__GLIBC_PREREQ) && !defined(MW_TSAN)
#if __GLIBC_PREREQ(2, 30)
#define LOCK_CLOCK CLOCK_MONOTONIC
#endif
#endif

apr_status_t mw_lock_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    int rv = pthread_mutexattr_init(&attr);

    if (rv) {
        return rv;
    }
    rv = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (!rv) {
        rv = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    }
    if (!rv) {
        rv = pthread_mutex_init(mutex, &attr);
    }
    pthread_mutexattr_destroy(&attr);
    return rv;
}

static int lock_until(pthread_mutex_t *mutex, const struct timespec *until)
{
#ifdef LOCK_CLOCK
    return pthread_mutex_clocklock(mutex, LOCK_CLOCK, until);
#else
    return pthread_mutex_timedlock(mutex, until);
#endif
}

static void lock_now(struct timespec *now)
{
#ifdef LOCK_CLOCK
    clock_gettime(LOCK_CLOCK, now);
#else
    clock_gettime(CLOCK_REALTIME, now);
#endif
}

int mw_lock_wait(pthread_mutex_t *mutex, unsigned char *stuck, int most)
{
    struct timespec until;
    int rv;

    if (__atomic_load_n(stuck, __ATOMIC_RELAXED)) {
        return ETIMEDOUT;
    }
    lock_now(&until);
    until.tv_sec += most / 1000;
    until.tv_nsec += most % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    rv = lock_until(mutex, &until);
    if (rv == ETIMEDOUT) {
        __atomic_store_n(stuck, 1, __ATOMIC_RELAXED);
    }
    return rv;
}
