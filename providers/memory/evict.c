/* SPDX-License-Identifier: Apache-2.0 */

#include "evict.h"
#include "shard.h"
#include "providers/common/ghosts.h"

/** Entries that one visit to a shard looks at. */
#define EVICT_STEPS 64

/** Entries that one call of mw_evict_entries() evicts. */
#define EVICT_AT_ONCE 1024

/** What one call of mw_evict_*() did; counted when no lock is held. */
typedef struct toll_t {
    apr_uint64_t evicted;
    apr_uint64_t expired;
} toll_t;

static mw_ghosts_t ghosts_of(const mw_mem_t *mem, apr_uint32_t shard)
{
    mw_ghosts_t ghosts = { mem->ghosts + shard * (mem->ghost_mask + 1),
                           mem->ghost_mask };

    return ghosts;
}

static void ghost_add(mw_mem_t *mem, mw_mem_shard_t *shard, apr_uint64_t hash)
{
    mw_ghost_add(ghosts_of(mem, mw_mem_shard_of(mem, hash)),
                 &shard->ghost_clock, hash);
}

int mw_evict_was_here(mw_mem_t *mem, apr_uint64_t hash)
{
    apr_uint32_t index = mw_mem_shard_of(mem, hash);

    return mw_ghost_take(
        ghosts_of(mem, index), mem->shards[index].ghost_clock, hash,
        (apr_uint32_t)MW_MEM_LOAD(&mem->tallies[index].entries));
}

/** One look at the oldest entry of a queue. Locked. */
static apr_uint32_t evict_look(mw_mem_t *mem, mw_mem_shard_t *shard,
                               apr_uint32_t unit, apr_time_t now, int force,
                               toll_t *toll)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
    unsigned int uses = mw_mem_uses(mem, unit);
    unsigned int proven = entry->queue == MW_MEM_SMALL ? MW_S3_PROVEN : 1;

    if (entry->pins) {
        mw_shard_requeue(mem, unit, MW_MEM_MAIN);
        return 0;
    }
    if (entry->expires <= now) {
        toll->expired++;
        return mw_shard_drop(mem, unit);
    }
    if (uses >= proven && !force) {
        mw_mem_uses_set(mem, unit, entry->queue == MW_MEM_SMALL ? 0 : uses - 1);
        mw_shard_requeue(mem, unit, MW_MEM_MAIN);
        return 0;
    }
    if (entry->queue == MW_MEM_SMALL) {
        ghost_add(mem, shard, entry->hash);
    }
    toll->evicted++;
    return mw_shard_drop(mem, unit);
}

/** Evict one entry of a shard, unless nothing comes up in some looks. */
static apr_uint32_t evict_visit(mw_mem_t *mem, apr_uint32_t index, int queue,
                                apr_time_t now, int force, toll_t *toll)
{
    mw_mem_shard_t *shard = &mem->shards[index];
    apr_uint32_t freed = 0;
    int i;

    if (!mw_shard_lock(mem, index)) {
        return 0;
    }
    for (i = 0; i < EVICT_STEPS && !freed; i++) {
        apr_uint32_t unit = shard->queue[queue].oldest;

        if (!unit) {
            break;
        }
        freed = evict_look(mem, shard, unit, now, force, toll);
    }
    mw_shard_unlock(mem, index);
    return freed;
}

/**
 * The next shard, in turn, that has so many units in a queue. Turns alone would
 * let the queues drift apart, as entries are not alike, until they are empty in
 * some shards.
 */
static apr_uint32_t evict_next(mw_mem_t *mem, int queue, apr_uint64_t least)
{
    apr_uint32_t mask = mem->geometry.shards - 1;
    apr_uint32_t tries;
    apr_uint32_t index = 0;

    for (tries = 0; tries <= mask; tries++) {
        index = MW_MEM_ADD(&mem->header->victim, 1) & mask;
        if (MW_MEM_LOAD(&mem->tallies[index].units[queue]) >= least) {
            break;
        }
    }
    return index;
}

/** @param below entries below the cap; negative: entries do not matter */
static int evict_is_done(const mw_mem_t *mem, apr_uint64_t units,
                         apr_int64_t below)
{
    return mw_blocks_free(mem) >= units
           && (below < 0
               || mw_shard_entries(mem) + (apr_uint64_t)below
                      <= MW_MEM_LOAD(&mem->header->max_entries));
}

/** @param most entries that go */
static int evict_until(mw_mem_t *mem, apr_time_t now, apr_uint64_t units,
                       apr_int64_t below, apr_uint64_t most)
{
    apr_uint32_t patience = 4 * mem->geometry.shards;
    apr_uint32_t idle = 0;
    toll_t toll = { 0, 0 };
    int done;

    while (!(done = evict_is_done(mem, units, below)) && idle < 2 * patience
           && toll.evicted + toll.expired < most && !mw_blocks_are_stuck(mem)) {
        mw_mem_tally_t sum;
        apr_uint64_t least;
        int queue;

        mw_shard_sum(mem, &sum);
        if (!sum.units[MW_MEM_SMALL] && !sum.units[MW_MEM_MAIN]) {
            break;
        }
        queue =
            sum.units[MW_MEM_SMALL] * MW_S3_MAIN_SHARE >= sum.units[MW_MEM_MAIN]
                ? MW_MEM_SMALL
                : MW_MEM_MAIN;
        /* Who has more than its share may be the one that gives nothing. */
        least = idle ? 0 : sum.units[queue] / mem->geometry.shards;
        if (evict_visit(mem, evict_next(mem, queue, least ? least : 1), queue,
                        now, idle >= patience, &toll)) {
            idle = 0;
        }
        else {
            idle++;
        }
    }
    if (toll.evicted) {
        mem->services->count(mem->services, CACHEMW_COUNT_EVICTED,
                             toll.evicted);
    }
    if (toll.expired) {
        mem->services->count(mem->services, CACHEMW_COUNT_EXPIRED,
                             toll.expired);
    }
    return done;
}

int mw_evict_units(mw_mem_t *mem, apr_time_t now, apr_uint64_t units)
{
    return evict_until(mem, now, units, -1, APR_UINT64_MAX);
}

int mw_evict_entries(mw_mem_t *mem, apr_time_t now, apr_uint32_t below)
{
    return evict_until(mem, now, 0, below, EVICT_AT_ONCE);
}
