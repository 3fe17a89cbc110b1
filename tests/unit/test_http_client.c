/* SPDX-License-Identifier: Apache-2.0 */

/* The client of cache services where nothing is sent, or nobody listens. What
 * is taken from libcurl and libapr is replaced: an option may be refused, and
 * the clock is the test's. */

#include "shared.h"

#include <dlfcn.h>
#include <errno.h>

#include "providers/http/pool.h"
#include "providers/http/request.h"

#undef curl_easy_setopt

/* Nobody listens there. */
#define NOWHERE "http://127.0.0.1:1"

#define CONNECTIONS 3

static apr_int64_t now;
static apr_interval_time_t overslept;
static int options_left; /* before the one that is refused */
static int closed;       /* handles ended */
static int performed;
static char said[320]; /* explained last */

/* --- instead of others ---------------------------------------------------- */

apr_int64_t mw_http_clock(const mw_http_t *store)
{
    (void)store;
    return now;
}

apr_int64_t mw_http_deadline(const mw_http_t *store, const cachemw_call_t *call)
{
    (void)store;
    return call->deadline;
}

void mw_http_count(const mw_http_t *store, const char *kind)
{
    (void)store, (void)kind;
}

void apr_sleep(apr_interval_time_t t)
{
    now += t + overslept;
}

static void *original(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    assert_non_null(found);
    return found;
}

CURLcode curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
    CURLcode (*set)(CURL *, CURLoption, ...) = NULL;
    va_list arguments;
    CURLcode code;

    if (options_left-- == 0) {
        return CURLE_NOT_BUILT_IN;
    }
    *(void **)&set = original("curl_easy_setopt");
    va_start(arguments, option);
    if (option >= CURLOPTTYPE_OFF_T && option < CURLOPTTYPE_BLOB) {
        code = set(easy, option, va_arg(arguments, curl_off_t));
    }
    else if (option < CURLOPTTYPE_OBJECTPOINT) {
        code = set(easy, option, va_arg(arguments, long));
    }
    else {
        code = set(easy, option, va_arg(arguments, void *));
    }
    va_end(arguments);
    return code;
}

void curl_easy_cleanup(CURL *easy)
{
    void (*cleanup)(CURL *) = NULL;

    closed++;
    *(void **)&cleanup = original("curl_easy_cleanup");
    cleanup(easy);
}

CURLcode curl_easy_perform(CURL *easy)
{
    CURLcode (*perform)(CURL *) = NULL;

    performed++;
    *(void **)&perform = original("curl_easy_perform");
    return perform(easy);
}

/* --- the store ------------------------------------------------------------ */

typedef struct world_t {
    mw_http_t store;
    cachemw_services_t services;
    cachemw_call_t call;
} world_t;

static void explain(const cachemw_services_t *services, apr_status_t rv,
                    const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void explain(const cachemw_services_t *services, apr_status_t rv,
                    const char *format, ...)
{
    va_list arguments;

    (void)services, (void)rv;
    va_start(arguments, format);
    apr_vsnprintf(said, sizeof(said), format, arguments);
    va_end(arguments);
}

static int setup(void **state)
{
    world_t *world = calloc(1, sizeof(*world));
    mw_http_settings_t *settings = &world->store.settings;

    now = 1000000;
    overslept = 0;
    options_left = -1;
    closed = performed = 0;
    *said = '\0';
    world->services.size = sizeof(world->services);
    world->services.explain = explain;
    world->store.services = &world->services;
    apr_pool_create(&world->call.pool, NULL);
    assert_null(mw_http_url_parse("https://a.example", &settings->base,
                                  world->call.pool));
    settings->connect_timeout = apr_time_from_sec(1);
    settings->max_connections = CONNECTIONS;
    settings->ssl_verify = 1;
    world->store.peer = &settings->base;
    world->store.ca = "-----BEGIN CERTIFICATE-----";
    world->store.pool = mw_http_pool_make(&world->store);
    assert_non_null(world->store.pool);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    world_t *world = *state;

    mw_http_pool_free(world->store.pool);
    apr_pool_destroy(world->call.pool);
    free(world);
    return 0;
}

static void begin(world_t *world)
{
    mw_http_settings_t *settings = &world->store.settings;

    assert_null(mw_http_url_parse(NOWHERE, &settings->base, world->call.pool));
    assert_int_equal(mw_http_pool_begin(world->store.pool), APR_SUCCESS);
    closed = 0;
}

static apr_status_t run(world_t *world, apr_interval_time_t patience)
{
    mw_http_request_t request = { .method = MW_HTTP_DELETE,
                                  .url = NOWHERE "/cache/key",
                                  .if_match = "\"1\"" };

    world->call.deadline = now + patience;
    return mw_http_request_run(&world->store, &world->call, &request);
}

/* --- tests ---------------------------------------------------------------- */

static void test_no_handle_without_all_of_its_options(void **state)
{
    world_t *world = *state;
    apr_status_t rv;
    int i = 0;

    for (;; i++) {
        options_left = i;
        closed = 0;
        rv = mw_http_pool_begin(world->store.pool);
        assert_int_equal(closed, 1);
        if (options_left >= 0) {
            break; /* no option was refused */
        }
        assert_int_equal(rv, APR_ENOTIMPL);
    }
    assert_int_equal(rv, APR_SUCCESS);
    assert_in_range(i, 20, 40);
}

static void take(world_t *world, mw_http_conn_t *conns[CONNECTIONS], int n)
{
    int i;

    for (i = 0; i < n; i++) {
        assert_int_equal(
            mw_http_pool_take(world->store.pool, INT64_MAX, &conns[i]),
            APR_SUCCESS);
    }
}

static void test_no_request_without_all_of_its_options(void **state)
{
    world_t *world = *state;
    mw_http_conn_t *conns[CONNECTIONS];
    apr_status_t rv;
    int i = 0;

    begin(world);
    take(world, conns, 1);
    mw_http_pool_give(world->store.pool, conns[0]);
    for (;; i++) {
        options_left = i;
        rv = run(world, apr_time_from_sec(10));
        if (rv != APR_ENOMEM) {
            break;
        }
        assert_int_equal(performed, 0);
    }
    assert_int_equal(rv, ECONNREFUSED);
    assert_int_equal(performed, 1);
    assert_in_range(i, 8, 20);
    assert_string_equal(said, "127.0.0.1, port 1: it cannot be connected to");
}

static void test_all_idle_connections_are_closed_at_once(void **state)
{
    world_t *world = *state;
    mw_http_pool_t *pool = world->store.pool;
    mw_http_conn_t *conns[CONNECTIONS];
    int i;

    begin(world);
    take(world, conns, CONNECTIONS);
    for (i = 0; i < CONNECTIONS; i++) {
        mw_http_pool_give(pool, conns[i]);
    }
    now += apr_time_from_sec(60);
    take(world, conns, 1);
    mw_http_pool_give(pool, conns[0]);
    assert_int_equal(closed, 0);
    now += 1;
    take(world, conns, 1);
    mw_http_pool_give(pool, conns[0]);
    assert_int_equal(closed, CONNECTIONS - 1);
    /* there is room for as many again */
    take(world, conns, CONNECTIONS);
    for (i = 0; i < CONNECTIONS; i++) {
        mw_http_pool_give(pool, conns[i]);
    }
    assert_int_equal(closed, CONNECTIONS - 1);
}

static void test_what_comes_back_after_the_end_is_closed(void **state)
{
    world_t *world = *state;
    mw_http_conn_t *conns[CONNECTIONS];

    begin(world);
    take(world, conns, 2);
    mw_http_pool_give(world->store.pool, conns[0]);
    mw_http_pool_end(world->store.pool);
    assert_int_equal(closed, 1);
    mw_http_pool_give(world->store.pool, conns[1]);
    assert_int_equal(closed, 2);
}

static void test_what_is_not_tried_is_no_failure(void **state)
{
    world_t *world = *state;
    mw_http_conn_t *conns[CONNECTIONS];
    int i;

    begin(world);
    assert_int_equal(run(world, 999), APR_EAGAIN);
    /* all are in use, and the deadline is over by the real clock */
    take(world, conns, CONNECTIONS);
    assert_int_equal(run(world, 5000), APR_EAGAIN);
    for (i = 0; i < CONNECTIONS; i++) {
        mw_http_pool_give(world->store.pool, conns[i]);
    }
    assert_int_equal(performed, 0);
    assert_string_equal(said, "");
}

static void test_further_attempts_end_with_the_time(void **state)
{
    world_t *world = *state;

    begin(world);
    world->store.settings.max_retries = 10;
    /* at 0, 0.5 and 1.5 s */
    assert_int_equal(run(world, apr_time_from_msec(3400)), ECONNREFUSED);
    assert_int_equal(performed, 3);
    /* what was tried has failed, whatever is not tried after it */
    overslept = 99500;
    assert_int_equal(run(world, apr_time_from_msec(600)), ECONNREFUSED);
    assert_int_equal(performed, 4);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_handle_without_all_of_its_options),
        TEST(test_no_request_without_all_of_its_options),
        TEST(test_all_idle_connections_are_closed_at_once),
        TEST(test_what_comes_back_after_the_end_is_closed),
        TEST(test_what_is_not_tried_is_no_failure),
        TEST(test_further_attempts_end_with_the_time),
    };

    apr_initialize();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
