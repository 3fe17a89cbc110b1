/* SPDX-License-Identifier: Apache-2.0 */

/* The commands that look: get, ls, stat. */

#include <string.h>

#include "apr_strings.h"

#include "core/glob.h"
#include "find.h"

/* --- an entry as JSON or in words ----------------------------------------- */

static void json_text(const char *name, const char *text, apr_size_t length)
{
    printf(",\"%s\":", name);
    mw_ctl_json(stdout, text, length);
}

static void json_time(const char *name, apr_time_t time)
{
    apr_time_exp_t parts;

    if (!time || apr_time_exp_gmt(&parts, time) != APR_SUCCESS) {
        printf(",\"%s\":null", name);
        return;
    }
    printf(",\"%s\":\"%04d-%02d-%02dT%02d:%02d:%02dZ\"", name,
           parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
           parts.tm_min, parts.tm_sec);
}

static void json_head(const mw_page_t *page)
{
    if (page->has_head) {
        printf(",\"status\":%d", page->head.status);
        json_time("stored", page->head.response_time);
        json_time("fresh_until", page->head.expire);
    }
    if (page->vary) {
        printf(",\"variants\":%d", page->vary->variants->nelts);
    }
}

/* Without the closing brace. */
static void json_entry(const mw_store_t *store, const mw_page_t *page,
                       const cachemw_entry_t *entry)
{
    fputs("{\"store\":", stdout);
    mw_ctl_json(stdout, mw_store_name(store), strlen(mw_store_name(store)));
    json_text("kind", mw_page_kind(page), strlen(mw_page_kind(page)));
    json_text("url", page->url, strlen(page->url));
    json_text("virtual_host", page->host, page->host_len);
    if (*page->variant) {
        json_text("variant", page->variant, strlen(page->variant));
    }
    json_time("expires", entry->expires);
    printf(",\"size\":%" APR_OFF_T_FMT, entry->body_len);
    json_head(page);
}

/* --- ls ------------------------------------------------------------------- */

typedef struct listing_t {
    const mw_depot_t *depot;
    mw_store_t *store;
    const char *pattern; /* NULL: all */
    apr_pool_t *pool;    /* of one entry */
    int several;         /* stores */
} listing_t;

static void listing_title(const listing_t *listing)
{
    const mw_ctl_t *ctl = listing->depot->ctl;
    const char *bold = mw_ctl_color(ctl, stdout, MW_CTL_BOLD);

    if (*bold) {
        printf("%s%s%-19s %7s%s  %-24s %s%s\n", bold,
               listing->several ? "STORE    " : "", "EXPIRES", "SIZE",
               ctl->wide ? "  ST. STORED              FRESH UNTIL        " : "",
               "VIRTUAL HOST", "URL", mw_ctl_color(ctl, stdout, MW_CTL_PLAIN));
    }
}

static void listing_print(const listing_t *listing, const mw_page_t *page,
                          const cachemw_entry_t *entry)
{
    apr_pool_t *pool = listing->pool;

    if (listing->several) {
        printf("%-8s ", mw_store_name(listing->store));
    }
    printf("%-19s %7s", mw_ctl_time(entry->expires, pool),
           mw_ctl_size(entry->body_len, pool));
    if (listing->depot->ctl->wide) {
        printf("  %3d %-19s %-19s", page->has_head ? page->head.status : 0,
               page->has_head ? mw_ctl_time(page->head.response_time, pool)
                              : "-",
               page->has_head ? mw_ctl_time(page->head.expire, pool) : "-");
    }
    printf("  %.*s", page->host_len ? 0 : 1, "-");
    mw_ctl_text(stdout, page->host, page->host_len);
    printf("%*s", page->host_len < 24 ? 25 - (int)page->host_len : 1, "");
    mw_ctl_text(stdout, page->url, strlen(page->url));
    if (*page->variant) {
        printf(" (variant %s)", page->variant);
    }
    if (page->kind == MW_PAGE_RECORD) {
        printf(" (%d variants)", page->vary->variants->nelts);
    }
    putchar('\n');
}

/* Whether it is shown; page and entry are completed as far as is wanted. */
static int listing_wants(const listing_t *listing, const cachemw_key_t *key,
                         cachemw_entry_t *entry, mw_page_t *page)
{
    const mw_ctl_t *ctl = listing->depot->ctl;

    mw_page_of_key(key, page, listing->pool);
    /* what says by what a page varies has no body */
    if ((ctl->wide || !entry->body_len) && !entry->head
        && mw_find_head(listing->depot, listing->store, key, entry,
                        listing->pool)
               != APR_SUCCESS
        && ctl->wide) {
        return 0;
    }
    if (entry->head) {
        mw_page_of_entry(key, entry, page, listing->pool);
    }
    if (page->kind == MW_PAGE_RECORD && !ctl->all) {
        return 0;
    }
    return mw_page_is_of(page, ctl->host)
           && (!listing->pattern
               || mw_glob_matches(listing->pattern, page->url,
                                  strlen(page->url)));
}

static apr_status_t listing_see(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    const listing_t *listing = baton;
    cachemw_entry_t whole = *entry;
    mw_page_t page;

    apr_pool_clear(listing->pool);
    if (!listing_wants(listing, key, &whole, &page)) {
        return APR_SUCCESS;
    }
    if (listing->depot->ctl->json) {
        json_entry(listing->store, &page, &whole);
        puts("}");
    }
    else {
        listing_print(listing, &page, &whole);
    }
    return mw_ctl_output_broken() ? APR_EOF : APR_SUCCESS;
}

int mw_ctl_ls(mw_ctl_t *ctl)
{
    listing_t listing = { .pattern = NULL };
    mw_depot_t depot;
    int status, i;

    if (ctl->words->nelts > 1) {
        return mw_ctl_error(MW_CTL_USAGE, "ls takes one pattern");
    }
    if (ctl->words->nelts == 1) {
        listing.pattern = APR_ARRAY_IDX(ctl->words, 0, const char *);
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status != MW_CTL_OK) {
        return status;
    }
    listing.depot = &depot;
    listing.several = depot.definitions->nelts > 1;
    apr_pool_create(&listing.pool, ctl->pool);
    if (!ctl->json) {
        listing_title(&listing);
    }
    for (i = 0; (listing.store = mw_depot_store(&depot, i)); i++) {
        cachemw_call_t call;
        apr_status_t rv;

        mw_depot_call(&depot, listing.store, 1, depot.pchild, &call);
        rv = mw_store_keys(listing.store, &call, NULL, listing_see, &listing);
        if (rv != APR_SUCCESS && !mw_ctl_output_broken()) {
            status = mw_depot_failed(listing.store, "list its entries", rv);
        }
    }
    mw_depot_close(&depot);
    return status;
}

/* --- stat ----------------------------------------------------------------- */

static void fact_print(const char *name, const char *text)
{
    printf("%-14s %s\n", name, text);
}

static void untrusted_print(const char *name, const char *text,
                            apr_size_t length)
{
    printf("%-14s ", name);
    mw_ctl_text(stdout, text, length);
    putchar('\n');
}

static void head_print(const mw_head_t *head, apr_pool_t *pool)
{
    const char *type = apr_table_get(head->headers, "Content-Type");
    const char *coding = apr_table_get(head->headers, "Content-Encoding");

    fact_print("Status", apr_itoa(pool, head->status));
    if (type) {
        untrusted_print("Content-Type", type, strlen(type));
    }
    if (coding) {
        untrusted_print("Coding", coding, strlen(coding));
    }
    fact_print("Stored", mw_ctl_time(head->response_time, pool));
    fact_print("Fresh until", mw_ctl_time(head->expire, pool));
}

static void entry_print(const mw_store_t *store, const mw_page_t *page,
                        const cachemw_entry_t *entry, apr_pool_t *pool)
{
    untrusted_print("URL", page->url, strlen(page->url));
    untrusted_print("Virtual host", page->host, page->host_len);
    fact_print("Store", mw_store_name(store));
    fact_print("Kind", mw_page_kind(page));
    if (*page->variant) {
        fact_print("Variant", page->variant);
    }
    if (page->has_head) {
        head_print(&page->head, pool);
    }
    fact_print("Expires", mw_ctl_time(entry->expires, pool));
    fact_print("Size", apr_off_t_toa(pool, entry->body_len));
    if (page->vary) {
        const char *fields = apr_array_pstrcat(pool, page->vary->fields, ' ');

        untrusted_print("Varies by", fields, strlen(fields));
        fact_print("Variants", apr_itoa(pool, page->vary->variants->nelts));
    }
}

static void entry_show(const mw_depot_t *depot, mw_store_t *store,
                       const cachemw_key_t *key, const cachemw_entry_t *entry,
                       int *shown, apr_pool_t *pool)
{
    cachemw_entry_t inner;
    cachemw_key_t name;
    mw_page_t page;
    apr_pool_t *own;
    int i, n;

    mw_page_of_entry(key, entry, &page, pool);
    if (depot->ctl->json) {
        json_entry(store, &page, entry);
        puts("}");
    }
    else {
        fputs(*shown ? "\n" : "", stdout);
        entry_print(store, &page, entry, pool);
    }
    ++*shown;
    /* one that a variant claims to have would lead on for ever */
    n = page.vary && !page.is_api && !*page.variant ? page.vary->variants->nelts
                                                    : 0;
    apr_pool_create(&own, pool);
    for (i = 0; i < n && !mw_ctl_output_broken(); i++) {
        apr_pool_clear(own);
        mw_vary_key(key, page.vary,
                    &APR_ARRAY_IDX(page.vary->variants, i, mw_digest_t), &name,
                    own);
        if (mw_find_head(depot, store, &name, &inner, own) == APR_SUCCESS) {
            entry_show(depot, store, &name, &inner, shown, own);
        }
    }
    apr_pool_destroy(own);
}

static int url_stat(const mw_depot_t *depot, const char *url)
{
    apr_pool_t *pool = depot->pchild;
    int status = MW_CTL_OK, shown = 0, i, n;
    apr_array_header_t *keys;
    mw_store_t *store;

    for (i = 0; (store = mw_depot_store(depot, i)); i++) {
        apr_status_t rv = mw_find(depot, store, url, pool, &keys);

        if (rv != APR_SUCCESS && rv != APR_ENOTIMPL) {
            status = mw_depot_failed(store, "be searched", rv);
        }
        for (n = 0; n < keys->nelts; n++) {
            const cachemw_key_t *key = &APR_ARRAY_IDX(keys, n, cachemw_key_t);
            cachemw_entry_t entry;

            if (mw_find_head(depot, store, key, &entry, pool) == APR_SUCCESS) {
                entry_show(depot, store, key, &entry, &shown, pool);
            }
        }
    }
    if (status == MW_CTL_OK && !shown) {
        return mw_ctl_error(MW_CTL_NO, "%s is not stored", url);
    }
    return status;
}

/* Of a store. */
typedef struct figures_t {
    int json;
    int n;
} figures_t;

static void figure_print(void *baton, const char *name, apr_int64_t value)
{
    figures_t *figures = baton;

    if (value < 0) {
        return;
    }
    if (figures->json) {
        printf(",\"%s\":%" APR_INT64_T_FMT, name, value);
    }
    else {
        printf("%-20s %" APR_INT64_T_FMT "\n", name, value);
    }
    figures->n++;
}

static apr_status_t figures_show(const mw_depot_t *depot, mw_store_t *store)
{
    figures_t figures = { depot->ctl->json, 0 };
    cachemw_stats_t stats = { .size = sizeof(stats),
                              .extra = figure_print,
                              .baton = &figures };
    cachemw_call_t call;
    apr_status_t rv;

    mw_depot_call(depot, store, 0, depot->pchild, &call);
    if (figures.json) {
        fputs("{\"store\":", stdout);
        mw_ctl_json(stdout, mw_store_name(store), strlen(mw_store_name(store)));
        json_text("provider", mw_store_provider_name(store),
                  strlen(mw_store_provider_name(store)));
    }
    else {
        printf("%-20s %s (%s)\n", "store", mw_store_name(store),
               mw_store_provider_name(store));
    }
    rv = mw_store_stats(store, &call, &stats);
    if (rv == APR_SUCCESS) {
        figure_print(&figures, "entries", stats.entries);
        figure_print(&figures, "expired", stats.expired);
        figure_print(&figures, "bytes", stats.bytes);
    }
    fputs(figures.json ? "}\n" : "", stdout);
    return rv == APR_SUCCESS && !figures.n ? APR_ENOTIMPL : rv;
}

int mw_ctl_stat(mw_ctl_t *ctl)
{
    mw_depot_t depot;
    mw_store_t *store;
    const char *host;
    int status, i;

    if (ctl->words->nelts > 1
        || (ctl->words->nelts == 1
            && !mw_page_url_key(APR_ARRAY_IDX(ctl->words, 0, const char *),
                                &host, ctl->pool))) {
        return mw_ctl_error(MW_CTL_USAGE,
                            "stat takes one URL, with http:// or https://");
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status != MW_CTL_OK) {
        return status;
    }
    if (ctl->words->nelts == 1) {
        status = url_stat(&depot, APR_ARRAY_IDX(ctl->words, 0, const char *));
    }
    else {
        for (i = 0; (store = mw_depot_store(&depot, i)); i++) {
            apr_status_t rv = figures_show(&depot, store);

            if (rv != APR_SUCCESS) {
                status = mw_depot_failed(store, "tell figures", rv);
            }
        }
    }
    mw_depot_close(&depot);
    return status;
}

/* --- get ------------------------------------------------------------------ */

typedef struct printing_t {
    const mw_ctl_t *ctl;
    const cachemw_key_t *key;
    apr_pool_t *pool;
    int *has_begun;
} printing_t;

static int field_print(void *baton, const char *name, const char *value)
{
    (void)baton;
    mw_ctl_text(stdout, name, strlen(name));
    fputs(": ", stdout);
    mw_ctl_text(stdout, value, strlen(value));
    putchar('\n');
    return 1;
}

static apr_status_t printing_begin(void *baton, const cachemw_entry_t *entry)
{
    const printing_t *printing = baton;
    mw_page_t page;
    apr_status_t rv;

    rv = mw_page_of_entry(printing->key, entry, &page, printing->pool);
    if (printing->ctl->include && rv == APR_SUCCESS && page.has_head) {
        printf("HTTP %d\n", page.head.status);
        *printing->has_begun = 1;
        apr_table_do(field_print, NULL, page.head.headers, NULL);
        putchar('\n');
    }
    return rv;
}

static apr_status_t printing_piece(void *baton, const char *data,
                                   apr_size_t length)
{
    const printing_t *printing = baton;

    *printing->has_begun = 1;
    fwrite(data, 1, length, stdout);
    return mw_ctl_output_broken() ? APR_EOF : APR_SUCCESS;
}

/* What --header says, as fields of a request. */
static apr_table_t *request_make(const mw_ctl_t *ctl)
{
    apr_table_t *request = apr_table_make(ctl->pool, 4);
    int i;

    for (i = 0; i < ctl->headers->nelts; i++) {
        char *name = apr_pstrdup(ctl->pool,
                                 APR_ARRAY_IDX(ctl->headers, i, const char *));
        char *colon = strchr(name, ':');

        if (colon) {
            *colon++ = '\0';
            apr_table_add(request, name, colon + strspn(colon, " \t"));
        }
    }
    return request;
}

/* Of a page that varies the key of the variant that a request would get. */
static apr_status_t variant_choose(const mw_depot_t *depot, mw_store_t *store,
                                   cachemw_key_t *key, apr_pool_t *pool)
{
    cachemw_entry_t entry;
    cachemw_key_t plain = *key;
    mw_digest_t digest;
    const char *block;
    apr_size_t length;
    mw_page_t page;
    apr_status_t rv = mw_find_head(depot, store, key, &entry, pool);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_page_of_entry(key, &entry, &page, pool);
    if (!page.vary || page.is_api) {
        return APR_SUCCESS;
    }
    block =
        mw_vary_block(page.vary->fields,
                      mw_vary_asked(request_make(depot->ctl)), &length, pool);
    mw_vary_digest(page.vary, block, length, &digest);
    mw_vary_key(&plain, page.vary, &digest, key, pool);
    rv = mw_find_head(depot, store, key, &entry, pool);
    if (rv == APR_NOTFOUND) {
        mw_ctl_error(0,
                     "it varies by %s, and there is no variant for what "
                     "--header says; stat lists those that there are",
                     apr_array_pstrcat(pool, page.vary->fields, ' '));
    }
    return rv;
}

static apr_status_t store_get(const mw_depot_t *depot, mw_store_t *store,
                              const char *url, int *has_begun)
{
    apr_pool_t *pool = depot->pchild;
    apr_array_header_t *keys;
    cachemw_entry_t entry;
    cachemw_key_t key;
    printing_t printing = { depot->ctl, &key, pool, has_begun };
    apr_status_t rv = mw_find(depot, store, url, pool, &keys);

    if (keys->nelts == 0) {
        return rv == APR_SUCCESS || rv == APR_ENOTIMPL ? APR_NOTFOUND : rv;
    }
    if (keys->nelts > 1) {
        mw_ctl_error(0, "%d virtual hosts have it: --host chooses one",
                     keys->nelts);
        return APR_NOTFOUND;
    }
    key = APR_ARRAY_IDX(keys, 0, cachemw_key_t);
    rv = variant_choose(depot, store, &key, pool);
    if (rv == APR_SUCCESS) {
        rv = mw_find_body(depot, store, &key, &entry, printing_begin,
                          printing_piece, &printing, pool);
    }
    return rv;
}

int mw_ctl_get(mw_ctl_t *ctl)
{
    const char *url = ctl->words->nelts == 1
                          ? APR_ARRAY_IDX(ctl->words, 0, const char *)
                          : "";
    int status, i, has_begun = 0;
    mw_depot_t depot;
    mw_store_t *store;
    const char *host;

    if (!mw_page_url_key(url, &host, ctl->pool)) {
        return mw_ctl_error(MW_CTL_USAGE,
                            "get takes one URL, with http:// or https://");
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status != MW_CTL_OK) {
        return status;
    }
    status = MW_CTL_NO;
    for (i = 0; (store = mw_depot_store(&depot, i)); i++) {
        apr_status_t rv = store_get(&depot, store, url, &has_begun);

        if (rv == APR_SUCCESS || mw_ctl_output_broken()) {
            status = MW_CTL_OK;
            break;
        }
        if (has_begun) {
            status = mw_ctl_error(MW_CTL_TROUBLE,
                                  "%s was replaced or removed while it was "
                                  "read: what was printed is not whole",
                                  url);
            break;
        }
        if (rv != APR_NOTFOUND) {
            status = mw_depot_failed(store, "give it", rv);
        }
    }
    if (status == MW_CTL_NO) {
        mw_ctl_error(0, "%s is not stored", url);
    }
    mw_depot_close(&depot);
    return status;
}
