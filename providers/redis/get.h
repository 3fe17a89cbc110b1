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
 * The name of a key of which the last get with this pool, which is a request's,
 * found nothing at all; NULL: of another key, or something was there. It says
 * so once: what is stored then is there.
 */
const mw_redis_bytes_t *mw_redis_absent(const mw_redis_t *store,
                                        const cachemw_key_t *key,
                                        apr_pool_t *pool);

#endif
