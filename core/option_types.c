/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <strings.h>

#include "apr_file_info.h"
#include "apr_lib.h"
#include "apr_strings.h"

#include "core/option_types.h"
#include "core/options.h"

#define SECRET_FILE_MAX 65536
#define DECIMALS_MAX 6
#define REAL_DIGITS_MAX 15

#define NUMBER_MAX APR_INT64_C(0x7fffffffffffffff)

/* Smallest first: the order in which a forgotten suffix is guessed. */
static const mw_unit_t size_units[] = {
    { "K", APR_INT64_C(1) << 10 },
    { "M", APR_INT64_C(1) << 20 },
    { "G", APR_INT64_C(1) << 30 },
    { NULL, 1 },
};

static const mw_unit_t duration_units[] = {
    { "ms", 1000 },
    { "s", APR_INT64_C(1000000) },
    { "min", APR_INT64_C(60000000) },
    { "h", APR_INT64_C(3600000000) },
    { "d", APR_INT64_C(86400000000) },
    { NULL, 1000000 },
};

/* What does not fit becomes the largest number: with or without a maximum it
 * is then reported as too large, not as malformed. */
static apr_int64_t number_append(apr_int64_t number, char digit)
{
    apr_int64_t n;

    if (__builtin_mul_overflow(number, 10, &n)
        || __builtin_add_overflow(n, digit - '0', &n)) {
        return NUMBER_MAX;
    }
    return n;
}

static const mw_unit_t *unit_find(const mw_unit_t *units, const char *suffix)
{
    while (units->suffix && strcasecmp(units->suffix, suffix)) {
        units++;
    }
    return units->suffix || !*suffix ? units : NULL;
}

/** A number with a suffix. @return 0 when the text is not one */
static int number_parse(const char *text, const mw_unit_t *units,
                        int decimals_max, apr_int64_t *number)
{
    const mw_unit_t *unit;
    apr_int64_t whole = 0;
    apr_int64_t part = 0;
    apr_int64_t scale = 1;
    int decimals = 0;

    if (!apr_isdigit(*text)) {
        return 0;
    }
    for (; apr_isdigit(*text); text++) {
        whole = number_append(whole, *text);
    }
    if (*text == '.' && decimals_max) {
        for (text++; apr_isdigit(*text); text++, decimals++) {
            part = part * 10 + (*text - '0');
            scale *= 10;
            if (decimals == decimals_max) {
                return 0;
            }
        }
        if (!decimals) {
            return 0;
        }
    }
    unit = unit_find(units, text);
    if (!unit) {
        return 0;
    }
    part = part * unit->factor / scale;
    if (whole == NUMBER_MAX
        || __builtin_mul_overflow(whole, unit->factor, number)
        || __builtin_add_overflow(*number, part, number)) {
        *number = NUMBER_MAX;
    }
    return 1;
}

static const char *integer_parse(const mw_option_source_t *source,
                                 const char *text, cachemw_value_t *value)
{
    static const mw_unit_t none[] = { { NULL, 1 } };
    const int is_negative = *text == '-';

    (void)source;
    if (*text == '-' || *text == '+') {
        text++;
    }
    if (!number_parse(text, none, 0, &value->number)) {
        return "is not a whole number";
    }
    if (value->number == NUMBER_MAX) {
        return is_negative ? "is too small" : "is too large";
    }
    if (is_negative) {
        value->number = -value->number;
    }
    return NULL;
}

static const char *size_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    (void)source;
    if (!number_parse(text, size_units, 0, &value->number)) {
        return "is not a size";
    }
    return value->number == NUMBER_MAX ? "is too large" : NULL;
}

static const char *duration_parse(const mw_option_source_t *source,
                                  const char *text, cachemw_value_t *value)
{
    apr_int64_t number;

    (void)source;
    if (!number_parse(text, duration_units, DECIMALS_MAX, &number)) {
        return "is not a duration";
    }
    value->duration = number;
    return number == NUMBER_MAX ? "is too large" : NULL;
}

static const char *flag_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    (void)source;
    value->number = !strcasecmp(text, "on");
    return value->number || !strcasecmp(text, "off") ? NULL
                                                     : "is neither on nor off";
}

/* strtod() follows the locale that some other module may have set. Up to 15
 * digits make the nearest double exactly so. */
static const char *real_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    const char *c = text + (*text == '-' || *text == '+');
    double mantissa = 0;
    double scale = 1;
    int digits = 0;
    int is_fraction = 0;

    (void)source;
    for (; *c; c++) {
        if (*c == '.' && !is_fraction && digits && c[1]) {
            is_fraction = 1;
            continue;
        }
        if (!apr_isdigit(*c) || ++digits > REAL_DIGITS_MAX) {
            return "is not a decimal fraction";
        }
        mantissa = mantissa * 10 + (*c - '0');
        scale *= is_fraction ? 10 : 1;
    }
    if (!digits) {
        return "is not a decimal fraction";
    }
    value->real = mantissa / scale;
    if (*text == '-') {
        value->real = -value->real;
    }
    return NULL;
}

static const char *string_parse(const mw_option_source_t *source,
                                const char *text, cachemw_value_t *value)
{
    (void)source;
    (void)text;
    (void)value;
    return NULL;
}

static const char *word_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    const char *const *words = source->option->words;
    int i;

    for (i = 0; words && words[i]; i++) {
        if (!strcasecmp(words[i], text)) {
            value->number = i;
            value->string = words[i];
            return NULL;
        }
    }
    return "is not known";
}

static const char *name_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    (void)source;
    (void)value;
    return *text ? NULL : "is empty";
}

static const char *path_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    const int is_absolute = *text == '/';
    char *path;
    apr_size_t length;
    apr_status_t rv;
    char reason[120];

    if (!*text) {
        return "is empty";
    }
    if (!is_absolute && !source->cache_dir) {
        return "is relative, and there is no cache directory";
    }
    rv = apr_filepath_merge(&path, is_absolute ? "/" : source->cache_dir, text,
                            is_absolute ? 0 : APR_FILEPATH_SECUREROOT,
                            source->pool);
    if (rv == APR_EABOVEROOT) {
        return apr_psprintf(source->pool,
                            "leads out of the cache directory '%s'",
                            source->cache_dir);
    }
    if (rv != APR_SUCCESS) {
        apr_strerror(rv, reason, sizeof(reason));
        return apr_psprintf(source->pool, "is not a path (%s)", reason);
    }
    /* With a slash behind it, it would be another one than without. */
    length = strlen(path);
    if (length > 1 && path[length - 1] == '/') {
        path[length - 1] = '\0';
    }
    value->string = path;
    return NULL;
}

/* What a file is, behind the path that was read for the text where it is
 * another. */
static const char *file_refuse(const mw_option_source_t *source,
                               const char *text, const char *path,
                               const char *why)
{
    return strcmp(text, path)
               ? apr_psprintf(source->pool, "('%s') %s", path, why)
               : why;
}

static const char *file_unreadable(const mw_option_source_t *source,
                                   const char *text, const char *path,
                                   apr_status_t rv)
{
    char reason[120];

    apr_strerror(rv, reason, sizeof(reason));
    return file_refuse(
        source, text, path,
        apr_psprintf(source->pool, "cannot be read (%s)", reason));
}

/* A pipe would be waited for. */
static const char *file_open(const mw_option_source_t *source, const char *text,
                             const char *path, apr_file_t **file)
{
    apr_finfo_t info;
    apr_status_t rv = apr_stat(&info, path, APR_FINFO_TYPE, source->pool);

    if (rv == APR_SUCCESS && info.filetype != APR_REG) {
        return file_refuse(source, text, path, "is not a regular file");
    }
    if (rv == APR_SUCCESS) {
        rv = apr_file_open(file, path, APR_FOPEN_READ | APR_FOPEN_BINARY,
                           APR_FPROT_OS_DEFAULT, source->pool);
    }
    return rv == APR_SUCCESS ? NULL : file_unreadable(source, text, path, rv);
}

static const char *file_parse(const mw_option_source_t *source,
                              const char *text, cachemw_value_t *value)
{
    const char *why = path_parse(source, text, value);
    apr_file_t *file;

    if (!why) {
        why = file_open(source, text, value->string, &file);
    }
    if (!why) {
        apr_file_close(file);
    }
    return why;
}

static const char *secret_take(char *text, apr_size_t length,
                               cachemw_value_t *value)
{
    if (length > SECRET_FILE_MAX) {
        return "is a file of more than 64 KB";
    }
    if (length && text[length - 1] == '\n') {
        length--;
        if (length && text[length - 1] == '\r') {
            length--;
        }
    }
    text[length] = '\0';
    if (!length) {
        return "is an empty file";
    }
    if (memchr(text, '\0', length)) {
        return "is a file with a NUL byte";
    }
    value->string = text;
    return NULL;
}

static const char *secret_file_parse(const mw_option_source_t *source,
                                     const char *text, cachemw_value_t *value)
{
    const char *why = path_parse(source, text, value);
    apr_size_t length = 0;
    apr_file_t *file;
    apr_status_t rv;
    char *buffer;

    if (!why) {
        why = file_open(source, text, value->string, &file);
    }
    if (why) {
        return why;
    }
    buffer = apr_palloc(source->pool, SECRET_FILE_MAX + 1);
    rv = apr_file_read_full(file, buffer, SECRET_FILE_MAX + 1, &length);
    apr_file_close(file);
    if (rv != APR_SUCCESS && !APR_STATUS_IS_EOF(rv)) {
        return file_unreadable(source, text, value->string, rv);
    }
    return secret_take(buffer, length, value);
}

static const mw_option_type_t types[] = {
    [CACHEMW_INTEGER] = {
        .name = "integer",
        .accepted = "a whole number",
        .parse = integer_parse,
        .is_ordered = 1,
    },
    [CACHEMW_SIZE] = {
        .name = "size",
        .accepted = "a number with an optional suffix K, M or G",
        .units = size_units,
        .parse = size_parse,
        .is_ordered = 1,
    },
    [CACHEMW_DURATION] = {
        .name = "duration",
        .accepted = "a number with an optional suffix ms, s, min, h or d",
        .units = duration_units,
        .parse = duration_parse,
        .is_ordered = 1,
    },
    [CACHEMW_FLAG] = {
        .name = "flag",
        .accepted = "on or off",
        .parse = flag_parse,
    },
    [CACHEMW_REAL] = {
        .name = "real",
        .accepted = "a decimal fraction",
        .parse = real_parse,
        .is_ordered = 1,
    },
    [CACHEMW_STRING] = {
        .name = "string",
        .accepted = "any text",
        .parse = string_parse,
    },
    [CACHEMW_ENUM] = {
        .name = "enum",
        .parse = word_parse,
    },
    [CACHEMW_PATH] = {
        .name = "path",
        .accepted = "a path, absolute or below the cache directory,",
        .parse = path_parse,
    },
    [CACHEMW_FILE] = {
        .name = "file",
        .accepted = "a readable file, absolute or below the cache directory,",
        .parse = file_parse,
    },
    [CACHEMW_SECRET] = {
        .name = "secret",
        .accepted = "any text",
        .parse = name_parse,
        .is_secret = 1,
    },
    [CACHEMW_SECRET_FILE] = {
        .name = "secret file",
        .accepted = "a readable file of 1 byte to 64 KB without NUL",
        .parse = secret_file_parse,
    },
    [CACHEMW_STORE] = {
        .name = "store",
        .accepted = "the name of a store",
        .parse = name_parse,
    },
};

const mw_option_type_t *mw_option_type_of(cachemw_type_e type)
{
    const unsigned int i = type;

    return i < sizeof(types) / sizeof(types[0]) ? &types[i] : NULL;
}

const char *mw_option_type_name(cachemw_type_e type)
{
    const mw_option_type_t *known = mw_option_type_of(type);

    return known ? known->name : "unknown";
}
