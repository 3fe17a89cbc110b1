/* SPDX-License-Identifier: Apache-2.0 */

#include <strings.h>

#include "apr_strings.h"
#include "httpd.h"
#include "ap_provider.h"
#include "http_log.h"
#include "mod_cache.h"

#include "config.h"
#include "enables.h"
#include "servers.h"

APLOG_USE_MODULE(cachemw);

static int enable_is_ours(const mw_enable_t *enable)
{
    return strcmp(enable->type, MW_CACHE_TYPE) == 0;
}

/* Of "http://host/path" the path; patterns may match anything. */
static const char *enable_path(const char *url)
{
    const char *host = ap_strstr_c(url, "://");

    if (host) {
        url = ap_strchr_c(host + 3, '/');
    }
    return url && *url == '/' ? url : "/";
}

static const char *enable_section_path(const ap_directive_t *line,
                                       apr_pool_t *pool)
{
    const ap_directive_t *section;
    const char *args;
    char *path;

    for (section = line->parent; section; section = section->parent) {
        if (!strcasecmp(section->directive, "<Location")) {
            args = section->args;
            path = ap_getword_conf(pool, &args);
            path[strcspn(path, ">")] = '\0';
            return *path == '~' ? "/" : path;
        }
    }
    return "/";
}

static void enable_add(apr_array_header_t *enables, const ap_directive_t *line,
                       const ap_directive_t *vhost, apr_pool_t *pool)
{
    mw_enable_t *enable = apr_array_push(enables);
    const char *args = line->args;
    const char *url;

    enable->type = ap_getword_conf(pool, &args);
    url = ap_getword_conf(pool, &args);
    enable->path = enable_path(*url ? url : enable_section_path(line, pool));
    enable->line = line;
    enable->vhost = vhost;
}

static void enable_walk(apr_array_header_t *enables, const ap_directive_t *line,
                        const ap_directive_t *vhost, apr_pool_t *pool)
{
    for (; line; line = line->next) {
        if (!strcasecmp(line->directive, "CacheEnable")) {
            enable_add(enables, line, vhost, pool);
        }
        else if (line->first_child) {
            enable_walk(enables, line->first_child,
                        strcasecmp(line->directive, "<VirtualHost") ? vhost
                                                                    : line,
                        pool);
        }
    }
}

static int enable_holds_for(const mw_enable_t *enable, const server_rec *s)
{
    return !enable->vhost
           || (s->is_virtual && s->defn_name
               && s->defn_line_number == (unsigned)enable->vhost->line_num
               && strcmp(s->defn_name, enable->vhost->filename) == 0);
}

/* Whether a request can fall under both. */
static int enable_meets(const mw_enable_t *a, const mw_enable_t *b)
{
    apr_size_t a_len = strlen(a->path);
    apr_size_t b_len = strlen(b->path);

    return (!a->vhost || !b->vhost || a->vhost == b->vhost)
           && strncmp(a->path, b->path, a_len < b_len ? a_len : b_len) == 0;
}

/* mod_cache_disk and mod_cache_socache call themselves so. */
static int enable_is_httpds(const char *type)
{
    return !strcmp(type, "disk") || !strcmp(type, "socache");
}

/* Of a name that mod_cache does not know: what was meant. */
static const char *enable_hint(const char *type, mw_stores_t *stores,
                               apr_pool_t *pool)
{
    char *lower = apr_pstrdup(pool, type);

    ap_str_tolower(lower);
    if (enable_is_httpds(type)) {
        return apr_psprintf(pool, "load mod_cache_%s, or ", type);
    }
    if (mw_stores_provider(lower)) {
        return "the store is named by " MW_DIRECTIVE_PROVIDER "; ";
    }
    if (mw_stores_find(stores, type)) {
        return apr_psprintf(pool,
                            "%s is a store: " MW_DIRECTIVE_PROVIDER " %s, and ",
                            type, type);
    }
    return ap_strstr_c(lower, "cache") || ap_strstr_c(lower, "mw")
               ? "probably meant: "
               : "";
}

static void enable_warn_unknown(const mw_enable_t *enable, mw_stores_t *stores,
                                const server_rec *s, apr_pool_t *pool)
{
    ap_log_error(
        APLOG_MARK, APLOG_WARNING, 0, s,
        "CacheEnable %s on line %d of %s: mod_cache has no provider "
        "of this name and ignores the line; %swrite CacheEnable " MW_CACHE_TYPE,
        enable->type, enable->line->line_num, enable->line->filename,
        enable_hint(enable->type, stores, pool));
}

static void enable_warn_beside(const mw_enable_t *ours,
                               const mw_enable_t *other, const server_rec *s)
{
    ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                 "CacheEnable " MW_CACHE_TYPE " on line %d of %s stands beside "
                 "CacheEnable %s on line %d of %s for the same URLs: what is "
                 "stale in the first one hides what is fresh in the second; "
                 "use one of them for each URL",
                 ours->line->line_num, ours->line->filename, other->type,
                 other->line->line_num, other->line->filename);
}

apr_array_header_t *mw_enables_collect(const ap_directive_t *tree,
                                       apr_pool_t *pool)
{
    apr_array_header_t *enables = apr_array_make(pool, 4, sizeof(mw_enable_t));

    enable_walk(enables, tree, NULL, pool);
    return enables;
}

int mw_enables_apply(const apr_array_header_t *enables, const server_rec *s)
{
    const mw_enable_t *enable = (const mw_enable_t *)enables->elts;
    int i;

    for (i = 0; i < enables->nelts; i++) {
        if (enable_is_ours(&enable[i]) && enable_holds_for(&enable[i], s)) {
            return 1;
        }
    }
    return 0;
}

void mw_enables_warn(const apr_array_header_t *enables, mw_stores_t *stores,
                     const server_rec *s, apr_pool_t *pool)
{
    const mw_enable_t *enable = (const mw_enable_t *)enables->elts;
    int i, j;

    for (i = 0; i < enables->nelts; i++) {
        if (!ap_lookup_provider(CACHE_PROVIDER_GROUP, enable[i].type, "0")) {
            enable_warn_unknown(&enable[i], stores, s, pool);
            continue;
        }
        for (j = 0; enable_is_ours(&enable[i]) && j < enables->nelts; j++) {
            if (!enable_is_ours(&enable[j])
                && enable_meets(&enable[i], &enable[j])
                && ap_lookup_provider(CACHE_PROVIDER_GROUP, enable[j].type,
                                      "0")) {
                enable_warn_beside(&enable[i], &enable[j], s);
                break;
            }
        }
    }
}
