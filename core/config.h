/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file config.h
 * @brief Directives, named stores, inheritance between servers, namespaces,
 *        and the life of stores in httpd.
 */
#ifndef MW_CONFIG_H
#define MW_CONFIG_H

#include "ap_mpm.h"
#include "httpd.h"
#include "http_config.h"

#include "store.h"

extern module AP_MODULE_DECLARE_DATA cachemw_module;

/** What the hit path needs of a server; resolved in check_config. */
typedef struct mw_server_t {
    mw_store_t *store;      /**< NULL: no store (nothing enabled, or off) */
    const char *name_space; /**< ServerName:port or CachemwNamespace */
    apr_size_t name_space_len;
} mw_server_t;

/** The resolved configuration of a request's server; never NULL. */
const mw_server_t *mw_config_server(const server_rec *s);

/** Called for each store in use, inner ones of tiers first. */
typedef void mw_config_each_fn(void *baton, mw_store_t *store);
void mw_config_each_store(mw_config_each_fn *each, void *baton);

extern const command_rec mw_config_commands[];
void *mw_config_create_server(apr_pool_t *p, server_rec *s);
void *mw_config_merge_server(apr_pool_t *p, void *base, void *add);

/** Hooks, registered by mod_cachemw.c. */
int mw_config_pre(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp);
int mw_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                    server_rec *s);
int mw_config_post(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                   server_rec *s);
/** post_config, after all that other modules do there: the sweeper finds what a
 *  child finds. */
int mw_config_sweep(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                    server_rec *s);
void mw_config_child_init(apr_pool_t *pchild, server_rec *s);
void mw_config_child_status(server_rec *s, pid_t pid, ap_generation_t gen,
                            int slot, mpm_child_status status);
int mw_config_monitor(apr_pool_t *p, server_rec *s);
/** With -D DUMP_CACHEMW_OPTIONS: print the options of every provider. */
void mw_config_test(apr_pool_t *pconf, server_rec *s);

#endif
