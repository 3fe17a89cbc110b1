/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file spill.h
 * @brief A large body in a temporary file, when it cannot be sent from the
 *        segment: a bucket that takes the file with it.
 */
#ifndef MW_MEMORY_SPILL_H
#define MW_MEMORY_SPILL_H

#include "mod_cachemw.h"

typedef struct mw_spill_t mw_spill_t;

/** Make the file, in a pool of its own. */
apr_status_t mw_spill_make(const cachemw_services_t *services,
                           mw_spill_t **spill);

apr_status_t mw_spill_write(mw_spill_t *spill, const char *data,
                            apr_size_t length);

/** Append the file as a bucket, which owns the spill. */
void mw_spill_append(mw_spill_t *spill, apr_bucket_brigade *body);

/** Drop a spill that was not appended. */
void mw_spill_drop(mw_spill_t *spill);

#endif
