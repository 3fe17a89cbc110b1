/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <unistd.h>

#include "pin.h"
#include "slots.h"

/** Claims looked at for a free one: the caller may hold a lock. */
#define CLAIM_TRIES 64

/** What the clean-up of a child knows. */
typedef struct tenancy_t {
    mw_mem_t *mem;
    apr_uint32_t slot;
    pid_t pid;
} tenancy_t;

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

static int slot_has_claims(const mw_mem_t *mem, apr_uint32_t slot)
{
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

/**
 * The mutex was passed on by a child that has died. A set of its may be linked
 * by now, so its units are left to the collection.
 */
static void slot_reclaim(mw_mem_t *mem, apr_uint32_t slot)
{
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
    MW_MEM_STORE(&mem->slots[slot].taken, 0);
    pthread_mutex_consistent(&mem->slots[slot].alive);
}

void mw_slots_reclaim(mw_mem_t *mem)
{
    apr_uint32_t used =
        __atomic_load_n(&mem->header->slots_used, __ATOMIC_ACQUIRE);
    apr_uint32_t i;

    for (i = 0; i < used; i++) {
        int rv;

        if (!MW_MEM_LOAD(&mem->slots[i].taken)) {
            continue;
        }
        rv = pthread_mutex_trylock(&mem->slots[i].alive);
        if (rv == EOWNERDEAD) {
            slot_reclaim(mem, i);
        }
        if (rv == 0 || rv == EOWNERDEAD) {
            pthread_mutex_unlock(&mem->slots[i].alive);
        }
    }
    orphans_end(mem);
}

/**
 * While something is still being sent or stored, perhaps by a thread that runs
 * until the process ends, the mutex stays locked: the end of the process passes
 * it on.
 */
static apr_status_t slot_leave(void *data)
{
    tenancy_t *tenancy = data;
    mw_mem_t *mem = tenancy->mem;
    mw_mem_slot_t *slot = &mem->slots[tenancy->slot];

    if (tenancy->pid != getpid()) {
        return APR_SUCCESS;
    }
    if (MW_MEM_LOAD(&mem->owner) == tenancy->slot + 1) {
        MW_MEM_STORE(&mem->owner, 0);
    }
    if (!slot_has_claims(mem, tenancy->slot)) {
        MW_MEM_STORE(&slot->taken, 0);
        if (pthread_mutex_unlock(&slot->alive) != 0) {
            MW_MEM_STORE(&slot->taken, 1);
        }
    }
    return APR_SUCCESS;
}

static void slots_used_raise(mw_mem_t *mem, apr_uint32_t to)
{
    apr_uint32_t used = MW_MEM_LOAD(&mem->header->slots_used);

    while (used < to
           && !__atomic_compare_exchange_n(&mem->header->slots_used, &used, to,
                                           0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_RELAXED)) {
    }
}

apr_status_t mw_slot_take(mw_mem_t *mem, apr_pool_t *pchild)
{
    tenancy_t *tenancy = apr_palloc(pchild, sizeof(*tenancy));
    apr_uint32_t i;
    int rv = EBUSY;

    for (i = 0; i < mem->geometry.slots; i++) {
        rv = pthread_mutex_trylock(&mem->slots[i].alive);
        if (rv == EOWNERDEAD) {
            slot_reclaim(mem, i);
            rv = 0;
        }
        if (rv == 0) {
            break;
        }
    }
    if (rv) {
        MW_MEM_STORE(&mem->owner, 0);
        return rv == EBUSY ? APR_SUCCESS : rv;
    }
    slots_used_raise(mem, i + 1);
    MW_MEM_STORE(&mem->slots[i].taken, 1);
    MW_MEM_STORE(&mem->owner, i + 1);
    tenancy->mem = mem;
    tenancy->slot = i;
    tenancy->pid = getpid();
    apr_pool_cleanup_register(pchild, tenancy, slot_leave,
                              apr_pool_cleanup_null);
    return APR_SUCCESS;
}
