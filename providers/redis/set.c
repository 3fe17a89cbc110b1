/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "apr_strings.h"

#include "get.h"
#include "say.h"
#include "script.h"
#include "servers.h"
#include "set.h"

/* Of all replies to anything here. */
#define REPLY_MAX 65536

/* How long a body without an entry lives. */
#define GRACE_MS ((apr_int64_t)apr_time_as_msec(CACHEMW_GRACE))

/* Pieces of a body that are in memory at once. */
#define SET_PIECES 4

/* Longest time to live. */
#define SET_TTL_MAX apr_time_from_sec((apr_int64_t)366 * 24 * 3600)

/* What is stored together need not end together: up to this part longer, but
 * not more than a minute. */
#define SET_JITTER_PART 20
#define SET_JITTER_MAX apr_time_from_sec(60)

/* Milliseconds that an entry lives; 0 or less: it has expired. */
static apr_int64_t ttl_of(const cachemw_call_t *call,
                          const cachemw_entry_t *entry)
{
    apr_interval_time_t left = entry->expires - call->now;
    apr_interval_time_t most;

    if (entry->expires <= call->now) {
        return 0;
    }
    left = left < SET_TTL_MAX ? left : SET_TTL_MAX;
    most = left / SET_JITTER_PART;
    most = most < SET_JITTER_MAX ? most : SET_JITTER_MAX;
    return (left + most * entry->id.bytes[0] / 256 + 999) / 1000;
}

/* --- storing -------------------------------------------------------------- */

typedef struct set_t {
    mw_redis_t *store;
    const cachemw_entry_t *entry;
    mw_redis_bytes_t name;
    mw_redis_bytes_t header;
    mw_redis_bytes_t message; /* that others are told; of no length: none */
    apr_int64_t ttl;
    apr_int64_t deadline;
    apr_pool_t *pool;
    int is_first;     /* nothing was there when the response was asked for */
    apr_size_t used;  /* of the body's first bucket */
    apr_bucket *sent; /* buckets before this one are referred to by iov;
                         NULL: none */
    /* of a long body */
    mw_redis_bytes_t body; /* name of its hash */
    apr_uint64_t pieces;
    apr_uint64_t next;        /* to be sent */
    int is_over;              /* the end was appended */
    apr_bucket_brigade *kept; /* once more, for another try; NULL */
} set_t;

/* `len` bytes of the body, from where the last ones ended. */
static apr_status_t data_add(set_t *set, mw_redis_batch_t *batch,
                             mw_redis_mark_t *mark, apr_size_t len)
{
    apr_bucket_brigade *body = set->entry->body;
    const char *data;
    apr_size_t n;
    apr_status_t rv;

    while (len) {
        if (!set->sent) {
            set->sent = APR_BRIGADE_FIRST(body);
        }
        if (set->sent == APR_BRIGADE_SENTINEL(body)) {
            return APR_EINVAL;
        }
        rv = apr_bucket_read(set->sent, &data, &n, APR_BLOCK_READ);
        if (rv != APR_SUCCESS) {
            return rv;
        }
        n -= set->used;
        if (!n) {
            set->sent = APR_BUCKET_NEXT(set->sent);
            set->used = 0;
            continue;
        }
        n = n < len ? n : len;
        mw_redis_mark_add(mark, data + set->used, n);
        mw_redis_batch_bytes(batch, data + set->used, n);
        set->used += n;
        len -= n;
    }
    return APR_SUCCESS;
}

/* `len` bytes of the body, and what is behind them. */
static apr_status_t piece_add(set_t *set, mw_redis_batch_t *batch,
                              apr_uint64_t number, apr_size_t len)
{
    char end[MW_REDIS_PIECE_END_MAX];
    mw_redis_mark_t mark;
    apr_status_t rv, ended;

    mw_redis_piece_begin(set->store, &set->entry->id, number, &mark);
    rv = data_add(set, batch, &mark, len);
    ended = mw_redis_piece_end(&set->entry->id, &mark, end);
    mw_redis_batch_bytes(batch, end, mw_redis_piece_end_len(set->store));
    return rv == APR_SUCCESS ? ended : rv;
}

static void expire_add(mw_redis_batch_t *batch, const mw_redis_bytes_t *name,
                       apr_int64_t ttl)
{
    mw_redis_batch_open(batch, 3);
    mw_redis_batch_word(batch, "PEXPIRE");
    mw_redis_batch_arg(batch, name->data, name->len);
    mw_redis_batch_number(batch, ttl);
}

/* --- long bodies ---------------------------------------------------------- */

/* The next piece. */
static apr_status_t field_add(set_t *set, mw_redis_batch_t *batch)
{
    apr_off_t left =
        set->entry->body_len - (apr_off_t)(set->next * MW_REDIS_PIECE);
    apr_size_t len = left < MW_REDIS_PIECE ? (apr_size_t)left : MW_REDIS_PIECE;
    apr_status_t rv;

    mw_redis_batch_number(batch, (apr_int64_t)set->next);
    mw_redis_batch_length(batch, len + mw_redis_piece_end_len(set->store));
    rv = piece_add(set, batch, set->next, len);
    mw_redis_batch_end(batch);
    set->next++;
    return rv;
}

/* Until its entry is there, too, it has a short time to live. */
static apr_status_t fields_add(set_t *set, mw_redis_batch_t *batch)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; rv == APR_SUCCESS && i < SET_PIECES && set->next < set->pieces;
         i++) {
        rv = field_add(set, batch);
    }
    if (rv == APR_SUCCESS && set->next == set->pieces && !set->is_over) {
        expire_add(batch, &set->body, GRACE_MS);
        mw_redis_batch_words(batch, "EXEC", NULL);
        set->is_over = 1;
    }
    return rv;
}

/* What was sent is let go, then the next pieces. */
static apr_status_t set_more(mw_redis_batch_t *batch, void *baton)
{
    set_t *set = baton;

    apr_array_clear(batch->iov);
    while (set->sent && APR_BRIGADE_FIRST(set->entry->body) != set->sent) {
        apr_bucket_delete(APR_BRIGADE_FIRST(set->entry->body));
    }
    return set->is_over ? APR_SUCCESS : fields_add(set, batch);
}

static apr_status_t brigade_copy(apr_bucket_brigade *from,
                                 apr_bucket_brigade *to)
{
    apr_bucket *bucket, *copy;
    apr_status_t rv;

    for (bucket = APR_BRIGADE_FIRST(from); bucket != APR_BRIGADE_SENTINEL(from);
         bucket = APR_BUCKET_NEXT(bucket)) {
        rv = apr_bucket_copy(bucket, &copy);
        if (rv != APR_SUCCESS) {
            return rv;
        }
        APR_BRIGADE_INSERT_TAIL(to, copy);
    }
    return APR_SUCCESS;
}

/* From the beginning. */
static apr_status_t body_begin(set_t *set, mw_redis_batch_t *batch)
{
    mw_redis_batch_words(batch, "MULTI", NULL);
    mw_redis_batch_open(batch, (int)(2 + 2 * set->pieces));
    mw_redis_batch_word(batch, "HSET");
    mw_redis_batch_arg(batch, set->body.data, set->body.len);
    return fields_add(set, batch);
}

/* What was read of the body is let go as it is sent: it comes from the copy. */
static apr_status_t set_again(mw_redis_batch_t *batch, void *baton)
{
    set_t *set = baton;
    apr_status_t rv;

    apr_brigade_cleanup(set->entry->body);
    rv = brigade_copy(set->kept, set->entry->body);
    set->sent = NULL;
    set->next = set->used = 0;
    set->is_over = 0;
    return rv == APR_SUCCESS ? body_begin(set, batch) : rv;
}

/* A copy of a bucket refers to the same bytes or file: it needs no memory. One
 * that cannot be copied can be sent once only. */
static void set_keep(set_t *set, mw_redis_batch_t *batch)
{
    apr_bucket_brigade *body = set->entry->body;

    batch->more = set_more;
    batch->baton = set;
    set->kept = apr_brigade_create(batch->pool, body->bucket_alloc);
    if (brigade_copy(body, set->kept) == APR_SUCCESS) {
        batch->again = set_again;
    }
}

/* EXEC is the fourth command. Its answer: HSET's, PEXPIRE's. */
static apr_status_t body_set(set_t *set)
{
    const mw_redis_reply_t *all;
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, REPLY_MAX, set->pool);
    if (set->pieces > SET_PIECES) {
        set_keep(set, &batch);
    }
    rv = body_begin(set, &batch);
    if (rv == APR_SUCCESS) {
        rv = mw_redis_run(set->store, set->body.data, set->body.len, &batch,
                          set->deadline, &replies);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    all = replies[3];
    return all->type == REDIS_REPLY_ARRAY && all->len == 2
                   && all->elements[0]->type == REDIS_REPLY_INTEGER
                   && all->elements[1]->type == REDIS_REPLY_INTEGER
                   && all->elements[1]->integer == 1
               ? APR_SUCCESS
               : mw_redis_nonsense(set->store);
}

/* That of another entry, perhaps. That it fails does no harm: a body that has
 * too little time is lost early, one that has too much is there for nothing. */
static void body_expire(const set_t *set, const cachemw_id_t *id,
                        apr_int64_t ttl)
{
    mw_redis_reply_t **ignored;
    mw_redis_batch_t batch;
    mw_redis_bytes_t body;

    mw_redis_name_body(&set->name, id, set->pool, &body);
    mw_redis_batch_init(&batch, REPLY_MAX, set->pool);
    expire_add(&batch, &body, ttl);
    mw_redis_run(set->store, body.data, body.len, &batch, set->deadline,
                 &ignored);
}

/* --- entries -------------------------------------------------------------- */

/* The string with the header, and the body if that is short. It comes last: a
 * long argument that ends what was sent becomes the string as it is. */
static apr_status_t string_add(set_t *set, mw_redis_batch_t *batch)
{
    apr_size_t len = set->pieces ? 0 : (apr_size_t)set->entry->body_len;
    apr_size_t end = len ? mw_redis_piece_end_len(set->store) : 0;
    apr_status_t rv = APR_SUCCESS;

    mw_redis_batch_open(batch, 4);
    mw_redis_batch_word(batch, "PSETEX");
    mw_redis_batch_arg(batch, set->name.data, set->name.len);
    mw_redis_batch_number(batch, set->ttl);
    mw_redis_batch_length(batch, set->header.len + len + end);
    mw_redis_batch_bytes(batch, set->header.data, set->header.len);
    if (len) {
        rv = piece_add(set, batch, 0, len);
    }
    mw_redis_batch_end(batch);
    return rv;
}

/* The answers to GETRANGE and PSETEX, and what comes with them.
 * @param before the beginning of the entry that there was */
static apr_status_t string_check(const set_t *set,
                                 mw_redis_reply_t *const *replies, int is_whole,
                                 const mw_redis_reply_t **before)
{
    const apr_size_t count = 1 + !set->is_first + (set->message.len != 0);

    if (is_whole) {
        replies += 1 + count;
        if (replies[0]->type != REDIS_REPLY_ARRAY || replies[0]->len != count) {
            return mw_redis_nonsense(set->store);
        }
        replies = replies[0]->elements;
    }
    *before = set->is_first ? NULL : *replies++;
    return mw_redis_reply_is(*replies, "OK") ? APR_SUCCESS
                                             : mw_redis_nonsense(set->store);
}

/* What is there is asked for, since the body of a long entry goes after it. If
 * somebody else's comes between the two commands, that body is not found here,
 * and stays as long as its entry would have. They are a transaction where slots
 * move from one server to another, so that both are done by one, and where
 * others are told. */
static apr_status_t string_set(set_t *set, const mw_redis_reply_t **before)
{
    int is_whole =
        (!set->is_first && set->store->servers->is_many) || set->message.len;
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, REPLY_MAX, set->pool);
    if (is_whole) {
        mw_redis_batch_words(&batch, "MULTI", NULL);
    }
    if (!set->is_first) {
        mw_redis_header_ask(&batch, &set->name, MW_REDIS_HEADER_ID_END);
    }
    rv = string_add(set, &batch);
    if (set->message.len) {
        mw_redis_say_add(set->store, &batch, &set->message);
    }
    if (is_whole) {
        mw_redis_batch_words(&batch, "EXEC", NULL);
    }
    if (rv == APR_SUCCESS) {
        rv = mw_redis_run(set->store, set->name.data, set->name.len, &batch,
                          set->deadline, &replies);
    }
    return rv == APR_SUCCESS ? string_check(set, replies, is_whole, before)
                             : rv;
}

static apr_status_t entry_set(set_t *set)
{
    const cachemw_id_t *id = &set->entry->id;
    const mw_redis_reply_t *before = NULL;
    apr_status_t rv = APR_SUCCESS;
    cachemw_id_t its;

    if (set->pieces) {
        rv = body_set(set);
    }
    if (rv == APR_SUCCESS) {
        rv = string_set(set, &before);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (set->pieces) {
        body_expire(set, id, set->ttl + GRACE_MS);
    }
    if (before && before->type == REDIS_REPLY_STRING
        && mw_redis_header_is_long(before->data, before->len, &its)
        && memcmp(&its, id, sizeof(its)) != 0) {
        body_expire(set, &its, GRACE_MS);
    }
    return APR_SUCCESS;
}

apr_status_t mw_redis_set(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key,
                          const cachemw_entry_t *entry)
{
    set_t set = { .store = self,
                  .entry = entry,
                  .ttl = ttl_of(call, entry),
                  .deadline = mw_redis_deadline(self, call),
                  .pool = call->pool };
    const mw_redis_bytes_t *absent;
    apr_status_t rv;

    if (set.ttl <= 0) {
        return mw_redis_remove(self, call, key, NULL);
    }
    absent = mw_redis_absent(self, key, call->pool);
    if (absent) {
        set.name = *absent;
    }
    else {
        mw_redis_name(self, key, call->pool, &set.name);
    }
    /* somebody else's of the same key, by now, may well be as long */
    set.is_first = absent && entry->body_len <= MW_REDIS_SHORT;
    if (entry->body_len > MW_REDIS_SHORT) {
        set.pieces = mw_redis_pieces(entry->body_len);
        mw_redis_name_body(&set.name, &entry->id, call->pool, &set.body);
    }
    rv = mw_redis_header_make(self, key, entry, call->pool, &set.header);
    if (rv == APR_SUCCESS && set.store->say->is_on) {
        rv = mw_redis_say_make(self, CACHEMW_CHANGE_SET, key, &entry->id,
                               call->pool, &set.message);
    }
    return rv == APR_SUCCESS ? entry_set(&set) : rv;
}

/* --- amending and removing ------------------------------------------------ */

typedef struct change_t {
    mw_redis_script_e script;
    mw_redis_bytes_t name;
    int count; /* of args */
    mw_redis_bytes_t args[7];
} change_t;

static void change_add(change_t *change, const void *data, apr_size_t len)
{
    mw_redis_bytes_t *arg = &change->args[change->count++];

    arg->data = data;
    arg->len = len;
}

static void change_add_number(change_t *change, apr_int64_t n, apr_pool_t *pool)
{
    const char *text = apr_psprintf(pool, "%" APR_INT64_T_FMT, n);

    change_add(change, text, strlen(text));
}

/* That others are told of it, when they are. */
static apr_status_t change_tell(mw_redis_t *store, change_t *change,
                                cachemw_change_e what, const cachemw_key_t *key,
                                const cachemw_id_t *id, apr_pool_t *pool)
{
    if (!store->say->is_on) {
        return APR_SUCCESS;
    }
    change->args[change->count++] = store->say->channel;
    return mw_redis_say_make(store, what, key, id, pool,
                             &change->args[change->count++]);
}

/* It answers 1, or 0: another entry. */
static apr_status_t change_run(mw_redis_t *store, const cachemw_call_t *call,
                               const change_t *change)
{
    return mw_redis_script_try(store, call, change->script, &change->name,
                               change->args, change->count);
}

apr_status_t mw_redis_remove(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id)
{
    change_t change = { .script = MW_REDIS_REMOVE };
    apr_status_t rv;

    mw_redis_name(self, key, call->pool, &change.name);
    change_add(&change, id ? (const char *)id->bytes : "",
               id ? sizeof(*id) : 0);
    rv = change_tell(self, &change, CACHEMW_CHANGE_REMOVED, key, NULL,
                     call->pool);
    return rv == APR_SUCCESS ? change_run(self, call, &change) : rv;
}

apr_status_t mw_redis_set_head(void *self, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry)
{
    mw_redis_t *store = self;
    apr_size_t kept = mw_redis_header_kept(store);
    change_t change = { .script = MW_REDIS_AMEND };
    const cachemw_change_e what = call->context == CACHEMW_INVALIDATES
                                      ? CACHEMW_CHANGE_INVALIDATED
                                      : CACHEMW_CHANGE_AMENDED;
    cachemw_entry_t amended = *entry;
    mw_redis_bytes_t header;
    apr_int64_t ttl = ttl_of(call, entry);
    apr_status_t rv;

    if (ttl <= 0) {
        return mw_redis_remove(self, call, key, id);
    }
    mw_redis_name(store, key, call->pool, &change.name);
    amended.id = *id;
    amended.body_len = 0; /* the part with its length stays */
    rv = mw_redis_header_make(store, key, &amended, call->pool, &header);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    change_add(&change, id, sizeof(*id));
    change_add_number(&change, (apr_int64_t)kept, call->pool);
    change_add(&change, header.data + kept, header.len - kept);
    change_add_number(&change, ttl, call->pool);
    change_add_number(&change, call->now, call->pool);
    rv = change_tell(self, &change, what, key, id, call->pool);
    return rv == APR_SUCCESS ? change_run(self, call, &change) : rv;
}
