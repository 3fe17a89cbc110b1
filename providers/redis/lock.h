/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file lock.h
 * @brief Slots: lock and unlock. See mod_cachemw.h.
 */
#ifndef MW_REDIS_LOCK_H
#define MW_REDIS_LOCK_H

#include "redis.h"

apr_status_t mw_redis_lock(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token,
                           apr_interval_time_t ttl, cachemw_id_t *holder);

apr_status_t mw_redis_unlock(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_id_t *token);

#endif
