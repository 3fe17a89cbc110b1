/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file index.h
 * @brief What files there are: an index in shared memory, and the budget.
 *
 * The index knows the digest, the size and the expiry of every file. It decides
 * what goes when room is needed (S3-FIFO), what has expired, and who may write
 * how much. It touches no file itself: mw_index_files_t does, for it.
 *
 * ## What holds at any time, also when processes are killed
 *
 * What is counted is never less than what is on the disk: bytes are reserved
 * before they are written, and stop to count after they are gone. Every change
 * of a file under its final name (rename, unlink, amend) is made under the lock
 * of the digest's shard, together with the change of the index, by
 * mw_index_change(). Whoever finds that the holder of the lock has died asks
 * `probe` about the one file that it was at, and the index is exact again. What
 * a dead process had reserved counts until its temporary files are unlinked by
 * whoever sweeps.
 *
 * ## Sizes
 *
 * A file counts as many bytes as its blocks of MW_INDEX_BLOCK have; an empty
 * one as one block. Expiry is kept in seconds, rounded up: who reads a file
 * compares with what is in there.
 *
 * ## Threads and waiting
 *
 * After mw_index_child_init() everything may be called by any thread. Nobody
 * waits longer than a second for a lock. No function of mw_index_files_t, and
 * no mw_index_work_fn, may call back into the index. probe, unlink and work run
 * under a shard's lock, so they wait for nothing but the disk, do not log at
 * length, and make a few system calls at most.
 */
#ifndef MW_FILE_INDEX_H
#define MW_FILE_INDEX_H

#include "mod_cachemw.h"

#define MW_INDEX_BLOCK 4096

/** Room for a name of mw_index_temp_name() with its terminator. */
#define MW_INDEX_TEMP_NAME 64

typedef struct mw_index_t mw_index_t;

/** Of the whole key. Uniformly distributed: shards are taken from its bits. */
typedef struct mw_digest_t {
    unsigned char bytes[16];
} mw_digest_t;

/** A file under its final name. */
typedef struct mw_index_facts_t {
    int exists;
    apr_uint64_t size; /**< bytes */
    apr_time_t expires;
} mw_index_facts_t;

typedef struct mw_index_config_t {
    apr_uint64_t memory;      /**< bytes of shared memory for the index */
    apr_uint64_t max_bytes;   /**< on the disk, at least 64 blocks */
    apr_uint64_t max_entries; /**< 0: as many as the memory holds */
    int dir_levels;           /**< 0 to 2 levels of 256 directories */
    apr_uint64_t salt;        /**< of the place and the format of the files:
                                with another one the index is a new one */
} mw_index_config_t;

/** What the index has done with the files; `baton` as given to create. */
typedef struct mw_index_files_t {
    /**
     * Look at a file, mostly without opening it. Anything but a regular file
     * does not exist, and is removed where that is possible.
     * @return trouble: it is not known whether there is one
     */
    apr_status_t (*probe)(void *baton, const mw_digest_t *digest,
                          mw_index_facts_t *facts);
    /** @return APR_SUCCESS also when there was none; trouble: it is there */
    apr_status_t (*unlink)(void *baton, const mw_digest_t *digest);
    /**
     * Unlink the temporary files whose names begin with a prefix (or, with
     * `others`, those whose names do not). Under no shard's lock.
     * @return trouble: some are there still; asked again later
     */
    apr_status_t (*unlink_temps)(void *baton, const char *prefix, int others);
    /**
     * Begin to list a directory: the one of all files whose digests begin with
     * the 8 * dir_levels bits of `dir`, high bits first.
     * @param listing set to what next and close get; of this process
     * @return APR_ENOENT: there is none, so no files; other trouble: asked
     *         again later
     */
    apr_status_t (*list)(void *baton, apr_uint32_t dir, void **listing);
    /**
     * Names that are no digests are passed.
     * @param gone APR_EAGAIN: whether a file went, and its size
     * @return APR_ENOENT at the end; APR_EAGAIN: none this time, perhaps
     *         because something was removed that was not where it belongs
     */
    apr_status_t (*next)(void *baton, void *listing, mw_digest_t *digest,
                         mw_index_facts_t *gone);
    void (*close)(void *baton, void *listing);
} mw_index_files_t;

/** @name Life @{ */

/**
 * Parent, in open(). Touches nothing but pool.
 * @param files, baton live as long as the pool
 * @param error on failure set to what is wrong, in pool
 */
apr_status_t mw_index_create(mw_index_t **index,
                             const cachemw_services_t *services,
                             const mw_index_config_t *config,
                             const mw_index_files_t *files, void *baton,
                             apr_pool_t *pool, const char **error);

/**
 * Parent, in post_config(): get the segment. One that is kept has the caps of
 * this configuration from now on; the sweep gets below them.
 * @param expected bytes that files on the disk have at most, for a new index;
 *        negative: not known. What the scan has not found of it counts as used
 *        until it ends
 * @param is_new set to non-zero: the index is empty and a scan begins
 */
apr_status_t mw_index_post_config(mw_index_t *index, apr_int64_t expected,
                                  int *is_new);

/**
 * Each process, before anything below. The calling thread must live as long as
 * pchild. When more processes live than there are slots (64 to 1024), this one
 * reserves nothing: APR_SUCCESS, but mw_index_reserve() is refused.
 */
apr_status_t mw_index_child_init(mw_index_t *index, apr_pool_t *pchild);

/** Bytes of mw_index_shared(). */
#define MW_INDEX_SHARED 512

/**
 * Shared memory beside the index, for what its maker shares between processes:
 * aligned to 64 bytes, zero in a new index, not NULL after
 * mw_index_post_config(). The index does not look at it.
 */
void *mw_index_shared(mw_index_t *index);

/** @} */

/** @name Looking up @{ */

typedef enum mw_index_answer_e {
    MW_INDEX_ABSENT,  /**< there is none, or it has expired: do not look */
    MW_INDEX_PRESENT, /**< there was one a moment ago */
    MW_INDEX_UNKNOWN  /**< the disk must be asked: not scanned yet, or the
                         index is being changed all the time */
} mw_index_answer_e;

/**
 * Without a lock, and never in the way of anybody. Counts a use.
 * @param facts of MW_INDEX_PRESENT: size and expires, both rounded up. By the
 *        time that the file is opened it may be another one, or gone
 */
mw_index_answer_e mw_index_find(mw_index_t *index, const mw_digest_t *digest,
                                apr_time_t now, mw_index_facts_t *facts);

/**
 * Make the index agree with the disk about one file: after an answer of
 * MW_INDEX_UNKNOWN when the file was there, after MW_INDEX_PRESENT when it was
 * not. An expired file, and one for which there is no room, is unlinked.
 */
apr_status_t mw_index_check(mw_index_t *index, const mw_digest_t *digest,
                            apr_time_t now);

/** @} */

/** @name Room @{ */

/**
 * What one set has reserved. Zeroed by the caller; one thread at a time. Ends
 * by mw_index_release(), or is taken over by mw_index_change().
 */
typedef struct mw_index_room_t {
    apr_uint64_t blocks;
    apr_uint32_t slot; /**< of the process, + 1; 0: nothing reserved */
    int adds; /**< by the caller: the file there grows, and is not replaced */
} mw_index_room_t;

/**
 * Before bytes are written: have room for a file of `bytes` in all, and for an
 * entry. Evicts as needed, a bounded number of entries, and looks for some on
 * the disk when the index is new and knows of none; a file of which much is
 * to be evicted had better ask for its whole length at once.
 * @return APR_ENOSPC: there is none now, or it is more than max_bytes; room is
 *         as it was
 */
apr_status_t mw_index_reserve(mw_index_t *index, mw_index_room_t *room,
                              apr_uint64_t bytes, apr_time_t now);

/** After the temporary file is unlinked. Waits for nothing. */
void mw_index_release(mw_index_t *index, mw_index_room_t *room);

/**
 * A name for a temporary file that nobody has used since the index was made,
 * nor a server before it. Begins with the prefix of this process: see
 * unlink_temps.
 */
void mw_index_temp_name(mw_index_t *index, char name[MW_INDEX_TEMP_NAME]);

/** @} */

/** @name Changing @{ */

/**
 * Do something to the file of a digest: rename a temporary one over it, unlink
 * it, write a head into it.
 * @param facts In: what the index knows (exists 0: nothing, which before the
 *        end of a scan does not mean that there is no file). Out: what is true
 *        afterwards; left alone when nothing was changed
 * @return trouble: `probe` is asked what is true
 */
typedef apr_status_t mw_index_work_fn(void *baton, const mw_digest_t *digest,
                                      mw_index_facts_t *facts);

/**
 * Run `work` under the lock of the digest's shard and make the index agree.
 * @param room what was reserved for the whole file, or for what it grows by.
 *        APR_SUCCESS: it is zeroed, and the file itself counts from now on.
 *        Otherwise the caller unlinks the temporary file, then releases it.
 *        NULL: the file does not grow
 * @return what `work` returned; APR_TIMEUP: there was no lock, and `work` was
 *         not called; APR_ENOSPC: there was no entry, and the file is gone
 */
apr_status_t mw_index_change(mw_index_t *index, const mw_digest_t *digest,
                             mw_index_room_t *room, mw_index_work_fn *work,
                             void *baton, apr_time_t now);

/** @} */

/** @name Housekeeping @{ */

/**
 * One bounded step: locks of the dead, what the dead have reserved, the scan,
 * caps that were lowered, what has expired or was cleared. Returns by
 * call->deadline.
 * @param more set to non-zero when there is more to do at once
 */
apr_status_t mw_index_sweep(mw_index_t *index, const cachemw_call_t *call,
                            int *more);

/**
 * Scan the directories once more, beginning with the next sweep: files that
 * somebody else put there get known, while find() goes on to answer from the
 * index. Nothing happens while a scan is under way.
 */
void mw_index_rescan(mw_index_t *index);

/**
 * From now on everything that the index knows is absent; the sweep unlinks it.
 * What it does not know (yet) is not its business, nor is a restart before the
 * sweep is done: files carry an epoch of their own.
 */
void mw_index_clear(mw_index_t *index);

/**
 * Call `each` for the digests of all that has not expired, under no lock.
 * Weakly consistent, but nothing that stays is left out or told twice.
 * @return what `each` returned first but APR_SUCCESS; APR_TIMEUP: a lock cannot
 *         be had
 */
apr_status_t mw_index_walk(mw_index_t *index, apr_time_t now,
                           apr_status_t (*each)(void *baton,
                                                const mw_digest_t *digest),
                           void *baton);

/** Fill in what is known, extra figures of the scan and of deaths included. */
void mw_index_stats(mw_index_t *index, apr_time_t now, cachemw_stats_t *stats);

/** @} */

#endif
