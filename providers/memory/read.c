/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "chain.h"
#include "pin.h"
#include "read.h"
#include "shard.h"
#include "spill.h"

/** Lookups until an entry was copied without being changed meanwhile. */
#define READ_TRIES 3

/** An entry is used often enough at this count. */
#define READ_USES_MAX 3

/** What a lookup found, copied under the lock. */
typedef struct found_t {
    apr_uint32_t unit;
    int is_adjacent; /**< all of it lies in its first run */
    apr_uint64_t serial;
    apr_uint32_t head_run;
    apr_uint32_t head_len;
    apr_uint32_t head_space;
    apr_uint64_t body_len;
    apr_time_t expires;
    cachemw_id_t id;
    mw_mem_claim_t *claim; /**< the body is pinned */
} found_t;

/** Locked. */
static void found_fill(mw_mem_t *mem, apr_uint32_t unit, int want_body,
                       found_t *found)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);

    if (entry->uses < READ_USES_MAX) {
        entry->uses++;
    }
    found->unit = unit;
    found->serial = entry->serial;
    found->head_run = entry->head_run;
    found->head_len = entry->head_len;
    found->head_space = entry->head_space;
    found->body_len = entry->body_len;
    found->expires = entry->expires;
    found->id = entry->id;
    found->is_adjacent =
        !entry->head_run
        && sizeof(*entry) + entry->key_len + entry->head_space + entry->body_len
               <= (apr_uint64_t)entry->run.count << mem->geometry.unit_shift;
    found->claim = NULL;
    if (want_body && entry->body_len > CACHEMW_PIECE_MAX) {
        found->claim = mw_pin_take(mem, unit);
    }
}

static apr_status_t read_look(mw_mem_t *mem, const cachemw_call_t *call,
                              const cachemw_key_t *key, int want_body,
                              found_t *found)
{
    apr_uint64_t hash = mw_mem_hash(mem, key);
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
        found_fill(mem, unit, want_body, found);
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
    return __atomic_load_n(&mw_mem_entry(mem, found->unit)->serial,
                           __ATOMIC_ACQUIRE)
           == found->serial;
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

/** Copy a body in pieces of CACHEMW_PIECE_MAX. */
static apr_status_t read_body(const mw_mem_t *mem, const found_t *found,
                              mw_place_t place, apr_bucket_brigade *body)
{
    apr_uint64_t left = found->body_len;

    while (left) {
        apr_size_t n =
            left < CACHEMW_PIECE_MAX ? (apr_size_t)left : CACHEMW_PIECE_MAX;
        char *copy = apr_bucket_alloc(n, body->bucket_alloc);

        if (!copy) {
            return APR_ENOMEM;
        }
        APR_BRIGADE_INSERT_TAIL(body,
                                apr_bucket_heap_create(copy, n, apr_bucket_free,
                                                       body->bucket_alloc));
        if (!found_copy(mem, found, &place, copy, n)) {
            return APR_EAGAIN;
        }
        left -= n;
    }
    return APR_SUCCESS;
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

/** The usual case: small, and all in one run. */
static apr_status_t read_adjacent(const mw_mem_t *mem,
                                  const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const found_t *found, cachemw_entry_t *entry)
{
    const char *from =
        mw_mem_unit(mem, found->unit) + sizeof(mw_mem_entry_t) + key->len;
    apr_size_t n = entry->body ? (apr_size_t)found->body_len : 0;
    char *head = apr_palloc(call->pool, found->head_len + 1);
    char *copy = NULL;
    int holds;

    if (n) {
        apr_bucket_alloc_t *list = entry->body->bucket_alloc;

        copy = apr_bucket_alloc(n, list);
        if (!copy) {
            return APR_ENOMEM;
        }
        APR_BRIGADE_INSERT_TAIL(
            entry->body,
            apr_bucket_heap_create(copy, n, apr_bucket_free, list));
    }
    MW_CHAIN_UNLOCKED_BEGIN();
    memcpy(head, from, found->head_len);
    if (n) {
        memcpy(copy, from + found->head_space, n);
    }
    holds = found_holds(mem, found);
    MW_CHAIN_UNLOCKED_END();
    head[found->head_len] = '\0';
    entry->head = head;
    entry->head_len = found->head_len;
    return holds ? APR_SUCCESS : APR_EAGAIN;
}

/** @return APR_EAGAIN: the entry changed meanwhile */
static apr_status_t read_found(mw_mem_t *mem, const cachemw_call_t *call,
                               const cachemw_key_t *key, found_t *found,
                               cachemw_entry_t *entry)
{
    mw_place_t place = mw_chain_key(found->unit);
    mw_mem_claim_t *claim = found->claim;
    apr_status_t rv = APR_EAGAIN;

    if (found->is_adjacent && found->body_len <= CACHEMW_PIECE_MAX) {
        return read_adjacent(mem, call, key, found, entry);
    }
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

apr_status_t mw_mem_get(void *store, const cachemw_call_t *call,
                        const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_mem_t *mem = store;
    found_t found;
    int tries;

    for (tries = 0; tries < READ_TRIES; tries++) {
        apr_status_t rv =
            read_look(mem, call, key, entry->body != NULL, &found);

        if (rv == APR_SUCCESS) {
            rv = read_found(mem, call, key, &found, entry);
        }
        if (rv == APR_SUCCESS) {
            entry->id = found.id;
            entry->expires = found.expires;
            entry->body_len = (apr_off_t)found.body_len;
            return APR_SUCCESS;
        }
        if (entry->body) {
            apr_brigade_cleanup(entry->body);
        }
        if (rv != APR_EAGAIN) {
            return rv;
        }
    }
    return APR_NOTFOUND;
}

apr_status_t mw_mem_exists(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key)
{
    return read_look(store, call, key, 0, NULL);
}
