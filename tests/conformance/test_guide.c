/* SPDX-License-Identifier: Apache-2.0 */

/* The tests that the users' guide asks of a backend, under its names. */

#include "apr_strings.h"
#include "harness.h"

static void test_get_nonexistent_key(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "nonexistent");

    ct_require_miss(c, &key, "a key that was never set");
}

static void test_set_and_get(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "test_key");
    ct_item_t item = ct_item(c, &key, 1, 10);

    ct_store(c, &item);
    ct_require(c, &item, "after set");
}

static void test_expiration(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "expire_key");
    ct_item_t item = ct_item(c, &key, 1, 5);

    item.expires = c->now + apr_time_from_sec(1);
    ct_store(c, &item);
    ct_require(c, &item, "right after a set that lasts one second");
    c->now += apr_time_from_sec(2);
    ct_require_miss(c, &key, "two seconds after a set that lasts one");
}

static void test_delete(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "delete_key");
    ct_item_t item = ct_item(c, &key, 1, 5);

    ct_store(c, &item);
    ct_require(c, &item, "before remove");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_require_miss(c, &key, "after remove");
}

static void test_delete_nonexistent(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "nonexistent");

    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS,
              "remove of a key that was never set");
}

static void concurrent_set(ct_t *c, int index, void *baton)
{
    ct_item_t *items = baton;

    ct_store(c, &items[index]);
}

static void concurrent_get(ct_t *c, int index, void *baton)
{
    ct_item_t *items = baton;

    ct_require(c, &items[index], "after ten threads set a key each");
}

static void test_concurrent_operations(ct_t *c)
{
    ct_item_t items[10];
    int i;

    for (i = 0; i < 10; i++) {
        cachemw_key_t key = ct_key(c, "key_%d", i);

        items[i] = ct_item(c, &key, (apr_uint32_t)i, 100 + i);
    }
    ct_threads(c, 10, concurrent_set, items);
    ct_threads(c, 10, concurrent_get, items);
}

const ct_test_t ct_tests_guide[] = {
    CT_TEST(test_get_nonexistent_key),
    CT_TEST(test_set_and_get),
    CT_TEST(test_expiration),
    CT_TEST(test_delete),
    CT_TEST(test_delete_nonexistent),
    CT_TEST(test_concurrent_operations),
    CT_TESTS_END,
};
