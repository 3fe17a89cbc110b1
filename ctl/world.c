/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "loader.h"
#include "world.h"

#define PLACEHOLDER "{tmp}"

static mw_store_t *world_find(void *baton, const char *name)
{
    const mw_world_t *world = baton;
    int i;

    for (i = 0; i < world->ndefinitions; i++) {
        if (world->stores[i] && !strcmp(world->definitions[i].name, name)) {
            return world->stores[i];
        }
    }
    return NULL;
}

static void world_log(void *baton, cachemw_level_e level, apr_status_t rv,
                      const char *text)
{
    const mw_world_t *world = baton;

    world->log(world->baton, level, rv, text);
}

const char *const *mw_world_words(const mw_world_t *world, int i,
                                  apr_pool_t *pool)
{
    const mw_ctl_store_t *definition = &world->definitions[i];
    const char **words =
        apr_pcalloc(pool, (definition->nwords + 1) * sizeof(*words));
    const char *mark;
    int n;

    for (n = 0; n < definition->nwords; n++) {
        words[n] = definition->words[n];
        mark = strstr(words[n], PLACEHOLDER);
        if (mark) {
            words[n] = apr_pstrcat(
                pool, apr_pstrmemdup(pool, words[n], mark - words[n]),
                world->dir, mark + strlen(PLACEHOLDER), NULL);
        }
    }
    return words;
}

static const char *provider_unknown(const char *name, apr_pool_t *pool)
{
    const char *version = mw_loader_other_version(name);

    if (version) {
        return apr_psprintf(pool,
                            "the module of provider \"%s\" is for version %s "
                            "of mod_cachemw.h, this is version %s: compile it "
                            "with this one's",
                            name, version, CACHEMW_PROVIDER_VERSION);
    }
    return apr_psprintf(pool, "there is no provider \"%s\"; there are: %s",
                        name, mw_loader_names(pool));
}

const char *mw_world_parse(const mw_world_t *world, int i,
                           mw_options_t options[2], apr_pool_t *pool)
{
    const mw_ctl_store_t *definition = &world->definitions[i];
    const cachemw_provider_t *table = mw_loader_find(definition->provider);
    const char *error;

    if (!table) {
        return provider_unknown(definition->provider, pool);
    }
    memset(options, 0, 2 * sizeof(*options));
    options[0].table = table->options;
    options[1].table = mw_store_options;
    error = mw_options_parse(options, 2, mw_world_words(world, i, pool),
                             definition->nwords, world->cache_dir, pool);
    return error ? apr_pstrcat(pool, definition->provider, ": ", error, NULL)
                 : NULL;
}

static const char *world_open_one(mw_world_t *world, int i)
{
    const mw_ctl_store_t *definition = &world->definitions[i];
    const cachemw_provider_t *table = mw_loader_find(definition->provider);
    mw_options_t options[2];
    const char *error = mw_world_parse(world, i, options, world->pconf);
    apr_status_t rv;

    if (error) {
        return error;
    }
    if (world->table) {
        table = world->table(world->baton, i, table);
    }
    rv =
        mw_store_open(&world->stores[i], definition->name, definition->provider,
                      table, options, &world->host, world->pconf, &error);
    if (rv != APR_SUCCESS) {
        world->stores[i] = NULL;
        return apr_pstrcat(world->pconf, "open of ", definition->provider, ": ",
                           error ? error : "failed without an error text",
                           NULL);
    }
    return NULL;
}

const char *mw_world_open(mw_world_t *world, apr_pool_t *pconf)
{
    const char *error = NULL;
    int i;

    world->pconf = pconf;
    world->host.log = world_log;
    world->host.find = world_find;
    world->host.temp_dir = world->dir;
    world->host.baton = world;
    world->stores =
        apr_pcalloc(pconf, world->ndefinitions * sizeof(*world->stores));
    for (i = 0; i < world->ndefinitions && !error; i++) {
        error = world_open_one(world, i);
    }
    return error;
}

apr_status_t mw_world_create(mw_world_t *world, void *segments,
                             apr_pool_t *parent, apr_uid_t uid, apr_gid_t gid)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    world->host.segments = mw_segments_begin(segments, parent);
    for (i = 0; i < world->ndefinitions && rv == APR_SUCCESS; i++) {
        rv = mw_store_post_config(world->stores[i], world->pconf, uid, gid);
    }
    mw_segments_end(world->host.segments);
    return rv;
}

apr_status_t mw_world_child(const mw_world_t *world, apr_pool_t *pchild)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; i < world->ndefinitions && rv == APR_SUCCESS; i++) {
        rv = mw_store_child_init(world->stores[i], pchild);
    }
    return rv;
}

void mw_world_close(mw_world_t *world)
{
    int i;

    for (i = world->ndefinitions - 1; i >= 0; i--) {
        if (world->stores[i]) {
            mw_store_close(world->stores[i]);
            world->stores[i] = NULL;
        }
    }
}
