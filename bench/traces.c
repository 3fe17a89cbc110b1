/* SPDX-License-Identifier: Apache-2.0 */

#include <math.h>

#include "traces.h"

/** Requests between two scans, and of a scan: as many objects as the cache
    holds this many times over. */
#define SCAN_EVERY 10
#define SCAN_CACHES 2

/** The pages that are scanned, in caches; they come again after so many. */
#define SCAN_RANGE 20

struct trace_t {
    trace_kind_e kind;
    apr_uint64_t state;
    apr_uint32_t objects;
    apr_uint32_t held;
    apr_uint32_t at;       /* requests so far, or since the last scan */
    apr_uint32_t scanning; /* requests left of a scan */
    apr_uint32_t other;    /* the last object outside the working set */
    double *reach;         /* of each rank: the share of it and those before */
};

const char *const trace_names[TRACE_KINDS] = {
    [TRACE_ZIPF_08] = "zipf-0.8", [TRACE_ZIPF_10] = "zipf-1.0",
    [TRACE_SCAN] = "scan",        [TRACE_LOOP] = "loop",
    [TRACE_FLOOD] = "flood",
};

apr_uint64_t trace_random(apr_uint64_t *state)
{
    apr_uint64_t x = *state += APR_UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * APR_UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * APR_UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/** In [0, 1). */
static double trace_fraction(apr_uint64_t *state)
{
    return (double)(trace_random(state) >> 11) / 9007199254740992.0;
}

trace_t *trace_make(apr_pool_t *pool, trace_kind_e kind, apr_uint64_t seed,
                    apr_uint32_t objects, apr_uint32_t held)
{
    trace_t *trace = apr_pcalloc(pool, sizeof(*trace));
    double power = kind == TRACE_ZIPF_08 ? 0.8 : 1.0;
    double sum = 0;
    apr_uint32_t i;

    trace->kind = kind;
    trace->state = seed;
    trace->objects = objects;
    trace->held = held;
    trace->reach = apr_palloc(pool, objects * sizeof(double));
    for (i = 0; i < objects; i++) {
        sum += pow(i + 1.0, -power);
        trace->reach[i] = sum;
    }
    for (i = 0; i < objects; i++) {
        trace->reach[i] /= sum;
    }
    return trace;
}

static apr_uint32_t zipf_next(trace_t *trace)
{
    double x = trace_fraction(&trace->state);
    apr_uint32_t from = 0;
    apr_uint32_t to = trace->objects - 1;

    while (from < to) {
        apr_uint32_t middle = from + (to - from) / 2;

        if (trace->reach[middle] <= x) {
            from = middle + 1;
        }
        else {
            to = middle;
        }
    }
    return from;
}

static apr_uint32_t scan_next(trace_t *trace)
{
    if (!trace->scanning && ++trace->at == SCAN_EVERY * trace->held) {
        trace->at = 0;
        trace->scanning = SCAN_CACHES * trace->held;
    }
    if (!trace->scanning) {
        return zipf_next(trace);
    }
    trace->scanning--;
    trace->other = (trace->other + 1) % (SCAN_RANGE * trace->held);
    return trace->objects + trace->other;
}

apr_uint32_t trace_next(trace_t *trace)
{
    switch (trace->kind) {
    case TRACE_SCAN:
        return scan_next(trace);
    case TRACE_LOOP:
        return trace->at++ % trace->objects;
    case TRACE_FLOOD:
        if (trace_random(&trace->state) & 1) {
            return trace->objects + trace->other++;
        }
        return zipf_next(trace);
    default:
        return zipf_next(trace);
    }
}

apr_uint32_t trace_bound(const trace_t *trace, apr_uint32_t requests)
{
    return trace->objects
           + (trace->kind == TRACE_SCAN    ? SCAN_RANGE * trace->held
              : trace->kind == TRACE_FLOOD ? requests
                                           : 0);
}

apr_uint32_t trace_size(apr_uint32_t object, apr_uint64_t seed, int is_mixed)
{
    apr_uint64_t state = seed ^ (object * APR_UINT64_C(0xd6e8feb86659fd93));
    double normal = -6;
    double size;
    int i;

    if (!is_mixed) {
        return 1024;
    }
    for (i = 0; i < 12; i++) {
        normal += trace_fraction(&state);
    }
    size = 2048 * exp(1.35 * normal);
    return size > 262144 ? 262144 : (apr_uint32_t)size;
}
