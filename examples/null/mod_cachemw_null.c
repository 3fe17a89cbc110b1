/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The shortest provider for mod_cachemw that keeps all promises: nothing is
 * ever stored, and that is what it says.
 *
 *     apxs -i -a -c mod_cachemw_null.c
 *
 *     CachemwProvider null
 *     CacheEnable cachemw /
 */

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "mod_cachemw.h"

/* The parent, also under `httpd -t`. There is nothing to remember. */
static apr_status_t null_open(const cachemw_services_t *services,
                              const cachemw_value_t *values, apr_pool_t *pconf,
                              void **store, const char **error)
{
    (void)values, (void)pconf, (void)error;
    *store = (void *)services;
    return APR_SUCCESS;
}

/* A miss. */
static apr_status_t null_get(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, cachemw_entry_t *entry)
{
    (void)store, (void)call, (void)key, (void)entry;
    return APR_NOTFOUND;
}

/* It does not fit: counted, and no error. */
static apr_status_t null_set(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_entry_t *entry)
{
    (void)store, (void)call, (void)key, (void)entry;
    return APR_ENOSPC;
}

/* What is not there is removed. */
static apr_status_t null_remove(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    (void)store, (void)call, (void)key, (void)id;
    return APR_SUCCESS;
}

/* Room for no entry: so that nobody takes ENOSPC for a fault. */
static apr_status_t null_stats(void *store, const cachemw_call_t *call,
                               cachemw_stats_t *stats)
{
    (void)store, (void)call;
    stats->entries = stats->entries_max = 0;
    return APR_SUCCESS;
}

static const cachemw_provider_t null_provider = {
    .size = sizeof(cachemw_provider_t),
    .open = null_open,
    .get = null_get,
    .set = null_set,
    .remove = null_remove,
    .stats = null_stats,
};

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "null",
                         CACHEMW_PROVIDER_VERSION, &null_provider);
}

AP_DECLARE_MODULE(cachemw_null) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
