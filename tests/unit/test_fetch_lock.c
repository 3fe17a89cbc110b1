/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "core/fetch_lock.h"
#include "core/state_layout.h"
#include "store_fixture.h"

#define SECOND APR_INT64_C(1000000)

static const cachemw_id_t here = { "this server here" };
static const cachemw_id_t there = { "another one" };

static mw_store_t *start(fixture_t *f)
{
    return fixture_start(f, &fake_full, OPTIONS("coalesce_timeout=10s"));
}

/* A mark that was taken for a page. */
static mw_fetch_t fetch_begin(fixture_t *f, const char *page,
                              apr_uint64_t owner)
{
    const apr_int64_t now = mw_monotonic();
    mw_fetch_t fetch = { f->store, fixture_key(page), owner,
                         now + 10 * SECOND };

    assert_int_equal(mw_mark_take(mw_store_state(f->store), &fetch.key, owner,
                                  now, fetch.end, NULL),
                     0);
    return fetch;
}

static void fetch_release(const mw_fetch_t *fetch, apr_int64_t when)
{
    mw_mark_release(mw_store_state(fetch->store), &fetch->key, fetch->owner,
                    when);
}

static apr_status_t lock(fixture_t *f, const mw_fetch_t *fetch)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_id_t holder;

    return mw_fetch_lock(fetch, &call, &here, &holder);
}

static void tend(fixture_t *f)
{
    cachemw_call_t call = fixture_call(f);

    mw_fetch_tend(f->store, &call, &here);
}

static void unlock(fixture_t *f, const mw_fetch_t *fetch)
{
    cachemw_call_t call = fixture_call(f);

    mw_fetch_unlock(fetch, &call, &here);
}

static unsigned int locks(void)
{
    return apr_hash_count(fake.locks);
}

/* All locks are another server's from now on. */
static void locks_lose(void)
{
    apr_hash_index_t *i;

    for (i = apr_hash_first(fake.pool, fake.locks); i; i = apr_hash_next(i)) {
        apr_hash_set(fake.locks, apr_hash_this_key(i), apr_hash_this_key_len(i),
                     &there);
    }
}

static void test_lock_is_taken_noted_and_let_go(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t fetch;

    start(f);
    fetch = fetch_begin(f, "page", 111);
    assert_false(mw_fetch_forget(&fetch));
    assert_int_equal(lock(f, &fetch), APR_SUCCESS);
    assert_int_equal(locks(), 1);
    assert_in_range(fake.ttl, 1, 10 * SECOND / 4);
    assert_true(mw_fetch_forget(&fetch));
    assert_false(mw_fetch_forget(&fetch));
    unlock(f, &fetch);
    assert_int_equal(locks(), 0);
}

static void test_lock_of_another_server_is_told(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call;
    cachemw_id_t holder;
    mw_fetch_t fetch;

    start(f);
    call = fixture_call(f);
    fetch = fetch_begin(f, "page", 111);
    assert_int_equal(mw_fetch_lock(&fetch, &call, &there, &holder),
                     APR_SUCCESS);
    mw_fetch_forget(&fetch);
    assert_int_equal(mw_fetch_lock(&fetch, &call, &here, &holder), APR_EBUSY);
    assert_memory_equal(&holder, &there, sizeof(there));
    assert_false(mw_fetch_forget(&fetch));
}

static void test_successor_of_the_dead_has_the_lock(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t dead, heir;

    start(f);
    dead = fetch_begin(f, "page", 111);
    assert_int_equal(lock(f, &dead), APR_SUCCESS);
    fetch_release(&dead, mw_monotonic());
    heir = fetch_begin(f, "page", 222);
    assert_int_equal(lock(f, &heir), APR_SUCCESS);
    assert_false(mw_fetch_forget(&dead));
    tend(f);
    assert_int_equal(locks(), 1);
    assert_true(mw_fetch_forget(&heir));
}

static void test_lock_never_outlives_its_mark(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t fetch;

    start(f);
    fetch = fetch_begin(f, "page", 111);
    fetch.end = mw_monotonic() + SECOND;
    assert_int_equal(lock(f, &fetch), APR_SUCCESS);
    assert_in_range(fake.ttl, 1, SECOND);
    fetch.end = mw_monotonic() - SECOND;
    assert_int_equal(lock(f, &fetch), APR_SUCCESS);
    assert_int_equal(fake.ttl, 1);
}

static void test_locks_of_the_living_are_extended(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t one, two;

    start(f);
    assert_int_equal(mw_fetch_tend_interval(f->store), 10 * SECOND / 4 / 3);
    tend(f);
    assert_int_equal(fake.calls[FAKE_LOCK], 0);
    one = fetch_begin(f, "one", 111);
    two = fetch_begin(f, "two", 222);
    lock(f, &one);
    lock(f, &two);
    apr_hash_clear(fake.locks); /* the backend has forgotten them */
    tend(f);
    assert_int_equal(locks(), 2);
    assert_int_equal(fake.calls[FAKE_LOCK], 4);
    assert_int_equal(fake.calls[FAKE_UNLOCK], 0);
    locks_lose();
    tend(f);
    assert_int_equal(fake.calls[FAKE_LOCK], 6);
    assert_int_equal(fake.calls[FAKE_UNLOCK], 0);
}

static void test_locks_of_the_dead_are_let_go(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t fetch;

    start(f);
    fetch = fetch_begin(f, "page", 111);
    lock(f, &fetch);
    fetch_release(&fetch, mw_monotonic() - SECOND);
    tend(f);
    assert_int_equal(locks(), 0);
    assert_int_equal(fake.calls[FAKE_LOCK], 1);
    tend(f);
    assert_int_equal(fake.calls[FAKE_UNLOCK], 1);
}

static void test_lock_is_left_to_a_successor_for_a_moment(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t fetch;

    start(f);
    fetch = fetch_begin(f, "page", 111);
    lock(f, &fetch);
    fetch_release(&fetch, mw_monotonic() + 3600 * SECOND);
    tend(f);
    assert_int_equal(locks(), 1);
    assert_true(mw_fetch_forget(&fetch));
}

static mw_fetch_t ending;

/* What the request does while its lock is being extended. */
static void end_meanwhile(fake_slot_e slot)
{
    if (slot == FAKE_LOCK) {
        assert_true(mw_fetch_forget(&ending));
    }
}

static void test_lock_that_ends_while_it_is_extended_is_let_go(void **state)
{
    fixture_t *f = *state;

    start(f);
    ending = fetch_begin(f, "page", 111);
    lock(f, &ending);
    apr_hash_clear(fake.locks);
    fake.during = end_meanwhile;
    tend(f);
    fake.during = NULL;
    assert_int_equal(locks(), 0);
    assert_int_equal(fake.calls[FAKE_UNLOCK], 1);
}

static void test_trouble_ends_a_round(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t one, two;

    start(f);
    one = fetch_begin(f, "one", 111);
    two = fetch_begin(f, "two", 222);
    lock(f, &one);
    lock(f, &two);
    fake.fail[FAKE_LOCK] = EIO;
    tend(f);
    assert_int_equal(fake.calls[FAKE_LOCK], 3);
}

static void test_trouble_is_no_lock(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t fetch;

    start(f);
    fetch = fetch_begin(f, "page", 111);
    fake.fail[FAKE_LOCK] = EIO;
    assert_int_equal(lock(f, &fetch), EIO);
    assert_false(mw_fetch_forget(&fetch));
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 1);
    fake.fail[FAKE_LOCK] = APR_ENOSPC;
    assert_int_equal(lock(f, &fetch), APR_ENOSPC);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 1);
}

static void test_stores_without_locks(void **state)
{
    fixture_t *f = *state;
    mw_fetch_t fetch;

    fixture_start(f, &fake_small, NONE);
    assert_false(mw_fetch_locks(f->store));
    fetch = fetch_begin(f, "page", 111);
    assert_int_equal(lock(f, &fetch), APR_ENOTIMPL);
    unlock(f, &fetch);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 0);
}

static void test_options_switch_locks_off(void **state)
{
    fixture_t *f = *state;

    start(f);
    assert_true(mw_fetch_locks(f->store));
    fixture_start(f, &fake_full, OPTIONS("coalesce_servers=off"));
    assert_false(mw_fetch_locks(f->store));
    fixture_start(f, &fake_full, OPTIONS("coalesce=off"));
    assert_false(mw_fetch_locks(f->store));
}

static void test_who_is_alone_has_locks_when_told_to(void **state)
{
    fixture_t *f = *state;

    start(f);
    fake.services->sharing(fake.services, 1, SECOND * 1000);
    assert_int_equal(mw_store_sharing(f->store), 1);
    assert_false(mw_fetch_locks(f->store));
    assert_true(mw_fetch_can_lock(f->store));
    fake.services->sharing(fake.services, 2, SECOND * 1000);
    assert_true(mw_fetch_locks(f->store));
    fake.services->sharing(fake.services, 1, 0);
    assert_int_equal(mw_store_sharing(f->store), 0);
    assert_true(mw_fetch_locks(f->store));
    fixture_start(f, &fake_full, OPTIONS("coalesce_servers=on"));
    fake.services->sharing(fake.services, 1, SECOND * 1000);
    assert_true(mw_fetch_locks(f->store));
}

static void test_half_of_the_slots_is_refused(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;

    table.unlock = NULL;
    assert_int_not_equal(fixture_open(f, &table, NONE), APR_SUCCESS);
    assert_non_null(strstr(f->error, "of lock and unlock it has only one"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lock_is_taken_noted_and_let_go),
        TEST(test_lock_of_another_server_is_told),
        TEST(test_successor_of_the_dead_has_the_lock),
        TEST(test_lock_never_outlives_its_mark),
        TEST(test_locks_of_the_living_are_extended),
        TEST(test_locks_of_the_dead_are_let_go),
        TEST(test_lock_is_left_to_a_successor_for_a_moment),
        TEST(test_lock_that_ends_while_it_is_extended_is_let_go),
        TEST(test_trouble_ends_a_round),
        TEST(test_trouble_is_no_lock),
        TEST(test_stores_without_locks),
        TEST(test_options_switch_locks_off),
        TEST(test_who_is_alone_has_locks_when_told_to),
        TEST(test_half_of_the_slots_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
