/* SPDX-License-Identifier: Apache-2.0 */

/* Threads of one child on one store. */

#include "apr_strings.h"
#include "harness.h"

static apr_off_t length_within(const ct_t *c, apr_off_t length)
{
    return length < c->body_max ? length : c->body_max;
}

/* What several have under way at once has to fit together. */
static apr_off_t length_of_many(const ct_t *c, apr_off_t length)
{
    return length < c->body_max / 8 ? length : c->body_max / 8;
}

static void test_threads_mix_all_calls(ct_t *c)
{
    ct_mix_t mix = { .rounds = 3000, .keys = 12 };

    mix.length_max = length_within(c, 200000);
    ct_threads(c, 8, ct_mix, &mix);
}

static void test_threads_mix_with_clear(ct_t *c)
{
    ct_mix_t mix = { .rounds = 2000, .keys = 40, .clears = 1 };

    mix.length_max = length_within(c, 100000);
    ct_threads(c, 6, ct_mix, &mix);
}

/* What writers and readers of one key share. */
typedef struct contest_t {
    ct_item_t item;
    int writers;
    int writing; /* how many of them are still at it */
} contest_t;

static void contest_run(ct_t *c, contest_t *contest, int writers, int readers,
                        ct_actor_fn *run)
{
    contest->writers = contest->writing = writers;
    ct_threads(c, writers + readers, run, contest);
}

/* A writer that fails lets the readers go too. */
static void writer_ends(contest_t *contest)
{
    __atomic_sub_fetch(&contest->writing, 1, __ATOMIC_RELEASE);
}

static void readers_read(ct_t *c, contest_t *contest)
{
    while (__atomic_load_n(&contest->writing, __ATOMIC_ACQUIRE) > 0) {
        ct_see(c, &contest->item.key, NULL);
    }
}

/* The same key again and again, in sizes that differ widely. */
static void atomic_act(ct_t *c, int index, void *baton)
{
    static const apr_off_t lengths[] = { 100, 300000, 7000, 65537, 1, 150000 };
    contest_t *contest = baton;
    apr_status_t rv = APR_SUCCESS;
    int i;

    if (index >= contest->writers) {
        readers_read(c, contest);
        return;
    }
    for (i = 0; i < 1000 && rv == APR_SUCCESS; i++) {
        ct_item_t item = ct_item(c, &contest->item.key, (apr_uint32_t)i,
                                 length_of_many(c, lengths[i % 6]));

        item.head_len = (apr_size_t)(100 + i % 5 * 700);
        rv = i % 2 == 0 ? ct_try_store(c, &item)
                        : ct_try_stream(c, &item, 20000, i % 4 == 1);
    }
    writer_ends(contest);
    ct_status(c, rv, APR_SUCCESS, "set while others read the key");
}

static void test_set_is_atomic_for_readers(ct_t *c)
{
    contest_t contest;

    contest.item.key = ct_key(c, "page");
    contest_run(c, &contest, 1, 3, atomic_act);
}

static void stream_act(ct_t *c, int index, void *baton)
{
    ct_item_t *items = baton;
    int i;

    for (i = 0; i < 20; i++) {
        cachemw_key_t key = ct_key(c, "stream/%d", index);

        items[index] = ct_item(c, &key, (apr_uint32_t)i,
                               length_of_many(c, 50000 + i * 1000));
        ct_status(c, ct_try_stream(c, &items[index], 1000, 0), APR_SUCCESS,
                  "streaming while others stream");
    }
    items[index].key.data = NULL;
}

static void test_threads_stream_at_once(ct_t *c)
{
    ct_item_t items[6];
    int i;

    ct_threads(c, 6, stream_act, items);
    for (i = 0; i < 6; i++) {
        items[i].key = ct_key(c, "stream/%d", i);
        ct_require(c, &items[i], "after six threads streamed at once");
    }
}

static void amend_act(ct_t *c, int index, void *baton)
{
    contest_t *contest = baton;
    ct_item_t item = contest->item;
    apr_status_t rv = APR_SUCCESS;
    int i;

    if (index >= contest->writers) {
        readers_read(c, contest);
        return;
    }
    for (i = 0; i < 500 && rv == APR_SUCCESS; i++) {
        item.head_version = (apr_uint32_t)(i * 2 + index + 10);
        item.head_len = (apr_size_t)(CT_HEAD_MIN + i * 13 % 3000);
        item.expires = c->now + CT_HOUR + i;
        rv = ct_amend(c, &item);
    }
    writer_ends(contest);
    ct_status(c, rv, APR_SUCCESS, "set_head while others read the key");
}

static void test_set_head_is_atomic_for_readers(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    contest_t contest;

    contest.item = ct_item(c, &key, 1, length_within(c, 100000));
    ct_store(c, &contest.item);
    contest_run(c, &contest, 2, 2, amend_act);
}

static void race_act(ct_t *c, int index, void *baton)
{
    const cachemw_key_t *key = baton;
    int i;

    for (i = 0; i < 300; i++) {
        ct_item_t item = ct_item(c, key, (apr_uint32_t)(index << 16 | i), 500);
        ct_item_t seen;

        ct_status(c, ct_try_store(c, &item), APR_SUCCESS, "set");
        if (ct_see(c, key, &seen) && index % 2 == 0) {
            apr_status_t rv = ct_remove(c, key, &seen.id);

            if (rv != APR_NOTFOUND) {
                ct_status(c, rv, APR_SUCCESS, "remove by id");
            }
        }
    }
}

static void test_threads_race_on_one_key(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item;

    ct_threads(c, 6, race_act, &key);
    item = ct_item(c, &key, 1, 100);
    ct_store(c, &item);
    ct_require(c, &item, "after six threads raced on its key");
    if (ct_counts(c) && c->emptied) {
        ct_check(c, ct_entries(c) == 1,
                 "six threads raced on one key, and stats counts %d entries",
                 (int)ct_entries(c));
    }
}

const ct_test_t ct_tests_threads[] = {
    CT_TEST(test_threads_mix_all_calls),
    CT_TEST(test_threads_mix_with_clear),
    CT_TEST(test_set_is_atomic_for_readers),
    CT_TEST(test_set_head_is_atomic_for_readers),
    CT_TEST(test_threads_stream_at_once),
    CT_TEST(test_threads_race_on_one_key),
    CT_TESTS_END,
};
