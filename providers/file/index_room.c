/* SPDX-License-Identifier: Apache-2.0 */

#include "index_layout.h"

/** Entries that one visit to a shard looks at. */
#define EVICT_STEPS 64

/** Files that cannot be unlinked, before it is left at that. */
#define EVICT_FAILURES 3

/** What a reservation evicts at most besides one entry for each block. */
#define RESERVE_VICTIMS 64
#define RESERVE_VICTIMS_MAX 8192

apr_uint64_t mw_index_sum(const mw_index_t *index, int queue)
{
    const apr_uint64_t *tallies = index->header->tallies[queue];
    apr_uint64_t sum = 0;
    apr_uint32_t i;

    for (i = 0; i < index->geometry.shards; i++) {
        sum += __atomic_load_n(&tallies[i], __ATOMIC_SEQ_CST);
    }
    return sum;
}

static apr_uint64_t sum_reserved(const mw_index_t *index)
{
    apr_uint32_t used =
        __atomic_load_n(&index->header->slots_used, __ATOMIC_SEQ_CST);
    apr_uint64_t sum = 0;
    apr_uint32_t i;

    for (i = 0; i < used; i++) {
        sum += __atomic_load_n(&index->reserved[i], __ATOMIC_SEQ_CST);
    }
    return sum;
}

apr_uint64_t mw_index_used(const mw_index_t *index)
{
    apr_uint64_t used =
        __atomic_load_n(&index->header->scan.unfound, __ATOMIC_SEQ_CST);

    used += sum_reserved(index);
    used += mw_index_sum(index, MW_INDEX_SMALL);
    return used + mw_index_sum(index, MW_INDEX_MAIN);
}

static mw_ghosts_t ghosts_of(const mw_index_t *index, apr_uint32_t shard)
{
    mw_ghosts_t ghosts = { index->ghosts + shard * index->geometry.buckets_each,
                           index->geometry.buckets_each - 1 };

    return ghosts;
}

int mw_index_was_here(mw_index_t *index, const apr_uint64_t words[2])
{
    apr_uint32_t shard = mw_index_shard_of(index, words);
    apr_uint64_t entries =
        MW_INDEX_ENTRIES(index->header->tallies[MW_INDEX_SMALL][shard])
        + MW_INDEX_ENTRIES(index->header->tallies[MW_INDEX_MAIN][shard]);

    return mw_ghost_take(ghosts_of(index, shard),
                         index->shards[shard].ghost_clock, words[0],
                         (apr_uint32_t)entries);
}

typedef enum evict_look_e { LOOK_GONE, LOOK_KEPT, LOOK_FAILED } evict_look_e;

/** One look at the oldest entry of a queue. Locked. */
static evict_look_e evict_look(mw_index_t *index, apr_uint32_t shard,
                               apr_uint32_t number, apr_time_t now, int force)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    unsigned char uses = MW_INDEX_LOAD(&record->uses);
    int is_small = record->queue == MW_INDEX_SMALL;
    int is_over = mw_index_is_over(record->expires, now);

    if (!is_over && !force && uses >= (is_small ? MW_S3_PROVEN : 1)) {
        MW_INDEX_STORE(&record->uses, (unsigned char)(is_small ? 0 : uses - 1));
        mw_index_requeue(index, shard, number);
        return LOOK_KEPT;
    }
    if (mw_index_unlink(index, shard, number) != APR_SUCCESS) {
        mw_index_requeue(index, shard, number);
        return LOOK_FAILED;
    }
    if (is_small && !is_over) {
        mw_ghost_add(ghosts_of(index, shard), &index->shards[shard].ghost_clock,
                     record->digest[0]);
    }
    index->services->count(
        index->services,
        is_over ? CACHEMW_COUNT_EXPIRED : CACHEMW_COUNT_EVICTED, 1);
    return LOOK_GONE;
}

int mw_index_evict(mw_index_t *index, apr_uint32_t shard, int queue,
                   apr_time_t now, int force)
{
    int failures = 0;
    int i;

    for (i = 0; i < EVICT_STEPS && failures < EVICT_FAILURES; i++) {
        apr_uint32_t number = index->shards[shard].queue[queue].oldest;

        if (!number) {
            break;
        }
        switch (evict_look(index, shard, number, now, force)) {
        case LOOK_GONE:
            return 1;
        case LOOK_FAILED:
            failures++;
            break;
        default:
            break;
        }
    }
    return 0;
}

static int room_is_made(const mw_index_t *index)
{
    apr_uint64_t used = mw_index_used(index);

    return MW_INDEX_BLOCKS(used) <= MW_INDEX_LOAD(&index->header->max_blocks)
           && MW_INDEX_ENTRIES(used)
                  <= MW_INDEX_LOAD(&index->header->max_entries);
}

/**
 * The next shard, in turn, that has its share of a queue: turns alone would let
 * the queues drift apart, as entries are not alike.
 */
static apr_uint32_t room_next(mw_index_t *index, int queue, apr_uint64_t least)
{
    apr_uint32_t mask = index->geometry.shards - 1;
    apr_uint32_t tries;
    apr_uint32_t shard = 0;

    for (tries = 0; tries <= mask; tries++) {
        shard = __atomic_fetch_add(&index->header->victim, 1, __ATOMIC_RELAXED)
                & mask;
        if (MW_INDEX_BLOCKS(
                MW_INDEX_LOAD(&index->header->tallies[queue][shard]))
            >= least) {
            break;
        }
    }
    return shard;
}

int mw_index_make_room(mw_index_t *index, apr_time_t now, apr_uint32_t victims)
{
    apr_uint32_t patience = 4 * index->geometry.shards;
    apr_uint32_t idle = 0;

    while (!room_is_made(index)) {
        apr_uint64_t small =
            MW_INDEX_BLOCKS(mw_index_sum(index, MW_INDEX_SMALL));
        apr_uint64_t main = MW_INDEX_BLOCKS(mw_index_sum(index, MW_INDEX_MAIN));
        int queue =
            small * MW_S3_MAIN_SHARE >= main ? MW_INDEX_SMALL : MW_INDEX_MAIN;
        apr_uint64_t least =
            (queue == MW_INDEX_SMALL ? small : main) / index->geometry.shards;
        apr_uint32_t shard;
        int gone = 0;

        if (!victims || idle >= 2 * patience || small + main == 0) {
            return 0;
        }
        /* Who has more than its share may be the one that gives nothing. */
        shard = room_next(index, queue, idle || !least ? 1 : least);
        if (mw_index_lock(index, shard, 0)) {
            gone = mw_index_evict(index, shard, queue, now, idle >= patience);
            mw_index_unlock(index, shard);
        }
        victims -= (apr_uint32_t)gone;
        idle = gone ? 0 : idle + 1;
    }
    return 1;
}

apr_status_t mw_index_reserve(mw_index_t *index, mw_index_room_t *room,
                              apr_uint64_t bytes, apr_time_t now)
{
    apr_uint64_t blocks = mw_index_blocks(bytes);
    apr_uint32_t slot = room->slot ? room->slot : MW_INDEX_LOAD(&index->owner);
    apr_uint32_t victims;
    apr_uint64_t more;

    if (!slot || blocks > MW_INDEX_LOAD(&index->header->max_blocks)) {
        return APR_ENOSPC;
    }
    if (room->slot && blocks <= room->blocks) {
        return APR_SUCCESS;
    }
    victims = (apr_uint32_t)(blocks - room->blocks < RESERVE_VICTIMS_MAX
                                 ? blocks - room->blocks
                                 : RESERVE_VICTIMS_MAX)
              + RESERVE_VICTIMS;
    more = blocks - room->blocks + (room->slot ? 0 : MW_INDEX_ENTRY);
    __atomic_fetch_add(&index->reserved[slot - 1], more, __ATOMIC_SEQ_CST);
    if (!mw_index_make_room(index, now, victims)
        && !mw_index_scan_for_room(index, now, victims)) {
        __atomic_fetch_sub(&index->reserved[slot - 1], more, __ATOMIC_SEQ_CST);
        return APR_ENOSPC;
    }
    room->blocks = blocks;
    room->slot = slot;
    return APR_SUCCESS;
}

void mw_index_release(mw_index_t *index, mw_index_room_t *room)
{
    if (room->slot) {
        __atomic_fetch_sub(&index->reserved[room->slot - 1],
                           room->blocks + MW_INDEX_ENTRY, __ATOMIC_SEQ_CST);
    }
    room->blocks = 0;
    room->slot = 0;
}
