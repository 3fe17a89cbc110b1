/* SPDX-License-Identifier: Apache-2.0 */

/* What an administrator writes in url=, and the slots that keys have. */

#include "shared.h"

#include "providers/redis/slotmap.h"

static int setup(void **state)
{
    return apr_pool_create((apr_pool_t **)state, NULL);
}

static int teardown(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

/* All that a URL says, as one text. */
static const char *spell(const mw_redis_url_t *url, apr_pool_t *pool)
{
    static const char *const schemes[] = { "tcp", "unix", "sentinel",
                                           "cluster" };
    const char *text = schemes[url->scheme];
    char host[MW_REDIS_ENDPOINT_MAX];
    int i;

    for (i = 0; i < url->endpoint_count; i++) {
        text =
            apr_pstrcat(pool, text, " ",
                        mw_redis_endpoint_text(&url->endpoints[i], host), NULL);
    }
    return apr_psprintf(
        pool, "%s%s%s%s%s%s%s db%d%s", text, url->user ? " user=" : "",
        url->user ? url->user : "", url->password ? " password=" : "",
        url->password ? url->password : "", url->master ? " master=" : "",
        url->master ? url->master : "", url->db, url->is_tls ? " tls" : "");
}

static void test_url_accepted(void **state)
{
    static const char *const cases[][2] = {
        { "redis://localhost", "tcp localhost:6379 db0" },
        { "redis://10.0.0.5:7000/3", "tcp 10.0.0.5:7000 db3" },
        { "redis://[::1]", "tcp [::1]:6379 db0" },
        { "redis://[fe80::1%eth0]:7000/", "tcp [fe80::1%eth0]:7000 db0" },
        { "rediss://cache.example", "tcp cache.example:6379 db0 tls" },
        { "redis://:p%40ss%2Fw%3Ard%25@h", "tcp h:6379 password=p@ss/w:rd% "
                                           "db0" },
        { "redis://kate:a:b@h:1", "tcp h:1 user=kate password=a:b db0" },
        { "redis://kate:p@ss@h:1", "tcp h:1 user=kate password=p@ss db0" },
        { "unix:///run/redis.sock", "unix /run/redis.sock db0" },
        { "unix:///run/a%20b?db=5", "unix /run/a b db5" },
        { "unix://:pw@/run/redis.sock", "unix /run/redis.sock password=pw "
                                        "db0" },
        { "redis+sentinel://a,b:7000,[::1]/mymaster/2",
          "sentinel a:26379 b:7000 [::1]:26379 master=mymaster db2" },
        { "redis+sentinel://:pw@a/m", "sentinel a:26379 password=pw master=m "
                                      "db0" },
        { "redis+cluster://10.0.0.1:1,10.0.0.2:2",
          "cluster 10.0.0.1:1 10.0.0.2:2 db0" },
    };
    apr_pool_t *pool = *state;
    mw_redis_url_t url;
    const char *error;
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        error = mw_redis_url_parse(cases[i][0], &url, pool);
        if (error) {
            fail_msg("%s: %s", cases[i][0], error);
        }
        assert_string_equal(spell(&url, pool), cases[i][1]);
    }
}

static void test_url_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "localhost",
        "http://localhost",
        "redis:/localhost",
        "redis://",
        "redis://:6379",
        "redis://h:",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:99999999999999999999",
        "redis://h:-1",
        "redis://h:6379x",
        "redis://::1",
        "redis://[::1",
        "redis://[::1]x",
        "redis://h/x",
        "redis://h/-1",
        "redis://h/99999999999",
        "redis://h/1/2",
        "redis://a,b",
        "redis://h one",
        "redis://:secret%zz@h",
        "redis://:secret%4@h",
        "redis://:secret%00@h",
        "unix://run/redis.sock",
        "unix:///",
        "unix:///run/redis.sock?db=x",
        "unix:///run/redis.sock?bd=1",
        "unix://h/run/redis.sock",
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel://a,/m",
        "redis+sentinel:///m",
        "redis+sentinel://a/m/x",
        "redis+cluster://a,,b",
        "redis+cluster://a/1",
        "redis+cluster://a,",
        "redis+cluster://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
    };
    apr_pool_t *pool = *state;
    mw_redis_url_t url;
    const char *error;
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        error = mw_redis_url_parse(cases[i], &url, pool);
        if (!error) {
            fail_msg("'%s' was accepted: %s", cases[i], spell(&url, pool));
        }
        assert_null(strstr(error, "secret"));
    }
}

static void test_url_host_length(void **state)
{
    apr_pool_t *pool = *state;
    char host[MW_REDIS_HOST_MAX + 2] = "";
    mw_redis_url_t url;

    memset(host, 'a', MW_REDIS_HOST_MAX);
    assert_null(mw_redis_url_parse(apr_pstrcat(pool, "redis://", host, NULL),
                                   &url, pool));
    host[MW_REDIS_HOST_MAX] = 'a';
    assert_non_null(mw_redis_url_parse(
        apr_pstrcat(pool, "redis://", host, NULL), &url, pool));
}

/* As CLUSTER KEYSLOT of a Redis server says. */
static void test_slots(void **state)
{
    static const struct {
        const char *key;
        int slot;
    } cases[] = {
        { "", 0 },
        { "a", 15495 },
        { "foo", 12182 },
        { "123456789", 12739 },
        { "{user1000}.following", 3443 },
        { "user1000", 3443 },
        { "foo{}{bar}", 8363 },
        { "foo{{bar}}zap", 4015 },
        { "foo{bar}{zap}", 5061 },
        { "bar", 5061 },
        { "foo{bar", 15278 },
        { "\xff\xfe{\x80}", 4488 },
    };
    int i;

    (void)state;
    for (i = 0; i < COUNT(cases); i++) {
        const int slot = mw_redis_slot(cases[i].key, strlen(cases[i].key));

        if (slot != cases[i].slot) {
            fail_msg("%s: %d, not %d", cases[i].key, slot, cases[i].slot);
        }
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_url_accepted),
        TEST(test_url_refused),
        TEST(test_url_host_length),
        TEST(test_slots),
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
