/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file loader.h
 * @brief The providers that a program without httpd has: its own, and those of
 *        modules that were built for httpd.
 *
 * Stands in for the symbols of httpd that mod_cachemw.h allows a provider. The
 * program must export them (-export-dynamic). One thread.
 */
#ifndef MW_LOADER_H
#define MW_LOADER_H

#include "mod_cachemw.h"

/** A later one of the same name wins; name and table stay the caller's.
 *  @return APR_ENOSPC: there are too many */
apr_status_t mw_loader_add(const char *name, const cachemw_provider_t *table);

/** NULL when there is none. */
const cachemw_provider_t *mw_loader_find(const char *name);

/** The one to look with at what a provider's stores have; may be itself. */
const cachemw_provider_t *mw_loader_look(const cachemw_provider_t *table);

/** All names, separated by blanks. */
const char *mw_loader_names(apr_pool_t *pool);

/** The version of the contract under which one was registered that is refused
 *  for that; NULL: none of this name was. */
const char *mw_loader_other_version(const char *name);

/**
 * Load a shared object, find its module record and run its register_hooks;
 * what it registers in the provider group is found from then on. It stays
 * loaded to the end.
 * @param pool as long as the program
 * @return NULL, or what is wrong, in pool. Of symbols that nobody has all are
 *         named
 */
const char *mw_loader_load(const char *file, apr_pool_t *pool);

#endif
