/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "core/options.h"
#include "tests/unit/shared.h"

enum {
    SIZE,
    COUNT_MAX,
    MAX_SIZE,
    TIMEOUT,
    KEEP,
    AGE,
    RATIO,
    SHARED,
    MODE,
    TITLE,
    DIRECTORY,
    CA_FILE,
    TOKEN,
    TOKEN_FILE,
    NEAR
};

static const char *const modes[] = { "fast", "safe", "paranoid", NULL };

static const cachemw_option_t table[] = {
    [SIZE] = { .name = "size",
               .type = CACHEMW_SIZE,
               .fallback = "64M",
               .minimum = "1M",
               .maximum = "64G",
               .help = "Memory for entries." },
    [COUNT_MAX] = { .name = "max_entries",
                    .type = CACHEMW_INTEGER,
                    .fallback = "1000",
                    .minimum = "-5",
                    .maximum = "2000000" },
    [MAX_SIZE] = { .name = "max_size", .alias = "max_entries" },
    [TIMEOUT] = { .name = "timeout",
                  .type = CACHEMW_DURATION,
                  .fallback = "200ms",
                  .minimum = "1ms",
                  .maximum = "60s" },
    [KEEP] = { .name = "keep", .type = CACHEMW_DURATION, .fallback = "1d" },
    [AGE] = { .name = "max_file_age",
              .type = CACHEMW_DURATION,
              .minimum = "1min" },
    [RATIO] = { .name = "ratio",
                .type = CACHEMW_REAL,
                .fallback = "0.5",
                .minimum = "0",
                .maximum = "1" },
    [SHARED] = { .name = "shared", .type = CACHEMW_FLAG, .fallback = "off" },
    [MODE] = { .name = "mode",
               .type = CACHEMW_ENUM,
               .fallback = "safe",
               .words = modes },
    [TITLE] = { .name = "title", .type = CACHEMW_STRING },
    [DIRECTORY] = { .name = "cache_dir", .type = CACHEMW_PATH },
    [CA_FILE] = { .name = "ca_file", .type = CACHEMW_FILE },
    [TOKEN] = { .name = "auth_token", .type = CACHEMW_SECRET },
    [TOKEN_FILE] = { .name = "auth_token_file", .type = CACHEMW_SECRET_FILE },
    [NEAR] = { .name = "near", .type = CACHEMW_STORE },
    { .name = NULL }
};

static const char *words_parse(mw_options_t *set, const char *const *words,
                               int n, apr_pool_t *pool)
{
    set->table = table;
    return mw_options_parse(set, 1, words, n, "/var/cache/store", pool);
}

static const cachemw_value_t *word_accept(const char *word, int row,
                                          apr_pool_t *pool)
{
    mw_options_t set;
    const char *error = words_parse(&set, &word, 1, pool);

    if (error) {
        fail_msg("%s: %s", word, error);
    }
    assert_int_equal(set.values[row].is_set, 1);
    return &set.values[row];
}

static void test_options_defaults(void **state)
{
    mw_options_t set;

    assert_null(words_parse(&set, NULL, 0, *state));
    assert_int_equal(set.values[SIZE].number, 64 << 20);
    assert_string_equal(set.values[SIZE].string, "64M");
    assert_int_equal(set.values[SIZE].is_set, 0);
    assert_int_equal(set.values[SIZE].is_null, 0);
    assert_int_equal(set.values[TIMEOUT].duration, 200000);
    assert_true(set.values[RATIO].real == 0.5);
    assert_int_equal(set.values[SHARED].number, 0);
    assert_int_equal(set.values[MODE].number, 1);
    assert_int_equal(set.values[MAX_SIZE].number, 1000);
    assert_int_equal(set.values[AGE].is_null, 1);
    assert_int_equal(set.values[TITLE].is_null, 1);
    assert_null(set.values[TITLE].string);
}

static void test_options_numbers(void **state)
{
    static const struct {
        const char *word;
        int row;
        apr_int64_t number;
    } cases[] = {
        { "size=1M", SIZE, 1 << 20 },
        { "size=64G", SIZE, APR_INT64_C(64) << 30 },
        { "size=1048576", SIZE, 1 << 20 },
        { "size=2048k", SIZE, 2 << 20 },
        { "max_entries=0", COUNT_MAX, 0 },
        { "max_entries=-5", COUNT_MAX, -5 },
        { "max_entries=+7", COUNT_MAX, 7 },
        { "max_entries=007", COUNT_MAX, 7 },
        { "max_size=12", COUNT_MAX, 12 },
        { "max_size=12", MAX_SIZE, 12 },
        { "shared=on", SHARED, 1 },
        { "shared=Off", SHARED, 0 },
        { "mode=fast", MODE, 0 },
        { "mode=PARANOID", MODE, 2 },
    };
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        assert_int_equal(
            word_accept(cases[i].word, cases[i].row, *state)->number,
            cases[i].number);
    }
    assert_string_equal(word_accept("mode=PARANOID", MODE, *state)->string,
                        "paranoid");
}

static void test_options_durations(void **state)
{
    static const struct {
        const char *word;
        apr_interval_time_t duration;
    } cases[] = {
        { "keep=0", 0 },
        { "keep=5", 5000000 },
        { "keep=5ms", 5000 },
        { "keep=5s", 5000000 },
        { "keep=5min", 300000000 },
        { "keep=2h", APR_INT64_C(7200000000) },
        { "keep=365d", APR_INT64_C(31536000000000) },
        { "keep=0.5s", 500000 },
        { "keep=0.5", 500000 },
        { "keep=1.25MIN", 75000000 },
        { "keep=0.000001", 1 },
        { "keep=1.999999d", APR_INT64_C(172799913600) },
        { "keep=106751991d", APR_INT64_C(9223372022400000000) },
    };
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        assert_int_equal(word_accept(cases[i].word, KEEP, *state)->duration,
                         cases[i].duration);
    }
}

static void test_options_reals(void **state)
{
    assert_true(word_accept("ratio=0", RATIO, *state)->real == 0);
    assert_true(word_accept("ratio=1", RATIO, *state)->real == 1);
    assert_true(word_accept("ratio=0.1", RATIO, *state)->real == 0.1);
    assert_true(word_accept("ratio=0.123456789", RATIO, *state)->real
                == 0.123456789);
    assert_true(word_accept("ratio=00.30", RATIO, *state)->real == 0.3);
}

static void test_options_texts(void **state)
{
    assert_string_equal(word_accept("title=a=b c", TITLE, *state)->string,
                        "a=b c");
    assert_string_equal(word_accept("title=", TITLE, *state)->string, "");
    assert_string_equal(
        word_accept("auth_token=s3=cret", TOKEN, *state)->string, "s3=cret");
    assert_string_equal(word_accept("near=hot", NEAR, *state)->string, "hot");
}

static void test_options_paths(void **state)
{
    assert_string_equal(
        word_accept("cache_dir=/x/y", DIRECTORY, *state)->string, "/x/y");
    assert_string_equal(
        word_accept("cache_dir=/x//y//", DIRECTORY, *state)->string, "/x/y");
    assert_string_equal(word_accept("cache_dir=/", DIRECTORY, *state)->string,
                        "/");
    assert_string_equal(
        word_accept("cache_dir=a/../b", DIRECTORY, *state)->string,
        "/var/cache/store/b");
}

static void test_options_off_is_unset(void **state)
{
    const cachemw_value_t *value = word_accept("max_file_age=off", AGE, *state);

    assert_int_equal(value->is_null, 1);
    assert_null(value->string);
}

#define SIZE_OK                                                     \
    "a number with an optional suffix K, M or G from 1M to 64G is " \
    "accepted"
#define TIME_OK "a number with an optional suffix ms, s, min, h or d"
#define KNOWN                                                \
    "known are size, max_entries, max_size, timeout, keep, " \
    "max_file_age, ratio, shared, mode, title, cache_dir, "  \
    "ca_file, auth_token, auth_token_file, near"

typedef struct mistake_t {
    const char *word;
    const char *message;
} mistake_t;

static void mistakes_are_told(const mistake_t *cases, int count,
                              apr_pool_t *pool)
{
    mw_options_t set;
    int i;

    for (i = 0; i < count; i++) {
        const char *message = words_parse(&set, &cases[i].word, 1, pool);

        assert_non_null(message);
        assert_string_equal(message, cases[i].message);
    }
}

static void test_options_mistakes_in_sizes(void **state)
{
    static const mistake_t cases[] = {
        { "size=12Q", "option 'size': '12Q' is not a size; " SIZE_OK },
        { "size=", "option 'size': '' is not a size; " SIZE_OK },
        { "size=-1", "option 'size': '-1' is not a size; " SIZE_OK },
        { "size=64MB", "option 'size': '64MB' is not a size; " SIZE_OK },
        { "size=1.5G", "option 'size': '1.5G' is not a size; " SIZE_OK },
        { "size= 64M", "option 'size': ' 64M' is not a size; " SIZE_OK },
        { "size=off", "option 'size': 'off' is not a size; " SIZE_OK },
        { "size=64", "option 'size': '64' is too small; " SIZE_OK
                     "; did you forget a suffix (64M)?" },
        { "size=2000", "option 'size': '2000' is too small; " SIZE_OK
                       "; did you forget a suffix (2000K)?" },
        { "size=1K", "option 'size': '1K' is too small; " SIZE_OK },
        { "size=0", "option 'size': '0' is too small; " SIZE_OK },
        { "size=65G", "option 'size': '65G' is too large; " SIZE_OK },
        { "size=8589934592G",
          "option 'size': '8589934592G' is too large; " SIZE_OK },
        { "size=99999999999999999999",
          "option 'size': '99999999999999999999' is too large; " SIZE_OK },
    };

    mistakes_are_told(cases, COUNT(cases), *state);
}

static void test_options_mistakes_in_whole_numbers(void **state)
{
    static const mistake_t cases[] = {
        { "max_entries=1K", "option 'max_entries': '1K' is not a whole number; "
                            "a whole number from -5 to 2000000 is accepted" },
        { "max_entries=-6", "option 'max_entries': '-6' is too small; "
                            "a whole number from -5 to 2000000 is accepted" },
        { "max_entries=--1", "option 'max_entries': '--1' is not a whole "
                             "number; a whole number from -5 to 2000000 is "
                             "accepted" },
        { "max_entries=-99999999999999999999",
          "option 'max_entries': '-99999999999999999999' is too small; "
          "a whole number from -5 to 2000000 is accepted" },
        { "max_size=x", "option 'max_entries': 'x' is not a whole number; "
                        "a whole number from -5 to 2000000 is accepted" },
    };

    mistakes_are_told(cases, COUNT(cases), *state);
}

static void test_options_mistakes_in_durations(void **state)
{
    static const mistake_t cases[] = {
        { "timeout=200", "option 'timeout': '200' is too large; " TIME_OK
                         " from 1ms to 60s is accepted; did you forget a "
                         "suffix (200ms)?" },
        { "timeout=0.0001ms",
          "option 'timeout': '0.0001ms' is too small; " TIME_OK
          " from 1ms to 60s is accepted" },
        { "timeout=1m", "option 'timeout': '1m' is not a duration; " TIME_OK
                        " from 1ms to 60s is accepted" },
        { "timeout=.5s", "option 'timeout': '.5s' is not a duration; " TIME_OK
                         " from 1ms to 60s is accepted" },
        { "timeout=5.s", "option 'timeout': '5.s' is not a duration; " TIME_OK
                         " from 1ms to 60s is accepted" },
        { "timeout=0.1234567s",
          "option 'timeout': '0.1234567s' is not a "
          "duration; " TIME_OK " from 1ms to 60s is accepted" },
        { "timeout=off", "option 'timeout': 'off' is not a duration; " TIME_OK
                         " from 1ms to 60s is accepted" },
        { "keep=106751992d",
          "option 'keep': '106751992d' is too large; " TIME_OK " is accepted" },
        { "max_file_age=1", "option 'max_file_age': '1' is too small; " TIME_OK
                            " of at least 1min, or off, is accepted; did you "
                            "forget a suffix (1min)?" },
    };

    mistakes_are_told(cases, COUNT(cases), *state);
}

static void test_options_mistakes_in_fractions(void **state)
{
    static const mistake_t cases[] = {
        { "ratio=1.01", "option 'ratio': '1.01' is too large; a decimal "
                        "fraction from 0 to 1 is accepted" },
        { "ratio=-0.1", "option 'ratio': '-0.1' is too small; a decimal "
                        "fraction from 0 to 1 is accepted" },
        { "ratio=1e-3", "option 'ratio': '1e-3' is not a decimal fraction; a "
                        "decimal fraction from 0 to 1 is accepted" },
        { "ratio=nan", "option 'ratio': 'nan' is not a decimal fraction; a "
                       "decimal fraction from 0 to 1 is accepted" },
        { "ratio=0,5", "option 'ratio': '0,5' is not a decimal fraction; a "
                       "decimal fraction from 0 to 1 is accepted" },
        { "ratio=", "option 'ratio': '' is not a decimal fraction; a decimal "
                    "fraction from 0 to 1 is accepted" },
        { "ratio=.", "option 'ratio': '.' is not a decimal fraction; a decimal "
                     "fraction from 0 to 1 is accepted" },
    };

    mistakes_are_told(cases, COUNT(cases), *state);
}

static void test_options_mistakes_in_words_and_paths(void **state)
{
    static const mistake_t cases[] = {
        { "shared=yes", "option 'shared': 'yes' is neither on nor off; on or "
                        "off is accepted" },
        { "mode=slow", "option 'mode': 'slow' is not known; fast, safe or "
                       "paranoid is accepted" },
        { "cache_dir=", "option 'cache_dir': '' is empty; a path, absolute or "
                        "below the cache directory, is accepted" },
        { "cache_dir=../x", "option 'cache_dir': '../x' leads out of the cache "
                            "directory '/var/cache/store'; a path, absolute or "
                            "below the cache directory, is accepted" },
        { "ca_file=../x",
          "option 'ca_file': '../x' leads out of the cache directory "
          "'/var/cache/store'; a readable file, absolute or below the cache "
          "directory, is accepted" },
        { "near=", "option 'near': '' is empty; the name of a store is "
                   "accepted" },
        { "auth_token=",
          "option 'auth_token': is empty; any text is accepted" },
    };

    mistakes_are_told(cases, COUNT(cases), *state);
}

static void test_options_mistakes_in_names(void **state)
{
    static const mistake_t cases[] = {
        { "sise=1M", "option 'sise' is unknown; did you mean 'size'? " KNOWN },
        { "Timeout=1s",
          "option 'Timeout' is unknown; did you mean 'timeout'? " KNOWN },
        { "max_entrys=1",
          "option 'max_entrys' is unknown; did you mean 'max_entries'? " KNOWN },
        { "colour=blue", "option 'colour' is unknown; " KNOWN },
        { "siz=1M", "option 'siz' is unknown; did you mean 'size'? " KNOWN },
    };

    mistakes_are_told(cases, COUNT(cases), *state);
}

static void test_options_given_twice(void **state)
{
    const char *const same[] = { "size=1M", "size=2M" };
    const char *const other[] = { "max_size=1", "max_entries=2" };
    const char *const alias[] = { "max_size=1", "max_size=1" };
    mw_options_t set;

    assert_string_equal(words_parse(&set, same, 2, *state),
                        "option 'size' is given twice");
    assert_string_equal(words_parse(&set, other, 2, *state),
                        "option 'max_entries' is given twice, first as "
                        "'max_size'");
    assert_string_equal(words_parse(&set, alias, 2, *state),
                        "option 'max_size' is given twice");
}

static void test_options_secrets_stay_secret(void **state)
{
    static const char *const cases[][2] = {
        { "auth_token=s3cret", "s3cret" },
        { "auth_token=s3cret", "s3cret=x" },
        { "auth_token=x", "auth_token=s3cret" },
        { "size=1M", "auth_token:s3cret" },
        { "size=1M", "auth_tokn=s3cret" },
    };
    mw_options_t set;
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        const char *message = words_parse(&set, cases[i], 2, *state);

        assert_non_null(message);
        assert_null(strstr(message, "s3cret"));
    }
    assert_string_equal(words_parse(&set, cases[0], 2, *state),
                        "word 2 is not of the form name=value");
    assert_string_equal(words_parse(&set, cases[1], 2, *state),
                        "word 2, behind a secret, is not an option; a value "
                        "with a space in it needs quotes");
}

static void test_options_plain_word_without_secrets(void **state)
{
    static const cachemw_option_t plain[] = {
        { .name = "size", .type = CACHEMW_SIZE }, { .name = NULL }
    };
    const char *const words[] = { "64M", "=64M" };
    mw_options_t set = { plain, NULL };

    assert_string_equal(mw_options_parse(&set, 1, words, 1, "/", *state),
                        "'64M' is not of the form name=value");
    assert_string_equal(mw_options_parse(&set, 1, words + 1, 1, "/", *state),
                        "'=64M' is not of the form name=value");
}

static void test_options_required(void **state)
{
    static const cachemw_option_t required[] = {
        { .name = "url", .type = CACHEMW_STRING, .required = 1 },
        { .name = "link", .alias = "url" },
        { .name = NULL }
    };
    const char *const words[] = { "link=redis://x" };
    mw_options_t set = { required, NULL };

    assert_string_equal(mw_options_parse(&set, 1, NULL, 0, "/", *state),
                        "option 'url' must be given (string)");
    assert_null(mw_options_parse(&set, 1, words, 1, "/", *state));
    assert_string_equal(set.values[0].string, "redis://x");
    assert_string_equal(set.values[1].string, "redis://x");
}

static void test_options_several_tables(void **state)
{
    static const cachemw_option_t first[] = {
        { .name = "keep", .type = CACHEMW_DURATION, .fallback = "1" },
        { .name = NULL }
    };
    static const cachemw_option_t second[] = {
        { .name = "more", .type = CACHEMW_FLAG },
        { .name = "keep", .type = CACHEMW_DURATION, .fallback = "2" },
        { .name = NULL }
    };
    const char *const words[] = { "more=on", "keep=3" };
    const char *const bad[] = { "less=on" };
    mw_options_t sets[] = { { first, NULL }, { NULL, NULL }, { second, NULL } };

    assert_null(mw_options_parse(sets, 3, words, 2, "/", *state));
    assert_int_equal(sets[0].values[0].duration, 3000000);
    assert_int_equal(sets[2].values[0].number, 1);
    assert_int_equal(sets[2].values[1].duration, 2000000);
    assert_string_equal(mw_options_parse(sets, 3, bad, 1, "/", *state),
                        "option 'less' is unknown; known are keep, more");
    assert_string_equal(mw_options_parse(sets + 1, 1, bad, 1, "/", *state),
                        "option 'less' is unknown; known are none");
}

/* A stranger's table is input as well: its mistakes are told, not crashed
 * on. */
static void test_options_table_mistakes(void **state)
{
    static const cachemw_option_t bad_bound[] = {
        { .name = "n", .type = CACHEMW_INTEGER, .minimum = "few" },
        { .name = NULL }
    };
    static const cachemw_option_t bad_default[] = {
        { .name = "n", .type = CACHEMW_SIZE, .fallback = "64T" },
        { .name = NULL }
    };
    static const cachemw_option_t bad_type[] = {
        { .name = "n", .type = (cachemw_type_e)99 }, { .name = NULL }
    };
    static const cachemw_option_t bad_alias[] = { { .name = "n", .alias = "m" },
                                                  { .name = "o", .alias = "o" },
                                                  { .name = NULL } };
    static const cachemw_option_t no_words[] = {
        { .name = "n", .type = CACHEMW_ENUM }, { .name = NULL }
    };
    const char *const words[] = { "n=1" };
    const char *const other[] = { "o=1" };
    mw_options_t set = { bad_bound, NULL };

    assert_non_null(strstr(mw_options_parse(&set, 1, words, 1, "/", *state),
                           "the bound 'few' in the provider's table is wrong"));
    set.table = bad_default;
    assert_non_null(strstr(mw_options_parse(&set, 1, NULL, 0, "/", *state),
                           "the default of option 'n': '64T' is not a size"));
    set.table = bad_type;
    assert_non_null(strstr(mw_options_parse(&set, 1, words, 1, "/", *state),
                           "type 99 in the provider's table is unknown"));
    set.table = bad_alias;
    assert_non_null(strstr(mw_options_parse(&set, 1, words, 1, "/", *state),
                           "'m', which is not in the provider's table"));
    assert_non_null(mw_options_parse(&set, 1, other, 1, "/", *state));
    set.table = no_words;
    assert_non_null(mw_options_parse(&set, 1, words, 1, "/", *state));
}

static char directory[] = "/tmp/cachemw-options-XXXXXX";

static void file_make(const char *name, const char *text, size_t length,
                      apr_pool_t *pool)
{
    FILE *file = fopen(apr_pstrcat(pool, directory, "/", name, NULL), "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/** Parse auth_token_file=name; on success the secret, else the message. */
static const char *file_parse(const char *name, int *is_error, apr_pool_t *pool)
{
    const char *word = apr_pstrcat(pool, "auth_token_file=", name, NULL);
    mw_options_t set = { table, NULL };
    const char *error = mw_options_parse(&set, 1, &word, 1, directory, pool);

    *is_error = error != NULL;
    return error ? error : set.values[TOKEN_FILE].string;
}

static void test_options_secret_file(void **state)
{
    static const struct {
        const char *text;
        size_t length;
        const char *secret;
    } cases[] = {
        { "word", 4, "word" },
        { "word\n", 5, "word" },
        { "word\r\n", 6, "word" },
        { "word\n\n", 6, "word\n" },
        { " two words \n", 12, " two words " },
    };
    char *large = apr_pcalloc(*state, 65538);
    int is_error;
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        file_make("secret", cases[i].text, cases[i].length, *state);
        assert_string_equal(file_parse("secret", &is_error, *state),
                            cases[i].secret);
        assert_int_equal(is_error, 0);
    }
    memset(large, 'x', 65536);
    file_make("secret", large, 65536, *state);
    assert_string_equal(file_parse("secret", &is_error, *state), large);
    assert_int_equal(is_error, 0);
}

static void test_options_secret_file_mistakes(void **state)
{
    static const struct {
        const char *name;
        const char *why;
    } cases[] = {
        { "empty", "is an empty file" },
        { "newline", "is an empty file" },
        { "nul", "is a file with a NUL byte" },
        { "large", "is a file of more than 64 KB" },
        { "missing", "cannot be read (No such file or directory)" },
        { "fifo", "is not a regular file" },
        { ".", "is not a regular file" },
        { "../x", "leads out of the cache directory" },
        { "", "is empty" },
    };
    char *large = apr_pcalloc(*state, 65537);
    const char *message;
    int is_error;
    int i;

    memset(large, 'S', 65537);
    file_make("empty", "", 0, *state);
    file_make("newline", "\n", 1, *state);
    file_make("nul", "SSS\0SSS", 7, *state);
    file_make("large", large, 65537, *state);
    assert_int_equal(
        mkfifo(apr_pstrcat(*state, directory, "/fifo", NULL), 0600), 0);
    for (i = 0; i < COUNT(cases); i++) {
        message = file_parse(cases[i].name, &is_error, *state);
        assert_int_equal(is_error, 1);
        assert_null(strstr(message, "SSS"));
        if (!strstr(message, cases[i].why) || !strstr(message, cases[i].name)) {
            fail_msg("%s: %s", cases[i].name, message);
        }
    }
}

/* The words do not say what is in it: a provider reads it. */
static void test_options_files(void **state)
{
    static const char *const refused[][2] = {
        { "ca_file=none.pem", "none.pem') cannot be read (No such file" },
        { "ca_file=.", "') is not a regular file; a readable file, absolute or "
                       "below the cache directory, is accepted" },
        { "ca_file=fifo", "') is not a regular file" },
    };
    const char *ours = apr_pstrcat(*state, directory, "/ca.pem", NULL);
    const char *words[] = { "ca_file=ca.pem",
                            apr_pstrcat(*state, "ca_file=", ours, NULL) };
    mw_options_t set = { table, NULL };
    const char *error;
    int i;

    file_make("ca.pem", "", 0, *state);
    for (i = 0; i < COUNT(words); i++) {
        assert_null(mw_options_parse(&set, 1, &words[i], 1, directory, *state));
        assert_string_equal(set.values[CA_FILE].string, ours);
    }
    for (i = 0; i < COUNT(refused); i++) {
        error = mw_options_parse(&set, 1, &refused[i][0], 1, directory, *state);
        assert_non_null(error);
        assert_non_null(strstr(error, refused[i][1]));
    }
}

static void test_options_reference(void **state)
{
    static const cachemw_option_t few[] = {
        { .name = "size",
          .type = CACHEMW_SIZE,
          .fallback = "64M",
          .minimum = "1M",
          .help = "Memory for entries." },
        { .name = "space", .alias = "size" },
        { .name = "mode", .type = CACHEMW_ENUM, .words = modes, .required = 1 },
        { .name = "title", .type = CACHEMW_STRING, .help = "Text." },
        { .name = "ca_file", .type = CACHEMW_FILE, .help = "Who is trusted." },
        { .name = NULL }
    };

    assert_string_equal(mw_options_reference(few, *state),
                        "size\tsize\t64M\tof at least 1M\tMemory for entries.\n"
                        "space\talias\t-\t-\tanother name of size\n"
                        "mode\tenum\trequired\tfast, safe or paranoid\t-\n"
                        "title\tstring\t-\t-\tText.\n"
                        "ca_file\tfile\t-\t-\tWho is trusted.\n");
    assert_string_equal(mw_options_reference(NULL, *state), "");
}

/* Whatever the text, parsing ends with a value in range or a message. */
static void test_options_any_text(void **state)
{
    static const char alphabet[] = "0123456789.-+KMGmshdin=off xe";
    static const char *const names[] = { "size=",  "keep=", "max_entries=",
                                         "ratio=", "mode=", "timeout=" };
    apr_uint32_t seed = 1;
    apr_pool_t *pool;
    mw_options_t set;
    int accepted = 0;
    int round;

    apr_pool_create(&pool, *state);
    for (round = 0; round < 200000; round++) {
        char text[24];
        const char *word;
        unsigned int i;

        for (i = 0; i < sizeof(text) - 1; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = seed >> 28 ? alphabet[(seed >> 16) % 29] : '\0';
        }
        text[sizeof(text) - 1] = '\0';
        word = apr_pstrcat(pool, names[round % COUNT(names)], text, NULL);
        if (!words_parse(&set, &word, 1, pool)) {
            accepted++;
            assert_in_range(set.values[SIZE].number, 1 << 20,
                            APR_INT64_C(64) << 30);
            assert_true(set.values[COUNT_MAX].number >= -5);
            assert_true(set.values[COUNT_MAX].number <= 2000000);
            assert_in_range(set.values[TIMEOUT].duration, 1000, 60000000);
            assert_true(set.values[KEEP].duration >= 0);
            assert_true(set.values[RATIO].real >= 0);
            assert_true(set.values[RATIO].real <= 1);
        }
        apr_pool_clear(pool);
    }
    assert_true(accepted > 1000);
}

static int directory_make(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int directory_remove(void **state)
{
    static const char *const names[] = { "secret", "empty", "newline", "nul",
                                         "large",  "fifo",  "ca.pem" };
    char path[sizeof(directory) + 16];
    int i;

    (void)state;
    for (i = 0; i < COUNT(names); i++) {
        apr_snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

#define POOLED(f) \
    cmocka_unit_test_setup_teardown(f, shared_pool_setup, shared_pool_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOLED(test_options_defaults),
        POOLED(test_options_numbers),
        POOLED(test_options_durations),
        POOLED(test_options_reals),
        POOLED(test_options_texts),
        POOLED(test_options_paths),
        POOLED(test_options_off_is_unset),
        POOLED(test_options_mistakes_in_sizes),
        POOLED(test_options_mistakes_in_whole_numbers),
        POOLED(test_options_mistakes_in_durations),
        POOLED(test_options_mistakes_in_fractions),
        POOLED(test_options_mistakes_in_words_and_paths),
        POOLED(test_options_mistakes_in_names),
        POOLED(test_options_given_twice),
        POOLED(test_options_secrets_stay_secret),
        POOLED(test_options_plain_word_without_secrets),
        POOLED(test_options_required),
        POOLED(test_options_several_tables),
        POOLED(test_options_table_mistakes),
        POOLED(test_options_secret_file),
        POOLED(test_options_secret_file_mistakes),
        POOLED(test_options_files),
        POOLED(test_options_reference),
        POOLED(test_options_any_text),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, directory_make, directory_remove);
    apr_terminate();
    return failed;
}
