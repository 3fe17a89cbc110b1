/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file blocks.h
 * @brief The units of the segment: taken and given back in runs.
 *
 * One pool for all shards, cut into areas with a lock each only so that
 * stores do not wait for each other. Small requests fill each area from below,
 * large ones from above, so that large bodies lie in few pieces. Each area knows
 * about how long its longest gap is, so that only areas that may have one are
 * searched for a large one.
 */
#ifndef MW_MEMORY_BLOCKS_H
#define MW_MEMORY_BLOCKS_H

#include "layout.h"

/** A chain of runs that is being made by one thread. */
typedef struct mw_chain_t {
    mw_mem_claim_t *claim; /**< its root in the segment */
    apr_uint32_t area;     /**< where to look first */
    apr_uint32_t first;    /**< 0: nothing taken yet */
    apr_uint32_t last;
    apr_uint32_t units;
} mw_chain_t;

/** All units free; only when nobody else uses the segment. */
void mw_blocks_format(mw_mem_t *mem);

/**
 * Take one run and append it to a chain.
 * @param least,want units; the run has `least` to `want` of them
 * @return units taken; 0: there is no such run
 */
apr_uint32_t mw_blocks_take(mw_mem_t *mem, mw_chain_t *chain,
                            apr_uint32_t least, apr_uint32_t want);

/**
 * The same for a run of `want` units (MW_MEM_RUN_MAX, if that is more). A large
 * one is found if there is one; a small one is looked for in some places only.
 * @return units taken; 0: none was found
 */
apr_uint32_t mw_blocks_take_whole(mw_mem_t *mem, mw_chain_t *chain,
                                  apr_uint32_t want);

/**
 * Give back a chain of runs, from `first` to its end. Those whose lock cannot
 * be had are left to a collection.
 */
void mw_blocks_give(mw_mem_t *mem, apr_uint32_t first);

/**
 * Keep the first `keep` units (at least 1) of a run, give back the others; all
 * are kept if the lock cannot be had.
 */
void mw_blocks_trim(mw_mem_t *mem, apr_uint32_t run, apr_uint32_t keep);

/** Units of a chain of runs. */
apr_uint32_t mw_blocks_count(const mw_mem_t *mem, apr_uint32_t first);

/** Whether some area's lock cannot be had: what is given back may be left. */
int mw_blocks_are_stuck(mw_mem_t *mem);

/** Units that are free now. */
apr_uint64_t mw_blocks_free(const mw_mem_t *mem);

/** Units that can be free. */
apr_uint64_t mw_blocks_total(const mw_mem_t *mem);

/** @name For the collection (collect.h) only @{ */
/**
 * Forget an area's marks; from now on what is taken there is marked.
 * @return 0: its lock cannot be had
 */
int mw_blocks_collect_begin(mw_mem_t *mem, apr_uint32_t area);
/** Mark a chain of runs. Stops at whatever cannot be one. */
void mw_blocks_mark(mw_mem_t *mem, apr_uint32_t first);
/**
 * Free what is taken in an area and not marked, and count it.
 * @return 0: its lock cannot be had
 */
int mw_blocks_collect_end(mw_mem_t *mem, apr_uint32_t area);
/** @} */

/** For tests: lock an area as a process that is about to die would. */
void mw_blocks_lock_area(mw_mem_t *mem, apr_uint32_t area);

#endif
