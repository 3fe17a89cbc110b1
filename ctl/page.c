/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_escape.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "apr_uri.h"

#include "core/api_entry.h"
#include "page.h"

/* Behind the plain key of a variant: NUL, 1, epoch, digest. */
#define SUFFIX_START "\0\1"

static const struct {
    const char *scheme;
    const char *port;
} schemes[] = {
    { "http://", ":80" },
    { "https://", ":443" },
};

#define SCHEMES (sizeof(schemes) / sizeof(*schemes))

const char *mw_page_kind(const mw_page_t *page)
{
    static const char *const kinds[] = {
        [MW_PAGE_PLAIN] = "page",
        [MW_PAGE_VARIANT] = "variant",
        [MW_PAGE_RECORD] = "vary",
        [MW_PAGE_FOREIGN] = "other",
    };

    return page->is_api && page->kind == MW_PAGE_FOREIGN ? "api"
                                                         : kinds[page->kind];
}

/* "http://a:80/b?" is "http://a/b". */
static const char *url_show(const char *url, apr_size_t length,
                            apr_pool_t *pool)
{
    char *text = apr_pstrmemdup(pool, url, length);
    apr_size_t i, n;
    char *end;

    if (length > 0 && text[length - 1] == '?') {
        text[length - 1] = '\0';
    }
    for (i = 0; i < SCHEMES; i++) {
        n = strlen(schemes[i].scheme);
        if (strncmp(text, schemes[i].scheme, n) != 0) {
            continue;
        }
        end = text + n + strcspn(text + n, "/?");
        n = strlen(schemes[i].port);
        if ((apr_size_t)(end - text) > n
            && !strncmp(end - n, schemes[i].port, n)) {
            memmove(end - n, end, strlen(end) + 1);
        }
    }
    return text;
}

static int url_has_scheme(const char *url, apr_size_t length)
{
    apr_size_t i;

    for (i = 0; i < SCHEMES; i++) {
        const apr_size_t n = strlen(schemes[i].scheme);

        if (length >= n && !strncmp(url, schemes[i].scheme, n)) {
            return 1;
        }
    }
    return 0;
}

/* The length of a key without a variant's suffix. */
static apr_size_t key_plain(const cachemw_key_t *key)
{
    const apr_size_t plain =
        key->len > MW_VARY_KEY_EXTRA ? key->len - MW_VARY_KEY_EXTRA : 0;

    return plain && !memcmp(key->data + plain, SUFFIX_START, 2) ? plain
                                                                : key->len;
}

void mw_page_of_key(const cachemw_key_t *key, mw_page_t *page, apr_pool_t *pool)
{
    const char *nul = key->len ? memchr(key->data, '\0', key->len) : NULL;
    const apr_size_t plain = key_plain(key);
    const char *url = nul ? nul + 1 : NULL;

    memset(page, 0, sizeof(*page));
    page->host = "";
    if (!nul || nul == key->data || url > key->data + plain
        || !url_has_scheme(url, key->data + plain - url)) {
        page->kind = MW_PAGE_FOREIGN;
        page->url = apr_pescape_hex(pool, key->data, key->len, 0);
        return;
    }
    page->host = key->data;
    page->host_len = nul - key->data;
    page->url = url_show(url, key->data + plain - url, pool);
    if (plain < key->len) {
        page->kind = MW_PAGE_VARIANT;
        apr_escape_hex(page->variant, key->data + key->len - MW_DIGEST_LEN,
                       MW_DIGEST_LEN, 0, NULL);
    }
}

static apr_status_t page_decode(const cachemw_entry_t *entry, mw_page_t *page,
                                apr_pool_t *pool)
{
    apr_status_t rv;

    switch (mw_head_kind(entry->head, entry->head_len)) {
    case MW_HEAD_RESPONSE:
        rv = mw_head_decode(entry->head, entry->head_len, entry->body_len, pool,
                            &page->head);
        page->has_head = rv == APR_SUCCESS;
        return rv;
    case MW_HEAD_VARY:
        rv = mw_vary_decode(entry->head, entry->head_len, pool, &page->vary);
        if (rv == APR_SUCCESS) {
            page->kind = MW_PAGE_RECORD;
        }
        return rv;
    default:
        return APR_EINCOMPLETE;
    }
}

apr_status_t mw_page_of_entry(const cachemw_key_t *key,
                              const cachemw_entry_t *entry, mw_page_t *page,
                              apr_pool_t *pool)
{
    cachemw_entry_t inner = *entry;
    cachemw_key_t name = *key;
    int hops = 0;

    while (hops < MW_API_HOPS_MAX
           && mw_head_kind(inner.head, inner.head_len) == MW_HEAD_API
           && mw_api_head_decode(&inner, &name) == APR_SUCCESS) {
        hops++;
    }
    mw_page_of_key(&name, page, pool);
    page->is_api = hops > 0;
    return page_decode(&inner, page, pool);
}

const char *mw_page_url_key(const char *url, const char **host,
                            apr_pool_t *pool)
{
    apr_uri_t uri;
    apr_port_t port;
    char *c;

    if (!url_has_scheme(url, strlen(url))
        || apr_uri_parse(pool, url, &uri) != APR_SUCCESS || !uri.hostname) {
        return NULL;
    }
    for (c = uri.hostname; *c; c++) {
        *c = apr_tolower(*c);
    }
    port = uri.port_str && *uri.port_str ? uri.port
                                         : apr_uri_port_of_scheme(uri.scheme);
    *host = apr_psprintf(pool, "%s:%u", uri.hostname, port);
    return apr_psprintf(pool, "%s://%s:%u%s?%s", uri.scheme, uri.hostname, port,
                        uri.path ? uri.path : "/", uri.query ? uri.query : "");
}

int mw_page_is_of(const mw_page_t *page, const char *host)
{
    return !host
           || (strlen(host) == page->host_len
               && !memcmp(host, page->host, page->host_len));
}

cachemw_key_t mw_page_key(const char *host, const char *url_key,
                          apr_pool_t *pool)
{
    const apr_size_t n = strlen(host) + 1;
    cachemw_key_t key;
    char *data;

    key.len = n + strlen(url_key);
    data = apr_palloc(pool, key.len);
    memcpy(data, host, n);
    memcpy(data + n, url_key, key.len - n);
    key.data = data;
    return key;
}
