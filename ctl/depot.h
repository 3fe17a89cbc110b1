/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file depot.h
 * @brief Stores that a server has left, or is using at this moment.
 *
 * A server next to it must not notice: nothing is made that it would find, no
 * limit of ours is applied to what it has stored, and whatever is opened is
 * opened as the user whose it is. A store of tiers is the stores that it is
 * made of: a look-up must not copy from one into another.
 */
#ifndef MW_DEPOT_H
#define MW_DEPOT_H

#include "ctl.h"

typedef struct mw_depot_t {
    mw_ctl_t *ctl;
    apr_array_header_t *definitions; /**< of mw_ctl_store_t: those opened */
    mw_world_t world;
    apr_pool_t *pchild;
    apr_bucket_alloc_t *alloc;
} mw_depot_t;

/**
 * Open the stores of a subject, and give up what root may do for the rest of
 * this process. What cannot be is said on stderr, and of what lives in memory
 * that it was left out.
 * @return the exit status; MW_CTL_OK: all are open
 */
int mw_depot_open(mw_ctl_t *ctl, int subject, mw_depot_t *depot);

/** Not needed before the process ends. */
void mw_depot_close(mw_depot_t *depot);

/** What a call carries. @param long_one it may take as long as it wants */
void mw_depot_call(const mw_depot_t *depot, mw_store_t *store, int long_one,
                   apr_pool_t *pool, cachemw_call_t *call);

/** Stores in the order of the definitions; NULL behind the last one. */
mw_store_t *mw_depot_store(const mw_depot_t *depot, int i);

/**
 * Why a subject is not to be tested: it has entries, or that cannot be told,
 * unless --force is given; or it is not root's, and this is. Another process
 * looks.
 * @return NULL: it may be; else a text that lives as long as ctl->pool
 */
const char *mw_depot_refuse(mw_ctl_t *ctl, int subject);

/** Say what came of a call, and which exit status that is. */
int mw_depot_failed(mw_store_t *store, const char *what, apr_status_t rv);

#endif
