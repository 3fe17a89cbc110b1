/* SPDX-License-Identifier: Apache-2.0 */

/* Thousands of random calls, each answer compared with that of a plain map. */

#include "memory_hammer.h"

#define KEYS 200

/** What the store should know of a key. */
typedef struct known_t {
    int is_there;
    apr_uint64_t seed;
    apr_uint64_t length;
    apr_size_t head_len;
    apr_time_t expires;
} known_t;

typedef struct model_t {
    world_t *w;
    known_t known[KEYS];
    apr_uint64_t random;
    apr_uint64_t seed;
    int may_forget; /* entries may be evicted, and sets not fit */
    int forgotten;
    cachemw_key_t key;
    known_t *the;
} model_t;

/** Choose a key; its length and bytes vary with its number. */
static void model_choose(model_t *m)
{
    static char name[600];
    int i = (int)(hammer_random(&m->random) % KEYS);

    body_fill(name, (apr_uint64_t)i + 1000, 0, sizeof(name));
    m->key.data = name;
    m->key.len = (apr_size_t)i * 3;
    m->the = &m->known[i];
    if (m->the->expires <= m->w->now) {
        m->the->is_there = 0;
    }
}

/** The entry must be what the model knows, or be forgotten if it may be. */
static void model_get(model_t *m)
{
    visit_t v;
    apr_status_t rv;

    visit_begin(m->w, &v);
    v.entry.body = apr_brigade_create(v.call.pool, v.call.bucket_alloc);
    rv = PROVIDER->get(m->w->mem, &v.call, &m->key, &v.entry);
    if (rv == APR_NOTFOUND && m->the->is_there && m->may_forget) {
        m->the->is_there = 0;
        m->forgotten++;
    }
    assert_int_equal(rv, m->the->is_there ? APR_SUCCESS : APR_NOTFOUND);
    if (m->the->is_there) {
        cachemw_id_t id = world_id(m->the->seed);

        assert_memory_equal(&v.entry.id, &id, sizeof(id));
        assert_int_equal(v.entry.expires, m->the->expires);
        assert_int_equal(v.entry.head_len, m->the->head_len);
        assert_true(head_verify(v.entry.head, m->the->seed, v.entry.head_len));
        assert_int_equal(v.entry.body_len, m->the->length);
        assert_int_equal(body_verify(v.entry.body, m->the->seed),
                         m->the->length);
    }
    visit_end(&v);
}

static void model_put(model_t *m)
{
    apr_uint64_t r = hammer_random(&m->random);
    known_t new = { 1, ++m->seed, hammer_length(r), HEAD_LEN, 0 };
    apr_status_t rv;

    new.expires = m->w->now + (apr_time_t)(1 + r % 100) * SECOND;
    rv = world_put_pieces(m->w, m->w->mem, m->key, new.seed, new.length,
                          new.expires, 1 + (r >> 9) % 9000, (int)(r >> 7) & 1);
    if (rv == APR_ENOSPC && m->may_forget) {
        return;
    }
    assert_int_equal(rv, APR_SUCCESS);
    *m->the = new;
}

static void model_remove(model_t *m, int by_id)
{
    apr_uint64_t r = hammer_random(&m->random);
    cachemw_id_t id = world_id(m->the->seed + r % 2);
    apr_status_t rv;
    visit_t v;

    visit_begin(m->w, &v);
    rv = PROVIDER->remove(m->w->mem, &v.call, &m->key, by_id ? &id : NULL);
    visit_end(&v);
    if (by_id && r % 2 && m->the->is_there) {
        assert_true(rv == APR_NOTFOUND || m->may_forget);
    }
    else {
        assert_int_equal(rv, APR_SUCCESS);
        m->the->is_there = 0;
    }
}

static void model_amend(model_t *m)
{
    apr_uint64_t r = hammer_random(&m->random);
    cachemw_id_t id = world_id(m->the->seed + (r % 4 == 0));
    char head[3000];
    apr_status_t rv;
    visit_t v;

    visit_begin(m->w, &v);
    v.entry.head_len = HEAD_LEN + (r >> 4) % (sizeof(head) - HEAD_LEN);
    v.entry.expires = m->w->now + (apr_time_t)(1 + r % 100) * SECOND;
    v.entry.head = head;
    head_fill(head, m->the->seed, v.entry.head_len);
    rv = PROVIDER->set_head(m->w->mem, &v.call, &m->key, &id, &v.entry);
    if (rv == APR_SUCCESS) {
        assert_true(m->the->is_there && r % 4 != 0);
        m->the->head_len = v.entry.head_len;
        m->the->expires = v.entry.expires;
    }
    else {
        assert_true(!m->the->is_there || r % 4 == 0 || m->may_forget);
    }
    visit_end(&v);
}

static apr_status_t model_see(void *baton, const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    model_t *m = baton;
    known_t *known = &m->known[key->len / 3];
    cachemw_id_t id = world_id(known->seed);

    assert_true(known->is_there);
    assert_memory_equal(&entry->id, &id, sizeof(id));
    assert_int_equal(entry->body_len, known->length);
    m->seed++;
    return APR_SUCCESS;
}

/** Everything that is told is known, and the other way round. */
static void model_compare_all(model_t *m)
{
    apr_uint64_t seed = m->seed;
    apr_uint64_t there = 0;
    visit_t v;
    int i;

    visit_begin(m->w, &v);
    assert_int_equal(PROVIDER->keys(m->w->mem, &v.call, NULL, model_see, m), 0);
    visit_end(&v);
    for (i = 0; i < KEYS; i++) {
        there += m->known[i].is_there && m->known[i].expires > m->w->now;
    }
    if (m->may_forget) {
        assert_true(m->seed - seed <= there);
    }
    else {
        assert_int_equal(m->seed - seed, there);
    }
    m->seed = seed;
}

static void model_once(model_t *m)
{
    apr_uint64_t r = hammer_random(&m->random);
    int i;

    model_choose(m);
    switch (r % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
        model_put(m);
        break;
    case 4:
        model_remove(m, (int)(r >> 8) & 1);
        break;
    case 5:
    case 6:
        model_amend(m);
        break;
    case 7:
        m->w->now += (apr_time_t)(r >> 8) % (3 * SECOND);
        break;
    case 8:
        if ((r >> 8) % 20 == 0) {
            model_compare_all(m);
        }
        if ((r >> 8) % 20 == 1) {
            world_sweep(m->w);
        }
        if ((r >> 8) % 500 == 2) {
            world_clear(m->w);
            for (i = 0; i < KEYS; i++) {
                m->known[i].is_there = 0;
            }
        }
        break;
    default:
        model_get(m);
        break;
    }
}

static void model_run(setting_t setting, int may_forget)
{
    model_t *m = calloc(1, sizeof(*m));
    int i;

    m->w = world_make(setting);
    m->random = 88172645463325252;
    m->may_forget = may_forget;
    for (i = 0; i < 30000; i++) {
        model_once(m);
    }
    for (i = 0; i < 2000; i++) {
        model_choose(m);
        model_get(m);
    }
    assert_int_equal(mw_blocks_total(m->w->mem) - mw_blocks_free(m->w->mem),
                     world_units(m->w, MW_MEM_SMALL)
                         + world_units(m->w, MW_MEM_MAIN));
    assert_true(!may_forget == !m->forgotten);
    world_clear(m->w);
    world_assert_empty(m->w);
    world_end(m->w);
    free(m);
}

static void test_a_large_store_knows_what_a_map_knows(void **state)
{
    setting_t setting = { .size = 32 << 20 };

    (void)state;
    model_run(setting, 0);
}

static void test_a_small_store_forgets_but_never_errs(void **state)
{
    setting_t setting = { .size = 1 << 20 };

    (void)state;
    model_run(setting, 1);
}

static void test_few_entries_in_one_shard_do_the_same(void **state)
{
    setting_t setting = { .size = 32 << 20, .max_entries = 50, .shards = 1 };

    (void)state;
    model_run(setting, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_large_store_knows_what_a_map_knows),
        cmocka_unit_test(test_a_small_store_forgets_but_never_errs),
        cmocka_unit_test(test_few_entries_in_one_shard_do_the_same),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
