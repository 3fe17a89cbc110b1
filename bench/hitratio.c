/* SPDX-License-Identifier: Apache-2.0 */

/* How often the memory store finds what it is asked for, beside LRU and FIFO
   of the same size, on traces made from fixed seeds. README.md says more. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "caches.h"
#include "traces.h"

/** Percentage points. */
#define WORSE_AT_MOST 1.0
#define BETTER_AT_LEAST 3.0

#define SEEDS 3

typedef enum policy_e { MEMORY, LRU, FIFO, POLICIES } policy_e;

/** What one policy found, in percent. */
typedef struct score_t {
    double requests;
    double bytes;
} score_t;

typedef struct scene_t {
    trace_kind_e kind;
    int is_mixed;
    int share; /* the working set is so many caches */
} scene_t;

typedef struct bench_t {
    apr_pool_t *pool;
    const char *options[4];
    int n_options;
    const char *only;       /* a trace's name; NULL: all */
    apr_size_t first_share; /* of the table; those before are left out */
    apr_uint32_t requests;
    int failures;
} bench_t;

static const apr_uint64_t seeds[SEEDS] = { 20240229, 271828, 31415926 };
static const int shares[] = { 2, 5, 20 };

/** Objects of the working set that fill so many bytes. */
static apr_uint32_t objects_in(const store_t *store, apr_uint64_t bytes,
                               apr_uint64_t seed, int is_mixed)
{
    apr_uint64_t sum = 0;
    apr_uint32_t n = 0;

    while (sum < bytes) {
        sum += store_weight(store, n, trace_size(n, seed, is_mixed));
        n++;
    }
    return n;
}

/** The first third of the requests only warms up. */
static void bench_play(const bench_t *bench, apr_pool_t *pool,
                       const scene_t *scene, apr_uint64_t seed, score_t *score)
{
    store_t *store = store_open(pool, bench->options, bench->n_options, seed);
    apr_uint64_t capacity = store_capacity(store);
    apr_uint32_t held = objects_in(store, capacity, seed, scene->is_mixed);
    apr_uint32_t objects = objects_in(
        store, capacity * (apr_uint64_t)scene->share, seed, scene->is_mixed);
    trace_t *trace = trace_make(pool, scene->kind, seed, objects, held);
    apr_uint32_t bound = trace_bound(trace, bench->requests);
    queue_t *lru = queue_make(pool, capacity, bound, 1);
    queue_t *fifo = queue_make(pool, capacity, bound, 0);
    score_t all = { 0, 0 };
    apr_uint32_t i;
    int p;

    memset(score, 0, POLICIES * sizeof(*score));
    for (i = 0; i < bench->requests; i++) {
        apr_uint32_t object = trace_next(trace);
        apr_uint32_t size = trace_size(object, seed, scene->is_mixed);
        apr_uint32_t weight = store_weight(store, object, size);
        int found[POLICIES];

        found[MEMORY] = store_ask(store, object, size);
        found[LRU] = queue_ask(lru, object, weight);
        found[FIFO] = queue_ask(fifo, object, weight);
        if (i < bench->requests / 3) {
            continue;
        }
        all.requests++;
        all.bytes += size;
        for (p = 0; p < POLICIES; p++) {
            score[p].requests += found[p];
            score[p].bytes += found[p] ? size : 0;
        }
    }
    store_close(store);
    for (p = 0; p < POLICIES; p++) {
        score[p].requests *= 100 / all.requests;
        score[p].bytes *= 100 / all.bytes;
    }
}

static const char *bench_judge(trace_kind_e kind, double difference)
{
    if (difference < -WORSE_AT_MOST) {
        return "WORSE THAN LRU";
    }
    if ((kind == TRACE_SCAN || kind == TRACE_FLOOD)
        && difference < BETTER_AT_LEAST) {
        return "NOT CLEARLY BETTER";
    }
    return "";
}

static void bench_row(bench_t *bench, const scene_t *scene, apr_uint64_t seed)
{
    score_t score[POLICIES];
    double difference;
    const char *verdict;
    apr_pool_t *pool;

    apr_pool_create(&pool, bench->pool);
    bench_play(bench, pool, scene, seed, score);
    apr_pool_destroy(pool);
    difference = score[MEMORY].requests - score[LRU].requests;
    verdict = bench_judge(scene->kind, difference);
    bench->failures += *verdict != '\0';
    printf("%-8s %-5s 1/%-3d %8lu  %6.2f %6.2f %6.2f  %+6.2f   %6.2f %6.2f "
           "%6.2f  %+6.2f%s%s\n",
           trace_names[scene->kind], scene->is_mixed ? "mixed" : "1k",
           scene->share, (unsigned long)seed, score[MEMORY].requests,
           score[LRU].requests, score[FIFO].requests, difference,
           score[MEMORY].bytes, score[LRU].bytes, score[FIFO].bytes,
           score[MEMORY].bytes - score[LRU].bytes, *verdict ? "  " : "",
           verdict);
    fflush(stdout);
}

static void bench_all(bench_t *bench)
{
    apr_size_t i;
    int kind;
    int seed;
    int is_mixed;

    printf("%u requests each; hits in %% of requests, then of bytes; the cache "
           "holds 1/N of the working set\n\n"
           "trace    size  cache     seed  memory    LRU   FIFO   - LRU   "
           "memory    LRU   FIFO   - LRU\n",
           bench->requests);
    for (kind = 0; kind < TRACE_KINDS; kind++) {
        if (bench->only && strcmp(bench->only, trace_names[kind])) {
            continue;
        }
        for (is_mixed = 0; is_mixed < 2; is_mixed++) {
            for (i = bench->first_share; i < sizeof(shares) / sizeof(shares[0]);
                 i++) {
                scene_t scene = { kind, is_mixed, shares[i] };

                for (seed = 0; seed < SEEDS; seed++) {
                    bench_row(bench, &scene, seeds[seed]);
                }
            }
        }
    }
}

static int usage(void)
{
    fputs("usage: hitratio [--quick] [--requests N] [--trace NAME] [memory's "
          "options]\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    bench_t bench = { .options = { "size=8M" },
                      .n_options = 1,
                      .requests = 600000 };
    int own = 0;
    int i;

    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) {
            bench.options[0] = "size=2M";
            bench.options[1] = "shards=16";
            bench.n_options = 2;
            bench.requests = 60000;
            bench.first_share = 1;
        }
        else if (!strcmp(argv[i], "--requests") && i + 1 < argc) {
            bench.requests = (apr_uint32_t)strtoul(argv[++i], NULL, 10);
        }
        else if (!strcmp(argv[i], "--trace") && i + 1 < argc) {
            bench.only = argv[++i];
        }
        else if (strchr(argv[i], '=') && own < 4) {
            bench.options[own++] = argv[i];
            bench.n_options = own;
        }
        else {
            return usage();
        }
    }
    if (bench.requests < 1000) {
        return usage();
    }
    apr_initialize();
    apr_pool_create(&bench.pool, NULL);
    bench_all(&bench);
    apr_pool_destroy(bench.pool);
    apr_terminate();
    if (bench.failures) {
        printf(
            "\n%d rows fail: worse than LRU by more than %.0f point, or with "
            "scans and floods not better by %.0f points\n",
            bench.failures, WORSE_AT_MOST, BETTER_AT_LEAST);
    }
    return bench.failures ? 1 : 0;
}
