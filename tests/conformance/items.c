/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <string.h>

#include "apr_general.h"
#include "apr_strings.h"
#include "harness.h"

/* How a head begins: enough to know what everything else must be. Compared
 * byte by byte within one machine; it never reaches another one. */
typedef struct stamp_t {
    apr_uint64_t key;
    apr_uint64_t body_len;
    apr_uint64_t head_len;
    apr_int64_t expires;
    apr_uint32_t version;
    apr_uint32_t head_version;
    apr_uint32_t magic;
    cachemw_id_t id;
} stamp_t;

#define STAMP_MAGIC 0x43544831u
#define BODY_PIECE 65536

apr_uint64_t ct_random(apr_uint64_t *state)
{
    apr_uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static apr_uint64_t key_hash(const cachemw_key_t *key)
{
    apr_uint64_t hash = 0xcbf29ce484222325u;
    apr_size_t i;

    for (i = 0; i < key->len; i++) {
        hash = (hash ^ (unsigned char)key->data[i]) * 0x100000001b3u;
    }
    return hash;
}

/* Byte i of the endless text that belongs to a seed, from offset on. */
static void text_fill(apr_uint64_t seed, apr_uint64_t offset, char *buffer,
                      apr_size_t length)
{
    apr_size_t done = 0;

    while (done < length) {
        apr_uint64_t at = (offset + done) / 8;
        apr_size_t skip = (apr_size_t)((offset + done) % 8);
        apr_uint64_t state = seed + at * 0x9e3779b97f4a7c15u;
        apr_uint64_t word = ct_random(&state);
        apr_size_t n = 8 - skip;

        n = n < length - done ? n : length - done;
        memcpy(buffer + done, (char *)&word + skip, n);
        done += n;
    }
}

cachemw_key_t ct_key_bytes(ct_t *c, const void *bytes, apr_size_t length)
{
    char *copy = apr_palloc(c->pool, length + 1);
    cachemw_key_t key = { copy, length };

    /* No NUL behind it: who takes keys for strings shall notice. */
    memcpy(copy, bytes, length);
    copy[length] = '!';
    return key;
}

cachemw_key_t ct_key(ct_t *c, const char *format, ...)
{
    va_list args;
    const char *text;

    va_start(args, format);
    text = apr_pvsprintf(c->pool, format, args);
    va_end(args);
    if (!c->emptied && c->salt != NULL) {
        text = apr_pstrcat(c->pool, c->salt, text, NULL);
    }
    return ct_key_bytes(c, text, strlen(text));
}

const char *ct_key_show(ct_t *c, const cachemw_key_t *key)
{
    char text[100];
    apr_size_t used = 0, i;

    for (i = 0; i < key->len && used < 40; i++) {
        unsigned char b = (unsigned char)key->data[i];

        if (b >= 0x20 && b < 0x7f) {
            text[used++] = (char)b;
        }
        else {
            used += (apr_size_t)snprintf(text + used, 5, "\\x%02x", b);
        }
    }
    text[used] = '\0';
    return apr_psprintf(c->pool, "key \"%s%s\" of %" APR_SIZE_T_FMT " bytes",
                        text, i < key->len ? "..." : "", key->len);
}

ct_item_t ct_item(ct_t *c, const cachemw_key_t *key, apr_uint32_t version,
                  apr_off_t body_len)
{
    ct_item_t item;

    memset(&item, 0, sizeof(item));
    item.key = *key;
    item.version = item.head_version = version;
    item.head_len = 200;
    item.body_len = body_len;
    item.expires = c->now + CT_HOUR;
    mw_store_random(item.id.bytes, sizeof(item.id.bytes));
    return item;
}

ct_item_t ct_item_next(ct_t *c, const ct_item_t *item, apr_off_t body_len)
{
    return ct_item(c, &item->key, item->version + 1, body_len);
}

const void *ct_item_head(const ct_item_t *item, apr_pool_t *pool)
{
    stamp_t stamp;
    char *head = apr_palloc(pool, item->head_len + 1);
    apr_size_t n = sizeof(stamp);

    memset(&stamp, 0, sizeof(stamp));
    stamp.magic = STAMP_MAGIC;
    stamp.key = key_hash(&item->key);
    stamp.body_len = (apr_uint64_t)item->body_len;
    stamp.head_len = item->head_len;
    stamp.expires = item->expires;
    stamp.version = item->version;
    stamp.head_version = item->head_version;
    stamp.id = item->id;
    text_fill(stamp.key ^ ((apr_uint64_t)item->head_version << 32), 0, head,
              item->head_len);
    memcpy(head, &stamp, n < item->head_len ? n : item->head_len);
    head[item->head_len] = '!';
    return head;
}

void ct_item_bytes(const ct_item_t *item, apr_off_t offset, char *buffer,
                   apr_size_t length)
{
    text_fill(~key_hash(&item->key) + item->version, (apr_uint64_t)offset,
              buffer, length);
}

cachemw_entry_t ct_item_entry(const ct_item_t *item, apr_pool_t *pool)
{
    cachemw_entry_t entry;

    memset(&entry, 0, sizeof(entry));
    entry.id = item->id;
    entry.head = ct_item_head(item, pool);
    entry.head_len = item->head_len;
    entry.expires = item->expires;
    entry.body_len = item->body_len;
    return entry;
}

/* The body as heap buckets of up to 64 KB. */
static apr_bucket_brigade *item_body(ct_t *c, const ct_item_t *item)
{
    apr_bucket_brigade *body = apr_brigade_create(c->pool, c->alloc);
    apr_off_t offset = 0;

    while (offset < item->body_len) {
        apr_off_t left = item->body_len - offset;
        apr_size_t n = left < BODY_PIECE ? (apr_size_t)left : BODY_PIECE;
        char *piece = apr_bucket_alloc(n, c->alloc);

        ct_item_bytes(item, offset, piece, n);
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_heap_create(piece, n, apr_bucket_free, c->alloc));
        offset += (apr_off_t)n;
    }
    return body;
}

/* Calls made with a pool of their own, which is gone afterwards. */
static apr_pool_t *turn_begin(ct_t *c)
{
    apr_pool_t *outer = c->pool;

    apr_pool_create(&c->pool, outer);
    return outer;
}

static void turn_end(ct_t *c, apr_pool_t *outer)
{
    apr_pool_destroy(c->pool);
    c->pool = outer;
}

static apr_status_t store_once(ct_t *c, const ct_item_t *item)
{
    apr_pool_t *outer = turn_begin(c);
    cachemw_entry_t entry = ct_item_entry(item, c->pool);
    apr_status_t rv;

    entry.body = item_body(c, item);
    rv = ct_set(c, &item->key, &entry);
    apr_brigade_destroy(entry.body);
    turn_end(c, outer);
    return rv;
}

apr_status_t ct_try_store(ct_t *c, const ct_item_t *item)
{
    apr_status_t rv;
    int tries = 0;

    do {
        rv = store_once(c, item);
    } while (ct_is_late(c, rv, &tries));
    return rv;
}

void ct_store(ct_t *c, const ct_item_t *item)
{
    ct_status(c, ct_try_store(c, item), APR_SUCCESS,
              "set of an entry with a head of %" APR_SIZE_T_FMT
              " and a body of %" APR_OFF_T_FMT " bytes, %s",
              item->head_len, item->body_len, ct_key_show(c, &item->key));
}

static apr_status_t stream_once(ct_t *c, const ct_item_t *item,
                                apr_size_t piece, int announce)
{
    apr_pool_t *outer = turn_begin(c);
    cachemw_entry_t entry = ct_item_entry(item, c->pool);
    char *buffer = apr_palloc(c->pool, piece);
    apr_off_t offset = 0;
    ct_set_t set;
    apr_status_t rv;

    entry.body_len = announce ? item->body_len : -1;
    rv = ct_begin(c, &item->key, &entry, &set);
    if (rv == APR_SUCCESS) {
        while (rv == APR_SUCCESS && offset < item->body_len) {
            apr_off_t left = item->body_len - offset;
            apr_size_t n = left < (apr_off_t)piece ? (apr_size_t)left : piece;

            ct_item_bytes(item, offset, buffer, n);
            rv = ct_write(c, &set, buffer, n);
            offset += (apr_off_t)n;
        }
        if (rv == APR_SUCCESS) {
            rv = ct_commit(c, &set);
        }
        else {
            ct_abort(c, &set);
        }
    }
    turn_end(c, outer);
    return rv;
}

apr_status_t ct_try_stream(ct_t *c, const ct_item_t *item, apr_size_t piece,
                           int announce)
{
    apr_status_t rv;
    int tries = 0;

    do {
        rv = stream_once(c, item, piece, announce);
    } while (ct_is_late(c, rv, &tries));
    return rv;
}

apr_status_t ct_amend(ct_t *c, const ct_item_t *item)
{
    apr_pool_t *outer = turn_begin(c);
    cachemw_entry_t entry = ct_item_entry(item, c->pool);
    apr_status_t rv = ct_set_head(c, &item->key, &item->id, &entry);

    turn_end(c, outer);
    return rv;
}

static void mismatch_explain(ct_t *c, const ct_item_t *item, apr_off_t offset,
                             const char *data, apr_size_t length,
                             const char *when)
{
    char wanted[BODY_PIECE];
    apr_size_t done, n, i;

    for (done = 0; done < length; done += n) {
        n = length - done < sizeof(wanted) ? length - done : sizeof(wanted);
        ct_item_bytes(item, offset + (apr_off_t)done, wanted, n);
        for (i = 0; i < n && wanted[i] == data[done + i]; i++) {
        }
        if (i < n) {
            ct_fail(c,
                    "%s: the body of %s is not the one that was stored: byte "
                    "%" APR_OFF_T_FMT " of %" APR_OFF_T_FMT " is wrong",
                    when, ct_key_show(c, &item->key),
                    offset + (apr_off_t)(done + i), item->body_len);
        }
    }
}

apr_off_t ct_compare(ct_t *c, const ct_item_t *item, apr_off_t offset,
                     apr_bucket_brigade *body, const char *when)
{
    apr_off_t begin = offset;
    apr_bucket *e;
    const char *data;
    apr_size_t length;
    apr_status_t rv;

    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        rv = apr_bucket_read(e, &data, &length, APR_BLOCK_READ);
        ct_status(c, rv, APR_SUCCESS, "%s: reading a bucket of the body", when);
        ct_check(c, offset + (apr_off_t)length <= item->body_len,
                 "%s: %s has more body than the %" APR_OFF_T_FMT
                 " bytes that were stored",
                 when, ct_key_show(c, &item->key), item->body_len);
        mismatch_explain(c, item, offset, data, length, when);
        offset += (apr_off_t)length;
    }
    return offset - begin;
}

/* Read the rest of a body piece by piece.
 * @return 0 when the entry was replaced meanwhile */
static int body_finish(ct_t *c, const ct_item_t *item, apr_off_t offset,
                       apr_bucket_brigade *body, const char *when)
{
    while (offset < item->body_len) {
        apr_status_t rv;
        apr_off_t n;

        apr_brigade_cleanup(body);
        ct_check(c, ct_reads(c),
                 "%s: get gave %" APR_OFF_T_FMT " of %" APR_OFF_T_FMT
                 " body bytes, and there is no read slot for the rest",
                 when, offset, item->body_len);
        rv = ct_read(c, &item->key, &item->id, offset, CACHEMW_PIECE_MAX, body);
        if (rv == APR_NOTFOUND) {
            return 0;
        }
        ct_status(c, rv, APR_SUCCESS, "%s: read at %" APR_OFF_T_FMT, when,
                  offset);
        n = ct_compare(c, item, offset, body, when);
        ct_check(c, n > 0 && n <= CACHEMW_PIECE_MAX,
                 "%s: read gave %" APR_OFF_T_FMT " bytes of the %d wanted",
                 when, n, CACHEMW_PIECE_MAX);
        offset += n;
    }
    return 1;
}

static void fields_compare(ct_t *c, const ct_item_t *item,
                           const cachemw_entry_t *entry, const char *when)
{
    const char *key = ct_key_show(c, &item->key);

    ct_check(c, memcmp(&entry->id, &item->id, sizeof(item->id)) == 0,
             "%s: get of %s gave the id of another entry", when, key);
    ct_check(c, ct_expires_fit(c, entry->expires, item->expires),
             "%s: get of %s gave an expires that is %" APR_TIME_T_FMT
             " microseconds off",
             when, key, entry->expires - item->expires);
    ct_check(c, entry->body_len == item->body_len,
             "%s: get of %s gave body_len %" APR_OFF_T_FMT
             " instead of %" APR_OFF_T_FMT,
             when, key, entry->body_len, item->body_len);
    ct_check(c, entry->head_len == item->head_len,
             "%s: get of %s gave a head of %" APR_SIZE_T_FMT
             " bytes instead of %" APR_SIZE_T_FMT,
             when, key, entry->head_len, item->head_len);
    ct_check(
        c,
        item->head_len == 0
            || memcmp(entry->head, ct_item_head(item, c->pool), item->head_len)
                   == 0,
        "%s: get of %s gave a head that is not the one stored last", when, key);
}

static apr_status_t entry_get(ct_t *c, const cachemw_key_t *key, int with_body,
                              cachemw_entry_t *entry)
{
    /* All fields but body are for the provider to fill in. */
    memset(entry, 0xa5, sizeof(*entry));
    entry->body = with_body ? apr_brigade_create(c->pool, c->alloc) : NULL;
    return ct_get(c, key, entry);
}

void ct_require(ct_t *c, const ct_item_t *item, const char *when)
{
    apr_pool_t *outer = turn_begin(c);
    cachemw_entry_t entry;
    apr_off_t got;

    ct_status(c, entry_get(c, &item->key, 1, &entry), APR_SUCCESS,
              "%s: get of %s", when, ct_key_show(c, &item->key));
    fields_compare(c, item, &entry, when);
    ct_check(c, entry.body != NULL, "%s: get took the brigade away", when);
    ct_check(c, item->body_len > 0 || APR_BRIGADE_EMPTY(entry.body),
             "%s: a body of length 0 has buckets", when);
    got = ct_compare(c, item, 0, entry.body, when);
    ct_check(c, got > 0 || item->body_len == 0,
             "%s: get gave no byte of the body at all", when);
    ct_check(c, body_finish(c, item, got, entry.body, when),
             "%s: read says that the entry that get has just found is gone",
             when);
    apr_brigade_destroy(entry.body);
    turn_end(c, outer);
}

void ct_require_miss(ct_t *c, const cachemw_key_t *key, const char *when)
{
    apr_pool_t *outer = turn_begin(c);
    cachemw_entry_t entry;

    ct_status(c, entry_get(c, key, 1, &entry), APR_NOTFOUND, "%s: get of %s",
              when, ct_key_show(c, key));
    ct_status(c, entry_get(c, key, 0, &entry), APR_NOTFOUND,
              "%s: get of the head alone of %s", when, ct_key_show(c, key));
    turn_end(c, outer);
}

static void stamp_decode(ct_t *c, const cachemw_key_t *key,
                         const cachemw_entry_t *entry, ct_item_t *item)
{
    stamp_t stamp;

    ct_check(c, entry->head_len >= sizeof(stamp),
             "get gave a head of %" APR_SIZE_T_FMT " bytes, which nobody "
             "stored",
             entry->head_len);
    memcpy(&stamp, entry->head, sizeof(stamp));
    memset(item, 0, sizeof(*item));
    ct_check(c, stamp.magic == STAMP_MAGIC,
             "get gave a head that nobody stored");
    ct_check(c, stamp.key == key_hash(key),
             "get of %s gave the entry of another key", ct_key_show(c, key));
    item->key = *key;
    item->version = stamp.version;
    item->head_version = stamp.head_version;
    item->head_len = stamp.head_len;
    item->body_len = (apr_off_t)stamp.body_len;
    item->expires = stamp.expires;
    item->id = stamp.id;
}

int ct_see(ct_t *c, const cachemw_key_t *key, ct_item_t *seen)
{
    static const char when[] = "while others store, amend and remove";
    apr_pool_t *outer = turn_begin(c);
    cachemw_entry_t entry;
    ct_item_t item;
    apr_status_t rv = entry_get(c, key, 1, &entry);
    int whole = 0;

    if (rv != APR_NOTFOUND) {
        ct_status(c, rv, APR_SUCCESS, "%s: get of %s", when,
                  ct_key_show(c, key));
        stamp_decode(c, key, &entry, &item);
        fields_compare(c, &item, &entry, when);
        whole = body_finish(c, &item, ct_compare(c, &item, 0, entry.body, when),
                            entry.body, when);
        if (seen != NULL) {
            *seen = item;
        }
    }
    apr_brigade_destroy(entry.body);
    turn_end(c, outer);
    return whole;
}
