/* SPDX-License-Identifier: Apache-2.0 */

/* Threads of one process, which the thread sanitizer can see. */

#include <pthread.h>
#include <sys/mman.h>

#include "memory_hammer.h"

#define THREADS 4

static world_t *the_world;
static hammer_t *the_hammer;

static void *hammer_run(void *data)
{
    apr_uint64_t random = (apr_uint64_t)(apr_uintptr_t)data * 7919 + 1;

    while (!MW_MEM_LOAD(&the_hammer->stop)) {
        hammer_once(the_world, the_hammer, &random);
    }
    return NULL;
}

/** Until so many bodies were verified. */
static void hammer_all(setting_t setting, apr_uint64_t hits)
{
    pthread_t thread[THREADS];
    hammer_t *h = shared_make(sizeof(*h));
    apr_uintptr_t i;

    the_world = world_make(setting);
    the_hammer = h;
    for (i = 0; i < THREADS; i++) {
        assert_int_equal(
            pthread_create(&thread[i], NULL, hammer_run, (void *)(i + 1)), 0);
    }
    while (MW_MEM_LOAD(&h->hits) < hits && !MW_MEM_LOAD(&h->wrong)) {
        apr_sleep(1000);
    }
    __atomic_store_n(&h->stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    hammer_assert(h);
    assert_int_equal(the_world->mem->header->recovered, 0);
    world_clear(the_world);
    world_sweep(the_world);
    world_assert_empty(the_world);
    assert_int_equal(the_world->mem->header->collection.freed, 0);
    world_end(the_world);
    munmap(h, sizeof(*h));
}

/** Everything fits: replacing, amending and removing race with reading. */
static void test_threads_see_whole_entries(void **state)
{
    setting_t setting = { .size = 32 << 20 };

    (void)state;
    hammer_all(setting, 20000);
}

/** Hardly anything fits: eviction races with everything. */
static void test_threads_see_whole_entries_when_it_is_tight(void **state)
{
    setting_t setting = { .size = 1 << 20, .max_entries = 100 };

    (void)state;
    hammer_all(setting, 5000);
}

static void *collect_run(void *data)
{
    while (!MW_MEM_LOAD(&the_hammer->stop)) {
        mw_mem_want_collection(the_world->mem);
        while (mw_collect_step(the_world->mem)) {
        }
    }
    return data;
}

/** Collections that never end find nothing, for nothing was left behind. */
static void test_a_collection_takes_nothing_that_is_used(void **state)
{
    setting_t setting = { .size = 2 << 20 };
    const mw_mem_collection_t *collection;
    pthread_t thread[THREADS];
    pthread_t collector;
    hammer_t *h = shared_make(sizeof(*h));
    apr_uintptr_t i;

    (void)state;
    the_world = world_make(setting);
    the_hammer = h;
    collection = &the_world->mem->header->collection;
    assert_int_equal(pthread_create(&collector, NULL, collect_run, NULL), 0);
    for (i = 0; i < THREADS; i++) {
        pthread_create(&thread[i], NULL, hammer_run, (void *)(i + 1));
    }
    while (
        (MW_MEM_LOAD(&h->hits) < 10000 || MW_MEM_LOAD(&collection->served) <= 3)
        && !MW_MEM_LOAD(&h->wrong)) {
        apr_sleep(1000);
    }
    __atomic_store_n(&h->stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    pthread_join(collector, NULL);
    hammer_assert(h);
    assert_int_equal(collection->freed, 0);
    world_clear(the_world);
    world_sweep(the_world);
    world_assert_empty(the_world);
    world_end(the_world);
    munmap(h, sizeof(*h));
}

#define AMENDED_MAX 3000
#define AMENDMENTS 100000

static void *read_heads(void *data)
{
    cachemw_key_t key = world_key("/amended");

    while (!MW_MEM_LOAD(&the_hammer->stop)) {
        visit_t v;

        visit_begin(the_world, &v);
        if (PROVIDER->get(the_world->mem, &v.call, &key, &v.entry)
            == APR_SUCCESS) {
            MW_MEM_ADD(&the_hammer->hits, 1);
            if (!head_verify(v.entry.head, 1, v.entry.head_len)
                || v.entry.expires
                       != the_world->now + (apr_time_t)v.entry.head_len) {
                MW_MEM_ADD(&the_hammer->wrong, 1);
            }
        }
        visit_end(&v);
    }
    return data;
}

/** Give /amended a head of this length, and an expiry that tells it. */
static apr_status_t amend(apr_size_t length)
{
    cachemw_key_t key = world_key("/amended");
    cachemw_id_t id = world_id(1);
    char head[AMENDED_MAX + 1000];
    apr_status_t rv;
    visit_t v;

    visit_begin(the_world, &v);
    head_fill(head, 1, length);
    v.entry.head = head;
    v.entry.head_len = length;
    v.entry.expires = the_world->now + (apr_time_t)length;
    rv = PROVIDER->set_head(the_world->mem, &v.call, &key, &id, &v.entry);
    visit_end(&v);
    return rv;
}

static void put_amended(void)
{
    cachemw_key_t key = world_key("/amended");
    char head[AMENDED_MAX];
    visit_t v;
    void *set;

    visit_begin(the_world, &v);
    head_fill(head, 1, AMENDED_MAX);
    v.entry.id = world_id(1);
    v.entry.head = head;
    v.entry.head_len = AMENDED_MAX;
    v.entry.expires = the_world->now + AMENDED_MAX;
    assert_int_equal(
        PROVIDER->set_begin(the_world->mem, &v.call, &key, &v.entry, &set),
        APR_SUCCESS);
    assert_int_equal(PROVIDER->set_commit(the_world->mem, &v.call, set),
                     APR_SUCCESS);
    visit_end(&v);
}

/** Written over in place, or replaced by a longer one: old or new, all of it. */
static void test_readers_see_the_old_head_or_the_new(void **state)
{
    setting_t setting = { .size = 2 << 20 };
    pthread_t thread[2];
    int i;

    (void)state;
    the_world = world_make(setting);
    the_hammer = shared_make(sizeof(*the_hammer));
    put_amended();
    for (i = 0; i < 2; i++) {
        pthread_create(&thread[i], NULL, read_heads, NULL);
    }
    for (i = 0; i < AMENDMENTS && !MW_MEM_LOAD(&the_hammer->wrong); i++) {
        if (i % 1000 == 999) {
            assert_int_equal(amend(AMENDED_MAX + 500), APR_SUCCESS);
            put_amended();
        }
        assert_int_equal(amend(HEAD_LEN + (apr_size_t)(i * 7 % 100)), 0);
    }
    MW_MEM_STORE(&the_hammer->stop, 1);
    for (i = 0; i < 2; i++) {
        pthread_join(thread[i], NULL);
    }
    assert_true(the_hammer->hits > 0);
    assert_int_equal(the_hammer->wrong, 0);
    world_end(the_world);
    munmap(the_hammer, sizeof(*the_hammer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_see_whole_entries),
        cmocka_unit_test(test_threads_see_whole_entries_when_it_is_tight),
        cmocka_unit_test(test_a_collection_takes_nothing_that_is_used),
        cmocka_unit_test(test_readers_see_the_old_head_or_the_new),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
