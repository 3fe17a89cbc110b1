/* SPDX-License-Identifier: Apache-2.0 */

/* Vary records: digests, keys, the list of variants, the codec. */

#include <string.h>

#include "apr_strings.h"

#include "core/entry.h"
#include "core/vary.h"
#include "core/wire.h"

/*
 * The payload of a Vary record in its frame (entry.c):
 *
 *     0  epoch (16 bytes)
 *    16  serial, invalidated_at (8 bytes each)
 *    32  number of fields, number of variants (4 bytes each)
 *    40  names of the fields, each with a NUL behind it
 *        digests of the variants (8 bytes each)
 */
#define RECORD_FIXED 40
#define EPOCH_LEN 16

static const char *string_at(const apr_array_header_t *strings, int i)
{
    return APR_ARRAY_IDX(strings, i, const char *);
}

/* --- records ------------------------------------------------------------- */

int mw_vary_same_fields(const apr_array_header_t *a,
                        const apr_array_header_t *b)
{
    int i, n = a ? a->nelts : 0;

    if (n != (b ? b->nelts : 0)) {
        return 0;
    }
    for (i = 0; i < n; i++) {
        if (strcmp(string_at(a, i), string_at(b, i))) {
            return 0;
        }
    }
    return 1;
}

/*
 * Keyed, for who makes up values should not find two blocks with one digest;
 * but nobody sees digests, and one that two share costs no more than misses. So
 * a multiplication for sixteen bytes does, at a third of what SipHash costs.
 */
static apr_uint64_t fold(apr_uint64_t a, apr_uint64_t b)
{
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)a * b;

    return (apr_uint64_t)product ^ (apr_uint64_t)(product >> 64);
#else
    const apr_uint64_t half = 0xffffffff;
    const apr_uint64_t low = (a & half) * (b & half);
    const apr_uint64_t middle = (a >> 32) * (b & half) + (low >> 32);
    const apr_uint64_t other = (a & half) * (b >> 32) + (middle & half);

    return (other << 32 | (low & half))
           ^ ((a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32));
#endif
}

static apr_uint64_t digest_fold(const unsigned char *p, apr_size_t length,
                                const unsigned char key[EPOCH_LEN])
{
    const apr_uint64_t first = mw_wire_get64(key);
    const apr_uint64_t second = mw_wire_get64(key + 8);
    apr_uint64_t sum = fold(first ^ length, second | 1);
    unsigned char rest[16] = { 0 };

    for (; length >= sizeof(rest); p += sizeof(rest), length -= sizeof(rest)) {
        sum =
            fold(mw_wire_get64(p) ^ first ^ sum, mw_wire_get64(p + 8) ^ second);
    }
    memcpy(rest, p, length);
    sum = fold(mw_wire_get64(rest) ^ first ^ sum,
               mw_wire_get64(rest + 8) ^ second);
    return fold(sum ^ second, first | 1);
}

void mw_vary_digest(const mw_vary_t *record, const char *block,
                    apr_size_t length, mw_digest_t *digest)
{
    mw_wire_put64(digest->bytes, digest_fold((const unsigned char *)block,
                                             length, record->epoch));
}

void mw_vary_key(const cachemw_key_t *plain, const mw_vary_t *record,
                 const mw_digest_t *digest, cachemw_key_t *key,
                 apr_pool_t *pool)
{
    char *data = apr_palloc(pool, plain->len + MW_VARY_KEY_EXTRA);
    char *p = data + plain->len;

    memcpy(data, plain->data, plain->len);
    p[0] = 0;
    p[1] = 1;
    memcpy(p + 2, record->epoch, EPOCH_LEN);
    memcpy(p + 2 + EPOCH_LEN, digest->bytes, MW_DIGEST_LEN);
    key->data = data;
    key->len = plain->len + MW_VARY_KEY_EXTRA;
}

/* Where a variant is in the list; -1: nowhere. */
static int variant_find(const mw_vary_t *record, const mw_digest_t *digest)
{
    const mw_digest_t *listed = (const mw_digest_t *)record->variants->elts;
    int i;

    for (i = 0; i < record->variants->nelts; i++) {
        if (!memcmp(&listed[i], digest, MW_DIGEST_LEN)) {
            return i;
        }
    }
    return -1;
}

/* Take n variants out of the list, from the i-th on. */
static void variants_cut(mw_vary_t *record, int i, int n)
{
    mw_digest_t *listed = (mw_digest_t *)record->variants->elts;

    memmove(listed + i, listed + i + n,
            (record->variants->nelts - i - n) * sizeof(mw_digest_t));
    record->variants->nelts -= n;
}

int mw_vary_lists(const mw_vary_t *record, const mw_digest_t *digest)
{
    return variant_find(record, digest) >= 0;
}

int mw_vary_add(mw_vary_t *record, const mw_digest_t *digest, int max,
                mw_digest_t *dropped)
{
    int i = variant_find(record, digest);
    int excess;

    record->variants = apr_array_copy(record->variants->pool, record->variants);
    if (i >= 0) {
        variants_cut(record, i, 1);
    }
    excess = record->variants->nelts - max + 1;
    if (excess > 0) {
        *dropped = APR_ARRAY_IDX(record->variants, 0, mw_digest_t);
        variants_cut(record, 0, excess);
    }
    APR_ARRAY_PUSH(record->variants, mw_digest_t) = *digest;
    return excess > 0;
}

mw_vary_t *mw_vary_make(const apr_array_header_t *fields,
                        const unsigned char random[24], apr_pool_t *pool)
{
    mw_vary_t *record = apr_pcalloc(pool, sizeof(*record));

    memcpy(record->epoch, random, EPOCH_LEN);
    record->serial = mw_wire_get64(random + EPOCH_LEN);
    if (!record->serial) {
        record->serial = 1;
    }
    record->fields = (apr_array_header_t *)fields;
    record->variants = apr_array_make(pool, 4, sizeof(mw_digest_t));
    return record;
}

/* --- codec of records ---------------------------------------------------- */

/* The length of a name that may follow `last` (NULL: none) in a record; 0: it
 * may not. */
static apr_size_t field_length(const char *name, const char *last)
{
    const char *p = name;

    while (mw_char_is(*p, MW_CHAR_LOWER_TOKEN)) {
        p++;
    }
    return *p || (last && strcmp(last, name) >= 0)
                   || (name[0] == '*' && !name[1])
               ? 0
               : p - name;
}

static int numbers_are_valid(const mw_vary_t *record)
{
    return record->serial && (apr_uint64_t)record->invalidated_at <= MW_TIME_MAX
           && record->fields->nelts >= 1
           && record->fields->nelts <= MW_VARY_FIELDS_MAX
           && record->variants->nelts <= MW_VARIANTS_MAX;
}

/* The encoded length of the fields. */
static apr_status_t fields_measure(const apr_array_header_t *fields,
                                   apr_size_t *size)
{
    const char *last = NULL;
    int i;

    *size = 0;
    for (i = 0; i < fields->nelts; i++) {
        const char *name = string_at(fields, i);
        apr_size_t length = field_length(name, last);

        if (!length) {
            return APR_EINVAL;
        }
        *size += length + 1;
        last = name;
    }
    return APR_SUCCESS;
}

static void fields_write(unsigned char *p, const apr_array_header_t *fields)
{
    int i;

    for (i = 0; i < fields->nelts; i++) {
        const char *name = string_at(fields, i);
        apr_size_t size = strlen(name) + 1;

        memcpy(p, name, size);
        p += size;
    }
}

apr_status_t mw_vary_encode(const mw_vary_t *record, int checksum,
                            apr_pool_t *pool, const void **bytes,
                            apr_size_t *length)
{
    apr_size_t fields_size, variants_size;
    unsigned char *frame, *p;
    apr_status_t rv;

    if (!numbers_are_valid(record)) {
        return APR_EINVAL;
    }
    rv = fields_measure(record->fields, &fields_size);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    variants_size = (apr_size_t)record->variants->nelts * MW_DIGEST_LEN;
    frame =
        mw_frame_make(MW_HEAD_VARY, RECORD_FIXED + variants_size + fields_size,
                      checksum, pool, length);
    if (!frame) {
        return APR_ENOSPC;
    }
    p = frame + MW_FRAME_START;
    memcpy(p, record->epoch, EPOCH_LEN);
    mw_wire_put64(p + 16, record->serial);
    mw_wire_put64(p + 24, (apr_uint64_t)record->invalidated_at);
    mw_wire_put32(p + 32, (apr_uint32_t)record->fields->nelts);
    mw_wire_put32(p + 36, (apr_uint32_t)record->variants->nelts);
    p += RECORD_FIXED;
    fields_write(p, record->fields);
    memcpy(p + fields_size, record->variants->elts, variants_size);
    mw_frame_seal(frame, *length);
    *bytes = frame;
    return APR_SUCCESS;
}

/* A record and what it needs, in one allocation. */
typedef struct decoded_t {
    mw_vary_t record;
    apr_array_header_t fields;
    apr_array_header_t variants;
    const char *names[];
} decoded_t;

/* An array of what is there already; growing, it is copied. */
static void array_around(apr_array_header_t *array, const void *elts, int n,
                         int size, apr_pool_t *pool)
{
    array->pool = pool;
    array->elt_size = size;
    array->nelts = array->nalloc = n;
    array->elts = (char *)elts;
}

/* The fields, which fill the bytes up to end exactly; 0: they do not. */
static int names_read(const char **names, apr_uint32_t count, const char *p,
                      const char *end)
{
    if (p == end || end[-1]) {
        return 0;
    }
    for (; count && p < end; count--) {
        *names++ = p;
        p += strlen(p) + 1;
    }
    return !count && p == end;
}

apr_status_t mw_vary_decode_own(const void *bytes, apr_size_t length,
                                apr_pool_t *pool, mw_vary_t **record)
{
    const unsigned char *p, *end;
    apr_uint32_t fields, variants;
    apr_size_t variants_size;
    decoded_t *made;

    p = mw_frame_open(bytes, length, MW_HEAD_VARY, &end);
    if (!p || end - p < RECORD_FIXED) {
        return APR_EINCOMPLETE;
    }
    fields = mw_wire_get32(p + 32);
    variants = mw_wire_get32(p + 36);
    variants_size = (apr_size_t)variants * MW_DIGEST_LEN;
    if (fields > MW_VARY_FIELDS_MAX || variants > MW_VARIANTS_MAX
        || variants_size > (apr_size_t)(end - p) - RECORD_FIXED) {
        return APR_EINCOMPLETE;
    }
    made = apr_palloc(pool, sizeof(*made) + fields * sizeof(made->names[0]));
    memcpy(made->record.epoch, p, EPOCH_LEN);
    made->record.serial = mw_wire_get64(p + 16);
    made->record.invalidated_at = (apr_time_t)mw_wire_get64(p + 24);
    made->record.fields = &made->fields;
    made->record.variants = &made->variants;
    p += RECORD_FIXED;
    end -= variants_size;
    array_around(&made->variants, end, (int)variants, sizeof(mw_digest_t),
                 pool);
    array_around(&made->fields, made->names, (int)fields, sizeof(char *), pool);
    if (!names_read(made->names, fields, (const char *)p, (const char *)end)) {
        return APR_EINCOMPLETE;
    }
    *record = &made->record;
    return APR_SUCCESS;
}

apr_status_t mw_vary_decode(const void *bytes, apr_size_t length,
                            apr_pool_t *pool, mw_vary_t **record)
{
    apr_size_t size;

    return mw_vary_decode_own(bytes, length, pool, record) == APR_SUCCESS
                   && numbers_are_valid(*record)
                   && fields_measure((*record)->fields, &size) == APR_SUCCESS
               ? APR_SUCCESS
               : APR_EINCOMPLETE;
}
