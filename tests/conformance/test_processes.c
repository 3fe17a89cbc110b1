/* SPDX-License-Identifier: Apache-2.0 */

/* Children of one server on one store: at once, killed, of two generations. */

#include <string.h>

#include "apr_strings.h"
#include "harness.h"

static apr_off_t length_within(const ct_t *c, apr_off_t length)
{
    return length < c->body_max ? length : c->body_max;
}

static void test_processes_mix_all_calls(ct_t *c)
{
    ct_mix_t mix = { .rounds = 4000, .keys = 12, .clears = 1 };

    mix.length_max = length_within(c, 200000);
    ct_children(c, 4, ct_mix, &mix);
}

static void threaded_act(ct_t *c, int index, void *baton)
{
    (void)index;
    ct_threads(c, 3, ct_mix, baton);
}

static void test_processes_with_threads_mix_all_calls(ct_t *c)
{
    ct_mix_t mix = { .rounds = 1500, .keys = 12 };

#if defined(__SANITIZE_THREAD__)
    ct_skip(c, "ThreadSanitizer does not see what other processes hand over");
#endif
    mix.length_max = length_within(c, 200000);
    ct_children(c, 3, threaded_act, &mix);
}

/* Item i of a test, the same in every process. */
static ct_item_t item_numbered(ct_t *c, int i, apr_off_t length)
{
    cachemw_key_t key = ct_key(c, "page/%d", i);
    ct_item_t item = ct_item(c, &key, (apr_uint32_t)i, length);

    memset(&item.id, i + 1, sizeof(item.id));
    return item;
}

static void store_act(ct_t *c, int index, void *baton)
{
    int i;

    (void)baton;
    for (i = 0; i < 5; i++) {
        ct_item_t item = item_numbered(c, index * 5 + i, 2000);

        ct_store(c, &item);
    }
}

static void require_act(ct_t *c, int index, void *baton)
{
    int i;

    (void)index;
    (void)baton;
    for (i = 0; i < 10; i++) {
        ct_item_t item = item_numbered(c, i, 2000);

        ct_require(c, &item, "stored by another child, which has ended");
    }
}

static void test_processes_share_entries(ct_t *c)
{
    ct_children(c, 2, store_act, NULL);
    ct_children(c, 2, require_act, NULL);
}

/* Child 0 stores, and looks again when child 1 has removed. */
static void remove_act(ct_t *c, int index, void *baton)
{
    ct_item_t item = item_numbered(c, 0, 2000);
    ct_item_t other = item_numbered(c, 1, 2000);

    ct_store(c, index == 0 ? &item : &other);
    ct_require(c, index == 0 ? &item : &other, "after set");
    ct_tell(c, 's');
    ct_wait(c);
    if (index == 0) {
        ct_require_miss(c, &item.key, "after another child removed it");
        ct_store(c, &item);
    }
    else {
        ct_status(c, ct_remove(c, &item.key, NULL), APR_SUCCESS, "remove");
        if (*(int *)baton) {
            ct_status(c, ct_clear(c), APR_SUCCESS, "clear");
        }
    }
    ct_tell(c, 'd');
    ct_wait(c);
}

static void removal_check(ct_t *c, int clear)
{
    ct_child_t *first = ct_spawn(c, remove_act, 0, &clear);
    ct_child_t *second;

    ct_hear(c, first);
    second = ct_spawn(c, remove_act, 1, &clear);
    ct_hear(c, second);
    ct_say(c, second, 'r');
    ct_hear(c, second);
    ct_say(c, first, 'l');
    ct_hear(c, first);
    ct_say(c, first, 'e');
    ct_say(c, second, 'e');
    ct_join(c, first);
    ct_join(c, second);
}

static void test_removal_holds_for_all_processes(ct_t *c)
{
    removal_check(c, 0);
}

static void test_clear_holds_for_all_processes(ct_t *c)
{
    if (!c->emptied) {
        ct_need(c, 0, "clear");
    }
    removal_check(c, 1);
}

/* Stores without an end until it is killed; tells after a few. */
static void victim_act(ct_t *c, int index, void *baton)
{
    apr_uint64_t random = (apr_uint64_t)index * 99 + 5;
    apr_uint32_t i;
    apr_pool_t *outer = c->pool;

    (void)baton;
    for (i = 0;; i++) {
        cachemw_key_t key;
        ct_item_t item;

        apr_pool_create(&c->pool, outer);
        key = ct_key(c, "mix/%d", (int)(ct_random(&random) % 6));
        item =
            ct_item(c, &key, (apr_uint32_t)index << 24 | i,
                    length_within(c, (apr_off_t)(ct_random(&random) % 150000)));
        if (i % 2 == 0) {
            ct_try_store(c, &item);
        }
        else {
            ct_try_stream(c, &item, 30000, 0);
        }
        ct_see(c, &key, NULL);
        if (i == (apr_uint32_t)(index % 7)) {
            ct_tell(c, 'k');
        }
        apr_pool_destroy(c->pool);
        c->pool = outer;
    }
}

static void test_child_killed_while_storing_harms_no_other(ct_t *c)
{
    ct_mix_t mix = { .keys = 6 };
    ct_mix_t after = { .rounds = 300, .keys = 6 };
    apr_uint64_t random = 7;
    ct_child_t *survivor;
    int i;

    mix.length_max = after.length_max = length_within(c, 150000);
    survivor = ct_spawn(c, ct_mix, 100, &mix);
    for (i = 0; i < 40; i++) {
        ct_child_t *victim = ct_spawn(c, victim_act, i + 1, NULL);

        ct_hear(c, victim);
        /* Not always in the same place: right behind what it has told. */
        apr_sleep((apr_interval_time_t)(ct_random(&random) % 4000));
        ct_kill(c, victim);
    }
    ct_say(c, survivor, 'e');
    ct_join(c, survivor);
    ct_children(c, 2, ct_mix, &after);
}

/* Begins streams, and is killed with all of them open. */
static void abandon_act(ct_t *c, int index, void *baton)
{
    char *piece = apr_pcalloc(c->pool, 60000);
    int i;

    (void)baton;
    for (i = 0; i < 8; i++) {
        cachemw_key_t key = ct_key(c, "abandoned/%d/%d", index, i);
        ct_item_t item = ct_item(c, &key, 1, 70000);
        cachemw_entry_t entry = ct_item_entry(&item, c->pool);
        ct_set_t set;

        entry.body_len = i % 2 ? -1 : 70000;
        if (ct_begin(c, &key, &entry, &set) == APR_SUCCESS
            && ct_write(c, &set, piece, 60000) != APR_SUCCESS) {
            ct_abort(c, &set);
        }
    }
    ct_tell(c, 'k');
    ct_wait(c);
}

static void abandoned_check_act(ct_t *c, int index, void *baton)
{
    int *rounds = baton;
    int i, k;

    (void)index;
    if (ct_sweeps(c)) {
        ct_sweep_all(c);
        c->now += 24 * CT_HOUR;
        ct_sweep_all(c);
    }
    for (i = 0; i < *rounds; i++) {
        for (k = 0; k < 8; k++) {
            cachemw_key_t key = ct_key(c, "abandoned/%d/%d", i, k);

            ct_require_miss(c, &key,
                            "begun by a child that was killed before "
                            "set_commit");
        }
    }
    for (i = 0; i < 10; i++) {
        ct_item_t item = item_numbered(c, i, length_within(c, 200000));

        ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
                  "set after %d children died in the middle of 8 sets each",
                  *rounds);
        ct_require(c, &item, "after children died in the middle of sets");
    }
    if (ct_counts(c) && c->emptied) {
        ct_check(c, ct_entries(c) <= 10,
                 "stats counts what children had begun when they were killed");
    }
}

static void test_child_killed_while_streaming_leaves_no_trace(ct_t *c)
{
    int rounds = 25;
    int i;

    for (i = 0; i < rounds; i++) {
        ct_child_t *child = ct_spawn(c, abandon_act, i, NULL);

        ct_hear(c, child);
        ct_kill(c, child);
    }
    ct_children(c, 1, abandoned_check_act, &rounds);
}

/* Holds bodies, and is killed while it does. What others left when they were
 * killed may stay until a sweep, which a server makes every now and then. */
static void hold_act(ct_t *c, int index, void *baton)
{
    int i;

    (void)baton;
    if (ct_sweeps(c)) {
        ct_sweep_all(c);
    }
    for (i = 0; i < 8; i++) {
        ct_item_t item = item_numbered(c, i, length_within(c, 400000));
        cachemw_entry_t entry;

        item.version += (apr_uint32_t)index * 100;
        item.id.bytes[0] = (unsigned char)index; /* each set has its own */
        ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
                  "set after %d children died that held bodies", index);
        memset(&entry, 0, sizeof(entry));
        entry.body = apr_brigade_create(c->pool, c->alloc);
        ct_get(c, &item.key, &entry);
    }
    ct_tell(c, 'k');
    ct_wait(c);
}

static void held_check_act(ct_t *c, int index, void *baton)
{
    int i;

    (void)index;
    (void)baton;
    for (i = 0; i < 8; i++) {
        ct_item_t item = item_numbered(c, 100 + i, length_within(c, 4000000));

        ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
                  "set of %" APR_OFF_T_FMT
                  " bytes after children died that held bodies",
                  item.body_len);
        ct_require(c, &item, "after children died that held bodies");
    }
}

static void test_child_killed_while_sending_gives_space_back(ct_t *c)
{
    int i;

    for (i = 0; i < 20; i++) {
        ct_child_t *child = ct_spawn(c, hold_act, i, NULL);

        ct_hear(c, child);
        ct_kill(c, child);
    }
    ct_children(c, 1, held_check_act, NULL);
}

/* A life that ends in the middle of a set. Nobody sweeps meanwhile: who begins
 * takes over from the dead by itself. */
static void brief_act(ct_t *c, int index, void *baton)
{
    ct_item_t item = item_numbered(c, index % 5, 2000);
    ct_item_t open = item_numbered(c, 5, 2000);
    cachemw_entry_t entry = ct_item_entry(&open, c->pool);
    ct_set_t set;

    (void)baton;
    item.version += (apr_uint32_t)index * 100;
    item.id.bytes[0] = (unsigned char)index; /* each set has its own */
    ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
              "set after %d children died in the middle of sets", index);
    ct_require(c, &item, "after children died in the middle of sets");
    entry.body_len = open.body_len;
    ct_status(c, ct_begin(c, &open.key, &entry, &set), APR_SUCCESS,
              "set_begin after %d children died in the middle of sets", index);
    ct_tell(c, 'k');
    ct_wait(c);
}

/* A small store has room to note 64 children. */
static void test_more_children_die_than_a_store_can_note(ct_t *c)
{
    int i;

    for (i = 0; i < 80; i++) {
        ct_child_t *child = ct_spawn(c, brief_act, i, NULL);

        ct_hear(c, child);
        ct_kill(c, child);
    }
}

/* How many entries a store holds that was filled to the brim: told to the
 * parent by the number of bytes written. */
static void capacity_act(ct_t *c, int index, void *baton)
{
    cachemw_stats_t stats = { 0 };
    apr_pool_t *outer = c->pool;
    int n, i;

    (void)index;
    (void)baton;
    if (ct_sweeps(c)) {
        ct_sweep_all(c);
        c->now += 24 * CT_HOUR;
        ct_sweep_all(c);
    }
    ct_status(c, ct_clear(c), APR_SUCCESS, "clear");
    if (ct_sweeps(c)) {
        /* bodies may stay for those who are being sent them */
        c->now += 2 * CACHEMW_GRACE;
        ct_sweep_all(c);
    }
    ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
    n = (int)(stats.bytes_max / 50000 * 3 / 2);
    for (i = 0; i < n; i++) {
        ct_item_t item;

        apr_pool_create(&c->pool, outer);
        item = item_numbered(c, i, length_within(c, 50000));
        ct_try_store(c, &item);
        apr_pool_destroy(c->pool);
    }
    for (i = 0; i < n; i++) {
        cachemw_key_t key;

        apr_pool_create(&c->pool, outer);
        key = ct_key(c, "page/%d", i);
        if (ct_exists(c, &key) == APR_SUCCESS) {
            ct_tell(c, '.');
        }
        apr_pool_destroy(c->pool);
    }
    c->pool = outer;
    ct_status(c, ct_clear(c), APR_SUCCESS, "clear");
    ct_tell(c, 'e');
}

static int capacity_measure(ct_t *c)
{
    ct_child_t *child = ct_spawn(c, capacity_act, 0, NULL);
    int n = 0;

    while (ct_hear(c, child) == '.') {
        n++;
    }
    ct_join(c, child);
    return n;
}

static void caps_act(ct_t *c, int index, void *baton)
{
    cachemw_stats_t stats = { 0 };

    (void)index;
    (void)baton;
    ct_need(c, c->table.stats != NULL, "stats");
    ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
    if (stats.bytes_max < 0 || stats.bytes_max > 256 * CT_MB) {
        ct_skip(c, "stats tells no cap on bytes, or one too large to be "
                   "reached: give the store a smaller size");
    }
}

static void test_children_killed_cost_no_capacity(ct_t *c)
{
    int before, after, i;

    if (!c->emptied) {
        ct_need(c, 0, "clear");
    }
    ct_children(c, 1, caps_act, NULL);
    before = capacity_measure(c);
    for (i = 0; i < 40; i++) {
        ct_child_t *child =
            ct_spawn(c, i % 2 ? hold_act : abandon_act, i, NULL);

        ct_hear(c, child);
        ct_kill(c, child);
    }
    after = capacity_measure(c);
    ct_check(c, after >= before * 9 / 10,
             "the store held %d entries; after 40 children were killed in the "
             "middle of sets and of sending bodies it holds %d, swept and "
             "cleared",
             before, after);
}

/* The parent's second configuration while children of the first one run. */
static void test_two_generations_run_at_once(ct_t *c)
{
    ct_mix_t mix = { .keys = 10 };
    ct_mix_t after = { .rounds = 300, .keys = 10 };
    ct_child_t *children[4];
    int g;

    mix.length_max = after.length_max = length_within(c, 150000);
    for (g = 0; g < 4; g++) {
        children[g] = ct_spawn(c, ct_mix, g + 1, &mix);
        ct_close(c);
        ct_open(c);
        if (g > 0) {
            ct_children(c, 1, ct_mix, &after);
            ct_say(c, children[g - 1], 'e');
            ct_join(c, children[g - 1]);
        }
    }
    ct_say(c, children[3], 'e');
    ct_join(c, children[3]);
    ct_children(c, 2, ct_mix, &after);
}

static void test_store_works_after_all_children_ended(ct_t *c)
{
    int i;

    for (i = 0; i < 3; i++) {
        ct_mix_t mix = { .rounds = 100, .keys = 5 };

        mix.length_max = length_within(c, 50000);
        ct_children(c, 2, ct_mix, &mix);
    }
}

const ct_test_t ct_tests_processes[] = {
    CT_TEST_AS(test_processes_mix_all_calls, CT_PARENT),
    CT_TEST_AS(test_processes_with_threads_mix_all_calls, CT_PARENT),
    CT_TEST_AS(test_processes_share_entries, CT_PARENT),
    CT_TEST_AS(test_removal_holds_for_all_processes, CT_PARENT),
    CT_TEST_AS(test_clear_holds_for_all_processes, CT_PARENT),
    CT_TEST_AS(test_store_works_after_all_children_ended, CT_PARENT),
    CT_TEST_AS(test_child_killed_while_storing_harms_no_other, CT_PARENT),
    CT_TEST_AS(test_child_killed_while_streaming_leaves_no_trace, CT_PARENT),
    CT_TEST_AS(test_child_killed_while_sending_gives_space_back, CT_PARENT),
    CT_TEST_AS(test_more_children_die_than_a_store_can_note, CT_PARENT),
    CT_TEST_AS(test_children_killed_cost_no_capacity, CT_PARENT),
    CT_TEST_AS(test_two_generations_run_at_once, CT_PARENT),
    CT_TESTS_END,
};
