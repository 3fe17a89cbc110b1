/* SPDX-License-Identifier: Apache-2.0 */

/* Threads of one process, which the thread sanitizer can see. */

#include <pthread.h>

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
    hammer_t *h = world_map(sizeof(*h));
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
    assert_int_equal(h->wrong, 0);
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
    pthread_t thread[THREADS];
    pthread_t collector;
    hammer_t *h = world_map(sizeof(*h));
    apr_uintptr_t i;

    (void)state;
    the_world = world_make(setting);
    the_hammer = h;
    assert_int_equal(pthread_create(&collector, NULL, collect_run, NULL), 0);
    for (i = 0; i < THREADS; i++) {
        pthread_create(&thread[i], NULL, hammer_run, (void *)(i + 1));
    }
    while (MW_MEM_LOAD(&h->hits) < 10000 && !MW_MEM_LOAD(&h->wrong)) {
        apr_sleep(1000);
    }
    __atomic_store_n(&h->stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    pthread_join(collector, NULL);
    assert_int_equal(h->wrong, 0);
    assert_true(the_world->mem->header->collection.served > 3);
    assert_int_equal(the_world->mem->header->collection.freed, 0);
    world_clear(the_world);
    world_sweep(the_world);
    world_assert_empty(the_world);
    world_end(the_world);
    munmap(h, sizeof(*h));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_see_whole_entries),
        cmocka_unit_test(test_threads_see_whole_entries_when_it_is_tight),
        cmocka_unit_test(test_a_collection_takes_nothing_that_is_used),
    };

    return cmocka_run_group_tests(tests, world_group_begin, world_group_end);
}
