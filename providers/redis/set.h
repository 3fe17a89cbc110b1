/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file set.h
 * @brief The slots that store, amend and remove: see mod_cachemw.h.
 */
#ifndef MW_REDIS_SET_H
#define MW_REDIS_SET_H

#include "redis.h"

/**
 * One write, for bodies up to some pieces; longer ones follow in further writes,
 * and nothing is published before the last of these.
 */
apr_status_t mw_redis_set(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key,
                          const cachemw_entry_t *entry);
apr_status_t mw_redis_set_head(void *self, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry);
apr_status_t mw_redis_remove(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id);

#endif
