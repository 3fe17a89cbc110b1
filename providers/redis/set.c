/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "script.h"
#include "servers.h"
#include "set.h"

/* Of all replies to anything here. */
#define REPLY_MAX 65536

/* Pieces of a body that are in memory at once. */
#define SET_PIECES 4

/* Longest time to live. */
#define SET_TTL_MAX apr_time_from_sec((apr_int64_t)366 * 24 * 3600)

/* What is stored together need not end together: up to this part longer, but
 * not more than a minute. */
#define SET_JITTER_PART 20
#define SET_JITTER_MAX apr_time_from_sec(60)

/* Milliseconds that the hash of an entry lives, without the grace of a long
 * body; 0 or less: it has expired. */
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
    apr_int64_t ttl;
    apr_uint64_t pieces; /* of the body */
    apr_uint64_t next;   /* to be sent */
    apr_size_t used;     /* of the body's first bucket */
    apr_bucket *sent;    /* buckets before this one are referred to by iov;
                            NULL: none */
    int is_over;         /* the end was appended */
    mw_redis_bytes_t header;
    apr_bucket_brigade *kept; /* the body once more, for another try; NULL */
} set_t;

static void set_end(set_t *set, mw_redis_batch_t *batch)
{
    mw_redis_batch_open(batch, 3);
    mw_redis_batch_word(batch, "PEXPIRE");
    mw_redis_batch_arg(batch, set->name.data, set->name.len);
    mw_redis_batch_number(
        batch, set->ttl
                   + (set->pieces > MW_REDIS_AT_ONCE
                          ? (apr_int64_t)apr_time_as_msec(CACHEMW_GRACE)
                          : 0));
    mw_redis_batch_words(batch, "EXEC", NULL);
    set->is_over = 1;
}

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

static apr_status_t piece_add(set_t *set, mw_redis_batch_t *batch)
{
    const mw_redis_t *store = set->store;
    const cachemw_entry_t *entry = set->entry;
    apr_off_t left = entry->body_len - (apr_off_t)(set->next * MW_REDIS_PIECE);
    apr_size_t len = left < MW_REDIS_PIECE ? (apr_size_t)left : MW_REDIS_PIECE;
    apr_size_t end_len = mw_redis_piece_end_len(store);
    char end[MW_REDIS_PIECE_END_MAX];
    mw_redis_mark_t mark;
    apr_status_t rv, ended;

    mw_redis_batch_number(batch, (apr_int64_t)set->next);
    mw_redis_batch_length(batch, len + end_len);
    mw_redis_piece_begin(store, &entry->id, set->next, &mark);
    rv = data_add(set, batch, &mark, len);
    ended = mw_redis_piece_end(&entry->id, &mark, end);
    mw_redis_batch_bytes(batch, end, end_len);
    mw_redis_batch_end(batch);
    set->next++;
    return rv == APR_SUCCESS ? ended : rv;
}

static apr_status_t pieces_add(set_t *set, mw_redis_batch_t *batch)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; rv == APR_SUCCESS && i < SET_PIECES && set->next < set->pieces;
         i++) {
        rv = piece_add(set, batch);
    }
    if (rv == APR_SUCCESS && set->next == set->pieces && !set->is_over) {
        set_end(set, batch);
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
    return set->is_over ? APR_SUCCESS : pieces_add(set, batch);
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
static apr_status_t set_begin(set_t *set, mw_redis_batch_t *batch)
{
    mw_redis_batch_words(batch, "MULTI", NULL);
    mw_redis_script_add(batch, MW_REDIS_RETIRE, &set->name, 0);
    mw_redis_batch_open(batch, (int)(4 + 2 * set->pieces));
    mw_redis_batch_word(batch, "HSET");
    mw_redis_batch_arg(batch, set->name.data, set->name.len);
    mw_redis_batch_word(batch, "h");
    mw_redis_batch_arg(batch, set->header.data, set->header.len);
    return pieces_add(set, batch);
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
    return rv == APR_SUCCESS ? set_begin(set, batch) : rv;
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

static apr_status_t set_prepare(set_t *set, const cachemw_key_t *key,
                                mw_redis_batch_t *batch)
{
    apr_status_t rv = mw_redis_header_make(set->store, key, set->entry,
                                           batch->pool, &set->header);

    if (rv == APR_SUCCESS && set->pieces > SET_PIECES) {
        set_keep(set, batch);
    }
    return rv == APR_SUCCESS ? set_begin(set, batch) : rv;
}

/* EXEC is the fifth command. Its answer: the script's, HSET's, PEXPIRE's. */
static apr_status_t set_check(set_t *set, const cachemw_call_t *call,
                              mw_redis_reply_t *const *replies,
                              apr_int64_t deadline)
{
    const mw_redis_reply_t *all = replies[4];
    mw_redis_reply_t **ignored;
    mw_redis_batch_t batch;

    if (all->type != REDIS_REPLY_ARRAY || all->len != 3
        || all->elements[1]->type != REDIS_REPLY_INTEGER
        || all->elements[2]->type != REDIS_REPLY_INTEGER
        || all->elements[2]->integer != 1) {
        mw_redis_count(set->store, "nonsense");
        return EPROTO;
    }
    if (mw_redis_error_of(all->elements[0]) == MW_REDIS_ERROR_NOSCRIPT) {
        mw_redis_batch_init(&batch, REPLY_MAX, call->pool);
        mw_redis_script_load(&batch, MW_REDIS_RETIRE);
        mw_redis_run(set->store, set->name.data, set->name.len, &batch,
                     deadline, &ignored);
    }
    return APR_SUCCESS;
}

apr_status_t mw_redis_set(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key,
                          const cachemw_entry_t *entry)
{
    set_t set = { .store = self, .entry = entry, .ttl = ttl_of(call, entry) };
    apr_int64_t deadline = mw_redis_deadline(self, call);
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    if (set.ttl <= 0) {
        return mw_redis_remove(self, call, key, NULL);
    }
    mw_redis_name(self, key, call->pool, &set.name);
    set.pieces = mw_redis_pieces(entry->body_len);
    mw_redis_batch_init(&batch, REPLY_MAX, call->pool);
    rv = set_prepare(&set, key, &batch);
    if (rv == APR_SUCCESS) {
        rv = mw_redis_run(self, set.name.data, set.name.len, &batch, deadline,
                          &replies);
    }
    if (set.kept) {
        apr_brigade_destroy(set.kept);
    }
    return rv == APR_SUCCESS ? set_check(&set, call, replies, deadline) : rv;
}

/* --- amending and removing ------------------------------------------------ */

typedef struct change_t {
    mw_redis_script_e script;
    mw_redis_bytes_t name;
    int count; /* of args */
    mw_redis_bytes_t args[5];
} change_t;

static void args_add(mw_redis_batch_t *batch, const change_t *change)
{
    int i;

    for (i = 0; i < change->count; i++) {
        mw_redis_batch_arg(batch, change->args[i].data, change->args[i].len);
    }
}

/* Run a script, known to the server or not. It answers 1, or 0: another
 * entry. */
static apr_status_t change_run(mw_redis_t *store, const cachemw_call_t *call,
                               const change_t *change)
{
    apr_int64_t deadline = mw_redis_deadline(store, call);
    const mw_redis_bytes_t *name = &change->name;
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, REPLY_MAX, call->pool);
    mw_redis_script_add(&batch, change->script, name, change->count);
    args_add(&batch, change);
    rv = mw_redis_run(store, name->data, name->len, &batch, deadline, &replies);
    if (rv == APR_SUCCESS
        && mw_redis_error_of(replies[0]) == MW_REDIS_ERROR_NOSCRIPT) {
        mw_redis_batch_init(&batch, REPLY_MAX, call->pool);
        mw_redis_script_add_text(&batch, change->script, name, change->count);
        args_add(&batch, change);
        rv = mw_redis_run(store, name->data, name->len, &batch, deadline,
                          &replies);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (replies[0]->type != REDIS_REPLY_INTEGER) {
        mw_redis_count(store, "nonsense");
        return EPROTO;
    }
    return replies[0]->integer ? APR_SUCCESS : APR_NOTFOUND;
}

apr_status_t mw_redis_remove(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id)
{
    change_t change = { .script = MW_REDIS_REMOVE, .count = 1 };

    mw_redis_name(self, key, call->pool, &change.name);
    change.args[0].data = id ? (const char *)id->bytes : "";
    change.args[0].len = id ? sizeof(id->bytes) : 0;
    return change_run(self, call, &change);
}

apr_status_t mw_redis_set_head(void *self, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry)
{
    const mw_redis_t *store = self;
    apr_size_t kept = mw_redis_header_kept(store);
    change_t change = { .script = MW_REDIS_AMEND, .count = 5 };
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
    change.args[0].data = (const char *)id->bytes;
    change.args[0].len = sizeof(id->bytes);
    change.args[1].data = apr_psprintf(call->pool, "%" APR_SIZE_T_FMT, kept);
    change.args[1].len = strlen(change.args[1].data);
    change.args[2].data = header.data + kept;
    change.args[2].len = header.len - kept;
    change.args[3].data = apr_psprintf(call->pool, "%" APR_INT64_T_FMT, ttl);
    change.args[3].len = strlen(change.args[3].data);
    change.args[4].data =
        apr_psprintf(call->pool, "%" APR_TIME_T_FMT, call->now);
    change.args[4].len = strlen(change.args[4].data);
    return change_run(self, call, &change);
}
