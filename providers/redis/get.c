/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "get.h"
#include "layout.h"
#include "servers.h"

/* Of a reply's own lines. */
#define REPLY_LINES 1024

/* What cannot be asked for now is not there. */
static apr_status_t fields_run(mw_redis_t *store, const cachemw_call_t *call,
                               const mw_redis_bytes_t *name,
                               mw_redis_batch_t *batch,
                               mw_redis_reply_t ***replies)
{
    const apr_status_t rv =
        mw_redis_run(store, name->data, name->len, batch,
                     mw_redis_deadline(store, call), replies);

    return rv == EHOSTDOWN ? APR_NOTFOUND : rv;
}

static apr_status_t nonsense(const mw_redis_t *store)
{
    mw_redis_count(store, "nonsense");
    return APR_EGENERAL;
}

/* HMGET of the header, or of a piece, and of the pieces behind it. */
static void fields_ask(mw_redis_batch_t *batch, const mw_redis_bytes_t *name,
                       int is_header, apr_uint64_t first, int pieces)
{
    int i;

    mw_redis_batch_open(batch, 2 + is_header + pieces);
    mw_redis_batch_word(batch, "HMGET");
    mw_redis_batch_arg(batch, name->data, name->len);
    if (is_header) {
        mw_redis_batch_word(batch, "h");
    }
    for (i = 0; i < pieces; i++) {
        mw_redis_batch_number(batch, (apr_int64_t)first + i);
    }
}

/* What a reply to HMGET must be. */
static apr_status_t fields_check(const mw_redis_t *store,
                                 const mw_redis_reply_t *reply,
                                 apr_size_t count)
{
    apr_size_t i;

    if (mw_redis_error_of(reply) == MW_REDIS_ERROR_WRONGTYPE) {
        mw_redis_count(store, "damaged");
        return APR_EINCOMPLETE;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->len != count) {
        return nonsense(store);
    }
    for (i = 0; i < count; i++) {
        if (reply->elements[i]->type != REDIS_REPLY_STRING
            && reply->elements[i]->type != REDIS_REPLY_NIL) {
            return nonsense(store);
        }
    }
    return APR_SUCCESS;
}

/* Some bytes of a reply as a bucket. */
static apr_status_t data_append(mw_redis_reply_t *reply, apr_size_t from,
                                apr_size_t len, apr_bucket_brigade *body)
{
    char *data = mw_redis_reply_take(reply);
    apr_bucket *e;

    if (!data) {
        return apr_brigade_write(body, NULL, NULL, reply->data + from, len);
    }
    e = apr_bucket_heap_create(data, from + len, free, body->bucket_alloc);
    e->start += (apr_off_t)from;
    e->length = len;
    APR_BRIGADE_INSERT_TAIL(body, e);
    return APR_SUCCESS;
}

static apr_size_t piece_len(apr_off_t body_len, apr_uint64_t number)
{
    apr_off_t left = body_len - (apr_off_t)(number * MW_REDIS_PIECE);

    return left < MW_REDIS_PIECE ? (apr_size_t)left : MW_REDIS_PIECE;
}

/* The pieces that came with the header. */
static apr_status_t body_append(const mw_redis_t *store,
                                const cachemw_entry_t *entry,
                                mw_redis_reply_t *const *pieces,
                                apr_bucket_brigade *body)
{
    apr_uint64_t count = mw_redis_pieces(entry->body_len);
    apr_uint64_t i;
    apr_size_t len;
    apr_status_t rv = APR_SUCCESS;

    for (i = 0; rv == APR_SUCCESS && i < count && i < MW_REDIS_AT_ONCE; i++) {
        len = piece_len(entry->body_len, i);
        if (pieces[i]->type == REDIS_REPLY_STRING) {
            rv = mw_redis_piece_check(store, &entry->id, i, len, pieces[i]);
        }
        if (pieces[i]->type != REDIS_REPLY_STRING || rv == APR_NOTFOUND) {
            /* header and pieces were read at one instant */
            mw_redis_count(store, "damaged");
            rv = APR_EINCOMPLETE;
        }
        if (rv == APR_SUCCESS) {
            rv = data_append(pieces[i], 0, len, body);
        }
    }
    return rv;
}

apr_status_t mw_redis_get(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_redis_t *store = self;
    int pieces = entry->body ? MW_REDIS_AT_ONCE : 0;
    mw_redis_reply_t **replies;
    mw_redis_reply_t *header;
    mw_redis_batch_t batch;
    mw_redis_bytes_t name;
    apr_status_t rv;

    mw_redis_name(store, key, call->pool, &name);
    mw_redis_batch_init(&batch,
                        MW_REDIS_HEADER_MAX + REPLY_LINES
                            + MW_REDIS_AT_ONCE * MW_REDIS_PIECE_MAX,
                        call->pool);
    fields_ask(&batch, &name, 1, 0, pieces);
    rv = fields_run(store, call, &name, &batch, &replies);
    if (rv == APR_SUCCESS) {
        rv = fields_check(store, replies[0], 1 + (apr_size_t)pieces);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    header = replies[0]->elements[0];
    if (header->type == REDIS_REPLY_NIL) {
        return APR_NOTFOUND;
    }
    rv = mw_redis_header_read(store, key, header->data, header->len, NULL,
                              entry);
    if (rv == APR_SUCCESS && entry->expires <= call->now) {
        rv = APR_NOTFOUND;
    }
    if (rv == APR_SUCCESS && entry->body) {
        rv = body_append(store, entry, replies[0]->elements + 1, entry->body);
    }
    return rv;
}

apr_status_t mw_redis_exists(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key)
{
    cachemw_entry_t entry = { .body = NULL };

    return mw_redis_get(self, call, key, &entry);
}

/* --- pieces --------------------------------------------------------------- */

/* Ask for a piece of the entry, or of the one that is gone. */
static apr_status_t piece_get(mw_redis_t *store, const cachemw_call_t *call,
                              const mw_redis_bytes_t *entry,
                              const mw_redis_bytes_t *name, apr_uint64_t number,
                              mw_redis_reply_t **piece)
{
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, MW_REDIS_PIECE_MAX + REPLY_LINES, call->pool);
    fields_ask(&batch, name, 0, number, 1);
    rv = fields_run(store, call, entry, &batch, &replies);
    if (rv == APR_SUCCESS) {
        rv = fields_check(store, replies[0], 1);
    }
    if (rv == APR_SUCCESS) {
        *piece = replies[0]->elements[0];
    }
    return rv;
}

/* The length of the body is not known here: that of the piece says it, and is
 * under its mark. */
static apr_status_t piece_append(const mw_redis_t *store,
                                 const cachemw_id_t *id, apr_off_t offset,
                                 apr_size_t limit, mw_redis_reply_t *piece,
                                 apr_bucket_brigade *body)
{
    apr_uint64_t number = (apr_uint64_t)offset / MW_REDIS_PIECE;
    apr_size_t from = (apr_size_t)(offset % MW_REDIS_PIECE);
    apr_size_t end_len = mw_redis_piece_end_len(store);
    apr_size_t len;
    apr_status_t rv;

    if (piece->type != REDIS_REPLY_STRING) {
        return APR_NOTFOUND;
    }
    len = piece->len > end_len ? piece->len - end_len : 0;
    rv = mw_redis_piece_check(store, id, number, len, piece);
    if (rv == APR_SUCCESS && len <= from) {
        rv = APR_EINCOMPLETE;
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    len -= from;
    return data_append(piece, from, len < limit ? len : limit, body);
}

apr_status_t mw_redis_read(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body)
{
    mw_redis_t *store = self;
    apr_uint64_t number = (apr_uint64_t)offset / MW_REDIS_PIECE;
    mw_redis_bytes_t name, gone;
    mw_redis_reply_t *piece;
    apr_status_t rv;

    mw_redis_name(store, key, call->pool, &name);
    rv = piece_get(store, call, &name, &name, number, &piece);
    if (rv == APR_SUCCESS) {
        rv = piece_append(store, id, offset, limit, piece, body);
    }
    if (rv == APR_NOTFOUND) {
        mw_redis_name_gone(&name, id, call->pool, &gone);
        rv = piece_get(store, call, &name, &gone, number, &piece);
        if (rv == APR_SUCCESS) {
            rv = piece_append(store, id, offset, limit, piece, body);
        }
    }
    return rv;
}
