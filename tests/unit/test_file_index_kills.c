/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Processes that die at any instant, and threads: the index knows exactly what
 * is there afterwards, and there was never more than there may be.
 * INDEX_KILLS=N makes the random part N rounds long.
 */

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "apr_general.h"

#include "index_depot.h"

#define HOUR (3600 * SECOND)

static const mw_index_config_t small = { .memory = 1 << 20,
                                         .max_bytes = 4 << 20,
                                         .dir_levels = 1 };

/** @return whether it died; 0: it came to its end */
static int in_dying_child(depot_t *w, apr_uint32_t steps,
                          void (*run)(depot_t *w))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (!pid) {
        depot_child(w);
        w->disk->dies_at = steps;
        run(w);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    w->disk->dies_at = 0;
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL
                                    : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) != 0;
}

/** Some of everything, evictions for want of room included. */
static void run_script(depot_t *w)
{
    apr_uint32_t i;

    for (i = 0; i < 8; i++) {
        depot_put(w, 1000 + i, 100 + i, w->now + HOUR);
    }
    depot_put(w, 1003, 50, w->now + HOUR);
    depot_put(w, 1004, 150, w->now + HOUR);
    depot_remove(w, 1005);
    disk_put(w, 1006, 0, 0);
    depot_get(w, 1006);
    mw_index_clear(w->index);
    depot_put(w, 1001, 10, w->now + HOUR);
    depot_sweep(w);
}

static void test_death_at_every_step_leaves_an_exact_index(void **state)
{
    apr_uint32_t steps;
    int died = 1;

    (void)state;
    for (steps = 1; died; steps++) {
        depot_t *w = depot_make(small, 2000);
        apr_uint32_t i;

        assert_true(steps < 3000);
        depot_sweep(w);
        for (i = 0; i < 600; i++) {
            depot_put(w, i, 1, w->now + HOUR);
        }
        died = in_dying_child(w, steps, run_script);
        assert_true(MW_INDEX_BLOCKS(mw_index_used(w->index)) >= disk_used(w));
        /* Shards are mended by who comes first, the rest by the sweep. */
        for (i = 0; i < w->index->geometry.shards; i++) {
            assert_true(mw_index_lock(w->index, i, 1));
            mw_index_unlock(w->index, i);
        }
        assert_true(MW_INDEX_BLOCKS(mw_index_used(w->index)) >= disk_used(w));
        depot_sweep(w);
        depot_assert_exact(w);
        assert_int_equal(depot_put(w, 1999, 1000, w->now + HOUR), APR_SUCCESS);
        depot_assert_exact(w);
        depot_end(w);
    }
    assert_true(steps > 500);
}

/** The next who sweeps goes on where the dead one was. */
static void test_a_scan_is_taken_over_from_the_dead(void **state)
{
    depot_t *w = depot_make(small, 1000);
    apr_uint32_t before = 0;
    apr_uint32_t i;
    int deaths = 0;

    (void)state;
    for (i = 0; i < 1000; i++) {
        disk_put(w, i, 1, w->now + HOUR);
    }
    depot_restart(w, -1);
    while (in_dying_child(w, 60, depot_sweep)) {
        assert_true(w->index->header->scan.dir > before);
        before = w->index->header->scan.dir;
        assert_true(MW_INDEX_BLOCKS(mw_index_used(w->index)) >= disk_used(w));
        deaths++;
    }
    assert_true(deaths > 10);
    assert_int_equal(w->index->header->scan.is_active, 0);
    depot_sweep(w);
    /* What one found and could not say so counts twice until the end. */
    assert_in_range(disk_entries(w), 1000 - deaths, 1000);
    depot_assert_exact(w);
    depot_end(w);
}

static void put_and_linger(depot_t *w)
{
    mw_index_room_t room = { 0 };

    assert_int_equal(mw_index_reserve(w->index, &room, 500 * BLOCK, w->now), 0);
    raise(SIGKILL);
}

static void test_what_the_dead_had_reserved_comes_back(void **state)
{
    depot_t *w = depot_make(small, 100);
    apr_uint32_t slots = w->index->header->slots_used;

    (void)state;
    depot_sweep(w);
    assert_int_equal(in_dying_child(w, 0, put_and_linger), 1);
    assert_int_equal(MW_INDEX_BLOCKS(mw_index_used(w->index)), 500);
    depot_sweep(w);
    depot_assert_exact(w);
    /* So does its slot, to the next child. */
    assert_int_equal(in_dying_child(w, 0, put_and_linger), 1);
    assert_int_equal(in_dying_child(w, 0, put_and_linger), 1);
    assert_int_equal(w->index->header->slots_used, slots + 1);
    assert_int_equal(w->index->header->deaths, 2);
    depot_sweep(w);
    depot_assert_exact(w);
    depot_end(w);
}

/** Stops with a lock in its hands until it is killed. */
static apr_status_t work_stops(void *baton, const mw_digest_t *digest,
                               mw_index_facts_t *facts)
{
    (void)baton;
    (void)digest;
    (void)facts;
    raise(SIGSTOP);
    return APR_SUCCESS;
}

static pid_t stopped_child(depot_t *w, apr_uint32_t number)
{
    mw_digest_t digest = digest_of(w, number);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        depot_child(w);
        mw_index_change(w->index, &digest, NULL, work_stops, w, w->now);
        _exit(0);
    }
    child_await_stop(pid);
    return pid;
}

static void test_who_is_stopped_with_a_lock_holds_up_its_shard_only(
    void **state)
{
    mw_index_config_t config = { .memory = 4 << 20,
                                 .max_bytes = 64 << 20,
                                 .dir_levels = 1 };
    depot_t *w = depot_make(config, 40000);
    apr_uint32_t failed = 0;
    apr_time_t took;
    apr_uint32_t i;
    pid_t pid;

    (void)state;
    depot_sweep(w);
    assert_int_equal(depot_put(w, 7, 1, w->now + HOUR), APR_SUCCESS);
    pid = stopped_child(w, 7);
    took = apr_time_now();
    assert_int_equal(depot_put(w, 7, 1, w->now + HOUR), APR_TIMEUP);
    assert_int_equal(depot_get(w, 7), 1);
    /* Evictions go by, too. */
    for (i = 8; i < 40000; i++) {
        failed += depot_put(w, i, 1, w->now + HOUR) != APR_SUCCESS;
    }
    took = apr_time_now() - took;
    assert_true(failed < 40000 / w->index->geometry.shards * 2);
    assert_true(took < 20 * SECOND);
    assert_true(disk_used(w) <= w->index->max_blocks);
    child_kill(pid);
    depot_sweep(w);
    depot_assert_exact(w);
    assert_int_equal(depot_put(w, 7, 2, w->now + HOUR), APR_SUCCESS);
    depot_end(w);
}

#define CHILDREN 4

static pid_t hammer_start(depot_t *w, apr_uint32_t seed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        depot_child(w);
        for (;;) {
            depot_hammer(w, &seed);
        }
    }
    return pid;
}

static void kills_run(depot_t *w, int rounds, apr_uint32_t *seed)
{
    struct timespec pause = { 0, 0 };
    pid_t pids[CHILDREN];
    int i;

    for (i = 0; i < CHILDREN; i++) {
        pids[i] = hammer_start(w, random_next(seed));
    }
    while (rounds-- > 0) {
        int victim = (int)(random_next(seed) % CHILDREN);

        pause.tv_nsec = random_next(seed) % 2000000;
        nanosleep(&pause, NULL);
        for (i = 0; i < CHILDREN; i++) {
            child_stop(pids[i]);
        }
        assert_true(disk_used(w) <= w->index->max_blocks * 101 / 100);
        assert_true(disk_entries(w) <= w->index->max_entries * 101 / 100);
        assert_true(MW_INDEX_BLOCKS(mw_index_used(w->index)) >= disk_used(w));
        child_kill(pids[victim]);
        pids[victim] = hammer_start(w, random_next(seed));
        for (i = 0; i < CHILDREN; i++) {
            kill(pids[i], SIGCONT);
        }
    }
    for (i = 0; i < CHILDREN; i++) {
        child_kill(pids[i]);
    }
}

static apr_uint64_t recovered(const depot_t *w)
{
    return w->fake.counts[CACHEMW_COUNT_RECOVERED];
}

static void test_kills_at_any_instant_leave_an_exact_index(void **state)
{
    const char *text = getenv("INDEX_KILLS");
    int rounds = text ? (int)strtol(text, NULL, 10) : 240;
    mw_index_config_t config = small;
    apr_uint32_t seed = (apr_uint32_t)time(NULL);
    depot_t *w;

    (void)state;
    printf("seed %u\n", seed);
    config.max_entries = 400;
    w = depot_make(config, 1500);
    while (rounds > 0 || !recovered(w)) {
        assert_true(rounds > -4000);
        kills_run(w, 40, &seed);
        assert_true(MW_INDEX_BLOCKS(mw_index_used(w->index)) >= disk_used(w));
        depot_sweep(w);
        depot_sweep(w);
        depot_assert_exact(w);
        assert_int_equal(depot_put(w, 3, 900, w->now + HOUR), APR_SUCCESS);
        depot_assert_exact(w);
        rounds -= 40;
        if (rounds / 40 % 2) {
            depot_restart(w, -1);
        }
    }
    depot_end(w);
}

static void threads_hammer(void *baton, int i)
{
    apr_uint32_t seed = (apr_uint32_t)i * 7919 + 1;
    int n;

    for (n = 0; n < 20000; n++) {
        depot_hammer(baton, &seed);
    }
}

static void test_threads_leave_an_exact_index(void **state)
{
    depot_t *w = depot_make(small, 1500);
    apr_uint32_t i;

    (void)state;
    for (i = 0; i < 300; i++) {
        disk_put(w, i, 3, w->now + HOUR);
    }
    depot_restart(w, -1);
    threads_run(4, threads_hammer, w);
    depot_sweep(w);
    depot_assert_exact(w);
    assert_true(disk_used(w) <= w->index->max_blocks);
    assert_true(disk_entries(w) > 100);
    depot_end(w);
}

static void processes_hammer(void *baton, int i)
{
    depot_child(baton);
    threads_hammer(baton, i);
}

static void test_processes_that_end_leave_an_exact_index(void **state)
{
    depot_t *w = depot_make(small, 1500);

    (void)state;
    processes_run(4, processes_hammer, w);
    depot_sweep(w);
    depot_assert_exact(w);
    depot_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_death_at_every_step_leaves_an_exact_index),
        cmocka_unit_test(test_a_scan_is_taken_over_from_the_dead),
        cmocka_unit_test(test_what_the_dead_had_reserved_comes_back),
        cmocka_unit_test(
            test_who_is_stopped_with_a_lock_holds_up_its_shard_only),
        cmocka_unit_test(test_kills_at_any_instant_leave_an_exact_index),
        cmocka_unit_test(test_threads_leave_an_exact_index),
        cmocka_unit_test(test_processes_that_end_leave_an_exact_index),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
