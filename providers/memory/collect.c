/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>

#include "blocks.h"
#include "chain.h"
#include "collect.h"
#include "shard.h"

#define COLLECT_CLAIMS 512u

typedef enum phase_e {
    PHASE_IDLE,
    PHASE_BEGIN,
    PHASE_SETS,
    PHASE_CHAINS,
    PHASE_PINS,
    PHASE_BARRIER,
    PHASE_END,
    PHASES
} phase_e;

static void mark_entry(mw_mem_t *mem, apr_uint32_t unit)
{
    apr_uint32_t head_run = MW_MEM_LOAD(&mw_mem_entry(mem, unit)->head_run);

    mw_blocks_mark(mem, unit);
    mw_blocks_mark(mem, head_run);
}

static apr_uint32_t step_begin(mw_mem_t *mem, apr_uint32_t area)
{
    return mw_blocks_collect_begin(mem, area) ? 1 : 0;
}

/**
 * A set has no entry yet: the runs of its root are all it has.
 * @return 0: some were given back meanwhile, so others may not be marked
 */
static int mark_set(mw_mem_t *mem, mw_mem_claim_t *claim)
{
    apr_uint32_t turn = __atomic_load_n(&claim->turn, __ATOMIC_ACQUIRE);

    if (turn & 1) {
        return 0;
    }
    MW_CHAIN_UNLOCKED_BEGIN();
    mw_blocks_mark(mem, __atomic_load_n(&claim->first, __ATOMIC_ACQUIRE));
    MW_CHAIN_UNLOCKED_END();
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return MW_MEM_LOAD(&claim->turn) == turn;
}

static apr_uint32_t step_sets(mw_mem_t *mem, apr_uint32_t from)
{
    apr_uint32_t n = 0;

    while (n < COLLECT_CLAIMS && from + n < mem->geometry.sets
           && mark_set(mem, &mem->sets[from + n])) {
        n++;
    }
    return n;
}

static apr_uint32_t step_chains(mw_mem_t *mem, apr_uint32_t from)
{
    apr_uint32_t shard = from / mem->buckets_each;
    apr_uint32_t i;

    if (!mw_shard_lock(mem, shard)) {
        return 0;
    }
    for (i = from; i < from + mem->chunk; i++) {
        apr_uint32_t unit = mem->buckets[i];

        while (unit) {
            mark_entry(mem, unit);
            unit = mw_mem_entry(mem, unit)->hash_next;
        }
    }
    mw_shard_unlock(mem, shard);
    return mem->chunk;
}

static apr_uint32_t step_pins(mw_mem_t *mem, apr_uint32_t from)
{
    apr_uint32_t n;

    for (n = 0; n < COLLECT_CLAIMS && from + n < mem->geometry.pins; n++) {
        apr_uint32_t unit =
            __atomic_load_n(&mem->pins[from + n].first, __ATOMIC_ACQUIRE);

        if (unit) {
            MW_CHAIN_UNLOCKED_BEGIN();
            mark_entry(mem, unit);
            MW_CHAIN_UNLOCKED_END();
        }
    }
    return n;
}

/**
 * Who ended a pin just before we looked may be giving back the entry, under
 * the lock of its shard: wait until that is done, or it would be done twice.
 */
static apr_uint32_t step_barrier(mw_mem_t *mem, apr_uint32_t shard)
{
    if (!mw_shard_lock(mem, shard)) {
        return 0;
    }
    mw_shard_unlock(mem, shard);
    return 1;
}

static apr_uint32_t step_end(mw_mem_t *mem, apr_uint32_t area)
{
    return mw_blocks_collect_end(mem, area) ? 1 : 0;
}

/** Work on some items from a cursor on. @return how many; 0: not now */
typedef apr_uint32_t step_fn(mw_mem_t *mem, apr_uint32_t from);

static step_fn *const steps[PHASES] = {
    [PHASE_BEGIN] = step_begin,     [PHASE_SETS] = step_sets,
    [PHASE_CHAINS] = step_chains,   [PHASE_PINS] = step_pins,
    [PHASE_BARRIER] = step_barrier, [PHASE_END] = step_end,
};

static apr_uint32_t phase_length(const mw_mem_t *mem, apr_uint32_t phase)
{
    const mw_mem_geometry_t *g = &mem->geometry;
    const apr_uint32_t length[PHASES] = {
        [PHASE_BEGIN] = g->areas,    [PHASE_SETS] = g->sets,
        [PHASE_CHAINS] = g->buckets, [PHASE_PINS] = g->pins,
        [PHASE_BARRIER] = g->shards, [PHASE_END] = g->areas,
    };

    return length[phase];
}

static int collect_locked(mw_mem_t *mem)
{
    mw_mem_collection_t *collection = &mem->header->collection;
    apr_uint32_t done;

    if (collection->phase == PHASE_IDLE) {
        collection->target =
            __atomic_load_n(&collection->wanted, __ATOMIC_ACQUIRE);
        if (collection->target == MW_MEM_LOAD(&collection->served)) {
            return 0;
        }
        collection->phase = PHASE_BEGIN;
        collection->cursor = 0;
    }
    done = steps[collection->phase](mem, collection->cursor);
    if (!done) {
        return 0;
    }
    collection->cursor += done;
    if (collection->cursor < phase_length(mem, collection->phase)) {
        return 1;
    }
    collection->cursor = 0;
    if (++collection->phase == PHASES) {
        collection->phase = PHASE_IDLE;
        MW_MEM_STORE(&collection->served, collection->target);
    }
    return 1;
}

int mw_collect_step(mw_mem_t *mem)
{
    mw_mem_collection_t *collection = &mem->header->collection;
    int rv;
    int more;

    if (MW_MEM_LOAD(&collection->wanted) == MW_MEM_LOAD(&collection->served)) {
        return 0;
    }
    rv = pthread_mutex_trylock(&collection->lock);
    if (rv == EOWNERDEAD) {
        collection->phase = PHASE_IDLE;
        pthread_mutex_consistent(&collection->lock);
    }
    else if (rv) {
        return 0;
    }
    more = collect_locked(mem);
    pthread_mutex_unlock(&collection->lock);
    return more;
}
