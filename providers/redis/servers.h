/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file servers.h
 * @brief Which server has a key: one alone, what Sentinel says, a cluster.
 */
#ifndef MW_REDIS_SERVERS_H
#define MW_REDIS_SERVERS_H

#include "pool.h"

/** Slots of a cluster. */
#define MW_REDIS_SLOTS 16384

/**
 * A kind of arrangement. `self` is store->servers_self. Any thread, save
 * child_init.
 */
struct mw_redis_servers_ops_t {
    /** Make self; register on pchild what must end with the child. */
    apr_status_t (*child_init)(mw_redis_t *store, apr_pool_t *pchild);

    /**
     * The server of a slot.
     * @param slot 0 … MW_REDIS_SLOTS - 1; what is not a cluster ignores it
     * @param pool referenced for the caller, who calls mw_redis_pool_unref()
     * @return APR_TIMEUP; trouble: nobody knows now
     */
    apr_status_t (*find)(mw_redis_t *store, int slot, apr_int64_t deadline,
                         mw_redis_pool_t **pool);

    /**
     * A batch ended so that another server may be the right one: an error
     * reply (READONLY, MOVED, ASK, CLUSTERDOWN, LOADING, …) or, with error
     * NULL, failure rv. NULL: there is no other.
     * @param asking set when the batch is to begin with ASKING
     * @param pool the next to try, referenced; NULL: give up
     */
    void (*redirect)(mw_redis_t *store, int slot, const mw_redis_pool_t *failed,
                     apr_status_t rv, const mw_redis_reply_t *error,
                     apr_int64_t deadline, mw_redis_pool_t **pool, int *asking);

    /**
     * The i-th of the servers that together have all keys, from 0 on.
     * @return APR_EOF: there are no more
     */
    apr_status_t (*at)(mw_redis_t *store, int i, apr_int64_t deadline,
                       mw_redis_pool_t **pool);

    /** From sweep(), in the process that sweeps. NULL: nothing to do. */
    apr_status_t (*sweep)(mw_redis_t *store, const cachemw_call_t *call,
                          int *more);
};

extern const mw_redis_servers_ops_t mw_redis_standalone;

/** The slot of a key (CRC16 of its {tag}), by the rules of Redis Cluster. */
int mw_redis_slot(const char *name, apr_size_t len);

/**
 * Run a batch where the key of a slot is: find, pool_batch, at most one
 * redirect. Error replies are counted by kind.
 * @param name,len a key, for its slot
 */
apr_status_t mw_redis_run(mw_redis_t *store, const char *name, apr_size_t len,
                          mw_redis_batch_t *batch, apr_int64_t deadline,
                          mw_redis_reply_t ***replies);

#endif
