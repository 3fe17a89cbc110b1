/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file store.h
 * @brief Stores: configured instances of providers, and the only code that
 *        calls their tables.
 *
 * Adds to every call what no provider should have to do: defaults for missing
 * slots, object limits, deadline and breaker, purge epochs, counters and log
 * lines at a limited rate. What a provider answers is checked before it is
 * believed. Whatever it does, the functions here answer
 *
 *     APR_SUCCESS   done
 *     APR_NOTFOUND  a miss: none there, or damaged, or another one by now;
 *                   for a set: overtaken by a purge
 *     APR_ENOSPC    not stored: too large, too small, no room
 *     APR_ENOTIMPL  clear, keys, lock and unlock only: the provider cannot
 *     APR_EBUSY     lock only: another one has it
 *     APR_EGENERAL  not even tried: the store is off or its breaker open
 *     APR_TIMEUP    the deadline is over; also not tried when it was before
 *     another       trouble
 *
 * and all trouble is already counted and logged; callers never log it again.
 *
 * Counted here: STORED, BYTES_STORED, REFUSED, NO_SPACE and ABORTED of sets in
 * pieces, NO_SPACE of mw_store_set(), REMOVED, DAMAGED, TIMEOUT, ERROR_…,
 * SKIPPED and the samples. By the caller: HIT, MISS, STALE, REVALIDATED,
 * INVALIDATED, CUT, BYTES_SENT. By the provider: EVICTED, EXPIRED, RECOVERED.
 */
#ifndef MW_STORE_H
#define MW_STORE_H

#include "entry.h"
#include "mod_cachemw.h"
#include "options.h"
#include "state.h"

typedef struct mw_store_t mw_store_t;

/** What the surroundings (httpd, a test, a tool) give to stores. */
typedef struct mw_host_t {
    /** Write a log line, "cachemw[store]: …"; already limited in rate. */
    void (*log)(void *baton, cachemw_level_e level, apr_status_t rv,
                const char *text);
    /** Shared memory; post_config only. */
    mw_segments_t *segments;
    /** Another store by its name, for tiers; NULL when there is none. */
    mw_store_t *(*find)(void *baton, const char *name);
    /** Whether a head is one that core has made; NULL: any is. */
    int (*head_is_sound)(const void *head, apr_size_t length, apr_pool_t *pool);
    const char *temp_dir; /**< NULL: apr_temp_dir_get() */
    /** A word that tells this server from all others; NULL: there is none. */
    const char *tag;
    void *baton;
} mw_host_t;

/** Options that every store has; parsed beside the provider's own. */
extern const cachemw_option_t mw_store_options[];

/** Of coalesce_servers; in the order of its words. */
typedef enum mw_coalesce_servers_e {
    MW_COALESCE_SERVERS_AUTO, /**< unless it is known that there is no other */
    MW_COALESCE_SERVERS_ON,
    MW_COALESCE_SERVERS_OFF
} mw_coalesce_servers_e;

/** Typed view of mw_store_options. */
typedef struct mw_store_settings_t {
    apr_interval_time_t keep; /**< storage time beyond freshness */
    apr_off_t max_object_size;
    apr_off_t min_object_size;
    int max_variants;
    apr_interval_time_t cleanup_interval;   /**< between full sweeps */
    apr_interval_time_t timeout;            /**< remote: per call */
    apr_interval_time_t body_timeout;       /**< remote: pieces of a body */
    apr_interval_time_t store_timeout;      /**< remote: for storing */
    int coalesce;                           /**< one fetch per page */
    mw_coalesce_servers_e coalesce_servers; /**< likewise, for all servers */
    apr_interval_time_t coalesce_timeout;   /**< longest wait for it */
    int announce;                           /**< changes are told to others */
} mw_store_settings_t;

/** @name Life. See mod_cachemw.h for who calls what where. @{ */

/**
 * @param provider_name what the provider is registered as; not copied: valid as
 *        long as the store
 * @param host valid as long as the store
 * @param options [0] the provider's, [1] mw_store_options, both parsed
 * @param error what is wrong, for the administrator
 */
apr_status_t mw_store_open(mw_store_t **store, const char *name,
                           const char *provider_name,
                           const cachemw_provider_t *provider,
                           const mw_options_t *options, const mw_host_t *host,
                           apr_pool_t *pconf, const char **error);
/** Failure switches the store off (every get misses); it is logged here. */
apr_status_t mw_store_post_config(mw_store_t *store, apr_pool_t *pconf,
                                  apr_uid_t uid, apr_gid_t gid);
apr_status_t mw_store_child_init(mw_store_t *store, apr_pool_t *pchild);
void mw_store_close(mw_store_t *store);

/** @} */

const char *mw_store_name(const mw_store_t *store);
const char *mw_store_provider_name(const mw_store_t *store);
const mw_store_settings_t *mw_store_settings(const mw_store_t *store);
/** Shared state; NULL before post_config or when that failed. */
mw_state_t *mw_store_state(const mw_store_t *store);
/** Non-zero: heads need a checksum. */
int mw_store_wants_checksum(const mw_store_t *store);
/** Non-zero: an entry that it gave was in the server's own memory, and its head
 *  need not be checked again. */
int mw_store_believes(const mw_store_t *store, const cachemw_entry_t *entry);
/** Non-zero while calls make sense: opened, on, breaker not open. */
int mw_store_is_usable(mw_store_t *store);
/** Add to a counter; nothing before post_config. */
void mw_store_count(mw_store_t *store, mw_counter_e which, apr_uint64_t n);
/** A log line of the store's. Warnings are limited to one per 10 s per format,
 *  over all children. Errors are not: they tell of the life cycle, which is
 *  not repeated with each request. */
void mw_store_log(mw_store_t *store, cachemw_level_e level, apr_status_t rv,
                  const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/**
 * Random bytes from the kernel; where it has none, bytes that differ with each
 * call and process. Ids are mostly made of mw_random_draw(), which is cheaper.
 */
void mw_store_random(void *buffer, apr_size_t length);

/**
 * Whom the calls of this thread are made for from now on: the servers that a
 * request came through, as services->via() has them; NULL: nobody.
 * @param list valid until the next call of this
 */
void mw_store_serve(const char *list);

/**
 * @name Calls
 * `call` needs pool, bucket_alloc and now; deadline and purge_epoch may be 0
 * (the deadline is then made from the store's settings).
 * @{
 */

/**
 * As in the contract. Damaged and expired entries are misses; damaged ones, and
 * answers that make no sense, are removed. Not counted as a hit or miss: the
 * caller knows which it was. After an error entry->body is empty.
 */
apr_status_t mw_store_get(mw_store_t *store, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry);

/** Files in a body are read from now on, never mapped: mapping one that a disk
 *  or a network cannot give would end the process. */
void mw_body_keep_unmapped(apr_bucket_brigade *body);

/**
 * As the slot; made of get where the provider has none, which is for tiers:
 * such a get has given the whole body. After an error body is as it was.
 */
apr_status_t mw_store_read(mw_store_t *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body);

/**
 * A piece of a body of which bytes were sent already, so that giving up shows:
 * what fails in a remote store is tried again every 100 ms, also while its
 * breaker is open, as long as there is time.
 * @param left In: what is left of the body's body_timeout. Out: without what
 *        was waited for this piece.
 */
apr_status_t mw_store_read_on(mw_store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              apr_off_t offset, apr_size_t limit,
                              apr_bucket_brigade *body,
                              apr_interval_time_t *left);

/**
 * Only the reader of a head can see that it is damaged: counts it, logs it and
 * removes the entry.
 * @param id of the entry that mw_store_get() gave
 */
void mw_store_damaged(mw_store_t *store, const cachemw_call_t *call,
                      const cachemw_key_t *key, const cachemw_id_t *id);

/** Give the calls that make up one store of a response a common deadline,
 *  store_timeout from now; a local store's calls none. */
void mw_store_share_deadline(const mw_store_t *store, cachemw_call_t *call);

/**
 * Store a small entry in one piece (a Vary record, a test). Neither purge
 * epochs nor min_object_size matter to it; not counted as STORED.
 * @param entry as in the contract; its body may be consumed
 */
apr_status_t mw_store_set(mw_store_t *store, const cachemw_call_t *call,
                          const cachemw_key_t *key,
                          const cachemw_entry_t *entry);

/** A set in pieces, streamed or spooled as the provider can. What a remote
 *  store makes the caller wait, in the sum of its calls, is limited to
 *  store_timeout; then the set has failed with APR_TIMEUP. */
typedef struct mw_set_t mw_set_t;

/**
 * @param plain the plain key whose purge epoch counts (equal to key but for
 *        variants); call->purge_epoch is the epoch seen at the miss. key,
 *        plain and the head are copied as needed.
 * Until commit or abort the set is aborted by a cleanup on call->pool, which
 * lives as long. Refused with APR_ENOSPC when its announced length is beyond
 * the store's limits, APR_NOTFOUND when a purge has overtaken it.
 * @param call a deadline is one for all of the set's waiting, as if all of it
 *        came now
 */
apr_status_t mw_store_set_begin(mw_store_t *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_key_t *plain,
                                const cachemw_entry_t *entry, mw_set_t **set);
/** After an error (APR_ENOSPC above max_object_size) only
 *  mw_store_set_abort() is of use. */
apr_status_t mw_store_set_write(mw_set_t *set, const char *data,
                                apr_size_t length);
/**
 * Publish, unless a purge or an invalidation has overtaken it
 * (APR_NOTFOUND; also when it happened during the commit: the entry is
 * removed again), it is smaller than min_object_size (APR_ENOSPC), or not of
 * the announced length (APR_EINVAL). The set is gone in any case.
 */
apr_status_t mw_store_set_commit(mw_set_t *set, const cachemw_call_t *call);
/** Drop it; counted as ABORTED unless it had failed. NULL is allowed; the set
 *  is gone. */
void mw_store_set_abort(mw_set_t *set);
/** Bytes written so far. */
apr_off_t mw_store_set_length(const mw_set_t *set);
/** When a commit that began now would have to end, and whatever belongs to it:
 *  monotonic; 0: no limit. */
apr_int64_t mw_store_set_deadline(const mw_set_t *set);

/** Amend; where the provider has no set_head: get, then set anew with the same
 *  id. */
apr_status_t mw_store_set_head(mw_store_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry);
apr_status_t mw_store_remove(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id);
apr_status_t mw_store_exists(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key);
/** Also starts a new purge epoch for all keys. */
apr_status_t mw_store_clear(mw_store_t *store, const cachemw_call_t *call);
apr_status_t mw_store_keys(mw_store_t *store, const cachemw_call_t *call,
                           const char *pattern, cachemw_keys_fn *each,
                           void *baton);
/** One step, whatever the breaker says. When call->deadline is 0, of 10 ms, and
 *  of 1 s where the store is remote. */
apr_status_t mw_store_sweep(mw_store_t *store, const cachemw_call_t *call,
                            int *more);
/** As the slot, for stores that have it. */
apr_status_t mw_store_publish(mw_store_t *store);
/** As the slot, for stores that have it: APR_EINCOMPLETE and APR_TIMEUP have their
 *  meaning. */
apr_status_t mw_store_watch(mw_store_t *store, const cachemw_call_t *call,
                            cachemw_watch_fn *each, void *baton);
/** Waits for the disk: see cachemw_provider_t. */
apr_status_t mw_store_sync(mw_store_t *store, const cachemw_call_t *call);
/**
 * Core's counters are beside it: mw_state_sum().
 * @param stats In: size, extra and baton. Out: the figures.
 * @return APR_EINVAL: its size is not set
 */
apr_status_t mw_store_stats(mw_store_t *store, const cachemw_call_t *call,
                            cachemw_stats_t *stats);

/** As the slot; see mod_cachemw.h. @{ */
apr_status_t mw_store_lock(mw_store_t *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token,
                           apr_interval_time_t ttl, cachemw_id_t *holder);
apr_status_t mw_store_unlock(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_id_t *token);
/** @} */

/** Non-zero: lock and unlock may do something. */
int mw_store_can_lock(const mw_store_t *store);
/** How many servers share the place where the locks are; 0: unknown. */
unsigned int mw_store_sharing(const mw_store_t *store);
/** Non-zero: the provider has a sweep. */
int mw_store_can_sweep(const mw_store_t *store);
/** Non-zero: other servers hear of what is removed, also of what was not
 *  there. */
int mw_store_is_telling(const mw_store_t *store);
/** Non-zero: the provider has a sync. */
int mw_store_can_sync(const mw_store_t *store);
/** Time between two syncs: what the provider wants, or 30 s. */
apr_interval_time_t mw_store_sync_interval(const mw_store_t *store);
/** Time between two full sweeps: cleanup_interval, of a remote store 10 s at
 *  most. */
apr_interval_time_t mw_store_sweep_interval(const mw_store_t *store);
/** Non-zero: calls leave the machine. */
int mw_store_is_remote(const mw_store_t *store);
/** Whether a get that ended so is as good as a miss for who wants the page:
 *  also when tiers have nothing and others, which may have it, could not be
 *  asked. Who wants to be rid of it takes but APR_NOTFOUND for a miss. */
int mw_store_has_missed(const mw_store_t *store, apr_status_t rv);

/** @} */

#endif
