/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "random.h"
#include "store_private.h"

#define STORE_LINE_MAX 1024

/* Where addresses are looked up, which may change within seconds. */
#define SWEEP_REMOTE apr_time_from_sec(10)
/* What a power loss costs then. */
#define SYNC_INTERVAL apr_time_from_sec(30)

void mw_store_log_kind(mw_store_t *store, cachemw_level_e level,
                       apr_status_t rv, apr_uint32_t kind, const char *format,
                       va_list arguments)
{
    char line[STORE_LINE_MAX];
    apr_uint32_t suppressed = 0;
    int length;

    if (store->state && level == CACHEMW_LOG_WARNING && kind
        && !mw_log_allowed(store->state, kind, mw_monotonic(), &suppressed)) {
        return;
    }
    length = apr_snprintf(line, sizeof(line), "cachemw[%s]: ", store->name);
    length +=
        apr_vsnprintf(line + length, sizeof(line) - length, format, arguments);
    if (suppressed) {
        apr_snprintf(line + length, sizeof(line) - length,
                     " (and %u more like it, not logged)", suppressed);
    }
    store->host->log(store->host->baton, level, rv, line);
}

apr_uint32_t mw_store_log_hash(const char *format)
{
    apr_uint32_t hash = 2166136261u;

    for (; *format; format++) {
        hash = (hash ^ (unsigned char)*format) * 16777619u;
    }
    return hash;
}

void mw_store_log(mw_store_t *store, cachemw_level_e level, apr_status_t rv,
                  const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    mw_store_log_kind(store, level, rv, mw_store_log_hash(format), format,
                      arguments);
    va_end(arguments);
}

void mw_store_count(mw_store_t *store, mw_counter_e which, apr_uint64_t n)
{
    if (store->state) {
        mw_state_count(store->state, which, n);
    }
}

void mw_store_random(void *buffer, apr_size_t length)
{
    static apr_uint64_t serial;
    apr_uint64_t parts[2];

    if (mw_random(buffer, length) == APR_SUCCESS) {
        return;
    }
    /* Neither system call nor device: ids must still differ from each other,
     * in this process by the serial, from others by clock and stack. */
    memset(buffer, 0, length);
    parts[0] = (apr_uint64_t)mw_monotonic() << 16 ^ (apr_uintptr_t)parts;
    parts[1] = __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED);
    memcpy(buffer, parts, length < sizeof(parts) ? length : sizeof(parts));
}

static unsigned int store_guards(const cachemw_provider_t *table)
{
    unsigned int guards = 0;

    if (table->flags & CACHEMW_REMOTE) {
        guards |= MW_GUARD_REMOTE;
    }
    if (table->flags & CACHEMW_SERIALIZE) {
        guards |= MW_GUARD_SERIALIZE;
    }
    return guards;
}

/* What of it is there before the provider's open. */
static apr_status_t store_prepare(mw_store_t *store,
                                  const cachemw_provider_t *provider,
                                  const mw_options_t *options,
                                  apr_pool_t *pconf, const char **error)
{
    apr_status_t rv;

    *error = mw_table_normalise(store, provider, pconf);
    if (!*error) {
        *error = mw_settings_read(store, options, pconf);
    }
    if (*error) {
        return APR_EINVAL;
    }
    store->guards = store_guards(&store->table) | MW_GUARD_OFF;
    store->flags = store->table.flags;
    if (store->flags & CACHEMW_TIERED) {
        /* until a tier is found that is not */
        store->flags |= CACHEMW_IN_MEMORY;
    }
    mw_services_init(store);
    if (store->guards & MW_GUARD_SERIALIZE) {
        /* Forked children have one each. Nested, for what keys() calls may
         * call the store. */
        rv = apr_thread_mutex_create(
            &store->mutex, APR_THREAD_MUTEX_NESTED | APR_THREAD_MUTEX_TIMED,
            pconf);
        if (rv != APR_SUCCESS) {
            *error = "cannot make its mutex";
            return rv;
        }
    }
    return APR_SUCCESS;
}

apr_status_t mw_store_open(mw_store_t **result, const char *name,
                           const char *provider_name,
                           const cachemw_provider_t *provider,
                           const mw_options_t *options, const mw_host_t *host,
                           apr_pool_t *pconf, const char **error)
{
    mw_store_t *store = apr_pcalloc(pconf, sizeof(*store));
    apr_status_t rv;

    *error = NULL;
    store->name = apr_pstrdup(pconf, name);
    store->provider_name = provider_name;
    store->host = host;
    rv = store_prepare(store, provider, options, pconf, error);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = store->table.open(&store->services, options[0].values, pconf,
                           &store->self, error);
    if (rv != APR_SUCCESS) {
        if (!*error) {
            char text[120];

            *error = apr_pstrcat(pconf, "the provider gave no reason: ",
                                 apr_strerror(rv, text, sizeof(text)), NULL);
        }
        return rv;
    }
    *error = mw_settings_limit(store, options, pconf);
    if (*error) {
        store->table.close(store->self);
        return APR_EINVAL;
    }
    mw_facade_init(store);
    *result = store;
    return APR_SUCCESS;
}

static apr_status_t store_make_state(mw_store_t *store, apr_pool_t *pconf)
{
    const char *name = apr_pstrcat(pconf, "state/", store->name, NULL);
    void *base;
    int is_new;
    apr_status_t rv;

    rv = mw_segment_get(store->host->segments, name, mw_state_size(),
                        MW_STATE_LAYOUT, &base, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (is_new) {
        mw_state_init(base);
    }
    store->state = base;
    return APR_SUCCESS;
}

apr_status_t mw_store_post_config(mw_store_t *store, apr_pool_t *pconf,
                                  apr_uid_t uid, apr_gid_t gid)
{
    apr_status_t rv = store_make_state(store, pconf);

    if (rv != APR_SUCCESS) {
        mw_store_log(store, CACHEMW_LOG_ERR, rv,
                     "no shared memory for its counters: the store is off");
        return rv;
    }
    store->temp_dir = store->host->temp_dir;
    if (!store->temp_dir) {
        apr_temp_dir_get(&store->temp_dir, pconf);
    }
    /* another provider's bytes under the same name are another segment */
    store->segment_name = apr_pstrcat(pconf, "data/", store->provider_name, "/",
                                      store->name, NULL);
    rv = store->table.post_config(store->self, pconf, uid, gid);
    store->segment_name = NULL;
    if (rv != APR_SUCCESS) {
        mw_store_log(store, CACHEMW_LOG_ERR, rv,
                     "post_config failed: the store is off");
        return rv;
    }
    store->guards &= ~MW_GUARD_OFF;
    return store->settings.announce ? mw_store_publish(store) : APR_SUCCESS;
}

apr_status_t mw_store_publish(mw_store_t *store)
{
    if (store->guards & MW_GUARD_OFF) {
        return APR_EGENERAL;
    }
    store->is_telling = 1;
    return store->table.publish(store->self);
}

apr_status_t mw_store_child_init(mw_store_t *store, apr_pool_t *pchild)
{
    apr_status_t rv;

    if (store->guards & MW_GUARD_OFF) {
        return APR_EGENERAL;
    }
    rv = store->table.child_init(store->self, pchild);
    if (rv != APR_SUCCESS) {
        store->guards |= MW_GUARD_OFF;
        mw_store_log(store, CACHEMW_LOG_ERR, rv,
                     "child_init failed: the store is off in this child");
    }
    return rv;
}

void mw_store_close(mw_store_t *store)
{
    store->guards |= MW_GUARD_OFF;
    store->table.close(store->self);
}

const char *mw_store_name(const mw_store_t *store)
{
    return store->name;
}

const char *mw_store_provider_name(const mw_store_t *store)
{
    return store->provider_name;
}

const mw_store_settings_t *mw_store_settings(const mw_store_t *store)
{
    return &store->settings;
}

mw_state_t *mw_store_state(const mw_store_t *store)
{
    return store->state;
}

int mw_store_is_remote(const mw_store_t *store)
{
    return (store->flags & CACHEMW_REMOTE) != 0;
}

int mw_store_has_missed(const mw_store_t *store, apr_status_t rv)
{
    return rv == APR_NOTFOUND
           || (rv == APR_EGENERAL && (store->flags & CACHEMW_TIERED));
}

int mw_store_wants_checksum(const mw_store_t *store)
{
    return !(store->flags & CACHEMW_IN_MEMORY);
}

int mw_store_believes(const mw_store_t *store, const cachemw_entry_t *entry)
{
    return (store->flags & CACHEMW_IN_MEMORY)
           || ((store->flags & CACHEMW_TIERED) && entry->is_own);
}

apr_interval_time_t mw_store_sweep_interval(const mw_store_t *store)
{
    const apr_interval_time_t interval = store->settings.cleanup_interval;

    return mw_store_is_remote(store) && interval > SWEEP_REMOTE ? SWEEP_REMOTE
                                                                : interval;
}

int mw_store_can_sweep(const mw_store_t *store)
{
    return store->can_sweep;
}

int mw_store_is_telling(const mw_store_t *store)
{
    return store->is_telling;
}

int mw_store_can_lock(const mw_store_t *store)
{
    return store->locking != NULL;
}

unsigned int mw_store_sharing(const mw_store_t *store)
{
    return store->locking && store->locking->state
               ? mw_sharing_read(store->locking->state, mw_monotonic())
               : 0;
}

int mw_store_can_sync(const mw_store_t *store)
{
    return store->can_sync;
}

apr_interval_time_t mw_store_sync_interval(const mw_store_t *store)
{
    const apr_interval_time_t wanted = store->table.sync_interval;

    return wanted > 0 ? wanted : SYNC_INTERVAL;
}

int mw_store_is_usable(mw_store_t *store)
{
    apr_status_t why;
    apr_int64_t until;

    if (store->guards & MW_GUARD_OFF) {
        return 0;
    }
    if (!(store->guards & MW_GUARD_REMOTE)
        || mw_breaker_read(store->state, &why, &until) == MW_BREAKER_CLOSED) {
        return 1;
    }
    /* else nobody would ever try whether it works again */
    return mw_monotonic() >= until;
}
