/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_siphash.h"
#include "apr_strings.h"

#include "core/wire.h"

#include "layout.h"

#define HEADER_MAGIC "MWR1"
#define HEADER_SECOND "MWRH"
#define PIECE_MAGIC "MWRP"

/* Flags of a header. The first is known to the scripts, too: the body is in a
 * hash. */
#define HEADER_LONG 0x01u
#define HEADER_SEALED 0x02u

/* Offsets in a header; the second part begins behind the first mark. */
#define HEADER_FLAGS 4
#define HEADER_ID 8
#define HEADER_BODY_LEN 24
#define HEADER_FIRST 32
#define SECOND_KEY_LEN 8
#define SECOND_HEAD_LEN 12
#define SECOND_FIXED 16

#define DIGEST_DIGITS 32

/* --- names ---------------------------------------------------------------- */

static char *hex_append(char *to, apr_uint64_t n)
{
    int shift;

    for (shift = 60; shift >= 0; shift -= 4) {
        *to++ = "0123456789abcdef"[n >> shift & 15];
    }
    return to;
}

/* The hash has no secret, for all servers must find the same name. Who makes
 * keys that share a name gains nothing: they displace each other. */
void mw_redis_name(const mw_redis_t *store, const cachemw_key_t *key,
                   apr_pool_t *pool, mw_redis_bytes_t *name)
{
    static const unsigned char salt[2][APR_SIPHASH_KSIZE] = {
        "cachemw redis 1",
        "cachemw redis 2",
    };
    const char *prefix = store->settings.key_prefix;
    apr_size_t len = strlen(prefix);
    char *to = apr_palloc(pool, len + DIGEST_DIGITS + 2);

    name->data = to;
    name->len = len + DIGEST_DIGITS + 2;
    memcpy(to, prefix, len);
    to += len;
    *to++ = '{';
    to = hex_append(to, apr_siphash24(key->data, key->len, salt[0]));
    to = hex_append(to, apr_siphash24(key->data, key->len, salt[1]));
    *to = '}';
}

void mw_redis_name_body(const mw_redis_bytes_t *name, const cachemw_id_t *id,
                        apr_pool_t *pool, mw_redis_bytes_t *body)
{
    char *to = apr_palloc(pool, name->len + 1 + sizeof(id->bytes));

    body->data = to;
    body->len = name->len + 1 + sizeof(id->bytes);
    memcpy(to, name->data, name->len);
    to[name->len] = ':';
    memcpy(to + name->len + 1, id->bytes, sizeof(id->bytes));
}

void mw_redis_name_lock(const mw_redis_t *store, const cachemw_key_t *key,
                        apr_pool_t *pool, mw_redis_bytes_t *name)
{
    static const char suffix[] = ":lock";
    mw_redis_bytes_t plain;
    char *to;

    mw_redis_name(store, key, pool, &plain);
    name->len = plain.len + sizeof(suffix) - 1;
    to = apr_palloc(pool, name->len);
    memcpy(to, plain.data, plain.len);
    memcpy(to + plain.len, suffix, sizeof(suffix) - 1);
    name->data = to;
}

const char *mw_redis_name_pattern(const mw_redis_t *store, apr_pool_t *pool)
{
    const char *prefix = store->settings.key_prefix;
    char *text = apr_palloc(pool, 2 * strlen(prefix) + DIGEST_DIGITS + 3);
    char *to = text;

    for (; *prefix; prefix++) {
        if (strchr("*?[]^\\", *prefix)) {
            *to++ = '\\';
        }
        *to++ = *prefix;
    }
    *to++ = '{';
    memset(to, '?', DIGEST_DIGITS);
    to += DIGEST_DIGITS;
    *to++ = '}';
    *to = 0;
    return text;
}

/* --- headers -------------------------------------------------------------- */

apr_uint64_t mw_redis_pieces(apr_off_t body_len)
{
    return ((apr_uint64_t)body_len + MW_REDIS_PIECE - 1) / MW_REDIS_PIECE;
}

int mw_redis_header_is_long(const char *data, apr_size_t len, cachemw_id_t *id)
{
    const unsigned char *p = (const unsigned char *)data;

    if (len < MW_REDIS_HEADER_ID_END || memcmp(p, HEADER_MAGIC, 4) != 0) {
        return 0;
    }
    memcpy(id->bytes, p + HEADER_ID, sizeof(id->bytes));
    return (mw_wire_get32(p + HEADER_FLAGS) & HEADER_LONG) != 0;
}

apr_size_t mw_redis_header_kept(const mw_redis_t *store)
{
    return HEADER_FIRST + mw_redis_mark_len(store->seal);
}

void mw_redis_header_ask(mw_redis_batch_t *batch, const mw_redis_bytes_t *name,
                         apr_size_t len)
{
    mw_redis_batch_open(batch, 4);
    mw_redis_batch_word(batch, "GETRANGE");
    mw_redis_batch_arg(batch, name->data, name->len);
    mw_redis_batch_word(batch, "0");
    mw_redis_batch_number(batch, (apr_int64_t)len - 1);
}

apr_size_t mw_redis_header_len(const mw_redis_t *store, const char *data,
                               apr_size_t len)
{
    apr_size_t kept = mw_redis_header_kept(store);
    const unsigned char *p = (const unsigned char *)data + kept;
    apr_size_t key_len, head_len;

    if (len < kept + SECOND_FIXED) {
        return 0;
    }
    key_len = mw_wire_get32(p + SECOND_KEY_LEN);
    head_len = mw_wire_get32(p + SECOND_HEAD_LEN);
    return key_len <= CACHEMW_KEY_MAX && head_len <= CACHEMW_HEAD_MAX
               ? kept + SECOND_FIXED + key_len + head_len
                     + mw_redis_mark_len(store->seal)
               : 0;
}

static apr_uint32_t header_flags(const mw_redis_t *store, apr_off_t body_len)
{
    return (body_len > MW_REDIS_SHORT ? HEADER_LONG : 0)
           | (store->seal ? HEADER_SEALED : 0);
}

/* What the mark of the second part begins with. The prefix: so that nobody can
 * take an entry from where it means something else. */
static void second_begin(const mw_redis_t *store, const cachemw_id_t *id,
                         mw_redis_mark_t *mark)
{
    mw_redis_mark_begin(mark, store->seal);
    mw_redis_mark_add(mark, HEADER_SECOND, 4);
    mw_redis_mark_add(mark, store->settings.key_prefix,
                      strlen(store->settings.key_prefix) + 1);
    mw_redis_mark_add(mark, id->bytes, sizeof(id->bytes));
}

apr_status_t mw_redis_header_make(const mw_redis_t *store,
                                  const cachemw_key_t *key,
                                  const cachemw_entry_t *entry,
                                  apr_pool_t *pool, mw_redis_bytes_t *header)
{
    apr_size_t mark_len = mw_redis_mark_len(store->seal);
    apr_size_t kept = mw_redis_header_kept(store);
    apr_size_t second = SECOND_FIXED + key->len + entry->head_len;
    unsigned char *p = apr_palloc(pool, kept + second + MW_REDIS_MARK_MAX);
    mw_redis_mark_t mark;
    apr_status_t rv;

    header->data = (const char *)p;
    header->len = kept + second + mark_len;
    memcpy(p, HEADER_MAGIC, 4);
    mw_wire_put32(p + HEADER_FLAGS, header_flags(store, entry->body_len));
    memcpy(p + HEADER_ID, entry->id.bytes, sizeof(entry->id.bytes));
    mw_wire_put64(p + HEADER_BODY_LEN, (apr_uint64_t)entry->body_len);
    mw_redis_mark_begin(&mark, store->seal);
    mw_redis_mark_add(&mark, p, HEADER_FIRST);
    rv = mw_redis_mark_end(&mark, p + HEADER_FIRST);
    p += kept;
    mw_wire_put64(p, (apr_uint64_t)entry->expires);
    mw_wire_put32(p + SECOND_KEY_LEN, (apr_uint32_t)key->len);
    mw_wire_put32(p + SECOND_HEAD_LEN, (apr_uint32_t)entry->head_len);
    memcpy(p + SECOND_FIXED, key->data, key->len);
    if (entry->head_len) {
        memcpy(p + SECOND_FIXED + key->len, entry->head, entry->head_len);
    }
    second_begin(store, &entry->id, &mark);
    mw_redis_mark_add(&mark, p, second);
    return mw_redis_mark_end(&mark, p + second) == APR_SUCCESS ? rv
                                                               : APR_EGENERAL;
}

static apr_status_t damaged(const mw_redis_t *store)
{
    mw_redis_count(store, "damaged");
    return APR_EINCOMPLETE;
}

/* A wrong mark: with a secret, no accident. */
static apr_status_t mark_refused(const mw_redis_t *store)
{
    const cachemw_services_t *services = store->services;

    if (!store->seal) {
        return damaged(store);
    }
    mw_redis_count(store, "forged");
    services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                  "an entry is not what a server with our secret_file stored: "
                  "not served (forged)");
    return APR_NOTFOUND;
}

static apr_status_t seal_refused(const mw_redis_t *store)
{
    const cachemw_services_t *services = store->services;

    if (store->seal) {
        mw_redis_count(store, "unsigned");
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "an entry without signature, from a server without "
                      "secret_file: not served (unsigned)");
    }
    else {
        mw_redis_count(store, "signed");
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "an entry with a signature, from a server that has a "
                      "secret_file: not served (signed)");
    }
    return APR_NOTFOUND;
}

static apr_status_t mark_check(const mw_redis_t *store, mw_redis_mark_t *mark,
                               const void *bytes)
{
    unsigned char right[MW_REDIS_MARK_MAX];

    if (mw_redis_mark_end(mark, right) != APR_SUCCESS) {
        return APR_EGENERAL;
    }
    return mw_redis_mark_same(right, bytes, mw_redis_mark_len(store->seal))
               ? APR_SUCCESS
               : mark_refused(store);
}

/* Of the first part: length, magic, flags. */
static apr_status_t header_check(const mw_redis_t *store,
                                 const unsigned char *p, apr_size_t len)
{
    apr_size_t kept = mw_redis_header_kept(store);
    mw_redis_mark_t mark;
    apr_uint32_t flags;

    if (len < HEADER_FIRST || memcmp(p, HEADER_MAGIC, 4) != 0) {
        return damaged(store);
    }
    flags = mw_wire_get32(p + HEADER_FLAGS);
    if (!(flags & HEADER_SEALED) != !store->seal) {
        return seal_refused(store);
    }
    if (len < kept + SECOND_FIXED + mw_redis_mark_len(store->seal)) {
        return damaged(store);
    }
    mw_redis_mark_begin(&mark, store->seal);
    mw_redis_mark_add(&mark, p, HEADER_FIRST);
    return mark_check(store, &mark, p + HEADER_FIRST);
}

static apr_status_t second_check(const mw_redis_t *store,
                                 const cachemw_id_t *id, const unsigned char *p,
                                 apr_size_t len)
{
    apr_size_t second = len - mw_redis_mark_len(store->seal);
    mw_redis_mark_t mark;

    second_begin(store, id, &mark);
    mw_redis_mark_add(&mark, p, second);
    return mark_check(store, &mark, p + second);
}

apr_status_t mw_redis_header_read(const mw_redis_t *store,
                                  const cachemw_key_t *key, const char *data,
                                  apr_size_t len, cachemw_key_t *found,
                                  cachemw_entry_t *entry)
{
    const unsigned char *p = (const unsigned char *)data;
    apr_size_t kept = mw_redis_header_kept(store);
    apr_size_t all = mw_redis_header_len(store, data, len);
    cachemw_key_t its;
    apr_status_t rv = header_check(store, p, len);

    if (rv == APR_SUCCESS && (!all || all > len)) {
        rv = damaged(store);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    memcpy(entry->id.bytes, p + HEADER_ID, sizeof(entry->id.bytes));
    entry->body_len = (apr_off_t)mw_wire_get64(p + HEADER_BODY_LEN);
    p += kept;
    rv = second_check(store, &entry->id, p, all - kept);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    entry->expires = (apr_time_t)mw_wire_get64(p);
    its.len = mw_wire_get32(p + SECOND_KEY_LEN);
    its.data = (const char *)p + SECOND_FIXED;
    entry->head_len = mw_wire_get32(p + SECOND_HEAD_LEN);
    entry->head = its.data + its.len;
    if (found) {
        *found = its;
    }
    if (key && (key->len != its.len || memcmp(key->data, its.data, its.len))) {
        mw_redis_count(store, "another-key");
        return APR_NOTFOUND;
    }
    return entry->body_len >= 0 ? APR_SUCCESS : damaged(store);
}

/* --- pieces --------------------------------------------------------------- */

apr_size_t mw_redis_piece_end_len(const mw_redis_t *store)
{
    return sizeof(cachemw_id_t) + mw_redis_mark_len(store->seal);
}

void mw_redis_piece_begin(const mw_redis_t *store, const cachemw_id_t *id,
                          apr_uint64_t number, mw_redis_mark_t *mark)
{
    unsigned char begin[12];

    memcpy(begin, PIECE_MAGIC, 4);
    mw_wire_put64(begin + 4, number);
    mw_redis_mark_begin(mark, store->seal);
    mw_redis_mark_add(mark, begin, sizeof(begin));
    mw_redis_mark_add(mark, id->bytes, sizeof(id->bytes));
}

apr_status_t mw_redis_piece_end(const cachemw_id_t *id, mw_redis_mark_t *mark,
                                char end[MW_REDIS_PIECE_END_MAX])
{
    memcpy(end, id->bytes, sizeof(id->bytes));
    return mw_redis_mark_end(mark, (unsigned char *)end + sizeof(id->bytes));
}

apr_status_t mw_redis_piece_check(const mw_redis_t *store,
                                  const cachemw_id_t *id, apr_uint64_t number,
                                  apr_size_t data_len,
                                  const mw_redis_bytes_t *piece)
{
    apr_size_t end_len = mw_redis_piece_end_len(store);
    mw_redis_mark_t mark;

    if (piece->len < end_len) {
        return damaged(store);
    }
    if (memcmp(piece->data + piece->len - end_len, id->bytes,
               sizeof(id->bytes))) {
        return APR_NOTFOUND;
    }
    if (piece->len != data_len + end_len) {
        return damaged(store);
    }
    mw_redis_piece_begin(store, id, number, &mark);
    mw_redis_mark_add(&mark, piece->data, data_len);
    return mark_check(store, &mark, piece->data + data_len + sizeof(id->bytes));
}
