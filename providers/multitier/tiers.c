/* SPDX-License-Identifier: Apache-2.0 */

#include "tiers.h"

#define NOTES 4096
#define SPREAD 64 /* places to count at */

/* As long as a line of the cache. */
typedef struct answers_t {
    apr_uint64_t n[MW_TIERS_MAX];
} answers_t;

struct mw_tiers_shared_t {
    answers_t answers[SPREAD];
    apr_uint64_t counts[MW_TIERS_COUNTS];
    apr_uint64_t notes[NOTES];
    mw_heard_t heard;
    mw_changes_t changes;
};

apr_size_t mw_tiers_shared_size(void)
{
    return sizeof(mw_tiers_shared_t);
}

void mw_tiers_share(mw_tiers_t *tiers, void *segment)
{
    tiers->shared = segment;
    tiers->heard = &tiers->shared->heard;
    tiers->changes = &tiers->shared->changes;
}

apr_time_t mw_tier_expires(double ratio, apr_time_t now, apr_time_t behind)
{
    const apr_time_t left = behind - now;
    apr_time_t life = (apr_time_t)((double)left * ratio);

    if (life < MW_TIER_LIFE_MIN) {
        life = MW_TIER_LIFE_MIN;
    }
    /* the product of a large number is not exact */
    return life < left ? now + life : behind;
}

void mw_tiers_expire(const mw_tiers_t *tiers, apr_time_t now, int from,
                     apr_time_t *expires)
{
    int i;

    for (i = from - 1; i >= 0; i--) {
        expires[i] = mw_tier_expires(tiers->ratio, now, expires[i + 1]);
    }
}

unsigned int mw_tiers_fit(const mw_tiers_t *tiers, apr_off_t length)
{
    unsigned int which = 0;
    int i;

    for (i = 0; i < tiers->n; i++) {
        which |= (unsigned int)(length <= tiers->tier[i].largest) << i;
    }
    return which;
}

int mw_tiers_remote(const mw_tiers_t *tiers, unsigned int which)
{
    int n = 0;
    int i;

    for (i = 0; i < tiers->n; i++) {
        n +=
            (which & 1u << i) && (tiers->tier[i].table->flags & CACHEMW_REMOTE);
    }
    return n;
}

const cachemw_call_t *mw_tier_call(const mw_tiers_t *tiers, int at,
                                   const cachemw_call_t *call,
                                   cachemw_call_t *own, int *left)
{
    const cachemw_services_t *services = tiers->services;
    const int is_remote = (tiers->tier[at].table->flags & CACHEMW_REMOTE) != 0;

    *left -= is_remote;
    if (!call->deadline || (is_remote && *left <= 0)) {
        return call;
    }
    *own = *call;
    own->deadline =
        is_remote ? services->deadline_in(
            services, call, services->remaining(services, call) / (*left + 1))
                  : 0;
    return own;
}

static int answer_rank(apr_status_t rv)
{
    switch (rv) {
    case APR_EGENERAL:
        return 0;
    case APR_NOTFOUND:
        return 1;
    case APR_ENOSPC:
        return 2;
    default:
        return 3;
    }
}

apr_status_t mw_tiers_answer(apr_status_t a, apr_status_t b)
{
    return answer_rank(b) > answer_rank(a) ? b : a;
}

apr_status_t mw_tiers_lost(apr_status_t a, apr_status_t b)
{
    return a == APR_NOTFOUND || (a == APR_EGENERAL && b != APR_NOTFOUND) ? b
                                                                         : a;
}

/* FNV-1a. Who makes keys that share a note keeps them from being filled in at
 * the moment that another one changes. */
apr_uint64_t mw_tiers_hash(const cachemw_key_t *key)
{
    apr_uint64_t hash = APR_UINT64_C(14695981039346656037);
    apr_size_t i;

    for (i = 0; i < key->len; i++) {
        hash =
            (hash ^ (unsigned char)key->data[i]) * APR_UINT64_C(1099511628211);
    }
    return hash;
}

static apr_uint64_t *note_of(const mw_tiers_t *tiers, const cachemw_key_t *key)
{
    const apr_uint64_t hash = mw_tiers_hash(key);

    return &tiers->shared->notes[(hash ^ hash >> 32) % NOTES];
}

apr_uint64_t mw_note_read(const mw_tiers_t *tiers, const cachemw_key_t *key)
{
    return __atomic_load_n(note_of(tiers, key), __ATOMIC_SEQ_CST);
}

void mw_note_change(mw_tiers_t *tiers, const cachemw_key_t *key)
{
    __atomic_fetch_add(note_of(tiers, key), 1, __ATOMIC_SEQ_CST);
}

void mw_note_change_all(mw_tiers_t *tiers)
{
    int i;

    for (i = 0; i < NOTES; i++) {
        __atomic_fetch_add(&tiers->shared->notes[i], 1, __ATOMIC_SEQ_CST);
    }
}

/* Threads should merely meet rarely: their stacks tell them apart, as in core's
 * counters. */
void mw_tiers_answered(mw_tiers_t *tiers, int at)
{
    char here;
    const apr_uint64_t thread =
        tiers->process + ((apr_uint64_t)(apr_uintptr_t)&here >> 16);
    answers_t *answers =
        &tiers->shared
             ->answers[thread * APR_UINT64_C(0x9E3779B97F4A7C15) >> 58];

    __atomic_fetch_add(&answers->n[at], 1, __ATOMIC_RELAXED);
}

apr_int64_t mw_tiers_answers(const mw_tiers_t *tiers, int at)
{
    apr_uint64_t sum = 0;
    int i;

    for (i = 0; i < SPREAD; i++) {
        sum +=
            __atomic_load_n(&tiers->shared->answers[i].n[at], __ATOMIC_RELAXED);
    }
    return (apr_int64_t)sum;
}

void mw_tiers_count(mw_tiers_t *tiers, mw_tiers_count_e which)
{
    __atomic_fetch_add(&tiers->shared->counts[which], 1, __ATOMIC_RELAXED);
}

apr_int64_t mw_tiers_counted(const mw_tiers_t *tiers, mw_tiers_count_e which)
{
    return (apr_int64_t)__atomic_load_n(&tiers->shared->counts[which],
                                        __ATOMIC_RELAXED);
}
