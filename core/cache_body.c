/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>

#include "http_protocol.h"

#include "cache_request.h"
#include "lazy_bucket.h"

/* Where a lazy bucket reads from. One piece of malloc with the key behind it,
 * for it may outlive every pool of the request. */
typedef struct body_source_t {
    mw_store_t *store;
    conn_rec *c;
    cachemw_id_t id;
    apr_time_t looked_up;
    apr_interval_time_t left; /* of body_timeout */
    cachemw_key_t key;
} body_source_t;

static apr_status_t source_read(void *baton, apr_off_t offset, apr_size_t limit,
                                apr_bucket_brigade *body, apr_pool_t *pool)
{
    body_source_t *source = baton;
    cachemw_call_t call = {
        .pool = pool,
        .bucket_alloc = body->bucket_alloc,
        /* An entry that expires while it is sent is sent to its end. */
        .now = source->looked_up,
    };

    return mw_store_read_on(source->store, &call, &source->key, &source->id,
                            offset, limit, body, &source->left);
}

/* Make the client see that the response is incomplete. Of the ways that look
 * possible this is the one that cuts HTTP/1.1 and HTTP/2 responses in every
 * filter chain: the core must neither reuse the connection nor end the body
 * properly, and filters between must not be told of an error that they would
 * turn into a page. */
static void source_cut(void *baton, apr_bucket *bucket, apr_status_t rv)
{
    body_source_t *source = baton;
    apr_bucket *error = ap_bucket_error_create(HTTP_BAD_GATEWAY, NULL,
                                               source->c->pool, bucket->list);

    APR_BUCKET_INSERT_AFTER(bucket, error);
    if (source->c->aborted) {
        return;
    }
    source->c->keepalive = AP_CONN_CLOSE;
    source->c->aborted = 1;
    mw_store_count(source->store, MW_COUNT_CUT, 1);
    mw_store_log(source->store, CACHEMW_LOG_WARNING, rv,
                 "get: the rest of a body could not be read, its response is "
                 "cut short");
}

static const mw_lazy_t source_functions = { source_read, source_cut, free };

/* Longest part of a body behind one bucket, whose size_t must hold it. */
#define SOURCE_MAX ((apr_off_t)1 << 30)

static body_source_t *source_make(const mw_handle_t *handle)
{
    body_source_t *source = ap_malloc(sizeof(*source) + handle->key.len);
    char *key = (char *)(source + 1);

    memcpy(key, handle->key.data, handle->key.len);
    source->store = handle->store;
    source->c = handle->connection;
    source->id = handle->entry.id;
    source->looked_up = handle->looked_up;
    source->left = mw_store_settings(handle->store)->body_timeout;
    source->key.data = key;
    source->key.len = handle->key.len;
    return source;
}

/* Apart, so that bodies which are there save no registers for it. */
static void __attribute__((noinline))
body_append_rest(mw_handle_t *handle, apr_bucket_brigade *bb, apr_off_t offset)
{
    while (offset < handle->entry.body_len) {
        apr_off_t length = handle->entry.body_len - offset;

        handle->is_kept = 1;
        if (length > SOURCE_MAX) {
            length = SOURCE_MAX;
        }
        APR_BRIGADE_INSERT_TAIL(
            bb, mw_bucket_lazy_create(&source_functions, source_make(handle),
                                      offset, length, bb->bucket_alloc));
        offset += length;
    }
}

void mw_body_append(mw_handle_t *handle, apr_bucket_brigade *bb)
{
    apr_bucket_brigade *body = handle->entry.body;
    apr_off_t length = 0;
    apr_bucket *e;

    if (body != NULL) {
        /* All data of known length: mw_store_get() lets nothing else pass. */
        for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
             e = APR_BUCKET_NEXT(e)) {
            length += (apr_off_t)e->length;
        }
        APR_BRIGADE_CONCAT(bb, body);
    }
    if (length < handle->entry.body_len) {
        body_append_rest(handle, bb, length);
    }
    mw_store_count(handle->store, MW_COUNT_BYTES_SENT,
                   (apr_uint64_t)handle->entry.body_len);
}
