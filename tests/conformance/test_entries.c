/* SPDX-License-Identifier: Apache-2.0 */

/* Entries: what is set is what get gives, whatever its size. */

#include <string.h>

#include "apr_strings.h"
#include "harness.h"

static void test_miss_is_not_found(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "never/set");
    cachemw_key_t other = ct_key(c, "set");
    ct_item_t item = ct_item(c, &other, 1, 100);

    ct_require_miss(c, &key, "in an empty store");
    ct_store(c, &item);
    ct_require_miss(c, &key, "beside another entry");
}

static void test_set_get_round_trip(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 5000);

    ct_store(c, &item);
    ct_require(c, &item, "after set");
    ct_require(c, &item, "the second time");
}

static void test_get_of_head_alone_gives_no_body(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 5000);
    cachemw_entry_t entry;

    ct_store(c, &item);
    memset(&entry, 0, sizeof(entry));
    ct_status(c, ct_get(c, &key, &entry), APR_SUCCESS, "get of the head alone");
    ct_check(c, entry.body == NULL, "get made a brigade nobody asked for");
    ct_check(c, memcmp(&entry.id, &item.id, sizeof(item.id)) == 0,
             "get of the head alone gave another id");
    ct_check(c, entry.body_len == 5000,
             "get of the head alone gave body_len %" APR_OFF_T_FMT
             " instead of 5000",
             entry.body_len);
    ct_check(c, ct_expires_fit(c, entry.expires, item.expires),
             "get of the head alone gave another expires");
    ct_check(
        c,
        entry.head_len == item.head_len
            && memcmp(entry.head, ct_item_head(&item, c->pool), item.head_len)
                   == 0,
        "get of the head alone gave another head");
}

static void test_head_outlives_other_calls(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 500);
    ct_item_t next;
    cachemw_entry_t entry;

    ct_store(c, &item);
    memset(&entry, 0, sizeof(entry));
    ct_status(c, ct_get(c, &key, &entry), APR_SUCCESS, "get");
    next = ct_item_next(c, &item, 900);
    ct_store(c, &next);
    ct_remove(c, &key, NULL);
    ct_check(
        c,
        entry.head_len == item.head_len
            && memcmp(entry.head, ct_item_head(&item, c->pool), item.head_len)
                   == 0,
        "a head changed in the caller's hands when the entry was "
        "replaced: it must live as long as the call's pool");
}

static void test_overwrite_replaces(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t old = ct_item(c, &key, 1, 3000);
    ct_item_t same = ct_item_next(c, &old, 3000);
    ct_item_t shorter = ct_item_next(c, &same, 10);
    ct_item_t empty = ct_item_next(c, &shorter, 0);
    ct_item_t longer = ct_item_next(c, &empty, 100000);

    longer.head_len = 900;
    ct_store(c, &old);
    ct_require(c, &old, "after the first set");
    ct_store(c, &same);
    ct_require(c, &same, "after a set of the same length");
    ct_store(c, &shorter);
    ct_require(c, &shorter, "after a set of a shorter body");
    ct_store(c, &empty);
    ct_require(c, &empty, "after a set of an empty body");
    ct_store(c, &longer);
    ct_require(c, &longer, "after a set of a longer head and body");
}

static void test_overwrite_replaces_expires(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 300);
    ct_item_t next = ct_item_next(c, &item, 300);

    next.expires = c->now + apr_time_from_sec(60);
    ct_store(c, &item);
    ct_store(c, &next);
    c->now += apr_time_from_sec(60);
    ct_require_miss(c, &key, "past the expires of the later of two sets");
}

static void test_entries_do_not_touch_each_other(ct_t *c)
{
    ct_item_t items[50];
    int i;

    for (i = 0; i < 50; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);

        items[i] = ct_item(c, &key, (apr_uint32_t)i, i * 97);
        ct_store(c, &items[i]);
    }
    for (i = 0; i < 50; i += 2) {
        ct_status(c, ct_remove(c, &items[i].key, NULL), APR_SUCCESS, "remove");
    }
    for (i = 0; i < 50; i++) {
        if (i % 2 == 0) {
            ct_require_miss(c, &items[i].key, "after remove");
        }
        else {
            ct_require(c, &items[i], "after the removal of other keys");
        }
    }
}

/* A body of this length, in one piece and streamed. */
static void body_check(ct_t *c, apr_off_t length)
{
    cachemw_key_t key = ct_key(c, "body");
    ct_item_t item = ct_item(c, &key, 1, length);

    if (length > c->body_max) {
        ct_skip(c, "the store takes bodies of at most %" APR_OFF_T_FMT " bytes",
                c->body_max);
    }
    ct_store(c, &item);
    ct_require(c, &item, "after set");
    item = ct_item_next(c, &item, length);
    ct_status(c, ct_try_stream(c, &item, 50000, 1), APR_SUCCESS,
              "streaming %" APR_OFF_T_FMT " bytes", length);
    ct_require(c, &item, "after streaming");
}

static void test_body_of_0_bytes(ct_t *c)
{
    body_check(c, 0);
}

static void test_body_of_1_byte(ct_t *c)
{
    body_check(c, 1);
}

static void test_body_of_64k_less_1(ct_t *c)
{
    body_check(c, 64 * CT_KB - 1);
}

static void test_body_of_64k(ct_t *c)
{
    body_check(c, 64 * CT_KB);
}

static void test_body_of_64k_and_1(ct_t *c)
{
    body_check(c, 64 * CT_KB + 1);
}

static void test_body_of_1m(ct_t *c)
{
    body_check(c, CT_MB);
}

static void test_body_of_16m(ct_t *c)
{
    body_check(c, 16 * CT_MB);
}

static void head_check(ct_t *c, apr_size_t length)
{
    cachemw_key_t key = ct_key(c, "head");
    ct_item_t item = ct_item(c, &key, 1, 1000);

    item.head_len = length;
    ct_store(c, &item);
    ct_require(c, &item, "after set");
    item = ct_item_next(c, &item, 0);
    item.head_len = length;
    ct_store(c, &item);
    ct_require(c, &item, "without a body");
}

static void test_head_of_0_bytes(ct_t *c)
{
    head_check(c, 0);
}

static void test_head_of_1_byte(ct_t *c)
{
    head_check(c, 1);
}

static void test_head_of_64k(ct_t *c)
{
    head_check(c, 64 * CT_KB);
}

static void test_longest_head_is_taken_or_does_not_fit(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "head");
    ct_item_t item = ct_item(c, &key, 1, 1000);
    apr_status_t rv;

    item.head_len = CACHEMW_HEAD_MAX;
    rv = ct_try_store(c, &item);
    if (rv == APR_ENOSPC) {
        ct_skip(c, "a head of CACHEMW_HEAD_MAX bytes does not fit");
    }
    ct_status(c, rv, APR_SUCCESS, "set of a head of CACHEMW_HEAD_MAX bytes");
    ct_require(c, &item, "with a head of CACHEMW_HEAD_MAX bytes");
}

/* An entry whose body is these buckets, which the caller has made. */
static void buckets_check(ct_t *c, const ct_item_t *item,
                          apr_bucket_brigade *body, const char *when)
{
    cachemw_entry_t entry = ct_item_entry(item, c->pool);

    entry.body = body;
    ct_status(c, ct_set(c, &item->key, &entry), APR_SUCCESS, "set of %s", when);
    apr_brigade_destroy(body);
    ct_require(c, item, when);
}

static void test_body_of_many_small_buckets(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "buckets");
    ct_item_t item = ct_item(c, &key, 1, 3000);
    apr_bucket_brigade *body = apr_brigade_create(c->pool, c->alloc);
    char *bytes = apr_palloc(c->pool, 3000);
    int i;

    ct_item_bytes(&item, 0, bytes, 3000);
    for (i = 0; i < 3000; i++) {
        APR_BRIGADE_INSERT_TAIL(
            body, i % 3 == 0
                      ? apr_bucket_transient_create(bytes + i, 1, c->alloc)
                      : apr_bucket_immortal_create(bytes + i, 1, c->alloc));
    }
    buckets_check(c, &item, body, "a body in buckets of one byte");
}

static void test_body_of_a_file_bucket(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "file");
    apr_off_t length = 300000 < c->body_max ? 300000 : c->body_max;
    ct_item_t item = ct_item(c, &key, 1, length);
    apr_bucket_brigade *body = apr_brigade_create(c->pool, c->alloc);
    char *bytes = apr_palloc(c->pool, (apr_size_t)length);
    const char *path = apr_pstrcat(c->pool, c->site->dir, "/body", NULL);
    apr_file_t *file;

    ct_item_bytes(&item, 0, bytes, (apr_size_t)length);
    ct_status(c,
              apr_file_open(&file, path,
                            APR_FOPEN_READ | APR_FOPEN_WRITE | APR_FOPEN_CREATE
                                | APR_FOPEN_TRUNCATE,
                            APR_FPROT_OS_DEFAULT, c->pool),
              APR_SUCCESS, "making a file for the test");
    ct_status(c, apr_file_write_full(file, bytes, (apr_size_t)length, NULL),
              APR_SUCCESS, "writing a file for the test");
    apr_brigade_insert_file(body, file, 0, length, c->pool);
    buckets_check(c, &item, body, "a body in a file bucket");
}

/* Nothing but bytes of this value, in head and body. */
static void monotone_check(ct_t *c, unsigned char value)
{
    cachemw_key_t key = ct_key(c, "byte/%d", value);
    apr_size_t length = 4096, i;
    char *bytes = apr_palloc(c->pool, length);
    char *data = NULL;
    cachemw_entry_t entry = { .head_len = 100, .body_len = 4096 };

    memset(bytes, value, length);
    mw_store_random(entry.id.bytes, sizeof(entry.id.bytes));
    entry.head = bytes;
    entry.expires = c->now + CT_HOUR;
    entry.body = apr_brigade_create(c->pool, c->alloc);
    APR_BRIGADE_INSERT_TAIL(
        entry.body, apr_bucket_immortal_create(bytes, length, c->alloc));
    ct_status(c, ct_set(c, &key, &entry), APR_SUCCESS, "set");
    apr_brigade_cleanup(entry.body);
    ct_status(c, ct_get(c, &key, &entry), APR_SUCCESS, "get");
    ct_check(c, entry.head_len == 100 && memcmp(entry.head, bytes, 100) == 0,
             "a head that is all byte 0x%02x came back changed", value);
    ct_status(c, apr_brigade_pflatten(entry.body, &data, &length, c->pool),
              APR_SUCCESS, "reading the body");
    for (i = 0; i < length; i++) {
        ct_check(c, (unsigned char)data[i] == value,
                 "a body that is all byte 0x%02x came back changed", value);
    }
    ct_check(c, length > 0 && (length == 4096 || ct_reads(c)),
             "of a body that is all byte 0x%02x, %" APR_SIZE_T_FMT
             " bytes of 4096 came back",
             value, length);
}

static void test_body_of_one_byte_value(ct_t *c)
{
    static const unsigned char values[] = { 0x00, 0xff, '\n', '\r', '%' };
    apr_size_t v;

    for (v = 0; v < sizeof(values); v++) {
        monotone_check(c, values[v]);
    }
}

static void test_set_without_a_brigade(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "empty");
    ct_item_t item = ct_item(c, &key, 1, 0);
    cachemw_entry_t entry = ct_item_entry(&item, c->pool);

    ct_check(c, entry.body == NULL, "the test makes a body");
    ct_status(c, ct_set(c, &key, &entry), APR_SUCCESS,
              "set of an empty body without a brigade");
    ct_require(c, &item, "after set without a brigade");
}

/* Only where no bucket is made. */
static void test_calls_without_buckets_need_no_allocator(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 3000);
    apr_bucket_alloc_t *alloc = c->alloc;
    cachemw_entry_t entry;

    if (c->plan->through_core) {
        ct_skip(c, "core may make buckets on the way");
    }
    ct_store(c, &item);
    memset(&entry, 0, sizeof(entry));
    c->alloc = NULL;
    ct_status(c, ct_get(c, &key, &entry), APR_SUCCESS,
              "get of the head alone without a bucket allocator");
    if (c->table.set_head != NULL) {
        item.head_version++;
        ct_status(c, ct_amend(c, &item), APR_SUCCESS,
                  "set_head without a bucket allocator");
    }
    c->alloc = alloc;
    ct_require(c, &item, "after calls without a bucket allocator");
    c->alloc = NULL;
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS,
              "remove without a bucket allocator");
    c->alloc = alloc;
}

static void test_overwrite_again_and_again_costs_no_space(ct_t *c)
{
    apr_off_t length = 100000 < c->body_max ? 100000 : c->body_max;
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, length);
    cachemw_stats_t once = { 0 }, after = { 0 };
    int i;

    ct_store(c, &item);
    if (ct_counts(c)) {
        ct_status(c, ct_stats(c, &once), APR_SUCCESS, "stats");
    }
    for (i = 0; i < 1000; i++) {
        item = ct_item_next(c, &item, length);
        ct_store(c, &item);
    }
    ct_require(c, &item, "after 1000 sets of one key");
    if (ct_counts(c)) {
        ct_status(c, ct_stats(c, &after), APR_SUCCESS, "stats");
        ct_check(c, after.entries == once.entries,
                 "1000 sets of one key count as %" APR_INT64_T_FMT " entries",
                 after.entries - once.entries + 1);
        ct_check(c, after.bytes <= once.bytes + 3 * length,
                 "1000 sets of one key of %" APR_OFF_T_FMT
                 " bytes use %" APR_INT64_T_FMT " bytes more than one did",
                 length, after.bytes - once.bytes);
    }
}

static void test_expires_of_far_future(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "far");
    ct_item_t item = ct_item(c, &key, 1, 100);

    /* The year 9999: the last one that HTTP's dates can name. */
    item.expires = apr_time_from_sec(APR_INT64_C(253402300799));
    ct_store(c, &item);
    ct_require(c, &item, "with an expires in the year 9999");
}

const ct_test_t ct_tests_entries[] = {
    CT_TEST(test_miss_is_not_found),
    CT_TEST(test_set_get_round_trip),
    CT_TEST(test_get_of_head_alone_gives_no_body),
    CT_TEST(test_head_outlives_other_calls),
    CT_TEST(test_overwrite_replaces),
    CT_TEST(test_overwrite_replaces_expires),
    CT_TEST(test_entries_do_not_touch_each_other),
    CT_TEST(test_body_of_0_bytes),
    CT_TEST(test_body_of_1_byte),
    CT_TEST(test_body_of_64k_less_1),
    CT_TEST(test_body_of_64k),
    CT_TEST(test_body_of_64k_and_1),
    CT_TEST(test_body_of_1m),
    CT_TEST(test_body_of_16m),
    CT_TEST(test_head_of_0_bytes),
    CT_TEST(test_head_of_1_byte),
    CT_TEST(test_head_of_64k),
    CT_TEST(test_longest_head_is_taken_or_does_not_fit),
    CT_TEST(test_body_of_many_small_buckets),
    CT_TEST(test_body_of_a_file_bucket),
    CT_TEST(test_body_of_one_byte_value),
    CT_TEST(test_expires_of_far_future),
    CT_TEST(test_set_without_a_brigade),
    CT_TEST(test_calls_without_buckets_need_no_allocator),
    CT_TEST(test_overwrite_again_and_again_costs_no_space),
    CT_TESTS_END,
};
