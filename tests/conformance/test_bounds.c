/* SPDX-License-Identifier: Apache-2.0 */

/* Bounds: what a store may hold, and what calls may leave behind. */

#include <stdlib.h>

#include "apr_strings.h"
#include "harness.h"

/* Larger stores are filled partly only: a test is not a soak. */
#define FILL_MAX (512 * (apr_int64_t)CT_MB)

static void caps_check(ct_t *c, cachemw_stats_t *stats, const char *when)
{
    ct_status(c, ct_stats(c, stats), APR_SUCCESS, "stats");
    ct_check(c, stats->bytes_max < 0 || stats->bytes <= stats->bytes_max,
             "%s the store uses %" APR_INT64_T_FMT
             " bytes; its cap is %" APR_INT64_T_FMT,
             when, stats->bytes, stats->bytes_max);
    ct_check(c, stats->entries_max < 0 || stats->entries <= stats->entries_max,
             "%s the store holds %" APR_INT64_T_FMT
             " entries; its cap is %" APR_INT64_T_FMT,
             when, stats->entries, stats->entries_max);
}

/* Store `n` entries of this size under keys of their own; check the caps on the
 * way, and that what was stored last can usually be found. */
static void fill_check(ct_t *c, apr_int64_t n, apr_off_t length)
{
    cachemw_stats_t stats = { 0 };
    apr_int64_t found = 0, i;
    apr_pool_t *outer = c->pool;

    for (i = 0; i < n; i++) {
        cachemw_key_t key;
        ct_item_t item;

        apr_pool_create(&c->pool, outer);
        key = ct_key(c, "fill/%" APR_INT64_T_FMT, i);
        item = ct_item(c, &key, (apr_uint32_t)i, length);
        ct_store(c, &item);
        found += ct_see(c, &key, NULL);
        if (i % 61 == 0) {
            caps_check(c, &stats, "while more is stored than fits");
        }
        apr_pool_destroy(c->pool);
        c->pool = outer;
    }
    caps_check(c, &stats, "after more was stored than fits");
    ct_check(c, found >= n * 9 / 10,
             "of %" APR_INT64_T_FMT " entries only %" APR_INT64_T_FMT
             " were found right after their set: a full store must make room "
             "for what is new",
             n, found);
    ct_check(c, stats.entries != 0,
             "after %" APR_INT64_T_FMT " sets the store is empty", n);
}

static void caps_need(ct_t *c, cachemw_stats_t *stats)
{
    ct_need(c, ct_counts(c), "stats that tells of entries");
    ct_status(c, ct_stats(c, stats), APR_SUCCESS, "stats");
    ct_check(c, stats->bytes_max >= 0 || stats->entries_max >= 0,
             "stats tells neither bytes_max nor entries_max: every store has "
             "a cap");
}

static void test_bytes_stay_within_the_cap(ct_t *c)
{
    apr_off_t length = 16 * CT_KB < c->body_max ? 16 * CT_KB : c->body_max;
    cachemw_stats_t stats = { 0 };
    apr_int64_t fill;

    caps_need(c, &stats);
    if (stats.bytes_max < 0) {
        ct_skip(c, "stats does not tell a cap on bytes");
    }
    fill = 4 * stats.bytes_max < FILL_MAX ? 4 * stats.bytes_max : FILL_MAX;
    if (fill < 2 * stats.bytes_max) {
        ct_skip(c, "the store is too large to be filled: give it a smaller "
                   "size");
    }
    fill_check(c, fill / length, length);
}

static void test_entries_stay_within_the_cap(ct_t *c)
{
    cachemw_stats_t stats = { 0 };

    caps_need(c, &stats);
    if (stats.entries_max < 0) {
        ct_skip(c, "stats does not tell a cap on entries");
    }
    if (stats.entries_max > 50000) {
        ct_skip(c, "the store takes too many entries to be filled: give it a "
                   "smaller size");
    }
    fill_check(c, 4 * stats.entries_max + 10, 1);
}

static void test_sizes_of_all_kinds_stay_within_the_cap(ct_t *c)
{
    cachemw_stats_t stats = { 0 };
    apr_uint64_t state = 1;
    apr_int64_t total = 0;
    apr_pool_t *outer = c->pool;

    caps_need(c, &stats);
    while (total < 4 * stats.bytes_max && total < FILL_MAX / 4) {
        cachemw_key_t key;
        ct_item_t item;
        apr_off_t length = (apr_off_t)1 << ct_random(&state) % 20;

        length += (apr_off_t)(ct_random(&state) % (apr_uint64_t)length);
        length = length < c->body_max ? length : c->body_max;
        apr_pool_create(&c->pool, outer);
        key = ct_key(c, "mixed/%d", (int)(ct_random(&state) % 2000));
        item = ct_item(c, &key, (apr_uint32_t)ct_random(&state), length);
        item.head_len = 100 + ct_random(&state) % 3000;
        ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
                  "set of %" APR_OFF_T_FMT " bytes in a store full of entries "
                  "of all sizes",
                  length);
        ct_see(c, &key, NULL);
        caps_check(c, &stats, "with entries of all sizes");
        total += length + 5000;
        apr_pool_destroy(c->pool);
        c->pool = outer;
    }
}

/* More than the whole store has room for; through core, more than the store's
 * limit. */
static apr_off_t limit_find(ct_t *c)
{
    apr_off_t limit = c->body_max;
    cachemw_stats_t stats = { 0 };

    if (!c->plan->through_core) {
        ct_need(c, c->table.stats != NULL, "stats");
        ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
        if (stats.bytes_max < 0) {
            ct_skip(c, "stats does not tell a cap on bytes");
        }
        limit = stats.bytes_max;
    }
    if (limit > 256 * CT_MB) {
        ct_skip(c, "a body that does not fit is too large to be tried: give "
                   "the store a smaller size");
    }
    return limit;
}

static void test_too_large_a_body_does_not_fit(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "large"), other = ct_key(c, "small");
    ct_item_t small = ct_item(c, &other, 1, 1000);
    apr_off_t limit = limit_find(c);
    ct_item_t item = ct_item(c, &key, 1, limit + 1);

    ct_store(c, &small);
    ct_status(c, ct_try_store(c, &item), APR_ENOSPC,
              "set of a body one byte larger than the limit of %" APR_OFF_T_FMT
              " bytes",
              limit);
    ct_require_miss(c, &key, "after a set that does not fit");
    ct_status(c, ct_try_stream(c, &item, 60000, 0), APR_ENOSPC,
              "streaming one byte more than the limit of %" APR_OFF_T_FMT
              " bytes",
              limit);
    ct_require_miss(c, &key, "after a stream that does not fit");
    item = ct_item(c, &key, 2, 1000);
    ct_store(c, &item);
    ct_require(c, &item, "after an entry that did not fit");
}

static void test_largest_body_fits(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "large");
    ct_item_t item;
    int i;

    if (c->body_max > 64 * CT_MB) {
        ct_skip(c, "the largest body is too large to be tried: give the store "
                   "a smaller size");
    }
    for (i = 0; i < 10; i++) {
        key = ct_key(c, "large/%d", i);
        item = ct_item(c, &key, (apr_uint32_t)i, c->body_max);
        ct_store(c, &item);
        ct_require(c, &item, "with the largest body that the store takes");
    }
}

/* One of everything that a request may do, leaving the store as it was. */
static void everything_call(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page"), other = ct_key(c, "other");
    ct_item_t item = ct_item(c, &key, 1, 3000);
    cachemw_stats_t stats = { 0 };
    cachemw_entry_t entry = ct_item_entry(&item, c->pool);
    ct_set_t set;
    int more;

    ct_store(c, &item);
    ct_require(c, &item, "again and again");
    ct_require_miss(c, &other, "again and again");
    item.head_version++;
    item.head_len += 10;
    ct_status(c, ct_amend(c, &item), APR_SUCCESS, "set_head");
    item = ct_item_next(c, &item, 70000 < c->body_max ? 70000 : c->body_max);
    ct_status(c, ct_try_stream(c, &item, 30000, 0), APR_SUCCESS, "streaming");
    ct_require(c, &item, "again and again");
    ct_status(c, ct_begin(c, &key, &entry, &set), APR_SUCCESS, "set_begin");
    ct_status(c, ct_write(c, &set, "a", 1), APR_SUCCESS, "set_write");
    ct_abort(c, &set);
    ct_exists(c, &key);
    ct_stats(c, &stats);
    if (ct_sweeps(c)) {
        ct_sweep(c, 10000, &more);
    }
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
}

static void everything_repeat(ct_t *c, int times)
{
    apr_pool_t *outer = c->pool;
    apr_bucket_alloc_t *alloc = c->alloc;
    int i;

    apr_pool_create(&c->pool, outer);
    for (i = 0; i < times; i++) {
        c->alloc = apr_bucket_alloc_create(c->pool);
        everything_call(c);
        apr_pool_clear(c->pool);
    }
    apr_pool_destroy(c->pool);
    c->pool = outer;
    c->alloc = alloc;
}

static void test_calls_leave_no_descriptors_open(ct_t *c)
{
    int before, after;

    everything_repeat(c, 20);
    before = ct_descriptors();
    if (before < 0) {
        ct_skip(c, "open descriptors cannot be counted here");
    }
    everything_repeat(c, 200);
    after = ct_descriptors();
    ct_check(c, after < before + 50,
             "200 rounds of calls left %d descriptors open", after - before);
}

static void test_calls_leave_no_memory_behind(ct_t *c)
{
    ct_no_memory_left(c, everything_repeat, 200, 2000, "20000 calls");
}

const ct_test_t ct_tests_bounds[] = {
    CT_TEST(test_bytes_stay_within_the_cap),
    CT_TEST(test_entries_stay_within_the_cap),
    CT_TEST(test_sizes_of_all_kinds_stay_within_the_cap),
    CT_TEST(test_too_large_a_body_does_not_fit),
    CT_TEST(test_largest_body_fits),
    CT_TEST(test_calls_leave_no_descriptors_open),
    CT_TEST(test_calls_leave_no_memory_behind),
    CT_TESTS_END,
};
