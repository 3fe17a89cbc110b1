/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file layout.h
 * @brief What is where in the segment, and each process's view of it.
 *
 *      +---------+
 *      | header  |  magic, geometry, secret, cursors, collection
 *      | shards  |  robust mutex, ends of the S3-FIFO queues     x shards
 *      | tallies |  figures of a shard, read without its lock    x shards
 *      | areas   |  robust mutex, free units                     x areas
 *      | slots   |  robust mutex that a child holds for its life x slots
 *      | sets    |  who is storing, and the first run of it      x sets
 *      | pins    |  who is sending which entry                   x pins
 *      | buckets |  first entry of each hash chain               x buckets
 *      | urgency |  of each chunk of buckets: what expires first
 *      | ghosts  |  fingerprints of what was evicted young       x ghosts
 *      | uses    |  two bits per unit: how often an entry was used
 *      | taken   |  a bit per unit: in use
 *      | marks   |  a bit per unit: found reachable by the collection
 *      | full    |  a bit per word of taken: all ones
 *      | touched |  a bit per word of taken: not all zeros
 *      +---------+
 *      | units   |  64 bytes each (256 in segments above 128 GB)
 *      +---------+
 *
 * An entry is a chain of runs; a run is a number of adjacent units and begins
 * with the index of the next run. The bytes behind the run headers are one
 * stream:
 *
 *      run      [next|count| rest of the entry record | key | head | bo]
 *      next run [next|count| dy                                        ]
 *
 * The first run holds the whole record. Its first unit is the entry's name:
 * hash chains, queues and pins refer to entries by it. Unit 0 is never given
 * out; 0 means none.
 *
 * ## Who may touch what
 *
 * A shard's lock guards its hash chains, queues, ghosts and tally, and the
 * entries linked there. An area's lock guards its bits. Order: shard, then
 * area; never two shards, never two areas. Under a lock nothing outside of this
 * folder is called but the services' count().
 *
 * ## Processes that are stopped
 *
 * Nobody waits for a lock without bound (lock.h). Calls fail; a pin that cannot
 * be ended is left to the sweep, units that cannot be given back are left to a
 * collection, as those of the dead are.
 *
 * Uses are counted without a lock: a count may be lost, or fall on an entry
 * that has the unit by then, and neither does harm.
 *
 * ## Processes that die
 *
 * Locks are robust. When the holder of a shard's lock has died, the shard is
 * emptied and its epoch moves on. When the holder of an area's lock has died,
 * what is derived from the bits is derived again. Units that nobody refers to
 * any more after a death are found by a collection (collect.h), whose roots
 * are the sets, the hash chains and the pins; to that end units are in every
 * moment either free, or reachable from a root, or left by a process that died.
 * Hence: units are linked to a set under the lock of their area when they are
 * taken; a set ends after its entry is linked; an unlinked entry is given
 * back under the lock of its shard, at once or when its last pin goes; and
 * while runs of a set are given back, its turn is odd.
 */
#ifndef MW_MEMORY_LAYOUT_H
#define MW_MEMORY_LAYOUT_H

#include <pthread.h>

#include "apr_siphash.h"

#include "mod_cachemw.h"
#include "providers/common/slots.h"

#define MW_MEM_MAGIC APR_UINT64_C(0x6d656d6f72792d31)
/**
 * Changes with the meaning of anything in this file. tests/httpd/harness/
 * locks.py knows where magic, shards, areas and the mutexes (glibc's) are.
 */
#define MW_MEM_LAYOUT 8

#define MW_MEM_SMALL 0 /**< queue of entries not proven yet */
#define MW_MEM_MAIN 1  /**< queue of entries used again */
#define MW_MEM_QUEUES 2

/** More areas, or shards, than there can be. */
#define MW_MEM_AREAS_MAX 32
#define MW_MEM_SHARDS_MAX 256

/** Owner of a pin that could not be ended; whoever sweeps ends it. */
#define MW_MEM_ORPHAN 0xffffffffu

/** Longest run in units: what a bucket of a large body covers at most. */
#define MW_MEM_RUN_MAX 65536u

/** Uses of an entry are counted up to here. */
#define MW_MEM_USES_MAX 3

/** Words of the hash's secret: for the length, 16 pairs and one more. */
#define MW_MEM_SECRET 36

/** Hash chains that long walks look at under one lock, at most. */
#define MW_MEM_CHUNK 64u

typedef struct mw_mem_geometry_t {
    apr_uint64_t size; /**< of the segment in bytes */
    apr_uint32_t unit_shift;
    apr_uint32_t shards;  /**< power of two */
    apr_uint32_t buckets; /**< power of two, same number in each shard */
    apr_uint32_t ghosts;  /**< likewise */
    apr_uint32_t slots;
    apr_uint32_t sets;
    apr_uint32_t pins;
    apr_uint32_t units; /**< unit 0 included */
    apr_uint32_t areas;
    apr_uint32_t area_shift; /**< an area has 1 << area_shift units */
} mw_mem_geometry_t;

/** Where a collection is; see collect.c. */
typedef struct mw_mem_collection_t {
    pthread_mutex_t lock; /**< robust; who makes a step */
    apr_uint64_t wanted;  /**< atomic: requests so far */
    apr_uint64_t served;  /**< atomic: requests answered */
    apr_uint64_t target;  /**< wanted when it began */
    apr_uint64_t freed;   /**< atomic: units found over all collections */
    apr_uint32_t phase;
    apr_uint32_t cursor;
} mw_mem_collection_t;

typedef struct mw_mem_header_t {
    apr_uint64_t magic;
    apr_uint64_t layout; /**< as given to the segment service */
    mw_mem_geometry_t geometry;
    apr_uint64_t secret[MW_MEM_SECRET]; /**< keys the hash */
    apr_uint32_t ready;      /**< atomic: set when all of this is made */
    apr_uint32_t slots_used; /**< atomic: no slot from here on was ever taken */
    apr_uint64_t max_entries; /**< atomic: of the latest configuration */
    apr_uint64_t serial;    /**< atomic: starts at random; see mw_mem_entry_t */
    apr_uint64_t ticked;    /**< atomic: when a step was made on a store */
    apr_uint64_t recovered; /**< atomic: locks whose holder had died */
    apr_uint64_t deaths;    /**< atomic: slots whose child had died */
    apr_uint32_t victim;    /**< atomic: shard that evicts next */
    apr_uint32_t swept;     /**< atomic: bucket that the sweep looks at next */
    apr_uint32_t ticked_to; /**< atomic: the same for steps on a store */
    apr_uint32_t orphans;   /**< atomic: there may be claims of MW_MEM_ORPHAN */
    mw_mem_collection_t collection;
    /** Of each shard: atomic, how often it was emptied after a death. */
    apr_uint32_t epochs[MW_MEM_SHARDS_MAX] __attribute__((aligned(64)));
} __attribute__((aligned(64))) mw_mem_header_t;

typedef struct mw_mem_queue_t {
    apr_uint32_t newest;
    apr_uint32_t oldest;
} mw_mem_queue_t;

typedef struct mw_mem_shard_t {
    pthread_mutex_t lock;
    apr_uint32_t ghost_clock;
    mw_mem_queue_t queue[MW_MEM_QUEUES];
} __attribute__((aligned(128))) mw_mem_shard_t;

/** Written under the shard's lock, read without: every access is atomic. */
typedef struct mw_mem_tally_t {
    apr_uint64_t units[MW_MEM_QUEUES];
    apr_uint64_t bytes;   /**< of keys, heads and bodies */
    apr_uint64_t pinned;  /**< bytes of bodies with pins, linked or not */
    apr_uint64_t leaving; /**< units of entries with pins, not linked */
    apr_uint64_t entries; /**< linked, or about to be */
} __attribute__((aligned(64))) mw_mem_tally_t;

typedef struct mw_mem_area_t {
    pthread_mutex_t lock;
    apr_uint32_t free;       /**< units; read without the lock, too */
    apr_uint32_t low;        /**< words below it are full */
    apr_uint32_t longest;    /**< units of a gap, about; no less than a large
                                  request finds; read without the lock, too */
    apr_uint32_t collecting; /**< mark what is taken */
} __attribute__((aligned(128))) mw_mem_area_t;

typedef struct mw_mem_claim_t {
    apr_uint32_t owner; /**< atomic: slot + 1, or MW_MEM_ORPHAN; 0: free */
    apr_uint32_t first; /**< atomic: first run or entry; 0: nothing */
    apr_uint32_t turn;  /**< atomic: odd while runs of it are given back */
} mw_mem_claim_t;

typedef struct mw_mem_run_t {
    apr_uint32_t next;  /**< first unit of the next run; 0: the last */
    apr_uint32_t count; /**< units */
} mw_mem_run_t;

/**
 * The record at the start of an entry. Whoever copies from an entry without
 * its shard's lock compares serial before and after: it is unique, cannot be
 * guessed by who writes bodies, and changes before anything that it covers;
 * save when a shard is emptied after a death, so they compare its epoch, too.
 */
typedef struct mw_mem_entry_t {
    mw_mem_run_t run;
    apr_uint64_t serial; /**< 0: not linked */
    apr_uint64_t hash;
    cachemw_id_t id;
    apr_int64_t expires;
    apr_uint64_t body_len;
    apr_uint32_t hash_next;
    apr_uint32_t newer; /**< neighbours in the queue */
    apr_uint32_t older;
    apr_uint32_t head_run; /**< an amended head; 0: it is behind the key */
    apr_uint32_t head_len;
    apr_uint32_t head_space; /**< bytes between key and body */
    apr_uint32_t units;      /**< of all its runs */
    apr_uint32_t epoch;      /**< of the shard when it was linked */
    apr_uint16_t key_len;
    apr_uint16_t pins;
    unsigned char queue;
    unsigned char linked;
} mw_mem_entry_t;

/** A process's view of a store. */
typedef struct mw_mem_t {
    const cachemw_services_t *services;
    mw_mem_geometry_t geometry;
    apr_uint64_t max_entries;
    int prefault;
    apr_uint32_t owner;   /**< atomic: own slot + 1; 0: none */
    apr_uint32_t turn;    /**< atomic: where the next claim is sought */
    apr_uint64_t spilled; /**< atomic: bytes in files of this process */
    unsigned char stuck_shards[MW_MEM_SHARDS_MAX]; /**< see mw_lock() */
    unsigned char stuck_areas[MW_MEM_AREAS_MAX];
    apr_uint32_t unit_size;
    apr_uint32_t shard_shift; /**< of the hash, to the shard */
    apr_uint32_t bucket_mask; /**< within a shard */
    apr_uint32_t ghost_mask;  /**< within a shard */
    apr_uint32_t buckets_each;
    apr_uint32_t chunk;      /**< hash chains looked at under one lock */
    mw_mem_header_t *header; /**< NULL before post_config */
    mw_mem_shard_t *shards;
    mw_mem_tally_t *tallies;
    mw_mem_area_t *areas;
    mw_slot_t *slots;
    mw_mem_claim_t *sets;
    mw_mem_claim_t *pins;
    apr_uint32_t *buckets;
    apr_uint64_t *urgency; /**< atomic; see mw_mem_urgency() */
    apr_uint32_t *ghosts;
    unsigned char *uses;
    apr_uint64_t *taken;
    apr_uint64_t *marks;
    apr_uint64_t *full;
    apr_uint64_t *touched;
    char *units;
} mw_mem_t;

#define MW_MEM_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define MW_MEM_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define MW_MEM_ADD(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)

static inline char *mw_mem_unit(const mw_mem_t *mem, apr_uint32_t unit)
{
    return mem->units + ((apr_size_t)unit << mem->geometry.unit_shift);
}

static inline mw_mem_run_t *mw_mem_run(const mw_mem_t *mem, apr_uint32_t unit)
{
    return (mw_mem_run_t *)mw_mem_unit(mem, unit);
}

static inline mw_mem_entry_t *mw_mem_entry(const mw_mem_t *mem,
                                           apr_uint32_t unit)
{
    return (mw_mem_entry_t *)mw_mem_unit(mem, unit);
}

/** Uses of an entry since it was queued, up to MW_MEM_USES_MAX. */
static inline unsigned int mw_mem_uses(const mw_mem_t *mem, apr_uint32_t unit)
{
    return MW_MEM_LOAD(&mem->uses[unit >> 2]) >> (unit & 3) * 2 & 3;
}

static inline void mw_mem_uses_set(const mw_mem_t *mem, apr_uint32_t unit,
                                   unsigned int uses)
{
    unsigned char *four = &mem->uses[unit >> 2];
    unsigned int shift = (unit & 3) * 2;

    MW_MEM_STORE(four, (unsigned char)((MW_MEM_LOAD(four) & ~(3u << shift))
                                       | uses << shift));
}

static inline apr_uint32_t mw_mem_shard_of(const mw_mem_t *mem,
                                           apr_uint64_t hash)
{
    return (apr_uint32_t)((hash >> 32) >> mem->shard_shift);
}

static inline apr_uint32_t mw_mem_bucket_of(const mw_mem_t *mem,
                                            apr_uint64_t hash)
{
    return mw_mem_shard_of(mem, hash) * mem->buckets_each
           + ((apr_uint32_t)hash & mem->bucket_mask);
}

apr_uint64_t mw_mem_hash(const mw_mem_t *mem, const cachemw_key_t *key);

/**
 * Greater the sooner something expires; 0: never. A chunk of hash chains whose
 * urgency is below that of the present time has nothing that expired.
 */
static inline apr_uint64_t mw_mem_urgency(apr_time_t expires)
{
    return ~(apr_uint64_t)(expires > 0 ? expires : 0);
}

/** Units of the shards of a size and number, and all that follows from it. */
void mw_mem_plan(mw_mem_geometry_t *geometry, apr_uint64_t size,
                 apr_uint32_t shards);

/** Changes with everything that makes a segment another one. */
apr_uint64_t mw_mem_layout(const mw_mem_geometry_t *geometry);

/** Find the parts of a segment. */
void mw_mem_map(mw_mem_t *mem, void *base);

/** Whether a segment holds what this build and configuration expect. */
int mw_mem_is_valid(const mw_mem_t *mem);

/** Make an empty store of a mapped segment of any content. */
apr_status_t mw_mem_format(mw_mem_t *mem, int is_zero);

/** Ask for a collection: something may have been left by a death. */
void mw_mem_want_collection(mw_mem_t *mem);

/** Count a lock whose holder had died. */
void mw_mem_count_recovery(mw_mem_t *mem);

#endif
