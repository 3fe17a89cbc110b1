/* SPDX-License-Identifier: Apache-2.0 */

/* Entries as the JSON that a cache service keeps. */

#include "shared.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "apr_strings.h"

#include "providers/common/http_value.h"

#define EXPIRES APR_INT64_C(1790000000123457)

typedef struct world_t {
    apr_pool_t *pool;
    apr_bucket_alloc_t *alloc;
    cachemw_key_t key;
    cachemw_entry_t entry;
    char *text; /* of the entry */
    apr_size_t len;
} world_t;

static int setup(void **state)
{
    world_t *world = calloc(1, sizeof(*world));

    apr_pool_create(&world->pool, NULL);
    world->alloc = apr_bucket_alloc_create(world->pool);
    world->key.data = "http://a.example:80/x?y";
    world->key.len = strlen(world->key.data);
    memcpy(world->entry.id.bytes, "\0\x01\x7f\x80\xff 0123456789", 16);
    world->entry.head = "head\0\xff/+";
    world->entry.head_len = 8;
    world->entry.expires = EXPIRES;
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    world_t *world = *state;

    free(world->text);
    apr_pool_destroy(world->pool);
    free(world);
    return 0;
}

/* A body in buckets of 1, 2, 3, … bytes. */
static apr_bucket_brigade *body_of(world_t *world, const char *data,
                                   apr_size_t len)
{
    apr_bucket_brigade *body = apr_brigade_create(world->pool, world->alloc);
    apr_size_t n, size = 1;

    for (; len; len -= n, data += n) {
        n = size < len ? size : len;
        size = size < 1000 ? size + 1 : 100000;
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_transient_create(data, n, world->alloc));
    }
    APR_BRIGADE_INSERT_TAIL(body, apr_bucket_eos_create(world->alloc));
    return body;
}

static void encode(world_t *world, const char *body, apr_size_t len,
                   apr_int64_t timeout)
{
    world->entry.body = len ? body_of(world, body, len) : NULL;
    world->entry.body_len = (apr_off_t)len;
    free(world->text);
    world->text = NULL;
    assert_int_equal(mw_http_value_encode(&world->key, &world->entry, timeout,
                                          &world->text, &world->len),
                     APR_SUCCESS);
    assert_true(world->len
                <= mw_http_value_max(world->key.len, (apr_off_t)len));
    /* memory for what is there, and not for the longest head */
    assert_in_range(malloc_usable_size(world->text), world->len,
                    world->len + 8192);
}

static void same_entry(const world_t *world, const mw_http_value_t *value)
{
    const cachemw_entry_t *entry = &value->entry;

    assert_int_equal(value->key.len, world->key.len);
    assert_memory_equal(value->key.data, world->key.data, world->key.len);
    assert_int_equal(entry->head_len, world->entry.head_len);
    assert_memory_equal(entry->head, world->entry.head, entry->head_len);
    assert_memory_equal(entry->id.bytes, world->entry.id.bytes, 16);
    assert_true(entry->expires == world->entry.expires);
    assert_true(entry->body_len == world->entry.body_len);
}

static void round_trip(world_t *world, const char *data, apr_size_t len)
{
    apr_bucket_brigade *body = apr_brigade_create(world->pool, world->alloc);
    mw_http_value_t value;
    const char *reason = NULL;
    apr_size_t size;
    char *read;

    encode(world, data, len, 60);
    assert_int_equal(mw_http_value_decode(world->text, world->len,
                                          (apr_off_t)len, world->pool, body,
                                          &value, &reason),
                     APR_SUCCESS);
    same_entry(world, &value);
    assert_true(value.timeout == 60);
    assert_int_equal(apr_brigade_pflatten(body, &read, &size, world->pool),
                     APR_SUCCESS);
    assert_int_equal(size, len);
    assert_memory_equal(read, data, len);
    assert_int_equal(mw_http_value_decode(world->text, world->len,
                                          (apr_off_t)len, world->pool, NULL,
                                          &value, &reason),
                     APR_SUCCESS);
    same_entry(world, &value);
}

static void test_any_length_round_trip(void **state)
{
    static const apr_size_t lengths[] = { 3071,  3072,  3073,  65534,
                                          65535, 65536, 200001 };
    world_t *world = *state;
    char *data = apr_palloc(world->pool, 200001);
    apr_size_t i;

    for (i = 0; i < 200001; i++) {
        data[i] = (char)(i * 2654435761u >> 13);
    }
    for (i = 0; i < 70; i++) {
        round_trip(world, data, i);
    }
    for (i = 0; i < COUNT(lengths); i++) {
        round_trip(world, data, lengths[i]);
    }
}

static void test_longest_key_and_no_head(void **state)
{
    world_t *world = *state;
    char *key = apr_palloc(world->pool, CACHEMW_KEY_MAX);

    memset(key, 0xfe, CACHEMW_KEY_MAX);
    key[3] = '\0';
    world->key.data = key;
    world->key.len = CACHEMW_KEY_MAX;
    world->entry.head = "";
    world->entry.head_len = 0;
    round_trip(world, "x", 1);
    world->key.len = 0;
    round_trip(world, "x", 1);
}

static void test_text_is_what_was_agreed(void **state)
{
    world_t *world = *state;

    encode(world, "body", 4, 90);
    assert_int_equal(
        world->len,
        strlen("{\"value\":{\"format\":1,"
               "\"key\":\"aHR0cDovL2EuZXhhbXBsZTo4MC94P3k=\","
               "\"id\":\"00017f80ff2030313233343536373839\","
               "\"expires\":\"1790000000123457\",\"head\":\"aGVhZAD/Lys=\","
               "\"body\":\"Ym9keQ==\",\"crc32c\":\"01234567\"},"
               "\"timeout\":90}"));
    world->text[world->len - 1] = '\0';
    assert_non_null(strstr(world->text,
                           "{\"value\":{\"format\":1,"
                           "\"key\":\"aHR0cDovL2EuZXhhbXBsZTo4MC94P3k=\","
                           "\"id\":\"00017f80ff2030313233343536373839\","
                           "\"expires\":\"1790000000123457\","
                           "\"head\":\"aGVhZAD/Lys=\",\"body\":\"Ym9keQ==\","
                           "\"crc32c\":\""));
}

static void test_wrong_length_is_refused(void **state)
{
    world_t *world = *state;
    apr_off_t len;

    for (len = 3; len <= 5; len += 2) {
        world->entry.body = body_of(world, "four", 4);
        world->entry.body_len = len;
        assert_int_equal(mw_http_value_encode(&world->key, &world->entry, 0,
                                              &world->text, &world->len),
                         APR_EINVAL);
        world->text = NULL;
    }
}

static apr_status_t decode(world_t *world, const char *text, apr_size_t len,
                           const char **reason)
{
    mw_http_value_t value;

    *reason = NULL;
    return mw_http_value_decode(text, len, 1000, world->pool, NULL, &value,
                                reason);
}

static void test_no_flipped_bit_is_accepted(void **state)
{
    world_t *world = *state;
    const char *reason;
    apr_size_t i, until;
    int bit;

    encode(world, "a body", 6, 0);
    until = world->len;
    for (i = 0; i < until; i++) {
        for (bit = 0; bit < 8; bit++) {
            world->text[i] ^= (char)(1 << bit);
            if (decode(world, world->text, world->len, &reason)
                == APR_SUCCESS) {
                fail_msg("bit %d of byte %d: %.*s", bit, (int)i,
                         (int)world->len, world->text);
            }
            assert_non_null(reason);
            world->text[i] ^= (char)(1 << bit);
        }
    }
    for (i = 0; i < until; i++) {
        assert_int_equal(decode(world, world->text, i, &reason), EPROTO);
    }
}

static void test_long_body_is_refused(void **state)
{
    world_t *world = *state;
    char data[1001] = { 0 };
    const char *reason;

    encode(world, data, 1000, 0);
    assert_int_equal(decode(world, world->text, world->len, &reason),
                     APR_SUCCESS);
    encode(world, data, 1001, 0);
    assert_int_equal(decode(world, world->text, world->len, &reason),
                     APR_ENOSPC);
}

/* What a service may make of the text while it keeps the same value. */
static void test_other_spelling_is_accepted(void **state)
{
    world_t *world = *state;
    const char *reason, *text, *at, *crc;
    apr_status_t rv;

    encode(world, "", 0, 0);
    at = strstr(world->text, "\"crc32c\":\"");
    crc = apr_pstrndup(world->pool, at + 10, 8);
    text = apr_psprintf(
        world->pool,
        " {\"ttl\": [1, {\"a\": null}], \"value\": {\n\"crc32c\": \"%s\",\r\n"
        "\"body\"\t: \"\", \"head\": \"aGVhZAD\\/Lys\\u003d\", "
        "\"expires\": \"1790000000123457\", "
        "\"id\": \"00017f80ff2030313233343536373839\","
        "\"key\":\"aHR0cDovL2EuZXhhbXBsZTo4MC94P3k=\",\"format\":1},"
        "\"timeout\": 0.5} \n",
        crc);
    rv = decode(world, text, strlen(text), &reason);
    if (rv != APR_SUCCESS) {
        fail_msg("%s", reason);
    }
}

static void test_what_is_no_envelope(void **state)
{
    static const char *const texts[] = {
        "",
        "null",
        "[]",
        "\"value\"",
        "{}",
        "{\"value\":1,\"value\":1}",
        "{\"value\":{}",
        "{\"value\":{}}x",
        "{\"value\":{},\"timeout\":0}",
        "{\"value\":{},\"timeout\":-1}",
        "{\"value\":{},\"timeout\":\"5\"}",
        "{\"value\":{},\"timeout\":1e999}",
        "{\"value\":\"\xff\"}",
        "{\"value\":\"\\u0000\"}",
        "{\"value\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
        "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
        "1,1,1]}",
    };
    static const char *const values[] = {
        "null",
        "1",
        "\"text\"",
        "[]",
        "{}",
        "{\"format\":2}",
        "{\"format\":1}",
        "{\"format\":\"1\"}",
    };
    world_t *world = *state;
    const char *reason, *text;
    int i;

    for (i = 0; i < COUNT(texts); i++) {
        if (decode(world, texts[i], strlen(texts[i]), &reason) != EPROTO) {
            fail_msg("%s", texts[i]);
        }
    }
    for (i = 0; i < COUNT(values); i++) {
        text = apr_psprintf(world->pool, "{\"value\":%s}", values[i]);
        if (decode(world, text, strlen(text), &reason) != APR_EINCOMPLETE) {
            fail_msg("%s", text);
        }
    }
}

/* --- memory --------------------------------------------------------------- */

/* What the parser has, and had at most; it gets no more than `limit`. */
static apr_size_t parser_has, parser_had, parser_limit;

static void *parser_malloc(size_t size)
{
    apr_size_t *to = NULL;

    if (parser_has + size <= parser_limit) {
        to = malloc(16 + size);
    }
    if (!to) {
        return NULL;
    }
    *to = size;
    parser_has += size;
    parser_had = parser_had > parser_has ? parser_had : parser_has;
    return (char *)to + 16;
}

static void parser_free(void *p)
{
    if (p) {
        parser_has -= *(apr_size_t *)((char *)p - 16);
        free((char *)p - 16);
    }
}

static int parser_setup(void **state)
{
    parser_has = parser_had = 0;
    parser_limit = (apr_size_t)-1;
    json_set_alloc_funcs(parser_malloc, parser_free);
    return setup(state);
}

static int parser_teardown(void **state)
{
    json_set_alloc_funcs(malloc, free);
    return teardown(state);
}

/* A text of the length of a large answer: one piece, again and again. */
static char *text_fill(world_t *world, const char *begin, const char *piece)
{
    const apr_size_t n = strlen(piece), len = 3000000;
    char *text = apr_palloc(world->pool, len + 1);
    apr_size_t at = strlen(begin);

    memcpy(text, begin, at);
    for (; at + n <= len; at += n) {
        memcpy(text + at, piece, n);
    }
    text[at] = '\0';
    return text;
}

/* Whatever a peer sends. */
static void test_parser_takes_memory_in_proportion(void **state)
{
    static const char *const texts[][2] = {
        { "{\"value\": \"", "x" },
        { "{\"value\": \"", "\\u20ac" },
        { "{\"value\": \"", "\\\\" },
        { "{\"", "name" },
        { "[", "[" },
        { "{\"a\":", "{\"a\":" },
        { "[", "1," },
        { "{\"value\": 1", "1" },
        { "{\"value\": {\"body\": \"", "QUJD" },
        { "[\"\"", ",\"\"" },
    };
    world_t *world = *state;
    mw_http_value_t value;
    const char *reason;
    char *text;
    int i;

    for (i = 0; i < COUNT(texts); i++) {
        parser_had = 0;
        text = text_fill(world, texts[i][0], texts[i][1]);
        assert_int_equal(mw_http_value_decode(text, strlen(text), 1000000,
                                              world->pool, NULL, &value,
                                              &reason),
                         EPROTO);
        if (parser_had > 3 * strlen(text) + 65536) {
            fail_msg("%s%s: %lu", texts[i][0], texts[i][1],
                     (unsigned long)parser_had);
        }
        assert_int_equal(parser_has, 0);
    }
}

/* More than that jansson does not tell. */
static void test_too_little_memory_is_no_nonsense(void **state)
{
    world_t *world = *state;
    mw_http_value_t value;
    const char *reason;

    encode(world, "body", 4, 60);
    parser_limit = 0;
    assert_int_equal(mw_http_value_decode(world->text, world->len, 4,
                                          world->pool, NULL, &value, &reason),
                     APR_ENOMEM);
    assert_string_equal(reason, "out of memory");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define MEMORY_TEST(f) \
    cmocka_unit_test_setup_teardown(f, parser_setup, parser_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_any_length_round_trip),
        TEST(test_longest_key_and_no_head),
        TEST(test_text_is_what_was_agreed),
        TEST(test_wrong_length_is_refused),
        TEST(test_no_flipped_bit_is_accepted),
        TEST(test_long_body_is_refused),
        TEST(test_other_spelling_is_accepted),
        TEST(test_what_is_no_envelope),
        MEMORY_TEST(test_parser_takes_memory_in_proportion),
        MEMORY_TEST(test_too_little_memory_is_no_nonsense),
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
