/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "apr_strings.h"

#include "core/option_value.h"
#include "depot.h"
#include "interrupt.h"
#include "load.h"
#include "temp.h"

#define SECONDS 3

/* What was measured of a store. */
typedef struct row_t {
    const char *name;
    const char *operation;
    apr_size_t size;
    mw_load_result_t result;
    double ratio; /* to the first store; 0: this is it */
} row_t;

typedef struct bench_t {
    mw_ctl_t *ctl;
    const char *name; /* of what is being measured, for the progress */
    const char *operation;
    apr_size_t size;
    const double *zipf;
    apr_array_header_t *rows; /* of row_t */
} bench_t;

static const struct {
    const char *name;
    mw_operation_e operation;
} operations[] = {
    { "set", MW_OPERATION_SET },
    { "get", MW_OPERATION_GET },
    { "delete", MW_OPERATION_DELETE },
};

#define OPERATIONS (sizeof(operations) / sizeof(*operations))

/* Whether a list with commas has this word. */
static int list_has(const char *list, const char *word)
{
    const apr_size_t length = strlen(word);

    while (*list) {
        const apr_size_t n = strcspn(list, ",");

        if (n == length && !strncmp(list, word, n)) {
            return 1;
        }
        list += n + (list[n] == ',');
    }
    return 0;
}

static const char *operations_check(const mw_ctl_t *ctl)
{
    const char *at = ctl->operations;
    apr_size_t n, i;

    do {
        n = strcspn(at, ",");
        for (i = 0; i < OPERATIONS; i++) {
            if (strlen(operations[i].name) == n
                && !strncmp(at, operations[i].name, n)) {
                break;
            }
        }
        if (i == OPERATIONS) {
            return apr_psprintf(ctl->pool,
                                "--ops %s: a list of set, get and delete is "
                                "expected, with commas",
                                ctl->operations);
        }
        at += n + 1;
    } while (at[-1]);
    return NULL;
}

static const char *size_parse(const mw_ctl_t *ctl, const char *text,
                              apr_size_t *size)
{
    static const cachemw_option_t row = { .name = "size",
                                          .type = CACHEMW_SIZE,
                                          .maximum = "1G" };
    cachemw_value_t value;
    const char *error = mw_value_parse(&row, text, "/", &value, ctl->pool);

    *size = error ? 0 : (apr_size_t)value.number;
    return error;
}

/* "file", and "file#2" if there was one before. */
static const char *subject_name(const mw_ctl_t *ctl, int subject)
{
    const mw_ctl_store_t *stores = (mw_ctl_store_t *)ctl->subjects->elts;
    int n = 1, i;

    for (i = 0; i < subject; i++) {
        n += !strcmp(stores[i].provider, stores[subject].provider);
    }
    return n == 1
               ? stores[subject].provider
               : apr_psprintf(ctl->pool, "%s#%d", stores[subject].provider, n);
}

static void rate_show(void *baton, double rate)
{
    const bench_t *bench = baton;

    mw_ctl_progress("%s: %s, %s: %.0f/s", bench->name, bench->operation,
                    mw_ctl_size((apr_int64_t)bench->size, bench->ctl->pool),
                    rate);
}

/* Of the first store's row about the same. */
static double ratio_of(const bench_t *bench, const row_t *row)
{
    const row_t *rows = (const row_t *)bench->rows->elts;
    int i;

    for (i = 0; i < bench->rows->nelts; i++) {
        if (rows[i].size == row->size
            && !strcmp(rows[i].operation, row->operation)
            && rows[i].result.rate > 0) {
            return row->result.rate / rows[i].result.rate;
        }
    }
    return 0;
}

static const char *operation_run(bench_t *bench, mw_load_plan_t *plan,
                                 const char *name, mw_operation_e operation)
{
    const mw_ctl_t *ctl = bench->ctl;
    row_t row = { bench->name, name, bench->size, { .rate = 0 }, 0 };
    const char *error;

    bench->operation = name;
    plan->operation = operation;
    error = mw_load_run(plan, &row.result, ctl->pool);
    mw_ctl_progress("%s", "");
    if (mw_interrupted()) {
        return NULL;
    }
    if (!error && operation != MW_OPERATION_FILL) {
        row.ratio = ratio_of(bench, &row);
        APR_ARRAY_PUSH(bench->rows, row_t) = row;
    }
    return error;
}

static const char *operations_run(bench_t *bench, mw_world_t *world)
{
    const mw_ctl_t *ctl = bench->ctl;
    mw_load_plan_t plan = {
        .world = world,
        .store = world->stores[world->ndefinitions - 1],
        .processes = (int)ctl->processes,
        .threads = (int)ctl->threads,
        .body_len = bench->size,
        .keys = (apr_uint32_t)ctl->keys,
        .zipf = bench->zipf,
        .warmup = ctl->warmup,
        .time = apr_time_from_sec(ctl->seconds ? ctl->seconds : SECONDS),
        .progress = rate_show,
        .baton = bench,
    };
    const char *error = operation_run(bench, &plan, "fill", MW_OPERATION_FILL);
    apr_size_t i;

    for (i = 0; i < OPERATIONS && !error && !mw_interrupted(); i++) {
        if (list_has(ctl->operations, operations[i].name)) {
            error = operation_run(bench, &plan, operations[i].name,
                                  operations[i].operation);
        }
    }
    return error;
}

/* A fresh store of a subject; what is left of it goes. */
static const char *subject_run(bench_t *bench, int subject, const char *dir,
                               apr_pool_t *pool)
{
    mw_ctl_t *ctl = bench->ctl;
    const apr_array_header_t *stores = mw_ctl_stores(ctl, subject);
    void *segments = apr_pcalloc(pool, mw_segments_size());
    mw_world_t world;
    const char *error;

    memset(&world, 0, sizeof(world));
    world.definitions = (const mw_ctl_store_t *)stores->elts;
    world.ndefinitions = stores->nelts;
    world.dir = dir;
    world.cache_dir = ctl->cache_dir;
    world.log = mw_ctl_log;
    world.baton = ctl;
    error = mw_world_open(&world, pool);
    if (!error
        && mw_world_create(&world, segments, pool, 0, 0) != APR_SUCCESS) {
        error = "the store cannot be made";
    }
    if (!error
        && mw_store_settings(world.stores[stores->nelts - 1])->max_object_size
               < (apr_off_t)bench->size) {
        error = apr_psprintf(ctl->pool, "%s takes no bodies of %s", bench->name,
                             mw_ctl_size((apr_int64_t)bench->size, ctl->pool));
    }
    if (!error) {
        error = operations_run(bench, &world);
    }
    mw_world_close(&world);
    return error ? apr_pstrdup(ctl->pool, error) : NULL;
}

static const char *size_run(bench_t *bench)
{
    const mw_ctl_t *ctl = bench->ctl;
    const char *error = NULL;
    int i;

    for (i = 0; i < ctl->subjects->nelts && !error && !mw_interrupted(); i++) {
        const char *dir;
        apr_pool_t *pool;

        apr_pool_create(&pool, ctl->pool);
        dir = mw_temp_make(pool);
        if (!dir) {
            return apr_pstrcat(ctl->pool, "no place for temporary files: ",
                               strerror(errno), NULL);
        }
        bench->name = subject_name(ctl, i);
        error = subject_run(bench, i, dir, pool);
        mw_temp_remove(dir);
        apr_pool_destroy(pool);
    }
    return error;
}

/* --- the report ----------------------------------------------------------- */

static const double parts[] = { 0.5, 0.9, 0.99, 0.999 };
static const char *const part_names[] = { "p50", "p90", "p99", "p99_9" };

#define PARTS (sizeof(parts) / sizeof(*parts))

/* µs, with as many digits as mean something. */
static const char *time_text(apr_uint64_t ns, apr_pool_t *pool)
{
    const double us = (double)ns / 1000;

    return apr_psprintf(pool,
                        us < 10    ? "%.2f"
                        : us < 100 ? "%.1f"
                                   : "%.0f",
                        us);
}

static void row_print(const bench_t *bench, const row_t *row)
{
    const mw_load_result_t *result = &row->result;
    const mw_latency_t *latency = &result->latency;
    apr_pool_t *pool = bench->ctl->pool;
    apr_size_t i;

    printf("%-14s %-6s %7s %10.0f", row->name, row->operation,
           mw_ctl_size((apr_int64_t)row->size, pool), result->rate);
    for (i = 0; i < PARTS; i++) {
        printf(" %8s", time_text(mw_latency_at(latency, parts[i]), pool));
    }
    printf(" %9s %6.1f%%", time_text(latency->max, pool),
           latency->n ? 100.0 * (double)result->hits / (double)latency->n
                      : 0.0);
    if (bench->ctl->subjects->nelts > 1) {
        printf(" %8.3f", row->ratio > 0 ? row->ratio : 1.0);
    }
    if (result->failed) {
        printf("  %" APR_UINT64_T_FMT " failed", result->failed);
    }
    putchar('\n');
}

static void table_print(const bench_t *bench)
{
    const mw_ctl_t *ctl = bench->ctl;
    const row_t *rows = (const row_t *)bench->rows->elts;
    int i;

    printf("%s%-14s %-6s %7s %10s %8s %8s %8s %8s %9s %7s%s%s\n",
           mw_ctl_color(ctl, stdout, MW_CTL_BOLD), "STORE", "OP", "SIZE",
           "OPS/S", "P50 us", "P90", "P99", "P99.9", "MAX", "DONE",
           ctl->subjects->nelts > 1 ? "    RATIO" : "",
           mw_ctl_color(ctl, stdout, MW_CTL_PLAIN));
    for (i = 0; i < bench->rows->nelts; i++) {
        row_print(bench, &rows[i]);
    }
}

static void row_json(const row_t *row)
{
    const mw_load_result_t *result = &row->result;
    apr_size_t i;

    fputs("  {\"store\": ", stdout);
    mw_ctl_json(stdout, row->name, strlen(row->name));
    printf(", \"operation\": \"%s\", \"size\": %" APR_SIZE_T_FMT
           ", \"operations\": %" APR_UINT64_T_FMT
           ", \"operations_per_second\": %.1f",
           row->operation, row->size, result->latency.n, result->rate);
    for (i = 0; i < PARTS; i++) {
        printf(", \"%s_us\": %.3f", part_names[i],
               (double)mw_latency_at(&result->latency, parts[i]) / 1000);
    }
    printf(", \"max_us\": %.3f, \"done\": %" APR_UINT64_T_FMT
           ", \"failed\": %" APR_UINT64_T_FMT ", \"ratio\": %.4f}",
           (double)result->latency.max / 1000, result->hits, result->failed,
           row->ratio > 0 ? row->ratio : 1.0);
}

static void json_print(const bench_t *bench)
{
    const mw_ctl_t *ctl = bench->ctl;
    const row_t *rows = (const row_t *)bench->rows->elts;
    int i;

    printf("{\"version\": \"%s\", \"processes\": %" APR_INT64_T_FMT
           ", \"threads\": %" APR_INT64_T_FMT ", \"keys\": %" APR_INT64_T_FMT
           ", \"zipf\": %g, \"rows\": [\n",
           MW_VERSION, ctl->processes, ctl->threads, ctl->keys, ctl->zipf);
    for (i = 0; i < bench->rows->nelts; i++) {
        row_json(&rows[i]);
        puts(i + 1 < bench->rows->nelts ? "," : "");
    }
    puts("]}");
}

/* --- the command ---------------------------------------------------------- */

static const char *bench_wrong(mw_ctl_t *ctl)
{
    const char *error = operations_check(ctl);
    apr_size_t size;
    int i;

    if (ctl->words->nelts > 0) {
        return apr_pstrcat(ctl->pool,
                           APR_ARRAY_IDX(ctl->words, 0, const char *),
                           ": another store is put behind --vs", NULL);
    }
    if (ctl->sizes->nelts == 0) {
        APR_ARRAY_PUSH(ctl->sizes, const char *) = "1K";
    }
    for (i = 0; i < ctl->sizes->nelts && !error; i++) {
        error =
            size_parse(ctl, APR_ARRAY_IDX(ctl->sizes, i, const char *), &size);
    }
    for (i = 0; i < ctl->subjects->nelts && !error; i++) {
        error = mw_depot_refuse(ctl, i);
        if (error) {
            error =
                apr_pstrcat(ctl->pool, subject_name(ctl, i), ": ", error, NULL);
        }
    }
    return error;
}

int mw_ctl_bench(mw_ctl_t *ctl)
{
    bench_t bench = { .ctl = ctl };
    const char *error = bench_wrong(ctl);
    int i;

    if (error) {
        return mw_ctl_error(MW_CTL_USAGE, "%s", error);
    }
    mw_interrupt_catch();
    bench.rows = apr_array_make(ctl->pool, 16, sizeof(row_t));
    if (ctl->zipf > 0) {
        bench.zipf =
            mw_load_zipf((apr_uint32_t)ctl->keys, ctl->zipf, ctl->pool);
    }
    for (i = 0; i < ctl->sizes->nelts && !error && !mw_interrupted(); i++) {
        size_parse(ctl, APR_ARRAY_IDX(ctl->sizes, i, const char *),
                   &bench.size);
        error = size_run(&bench);
    }
    if (ctl->json) {
        json_print(&bench);
    }
    else if (bench.rows->nelts > 0) {
        table_print(&bench);
    }
    if (mw_interrupted()) {
        return mw_interrupted();
    }
    return error ? mw_ctl_error(MW_CTL_TROUBLE, "%s: %s", bench.name, error)
                 : MW_CTL_OK;
}
