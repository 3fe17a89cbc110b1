/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file enables.h
 * @brief What the configuration says in its CacheEnable lines.
 *
 * mod_cache keeps its list to itself, so the tree of directives is read.
 */
#ifndef MW_ENABLES_H
#define MW_ENABLES_H

#include "httpd.h"
#include "http_config.h"

#include "stores.h"

/** The name under which mod_cache finds this module. */
#define MW_CACHE_TYPE "cachemw"

/** A CacheEnable line. */
typedef struct mw_enable_t {
    const char *type; /**< the provider of mod_cache that it names */
    const char *path; /**< URL path below which it holds; "/" when unknown */
    const ap_directive_t *line;
    const ap_directive_t *vhost; /**< its <VirtualHost>; NULL: all servers */
} mw_enable_t;

/** All lines of a tree, also those in nested sections, as mw_enable_t. */
apr_array_header_t *mw_enables_collect(const ap_directive_t *tree,
                                       apr_pool_t *pool);

/** Whether one of them gives a server's responses to this module. */
int mw_enables_apply(const apr_array_header_t *enables, const server_rec *s);

/**
 * Log what is probably not meant: a type that mod_cache does not know and
 * silently ignores, and this module beside another one for the same URLs.
 * @param stores tells a store's name, used as a type, from other mistakes
 * @param pool of the messages
 */
void mw_enables_warn(const apr_array_header_t *enables, mw_stores_t *stores,
                     const server_rec *s, apr_pool_t *pool);

#endif
