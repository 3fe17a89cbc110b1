/* SPDX-License-Identifier: Apache-2.0 */

#include "http_protocol.h"

#include "http_core.h"

#include "cache_request.h"

/* This and others are apart, so that the way that is nearly always taken saves
 * no registers for them. */
static apr_status_t __attribute__((noinline, cold))
lookup_damaged(mw_handle_t *handle, request_rec *r, const cachemw_key_t *key)
{
    cachemw_call_t call;

    mw_request_call(r, handle->looked_up, &call);
    mw_store_damaged(handle->store, &call, key, &handle->entry.id);
    return APR_NOTFOUND;
}

/* The brigade for a body: one for all look-ups of a handle, and in it. */
static apr_bucket_brigade *lookup_brigade(mw_handle_t *handle, request_rec *r)
{
    apr_bucket_brigade *body = &handle->body;

    if (body->p != NULL) {
        apr_brigade_cleanup(body);
        return body;
    }
    body->p = r->pool;
    body->bucket_alloc = r->connection->bucket_alloc;
    APR_RING_INIT(&body->list, apr_bucket, link);
    apr_pool_cleanup_register(r->pool, body, apr_brigade_cleanup,
                              apr_pool_cleanup_null);
    return body;
}

/* From a store that is not the server's own memory: which compares whole keys
 * and has no files. */
static apr_status_t __attribute__((noinline))
lookup_get_elsewhere(mw_handle_t *handle, request_rec *r, cachemw_call_t *call,
                     const cachemw_key_t *key)
{
    const core_dir_config *dir = ap_get_core_module_config(r->per_dir_config);
    apr_status_t rv;

    call->sendfile = AP_SENDFILE_ENABLED(dir->enable_sendfile) != 0;
    handle->entry.is_own = 0;
    rv = mw_store_get(handle->store, call, key, &handle->entry);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (handle->entry.body && dir->enable_mmap == ENABLE_MMAP_OFF) {
        mw_body_keep_unmapped(handle->entry.body);
    }
    return mw_store_believes(handle->store, &handle->entry)
                   || mw_entry_id_fits(&handle->entry.id, key)
               ? APR_SUCCESS
               : lookup_damaged(handle, r, key);
}

/* Get an entry; the body too unless only the head is wanted. */
static apr_status_t lookup_get(mw_handle_t *handle, request_rec *r,
                               const cachemw_key_t *key, int body)
{
    cachemw_call_t call;

    mw_request_call(r, handle->looked_up, &call);
    call.deadline = handle->deadline;
    handle->entry.body = body ? lookup_brigade(handle, r) : NULL;
    if (mw_store_wants_checksum(handle->store)) {
        return lookup_get_elsewhere(handle, r, &call, key);
    }
    return mw_store_get(handle->store, &call, key, &handle->entry);
}

/* What was got under the plain key is a Vary record: keep it. */
static apr_status_t lookup_keep_record(mw_handle_t *handle, request_rec *r)
{
    const cachemw_entry_t *entry = &handle->entry;

    if ((mw_store_believes(handle->store, entry) ? mw_vary_decode_own
                                                 : mw_vary_decode)(
            entry->head, entry->head_len, r->pool, &handle->record)
        != APR_SUCCESS) {
        handle->record = NULL;
        return lookup_damaged(handle, r, &handle->plain);
    }
    handle->record_id = handle->entry.id;
    handle->record_expires = handle->entry.expires;
    return APR_SUCCESS;
}

static apr_status_t lookup_decode(mw_handle_t *handle, request_rec *r)
{
    const cachemw_entry_t *entry = &handle->entry;
    apr_status_t rv = (mw_store_believes(handle->store, entry)
                           ? mw_head_decode_own
                           : mw_head_decode)(
        entry->head, entry->head_len, entry->body_len, r->pool, &handle->head);

    return rv == APR_SUCCESS ? rv : lookup_damaged(handle, r, &handle->key);
}

/* What the response found is encoded with; NULL: nothing. */
static const char *lookup_encoding(const mw_handle_t *handle, request_rec *r)
{
    return handle->head.is_encoded ? apr_table_getm(
               r->pool, handle->head.headers, "Content-Encoding")
                                   : NULL;
}

/* From the record to the variant that this request selects. */
static apr_status_t __attribute__((noinline))
lookup_variant(mw_handle_t *handle, request_rec *r, int body)
{
    mw_vary_t *record = handle->record;
    mw_asked_t asked = mw_vary_asked(r->headers_in);
    apr_size_t length;
    const char *block = mw_vary_block(record->fields, asked, &length, r->pool);
    mw_head_t *head = &handle->head;
    apr_status_t rv;

    mw_vary_digest(record, block, length, &handle->digest);
    mw_vary_key(&handle->plain, record, &handle->digest, &handle->key, r->pool);
    if (!mw_vary_lists(record, &handle->digest)) {
        return APR_NOTFOUND;
    }
    if ((rv = lookup_get(handle, r, &handle->key, body)) != APR_SUCCESS
        || (rv = lookup_decode(handle, r)) != APR_SUCCESS) {
        return rv;
    }
    if (head->vary_block_len != length
        || memcmp(head->vary_block, block, length) != 0
        || !mw_vary_acceptable(asked, lookup_encoding(handle, r))) {
        return APR_NOTFOUND;
    }
    if (head->vary_serial != record->serial) {
        head->control |= MW_CONTROL_INVALIDATED;
    }
    return APR_SUCCESS;
}

apr_status_t mw_lookup_record(mw_handle_t *handle, request_rec *r)
{
    apr_status_t rv = lookup_get(handle, r, &handle->plain, 0);

    handle->record = NULL;
    if (rv == APR_SUCCESS
        && mw_head_kind(handle->entry.head, handle->entry.head_len)
               == MW_HEAD_VARY) {
        rv = lookup_keep_record(handle, r);
    }
    return rv;
}

static apr_status_t lookup_response(mw_handle_t *handle, request_rec *r)
{
    int body = !r->header_only && !(handle->fields & MW_REQUEST_CONDITIONAL);
    apr_status_t rv;

    rv = lookup_get(handle, r, &handle->plain, body);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (mw_head_kind(handle->entry.head, handle->entry.head_len)
        != MW_HEAD_VARY) {
        rv = lookup_decode(handle, r);
        /* A variant under a plain key would be served to all. */
        return rv == APR_SUCCESS && handle->head.vary_block != NULL
                   ? lookup_damaged(handle, r, &handle->plain)
                   : rv;
    }
    rv = lookup_keep_record(handle, r);
    return rv == APR_SUCCESS ? lookup_variant(handle, r, body) : rv;
}

/* What is fresh without a doubt is not going to be stored again; where
 * mod_cache takes it for no answer all the same (If-Match), it has copied the
 * request's fields itself. */
static int lookup_is_fresh(const mw_handle_t *handle, request_rec *r)
{
    return !(handle->fields & MW_REQUEST_CACHE_CONTROL)
           && mw_fresh_is(handle, r);
}

/* Its response may be stored: by these fields, before modules change them. */
static void lookup_note_asked(mw_handle_t *handle, request_rec *r)
{
    handle->asked = apr_table_copy(r->pool, r->headers_in);
}

apr_status_t mw_lookup_response(mw_handle_t *handle, request_rec *r)
{
    apr_status_t rv;

    handle->looked_up = r->request_time;
    handle->epoch = mw_epoch_now(mw_store_state(handle->store));
    handle->live = r->headers_in;
    rv = lookup_response(handle, r);
    if (rv != APR_SUCCESS || !lookup_is_fresh(handle, r)) {
        lookup_note_asked(handle, r);
    }
    return rv;
}

apr_status_t mw_lookup_again(mw_handle_t *handle, request_rec *r)
{
    if (handle->entry.body != NULL) {
        apr_brigade_cleanup(handle->entry.body);
    }
    memset(&handle->entry, 0, sizeof(handle->entry));
    memset(&handle->head, 0, sizeof(handle->head));
    handle->record = NULL;
    handle->key = handle->plain;
    return mw_lookup_response(handle, r);
}

apr_status_t mw_lookup_any(mw_handle_t *handle, request_rec *r)
{
    apr_status_t rv;

    handle->looked_up = apr_time_now();
    rv = mw_lookup_record(handle, r);
    return rv == APR_SUCCESS && handle->record == NULL
               ? lookup_decode(handle, r)
               : rv;
}

/* Whether mod_cache will answer this conditional request with a 304 of its
 * own: then nobody asks for the body. Where that is not certain the body's
 * first piece is fetched, while failing is still harmless. */
static int lookup_needs_no_body(const mw_handle_t *handle, request_rec *r)
{
    apr_table_t *headers = handle->head.headers;

    if (r->header_only || handle->entry.body_len == 0) {
        return 1;
    }
    if (!lookup_is_fresh(handle, r)
        || apr_table_get(r->headers_in, "Range") != NULL) {
        return 0;
    }
    if (apr_table_get(r->headers_in, "If-None-Match") != NULL) {
        return ap_condition_if_none_match(r, headers) >= AP_CONDITION_WEAK;
    }
    return ap_condition_if_modified_since(r, headers) >= AP_CONDITION_WEAK;
}

apr_status_t __attribute__((noinline))
mw_lookup_body(mw_handle_t *handle, request_rec *r)
{
    cachemw_id_t id = handle->entry.id;
    apr_status_t rv;

    if (lookup_needs_no_body(handle, r)) {
        return APR_SUCCESS;
    }
    rv = lookup_get(handle, r, &handle->key, 1);
    if (rv == APR_SUCCESS && memcmp(&id, &handle->entry.id, sizeof(id)) != 0) {
        rv = APR_NOTFOUND;
    }
    if (rv != APR_SUCCESS) {
        lookup_note_asked(handle, r);
    }
    return rv;
}
