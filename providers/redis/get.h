/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file get.h
 * @brief The slots that read: see mod_cachemw.h.
 */
#ifndef MW_REDIS_GET_H
#define MW_REDIS_GET_H

#include "redis.h"

apr_status_t mw_redis_get(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry);
apr_status_t mw_redis_read(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body);
apr_status_t mw_redis_exists(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key);

#endif
