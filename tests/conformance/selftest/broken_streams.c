/* SPDX-License-Identifier: Apache-2.0 */

/* The reference with streaming slots: right, and wrong in several ways. */

#include <stdlib.h>
#include <string.h>

#include "broken.h"
#include "tests/conformance/reference.h"

#define right ct_reference_provider

/* All of it in memory of its own, as a test may. */
typedef struct stream_t {
    cachemw_key_t key;
    cachemw_entry_t entry;
    char *body;
    apr_size_t length;
} stream_t;

static void *copy_make(const void *bytes, apr_size_t length)
{
    void *copy = malloc(length + 1);

    memcpy(copy, bytes, length);
    return copy;
}

static apr_status_t stream_begin(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_entry_t *entry, void **set)
{
    stream_t *s = calloc(1, sizeof(*s));

    (void)store;
    (void)call;
    s->key.len = key->len;
    s->key.data = copy_make(key->data, key->len);
    s->entry = *entry;
    s->entry.head = copy_make(entry->head, entry->head_len);
    *set = s;
    return APR_SUCCESS;
}

static apr_status_t stream_write(void *store, const cachemw_call_t *call,
                                 void *set, const char *data, apr_size_t length)
{
    stream_t *s = set;

    (void)call;
    if ((apr_off_t)(s->length + length) > right.object_limit(store)) {
        return APR_ENOSPC;
    }
    s->body = realloc(s->body, s->length + length);
    memcpy(s->body + s->length, data, length);
    s->length += length;
    return APR_SUCCESS;
}

static void stream_free(stream_t *s)
{
    free((void *)s->key.data);
    free((void *)s->entry.head);
    free(s->body);
    free(s);
}

/* What has been written so far becomes the entry. */
static apr_status_t stream_publish(void *store, const cachemw_call_t *call,
                                   const stream_t *s)
{
    apr_bucket_alloc_t *alloc = apr_bucket_alloc_create(call->pool);
    cachemw_entry_t entry = s->entry;
    apr_status_t rv;

    entry.body_len = (apr_off_t)s->length;
    entry.body = apr_brigade_create(call->pool, alloc);
    if (s->length > 0) {
        APR_BRIGADE_INSERT_TAIL(
            entry.body, apr_bucket_immortal_create(s->body, s->length, alloc));
    }
    rv = right.set(store, call, &s->key, &entry);
    apr_brigade_destroy(entry.body);
    return rv;
}

static apr_status_t stream_commit(void *store, const cachemw_call_t *call,
                                  void *set)
{
    stream_t *s = set;
    apr_off_t announced = s->entry.body_len;
    apr_status_t rv = APR_EINCOMPLETE;

    if (announced < 0 || announced == (apr_off_t)s->length) {
        rv = stream_publish(store, call, s);
    }
    stream_free(s);
    return rv;
}

static void stream_abort(void *store, void *set)
{
    (void)store;
    stream_free(set);
}

static const cachemw_provider_t streams = {
    .set_begin = stream_begin,
    .set_write = stream_write,
    .set_commit = stream_commit,
    .set_abort = stream_abort,
};

static apr_status_t early_write(void *store, const cachemw_call_t *call,
                                void *set, const char *data, apr_size_t length)
{
    apr_status_t rv = stream_write(store, call, set, data, length);

    return rv == APR_SUCCESS ? stream_publish(store, call, set) : rv;
}

static apr_status_t believing_commit(void *store, const cachemw_call_t *call,
                                     void *set)
{
    stream_t *s = set;

    s->entry.body_len = -1;
    return stream_commit(store, call, set);
}

/* An abort that takes the old entry with it. */
static void removing_abort(void *store, void *set)
{
    stream_t *s = set;
    cachemw_call_t call;

    memset(&call, 0, sizeof(call));
    right.remove(store, &call, &s->key, NULL);
    stream_free(s);
}

/* An abort that leaves a stub of an entry behind. */
static void stub_abort(void *store, void *set)
{
    stream_t *s = set;
    cachemw_call_t call;

    memset(&call, 0, sizeof(call));
    apr_pool_create(&call.pool, NULL);
    s->entry.expires = 1;
    stream_publish(store, &call, s);
    apr_pool_destroy(call.pool);
    stream_free(s);
}

/* The caller's head is kept instead of a copy. */
static apr_status_t pointing_begin(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_entry_t *entry, void **set)
{
    apr_status_t rv = stream_begin(store, call, key, entry, set);
    stream_t *s = *set;

    free((void *)s->entry.head);
    s->entry.head = entry->head;
    return rv;
}

static apr_status_t pointing_commit(void *store, const cachemw_call_t *call,
                                    void *set)
{
    stream_t *s = set;

    s->entry.head = copy_make(s->entry.head, s->entry.head_len);
    return stream_commit(store, call, set);
}

static void leaking_abort(void *store, void *set)
{
    (void)store;
    (void)set;
}

/* set in two steps: first the place, then the content. */
static apr_status_t stepwise_set(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_entry_t *entry)
{
    stream_t blank = { .key = *key, .entry = *entry };
    apr_status_t rv;

    blank.length = (apr_size_t)entry->body_len;
    blank.body = calloc(1, blank.length + 1);
    rv = stream_publish(store, call, &blank);
    free(blank.body);
    /* Time for others to see it: that the lock is free is not enough. */
    apr_sleep(100);
    return rv == APR_SUCCESS ? right.set(store, call, key, entry) : rv;
}

const ct_broken_t ct_broken_streams[] = {
    { "streams_as_it_should", NULL, NULL, &streams, { .size = 0 } },
    { "streams_without_abort",
      "test_table_has_what_is_required",
      "3 of the four streaming slots",
      NULL,
      { .set_begin = stream_begin,
        .set_write = stream_write,
        .set_commit = stream_commit } },
    { "publishes_before_commit",
      "test_stream_is_invisible_before_commit",
      "between set_write and set_commit",
      &streams,
      { .set_write = early_write } },
    { "believes_the_announced_length",
      "test_stream_shorter_than_announced_is_not_published",
      "were announced",
      &streams,
      { .set_commit = believing_commit } },
    { "removes_on_abort",
      "test_abort_keeps_old_entry",
      "after its successor was aborted",
      &streams,
      { .set_abort = removing_abort } },
    { "leaves_a_stub_on_abort",
      "test_abort_leaves_no_trace",
      "stats counts an aborted set",
      &streams,
      { .set_abort = stub_abort } },
    { "keeps_the_caller_head",
      "test_stream_keeps_no_pointer_to_key_and_head",
      "overwritten by their owner",
      &streams,
      { .set_begin = pointing_begin,
        .set_commit = pointing_commit,
        .set_abort = leaking_abort } },
    { "sets_in_two_steps",
      "test_set_is_atomic_for_readers",
      "is not the one that was stored",
      NULL,
      { .set = stepwise_set } },
    { .name = NULL }
};
