/* SPDX-License-Identifier: Apache-2.0 */

/* What can be wrong with bodies and heads in the reader's hands. */

#include <pthread.h>
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

/* Bodies whose first bytes were handed out lately: they can be read on when
 * their entry has gone. */
typedef struct kept_t {
    cachemw_id_t id;
    apr_size_t length;
    char bytes[1024 * 1024];
} kept_t;

static pthread_mutex_t kept_mutex = PTHREAD_MUTEX_INITIALIZER;
static kept_t kept[4];
static unsigned int kept_next;

static kept_t *kept_find(const cachemw_id_t *id)
{
    apr_size_t i;

    for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        if (kept[i].length && memcmp(&kept[i].id, id, sizeof(*id)) == 0) {
            return &kept[i];
        }
    }
    return NULL;
}

static void kept_put(const cachemw_entry_t *entry)
{
    kept_t *slot;

    pthread_mutex_lock(&kept_mutex);
    slot = kept_find(&entry->id);
    if (!slot) {
        slot = &kept[kept_next++ % (sizeof(kept) / sizeof(kept[0]))];
    }
    slot->id = entry->id;
    slot->length = sizeof(slot->bytes);
    apr_brigade_flatten(entry->body, slot->bytes, &slot->length);
    pthread_mutex_unlock(&kept_mutex);
}

static apr_status_t kept_read(const cachemw_call_t *call,
                              const cachemw_id_t *id, apr_off_t offset,
                              apr_size_t limit, apr_bucket_brigade *body)
{
    apr_status_t rv = APR_NOTFOUND;
    apr_size_t n;
    kept_t *slot;

    pthread_mutex_lock(&kept_mutex);
    slot = kept_find(id);
    if (slot && offset < (apr_off_t)slot->length) {
        n = slot->length - (apr_size_t)offset;
        n = n < limit ? n : limit;
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_heap_create(slot->bytes + offset, n, NULL,
                                         call->bucket_alloc));
        rv = APR_SUCCESS;
    }
    pthread_mutex_unlock(&kept_mutex);
    return rv;
}

/* The first 1000 bytes, with the rest by read. */
static apr_status_t piece_get(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry)
{
    apr_status_t rv = right.get(store, call, key, entry);
    apr_bucket *e;

    if (rv == APR_SUCCESS && entry->body != NULL && entry->body_len > 1000) {
        kept_put(entry);
        rv = apr_brigade_partition(entry->body, 1000, &e);
        while (rv == APR_SUCCESS && e != APR_BRIGADE_SENTINEL(entry->body)) {
            apr_bucket *next = APR_BUCKET_NEXT(e);

            apr_bucket_delete(e);
            e = next;
        }
    }
    return rv;
}

/* A piece of an entry that is there. */
static apr_status_t entry_read(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               apr_off_t offset, apr_size_t limit,
                               apr_bucket_brigade *body)
{
    cachemw_entry_t entry;
    char *bytes;
    apr_size_t length, n;
    apr_status_t rv;

    memset(&entry, 0, sizeof(entry));
    entry.body = apr_brigade_create(call->pool, call->bucket_alloc);
    rv = body_take(store, call, key, &entry, &bytes, &length);
    if (rv != APR_SUCCESS || offset >= (apr_off_t)length
        || memcmp(&entry.id, id, sizeof(*id)) != 0) {
        return rv != APR_SUCCESS ? rv : APR_NOTFOUND;
    }
    n = length - (apr_size_t)offset;
    n = n < limit ? n : limit;
    APR_BRIGADE_INSERT_TAIL(
        body,
        apr_bucket_heap_create(bytes + offset, n, NULL, call->bucket_alloc));
    return APR_SUCCESS;
}

static apr_status_t piece_read(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               apr_off_t offset, apr_size_t limit,
                               apr_bucket_brigade *body)
{
    apr_status_t rv = entry_read(store, call, key, id, offset, limit, body);

    return rv == APR_NOTFOUND ? kept_read(call, id, offset, limit, body) : rv;
}

/* A piece of whatever is there now. */
static apr_status_t any_read(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             apr_off_t offset, apr_size_t limit,
                             apr_bucket_brigade *body)
{
    cachemw_entry_t entry;
    apr_status_t rv;

    memset(&entry, 0, sizeof(entry));
    rv = right.get(store, call, key, &entry);
    (void)id;
    return rv == APR_SUCCESS
               ? piece_read(store, call, key, &entry.id, offset, limit, body)
               : rv;
}

static apr_status_t aligned_read(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_id_t *id, apr_off_t offset,
                                 apr_size_t limit, apr_bucket_brigade *body)
{
    return piece_read(store, call, key, id, offset - offset % 4096, limit,
                      body);
}

static apr_status_t greedy_read(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id, apr_off_t offset,
                                apr_size_t limit, apr_bucket_brigade *body)
{
    return piece_read(store, call, key, id, offset, limit + 1, body);
}

static const cachemw_provider_t pieces = {
    .get = piece_get,
    .read = piece_read,
};

const ct_broken_t ct_broken_bodies[] = {
    { "gives_pieces_as_it_should", NULL, NULL, &pieces, { .size = 0 } },
    { "forgets_a_body_with_its_entry",
      "test_buckets_outlive_replacement",
      "59 s later",
      &pieces,
      { .read = entry_read } },
    { "reads_whatever_is_there_now",
      "test_read_of_an_older_id_gives_no_other_body",
      "has been replaced",
      &pieces,
      { .read = any_read } },
    { "reads_from_another_offset",
      "test_read_at_every_kind_of_offset",
      "is wrong",
      &pieces,
      { .read = aligned_read } },
    { "reads_more_than_was_wanted",
      "test_read_at_every_kind_of_offset",
      "gave",
      &pieces,
      { .read = greedy_read } },
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
