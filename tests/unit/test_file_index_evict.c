/* SPDX-License-Identifier: Apache-2.0 */

/* Who goes when it is full, and what that costs. */

#include <math.h>
#include <stdio.h>
#include <time.h>

#include "apr_general.h"

#include "index_depot.h"

#define HOUR (3600 * SECOND)

#define OBJECTS 20000
#define CAPACITY 2000
#define REQUESTS 300000

/** What is requested, one after the other. */
typedef apr_uint32_t trace_fn(const double *zipf, apr_uint32_t *seed, int i);

static double *zipf_make(void)
{
    double *sums = calloc(OBJECTS, sizeof(*sums));
    double sum = 0;
    int i;

    for (i = 0; i < OBJECTS; i++) {
        sum += 1 / pow(i + 1, 0.9);
        sums[i] = sum;
    }
    return sums;
}

static apr_uint32_t zipf_next(const double *sums, apr_uint32_t *seed)
{
    double at = random_next(seed) / (double)(1 << 24) * sums[OBJECTS - 1];
    apr_uint32_t low = 0;
    apr_uint32_t high = OBJECTS - 1;

    while (low < high) {
        apr_uint32_t middle = (low + high) / 2;

        if (sums[middle] < at) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return low;
}

static apr_uint32_t trace_zipf(const double *zipf, apr_uint32_t *seed, int i)
{
    (void)i;
    return zipf_next(zipf, seed);
}

/** Now and then somebody walks through what nobody else wants. */
static apr_uint32_t trace_scan(const double *zipf, apr_uint32_t *seed, int i)
{
    if (i % 30000 >= 24000) {
        return OBJECTS + (apr_uint32_t)(i / 30000 * 6000 + i % 30000 - 24000);
    }
    return zipf_next(zipf, seed);
}

/** The reference: when each was used last, and a ring of uses. */
typedef struct lru_t {
    int last[2 * OBJECTS + 60000];
    apr_uint32_t used[REQUESTS];
    int oldest;
    int count;
} lru_t;

static int lru_request(lru_t *lru, apr_uint32_t number, int i)
{
    int is_hit = lru->last[number] != 0;

    lru->used[i] = number;
    lru->last[number] = i + 1;
    lru->count += !is_hit;
    while (lru->count > CAPACITY) {
        apr_uint32_t oldest = lru->used[lru->oldest];

        if (lru->last[oldest] == lru->oldest + 1) {
            lru->last[oldest] = 0;
            lru->count--;
        }
        lru->oldest++;
    }
    return is_hit;
}

static void trace_run(const char *name, trace_fn *trace)
{
    mw_index_config_t config = { .memory = 4 << 20,
                                 .max_bytes = 1 << 30,
                                 .max_entries = CAPACITY };
    depot_t *w = depot_make(config, 2 * OBJECTS + 60000);
    lru_t *lru = calloc(1, sizeof(*lru));
    double *zipf = zipf_make();
    apr_uint32_t seed = 42;
    int hits = 0;
    int lru_hits = 0;
    int i;

    depot_sweep(w);
    for (i = 0; i < REQUESTS; i++) {
        apr_uint32_t number = trace(zipf, &seed, i);

        lru_hits += lru_request(lru, number, i);
        if (depot_get(w, number)) {
            hits++;
        }
        else {
            assert_int_equal(depot_put(w, number, 1, w->now + HOUR), 0);
        }
    }
    printf("%s: %.2f %% hits, LRU has %.2f %%\n", name, 100.0 * hits / REQUESTS,
           100.0 * lru_hits / REQUESTS);
    assert_true(hits >= lru_hits);
    free(zipf);
    free(lru);
    depot_end(w);
}

static void test_hits_are_as_many_as_with_lru_or_more(void **state)
{
    (void)state;
    trace_run("Zipf", trace_zipf);
    trace_run("Zipf with scans", trace_scan);
}

/** What others do on a busy machine does not count. */
static apr_time_t cpu_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return apr_time_make(now.tv_sec, now.tv_nsec / 1000);
}

/** @return what an eviction costs with so many entries, in nanoseconds */
static double cost_with(apr_uint32_t entries, apr_uint64_t memory)
{
    enum { MORE = 100000 };
    mw_index_config_t config = { .memory = memory,
                                 .max_bytes = (apr_uint64_t)entries * BLOCK };
    depot_t *w = depot_make(config, entries + MORE);
    apr_uint64_t evicted;
    apr_time_t took;
    apr_uint32_t i;

    depot_sweep(w);
    for (i = 0; i < entries; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), 0);
        if (i % 3 == 0) {
            depot_get(w, i);
            depot_get(w, i);
        }
    }
    evicted = w->fake.counts[CACHEMW_COUNT_EVICTED];
    took = cpu_now();
    for (i = entries; i < entries + MORE; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), 0);
    }
    took = cpu_now() - took;
    evicted = w->fake.counts[CACHEMW_COUNT_EVICTED] - evicted;
    assert_in_range(evicted, MORE - 5, MORE + 5);
    assert_in_range(disk_entries(w), entries - 5, entries);
    depot_end(w);
    return 1000.0 * (double)took / MORE;
}

static void test_an_eviction_costs_microseconds_and_no_more_with_more(
    void **state)
{
    double few = cost_with(20000, 4 << 20);
    double many = cost_with(1000000, 96 << 20);

    (void)state;
    printf("a set that evicts: %.0f ns with 20,000 entries, %.0f ns with "
           "1,000,000\n",
           few, many);
    assert_true(many < 50000);
    assert_true(many < 10 * few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits_are_as_many_as_with_lru_or_more),
        cmocka_unit_test(
            test_an_eviction_costs_microseconds_and_no_more_with_more),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
