/* SPDX-License-Identifier: Apache-2.0 */

/* What stands between a call and its slot: deadline, breaker, the lock of a
 * provider that is not thread-safe. */

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "store_fixture.h"

/* --- deadline and breaker ------------------------------------------------- */

static mw_store_t *start_remote(fixture_t *f)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_REMOTE;
    return fixture_start(f, &table, NONE);
}

static void test_deadline_of_remote_stores_only(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    apr_int64_t before;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_get(f, "k", &rv);
    assert_int_equal(fake.seen.deadline, 0);
    start_remote(f);
    before = mw_monotonic();
    fixture_get(f, "k", &rv);
    assert_in_range(fake.seen.deadline, before + 250000,
                    mw_monotonic() + 250000);
    before = mw_monotonic();
    mw_store_set(f->store, &call, &key, &entry);
    assert_in_range(fake.seen.deadline, before + 50000, mw_monotonic() + 50000);
    call.deadline = mw_monotonic() + 3000000;
    mw_store_set(f->store, &call, &key, &entry);
    assert_int_equal(fake.seen.deadline, call.deadline);
}

static void test_deadline_already_past_is_no_failure(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    int i;

    start_remote(f);
    call.deadline = 1;
    for (i = 0; i < 10; i++) {
        assert_int_equal(mw_store_exists(f->store, &call, &key), APR_TIMEUP);
    }
    assert_int_equal(fake.calls[FAKE_EXISTS], 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 10);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 0);
    assert_true(mw_store_is_usable(f->store));
}

static void test_breaker_opens_after_five_failures(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    for (i = 0; i < 50; i++) {
        fixture_get(f, "k", &rv);
        assert_int_equal(rv, i < 5 ? APR_ECONNREFUSED : APR_EGENERAL);
    }
    assert_int_equal(fake.calls[FAKE_GET], 5);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 45);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 5);
    assert_int_equal(fixture_logged(f, "5 failures in a row"), 1);
    assert_false(mw_store_is_usable(f->store));
}

static void test_breaker_of_local_stores_never_opens(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    for (i = 0; i < 50; i++) {
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fake.calls[FAKE_GET], 50);
    assert_true(mw_store_is_usable(f->store));
}

/* A miss, a full store and a damaged entry are answers: it works. */
static void test_breaker_counts_answers_as_success(void **state)
{
    static const apr_status_t answers[] = { APR_SUCCESS, APR_NOTFOUND,
                                            APR_EINCOMPLETE };
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    for (i = 0; i < 30; i++) {
        int fails = i % 5 < 4;

        fake.fail[FAKE_GET] = fails ? APR_ECONNREFUSED : answers[i / 5 % 3];
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fake.calls[FAKE_GET], 30);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 0);
}

/* Open it in the past, so that the pause is over now. */
static void breaker_open_long_ago(mw_store_t *store)
{
    int i;

    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        mw_breaker_failure(mw_store_state(store),
                           mw_monotonic() - 3 * MW_BREAKER_BACKOFF, 0,
                           APR_ECONNREFUSED);
    }
}

static void test_breaker_closes_when_a_probe_works(void **state)
{
    fixture_t *f = *state;
    apr_status_t why, rv;
    apr_int64_t until;

    breaker_open_long_ago(start_remote(f));
    assert_int_equal(mw_breaker_read(mw_store_state(f->store), &why, &until),
                     MW_BREAKER_OPEN);
    assert_true(mw_store_is_usable(f->store));
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_NOTFOUND);
    assert_int_equal(mw_breaker_read(mw_store_state(f->store), &why, &until),
                     MW_BREAKER_CLOSED);
    assert_int_equal(fixture_logged(f, "works again"), 1);
}

/* All connections are in use for a moment: the next call is the probe then, not
 * one that comes a whole pause later. */
static void test_breaker_asks_again_when_a_probe_was_not_tried(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    breaker_open_long_ago(start_remote(f));
    fake.fail[FAKE_GET] = APR_EAGAIN;
    for (i = 1; i <= 3; i++) {
        fixture_get(f, "k", &rv);
        assert_int_equal(rv, APR_EGENERAL);
        assert_int_equal(fake.calls[FAKE_GET], i);
    }
    fake.fail[FAKE_GET] = APR_SUCCESS;
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_NOTFOUND);
    assert_int_equal(fixture_logged(f, "works again"), 1);
}

static void test_breaker_stays_open_when_a_probe_fails(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    breaker_open_long_ago(start_remote(f));
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    fixture_get(f, "k", &rv);
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_EGENERAL);
    assert_int_equal(fake.calls[FAKE_GET], 1);
    assert_false(mw_store_is_usable(f->store));
}

/* Who only looks now and then must not miss that it was out of use. */
static void test_breaker_each_change_is_a_line(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    for (i = 0; i < 4; i++) {
        breaker_open_long_ago(f->store);
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fixture_logged(f, "works again"), 4);
    for (i = 0; i < 3; i++) {
        int failures;

        fake.fail[FAKE_GET] = APR_ECONNREFUSED;
        for (failures = 0; failures < MW_BREAKER_FAILURES; failures++) {
            fixture_get(f, "k", &rv);
        }
        fake.fail[FAKE_GET] = APR_SUCCESS;
        assert_true(
            mw_breaker_allows(mw_store_state(f->store),
                              mw_monotonic() + 2 * MW_BREAKER_BACKOFF_MAX));
        mw_breaker_success(mw_store_state(f->store));
    }
    assert_int_equal(fixture_logged(f, "failures in a row"), 3);
}

/* One that works now and then must not fill the disk with its log. */
static void test_breaker_lines_are_limited(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    for (i = 0; i < 30; i++) {
        breaker_open_long_ago(f->store);
        fixture_get(f, "k", &rv);
    }
    assert_in_range(fixture_logged(f, "works again"), 10, 11);
    assert_int_equal(fixture_logged(f, "(changes before that, not logged: 1)"),
                     fixture_logged(f, "works again"));
    assert_true(mw_breaker_has_news(mw_store_state(f->store)));
}

/* The backend has done nothing wrong when there is no connection to be had. */
static void test_breaker_is_not_told_of_what_was_not_tried(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    fake.fail[FAKE_GET] = APR_EAGAIN;
    for (i = 0; i < 20; i++) {
        fixture_get(f, "k", &rv);
        assert_int_equal(rv, APR_EGENERAL);
    }
    assert_int_equal(fake.calls[FAKE_GET], 20);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 20);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 0);
    assert_int_equal(f->nlines, 0);
    assert_true(mw_store_is_usable(f->store));
}

/* A page that is looked at every second must not make the store look well. */
static void test_breaker_is_not_told_of_stats(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_stats_t stats = { .size = sizeof(stats) };
    apr_status_t rv;
    int i;

    start_remote(f);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        assert_true(mw_store_is_usable(f->store));
        fixture_get(f, "k", &rv);
        assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_SUCCESS);
    }
    assert_false(mw_store_is_usable(f->store));
    assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_SUCCESS);
}

/* Nor must who looks at a page make the errors that it shows. */
static void test_stats_that_fail_are_not_counted(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_stats_t stats = { .size = sizeof(stats) };

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_STATS] = EIO;
    assert_int_equal(mw_store_stats(f->store, &call, &stats), EIO);
    fake.fail[FAKE_STATS] = APR_TIMEUP;
    assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_TIMEUP);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 0);
}

/* Addresses are looked up there: without them the store would never come
 * back. */
static void test_sweep_of_remote_stores_goes_on_without_it(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    apr_status_t why;
    apr_int64_t until;
    const apr_int64_t before = mw_monotonic();
    int more = 0;
    int i;

    breaker_open_long_ago(start_remote(f));
    assert_int_equal(mw_store_sweep(f->store, &call, &more), APR_SUCCESS);
    assert_in_range(fake.seen.deadline, before + 1000000,
                    mw_monotonic() + 1000000);
    assert_int_equal(mw_breaker_read(mw_store_state(f->store), &why, &until),
                     MW_BREAKER_OPEN);
    fixture_start(f, &fake_full, NONE);
    start_remote(f);
    fake.fail[FAKE_SWEEP] = EIO;
    for (i = 0; i < 2 * MW_BREAKER_FAILURES; i++) {
        assert_int_equal(mw_store_sweep(f->store, &call, &more), EIO);
    }
    assert_true(mw_store_is_usable(f->store));
}

static void test_sweep_interval_of_remote_stores_is_short(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;

    fixture_start(f, &table, NONE);
    assert_int_equal(mw_store_sweep_interval(f->store), apr_time_from_sec(300));
    table.flags = CACHEMW_REMOTE;
    fixture_start(f, &table, NONE);
    assert_int_equal(mw_store_sweep_interval(f->store), apr_time_from_sec(10));
    fixture_start(f, &table, OPTIONS("cleanup_interval=2s"));
    assert_int_equal(mw_store_sweep_interval(f->store), apr_time_from_sec(2));
}

/* --- bodies under way ----------------------------------------------------- */

typedef struct reading_t {
    cachemw_call_t call;
    cachemw_key_t key;
    cachemw_id_t id;
    apr_bucket_brigade *body;
    apr_interval_time_t left;
} reading_t;

static reading_t reading_make(fixture_t *f)
{
    reading_t reading = { fixture_call(f),
                          fixture_key("k"),
                          { { 0 } },
                          NULL,
                          mw_store_settings(f->store)->body_timeout };

    fixture_set(f, "k", 1, 1000);
    reading.id = fixture_entry(1, "", 0).id;
    reading.body = apr_brigade_create(f->pool, f->alloc);
    return reading;
}

static apr_status_t reading_go(fixture_t *f, reading_t *reading)
{
    return mw_store_read_on(f->store, &reading->call, &reading->key,
                            &reading->id, 100, 200, reading->body,
                            &reading->left);
}

static mw_store_t *start_remote_with(fixture_t *f, const char *const *options)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_REMOTE;
    return fixture_start(f, &table, options);
}

static void during_fail_twice(fake_slot_e slot)
{
    fake.fail[slot] = fake.calls[slot] <= 2 ? APR_ECONNRESET : APR_SUCCESS;
}

/* A visitor whose page has begun does not see that a connection broke. */
static void test_read_on_tries_again(void **state)
{
    fixture_t *f = *state;
    reading_t reading;
    apr_off_t length;

    start_remote(f);
    reading = reading_make(f);
    fake.during = during_fail_twice;
    assert_int_equal(reading_go(f, &reading), APR_SUCCESS);
    assert_int_equal(fake.calls[FAKE_READ], 3);
    assert_int_equal(apr_brigade_length(reading.body, 1, &length), APR_SUCCESS);
    assert_int_equal(length, 200);
    assert_in_range(reading.left, 1, 10000000 - 2 * 100000);
}

static void test_read_on_ends_with_body_timeout(void **state)
{
    fixture_t *f = *state;
    apr_int64_t begin;
    reading_t reading;

    start_remote_with(f, OPTIONS("body_timeout=350ms", "timeout=5s"));
    reading = reading_make(f);
    fake.fail[FAKE_READ] = APR_ECONNREFUSED;
    begin = mw_monotonic();
    assert_int_equal(reading_go(f, &reading), APR_ECONNREFUSED);
    assert_in_range(mw_monotonic() - begin, 250000, 4000000);
    assert_in_range(fake.calls[FAKE_READ], 1, 4);
    assert_in_range(fake.seen.deadline, begin, begin + 3000000);
    reading.left = 0;
    fake.calls[FAKE_READ] = 0;
    assert_int_equal(reading_go(f, &reading), APR_TIMEUP);
    assert_int_equal(fake.calls[FAKE_READ], 0);
}

static void test_read_on_each_attempt_has_its_deadline(void **state)
{
    fixture_t *f = *state;
    apr_int64_t begin;
    reading_t reading;

    start_remote(f);
    reading = reading_make(f);
    begin = mw_monotonic();
    assert_int_equal(reading_go(f, &reading), APR_SUCCESS);
    assert_in_range(fake.seen.deadline, begin + 250000,
                    mw_monotonic() + 250000);
}

/* What is gone does not come back, and a local store is not waited for. */
static void test_read_on_gives_up_where_waiting_is_of_no_use(void **state)
{
    fixture_t *f = *state;
    reading_t reading;

    start_remote(f);
    reading = reading_make(f);
    fake.fail[FAKE_READ] = APR_NOTFOUND;
    assert_int_equal(reading_go(f, &reading), APR_NOTFOUND);
    fake.fail[FAKE_READ] = APR_EINCOMPLETE;
    assert_int_equal(reading_go(f, &reading), APR_NOTFOUND);
    assert_int_equal(fake.calls[FAKE_READ], 2);
    fixture_start(f, &fake_full, NONE);
    reading = reading_make(f);
    fake.calls[FAKE_READ] = 0;
    fake.fail[FAKE_READ] = EIO;
    assert_int_equal(reading_go(f, &reading), EIO);
    assert_int_equal(fake.calls[FAKE_READ], 1);
    mw_store_close(f->store);
    assert_int_equal(reading_go(f, &reading), APR_EGENERAL);
}

/* It comes back while a body is under way. */
static void test_read_on_waits_for_the_breaker(void **state)
{
    fixture_t *f = *state;
    apr_status_t why;
    apr_int64_t until;
    reading_t reading;
    int i;

    start_remote(f);
    reading = reading_make(f);
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        mw_breaker_failure(mw_store_state(f->store),
                           mw_monotonic() - MW_BREAKER_BACKOFF + 150000, 0,
                           APR_ECONNREFUSED);
    }
    mw_breaker_read(mw_store_state(f->store), &why, &until);
    assert_int_equal(reading_go(f, &reading), APR_SUCCESS);
    assert_true(mw_monotonic() >= until);
    assert_int_equal(fake.calls[FAKE_READ], 1);
}

/* --- threads -------------------------------------------------------------- */

#define THREADS 4

static int overlaps, inside;
static pthread_barrier_t barrier;

static void during_watch(fake_slot_e slot)
{
    int i;

    (void)slot;
    if (__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) > 1) {
        __atomic_add_fetch(&overlaps, 1, __ATOMIC_SEQ_CST);
    }
    for (i = 0; i < 3; i++) {
        sched_yield();
    }
    __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
}

/* Nobody leaves before all are in. */
static void during_meet(fake_slot_e slot)
{
    (void)slot;
    __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&barrier);
    if (__atomic_load_n(&inside, __ATOMIC_SEQ_CST) == THREADS) {
        __atomic_add_fetch(&overlaps, 1, __ATOMIC_SEQ_CST);
    }
}

typedef struct worker_t {
    fixture_t *f;
    int rounds;
    apr_pool_t *pool;
} worker_t;

static void *worker_run(void *data)
{
    worker_t *worker = data;
    cachemw_call_t call = fixture_call(worker->f);
    cachemw_key_t key = fixture_key("k");
    cachemw_stats_t stats = { .size = sizeof(stats) };
    int i, more;

    call.pool = worker->pool;
    call.bucket_alloc = NULL;
    call.deadline = mw_monotonic() + apr_time_from_sec(60);
    for (i = 0; i < worker->rounds; i++) {
        mw_store_exists(worker->f->store, &call, &key);
        mw_store_remove(worker->f->store, &call, &key, NULL);
        if (worker->rounds > 1) {
            mw_store_sweep(worker->f->store, &call, &more);
            mw_store_stats(worker->f->store, &call, &stats);
        }
    }
    return NULL;
}

static void run_threads(fixture_t *f, int rounds)
{
    worker_t workers[THREADS];
    pthread_t threads[THREADS];
    int i;

    overlaps = 0;
    inside = 0;
    for (i = 0; i < THREADS; i++) {
        workers[i].f = f;
        workers[i].rounds = rounds;
        apr_pool_create(&workers[i].pool, NULL);
        pthread_create(&threads[i], NULL, worker_run, &workers[i]);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        apr_pool_destroy(workers[i].pool);
    }
    fake.during = NULL;
}

static void test_serialize_lets_one_call_in(void **state)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_SERIALIZE;
    fixture_start(*state, &table, NONE);
    fake.during = during_watch;
    run_threads(*state, 300);
    assert_int_equal(overlaps, 0);
    assert_int_equal(fake.calls[FAKE_EXISTS], THREADS * 300);
    assert_int_equal(fake.calls[FAKE_STATS], THREADS * 300);
}

static void test_without_serialize_calls_overlap(void **state)
{
    fixture_start(*state, &fake_full, NONE);
    fake.during = during_meet;
    pthread_barrier_init(&barrier, NULL, THREADS);
    run_threads(*state, 1);
    pthread_barrier_destroy(&barrier);
    assert_true(overlaps >= 1);
}

static apr_status_t keys_remove(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    fixture_t *f = baton;
    cachemw_call_t call = fixture_call(f);

    return mw_store_remove(f->store, &call, key, &entry->id);
}

static void test_serialize_lets_keys_call_the_store(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_SERIALIZE;
    fixture_start(f, &table, NONE);
    fixture_set(f, "k", 1, 1);
    assert_int_equal(mw_store_keys(f->store, &call, NULL, keys_remove, f),
                     APR_SUCCESS);
    assert_int_equal(apr_hash_count(fake.entries), 0);
}

static void *hold_run(void *data)
{
    apr_status_t rv;
    worker_t *worker = data;
    cachemw_call_t call = fixture_call(worker->f);
    cachemw_key_t key = fixture_key("k");

    call.pool = worker->pool;
    rv = mw_store_exists(worker->f->store, &call, &key);
    return (void *)(apr_uintptr_t)rv;
}

static void during_hold(fake_slot_e slot)
{
    (void)slot;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
}

/* Who waits for the lock is out of time, the provider is not to blame. */
static void test_serialize_waits_no_longer_than_the_deadline(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_provider_t table = fake_full;
    worker_t worker = { f, 1, NULL };
    pthread_t thread;

    table.flags = CACHEMW_SERIALIZE;
    fixture_start(f, &table, NONE);
    apr_pool_create(&worker.pool, NULL);
    pthread_barrier_init(&barrier, NULL, 2);
    fake.during = during_hold;
    pthread_create(&thread, NULL, hold_run, &worker);
    pthread_barrier_wait(&barrier);
    call.deadline = mw_monotonic() + 5000;
    assert_int_equal(mw_store_remove(f->store, &call, &key, NULL), APR_TIMEUP);
    assert_int_equal(fake.calls[FAKE_REMOVE], 0);
    fake.during = NULL;
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
    apr_pool_destroy(worker.pool);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 1);
    assert_int_equal(fixture_logged(f, "remove: other calls take too long"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_deadline_of_remote_stores_only),
        TEST(test_deadline_already_past_is_no_failure),
        TEST(test_breaker_opens_after_five_failures),
        TEST(test_breaker_of_local_stores_never_opens),
        TEST(test_breaker_counts_answers_as_success),
        TEST(test_breaker_closes_when_a_probe_works),
        TEST(test_breaker_asks_again_when_a_probe_was_not_tried),
        TEST(test_breaker_stays_open_when_a_probe_fails),
        TEST(test_breaker_each_change_is_a_line),
        TEST(test_breaker_lines_are_limited),
        TEST(test_breaker_is_not_told_of_what_was_not_tried),
        TEST(test_breaker_is_not_told_of_stats),
        TEST(test_stats_that_fail_are_not_counted),
        TEST(test_sweep_of_remote_stores_goes_on_without_it),
        TEST(test_sweep_interval_of_remote_stores_is_short),
        TEST(test_read_on_tries_again),
        TEST(test_read_on_ends_with_body_timeout),
        TEST(test_read_on_each_attempt_has_its_deadline),
        TEST(test_read_on_gives_up_where_waiting_is_of_no_use),
        TEST(test_read_on_waits_for_the_breaker),
        TEST(test_serialize_lets_one_call_in),
        TEST(test_without_serialize_calls_overlap),
        TEST(test_serialize_lets_keys_call_the_store),
        TEST(test_serialize_waits_no_longer_than_the_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
