/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file waiters.h
 * @brief How many requests of a server wait for another one's fetch, so that
 *        they never take all its threads.
 *
 * In a segment that all children share, old ones during a graceful restart
 * included. Each child has a slot of its own, which the parent frees when the
 * child is dead, whatever it died of: nothing is ever counted for good.
 */
#ifndef MW_WAITERS_H
#define MW_WAITERS_H

#include <sys/types.h>

#include "apr.h"

typedef struct mw_waiters_t mw_waiters_t;

#define MW_WAITERS_LAYOUT 2
#define MW_WAITERS_ID 16 /**< hexadecimal digits */

apr_size_t mw_waiters_size(void);

/** Fill in a new, zero-filled segment. Parent only. */
void mw_waiters_init(mw_waiters_t *waiters);

/** Drawn once for each segment: text of MW_WAITERS_ID characters. */
const char *mw_waiters_id(const mw_waiters_t *waiters);

/** A child's slot; -1: none is free. `generation` tells it from those that a
 *  graceful restart replaces. */
int mw_waiters_open(mw_waiters_t *waiters, pid_t pid, int generation);

/** Parent: the process is dead. */
void mw_waiters_close(mw_waiters_t *waiters, pid_t pid);

/**
 * Begin to wait, unless as many do already. A process has a share, and may take
 * as much again of what the others leave of theirs: connections are never
 * spread evenly. Those of an older generation leave none.
 * @param slot of this process; negative: refused
 * @param own share of each process; @param all most that may wait in all
 * @return non-zero: allowed, and mw_waiters_leave() must follow
 */
int mw_waiters_enter(mw_waiters_t *waiters, int slot, apr_uint32_t own,
                     apr_uint32_t all);
void mw_waiters_leave(mw_waiters_t *waiters, int slot);

/** How many wait now. */
apr_uint32_t mw_waiters_sum(const mw_waiters_t *waiters);

#endif
