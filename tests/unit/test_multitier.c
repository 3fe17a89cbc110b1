/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"
#include "providers/multitier/tiers.h"
#include "core/store_private.h"
#include "store_fixture.h"

#define SECONDS(n) apr_time_from_sec(n)
#define PIECE ((apr_off_t)CACHEMW_PIECE_MAX)

/* The stores of a test: memory wherever "fake" is not said. */
typedef struct tiers_t {
    fixture_t *f;
    mw_store_t *all[8];
    int n;
    mw_store_t *near, *far, *store;
    apr_pool_t *pchild; /* goes before the segments */
} tiers_t;

static tiers_t tiers;

static mw_store_t *tiers_find(void *baton, const char *name)
{
    int i;

    (void)baton;
    for (i = 0; i < tiers.n; i++) {
        if (!strcmp(mw_store_name(tiers.all[i]), name)) {
            return tiers.all[i];
        }
    }
    return NULL;
}

static int test_setup(void **state)
{
    int rv = fixture_setup(state);

    memset(&tiers, 0, sizeof(tiers));
    tiers.f = *state;
    tiers.f->host.find = tiers_find;
    apr_pool_create(&tiers.pchild, NULL);
    return rv;
}

static int test_teardown(void **state)
{
    apr_pool_destroy(tiers.pchild);
    return fixture_teardown(state);
}

static mw_store_t *store_start(const char *name,
                               const cachemw_provider_t *table,
                               const char *const *options)
{
    tiers.f->name = name;
    tiers.f->provider_name = name;
    if (fixture_open(tiers.f, table, options) != APR_SUCCESS) {
        fail_msg("open: %s", tiers.f->error);
    }
    assert_int_equal(mw_store_post_config(tiers.f->store, tiers.f->pool, 0, 0),
                     APR_SUCCESS);
    mw_store_child_init(tiers.f->store, tiers.pchild);
    return tiers.f->store;
}

static mw_store_t *tier_start(const char *name, const cachemw_provider_t *table,
                              const char *const *options)
{
    tiers.all[tiers.n] = store_start(name, table, options);
    return tiers.all[tiers.n++];
}

static void multi_start(const char *const *options)
{
    tiers.store = store_start("multi", &mw_multitier_provider, options);
}

/* What passes while a body is on its way passes only here. */
static apr_int64_t clock_now;

static apr_int64_t clock_deadline_in(const cachemw_services_t *services,
                                     const cachemw_call_t *call,
                                     apr_interval_time_t microseconds)
{
    (void)services, (void)call;
    return clock_now + microseconds;
}

static void clock_inject(void)
{
    static cachemw_services_t services;
    mw_tiers_t *made = tiers.store->self;

    services = *made->services;
    services.deadline_in = clock_deadline_in;
    made->services = &services;
    clock_now = SECONDS(1);
}

static void start(const cachemw_provider_t *near, const cachemw_provider_t *far)
{
    static const char *const size[] = { "size=8M", NULL };

    tiers.near =
        tier_start("near", near, near == &mw_memory_provider ? size : NULL);
    tiers.far =
        tier_start("far", far, far == &mw_memory_provider ? size : NULL);
    multi_start(OPTIONS("l1=near", "l2=far"));
}

static void start_memory(void)
{
    start(&mw_memory_provider, &mw_memory_provider);
}

/* A body of which each byte tells where it is. */
static char *body_make(apr_off_t length)
{
    char *body = apr_palloc(tiers.f->pool, (apr_size_t)length + 1);
    apr_off_t i;

    for (i = 0; i < length; i++) {
        body[i] = (char)('a' + (i / 7 + i) % 23);
    }
    return body;
}

static apr_status_t put(mw_store_t *store, const char *text, char id,
                        apr_off_t length, apr_time_t life)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = fixture_entry(id, "head", length);
    apr_status_t rv;

    entry.expires = FIXTURE_NOW + life;
    entry.body = apr_brigade_create(tiers.f->pool, tiers.f->alloc);
    apr_brigade_write(entry.body, NULL, NULL, body_make(length),
                      (apr_size_t)length);
    rv = mw_store_set(store, &call, &key, &entry);
    apr_brigade_destroy(entry.body);
    return rv;
}

/* The id of what a store has, 0: nothing. */
static char has(mw_store_t *store, const char *text, cachemw_entry_t *entry)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t own;

    entry = entry ? entry : &own;
    memset(entry, 0, sizeof(*entry));
    return mw_store_get(store, &call, &key, entry) == APR_SUCCESS
               ? (char)entry->id.bytes[0]
               : 0;
}

static void check_body(mw_store_t *store, const char *text, apr_off_t length)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry;
    apr_size_t n;
    char *body;

    memset(&entry, 0, sizeof(entry));
    entry.body = apr_brigade_create(tiers.f->pool, tiers.f->alloc);
    assert_int_equal(mw_store_get(store, &call, &key, &entry), APR_SUCCESS);
    assert_int_equal(apr_brigade_pflatten(entry.body, &body, &n, tiers.f->pool),
                     APR_SUCCESS);
    assert_int_equal(n, length);
    assert_memory_equal(body, body_make(length), n);
    apr_brigade_destroy(entry.body);
}

/* A request for a page: its answer is sent when it ends. */
typedef struct visit_t {
    apr_pool_t *pool;
    cachemw_call_t call;
    cachemw_key_t key;
    cachemw_entry_t entry;
    apr_off_t length; /* got so far */
} visit_t;

static apr_status_t visit_begin(visit_t *v, const char *text, int body)
{
    apr_status_t rv;

    memset(v, 0, sizeof(*v));
    apr_pool_create(&v->pool, tiers.f->pool);
    v->call = fixture_call(tiers.f);
    v->call.pool = v->pool;
    v->key = fixture_key(text);
    if (body) {
        v->entry.body = apr_brigade_create(v->pool, tiers.f->alloc);
    }
    rv = mw_store_get(tiers.store, &v->call, &v->key, &v->entry);
    if (rv == APR_SUCCESS && body) {
        apr_brigade_length(v->entry.body, 1, &v->length);
        apr_brigade_cleanup(v->entry.body);
    }
    return rv;
}

static apr_status_t visit_read(visit_t *v)
{
    cachemw_call_t call = fixture_call(tiers.f);
    apr_bucket_brigade *piece;
    apr_off_t length = 0;
    apr_status_t rv;

    apr_pool_create(&call.pool, NULL);
    piece = apr_brigade_create(call.pool, tiers.f->alloc);
    rv = mw_store_read(tiers.store, &call, &v->key, &v->entry.id, v->length,
                       CACHEMW_PIECE_MAX, piece);
    apr_brigade_length(piece, 1, &length);
    v->length += length;
    apr_pool_destroy(call.pool);
    return rv;
}

static void visit_end(visit_t *v)
{
    apr_pool_destroy(v->pool);
}

static void visit(const char *text)
{
    visit_t v;

    assert_int_equal(visit_begin(&v, text, 1), APR_SUCCESS);
    while (v.length < v.entry.body_len) {
        assert_int_equal(visit_read(&v), APR_SUCCESS);
    }
    visit_end(&v);
}

static apr_int64_t figure(const char *name)
{
    return fixture_figure(tiers.f, tiers.store, name);
}

/* --- lives ---------------------------------------------------------------- */

static void test_life_is_a_part_of_what_is_left_behind(void **state)
{
    static const struct {
        double ratio;
        apr_time_t behind, life; /* seconds */
    } rows[] = {
        { 0.5, 1000, 500 }, { 0.5, 120, 60 },
        { 0.5, 121, 60 },   { 0.25, 1000, 250 },
        { 0.25, 100, 60 },  { 0.5, 61, 60 },
        { 0.5, 60, 60 },    { 0.5, 30, 30 },
        { 0, 1000, 60 },    { 0, 59, 59 },
        { 1, 1000, 1000 },  { 1, 30, 30 },
        { 0.9, 70, 63 },    { 0.5, 0, 0 },
        { 0.5, -5, -5 },    { 1, 253402300799, 253402300799 },
    };
    apr_size_t i;

    (void)state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        apr_time_t behind = FIXTURE_NOW + SECONDS(rows[i].behind);
        apr_time_t expires =
            mw_tier_expires(rows[i].ratio, FIXTURE_NOW, behind);

        assert_true(expires <= behind);
        assert_in_range(expires - FIXTURE_NOW - SECONDS(rows[i].life) + 1000000,
                        rows[i].behind == 121 ? 1500000 : 1000000,
                        rows[i].behind == 121 ? 1500000 : 1000000);
    }
}

/* The last moments of a far entry: each tick, whatever the rounding. */
static void test_life_never_ends_after_that_behind(void **state)
{
    apr_time_t left;
    int r;

    (void)state;
    for (r = 0; r <= 100; r++) {
        for (left = 1; left < APR_INT64_C(4000000000000000000);
             left = left * 3 + 1) {
            assert_true(
                mw_tier_expires(r / 100.0, FIXTURE_NOW, FIXTURE_NOW + left)
                <= FIXTURE_NOW + left);
        }
    }
}

static void test_set_gives_each_tier_its_life(void **state)
{
    cachemw_entry_t entry;

    (void)state;
    tier_start("a", &mw_memory_provider, OPTIONS("size=8M"));
    tier_start("b", &mw_memory_provider, OPTIONS("size=8M"));
    tier_start("c", &mw_memory_provider, OPTIONS("size=8M"));
    multi_start(OPTIONS("l1=a", "l2=b", "l3=c"));
    assert_int_equal(put(tiers.store, "k", 'x', 10, SECONDS(1000)),
                     APR_SUCCESS);
    has(tiers.all[2], "k", &entry);
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(1000));
    has(tiers.all[1], "k", &entry);
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(500));
    has(tiers.all[0], "k", &entry);
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(250));
}

/* --- filling -------------------------------------------------------------- */

static void test_far_hit_fills_the_near_tier_after_the_answer(void **state)
{
    cachemw_entry_t entry;
    visit_t v;

    (void)state;
    start_memory();
    clock_inject();
    put(tiers.far, "k", 'x', 1000, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", &entry), 'x');
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(500));
    check_body(tiers.near, "k", 1000);
    visit("k");
    assert_int_equal(figure("answered_by_l1"), 1);
    assert_int_equal(figure("answered_by_l2"), 1);
    assert_int_equal(figure("filled"), 1);
}

static void test_entry_without_body_is_filled_in(void **state)
{
    visit_t v;

    (void)state;
    start_memory();
    put(tiers.far, "k", 'x', 0, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
}

/* Else a page that everybody asks for with If-None-Match would never come
 * nearer. */
static void test_hit_on_the_head_alone_fills_in_the_whole(void **state)
{
    visit_t v;

    (void)state;
    start_memory();
    put(tiers.far, "k", 'x', 1000, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 0), APR_SUCCESS);
    visit_end(&v);
    check_body(tiers.near, "k", 1000);
}

static void test_hit_in_the_third_tier_fills_both_before(void **state)
{
    cachemw_entry_t entry;

    (void)state;
    tier_start("a", &mw_memory_provider, OPTIONS("size=8M"));
    tier_start("b", &mw_memory_provider, OPTIONS("size=8M"));
    tier_start("c", &mw_memory_provider, OPTIONS("size=8M"));
    multi_start(OPTIONS("l1=a", "l2=b", "l3=c", "l1_timeout_ratio=0.9"));
    clock_inject();
    put(tiers.all[2], "k", 'x', 1000, SECONDS(1000));
    visit("k");
    has(tiers.all[1], "k", &entry);
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(900));
    has(tiers.all[0], "k", &entry);
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(810));
    check_body(tiers.all[0], "k", 1000);
}

static void test_long_body_fills_in_while_it_is_read(void **state)
{
    visit_t v;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    put(tiers.far, "k", 'x', 5 * PIECE + 17, SECONDS(1000));
    fake.piece = CACHEMW_PIECE_MAX;
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(v.length, PIECE);
    while (v.length < v.entry.body_len) {
        assert_int_equal(has(tiers.near, "k", NULL), 0);
        assert_int_equal(visit_read(&v), APR_SUCCESS);
    }
    visit_end(&v);
    check_body(tiers.near, "k", 5 * PIECE + 17);
    assert_int_equal(fake.calls[FAKE_GET], 1);
    assert_int_equal(fake.calls[FAKE_READ], 5);
}

static void test_two_readers_of_a_long_body_fill_it_in_once(void **state)
{
    visit_t a, b;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    put(tiers.far, "k", 'x', 6 * PIECE, SECONDS(1000));
    fake.piece = CACHEMW_PIECE_MAX;
    assert_int_equal(visit_begin(&a, "k", 1), APR_SUCCESS);
    assert_int_equal(visit_begin(&b, "k", 1), APR_SUCCESS);
    assert_int_equal(visit_read(&b), APR_SUCCESS);
    assert_int_equal(visit_read(&a), APR_SUCCESS);
    while (a.length < 6 * PIECE) {
        assert_int_equal(visit_read(&a), APR_SUCCESS);
    }
    assert_int_equal(visit_read(&b), APR_SUCCESS);
    visit_end(&b); /* gives up */
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    visit_end(&a);
    check_body(tiers.near, "k", 6 * PIECE);
    assert_int_equal(figure("filled"), 1);
}

static void test_reader_who_gives_up_leaves_nothing(void **state)
{
    cachemw_stats_t stats = { .size = sizeof(stats) };
    cachemw_call_t call;
    visit_t v;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    call = fixture_call(tiers.f);
    put(tiers.far, "k", 'x', 6 * PIECE, SECONDS(1000));
    fake.piece = CACHEMW_PIECE_MAX;
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(visit_read(&v), APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    assert_int_equal(mw_store_stats(tiers.near, &call, &stats), APR_SUCCESS);
    assert_int_equal(stats.entries, 0);
    visit("k");
    check_body(tiers.near, "k", 6 * PIECE);
}

static void test_body_that_a_tier_does_not_take_is_not_tried(void **state)
{
    (void)state;
    tier_start("near", &mw_memory_provider,
               OPTIONS("size=8M", "max_object_size=1000"));
    tiers.near = tiers.all[0];
    tiers.far = tier_start("far", &mw_memory_provider, OPTIONS("size=8M"));
    multi_start(OPTIONS("l1=near", "l2=far"));
    put(tiers.store, "k", 'x', 1001, SECONDS(1000));
    visit("k");
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    assert_int_equal(
        mw_state_sum(mw_store_state(tiers.near), MW_COUNT_NO_SPACE), 0);
    assert_int_equal(mw_state_sum(mw_store_state(tiers.near), MW_COUNT_REMOVED),
                     0);
    put(tiers.store, "l", 'x', 1000, SECONDS(1000));
    assert_int_equal(has(tiers.near, "l", NULL), 'x');
}

/* Whoever asks for the head alone would have all of the body read behind it
 * each time. */
static void test_entry_that_no_tier_takes_is_not_read_again(void **state)
{
    visit_t v;

    (void)state;
    tiers.near = tier_start("near", &mw_memory_provider,
                            OPTIONS("size=8M", "min_object_size=10000"));
    tiers.far = tier_start("far", &fake_full, NONE);
    multi_start(OPTIONS("l1=near", "l2=far"));
    put(tiers.far, "k", 'x', 9999, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 0), APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(fake.calls[FAKE_GET], 1);
    put(tiers.far, "k", 'x', 10000, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 0), APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(fake.calls[FAKE_GET], 3);
    check_body(tiers.near, "k", 10000);
}

static void test_entry_that_came_meanwhile_is_not_read_again(void **state)
{
    visit_t a, b;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&a, "k", 0), APR_SUCCESS);
    assert_int_equal(visit_begin(&b, "k", 1), APR_SUCCESS);
    visit_end(&b);
    visit_end(&a);
    assert_int_equal(fake.calls[FAKE_GET], 2);
    assert_int_equal(figure("filled"), 1);
}

/* A memory far away gives all of it at once, which is then twice in memory. */
static void test_long_body_that_comes_at_once_is_not_filled_in(void **state)
{
    (void)state;
    start_memory();
    put(tiers.far, "k", 'x', 3 * PIECE, SECONDS(1000));
    visit("k");
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    assert_int_equal(figure("filled"), 0);
    put(tiers.far, "k", 'x', 2 * PIECE, SECONDS(1000));
    visit("k");
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
}

static apr_off_t taken;

static apr_status_t taker_set_write(void *store, const cachemw_call_t *call,
                                    void *set, const char *data,
                                    apr_size_t length)
{
    (void)store, (void)call, (void)set, (void)data;
    taken += (apr_off_t)length;
    return APR_SUCCESS;
}

/* Nothing of it waits for more than the next piece. */
static void test_pieces_of_a_long_body_go_on_at_once(void **state)
{
    cachemw_provider_t taker = mw_memory_provider;
    visit_t v;

    (void)state;
    taker.set_write = taker_set_write;
    tiers.near = tier_start("near", &taker, OPTIONS("size=8M"));
    tiers.far = tier_start("far", &fake_full, NONE);
    multi_start(OPTIONS("l1=near", "l2=far"));
    put(tiers.far, "k", 'x', 12 * PIECE, SECONDS(1000));
    fake.piece = CACHEMW_PIECE_MAX;
    taken = 0;
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    while (v.length < v.entry.body_len) {
        assert_int_equal(visit_read(&v), APR_SUCCESS);
        assert_int_equal(taken, v.length);
    }
    visit_end(&v);
}

/* A body that takes its time: an entry's life is what is left then, and one
 * that is over is not put there. */
static void test_life_of_what_is_filled_in_begins_late(void **state)
{
    cachemw_entry_t entry;
    visit_t v;

    (void)state;
    start_memory();
    clock_inject();
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    clock_now += SECONDS(700);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", &entry), 'x');
    assert_true(entry.expires == FIXTURE_NOW + SECONDS(850));
    put(tiers.far, "l", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "l", 1), APR_SUCCESS);
    clock_now += SECONDS(1000);
    visit_end(&v);
    assert_int_equal(figure("filled"), 1);
}

static void test_life_may_end_while_a_long_body_comes(void **state)
{
    visit_t v;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    clock_inject();
    put(tiers.far, "k", 'x', 4 * PIECE, SECONDS(100));
    fake.piece = CACHEMW_PIECE_MAX;
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(visit_read(&v), APR_SUCCESS);
    clock_now += SECONDS(60);
    while (v.length < v.entry.body_len) {
        assert_int_equal(visit_read(&v), APR_SUCCESS);
    }
    visit_end(&v);
    assert_int_equal(figure("filled"), 0);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
}

static void test_fills_are_bounded(void **state)
{
    visit_t v[MW_FILLS_MAX + 3];
    int i;

    (void)state;
    start_memory();
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    for (i = 0; i < MW_FILLS_MAX + 3; i++) {
        assert_int_equal(visit_begin(&v[i], "k", 1), APR_SUCCESS);
    }
    assert_int_equal(figure("fills_dropped"), 3);
    for (i = 0; i < MW_FILLS_MAX + 3; i++) {
        visit_end(&v[i]);
    }
    assert_int_equal(figure("filled"), 1);
    put(tiers.far, "l", 'x', 100, SECONDS(1000));
    visit("l");
    assert_int_equal(figure("fills_dropped"), 3);
    assert_int_equal(figure("filled"), 2);
}

static int believe_nothing(const void *head, apr_size_t length,
                           apr_pool_t *pool)
{
    (void)head, (void)length, (void)pool;
    return 0;
}

/* A hit there is not looked at again: so what another tier gave has to be. */
static void test_head_that_is_not_sound_stays_out_of_memory(void **state)
{
    cachemw_entry_t entry;
    visit_t v;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    tiers.f->host.head_is_sound = believe_nothing;
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_false(mw_store_believes(tiers.store, &v.entry));
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    tiers.f->host.head_is_sound = NULL;
    visit("k");
    assert_int_equal(has(tiers.store, "k", &entry), 'x');
    assert_true(mw_store_believes(tiers.store, &entry));
    assert_true(mw_store_wants_checksum(tiers.store));
}

/* --- changes during a fill ------------------------------------------------ */

static void test_what_was_removed_meanwhile_is_not_filled_in(void **state)
{
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");
    visit_t v;

    (void)state;
    start_memory();
    call = fixture_call(tiers.f);
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(mw_store_remove(tiers.store, &call, &key, NULL),
                     APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 0);

    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(mw_store_clear(tiers.store, &call), APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
}

static void test_what_was_replaced_meanwhile_is_not_filled_in(void **state)
{
    visit_t v;

    (void)state;
    start_memory();
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    put(tiers.store, "k", 'y', 200, SECONDS(1000));
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 'y');
    assert_int_equal(has(tiers.far, "k", NULL), 'y');
}

static void test_head_that_was_amended_meanwhile_is_not_filled_in(void **state)
{
    cachemw_entry_t entry = fixture_entry('x', "another head", 0);
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");
    visit_t v;

    (void)state;
    start_memory();
    call = fixture_call(tiers.f);
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    assert_int_equal(
        mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry),
        APR_SUCCESS);
    visit_end(&v);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    visit("k");
    has(tiers.near, "k", &entry);
    assert_memory_equal(entry.head, "another head", 12);
}

static void (*change)(void);
static fake_slot_e change_at;

static void change_during(fake_slot_e slot)
{
    if (slot == change_at && change) {
        void (*now)(void) = change;

        change = NULL;
        now();
    }
}

static void change_remove(void)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key("k");

    mw_store_remove(tiers.store, &call, &key, NULL);
}

static void change_replace(void)
{
    put(tiers.store, "k", 'y', 50, SECONDS(1000));
}

static visit_t change_visitor;

static void change_end(void)
{
    visit_end(&change_visitor);
}

/* Another one reads the last piece for it at that moment. */
static void test_reader_may_end_while_a_piece_is_read(void **state)
{
    visit_t other;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    put(tiers.far, "k", 'x', 2 * PIECE, SECONDS(1000));
    fake.piece = CACHEMW_PIECE_MAX;
    fake.during = change_during;
    change_at = FAKE_READ;
    change = change_end;
    assert_int_equal(visit_begin(&change_visitor, "k", 1), APR_SUCCESS);
    assert_int_equal(visit_begin(&other, "k", 1), APR_SUCCESS);
    assert_int_equal(visit_read(&other), APR_SUCCESS);
    assert_null(change);
    check_body(tiers.near, "k", 2 * PIECE);
    visit_end(&other);
    assert_int_equal(figure("filled"), 1);
}

static void test_removal_of_one_entry_leaves_others(void **state)
{
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry('y', "head", 0);

    (void)state;
    start_memory();
    call = fixture_call(tiers.f);
    put(tiers.near, "k", 'x', 10, SECONDS(1000));
    put(tiers.far, "k", 'y', 10, SECONDS(1000));
    mw_store_remove(tiers.store, &call, &key, &entry.id);
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
    assert_int_equal(has(tiers.far, "k", NULL), 0);
    entry = fixture_entry('z', "head", 0);
    assert_int_equal(mw_store_remove(tiers.store, &call, &key, &entry.id),
                     APR_NOTFOUND);
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
}

/* In the middle of whatever the fill does with the near tier. */
static void test_change_at_any_moment_of_a_fill_wins(void **state)
{
    static const fake_slot_e moments[] = { FAKE_EXISTS, FAKE_SET_BEGIN,
                                           FAKE_SET_WRITE, FAKE_SET_COMMIT };
    apr_size_t i;

    (void)state;
    start(&fake_full, &mw_memory_provider);
    fake.during = change_during;
    for (i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        change_at = moments[i];
        put(tiers.far, "k", 'x', 100, SECONDS(1000));
        change = change_remove;
        visit("k");
        assert_null(change);
        assert_int_equal(has(tiers.near, "k", NULL), 0);
        assert_int_equal(has(tiers.far, "k", NULL), 0);

        put(tiers.far, "k", 'x', 100, SECONDS(1000));
        change = change_replace;
        visit("k");
        assert_null(change);
        assert_int_not_equal(has(tiers.near, "k", NULL), 'x');
        assert_int_equal(has(tiers.far, "k", NULL), 'y');
        change_remove();
    }
    assert_int_equal(fake.open_sets, 0);
}

/* --- tiers elsewhere ------------------------------------------------------ */

static cachemw_provider_t with_flags(const cachemw_provider_t *table,
                                     unsigned int flags)
{
    cachemw_provider_t copy = *table;

    copy.flags = flags;
    return copy;
}

static apr_status_t empty_get(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry)
{
    (void)store, (void)call, (void)key, (void)entry;
    return APR_NOTFOUND;
}

static int empty_asked;
static apr_status_t empty_answer;

static apr_status_t empty_exists(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key)
{
    (void)store, (void)call, (void)key;
    empty_asked++;
    return empty_answer;
}

/* Fakes have one memory: this one does not see what the other has. */
static cachemw_provider_t empty_make(void)
{
    cachemw_provider_t empty = with_flags(&fake_full, CACHEMW_REMOTE);

    empty.get = empty_get;
    empty.exists = empty_exists;
    empty_asked = 0;
    empty_answer = APR_NOTFOUND;
    return empty;
}

/* Somebody waits for each piece, and its exists would have the time of a
 * look-up. */
static void test_tier_elsewhere_is_asked_after_the_answer(void **state)
{
    cachemw_provider_t empty = empty_make();
    visit_t v;
    int there;

    (void)state;
    start(&empty, &fake_full);
    fake.piece = CACHEMW_PIECE_MAX;
    for (there = 0; there < 2; there++) {
        put(tiers.far, "k", 'x', 4 * PIECE, SECONDS(1000));
        empty_asked = 0;
        empty_answer = there ? APR_SUCCESS : APR_NOTFOUND;
        fake.calls[FAKE_SET_COMMIT] = 0;
        assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
        while (v.length < v.entry.body_len) {
            assert_int_equal(visit_read(&v), APR_SUCCESS);
        }
        assert_int_equal(empty_asked, 0);
        assert_int_equal(fake.open_sets, 1);
        visit_end(&v);
        assert_int_equal(empty_asked, 1);
        assert_int_equal(fake.calls[FAKE_SET_COMMIT], !there);
        assert_int_equal(fake.open_sets, 0);
    }
}

/* It may have been done all the same. */
static void test_commit_elsewhere_that_failed_is_taken_back(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);

    (void)state;
    start(&remote, &mw_memory_provider);
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    fake.during = change_during;
    fake.fail[FAKE_SET_COMMIT] = APR_TIMEUP;
    change_at = FAKE_SET_COMMIT;
    change = change_remove;
    visit("k");
    assert_null(change);
    assert_int_equal(fake.calls[FAKE_REMOVE], 2);
    assert_int_equal(figure("fills_overtaken"), 1);
    assert_int_equal(figure("filled"), 0);
}

/* The other way round: what a fill does in the middle of a change. */
static void change_visit(void)
{
    visit_t v;

    if (visit_begin(&v, "k", 1) == APR_SUCCESS) {
        visit_end(&v);
    }
}

static void test_fill_at_any_moment_of_a_removal_loses(void **state)
{
    (void)state;
    start(&mw_memory_provider, &fake_full);
    fake.during = change_during;
    change_at = FAKE_REMOVE; /* before it is gone in the far tier */
    put(tiers.far, "k", 'x', 100, SECONDS(1000));
    change = change_visit;
    change_remove();
    assert_null(change);
    assert_int_equal(has(tiers.near, "k", NULL), 0);
    assert_int_equal(has(tiers.store, "k", NULL), 0);
}

/* --- tiers that fail ------------------------------------------------------ */

static void fake_fails(apr_status_t rv)
{
    int slot;

    for (slot = FAKE_GET; slot < FAKE_SLOTS; slot++) {
        fake.fail[slot] = rv;
    }
}

static void check_works_without(mw_store_t *good)
{
    cachemw_entry_t entry = fixture_entry('x', "another head", 0);
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key("k");

    assert_int_equal(put(tiers.store, "k", 'x', 3 * PIECE, SECONDS(1000)),
                     APR_SUCCESS);
    assert_int_equal(has(good, "k", NULL), 'x');
    visit("k");
    check_body(tiers.store, "k", 3 * PIECE);
    assert_int_equal(
        mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry),
        APR_SUCCESS);
    has(tiers.store, "k", &entry);
    assert_int_equal(entry.head_len, 12);
    assert_int_equal(mw_store_exists(tiers.store, &call, &key), APR_SUCCESS);
    assert_int_not_equal(mw_store_remove(tiers.store, &call, &key, NULL),
                         APR_SUCCESS);
    assert_int_equal(has(good, "k", NULL), 0);
}

static void test_near_tier_that_fails_stops_nobody(void **state)
{
    (void)state;
    start(&fake_full, &mw_memory_provider);
    fake_fails(EIO);
    check_works_without(tiers.far);
    assert_int_equal(fake.open_sets, 0);
}

static void test_far_tier_that_fails_stops_nobody(void **state)
{
    (void)state;
    start(&mw_memory_provider, &fake_full);
    fake_fails(EIO);
    check_works_without(tiers.near);
    assert_int_equal(fake.open_sets, 0);
}

static void test_tier_may_fail_at_any_step_of_a_set(void **state)
{
    static const fake_slot_e steps[] = { FAKE_SET_BEGIN, FAKE_SET_WRITE,
                                         FAKE_SET_COMMIT };
    apr_size_t i;
    int far;

    for (far = 0; far < 2; far++) {
        if (far) {
            test_teardown(state);
            test_setup(state);
        }
        start(far ? &mw_memory_provider : &fake_full,
              far ? &fake_full : &mw_memory_provider);
        for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
            put(tiers.store, "k", 'x', 100, SECONDS(1000));
            fake.fail[steps[i]] = EIO;
            assert_int_equal(put(tiers.store, "k", 'y', 100, SECONDS(1000)),
                             APR_SUCCESS);
            fake.fail[steps[i]] = APR_SUCCESS;
            /* what it had before is not shown one day */
            assert_int_equal(has(far ? tiers.near : tiers.far, "k", NULL), 'y');
            assert_int_equal(has(far ? tiers.far : tiers.near, "k", NULL), 0);
            assert_int_equal(fake.open_sets, 0);
        }
    }
}

static void test_all_tiers_failing_is_trouble_told_once(void **state)
{
    (void)state;
    tiers.near = tier_start("near", &fake_full, NONE);
    tiers.far = tier_start("far", &fake_full, NONE);
    multi_start(OPTIONS("l1=near", "l2=far"));
    fake_fails(EIO);
    assert_int_equal(put(tiers.store, "k", 'x', 10, SECONDS(1000)), EIO);
    assert_int_equal(has(tiers.store, "k", NULL), 0);
    assert_int_equal(fixture_sum(tiers.f, MW_COUNT_ERROR_GET), 0);
    assert_int_equal(
        mw_state_sum(mw_store_state(tiers.near), MW_COUNT_ERROR_GET), 1);
    assert_int_equal(
        mw_state_sum(mw_store_state(tiers.far), MW_COUNT_ERROR_GET), 1);
    assert_int_equal(fixture_logged(tiers.f, "cachemw[multi]"), 0);
}

static apr_status_t status_of_get(void)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = { .body = NULL };

    return mw_store_get(tiers.store, &call, &key, &entry);
}

/* A tier that is off must not keep requests from waiting for each other. */
static void test_tier_that_is_off_is_a_miss(void **state)
{
    (void)state;
    fake.fail[FAKE_CHILD_INIT] = EIO;
    tiers.near = tier_start("near", &fake_full, NONE);
    assert_false(mw_store_is_usable(tiers.near));
    tiers.far = tier_start("far", &mw_memory_provider, OPTIONS("size=8M"));
    multi_start(OPTIONS("l1=near", "l2=far"));
    assert_true(mw_store_has_missed(tiers.store, status_of_get()));
    put(tiers.store, "k", 'x', 10, SECONDS(1000));
    assert_int_equal(has(tiers.store, "k", NULL), 'x');
    assert_int_equal(fake.calls[FAKE_GET], 0);
}

/* But what is to be removed may be there: it is no miss for who removes. */
static void test_tier_that_was_not_asked_may_have_it(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");

    (void)state;
    start(&mw_memory_provider, &remote);
    call = fixture_call(tiers.f);
    assert_int_equal(status_of_get(), APR_NOTFOUND);
    assert_true(mw_store_has_missed(tiers.store, APR_NOTFOUND));
    assert_false(mw_store_has_missed(tiers.far, APR_EGENERAL));
    fake_fails(APR_EAGAIN);
    assert_int_equal(status_of_get(), APR_EGENERAL);
    assert_true(mw_store_has_missed(tiers.store, APR_EGENERAL));
    assert_int_equal(mw_store_exists(tiers.store, &call, &key), APR_EGENERAL);
    /* what a provider may call it itself is trouble */
    fake_fails(APR_EGENERAL);
    assert_int_equal(status_of_get(), EIO);
    assert_false(mw_store_has_missed(tiers.store, EIO));
}

static void test_amending_leaves_no_other_entry_in_any_tier(void **state)
{
    cachemw_entry_t entry = fixture_entry('x', "another head", 0);
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");

    (void)state;
    start_memory();
    call = fixture_call(tiers.f);
    put(tiers.store, "k", 'x', 100, SECONDS(1000));
    put(tiers.far, "k", 'y', 100, SECONDS(1000));
    assert_int_equal(
        mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry),
        APR_SUCCESS);
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
    assert_int_equal(has(tiers.far, "k", NULL), 0);

    put(tiers.store, "k", 'z', 100, SECONDS(1000));
    assert_int_equal(
        mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry),
        APR_NOTFOUND);
    assert_int_equal(has(tiers.near, "k", NULL), 'z');
    assert_int_equal(has(tiers.far, "k", NULL), 'z');
}

/* --- what tiers make of the whole ----------------------------------------- */

static void test_is_remote_when_a_tier_is(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);

    (void)state;
    start_memory();
    assert_false(mw_store_is_remote(tiers.store));
    assert_false(mw_store_wants_checksum(tiers.store));
    tier_start("elsewhere", &remote,
               OPTIONS("store_timeout=7s", "body_timeout=20s"));
    multi_start(OPTIONS("l1=near", "l2=elsewhere"));
    assert_true(mw_store_is_remote(tiers.store));
    assert_true(mw_store_wants_checksum(tiers.store));
    assert_int_equal(mw_store_settings(tiers.store)->store_timeout, SECONDS(7));
    assert_int_equal(mw_store_settings(tiers.store)->body_timeout, SECONDS(20));
    tiers.f->name = "other";
    assert_int_equal(fixture_open(tiers.f, &mw_multitier_provider,
                                  OPTIONS("l1=near", "l2=elsewhere",
                                          "store_timeout=1s", "timeout=1s")),
                     APR_EINVAL);
    assert_string_equal(tiers.f->error, "timeout: each tier has its own");
    assert_int_equal(
        fixture_open(tiers.f, &mw_multitier_provider,
                     OPTIONS("l1=near", "l2=elsewhere", "store_timeout=1s")),
        APR_SUCCESS);
    assert_int_equal(mw_store_settings(tiers.f->store)->store_timeout,
                     SECONDS(1));
    assert_int_equal(
        fixture_open(tiers.f, &mw_multitier_provider,
                     OPTIONS("l1=near", "l2=far", "store_timeout=1s")),
        APR_EINVAL);
}

static void test_breaker_of_a_tier_is_its_own(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    int i;

    (void)state;
    start(&mw_memory_provider, &remote);
    put(tiers.near, "k", 'x', 10, SECONDS(1000));
    fake_fails(ECONNREFUSED);
    for (i = 0; i < 10; i++) {
        has(tiers.store, "none", NULL);
    }
    assert_int_equal(fake.calls[FAKE_GET], MW_BREAKER_FAILURES);
    assert_false(mw_store_is_usable(tiers.far));
    assert_true(mw_store_is_usable(tiers.store));
    assert_int_equal(has(tiers.store, "k", NULL), 'x');
}

/* As with that tier alone: the reader asks again until it is back. */
static void test_body_on_its_way_waits_for_a_tier_that_is_out_of_use(
    void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    visit_t v;
    int i;

    (void)state;
    start(&mw_memory_provider, &remote);
    fake.piece = 65536;
    put(tiers.far, "k", 'x', 400000, SECONDS(1000));
    assert_int_equal(visit_begin(&v, "k", 1), APR_SUCCESS);
    fake_fails(ECONNREFUSED);
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        has(tiers.store, "none", NULL);
    }
    assert_false(mw_store_is_usable(tiers.far));
    assert_int_equal(visit_read(&v), APR_EGENERAL);
    visit_end(&v);
}

/* The time for storing is over when its commit is given up; what it had before
 * is removed all the same. */
static void test_tier_that_is_late_loses_what_it_had(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry('y', "head", 3);
    mw_set_t *set;

    (void)state;
    start(&mw_memory_provider, &remote);
    put(tiers.store, "k", 'x', 10, SECONDS(1000));
    call = fixture_call(tiers.f);
    entry.expires = FIXTURE_NOW + SECONDS(1000);
    assert_int_equal(
        mw_store_set_begin(tiers.store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    assert_int_equal(mw_store_set_write(set, "abc", 3), APR_SUCCESS);
    call.deadline = 1;
    assert_int_equal(mw_store_set_commit(set, &call), APR_SUCCESS);
    assert_int_equal(has(tiers.near, "k", NULL), 'y');
    assert_int_equal(has(tiers.far, "k", NULL), 0);
}

static void test_tier_that_amends_late_loses_what_it_had(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry('x', "another head", 10);

    (void)state;
    start(&mw_memory_provider, &remote);
    put(tiers.store, "k", 'x', 10, SECONDS(1000));
    call = fixture_call(tiers.f);
    call.deadline = 1;
    assert_int_equal(
        mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry),
        APR_SUCCESS);
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
    assert_int_equal(has(tiers.far, "k", NULL), 0);
}

static void during_take_200ms(fake_slot_e slot)
{
    (void)slot;
    apr_sleep(200000);
}

/* What tiers here take is not of the time of those elsewhere. */
static void test_time_of_tiers_here_is_their_own(void **state)
{
    cachemw_provider_t remote = with_flags(&mw_memory_provider, CACHEMW_REMOTE);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry('y', "head", 9);
    cachemw_call_t call;
    mw_set_t *set;
    int i;

    (void)state;
    tier_start("near", &fake_full, NULL);
    tier_start("far", &remote, OPTIONS("size=8M", "store_timeout=60s"));
    multi_start(OPTIONS("l1=near", "l2=far", "store_timeout=500ms"));
    call = fixture_call(tiers.f);
    entry.expires = FIXTURE_NOW + SECONDS(1000);
    fake.during = during_take_200ms;
    assert_int_equal(
        mw_store_set_begin(tiers.store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    for (i = 0; i < 3; i++) {
        assert_int_equal(mw_store_set_write(set, "abc", 3), APR_SUCCESS);
    }
    fake.during = NULL;
    assert_int_equal(mw_store_set_commit(set, &call), APR_SUCCESS);
    assert_int_equal(has(tiers.all[0], "k", NULL), 'y');
    assert_int_equal(has(tiers.all[1], "k", NULL), 'y');
}

/* One that used up the time for storing keeps nothing out of the others. */
static void test_time_that_is_over_is_that_of_tiers_elsewhere(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry('y', "head", 3);
    cachemw_call_t call;
    mw_set_t *set;

    (void)state;
    start(&mw_memory_provider, &remote);
    call = fixture_call(tiers.f);
    call.deadline = 1;
    assert_int_equal(
        mw_store_set_begin(tiers.store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    assert_int_equal(mw_store_set_write(set, "abc", 3), APR_SUCCESS);
    assert_int_equal(mw_store_set_commit(set, &call), APR_SUCCESS);
    assert_int_equal(has(tiers.near, "k", NULL), 'y');
    assert_int_equal(fake.calls[FAKE_SET_BEGIN], 0);
}

static apr_interval_time_t time_left;

static apr_interval_time_t stub_remaining(const cachemw_services_t *services,
                                          const cachemw_call_t *call)
{
    (void)services, (void)call;
    return time_left;
}

static apr_int64_t stub_deadline_in(const cachemw_services_t *services,
                                    const cachemw_call_t *call,
                                    apr_interval_time_t microseconds)
{
    (void)services;
    return call->deadline - time_left + microseconds;
}

/* Three tiers elsewhere, 90 ms: 30 each, and what one leaves is the others'. */
static void test_tiers_elsewhere_share_the_time(void **state)
{
    static const cachemw_services_t services = { .remaining = stub_remaining,
                                                 .deadline_in =
                                                     stub_deadline_in };
    static const cachemw_provider_t remote = { .flags = CACHEMW_REMOTE };
    static const cachemw_provider_t local = { .flags = 0 };
    const mw_tiers_t made = {
        .services = &services,
        .n = 4,
        .nremote = 3,
        .tier = { { &local, NULL, 0 },
                  { &remote, NULL, 0 },
                  { &remote, NULL, 0 },
                  { &remote, NULL, 0 } },
    };
    cachemw_call_t call = { .deadline = 1000000 };
    cachemw_call_t own;
    int left = 3;

    (void)state;
    time_left = 90000;
    assert_int_equal(mw_tier_call(&made, 3, &call, &own, &left)->deadline,
                     1000000 - 60000);
    time_left = 80000; /* it took but 10 */
    assert_int_equal(mw_tier_call(&made, 2, &call, &own, &left)->deadline,
                     1000000 - 40000);
    time_left = 40000;
    assert_ptr_equal(mw_tier_call(&made, 1, &call, &own, &left), &call);
    assert_int_equal(mw_tier_call(&made, 0, &call, &own, &left)->deadline, 0);
    call.deadline = 0;
    left = 3;
    assert_ptr_equal(mw_tier_call(&made, 3, &call, &own, &left), &call);
}

static apr_status_t full_set_begin(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_entry_t *entry, void **set)
{
    (void)store, (void)call, (void)key, (void)entry, (void)set;
    return APR_ENOSPC;
}

static apr_status_t full_remove(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    (void)store, (void)call, (void)key, (void)id;
    return APR_SUCCESS;
}

/* A tier that has refused the set leaves all of its share. */
static void test_time_is_shared_by_those_that_are_called(void **state)
{
    cachemw_provider_t remote = with_flags(&fake_full, CACHEMW_REMOTE);
    cachemw_provider_t full = remote;
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry('y', "head", 3);
    cachemw_call_t call;
    mw_set_t *set;

    (void)state;
    full.set_begin = full_set_begin;
    full.remove = full_remove;
    tier_start("a", &mw_memory_provider, OPTIONS("size=8M"));
    tier_start("b", &full, OPTIONS("store_timeout=60s"));
    tier_start("c", &remote, OPTIONS("store_timeout=60s"));
    multi_start(OPTIONS("l1=a", "l2=b", "l3=c"));
    call = fixture_call(tiers.f);
    call.deadline = mw_monotonic() + SECONDS(30);
    assert_int_equal(
        mw_store_set_begin(tiers.store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    assert_int_equal(mw_store_set_write(set, "abc", 3), APR_SUCCESS);
    assert_int_equal(mw_store_set_commit(set, &call), APR_SUCCESS);
    assert_int_equal(fake.calls[FAKE_SET_COMMIT], 1);
    assert_int_equal(fake.seen.deadline, call.deadline);
}

static void test_mistakes_are_named(void **state)
{
    static const struct {
        const char *options[4];
        const char *error;
    } rows[] = {
        { { "l1=near" }, "l2" },
        { { "l1=near", "l2=multi" }, "l2=multi: a store in front of others" },
        { { "l1=near", "l2=near" }, "l2=near: l1 is the same store" },
        { { "l1=near", "l2=none" }, "l2=none: no store of this name" },
        { { "l1=near", "l2=far", "l4=near" }, "l4=near: there is no l3" },
        { { "l1=near", "l2=far", "l1_timeout_ratio=1.5" }, "l1_timeout_ratio" },
    };
    apr_size_t i;

    (void)state;
    start_memory();
    tiers.all[tiers.n++] = tiers.store;
    tiers.f->name = "wrong";
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_not_equal(
            fixture_open(tiers.f, &mw_multitier_provider, rows[i].options),
            APR_SUCCESS);
        assert_non_null(tiers.f->error);
        if (!strstr(tiers.f->error, rows[i].error)) {
            fail_msg("'%s' instead of '%s'", tiers.f->error, rows[i].error);
        }
    }
}

/* They need not be of one store if nobody else is to be heard of. */
static void test_tiers_may_be_tiers_of_others(void **state)
{
    (void)state;
    start_memory();
    tiers.all[tiers.n++] = tiers.store;
    tier_start("nearest", &mw_memory_provider, OPTIONS("size=8M"));
    tiers.store = store_start("outer", &mw_multitier_provider,
                              OPTIONS("l1=nearest", "l2=multi", "agree=off"));
    put(tiers.far, "k", 'x', 10, SECONDS(1000));
    visit("k");
    assert_int_equal(has(tiers.near, "k", NULL), 'x');
    assert_int_equal(has(tiers.all[3], "k", NULL), 'x');
}

static int keys_seen;

static apr_status_t keys_count(void *baton, const cachemw_key_t *key,
                               const cachemw_entry_t *entry)
{
    (void)baton, (void)key, (void)entry;
    keys_seen++;
    return APR_SUCCESS;
}

static void test_keys_of_all_tiers_are_told_once(void **state)
{
    cachemw_call_t call;

    (void)state;
    start_memory();
    call = fixture_call(tiers.f);
    put(tiers.store, "both", 'x', 1, SECONDS(1000));
    put(tiers.near, "near", 'x', 1, SECONDS(1000));
    put(tiers.far, "far", 'x', 1, SECONDS(1000));
    keys_seen = 0;
    assert_int_equal(mw_store_keys(tiers.store, &call, NULL, keys_count, NULL),
                     APR_SUCCESS);
    assert_int_equal(keys_seen, 3);
}

static void keys_fail_later(fake_slot_e slot)
{
    if (slot == FAKE_EXISTS && fake.calls[FAKE_EXISTS] == 2) {
        fake.fail[FAKE_EXISTS] = EIO;
    }
}

static void test_keys_end_where_nobody_knows_what_was_told(void **state)
{
    cachemw_call_t call;

    (void)state;
    start(&mw_memory_provider, &fake_full);
    call = fixture_call(tiers.f);
    put(tiers.store, "a", 'x', 1, SECONDS(1000));
    put(tiers.store, "b", 'x', 1, SECONDS(1000));
    put(tiers.store, "c", 'x', 1, SECONDS(1000));
    keys_seen = 0;
    fake.during = keys_fail_later;
    assert_int_equal(mw_store_keys(tiers.store, &call, NULL, keys_count, NULL),
                     EIO);
    assert_int_equal(keys_seen, 3);
    /* one that tells nothing stops nobody */
    fake_fails(EIO);
    keys_seen = 0;
    assert_int_equal(mw_store_keys(tiers.store, &call, NULL, keys_count, NULL),
                     EIO);
    assert_int_equal(keys_seen, 3);
}

#define TIERS_TEST(name) \
    cmocka_unit_test_setup_teardown(name, test_setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TIERS_TEST(test_life_is_a_part_of_what_is_left_behind),
        TIERS_TEST(test_life_never_ends_after_that_behind),
        TIERS_TEST(test_set_gives_each_tier_its_life),
        TIERS_TEST(test_far_hit_fills_the_near_tier_after_the_answer),
        TIERS_TEST(test_entry_without_body_is_filled_in),
        TIERS_TEST(test_hit_on_the_head_alone_fills_in_the_whole),
        TIERS_TEST(test_hit_in_the_third_tier_fills_both_before),
        TIERS_TEST(test_long_body_fills_in_while_it_is_read),
        TIERS_TEST(test_two_readers_of_a_long_body_fill_it_in_once),
        TIERS_TEST(test_reader_who_gives_up_leaves_nothing),
        TIERS_TEST(test_body_that_a_tier_does_not_take_is_not_tried),
        TIERS_TEST(test_entry_that_no_tier_takes_is_not_read_again),
        TIERS_TEST(test_entry_that_came_meanwhile_is_not_read_again),
        TIERS_TEST(test_long_body_that_comes_at_once_is_not_filled_in),
        TIERS_TEST(test_pieces_of_a_long_body_go_on_at_once),
        TIERS_TEST(test_life_of_what_is_filled_in_begins_late),
        TIERS_TEST(test_life_may_end_while_a_long_body_comes),
        TIERS_TEST(test_fills_are_bounded),
        TIERS_TEST(test_head_that_is_not_sound_stays_out_of_memory),
        TIERS_TEST(test_what_was_removed_meanwhile_is_not_filled_in),
        TIERS_TEST(test_what_was_replaced_meanwhile_is_not_filled_in),
        TIERS_TEST(test_head_that_was_amended_meanwhile_is_not_filled_in),
        TIERS_TEST(test_reader_may_end_while_a_piece_is_read),
        TIERS_TEST(test_removal_of_one_entry_leaves_others),
        TIERS_TEST(test_change_at_any_moment_of_a_fill_wins),
        TIERS_TEST(test_tier_elsewhere_is_asked_after_the_answer),
        TIERS_TEST(test_commit_elsewhere_that_failed_is_taken_back),
        TIERS_TEST(test_fill_at_any_moment_of_a_removal_loses),
        TIERS_TEST(test_near_tier_that_fails_stops_nobody),
        TIERS_TEST(test_far_tier_that_fails_stops_nobody),
        TIERS_TEST(test_tier_may_fail_at_any_step_of_a_set),
        TIERS_TEST(test_all_tiers_failing_is_trouble_told_once),
        TIERS_TEST(test_tier_that_is_off_is_a_miss),
        TIERS_TEST(test_tier_that_was_not_asked_may_have_it),
        TIERS_TEST(test_amending_leaves_no_other_entry_in_any_tier),
        TIERS_TEST(test_is_remote_when_a_tier_is),
        TIERS_TEST(test_breaker_of_a_tier_is_its_own),
        TIERS_TEST(test_body_on_its_way_waits_for_a_tier_that_is_out_of_use),
        TIERS_TEST(test_tier_that_is_late_loses_what_it_had),
        TIERS_TEST(test_tier_that_amends_late_loses_what_it_had),
        TIERS_TEST(test_time_of_tiers_here_is_their_own),
        TIERS_TEST(test_time_that_is_over_is_that_of_tiers_elsewhere),
        TIERS_TEST(test_tiers_elsewhere_share_the_time),
        TIERS_TEST(test_time_is_shared_by_those_that_are_called),
        TIERS_TEST(test_mistakes_are_named),
        TIERS_TEST(test_tiers_may_be_tiers_of_others),
        TIERS_TEST(test_keys_of_all_tiers_are_told_once),
        TIERS_TEST(test_keys_end_where_nobody_knows_what_was_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
