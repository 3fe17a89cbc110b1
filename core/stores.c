/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>

#include "apr_strings.h"
#include "httpd.h"
#include "ap_provider.h"
#include "http_log.h"

#include "stores_private.h"

APLOG_USE_MODULE(cachemw);

/* Those that are in modules of their own. */
static const char *const stores_modules[] = { "http", "redis", "sqlite", NULL };

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

const char *mw_stores_list_names(const mw_stores_t *stores)
{
    const mw_definition_t *definition;
    const char *list = NULL;

    for (definition = stores->definitions; definition;
         definition = definition->next) {
        if (definition->directive && !definition->is_in_place) {
            list = list ? apr_pstrcat(stores->pconf, list, ", ",
                                      definition->name, NULL)
                        : definition->name;
        }
    }
    return list ? list : "none";
}

static int stores_has_name(const char *const *names, const char *name)
{
    while (*names && strcmp(name, *names) != 0) {
        names++;
    }
    return *names != NULL;
}

/* "; it is for version 2 …" where a provider is loaded, but of another contract. */
static const char *stores_other_version(const char *name, apr_pool_t *pool)
{
    const apr_array_header_t *groups = ap_list_provider_groups(pool);
    int i;

    for (i = 0; i < groups->nelts; i++) {
        const ap_list_provider_groups_t *group =
            &APR_ARRAY_IDX(groups, i, ap_list_provider_groups_t);

        if (!strcmp(group->provider_group, CACHEMW_PROVIDER_GROUP)
            && ap_lookup_provider(CACHEMW_PROVIDER_GROUP, name,
                                  group->provider_version)) {
            return apr_psprintf(pool,
                                "; its module is for version %s of "
                                "mod_cachemw.h, this is version %s: compile it "
                                "with this one's",
                                group->provider_version,
                                CACHEMW_PROVIDER_VERSION);
        }
    }
    return "";
}

/* "; multitier is not part …" where one of ours is meant. */
static const char *stores_why_unknown(const char *name, apr_pool_t *pool)
{
    if (stores_has_name(stores_modules, name)) {
        return apr_psprintf(pool,
                            "; %s needs: LoadModule cachemw_%s_module "
                            "modules/mod_cachemw_%s.so",
                            name, name, name);
    }
    return stores_other_version(name, pool);
}

static const char *stores_unknown_provider(const char *name, apr_pool_t *pool)
{
    return apr_psprintf(pool, "unknown provider \"%s\"; providers: %s%s", name,
                        stores_list_providers(pool),
                        stores_why_unknown(name, pool));
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
    made->is_in_place = !name;
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
    mw_definition_t *found;

    if (!strcmp(word, MW_PROVIDER_DEFAULT)) {
        return stores->fallback;
    }
    found = apr_hash_get(stores->names, word, APR_HASH_KEY_STRING);
    return found && !found->is_in_place ? found : NULL;
}

const char *mw_stores_unknown(mw_stores_t *stores, const char *word)
{
    return apr_psprintf(stores->pconf,
                        "no store and no provider is called \"%s\"; stores: "
                        "%s; providers: %s%s",
                        word, mw_stores_list_names(stores),
                        stores_list_providers(stores->pconf),
                        stores_why_unknown(word, stores->pconf));
}

const char *mw_stores_missing(const mw_stores_t *stores)
{
    return apr_psprintf(stores->pconf, "no store of this name; stores: %s",
                        mw_stores_list_names(stores));
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

int mw_stores_are_defined(const mw_stores_t *stores)
{
    return stores->fallback->next != NULL;
}

static int stores_is_secret(const cachemw_option_t *table, const char *name,
                            apr_size_t len)
{
    const cachemw_option_t *row = table;

    for (; row && row->name; row++) {
        if (strlen(row->name) == len && !strncmp(row->name, name, len)) {
            if (!row->alias) {
                return row->type == CACHEMW_SECRET;
            }
            name = row->alias;
            len = strlen(name);
            row = table - 1;
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

const char *mw_stores_censor(const cachemw_option_t *table,
                             const char *const *words, int nwords,
                             apr_pool_t *pool)
{
    const char *text = "";
    const char *word;
    apr_size_t len;
    int i;

    for (i = 0; i < nwords; i++) {
        len = strcspn(words[i], "=");
        word = stores_is_secret(table, words[i], len)
                   ? apr_pstrcat(pool, apr_pstrndup(pool, words[i], len),
                                 "=*****", NULL)
                   : stores_censor_url(words[i], pool);
        text = apr_pstrcat(pool, text, i ? " " : "",
                           strpbrk(word, " \t") ? "\"" : "", word,
                           strpbrk(word, " \t") ? "\"" : "", NULL);
    }
    return text;
}
