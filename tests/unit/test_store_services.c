/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_portable.h"

#include "core/random.h"
#include "store_fixture.h"

static const cachemw_services_t *services_of(fixture_t *f)
{
    fixture_start(f, &fake_full, NONE);
    return fake.services;
}

static void test_services_table_tells_its_size_and_name(void **state)
{
    const cachemw_services_t *services = services_of(*state);

    assert_int_equal(services->size, sizeof(cachemw_services_t));
    assert_string_equal(services->store_name, "shop");
}

static void test_services_log_names_the_store_and_is_limited(void **state)
{
    const cachemw_services_t *services = services_of(*state);
    int i;

    for (i = 0; i < 20; i++) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS, "slow %d", i);
        services->log(services, CACHEMW_LOG_INFO, APR_SUCCESS, "turn %d", i);
    }
    assert_int_equal(fixture_logged(*state, "cachemw[shop]: slow 0"), 1);
    assert_int_equal(fixture_logged(*state, "slow"), 1);
    assert_int_equal(fixture_logged(*state, "turn"), 20);
}

static void test_services_count(void **state)
{
    const cachemw_services_t *services = services_of(*state);

    services->count(services, CACHEMW_COUNT_EVICTED, 3);
    services->count(services, CACHEMW_COUNT_EXPIRED, 4);
    services->count(services, CACHEMW_COUNT_RECOVERED, 5);
    services->count(services, (cachemw_count_e)77, 6);
    assert_int_equal(fixture_sum(*state, MW_COUNT_EVICTED), 3);
    assert_int_equal(fixture_sum(*state, MW_COUNT_EXPIRED), 4);
    assert_int_equal(fixture_sum(*state, MW_COUNT_RECOVERED), 5);
}

static void test_services_remaining(void **state)
{
    const cachemw_services_t *services = services_of(*state);
    cachemw_call_t call = fixture_call(*state);

    assert_int_equal(services->remaining(services, &call), -1);
    call.deadline = 1;
    assert_int_equal(services->remaining(services, &call), 0);
    call.deadline = mw_monotonic() + 10000000;
    assert_in_range(services->remaining(services, &call), 5000000, 10000000);
}

static void test_services_deadline_in(void **state)
{
    const cachemw_services_t *services = services_of(*state);
    cachemw_call_t call = fixture_call(*state);
    const apr_int64_t before = mw_monotonic();
    const apr_int64_t now = services->deadline_in(services, NULL, 0);
    const apr_int64_t later = services->deadline_in(services, &call, 5000000);

    assert_in_range(now, before, mw_monotonic());
    assert_in_range(later, now + 5000000, mw_monotonic() + 5000000);
    call.deadline = now + 1000000;
    assert_int_equal(services->deadline_in(services, &call, 5000000),
                     call.deadline);
    assert_true(services->deadline_in(services, &call, 0) < call.deadline);
}

static void kind_sum(void *baton, const char *name, apr_uint64_t n)
{
    *(apr_uint64_t *)baton += strcmp(name, "OOM") == 0 ? n : 1000;
}

static void test_services_count_kind(void **state)
{
    const cachemw_services_t *services = services_of(*state);
    apr_uint64_t sum = 0;

    services->count_kind(services, "OOM", 2);
    services->count_kind(services, "OOM", 3);
    mw_kinds_each(mw_store_state(((fixture_t *)*state)->store), kind_sum, &sum);
    assert_int_equal(sum, 5);
}

static apr_status_t explained; /* what the slot says that it returns */

static void explain_during(fake_slot_e slot)
{
    (void)slot;
    fake.services->explain(fake.services, explained, "host %d says no", 7);
}

static void start_failing(fixture_t *f)
{
    cachemw_provider_t table = fake_full;

    table.flags = CACHEMW_REMOTE;
    fixture_start(f, &table, NONE);
    fake.during = explain_during;
    fake.fail[FAKE_GET] = explained = APR_ECONNREFUSED;
}

static int has_reason(const fixture_t *f, const char *expected)
{
    char text[MW_REASON_MAX];
    apr_uint32_t kind;

    return mw_reason_read(mw_store_state(f->store), APR_ECONNREFUSED, &kind,
                          text)
           && !strcmp(text, expected);
}

static void test_services_explain_stands_behind_the_failure(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;
    int i;

    start_failing(f);
    for (i = 0; i < MW_BREAKER_FAILURES; i++) {
        fixture_get(f, "k", &rv);
        assert_int_equal(rv, APR_ECONNREFUSED);
    }
    assert_int_equal(fixture_logged(f, "get: failed: host 7 says no"), 1);
    assert_int_equal(fixture_logged(f, "until a probe works: host 7 says no"),
                     1);
    assert_true(has_reason(f, "host 7 says no"));
}

/* Another cause is told at once, however many lines the first one has had. */
static void test_services_explain_tells_each_cause(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    fixture_start(f, &fake_full, NONE);
    fake.fail[FAKE_GET] = explained = APR_ECONNREFUSED;
    fixture_get(f, "k", &rv);
    fake.during = explain_during;
    fixture_get(f, "k", &rv);
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_logged(f, "get: failed"), 2);
    assert_int_equal(fixture_logged(f, "get: failed: host 7"), 1);
}

/* Others that wait for the same are told no more than that it was in vain. */
static void test_services_explain_holds_for_what_follows(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    start_failing(f);
    fixture_get(f, "k", &rv);
    fake.during = NULL;
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_logged(f, "get: failed"), 1);
    assert_true(has_reason(f, "host 7 says no"));
    fake.fail[FAKE_GET] = APR_EOF;
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_logged(f, "host 7"), 1);
}

/* Neither the failure that a second attempt made good, nor another one's. */
static void test_services_explain_counts_for_its_own_failure_only(void **state)
{
    fixture_t *f = *state;
    apr_status_t rv;

    start_failing(f);
    fake.fail[FAKE_GET] = APR_SUCCESS;
    fixture_get(f, "k", &rv);
    assert_int_equal(f->nlines, 0);
    fake.during = NULL;
    fake.fail[FAKE_GET] = APR_ECONNREFUSED;
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_logged(f, "host 7"), 0);
    fake.during = explain_during;
    explained = APR_EOF;
    fixture_get(f, "k", &rv);
    fake.during = NULL;
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_logged(f, "host 7"), 0);
    assert_int_equal(fixture_logged(f, "get: failed"), 1);
}

static void *explain_thread(void *baton)
{
    (void)baton;
    explain_during(FAKE_GET);
    return NULL;
}

static void test_services_explain_is_of_its_thread(void **state)
{
    fixture_t *f = *state;
    pthread_t thread;
    apr_status_t rv;

    start_failing(f);
    fake.during = NULL;
    assert_int_equal(pthread_create(&thread, NULL, explain_thread, NULL), 0);
    pthread_join(thread, NULL);
    fixture_get(f, "k", &rv);
    assert_int_equal(fixture_logged(f, "get: failed"), 1);
    assert_int_equal(fixture_logged(f, "host 7"), 0);
}

static void test_services_removed_refuses_what_is_under_way(void **state)
{
    fixture_t *f = *state;
    const mw_state_t *its = mw_store_state(fixture_start(f, &fake_full, NONE));
    const cachemw_services_t *services = fake.services;
    cachemw_key_t key = fixture_key("page");
    apr_uint32_t slot = mw_epoch_slot(its, &key);
    apr_uint64_t begun = mw_epoch_now(its);

    assert_false(mw_epoch_is_overtaken(its, slot, begun));
    services->removed(services, &key);
    assert_true(mw_epoch_is_overtaken(its, slot, begun));
    begun = mw_epoch_now(its);
    assert_false(mw_epoch_is_overtaken(its, slot, begun));
    services->removed(services, NULL);
    assert_true(mw_epoch_is_overtaken(its, slot, begun));
}

static void test_services_via_names_this_server_and_those_before(void **state)
{
    fixture_t *f = *state;
    const cachemw_services_t *services;
    cachemw_call_t call = { .pool = f->pool };

    f->host.tag = "aa11";
    services = services_of(f);
    assert_string_equal(services->via(services, NULL), "aa11");
    assert_string_equal(services->via(services, &call), "aa11");
    mw_store_serve("cc33, bb22");
    assert_string_equal(services->via(services, &call), "cc33, bb22, aa11");
    assert_string_equal(services->via(services, NULL), "aa11");
    mw_store_serve(NULL);
    assert_string_equal(services->via(services, &call), "aa11");
}

static void test_services_via_without_a_server_is_nobody(void **state)
{
    fixture_t *f = *state;
    const cachemw_services_t *services = services_of(f);
    cachemw_call_t call = { .pool = f->pool };

    assert_null(services->via(services, NULL));
    mw_store_serve("cc33");
    assert_null(services->via(services, &call));
    mw_store_serve(NULL);
}

/* Nobody can count before there is shared memory; nor may it crash. */
static void test_services_count_kind_before_post_config(void **state)
{
    assert_int_equal(fixture_open(*state, &fake_full, NONE), APR_SUCCESS);
    fake.services->count_kind(fake.services, "OOM", 1);
}

static void test_services_random_differs(void **state)
{
    const cachemw_services_t *services = services_of(*state);
    unsigned char a[600], b[600];

    memset(a, 0, sizeof(a));
    memset(b, 0, sizeof(b));
    assert_int_equal(services->random(services, a, sizeof(a)), APR_SUCCESS);
    assert_int_equal(services->random(services, b, sizeof(b)), APR_SUCCESS);
    assert_memory_not_equal(a, b, 16);
    assert_memory_not_equal(a + sizeof(a) - 16, b + sizeof(b) - 16, 16);
}

/* A child must not repeat what its parent would have drawn next. */
static void test_random_differs_after_a_fork(void **state)
{
    unsigned char mine[16], theirs[16];
    int ends[2];
    pid_t pid;

    (void)state;
    mw_store_random(mine, sizeof(mine));
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        mw_store_random(mine, sizeof(mine));
        _exit(write(ends[1], mine, sizeof(mine)) == sizeof(mine) ? 0 : 1);
    }
    mw_store_random(mine, sizeof(mine));
    assert_int_equal(read(ends[0], theirs, sizeof(theirs)), sizeof(theirs));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_memory_not_equal(mine, theirs, sizeof(mine));
    close(ends[0]);
    close(ends[1]);
}

/* Ids are 12 bytes. In a process of its own: others shall have no seed. */
static void test_random_draws_differ_once_seeded(void **state)
{
    unsigned char seen[200][12];
    pid_t pid = fork();
    int status;
    int i;
    int j;

    (void)state;
    if (pid == 0) {
        int wrong = mw_random_draw(seen[0], 12);

        for (i = 0; i < 200; i++) {
            if (i % 100 == 0) {
                mw_random_child_init();
            }
            wrong |= !mw_random_draw(seen[i], 12);
            for (j = 0; j < i; j++) {
                wrong |= !memcmp(seen[i], seen[j], 6);
                wrong |= !memcmp(seen[i] + 8, seen[j] + 8, 4);
            }
        }
        _exit(wrong);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* Children that were one process until now. */
static void test_random_draws_differ_after_a_fork(void **state)
{
    unsigned char drawn[2][12];
    int ends[2];
    int i;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    for (i = 0; i < 2; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            mw_random_child_init();
            _exit(!mw_random_draw(drawn[i], 12)
                  || write(ends[1], drawn[i], 12) != 12);
        }
        assert_int_equal(read(ends[0], drawn[i], 12), 12);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
    assert_memory_not_equal(drawn[0], drawn[1], 12);
    close(ends[0]);
    close(ends[1]);
}

static void test_services_temp_file_has_no_name(void **state)
{
    fixture_t *f = *state;
    const cachemw_services_t *services = services_of(f);
    apr_file_t *file;
    apr_pool_t *pool;
    apr_os_file_t fd;
    struct stat info;
    char text[4];
    apr_off_t start = 0;

    apr_pool_create(&pool, f->pool);
    assert_int_equal(services->temp_file(services, &file, pool), APR_SUCCESS);
    apr_os_file_get(&fd, file);
    assert_int_equal(fstat(fd, &info), 0);
    assert_int_equal(info.st_nlink, 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(apr_file_write_full(file, "abcd", 4, NULL), APR_SUCCESS);
    apr_file_seek(file, APR_SET, &start);
    assert_int_equal(apr_file_read_full(file, text, 4, NULL), APR_SUCCESS);
    assert_memory_equal(text, "abcd", 4);
    apr_pool_destroy(pool);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_services_temp_file_without_a_directory(void **state)
{
    fixture_t *f = *state;
    const cachemw_services_t *services;
    apr_file_t *file;

    f->host.temp_dir = "/nowhere/at/all";
    services = services_of(f);
    assert_int_not_equal(services->temp_file(services, &file, f->pool),
                         APR_SUCCESS);
}

/* --- segments ------------------------------------------------------------- */

static void *segment;
static int segment_is_new;
static apr_status_t segment_rv;

static void during_segment(fake_slot_e slot)
{
    if (slot == FAKE_POST_CONFIG) {
        segment_rv = fake.services->segment(fake.services, 5000, 1, &segment,
                                            &segment_is_new);
    }
}

static void next_generation(fixture_t *f)
{
    mw_segments_end(f->host.segments);
    f->host.segments = mw_segments_begin(f->host.segments, f->pool);
}

static void test_services_segment_is_kept(void **state)
{
    fixture_t *f = *state;
    void *first;

    fake.during = during_segment;
    fixture_start(f, &fake_full, NONE);
    assert_int_equal(segment_rv, APR_SUCCESS);
    assert_true(segment_is_new);
    assert_ptr_not_equal(segment, mw_store_state(f->store));
    first = segment;
    memcpy(segment, "kept", 5);
    next_generation(f);
    fixture_start(f, &fake_full, NONE);
    assert_int_equal(segment_rv, APR_SUCCESS);
    assert_false(segment_is_new);
    assert_ptr_equal(segment, first);
    assert_string_equal(segment, "kept");
}

/* A store that got another provider must not meet the old one's bytes. */
static void test_services_segment_is_one_provider_s(void **state)
{
    fixture_t *f = *state;
    int i;

    fake.during = during_segment;
    for (i = 0; i < 2; i++) {
        f->provider_name = i ? "other" : "fake";
        fixture_open(f, &fake_full, NONE);
        assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0),
                         APR_SUCCESS);
        assert_true(segment_is_new);
        next_generation(f);
    }
}

/* Stores defined in place have names with that of their server in them. */
static void test_services_segment_is_one_store_s(void **state)
{
    fixture_t *f = *state;
    char name[600] = "";
    int i;

    memset(name, 'n', sizeof(name) - 2);
    fake.during = during_segment;
    for (i = 0; i < 2; i++) {
        name[sizeof(name) - 2] = (char)('a' + i);
        f->name = name;
        fixture_open(f, &fake_full, NONE);
        assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0),
                         APR_SUCCESS);
        assert_true(segment_is_new);
    }
}

static void test_services_segment_in_post_config_only(void **state)
{
    const cachemw_services_t *services = services_of(*state);
    void *base;
    int is_new;

    assert_int_equal(services->segment(services, 5000, 1, &base, &is_new),
                     APR_EINVAL);
}

/* --- a store within a store ----------------------------------------------- */

typedef struct facade_t {
    const cachemw_provider_t *table;
    void *self;
} facade_t;

/* The store under f->store, as another one's provider gets it. */
static facade_t facade_of(fixture_t *f, const cachemw_provider_t *inner,
                          const char *const *options)
{
    facade_t facade;

    f->other = fixture_start(f, inner, options);
    assert_int_equal(fixture_open(f, &fake_small, NONE), APR_SUCCESS);
    assert_int_equal(fake.services->store(fake.services, "other", &facade.table,
                                          &facade.self),
                     APR_SUCCESS);
    f->store = f->other;
    return facade;
}

static void test_services_store_unknown_or_itself(void **state)
{
    fixture_t *f = *state;
    const cachemw_services_t *services = services_of(f);
    const cachemw_provider_t *table;
    void *self;

    assert_int_equal(services->store(services, "none", &table, &self),
                     APR_NOTFOUND);
    f->other = f->store;
    assert_int_equal(services->store(services, "other", &table, &self),
                     APR_NOTFOUND);
    f->host.find = NULL;
    assert_int_equal(services->store(services, "other", &table, &self),
                     APR_NOTFOUND);
}

static void test_facade_has_every_slot(void **state)
{
    facade_t facade = facade_of(*state, &fake_small, NONE);
    const cachemw_provider_t *table = facade.table;

    assert_int_equal(table->size, sizeof(*table));
    assert_true(table->open && table->close && table->post_config
                && table->child_init);
    assert_true(table->get && table->set && table->remove && table->set_head
                && table->read && table->exists);
    assert_true(table->set_begin && table->set_write && table->set_commit
                && table->set_abort);
    assert_true(table->clear && table->keys && table->sweep && table->stats
                && table->object_limit && table->sync);
    assert_int_equal(table->object_limit(facade.self), 16 << 20);
}

static void test_facade_is_opened_by_its_own_configuration(void **state)
{
    fixture_t *f = *state;
    facade_t facade = facade_of(f, &fake_full, NONE);
    const char *error = NULL;
    void *store;

    assert_int_equal(
        facade.table->open(fake.services, NULL, f->pool, &store, &error),
        APR_ENOTIMPL);
    assert_non_null(error);
    assert_int_equal(facade.table->post_config(facade.self, f->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(facade.table->child_init(facade.self, f->pool),
                     APR_SUCCESS);
    facade.table->close(facade.self);
    assert_int_equal(fake.calls[FAKE_POST_CONFIG], 1);
    assert_int_equal(fake.calls[FAKE_CHILD_INIT], 1);
    assert_int_equal(fake.calls[FAKE_CLOSE], 0);
}

static apr_status_t facade_set(fixture_t *f, facade_t facade, char id,
                               const char *body)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(id, "head", strlen(body));
    apr_status_t rv;

    entry.body = apr_brigade_create(f->pool, f->alloc);
    apr_brigade_puts(entry.body, NULL, NULL, body);
    rv = facade.table->set(facade.self, &call, &key, &entry);
    apr_brigade_destroy(entry.body);
    return rv;
}

static void test_facade_counts_as_requests_do(void **state)
{
    fixture_t *f = *state;
    facade_t facade = facade_of(f, &fake_full, OPTIONS("max_object_size=10"));
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = { .body = NULL };

    assert_int_equal(facade.table->get(facade.self, &call, &key, &entry),
                     APR_NOTFOUND);
    assert_int_equal(facade_set(f, facade, 1, "body"), APR_SUCCESS);
    assert_int_equal(facade_set(f, facade, 1, "much too long"), APR_ENOSPC);
    entry.body = NULL;
    assert_int_equal(facade.table->get(facade.self, &call, &key, &entry),
                     APR_SUCCESS);
    assert_int_equal(facade.table->remove(facade.self, &call, &key, NULL),
                     APR_SUCCESS);
    assert_int_equal(fixture_sum(f, MW_COUNT_MISS), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_HIT), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_BYTES_STORED), 4);
    assert_int_equal(fixture_sum(f, MW_COUNT_NO_SPACE), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_REMOVED), 1);
}

/* The outer store's epoch says nothing about the inner one's. */
static void test_facade_sets_in_pieces_whatever_the_epoch(void **state)
{
    fixture_t *f = *state;
    facade_t facade = facade_of(f, &fake_small, NONE);
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "head", -1);
    apr_status_t rv;
    void *set;

    mw_epoch_bump(mw_store_state(facade.self), &key);
    call.purge_epoch = 0;
    assert_int_equal(
        facade.table->set_begin(facade.self, &call, &key, &entry, &set),
        APR_SUCCESS);
    assert_int_equal(facade.table->set_write(facade.self, &call, set, "ab", 2),
                     APR_SUCCESS);
    assert_int_equal(facade.table->set_write(facade.self, &call, set, "cd", 2),
                     APR_SUCCESS);
    assert_int_equal(facade.table->set_commit(facade.self, &call, set),
                     APR_SUCCESS);
    assert_string_equal(fixture_get(f, "k", &rv), "abcd");
    assert_int_equal(
        facade.table->set_begin(facade.self, &call, &key, &entry, &set),
        APR_SUCCESS);
    facade.table->set_abort(facade.self, set);
    assert_int_equal(fixture_sum(f, MW_COUNT_STORED), 1);
    assert_int_equal(fixture_sum(f, MW_COUNT_ABORTED), 1);
}

static apr_status_t keys_none(void *baton, const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    (void)key, (void)entry;
    ++*(int *)baton;
    return APR_SUCCESS;
}

static void test_facade_passes_the_others_on(void **state)
{
    fixture_t *f = *state;
    facade_t facade = facade_of(f, &fake_full, NONE);
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    cachemw_entry_t entry = fixture_entry(1, "amended", 0);
    apr_bucket_brigade *body = apr_brigade_create(f->pool, f->alloc);
    cachemw_stats_t stats = { .size = sizeof(stats) };
    int more, n = 0;

    facade_set(f, facade, 1, "body");
    assert_int_equal(
        facade.table->read(facade.self, &call, &key, &entry.id, 1, 2, body),
        APR_SUCCESS);
    assert_int_equal(
        facade.table->set_head(facade.self, &call, &key, &entry.id, &entry),
        APR_SUCCESS);
    assert_int_equal(facade.table->exists(facade.self, &call, &key),
                     APR_SUCCESS);
    assert_int_equal(
        facade.table->keys(facade.self, &call, "k*", keys_none, &n),
        APR_SUCCESS);
    assert_int_equal(n, 1);
    assert_int_equal(facade.table->sweep(facade.self, &call, &more),
                     APR_SUCCESS);
    assert_int_equal(facade.table->sync(facade.self, &call), APR_SUCCESS);
    assert_int_equal(facade.table->stats(facade.self, &call, &stats),
                     APR_SUCCESS);
    assert_int_equal(stats.entries, 1);
    assert_int_equal(facade.table->clear(facade.self, &call), APR_SUCCESS);
    assert_int_equal(apr_hash_count(fake.entries), 0);
    assert_int_equal(fake.calls[FAKE_READ], 1);
    assert_int_equal(fake.calls[FAKE_SET_HEAD], 1);
    assert_int_equal(fake.calls[FAKE_SWEEP], 1);
    assert_int_equal(fake.calls[FAKE_SYNC], 1);
}

/* Its breaker is the inner store's own. */
static int published, watched;

static apr_status_t talking_publish(void *store)
{
    (void)store;
    published++;
    return APR_SUCCESS;
}

static void nobody_hears(void *baton, cachemw_change_e what,
                         const cachemw_key_t *key, const cachemw_id_t *id,
                         int is_own)
{
    (void)baton, (void)what, (void)key, (void)id, (void)is_own;
}

/* Others may call meanwhile. */
static apr_status_t talking_watch(void *store, const cachemw_call_t *call,
                                  cachemw_watch_fn *each, void *baton)
{
    (void)store;
    assert_ptr_equal(each, nobody_hears);
    assert_null(baton);
    assert_true(call->deadline > mw_monotonic());
    return watched++ ? APR_TIMEUP : APR_EINCOMPLETE;
}

static void test_facade_can_be_watched_where_the_store_can(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t table = fake_full;
    facade_t facade = facade_of(f, &fake_full, NONE);
    cachemw_call_t call = fixture_call(f);

    assert_null(facade.table->publish);
    assert_null(facade.table->watch);
    table.publish = talking_publish;
    table.watch = talking_watch;
    table.flags = CACHEMW_REMOTE;
    published = watched = 0;
    facade = facade_of(f, &table, NONE);
    assert_int_equal(facade.table->publish(facade.self), APR_SUCCESS);
    assert_int_equal(published, 1);
    call.deadline = mw_monotonic() + apr_time_from_sec(60);
    mw_breaker_failure(mw_store_state(facade.self), 0, 0, APR_ECONNREFUSED);
    assert_int_equal(
        facade.table->watch(facade.self, &call, nobody_hears, NULL),
        APR_EINCOMPLETE);
    assert_int_equal(
        facade.table->watch(facade.self, &call, nobody_hears, NULL),
        APR_TIMEUP);
    assert_int_equal(fixture_logged(f, "watch"), 0);
    assert_int_equal(
        mw_state_sum(mw_store_state(facade.self), MW_COUNT_TIMEOUT), 0);
}

static void test_store_that_announces_tells_from_the_start(void **state)
{
    cachemw_provider_t table = fake_full;

    table.publish = talking_publish;
    table.watch = talking_watch;
    published = 0;
    assert_false(mw_store_is_telling(fixture_start(*state, &table, NONE)));
    assert_int_equal(published, 0);
    assert_true(mw_store_is_telling(
        fixture_start(*state, &table, OPTIONS("announce=on"))));
    assert_int_equal(published, 1);
}

static void test_facade_has_deadline_and_breaker(void **state)
{
    fixture_t *f = *state;
    cachemw_provider_t remote = fake_full;
    facade_t facade;
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key("k");
    int i;

    remote.flags = CACHEMW_REMOTE;
    facade = facade_of(f, &remote, NONE);
    fake.fail[FAKE_EXISTS] = APR_ECONNREFUSED;
    for (i = 0; i < 10; i++) {
        facade.table->exists(facade.self, &call, &key);
    }
    assert_int_equal(fake.calls[FAKE_EXISTS], MW_BREAKER_FAILURES);
    assert_true(fake.seen.deadline > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_services_table_tells_its_size_and_name),
        TEST(test_services_log_names_the_store_and_is_limited),
        TEST(test_services_count),
        TEST(test_services_remaining),
        TEST(test_services_deadline_in),
        TEST(test_services_count_kind),
        TEST(test_services_count_kind_before_post_config),
        TEST(test_services_removed_refuses_what_is_under_way),
        TEST(test_services_via_names_this_server_and_those_before),
        TEST(test_services_via_without_a_server_is_nobody),
        TEST(test_services_explain_stands_behind_the_failure),
        TEST(test_services_explain_tells_each_cause),
        TEST(test_services_explain_holds_for_what_follows),
        TEST(test_services_explain_counts_for_its_own_failure_only),
        TEST(test_services_explain_is_of_its_thread),
        TEST(test_services_random_differs),
        TEST(test_random_differs_after_a_fork),
        TEST(test_random_draws_differ_once_seeded),
        TEST(test_random_draws_differ_after_a_fork),
        TEST(test_services_temp_file_has_no_name),
        TEST(test_services_temp_file_without_a_directory),
        TEST(test_services_segment_is_kept),
        TEST(test_services_segment_is_one_provider_s),
        TEST(test_services_segment_is_one_store_s),
        TEST(test_services_segment_in_post_config_only),
        TEST(test_services_store_unknown_or_itself),
        TEST(test_facade_has_every_slot),
        TEST(test_facade_is_opened_by_its_own_configuration),
        TEST(test_facade_counts_as_requests_do),
        TEST(test_facade_sets_in_pieces_whatever_the_epoch),
        TEST(test_facade_passes_the_others_on),
        TEST(test_facade_can_be_watched_where_the_store_can),
        TEST(test_store_that_announces_tells_from_the_start),
        TEST(test_facade_has_deadline_and_breaker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
