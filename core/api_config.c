/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_lib.h"
#include "apr_strings.h"
#include "httpd.h"
#include "http_log.h"
#include "http_main.h"

#include "api.h"

APLOG_USE_MODULE(cachemw);

struct mw_apis_t {
    apr_pool_t *pconf;
    mw_api_t *first;
    mw_api_t **tail;
};

enum { API_TOKEN, API_TOKEN_FILE, API_REQUIRE_TOKEN, API_MAX_MEMORY };

mw_apis_t *mw_apis_make(apr_pool_t *pconf)
{
    mw_apis_t *apis = apr_pcalloc(pconf, sizeof(*apis));

    apis->pconf = pconf;
    apis->tail = &apis->first;
    return apis;
}

/* A header field could not carry another one. */
static const char *token_check(const char *token)
{
    while (apr_isgraph(*token)) {
        token++;
    }
    return *token ? "a token is visible ASCII characters without blanks" : NULL;
}

static const char *api_set_token(mw_api_t *api)
{
    const cachemw_value_t *values = api->options.values;
    const char *token = values[API_TOKEN].string;
    const char *error;

    if (token && !values[API_TOKEN_FILE].is_null) {
        return "auth_token and auth_token_file: give one of them";
    }
    token = token ? token : values[API_TOKEN_FILE].string;
    api->is_open = !values[API_REQUIRE_TOKEN].number;
    if (!token) {
        return NULL;
    }
    if (api->is_open) {
        return "require_token=off: there is a token";
    }
    error = token_check(token);
    if (!error && !*token) {
        error = "auth_token: it is empty";
    }
    api->token = token;
    return error;
}

const char *mw_apis_define(mw_apis_t *apis, const mw_place_t *place,
                           const char *const *words, int nwords,
                           mw_api_t **result)
{
    mw_api_t *api = apr_pcalloc(apis->pconf, sizeof(*api));
    const char *error;

    if (mw_api_lacks) {
        return mw_api_lacks;
    }
    api->word = words[0];
    api->place = *place;
    api->options.table = mw_api_options;
    error = mw_options_parse(&api->options, 1, words + 1, nwords - 1,
                             MW_CACHEDIR, apis->pconf);
    if (!error) {
        error = api_set_token(api);
    }
    if (error) {
        return error;
    }
    api->max_memory = (apr_uint64_t)api->options.values[API_MAX_MEMORY].number;
    *apis->tail = api;
    apis->tail = &api->next;
    *result = api;
    return NULL;
}

static int api_resolve(mw_api_t *api, mw_stores_t *stores)
{
    mw_definition_t *definition = mw_stores_find(stores, api->word);

    if (!definition) {
        mw_place_error(&api->place, MW_DIRECTIVE_API " %s: %s", api->word,
                       mw_stores_missing(stores));
        return 1;
    }
    mw_stores_use(stores, definition);
    api->store = definition->store;
    api->tag = mw_stores_tag(stores);
    if (!api->token && !api->is_open) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, ap_server_conf,
                     MW_DIRECTIVE_API
                     " %s on line %d of %s refuses every request: give it "
                     "auth_token_file=, or require_token=off where Require "
                     "says who may come",
                     api->word, api->place.line, api->place.file);
    }
    return 0;
}

int mw_apis_resolve(const mw_apis_t *apis, mw_stores_t *stores)
{
    mw_api_t *api;
    int errors = 0;

    for (api = apis->first; api; api = api->next) {
        errors += api_resolve(api, stores);
    }
    return errors;
}

int mw_apis_are_defined(const mw_apis_t *apis)
{
    return apis->first != NULL;
}

void *mw_api_create_dir(apr_pool_t *p, char *path)
{
    (void)path;
    return apr_pcalloc(p, sizeof(mw_api_dir_t));
}

void *mw_api_merge_dir(apr_pool_t *p, void *base, void *add)
{
    (void)p;
    return ((const mw_api_dir_t *)add)->api ? add : base;
}

const cachemw_option_t mw_api_options[] = {
    [API_TOKEN] = { .name = "auth_token",
                    .type = CACHEMW_SECRET,
                    .help = "The token that a client must have." },
    [API_TOKEN_FILE] = { .name = "auth_token_file",
                         .type = CACHEMW_SECRET_FILE,
                         .help = "A file with the token." },
    [API_REQUIRE_TOKEN] = { .name = "require_token",
                            .type = CACHEMW_FLAG,
                            .fallback = "on",
                            .help = "Whether there must be a token; without, "
                                    "whoever httpd lets through may read and "
                                    "change everything." },
    /* What the largest value takes, and something beside it. */
    [API_MAX_MEMORY] = { .name = "max_memory",
                         .type = CACHEMW_SIZE,
                         .fallback = "256M",
                         .minimum = "96M",
                         .help = "The most memory that the requests of one "
                                 "child take together; what does not fit is "
                                 "answered 503." },
    { .name = NULL }
};
