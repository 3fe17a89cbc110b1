/* SPDX-License-Identifier: Apache-2.0 */

#include "core/state.h"
#include "index_layout.h"

/** Steps that fail before a scan leaves out what they failed at. */
#define SCAN_FAILURES 8

/** Between two looks at the clock: files of a scan, files that are unlinked. */
#define SWEEP_FILES 16

/** So long a set scans that would be refused otherwise; microseconds. */
#define SCAN_FOR_ROOM 10000

/** Digests that walk() copies at once. */
#define WALK_BATCH MW_INDEX_CHUNK

static int sweep_has_time(const mw_index_t *index, const cachemw_call_t *call)
{
    return index->services->remaining(index->services, call) != 0;
}

/** Locks that the dead held are had, and their shards mended, by locking. */
static void sweep_locks(mw_index_t *index)
{
    apr_uint32_t i;

    for (i = 0; i < index->geometry.shards; i++) {
        if (mw_index_lock(index, i, 0)) {
            mw_index_unlock(index, i);
        }
    }
}

/** Records that somebody may have to look at. Locked. */
static apr_uint32_t chunk_end(const mw_index_t *index, apr_uint32_t shard,
                              apr_uint32_t first)
{
    apr_uint32_t end = first + MW_INDEX_CHUNK;
    apr_uint32_t used = index->shards[shard].fresh + 1;

    return end < used ? end : used;
}

static int record_is_cleared(const mw_index_t *index,
                             const mw_index_record_t *record)
{
    return MW_INDEX_LOAD(&record->round)
           != MW_INDEX_LOAD(&index->header->round);
}

static int record_is_due(const mw_index_t *index,
                         const mw_index_record_t *record, apr_time_t now)
{
    return mw_index_is_over(MW_INDEX_LOAD(&record->expires), now)
           || record_is_cleared(index, record);
}

/**
 * Unlink what is due in a chunk, but no more files than is good.
 * @return how many
 */
static apr_uint32_t chunk_sweep(mw_index_t *index, apr_uint32_t chunk,
                                apr_time_t now)
{
    apr_uint32_t per = index->geometry.records_each / MW_INDEX_CHUNK;
    apr_uint32_t shard = chunk / per;
    apr_uint32_t number = chunk % per * MW_INDEX_CHUNK + 1;
    apr_uint32_t earliest = MW_INDEX_NEVER;
    apr_uint32_t expired = 0;
    apr_uint32_t gone = 0;
    apr_uint32_t end;

    if (!mw_index_lock(index, shard, 1)) {
        return 0;
    }
    /* What is cleared from here on stays due. */
    __atomic_store_n(&index->due[chunk], MW_INDEX_NEVER, __ATOMIC_SEQ_CST);
    end = chunk_end(index, shard, number);
    for (; number < end; number++) {
        mw_index_record_t *record = mw_index_record(index, shard, number);
        int is_over = mw_index_is_over(record->expires, now);

        if (record->blocks && record_is_due(index, record, now)
            && gone < SWEEP_FILES
            && mw_index_unlink(index, shard, number) == APR_SUCCESS) {
            gone++;
            expired += (apr_uint32_t)is_over;
        }
        else if (record->blocks) {
            apr_uint32_t due =
                record_is_due(index, record, now) ? 0 : record->expires;

            earliest = due < earliest ? due : earliest;
        }
    }
    if (earliest < MW_INDEX_LOAD(&index->due[chunk])) {
        MW_INDEX_STORE(&index->due[chunk], earliest);
    }
    mw_index_unlock(index, shard);
    if (expired) {
        index->services->count(index->services, CACHEMW_COUNT_EXPIRED, expired);
    }
    return gone;
}

/** One pass over all chunks, from where the last one ended. */
static void sweep_due(mw_index_t *index, const cachemw_call_t *call, int *more)
{
    apr_uint32_t chunks = index->geometry.shards
                          * (index->geometry.records_each / MW_INDEX_CHUNK);
    apr_uint32_t at = MW_INDEX_LOAD(&index->header->swept) % chunks;
    apr_uint32_t left = chunks;

    while (left) {
        if (!mw_index_is_over(MW_INDEX_LOAD(&index->due[at]), call->now)) {
            at = (at + 1) % chunks;
            left--;
            continue;
        }
        if (!sweep_has_time(index, call)) {
            *more = 1;
            break;
        }
        if (chunk_sweep(index, at, call->now) < SWEEP_FILES) {
            at = (at + 1) % chunks;
            left--;
        }
    }
    MW_INDEX_STORE(&index->header->swept, at);
}

static void sweep_caps(mw_index_t *index, const cachemw_call_t *call, int *more)
{
    const apr_uint64_t before = mw_index_used(index);
    int is_done = 0;
    int i;

    for (i = 0; !is_done && sweep_has_time(index, call) && i < 64; i++) {
        is_done = mw_index_make_room(index, call->now, SWEEP_FILES);
    }
    *more |= !is_done && mw_index_used(index) < before;
}

static void scan_close(mw_index_t *index)
{
    if (index->listing) {
        index->files->close(index->baton, index->listing);
        index->listing = NULL;
    }
}

/** The directory is done; the next one is taken up with the next step. */
static void scan_advance(mw_index_t *index)
{
    mw_index_scan_t *scan = &index->header->scan;
    apr_uint32_t next = scan->dir + 1;

    scan_close(index);
    MW_INDEX_STORE(&scan->dir, next);
    if (next < index->geometry.dirs) {
        return;
    }
    MW_INDEX_STORE(&scan->was_made, 1);
    __atomic_store_n(&scan->unfound, 0, __ATOMIC_SEQ_CST);
    MW_INDEX_STORE(&scan->is_active, 0);
    index->services->log(index->services, CACHEMW_LOG_INFO, APR_SUCCESS,
                         "scan: all directories are read");
}

/** Have the directory at hand open. */
static apr_status_t scan_open(mw_index_t *index)
{
    apr_uint32_t dir = index->header->scan.dir;

    if (index->listed != dir) {
        scan_close(index);
    }
    if (index->listing) {
        return APR_SUCCESS;
    }
    index->listed = dir;
    return index->files->list(index->baton, dir, &index->listing);
}

/** @return APR_ENOENT: the directory was read to its end, or is not there */
static apr_status_t scan_files(mw_index_t *index, apr_time_t now)
{
    apr_status_t rv = scan_open(index);
    int i;

    for (i = 0; rv == APR_SUCCESS && i < SWEEP_FILES; i++) {
        mw_index_facts_t gone;
        mw_digest_t digest;

        rv = index->files->next(index->baton, index->listing, &digest, &gone);
        if (rv == APR_EAGAIN) {
            if (gone.exists) {
                mw_index_found(index, gone.size);
            }
            rv = APR_SUCCESS;
        }
        else if (rv == APR_SUCCESS
                 && mw_index_check(index, &digest, now) == APR_TIMEUP) {
            rv = APR_TIMEUP;
        }
    }
    return rv;
}

static apr_status_t scan_temps(mw_index_t *index)
{
    char prefix[MW_INDEX_TEMP_NAME];

    mw_index_prefix(index, prefix);
    return index->files->unlink_temps(index->baton, prefix, 1);
}

/**
 * A directory that cannot be read must not hold up the scan for ever, for what
 * is not found counts as used until then.
 * @return trouble: it is of no use to go on now. Locked
 */
static apr_status_t scan_step(mw_index_t *index, apr_time_t now)
{
    mw_index_scan_t *scan = &index->header->scan;
    apr_status_t rv =
        scan->has_temps ? scan_temps(index) : scan_files(index, now);
    int is_done =
        scan->has_temps ? rv == APR_SUCCESS : APR_STATUS_IS_ENOENT(rv);

    if (!is_done && rv != APR_SUCCESS) {
        scan_close(index);
        is_done = ++scan->failures >= SCAN_FAILURES;
    }
    else {
        scan->failures = 0;
        rv = APR_SUCCESS;
    }
    if (is_done) {
        scan->failures = 0;
        if (scan->has_temps) {
            scan->has_temps = 0;
        }
        else {
            scan_advance(index);
        }
    }
    return rv;
}

/** One process at a time; when it dies another one has the lock. */
static int scan_lock(mw_index_scan_t *scan)
{
    int rv = pthread_mutex_trylock(&scan->lock);

    if (rv == EOWNERDEAD) {
        pthread_mutex_consistent(&scan->lock);
        rv = 0;
    }
    return rv == 0;
}

apr_status_t mw_index_scan_leave(void *data)
{
    mw_index_t *index = data;

    /* If another thread is at it, the process ends with it. */
    if (index->listing && scan_lock(&index->header->scan)) {
        scan_close(index);
        pthread_mutex_unlock(&index->header->scan.lock);
    }
    return APR_SUCCESS;
}

static void sweep_scan(mw_index_t *index, const cachemw_call_t *call, int *more)
{
    mw_index_scan_t *scan = &index->header->scan;
    apr_status_t rv = APR_SUCCESS;

    if (!MW_INDEX_LOAD(&scan->is_active) || !scan_lock(scan)) {
        return;
    }
    while (rv == APR_SUCCESS && MW_INDEX_LOAD(&scan->is_active)
           && sweep_has_time(index, call)) {
        rv = scan_step(index, call->now);
    }
    if (rv == APR_SUCCESS && MW_INDEX_LOAD(&scan->is_active)) {
        *more = 1;
    }
    pthread_mutex_unlock(&scan->lock);
}

int mw_index_scan_for_room(mw_index_t *index, apr_time_t now,
                           apr_uint32_t victims)
{
    mw_index_scan_t *scan = &index->header->scan;
    const apr_int64_t until = mw_monotonic() + SCAN_FOR_ROOM;
    int is_made = 0;

    if (MW_INDEX_LOAD(&scan->was_made) || !scan_lock(scan)) {
        return 0;
    }
    while (!is_made && MW_INDEX_LOAD(&scan->is_active)
           && scan_step(index, now) == APR_SUCCESS) {
        is_made = mw_index_make_room(index, now, victims);
        if (mw_monotonic() >= until) {
            break;
        }
    }
    scan_close(index);
    pthread_mutex_unlock(&scan->lock);
    return is_made;
}

apr_status_t mw_index_sweep(mw_index_t *index, const cachemw_call_t *call,
                            int *more)
{
    mw_slots_t slots = mw_index_slots(index);

    *more = 0;
    sweep_locks(index);
    mw_slots_bury(&slots);
    sweep_caps(index, call, more);
    sweep_due(index, call, more);
    sweep_scan(index, call, more);
    return APR_SUCCESS;
}

void mw_index_rescan(mw_index_t *index)
{
    mw_index_scan_t *scan = &index->header->scan;

    if (!scan_lock(scan)) {
        return;
    }
    if (!MW_INDEX_LOAD(&scan->is_active)) {
        MW_INDEX_STORE(&scan->dir, 0);
        MW_INDEX_STORE(&scan->is_active, 1);
    }
    pthread_mutex_unlock(&scan->lock);
}

void mw_index_clear(mw_index_t *index)
{
    apr_uint32_t chunks = index->geometry.shards
                          * (index->geometry.records_each / MW_INDEX_CHUNK);
    apr_uint32_t i;

    __atomic_fetch_add(&index->header->round, 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < chunks; i++) {
        MW_INDEX_STORE(&index->due[i], 0);
    }
}

/** @return how many; -1: the lock cannot be had */
static int walk_copy(mw_index_t *index, apr_uint32_t shard, apr_uint32_t first,
                     apr_time_t now, mw_digest_t *digests)
{
    apr_uint32_t number;
    apr_uint32_t end;
    int count = 0;

    if (!mw_index_lock(index, shard, 1)) {
        return -1;
    }
    end = chunk_end(index, shard, first);
    for (number = first; number < end; number++) {
        const mw_index_record_t *record = mw_index_record(index, shard, number);

        if (record->blocks && !record_is_due(index, record, now)) {
            memcpy(&digests[count++], record->digest, sizeof(*digests));
        }
    }
    mw_index_unlock(index, shard);
    return count;
}

apr_status_t mw_index_walk(mw_index_t *index, apr_time_t now,
                           apr_status_t (*each)(void *baton,
                                                const mw_digest_t *digest),
                           void *baton)
{
    mw_digest_t digests[WALK_BATCH];
    apr_status_t rv = APR_SUCCESS;
    apr_uint32_t shard;
    apr_uint32_t first;

    for (shard = 0; shard < index->geometry.shards; shard++) {
        for (first = 1; first <= index->shards[shard].fresh;
             first += MW_INDEX_CHUNK) {
            int count = walk_copy(index, shard, first, now, digests);
            int i;

            if (count < 0) {
                return APR_TIMEUP;
            }
            for (i = 0; rv == APR_SUCCESS && i < count; i++) {
                rv = each(baton, &digests[i]);
            }
            if (rv != APR_SUCCESS) {
                return rv;
            }
        }
    }
    return rv;
}

/** Looks only where something has expired, or was cleared and is no entry. */
static void count_due(mw_index_t *index, apr_time_t now, apr_int64_t *expired,
                      apr_int64_t *cleared)
{
    apr_uint32_t records =
        index->geometry.shards * index->geometry.records_each;
    apr_uint32_t i;

    *expired = *cleared = 0;
    for (i = 0; i < records; i++) {
        const mw_index_record_t *record = &index->records[i];

        if (i % MW_INDEX_CHUNK == 0
            && !mw_index_is_over(MW_INDEX_LOAD(&index->due[i / MW_INDEX_CHUNK]),
                                 now)) {
            i += MW_INDEX_CHUNK - 1;
            continue;
        }
        if (!MW_INDEX_LOAD(&record->blocks)) {
            continue;
        }
        if (record_is_cleared(index, record)) {
            ++*cleared;
        }
        else if (record_is_due(index, record, now)) {
            ++*expired;
        }
    }
}

void mw_index_stats(mw_index_t *index, apr_time_t now, cachemw_stats_t *stats)
{
    const mw_index_header_t *header = index->header;
    apr_uint64_t used = mw_index_used(index);
    apr_uint64_t held = mw_index_sum(index, MW_INDEX_SMALL)
                        + mw_index_sum(index, MW_INDEX_MAIN);
    apr_int64_t cleared;

    count_due(index, now, &stats->expired, &cleared);
    stats->entries = (apr_int64_t)MW_INDEX_ENTRIES(held) - cleared;
    stats->bytes = (apr_int64_t)(MW_INDEX_BLOCKS(held) * MW_INDEX_BLOCK);
    stats->bytes_max =
        (apr_int64_t)(MW_INDEX_LOAD(&header->max_blocks) * MW_INDEX_BLOCK);
    stats->entries_max = (apr_int64_t)MW_INDEX_LOAD(&header->max_entries);
    if (stats->extra) {
        apr_uint64_t reserved = MW_INDEX_BLOCKS(used - held) * MW_INDEX_BLOCK;

        stats->extra(stats->baton, "reserved_bytes", (apr_int64_t)reserved);
        stats->extra(stats->baton, "scanned_percent",
                     MW_INDEX_LOAD(&header->scan.is_active)
                         ? (apr_int64_t)MW_INDEX_LOAD(&header->scan.dir) * 100
                               / index->geometry.dirs
                         : 100);
        stats->extra(stats->baton, "recovered",
                     (apr_int64_t)MW_INDEX_LOAD(&header->recovered));
        stats->extra(stats->baton, "dead_children",
                     (apr_int64_t)MW_INDEX_LOAD(&header->deaths));
    }
}
