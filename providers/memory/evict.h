/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file evict.h
 * @brief S3-FIFO: what goes when room is needed.
 *
 * New entries queue in the small queue; those used twice there move on to the
 * main queue, the others leave a fingerprint behind. Who comes back while it
 * is remembered goes to the main queue at once; who was used in the main queue
 * goes round once more. A hit only counts to three in the entry itself.
 *
 * Each shard has queues of its own; room is made by those in turn that have
 * their share or more, and whether a small or a main queue gives is decided by
 * the sums.
 */
#ifndef MW_MEMORY_EVICT_H
#define MW_MEMORY_EVICT_H

#include "layout.h"

/**
 * Make sure that units are free. Takes and releases locks.
 * @return 0: it cannot be done now
 */
int mw_evict_units(mw_mem_t *mem, apr_time_t now, apr_uint64_t units);

/**
 * Get below max_entries by so many entries. Takes and releases locks.
 * @return 0: it cannot be done now, or not at once: the cap was lowered, and
 *         there are many more
 */
int mw_evict_entries(mw_mem_t *mem, apr_time_t now, apr_uint32_t below);

/** Whether an entry was evicted lately; forgets it. Locked. */
int mw_evict_was_here(mw_mem_t *mem, apr_uint64_t hash);

#endif
