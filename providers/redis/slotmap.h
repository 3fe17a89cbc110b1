/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file slotmap.h
 * @brief Slots of keys, and what a cluster's node says of who serves which.
 *
 * Nothing that is said is taken on trust: numbers out of range, wrong types,
 * too many nodes and slots with two masters are refused. A node that is named by something else than
 * an address cannot be found by requests, which look up no names: its slots
 * have no master.
 */
#ifndef MW_REDIS_SLOTMAP_H
#define MW_REDIS_SLOTMAP_H

#include "resp.h"
#include "url.h"

/** Slots of a cluster. */
#define MW_REDIS_SLOTS 16384

/** Most masters of a cluster. */
#define MW_REDIS_NODES_MAX 1000

/** Bytes of the longest reply to CLUSTER SLOTS that is read. */
#define MW_REDIS_SLOTMAP_REPLY_MAX (1024 * 1024)

typedef struct mw_redis_slotmap_t {
    int count;                  /**< of masters */
    mw_redis_endpoint_t *nodes; /**< of masters, each once */
    /** The master of each slot: 1 + its index in nodes; 0: nobody. */
    apr_uint16_t owners[MW_REDIS_SLOTS];
} mw_redis_slotmap_t;

/** The slot of a key by the rules of Redis Cluster: CRC16 of its {tag}. */
int mw_redis_slot(const char *name, apr_size_t len);

/** Whether both are the same place. */
int mw_redis_endpoint_same(const mw_redis_endpoint_t *one,
                           const mw_redis_endpoint_t *other);

/**
 * Read a reply to CLUSTER SLOTS.
 * @param from who replied: a node without an address is on its machine
 * @param map filled; its texts are in pool, or from's
 * @return EOPNOTSUPP: an error; EPROTO: it is none, or names no master
 */
apr_status_t mw_redis_slotmap_parse(const mw_redis_reply_t *reply,
                                    const mw_redis_endpoint_t *from,
                                    mw_redis_slotmap_t *map, apr_pool_t *pool);

/**
 * Read "MOVED slot host:port" or "ASK slot host:port".
 * @param from who replied: without a host, it is on its machine
 * @param slot set also with APR_NOTFOUND
 * @param to in pool, or from's
 * @return EPROTO: it is none; APR_NOTFOUND: the host is no address
 */
apr_status_t mw_redis_redirect_parse(const mw_redis_reply_t *error,
                                     const mw_redis_endpoint_t *from, int *slot,
                                     mw_redis_endpoint_t *to, apr_pool_t *pool);

#endif
