/* SPDX-License-Identifier: Apache-2.0 */

/* Random calls whose results can be judged whatever others do meanwhile. */

#include "harness.h"

typedef struct mixer_t {
    ct_t *c;
    const ct_mix_t *mix;
    apr_uint64_t random;
    apr_uint32_t version; /* of what it stores next; no other actor's */
    cachemw_key_t key;    /* of this round */
} mixer_t;

static apr_uint64_t pick(mixer_t *m, apr_uint64_t n)
{
    return ct_random(&m->random) % n;
}

static ct_item_t item_make(mixer_t *m)
{
    apr_off_t length = (apr_off_t)1 << pick(m, 18);
    ct_item_t item;

    length += (apr_off_t)pick(m, (apr_uint64_t)length) - 1;
    length = length < m->mix->length_max ? length : m->mix->length_max;
    item = ct_item(m->c, &m->key, m->version++, length);
    item.head_len = CT_HEAD_MIN + pick(m, 2000);
    item.expires += (apr_time_t)pick(m, 1000000);
    return item;
}

/* Trouble is none of the outcomes; too little room may be one. */
static void outcome_check(ct_t *c, apr_status_t rv, apr_status_t also,
                          const char *what)
{
    if (rv != also) {
        ct_status(c, rv, APR_SUCCESS, "%s, while others work on the same keys",
                  what);
    }
}

/* Through core, a clear by another actor refuses what was begun before it. */
static void stored_check(mixer_t *m, apr_status_t rv, const char *what)
{
    if (rv == APR_NOTFOUND && m->mix->clears && !ct_streams(m->c)) {
        return;
    }
    outcome_check(m->c, rv, APR_ENOSPC, what);
}

static void mix_set(mixer_t *m)
{
    ct_item_t item = item_make(m);

    stored_check(m, ct_try_store(m->c, &item), "set");
}

static void mix_stream(mixer_t *m)
{
    ct_item_t item = item_make(m);
    apr_size_t piece = 1 + pick(m, 40000);
    int announce = (int)pick(m, 2);

    stored_check(m, ct_try_stream(m->c, &item, piece, announce), "streaming");
}

static void mix_abort(mixer_t *m)
{
    ct_item_t item = item_make(m);
    cachemw_entry_t entry = ct_item_entry(&item, m->c->pool);
    ct_set_t set;
    apr_status_t rv = ct_begin(m->c, &m->key, &entry, &set);

    if (rv == APR_SUCCESS) {
        rv = ct_write(m->c, &set, "x", 1);
        ct_abort(m->c, &set);
    }
    stored_check(m, item.body_len > 0 ? rv : APR_SUCCESS,
                 "set_begin and set_write");
}

static void mix_amend(mixer_t *m)
{
    ct_item_t item;

    if (ct_see(m->c, &m->key, &item)) {
        apr_status_t rv;

        item.head_version = m->version++;
        item.head_len = CT_HEAD_MIN + pick(m, 3000);
        item.expires = m->c->now + CT_HOUR + (apr_time_t)pick(m, 1000000);
        rv = ct_amend(m->c, &item);
        if (rv != APR_ENOSPC) {
            outcome_check(m->c, rv, APR_NOTFOUND, "set_head");
        }
    }
}

static void mix_remove(mixer_t *m)
{
    ct_item_t item;

    if (pick(m, 2) == 0) {
        outcome_check(m->c, ct_remove(m->c, &m->key, NULL), APR_SUCCESS,
                      "remove");
    }
    else if (ct_see(m->c, &m->key, &item)) {
        outcome_check(m->c, ct_remove(m->c, &m->key, &item.id), APR_NOTFOUND,
                      "remove by id");
    }
}

static void mix_rest(mixer_t *m)
{
    cachemw_stats_t stats = { 0 };
    apr_status_t rv;
    int more;

    outcome_check(m->c, ct_exists(m->c, &m->key), APR_NOTFOUND, "exists");
    if (ct_sweeps(m->c)) {
        outcome_check(m->c, ct_sweep(m->c, 1000, &more), APR_SUCCESS, "sweep");
    }
    if (ct_counts(m->c)) {
        outcome_check(m->c, ct_stats(m->c, &stats), APR_SUCCESS, "stats");
    }
    if (m->mix->clears && pick(m, 4) == 0) {
        rv = ct_clear(m->c);
        outcome_check(m->c, rv, APR_ENOTIMPL, "clear");
    }
}

static void mix_see(mixer_t *m)
{
    ct_see(m->c, &m->key, NULL);
}

static const struct {
    unsigned int share; /* of 100 */
    void (*act)(mixer_t *m);
} acts[] = {
    { 40, mix_see },  { 25, mix_set },   { 12, mix_stream }, { 5, mix_abort },
    { 8, mix_amend }, { 7, mix_remove }, { 3, mix_rest },
};

void ct_mix(ct_t *c, int index, void *baton)
{
    const ct_mix_t *mix = baton;
    mixer_t m = { .c = c, .mix = mix };
    apr_pool_t *outer = c->pool;
    int round;

    m.random = 77 + (apr_uint64_t)index;
    m.version = (apr_uint32_t)index << 24;
    for (round = 0; mix->rounds ? round < mix->rounds : !ct_heard(c); round++) {
        apr_uint64_t what = pick(&m, 100);
        int i;

        apr_pool_create(&c->pool, outer);
        m.key = ct_key(c, "mix/%d", (int)pick(&m, (apr_uint64_t)mix->keys));
        for (i = 0; what >= acts[i].share; i++) {
            what -= acts[i].share;
        }
        acts[i].act(&m);
        apr_pool_destroy(c->pool);
        c->pool = outer;
    }
}
