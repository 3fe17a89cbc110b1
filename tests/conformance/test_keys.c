/* SPDX-License-Identifier: Apache-2.0 */

/* Keys: arbitrary bytes, all of which count. */

#include <string.h>

#include "apr_strings.h"
#include "harness.h"

/* Two keys that must not be taken for each other. */
static void pair_check(ct_t *c, const cachemw_key_t *one,
                       const cachemw_key_t *two, const char *difference)
{
    const char *when = apr_psprintf(c->pool, "two keys that %s", difference);
    ct_item_t first = ct_item(c, one, 1, 100);
    ct_item_t second = ct_item(c, two, 2, 200);

    ct_status(c, ct_remove(c, two, NULL), APR_SUCCESS, "remove");
    ct_store(c, &first);
    ct_require_miss(c, two, when);
    ct_store(c, &second);
    ct_require(c, &first, when);
    ct_require(c, &second, when);
    ct_status(c, ct_remove(c, two, NULL), APR_SUCCESS, "remove");
    ct_require(c, &first, when);
    ct_require_miss(c, two, when);
}

static void test_empty_key_is_a_key(ct_t *c)
{
    cachemw_key_t key = ct_key_bytes(c, "", 0);
    ct_item_t item = ct_item(c, &key, 1, 100);

    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_require_miss(c, &key, "before the empty key is set");
    ct_store(c, &item);
    ct_require(c, &item, "with the empty key");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS, "remove");
    ct_require_miss(c, &key, "after the empty key was removed");
}

static void test_key_of_every_byte(ct_t *c)
{
    ct_item_t items[256];
    unsigned char all[256];
    cachemw_key_t key;
    ct_item_t item;
    int i;

    for (i = 0; i < 256; i++) {
        all[i] = (unsigned char)i;
        key = ct_key_bytes(c, &all[i], 1);
        items[i] = ct_item(c, &key, (apr_uint32_t)i, i);
        ct_store(c, &items[i]);
    }
    for (i = 0; i < 256; i++) {
        ct_require(c, &items[i], "with a key of one byte");
    }
    key = ct_key_bytes(c, all, sizeof(all));
    item = ct_item(c, &key, 1, 100);
    ct_store(c, &item);
    ct_require(c, &item, "with a key of all 256 bytes");
}

static void test_keys_differing_after_nul(ct_t *c)
{
    cachemw_key_t one = ct_key_bytes(c, "host\0/one", 9);
    cachemw_key_t two = ct_key_bytes(c, "host\0/two", 9);

    pair_check(c, &one, &two, "differ behind a NUL byte only");
}

static void test_keys_differing_in_length_by_nul(ct_t *c)
{
    cachemw_key_t one = ct_key_bytes(c, "host", 4);
    cachemw_key_t two = ct_key_bytes(c, "host\0", 5);

    pair_check(c, &one, &two, "differ by a NUL byte at the end only");
}

static void test_keys_differing_in_last_byte(ct_t *c)
{
    static const apr_size_t lengths[] = { 1,   8,   16,  32,   64,  255,
                                          256, 257, 511, 1024, 4096 };
    char bytes[4096];
    apr_size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        apr_size_t length = lengths[i];
        cachemw_key_t one, two;

        memset(bytes, 'k', sizeof(bytes));
        one = ct_key_bytes(c, bytes, length);
        bytes[length - 1] = 'K';
        two = ct_key_bytes(c, bytes, length);
        pair_check(c, &one, &two,
                   apr_psprintf(c->pool,
                                "differ in the last of %" APR_SIZE_T_FMT
                                " bytes only",
                                length));
    }
}

static void test_keys_differing_in_case(ct_t *c)
{
    cachemw_key_t one = ct_key(c, "http://example/Page");
    cachemw_key_t two = ct_key(c, "http://example/page");

    pair_check(c, &one, &two, "differ in upper and lower case only");
}

static void test_keys_that_begin_alike(ct_t *c)
{
    cachemw_key_t one = ct_key(c, "/page");
    cachemw_key_t two = ct_key(c, "/page/more");

    pair_check(c, &one, &two, "begin alike");
    ct_status(c, ct_remove(c, &one, NULL), APR_SUCCESS, "remove");
    pair_check(c, &two, &one, "begin alike");
}

/* Names that mean something to a file system, a database, a protocol. */
static void test_keys_that_look_like_something_else(ct_t *c)
{
    static const char *const names[] = {
        "..",
        "../../etc/passwd",
        "/",
        "//",
        "a/b/c/",
        "%2e%2e%2f",
        "%00",
        "' OR 1=1 --",
        "\r\nSET x y\r\n",
        "*",
        "?",
        "[a-z]",
        "{tmp}",
        "a b",
        "\xff\xfe",
        "\xc3\x28",
        "key\n",
        " key",
        "key ",
        "key",
    };
    int n = sizeof(names) / sizeof(names[0]);
    ct_item_t items[32];
    int i;

    for (i = 0; i < n; i++) {
        cachemw_key_t key = ct_key(c, "%s", names[i]);

        items[i] = ct_item(c, &key, (apr_uint32_t)i, 50 + i);
        ct_store(c, &items[i]);
    }
    for (i = 0; i < n; i++) {
        ct_require(c, &items[i], "among keys with special characters");
    }
}

static void long_key_check(ct_t *c, apr_size_t length)
{
    char *bytes = apr_palloc(c->pool, length);
    cachemw_key_t one, two;
    apr_uint64_t state = length;
    apr_size_t i;

    for (i = 0; i < length; i++) {
        bytes[i] = (char)ct_random(&state);
    }
    one = ct_key_bytes(c, bytes, length);
    bytes[length - 1] ^= 1;
    two = ct_key_bytes(c, bytes, length);
    pair_check(c, &one, &two,
               apr_psprintf(c->pool,
                            "have %" APR_SIZE_T_FMT
                            " bytes and differ in the last one",
                            length));
}

static void test_key_of_8k(ct_t *c)
{
    long_key_check(c, 8 * CT_KB);
}

static void test_key_of_greatest_length(ct_t *c)
{
    long_key_check(c, CACHEMW_KEY_MAX);
}

const ct_test_t ct_tests_keys[] = {
    CT_TEST(test_empty_key_is_a_key),
    CT_TEST(test_key_of_every_byte),
    CT_TEST(test_keys_differing_after_nul),
    CT_TEST(test_keys_differing_in_length_by_nul),
    CT_TEST(test_keys_differing_in_last_byte),
    CT_TEST(test_keys_differing_in_case),
    CT_TEST(test_keys_that_begin_alike),
    CT_TEST(test_keys_that_look_like_something_else),
    CT_TEST(test_key_of_8k),
    CT_TEST(test_key_of_greatest_length),
    CT_TESTS_END,
};
