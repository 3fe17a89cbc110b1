/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file slots.h
 * @brief What each child has under way.
 *
 * What a child stores and what it sends is noted in claims with its slot
 * (providers/common/slots.h), so that others can end them when it has died.
 */
#ifndef MW_MEMORY_SLOTS_H
#define MW_MEMORY_SLOTS_H

#include "layout.h"

/**
 * Take a slot for this process until `pchild` is cleared or the process ends.
 * The calling thread must live as long. Without a free slot mem->owner stays
 * 0: then nothing is stored, and large bodies are copied.
 */
apr_status_t mw_slot_take(mw_mem_t *mem, apr_pool_t *pchild);

/** End what dead children had under way, and the pins of MW_MEM_ORPHAN. */
void mw_slots_reclaim(mw_mem_t *mem);

/**
 * Take a free claim of mem->sets or mem->pins.
 * @return NULL: as good as all are in use, or this process has no slot
 */
mw_mem_claim_t *mw_claim_take(mw_mem_t *mem, mw_mem_claim_t *claims,
                              apr_uint32_t count);

/**
 * Before and after runs of a claim are given back. A collection that walked
 * them meanwhile walks again.
 */
void mw_claim_turn(mw_mem_claim_t *claim);

/** Leave a pin to whoever sweeps. */
void mw_claim_orphan(mw_mem_t *mem, mw_mem_claim_t *claim);

/** Its root is gone first, then it is free. */
void mw_claim_end(mw_mem_claim_t *claim);

#endif
