/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "core/state_layout.h"
#include "tests/unit/shared.h"

#define SECOND APR_INT64_C(1000000)
#define RUNNERS 32
#define ROUNDS 100000

static void counts_add(void *baton, int i)
{
    int round;

    for (round = 0; round < ROUNDS; round++) {
        mw_state_count(baton, MW_COUNT_HIT, 1);
        mw_state_count(baton, MW_COUNT_BYTES_SENT, (apr_uint64_t)i << 32);
    }
}

/* Lost counts would make the status page lie. */
static void test_state_counts_are_exact(void **state)
{
    const apr_uint64_t ids = (apr_uint64_t)RUNNERS * (RUNNERS - 1) / 2 << 32;

    threads_run(RUNNERS, counts_add, *state);
    assert_int_equal(mw_state_sum(*state, MW_COUNT_HIT), RUNNERS * ROUNDS);
    processes_run(RUNNERS, counts_add, *state);
    assert_int_equal(mw_state_sum(*state, MW_COUNT_HIT), 2 * RUNNERS * ROUNDS);
    assert_int_equal(mw_state_sum(*state, MW_COUNT_BYTES_SENT),
                     2 * ROUNDS * ids);
    assert_int_equal(mw_state_sum(*state, MW_COUNT_MISS), 0);
}

static void count_add_one(void *baton, int i)
{
    (void)i;
    mw_state_count(baton, MW_COUNT_MISS, 1);
}

static int slots_used(const mw_state_t *state)
{
    int used = 0;
    int i;

    for (i = 0; i < MW_COUNTER_SLOTS; i++) {
        used += state->counters[i].n[MW_COUNT_MISS] != 0;
    }
    return used;
}

typedef struct kinds_t {
    int n;
    apr_uint64_t of_readonly;
    apr_uint64_t of_other;
    apr_uint64_t all;
} kinds_t;

static void kinds_see(void *baton, const char *name, apr_uint64_t n)
{
    kinds_t *kinds = baton;

    kinds->n++;
    kinds->all += n;
    if (strcmp(name, "READONLY") == 0) {
        kinds->of_readonly = n;
    }
    if (strcmp(name, "other") == 0) {
        kinds->of_other = n;
    }
}

static kinds_t kinds_read(const mw_state_t *state)
{
    kinds_t kinds = { 0, 0, 0, 0 };

    mw_kinds_each(state, kinds_see, &kinds);
    return kinds;
}

static void kinds_add(void *baton, int i)
{
    static const char *const names[] = { "READONLY", "LOADING", "OOM" };
    int round;

    for (round = 0; round < 3000; round++) {
        mw_kind_count(baton, names[(i + round) % 3], 1);
    }
}

/* Names that several children bring at the same moment are one figure. */
static void test_state_kinds_are_summed_by_name(void **state)
{
    kinds_t kinds;

    processes_run(8, kinds_add, *state);
    threads_run(8, kinds_add, *state);
    kinds = kinds_read(*state);
    assert_int_equal(kinds.n, 3);
    assert_int_equal(kinds.of_readonly, 16 * 1000);
    assert_int_equal(kinds.all, 16 * 3000);
}

static void test_state_kinds_are_bounded(void **state)
{
    char name[40];
    int i;
    kinds_t kinds;

    for (i = 0; i < 100; i++) {
        apr_snprintf(name, sizeof(name), "kind-%d", i);
        mw_kind_count(*state, name, 2);
    }
    kinds = kinds_read(*state);
    assert_int_equal(kinds.n, MW_KINDS);
    assert_int_equal(kinds.all, 200);
    assert_int_equal(kinds.of_other, 2 * (100 - (MW_KINDS - 1)));
}

static void kind_is_plain(void *baton, const char *name, apr_uint64_t n)
{
    (void)baton;
    assert_int_equal(n, 1);
    assert_string_equal(name, "a_b_-long-long-long-lon");
    assert_int_equal(strlen(name), MW_KIND_NAME_MAX);
}

/* They stand in lines of "Key: value". */
static void test_state_kinds_have_plain_names(void **state)
{
    mw_kind_count(*state, "a:b\n-long-long-long-long", 1);
    mw_kinds_each(*state, kind_is_plain, NULL);
}

/* Whoever died between claiming a place and naming it. */
static void test_state_kind_without_a_name_is_nobodys(void **state)
{
    mw_state_t *shared = *state;

    shared->kinds[0].claim = 1;
    shared->kinds[0].n = 7;
    mw_kind_count(*state, "READONLY", 1);
    assert_int_equal(kinds_read(*state).all, 1);
    assert_int_equal(kinds_read(*state).of_readonly, 1);
}

/* All cores writing to one cache line would cost more than a small hit. Of 64
 * slots 64 takers hit 40 when they choose at random. Runs first, for a server's
 * parent does not count. */
static void test_state_counts_are_spread_over_processes(void **state)
{
    processes_run(64, count_add_one, *state);
    assert_in_range(slots_used(*state), 25, 64);
}

static void test_state_counts_are_spread_over_threads(void **state)
{
    threads_run(64, count_add_one, *state);
    assert_in_range(slots_used(*state), 25, 64);
}

static void test_state_layout_keeps_lines_apart(void **state)
{
    (void)state;
    assert_int_equal(sizeof(mw_counters_t) % MW_LINE, 0);
    assert_int_equal(offsetof(mw_state_t, counters) % MW_LINE, 0);
    assert_int_equal(offsetof(mw_state_t, breaker) % MW_LINE, 0);
    assert_int_equal(offsetof(mw_state_t, epoch) % MW_LINE, 0);
    assert_int_equal(offsetof(mw_state_t, epochs) % MW_LINE, 0);
    assert_int_equal(MW_LINE % sizeof(mw_mark_t), 0);
}

static void test_state_counters_have_names(void **state)
{
    int i;
    int j;

    (void)state;
    for (i = 0; i < MW_COUNTERS; i++) {
        assert_non_null(mw_counter_name(i));
        for (j = 0; j < i; j++) {
            assert_string_not_equal(mw_counter_name(i), mw_counter_name(j));
        }
    }
}

static int is_overtaken(const mw_state_t *state, const cachemw_key_t *key,
                        apr_uint64_t epoch)
{
    return mw_epoch_is_overtaken(state, mw_epoch_slot(state, key), epoch);
}

/* The next configuration finds the counters and the hash key as they are. */
static void test_state_init_keeps_what_is_there(void **state)
{
    cachemw_key_t key = key_make(1);
    apr_uint64_t epoch = mw_epoch_now(*state);

    mw_state_count(*state, MW_COUNT_STORED, 7);
    mw_epoch_bump(*state, &key);
    mw_state_init(*state);
    assert_int_equal(mw_state_sum(*state, MW_COUNT_STORED), 7);
    assert_true(is_overtaken(*state, &key, epoch));
    assert_int_equal(mw_epoch_now(*state), epoch + 1);
}

static void test_state_init_replaces_what_is_not_a_state(void **state)
{
    memset(*state, 0xa5, mw_state_size());
    mw_state_init(*state);
    assert_int_equal(mw_state_sum(*state, MW_COUNT_STORED), 0);
    assert_int_equal(mw_breaker_allows(*state, 1), 1);
}

static int overtaken(const mw_state_t *state, int number, apr_uint64_t epoch)
{
    cachemw_key_t key = key_make(number);

    return is_overtaken(state, &key, epoch);
}

/* A page fetched while its own URL was invalidated must not be stored; one
 * fetched while others were may. */
static void test_state_epoch_is_overtaken_for_the_key_only(void **state)
{
    const apr_uint64_t epoch = mw_epoch_now(*state);
    cachemw_key_t empty = { "", 0 };
    cachemw_key_t key = key_make(7);
    int others = 0;
    int i;

    assert_false(overtaken(*state, 7, epoch));
    mw_epoch_bump(*state, &key);
    assert_true(overtaken(*state, 7, epoch));
    for (i = 0; i < 200; i++) {
        others += i != 7 && overtaken(*state, i, epoch);
    }
    /* Of 199 others few share one of 1024 slots: 0.2 are expected. */
    assert_in_range(others, 0, 7);
    mw_epoch_bump(*state, &empty);
    assert_true(is_overtaken(*state, &empty, epoch));
}

static void test_state_epoch_noted_afterwards_is_not_overtaken(void **state)
{
    cachemw_key_t key = key_make(3);
    apr_uint64_t epoch;

    mw_epoch_bump(*state, &key);
    mw_epoch_bump_all(*state);
    epoch = mw_epoch_now(*state);
    assert_false(overtaken(*state, 3, epoch));
    assert_false(overtaken(*state, 4, epoch));
    key = key_make(3);
    mw_epoch_bump(*state, &key);
    assert_true(overtaken(*state, 3, epoch));
}

static void test_state_epochs_of_all_are_overtaken_by_a_clear(void **state)
{
    const apr_uint64_t epoch = mw_epoch_now(*state);
    int i;

    mw_epoch_bump_all(*state);
    for (i = 0; i < 200; i++) {
        assert_true(overtaken(*state, i, epoch));
    }
}

static void epoch_bump_some(void *baton, int i)
{
    cachemw_key_t key = key_make(5);

    for (i = 0; i < 1000; i++) {
        mw_epoch_bump(baton, &key);
    }
}

/* The slot ends at the last of them all, never at an earlier one. */
static void test_state_epoch_of_concurrent_changes_is_the_last(void **state)
{
    apr_uint64_t epoch;

    threads_run(8, epoch_bump_some, *state);
    epoch = mw_epoch_now(*state);
    assert_int_equal(epoch, 8000);
    assert_true(overtaken(*state, 5, epoch - 1));
    assert_false(overtaken(*state, 5, epoch));
}

static void test_state_log_one_line_per_ten_seconds(void **state)
{
    const apr_int64_t start = 5 * SECOND;
    apr_uint32_t suppressed = 99;
    int i;

    assert_int_equal(mw_log_allowed(*state, 1, start, &suppressed), 1);
    assert_int_equal(suppressed, 0);
    for (i = 0; i < 41; i++) {
        suppressed = 99;
        assert_int_equal(
            mw_log_allowed(*state, 1, start + i * SECOND / 5, &suppressed), 0);
        assert_int_equal(suppressed, 0);
    }
    assert_int_equal(mw_log_allowed(*state, 2, start + 9 * SECOND, &suppressed),
                     1);
    assert_int_equal(suppressed, 0);
    assert_int_equal(
        mw_log_allowed(*state, 1, start + 10 * SECOND - 1, &suppressed), 0);
    assert_int_equal(
        mw_log_allowed(*state, 1, start + 10 * SECOND, &suppressed), 1);
    assert_int_equal(suppressed, 42);
    assert_int_equal(
        mw_log_allowed(*state, 1, start + 20 * SECOND, &suppressed), 1);
    assert_int_equal(suppressed, 0);
}

/* Every kind speaks for itself, and one too many speaks rather than not. */
static void test_state_log_kinds_do_not_hide_each_other(void **state)
{
    apr_uint32_t suppressed, kind;
    int round;

    for (kind = 1; kind <= 64; kind++) {
        assert_true(
            mw_log_allowed(*state, kind * 0x61c88647, SECOND, &suppressed));
        assert_int_equal(suppressed, 0);
    }
    for (round = 0; round < 3; round++) {
        for (kind = 1; kind <= 64; kind++) {
            assert_false(mw_log_allowed(*state, kind * 0x61c88647, 2 * SECOND,
                                        &suppressed));
        }
    }
    assert_true(mw_log_allowed(*state, 7, 2 * SECOND, &suppressed));
    assert_int_equal(suppressed, 0);
    assert_false(mw_log_allowed(*state, 7, 2 * SECOND, &suppressed));
}

typedef struct log_race_t {
    mw_state_t *state;
    int allowed;
    apr_uint32_t suppressed;
} log_race_t;

static void lines_try(void *baton, int i)
{
    log_race_t *race = baton;
    apr_uint32_t suppressed;
    int second;

    (void)i;
    for (second = 0; second < 10000; second++) {
        if (mw_log_allowed(race->state, 3, second * SECOND, &suppressed)) {
            __atomic_fetch_add(&race->allowed, 1, __ATOMIC_RELAXED);
            __atomic_fetch_add(&race->suppressed, suppressed, __ATOMIC_RELAXED);
        }
    }
}

/* Children whose backend fails must not fill the disk with one line each. */
static void test_state_log_limit_is_shared(void **state)
{
    log_race_t *race = shared_make(sizeof(*race));
    apr_uint32_t rest;

    race->state = *state;
    threads_run(8, lines_try, race);
    assert_in_range(race->allowed, 500, 1000);
    assert_int_equal(mw_log_allowed(*state, 3, 20000 * SECOND, &rest), 1);
    assert_int_equal(race->allowed + race->suppressed + rest, 8 * 10000);
}

static void test_state_monotonic_does_not_go_back(void **state)
{
    apr_int64_t last = mw_monotonic();
    int i;

    (void)state;
    assert_true(last > 0);
    for (i = 0; i < 1000; i++) {
        const apr_int64_t now = mw_monotonic();

        assert_true(now >= last);
        last = now;
    }
}

#define SHARED(f)                                          \
    cmocka_unit_test_setup_teardown(f, shared_state_setup, \
                                    shared_state_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED(test_state_counts_are_spread_over_processes),
        SHARED(test_state_counts_are_spread_over_threads),
        SHARED(test_state_counts_are_exact),
        SHARED(test_state_layout_keeps_lines_apart),
        SHARED(test_state_counters_have_names),
        SHARED(test_state_kinds_are_summed_by_name),
        SHARED(test_state_kinds_are_bounded),
        SHARED(test_state_kinds_have_plain_names),
        SHARED(test_state_kind_without_a_name_is_nobodys),
        SHARED(test_state_init_keeps_what_is_there),
        SHARED(test_state_init_replaces_what_is_not_a_state),
        SHARED(test_state_epoch_is_overtaken_for_the_key_only),
        SHARED(test_state_epoch_noted_afterwards_is_not_overtaken),
        SHARED(test_state_epochs_of_all_are_overtaken_by_a_clear),
        SHARED(test_state_epoch_of_concurrent_changes_is_the_last),
        SHARED(test_state_log_one_line_per_ten_seconds),
        SHARED(test_state_log_kinds_do_not_hide_each_other),
        SHARED(test_state_log_limit_is_shared),
        SHARED(test_state_monotonic_does_not_go_back),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
