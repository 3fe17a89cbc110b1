/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file ghosts.h
 * @brief What stores with S3-FIFO share: fingerprints of what was evicted
 *        young, and its numbers.
 *
 * A table belongs to a shard and is guarded by its lock. Its clock counts the
 * fingerprints that were ever left in it.
 */
#ifndef MW_GHOSTS_H
#define MW_GHOSTS_H

#include "apr.h"

/** An entry used this often in the small queue has proven itself. */
#define MW_S3_PROVEN 2

/** The small queue gives room unless the main one has so many times as much. */
#define MW_S3_MAIN_SHARE 9

typedef struct mw_ghosts_t {
    apr_uint32_t *table; /**< zeroed at first */
    apr_uint32_t mask;   /**< entries - 1; a power of two, at least 4 */
} mw_ghosts_t;

/** @param hash both halves count, the bits of `mask` and those from 44 on */
void mw_ghost_add(mw_ghosts_t ghosts, apr_uint32_t *clock, apr_uint64_t hash);

/**
 * Whether it was among the last so many that were left; forgets it.
 * @param memory so many
 */
int mw_ghost_take(mw_ghosts_t ghosts, apr_uint32_t clock, apr_uint64_t hash,
                  apr_uint32_t memory);

#endif
