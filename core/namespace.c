/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_hash.h"
#include "apr_lib.h"
#include "apr_strings.h"

#include "namespace.h"

#define NAMESPACE_PORT 80

/* The sites of one text, in order. */
typedef struct group_t {
    int first;    /* index of the first site */
    int count;    /* sites that have the text */
    int numbered; /* of them numbered so far */
} group_t;

static const char *namespace_plain(const mw_site_t *site, apr_pool_t *pool)
{
    char *host = apr_pstrdup(pool, site->host ? site->host : "");
    char *c;

    for (c = host; *c; c++) {
        *c = apr_tolower(*c);
    }
    return apr_psprintf(pool, "%s:%u", host,
                        site->port ? site->port : NAMESPACE_PORT);
}

/* Sites that chose their namespace take no part: theirs never changes. */
static apr_hash_t *namespace_groups(const mw_site_t *sites, int nsites,
                                    apr_pool_t *pool)
{
    apr_hash_t *groups = apr_hash_make(pool);
    group_t *group;
    int i;

    for (i = 0; i < nsites; i++) {
        if (sites[i].chosen) {
            continue;
        }
        group = apr_hash_get(groups, sites[i].name_space, APR_HASH_KEY_STRING);
        if (!group) {
            group = apr_pcalloc(pool, sizeof(*group));
            group->first = i;
            apr_hash_set(groups, sites[i].name_space, APR_HASH_KEY_STRING,
                         group);
        }
        group->count++;
    }
    return groups;
}

static void namespace_add_address(mw_site_t *sites, int nsites,
                                  apr_pool_t *pool)
{
    apr_hash_t *groups = namespace_groups(sites, nsites, pool);
    const group_t *group;
    const char *suffix;
    int i;

    for (i = 0; i < nsites; i++) {
        if (sites[i].chosen) {
            continue;
        }
        group = apr_hash_get(groups, sites[i].name_space, APR_HASH_KEY_STRING);
        suffix = sites[i].is_main ? "main" : sites[i].address;
        if (group->count > 1 && suffix) {
            sites[i].name_space =
                apr_pstrcat(pool, sites[i].name_space, "@", suffix, NULL);
        }
    }
}

static void namespace_add_number(mw_site_t *sites, int nsites,
                                 const char *nonce, apr_pool_t *pool)
{
    apr_hash_t *groups = namespace_groups(sites, nsites, pool);
    group_t *group;
    int i;

    for (i = 0; i < nsites; i++) {
        if (sites[i].chosen) {
            continue;
        }
        group = apr_hash_get(groups, sites[i].name_space, APR_HASH_KEY_STRING);
        if (group->count == 1) {
            continue;
        }
        if (group->first != i) {
            sites[i].rival = group->first;
            if (sites[group->first].rival < 0) {
                sites[group->first].rival = i;
            }
        }
        sites[i].name_space = apr_psprintf(
            pool, "%s#%d.%s", sites[i].name_space, ++group->numbered, nonce);
    }
}

void mw_namespaces_resolve(mw_site_t *sites, int nsites, const char *nonce,
                           apr_pool_t *pool)
{
    int i;

    for (i = 0; i < nsites; i++) {
        sites[i].rival = -1;
        sites[i].name_space = sites[i].chosen
                                  ? sites[i].chosen
                                  : namespace_plain(&sites[i], pool);
    }
    namespace_add_address(sites, nsites, pool);
    namespace_add_number(sites, nsites, nonce, pool);
}
