/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file keep.h
 * @brief The slots for housekeeping and inspection: see mod_cachemw.h.
 */
#ifndef MW_SQLITE_KEEP_H
#define MW_SQLITE_KEEP_H

#include "sqlite.h"

apr_status_t mw_sql_keys(void *self, const cachemw_call_t *call,
                         const char *pattern, cachemw_keys_fn *each,
                         void *baton);
apr_status_t mw_sql_sweep(void *self, const cachemw_call_t *call, int *more);
apr_status_t mw_sql_stats(void *self, const cachemw_call_t *call,
                          cachemw_stats_t *stats);

#endif
