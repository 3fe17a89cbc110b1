/* SPDX-License-Identifier: Apache-2.0 */

#include "pin.h"
#include "slots.h"

/** Claims looked at for a free one: the caller may hold a lock. */
#define CLAIM_TRIES 64

mw_mem_claim_t *mw_claim_take(mw_mem_t *mem, mw_mem_claim_t *claims,
                              apr_uint32_t count)
{
    apr_uint32_t owner = MW_MEM_LOAD(&mem->owner);
    apr_uint32_t at = MW_MEM_ADD(&mem->turn, 1) + owner * 64;
    apr_uint32_t tries;

    if (!owner) {
        return NULL;
    }
    for (tries = 0; tries < CLAIM_TRIES && tries < count; tries++, at++) {
        mw_mem_claim_t *claim = &claims[at % count];
        apr_uint32_t nobody = 0;

        if (!MW_MEM_LOAD(&claim->owner)
            && __atomic_compare_exchange_n(&claim->owner, &nobody, owner, 0,
                                           __ATOMIC_ACQ_REL,
                                           __ATOMIC_RELAXED)) {
            return claim;
        }
    }
    return NULL;
}

void mw_claim_turn(mw_mem_claim_t *claim)
{
    __atomic_add_fetch(&claim->turn, 1, __ATOMIC_SEQ_CST);
}

/** The owner may have died while the turn was odd. */
void mw_claim_end(mw_mem_claim_t *claim)
{
    __atomic_store_n(&claim->first, 0, __ATOMIC_RELEASE);
    if (MW_MEM_LOAD(&claim->turn) & 1) {
        mw_claim_turn(claim);
    }
    __atomic_store_n(&claim->owner, 0, __ATOMIC_RELEASE);
}

void mw_claim_orphan(mw_mem_t *mem, mw_mem_claim_t *claim)
{
    __atomic_store_n(&claim->owner, MW_MEM_ORPHAN, __ATOMIC_RELEASE);
    __atomic_store_n(&mem->header->orphans, 1, __ATOMIC_RELEASE);
}

/** Taken over first, so that nobody else ends them, too. */
static void orphans_end(mw_mem_t *mem)
{
    apr_uint32_t owner = MW_MEM_LOAD(&mem->owner);
    apr_uint32_t i;

    if (!owner || !MW_MEM_LOAD(&mem->header->orphans)
        || !__atomic_exchange_n(&mem->header->orphans, 0, __ATOMIC_ACQ_REL)) {
        return;
    }
    for (i = 0; i < mem->geometry.pins; i++) {
        apr_uint32_t nobody = MW_MEM_ORPHAN;

        if (MW_MEM_LOAD(&mem->pins[i].owner) == nobody
            && __atomic_compare_exchange_n(&mem->pins[i].owner, &nobody, owner,
                                           0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_RELAXED)) {
            mw_pin_release(mem, &mem->pins[i]);
        }
    }
}

static int slot_has_claims(void *baton, apr_uint32_t slot)
{
    const mw_mem_t *mem = baton;
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.sets; i++) {
        if (MW_MEM_LOAD(&mem->sets[i].owner) == slot + 1) {
            return 1;
        }
    }
    for (i = 0; i < mem->geometry.pins; i++) {
        if (MW_MEM_LOAD(&mem->pins[i].owner) == slot + 1) {
            return 1;
        }
    }
    return 0;
}

/** A set of its may be linked by now, so its units are left to the collection. */
static int slot_bury(void *baton, apr_uint32_t slot)
{
    mw_mem_t *mem = baton;
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.sets; i++) {
        if (MW_MEM_LOAD(&mem->sets[i].owner) == slot + 1) {
            mw_claim_end(&mem->sets[i]);
        }
    }
    for (i = 0; i < mem->geometry.pins; i++) {
        if (MW_MEM_LOAD(&mem->pins[i].owner) == slot + 1) {
            mw_pin_release(mem, &mem->pins[i]);
        }
    }
    /* It may have died between a claim and this. */
    MW_MEM_STORE(&mem->header->orphans, 1);
    MW_MEM_ADD(&mem->header->deaths, 1);
    mw_mem_want_collection(mem);
    return 1;
}

static mw_slots_t slots_of(mw_mem_t *mem)
{
    mw_slots_t slots = { .slots = mem->slots,
                         .count = mem->geometry.slots,
                         .used = &mem->header->slots_used,
                         .owner = &mem->owner,
                         .is_busy = slot_has_claims,
                         .bury = slot_bury,
                         .baton = mem };

    return slots;
}

void mw_slots_reclaim(mw_mem_t *mem)
{
    mw_slots_t slots = slots_of(mem);

    mw_slots_bury(&slots);
    orphans_end(mem);
}

apr_status_t mw_slot_take(mw_mem_t *mem, apr_pool_t *pchild)
{
    mw_slots_t slots = slots_of(mem);

    return mw_slots_take(&slots, pchild);
}
