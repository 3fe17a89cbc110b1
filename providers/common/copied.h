/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file copied.h
 * @brief A bucket with bytes of its own: what a heap bucket is, in one
 *        allocation less, and filled after it was made.
 */
#ifndef MW_COMMON_COPIED_H
#define MW_COMMON_COPIED_H

#include "mod_cachemw.h"

/**
 * Append a bucket to a brigade.
 * @return its `length` bytes, at least 1, for the caller to fill; NULL: no
 *         memory
 */
char *mw_copied_append(apr_bucket_brigade *body, apr_size_t length);

#endif
