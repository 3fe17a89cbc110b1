/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file set.h
 * @brief The slots that store, amend and remove: see mod_cachemw.h.
 *
 * A body is collected in memory. Up to MW_SQL_CHUNK bytes it goes into the row
 * of its entry, in the one transaction that publishes it. A longer one goes
 * into chunks, MW_SQL_COLLECT of them in a transaction; they belong to no
 * entry before the last of these publishes it. What a process leaves that
 * dies meanwhile is dropped by a sweep, or when room is needed.
 */
#ifndef MW_SQLITE_SET_H
#define MW_SQLITE_SET_H

#include "sqlite.h"

/** The longest body that the store takes: a quarter of its bytes. */
apr_off_t mw_sql_set_limit(const mw_sql_t *store);

apr_status_t mw_sql_set_begin(void *self, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry, void **set);
apr_status_t mw_sql_set_write(void *self, const cachemw_call_t *call, void *set,
                              const char *data, apr_size_t length);
apr_status_t mw_sql_set_commit(void *self, const cachemw_call_t *call,
                               void *set);
void mw_sql_set_abort(void *self, void *set);
apr_status_t mw_sql_set_head(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry);
apr_status_t mw_sql_remove(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id);
apr_status_t mw_sql_clear(void *self, const cachemw_call_t *call);

#endif
