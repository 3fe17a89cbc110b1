/* SPDX-License-Identifier: Apache-2.0 */

#include <stddef.h>

#include "apr_escape.h"
#include "apr_file_io.h"
#include "apr_strings.h"

#include "random.h"
#include "store_private.h"

/* A call knows no more than what the contract gave it at first. */
static __thread const char *services_served;

void mw_store_serve(const char *list)
{
    services_served = list;
}

static mw_store_t *services_store(const cachemw_services_t *services)
{
    return (mw_store_t *)((char *)services - offsetof(mw_store_t, services));
}

static void services_log(const cachemw_services_t *services,
                         cachemw_level_e level, apr_status_t rv,
                         const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void services_log(const cachemw_services_t *services,
                         cachemw_level_e level, apr_status_t rv,
                         const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    mw_store_log_kind(services_store(services), level, rv,
                      mw_store_log_hash(format), format, arguments);
    va_end(arguments);
}

/* The last one of this thread; its store tells that of a tier from the one
 * around it. */
static __thread struct {
    const mw_store_t *store; /* NULL: none */
    apr_status_t rv;
    apr_uint32_t kind;
    char text[MW_REASON_MAX];
} said;

static void services_explain(const cachemw_services_t *services,
                             apr_status_t rv, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void services_explain(const cachemw_services_t *services,
                             apr_status_t rv, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    apr_vsnprintf(said.text, sizeof(said.text), format, arguments);
    va_end(arguments);
    said.store = services_store(services);
    said.rv = rv;
    said.kind = mw_store_log_hash(format) >> 1; /* never 0 in the end */
}

const char *mw_services_said(const mw_store_t *store, apr_status_t rv,
                             apr_uint32_t *kind)
{
    if (said.store != store) {
        return NULL;
    }
    said.store = NULL;
    if (said.rv != rv) {
        return NULL;
    }
    *kind = said.kind;
    return said.text;
}

static void services_count(const cachemw_services_t *services,
                           cachemw_count_e what, apr_uint64_t n)
{
    static const mw_counter_e counters[] = {
        [CACHEMW_COUNT_EVICTED] = MW_COUNT_EVICTED,
        [CACHEMW_COUNT_EXPIRED] = MW_COUNT_EXPIRED,
        [CACHEMW_COUNT_RECOVERED] = MW_COUNT_RECOVERED
    };

    if ((unsigned int)what < sizeof(counters) / sizeof(counters[0])) {
        mw_store_count(services_store(services), counters[what], n);
    }
}

static apr_interval_time_t services_remaining(
    const cachemw_services_t *services, const cachemw_call_t *call)
{
    apr_int64_t left;

    (void)services;
    if (!call->deadline) {
        return -1;
    }
    left = call->deadline - mw_monotonic();
    return left > 0 ? left : 0;
}

static apr_int64_t services_deadline_in(const cachemw_services_t *services,
                                        const cachemw_call_t *call,
                                        apr_interval_time_t microseconds)
{
    const apr_int64_t deadline = mw_monotonic() + microseconds;

    (void)services;
    return call && call->deadline && call->deadline < deadline ? call->deadline
                                                               : deadline;
}

static void services_count_kind(const cachemw_services_t *services,
                                const char *kind, apr_uint64_t n)
{
    const mw_store_t *store = services_store(services);

    if (store->state) {
        mw_kind_count(store->state, kind, n);
    }
}

static const char *services_via(const cachemw_services_t *services,
                                const cachemw_call_t *call)
{
    const char *tag = services_store(services)->host->tag;

    return tag && call && services_served
               ? apr_pstrcat(call->pool, services_served, ", ", tag, NULL)
               : tag;
}

static void services_removed(const cachemw_services_t *services,
                             const cachemw_key_t *key)
{
    const mw_store_t *store = services_store(services);

    if (!store->state) {
        return;
    }
    if (key) {
        mw_epoch_bump(store->state, key);
    }
    else {
        mw_epoch_bump_all(store->state);
    }
}

static void services_sharing(const cachemw_services_t *services,
                             unsigned int servers, apr_interval_time_t valid)
{
    const mw_store_t *store = services_store(services);

    if (store->state) {
        mw_sharing_note(store->state, servers, mw_monotonic() + valid);
    }
}

static apr_status_t services_random(const cachemw_services_t *services,
                                    void *buffer, apr_size_t length)
{
    (void)services;
    return mw_random(buffer, length);
}

static apr_status_t services_temp_file(const cachemw_services_t *services,
                                       apr_file_t **file, apr_pool_t *pool)
{
    const mw_store_t *store = services_store(services);
    unsigned char name[16];
    char hex[2 * sizeof(name) + 1];
    const char *path;
    apr_status_t rv;

    if (!store->temp_dir) {
        return APR_ENODIR;
    }
    rv = mw_random(name, sizeof(name));
    if (rv != APR_SUCCESS) {
        return rv;
    }
    apr_escape_hex(hex, name, sizeof(name), 0, NULL);
    path = apr_pstrcat(pool, store->temp_dir, "/cachemw-", hex, NULL);
    /* APR opens close-on-exec unless told otherwise */
    rv = apr_file_open(file, path,
                       APR_FOPEN_READ | APR_FOPEN_WRITE | APR_FOPEN_CREATE
                           | APR_FOPEN_EXCL | APR_FOPEN_BINARY,
                       APR_FPROT_UREAD | APR_FPROT_UWRITE, pool);
    if (rv == APR_SUCCESS) {
        apr_file_remove(path, pool);
    }
    return rv;
}

static apr_status_t services_segment(const cachemw_services_t *services,
                                     apr_size_t size, apr_uint64_t layout,
                                     void **base, int *is_new)
{
    const mw_store_t *store = services_store(services);

    if (!store->segment_name) {
        return APR_EINVAL;
    }
    return mw_segment_get(store->host->segments, store->segment_name, size,
                          layout, base, is_new);
}

static void longer(apr_interval_time_t *longest, apr_interval_time_t time)
{
    if (time > *longest) {
        *longest = time;
    }
}

/* A tiered store is what its tiers make it. */
static void store_add_tier(mw_store_t *store, const mw_store_t *tier)
{
    if (store->flags & CACHEMW_TIERED) {
        store->is_telling |= tier->table.publish || tier->is_telling;
        store->flags |= tier->flags & CACHEMW_REMOTE;
        store->flags &= tier->flags | ~CACHEMW_IN_MEMORY;
        if (tier->locking && store->table.lock) {
            store->locking = tier->locking;
        }
        if (mw_store_is_remote(tier)) {
            longer(&store->tiers_body_timeout, tier->settings.body_timeout);
            longer(&store->tiers_store_timeout, tier->settings.store_timeout);
        }
    }
}

static apr_status_t services_find(const cachemw_services_t *services,
                                  const char *name,
                                  const cachemw_provider_t **table, void **self)
{
    mw_store_t *store = services_store(services);
    mw_store_t *found = NULL;

    if (store->host->find) {
        found = store->host->find(store->host->baton, name);
    }
    if (!found || found == store) {
        return APR_NOTFOUND;
    }
    store_add_tier(store, found);
    *table = store->flags & CACHEMW_TIERED ? &found->tier : &found->facade;
    *self = found;
    return APR_SUCCESS;
}

void mw_services_init(mw_store_t *store)
{
    cachemw_services_t *services = &store->services;

    services->size = sizeof(*services);
    services->store_name = store->name;
    services->log = services_log;
    services->count = services_count;
    services->remaining = services_remaining;
    services->random = services_random;
    services->temp_file = services_temp_file;
    services->segment = services_segment;
    services->store = services_find;
    services->deadline_in = services_deadline_in;
    services->count_kind = services_count_kind;
    services->explain = services_explain;
    services->via = services_via;
    services->removed = services_removed;
    services->sharing = services_sharing;
}
