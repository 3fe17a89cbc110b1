/* SPDX-License-Identifier: Apache-2.0 */

#include "core/futex.h"

#ifdef __linux__

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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
    syscall(SYS_futex, futex_of(word), FUTEX_WAIT_BITSET, (apr_uint32_t)seen,
            &end, NULL, FUTEX_BITSET_MATCH_ANY);
}

void mw_futex_wake(apr_uint64_t *word)
{
    syscall(SYS_futex, futex_of(word), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#else

#include "apr_time.h"

#include "core/state.h"

#define FUTEX_PAUSE 20000

void mw_futex_wait(const apr_uint64_t *word, apr_uint64_t seen,
                   apr_int64_t until)
{
    apr_int64_t left = until - mw_monotonic();

    if (left > 0
        && (apr_uint32_t)__atomic_load_n(word, __ATOMIC_ACQUIRE)
               == (apr_uint32_t)seen) {
        apr_sleep(left < FUTEX_PAUSE ? left : FUTEX_PAUSE);
    }
}

void mw_futex_wake(apr_uint64_t *word)
{
    (void)word;
}

#endif
