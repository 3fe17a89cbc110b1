/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apr_general.h"

#include "core/api_entry.h"
#include "core/entry.h"
#include "core/vary.h"

#define EXPIRES APR_INT64_C(1700000000123456)

static const char key_bytes[] = "shop.test:80\0http://shop.test/";
static const cachemw_key_t the_key = { key_bytes, sizeof(key_bytes) - 1 };
static const char head_bytes[] = "any\0bytes\xff";
static const cachemw_entry_t the_entry = { .head = head_bytes,
                                           .head_len = sizeof(head_bytes) - 1,
                                           .expires = EXPIRES };

static int setup(void **state)
{
    apr_pool_t *pool;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    *state = pool;
    return 0;
}

static int teardown(void **state)
{
    apr_pool_destroy(*state);
    apr_terminate();
    return 0;
}

static cachemw_entry_t encoded(apr_pool_t *pool, const cachemw_key_t *key,
                               const cachemw_entry_t *entry, int checksum)
{
    cachemw_entry_t stored = { .expires = 1 };

    assert_int_equal(mw_api_head_encode(key, entry, checksum, pool,
                                        &stored.head, &stored.head_len),
                     APR_SUCCESS);
    return stored;
}

static void test_api_head_comes_back_with_key_and_expiry(void **state)
{
    int checksum;

    for (checksum = 0; checksum < 2; checksum++) {
        cachemw_entry_t entry = encoded(*state, &the_key, &the_entry, checksum);
        cachemw_key_t key;

        assert_int_equal(mw_api_head_decode(&entry, &key), APR_SUCCESS);
        assert_int_equal(key.len, the_key.len);
        assert_memory_equal(key.data, the_key.data, key.len);
        assert_int_equal(entry.head_len, the_entry.head_len);
        assert_memory_equal(entry.head, head_bytes, entry.head_len);
        assert_int_equal(entry.expires, EXPIRES);
    }
}

/* Each layer is summed anew, so who sends them must not choose how many. */
static void test_head_is_sound_within_a_few_services(void **state)
{
    apr_pool_t *pool = *state;
    mw_head_t head = { .status = 200 };
    cachemw_entry_t entry = { .expires = EXPIRES };
    int i;

    assert_int_equal(
        mw_head_encode(&head, 1, pool, &entry.head, &entry.head_len),
        APR_SUCCESS);
    for (i = 0; i <= MW_API_HOPS_MAX; i++) {
        assert_true(mw_api_head_is_sound(entry.head, entry.head_len, -1, pool));
        entry = encoded(pool, &the_key, &entry, 1);
    }
    assert_false(mw_api_head_is_sound(entry.head, entry.head_len, -1, pool));
}

static cachemw_entry_t response_made(apr_pool_t *pool, apr_uint32_t control)
{
    const mw_head_t head = { .status = 200, .control = control };
    cachemw_entry_t entry = { .expires = EXPIRES };

    assert_int_equal(
        mw_head_encode(&head, 1, pool, &entry.head, &entry.head_len),
        APR_SUCCESS);
    return encoded(pool, &the_key, &entry, 1);
}

static cachemw_entry_t record_made(apr_pool_t *pool, apr_uint64_t serial)
{
    mw_vary_t record = { .serial = serial };
    cachemw_entry_t entry = { .expires = EXPIRES };

    record.fields = apr_array_make(pool, 1, sizeof(const char *));
    APR_ARRAY_PUSH(record.fields, const char *) = "x-lang";
    record.variants = apr_array_make(pool, 1, sizeof(mw_digest_t));
    assert_int_equal(
        mw_vary_encode(&record, 1, pool, &entry.head, &entry.head_len),
        APR_SUCCESS);
    return encoded(pool, &the_key, &entry, 1);
}

/* Where it is merely amended, stores of variants that are under way survive. */
static void test_invalidation_is_told_from_other_heads(void **state)
{
    apr_pool_t *pool = *state;
    const cachemw_entry_t fresh = response_made(pool, 0);
    const cachemw_entry_t stale = response_made(pool, MW_CONTROL_INVALIDATED);
    const cachemw_entry_t one = record_made(pool, 1);
    const cachemw_entry_t two = record_made(pool, 2);

    assert_true(mw_api_head_invalidates(&fresh, &stale, pool));
    assert_true(mw_api_head_invalidates(&one, &two, pool));
    assert_false(mw_api_head_invalidates(&fresh, &fresh, pool));
    assert_false(mw_api_head_invalidates(&stale, &fresh, pool));
    assert_false(mw_api_head_invalidates(&one, &one, pool));
    assert_false(mw_api_head_invalidates(&fresh, &one, pool));
}

static void test_head_of_noise_is_not_sound(void **state)
{
    const cachemw_entry_t entry = encoded(*state, &the_key, &the_entry, 1);

    assert_false(mw_api_head_is_sound(entry.head, entry.head_len, -1, *state));
}

static void test_api_head_may_be_empty_and_the_key_too(void **state)
{
    static const cachemw_key_t none = { "", 0 };
    static const cachemw_entry_t empty = { .expires = EXPIRES };
    cachemw_entry_t entry = encoded(*state, &none, &empty, 1);
    cachemw_key_t key;

    assert_int_equal(mw_api_head_decode(&entry, &key), APR_SUCCESS);
    assert_int_equal(key.len, 0);
    assert_int_equal(entry.head_len, 0);
    assert_int_equal(entry.expires, EXPIRES);
}

/* A damaged entry never reaches a client as another one. */
static void test_api_head_that_is_cut_or_changed_is_refused(void **state)
{
    const cachemw_entry_t good = encoded(*state, &the_key, &the_entry, 1);
    unsigned char bytes[256];
    apr_size_t i;
    cachemw_entry_t entry;
    cachemw_key_t key;

    assert_true(good.head_len < sizeof(bytes));
    for (i = 0; i < good.head_len; i++) {
        entry.head = good.head;
        entry.head_len = i;
        assert_int_equal(mw_api_head_decode(&entry, &key), APR_EINCOMPLETE);
        memcpy(bytes, good.head, good.head_len);
        bytes[i] ^= 0x10;
        entry.head = bytes;
        entry.head_len = good.head_len;
        assert_int_equal(mw_api_head_decode(&entry, &key), APR_EINCOMPLETE);
    }
}

/* Without a checksum, too, no length leads beyond the bytes. */
static void test_api_head_with_a_wrong_length_of_its_key_is_refused(
    void **state)
{
    const cachemw_entry_t good = encoded(*state, &the_key, &the_entry, 0);
    const apr_size_t where = 12 + 8;
    unsigned char bytes[256];
    cachemw_entry_t entry = good;
    cachemw_key_t key;
    apr_size_t rest = good.head_len - where - 4;

    memcpy(bytes, good.head, good.head_len);
    entry.head = bytes;
    bytes[where] = (unsigned char)rest;
    assert_int_equal(mw_api_head_decode(&entry, &key), APR_SUCCESS);
    assert_int_equal(key.len, rest);
    assert_int_equal(entry.head_len, 0);
    entry = good;
    entry.head = bytes;
    bytes[where] = (unsigned char)(rest + 1);
    assert_int_equal(mw_api_head_decode(&entry, &key), APR_EINCOMPLETE);
    bytes[where + 3] = 0xff;
    assert_int_equal(mw_api_head_decode(&entry, &key), APR_EINCOMPLETE);
}

static void test_api_head_too_long_does_not_fit(void **state)
{
    cachemw_entry_t entry = { .expires = EXPIRES };
    const void *bytes;
    apr_size_t length;

    entry.head_len = CACHEMW_HEAD_MAX;
    entry.head = apr_pcalloc(*state, entry.head_len);
    assert_int_equal(
        mw_api_head_encode(&the_key, &entry, 1, *state, &bytes, &length),
        APR_ENOSPC);
    entry.head_len = CACHEMW_HEAD_MAX - 28 - the_key.len;
    assert_int_equal(
        mw_api_head_encode(&the_key, &entry, 1, *state, &bytes, &length),
        APR_SUCCESS);
    assert_int_equal(length, CACHEMW_HEAD_MAX);
}

/* A namespace is never empty, so no page's key begins with a NUL. */
static void test_api_key_is_no_pages(void **state)
{
    cachemw_key_t key = mw_api_key("ab", 2, *state);

    assert_int_equal(key.len, 7);
    assert_memory_equal(key.data, "\0api\0ab", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_api_head_comes_back_with_key_and_expiry, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_api_head_may_be_empty_and_the_key_too, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_api_head_that_is_cut_or_changed_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_api_head_with_a_wrong_length_of_its_key_is_refused, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_api_head_too_long_does_not_fit,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_api_key_is_no_pages, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_head_is_sound_within_a_few_services, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_invalidation_is_told_from_other_heads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_of_noise_is_not_sound, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
