/* SPDX-License-Identifier: Apache-2.0 */

/* What a store in shared memory promises to one process. */

#include <sys/mman.h>
#include <unistd.h>

#include "memory_world.h"

#include "providers/memory/set.h"

static const setting_t small = { .size = 4 << 20 };
static const setting_t medium = { .size = 16 << 20 };

static const apr_uint64_t sizes[] = {
    0,     1,     7,     127,    128,    129,           1024,    10240,
    65535, 65536, 65537, 102400, 262143, (1 << 20) - 1, 1 << 20, (1 << 20) + 1,
};

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void test_get_gives_what_was_set(void **state)
{
    world_t *w = world_make(medium);
    apr_size_t i;

    (void)state;
    for (i = 0; i < SIZES; i++) {
        const char *key = apr_psprintf(w->pool, "/size/%d", (int)i);
        apr_uint64_t seed = 0;

        assert_int_equal(world_get(w, key, NULL), APR_NOTFOUND);
        assert_int_equal(world_put(w, key, i + 1, sizes[i]), APR_SUCCESS);
        assert_int_equal(world_get(w, key, &seed), APR_SUCCESS);
        assert_int_equal(seed, i + 1);
    }
    for (i = 0; i < SIZES; i++) {
        const char *key = apr_psprintf(w->pool, "/size/%d", (int)i);

        assert_int_equal(world_get(w, key, NULL), APR_SUCCESS);
        assert_int_equal(world_remove(w, key, NULL), APR_SUCCESS);
        assert_int_equal(world_get(w, key, NULL), APR_NOTFOUND);
    }
    world_assert_empty(w);
    world_end(w);
}

static void test_pieces_of_any_size_make_the_body(void **state)
{
    static const apr_size_t pieces[] = { 1, 63, 64, 1000, 8192, 100000 };
    world_t *w = world_make(medium);
    apr_size_t i;
    int announced;

    (void)state;
    for (announced = 0; announced < 2; announced++) {
        for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
            assert_int_equal(world_put_pieces(w, w->mem, world_key("/p"), i,
                                              70001, w->now + SECOND, pieces[i],
                                              announced),
                             APR_SUCCESS);
            assert_int_equal(world_get(w, "/p", NULL), APR_SUCCESS);
        }
    }
    assert_int_equal(world_remove(w, "/p", NULL), APR_SUCCESS);
    world_assert_empty(w);
    world_end(w);
}

static void test_unused_space_taken_in_advance_is_given_back(void **state)
{
    world_t *w = world_make(medium);
    apr_uint64_t used;

    (void)state;
    assert_int_equal(world_put_pieces(w, w->mem, world_key("/u"), 1, 300001,
                                      w->now + SECOND, 8192, 0),
                     APR_SUCCESS);
    used = mw_blocks_total(w->mem) - mw_blocks_free(w->mem);
    assert_in_range(used * w->mem->unit_size, 300001, 300001 + 2048);
    assert_int_equal(world_units(w, MW_MEM_SMALL), used);
    world_end(w);
}

static void test_nothing_is_readable_before_the_commit(void **state)
{
    world_t *w = world_make(small);
    cachemw_key_t key = world_key("/set");
    visit_t v;
    void *set;

    (void)state;
    assert_int_equal(world_put(w, "/set", 1, 100), APR_SUCCESS);
    visit_begin(w, &v);
    v.entry.id = world_id(2);
    v.entry.expires = w->now + SECOND;
    v.entry.body_len = -1;
    v.entry.head = "";
    assert_int_equal(PROVIDER->set_begin(w->mem, &v.call, &key, &v.entry, &set),
                     0);
    assert_int_equal(PROVIDER->set_write(w->mem, &v.call, set, "abc", 3), 0);
    assert_int_equal(world_get(w, "/set", NULL), APR_SUCCESS);
    PROVIDER->set_abort(w->mem, set);
    visit_end(&v);
    assert_int_equal(world_get(w, "/set", NULL), APR_SUCCESS);
    assert_int_equal(world_remove(w, "/set", NULL), APR_SUCCESS);
    world_assert_empty(w);
    world_end(w);
}

static void test_a_body_of_another_length_than_announced_is_refused(
    void **state)
{
    world_t *w = world_make(small);
    cachemw_key_t key = world_key("/len");
    visit_t v;
    void *set;

    (void)state;
    visit_begin(w, &v);
    v.entry.id = world_id(2);
    v.entry.expires = w->now + SECOND;
    v.entry.body_len = 4;
    v.entry.head = "";
    assert_int_equal(PROVIDER->set_begin(w->mem, &v.call, &key, &v.entry, &set),
                     0);
    assert_int_equal(PROVIDER->set_write(w->mem, &v.call, set, "abc", 3), 0);
    assert_int_not_equal(PROVIDER->set_commit(w->mem, &v.call, set), 0);
    assert_int_equal(PROVIDER->set_begin(w->mem, &v.call, &key, &v.entry, &set),
                     0);
    assert_int_not_equal(PROVIDER->set_write(w->mem, &v.call, set, "abcde", 5),
                         0);
    PROVIDER->set_abort(w->mem, set);
    visit_end(&v);
    world_assert_empty(w);
    world_end(w);
}

static void test_keys_are_any_bytes(void **state)
{
    static const apr_size_t lengths[] = { 0,  1,   15,  16,  17,   31,   32,
                                          33, 255, 256, 257, 1000, 16384 };
    world_t *w = world_make(medium);
    char *data = apr_palloc(w->pool, 16384);
    apr_size_t i;

    (void)state;
    body_fill(data, 77, 0, 16384);
    data[3] = '\0';
    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        cachemw_key_t key = { data, lengths[i] };

        assert_int_equal(world_put_pieces(w, w->mem, key, i, 1000 + i,
                                          w->now + SECOND, 4096, 1),
                         APR_SUCCESS);
    }
    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        cachemw_key_t key = { data, lengths[i] };
        apr_uint64_t seed;

        assert_int_equal(world_get_from(w, w->mem, key, &seed), APR_SUCCESS);
        assert_int_equal(seed, i);
    }
    data[0] ^= 1;
    for (i = 1; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        cachemw_key_t key = { data, lengths[i] };

        assert_int_equal(world_get_from(w, w->mem, key, NULL), APR_NOTFOUND);
    }
    world_end(w);
}

static void test_a_hash_collision_is_never_served(void **state)
{
    world_t *w = world_make(small);
    cachemw_key_t key = world_key("/victim");
    apr_uint64_t hash = mw_mem_hash(w->mem, &key);
    apr_uint32_t unit;

    (void)state;
    assert_int_equal(world_put(w, "/victim", 1, 10), APR_SUCCESS);
    unit = mw_shard_find(w->mem, hash, &key);
    assert_int_not_equal(unit, 0);
    key = world_key("/villain");
    key.len = strlen("/victim");
    assert_int_equal(mw_shard_find(w->mem, hash, &key), 0);
    world_end(w);
}

static void test_a_set_replaces_what_the_key_had(void **state)
{
    world_t *w = world_make(medium);
    apr_uint64_t seed;
    apr_size_t i;

    (void)state;
    for (i = 0; i < 200; i++) {
        assert_int_equal(world_put(w, "/same", i, sizes[i % SIZES]),
                         APR_SUCCESS);
        assert_int_equal(world_get(w, "/same", &seed), APR_SUCCESS);
        assert_int_equal(seed, i);
        assert_int_equal(world_stats(w).entries, 1);
    }
    assert_int_equal(world_remove(w, "/same", NULL), APR_SUCCESS);
    world_assert_empty(w);
    world_end(w);
}

static void test_remove_obeys_the_id(void **state)
{
    world_t *w = world_make(small);
    cachemw_id_t old = world_id(1);
    cachemw_id_t new = world_id(2);

    (void)state;
    assert_int_equal(world_remove(w, "/r", NULL), APR_SUCCESS);
    assert_int_equal(world_remove(w, "/r", &old), APR_SUCCESS);
    world_put(w, "/r", 1, 100);
    world_put(w, "/r", 2, 100);
    assert_int_equal(world_remove(w, "/r", &old), APR_NOTFOUND);
    assert_int_equal(world_get(w, "/r", NULL), APR_SUCCESS);
    assert_int_equal(world_remove(w, "/r", &new), APR_SUCCESS);
    assert_int_equal(world_get(w, "/r", NULL), APR_NOTFOUND);
    world_assert_empty(w);
    world_end(w);
}

static void test_objects_up_to_a_quarter_fit(void **state)
{
    world_t *w = world_make(medium);
    apr_off_t limit = PROVIDER->object_limit(w->mem);

    (void)state;
    assert_int_equal(limit, w->fake.size / 4);
    assert_int_equal(world_put(w, "/quarter", 1, (apr_uint64_t)limit),
                     APR_SUCCESS);
    assert_int_equal(world_get(w, "/quarter", NULL), APR_SUCCESS);
    assert_int_equal(world_put(w, "/more", 1, (apr_uint64_t)limit + 1),
                     APR_ENOSPC);
    assert_int_equal(world_put_pieces(w, w->mem, world_key("/more"), 1,
                                      (apr_uint64_t)limit + 1, w->now + SECOND,
                                      65536, 0),
                     APR_ENOSPC);
    assert_int_equal(world_get(w, "/quarter", NULL), APR_SUCCESS);
    assert_int_equal(world_remove(w, "/quarter", NULL), APR_SUCCESS);
    world_assert_empty(w);
    world_end(w);
}

/** Amend the head of /h to `length` bytes made from a seed. */
static apr_status_t amend(world_t *w, apr_uint64_t id, apr_uint64_t seed,
                          apr_size_t length, apr_time_t expires)
{
    cachemw_key_t key = world_key("/h");
    cachemw_id_t the_id = world_id(id);
    char *head = malloc(length + 1);
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    body_fill(head, seed, 0, length);
    v.entry.head = head;
    v.entry.head_len = length;
    v.entry.expires = expires;
    rv = PROVIDER->set_head(w->mem, &v.call, &key, &the_id, &v.entry);
    visit_end(&v);
    free(head);
    return rv;
}

/** Verify /h: head from one seed, body from another. */
static void assert_amended(world_t *w, apr_uint64_t seed, apr_size_t length,
                           apr_uint64_t body_seed, apr_uint64_t body_len)
{
    cachemw_key_t key = world_key("/h");
    char *head = malloc(length + 1);
    visit_t v;

    visit_begin(w, &v);
    v.entry.body = apr_brigade_create(v.call.pool, v.call.bucket_alloc);
    assert_int_equal(PROVIDER->get(w->mem, &v.call, &key, &v.entry), 0);
    body_fill(head, seed, 0, length);
    assert_int_equal(v.entry.head_len, length);
    assert_memory_equal(v.entry.head, head, length);
    assert_int_equal(v.entry.body_len, body_len);
    assert_int_equal(body_verify(v.entry.body, body_seed), body_len);
    visit_end(&v);
    free(head);
}

static void test_set_head_keeps_id_and_body(void **state)
{
    static const apr_size_t lengths[] = { HEAD_LEN, 10,  0,      200,
                                          4000,     100, 300000, 1 };
    static const apr_uint64_t bodies[] = { 0, 1024, 200000 };
    world_t *w = world_make(medium);
    apr_size_t b;
    apr_size_t i;

    (void)state;
    for (b = 0; b < 3; b++) {
        assert_int_equal(amend(w, b, 1, 10, w->now + SECOND), APR_NOTFOUND);
        world_put(w, "/h", b, bodies[b]);
        assert_int_equal(amend(w, b + 9, 1, 10, w->now + SECOND), APR_NOTFOUND);
        for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            assert_int_equal(amend(w, b, i, lengths[i], w->now + SECOND), 0);
            assert_amended(w, i, lengths[i], b, bodies[b]);
        }
        w->now += SECOND - 1;
        assert_amended(w, i - 1, 1, b, bodies[b]);
        w->now += 1;
        assert_int_equal(amend(w, b, 1, 10, w->now + SECOND), APR_NOTFOUND);
        assert_int_equal(world_get(w, "/h", NULL), APR_NOTFOUND);
        world_assert_empty(w);
    }
    world_end(w);
}

static void test_expired_entries_are_never_given(void **state)
{
    world_t *w = world_make(small);
    cachemw_key_t key = world_key("/e");
    visit_t v;

    (void)state;
    world_put(w, "/e", 1, 100);
    w->now += 3600 * SECOND - 1;
    assert_int_equal(world_get(w, "/e", NULL), APR_SUCCESS);
    w->now += 1;
    visit_begin(w, &v);
    assert_int_equal(PROVIDER->exists(w->mem, &v.call, &key), APR_NOTFOUND);
    visit_end(&v);
    assert_int_equal(world_get(w, "/e", NULL), APR_NOTFOUND);
    assert_int_equal(w->fake.counts[CACHEMW_COUNT_EXPIRED], 1);
    world_assert_empty(w);
    world_end(w);
}

static void test_expired_entries_go_without_traffic(void **state)
{
    world_t *w = world_make(medium);
    int i;

    (void)state;
    for (i = 0; i < 1000; i++) {
        const char *key = apr_psprintf(w->pool, "/e/%d", i);

        assert_int_equal(
            world_put_pieces(w, w->mem, world_key(key), (apr_uint64_t)i, 1000,
                             w->now + (i % 2 ? 10 : 20) * SECOND, 4096, 1),
            APR_SUCCESS);
    }
    world_sweep(w);
    assert_int_equal(world_stats(w).entries, 1000);
    w->now += 10 * SECOND;
    world_sweep(w);
    assert_int_equal(world_stats(w).entries, 500);
    assert_int_equal(w->fake.counts[CACHEMW_COUNT_EXPIRED], 500);
    w->now += 10 * SECOND;
    world_sweep(w);
    world_assert_empty(w);
    world_end(w);
}

/** Without time left a sweep does not begin another chunk. */
static void test_sweep_goes_in_steps(void **state)
{
    world_t *w = world_make(small);
    int more = 0;
    visit_t v;

    (void)state;
    world_put(w, "/e", 1, 100);
    w->now += 3600 * SECOND;
    visit_begin(w, &v);
    v.call.deadline = 1;
    assert_int_equal(PROVIDER->sweep(w->mem, &v.call, &more), 0);
    assert_int_not_equal(more, 0);
    visit_end(&v);
    assert_int_equal(world_stats(w).entries, 1);
    world_sweep(w);
    world_assert_empty(w);
    world_end(w);
}

static void test_expired_entries_go_with_stores_alone(void **state)
{
    world_t *w = world_make(small);
    int i;

    (void)state;
    for (i = 0; i < 500; i++) {
        world_put(w, apr_psprintf(w->pool, "/old/%d", i), 1, 100);
    }
    w->now += 3600 * SECOND;
    for (i = 0; i < 100; i++) {
        world_put(w, "/new", 1, 100);
        w->now += SECOND;
    }
    assert_int_equal(world_stats(w).entries, 1);
    world_end(w);
}

typedef struct seen_t {
    world_t *w;
    int count[1000];
    int total;
    int stop_after;
} seen_t;

static apr_status_t see(void *baton, const cachemw_key_t *key,
                        const cachemw_entry_t *entry)
{
    seen_t *seen = baton;
    int i = (int)apr_atoi64(
        apr_pstrmemdup(seen->w->pool, key->data + 3, key->len - 3));
    cachemw_id_t id = world_id((apr_uint64_t)i);

    assert_memory_equal(&entry->id, &id, sizeof(id));
    assert_int_equal(entry->body_len, i);
    assert_int_equal(entry->expires, seen->w->now + 3600 * SECOND);
    assert_null(entry->body);
    seen->count[i]++;
    /* Calls from within find no lock held. */
    assert_int_equal(world_get(seen->w, "/other", NULL), APR_NOTFOUND);
    return ++seen->total == seen->stop_after ? APR_EGENERAL : APR_SUCCESS;
}

static void test_keys_tells_each_entry_once(void **state)
{
    world_t *w = world_make(medium);
    seen_t seen;
    visit_t v;
    int i;

    (void)state;
    memset(&seen, 0, sizeof(seen));
    seen.w = w;
    for (i = 0; i < 1000; i++) {
        world_put(w, apr_psprintf(w->pool, "/k/%d", i), (apr_uint64_t)i,
                  (apr_uint64_t)i);
    }
    world_put_pieces(w, w->mem, world_key("/gone"), 1, 1, w->now, 1, 1);
    visit_begin(w, &v);
    assert_int_equal(PROVIDER->keys(w->mem, &v.call, NULL, see, &seen), 0);
    for (i = 0; i < 1000; i++) {
        assert_int_equal(seen.count[i], 1);
    }
    seen.total = 0;
    seen.stop_after = 7;
    assert_int_equal(PROVIDER->keys(w->mem, &v.call, NULL, see, &seen),
                     APR_EGENERAL);
    assert_int_equal(seen.total, 7);
    visit_end(&v);
    world_end(w);
}

static apr_status_t count_key(void *baton, const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    (void)entry;
    *(apr_size_t *)baton += key->len;
    return APR_SUCCESS;
}

/** More keys in one hash chain than keys() copies at once. */
static void test_keys_of_great_length_are_told(void **state)
{
    setting_t setting = { .size = 8 << 20, .shards = 1 };
    world_t *w = world_make(setting);
    char *data = apr_pcalloc(w->pool, CACHEMW_KEY_MAX);
    apr_size_t sum = 0;
    visit_t v;
    int i;

    (void)state;
    /* All in one chain: the hash of long keys is not known, so make it so. */
    w->mem->bucket_mask = 0;
    for (i = 0; i < 20; i++) {
        cachemw_key_t key = { data, CACHEMW_KEY_MAX };

        data[0] = (char)i;
        assert_int_equal(
            world_put_pieces(w, w->mem, key, 1, 10, w->now + SECOND, 10, 1), 0);
    }
    visit_begin(w, &v);
    assert_int_equal(PROVIDER->keys(w->mem, &v.call, NULL, count_key, &sum), 0);
    assert_int_equal(sum, 20 * CACHEMW_KEY_MAX);
    visit_end(&v);
    world_end(w);
}

static void test_clear_leaves_nothing(void **state)
{
    world_t *w = world_make(medium);
    int i;

    (void)state;
    for (i = 0; i < 500; i++) {
        world_put(w, apr_psprintf(w->pool, "/c/%d", i), 1, sizes[i % 10]);
    }
    world_clear(w);
    world_assert_empty(w);
    assert_int_equal(world_put(w, "/c/1", 1, 10), APR_SUCCESS);
    assert_int_equal(world_get(w, "/c/1", NULL), APR_SUCCESS);
    world_end(w);
}

static void test_entries_never_exceed_their_cap(void **state)
{
    setting_t setting = { .size = 4 << 20, .max_entries = 10 };
    world_t *w = world_make(setting);
    apr_uint64_t i;

    (void)state;
    for (i = 0; i < 300; i++) {
        assert_int_equal(
            world_put(w, apr_psprintf(w->pool, "/m/%d", (int)i), i, 10),
            APR_SUCCESS);
        assert_true(world_stats(w).entries <= 10);
        assert_int_equal(
            world_get(w, apr_psprintf(w->pool, "/m/%d", (int)i), NULL),
            APR_SUCCESS);
    }
    assert_int_equal(world_stats(w).entries, 10);
    assert_int_equal(world_stats(w).entries_max, 10);
    assert_int_equal(w->fake.counts[CACHEMW_COUNT_EVICTED], 290);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

static void test_stats_count_what_is_held(void **state)
{
    world_t *w = world_make(medium);
    cachemw_stats_t stats;

    (void)state;
    world_put(w, "/12345", 1, 1000);
    world_put(w, "/1234567", 2, 100000);
    stats = world_stats(w);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.bytes, 6 + 8 + 2 * HEAD_LEN + 101000);
    assert_int_equal(stats.bytes_max, 16 << 20);
    assert_int_equal(stats.entries_max, (16 << 20) / 512);
    world_put(w, "/12345", 3, 10);
    assert_int_equal(world_stats(w).bytes, 6 + 8 + 2 * HEAD_LEN + 100010);
    world_end(w);
}

static void test_two_generations_share_the_entries(void **state)
{
    world_t *w = world_make(medium);
    mw_mem_t *old = w->mem;
    apr_pool_t *pchild;
    mw_mem_t *new;

    (void)state;
    world_put(w, "/1", 1, 1000);
    world_put(w, "/2", 2, 100000);
    new = world_open(w, medium);
    apr_pool_create(&pchild, w->pool);
    assert_int_equal(PROVIDER->child_init(new, pchild), 0);
    assert_int_not_equal(old->owner, new->owner);
    assert_int_equal(world_get_from(w, new, world_key("/1"), NULL),
                     APR_SUCCESS);
    assert_int_equal(world_get_from(w, new, world_key("/2"), NULL),
                     APR_SUCCESS);
    assert_int_equal(world_put_pieces(w, new, world_key("/3"), 3, 5000,
                                      w->now + SECOND, 1000, 1),
                     APR_SUCCESS);
    assert_int_equal(world_get_from(w, old, world_key("/3"), NULL),
                     APR_SUCCESS);
    apr_pool_destroy(w->pchild);
    assert_int_equal(old->owner, 0);
    assert_int_equal(world_get_from(w, new, world_key("/2"), NULL),
                     APR_SUCCESS);
    w->mem = new;
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

static void test_another_size_means_another_segment(void **state)
{
    world_t *w = world_make(medium);
    setting_t sharded = { .size = 16 << 20, .shards = 32 };
    mw_mem_t *other;

    (void)state;
    world_put(w, "/1", 1, 1000);
    apr_pool_clear(w->pchild);
    other = world_open(w, sharded);
    assert_int_equal(world_get_from(w, other, world_key("/1"), NULL),
                     APR_NOTFOUND);
    w->mem = world_open(w, small);
    assert_int_equal(w->fake.size, 4 << 20);
    world_assert_empty(w);
    world_end(w);
}

static void test_a_kept_segment_that_is_not_ours_starts_empty(void **state)
{
    world_t *w = world_make(medium);

    (void)state;
    world_put(w, "/1", 1, 1000);
    apr_pool_clear(w->pchild);
    w->mem->header->magic ^= 1;
    w->mem = world_open(w, medium);
    world_assert_empty(w);
    assert_int_equal(PROVIDER->child_init(w->mem, w->pchild), 0);
    assert_int_equal(world_put(w, "/1", 2, 1000), APR_SUCCESS);
    assert_int_equal(world_get(w, "/1", NULL), APR_SUCCESS);
    world_end(w);
}

static void test_a_lower_cap_holds_after_a_restart(void **state)
{
    setting_t fewer = { .size = 16 << 20, .max_entries = 50 };
    world_t *w = world_make(medium);
    int i;

    (void)state;
    for (i = 0; i < 500; i++) {
        world_put(w, apr_psprintf(w->pool, "/c/%d", i), 1, 100);
    }
    world_open(w, fewer);
    world_sweep(w);
    assert_true(world_stats(w).entries <= 50);
    assert_true(world_stats(w).entries > 0);
    world_end(w);
}

/** Neither a visitor nor a step of the sweep evicts all of a million entries. */
static void test_a_lower_cap_is_reached_in_steps(void **state)
{
    enum { MANY = 5000 };
    setting_t fewer = { .size = 16 << 20, .max_entries = 50 };
    world_t *w = world_make(medium);
    int i;

    (void)state;
    for (i = 0; i < MANY; i++) {
        world_put(w, apr_psprintf(w->pool, "/c/%d", i), 1, 100);
    }
    assert_int_equal(world_stats(w).entries, MANY);
    world_open(w, fewer);
    assert_int_equal(world_put(w, "/more", 1, 100), APR_ENOSPC);
    assert_in_range(world_stats(w).entries, MANY / 2, MANY - 1);
    world_sweep(w);
    assert_in_range(world_stats(w).entries, 1, 50);
    assert_int_equal(world_put(w, "/more", 1, 100), APR_SUCCESS);
    world_end(w);
}

static void test_bad_options_are_explained(void **state)
{
    world_t *w = world_make(small);
    cachemw_value_t values[8];
    const char *error = NULL;
    void *store;

    (void)state;
    memset(values, 0, sizeof(values));
    values[0].number = 1 << 20;
    values[1].is_null = 1;
    values[2].is_null = 1;
    values[3].number = 12;
    assert_int_not_equal(
        PROVIDER->open(&w->fake.services, values, w->pool, &store, &error), 0);
    assert_non_null(strstr(error, "shards=12"));
    assert_non_null(strstr(error, "power of two"));
    world_end(w);
}

/** The part of the segment's pages that there is memory for. */
static double resident(const world_t *w)
{
    apr_size_t pages = w->fake.size / 4096;
    unsigned char *is_there = malloc(pages);
    apr_size_t n = 0;
    apr_size_t i;

    assert_int_equal(sysconf(_SC_PAGESIZE), 4096);
    assert_int_equal(mincore(w->fake.base, w->fake.size, is_there), 0);
    for (i = 0; i < pages; i++) {
        n += is_there[i] & 1;
    }
    free(is_there);
    return (double)n / (double)pages;
}

static void test_memory_is_touched_at_start_only_when_asked_for(void **state)
{
    setting_t lazy = { .size = APR_INT64_C(1) << 30 };
    setting_t eager = { .size = 64 << 20, .prefault = 1 };
    world_t *w = world_make(lazy);

    (void)state;
    assert_true(resident(w) < 0.01);
    world_end(w);
    w = world_make(eager);
    assert_true(resident(w) == 1.0);
    assert_int_equal(world_put(w, "/p", 1, 100000), APR_SUCCESS);
    assert_int_equal(world_get(w, "/p", NULL), APR_SUCCESS);
    world_end(w);
}

/** All parts lie in the segment, and most of it is for entries. */
static void assert_plan(apr_uint64_t size, apr_uint32_t shards)
{
    mw_mem_geometry_t g;
    mw_mem_t mem;
    char *base = (char *)(apr_uintptr_t)4096;

    mw_mem_plan(&g, size, shards);
    memset(&mem, 0, sizeof(mem));
    mem.geometry = g;
    mw_mem_map(&mem, base);
    assert_true((apr_uint64_t)(mem.units - base)
                    + ((apr_uint64_t)g.units << g.unit_shift)
                <= size);
    assert_true((apr_uint64_t)(mem.units - (char *)mem.touched) * 64 * 64
                >= g.units / 8);
    assert_true((apr_uint64_t)((char *)mem.marks - (char *)mem.taken)
                >= g.units / 8);
    assert_true(((apr_uint64_t)g.units << g.unit_shift) > size - size / 8);
    assert_true(g.buckets / g.shards >= 16);
    assert_true((apr_uint64_t)g.areas << g.area_shift >= g.units);
    assert_true((apr_uint64_t)(g.areas - 1) << g.area_shift < g.units);
}

static void test_any_size_has_a_plan(void **state)
{
    apr_uint64_t size;

    (void)state;
    for (size = 1 << 20; size <= APR_INT64_C(1) << 40; size += size / 7) {
        assert_plan(size, 0);
        assert_plan(size, 1);
        assert_plan(size, 256);
    }
    assert_plan(APR_UINT64_C(1) << 37, 0);
    assert_plan(APR_UINT64_C(1) << 40, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_gives_what_was_set),
        cmocka_unit_test(test_pieces_of_any_size_make_the_body),
        cmocka_unit_test(test_unused_space_taken_in_advance_is_given_back),
        cmocka_unit_test(test_nothing_is_readable_before_the_commit),
        cmocka_unit_test(
            test_a_body_of_another_length_than_announced_is_refused),
        cmocka_unit_test(test_keys_are_any_bytes),
        cmocka_unit_test(test_a_hash_collision_is_never_served),
        cmocka_unit_test(test_a_set_replaces_what_the_key_had),
        cmocka_unit_test(test_remove_obeys_the_id),
        cmocka_unit_test(test_objects_up_to_a_quarter_fit),
        cmocka_unit_test(test_set_head_keeps_id_and_body),
        cmocka_unit_test(test_expired_entries_are_never_given),
        cmocka_unit_test(test_expired_entries_go_without_traffic),
        cmocka_unit_test(test_sweep_goes_in_steps),
        cmocka_unit_test(test_expired_entries_go_with_stores_alone),
        cmocka_unit_test(test_keys_tells_each_entry_once),
        cmocka_unit_test(test_keys_of_great_length_are_told),
        cmocka_unit_test(test_clear_leaves_nothing),
        cmocka_unit_test(test_entries_never_exceed_their_cap),
        cmocka_unit_test(test_stats_count_what_is_held),
        cmocka_unit_test(test_two_generations_share_the_entries),
        cmocka_unit_test(test_another_size_means_another_segment),
        cmocka_unit_test(test_a_kept_segment_that_is_not_ours_starts_empty),
        cmocka_unit_test(test_a_lower_cap_holds_after_a_restart),
        cmocka_unit_test(test_a_lower_cap_is_reached_in_steps),
        cmocka_unit_test(test_bad_options_are_explained),
        cmocka_unit_test(test_memory_is_touched_at_start_only_when_asked_for),
        cmocka_unit_test(test_any_size_has_a_plan),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
