/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file entries.h
 * @brief The slots: get, exists, set, set_head, remove.
 *
 * A service can only take and give whole values, so bodies are in one piece of
 * memory while they are sent and received. A change that depends on what is
 * there (set_head; remove of an id) is a GET and then a PUT or DELETE, under
 * If-Match where the service gives an ETag; without one, what another server
 * stores between the two is lost.
 */
#ifndef MW_HTTP_ENTRIES_H
#define MW_HTTP_ENTRIES_H

#include "http.h"

apr_status_t mw_http_get(void *self, const cachemw_call_t *call,
                         const cachemw_key_t *key, cachemw_entry_t *entry);

apr_status_t mw_http_exists(void *self, const cachemw_call_t *call,
                            const cachemw_key_t *key);

apr_status_t mw_http_set(void *self, const cachemw_call_t *call,
                         const cachemw_key_t *key,
                         const cachemw_entry_t *entry);

apr_status_t mw_http_set_head(void *self, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              const cachemw_entry_t *entry);

apr_status_t mw_http_remove(void *self, const cachemw_call_t *call,
                            const cachemw_key_t *key, const cachemw_id_t *id);

#endif
