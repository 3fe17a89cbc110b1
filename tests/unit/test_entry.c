/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "core/crc32c.h"
#include "core/entry.h"
#include "core/wire.h"

#define CHECKSUM_LEN 4

/* Where the encoded head has what; see core/entry.c. */
#define AT_STATUS 12
#define AT_CONTROL 16
#define AT_COUNT 20
#define AT_NAMES_LEN 24
#define AT_BLOCK_LEN 28
#define AT_DATE 36
#define AT_BORN 108
#define AT_FIELDS 124
#define FIELD_FIXED 8

static int pool_make(void **state)
{
    return apr_pool_create((apr_pool_t **)state, NULL);
}

static int pool_destroy(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

static mw_head_t *head_plain(apr_pool_t *pool)
{
    mw_head_t *head = apr_pcalloc(pool, sizeof(*head));

    head->status = 200;
    head->headers = apr_table_make(pool, 4);
    return head;
}

static mw_head_t *head_typical(apr_pool_t *pool)
{
    mw_head_t *head = head_plain(pool);

    head->date = APR_INT64_C(1764000000000000);
    head->expire = APR_INT64_C(1764000060000000);
    head->request_time = APR_INT64_C(1763999999000001);
    head->response_time = APR_INT64_C(1763999999500002);
    head->control = MW_CONTROL_PARSED | MW_CONTROL_CACHE_CONTROL
                    | MW_CONTROL_MAX_AGE | MW_CONTROL_PUBLIC;
    head->max_age = 60;
    head->max_stale = head->min_fresh = -1;
    head->s_maxage = APR_INT64_MIN;
    head->vary_serial = APR_UINT64_C(0xfedcba9876543210);
    head->vary_block = "\0\r\n\xff"
                       "block";
    head->vary_block_len = 9;
    apr_table_addn(head->headers, "Date", "Mon, 24 Nov 2025 16:00:00 GMT");
    apr_table_addn(head->headers, "Content-Type", "text/html; charset=utf-8");
    apr_table_addn(head->headers, "Content-Length", "1024");
    apr_table_addn(head->headers, "ETag", "\"abc\"");
    apr_table_addn(head->headers, "Link", "</a>; rel=next");
    apr_table_addn(head->headers, "Link", "</b>; rel=prev");
    apr_table_addn(head->headers, "X_odd!#$%&'*+.^`|~", "");
    apr_table_addn(head->headers, "Vary", "Accept-Encoding");
    return head;
}

/* A copy of exactly this length, so that a tool sees every byte too many. */
static unsigned char *bytes_copy(const void *bytes, apr_size_t length)
{
    unsigned char *copy = malloc(length ? length : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, length);
    return copy;
}

static unsigned char *head_bytes(const mw_head_t *head, int checksum,
                                 apr_size_t *length, apr_pool_t *pool)
{
    const void *bytes;

    assert_int_equal(mw_head_encode(head, checksum, pool, &bytes, length),
                     APR_SUCCESS);
    return bytes_copy(bytes, *length);
}

static void tables_equal(const apr_table_t *a, const apr_table_t *b)
{
    const apr_array_header_t *as = apr_table_elts(a), *bs = apr_table_elts(b);
    int i;

    assert_int_equal(as->nelts, bs->nelts);
    for (i = 0; i < as->nelts; i++) {
        const apr_table_entry_t *x = &APR_ARRAY_IDX(as, i, apr_table_entry_t);
        const apr_table_entry_t *y = &APR_ARRAY_IDX(bs, i, apr_table_entry_t);

        assert_string_equal(x->key, y->key);
        assert_string_equal(x->val, y->val);
    }
}

static void heads_equal(const mw_head_t *a, const mw_head_t *b)
{
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->date, b->date);
    assert_int_equal(a->expire, b->expire);
    assert_int_equal(a->request_time, b->request_time);
    assert_int_equal(a->response_time, b->response_time);
    assert_int_equal(a->control, b->control);
    assert_int_equal(a->max_age, b->max_age);
    assert_int_equal(a->max_stale, b->max_stale);
    assert_int_equal(a->min_fresh, b->min_fresh);
    assert_int_equal(a->s_maxage, b->s_maxage);
    assert_int_equal(a->vary_serial, b->vary_serial);
    assert_int_equal(a->vary_block_len, b->vary_block_len);
    if (a->vary_block_len) {
        assert_memory_equal(a->vary_block, b->vary_block, a->vary_block_len);
    }
    tables_equal(a->headers, b->headers);
}

static int string_end(void *baton, const char *name, const char *value)
{
    (void)baton;
    return strlen(name) + strlen(value) < 2 * CACHEMW_HEAD_MAX;
}

/*
 * Decode bytes that need not be a head; what is meant for our own ones must not
 * look beyond others, either. What is accepted must encode to the
 * very same bytes.
 */
static int bytes_accepted(const unsigned char *bytes, apr_size_t length,
                          apr_off_t body_len, apr_pool_t *pool)
{
    apr_pool_t *sub;
    mw_head_t head;
    apr_status_t rv;

    apr_pool_create(&sub, pool);
    if (mw_head_decode_own(bytes, length, body_len, sub, &head)
        == APR_SUCCESS) {
        apr_table_do(string_end, &head, head.headers, NULL);
    }
    rv = mw_head_decode(bytes, length, body_len, sub, &head);
    if (rv == APR_SUCCESS) {
        const void *again;
        apr_size_t again_len;

        assert_int_equal(
            mw_head_encode(&head, bytes[6] & 1, sub, &again, &again_len),
            APR_SUCCESS);
        assert_int_equal(again_len, length);
        assert_memory_equal(again, bytes, length);
    }
    else {
        assert_int_equal(rv, APR_EINCOMPLETE);
    }
    apr_pool_destroy(sub);
    return rv == APR_SUCCESS;
}

static void round_trip(const mw_head_t *head, apr_off_t body_len,
                       apr_pool_t *pool)
{
    int checksum;

    for (checksum = 0; checksum < 2; checksum++) {
        apr_size_t length;
        unsigned char *bytes = head_bytes(head, checksum, &length, pool);
        mw_head_t decoded;

        assert_int_equal(mw_head_kind(bytes, length), MW_HEAD_RESPONSE);
        assert_int_equal(
            mw_head_decode(bytes, length, body_len, pool, &decoded),
            APR_SUCCESS);
        heads_equal(head, &decoded);
        assert_true(bytes_accepted(bytes, length, body_len, pool));
        free(bytes);
    }
}

/* --- round trips --------------------------------------------------------- */

static void test_entry_round_trip(void **state)
{
    mw_head_t *head = head_typical(*state);

    round_trip(head, 1024, *state);
    round_trip(head, -1, *state);
    round_trip(head_plain(*state), 0, *state);
    head->date = head->expire = MW_TIME_MAX;
    head->control = MW_CONTROL_ALL;
    head->max_age = APR_INT64_MAX;
    head->status = 599;
    round_trip(head, 1024, *state);
}

static void test_entry_no_header_table_means_no_fields(void **state)
{
    mw_head_t *head = head_plain(*state), decoded;
    apr_size_t length;
    unsigned char *bytes;

    head->headers = NULL;
    bytes = head_bytes(head, 1, &length, *state);
    assert_int_equal(mw_head_decode(bytes, length, 5, *state, &decoded),
                     APR_SUCCESS);
    assert_true(apr_is_empty_table(decoded.headers));
    assert_null(decoded.vary_block);
    free(bytes);
}

/* A hit copies no string. */
static void test_entry_strings_point_into_the_bytes(void **state)
{
    mw_head_t *head = head_typical(*state), decoded;
    const apr_array_header_t *fields;
    apr_size_t length;
    unsigned char *bytes = head_bytes(head, 0, &length, *state);
    const char *start = (const char *)bytes, *end = start + length;
    int i;

    assert_int_equal(mw_head_decode(bytes, length, -1, *state, &decoded),
                     APR_SUCCESS);
    assert_true(decoded.vary_block >= start && decoded.vary_block < end);
    fields = apr_table_elts(decoded.headers);
    for (i = 0; i < fields->nelts; i++) {
        apr_table_entry_t *field = &APR_ARRAY_IDX(fields, i, apr_table_entry_t);

        assert_true(field->key >= start && field->key < end);
        assert_true(field->val >= start && field->val < end);
    }
    free(bytes);
}

static void test_entry_values_have_every_byte(void **state)
{
    mw_head_t *head = head_plain(*state);
    char all[256];
    int c, n = 0;

    for (c = 1; c < 256; c++) {
        char one[2] = { (char)c, 0 };

        if (c != '\r' && c != '\n') {
            all[n++] = (char)c;
            apr_table_add(head->headers, "X", one);
        }
    }
    all[n] = 0;
    apr_table_addn(head->headers, "All", all);
    round_trip(head, 0, *state);
}

/* Lengths around the sixteen bytes that are looked at together, and beyond
 * what sixteen counters of a byte each can count. */
static void test_entry_fields_of_every_length(void **state)
{
    static const int lengths[] = { 0,    1,    2,    7,     8,     14,    15,
                                   16,   17,   31,   32,    33,    255,   4079,
                                   4080, 4081, 8191, 65535, 65536, 300000 };
    apr_size_t i;

    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        mw_head_t *head = head_plain(*state);
        char *text = apr_palloc(*state, lengths[i] + 1);
        int n;

        memset(text, 'v', lengths[i]);
        text[lengths[i]] = 0;
        apr_table_addn(head->headers, "X", text);
        if (lengths[i] && lengths[i] <= 65535) {
            apr_table_addn(head->headers, text, "v");
        }
        for (n = 0; n < (int)i * 300; n++) {
            apr_table_addn(head->headers, "e", "");
        }
        round_trip(head, 0, *state);
        apr_pool_clear(*state);
    }
}

/* --- what must not be stored --------------------------------------------- */

static apr_status_t encode_one(const char *name, const char *value,
                               apr_pool_t *pool)
{
    mw_head_t *head = head_plain(pool);
    const void *bytes;
    apr_size_t length;

    apr_table_addn(head->headers, name, value);
    return mw_head_encode(head, 0, pool, &bytes, &length);
}

static void test_entry_encode_refuses_split_fields(void **state)
{
    assert_int_equal(encode_one("", "v", *state), APR_EINVAL);
    assert_int_equal(encode_one("A B", "v", *state), APR_EINVAL);
    assert_int_equal(encode_one("A:", "v", *state), APR_EINVAL);
    assert_int_equal(encode_one("A\r\nB", "v", *state), APR_EINVAL);
    assert_int_equal(encode_one("\xc3\xa4", "v", *state), APR_EINVAL);
    assert_int_equal(encode_one("A", "v\rSet-Cookie: x", *state), APR_EINVAL);
    assert_int_equal(encode_one("A", "v\nSet-Cookie: x", *state), APR_EINVAL);
    assert_int_equal(encode_one("A", "\n", *state), APR_EINVAL);
    assert_int_equal(encode_one("A", "v", *state), APR_SUCCESS);
}

static void test_entry_encode_refuses_other_framing(void **state)
{
    static const char *const bad[] = { "",
                                       "-1",
                                       "+1",
                                       " 1",
                                       "1 ",
                                       "0x10",
                                       "1,1",
                                       "1, 1",
                                       "a",
                                       "1000000000000000000",
                                       "0000000000000000001",
                                       "99999999999999999999" };
    apr_size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(encode_one("content-LENGTH", bad[i], *state),
                         APR_EINVAL);
    }
    assert_int_equal(encode_one("Content-Length", "999999999999999999", *state),
                     APR_SUCCESS);
    assert_int_equal(encode_one("transfer-encoding", "chunked", *state),
                     APR_EINVAL);
}

static void test_entry_encode_refuses_numbers_out_of_range(void **state)
{
    static const apr_time_t times[] = { -1, APR_INT64_MIN, MW_TIME_MAX + 1 };
    static const int statuses[] = { -1, 0, 100, 199, 600, 65536 + 200 };
    const void *bytes;
    apr_size_t length, i;

    for (i = 0; i < 6; i++) {
        mw_head_t *head = head_plain(*state);

        head->status = statuses[i];
        assert_int_equal(mw_head_encode(head, 0, *state, &bytes, &length),
                         APR_EINVAL);
    }
    for (i = 0; i < 12; i++) {
        mw_head_t *head = head_plain(*state);
        apr_time_t *fields[] = { &head->date, &head->expire,
                                 &head->request_time, &head->response_time };

        *fields[i % 4] = times[i / 4];
        assert_int_equal(mw_head_encode(head, 0, *state, &bytes, &length),
                         APR_EINVAL);
    }
    for (i = 18; i < 32; i++) {
        mw_head_t *head = head_plain(*state);

        head->control = 1u << i;
        assert_int_equal(mw_head_encode(head, 0, *state, &bytes, &length),
                         APR_EINVAL);
    }
}

static void test_entry_head_max_is_exact(void **state)
{
    int checksum;

    for (checksum = 0; checksum < 2; checksum++) {
        mw_head_t *head = head_plain(*state);
        apr_size_t length, fixed;
        const void *bytes;
        char *text;

        apr_table_setn(head->headers, "X", "");
        assert_int_equal(mw_head_encode(head, checksum, *state, &bytes, &fixed),
                         APR_SUCCESS);
        text = apr_palloc(*state, CACHEMW_HEAD_MAX + 1);
        memset(text, 'v', CACHEMW_HEAD_MAX);
        text[CACHEMW_HEAD_MAX - fixed] = 0;
        apr_table_setn(head->headers, "X", text);
        assert_int_equal(
            mw_head_encode(head, checksum, *state, &bytes, &length),
            APR_SUCCESS);
        assert_int_equal(length, CACHEMW_HEAD_MAX);
        assert_true(bytes_accepted(bytes, length, -1, *state));
        text[CACHEMW_HEAD_MAX - fixed] = 'v';
        text[CACHEMW_HEAD_MAX - fixed + 1] = 0;
        assert_int_equal(
            mw_head_encode(head, checksum, *state, &bytes, &length),
            APR_ENOSPC);
    }
}

static void test_entry_encode_says_what_is_too_long(void **state)
{
    mw_head_t *head = head_plain(*state);
    char *name = apr_palloc(*state, CACHEMW_HEAD_MAX + 1);
    const void *bytes;
    apr_size_t length;

    memset(name, 'n', CACHEMW_HEAD_MAX);
    name[CACHEMW_HEAD_MAX] = 0;
    assert_int_equal(encode_one(name, "v", *state), APR_ENOSPC);
    name[65536] = 0;
    assert_int_equal(encode_one(name, "v", *state), APR_SUCCESS);
    head->vary_block = name;
    head->vary_block_len = (apr_size_t)-1;
    assert_int_equal(mw_head_encode(head, 0, *state, &bytes, &length),
                     APR_ENOSPC);
}

/* --- what fields say ----------------------------------------------------- */

static mw_head_t said_by(const char *name, const char *value, apr_pool_t *pool)
{
    mw_head_t *head = head_plain(pool), own, decoded;
    const void *bytes;
    apr_size_t length;

    head->date = 70;
    head->request_time = 100;
    head->response_time = 110;
    apr_table_addn(head->headers, "Server", "s");
    apr_table_addn(head->headers, name, value);
    apr_table_addn(head->headers, name, value);
    apr_table_addn(head->headers, "Link", "l");
    assert_int_equal(mw_head_encode(head, 0, pool, &bytes, &length),
                     APR_SUCCESS);
    assert_int_equal(mw_head_decode(bytes, length, -1, pool, &decoded),
                     APR_SUCCESS);
    assert_int_equal(mw_head_decode_own(bytes, length, -1, pool, &own),
                     APR_SUCCESS);
    heads_equal(&decoded, &own);
    assert_int_equal(decoded.born, own.born);
    assert_int_equal(decoded.content_length, own.content_length);
    assert_int_equal(decoded.is_encoded, own.is_encoded);
    return own;
}

/* RFC 9111, section 4.2.3: the later of what Age and what Date say. */
static void test_entry_born_when_its_age_was_0(void **state)
{
    static const struct {
        const char *name, *value;
        apr_time_t born;
    } ages[] = {
        { "X", "1", 60 },
        { "Age", "0", 60 },
        { "Age", "-1", 60 },
        { "Age", "x", 60 },
        { "Ag_", "1", 60 },
        { "Age", "1", 100 - 1000000 },
        { "aGE", "1", 100 - 1000000 },
        { "Age", "1, 2", 100 - 1000000 },
        { "Age", "9223372036854775807", 100 - MW_TIME_MAX },
        { "Age", "99999999999999999999999999", 100 - MW_TIME_MAX },
    };
    mw_head_t *head = head_plain(*state);
    apr_size_t length, i;
    unsigned char *bytes;

    for (i = 0; i < sizeof(ages) / sizeof(ages[0]); i++) {
        assert_int_equal(said_by(ages[i].name, ages[i].value, *state).born,
                         ages[i].born);
    }
    /* of two the first, like apr_table_get() */
    apr_table_addn(head->headers, "Age", "1");
    apr_table_addn(head->headers, "Age", "2");
    head->date = 7; /* after the response: no age */
    bytes = head_bytes(head, 0, &length, *state);
    assert_int_equal(mw_head_decode(bytes, length, -1, *state, head),
                     APR_SUCCESS);
    assert_int_equal(head->born, -1000000);
    free(bytes);
}

static void test_entry_notes_framing_and_coding(void **state)
{
    static const char *const names[] = { "Content-Length",   "CONTENT-length",
                                         "Content-Encoding", "content-encodinG",
                                         "Content.Encoding", "Content_Length" };
    apr_size_t i;

    for (i = 0; i < 6; i++) {
        mw_head_t said = said_by(names[i], "012", *state);

        assert_int_equal(said.content_length, i < 2 ? 12 : -1);
        assert_int_equal(said.is_encoded, i == 2 || i == 3);
    }
}

/* --- damage -------------------------------------------------------------- */

static void test_entry_refuses_every_truncation(void **state)
{
    mw_head_t *heads[2] = { head_typical(*state), head_plain(*state) };
    int i, checksum;

    for (i = 0; i < 2; i++) {
        for (checksum = 0; checksum < 2; checksum++) {
            apr_size_t length, cut;
            unsigned char *bytes =
                head_bytes(heads[i], checksum, &length, *state);

            for (cut = 0; cut < length; cut++) {
                unsigned char *copy = bytes_copy(bytes, cut);

                assert_false(bytes_accepted(copy, cut, -1, *state));
                if (cut >= 12) {
                    /* also when its length was made to fit */
                    mw_wire_put32(copy + 8, (apr_uint32_t)cut);
                    assert_false(bytes_accepted(copy, cut, -1, *state));
                }
                free(copy);
            }
            free(bytes);
        }
    }
}

static void test_entry_refuses_what_follows(void **state)
{
    int checksum, claimed;

    for (checksum = 0; checksum < 2; checksum++) {
        for (claimed = 0; claimed < 2; claimed++) {
            apr_size_t length;
            unsigned char *bytes =
                head_bytes(head_typical(*state), checksum, &length, *state);

            bytes = realloc(bytes, length + 1);
            assert_non_null(bytes);
            bytes[length] = 0;
            if (claimed) {
                mw_wire_put32(bytes + 8, (apr_uint32_t)length + 1);
            }
            assert_false(bytes_accepted(bytes, length + 1, -1, *state));
            free(bytes);
        }
    }
}

/* Every byte, every other value. */
static void test_entry_checksum_finds_every_changed_byte(void **state)
{
    apr_size_t length, i;
    unsigned char *bytes = head_bytes(head_typical(*state), 1, &length, *state);
    int mask;

    for (i = 0; i < length; i++) {
        for (mask = 1; mask < 256; mask++) {
            bytes[i] ^= mask;
            assert_false(bytes_accepted(bytes, length, -1, *state));
            bytes[i] ^= mask;
        }
    }
    assert_true(bytes_accepted(bytes, length, -1, *state));
    free(bytes);
}

/* Without one a changed byte is refused or means just what it says. */
static void test_entry_changed_byte_is_never_misread(void **state)
{
    apr_size_t length, i;
    unsigned char *bytes = head_bytes(head_typical(*state), 0, &length, *state);
    int mask, accepted = 0;

    for (i = 0; i < length; i++) {
        for (mask = 1; mask < 256; mask++) {
            bytes[i] ^= mask;
            accepted += bytes_accepted(bytes, length, -1, *state);
            bytes[i] ^= mask;
        }
    }
    assert_true(accepted > 0);
    free(bytes);
}

/*
 * A response that would be split by CR or LF or cut by NUL, at every place of
 * values of many lengths.
 */
static void test_entry_refuses_control_at_every_place(void **state)
{
    int value_len;

    for (value_len = 1; value_len < 70; value_len++) {
        mw_head_t *head = head_plain(*state);
        char *text = apr_pcalloc(*state, value_len + 1);
        apr_size_t length, i;
        unsigned char *bytes;

        memset(text, 'v', value_len);
        apr_table_setn(head->headers, "Name", text);
        bytes = head_bytes(head, 0, &length, *state);
        for (i = length - value_len - 1; i < length - 1; i++) {
            unsigned char was = bytes[i];

            bytes[i] = '\r';
            assert_false(bytes_accepted(bytes, length, -1, *state));
            bytes[i] = '\n';
            assert_false(bytes_accepted(bytes, length, -1, *state));
            bytes[i] = 0;
            assert_false(bytes_accepted(bytes, length, -1, *state));
            bytes[i] = was;
        }
        assert_true(bytes_accepted(bytes, length, -1, *state));
        bytes[length - 1] = 'x';
        assert_false(bytes_accepted(bytes, length, -1, *state));
        free(bytes);
    }
}

/* Names are tokens at every place, whatever way they are looked at. */
static void test_entry_decodes_tokens_only(void **state)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789"
                                "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    int name_len, c;

    for (name_len = 1; name_len < 36; name_len += 1 + name_len / 8) {
        mw_head_t *head = head_plain(*state);
        char *text = apr_pcalloc(*state, name_len + 1);
        apr_size_t length, i, start;
        unsigned char *bytes;

        memset(text, 'n', name_len);
        apr_table_setn(head->headers, text, "v");
        bytes = head_bytes(head, 0, &length, *state);
        start = AT_FIELDS + FIELD_FIXED;
        for (i = start; i < start + name_len; i++) {
            for (c = 0; c < 256; c++) {
                bytes[i] = (unsigned char)c;
                assert_int_equal(bytes_accepted(bytes, length, -1, *state),
                                 c && strchr(token, c));
            }
            bytes[i] = 'n';
        }
        free(bytes);
    }
}

/* Lengths and counts that do not fit each other, some of them huge. */
static void test_entry_refuses_contradicting_lengths(void **state)
{
    static const apr_size_t at[] = {
        8, AT_COUNT, AT_NAMES_LEN, AT_BLOCK_LEN, AT_FIELDS, AT_FIELDS + 4
    };
    static const apr_uint32_t values[] = { 0,          1,          2,
                                           5,          7,          0x7fffffff,
                                           0x80000000, 0xfffffffe, 0xffffffff,
                                           0x2aaaaaab, 0x10000,    0xfffff };
    apr_size_t length, i, j;
    unsigned char *bytes = head_bytes(head_typical(*state), 0, &length, *state);

    for (i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        apr_uint32_t was = mw_wire_get32(bytes + at[i]);

        for (j = 0; j < sizeof(values) / sizeof(values[0]); j++) {
            mw_wire_put32(bytes + at[i], values[j]);
            assert_false(bytes_accepted(bytes, length, -1, *state));
        }
        for (j = 1; j < 4; j++) {
            mw_wire_put32(bytes + at[i], was + (apr_uint32_t)j);
            assert_false(bytes_accepted(bytes, length, -1, *state));
            mw_wire_put32(bytes + at[i], was - (apr_uint32_t)j);
            assert_false(bytes_accepted(bytes, length, -1, *state));
        }
        mw_wire_put32(bytes + at[i], was);
    }
    assert_true(bytes_accepted(bytes, length, -1, *state));
    free(bytes);
}

/* As many terminators as there must be, but not where they must be, or strings
 * that begin elsewhere. */
static void test_entry_refuses_moved_terminators(void **state)
{
    static const struct {
        const char *names;
        int names_at[2];
        const char *values;
        int values_at[2];
        int names_len;
    } moved[] = {
        { "abc\0d\0", { 0, 4 }, "vwx\0y\0", { 6, 10 }, 6 }, /* as it was */
        { "ab\0cd\0", { 0, 4 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "abcd\0\0", { 0, 4 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "\0abcd\0", { 0, 1 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "abcd\0\0", { 0, 5 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "abc\0d\0", { 0, 4 }, "vw\0xy\0", { 6, 10 }, 6 },
        { "abc\0d\0", { 0, 4 }, "vw\0x\0y", { 6, 9 }, 6 },
        { "ab\0d\0v", { 0, 3 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "abc\0d\0", { 0, 4 }, "vwx\0y\0", { 6, 9 }, 7 },
        { "abc\0d\0", { 0, 4 }, "vwx\0y\0", { 6, 11 }, 6 },
        { "abc\0d\0", { 0, 0 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "abc\0d\0", { 0, 4 }, "vwx\0y\0", { 6, 6 }, 6 },
        { "abc\0d\0", { 4, 0 }, "vwx\0y\0", { 6, 10 }, 6 },
        { "abc\0d\0", { 6, 10 }, "vwx\0y\0", { 0, 4 }, 6 },
        { "abc\0d\0", { 0, 4 }, "vwx\0y\0", { 6, 10 }, 0 },
        { "abc\0d\0", { 0, 4 }, "vwx\0y\0", { 6, 10 }, 4 },
    };
    mw_head_t *head = head_plain(*state);
    apr_size_t length, i;
    unsigned char *bytes, *p;
    int j;

    apr_table_addn(head->headers, "abc", "vwx");
    apr_table_addn(head->headers, "d", "y");
    bytes = head_bytes(head, 0, &length, *state);
    p = bytes + AT_FIELDS;
    for (i = 0; i < sizeof(moved) / sizeof(moved[0]); i++) {
        mw_wire_put32(bytes + AT_NAMES_LEN, moved[i].names_len);
        for (j = 0; j < 2; j++) {
            const apr_uint32_t strings = AT_FIELDS + 2 * FIELD_FIXED;

            mw_wire_put32(p + FIELD_FIXED * j, strings + moved[i].names_at[j]);
            mw_wire_put32(p + FIELD_FIXED * j + 4,
                          strings + moved[i].values_at[j]);
        }
        memcpy(p + 2 * FIELD_FIXED, moved[i].names, 6);
        memcpy(p + 2 * FIELD_FIXED + 6, moved[i].values, 6);
        assert_int_equal(bytes_accepted(bytes, length, -1, *state), i == 0);
    }
    free(bytes);
}

/* What counts sixteen bytes at a time counts each of the sixteen to 255. */
static void test_entry_refuses_256_returns_in_a_row(void **state)
{
    mw_head_t *head = head_plain(*state);
    char *text = apr_pcalloc(*state, 16 * 1024 + 1);
    apr_size_t length, start, i;
    unsigned char *bytes;

    memset(text, 'v', 16 * 1024);
    apr_table_setn(head->headers, "X", text);
    bytes = head_bytes(head, 0, &length, *state);
    start = length - 16 * 1024 - 1;
    for (i = 0; i < 1024; i++) {
        bytes[start + 16 * i] = '\r';
        assert_false(bytes_accepted(bytes, length, -1, *state));
    }
    free(bytes);
}

static void test_entry_decode_refuses_numbers_out_of_range(void **state)
{
    apr_size_t length, i;
    unsigned char *bytes = head_bytes(head_plain(*state), 0, &length, *state);

    for (i = 0; i < 1000; i++) {
        mw_wire_put32(bytes + AT_STATUS, (apr_uint32_t)i);
        assert_int_equal(bytes_accepted(bytes, length, -1, *state),
                         i >= 200 && i <= 599);
    }
    mw_wire_put32(bytes + AT_STATUS, 200);
    for (i = 0; i < 32; i++) {
        mw_wire_put32(bytes + AT_CONTROL, 1u << i);
        assert_int_equal(bytes_accepted(bytes, length, -1, *state), i < 18);
    }
    mw_wire_put32(bytes + AT_CONTROL, 0);
    for (i = 0; i < 4; i++) {
        static const apr_int64_t born[] = { 0, 0, MW_TIME_MAX, -MW_TIME_MAX };

        mw_wire_put64(bytes + AT_DATE + 8 * i, MW_TIME_MAX);
        mw_wire_put64(bytes + AT_BORN, (apr_uint64_t)born[i]);
        assert_true(bytes_accepted(bytes, length, -1, *state));
        mw_wire_put64(bytes + AT_BORN, (apr_uint64_t)born[i] ^ 1);
        assert_false(bytes_accepted(bytes, length, -1, *state));
        mw_wire_put64(bytes + AT_DATE + 8 * i, MW_TIME_MAX + 1);
        assert_false(bytes_accepted(bytes, length, -1, *state));
        mw_wire_put64(bytes + AT_DATE + 8 * i, (apr_uint64_t)-1);
        assert_false(bytes_accepted(bytes, length, -1, *state));
        mw_wire_put64(bytes + AT_DATE + 8 * i, 0);
    }
    mw_wire_put64(bytes + AT_BORN, 0);
    assert_true(bytes_accepted(bytes, length, -1, *state));
    free(bytes);
}

/* --- framing ------------------------------------------------------------- */

static int framing_accepted(const char *first, const char *second,
                            apr_off_t body_len, apr_pool_t *pool)
{
    mw_head_t *head = head_plain(pool);
    const void *bytes;
    apr_size_t length;

    apr_table_addn(head->headers, "Content-Length", first);
    apr_table_addn(head->headers, "content-length", second);
    return mw_head_encode(head, 0, pool, &bytes, &length) == APR_SUCCESS
           && bytes_accepted(bytes, length, body_len, pool);
}

/* A response never says another length than its body has. */
static void test_entry_content_length_is_the_bodys(void **state)
{
    apr_size_t length, i;
    unsigned char *bytes;

    assert_true(framing_accepted("7", "7", 7, *state));
    assert_true(
        framing_accepted("1234567890", "1234567890", 1234567890, *state));
    assert_true(framing_accepted("7", "007", 7, *state));
    assert_true(framing_accepted("7", "7", -1, *state));
    assert_false(framing_accepted("7", "7", 8, *state));
    assert_false(framing_accepted("7", "7", 0, *state));
    assert_false(framing_accepted("7", "8", 7, *state));
    assert_false(framing_accepted("7", "8", 8, *state));
    assert_false(framing_accepted("7", "8", -1, *state));

    bytes = head_bytes(head_typical(*state), 0, &length, *state);
    for (i = 0; memcmp(bytes + i, "1024", 4); i++) {
    }
    assert_true(bytes_accepted(bytes, length, 1024, *state));
    bytes[i] = 'x';
    assert_false(bytes_accepted(bytes, length, 1024, *state));
    assert_false(bytes_accepted(bytes, length, -1, *state));
    free(bytes);
}

static void test_entry_decode_refuses_transfer_encoding(void **state)
{
    mw_head_t *head = head_plain(*state);
    apr_size_t length;
    unsigned char *bytes;

    apr_table_addn(head->headers, "Transfer.Encoding", "chunked");
    bytes = head_bytes(head, 0, &length, *state);
    assert_true(bytes_accepted(bytes, length, -1, *state));
    bytes[AT_FIELDS + FIELD_FIXED + 8] = '-';
    assert_false(bytes_accepted(bytes, length, -1, *state));
    free(bytes);
}

/* --- the frame ----------------------------------------------------------- */

static void test_entry_decodes_its_kind_only(void **state)
{
    apr_size_t length, i;
    unsigned char *bytes = head_bytes(head_plain(*state), 0, &length, *state);

    assert_int_equal(mw_head_kind(bytes, 0), 0);
    for (i = 0; i < 256; i++) {
        bytes[5] = (unsigned char)i;
        assert_int_equal(mw_head_kind(bytes, length), i);
        assert_int_equal(bytes_accepted(bytes, length, -1, *state),
                         i == MW_HEAD_RESPONSE);
    }
    bytes[5] = MW_HEAD_RESPONSE;
    for (i = 0; i < 12; i++) {
        bytes[i] ^= 0x40;
        assert_false(bytes_accepted(bytes, length, -1, *state));
        bytes[i] ^= 0x40;
    }
    assert_true(bytes_accepted(bytes, length, -1, *state));
    free(bytes);
}

/* The checksum that a head must have is that of core/crc32c, at its end. */
static void test_entry_checksum_covers_all(void **state)
{
    apr_size_t length;
    unsigned char *bytes = head_bytes(head_typical(*state), 1, &length, *state);

    length -= CHECKSUM_LEN;
    assert_int_equal(mw_wire_get32(bytes + length),
                     mw_crc32c(0, bytes, length));
    free(bytes);
}

/* A format is for ever: what an older build stored is read. */
static void test_entry_format_is_frozen(void **state)
{
    static const unsigned char bytes[] =
        "CMWH\x03\x01\x01\0\x84\0\0\0"
        "\xcc\0\0\0\x05\0\0\0\x01\0\0\0\x02\0\0\0\x02\0\0\0\0\0\0\0"
        "\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
        "\x04\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"
        "\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0"
        "\x09\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0"
        "\xff\xff\xff\xff\xff\xff\xff\xff"
        "\x86\0\0\0\x88\0\0\0"
        "BK"
        "N\0"
        "value bytes\0";
    unsigned char copy[sizeof(bytes) - 1 + CHECKSUM_LEN];
    apr_size_t length = sizeof(bytes) - 1;
    mw_head_t head;

    memcpy(copy, bytes, length);
    mw_wire_put32(copy + 8, (apr_uint32_t)sizeof(copy));
    mw_wire_put32(copy + length, mw_crc32c(0, copy, length));
    assert_true(bytes_accepted(copy, sizeof(copy), 0, *state));
    assert_int_equal(mw_head_decode(copy, sizeof(copy), 0, *state, &head),
                     APR_SUCCESS);
    assert_int_equal(head.status, 204);
    assert_int_equal(head.control, 5);
    assert_int_equal(head.date, 1);
    assert_int_equal(head.expire, 2);
    assert_int_equal(head.request_time, 3);
    assert_int_equal(head.response_time, 4);
    assert_int_equal(head.max_age, -1);
    assert_int_equal(head.max_stale, 6);
    assert_int_equal(head.min_fresh, 7);
    assert_int_equal(head.s_maxage, 8);
    assert_int_equal(head.vary_serial, APR_UINT64_C(0x1000000000000009));
    assert_int_equal(head.born, 0);
    assert_int_equal(head.content_length, -1);
    assert_int_equal(head.vary_block_len, 2);
    assert_memory_equal(head.vary_block, "BK", 2);
    assert_string_equal(apr_table_get(head.headers, "n"), "value bytes");
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, pool_make, pool_destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_entry_round_trip),
        TEST(test_entry_no_header_table_means_no_fields),
        TEST(test_entry_strings_point_into_the_bytes),
        TEST(test_entry_values_have_every_byte),
        TEST(test_entry_fields_of_every_length),
        TEST(test_entry_encode_refuses_split_fields),
        TEST(test_entry_encode_refuses_other_framing),
        TEST(test_entry_encode_refuses_numbers_out_of_range),
        TEST(test_entry_head_max_is_exact),
        TEST(test_entry_encode_says_what_is_too_long),
        TEST(test_entry_born_when_its_age_was_0),
        TEST(test_entry_notes_framing_and_coding),
        TEST(test_entry_refuses_every_truncation),
        TEST(test_entry_refuses_what_follows),
        TEST(test_entry_checksum_finds_every_changed_byte),
        TEST(test_entry_changed_byte_is_never_misread),
        TEST(test_entry_refuses_control_at_every_place),
        TEST(test_entry_decodes_tokens_only),
        TEST(test_entry_refuses_contradicting_lengths),
        TEST(test_entry_refuses_moved_terminators),
        TEST(test_entry_refuses_256_returns_in_a_row),
        TEST(test_entry_decode_refuses_numbers_out_of_range),
        TEST(test_entry_content_length_is_the_bodys),
        TEST(test_entry_decode_refuses_transfer_encoding),
        TEST(test_entry_decodes_its_kind_only),
        TEST(test_entry_checksum_covers_all),
        TEST(test_entry_format_is_frozen),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
