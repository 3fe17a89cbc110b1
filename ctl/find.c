/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "find.h"

/* A run over all keys for the entries of a URL. */
typedef struct search_t {
    const mw_depot_t *depot;
    mw_store_t *store;
    const char *host; /* NULL: any */
    const char *url;
    apr_array_header_t *keys;
    apr_pool_t *pool;  /* of the keys found */
    apr_pool_t *pool1; /* of one entry */
} search_t;

apr_status_t mw_find_head(const mw_depot_t *depot, mw_store_t *store,
                          const cachemw_key_t *key, cachemw_entry_t *entry,
                          apr_pool_t *pool)
{
    cachemw_call_t call;

    mw_depot_call(depot, store, 0, pool, &call);
    memset(entry, 0, sizeof(*entry));
    return mw_store_get(store, &call, key, entry);
}

static void key_note(apr_array_header_t *keys, const cachemw_key_t *key,
                     apr_pool_t *pool)
{
    cachemw_key_t *copy = apr_array_push(keys);

    copy->data = apr_pmemdup(pool, key->data, key->len);
    copy->len = key->len;
}

static apr_status_t search_see(void *baton, const cachemw_key_t *key,
                               const cachemw_entry_t *entry)
{
    const search_t *search = baton;
    cachemw_entry_t whole = *entry;
    mw_page_t page;

    apr_pool_clear(search->pool1);
    mw_page_of_key(key, &page, search->pool1);
    if (page.kind == MW_PAGE_FOREIGN
        && (whole.head
            || mw_find_head(search->depot, search->store, key, &whole,
                            search->pool1)
                   == APR_SUCCESS)) {
        mw_page_of_entry(key, &whole, &page, search->pool1);
    }
    if ((page.kind != MW_PAGE_VARIANT || page.is_api)
        && !strcmp(page.url, search->url)
        && mw_page_is_of(&page, search->host)) {
        key_note(search->keys, key, search->pool);
    }
    return APR_SUCCESS;
}

static apr_status_t search_all(search_t *search)
{
    cachemw_call_t call;
    apr_status_t rv;

    apr_pool_create(&search->pool1, search->pool);
    mw_depot_call(search->depot, search->store, 1, search->pool, &call);
    rv = mw_store_keys(search->store, &call, NULL, search_see, search);
    apr_pool_destroy(search->pool1);
    return rv;
}

apr_status_t mw_find(const mw_depot_t *depot, mw_store_t *store,
                     const char *url, apr_pool_t *pool,
                     apr_array_header_t **keys)
{
    const char *wanted = depot->ctl->host, *host;
    const char *url_key = mw_page_url_key(url, &host, pool);
    const char *guesses[2] = { wanted ? wanted : host, NULL };
    search_t search = { .depot = depot, .store = store, .host = wanted };
    cachemw_entry_t entry;
    cachemw_key_t key;
    mw_page_t page;
    apr_status_t rv;
    int i;

    *keys = search.keys = apr_array_make(pool, 4, sizeof(cachemw_key_t));
    search.pool = pool;
    key = mw_page_key(guesses[0], url_key, pool);
    mw_page_of_key(&key, &page, pool);
    search.url = page.url;
    if (!wanted) {
        /* of a ServerName without a port, outside of virtual hosts */
        guesses[1] = apr_pstrcat(
            pool, apr_pstrmemdup(pool, host, strcspn(host, ":")), ":80", NULL);
    }
    for (i = 0; i < 2 && guesses[i]; i++) {
        key = mw_page_key(guesses[i], url_key, pool);
        rv = mw_find_head(depot, store, &key, &entry, pool);
        if (rv == APR_SUCCESS) {
            key_note(search.keys, &key, pool);
        }
        if (rv != APR_NOTFOUND) {
            return rv;
        }
    }
    rv = search_all(&search);
    if (rv == APR_ENOTIMPL && !wanted) {
        mw_ctl_error(0,
                     "%s: a store of %s cannot list its entries, so %s is "
                     "looked for under %s only: --host names another virtual "
                     "host",
                     mw_store_name(store), mw_store_provider_name(store), url,
                     host);
    }
    return rv;
}

/* --- bodies --------------------------------------------------------------- */

static apr_status_t pieces_give(apr_bucket_brigade *body, mw_piece_fn *each,
                                void *baton, apr_off_t *given)
{
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(body)) {
        apr_bucket *e = APR_BRIGADE_FIRST(body);
        const char *data;
        apr_size_t n;

        rv = apr_bucket_read(e, &data, &n, APR_BLOCK_READ);
        if (rv == APR_SUCCESS && n > 0) {
            rv = each(baton, data, n);
            *given += (apr_off_t)n;
        }
        apr_bucket_delete(e);
    }
    apr_brigade_cleanup(body);
    return rv;
}

static apr_status_t piece_read(const mw_depot_t *depot, mw_store_t *store,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry, apr_off_t at,
                               apr_bucket_brigade *body, apr_pool_t *pool)
{
    cachemw_call_t call;

    mw_depot_call(depot, store, 0, pool, &call);
    /* what expires while it is read is read to its end */
    if (call.now >= entry->expires) {
        call.now = entry->expires - 1;
    }
    return mw_store_read(store, &call, key, &entry->id, at, CACHEMW_PIECE_MAX,
                         body);
}

apr_status_t mw_find_body(const mw_depot_t *depot, mw_store_t *store,
                          const cachemw_key_t *key, cachemw_entry_t *entry,
                          apr_status_t (*begin)(void *baton,
                                                const cachemw_entry_t *entry),
                          mw_piece_fn *each, void *baton, apr_pool_t *pool)
{
    apr_bucket_brigade *body = apr_brigade_create(pool, depot->alloc);
    apr_off_t given = 0;
    cachemw_call_t call;
    apr_pool_t *pool1;
    apr_status_t rv;

    mw_depot_call(depot, store, 0, pool, &call);
    memset(entry, 0, sizeof(*entry));
    entry->body = body;
    rv = mw_store_get(store, &call, key, entry);
    if (rv == APR_SUCCESS && begin) {
        rv = begin(baton, entry);
    }
    if (rv == APR_SUCCESS) {
        rv = pieces_give(body, each, baton, &given);
    }
    apr_pool_create(&pool1, pool);
    while (rv == APR_SUCCESS && given < entry->body_len) {
        apr_pool_clear(pool1);
        rv = piece_read(depot, store, key, entry, given, body, pool1);
        if (rv == APR_SUCCESS) {
            rv = pieces_give(body, each, baton, &given);
        }
    }
    apr_brigade_cleanup(body);
    apr_pool_destroy(pool1);
    return rv;
}
