/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/crc32c.h"

typedef apr_uint32_t crc_fn(apr_uint32_t crc, const void *data,
                            apr_size_t length);

/* Bit by bit, as the polynomial says: slow, but plainly right. */
static apr_uint32_t crc_by_bits(const unsigned char *p, apr_size_t length)
{
    apr_uint32_t crc = 0xffffffff;
    int bit;

    for (; length; length--) {
        crc ^= *p++;
        for (bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
        }
    }
    return ~crc;
}

static void noise_fill(unsigned char *p, apr_size_t length)
{
    apr_uint32_t state = 12345;

    for (; length; length--) {
        state = state * 1664525 + 1013904223;
        *p++ = (unsigned char)(state >> 24);
    }
}

/* RFC 3720, appendix B.4, and the usual check value. */
static void vectors_check(crc_fn *crc)
{
    unsigned char bytes[32];
    static const unsigned char read10[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
        0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
        0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0
    };
    int i;

    assert_int_equal(crc(0, "", 0), 0);
    assert_int_equal(crc(0, "123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(crc(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(crc(0, bytes, 32), 0x62a8ab43);
    for (i = 0; i < 32; i++) {
        bytes[i] = (unsigned char)i;
    }
    assert_int_equal(crc(0, bytes, 32), 0x46dd794e);
    for (i = 0; i < 32; i++) {
        bytes[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(crc(0, bytes, 32), 0x113fdb5c);
    assert_int_equal(crc(0, read10, sizeof(read10)), 0xd9963a56);
}

static void test_crc32c_known_vectors(void **state)
{
    (void)state;
    vectors_check(mw_crc32c);
    vectors_check(mw_crc32c_narrow);
    vectors_check(mw_crc32c_portable);
}

/* Long runs go through the processor in several lanes, or folded. */
static void test_crc32c_of_long_runs(void **state)
{
    static unsigned char bytes[20000];
    apr_size_t start, length;

    (void)state;
    noise_fill(bytes, sizeof(bytes));
    for (length = 1000; length < 19000; length += 1 + length / 20) {
        for (start = 0; start < 9; start++) {
            assert_int_equal(mw_crc32c(0, bytes + start, length),
                             crc_by_bits(bytes + start, length));
            assert_int_equal(mw_crc32c_narrow(0, bytes + start, length),
                             crc_by_bits(bytes + start, length));
            assert_int_equal(mw_crc32c(7, bytes + start, length),
                             mw_crc32c_portable(7, bytes + start, length));
            assert_int_equal(mw_crc32c_narrow(7, bytes + start, length),
                             mw_crc32c_portable(7, bytes + start, length));
        }
    }
}

/* What one machine wrote, a machine with another processor reads. */
static void test_crc32c_same_on_every_processor(void **state)
{
    unsigned char bytes[600];
    apr_size_t start, length;

    (void)state;
    noise_fill(bytes, sizeof(bytes));
    for (start = 0; start < 9; start++) {
        for (length = 0; length < sizeof(bytes) - 9; length++) {
            apr_uint32_t right = crc_by_bits(bytes + start, length);

            assert_int_equal(mw_crc32c(0, bytes + start, length), right);
            assert_int_equal(mw_crc32c_portable(0, bytes + start, length),
                             right);
        }
    }
}

static void test_crc32c_continues_at_any_place(void **state)
{
    unsigned char bytes[100];
    apr_size_t cut;

    (void)state;
    noise_fill(bytes, sizeof(bytes));
    for (cut = 0; cut <= sizeof(bytes); cut++) {
        apr_uint32_t right = crc_by_bits(bytes, sizeof(bytes));
        apr_size_t rest = sizeof(bytes) - cut;

        assert_int_equal(mw_crc32c(mw_crc32c(0, bytes, cut), bytes + cut, rest),
                         right);
        assert_int_equal(mw_crc32c_portable(mw_crc32c_portable(0, bytes, cut),
                                            bytes + cut, rest),
                         right);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_known_vectors),
        cmocka_unit_test(test_crc32c_of_long_runs),
        cmocka_unit_test(test_crc32c_same_on_every_processor),
        cmocka_unit_test(test_crc32c_continues_at_any_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
