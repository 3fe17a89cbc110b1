/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file url.h
 * @brief What the options base_url= and proxy= say.
 *
 *     http://host[:port][/path]
 *     https://host[:port][/path]
 *
 * Hosts are names, IPv4 addresses, or IPv6 addresses in brackets. Users and
 * passwords are refused: URLs are shown.
 */
#ifndef MW_HTTP_URL_H
#define MW_HTTP_URL_H

#include "apr_pools.h"

/** Longest host name in bytes. */
#define MW_HTTP_HOST_MAX 253

/** Longest URL in bytes. */
#define MW_HTTP_URL_MAX 2000

typedef struct mw_http_url_t {
    const char *text; /**< the URL without slashes at its end */
    const char *host; /**< name or address without brackets */
    int port;
    int is_tls;
    int has_path;
} mw_http_url_t;

/**
 * Parse a URL. What is wrong is told without showing it.
 * @param pool of what url points to and of the message
 * @return NULL or what is wrong and what is accepted
 */
const char *mw_http_url_parse(const char *text, mw_http_url_t *url,
                              apr_pool_t *pool);

#endif
