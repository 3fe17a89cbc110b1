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
 * post_config(), perhaps as root: read certificates and key into what all
 * connections share, store->tls. Freed with `pool`.
 * @param error what is wrong with which option, for the log
 */
apr_status_t mw_redis_tls_prepare(mw_redis_t *store, apr_pool_t *pool,
                                  const char **error);

#endif
