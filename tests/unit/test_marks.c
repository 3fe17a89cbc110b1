/* SPDX-License-Identifier: Apache-2.0 */

#ifdef __linux__
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_general.h"

#include "tests/unit/shared.h"

#define KEYS 16
#define RUNNERS 8
#define TICK 32
#define LONG APR_INT64_C(1000000000000)

/* Times in these tests are in units of what a mark can tell apart. */
static apr_uint64_t mark_take(mw_state_t *state, unsigned int number,
                              apr_uint64_t owner, apr_int64_t now,
                              apr_int64_t expires)
{
    const cachemw_key_t key = key_make(number);

    return mw_mark_take(state, &key, owner, now * TICK, expires * TICK, NULL);
}

static apr_uint64_t mark_holder(const mw_state_t *state, unsigned int number,
                                apr_int64_t now)
{
    const cachemw_key_t key = key_make(number);

    return mw_mark_holder(state, &key, now * TICK, NULL);
}

static void mark_release(mw_state_t *state, unsigned int number,
                         apr_uint64_t owner)
{
    const cachemw_key_t key = key_make(number);

    mw_mark_release(state, &key, owner, 0);
}

static void test_marks_one_holder(void **state)
{
    assert_int_equal(mark_holder(*state, 1, 10), 0);
    assert_int_equal(mark_take(*state, 1, 111, 10, 20), 0);
    assert_int_equal(mark_holder(*state, 1, 10), 111);
    assert_int_equal(mark_take(*state, 1, 222, 10, 20), 111);
    assert_int_equal(mark_take(*state, 1, 111, 10, 20), 111);
    assert_int_equal(mark_take(*state, 2, 333, 10, 20), 0);
    mark_release(*state, 1, 111);
    assert_int_equal(mark_holder(*state, 1, 10), 0);
    assert_int_equal(mark_holder(*state, 2, 10), 333);
    assert_int_equal(mark_take(*state, 1, 222, 10, 20), 0);
    assert_int_equal(mark_holder(*state, 1, 10), 222);
}

/* The first fetcher's child died: the others go on at the latest then. */
static void test_marks_expire(void **state)
{
    assert_int_equal(mark_take(*state, 1, 111, 10, 20), 0);
    assert_int_equal(mark_take(*state, 1, 222, 19, 30), 111);
    assert_int_equal(mark_holder(*state, 1, 20), 0);
    assert_int_equal(mark_take(*state, 1, 222, 20, 30), 0);
    assert_int_equal(mark_holder(*state, 1, 29), 222);
    assert_int_equal(mark_holder(*state, 1, 30), 0);
}

/* A slow fetcher must not free the mark of who took over from it. */
static void test_marks_release_of_a_former_holder_does_nothing(void **state)
{
    assert_int_equal(mark_take(*state, 1, 111, 10, 20), 0);
    mark_release(*state, 1, 222);
    assert_int_equal(mark_holder(*state, 1, 10), 111);
    assert_int_equal(mark_take(*state, 1, 222, 20, 30), 0);
    mark_release(*state, 1, 111);
    assert_int_equal(mark_holder(*state, 1, 25), 222);
    mark_release(*state, 1, 222);
    mark_release(*state, 1, 222);
    assert_int_equal(mark_holder(*state, 1, 25), 0);
}

/* Not even when their tokens have much in common. */
static void test_marks_former_holders_of_any_token(void **state)
{
    apr_int64_t now = 1;
    apr_uint64_t owner;

    assert_int_equal(mark_take(*state, 1, 1, now, now + 1), 0);
    for (owner = 2; owner < 100000; owner++) {
        now++;
        assert_int_equal(mark_take(*state, 1, owner << 7, now, now + 1), 0);
        mark_release(*state, 1, (owner - 1) << 7);
        mark_release(*state, 1, owner << 7 ^ 1);
        mark_release(*state, 1, 1 + owner * 4099);
        assert_int_equal(mark_holder(*state, 1, now), owner << 7);
    }
}

static void test_marks_any_token(void **state)
{
    apr_uint32_t seed = 3;
    int i;

    for (i = 0; i < 100000; i++) {
        const apr_uint64_t owner = (apr_uint64_t)random_next(&seed) << 40
                                   | (apr_uint64_t)random_next(&seed) << 8 | 1;

        assert_int_equal(mark_take(*state, i, owner, 1, LONG), 0);
        assert_int_equal(mark_holder(*state, i, 1), owner);
        assert_int_equal(mark_holder(*state, i, LONG - 1), owner);
        mark_release(*state, i, owner);
        assert_int_equal(mark_holder(*state, i, 1), 0);
    }
}

/* Pages that share a mark wait for each other: it must be rare. */
static void test_marks_seldom_shared(void **state)
{
    int refused = 0;
    int i;

    for (i = 0; i < 200; i++) {
        refused += mark_take(*state, i, i + 1, 1, LONG) != 0;
    }
    assert_in_range(refused, 0, 10);
}

typedef struct fetch_t {
    mw_state_t *state;
    apr_int64_t clock;
    apr_uint64_t steps;
    int faults;
    apr_uint64_t inside[KEYS]; /**< who fetches the key; 0: nobody */
    apr_int64_t until[KEYS];   /**< when the mark of who fetches it ends */
} fetch_t;

static apr_uint64_t token_make(int i, apr_uint64_t n)
{
    return (apr_uint64_t)(i + 1) << 32 | n;
}

static void keys_fetch(void *baton, int i)
{
    fetch_t *fetch = baton;
    apr_uint32_t seed = i + 1;
    apr_uint64_t n;

    for (n = 1; n <= 20000; n++) {
        const unsigned int number = random_next(&seed) % KEYS;
        const apr_uint64_t owner = token_make(i, n);
        apr_uint64_t other = mark_take(fetch->state, number, owner, 1, LONG);
        apr_uint64_t nobody = 0;

        if (other && other != owner) {
            continue;
        }
        if (other
            || !__atomic_compare_exchange_n(&fetch->inside[number], &nobody,
                                            owner, 0, __ATOMIC_RELAXED,
                                            __ATOMIC_RELAXED)
            || mark_holder(fetch->state, number, 1) != owner) {
            __atomic_fetch_add(&fetch->faults, 1, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&fetch->inside[number], 0, __ATOMIC_RELAXED);
        mark_release(fetch->state, number, owner);
        __atomic_fetch_add(&fetch->steps, 1, __ATOMIC_RELAXED);
    }
}

static void test_marks_exclude_threads_and_processes(void **state)
{
    fetch_t *fetch = shared_make(sizeof(*fetch));
    int number;

    fetch->state = *state;
    threads_run(RUNNERS, keys_fetch, fetch);
    processes_run(RUNNERS, keys_fetch, fetch);
    assert_int_equal(fetch->faults, 0);
    assert_true(fetch->steps > 1000);
    for (number = 0; number < KEYS; number++) {
        assert_int_equal(mark_holder(*state, number, 1), 0);
    }
}

/**
 * Take a mark that ends soon and sometimes outlive it. As long as it has not
 * ended it is a fault when another taker's has not ended either, or when it is
 * said to be another's.
 */
static void key_fetch_slowly(fetch_t *fetch, unsigned int number,
                             apr_uint64_t owner, apr_uint32_t *seed)
{
    const apr_int64_t now =
        __atomic_add_fetch(&fetch->clock, 1, __ATOMIC_SEQ_CST);
    const apr_int64_t expires = now + 1 + random_next(seed) % 50;
    apr_int64_t until = expires;
    apr_uint64_t holder;
    apr_int64_t other;
    apr_int64_t later;

    if (mark_take(fetch->state, number, owner, now, expires)) {
        return;
    }
    other =
        __atomic_exchange_n(&fetch->until[number], expires, __ATOMIC_SEQ_CST);
    holder = mark_holder(fetch->state, number, now);
    later = __atomic_load_n(&fetch->clock, __ATOMIC_SEQ_CST);
    if (later < expires && (other > later || holder != owner)) {
        __atomic_fetch_add(&fetch->faults, 1, __ATOMIC_RELAXED);
    }
    if (random_next(seed) % 8) {
        __atomic_compare_exchange_n(&fetch->until[number], &until, 0, 0,
                                    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        mark_release(fetch->state, number, owner);
    }
}

static void keys_fetch_slowly(void *baton, int i)
{
    fetch_t *fetch = baton;
    apr_uint32_t seed = i + 1;
    apr_uint64_t n;

    for (n = 1; n <= 20000; n++) {
        key_fetch_slowly(fetch, random_next(&seed) % KEYS, token_make(i, n),
                         &seed);
    }
}

static void test_marks_taken_over_in_threads(void **state)
{
    fetch_t *fetch = shared_make(sizeof(*fetch));

    fetch->state = *state;
    threads_run(RUNNERS, keys_fetch_slowly, fetch);
    assert_int_equal(fetch->faults, 0);
}

static void keys_fetch_for_ever(fetch_t *fetch, int i)
{
    apr_uint32_t seed = i + 1;
    apr_uint64_t n;

    for (n = 1;; n++) {
        key_fetch_slowly(fetch, random_next(&seed) % KEYS, token_make(i, n),
                         &seed);
        __atomic_fetch_add(&fetch->steps, 1, __ATOMIC_RELAXED);
    }
}

/** Every mark can be taken now, says whose it is, and can be let go. */
static void marks_check(fetch_t *fetch, apr_int64_t now, apr_uint64_t owner)
{
    unsigned int number;

    for (number = 0; number < KEYS; number++) {
        assert_int_equal(mark_holder(fetch->state, number, now), 0);
        assert_int_equal(mark_take(fetch->state, number, owner, now, now + 10),
                         0);
        assert_int_equal(mark_holder(fetch->state, number, now), owner);
        mark_release(fetch->state, number, owner);
        assert_int_equal(mark_holder(fetch->state, number, now), 0);
    }
}

/* Wherever children die, no page waits for them longer than their marks. */
static void test_marks_survive_kills(void **state)
{
    fetch_t *fetch = shared_make(sizeof(*fetch));
    apr_uint32_t seed = 11;
    int round;
    int i;

    fetch->state = *state;
    for (round = 0; round < 150; round++) {
        const apr_uint64_t stop = fetch->steps + random_next(&seed) % 3000;
        pid_t pids[3];

        for (i = 0; i < COUNT(pids); i++) {
            pids[i] = fork();
            assert_int_not_equal(pids[i], -1);
            if (!pids[i]) {
                keys_fetch_for_ever(fetch, round * COUNT(pids) + i);
            }
        }
        while (__atomic_load_n(&fetch->steps, __ATOMIC_RELAXED) < stop) {
            sched_yield();
        }
        for (i = 0; i < COUNT(pids); i++) {
            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        }
        fetch->clock += 1000;
        marks_check(fetch, fetch->clock, token_make(1000000, round));
    }
    assert_int_equal(fetch->faults, 0);
}

/* Long enough that a test which relies on it fails visibly. */
#define WAIT_LONG APR_INT64_C(20000000)

typedef struct sleep_t {
    mw_state_t *state;
    apr_int64_t until;
    int ready;
    int woken;
} sleep_t;

/** Wait for mark 1 until it is free. */
static void mark_sleep(void *baton, int i)
{
    sleep_t *all = baton;
    const cachemw_key_t key = key_make(1);
    apr_int64_t now = mw_monotonic();

    (void)i;
    __atomic_fetch_add(&all->ready, 1, __ATOMIC_SEQ_CST);
    while (mw_mark_holder(all->state, &key, now, NULL) && now < all->until) {
        mw_mark_wait(all->state, &key, now, all->until);
        now = mw_monotonic();
    }
    if (now < all->until) {
        __atomic_fetch_add(&all->woken, 1, __ATOMIC_SEQ_CST);
    }
}

static void mark_sleep_or_release(void *baton, int i)
{
    sleep_t *all = baton;
    const cachemw_key_t key = key_make(1);

    if (i) {
        mark_sleep(baton, i);
        return;
    }
    while (__atomic_load_n(&all->ready, __ATOMIC_SEQ_CST) < RUNNERS - 1) {
        sched_yield();
    }
    mw_mark_release(all->state, &key, 111, mw_monotonic());
}

static sleep_t *sleep_make(mw_state_t *state)
{
    sleep_t *all = shared_make(sizeof(*all));

    all->state = state;
    all->until = mw_monotonic() + WAIT_LONG;
    return all;
}

static void test_marks_release_wakes_threads_and_processes(void **state)
{
    const cachemw_key_t key = key_make(1);
    sleep_t *all = sleep_make(*state);
    int round;

    for (round = 0; round < 100; round++) {
        all->ready = all->woken = 0;
        all->until = mw_monotonic() + WAIT_LONG;
        assert_int_equal(
            mw_mark_take(*state, &key, 111, mw_monotonic(), LONG, NULL), 0);
        if (round % 2) {
            threads_run(RUNNERS, mark_sleep_or_release, all);
        }
        else {
            processes_run(RUNNERS, mark_sleep_or_release, all);
        }
        assert_int_equal(all->woken, RUNNERS - 1);
        assert_int_equal(mw_mark_holder(*state, &key, mw_monotonic(), NULL), 0);
    }
}

static void test_marks_wait_ends(void **state)
{
    const cachemw_key_t key = key_make(1);
    const apr_int64_t now = mw_monotonic();

    mw_mark_wait(*state, &key, now, now + WAIT_LONG);
    assert_int_equal(mw_mark_take(*state, &key, 111, now, now + 50000, NULL),
                     0);
    mw_mark_wait(*state, &key, now, now + 1000);
    while (mw_mark_holder(*state, &key, mw_monotonic(), NULL)) {
        mw_mark_wait(*state, &key, mw_monotonic(), now + WAIT_LONG);
    }
    assert_in_range(mw_monotonic() - now, 50000 - TICK, WAIT_LONG / 2);
    assert_int_equal(
        mw_mark_take(*state, &key, 222, mw_monotonic(), LONG, NULL), 0);
}

#ifdef __linux__
/* From here on the kernel knows no futex. @return 0: that cannot be had */
static int futex_forbid(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]),
                                        filter };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
           && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* @return how often somebody who waits for 200 ms looks */
static int waits_without_futex(mw_state_t *state)
{
    const cachemw_key_t key = key_make(1);
    const apr_int64_t until = mw_monotonic() + 200000;
    int looks = 0;

    if (!futex_forbid()) {
        return 0;
    }
    while (mw_monotonic() < until) {
        mw_mark_wait(state, &key, mw_monotonic(), until);
        looks++;
    }
    return looks < 250 ? looks : 250;
}

static void test_marks_are_slept_for_without_a_futex(void **state)
{
    const cachemw_key_t key = key_make(1);
    const char *preloaded = getenv("LD_PRELOAD");
    pid_t pid;
    int status;

    /* valgrind has threads of its own, which need the futex. */
    if (preloaded && strstr(preloaded, "vgpreload")) {
        skip();
    }
    assert_int_equal(
        mw_mark_take(*state, &key, 111, mw_monotonic(), LONG, NULL), 0);
    pid = fork();
    if (pid == 0) {
        _exit(waits_without_futex(*state));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_in_range(WEXITSTATUS(status), 2, 20);
}
#endif

static void test_marks_tell_when_the_last_one_ended(void **state)
{
    const cachemw_key_t key = key_make(1);
    apr_int64_t ended = -1;

    assert_int_equal(
        mw_mark_take(*state, &key, 111, 10 * TICK, 50 * TICK, &ended), 0);
    assert_int_equal(ended, 0);
    mw_mark_release(*state, &key, 111, 20 * TICK);
    mw_mark_release(*state, &key, 111, 21 * TICK);
    ended = -1;
    assert_int_equal(mw_mark_holder(*state, &key, 20 * TICK, &ended), 0);
    assert_int_equal(ended, 20 * TICK);
    assert_int_equal(
        mw_mark_take(*state, &key, 222, 30 * TICK, 40 * TICK, &ended), 0);
    assert_int_equal(ended, 20 * TICK);
    ended = -1;
    assert_int_equal(mw_mark_holder(*state, &key, 39 * TICK, &ended), 222);
    assert_int_equal(ended, -1);
    assert_int_equal(
        mw_mark_take(*state, &key, 333, 39 * TICK, 90 * TICK, &ended), 222);
    assert_int_equal(ended, -1);
    assert_int_equal(
        mw_mark_take(*state, &key, 333, 60 * TICK, 90 * TICK, &ended), 0);
    assert_int_equal(ended, 40 * TICK);
}

/* That somebody waits changes nothing for who holds it. */
static void test_marks_waited_for_are_the_holders(void **state)
{
    const cachemw_key_t key = key_make(1);
    const apr_int64_t now = mw_monotonic();

    assert_int_equal(mw_mark_take(*state, &key, 111, now, LONG, NULL), 0);
    mw_mark_wait(*state, &key, now, now);
    assert_int_equal(mw_mark_holder(*state, &key, now, NULL), 111);
    assert_int_equal(mw_mark_take(*state, &key, 222, now, LONG, NULL), 111);
    mw_mark_release(*state, &key, 222, now);
    assert_int_equal(mw_mark_holder(*state, &key, now, NULL), 111);
    mw_mark_release(*state, &key, 111, now);
    assert_int_equal(mw_mark_holder(*state, &key, now, NULL), 0);
}

/** Hold mark 1, and 2 as well, until killed. */
static pid_t holder_start(mw_state_t *state)
{
    const pid_t pid = fork();
    unsigned int number;

    assert_int_not_equal(pid, -1);
    if (pid) {
        return pid;
    }
    for (number = 1; number <= 2; number++) {
        const cachemw_key_t key = key_make(number);

        mw_mark_take(state, &key, mw_mark_token(getpid()), 0, LONG, NULL);
    }
    for (;;) {
        pause();
    }
}

static void sleep_or_release_dead(void *baton, int i)
{
    sleep_t *all = baton;
    const cachemw_key_t key = key_make(1);
    pid_t pid;

    if (i) {
        mark_sleep(baton, i);
        return;
    }
    while (__atomic_load_n(&all->ready, __ATOMIC_SEQ_CST) < RUNNERS - 1) {
        sched_yield();
    }
    pid = (pid_t)(mw_mark_holder(all->state, &key, 0, NULL) >> 32);
    mw_marks_release_dead(all->state, pid, mw_monotonic());
}

static void test_marks_of_a_dead_process_are_let_go(void **state)
{
    sleep_t *all = sleep_make(*state);
    const apr_uint64_t mine = mw_mark_token(getpid());
    const pid_t pid = holder_start(*state);
    apr_int64_t now;

    assert_int_equal(mark_take(*state, 3, mine, 0, LONG / TICK), 0);
    while (mark_holder(*state, 2, 0) >> 32 != (apr_uint64_t)pid) {
        sched_yield();
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_not_equal(mark_holder(*state, 1, 0), 0);
    processes_run(RUNNERS, sleep_or_release_dead, all);
    assert_int_equal(all->woken, RUNNERS - 1);
    now = mw_monotonic() / TICK + 1;
    assert_int_equal(mark_holder(*state, 1, now), 0);
    assert_int_equal(mark_holder(*state, 2, now), 0);
    assert_int_equal(mark_holder(*state, 3, now), mine);
}

static void unstorable_note(mw_state_t *state, unsigned int number,
                            apr_int64_t now, apr_int64_t until)
{
    const cachemw_key_t key = key_make(number);

    mw_unstorable_note(state, &key, now, until);
}

static int unstorable_is_known(mw_state_t *state, unsigned int number,
                               apr_int64_t now)
{
    const cachemw_key_t key = key_make(number);

    return mw_unstorable_is_known(state, &key, now);
}

static void unstorable_forget(mw_state_t *state, unsigned int number)
{
    const cachemw_key_t key = key_make(number);

    mw_unstorable_forget(state, &key);
}

static void test_unstorable_for_a_time(void **state)
{
    assert_false(unstorable_is_known(*state, 1, 5000));
    unstorable_note(*state, 1, 5000, 15000);
    assert_true(unstorable_is_known(*state, 1, 5000));
    assert_true(unstorable_is_known(*state, 1, 14000));
    assert_false(unstorable_is_known(*state, 1, 15000));
    assert_false(unstorable_is_known(*state, 2, 5000));
    unstorable_note(*state, 1, 6000, 16000);
    assert_false(unstorable_is_known(*state, 1, 15000));
    unstorable_note(*state, 1, 12000, 22000);
    assert_true(unstorable_is_known(*state, 1, 21000));
    unstorable_forget(*state, 2);
    assert_true(unstorable_is_known(*state, 1, 21000));
    unstorable_forget(*state, 1);
    assert_false(unstorable_is_known(*state, 1, 12000));
}

/* Nothing of it stands in the way of a mark, and most are remembered. */
static void test_unstorable_many(void **state)
{
    int known = 0;
    unsigned int i;

    for (i = 0; i < 4000; i++) {
        unstorable_note(*state, i, 1, 1000000);
    }
    for (i = 0; i < 4000; i++) {
        known += unstorable_is_known(*state, i, 1);
    }
    assert_in_range(known, 3900, 4000);
    assert_int_equal(mark_take(*state, 1, 111, 1, 100), 0);
}

#define SHARED(f)                                          \
    cmocka_unit_test_setup_teardown(f, shared_state_setup, \
                                    shared_state_teardown)

static void test_marks_are_prolonged_by_their_holder(void **state)
{
    const cachemw_key_t key = key_make(1);

    assert_int_equal(mark_take(*state, 1, 111, 10, 20), 0);
    mw_mark_prolong(*state, &key, 222, 15 * TICK, 90 * TICK);
    assert_int_equal(mark_holder(*state, 1, 20), 0);
    mw_mark_prolong(*state, &key, 111, 15 * TICK, 50 * TICK);
    assert_int_equal(mark_holder(*state, 1, 49), 111);
    assert_int_equal(mark_holder(*state, 1, 50), 0);
    mw_mark_prolong(*state, &key, 111, 50 * TICK, 90 * TICK);
    assert_int_equal(mark_holder(*state, 1, 50), 0);
}

static int locks_count(mw_state_t *state, apr_int64_t now)
{
    mw_mark_lock_t lock = { 0 };
    int n = 0;

    while (mw_mark_lock_next(state, now * TICK, &lock)) {
        n++;
    }
    return n;
}

static void mark_release_at(mw_state_t *state, unsigned int number,
                            apr_uint64_t owner, apr_int64_t now)
{
    const cachemw_key_t key = key_make(number);

    mw_mark_release(state, &key, owner, now * TICK);
}

static void lock_note(mw_state_t *state, unsigned int number,
                      apr_uint64_t owner, apr_uint64_t name)
{
    const cachemw_key_t key = key_make(number);

    mw_mark_lock_note(state, &key, owner, name);
}

static int lock_forget(mw_state_t *state, unsigned int number,
                       apr_uint64_t owner)
{
    const cachemw_key_t key = key_make(number);

    return mw_mark_lock_forget(state, &key, owner);
}

static void test_locks_are_noted_with_marks(void **state)
{
    mw_mark_lock_t lock = { 0 };

    mark_take(*state, 1, 111, 10, 50);
    mark_take(*state, 2, 222, 10, 50);
    lock_note(*state, 1, 333, 7); /* does not hold it */
    assert_int_equal(locks_count(*state, 20), 0);
    lock_note(*state, 1, 111, 7);
    lock_note(*state, 2, 222, 0); /* a name like any other */
    assert_int_equal(locks_count(*state, 20), 2);
    assert_true(lock_forget(*state, 2, 222));
    assert_true(mw_mark_lock_next(*state, 20 * TICK, &lock));
    assert_int_equal(lock.name, 7);
    assert_int_equal(lock.owner, 111);
    assert_int_equal(lock.end, 50 * TICK);
    assert_true(lock.is_held);
    assert_true(mw_mark_lock_is_noted(*state, &lock));
    assert_false(mw_mark_lock_next(*state, 20 * TICK, &lock));
}

static void test_locks_of_who_is_gone_are_told_once(void **state)
{
    mw_mark_lock_t lock = { 0 };

    mark_take(*state, 1, 111, 10, 50);
    lock_note(*state, 1, 111, 7);
    mark_release_at(*state, 1, 111, 30);
    assert_true(mw_mark_lock_next(*state, 40 * TICK, &lock));
    assert_false(lock.is_held);
    assert_int_equal(lock.end, 30 * TICK);
    assert_true(mw_mark_lock_drop(*state, &lock));
    assert_false(mw_mark_lock_drop(*state, &lock));
    assert_false(mw_mark_lock_is_noted(*state, &lock));
    assert_false(lock_forget(*state, 1, 111));
}

static void test_locks_of_a_successor_are_its_own(void **state)
{
    mw_mark_lock_t lock = { 0 };

    mark_take(*state, 1, 111, 10, 20);
    lock_note(*state, 1, 111, 7);
    assert_true(mw_mark_lock_next(*state, 30 * TICK, &lock));
    mark_take(*state, 1, 222, 30, 90);
    assert_int_equal(locks_count(*state, 30), 0);
    lock_note(*state, 1, 222, 7);
    assert_false(mw_mark_lock_drop(*state, &lock));
    assert_true(mw_mark_lock_is_noted(*state, &lock));
    assert_false(lock_forget(*state, 1, 111));
    assert_int_equal(locks_count(*state, 30), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED(test_marks_one_holder),
        SHARED(test_marks_expire),
        SHARED(test_marks_release_of_a_former_holder_does_nothing),
        SHARED(test_marks_former_holders_of_any_token),
        SHARED(test_marks_any_token),
        SHARED(test_marks_seldom_shared),
        SHARED(test_marks_exclude_threads_and_processes),
        SHARED(test_marks_taken_over_in_threads),
        SHARED(test_marks_survive_kills),
        SHARED(test_marks_release_wakes_threads_and_processes),
        SHARED(test_marks_wait_ends),
        SHARED(test_marks_tell_when_the_last_one_ended),
#ifdef __linux__
        SHARED(test_marks_are_slept_for_without_a_futex),
#endif
        SHARED(test_marks_waited_for_are_the_holders),
        SHARED(test_marks_of_a_dead_process_are_let_go),
        SHARED(test_marks_are_prolonged_by_their_holder),
        SHARED(test_locks_are_noted_with_marks),
        SHARED(test_locks_of_who_is_gone_are_told_once),
        SHARED(test_locks_of_a_successor_are_its_own),
        SHARED(test_unstorable_for_a_time),
        SHARED(test_unstorable_many),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
