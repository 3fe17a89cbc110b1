/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file set.h
 * @brief Storing: entries in pieces, and heads amended. The functions are
 *        slots of the provider; see mod_cachemw.h.
 */
#ifndef MW_MEMORY_SET_H
#define MW_MEMORY_SET_H

#include "layout.h"

/** The largest body: a quarter of the space. */
apr_off_t mw_mem_set_limit(const mw_mem_t *mem);

apr_status_t mw_mem_set_begin(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry, void **set);
apr_status_t mw_mem_set_write(void *store, const cachemw_call_t *call,
                              void *set, const char *data, apr_size_t length);
apr_status_t mw_mem_set_commit(void *store, const cachemw_call_t *call,
                               void *set);
void mw_mem_set_abort(void *store, void *set);
apr_status_t mw_mem_set_head(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry);

#endif
