/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file sha256.h
 * @brief SHA-256 (FIPS 180-4), which APR does not have: for short texts such as
 *        keys and tokens, where a cryptographic library is not worth its link.
 */
#ifndef MW_COMMON_SHA256_H
#define MW_COMMON_SHA256_H

#include "apr.h"

#define MW_SHA256_LEN 32

/** The digest of some bytes. Any thread. */
void mw_sha256(const void *data, apr_size_t length,
               unsigned char digest[MW_SHA256_LEN]);

#endif
