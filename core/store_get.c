/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "store_private.h"

#define READ_PAUSE 100000 /* µs, before what failed is tried again */

/* Bytes of the buckets from `first` on; -1 when one is no data. */
static apr_off_t body_length(apr_bucket_brigade *body, apr_bucket *first)
{
    apr_off_t length = 0;
    apr_bucket *e;

    for (e = first; e != APR_BRIGADE_SENTINEL(body); e = APR_BUCKET_NEXT(e)) {
        if (APR_BUCKET_IS_METADATA(e) || e->length == (apr_size_t)-1) {
            return -1;
        }
        length += e->length;
    }
    return length;
}

/* What is wrong with an entry that get returned, or NULL. */
static const char *get_nonsense(const mw_store_t *store,
                                const cachemw_entry_t *entry)
{
    apr_off_t length;

    if (entry->head_len > CACHEMW_HEAD_MAX
        || (entry->head_len > 0 && !entry->head)) {
        return "a head that cannot be";
    }
    if (entry->body_len < 0) {
        return "a body of unknown length";
    }
    if (!entry->body) {
        return NULL;
    }
    length = body_length(entry->body, APR_BRIGADE_FIRST(entry->body));
    if (length < 0 || length > entry->body_len) {
        return "more than the body";
    }
    if (length < entry->body_len && (length == 0 || store->whole_bodies)) {
        return "less than the body";
    }
    return NULL;
}

static void call_damaged(mw_store_t *store, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_id_t *id,
                         const char *what)
{
    apr_status_t rv;

    mw_store_count(store, MW_COUNT_DAMAGED, 1);
    rv = mw_remove_uncounted(store, call, key, id);
    mw_store_log(store, CACHEMW_LOG_WARNING, APR_SUCCESS,
                 rv == APR_SUCCESS ? "a damaged entry is removed: %s"
                                   : "a damaged entry is not removed: %s",
                 what);
}

void mw_store_damaged(mw_store_t *store, const cachemw_call_t *call,
                      const cachemw_key_t *key, const cachemw_id_t *id)
{
    call_damaged(store, call, key, id, "its head cannot be decoded");
}

apr_status_t mw_store_get(mw_store_t *store, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry)
{
    apr_bucket_brigade *body = entry->body;
    apr_int64_t since = 0;
    const char *nonsense = NULL;
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_GET);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (mw_call_is_sampled(call)) {
        since = mw_monotonic();
    }
    rv = store->table.get(store->self, pass.call, key, entry);
    if (since) {
        mw_store_count(store, MW_COUNT_GET_SAMPLES, 1);
        mw_store_count(store, MW_COUNT_GET_MICROSECONDS,
                       mw_monotonic() - since);
    }
    rv = mw_pass_leave(&pass, rv);
    entry->body = body;
    if (rv == APR_SUCCESS) {
        nonsense = get_nonsense(store, entry);
        if (!nonsense && entry->expires > call->now) {
            return APR_SUCCESS;
        }
        rv = nonsense ? APR_EINCOMPLETE : APR_NOTFOUND;
    }
    if (body) {
        apr_brigade_cleanup(body);
    }
    if (rv == APR_EINCOMPLETE) {
        call_damaged(store, pass.call, key, NULL,
                     nonsense ? nonsense : "the provider says so");
        rv = APR_NOTFOUND;
    }
    return rv;
}

static void body_cut(apr_bucket_brigade *body, apr_bucket *last)
{
    while (APR_BRIGADE_LAST(body) != last) {
        apr_bucket_delete(APR_BRIGADE_LAST(body));
    }
}

apr_status_t mw_read_by_slot(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             apr_off_t offset, apr_size_t limit,
                             apr_bucket_brigade *body)
{
    apr_bucket *last = APR_BRIGADE_LAST(body);
    const char *nonsense = NULL;
    mw_pass_t pass;
    apr_off_t length;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_READ);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = mw_pass_leave(&pass, store->table.read(store->self, pass.call, key, id,
                                                offset, limit, body));
    if (rv == APR_SUCCESS) {
        /* the sentinel's successor is the first bucket */
        length = body_length(body, APR_BUCKET_NEXT(last));
        if (length > 0 && (apr_size_t)length <= limit) {
            return APR_SUCCESS;
        }
        nonsense = "a piece of another length than asked for";
        rv = APR_EINCOMPLETE;
    }
    body_cut(body, last);
    if (rv == APR_EINCOMPLETE) {
        call_damaged(store, pass.call, key, id,
                     nonsense ? nonsense : "the provider says so");
        rv = APR_NOTFOUND;
    }
    return rv;
}

void mw_body_keep_unmapped(apr_bucket_brigade *body)
{
    apr_bucket *e;

    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        if (APR_BUCKET_IS_FILE(e)) {
            apr_bucket_file_enable_mmap(e, 0);
        }
    }
}

/* Buckets of files end with the pool of the call: they become memory. */
static apr_status_t body_load(apr_bucket_brigade *body)
{
    apr_bucket *e;
    const char *data;
    apr_size_t length;
    apr_status_t rv = APR_SUCCESS;

    mw_body_keep_unmapped(body);
    for (e = APR_BRIGADE_FIRST(body);
         rv == APR_SUCCESS && e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        if (APR_BUCKET_IS_FILE(e)) {
            rv = apr_bucket_read(e, &data, &length, APR_BLOCK_READ);
        }
    }
    return rv;
}

apr_status_t mw_read_by_get(mw_store_t *store, const cachemw_call_t *call,
                            const cachemw_key_t *key, const cachemw_id_t *id,
                            apr_off_t offset, apr_size_t limit,
                            apr_bucket_brigade *body)
{
    cachemw_call_t own = *call;
    cachemw_entry_t entry;
    apr_bucket_brigade *whole;
    apr_bucket *e;
    apr_status_t rv;

    memset(&entry, 0, sizeof(entry));
    own.bucket_alloc = body->bucket_alloc;
    whole = apr_brigade_create(call->pool, body->bucket_alloc);
    entry.body = whole;
    rv = mw_store_get(store, &own, key, &entry);
    if (rv == APR_SUCCESS
        && (memcmp(&entry.id, id, sizeof(*id)) || offset >= entry.body_len)) {
        rv = APR_NOTFOUND;
    }
    if (rv == APR_SUCCESS) {
        rv = apr_brigade_partition(whole, offset, &e);
    }
    if (rv == APR_SUCCESS) {
        while (APR_BRIGADE_FIRST(whole) != e) {
            apr_bucket_delete(APR_BRIGADE_FIRST(whole));
        }
        /* APR_INCOMPLETE: it ends before the limit */
        apr_brigade_partition(whole, (apr_off_t)limit, &e);
        body_cut(whole, APR_BUCKET_PREV(e));
        rv = body_load(whole);
    }
    if (rv == APR_SUCCESS) {
        APR_BRIGADE_CONCAT(body, whole);
    }
    apr_brigade_destroy(whole);
    return rv;
}

apr_status_t mw_store_read(mw_store_t *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body)
{
    return store->composed.read(store, call, key, id, offset, limit, body);
}

/* Whether it may be another time. */
static int read_may_work(const mw_store_t *store, apr_status_t rv)
{
    return rv != APR_SUCCESS && rv != APR_NOTFOUND
           && !(store->guards & MW_GUARD_OFF);
}

apr_status_t mw_store_read_on(mw_store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              apr_off_t offset, apr_size_t limit,
                              apr_bucket_brigade *body,
                              apr_interval_time_t *left)
{
    const apr_interval_time_t timeout = store->settings.timeout;
    cachemw_call_t own = *call;
    apr_int64_t now = mw_monotonic();
    const apr_int64_t end = now + *left;
    apr_status_t rv = APR_TIMEUP;

    if (!mw_store_is_remote(store)) {
        return mw_store_read(store, call, key, id, offset, limit, body);
    }
    while (now < end) {
        /* tiers have timeouts of their own */
        own.deadline = end - now < timeout || (store->flags & CACHEMW_TIERED)
                           ? end
                           : now + timeout;
        rv = mw_store_read(store, &own, key, id, offset, limit, body);
        now = mw_monotonic();
        if (!read_may_work(store, rv) || end - now <= READ_PAUSE) {
            break;
        }
        apr_sleep(READ_PAUSE);
        now = mw_monotonic();
    }
    *left = end - now;
    return rv;
}

apr_status_t mw_exists_by_get(mw_store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key)
{
    cachemw_entry_t entry;

    memset(&entry, 0, sizeof(entry));
    return mw_store_get(store, call, key, &entry);
}

apr_status_t mw_exists_by_slot(mw_store_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key)
{
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_EXISTS);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = mw_pass_leave(&pass, store->table.exists(store->self, pass.call, key));
    if (rv == APR_EINCOMPLETE) {
        call_damaged(store, pass.call, key, NULL, "the provider says so");
        rv = APR_NOTFOUND;
    }
    return rv;
}

apr_status_t mw_store_exists(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key)
{
    return store->composed.exists(store, call, key);
}
