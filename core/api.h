/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file api.h
 * @brief A store behind HTTP, for the provider http of other servers: the
 *        directive CachemwApi and the handler "cachemw-api".
 *
 * What is asked and answered is described in docs/http-api.md.
 */
#ifndef MW_API_H
#define MW_API_H

#include "httpd.h"

#include "stores.h"

#define MW_DIRECTIVE_API "CachemwApi"
#define MW_API_HANDLER "cachemw-api"

/** The options of the directive. */
extern const cachemw_option_t mw_api_options[];

/** A CachemwApi line. */
typedef struct mw_api_t {
    const char *word; /**< the store as it is written */
    mw_place_t place;
    mw_options_t options;
    mw_store_t *store;       /**< NULL until mw_apis_resolve() */
    const char *tag;         /**< mw_stores_tag(), likewise */
    int is_open;             /**< no token is asked for */
    const char *token;       /**< NULL: there is none */
    apr_uint64_t max_memory; /**< bytes for requests of one child in hand */
    struct mw_api_t *next;
} mw_api_t;

/** All of a configuration. */
typedef struct mw_apis_t mw_apis_t;
mw_apis_t *mw_apis_make(apr_pool_t *pconf);

/**
 * @param words the name of a store, and options; nwords is at least 1
 * @param api set to the new one
 * @return NULL, or what is wrong
 */
const char *mw_apis_define(mw_apis_t *apis, const mw_place_t *place,
                           const char *const *words, int nwords,
                           mw_api_t **api);

/**
 * Find and use the stores, between mw_stores_open() and mw_stores_create().
 * Lines that refuse every request get a warning.
 * @return how many errors were logged
 */
int mw_apis_resolve(const mw_apis_t *apis, mw_stores_t *stores);

/** Whether there is any. */
int mw_apis_are_defined(const mw_apis_t *apis);

/** The configuration of a directory: mw_api_t *, or NULL. */
typedef struct mw_api_dir_t {
    const mw_api_t *api;
} mw_api_dir_t;

void *mw_api_create_dir(apr_pool_t *p, char *path);
void *mw_api_merge_dir(apr_pool_t *p, void *base, void *add);

/** What the handler lacks for want of a library at build time; NULL: it is
 *  there. */
extern const char *const mw_api_lacks;
/** The handler. */
int mw_api_handler(request_rec *r);

#endif
