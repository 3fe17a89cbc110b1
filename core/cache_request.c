/* SPDX-License-Identifier: Apache-2.0 */

#include "cache_request.h"
#include "crc32c.h"
#include "random.h"
#include "wire.h"

#define ID_RANDOM 12 /* bytes; the sum is behind them */

mw_request_t *mw_request_begin(request_rec *r)
{
    mw_request_t *state = apr_pcalloc(r->pool, sizeof(*state));

    ap_set_module_config(r->request_config, &cachemw_module, state);
    return state;
}

typedef struct field_t {
    const char *name;
    unsigned int bit;
    const char *except; /* a value that does not count, or NULL */
} field_t;

static unsigned int field_bit(const apr_table_entry_t *field)
{
    static const field_t fields[] = {
        { "Cache-Control", MW_REQUEST_CACHE_CONTROL, NULL },
        { "Content-Length", MW_REQUEST_BODY, "0" },
        { "If-Modified-Since", MW_REQUEST_CONDITIONAL, NULL },
        { "If-None-Match", MW_REQUEST_CONDITIONAL, NULL },
        { "Transfer-Encoding", MW_REQUEST_BODY, NULL }
    };
    const field_t *known;

    for (known = fields; known < fields + sizeof(fields) / sizeof(fields[0]);
         known++) {
        if (!ap_cstr_casecmp(field->key, known->name)) {
            return known->except != NULL && !strcmp(field->val, known->except)
                       ? 0
                       : known->bit;
        }
    }
    return 0;
}

unsigned int mw_request_fields(const request_rec *r)
{
    const apr_array_header_t *all = apr_table_elts(r->headers_in);
    const apr_table_entry_t *field = (const apr_table_entry_t *)all->elts;
    const apr_table_entry_t *end = field + all->nelts;
    unsigned int found = 0;

    for (; field < end; field++) {
        switch (*field->key | 0x20) {
        case 'c':
        case 'i':
        case 't':
            found |= field_bit(field);
        }
    }
    return found;
}

static apr_uint32_t id_sum(const cachemw_id_t *id, const cachemw_key_t *key)
{
    return mw_crc32c(mw_crc32c(0, id->bytes, ID_RANDOM), key->data, key->len);
}

void mw_entry_id_draw(cachemw_id_t *id, const cachemw_key_t *key)
{
    if (!mw_random_draw(id->bytes, ID_RANDOM)) {
        mw_store_random(id->bytes, ID_RANDOM);
    }
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
    call->sendfile = 0;
    call->context = NULL;
}

/* What the first handle of a request needs is one piece. The key is behind
 * it. */
typedef struct first_t {
    mw_request_t state;
    mw_handle_t handle;
} first_t;

static mw_handle_t *handle_alloc(request_rec *r, apr_size_t key_len)
{
    mw_request_t *state =
        ap_get_module_config(r->request_config, &cachemw_module);
    mw_handle_t *handle;
    first_t *first;

    if (state == NULL) {
        first = apr_pcalloc(r->pool, sizeof(*first) + key_len);
        state = &first->state;
        handle = &first->handle;
        ap_set_module_config(r->request_config, &cachemw_module, state);
    }
    else {
        handle = apr_pcalloc(r->pool, sizeof(*handle) + key_len);
    }
    handle->next = state->handles;
    state->handles = handle;
    return handle;
}

mw_handle_t *mw_handle_make(request_rec *r, const mw_server_t *server,
                            const char *url_key)
{
    apr_size_t url_len = strlen(url_key);
    apr_size_t len = server->name_space_len + 1 + url_len;
    mw_handle_t *handle;
    char *data;

    /* A variant's key is longer by a fixed suffix and must fit as well. */
    if (len > CACHEMW_KEY_MAX - MW_VARY_KEY_EXTRA) {
        return NULL;
    }
    handle = handle_alloc(r, len);
    data = (char *)(handle + 1);
    memcpy(data, server->name_space, server->name_space_len);
    data[server->name_space_len] = '\0';
    memcpy(data + server->name_space_len + 1, url_key, url_len);
    handle->plain.data = data;
    handle->plain.len = len;
    handle->key = handle->plain;
    handle->object.key = url_key;
    handle->store = server->store;
    handle->connection = r->connection;
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

mw_handle_t *mw_handle_of_storing(const request_rec *r)
{
    for (; r != NULL; r = r->prev) {
        const mw_request_t *state =
            ap_get_module_config(r->request_config, &cachemw_module);
        mw_handle_t *handle = state != NULL ? state->handles : NULL;

        for (; handle != NULL; handle = handle->next) {
            if (handle->set != NULL) {
                return handle;
            }
        }
    }
    return NULL;
}
