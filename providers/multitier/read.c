/* SPDX-License-Identifier: Apache-2.0 */

#include "watch.h"

/* A bit for each tier that may be asked. */
static inline unsigned int tiers_believed(const mw_tiers_t *tiers,
                                          apr_time_t now)
{
    return !tiers->watched
                   || mw_watch_believes(
                       __atomic_load_n(&tiers->heard->alive_until,
                                       __ATOMIC_ACQUIRE),
                       now)
               ? ~0u
               : mw_watch_believed(tiers, now);
}

/* From the tier `first` on. Apart, so that a hit in the nearest tier saves no
 * registers for it. A tier that is doubted before the note is read must not be
 * what a nearer one is filled from. */
static apr_status_t __attribute__((noinline))
get_behind(mw_tiers_t *tiers, const cachemw_call_t *call,
           const cachemw_key_t *key, cachemw_entry_t *entry, int first,
           unsigned int missed, apr_status_t answer)
{
    const apr_uint64_t note = mw_note_read(tiers, key);
    const unsigned int believed = tiers_believed(tiers, call->now);
    int left = mw_tiers_remote(tiers, believed & ~0u << first);
    cachemw_call_t own;
    apr_status_t rv;
    int i;

    if (believed != ~0u) {
        __atomic_fetch_add(&tiers->heard->bypassed, 1, __ATOMIC_RELAXED);
    }
    for (i = first; i < tiers->n; i++) {
        const mw_tier_t *tier = &tiers->tier[i];

        if (!(believed & 1u << i)) {
            continue;
        }
        rv = tier->table->get(
            tier->self, mw_tier_call(tiers, i, call, &own, &left), key, entry);
        if (rv == APR_SUCCESS) {
            mw_tiers_answered(tiers, i);
            mw_fill_begin(tiers, call, key, entry, i, missed, note);
            return APR_SUCCESS;
        }
        missed |= (unsigned int)(rv == APR_NOTFOUND) << i;
        answer = mw_tiers_lost(answer, rv);
    }
    return answer;
}

/* From the tier that other servers share. What is before it is older and goes;
 * the next look-up brings it near. */
static apr_status_t __attribute__((noinline, cold))
get_shared(mw_tiers_t *tiers, const cachemw_call_t *call,
           const cachemw_key_t *key, cachemw_entry_t *entry)
{
    const int at = mw_tiers_shared_by_servers(tiers);
    apr_status_t rv = APR_NOTFOUND;
    int i;

    if (at > 0) {
        rv = tiers->tier[at].table->get(tiers->tier[at].self, call, key, entry);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_tiers_answered(tiers, at);
    for (i = at - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];

        if (!mw_tier_is_shared(tiers, i)) {
            mw_note_change(tiers, key);
            mw_change_check(tiers, i,
                            tier->table->remove(tier->self, call, key, NULL));
        }
    }
    return APR_SUCCESS;
}

apr_status_t mw_tiers_get(void *store, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_tiers_t *tiers = store;
    const mw_tier_t *near = tiers->tier;
    int left = tiers->nremote;
    const int is_believed = tiers_believed(tiers, call->now) & 1u;
    cachemw_call_t own;
    apr_status_t rv;

    if (call->context == CACHEMW_FARTHEST
        && get_shared(tiers, call, key, entry) == APR_SUCCESS) {
        return APR_SUCCESS;
    }
    if (!is_believed) {
        return get_behind(tiers, call, key, entry, 1, 0, APR_NOTFOUND);
    }
    rv = near->table->get(
        near->self, left ? mw_tier_call(tiers, 0, call, &own, &left) : call,
        key, entry);
    if (rv != APR_SUCCESS) {
        return get_behind(tiers, call, key, entry, 1, rv == APR_NOTFOUND, rv);
    }
    mw_tiers_answered(tiers, 0);
    return APR_SUCCESS;
}

apr_status_t mw_tiers_read(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body)
{
    mw_tiers_t *tiers = store;
    apr_bucket *last = APR_BRIGADE_LAST(body);
    mw_fill_t *fill = mw_fill_take_piece(tiers, id, offset);
    int first = fill ? mw_fill_from(fill) : 0;
    int left = tiers->nremote;
    apr_status_t answer = APR_NOTFOUND;
    apr_status_t rv = APR_NOTFOUND;
    cachemw_call_t own;
    int i;

    for (i = 0; i < tiers->n && rv != APR_SUCCESS; i++) {
        int at = (first + i) % tiers->n;
        const mw_tier_t *tier = &tiers->tier[at];

        rv = tier->table->read(tier->self,
                               mw_tier_call(tiers, at, call, &own, &left), key,
                               id, offset, limit, body);
        answer = mw_tiers_lost(answer, rv);
    }
    if (fill) {
        /* the sentinel's successor is the first bucket */
        mw_fill_end_piece(fill, body,
                          rv == APR_SUCCESS ? APR_BUCKET_NEXT(last) : NULL);
    }
    return rv == APR_SUCCESS ? rv : answer;
}

apr_status_t mw_tiers_exists(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key)
{
    mw_tiers_t *tiers = store;
    const unsigned int believed = tiers_believed(tiers, call->now);
    int left = mw_tiers_remote(tiers, believed);
    apr_status_t answer = APR_NOTFOUND;
    apr_status_t rv = APR_NOTFOUND;
    cachemw_call_t own;
    int i;

    for (i = 0; i < tiers->n && rv != APR_SUCCESS; i++) {
        const mw_tier_t *tier = &tiers->tier[i];

        if (!(believed & 1u << i)) {
            continue;
        }
        rv = tier->table->exists(
            tier->self, mw_tier_call(tiers, i, call, &own, &left), key);
        answer = mw_tiers_lost(answer, rv);
    }
    return rv == APR_SUCCESS ? rv : answer;
}

typedef struct keys_t {
    mw_tiers_t *tiers;
    const cachemw_call_t *call;
    int at;
    cachemw_keys_fn *each;
    void *baton;
    apr_status_t stopped;
    unsigned int told; /* a bit for each tier of which all is */
} keys_t;

/* What a tier behind has was told of already. One that is in trouble now but
 * was not then may have it: nobody knows, so that is the end. */
static apr_status_t keys_once(void *baton, const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    keys_t *keys = baton;
    int i;

    for (i = keys->at + 1; i < keys->tiers->n; i++) {
        const mw_tier_t *tier = &keys->tiers->tier[i];
        apr_status_t rv = tier->table->exists(tier->self, keys->call, key);

        if (rv == APR_SUCCESS) {
            return rv;
        }
        if (rv != APR_NOTFOUND && (keys->told & 1u << i)) {
            keys->stopped = rv;
            return rv;
        }
    }
    keys->stopped = keys->each(keys->baton, key, entry);
    return keys->stopped;
}

apr_status_t mw_tiers_keys(void *store, const cachemw_call_t *call,
                           const char *pattern, cachemw_keys_fn *each,
                           void *baton)
{
    mw_tiers_t *tiers = store;
    keys_t keys = { tiers, call, 0, each, baton, APR_SUCCESS, 0 };
    apr_status_t first = APR_SUCCESS;
    apr_status_t rv;

    for (keys.at = tiers->n - 1; keys.at >= 0; keys.at--) {
        const mw_tier_t *tier = &tiers->tier[keys.at];

        rv = tier->table->keys(tier->self, call, pattern, keys_once, &keys);
        if (keys.stopped != APR_SUCCESS) {
            return keys.stopped;
        }
        keys.told |= (unsigned int)(rv == APR_SUCCESS) << keys.at;
        first = first == APR_SUCCESS ? rv : first;
    }
    return first;
}
