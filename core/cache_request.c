/* SPDX-License-Identifier: Apache-2.0 */

#include "cache_request.h"
#include "crc32c.h"
#include "wire.h"

#define ID_RANDOM 12 /* bytes; the sum is behind them */

mw_request_t *mw_request_state(request_rec *r)
{
    mw_request_t *state =
        ap_get_module_config(r->request_config, &cachemw_module);

    if (state == NULL) {
        state = apr_pcalloc(r->pool, sizeof(*state));
        ap_set_module_config(r->request_config, &cachemw_module, state);
    }
    return state;
}

static apr_uint32_t id_sum(const cachemw_id_t *id, const cachemw_key_t *key)
{
    return mw_crc32c(mw_crc32c(0, id->bytes, ID_RANDOM), key->data, key->len);
}

void mw_entry_id_draw(cachemw_id_t *id, const cachemw_key_t *key)
{
    mw_store_random(id->bytes, ID_RANDOM);
    mw_wire_put32(id->bytes + ID_RANDOM, id_sum(id, key));
}

int mw_entry_id_fits(const cachemw_id_t *id, const cachemw_key_t *key)
{
    return mw_wire_get32(id->bytes + ID_RANDOM) == id_sum(id, key);
}

void mw_request_call(request_rec *r, apr_time_t now, cachemw_call_t *call)
{
    call->pool = r->pool;
    call->bucket_alloc = r->connection->bucket_alloc;
    call->now = now;
    call->deadline = 0;
    call->purge_epoch = 0;
}

static int handle_set_key(mw_handle_t *handle, const mw_server_t *server,
                          const char *url_key, apr_pool_t *pool)
{
    apr_size_t url_len = strlen(url_key);
    apr_size_t len = server->name_space_len + 1 + url_len;
    char *data;

    /* A variant's key is longer by a fixed suffix and must fit as well. */
    if (len > CACHEMW_KEY_MAX - MW_VARY_KEY_EXTRA) {
        return 0;
    }
    data = apr_palloc(pool, len);
    memcpy(data, server->name_space, server->name_space_len);
    data[server->name_space_len] = '\0';
    memcpy(data + server->name_space_len + 1, url_key, url_len);
    handle->plain.data = data;
    handle->plain.len = len;
    handle->key = handle->plain;
    return 1;
}

mw_handle_t *mw_handle_make(request_rec *r, const mw_server_t *server,
                            const char *url_key)
{
    mw_request_t *state = mw_request_state(r);
    mw_handle_t *handle = apr_pcalloc(r->pool, sizeof(*handle));

    if (!handle_set_key(handle, server, url_key, r->pool)) {
        return NULL;
    }
    handle->object.key = url_key;
    handle->store = server->store;
    handle->connection = r->connection;
    handle->next = state->handles;
    state->handles = handle;
    return handle;
}

/* The request that stood before this one: a redirect's origin, or the request
 * that includes this one. */
static request_rec *request_before(const request_rec *r)
{
    return r->prev != NULL ? r->prev : r->main;
}

const mw_request_t *mw_request_noted(const request_rec *r)
{
    for (; r != NULL; r = request_before(r)) {
        const mw_request_t *state =
            ap_get_module_config(r->request_config, &cachemw_module);

        if (state != NULL && state->is_noted) {
            return state;
        }
    }
    return NULL;
}

mw_handle_t *mw_handle_recognise(request_rec *r, const cache_handle_t *h)
{
    if (h == NULL || h->cache_obj == NULL) {
        return NULL;
    }
    for (; r != NULL; r = request_before(r)) {
        mw_request_t *state =
            ap_get_module_config(r->request_config, &cachemw_module);
        mw_handle_t *handle = state != NULL ? state->handles : NULL;

        for (; handle != NULL; handle = handle->next) {
            if (&handle->object == h->cache_obj) {
                return handle;
            }
        }
    }
    return NULL;
}

mw_handle_t *mw_handle_of_lookup(request_rec *r, const cachemw_key_t *plain)
{
    for (; r != NULL; r = request_before(r)) {
        mw_request_t *state =
            ap_get_module_config(r->request_config, &cachemw_module);
        mw_handle_t *handle = state != NULL ? state->handles : NULL;

        for (; handle != NULL; handle = handle->next) {
            if ((handle->is_found || handle->is_miss)
                && handle->plain.len == plain->len
                && memcmp(handle->plain.data, plain->data, plain->len) == 0) {
                return handle;
            }
        }
    }
    return NULL;
}
