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
#define ALL 5

static mw_waiters_t *waiters_make(void)
{
    mw_waiters_t *waiters = shared_make(mw_waiters_size());

    mw_waiters_init(waiters);
    return waiters;
}

static void test_waiters_limits(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int one = mw_waiters_open(waiters, 101);
    const int two = mw_waiters_open(waiters, 102);
    int i;

    (void)state;
    assert_int_not_equal(one, two);
    assert_false(mw_waiters_enter(waiters, -1, OWN, ALL));
    for (i = 0; i < OWN; i++) {
        assert_true(mw_waiters_enter(waiters, one, OWN, ALL));
    }
    assert_false(mw_waiters_enter(waiters, one, OWN, ALL));
    for (; i < ALL; i++) {
        assert_true(mw_waiters_enter(waiters, two, OWN, ALL));
    }
    assert_false(mw_waiters_enter(waiters, two, OWN, ALL));
    assert_int_equal(mw_waiters_sum(waiters), ALL);
    mw_waiters_leave(waiters, one);
    assert_true(mw_waiters_enter(waiters, two, OWN, ALL));
    assert_false(mw_waiters_enter(waiters, one, OWN, ALL));
}

static void test_waiters_of_the_dead_do_not_count(void **state)
{
    mw_waiters_t *waiters = waiters_make();
    const int one = mw_waiters_open(waiters, 101);
    const int two = mw_waiters_open(waiters, 102);

    (void)state;
    assert_true(mw_waiters_enter(waiters, one, OWN, ALL));
    assert_true(mw_waiters_enter(waiters, one, OWN, ALL));
    assert_true(mw_waiters_enter(waiters, two, OWN, ALL));
    mw_waiters_close(waiters, 101);
    assert_int_equal(mw_waiters_sum(waiters), 1);
    mw_waiters_close(waiters, 103);
    assert_int_equal(mw_waiters_sum(waiters), 1);
    assert_int_equal(mw_waiters_open(waiters, 104), one);
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
    int faults;
} crowd_t;

static void crowd_wait(void *baton, int i)
{
    crowd_t *crowd = baton;
    const int slot = mw_waiters_open(crowd->waiters, i + 1);
    int n;

    for (n = 0; n < 5000; n++) {
        if (!mw_waiters_enter(crowd->waiters, slot, OWN, ALL)) {
            continue;
        }
        if (__atomic_add_fetch(&crowd->inside, 1, __ATOMIC_SEQ_CST) > ALL) {
            __atomic_fetch_add(&crowd->faults, 1, __ATOMIC_SEQ_CST);
        }
        __atomic_fetch_add(&crowd->entered, 1, __ATOMIC_SEQ_CST);
        __atomic_sub_fetch(&crowd->inside, 1, __ATOMIC_SEQ_CST);
        mw_waiters_leave(crowd->waiters, slot);
    }
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
            const int slot = mw_waiters_open(crowd->waiters, getpid());

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
        cmocka_unit_test(test_waiters_limits),
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
