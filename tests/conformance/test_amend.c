/* SPDX-License-Identifier: Apache-2.0 */

/* Removing and amending: by key, and by the id of what is meant. */

#include "apr_strings.h"
#include "harness.h"

static void test_remove_makes_a_miss(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_store(c, &item);
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_require_miss(c, &key, "after remove");
    ct_store(c, &item);
    ct_require(c, &item, "set again after remove");
}

static void test_remove_twice_succeeds(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_store(c, &item);
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "the first remove");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "the second remove");
    ct_require_miss(c, &key, "after two removes");
}

static void test_remove_by_id(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_store(c, &item);
    ct_status(c, ct_remove(c, &key, &item.id), APR_SUCCESS,
              "remove with the entry's own id");
    ct_require_miss(c, &key, "after remove by id");
}

static void test_remove_of_an_older_id_keeps_the_newer(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t old = ct_item(c, &key, 1, 100);
    ct_item_t item = ct_item_next(c, &old, 200);
    apr_status_t rv;

    ct_store(c, &old);
    ct_store(c, &item);
    rv = ct_remove(c, &key, &old.id);
    ct_require(c, &item,
               "after remove with the id of the entry that was there before");
    ct_status(c, rv, APR_NOTFOUND,
              "remove with the id of an entry that has been replaced");
}

static void test_remove_by_id_of_nothing_is_no_trouble(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);
    apr_status_t rv = ct_remove(c, &key, &item.id);

    if (rv != APR_NOTFOUND) {
        ct_status(c, rv, APR_SUCCESS,
                  "remove with an id of a key that has no entry");
    }
}

static void test_set_head_keeps_body_and_id(ct_t *c)
{
    static const apr_off_t lengths[] = { 0, 1, 5000, 65536, 300000 };
    apr_size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        cachemw_key_t key = ct_key(c, "page/%d", (int)i);
        ct_item_t item = ct_item(c, &key, 1, lengths[i]);

        if (lengths[i] > c->body_max) {
            continue;
        }
        ct_store(c, &item);
        item.head_version = 7;
        item.expires += CT_HOUR;
        ct_status(c, ct_amend(c, &item), APR_SUCCESS, "set_head");
        ct_require(c, &item, "after set_head");
    }
}

static void test_set_head_takes_other_lengths(ct_t *c)
{
    static const apr_size_t lengths[] = { 201, 1000, 5000, 64 * CT_KB, 100,
                                          64,  1,    0,    30000,      200 };
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 20000);
    ct_item_t beside;
    apr_size_t i;

    key = ct_key(c, "beside");
    beside = ct_item(c, &key, 1, 20000);
    ct_store(c, &item);
    ct_store(c, &beside);
    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        item.head_version++;
        item.head_len = lengths[i];
        ct_status(c, ct_amend(c, &item), APR_SUCCESS,
                  "set_head with a head of %" APR_SIZE_T_FMT " bytes",
                  lengths[i]);
        ct_require(c, &item, "after set_head with a head of another length");
        ct_require(c, &beside, "after set_head of another key");
    }
}

static void test_set_head_changes_expires(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);
    apr_time_t begin = c->now;

    ct_store(c, &item);
    item.expires = begin + 5 * CT_HOUR;
    ct_status(c, ct_amend(c, &item), APR_SUCCESS, "set_head");
    c->now = begin + 4 * CT_HOUR;
    ct_require(c, &item, "before the later expires that set_head gave");
    item.expires = c->now + apr_time_from_sec(10);
    ct_status(c, ct_amend(c, &item), APR_SUCCESS, "set_head");
    c->now = item.expires;
    ct_require_miss(c, &key, "at the earlier expires that set_head gave");
}

/* Of a long one a store may have the body for longer. */
static void test_set_head_does_not_revive_what_has_expired(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    apr_off_t length = 300000 < c->body_max ? 300000 : c->body_max;
    ct_item_t item = ct_item(c, &key, 1, length);

    ct_store(c, &item);
    c->now = item.expires;
    item.expires += CT_HOUR;
    ct_status(c, ct_amend(c, &item), APR_NOTFOUND,
              "set_head, exactly at expires");
    ct_require_miss(c, &key, "after set_head of what had expired");
}

static void test_set_head_of_an_older_id_changes_nothing(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t old = ct_item(c, &key, 1, 5000);
    ct_item_t item = ct_item_next(c, &old, 6000);
    apr_status_t rv;

    ct_store(c, &old);
    ct_store(c, &item);
    old.head_version = 9;
    rv = ct_amend(c, &old);
    ct_require(c, &item,
               "after set_head with the id of the entry that was there before "
               "(the 304 of an old response must not amend a new one)");
    ct_status(c, rv, APR_NOTFOUND,
              "set_head with the id of an entry that has been replaced");
}

static void test_set_head_of_nothing_is_not_found(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_status(c, ct_amend(c, &item), APR_NOTFOUND,
              "set_head of a key that has no entry");
    ct_require_miss(c, &key, "after set_head of a key that had no entry");
    ct_store(c, &item);
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_status(c, ct_amend(c, &item), APR_NOTFOUND,
              "set_head of a removed entry");
    ct_require_miss(c, &key, "after set_head of a removed entry");
}

static void test_set_head_many_times_costs_no_space(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 20000);
    int i;

    ct_store(c, &item);
    for (i = 0; i < 2000; i++) {
        item.head_version++;
        item.head_len = (apr_size_t)(200 + i % 7 * 1000);
        ct_status(c, ct_amend(c, &item), APR_SUCCESS,
                  "set_head number %d of one entry", i);
    }
    ct_require(c, &item, "after 2000 set_heads");
    if (ct_counts(c) && c->emptied) {
        ct_check(c, ct_entries(c) == 1,
                 "one entry was amended 2000 times and counts as %d",
                 (int)ct_entries(c));
    }
}

const ct_test_t ct_tests_amend[] = {
    CT_TEST(test_remove_makes_a_miss),
    CT_TEST(test_remove_twice_succeeds),
    CT_TEST(test_remove_by_id),
    CT_TEST(test_remove_of_an_older_id_keeps_the_newer),
    CT_TEST(test_remove_by_id_of_nothing_is_no_trouble),
    CT_TEST(test_set_head_keeps_body_and_id),
    CT_TEST(test_set_head_takes_other_lengths),
    CT_TEST(test_set_head_changes_expires),
    CT_TEST(test_set_head_does_not_revive_what_has_expired),
    CT_TEST(test_set_head_of_an_older_id_changes_nothing),
    CT_TEST(test_set_head_of_nothing_is_not_found),
    CT_TEST(test_set_head_many_times_costs_no_space),
    CT_TESTS_END,
};
