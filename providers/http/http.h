/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file http.h
 * @brief What the parts of the store behind HTTP share.
 *
 *     mod_cachemw_http    options, life, table
 *     url                 what base_url= and proxy= say
 *     pool                a child's connections
 *     request             one request and its answer
 *     outcome             what an answer means, or that there is none
 *     entries             the slots
 *
 * All deadlines are absolute: monotonic clock, microseconds.
 */
#ifndef MW_HTTP_H
#define MW_HTTP_H

#include "mod_cachemw.h"
#include "providers/common/addresses.h"

#include "url.h"

/** What key_encoding= says, in the order of its words. */
typedef enum mw_http_encoding_e {
    MW_HTTP_SHA256,
    MW_HTTP_PERCENT
} mw_http_encoding_e;

/** Options. Set in open(). */
typedef struct mw_http_settings_t {
    mw_http_url_t base;
    mw_http_url_t proxy;       /**< host NULL: none */
    const char *authorization; /**< whole header field; NULL: no token */
    const char *ca_file;       /**< NULL: the system's authorities */
    int ssl_verify;
    apr_interval_time_t connect_timeout; /**< TCP, TLS, a proxy's answer */
    int max_connections;                 /**< of a child */
    int max_retries;
    int retry_reads;
    mw_http_encoding_e key_encoding;
} mw_http_settings_t;

typedef struct mw_http_pool_t mw_http_pool_t;

/** A store. Set in the parent, save what child_init() makes. */
typedef struct mw_http_t {
    const cachemw_services_t *services;
    mw_http_settings_t settings;
    const mw_http_url_t *peer; /**< whom we connect to: base or proxy */
    mw_addresses_t *addresses; /**< of the segment; NULL: peer is a number */
    const char *ca;            /**< bytes of ca_file, as a NUL-terminated text;
                                    NULL: none */
    mw_http_pool_t *pool;      /**< of the child */
} mw_http_t;

/** Monotonic clock, microseconds. */
apr_int64_t mw_http_clock(const mw_http_t *store);

/** When a call must be done: its deadline, or 10 s from now if it has none. */
apr_int64_t mw_http_deadline(const mw_http_t *store,
                             const cachemw_call_t *call);

/**
 * Count something by kind, shown for the store over all children.
 * @param kind up to 23 letters, digits, - and _; of a small fixed set
 */
void mw_http_count(const mw_http_t *store, const char *kind);

#endif
