/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Children that die at any instant: nothing is wedged, lost for good or mixed
 * up. MEMORY_KILLS=N makes the random part N rounds long.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory_hammer.h"

static const setting_t small = { .size = 2 << 20 };

/** In a child: become one of the store's. */
static void child_begin(world_t *w)
{
    apr_pool_t *pchild;

    apr_pool_create(&pchild, NULL);
    if (PROVIDER->child_init(w->mem, pchild) != APR_SUCCESS) {
        _exit(2);
    }
}

/** Run something in a child that dies in the middle of it. */
static void in_dying_child(world_t *w, void (*run)(world_t *w))
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        child_begin(w);
        run(w);
        raise(SIGKILL);
    }
    child_await_kill(pid);
}

static apr_uint32_t shard_of(world_t *w, const char *name)
{
    cachemw_key_t key = world_key(name);

    return mw_mem_shard_of(w->mem, mw_mem_hash(w->mem, &key));
}

static void assert_usable_and_empty_after_clear(world_t *w)
{
    char name[32];
    int i;

    for (i = 0; i < 300; i++) {
        apr_snprintf(name, sizeof(name), "/after/%d", i);
        assert_int_equal(world_put(w, name, (apr_uint64_t)i, 20000),
                         APR_SUCCESS);
        assert_int_equal(world_get(w, name, NULL), APR_SUCCESS);
    }
    world_sweep(w);
    world_clear(w);
    world_sweep(w);
    world_assert_empty(w);
}

static void die_with_a_shard(world_t *w)
{
    mw_shard_lock(w->mem, shard_of(w, "/mine"));
}

static void test_a_lock_left_by_the_dead_empties_its_shard_only(void **state)
{
    world_t *w = world_make(small);
    int others = 0;
    char name[32];
    int i;

    (void)state;
    world_put(w, "/mine", 1, 1000);
    for (i = 0; i < 100; i++) {
        apr_snprintf(name, sizeof(name), "/other/%d", i);
        world_put(w, name, 1, 1000);
        others += shard_of(w, name) != shard_of(w, "/mine");
    }
    in_dying_child(w, die_with_a_shard);
    /* Hits need no lock; whoever does finds out. */
    assert_int_equal(world_get(w, "/mine", NULL), APR_SUCCESS);
    assert_true(mw_shard_lock(w->mem, shard_of(w, "/mine")));
    mw_shard_unlock(w->mem, shard_of(w, "/mine"));
    assert_int_equal(world_get(w, "/mine", NULL), APR_NOTFOUND);
    assert_int_equal(w->mem->header->recovered, 1);
    assert_int_equal(w->fake.counts[CACHEMW_COUNT_RECOVERED], 1);
    assert_int_equal(world_stats(w).entries, others);
    for (i = 0; i < 100; i++) {
        apr_snprintf(name, sizeof(name), "/other/%d", i);
        assert_int_equal(world_get(w, name, NULL),
                         shard_of(w, name) == shard_of(w, "/mine")
                             ? APR_NOTFOUND
                             : APR_SUCCESS);
    }
    world_sweep(w);
    assert_true(w->mem->header->collection.freed > 0);
    assert_int_equal(mw_blocks_total(w->mem) - mw_blocks_free(w->mem),
                     world_units(w, MW_MEM_SMALL)
                         + world_units(w, MW_MEM_MAIN));
    assert_usable_and_empty_after_clear(w);
    world_end(w);
}

/** In the middle of linking: everything in the shard points anywhere. */
static void die_and_scribble(world_t *w)
{
    mw_mem_t *mem = w->mem;
    apr_uint32_t index = shard_of(w, "/mine");
    apr_uint32_t i;

    mw_shard_lock(mem, index);
    for (i = 0; i < mem->buckets_each; i++) {
        apr_uint32_t unit = mem->buckets[index * mem->buckets_each + i];

        if (unit) {
            mw_mem_entry(mem, unit)->hash_next = 0xfffffff0;
            mw_mem_entry(mem, unit)->older = unit;
            mw_mem_entry(mem, unit)->units = 0xffffffff;
        }
        mem->buckets[index * mem->buckets_each + i] = 0xffffff00 + i;
    }
    mem->shards[index].queue[0].oldest = 0xfffffffe;
    mem->tallies[index].entries += 1000;
}

static void test_a_shard_left_in_disorder_is_emptied(void **state)
{
    world_t *w = world_make(small);
    char name[32];
    int i;

    (void)state;
    for (i = 0; i < 200; i++) {
        apr_snprintf(name, sizeof(name), "/x/%d", i);
        world_put(w, name, 1, 1000);
    }
    world_put(w, "/mine", 1, 1000);
    in_dying_child(w, die_and_scribble);
    assert_int_equal(world_get(w, "/mine", NULL), APR_NOTFOUND);
    assert_usable_and_empty_after_clear(w);
    world_end(w);
}

static void die_with_an_area(world_t *w)
{
    mw_mem_t *mem = w->mem;
    mw_chain_t chain = { .area = 0 };
    apr_uint32_t i;

    chain.claim = mw_claim_take(mem, mem->sets, mem->geometry.sets);
    mw_blocks_take(mem, &chain, 1, 100);
    for (i = 0; i < mem->geometry.areas; i++) {
        mw_blocks_lock_area(mem, i);
    }
    /* Bits set, and nothing that is derived from them. */
    mem->taken[10] = ~APR_UINT64_C(0);
    mem->taken[11] |= 0xff00;
    mem->areas[0].free = 12345678;
    mem->full[0] = 0x5555;
    mem->touched[0] = 0xaaaa;
}

static void test_an_area_left_in_disorder_is_derived_again(void **state)
{
    world_t *w = world_make(small);
    char name[32];
    int i;

    (void)state;
    for (i = 0; i < 30; i++) {
        apr_snprintf(name, sizeof(name), "/x/%d", i);
        world_put(w, name, (apr_uint64_t)i, 10000);
    }
    in_dying_child(w, die_with_an_area);
    assert_int_equal(world_put(w, "/y", 99, 200000), APR_SUCCESS);
    for (i = 0; i < 30; i++) {
        apr_snprintf(name, sizeof(name), "/x/%d", i);
        assert_int_equal(world_get(w, name, NULL), APR_SUCCESS);
    }
    assert_true(w->mem->header->recovered > 0);
    assert_usable_and_empty_after_clear(w);
    world_end(w);
}

static void die_in_collection(world_t *w)
{
    mw_mem_want_collection(w->mem);
    mw_collect_step(w->mem);
    pthread_mutex_lock(&w->mem->header->collection.lock);
}

static void test_a_collection_left_by_the_dead_begins_again(void **state)
{
    world_t *w = world_make(small);

    (void)state;
    world_put(w, "/x", 1, 100000);
    in_dying_child(w, die_in_collection);
    world_put(w, "/y", 2, 100000);
    world_sweep(w);
    assert_int_equal(w->mem->header->collection.served,
                     w->mem->header->collection.wanted);
    assert_int_equal(world_get(w, "/x", NULL), APR_SUCCESS);
    assert_int_equal(world_get(w, "/y", NULL), APR_SUCCESS);
    assert_usable_and_empty_after_clear(w);
    world_end(w);
}

static void die_storing(world_t *w)
{
    cachemw_key_t key = world_key("/x");
    char data[5000] = "";
    visit_t v;
    void *set;
    int i;

    visit_begin(w, &v);
    v.entry.head = "";
    v.entry.body_len = -1;
    for (i = 0; i < 20; i++) {
        PROVIDER->set_begin(w->mem, &v.call, &key, &v.entry, &set);
        PROVIDER->set_write(w->mem, &v.call, set, data, sizeof(data));
    }
}

static void test_what_the_dead_were_storing_goes(void **state)
{
    world_t *w = world_make(small);

    (void)state;
    world_put(w, "/x", 1, 1000);
    in_dying_child(w, die_storing);
    assert_true(mw_blocks_total(w->mem) - mw_blocks_free(w->mem) > 1500);
    assert_int_equal(world_get(w, "/x", NULL), APR_SUCCESS);
    world_sweep(w);
    assert_int_equal(w->mem->header->deaths, 1);
    assert_int_equal(mw_blocks_total(w->mem) - mw_blocks_free(w->mem),
                     world_units(w, MW_MEM_SMALL));
    world_remove(w, "/x", NULL);
    world_assert_empty(w);
    world_end(w);
}

static void die_sending(world_t *w)
{
    cachemw_key_t key = world_key("/x");
    visit_t v;
    int i;

    visit_begin(w, &v);
    for (i = 0; i < 10; i++) {
        v.entry.body = apr_brigade_create(v.call.pool, v.call.bucket_alloc);
        PROVIDER->get(w->mem, &v.call, &key, &v.entry);
    }
}

static void test_what_the_dead_were_sending_goes(void **state)
{
    world_t *w = world_make(small);
    apr_uint32_t i;
    int pins = 0;

    (void)state;
    world_put(w, "/x", 1, 200000);
    in_dying_child(w, die_sending);
    for (i = 0; i < w->mem->geometry.pins; i++) {
        pins += w->mem->pins[i].owner != 0;
    }
    assert_int_equal(pins, 10);
    world_remove(w, "/x", NULL);
    assert_true(mw_blocks_free(w->mem) < mw_blocks_total(w->mem));
    world_sweep(w);
    world_assert_empty(w);
    assert_usable_and_empty_after_clear(w);
    world_end(w);
}

/** The slot of the dead is taken over by the next child at once. */
static void die_at_once(world_t *w)
{
    (void)w;
}

static void test_slots_of_the_dead_are_used_again(void **state)
{
    world_t *w = world_make(small);
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 3 * w->mem->geometry.slots; i++) {
        in_dying_child(w, die_at_once);
    }
    assert_int_equal(w->mem->header->slots_used, 2);
    assert_usable_and_empty_after_clear(w);
    world_end(w);
}

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

static void *die_in_a_lock(void *data)
{
    mw_mem_t *mem = the_world->mem;
    apr_uint64_t r = (apr_uint64_t)(apr_uintptr_t)data;

    if (r & 1) {
        mw_shard_lock(mem, (apr_uint32_t)(r >> 3) % mem->geometry.shards);
    }
    else {
        mw_blocks_lock_area(mem, (apr_uint32_t)(r >> 3) % mem->geometry.areas);
    }
    raise(SIGKILL);
    return NULL;
}

/** Two threads that hammer; in a quarter of the rounds one dies in a lock. */
static void victim_run(apr_uint64_t r)
{
    pthread_t thread;

    child_begin(the_world);
    pthread_create(&thread, NULL, hammer_run, (void *)(apr_uintptr_t)r);
    if (r % 4 == 0) {
        usleep((useconds_t)((r >> 8) % 3000));
        die_in_a_lock((void *)(apr_uintptr_t)(r >> 20));
    }
    hammer_run((void *)(apr_uintptr_t)(r + 1));
    _exit(0);
}

static void kill_rounds(setting_t setting, int rounds)
{
    apr_uint64_t random = (apr_uint64_t)getpid() * 31 + 7;
    pid_t pid[3] = { 0 };
    int i;

    the_world = world_make(setting);
    the_hammer = shared_make(sizeof(*the_hammer));
    for (i = 0; i < rounds + 3; i++) {
        apr_uint64_t r = hammer_random(&random);
        int which = i % 3;

        if (pid[which]) {
            usleep((useconds_t)(r % 8000));
            child_kill(pid[which]);
        }
        pid[which] = fork();
        if (!pid[which]) {
            victim_run(r);
        }
        the_world->now += SECOND;
        hammer_once(the_world, the_hammer, &random);
        assert_int_equal(the_hammer->wrong, 0);
    }
    for (i = 0; i < 3; i++) {
        child_kill(pid[i]);
    }
    print_message("%d kills: %d hits, %d misses, %d stored, %d locks and %d "
                  "children recovered, %d units collected\n",
                  rounds + 3, (int)the_hammer->hits, (int)the_hammer->misses,
                  (int)the_hammer->stored,
                  (int)the_world->mem->header->recovered,
                  (int)the_world->mem->header->deaths,
                  (int)the_world->mem->header->collection.freed);
    hammer_assert(the_hammer);
    assert_true(the_hammer->hits > 0);
    for (i = 0; i < HAMMER_KEYS; i++) {
        char name[32];

        apr_snprintf(name, sizeof(name), "/hammer/%d", i);
        assert_int_not_equal(world_get(the_world, name, NULL), APR_EGENERAL);
    }
    world_sweep(the_world);
    assert_usable_and_empty_after_clear(the_world);
    munmap(the_hammer, sizeof(*the_hammer));
    world_end(the_world);
}

static int kills_wanted(void)
{
    const char *text = getenv("MEMORY_KILLS");

    return text ? (int)apr_atoi64(text) : 120;
}

static void test_kills_at_random_instants(void **state)
{
    setting_t setting = { .size = 4 << 20 };

    (void)state;
    kill_rounds(setting, kills_wanted());
}

static void test_kills_at_random_instants_when_it_is_tight(void **state)
{
    setting_t setting = { .size = 1 << 20, .max_entries = 60, .shards = 1 };

    (void)state;
    kill_rounds(setting, kills_wanted());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lock_left_by_the_dead_empties_its_shard_only),
        cmocka_unit_test(test_a_shard_left_in_disorder_is_emptied),
        cmocka_unit_test(test_an_area_left_in_disorder_is_derived_again),
        cmocka_unit_test(test_a_collection_left_by_the_dead_begins_again),
        cmocka_unit_test(test_what_the_dead_were_storing_goes),
        cmocka_unit_test(test_what_the_dead_were_sending_goes),
        cmocka_unit_test(test_slots_of_the_dead_are_used_again),
        cmocka_unit_test(test_kills_at_random_instants),
        cmocka_unit_test(test_kills_at_random_instants_when_it_is_tight),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
