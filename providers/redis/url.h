/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file url.h
 * @brief What the option url= says.
 *
 *     redis://[user[:password]@]host[:port][/db]
 *     rediss://…                                  the same over TLS
 *     unix:///path[?db=n]                         also unix://user:password@/path
 *     redis+sentinel://[user[:password]@]host:port[,host:port…]/master[/db]
 *     redis+cluster://[user[:password]@]host:port[,host:port…]
 *
 * Hosts are names, IPv4 addresses, or IPv6 addresses in brackets; user,
 * password, path and name of the master may be percent-encoded.
 */
#ifndef MW_REDIS_URL_H
#define MW_REDIS_URL_H

#include "apr_pools.h"

typedef enum mw_redis_scheme_e {
    MW_REDIS_TCP,
    MW_REDIS_UNIX,
    MW_REDIS_SENTINEL,
    MW_REDIS_CLUSTER
} mw_redis_scheme_e;

/** Longest host name in bytes. */
#define MW_REDIS_HOST_MAX 253

/** Most hosts in a URL. */
#define MW_REDIS_HOSTS_MAX 16

/** Where something listens. */
typedef struct mw_redis_endpoint_t {
    const char *host; /**< name or address without brackets; of a Unix socket
                           its absolute path */
    int port;         /**< 0: a Unix socket */
} mw_redis_endpoint_t;

typedef struct mw_redis_url_t {
    mw_redis_scheme_e scheme;
    int is_tls;         /**< rediss:// */
    int endpoint_count; /**< at least 1; one of TCP and Unix */
    mw_redis_endpoint_t endpoints[MW_REDIS_HOSTS_MAX];
    const char *user;     /**< NULL: none */
    const char *password; /**< NULL: none; of password_file, too */
    const char *master;   /**< of Sentinel, else NULL */
    int db;               /**< 0 where none is given */
} mw_redis_url_t;

/**
 * Parse a URL. What is wrong is told without showing user or password.
 * @param pool of what url points to and of the message
 * @return NULL or what is wrong and what is accepted
 */
const char *mw_redis_url_parse(const char *text, mw_redis_url_t *url,
                               apr_pool_t *pool);

/** Bytes for a host, a port and what is between them, with the NUL. */
#define MW_REDIS_ENDPOINT_MAX (MW_REDIS_HOST_MAX + 10)

/** "host:port", "[v6]:port" or the path, for messages. @return text */
const char *mw_redis_endpoint_text(const mw_redis_endpoint_t *endpoint,
                                   char text[MW_REDIS_ENDPOINT_MAX]);

#endif
