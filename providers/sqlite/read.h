/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file read.h
 * @brief The slots that read: see mod_cachemw.h. None of them waits for those
 *        that write, nor leaves a statement open.
 */
#ifndef MW_SQLITE_READ_H
#define MW_SQLITE_READ_H

#include "sqlite.h"

apr_status_t mw_sql_get(void *self, const cachemw_call_t *call,
                        const cachemw_key_t *key, cachemw_entry_t *entry);
apr_status_t mw_sql_read(void *self, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_id_t *id,
                         apr_off_t offset, apr_size_t limit,
                         apr_bucket_brigade *body);
apr_status_t mw_sql_exists(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key);

#endif
