/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>

#include "outcome.h"

typedef struct meaning_t {
    long status;      /* of HTTP, or its class */
    const char *kind; /* NULL: nothing that is counted */
    apr_status_t rv;
    int may_pass;
    const char *words; /* with %s, host, and %d, port; of a status: what
                          follows it, or NULL */
} meaning_t;

static const meaning_t ends[] = {
    [MW_HTTP_NOT_CONNECTED] = { .kind = "not-connected",
                                .rv = ECONNREFUSED,
                                .may_pass = 1,
                                .words = "%s, port %d: it cannot be "
                                         "connected to" },
    [MW_HTTP_NOT_CONNECTED_IN_TIME] = { .kind = "timeout",
                                        .rv = APR_TIMEUP,
                                        .may_pass = 1,
                                        .words = "%s, port %d: connecting "
                                                 "takes too long" },
    [MW_HTTP_NOT_IN_TIME] = { .kind = "timeout",
                              .rv = APR_TIMEUP,
                              .words = "%s, port %d: no whole answer in "
                                       "time" },
    [MW_HTTP_CUT] = { .kind = "ended",
                      .rv = ECONNRESET,
                      .may_pass = 1,
                      .words = "%s, port %d: the connection ended before its "
                               "answer did" },
    [MW_HTTP_TOO_LARGE] = { .kind = "too-large", .rv = APR_ENOSPC },
    [MW_HTTP_ENDLESS] = { .kind = "endless",
                          .rv = EPROTO,
                          .words = "%s, port %d: its answer is longer than any "
                                   "can be" },
    [MW_HTTP_NONSENSE] = { .kind = "nonsense",
                           .rv = EPROTO,
                           .words = "%s, port %d: its answer is no HTTP" },
    [MW_HTTP_LOOP] = { .kind = "loop",
                       .rv = EDEADLK,
                       .words = "%s, port %d: base_url leads back to this very "
                                "server: a store cannot be kept in itself" },
    [MW_HTTP_NO_MEMORY] = { .rv = APR_ENOMEM },
};

#define TOKEN_WORDS ": is the token right?"

/* Those that have a name of their own among the kinds, or may pass. */
static const meaning_t statuses[] = {
    { 401, "401", EACCES, 0, TOKEN_WORDS },
    { 403, "403", EACCES, 0, TOKEN_WORDS },
    { 404, "404", EPROTO, 0, ": is base_url that of a service?" },
    { 408, "4xx", EPROTO, 1, NULL },
    { 422, "422", EPROTO, 0, NULL },
    { 429, "429", EBUSY, 1, NULL },
    { 500, "500", EIO, 1, NULL },
    { 502, "502", EIO, 1, NULL },
    { 503, "503", EBUSY, 1, NULL },
    { 504, "5xx", EIO, 1, NULL },
    { 508, "508", EDEADLK, 0,
      ": base_url leads back to this very server, or through too many" },
};

/* Others by their class. */
static const meaning_t classes[] = {
    { 2, "2xx", EPROTO, 0, NULL },
    { 3, "3xx", EPROTO, 0, NULL },
    { 4, "4xx", EPROTO, 0, NULL },
    { 5, "5xx", EIO, 0, NULL },
};

static const meaning_t *meaning_of(long status)
{
    static const meaning_t none = { 0, "nonsense", EPROTO, 0, NULL };
    apr_size_t i;

    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (statuses[i].status == status) {
            return &statuses[i];
        }
    }
    for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (classes[i].status == status / 100) {
            return &classes[i];
        }
    }
    return &none;
}

static apr_status_t counted(const mw_http_t *store, const char *kind,
                            apr_status_t rv)
{
    mw_http_count(store, kind);
    return rv;
}

/* What a single entry is refused for is none of the service's trouble: whoever
 * can have many such stored must not close the store for all others. */
static apr_status_t put_refused(const mw_http_t *store, long status)
{
    const cachemw_services_t *services = store->services;

    switch (status) {
    case 413:
        return counted(store, "413", APR_ENOSPC);
    case 414:
        return counted(store, "414", APR_ENOSPC);
    case 422:
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "%s, port %d: the service answers 422: it does not take "
                      "what is stored; is it another version?",
                      store->settings.base.host, store->settings.base.port);
        return counted(store, "422", APR_ENOSPC);
    case 507:
        return counted(store, "507", APR_ENOSPC);
    default:
        return APR_EGENERAL;
    }
}

/* What is no trouble; APR_EGENERAL: it is. */
static apr_status_t status_ordinary(const mw_http_t *store,
                                    const mw_http_request_t *request)
{
    const int is_get = request->method == MW_HTTP_GET;
    const long status = request->status;

    if (is_get ? status == 200 : status >= 200 && status <= 299) {
        return APR_SUCCESS;
    }
    if (status == 412 && request->if_match && *request->if_match) {
        return APR_NOTFOUND;
    }
    if (request->method == MW_HTTP_PUT) {
        return put_refused(store, status);
    }
    if (status == 414) {
        return counted(store, "414", is_get ? APR_NOTFOUND : APR_SUCCESS);
    }
    if (status == 404) {
        return is_get ? APR_NOTFOUND : APR_SUCCESS;
    }
    return APR_EGENERAL;
}

/* The service is well, and has no room for this request beside the others that
 * it has in hand: whoever can cause that must not close the store, either. */
static int status_is_busy(const mw_http_request_t *request)
{
    return request->status == 503 && request->is_api && request->says_when;
}

static mw_http_outcome_t status_outcome(const mw_http_t *store,
                                        const mw_http_request_t *request)
{
    const cachemw_services_t *services = store->services;
    mw_http_outcome_t outcome = { .rv = status_ordinary(store, request) };
    const meaning_t *meaning;

    if (status_is_busy(request)) {
        outcome.rv =
            counted(store, "busy",
                    request->method == MW_HTTP_PUT ? APR_ENOSPC : APR_EAGAIN);
        outcome.may_pass = 1;
    }
    else if (outcome.rv == APR_EGENERAL) {
        meaning = meaning_of(request->status);
        outcome.rv = counted(store, meaning->kind, meaning->rv);
        outcome.may_pass = meaning->may_pass;
        services->explain(
            services, outcome.rv, "%s, port %d: the service answers %ld%s",
            store->settings.base.host, store->settings.base.port,
            request->status, meaning->words ? meaning->words : "");
    }
    return outcome;
}

mw_http_outcome_t mw_http_outcome(const mw_http_t *store,
                                  const mw_http_request_t *request,
                                  mw_http_end_e end, apr_status_t error,
                                  const char *tls)
{
    const cachemw_services_t *services = store->services;
    const mw_http_url_t *whom =
        end == MW_HTTP_NOT_CONNECTED ? store->peer : &store->settings.base;
    mw_http_outcome_t outcome;

    if (end == MW_HTTP_ANSWERED) {
        return status_outcome(store, request);
    }
    if (end == MW_HTTP_TLS_REFUSED) {
        outcome.rv = counted(store, "tls", EACCES);
        outcome.may_pass = 0;
        services->explain(services, outcome.rv, "%s, port %d: TLS: %s",
                          whom->host, whom->port, tls);
        return outcome;
    }
    outcome.rv = ends[end].rv;
    outcome.may_pass = ends[end].may_pass;
    if (error && (end == MW_HTTP_NOT_CONNECTED || end == MW_HTTP_CUT)) {
        outcome.rv = error;
    }
    if (ends[end].kind) {
        mw_http_count(store, ends[end].kind);
    }
    if (ends[end].words) {
        services->explain(services, outcome.rv, ends[end].words, whom->host,
                          whom->port);
    }
    return outcome;
}
