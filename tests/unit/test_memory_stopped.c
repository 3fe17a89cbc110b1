/* SPDX-License-Identifier: Apache-2.0 */

/* Children that are stopped in the middle of something: the others go on. */

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "memory_world.h"

static const setting_t medium = { .size = 8 << 20, .shards = 4 };
static const setting_t few_areas = { .size = 2 << 20 };

#define LARGE 100000

/** Nobody may wait longer, on a busy machine; a wait is 250 ms. */
#define PATIENCE 2000000

static apr_time_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (apr_time_t)now.tv_sec * APR_USEC_PER_SEC + now.tv_nsec / 1000;
}

static apr_uint32_t shard_of(world_t *w, const char *name)
{
    cachemw_key_t key = world_key(name);

    return mw_mem_shard_of(w->mem, mw_mem_hash(w->mem, &key));
}

static void hold_shard(world_t *w)
{
    mw_shard_lock(w->mem, shard_of(w, "/mine"));
}

static void let_shard_go(world_t *w)
{
    mw_shard_unlock(w->mem, shard_of(w, "/mine"));
}

static void hold_areas(world_t *w)
{
    apr_uint32_t i;

    for (i = 0; i < w->mem->geometry.areas; i++) {
        mw_blocks_lock_area(w->mem, i);
    }
}

static void let_areas_go(world_t *w)
{
    apr_uint32_t i;

    for (i = 0; i < w->mem->geometry.areas; i++) {
        pthread_mutex_unlock(&w->mem->areas[i].lock);
    }
}

/** A child that holds locks, is stopped, and goes on later. */
static pid_t stop_with(world_t *w, void (*hold)(world_t *w),
                       void (*let_go)(world_t *w))
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        hold(w);
        raise(SIGSTOP);
        let_go(w);
        _exit(0);
    }
    child_await_stop(pid);
    return pid;
}

static void go_on(pid_t pid)
{
    int status;

    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static apr_status_t exists(world_t *w, const char *name)
{
    cachemw_key_t key = world_key(name);
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    rv = PROVIDER->exists(w->mem, &v.call, &key);
    visit_end(&v);
    return rv;
}

static apr_status_t amend(world_t *w, const char *name, apr_uint64_t seed)
{
    cachemw_key_t key = world_key(name);
    cachemw_id_t id = world_id(seed);
    char head[HEAD_LEN];
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    head_fill(head, seed, sizeof(head));
    v.entry.head = head;
    v.entry.head_len = sizeof(head);
    v.entry.expires = w->now + 3600 * SECOND;
    rv = PROVIDER->set_head(w->mem, &v.call, &key, &id, &v.entry);
    visit_end(&v);
    return rv;
}

static apr_status_t name_nothing(void *baton, const cachemw_key_t *key,
                                 const cachemw_entry_t *entry)
{
    (void)baton;
    (void)key;
    (void)entry;
    return APR_SUCCESS;
}

static apr_status_t keys(world_t *w)
{
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    rv = PROVIDER->keys(w->mem, &v.call, NULL, name_nothing, NULL);
    visit_end(&v);
    return rv;
}

static apr_status_t clear(world_t *w)
{
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    rv = PROVIDER->clear(w->mem, &v.call);
    visit_end(&v);
    return rv;
}

static void fill(world_t *w, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        world_put(w, apr_psprintf(w->pool, "/fill/%d", i), 1, 10000);
    }
}

/** @param stopped 0: everything works as ever */
static void every_call(world_t *w, int stopped)
{
    apr_status_t rv = stopped ? APR_TIMEUP : APR_SUCCESS;

    assert_int_equal(world_get(w, "/mine", NULL), rv);
    assert_int_equal(exists(w, "/mine"), rv);
    assert_int_equal(amend(w, "/mine", 1), rv);
    assert_int_equal(world_put(w, "/mine", 1, LARGE), rv);
    assert_int_equal(keys(w), rv);
    world_stats(w);
    world_sweep(w);
    assert_int_equal(world_remove(w, "/mine", NULL), rv);
    fill(w, 2000);
    assert_int_equal(clear(w), rv);
}

static void test_nobody_waits_for_a_stopped_shard(void **state)
{
    world_t *w = world_make(medium);
    apr_time_t start;
    pid_t pid;

    (void)state;
    world_put(w, "/mine", 1, LARGE);
    fill(w, 2000);
    world_put(w, "/mine", 1, LARGE);
    pid = stop_with(w, hold_shard, let_shard_go);
    start = clock_now();
    assert_int_equal(world_get(w, "/mine", NULL), APR_TIMEUP);
    assert_true(clock_now() - start >= 200000);
    assert_true(clock_now() - start < PATIENCE);
    /* One wait is enough to know. */
    start = clock_now();
    every_call(w, 1);
    assert_true(clock_now() - start < PATIENCE);
    go_on(pid);
    world_put(w, "/mine", 1, LARGE);
    every_call(w, 0);
    world_sweep(w);
    world_assert_empty(w);
    world_end(w);
}

static void test_nobody_waits_for_a_stopped_area(void **state)
{
    world_t *w = world_make(few_areas);
    apr_uint64_t entries;
    apr_time_t start;
    pid_t pid;
    int i;

    (void)state;
    world_put(w, "/mine", 1, LARGE);
    world_put(w, "/other", 2, LARGE);
    fill(w, 2000);
    pid = stop_with(w, hold_areas, let_areas_go);
    entries = mw_shard_entries(w->mem);
    start = clock_now();
    assert_int_equal(world_put(w, "/more", 2, LARGE), APR_ENOSPC);
    for (i = 0; i < 100; i++) {
        assert_int_equal(world_put(w, "/more", 2, LARGE), APR_ENOSPC);
    }
    /* Nothing is evicted in vain. */
    assert_in_range(mw_shard_entries(w->mem), entries - 1, entries);
    assert_int_equal(clear(w), APR_SUCCESS);
    world_sweep(w);
    assert_true(clock_now() - start < 8 * PATIENCE);
    go_on(pid);
    for (i = 0; i < 300; i++) {
        const char *key = apr_psprintf(w->pool, "/after/%d", i);

        world_sweep(w);
        assert_int_equal(world_put(w, key, 1, LARGE), APR_SUCCESS);
        assert_int_equal(world_get(w, key, NULL), APR_SUCCESS);
    }
    world_clear(w);
    world_sweep(w);
    world_assert_empty(w);
    world_end(w);
}

/** A body that was sent while its shard could not be locked. */
static void test_a_pin_that_cannot_be_ended_ends_later(void **state)
{
    world_t *w = world_make(medium);
    cachemw_key_t key = world_key("/mine");
    apr_time_t start;
    visit_t v;
    pid_t pid;

    (void)state;
    world_put(w, "/mine", 1, LARGE);
    visit_begin(w, &v);
    v.entry.body = apr_brigade_create(v.call.pool, v.call.bucket_alloc);
    assert_int_equal(PROVIDER->get(w->mem, &v.call, &key, &v.entry), 0);
    pid = stop_with(w, hold_shard, let_shard_go);
    start = clock_now();
    assert_int_equal(body_verify(v.entry.body, 1), LARGE);
    apr_brigade_destroy(v.entry.body);
    visit_end(&v);
    assert_true(clock_now() - start < PATIENCE);
    world_sweep(w);
    assert_int_equal(world_stats(w).entries, 1);
    assert_int_equal(w->mem->header->orphans, 1);
    go_on(pid);
    world_clear(w);
    assert_true(mw_blocks_free(w->mem) < mw_blocks_total(w->mem));
    world_sweep(w);
    assert_int_equal(w->mem->header->orphans, 0);
    world_assert_empty(w);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_waits_for_a_stopped_shard),
        cmocka_unit_test(test_nobody_waits_for_a_stopped_area),
        cmocka_unit_test(test_a_pin_that_cannot_be_ended_ends_later),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
