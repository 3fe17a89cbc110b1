/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file pin.h
 * @brief Bodies sent from the segment: who sends which entry, and the buckets.
 *
 * A pinned entry may be replaced, evicted or removed; its units stay until the
 * last pin goes, or the child that holds it has died.
 */
#ifndef MW_MEMORY_PIN_H
#define MW_MEMORY_PIN_H

#include "chain.h"
#include "layout.h"

/**
 * Pin a linked entry. The caller holds the lock of its shard.
 * @return NULL: too much is pinned, or this process has no slot
 */
mw_mem_claim_t *mw_pin_take(mw_mem_t *mem, apr_uint32_t entry);

/**
 * End a pin. Takes the lock of the shard; if it cannot be had, the sweep ends
 * the pin later. Any thread, any process.
 */
void mw_pin_release(mw_mem_t *mem, mw_mem_claim_t *claim);

/**
 * Append a pinned body to a brigade: a bucket for each long run, straight from
 * the segment; short runs are gathered in copies. The pin is the buckets' from
 * here on and goes with the last one; on failure it is gone.
 * @param place the start of the body
 */
apr_status_t mw_pin_buckets(mw_mem_t *mem, mw_mem_claim_t *claim,
                            mw_place_t place, apr_uint64_t length,
                            apr_bucket_brigade *body);

#endif
