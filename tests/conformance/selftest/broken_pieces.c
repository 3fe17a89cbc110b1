/* SPDX-License-Identifier: Apache-2.0 */

/* What can be wrong with bodies that are read piece by piece. */

#include <pthread.h>
#include <string.h>

#include "apr_strings.h"
#include "broken.h"
#include "tests/conformance/reference.h"

#define right ct_reference_provider

static apr_status_t piece_put(const cachemw_call_t *call, const char *bytes,
                              apr_size_t length, apr_off_t offset,
                              apr_size_t limit, apr_bucket_brigade *body)
{
    apr_size_t n;

    if (offset >= (apr_off_t)length) {
        return APR_NOTFOUND;
    }
    n = length - (apr_size_t)offset;
    n = n < limit ? n : limit;
    APR_BRIGADE_INSERT_TAIL(
        body,
        apr_bucket_heap_create(bytes + offset, n, NULL, call->bucket_alloc));
    return APR_SUCCESS;
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
    kept_t *slot;

    pthread_mutex_lock(&kept_mutex);
    slot = kept_find(id);
    if (slot) {
        rv = piece_put(call, slot->bytes, slot->length, offset, limit, body);
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
    apr_size_t length;
    apr_status_t rv;

    memset(&entry, 0, sizeof(entry));
    entry.body = apr_brigade_create(call->pool, call->bucket_alloc);
    rv = right.get(store, call, key, &entry);
    if (rv == APR_SUCCESS) {
        rv = apr_brigade_pflatten(entry.body, &bytes, &length, call->pool);
    }
    if (rv != APR_SUCCESS || memcmp(&entry.id, id, sizeof(*id)) != 0) {
        return rv != APR_SUCCESS ? rv : APR_NOTFOUND;
    }
    return piece_put(call, bytes, length, offset, limit, body);
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

static void kept_forget(void)
{
    pthread_mutex_lock(&kept_mutex);
    memset(kept, 0, sizeof(kept));
    pthread_mutex_unlock(&kept_mutex);
}

static apr_status_t forgets_remove(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_id_t *id)
{
    kept_forget();
    return right.remove(store, call, key, id);
}

static apr_status_t forgets_clear(void *store, const cachemw_call_t *call)
{
    kept_forget();
    return right.clear(store, call);
}

static apr_status_t forgets_sweep(void *store, const cachemw_call_t *call,
                                  int *more)
{
    kept_forget();
    return right.sweep(store, call, more);
}

static const cachemw_provider_t pieces = {
    .get = piece_get,
    .read = piece_read,
};

const ct_broken_t ct_broken_pieces[] = {
    { "gives_pieces_as_it_should", NULL, NULL, &pieces, { .size = 0 } },
    { "forgets_a_body_with_its_entry",
      "test_buckets_outlive_replacement",
      "its entry was replaced; the rest 59 s later, within CACHEMW_GRACE",
      &pieces,
      { .read = entry_read } },
    { "forgets_a_body_that_is_removed",
      "test_buckets_outlive_removal",
      "its entry was removed; the rest 59 s later, within CACHEMW_GRACE",
      &pieces,
      { .remove = forgets_remove } },
    { "forgets_bodies_when_cleared",
      "test_buckets_outlive_clear",
      "the store was cleared; the rest 59 s later, within CACHEMW_GRACE",
      &pieces,
      { .clear = forgets_clear } },
    { "forgets_bodies_when_swept",
      "test_buckets_outlive_expiry",
      "expired and was swept; the rest 59 s later, within CACHEMW_GRACE",
      &pieces,
      { .sweep = forgets_sweep } },
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
    { .name = NULL }
};
