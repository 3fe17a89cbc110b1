/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file amend.h
 * @brief The slots of the file store that change what is there.
 */
#ifndef MW_FILE_AMEND_H
#define MW_FILE_AMEND_H

#include "mod_cachemw.h"

apr_status_t mw_file_remove(void *store, const cachemw_call_t *call,
                            const cachemw_key_t *key, const cachemw_id_t *id);

apr_status_t mw_file_set_head(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              const cachemw_entry_t *entry);

#endif
