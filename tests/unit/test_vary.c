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

#include "core/entry.h"
#include "core/vary.h"
#include "core/wire.h"

/* Where the encoded record has what; see core/vary.c. */
#define AT_SERIAL 28
#define AT_INVALIDATED 36
#define AT_FIELDS 44
#define AT_VARIANTS 48
#define AT_LISTS 52

static const unsigned char random24[24] = "an epoch of 16 b12345678";

static int pool_make(void **state)
{
    return apr_pool_create((apr_pool_t **)state, NULL);
}

static int pool_destroy(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

/* --- building blocks ----------------------------------------------------- */

/* A request from "name: value" lines. */
static apr_table_t *request_make(const char *lines, apr_pool_t *pool)
{
    apr_table_t *request = apr_table_make(pool, 4);
    char *copy = apr_pstrdup(pool, lines), *last = NULL;
    char *line = apr_strtok(copy, "\n", &last);

    for (; line; line = apr_strtok(NULL, "\n", &last)) {
        char *colon = strchr(line, ':');

        assert_non_null(colon);
        *colon = 0;
        apr_table_addn(request, line, colon + 1);
    }
    return request;
}

/* A list of fields from a Vary value. */
static apr_array_header_t *fields_make(const char *vary, apr_pool_t *pool)
{
    apr_table_t *headers = apr_table_make(pool, 1);
    int star;

    apr_table_setn(headers, "Vary", vary);
    return mw_vary_fields(headers, &star, pool);
}

/* The number that stands for an Accept-Encoding. */
static const char *codings_text(apr_uint32_t codings, apr_pool_t *pool)
{
    static const char *const names[] = { "br",       "gzip",    "zstd",
                                         "compress", "deflate", "!identity" };
    const char *text = "";
    int i;

    for (i = 0; i < 6; i++) {
        if (codings & 1u << i) {
            text = apr_pstrcat(pool, text, *text ? "," : "", names[i], NULL);
        }
    }
    assert_int_equal(codings >> 6, 0);
    return text;
}

/* The block of a request, printable: "name=value&value;". */
static const char *block_text(const char *vary, const char *lines,
                              apr_pool_t *pool)
{
    apr_size_t length;
    const unsigned char *p, *end;
    const char *text = "";

    p = (const unsigned char *)mw_vary_block(
        fields_make(vary, pool), mw_vary_asked(request_make(lines, pool)),
        &length, pool);
    end = p + length;
    while (p < end) {
        apr_uint32_t n = mw_wire_get32(p), i;
        int is_codings;

        is_codings = n == 15 && !memcmp(p + 4, "accept-encoding", 15);
        text = apr_psprintf(pool, "%s%.*s", text, (int)n, p + 4);
        p += 4 + n;
        n = mw_wire_get32(p);
        p += 4;
        if (is_codings) {
            text = apr_pstrcat(pool, text, n ? "=" : "",
                               codings_text(mw_wire_get32(p), pool), NULL);
            p += 4;
            n = 0;
        }
        for (i = 0; i < n; i++) {
            apr_uint32_t size = mw_wire_get32(p);

            text = apr_psprintf(pool, "%s%s%.*s", text, i ? "&" : "=",
                                (int)size, p + 4);
            p += 4 + size;
        }
        text = apr_pstrcat(pool, text, ";", NULL);
    }
    assert_true(p == end);
    return text;
}

static void block_is(const char *vary, const char *lines, const char *text,
                     apr_pool_t *pool)
{
    assert_string_equal(block_text(vary, lines, pool), text);
}

/* What the block says of an Accept-Encoding. */
static void encoding_is(const char *value, const char *canonical,
                        apr_pool_t *pool)
{
    block_is("accept-encoding",
             apr_pstrcat(pool, "Accept-Encoding:", value, NULL),
             apr_pstrcat(pool, "accept-encoding=", canonical, ";", NULL), pool);
}

static int acceptable(const char *lines, const char *coding, apr_pool_t *pool)
{
    return mw_vary_acceptable(mw_vary_asked(request_make(lines, pool)), coding);
}

/* --- the fields of Vary -------------------------------------------------- */

static void fields_are(const char *lines, const char *text, int star,
                       apr_pool_t *pool)
{
    int found = -1;
    apr_array_header_t *fields =
        mw_vary_fields(request_make(lines, pool), &found, pool);

    assert_string_equal(fields ? apr_array_pstrcat(pool, fields, ',') : "-",
                        text);
    assert_int_equal(!!found, star);
}

static void test_vary_fields_of_all_occurrences(void **state)
{
    fields_are("vary:User-Agent , ACCEPT\nX:y\nVary:accept,, cookie",
               "accept,cookie,user-agent", 0, *state);
    fields_are("X:y", "-", 0, *state);
    fields_are("Vary:", "-", 0, *state);
    fields_are("Vary: , \t,", "-", 0, *state);
}

/* Also what nobody can match must never be served to another request. */
static void test_vary_star_and_nonsense_match_nothing(void **state)
{
    fields_are("Vary: *", "*", 1, *state);
    fields_are("Vary:accept\nVary:*", "*,accept", 1, *state);
    fields_are("Vary:accept encoding", "accept encoding", 1, *state);
    fields_are("Vary:accept;q=1", "accept;q=1", 1, *state);
    fields_are("Vary:x*", "x*", 0, *state);
}

static void test_vary_same_fields(void **state)
{
    apr_pool_t *pool = *state;

    assert_true(mw_vary_same_fields(fields_make("b, A", pool),
                                    fields_make("a,B,a", pool)));
    assert_false(
        mw_vary_same_fields(fields_make("a", pool), fields_make("a,b", pool)));
    assert_false(mw_vary_same_fields(fields_make("a,c", pool),
                                     fields_make("a,b", pool)));
    assert_false(mw_vary_same_fields(NULL, fields_make("a", pool)));
    assert_true(mw_vary_same_fields(NULL, NULL));
}

/* --- normalised values --------------------------------------------------- */

/* One page, not eight copies of it. */
static void test_vary_spellings_of_gzip_are_one_variant(void **state)
{
    static const char *const spellings[] = {
        "gzip",
        "GZIP",
        " gzip ",
        "gzip, deflate",
        "deflate,gzip",
        "deflate , gzip;q=1.0, *;q=0.5",
        "gzip;q=0.001",
        "x-gzip",
        "X-GZip;q=0.9, identity",
        "gzip, gzip",
        "gzip, identity;q=0.5",
        "gzip,,deflate,sdch",
        ",gzip,",
        "\tgzip\t;\tq=1\t",
        "gzip ; Q = 1",
        "gzip; level=9; q=0.5",
        "br;q=0, gzip",
        "gzip, br;q=0.000",
        "gzip;q=",
        "gzip;q=high",
        "gzip;q=1.5",
        "gzip;q=.0",
        "gzip;",
        "gzip;;",
        "gz ip, gzip",
        "gzip\nAccept-Encoding:deflate",
        "deflate\nX:y\naccept-encoding:gzip",
    };
    apr_size_t i;

    for (i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
        encoding_is(spellings[i], "gzip", *state);
    }
}

static void test_vary_common_codings_in_any_order(void **state)
{
    encoding_is("gzip, deflate, br, zstd", "br,gzip,zstd", *state);
    encoding_is("zstd;q=0.1, x-gzip;q=0.2, br;q=0.3", "br,gzip,zstd", *state);
    encoding_is("zstd, br", "br,zstd", *state);
    encoding_is("br\nAccept-Encoding:gzip", "br,gzip", *state);
}

/* deflate, as servers send it, is two things: nobody who takes better gets
 * it. */
static void test_vary_rare_codings_count_where_nothing_better_does(void **state)
{
    encoding_is("deflate", "deflate", *state);
    encoding_is("Deflate;q=0.5, compress", "compress,deflate", *state);
    encoding_is("x-compress", "compress", *state);
    encoding_is("compress;q=0, deflate, deflate", "deflate", *state);
    encoding_is("deflate, br;q=0", "deflate", *state);
    encoding_is("deflate, br", "br", *state);
}

/* Whoever makes up names must not push out what others use. */
static void test_vary_made_up_codings_make_no_variants(void **state)
{
    encoding_is("foo", "", *state);
    encoding_is("de, deflatee, gzi, gzipp, x-br", "", *state);
    encoding_is("sdch, Deflate, pack200-gzip", "deflate", *state);
    encoding_is("bar;q=0, gzip, foo;q=1", "gzip", *state);
    encoding_is("*", "", *state);
    encoding_is("*, deflate", "deflate", *state);
    encoding_is("gzip;q=0, *", "", *state);
    encoding_is("!identity", "", *state);
    encoding_is("foo;q=0, identity;q=0", "!identity", *state);
}

/* Refused once is refused, in whatever order it was said. */
static void test_vary_contradiction_refuses(void **state)
{
    encoding_is("gzip, gzip;q=0", "", *state);
    encoding_is("gzip;q=0, gzip", "", *state);
    encoding_is("deflate, deflate;q=0, compress", "compress", *state);
    encoding_is("deflate;q=0, compress, DEFLATE", "compress", *state);
}

static void test_vary_refused_identity_is_another_variant(void **state)
{
    encoding_is("identity;q=0", "!identity", *state);
    encoding_is("*;q=0", "!identity", *state);
    encoding_is("*;q=0.0, gzip", "gzip,!identity", *state);
    encoding_is("br, *;q=0, identity;q=0.1", "br", *state);
    encoding_is("deflate, identity;q=0.", "deflate,!identity", *state);
}

static void test_vary_no_coding_is_not_no_field(void **state)
{
    encoding_is("", "", *state);
    encoding_is("  ", "", *state);
    encoding_is("identity", "", *state);
    encoding_is(";q=1, ;;, =", "", *state);
    encoding_is("gzip;q=0", "", *state);
    block_is("accept-encoding", "X:y", "accept-encoding;", *state);
}

static void test_vary_accept_lists(void **state)
{
    block_is("accept", "Accept: Text/HTML ; Q = 0.5 ,\t*/*,, image/png",
             "accept=text/html;q=0.5,*/*,image/png;", *state);
    block_is("accept-language", "Accept-Language:de\nAccept-Language: EN ; q=1",
             "accept-language=de,en;q=1;", *state);
    block_is("accept-charset", "Accept-Charset:, ,utf-8 , ",
             "accept-charset=utf-8;", *state);
    block_is("accept", "Accept: a  b ; c", "accept=a  b;c;", *state);
    block_is("accept", "Accept: , ", "accept=;", *state);
    block_is("accept", "Accept:", "accept=;", *state);
    block_is("accept", "X:y", "accept;", *state);
    block_is("accept", "Accept:b,a", "accept=b,a;", *state);
}

/* What is quoted means what it says. */
static void test_vary_accept_quoted(void **state)
{
    block_is("accept", "Accept: A;P = \"X , \\\" ; Y\" , B",
             "accept=a;p=\"X , \\\" ; Y\",b;", *state);
    block_is("accept", "Accept: a;p=\"Open , \nAccept: B",
             "accept=a;p=\"Open , ,b;", *state);
    block_is("accept", "Accept: a;p=\"\\", "accept=a;p=\"\\;", *state);
    block_is("accept", "Accept: \"", "accept=\";", *state);
}

static void test_vary_other_fields_keep_their_bytes(void **state)
{
    block_is("user-agent", "User-Agent: \t Mozilla/5.0  (X; Y) \t",
             "user-agent=Mozilla/5.0  (X; Y);", *state);
    block_is("cookie", "Cookie: a=B\nX:y\nCOOKIE:c , d ", "cookie=a=B&c , d;",
             *state);
    block_is("x", "X:\nX: ", "x=&;", *state);
    block_is("b,a,c", "A:1\nB:2", "a=1;b=2;c;", *state);
}

/* --- blocks of different requests differ --------------------------------- */

/* Requests that a key without lengths would confuse. */
static void test_vary_block_confuses_nothing(void **state)
{
    static const struct {
        const char *vary;
        const char *lines;
    } requests[] = {
        { "a", "X:y" },
        { "a", "A:" },
        { "a", "A:1" },
        { "a", "A:1,2" },
        { "a", "A:1, 2" },
        { "a", "A:1\nA:2" },
        { "a", "A:2\nA:1" },
        { "a", "A:1\nA:" },
        { "a", "A:\nA:1" },
        { "a", "A:\nA:" },
        { "a", "A:12" },
        { "a", "A:a" },
        { "a,b", "A:1\nB:2" },
        { "a,b", "A:2\nB:1" },
        { "a,b", "A:1" },
        { "a,b", "B:1" },
        { "a,b", "A:1b2" },
        { "a,b", "A:1\nB:" },
        { "a,b", "A:\nB:1" },
        { "a,b", "A:1;b=2" },
        { "ab", "AB:1" },
        { "ab", "AB:" },
        { "b", "B:1" },
        { "a,b,c", "A:1\nB:2" },
        { "accept", "Accept:a,b" },
        { "accept", "Accept:ab" },
        { "accept", "X:y" },
        { "accept", "Accept:" },
        { "accept-encoding", "Accept-Encoding:" },
        { "accept-encoding", "X:y" },
        { "accept-encoding", "Accept-Encoding:br" },
        { "accept-encoding", "Accept-Encoding:*;q=0" },
    };
    enum { N = sizeof(requests) / sizeof(requests[0]) };
    mw_vary_t *record =
        mw_vary_make(fields_make("a", *state), random24, *state);
    const char *blocks[N];
    apr_size_t lengths[N];
    mw_digest_t digests[N];
    int i, j;

    for (i = 0; i < N; i++) {
        blocks[i] = mw_vary_block(
            fields_make(requests[i].vary, *state),
            mw_vary_asked(request_make(requests[i].lines, *state)), &lengths[i],
            *state);
        mw_vary_digest(record, blocks[i], lengths[i], &digests[i]);
        for (j = 0; j < i; j++) {
            assert_false(lengths[i] == lengths[j]
                         && !memcmp(blocks[i], blocks[j], lengths[i]));
            assert_memory_not_equal(&digests[i], &digests[j], MW_DIGEST_LEN);
        }
    }
}

static apr_uint32_t noise(apr_uint32_t *state, apr_uint32_t below)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 16) % below;
}

/* A request of up to three fields a, b and c with values made of what
 * separates things. */
static const char *request_random(apr_uint32_t *state, apr_pool_t *pool)
{
    static const char *const parts[] = { "a", "b", ",",    "=",   ";",
                                         "&", "1", "\x01", "\x04" };
    const char *lines = "";
    apr_uint32_t n = noise(state, 4), i, j;

    for (i = 0; i < n; i++) {
        apr_uint32_t size = noise(state, 3);
        const char *value = "";

        for (j = 0; j < size; j++) {
            value = apr_pstrcat(pool, value, parts[noise(state, 9)], NULL);
        }
        lines = apr_psprintf(pool, "%s%c:%s\n", lines,
                             (int)('a' + noise(state, 3)), value);
    }
    return lines;
}

/* What the block is about, said in another way: the fields' values in order. */
static const char *request_sorted(const char *vary, const char *lines,
                                  apr_pool_t *pool)
{
    const apr_array_header_t *all = apr_table_elts(request_make(lines, pool));
    const char *text = "", *name;
    int i;

    for (name = vary; *name; name++) {
        for (i = 0; *name != ',' && i < all->nelts; i++) {
            apr_table_entry_t *field =
                &APR_ARRAY_IDX(all, i, apr_table_entry_t);

            if (*field->key == *name) {
                text = apr_psprintf(pool, "%s%c:%s\n", text, *name, field->val);
            }
        }
    }
    return apr_pstrcat(pool, vary, "\n", text, NULL);
}

static void test_vary_block_is_equal_for_equal_requests_only(void **state)
{
    static const char *const varies[] = { "a", "b", "a,b", "a,b,c" };
    apr_uint32_t seed = 1;
    int i, equal = 0;

    for (i = 0; i < 200000; i++) {
        apr_pool_t *pool = *state;
        const char *vary[2], *lines[2], *blocks[2];
        apr_size_t lengths[2];
        int j, same;

        for (j = 0; j < 2; j++) {
            vary[j] = varies[noise(&seed, 4)];
            lines[j] = request_random(&seed, pool);
            blocks[j] = mw_vary_block(
                fields_make(vary[j], pool),
                mw_vary_asked(request_make(lines[j], pool)), &lengths[j], pool);
        }
        same = !strcmp(request_sorted(vary[0], lines[0], pool),
                       request_sorted(vary[1], lines[1], pool));
        assert_int_equal(same,
                         lengths[0] == lengths[1]
                             && !memcmp(blocks[0], blocks[1], lengths[0]));
        equal += same;
        apr_pool_clear(pool);
    }
    assert_true(equal > 100);
}

/* A client cannot make the server work more than it sends. */
static void test_vary_block_of_a_huge_request(void **state)
{
    apr_pool_t *pool = *state;
    apr_size_t size = 1024 * 1024, i, length;
    char *value = apr_palloc(pool, size + 1);
    apr_table_t *request = apr_table_make(pool, 2);

    for (i = 0; i < size; i++) {
        value[i] = i % 2 ? ',' : (char)('a' + i / 2 % 26);
    }
    value[size] = 0;
    apr_table_addn(request, "Accept-Encoding", value);
    apr_table_addn(request, "Accept", value);
    mw_vary_block(fields_make("accept,accept-encoding", pool),
                  mw_vary_asked(request), &length, pool);
    assert_true(length > size && length < 2 * size);
    assert_false(mw_vary_acceptable(mw_vary_asked(request), value));
    memset(value, ';', size);
    assert_int_equal(mw_vary_acceptable(mw_vary_asked(request), "gzip"), 0);
}

/* --- what may be sent to whom -------------------------------------------- */

static void test_vary_acceptable_without_field(void **state)
{
    assert_true(acceptable("X:y", NULL, *state));
    assert_true(acceptable("X:y", "gzip", *state));
    assert_true(acceptable("X:y", "gzip, br", *state));
}

static void test_vary_acceptable_codings(void **state)
{
    apr_pool_t *pool = *state;

    assert_true(acceptable("Accept-Encoding:gzip", "gzip", pool));
    assert_true(acceptable("Accept-Encoding:gzip", "GZip", pool));
    assert_true(acceptable("Accept-Encoding:gzip", " x-gzip ", pool));
    assert_true(acceptable("Accept-Encoding:X-GZIP", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip", "br", pool));
    assert_false(acceptable("Accept-Encoding:gzipp", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzi", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip;q=0", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip; q=0.000", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip;a=1;Q=0", "gzip", pool));
    assert_true(acceptable("Accept-Encoding:gzip; q=0.001", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:", "gzip", pool));
    assert_true(
        acceptable("Accept-Encoding:br\nAccept-Encoding:gzip", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip;q=0,gzip", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip\nAccept-Encoding:gzip;q=0",
                            "gzip", pool));
}

static void test_vary_acceptable_several_codings(void **state)
{
    apr_pool_t *pool = *state;

    assert_true(acceptable("Accept-Encoding:gzip,br", "br, gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip", "br, gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip", "gzip, br", pool));
    assert_true(acceptable("Accept-Encoding:gzip", ", gzip ,", pool));
    assert_false(acceptable("Accept-Encoding:gzip", "gzip br", pool));
    assert_false(acceptable("Accept-Encoding:*", "a,a,a,a,a,a,a,a,a", pool));
}

static void test_vary_acceptable_star(void **state)
{
    apr_pool_t *pool = *state;

    assert_true(acceptable("Accept-Encoding:*", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:*;q=0", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:*;q=0,*", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:*,*;q=0", "gzip", pool));
    assert_false(acceptable("Accept-Encoding:gzip;q=0,*", "gzip", pool));
    assert_true(acceptable("Accept-Encoding:gzip,*;q=0", "gzip", pool));
    assert_true(acceptable("Accept-Encoding:gzip;q=0,*", "br", pool));
}

static void test_vary_acceptable_identity(void **state)
{
    apr_pool_t *pool = *state;

    assert_true(acceptable("Accept-Encoding:", NULL, pool));
    assert_true(acceptable("Accept-Encoding:gzip", NULL, pool));
    assert_true(acceptable("Accept-Encoding:gzip", "", pool));
    assert_true(acceptable("Accept-Encoding:gzip", " , ", pool));
    assert_true(acceptable("Accept-Encoding:gzip", "Identity", pool));
    assert_false(acceptable("Accept-Encoding:identity;q=0", NULL, pool));
    assert_false(acceptable("Accept-Encoding:gzip,*;q=0", NULL, pool));
    assert_true(acceptable("Accept-Encoding:identity,*;q=0", NULL, pool));
    assert_true(acceptable("Accept-Encoding:identity;q=0", "", pool) == 0);
}

/* What browsers send is known as a whole; with a space in front of it it is
 * read, and must say the same. */
static void test_vary_usual_encodings_are_what_they_say(void **state)
{
    static const char *const usual[] = { "gzip, deflate, br, zstd",
                                         "gzip, deflate, br", "gzip, deflate",
                                         "gzip" };
    static const char *const codings[] = { "br",       "gzip",    "zstd",
                                           "compress", "deflate", "identity",
                                           "other",    NULL };
    apr_pool_t *pool = *state;
    int i, j;

    for (i = 0; i < 4; i++) {
        const char *known =
            apr_pstrcat(pool, "Accept-Encoding:", usual[i], NULL);
        const char *read =
            apr_pstrcat(pool, "Accept-Encoding: ", usual[i], NULL);

        assert_string_equal(block_text("accept-encoding", known, pool),
                            block_text("accept-encoding", read, pool));
        for (j = 0; j < 8; j++) {
            assert_int_equal(acceptable(known, codings[j], pool),
                             acceptable(read, codings[j], pool));
        }
        /* one of two, the other refuses what it names */
        assert_string_equal(
            block_text(
                "accept-encoding",
                apr_pstrcat(pool, known, "\naccept-encoding:gzip;q=0", NULL),
                pool),
            block_text(
                "accept-encoding",
                apr_pstrcat(pool, read, "\naccept-encoding:gzip;q=0", NULL),
                pool));
    }
}

/* --- digests and keys ---------------------------------------------------- */

static void test_vary_digest_depends_on_the_epoch(void **state)
{
    mw_vary_t *record =
        mw_vary_make(fields_make("a", *state), random24, *state);
    mw_digest_t one, two, empty;

    mw_vary_digest(record, "block", 5, &one);
    mw_vary_digest(record, "block", 5, &two);
    assert_memory_equal(&one, &two, MW_DIGEST_LEN);
    mw_vary_digest(record, "", 0, &empty);
    assert_memory_not_equal(&one, &empty, MW_DIGEST_LEN);
    record->epoch[15] ^= 1;
    mw_vary_digest(record, "block", 5, &two);
    assert_memory_not_equal(&one, &two, MW_DIGEST_LEN);
}

static void test_vary_key_of_a_variant(void **state)
{
    static const char plain_key[] = "host:80\0http://host/?";
    const cachemw_key_t plain = { plain_key, sizeof(plain_key) - 1 };
    mw_vary_t *record =
        mw_vary_make(fields_make("a", *state), random24, *state);
    mw_digest_t digest;
    cachemw_key_t key;

    mw_vary_digest(record, "block", 5, &digest);
    mw_vary_key(&plain, record, &digest, &key, *state);
    assert_int_equal(key.len, plain.len + MW_VARY_KEY_EXTRA);
    assert_memory_equal(key.data, plain.data, plain.len);
    assert_memory_equal(key.data + plain.len, "\0\1an epoch of 16 b", 18);
    assert_memory_equal(key.data + plain.len + 18, digest.bytes, MW_DIGEST_LEN);
}

/* --- the list of variants ------------------------------------------------ */

static mw_digest_t digest_of(int n)
{
    mw_digest_t digest;

    memset(&digest, 0, sizeof(digest));
    mw_wire_put32(digest.bytes, (apr_uint32_t)n);
    return digest;
}

static int variant_add(mw_vary_t *record, int n, int max)
{
    mw_digest_t digest = digest_of(n), dropped;

    return mw_vary_add(record, &digest, max, &dropped)
               ? (int)mw_wire_get32(dropped.bytes)
               : -1;
}

static int variant_is_listed(const mw_vary_t *record, int n)
{
    mw_digest_t digest = digest_of(n);

    return mw_vary_lists(record, &digest);
}

static void test_vary_oldest_variant_is_dropped(void **state)
{
    mw_vary_t *record =
        mw_vary_make(fields_make("a", *state), random24, *state);
    int i;

    assert_false(variant_is_listed(record, 1));
    for (i = 1; i <= 3; i++) {
        assert_int_equal(variant_add(record, i, 3), -1);
        assert_true(variant_is_listed(record, i));
    }
    assert_int_equal(variant_add(record, 4, 3), 1);
    assert_false(variant_is_listed(record, 1));
    /* 2 is set anew: now 3 is the oldest */
    assert_int_equal(variant_add(record, 2, 3), -1);
    assert_int_equal(record->variants->nelts, 3);
    assert_int_equal(variant_add(record, 5, 3), 3);
    assert_int_equal(variant_add(record, 6, 3), 4);
    assert_int_equal(variant_add(record, 7, 3), 2);
    assert_int_equal(record->variants->nelts, 3);
}

static void test_vary_list_follows_a_smaller_max(void **state)
{
    mw_vary_t *record =
        mw_vary_make(fields_make("a", *state), random24, *state);
    int i;

    for (i = 1; i <= 10; i++) {
        variant_add(record, i, 10);
    }
    assert_int_equal(variant_add(record, 11, 3), 1);
    assert_int_equal(record->variants->nelts, 3);
    assert_true(variant_is_listed(record, 9) && variant_is_listed(record, 10)
                && variant_is_listed(record, 11));
    assert_int_equal(variant_add(record, 12, 1), 9);
    assert_int_equal(record->variants->nelts, 1);
    assert_int_equal(variant_add(record, 12, 1), -1);
}

static void test_vary_serial_is_never_zero(void **state)
{
    unsigned char random[24];

    memset(random, 0, sizeof(random));
    assert_int_not_equal(
        mw_vary_make(fields_make("a", *state), random, *state)->serial, 0);
    assert_int_equal(
        mw_vary_make(fields_make("a", *state), random24, *state)->serial,
        mw_wire_get64(random24 + 16));
}

/* --- codec --------------------------------------------------------------- */

static mw_vary_t *record_make(int variants, apr_pool_t *pool)
{
    mw_vary_t *record = mw_vary_make(
        fields_make("user-agent,accept-encoding,x", pool), random24, pool);
    int i;

    record->invalidated_at = APR_INT64_C(1764000000000000);
    for (i = 0; i < variants; i++) {
        variant_add(record, i, MW_VARIANTS_MAX);
    }
    return record;
}

/* Encoded, as a copy of exactly its length. */
static unsigned char *record_bytes(const mw_vary_t *record, int checksum,
                                   apr_size_t *length, apr_pool_t *pool)
{
    const void *bytes;
    unsigned char *copy;

    assert_int_equal(mw_vary_encode(record, checksum, pool, &bytes, length),
                     APR_SUCCESS);
    copy = malloc(*length);
    assert_non_null(copy);
    memcpy(copy, bytes, *length);
    return copy;
}

/* What is accepted must encode to the very same bytes. */
static int bytes_accepted(const unsigned char *bytes, apr_size_t length,
                          apr_pool_t *pool)
{
    apr_pool_t *sub;
    mw_vary_t *record;
    apr_status_t rv;

    apr_pool_create(&sub, pool);
    rv = mw_vary_decode(bytes, length, sub, &record);
    if (rv == APR_SUCCESS) {
        const void *again;
        apr_size_t again_len;

        assert_int_equal(
            mw_vary_encode(record, bytes[6] & 1, sub, &again, &again_len),
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

static void test_vary_record_round_trip(void **state)
{
    static const int sizes[] = { 0, 1, 32, MW_VARIANTS_MAX };
    int i;

    for (i = 0; i < 8; i++) {
        const mw_vary_t *record = record_make(sizes[i / 2], *state);
        apr_size_t length, size = sizes[i / 2] * MW_DIGEST_LEN;
        unsigned char *bytes = record_bytes(record, i % 2, &length, *state);
        unsigned char *copy;
        mw_vary_t *decoded;

        assert_int_equal(mw_head_kind(bytes, length), MW_HEAD_VARY);
        assert_true(bytes_accepted(bytes, length, *state));
        assert_int_equal(mw_vary_decode(bytes, length, *state, &decoded),
                         APR_SUCCESS);
        assert_memory_equal(decoded->epoch, record->epoch, 16);
        assert_int_equal(decoded->serial, record->serial);
        assert_int_equal(decoded->invalidated_at, record->invalidated_at);
        assert_true(mw_vary_same_fields(decoded->fields, record->fields));
        assert_int_equal(decoded->variants->nelts, sizes[i / 2]);
        assert_memory_equal(decoded->variants->elts, record->variants->elts,
                            size);
        /* a decoded record grows like any other, and leaves the bytes alone */
        copy = apr_pmemdup(*state, bytes, length);
        assert_int_equal(variant_add(decoded, 5000, MW_VARIANTS_MAX),
                         sizes[i / 2] == MW_VARIANTS_MAX ? 0 : -1);
        assert_true(variant_is_listed(decoded, 5000));
        variant_add(decoded, 1, MW_VARIANTS_MAX);
        assert_memory_equal(bytes, copy, length);
        free(bytes);
    }
}

static void encode_gives(const mw_vary_t *record, apr_status_t status,
                         apr_pool_t *pool)
{
    const void *bytes;
    apr_size_t length;

    assert_int_equal(mw_vary_encode(record, 0, pool, &bytes, &length), status);
}

static mw_vary_t *record_of(apr_pool_t *pool, int n, ...)
{
    apr_array_header_t *fields = apr_array_make(pool, n, sizeof(char *));
    va_list args;

    va_start(args, n);
    while (n--) {
        APR_ARRAY_PUSH(fields, const char *) = va_arg(args, const char *);
    }
    va_end(args);
    return mw_vary_make(fields, random24, pool);
}

static void test_vary_encode_refuses_what_decode_would(void **state)
{
    apr_pool_t *pool = *state;
    mw_vary_t *record = record_make(0, pool);
    apr_size_t room = CACHEMW_HEAD_MAX - AT_LISTS;
    char *name = apr_palloc(pool, room + 1);

    memset(name, 'n', room);
    name[room] = 0;
    encode_gives(record_of(pool, 1, name), APR_ENOSPC, pool);
    encode_gives(record_of(pool, 1, name + 1), APR_SUCCESS, pool);
    encode_gives(record_of(pool, 0), APR_EINVAL, pool);
    encode_gives(record_of(pool, 1, ""), APR_EINVAL, pool);
    encode_gives(record_of(pool, 1, "A"), APR_EINVAL, pool);
    encode_gives(record_of(pool, 1, "a b"), APR_EINVAL, pool);
    encode_gives(record_of(pool, 1, "*"), APR_EINVAL, pool);
    encode_gives(record_of(pool, 2, "b", "a"), APR_EINVAL, pool);
    encode_gives(record_of(pool, 2, "a", "a"), APR_EINVAL, pool);
    encode_gives(record_of(pool, 2, "a", "b"), APR_SUCCESS, pool);
    record->serial = 0;
    encode_gives(record, APR_EINVAL, pool);
    record->serial = 1;
    record->invalidated_at = -1;
    encode_gives(record, APR_EINVAL, pool);
    record->invalidated_at = MW_TIME_MAX;
    encode_gives(record, APR_SUCCESS, pool);
    encode_gives(record_make(MW_VARIANTS_MAX, pool), APR_SUCCESS, pool);
    record = record_make(MW_VARIANTS_MAX, pool);
    APR_ARRAY_PUSH(record->variants, mw_digest_t) = digest_of(-1);
    encode_gives(record, APR_EINVAL, pool);
}

static void test_vary_at_most_64_fields(void **state)
{
    apr_array_header_t *fields = apr_array_make(*state, 1, sizeof(char *));
    mw_vary_t *record = mw_vary_make(fields, random24, *state);
    apr_size_t length;
    unsigned char *bytes;
    int i;

    for (i = 0; i < 64; i++) {
        APR_ARRAY_PUSH(fields, const char *) = apr_psprintf(*state, "f%02d", i);
    }
    bytes = record_bytes(record, 0, &length, *state);
    assert_true(bytes_accepted(bytes, length, *state));
    free(bytes);
    APR_ARRAY_PUSH(fields, const char *) = "f64";
    encode_gives(record, APR_EINVAL, *state);
}

static void test_vary_refuses_every_truncation(void **state)
{
    int checksum, variants;

    for (checksum = 0; checksum < 2; checksum++) {
        for (variants = 0; variants < 4; variants += 3) {
            apr_size_t length, cut;
            unsigned char *bytes = record_bytes(record_make(variants, *state),
                                                checksum, &length, *state);

            for (cut = 0; cut < length; cut++) {
                unsigned char *copy = malloc(cut + 1);

                assert_non_null(copy);
                memcpy(copy, bytes, cut);
                copy = realloc(copy, cut ? cut : 1);
                assert_false(bytes_accepted(copy, cut, *state));
                if (cut >= 12) {
                    mw_wire_put32(copy + 8, (apr_uint32_t)cut);
                    assert_false(bytes_accepted(copy, cut, *state));
                }
                free(copy);
            }
            bytes = realloc(bytes, length + 1);
            assert_non_null(bytes);
            bytes[length] = 0;
            mw_wire_put32(bytes + 8, (apr_uint32_t)length + 1);
            assert_false(bytes_accepted(bytes, length + 1, *state));
            free(bytes);
        }
    }
}

static void test_vary_changed_byte_is_found_or_meant(void **state)
{
    int checksum;

    for (checksum = 0; checksum < 2; checksum++) {
        apr_size_t length, i;
        unsigned char *bytes =
            record_bytes(record_make(2, *state), checksum, &length, *state);
        int mask, accepted = 0;

        for (i = 0; i < length; i++) {
            for (mask = 1; mask < 256; mask++) {
                bytes[i] ^= mask;
                accepted += bytes_accepted(bytes, length, *state);
                bytes[i] ^= mask;
            }
        }
        assert_int_equal(accepted > 0, !checksum);
        free(bytes);
    }
}

static void test_vary_decode_checks_every_number(void **state)
{
    static const apr_uint32_t counts[] = { 0,          1,          2,
                                           4,          64,         65,
                                           1024,       1025,       0x10000000,
                                           0x7fffffff, 0x80000000, 0xffffffff };
    apr_size_t length, i;
    unsigned char *bytes =
        record_bytes(record_make(3, *state), 0, &length, *state);

    for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        mw_wire_put32(bytes + AT_FIELDS, counts[i]);
        assert_false(bytes_accepted(bytes, length, *state));
        mw_wire_put32(bytes + AT_FIELDS, 3);
        mw_wire_put32(bytes + AT_VARIANTS, counts[i]);
        assert_false(bytes_accepted(bytes, length, *state));
        mw_wire_put32(bytes + AT_VARIANTS, 3);
    }
    assert_true(bytes_accepted(bytes, length, *state));
    mw_wire_put64(bytes + AT_SERIAL, 0);
    assert_false(bytes_accepted(bytes, length, *state));
    mw_wire_put64(bytes + AT_SERIAL, 1);
    mw_wire_put64(bytes + AT_INVALIDATED, MW_TIME_MAX);
    assert_true(bytes_accepted(bytes, length, *state));
    mw_wire_put64(bytes + AT_INVALIDATED, MW_TIME_MAX + 1);
    assert_false(bytes_accepted(bytes, length, *state));
    mw_wire_put64(bytes + AT_INVALIDATED, (apr_uint64_t)-1);
    assert_false(bytes_accepted(bytes, length, *state));
    free(bytes);
}

static void test_vary_decode_checks_every_field(void **state)
{
    apr_size_t length;
    unsigned char *bytes =
        record_bytes(record_of(*state, 2, "b", "c"), 0, &length, *state);
    unsigned char *first = bytes + AT_LISTS, *second = first + 2;

    assert_int_equal(*first, 'b');
    assert_int_equal(*second, 'c');
    *second = 'b';
    assert_false(bytes_accepted(bytes, length, *state));
    *second = 'a';
    assert_false(bytes_accepted(bytes, length, *state));
    *second = 'C';
    assert_false(bytes_accepted(bytes, length, *state));
    *second = 0;
    assert_false(bytes_accepted(bytes, length, *state));
    *second = ' ';
    assert_false(bytes_accepted(bytes, length, *state));
    *second = 'd';
    assert_true(bytes_accepted(bytes, length, *state));
    *first = '*';
    assert_false(bytes_accepted(bytes, length, *state));
    free(bytes);
}

#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, pool_make, pool_destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_vary_fields_of_all_occurrences),
        TEST(test_vary_star_and_nonsense_match_nothing),
        TEST(test_vary_same_fields),
        TEST(test_vary_spellings_of_gzip_are_one_variant),
        TEST(test_vary_common_codings_in_any_order),
        TEST(test_vary_rare_codings_count_where_nothing_better_does),
        TEST(test_vary_made_up_codings_make_no_variants),
        TEST(test_vary_contradiction_refuses),
        TEST(test_vary_refused_identity_is_another_variant),
        TEST(test_vary_no_coding_is_not_no_field),
        TEST(test_vary_accept_lists),
        TEST(test_vary_accept_quoted),
        TEST(test_vary_other_fields_keep_their_bytes),
        TEST(test_vary_block_confuses_nothing),
        TEST(test_vary_block_is_equal_for_equal_requests_only),
        TEST(test_vary_block_of_a_huge_request),
        TEST(test_vary_acceptable_without_field),
        TEST(test_vary_acceptable_codings),
        TEST(test_vary_acceptable_several_codings),
        TEST(test_vary_acceptable_star),
        TEST(test_vary_acceptable_identity),
        TEST(test_vary_usual_encodings_are_what_they_say),
        TEST(test_vary_digest_depends_on_the_epoch),
        TEST(test_vary_key_of_a_variant),
        TEST(test_vary_oldest_variant_is_dropped),
        TEST(test_vary_list_follows_a_smaller_max),
        TEST(test_vary_serial_is_never_zero),
        TEST(test_vary_record_round_trip),
        TEST(test_vary_encode_refuses_what_decode_would),
        TEST(test_vary_at_most_64_fields),
        TEST(test_vary_refuses_every_truncation),
        TEST(test_vary_changed_byte_is_found_or_meant),
        TEST(test_vary_decode_checks_every_number),
        TEST(test_vary_decode_checks_every_field),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
