/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file seal.h
 * @brief What tells that bytes are those that were stored: a CRC-32C or, with
 *        secret_file, an HMAC-SHA-256 that who has no secret cannot make.
 */
#ifndef MW_REDIS_SEAL_H
#define MW_REDIS_SEAL_H

#include "redis.h"

/** Bytes of the longest mark. */
#define MW_REDIS_MARK_MAX 32

/** open(): prepare the secret. @return NULL: OpenSSL does not want it */
mw_redis_seal_t *mw_redis_seal_make(const char *secret, apr_pool_t *pool);

/** Bytes of a mark: 4 without a seal, else MW_REDIS_MARK_MAX. */
apr_size_t mw_redis_mark_len(const mw_redis_seal_t *seal);

/** A mark being made. One thread; ends with mw_redis_mark_end(). */
typedef struct mw_redis_mark_t {
    const mw_redis_seal_t *seal;
    apr_uint32_t crc;
    void *context;
    int is_bad;
} mw_redis_mark_t;

/** @param seal NULL: a checksum */
void mw_redis_mark_begin(mw_redis_mark_t *mark, const mw_redis_seal_t *seal);

void mw_redis_mark_add(mw_redis_mark_t *mark, const void *data, apr_size_t len);

/** @param bytes gets mw_redis_mark_len() of them */
apr_status_t mw_redis_mark_end(mw_redis_mark_t *mark,
                               unsigned char bytes[MW_REDIS_MARK_MAX]);

/** Whether two marks are the same. Takes the same time wherever they differ. */
int mw_redis_mark_same(const void *one, const void *other, apr_size_t len);

#endif
