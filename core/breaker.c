/* SPDX-License-Identifier: Apache-2.0 */

#include "core/state_layout.h"

/*
 * The whole decision is one word, changed by compare-and-swap only, so there is
 * no instant at which a process could die and leave half of it:
 *
 *     63                           12  11 10    9     8   7   4  3       0
 *     +------------------------------+------+------+----+------+---------+
 *     | until, monotonic µs (142 y)  |  -   | prob | op | step | failures|
 *     +------------------------------+------+------+----+------+---------+
 *
 * closed:  failures in a row so far
 * open:    no call before until; step tells how long the pause is
 * probing: open, and one call is under way; until is when it is given up
 *
 * A probe whose process died therefore becomes "the pause is over" by itself.
 * While the breaker is open and no probe is under way, nothing counts that calls
 * report: they began before it opened. While one is, such a call's result is
 * taken for the probe's.
 */

#define FAILURES APR_UINT64_C(0xf)
#define STEP_SHIFT 4
#define STEP_MASK 0xf
#define OPEN APR_UINT64_C(0x100)
#define PROBING APR_UINT64_C(0x200)
#define UNTIL_SHIFT 12

#define STEP_MAX 5 /* 1, 2, 4, 8, 16, 30 s */

/* A backend that works now and then would fill the log. */
#define LINES 10
#define LINE_PERIOD APR_INT64_C(10000000)

static apr_int64_t word_until(apr_uint64_t word)
{
    return (apr_int64_t)(word >> UNTIL_SHIFT);
}

static int word_step(apr_uint64_t word)
{
    return (int)(word >> STEP_SHIFT) & STEP_MASK;
}

static apr_uint64_t word_make_open(apr_int64_t until, int step)
{
    return (apr_uint64_t)until << UNTIL_SHIFT | (apr_uint64_t)step << STEP_SHIFT
           | OPEN;
}

static apr_int64_t step_pause(int step)
{
    const apr_int64_t pause = (apr_int64_t)MW_BREAKER_BACKOFF << step;

    return pause < MW_BREAKER_BACKOFF_MAX ? pause : MW_BREAKER_BACKOFF_MAX;
}

/** The pause, up to a fifth shorter or longer. */
static apr_int64_t step_vary(int step, apr_uint32_t random)
{
    const apr_int64_t pause = step_pause(step);
    const apr_int64_t fifth = pause / 5;

    return pause - fifth + random % (2 * fifth + 1);
}

static apr_uint64_t word_load(const mw_state_t *state)
{
    return __atomic_load_n(&state->breaker.word, __ATOMIC_RELAXED);
}

static int word_swap(mw_state_t *state, apr_uint64_t *old, apr_uint64_t word)
{
    return __atomic_compare_exchange_n(&state->breaker.word, old, word, 0,
                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

int mw_breaker_allows(mw_state_t *state, apr_int64_t now)
{
    apr_uint64_t word = word_load(state);
    int step;

    if (!(word & OPEN)) {
        return 1;
    }
    if (now < word_until(word)) {
        return 0;
    }
    step = word_step(word);
    return word_swap(state, &word,
                     word_make_open(now + step_pause(step), step) | PROBING);
}

static int breaker_changed(mw_state_t *state, int is_changed)
{
    if (is_changed) {
        __atomic_fetch_add(&state->breaker.news, 1, __ATOMIC_RELAXED);
    }
    return is_changed;
}

int mw_breaker_success(mw_state_t *state)
{
    apr_uint64_t word = word_load(state);

    for (;;) {
        if (!word || ((word & OPEN) && !(word & PROBING))) {
            return 0;
        }
        if (word_swap(state, &word, 0)) {
            return breaker_changed(state, (word & OPEN) != 0);
        }
    }
}

void mw_breaker_untried(mw_state_t *state, apr_int64_t now)
{
    apr_uint64_t word = word_load(state);

    while ((word & PROBING)
           && !word_swap(state, &word, word_make_open(now, word_step(word)))) {
    }
}

/** The word after a failure; the same word: nothing changes. */
static apr_uint64_t word_fail(apr_uint64_t word, apr_int64_t now,
                              apr_uint32_t random)
{
    int step = 0;

    if (word & PROBING) {
        step = word_step(word) < STEP_MAX ? word_step(word) + 1 : STEP_MAX;
    }
    else if (word & OPEN) {
        return word;
    }
    else if ((word & FAILURES) + 1 < MW_BREAKER_FAILURES) {
        return word + 1;
    }
    return word_make_open(now + step_vary(step, random), step);
}

int mw_breaker_failure(mw_state_t *state, apr_int64_t now, apr_uint32_t random,
                       apr_status_t why)
{
    apr_uint64_t word = word_load(state);
    apr_uint64_t next;

    __atomic_store_n(&state->breaker.why, why, __ATOMIC_RELAXED);
    do {
        next = word_fail(word, now, random);
    } while (next != word && !word_swap(state, &word, next));
    return breaker_changed(state, (next & OPEN) && !(word & OPEN));
}

mw_breaker_e mw_breaker_read(const mw_state_t *state, apr_status_t *why,
                             apr_int64_t *until)
{
    const apr_uint64_t word = word_load(state);

    *why = __atomic_load_n(&state->breaker.why, __ATOMIC_RELAXED);
    *until = word_until(word);
    if (word & PROBING) {
        return MW_BREAKER_PROBING;
    }
    return word & OPEN ? MW_BREAKER_OPEN : MW_BREAKER_CLOSED;
}

int mw_breaker_has_news(const mw_state_t *state)
{
    return __atomic_load_n(&state->breaker.news, __ATOMIC_RELAXED) != 0;
}

/* Each line uses up a share of time; LINES of them may be ahead of it. */
static int line_pay(mw_state_t *state, apr_int64_t now)
{
    apr_int64_t paid = __atomic_load_n(&state->breaker.paid, __ATOMIC_RELAXED);
    apr_int64_t next;

    do {
        next = (paid > now ? paid : now) + LINE_PERIOD;
        if (next > now + LINES * LINE_PERIOD) {
            return 0;
        }
    } while (!__atomic_compare_exchange_n(&state->breaker.paid, &paid, next, 0,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return 1;
}

apr_uint32_t mw_breaker_news(mw_state_t *state, apr_int64_t now)
{
    apr_uint32_t news =
        __atomic_exchange_n(&state->breaker.news, 0, __ATOMIC_RELAXED);

    if (news && !line_pay(state, now)) {
        __atomic_fetch_add(&state->breaker.news, news, __ATOMIC_RELAXED);
        news = 0;
    }
    return news;
}
