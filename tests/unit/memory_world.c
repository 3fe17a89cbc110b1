/* SPDX-License-Identifier: Apache-2.0 */

#include "memory_world.h"

void *world_open(world_t *w, setting_t setting)
{
    cachemw_value_t values[8];
    const char *error = NULL;
    void *store = NULL;

    memset(values, 0, sizeof(values));
    values[0].number = setting.size ? setting.size : 4 << 20;
    values[1].number = setting.max_entries;
    values[1].is_null = !setting.max_entries;
    values[2].is_null = 1;
    values[3].number = setting.shards;
    values[3].is_null = !setting.shards;
    values[4].number = setting.prefault;
    assert_int_equal(
        PROVIDER->open(&w->fake.services, values, w->pool, &store, &error), 0);
    assert_int_equal(PROVIDER->post_config(store, w->pool, 0, 0), 0);
    return store;
}

world_t *world_make(setting_t setting)
{
    world_t *w = calloc(1, sizeof(*w));

    apr_pool_create(&w->pool, NULL);
    fake_begin(&w->fake, "test");
    w->now = EPOCH;
    w->mem = world_open(w, setting);
    apr_pool_create(&w->pchild, w->pool);
    assert_int_equal(PROVIDER->child_init(w->mem, w->pchild), 0);
    return w;
}

void world_end(world_t *w)
{
    apr_pool_destroy(w->pool);
    fake_end(&w->fake);
    free(w);
}

void visit_begin(world_t *w, visit_t *v)
{
    memset(v, 0, sizeof(*v));
    apr_pool_create(&v->call.pool, NULL);
    v->call.bucket_alloc = apr_bucket_alloc_create(v->call.pool);
    v->call.now = w->now;
}

void visit_end(visit_t *v)
{
    apr_pool_destroy(v->call.pool);
}

cachemw_key_t world_key(const char *text)
{
    cachemw_key_t key = { text, strlen(text) };

    return key;
}

cachemw_id_t world_id(apr_uint64_t n)
{
    cachemw_id_t id;

    memset(&id, 0x5a, sizeof(id));
    memcpy(&id, &n, sizeof(n));
    return id;
}

/** Differs at every place and seed. */
static unsigned char body_byte(apr_uint64_t seed, apr_uint64_t i)
{
    apr_uint64_t x = (seed + (i >> 3) + 1) * APR_UINT64_C(0x9e3779b97f4a7c15);

    x ^= x >> 29;
    return (unsigned char)(x >> (8 * (i & 7)));
}

void body_fill(char *to, apr_uint64_t seed, apr_uint64_t from,
               apr_size_t length)
{
    apr_size_t i;

    for (i = 0; i < length; i++) {
        to[i] = (char)body_byte(seed, from + i);
    }
}

apr_uint64_t body_verify_at(apr_bucket_brigade *body, apr_uint64_t seed,
                            apr_uint64_t from)
{
    apr_uint64_t at = from;
    apr_bucket *e;

    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        const char *data;
        apr_size_t n;
        apr_size_t i;

        if (apr_bucket_read(e, &data, &n, APR_BLOCK_READ) != APR_SUCCESS) {
            return at - from;
        }
        for (i = 0; i < n; i++, at++) {
            if ((unsigned char)data[i] != body_byte(seed, at)) {
                return at - from;
            }
        }
    }
    return at - from;
}

apr_uint64_t body_verify(apr_bucket_brigade *body, apr_uint64_t seed)
{
    return body_verify_at(body, seed, 0);
}

/** Heads of two lengths differ everywhere, so that none is a part of another. */
static apr_uint64_t head_seed(apr_uint64_t seed, apr_size_t length)
{
    return ~seed + length * APR_UINT64_C(0x100000001b3);
}

void head_fill(char *head, apr_uint64_t seed, apr_size_t length)
{
    body_fill(head, head_seed(seed, length), 0, length);
}

int head_verify(const char *head, apr_uint64_t seed, apr_size_t length)
{
    apr_uint64_t mixed = head_seed(seed, length);
    apr_size_t i;

    for (i = 0; i < length; i++) {
        if ((unsigned char)head[i] != body_byte(mixed, i)) {
            return 0;
        }
    }
    return length >= HEAD_LEN;
}

apr_status_t world_put_pieces(world_t *w, mw_mem_t *mem, cachemw_key_t key,
                              apr_uint64_t seed, apr_uint64_t length,
                              apr_time_t expires, apr_size_t piece,
                              int announced)
{
    char head[HEAD_LEN];
    char *data = malloc(piece);
    apr_uint64_t at = 0;
    apr_status_t rv;
    visit_t v;
    void *set;

    visit_begin(w, &v);
    head_fill(head, seed, HEAD_LEN);
    v.entry.id = world_id(seed);
    v.entry.head = head;
    v.entry.head_len = HEAD_LEN;
    v.entry.expires = expires;
    v.entry.body_len = announced ? (apr_off_t)length : -1;
    rv = PROVIDER->set_begin(mem, &v.call, &key, &v.entry, &set);
    while (rv == APR_SUCCESS && at < length) {
        apr_size_t n = length - at < piece ? (apr_size_t)(length - at) : piece;

        body_fill(data, seed, at, n);
        rv = PROVIDER->set_write(mem, &v.call, set, data, n);
        at += n;
        if (rv != APR_SUCCESS) {
            PROVIDER->set_abort(mem, set);
        }
    }
    if (rv == APR_SUCCESS) {
        rv = PROVIDER->set_commit(mem, &v.call, set);
    }
    free(data);
    visit_end(&v);
    return rv;
}

apr_status_t world_put(world_t *w, const char *key, apr_uint64_t seed,
                       apr_uint64_t length)
{
    return world_put_pieces(w, w->mem, world_key(key), seed, length,
                            w->now + 3600 * SECOND, 16384, 1);
}

apr_status_t world_get_from(world_t *w, mw_mem_t *mem, cachemw_key_t key,
                            apr_uint64_t *seed)
{
    cachemw_id_t id;
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    v.entry.body = apr_brigade_create(v.call.pool, v.call.bucket_alloc);
    rv = PROVIDER->get(mem, &v.call, &key, &v.entry);
    if (rv == APR_SUCCESS) {
        apr_uint64_t n;

        memcpy(&n, &v.entry.id, sizeof(n));
        id = world_id(n);
        if (memcmp(&id, &v.entry.id, sizeof(id))
            || !head_verify(v.entry.head, n, v.entry.head_len)
            || body_verify(v.entry.body, n) != (apr_uint64_t)v.entry.body_len) {
            rv = APR_EGENERAL;
        }
        if (seed) {
            *seed = n;
        }
    }
    visit_end(&v);
    return rv;
}

apr_status_t world_get(world_t *w, const char *key, apr_uint64_t *seed)
{
    return world_get_from(w, w->mem, world_key(key), seed);
}

apr_status_t world_remove(world_t *w, const char *key, const cachemw_id_t *id)
{
    cachemw_key_t k = world_key(key);
    apr_status_t rv;
    visit_t v;

    visit_begin(w, &v);
    rv = PROVIDER->remove(w->mem, &v.call, &k, id);
    visit_end(&v);
    return rv;
}

void world_clear(world_t *w)
{
    visit_t v;

    visit_begin(w, &v);
    assert_int_equal(PROVIDER->clear(w->mem, &v.call), 0);
    visit_end(&v);
}

void world_sweep(world_t *w)
{
    int more = 1;
    visit_t v;

    visit_begin(w, &v);
    while (more) {
        assert_int_equal(PROVIDER->sweep(w->mem, &v.call, &more), 0);
    }
    visit_end(&v);
}

cachemw_stats_t world_stats(world_t *w)
{
    cachemw_stats_t stats = { .size = sizeof(stats),
                              .entries = -1,
                              .expired = -1,
                              .bytes = -1,
                              .bytes_max = -1,
                              .entries_max = -1 };
    visit_t v;

    visit_begin(w, &v);
    assert_int_equal(PROVIDER->stats(w->mem, &v.call, &stats), 0);
    visit_end(&v);
    return stats;
}

apr_uint64_t world_units(const world_t *w, int queue)
{
    mw_mem_tally_t sum;

    mw_shard_sum(w->mem, &sum);
    return sum.units[queue];
}

void world_assert_empty(world_t *w)
{
    const mw_mem_t *mem = w->mem;
    cachemw_stats_t stats = world_stats(w);
    apr_uint32_t i;

    assert_int_equal(stats.entries, 0);
    assert_int_equal(stats.bytes, 0);
    assert_int_equal(world_units(w, MW_MEM_SMALL), 0);
    assert_int_equal(world_units(w, MW_MEM_MAIN), 0);
    assert_int_equal(mw_blocks_free(mem), mw_blocks_total(mem));
    assert_int_equal(mem->spilled, 0);
    for (i = 0; i < mem->geometry.shards; i++) {
        assert_int_equal(mem->tallies[i].pinned, 0);
        assert_int_equal(mem->tallies[i].leaving, 0);
    }
    for (i = 0; i < mem->geometry.sets; i++) {
        assert_int_equal(mem->sets[i].owner, 0);
    }
    for (i = 0; i < mem->geometry.pins; i++) {
        assert_int_equal(mem->pins[i].owner, 0);
    }
}
