/* SPDX-License-Identifier: Apache-2.0 */

/* Streaming: sets in pieces, published as a whole or not at all. */

#include <string.h>

#include "apr_strings.h"
#include "harness.h"

/* Begin a stream of this item and write `length` bytes of its body. */
static void stream_begin(ct_t *c, const ct_item_t *item, apr_off_t announced,
                         apr_off_t length, ct_set_t *set)
{
    cachemw_entry_t entry = ct_item_entry(item, c->pool);
    char piece[4000];
    apr_off_t offset = 0;

    entry.body_len = announced;
    ct_status(c, ct_begin(c, &item->key, &entry, set), APR_SUCCESS,
              "set_begin");
    while (offset < length) {
        apr_off_t left = length - offset;
        apr_size_t n = left < 4000 ? (apr_size_t)left : 4000;

        ct_item_bytes(item, offset, piece, n);
        ct_status(c, ct_write(c, set, piece, n), APR_SUCCESS,
                  "set_write at %" APR_OFF_T_FMT, offset);
        offset += (apr_off_t)n;
    }
}

static void test_stream_of_unknown_length(ct_t *c)
{
    static const apr_off_t lengths[] = {
        0, 1, 1000, 65535, 65536, 65537, 200000
    };
    apr_size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        cachemw_key_t key = ct_key(c, "stream");
        ct_item_t item = ct_item(c, &key, (apr_uint32_t)i, lengths[i]);

        if (lengths[i] <= c->body_max) {
            ct_status(c, ct_try_stream(c, &item, 8000, 0), APR_SUCCESS,
                      "streaming %" APR_OFF_T_FMT " bytes of unknown length",
                      lengths[i]);
            ct_require(c, &item, "after streaming with body_len -1");
        }
    }
}

static void test_stream_in_odd_pieces(ct_t *c)
{
    static const apr_size_t pieces[] = { 1,    3,     7,     511,
                                         4097, 65535, 65537, 100000 };
    apr_size_t i;

    for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        cachemw_key_t key = ct_key(c, "stream/%d", (int)i);
        apr_off_t length = (apr_off_t)pieces[i] * 3 + 1;
        ct_item_t item = ct_item(c, &key, 1, length);

        if (length > c->body_max) {
            break;
        }

        ct_status(
            c, ct_try_stream(c, &item, pieces[i], i % 2 == 0), APR_SUCCESS,
            "streaming in pieces of %" APR_SIZE_T_FMT " bytes", pieces[i]);
        ct_require(c, &item, "after streaming in odd pieces");
    }
}

static void test_stream_keeps_no_pointer_to_key_and_head(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "scribble");
    ct_item_t item = ct_item(c, &key, 1, 1000);
    cachemw_entry_t entry = ct_item_entry(&item, c->pool);
    char *name = apr_pmemdup(c->pool, key.data, key.len);
    cachemw_key_t given = { name, key.len };
    char piece[1000];
    ct_set_t set;

    ct_status(c, ct_begin(c, &given, &entry, &set), APR_SUCCESS, "set_begin");
    memset(name, 'x', key.len);
    memset((void *)entry.head, 'x', entry.head_len);
    memset(&entry.id, 'x', sizeof(entry.id));
    entry.expires = 0;
    ct_item_bytes(&item, 0, piece, sizeof(piece));
    ct_status(c, ct_write(c, &set, piece, sizeof(piece)), APR_SUCCESS,
              "set_write");
    memset(piece, 'x', sizeof(piece));
    ct_status(c, ct_commit(c, &set), APR_SUCCESS, "set_commit");
    ct_require(c, &item,
               "after key, head and pieces given to set_begin and set_write "
               "were overwritten by their owner");
}

static void test_stream_is_invisible_before_commit(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 30000);
    ct_set_t set;

    stream_begin(c, &item, item.body_len, item.body_len, &set);
    ct_require_miss(c, &key, "between set_write and set_commit");
    ct_status(c, ct_exists(c, &key), APR_NOTFOUND,
              "exists between set_write and set_commit");
    ct_status(c, ct_commit(c, &set), APR_SUCCESS, "set_commit");
    ct_require(c, &item, "after set_commit");
}

static void test_stream_leaves_old_entry_until_commit(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t old = ct_item(c, &key, 1, 5000);
    ct_item_t item = ct_item_next(c, &old, 30000);
    ct_set_t set;

    ct_store(c, &old);
    stream_begin(c, &item, -1, item.body_len, &set);
    ct_require(c, &old, "while its successor is being streamed");
    ct_status(c, ct_commit(c, &set), APR_SUCCESS, "set_commit");
    ct_require(c, &item, "after set_commit");
}

static void test_abort_leaves_no_trace(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 30000);
    cachemw_stats_t before = { 0 }, after = { 0 };
    ct_set_t set;

    if (ct_counts(c)) {
        ct_status(c, ct_stats(c, &before), APR_SUCCESS, "stats");
    }
    stream_begin(c, &item, item.body_len, 20000, &set);
    ct_abort(c, &set);
    ct_require_miss(c, &key, "after set_abort");
    ct_status(c, ct_exists(c, &key), APR_NOTFOUND, "exists after set_abort");
    if (ct_counts(c)) {
        ct_status(c, ct_stats(c, &after), APR_SUCCESS, "stats");
        ct_check(c, after.entries == before.entries,
                 "stats counts an aborted set: entries were %" APR_INT64_T_FMT
                 ", are %" APR_INT64_T_FMT,
                 before.entries, after.entries);
        ct_check(c, after.bytes == before.bytes,
                 "stats counts an aborted set: bytes were %" APR_INT64_T_FMT
                 ", are %" APR_INT64_T_FMT,
                 before.bytes, after.bytes);
    }
}

static void test_abort_keeps_old_entry(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t old = ct_item(c, &key, 1, 5000);
    ct_item_t item = ct_item_next(c, &old, 30000);
    ct_set_t set;

    ct_store(c, &old);
    stream_begin(c, &item, item.body_len, item.body_len, &set);
    ct_abort(c, &set);
    ct_require(c, &old, "after its successor was aborted");
}

static void test_abort_right_after_begin(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 30000);
    ct_set_t set;

    stream_begin(c, &item, -1, 0, &set);
    ct_abort(c, &set);
    ct_require_miss(c, &key, "after set_begin and set_abort");
}

static void test_abort_a_thousand_times_costs_no_space(ct_t *c)
{
    apr_off_t length = 64 * CT_KB < c->body_max ? 64 * CT_KB : c->body_max;
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, length);
    ct_set_t set;
    int i;

    for (i = 0; i < 1000; i++) {
        apr_pool_t *outer = c->pool;

        apr_pool_create(&c->pool, outer);
        stream_begin(c, &item, i % 2 ? -1 : length, length - i % 100, &set);
        ct_abort(c, &set);
        apr_pool_destroy(c->pool);
        c->pool = outer;
    }
    ct_require_miss(c, &key, "after 1000 aborted sets");
    ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
              "set after 1000 aborted ones of %" APR_OFF_T_FMT " bytes",
              length);
    ct_require(c, &item, "after 1000 aborted sets");
}

/* What does not fit may be refused; what was not must be right. */
static void test_streams_of_more_than_fits(ct_t *c)
{
    enum { STREAMS = 200 };
    apr_off_t length = 64 * CT_KB < c->body_max ? 64 * CT_KB : c->body_max;
    char *bytes = apr_palloc(c->pool, (apr_size_t)length);
    ct_item_t item;
    ct_set_t sets[STREAMS];
    int begun[STREAMS];
    apr_status_t rv;
    int i;

    for (i = 0; i < STREAMS; i++) {
        cachemw_key_t key = ct_key(c, "stream/%d", i);
        cachemw_entry_t entry;

        item = ct_item(c, &key, 1, length);
        entry = ct_item_entry(&item, c->pool);
        entry.body_len = i % 2 ? -1 : length;
        ct_item_bytes(&item, 0, bytes, (apr_size_t)length);
        rv = ct_begin(c, &key, &entry, &sets[i]);
        begun[i] = rv == APR_SUCCESS;
        if (begun[i]) {
            rv = ct_write(c, &sets[i], bytes, (apr_size_t)length);
        }
        if (begun[i] && rv != APR_SUCCESS) {
            begun[i] = 0;
            ct_abort(c, &sets[i]);
        }
        ct_check(c, rv == APR_SUCCESS || rv == APR_ENOSPC,
                 "set_begin or set_write returned %d with %d streams open; "
                 "what does not fit is APR_ENOSPC",
                 (int)rv, i);
    }
    for (i = 0; i < STREAMS; i++) {
        cachemw_key_t key = ct_key(c, "stream/%d", i);

        rv = begun[i] ? ct_commit(c, &sets[i]) : APR_ENOSPC;
        ct_check(c, rv == APR_SUCCESS || rv == APR_ENOSPC,
                 "set_commit returned %d with many streams open", (int)rv);
        ct_see(c, &key, NULL);
    }
    ct_store(c, &item);
    ct_require(c, &item, "after more streams at once than fit");
}

typedef struct aborting_t {
    ct_t *c;
    ct_set_t set;
} aborting_t;

static apr_status_t abort_cleanup(void *baton)
{
    aborting_t *aborting = baton;

    ct_abort(aborting->c, &aborting->set);
    return APR_SUCCESS;
}

static void test_abort_in_a_pool_cleanup(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 30000);
    aborting_t aborting = { c, { NULL, NULL, NULL } };
    apr_pool_t *pool;

    apr_pool_create(&pool, c->pool);
    stream_begin(c, &item, item.body_len, 20000, &aborting.set);
    apr_pool_cleanup_register(pool, &aborting, abort_cleanup,
                              apr_pool_cleanup_null);
    apr_pool_destroy(pool);
    ct_require_miss(c, &key, "after set_abort in a pool cleanup");
    ct_store(c, &item);
    ct_require(c, &item, "after set_abort in a pool cleanup");
}

/* A stream whose length is not the announced one. */
static void lie_check(ct_t *c, apr_off_t announced, apr_off_t length)
{
    cachemw_key_t key = ct_key(c, "page/%d", (int)announced);
    ct_item_t item = ct_item(c, &key, 1, length);
    cachemw_entry_t entry = ct_item_entry(&item, c->pool);
    char *bytes = apr_palloc(c->pool, (apr_size_t)length + 1);
    ct_set_t set;
    apr_status_t rv;

    ct_item_bytes(&item, 0, bytes, (apr_size_t)length);
    entry.body_len = announced;
    ct_status(c, ct_begin(c, &key, &entry, &set), APR_SUCCESS, "set_begin");
    rv = ct_write(c, &set, bytes, (apr_size_t)length);
    if (rv != APR_SUCCESS) {
        ct_abort(c, &set);
    }
    else {
        rv = ct_commit(c, &set);
        ct_check(c, rv != APR_SUCCESS,
                 "set_commit published %" APR_OFF_T_FMT
                 " bytes where %" APR_OFF_T_FMT " were announced",
                 length, announced);
    }
    ct_require_miss(c, &key, "after a stream of the wrong length");
    item = ct_item(c, &key, 2, 100);
    ct_store(c, &item);
    ct_require(c, &item, "after a stream of the wrong length");
}

static void test_stream_shorter_than_announced_is_not_published(ct_t *c)
{
    lie_check(c, 20000, 19999);
    lie_check(c, 1, 0);
}

static void test_stream_longer_than_announced_is_not_published(ct_t *c)
{
    lie_check(c, 20000, 20001);
    lie_check(c, 0, 1);
}

static void test_streams_of_two_keys_interleave(ct_t *c)
{
    cachemw_key_t one = ct_key(c, "one"), two = ct_key(c, "two");
    ct_item_t items[2] = { ct_item(c, &one, 1, 40000),
                           ct_item(c, &two, 2, 40000) };
    ct_set_t sets[2];
    char piece[1000];
    int i, k;

    stream_begin(c, &items[0], -1, 0, &sets[0]);
    stream_begin(c, &items[1], 40000, 0, &sets[1]);
    for (i = 0; i < 40; i++) {
        for (k = 0; k < 2; k++) {
            ct_item_bytes(&items[k], i * 1000, piece, sizeof(piece));
            ct_status(c, ct_write(c, &sets[k], piece, sizeof(piece)),
                      APR_SUCCESS, "set_write");
        }
    }
    ct_status(c, ct_commit(c, &sets[1]), APR_SUCCESS, "set_commit");
    ct_status(c, ct_commit(c, &sets[0]), APR_SUCCESS, "set_commit");
    ct_require(c, &items[0], "after two streams at once");
    ct_require(c, &items[1], "after two streams at once");
}

static void test_streams_of_one_key_last_commit_wins(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t first = ct_item(c, &key, 1, 9000);
    ct_item_t second = ct_item_next(c, &first, 12000);
    ct_set_t sets[2];

    stream_begin(c, &first, 9000, 9000, &sets[0]);
    stream_begin(c, &second, 12000, 12000, &sets[1]);
    ct_status(c, ct_commit(c, &sets[1]), APR_SUCCESS, "set_commit");
    ct_require(c, &second, "after the first of two commits");
    ct_status(c, ct_commit(c, &sets[0]), APR_SUCCESS, "set_commit");
    ct_require(c, &first, "after the second of two commits");
}

static void commit_elsewhere(ct_t *c, int index, void *baton)
{
    ct_set_t *sets = baton;

    if (index == 0) {
        ct_status(c, ct_commit(c, &sets[0]), APR_SUCCESS, "set_commit");
    }
    else {
        ct_abort(c, &sets[1]);
    }
}

static void test_stream_ends_on_another_thread(ct_t *c)
{
    cachemw_key_t one = ct_key(c, "one"), two = ct_key(c, "two");
    ct_item_t first = ct_item(c, &one, 1, 90000);
    ct_item_t second = ct_item(c, &two, 1, 12000);
    ct_set_t sets[2];

    stream_begin(c, &first, -1, first.body_len, &sets[0]);
    stream_begin(c, &second, -1, 6000, &sets[1]);
    ct_threads(c, 2, commit_elsewhere, sets);
    ct_require(c, &first, "after a commit on another thread");
    ct_require_miss(c, &two, "after an abort on another thread");
}

const ct_test_t ct_tests_streams[] = {
    CT_TEST(test_stream_of_unknown_length),
    CT_TEST(test_stream_in_odd_pieces),
    CT_TEST(test_stream_keeps_no_pointer_to_key_and_head),
    CT_TEST(test_stream_is_invisible_before_commit),
    CT_TEST(test_stream_leaves_old_entry_until_commit),
    CT_TEST(test_abort_leaves_no_trace),
    CT_TEST(test_abort_keeps_old_entry),
    CT_TEST(test_abort_right_after_begin),
    CT_TEST(test_abort_a_thousand_times_costs_no_space),
    CT_TEST(test_abort_in_a_pool_cleanup),
    CT_TEST(test_stream_shorter_than_announced_is_not_published),
    CT_TEST(test_stream_longer_than_announced_is_not_published),
    CT_TEST(test_streams_of_two_keys_interleave),
    CT_TEST(test_streams_of_one_key_last_commit_wins),
    CT_TEST(test_stream_ends_on_another_thread),
    CT_TEST(test_streams_of_more_than_fits),
    CT_TESTS_END,
};
