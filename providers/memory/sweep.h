/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file sweep.h
 * @brief Housekeeping: expired entries, what dead children left, all entries.
 */
#ifndef MW_MEMORY_SWEEP_H
#define MW_MEMORY_SWEEP_H

#include "layout.h"

/** As the slots of the provider. */
apr_status_t mw_mem_sweep(void *store, const cachemw_call_t *call, int *more);
apr_status_t mw_mem_clear(void *store, const cachemw_call_t *call);
apr_status_t mw_mem_keys(void *store, const cachemw_call_t *call,
                         const char *pattern, cachemw_keys_fn *each,
                         void *baton);

/** A small step of housekeeping, at most one a second for all children. */
void mw_mem_tick(mw_mem_t *mem, apr_time_t now);

#endif
