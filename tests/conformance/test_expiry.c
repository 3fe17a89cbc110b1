/* SPDX-License-Identifier: Apache-2.0 */

/* Expiry by the call's own time, and housekeeping without traffic. */

#include "apr_strings.h"
#include "harness.h"

static void test_entry_is_gone_exactly_at_expires(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_store(c, &item);
    c->now = item.expires - 1;
    ct_require(c, &item, "one microsecond before its expires");
    c->now = item.expires;
    ct_require_miss(c, &key, "exactly at its expires");
    ct_status(c, ct_exists(c, &key), APR_NOTFOUND,
              "exists, exactly at expires");
    c->now = item.expires + 365 * 24 * CT_HOUR;
    ct_require_miss(c, &key, "a year after its expires");
}

static void test_head_alone_is_gone_at_expires(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);
    cachemw_entry_t entry = { .head = NULL };

    ct_store(c, &item);
    c->now = item.expires;
    ct_status(c, ct_get(c, &key, &entry), APR_NOTFOUND,
              "get of the head alone, exactly at expires");
}

static void test_set_of_an_expired_entry_is_never_returned(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);
    ct_item_t next = ct_item_next(c, &item, 100);

    item.expires = c->now - CT_HOUR;
    ct_try_store(c, &item);
    ct_require_miss(c, &key, "after set of an entry that has expired already");
    next.expires = c->now;
    ct_try_store(c, &next);
    ct_require_miss(c, &key, "after set of an entry that expires now");
    item = ct_item_next(c, &next, 100);
    ct_store(c, &item);
    ct_require(c, &item, "after set of entries that had expired");
}

static void test_clock_that_goes_back_does_no_harm(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    cachemw_key_t other = ct_key(c, "other");
    ct_item_t item = ct_item(c, &key, 1, 100);
    ct_item_t next;
    apr_time_t begin = c->now;

    ct_store(c, &item);
    c->now = begin - 10 * 60 * CT_HOUR / 60;
    ct_require(c, &item, "after the clock went back ten hours");
    next = ct_item(c, &other, 2, 100);
    next.expires = c->now + CT_HOUR;
    ct_store(c, &next);
    ct_require(c, &next, "set while the clock was back");
    c->now = begin;
    ct_require_miss(c, &other,
                    "set while the clock was back, and expired since");
    ct_require(c, &item, "after the clock was right again");
}

static void test_sweep_drops_what_has_expired(ct_t *c)
{
    ct_item_t items[100];
    apr_int64_t before, after;
    int i;

    ct_need(c, ct_sweeps(c), "sweep");
    before = ct_entries(c);
    for (i = 0; i < 100; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);

        items[i] = ct_item(c, &key, 1, 1000);
        if (i % 2 == 0) {
            items[i].expires = c->now + 60 * CT_HOUR;
        }
        ct_store(c, &items[i]);
    }
    c->now += 2 * CT_HOUR;
    ct_sweep_all(c);
    after = ct_entries(c);
    ct_check(c, after <= before + 50,
             "50 of 100 entries have expired; after sweep the store still "
             "holds %" APR_INT64_T_FMT " more than before, not 50",
             after - before);
    for (i = 0; i < 100; i += 2) {
        ct_require(c, &items[i], "after a sweep of other, expired entries");
    }
}

static void test_sweep_gives_space_back(ct_t *c)
{
    cachemw_stats_t before = { 0 }, after = { 0 };
    int i;

    ct_need(c, ct_sweeps(c), "sweep");
    ct_need(c, c->table.stats != NULL, "stats");
    ct_status(c, ct_stats(c, &before), APR_SUCCESS, "stats");
    for (i = 0; i < 50; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);
        ct_item_t item = ct_item(c, &key, 1, 10000);

        ct_store(c, &item);
    }
    c->now += 2 * CT_HOUR;
    ct_sweep_all(c);
    ct_status(c, ct_stats(c, &after), APR_SUCCESS, "stats");
    ct_check(
        c, after.bytes <= before.bytes,
        "all entries have expired; after sweep the store uses %" APR_INT64_T_FMT
        " bytes, before anything was set %" APR_INT64_T_FMT,
        after.bytes, before.bytes);
}

/* The slack is for machines and checkers that are slow, not for providers. */
static void test_sweep_returns_by_its_deadline(ct_t *c)
{
    apr_int64_t worst = 0;
    int more = 1;
    int i;

    ct_need(c, ct_sweeps(c), "sweep");
    for (i = 0; i < 4000; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);
        ct_item_t item = ct_item(c, &key, 1, 100);

        ct_try_store(c, &item);
    }
    c->now += 2 * CT_HOUR;
    for (i = 0; more && i < 100000; i++) {
        apr_int64_t begin = mw_monotonic();
        apr_int64_t took;

        ct_status(c, ct_sweep(c, 10000, &more), APR_SUCCESS, "sweep");
        took = mw_monotonic() - begin;
        worst = took > worst ? took : worst;
    }
    ct_check(c, !more, "sweep does not come to an end");
    ct_check(c, worst < 500000,
             "a step of sweep took %" APR_INT64_T_FMT
             " ms; its deadline was 10 ms",
             worst / 1000);
}

static void test_sweep_past_its_deadline_does_no_harm(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);
    apr_status_t rv;
    int more = 0;

    ct_need(c, ct_sweeps(c), "sweep");
    ct_store(c, &item);
    rv = ct_sweep(c, -1000000, &more);
    if (!(c->table.flags & CACHEMW_REMOTE)) {
        ct_status(c, rv, APR_SUCCESS, "sweep with a deadline that is past");
    }
    ct_require(c, &item, "after a sweep without time");
}

static void test_sweep_of_an_empty_store(ct_t *c)
{
    ct_need(c, ct_sweeps(c), "sweep");
    ct_sweep_all(c);
}

static void test_expired_entry_can_be_replaced(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 5000);
    int i;

    for (i = 0; i < 10; i++) {
        ct_store(c, &item);
        ct_require(c, &item, "in place of an entry that expired");
        c->now = item.expires;
        item = ct_item_next(c, &item, 5000 + i);
    }
}

const ct_test_t ct_tests_expiry[] = {
    CT_TEST(test_entry_is_gone_exactly_at_expires),
    CT_TEST(test_head_alone_is_gone_at_expires),
    CT_TEST(test_set_of_an_expired_entry_is_never_returned),
    CT_TEST(test_clock_that_goes_back_does_no_harm),
    CT_TEST(test_expired_entry_can_be_replaced),
    CT_TEST(test_sweep_drops_what_has_expired),
    CT_TEST(test_sweep_gives_space_back),
    CT_TEST(test_sweep_returns_by_its_deadline),
    CT_TEST(test_sweep_past_its_deadline_does_no_harm),
    CT_TEST(test_sweep_of_an_empty_store),
    CT_TESTS_END,
};
