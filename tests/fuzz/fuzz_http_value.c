/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libFuzzer target. Every input is tried as what a cache service answers, and
 * as the parts of an entry with one damage to its text.
 */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apr_general.h"

#include "providers/common/http_value.h"

#define BODY_MAX 40000
#define TIME_MAX APR_INT64_C(999999999999999999)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition) must(condition, #condition, __LINE__)

static void must(int holds, const char *condition, int line)
{
    if (!holds) {
        fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, line, condition);
        abort();
    }
}

typedef struct fuzz_t {
    apr_pool_t *pool;
    apr_bucket_alloc_t *alloc;
} fuzz_t;

/* --- the same entry ------------------------------------------------------- */

static char *body_bytes(const fuzz_t *fuzz, const mw_http_value_t *value)
{
    const apr_size_t len = (apr_size_t)value->entry.body_len;
    char *bytes = apr_palloc(fuzz->pool, len + 1);
    apr_size_t got = len;
    apr_off_t all = 0;

    MUST(apr_brigade_length(value->entry.body, 0, &all) == APR_SUCCESS);
    MUST(all == value->entry.body_len);
    MUST(apr_brigade_flatten(value->entry.body, bytes, &got) == APR_SUCCESS);
    MUST(got == len);
    return bytes;
}

static void same_value(const mw_http_value_t *a, const char *a_body,
                       const mw_http_value_t *b, const char *b_body)
{
    MUST(a->key.len == b->key.len);
    MUST(!memcmp(a->key.data, b->key.data, a->key.len));
    MUST(!memcmp(a->entry.id.bytes, b->entry.id.bytes, sizeof(cachemw_id_t)));
    MUST(a->entry.expires == b->entry.expires);
    MUST(a->entry.head_len == b->entry.head_len);
    MUST(!memcmp(a->entry.head, b->entry.head, a->entry.head_len));
    MUST(a->entry.body_len == b->entry.body_len);
    MUST(!memcmp(a_body, b_body, (apr_size_t)a->entry.body_len));
}

/* --- texts ---------------------------------------------------------------- */

static apr_status_t text_decode(const fuzz_t *fuzz, const char *text,
                                apr_size_t len, apr_off_t max,
                                mw_http_value_t *value, const char **reason)
{
    apr_bucket_brigade *body = apr_brigade_create(fuzz->pool, fuzz->alloc);
    mw_http_value_t checked;
    const char *why = NULL;
    apr_status_t rv, without;

    *reason = NULL;
    rv = mw_http_value_decode(text, len, max, fuzz->pool, body, value, reason);
    MUST(rv == APR_SUCCESS || rv == EPROTO || rv == APR_EINCOMPLETE
         || rv == APR_ENOSPC);
    MUST((rv != APR_SUCCESS) == (*reason != NULL));
    without =
        mw_http_value_decode(text, len, max, fuzz->pool, NULL, &checked, &why);
    MUST(without == rv && why == *reason);
    if (rv == APR_SUCCESS) {
        MUST(value->key.len <= CACHEMW_KEY_MAX);
        MUST(value->entry.head_len <= CACHEMW_HEAD_MAX);
        MUST(value->entry.expires >= 0 && value->entry.expires <= TIME_MAX);
        MUST(value->entry.body_len >= 0 && value->entry.body_len <= max);
        MUST(value->timeout >= 0);
    }
    return rv;
}

static char *text_of(const fuzz_t *fuzz, const mw_http_value_t *value,
                     const char *bytes, apr_size_t *len)
{
    cachemw_entry_t entry = value->entry;
    char *text;

    entry.body = apr_brigade_create(fuzz->pool, fuzz->alloc);
    MUST(apr_brigade_write(entry.body, NULL, NULL, bytes,
                           (apr_size_t)entry.body_len)
         == APR_SUCCESS);
    MUST(mw_http_value_encode(&value->key, &entry, 60, &text, len)
         == APR_SUCCESS);
    MUST(*len <= mw_http_value_max(value->key.len, entry.body_len));
    return text;
}

/* What was accepted, and what was but for its checksum, is written and read
 * again. */
static void value_again(const fuzz_t *fuzz, const mw_http_value_t *value)
{
    const char *bytes = body_bytes(fuzz, value), *reason;
    mw_http_value_t again;
    apr_size_t len;
    char *text = text_of(fuzz, value, bytes, &len);

    MUST(text_decode(fuzz, text, len, BODY_MAX, &again, &reason)
         == APR_SUCCESS);
    same_value(value, bytes, &again, body_bytes(fuzz, &again));
    MUST(again.timeout > 59 && again.timeout < 61);
    if (value->entry.body_len) {
        MUST(text_decode(fuzz, text, len, value->entry.body_len - 1, &again,
                         &reason)
             == APR_ENOSPC);
    }
    free(text);
}

static void text_try(const fuzz_t *fuzz, const uint8_t *data, size_t size)
{
    mw_http_value_t value;
    const char *reason;
    /* where nothing is behind it */
    char *text = malloc(size ? size : 1);
    apr_status_t rv;

    memcpy(text, data, size);
    rv = text_decode(fuzz, text, size, BODY_MAX, &value, &reason);
    free(text);
    if (rv == APR_SUCCESS
        || (rv == APR_EINCOMPLETE && !strcmp(reason, "crc32c: it differs"))) {
        value_again(fuzz, &value);
    }
}

/* --- parts ---------------------------------------------------------------- */

static apr_size_t part_len(const uint8_t *at, apr_size_t left)
{
    apr_size_t len = at[0] | (apr_size_t)at[1] << 8;

    return len < left ? len : left;
}

/* Numbers, and then key, head and body behind one another. */
static void parts_try(const fuzz_t *fuzz, const uint8_t *data, size_t size)
{
    enum { NUMBERS = 32 };
    const uint8_t *at = data + NUMBERS, *end = data + size;
    mw_http_value_t value = { .timeout = 0 }, damaged;
    const char *bytes, *reason;
    apr_uint64_t expires;
    apr_size_t len, where;
    char *text;

    if (size < NUMBERS) {
        return;
    }
    memcpy(value.entry.id.bytes, data, sizeof(value.entry.id.bytes));
    memcpy(&expires, data + 16, sizeof(expires));
    value.entry.expires = (apr_time_t)(expires % (apr_uint64_t)TIME_MAX);
    value.key.data = (const char *)at;
    value.key.len = part_len(data + 24, (apr_size_t)(end - at));
    value.key.len =
        value.key.len < CACHEMW_KEY_MAX ? value.key.len : CACHEMW_KEY_MAX;
    at += value.key.len;
    value.entry.head = at;
    value.entry.head_len = part_len(data + 26, (apr_size_t)(end - at));
    bytes = (const char *)at + value.entry.head_len;
    len = (apr_size_t)((const char *)end - bytes);
    value.entry.body_len = (apr_off_t)(len < BODY_MAX ? len : BODY_MAX);

    text = text_of(fuzz, &value, bytes, &len);
    where = (data[28] | (apr_size_t)data[29] << 8) * len >> 16;
    text[where] = (char)(text[where] ^ data[30]);
    if (text_decode(fuzz, text, len, BODY_MAX, &damaged, &reason)
        == APR_SUCCESS) {
        same_value(&value, bytes, &damaged, body_bytes(fuzz, &damaged));
    }
    else {
        MUST(data[30]);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static apr_pool_t *parent = NULL;
    fuzz_t fuzz;

    if (!parent) {
        apr_initialize();
        apr_pool_create(&parent, NULL);
    }
    apr_pool_create(&fuzz.pool, parent);
    fuzz.alloc = apr_bucket_alloc_create(fuzz.pool);
    text_try(&fuzz, data, size);
    parts_try(&fuzz, data, size);
    apr_pool_destroy(fuzz.pool);
    return 0;
}
