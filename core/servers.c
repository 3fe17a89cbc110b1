/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_strings.h"
#include "httpd.h"
#include "http_log.h"
#include "http_main.h"

#include "enables.h"
#include "namespace.h"
#include "servers.h"

APLOG_USE_MODULE(cachemw);

mw_server_conf_t *mw_server_conf(const server_rec *s)
{
    return ap_get_module_config(s->module_config, &cachemw_module);
}

const mw_server_t *mw_config_server(const server_rec *s)
{
    return &mw_server_conf(s)->resolved;
}

void *mw_config_create_server(apr_pool_t *p, server_rec *s)
{
    (void)s;
    return apr_pcalloc(p, sizeof(mw_server_conf_t));
}

/* A namespace is one server's own: inherited, it would mix the pages of all
 * virtual hosts. */
void *mw_config_merge_server(apr_pool_t *p, void *base, void *add)
{
    const mw_server_conf_t *outer = base;
    const mw_server_conf_t *inner = add;
    mw_server_conf_t *merged = apr_pmemdup(p, inner, sizeof(*inner));

    if (!inner->word) {
        merged->word = outer->word;
        merged->has_options = outer->has_options;
        merged->word_place = outer->word_place;
        merged->definition = outer->definition;
    }
    return merged;
}

/* httpd lets a virtual host without directives of ours use the very structure
 * of the main server. */
static void server_own(server_rec *s, mw_server_conf_t *outer,
                       apr_pool_t *pconf)
{
    mw_server_conf_t empty = { .word = NULL };

    if (mw_server_conf(s) == outer) {
        ap_set_module_config(s->module_config, &cachemw_module,
                             mw_config_merge_server(pconf, outer, &empty));
    }
}

apr_array_header_t *mw_servers_list(server_rec *s, apr_pool_t *pconf)
{
    apr_array_header_t *servers = apr_array_make(pconf, 8, sizeof(s));
    mw_server_conf_t *outer = mw_server_conf(s);
    server_rec *virt;
    int at = 0;

    for (virt = s->next; virt; virt = virt->next) {
        server_own(virt, outer, pconf);
        apr_array_push(servers);
    }
    apr_array_push(servers);
    /* httpd's list has the last virtual host first. */
    for (virt = s->next; virt; virt = virt->next) {
        APR_ARRAY_IDX(servers, servers->nelts - ++at, server_rec *) = virt;
    }
    APR_ARRAY_IDX(servers, 0, server_rec *) = s;
    return servers;
}

/* "10.0.0.1:80" of a virtual host that is bound to an address. */
static const char *server_address(const server_rec *s, apr_pool_t *pool)
{
    const unsigned char *bytes;
    char *ip;
    int i;

    if (!s->is_virtual || !s->addrs || !s->addrs->host_addr) {
        return NULL;
    }
    bytes = s->addrs->host_addr->ipaddr_ptr;
    for (i = 0; i < s->addrs->host_addr->ipaddr_len && !bytes[i]; i++) {
        continue;
    }
    if (i == s->addrs->host_addr->ipaddr_len
        || apr_sockaddr_ip_get(&ip, s->addrs->host_addr) != APR_SUCCESS) {
        return NULL;
    }
    return apr_psprintf(pool, "%s:%u", ip, (unsigned)s->addrs->host_port);
}

static unsigned int server_port(const server_rec *s)
{
    if (s->port) {
        return s->port;
    }
    if (s->is_virtual && s->addrs && s->addrs->host_port) {
        return s->addrs->host_port;
    }
    return s->server_scheme && !strcmp(s->server_scheme, "https") ? 443 : 80;
}

static void server_warn_rival(const server_rec *s, const server_rec *rival)
{
    ap_log_error(APLOG_MARK, APLOG_WARNING, 0, ap_server_conf,
                 "The virtual hosts on line %u of %s and on line %u of %s have "
                 "the same ServerName and port: their responses are kept "
                 "apart, but lost at each restart; give each a ServerName of "
                 "its own, or a " MW_DIRECTIVE_NAMESPACE,
                 rival->defn_line_number, rival->defn_name, s->defn_line_number,
                 s->defn_name);
}

void mw_servers_name(const apr_array_header_t *servers,
                     const apr_array_header_t *enables, apr_pool_t *pconf)
{
    server_rec **all = (server_rec **)servers->elts;
    mw_site_t *sites = apr_pcalloc(pconf, servers->nelts * sizeof(*sites));
    mw_server_t *to;
    int i;

    for (i = 0; i < servers->nelts; i++) {
        sites[i].chosen = mw_server_conf(all[i])->chosen;
        sites[i].host = all[i]->server_hostname;
        sites[i].port = server_port(all[i]);
        sites[i].address = server_address(all[i], pconf);
        sites[i].is_main = i == 0;
    }
    mw_namespaces_resolve(sites, servers->nelts,
                          apr_psprintf(pconf, "%" APR_UINT64_T_HEX_FMT,
                                       (apr_uint64_t)apr_time_now()),
                          pconf);
    for (i = 0; i < servers->nelts; i++) {
        to = &mw_server_conf(all[i])->resolved;
        to->name_space = sites[i].name_space;
        to->name_space_len = strlen(sites[i].name_space);
        if (sites[i].rival >= 0 && sites[i].rival < i
            && mw_enables_apply(enables, all[i])) {
            server_warn_rival(all[i], all[sites[i].rival]);
        }
    }
}

/* The definition that a server's word means; NULL after an error. */
static mw_definition_t *server_find(const mw_server_conf_t *conf,
                                    mw_stores_t *stores)
{
    mw_definition_t *found = mw_stores_find(stores, conf->word);

    if (!found) {
        mw_place_error(&conf->word_place, MW_DIRECTIVE_PROVIDER " %s: %s",
                       conf->word, mw_stores_unknown(stores, conf->word));
    }
    else if (conf->has_options) {
        mw_place_error(&conf->word_place,
                       MW_DIRECTIVE_PROVIDER
                       " %s: options belong to the "
                       "store's definition, " MW_DIRECTIVE_STORE
                       " on line %d of %s",
                       conf->word, found->place.line, found->place.file);
        found = NULL;
    }
    return found;
}

/* @return non-zero after an error; an inherited mistake is one mistake */
static int server_resolve(mw_server_conf_t *conf, const mw_server_conf_t *outer,
                          mw_stores_t *stores, apr_pool_t *pconf)
{
    if (!conf->word) {
        conf->definition = mw_stores_default(stores);
        return 0;
    }
    if (conf != outer && conf->word == outer->word) {
        conf->definition = outer->definition;
        return 0;
    }
    if (!conf->definition) {
        conf->definition = server_find(conf, stores);
        return !conf->definition;
    }
    mw_stores_name(
        stores, conf->definition,
        apr_pstrcat(pconf, conf->word, "@", conf->resolved.name_space, NULL));
    return 0;
}

int mw_servers_resolve(const apr_array_header_t *servers, mw_stores_t *stores,
                       apr_pool_t *pconf)
{
    server_rec **all = (server_rec **)servers->elts;
    int errors = 0;
    int i;

    for (i = 0; i < servers->nelts; i++) {
        errors += server_resolve(mw_server_conf(all[i]), mw_server_conf(all[0]),
                                 stores, pconf);
    }
    return errors;
}

int mw_servers_use(const apr_array_header_t *servers, mw_stores_t *stores,
                   const apr_array_header_t *enables)
{
    server_rec **all = (server_rec **)servers->elts;
    mw_server_conf_t *conf;
    int used = 0;
    int i;

    for (i = 0; i < servers->nelts; i++) {
        if (mw_enables_apply(enables, all[i])) {
            conf = mw_server_conf(all[i]);
            mw_stores_use(stores, conf->definition);
            conf->resolved.store = conf->definition->store;
            used++;
        }
    }
    return used;
}

int mw_servers_say(const apr_array_header_t *servers)
{
    int i;

    for (i = 0; i < servers->nelts; i++) {
        if (mw_server_conf(APR_ARRAY_IDX(servers, i, server_rec *))->word) {
            return 1;
        }
    }
    return 0;
}

void mw_servers_drop_failed(server_rec *s)
{
    mw_server_t *server;

    for (; s; s = s->next) {
        server = &mw_server_conf(s)->resolved;
        if (server->store && !mw_store_state(server->store)) {
            server->store = NULL;
        }
        if (server->store) {
            ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, s,
                         "cachemw[%s]: keeps the responses of %s",
                         mw_store_name(server->store), server->name_space);
        }
    }
}
