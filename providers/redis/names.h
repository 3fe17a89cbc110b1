/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file names.h
 * @brief Addresses of hosts: a table in shared memory.
 *
 * Requests never ask the resolver, which has no deadline. Addresses as numbers
 * need no table. Names of the URL have a row each; a thread in the process that
 * sweeps looks them up, every NAMES_REFRESH and when a connection to one has
 * failed. A row is read and written under a sequence number: a reader that
 * meets a writer reads again, some times, then has no address.
 */
#ifndef MW_REDIS_NAMES_H
#define MW_REDIS_NAMES_H

#include <sys/socket.h>

#include "redis.h"

/** Addresses kept of a name. */
#define MW_REDIS_ADDRESSES 4

/** Where to connect: what connect(2) takes. */
typedef struct mw_redis_address_t {
    struct sockaddr_storage socket;
    socklen_t length; /**< 0: none */
} mw_redis_address_t;

/** Bytes that the names of a URL need in the segment; 0: none are names. */
apr_size_t mw_redis_names_size(const mw_redis_url_t *url);

/**
 * An address of an endpoint. Does not block.
 * @param n which of several: taken modulo their number
 * @return APR_EAGAIN: the name was not (yet) found; APR_ENAMETOOLONG: a path
 *         that no socket can have
 */
apr_status_t mw_redis_names_find(const mw_redis_t *store,
                                 const mw_redis_endpoint_t *endpoint,
                                 unsigned int n, mw_redis_address_t *address);

/** A connection to this endpoint failed: look its name up again, soon. */
void mw_redis_names_doubt(const mw_redis_t *store,
                          const mw_redis_endpoint_t *endpoint);

/**
 * From sweep(), which only one process calls: begin the thread that looks up,
 * unless it runs. It ends with `pchild`.
 */
apr_status_t mw_redis_names_watch(mw_redis_t *store);

#endif
