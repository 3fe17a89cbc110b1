/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "providers/common/copied.h"

#include "get.h"
#include "layout.h"
#include "servers.h"

/* Of a reply's own lines. */
#define REPLY_LINES 1024

/* For a header: most are short, the second knows how long it was, and the last
 * gets any. */
#define LOOKS_MAX 3

/* HMGET of pieces. */
static void pieces_ask(mw_redis_batch_t *batch, const mw_redis_bytes_t *body,
                       apr_uint64_t first, int pieces)
{
    int i;

    mw_redis_batch_open(batch, 2 + pieces);
    mw_redis_batch_word(batch, "HMGET");
    mw_redis_batch_arg(batch, body->data, body->len);
    for (i = 0; i < pieces; i++) {
        mw_redis_batch_number(batch, (apr_int64_t)first + i);
    }
}

/* What a reply must be: a string, or an array of `count` strings; each may be
 * nil. */
static apr_status_t reply_check(const mw_redis_t *store,
                                const mw_redis_reply_t *reply, apr_size_t count)
{
    apr_status_t rv = APR_SUCCESS;
    apr_size_t i;

    if (mw_redis_error_of(reply) == MW_REDIS_ERROR_WRONGTYPE) {
        mw_redis_count(store, "damaged");
        return APR_EINCOMPLETE;
    }
    if (!count) {
        return reply->type == REDIS_REPLY_STRING
                       || reply->type == REDIS_REPLY_NIL
                   ? APR_SUCCESS
                   : mw_redis_nonsense(store);
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->len != count) {
        return mw_redis_nonsense(store);
    }
    for (i = 0; rv == APR_SUCCESS && i < count; i++) {
        rv = reply_check(store, reply->elements[i], 0);
    }
    return rv;
}

/* Where the strings of a reply go: to buckets, if a body is wanted. */
typedef struct places_t {
    apr_pool_t *pool;
    apr_bucket_brigade *body; /* NULL: none is wanted */
    apr_bucket *buckets[MW_REDIS_AT_ONCE];
} places_t;

/* What was put there and is not part of a body. */
static void places_forget(places_t *places)
{
    int i;

    for (i = 0; i < MW_REDIS_AT_ONCE; i++) {
        if (places->buckets[i]) {
            apr_bucket_delete(places->buckets[i]);
            places->buckets[i] = NULL;
        }
    }
}

static char *place_string(void *baton, int index, apr_size_t len)
{
    places_t *places = baton;
    char *data;

    if (index < 0) {
        places_forget(places);
        return NULL;
    }
    if (!places->body || index >= MW_REDIS_AT_ONCE) {
        return apr_palloc(places->pool, len);
    }
    data = mw_copied_append(places->body, len);
    if (data) {
        places->buckets[index] = APR_BRIGADE_LAST(places->body);
    }
    return data;
}

/* Make a string, of which `len` bytes from `from` on are wanted, part of the
 * body; few bytes were not placed. */
static apr_status_t place_keep(places_t *places, int index,
                               const mw_redis_reply_t *reply, apr_size_t from,
                               apr_size_t len)
{
    apr_bucket *e = places->buckets[index];
    char *data;

    if (e) {
        places->buckets[index] = NULL;
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

/* Run a command and check its reply. */
static apr_status_t reply_get(mw_redis_t *store, const cachemw_call_t *call,
                              const mw_redis_bytes_t *name,
                              mw_redis_batch_t *batch, places_t *places,
                              apr_size_t count, mw_redis_reply_t **reply)
{
    mw_redis_reply_t **replies;
    apr_status_t rv;

    batch->place = place_string;
    batch->baton = places;
    rv = mw_redis_run(store, name->data, name->len, batch,
                      mw_redis_deadline(store, call), &replies);
    if (rv == APR_SUCCESS) {
        *reply = replies[0];
        rv = reply_check(store, *reply, count);
    }
    return rv;
}

/* --- what is not there ---------------------------------------------------- */

#define ABSENT_KEY "cachemw redis absent"

typedef struct absent_t {
    const mw_redis_t *store; /* NULL: it has been told */
    cachemw_key_t key;
    mw_redis_bytes_t name;
} absent_t;

static absent_t *absent_find(apr_pool_t *pool)
{
    void *absent;

    apr_pool_userdata_get(&absent, ABSENT_KEY, pool);
    return absent;
}

/* @param rv of a get */
static void absent_note(const mw_redis_t *store, apr_status_t rv,
                        const cachemw_key_t *key, const mw_redis_bytes_t *name,
                        apr_pool_t *pool)
{
    absent_t *absent = absent_find(pool);

    if (absent) {
        absent->store = NULL;
    }
    if (rv != APR_NOTFOUND) {
        return;
    }
    absent = apr_palloc(pool, sizeof(*absent));
    absent->store = store;
    absent->key.data = apr_pmemdup(pool, key->data, key->len);
    absent->key.len = key->len;
    absent->name = *name;
    apr_pool_userdata_setn(absent, ABSENT_KEY, NULL, pool);
}

const mw_redis_bytes_t *mw_redis_absent(const mw_redis_t *store,
                                        const cachemw_key_t *key,
                                        apr_pool_t *pool)
{
    absent_t *absent = absent_find(pool);

    if (!absent || absent->store != store || absent->key.len != key->len
        || memcmp(absent->key.data, key->data, key->len) != 0) {
        return NULL;
    }
    absent->store = NULL;
    return &absent->name;
}

/* --- entries -------------------------------------------------------------- */

/* An entry, or the first bytes of it. */
static apr_status_t entry_ask(mw_redis_t *store, const cachemw_call_t *call,
                              const mw_redis_bytes_t *name, apr_size_t len,
                              places_t *places, mw_redis_reply_t **reply)
{
    mw_redis_batch_t batch;

    mw_redis_batch_init(&batch,
                        MW_REDIS_HEADER_MAX + REPLY_LINES
                            + (apr_size_t)MW_REDIS_SHORT
                            + MW_REDIS_PIECE_END_MAX,
                        call->pool);
    if (len) {
        mw_redis_header_ask(&batch, name, len);
    }
    else {
        mw_redis_batch_open(&batch, 2);
        mw_redis_batch_word(&batch, "GET");
        mw_redis_batch_arg(&batch, name->data, name->len);
    }
    return reply_get(store, call, name, &batch, places, 0, reply);
}

/* The string with an entry, or at least its header, if no body is wanted. */
static apr_status_t entry_fetch(mw_redis_t *store, const cachemw_call_t *call,
                                const mw_redis_bytes_t *name, places_t *places,
                                mw_redis_reply_t **reply)
{
    apr_size_t asked = places->body ? 0 : MW_REDIS_HEADER_GUESS;
    apr_status_t rv = entry_ask(store, call, name, asked, places, reply);
    apr_size_t len;
    int looks;

    for (looks = 1; looks < LOOKS_MAX; looks++) {
        if (rv != APR_SUCCESS || !asked || (*reply)->len != asked) {
            break;
        }
        len = mw_redis_header_len(store, (*reply)->data, asked);
        if (len <= asked) {
            break;
        }
        /* another one, with a longer header, may have come in between */
        asked = looks == LOOKS_MAX - 1 ? MW_REDIS_HEADER_MAX : len;
        rv = entry_ask(store, call, name, asked, places, reply);
    }
    /* GETRANGE has no nil */
    return rv == APR_SUCCESS && !(*reply)->len ? APR_NOTFOUND : rv;
}

/* What must not be so when header and body were read at one instant. */
static apr_status_t torn(const mw_redis_t *store, apr_status_t rv)
{
    if (rv != APR_NOTFOUND) {
        return rv;
    }
    mw_redis_count(store, "damaged");
    return APR_EINCOMPLETE;
}

/* The body behind the header; none of a long one. */
static apr_status_t body_keep(const mw_redis_t *store,
                              const cachemw_entry_t *entry,
                              const mw_redis_reply_t *reply, places_t *places)
{
    apr_size_t from = mw_redis_header_len(store, reply->data, reply->len);
    apr_size_t len =
        entry->body_len <= MW_REDIS_SHORT ? (apr_size_t)entry->body_len : 0;
    mw_redis_bytes_t piece = { reply->data + from, reply->len - from };
    apr_status_t rv;

    if (!len) {
        return piece.len ? torn(store, APR_NOTFOUND) : APR_SUCCESS;
    }
    rv = mw_redis_piece_check(store, &entry->id, 0, len, &piece);
    return rv == APR_SUCCESS ? place_keep(places, 0, reply, from, len)
                             : torn(store, rv);
}

static apr_status_t piece_keep(const mw_redis_t *store,
                               const cachemw_entry_t *entry,
                               mw_redis_reply_t *const *pieces, int i,
                               places_t *places)
{
    const mw_redis_bytes_t piece = { pieces[i]->data, pieces[i]->len };
    apr_status_t rv;

    if (pieces[i]->type != REDIS_REPLY_STRING) {
        return torn(store, APR_NOTFOUND);
    }
    rv = mw_redis_piece_check(store, &entry->id, (apr_uint64_t)i,
                              MW_REDIS_PIECE, &piece);
    return rv == APR_SUCCESS
               ? place_keep(places, i, pieces[i], 0, MW_REDIS_PIECE)
               : torn(store, rv);
}

/* The first pieces of a long body. That there are none tells that it was
 * evicted. */
static apr_status_t long_get(mw_redis_t *store, const cachemw_call_t *call,
                             const mw_redis_bytes_t *name,
                             const cachemw_entry_t *entry, places_t *places)
{
    mw_redis_reply_t *reply;
    mw_redis_batch_t batch;
    mw_redis_bytes_t body;
    apr_status_t rv;
    int i;

    mw_redis_name_body(name, &entry->id, call->pool, &body);
    mw_redis_batch_init(&batch,
                        MW_REDIS_AT_ONCE * MW_REDIS_PIECE_MAX + REPLY_LINES,
                        call->pool);
    pieces_ask(&batch, &body, 0, MW_REDIS_AT_ONCE);
    rv =
        reply_get(store, call, &body, &batch, places, MW_REDIS_AT_ONCE, &reply);
    if (rv == APR_SUCCESS && reply->elements[0]->type == REDIS_REPLY_NIL) {
        return APR_NOTFOUND;
    }
    for (i = 0; rv == APR_SUCCESS && i < MW_REDIS_AT_ONCE; i++) {
        rv = piece_keep(store, entry, reply->elements, i, places);
    }
    return rv;
}

static apr_status_t entry_read(mw_redis_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const mw_redis_reply_t *reply, places_t *places,
                               cachemw_entry_t *entry)
{
    apr_status_t rv =
        mw_redis_header_read(store, key, reply->data, reply->len, NULL, entry);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (places->buckets[0]) {
        entry->head = apr_pmemdup(call->pool, entry->head, entry->head_len);
    }
    if (entry->expires <= call->now) {
        return APR_NOTFOUND;
    }
    return places->body ? body_keep(store, entry, reply, places) : APR_SUCCESS;
}

apr_status_t mw_redis_get(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_redis_t *store = self;
    places_t places = { .pool = call->pool, .body = entry->body };
    mw_redis_reply_t *reply = NULL;
    mw_redis_bytes_t name;
    apr_status_t rv;

    mw_redis_name(store, key, call->pool, &name);
    rv = entry_fetch(store, call, &name, &places, &reply);
    absent_note(store, rv, key, &name, call->pool);
    if (rv == APR_SUCCESS) {
        rv = entry_read(store, call, key, reply, &places, entry);
    }
    places_forget(&places);
    if (rv == APR_SUCCESS && places.body && entry->body_len > MW_REDIS_SHORT) {
        rv = long_get(store, call, &name, entry, &places);
        places_forget(&places);
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
                                 const mw_redis_reply_t *reply,
                                 places_t *places)
{
    const mw_redis_bytes_t piece = { reply->data, reply->len };
    apr_uint64_t number = (apr_uint64_t)offset / MW_REDIS_PIECE;
    apr_size_t from = (apr_size_t)(offset % MW_REDIS_PIECE);
    apr_size_t end_len = mw_redis_piece_end_len(store);
    apr_size_t len;
    apr_status_t rv;

    if (reply->type != REDIS_REPLY_STRING) {
        return APR_NOTFOUND;
    }
    len = piece.len > end_len ? piece.len - end_len : 0;
    rv = mw_redis_piece_check(store, id, number, len, &piece);
    if (rv == APR_SUCCESS && len <= from) {
        rv = APR_EINCOMPLETE;
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    len -= from;
    return place_keep(places, 0, reply, from, len < limit ? len : limit);
}

/* A piece of a long body, also of an entry that is gone. */
static apr_status_t long_read(mw_redis_t *store, const cachemw_call_t *call,
                              const mw_redis_bytes_t *name,
                              const cachemw_id_t *id, apr_off_t offset,
                              apr_size_t limit, places_t *places)
{
    mw_redis_reply_t *reply;
    mw_redis_batch_t batch;
    mw_redis_bytes_t body;
    apr_status_t rv;

    mw_redis_name_body(name, id, call->pool, &body);
    mw_redis_batch_init(&batch, MW_REDIS_PIECE_MAX + REPLY_LINES, call->pool);
    pieces_ask(&batch, &body, (apr_uint64_t)offset / MW_REDIS_PIECE, 1);
    rv = reply_get(store, call, &body, &batch, places, 1, &reply);
    if (rv == APR_SUCCESS) {
        rv = piece_append(store, id, offset, limit, reply->elements[0], places);
    }
    places_forget(places);
    return rv;
}

/* Of a short one, which get() hands out as a whole: nobody asks. */
static apr_status_t short_read(mw_redis_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               apr_off_t offset, apr_size_t limit,
                               apr_bucket_brigade *body)
{
    cachemw_entry_t entry = { .body = body };
    apr_status_t rv = mw_redis_get(store, call, key, &entry);
    apr_bucket *e = APR_BRIGADE_LAST(body);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (memcmp(&entry.id, id, sizeof(*id)) || entry.body_len > MW_REDIS_SHORT
        || offset >= entry.body_len) {
        return APR_NOTFOUND;
    }
    e->start += offset;
    e->length -= (apr_size_t)offset;
    e->length = e->length < limit ? e->length : limit;
    return APR_SUCCESS;
}

apr_status_t mw_redis_read(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body)
{
    mw_redis_t *store = self;
    places_t places = { .pool = call->pool };
    mw_redis_bytes_t name;
    apr_status_t rv;

    mw_redis_name(store, key, call->pool, &name);
    places.body = apr_brigade_create(call->pool, body->bucket_alloc);
    rv = long_read(store, call, &name, id, offset, limit, &places);
    if (rv == APR_NOTFOUND && offset < MW_REDIS_SHORT) {
        rv = short_read(store, call, key, id, offset, limit, places.body);
    }
    if (rv == APR_SUCCESS) {
        APR_BRIGADE_CONCAT(body, places.body);
    }
    apr_brigade_destroy(places.body);
    return rv;
}
