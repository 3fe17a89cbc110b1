/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file keep.h
 * @brief The slots for housekeeping and inspection: see mod_cachemw.h.
 *
 * Entries are found by SCAN, in steps, on all servers.
 */
#ifndef MW_REDIS_KEEP_H
#define MW_REDIS_KEEP_H

#include "redis.h"

apr_status_t mw_redis_clear(void *self, const cachemw_call_t *call);
apr_status_t mw_redis_keys(void *self, const cachemw_call_t *call,
                           const char *pattern, cachemw_keys_fn *each,
                           void *baton);

/** Redis itself drops what has expired: only names are looked up. */
apr_status_t mw_redis_sweep(void *self, const cachemw_call_t *call, int *more);

#endif
