/* SPDX-License-Identifier: Apache-2.0 */

#include <unistd.h>

#include "apr_hash.h"
#include "apr_strings.h"
#include "httpd.h"
#include "ap_provider.h"
#include "http_log.h"
#include "http_main.h"
#include "unixd.h"

#include "config.h"
#include "stores.h"

APLOG_USE_MODULE(cachemw);

#define STORES_RETAINED "mod_cachemw"

struct mw_stores_t {
    apr_pool_t *pconf;
    mw_definition_t *definitions; /* in order of definition */
    mw_definition_t **tail;
    mw_definition_t *fallback;   /* the default store */
    apr_hash_t *names;           /* name -> definition */
    apr_array_header_t *opened;  /* definitions, inner ones of tiers first */
    apr_array_header_t *opening; /* definitions, the outermost first */
    mw_host_t host;
    pid_t parent;
};

/* Providers of ours that are modules of their own. */
static const char *const stores_modules[] = { "sqlite", "redis", "http", NULL };

void mw_place_error(const mw_place_t *place, const char *format, ...)
{
    char text[4096];
    va_list args;

    va_start(args, format);
    apr_vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_ERR, 0, NULL,
                 "Error on line %d of %s: %s", place->line, place->file, text);
}

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
    ap_log_error(APLOG_MARK, levels[level], rv, ap_server_conf, "%s", text);
}

static mw_store_t *stores_host_find(void *baton, const char *name)
{
    mw_definition_t *definition = mw_stores_find(baton, name);

    return definition ? definition->store : NULL;
}

const cachemw_provider_t *mw_stores_provider(const char *name)
{
    return ap_lookup_provider(CACHEMW_PROVIDER_GROUP, name,
                              CACHEMW_PROVIDER_VERSION);
}

static int stores_compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

apr_array_header_t *mw_stores_providers(apr_pool_t *pool)
{
    const apr_array_header_t *found = ap_list_provider_names(
        pool, CACHEMW_PROVIDER_GROUP, CACHEMW_PROVIDER_VERSION);
    apr_array_header_t *names = apr_array_make(pool, 8, sizeof(char *));
    int i;

    for (i = 0; i < found->nelts; i++) {
        APR_ARRAY_PUSH(names, const char *) =
            APR_ARRAY_IDX(found, i, ap_list_provider_names_t).provider_name;
    }
    qsort(names->elts, names->nelts, names->elt_size, stores_compare_names);
    return names;
}

static const char *stores_list_providers(apr_pool_t *pool)
{
    const apr_array_header_t *names = mw_stores_providers(pool);
    const char *list = "";
    int i;

    for (i = 0; i < names->nelts; i++) {
        list = apr_pstrcat(pool, list, i ? ", " : "",
                           APR_ARRAY_IDX(names, i, const char *), NULL);
    }
    return list;
}

static const char *stores_list_names(const mw_stores_t *stores)
{
    const mw_definition_t *definition;
    const char *list = NULL;

    for (definition = stores->definitions; definition;
         definition = definition->next) {
        if (definition->name && definition->directive) {
            list = list ? apr_pstrcat(stores->pconf, list, ", ",
                                      definition->name, NULL)
                        : definition->name;
        }
    }
    return list ? list : "none";
}

/* ", and for redis load …" where one of ours is meant. */
static const char *stores_missing_module(const char *name, apr_pool_t *pool)
{
    int i;

    for (i = 0; stores_modules[i]; i++) {
        if (!strcmp(name, stores_modules[i])) {
            return apr_psprintf(pool,
                                "; %s comes with a module of its own: "
                                "LoadModule cachemw_%s_module "
                                "modules/mod_cachemw_%s.so",
                                name, name, name);
        }
    }
    return "";
}

static const char *stores_unknown_provider(const char *name, apr_pool_t *pool)
{
    return apr_psprintf(pool, "unknown provider \"%s\"; providers: %s%s", name,
                        stores_list_providers(pool),
                        stores_missing_module(name, pool));
}

static const char *stores_check_name(const mw_stores_t *stores,
                                     const char *name)
{
    const mw_definition_t *other;

    if (!*name || strlen(name) > MW_STORE_NAME_MAX
        || name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                             "abcdefghijklmnopqrstuvwxyz0123456789-_.")]) {
        return apr_psprintf(stores->pconf,
                            "a store's name is 1 to %d letters, digits, '-', "
                            "'_' and '.'",
                            MW_STORE_NAME_MAX);
    }
    if (mw_stores_provider(name)) {
        return "a store cannot have the name of a provider";
    }
    other = apr_hash_get(stores->names, name, APR_HASH_KEY_STRING);
    if (other) {
        return apr_psprintf(stores->pconf,
                            "this store is already defined on line %d of %s",
                            other->place.line, other->place.file);
    }
    return NULL;
}

static void stores_add(mw_stores_t *stores, mw_definition_t *definition)
{
    *stores->tail = definition;
    stores->tail = &definition->next;
    if (definition->name) {
        apr_hash_set(stores->names, definition->name, APR_HASH_KEY_STRING,
                     definition);
    }
}

const char *mw_stores_define(mw_stores_t *stores, const char *directive,
                             const mw_place_t *place, const char *name,
                             const char *provider_name,
                             const char *const *words, int nwords,
                             mw_definition_t **definition)
{
    const cachemw_provider_t *provider = mw_stores_provider(provider_name);
    mw_definition_t *made;
    const char *error = name ? stores_check_name(stores, name) : NULL;

    if (error) {
        return error;
    }
    if (!provider) {
        return stores_unknown_provider(provider_name, stores->pconf);
    }
    made = apr_pcalloc(stores->pconf, sizeof(*made));
    made->name = name;
    made->directive = directive;
    made->place = *place;
    made->provider_name = provider_name;
    made->provider = provider;
    made->options[0].table = provider->options;
    made->options[1].table = mw_store_options;
    error = mw_options_parse(made->options, 2, words, nwords, MW_CACHEDIR,
                             stores->pconf);
    if (error) {
        return error;
    }
    stores_add(stores, made);
    *definition = made;
    return NULL;
}

mw_stores_t *mw_stores_make(apr_pool_t *pconf)
{
    mw_stores_t *stores = apr_pcalloc(pconf, sizeof(*stores));
    mw_definition_t *fallback = apr_pcalloc(pconf, sizeof(*fallback));

    stores->pconf = pconf;
    stores->tail = &stores->definitions;
    stores->names = apr_hash_make(pconf);
    stores->opened = apr_array_make(pconf, 4, sizeof(mw_definition_t *));
    stores->opening = apr_array_make(pconf, 4, sizeof(mw_definition_t *));
    stores->host.log = stores_log;
    stores->host.find = stores_host_find;
    stores->host.baton = stores;
    stores->parent = getpid();

    fallback->name = MW_STORE_DEFAULT;
    fallback->provider_name = MW_PROVIDER_DEFAULT;
    fallback->provider = mw_stores_provider(MW_PROVIDER_DEFAULT);
    fallback->options[0].table = fallback->provider->options;
    fallback->options[1].table = mw_store_options;
    mw_options_parse(fallback->options, 2, NULL, 0, MW_CACHEDIR, pconf);
    stores->fallback = fallback;
    stores_add(stores, fallback);
    return stores;
}

mw_definition_t *mw_stores_default(mw_stores_t *stores)
{
    return stores->fallback;
}

mw_definition_t *mw_stores_find(mw_stores_t *stores, const char *word)
{
    return strcmp(word, MW_PROVIDER_DEFAULT)
               ? apr_hash_get(stores->names, word, APR_HASH_KEY_STRING)
               : stores->fallback;
}

const char *mw_stores_unknown(mw_stores_t *stores, const char *word)
{
    return apr_psprintf(stores->pconf,
                        "no store and no provider is called \"%s\"; stores: "
                        "%s; providers: %s%s",
                        word, stores_list_names(stores),
                        stores_list_providers(stores->pconf),
                        stores_missing_module(word, stores->pconf));
}

void mw_stores_name(mw_stores_t *stores, mw_definition_t *definition,
                    const char *wanted)
{
    const char *name = wanted;
    int n = 1;

    while (apr_hash_get(stores->names, name, APR_HASH_KEY_STRING)) {
        name = apr_psprintf(stores->pconf, "%s#%d", wanted, ++n);
    }
    definition->name = name;
    apr_hash_set(stores->names, name, APR_HASH_KEY_STRING, definition);
}

/* The next value of a type in a definition's options, from *at on. */
static const char *stores_next_value(const mw_definition_t *definition,
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

static int stores_check_paths(const mw_stores_t *stores)
{
    apr_hash_t *paths = apr_hash_make(stores->pconf);
    mw_definition_t *definition, *other;
    const char *path, *option;
    int errors = 0;
    int at;

    for (definition = stores->definitions; definition;
         definition = definition->next) {
        at = 0;
        while ((
            path = stores_next_value(definition, CACHEMW_PATH, &at, &option))) {
            other = apr_hash_get(paths, path, APR_HASH_KEY_STRING);
            if (other && other != definition) {
                mw_place_error(&definition->place,
                               "%s %s: %s=%s: the same path is used by the "
                               "store on line %d of %s; give each store its "
                               "own, or name one store in both places",
                               definition->directive,
                               definition->name ? definition->name
                                                : definition->provider_name,
                               option, path, other->place.line,
                               other->place.file);
                errors++;
            }
            apr_hash_set(paths, path, APR_HASH_KEY_STRING, definition);
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
        mw_place_error(&outer->place,
                       "%s %s: %s=%s: no store of this name; stores: %s",
                       outer->directive, outer->name, option, word,
                       stores_list_names(stores));
    }
    else if (cycle) {
        mw_place_error(&outer->place,
                       "%s %s: %s=%s: a store cannot contain itself: %s",
                       outer->directive, outer->name, option, word, cycle);
        inner = NULL;
    }
    return inner;
}

static int stores_open_itself(mw_stores_t *stores, mw_definition_t *definition)
{
    const char *error = NULL;
    apr_status_t rv;

    rv = mw_store_open(&definition->store, definition->name,
                       definition->provider, definition->options, &stores->host,
                       stores->pconf, &error);
    if (rv != APR_SUCCESS) {
        definition->store = NULL;
        mw_place_error(&definition->place, "%s %s: %s", definition->directive,
                       definition->name,
                       error ? error : apr_psprintf(stores->pconf, "%pm", &rv));
        return 1;
    }
    mw_store_set_provider_name(definition->store, definition->provider_name);
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
    while (
        (word = stores_next_value(definition, CACHEMW_STORE, &at, &option))) {
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

int mw_stores_open(mw_stores_t *stores)
{
    mw_definition_t *definition;
    int errors = stores_check_paths(stores);

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
    while (
        (word = stores_next_value(definition, CACHEMW_STORE, &at, &option))) {
        mw_stores_use(stores, mw_stores_find(stores, word));
    }
}

int mw_stores_are_defined(const mw_stores_t *stores)
{
    return stores->fallback->next != NULL;
}

void mw_stores_warn_unused(const mw_stores_t *stores)
{
    const mw_definition_t *definition;

    for (definition = stores->definitions; definition;
         definition = definition->next) {
        if (definition->directive && !definition->is_used) {
            ap_log_error(APLOG_MARK, APLOG_WARNING, 0, ap_server_conf,
                         "%s %s on line %d of %s is not used: no server with "
                         "CacheEnable cachemw keeps its responses there",
                         definition->directive, definition->name,
                         definition->place.line, definition->place.file);
        }
    }
}

/* The list is in memory that outlives a configuration and this module's code.
 * One that another build left may be too short: it is emptied then, and a new
 * one takes its place. */
static mw_segments_t *stores_segments(process_rec *process)
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

void mw_stores_create(mw_stores_t *stores, process_rec *process)
{
    int is_root = geteuid() == 0;
    mw_definition_t **opened = (mw_definition_t **)stores->opened->elts;
    int i;

    stores->host.segments = stores_segments(process);
    for (i = 0; i < stores->opened->nelts; i++) {
        if (opened[i]->is_used) {
            mw_store_post_config(opened[i]->store, stores->pconf,
                                 is_root ? ap_unixd_config.user_id : 0,
                                 is_root ? ap_unixd_config.group_id : 0);
        }
    }
    mw_segments_end(stores->host.segments);
}

void mw_stores_child_init(mw_stores_t *stores, apr_pool_t *pchild)
{
    mw_definition_t **opened = (mw_definition_t **)stores->opened->elts;
    int i;

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

static int stores_is_secret(const mw_definition_t *definition, const char *name,
                            apr_size_t len)
{
    const cachemw_option_t *row = definition->options[0].table;

    for (; row && row->name; row++) {
        if (strlen(row->name) == len && !strncmp(row->name, name, len)) {
            if (!row->alias) {
                return row->type == CACHEMW_SECRET;
            }
            name = row->alias;
            len = strlen(name);
            row = definition->options[0].table - 1;
        }
    }
    return 0;
}

/* "url=redis://user:password@machine" without the password. */
static const char *stores_censor_url(const char *word, apr_pool_t *pool)
{
    const char *authority = ap_strstr_c(word, "://");
    const char *colon, *at;

    if (!authority) {
        return word;
    }
    authority += 3;
    at = ap_strrchr_c(authority, '@');
    colon = at ? memchr(authority, ':', at - authority) : NULL;
    if (!colon) {
        return word;
    }
    return apr_pstrcat(pool, apr_pstrndup(pool, word, colon + 1 - word),
                       "*****", at, NULL);
}

const char *mw_stores_censor(const mw_definition_t *definition,
                             const char *const *words, int nwords,
                             apr_pool_t *pool)
{
    const char *text = "";
    const char *word;
    apr_size_t len;
    int i;

    for (i = 0; i < nwords; i++) {
        len = strcspn(words[i], "=");
        word = stores_is_secret(definition, words[i], len)
                   ? apr_pstrcat(pool, apr_pstrndup(pool, words[i], len),
                                 "=*****", NULL)
                   : stores_censor_url(words[i], pool);
        text = apr_pstrcat(pool, text, i ? " " : "",
                           strpbrk(word, " \t") ? "\"" : "", word,
                           strpbrk(word, " \t") ? "\"" : "", NULL);
    }
    return text;
}
