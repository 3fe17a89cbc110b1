/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file read.h
 * @brief Finding entries. The functions are slots of the provider.
 */
#ifndef MW_MEMORY_READ_H
#define MW_MEMORY_READ_H

#include "layout.h"

apr_status_t mw_mem_get(void *store, const cachemw_call_t *call,
                        const cachemw_key_t *key, cachemw_entry_t *entry);
apr_status_t mw_mem_exists(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key);

#endif
