/* SPDX-License-Identifier: Apache-2.0 */

/* What Vary names, what a request says there, and what that means. */

#include <stdlib.h>
#include <string.h>

#include "apr_cstr.h"
#include "apr_strings.h"

#include "core/entry.h"
#include "core/vary.h"
#include "core/wire.h"

/* --- lists of elements --------------------------------------------------- */

typedef struct span_t {
    const char *start;
    const char *end;
} span_t;

static int char_is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* Not the locale's idea of it. */
static char char_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static span_t span_trim(const char *start, const char *end)
{
    span_t span;

    while (start < end && char_is_ows(*start)) {
        start++;
    }
    while (end > start && char_is_ows(end[-1])) {
        end--;
    }
    span.start = start;
    span.end = end;
    return span;
}

static apr_size_t span_len(span_t span)
{
    return span.end - span.start;
}

static char *span_lower(span_t span, apr_pool_t *pool)
{
    char *lower = apr_pstrmemdup(pool, span.start, span_len(span));
    char *p;

    for (p = lower; *p; p++) {
        *p = char_lower(*p);
    }
    return lower;
}

static int span_is(span_t span, const char *word, apr_size_t length)
{
    /* the first is how words are nearly always written, and cheap */
    return span_len(span) == length
           && (!memcmp(span.start, word, length)
               || !apr_cstr_casecmpn(span.start, word, length));
}

static int span_is_span(span_t a, span_t b)
{
    return span_is(a, b.start, span_len(b));
}

/* The next element of a comma-separated list that is not empty; 0: none. */
static int element_next(const char **cursor, span_t *element)
{
    const char *p = *cursor;

    while (*p) {
        const char *end = p + strcspn(p, ",");

        *element = span_trim(p, end);
        p = *end ? end + 1 : end;
        if (element->start < element->end) {
            *cursor = p;
            return 1;
        }
    }
    *cursor = p;
    return 0;
}

static int value_collect(void *baton, const char *name, const char *value)
{
    (void)name;
    APR_ARRAY_PUSH((apr_array_header_t *)baton, const char *) = value;
    return 1;
}

static const char *string_at(const apr_array_header_t *strings, int i)
{
    return APR_ARRAY_IDX(strings, i, const char *);
}

/* --- the fields of Vary -------------------------------------------------- */

static int string_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void strings_sort(apr_array_header_t *strings)
{
    int i, kept = 0;

    qsort(strings->elts, strings->nelts, sizeof(char *), string_compare);
    for (i = 0; i < strings->nelts; i++) {
        const char *string = string_at(strings, i);

        if (!kept || strcmp(string, string_at(strings, kept - 1))) {
            APR_ARRAY_IDX(strings, kept++, const char *) = string;
        }
    }
    strings->nelts = kept;
}

apr_array_header_t *mw_vary_fields(const apr_table_t *headers, int *star,
                                   apr_pool_t *pool)
{
    apr_array_header_t *values = apr_array_make(pool, 2, sizeof(char *));
    apr_array_header_t *fields = apr_array_make(pool, 4, sizeof(char *));
    int i;

    apr_table_do(value_collect, values, headers, "Vary", NULL);
    *star = 0;
    for (i = 0; i < values->nelts; i++) {
        const char *cursor = string_at(values, i);
        span_t name;

        while (element_next(&cursor, &name)) {
            APR_ARRAY_PUSH(fields, const char *) = span_lower(name, pool);
            *star |= span_is(name, "*", 1)
                     || !mw_is_token(name.start, span_len(name));
        }
    }
    strings_sort(fields);
    return fields->nelts ? fields : NULL;
}

/* --- Accept-Encoding ----------------------------------------------------- */

/* The codings that make variants, and what else counts. Blocks that are stored
 * have these bits. */
enum {
    BR = 1 << 0,
    GZIP = 1 << 1,
    ZSTD = 1 << 2,
    COMPRESS = 1 << 3,
    DEFLATE = 1 << 4,
    IDENTITY = 1 << 5,
    STAR = 1 << 6
};
#define COMMON (BR | GZIP | ZSTD)
#define RARE (COMPRESS | DEFLATE)

static const struct {
    const char *name;
    apr_size_t length;
    int bit;
} known[] = { { "br", 2, BR },
              { "gzip", 4, GZIP },
              { "zstd", 4, ZSTD },
              { "compress", 8, COMPRESS },
              { "deflate", 7, DEFLATE },
              { "identity", 8, IDENTITY },
              { "*", 1, STAR },
              { "x-gzip", 6, GZIP },
              { "x-compress", 10, COMPRESS } };
#define KNOWN (sizeof(known) / sizeof(known[0]))

/* The bit of a coding as browsers write it; 0: another one. Comparisons of few
 * bytes with a constant are no calls. */
static int coding_bit_usual(const char *name, apr_size_t length)
{
    switch (length) {
    case 2:
        return memcmp(name, "br", 2) ? 0 : BR;
    case 4:
        return !memcmp(name, "gzip", 4)  ? GZIP
               : memcmp(name, "zstd", 4) ? 0
                                         : ZSTD;
    case 7:
        return memcmp(name, "deflate", 7) ? 0 : DEFLATE;
    }
    return 0;
}

/* The bit of a coding; 0: not one of the known. */
static int coding_bit(span_t name)
{
    apr_size_t i, length = span_len(name);
    int usual = coding_bit_usual(name.start, length);

    if (usual) {
        return usual;
    }
    for (i = 0; i < KNOWN; i++) {
        if (known[i].length == length
            && char_lower(*name.start) == *known[i].name
            && span_is(name, known[i].name, length)) {
            return known[i].bit;
        }
    }
    return 0;
}

static int weight_is_zero(span_t weight)
{
    return span_len(weight) > 0 && *weight.start == '0'
           && strspn(weight.start, "0.") >= span_len(weight);
}

/* Whether one of the parameters, from behind the coding's name, is q=0. */
static int parameters_refuse(const char *p, const char *end)
{
    while (p < end) {
        const char *stop = memchr(p, ';', end - p);
        const char *equals;

        stop = stop ? stop : end;
        equals = memchr(p, '=', stop - p);
        if (equals && span_is(span_trim(p, equals), "q", 1)) {
            return weight_is_zero(span_trim(equals + 1, stop));
        }
        p = stop < end ? stop + 1 : end;
    }
    return 0;
}

typedef struct coding_t {
    span_t name;
    int refused; /* q=0 */
} coding_t;

/* Past the parameters that begin here. Apart, like all that is rare, so that
 * what is usual saves no registers. */
static const char *__attribute__((noinline))
parameters_pass(const char *p, int *refused)
{
    const char *end = p + strcspn(p, ",");

    *refused = parameters_refuse(p, end);
    return end;
}

static const char *__attribute__((noinline)) element_pass(const char *p)
{
    return p + strcspn(p, ",");
}

/* The next coding of a value; elements that are none are passed over. */
static APR_INLINE int coding_next(const char **cursor, coding_t *coding)
{
    const char *p = *cursor;

    for (;;) {
        const char *name, *end;

        while (char_is_ows(*p) || *p == ',') {
            p++;
        }
        for (name = p; mw_char_is(*p, MW_CHAR_TOKEN); p++) {
        }
        end = p;
        while (char_is_ows(*p)) {
            p++;
        }
        coding->refused = 0;
        if (*p == ';') {
            p = parameters_pass(p, &coding->refused);
        }
        if (end > name && (!*p || *p == ',')) {
            coding->name.start = name;
            coding->name.end = end;
            *cursor = p;
            return 1;
        }
        p = *p ? element_pass(p) : p;
        if (!*p) {
            *cursor = p;
            return 0;
        }
    }
}

/* What browsers send, so that it need not be read each time. */
static const struct {
    const char *value;
    int named;
} usual[] = { { "gzip, deflate, br, zstd", GZIP | DEFLATE | BR | ZSTD },
              { "gzip, deflate, br", GZIP | DEFLATE | BR },
              { "gzip, deflate", GZIP | DEFLATE },
              { "gzip", GZIP } };
#define USUAL (sizeof(usual) / sizeof(usual[0]))

static void __attribute__((noinline))
asked_parse(mw_asked_t *asked, const char *value)
{
    coding_t coding;

    while (coding_next(&value, &coding)) {
        int bit = coding_bit(coding.name);

        asked->named |= bit;
        asked->refused |= coding.refused ? bit : 0;
    }
}

static void asked_read(mw_asked_t *asked, const char *value)
{
    apr_size_t i;

    asked->has_codings = 1;
    for (i = 0; i < USUAL; i++) {
        if (!strcmp(value, usual[i].value)) {
            asked->named |= usual[i].named;
            return;
        }
    }
    asked_parse(asked, value);
}

mw_asked_t mw_vary_asked(const apr_table_t *request)
{
    static const char name[] = "Accept-Encoding";
    const apr_array_header_t *all = apr_table_elts(request);
    const apr_table_entry_t *field = (const apr_table_entry_t *)all->elts;
    const apr_table_entry_t *end = field + all->nelts;
    mw_asked_t asked = { .request = request };

    for (; field < end; field++) {
        /* its first letter, and how it is nearly always written */
        if (char_lower(*field->key) == 'a'
            && (!strcmp(field->key, name)
                || !apr_cstr_casecmp(field->key, name))) {
            asked_read(&asked, field->val);
        }
    }
    return asked;
}

/* What a request says about a coding that is not one of the known. */
typedef struct answer_t {
    span_t name;
    int named;
    int refused;
} answer_t;

static int answer_read(void *baton, const char *name, const char *value)
{
    answer_t *answer = baton;
    coding_t coding;

    (void)name;
    while (coding_next(&value, &coding)) {
        if (span_is_span(coding.name, answer->name)) {
            answer->named = 1;
            answer->refused |= coding.refused;
        }
    }
    return 1;
}

/* Whether bit, or without one what has this name, may be sent. */
static int coding_is_acceptable(const mw_asked_t *asked, int bit, span_t name)
{
    answer_t answer = { .name = name };

    if (!asked->has_codings) {
        return 1;
    }
    if (bit) {
        answer.named = asked->named & bit;
        answer.refused = asked->refused & bit;
    }
    else {
        apr_table_do(answer_read, &answer, asked->request, "Accept-Encoding",
                     NULL);
    }
    if (answer.named) {
        return !answer.refused;
    }
    return !(asked->refused & STAR) && (bit == IDENTITY || asked->named & STAR);
}

int mw_vary_acceptable(mw_asked_t asked, const char *content_encoding)
{
    const char *cursor = content_encoding ? content_encoding : "";
    span_t element = { NULL, NULL };
    int n = 0;

    if (!content_encoding && !asked.refused) {
        return 1;
    }
    while (element_next(&cursor, &element)) {
        /* nobody encodes that often; it bounds the work */
        if (++n > 8
            || !coding_is_acceptable(&asked, coding_bit(element), element)) {
            return 0;
        }
    }
    return n || coding_is_acceptable(&asked, IDENTITY, element);
}

/* --- the block ----------------------------------------------------------- */

/* Bytes that grow. */
typedef struct buffer_t {
    unsigned char *data;
    apr_size_t len;
    apr_size_t room;
    apr_pool_t *pool;
} buffer_t;

static void __attribute__((noinline))
buffer_grow(buffer_t *buffer, apr_size_t n)
{
    unsigned char *data;

    buffer->room = 2 * (buffer->len + n);
    data = apr_palloc(buffer->pool, buffer->room);
    memcpy(data, buffer->data, buffer->len);
    buffer->data = data;
}

/* n more bytes, to be written. */
static APR_INLINE unsigned char *buffer_extend(buffer_t *buffer, apr_size_t n)
{
    if (buffer->room - buffer->len < n) {
        buffer_grow(buffer, n);
    }
    buffer->len += n;
    return buffer->data + buffer->len - n;
}

static void buffer_add(buffer_t *buffer, const char *bytes, apr_size_t n)
{
    memcpy(buffer_extend(buffer, n), bytes, n);
}

static void buffer_add_char(buffer_t *buffer, char c)
{
    *buffer_extend(buffer, 1) = (unsigned char)c;
}

static void buffer_add_number(buffer_t *buffer, apr_size_t n)
{
    mw_wire_put32(buffer_extend(buffer, 4), (apr_uint32_t)n);
}

/* Open a string whose length is not known yet; returns where it begins. */
static apr_size_t buffer_open(buffer_t *buffer)
{
    buffer_add_number(buffer, 0);
    return buffer->len;
}

static void buffer_close(buffer_t *buffer, apr_size_t start)
{
    mw_wire_put32(buffer->data + start - 4,
                  (apr_uint32_t)(buffer->len - start));
}

/* A comma, unless the string opened at start is still empty. */
static void buffer_separate(buffer_t *buffer, apr_size_t start)
{
    if (buffer->len > start) {
        buffer_add_char(buffer, ',');
    }
}

/* A quoted string as it is; returns its last character. */
static const char *quoted_add(buffer_t *buffer, const char *quote)
{
    const char *p = quote + 1;

    while (*p && *p != '"') {
        p += p[0] == '\\' && p[1] ? 2 : 1;
    }
    p -= *p ? 0 : 1;
    buffer_add(buffer, quote, p + 1 - quote);
    return p;
}

/* The elements of one occurrence of a list, behind those that are there. */
static void list_add(buffer_t *buffer, apr_size_t start, const char *p)
{
    const char *gap = NULL; /* white space that may turn out to matter */
    int fresh = 1;          /* no element has begun */
    int joint = 1;          /* white space here does not matter */

    for (; *p; p++) {
        if (char_is_ows(*p)) {
            gap = gap ? gap : p;
            continue;
        }
        if (*p == ',') {
            fresh = 1;
            continue;
        }
        if (fresh) {
            buffer_separate(buffer, start);
        }
        else if (gap && !joint && *p != ';' && *p != '=') {
            buffer_add(buffer, gap, p - gap);
        }
        gap = NULL;
        fresh = 0;
        joint = *p == ';' || *p == '=';
        if (*p == '"') {
            p = quoted_add(buffer, p);
        }
        else {
            buffer_add_char(buffer, char_lower(*p));
        }
    }
}

static void lists_add(buffer_t *buffer, const apr_array_header_t *values)
{
    apr_size_t start = buffer_open(buffer);
    int i;

    for (i = 0; i < values->nelts; i++) {
        list_add(buffer, start, string_at(values, i));
    }
    buffer_close(buffer, start);
}

/* What of an Accept-Encoding selects the variant. */
static int codings_wanted(const mw_asked_t *asked)
{
    int wanted = asked->named & ~asked->refused;
    int identity = asked->named & IDENTITY ? IDENTITY : STAR;

    wanted &= wanted & COMMON ? COMMON : RARE;
    return wanted | (asked->refused & identity ? IDENTITY : 0);
}

static int name_is(const char *name, apr_size_t length, const char *other,
                   apr_size_t other_len)
{
    return length == other_len && !memcmp(name, other, length);
}

static int name_is_list(const char *name, apr_size_t length)
{
    return name_is(name, length, "accept", sizeof("accept") - 1)
           || name_is(name, length, "accept-charset",
                      sizeof("accept-charset") - 1)
           || name_is(name, length, "accept-language",
                      sizeof("accept-language") - 1);
}

static void values_add(buffer_t *buffer, const apr_array_header_t *values)
{
    int i;

    buffer_add_number(buffer, values->nelts);
    for (i = 0; i < values->nelts; i++) {
        const char *value = string_at(values, i);
        span_t span = span_trim(value, value + strlen(value));

        buffer_add_number(buffer, span_len(span));
        buffer_add(buffer, span.start, span_len(span));
    }
}

/* One field. In the four where several occurrences are one list there is one
 * value, if any. */
static void field_add(buffer_t *buffer, const char *name,
                      const mw_asked_t *asked)
{
    apr_size_t length = strlen(name);
    apr_array_header_t *values;
    unsigned char *p;

    p = buffer_extend(buffer, 4 + length);
    mw_wire_put32(p, (apr_uint32_t)length);
    memcpy(p + 4, name, length);
    if (name_is(name, length, "accept-encoding",
                sizeof("accept-encoding") - 1)) {
        p = buffer_extend(buffer, 8);
        mw_wire_put32(p, (apr_uint32_t)asked->has_codings);
        mw_wire_put32(p + 4, (apr_uint32_t)codings_wanted(asked));
        return;
    }
    values = apr_array_make(buffer->pool, 2, sizeof(char *));
    apr_table_do(value_collect, values, asked->request, name, NULL);
    if (values->nelts && name_is_list(name, length)) {
        buffer_add_number(buffer, 1);
        lists_add(buffer, values);
    }
    else {
        values_add(buffer, values);
    }
}

const char *mw_vary_block(const apr_array_header_t *fields, mw_asked_t asked,
                          apr_size_t *length, apr_pool_t *pool)
{
    buffer_t buffer = { .room = 256, .pool = pool };
    int i;

    buffer.data = apr_palloc(pool, buffer.room);
    for (i = 0; i < fields->nelts; i++) {
        field_add(&buffer, string_at(fields, i), &asked);
    }
    *length = buffer.len;
    return (const char *)buffer.data;
}
