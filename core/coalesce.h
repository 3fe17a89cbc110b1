/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file coalesce.h
 * @brief One fetch per page: the first request that has to go to the origin
 *        takes the page's mark; others sleep until it is let go, and look
 *        again. Who has the mark takes the store's lock, where there is one, and
 *        waits for a server that has it in the same way and no longer.
 *
 * Nothing here ever makes a request fail: who may not wait, has waited long
 * enough or finds that the page cannot be stored goes to the origin as if there
 * were no marks. A request whose chain (the requests that contain it or were
 * redirected to it) holds a mark never waits, nor does one that came from this
 * very server by way of a proxy: else two could wait for each other.
 */
#ifndef MW_COALESCE_H
#define MW_COALESCE_H

#include "cache_request.h"

/** post_config: make what the children share, within a generation of segments.
 *  NULL: nobody is to wait, no store wants it. */
apr_status_t mw_coalesce_create(mw_segments_t *segments);

/** child_init: reads the limits of the MPM and of mod_http2. */
void mw_coalesce_child_init(apr_pool_t *pchild, server_rec *s);

/** Parent: a child is dead, so its requests wait no longer. */
void mw_coalesce_bury(pid_t pid);
/** Likewise for each store: who waits for its fetches need not wait on. */
void mw_coalesce_bury_in(mw_store_t *store, pid_t pid);

/** Time between two calls of mw_coalesce_tend(); 0: there is nothing to do.
 *  After mw_coalesce_create(). */
apr_interval_time_t mw_coalesce_tend_interval(mw_store_t *store);
/** The process that sweeps: keep the locks that the store has given to this
 *  server's requests, and let go of those of the dead. */
void mw_coalesce_tend(mw_store_t *store, const cachemw_call_t *call);

/**
 * After a look-up for a GET that found nothing, or nothing that is fresh
 * without a doubt: take the mark, or wait for who has it and look up again.
 * @param rv of mw_lookup_response()
 * @return of the last one
 */
apr_status_t mw_coalesce(mw_handle_t *handle, request_rec *r, apr_status_t rv);

/**
 * The mark that this very request has taken, while it holds it and nobody
 * watches its response; NULL: there is none. It lives as long as the request,
 * also when it was let go.
 */
mw_turn_t *mw_coalesce_unwatched(request_rec *r);

/** Tell whether somebody sees the response that a mark was taken for to its
 *  end, behind mod_cache's filters: not so at first. */
void mw_coalesce_watch(mw_turn_t *turn, int is_watched);

/** Whether a mark is held for this request whose response is watched: then
 *  nobody who comes meanwhile misses what is committed only at its end. */
int mw_coalesce_is_watched(request_rec *r);

/** What became of the fetch that a request has a mark for. */
typedef enum mw_fetched_e {
    MW_FETCHED_STORED,
    MW_FETCHED_UNSTORABLE, /**< the next ones would not be stored either */
    MW_FETCHED_NOTHING     /**< nothing can be said: another may try */
} mw_fetched_e;

/** The request (or who it was redirected from) holds no mark any longer. */
void mw_coalesce_end(request_rec *r, mw_fetched_e what);

/** mod_cache stores no response to this request; may be one that says nothing
 *  of others (an abort, a 304, a part). */
void mw_coalesce_end_unstored(request_rec *r);

#endif
