/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file tiers.h
 * @brief What the files of this provider share.
 *
 *     multitier.c  options, life, statistics, table
 *     changes.c    those that may have been half done
 *     tiers.c      the tiers' lives, deadlines and answers; notes of changes
 *     read.c       looking up: from near to far
 *     write.c      changing: from far to near
 *     fill.c       what was found behind goes into the tiers before
 *     watch.c      what other servers change behind goes from the tiers before
 *
 * A tier is another store, called through the table that core gives for it:
 * which brings its own deadline, breaker, counters and log.
 *
 * ## What was removed does not come back
 *
 * A response that was found in a far tier is put into a nearer one later, when
 * by then it may have been removed or replaced. So whoever changes an entry
 * does it from far to near, and changes the key's *note* before each tier but
 * the farthest. Who fills has read the note before the entry, and compares it
 * when the entry has been put: if the change of the far tier came after the
 * entry was read there, the note has changed before the near tier is. Then
 * either the near tier's change comes after what was put there, or the note
 * says that this has to go again.
 *
 * A child that is killed in between leaves near tiers with what is older than
 * the far one. Where that one is watched they are emptied then: see changes.c.
 */
#ifndef MW_MULTITIER_TIERS_H
#define MW_MULTITIER_TIERS_H

#include <pthread.h>

#include "mod_cachemw.h"
#include "providers/common/lock.h"
#include "providers/common/slots.h"

#define MW_TIERS_MAX 8

/** Shortest life in a near tier, unless the one behind it ends before. */
#define MW_TIER_LIFE_MIN apr_time_from_sec(60)

typedef struct mw_tier_t {
    const cachemw_provider_t *table; /**< with all slots */
    void *self;
    apr_off_t largest; /**< body that it takes */
} mw_tier_t;

/** What the children share. */
typedef struct mw_tiers_shared_t mw_tiers_shared_t;

#define MW_LISTED 2048

/** An entry that is being set or amended, or was: see watch.h. */
typedef struct mw_listed_t {
    apr_uint64_t serial; /**< 0: none, or it is being written */
    apr_uint64_t key;    /**< hash */
    apr_uint64_t id[2];
} mw_listed_t;

/** What those who watch tell the others; all of it atomic. */
typedef struct mw_heard_t {
    apr_time_t alive_until; /**< all near tiers are believed: wall clock */
    apr_uint64_t unused[7]; /**< it has a line of the cache to itself */
    apr_time_t until[MW_TIERS_MAX]; /**< by the tier that is watched */
    /** Likewise: a bit for each tier before it that could not be emptied. */
    unsigned int doubted[MW_TIERS_MAX];
    apr_uint64_t messages; /**< of other servers */
    apr_uint64_t gaps;     /**< something may have been missed */
    apr_uint64_t bypassed; /**< look-ups */
    apr_uint64_t next;     /**< of listed */
    mw_listed_t listed[MW_LISTED];
} mw_heard_t;

/** Of one store at once; a process beyond it dies unnoticed. */
#define MW_PROCESSES 1024

/** Changes that go from tier to tier, by the process that makes them. */
typedef struct mw_changes_t {
    mw_slot_t slots[MW_PROCESSES];
    apr_uint32_t under_way[MW_PROCESSES]; /**< atomic */
    apr_uint32_t used;                    /**< see mw_slots_t */
    apr_uint32_t doubts[MW_TIERS_MAX];    /**< atomic: see below */
} mw_changes_t;

typedef struct mw_watches_t mw_watches_t;

typedef enum mw_tiers_count_e {
    MW_TIERS_FILLED,    /**< put into a nearer tier */
    MW_TIERS_DROPPED,   /**< not: too many at once */
    MW_TIERS_OVERTAKEN, /**< not: changed meanwhile */
    MW_TIERS_COUNTS
} mw_tiers_count_e;

typedef struct mw_fill_t mw_fill_t;

typedef struct mw_tiers_t {
    const cachemw_services_t *services;
    int n;       /**< tiers, the nearest first */
    int nremote; /**< of these, on other machines */
    double ratio;
    int agrees; /**< with those of other servers, if it can */
    mw_tiers_shared_t *shared;
    mw_heard_t *heard;     /**< of the same segment */
    mw_changes_t *changes; /**< likewise */
    unsigned int watched; /**< a bit for each tier that is; never the nearest */
    mw_tier_t tier[MW_TIERS_MAX];

    /** @name Of this process; see fill.c @{ */
    apr_uint64_t process; /**< tells children apart */
    apr_uint32_t owner;   /**< of changes; see mw_slots_t */
    pthread_mutex_t mutex;
    mw_fill_t *fills; /**< those whose bodies are being read */
    int nfills;       /**< those and the others */
    int is_ending;
    mw_watches_t *watches; /**< of the one that sweeps; see watch.c */
    /** @} */
} mw_tiers_t;

/** @name tiers.c @{ */

apr_size_t mw_tiers_shared_size(void);
#define MW_TIERS_LAYOUT 4
void mw_tiers_share(mw_tiers_t *tiers, void *segment);

/** A tier that all servers share tells what they change there itself: what
 *  happens to the others is none of its business. */
static inline int mw_tier_is_shared(const mw_tiers_t *tiers, int at)
{
    return (tiers->watched & 1u << at) != 0;
}

/** Tells keys apart, mostly. */
apr_uint64_t mw_tiers_hash(const cachemw_key_t *key);

/**
 * When an entry expires in the tier before one in which it expires at `behind`.
 */
apr_time_t mw_tier_expires(double ratio, apr_time_t now, apr_time_t behind);

/** The same for all tiers before the one of this number.
 *  @param expires of each; that of `from` is given */
void mw_tiers_expire(const mw_tiers_t *tiers, apr_time_t now, int from,
                     apr_time_t *expires);

/** A bit for each tier that takes a body of this length; -1: not known. */
unsigned int mw_tiers_fit(const mw_tiers_t *tiers, apr_off_t length);

/** How many of the tiers of the bits set are on other machines. */
int mw_tiers_remote(const mw_tiers_t *tiers, unsigned int which);

/**
 * A tier's share of the time that a call has: where others on other machines
 * are still to be called, it must not use it up. One on this machine has no
 * deadline, as when it is used by itself: it is not to suffer from others.
 * @param left how many of these there are, this one included
 * @return call, or own
 */
const cachemw_call_t *mw_tier_call(const mw_tiers_t *tiers, int at,
                                   const cachemw_call_t *call,
                                   cachemw_call_t *own, int *left);

/**
 * What two tiers' answers come to when neither took what was to be changed:
 * trouble, else APR_ENOSPC, else APR_NOTFOUND; APR_EGENERAL when neither was
 * asked.
 */
apr_status_t mw_tiers_answer(apr_status_t a, apr_status_t b);

/**
 * The same where APR_NOTFOUND says that nothing is there: only when both said
 * so. A tier that was not asked may have it: trouble, else APR_EGENERAL.
 */
apr_status_t mw_tiers_lost(apr_status_t a, apr_status_t b);

/** The note of a key, and whether it is another one by now. */
apr_uint64_t mw_note_read(const mw_tiers_t *tiers, const cachemw_key_t *key);
void mw_note_change(mw_tiers_t *tiers, const cachemw_key_t *key);
void mw_note_change_all(mw_tiers_t *tiers);

/** Count an answer of a tier. */
void mw_tiers_answered(mw_tiers_t *tiers, int at);
apr_int64_t mw_tiers_answers(const mw_tiers_t *tiers, int at);
void mw_tiers_count(mw_tiers_t *tiers, mw_tiers_count_e which);
apr_int64_t mw_tiers_counted(const mw_tiers_t *tiers, mw_tiers_count_e which);

/** @} */
/** @name read.c: slots @{ */

apr_status_t mw_tiers_get(void *store, const cachemw_call_t *call,
                          const cachemw_key_t *key, cachemw_entry_t *entry);
apr_status_t mw_tiers_read(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id,
                           apr_off_t offset, apr_size_t limit,
                           apr_bucket_brigade *body);
apr_status_t mw_tiers_exists(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key);
apr_status_t mw_tiers_keys(void *store, const cachemw_call_t *call,
                           const char *pattern, cachemw_keys_fn *each,
                           void *baton);

/** @} */
/** @name write.c: slots @{ */

apr_status_t mw_tiers_remove(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id);
apr_status_t mw_tiers_set_head(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               const cachemw_entry_t *entry);
apr_status_t mw_tiers_set_begin(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_entry_t *entry, void **set);
apr_status_t mw_tiers_set_write(void *store, const cachemw_call_t *call,
                                void *set, const char *data, apr_size_t length);
apr_status_t mw_tiers_set_commit(void *store, const cachemw_call_t *call,
                                 void *set);
void mw_tiers_set_abort(void *store, void *set);
apr_status_t mw_tiers_clear(void *store, const cachemw_call_t *call);

/** Number of the farthest tier that has locks: most servers share it; -1: none
 *  has. */
int mw_tiers_shared_by_servers(const mw_tiers_t *tiers);
/** Of that tier. */
apr_status_t mw_tiers_lock(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token,
                           apr_interval_time_t ttl, cachemw_id_t *holder);
apr_status_t mw_tiers_unlock(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_id_t *token);

/** @} */
/** @name changes.c: where a tier is watched @{ */

/** Of a new segment. */
apr_status_t mw_changes_make(mw_changes_t *changes);
apr_status_t mw_changes_child_init(mw_tiers_t *tiers, apr_pool_t *pchild);

/** How often a process has died in the middle of a change, or this tier has
 *  kept what was to go: whenever it is another number, it and those before it
 *  may have what is older than the far one. */
void mw_changes_doubts(mw_tiers_t *tiers, apr_uint32_t doubts[MW_TIERS_MAX]);

/** Around a change of several tiers, or what undoes one. @{ */
apr_uint32_t mw_change_begin(mw_tiers_t *tiers);
/** @param owner what mw_change_begin() gave */
void mw_change_end(mw_tiers_t *tiers, apr_uint32_t owner);
/** @} */

/** What came of removing something from a tier. @return rv */
apr_status_t mw_change_check(mw_tiers_t *tiers, int at, apr_status_t rv);

/** @} */
/** @name fill.c @{ */

/** Bytes of a body that a fill keeps until the answer has been sent. */
#define MW_FILL_MEMORY ((apr_size_t)2 * CACHEMW_PIECE_MAX)
/** Fills of a child at once; beyond it none begins. */
#define MW_FILLS_MAX 128

/**
 * An entry was found behind tiers that have not got it: have it put there when
 * call->pool goes, which is when the answer has been sent. What of its body is
 * not here yet is taken from the reads that follow, or it is not put there.
 * @param from the tier that it was found in
 * @param missed a bit for each tier that is to have it
 * @param note of the key, from before the entry was read
 */
void mw_fill_begin(mw_tiers_t *tiers, const cachemw_call_t *call,
                   const cachemw_key_t *key, const cachemw_entry_t *entry,
                   int from, unsigned int missed, apr_uint64_t note);

/**
 * The fill that wants this piece of a body; NULL: there is none. It is the
 * caller's until mw_fill_end_piece().
 */
mw_fill_t *mw_fill_take_piece(mw_tiers_t *tiers, const cachemw_id_t *id,
                              apr_off_t offset);
/** The tier that its body is read from. */
int mw_fill_from(const mw_fill_t *fill);
/** @param first the piece, up to the end of its brigade; NULL: there is none */
void mw_fill_end_piece(mw_fill_t *fill, apr_bucket_brigade *body,
                       apr_bucket *first);

/** In a child: none begins or is finished any more once its pool goes. */
void mw_fills_child_init(mw_tiers_t *tiers, apr_pool_t *pchild);

/** @} */

#endif
