/* SPDX-License-Identifier: Apache-2.0 */

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_general.h"

#include "core/waiters.h"
#include "tests/unit/shared.h"

#define RUNNERS 8
#define OWN 3
#define ALL 7

static mw_waiters_t *waiters_make(void)
{
    mw_waiters_t *waiters = shared_make(mw_waiters_size());

    mw_waiters_init(waiters);
    return waiters;
}

/* How many more are let in. */
static int enter_all(mw_waiters_t *waiters, int slot)
{
    int n = 0;

    while (mw_waiters_enter(waiters, slot, OWN, ALL)) {
        n++;
    }
    return n;
}

static void leave_all(mw_waiters_t *waiters, int slot, int n)
{
    while (n--) {
        mw_waiters_leave(waiters, slot);
    }
}

static void test_waiters_alone_have_their_share(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int one = mw_waiters_open(waiters, 101, 1);

    (void)state;
    assert_int_equal(enter_all(waiters, -1), 0);
    assert_int_equal(enter_all(waiters, one), OWN);
    assert_int_equal(mw_waiters_sum(waiters), OWN);
    mw_waiters_leave(waiters, one);
    assert_int_equal(enter_all(waiters, one), 1);
}

static void test_waiters_take_what_others_leave(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int one = mw_waiters_open(waiters, 101, 1);
    const int two = mw_waiters_open(waiters, 102, 1);

    (void)state;
    assert_int_not_equal(one, two);
    assert_int_equal(enter_all(waiters, two), 2 * OWN);
    assert_int_equal(enter_all(waiters, one), ALL - 2 * OWN);
    leave_all(waiters, two, 2 * OWN);
    assert_int_equal(enter_all(waiters, one), 2 * OWN - (ALL - 2 * OWN));
    assert_int_equal(enter_all(waiters, two), ALL - 2 * OWN);
    assert_int_equal(mw_waiters_sum(waiters), ALL);
}

static void test_waiters_take_nothing_of_the_dead(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int one = mw_waiters_open(waiters, 101, 1);

    (void)state;
    mw_waiters_open(waiters, 102, 1);
    mw_waiters_close(waiters, 102);
    assert_int_equal(enter_all(waiters, one), OWN);
}

/* What waits in an old one is counted, the rest of its share is not given. */
static void test_waiters_take_nothing_of_an_old_generation(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int old = mw_waiters_open(waiters, 101, 4095);
    const int one = mw_waiters_open(waiters, 102, 4096);

    (void)state;
    assert_int_equal(enter_all(waiters, one), OWN);
    leave_all(waiters, one, OWN);
    assert_int_equal(enter_all(waiters, old), OWN);
    assert_int_equal(enter_all(waiters, one), OWN);
    mw_waiters_leave(waiters, one);
    mw_waiters_open(waiters, 103, 4096);
    assert_int_equal(enter_all(waiters, one), 1);
    leave_all(waiters, old, OWN);
    assert_int_equal(enter_all(waiters, one), OWN);
}

static void test_waiters_of_the_dead_do_not_count(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int one = mw_waiters_open(waiters, 101, 1);
    const int two = mw_waiters_open(waiters, 102, 1);

    (void)state;
    assert_true(mw_waiters_enter(waiters, one, OWN, ALL));
    assert_true(mw_waiters_enter(waiters, one, OWN, ALL));
    assert_true(mw_waiters_enter(waiters, two, OWN, ALL));
    mw_waiters_close(waiters, 101);
    assert_int_equal(mw_waiters_sum(waiters), 1);
    mw_waiters_close(waiters, 103);
    assert_int_equal(mw_waiters_sum(waiters), 1);
    assert_int_equal(mw_waiters_open(waiters, 104, 2), one);
}

static void test_waiters_have_an_id_each(void **state)
{
    const char *one = mw_waiters_id(waiters_make());

    (void)state;
    assert_int_equal(strlen(one), MW_WAITERS_ID);
    assert_int_equal(strspn(one, "0123456789abcdef"), MW_WAITERS_ID);
    assert_string_not_equal(one, mw_waiters_id(waiters_make()));
}

typedef struct crowd_t {
    mw_waiters_t *waiters;
    int inside;
    int entered;
    int borrowed;
    int faults;
} crowd_t;

static int crowd_count(int *n)
{
    return __atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
}

static void crowd_leave(crowd_t *crowd, int slot, int n)
{
    __atomic_sub_fetch(&crowd->inside, n, __ATOMIC_SEQ_CST);
    leave_all(crowd->waiters, slot, n);
}

/* Tries up to three times its share. */
static void crowd_wait(void *baton, int i)
{
    crowd_t *crowd = baton;
    const int slot = mw_waiters_open(crowd->waiters, i + 1, 1);
    int here = 0;
    int n;

    for (n = 0; n < 5000; n++) {
        if (here < 1 + n % (3 * OWN)
            && mw_waiters_enter(crowd->waiters, slot, OWN, ALL)) {
            here++;
            if (crowd_count(&crowd->inside) > ALL || here > 2 * OWN) {
                crowd_count(&crowd->faults);
            }
            if (here > OWN) {
                crowd_count(&crowd->borrowed);
            }
            crowd_count(&crowd->entered);
            continue;
        }
        crowd_leave(crowd, slot, here);
        here = 0;
    }
    crowd_leave(crowd, slot, here);
}

static void test_waiters_never_exceed_the_limit(void **state)
{
    crowd_t *crowd = shared_make(sizeof(*crowd));

    (void)state;
    crowd->waiters = waiters_make();
    threads_run(RUNNERS, crowd_wait, crowd);
    processes_run(RUNNERS, crowd_wait, crowd);
    assert_int_equal(crowd->faults, 0);
    assert_true(crowd->entered > 1000);
    assert_true(crowd->borrowed > 100);
    assert_int_equal(mw_waiters_sum(crowd->waiters), 0);
}

/* However many children die while requests of theirs wait. */
static void test_waiters_survive_kills(void **state)
{
    crowd_t *crowd = shared_make(sizeof(*crowd));
    int round;

    (void)state;
    crowd->waiters = waiters_make();
    for (round = 0; round < 100; round++) {
        const int stop = __atomic_load_n(&crowd->entered, __ATOMIC_SEQ_CST);
        const pid_t pid = fork();

        assert_int_not_equal(pid, -1);
        while (!pid) {
            const int slot = mw_waiters_open(crowd->waiters, getpid(), round);

            while (mw_waiters_enter(crowd->waiters, slot, OWN, ALL)) {
                __atomic_fetch_add(&crowd->entered, 1, __ATOMIC_SEQ_CST);
            }
            pause();
        }
        while (__atomic_load_n(&crowd->entered, __ATOMIC_SEQ_CST)
               < stop + OWN) {
            sched_yield();
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        mw_waiters_close(crowd->waiters, pid);
        assert_int_equal(mw_waiters_sum(crowd->waiters), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waiters_alone_have_their_share),
        cmocka_unit_test(test_waiters_take_what_others_leave),
        cmocka_unit_test(test_waiters_take_nothing_of_the_dead),
        cmocka_unit_test(test_waiters_take_nothing_of_an_old_generation),
        cmocka_unit_test(test_waiters_of_the_dead_do_not_count),
        cmocka_unit_test(test_waiters_have_an_id_each),
        cmocka_unit_test(test_waiters_never_exceed_the_limit),
        cmocka_unit_test(test_waiters_survive_kills),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
