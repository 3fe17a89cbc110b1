/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "providers/common/copied.h"

#include "get.h"
#include "layout.h"
#include "servers.h"

/* Of a reply's own lines. */
#define REPLY_LINES 1024

static apr_status_t nonsense(const mw_redis_t *store)
{
    mw_redis_count(store, "nonsense");
    return EPROTO;
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

/* Where the strings of a reply go: pieces of a body to buckets. */
typedef struct places_t {
    apr_pool_t *pool;
    apr_bucket_brigade *body; /* of pieces only; NULL: none are asked for */
    apr_bucket *pieces[MW_REDIS_AT_ONCE];
    int is_header; /* the first one is no piece */
} places_t;

/* What was put there by a try that failed. */
static void places_forget(places_t *places)
{
    int i;

    for (i = 0; i < MW_REDIS_AT_ONCE; i++) {
        if (places->pieces[i]) {
            apr_bucket_delete(places->pieces[i]);
            places->pieces[i] = NULL;
        }
    }
}

static char *place_string(void *baton, int index, apr_size_t len)
{
    places_t *places = baton;
    int piece = index - places->is_header;
    char *data;

    if (index < 0) {
        places_forget(places);
        return NULL;
    }
    if (piece < 0 || !places->body || piece >= MW_REDIS_AT_ONCE) {
        return apr_palloc(places->pool, len);
    }
    data = mw_copied_append(places->body, len);
    if (data) {
        places->pieces[piece] = APR_BRIGADE_LAST(places->body);
    }
    return data;
}

/* The bucket of a piece, of which `len` bytes from `from` on are wanted; few
 * bytes were not placed. */
static apr_status_t piece_keep(places_t *places, int piece,
                               const mw_redis_reply_t *reply, apr_size_t from,
                               apr_size_t len)
{
    apr_bucket *e = places->pieces[piece];
    char *data;

    if (e && reply->len >= MW_REDIS_PLACED) {
        e->start += (apr_off_t)from;
        e->length = len;
        return APR_SUCCESS;
    }
    data = mw_copied_append(places->body, len);
    if (!data) {
        return APR_ENOMEM;
    }
    memcpy(data, reply->data + from, len);
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
                                places_t *places)
{
    apr_uint64_t count = mw_redis_pieces(entry->body_len);
    apr_uint64_t i;
    apr_size_t len;
    apr_status_t rv = APR_SUCCESS;

    /* what a longer one may have left */
    for (i = count; i < MW_REDIS_AT_ONCE; i++) {
        if (places->pieces[i]) {
            apr_bucket_delete(places->pieces[i]);
            places->pieces[i] = NULL;
        }
    }
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
            rv = piece_keep(places, (int)i, pieces[i], 0, len);
        }
    }
    return rv;
}

/* HMGET and its reply, an array of `count` strings and nils. */
static apr_status_t fields_get(mw_redis_t *store, const cachemw_call_t *call,
                               const mw_redis_bytes_t *entry,
                               mw_redis_batch_t *batch, places_t *places,
                               apr_size_t count, mw_redis_reply_t **reply)
{
    mw_redis_reply_t **replies;
    apr_status_t rv;

    batch->place = place_string;
    batch->baton = places;
    rv = mw_redis_run(store, entry->data, entry->len, batch,
                      mw_redis_deadline(store, call), &replies);
    if (rv == APR_SUCCESS) {
        *reply = replies[0];
        rv = fields_check(store, *reply, count);
    }
    return rv;
}

apr_status_t mw_redis_get(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_redis_t *store = self;
    int pieces = entry->body ? MW_REDIS_AT_ONCE : 0;
    places_t places = { .pool = call->pool,
                        .body = entry->body,
                        .is_header = 1 };
    mw_redis_reply_t *reply;
    mw_redis_batch_t batch;
    mw_redis_bytes_t name;
    apr_status_t rv;

    mw_redis_name(store, key, call->pool, &name);
    mw_redis_batch_init(&batch,
                        MW_REDIS_HEADER_MAX + REPLY_LINES
                            + MW_REDIS_AT_ONCE * MW_REDIS_PIECE_MAX,
                        call->pool);
    fields_ask(&batch, &name, 1, 0, pieces);
    rv = fields_get(store, call, &name, &batch, &places, 1 + (apr_size_t)pieces,
                    &reply);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (reply->elements[0]->type == REDIS_REPLY_NIL) {
        return APR_NOTFOUND;
    }
    rv = mw_redis_header_read(store, key, reply->elements[0]->data,
                              reply->elements[0]->len, NULL, entry);
    if (rv == APR_SUCCESS && entry->expires <= call->now) {
        rv = APR_NOTFOUND;
    }
    if (rv == APR_SUCCESS && entry->body) {
        rv = body_append(store, entry, reply->elements + 1, &places);
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

/* The length of the body is not known here: that of the piece says it, and is
 * under its mark. */
static apr_status_t piece_append(const mw_redis_t *store,
                                 const cachemw_id_t *id, apr_off_t offset,
                                 apr_size_t limit,
                                 const mw_redis_reply_t *piece,
                                 places_t *places)
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
    return piece_keep(places, 0, piece, from, len < limit ? len : limit);
}

/* A piece of what has a name: the entry, or the one that is gone. */
static apr_status_t piece_get(mw_redis_t *store, const cachemw_call_t *call,
                              const mw_redis_bytes_t *name,
                              const cachemw_id_t *id, apr_off_t offset,
                              apr_size_t limit, apr_bucket_brigade *body)
{
    places_t places = { .pool = call->pool };
    mw_redis_reply_t *reply;
    mw_redis_batch_t batch;
    apr_status_t rv;

    places.body = apr_brigade_create(call->pool, body->bucket_alloc);
    mw_redis_batch_init(&batch, MW_REDIS_PIECE_MAX + REPLY_LINES, call->pool);
    fields_ask(&batch, name, 0, (apr_uint64_t)offset / MW_REDIS_PIECE, 1);
    rv = fields_get(store, call, name, &batch, &places, 1, &reply);
    if (rv == APR_SUCCESS) {
        rv =
            piece_append(store, id, offset, limit, reply->elements[0], &places);
    }
    if (rv == APR_SUCCESS) {
        APR_BRIGADE_CONCAT(body, places.body);
    }
    apr_brigade_destroy(places.body);
    return rv;
}

apr_status_t mw_redis_read(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body)
{
    mw_redis_t *store = self;
    mw_redis_bytes_t name, gone;
    apr_status_t rv;

    mw_redis_name(store, key, call->pool, &name);
    rv = piece_get(store, call, &name, id, offset, limit, body);
    if (rv == APR_NOTFOUND) {
        mw_redis_name_gone(&name, id, call->pool, &gone);
        rv = piece_get(store, call, &gone, id, offset, limit, body);
    }
    return rv;
}
