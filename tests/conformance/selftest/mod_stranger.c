/* SPDX-License-Identifier: Apache-2.0 */

/* A provider's module as a stranger builds it for httpd: it uses what
 * mod_cachemw.h allows, and keeps one small entry. */

#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "ap_provider.h"

#include "apr_strings.h"
#include "mod_cachemw.h"

extern module AP_MODULE_DECLARE_DATA stranger_module
    __attribute__((visibility("default")));

typedef struct stranger_t {
    const cachemw_services_t *services;
    char key[100];
    apr_size_t key_len;
    char head[1000];
    char body[1000];
    cachemw_entry_t entry;
} stranger_t;

static const cachemw_option_t options[] = {
    { .name = "size",
      .type = CACHEMW_SIZE,
      .fallback = "1000",
      .help = "Not used." },
    { .name = NULL },
};

static apr_status_t stranger_open(const cachemw_services_t *services,
                                  const cachemw_value_t *values,
                                  apr_pool_t *pconf, void **store,
                                  const char **error)
{
    stranger_t *s = apr_pcalloc(pconf, sizeof(*s));

    (void)values;
    (void)error;
    s->services = services;
    *store = s;
    return APR_SUCCESS;
}

static int is_mine(const stranger_t *s, const cachemw_key_t *key)
{
    return s->entry.expires > 0 && key->len == s->key_len
           && memcmp(key->data, s->key, key->len) == 0;
}

static apr_status_t stranger_get(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 cachemw_entry_t *entry)
{
    stranger_t *s = store;
    apr_bucket_brigade *body = entry->body;

    if (!is_mine(s, key) || s->entry.expires <= call->now) {
        return APR_NOTFOUND;
    }
    *entry = s->entry;
    entry->head = apr_pmemdup(call->pool, s->head, entry->head_len);
    entry->body = body;
    if (body != NULL && entry->body_len > 0) {
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_heap_create(s->body, (apr_size_t)entry->body_len,
                                         NULL, call->bucket_alloc));
    }
    return APR_SUCCESS;
}

static apr_status_t stranger_set(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_entry_t *entry)
{
    stranger_t *s = store;
    apr_size_t length = sizeof(s->body);

    (void)call;
    if (key->len > sizeof(s->key) || entry->head_len > sizeof(s->head)
        || entry->body_len > (apr_off_t)sizeof(s->body)) {
        return APR_ENOSPC;
    }
    memcpy(s->key, key->data, key->len);
    s->key_len = key->len;
    s->entry = *entry;
    memcpy(s->head, entry->head, entry->head_len);
    return entry->body != NULL
               ? apr_brigade_flatten(entry->body, s->body, &length)
               : APR_SUCCESS;
}

static apr_status_t stranger_remove(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    const cachemw_id_t *id)
{
    stranger_t *s = store;

    (void)call;
    if (is_mine(s, key)) {
        if (id != NULL && memcmp(id, &s->entry.id, sizeof(*id)) != 0) {
            return APR_NOTFOUND;
        }
        s->entry.expires = 0;
    }
    return APR_SUCCESS;
}

static const cachemw_provider_t stranger_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_SERIALIZE,
    .options = options,
    .open = stranger_open,
    .get = stranger_get,
    .set = stranger_set,
    .remove = stranger_remove,
};

static int stranger_post_config(apr_pool_t *pconf, apr_pool_t *plog,
                                apr_pool_t *ptemp, server_rec *s)
{
    (void)pconf;
    (void)plog;
    (void)ptemp;
    ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, s, "stranger: here");
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    if (ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "stranger",
                             CACHEMW_PROVIDER_VERSION, &stranger_provider)
        != APR_SUCCESS) {
        ap_log_perror(APLOG_MARK, APLOG_ERR, 0, p, "stranger: cannot register");
    }
    ap_hook_post_config(stranger_post_config, NULL, NULL, APR_HOOK_MIDDLE);
}

module AP_MODULE_DECLARE_DATA stranger_module = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks, 0,
};
