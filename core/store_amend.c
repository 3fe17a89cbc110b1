/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "store_private.h"

apr_status_t mw_amend_by_slot(mw_store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              const cachemw_entry_t *entry)
{
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_SET_HEAD);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = store->table.set_head(store->self, pass.call, key, id, entry);
    rv = mw_pass_leave(&pass, rv);
    if (rv == APR_EINCOMPLETE) {
        mw_store_damaged(store, call, key, id);
        rv = APR_NOTFOUND;
    }
    return rv;
}

static int id_is(const cachemw_id_t *a, const cachemw_id_t *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* Whether the key still has this entry. */
static apr_status_t amend_check(mw_store_t *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    cachemw_entry_t entry;
    apr_status_t rv;

    memset(&entry, 0, sizeof(entry));
    rv = mw_store_get(store, call, key, &entry);
    if (rv == APR_SUCCESS && !id_is(&entry.id, id)) {
        rv = APR_NOTFOUND;
    }
    return rv;
}

/* Copy what of the old body is in `body`, then the rest by read. */
static apr_status_t amend_copy(mw_store_t *store, mw_set_t *set,
                               const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *old)
{
    cachemw_call_t step = *call;
    apr_status_t rv = mw_set_write_brigade(set, call, old->body);

    apr_pool_create(&step.pool, call->pool);
    while (rv == APR_SUCCESS && mw_store_set_length(set) < old->body_len) {
        rv =
            mw_store_read(store, &step, key, &old->id, mw_store_set_length(set),
                          CACHEMW_PIECE_MAX, old->body);
        if (rv == APR_SUCCESS) {
            rv = mw_set_write_brigade(set, &step, old->body);
        }
        apr_pool_clear(step.pool);
    }
    apr_pool_destroy(step.pool);
    return rv;
}

static apr_status_t amend_anew(mw_store_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *old,
                               const cachemw_entry_t *entry)
{
    cachemw_entry_t amended = *entry;
    mw_set_t *set;
    apr_status_t rv;

    amended.id = old->id;
    amended.body_len = old->body_len;
    amended.body = NULL;
    rv = mw_set_begin(store, call, key, key, &amended, MW_SET_EPOCH, &set);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = amend_copy(store, set, call, key, old);
    if (rv == APR_SUCCESS) {
        /* Copying took its time. What is set in the instant that is left
         * between here and the commit is lost; the next request fetches it
         * again. */
        rv = amend_check(store, call, key, &old->id);
    }
    if (rv != APR_SUCCESS) {
        mw_store_set_abort(set);
        return rv;
    }
    return mw_store_set_commit(set, call);
}

apr_status_t mw_amend_by_set(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry)
{
    cachemw_call_t own = *call;
    cachemw_entry_t old;
    apr_status_t rv;

    if (store->guards & MW_GUARD_OFF) {
        return APR_EGENERAL;
    }
    mw_store_share_deadline(store, &own);
    if (!own.bucket_alloc) {
        own.bucket_alloc = apr_bucket_alloc_create(call->pool);
    }
    own.purge_epoch = mw_epoch_now(store->state);
    memset(&old, 0, sizeof(old));
    old.body = apr_brigade_create(call->pool, own.bucket_alloc);
    rv = mw_store_get(store, &own, key, &old);
    if (rv == APR_SUCCESS) {
        rv = id_is(&old.id, id) ? amend_anew(store, &own, key, &old, entry)
                                : APR_NOTFOUND;
    }
    apr_brigade_destroy(old.body);
    return rv;
}

apr_status_t mw_store_set_head(mw_store_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry)
{
    if (entry->head_len > CACHEMW_HEAD_MAX) {
        return APR_ENOSPC;
    }
    return store->composed.set_head(store, call, key, id, entry);
}
