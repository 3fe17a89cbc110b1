/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "harness.h"

#define LATE_TRIES 1000
#define LATE_PAUSE 10000 /* µs */

/* Whether the provider's own slots are called. A provider that is not
 * thread-safe is called by core, whose mutex it counts on. */
static int calls_are_direct(const ct_t *c)
{
    return !c->plan->through_core && !(c->table.flags & CACHEMW_SERIALIZE);
}

static cachemw_call_t call_make(ct_t *c)
{
    cachemw_call_t call;

    memset(&call, 0, sizeof(call));
    call.pool = c->pool;
    call.bucket_alloc = c->alloc;
    call.now = c->now;
    call.deadline = c->deadline;
    return call;
}

int ct_is_late(const ct_t *c, apr_status_t rv, int *tries)
{
    if (rv != APR_TIMEUP || c->deadline || ++*tries > LATE_TRIES) {
        return 0;
    }
    apr_sleep(LATE_PAUSE);
    return 1;
}

/* CALL(c, slot, core, args): the slot's answer, or that of core's function. */
#define CALL(c, slot, core, ...)                                \
    do {                                                        \
        int tries = 0;                                          \
        apr_status_t rv;                                        \
        do {                                                    \
            rv = calls_are_direct(c) && (c)->table.slot != NULL \
                     ? (c)->table.slot((c)->raw, __VA_ARGS__)   \
                     : core((c)->store, __VA_ARGS__);           \
        } while (ct_is_late(c, rv, &tries));                    \
        return rv;                                              \
    } while (0)

/* DIRECT(c, slot, args): the slot's answer; the rest of the function is for
 * core's. */
#define DIRECT(c, slot, ...)                                  \
    do {                                                      \
        if (calls_are_direct(c) && (c)->table.slot != NULL) { \
            return (c)->table.slot((c)->raw, __VA_ARGS__);    \
        }                                                     \
    } while (0)

apr_status_t ct_get(ct_t *c, const cachemw_key_t *key, cachemw_entry_t *entry)
{
    cachemw_call_t call = call_make(c);

    CALL(c, get, mw_store_get, &call, key, entry);
}

int ct_reads(const ct_t *c)
{
    return c->table.read != NULL;
}

apr_status_t ct_read(ct_t *c, const cachemw_key_t *key, const cachemw_id_t *id,
                     apr_off_t offset, apr_size_t limit,
                     apr_bucket_brigade *body)
{
    cachemw_call_t call = call_make(c);

    CALL(c, read, mw_store_read, &call, key, id, offset, limit, body);
}

int ct_streams(const ct_t *c)
{
    return calls_are_direct(c) && c->table.set_begin != NULL;
}

static void set_call(ct_t *c, ct_set_t *set, cachemw_call_t *call)
{
    *call = call_make(c);
    call->pool = set->pool;
}

apr_status_t ct_begin(ct_t *c, const cachemw_key_t *key,
                      const cachemw_entry_t *entry, ct_set_t *set)
{
    cachemw_call_t call;
    apr_status_t rv;

    memset(set, 0, sizeof(*set));
    apr_pool_create(&set->pool, NULL);
    set_call(c, set, &call);
    if (ct_streams(c)) {
        rv = c->table.set_begin(c->raw, &call, key, entry, &set->raw);
    }
    else {
        call.purge_epoch = mw_epoch_now(mw_store_state(c->store));
        rv = mw_store_set_begin(c->store, &call, key, key, entry, &set->core);
    }
    if (rv != APR_SUCCESS) {
        apr_pool_destroy(set->pool);
        memset(set, 0, sizeof(*set));
    }
    return rv;
}

apr_status_t ct_write(ct_t *c, ct_set_t *set, const char *data,
                      apr_size_t length)
{
    cachemw_call_t call = call_make(c);

    if (set->core != NULL) {
        return mw_store_set_write(set->core, data, length);
    }
    return c->table.set_write(c->raw, &call, set->raw, data, length);
}

apr_status_t ct_commit(ct_t *c, ct_set_t *set)
{
    cachemw_call_t call = call_make(c);
    apr_status_t rv;

    if (set->core != NULL) {
        rv = mw_store_set_commit(set->core, &call);
    }
    else {
        rv = c->table.set_commit(c->raw, &call, set->raw);
    }
    apr_pool_destroy(set->pool);
    memset(set, 0, sizeof(*set));
    return rv;
}

void ct_abort(ct_t *c, ct_set_t *set)
{
    if (set->core != NULL) {
        mw_store_set_abort(set->core);
    }
    else {
        c->table.set_abort(c->raw, set->raw);
    }
    apr_pool_destroy(set->pool);
    memset(set, 0, sizeof(*set));
}

static apr_status_t write_brigade(ct_t *c, ct_set_t *set,
                                  apr_bucket_brigade *body)
{
    apr_bucket *e;
    const char *data;
    apr_size_t length;
    apr_status_t rv;

    if (body == NULL) {
        return APR_SUCCESS;
    }
    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        rv = apr_bucket_read(e, &data, &length, APR_BLOCK_READ);
        if (rv == APR_SUCCESS && length > 0) {
            rv = ct_write(c, set, data, length);
        }
        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    return APR_SUCCESS;
}

apr_status_t ct_set(ct_t *c, const cachemw_key_t *key,
                    const cachemw_entry_t *entry)
{
    cachemw_call_t call = call_make(c);
    cachemw_entry_t begun = *entry;
    ct_set_t set;
    apr_status_t rv;

    DIRECT(c, set, &call, key, entry);
    begun.body = NULL;
    rv = ct_begin(c, key, &begun, &set);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = write_brigade(c, &set, entry->body);
    if (rv != APR_SUCCESS) {
        ct_abort(c, &set);
        return rv;
    }
    return ct_commit(c, &set);
}

apr_status_t ct_set_head(ct_t *c, const cachemw_key_t *key,
                         const cachemw_id_t *id, const cachemw_entry_t *entry)
{
    cachemw_call_t call = call_make(c);

    CALL(c, set_head, mw_store_set_head, &call, key, id, entry);
}

apr_status_t ct_remove(ct_t *c, const cachemw_key_t *key,
                       const cachemw_id_t *id)
{
    cachemw_call_t call = call_make(c);

    CALL(c, remove, mw_store_remove, &call, key, id);
}

apr_status_t ct_exists(ct_t *c, const cachemw_key_t *key)
{
    cachemw_call_t call = call_make(c);

    CALL(c, exists, mw_store_exists, &call, key);
}

apr_status_t ct_clear(ct_t *c)
{
    cachemw_call_t call = call_make(c);

    CALL(c, clear, mw_store_clear, &call);
}

apr_status_t ct_keys(ct_t *c, const char *pattern, cachemw_keys_fn *each,
                     void *baton)
{
    cachemw_call_t call = call_make(c);

    DIRECT(c, keys, &call, pattern, each, baton);
    return mw_store_keys(c->store, &call, pattern, each, baton);
}

int ct_sweeps(const ct_t *c)
{
    return c->table.sweep != NULL || (c->table.flags & CACHEMW_TIERED);
}

/* Core does not even try when the time is over, as it may be here on a busy
 * machine. */
static apr_status_t store_sweep(mw_store_t *store, const cachemw_call_t *call,
                                int *more)
{
    apr_status_t rv = mw_store_sweep(store, call, more);

    return rv == APR_TIMEUP && call->deadline <= mw_monotonic() ? APR_SUCCESS
                                                                : rv;
}

/* As the server does: tiers are stores of their own. */
static apr_status_t tiers_sweep(ct_t *c, const cachemw_call_t *call, int *more)
{
    apr_status_t rv = APR_SUCCESS;
    mw_store_t *tier;
    int one, i;

    for (i = 0; rv == APR_SUCCESS && (tier = ct_other(c, i)) != NULL; i++) {
        rv = store_sweep(tier, call, &one);
        *more |= one;
    }
    return rv;
}

apr_status_t ct_sweep(ct_t *c, apr_interval_time_t limit, int *more)
{
    cachemw_call_t call = call_make(c);

    *more = 0;
    call.deadline = mw_monotonic() + limit;
    if (c->table.flags & CACHEMW_TIERED) {
        return tiers_sweep(c, &call, more);
    }
    DIRECT(c, sweep, &call, more);
    return store_sweep(c->store, &call, more);
}

apr_status_t ct_stats(ct_t *c, cachemw_stats_t *stats)
{
    cachemw_call_t call = call_make(c);

    stats->size = sizeof(*stats);
    stats->entries = stats->expired = -1;
    stats->bytes = stats->bytes_max = stats->entries_max = -1;
    DIRECT(c, stats, &call, stats);
    return mw_store_stats(c->store, &call, stats);
}

void ct_sweep_all(ct_t *c)
{
    int more = 1;
    int steps;

    for (steps = 0; more; steps++) {
        ct_check(c, steps < 100000,
                 "sweep still says that there is more to do after %d steps "
                 "of 10 ms each",
                 steps);
        ct_status(c, ct_sweep(c, 10000, &more), APR_SUCCESS, "sweep");
    }
}

int ct_expires_fit(const ct_t *c, apr_time_t told, apr_time_t set)
{
    return told == set
           || ((c->table.flags & CACHEMW_TIERED) && told > c->now
               && told < set);
}

int ct_counts(ct_t *c)
{
    cachemw_stats_t stats = { 0 };

    return c->table.stats != NULL
           && (!(c->table.flags & CACHEMW_TIERED)
               || (ct_stats(c, &stats) == APR_SUCCESS && stats.entries >= 0));
}

apr_int64_t ct_entries(ct_t *c)
{
    cachemw_stats_t stats = { 0 };

    ct_need(c, c->table.stats != NULL, "stats");
    ct_status(c, ct_stats(c, &stats), APR_SUCCESS, "stats");
    if (stats.entries < 0) {
        ct_skip(c, "stats does not tell how many entries there are");
    }
    return stats.entries;
}
