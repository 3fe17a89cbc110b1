/* SPDX-License-Identifier: Apache-2.0 */

#include "chain.h"
#include "evict.h"
#include "shard.h"
#include "providers/common/lock.h"

/**
 * The holder of the lock died somewhere in between: nothing in the shard can
 * be trusted. What is still being sent from here stays, known by its epoch; a
 * collection finds all units again.
 */
static void shard_wipe(mw_mem_t *mem, apr_uint32_t index)
{
    mw_mem_shard_t *shard = &mem->shards[index];
    mw_mem_tally_t *tally = &mem->tallies[index];
    apr_uint32_t *bucket = mem->buckets + index * mem->buckets_each;
    apr_uint32_t i;

    __atomic_add_fetch(&mem->header->epochs[index], 1, __ATOMIC_SEQ_CST);
    for (i = 0; i < mem->buckets_each; i++) {
        MW_MEM_STORE(&bucket[i], 0);
    }
    for (i = 0; i < MW_MEM_QUEUES; i++) {
        shard->queue[i].newest = 0;
        shard->queue[i].oldest = 0;
        MW_MEM_STORE(&tally->units[i], 0);
    }
    MW_MEM_STORE(&tally->bytes, 0);
    MW_MEM_STORE(&tally->pinned, 0);
    MW_MEM_STORE(&tally->leaving, 0);
    MW_MEM_STORE(&tally->entries, 0);
    mw_mem_count_recovery(mem);
    mw_mem_want_collection(mem);
}

int mw_shard_lock(mw_mem_t *mem, apr_uint32_t index)
{
    mw_mem_shard_t *shard = &mem->shards[index];
    int rv = mw_lock(&shard->lock, &mem->stuck_shards[index], MW_LOCK_WAIT);

    if (rv == EOWNERDEAD) {
        shard_wipe(mem, index);
        pthread_mutex_consistent(&shard->lock);
        rv = 0;
    }
    return rv == 0;
}

void mw_shard_unlock(mw_mem_t *mem, apr_uint32_t index)
{
    pthread_mutex_unlock(&mem->shards[index].lock);
}

apr_uint32_t mw_shard_find(const mw_mem_t *mem, apr_uint64_t hash,
                           const cachemw_key_t *key)
{
    apr_uint32_t unit = mem->buckets[mw_mem_bucket_of(mem, hash)];

    while (unit) {
        const mw_mem_entry_t *entry = mw_mem_entry(mem, unit);

        if (entry->hash == hash && entry->key_len == key->len
            && mw_chain_has_key(mem, unit, key)) {
            break;
        }
        unit = entry->hash_next;
    }
    return unit;
}

/** A serial that no entry had before. */
static apr_uint64_t next_serial(mw_mem_t *mem)
{
    apr_uint64_t serial;

    do {
        serial = MW_MEM_ADD(&mem->header->serial, 1);
    } while (!serial);
    return serial;
}

apr_uint64_t mw_shard_entries(const mw_mem_t *mem)
{
    apr_uint64_t entries = 0;
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.shards; i++) {
        entries += __atomic_load_n(&mem->tallies[i].entries, __ATOMIC_SEQ_CST);
    }
    return entries;
}

void mw_shard_sum(const mw_mem_t *mem, mw_mem_tally_t *sum)
{
    mw_mem_tally_t all = { .bytes = 0 };
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.shards; i++) {
        const mw_mem_tally_t *tally = &mem->tallies[i];

        all.units[MW_MEM_SMALL] += MW_MEM_LOAD(&tally->units[MW_MEM_SMALL]);
        all.units[MW_MEM_MAIN] += MW_MEM_LOAD(&tally->units[MW_MEM_MAIN]);
        all.bytes += MW_MEM_LOAD(&tally->bytes);
        all.pinned += MW_MEM_LOAD(&tally->pinned);
        all.leaving += MW_MEM_LOAD(&tally->leaving);
        all.entries += MW_MEM_LOAD(&tally->entries);
    }
    *sum = all;
}

static void queue_push(mw_mem_t *mem, mw_mem_shard_t *shard, int which,
                       apr_uint32_t unit)
{
    mw_mem_queue_t *queue = &shard->queue[which];
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);

    entry->queue = (unsigned char)which;
    entry->newer = 0;
    entry->older = queue->newest;
    if (queue->newest) {
        mw_mem_entry(mem, queue->newest)->newer = unit;
    }
    else {
        queue->oldest = unit;
    }
    queue->newest = unit;
}

static void queue_remove(mw_mem_t *mem, mw_mem_shard_t *shard,
                         mw_mem_entry_t *entry)
{
    mw_mem_queue_t *queue = &shard->queue[entry->queue];

    if (entry->newer) {
        mw_mem_entry(mem, entry->newer)->older = entry->older;
    }
    else {
        queue->newest = entry->older;
    }
    if (entry->older) {
        mw_mem_entry(mem, entry->older)->newer = entry->newer;
    }
    else {
        queue->oldest = entry->newer;
    }
}

static apr_uint64_t payload(const mw_mem_entry_t *entry)
{
    return entry->key_len + entry->head_len + entry->body_len;
}

/** The sweep must not pass by what expires sooner than all others. */
static void urge(mw_mem_t *mem, const mw_mem_entry_t *entry)
{
    apr_uint64_t *chunk =
        &mem->urgency[mw_mem_bucket_of(mem, entry->hash) / mem->chunk];
    apr_uint64_t urgency = mw_mem_urgency(entry->expires);

    if (MW_MEM_LOAD(chunk) < urgency) {
        MW_MEM_STORE(chunk, urgency);
    }
}

static void tally_link(mw_mem_tally_t *tally, const mw_mem_entry_t *entry)
{
    MW_TALLY_ADD(&tally->units[entry->queue], entry->units);
    MW_TALLY_ADD(&tally->bytes, payload(entry));
}

static void tally_unlink(mw_mem_tally_t *tally, const mw_mem_entry_t *entry)
{
    MW_TALLY_ADD(&tally->units[entry->queue], -(apr_uint64_t)entry->units);
    MW_TALLY_ADD(&tally->bytes, -payload(entry));
}

int mw_shard_link(mw_mem_t *mem, apr_uint32_t unit)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
    apr_uint32_t index = mw_mem_shard_of(mem, entry->hash);
    mw_mem_shard_t *shard = &mem->shards[index];
    mw_mem_tally_t *tally = &mem->tallies[index];
    apr_uint32_t *bucket = &mem->buckets[mw_mem_bucket_of(mem, entry->hash)];

    /* Counted before all others are: of two that link the last two entries at
     * once at least one sees the other, so the cap holds without a lock. */
    __atomic_add_fetch(&tally->entries, 1, __ATOMIC_SEQ_CST);
    if (mw_shard_entries(mem) > MW_MEM_LOAD(&mem->header->max_entries)) {
        __atomic_sub_fetch(&tally->entries, 1, __ATOMIC_SEQ_CST);
        return 0;
    }
    entry->epoch = mem->header->epochs[index];
    mw_mem_uses_set(mem, unit, 0);
    entry->pins = 0;
    entry->linked = 1;
    __atomic_store_n(&entry->serial, next_serial(mem), __ATOMIC_RELEASE);
    MW_MEM_STORE(&entry->hash_next, *bucket);
    queue_push(mem, shard,
               mw_evict_was_here(mem, entry->hash) ? MW_MEM_MAIN : MW_MEM_SMALL,
               unit);
    tally_link(tally, entry);
    urge(mem, entry);
    __atomic_store_n(bucket, unit, __ATOMIC_RELEASE);
    return 1;
}

void mw_shard_requeue(mw_mem_t *mem, apr_uint32_t unit, int queue)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
    apr_uint32_t index = mw_mem_shard_of(mem, entry->hash);

    tally_unlink(&mem->tallies[index], entry);
    queue_remove(mem, &mem->shards[index], entry);
    queue_push(mem, &mem->shards[index], queue, unit);
    tally_link(&mem->tallies[index], entry);
}

void mw_shard_amend(mw_mem_t *mem, apr_uint32_t unit, apr_time_t expires,
                    apr_uint32_t head_len, const mw_chain_t *head)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
    mw_mem_tally_t *tally = &mem->tallies[mw_mem_shard_of(mem, entry->hash)];
    apr_uint32_t old = entry->head_run;

    tally_unlink(tally, entry);
    /* Nothing of the new state under the old serial, nor the other way round:
     * 0 is seen before what follows, and the new one after it. */
    MW_MEM_STORE(&entry->serial, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    entry->expires = expires;
    entry->head_len = head_len;
    if (head) {
        entry->units += head->units - mw_blocks_count(mem, old);
        MW_MEM_STORE(&entry->head_run, head->first);
    }
    __atomic_store_n(&entry->serial, next_serial(mem), __ATOMIC_RELEASE);
    tally_link(tally, entry);
    urge(mem, entry);
    if (head && old) {
        mw_blocks_give(mem, old);
    }
}

void mw_shard_give(mw_mem_t *mem, apr_uint32_t unit)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);

    if (entry->head_run) {
        mw_blocks_give(mem, entry->head_run);
    }
    mw_blocks_give(mem, unit);
}

apr_uint32_t mw_shard_drop(mw_mem_t *mem, apr_uint32_t unit)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
    apr_uint32_t index = mw_mem_shard_of(mem, entry->hash);
    mw_mem_tally_t *tally = &mem->tallies[index];
    apr_uint32_t *link = &mem->buckets[mw_mem_bucket_of(mem, entry->hash)];
    apr_uint32_t units = entry->units;

    MW_MEM_STORE(&entry->serial, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    while (*link != unit) {
        link = &mw_mem_entry(mem, *link)->hash_next;
    }
    MW_MEM_STORE(link, entry->hash_next);
    queue_remove(mem, &mem->shards[index], entry);
    tally_unlink(tally, entry);
    __atomic_sub_fetch(&tally->entries, 1, __ATOMIC_SEQ_CST);
    entry->linked = 0;
    if (entry->pins) {
        MW_TALLY_ADD(&tally->leaving, units);
        return 0;
    }
    mw_shard_give(mem, unit);
    return units;
}
