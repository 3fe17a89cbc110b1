/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file store_private.h
 * @brief What the files behind store.h share; nobody else includes it.
 *
 *     store.c          life, counters, log lines
 *     store_settings.c options
 *     store_table.c    a provider's table made complete
 *     store_call.c     before and after each call of a slot; the simple calls
 *     store_get.c      get, read, exists: what they return is checked
 *     store_set.c      sets in pieces
 *     store_amend.c    set_head for providers without
 *     store_services.c what a provider gets from us
 *     store_facade.c   a store as another store's provider sees it
 */
#ifndef MW_STORE_PRIVATE_H
#define MW_STORE_PRIVATE_H

#include "apr_thread_mutex.h"

#include "store.h"

/** @name Why a call needs more than the slot; 0 for a local store that is on.
 *  @{ */
#define MW_GUARD_OFF 0x1u
#define MW_GUARD_REMOTE 0x2u
#define MW_GUARD_SERIALIZE 0x4u
/** @} */

/** The slots that calls go through, for counters and log lines. */
typedef enum mw_slot_e {
    MW_SLOT_GET,
    MW_SLOT_READ,
    MW_SLOT_EXISTS,
    MW_SLOT_SET,
    MW_SLOT_SET_BEGIN,
    MW_SLOT_SET_WRITE,
    MW_SLOT_SET_COMMIT,
    MW_SLOT_SET_HEAD,
    MW_SLOT_REMOVE,
    MW_SLOT_CLEAR,
    MW_SLOT_KEYS,
    MW_SLOT_SWEEP,
    MW_SLOT_SYNC,
    MW_SLOT_STATS,
    MW_SLOT_WATCH,
    MW_SLOT_LOCK,
    MW_SLOT_UNLOCK,
    MW_SLOTS
} mw_slot_e;

/** How sets in pieces reach a provider. */
typedef struct mw_set_way_t {
    apr_status_t (*begin)(mw_set_t *set, const cachemw_call_t *call,
                          const cachemw_key_t *key,
                          const cachemw_entry_t *entry);
    apr_status_t (*write)(mw_set_t *set, const cachemw_call_t *call,
                          const char *data, apr_size_t length);
    /** Whatever it returns, nothing is left to abort. */
    apr_status_t (*commit)(mw_set_t *set, const cachemw_call_t *call);
    void (*abort)(mw_set_t *set);
} mw_set_way_t;

extern const mw_set_way_t mw_set_streamed; /**< provider streams */
extern const mw_set_way_t mw_set_spooled;  /**< provider has set only */

/** Slots that a provider may lack and that we make of others. */
typedef struct mw_composed_t {
    const mw_set_way_t *way;
    apr_status_t (*set)(mw_store_t *store, const cachemw_call_t *call,
                        const cachemw_key_t *key, const cachemw_entry_t *entry);
    apr_status_t (*set_head)(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry);
    apr_status_t (*read)(mw_store_t *store, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_id_t *id,
                         apr_off_t offset, apr_size_t limit,
                         apr_bucket_brigade *body);
    apr_status_t (*exists)(mw_store_t *store, const cachemw_call_t *call,
                           const cachemw_key_t *key);
} mw_composed_t;

struct mw_store_t {
    unsigned int guards; /**< MW_GUARD_…; of this process */
    unsigned int flags;  /**< the table's; of tiers, what theirs make */
    int whole_bodies;    /**< the provider has no read */
    int can_sweep;       /**< the provider has a sweep */
    int can_sync;        /**< the provider has a sync */
    int is_telling;      /**< others hear of what is removed */
    /** Whose provider has the locks: this one, or the farthest tier that has
     *  any; NULL: there are none. */
    const mw_store_t *locking;
    void *self;               /**< what open() returned */
    mw_state_t *state;        /**< NULL before post_config */
    cachemw_provider_t table; /**< every slot that calls use is there */
    mw_composed_t composed;
    mw_store_settings_t settings;
    apr_thread_mutex_t *mutex; /**< NULL unless CACHEMW_SERIALIZE */
    const char *name;
    const char *provider_name;
    const char *temp_dir;
    const mw_host_t *host;
    const char *segment_name; /**< the provider's; NULL but in post_config */
    cachemw_services_t services;
    cachemw_provider_t facade; /**< as other stores' providers see it */
    cachemw_provider_t tier;   /**< as tiered ones see it */
    /** @name The longest of remote tiers; 0: there are none @{ */
    apr_interval_time_t tiers_body_timeout;
    apr_interval_time_t tiers_store_timeout;
    /** @} */
};

/** @name store_table.c @{ */

/**
 * Copy what both know of a provider's table and fill its gaps.
 * @return NULL, or what is wrong with it
 */
const char *mw_table_normalise(mw_store_t *store,
                               const cachemw_provider_t *provider,
                               apr_pool_t *pool);

/** @} */
/** @name store_call.c @{ */

/** A call of a slot; on the stack. */
typedef struct mw_pass_t {
    mw_store_t *store;
    const cachemw_call_t *call; /**< what the slot gets */
    mw_slot_e slot;
    cachemw_call_t own; /**< the caller's with a deadline, when it had none */
} mw_pass_t;

/** What mw_pass_enter() and mw_pass_leave() do where there is more to do. */
apr_status_t mw_pass_enter_guarded(mw_pass_t *pass);
apr_status_t mw_pass_leave_slowly(mw_pass_t *pass, apr_status_t rv);

/**
 * Before a slot is called.
 * @return anything but APR_SUCCESS: it must not be called, and mw_pass_leave()
 *         neither
 */
static inline apr_status_t mw_pass_enter(mw_pass_t *pass, mw_store_t *store,
                                         const cachemw_call_t *call,
                                         mw_slot_e slot)
{
    pass->store = store;
    pass->call = call;
    pass->slot = slot;
    return store->guards ? mw_pass_enter_guarded(pass) : APR_SUCCESS;
}

/**
 * After it: unlocks, tells the breaker, counts and logs trouble.
 * @return rv
 */
static inline apr_status_t mw_pass_leave(mw_pass_t *pass, apr_status_t rv)
{
    if (rv == APR_SUCCESS && !pass->store->guards) {
        return APR_SUCCESS;
    }
    return mw_pass_leave_slowly(pass, rv);
}

/** mw_store_remove() of what was never a page of anybody's, or is none: not
 *  counted as REMOVED. */
apr_status_t mw_remove_uncounted(mw_store_t *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_id_t *id);

/** One call in 64 is timed. */
static inline int mw_call_is_sampled(const cachemw_call_t *call)
{
    /* The microseconds of a request are random enough and cost nothing,
     * unlike a counter that threads would share. The top bits of the product
     * depend on all of theirs, whatever the clock's resolution. */
    return ((apr_uint64_t)call->now * APR_UINT64_C(0x9E3779B97F4A7C15)) >> 58
           == 0;
}

/** @} */
/** @name store_get.c: mw_store_read() and mw_store_exists() by the slot, or of
 *  get where there is none @{ */

apr_status_t mw_read_by_slot(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             apr_off_t offset, apr_size_t limit,
                             apr_bucket_brigade *body);
apr_status_t mw_read_by_get(mw_store_t *store, const cachemw_call_t *call,
                            const cachemw_key_t *key, const cachemw_id_t *id,
                            apr_off_t offset, apr_size_t limit,
                            apr_bucket_brigade *body);
apr_status_t mw_exists_by_slot(mw_store_t *store, const cachemw_call_t *call,
                               const cachemw_key_t *key);
apr_status_t mw_exists_by_get(mw_store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key);

/** @} */
/** @name store_set.c @{ */

#define MW_SET_EPOCH 0x1u   /**< compare purge epochs */
#define MW_SET_REQUEST 0x2u /**< a response: min_object_size, counters */
/** Of a set around it: the deadline of a call is that call's only, and the
 *  budget for all of them the store's own. */
#define MW_SET_PART 0x4u

/** As mw_store_set_begin(); plain is used with MW_SET_EPOCH only. */
apr_status_t mw_set_begin(mw_store_t *store, const cachemw_call_t *call,
                          const cachemw_key_t *key, const cachemw_key_t *plain,
                          const cachemw_entry_t *entry, unsigned int flags,
                          mw_set_t **set);
/** As mw_store_set_write(), with a call of the caller's. */
apr_status_t mw_set_write(mw_set_t *set, const cachemw_call_t *call,
                          const char *data, apr_size_t length);
/** Write all of a brigade, which is left empty. */
apr_status_t mw_set_write_brigade(mw_set_t *set, const cachemw_call_t *call,
                                  apr_bucket_brigade *body);

/** mw_store_set() by the slot, or in pieces where there is none. */
apr_status_t mw_set_by_slot(mw_store_t *store, const cachemw_call_t *call,
                            const cachemw_key_t *key,
                            const cachemw_entry_t *entry);
apr_status_t mw_set_by_streaming(mw_store_t *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_entry_t *entry);
/** @} */
/** @name store_amend.c: mw_store_set_head() by the slot, or set anew where there
 *  is none @{ */

apr_status_t mw_amend_by_slot(mw_store_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              const cachemw_entry_t *entry);
apr_status_t mw_amend_by_set(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry);
/** @} */
/** @name store.c @{ */

/**
 * A log line of core's own about a store.
 * @param kind warnings of the same kind share the limit; 0: none, each is
 *        written
 */
void mw_store_log_kind(mw_store_t *store, cachemw_level_e level,
                       apr_status_t rv, apr_uint32_t kind, const char *format,
                       va_list arguments);
/** The kind of lines that come from a format. */
apr_uint32_t mw_store_log_hash(const char *format);

/** @} */

/** @name store_settings.c @{ */

/** Before the provider's open(). @return NULL, or what is wrong */
const char *mw_settings_read(mw_store_t *store, const mw_options_t *options,
                             apr_pool_t *pool);
/** After it, when the store can tell what it is able to take. */
const char *mw_settings_limit(mw_store_t *store, const mw_options_t *options,
                              apr_pool_t *pool);

/** @} */

/** @name store_services.c @{ */

/** Fill in store->services. */
void mw_services_init(mw_store_t *store);

/**
 * After a slot: what its provider has explained, which is then forgotten.
 * @param rv what the slot returned
 * @param kind set to the kind of such a log line
 * @return NULL: nothing; else valid up to the next explain() of this thread
 */
const char *mw_services_said(const mw_store_t *store, apr_status_t rv,
                             apr_uint32_t *kind);

/** @} */

/** store_facade.c: the tables by which others call an open store, as `self`. */
void mw_facade_init(mw_store_t *store);

#endif
