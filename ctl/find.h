/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file find.h
 * @brief Entries in a depot: finding those of a URL, reading one to its end.
 */
#ifndef MW_FIND_H
#define MW_FIND_H

#include "depot.h"
#include "page.h"

/** Called for pieces of a body. @return anything but APR_SUCCESS ends it */
typedef apr_status_t mw_piece_fn(void *baton, const char *data,
                                 apr_size_t length);

/**
 * The keys of a URL's entries in a store: of the virtual host that was asked
 * for; else of the one that has the URL's name; else of all that have the URL.
 * Variants are left out where a record lists them.
 * @param keys of cachemw_key_t, in pool
 * @return APR_SUCCESS, also when there are none; APR_ENOTIMPL: the store cannot
 *         list what it has; trouble
 */
apr_status_t mw_find(const mw_depot_t *depot, mw_store_t *store,
                     const char *url, apr_pool_t *pool,
                     apr_array_header_t **keys);

/** The head of an entry. @param entry set; its head is in pool */
apr_status_t mw_find_head(const mw_depot_t *depot, mw_store_t *store,
                          const cachemw_key_t *key, cachemw_entry_t *entry,
                          apr_pool_t *pool);

/**
 * An entry with its whole body, a piece at a time.
 * @param begin called when the head is there, before the first piece; may be
 *        NULL
 * @return what `begin` or `each` returned; APR_NOTFOUND: it is not there, or was
 *         replaced meanwhile
 */
apr_status_t mw_find_body(const mw_depot_t *depot, mw_store_t *store,
                          const cachemw_key_t *key, cachemw_entry_t *entry,
                          apr_status_t (*begin)(void *baton,
                                                const cachemw_entry_t *entry),
                          mw_piece_fn *each, void *baton, apr_pool_t *pool);

#endif
