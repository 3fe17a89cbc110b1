/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file vary.h
 * @brief Vary (RFC 9111, section 4.1): records, normalised values, variant
 *        keys.
 *
 * A URL whose responses vary has a Vary record under its plain key and each
 * variant under a key of its own, made of the plain key, the record's epoch
 * and a digest of the normalised request fields. The fields themselves are kept
 * in the variant's head and compared on every hit.
 */
#ifndef MW_VARY_H
#define MW_VARY_H

#include "apr_tables.h"
#include "mod_cachemw.h"

#define MW_DIGEST_LEN 8
/** Largest value of max_variants. */
#define MW_VARIANTS_MAX 1024
/** Most fields of a record; a response that names more is not stored. */
#define MW_VARY_FIELDS_MAX 64
/** How much longer than the plain key a variant's key is. */
#define MW_VARY_KEY_EXTRA (2 + 16 + MW_DIGEST_LEN)

typedef struct mw_digest_t {
    unsigned char bytes[MW_DIGEST_LEN];
} mw_digest_t;

/** A decoded Vary record. */
typedef struct mw_vary_t {
    unsigned char epoch[16];      /**< random; part of every variant's key */
    apr_uint64_t serial;          /**< random, never 0; a variant stored under
                                    another one is stale */
    apr_time_t invalidated_at;    /**< when serial last changed; 0: never */
    apr_array_header_t *fields;   /**< of const char *: lower case, sorted */
    apr_array_header_t *variants; /**< of mw_digest_t, oldest first */
} mw_vary_t;

/**
 * The field names of all Vary fields in a header table.
 * @param star set to non-zero when one is "*", or no field name at all: then
 *        nobody can tell what the response varies by; else set to 0
 * @return of const char *: lower case, sorted, without repetition; NULL when
 *         there are none
 */
apr_array_header_t *mw_vary_fields(const apr_table_t *headers, int *star,
                                   apr_pool_t *pool);

/** Whether two lists of fields are the same; NULL is the empty list. */
int mw_vary_same_fields(const apr_array_header_t *a,
                        const apr_array_header_t *b);

/** A request, and what its Accept-Encoding says, read once. */
typedef struct mw_asked_t {
    const apr_table_t *request;
    int has_codings; /**< 0: no Accept-Encoding */
    int named;       /**< the known codings in it, a bit for each, */
    int refused;     /**< and those of them with q=0 */
} mw_asked_t;

/** Read what a request asks for. The table must live as long. */
mw_asked_t mw_vary_asked(const apr_table_t *request);

/**
 * The normalised request fields as one block: for each field its name, the
 * number of its occurrences and each value, all length-prefixed: different
 * lists of fields and values never give one block. Normalised means:
 *
 * - Accept-Encoding: a bit for each of br, gzip and zstd with q > 0; if there
 *   are none, of compress and deflate; and one if the request refuses identity.
 *   They are a number of four bytes, without a length. x-gzip is gzip, x-compress is compress. Other codings do not
 *   count: whoever makes up names would otherwise push out the variants that
 *   people use. What may be sent is for mw_vary_acceptable() to say.
 * - Accept, Accept-Charset, Accept-Language: lower case outside of quotes,
 *   no white space around comma, semicolon and equals sign, no empty elements,
 *   order kept.
 * - In these four several occurrences are one list. Of every other field each
 *   occurrence counts, without the white space around it.
 *
 * A missing field differs from an empty one. Time and memory are linear in the
 * length of the request's fields.
 * @return in pool
 */
const char *mw_vary_block(const apr_array_header_t *fields, mw_asked_t asked,
                          apr_size_t *length, apr_pool_t *pool);

/**
 * Digest of a block under a record's epoch. Clients choose what is in a block
 * but do not know the epoch, and a collision costs a miss.
 */
void mw_vary_digest(const mw_vary_t *record, const char *block,
                    apr_size_t length, mw_digest_t *digest);

/**
 * The key of a variant, in pool.
 * @param plain at most CACHEMW_KEY_MAX - MW_VARY_KEY_EXTRA bytes
 */
void mw_vary_key(const cachemw_key_t *plain, const mw_vary_t *record,
                 const mw_digest_t *digest, cachemw_key_t *key,
                 apr_pool_t *pool);

/** Whether the record lists this variant. */
int mw_vary_lists(const mw_vary_t *record, const mw_digest_t *digest);

/**
 * List a variant (as the newest, also when it was listed before).
 * @param max the most that the record lists, 1 to MW_VARIANTS_MAX
 * @param dropped set to the oldest one when there were `max` already; what else
 *        exceeds a `max` that has become smaller is dropped as well
 * @return non-zero when one was dropped
 */
int mw_vary_add(mw_vary_t *record, const mw_digest_t *digest, int max,
                mw_digest_t *dropped);

/**
 * A new record for these fields: no variants, epoch and serial as given. It
 * refers to `fields`, which must live as long.
 */
mw_vary_t *mw_vary_make(const apr_array_header_t *fields,
                        const unsigned char random[24], apr_pool_t *pool);

/**
 * Encode as a head of kind MW_HEAD_VARY; see mw_head_encode().
 * @return APR_EINVAL: no or more than MW_VARY_FIELDS_MAX fields, a field that is
 *         no lower-case token, not sorted or there twice, serial 0, more than
 *         MW_VARIANTS_MAX variants, a time out of range
 */
apr_status_t mw_vary_encode(const mw_vary_t *record, int checksum,
                            apr_pool_t *pool, const void **bytes,
                            apr_size_t *length);

/**
 * Decode; see mw_head_decode(). The names of fields and the digests stay in
 * `bytes`, which must live as long and stay unchanged; mw_vary_add() copies.
 */
apr_status_t mw_vary_decode(const void *bytes, apr_size_t length,
                            apr_pool_t *pool, mw_vary_t **record);

/** The same for bytes of mw_vary_encode() that have not left the server's
 *  memory since; see mw_head_decode_own(). */
apr_status_t mw_vary_decode_own(const void *bytes, apr_size_t length,
                                apr_pool_t *pool, mw_vary_t **record);

/**
 * Whether a response with this Content-Encoding (NULL: none) may be sent to a
 * request with these fields: RFC 9110, section 12.5.3. A coding named twice is
 * refused if one of them says q=0; a weight that is no number is ignored.
 */
int mw_vary_acceptable(mw_asked_t asked, const char *content_encoding);

#endif
