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

/**
 * Longest waits in milliseconds, far longer than such locks are held: those
 * under which memory is changed, and those under which files are.
 */
#define MW_LOCK_WAIT 250
#define MW_LOCK_WAIT_FILES 1000

/** Make a robust mutex between processes. */
apr_status_t mw_lock_init(pthread_mutex_t *mutex);

/** What mw_lock() does when somebody else has the lock. */
int mw_lock_wait(pthread_mutex_t *mutex, unsigned char *stuck, int most);

/**
 * Lock a robust mutex.
 * @param stuck atomic, of this process: a wait was in vain. Until the lock is
 *              had again, nobody here waits for it once more
 * @param most longest wait in milliseconds
 * @return 0; EOWNERDEAD: locked, the last holder died; other: not locked
 */
static inline int mw_lock(pthread_mutex_t *mutex, unsigned char *stuck,
                          int most)
{
    int rv = pthread_mutex_trylock(mutex);

    if (rv == EBUSY) {
        return mw_lock_wait(mutex, stuck, most);
    }
    if (__atomic_load_n(stuck, __ATOMIC_RELAXED)) {
        __atomic_store_n(stuck, 0, __ATOMIC_RELAXED);
    }
    return rv;
}

#endif
