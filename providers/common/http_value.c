/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "core/crc32c.h"
#include "core/wire.h"

#include "copied.h"
#include "http_value.h"

#define FORMAT 1

/* All of an envelope but its three long strings. */
#define SKELETON_MAX 512

/* Members and elements of a text, all together: each of them takes far more
 * memory than the text that it is made of. */
#define MEMBERS_MAX 64

/* Bytes that are decoded at once: whole groups of three. */
#define PIECE 65535
#define SCRAP 3072

#define HEX_DIGITS "0123456789abcdef"

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static apr_size_t base64_len(apr_uint64_t len)
{
    return (apr_size_t)((len + 2) / 3 * 4);
}

static apr_size_t value_size(apr_size_t key_len, apr_size_t head_len,
                             apr_off_t body_len)
{
    return SKELETON_MAX + base64_len(key_len) + base64_len(head_len)
           + base64_len((apr_uint64_t)body_len);
}

apr_size_t mw_http_value_max(apr_size_t key_len, apr_off_t body_len)
{
    return value_size(key_len, CACHEMW_HEAD_MAX, body_len);
}

/* --- the checksum --------------------------------------------------------- */

/* Of all but the body, which follows. */
static apr_uint32_t crc_begin(const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    unsigned char numbers[16];
    apr_uint32_t crc = mw_crc32c(0, entry->id.bytes, sizeof(entry->id.bytes));

    mw_wire_put64(numbers, (apr_uint64_t)entry->expires);
    mw_wire_put32(numbers + 8, (apr_uint32_t)key->len);
    mw_wire_put32(numbers + 12, (apr_uint32_t)entry->head_len);
    crc = mw_crc32c(crc, numbers, sizeof(numbers));
    crc = mw_crc32c(crc, key->data, key->len);
    return mw_crc32c(crc, entry->head, entry->head_len);
}

/* --- encoding ------------------------------------------------------------- */

typedef struct base64_t {
    char *to;
    unsigned char kept[3]; /* of a group that is not whole yet */
    int count;
} base64_t;

static void base64_group(base64_t *out, const unsigned char *p)
{
    out->to[0] = base64_digits[p[0] >> 2];
    out->to[1] = base64_digits[(p[0] & 3) << 4 | p[1] >> 4];
    out->to[2] = base64_digits[(p[1] & 15) << 2 | p[2] >> 6];
    out->to[3] = base64_digits[p[2] & 63];
    out->to += 4;
}

static void base64_add(base64_t *out, const void *data, apr_size_t len)
{
    const unsigned char *p = data, *end = p + len;

    while (p < end && (out->count || end - p < 3)) {
        out->kept[out->count++] = *p++;
        if (out->count == 3) {
            base64_group(out, out->kept);
            out->count = 0;
        }
    }
    for (; end - p >= 3; p += 3) {
        base64_group(out, p);
    }
    while (p < end) {
        out->kept[out->count++] = *p++;
    }
}

static void base64_end(base64_t *out)
{
    int count = out->count;

    if (count) {
        memset(out->kept + count, 0, sizeof(out->kept) - (apr_size_t)count);
        base64_group(out, out->kept);
        memset(out->to - (3 - count), '=', 3 - (apr_size_t)count);
        out->count = 0;
    }
}

static void text_add(base64_t *out, const char *text)
{
    apr_size_t len = strlen(text);

    memcpy(out->to, text, len);
    out->to += len;
}

static apr_status_t body_add(base64_t *out, const cachemw_entry_t *entry,
                             apr_uint32_t *crc)
{
    apr_off_t left = entry->body_len;
    apr_status_t rv = APR_SUCCESS;
    apr_size_t len;
    const char *data;

    while (entry->body && !APR_BRIGADE_EMPTY(entry->body)) {
        apr_bucket *e = APR_BRIGADE_FIRST(entry->body);

        if (!APR_BUCKET_IS_METADATA(e)) {
            rv = apr_bucket_read(e, &data, &len, APR_BLOCK_READ);
            if (rv != APR_SUCCESS) {
                return rv;
            }
            if (left < (apr_off_t)len) {
                return APR_EINVAL;
            }
            base64_add(out, data, len);
            *crc = mw_crc32c(*crc, data, len);
            left -= (apr_off_t)len;
        }
        apr_bucket_delete(e);
    }
    base64_end(out);
    return left ? APR_EINVAL : APR_SUCCESS;
}

static void begin_add(base64_t *out, const cachemw_key_t *key,
                      const cachemw_entry_t *entry)
{
    char number[64];
    int i;

    snprintf(number, sizeof(number), "{\"value\":{\"format\":%d,\"key\":\"",
             FORMAT);
    text_add(out, number);
    base64_add(out, key->data, key->len);
    base64_end(out);
    text_add(out, "\",\"id\":\"");
    for (i = 0; i < (int)sizeof(entry->id.bytes); i++) {
        *out->to++ = HEX_DIGITS[entry->id.bytes[i] >> 4];
        *out->to++ = HEX_DIGITS[entry->id.bytes[i] & 15];
    }
    snprintf(number, sizeof(number),
             "\",\"expires\":\"%" APR_INT64_T_FMT "\",\"head\":\"",
             (apr_int64_t)entry->expires);
    text_add(out, number);
    base64_add(out, entry->head, entry->head_len);
    base64_end(out);
    text_add(out, "\",\"body\":\"");
}

apr_status_t mw_http_value_encode(const cachemw_key_t *key,
                                  const cachemw_entry_t *entry,
                                  apr_int64_t timeout, char **text,
                                  apr_size_t *len)
{
    apr_uint32_t crc = crc_begin(key, entry);
    base64_t out = { .count = 0 };
    char end[96];
    apr_status_t rv;

    if (entry->body_len < 0 || entry->expires < 0
        || entry->body_len > MW_HTTP_BODY_MAX) {
        return APR_EINVAL;
    }
    *text = malloc(value_size(key->len, entry->head_len, entry->body_len));
    if (!*text) {
        return APR_ENOMEM;
    }
    out.to = *text;
    begin_add(&out, key, entry);
    rv = body_add(&out, entry, &crc);
    if (rv != APR_SUCCESS) {
        free(*text);
        return rv;
    }
    snprintf(end, sizeof(end), "\",\"crc32c\":\"%08x\"}", crc);
    text_add(&out, end);
    if (timeout) {
        snprintf(end, sizeof(end), ",\"timeout\":%" APR_INT64_T_FMT, timeout);
        text_add(&out, end);
    }
    text_add(&out, "}");
    *len = (apr_size_t)(out.to - *text);
    return APR_SUCCESS;
}

/* --- decoding ------------------------------------------------------------- */

/* Above all that digits are, in a bit of its own. */
#define NO_DIGIT 64

typedef struct decoder_t {
    unsigned char values[256]; /* of the digits; NO_DIGIT: none */
    apr_pool_t *pool;
    const char *reason;
} decoder_t;

typedef struct text_t {
    const char *data;
    apr_size_t len;
} text_t;

static void decoder_init(decoder_t *decoder, apr_pool_t *pool)
{
    int i;

    memset(decoder->values, NO_DIGIT, sizeof(decoder->values));
    for (i = 0; base64_digits[i]; i++) {
        decoder->values[(unsigned char)base64_digits[i]] = (unsigned char)i;
    }
    decoder->pool = pool;
    decoder->reason = NULL;
}

static apr_status_t decoder_fail(decoder_t *decoder, apr_status_t rv,
                                 const char *reason)
{
    decoder->reason = reason;
    return rv;
}

/* Bytes of a whole text; -1: none has that length. */
static apr_off_t base64_size(const text_t *text)
{
    apr_off_t size = (apr_off_t)(text->len / 4) * 3;

    if (text->len % 4) {
        return -1;
    }
    if (size && text->data[text->len - 1] == '=') {
        size -= text->data[text->len - 2] == '=' ? 2 : 1;
    }
    return size;
}

/* The last group, of one or two bytes: what is not used of it is 0. */
static int base64_last(const unsigned char *values, const unsigned char *p,
                       apr_size_t size, unsigned char *to)
{
    unsigned int a = values[p[0]], b = values[p[1]], c = values[p[2]];

    to[0] = (unsigned char)(a << 2 | b >> 4);
    if (size == 1) {
        return (a | b) < NO_DIGIT && !(b & 15) && p[2] == '=' && p[3] == '=';
    }
    to[1] = (unsigned char)(b << 4 | c >> 2);
    return (a | b | c) < NO_DIGIT && !(c & 3) && p[3] == '=';
}

/* So many bytes; 0: the text is not such. */
static int base64_take(const decoder_t *decoder, const char *text,
                       apr_size_t size, unsigned char *to)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *values = decoder->values;
    unsigned int all = 0;

    for (; size >= 3; size -= 3, p += 4, to += 3) {
        unsigned int a = values[p[0]], b = values[p[1]], c = values[p[2]],
                     d = values[p[3]];

        all |= a | b | c | d;
        to[0] = (unsigned char)(a << 2 | b >> 4);
        to[1] = (unsigned char)(b << 4 | c >> 2);
        to[2] = (unsigned char)(c << 6 | d);
    }
    return all < NO_DIGIT && (!size || base64_last(values, p, size, to));
}

static int text_of(const json_t *object, const char *name, text_t *text)
{
    const json_t *member = json_object_get(object, name);

    if (!json_is_string(member)) {
        return 0;
    }
    text->data = json_string_value(member);
    text->len = json_string_length(member);
    return 1;
}

/* A member of at most `max` bytes, into the pool. */
static int bytes_of(const decoder_t *decoder, const json_t *object,
                    const char *name, apr_off_t max, const void **data,
                    apr_size_t *len)
{
    apr_off_t size;
    text_t text;
    unsigned char *bytes;

    if (!text_of(object, name, &text)) {
        return 0;
    }
    size = base64_size(&text);
    if (size < 0 || size > max) {
        return 0;
    }
    bytes = apr_palloc(decoder->pool, (apr_size_t)size + 1);
    bytes[size] = '\0';
    *data = bytes;
    *len = (apr_size_t)size;
    return base64_take(decoder, text.data, *len, bytes);
}

/* `digits` lower-case hexadecimal digits. */
static int hex_of(const json_t *object, const char *name, int digits,
                  unsigned char *bytes)
{
    text_t text;
    int i;

    if (!text_of(object, name, &text) || text.len != (apr_size_t)digits
        || strspn(text.data, HEX_DIGITS) != text.len) {
        return 0;
    }
    for (i = 0; i < digits; i += 2) {
        bytes[i / 2] =
            (unsigned char)((strchr(HEX_DIGITS, text.data[i]) - HEX_DIGITS) << 4
                            | (strchr(HEX_DIGITS, text.data[i + 1])
                               - HEX_DIGITS));
    }
    return 1;
}

static int time_of(const json_t *object, const char *name, apr_time_t *t)
{
    text_t text;

    if (!text_of(object, name, &text) || text.len < 1 || text.len > 18
        || strspn(text.data, "0123456789") != text.len) {
        return 0;
    }
    *t = (apr_time_t)strtoll(text.data, NULL, 10);
    return 1;
}

static apr_status_t body_take(decoder_t *decoder, const text_t *text,
                              apr_bucket_brigade *body, apr_off_t left,
                              apr_uint32_t *crc)
{
    const apr_off_t most = body ? PIECE : SCRAP;
    const char *at = text->data;
    unsigned char scrap[SCRAP];

    while (left) {
        apr_size_t n = (apr_size_t)(left < most ? left : most);
        unsigned char *to =
            body ? (unsigned char *)mw_copied_append(body, n) : scrap;

        if (!to) {
            return decoder_fail(decoder, APR_ENOMEM, "out of memory");
        }
        if (!base64_take(decoder, at, n, to)) {
            return decoder_fail(decoder, APR_EINCOMPLETE,
                                "body: base64 is expected");
        }
        *crc = mw_crc32c(*crc, to, n);
        at += base64_len(n);
        left -= (apr_off_t)n;
    }
    return APR_SUCCESS;
}

static apr_status_t body_of(decoder_t *decoder, const json_t *object,
                            apr_off_t body_max, mw_http_value_t *value)
{
    apr_uint32_t crc = crc_begin(&value->key, &value->entry);
    unsigned char expected[4];
    apr_off_t size;
    text_t text;
    apr_status_t rv;

    if (!hex_of(object, "crc32c", 8, expected)) {
        return decoder_fail(decoder, APR_EINCOMPLETE,
                            "crc32c: 8 hexadecimal digits are expected");
    }
    if (!text_of(object, "body", &text)) {
        return decoder_fail(decoder, APR_EINCOMPLETE,
                            "body: a string is expected");
    }
    size = base64_size(&text);
    if (size < 0) {
        return decoder_fail(decoder, APR_EINCOMPLETE,
                            "body: base64 is expected");
    }
    if (size > body_max) {
        return decoder_fail(decoder, APR_ENOSPC, "body: too long");
    }
    value->entry.body_len = size;
    rv = body_take(decoder, &text, value->entry.body, size, &crc);
    if (rv == APR_SUCCESS
        && crc
               != ((apr_uint32_t)expected[0] << 24
                   | (apr_uint32_t)expected[1] << 16
                   | (apr_uint32_t)expected[2] << 8 | expected[3])) {
        return decoder_fail(decoder, APR_EINCOMPLETE, "crc32c: it differs");
    }
    return rv;
}

static apr_status_t value_take(decoder_t *decoder, const json_t *object,
                               apr_off_t body_max, mw_http_value_t *value)
{
    const json_t *format = json_object_get(object, "format");
    cachemw_entry_t *entry = &value->entry;
    const void *key;
    const char *wrong = NULL;

    if (!json_is_object(object)) {
        wrong = "value: an object is expected";
    }
    else if (!json_is_integer(format) || json_integer_value(format) != FORMAT) {
        wrong = "format: 1 is expected";
    }
    else if (json_object_size(object) != 7) {
        wrong = "value: an unknown member";
    }
    else if (!bytes_of(decoder, object, "key", CACHEMW_KEY_MAX, &key,
                       &value->key.len)) {
        wrong = "key: base64 of at most 16384 bytes is expected";
    }
    else if (!hex_of(object, "id", 32, entry->id.bytes)) {
        wrong = "id: 32 hexadecimal digits are expected";
    }
    else if (!time_of(object, "expires", &entry->expires)) {
        wrong = "expires: a string of digits is expected";
    }
    else if (!bytes_of(decoder, object, "head", CACHEMW_HEAD_MAX, &entry->head,
                       &entry->head_len)) {
        wrong = "head: base64 of at most 1048576 bytes is expected";
    }
    if (wrong) {
        return decoder_fail(decoder, APR_EINCOMPLETE, wrong);
    }
    value->key.data = key;
    return body_of(decoder, object, body_max, value);
}

static apr_status_t envelope_take(decoder_t *decoder, const json_t *envelope,
                                  apr_off_t body_max, mw_http_value_t *value)
{
    const json_t *object = json_object_get(envelope, "value");
    const json_t *timeout = json_object_get(envelope, "timeout");

    if (!object) {
        return decoder_fail(decoder, EPROTO,
                            "an object with a member value is expected");
    }
    if (timeout
        && (!json_is_number(timeout) || json_number_value(timeout) <= 0)) {
        return decoder_fail(decoder, EPROTO,
                            "timeout: a number above 0 is expected");
    }
    value->timeout = timeout ? json_number_value(timeout) : 0;
    return value_take(decoder, object, body_max, value);
}

/* Whether no more is in a text than an envelope can need. */
static int text_is_modest(const char *text, apr_size_t len)
{
    const char *p = text, *end = text + len;
    int members = 0;

    while (p < end && members <= MEMBERS_MAX) {
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++) {
                p += *p == '\\';
            }
        }
        else {
            members += *p == ',' || *p == '{' || *p == '[';
        }
        p++;
    }
    return members <= MEMBERS_MAX;
}

apr_status_t mw_http_value_decode(const char *text, apr_size_t len,
                                  apr_off_t body_max, apr_pool_t *pool,
                                  apr_bucket_brigade *body,
                                  mw_http_value_t *value, const char **reason)
{
    decoder_t decoder;
    json_error_t error = { .text = "" };
    json_t *envelope;
    apr_status_t rv;

    if (!text_is_modest(text, len)) {
        *reason = "too many members";
        return EPROTO;
    }
    envelope = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    /* without a word: it had no memory to begin */
    if (!envelope
        && (!*error.text
            || json_error_code(&error) == json_error_out_of_memory)) {
        *reason = "out of memory";
        return APR_ENOMEM;
    }
    if (!envelope) {
        *reason = "JSON is expected";
        return EPROTO;
    }
    memset(value, 0, sizeof(*value));
    value->entry.body = body;
    decoder_init(&decoder, pool);
    rv = envelope_take(&decoder, envelope, body_max, value);
    if (rv != APR_SUCCESS) {
        *reason = decoder.reason;
    }
    json_decref(envelope);
    return rv;
}
