/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file traces.h
 * @brief Requests as sites see them, made from a seed: same seed, same trace.
 */
#ifndef BENCH_TRACES_H
#define BENCH_TRACES_H

#include "apr_pools.h"

typedef enum trace_kind_e {
    TRACE_ZIPF_08, /**< popularity falls with rank to the power of 0.8 */
    TRACE_ZIPF_10,
    TRACE_SCAN,  /**< Zipf 1.0, at times a crawler walks many other pages */
    TRACE_LOOP,  /**< all pages in turn, over and over */
    TRACE_FLOOD, /**< Zipf 1.0, each second request a URL never seen again */
    TRACE_KINDS
} trace_kind_e;

extern const char *const trace_names[TRACE_KINDS];

typedef struct trace_t trace_t;

/**
 * @param objects in the working set
 * @param held how many of them the cache holds, for the length of a scan
 */
trace_t *trace_make(apr_pool_t *pool, trace_kind_e kind, apr_uint64_t seed,
                    apr_uint32_t objects, apr_uint32_t held);

/** The object that the next request is for. */
apr_uint32_t trace_next(trace_t *trace);

/** All objects in `requests` requests are below this number. */
apr_uint32_t trace_bound(const trace_t *trace, apr_uint32_t requests);

/** Body bytes of all objects alike, or (mixed) log-normal: median 2 KB, mean
    about 5 KB, at most 256 KB; an object's own, whatever the trace. */
apr_uint32_t trace_size(apr_uint32_t object, apr_uint64_t seed, int is_mixed);

/** The bench's own generator (splitmix64). */
apr_uint64_t trace_random(apr_uint64_t *state);

#endif
