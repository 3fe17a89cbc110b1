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
 *     servers             which server has a key: one alone,
 *     sentinel            … the master that sentinels name,
 *     cluster, slotmap    … the one of its slot
 *     turn                one thread asks for all
 *     layout, seal        entries as fields
 *     get, set, keep,
 *     lock                the slots
 *     say, watch          what servers tell each other
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
typedef struct mw_redis_say_t mw_redis_say_t;
typedef struct mw_redis_ears_t mw_redis_ears_t;
typedef struct mw_redis_servers_ops_t mw_redis_servers_ops_t;
typedef struct mw_redis_tls_t mw_redis_tls_t;

/** What ssl_cert_reqs= says, in the order of its words. */
typedef enum mw_redis_cert_reqs_e {
    MW_REDIS_CERT_NONE,
    MW_REDIS_CERT_OPTIONAL,
    MW_REDIS_CERT_REQUIRED
} mw_redis_cert_reqs_e;

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
    mw_redis_cert_reqs_e ssl_cert_reqs;
    int ssl_check_hostname;
} mw_redis_settings_t;

#define MW_REDIS_PLACE_WORDS 4

/** A store. Set in the parent, save what child_init() makes. */
struct mw_redis_t {
    const cachemw_services_t *services;
    mw_redis_settings_t settings;
    mw_redis_names_t *names; /**< of the segment; NULL: nothing to look up */
    /** Of the segment: where the master is that Sentinel named last, as
     *  MW_REDIS_PLACE_WORDS that are read and written one by one; sentinel.c
     *  knows how. NULL: no Sentinel. */
    apr_uint64_t *place;
    mw_redis_seal_t *seal;                 /**< NULL: no secret */
    mw_redis_tls_t *tls;                   /**< NULL: plain */
    mw_redis_say_t *say;                   /**< what changes are told */
    mw_redis_ears_t *ears;                 /**< of a child; atomic: watch.c */
    const mw_redis_servers_ops_t *servers; /**< by the URL's scheme */
    void *servers_self; /**< theirs: made by their child_init() */
};

/** Monotonic clock, microseconds. */
apr_int64_t mw_redis_clock(const mw_redis_t *store);

/** When a call must be done: its deadline, or 10 s from now if it has none. */
apr_int64_t mw_redis_deadline(const mw_redis_t *store,
                              const cachemw_call_t *call);

/** When a step of a call must be done that may have many: the same, and 10 s
 *  from now at the latest. */
apr_int64_t mw_redis_step_deadline(const mw_redis_t *store,
                                   const cachemw_call_t *call);

/**
 * Count something by kind, shown for the store over all children.
 * @param kind up to 23 letters, digits, - and _; of a small fixed set
 */
void mw_redis_count(const mw_redis_t *store, const char *kind);

/** What a server has answered is no answer: counted and explained.
 *  @return EPROTO */
apr_status_t mw_redis_nonsense(const mw_redis_t *store);

#endif
