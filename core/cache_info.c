/* SPDX-License-Identifier: Apache-2.0 */

#include <dlfcn.h>

#include "cache_request.h"

typedef apr_table_t *cacheable_headers_fn(request_rec *r);

static cacheable_headers_fn *cacheable_headers_out;

int mw_cacheable_bind(void)
{
    /* By way of a union, for ISO C has no cast from object to function. */
    union {
        void *symbol;
        cacheable_headers_fn *function;
    } found;

    found.symbol = dlsym(RTLD_DEFAULT, "ap_cache_cacheable_headers_out");
    cacheable_headers_out = found.function;
    return cacheable_headers_out != NULL;
}

apr_table_t *mw_cacheable_headers(request_rec *r)
{
    return cacheable_headers_out(r);
}

/* X(bit, member): the directives of cache_control_t, which are bit fields and
 * so cannot be reached through a table. */
#define CONTROL_BITS(X)                              \
    X(MW_CONTROL_PARSED, parsed)                     \
    X(MW_CONTROL_CACHE_CONTROL, cache_control)       \
    X(MW_CONTROL_PRAGMA, pragma)                     \
    X(MW_CONTROL_NO_CACHE, no_cache)                 \
    X(MW_CONTROL_NO_CACHE_HEADER, no_cache_header)   \
    X(MW_CONTROL_NO_STORE, no_store)                 \
    X(MW_CONTROL_MAX_AGE, max_age)                   \
    X(MW_CONTROL_MAX_STALE, max_stale)               \
    X(MW_CONTROL_MIN_FRESH, min_fresh)               \
    X(MW_CONTROL_NO_TRANSFORM, no_transform)         \
    X(MW_CONTROL_ONLY_IF_CACHED, only_if_cached)     \
    X(MW_CONTROL_PUBLIC, public)                     \
    X(MW_CONTROL_PRIVATE, private)                   \
    X(MW_CONTROL_PRIVATE_HEADER, private_header)     \
    X(MW_CONTROL_MUST_REVALIDATE, must_revalidate)   \
    X(MW_CONTROL_PROXY_REVALIDATE, proxy_revalidate) \
    X(MW_CONTROL_S_MAXAGE, s_maxage)                 \
    X(MW_CONTROL_INVALIDATED, invalidated)

void mw_info_from_head(cache_info *info, const mw_head_t *head)
{
    cache_control_t *control = &info->control;

    info->status = head->status;
    info->date = head->date;
    info->expire = head->expire;
    info->request_time = head->request_time;
    info->response_time = head->response_time;
#define FROM_BIT(bit, member) control->member = (head->control & (bit)) != 0;
    CONTROL_BITS(FROM_BIT)
#undef FROM_BIT
    control->max_age_value = head->max_age;
    control->max_stale_value = head->max_stale;
    control->min_fresh_value = head->min_fresh;
    control->s_maxage_value = head->s_maxage;
}

void mw_info_to_head(mw_head_t *head, const cache_info *info)
{
    const cache_control_t *control = &info->control;

    head->status = info->status;
    head->date = info->date;
    head->expire = info->expire;
    head->request_time = info->request_time;
    head->response_time = info->response_time;
    head->control = 0;
#define TO_BIT(bit, member) head->control |= control->member ? (bit) : 0;
    CONTROL_BITS(TO_BIT)
#undef TO_BIT
    head->max_age = control->max_age_value;
    head->max_stale = control->max_stale_value;
    head->min_fresh = control->min_fresh_value;
    head->s_maxage = control->s_maxage_value;
}
