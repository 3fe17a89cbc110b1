/* SPDX-License-Identifier: Apache-2.0 */

#include <stddef.h>
#include <string.h>

#include "apr_strings.h"

#include "store_private.h"

#define TABLE_FLAGS \
    (CACHEMW_REMOTE | CACHEMW_SERIALIZE | CACHEMW_IN_MEMORY | CACHEMW_TIERED)

static void default_close(void *store)
{
    (void)store;
}

static apr_status_t default_post_config(void *store, apr_pool_t *pconf,
                                        apr_uid_t uid, apr_gid_t gid)
{
    (void)store, (void)pconf, (void)uid, (void)gid;
    return APR_SUCCESS;
}

static apr_status_t default_child_init(void *store, apr_pool_t *pchild)
{
    (void)store, (void)pchild;
    return APR_SUCCESS;
}

static apr_status_t default_clear(void *store, const cachemw_call_t *call)
{
    (void)store, (void)call;
    return APR_ENOTIMPL;
}

static apr_status_t default_keys(void *store, const cachemw_call_t *call,
                                 const char *pattern, cachemw_keys_fn *each,
                                 void *baton)
{
    (void)store, (void)call, (void)pattern, (void)each, (void)baton;
    return APR_ENOTIMPL;
}

static apr_status_t default_sweep(void *store, const cachemw_call_t *call,
                                  int *more)
{
    (void)store, (void)call;
    *more = 0;
    return APR_SUCCESS;
}

static apr_status_t default_sync(void *store, const cachemw_call_t *call)
{
    (void)store, (void)call;
    return APR_SUCCESS;
}

static apr_status_t default_stats(void *store, const cachemw_call_t *call,
                                  cachemw_stats_t *stats)
{
    (void)store, (void)call, (void)stats;
    return APR_SUCCESS;
}

#define TABLE_FILL(table, slot)             \
    do {                                    \
        if (!(table)->slot) {               \
            (table)->slot = default_##slot; \
        }                                   \
    } while (0)

static void table_fill(cachemw_provider_t *table)
{
    TABLE_FILL(table, close);
    TABLE_FILL(table, post_config);
    TABLE_FILL(table, child_init);
    TABLE_FILL(table, clear);
    TABLE_FILL(table, keys);
    TABLE_FILL(table, sweep);
    TABLE_FILL(table, sync);
    TABLE_FILL(table, stats);
}

static const char *table_missing(const cachemw_provider_t *table)
{
    int streaming = !!table->set_begin + !!table->set_write
                    + !!table->set_commit + !!table->set_abort;

    if (!table->open) {
        return "it has no open";
    }
    if (!table->get) {
        return "it has no get";
    }
    if (!table->remove) {
        return "it has no remove";
    }
    if (streaming != 0 && streaming != 4) {
        return "of set_begin, set_write, set_commit and set_abort it has some"
               " but not all";
    }
    if (!table->publish != !table->watch) {
        return "of publish and watch it has one but not the other";
    }
    if (!table->set && streaming == 0) {
        return "it has neither set nor set_begin";
    }
    if (!table->lock != !table->unlock) {
        return "of lock and unlock it has only one";
    }
    return NULL;
}

static const char *table_flags(const cachemw_provider_t *table,
                               apr_pool_t *pool)
{
    const unsigned int unknown = table->flags & ~TABLE_FLAGS;

    if (!unknown) {
        return NULL;
    }
    return apr_psprintf(pool,
                        "the provider's table has flags that this mod_cachemw"
                        " does not know: 0x%x",
                        unknown);
}

static void table_compose(mw_store_t *store)
{
    const cachemw_provider_t *table = &store->table;
    mw_composed_t *composed = &store->composed;

    store->whole_bodies = !table->read;
    store->can_sweep = !!table->sweep;
    store->can_sync = !!table->sync;
    /* a tiered one can if one of its tiers can */
    store->locking =
        table->lock && !(table->flags & CACHEMW_TIERED) ? store : NULL;
    composed->way = table->set_begin ? &mw_set_streamed : &mw_set_spooled;
    composed->set = table->set ? mw_set_by_slot : mw_set_by_streaming;
    composed->set_head = table->set_head ? mw_amend_by_slot : mw_amend_by_set;
    composed->read = table->read ? mw_read_by_slot : mw_read_by_get;
    composed->exists = table->exists ? mw_exists_by_slot : mw_exists_by_get;
}

const char *mw_table_normalise(mw_store_t *store,
                               const cachemw_provider_t *provider,
                               apr_pool_t *pool)
{
    cachemw_provider_t *table = &store->table;
    const apr_size_t required =
        offsetof(cachemw_provider_t, remove) + sizeof(table->remove);
    const char *missing;
    apr_size_t size = provider->size;

    if (size < required) {
        return apr_psprintf(
            pool,
            "the provider's table says that it has %" APR_SIZE_T_FMT
            " bytes, at least %" APR_SIZE_T_FMT
            " are needed: is its member size set?",
            size, required);
    }
    if (size > sizeof(*table)) {
        size = sizeof(*table);
    }
    /* a slot that its size cuts through does not exist */
    size -= size % sizeof(table->remove);
    memset(table, 0, sizeof(*table));
    memcpy(table, provider, size);
    table->size = sizeof(*table);
    missing = table_missing(table);
    if (missing) {
        return apr_pstrcat(
            pool, "the provider's table is not complete: ", missing, NULL);
    }
    table_compose(store);
    table_fill(table);
    return table_flags(table, pool);
}
