/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_cstr.h"

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
 *        vary block (4 bytes each)
 *    20  date, expire, request_time, response_time, max_age, max_stale,
 *        min_fresh, s_maxage, vary_serial (8 bytes each)
 *    92  vary block
 *        for each field: length of its name (2 bytes) and value (4 bytes)
 *        names, each with a NUL behind it
 *        values, each with a NUL behind it
 *
 * Names and values lie together so that one pass over many bytes at a time
 * tells that there is no NUL but the terminators, and no CR or LF.
 */
#define FLAG_CHECKSUM 1
#define CHECKSUM_LEN 4
#define RESPONSE_FIXED 92
#define FIELD_FIXED 6
#define FIELD_NAME_MAX 0xffff
/* mod_cache adds Age to a decoded table, perhaps Warning: no growing then. */
#define FIELDS_TO_COME 2

static const char magic[4] = { 'C', 'M', 'W', 'H' };

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

/*
 * Whether a field whose name has the length of one of the two that frame a
 * message agrees with a body of body_len bytes, sent whole. While body_len is
 * -1 a Content-Length sets it, so that a second one must agree.
 */
static int framing_agrees(const char *name, const char *value,
                          apr_int64_t *body_len)
{
    /* how it is nearly always written */
    if (!memcmp(name, "Content-Length", sizeof("Content-Length"))
        || !apr_cstr_casecmp(name, "Content-Length")) {
        apr_int64_t n = length_parse(value);

        if (*body_len == -1) {
            *body_len = n;
        }
        return n >= 0 && n == *body_len;
    }
    return apr_cstr_casecmp(name, "Transfer-Encoding") != 0;
}

static int field_is_framing(apr_size_t name_len)
{
    return name_len == sizeof("Content-Length") - 1
           || name_len == sizeof("Transfer-Encoding") - 1;
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
    memcpy(p, magic, sizeof(magic));
    p[4] = MW_HEAD_VERSION;
    p[5] = (unsigned char)kind;
    p[6] = checksum ? FLAG_CHECKSUM : 0;
    p[7] = 0;
    mw_wire_put32(p + 8, (apr_uint32_t)*length);
    return p;
}

void mw_frame_seal(unsigned char *bytes, apr_size_t length)
{
    if (bytes[6] & FLAG_CHECKSUM) {
        length -= CHECKSUM_LEN;
        mw_wire_put32(bytes + length, mw_crc32c(0, bytes, length));
    }
}

static APR_INLINE mw_head_kind_e frame_kind(const void *bytes,
                                            apr_size_t length)
{
    const unsigned char *p = bytes;

    if (length < MW_FRAME_START + CHECKSUM_LEN || length > CACHEMW_HEAD_MAX
        || memcmp(p, magic, sizeof(magic)) || p[4] != MW_HEAD_VERSION
        || (p[6] & ~FLAG_CHECKSUM) || p[7] || mw_wire_get32(p + 8) != length) {
        return 0;
    }
    return p[5] == MW_HEAD_RESPONSE || p[5] == MW_HEAD_VARY ? p[5] : 0;
}

mw_head_kind_e mw_head_kind(const void *bytes, apr_size_t length)
{
    return frame_kind(bytes, length);
}

static APR_INLINE const unsigned char *frame_open(const void *bytes,
                                                  apr_size_t length,
                                                  mw_head_kind_e kind,
                                                  const unsigned char **end)
{
    const unsigned char *p = bytes;

    if (frame_kind(bytes, length) != kind) {
        return NULL;
    }
    *end = p + length;
    if (p[6] & FLAG_CHECKSUM) {
        *end -= CHECKSUM_LEN;
        if (mw_wire_get32(*end) != mw_crc32c(0, p, *end - p)) {
            return NULL;
        }
    }
    return p + MW_FRAME_START;
}

const unsigned char *mw_frame_open(const void *bytes, apr_size_t length,
                                   mw_head_kind_e kind,
                                   const unsigned char **end)
{
    return frame_open(bytes, length, kind, end);
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
                                   sizes_t *sizes)
{
    const apr_table_entry_t *field = (const apr_table_entry_t *)fields->elts;
    const apr_table_entry_t *end = field + fields->nelts;
    apr_int64_t body_len = -1;

    sizes->names = sizes->values = 0;
    for (; field < end; field++) {
        apr_size_t name_len = strlen(field->key);

        if (!name_len
            || (field_is_framing(name_len)
                && !framing_agrees(field->key, field->val, &body_len))) {
            return APR_EINVAL;
        }
        if (name_len > FIELD_NAME_MAX) {
            return APR_ENOSPC;
        }
        sizes->names += name_len + 1;
        sizes->values += strlen(field->val) + 1;
        if (sizes->names + sizes->values > CACHEMW_HEAD_MAX) {
            return APR_ENOSPC;
        }
    }
    return APR_SUCCESS;
}

static void numbers_write(unsigned char *p, const mw_head_t *head)
{
    mw_wire_put32(p, (apr_uint32_t)head->status);
    mw_wire_put32(p + 4, head->control);
    mw_wire_put32(p + 16, (apr_uint32_t)head->vary_block_len);
    mw_wire_put64(p + 20, (apr_uint64_t)head->date);
    mw_wire_put64(p + 28, (apr_uint64_t)head->expire);
    mw_wire_put64(p + 36, (apr_uint64_t)head->request_time);
    mw_wire_put64(p + 44, (apr_uint64_t)head->response_time);
    mw_wire_put64(p + 52, (apr_uint64_t)head->max_age);
    mw_wire_put64(p + 60, (apr_uint64_t)head->max_stale);
    mw_wire_put64(p + 68, (apr_uint64_t)head->min_fresh);
    mw_wire_put64(p + 76, (apr_uint64_t)head->s_maxage);
    mw_wire_put64(p + 84, head->vary_serial);
}

/* @return whether their characters are what a field may have */
static int fields_write(unsigned char *p, const apr_array_header_t *fields,
                        const sizes_t *sizes)
{
    const apr_table_entry_t *field = (const apr_table_entry_t *)fields->elts;
    const apr_table_entry_t *end = field + fields->nelts;
    char *names = (char *)p + (apr_size_t)fields->nelts * FIELD_FIXED;
    char *values = names + sizes->names;
    char *name = names;
    char *value = values;

    for (; field < end; field++) {
        apr_size_t name_len = strlen(field->key);
        apr_size_t value_len = strlen(field->val);

        mw_wire_put16(p, (apr_uint32_t)name_len);
        mw_wire_put32(p + 2, (apr_uint32_t)value_len);
        memcpy(name, field->key, name_len + 1);
        memcpy(value, field->val, value_len + 1);
        p += FIELD_FIXED;
        name += name_len + 1;
        value += value_len + 1;
    }
    return names_are_tokens(names, sizes->names, fields->nelts)
           && values_are_clean(values, sizes->values, fields->nelts);
}

apr_status_t mw_head_encode(const mw_head_t *head, int checksum,
                            apr_pool_t *pool, const void **bytes,
                            apr_size_t *length)
{
    const apr_array_header_t *fields;
    unsigned char *frame, *p;
    sizes_t sizes;
    apr_status_t rv;

    if (!numbers_are_valid(head)) {
        return APR_EINVAL;
    }
    fields = head->headers ? apr_table_elts(head->headers)
                           : apr_array_make(pool, 1, sizeof(apr_table_entry_t));
    rv = fields_measure(fields, &sizes);
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
    numbers_write(p, head);
    mw_wire_put32(p + 8, (apr_uint32_t)fields->nelts);
    mw_wire_put32(p + 12, (apr_uint32_t)sizes.names);
    p += RESPONSE_FIXED;
    if (head->vary_block_len) {
        memcpy(p, head->vary_block, head->vary_block_len);
    }
    if (!fields_write(p + head->vary_block_len, fields, &sizes)) {
        return APR_EINVAL;
    }
    mw_frame_seal(frame, *length);
    *bytes = frame;
    return APR_SUCCESS;
}

/* --- decode -------------------------------------------------------------- */

/* Where the parts of the header fields lie, their sizes verified. */
typedef struct fields_t {
    apr_uint32_t count;
    const unsigned char *lengths;
    const char *names;
    const char *values; /* the end of names */
    const char *end;
} fields_t;

static void numbers_read(mw_head_t *head, const unsigned char *p)
{
    head->status = (int)mw_wire_get32(p);
    head->control = mw_wire_get32(p + 4);
    head->date = (apr_time_t)mw_wire_get64(p + 20);
    head->expire = (apr_time_t)mw_wire_get64(p + 28);
    head->request_time = (apr_time_t)mw_wire_get64(p + 36);
    head->response_time = (apr_time_t)mw_wire_get64(p + 44);
    head->max_age = (apr_int64_t)mw_wire_get64(p + 52);
    head->max_stale = (apr_int64_t)mw_wire_get64(p + 60);
    head->min_fresh = (apr_int64_t)mw_wire_get64(p + 68);
    head->s_maxage = (apr_int64_t)mw_wire_get64(p + 76);
    head->vary_serial = mw_wire_get64(p + 84);
}

/* Cut the payload into its parts; 0 when they do not fit. */
static int parts_find(mw_head_t *head, fields_t *fields, const unsigned char *p,
                      const unsigned char *end)
{
    apr_uint32_t names_len = mw_wire_get32(p + 12);
    apr_size_t block_len = mw_wire_get32(p + 16);
    apr_size_t left = end - p - RESPONSE_FIXED;

    fields->count = mw_wire_get32(p + 8);
    if (block_len > left) {
        return 0;
    }
    p += RESPONSE_FIXED;
    head->vary_block = block_len ? (const char *)p : NULL;
    head->vary_block_len = block_len;
    p += block_len;
    left -= block_len;
    if ((apr_uint64_t)fields->count * FIELD_FIXED > left) {
        return 0;
    }
    fields->lengths = p;
    p += (apr_size_t)fields->count * FIELD_FIXED;
    if (names_len > (apr_size_t)(end - p)) {
        return 0;
    }
    fields->names = (const char *)p;
    fields->values = fields->names + names_len;
    fields->end = (const char *)end;
    return 1;
}

/*
 * The fields into the table; 0 when something is wrong with them. Their bytes
 * have been checked, save that each string must end where its length says:
 * those of our own do.
 */
static APR_INLINE int fields_read(mw_head_t *head, const fields_t *fields,
                                  apr_int64_t body_len, int is_own)
{
    const unsigned char *lengths = fields->lengths;
    const unsigned char *lengths_end = (const unsigned char *)fields->names;
    const char *name = fields->names, *names_end = fields->values;
    const char *value = fields->values, *values_end = fields->end;

    for (; lengths < lengths_end; lengths += FIELD_FIXED) {
        apr_size_t name_len = mw_wire_get16(lengths);
        apr_size_t value_len = mw_wire_get32(lengths + 2);

        if (name_len >= (apr_size_t)(names_end - name)
            || value_len >= (apr_size_t)(values_end - value)
            || (!is_own && (!name_len || name[name_len] || value[value_len]))
            || (field_is_framing(name_len)
                && !framing_agrees(name, value, &body_len))) {
            return 0;
        }
        if (name_len == sizeof("Content-Encoding") - 1) {
            head->may_be_encoded = 1;
        }
        else if (name_len == sizeof("Age") - 1) {
            head->may_have_age = 1;
        }
        apr_table_addn(head->headers, name, value);
        name += name_len + 1;
        value += value_len + 1;
    }
    return name == names_end && value == values_end;
}

/* Whether the characters of fields are what a field may have. */
static int fields_are_clean(const fields_t *fields)
{
    return names_are_tokens(fields->names, fields->values - fields->names,
                            fields->count)
           && values_are_clean(fields->values, fields->end - fields->values,
                               fields->count);
}

static APR_INLINE apr_status_t head_decode(const void *bytes, apr_size_t length,
                                           apr_off_t body_len, int is_own,
                                           apr_pool_t *pool, mw_head_t *head)
{
    const unsigned char *p, *end;
    fields_t fields;

    p = frame_open(bytes, length, MW_HEAD_RESPONSE, &end);
    if (!p || end - p < RESPONSE_FIXED) {
        return APR_EINCOMPLETE;
    }
    numbers_read(head, p);
    if (!numbers_are_valid(head) || !parts_find(head, &fields, p, end)
        || (!is_own && !fields_are_clean(&fields))) {
        return APR_EINCOMPLETE;
    }
    head->may_be_encoded = head->may_have_age = 0;
    head->headers = apr_table_make(pool, (int)fields.count + FIELDS_TO_COME);
    return fields_read(head, &fields, body_len, is_own) ? APR_SUCCESS
                                                        : APR_EINCOMPLETE;
}

apr_status_t mw_head_decode(const void *bytes, apr_size_t length,
                            apr_off_t body_len, apr_pool_t *pool,
                            mw_head_t *head)
{
    return head_decode(bytes, length, body_len, 0, pool, head);
}

apr_status_t mw_head_decode_own(const void *bytes, apr_size_t length,
                                apr_off_t body_len, apr_pool_t *pool,
                                mw_head_t *head)
{
    return head_decode(bytes, length, body_len, 1, pool, head);
}
