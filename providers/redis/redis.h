/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file redis.h
 * @brief What the parts of the store in Redis share.
 *
 *     mod_cachemw_redis   options, life, table
 *     url                 what url= says
 *     names               addresses of host names, found outside of requests
 *     stream, tls         connected bytes
 *     resp                commands as bytes, bytes as replies
 *     conn                one connection: greeting, batches
 *     pool                a child's connections to one server
 *     servers             which server has a key: standalone, …
 *     layout, seal        entries as fields
 *     get, set, keep      the slots
 *
 * All deadlines are absolute: monotonic clock, microseconds.
 */
#ifndef MW_REDIS_H
#define MW_REDIS_H

#include "mod_cachemw.h"

#include "url.h"

typedef struct mw_redis_t mw_redis_t;
typedef struct mw_redis_names_t mw_redis_names_t;
typedef struct mw_redis_pool_t mw_redis_pool_t;
typedef struct mw_redis_seal_t mw_redis_seal_t;
typedef struct mw_redis_servers_ops_t mw_redis_servers_ops_t;
typedef struct mw_redis_tls_t mw_redis_tls_t;

/** What is counted, over all children, and shown beside the store. */
typedef enum mw_redis_count_e {
    MW_REDIS_CONNECTS, /**< connections made */
    MW_REDIS_CONNECT_FAILS,
    MW_REDIS_RETRIES,   /**< on another connection, as one was stale */
    MW_REDIS_TIMEOUTS,  /**< deadlines that passed */
    MW_REDIS_BROKEN,    /**< connections that ended or failed in use */
    MW_REDIS_NONSENSE,  /**< replies of a wrong shape or length */
    MW_REDIS_DAMAGED,   /**< entries with a wrong shape or checksum */
    MW_REDIS_UNSIGNED,  /**< entries without a seal where one is wanted */
    MW_REDIS_FORGED,    /**< entries with a seal that is not ours */
    MW_REDIS_REDIRECTS, /**< MOVED and ASK that were followed */
    /* error replies by kind, in the order of mw_redis_error_e */
    MW_REDIS_ERROR_REPLIES,
    MW_REDIS_COUNTS = MW_REDIS_ERROR_REPLIES + 16
} mw_redis_count_e;

/** What the children share; zero at first. */
typedef struct mw_redis_shared_t {
    apr_uint64_t counts[MW_REDIS_COUNTS]; /**< atomic */
} mw_redis_shared_t;

/** Options that concern connections. Set in open(). */
typedef struct mw_redis_settings_t {
    mw_redis_url_t url;
    int max_connections;                       /**< of a child to one server */
    apr_interval_time_t connect_timeout;       /**< TCP, TLS and greeting */
    apr_interval_time_t health_check_interval; /**< 0: never */
    int retry_on_timeout;
    int socket_keepalive;
    const char *key_prefix;
    const char *secret; /**< NULL: entries are not signed */
    /* ssl_*: as given, NULL where not */
    const char *ssl_ca_certs;
    const char *ssl_certfile;
    const char *ssl_keyfile;
    int ssl_cert_reqs; /**< 0 none, 1 optional, 2 required */
    int ssl_check_hostname;
} mw_redis_settings_t;

/** A store. Set in the parent, save what child_init() makes. */
struct mw_redis_t {
    const cachemw_services_t *services;
    mw_redis_settings_t settings;
    mw_redis_shared_t *shared; /**< of the segment; never NULL after
                                     child_init() */
    mw_redis_names_t *names;   /**< of the segment; NULL: nothing to look up */
    mw_redis_seal_t *seal;     /**< NULL: no secret */
    mw_redis_tls_t *tls;       /**< NULL: plain; made in open() or later */
    const mw_redis_servers_ops_t *servers; /**< by the URL's scheme */
    void *servers_self; /**< theirs: made by their child_init() */
};

/** Monotonic clock, microseconds. */
apr_int64_t mw_redis_clock(void);

/** When a call must be done: its deadline, or 10 s from now if it has none. */
apr_int64_t mw_redis_deadline(const mw_redis_t *store,
                              const cachemw_call_t *call);

void mw_redis_count(const mw_redis_t *store, mw_redis_count_e what);

#endif
