/* SPDX-License-Identifier: Apache-2.0 */

#include "memory_hammer.h"

apr_uint64_t hammer_random(apr_uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * APR_UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

apr_uint64_t hammer_length(apr_uint64_t r)
{
    static const apr_uint64_t limit[] = { 10,   300,   1000,  3000,
                                          3000, 10000, 60000, 300000 };

    return (r >> 8) % limit[r & 7];
}

/** After one wait in vain the others do not wait, but they do not race. */
static void hammer_late(hammer_t *h)
{
    MW_MEM_ADD(&h->late, 1);
    apr_sleep(100);
}

static void hammer_put(world_t *w, hammer_t *h, cachemw_key_t key,
                       apr_uint64_t r)
{
    apr_uint64_t seed = MW_MEM_ADD(&h->seed, 1);
    apr_status_t rv =
        world_put_pieces(w, w->mem, key, seed, hammer_length(r),
                         w->now + (apr_time_t)(1 + r % 100) * SECOND,
                         1 + (r >> 5) % 20000, (int)(r >> 4) & 1);

    if (rv == APR_SUCCESS) {
        MW_MEM_ADD(&h->stored, 1);
    }
    else if (rv == APR_TIMEUP) {
        hammer_late(h);
    }
    else if (rv != APR_ENOSPC) {
        MW_MEM_ADD(&h->wrong, 1);
    }
}

static void hammer_amend(world_t *w, cachemw_key_t key, apr_uint64_t r)
{
    char head[2000];
    visit_t v;

    visit_begin(w, &v);
    if (PROVIDER->get(w->mem, &v.call, &key, &v.entry) == APR_SUCCESS) {
        apr_uint64_t seed;

        memcpy(&seed, &v.entry.id, sizeof(seed));
        v.entry.head_len = HEAD_LEN + r % (sizeof(head) - HEAD_LEN);
        head_fill(head, seed, v.entry.head_len);
        v.entry.head = head;
        PROVIDER->set_head(w->mem, &v.call, &key, &v.entry.id, &v.entry);
    }
    visit_end(&v);
}

static void hammer_begin_and_abort(world_t *w, cachemw_key_t key,
                                   apr_uint64_t r)
{
    char data[5000] = "";
    visit_t v;
    void *set;

    visit_begin(w, &v);
    v.entry.head = data;
    v.entry.head_len = r % sizeof(data);
    v.entry.body_len = -1;
    if (PROVIDER->set_begin(w->mem, &v.call, &key, &v.entry, &set) == 0) {
        PROVIDER->set_write(w->mem, &v.call, set, data, sizeof(data));
        PROVIDER->set_abort(w->mem, set);
    }
    visit_end(&v);
}

static void hammer_house(world_t *w, apr_uint64_t r)
{
    int more = 1;
    visit_t v;

    visit_begin(w, &v);
    if (r % 50 == 0) {
        PROVIDER->clear(w->mem, &v.call);
    }
    else {
        v.call.deadline = r % 4;
        PROVIDER->sweep(w->mem, &v.call, &more);
    }
    visit_end(&v);
}

void hammer_once(world_t *w, hammer_t *h, apr_uint64_t *random)
{
    apr_uint64_t r = hammer_random(random);
    char name[32];
    cachemw_key_t key = { name, 0 };
    apr_status_t rv;

    key.len = apr_snprintf(name, sizeof(name), "/hammer/%d",
                           (int)((r >> 24) % HAMMER_KEYS));
    switch (r % 32) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        hammer_put(w, h, key, hammer_random(random));
        break;
    case 8:
        world_remove(w, name, NULL);
        break;
    case 9:
    case 10:
        hammer_amend(w, key, hammer_random(random));
        break;
    case 11:
        hammer_begin_and_abort(w, key, hammer_random(random));
        break;
    case 12:
        hammer_house(w, hammer_random(random));
        break;
    default:
        rv = world_get_from(w, w->mem, key, NULL);
        if (rv == APR_TIMEUP) {
            hammer_late(h);
            break;
        }
        MW_MEM_ADD(rv == APR_SUCCESS    ? &h->hits
                   : rv == APR_NOTFOUND ? &h->misses
                                        : &h->wrong,
                   1);
        break;
    }
}

void hammer_assert(const hammer_t *h)
{
    assert_int_equal(h->wrong, 0);
    assert_true(h->late * HAMMER_LATE <= h->hits + h->misses);
}
