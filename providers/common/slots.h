/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file slots.h
 * @brief Who is alive.
 *
 * A process holds the robust mutex of a slot from child_init to its end; no
 * process id is compared, so none can be mistaken for another. What it has
 * under way in shared memory is noted with its slot, so that others can end it
 * when it has died.
 */
#ifndef MW_SLOTS_H
#define MW_SLOTS_H

#include <pthread.h>

#include "apr_pools.h"

typedef struct mw_slot_t {
    pthread_mutex_t alive;
    apr_uint32_t taken; /**< atomic: worth a look by who buries */
} __attribute__((aligned(64))) mw_slot_t;

/** A process's view of the slots of a structure. */
typedef struct mw_slots_t {
    mw_slot_t *slots; /**< zeroed, and mw_lock_init() called for each */
    apr_uint32_t count;
    apr_uint32_t *used;  /**< atomic, shared: none from here on was taken */
    apr_uint32_t *owner; /**< atomic, this process's: own slot + 1; 0: none */
    /** Whether a slot has anything under way. */
    int (*is_busy)(void *baton, apr_uint32_t slot);
    /** End what it has under way. @return 0: not all of it, ask again */
    int (*bury)(void *baton, apr_uint32_t slot);
    void *baton;
} mw_slots_t;

/**
 * Take a slot for this process until `pchild` is cleared or the process ends.
 * The calling thread must live as long; what `slots` points to, too. Without a
 * free slot *owner is 0.
 */
apr_status_t mw_slots_take(const mw_slots_t *slots, apr_pool_t *pchild);

/** End what the dead had under way. */
void mw_slots_bury(const mw_slots_t *slots);

#endif
