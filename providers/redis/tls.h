/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file tls.h
 * @brief The transport over TLS (OpenSSL).
 */
#ifndef MW_REDIS_TLS_H
#define MW_REDIS_TLS_H

#include "stream.h"

extern const mw_redis_stream_ops_t mw_redis_stream_tls;

/**
 * open(), perhaps as root: read certificates and key into what all connections
 * share, store->tls. Freed with `pool`.
 * @return NULL, or what is wrong with which option and what is accepted
 */
const char *mw_redis_tls_make(mw_redis_t *store, apr_pool_t *pool);

#endif
