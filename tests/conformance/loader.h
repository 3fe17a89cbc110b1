/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file loader.h
 * @brief Loads a provider's module, built for httpd, into a program without
 *        httpd.
 *
 * Stands in for the symbols of httpd that mod_cachemw.h allows a provider. The
 * program must export them (-rdynamic).
 */
#ifndef CT_LOADER_H
#define CT_LOADER_H

#include "apr_pools.h"

/**
 * Load a shared object, find its module record and run its register_hooks;
 * what it registers in the provider group goes to ct_provider_add().
 * @return NULL, or what is wrong, in pool
 */
const char *ct_load(const char *file, apr_pool_t *pool);

#endif
