/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file world.h
 * @brief Stores in the words of the directives, opened without a server.
 */
#ifndef MW_WORLD_H
#define MW_WORLD_H

#include "core/store.h"

/** A store in the words of the directives. */
typedef struct mw_ctl_store_t {
    const char *name;         /**< of the store */
    const char *provider;     /**< name of its provider */
    const char *const *words; /**< option=value; {tmp} in them stands for
                                   mw_world_t.dir */
    int nwords;
} mw_ctl_store_t;

/**
 * Stores that are opened together. The caller sets the first part; in one
 * process one after the other plays parent and child, by the functions below.
 */
typedef struct mw_world_t {
    /** Each may name those before it. */
    const mw_ctl_store_t *definitions;
    int ndefinitions;
    const char *dir;       /**< what {tmp} stands for */
    const char *cache_dir; /**< what relative paths are below */
    /** Which table is used instead of a provider's; NULL: its own. */
    const cachemw_provider_t *(*table)(void *baton, int i,
                                       const cachemw_provider_t *table);
    void (*log)(void *baton, cachemw_level_e level, apr_status_t rv,
                const char *text);
    void *baton;

    mw_host_t host;
    mw_store_t **stores; /**< one for each definition */
    apr_pool_t *pconf;
} mw_world_t;

/** The words of a definition with {tmp} put in. */
const char *const *mw_world_words(const mw_world_t *world, int i,
                                  apr_pool_t *pool);

/**
 * Parse the words of a definition.
 * @param options for mw_store_open()
 * @return NULL, or what is wrong, in pool
 */
const char *mw_world_parse(const mw_world_t *world, int i,
                           mw_options_t options[2], apr_pool_t *pool);

/**
 * Open all.
 * @param pconf where they live
 * @return NULL, or what is wrong, in pconf
 */
const char *mw_world_open(mw_world_t *world, apr_pool_t *pconf);

/**
 * post_config of all.
 * @param segments mw_segments_size() bytes that outlive pconf
 * @param parent a pool that does, for what is shared
 * @return what the first one that failed says; it has been logged
 */
apr_status_t mw_world_create(mw_world_t *world, void *segments,
                             apr_pool_t *parent, apr_uid_t uid, apr_gid_t gid);

/** child_init of all. @return what the first one that failed says */
apr_status_t mw_world_child(const mw_world_t *world, apr_pool_t *pchild);

/** Close all; the last one first. */
void mw_world_close(mw_world_t *world);

#endif
