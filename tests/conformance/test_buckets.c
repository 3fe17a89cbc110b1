/* SPDX-License-Identifier: Apache-2.0 */

/* Bodies in the reader's hands: buckets that last, and pieces by offset. */

#include <string.h>

#include "apr_strings.h"
#include "harness.h"

/* What get gave for an item, and how much of the body. */
typedef struct held_t {
    ct_item_t item;
    apr_bucket_brigade *body;
    apr_pool_t *pool; /* of the call that got it */
} held_t;

/* Get an item's body with a pool of the call's own, the brigade in c->pool. */
static void body_hold(ct_t *c, const ct_item_t *item, held_t *held)
{
    apr_pool_t *outer = c->pool;
    cachemw_entry_t entry;

    memset(&entry, 0, sizeof(entry));
    held->item = *item;
    held->body = entry.body = apr_brigade_create(outer, c->alloc);
    apr_pool_create(&held->pool, outer);
    c->pool = held->pool;
    ct_status(c, ct_get(c, &item->key, &entry), APR_SUCCESS, "get");
    c->pool = outer;
}

static apr_off_t body_check(ct_t *c, held_t *held, const char *when)
{
    apr_off_t length = 0;
    apr_off_t got = ct_compare(c, &held->item, 0, held->body, when);

    ct_check(c, got > 0, "%s: the body has gone", when);
    apr_brigade_length(held->body, 1, &length);
    ct_check(c, length == got, "%s: the length of the buckets changed", when);
    apr_brigade_destroy(held->body);
    return got;
}

static apr_off_t piece_check(ct_t *c, const ct_item_t *item, apr_off_t offset,
                             apr_size_t limit, const char *where)
{
    apr_bucket_brigade *body = apr_brigade_create(c->pool, c->alloc);
    const char *when = apr_psprintf(
        c->pool, "%sread of %" APR_SIZE_T_FMT " bytes at %" APR_OFF_T_FMT,
        where, limit, offset);
    apr_off_t n;

    ct_status(c, ct_read(c, &item->key, &item->id, offset, limit, body),
              APR_SUCCESS, "%s", when);
    n = ct_compare(c, item, offset, body, when);
    ct_check(c, n >= 1 && n <= (apr_off_t)limit,
             "%s gave %" APR_OFF_T_FMT " bytes", when, n);
    apr_brigade_destroy(body);
    return n;
}

/* Whether a body whose entry has gone finds room in the part of a store that
 * may be given to such. */
static int has_room_for_grace(ct_t *c, apr_off_t length)
{
    cachemw_stats_t stats = { 0 };

    if (!ct_counts(c)) {
        return 1;
    }
    ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
    return stats.bytes_max < 0 || stats.bytes_max >= 16 * length;
}

/* The rest of a body, read as slowly as a client may. */
static void rest_check(ct_t *c, const ct_item_t *item, apr_off_t got,
                       const char *when)
{
    if (got == item->body_len || !has_room_for_grace(c, item->body_len)) {
        return;
    }
    when = apr_pstrcat(c->pool, when,
                       "; the rest 59 s later, within CACHEMW_GRACE: ", NULL);
    c->now += CACHEMW_GRACE - apr_time_from_sec(1);
    if (ct_sweeps(c)) {
        ct_sweep_all(c);
    }
    while (got < item->body_len) {
        got += piece_check(c, item, got, CACHEMW_PIECE_MAX, when);
    }
}

/* What may happen to an entry while its body is being sent. */
typedef void happening_fn(ct_t *c, held_t *held);

static void held_check(ct_t *c, happening_fn *happen, int rest_is_kept,
                       const char *when)
{
    static const apr_off_t lengths[] = { 1, 700, 65536, 65537, 1000000 };
    apr_size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        cachemw_key_t key = ct_key(c, "held/%d", (int)i);
        ct_item_t item = ct_item(c, &key, 1, lengths[i]);
        apr_off_t got;
        held_t held;

        if (lengths[i] > c->body_max) {
            continue;
        }
        ct_store(c, &item);
        body_hold(c, &item, &held);
        happen(c, &held);
        got = body_check(c, &held, when);
        if (rest_is_kept) {
            rest_check(c, &item, got, when);
        }
    }
}

static void happen_replace(ct_t *c, held_t *held)
{
    ct_item_t next = ct_item_next(c, &held->item, held->item.body_len);

    ct_store(c, &next);
}

static void happen_remove(ct_t *c, held_t *held)
{
    ct_status(c, ct_remove(c, &held->item.key, NULL), APR_SUCCESS, "remove");
    happen_replace(c, held);
}

static void happen_clear(ct_t *c, held_t *held)
{
    apr_status_t rv = ct_clear(c);

    if (rv == APR_ENOTIMPL) {
        ct_need(c, 0, "clear");
    }
    ct_status(c, rv, APR_SUCCESS, "clear");
    happen_replace(c, held);
}

/* The pool's memory goes to others, who write to it. File buckets are set
 * aside before, as filters do that keep them. */
static void happen_pool(ct_t *c, held_t *held)
{
    apr_pool_t *other;
    apr_size_t size;
    apr_bucket *e;

    for (e = APR_BRIGADE_FIRST(held->body);
         e != APR_BRIGADE_SENTINEL(held->body); e = APR_BUCKET_NEXT(e)) {
        if (APR_BUCKET_IS_FILE(e)) {
            ct_status(c, apr_bucket_setaside(e, c->pool), APR_SUCCESS,
                      "setaside of a file bucket");
        }
    }
    apr_pool_destroy(held->pool);
    apr_pool_create(&other, c->pool);
    for (size = 1000; size < 3000000; size += size / 8) {
        memset(apr_palloc(other, size), 0xdb, size);
    }
    apr_pool_destroy(other);
}

static void happen_expire(ct_t *c, held_t *held)
{
    c->now = held->item.expires;
    if (ct_sweeps(c)) {
        ct_sweep_all(c);
    }
    happen_replace(c, held);
}

static void happen_amend(ct_t *c, held_t *held)
{
    ct_item_t item = held->item;

    item.head_version++;
    item.head_len = 5000;
    ct_status(c, ct_amend(c, &item), APR_SUCCESS, "set_head");
}

/* Sets that push everything else out of a small store. */
static void happen_flood(ct_t *c, held_t *held)
{
    apr_off_t length = 60000 < c->body_max ? 60000 : c->body_max;
    cachemw_stats_t stats = { 0 };
    apr_int64_t n = 64, i;

    if (ct_counts(c)) {
        ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
        if (stats.bytes_max > 0 && stats.bytes_max < 256 * CT_MB) {
            n = stats.bytes_max / length * 3 / 2;
        }
    }
    for (i = 0; i < n; i++) {
        cachemw_key_t key = ct_key(c, "flood/%d", (int)i);
        ct_item_t item = ct_item(c, &key, 1, length);

        ct_try_store(c, &item);
    }
    (void)held;
}

static void test_buckets_outlive_replacement(ct_t *c)
{
    held_check(c, happen_replace, 1,
               "a body held while its entry was replaced");
}

static void test_buckets_outlive_removal(ct_t *c)
{
    held_check(c, happen_remove, 1, "a body held while its entry was removed");
}

static void test_buckets_outlive_clear(ct_t *c)
{
    held_check(c, happen_clear, 1, "a body held while the store was cleared");
}

static void test_buckets_outlive_the_pool_of_the_call(ct_t *c)
{
    held_check(c, happen_pool, 1,
               "a body held after the pool of the call was destroyed");
}

static void test_buckets_outlive_expiry(ct_t *c)
{
    held_check(c, happen_expire, 1,
               "a body held while its entry expired and was swept");
}

static void test_buckets_outlive_set_head(ct_t *c)
{
    held_check(c, happen_amend, 1, "a body held while its head was amended");
}

static void test_buckets_outlive_eviction(ct_t *c)
{
    held_check(c, happen_flood, 0,
               "a body held while more was stored than fits");
}

static void test_buckets_survive_setaside(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item =
        ct_item(c, &key, 1, 90000 < c->body_max ? 90000 : c->body_max);
    apr_pool_t *kept;
    held_t held;
    apr_bucket *e;

    ct_store(c, &item);
    body_hold(c, &item, &held);
    apr_pool_create(&kept, c->pool);
    for (e = APR_BRIGADE_FIRST(held.body); e != APR_BRIGADE_SENTINEL(held.body);
         e = APR_BUCKET_NEXT(e)) {
        apr_status_t rv = apr_bucket_setaside(e, kept);

        ct_status(c, rv, APR_SUCCESS, "setaside of a body bucket");
    }
    apr_pool_destroy(held.pool);
    happen_replace(c, &held);
    body_check(c, &held, "a body that was set aside");
    apr_pool_destroy(kept);
}

static void test_buckets_can_be_split_and_copied(ct_t *c)
{
    apr_off_t length = 90000 < c->body_max ? 90000 : c->body_max;
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, length);
    held_t held, copied;
    apr_bucket *e, *copy;
    apr_off_t points[] = { 1, 10, 4096, 30000 };
    apr_size_t i;

    ct_store(c, &item);
    body_hold(c, &item, &held);
    copied = held;
    copied.body = apr_brigade_create(c->pool, c->alloc);
    apr_brigade_length(held.body, 1, &length);
    for (i = 0; i < sizeof(points) / sizeof(points[0]) && points[i] < length;
         i++) {
        ct_status(c, apr_brigade_partition(held.body, points[i], &e),
                  APR_SUCCESS, "split of the body at %" APR_OFF_T_FMT,
                  points[i]);
    }
    for (e = APR_BRIGADE_FIRST(held.body); e != APR_BRIGADE_SENTINEL(held.body);
         e = APR_BUCKET_NEXT(e)) {
        ct_status(c, apr_bucket_copy(e, &copy), APR_SUCCESS,
                  "copy of a body bucket");
        APR_BRIGADE_INSERT_TAIL(copied.body, copy);
    }
    happen_replace(c, &held);
    body_check(c, &held, "a body that was split");
    body_check(c, &copied, "a copy of a body whose original is gone");
}

/* Slow clients: as much is being sent at once as the store can hold, or more. A
 * set that finds no room because of it may be refused; a body must not be cut.
 */
static void test_many_bodies_can_be_held_at_once(ct_t *c)
{
    enum { BODIES = 40 };
    apr_off_t length = 200000 < c->body_max ? 200000 : c->body_max;
    held_t held[BODIES];
    int n = 0, i;

    for (i = 0; i < BODIES; i++) {
        cachemw_key_t key = ct_key(c, "held/%d", i % 7);
        ct_item_t item = ct_item(c, &key, (apr_uint32_t)i, length);
        apr_status_t rv = ct_try_store(c, &item);

        ct_check(c, rv == APR_SUCCESS || rv == APR_ENOSPC,
                 "set returned %d while many bodies are being sent", (int)rv);
        if (rv == APR_SUCCESS) {
            body_hold(c, &item, &held[n++]);
        }
    }
    for (i = 0; i < n; i++) {
        body_check(c, &held[i], "one of many bodies held at once");
    }
    ct_status(c, n > 0 ? APR_SUCCESS : APR_ENOSPC, APR_SUCCESS,
              "each set of 40");
    happen_replace(c, &held[0]);
}

static void read_elsewhere(ct_t *c, int index, void *baton)
{
    held_t *held = baton;

    ct_check(c,
             ct_compare(c, &held[index].item, 0, held[index].body,
                        "read by another thread")
                 > 0,
             "the body has gone");
}

static void test_buckets_can_be_read_by_another_thread(ct_t *c)
{
    held_t held[4];
    int i;

    for (i = 0; i < 4; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);
        ct_item_t item =
            ct_item(c, &key, 1, 90000 < c->body_max ? 90000 : c->body_max);

        ct_store(c, &item);
        body_hold(c, &item, &held[i]);
    }
    for (i = 0; i < 4; i++) {
        ct_threads(c, 1, read_elsewhere, &held[i]);
        apr_brigade_destroy(held[i].body);
    }
}

static void test_read_at_every_kind_of_offset(ct_t *c)
{
    static const apr_size_t limits[] = { 1, 2, 1000, 4096, 65535, 65536 };
    apr_off_t length = 300000 < c->body_max ? 300000 : c->body_max;
    apr_off_t offsets[] = { 0,      1,      4095,   4096,       4097,
                            65535,  65536,  65537,  131071,     131072,
                            196608, 262144, 299000, length - 2, length - 1 };
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, length);
    apr_size_t o, l;

    ct_need(c, ct_reads(c), "read");
    ct_store(c, &item);
    for (o = 0; o < sizeof(offsets) / sizeof(offsets[0]); o++) {
        for (l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
            if (offsets[o] >= 0 && offsets[o] < length) {
                piece_check(c, &item, offsets[o], limits[l], "");
            }
        }
    }
}

/* A body may stay readable for those who are being sent it; never may they be
 * sent another one. */
static void read_is_own_or_not_found(ct_t *c, const ct_item_t *item,
                                     const char *when)
{
    apr_bucket_brigade *body = apr_brigade_create(c->pool, c->alloc);
    apr_status_t rv = ct_read(c, &item->key, &item->id, 100, 1000, body);

    if (rv == APR_SUCCESS) {
        ct_compare(c, item, 100, body,
                   apr_psprintf(c->pool, "read of an entry that %s", when));
    }
    else {
        ct_status(c, rv, APR_NOTFOUND, "read of an entry that %s", when);
    }
    apr_brigade_destroy(body);
}

static void read_is_not_found(ct_t *c, const ct_item_t *item, const char *when)
{
    apr_bucket_brigade *body = apr_brigade_create(c->pool, c->alloc);
    apr_status_t rv = ct_read(c, &item->key, &item->id, 100, 1000, body);

    ct_status(c, rv, APR_NOTFOUND, "read of an entry that %s", when);
    apr_brigade_destroy(body);
}

static void test_read_of_an_older_id_gives_no_other_body(ct_t *c)
{
    apr_off_t length = 200000 < c->body_max ? 200000 : c->body_max;
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t old = ct_item(c, &key, 1, length);
    ct_item_t item = ct_item_next(c, &old, length);

    ct_need(c, ct_reads(c), "read");
    read_is_not_found(c, &old, "was never set");
    ct_store(c, &old);
    piece_check(c, &old, 100, 1000, "");
    ct_store(c, &item);
    read_is_own_or_not_found(c, &old, "has been replaced");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    read_is_own_or_not_found(c, &item, "has been removed");
}

static void test_read_goes_on_after_set_head(ct_t *c)
{
    apr_off_t length = 200000 < c->body_max ? 200000 : c->body_max;
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, length);

    ct_need(c, ct_reads(c), "read");
    ct_store(c, &item);
    piece_check(c, &item, 0, 1000, "");
    item.head_version++;
    item.head_len = 4000;
    ct_status(c, ct_amend(c, &item), APR_SUCCESS, "set_head");
    piece_check(c, &item, 1000, 1000, "");
    piece_check(c, &item, length - 1, 1000, "");
}

const ct_test_t ct_tests_buckets[] = {
    CT_TEST(test_buckets_outlive_replacement),
    CT_TEST(test_buckets_outlive_removal),
    CT_TEST(test_buckets_outlive_clear),
    CT_TEST(test_buckets_outlive_the_pool_of_the_call),
    CT_TEST(test_buckets_outlive_expiry),
    CT_TEST(test_buckets_outlive_set_head),
    CT_TEST(test_buckets_outlive_eviction),
    CT_TEST(test_many_bodies_can_be_held_at_once),
    CT_TEST(test_buckets_survive_setaside),
    CT_TEST(test_buckets_can_be_split_and_copied),
    CT_TEST(test_buckets_can_be_read_by_another_thread),
    CT_TEST(test_read_at_every_kind_of_offset),
    CT_TEST(test_read_of_an_older_id_gives_no_other_body),
    CT_TEST(test_read_goes_on_after_set_head),
    CT_TESTS_END,
};
