/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_lib.h"
#include "apr_strings.h"
#include "httpd.h"
#include "http_protocol.h"
#include "mod_status.h"

#include "config.h"
#include "status.h"

#define STATUS_OFF "off, the error log says why"

/* A figure of a store: on the page behind its label, with ?auto behind
 * "CachemwStore-NAME-KEY". */
typedef struct figure_t {
    const char *key;
    const char *label;
    const char *value;
} figure_t;

/* What is collected of one store. */
typedef struct figures_t {
    apr_pool_t *pool;
    apr_array_header_t *list; /* of figure_t */
} figures_t;

typedef struct page_t {
    request_rec *r;
    int is_short; /* ?auto */
    int stores;
} page_t;

/* In the order of the page; the key is the counter's name. */
static const struct {
    mw_counter_e counter;
    const char *label;
} status_counters[] = {
    { MW_COUNT_HIT, "Hits" },
    { MW_COUNT_MISS, "Misses" },
    { MW_COUNT_STALE, "Stale: found, but to be revalidated" },
    { MW_COUNT_REVALIDATED, "Revalidated by the origin" },
    { MW_COUNT_STORED, "Stored" },
    { MW_COUNT_REFUSED, "Not stored: overtaken by a purge" },
    { MW_COUNT_NO_SPACE, "Not stored: too large, too small or no room" },
    { MW_COUNT_ABORTED, "Not stored: client or origin went away" },
    { MW_COUNT_REMOVED, "Removed" },
    { MW_COUNT_INVALIDATED, "Invalidated" },
    { MW_COUNT_EVICTED, "Evicted to make room" },
    { MW_COUNT_EXPIRED, "Expired" },
    { MW_COUNT_ERROR_GET, "Errors of lookups" },
    { MW_COUNT_ERROR_SET, "Errors of stores" },
    { MW_COUNT_ERROR_OTHER, "Other errors" },
    { MW_COUNT_TIMEOUT, "Timeouts" },
    { MW_COUNT_DAMAGED, "Damaged entries, removed" },
    { MW_COUNT_CUT, "Bodies that failed half-way" },
    { MW_COUNT_SKIPPED, "Calls not made: breaker open" },
    { MW_COUNT_RECOVERED, "Repairs after a process that died" },
    { MW_COUNT_COALESCED, "Answered after waiting for another fetch" },
    { MW_COUNT_WAITED_OUT, "Waited in vain, until the time was over" },
    { MW_COUNT_CAPPED, "Not waited: too many others did" },
    { MW_COUNT_BYTES_SENT, "Body bytes of hits" },
    { MW_COUNT_BYTES_STORED, "Body bytes stored" },
    { MW_COUNT_API_HIT, "API: hits" },
    { MW_COUNT_API_MISS, "API: misses" },
    { MW_COUNT_API_STORED, "API: stored" },
    { MW_COUNT_API_REMOVED, "API: removed" },
    { MW_COUNT_API_REFUSED, "API: refused, what was sent is wrong" },
    { MW_COUNT_API_DENIED, "API: denied, no token or a wrong one" },
    { MW_COUNT_API_BUSY, "API: not answered for want of max_memory" },
};

static void figure_text(figures_t *to, const char *key, const char *label,
                        const char *value)
{
    figure_t *figure = apr_array_push(to->list);

    figure->key = key;
    figure->label = label;
    figure->value = value;
}

/* A figure that nobody knows is left out. */
static void figure_number(figures_t *to, const char *key, const char *label,
                          apr_int64_t value)
{
    if (value >= 0) {
        figure_text(to, key, label,
                    apr_psprintf(to->pool, "%" APR_INT64_T_FMT, value));
    }
}

/* n / of, with two digits; left out when there is nothing to divide by. */
static void figure_ratio(figures_t *to, const char *key, const char *label,
                         apr_uint64_t n, apr_uint64_t of)
{
    if (of) {
        figure_text(to, key, label,
                    apr_psprintf(to->pool, "%.2f", (double)n / (double)of));
    }
}

/* "free_bytes" is shown as FreeBytes and as "Free bytes". */
static void figure_extra(void *baton, const char *name, apr_int64_t value)
{
    figures_t *to = baton;
    char *key = apr_pstrdup(to->pool, name);
    char *label = apr_pstrdup(to->pool, name);
    char *k = key;
    char *l;

    for (l = label; *l; l++) {
        *l = *l == '_' ? ' ' : *l;
        if (*l != ' ') {
            *k++ = l == label || l[-1] == ' ' ? apr_toupper(*l) : *l;
        }
    }
    *k = '\0';
    *label = apr_toupper(*label);
    figure_number(to, key, label, value);
}

/* @param rv what its stats returned */
static const char *state_word(const figures_t *to, mw_store_t *store,
                              mw_breaker_e breaker, apr_status_t rv)
{
    static const char *const words[] = {
        [MW_BREAKER_CLOSED] = "on",
        [MW_BREAKER_OPEN] = "breaker open",
        [MW_BREAKER_PROBING] = "breaker open, probing",
    };
    char text[120];

    if (breaker == MW_BREAKER_CLOSED && !mw_store_is_usable(store)) {
        return STATUS_OFF;
    }
    if (breaker == MW_BREAKER_CLOSED && rv != APR_SUCCESS) {
        return apr_pstrcat(to->pool,
                           "in trouble: ", apr_strerror(rv, text, sizeof(text)),
                           NULL);
    }
    return words[breaker];
}

static void collect_breaker(figures_t *to, mw_store_t *store, apr_status_t rv)
{
    char text[120], words[MW_REASON_MAX];
    apr_uint32_t kind;
    apr_status_t why;
    apr_int64_t until, left;
    mw_breaker_e breaker = mw_breaker_read(mw_store_state(store), &why, &until);

    figure_text(to, "State", "State", state_word(to, store, breaker, rv));
    if (breaker != MW_BREAKER_CLOSED) {
        left = until - mw_monotonic();
        figure_number(to, "RetryMilliseconds", "Next attempt in ms",
                      left > 0 ? left / 1000 : 0);
    }
    if (why != APR_SUCCESS) {
        int has_words =
            mw_reason_read(mw_store_state(store), why, &kind, words);

        figure_text(to, "LastError", "Last error",
                    apr_pstrcat(to->pool, apr_strerror(why, text, sizeof(text)),
                                has_words ? ": " : NULL, words, NULL));
    }
}

static void collect_counters(figures_t *to, const mw_state_t *state)
{
    apr_uint64_t hits = mw_state_sum(state, MW_COUNT_HIT);
    apr_uint64_t misses = mw_state_sum(state, MW_COUNT_MISS);
    apr_uint64_t stale = mw_state_sum(state, MW_COUNT_STALE);
    apr_size_t i;

    figure_ratio(to, "HitRatio", "Hits per lookup", hits,
                 hits + misses + stale);
    for (i = 0; i < sizeof(status_counters) / sizeof(*status_counters); i++) {
        figure_number(
            to, mw_counter_name(status_counters[i].counter),
            status_counters[i].label,
            (apr_int64_t)mw_state_sum(state, status_counters[i].counter));
    }
    figure_ratio(to, "GetAverageMicroseconds",
                 "Lookup, average in microseconds",
                 mw_state_sum(state, MW_COUNT_GET_MICROSECONDS),
                 mw_state_sum(state, MW_COUNT_GET_SAMPLES));
    figure_ratio(to, "SetAverageMicroseconds", "Store, average in microseconds",
                 mw_state_sum(state, MW_COUNT_SET_MICROSECONDS),
                 mw_state_sum(state, MW_COUNT_SET_SAMPLES));
}

static void figure_kind(void *baton, const char *name, apr_uint64_t n)
{
    figures_t *to = baton;

    figure_number(to, apr_pstrcat(to->pool, "Failures-", name, NULL),
                  apr_pstrcat(to->pool, "Failures: ", name, NULL),
                  (apr_int64_t)n);
}

static apr_status_t collect_stats(figures_t *to, mw_store_t *store,
                                  request_rec *r)
{
    cachemw_call_t call = { .pool = r->pool };
    cachemw_stats_t stats;
    figures_t extra;
    apr_status_t rv;

    extra.pool = to->pool;
    extra.list = apr_array_make(to->pool, 4, sizeof(figure_t));
    stats.size = sizeof(stats);
    stats.extra = figure_extra;
    stats.baton = &extra;
    call.bucket_alloc = r->connection->bucket_alloc;
    call.now = apr_time_now();
    rv = mw_store_stats(store, &call, &stats);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    figure_number(to, "Entries", "Entries", stats.entries);
    figure_number(to, "EntriesMax", "Entries at most", stats.entries_max);
    figure_number(to, "EntriesExpired", "Entries that have expired",
                  stats.expired);
    figure_number(to, "Bytes", "Bytes", stats.bytes);
    figure_number(to, "BytesMax", "Bytes at most", stats.bytes_max);
    apr_array_cat(to->list, extra.list);
    return APR_SUCCESS;
}

static apr_array_header_t *status_collect(mw_store_t *store, request_rec *r)
{
    const mw_state_t *state = mw_store_state(store);
    unsigned int sharing;
    figures_t held;
    figures_t to;
    apr_status_t rv;

    held.pool = to.pool = r->pool;
    held.list = apr_array_make(r->pool, 10, sizeof(figure_t));
    to.list = apr_array_make(r->pool, 40, sizeof(figure_t));
    figure_text(&to, "Provider", "Provider", mw_store_provider_name(store));
    if (!state) {
        figure_text(&to, "State", "State", STATUS_OFF);
        return to.list;
    }
    rv = collect_stats(&held, store, r);
    collect_breaker(&to, store, rv);
    apr_array_cat(to.list, held.list);
    sharing = mw_sharing_read(state, mw_monotonic());
    if (sharing) {
        figure_number(&to, "Servers", "Servers that share it", sharing);
    }
    collect_counters(&to, state);
    mw_kinds_each(state, figure_kind, &to);
    return to.list;
}

/* In "Key: value" the key holds no blank and no colon. */
static const char *status_key(const char *name, apr_pool_t *pool)
{
    static const char hex[] = "0123456789ABCDEF";
    char *key = apr_palloc(pool, 3 * strlen(name) + 1);
    char *to = key;

    for (; *name; name++) {
        if (apr_isgraph(*name) && *name != ':' && *name != '%') {
            *to++ = *name;
        }
        else {
            *to++ = '%';
            *to++ = hex[(unsigned char)*name >> 4];
            *to++ = hex[(unsigned char)*name & 15];
        }
    }
    *to = '\0';
    return key;
}

static void status_print_short(request_rec *r, const char *name,
                               const apr_array_header_t *figures)
{
    const figure_t *figure = (const figure_t *)figures->elts;
    const char *key = status_key(name, r->pool);
    int i;

    for (i = 0; i < figures->nelts; i++) {
        ap_rprintf(r, "CachemwStore-%s-%s: %s\n", key,
                   status_key(figure[i].key, r->pool), figure[i].value);
    }
}

static void status_print_table(request_rec *r, const char *name,
                               const apr_array_header_t *figures)
{
    const figure_t *figure = (const figure_t *)figures->elts;
    int i;

    ap_rprintf(r, "<h3>%s</h3>\n<table border=\"0\">\n",
               ap_escape_html(r->pool, name));
    for (i = 0; i < figures->nelts; i++) {
        ap_rprintf(r, "<tr><td>%s</td><td align=\"right\">%s</td></tr>\n",
                   ap_escape_html(r->pool, figure[i].label),
                   ap_escape_html(r->pool, figure[i].value));
    }
    ap_rputs("</table>\n", r);
}

static void status_each(void *baton, mw_store_t *store)
{
    page_t *page = baton;
    const apr_array_header_t *figures = status_collect(store, page->r);

    if (page->is_short) {
        status_print_short(page->r, mw_store_name(store), figures);
        return;
    }
    if (!page->stores++) {
        ap_rputs("<hr>\n<h2>Cache stores (mod_cachemw)</h2>\n", page->r);
    }
    status_print_table(page->r, mw_store_name(store), figures);
}

int mw_status(request_rec *r, int flags)
{
    page_t page = { .r = r, .is_short = flags & AP_STATUS_SHORT };

    mw_config_each_store(status_each, &page);
    return OK;
}
