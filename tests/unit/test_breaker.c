/* SPDX-License-Identifier: Apache-2.0 */

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_general.h"

#include "tests/unit/shared.h"

#define SECOND APR_INT64_C(1000000)
#define RUNNERS 8

static mw_breaker_e breaker_kind(const mw_state_t *state)
{
    apr_status_t why;
    apr_int64_t until;

    return mw_breaker_read(state, &why, &until);
}

static apr_int64_t breaker_until(const mw_state_t *state)
{
    apr_status_t why;
    apr_int64_t until;

    mw_breaker_read(state, &why, &until);
    return until;
}

static void breaker_open(mw_state_t *state, apr_int64_t now)
{
    int i;

    for (i = 1; i < MW_BREAKER_FAILURES; i++) {
        assert_int_equal(mw_breaker_failure(state, now, 0, APR_EGENERAL), 0);
        assert_int_equal(mw_breaker_allows(state, now), 1);
    }
    assert_int_equal(mw_breaker_failure(state, now, 0, APR_TIMEUP), 1);
    assert_int_equal(mw_breaker_allows(state, now), 0);
}

static void test_breaker_opens_after_failures_in_a_row(void **state)
{
    apr_status_t why;
    apr_int64_t until;

    assert_int_equal(breaker_kind(*state), MW_BREAKER_CLOSED);
    breaker_open(*state, 100);
    assert_int_equal(mw_breaker_read(*state, &why, &until), MW_BREAKER_OPEN);
    assert_int_equal(why, APR_TIMEUP);
    assert_int_equal(until, 100 + SECOND - SECOND / 5);
    assert_int_equal(mw_breaker_failure(*state, 200, 0, APR_EGENERAL), 0);
    assert_int_equal(breaker_until(*state), until);
}

/* A backend that fails now and then is not switched off. */
static void test_breaker_success_in_between_resets(void **state)
{
    int round;
    int i;

    for (round = 0; round < 10; round++) {
        for (i = 1; i < MW_BREAKER_FAILURES; i++) {
            assert_int_equal(mw_breaker_failure(*state, 1, 0, APR_EGENERAL), 0);
        }
        assert_int_equal(mw_breaker_success(*state), 0);
    }
    assert_int_equal(breaker_kind(*state), MW_BREAKER_CLOSED);
    breaker_open(*state, 1);
}

static void test_breaker_one_probe_then_closed(void **state)
{
    apr_int64_t until;

    breaker_open(*state, 0);
    until = breaker_until(*state);
    assert_int_equal(mw_breaker_allows(*state, until - 1), 0);
    assert_int_equal(mw_breaker_allows(*state, until), 1);
    assert_int_equal(breaker_kind(*state), MW_BREAKER_PROBING);
    assert_int_equal(mw_breaker_allows(*state, until), 0);
    assert_int_equal(mw_breaker_allows(*state, until + SECOND / 2), 0);
    assert_int_equal(mw_breaker_success(*state), 1);
    assert_int_equal(breaker_kind(*state), MW_BREAKER_CLOSED);
    assert_int_equal(mw_breaker_success(*state), 0);
    assert_int_equal(mw_breaker_allows(*state, until), 1);
    breaker_open(*state, until);
}

/* That a probe could not be tried says nothing of the backend: the next call is
 * one, and the pause grows only with failures. */
static void test_breaker_probe_that_was_not_tried(void **state)
{
    apr_int64_t until;

    mw_breaker_untried(*state, 0);
    assert_int_equal(breaker_kind(*state), MW_BREAKER_CLOSED);
    breaker_open(*state, 0);
    until = breaker_until(*state);
    mw_breaker_untried(*state, 10);
    assert_int_equal(breaker_until(*state), until);
    assert_int_equal(mw_breaker_allows(*state, until - 1), 0);
    assert_int_equal(mw_breaker_allows(*state, until), 1);
    mw_breaker_untried(*state, until + 5);
    assert_int_equal(breaker_kind(*state), MW_BREAKER_OPEN);
    assert_int_equal(mw_breaker_allows(*state, until + 5), 1);
    assert_int_equal(mw_breaker_allows(*state, until + 5), 0);
    mw_breaker_failure(*state, until + 6, 0, APR_TIMEUP);
    assert_int_equal(breaker_until(*state), until + 6 + 2 * SECOND * 8 / 10);
}

/* Calls that began before the breaker opened report late. */
static void test_breaker_late_results_change_nothing(void **state)
{
    apr_int64_t until;

    breaker_open(*state, 0);
    until = breaker_until(*state);
    assert_int_equal(mw_breaker_success(*state), 0);
    assert_int_equal(mw_breaker_failure(*state, 10, 5, APR_EGENERAL), 0);
    assert_int_equal(breaker_kind(*state), MW_BREAKER_OPEN);
    assert_int_equal(breaker_until(*state), until);
}

static void test_breaker_pause_doubles_to_thirty_seconds(void **state)
{
    static const int seconds[] = { 1, 2, 4, 8, 16, 30, 30, 30 };
    apr_int64_t now = 12345;
    apr_uint32_t seed = 1;
    int i;

    breaker_open(*state, now);
    for (i = 0; i < COUNT(seconds); i++) {
        const apr_int64_t pause = breaker_until(*state) - now;

        assert_in_range(pause, seconds[i] * SECOND * 8 / 10,
                        seconds[i] * SECOND * 12 / 10);
        now = breaker_until(*state);
        assert_int_equal(mw_breaker_allows(*state, now), 1);
        now += 1000;
        assert_int_equal(
            mw_breaker_failure(*state, now, random_next(&seed), APR_EGENERAL),
            0);
    }
    now = breaker_until(*state);
    assert_int_equal(mw_breaker_allows(*state, now), 1);
    assert_int_equal(mw_breaker_success(*state), 1);
    breaker_open(*state, now);
    assert_int_equal(breaker_until(*state), now + SECOND * 8 / 10);
}

/* Machines that lost one backend at one instant must not come back at one
 * instant. */
static void test_breaker_pauses_vary_by_a_fifth(void **state)
{
    apr_int64_t least = 2 * SECOND;
    apr_int64_t most = 0;
    apr_uint32_t seed = 9;
    int round;
    int i;

    for (round = 0; round < 1000; round++) {
        memset(*state, 0, mw_state_size());
        mw_state_init(*state);
        for (i = 0; i < MW_BREAKER_FAILURES; i++) {
            mw_breaker_failure(*state, 0, random_next(&seed) * 251,
                               APR_EGENERAL);
        }
        least = least < breaker_until(*state) ? least : breaker_until(*state);
        most = most > breaker_until(*state) ? most : breaker_until(*state);
    }
    assert_in_range(least, SECOND * 80 / 100, SECOND * 82 / 100);
    assert_in_range(most, SECOND * 118 / 100, SECOND * 120 / 100);
}

static void test_breaker_lost_probe_is_given_up(void **state)
{
    apr_int64_t now;

    breaker_open(*state, 0);
    now = breaker_until(*state);
    assert_int_equal(mw_breaker_allows(*state, now), 1);
    assert_int_equal(mw_breaker_allows(*state, now + SECOND - 1), 0);
    assert_int_equal(mw_breaker_allows(*state, now + SECOND), 1);
    assert_int_equal(mw_breaker_allows(*state, now + SECOND), 0);
    assert_int_equal(mw_breaker_success(*state), 1);
}

/** The contract once more, in its plainest form, to compare with. */
typedef struct model_t {
    mw_breaker_e kind;
    int failures;
    int step;
    apr_int64_t until;
} model_t;

static int model_allows(model_t *model, apr_int64_t now)
{
    static const int pauses[] = { 1, 2, 4, 8, 16, 30 };

    if (model->kind == MW_BREAKER_CLOSED) {
        return 1;
    }
    if (now < model->until) {
        return 0;
    }
    model->kind = MW_BREAKER_PROBING;
    model->until = now + pauses[model->step] * SECOND;
    return 1;
}

static int model_success(model_t *model)
{
    const int closes = model->kind == MW_BREAKER_PROBING;

    if (model->kind != MW_BREAKER_OPEN) {
        memset(model, 0, sizeof(*model));
    }
    return closes;
}

static int model_failure(model_t *model, apr_int64_t until)
{
    if (model->kind == MW_BREAKER_OPEN) {
        return 0;
    }
    if (model->kind == MW_BREAKER_CLOSED
        && ++model->failures < MW_BREAKER_FAILURES) {
        return 0;
    }
    model->step = model->kind == MW_BREAKER_CLOSED ? 0
                  : model->step < 5                ? model->step + 1
                                                   : 5;
    model->until = until;
    model->failures = 0;
    if (model->kind == MW_BREAKER_CLOSED) {
        model->kind = MW_BREAKER_OPEN;
        return 1;
    }
    model->kind = MW_BREAKER_OPEN;
    return 0;
}

static void test_breaker_follows_its_model(void **state)
{
    model_t model = { MW_BREAKER_CLOSED, 0, 0, 0 };
    apr_uint32_t seed = 77;
    apr_int64_t now = 0;
    int opened = 0;
    int closed = 0;
    int i;

    for (i = 0; i < 300000; i++) {
        const apr_uint32_t what = random_next(&seed) % 10;
        const apr_uint32_t random = random_next(&seed);

        now +=
            random_next(&seed) % (random_next(&seed) % 5 ? 1000 : 2 * SECOND);
        if (what < 4) {
            assert_int_equal(mw_breaker_allows(*state, now),
                             model_allows(&model, now));
        }
        else if (what < 9) {
            const int result = mw_breaker_failure(*state, now, random, 1);

            assert_int_equal(result,
                             model_failure(&model, breaker_until(*state)));
            opened += result;
        }
        else {
            const int result = mw_breaker_success(*state);

            assert_int_equal(result, model_success(&model));
            closed += result;
        }
        assert_int_equal(breaker_kind(*state), model.kind);
        assert_int_equal(breaker_until(*state), model.until);
    }
    assert_true(opened > 100);
    assert_true(closed > 100);
}

typedef struct race_t {
    mw_state_t *state;
    apr_int64_t now;
    int yes;
} race_t;

static void probe_try(void *baton, int i)
{
    race_t *race = baton;

    (void)i;
    if (mw_breaker_allows(race->state, race->now)) {
        __atomic_fetch_add(&race->yes, 1, __ATOMIC_RELAXED);
    }
}

/* A sick backend gets one call, not one per thread. */
static void test_breaker_exactly_one_probe_among_threads(void **state)
{
    race_t race = { *state, 0, 0 };
    int round;

    breaker_open(*state, 0);
    for (round = 0; round < 500; round++) {
        race.now = breaker_until(*state);
        race.yes = 0;
        threads_run(RUNNERS, probe_try, &race);
        assert_int_equal(race.yes, 1);
        mw_breaker_failure(*state, race.now, round, APR_EGENERAL);
    }
}

static void test_breaker_exactly_one_probe_among_processes(void **state)
{
    race_t *race = shared_make(sizeof(*race));
    int round;

    race->state = *state;
    breaker_open(*state, 0);
    for (round = 0; round < 50; round++) {
        race->now = breaker_until(*state);
        race->yes = 0;
        processes_run(RUNNERS, probe_try, race);
        assert_int_equal(race->yes, 1);
    }
}

static void failure_report(void *baton, int i)
{
    race_t *race = baton;

    if (mw_breaker_failure(race->state, race->now, i, APR_EGENERAL)) {
        __atomic_fetch_add(&race->yes, 1, __ATOMIC_RELAXED);
    }
}

static void success_report(void *baton, int i)
{
    race_t *race = baton;

    (void)i;
    if (mw_breaker_success(race->state)) {
        __atomic_fetch_add(&race->yes, 1, __ATOMIC_RELAXED);
    }
}

/* The log gets one line for "opened" and one for "closed". */
static void test_breaker_exactly_one_opens_and_one_closes(void **state)
{
    race_t race = { *state, 0, 0 };
    int round;

    for (round = 0; round < 300; round++) {
        race.now = round * 100 * SECOND;
        race.yes = 0;
        threads_run(RUNNERS, failure_report, &race);
        assert_int_equal(race.yes, 1);
        assert_int_equal(mw_breaker_allows(*state, breaker_until(*state)), 1);
        race.yes = 0;
        threads_run(RUNNERS, success_report, &race);
        assert_int_equal(race.yes, 1);
        assert_int_equal(breaker_kind(*state), MW_BREAKER_CLOSED);
    }
}

typedef struct kills_t {
    mw_state_t *state;
    apr_int64_t now;
    apr_uint32_t steps;
} kills_t;

static void calls_make(kills_t *kills, apr_uint32_t seed)
{
    for (;;) {
        const apr_int64_t now =
            __atomic_add_fetch(&kills->now, SECOND / 100, __ATOMIC_RELAXED);

        if (mw_breaker_allows(kills->state, now)) {
            if (random_next(&seed) % 3) {
                mw_breaker_failure(kills->state, now, random_next(&seed),
                                   APR_EGENERAL);
            }
            else {
                mw_breaker_success(kills->state);
            }
        }
        __atomic_fetch_add(&kills->steps, 1, __ATOMIC_RELAXED);
    }
}

/* Wherever a child dies, the backend is asked again after a while. */
static void test_breaker_survives_kills(void **state)
{
    kills_t *kills = shared_make(sizeof(*kills));
    apr_uint32_t seed = 5;
    int round;

    kills->state = *state;
    for (round = 0; round < 200; round++) {
        const apr_uint32_t stop = kills->steps + random_next(&seed) % 2000;
        apr_int64_t now;
        pid_t pid = fork();

        assert_int_not_equal(pid, -1);
        if (!pid) {
            calls_make(kills, random_next(&seed));
        }
        while (__atomic_load_n(&kills->steps, __ATOMIC_RELAXED) < stop) {
            sched_yield();
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        now = kills->now + MW_BREAKER_BACKOFF_MAX * 12 / 10;
        assert_int_equal(mw_breaker_allows(*state, now), 1);
        mw_breaker_success(*state);
        assert_int_equal(breaker_kind(*state), MW_BREAKER_CLOSED);
        kills->now = now;
    }
}

/* How many changes are told when it opens and closes at `now`. */
static unsigned int breaker_flap(mw_state_t *state, apr_int64_t now)
{
    const apr_int64_t later = now + 2 * MW_BREAKER_BACKOFF_MAX;
    unsigned int told = 0;
    int i;

    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        mw_breaker_failure(state, now, 0, APR_EGENERAL);
    }
    told += mw_breaker_news(state, now);
    assert_int_equal(mw_breaker_allows(state, later), 1);
    mw_breaker_success(state);
    return told + mw_breaker_news(state, now);
}

static void test_breaker_news_are_changes(void **state)
{
    assert_false(mw_breaker_has_news(*state));
    assert_int_equal(mw_breaker_news(*state, 0), 0);
    breaker_open(*state, 100);
    assert_true(mw_breaker_has_news(*state));
    assert_int_equal(mw_breaker_news(*state, 100), 1);
    assert_false(mw_breaker_has_news(*state));
    assert_int_equal(mw_breaker_news(*state, 100), 0);
    assert_int_equal(mw_breaker_allows(*state, 10 * SECOND), 1);
    assert_int_equal(mw_breaker_failure(*state, 10 * SECOND, 0, APR_EGENERAL),
                     0);
    assert_false(mw_breaker_has_news(*state));
}

/* Nothing is lost: what was not told at once is counted with what is. */
static void test_breaker_news_are_told_at_a_limited_rate(void **state)
{
    unsigned int i, told = 0, lines;

    for (i = 0; i < 5; i++) {
        assert_int_equal(breaker_flap(*state, 0), 2);
    }
    for (i = 0; i < 20; i++) {
        assert_int_equal(breaker_flap(*state, SECOND), 0);
    }
    assert_true(mw_breaker_has_news(*state));
    assert_int_equal(mw_breaker_news(*state, 10 * SECOND), 40);
    /* two a second, for ten minutes */
    for (i = 0, lines = 0; i < 600; i++) {
        unsigned int news = breaker_flap(*state, (10 + i) * SECOND);

        told += news;
        lines += news > 0;
    }
    assert_in_range(lines, 58, 61);
    told += mw_breaker_news(*state, 700 * SECOND);
    assert_int_equal(told, 1200);
    /* and after a quiet time all of them again */
    for (i = 0; i < 5; i++) {
        assert_int_equal(breaker_flap(*state, 900 * SECOND), 2);
    }
}

static void test_reason_is_that_of_the_last_failure(void **state)
{
    char text[MW_REASON_MAX], filled[2 * MW_REASON_MAX];
    apr_uint32_t kind;

    assert_false(mw_reason_read(*state, 0, &kind, text));
    mw_reason_note(*state, APR_EOF, 7, "a host ended it");
    assert_true(mw_reason_read(*state, APR_EOF, &kind, text));
    assert_string_equal(text, "a host ended it");
    assert_int_equal(kind, 7);
    assert_false(mw_reason_read(*state, APR_TIMEUP, &kind, text));
    memset(filled, 'x', sizeof(filled));
    filled[sizeof(filled) - 1] = '\0';
    mw_reason_note(*state, APR_EOF, 8, filled);
    assert_true(mw_reason_read(*state, APR_EOF, &kind, text));
    assert_int_equal(strlen(text), MW_REASON_MAX - 1);
    assert_int_equal(kind, 8);
}

/* What two wrote at once is either's words, or none. */
static void test_reason_is_never_mixed(void **state)
{
    static const char *const texts[] = { "the one is a long text, of many words"
                                         " that all of them must be the same",
                                         "another one, just as long, so that"
                                         " bytes of both would be seen there" };
    char text[MW_REASON_MAX];
    apr_uint32_t kind;
    int i, status;
    pid_t pid, ended;

    pid = fork();
    for (i = 0; pid == 0 && i < 200000; i++) {
        mw_reason_note(*state, 1, 1, texts[i % 2]);
    }
    if (pid == 0) {
        _exit(0);
    }
    i = 0;
    do {
        ended = waitpid(pid, &status, WNOHANG);
        mw_reason_note(*state, 1, 1, texts[i++ % 2]);
        if (mw_reason_read(*state, 1, &kind, text)) {
            assert_true(!strcmp(text, texts[0]) || !strcmp(text, texts[1]));
        }
    } while (ended == 0);
    assert_int_equal(status, 0);
    assert_true(mw_reason_read(*state, 1, &kind, text));
}

#define SHARED(f)                                          \
    cmocka_unit_test_setup_teardown(f, shared_state_setup, \
                                    shared_state_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED(test_breaker_opens_after_failures_in_a_row),
        SHARED(test_breaker_success_in_between_resets),
        SHARED(test_breaker_one_probe_then_closed),
        SHARED(test_breaker_probe_that_was_not_tried),
        SHARED(test_breaker_late_results_change_nothing),
        SHARED(test_breaker_pause_doubles_to_thirty_seconds),
        SHARED(test_breaker_pauses_vary_by_a_fifth),
        SHARED(test_breaker_lost_probe_is_given_up),
        SHARED(test_breaker_follows_its_model),
        SHARED(test_breaker_exactly_one_probe_among_threads),
        SHARED(test_breaker_exactly_one_probe_among_processes),
        SHARED(test_breaker_exactly_one_opens_and_one_closes),
        SHARED(test_breaker_survives_kills),
        SHARED(test_breaker_news_are_changes),
        SHARED(test_breaker_news_are_told_at_a_limited_rate),
        SHARED(test_reason_is_that_of_the_last_failure),
        SHARED(test_reason_is_never_mixed),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
