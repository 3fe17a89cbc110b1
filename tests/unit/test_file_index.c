/* SPDX-License-Identifier: Apache-2.0 */

/* The index of the file provider: it knows what is there, and how much. */

#include "index_depot.h"

#define HOUR (3600 * SECOND)

static const mw_index_config_t small = { .memory = 1 << 20,
                                         .max_bytes = 4 << 20,
                                         .dir_levels = 1 };

static void test_what_was_put_is_found_until_it_is_removed(void **state)
{
    depot_t *w = depot_make(small, 256);
    mw_digest_t digest = digest_of(w, 7);
    mw_index_facts_t facts;

    (void)state;
    depot_sweep(w);
    assert_int_equal(depot_put(w, 7, 3, w->now + HOUR), APR_SUCCESS);
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_PRESENT);
    assert_int_equal(facts.size, 3 * BLOCK);
    assert_int_equal(facts.expires, w->now + HOUR);
    digest = digest_of(w, 8);
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_ABSENT);
    assert_int_equal(depot_put(w, 7, 5, w->now + 2 * HOUR), APR_SUCCESS);
    depot_assert_exact(w);
    assert_int_equal(depot_stats(w).entries, 1);
    assert_int_equal(depot_stats(w).bytes, 5 * BLOCK);
    assert_int_equal(depot_remove(w, 7), APR_SUCCESS);
    assert_int_equal(depot_get(w, 7), 0);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_expiry_is_rounded_up_to_seconds(void **state)
{
    depot_t *w = depot_make(small, 256);
    mw_digest_t digest = digest_of(w, 1);
    mw_index_facts_t facts;

    (void)state;
    assert_int_equal(mw_index_seconds(0), 0);
    assert_int_equal(mw_index_seconds(1), 1);
    assert_int_equal(mw_index_seconds(SECOND), 1);
    assert_int_equal(mw_index_seconds(SECOND + 1), 2);
    assert_int_equal(mw_index_seconds(APR_INT64_MAX), MW_INDEX_NEVER);
    assert_int_equal(mw_index_is_over(MW_INDEX_NEVER, APR_INT64_MAX), 0);
    depot_sweep(w);
    depot_put(w, 1, 1, w->now + 10 * SECOND);
    w->now += 10 * SECOND - 1;
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_PRESENT);
    w->now += 1;
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_ABSENT);
    depot_end(w);
}

static void test_what_expired_goes_by_the_sweep(void **state)
{
    depot_t *w = depot_make(small, 1000);
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 1000; i++) {
        assert_int_equal(
            depot_put(w, i, 1, w->now + (i < 600 ? 10 : 1000) * SECOND), 0);
    }
    depot_sweep(w);
    assert_int_equal(disk_entries(w), 1000);
    w->now += 10 * SECOND;
    assert_int_equal(depot_stats(w).expired, 600);
    depot_sweep(w);
    assert_int_equal(depot_stats(w).expired, 0);
    assert_int_equal(disk_entries(w), 400);
    assert_int_equal(w->fake.counts[CACHEMW_COUNT_EXPIRED], 600);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_a_sweep_ends_when_its_time_is_over(void **state)
{
    depot_t *w = depot_make(small, 1000);
    cachemw_call_t call = { .deadline = 1 };
    int more = 0;
    apr_uint32_t i;

    (void)state;
    depot_sweep(w);
    for (i = 0; i < 1000; i++) {
        depot_put(w, i, 1, w->now + SECOND);
    }
    w->now += SECOND;
    call.now = w->now;
    w->fake.patience = 4;
    mw_index_sweep(w->index, &call, &more);
    assert_true(more);
    assert_in_range(disk_entries(w), 1000 - 4 * 64, 999);
    depot_sweep(w);
    assert_int_equal(disk_entries(w), 0);
    depot_assert_exact(w);
    depot_end(w);
}

/** What random calls ought to have come to. */
typedef struct model_t {
    depot_t *w;
    apr_uint64_t *files; /**< as disk_t's */
    apr_uint32_t seed;
    apr_uint64_t evicted;
} model_t;

static apr_uint32_t model_random(model_t *model, apr_uint32_t below)
{
    return random_next(&model->seed) % below;
}

static void model_put(model_t *model, apr_uint32_t n)
{
    depot_t *w = model->w;
    apr_uint64_t blocks = 1 + model_random(model, 5);
    apr_time_t expires = w->now + (1 + model_random(model, 5000)) * SECOND;

    assert_int_equal(depot_put(w, n, blocks, expires), APR_SUCCESS);
    model->files[n] = w->disk->files[n];
    assert_int_equal(model->files[n] & 0xffffffff, blocks);
}

/** What is not there any more went for one reason: room. */
static void model_get(model_t *model, apr_uint32_t n)
{
    depot_t *w = model->w;
    apr_time_t expires = apr_time_from_sec((apr_time_t)(model->files[n] >> 32));
    int is_there = model->files[n] && expires > w->now;

    if (depot_get(w, n) != is_there) {
        assert_int_equal(is_there, 1);
        assert_int_equal(disk_blocks(w, n), 0);
        model->evicted++;
        model->files[n] = 0;
    }
}

/** A call of any kind, somebody who deletes a file, or time that passes. */
static void model_step(model_t *model, apr_uint32_t n)
{
    apr_uint32_t what = model_random(model, 100);

    if (what < 50) {
        model_put(model, n);
    }
    else if (what < 80) {
        model_get(model, n);
    }
    else if (what < 90) {
        assert_int_equal(depot_remove(model->w, n), APR_SUCCESS);
        model->files[n] = 0;
    }
    else if (what < 95) {
        disk_put(model->w, n, 0, 0);
        depot_get(model->w, n);
        model->files[n] = 0;
    }
    else {
        model->w->now += model_random(model, 60) * SECOND;
    }
}

static void test_everything_agrees_after_every_call(void **state)
{
    enum { FILES = 700, CALLS = 200000 };
    depot_t *w = depot_make(small, FILES);
    model_t model = { w, calloc(FILES, sizeof(*model.files)), 1, 0 };
    int i;

    (void)state;
    depot_sweep(w);
    for (i = 0; i < CALLS; i++) {
        apr_uint32_t n = model_random(&model, FILES);

        model_step(&model, n);
        assert_true(disk_used(w) <= w->index->max_blocks);
        if (i % 1000 == 0) {
            depot_sweep(w);
            depot_get(w, n);
            depot_assert_exact(w);
        }
    }
    assert_true(model.evicted > 100);
    assert_true(w->fake.counts[CACHEMW_COUNT_EVICTED] >= model.evicted);
    free(model.files);
    depot_end(w);
}

static void test_caps_hold_for_bytes_and_for_entries(void **state)
{
    mw_index_config_t few = small;
    depot_t *w;
    apr_uint32_t i;

    (void)state;
    few.max_entries = 100;
    w = depot_make(few, 3000);
    for (i = 0; i < 3000; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), 0);
        assert_true(disk_entries(w) <= 100);
    }
    assert_int_equal(disk_entries(w), 100);
    for (i = 0; i < 100; i++) {
        assert_int_equal(depot_put(w, i, 100, w->now + HOUR), 0);
        assert_true(disk_used(w) <= 1024);
    }
    assert_int_equal(depot_put(w, 0, 1025, w->now + HOUR), APR_ENOSPC);
    assert_int_equal(depot_put(w, 1, 1024, w->now + HOUR), APR_SUCCESS);
    assert_int_equal(disk_entries(w), 1);
    depot_sweep(w);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_lower_caps_are_reached_by_the_sweep(void **state)
{
    mw_index_config_t many = { .memory = 4 << 20,
                               .max_bytes = 256 << 20,
                               .dir_levels = 1 };
    depot_t *w = depot_make(many, 50000);
    apr_uint32_t i;
    void *base = w->fake.base;

    (void)state;
    for (i = 0; i < 50000; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), 0);
    }
    depot_sweep(w);
    depot_close(w);
    w->config.max_bytes = 160 << 20;
    depot_open(w, -1);
    assert_ptr_equal(w->fake.base, base);
    depot_sweep(w);
    assert_in_range(disk_used(w), 40000, 160 << 8);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_what_cannot_be_unlinked_still_counts(void **state)
{
    depot_t *w = depot_make(small, 2000);
    apr_uint32_t i;

    (void)state;
    depot_sweep(w);
    for (i = 0; i < 1024; i++) {
        depot_put(w, i, 1, w->now + HOUR);
    }
    w->disk->unlink_fails = APR_EACCES;
    for (i = 1024; i < 1100; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), APR_ENOSPC);
    }
    w->now += HOUR;
    depot_sweep(w);
    assert_int_equal(disk_used(w), 1024);
    assert_int_equal(MW_INDEX_BLOCKS(mw_index_used(w->index)), 1024);
    w->disk->unlink_fails = 0;
    depot_sweep(w);
    assert_int_equal(disk_used(w), 0);
    assert_int_equal(depot_put(w, 1, 1, w->now + HOUR), APR_SUCCESS);
    depot_assert_exact(w);
    depot_end(w);
}

static apr_status_t work_fails(void *baton, const mw_digest_t *digest,
                               mw_index_facts_t *facts)
{
    disk_put(baton, digest->bytes[0], 9, EPOCH + HOUR);
    facts->exists = 0;
    return APR_EGENERAL;
}

static void test_after_work_that_failed_the_disk_is_asked(void **state)
{
    depot_t *w = depot_make(small, 256);
    mw_digest_t digest = digest_of(w, 3);

    (void)state;
    depot_sweep(w);
    assert_int_equal(
        mw_index_change(w->index, &digest, NULL, work_fails, w, w->now),
        APR_EGENERAL);
    depot_assert_exact(w);
    /* Until it answers nothing changes there. */
    w->disk->probe_fails = APR_EGENERAL;
    digest = digest_of(w, 4);
    mw_index_change(w->index, &digest, NULL, work_fails, w, w->now);
    assert_int_equal(depot_put(w, 4, 1, w->now + HOUR), APR_TIMEUP);
    w->disk->probe_fails = 0;
    depot_sweep(w);
    depot_assert_exact(w);
    assert_int_equal(depot_put(w, 4, 1, w->now + HOUR), APR_SUCCESS);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_a_full_shard_evicts_its_own(void **state)
{
    mw_index_config_t tiny = { .memory = 128 << 10,
                               .max_bytes = 1 << 30,
                               .dir_levels = 0 };
    depot_t *w = depot_make(tiny, 20000);
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 20000; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), 0);
    }
    assert_true(disk_entries(w) <= (apr_uint64_t)depot_stats(w).entries_max);
    assert_true(disk_entries(w)
                > (apr_uint64_t)depot_stats(w).entries_max * 9 / 10);
    depot_sweep(w);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_clear_hides_at_once_and_removes_by_the_sweep(void **state)
{
    depot_t *w = depot_make(small, 500);
    apr_uint32_t i;

    (void)state;
    depot_sweep(w);
    for (i = 0; i < 400; i++) {
        depot_put(w, i, 1, w->now + HOUR);
    }
    mw_index_clear(w->index);
    for (i = 0; i < 400; i++) {
        assert_int_equal(depot_get(w, i), 0);
    }
    for (i = 300; i < 500; i++) {
        assert_int_equal(depot_put(w, i, 1, w->now + HOUR), APR_SUCCESS);
    }
    depot_sweep(w);
    assert_int_equal(disk_entries(w), 200);
    depot_assert_exact(w);
    depot_end(w);
}

static apr_status_t walk_mark(void *baton, const mw_digest_t *digest)
{
    unsigned char *seen = baton;

    seen[digest->bytes[0] | digest->bytes[1] << 8]++;
    return APR_SUCCESS;
}

static apr_status_t walk_stop(void *baton, const mw_digest_t *digest)
{
    (void)digest;
    return ++*(int *)baton == 3 ? APR_EGENERAL : APR_SUCCESS;
}

static void test_walk_tells_of_each_entry_once(void **state)
{
    depot_t *w = depot_make(small, 1000);
    unsigned char seen[1000] = { 0 };
    int calls = 0;
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 900; i++) {
        depot_put(w, i, 1, w->now + (i % 3 ? 10 : 20) * SECOND);
    }
    w->now += 10 * SECOND;
    assert_int_equal(mw_index_walk(w->index, w->now, walk_mark, seen), 0);
    for (i = 0; i < 1000; i++) {
        assert_int_equal(seen[i], i < 900 && i % 3 == 0);
    }
    assert_int_equal(mw_index_walk(w->index, w->now, walk_stop, &calls),
                     APR_EGENERAL);
    assert_int_equal(calls, 3);
    depot_end(w);
}

static void scan_with(int levels)
{
    mw_index_config_t config = small;
    depot_t *w;
    mw_digest_t digest;
    mw_index_facts_t facts;
    apr_uint32_t i;

    config.dir_levels = levels;
    w = depot_make(config, 1000);
    for (i = 0; i < 900; i++) {
        disk_put(w, i, 1, w->now + (i % 3 ? HOUR : -HOUR));
    }
    depot_restart(w, -1);
    digest = digest_of(w, 999);
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_UNKNOWN);
    /* Served, and known, before the scan comes there. */
    assert_int_equal(depot_get(w, 899), 1);
    digest = digest_of(w, 899);
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_PRESENT);
    depot_sweep(w);
    digest = digest_of(w, 999);
    assert_int_equal(mw_index_find(w->index, &digest, w->now, &facts),
                     MW_INDEX_ABSENT);
    assert_int_equal(disk_entries(w), 600);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_a_scan_finds_what_is_there(void **state)
{
    (void)state;
    scan_with(0);
    scan_with(1);
    scan_with(2);
}

static void test_a_scan_takes_steps_and_serves_meanwhile(void **state)
{
    depot_t *w = depot_make(small, 1000);
    cachemw_call_t call = { .now = w->now, .deadline = 1 };
    int more = 1;
    int steps = 0;
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 1000; i++) {
        disk_put(w, i, 1, w->now + HOUR);
    }
    depot_restart(w, -1);
    while (more) {
        assert_true(++steps < 1000);
        w->fake.patience = 4;
        assert_int_equal(mw_index_sweep(w->index, &call, &more), 0);
        assert_true(disk_used(w) <= 1024);
        depot_put(w, random_next(&i) % 1000, 2, w->now + HOUR);
        assert_true(disk_used(w) <= 1024);
    }
    assert_true(steps > 50);
    depot_sweep(w);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_nothing_is_written_that_may_be_too_much(void **state)
{
    depot_t *w = depot_make(small, 2000);
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 1024; i++) {
        disk_put(w, i, 1, w->now + HOUR);
    }
    depot_restart(w, -1);
    w->disk->list_fails = APR_EACCES;
    assert_int_equal(depot_put(w, 1500, 1, w->now + HOUR), APR_ENOSPC);
    /* Who would be refused looks for something to evict. */
    w->disk->list_fails = 0;
    assert_int_equal(depot_put(w, 1500, 1, w->now + HOUR), APR_SUCCESS);
    assert_int_equal(disk_used(w), 1024);
    assert_int_equal(w->index->header->scan.is_active, 1);
    depot_sweep(w);
    depot_assert_exact(w);
    /* Who knows better may write at once. */
    depot_restart(w, 512 * BLOCK);
    assert_int_equal(depot_put(w, 1501, 1, w->now + HOUR), APR_SUCCESS);
    depot_end(w);
}

static void test_an_empty_directory_takes_what_comes_first(void **state)
{
    depot_t *w = depot_make(small, 256);

    (void)state;
    depot_restart(w, -1);
    assert_int_equal(depot_put(w, 5, 100, w->now + HOUR), APR_SUCCESS);
    assert_int_equal(w->index->header->scan.is_active, 0);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_a_scan_gets_below_the_caps(void **state)
{
    depot_t *w = depot_make(small, 5000);
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 5000; i++) {
        disk_put(w, i, 1, w->now + HOUR);
    }
    depot_restart(w, -1);
    depot_sweep(w);
    assert_in_range(disk_used(w), 1000, 1024);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_what_cannot_be_listed_holds_nothing_up(void **state)
{
    depot_t *w = depot_make(small, 256);
    int i;

    (void)state;
    depot_restart(w, -1);
    w->disk->list_fails = APR_EACCES;
    for (i = 0; i < 256 * 8 + 8; i++) {
        depot_sweep(w);
    }
    assert_int_equal(w->index->header->scan.is_active, 0);
    assert_int_equal(depot_put(w, 5, 1, w->now + HOUR), APR_SUCCESS);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_a_rescan_finds_what_others_put_there(void **state)
{
    depot_t *w = depot_make(small, 256);

    (void)state;
    depot_sweep(w);
    depot_put(w, 1, 1, w->now + HOUR);
    disk_put(w, 2, 1, w->now + HOUR);
    depot_sweep(w);
    assert_int_equal(depot_get(w, 2), 0);
    mw_index_rescan(w->index);
    assert_int_equal(depot_get(w, 2), 0);
    depot_sweep(w);
    assert_int_equal(depot_get(w, 2), 1);
    depot_assert_exact(w);
    depot_end(w);
}

static void test_a_kept_segment_is_used_again(void **state)
{
    depot_t *w = depot_make(small, 256);
    apr_uint64_t probes;

    (void)state;
    depot_sweep(w);
    depot_put(w, 9, 1, w->now + HOUR);
    probes = w->disk->probes;
    depot_close(w);
    depot_open(w, -1);
    assert_int_equal(depot_get(w, 9), 1);
    depot_sweep(w);
    assert_int_equal(w->disk->probes, probes);
    depot_close(w);
    w->config.salt++;
    depot_open(w, -1);
    assert_int_equal(MW_INDEX_ENTRIES(mw_index_sum(w->index, 0)), 0);
    depot_end(w);
}

static void test_what_does_not_fit_is_refused(void **state)
{
    depot_t *w = depot_make(small, 1);
    mw_index_config_t config = small;
    mw_index_t *index;
    const char *error = NULL;

    (void)state;
    config.memory = 16 << 10;
    assert_int_equal(mw_index_create(&index, &w->fake.services, &config, NULL,
                                     NULL, w->pool, &error),
                     APR_EINVAL);
    assert_non_null(error);
    error = NULL;
    config.memory = 1 << 20;
    config.max_entries = 1 << 20;
    assert_int_equal(mw_index_create(&index, &w->fake.services, &config, NULL,
                                     NULL, w->pool, &error),
                     APR_EINVAL);
    assert_non_null(error);
    depot_end(w);
}

/** An error names a size that is enough. */
static void test_the_size_that_an_error_names_is_enough(void **state)
{
    static const apr_uint64_t most[] = { 20000, 300000, 1000000, 50000000 };
    depot_t *w = depot_make(small, 1);
    int i;

    (void)state;
    for (i = 0; i < COUNT(most); i++) {
        mw_index_config_t config = { .memory = 1 << 20,
                                     .max_bytes = APR_UINT64_C(1) << 40,
                                     .max_entries = most[i] };
        const char *error = NULL;
        mw_index_t *index;

        assert_int_equal(mw_index_create(&index, &w->fake.services, &config,
                                         NULL, NULL, w->pool, &error),
                         APR_EINVAL);
        config.memory = strtoull(strstr(error, "to be ") + 6, NULL, 10) << 20;
        assert_int_equal(mw_index_create(&index, &w->fake.services, &config,
                                         NULL, NULL, w->pool, &error),
                         APR_SUCCESS);
    }
    depot_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_found_until_it_is_removed),
        cmocka_unit_test(test_expiry_is_rounded_up_to_seconds),
        cmocka_unit_test(test_what_expired_goes_by_the_sweep),
        cmocka_unit_test(test_a_sweep_ends_when_its_time_is_over),
        cmocka_unit_test(test_everything_agrees_after_every_call),
        cmocka_unit_test(test_caps_hold_for_bytes_and_for_entries),
        cmocka_unit_test(test_lower_caps_are_reached_by_the_sweep),
        cmocka_unit_test(test_what_cannot_be_unlinked_still_counts),
        cmocka_unit_test(test_after_work_that_failed_the_disk_is_asked),
        cmocka_unit_test(test_a_full_shard_evicts_its_own),
        cmocka_unit_test(test_clear_hides_at_once_and_removes_by_the_sweep),
        cmocka_unit_test(test_walk_tells_of_each_entry_once),
        cmocka_unit_test(test_a_scan_finds_what_is_there),
        cmocka_unit_test(test_a_scan_takes_steps_and_serves_meanwhile),
        cmocka_unit_test(test_nothing_is_written_that_may_be_too_much),
        cmocka_unit_test(test_an_empty_directory_takes_what_comes_first),
        cmocka_unit_test(test_a_scan_gets_below_the_caps),
        cmocka_unit_test(test_what_cannot_be_listed_holds_nothing_up),
        cmocka_unit_test(test_a_rescan_finds_what_others_put_there),
        cmocka_unit_test(test_a_kept_segment_is_used_again),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_the_size_that_an_error_names_is_enough),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
