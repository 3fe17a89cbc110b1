/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file names.h
 * @brief Addresses of hosts: a table in shared memory.
 *
 * Requests never ask the resolver, which has no deadline. Addresses as numbers
 * need no table. Names of the URL have a row each; the process that sweeps
 * looks them up with each sweep. A row is copied under its sequence number,
 * which is odd while it is being written: a reader that meets a writer reads
 * again, some times, then has no address. Addresses stay when the resolver
 * fails.
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

/**
 * post_config(): the table for the names in the URL, if there are any, and
 * store->place, for who follows Sentinel.
 */
apr_status_t mw_redis_names_make(mw_redis_t *store);

/**
 * An address of an endpoint. Does not block.
 * @param n which of several: taken modulo their number
 * @return APR_EAGAIN: the name was not found yet; ENAMETOOLONG: a path that no
 *         socket can have; APR_NOTFOUND: a name that is not in the URL
 */
apr_status_t mw_redis_names_find(const mw_redis_t *store,
                                 const mw_redis_endpoint_t *endpoint,
                                 unsigned int n, mw_redis_address_t *address);

/** From sweep(): look up all names. May block for as long as the resolver. */
void mw_redis_names_sweep(const mw_redis_t *store);

#endif
