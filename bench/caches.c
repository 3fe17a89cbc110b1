/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <stdlib.h>

#include "apr_strings.h"

#include "caches.h"
#include "core/options.h"
#include "providers/memory/blocks.h"
#include "providers/memory/memory.h"
#include "tests/unit/fake.h"
#include "traces.h"

#define PROVIDER (&mw_memory_provider)
#define HEAD_LEN 250
#define BODY_MAX 262144
#define NOW APR_INT64_C(1700000000000000)
#define KEY_SIZE 48

struct store_t {
    fake_t fake; /* first: services get this pointer back */
    apr_uint64_t random;
    void *self;
    apr_pool_t *pool; /* ends with the store */
    apr_pool_t *visit;
    char *bytes; /* of every head and body */
};

static void store_die(const char *what, apr_status_t rv)
{
    char text[200];

    fprintf(stderr, "hitratio: %s: %s\n", what,
            apr_strerror(rv, text, sizeof(text)));
    exit(2);
}

/** Not random at all: the store's hash depends on it. */
static apr_status_t service_random(const cachemw_services_t *services,
                                   void *buffer, apr_size_t length)
{
    store_t *store = (store_t *)services;
    unsigned char *to = buffer;
    apr_size_t i;

    for (i = 0; i < length; i++) {
        to[i] = (unsigned char)trace_random(&store->random);
    }
    return APR_SUCCESS;
}

store_t *store_open(apr_pool_t *pool, const char *const *options, int n,
                    apr_uint64_t seed)
{
    store_t *store = apr_pcalloc(pool, sizeof(*store));
    mw_options_t set = { PROVIDER->options, NULL };
    const char *error;
    apr_status_t rv;

    apr_pool_create(&store->pool, NULL);
    apr_pool_create(&store->visit, store->pool);
    store->random = seed;
    store->bytes = apr_pcalloc(store->pool, BODY_MAX);
    fake_begin(&store->fake, "bench");
    store->fake.services.max_object_size = BODY_MAX;
    store->fake.services.random = service_random;
    error = mw_options_parse(&set, 1, options, n, "/", store->pool);
    if (error) {
        fprintf(stderr, "hitratio: %s\n", error);
        exit(2);
    }
    rv = PROVIDER->open(&store->fake.services, set.values, store->pool,
                        &store->self, &error);
    if (rv == APR_SUCCESS) {
        rv = PROVIDER->post_config(store->self, store->pool, 0, 0);
    }
    if (rv == APR_SUCCESS) {
        rv = PROVIDER->child_init(store->self, store->pool);
    }
    if (rv != APR_SUCCESS) {
        store_die("the store does not open", rv);
    }
    return store;
}

static cachemw_key_t store_key(char *buffer, apr_uint32_t object)
{
    cachemw_key_t key = { buffer, 0 };

    key.len = (apr_size_t)apr_snprintf(
        buffer, KEY_SIZE, "http://www.example.com:80/page?%010u", object);
    return key;
}

static apr_status_t store_put(store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, apr_uint32_t size)
{
    cachemw_entry_t entry = { .head = store->bytes,
                              .head_len = HEAD_LEN,
                              .expires = NOW + apr_time_from_sec(3600),
                              .body_len = size };
    apr_status_t rv;
    void *set;

    rv = PROVIDER->set_begin(store->self, call, key, &entry, &set);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (size) {
        rv = PROVIDER->set_write(store->self, call, set, store->bytes, size);
    }
    if (rv != APR_SUCCESS) {
        PROVIDER->set_abort(store->self, set);
        return rv;
    }
    return PROVIDER->set_commit(store->self, call, set);
}

int store_ask(store_t *store, apr_uint32_t object, apr_uint32_t size)
{
    char buffer[KEY_SIZE];
    cachemw_key_t key = store_key(buffer, object);
    cachemw_call_t call = { .pool = store->visit, .now = NOW };
    cachemw_entry_t entry = { .body_len = 0 };
    apr_status_t rv;

    call.bucket_alloc = apr_bucket_alloc_create(call.pool);
    entry.body = apr_brigade_create(call.pool, call.bucket_alloc);
    rv = PROVIDER->get(store->self, &call, &key, &entry);
    if (rv == APR_SUCCESS && entry.body_len != (apr_off_t)size) {
        store_die("a body of another length", APR_EGENERAL);
    }
    if (rv == APR_NOTFOUND) {
        apr_status_t put = store_put(store, &call, &key, size);

        if (put != APR_SUCCESS) {
            store_die("an entry is refused", put);
        }
    }
    else if (rv != APR_SUCCESS) {
        store_die("a look-up fails", rv);
    }
    apr_pool_clear(store->visit);
    return rv == APR_SUCCESS;
}

apr_uint64_t store_capacity(const store_t *store)
{
    const mw_mem_t *mem = store->self;

    return mw_blocks_total(mem) << mem->geometry.unit_shift;
}

apr_uint32_t store_weight(const store_t *store, apr_uint32_t object,
                          apr_uint32_t size)
{
    const mw_mem_t *mem = store->self;
    char buffer[KEY_SIZE];
    apr_size_t bytes = sizeof(mw_mem_entry_t) + store_key(buffer, object).len
                       + HEAD_LEN + size;

    return (apr_uint32_t)((bytes + mem->unit_size - 1)
                          & ~(apr_size_t)(mem->unit_size - 1));
}

void store_close(store_t *store)
{
    apr_pool_destroy(store->pool);
    fake_end(&store->fake);
}

typedef struct link_t {
    apr_uint32_t newer;
    apr_uint32_t older;
    apr_uint32_t weight; /* 0: not cached */
} link_t;

/* Object n is link n + 1; link 0 closes the ring: newer is the oldest. */
struct queue_t {
    apr_uint64_t left;
    link_t *links;
    int is_lru;
};

queue_t *queue_make(apr_pool_t *pool, apr_uint64_t capacity, apr_uint32_t bound,
                    int is_lru)
{
    queue_t *queue = apr_palloc(pool, sizeof(*queue));

    queue->left = capacity;
    queue->links = apr_pcalloc(pool, (bound + 1) * sizeof(link_t));
    queue->is_lru = is_lru;
    return queue;
}

static void queue_take_out(queue_t *queue, apr_uint32_t i)
{
    link_t *links = queue->links;

    links[links[i].newer].older = links[i].older;
    links[links[i].older].newer = links[i].newer;
}

static void queue_append(queue_t *queue, apr_uint32_t i)
{
    link_t *links = queue->links;

    links[i].newer = 0;
    links[i].older = links[0].older;
    links[links[0].older].newer = i;
    links[0].older = i;
}

int queue_ask(queue_t *queue, apr_uint32_t object, apr_uint32_t weight)
{
    link_t *links = queue->links;
    apr_uint32_t i = object + 1;

    if (links[i].weight) {
        if (queue->is_lru) {
            queue_take_out(queue, i);
            queue_append(queue, i);
        }
        return 1;
    }
    while (queue->left < weight) {
        apr_uint32_t oldest = links[0].newer;

        queue_take_out(queue, oldest);
        queue->left += links[oldest].weight;
        links[oldest].weight = 0;
    }
    queue->left -= weight;
    links[i].weight = weight;
    queue_append(queue, i);
    return 0;
}
