/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file servers.h
 * @brief Which server has a key: one alone, what Sentinel says, a cluster.
 */
#ifndef MW_REDIS_SERVERS_H
#define MW_REDIS_SERVERS_H

#include "pool.h"

/** Most redirections of one batch: slots may move again meanwhile. */
#define MW_REDIS_REDIRECTIONS 3

/** Why another server may be the right one. */
typedef struct mw_redis_reason_t {
    const mw_redis_pool_t *pool;   /**< where it went wrong */
    apr_status_t rv;               /**< a failure; APR_SUCCESS: see reply */
    mw_redis_error_e error;        /**< READONLY, MOVED, ASK, … */
    const mw_redis_reply_t *reply; /**< the error reply, or NULL */
} mw_redis_reason_t;

/** A kind of arrangement. Any thread, save child_init. */
struct mw_redis_servers_ops_t {
    /**
     * Make store->servers_self unless it is there. What must end with the child
     * is registered on pchild; but calls of other threads may go on after that,
     * so memory that they use stays until close.
     */
    apr_status_t (*child_init)(mw_redis_t *store, apr_pool_t *pchild);

    /** Free servers_self, if it was made. */
    void (*close)(mw_redis_t *store);

    /**
     * The server of a slot.
     * @param slot see mw_redis_slot(); what is no cluster ignores it
     * @param pool referenced for the caller, who calls mw_redis_pool_unref()
     * @return APR_EAGAIN: the child is ending, an address is not known yet, or
     *         of several servers the one of this slot is away; APR_TIMEUP;
     *         trouble: nobody knows now
     */
    apr_status_t (*find)(mw_redis_t *store, int slot, apr_int64_t deadline,
                         mw_redis_pool_t **pool);

    /**
     * After a batch went wrong, at most MW_REDIS_REDIRECTIONS + 1 times for
     * each. May be NULL: there is no other server.
     * @param is_asking set to 1 when ASKING must come first
     * @param pool the next one to try, referenced; NULL: there is none
     * @return of several servers, whether any answers: APR_SUCCESS, or trouble
     */
    apr_status_t (*redirect)(mw_redis_t *store, int slot,
                             const mw_redis_reason_t *reason,
                             apr_int64_t deadline, mw_redis_pool_t **pool,
                             int *is_asking);

    /**
     * The i-th of the servers that together have all keys, from 0 on.
     * @return APR_EOF: there are no more; see find
     */
    apr_status_t (*at)(mw_redis_t *store, int i, apr_int64_t deadline,
                       mw_redis_pool_t **pool);

    /** Non-zero: of several servers each has a part of the keys. That one of
     *  them is away is APR_EAGAIN while others answer: no failure of the
     *  store. */
    int is_many;
};

extern const mw_redis_servers_ops_t mw_redis_standalone;
extern const mw_redis_servers_ops_t mw_redis_sentinel;
extern const mw_redis_servers_ops_t mw_redis_cluster;

/**
 * The first error reply that matters, also inside of an EXEC's array.
 * NOSCRIPT, WRONGTYPE and OTHER inside of an EXEC do not: its other commands
 * have been done.
 */
mw_redis_error_e mw_redis_replies_error(mw_redis_reply_t *const *replies,
                                        int count,
                                        const mw_redis_reply_t **error);

/**
 * Run a batch where a key is, with some redirections.
 * @param name,len one of its keys
 * @return what the first error reply that matters means, counted; NOSCRIPT and
 *         WRONGTYPE, which the caller knows how to deal with, are APR_SUCCESS;
 *         APR_EAGAIN: see find and is_many
 */
apr_status_t mw_redis_run(mw_redis_t *store, const char *name, apr_size_t len,
                          mw_redis_batch_t *batch, apr_int64_t deadline,
                          mw_redis_reply_t ***replies);

/** The same on a server that `at` told. */
apr_status_t mw_redis_run_at(mw_redis_t *store, mw_redis_pool_t *pool,
                             mw_redis_batch_t *batch, apr_int64_t deadline,
                             mw_redis_reply_t ***replies);

#endif
