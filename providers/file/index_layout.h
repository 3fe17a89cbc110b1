/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file index_layout.h
 * @brief What is where in the segment of the index.
 *
 *      +----------+
 *      | header   |  geometry, tallies and versions of the shards, the scan
 *      | shards   |  robust mutex, intents, ends of the queues   x shards
 *      | slots    |  robust mutex that a process holds for life  x slots
 *      | reserved |  what each slot has reserved                 x slots
 *      | buckets  |  first record of each hash chain   x shards * buckets_each
 *      | ghosts   |  fingerprints of what was evicted  x shards * buckets_each
 *      | due      |  of each 64 records: the earliest expiry
 *      | records  |  48 bytes each                     x shards * records_each
 *      +----------+
 *
 * A record belongs to its shard for good; within the shard it has a number from
 * 1 on, 0 means none. It is in use as long as its blocks are not 0.
 *
 * ## Accounting
 *
 * A word of apr_uint64_t has both blocks (low 36 bits) and entries, so that one
 * store changes both. What is used is the sum of `unfound`, of all `reserved`
 * and of both tallies of all shards, read in this order: what moves is added
 * further down before it is taken away further up, so that the sum is never too
 * low.
 *
 * ## Processes that die
 *
 * Before the holder of a shard's lock has a file changed it leaves an intent.
 * After its death chains, queues, free records and tallies are made again from
 * the records, and then the records are made to agree with the files named by
 * the intents. An intent also outlives its lock when it could not be learnt
 * what became of the file; until it can be, the shard changes no more.
 */
#ifndef MW_FILE_INDEX_LAYOUT_H
#define MW_FILE_INDEX_LAYOUT_H

#include <pthread.h>
#include <string.h>

#include "index.h"
#include "providers/common/ghosts.h"
#include "providers/common/lock.h"
#include "providers/common/slots.h"

#define MW_INDEX_MAGIC APR_UINT64_C(0x66696c65696e6478)
#define MW_INDEX_LAYOUT 2 /**< changes with the meaning of this file */

#define MW_INDEX_SHARDS_MAX 64
#define MW_INDEX_USES_MAX 3
#define MW_INDEX_CHUNK 64u
/** So that entries and blocks fit in a word. */
#define MW_INDEX_EACH_MAX (APR_UINT64_C(1) << 21)
#define MW_INDEX_BYTES_MAX (APR_UINT64_C(1) << 47)

#define MW_INDEX_NEVER 0xffffffffu /**< as an expiry in seconds */

#define MW_INDEX_SMALL 0 /**< queue of entries not proven yet */
#define MW_INDEX_MAIN 1  /**< queue of entries used again, or found by a scan */
#define MW_INDEX_QUEUES 2

/** Intents of a shard: of a change, and of the eviction that it needs. */
#define MW_INDEX_CHANGED 0
#define MW_INDEX_VICTIM 1
#define MW_INDEX_INTENTS 2

#define MW_INDEX_ENTRY (APR_UINT64_C(1) << 36)
#define MW_INDEX_BLOCKS(word) ((word) & (MW_INDEX_ENTRY - 1))
#define MW_INDEX_ENTRIES(word) ((word) >> 36)

typedef struct mw_index_geometry_t {
    apr_uint64_t memory;
    apr_uint64_t salt;
    apr_uint32_t shards;       /**< power of two */
    apr_uint32_t records_each; /**< of a shard; a multiple of a chunk */
    apr_uint32_t buckets_each; /**< of a shard; power of two; ghosts, too */
    apr_uint32_t slots;
    apr_uint32_t dirs; /**< power of 256 */
    apr_uint32_t spare;
} mw_index_geometry_t;

/** The scan of all directories; see index_sweep.c. */
typedef struct mw_index_scan_t {
    pthread_mutex_t lock;   /**< robust; who makes a step */
    apr_uint64_t unfound;   /**< atomic: what it is to find yet, at most */
    apr_uint32_t is_active; /**< atomic */
    apr_uint32_t was_made;  /**< atomic: one scan was made to its end */
    apr_uint32_t dir;       /**< atomic: directories before it are done */
    apr_uint32_t has_temps; /**< of servers before this one */
    apr_uint32_t failures;  /**< steps in a row that came to nothing */
} mw_index_scan_t;

typedef struct mw_index_header_t {
    apr_uint64_t magic;
    apr_uint64_t layout;
    mw_index_geometry_t geometry;
    apr_uint64_t session; /**< random; names temporary files */
    apr_uint32_t ready;   /**< atomic: set when all of this is made */
    apr_uint32_t slots_used;
    apr_uint64_t max_blocks;  /**< atomic: of the latest configuration */
    apr_uint64_t max_entries; /**< atomic */
    apr_uint64_t temps;       /**< atomic: names given out */
    apr_uint64_t recovered;   /**< atomic: locks whose holder had died */
    apr_uint64_t deaths;      /**< atomic: slots whose process had died */
    apr_uint32_t victim;      /**< atomic: shard that evicts next */
    apr_uint32_t swept;       /**< atomic: chunk that the sweep looks at next */
    apr_uint32_t round;       /**< atomic: records of others were cleared */
    mw_index_scan_t scan;
    /** Of each shard: atomic, odd while records or chains are changed. */
    apr_uint32_t versions[MW_INDEX_SHARDS_MAX] __attribute__((aligned(64)));
    /** Of each shard: atomic, blocks and entries in the queue. */
    apr_uint64_t tallies[MW_INDEX_QUEUES][MW_INDEX_SHARDS_MAX];
    unsigned char shared[MW_INDEX_SHARED] __attribute__((aligned(64)));
} __attribute__((aligned(64))) mw_index_header_t;

typedef struct mw_index_queue_t {
    apr_uint32_t newest;
    apr_uint32_t oldest;
} mw_index_queue_t;

typedef struct mw_index_intent_t {
    apr_uint32_t is_valid; /**< atomic */
    mw_digest_t digest;
} mw_index_intent_t;

typedef struct mw_index_shard_t {
    pthread_mutex_t lock;
    mw_index_intent_t intents[MW_INDEX_INTENTS];
    mw_index_queue_t queue[MW_INDEX_QUEUES];
    apr_uint32_t ghost_clock;
    apr_uint32_t free;  /**< first of those that were used before */
    apr_uint32_t fresh; /**< records beyond this number never were */
} __attribute__((aligned(128))) mw_index_shard_t;

/** What find() reads without the lock is atomic. */
typedef struct mw_index_record_t {
    apr_uint64_t digest[2]; /**< atomic */
    apr_uint32_t next;      /**< atomic: in the chain, or the free ones */
    apr_uint32_t blocks;    /**< atomic */
    apr_uint32_t expires;   /**< atomic: seconds, rounded up */
    apr_uint32_t round;     /**< atomic: see the header's */
    apr_uint32_t newer;
    apr_uint32_t older;
    unsigned char uses; /**< atomic: up to MW_INDEX_USES_MAX */
    unsigned char queue;
} mw_index_record_t;

/** A process's view. */
struct mw_index_t {
    const cachemw_services_t *services;
    const mw_index_files_t *files;
    void *baton;
    mw_index_geometry_t geometry;
    apr_uint64_t max_blocks;
    apr_uint64_t max_entries;
    apr_uint32_t owner; /**< atomic: own slot + 1; 0: none */
    unsigned char stuck[MW_INDEX_SHARDS_MAX]; /**< see mw_lock() */
    mw_index_header_t *header;                /**< NULL before post_config */
    mw_index_shard_t *shards;
    mw_slot_t *slots;
    apr_uint64_t *reserved; /**< atomic */
    apr_uint32_t *buckets;
    apr_uint32_t *ghosts;
    apr_uint32_t *due; /**< atomic; seconds */
    mw_index_record_t *records;
    void *listing; /**< of the scan; guarded by its lock */
    apr_uint32_t listed;
};

/**
 * Who reads without a lock, between two looks at a shard's version, needs no
 * fence so: what it saw of a change made the version's step visible, too.
 */
#define MW_INDEX_LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define MW_INDEX_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

static inline void mw_index_words(const mw_digest_t *digest,
                                  apr_uint64_t words[2])
{
    memcpy(words, digest, sizeof(*digest));
}

static inline apr_uint32_t mw_index_shard_of(const mw_index_t *index,
                                             const apr_uint64_t words[2])
{
    return (apr_uint32_t)(words[1] >> 58) & (index->geometry.shards - 1);
}

static inline apr_uint32_t *mw_index_bucket(const mw_index_t *index,
                                            const apr_uint64_t words[2])
{
    return index->buckets
           + mw_index_shard_of(index, words) * index->geometry.buckets_each
           + ((apr_uint32_t)words[1] & (index->geometry.buckets_each - 1));
}

static inline mw_index_record_t *mw_index_record(const mw_index_t *index,
                                                 apr_uint32_t shard,
                                                 apr_uint32_t number)
{
    return index->records + (apr_size_t)shard * index->geometry.records_each
           + number - 1;
}

/** Seconds, rounded up. */
static inline apr_uint32_t mw_index_seconds(apr_time_t expires)
{
    if (expires <= 0) {
        return 0;
    }
    expires = apr_time_sec(expires - 1) + 1;
    return expires < MW_INDEX_NEVER ? (apr_uint32_t)expires : MW_INDEX_NEVER;
}

static inline int mw_index_is_over(apr_uint32_t seconds, apr_time_t now)
{
    return seconds != MW_INDEX_NEVER && seconds <= apr_time_sec(now);
}

static inline apr_uint64_t mw_index_blocks(apr_uint64_t bytes)
{
    return bytes ? (bytes - 1) / MW_INDEX_BLOCK + 1 : 1;
}

/** Blocks and entries of a queue, of all shards. */
apr_uint64_t mw_index_sum(const mw_index_t *index, int queue);

/** All that is used or reserved. */
apr_uint64_t mw_index_used(const mw_index_t *index);

/**
 * Lock a shard and have it in order.
 * @param wait whether to wait, for a bounded time, when somebody has it
 * @return 0: not locked
 */
int mw_index_lock(mw_index_t *index, apr_uint32_t shard, int wait);

void mw_index_unlock(mw_index_t *index, apr_uint32_t shard);

/**
 * Unlink the file of a record, then free the record. Locked.
 * @param number within the shard
 * @return trouble: nothing was done
 */
apr_status_t mw_index_unlink(mw_index_t *index, apr_uint32_t shard,
                             apr_uint32_t number);

/** Make a record the newest of the main queue. Locked. */
void mw_index_requeue(mw_index_t *index, apr_uint32_t shard,
                      apr_uint32_t number);

/**
 * Evict one entry of a queue of a shard, unless nothing comes up in some looks.
 * Locked.
 * @return how many are gone: 0 or 1
 */
int mw_index_evict(mw_index_t *index, apr_uint32_t shard, int queue,
                   apr_time_t now, int force);

/** Whether a digest was evicted lately; forgets it. Locked. */
int mw_index_was_here(mw_index_t *index, const apr_uint64_t words[2]);

/**
 * Evict until what is used is below the caps.
 * @param victims at most so many
 * @return 0: it still is not
 */
int mw_index_make_room(mw_index_t *index, apr_time_t now, apr_uint32_t victims);

/**
 * Of a new index that knows of nothing to evict yet: look for it, some
 * milliseconds long at most.
 * @return 0: there is no room, as mw_index_make_room()
 */
int mw_index_scan_for_room(mw_index_t *index, apr_time_t now,
                           apr_uint32_t victims);

/** What a scan has found, a file of some bytes, it need not find any more. */
void mw_index_found(mw_index_t *index, apr_uint64_t size);

/** Clean-up of a pool: end what this process has open of the scan. */
apr_status_t mw_index_scan_leave(void *index);

/** What the names of all temporary files of this segment begin with. */
void mw_index_prefix(const mw_index_t *index, char prefix[MW_INDEX_TEMP_NAME]);

/** The mutexes of slots, and what to do about the dead. */
mw_slots_t mw_index_slots(mw_index_t *index);

#endif
