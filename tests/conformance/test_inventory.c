/* SPDX-License-Identifier: Apache-2.0 */

/* What a store can tell of itself: exists, keys, stats; and clear. */

#include <string.h>

#include "apr_hash.h"
#include "apr_strings.h"
#include "harness.h"

static void test_exists_tells_what_get_finds(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_status(c, ct_exists(c, &key), APR_NOTFOUND, "exists before set");
    ct_store(c, &item);
    ct_status(c, ct_exists(c, &key), APR_SUCCESS, "exists after set");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_status(c, ct_exists(c, &key), APR_NOTFOUND, "exists after remove");
}

static void test_clear_removes_every_entry(ct_t *c)
{
    ct_item_t items[200];
    int i;

    if (!c->emptied) {
        ct_need(c, 0, "clear");
    }
    for (i = 0; i < 200; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);

        items[i] = ct_item(c, &key, 1, i * 50);
        ct_store(c, &items[i]);
    }
    ct_status(c, ct_clear(c), APR_SUCCESS, "clear");
    for (i = 0; i < 200; i++) {
        ct_require_miss(c, &items[i].key, "after clear");
    }
    if (ct_counts(c)) {
        ct_check(c, ct_entries(c) == 0, "after clear stats tells of entries");
    }
    ct_store(c, &items[7]);
    ct_require(c, &items[7], "set after clear");
    ct_status(c, ct_clear(c), APR_SUCCESS, "clear");
    ct_status(c, ct_clear(c), APR_SUCCESS, "clear of an empty store");
}

/* What an iteration has seen. */
typedef struct seen_t {
    ct_t *c;
    apr_hash_t *times; /* key to int * */
    const ct_item_t *items;
    int nitems;
    int stop_after; /* end the iteration behind so many; 0: never */
    int calls;
    const char *wrong;
} seen_t;

#define STOP APR_EGENERAL

static const ct_item_t *item_find(const seen_t *seen, const cachemw_key_t *key)
{
    int i;

    for (i = 0; i < seen->nitems; i++) {
        if (seen->items[i].key.len == key->len
            && memcmp(seen->items[i].key.data, key->data, key->len) == 0) {
            return &seen->items[i];
        }
    }
    return NULL;
}

/* No verdict here: a provider may hold a lock while it calls. */
static apr_status_t key_note(void *baton, const cachemw_key_t *key,
                             const cachemw_entry_t *entry)
{
    seen_t *seen = baton;
    const ct_item_t *item = item_find(seen, key);
    apr_pool_t *pool = seen->c->pool;
    int *times;

    seen->calls++;
    if (item == NULL) {
        seen->wrong = apr_pstrcat(
            pool, "a key that nobody set: ", ct_key_show(seen->c, key), NULL);
        return APR_SUCCESS;
    }
    times =
        apr_hash_get(seen->times, item->key.data, (apr_ssize_t)item->key.len);
    if (times == NULL) {
        times = apr_pcalloc(pool, sizeof(*times));
        apr_hash_set(seen->times, item->key.data, (apr_ssize_t)item->key.len,
                     times);
    }
    ++*times;
    if (memcmp(&entry->id, &item->id, sizeof(item->id)) != 0
        || !ct_expires_fit(seen->c, entry->expires, item->expires)
        || entry->body_len != item->body_len) {
        seen->wrong = apr_pstrcat(pool, "a wrong id, expires or body_len of ",
                                  ct_key_show(seen->c, key), NULL);
    }
    return seen->calls == seen->stop_after ? STOP : APR_SUCCESS;
}

static void keys_need(ct_t *c)
{
    ct_need(c, c->table.keys != NULL, "keys");
    if (!c->emptied) {
        ct_need(c, 0, "clear");
    }
}

static void keys_walk(ct_t *c, seen_t *seen, const char *pattern,
                      const ct_item_t *items, int n)
{
    memset(seen, 0, sizeof(*seen));
    seen->c = c;
    seen->times = apr_hash_make(c->pool);
    seen->items = items;
    seen->nitems = n;
    ct_status(c, ct_keys(c, pattern, key_note, seen), APR_SUCCESS, "keys");
    ct_check(c, seen->wrong == NULL, "keys told of %s", seen->wrong);
}

static int times_seen(const seen_t *seen, const ct_item_t *item)
{
    int *times =
        apr_hash_get(seen->times, item->key.data, (apr_ssize_t)item->key.len);

    return times != NULL ? *times : 0;
}

static void items_make(ct_t *c, ct_item_t *items, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);

        items[i] = ct_item(c, &key, (apr_uint32_t)i, i * 10);
        ct_store(c, &items[i]);
    }
}

static void test_keys_tells_every_entry_once(ct_t *c)
{
    ct_item_t items[300];
    seen_t seen;
    int i;

    keys_need(c);
    items_make(c, items, 299);
    items[299] = items[298];
    items[299].key = ct_key_bytes(c, "\0\xff\n*", 4);
    ct_store(c, &items[299]);
    keys_walk(c, &seen, NULL, items, 300);
    for (i = 0; i < 300; i++) {
        ct_check(c, times_seen(&seen, &items[i]) == 1,
                 "keys told %d times of %s", times_seen(&seen, &items[i]),
                 ct_key_show(c, &items[i].key));
    }
}

static void test_keys_of_an_empty_store(ct_t *c)
{
    seen_t seen;

    keys_need(c);
    keys_walk(c, &seen, NULL, NULL, 0);
    ct_check(c, seen.calls == 0, "keys of an empty store told of %d entries",
             seen.calls);
}

static void test_keys_leaves_out_expired_and_removed(ct_t *c)
{
    ct_item_t items[20];
    seen_t seen;
    int i;

    keys_need(c);
    items_make(c, items, 20);
    for (i = 0; i < 10; i++) {
        items[i].expires = c->now + apr_time_from_sec(1);
        ct_status(c, ct_try_store(c, &items[i]), APR_SUCCESS, "set");
    }
    ct_status(c, ct_remove(c, &items[10].key, NULL), APR_SUCCESS, "remove");
    c->now += apr_time_from_sec(1);
    keys_walk(c, &seen, NULL, items, 20);
    for (i = 0; i < 20; i++) {
        int wanted = i > 10;

        ct_check(c, times_seen(&seen, &items[i]) == wanted,
                 "keys told %d times of an entry that %s",
                 times_seen(&seen, &items[i]),
                 i < 10    ? "has expired"
                 : i == 10 ? "was removed"
                           : "is there");
    }
}

static void test_keys_stops_when_told(ct_t *c)
{
    ct_item_t items[20];
    seen_t seen;
    apr_status_t rv;

    keys_need(c);
    items_make(c, items, 20);
    memset(&seen, 0, sizeof(seen));
    seen.c = c;
    seen.times = apr_hash_make(c->pool);
    seen.items = items;
    seen.nitems = 20;
    seen.stop_after = 5;
    rv = ct_keys(c, NULL, key_note, &seen);
    ct_check(c, seen.calls == 5,
             "keys went on for %d entries after it was told to stop",
             seen.calls - 5);
    ct_status(c, rv, STOP, "keys that was told to stop with APR_EGENERAL");
    ct_require(c, &items[3], "after an iteration that was stopped");
}

typedef struct walkers_t {
    ct_item_t items[100];
    int walking;
} walkers_t;

static apr_status_t stable_note(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    return item_find(baton, key) != NULL ? key_note(baton, key, entry)
                                         : APR_SUCCESS;
}

/* Thread 0 walks; the others store and remove other keys. */
static void walk_act(ct_t *c, int index, void *baton)
{
    walkers_t *w = baton;
    ct_mix_t mix = { .rounds = 50, .keys = 10, .length_max = 5000 };
    int times = 1, round, i;
    seen_t seen;

    while (index > 0 && __atomic_load_n(&w->walking, __ATOMIC_ACQUIRE)) {
        ct_mix(c, index, &mix);
    }
    for (round = 0; index == 0 && round < 100 && times == 1; round++) {
        memset(&seen, 0, sizeof(seen));
        seen.c = c;
        seen.times = apr_hash_make(c->pool);
        seen.items = w->items;
        seen.nitems = 100;
        ct_keys(c, NULL, stable_note, &seen);
        for (i = 0; i < 100 && times == 1; i++) {
            times = times_seen(&seen, &w->items[i]);
        }
    }
    if (index == 0) {
        __atomic_store_n(&w->walking, 0, __ATOMIC_RELEASE);
        ct_check(c, times == 1,
                 "keys told %d times of an entry that nobody touched while "
                 "others were set and removed",
                 times);
    }
}

static void test_keys_tells_the_untouched_once_meanwhile(ct_t *c)
{
    walkers_t *walkers = apr_pcalloc(c->pool, sizeof(*walkers));

    keys_need(c);
    items_make(c, walkers->items, 100);
    walkers->walking = 1;
    ct_threads(c, 3, walk_act, walkers);
}

/* Patterns, and which of the names below match. */
static const char *const names[] = {
    "a",      "b",      "ab",     "a*b",  "a?b", "[x]", "a\\b", "a/b/c",
    "page.1", "page.2", "page.x", "PAGE", "]",   "-",   "a\nb", "",
};

#define NAMES ((int)(sizeof(names) / sizeof(names[0])))

static const struct {
    const char *pattern;
    const char *matches[NAMES + 1];
} patterns[] = {
    { "a", { "a" } },
    { "?", { "a", "b", "]", "-" } },
    { "a?b", { "a*b", "a?b", "a\\b", "a\nb" } },
    { "a*b", { "ab", "a*b", "a?b", "a\\b", "a\nb" } },
    { "a\\*b", { "a*b" } },
    { "a\\?b", { "a?b" } },
    { "a\\\\b", { "a\\b" } },
    { "\\[x\\]", { "[x]" } },
    { "page.[0-9]", { "page.1", "page.2" } },
    { "page.[!0-9]", { "page.x" } },
    { "page.[x2]", { "page.2", "page.x" } },
    { "[]]", { "]" } },
    { "[ab]", { "a", "b" } },
    { "a*c", { "a/b/c" } },
    { "*.*", { "page.1", "page.2", "page.x" } },
    { "nothing*", { NULL } },
    { "", { "" } },
};

static int name_matches(int p, const char *name)
{
    int i;

    for (i = 0; patterns[p].matches[i] != NULL; i++) {
        if (strcmp(patterns[p].matches[i], name) == 0) {
            return 1;
        }
    }
    return 0;
}

/* A provider may ignore the pattern: it is held to what core makes of it. */
static void pattern_check(ct_t *c, int p, const ct_item_t *items, int exact)
{
    const char *pattern = patterns[p].pattern;
    seen_t seen;
    int i;

    keys_walk(c, &seen, pattern, items, NAMES);
    for (i = 0; i < NAMES; i++) {
        int times = times_seen(&seen, &items[i]);
        int wanted = name_matches(p, names[i]);

        ct_check(c, times == wanted || (!exact && !wanted && times == 1),
                 "keys with pattern \"%s\" told %d times of \"%s\"", pattern,
                 times, names[i]);
    }
}

static void test_keys_by_pattern(ct_t *c)
{
    ct_item_t items[NAMES];
    static ct_plan_t plan;
    apr_size_t p;
    int i;

    keys_need(c);
    for (i = 0; i < NAMES; i++) {
        cachemw_key_t key = ct_key_bytes(c, names[i], strlen(names[i]));

        items[i] = ct_item(c, &key, (apr_uint32_t)i, i);
        ct_store(c, &items[i]);
    }
    for (p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
        pattern_check(c, (int)p, items, c->plan->through_core);
    }
    plan = *c->plan;
    plan.through_core = 1;
    c->plan = &plan;
    for (p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
        pattern_check(c, (int)p, items, 1);
    }
}

static void test_stats_counts_entries(ct_t *c)
{
    apr_int64_t before = ct_entries(c);
    ct_item_t items[20];

    items_make(c, items, 20);
    ct_check(c, ct_entries(c) == before + 20,
             "stats tells of %" APR_INT64_T_FMT " entries after 20 sets",
             ct_entries(c) - before);
    items[0] = ct_item_next(c, &items[0], 50);
    ct_store(c, &items[0]);
    ct_check(c, ct_entries(c) == before + 20,
             "stats counts a replaced entry twice");
    ct_status(c, ct_remove(c, &items[1].key, NULL), APR_SUCCESS, "remove");
    ct_check(c, ct_entries(c) == before + 19, "stats counts a removed entry");
}

static void test_stats_counts_bytes(ct_t *c)
{
    apr_off_t length = 60000 < c->body_max ? 60000 : c->body_max;
    cachemw_stats_t before = { 0 }, after = { 0 };
    int i;

    ct_need(c, c->table.stats != NULL, "stats");
    ct_status(c, ct_stats(c, &before), APR_SUCCESS, "stats");
    if (before.bytes < 0) {
        ct_skip(c, "stats does not tell how many bytes are used");
    }
    for (i = 0; i < 4; i++) {
        cachemw_key_t key = ct_key(c, "page/%d", i);
        ct_item_t item = ct_item(c, &key, 1, length);

        ct_store(c, &item);
    }
    ct_status(c, ct_stats(c, &after), APR_SUCCESS, "stats");
    ct_check(c, after.bytes >= before.bytes + 4 * length,
             "after sets of %" APR_OFF_T_FMT
             " bytes in all, stats tells of %" APR_INT64_T_FMT,
             4 * length, after.bytes - before.bytes);
}

static void extra_note(void *baton, const char *name, apr_int64_t value)
{
    int *calls = baton;

    (void)value;
    *calls += name != NULL && name[0] != '\0' ? 1 : -1000000;
}

static void test_stats_tells_extra_figures_by_name(ct_t *c)
{
    cachemw_stats_t stats = { 0 };
    int calls = 0;

    ct_need(c, c->table.stats != NULL, "stats");
    ct_status(c, ct_stats(c, &stats), APR_SUCCESS,
              "stats without a function for extra figures");
    stats.extra = extra_note;
    stats.baton = &calls;
    ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
    ct_check(c, calls >= 0, "stats told a figure without a name");
    ct_check(c,
             stats.entries >= -1 && stats.expired >= -1 && stats.bytes >= -1
                 && stats.bytes_max >= -1 && stats.entries_max >= -1,
             "stats told a figure below -1, which stands for unknown");
}

const ct_test_t ct_tests_inventory[] = {
    CT_TEST(test_exists_tells_what_get_finds),
    CT_TEST(test_clear_removes_every_entry),
    CT_TEST(test_keys_tells_every_entry_once),
    CT_TEST(test_keys_of_an_empty_store),
    CT_TEST(test_keys_leaves_out_expired_and_removed),
    CT_TEST(test_keys_stops_when_told),
    CT_TEST(test_keys_tells_the_untouched_once_meanwhile),
    CT_TEST(test_keys_by_pattern),
    CT_TEST(test_stats_counts_entries),
    CT_TEST(test_stats_counts_bytes),
    CT_TEST(test_stats_tells_extra_figures_by_name),
    CT_TESTS_END,
};
