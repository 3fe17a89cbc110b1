/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file mod_cachemw_framed.c
 * @brief A provider for tests: another store, which is handed such heads and
 *        keys as responses have.
 *
 *     --store inner http base_url=… framed inner=inner
 *
 * The API of mod_cachemw takes no entry that could not be a response. The
 * conformance suite has heads of any bytes, and keys that are longer than URLs
 * can be: here the former become a part of the head of a response, and the
 * latter their digest.
 */

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "core/entry.h"
#include "mod_cachemw.h"

#define KEY_MAX 8192

typedef struct framed_t {
    const cachemw_provider_t *inner;
    void *self; /* the inner store */
} framed_t;

static cachemw_key_t key_frame(const cachemw_key_t *key, apr_pool_t *pool)
{
    cachemw_key_t framed = *key;
    unsigned char *digest;

    if (key->len > KEY_MAX) {
        digest = apr_palloc(pool, SHA256_DIGEST_LENGTH);
        if (!SHA256((const unsigned char *)key->data, key->len, digest)) {
            abort();
        }
        framed.data = (const char *)digest;
        framed.len = SHA256_DIGEST_LENGTH;
    }
    return framed;
}

/* A response without fields, but for what it would vary by. */
static apr_status_t head_frame(const cachemw_entry_t *entry,
                               cachemw_entry_t *framed, apr_pool_t *pool)
{
    mw_head_t head = { .status = 200,
                       .vary_block = entry->head,
                       .vary_block_len = entry->head_len };

    *framed = *entry;
    return mw_head_encode(&head, 1, pool, &framed->head, &framed->head_len);
}

static apr_status_t head_unframe(cachemw_entry_t *entry, apr_pool_t *pool)
{
    mw_head_t head;
    apr_status_t rv = mw_head_decode(entry->head, entry->head_len,
                                     entry->body_len, pool, &head);

    if (rv == APR_SUCCESS) {
        entry->head = head.vary_block;
        entry->head_len = head.vary_block_len;
    }
    return rv;
}

/* --- slots ---------------------------------------------------------------- */

static const cachemw_option_t framed_options[] = {
    { .name = "inner",
      .type = CACHEMW_STORE,
      .required = 1,
      .help = "The store that does the work." },
    { .name = NULL }
};

static apr_status_t framed_open(const cachemw_services_t *services,
                                const cachemw_value_t *values,
                                apr_pool_t *pconf, void **store,
                                const char **error)
{
    framed_t *framed = apr_pcalloc(pconf, sizeof(*framed));
    apr_status_t rv = services->store(services, values[0].string,
                                      &framed->inner, &framed->self);

    *store = framed;
    *error = "inner: there is no such store";
    return rv;
}

static apr_status_t framed_get(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, cachemw_entry_t *entry)
{
    const framed_t *framed = store;
    const cachemw_key_t name = key_frame(key, call->pool);
    apr_status_t rv = framed->inner->get(framed->self, call, &name, entry);

    return rv == APR_SUCCESS ? head_unframe(entry, call->pool) : rv;
}

static apr_status_t framed_set(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry)
{
    const framed_t *framed = store;
    const cachemw_key_t name = key_frame(key, call->pool);
    cachemw_entry_t whole;
    apr_status_t rv = head_frame(entry, &whole, call->pool);

    return rv == APR_SUCCESS
               ? framed->inner->set(framed->self, call, &name, &whole)
               : rv;
}

static apr_status_t framed_remove(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id)
{
    const framed_t *framed = store;
    const cachemw_key_t name = key_frame(key, call->pool);

    return framed->inner->remove(framed->self, call, &name, id);
}

static apr_status_t framed_set_head(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    const cachemw_id_t *id,
                                    const cachemw_entry_t *entry)
{
    const framed_t *framed = store;
    const cachemw_key_t name = key_frame(key, call->pool);
    cachemw_entry_t whole;
    apr_status_t rv = head_frame(entry, &whole, call->pool);

    return rv == APR_SUCCESS
               ? framed->inner->set_head(framed->self, call, &name, id, &whole)
               : rv;
}

static apr_status_t framed_exists(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key)
{
    const framed_t *framed = store;
    const cachemw_key_t name = key_frame(key, call->pool);

    return framed->inner->exists(framed->self, call, &name);
}

static apr_off_t framed_object_limit(void *store)
{
    const framed_t *framed = store;

    return framed->inner->object_limit(framed->self);
}

static const cachemw_provider_t framed_provider = {
    .size = sizeof(cachemw_provider_t),
    .options = framed_options,
    .open = framed_open,
    .get = framed_get,
    .set = framed_set,
    .remove = framed_remove,
    .set_head = framed_set_head,
    .exists = framed_exists,
    .object_limit = framed_object_limit,
};

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "framed",
                         CACHEMW_PROVIDER_VERSION, &framed_provider);
}

/* The one symbol that leaves this object. */
extern module AP_MODULE_DECLARE_DATA cachemw_framed_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(cachemw_framed) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
