/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "blocks.h"
#include "chain.h"
#include "evict.h"
#include "set.h"
#include "shard.h"
#include "slots.h"
#include "sweep.h"

/**
 * Space is taken in advance for so much of a body at most. A body that fits is
 * one run, unless the space is in pieces, and one bucket: httpd writes buckets
 * that are not its own one by one when they are large.
 */
#define SET_AHEAD (2 * 1024 * 1024)

/** Attempts to find room, or a place in the index, before giving up. */
#define SET_TRIES 8

/** Free units that are kept, as a part of all, so that runs are long. */
#define SET_SLACK 128

/** What becomes free at most until there is a run for all of a body. */
#define SET_LOOSE 32

/** A set that has more than this part of the space is a large one. */
#define SET_LARGE 64

/** What a set takes in advance at most, as a part of what all may yet take. */
#define SET_AHEAD_PART 8

/** A chain that is being filled. */
typedef struct filling_t {
    mw_chain_t chain;
    mw_place_t end;    /**< behind the last byte */
    apr_uint64_t room; /**< bytes that fit behind it */
} filling_t;

/** A set in progress. */
typedef struct set_t {
    filling_t filling;
    cachemw_key_t key;
    apr_uint64_t hash;
    cachemw_id_t id;
    apr_time_t expires;
    apr_uint32_t head_len;
    apr_off_t announced; /**< -1: unknown */
    apr_off_t written;
} set_t;

apr_off_t mw_mem_set_limit(const mw_mem_t *mem)
{
    return (apr_off_t)(mem->geometry.size / 4);
}

/** @param header bytes at the start of the first run that are no stream */
static apr_status_t filling_begin(mw_mem_t *mem, filling_t *filling,
                                  apr_uint64_t hash)
{
    memset(filling, 0, sizeof(*filling));
    filling->chain.area = (apr_uint32_t)(hash >> 8) % mem->geometry.areas;
    filling->chain.claim = mw_claim_take(mem, mem->sets, mem->geometry.sets);
    return filling->chain.claim ? APR_SUCCESS : APR_ENOSPC;
}

/** What is left of a limit. */
static apr_uint64_t left_of(apr_uint64_t limit, apr_uint64_t held)
{
    return held < limit ? limit - held : 0;
}

/**
 * How many units a set may take that grows by so many, at least if it is no
 * more than SET_AHEAD_PART times these. What is being stored cannot be evicted
 * and stays as long as a client takes to read it: all sets together may hold
 * half of the space, large ones as much as the largest body and a little more,
 * so that a few slow clients push out neither the entries nor everybody's small
 * sets. An eighth is left to entries that nobody is sending.
 */
static apr_uint64_t filling_allowance(const mw_mem_t *mem,
                                      const filling_t *filling,
                                      apr_uint64_t units)
{
    apr_uint64_t total = mw_blocks_total(mem);
    apr_uint64_t limit = total / 2;
    apr_uint64_t free = mw_blocks_free(mem);
    mw_mem_tally_t sum;
    apr_uint64_t pinned;
    apr_uint64_t held;
    apr_uint64_t left;

    if (filling->chain.units + units > total / SET_LARGE) {
        limit =
            ((apr_uint64_t)mw_mem_set_limit(mem) >> mem->geometry.unit_shift)
            + total / 16;
    }
    /* The sum costs as much as the rest of a small set. */
    if (free + limit >= total + units * SET_AHEAD_PART) {
        return units * SET_AHEAD_PART;
    }
    mw_shard_sum(mem, &sum);
    pinned = sum.pinned >> mem->geometry.unit_shift;
    held = left_of(total, free + sum.units[MW_MEM_SMALL]
                              + sum.units[MW_MEM_MAIN] + sum.leaving);
    left = left_of(total - total / 8, held + pinned);
    limit = left_of(limit, held);
    return limit < left ? limit : left;
}

/**
 * Take one run for all, or, when there is none although a good part is free,
 * one of `least` units or more. For that at most as much is evicted as is
 * wanted.
 */
static apr_uint32_t filling_take(mw_mem_t *mem, filling_t *filling,
                                 apr_time_t now, apr_uint32_t least,
                                 apr_uint32_t want)
{
    apr_uint64_t free = mw_blocks_free(mem);
    apr_uint64_t enough = want + mw_blocks_total(mem) / SET_LOOSE;
    apr_uint32_t taken;

    if (want < least) {
        want = least;
    }
    if (enough > free + want) {
        enough = free + want;
    }
    do {
        taken = mw_blocks_take_whole(mem, &filling->chain, want);
        free = mw_blocks_free(mem);
    } while (!taken && free < enough && mw_evict_units(mem, now, free + 1));
    return taken ? taken : mw_blocks_take(mem, &filling->chain, least, want);
}

static apr_uint64_t units_of(const mw_mem_t *mem, apr_uint64_t bytes)
{
    return (bytes + mem->unit_size - 1) >> mem->geometry.unit_shift;
}

/**
 * Make room for so many more bytes, and in advance for up to `ahead` behind
 * them: a part of what may be taken, so that slow sets never use that up by
 * what they do not need yet.
 */
static apr_status_t filling_reserve(mw_mem_t *mem, filling_t *filling,
                                    apr_time_t now, apr_uint64_t bytes,
                                    apr_uint64_t ahead)
{
    apr_uint64_t slack = mw_blocks_total(mem) / SET_SLACK;
    apr_uint32_t record = (apr_uint32_t)units_of(mem, sizeof(mw_mem_entry_t));
    int tries = 0;

    while (filling->room < bytes) {
        apr_uint64_t lacking = bytes - filling->room + sizeof(mw_mem_run_t);
        apr_uint64_t units = units_of(mem, lacking);
        apr_uint64_t more = units_of(mem, lacking + ahead) - units;
        apr_uint64_t allowance = filling_allowance(mem, filling, units + more);
        apr_uint32_t least = filling->chain.first ? 1 : record;
        apr_uint32_t taken;
        int fits;

        if (allowance < units) {
            return APR_ENOSPC;
        }
        if (more > allowance / SET_AHEAD_PART) {
            more = allowance / SET_AHEAD_PART;
        }
        units += more;
        fits = mw_evict_units(mem, now, units + slack);
        taken = filling_take(mem, filling, now, least, (apr_uint32_t)units);
        if (taken) {
            filling->room += ((apr_uint64_t)taken << mem->geometry.unit_shift)
                             - sizeof(mw_mem_run_t);
        }
        else if (!fits || ++tries == SET_TRIES) {
            return APR_ENOSPC;
        }
    }
    return APR_SUCCESS;
}

/** Write behind the end; the room was reserved. */
static apr_status_t filling_write(mw_mem_t *mem, filling_t *filling,
                                  const void *data, apr_size_t length)
{
    if (!mw_chain_write(mem, &filling->end, data, length)) {
        return APR_EGENERAL;
    }
    filling->room -= length;
    return APR_SUCCESS;
}

static void filling_drop(mw_mem_t *mem, filling_t *filling)
{
    if (filling->chain.first) {
        mw_claim_turn(filling->chain.claim);
        mw_blocks_give(mem, filling->chain.first);
    }
    mw_claim_end(filling->chain.claim);
}

/** Give back what was taken in advance and not used. */
static void filling_trim(mw_mem_t *mem, filling_t *filling)
{
    mw_mem_run_t *run = mw_mem_run(mem, filling->end.run);
    apr_uint32_t count = run->count;

    if (run->next) {
        filling->chain.units -= mw_blocks_count(mem, run->next);
        filling->chain.last = filling->end.run;
        mw_claim_turn(filling->chain.claim);
        mw_blocks_give(mem, run->next);
        __atomic_store_n(&run->next, 0, __ATOMIC_RELEASE);
        mw_claim_turn(filling->chain.claim);
    }
    mw_blocks_trim(mem, filling->end.run,
                   (filling->end.at + mem->unit_size - 1)
                       >> mem->geometry.unit_shift);
    filling->chain.units -= count - run->count;
}

/** Bytes to make room for behind the next; a body of unknown length doubles. */
static apr_uint64_t set_ahead(const set_t *set, apr_size_t next)
{
    apr_uint64_t all =
        (apr_uint64_t)(set->announced >= 0 ? set->announced - set->written
                                           : set->written);
    apr_uint64_t ahead = left_of(all, next);

    return ahead < SET_AHEAD ? ahead : SET_AHEAD;
}

static apr_status_t set_start(mw_mem_t *mem, const cachemw_call_t *call,
                              set_t *set, const cachemw_entry_t *entry)
{
    filling_t *filling = &set->filling;
    apr_uint64_t size = sizeof(mw_mem_entry_t) - sizeof(mw_mem_run_t)
                        + set->key.len + entry->head_len;
    apr_status_t rv =
        filling_reserve(mem, filling, call->now, size, set_ahead(set, 0));

    if (rv == APR_SUCCESS) {
        mw_mem_entry_t *record = mw_mem_entry(mem, filling->chain.first);

        __atomic_store_n(&record->serial, 0, __ATOMIC_RELEASE);
        filling->room -= sizeof(*record) - sizeof(record->run);
        filling->end = mw_chain_key(filling->chain.first);
        rv = filling_write(mem, filling, set->key.data, set->key.len);
    }
    if (rv == APR_SUCCESS) {
        rv = filling_write(mem, filling, entry->head, entry->head_len);
    }
    return rv;
}

apr_status_t mw_mem_set_begin(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry, void **out)
{
    mw_mem_t *mem = store;
    set_t *set;
    apr_status_t rv;

    if (entry->body_len > mw_mem_set_limit(mem) || key->len > CACHEMW_KEY_MAX
        || entry->head_len > CACHEMW_HEAD_MAX) {
        return APR_ENOSPC;
    }
    mw_mem_tick(mem, call->now);
    set = apr_pcalloc(call->pool, sizeof(*set));
    set->key.data = apr_pmemdup(call->pool, key->data, key->len);
    set->key.len = key->len;
    set->hash = mw_mem_hash(mem, key);
    set->id = entry->id;
    set->expires = entry->expires;
    set->head_len = (apr_uint32_t)entry->head_len;
    set->announced = entry->body_len;
    rv = filling_begin(mem, &set->filling, set->hash);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = set_start(mem, call, set, entry);
    if (rv != APR_SUCCESS) {
        filling_drop(mem, &set->filling);
        return rv;
    }
    *out = set;
    return APR_SUCCESS;
}

apr_status_t mw_mem_set_write(void *store, const cachemw_call_t *call,
                              void *data, const char *bytes, apr_size_t length)
{
    mw_mem_t *mem = store;
    set_t *set = data;
    apr_off_t limit = mw_mem_set_limit(mem);

    if (set->announced >= 0 && set->announced < limit) {
        limit = set->announced;
    }
    if (length > (apr_uint64_t)(limit - set->written)) {
        return APR_ENOSPC;
    }
    if (set->filling.room < length) {
        apr_status_t rv = filling_reserve(mem, &set->filling, call->now, length,
                                          set_ahead(set, length));

        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    set->written += (apr_off_t)length;
    return filling_write(mem, &set->filling, bytes, length);
}

static void set_record(mw_mem_t *mem, const set_t *set)
{
    mw_mem_entry_t *record = mw_mem_entry(mem, set->filling.chain.first);

    record->hash = set->hash;
    record->id = set->id;
    record->expires = set->expires;
    record->body_len = (apr_uint64_t)set->written;
    MW_MEM_STORE(&record->head_run, 0);
    record->head_len = set->head_len;
    record->head_space = set->head_len;
    record->units = set->filling.chain.units;
    record->key_len = (apr_uint16_t)set->key.len;
}

/** Replace what the key has. @return APR_ENOSPC: too many entries */
static apr_status_t set_publish(mw_mem_t *mem, set_t *set)
{
    apr_uint32_t index = mw_mem_shard_of(mem, set->hash);
    apr_uint32_t old;
    int linked;

    if (!mw_shard_lock(mem, index)) {
        return APR_TIMEUP;
    }
    old = mw_shard_find(mem, set->hash, &set->key);
    if (old) {
        mw_shard_drop(mem, old);
    }
    linked = mw_shard_link(mem, set->filling.chain.first);
    mw_shard_unlock(mem, index);
    return linked ? APR_SUCCESS : APR_ENOSPC;
}

apr_status_t mw_mem_set_commit(void *store, const cachemw_call_t *call,
                               void *data)
{
    mw_mem_t *mem = store;
    set_t *set = data;
    apr_status_t rv = APR_ENOSPC;
    int tries;

    if (set->announced >= 0 && set->announced != set->written) {
        mw_mem_set_abort(store, set);
        return APR_EGENERAL;
    }
    filling_trim(mem, &set->filling);
    set_record(mem, set);
    for (tries = 0; tries < SET_TRIES; tries++) {
        rv = set_publish(mem, set);
        if (rv != APR_ENOSPC || !mw_evict_entries(mem, call->now, 1)) {
            break;
        }
    }
    if (rv == APR_SUCCESS) {
        mw_claim_end(set->filling.chain.claim);
    }
    else {
        mw_mem_set_abort(store, set);
    }
    return rv;
}

void mw_mem_set_abort(void *store, void *data)
{
    set_t *set = data;

    filling_drop(store, &set->filling);
}

/** Write the new head over the old one. Locked. @return 0: it does not fit */
static int head_overwrite(mw_mem_t *mem, apr_uint32_t unit,
                          const cachemw_entry_t *entry)
{
    mw_mem_entry_t *record = mw_mem_entry(mem, unit);
    mw_place_t place = mw_chain_key(unit);

    if (record->head_run || entry->head_len > record->head_space) {
        return 0;
    }
    if (!mw_chain_skip(mem, &place, record->key_len)) {
        return 0;
    }
    __atomic_store_n(&record->serial, 0, __ATOMIC_RELAXED);
    /* The store of the serial, and then those of the head, for all to see. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!mw_chain_write(mem, &place, entry->head, entry->head_len)) {
        mw_shard_drop(mem, unit);
        return 0;
    }
    mw_shard_amend(mem, unit, entry->expires, (apr_uint32_t)entry->head_len,
                   NULL);
    return 1;
}

/**
 * @param chain where the new head is; NULL: only write over the old one
 * @return APR_NOTFOUND: not this entry; APR_INCOMPLETE: it needs a chain
 */
static apr_status_t head_replace(mw_mem_t *mem, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_id_t *id,
                                 const cachemw_entry_t *entry,
                                 const mw_chain_t *chain)
{
    apr_uint64_t hash = mw_mem_hash(mem, key);
    apr_uint32_t index = mw_mem_shard_of(mem, hash);
    apr_status_t rv = APR_SUCCESS;
    apr_uint32_t unit;

    if (!mw_shard_lock(mem, index)) {
        return APR_TIMEUP;
    }
    unit = mw_shard_find(mem, hash, key);
    if (!unit || mw_mem_entry(mem, unit)->expires <= call->now
        || memcmp(&mw_mem_entry(mem, unit)->id, id, sizeof(*id))) {
        rv = APR_NOTFOUND;
    }
    else if (chain) {
        mw_shard_amend(mem, unit, entry->expires, (apr_uint32_t)entry->head_len,
                       chain);
    }
    else if (!head_overwrite(mem, unit, entry)) {
        rv = APR_INCOMPLETE;
    }
    mw_shard_unlock(mem, index);
    return rv;
}

apr_status_t mw_mem_set_head(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry)
{
    mw_mem_t *mem = store;
    filling_t filling;
    apr_status_t rv = head_replace(mem, call, key, id, entry, NULL);

    if (rv != APR_INCOMPLETE) {
        return rv;
    }
    if (entry->head_len > CACHEMW_HEAD_MAX) {
        return APR_ENOSPC;
    }
    rv = filling_begin(mem, &filling, mw_mem_hash(mem, key));
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = filling_reserve(mem, &filling, call->now, entry->head_len, 0);
    if (rv == APR_SUCCESS) {
        filling.end = mw_chain_start(filling.chain.first);
        rv = filling_write(mem, &filling, entry->head, entry->head_len);
    }
    if (rv == APR_SUCCESS) {
        rv = head_replace(mem, call, key, id, entry, &filling.chain);
    }
    if (rv == APR_SUCCESS) {
        mw_claim_end(filling.chain.claim);
    }
    else {
        filling_drop(mem, &filling);
    }
    return rv;
}
