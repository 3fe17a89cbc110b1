/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file collect.h
 * @brief Finds units that nobody refers to, which only a death can leave.
 *
 * A collection runs in small steps in whichever processes sweep, beside
 * normal work. What is taken while it runs is marked at once; what was taken
 * before is reached from the sets, the hash chains or the pins, looked at in
 * that order because an entry moves through them in that order.
 */
#ifndef MW_MEMORY_COLLECT_H
#define MW_MEMORY_COLLECT_H

#include "layout.h"

/** One bounded step. @return 0: there is nothing to do (for this process) */
int mw_collect_step(mw_mem_t *mem);

#endif
