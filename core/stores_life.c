/* SPDX-License-Identifier: Apache-2.0 */

#include <unistd.h>

#include "apr_escape.h"
#include "apr_strings.h"
#include "httpd.h"
#include "http_log.h"
#include "http_main.h"
#include "unixd.h"

#include "api_entry.h"
#include "random.h"
#include "stores_private.h"

APLOG_USE_MODULE(cachemw);

#define STORES_RETAINED "mod_cachemw"
#define STORES_TAG "mod_cachemw tag"
#define STORES_TAG_BYTES 16

/* What store.c writes carries the store's name already. */
static void stores_log(void *baton, cachemw_level_e level, apr_status_t rv,
                       const char *text)
{
    static const int levels[] = {
        [CACHEMW_LOG_ERR] = APLOG_ERR,
        [CACHEMW_LOG_WARNING] = APLOG_WARNING,
        [CACHEMW_LOG_INFO] = APLOG_INFO,
        [CACHEMW_LOG_DEBUG] = APLOG_DEBUG,
    };

    (void)baton;
    if ((unsigned)level > CACHEMW_LOG_DEBUG) {
        level = CACHEMW_LOG_DEBUG;
    }
    ap_log_error(APLOG_MARK, levels[level], rv, ap_server_conf, "%s", text);
}

static int stores_head_is_sound(const void *head, apr_size_t length,
                                apr_pool_t *pool)
{
    return mw_api_head_is_sound(head, length, -1, pool);
}

static mw_store_t *stores_host_find(void *baton, const char *name)
{
    mw_definition_t *definition = mw_stores_find(baton, name);

    return definition ? definition->store : NULL;
}

/* The first word of its directive, as people know it. */
static const char *definition_word(const mw_definition_t *definition)
{
    return definition->is_in_place ? definition->provider_name
                                   : definition->name;
}

/* The next value of a type in a definition's options, from *at on. */
static const char *definition_next(const mw_definition_t *definition,
                                   cachemw_type_e type, int *at,
                                   const char **option)
{
    const cachemw_option_t *row = definition->options[0].table;
    const cachemw_value_t *values = definition->options[0].values;

    for (; row && row[*at].name; ++*at) {
        if (!row[*at].alias && row[*at].type == type && !values[*at].is_null) {
            *option = row[*at].name;
            return values[(*at)++].string;
        }
    }
    return NULL;
}

/* What a store keeps on the disk. */
typedef struct path_t {
    const char *text;
    const char *option;
    const mw_definition_t *definition;
} path_t;

/* Whether it is the other one, or lies in it. */
static int path_is_in(const path_t *path, const path_t *other)
{
    const apr_size_t length = strlen(other->text);

    return !strncmp(path->text, other->text, length)
           && (!path->text[length] || path->text[length] == '/'
               || !strcmp(other->text, "/"));
}

static void path_error(const path_t *path, const path_t *other)
{
    const mw_definition_t *definition = path->definition;
    const mw_place_t *place = &other->definition->place;

    if (!strcmp(path->text, other->text)) {
        mw_place_error(&definition->place,
                       "%s %s: %s=%s: the same path is used by the store on "
                       "line %d of %s; give each store its own, or name one "
                       "store in both places",
                       definition->directive, definition_word(definition),
                       path->option, path->text, place->line, place->file);
        return;
    }
    mw_place_error(
        &definition->place,
        "%s %s: %s=%s %s %s=%s of %s %s on line %d of %s; give each "
        "store a place of its own, side by side",
        definition->directive, definition_word(definition), path->option,
        path->text, path_is_in(path, other) ? "lies in" : "has in it",
        other->option, other->text, other->definition->directive,
        definition_word(other->definition), place->line, place->file);
}

static int stores_check_paths(const mw_stores_t *stores)
{
    apr_array_header_t *paths =
        apr_array_make(stores->pconf, 8, sizeof(path_t));
    path_t path;
    int errors = 0;
    int at, i;

    for (path.definition = stores->definitions; path.definition;
         path.definition = path.definition->next) {
        at = 0;
        while ((path.text = definition_next(path.definition, CACHEMW_PATH, &at,
                                            &path.option))) {
            for (i = 0; i < paths->nelts; i++) {
                const path_t *other = &APR_ARRAY_IDX(paths, i, path_t);

                if (other->definition != path.definition
                    && (path_is_in(&path, other) || path_is_in(other, &path))) {
                    path_error(&path, other);
                    errors++;
                }
            }
            APR_ARRAY_PUSH(paths, path_t) = path;
        }
    }
    return errors;
}

/* "edge -> hot -> edge" */
static const char *stores_cycle(const mw_stores_t *stores,
                                const mw_definition_t *again)
{
    mw_definition_t **opening = (mw_definition_t **)stores->opening->elts;
    const char *chain = NULL;
    int i;

    for (i = 0; i < stores->opening->nelts; i++) {
        if (chain || opening[i] == again) {
            chain = apr_pstrcat(stores->pconf, chain ? chain : "",
                                opening[i]->name, " -> ", NULL);
        }
    }
    return chain ? apr_pstrcat(stores->pconf, chain, again->name, NULL) : NULL;
}

/* The store of an option, if it is one that may be opened now. */
static mw_definition_t *stores_inner(mw_stores_t *stores,
                                     const mw_definition_t *outer,
                                     const char *option, const char *word)
{
    mw_definition_t *inner = mw_stores_find(stores, word);
    const char *cycle = inner ? stores_cycle(stores, inner) : NULL;

    if (!inner) {
        mw_place_error(&outer->place, "%s %s: %s=%s: %s", outer->directive,
                       definition_word(outer), option, word,
                       mw_stores_missing(stores));
    }
    else if (cycle) {
        mw_place_error(
            &outer->place, "%s %s: %s=%s: a store cannot contain itself: %s",
            outer->directive, definition_word(outer), option, word, cycle);
        inner = NULL;
    }
    return inner;
}

static int stores_open_itself(mw_stores_t *stores, mw_definition_t *definition)
{
    const char *error = NULL;
    apr_status_t rv;

    rv = mw_store_open(&definition->store, definition->name,
                       definition->provider_name, definition->provider,
                       definition->options, &stores->host, stores->pconf,
                       &error);
    if (rv != APR_SUCCESS) {
        definition->store = NULL;
        mw_place_error(&definition->place, "%s %s: %s", definition->directive,
                       definition_word(definition),
                       error ? error : apr_psprintf(stores->pconf, "%pm", &rv));
        return 1;
    }
    APR_ARRAY_PUSH(stores->opened, mw_definition_t *) = definition;
    return 0;
}

static int stores_open_one(mw_stores_t *stores, mw_definition_t *definition)
{
    mw_definition_t *inner;
    const char *word, *option;
    int errors = 0;
    int at = 0;

    if (definition->store || definition->is_failed) {
        return definition->is_failed;
    }
    APR_ARRAY_PUSH(stores->opening, mw_definition_t *) = definition;
    while ((word = definition_next(definition, CACHEMW_STORE, &at, &option))) {
        inner = stores_inner(stores, definition, option, word);
        errors += inner ? stores_open_one(stores, inner) : 1;
    }
    apr_array_pop(stores->opening);
    definition->is_failed = errors || stores_open_itself(stores, definition);
    return definition->is_failed;
}

/* pconf is cleared in the parent only, but a child that is forked without exec
 * must not close what is not its own, should it ever come here. */
static apr_status_t stores_close(void *baton)
{
    mw_stores_t *stores = baton;
    mw_definition_t **definition;

    while (stores->parent == getpid()
           && (definition = apr_array_pop(stores->opened))) {
        mw_store_close((*definition)->store);
        (*definition)->store = NULL;
    }
    return APR_SUCCESS;
}

/* Kept over graceful restarts: the children of both generations are one
 * server. */
static const char *stores_tag(void)
{
    char *tag = ap_retained_data_get(STORES_TAG);
    unsigned char bytes[STORES_TAG_BYTES];

    if (!tag) {
        mw_store_random(bytes, sizeof(bytes));
        tag = ap_retained_data_create(STORES_TAG, 2 * sizeof(bytes) + 1);
        apr_escape_hex(tag, bytes, sizeof(bytes), 0, NULL);
    }
    return tag;
}

const char *mw_stores_tag(const mw_stores_t *stores)
{
    return stores->host.tag;
}

int mw_stores_open(mw_stores_t *stores)
{
    mw_definition_t *definition;
    int errors = stores_check_paths(stores);

    stores->host.log = stores_log;
    stores->host.find = stores_host_find;
    stores->host.head_is_sound = stores_head_is_sound;
    stores->host.baton = stores;
    stores->host.tag = stores_tag();
    stores->parent = getpid();
    apr_pool_cleanup_register(stores->pconf, stores, stores_close,
                              apr_pool_cleanup_null);
    for (definition = stores->definitions; definition;
         definition = definition->next) {
        errors += stores_open_one(stores, definition);
    }
    return errors;
}

void mw_stores_use(mw_stores_t *stores, mw_definition_t *definition)
{
    const char *word, *option;
    int at = 0;

    if (definition->is_used) {
        return;
    }
    definition->is_used = 1;
    while ((word = definition_next(definition, CACHEMW_STORE, &at, &option))) {
        mw_stores_use(stores, mw_stores_find(stores, word));
    }
}

void mw_stores_warn_unused(const mw_stores_t *stores)
{
    const mw_definition_t *definition;

    for (definition = stores->definitions; definition;
         definition = definition->next) {
        if (definition->directive && !definition->is_used) {
            ap_log_error(APLOG_MARK, APLOG_WARNING, 0, ap_server_conf,
                         "%s %s on line %d of %s is not used: no server with "
                         "CacheEnable cachemw keeps its responses there, and "
                         "no CachemwApi serves it",
                         definition->directive, definition_word(definition),
                         definition->place.line, definition->place.file);
        }
    }
}

/* The list is in memory that outlives a configuration and this module's code.
 * One that another build left may be too short: it is emptied then, and a new
 * one takes its place. */
mw_segments_t *mw_stores_segments(process_rec *process)
{
    void *memory = ap_retained_data_get(STORES_RETAINED);
    mw_segments_t *list = NULL;

    if (memory) {
        list = mw_segments_begin(memory, process->pool);
    }
    if (!list) {
        memory = ap_retained_data_create(STORES_RETAINED, mw_segments_size());
        list = mw_segments_begin(memory, process->pool);
    }
    return list;
}

/* What is wrong was said by the store, which does not know its directive. */
static void definition_tell_off(const mw_definition_t *definition)
{
    if (definition->directive) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, ap_server_conf,
                     "%s %s on line %d of %s: the store is off, and all "
                     "requests go to the origin",
                     definition->directive, definition_word(definition),
                     definition->place.line, definition->place.file);
    }
}

void mw_stores_create(mw_stores_t *stores, mw_segments_t *segments)
{
    int is_root = geteuid() == 0;
    mw_definition_t **opened = (mw_definition_t **)stores->opened->elts;
    int i;

    stores->host.segments = segments;
    for (i = 0; i < stores->opened->nelts; i++) {
        if (opened[i]->is_used
            && mw_store_post_config(opened[i]->store, stores->pconf,
                                    is_root ? ap_unixd_config.user_id : 0,
                                    is_root ? ap_unixd_config.group_id : 0)
                   != APR_SUCCESS) {
            definition_tell_off(opened[i]);
        }
    }
}

void mw_stores_child_init(mw_stores_t *stores, apr_pool_t *pchild)
{
    mw_definition_t **opened = (mw_definition_t **)stores->opened->elts;
    int i;

    mw_random_child_init();
    for (i = 0; i < stores->opened->nelts; i++) {
        if (opened[i]->is_used) {
            mw_store_child_init(opened[i]->store, pchild);
        }
    }
}

void mw_stores_each(const mw_stores_t *stores, mw_stores_each_fn *each,
                    void *baton)
{
    mw_definition_t **opened;
    int i;

    for (i = 0; stores && i < stores->opened->nelts; i++) {
        opened = (mw_definition_t **)stores->opened->elts;
        if (opened[i]->is_used) {
            each(baton, opened[i]->store);
        }
    }
}
