/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file read.h
 * @brief The slots of the file store that find and show entries.
 */
#ifndef MW_FILE_READ_H
#define MW_FILE_READ_H

#include "mod_cachemw.h"

/**
 * Small bodies come as memory, larger ones as a bucket of an open file in
 * call->pool.
 */
apr_status_t mw_file_get(void *store, const cachemw_call_t *call,
                         const cachemw_key_t *key, cachemw_entry_t *entry);

apr_status_t mw_file_exists(void *store, const cachemw_call_t *call,
                            const cachemw_key_t *key);

apr_status_t mw_file_keys(void *store, const cachemw_call_t *call,
                          const char *pattern, cachemw_keys_fn *each,
                          void *baton);

#endif
