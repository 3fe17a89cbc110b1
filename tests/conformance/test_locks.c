/* SPDX-License-Identifier: Apache-2.0 */

/* Locks, of stores that have them. */

#include <string.h>
#include <unistd.h>

#include "harness.h"

#define LOCK_LONG CT_HOUR
#define LOCK_SHORT 100000
#define PATIENCE apr_time_from_sec(20)

static cachemw_id_t token_make(char fill)
{
    cachemw_id_t token;

    memset(&token, fill, sizeof(token));
    return token;
}

/* Locks outlive a test, and clear. */
static cachemw_key_t key_fresh(ct_t *c, const char *what)
{
    return ct_key(c, "%s/%d/%" APR_INT64_T_FMT, what, (int)getpid(),
                  mw_monotonic());
}

static apr_status_t lock_take(ct_t *c, const cachemw_key_t *key, char fill,
                              apr_interval_time_t ttl)
{
    const cachemw_id_t token = token_make(fill);
    cachemw_id_t holder;

    return ct_lock(c, key, &token, ttl, &holder);
}

static apr_status_t lock_drop(ct_t *c, const cachemw_key_t *key, char fill)
{
    const cachemw_id_t token = token_make(fill);

    return ct_unlock(c, key, &token);
}

/* A store in front of others may have the slot, and they none. */
static void locks_need(ct_t *c)
{
    cachemw_key_t key = key_fresh(c, "any");

    ct_need(c, mw_store_can_lock(c->store), "lock");
    ct_need(c, lock_drop(c, &key, 'x') != APR_ENOTIMPL, "lock");
}

static void test_lock_is_had_by_one(ct_t *c)
{
    cachemw_key_t key = key_fresh(c, "page");
    cachemw_key_t other = key_fresh(c, "other");
    cachemw_id_t a = token_make('a'), b = token_make('b'), holder;

    locks_need(c);
    ct_status(c, ct_lock(c, &key, &a, LOCK_LONG, &holder), APR_SUCCESS,
              "lock of a free one");
    ct_status(c, ct_lock(c, &key, &b, LOCK_LONG, &holder), APR_EBUSY,
              "lock of another's");
    ct_check(c, memcmp(&holder, &a, sizeof(a)) == 0,
             "lock tells a wrong holder");
    ct_status(c, ct_lock(c, &other, &b, LOCK_LONG, &holder), APR_SUCCESS,
              "lock under another key");
    ct_status(c, ct_lock(c, &key, &a, LOCK_LONG, &holder), APR_SUCCESS,
              "lock of one's own");
}

static void test_lock_is_let_go_by_its_holder_only(ct_t *c)
{
    cachemw_key_t key = key_fresh(c, "page");

    locks_need(c);
    ct_status(c, lock_drop(c, &key, 'a'), APR_NOTFOUND, "unlock of a free one");
    ct_status(c, lock_take(c, &key, 'a', LOCK_LONG), APR_SUCCESS, "lock");
    ct_status(c, lock_drop(c, &key, 'b'), APR_NOTFOUND, "unlock of another's");
    ct_status(c, lock_take(c, &key, 'b', LOCK_LONG), APR_EBUSY,
              "lock, after another one's unlock");
    ct_status(c, lock_drop(c, &key, 'a'), APR_SUCCESS, "unlock");
    ct_status(c, lock_drop(c, &key, 'a'), APR_NOTFOUND, "unlock twice");
    ct_status(c, lock_take(c, &key, 'b', LOCK_LONG), APR_SUCCESS,
              "lock after unlock");
}

static void test_lock_ends_by_itself(ct_t *c)
{
    cachemw_key_t key = key_fresh(c, "page");
    const apr_int64_t until = mw_monotonic() + PATIENCE;
    apr_status_t rv;

    locks_need(c);
    ct_status(c, lock_take(c, &key, 'a', LOCK_SHORT), APR_SUCCESS, "lock");
    while ((rv = lock_take(c, &key, 'b', LOCK_LONG)) == APR_EBUSY
           && mw_monotonic() < until) {
        apr_sleep(1000);
    }
    ct_status(c, rv, APR_SUCCESS, "lock of one that has ended");
    ct_status(c, lock_take(c, &key, 'a', LOCK_LONG), APR_EBUSY,
              "lock of one that has ended and is another's");
    ct_status(c, lock_drop(c, &key, 'a'), APR_NOTFOUND,
              "unlock of one that has ended");
}

static void test_lock_is_extended(ct_t *c)
{
    cachemw_key_t key = key_fresh(c, "page");

    locks_need(c);
    ct_status(c, lock_take(c, &key, 'a', LOCK_SHORT), APR_SUCCESS, "lock");
    ct_status(c, lock_take(c, &key, 'a', LOCK_LONG), APR_SUCCESS, "lock again");
    apr_sleep(2 * LOCK_SHORT);
    ct_status(c, lock_take(c, &key, 'b', LOCK_LONG), APR_EBUSY,
              "lock of one that was extended");
}

/* Tokens and keys are any bytes. */
static void test_lock_of_any_bytes(ct_t *c)
{
    cachemw_key_t keys[3];
    apr_size_t i;

    locks_need(c);
    keys[0] = ct_key_bytes(c, "", 0);
    keys[1] = ct_key_bytes(c, "\0\r\n", 3);
    keys[2] = ct_key_bytes(c, "\0\r\n\0", 4);
    for (i = 0; i < 3; i++) {
        ct_status(c, lock_take(c, &keys[i], '\0', LOCK_LONG), APR_SUCCESS,
                  "lock");
        ct_status(c, lock_take(c, &keys[i], '\n', LOCK_LONG), APR_EBUSY,
                  "lock of another's");
    }
    for (i = 0; i < 3; i++) {
        ct_status(c, lock_drop(c, &keys[i], '\0'), APR_SUCCESS, "unlock");
    }
}

static void test_lock_is_no_entry(ct_t *c)
{
    cachemw_key_t key = key_fresh(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    locks_need(c);
    ct_status(c, lock_take(c, &key, 'a', LOCK_LONG), APR_SUCCESS, "lock");
    ct_require_miss(c, &key, "after lock");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_store(c, &item);
    ct_status(c, lock_take(c, &key, 'b', LOCK_LONG), APR_EBUSY,
              "lock after remove and set");
    ct_status(c, lock_drop(c, &key, 'a'), APR_SUCCESS, "unlock");
    ct_require(c, &item, "after unlock");
}

typedef struct contest_t {
    cachemw_key_t key;
    int takers;
} contest_t;

static void take_act(ct_t *c, int index, void *baton)
{
    contest_t *contest = baton;
    apr_status_t rv =
        lock_take(c, &contest->key, (char)('a' + index), LOCK_LONG);

    if (rv == APR_SUCCESS) {
        __atomic_fetch_add(&contest->takers, 1, __ATOMIC_SEQ_CST);
    }
    else {
        ct_status(c, rv, APR_EBUSY, "lock");
    }
}

static void test_lock_has_one_taker(ct_t *c)
{
    contest_t contest = { key_fresh(c, "page"), 0 };

    locks_need(c);
    ct_threads(c, 8, take_act, &contest);
    ct_check(c, contest.takers == 1, "%d threads have the same lock",
             contest.takers);
}

const ct_test_t ct_tests_locks[] = {
    CT_TEST(test_lock_is_had_by_one),
    CT_TEST(test_lock_is_let_go_by_its_holder_only),
    CT_TEST(test_lock_ends_by_itself),
    CT_TEST(test_lock_is_extended),
    CT_TEST(test_lock_of_any_bytes),
    CT_TEST(test_lock_is_no_entry),
    CT_TEST(test_lock_has_one_taker),
    CT_TESTS_END,
};
