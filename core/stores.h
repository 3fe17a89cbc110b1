/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file stores.h
 * @brief The stores of a configuration: their definitions, how names are
 *        resolved, and their life in httpd.
 *
 * In order: mw_stores_make() in pre_config; define and refer while directives
 * are read; use and open in check_config; create in post_config; child_init.
 * All of it in the parent and on one thread, up to child_init.
 */
#ifndef MW_STORES_H
#define MW_STORES_H

#include "httpd.h"
#include "http_config.h"

#include "options.h"
#include "store.h"

/** The name of the store that needs no definition. */
#define MW_STORE_DEFAULT "(default)"
/** Its provider. */
#define MW_PROVIDER_DEFAULT "memory"
/** Longest name of a store. */
#define MW_STORE_NAME_MAX 64

/** Where something is written in the configuration. */
typedef struct mw_place_t {
    const char *file; /**< NULL: nowhere */
    int line;
} mw_place_t;

/** A store as it is defined. */
typedef struct mw_definition_t {
    const char *name;      /**< NULL until a store defined in place is named */
    int is_in_place;       /**< cannot be meant by its name elsewhere */
    const char *directive; /**< that defines it; NULL: the default store */
    mw_place_t place;
    const char *provider_name;
    const cachemw_provider_t *provider;
    mw_options_t options[2]; /**< the provider's, and mw_store_options */
    struct mw_definition_t *next;
    int is_used;   /**< a server keeps its pages here, or a used store does */
    int is_failed; /**< an error was logged */
    mw_store_t *store; /**< NULL until open */
} mw_definition_t;

/** Log an error at a place; with it the server does not start. */
void mw_place_error(const mw_place_t *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** All of a configuration. */
typedef struct mw_stores_t mw_stores_t;

/** With the default store in it. */
mw_stores_t *mw_stores_make(apr_pool_t *pconf);

/** The provider of this name, or NULL. */
const cachemw_provider_t *mw_stores_provider(const char *name);

/** The names of all providers, sorted: of const char *. */
apr_array_header_t *mw_stores_providers(apr_pool_t *pool);

/**
 * Define a store.
 * @param name its name; NULL: defined in place, named later
 * @param provider_name,words what the directive says; words become values
 * @param definition set to the new one
 * @return NULL, or what is wrong, without a trailing full stop
 */
const char *mw_stores_define(mw_stores_t *stores, const char *directive,
                             const mw_place_t *place, const char *name,
                             const char *provider_name,
                             const char *const *words, int nwords,
                             mw_definition_t **definition);

/**
 * The store that a word of the configuration means: one of CachemwStore, or the
 * default store if the word is the bare name of its provider. NULL: neither.
 */
mw_definition_t *mw_stores_find(mw_stores_t *stores, const char *word);

/** What to say of a word that mw_stores_find() does not know. */
const char *mw_stores_unknown(mw_stores_t *stores, const char *word);

/** The default store. */
mw_definition_t *mw_stores_default(mw_stores_t *stores);

/** A store defined in place gets a name that no other one has. */
void mw_stores_name(mw_stores_t *stores, mw_definition_t *definition,
                    const char *wanted);

/**
 * Open every defined store, inner ones of a tier first. Errors are logged.
 * They are closed when pconf is cleared.
 * @return how many errors there were
 */
int mw_stores_open(mw_stores_t *stores);

/** A server keeps its pages here: the store, and those within, are made. */
void mw_stores_use(mw_stores_t *stores, mw_definition_t *definition);

/** Whether there is any store but the default one. */
int mw_stores_are_defined(const mw_stores_t *stores);

/** Log a warning for each named store that is of no use to anybody. */
void mw_stores_warn_unused(const mw_stores_t *stores);

/** post_config: begin a generation of the segments that all configurations of
 *  this process share. The caller ends it. */
mw_segments_t *mw_stores_segments(process_rec *process);

/** post_config: create what the used stores share between children. Who fails
 *  is off, and logged. */
void mw_stores_create(mw_stores_t *stores, mw_segments_t *segments);

/** In each process that uses them, before its threads: a child, the sweeper. */
void mw_stores_child_init(mw_stores_t *stores, apr_pool_t *pchild);

typedef void mw_stores_each_fn(void *baton, mw_store_t *store);
/** Call for each used store, inner ones of a tier first. NULL: none. */
void mw_stores_each(const mw_stores_t *stores, mw_stores_each_fn *each,
                    void *baton);

/**
 * The words of a directive as text, with the values of secret options and
 * passwords within URLs replaced: for pages that show the configuration.
 */
const char *mw_stores_censor(const mw_definition_t *definition,
                             const char *const *words, int nwords,
                             apr_pool_t *pool);

#endif
