/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>

#include "apr_strings.h"

#include "watch.h"

/* From far to near; see tiers.h. */
static void note_change_before(mw_tiers_t *tiers, int at,
                               const cachemw_key_t *key)
{
    if (at < tiers->n - 1) {
        mw_note_change(tiers, key);
    }
}

/* What the note has come to when these tiers are changed, and nobody else
 * changes the key. */
static apr_uint64_t note_after(const mw_tiers_t *tiers, unsigned int which,
                               const cachemw_key_t *key)
{
    const unsigned int near = which & ~(1u << (tiers->n - 1));

    return mw_note_read(tiers, key) + (apr_uint64_t)__builtin_popcount(near);
}

/* --- removing ------------------------------------------------------------- */

/* The tiers of the bits set, all that `id` allows. */
static apr_status_t tiers_drop(mw_tiers_t *tiers, unsigned int which,
                               const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id)
{
    int left = mw_tiers_remote(tiers, which);
    apr_status_t answer = APR_SUCCESS;
    cachemw_call_t own;
    int i;

    for (i = tiers->n - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];
        apr_status_t rv;

        if (!(which & 1u << i)) {
            continue;
        }
        note_change_before(tiers, i, key);
        rv = tier->table->remove(
            tier->self, mw_tier_call(tiers, i, call, &own, &left), key, id);
        mw_change_check(tiers, i, rv);
        if (rv != APR_SUCCESS) {
            answer = answer == APR_SUCCESS ? rv : mw_tiers_lost(answer, rv);
        }
    }
    return answer;
}

apr_status_t mw_tiers_remove(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id)
{
    mw_tiers_t *tiers = store;
    const apr_uint32_t change = mw_change_begin(tiers);
    apr_status_t rv = tiers_drop(tiers, (1u << tiers->n) - 1, call, key, id);

    mw_change_end(tiers, change);
    return rv;
}

apr_status_t mw_tiers_clear(void *store, const cachemw_call_t *call)
{
    mw_tiers_t *tiers = store;
    const apr_uint32_t change = mw_change_begin(tiers);
    apr_status_t first = APR_SUCCESS;
    apr_status_t rv;
    int i;

    for (i = tiers->n - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];

        if (i < tiers->n - 1) {
            mw_note_change_all(tiers);
        }
        rv = mw_change_check(tiers, i, tier->table->clear(tier->self, call));
        first = first == APR_SUCCESS ? rv : first;
    }
    mw_change_end(tiers, change);
    return first;
}

/* Tiers that did not get what others got must not show what they had before.
 * Where one that is shared had nothing, a removal would do no more than have
 * all servers give up what they have in tiers of their own.
 * @param is_news they have to, for this was no first entry */
static void tiers_drop_rest(mw_tiers_t *tiers, unsigned int which,
                            const cachemw_call_t *call,
                            const cachemw_key_t *key, int is_news)
{
    cachemw_call_t own = *call;
    int i;

    /* the others may have used up the time */
    own.deadline = 0;
    for (i = 0; i < tiers->n && !is_news; i++) {
        const mw_tier_t *tier = &tiers->tier[i];
        cachemw_call_t any_time = own;

        /* what has expired, too: the clock may be set back */
        any_time.now = 0;
        if ((which & 1u << i) && mw_tier_is_shared(tiers, i)
            && tier->table->exists(tier->self, &any_time, key)
                   == APR_NOTFOUND) {
            which &= ~(1u << i);
        }
    }
    tiers_drop(tiers, which, &own, key, NULL);
}

/* --- amending ------------------------------------------------------------- */

/* A tier that has another entry than the one amended, or an old head of it,
 * must not show that one day: what it has goes. */
static apr_status_t tiers_amend(mw_tiers_t *tiers, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id,
                                const cachemw_entry_t *entry)
{
    const unsigned int all = (1u << tiers->n) - 1;
    const apr_uint64_t note = tiers->watched ? note_after(tiers, all, key) : 0;
    apr_time_t expires[MW_TIERS_MAX];
    cachemw_entry_t amended = *entry;
    int left = tiers->nremote;
    unsigned int done = 0;
    apr_status_t answer = APR_EGENERAL;
    cachemw_call_t own;
    int i;

    if (tiers->watched) {
        mw_watch_list(tiers, key, id);
    }
    expires[tiers->n - 1] = entry->expires;
    mw_tiers_expire(tiers, call->now, tiers->n - 1, expires);
    for (i = tiers->n - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];
        apr_status_t rv;

        amended.expires = expires[i];
        note_change_before(tiers, i, key);
        rv = tier->table->set_head(tier->self,
                                   mw_tier_call(tiers, i, call, &own, &left),
                                   key, id, &amended);
        done |= (unsigned int)(rv == APR_SUCCESS) << i;
        answer = mw_tiers_answer(answer, rv);
    }
    if (!done) {
        return answer;
    }
    /* amending may have used up the time for storing */
    own = *call;
    own.deadline = 0;
    if (tiers->watched && mw_note_read(tiers, key) != note) {
        tiers_drop(tiers, all >> 1, &own, key, id);
    }
    tiers_drop_rest(tiers, all & ~done, call, key,
                    call->context == CACHEMW_INVALIDATES);
    return APR_SUCCESS;
}

apr_status_t mw_tiers_set_head(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry)
{
    mw_tiers_t *tiers = store;
    const apr_uint32_t change = mw_change_begin(tiers);
    apr_status_t rv = tiers_amend(tiers, call, key, id, entry);

    mw_change_end(tiers, change);
    return rv;
}

/* --- storing -------------------------------------------------------------- */

/* In pieces, to all tiers at once. */
typedef struct tiers_set_t {
    cachemw_key_t key;
    cachemw_id_t id;
    apr_off_t announced; /* or -1 */
    apr_off_t length;
    unsigned int open; /* a bit for each tier that takes it */
    int is_news;       /* see tiers_drop_rest() */
    void *sets[MW_TIERS_MAX];
} tiers_set_t;

apr_status_t mw_tiers_set_begin(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_entry_t *entry, void **result)
{
    mw_tiers_t *tiers = store;
    tiers_set_t *set = apr_pcalloc(call->pool, sizeof(*set));
    const unsigned int fit = mw_tiers_fit(tiers, entry->body_len);
    apr_time_t expires[MW_TIERS_MAX];
    cachemw_entry_t begun = *entry;
    int left = mw_tiers_remote(tiers, fit);
    apr_status_t answer = APR_EGENERAL;
    cachemw_call_t own;
    int i;

    expires[tiers->n - 1] = entry->expires;
    mw_tiers_expire(tiers, call->now, tiers->n - 1, expires);
    for (i = tiers->n - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];
        apr_status_t rv = APR_ENOSPC;

        begun.expires = expires[i];
        if (fit & 1u << i) {
            rv = tier->table->set_begin(
                tier->self, mw_tier_call(tiers, i, call, &own, &left), key,
                &begun, &set->sets[i]);
        }
        set->open |= (unsigned int)(rv == APR_SUCCESS) << i;
        answer = mw_tiers_answer(answer, rv);
    }
    if (!set->open) {
        return answer;
    }
    set->key.data = apr_pmemdup(call->pool, key->data, key->len);
    set->key.len = key->len;
    set->id = entry->id;
    set->announced = entry->body_len;
    *result = set;
    return APR_SUCCESS;
}

static void set_close(const mw_tiers_t *tiers, tiers_set_t *set, int at)
{
    const mw_tier_t *tier = &tiers->tier[at];

    tier->table->set_abort(tier->self, set->sets[at]);
    set->open &= ~(1u << at);
}

void mw_tiers_set_abort(void *store, void *opaque)
{
    const mw_tiers_t *tiers = store;
    tiers_set_t *set = opaque;
    int i;

    for (i = 0; i < tiers->n; i++) {
        if (set->open & 1u << i) {
            set_close(tiers, set, i);
        }
    }
}

apr_status_t mw_tiers_set_write(void *store, const cachemw_call_t *call,
                                void *opaque, const char *data,
                                apr_size_t length)
{
    mw_tiers_t *tiers = store;
    tiers_set_t *set = opaque;
    int left = mw_tiers_remote(tiers, set->open);
    apr_status_t answer = APR_EGENERAL;
    cachemw_call_t own;
    int i;

    for (i = tiers->n - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];
        apr_status_t rv;

        if (set->open & 1u << i) {
            rv = tier->table->set_write(
                tier->self, mw_tier_call(tiers, i, call, &own, &left),
                set->sets[i], data, length);
            answer = mw_tiers_answer(answer, rv);
            if (rv != APR_SUCCESS) {
                set_close(tiers, set, i);
            }
        }
    }
    set->length += (apr_off_t)length;
    return set->open ? APR_SUCCESS : answer;
}

/* Whether a near tier has an entry yet, when one behind it that is shared did
 * not take the new one. */
static int set_replaces(const mw_tiers_t *tiers, int at,
                        const cachemw_call_t *call, const tiers_set_t *set,
                        unsigned int done)
{
    const mw_tier_t *tier = &tiers->tier[at];

    return (tiers->watched & ~done) >> at > 1
           && tier->table->exists(tier->self, call, &set->key) == APR_SUCCESS;
}

/* From far to near. @return a bit for each tier that has it */
static unsigned int set_commit_all(mw_tiers_t *tiers,
                                   const cachemw_call_t *call, tiers_set_t *set,
                                   apr_status_t *answer)
{
    int left = mw_tiers_remote(tiers, set->open);
    unsigned int done = 0;
    cachemw_call_t own;
    int i;

    for (i = tiers->n - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];
        apr_status_t rv;

        set->is_news |= set_replaces(tiers, i, call, set, done);
        if (!(set->open & 1u << i)) {
            continue;
        }
        note_change_before(tiers, i, &set->key);
        rv = tier->table->set_commit(tier->self,
                                     mw_tier_call(tiers, i, call, &own, &left),
                                     set->sets[i]);
        done |= (unsigned int)(rv == APR_SUCCESS) << i;
        *answer = mw_tiers_answer(*answer, rv);
    }
    return done;
}

/* A tier that does not get it must not show what it had before, either. Nor may
 * near tiers keep what another server replaced in the far one, of which we may
 * have heard before it was put there. */
apr_status_t mw_tiers_set_commit(void *store, const cachemw_call_t *call,
                                 void *opaque)
{
    mw_tiers_t *tiers = store;
    tiers_set_t *set = opaque;
    const unsigned int all = (1u << tiers->n) - 1;
    const apr_uint64_t note =
        tiers->watched ? note_after(tiers, set->open, &set->key) : 0;
    apr_status_t answer = APR_EGENERAL;
    cachemw_call_t own = *call;
    apr_uint32_t change;
    unsigned int done;

    if (set->announced >= 0 && set->length != set->announced) {
        mw_tiers_set_abort(store, set);
        return APR_EINVAL;
    }
    if (tiers->watched) {
        mw_watch_list(tiers, &set->key, &set->id);
    }
    change = mw_change_begin(tiers);
    done = set_commit_all(tiers, call, set, &answer);
    /* the commit may have used up the time for storing */
    own.deadline = 0;
    if (tiers->watched && mw_note_read(tiers, &set->key) != note) {
        tiers_drop(tiers, all >> 1, &own, &set->key, &set->id);
    }
    tiers_drop_rest(tiers, all & ~done, call, &set->key, set->is_news);
    mw_change_end(tiers, change);
    return done ? APR_SUCCESS : answer;
}

/* --- locks ---------------------------------------------------------------- */

int mw_tiers_shared_by_servers(const mw_tiers_t *tiers)
{
    int i = tiers->n - 1;

    while (i >= 0 && !tiers->tier[i].table->lock) {
        i--;
    }
    return i;
}

apr_status_t mw_tiers_lock(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token,
                           apr_interval_time_t ttl, cachemw_id_t *holder)
{
    const mw_tiers_t *tiers = store;
    int at = mw_tiers_shared_by_servers(tiers);

    return at < 0 ? APR_ENOTIMPL
                  : tiers->tier[at].table->lock(tiers->tier[at].self, call, key,
                                                token, ttl, holder);
}

apr_status_t mw_tiers_unlock(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_id_t *token)
{
    const mw_tiers_t *tiers = store;
    int at = mw_tiers_shared_by_servers(tiers);

    return at < 0 ? APR_ENOTIMPL
                  : tiers->tier[at].table->unlock(tiers->tier[at].self, call,
                                                  key, token);
}
