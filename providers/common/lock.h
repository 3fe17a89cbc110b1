/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file lock.h
 * @brief Locks whose holder may be stopped: nobody waits for long.
 */
#ifndef MW_LOCK_H
#define MW_LOCK_H

#include <errno.h>
#include <pthread.h>

#include "apr_errno.h"

#if defined(__SANITIZE_THREAD__)
#define MW_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MW_TSAN
#endif
#endif

/** Longest wait for a lock in milliseconds; locks are held for far less. */
#define MW_LOCK_WAIT 250

/** Make a robust mutex between processes. */
apr_status_t mw_lock_init(pthread_mutex_t *mutex);

/** What mw_lock() does when somebody else has the lock. */
int mw_lock_wait(pthread_mutex_t *mutex, unsigned char *stuck);

/**
 * Lock a robust mutex.
 * @param stuck atomic, of this process: a wait was in vain. Until the lock is
 *              had again, nobody here waits for it once more
 * @return 0; EOWNERDEAD: locked, the last holder died; other: not locked
 */
static inline int mw_lock(pthread_mutex_t *mutex, unsigned char *stuck)
{
    int rv = pthread_mutex_trylock(mutex);

    if (rv == EBUSY) {
        return mw_lock_wait(mutex, stuck);
    }
    if (__atomic_load_n(stuck, __ATOMIC_RELAXED)) {
        __atomic_store_n(stuck, 0, __ATOMIC_RELAXED);
    }
    return rv;
}

#endif
