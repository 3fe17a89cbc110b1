/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file names.h
 * @brief Addresses of the hosts in the URL: see addresses.h. Numbers and
 *        paths need none.
 */
#ifndef MW_REDIS_NAMES_H
#define MW_REDIS_NAMES_H

#include "providers/common/addresses.h"

#include "redis.h"

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
                                 unsigned int n, mw_address_t *address);

/**
 * Whether an address that names_find told is by now none of its name's, which
 * has others. Does not block.
 */
int mw_redis_names_left(const mw_redis_t *store,
                        const mw_redis_endpoint_t *endpoint,
                        const mw_address_t *address);

/** From sweep(): look up all names. May block for as long as the resolver. */
void mw_redis_names_sweep(const mw_redis_t *store);

#endif
