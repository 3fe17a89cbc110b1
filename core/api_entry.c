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

/* What services have put around it comes off. @return 0: they are too many */
static int head_unwrap(cachemw_entry_t *entry)
{
    int hops = 0;
    cachemw_key_t key;

    while (mw_head_kind(entry->head, entry->head_len) == MW_HEAD_API) {
        if (hops++ == MW_API_HOPS_MAX
            || mw_api_head_decode(entry, &key) != APR_SUCCESS) {
            return 0;
        }
    }
    return 1;
}

/* NULL: it is none. */
static mw_vary_t *head_record(const cachemw_entry_t *entry, apr_pool_t *pool)
{
    mw_vary_t *record;

    return mw_vary_decode(entry->head, entry->head_len, pool, &record)
                   == APR_SUCCESS
               ? record
               : NULL;
}

int mw_api_head_is_sound(const void *head, apr_size_t head_len,
                         apr_off_t body_len, apr_pool_t *pool)
{
    cachemw_entry_t inner = { .head = head, .head_len = head_len };
    mw_head_t decoded;

    if (!head_unwrap(&inner)) {
        return 0;
    }
    if (mw_head_kind(inner.head, inner.head_len) == MW_HEAD_VARY) {
        return body_len <= 0 && head_record(&inner, pool);
    }
    return mw_head_decode(inner.head, inner.head_len, body_len, pool, &decoded)
           == APR_SUCCESS;
}

int mw_api_head_invalidates(const cachemw_entry_t *old,
                            const cachemw_entry_t *entry, apr_pool_t *pool)
{
    cachemw_entry_t before = *old;
    cachemw_entry_t after = *entry;
    const mw_vary_t *record, *other;
    mw_head_t decoded;

    if (!head_unwrap(&before) || !head_unwrap(&after)) {
        return 0;
    }
    record = head_record(&after, pool);
    if (record) {
        other = head_record(&before, pool);
        return other && other->serial != record->serial;
    }
    return mw_head_decode(after.head, after.head_len, -1, pool, &decoded)
               == APR_SUCCESS
           && (decoded.control & MW_CONTROL_INVALIDATED);
}
