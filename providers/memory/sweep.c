/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>

#include "chain.h"
#include "collect.h"
#include "evict.h"
#include "shard.h"
#include "slots.h"
#include "sweep.h"

/** On a store: steps of the collection, and looks at chunks, below 1 ms. */
#define SWEEP_TICK_STEPS 128
#define SWEEP_TICK_LOOKS 4096

/** A chunk that is due costs as much as so many looks. */
#define SWEEP_DUE_LOOKS 64

/** What keys() copies under one lock, unless one hash chain is longer. */
#define SWEEP_KEYS 65536u

/** Drop the expired (or all) entries of some hash chains, and count them. */
static apr_status_t sweep_buckets(mw_mem_t *mem, apr_uint32_t from,
                                  apr_time_t now, int all,
                                  apr_uint64_t *dropped)
{
    apr_uint32_t shard = from / mem->buckets_each;
    apr_uint64_t urgency = 0;
    apr_uint32_t i;

    *dropped = 0;
    if (!mw_shard_lock(mem, shard)) {
        return APR_TIMEUP;
    }
    for (i = from; i < from + mem->chunk; i++) {
        apr_uint32_t unit = mem->buckets[i];

        while (unit) {
            mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
            apr_uint32_t next = entry->hash_next;

            if (all || entry->expires <= now) {
                mw_shard_drop(mem, unit);
                ++*dropped;
            }
            else if (urgency < mw_mem_urgency(entry->expires)) {
                urgency = mw_mem_urgency(entry->expires);
            }
            unit = next;
        }
    }
    MW_MEM_STORE(&mem->urgency[from / mem->chunk], urgency);
    mw_shard_unlock(mem, shard);
    return APR_SUCCESS;
}

/** A pass over all chunks that all processes make together. */
typedef struct sweep_t {
    apr_uint32_t *cursor; /**< atomic: the bucket that comes next */
    apr_time_t now;
} sweep_t;

/** What a step of a pass has come to. */
typedef struct sweep_step_t {
    int looks; /**< what it cost, in looks at chunks */
    int left;  /**< 0: that was the end of the pass */
} sweep_step_t;

/** The first chunk before end that may have something that expired, or end. */
static apr_uint32_t chunks_pass(const mw_mem_t *mem, apr_uint32_t chunk,
                                apr_uint32_t end, apr_time_t now)
{
    const apr_uint64_t urgency = mw_mem_urgency(now);

    while (chunk < end && MW_MEM_LOAD(&mem->urgency[chunk]) < urgency) {
        chunk++;
    }
    return chunk;
}

/**
 * Go on to the next chunk that is due, and do it: no further than `looks`
 * chunks, and not beyond the end of the pass. Another process may be ahead:
 * then nothing is done.
 */
static sweep_step_t sweep_step(mw_mem_t *mem, const sweep_t *sweep,
                               apr_uint32_t looks)
{
    apr_uint32_t cursor = MW_MEM_LOAD(sweep->cursor);
    apr_uint32_t chunks = mem->geometry.buckets / mem->chunk;
    apr_uint32_t from = (cursor & (mem->geometry.buckets - 1)) / mem->chunk;
    apr_uint32_t end = looks < chunks - from ? from + looks : chunks;
    apr_uint32_t due = chunks_pass(mem, from, end, sweep->now);
    apr_uint32_t next = due + (due < end);
    sweep_step_t step = { .looks = (int)(next - from), .left = next < chunks };
    apr_uint64_t dropped = 0;

    if (!__atomic_compare_exchange_n(sweep->cursor, &cursor,
                                     cursor + (next - from) * mem->chunk, 0,
                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        step.left = 1;
    }
    else if (due < end) {
        step.looks += SWEEP_DUE_LOOKS;
        sweep_buckets(mem, due * mem->chunk, sweep->now, 0, &dropped);
    }
    if (dropped) {
        mem->services->count(mem->services, CACHEMW_COUNT_EXPIRED, dropped);
    }
    return step;
}

void mw_mem_tick(mw_mem_t *mem, apr_time_t now)
{
    sweep_t sweep = { &mem->header->ticked_to, now };
    apr_uint64_t last = MW_MEM_LOAD(&mem->header->ticked);
    int i;

    if ((apr_uint64_t)now - last < APR_USEC_PER_SEC
        || !__atomic_compare_exchange_n(&mem->header->ticked, &last,
                                        (apr_uint64_t)now, 0, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
        return;
    }
    mw_slots_reclaim(mem);
    for (i = 0; i < SWEEP_TICK_STEPS && mw_collect_step(mem); i++) {
    }
    for (i = 0; i < SWEEP_TICK_LOOKS;) {
        i += sweep_step(mem, &sweep, SWEEP_TICK_LOOKS - i).looks;
    }
}

static int sweep_has_time(const mw_mem_t *mem, const cachemw_call_t *call)
{
    return mem->services->remaining(mem->services, call) != 0;
}

/** The cap was lowered, perhaps by many. */
static void sweep_entries(mw_mem_t *mem, const cachemw_call_t *call)
{
    apr_uint64_t before;

    do {
        before = mw_shard_entries(mem);
    } while (!mw_evict_entries(mem, call->now, 0)
             && mw_shard_entries(mem) < before && sweep_has_time(mem, call));
}

apr_status_t mw_mem_sweep(void *store, const cachemw_call_t *call, int *more)
{
    mw_mem_t *mem = store;
    sweep_t sweep = { &mem->header->swept, call->now };

    mw_slots_reclaim(mem);
    while (mw_collect_step(mem)) {
        if (!sweep_has_time(mem, call)) {
            *more = 1;
            return APR_SUCCESS;
        }
    }
    sweep_entries(mem, call);
    *more = 1;
    while (*more && sweep_has_time(mem, call)) {
        *more = sweep_step(mem, &sweep, mem->geometry.buckets).left;
    }
    return APR_SUCCESS;
}

apr_status_t mw_mem_clear(void *store, const cachemw_call_t *call)
{
    mw_mem_t *mem = store;
    apr_status_t rv = APR_SUCCESS;
    apr_uint64_t dropped;
    apr_uint32_t from;

    for (from = 0; from < mem->geometry.buckets; from += mem->chunk) {
        if (sweep_buckets(mem, from, call->now, 1, &dropped) != APR_SUCCESS) {
            rv = APR_TIMEUP;
        }
    }
    return rv;
}

/** A copy of an entry's name, as keys() hands it out. */
typedef struct name_t {
    cachemw_id_t id;
    apr_int64_t expires;
    apr_uint64_t body_len;
    apr_size_t key_len;
} name_t;

static apr_size_t name_size(apr_size_t key_len)
{
    return sizeof(name_t) + APR_ALIGN_DEFAULT(key_len);
}

/** @return bytes that the names of a hash chain take. Locked */
static apr_size_t chain_size(const mw_mem_t *mem, apr_uint32_t bucket)
{
    apr_uint32_t unit = mem->buckets[bucket];
    apr_size_t size = 0;

    for (; unit; unit = mw_mem_entry(mem, unit)->hash_next) {
        size += name_size(mw_mem_entry(mem, unit)->key_len);
    }
    return size;
}

static char *chain_copy(const mw_mem_t *mem, apr_uint32_t bucket, char *to)
{
    apr_uint32_t unit = mem->buckets[bucket];

    for (; unit; unit = mw_mem_entry(mem, unit)->hash_next) {
        const mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
        mw_place_t place = mw_chain_key(unit);
        name_t *name = (name_t *)to;

        name->id = entry->id;
        name->expires = entry->expires;
        name->body_len = entry->body_len;
        name->key_len = entry->key_len;
        mw_chain_read(mem, &place, to + sizeof(*name), entry->key_len);
        to += name_size(entry->key_len);
    }
    return to;
}

/**
 * Copy the names of as many hash chains as fit, from *bucket on, of one shard.
 * @return bytes copied; with *bucket unmoved: bytes that the first one needs,
 *         or 0: the lock cannot be had
 */
static apr_size_t names_copy(mw_mem_t *mem, apr_uint32_t *bucket, char *buffer,
                             apr_size_t size)
{
    apr_uint32_t shard = *bucket / mem->buckets_each;
    apr_uint32_t end = (shard + 1) * mem->buckets_each;
    apr_uint32_t from = *bucket;
    char *to = buffer;
    apr_size_t need = 0;

    if (!mw_shard_lock(mem, shard)) {
        return 0;
    }
    while (*bucket < end) {
        need = chain_size(mem, *bucket);
        if (need > size - (apr_size_t)(to - buffer)) {
            break;
        }
        to = chain_copy(mem, *bucket, to);
        ++*bucket;
    }
    mw_shard_unlock(mem, shard);
    return *bucket == from ? need : (apr_size_t)(to - buffer);
}

static apr_status_t names_tell(const char *buffer, apr_size_t length,
                               apr_time_t now, cachemw_keys_fn *each,
                               void *baton)
{
    const char *end = buffer + length;
    apr_status_t rv = APR_SUCCESS;

    while (buffer < end && rv == APR_SUCCESS) {
        const name_t *name = (const name_t *)buffer;
        cachemw_key_t key = { buffer + sizeof(*name), name->key_len };
        cachemw_entry_t entry;

        memset(&entry, 0, sizeof(entry));
        entry.id = name->id;
        entry.expires = name->expires;
        entry.body_len = (apr_off_t)name->body_len;
        if (name->expires > now) {
            rv = each(baton, &key, &entry);
        }
        buffer += name_size(name->key_len);
    }
    return rv;
}

apr_status_t mw_mem_keys(void *store, const cachemw_call_t *call,
                         const char *pattern, cachemw_keys_fn *each,
                         void *baton)
{
    mw_mem_t *mem = store;
    apr_size_t size = SWEEP_KEYS;
    char *buffer = malloc(size);
    apr_status_t rv = APR_SUCCESS;
    apr_uint32_t bucket = 0;

    (void)pattern;
    while (buffer && rv == APR_SUCCESS && bucket < mem->geometry.buckets) {
        apr_uint32_t before = bucket;
        apr_size_t length = names_copy(mem, &bucket, buffer, size);

        if (bucket > before) {
            rv = names_tell(buffer, length, call->now, each, baton);
        }
        else if (!length) {
            rv = APR_TIMEUP;
        }
        else {
            free(buffer);
            size = length;
            buffer = malloc(size);
        }
    }
    if (!buffer) {
        rv = APR_ENOMEM;
    }
    free(buffer);
    return rv;
}
