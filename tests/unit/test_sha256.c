/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apr_escape.h"

#include "providers/common/sha256.h"

static void digest_is(const void *data, apr_size_t length, const char *hex)
{
    unsigned char digest[MW_SHA256_LEN];
    char text[2 * MW_SHA256_LEN + 1];

    mw_sha256(data, length, digest);
    apr_escape_hex(text, digest, sizeof(digest), 0, NULL);
    assert_string_equal(text, hex);
}

/* FIPS 180-4's examples */
static void test_sha256_gives_the_digests_of_the_standard(void **state)
{
    static unsigned char many[1000000];

    (void)state;
    digest_is("", 0,
              "e3b0c44298fc1c149afbf4c8996fb924"
              "27ae41e4649b934ca495991b7852b855");
    digest_is("abc", 3,
              "ba7816bf8f01cfea414140de5dae2223"
              "b00361a396177a9cb410ff61f20015ad");
    digest_is("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
              "248d6a61d20638b8e5c026930c3e6039"
              "a33ce45964ff2167f6ecedd419db06c1");
    memset(many, 'a', sizeof(many));
    digest_is(many, sizeof(many),
              "cdc76e5c9914fb9281a1c7e284d73e67"
              "f1809a48a497200e046d39ccc7112cd0");
}

/* The digest of the digests of 0, 1, … 299 bytes 0, 1, 2, …: what came of
 * OpenSSL. */
static void test_sha256_of_every_length_is_right(void **state)
{
    static unsigned char digests[300][MW_SHA256_LEN];
    unsigned char bytes[300];
    int i;

    (void)state;
    for (i = 0; i < 300; i++) {
        bytes[i] = (unsigned char)i;
        mw_sha256(bytes, i, digests[i]);
    }
    digest_is(digests, sizeof(digests),
              "df90175783c44235cf6aefd935a2c274"
              "7f42399416d16789ece339f1fd26d835");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_gives_the_digests_of_the_standard),
        cmocka_unit_test(test_sha256_of_every_length_is_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
