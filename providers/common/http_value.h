/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file http_value.h
 * @brief Entries as the JSON that a cache service behind HTTP keeps.
 *
 * What is sent and answered is an envelope:
 *
 *     {"value": VALUE, "timeout": SECONDS}    what is stored
 *     {"value": VALUE}                        what is answered
 *
 * A service keeps any VALUE. Ours is an object of these members and no other:
 *
 *     "format"   1
 *     "key"      the whole key, base64 (RFC 4648, section 4, padded)
 *     "id"       32 lower-case hexadecimal digits
 *     "expires"  microseconds since the epoch, decimal, as a string: services
 *                that take numbers for floating point must not round it
 *     "head"     base64
 *     "body"     base64
 *     "crc32c"   8 lower-case hexadecimal digits, over the bytes of the id; as
 *                little-endian integers expires (64 bits) and the lengths of
 *                key and head (32 bits each); key, head and body
 */
#ifndef MW_COMMON_HTTP_VALUE_H
#define MW_COMMON_HTTP_VALUE_H

#include "mod_cachemw.h"

/** Largest body of an entry in such a value. */
#define MW_HTTP_BODY_MAX ((apr_off_t)16 * 1024 * 1024)

/** The field in which a service that is an httpd with this module, and its
 *  clients, name themselves, so that circles are noticed. */
#define MW_HTTP_VIA "X-Cachemw-Api"

/** An envelope and what is in it. */
typedef struct mw_http_value_t {
    cachemw_key_t key;     /**< in the pool */
    cachemw_entry_t entry; /**< head in the pool; body as it was given */
    double timeout;        /**< seconds; 0: the envelope has none */
} mw_http_value_t;

/**
 * Longest text of our own for an entry: what may be read of one is bounded by
 * this, with what a service adds in blanks.
 */
apr_size_t mw_http_value_max(apr_size_t key_len, apr_off_t body_len);

/**
 * An entry in its envelope.
 * @param entry all fields; buckets of body are consumed
 * @param timeout whole seconds; 0: the envelope has none
 * @param text malloc'ed, for the caller to free
 * @return APR_EINVAL: body_len is not the body's length; APR_ENOMEM; what
 *         reading a bucket returned
 */
apr_status_t mw_http_value_encode(const cachemw_key_t *key,
                                  const cachemw_entry_t *entry,
                                  apr_int64_t timeout, char **text,
                                  apr_size_t *len);

/**
 * An envelope's entry, wholly checked. Other members of the envelope are passed
 * over. Takes about twice the memory of the text while it works.
 * @param body_max a longer body is APR_ENOSPC
 * @param body gets the body, in buckets of less than 64 KB with memory of their
 *        own; NULL: it is checked only
 * @param reason set on failure, to a constant text
 * @return EPROTO: the text is no envelope; APR_EINCOMPLETE: its value is no
 *         entry of ours, or a damaged one; APR_ENOSPC; APR_ENOMEM
 */
apr_status_t mw_http_value_decode(const char *text, apr_size_t len,
                                  apr_off_t body_max, apr_pool_t *pool,
                                  apr_bucket_brigade *body,
                                  mw_http_value_t *value, const char **reason);

#endif
