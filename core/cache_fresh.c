/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_strings.h"

#include "cache_request.h"

/* Whether a Cache-Control field has a directive; its number, or 0. */
static int directive_find(const char *field, const char *name,
                          apr_int64_t *number, apr_pool_t *pool)
{
    const apr_size_t length = strlen(name);
    const char *item;

    while (field != NULL && (item = ap_get_list_item(pool, &field)) != NULL) {
        if (strncmp(item, name, length) == 0
            && (item[length] == '\0' || item[length] == '=')) {
            item += length + (item[length] == '=');
            *number = apr_atoi64(*item == '"' ? item + 1 : item);
            return 1;
        }
    }
    return 0;
}

/* The request's own limit on the age; -1: none. */
static apr_int64_t request_max_age(request_rec *r)
{
    const char *field = apr_table_getm(r->pool, r->headers_in, "Cache-Control");
    apr_int64_t seconds;

    return directive_find(field, "max-age", &seconds, r->pool) ? seconds : -1;
}

int mw_fresh_request_is_plain(request_rec *r)
{
    static const char *const others[] = { "no-cache",       "no-store",
                                          "only-if-cached", "min-fresh",
                                          "max-stale",      NULL };
    const char *field = apr_table_getm(r->pool, r->headers_in, "Cache-Control");
    apr_int64_t number;
    int i;

    if (apr_table_get(r->headers_in, "Pragma") != NULL) {
        return 0;
    }
    for (i = 0; field != NULL && others[i] != NULL; i++) {
        if (directive_find(field, others[i], &number, r->pool)) {
            return 0;
        }
    }
    return field == NULL || request_max_age(r) != 0;
}

/* RFC 9111, section 4.2.3, in seconds, at the time that mod_cache goes by. Who
 * waited came before the response that it got. */
static apr_int64_t head_age(const mw_head_t *head, const request_rec *r)
{
    const apr_time_t age = r->request_time - head->born;

    return age < 0 ? 0 : apr_time_sec(age);
}

/* Section 4.2.1. */
static apr_int64_t head_lifetime(const mw_head_t *head)
{
    if (head->s_maxage != -1) {
        return head->s_maxage;
    }
    return head->max_age != -1 ? head->max_age
                               : apr_time_sec(head->expire - head->date);
}

/* Apart, so that a request without Cache-Control saves no registers for it. */
static int __attribute__((noinline))
age_is_wanted(apr_int64_t age, request_rec *r)
{
    const apr_int64_t limit = request_max_age(r);

    return limit == -1 || age < limit;
}

int mw_fresh_is(const mw_handle_t *handle, request_rec *r)
{
    const mw_head_t *head = &handle->head;
    const apr_int64_t age = head_age(head, r);

    return !(head->control & (MW_CONTROL_NO_CACHE | MW_CONTROL_INVALIDATED))
           && age < head_lifetime(head)
           && (!(handle->fields & MW_REQUEST_CACHE_CONTROL)
               || age_is_wanted(age, r));
}

int mw_fresh_never(const mw_handle_t *handle, request_rec *r)
{
    const mw_head_t *head = &handle->head;
    const char *field = apr_table_getm(r->pool, head->headers, "Cache-Control");
    apr_int64_t longer;

    return !(head->control & MW_CONTROL_INVALIDATED)
           && (head->control & MW_CONTROL_NO_CACHE || head_lifetime(head) <= 0)
           && !directive_find(field, "stale-while-revalidate", &longer,
                              r->pool);
}

int mw_fresh_extend(mw_handle_t *handle, request_rec *r)
{
    mw_head_t *head = &handle->head;
    const char *field = apr_table_getm(r->pool, head->headers, "Cache-Control");
    const apr_int64_t age = head_age(head, r);
    const apr_int64_t limit = request_max_age(r);
    apr_int64_t longer;

    /* Section 4.2.4: these forbid to answer with what is stale. */
    if (head->control
            & (MW_CONTROL_NO_CACHE | MW_CONTROL_INVALIDATED
               | MW_CONTROL_MUST_REVALIDATE | MW_CONTROL_PROXY_REVALIDATE
               | MW_CONTROL_S_MAXAGE)
        || head->s_maxage != -1 || (limit != -1 && age >= limit)
        || !directive_find(field, "stale-while-revalidate", &longer, r->pool)
        || age - head_lifetime(head) >= longer) {
        return 0;
    }
    if (head->max_age != -1) {
        head->max_age = age + 1;
    }
    head->expire = age < apr_time_sec(MW_TIME_MAX - head->date)
                       ? head->date + apr_time_from_sec(age + 1)
                       : MW_TIME_MAX;
    return 1;
}
