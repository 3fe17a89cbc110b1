/* SPDX-License-Identifier: Apache-2.0 */

#include <dlfcn.h>
#include <stdio.h>

#include "apr_lib.h"
#include "apr_strings.h"
#include "http_core.h"
#include "httpd.h"
#include "http_log.h"
#include "http_main.h"

#include "api.h"
#include "cache_adapter.h"
#include "coalesce.h"
#include "config.h"
#include "enables.h"
#include "servers.h"
#include "stores.h"
#include "sweeper.h"
#include "words.h"

APLOG_USE_MODULE(cachemw);

#define CONFIG_NAMESPACE_MAX 255
#define CONFIG_UNCLOSED "a quote is not closed"
#define CONFIG_COMMENT "comments need a line of their own"

typedef void cache_hook_status_fn(cache_HOOK_cache_status_t *function,
                                  const char *const *predecessors,
                                  const char *const *successors, int order);

/* Of the configuration that is being read or runs. */
static mw_stores_t *config_stores;
static mw_apis_t *config_apis;
static mw_sweeper_t *config_sweeper;

static mw_place_t config_place(const cmd_parms *cmd)
{
    mw_place_t place;

    place.file = cmd->directive->filename;
    place.line = cmd->directive->line_num;
    return place;
}

/* "CachemwStore hot: what is wrong" */
static const char *config_error(const cmd_parms *cmd, const char *word,
                                const char *error)
{
    return apr_pstrcat(cmd->pool, cmd->cmd->name, word ? " " : "",
                       word ? word : "", ": ", error, NULL);
}

/* Whether one of the first words is an option: it may hold a secret, and is not
 * repeated in a message. */
static int config_lacks_names(const apr_array_header_t *words, int names)
{
    int i;

    for (i = 0; i < names && i < words->nelts; i++) {
        if (ap_strchr_c(APR_ARRAY_IDX(words, i, const char *), '=')) {
            return 1;
        }
    }
    return words->nelts < names;
}

/* httpd takes a # within a line for an argument. */
static const char *config_split(const cmd_parms *cmd, const char *args,
                                apr_array_header_t **list)
{
    int i;

    *list = mw_words_split(args, cmd->pool);
    if (!*list) {
        return config_error(cmd, NULL, CONFIG_UNCLOSED);
    }
    for (i = 0; i < (*list)->nelts; i++) {
        if (*APR_ARRAY_IDX(*list, i, const char *) == '#') {
            return config_error(cmd, NULL, CONFIG_COMMENT);
        }
    }
    return NULL;
}

static const char *config_set_store(cmd_parms *cmd, void *unused,
                                    const char *args)
{
    const char *error = ap_check_cmd_context(cmd, GLOBAL_ONLY);
    mw_place_t place = config_place(cmd);
    mw_definition_t *definition;
    apr_array_header_t *list;
    const char **words;

    (void)unused;
    if (error) {
        return apr_pstrcat(cmd->pool, error,
                           ": define stores outside of all sections, and name "
                           "them in virtual hosts with " MW_DIRECTIVE_PROVIDER,
                           NULL);
    }
    error = config_split(cmd, args, &list);
    if (error) {
        return error;
    }
    if (config_lacks_names(list, 2)) {
        return config_error(cmd, NULL,
                            "takes a name, a provider and its options: "
                            "NAME PROVIDER [option=value ...]");
    }
    words = (const char **)list->elts;
    error = mw_stores_define(config_stores, cmd->cmd->name, &place, words[0],
                             words[1], words + 2, list->nelts - 2, &definition);
    if (error) {
        return config_error(cmd, words[0], error);
    }
    cmd->directive->args = mw_stores_censor(definition->provider->options,
                                            words, list->nelts, cmd->pool);
    return NULL;
}

static const char *config_twice(const cmd_parms *cmd, const char *what,
                                const mw_place_t *first)
{
    return config_error(cmd, NULL,
                        apr_psprintf(cmd->pool,
                                     "this %s has one on line %d of %s already",
                                     what, first->line, first->file));
}

/* A provider with options, or any but the default one without, is a store of
 * its own. What else the word may mean is known when all is read. */
static const char *config_define_in_place(cmd_parms *cmd,
                                          mw_server_conf_t *conf,
                                          const char *const *words, int nwords)
{
    const char *error;

    if (!mw_stores_provider(words[0])
        || (nwords == 1 && !strcmp(words[0], MW_PROVIDER_DEFAULT))) {
        return NULL;
    }
    error =
        mw_stores_define(config_stores, cmd->cmd->name, &conf->word_place, NULL,
                         words[0], words + 1, nwords - 1, &conf->definition);
    if (error) {
        return config_error(cmd, words[0], error);
    }
    cmd->directive->args = mw_stores_censor(conf->definition->provider->options,
                                            words, nwords, cmd->pool);
    return NULL;
}

static const char *config_set_provider(cmd_parms *cmd, void *unused,
                                       const char *args)
{
    mw_server_conf_t *conf = mw_server_conf(cmd->server);
    const char *error = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT);
    apr_array_header_t *list;
    const char **words;

    (void)unused;
    if (error) {
        return apr_pstrcat(cmd->pool, error,
                           ": a server or virtual host keeps all its responses "
                           "in one store",
                           NULL);
    }
    error = config_split(cmd, args, &list);
    if (error) {
        return error;
    }
    if (config_lacks_names(list, 1)) {
        return config_error(cmd, NULL,
                            "takes the name of a store, or a provider and its "
                            "options: NAME, or PROVIDER [option=value ...]");
    }
    if (conf->word) {
        return config_twice(cmd, "server", &conf->word_place);
    }
    words = (const char **)list->elts;
    conf->word = words[0];
    conf->word_place = config_place(cmd);
    conf->has_options = list->nelts > 1;
    return config_define_in_place(cmd, conf, words, list->nelts);
}

static const char *config_check_name_space(const char *name)
{
    const char *c = name;

    while (apr_isgraph(*c)) {
        c++;
    }
    return *c || c - name > CONFIG_NAMESPACE_MAX
               ? "a namespace is 1 to " APR_STRINGIFY(
                   CONFIG_NAMESPACE_MAX) " visible ASCII characters"
               : NULL;
}

static const char *config_set_name_space(cmd_parms *cmd, void *unused,
                                         const char *args)
{
    mw_server_conf_t *conf = mw_server_conf(cmd->server);
    const char *error = ap_check_cmd_context(cmd, NOT_IN_DIR_CONTEXT);
    apr_array_header_t *list;
    const char *name;

    (void)unused;
    if (error) {
        return apr_pstrcat(cmd->pool, error,
                           ": a server or virtual host has one namespace for "
                           "all its responses",
                           NULL);
    }
    error = config_split(cmd, args, &list);
    if (error) {
        return error;
    }
    name = list->nelts == 1 ? APR_ARRAY_IDX(list, 0, const char *) : "";
    if (!*name) {
        return config_error(cmd, NULL, "takes one argument, a name");
    }
    if (conf->chosen) {
        return config_twice(cmd, "server", &conf->chosen_place);
    }
    error = config_check_name_space(name);
    if (error) {
        return config_error(cmd, name, error);
    }
    conf->chosen = name;
    conf->chosen_place = config_place(cmd);
    return NULL;
}

static const char *config_set_api(cmd_parms *cmd, void *dir, const char *args)
{
    mw_api_dir_t *conf = dir;
    mw_place_t place = config_place(cmd);
    apr_array_header_t *list;
    const char **words;
    const char *error = config_split(cmd, args, &list);
    mw_api_t *api;

    if (error) {
        return error;
    }
    if (config_lacks_names(list, 1)) {
        return config_error(cmd, NULL,
                            "takes the name of a store, and options: NAME "
                            "[option=value ...]");
    }
    if (conf->api) {
        return config_twice(cmd, "section", &conf->api->place);
    }
    words = (const char **)list->elts;
    error = mw_apis_define(config_apis, &place, words, list->nelts, &api);
    if (error) {
        return config_error(cmd, words[0], error);
    }
    conf->api = api;
    cmd->directive->args =
        mw_stores_censor(mw_api_options, words, list->nelts, cmd->pool);
    return NULL;
}

static apr_status_t config_forget(void *unused)
{
    (void)unused;
    config_stores = NULL;
    config_apis = NULL;
    config_sweeper = NULL;
    return APR_SUCCESS;
}

/* mod_cache's hook is a function of its own, not one that APR_OPTIONAL_HOOK
 * knows, and a strong reference would need mod_cache to be loaded first. By now
 * all modules are. */
static void config_hook_status(void)
{
    union {
        void *symbol;
        cache_hook_status_fn *function;
    } found;

    found.symbol = dlsym(RTLD_DEFAULT, "cache_hook_cache_status");
    if (found.symbol) {
        found.function(mw_cache_adapter_status, NULL, NULL, APR_HOOK_MIDDLE);
    }
}

int mw_config_pre(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)plog;
    (void)ptemp;
    config_hook_status();
    config_stores = mw_stores_make(pconf);
    config_apis = mw_apis_make(pconf);
    apr_pool_cleanup_register(pconf, NULL, config_forget,
                              apr_pool_cleanup_null);
    return OK;
}

static void config_warn(const apr_array_header_t *servers,
                        const apr_array_header_t *enables, int used,
                        const server_rec *s, apr_pool_t *ptemp)
{
    mw_enables_warn(enables, config_stores, s, ptemp);
    if (used || mw_apis_are_defined(config_apis)) {
        mw_stores_warn_unused(config_stores);
    }
    else if (mw_servers_say(servers) || mw_stores_are_defined(config_stores)) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     "Stores of mod_cachemw are configured, but nothing is "
                     "kept in them: no CacheEnable " MW_CACHE_TYPE
                     " is in force");
    }
}

int mw_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                    server_rec *s)
{
    apr_array_header_t *servers = mw_servers_list(s, pconf);
    apr_array_header_t *enables = mw_enables_collect(ap_conftree, ptemp);
    int errors;

    (void)plog;
    mw_servers_name(servers, enables, pconf);
    errors = mw_servers_resolve(servers, config_stores, pconf);
    errors += mw_stores_open(config_stores);
    errors += mw_apis_resolve(config_apis, config_stores);
    if (errors) {
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    if (!mw_cacheable_bind()) {
        if (!mw_apis_are_defined(config_apis)) {
            ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_ERR, 0, NULL,
                         "mod_cache is not loaded, so mod_cachemw does "
                         "nothing: LoadModule cache_module "
                         "modules/mod_cache.so (Debian: a2enmod cache)");
        }
        return OK;
    }
    config_warn(servers, enables,
                mw_servers_use(servers, config_stores, enables), s, ptemp);
    return OK;
}

static void config_coalesces(void *baton, mw_store_t *store)
{
    int *does = baton;

    *does |= mw_store_settings(store)->coalesce;
}

static void config_create(mw_segments_t *segments)
{
    int coalesces = 0;
    apr_status_t rv;

    mw_stores_create(config_stores, segments);
    mw_stores_each(config_stores, config_coalesces, &coalesces);
    rv = mw_coalesce_create(coalesces ? segments : NULL);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_ERR, rv, ap_server_conf,
                     "no shared memory to count waiting requests: each goes to "
                     "the origin by itself");
    }
}

int mw_config_post(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                   server_rec *s)
{
    mw_segments_t *segments;

    (void)pconf;
    (void)plog;
    (void)ptemp;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK;
    }
    segments = mw_stores_segments(s->process);
    config_create(segments);
    mw_segments_end(segments);
    mw_servers_drop_failed(s);
    return OK;
}

int mw_config_sweep(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                    server_rec *s)
{
    (void)plog, (void)ptemp, (void)s;
    config_sweeper = mw_sweeper_make(config_stores, pconf);
    mw_sweeper_tend(config_sweeper);
    return OK;
}

void mw_config_child_init(apr_pool_t *pchild, server_rec *s)
{
    mw_stores_child_init(config_stores, pchild);
    mw_coalesce_child_init(pchild, s);
}

static void config_bury_in(void *baton, mw_store_t *store)
{
    mw_coalesce_bury_in(store, *(const pid_t *)baton);
}

void mw_config_child_status(server_rec *s, pid_t pid, ap_generation_t gen,
                            int slot, mpm_child_status status)
{
    (void)s, (void)gen, (void)slot;
    if (status == MPM_CHILD_EXITED && pid > 0) {
        mw_stores_each(config_stores, config_bury_in, &pid);
        mw_coalesce_bury(pid);
    }
}

int mw_config_monitor(apr_pool_t *p, server_rec *s)
{
    (void)p, (void)s;
    mw_sweeper_tend(config_sweeper);
    return OK;
}

void mw_config_test(apr_pool_t *pconf, server_rec *s)
{
    const apr_array_header_t *names = mw_stores_providers(pconf);
    const cachemw_option_t *table;
    const char *name;
    int i;

    (void)s;
    if (!ap_exists_config_define("DUMP_CACHEMW_OPTIONS")) {
        return;
    }
    printf("[common]\n%s", mw_options_reference(mw_store_options, pconf));
    printf("[api]\n%s", mw_options_reference(mw_api_options, pconf));
    for (i = 0; i < names->nelts; i++) {
        name = APR_ARRAY_IDX(names, i, const char *);
        table = mw_stores_provider(name)->options;
        printf("[%s]\n%s", name,
               table ? mw_options_reference(table, pconf) : "");
    }
    fflush(stdout);
}

void mw_config_each_store(mw_config_each_fn *each, void *baton)
{
    mw_stores_each(config_stores, each, baton);
}

const command_rec mw_config_commands[] = {
    AP_INIT_RAW_ARGS(MW_DIRECTIVE_API, config_set_api, NULL,
                     RSRC_CONF | ACCESS_CONF,
                     "the name of a store, and options: what the handler "
                     "cachemw-api serves to other servers"),
    AP_INIT_RAW_ARGS(MW_DIRECTIVE_STORE, config_set_store, NULL,
                     RSRC_CONF | ACCESS_CONF,
                     "a name, a provider and its options: a store for the "
                     "responses that mod_cache keeps"),
    AP_INIT_RAW_ARGS(MW_DIRECTIVE_PROVIDER, config_set_provider, NULL,
                     RSRC_CONF | ACCESS_CONF,
                     "the name of a store, or a provider and its options: "
                     "where this server's responses are kept"),
    AP_INIT_RAW_ARGS(MW_DIRECTIVE_NAMESPACE, config_set_name_space, NULL,
                     RSRC_CONF | ACCESS_CONF,
                     "what keeps this server's responses apart from others in "
                     "the same store, instead of ServerName:port"),
    { .name = NULL }
};
