/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "api_entry.h"
#include "entry.h"
#include "vary.h"
#include "wire.h"

/* expires, length of the key */
#define FIXED 12

static const char api_prefix[] = "\0api";

cachemw_key_t mw_api_key(const char *name, apr_size_t length, apr_pool_t *pool)
{
    cachemw_key_t key;
    char *data = apr_palloc(pool, sizeof(api_prefix) + length);

    memcpy(data, api_prefix, sizeof(api_prefix));
    memcpy(data + sizeof(api_prefix), name, length);
    key.data = data;
    key.len = sizeof(api_prefix) + length;
    return key;
}

apr_status_t mw_api_head_encode(const cachemw_key_t *key,
                                const cachemw_entry_t *entry, int checksum,
                                apr_pool_t *pool, const void **bytes,
                                apr_size_t *length)
{
    unsigned char *frame =
        mw_frame_make(MW_HEAD_API, FIXED + key->len + entry->head_len, checksum,
                      pool, length);
    unsigned char *p;

    if (!frame) {
        return APR_ENOSPC;
    }
    p = frame + MW_FRAME_START;
    mw_wire_put64(p, (apr_uint64_t)entry->expires);
    mw_wire_put32(p + 8, (apr_uint32_t)key->len);
    memcpy(p + FIXED, key->data, key->len);
    if (entry->head_len) {
        memcpy(p + FIXED + key->len, entry->head, entry->head_len);
    }
    mw_frame_seal(frame, *length);
    *bytes = frame;
    return APR_SUCCESS;
}

apr_status_t mw_api_head_decode(cachemw_entry_t *entry, cachemw_key_t *key)
{
    const unsigned char *end;
    const unsigned char *p =
        mw_frame_open(entry->head, entry->head_len, MW_HEAD_API, &end);

    if (!p || end - p < FIXED || mw_wire_get32(p + 8) > MW_API_KEY_MAX
        || mw_wire_get32(p + 8) > (apr_size_t)(end - p) - FIXED) {
        return APR_EINCOMPLETE;
    }
    entry->expires = (apr_time_t)mw_wire_get64(p);
    key->len = mw_wire_get32(p + 8);
    key->data = (const char *)p + FIXED;
    entry->head = p + FIXED + key->len;
    entry->head_len = (apr_size_t)(end - p) - FIXED - key->len;
    return APR_SUCCESS;
}

int mw_api_head_is_sound(const void *head, apr_size_t head_len,
                         apr_off_t body_len, apr_pool_t *pool)
{
    cachemw_entry_t inner = { .head = head, .head_len = head_len };
    int hops = 0;
    cachemw_key_t key;
    mw_vary_t *record;
    mw_head_t decoded;

    while (mw_head_kind(inner.head, inner.head_len) == MW_HEAD_API) {
        if (hops++ == MW_API_HOPS_MAX
            || mw_api_head_decode(&inner, &key) != APR_SUCCESS) {
            return 0;
        }
    }
    if (mw_head_kind(inner.head, inner.head_len) == MW_HEAD_VARY) {
        return body_len <= 0
               && mw_vary_decode(inner.head, inner.head_len, pool, &record)
                      == APR_SUCCESS;
    }
    return mw_head_decode(inner.head, inner.head_len, body_len, pool, &decoded)
           == APR_SUCCESS;
}
