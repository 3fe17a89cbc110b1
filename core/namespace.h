/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file namespace.h
 * @brief What keeps the pages of one virtual host apart from another's: the
 *        first part of every store key.
 *
 * mod_cache makes its key of the request's Host field. A request to one virtual
 * host can name another one there; so a namespace is made of the configuration
 * alone.
 */
#ifndef MW_NAMESPACE_H
#define MW_NAMESPACE_H

#include "apr_pools.h"

/** What the configuration says about a server. */
typedef struct mw_site_t {
    const char *chosen;  /**< CachemwNamespace; NULL: none */
    const char *host;    /**< ServerName; NULL counts as empty */
    unsigned int port;   /**< of ServerName, else of the virtual host's address;
                             0: 80 */
    const char *address; /**< "10.0.0.1:80" when the virtual host is bound to an
                              address; NULL: not */
    int is_main;         /**< the server outside all virtual hosts */

    const char *name_space; /**< out */
    int rival; /**< out: index of another site that could not be told from this
                    one by its definition; -1: none */
} mw_site_t;

/**
 * Give each site its namespace. A chosen one is used as it is: equal ones share
 * their pages on purpose. Else it is "host:port", host in lower case. Where
 * several sites come to the same text, the main server gets "@main" and those
 * bound to an address "@address" appended. What is then still equal gets
 * "#1.nonce", "#2.nonce", … in order, so that after a change of the
 * configuration none of them finds what another one stored.
 * @param nonce differs between starts
 * @param pool where the texts live
 */
void mw_namespaces_resolve(mw_site_t *sites, int nsites, const char *nonce,
                           apr_pool_t *pool);

#endif
