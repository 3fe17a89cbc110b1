/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "apr_strings.h"
#include "reference.h"

/* The segment:
 *
 *     area_t | record key head body | record key head body | ... free ...
 *              ^ data[0]                                     ^ data[used]
 *
 * Oldest first. Removing closes the gap; what does not fit any more drops the
 * oldest. Nothing counts that is not below `used`. */
typedef struct area_t {
    pthread_mutex_t lock; /* robust: its holder may have been killed */
    apr_uint64_t used;
    apr_int64_t entries;
} area_t;

typedef struct record_t {
    apr_uint64_t size; /* with key, head and body, rounded up */
    apr_uint64_t key_len;
    apr_uint64_t head_len;
    apr_int64_t body_len;
    apr_time_t expires;
    cachemw_id_t id;
} record_t;

/* Of the process; the area is all children's. */
typedef struct reference_t {
    const cachemw_services_t *services;
    apr_size_t capacity; /* of data */
    area_t *area;
    char *data;
} reference_t;

#define LAYOUT 1

/* --- records: all of these want the lock --------------------------------- */

static char *record_key(record_t *r)
{
    return (char *)(r + 1);
}

static char *record_head(record_t *r)
{
    return record_key(r) + r->key_len;
}

static char *record_body(record_t *r)
{
    return record_head(r) + r->head_len;
}

static record_t *record_first(const reference_t *ref)
{
    return ref->area->used > 0 ? (record_t *)ref->data : NULL;
}

static record_t *record_next(const reference_t *ref, record_t *r)
{
    char *next = (char *)r + r->size;

    return next < ref->data + ref->area->used ? (record_t *)next : NULL;
}

static record_t *record_find(const reference_t *ref, const cachemw_key_t *key)
{
    record_t *r;

    for (r = record_first(ref); r != NULL; r = record_next(ref, r)) {
        if (r->key_len == key->len
            && memcmp(record_key(r), key->data, key->len) == 0) {
            return r;
        }
    }
    return NULL;
}

static int record_is(const record_t *r, const cachemw_id_t *id)
{
    return memcmp(&r->id, id, sizeof(*id)) == 0;
}

/* Everything from the end of r to the end of the data moves over it. */
static void record_remove(reference_t *ref, record_t *r)
{
    char *end = (char *)r + r->size;

    ref->area->used -= r->size;
    ref->area->entries--;
    memmove(r, end, (apr_size_t)(ref->data + ref->area->used - (char *)r));
}

static apr_uint64_t size_needed(apr_uint64_t key_len, apr_uint64_t head_len,
                                apr_uint64_t body_len)
{
    return (sizeof(record_t) + key_len + head_len + body_len + 15)
           & ~(apr_uint64_t)15;
}

/* Drop the oldest until this many bytes are free, and an eighth more, so that
 * not every set has to. */
static void room_make(reference_t *ref, apr_uint64_t size)
{
    apr_uint64_t wanted = size + ref->capacity / 8;
    apr_uint64_t gone = 0;
    apr_int64_t count = 0;
    record_t *r = record_first(ref);

    if (ref->area->used + size <= ref->capacity) {
        return;
    }
    wanted = wanted < ref->capacity ? wanted : ref->capacity;
    while (r != NULL && ref->area->used - gone + wanted > ref->capacity) {
        gone += r->size;
        count++;
        r = record_next(ref, r);
    }
    ref->area->used -= gone;
    ref->area->entries -= count;
    memmove(ref->data, ref->data + gone, ref->area->used);
    ref->services->count(ref->services, CACHEMW_COUNT_EVICTED,
                         (apr_uint64_t)count);
}

/* --- the lock ------------------------------------------------------------ */

/* A child that died with the lock may have left anything behind: it is a
 * cache, so what it held is forgotten. */
static apr_status_t area_lock(const reference_t *ref)
{
    int error = pthread_mutex_lock(&ref->area->lock);

    if (error == EOWNERDEAD) {
        ref->area->used = 0;
        ref->area->entries = 0;
        pthread_mutex_consistent(&ref->area->lock);
        ref->services->count(ref->services, CACHEMW_COUNT_RECOVERED, 1);
        error = 0;
    }
    return error;
}

static void area_unlock(const reference_t *ref)
{
    pthread_mutex_unlock(&ref->area->lock);
}

static apr_status_t area_init(area_t *area)
{
    pthread_mutexattr_t shared;
    int error = pthread_mutexattr_init(&shared);

    if (error == 0) {
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
        error = pthread_mutex_init(&area->lock, &shared);
        pthread_mutexattr_destroy(&shared);
    }
    return error;
}

/* --- slots --------------------------------------------------------------- */

enum { OPTION_SIZE };

static apr_status_t reference_open(const cachemw_services_t *services,
                                   const cachemw_value_t *values,
                                   apr_pool_t *pconf, void **store,
                                   const char **error)
{
    reference_t *ref = apr_pcalloc(pconf, sizeof(*ref));

    (void)error;
    ref->services = services;
    ref->capacity = (apr_size_t)values[OPTION_SIZE].number;
    *store = ref;
    return APR_SUCCESS;
}

static void reference_close(void *store)
{
    (void)store;
}

static apr_status_t reference_post_config(void *store, apr_pool_t *pconf,
                                          apr_uid_t uid, apr_gid_t gid)
{
    reference_t *ref = store;
    void *base;
    int is_new;
    apr_status_t rv;

    (void)pconf;
    (void)uid;
    (void)gid;
    rv = ref->services->segment(ref->services, sizeof(area_t) + ref->capacity,
                                LAYOUT, &base, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    ref->area = base;
    ref->data = (char *)(ref->area + 1);
    return is_new ? area_init(ref->area) : APR_SUCCESS;
}

/* The body is copied out: nothing of a reader depends on the segment. */
static apr_status_t reference_get(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  cachemw_entry_t *entry)
{
    reference_t *ref = store;
    record_t *r;
    apr_size_t done, n;
    apr_status_t rv = area_lock(ref);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    r = record_find(ref, key);
    if (r == NULL || r->expires <= call->now) {
        area_unlock(ref);
        return APR_NOTFOUND;
    }
    entry->id = r->id;
    entry->expires = r->expires;
    entry->body_len = r->body_len;
    entry->head_len = r->head_len;
    entry->head = apr_pmemdup(call->pool, record_head(r), r->head_len);
    if (entry->body != NULL) {
        for (done = 0; done < (apr_size_t)r->body_len; done += n) {
            n = (apr_size_t)r->body_len - done;
            n = n < CACHEMW_PIECE_MAX ? n : CACHEMW_PIECE_MAX;
            APR_BRIGADE_INSERT_TAIL(
                entry->body, apr_bucket_heap_create(record_body(r) + done, n,
                                                    NULL, call->bucket_alloc));
        }
    }
    area_unlock(ref);
    return APR_SUCCESS;
}

/* Copies a body in; it must have exactly this length. */
static apr_status_t body_copy(char *to, apr_off_t length,
                              apr_bucket_brigade *body)
{
    apr_off_t done = 0;
    apr_bucket *e;

    if (body == NULL) {
        return length == 0 ? APR_SUCCESS : APR_EINVAL;
    }
    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        const char *data;
        apr_size_t n;
        apr_status_t rv = apr_bucket_read(e, &data, &n, APR_BLOCK_READ);

        if (rv != APR_SUCCESS) {
            return rv;
        }
        if (done + (apr_off_t)n > length) {
            return APR_EINVAL;
        }
        memcpy(to + done, data, n);
        done += (apr_off_t)n;
    }
    return done == length ? APR_SUCCESS : APR_EINVAL;
}

/* The new entry is made behind the last one and counts when it is complete;
 * only then does the old one go. */
static apr_status_t reference_set(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_entry_t *entry)
{
    reference_t *ref = store;
    record_t *r, *old;
    apr_uint64_t size =
        size_needed(key->len, entry->head_len, (apr_uint64_t)entry->body_len);
    apr_status_t rv;

    (void)call;
    if (size > ref->capacity / 4) {
        return APR_ENOSPC;
    }
    rv = area_lock(ref);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    room_make(ref, size);
    r = (record_t *)(ref->data + ref->area->used);
    r->size = size;
    r->key_len = key->len;
    r->head_len = entry->head_len;
    r->body_len = entry->body_len;
    r->expires = entry->expires;
    r->id = entry->id;
    memcpy(record_key(r), key->data, key->len);
    memcpy(record_head(r), entry->head, entry->head_len);
    rv = body_copy(record_body(r), entry->body_len, entry->body);
    if (rv == APR_SUCCESS) {
        old = record_find(ref, key);
        ref->area->used += size;
        ref->area->entries++;
        if (old != NULL) {
            record_remove(ref, old);
        }
    }
    area_unlock(ref);
    return rv;
}

static apr_status_t reference_remove(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     const cachemw_id_t *id)
{
    reference_t *ref = store;
    record_t *r;
    apr_status_t rv = area_lock(ref);

    (void)call;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    r = record_find(ref, key);
    if (r != NULL && (id == NULL || record_is(r, id))) {
        record_remove(ref, r);
    }
    else if (r != NULL) {
        rv = APR_NOTFOUND;
    }
    area_unlock(ref);
    return rv;
}

/* A head of another length is a new record around the old body, in which only
 * the order of the records changes. */
static apr_status_t reference_set_head(void *store, const cachemw_call_t *call,
                                       const cachemw_key_t *key,
                                       const cachemw_id_t *id,
                                       const cachemw_entry_t *entry)
{
    reference_t *ref = store;
    record_t *r, *to;
    apr_uint64_t size;
    apr_status_t rv = area_lock(ref);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    r = record_find(ref, key);
    if (r == NULL || !record_is(r, id) || r->expires <= call->now) {
        area_unlock(ref);
        return APR_NOTFOUND;
    }
    size = size_needed(key->len, entry->head_len, (apr_uint64_t)r->body_len);
    if (ref->area->used + size > ref->capacity) {
        room_make(ref, size);
        r = record_find(ref, key);
        if (r == NULL) {
            area_unlock(ref);
            return APR_ENOSPC;
        }
    }
    to = (record_t *)(ref->data + ref->area->used);
    *to = *r;
    to->size = size;
    to->head_len = entry->head_len;
    to->expires = entry->expires;
    memcpy(record_key(to), key->data, key->len);
    memcpy(record_head(to), entry->head, entry->head_len);
    memcpy(record_body(to), record_body(r), (apr_size_t)r->body_len);
    ref->area->used += size;
    ref->area->entries++;
    record_remove(ref, r);
    area_unlock(ref);
    return APR_SUCCESS;
}

static apr_status_t reference_clear(void *store, const cachemw_call_t *call)
{
    reference_t *ref = store;
    apr_status_t rv = area_lock(ref);

    (void)call;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    ref->area->used = 0;
    ref->area->entries = 0;
    area_unlock(ref);
    return APR_SUCCESS;
}

static void record_tell(record_t *r, cachemw_keys_fn *each, void *baton,
                        apr_status_t *rv)
{
    cachemw_key_t key = { record_key(r), r->key_len };
    cachemw_entry_t entry;

    memset(&entry, 0, sizeof(entry));
    entry.id = r->id;
    entry.expires = r->expires;
    entry.body_len = r->body_len;
    *rv = each(baton, &key, &entry);
}

/* Under the lock: `each` must not call this store. A real provider copies a
 * few keys at a time instead. */
static apr_status_t reference_keys(void *store, const cachemw_call_t *call,
                                   const char *pattern, cachemw_keys_fn *each,
                                   void *baton)
{
    reference_t *ref = store;
    record_t *r;
    apr_status_t rv = area_lock(ref);

    (void)pattern;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    for (r = record_first(ref); r != NULL && rv == APR_SUCCESS;
         r = record_next(ref, r)) {
        if (r->expires > call->now) {
            record_tell(r, each, baton, &rv);
        }
    }
    area_unlock(ref);
    return rv;
}

static apr_status_t reference_sweep(void *store, const cachemw_call_t *call,
                                    int *more)
{
    reference_t *ref = store;
    record_t *r, *next;
    apr_uint64_t dropped = 0;
    apr_status_t rv = area_lock(ref);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    *more = 0;
    r = record_first(ref);
    while (r != NULL) {
        if (ref->services->remaining(ref->services, call) == 0) {
            *more = 1;
            break;
        }
        next = record_next(ref, r);
        if (r->expires <= call->now) {
            /* What was behind it is now where it was. */
            record_remove(ref, r);
            dropped++;
            next = next != NULL ? r : NULL;
        }
        r = next;
    }
    area_unlock(ref);
    ref->services->count(ref->services, CACHEMW_COUNT_EXPIRED, dropped);
    return APR_SUCCESS;
}

static apr_status_t reference_stats(void *store, const cachemw_call_t *call,
                                    cachemw_stats_t *stats)
{
    reference_t *ref = store;
    apr_status_t rv = area_lock(ref);

    (void)call;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    stats->entries = ref->area->entries;
    stats->bytes = (apr_int64_t)ref->area->used;
    stats->bytes_max = (apr_int64_t)ref->capacity;
    area_unlock(ref);
    return APR_SUCCESS;
}

/* A quarter, less what a long key and head may take beside the body. */
static apr_off_t reference_object_limit(void *store)
{
    reference_t *ref = store;

    return (apr_off_t)(ref->capacity / 4 - ref->capacity / 16);
}

static const cachemw_option_t reference_options[] = {
    [OPTION_SIZE] = { .name = "size",
                      .type = CACHEMW_SIZE,
                      .fallback = "4M",
                      .minimum = "1M",
                      .maximum = "1G",
                      .help = "Bytes for entries." },
    { .name = NULL },
};

const cachemw_provider_t ct_reference_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_IN_MEMORY,
    .options = reference_options,
    .open = reference_open,
    .close = reference_close,
    .get = reference_get,
    .set = reference_set,
    .remove = reference_remove,
    .post_config = reference_post_config,
    .set_head = reference_set_head,
    .clear = reference_clear,
    .keys = reference_keys,
    .sweep = reference_sweep,
    .stats = reference_stats,
    .object_limit = reference_object_limit,
};
