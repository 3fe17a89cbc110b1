/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file cache_request.h
 * @brief What the adapter remembers of a request and of each of mod_cache's
 *        handles; private to core/cache_*.c.
 */
#ifndef MW_CACHE_REQUEST_H
#define MW_CACHE_REQUEST_H

#include "cache_adapter.h"
#include "config.h"
#include "store.h"
#include "vary.h"

/**
 * Our side of a cache_object_t. The object is its first member and vobj stays
 * NULL: mod_cache hands a handle of ours to every other provider's remove_url,
 * and the existing ones leave a NULL alone but not a foreign pointer. Lives in
 * the pool of the request that made it.
 */
typedef struct mw_handle_t {
    cache_object_t object;
    struct mw_handle_t *next; /**< others of the same request */
    mw_store_t *store;
    conn_rec *connection;
    cachemw_key_t plain;  /**< namespace, NUL, URL key */
    cachemw_key_t key;    /**< the same, or the variant's */
    apr_uint64_t epoch;   /**< purge epoch before the look-up */
    apr_time_t looked_up; /**< when: later reads ask for that time */
    const void *context;  /**< of calls that look: see cachemw_call_t */
    unsigned int fields;  /**< MW_REQUEST_… of the look-up */

    mw_vary_t *record; /**< the Vary record; NULL: does not vary */
    cachemw_id_t record_id;
    apr_time_t record_expires;

    apr_int64_t deadline; /**< of what belongs to storing; 0: calls have
                               their own */

    cachemw_entry_t entry;   /**< what was found, or is being stored */
    apr_bucket_brigade body; /**< its body, when found; pool NULL: unused */
    mw_head_t head;          /**< decoded, or being made */
    int is_found;            /**< made by open_entity, and answered OK */
    int is_miss;             /**< made by open_entity, nothing found */
    apr_table_t *asked;      /**< unless fresh: the request's fields then */
    apr_table_t *live;       /**< the table itself, which modules may change */
    int is_kept;             /**< more of it is still to be read: keep it */
    int is_private; /**< a 304 that must not be shared: keep the head */

    mw_set_t *set;      /**< body being stored */
    mw_digest_t digest; /**< of the variant being stored */
    int is_complete;    /**< the end of the body was seen */
    int is_broken;      /**< an error was announced inside the body */
    int has_waited;     /**< a flush went ahead of a blocking read */
    int is_late;        /**< complete, to be committed behind its last byte */
} mw_handle_t;

/** See coalesce.c. */
typedef struct mw_turn_t mw_turn_t;

/** What is kept with a request. */
typedef struct mw_request_t {
    mw_handle_t *handles; /**< newest first */
    apr_uint64_t epoch;   /**< purge epoch when mod_cache let it pass, */
    int is_noted;         /**< if our quick handler saw that */
    apr_table_t *asked;   /**< not looked up: its fields when mod_cache decided
                               to store the response all the same */
    int is_lookup;        /**< a subrequest that only looks */
    mw_turn_t *turns;     /**< of the first of a chain: marks it holds */
    int has_looped;       /**< likewise: its CDN-Loop is of our making */
} mw_request_t;

/** Make the state of a request that has none. */
mw_request_t *mw_request_begin(request_rec *r);

/** The state of a request; made when there is none. */
static APR_INLINE mw_request_t *mw_request_state(request_rec *r)
{
    mw_request_t *state =
        ap_get_module_config(r->request_config, &cachemw_module);

    return state != NULL ? state : mw_request_begin(r);
}

/** @name Fields of a request that a look-up goes by @{ */
#define MW_REQUEST_BODY 0x1u          /**< it has, or may have, a body */
#define MW_REQUEST_CONDITIONAL 0x2u   /**< If-None-Match, If-Modified-Since */
#define MW_REQUEST_CACHE_CONTROL 0x4u /**< Cache-Control */

/** Which of them it has: one pass over the fields instead of five. */
unsigned int mw_request_fields(const request_rec *r);
/** @} */

/**
 * A new handle on a key of mod_cache's.
 * @return NULL when the key is too long to be stored
 */
mw_handle_t *mw_handle_make(request_rec *r, const mw_server_t *server,
                            const char *url_key);

/**
 * Our handle behind mod_cache's, when it is one that this request, one that it
 * was redirected from or one that contains it has made; else NULL.
 */
mw_handle_t *mw_handle_recognise(request_rec *r, const cache_handle_t *h);

/** The handle of the look-up that led to storing under this key, or NULL. */
mw_handle_t *mw_handle_of_lookup(request_rec *r, const cachemw_key_t *plain);

/** The handle whose response is being stored for this request, or for one that
 *  was redirected to it; NULL: none is. */
mw_handle_t *mw_handle_of_storing(const request_rec *r);

/**
 * @name Ids of entries: 96 random bits, and 32 that a store which gives another
 * key's entry cannot get right. @{
 */
void mw_entry_id_draw(cachemw_id_t *id, const cachemw_key_t *key);
int mw_entry_id_fits(const cachemw_id_t *id, const cachemw_key_t *key);
/** @} */

/** The state of this request, or of the one before it that our quick handler
 *  has noted; NULL when there is none. */
const mw_request_t *mw_request_noted(const request_rec *r);

/** A call in the request's pool; the deadline is the store's own. */
void mw_request_call(request_rec *r, apr_time_t now, cachemw_call_t *call);

/** @name Looking up: cache_lookup.c @{ */

/** Find the response for a GET or HEAD. */
apr_status_t mw_lookup_response(mw_handle_t *handle, request_rec *r);
/** Once more, as if for the first time. */
apr_status_t mw_lookup_again(mw_handle_t *handle, request_rec *r);
/** Find what a PUT, POST or DELETE makes invalid, whatever varies. */
apr_status_t mw_lookup_any(mw_handle_t *handle, request_rec *r);
/** Read the Vary record, if there is one, without its variants. */
apr_status_t mw_lookup_record(mw_handle_t *handle, request_rec *r);
/** The body was not looked up: make sure that its first piece is in hand if it
 *  may be wanted. */
apr_status_t mw_lookup_body(mw_handle_t *handle, request_rec *r);

/** @} */

/** @name Freshness as mod_cache sees it: cache_fresh.c @{ */

/** Whether the request asks for nothing special (RFC 9111, section 5.2.1) but
 *  perhaps a max-age above 0. */
int mw_fresh_request_is_plain(request_rec *r);
/** Whether what was found can be answered to such a request. */
int mw_fresh_is(const mw_handle_t *handle, request_rec *r);
/** Whether it was not even when it came (max-age=0, no-cache), so that waiting
 *  for its like is of no use. */
int mw_fresh_never(const mw_handle_t *handle, request_rec *r);
/**
 * If what was found is stale and may be used while another request revalidates
 * it (RFC 5861, section 3), make it look fresh to mod_cache, for this request.
 * @return non-zero when done
 */
int mw_fresh_extend(mw_handle_t *handle, request_rec *r);

/** @} */

/** Append the body found to a brigade; the rest is read when it is sent. */
void mw_body_append(mw_handle_t *handle, apr_bucket_brigade *bb);

/** @name Storing: cache_save.c @{ */

/** Whether a response of this length (-1: unknown) is to be stored. */
int mw_save_wanted(request_rec *r, mw_store_t *store, apr_off_t length);
/** Begin: the head is complete. */
apr_status_t mw_save_headers(mw_handle_t *handle, request_rec *r);
apr_status_t mw_save_body(mw_handle_t *handle, request_rec *r,
                          apr_bucket_brigade *in, apr_bucket_brigade *out);
/** Whether what is being stored is a whole response by now. */
int mw_save_is_whole(const mw_handle_t *handle, request_rec *r);
/** Of one that is not, or was not before its end was sent, nothing is kept. */
apr_status_t mw_save_commit(mw_handle_t *handle, request_rec *r);
/** After a 304: make the amended head, then publish it. */
apr_status_t mw_save_amended(mw_handle_t *handle, request_rec *r);
apr_status_t mw_save_amend(mw_handle_t *handle, request_rec *r);
/** Mark what mw_lookup_any() found as invalid. */
apr_status_t mw_save_invalidate(mw_handle_t *handle, request_rec *r);

/** @} */

/** @name The end of a fetch: cache_end.c @{ */

/**
 * What was stored is complete. On another machine it is committed behind the
 * last byte of its response where that is watched.
 */
apr_status_t mw_end_commit(mw_handle_t *handle, request_rec *r);
/** Watch the response to a request that has just taken the mark of its page. */
void mw_end_watch(request_rec *r);

/** @} */

/** @name What is mod_cache's: cache_info.c @{ */

void mw_info_from_head(cache_info *info, const mw_head_t *head);
void mw_info_to_head(mw_head_t *head, const cache_info *info);

/** ap_cache_cacheable_headers_out(), found at run time. */
apr_table_t *mw_cacheable_headers(request_rec *r);

/** @} */

#endif
