/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "apr_strings.h"

#include "spool.h"
#include "store_private.h"

#define SPOOL_MEMORY ((apr_size_t)256 * 1024)

struct mw_set_t {
    mw_store_t *store;
    unsigned int flags;  /* MW_SET_… */
    cachemw_call_t call; /* of begin, without its deadline */
    cachemw_key_t key;
    apr_uint32_t slot;         /* of the purge epoch, with MW_SET_EPOCH */
    cachemw_entry_t entry;     /* head: for spooled sets only */
    apr_off_t length;          /* written so far */
    apr_status_t failed;       /* why it cannot be committed */
    apr_pool_t *scratch;       /* for one write of a streamed set */
    void *handle;              /* the provider's, streamed */
    mw_spool_t *spool;         /* spooled */
    apr_interval_time_t spent; /* in the provider, when sampled */
    apr_interval_time_t left;  /* remote: for all that is still to be done */
    apr_int64_t entered;       /* remote: when the present call began */
};

static int set_is_sampled(const mw_set_t *set)
{
    return mw_call_is_sampled(&set->call);
}

static void count_sample(mw_store_t *store, apr_interval_time_t spent)
{
    mw_store_count(store, MW_COUNT_SET_SAMPLES, 1);
    mw_store_count(store, MW_COUNT_SET_MICROSECONDS, spent);
}

/* --- waiting for a remote store ------------------------------------------- */

/* A body comes as slowly as its origin sends it: that is no waiting of ours. So
 * what is left goes from call to call, and each has a deadline made of it. */
static apr_status_t set_enter(mw_set_t *set, mw_pass_t *pass,
                              const cachemw_call_t *call, mw_slot_e slot)
{
    mw_store_t *store = set->store;

    if (!mw_store_is_remote(store)) {
        return mw_pass_enter(pass, store, call, slot);
    }
    /* of tiers, those elsewhere see to that: others take it all the same */
    if (set->left <= 0 && !(store->flags & CACHEMW_TIERED)) {
        mw_store_count(store, MW_COUNT_TIMEOUT, 1);
        mw_store_log(store, CACHEMW_LOG_WARNING, APR_TIMEUP,
                     "a response is not stored: it took too long");
        return APR_TIMEUP;
    }
    set->entered = mw_monotonic();
    pass->own = *call;
    pass->own.deadline = set->entered + set->left;
    if (call->deadline && call->deadline < pass->own.deadline) {
        pass->own.deadline = call->deadline;
    }
    return mw_pass_enter(pass, store, &pass->own, slot);
}

static apr_status_t set_leave(mw_set_t *set, mw_pass_t *pass, apr_status_t rv)
{
    /* of tiers, each elsewhere has a budget of its own: what others take is
     * not theirs */
    if (mw_store_is_remote(set->store)
        && !(set->store->flags & CACHEMW_TIERED)) {
        set->left -= mw_monotonic() - set->entered;
    }
    return mw_pass_leave(pass, rv);
}

/* --- streamed ------------------------------------------------------------- */

static apr_status_t streamed_begin(mw_set_t *set, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_entry_t *entry)
{
    mw_store_t *store = set->store;
    mw_pass_t pass;
    apr_status_t rv = set_enter(set, &pass, call, MW_SLOT_SET_BEGIN);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = store->table.set_begin(store->self, pass.call, key, entry,
                                &set->handle);
    rv = set_leave(set, &pass, rv);
    if (rv == APR_SUCCESS) {
        apr_pool_create(&set->scratch, set->call.pool);
    }
    return rv;
}

static apr_status_t streamed_write(mw_set_t *set, const cachemw_call_t *call,
                                   const char *data, apr_size_t length)
{
    mw_store_t *store = set->store;
    mw_pass_t pass;
    apr_status_t rv = set_enter(set, &pass, call, MW_SLOT_SET_WRITE);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = store->table.set_write(store->self, pass.call, set->handle, data,
                                length);
    return set_leave(set, &pass, rv);
}

static void streamed_abort(mw_set_t *set)
{
    mw_store_t *store = set->store;

    /* Not through mw_pass_enter(): neither breaker nor deadline may keep the
     * provider from hearing of it. */
    if (store->mutex) {
        apr_thread_mutex_lock(store->mutex);
    }
    store->table.set_abort(store->self, set->handle);
    if (store->mutex) {
        apr_thread_mutex_unlock(store->mutex);
    }
}

static apr_status_t streamed_commit(mw_set_t *set, const cachemw_call_t *call)
{
    mw_store_t *store = set->store;
    mw_pass_t pass;
    apr_status_t rv = set_enter(set, &pass, call, MW_SLOT_SET_COMMIT);

    if (rv != APR_SUCCESS) {
        streamed_abort(set);
        return rv;
    }
    rv = store->table.set_commit(store->self, pass.call, set->handle);
    return set_leave(set, &pass, rv);
}

const mw_set_way_t mw_set_streamed = { .begin = streamed_begin,
                                       .write = streamed_write,
                                       .commit = streamed_commit,
                                       .abort = streamed_abort };

/* --- spooled -------------------------------------------------------------- */

static apr_status_t spool_temp_file(void *baton, apr_file_t **file,
                                    apr_pool_t *pool)
{
    mw_store_t *store = baton;

    return store->services.temp_file(&store->services, file, pool);
}

static apr_status_t spooled_begin(mw_set_t *set, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_entry_t *entry)
{
    (void)call, (void)key;
    set->entry.head = apr_pmemdup(set->call.pool, entry->head, entry->head_len);
    set->spool =
        mw_spool_make(SPOOL_MEMORY, set->store->settings.max_object_size,
                      spool_temp_file, set->store, set->call.pool);
    return APR_SUCCESS;
}

static apr_status_t spooled_write(mw_set_t *set, const cachemw_call_t *call,
                                  const char *data, apr_size_t length)
{
    apr_status_t rv = mw_spool_write(set->spool, data, length);

    (void)call;
    if (rv == APR_SUCCESS) {
        return rv;
    }
    mw_store_count(set->store, MW_COUNT_ERROR_SET, 1);
    mw_store_log(set->store, CACHEMW_LOG_WARNING, rv,
                 "set: cannot write to a temporary file in %s",
                 set->store->temp_dir);
    /* The limits of the store were looked at before: what is full is the
     * temporary directory, which is trouble. */
    return rv == APR_ENOSPC ? EIO : rv;
}

static void spooled_abort(mw_set_t *set)
{
    mw_spool_destroy(set->spool);
}

static apr_status_t spooled_commit(mw_set_t *set, const cachemw_call_t *call)
{
    mw_store_t *store = set->store;
    cachemw_entry_t entry = set->entry;
    apr_bucket_alloc_t *alloc = call->bucket_alloc;
    mw_pass_t pass;
    apr_status_t rv;

    if (!alloc) {
        alloc = apr_bucket_alloc_create(call->pool);
    }
    entry.body = apr_brigade_create(call->pool, alloc);
    entry.body_len = set->length;
    rv = mw_spool_brigade(set->spool, entry.body);
    if (rv == APR_SUCCESS) {
        rv = set_enter(set, &pass, call, MW_SLOT_SET);
        if (rv == APR_SUCCESS) {
            rv = store->table.set(store->self, pass.call, &set->key, &entry);
            rv = set_leave(set, &pass, rv);
        }
    }
    apr_brigade_destroy(entry.body);
    mw_spool_destroy(set->spool);
    return rv;
}

const mw_set_way_t mw_set_spooled = { .begin = spooled_begin,
                                      .write = spooled_write,
                                      .commit = spooled_commit,
                                      .abort = spooled_abort };

/* --- both ----------------------------------------------------------------- */

static int set_is_overtaken(const mw_set_t *set)
{
    return (set->flags & MW_SET_EPOCH)
           && mw_epoch_is_overtaken(set->store->state, set->slot,
                                    set->call.purge_epoch);
}

static void set_count(const mw_set_t *set, mw_counter_e which, apr_uint64_t n)
{
    if (set->flags & MW_SET_REQUEST) {
        mw_store_count(set->store, which, n);
    }
}

/* Count why a set that begins or ends with rv is not stored; trouble is
 * counted where it happens. */
static apr_status_t set_refused(const mw_set_t *set, apr_status_t rv)
{
    if (rv == APR_ENOSPC) {
        set_count(set, MW_COUNT_NO_SPACE, 1);
    }
    else if (rv == APR_NOTFOUND) {
        set_count(set, MW_COUNT_REFUSED, 1);
    }
    return rv;
}

static apr_status_t set_cleanup(void *data)
{
    mw_set_t *set = data;

    if (set->failed == APR_SUCCESS) {
        set_count(set, MW_COUNT_ABORTED, 1);
    }
    set->store->composed.way->abort(set);
    return APR_SUCCESS;
}

static apr_status_t set_check_limits(const mw_set_t *set,
                                     const cachemw_entry_t *entry)
{
    const mw_store_settings_t *limits = &set->store->settings;

    if (set->key.len > CACHEMW_KEY_MAX || entry->head_len > CACHEMW_HEAD_MAX
        || entry->body_len > limits->max_object_size) {
        return APR_ENOSPC;
    }
    if ((set->flags & MW_SET_REQUEST) && entry->body_len >= 0
        && entry->body_len < limits->min_object_size) {
        return APR_ENOSPC;
    }
    return APR_SUCCESS;
}

apr_status_t mw_set_begin(mw_store_t *store, const cachemw_call_t *call,
                          const cachemw_key_t *key, const cachemw_key_t *plain,
                          const cachemw_entry_t *entry, unsigned int flags,
                          mw_set_t **result)
{
    mw_set_t *set;
    apr_int64_t since;
    apr_status_t rv;

    if (store->guards & MW_GUARD_OFF) {
        return APR_EGENERAL;
    }
    set = apr_pcalloc(call->pool, sizeof(*set));
    set->store = store;
    set->flags = flags;
    set->call = *call;
    set->call.deadline = 0;
    set->entry = *entry;
    set->entry.body = NULL;
    set->key.data = apr_pmemdup(call->pool, key->data, key->len);
    set->key.len = key->len;
    set->left = call->deadline && !(flags & MW_SET_PART)
                    ? call->deadline - mw_monotonic()
                    : store->settings.store_timeout;
    if (flags & MW_SET_EPOCH) {
        set->slot = mw_epoch_slot(store->state, plain);
    }
    rv = set_is_overtaken(set) ? APR_NOTFOUND : set_check_limits(set, entry);
    if (rv != APR_SUCCESS) {
        return set_refused(set, rv);
    }
    since = set_is_sampled(set) ? mw_monotonic() : 0;
    rv = store->composed.way->begin(set, call, key, &set->entry);
    if (rv != APR_SUCCESS) {
        return set_refused(set, rv);
    }
    /* "pre": before the pool's sub-pools go, in one of which the provider may
     * have what set_abort needs. */
    apr_pool_pre_cleanup_register(call->pool, set, set_cleanup);
    if (since) {
        set->spent = mw_monotonic() - since;
    }
    *result = set;
    return APR_SUCCESS;
}

apr_status_t mw_set_write(mw_set_t *set, const cachemw_call_t *call,
                          const char *data, apr_size_t length)
{
    const mw_store_t *store = set->store;
    apr_off_t room = store->settings.max_object_size - set->length;
    apr_int64_t since;

    if (set->failed != APR_SUCCESS || length == 0) {
        return set->failed;
    }
    if (length > (apr_uint64_t)room) {
        set->failed = set_refused(set, APR_ENOSPC);
        return set->failed;
    }
    since = set_is_sampled(set) ? mw_monotonic() : 0;
    set->failed = store->composed.way->write(set, call, data, length);
    if (set->failed != APR_SUCCESS) {
        return set_refused(set, set->failed);
    }
    if (since) {
        set->spent += mw_monotonic() - since;
    }
    set->length += length;
    return APR_SUCCESS;
}

apr_status_t mw_set_write_brigade(mw_set_t *set, const cachemw_call_t *call,
                                  apr_bucket_brigade *body)
{
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(body)) {
        apr_bucket *e = APR_BRIGADE_FIRST(body);
        const char *data;
        apr_size_t length;

        rv = apr_bucket_read(e, &data, &length, APR_BLOCK_READ);
        if (rv == APR_SUCCESS) {
            rv = mw_set_write(set, call, data, length);
        }
        apr_bucket_delete(e);
    }
    apr_brigade_cleanup(body);
    return rv;
}

/* Why a set must not be committed now. */
static apr_status_t set_verdict(const mw_set_t *set)
{
    if (set->failed != APR_SUCCESS) {
        return set->failed;
    }
    if (set->entry.body_len >= 0 && set->entry.body_len != set->length) {
        return APR_EINVAL;
    }
    if ((set->flags & MW_SET_REQUEST)
        && set->length < set->store->settings.min_object_size) {
        return set_refused(set, APR_ENOSPC);
    }
    if (set_is_overtaken(set)) {
        return set_refused(set, APR_NOTFOUND);
    }
    return APR_SUCCESS;
}

/* It may be there now. A purge that found nothing to remove because it ran just
 * before would be without effect, so that this must not be left out when storing
 * took its time. */
static apr_status_t set_published(mw_set_t *set, const cachemw_call_t *call,
                                  apr_status_t rv)
{
    cachemw_call_t own = *call;

    if (set_is_overtaken(set)) {
        own.deadline = 0;
        mw_remove_uncounted(set->store, &own, &set->key, &set->entry.id);
        rv = rv == APR_SUCCESS ? APR_NOTFOUND : rv;
    }
    if (rv != APR_SUCCESS) {
        return set_refused(set, rv);
    }
    set_count(set, MW_COUNT_STORED, 1);
    set_count(set, MW_COUNT_BYTES_STORED, set->length);
    return APR_SUCCESS;
}

apr_status_t mw_store_set_commit(mw_set_t *set, const cachemw_call_t *call)
{
    const mw_set_way_t *way = set->store->composed.way;
    apr_int64_t since;
    apr_status_t rv;

    rv = set_verdict(set);
    if (rv != APR_SUCCESS) {
        if (set->failed == APR_SUCCESS && rv != APR_EINVAL) {
            set->failed = rv; /* counted already, and not as aborted */
        }
        mw_store_set_abort(set);
        return rv;
    }
    apr_pool_cleanup_kill(set->call.pool, set, set_cleanup);
    since = set_is_sampled(set) ? mw_monotonic() : 0;
    rv = way->commit(set, call);
    if (since) {
        count_sample(set->store, set->spent + mw_monotonic() - since);
    }
    return set_published(set, call, rv);
}

void mw_store_set_abort(mw_set_t *set)
{
    if (set) {
        apr_pool_cleanup_run(set->call.pool, set, set_cleanup);
    }
}

apr_off_t mw_store_set_length(const mw_set_t *set)
{
    return set->length;
}

apr_int64_t mw_store_set_deadline(const mw_set_t *set)
{
    return mw_store_is_remote(set->store) ? mw_monotonic() + set->left : 0;
}

apr_status_t mw_store_set_begin(mw_store_t *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_key_t *plain,
                                const cachemw_entry_t *entry, mw_set_t **set)
{
    return mw_set_begin(store, call, key, plain, entry,
                        MW_SET_EPOCH | MW_SET_REQUEST, set);
}

apr_status_t mw_store_set_write(mw_set_t *set, const char *data,
                                apr_size_t length)
{
    cachemw_call_t call = set->call;
    apr_status_t rv;

    if (!set->scratch) {
        return mw_set_write(set, &call, data, length);
    }
    call.pool = set->scratch;
    rv = mw_set_write(set, &call, data, length);
    apr_pool_clear(set->scratch);
    return rv;
}

/* --- in one piece --------------------------------------------------------- */

apr_status_t mw_set_by_slot(mw_store_t *store, const cachemw_call_t *call,
                            const cachemw_key_t *key,
                            const cachemw_entry_t *entry)
{
    mw_pass_t pass;
    apr_int64_t since;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_SET);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    since = mw_call_is_sampled(call) ? mw_monotonic() : 0;
    rv = store->table.set(store->self, pass.call, key, entry);
    if (since) {
        count_sample(store, mw_monotonic() - since);
    }
    return mw_pass_leave(&pass, rv);
}

apr_status_t mw_set_by_streaming(mw_store_t *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_entry_t *entry)
{
    cachemw_call_t shared = *call;
    mw_set_t *set;
    apr_status_t rv;

    mw_store_share_deadline(store, &shared);
    rv = mw_set_begin(store, &shared, key, NULL, entry, 0, &set);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (entry->body) {
        rv = mw_set_write_brigade(set, &shared, entry->body);
    }
    if (rv != APR_SUCCESS) {
        mw_store_set_abort(set);
        return rv;
    }
    return mw_store_set_commit(set, &shared);
}

apr_status_t mw_store_set(mw_store_t *store, const cachemw_call_t *call,
                          const cachemw_key_t *key,
                          const cachemw_entry_t *entry)
{
    apr_status_t rv = APR_ENOSPC;

    if (key->len <= CACHEMW_KEY_MAX && entry->head_len <= CACHEMW_HEAD_MAX
        && entry->body_len <= store->settings.max_object_size) {
        rv = store->composed.set(store, call, key, entry);
    }
    if (rv == APR_ENOSPC) {
        mw_store_count(store, MW_COUNT_NO_SPACE, 1);
    }
    return rv;
}
