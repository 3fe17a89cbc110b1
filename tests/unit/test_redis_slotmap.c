/* SPDX-License-Identifier: Apache-2.0 */

/* What a node of a cluster says of the others: read right, and whatever else
 * comes, refused without a look beyond it. */

#include <errno.h>

#include "shared.h"

#include "providers/redis/slotmap.h"

static const mw_redis_endpoint_t from = { "10.0.0.9", 7000 };

static mw_redis_reply_t *integer(apr_pool_t *pool, apr_int64_t n)
{
    mw_redis_reply_t *reply = apr_pcalloc(pool, sizeof(*reply));

    reply->type = REDIS_REPLY_INTEGER;
    reply->integer = n;
    return reply;
}

static mw_redis_reply_t *text(apr_pool_t *pool, int type, const char *data)
{
    mw_redis_reply_t *reply = apr_pcalloc(pool, sizeof(*reply));

    reply->type = type;
    reply->data = apr_pstrdup(pool, data);
    reply->len = strlen(data);
    return reply;
}

static mw_redis_reply_t *string(apr_pool_t *pool, const char *data)
{
    return text(pool, REDIS_REPLY_STRING, data);
}

static mw_redis_reply_t *nil(apr_pool_t *pool)
{
    return text(pool, REDIS_REPLY_NIL, "");
}

static mw_redis_reply_t *array(apr_pool_t *pool, int n, ...)
{
    mw_redis_reply_t *reply = apr_pcalloc(pool, sizeof(*reply));
    va_list ap;
    int i;

    reply->type = REDIS_REPLY_ARRAY;
    reply->len = n;
    /* exactly so long that a look beyond the end is noticed */
    reply->elements = malloc(n ? n * sizeof(reply) : 1);
    apr_pool_cleanup_register(pool, reply->elements, (void *)free,
                              apr_pool_cleanup_null);
    va_start(ap, n);
    for (i = 0; i < n; i++) {
        reply->elements[i] = va_arg(ap, mw_redis_reply_t *);
    }
    va_end(ap);
    return reply;
}

static mw_redis_reply_t *range(apr_pool_t *pool, apr_int64_t low,
                               apr_int64_t high, const char *host, int port)
{
    return array(pool, 3, integer(pool, low), integer(pool, high),
                 array(pool, 3, string(pool, host), integer(pool, port),
                       string(pool, "an id")));
}

static apr_status_t parse(apr_pool_t *pool, const mw_redis_reply_t *reply,
                          mw_redis_slotmap_t **map)
{
    *map = apr_palloc(pool, sizeof(**map));
    return mw_redis_slotmap_parse(reply, &from, *map, pool);
}

static const char *owner(const mw_redis_slotmap_t *map, int slot,
                         apr_pool_t *pool)
{
    const int i = map->owners[slot];

    return i ? mw_redis_endpoint_text(&map->nodes[i - 1],
                                      apr_palloc(pool, MW_REDIS_ENDPOINT_MAX))
             : "";
}

static void test_slotmap_owners(void **state)
{
    apr_pool_t *pool = *state;
    mw_redis_slotmap_t *map;
    mw_redis_reply_t *replica =
        array(pool, 4, integer(pool, 200), integer(pool, 16383),
              array(pool, 2, string(pool, "::1"), integer(pool, 7002)),
              array(pool, 2, string(pool, "10.0.0.3"), integer(pool, 7003)));

    assert_int_equal(parse(pool,
                           array(pool, 4, range(pool, 0, 99, "10.0.0.1", 7001),
                                 range(pool, 100, 100, "", 7004), replica,
                                 range(pool, 101, 150, "10.0.0.1", 7001)),
                           &map),
                     APR_SUCCESS);
    assert_int_equal(map->count, 3);
    assert_string_equal(owner(map, 0, pool), "10.0.0.1:7001");
    assert_string_equal(owner(map, 99, pool), "10.0.0.1:7001");
    assert_string_equal(owner(map, 100, pool), "10.0.0.9:7004");
    assert_string_equal(owner(map, 150, pool), "10.0.0.1:7001");
    assert_string_equal(owner(map, 151, pool), "");
    assert_string_equal(owner(map, 199, pool), "");
    assert_string_equal(owner(map, 16383, pool), "[::1]:7002");
}

/* A name cannot be looked up; the address may be told beside it. */
static void test_slotmap_names(void **state)
{
    apr_pool_t *pool = *state;
    mw_redis_slotmap_t *map;
    mw_redis_reply_t *more =
        array(pool, 2, string(pool, "ip"), string(pool, "10.0.0.5"));
    mw_redis_reply_t *known =
        array(pool, 3, integer(pool, 3), integer(pool, 4),
              array(pool, 4, string(pool, "redis5.example"),
                    integer(pool, 7005), string(pool, "an id"), more));
    mw_redis_reply_t *here =
        array(pool, 3, integer(pool, 5), integer(pool, 6),
              array(pool, 2, nil(pool), integer(pool, 7006)));

    assert_int_equal(
        parse(pool,
              array(pool, 4, range(pool, 0, 1, "?", 7001),
                    range(pool, 2, 2, "redis.example", 7002), known, here),
              &map),
        APR_SUCCESS);
    assert_string_equal(owner(map, 0, pool), "");
    assert_string_equal(owner(map, 2, pool), "");
    assert_string_equal(owner(map, 3, pool), "10.0.0.5:7005");
    assert_string_equal(owner(map, 6, pool), "10.0.0.9:7006");
}

static void refuse(apr_pool_t *pool, const mw_redis_reply_t *reply)
{
    mw_redis_slotmap_t *map;

    assert_int_equal(parse(pool, reply, &map),
                     reply->type == REDIS_REPLY_ERROR ? EOPNOTSUPP : EPROTO);
}

static void test_slotmap_hostile(void **state)
{
    apr_pool_t *pool = *state;
    const char *host = "10.0.0.1";
    mw_redis_reply_t *huge = apr_pcalloc(pool, sizeof(*huge));
    mw_redis_reply_t *fine = range(pool, 0, 1, host, 7001);

    refuse(pool, integer(pool, 1));
    refuse(pool, string(pool, "x"));
    refuse(pool, nil(pool));
    refuse(pool, text(pool, REDIS_REPLY_ERROR, "ERR no cluster"));
    refuse(pool, array(pool, 1, integer(pool, 1)));
    refuse(pool, array(pool, 1, NULL));
    refuse(pool, array(pool, 0));
    refuse(pool, array(pool, 1, array(pool, 0)));
    refuse(pool, array(pool, 1, range(pool, 0, 1, "a name", 7001)));
    refuse(pool, array(pool, 2, range(pool, 0, 16383, host, 7001),
                       range(pool, 0, 16383, host, 7001)));
    refuse(pool, array(pool, 2, fine,
                       array(pool, 2, integer(pool, 0), integer(pool, 1))));
    refuse(pool, array(pool, 1, range(pool, -1, 1, host, 7001)));
    refuse(pool, array(pool, 1, range(pool, 0, 16384, host, 7001)));
    refuse(pool, array(pool, 1, range(pool, 2, 1, host, 7001)));
    refuse(pool, array(pool, 1,
                       range(pool, APR_INT64_MIN, APR_INT64_MAX, host, 7001)));
    refuse(pool, array(pool, 1, range(pool, 0, 1, host, 0)));
    refuse(pool, array(pool, 1, range(pool, 0, 1, host, -7001)));
    refuse(pool, array(pool, 1, range(pool, 0, 1, host, 65536)));
    refuse(pool, array(pool, 1,
                       array(pool, 3, integer(pool, 0), integer(pool, 1),
                             array(pool, 1, string(pool, host)))));
    refuse(pool,
           array(pool, 1,
                 array(pool, 3, integer(pool, 0), integer(pool, 1),
                       array(pool, 2, integer(pool, 7), integer(pool, 7001)))));
    refuse(pool, array(pool, 1,
                       array(pool, 3, string(pool, "0"), integer(pool, 1),
                             array(pool, 2, string(pool, host),
                                   integer(pool, 7001)))));
    huge->type = REDIS_REPLY_ARRAY;
    huge->len = MW_REDIS_SLOTS + 1;
    refuse(pool, huge);
}

static void test_slotmap_many_nodes(void **state)
{
    apr_pool_t *pool = *state;
    mw_redis_reply_t *all = apr_pcalloc(pool, sizeof(*all));
    mw_redis_slotmap_t *map;
    int i;

    all->type = REDIS_REPLY_ARRAY;
    all->len = MW_REDIS_NODES_MAX;
    all->elements =
        apr_palloc(pool, (MW_REDIS_NODES_MAX + 1) * sizeof(*all->elements));
    for (i = 0; i <= MW_REDIS_NODES_MAX; i++) {
        all->elements[i] = range(pool, i, i, "10.0.0.1", 1 + i);
    }
    assert_int_equal(parse(pool, all, &map), APR_SUCCESS);
    assert_int_equal(map->count, MW_REDIS_NODES_MAX);
    assert_string_equal(owner(map, 999, pool), "10.0.0.1:1000");
    all->len++;
    refuse(pool, all);
}

static void test_redirect_parse(void **state)
{
    static const struct {
        const char *text;
        apr_status_t rv;
        int slot;
        const char *to;
    } cases[] = {
        { "MOVED 3999 127.0.0.1:6381", APR_SUCCESS, 3999, "127.0.0.1:6381" },
        { "ASK 0 ::1:1", APR_SUCCESS, 0, "[::1]:1" },
        { "MOVED 16383 :6381", APR_SUCCESS, 16383, "10.0.0.9:6381" },
        { "MOVED 5 redis.example:6381", APR_NOTFOUND, 5, NULL },
        { "ASK 5 ?:6381", APR_NOTFOUND, 5, NULL },
        { "MOVED 16384 127.0.0.1:6381", EPROTO, 0, NULL },
        { "MOVED -1 127.0.0.1:6381", EPROTO, 0, NULL },
        { "MOVED 99999999999999999999 127.0.0.1:1", EPROTO, 0, NULL },
        { "MOVED 1 127.0.0.1:65536", EPROTO, 0, NULL },
        { "MOVED 1 127.0.0.1:0", EPROTO, 0, NULL },
        { "MOVED 1 127.0.0.1:", EPROTO, 0, NULL },
        { "MOVED 1 127.0.0.1:12 ", EPROTO, 0, NULL },
        { "MOVED 1 127.0.0.1", EPROTO, 0, NULL },
        { "MOVED 1", EPROTO, 0, NULL },
        { "MOVED  127.0.0.1:1", EPROTO, 0, NULL },
        { "MOVED ", EPROTO, 0, NULL },
        { "ASK ", EPROTO, 0, NULL },
        { "ASKING 1 127.0.0.1:1", EPROTO, 0, NULL },
        { "", EPROTO, 0, NULL },
    };
    apr_pool_t *pool = *state;
    char host[MW_REDIS_ENDPOINT_MAX];
    mw_redis_endpoint_t to;
    int slot, i;

    for (i = 0; i < COUNT(cases); i++) {
        const apr_status_t rv = mw_redis_redirect_parse(
            text(pool, REDIS_REPLY_ERROR, cases[i].text), &from, &slot, &to,
            pool);

        if (rv != cases[i].rv || (rv != EPROTO && slot != cases[i].slot)
            || (cases[i].to
                && strcmp(mw_redis_endpoint_text(&to, host), cases[i].to)
                       != 0)) {
            fail_msg("'%s' was read otherwise", cases[i].text);
        }
    }
    assert_int_equal(
        mw_redis_redirect_parse(text(pool, REDIS_REPLY_STRING, cases[0].text),
                                &from, &slot, &to, pool),
        EPROTO);
}

static int setup(void **state)
{
    return apr_pool_create((apr_pool_t **)state, NULL);
}

static int teardown(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_slotmap_owners),  TEST(test_slotmap_names),
        TEST(test_slotmap_hostile), TEST(test_slotmap_many_nodes),
        TEST(test_redirect_parse),
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
