/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file latency.h
 * @brief How long calls took: counts by time, to within 1.6 %, in fixed memory.
 */
#ifndef MW_LATENCY_H
#define MW_LATENCY_H

#include "apr.h"

/** Below 64 ns each has a bucket; from there on each doubling has 64. */
#define MW_LATENCY_BUCKETS (64 * 36)

/** Plain values: zero-filled is empty. One thread writes. */
typedef struct mw_latency_t {
    apr_uint64_t n;
    apr_uint64_t sum; /**< ns */
    apr_uint64_t max; /**< ns */
    apr_uint64_t buckets[MW_LATENCY_BUCKETS];
} mw_latency_t;

void mw_latency_add(mw_latency_t *latency, apr_uint64_t ns);

/** Add all of `from`. */
void mw_latency_merge(mw_latency_t *to, const mw_latency_t *from);

/** The time in ns that this part (0 to 1) of the calls did not exceed; 0 when
 *  there are none. */
apr_uint64_t mw_latency_at(const mw_latency_t *latency, double part);

#endif
