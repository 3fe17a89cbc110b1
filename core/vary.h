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

#define MW_DIGEST_LEN 16
/** Largest value of max_variants. */
#define MW_VARIANTS_MAX 1024

typedef struct mw_digest_t {
    unsigned char bytes[MW_DIGEST_LEN];
} mw_digest_t;

/** A decoded Vary record. */
typedef struct mw_vary_t {
    unsigned char epoch[16];   /**< random; part of every variant's key */
    apr_uint64_t serial;       /**< random, never 0; a variant stored under
                                    another one is stale */
    apr_time_t invalidated_at; /**< when serial last changed; 0: never */
    apr_array_header_t *fields; /**< of const char *: lower case, sorted */
    apr_array_header_t *variants; /**< of mw_digest_t, oldest first */
} mw_vary_t;

/**
 * The field names of all Vary fields in a header table.
 * @param star set to non-zero when one is "*"
 * @return of const char *: lower case, sorted, without repetition; NULL when
 *         there are none
 */
apr_array_header_t *mw_vary_fields(const apr_table_t *headers, int *star,
                                   apr_pool_t *pool);

/** Whether two lists of fields are the same. */
int mw_vary_same_fields(const apr_array_header_t *a,
                        const apr_array_header_t *b);

/**
 * The normalised request fields as one block: for each field its name, the
 * number of its occurrences and each value, all length-prefixed.
 */
const char *mw_vary_block(const apr_array_header_t *fields,
                          const apr_table_t *request, apr_size_t *length,
                          apr_pool_t *pool);

/** Digest of a block under a record's epoch. */
void mw_vary_digest(const mw_vary_t *record, const char *block,
                    apr_size_t length, mw_digest_t *digest);

/** The key of a variant, in pool. */
void mw_vary_key(const cachemw_key_t *plain, const mw_vary_t *record,
                 const mw_digest_t *digest, cachemw_key_t *key,
                 apr_pool_t *pool);

/** Whether the record lists this variant. */
int mw_vary_lists(const mw_vary_t *record, const mw_digest_t *digest);

/**
 * List a variant (as the newest, also when it was listed before).
 * @param dropped set to the oldest one when there were `max` already
 * @return non-zero when one was dropped
 */
int mw_vary_add(mw_vary_t *record, const mw_digest_t *digest, int max,
                mw_digest_t *dropped);

/** A new record for these fields: no variants, epoch and serial as given. */
mw_vary_t *mw_vary_make(const apr_array_header_t *fields,
                        const unsigned char random[24], apr_pool_t *pool);

/** Encode as a head of kind MW_HEAD_VARY; see mw_head_encode(). */
apr_status_t mw_vary_encode(const mw_vary_t *record, int checksum,
                            apr_pool_t *pool, const void **bytes,
                            apr_size_t *length);

/** Decode; see mw_head_decode(). Everything is copied into pool. */
apr_status_t mw_vary_decode(const void *bytes, apr_size_t length,
                            apr_pool_t *pool, mw_vary_t **record);

/**
 * Whether a response with this Content-Encoding (NULL: none) may be sent to a
 * request with these fields: RFC 9110, section 12.5.3.
 */
int mw_vary_acceptable(const apr_table_t *request,
                       const char *content_encoding);

/**
 * The present request's own values of the varying fields, for mod_cache's
 * comparison of stored against present ones.
 */
apr_table_t *mw_vary_request(const apr_array_header_t *fields,
                             const apr_table_t *request, apr_pool_t *pool);

#endif
