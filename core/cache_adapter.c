/* SPDX-License-Identifier: Apache-2.0 */

#include "util_filter.h"

#include "cache_request.h"
#include "coalesce.h"

/* The server's store, if it can be used at all. */
static mw_store_t *adapter_store(const mw_server_t *server)
{
    return server->store != NULL && mw_store_state(server->store) != NULL
               ? server->store
               : NULL;
}

/* Apart, so that requests which are no lookup save no registers for it. */
static void __attribute__((noinline))
request_note_lookup(request_rec *r, int lookup)
{
    if (r->prev != NULL) {
        /* mod_cache's filter does not see what comes of a redirect. */
        mw_coalesce_end_unstored(r->prev);
    }
    mw_request_state(r)->is_lookup = lookup;
}

int mw_cache_adapter_note_lookup(request_rec *r, int lookup)
{
    /* An included page is looked for first, and asked for then. */
    if (lookup || r->prev != NULL
        || ap_get_module_config(r->request_config, &cachemw_module) != NULL) {
        request_note_lookup(r, lookup);
    }
    return DECLINED;
}

static int request_is_to_be_stored(const request_rec *r)
{
    const ap_filter_t *f = r->output_filters;

    while (f != NULL && ap_cstr_casecmpn(f->frec->name, "cache_save", 10)) {
        f = f->next;
    }
    return f != NULL;
}

int mw_cache_adapter_note_store(request_rec *r, int lookup)
{
    mw_store_t *store = adapter_store(mw_config_server(r->server));
    mw_request_t *state;

    (void)lookup;
    if (store == NULL) {
        return DECLINED;
    }
    state = mw_request_state(r);
    state->is_noted = 1;
    state->epoch = mw_epoch_now(mw_store_state(store));
    if (state->handles == NULL && request_is_to_be_stored(r)) {
        state->asked = apr_table_copy(r->pool, r->headers_in);
    }
    return DECLINED;
}

/* A page that stands in for an error keeps the error's status, which
 * mod_cache would replace with the stored one, or store as the page's own. */
static int request_is_error_document(const request_rec *r)
{
    return r->prev != NULL && ap_is_HTTP_ERROR(r->prev->status);
}

/* Found for another method: what a successful PUT, POST or DELETE makes
 * invalid, with all its variants. mod_cache asks only after the success, so
 * the epoch changes here, whether anything is stored or not: what is being
 * fetched at this moment is older than the change. What cannot be read now
 * cannot be marked: rather no copy than one that passes for fresh. And where
 * nothing is stored yet, other servers may be fetching it. */
static apr_status_t adapter_open_any(mw_handle_t *handle, request_rec *r)
{
    cachemw_call_t call;
    apr_status_t rv;

    mw_epoch_bump(mw_store_state(handle->store), &handle->plain);
    rv = mw_lookup_any(handle, r);
    if (rv != APR_SUCCESS
        && (rv != APR_NOTFOUND || mw_store_is_telling(handle->store))) {
        mw_request_call(r, apr_time_now(), &call);
        mw_store_remove(handle->store, &call, &handle->plain, NULL);
    }
    return rv;
}

/* Whether mod_cache's key tells the response apart from all others: not where
 * the origin may look at a body, and not where a path was decoded before the
 * key was made of it and now has a question mark of its own. */
static int request_is_known_by_key(const request_rec *r, unsigned int fields)
{
    return !(fields & MW_REQUEST_BODY)
           && (r->proxyreq == PROXYREQ_PROXY
               || ap_strchr_c(r->uri, '?') == NULL);
}

/* A look-up for a subrequest that only looks is declined: answered, the
 * subrequest would have neither file name nor type, and who asked (mod_dir,
 * mod_autoindex, mod_negotiation) would take the page for missing. */
static int adapter_may_answer(const request_rec *r, unsigned int fields)
{
    const mw_request_t *state =
        ap_get_module_config(r->request_config, &cachemw_module);

    return r->method_number != M_GET
           || ((state == NULL || !state->is_lookup)
               && !request_is_error_document(r)
               && request_is_known_by_key(r, fields));
}

static int adapter_open_entity(cache_handle_t *h, request_rec *r,
                               const char *key)
{
    const mw_server_t *server = mw_config_server(r->server);
    const unsigned int fields = mw_request_fields(r);
    mw_handle_t *handle;
    apr_status_t rv;

    h->cache_obj = NULL;
    h->req_hdrs = NULL;
    h->resp_hdrs = NULL;
    if (adapter_store(server) == NULL || !adapter_may_answer(r, fields)
        || (handle = mw_handle_make(r, server, key)) == NULL) {
        return DECLINED;
    }
    handle->fields = fields;
    rv = r->method_number == M_GET ? mw_lookup_response(handle, r)
                                   : adapter_open_any(handle, r);
    if (handle->asked != NULL) {
        rv = mw_coalesce(handle, r, rv);
        mw_end_watch(r);
    }
    if (rv != APR_SUCCESS) {
        handle->is_miss = 1;
        if (r->method_number == M_GET) {
            mw_store_count(handle->store, MW_COUNT_MISS, 1);
        }
        return DECLINED;
    }
    handle->is_found = 1;
    mw_info_from_head(&handle->object.info, &handle->head);
    h->cache_obj = &handle->object;
    return OK;
}

static mw_handle_t *handle_of(cache_handle_t *h)
{
    return (mw_handle_t *)h->cache_obj;
}

static apr_status_t adapter_recall_headers(cache_handle_t *h, request_rec *r)
{
    mw_handle_t *handle = handle_of(h);
    apr_status_t rv =
        handle->entry.body != NULL ? APR_SUCCESS : mw_lookup_body(handle, r);

    if (rv != APR_SUCCESS) {
        h->cache_obj = NULL;
        mw_store_count(handle->store, MW_COUNT_MISS, 1);
        return rv;
    }
    h->resp_hdrs = handle->head.headers;
    /* mod_cache compares stored with present fields, byte by byte. Ours have
     * been compared, normalised. It only reads what it gets here. */
    h->req_hdrs = r->headers_in;
    return APR_SUCCESS;
}

static apr_status_t adapter_recall_body(cache_handle_t *h, apr_pool_t *p,
                                        apr_bucket_brigade *bb)
{
    (void)p;
    mw_body_append(handle_of(h), bb);
    return APR_SUCCESS;
}

/* The purge epoch from before the request went to the origin: also of one that
 * mod_cache did not look up (no-cache). */
static apr_uint64_t adapter_epoch(const mw_handle_t *handle, request_rec *r)
{
    const mw_handle_t *looked = mw_handle_of_lookup(r, &handle->plain);
    const mw_request_t *noted = mw_request_noted(r);

    if (looked != NULL) {
        return looked->epoch;
    }
    return noted != NULL ? noted->epoch : 0;
}

/* A page that is being included and includes others itself: mod_cache takes the
 * end of the first of these that is a hit for the end of the page. */
static int request_is_included_and_includes(const request_rec *r)
{
    const ap_filter_t *f = r->main != NULL ? r->output_filters : NULL;

    while (f != NULL && ap_cstr_casecmp(f->frec->name, "includes") != 0) {
        f = f->next;
    }
    return f != NULL && f->r == r;
}

static int adapter_create_entity(cache_handle_t *h, request_rec *r,
                                 const char *key, apr_off_t len,
                                 apr_bucket_brigade *bb)
{
    const mw_server_t *server = mw_config_server(r->server);
    mw_handle_t *handle;

    (void)bb;
    if (adapter_store(server) == NULL || request_is_error_document(r)
        || request_is_included_and_includes(r)
        || !request_is_known_by_key(r, mw_request_fields(r))
        || !mw_save_wanted(r, server->store, len)
        || (handle = mw_handle_make(r, server, key)) == NULL) {
        return DECLINED;
    }
    handle->epoch = adapter_epoch(handle, r);
    handle->looked_up = apr_time_now();
    handle->entry.body_len = len;
    h->cache_obj = &handle->object;
    return OK;
}

static apr_status_t adapter_store_headers(cache_handle_t *h, request_rec *r,
                                          cache_info *info)
{
    mw_handle_t *handle = handle_of(h);

    if (info != &handle->object.info) {
        handle->object.info = *info;
    }
    return handle->is_found ? mw_save_amended(handle, r)
                            : mw_save_headers(handle, r);
}

static apr_status_t adapter_store_body(cache_handle_t *h, request_rec *r,
                                       apr_bucket_brigade *in,
                                       apr_bucket_brigade *out)
{
    apr_status_t rv = mw_save_body(handle_of(h), r, in, out);

    if (rv != APR_SUCCESS) {
        mw_coalesce_end_unstored(r);
    }
    return rv;
}

static apr_status_t adapter_commit_entity(cache_handle_t *h, request_rec *r)
{
    return mw_end_commit(handle_of(h), r);
}

static apr_status_t adapter_invalidate_entity(cache_handle_t *h, request_rec *r)
{
    return mw_save_invalidate(handle_of(h), r);
}

/* A new response takes the place of the stale one. That stays until the new
 * one is complete, should it ever be. */
static int adapter_remove_entity(cache_handle_t *h)
{
    mw_store_count(handle_of(h)->store, MW_COUNT_STALE, 1);
    h->cache_obj = NULL;
    return OK;
}

static int adapter_remove_url(cache_handle_t *h, request_rec *r)
{
    mw_handle_t *handle = mw_handle_recognise(r, h);
    cachemw_call_t call;

    if (handle == NULL || !handle->is_found) {
        return DECLINED;
    }
    if (handle->is_kept) {
        return OK;
    }
    mw_request_call(r, apr_time_now(), &call);
    mw_store_remove(handle->store, &call, &handle->key, &handle->entry.id);
    return OK;
}

/* mod_cache says "miss" also when it begins to store. A stale answer in the
 * place of an error says that the next ones will not be stored either. */
static void adapter_end(const mw_handle_t *handle, request_rec *r,
                        ap_cache_status_e status)
{
    if (status != AP_CACHE_MISS) {
        mw_coalesce_end(r, ap_is_HTTP_SERVER_ERROR(r->status)
                               ? MW_FETCHED_UNSTORABLE
                               : MW_FETCHED_NOTHING);
    }
    else if (handle == NULL || handle->set == NULL) {
        mw_coalesce_end_unstored(r);
    }
}

int mw_cache_adapter_status(cache_handle_t *h, request_rec *r,
                            apr_table_t *headers, ap_cache_status_e status,
                            const char *reason)
{
    mw_handle_t *handle = mw_handle_recognise(r, h);

    (void)headers, (void)reason;
    if (handle != NULL && handle->is_found) {
        if (status == AP_CACHE_HIT) {
            mw_store_count(handle->store, MW_COUNT_HIT, 1);
        }
        else if (status == AP_CACHE_REVALIDATE) {
            mw_store_count(handle->store, MW_COUNT_STALE, 1);
            mw_store_count(handle->store, MW_COUNT_REVALIDATED, 1);
        }
    }
    if (handle == NULL || !handle->is_found || handle->asked != NULL) {
        adapter_end(handle, r, status);
    }
    return DECLINED;
}

const cache_provider mw_cache_provider = {
    .remove_entity = adapter_remove_entity,
    .store_headers = adapter_store_headers,
    .store_body = adapter_store_body,
    .recall_headers = adapter_recall_headers,
    .recall_body = adapter_recall_body,
    .create_entity = adapter_create_entity,
    .open_entity = adapter_open_entity,
    .remove_url = adapter_remove_url,
    .commit_entity = adapter_commit_entity,
    .invalidate_entity = adapter_invalidate_entity,
};
