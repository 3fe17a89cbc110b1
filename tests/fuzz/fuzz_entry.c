/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libFuzzer target. Every input is tried as a head, as a head whose frame was
 * made right, and as the fields of a request ("Name: value" lines).
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "core/crc32c.h"
#include "core/entry.h"
#include "core/vary.h"
#include "core/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition) must(condition, #condition, __LINE__)

static void must(int holds, const char *condition, int line)
{
    if (!holds) {
        fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, line, condition);
        abort();
    }
}

/* --- heads --------------------------------------------------------------- */

static void same_bytes(apr_status_t rv, const void *bytes, apr_size_t length,
                       const uint8_t *data, size_t size)
{
    MUST(rv == APR_SUCCESS);
    MUST(length == size);
    MUST(!memcmp(bytes, data, size));
}

static void fields_check(const apr_table_t *headers)
{
    const apr_array_header_t *fields = apr_table_elts(headers);
    int i;

    for (i = 0; i < fields->nelts; i++) {
        apr_table_entry_t *field = &APR_ARRAY_IDX(fields, i, apr_table_entry_t);

        MUST(mw_is_token(field->key, strlen(field->key)));
        MUST(!strpbrk(field->val, "\r\n"));
    }
    MUST(!apr_table_get(headers, "Transfer-Encoding"));
}

static int string_end(void *baton, const char *name, const char *value)
{
    return strlen(name) + strlen(value) < 2 * *(size_t *)baton;
}

/* What is meant for heads of our own must not look beyond others, either. */
static void own_try(const uint8_t *data, size_t size, apr_pool_t *pool)
{
    mw_head_t head;

    if (mw_head_decode_own(data, size, -1, pool, &head) == APR_SUCCESS) {
        apr_table_do(string_end, &size, head.headers, NULL);
    }
}

static void response_try(const uint8_t *data, size_t size, apr_pool_t *pool)
{
    const void *bytes;
    apr_size_t length;
    mw_head_t head;
    apr_status_t rv = mw_head_decode(data, size, -1, pool, &head);
    const char *said;

    own_try(data, size, pool);
    if (rv != APR_SUCCESS) {
        MUST(rv == APR_EINCOMPLETE);
        MUST(mw_head_decode(data, size, 1024, pool, &head) != APR_SUCCESS);
        return;
    }
    MUST(mw_head_kind(data, size) == MW_HEAD_RESPONSE);
    fields_check(head.headers);
    rv = mw_head_encode(&head, data[6] & 1, pool, &bytes, &length);
    same_bytes(rv, bytes, length, data, size);
    said = apr_table_get(head.headers, "Content-Length");
    rv = mw_head_decode(data, size, 1024, pool, &head);
    MUST((rv == APR_SUCCESS) == (!said || apr_atoi64(said) == 1024));
}

static void record_try(const uint8_t *data, size_t size, apr_pool_t *pool)
{
    mw_digest_t digest = { { 0 } }, dropped;
    const void *bytes;
    apr_size_t length;
    mw_vary_t *record;
    apr_status_t rv = mw_vary_decode(data, size, pool, &record);

    if (rv != APR_SUCCESS) {
        MUST(rv == APR_EINCOMPLETE);
        return;
    }
    MUST(mw_head_kind(data, size) == MW_HEAD_VARY);
    rv = mw_vary_encode(record, data[6] & 1, pool, &bytes, &length);
    same_bytes(rv, bytes, length, data, size);
    mw_vary_add(record, &digest, MW_VARIANTS_MAX, &dropped);
    MUST(mw_vary_lists(record, &digest));
    MUST(mw_vary_encode(record, 1, pool, &bytes, &length) == APR_SUCCESS);
}

static void heads_try(const uint8_t *data, size_t size, apr_pool_t *pool)
{
    response_try(data, size, pool);
    record_try(data, size, pool);
}

/* What chance alone would not find: everything fits, but for the payload. */
static void repaired_try(const uint8_t *data, size_t size, apr_pool_t *pool)
{
    uint8_t *copy = malloc(size);

    memcpy(copy, data, size);
    memcpy(copy, "CMWH", 4);
    copy[4] = MW_HEAD_VERSION;
    copy[5] = copy[5] % 2 ? MW_HEAD_RESPONSE : MW_HEAD_VARY;
    copy[6] &= 1;
    copy[7] = 0;
    mw_wire_put32(copy + 8, (apr_uint32_t)size);
    if (copy[6]) {
        mw_wire_put32(copy + size - 4, mw_crc32c(0, copy, size - 4));
    }
    heads_try(copy, size, pool);
    free(copy);
}

/* --- requests ------------------------------------------------------------ */

static apr_table_t *request_read(const uint8_t *data, size_t size,
                                 apr_pool_t *pool)
{
    apr_table_t *request = apr_table_make(pool, 4);
    char *line = apr_pstrmemdup(pool, (const char *)data, size), *end;

    for (; *line; line = end) {
        char *colon;

        end = line + strcspn(line, "\n");
        if (*end) {
            *end++ = 0;
        }
        colon = strchr(line, ':');
        if (colon) {
            *colon = 0;
            apr_table_addn(request, line, colon + 1);
        }
    }
    return request;
}

/* Read a block back, all of it. */
static void block_check(const char *block, apr_size_t length, int fields)
{
    const unsigned char *p = (const unsigned char *)block, *end = p + length;

    for (; fields; fields--) {
        const char name[] = "accept-encoding";
        apr_uint32_t n;
        int is_codings;

        MUST(end - p >= 4);
        n = mw_wire_get32(p);
        p += 4;
        MUST(n > 0 && end - p >= (ptrdiff_t)n + 4);
        is_codings = n == sizeof(name) - 1 && !memcmp(p, name, n);
        p += n;
        n = mw_wire_get32(p);
        if (is_codings) {
            MUST(n <= 1 && end - p >= 8);
            p += 8;
            continue;
        }
        for (p += 4; n; n--) {
            apr_uint32_t size;

            MUST(end - p >= 4);
            size = mw_wire_get32(p);
            p += 4;
            MUST(end - p >= (ptrdiff_t)size);
            p += size;
        }
    }
    MUST(p == end);
}

/* The canonical form of Accept-Encoding says what may be sent, and is one of
 * few. */
static void encoding_check(const apr_table_t *request, apr_pool_t *pool)
{
    static const char *const common[] = { "br", "gzip", "zstd" };
    const uint32_t any_common = 0x07, rare = 0x18, no_identity = 0x20;
    apr_array_header_t *fields = apr_array_make(pool, 1, sizeof(char *));
    apr_size_t length, i;
    const char *block;
    uint32_t codings;

    APR_ARRAY_PUSH(fields, const char *) = "accept-encoding";
    block = mw_vary_block(fields, mw_vary_asked(request), &length, pool);
    MUST(length == 4 + sizeof("accept-encoding") - 1 + 8);
    codings = mw_wire_get32((const unsigned char *)block + length - 4);
    if (!apr_table_get(request, "Accept-Encoding")) {
        MUST(!codings);
        MUST(mw_vary_acceptable(mw_vary_asked(request), "gzip, br"));
    }
    MUST(!(codings & ~(any_common | rare | no_identity)));
    MUST(!(codings & any_common) || !(codings & rare));
    MUST(mw_vary_acceptable(mw_vary_asked(request), NULL)
         == !(codings & no_identity));
    for (i = 0; i < 3; i++) {
        MUST(!(codings & 1u << i)
             || mw_vary_acceptable(mw_vary_asked(request), common[i]));
    }
}

/* Any fields are refused, or stored and found again. */
static void fields_try(apr_table_t *fields, apr_pool_t *pool)
{
    mw_head_t head = { .status = 200, .headers = fields };
    const void *bytes, *again;
    apr_size_t length, again_len;
    apr_status_t rv = mw_head_encode(&head, 1, pool, &bytes, &length);

    if (rv != APR_SUCCESS) {
        MUST(rv == APR_EINVAL || rv == APR_ENOSPC);
        return;
    }
    MUST(mw_head_decode(bytes, length, -1, pool, &head) == APR_SUCCESS);
    rv = mw_head_encode(&head, 1, pool, &again, &again_len);
    same_bytes(rv, again, again_len, bytes, length);
}

static int field_add(void *baton, const char *name, const char *value)
{
    apr_table_addn(baton, name, value);
    return 1;
}

/* Nothing of a request but these fields. */
static apr_table_t *fields_only(const apr_array_header_t *fields,
                                const apr_table_t *request, apr_pool_t *pool)
{
    apr_table_t *only = apr_table_make(pool, fields->nelts);
    int i;

    for (i = 0; i < fields->nelts; i++) {
        apr_table_do(field_add, only, request,
                     APR_ARRAY_IDX(fields, i, const char *), NULL);
    }
    return only;
}

static void request_try(const uint8_t *data, size_t size, apr_pool_t *pool)
{
    apr_table_t *request = request_read(data, size, pool);
    int star;
    apr_array_header_t *fields = mw_vary_fields(request, &star, pool);

    mw_vary_acceptable(mw_vary_asked(request),
                       apr_table_get(request, "Content-Encoding"));
    encoding_check(request, pool);
    fields_try(request, pool);
    if (fields) {
        apr_size_t length, again;
        const char *block =
            mw_vary_block(fields, mw_vary_asked(request), &length, pool);
        apr_table_t *own = fields_only(fields, request, pool);
        mw_vary_t *record = mw_vary_make(
            fields, (const unsigned char *)"123456789012345678901234", pool);
        const void *bytes;

        block_check(block, length, fields->nelts);
        /* the request's own values are all that counted */
        MUST(!memcmp(mw_vary_block(fields, mw_vary_asked(own), &again, pool),
                     block, length));
        MUST(again == length);
        if (star || fields->nelts > MW_VARY_FIELDS_MAX) {
            MUST(mw_vary_encode(record, 0, pool, &bytes, &length)
                 != APR_SUCCESS);
        }
        else {
            MUST(mw_vary_encode(record, 0, pool, &bytes, &length)
                 != APR_EINVAL);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static apr_pool_t *pool = NULL;

    if (!pool) {
        apr_initialize();
        apr_pool_create(&pool, NULL);
    }
    heads_try(data, size, pool);
    if (size >= MW_FRAME_START + 4) {
        repaired_try(data, size, pool);
    }
    request_try(data, size, pool);
    apr_pool_clear(pool);
    return 0;
}
