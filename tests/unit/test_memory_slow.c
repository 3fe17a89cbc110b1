/* SPDX-License-Identifier: Apache-2.0 */

/* What slow clients can hold: the space of sets that do not end. */

#include "memory_world.h"

static const setting_t medium = { .size = 16 << 20 };

#define PIECE 65536

/** A set that is begun and not ended: its client is slow. */
typedef struct held_t {
    visit_t visit;
    void *set; /* NULL: it was refused */
    apr_uint64_t length;
} held_t;

/**
 * @param announced -1: the length is not known
 * @return 1: as many bytes as wanted are held
 */
static int hold(world_t *w, held_t *held, const char *name, apr_uint64_t length,
                apr_off_t announced)
{
    static const char piece[PIECE];
    cachemw_key_t key = world_key(name);
    apr_status_t rv;

    memset(held, 0, sizeof(*held));
    visit_begin(w, &held->visit);
    held->visit.entry.head = "";
    held->visit.entry.body_len = announced;
    held->visit.entry.expires = w->now + SECOND * 3600;
    rv = PROVIDER->set_begin(w->mem, &held->visit.call, &key,
                             &held->visit.entry, &held->set);
    while (rv == APR_SUCCESS && held->length < length) {
        rv = PROVIDER->set_write(w->mem, &held->visit.call, held->set, piece,
                                 PIECE);
        held->length += PIECE;
    }
    if (rv != APR_SUCCESS) {
        assert_int_equal(rv, APR_ENOSPC);
        if (held->set) {
            PROVIDER->set_abort(w->mem, held->set);
            held->set = NULL;
        }
    }
    return held->set != NULL;
}

static void let_go(world_t *w, held_t *held)
{
    if (held->set) {
        PROVIDER->set_abort(w->mem, held->set);
    }
    visit_end(&held->visit);
}

static void fill(world_t *w)
{
    int i;

    for (i = 0; i < 200; i++) {
        assert_int_equal(world_put(w, apr_psprintf(w->pool, "/page/%d", i),
                                   (apr_uint64_t)i, 20000),
                         APR_SUCCESS);
    }
}

static int pages_left(world_t *w)
{
    int found = 0;
    int i;

    for (i = 0; i < 200; i++) {
        found += !world_get(w, apr_psprintf(w->pool, "/page/%d", i), NULL);
    }
    return found;
}

static void test_large_sets_in_progress_leave_the_entries(void **state)
{
    world_t *w = world_make(medium);
    apr_uint64_t bytes = 0;
    held_t held[20];
    int i;

    (void)state;
    fill(w);
    for (i = 0; i < 20; i++) {
        if (hold(w, &held[i], apr_psprintf(w->pool, "/large/%d", i), 3 << 20,
                 -1)) {
            bytes += held[i].length;
        }
    }
    assert_true(bytes >= 3 << 20 && bytes <= (w->fake.size / 16) * 5);
    assert_int_equal(pages_left(w), 200);
    assert_int_equal(w->fake.counts[CACHEMW_COUNT_EVICTED], 0);
    /* What is small is stored all the same. */
    for (i = 0; i < 300; i++) {
        const char *key = apr_psprintf(w->pool, "/after/%d", i);

        assert_int_equal(world_put(w, key, 1, 20000), APR_SUCCESS);
        assert_int_equal(world_get(w, key, NULL), APR_SUCCESS);
    }
    for (i = 0; i < 20; i++) {
        let_go(w, &held[i]);
    }
    assert_int_equal(world_put(w, "/large", 1, 4 << 20), APR_SUCCESS);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

static void test_small_sets_in_progress_leave_a_half(void **state)
{
    enum { SETS = 100 };
    world_t *w = world_make(medium);
    held_t *held = apr_pcalloc(w->pool, SETS * sizeof(*held));
    int refused = 0;
    int i;

    (void)state;
    fill(w);
    for (i = 0; i < SETS; i++) {
        refused += !hold(w, &held[i], apr_psprintf(w->pool, "/s/%d", i),
                         2 * PIECE, -1);
    }
    assert_true(refused > 0 && refused < SETS / 2);
    assert_int_equal(pages_left(w), 200);
    assert_true(mw_blocks_free(w->mem) * w->mem->unit_size >= w->fake.size / 5);
    for (i = 0; i < SETS; i++) {
        let_go(w, &held[i]);
    }
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

/** What is taken in advance does not keep others from being stored. */
static void test_slow_sets_do_not_take_all_in_advance(void **state)
{
    enum { SETS = 24 };
    setting_t setting = { .size = 64 << 20 };
    world_t *w = world_make(setting);
    held_t *held = apr_pcalloc(w->pool, SETS * sizeof(*held));
    int i;

    (void)state;
    for (i = 0; i < SETS; i++) {
        assert_true(hold(w, &held[i], apr_psprintf(w->pool, "/slow/%d", i),
                         PIECE, 2 << 20));
    }
    assert_int_equal(world_put(w, "/large", 1, 1 << 19), APR_SUCCESS);
    assert_int_equal(world_get(w, "/large", NULL), APR_SUCCESS);
    for (i = 0; i < SETS; i++) {
        let_go(w, &held[i]);
    }
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

/** The largest body can be stored in the smallest segment, too. */
static void test_the_largest_body_fits_alone(void **state)
{
    apr_int64_t size;

    (void)state;
    for (size = 1 << 20; size <= 64 << 20; size *= 4) {
        setting_t setting = { .size = size };
        world_t *w = world_make(setting);

        assert_int_equal(world_put(w, "/a", 1, (apr_uint64_t)size / 4), 0);
        assert_int_equal(world_put(w, "/a", 2, (apr_uint64_t)size / 4), 0);
        assert_int_equal(world_put(w, "/b", 3, (apr_uint64_t)size / 4), 0);
        assert_int_equal(world_get(w, "/b", NULL), APR_SUCCESS);
        world_end(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_sets_in_progress_leave_the_entries),
        cmocka_unit_test(test_small_sets_in_progress_leave_a_half),
        cmocka_unit_test(test_slow_sets_do_not_take_all_in_advance),
        cmocka_unit_test(test_the_largest_body_fits_alone),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
