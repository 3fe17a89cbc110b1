/* SPDX-License-Identifier: Apache-2.0 */

#include "latency.h"

#define STEPS_LOG2 6
#define STEPS (1 << STEPS_LOG2)

static unsigned int bucket_of(apr_uint64_t ns)
{
    unsigned int shift, i;

    if (ns < STEPS) {
        return (unsigned int)ns;
    }
    shift = 63 - (unsigned int)__builtin_clzll(ns) - STEPS_LOG2;
    i = STEPS * (shift + 1) + (unsigned int)(ns >> shift) - STEPS;
    return i < MW_LATENCY_BUCKETS ? i : MW_LATENCY_BUCKETS - 1;
}

/* The largest time that belongs there. */
static apr_uint64_t bucket_end(unsigned int i)
{
    unsigned int shift;

    if (i < STEPS) {
        return i;
    }
    shift = i / STEPS - 1;
    return ((apr_uint64_t)(STEPS + i % STEPS + 1) << shift) - 1;
}

void mw_latency_add(mw_latency_t *latency, apr_uint64_t ns)
{
    latency->n++;
    latency->sum += ns;
    if (ns > latency->max) {
        latency->max = ns;
    }
    latency->buckets[bucket_of(ns)]++;
}

void mw_latency_merge(mw_latency_t *to, const mw_latency_t *from)
{
    unsigned int i;

    to->n += from->n;
    to->sum += from->sum;
    if (from->max > to->max) {
        to->max = from->max;
    }
    for (i = 0; i < MW_LATENCY_BUCKETS; i++) {
        to->buckets[i] += from->buckets[i];
    }
}

apr_uint64_t mw_latency_at(const mw_latency_t *latency, double part)
{
    const double wanted = part * (double)latency->n;
    apr_uint64_t seen = 0;
    unsigned int i;

    for (i = 0; i < MW_LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen > 0 && (double)seen >= wanted) {
            return bucket_end(i) < latency->max ? bucket_end(i) : latency->max;
        }
    }
    return latency->max;
}
