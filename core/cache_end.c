/* SPDX-License-Identifier: Apache-2.0 */

#include "http_core.h"
#include "util_filter.h"

#include "cache_request.h"
#include "coalesce.h"

/* Bytes that httpd buffers for a client before it waits for him, at most: see
 * FlushMaxThreshold. */
#define OUTPUT_BUFFER 65536

/* Bytes of small pieces that become one write. */
#define OUTPUT_GATHERED 32768

/* Of a filter. */
typedef struct end_t {
    mw_turn_t *turn;
    apr_off_t room; /* bytes that httpd still buffers, if the client has not
                       been sent all that was passed on */
    apr_bucket_brigade *held; /* to be passed on with what follows: one bucket
                                 of OUTPUT_GATHERED bytes, or none; NULL */
    int has_begun;            /* its head came by */
} end_t;

static ap_filter_rec_t *end_filter;

/* @param rv of the commit. Cut off, or overtaken by a purge: the next one may
 * be stored. */
static mw_fetched_e end_verdict(const mw_handle_t *handle, request_rec *r,
                                apr_status_t rv)
{
    if (rv == APR_SUCCESS) {
        return handle->is_private ? MW_FETCHED_UNSTORABLE : MW_FETCHED_STORED;
    }
    return rv == APR_NOTFOUND || r->connection->aborted
                   || (!handle->is_found
                       && (!handle->is_complete || handle->is_broken))
               ? MW_FETCHED_NOTHING
               : MW_FETCHED_UNSTORABLE;
}

static apr_status_t end_commit_now(mw_handle_t *handle, request_rec *r)
{
    apr_status_t rv =
        handle->is_found ? mw_save_amend(handle, r) : mw_save_commit(handle, r);

    mw_coalesce_end(r, end_verdict(handle, r, rv));
    return rv;
}

/* mod_cache passes the end of the response on after this. A store on another
 * machine may take its time, so it is committed when that has happened. */
apr_status_t mw_end_commit(mw_handle_t *handle, request_rec *r)
{
    if (!handle->is_found && mw_store_is_remote(handle->store)
        && mw_coalesce_is_watched(r) && mw_save_is_whole(handle, r)) {
        handle->is_late = 1;
        return APR_SUCCESS;
    }
    return end_commit_now(handle, r);
}

/* --- behind mod_cache's filters -------------------------------------------- */

static int brigade_ends(const apr_bucket_brigade *bb)
{
    const apr_bucket *e = APR_BRIGADE_FIRST(bb);

    while (e != APR_BRIGADE_SENTINEL(bb) && !APR_BUCKET_IS_EOS(e)) {
        e = APR_BUCKET_NEXT(e);
    }
    return e != APR_BRIGADE_SENTINEL(bb);
}

/* The core keeps small pieces until there are more of them, or the request is
 * over. Have it write what the socket takes, without waiting, as the MPM does
 * for connections that it watches. */
static void output_push(ap_filter_t *f)
{
#if MODULE_MAGIC_NUMBER_MAJOR == 20120211
    while (f->next != NULL) {
        f = f->next;
    }
    if (f->frec == ap_core_output_filter_handle) {
        f->frec->filter_func.out_func(f, NULL);
    }
#endif
}

static apr_off_t output_buffer(const conn_rec *c)
{
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 97)
    const core_server_config *core =
        ap_get_core_module_config(c->base_server->module_config);

    if (core->flush_max_threshold < OUTPUT_BUFFER) {
        return (apr_off_t)core->flush_max_threshold;
    }
#else
    (void)c;
#endif
    return OUTPUT_BUFFER;
}

static int brigade_flushes(const apr_bucket_brigade *bb)
{
    const apr_bucket *e = APR_BRIGADE_FIRST(bb);

    while (e != APR_BRIGADE_SENTINEL(bb) && !APR_BUCKET_IS_FLUSH(e)) {
        e = APR_BUCKET_NEXT(e);
    }
    return e != APR_BRIGADE_SENTINEL(bb);
}

/* Bytes that httpd still buffers when it has got this, too; less than none: it
 * may wait for the client. What other responses left there is unknown. */
static apr_off_t output_room(const ap_filter_t *f, apr_bucket_brigade *bb)
{
    const end_t *end = f->ctx;
    const int is_pending = f->c->data_in_output_filters;
    apr_off_t room = is_pending ? end->room : output_buffer(f->c);
    apr_off_t length;

    if (is_pending && brigade_flushes(bb)) {
        return -1;
    }

    return apr_brigade_length(bb, 0, &length) == APR_SUCCESS && length >= 0
               ? room - length
               : -1;
}

/* Whether passing this on may wait for the client: there is much of it, or it
 * does not take what it was sent before. The response's own beginning is not
 * pushed for that: it and its end are one write. */
static int output_may_wait(ap_filter_t *f, apr_bucket_brigade *bb)
{
    apr_off_t room = output_room(f, bb);

    if (room < 0 && f->c->data_in_output_filters) {
        output_push(f);
        room = output_room(f, bb);
    }
    return room < 0;
}

/* mod_proxy_http flushes before it waits for its origin, so what it passes on
 * without that need not be sent at once. Of others this cannot be told. */
static int output_is_prompt(const request_rec *r)
{
    return r->proxyreq != PROXYREQ_NONE && r->filename != NULL
           && strncmp(r->filename, "proxy:http", 10) == 0;
}

static apr_size_t output_held(const end_t *end)
{
    return end->held != NULL && !APR_BRIGADE_EMPTY(end->held)
               ? APR_BRIGADE_FIRST(end->held)->length
               : 0;
}

/* Whether there are data in it, few together with those that are held, and
 * nothing else. */
static int output_is_small(const end_t *end, apr_bucket_brigade *bb)
{
    const apr_bucket *e;
    apr_off_t length;

    for (e = APR_BRIGADE_FIRST(bb); e != APR_BRIGADE_SENTINEL(bb);
         e = APR_BUCKET_NEXT(e)) {
        if (APR_BUCKET_IS_METADATA(e)) {
            return 0;
        }
    }
    return apr_brigade_length(bb, 0, &length) == APR_SUCCESS && length >= 0
           && (apr_off_t)output_held(end) + length <= OUTPUT_GATHERED;
}

static apr_bucket *output_make_room(const ap_filter_t *f)
{
    apr_bucket_alloc_t *alloc = f->c->bucket_alloc;
    end_t *end = f->ctx;
    apr_bucket *e;

    if (end->held == NULL) {
        end->held = apr_brigade_create(f->r->pool, alloc);
    }
    if (APR_BRIGADE_EMPTY(end->held)) {
        e = apr_bucket_heap_create(apr_bucket_alloc(OUTPUT_GATHERED, alloc),
                                   OUTPUT_GATHERED, apr_bucket_free, alloc);
        e->length = 0;
        APR_BRIGADE_INSERT_TAIL(end->held, e);
    }
    return APR_BRIGADE_FIRST(end->held);
}

/* A copy: each of an origin's chunks, which may be of one byte, would keep the
 * 8 KB that it was read into. */
static apr_status_t output_hold(const ap_filter_t *f, apr_bucket_brigade *bb)
{
    apr_bucket *into = output_make_room(f);
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(bb)) {
        apr_bucket *e = APR_BRIGADE_FIRST(bb);
        apr_bucket_heap *heap = into->data;
        const char *data;
        apr_size_t length;

        rv = apr_bucket_read(e, &data, &length, APR_BLOCK_READ);
        if (rv == APR_SUCCESS) {
            memcpy(heap->base + into->length, data, length);
            into->length += length;
            apr_bucket_delete(e);
        }
    }
    return rv;
}

/* Put what is held in front. */
static void output_release(const ap_filter_t *f, apr_bucket_brigade *bb)
{
    end_t *end = f->ctx;

    if (end->held != NULL) {
        APR_BRIGADE_PREPEND(bb, end->held);
    }
}

/* Pieces of a body that come at once are passed on, and written, together: an
 * origin's come by 8 KB, and each write costs more than copying them does. The
 * head is none of them: what cuts the body into chunks is put behind us after
 * that came by. */
static apr_status_t output_gather(ap_filter_t *f, apr_bucket_brigade *bb)
{
    end_t *end = f->ctx;

    if (end->has_begun && output_is_prompt(f->r) && output_is_small(end, bb)) {
        return output_hold(f, bb);
    }
    end->has_begun = 1;
    output_release(f, bb);
    end->room = output_room(f, bb);
    return ap_pass_brigade(f->next, bb);
}

/* With two marks, another filter may have committed it meanwhile. */
static int handle_is_late(const mw_handle_t *handle)
{
    return handle != NULL && handle->is_late && handle->set != NULL;
}

/* Behind mod_cache's filters: what comes by and is not being stored by now will
 * not be. Canned error pages, for example, never pass mod_cache's filter, and
 * nobody else would tell. What is stored on another machine is committed here,
 * behind its last byte, unless others would have to wait for the client. */
static apr_status_t end_pass(ap_filter_t *f, apr_bucket_brigade *bb)
{
    const end_t *end = f->ctx;
    mw_handle_t *handle = mw_handle_of_storing(f->r);
    apr_status_t rv;

    if (ap_is_HTTP_INFO(f->r->status)) {
        return ap_pass_brigade(f->next, bb);
    }
    if (handle != NULL && mw_store_is_remote(handle->store)
        && !brigade_ends(bb)) {
        return output_gather(f, bb);
    }
    output_release(f, bb);
    mw_coalesce_watch(end->turn, 0);
    ap_remove_output_filter(f);
    if (handle == NULL) {
        mw_coalesce_end_unstored(f->r);
    }
    if (handle_is_late(handle) && output_may_wait(f, bb)) {
        end_commit_now(handle, f->r);
    }
    rv = ap_pass_brigade(f->next, bb);
    if (handle_is_late(handle)) {
        output_push(f);
        end_commit_now(handle, f->r);
    }
    return rv;
}

void mw_end_watch(request_rec *r)
{
    mw_turn_t *turn = mw_coalesce_unwatched(r);
    end_t *end;

    if (turn != NULL && r->main == NULL) {
        end = apr_pcalloc(r->pool, sizeof(*end));
        end->turn = turn;
        ap_add_output_filter_handle(end_filter, end, r, r->connection);
        mw_coalesce_watch(turn, 1);
    }
}

void mw_end_register(void)
{
    end_filter = ap_register_output_filter("CACHEMW_END", end_pass, NULL,
                                           AP_FTYPE_PROTOCOL);
}
