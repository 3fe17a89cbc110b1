/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file futex.h
 * @brief Sleep until a word in shared memory changes.
 *
 * Where the system has no futex, sleepers look again every 20 ms.
 */
#ifndef MW_FUTEX_H
#define MW_FUTEX_H

#include "apr.h"

/**
 * Sleep while the low 32 bits of a word are those of `seen`, until somebody
 * wakes, a signal comes or it is `until` (as mw_monotonic()). May return for no
 * reason.
 */
void mw_futex_wait(const apr_uint64_t *word, apr_uint64_t seen,
                   apr_int64_t until);

/** Wake all, of any process, that sleep on it. */
void mw_futex_wake(apr_uint64_t *word);

#endif
