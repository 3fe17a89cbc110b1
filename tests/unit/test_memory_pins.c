/* SPDX-License-Identifier: Apache-2.0 */

/* Large bodies are sent from the segment: what may happen to them meanwhile. */

#include <pthread.h>

#include "memory_world.h"

static const setting_t medium = { .size = 16 << 20 };

#define LARGE 300000

/** A body that was asked for and is still being sent. */
typedef struct sending_t {
    apr_pool_t *pool;
    apr_bucket_brigade *body;
    apr_off_t length;
} sending_t;

static apr_status_t send_begin(world_t *w, const char *name, sending_t *s)
{
    cachemw_key_t key = world_key(name);
    apr_status_t rv;
    visit_t v;

    /* The brigade outlives the call's pool. */
    visit_begin(w, &v);
    apr_pool_create(&s->pool, NULL);
    s->body = apr_brigade_create(s->pool, apr_bucket_alloc_create(s->pool));
    v.entry.body = s->body;
    rv = PROVIDER->get(w->mem, &v.call, &key, &v.entry);
    s->length = v.entry.body_len;
    visit_end(&v);
    return rv;
}

static void send_end(sending_t *s)
{
    apr_brigade_destroy(s->body);
    apr_pool_destroy(s->pool);
}

static apr_uint64_t pinned(world_t *w)
{
    apr_uint64_t bytes = 0;
    apr_uint32_t i;

    for (i = 0; i < w->mem->geometry.shards; i++) {
        bytes += w->mem->tallies[i].pinned;
    }
    return bytes;
}

static void test_large_bodies_are_sent_from_the_segment(void **state)
{
    world_t *w = world_make(medium);
    const char *data;
    sending_t s;
    apr_size_t n;

    (void)state;
    world_put(w, "/small", 1, CACHEMW_PIECE_MAX);
    assert_int_equal(send_begin(w, "/small", &s), APR_SUCCESS);
    assert_int_equal(pinned(w), 0);
    send_end(&s);
    world_put(w, "/large", 1, LARGE);
    assert_int_equal(send_begin(w, "/large", &s), APR_SUCCESS);
    assert_int_equal(pinned(w), LARGE);
    apr_bucket_read(APR_BRIGADE_FIRST(s.body), &data, &n, APR_BLOCK_READ);
    assert_true(data > w->mem->units
                && data < (char *)w->fake.base + w->fake.size);
    assert_int_equal(body_verify(s.body, 1), LARGE);
    send_end(&s);
    assert_int_equal(pinned(w), 0);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

static void change_replace(world_t *w)
{
    assert_int_equal(world_put(w, "/x", 2, LARGE), APR_SUCCESS);
}

static void change_remove(world_t *w)
{
    assert_int_equal(world_remove(w, "/x", NULL), APR_SUCCESS);
}

static void change_clear(world_t *w)
{
    world_clear(w);
}

static void change_expire(world_t *w)
{
    w->now += 3600 * SECOND;
    world_sweep(w);
}

static void change_amend(world_t *w)
{
    cachemw_key_t key = world_key("/x");
    cachemw_id_t id = world_id(1);
    char head[5000] = "";
    visit_t v;

    visit_begin(w, &v);
    v.entry.head = head;
    v.entry.head_len = sizeof(head);
    v.entry.expires = w->now + SECOND;
    assert_int_equal(PROVIDER->set_head(w->mem, &v.call, &key, &id, &v.entry),
                     0);
    visit_end(&v);
}

static void *lock_and_die(void *baton)
{
    world_t *w = baton;
    cachemw_key_t key = world_key("/x");

    assert_true(mw_shard_lock(
        w->mem, mw_mem_shard_of(w->mem, mw_mem_hash(w->mem, &key))));
    return NULL;
}

/* The holder of the shard's lock has died: a thread is enough for that. */
static void change_wipe(world_t *w)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, lock_and_die, w), 0);
    pthread_join(thread, NULL);
    world_remove(w, "/x", NULL);
    assert_int_equal(w->mem->header->recovered, 1);
    world_sweep(w);
}

/** Whatever becomes of the entry, the body that is being sent stays. */
static void test_a_body_being_sent_survives(void **state)
{
    static void (*const change[])(world_t *) = {
        change_replace, change_remove, change_clear,
        change_expire,  change_amend,  change_wipe,
    };
    apr_size_t i;

    (void)state;
    for (i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
        world_t *w = world_make(medium);
        sending_t s;
        int n;

        world_put(w, "/x", 1, LARGE);
        assert_int_equal(send_begin(w, "/x", &s), APR_SUCCESS);
        change[i](w);
        for (n = 0; n < 200; n++) {
            assert_int_equal(
                world_put(w, apr_psprintf(w->pool, "/flood/%d", n), 9, 200000),
                0);
        }
        world_sweep(w);
        assert_int_equal(body_verify(s.body, 1), LARGE);
        send_end(&s);
        world_clear(w);
        world_sweep(w);
        world_assert_empty(w);
        world_end(w);
    }
}

static void test_what_is_being_sent_is_not_evicted(void **state)
{
    world_t *w = world_make(medium);
    sending_t s;
    int i;

    (void)state;
    world_put(w, "/x", 1, LARGE);
    assert_int_equal(send_begin(w, "/x", &s), APR_SUCCESS);
    for (i = 0; i < 300; i++) {
        world_put(w, apr_psprintf(w->pool, "/flood/%d", i), 9, 100000);
    }
    assert_int_equal(world_get(w, "/x", NULL), APR_SUCCESS);
    send_end(&s);
    world_end(w);
}

static void test_buckets_can_be_split_copied_and_set_aside(void **state)
{
    world_t *w = world_make(medium);
    apr_bucket_brigade *rest;
    apr_bucket *copy;
    apr_bucket *e;
    sending_t s;

    (void)state;
    world_put(w, "/x", 1, LARGE);
    assert_int_equal(send_begin(w, "/x", &s), APR_SUCCESS);
    assert_int_equal(apr_brigade_partition(s.body, 100001, &e), APR_SUCCESS);
    rest = apr_brigade_split(s.body, e);
    assert_int_equal(body_verify(s.body, 1), 100001);
    e = APR_BRIGADE_FIRST(rest);
    assert_int_equal(apr_bucket_copy(e, &copy), APR_SUCCESS);
    assert_int_equal(apr_bucket_setaside(copy, s.pool), APR_SUCCESS);
    world_remove(w, "/x", NULL);
    apr_brigade_cleanup(s.body);
    apr_brigade_destroy(rest);
    assert_int_equal(pinned(w), LARGE);
    APR_BRIGADE_INSERT_TAIL(s.body, copy);
    assert_true(copy->length > 1000);
    assert_int_equal(body_verify_at(s.body, 1, 100001), copy->length);
    send_end(&s);
    world_assert_empty(w);
    world_end(w);
}

static void *destroy_elsewhere(void *data)
{
    send_end(data);
    return NULL;
}

static void test_buckets_may_end_in_another_thread(void **state)
{
    world_t *w = world_make(medium);
    pthread_t thread;
    sending_t s;

    (void)state;
    world_put(w, "/x", 1, LARGE);
    assert_int_equal(send_begin(w, "/x", &s), APR_SUCCESS);
    world_remove(w, "/x", NULL);
    assert_int_equal(pthread_create(&thread, NULL, destroy_elsewhere, &s), 0);
    pthread_join(thread, NULL);
    world_assert_empty(w);
    world_end(w);
}

/** Half of the space at most is held by readers; the others get copies. */
static void test_pinned_bytes_have_a_cap(void **state)
{
    world_t *w = world_make(medium);
    sending_t s[12];
    int i;

    (void)state;
    for (i = 0; i < 12; i++) {
        const char *key = apr_psprintf(w->pool, "/cap/%d", i);

        assert_int_equal(world_put(w, key, (apr_uint64_t)i, 900000),
                         APR_SUCCESS);
        assert_int_equal(send_begin(w, key, &s[i]), APR_SUCCESS);
        assert_int_equal(s[i].length, 900000);
        assert_true(pinned(w) <= w->fake.size / 2);
    }
    assert_int_equal(pinned(w), 9 * 900000);
    assert_int_equal(w->mem->spilled, 3 * 900000);
    world_clear(w);
    for (i = 0; i < 30; i++) {
        world_put(w, apr_psprintf(w->pool, "/flood/%d", i), 99, 900000);
    }
    for (i = 0; i < 12; i++) {
        assert_int_equal(body_verify(s[i].body, (apr_uint64_t)i), 900000);
        send_end(&s[i]);
    }
    assert_int_equal(pinned(w), 0);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

/** Copies that stand in for pins are bounded: beyond it is a plain miss. */
static void test_copies_have_a_cap(void **state)
{
    world_t *w = world_make(medium);
    sending_t s[30];
    int copies = 0;
    int i;

    (void)state;
    for (i = 0; i < 10; i++) {
        world_put(w, apr_psprintf(w->pool, "/%d", i), (apr_uint64_t)i, 900000);
    }
    for (i = 0; i < 30; i++) {
        int n = i < 9 ? i : 9;
        apr_status_t rv = send_begin(w, apr_psprintf(w->pool, "/%d", n), &s[i]);

        copies += i >= 9 && rv == APR_SUCCESS;
        assert_true(w->mem->spilled <= w->fake.size);
        assert_int_equal(rv, i < 27 ? APR_SUCCESS : APR_NOTFOUND);
    }
    assert_int_equal(copies, 18);
    /* A reader of what is pinned already costs nothing. */
    send_end(&s[29]);
    assert_int_equal(send_begin(w, "/3", &s[29]), APR_SUCCESS);
    for (i = 0; i < 30; i++) {
        if (i < 27) {
            assert_int_equal(body_verify(s[i].body, i < 9 ? i : 9), 900000);
        }
        send_end(&s[i]);
    }
    assert_int_equal(w->mem->spilled, 0);
    assert_int_equal(world_get(w, "/9", NULL), APR_SUCCESS);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

/** One body sent to many counts once. */
static void test_readers_of_one_body_share_the_cap(void **state)
{
    world_t *w = world_make(medium);
    sending_t s[50];
    int i;

    (void)state;
    world_put(w, "/hot", 1, 3000000);
    for (i = 0; i < 50; i++) {
        assert_int_equal(send_begin(w, "/hot", &s[i]), APR_SUCCESS);
    }
    assert_int_equal(pinned(w), 3000000);
    world_put(w, "/hot", 2, 10);
    for (i = 0; i < 50; i++) {
        assert_int_equal(body_verify(s[i].body, 1), 3000000);
        send_end(&s[i]);
    }
    assert_int_equal(pinned(w), 0);
    world_end(w);
}

static void test_without_a_slot_bodies_are_copied(void **state)
{
    static const apr_uint64_t sizes[] = { 65537, 1 << 20, (1 << 20) + 1,
                                          3000000 };
    world_t *w = world_make(medium);
    apr_size_t i;

    (void)state;
    for (i = 0; i < 4; i++) {
        world_put(w, apr_psprintf(w->pool, "/%d", (int)i), i, sizes[i]);
    }
    apr_pool_clear(w->pchild);
    assert_int_equal(w->mem->owner, 0);
    for (i = 0; i < 4; i++) {
        const char *key = apr_psprintf(w->pool, "/%d", (int)i);
        apr_bucket *e;
        sending_t s;

        assert_int_equal(send_begin(w, key, &s), APR_SUCCESS);
        assert_int_equal(pinned(w), 0);
        assert_int_equal(apr_brigade_partition(s.body, 60000, &e), 0);
        world_remove(w, key, NULL);
        assert_int_equal(w->mem->spilled, sizes[i]);
        assert_int_equal(body_verify(s.body, i), sizes[i]);
        send_end(&s);
        assert_int_equal(w->mem->spilled, 0);
    }
    assert_int_equal(world_put(w, "/no", 1, 1), APR_ENOSPC);
    world_assert_empty(w);
    world_end(w);
}

/** A temporary file in whose making the entry's shard is emptied. */
static world_t *wiped;
static mw_mem_t *wiped_other;
static apr_uint32_t wiped_area;

/** A key whose set begins in the area of the entry's first run. */
static cachemw_key_t key_for_area(apr_pool_t *pool)
{
    cachemw_key_t key;
    int i = 0;

    do {
        key = world_key(apr_psprintf(pool, "/there/%d", i++));
    } while ((apr_uint32_t)(mw_mem_hash(wiped->mem, &key) >> 8)
                 % wiped->mem->geometry.areas
             != wiped_area);
    return key;
}

static apr_status_t wipe_and_make_file(const cachemw_services_t *services,
                                       apr_file_t **file, apr_pool_t *pool)
{
    (void)services;
    change_wipe(wiped);
    /* From above: it falls on the end of the run, not on the record. */
    assert_int_equal(world_put_pieces(wiped, wiped_other, key_for_area(pool), 9,
                                      100000, wiped->now + SECOND, 100000, 1),
                     APR_SUCCESS);
    return apr_file_mktemp(file, shared_temp("pins", pool), 0, pool);
}

/** What is copied without a lock is not taken for the entry's afterwards. */
static void test_a_copy_of_an_emptied_shard_is_a_miss(void **state)
{
    world_t *w = world_make(medium);
    cachemw_key_t key = world_key("/x");
    apr_pool_t *pchild;
    sending_t s;

    (void)state;
    wiped = w;
    world_put(w, "/x", 1, 2000000);
    wiped_area = mw_shard_find(w->mem, mw_mem_hash(w->mem, &key), &key)
                 >> w->mem->geometry.area_shift;
    wiped_other = world_open(w, medium);
    apr_pool_create(&pchild, w->pool);
    PROVIDER->child_init(wiped_other, pchild);
    apr_pool_clear(w->pchild);
    w->fake.services.temp_file = wipe_and_make_file;
    assert_int_equal(send_begin(w, "/x", &s), APR_NOTFOUND);
    assert_true(APR_BRIGADE_EMPTY(s.body));
    send_end(&s);
    world_end(w);
}

static void test_more_children_than_slots_go_without(void **state)
{
    setting_t tiny = { .size = 1 << 20 };
    world_t *w = world_make(tiny);
    apr_uint32_t slots = w->mem->geometry.slots;
    mw_mem_t **child = apr_pcalloc(w->pool, (slots + 1) * sizeof(*child));
    apr_pool_t *pchild;
    apr_uint32_t i;

    (void)state;
    apr_pool_create(&pchild, w->pool);
    for (i = 1; i <= slots; i++) {
        child[i] = world_open(w, tiny);
        assert_int_equal(PROVIDER->child_init(child[i], pchild), 0);
        assert_int_equal(child[i]->owner, i < slots ? i + 1 : 0);
    }
    world_put(w, "/1", 1, 70000);
    assert_int_equal(world_get_from(w, child[slots], world_key("/1"), NULL), 0);
    apr_pool_clear(pchild);
    assert_int_equal(PROVIDER->child_init(child[slots], pchild), 0);
    assert_int_equal(child[slots]->owner, 2);
    world_end(w);
}

static int count_buckets(const apr_bucket_brigade *body)
{
    apr_bucket *e;
    int n = 0;

    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        n++;
    }
    return n;
}

/** A body of announced length is one bucket, if only the space allows it. */
static void test_a_large_body_is_one_bucket(void **state)
{
    static const apr_uint64_t length[] = { 102400, 1 << 20, 1900000 };
    setting_t roomy = { .size = 64 << 20 };
    world_t *w = world_make(roomy);
    sending_t s;
    int i;

    (void)state;
    for (i = 0; i < 3; i++) {
        assert_int_equal(world_put(w, "/whole", 5, length[i]), APR_SUCCESS);
        assert_int_equal(send_begin(w, "/whole", &s), APR_SUCCESS);
        assert_int_equal(count_buckets(s.body), 1);
        assert_int_equal(body_verify(s.body, 5), length[i]);
        send_end(&s);
    }
    world_end(w);
}

/** Of the gaps at hand the one is taken that holds the whole body. */
static void test_a_large_body_passes_by_short_gaps(void **state)
{
    world_t *w = world_make(medium);
    sending_t s;
    int i;

    (void)state;
    for (i = 0; i < 20; i++) {
        world_put(w, apr_psprintf(w->pool, "/hole/%d", i), 1, 20000);
    }
    for (i = 0; i < 20; i += 2) {
        world_remove(w, apr_psprintf(w->pool, "/hole/%d", i), NULL);
    }
    assert_int_equal(world_put(w, "/whole", 5, 400000), APR_SUCCESS);
    assert_int_equal(send_begin(w, "/whole", &s), APR_SUCCESS);
    assert_int_equal(count_buckets(s.body), 1);
    assert_int_equal(body_verify(s.body, 5), 400000);
    send_end(&s);
    world_end(w);
}

/** In a segment of crumbs a body is gathered, not sent in a thousand pieces. */
static void test_short_runs_are_gathered(void **state)
{
    world_t *w = world_make(medium);
    sending_t s;
    int i;

    (void)state;
    for (i = 0; i < 20000; i++) {
        world_put(w, apr_psprintf(w->pool, "/crumb/%d", i), 1, 300);
    }
    for (i = 0; i < 20000; i += 2) {
        world_remove(w, apr_psprintf(w->pool, "/crumb/%d", i), NULL);
    }
    assert_int_equal(world_put(w, "/x", 5, 2000000), APR_SUCCESS);
    assert_int_equal(send_begin(w, "/x", &s), APR_SUCCESS);
    assert_true(count_buckets(s.body) <= 2000000 / 4096);
    assert_int_equal(body_verify(s.body, 5), 2000000);
    send_end(&s);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_bodies_are_sent_from_the_segment),
        cmocka_unit_test(test_a_body_being_sent_survives),
        cmocka_unit_test(test_what_is_being_sent_is_not_evicted),
        cmocka_unit_test(test_buckets_can_be_split_copied_and_set_aside),
        cmocka_unit_test(test_buckets_may_end_in_another_thread),
        cmocka_unit_test(test_pinned_bytes_have_a_cap),
        cmocka_unit_test(test_copies_have_a_cap),
        cmocka_unit_test(test_readers_of_one_body_share_the_cap),
        cmocka_unit_test(test_without_a_slot_bodies_are_copied),
        cmocka_unit_test(test_a_copy_of_an_emptied_shard_is_a_miss),
        cmocka_unit_test(test_more_children_than_slots_go_without),
        cmocka_unit_test(test_a_large_body_is_one_bucket),
        cmocka_unit_test(test_a_large_body_passes_by_short_gaps),
        cmocka_unit_test(test_short_runs_are_gathered),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
