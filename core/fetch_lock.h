/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file fetch_lock.h
 * @brief One fetch for all servers: who has the mark of a page takes the lock of
 *        the store for it, where the store has locks.
 *
 * All processes of a server have one token, so that a successor of who died has
 * the lock already: within a server the marks decide. The lock's name is a hash
 * of the page's key; it is noted in the mark, so that the process that sweeps
 * can extend it and let go of it. It never lives longer than the mark would.
 */
#ifndef MW_FETCH_LOCK_H
#define MW_FETCH_LOCK_H

#include "store.h"

/** A mark, and whose it is. */
typedef struct mw_fetch_t {
    mw_store_t *store;
    cachemw_key_t key;
    apr_uint64_t owner; /**< token of the mark */
    apr_int64_t end;    /**< when the mark ends */
} mw_fetch_t;

/** Whether requests to the store may have locks at all. */
int mw_fetch_can_lock(const mw_store_t *store);
/** Whether they have any now: not while it is known that no other server shares
 *  the store, unless they are always to have them. */
int mw_fetch_locks(const mw_store_t *store);

/**
 * Take the lock of a page whose mark is held, or extend it. One call of the
 * store.
 * @param server the server's token
 * @param holder set with APR_EBUSY: that of the server that has it
 * @return APR_SUCCESS; APR_EBUSY; else there is no lock now, and nothing is
 *         to be waited for
 */
apr_status_t mw_fetch_lock(const mw_fetch_t *fetch, const cachemw_call_t *call,
                           const cachemw_id_t *server, cachemw_id_t *holder);

/** Before the mark is let go: forget the lock. @return non-zero: it was had,
 *  and mw_fetch_unlock() is to follow */
int mw_fetch_forget(const mw_fetch_t *fetch);
/** Let go of a lock that was forgotten. One call of the store. */
void mw_fetch_unlock(const mw_fetch_t *fetch, const cachemw_call_t *call,
                     const cachemw_id_t *server);

/** Time between two calls of mw_fetch_tend(). */
apr_interval_time_t mw_fetch_tend_interval(const mw_store_t *store);
/** In the process that sweeps: extend the locks of the marks that are held, let
 *  go of the others. */
void mw_fetch_tend(mw_store_t *store, const cachemw_call_t *call,
                   const cachemw_id_t *server);

#endif
