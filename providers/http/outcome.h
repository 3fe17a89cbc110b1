/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file outcome.h
 * @brief What came of an attempt: its status, whether to try again, and why it
 *        failed, in words.
 */
#ifndef MW_HTTP_OUTCOME_H
#define MW_HTTP_OUTCOME_H

#include "request.h"

/** How the exchange ended. */
typedef enum mw_http_end_e {
    MW_HTTP_ANSWERED, /**< the status of HTTP tells */
    MW_HTTP_NOT_CONNECTED,
    MW_HTTP_NOT_CONNECTED_IN_TIME, /**< TCP, TLS or the proxy */
    MW_HTTP_TLS_REFUSED,
    MW_HTTP_NOT_IN_TIME,
    MW_HTTP_CUT,       /**< the connection ended */
    MW_HTTP_TOO_LARGE, /**< it said so before its content */
    MW_HTTP_ENDLESS,
    MW_HTTP_NONSENSE,
    MW_HTTP_LOOP, /**< the answer is this very server's */
    MW_HTTP_NO_MEMORY
} mw_http_end_e;

typedef struct mw_http_outcome_t {
    apr_status_t rv; /**< as mw_http_request_run() returns it */
    int may_pass;    /**< it may be different in a while */
} mw_http_outcome_t;

/**
 * What an exchange means. Failures are counted by kind and explained.
 * @param request whose status is looked at when it was answered
 * @param error what the system said of the connection; 0: nothing
 * @param tls why TLS was refused; else not looked at
 */
mw_http_outcome_t mw_http_outcome(const mw_http_t *store,
                                  const mw_http_request_t *request,
                                  mw_http_end_e end, apr_status_t error,
                                  const char *tls);

#endif
