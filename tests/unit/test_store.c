/* SPDX-License-Identifier: Apache-2.0 */

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "core/store_private.h"
#include "store_fixture.h"

#define NONE ((const char *const *)NULL)
#define OPTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })

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
               "min_object_size=2048 is above max_object_size, 1024");
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
               "max_object_size=5001: this store takes at most 5000");
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
    fake.fail[FAKE_READ] = APR_EGENERAL;
    read_is(f, 10, 10, APR_EGENERAL, 0);
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
    fake.fail[FAKE_SYNC] = APR_EGENERAL;
    assert_int_equal(mw_store_sync(f->store, &call), APR_EGENERAL);
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
    fake.fail[FAKE_SWEEP] = APR_EGENERAL;
    assert_int_equal(mw_store_sweep(f->store, &call, &more), APR_EGENERAL);
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

/* --- deadline and breaker ------------------------------------------------- */

static mw_store_t *start_remote(fixture_t *f)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_REMOTE;
    return fixture_start(f, &table, NONE);
}

static void test_deadline_of_remote_stores_only(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "", 0);
    apr_int64_t before;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fixture_get(f, "k", &rv);
    assert_int_equal(fake.seen.deadline, 0);
    start_remote(f);
    before = mw_monotonic();
    fixture_get(f, "k", &rv);
    assert_in_range(fake.seen.deadline, before + 250000,
                    mw_monotonic() + 250000);
    before = mw_monotonic();
    mw_store_set(f->store, &call, &key, &entry);
    assert_in_range(fake.seen.deadline, before + 50000, mw_monotonic() + 50000);
    call.deadline = mw_monotonic() + 3000000;
    mw_store_set(f->store, &call, &key, &entry);
    assert_int_equal(fake.seen.deadline, call.deadline);
}

static void test_deadline_already_past_is_no_failure(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    int i;

    start_remote(f);
    call.deadline = 1;
    for (i = 0; i < 10; i++) {
        assert_int_equal(mw_store_exists(f->store, &call, &key), APR_TIMEUP);
    }
    assert_int_equal(fake.calls[FAKE_EXISTS], 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 10);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 0);
    assert_true(mw_store_is_usable(f->store));
}

static void test_breaker_opens_after_five_failures(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    for (i = 0; i < 50; i++) {
        fixture_get(f, "k", &rv);
        assert_int_equal(rv, i < 5 ? APR_ECONNREFUSED : APR_EGENERAL);
    }
    assert_int_equal(fake.calls[FAKE_GET], 5);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 45);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 5);
    assert_int_equal(fixture_logged(f, "5 failures in a row"), 1);
    assert_false(mw_store_is_usable(f->store));
}

static void test_breaker_of_local_stores_never_opens(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    for (i = 0; i < 50; i++) {
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fake.calls[FAKE_GET], 50);
    assert_true(mw_store_is_usable(f->store));
}

/* A miss, a full store and a damaged entry are answers: it works. */
static void test_breaker_counts_answers_as_success(void **state)
{
    static const apr_status_t answers[] = { APR_SUCCESS, APR_NOTFOUND,
                                            APR_EINCOMPLETE };
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    for (i = 0; i < 30; i++) {
        int fails = i % 5 < 4;

        fake.fail[FAKE_GET] = fails ? APR_ECONNREFUSED : answers[i / 5 % 3];
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fake.calls[FAKE_GET], 30);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 0);
}

/* Open it in the past, so that the pause is over now. */
static void breaker_open_long_ago(mw_store_t *store)
{
    int i;

    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        mw_breaker_failure(mw_store_state(store),
                           mw_monotonic() - 3 * MW_BREAKER_BACKOFF, 0,
                           APR_ECONNREFUSED);
    }
}

static void test_breaker_closes_when_a_probe_works(void **state)
{
    fixture_t *f = *state;
    apr_status_t why, rv;
    apr_int64_t until;

    breaker_open_long_ago(start_remote(f));
    assert_int_equal(mw_breaker_read(mw_store_state(f->store), &why, &until),
                     MW_BREAKER_OPEN);
    assert_true(mw_store_is_usable(f->store));
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_NOTFOUND);
    assert_int_equal(mw_breaker_read(mw_store_state(f->store), &why, &until),
                     MW_BREAKER_CLOSED);
    assert_int_equal(fixture_logged(f, "works again"), 1);
}

static void test_breaker_stays_open_when_a_probe_fails(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    breaker_open_long_ago(start_remote(f));
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    fixture_get(f, "k", &rv);
    fixture_get(f, "k", &rv);
    assert_int_equal(rv, APR_EGENERAL);
    assert_int_equal(fake.calls[FAKE_GET], 1);
    assert_false(mw_store_is_usable(f->store));
}

/* Who only looks now and then must not miss that it was out of use. */
static void test_breaker_each_change_is_a_line(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    for (i = 0; i < 4; i++) {
        breaker_open_long_ago(f->store);
        fixture_get(f, "k", &rv);
    }
    assert_int_equal(fixture_logged(f, "works again"), 4);
    for (i = 0; i < 4; i++) {
        int failures;

        fake.fail[FAKE_GET] = APR_ECONNREFUSED;
        for (failures = 0; failures < MW_BREAKER_FAILURES; failures++) {
            fixture_get(f, "k", &rv);
        }
        fake.fail[FAKE_GET] = APR_SUCCESS;
        assert_true(
            mw_breaker_allows(mw_store_state(f->store),
                              mw_monotonic() + 2 * MW_BREAKER_BACKOFF_MAX));
        mw_breaker_success(mw_store_state(f->store));
    }
    assert_int_equal(fixture_logged(f, "failures in a row"), 4);
}

/* The backend has done nothing wrong when there is no connection to be had. */
static void test_breaker_is_not_told_of_what_was_not_tried(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_remote(f);
    fake.fail[FAKE_GET] = APR_EAGAIN;
    for (i = 0; i < 20; i++) {
        fixture_get(f, "k", &rv);
        assert_int_equal(rv, APR_EGENERAL);
    }
    assert_int_equal(fake.calls[FAKE_GET], 20);
    assert_int_equal(fixture_sum(f, MW_COUNT_SKIPPED), 20);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_GET), 0);
    assert_int_equal(f->nlines, 0);
    assert_true(mw_store_is_usable(f->store));
}

/* A page that is looked at every second must not make the store look well. */
static void test_breaker_is_not_told_of_stats(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_stats_t stats = { .size = sizeof(stats) };
    apr_status_t rv;
    int i;

    start_remote(f);
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        assert_true(mw_store_is_usable(f->store));
        fixture_get(f, "k", &rv);
        assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_SUCCESS);
    }
    assert_false(mw_store_is_usable(f->store));
    assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_SUCCESS);
}

/* Nor must who looks at a page make the errors that it shows. */
static void test_stats_that_fail_are_not_counted(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_stats_t stats = { .size = sizeof(stats) };

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_STATS] = EIO;
    assert_int_equal(mw_store_stats(f->store, &call, &stats), EIO);
    fake.fail[FAKE_STATS] = APR_TIMEUP;
    assert_int_equal(mw_store_stats(f->store, &call, &stats), APR_TIMEUP);
    assert_int_equal(fixture_sum(f, MW_COUNT_ERROR_OTHER), 0);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 0);
}

/* Addresses are looked up there: without them the store would never come
 * back. */
static void test_sweep_of_remote_stores_goes_on_without_it(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    apr_status_t why;
    apr_int64_t until;
    const apr_int64_t before = mw_monotonic();
    int more = 0;
    int i;

    breaker_open_long_ago(start_remote(f));
    assert_int_equal(mw_store_sweep(f->store, &call, &more), APR_SUCCESS);
    assert_in_range(fake.seen.deadline, before + 1000000,
                    mw_monotonic() + 1000000);
    assert_int_equal(mw_breaker_read(mw_store_state(f->store), &why, &until),
                     MW_BREAKER_OPEN);
    fixture_start(f, &fake_full, NONE);
    start_remote(f);
    fake.fail[FAKE_SWEEP] = APR_EGENERAL;
    for (i = 0; i < 2 * MW_BREAKER_FAILURES; i++) {
        assert_int_equal(mw_store_sweep(f->store, &call, &more), APR_EGENERAL);
    }
    assert_true(mw_store_is_usable(f->store));
}

static void test_sweep_interval_of_remote_stores_is_short(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;

    fixture_start(f, &table, NONE);
    assert_int_equal(mw_store_sweep_interval(f->store), apr_time_from_sec(300));
    table.flags = CACHEMW_REMOTE;
    fixture_start(f, &table, NONE);
    assert_int_equal(mw_store_sweep_interval(f->store), apr_time_from_sec(10));
    fixture_start(f, &table, OPTIONS("cleanup_interval=2s"));
    assert_int_equal(mw_store_sweep_interval(f->store), apr_time_from_sec(2));
}

/* --- bodies under way ----------------------------------------------------- */

typedef struct reading_t {
    cachemw_call_t call;
    cachemw_key_t key;
    cachemw_id_t id;
    apr_bucket_brigade *body;
    apr_interval_time_t left;
} reading_t;

static reading_t reading_make(fixture_t *f)
{
    reading_t reading = { fixture_call(f),
                          fixture_key("k"),
                          { { 0 } },
                          NULL,
                          mw_store_settings(f->store)->body_timeout };

    fixture_set(f, "k", 1, 1000);
    reading.id = fixture_entry(1, "", 0).id;
    reading.body = apr_brigade_create(f->pool, f->alloc);
    return reading;
}

static apr_status_t reading_go(fixture_t *f, reading_t *reading)
{
    return mw_store_read_on(f->store, &reading->call, &reading->key,
                            &reading->id, 100, 200, reading->body,
                            &reading->left);
}

static mw_store_t *start_remote_with(fixture_t *f, const char *const *options)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_REMOTE;
    return fixture_start(f, &table, options);
}

static void during_fail_twice(fake_slot_e slot)
{
    fake.fail[slot] = fake.calls[slot] <= 2 ? APR_ECONNRESET : APR_SUCCESS;
}

/* A visitor whose page has begun does not see that a connection broke. */
static void test_read_on_tries_again(void **state)
{
    fixture_t *f = *state;
    reading_t reading;
    apr_off_t length;

    start_remote(f);
    reading = reading_make(f);
    fake.during = during_fail_twice;
    assert_int_equal(reading_go(f, &reading), APR_SUCCESS);
    assert_int_equal(fake.calls[FAKE_READ], 3);
    assert_int_equal(apr_brigade_length(reading.body, 1, &length), APR_SUCCESS);
    assert_int_equal(length, 200);
    assert_in_range(reading.left, 1, 10000000 - 2 * 100000);
}

static void test_read_on_ends_with_body_timeout(void **state)
{
    fixture_t *f = *state;
    apr_int64_t begin;
    reading_t reading;

    start_remote_with(f, OPTIONS("body_timeout=350ms", "timeout=5s"));
    reading = reading_make(f);
    fake.fail[FAKE_READ] = APR_ECONNREFUSED;
    begin = mw_monotonic();
    assert_int_equal(reading_go(f, &reading), APR_ECONNREFUSED);
    assert_in_range(mw_monotonic() - begin, 250000, 4000000);
    assert_in_range(fake.calls[FAKE_READ], 1, 4);
    assert_in_range(fake.seen.deadline, begin, begin + 3000000);
    reading.left = 0;
    fake.calls[FAKE_READ] = 0;
    assert_int_equal(reading_go(f, &reading), APR_TIMEUP);
    assert_int_equal(fake.calls[FAKE_READ], 0);
}

static void test_read_on_each_attempt_has_its_deadline(void **state)
{
    fixture_t *f = *state;
    apr_int64_t begin;
    reading_t reading;

    start_remote(f);
    reading = reading_make(f);
    begin = mw_monotonic();
    assert_int_equal(reading_go(f, &reading), APR_SUCCESS);
    assert_in_range(fake.seen.deadline, begin + 250000,
                    mw_monotonic() + 250000);
}

/* What is gone does not come back, and a local store is not waited for. */
static void test_read_on_gives_up_where_waiting_is_of_no_use(void **state)
{
    fixture_t *f = *state;
    reading_t reading;

    start_remote(f);
    reading = reading_make(f);
    fake.fail[FAKE_READ] = APR_NOTFOUND;
    assert_int_equal(reading_go(f, &reading), APR_NOTFOUND);
    fake.fail[FAKE_READ] = APR_EINCOMPLETE;
    assert_int_equal(reading_go(f, &reading), APR_NOTFOUND);
    assert_int_equal(fake.calls[FAKE_READ], 2);
    fixture_start(f, &fake_full, NONE);
    reading = reading_make(f);
    fake.calls[FAKE_READ] = 0;
    fake.fail[FAKE_READ] = APR_EGENERAL;
    assert_int_equal(reading_go(f, &reading), APR_EGENERAL);
    assert_int_equal(fake.calls[FAKE_READ], 1);
    mw_store_close(f->store);
    assert_int_equal(reading_go(f, &reading), APR_EGENERAL);
}

/* It comes back while a body is under way. */
static void test_read_on_waits_for_the_breaker(void **state)
{
    fixture_t *f = *state;
    apr_status_t why;
    apr_int64_t until;
    reading_t reading;
    int i;

    start_remote(f);
    reading = reading_make(f);
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        mw_breaker_failure(mw_store_state(f->store),
                           mw_monotonic() - MW_BREAKER_BACKOFF + 150000, 0,
                           APR_ECONNREFUSED);
    }
    mw_breaker_read(mw_store_state(f->store), &why, &until);
    assert_int_equal(reading_go(f, &reading), APR_SUCCESS);
    assert_true(mw_monotonic() >= until);
    assert_int_equal(fake.calls[FAKE_READ], 1);
}

/* --- threads -------------------------------------------------------------- */

#define THREADS 4

static int overlaps, inside;
static pthread_barrier_t barrier;

static void during_watch(fake_slot_e slot)
{
    int i;

    (void)slot;
    if (__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) > 1) {
        __atomic_add_fetch(&overlaps, 1, __ATOMIC_SEQ_CST);
    }
    for (i = 0; i < 3; i++) {
        sched_yield();
    }
    __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
}

/* Nobody leaves before all are in. */
static void during_meet(fake_slot_e slot)
{
    (void)slot;
    __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&barrier);
    if (__atomic_load_n(&inside, __ATOMIC_SEQ_CST) == THREADS) {
        __atomic_add_fetch(&overlaps, 1, __ATOMIC_SEQ_CST);
    }
}

typedef struct worker_t {
    fixture_t *f;
    int rounds;
    apr_pool_t *pool;
} worker_t;

static void *worker_run(void *data)
{
    worker_t *worker = data;
    cachemw_call_t call = fixture_call(worker->f);
    cachemw_key_t key = fixture_key("k");
    cachemw_stats_t stats = { .size = sizeof(stats) };
    int i, more;

    call.pool = worker->pool;
    call.bucket_alloc = NULL;
    for (i = 0; i < worker->rounds; i++) {
        mw_store_exists(worker->f->store, &call, &key);
        mw_store_remove(worker->f->store, &call, &key, NULL);
        if (worker->rounds > 1) {
            mw_store_sweep(worker->f->store, &call, &more);
            mw_store_stats(worker->f->store, &call, &stats);
        }
    }
    return NULL;
}

static void run_threads(fixture_t *f, int rounds)
{
    worker_t workers[THREADS];
    pthread_t threads[THREADS];
    int i;

    overlaps = 0;
    inside = 0;
    for (i = 0; i < THREADS; i++) {
        workers[i].f = f;
        workers[i].rounds = rounds;
        apr_pool_create(&workers[i].pool, NULL);
        pthread_create(&threads[i], NULL, worker_run, &workers[i]);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        apr_pool_destroy(workers[i].pool);
    }
    fake.during = NULL;
}

static void test_serialize_lets_one_call_in(void **state)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_SERIALIZE;
    fixture_start(*state, &table, NONE);
    fake.during = during_watch;
    run_threads(*state, 300);
    assert_int_equal(overlaps, 0);
    assert_int_equal(fake.calls[FAKE_EXISTS], THREADS * 300);
    assert_int_equal(fake.calls[FAKE_STATS], THREADS * 300);
}

static void test_without_serialize_calls_overlap(void **state)
{
    fixture_start(*state, &fake_full, NONE);
    fake.during = during_meet;
    pthread_barrier_init(&barrier, NULL, THREADS);
    run_threads(*state, 1);
    pthread_barrier_destroy(&barrier);
    assert_true(overlaps >= 1);
}

static apr_status_t keys_remove(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    fixture_t *f = baton;
    cachemw_call_t call = fixture_call(f);

    return mw_store_remove(f->store, &call, key, &entry->id);
}

static void test_serialize_lets_keys_call_the_store(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_SERIALIZE;
    fixture_start(f, &table, NONE);
    fixture_set(f, "k", 1, 1);
    assert_int_equal(mw_store_keys(f->store, &call, NULL, keys_remove, f),
                     APR_SUCCESS);
    assert_int_equal(apr_hash_count(fake.entries), 0);
}

static void *hold_run(void *data)
{
    apr_status_t rv;
    worker_t *worker = data;
    cachemw_call_t call = fixture_call(worker->f);
    cachemw_key_t key = fixture_key("k");

    call.pool = worker->pool;
    rv = mw_store_exists(worker->f->store, &call, &key);
    return (void *)(apr_uintptr_t)rv;
}

static void during_hold(fake_slot_e slot)
{
    (void)slot;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
}

/* Who waits for the lock is out of time, the provider is not to blame. */
static void test_serialize_waits_no_longer_than_the_deadline(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_provider_t table = fake_full;
    worker_t worker = { f, 1, NULL };
    pthread_t thread;

    table.flags = CACHEMW_SERIALIZE;
    fixture_start(f, &table, NONE);
    apr_pool_create(&worker.pool, NULL);
    pthread_barrier_init(&barrier, NULL, 2);
    fake.during = during_hold;
    pthread_create(&thread, NULL, hold_run, &worker);
    pthread_barrier_wait(&barrier);
    call.deadline = mw_monotonic() + 5000;
    assert_int_equal(mw_store_remove(f->store, &call, &key, NULL), APR_TIMEUP);
    assert_int_equal(fake.calls[FAKE_REMOVE], 0);
    fake.during = NULL;
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
    apr_pool_destroy(worker.pool);
    assert_int_equal(fixture_sum(f, MW_COUNT_TIMEOUT), 1);
    assert_int_equal(fixture_logged(f, "remove: other calls take too long"), 1);
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

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

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
        TEST(test_deadline_of_remote_stores_only),
        TEST(test_deadline_already_past_is_no_failure),
        TEST(test_breaker_each_change_is_a_line),
        TEST(test_breaker_is_not_told_of_what_was_not_tried),
        TEST(test_breaker_is_not_told_of_stats),
        TEST(test_stats_that_fail_are_not_counted),
        TEST(test_sweep_of_remote_stores_goes_on_without_it),
        TEST(test_sweep_interval_of_remote_stores_is_short),
        TEST(test_read_on_tries_again),
        TEST(test_read_on_ends_with_body_timeout),
        TEST(test_read_on_each_attempt_has_its_deadline),
        TEST(test_read_on_gives_up_where_waiting_is_of_no_use),
        TEST(test_read_on_waits_for_the_breaker),
        TEST(test_breaker_opens_after_five_failures),
        TEST(test_breaker_of_local_stores_never_opens),
        TEST(test_breaker_counts_answers_as_success),
        TEST(test_breaker_closes_when_a_probe_works),
        TEST(test_breaker_stays_open_when_a_probe_fails),
        TEST(test_serialize_lets_one_call_in),
        TEST(test_without_serialize_calls_overlap),
        TEST(test_serialize_lets_keys_call_the_store),
        TEST(test_serialize_waits_no_longer_than_the_deadline),
        TEST(test_samples_are_one_in_64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
