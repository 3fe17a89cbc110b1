/* SPDX-License-Identifier: Apache-2.0 */

#include "tiers.h"

apr_status_t mw_changes_make(mw_changes_t *changes)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; i < MW_PROCESSES && rv == APR_SUCCESS; i++) {
        rv = mw_lock_init(&changes->slots[i].alive);
    }
    return rv;
}

static int process_is_busy(void *baton, apr_uint32_t slot)
{
    const mw_changes_t *changes = baton;

    return __atomic_load_n(&changes->under_way[slot], __ATOMIC_SEQ_CST) != 0;
}

static int process_bury(void *baton, apr_uint32_t slot)
{
    mw_changes_t *changes = baton;
    int i;

    if (__atomic_exchange_n(&changes->under_way[slot], 0, __ATOMIC_SEQ_CST)) {
        for (i = 0; i < MW_TIERS_MAX; i++) {
            __atomic_fetch_add(&changes->doubts[i], 1, __ATOMIC_SEQ_CST);
        }
    }
    return 1;
}

static mw_slots_t processes(mw_tiers_t *tiers)
{
    mw_changes_t *changes = tiers->changes;

    return (mw_slots_t){ .slots = changes->slots,
                         .count = MW_PROCESSES,
                         .used = &changes->used,
                         .owner = &tiers->owner,
                         .is_busy = process_is_busy,
                         .bury = process_bury,
                         .baton = changes };
}

apr_status_t mw_changes_child_init(mw_tiers_t *tiers, apr_pool_t *pchild)
{
    const mw_slots_t slots = processes(tiers);

    return mw_slots_take(&slots, pchild);
}

void mw_changes_doubts(mw_tiers_t *tiers, apr_uint32_t doubts[MW_TIERS_MAX])
{
    const mw_slots_t slots = processes(tiers);
    int i;

    mw_slots_bury(&slots);
    for (i = 0; i < MW_TIERS_MAX; i++) {
        doubts[i] =
            __atomic_load_n(&tiers->changes->doubts[i], __ATOMIC_SEQ_CST);
    }
}

apr_uint32_t mw_change_begin(mw_tiers_t *tiers)
{
    const apr_uint32_t owner = __atomic_load_n(&tiers->owner, __ATOMIC_RELAXED);

    if (owner) {
        __atomic_fetch_add(&tiers->changes->under_way[owner - 1], 1,
                           __ATOMIC_SEQ_CST);
    }
    return owner;
}

void mw_change_end(mw_tiers_t *tiers, apr_uint32_t owner)
{
    if (owner) {
        __atomic_fetch_sub(&tiers->changes->under_way[owner - 1], 1,
                           __ATOMIC_SEQ_CST);
    }
}

apr_status_t mw_change_check(mw_tiers_t *tiers, int at, apr_status_t rv)
{
    if (rv != APR_SUCCESS && rv != APR_NOTFOUND && at < tiers->n - 1
        && !mw_tier_is_shared(tiers, at)) {
        __atomic_fetch_add(&tiers->changes->doubts[at], 1, __ATOMIC_SEQ_CST);
    }
    return rv;
}
