/* SPDX-License-Identifier: Apache-2.0 */

/* Faults that do not happen would let every test pass that asks for them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "tests/unit/store_fixture.h"

extern module AP_MODULE_DECLARE_DATA cachemw_faulty_module;

static const cachemw_provider_t *local, *remote;

AP_DECLARE(apr_status_t)
ap_register_provider(apr_pool_t *pool, const char *group, const char *name,
                     const char *version, const void *table)
{
    (void)pool;
    assert_string_equal(group, CACHEMW_PROVIDER_GROUP);
    assert_string_equal(version, CACHEMW_PROVIDER_VERSION);
    *(strcmp(name, "faulty") == 0 ? &local : &remote) = table;
    return APR_SUCCESS;
}

static char directory[32], path[64];

static void faults(const char *text)
{
    static int turn;
    char temp[80];
    FILE *file;

    snprintf(temp, sizeof(temp), "%s.%d", path, ++turn);
    file = fopen(temp, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(rename(temp, path), 0);
}

static int setup(void **state)
{
    fixture_t *f;

    fixture_setup(state);
    f = *state;
    apr_cpystrn(directory, "/tmp/test_faulty.XXXXXX", sizeof(directory));
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/faults", directory);
    cachemw_faulty_module.register_hooks(f->pool);
    f->other = fixture_start(f, &fake_full, NULL);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    rmdir(directory);
    return fixture_teardown(state);
}

static void start(fixture_t *f, const cachemw_provider_t *table)
{
    const char *const options[] = { "inner=other",
                                    apr_pstrcat(f->pool, "faults=", path, NULL),
                                    NULL };

    f->name = "tested"; /* with counters of its own */
    fixture_start(f, table, options);
    fixture_set(f, "a", 1, 100);
    fixture_set(f, "b", 2, 50);
}

static apr_status_t get(fixture_t *f, const char *key)
{
    apr_status_t rv;

    fixture_get(f, key, &rv);
    return rv;
}

static void test_no_file_no_faults(void **state)
{
    start(*state, local);
    assert_int_equal(get(*state, "a"), APR_SUCCESS);
    assert_int_equal(fixture_logged(*state, "line"), 0);
}

static void test_errors(void **state)
{
    start(*state, local);
    faults("get error\n");
    assert_int_equal(get(*state, "a"), EIO);
    faults("# get error\n\nget error=ECONNREFUSED\n");
    assert_int_equal(get(*state, "a"), ECONNREFUSED);
    faults("get notfound");
    assert_int_equal(get(*state, "a"), APR_NOTFOUND);
    faults("set enospc\nread error\n");
    assert_int_equal(get(*state, "a"), APR_SUCCESS);
    faults("get error=EINCOMPLETE");
    assert_int_equal(get(*state, "a"), APR_NOTFOUND);
    faults("");
    assert_int_equal(get(*state, "a"), APR_NOTFOUND); /* it was removed */
}

static void test_every_slot_can_fail(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("a");
    cachemw_entry_t entry = fixture_entry(1, "h", -1);
    apr_bucket_brigade *body = apr_brigade_create(f->pool, f->alloc);
    cachemw_stats_t stats = { .size = sizeof(stats) };
    mw_set_t *set;
    int more;

    start(f, local);
    call.purge_epoch = mw_epoch_now(mw_store_state(f->store));
    faults("read error\nset error\nset_begin error\nset_head error\n"
           "remove error\nexists error\nclear error\nkeys error\n"
           "sweep error\nstats error\n");
    assert_int_equal(
        mw_store_read(f->store, &call, &key, &entry.id, 0, 10, body), EIO);
    assert_int_equal(
        mw_store_set_begin(f->store, &call, &key, &key, &entry, &set), EIO);
    assert_int_equal(
        mw_store_set_head(f->store, &call, &key, &entry.id, &entry), EIO);
    assert_int_equal(mw_store_remove(f->store, &call, &key, NULL), EIO);
    assert_int_equal(mw_store_exists(f->store, &call, &key), EIO);
    assert_int_equal(mw_store_keys(f->store, &call, NULL, NULL, NULL), EIO);
    assert_int_equal(mw_store_sweep(f->store, &call, &more), EIO);
    assert_int_equal(mw_store_stats(f->store, &call, &stats), EIO);
    faults("set_write error\n");
    assert_int_equal(
        mw_store_set_begin(f->store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    assert_int_equal(mw_store_set_write(set, "x", 1), EIO);
    mw_store_set_abort(set);
    faults("set_commit error\n");
    assert_int_equal(
        mw_store_set_begin(f->store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    assert_int_equal(mw_store_set_commit(set, &call), EIO);
    assert_int_equal(fake.open_sets, 0);
    faults("clear error\nset error\n");
    assert_int_equal(mw_store_clear(f->store, &call), EIO);
    entry.body_len = 0;
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), EIO);
    assert_int_equal(get(f, "a"), APR_SUCCESS);
}

static void test_after_and_count(void **state)
{
    int i;

    start(*state, local);
    faults("get error after=2 count=3\nget error=EACCES after=6\n");
    for (i = 0; i < 10; i++) {
        assert_int_equal(get(*state, "a"), i < 2   ? APR_SUCCESS
                                           : i < 5 ? EIO
                                           : i < 6 ? APR_SUCCESS
                                                   : EACCES);
    }
    faults("get error after=2 count=3\n");
    assert_int_equal(get(*state, "a"), APR_SUCCESS);
}

static void test_timeout_and_delay(void **state)
{
    fixture_t *f = *state;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("a");
    apr_int64_t before;

    start(f, remote);
    faults("get timeout 20\n");
    before = mw_monotonic();
    assert_int_equal(get(f, "a"), APR_TIMEUP);
    assert_in_range(mw_monotonic() - before, 20000, 240000);
    faults("exists timeout\n");
    before = mw_monotonic();
    call.deadline = before + 30000;
    assert_int_equal(mw_store_exists(f->store, &call, &key), APR_TIMEUP);
    assert_in_range(mw_monotonic() - before, 30000, 240000);
    faults("get delay=20\n");
    before = mw_monotonic();
    assert_int_equal(get(f, "a"), APR_SUCCESS);
    assert_in_range(mw_monotonic() - before, 20000, 240000);
    faults("get late=20\n");
    before = mw_monotonic();
    assert_int_equal(get(f, "a"), APR_SUCCESS);
    assert_in_range(mw_monotonic() - before, 20000, 240000);
}

static const char *head_of(fixture_t *f, const char *text)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = { .body = NULL };

    assert_int_equal(mw_store_get(f->store, &call, &key, &entry), APR_SUCCESS);
    return apr_pstrmemdup(f->pool, entry.head, entry.head_len);
}

static void test_damaged(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    start(f, local);
    assert_string_equal(head_of(f, "a"), "head");
    faults("get damaged\n");
    assert_string_not_equal(head_of(f, "a"), "head");
    faults("get damaged body\n");
    assert_string_equal(head_of(f, "a"), "head");
    assert_int_equal(strlen(fixture_get(f, "a", &rv)), 100);
    assert_int_equal(strspn(fixture_get(f, "a", &rv), "x"), 50);
    faults("set damaged head\n");
    fixture_set(f, "a", 3, 10);
    faults("");
    assert_string_not_equal(head_of(f, "a"), "head");
}

static apr_status_t read_at(fixture_t *f, char id, apr_off_t offset,
                            apr_size_t limit, apr_off_t *length)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("a");
    cachemw_entry_t entry = fixture_entry(id, "", 0);
    apr_bucket_brigade *body = apr_brigade_create(f->pool, f->alloc);
    apr_status_t rv =
        mw_store_read(f->store, &call, &key, &entry.id, offset, limit, body);

    apr_brigade_length(body, 1, length);
    return rv;
}

static void test_truncated(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    apr_off_t length;

    start(f, local);
    faults("get truncated head\n");
    assert_string_equal(head_of(f, "a"), "he");
    faults("get truncated piece\n");
    assert_int_equal(strlen(fixture_get(f, "a", &rv)), 50);
    assert_int_equal(read_at(f, 1, 50, 50, &length), APR_SUCCESS);
    assert_int_equal(length, 50);
    faults("read truncated\n");
    assert_int_equal(read_at(f, 1, 50, 20, &length), APR_SUCCESS);
    assert_int_equal(length, 10);
    faults("get truncated\n");
    assert_int_equal(strlen(fixture_get(f, "a", &rv)), 50);
    assert_int_equal(read_at(f, 1, 50, 50, &length), APR_NOTFOUND);
    assert_int_equal(fixture_sum(f, MW_COUNT_DAMAGED), 1);
}

static void test_otherkey(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    start(f, local);
    faults("get otherkey\n");
    assert_int_equal(strlen(fixture_get(f, "a", &rv)), 50);
    assert_int_equal(strlen(fixture_get(f, "b", &rv)), 100);
    faults("get otherkey b*\n");
    assert_int_equal(strlen(fixture_get(f, "a", &rv)), 50);
    assert_null(fixture_get(f, "b", &rv));
}

static void test_life_can_fail(void **state)
{
    fixture_t *f = *state;
    const char *const options[] = { "inner=other",
                                    apr_pstrcat(f->pool, "faults=", path, NULL),
                                    NULL };

    faults("open error\n");
    assert_int_equal(fixture_open(f, local, options), EIO);
    faults("post_config error=EACCES\n");
    assert_int_equal(fixture_open(f, local, options), APR_SUCCESS);
    assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0), EACCES);
    faults("child_init error=EACCES\n");
    assert_int_equal(fixture_open(f, local, options), APR_SUCCESS);
    assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(mw_store_child_init(f->store, f->pool), EACCES);
}

static void test_wrong_lines_are_told_and_ignored(void **state)
{
    static const char *const lines[] = {
        "got error",           "get",
        "get explode",         "get error=ENOSUCH",
        "get delay",           "get error after=x",
        "remove damaged",      "set truncated",
        "set otherkey",        "get damaged tail",
        "set damaged body",    "get timeout soon",
        "read truncated piece"
    };
    fixture_t *f = *state;
    apr_size_t i;

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        start(f, local);
        faults(apr_pstrcat(f->pool, "# none\n", lines[i], "\n", NULL));
        assert_int_equal(get(f, "a"), APR_SUCCESS);
        if (fixture_logged(f, ": line 2: ") != 1) {
            fail_msg("'%s' was not noticed", lines[i]);
        }
        faults("");
        teardown(state);
        setup(state);
        f = *state;
    }
}

#define FAULTS(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAULTS(test_no_file_no_faults),
        FAULTS(test_errors),
        FAULTS(test_every_slot_can_fail),
        FAULTS(test_after_and_count),
        FAULTS(test_timeout_and_delay),
        FAULTS(test_damaged),
        FAULTS(test_truncated),
        FAULTS(test_otherkey),
        FAULTS(test_life_can_fail),
        FAULTS(test_wrong_lines_are_told_and_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
