/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file servers.h
 * @brief What each server and virtual host has of the configuration: its store
 *        and its namespace, as written and as resolved.
 */
#ifndef MW_SERVERS_H
#define MW_SERVERS_H

#include "config.h"
#include "stores.h"

#define MW_DIRECTIVE_STORE "CachemwStore"
#define MW_DIRECTIVE_PROVIDER "CachemwProvider"
#define MW_DIRECTIVE_NAMESPACE "CachemwNamespace"

/** The configuration of a server. */
typedef struct mw_server_conf_t {
    mw_server_t resolved; /**< first: what mw_config_server() gives */
    const char *word;     /**< of CachemwProvider; NULL: unset */
    int has_options;      /**< whether words followed it */
    mw_place_t word_place;
    mw_definition_t *definition; /**< in place, or found by its name */
    const char *chosen;          /**< of CachemwNamespace; NULL: unset */
    mw_place_t chosen_place;
} mw_server_conf_t;

mw_server_conf_t *mw_server_conf(const server_rec *s);

/**
 * All servers, the main one first, then in the order of the configuration.
 * Each has a configuration of its own from here on.
 * @return of server_rec *, in pconf
 */
apr_array_header_t *mw_servers_list(server_rec *s, apr_pool_t *pconf);

/**
 * Give them their namespaces; warn of those that cannot be told apart.
 * @param enables from mw_enables_collect()
 */
void mw_servers_name(const apr_array_header_t *servers,
                     const apr_array_header_t *enables, apr_pool_t *pconf);

/**
 * Find the store that each server means.
 * @return how many errors were logged
 */
int mw_servers_resolve(const apr_array_header_t *servers, mw_stores_t *stores,
                       apr_pool_t *pconf);

/**
 * Give the servers whose responses mod_cache sends to us their open stores.
 * @param enables from mw_enables_collect()
 * @return how many they are
 */
int mw_servers_use(const apr_array_header_t *servers, mw_stores_t *stores,
                   const apr_array_header_t *enables);

/** Whether any server has a CachemwProvider. */
int mw_servers_say(const apr_array_header_t *servers);

/** Take away stores without shared state: these servers pass everything on. */
void mw_servers_drop_failed(server_rec *s);

#endif
