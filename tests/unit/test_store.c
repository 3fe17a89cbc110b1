/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "core/store_private.h"
#include "store_fixture.h"

static void open_fails(fixture_t *f, const cachemw_provider_t *table,
                       const char *const *options, const char *error)
{
    if (fixture_open(f, table, options) == APR_SUCCESS) {
        fail_msg("opened, but '%s' was expected", error);
    }
    if (!f->error || !strstr(f->error, error)) {
        fail_msg("'%s' instead of '%s'", f->error, error);
    }
}

static apr_status_t no_open(const cachemw_services_t *services,
                            const cachemw_value_t *values, apr_pool_t *pconf,
                            void **store, const char **error)
{
    (void)services, (void)values, (void)pconf, (void)store;
    *error = "colour: 'mauve' is no colour";
    return APR_EINVAL;
}

/* --- open: tables and settings -------------------------------------------- */

static void test_table_without_a_required_slot_is_refused(void **state)
{
    cachemw_provider_t table;

    table = fake_full;
    table.open = NULL;
    open_fails(*state, &table, NONE, "it has no open");
    table = fake_full;
    table.get = NULL;
    open_fails(*state, &table, NONE, "it has no get");
    table = fake_full;
    table.remove = NULL;
    open_fails(*state, &table, NONE, "it has no remove");
    table = fake_small;
    table.set = NULL;
    open_fails(*state, &table, NONE, "neither set nor set_begin");
    table = fake_full;
    table.set_abort = NULL;
    open_fails(*state, &table, NONE, "some but not all");
}

static void test_table_of_no_size_is_refused(void **state)
{
    cachemw_provider_t table = fake_full;

    table.size = 0;
    open_fails(*state, &table, NONE, "is its member size set?");
    table.size = offsetof(cachemw_provider_t, remove);
    open_fails(*state, &table, NONE, "is its member size set?");
}

/* A flag that is not known is a promise that would not be kept. */
static void test_table_with_unknown_flags_is_refused(void **state)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_REMOTE | 0x10u | 0x40000000u;
    open_fails(*state, &table, NONE, "does not know: 0x40000010");
    table.flags =
        CACHEMW_REMOTE | CACHEMW_SERIALIZE | CACHEMW_IN_MEMORY | CACHEMW_TIERED;
    assert_int_equal(fixture_open(*state, &table, NONE), APR_SUCCESS);
}

/* What lies beyond its size is not the provider's and never called. */
static void test_table_smaller_than_ours_has_fewer_slots(void **state)
{
    cachemw_provider_t table = fake_full;
    cachemw_call_t call = fixture_call(*state);
    mw_store_t *store;
    int more = 1;

    table.size = offsetof(cachemw_provider_t, post_config) + 3;
    store = fixture_start(*state, &table, NONE);
    assert_int_equal(fake.calls[FAKE_POST_CONFIG], 0);
    assert_false(mw_store_can_sweep(store));
    assert_false(mw_store_can_sync(store));
    assert_int_equal(mw_store_sync(store, &call), APR_SUCCESS);
    assert_int_equal(mw_store_clear(store, &call), APR_ENOTIMPL);
    assert_int_equal(mw_store_sweep(store, &call, &more), APR_SUCCESS);
    assert_int_equal(more, 0);
    fixture_set(*state, "k", 1, 10);
    assert_int_equal(fake.calls[FAKE_SET], 1);
}

static void test_table_larger_than_ours_is_read_as_far_as_known(void **state)
{
    struct {
        cachemw_provider_t known;
        char unknown[256];
    } table;
    cachemw_call_t call = fixture_call(*state);

    memset(&table, 0xff, sizeof(table));
    table.known = fake_full;
    table.known.size = sizeof(table);
    fixture_start(*state, &table.known, NONE);
    assert_int_equal(mw_store_clear(((fixture_t *)*state)->store, &call),
                     APR_SUCCESS);
    assert_int_equal(fake.calls[FAKE_CLEAR], 1);
}

static void test_table_is_copied(void **state)
{
    cachemw_provider_t table = fake_full;
    apr_status_t rv;

    fixture_start(*state, &table, NONE);
    memset(&table, 0, sizeof(table));
    assert_null(fixture_get(*state, "k", &rv));
    assert_int_equal(rv, APR_NOTFOUND);
}

static void test_open_tells_what_the_provider_says(void **state)
{
    cachemw_provider_t table = fake_full;

    table.open = no_open;
    open_fails(*state, &table, NONE, "'mauve' is no colour");
    fake.fail[FAKE_OPEN] = APR_EACCES;
    open_fails(*state, &fake_full, NONE, "gave no reason: Permission denied");
}

static void test_settings_have_the_documented_defaults(void **state)
{
    const mw_store_settings_t *settings;

    settings = mw_store_settings(fixture_start(*state, &fake_small, NONE));
    assert_int_equal(settings->keep, apr_time_from_sec(86400));
    assert_int_equal(settings->max_object_size, 16 * 1024 * 1024);
    assert_int_equal(settings->min_object_size, 0);
    assert_int_equal(settings->max_variants, 32);
    assert_int_equal(settings->cleanup_interval, apr_time_from_sec(300));
    assert_int_equal(settings->timeout, 250000);
    assert_int_equal(settings->body_timeout, 10000000);
    assert_int_equal(settings->store_timeout, 50000);
    assert_int_equal(fake.services->max_object_size, 16 * 1024 * 1024);
}

static void test_settings_are_read(void **state)
{
    cachemw_provider_t table = fake_small;
    const mw_store_settings_t *settings;

    table.flags = CACHEMW_REMOTE;
    settings = mw_store_settings(fixture_start(
        *state, &table,
        OPTIONS("keep=2h", "max_object_size=3M", "min_object_size=1K",
                "max_variants=7", "cleanup_interval=1min", "timeout=1s",
                "store_timeout=20ms")));
    assert_int_equal(settings->keep, apr_time_from_sec(7200));
    assert_int_equal(settings->max_object_size, 3 * 1024 * 1024);
    assert_int_equal(settings->min_object_size, 1024);
    assert_int_equal(settings->max_variants, 7);
    assert_int_equal(settings->cleanup_interval, apr_time_from_sec(60));
    assert_int_equal(settings->timeout, 1000000);
    assert_int_equal(settings->store_timeout, 20000);
}

static void test_settings_out_of_range_are_refused(void **state)
{
    static const char *const words[] = {
        "keep=366d",         "max_object_size=0",   "max_variants=0",
        "max_variants=1025", "cleanup_interval=0s", "min_object_size=-1"
    };
    apr_size_t i;

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        const char *name = apr_pstrmemdup(((fixture_t *)*state)->pool, words[i],
                                          strcspn(words[i], "="));

        open_fails(*state, &fake_small, OPTIONS(words[i]), name);
    }
    open_fails(*state, &fake_small,
               OPTIONS("min_object_size=2K", "max_object_size=1K"),
               "min_object_size=2K: at most max_object_size, 1K, is accepted");
}

static void test_settings_local_stores_have_no_timeout(void **state)
{
    open_fails(*state, &fake_full, OPTIONS("timeout=1s"), "timeout: only");
    open_fails(*state, &fake_full, OPTIONS("body_timeout=1s"),
               "body_timeout: only");
    open_fails(*state, &fake_full, OPTIONS("store_timeout=1s"),
               "store_timeout: only");
}

/* The provider's row hides ours, and its value counts. */
static void test_settings_of_the_provider_win(void **state)
{
    static const cachemw_option_t options[] = {
        { .name = "cleanup_interval",
          .type = CACHEMW_DURATION,
          .fallback = "7s" },
        { .name = "timeout", .type = CACHEMW_STRING, .fallback = "none" },
        { .name = NULL }
    };
    cachemw_provider_t table = fake_small;
    const mw_store_settings_t *settings;

    table.options = options;
    table.flags = CACHEMW_REMOTE;
    settings = mw_store_settings(fixture_start(*state, &table, NONE));
    assert_int_equal(settings->cleanup_interval, apr_time_from_sec(7));
    /* the same name, but another thing */
    assert_int_equal(settings->timeout, 250000);
    assert_string_equal(fake.values[1].string, "none");
}

static apr_off_t object_size(fixture_t *f, const char *fallback,
                             apr_off_t limit, const char *word)
{
    cachemw_provider_t table = fake_full;

    fake.limit = limit;
    table.max_object_size = fallback;
    if (limit < 0) {
        table.object_limit = NULL;
    }
    assert_int_equal(fixture_open(f, &table, word ? OPTIONS(word) : NONE),
                     APR_SUCCESS);
    assert_int_equal(fake.services->max_object_size,
                     mw_store_settings(f->store)->max_object_size);
    return mw_store_settings(f->store)->max_object_size;
}

static void test_settings_max_object_size(void **state)
{
    assert_int_equal(object_size(*state, NULL, -1, NULL), 16 << 20);
    assert_int_equal(object_size(*state, NULL, 5000, NULL), 5000);
    assert_int_equal(object_size(*state, "1M", -1, NULL), 1 << 20);
    assert_int_equal(object_size(*state, "1M", 2 << 20, NULL), 1 << 20);
    assert_int_equal(object_size(*state, "1M", 5000, NULL), 5000);
    assert_int_equal(object_size(*state, "1M", 5000, "max_object_size=4000"),
                     4000);
    fake.limit = 5000;
    fake.calls[FAKE_CLOSE] = 0;
    open_fails(*state, &fake_full, OPTIONS("max_object_size=5001"),
               "max_object_size=5001: at most 4K is accepted");
    assert_int_equal(fake.calls[FAKE_CLOSE], 1);
}

/* --- life ----------------------------------------------------------------- */

static void test_store_is_off_until_post_config(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "h", 0);
    mw_set_t *set;
    apr_status_t rv;

    assert_int_equal(fixture_open(f, &fake_full, NONE), APR_SUCCESS);
    assert_null(mw_store_state(f->store));
    assert_false(mw_store_is_usable(f->store));
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(rv, APR_EGENERAL);
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_EGENERAL);
    assert_int_equal(
        mw_store_set_begin(f->store, &call, &key, &key, &entry, &set),
        APR_EGENERAL);
    assert_int_equal(mw_store_clear(f->store, &call), APR_EGENERAL);
    assert_int_equal(
        mw_store_set_head(f->store, &call, &key, &entry.id, &entry),
        APR_EGENERAL);
    mw_store_count(f->store, MW_COUNT_HIT, 1);
    assert_int_equal(fake.calls[FAKE_GET] + fake.calls[FAKE_SET], 0);
}

static void test_store_failing_post_config_is_off(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fake.fail[FAKE_POST_CONFIG] = APR_EACCES;
    assert_int_equal(fixture_open(f, &fake_full, NONE), APR_SUCCESS);
    assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0), APR_EACCES);
    assert_int_equal(fixture_logged(f, "cachemw[shop]: post_config failed"), 1);
    assert_int_equal(mw_store_child_init(f->store, f->pool), APR_EGENERAL);
    assert_int_equal(fake.calls[FAKE_CHILD_INIT], 0);
    assert_false(mw_store_is_usable(f->store));
    fixture_get(f, "k", &rv);
    assert_int_equal(fake.calls[FAKE_GET], 0);
}

static void test_store_failing_child_init_is_off(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fake.fail[FAKE_CHILD_INIT] = APR_EACCES;
    fixture_open(f, &fake_full, NONE);
    assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(mw_store_child_init(f->store, f->pool), APR_EACCES);
    assert_int_equal(fixture_logged(f, "off in this child"), 1);
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(fake.calls[FAKE_GET], 0);
}

/* A graceful restart follows a start at once, and shares its limits. */
static void test_store_failing_again_is_told_again(void **state)
{
    fixture_t *f = *state;
    int i;

    fake.fail[FAKE_CHILD_INIT] = APR_EACCES;
    for (i = 1; i <= 3; i++) {
        fixture_open(f, &fake_full, NONE);
        mw_store_post_config(f->store, f->pool, 0, 0);
        assert_int_equal(mw_store_child_init(f->store, f->pool), APR_EACCES);
        assert_int_equal(fixture_logged(f, "off in this child"), i);
        mw_segments_end(f->host.segments);
        f->host.segments = mw_segments_begin(f->host.segments, f->pool);
    }
}

static void test_store_close_reaches_the_provider(void **state)
{
    mw_store_t *store = fixture_start(*state, &fake_full, NONE);

    mw_store_close(store);
    assert_int_equal(fake.calls[FAKE_CLOSE], 1);
    assert_false(mw_store_is_usable(store));
}

static void test_store_state_is_kept_for_the_next_generation(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    const mw_state_t *there;
    apr_uint64_t epoch;

    fixture_start(f, &fake_full, NONE);
    mw_store_count(f->store, MW_COUNT_HIT, 5);
    epoch = mw_epoch_now(mw_store_state(f->store));
    mw_store_clear(f->store, &call);
    mw_segments_end(f->host.segments);
    f->host.segments = mw_segments_begin(f->host.segments, f->pool);
    fixture_start(f, &fake_full, NONE);
    assert_int_equal(fixture_sum(f, MW_COUNT_HIT), 5);
    there = mw_store_state(f->store);
    assert_true(
        mw_epoch_is_overtaken(there, mw_epoch_slot(there, &key), epoch));
}

static void test_store_checksum_follows_the_flag(void **state)
{
    cachemw_provider_t table = fake_full;

    assert_true(mw_store_wants_checksum(fixture_start(*state, &table, NONE)));
    table.flags = CACHEMW_IN_MEMORY;
    assert_false(mw_store_wants_checksum(fixture_start(*state, &table, NONE)));
}

/* --- get and read --------------------------------------------------------- */

static void test_get_gives_what_was_set(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = { .body = NULL };
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 7, 5);
    assert_string_equal(fixture_get(f, "k", &rv), "xxxxx");
    assert_int_equal(mw_store_get(f->store, &call, &key, &entry), APR_SUCCESS);
    assert_int_equal(entry.body_len, 5);
    assert_int_equal(entry.id.bytes[15], 7);
    assert_memory_equal(entry.head, "head", 4);
    assert_null(entry.body);
    fixture_set(f, "empty", 1, 0);
    assert_string_equal(fixture_get(f, "empty", &rv), "");
}

static void test_get_miss_is_neither_counted_nor_logged(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    fixture_start(f, &fake_full, NONE);
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(rv, APR_NOTFOUND);
    assert_int_equal(f->nlines, 0);
    for (i = 0; i < MW_COUNTERS; i++) {
        assert_int_equal(fixture_sum(f, i), 0);
    }
}

static void test_get_a_lie_costs_a_miss(void **state)
{
    static const fake_lie_e lies[] = { FAKE_LONG_BODY,      FAKE_NO_BODY,
                                       FAKE_FOREIGN_BODY,   FAKE_METADATA,
                                       FAKE_UNKNOWN_LENGTH, FAKE_LONG_HEAD,
                                       FAKE_NULL_HEAD };
    fixture_t *f = *state;
    apr_status_t rv;
    apr_size_t i;

    fixture_start(f, &fake_full, NONE);
    for (i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        fixture_set(f, "k", 1, 100);
        fake.lie = lies[i];
        if (fixture_get(f, "k", &rv) || rv != APR_NOTFOUND) {
            fail_msg("lie %d was believed", (int)lies[i]);
        }
        fake.lie = FAKE_HONEST;
        assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), i + 1);
        assert_null(fixture_get(f, "k", &rv));
    }
    assert_int_equal(fake.calls[FAKE_REMOVE], i);
    assert_int_equal(fixture_logged(f, "a damaged entry is removed"), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_REMOVED), 0);
}

/* A first piece is fine where the rest can be read, damage where not. */
static void test_get_short_body_without_read_is_a_lie(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 1, 100);
    fake.lie = FAKE_SHORT_BODY;
    assert_int_equal(strlen(fixture_get(f, "k", &rv)), 99);
    fixture_start(f, &fake_small, NONE);
    fixture_set(f, "k", 1, 100);
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(rv, APR_NOTFOUND);
}

static void test_get_expired_is_a_silent_miss(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 1, 10);
    fake.lie = FAKE_EXPIRED;
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(rv, APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 0);
    assert_int_equal(f->nlines, 0);
}

static void test_get_leaves_no_buckets_of_a_failure(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fake.lie = FAKE_BUCKETS_BUT_FAIL;
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(rv, APR_NOTFOUND);
}

static void test_get_damaged_is_removed(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 1, 10);
    fake.fail[FAKE_GET] = APR_EINCOMPLETE;
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(rv, APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 0);
    assert_int_equal(apr_hash_count(fake.entries), 0);
}

static void test_damaged_head_removes_this_entry_only(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 2, 10);
    mw_store_damaged(f->store, &call, &key, &entry.id);
    assert_non_null(fixture_get(f, "k", &rv));
    memset(&entry.id, 2, sizeof(entry.id));
    mw_store_damaged(f->store, &call, &key, &entry.id);
    assert_null(fixture_get(f, "k", &rv));
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 2);
}

static void read_is(fixture_t *f, apr_off_t offset, apr_size_t limit,
                    apr_status_t expected, apr_off_t length)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    apr_bucket_brigade *body = apr_brigade_create(f->pool, f->alloc);
    apr_off_t got;

    APR_BRIGADE_INSERT_TAIL(body,
                            apr_bucket_immortal_create("abc", 3, f->alloc));
    assert_int_equal(
        mw_store_read(f->store, &call, &key, &entry.id, offset, limit, body),
        expected);
    apr_brigade_length(body, 1, &got);
    assert_int_equal(got, 3 + length);
    apr_brigade_destroy(body);
}

static void test_read_appends_a_piece(void **state)
{
    fixture_start(*state, &fake_full, NONE);
    fixture_set(*state, "k", 1, 100);
    read_is(*state, 0, 10, APR_SUCCESS, 10);
    read_is(*state, 95, 10, APR_SUCCESS, 5);
}

static void test_read_failing_leaves_the_brigade_alone(void **state)
{
    fixture_t *f = *state;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 1, 100);
    fake.lie = FAKE_LONG_PIECE;
    read_is(f, 10, 10, APR_NOTFOUND, 0);
    fixture_set(f, "k", 1, 100);
    fake.lie = FAKE_EMPTY_PIECE;
    read_is(f, 10, 10, APR_NOTFOUND, 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 2);
    /* which is core's word for "not even tried" */
    fake.fail[FAKE_READ] = APR_EGENERAL;
    read_is(f, 10, 10, EIO, 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 1);
    assert_int_equal(fixture_logged(f, "read: failed"), 1);
}

static void test_read_is_made_of_get(void **state)
{
    fixture_t *f = *state;

    fixture_start(f, &fake_small, NONE);
    fixture_set(f, "k", 1, 100);
    read_is(f, 0, 10, APR_SUCCESS, 10);
    read_is(f, 40, 10, APR_SUCCESS, 10);
    read_is(f, 90, 10, APR_SUCCESS, 10);
    read_is(f, 91, 10, APR_SUCCESS, 9);
    read_is(f, 0, 1000, APR_SUCCESS, 100);
    read_is(f, 100, 10, APR_NOTFOUND, 0);
    fixture_set(f, "k", 2, 100);
    read_is(f, 0, 10, APR_NOTFOUND, 0);
}

/* --- the other slots and their defaults ----------------------------------- */

static void test_exists_is_made_of_get(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k"), none = fixture_key("none");

    fixture_start(f, &fake_small, NONE);
    fixture_set(f, "k", 1, 10);
    assert_int_equal(mw_store_exists(f->store, &call, &key), APR_SUCCESS);
    assert_int_equal(mw_store_exists(f->store, &call, &none), APR_NOTFOUND);
    assert_int_equal(fake.calls[FAKE_GET], 2);
    fixture_start(f, &fake_full, NONE);
    assert_int_equal(mw_store_exists(f->store, &call, &key), APR_SUCCESS);
    assert_int_equal(mw_store_exists(f->store, &call, &none), APR_NOTFOUND);
    fake.fail[FAKE_EXISTS] = APR_EINCOMPLETE;
    assert_int_equal(mw_store_exists(f->store, &call, &key), APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 1);
    assert_int_equal(fake.calls[FAKE_GET], 2);
}

static apr_status_t no_key(void *baton, const cachemw_key_t *key,
                           const cachemw_entry_t *entry)
{
    (void)baton, (void)key, (void)entry;
    fail_msg("there is no key");
    return APR_SUCCESS;
}

static void test_missing_slots_have_defaults(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_provider_t table = fake_small;
    cachemw_stats_t stats = { .size = sizeof(stats), .entries = 99 };
    int more = 1;

    table.close = NULL;
    fixture_start(f, &table, NONE);
    assert_int_equal(mw_store_clear(f->store, &call), APR_ENOTIMPL);
    assert_int_equal(mw_store_keys(f->store, &call, NULL, no_key, NULL),
                     APR_ENOTIMPL);
    assert_int_equal(mw_store_sweep(f->store, &call, &more), APR_SUCCESS);
    assert_int_equal(more, 0);
    assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_SUCCESS);
    assert_int_equal(stats.entries, -1);
    assert_int_equal(stats.bytes_max, -1);
    assert_int_equal(stats.size, sizeof(stats));
    stats.size = offsetof(cachemw_stats_t, extra);
    assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_EINVAL);
    assert_int_equal(f->nlines, 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 0);
    mw_store_close(f->store);
}

static void test_remove_is_counted(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(2, "", 0);

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "k", 1, 10);
    assert_int_equal(mw_store_remove(f->store, &call, &key, &entry.id),
                     APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_REMOVED), 0);
    assert_int_equal(mw_store_remove(f->store, &call, &key, NULL), APR_SUCCESS);
    assert_int_equal(fixture_sum(f, MW_COUNT_REMOVED), 1);
}

typedef struct collected_t {
    int n;
    int stop_after;
} collected_t;

static apr_status_t keys_collect(void *baton, const cachemw_key_t *key,
                                 const cachemw_entry_t *entry)
{
    collected_t *collected = baton;

    (void)key, (void)entry;
    collected->n++;
    return collected->n == collected->stop_after ? APR_EOF : APR_SUCCESS;
}

static int keys_count(fixture_t *f, const char *pattern, apr_time_t now)
{
    cachemw_call_t call = fixture_call(f);
    collected_t collected = { 0, 0 };

    call.now = now;
    assert_int_equal(
        mw_store_keys(f->store, &call, pattern, keys_collect, &collected),
        APR_SUCCESS);
    return collected.n;
}

static void test_keys_are_filtered(void **state)
{
    fixture_t *f = *state;

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "shop/a", 1, 1);
    fixture_set(f, "shop/b", 1, 1);
    fixture_set(f, "wiki/a", 1, 1);
    assert_int_equal(keys_count(f, NULL, FIXTURE_NOW), 3);
    assert_int_equal(keys_count(f, "shop*", FIXTURE_NOW), 2);
    assert_int_equal(keys_count(f, "*/a", FIXTURE_NOW), 2);
    assert_int_equal(keys_count(f, "nothing", FIXTURE_NOW), 0);
    assert_int_equal(keys_count(f, NULL, FIXTURE_NOW + 3600000000), 0);
}

static void test_keys_ended_by_the_caller_is_no_error(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    collected_t collected = { 0, 2 };

    fixture_start(f, &fake_full, NONE);
    fixture_set(f, "a", 1, 1);
    fixture_set(f, "b", 1, 1);
    fixture_set(f, "c", 1, 1);
    assert_int_equal(
        mw_store_keys(f->store, &call, NULL, keys_collect, &collected),
        APR_EOF);
    assert_int_equal(collected.n, 2);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 0);
    assert_int_equal(f->nlines, 0);
}

static void test_sync_has_none_and_its_failures_count(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);

    fixture_start(f, &fake_full, NONE);
    assert_true(mw_store_can_sync(f->store));
    assert_int_equal(mw_store_sync(f->store, &call), APR_SUCCESS);
    assert_int_equal(fake.calls[FAKE_SYNC], 1);
    assert_int_equal(fake.seen.deadline, 0);
    assert_int_equal(mw_store_sync_interval(f->store), apr_time_from_sec(30));
    fake.fail[FAKE_SYNC] = EIO;
    assert_int_equal(mw_store_sync(f->store, &call), EIO);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 1);
}

static void test_sweep_has_a_deadline(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    apr_int64_t before = mw_monotonic();
    int more = 0;

    fixture_start(f, &fake_full, NONE);
    assert_true(mw_store_can_sweep(f->store));
    assert_int_equal(mw_store_sweep(f->store, &call, &more), APR_SUCCESS);
    assert_int_equal(more, 1);
    assert_in_range(fake.seen.deadline, before + 10000, mw_monotonic() + 10000);
    fake.fail[FAKE_SWEEP] = EIO;
    assert_int_equal(mw_store_sweep(f->store, &call, &more), EIO);
    assert_int_equal(more, 0);
}

/* --- trouble -------------------------------------------------------------- */

static void test_trouble_is_counted_by_kind(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_ECONNREFUSED);
    fake.fail[FAKE_SET] = APR_EGENERAL;
    mw_store_set(f->store, &call, &key, &entry);
    fake.fail[FAKE_SET_HEAD] = APR_EACCES;
    mw_store_set_head(f->store, &call, &key, &entry.id, &entry);
    fake.fail[FAKE_CLEAR] = APR_EGENERAL;
    mw_store_clear(f->store, &call);
    fake.fail[FAKE_GET] = APR_TIMEUP;
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_TIMEUP);
    fake.fail[FAKE_GET] = APR_ETIMEDOUT;
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 2);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 2);
}

/* A code that has a meaning in one slot only is trouble in the others. */
static void test_trouble_is_what_a_slot_may_not_answer(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_GET] = APR_ENOSPC;
    fixture_get(f, "k", &rv);
    fake.fail[FAKE_GET] = APR_ENOTIMPL;
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 2);
    fake.fail[FAKE_SET] = APR_EINCOMPLETE;
    mw_store_set(f->store, &call, &key, &entry);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
    fake.fail[FAKE_REMOVE] = APR_ENOTIMPL;
    mw_store_remove(f->store, &call, &key, NULL);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 1);
    fake.fail[FAKE_SET] = APR_ENOSPC;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_ENOSPC);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_SET), 1);
}

static void test_trouble_is_logged_at_a_limited_rate(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_GET] = APR_EGENERAL;
    for (i = 0; i < 100; i++) {
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fixture_logged(f, "cachemw[shop]: get: failed"), 1);
    fake.fail[FAKE_GET] = APR_TIMEUP;
    for (i = 0; i < 100; i++) {
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fixture_logged(f, "get: timed out"), 1);
    assert_int_equal(f->nlines, 2);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 100);
}

static void test_log_limits_warnings_only(void **state)
{
    fixture_t *f = *state;
    int i;

    fixture_start(f, &fake_full, NONE);
    for (i = 0; i < 5; i++) {
        mw_store_log(f->store, CACHEMW_LOG_INFO, APR_SUCCESS, "born %d", i);
        mw_store_log(f->store, CACHEMW_LOG_ERR, APR_SUCCESS, "bad %d", i);
    }
    assert_int_equal(fixture_logged(f, "born"), 5);
    assert_int_equal(fixture_logged(f, "cachemw[shop]: born 4"), 1);
    assert_int_equal(fixture_logged(f, "bad"), 5);
}

static void test_log_tells_how_many_it_left_out(void **state)
{
    fixture_t *f = *state;
    const apr_int64_t before = mw_monotonic() - 20 * APR_USEC_PER_SEC;
    apr_uint32_t kind = mw_store_log_hash("again");
    apr_uint32_t suppressed;
    int i;

    fixture_start(f, &fake_full, NONE);
    for (i = 0; i < 4; i++) {
        mw_log_allowed(mw_store_state(f->store), kind, before, &suppressed);
    }
    mw_store_log(f->store, CACHEMW_LOG_WARNING, APR_SUCCESS, "again");
    assert_int_equal(
        fixture_logged(f, "again (and 3 more like it, not logged)"), 1);
}

static void test_log_long_lines_are_cut(void **state)
{
    fixture_t *f = *state;
    char text[5000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    fixture_start(f, &fake_full, NONE);
    mw_store_log(f->store, CACHEMW_LOG_INFO, APR_SUCCESS, "%s", text);
    assert_in_range(strlen(f->lines[0]), 1000, 1024);
}

/* --- samples -------------------------------------------------------------- */

static void test_samples_are_one_in_64(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    int i;

    fixture_start(f, &fake_full, NONE);
    for (i = 0; i < 6400; i++) {
        /* a clock that ticks in milliseconds */
        call.now = FIXTURE_NOW + i * 1000;
        entry.expires = call.now + 1;
        mw_store_set(f->store, &call, &key, &entry);
        entry.body = NULL;
        mw_store_get(f->store, &call, &key, &entry);
    }
    assert_in_range(fixture_sum(f, MW_COUNT_GET_SAMPLES), 80, 120);
    assert_int_equal(fixture_sum(f, MW_COUNT_GET_SAMPLES),
                     fixture_sum(f, MW_COUNT_SET_SAMPLES));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_table_without_a_required_slot_is_refused),
        TEST(test_table_of_no_size_is_refused),
        TEST(test_table_with_unknown_flags_is_refused),
        TEST(test_table_smaller_than_ours_has_fewer_slots),
        TEST(test_table_larger_than_ours_is_read_as_far_as_known),
        TEST(test_table_is_copied),
        TEST(test_open_tells_what_the_provider_says),
        TEST(test_settings_have_the_documented_defaults),
        TEST(test_settings_are_read),
        TEST(test_settings_out_of_range_are_refused),
        TEST(test_settings_local_stores_have_no_timeout),
        TEST(test_settings_of_the_provider_win),
        TEST(test_settings_max_object_size),
        TEST(test_store_is_off_until_post_config),
        TEST(test_store_failing_post_config_is_off),
        TEST(test_store_failing_child_init_is_off),
        TEST(test_store_failing_again_is_told_again),
        TEST(test_store_close_reaches_the_provider),
        TEST(test_store_state_is_kept_for_the_next_generation),
        TEST(test_store_checksum_follows_the_flag),
        TEST(test_get_gives_what_was_set),
        TEST(test_get_miss_is_neither_counted_nor_logged),
        TEST(test_get_a_lie_costs_a_miss),
        TEST(test_get_short_body_without_read_is_a_lie),
        TEST(test_get_expired_is_a_silent_miss),
        TEST(test_get_leaves_no_buckets_of_a_failure),
        TEST(test_get_damaged_is_removed),
        TEST(test_damaged_head_removes_this_entry_only),
        TEST(test_read_appends_a_piece),
        TEST(test_read_failing_leaves_the_brigade_alone),
        TEST(test_read_is_made_of_get),
        TEST(test_exists_is_made_of_get),
        TEST(test_missing_slots_have_defaults),
        TEST(test_remove_is_counted),
        TEST(test_keys_are_filtered),
        TEST(test_keys_ended_by_the_caller_is_no_error),
        TEST(test_sync_has_none_and_its_failures_count),
        TEST(test_sweep_has_a_deadline),
        TEST(test_trouble_is_counted_by_kind),
        TEST(test_trouble_is_what_a_slot_may_not_answer),
        TEST(test_trouble_is_logged_at_a_limited_rate),
        TEST(test_log_limits_warnings_only),
        TEST(test_log_tells_how_many_it_left_out),
        TEST(test_log_long_lines_are_cut),
        TEST(test_samples_are_one_in_64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
