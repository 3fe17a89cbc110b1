/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "chain.h"
#include "pin.h"
#include "providers/common/copied.h"
#include "read.h"
#include "shard.h"
#include "spill.h"

/** Lookups until an entry was copied without being changed meanwhile. */
#define READ_TRIES 3

/** What a lookup found: a copy of what counts in the record. */
typedef struct found_t {
    apr_uint64_t serial;
    apr_uint64_t body_len;
    apr_time_t expires;
    cachemw_id_t id;
    apr_uint32_t unit;
    apr_uint32_t shard;
    apr_uint32_t epoch; /**< of the shard */
    apr_uint32_t head_run;
    apr_uint32_t head_len;
    apr_uint32_t head_space;
    mw_mem_claim_t *claim; /**< the body is pinned */
} found_t;

static void found_fill(const mw_mem_t *mem, apr_uint32_t unit,
                       apr_uint32_t shard, found_t *found)
{
    const mw_mem_entry_t *entry = mw_mem_entry(mem, unit);

    found->serial = entry->serial;
    found->unit = unit;
    found->shard = shard;
    found->epoch = entry->epoch;
    found->head_run = entry->head_run;
    found->head_len = entry->head_len;
    found->head_space = entry->head_space;
    found->body_len = entry->body_len;
    found->expires = entry->expires;
    found->id = entry->id;
    found->claim = NULL;
}

/** A hit writes no more than this, and often not even this. */
static APR_INLINE void count_use(const mw_mem_t *mem, apr_uint32_t unit)
{
    unsigned int uses = mw_mem_uses(mem, unit);

    if (uses < MW_MEM_USES_MAX) {
        mw_mem_uses_set(mem, unit, uses + 1);
    }
}

/** Count a use, and pin what is to be sent from here. Locked. */
static void found_use(mw_mem_t *mem, int want_body, found_t *found)
{
    count_use(mem, found->unit);
    if (want_body && found->body_len > CACHEMW_PIECE_MAX) {
        found->claim = mw_pin_take(mem, found->unit);
    }
}

static apr_status_t read_look(mw_mem_t *mem, const cachemw_call_t *call,
                              const cachemw_key_t *key, apr_uint64_t hash,
                              int want_body, found_t *found)
{
    apr_uint32_t shard = mw_mem_shard_of(mem, hash);
    apr_status_t rv = APR_SUCCESS;
    int expired = 0;
    apr_uint32_t unit;

    if (!mw_shard_lock(mem, shard)) {
        return APR_TIMEUP;
    }
    unit = mw_shard_find(mem, hash, key);
    if (!unit) {
        rv = APR_NOTFOUND;
    }
    else if (mw_mem_entry(mem, unit)->expires <= call->now) {
        mw_shard_drop(mem, unit);
        expired = 1;
        rv = APR_NOTFOUND;
    }
    else if (found) {
        found_fill(mem, unit, shard, found);
        found_use(mem, want_body, found);
    }
    mw_shard_unlock(mem, shard);
    if (expired) {
        mem->services->count(mem->services, CACHEMW_COUNT_EXPIRED, 1);
    }
    return rv;
}

/** Whether what was copied since the lookup is what was found. */
static int found_holds(const mw_mem_t *mem, const found_t *found)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return MW_MEM_LOAD(&mw_mem_entry(mem, found->unit)->serial) == found->serial
           && MW_MEM_LOAD(&mem->header->epochs[found->shard]) == found->epoch;
}

/** Copy a piece of what was found. @return 0: it has changed */
static int found_copy(const mw_mem_t *mem, const found_t *found,
                      mw_place_t *place, char *to, apr_size_t length)
{
    int holds;

    MW_CHAIN_UNLOCKED_BEGIN();
    holds = mw_chain_read(mem, place, to, length) && found_holds(mem, found);
    MW_CHAIN_UNLOCKED_END();
    return holds;
}

static int found_skip(const mw_mem_t *mem, mw_place_t *place, apr_size_t length)
{
    int done;

    MW_CHAIN_UNLOCKED_BEGIN();
    done = mw_chain_skip(mem, place, length);
    MW_CHAIN_UNLOCKED_END();
    return done;
}

static apr_status_t read_head(const mw_mem_t *mem, const cachemw_call_t *call,
                              const found_t *found, mw_place_t place,
                              cachemw_entry_t *entry)
{
    char *head = apr_palloc(call->pool, found->head_len + 1);

    if (found->head_run) {
        place = mw_chain_start(found->head_run);
    }
    if (!found_copy(mem, found, &place, head, found->head_len)) {
        return APR_EAGAIN;
    }
    head[found->head_len] = '\0';
    entry->head = head;
    entry->head_len = found->head_len;
    return APR_SUCCESS;
}

/** Copy a small body that is in several runs. */
static apr_status_t read_body(const mw_mem_t *mem, const found_t *found,
                              mw_place_t place, apr_bucket_brigade *body)
{
    apr_size_t n = (apr_size_t)found->body_len;
    char *copy;

    if (!n) {
        return APR_SUCCESS;
    }
    copy = mw_copied_append(body, n);
    if (!copy) {
        return APR_ENOMEM;
    }
    return found_copy(mem, found, &place, copy, n) ? APR_SUCCESS : APR_EAGAIN;
}

/**
 * Copy a large body into a file.
 * @return APR_NOTFOUND: there are too many such copies: as good as a miss
 */
static apr_status_t read_spill(mw_mem_t *mem, const cachemw_call_t *call,
                               const found_t *found, mw_place_t place,
                               apr_bucket_brigade *body)
{
    char *copy = apr_palloc(call->pool, CACHEMW_PIECE_MAX);
    apr_uint64_t left = found->body_len;
    mw_spill_t *spill;
    apr_status_t rv = mw_spill_make(mem, found->body_len, &spill);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    while (left && rv == APR_SUCCESS) {
        apr_size_t n =
            left < CACHEMW_PIECE_MAX ? (apr_size_t)left : CACHEMW_PIECE_MAX;

        if (found_copy(mem, found, &place, copy, n)) {
            rv = mw_spill_write(spill, copy, n);
        }
        else {
            rv = APR_EAGAIN;
        }
        left -= n;
    }
    if (rv != APR_SUCCESS) {
        mw_spill_drop(spill);
        return rv;
    }
    mw_spill_append(spill, body);
    return APR_SUCCESS;
}

/** @return APR_EAGAIN: the entry changed meanwhile */
static apr_status_t read_found(mw_mem_t *mem, const cachemw_call_t *call,
                               const cachemw_key_t *key, found_t *found,
                               cachemw_entry_t *entry)
{
    mw_place_t place = mw_chain_key(found->unit);
    mw_mem_claim_t *claim = found->claim;
    apr_status_t rv = APR_EAGAIN;

    if (found_skip(mem, &place, key->len)) {
        rv = read_head(mem, call, found, place, entry);
    }
    if (rv == APR_SUCCESS && entry->body) {
        if (!found_skip(mem, &place, found->head_space)) {
            rv = APR_EAGAIN;
        }
        else if (claim) {
            found->claim = NULL;
            return mw_pin_buckets(mem, claim, place, found->body_len,
                                  entry->body);
        }
        else if (found->body_len > CACHEMW_PIECE_MAX) {
            rv = read_spill(mem, call, found, place, entry->body);
        }
        else {
            rv = read_body(mem, found, place, entry->body);
        }
    }
    if (claim) {
        mw_pin_release(mem, claim);
    }
    return rv;
}

static void found_tell(const found_t *found, cachemw_entry_t *entry)
{
    entry->id = found->id;
    entry->expires = found->expires;
    entry->body_len = (apr_off_t)found->body_len;
}

/* Apart, so that who needs no lock saves no registers for it. */
static apr_status_t __attribute__((noinline))
read_locked(mw_mem_t *mem, const cachemw_call_t *call, const cachemw_key_t *key,
            apr_uint64_t hash, cachemw_entry_t *entry)
{
    apr_status_t rv = APR_EAGAIN;
    found_t found;
    int tries;

    for (tries = 0; tries < READ_TRIES && rv == APR_EAGAIN; tries++) {
        if (entry->body) {
            apr_brigade_cleanup(entry->body);
        }
        rv = read_look(mem, call, key, hash, entry->body != NULL, &found);
        if (rv == APR_SUCCESS) {
            rv = read_found(mem, call, key, &found, entry);
            found_tell(&found, entry);
        }
    }
    if (rv != APR_SUCCESS && entry->body) {
        apr_brigade_cleanup(entry->body);
    }
    return rv == APR_EAGAIN ? APR_NOTFOUND : rv;
}

/* --- without a lock: what is small, and all in one run -------------------- */

/** Longer hash chains are not looked through without the lock. */
#define PEEK_STEPS 16

/**
 * Find what may be the entry, by the hash alone.
 * @return 0: nothing found, which means nothing
 */
static APR_INLINE apr_uint32_t read_peek(const mw_mem_t *mem, apr_uint64_t hash)
{
    /* A record may take two units. */
    apr_uint32_t end = mem->geometry.units - 1;
    apr_uint32_t unit = __atomic_load_n(
        &mem->buckets[mw_mem_bucket_of(mem, hash)], __ATOMIC_ACQUIRE);
    int steps;

    for (steps = 0; unit && unit < end && steps < PEEK_STEPS; steps++) {
        const mw_mem_entry_t *entry = mw_mem_entry(mem, unit);

        if (MW_MEM_LOAD(&entry->hash) == hash) {
            return unit;
        }
        unit = __atomic_load_n(&entry->hash_next, __ATOMIC_ACQUIRE);
    }
    return 0;
}

/** Whether a number of bytes behind a record lie in its first run. */
static APR_INLINE int record_has(const mw_mem_t *mem,
                                 const mw_mem_entry_t *record,
                                 apr_uint32_t unit, apr_uint64_t bytes)
{
    apr_uint32_t count = MW_MEM_LOAD(&record->run.count);

    return count <= mem->geometry.units - unit
           && sizeof(*record) + bytes <= (apr_uint64_t)count
                                             << mem->geometry.unit_shift;
}

/**
 * Copy an entry if it is small and in one run. All that is read may change, or
 * never have been a record: nothing is trusted, and it was the entry if serial
 * and epoch say so in the end.
 * @return 0: it was not
 */
static APR_INLINE int read_record(const mw_mem_t *mem,
                                  const cachemw_call_t *call,
                                  const cachemw_key_t *key, apr_uint64_t hash,
                                  apr_uint32_t unit, cachemw_entry_t *entry)
{
    const mw_mem_entry_t *record = mw_mem_entry(mem, unit);
    const apr_uint64_t serial =
        __atomic_load_n(&record->serial, __ATOMIC_ACQUIRE);
    /* read once: what was checked is what is used */
    const apr_size_t head_len = MW_MEM_LOAD(&record->head_len);
    const apr_size_t head_space = MW_MEM_LOAD(&record->head_space);
    const apr_size_t body_len = (apr_size_t)MW_MEM_LOAD(&record->body_len);
    const apr_size_t wanted = entry->body ? body_len : 0;
    const char *from = (const char *)(record + 1);
    apr_uint32_t epoch;
    char *copy = NULL;
    char *head;

    entry->id = record->id;
    entry->expires = record->expires;
    entry->body_len = (apr_off_t)body_len;
    if (!serial || MW_MEM_LOAD(&record->head_run) || entry->expires <= call->now
        || wanted > CACHEMW_PIECE_MAX || head_len > CACHEMW_HEAD_MAX
        || head_len > head_space
        || !record_has(mem, record, unit, key->len + head_space + wanted)
        || record->key_len != key->len || memcmp(from, key->data, key->len)) {
        return 0;
    }
    from += key->len;
    if (wanted) {
        copy = mw_copied_append(entry->body, wanted);
        if (!copy) {
            return 0;
        }
        memcpy(copy, from + head_space, wanted);
    }
    head = apr_palloc(call->pool, head_len + 1);
    memcpy(head, from, head_len);
    head[head_len] = '\0';
    entry->head = head;
    entry->head_len = head_len;
    epoch = record->epoch;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return MW_MEM_LOAD(&record->serial) == serial
           && MW_MEM_LOAD(&mem->header->epochs[mw_mem_shard_of(mem, hash)])
                  == epoch;
}

apr_status_t mw_mem_get(void *store, const cachemw_call_t *call,
                        const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_mem_t *mem = store;
    apr_uint64_t hash = mw_mem_hash(mem, key);
    apr_uint32_t unit;
    int done;

    MW_CHAIN_UNLOCKED_BEGIN();
    unit = read_peek(mem, hash);
    done = unit && read_record(mem, call, key, hash, unit, entry);
    MW_CHAIN_UNLOCKED_END();
    if (!done) {
        return read_locked(mem, call, key, hash, entry);
    }
    count_use(mem, unit);
    return APR_SUCCESS;
}

apr_status_t mw_mem_exists(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key)
{
    return read_look(store, call, key, mw_mem_hash(store, key), 0, NULL);
}
