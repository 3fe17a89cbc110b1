/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file stores_private.h
 * @brief Shared by stores.c (definitions) and stores_life.c (what becomes of
 *        them).
 */
#ifndef MW_STORES_PRIVATE_H
#define MW_STORES_PRIVATE_H

#include "apr_hash.h"

#include "stores.h"

struct mw_stores_t {
    apr_pool_t *pconf;
    mw_definition_t *definitions; /**< in order of definition */
    mw_definition_t **tail;
    mw_definition_t *fallback;   /**< the default store */
    apr_hash_t *names;           /**< name -> definition */
    apr_array_header_t *opened;  /**< definitions, inner ones of tiers first */
    apr_array_header_t *opening; /**< definitions, the outermost first */
    mw_host_t host;
    pid_t parent;
};

/** The names of the defined stores, for a message. */
const char *mw_stores_list_names(const mw_stores_t *stores);

#endif
