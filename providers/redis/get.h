/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file get.h
 * @brief The slots that read: see mod_cachemw.h.
 */
#ifndef MW_REDIS_GET_H
#define MW_REDIS_GET_H

#include "layout.h"

apr_status_t mw_redis_get(void *self, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry);
apr_status_t mw_redis_read(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body);
apr_status_t mw_redis_exists(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key);

/**
 * Whether the last get with this pool, which is a request's, was for this name,
 * and nothing at all is there. It says so once: what is stored then is there.
 */
int mw_redis_was_absent(const mw_redis_t *store, const mw_redis_bytes_t *name,
                        apr_pool_t *pool);

#endif
