/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file request.h
 * @brief One request to the service and its answer, with all that may go wrong.
 */
#ifndef MW_HTTP_REQUEST_H
#define MW_HTTP_REQUEST_H

#include "http.h"

/** Longest ETag that is given back in If-Match, with its quotes. */
#define MW_HTTP_ETAG_MAX 255

typedef enum mw_http_method_e {
    MW_HTTP_GET,
    MW_HTTP_PUT,
    MW_HTTP_DELETE
} mw_http_method_e;

typedef struct mw_http_request_t {
    mw_http_method_e method;
    const char *url;
    const char *body;     /**< of a PUT; the caller's */
    apr_size_t body_len;  /**< of a PUT */
    const char *if_match; /**< an ETag with its quotes; NULL or "": none */
    apr_size_t most;      /**< longest answer to a GET in bytes; one that does
                               not end within twice that is endless */

    /* the answer */
    long status;    /**< of HTTP */
    int is_api;     /**< it has MW_HTTP_VIA: a service of ours has answered */
    int says_when;  /**< it has Retry-After (RFC 9110, section 10.2.3) */
    char *text;     /**< of a GET with 200, malloc'ed, for the caller to free
                         whatever the outcome was; NULL: none */
    apr_size_t len; /**< of text */
    char etag[MW_HTTP_ETAG_MAX + 1]; /**< a strong one; "": none */
} mw_http_request_t;

/**
 * Do it, and once more where that makes sense, by the call's deadline. Any
 * thread.
 * @return APR_SUCCESS: 200 to a GET, any 2xx to the others, 404 to a DELETE;
 *         APR_NOTFOUND: 404 to a GET, 412 to what had an If-Match; APR_ENOSPC:
 *         413, 422 and 507 to a PUT, or an answer that is longer than `most`; 414 is what a key has that the service cannot have;
 *         APR_TIMEUP; APR_EAGAIN: nothing was tried; trouble. A service of ours
 *         that has no room for this request now has not tried it, either
 *         (503 with Retry-After): to a PUT it is APR_ENOSPC. Failures are
 *         counted by kind, and trouble is explained
 */
apr_status_t mw_http_request_run(mw_http_t *store, const cachemw_call_t *call,
                                 mw_http_request_t *request);

#endif
