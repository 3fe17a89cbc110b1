/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file crc32c.h
 * @brief CRC-32C (Castagnoli), RFC 3720 appendix B.4.
 */
#ifndef MW_CRC32C_H
#define MW_CRC32C_H

#include "apr.h"

/**
 * Continue a checksum. Start with 0; the result is the standard CRC-32C of all
 * bytes so far ("123456789" gives 0xE3069283). Any thread.
 */
apr_uint32_t mw_crc32c(apr_uint32_t crc, const void *data, apr_size_t length);

/**
 * The same without the widest registers, which not all processors have; for
 * comparison by tests.
 */
apr_uint32_t mw_crc32c_narrow(apr_uint32_t crc, const void *data,
                              apr_size_t length);

/**
 * The same, by table on every machine; mw_crc32c() is this where the processor
 * has no instruction for it. For comparison by tests.
 */
apr_uint32_t mw_crc32c_portable(apr_uint32_t crc, const void *data,
                                apr_size_t length);

#endif
