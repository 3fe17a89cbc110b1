/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file spill.h
 * @brief A large body in a temporary file, when it cannot be sent from the
 *        segment: a bucket that takes the file with it.
 */
#ifndef MW_MEMORY_SPILL_H
#define MW_MEMORY_SPILL_H

#include "layout.h"

typedef struct mw_spill_t mw_spill_t;

/**
 * Make the file, in a pool of its own.
 * @param size bytes that will be written
 * @return APR_NOTFOUND: this process has as much in files as it may have,
 *         which is a quarter of the segment's size, but 16 to 64 MB
 */
apr_status_t mw_spill_make(mw_mem_t *mem, apr_uint64_t size,
                           mw_spill_t **spill);

apr_status_t mw_spill_write(mw_spill_t *spill, const char *data,
                            apr_size_t length);

/** Append the file as a bucket, which owns the spill. */
void mw_spill_append(mw_spill_t *spill, apr_bucket_brigade *body);

/** Drop a spill that was not appended. */
void mw_spill_drop(mw_spill_t *spill);

#endif
