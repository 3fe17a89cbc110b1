/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_cstr.h"
#include "apr_strings.h"

#include "core/crc32c.h"
#include "core/entry.h"
#include "core/wire.h"

/*
 * Every head:
 *
 *     0  "CMWH"
 *     4  version, kind, flags, 0 (a byte each)
 *     8  length of the whole, 4 bytes
 *    12  payload
 *        CRC-32C of all before it, 4 bytes, if flags say so
 *
 * The payload of a response:
 *
 *     0  status, control, number of fields, length of names, length of the
 *        vary block, is_encoded (4 bytes each)
 *    24  date, expire, request_time, response_time, max_age, max_stale,
 *        min_fresh, s_maxage, vary_serial, born, Content-Length or -1 (8 bytes
 *        each)
 *   112  for each field: where in the head its name and its value are (4 bytes
 *        each)
 *        vary block
 *        names, each with a NUL behind it
 *        values, each with a NUL behind it
 *
 * Names and values lie together so that one pass over many bytes at a time
 * tells that there is no NUL but the terminators, and no CR or LF. Where they are
 * is told apart, so that a hit need not look at them. What a hit
 * must know of the fields stands before them: is_encoded, born and
 * Content-Length follow from the rest, and no others are accepted.
 */
#define MAGIC 0x48574d43u      /* "CMWH" */
#define FLAG_CHECKSUM 0x10000u /* in the word behind the magic */
#define CHECKSUM_LEN 4
#define RESPONSE_FIXED 112
#define FIELD_FIXED 8
/* mod_cache adds Age to a decoded table, perhaps Warning: no growing then. */
#define FIELDS_TO_COME 2

/* --- fields: what may be stored at all ----------------------------------- */

const unsigned char mw_char_class[256] = {
    ['!'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['#' ... '\''] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['*' ... '+'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['-' ... '.'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['0' ... '9'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['A' ... 'Z'] = MW_CHAR_TOKEN,
    ['^' ... '`'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['a' ... 'z'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['|'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
    ['~'] = MW_CHAR_TOKEN | MW_CHAR_LOWER_TOKEN,
};

int mw_is_token(const char *bytes, apr_size_t length)
{
    apr_size_t i;

    for (i = 0; i < length; i++) {
        if (!mw_char_is(bytes[i], MW_CHAR_TOKEN)) {
            return 0;
        }
    }
    return length > 0;
}

/* The value of a Content-Length field, -1 when it is none. */
static apr_int64_t length_parse(const char *value)
{
    const char *p = value;
    apr_uint64_t n = 0;

    for (; *p >= '0' && *p <= '9'; p++) {
        n = n * 10 + (*p - '0');
    }
    /* 18 digits cannot overflow, and no body is longer */
    return !*p && p > value && p - value <= 18 ? (apr_int64_t)n : -1;
}

/* What fields say that a hit must know. */
typedef struct facts_t {
    apr_int64_t content_length; /* -1: none */
    apr_time_t age;             /* of the first Age; -1: none */
    int is_encoded;
} facts_t;

static const facts_t facts_none = { .content_length = -1, .age = -1 };

static int field_is(const char *name, const char *known)
{
    /* the first is how it is nearly always written */
    return !strcmp(name, known) || !apr_cstr_casecmp(name, known);
}

static apr_time_t age_parse(const char *value)
{
    apr_int64_t seconds = apr_atoi64(value);

    if (seconds < 0) {
        return 0;
    }
    return seconds < apr_time_sec(MW_TIME_MAX) ? apr_time_from_sec(seconds)
                                               : MW_TIME_MAX;
}

/* 0 when a field would make a message be framed otherwise than by one
 * Content-Length. The length of a name tells most of them apart. */
static int facts_note(facts_t *facts, const char *name, apr_size_t name_len,
                      const char *value)
{
    switch (name_len) {
    case sizeof("Age") - 1:
        if (facts->age == -1 && field_is(name, "Age")) {
            facts->age = age_parse(value);
        }
        return 1;
    case sizeof("Content-Length") - 1:
        if (field_is(name, "Content-Length")) {
            apr_int64_t before = facts->content_length;

            facts->content_length = length_parse(value);
            return facts->content_length >= 0
                   && (before == -1 || before == facts->content_length);
        }
        return 1;
    case sizeof("Content-Encoding") - 1:
        facts->is_encoded |= field_is(name, "Content-Encoding");
        return 1;
    case sizeof("Transfer-Encoding") - 1:
        return !field_is(name, "Transfer-Encoding");
    }
    return 1;
}

/* When a response had the age 0: RFC 9111, section 4.2.3. */
static apr_time_t head_born(const mw_head_t *head, const facts_t *facts)
{
    apr_time_t apparent = head->response_time - head->date;
    apr_time_t age = facts->age > apparent ? facts->age : apparent;

    return head->request_time - (age > 0 ? age : 0);
}

static int numbers_are_valid(const mw_head_t *head)
{
    return head->status >= 200 && head->status <= 599
           && !(head->control & ~MW_CONTROL_ALL)
           && (apr_uint64_t)head->date <= MW_TIME_MAX
           && (apr_uint64_t)head->expire <= MW_TIME_MAX
           && (apr_uint64_t)head->request_time <= MW_TIME_MAX
           && (apr_uint64_t)head->response_time <= MW_TIME_MAX;
}

/* --- the frame ----------------------------------------------------------- */

/* Behind the magic; flags may be added. */
static apr_uint32_t frame_word(mw_head_kind_e kind)
{
    return MW_HEAD_VERSION | (apr_uint32_t)kind << 8;
}

unsigned char *mw_frame_make(mw_head_kind_e kind, apr_size_t payload,
                             int checksum, apr_pool_t *pool, apr_size_t *length)
{
    apr_size_t tail = checksum ? CHECKSUM_LEN : 0;
    unsigned char *p;

    if (payload > CACHEMW_HEAD_MAX - MW_FRAME_START - tail) {
        return NULL;
    }
    *length = MW_FRAME_START + payload + tail;
    p = apr_palloc(pool, *length);
    mw_wire_put32(p, MAGIC);
    mw_wire_put32(p + 4, frame_word(kind) | (checksum ? FLAG_CHECKSUM : 0));
    mw_wire_put32(p + 8, (apr_uint32_t)*length);
    return p;
}

void mw_frame_seal(unsigned char *bytes, apr_size_t length)
{
    if (mw_wire_get32(bytes + 4) & FLAG_CHECKSUM) {
        length -= CHECKSUM_LEN;
        mw_wire_put32(bytes + length, mw_crc32c(0, bytes, length));
    }
}

/* What a frame holds, its checksum not looked at. */
static APR_INLINE const unsigned char *frame_open(const void *bytes,
                                                  apr_size_t length,
                                                  mw_head_kind_e kind,
                                                  const unsigned char **end)
{
    const unsigned char *p = bytes;

    if (length < MW_FRAME_START + CHECKSUM_LEN || length > CACHEMW_HEAD_MAX
        || mw_wire_get32(p) != MAGIC
        || (mw_wire_get32(p + 4) & ~FLAG_CHECKSUM) != frame_word(kind)
        || mw_wire_get32(p + 8) != length) {
        return NULL;
    }
    *end =
        p + length - (mw_wire_get32(p + 4) & FLAG_CHECKSUM ? CHECKSUM_LEN : 0);
    return p + MW_FRAME_START;
}

const unsigned char *mw_frame_open(const void *bytes, apr_size_t length,
                                   mw_head_kind_e kind,
                                   const unsigned char **end)
{
    const unsigned char *start = bytes;
    const unsigned char *p = frame_open(bytes, length, kind, end);

    /* behind the payload only if there is a checksum */
    return p && *end < start + length
                   && mw_wire_get32(*end) != mw_crc32c(0, start, *end - start)
               ? NULL
               : p;
}

/* --- sixteen bytes at a time --------------------------------------------- */

typedef unsigned char lanes_t __attribute__((vector_size(16)));
#define LANES ((apr_size_t)sizeof(lanes_t))
/* How often a lane can count. */
#define LANE_MAX 255

static lanes_t lanes_load(const unsigned char *p)
{
    lanes_t lanes;

    memcpy(&lanes, p, sizeof(lanes));
    return lanes;
}

/* All ones in the last n < LANES lanes. */
static lanes_t lanes_last(apr_size_t n)
{
    static const unsigned char mask[2 * sizeof(lanes_t)] = {
        0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
        0,    0,    0,    0,    0,    0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
    };

    return lanes_load(mask + n);
}

static apr_size_t lanes_sum(lanes_t lanes)
{
    const apr_uint64_t even = APR_UINT64_C(0x00ff00ff00ff00ff);
    apr_uint64_t half[2], sum;

    memcpy(half, &lanes, sizeof(half));
    sum = (half[0] & even) + (half[0] >> 8 & even) + (half[1] & even)
          + (half[1] >> 8 & even);
    return sum * APR_UINT64_C(0x0001000100010001) >> 48;
}

/* All ones where there is a letter, a digit or a hyphen. */
static lanes_t lanes_plain(lanes_t lanes)
{
    lanes_t letters = (lanes_t)(((lanes | 0x20) - 'a') < 26);
    lanes_t digits = (lanes_t)((lanes - '0') < 10);

    return letters | digits | (lanes_t)(lanes == '-');
}

/* All ones where there is CR, LF, NUL or another character up to CR. */
static lanes_t lanes_low(lanes_t lanes)
{
    return (lanes_t)(lanes <= '\r');
}

/*
 * How many bytes are what `are` tells. At least LANES bytes lie before p: what
 * is left at the end is loaded with some of them.
 */
static APR_INLINE apr_size_t bytes_count(const unsigned char *p,
                                         apr_size_t length,
                                         lanes_t (*are)(lanes_t lanes))
{
    apr_size_t found = 0, n;

    for (;;) {
        lanes_t count = { 0 };

        for (n = length / LANES < LANE_MAX - 1 ? length / LANES : LANE_MAX - 1;
             n; n--) {
            count -= are(lanes_load(p));
            p += LANES;
            length -= LANES;
        }
        if (length < LANES) {
            p += length;
            count -= are(lanes_load(p - LANES)) & lanes_last(length);
            return found + lanes_sum(count);
        }
        found += lanes_sum(count);
    }
}

/*
 * Whether names with n terminators have nothing but characters of tokens; that
 * the terminators are there is for the caller to see. Nearly all names are
 * plain, which is quickly told; if not, each byte is looked at.
 */
static int names_are_tokens(const char *names, apr_size_t length, apr_size_t n)
{
    apr_size_t i, nuls = 0;

    if (bytes_count((const unsigned char *)names, length, lanes_plain) + n
        == length) {
        return 1;
    }
    for (i = 0; i < length; i++) {
        if (names[i] && !mw_char_is(names[i], MW_CHAR_TOKEN)) {
            return 0;
        }
        nuls += !names[i];
    }
    return nuls == n;
}

/* The same of values, which have no CR and LF, and seldom a tab. */
static int values_are_clean(const char *values, apr_size_t length, apr_size_t n)
{
    apr_size_t i, nuls = 0;

    if (bytes_count((const unsigned char *)values, length, lanes_low) == n) {
        return 1;
    }
    for (i = 0; i < length; i++) {
        if (values[i] == '\r' || values[i] == '\n') {
            return 0;
        }
        nuls += !values[i];
    }
    return nuls == n;
}

/* --- encode -------------------------------------------------------------- */

typedef struct sizes_t {
    apr_size_t names;  /* terminators included */
    apr_size_t values; /* likewise */
} sizes_t;

static apr_status_t fields_measure(const apr_array_header_t *fields,
                                   sizes_t *sizes, facts_t *facts)
{
    const apr_table_entry_t *field = (const apr_table_entry_t *)fields->elts;
    const apr_table_entry_t *end = field + fields->nelts;

    *facts = facts_none;
    sizes->names = sizes->values = 0;
    for (; field < end; field++) {
        apr_size_t name_len = strlen(field->key);

        if (!name_len || !facts_note(facts, field->key, name_len, field->val)) {
            return APR_EINVAL;
        }
        sizes->names += name_len + 1;
        sizes->values += strlen(field->val) + 1;
        if (sizes->names + sizes->values > CACHEMW_HEAD_MAX) {
            return APR_ENOSPC;
        }
    }
    return APR_SUCCESS;
}

static void numbers_write(unsigned char *p, const mw_head_t *head,
                          const facts_t *facts)
{
    mw_wire_put32(p, (apr_uint32_t)head->status);
    mw_wire_put32(p + 4, head->control);
    mw_wire_put32(p + 16, (apr_uint32_t)head->vary_block_len);
    mw_wire_put32(p + 20, (apr_uint32_t)facts->is_encoded);
    mw_wire_put64(p + 24, (apr_uint64_t)head->date);
    mw_wire_put64(p + 32, (apr_uint64_t)head->expire);
    mw_wire_put64(p + 40, (apr_uint64_t)head->request_time);
    mw_wire_put64(p + 48, (apr_uint64_t)head->response_time);
    mw_wire_put64(p + 56, (apr_uint64_t)head->max_age);
    mw_wire_put64(p + 64, (apr_uint64_t)head->max_stale);
    mw_wire_put64(p + 72, (apr_uint64_t)head->min_fresh);
    mw_wire_put64(p + 80, (apr_uint64_t)head->s_maxage);
    mw_wire_put64(p + 88, head->vary_serial);
    mw_wire_put64(p + 96, (apr_uint64_t)head_born(head, facts));
    mw_wire_put64(p + 104, (apr_uint64_t)facts->content_length);
}

/* The fields, with `at` for where they are, strings in the head.
 * @return whether their characters are what a field may have */
static int fields_write(unsigned char *head, unsigned char *at,
                        unsigned char *strings,
                        const apr_array_header_t *fields, const sizes_t *sizes)
{
    const apr_table_entry_t *field = (const apr_table_entry_t *)fields->elts;
    const apr_table_entry_t *end = field + fields->nelts;
    unsigned char *name = strings;
    unsigned char *value = strings + sizes->names;

    for (; field < end; field++) {
        apr_size_t name_size = strlen(field->key) + 1;
        apr_size_t value_size = strlen(field->val) + 1;

        mw_wire_put32(at, (apr_uint32_t)(name - head));
        mw_wire_put32(at + 4, (apr_uint32_t)(value - head));
        memcpy(name, field->key, name_size);
        memcpy(value, field->val, value_size);
        at += FIELD_FIXED;
        name += name_size;
        value += value_size;
    }
    return names_are_tokens((const char *)strings, sizes->names, fields->nelts)
           && values_are_clean((const char *)strings + sizes->names,
                               sizes->values, fields->nelts);
}

apr_status_t mw_head_encode(const mw_head_t *head, int checksum,
                            apr_pool_t *pool, const void **bytes,
                            apr_size_t *length)
{
    const apr_array_header_t *fields;
    unsigned char *frame, *p, *at;
    sizes_t sizes;
    facts_t facts;
    apr_status_t rv;

    if (!numbers_are_valid(head)) {
        return APR_EINVAL;
    }
    fields = head->headers ? apr_table_elts(head->headers)
                           : apr_array_make(pool, 1, sizeof(apr_table_entry_t));
    rv = fields_measure(fields, &sizes, &facts);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (head->vary_block_len > CACHEMW_HEAD_MAX) {
        return APR_ENOSPC;
    }
    frame = mw_frame_make(MW_HEAD_RESPONSE,
                          RESPONSE_FIXED + head->vary_block_len
                              + (apr_size_t)fields->nelts * FIELD_FIXED
                              + sizes.names + sizes.values,
                          checksum, pool, length);
    if (!frame) {
        return APR_ENOSPC;
    }
    p = frame + MW_FRAME_START;
    numbers_write(p, head, &facts);
    mw_wire_put32(p + 8, (apr_uint32_t)fields->nelts);
    mw_wire_put32(p + 12, (apr_uint32_t)sizes.names);
    at = p + RESPONSE_FIXED;
    p = at + (apr_size_t)fields->nelts * FIELD_FIXED;
    if (head->vary_block_len) {
        memcpy(p, head->vary_block, head->vary_block_len);
    }
    if (!fields_write(frame, at, p + head->vary_block_len, fields, &sizes)) {
        return APR_EINVAL;
    }
    mw_frame_seal(frame, *length);
    *bytes = frame;
    return APR_SUCCESS;
}

/* --- decode -------------------------------------------------------------- */

static void numbers_read(mw_head_t *head, const unsigned char *p)
{
    head->status = (int)mw_wire_get32(p);
    head->control = mw_wire_get32(p + 4);
    head->is_encoded = (int)mw_wire_get32(p + 20);
    head->date = (apr_time_t)mw_wire_get64(p + 24);
    head->expire = (apr_time_t)mw_wire_get64(p + 32);
    head->request_time = (apr_time_t)mw_wire_get64(p + 40);
    head->response_time = (apr_time_t)mw_wire_get64(p + 48);
    head->max_age = (apr_int64_t)mw_wire_get64(p + 56);
    head->max_stale = (apr_int64_t)mw_wire_get64(p + 64);
    head->min_fresh = (apr_int64_t)mw_wire_get64(p + 72);
    head->s_maxage = (apr_int64_t)mw_wire_get64(p + 80);
    head->vary_serial = mw_wire_get64(p + 88);
    head->born = (apr_time_t)mw_wire_get64(p + 96);
    head->content_length = (apr_int64_t)mw_wire_get64(p + 104);
}

/* The vary block; 0 when it or the field table does not fit. */
static int block_read(mw_head_t *head, const unsigned char *p,
                      const unsigned char *end)
{
    const apr_uint64_t fields_len =
        (apr_uint64_t)mw_wire_get32(p + 8) * FIELD_FIXED;
    const apr_uint32_t block_len = mw_wire_get32(p + 16);

    if (fields_len + block_len > (apr_uint64_t)(end - p - RESPONSE_FIXED)) {
        return 0;
    }
    head->vary_block =
        block_len ? (const char *)p + RESPONSE_FIXED + fields_len : NULL;
    head->vary_block_len = block_len;
    return 1;
}

/* The n fields of a table; 0 when one is not within the length of the head. */
static int fields_read(apr_table_t *headers, const char *head,
                       apr_size_t length, const unsigned char *at,
                       apr_uint32_t n)
{
    for (; n; n--, at += FIELD_FIXED) {
        apr_uint32_t name = mw_wire_get32(at);
        apr_uint32_t value = mw_wire_get32(at + 4);

        if (name >= length || value >= length) {
            return 0;
        }
        apr_table_addn(headers, head + name, head + value);
    }
    return 1;
}

apr_status_t mw_head_decode_own(const void *bytes, apr_size_t length,
                                apr_off_t body_len, apr_pool_t *pool,
                                mw_head_t *head)
{
    const unsigned char *p, *end;
    apr_uint32_t n;

    p = frame_open(bytes, length, MW_HEAD_RESPONSE, &end);
    if (!p || end - p < RESPONSE_FIXED || !block_read(head, p, end)) {
        return APR_EINCOMPLETE;
    }
    numbers_read(head, p);
    n = mw_wire_get32(p + 8);
    /* where the head ends with a NUL, so does every string that begins in it */
    if ((n && end[-1])
        || (head->content_length != -1 && head->content_length != body_len
            && body_len != -1)) {
        return APR_EINCOMPLETE;
    }
    head->headers = apr_table_make(pool, (int)n + FIELDS_TO_COME);
    return fields_read(head->headers, bytes, end - (const unsigned char *)bytes,
                       p + RESPONSE_FIXED, n)
               ? APR_SUCCESS
               : APR_EINCOMPLETE;
}

/*
 * Whether the fields read are strings that follow each other from `names` and
 * from `values` on, up to the end; what they say is noted. There are as many
 * terminators as strings: one before each next string leaves none inside.
 */
static int fields_are_whole(const apr_table_t *headers, const char *names,
                            const char *values, const char *end, facts_t *facts)
{
    const apr_array_header_t *fields = apr_table_elts(headers);
    const apr_table_entry_t *field = (const apr_table_entry_t *)fields->elts;
    const char *name = names, *value = values;
    int left;

    for (left = fields->nelts; left; left--, field++) {
        const char *next_name = left > 1 ? field[1].key : values;
        const char *next_value = left > 1 ? field[1].val : end;

        if (field->key != name || field->val != value || next_name <= name + 1
            || next_name[-1] || next_value <= value || next_value[-1]
            || !facts_note(facts, name, next_name - name - 1, value)) {
            return 0;
        }
        name = next_name;
        value = next_value;
    }
    return name == values && value == end;
}

/* Whether mw_head_encode() would have made the head that was read of this. */
static int head_is_sound(const mw_head_t *head, const unsigned char *p,
                         const unsigned char *end)
{
    const apr_size_t n = mw_wire_get32(p + 8);
    const apr_size_t names_len = mw_wire_get32(p + 12);
    const char *names = (const char *)p + RESPONSE_FIXED + n * FIELD_FIXED
                        + head->vary_block_len;
    const char *values_end = (const char *)end;
    facts_t facts = facts_none;

    return names_len <= (apr_size_t)(values_end - names)
           && numbers_are_valid(head) && names_are_tokens(names, names_len, n)
           && values_are_clean(names + names_len,
                               values_end - names - names_len, n)
           && fields_are_whole(head->headers, names, names + names_len,
                               values_end, &facts)
           && head->is_encoded == facts.is_encoded
           && head->born == head_born(head, &facts)
           && head->content_length == facts.content_length;
}

apr_status_t mw_head_decode(const void *bytes, apr_size_t length,
                            apr_off_t body_len, apr_pool_t *pool,
                            mw_head_t *head)
{
    const unsigned char *p, *end;

    p = mw_frame_open(bytes, length, MW_HEAD_RESPONSE, &end);
    return p
                   && mw_head_decode_own(bytes, length, body_len, pool, head)
                          == APR_SUCCESS
                   && head_is_sound(head, p, end)
               ? APR_SUCCESS
               : APR_EINCOMPLETE;
}
