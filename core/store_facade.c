/* SPDX-License-Identifier: Apache-2.0 */

#include "store_private.h"

/* Opened, prepared and closed by its own configuration. */
static apr_status_t facade_open(const cachemw_services_t *services,
                                const cachemw_value_t *values,
                                apr_pool_t *pconf, void **store,
                                const char **error)
{
    (void)services, (void)values, (void)pconf, (void)store;
    *error = "it is open already";
    return APR_ENOTIMPL;
}

static void facade_close(void *store)
{
    (void)store;
}

static apr_status_t facade_post_config(void *store, apr_pool_t *pconf,
                                       apr_uid_t uid, apr_gid_t gid)
{
    (void)store, (void)pconf, (void)uid, (void)gid;
    return APR_SUCCESS;
}

static apr_status_t facade_child_init(void *store, apr_pool_t *pchild)
{
    (void)store, (void)pchild;
    return APR_SUCCESS;
}

/* Time for a call that has some already: not more than the store would have by
 * itself. Sets see to theirs. */
static const cachemw_call_t *facade_call(const mw_store_t *store,
                                         const cachemw_call_t *call,
                                         apr_interval_time_t timeout,
                                         cachemw_call_t *own)
{
    apr_int64_t deadline;

    if (!call->deadline || !(store->guards & MW_GUARD_REMOTE)) {
        return call;
    }
    deadline = mw_monotonic() + timeout;
    if (call->deadline <= deadline) {
        return call;
    }
    *own = *call;
    own->deadline = deadline;
    return own;
}

#define FACADE_CALL(store, call, own) \
    facade_call(store, call, mw_store_settings(store)->timeout, own)

static apr_status_t facade_get(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, cachemw_entry_t *entry)
{
    cachemw_call_t own;
    apr_status_t rv =
        mw_store_get(store, FACADE_CALL(store, call, &own), key, entry);

    mw_store_count(store, rv == APR_SUCCESS ? MW_COUNT_HIT : MW_COUNT_MISS, 1);
    /* in others, their tiers have said so */
    if (!(((mw_store_t *)store)->flags & CACHEMW_TIERED)) {
        entry->is_own = !mw_store_wants_checksum(store);
    }
    return rv;
}

static apr_status_t facade_read(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id, apr_off_t offset,
                                apr_size_t limit, apr_bucket_brigade *body)
{
    cachemw_call_t own;

    return mw_store_read(store, FACADE_CALL(store, call, &own), key, id, offset,
                         limit, body);
}

static apr_status_t facade_set(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry)
{
    apr_status_t rv = mw_store_set(store, call, key, entry);

    if (rv == APR_SUCCESS) {
        mw_store_count(store, MW_COUNT_STORED, 1);
        mw_store_count(store, MW_COUNT_BYTES_STORED, entry->body_len);
    }
    return rv;
}

static apr_status_t facade_remove(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id)
{
    cachemw_call_t own;

    return mw_store_remove(store, FACADE_CALL(store, call, &own), key, id);
}

static apr_status_t facade_set_head(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    const cachemw_id_t *id,
                                    const cachemw_entry_t *entry)
{
    cachemw_call_t own;

    call =
        facade_call(store, call, mw_store_settings(store)->store_timeout, &own);
    return mw_store_set_head(store, call, key, id, entry);
}

/* Purge epochs are compared by the store that requests know; its epoch means
 * nothing here. */
static apr_status_t facade_set_begin(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     const cachemw_entry_t *entry, void **set)
{
    mw_set_t *begun;
    apr_status_t rv = mw_set_begin(store, call, key, NULL, entry,
                                   MW_SET_REQUEST | MW_SET_PART, &begun);

    if (rv == APR_SUCCESS) {
        *set = begun;
    }
    return rv;
}

static apr_status_t facade_set_write(void *store, const cachemw_call_t *call,
                                     void *set, const char *data,
                                     apr_size_t length)
{
    (void)store;
    return mw_set_write(set, call, data, length);
}

static apr_status_t facade_set_commit(void *store, const cachemw_call_t *call,
                                      void *set)
{
    (void)store;
    return mw_store_set_commit(set, call);
}

static void facade_set_abort(void *store, void *set)
{
    (void)store;
    mw_store_set_abort(set);
}

static apr_status_t facade_exists(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key)
{
    cachemw_call_t own;

    return mw_store_exists(store, FACADE_CALL(store, call, &own), key);
}

static apr_status_t facade_clear(void *store, const cachemw_call_t *call)
{
    cachemw_call_t own;

    return mw_store_clear(store, FACADE_CALL(store, call, &own));
}

static apr_status_t facade_keys(void *store, const cachemw_call_t *call,
                                const char *pattern, cachemw_keys_fn *each,
                                void *baton)
{
    cachemw_call_t own;

    return mw_store_keys(store, FACADE_CALL(store, call, &own), pattern, each,
                         baton);
}

static apr_status_t facade_sweep(void *store, const cachemw_call_t *call,
                                 int *more)
{
    return mw_store_sweep(store, call, more);
}

static apr_status_t facade_sync(void *store, const cachemw_call_t *call)
{
    return mw_store_sync(store, call);
}

static apr_status_t facade_stats(void *store, const cachemw_call_t *call,
                                 cachemw_stats_t *stats)
{
    return mw_store_stats(store, call, stats);
}

static apr_status_t facade_lock(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *token,
                                apr_interval_time_t ttl, cachemw_id_t *holder)
{
    cachemw_call_t own;

    return mw_store_lock(store, FACADE_CALL(store, call, &own), key, token, ttl,
                         holder);
}

static apr_status_t facade_unlock(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *token)
{
    cachemw_call_t own;

    return mw_store_unlock(store, FACADE_CALL(store, call, &own), key, token);
}

static apr_off_t facade_object_limit(void *store)
{
    return mw_store_settings(store)->max_object_size;
}

static apr_status_t facade_publish(void *store)
{
    return mw_store_publish(store);
}

static apr_status_t facade_watch(void *store, const cachemw_call_t *call,
                                 cachemw_watch_fn *each, void *baton)
{
    return mw_store_watch(store, call, each, baton);
}

static const cachemw_provider_t facade = { .size = sizeof(cachemw_provider_t),
                                           .open = facade_open,
                                           .close = facade_close,
                                           .get = facade_get,
                                           .set = facade_set,
                                           .remove = facade_remove,
                                           .post_config = facade_post_config,
                                           .child_init = facade_child_init,
                                           .set_head = facade_set_head,
                                           .read = facade_read,
                                           .set_begin = facade_set_begin,
                                           .set_write = facade_set_write,
                                           .set_commit = facade_set_commit,
                                           .set_abort = facade_set_abort,
                                           .exists = facade_exists,
                                           .clear = facade_clear,
                                           .keys = facade_keys,
                                           .sweep = facade_sweep,
                                           .stats = facade_stats,
                                           .object_limit = facade_object_limit,
                                           .sync = facade_sync };

/* --- tiers ---------------------------------------------------------------- */

/* Not counted: most of it is in case there is something, and what a request
 * removes is counted by the store that it knows. */
static apr_status_t tier_remove(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    cachemw_call_t own;

    return mw_remove_uncounted(store, FACADE_CALL(store, call, &own), key, id);
}

/* --- a tier in the server's memory ---------------------------------------- */

/* What a hit there gives is believed. So what comes from a tier elsewhere is
 * checked before it goes there. */
static int tier_believes(const mw_store_t *store, const cachemw_call_t *call,
                         const cachemw_entry_t *entry)
{
    const mw_host_t *host = store->host;

    return !host->head_is_sound
           || host->head_is_sound(entry->head, entry->head_len, call->pool);
}

static apr_status_t tier_set(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_entry_t *entry)
{
    return tier_believes(store, call, entry)
               ? facade_set(store, call, key, entry)
               : APR_EINCOMPLETE;
}

static apr_status_t tier_set_head(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id,
                                  const cachemw_entry_t *entry)
{
    return tier_believes(store, call, entry)
               ? facade_set_head(store, call, key, id, entry)
               : APR_EINCOMPLETE;
}

static apr_status_t tier_set_begin(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_entry_t *entry, void **set)
{
    return tier_believes(store, call, entry)
               ? facade_set_begin(store, call, key, entry, set)
               : APR_EINCOMPLETE;
}

void mw_facade_init(mw_store_t *store)
{
    store->facade = facade;
    if (store->table.publish) {
        store->facade.publish = facade_publish;
        store->facade.watch = facade_watch;
    }
    store->facade.flags = store->flags & ~CACHEMW_SERIALIZE;
    if (store->locking) {
        store->facade.lock = facade_lock;
        store->facade.unlock = facade_unlock;
    }
    store->tier = store->facade;
    store->tier.remove = tier_remove;
    if (store->flags & CACHEMW_IN_MEMORY) {
        store->tier.set = tier_set;
        store->tier.set_head = tier_set_head;
        store->tier.set_begin = tier_set_begin;
    }
}
