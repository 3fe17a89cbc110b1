/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file sweeper.h
 * @brief Housekeeping without traffic: one process per server that sweeps the
 *        stores.
 *
 * It runs as httpd's user, goes through child_init like a child, serves nothing
 * and is not in the scoreboard. Each store is swept once per cleanup_interval,
 * and synced every 30 s or as often as its provider wants. It ends within a second when its configuration or its
 * parent does, whatever a provider is doing: a sweep that is stuck is cut off
 * anywhere. (Where the kernel does not tell of a parent's death, that is seen
 * after the sweep.) One that ends by itself is followed by another, at once at
 * first, later after pauses that double; not in a server of one process (-X).
 *
 * All here is called in the parent, on its only thread.
 */
#ifndef MW_SWEEPER_H
#define MW_SWEEPER_H

#include "stores.h"

typedef struct mw_sweeper_t mw_sweeper_t;

/**
 * post_config, when the stores are made. The process ends when pconf is
 * cleared; that waits for it, for two seconds at most.
 * @return NULL: no store is to be swept or synced
 */
mw_sweeper_t *mw_sweeper_make(mw_stores_t *stores, apr_pool_t *pconf);

/**
 * Begin the process, unless there is one or it is not yet time for the next.
 * After mw_sweeper_make(), and then every now and then. A fork that fails is
 * logged and tried again.
 * @param sweeper may be NULL
 */
void mw_sweeper_tend(mw_sweeper_t *sweeper);

#endif
