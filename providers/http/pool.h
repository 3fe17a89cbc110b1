/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file pool.h
 * @brief A child's connections to the service.
 *
 * Each is a handle of libcurl, which connects when it is used, keeps its
 * connection and makes a new one when that has ended. Those that nobody uses
 * are a stack: the one used last is used next, and what has not been used for a
 * minute is closed when one is given back.
 */
#ifndef MW_HTTP_POOL_H
#define MW_HTTP_POOL_H

#include <curl/curl.h>

#include "http.h"

/* host:port: and MW_ADDRESSES_MAX addresses with brackets and commas. */
#define MW_HTTP_RESOLVE_MAX (MW_HTTP_HOST_MAX + 16 + MW_ADDRESSES_MAX * 80)

/** One thread at a time. malloc'ed. */
typedef struct mw_http_conn_t {
    CURL *easy;
    apr_int64_t used;            /**< when it was given back last */
    struct mw_http_conn_t *next; /**< of those that are closed together */
    /** What libcurl was told of the peer's addresses. */
    char resolve[MW_HTTP_RESOLVE_MAX];
    struct curl_slist resolve_list;
    char error[CURL_ERROR_SIZE]; /**< what libcurl says of a failure */
} mw_http_conn_t;

/** For child_init(): nothing is connected. malloc'ed. @return NULL: no memory */
mw_http_pool_t *mw_http_pool_make(const mw_http_t *store);

/**
 * child_init(): connections are kept from here on.
 * @return APR_ENOTIMPL: libcurl cannot do what the settings want; APR_ENOMEM
 */
apr_status_t mw_http_pool_begin(mw_http_pool_t *pool);

/** The child ends: close what is idle now, and what is in use when it is given
 *  back. Any thread. */
void mw_http_pool_end(mw_http_pool_t *pool);

/** close(): nothing is in use any more. */
void mw_http_pool_free(mw_http_pool_t *pool);

/**
 * A connection for one request, which knows the peer's addresses. Any thread.
 * @return APR_EAGAIN: all are in use until the deadline, or no address is known
 *         yet; APR_ENOMEM
 */
apr_status_t mw_http_pool_take(mw_http_pool_t *pool, apr_int64_t deadline,
                               mw_http_conn_t **conn);

/** Give it back. */
void mw_http_pool_give(mw_http_pool_t *pool, mw_http_conn_t *conn);

#endif
