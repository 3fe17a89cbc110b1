/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_time.h"

#include "core/futex.h"
#include "core/state.h"

#define FUTEX_PAUSE 20000

/* For where the kernel has no futex, or does not let us use it. */
static void futex_pause(const apr_uint64_t *word, apr_uint64_t seen,
                        apr_int64_t until)
{
    apr_int64_t left = until - mw_monotonic();

    if (left > 0
        && (apr_uint32_t)__atomic_load_n(word, __ATOMIC_ACQUIRE)
               == (apr_uint32_t)seen) {
        apr_sleep(left < FUTEX_PAUSE ? left : FUTEX_PAUSE);
    }
}

#ifdef __linux__

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* SYS_futex takes a time of longs. */
#ifdef SYS_futex_time64
#define FUTEX_CALL \
    (sizeof(time_t) > sizeof(long) ? SYS_futex_time64 : SYS_futex)
#else
#define FUTEX_CALL SYS_futex
#endif

/* The half of the word that holds its low bits. */
static const apr_uint32_t *futex_of(const apr_uint64_t *word)
{
    const apr_uint32_t *halves = (const apr_uint32_t *)(const void *)word;

    return halves + APR_IS_BIGENDIAN;
}

/* FUTEX_WAIT_BITSET takes a point in time, FUTEX_WAIT a duration. */
void mw_futex_wait(const apr_uint64_t *word, apr_uint64_t seen,
                   apr_int64_t until)
{
    struct timespec end;

    end.tv_sec = until / 1000000;
    end.tv_nsec = until % 1000000 * 1000;
    if (syscall(FUTEX_CALL, futex_of(word), FUTEX_WAIT_BITSET,
                (apr_uint32_t)seen, &end, NULL, FUTEX_BITSET_MATCH_ANY)
            != 0
        && errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT) {
        futex_pause(word, seen, until);
    }
}

void mw_futex_wake(apr_uint64_t *word)
{
    syscall(FUTEX_CALL, futex_of(word), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#else

void mw_futex_wait(const apr_uint64_t *word, apr_uint64_t seen,
                   apr_int64_t until)
{
    futex_pause(word, seen, until);
}

void mw_futex_wake(apr_uint64_t *word)
{
    (void)word;
}

#endif
