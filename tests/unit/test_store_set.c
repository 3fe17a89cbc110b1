/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "store_fixture.h"

#define LARGE 700000 /* beyond what a spool keeps in memory */

/* The two ways: pieces go to the provider, or through a spool to its set. */
static cachemw_provider_t streaming(void)
{
    cachemw_provider_t table = fake_full;

    table.set = NULL;
    return table;
}

static cachemw_provider_t spooling(void)
{
    cachemw_provider_t table = fake_full;

    table.set_begin = NULL;
    table.set_write = NULL;
    table.set_commit = NULL;
    table.set_abort = NULL;
    return table;
}

typedef struct set_t {
    fixture_t *f;
    cachemw_call_t call;
    cachemw_key_t key;
    cachemw_key_t plain;
    cachemw_entry_t entry;
    mw_set_t *set;
} set_t;

static set_t set_make(fixture_t *f, apr_off_t body_len)
{
    set_t set = { f,
                  fixture_call(f),
                  fixture_key("plain/variant"),
                  fixture_key("plain"),
                  fixture_entry(1, "head", body_len),
                  NULL };

    set.call.purge_epoch = mw_epoch_now(mw_store_state(f->store));
    return set;
}

static apr_status_t set_begin(set_t *set)
{
    return mw_store_set_begin(set->f->store, &set->call, &set->key, &set->plain,
                              &set->entry, &set->set);
}

static void set_begin_well(set_t *set)
{
    assert_int_equal(set_begin(set), APR_SUCCESS);
}

static apr_status_t set_write(set_t *set, apr_size_t length)
{
    char data[10000];
    apr_status_t rv = APR_SUCCESS;

    memset(data, 'x', sizeof(data));
    while (length > 0 && rv == APR_SUCCESS) {
        apr_size_t n = length < sizeof(data) ? length : sizeof(data);

        rv = mw_store_set_write(set->set, data, n);
        length -= n;
    }
    return rv;
}

static apr_status_t set_commit(set_t *set)
{
    cachemw_call_t call = fixture_call(set->f);
    apr_status_t rv = mw_store_set_commit(set->set, &call);

    assert_int_equal(fake.open_sets, 0);
    return rv;
}

/* The whole of it, as a request does it. */
static apr_status_t set_all(fixture_t *f, apr_off_t announced,
                            apr_size_t length)
{
    set_t set = set_make(f, announced);
    apr_status_t rv = set_begin(&set);

    if (rv == APR_SUCCESS) {
        set_write(&set, length);
        rv = set_commit(&set);
    }
    return rv;
}

static void stored_is(fixture_t *f, apr_size_t length)
{
    apr_status_t rv;
    const char *body = fixture_get(f, "plain/variant", &rv);

    assert_non_null(body);
    assert_int_equal(strlen(body), length);
    assert_int_equal(strspn(body, "x"), length);
}

static void nothing_is_stored(fixture_t *f)
{
    assert_int_equal(apr_hash_count(fake.entries), 0);
    assert_int_equal(fake.open_sets, 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_BYTES_STORED), 0);
}

typedef void both_fn(fixture_t *f);

static void in_both_ways(void **state, const char *const *options,
                         both_fn *test)
{
    cachemw_provider_t tables[2] = { streaming(), spooling() };
    int i;

    for (i = 0; i < 2; i++) {
        fixture_start(*state, &tables[i], options);
        test(*state);
        fixture_teardown(state);
        fixture_setup(state);
    }
}

/* --- what is stored ------------------------------------------------------- */

static void stored_in_pieces(fixture_t *f)
{
    static const apr_size_t lengths[] = { 0, 1, 9999, LARGE };
    apr_size_t i;
    apr_uint64_t bytes = 0;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        assert_int_equal(set_all(f, -1, lengths[i]), APR_SUCCESS);
        stored_is(f, lengths[i]);
        assert_int_equal(set_all(f, lengths[i], lengths[i]), APR_SUCCESS);
        stored_is(f, lengths[i]);
        bytes += 2 * lengths[i];
    }
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 2 * i);
    assert_int_equal(fixture_sum(f, MW_COUNT_BYTES_STORED), bytes);
    assert_int_equal(f->nlines, 0);
}

static void test_set_in_pieces_is_stored(void **state)
{
    in_both_ways(state, NONE, stored_in_pieces);
}

/* Nobody keeps key and head for us after begin. */
static void inputs_are_copied(fixture_t *f)
{
    char key[] = "plain/variant", plain[] = "plain", head[] = "head";
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t at = fixture_key("plain/variant");
    cachemw_entry_t found = { .body = NULL };
    set_t set = set_make(f, -1);

    set.key.data = key;
    set.plain.data = plain;
    set.entry.head = head;
    set_begin_well(&set);
    memset(key, '#', sizeof(key));
    memset(plain, '#', sizeof(plain));
    memset(head, '#', sizeof(head));
    memset(&set.entry, 0, sizeof(set.entry));
    assert_int_equal(set_write(&set, 10), APR_SUCCESS);
    assert_int_equal(mw_store_set_length(set.set), 10);
    assert_int_equal(set_commit(&set), APR_SUCCESS);
    assert_int_equal(mw_store_get(f->store, &call, &at, &found), APR_SUCCESS);
    assert_memory_equal(found.head, "head", 4);
    assert_int_equal(found.id.bytes[0], 1);
}

static void test_set_copies_its_inputs(void **state)
{
    in_both_ways(state, NONE, inputs_are_copied);
}

static void test_set_tells_the_announced_length(void **state)
{
    cachemw_provider_t table = streaming();

    fixture_start(*state, &table, NONE);
    set_all(*state, 123, 123);
    assert_int_equal(fake.announced, 123);
    set_all(*state, -1, 123);
    assert_int_equal(fake.announced, -1);
    table = spooling();
    fixture_start(*state, &table, NONE);
    set_all(*state, -1, 123);
    assert_int_equal(fake.announced, 123);
}

static void test_set_writes_bring_a_pool_that_lasts_no_longer(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();
    set_t set;

    fixture_start(f, &table, NONE);
    set = set_make(f, -1);
    set_begin_well(&set);
    assert_ptr_equal(fake.seen.pool, f->pool);
    set_write(&set, 1);
    assert_ptr_not_equal(fake.seen.pool, f->pool);
    assert_int_equal(fake.seen.now, FIXTURE_NOW);
    assert_int_equal(fake.seen.purge_epoch, set.call.purge_epoch);
    mw_store_set_abort(set.set);
}

/* --- limits --------------------------------------------------------------- */

static void too_large(fixture_t *f)
{
    set_t set;

    assert_int_equal(set_all(f, 1001, 0), APR_ENOSPC);
    assert_int_equal(fake.calls[FAKE_SET_BEGIN], 0);
    set = set_make(f, -1);
    set_begin_well(&set);
    assert_int_equal(set_write(&set, 1000), APR_SUCCESS);
    assert_int_equal(set_write(&set, 1), APR_ENOSPC);
    assert_int_equal(set_write(&set, 1), APR_ENOSPC);
    assert_int_equal(set_commit(&set), APR_ENOSPC);
    nothing_is_stored(f);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 2);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 0);
    assert_int_equal(set_all(f, 1000, 1000), APR_SUCCESS);
}

static void test_set_above_max_object_size_is_refused(void **state)
{
    in_both_ways(state, OPTIONS("max_object_size=1000"), too_large);
}

static void too_small(fixture_t *f)
{
    assert_int_equal(set_all(f, 99, 99), APR_ENOSPC);
    assert_int_equal(set_all(f, -1, 99), APR_ENOSPC);
    nothing_is_stored(f);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 2);
    assert_int_equal(set_all(f, -1, 100), APR_SUCCESS);
    /* a Vary record has no body and is wanted all the same */
    fixture_set(f, "vary", 1, 0);
}

static void test_set_below_min_object_size_is_refused(void **state)
{
    in_both_ways(state, OPTIONS("min_object_size=100"), too_small);
}

static void test_set_at_once_above_the_limits_is_refused(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "h", 0);

    fixture_start(f, &fake_full, OPTIONS("max_object_size=1000"));
    entry.body_len = 1001;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_ENOSPC);
    entry.body_len = 0;
    entry.head_len = CACHEMW_HEAD_MAX + 1;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_ENOSPC);
    assert_int_equal(
        mw_store_set_head(f->store, &call, &key, &entry.id, &entry),
        APR_ENOSPC);
    entry.head_len = 1;
    key.len = CACHEMW_KEY_MAX + 1;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_ENOSPC);
    assert_int_equal(fake.calls[FAKE_SET] + fake.calls[FAKE_SET_HEAD], 0);
}

static void wrong_length(fixture_t *f)
{
    assert_int_equal(set_all(f, 100, 99), APR_EINVAL);
    assert_int_equal(set_all(f, 100, 101), APR_EINVAL);
    nothing_is_stored(f);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 2);
}

static void test_set_of_another_length_than_announced(void **state)
{
    in_both_ways(state, NONE, wrong_length);
}

/* --- the end of a set ----------------------------------------------------- */

static void aborted(fixture_t *f)
{
    set_t set = set_make(f, -1);

    set_begin_well(&set);
    set_write(&set, LARGE);
    mw_store_set_abort(set.set);
    mw_store_set_abort(NULL);
    nothing_is_stored(f);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 1);
}

static void test_set_abort_leaves_no_trace(void **state)
{
    in_both_ways(state, NONE, aborted);
}

static void pool_gone(fixture_t *f)
{
    set_t set = set_make(f, -1);

    apr_pool_create(&set.call.pool, f->pool);
    set_begin_well(&set);
    set_write(&set, 10);
    apr_pool_destroy(set.call.pool);
    nothing_is_stored(f);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 1);
}

static void test_set_is_aborted_with_its_pool(void **state)
{
    in_both_ways(state, NONE, pool_gone);
}

static void ended_then_pool_gone(fixture_t *f)
{
    set_t set = set_make(f, -1);

    apr_pool_create(&set.call.pool, f->pool);
    set_begin_well(&set);
    assert_int_equal(set_commit(&set), APR_SUCCESS);
    set_begin_well(&set);
    mw_store_set_abort(set.set);
    apr_pool_destroy(set.call.pool);
    assert_int_equal(fake.open_sets, 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 1);
    assert_in_range(fake.calls[FAKE_SET_ABORT], 0, 1);
}

static void test_set_ends_once(void **state)
{
    in_both_ways(state, NONE, ended_then_pool_gone);
}

static apr_pool_t *watched;
static int watched_gone, gone_at_abort;

static apr_status_t watched_cleanup(void *data)
{
    (void)data;
    watched_gone = 1;
    return APR_SUCCESS;
}

static void during_own_pool(fake_slot_e slot)
{
    if (slot == FAKE_SET_BEGIN) {
        apr_pool_t *own;

        apr_pool_create(&own, watched);
        apr_pool_cleanup_register(own, NULL, watched_cleanup,
                                  apr_pool_cleanup_null);
    }
    else if (slot == FAKE_SET_ABORT) {
        gone_at_abort = watched_gone;
    }
}

/* Sub-pools are destroyed before a pool's clean-ups run; the provider may well
 * keep its half-written set in one. */
static void test_set_abort_comes_before_sub_pools_go(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();
    set_t set;

    fixture_start(f, &table, NONE);
    set = set_make(f, -1);
    apr_pool_create(&watched, f->pool);
    watched_gone = 0;
    gone_at_abort = -1;
    fake.during = during_own_pool;
    set.call.pool = watched;
    set_begin_well(&set);
    apr_pool_destroy(watched);
    fake.during = NULL;
    assert_int_equal(gone_at_abort, 0);
    assert_int_equal(watched_gone, 1);
}

/* --- trouble -------------------------------------------------------------- */

static void test_set_begin_failing(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();

    fixture_start(f, &table, NONE);
    fake.fail[FAKE_SET_BEGIN] = EIO;
    assert_int_equal(set_all(f, -1, 10), EIO);
    fake.fail[FAKE_SET_BEGIN] = APR_ENOSPC;
    assert_int_equal(set_all(f, -1, 10), APR_ENOSPC);
    assert_int_equal(fake.calls[FAKE_SET_ABORT], 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 1);
    assert_int_equal(fixture_logged(f, "set_begin: failed"), 1);
    nothing_is_stored(f);
}

static void test_set_write_failing(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();
    set_t set;

    fixture_start(f, &table, NONE);
    set = set_make(f, -1);
    set_begin_well(&set);
    fake.fail[FAKE_SET_WRITE] = EIO;
    assert_int_equal(set_write(&set, 10), EIO);
    fake.fail[FAKE_SET_WRITE] = APR_SUCCESS;
    assert_int_equal(set_write(&set, 10), EIO);
    assert_int_equal(fake.calls[FAKE_SET_WRITE], 1);
    assert_int_equal(set_commit(&set), EIO);
    assert_int_equal(fake.calls[FAKE_SET_COMMIT], 0);
    assert_int_equal(fake.calls[FAKE_SET_ABORT], 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 0);
    nothing_is_stored(f);
}

static void test_set_commit_failing(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();

    fixture_start(f, &table, NONE);
    fake.fail[FAKE_SET_COMMIT] = EIO;
    assert_int_equal(set_all(f, -1, 10), EIO);
    assert_int_equal(fake.calls[FAKE_SET_ABORT], 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    /* a provider that compares purge epochs itself */
    fake.fail[FAKE_SET_COMMIT] = APR_NOTFOUND;
    assert_int_equal(set_all(f, -1, 10), APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_REFUSED), 1);
    nothing_is_stored(f);
}

static void test_set_spooled_failing(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = spooling();

    fixture_start(f, &table, NONE);
    fake.fail[FAKE_SET] = EIO;
    assert_int_equal(set_all(f, -1, 10), EIO);
    fake.fail[FAKE_SET] = APR_ENOSPC;
    assert_int_equal(set_all(f, -1, 10), APR_ENOSPC);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 1);
    nothing_is_stored(f);
}

static void test_set_spooled_without_a_temporary_file(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = spooling();

    f->host.temp_dir = "/nowhere/at/all";
    fixture_start(f, &table, NONE);
    assert_true(set_all(f, -1, LARGE) != APR_SUCCESS);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    assert_int_equal(fixture_logged(f, "temporary file in /nowhere/at/all"), 1);
    nothing_is_stored(f);
    assert_int_equal(set_all(f, -1, 10), APR_SUCCESS);
}

static apr_status_t full_temp_file(const cachemw_services_t *services,
                                   apr_file_t **file, apr_pool_t *pool)
{
    (void)services;
    return apr_file_open(file, "/dev/full", APR_FOPEN_WRITE, 0, pool);
}

/* A disk that is full is no entry that is too large. */
static void test_set_spooled_to_a_full_disk(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = spooling();
    apr_status_t rv;

    fixture_start(f, &table, NONE);
    ((cachemw_services_t *)fake.services)->temp_file = full_temp_file;
    rv = set_all(f, -1, LARGE);
    assert_true(rv != APR_SUCCESS && rv != APR_ENOSPC);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 0);
    assert_int_equal(fixture_logged(f, "set: cannot write to a temporary"), 1);
    nothing_is_stored(f);
}

/* The breaker opens while a set is under way: it is not committed, but the
 * provider hears that it ended. */
static void test_set_with_the_breaker_opening(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();
    set_t set;
    int i;

    table.flags = CACHEMW_REMOTE;
    fixture_start(f, &table, NONE);
    set = set_make(f, -1);
    set_begin_well(&set);
    set_write(&set, 10);
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        mw_breaker_failure(mw_store_state(f->store), mw_monotonic(), 0,
                           APR_EGENERAL);
    }
    assert_int_equal(set_commit(&set), APR_EGENERAL);
    assert_int_equal(fake.calls[FAKE_SET_COMMIT], 0);
    assert_int_equal(fake.calls[FAKE_SET_ABORT], 1);
    nothing_is_stored(f);
}

/* --- purge epochs --------------------------------------------------------- */

static void purge(fixture_t *f)
{
    cachemw_key_t plain = fixture_key("plain");

    mw_epoch_bump(mw_store_state(f->store), &plain);
}

static void overtaken_before(fixture_t *f)
{
    set_t set = set_make(f, -1);

    purge(f);
    assert_int_equal(set_begin(&set), APR_NOTFOUND);
    set = set_make(f, -1);
    set_begin_well(&set);
    set_write(&set, 10);
    purge(f);
    assert_int_equal(set_commit(&set), APR_NOTFOUND);
    nothing_is_stored(f);
    assert_int_equal(fixture_sum(f, MW_COUNT_REFUSED), 2);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 0);
    assert_int_equal(fake.calls[FAKE_REMOVE], 0);
}

static void test_set_overtaken_by_a_purge_is_refused(void **state)
{
    in_both_ways(state, NONE, overtaken_before);
}

static void overtaken_by_clear(fixture_t *f)
{
    cachemw_call_t call = fixture_call(f);
    set_t set = set_make(f, -1);

    set_begin_well(&set);
    assert_int_equal(mw_store_clear(f->store, &call), APR_SUCCESS);
    assert_int_equal(set_commit(&set), APR_NOTFOUND);
    nothing_is_stored(f);
}

static void test_set_overtaken_by_clear_is_refused(void **state)
{
    in_both_ways(state, NONE, overtaken_by_clear);
}

static fixture_t *racing;

static void during_purge(fake_slot_e slot)
{
    if (slot == FAKE_SET_COMMIT || slot == FAKE_SET) {
        purge(racing);
    }
}

/* The purge comes between the comparison and the entry's appearance. */
static void overtaken_meanwhile(fixture_t *f)
{
    racing = f;
    fake.during = during_purge;
    assert_int_equal(set_all(f, -1, 10), APR_NOTFOUND);
    fake.during = NULL;
    nothing_is_stored(f);
    assert_int_equal(fake.calls[FAKE_REMOVE], 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_REFUSED), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_REMOVED), 0);
}

static void test_set_overtaken_during_the_commit_is_removed(void **state)
{
    in_both_ways(state, NONE, overtaken_meanwhile);
}

static void during_newer(fake_slot_e slot)
{
    if (slot == FAKE_SET_COMMIT) {
        purge(racing);
    }
    if (slot == FAKE_REMOVE) {
        fake.during = NULL;
        fixture_set(racing, "plain/variant", 2, 3);
    }
}

/* What was stored after the purge stays. */
static void test_set_overtaken_removes_no_newer_entry(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    racing = f;
    fake.during = during_newer;
    assert_int_equal(set_all(f, -1, 10), APR_NOTFOUND);
    assert_string_equal(fixture_get(f, "plain/variant", &rv), "xxx");
}

/* --- one made of the other ------------------------------------------------ */

static void test_set_at_once_is_made_of_streaming(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();
    apr_status_t rv;

    fixture_start(f, &table, OPTIONS("min_object_size=100"));
    fixture_set(f, "k", 1, 10);
    assert_string_equal(fixture_get(f, "k", &rv), "xxxxxxxxxx");
    assert_int_equal(fake.calls[FAKE_SET_COMMIT], 1);
    assert_int_equal(fake.announced, 10);
    fixture_set(f, "k", 1, 0);
    assert_string_equal(fixture_get(f, "k", &rv), "");
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 0);
    assert_int_equal(fake.open_sets, 0);
}

static void test_set_at_once_by_streaming_failing(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = streaming();
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "h", 3);

    fixture_start(f, &table, NONE);
    entry.body = apr_brigade_create(f->pool, f->alloc);
    APR_BRIGADE_INSERT_TAIL(entry.body,
                            apr_bucket_immortal_create("xyz", 3, f->alloc));
    fake.fail[FAKE_SET_WRITE] = EIO;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), EIO);
    assert_int_equal(fake.open_sets, 0);
    assert_int_equal(fake.calls[FAKE_SET_ABORT], 1);
    /* a body that is not there */
    fake.fail[FAKE_SET_WRITE] = APR_SUCCESS;
    entry.body = NULL;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_EINVAL);
    nothing_is_stored(f);
}

/* --- set_head ------------------------------------------------------------- */

static apr_status_t amend(fixture_t *f, char id)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(id, "amended", -1);

    entry.expires += 1000;
    return mw_store_set_head(f->store, &call, &key, &entry.id, &entry);
}

static void amended_is(fixture_t *f, apr_size_t length)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = { .body = NULL };
    apr_status_t rv;

    fake.piece = 0;
    assert_int_equal(mw_store_get(f->store, &call, &key, &entry), APR_SUCCESS);
    assert_int_equal(entry.head_len, 7);
    assert_memory_equal(entry.head, "amended", 7);
    assert_int_equal(entry.id.bytes[7], 1);
    assert_int_equal(entry.expires, FIXTURE_NOW + 60 * APR_USEC_PER_SEC + 1000);
    assert_int_equal(entry.body_len, length);
    assert_int_equal(strspn(fixture_get(f, "k", &rv), "x"), length);
}

static void amend_well(fixture_t *f)
{
    static const apr_size_t lengths[] = { 0, 1, 200000 };
    apr_size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        fixture_set(f, "k", 1, lengths[i]);
        fake.piece = 1000;
        assert_int_equal(amend(f, 1), APR_SUCCESS);
        amended_is(f, lengths[i]);
    }
    assert_int_equal(amend(f, 2), APR_NOTFOUND);
    amended_is(f, lengths[i - 1]);
    assert_int_equal(fake.open_sets, 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 0);
}

static void test_set_head(void **state)
{
    cachemw_provider_t table = fake_full;

    fixture_start(*state, &table, NONE);
    amend_well(*state);
    assert_int_equal(fake.calls[FAKE_SET_HEAD], 4);
}

static void test_set_head_is_made_of_get_and_set(void **state)
{
    cachemw_provider_t tables[2] = { streaming(), spooling() };
    int i;

    for (i = 0; i < 2; i++) {
        tables[i].set_head = NULL;
        fixture_start(*state, &tables[i], OPTIONS("min_object_size=100"));
        amend_well(*state);
        fixture_teardown(state);
        fixture_setup(state);
    }
}

static void during_replace(fake_slot_e slot)
{
    if (slot == FAKE_SET_WRITE) {
        fake.during = NULL;
        fixture_set(racing, "k", 2, 3);
    }
}

/* The entry is replaced while its old body is copied. */
static void test_set_head_never_replaces_a_newer_entry(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;
    apr_status_t rv;

    table.set_head = NULL;
    fixture_start(f, &table, NONE);
    fixture_set(f, "k", 1, 10);
    racing = f;
    fake.during = during_replace;
    assert_int_equal(amend(f, 1), APR_NOTFOUND);
    assert_string_equal(fixture_get(f, "k", &rv), "xxx");
    assert_int_equal(fake.open_sets, 0);
}

static void during_purge_k(fake_slot_e slot)
{
    cachemw_call_t call = fixture_call(racing);

    if (slot == FAKE_SET_COMMIT) {
        fake.during = NULL;
        mw_store_clear(racing->store, &call);
    }
}

static void test_set_head_never_resurrects(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;

    table.set_head = NULL;
    fixture_start(f, &table, NONE);
    fixture_set(f, "k", 1, 10);
    racing = f;
    fake.during = during_purge_k;
    assert_int_equal(amend(f, 1), APR_NOTFOUND);
    nothing_is_stored(f);
}

static void test_set_head_with_a_body_that_cannot_be_read(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;
    apr_status_t rv;

    table.set_head = NULL;
    fixture_start(f, &table, NONE);
    fixture_set(f, "k", 1, 10);
    fake.piece = 4;
    fake.fail[FAKE_READ] = EIO;
    assert_int_equal(amend(f, 1), EIO);
    fake.piece = 0;
    assert_string_equal(fixture_get(f, "k", &rv), "xxxxxxxxxx");
    assert_int_equal(fake.open_sets, 0);
}

static void test_set_head_of_nothing(void **state)
{
    cachemw_provider_t table = fake_full;

    table.set_head = NULL;
    fixture_start(*state, &table, NONE);
    assert_int_equal(amend(*state, 1), APR_NOTFOUND);
}

static void test_set_head_damaged_is_removed(void **state)
{
    fixture_t *f = *state;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 1, 10);
    fake.fail[FAKE_SET_HEAD] = APR_EINCOMPLETE;
    assert_int_equal(amend(f, 1), APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 1);
    nothing_is_stored(f);
}

/* --- what a remote store may make a visitor wait -------------------------- */

static void start_remote(fixture_t *f, cachemw_provider_t table,
                         const char *const *options)
{
    table.flags = CACHEMW_REMOTE;
    fixture_start(f, &table, options);
}

static void during_take_200ms(fake_slot_e slot)
{
    if (slot != FAKE_SET_ABORT) {
        apr_sleep(200000);
    }
}

static cachemw_call_t late_call;

static void during_purge_late(fake_slot_e slot)
{
    if (slot == FAKE_SET_COMMIT) {
        purge(racing);
        late_call.deadline = mw_monotonic() - 1;
    }
}

/* The commit has used up its time, and may have failed in the end: what a purge
 * did not find must go all the same. */
static void test_set_overtaken_by_a_late_commit_is_removed(void **state)
{
    static const apr_status_t ends[] = { APR_SUCCESS, APR_TIMEUP };
    fixture_t *f = *state;
    int i;

    start_remote(f, streaming(), NONE);
    racing = f;
    for (i = 0; i < 2; i++) {
        set_t set = set_make(f, -1);

        set_begin_well(&set);
        set_write(&set, 10);
        late_call = fixture_call(f);
        late_call.deadline = mw_monotonic() + apr_time_from_sec(3600);
        fake.during = during_purge_late;
        fake.fail[FAKE_SET_COMMIT] = ends[i];
        assert_int_not_equal(mw_store_set_commit(set.set, &late_call),
                             APR_SUCCESS);
        fake.during = NULL;
        assert_int_equal(fake.calls[FAKE_REMOVE], i + 1);
        nothing_is_stored(f);
    }
}

/* Each call by itself is quick enough. */
static void test_set_budget_is_for_the_sum_of_calls(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv = APR_SUCCESS;
    set_t set;
    int i;

    start_remote(f, streaming(), OPTIONS("store_timeout=500ms"));
    set = set_make(f, -1);
    fake.during = during_take_200ms;
    set_begin_well(&set);
    for (i = 0; i < 20 && rv == APR_SUCCESS; i++) {
        rv = set_write(&set, 100);
    }
    assert_int_equal(rv, APR_TIMEUP);
    assert_in_range(fake.calls[FAKE_SET_WRITE], 1, 2);
    mw_store_set_abort(set.set);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 1);
    assert_int_equal(fixture_logged(f, "it took too long"), 1);
    assert_int_equal(fake.open_sets, 0);
    assert_true(mw_store_is_usable(f->store));
    nothing_is_stored(f);
}

/* The origin's slowness is not the store's. */
static void test_set_budget_does_not_shrink_between_calls(void **state)
{
    fixture_t *f = *state;
    apr_int64_t left = 3000000;
    apr_int64_t before, deadline;
    set_t set;

    start_remote(f, streaming(), OPTIONS("store_timeout=3s"));
    set = set_make(f, -1);
    before = mw_monotonic();
    set_begin_well(&set);
    left -= mw_monotonic() - before;
    apr_sleep(40000);
    before = mw_monotonic();
    assert_int_equal(set_write(&set, 100), APR_SUCCESS);
    assert_in_range(fake.seen.deadline, before + left,
                    mw_monotonic() + 3000000);
    left -= mw_monotonic() - before;
    apr_sleep(40000);
    before = mw_monotonic();
    deadline = mw_store_set_deadline(set.set);
    assert_in_range(deadline, before + left, mw_monotonic() + 3000000);
    assert_int_equal(set_commit(&set), APR_SUCCESS);
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 1);
}

static void test_set_budget_of_spooled_sets_is_the_commit_s(void **state)
{
    fixture_t *f = *state;
    set_t set;
    apr_int64_t before;

    start_remote(f, spooling(), OPTIONS("store_timeout=3s"));
    set = set_make(f, -1);
    set_begin_well(&set);
    assert_int_equal(set_write(&set, LARGE), APR_SUCCESS);
    before = mw_monotonic();
    assert_int_equal(set_commit(&set), APR_SUCCESS);
    assert_in_range(fake.seen.deadline, before + 2999000,
                    mw_monotonic() + 3000000);
}

/* What was used up before, for the Vary record, is gone. */
static void test_set_budget_begins_with_the_caller_s_deadline(void **state)
{
    fixture_t *f = *state;
    set_t set;

    start_remote(f, streaming(), OPTIONS("store_timeout=20s"));
    set = set_make(f, -1);
    mw_store_share_deadline(f->store, &set.call);
    set.call.deadline -= 17000000;
    set_begin_well(&set);
    assert_int_equal(fake.seen.deadline, set.call.deadline);
    assert_int_equal(set_write(&set, 100), APR_SUCCESS);
    assert_true(fake.seen.deadline <= mw_monotonic() + 3000000);
    assert_int_equal(set_commit(&set), APR_SUCCESS);
}

static void test_set_of_a_local_store_has_no_budget(void **state)
{
    fixture_t *f = *state;
    set_t set;

    fixture_start(f, &fake_full, NONE);
    set = set_make(f, -1);
    mw_store_share_deadline(f->store, &set.call);
    assert_int_equal(set.call.deadline, 0);
    set_begin_well(&set);
    assert_int_equal(mw_store_set_deadline(set.set), 0);
    assert_int_equal(set_write(&set, 100), APR_SUCCESS);
    assert_int_equal(fake.seen.deadline, 0);
    assert_int_equal(set_commit(&set), APR_SUCCESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_set_in_pieces_is_stored),
        TEST(test_set_copies_its_inputs),
        TEST(test_set_tells_the_announced_length),
        TEST(test_set_writes_bring_a_pool_that_lasts_no_longer),
        TEST(test_set_above_max_object_size_is_refused),
        TEST(test_set_below_min_object_size_is_refused),
        TEST(test_set_at_once_above_the_limits_is_refused),
        TEST(test_set_of_another_length_than_announced),
        TEST(test_set_abort_leaves_no_trace),
        TEST(test_set_is_aborted_with_its_pool),
        TEST(test_set_ends_once),
        TEST(test_set_abort_comes_before_sub_pools_go),
        TEST(test_set_begin_failing),
        TEST(test_set_write_failing),
        TEST(test_set_commit_failing),
        TEST(test_set_spooled_failing),
        TEST(test_set_spooled_without_a_temporary_file),
        TEST(test_set_spooled_to_a_full_disk),
        TEST(test_set_with_the_breaker_opening),
        TEST(test_set_overtaken_by_a_purge_is_refused),
        TEST(test_set_overtaken_by_clear_is_refused),
        TEST(test_set_overtaken_during_the_commit_is_removed),
        TEST(test_set_overtaken_by_a_late_commit_is_removed),
        TEST(test_set_overtaken_removes_no_newer_entry),
        TEST(test_set_at_once_is_made_of_streaming),
        TEST(test_set_at_once_by_streaming_failing),
        TEST(test_set_head),
        TEST(test_set_head_is_made_of_get_and_set),
        TEST(test_set_head_never_replaces_a_newer_entry),
        TEST(test_set_head_never_resurrects),
        TEST(test_set_head_with_a_body_that_cannot_be_read),
        TEST(test_set_head_of_nothing),
        TEST(test_set_head_damaged_is_removed),
        TEST(test_set_budget_is_for_the_sum_of_calls),
        TEST(test_set_budget_does_not_shrink_between_calls),
        TEST(test_set_budget_of_spooled_sets_is_the_commit_s),
        TEST(test_set_budget_begins_with_the_caller_s_deadline),
        TEST(test_set_of_a_local_store_has_no_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
