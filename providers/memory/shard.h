/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file shard.h
 * @brief The index: hash chains and S3-FIFO queues, a part of them behind each
 *        of a number of locks.
 *
 * Where a function says "locked", the caller holds the lock of the shard.
 */
#ifndef MW_MEMORY_SHARD_H
#define MW_MEMORY_SHARD_H

#include "blocks.h"
#include "layout.h"

/**
 * Lock a shard; empties it first when its last holder died in there.
 * @return 0: the lock cannot be had now (lock.h)
 */
int mw_shard_lock(mw_mem_t *mem, apr_uint32_t shard);
void mw_shard_unlock(mw_mem_t *mem, apr_uint32_t shard);

/** Find an entry, expired or not. Locked. @return 0: there is none */
apr_uint32_t mw_shard_find(const mw_mem_t *mem, apr_uint64_t hash,
                           const cachemw_key_t *key);

/**
 * Link an entry whose record is filled in. Locked; the key has none.
 * @return 0: there are max_entries already
 */
int mw_shard_link(mw_mem_t *mem, apr_uint32_t unit);

/**
 * Unlink an entry. Its units are free, or will be when its last pin goes.
 * Locked.
 * @return units that are free now
 */
apr_uint32_t mw_shard_drop(mw_mem_t *mem, apr_uint32_t unit);

/** Give back the units of an entry that is not linked. Locked. */
void mw_shard_give(mw_mem_t *mem, apr_uint32_t unit);

/** Add to a figure of a tally. Locked. */
#define MW_TALLY_ADD(field, n) MW_MEM_STORE((field), *(field) + (n))

/** Make an entry the newest of a queue. Locked. */
void mw_shard_requeue(mw_mem_t *mem, apr_uint32_t unit, int queue);

/**
 * Give an entry another head. Locked.
 * @param head the chain that holds it; NULL: it was, or will be, written over
 *        the present one
 */
void mw_shard_amend(mw_mem_t *mem, apr_uint32_t unit, apr_time_t expires,
                    apr_uint32_t head_len, const mw_chain_t *head);

/** The figures of all shards together, each read at its own time. */
void mw_shard_sum(const mw_mem_t *mem, mw_mem_tally_t *sum);
/** Entries over all shards. */
apr_uint64_t mw_shard_entries(const mw_mem_t *mem);

#endif
