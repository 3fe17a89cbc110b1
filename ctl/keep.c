/* SPDX-License-Identifier: Apache-2.0 */

/* The commands that go over stores: rm, clear, sweep, verify. */

#include <string.h>
#include <unistd.h>

#include "apr_strings.h"

#include "core/glob.h"
#include "find.h"
#include "providers/file/look.h"

#define PROGRESS_EVERY 100000 /* µs */

/* The last store first: from far to near, or what is removed would be found
 * behind and copied to the front again. */
typedef apr_status_t store_fn(mw_depot_t *depot, mw_store_t *store,
                              void *baton);

static int stores_each(mw_depot_t *depot, const char *what, store_fn *each,
                       void *baton)
{
    int status = MW_CTL_OK;
    int i;

    for (i = depot->definitions->nelts - 1; i >= 0; i--) {
        mw_store_t *store = mw_depot_store(depot, i);
        apr_status_t rv = each(depot, store, baton);

        if (rv != APR_SUCCESS) {
            status = mw_depot_failed(store, what, rv);
        }
    }
    return status;
}

/* --- rm ------------------------------------------------------------------- */

typedef struct removal_t {
    const mw_depot_t *depot;
    mw_store_t *store;
    apr_pool_t *pool; /* of one entry */
    apr_int64_t n;
    apr_status_t failed;
} removal_t;

static void removal_one(removal_t *removal, const cachemw_key_t *key)
{
    cachemw_call_t call;
    apr_status_t rv;

    mw_depot_call(removal->depot, removal->store, 0, removal->pool, &call);
    rv = mw_store_remove(removal->store, &call, key, NULL);
    if (rv == APR_SUCCESS) {
        removal->n++;
    }
    else if (rv != APR_NOTFOUND) {
        removal->failed = rv;
    }
}

/* A page, and what its record lists. */
static void removal_page(removal_t *removal, const cachemw_key_t *key)
{
    cachemw_entry_t entry;
    cachemw_key_t name;
    mw_page_t page;
    int i;

    if (mw_find_head(removal->depot, removal->store, key, &entry, removal->pool)
        != APR_SUCCESS) {
        return;
    }
    mw_page_of_entry(key, &entry, &page, removal->pool);
    for (i = 0; page.vary && !page.is_api && i < page.vary->variants->nelts;
         i++) {
        mw_vary_key(key, page.vary,
                    &APR_ARRAY_IDX(page.vary->variants, i, mw_digest_t), &name,
                    removal->pool);
        if (mw_find_head(removal->depot, removal->store, &name, &entry,
                         removal->pool)
            == APR_SUCCESS) {
            removal_one(removal, &name);
        }
    }
    removal_one(removal, key);
}

static apr_status_t urls_remove(removal_t *removal, const mw_ctl_t *ctl)
{
    apr_array_header_t *keys;
    int i, n;

    for (i = 0; i < ctl->words->nelts; i++) {
        apr_status_t rv = mw_find(removal->depot, removal->store,
                                  APR_ARRAY_IDX(ctl->words, i, const char *),
                                  removal->pool, &keys);

        if (rv != APR_SUCCESS && rv != APR_ENOTIMPL) {
            return rv;
        }
        for (n = 0; n < keys->nelts; n++) {
            removal_page(removal, &APR_ARRAY_IDX(keys, n, cachemw_key_t));
        }
    }
    return removal->failed;
}

static apr_status_t match_see(void *baton, const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    removal_t *removal = baton;
    const mw_ctl_t *ctl = removal->depot->ctl;
    cachemw_entry_t whole = *entry;
    mw_page_t page;

    apr_pool_clear(removal->pool);
    mw_page_of_key(key, &page, removal->pool);
    if (page.kind == MW_PAGE_FOREIGN
        && (whole.head
            || mw_find_head(removal->depot, removal->store, key, &whole,
                            removal->pool)
                   == APR_SUCCESS)) {
        mw_page_of_entry(key, &whole, &page, removal->pool);
    }
    if (mw_glob_matches(ctl->match, page.url, strlen(page.url))
        && mw_page_is_of(&page, ctl->host)) {
        removal_one(removal, key);
    }
    return removal->failed;
}

static apr_status_t store_remove(mw_depot_t *depot, mw_store_t *store,
                                 void *baton)
{
    removal_t *removal = baton;
    cachemw_call_t call;

    removal->store = store;
    removal->failed = APR_SUCCESS;
    if (!depot->ctl->match) {
        return urls_remove(removal, depot->ctl);
    }
    mw_depot_call(depot, store, 1, depot->pchild, &call);
    return mw_store_keys(store, &call, NULL, match_see, removal);
}

static const char *rm_wrong(const mw_ctl_t *ctl)
{
    const char *host;
    int i;

    if (!ctl->match == !ctl->words->nelts) {
        return "rm takes URLs, or --match GLOB";
    }
    for (i = 0; i < ctl->words->nelts; i++) {
        const char *url = APR_ARRAY_IDX(ctl->words, i, const char *);

        if (!mw_page_url_key(url, &host, ctl->pool)) {
            return apr_pstrcat(ctl->pool, url,
                               " is no URL with http:// or https://", NULL);
        }
    }
    return NULL;
}

int mw_ctl_rm(mw_ctl_t *ctl)
{
    removal_t removal = { .n = 0 };
    const char *error = rm_wrong(ctl);
    mw_depot_t depot;
    int status;

    if (error) {
        return mw_ctl_error(MW_CTL_USAGE, "%s", error);
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status != MW_CTL_OK) {
        return status;
    }
    removal.depot = &depot;
    apr_pool_create(&removal.pool, ctl->pool);
    status = stores_each(&depot, "remove entries", store_remove, &removal);
    printf("%" APR_INT64_T_FMT " removed\n", removal.n);
    mw_depot_close(&depot);
    return status == MW_CTL_OK && removal.n == 0 ? MW_CTL_NO : status;
}

/* --- clear ---------------------------------------------------------------- */

static apr_status_t store_clear(mw_depot_t *depot, mw_store_t *store,
                                void *baton)
{
    cachemw_call_t call;

    (void)baton;
    mw_depot_call(depot, store, 1, depot->pchild, &call);
    return mw_store_clear(store, &call);
}

static int clear_is_meant(const mw_ctl_t *ctl)
{
    char answer[10];

    if (ctl->yes) {
        return 1;
    }
    if (!isatty(STDIN_FILENO)) {
        return 0;
    }
    fputs("Remove all entries? [y/N] ", stderr);
    return fgets(answer, sizeof(answer), stdin)
           && (*answer == 'y' || *answer == 'Y');
}

int mw_ctl_clear(mw_ctl_t *ctl)
{
    mw_depot_t depot;
    int status;

    if (ctl->words->nelts > 0) {
        return mw_ctl_error(MW_CTL_USAGE,
                            "clear removes everything, and takes no URL");
    }
    if (!clear_is_meant(ctl)) {
        return mw_ctl_error(MW_CTL_USAGE, "nothing was removed: --yes is not "
                                          "given");
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status == MW_CTL_OK) {
        status = stores_each(&depot, "be cleared", store_clear, NULL);
        mw_depot_close(&depot);
    }
    return status;
}

/* --- sweep ---------------------------------------------------------------- */

static apr_status_t store_sweep(mw_depot_t *depot, mw_store_t *store,
                                void *baton)
{
    apr_int64_t *n = baton;
    apr_status_t rv;
    int more;

    if (!mw_store_can_sweep(store)) {
        return APR_ENOTIMPL;
    }
    do {
        cachemw_call_t call;

        mw_depot_call(depot, store, 0, depot->pchild, &call);
        /* a server's next sweep is not ours: who writes is waited for */
        call.deadline = mw_monotonic() + depot->ctl->timeout;
        rv = mw_store_sweep(store, &call, &more);
    } while (rv == APR_SUCCESS && more);
    *n += (apr_int64_t)mw_state_sum(mw_store_state(store), MW_COUNT_EXPIRED);
    return rv;
}

int mw_ctl_sweep(mw_ctl_t *ctl)
{
    apr_int64_t n = 0;
    mw_depot_t depot;
    int status;

    if (ctl->words->nelts > 0) {
        return mw_ctl_error(MW_CTL_USAGE, "sweep takes no URL");
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status == MW_CTL_OK) {
        status = stores_each(&depot, "be swept", store_sweep, &n);
        printf("%" APR_INT64_T_FMT " expired\n", n);
        mw_depot_close(&depot);
    }
    return status;
}

/* --- verify --------------------------------------------------------------- */

typedef struct checking_t {
    const mw_depot_t *depot;
    mw_store_t *store;
    apr_pool_t *pool; /* of one entry */
    apr_int64_t entries;
    apr_int64_t bytes;
    apr_int64_t damaged;
    apr_status_t trouble;
    apr_int64_t shown; /* when progress was, monotonic */
} checking_t;

static apr_status_t checking_piece(void *baton, const char *data,
                                   apr_size_t length)
{
    checking_t *checking = baton;

    (void)data;
    checking->bytes += (apr_int64_t)length;
    return APR_SUCCESS;
}

static void checking_progress(checking_t *checking)
{
    const apr_int64_t now = mw_monotonic();

    if (now - checking->shown > PROGRESS_EVERY) {
        mw_ctl_progress(
            "%" APR_INT64_T_FMT " entries, %s, %" APR_INT64_T_FMT " damaged",
            checking->entries, mw_ctl_size(checking->bytes, checking->pool),
            checking->damaged);
        checking->shown = now;
    }
}

static void damage_tell(checking_t *checking, const mw_page_t *page)
{
    FILE *to = checking->depot->ctl->json ? stderr : stdout;

    checking->damaged++;
    mw_ctl_progress("%s", "");
    fputs("damaged: ", to);
    mw_ctl_text(to, page->url, strlen(page->url));
    fputs(" (", to);
    mw_ctl_text(to, page->host, page->host_len);
    fputs(*page->variant ? ", a variant)\n" : ")\n", to);
}

static apr_status_t checking_see(void *baton, const cachemw_key_t *key,
                                 const cachemw_entry_t *listed)
{
    checking_t *checking = baton;
    mw_state_t *state = mw_store_state(checking->store);
    const apr_uint64_t before = mw_state_sum(state, MW_COUNT_DAMAGED);
    cachemw_entry_t entry;
    mw_page_t page;
    apr_status_t rv;

    (void)listed;
    apr_pool_clear(checking->pool);
    mw_page_of_key(key, &page, checking->pool);
    rv = mw_find_body(checking->depot, checking->store, key, &entry, NULL,
                      checking_piece, checking, checking->pool);
    checking->entries++;
    if (rv == APR_SUCCESS
        && mw_page_of_entry(key, &entry, &page, checking->pool)
               != APR_SUCCESS) {
        cachemw_call_t call;

        mw_depot_call(checking->depot, checking->store, 0, checking->pool,
                      &call);
        mw_store_damaged(checking->store, &call, key, &entry.id);
    }
    if (mw_state_sum(state, MW_COUNT_DAMAGED) != before) {
        damage_tell(checking, &page);
    }
    else if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        checking->trouble = rv;
    }
    checking_progress(checking);
    return APR_SUCCESS;
}

static void kind_add(void *baton, const char *name, apr_uint64_t n)
{
    checking_t *checking = baton;

    if (!strcmp(name, MW_FILE_LOOK_DAMAGED)) {
        checking->damaged += (apr_int64_t)n;
    }
}

static apr_status_t store_verify(mw_depot_t *depot, mw_store_t *store,
                                 void *baton)
{
    checking_t *checking = baton;
    cachemw_call_t call;
    apr_status_t rv;

    checking->store = store;
    checking->trouble = APR_SUCCESS;
    mw_depot_call(depot, store, 1, depot->pchild, &call);
    rv = mw_store_keys(store, &call, NULL, checking_see, checking);
    if (rv == APR_EINCOMPLETE) {
        checking->damaged++;
        rv = APR_SUCCESS;
        mw_ctl_error(0,
                     "%s: the store itself is damaged, and not all that it "
                     "has can be listed",
                     mw_store_name(store));
    }
    mw_kinds_each(mw_store_state(store), kind_add, checking);
    mw_ctl_progress("%s", "");
    return rv == APR_SUCCESS ? checking->trouble : rv;
}

int mw_ctl_verify(mw_ctl_t *ctl)
{
    checking_t checking = { .entries = 0 };
    mw_depot_t depot;
    int status;

    if (ctl->words->nelts > 0) {
        return mw_ctl_error(MW_CTL_USAGE, "verify reads all, and takes no URL");
    }
    status = mw_depot_open(ctl, 0, &depot);
    if (status != MW_CTL_OK) {
        return status;
    }
    checking.depot = &depot;
    apr_pool_create(&checking.pool, ctl->pool);
    status = stores_each(&depot, "be read", store_verify, &checking);
    if (ctl->json) {
        printf("{\"entries\":%" APR_INT64_T_FMT ",\"bytes\":%" APR_INT64_T_FMT
               ",\"damaged\":%" APR_INT64_T_FMT "}\n",
               checking.entries, checking.bytes, checking.damaged);
    }
    else {
        printf("%" APR_INT64_T_FMT " entries, %" APR_INT64_T_FMT
               " bytes read, %" APR_INT64_T_FMT " damaged\n",
               checking.entries, checking.bytes, checking.damaged);
    }
    mw_depot_close(&depot);
    return status == MW_CTL_OK && checking.damaged ? MW_CTL_NO : status;
}
