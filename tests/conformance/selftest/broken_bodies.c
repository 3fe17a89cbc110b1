/* SPDX-License-Identifier: Apache-2.0 */

/* What can be wrong with bodies and heads in the reader's hands. */

#include <string.h>

#include "apr_strings.h"
#include "broken.h"
#include "tests/conformance/reference.h"

#define right ct_reference_provider

/* get, with the body taken out of its buckets into memory of the caller. */
static apr_status_t body_take(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry,
                              char **bytes, apr_size_t *length)
{
    apr_status_t rv = right.get(store, call, key, entry);

    *length = 0;
    if (rv == APR_SUCCESS && entry->body != NULL && entry->body_len > 0) {
        rv = apr_brigade_pflatten(entry->body, bytes, length, call->pool);
        apr_brigade_cleanup(entry->body);
    }
    return rv;
}

static void body_put(const cachemw_call_t *call, cachemw_entry_t *entry,
                     const char *bytes, apr_size_t length)
{
    if (length > 0) {
        APR_BRIGADE_INSERT_TAIL(
            entry->body,
            apr_bucket_immortal_create(bytes, length, call->bucket_alloc));
    }
}

static apr_status_t pooled_get(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, cachemw_entry_t *entry)
{
    char *bytes;
    apr_size_t length;
    apr_status_t rv = body_take(store, call, key, entry, &bytes, &length);

    body_put(call, entry, bytes, length);
    return rv;
}

/* One buffer for all bodies, as if it were the place where they are kept. */
static char shared[1024 * 1024];

static apr_status_t shared_get(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, cachemw_entry_t *entry)
{
    char *bytes;
    apr_size_t length;
    apr_status_t rv = body_take(store, call, key, entry, &bytes, &length);

    if (length > 0) {
        memcpy(shared, bytes, length);
        body_put(call, entry, shared, length);
    }
    return rv;
}

static apr_status_t shared_set(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry)
{
    memset(shared, 0, sizeof(shared));
    return right.set(store, call, key, entry);
}

static apr_status_t shared_head_get(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    cachemw_entry_t *entry)
{
    apr_status_t rv = right.get(store, call, key, entry);

    if (rv == APR_SUCCESS && entry->head_len <= sizeof(shared)) {
        memcpy(shared, entry->head, entry->head_len);
        entry->head = shared;
    }
    return rv;
}

static apr_status_t short_get(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry)
{
    apr_status_t rv = right.get(store, call, key, entry);

    if (rv == APR_SUCCESS && entry->body_len == 65537 && entry->body != NULL) {
        apr_bucket_delete(APR_BRIGADE_LAST(entry->body));
    }
    return rv;
}

static apr_status_t bodiless_get(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 cachemw_entry_t *entry)
{
    apr_status_t rv = right.get(store, call, key, entry);

    if (rv == APR_SUCCESS && entry->body == NULL) {
        entry->body = apr_brigade_create(call->pool, call->bucket_alloc);
    }
    return rv;
}

static apr_status_t old_id_get(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, cachemw_entry_t *entry)
{
    apr_status_t rv = right.get(store, call, key, entry);

    memset(&entry->id, 0, sizeof(entry->id));
    return rv;
}

const ct_broken_t ct_broken_bodies[] = {
    { "bodies_live_in_the_call_pool",
      "test_buckets_outlive_the_pool_of_the_call",
      "after the pool of the call was destroyed",
      NULL,
      { .get = pooled_get } },
    { "bodies_live_in_the_store",
      "test_buckets_outlive_replacement",
      "while its entry was replaced",
      NULL,
      { .get = shared_get, .set = shared_set } },
    { "heads_live_in_the_store",
      "test_head_outlives_other_calls",
      "a head changed",
      NULL,
      { .get = shared_head_get, .set = shared_set } },
    { "loses_the_byte_behind_64_kb",
      "test_body_of_64k_and_1",
      "65536 of 65537",
      NULL,
      { .get = short_get } },
    { "makes_a_body_nobody_asked_for",
      "test_get_of_head_alone_gives_no_body",
      "a brigade nobody asked for",
      NULL,
      { .get = bodiless_get } },
    { "tells_another_id",
      "test_set_get_round_trip",
      "the id of another entry",
      NULL,
      { .get = old_id_get } },
    { .name = NULL }
};
