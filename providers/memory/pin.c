/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>

#include "pin.h"
#include "providers/common/copied.h"
#include "shard.h"
#include "slots.h"

/** Bodies being sent may have half of the segment; the rest turns over. */
#define PIN_PART 2

/** Shorter runs are not worth a bucket, and an element of writev, each. */
#define PIN_RUN_MIN 4096u

/** A pin shared by buckets that different threads may destroy. */
typedef struct pin_t {
    mw_mem_t *mem;
    mw_mem_claim_t *claim;
    apr_uint32_t buckets; /**< atomic */
} pin_t;

/** What buckets that were split or copied from one share. */
typedef struct pinned_t {
    apr_bucket_refcount refcount;
    const char *base;
    pin_t *pin;
} pinned_t;

static apr_uint64_t pinned_bytes(const mw_mem_t *mem)
{
    apr_uint64_t bytes = 0;
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.shards; i++) {
        bytes += MW_MEM_LOAD(&mem->tallies[i].pinned);
    }
    return bytes;
}

mw_mem_claim_t *mw_pin_take(mw_mem_t *mem, apr_uint32_t unit)
{
    mw_mem_entry_t *entry = mw_mem_entry(mem, unit);
    mw_mem_tally_t *tally = &mem->tallies[mw_mem_shard_of(mem, entry->hash)];
    mw_mem_claim_t *claim;

    if (entry->pins == 0xffff
        || (!entry->pins
            && pinned_bytes(mem) + entry->body_len
                   > mem->geometry.size / PIN_PART)) {
        return NULL;
    }
    claim = mw_claim_take(mem, mem->pins, mem->geometry.pins);
    if (!claim) {
        return NULL;
    }
    if (!entry->pins++) {
        MW_TALLY_ADD(&tally->pinned, entry->body_len);
    }
    __atomic_store_n(&claim->first, unit, __ATOMIC_RELEASE);
    return claim;
}

void mw_pin_release(mw_mem_t *mem, mw_mem_claim_t *claim)
{
    apr_uint32_t unit = __atomic_load_n(&claim->first, __ATOMIC_ACQUIRE);
    mw_mem_entry_t *entry;
    apr_uint32_t index;

    if (!unit) {
        mw_claim_end(claim);
        return;
    }
    entry = mw_mem_entry(mem, unit);
    index = mw_mem_shard_of(mem, entry->hash);
    if (!mw_shard_lock(mem, index)) {
        mw_claim_orphan(mem, claim);
        return;
    }
    if (entry->epoch != mem->header->epochs[index]) {
        mw_claim_end(claim);
        mw_mem_want_collection(mem);
    }
    else if (--entry->pins) {
        mw_claim_end(claim);
    }
    else {
        MW_TALLY_ADD(&mem->tallies[index].pinned, -entry->body_len);
        mw_claim_end(claim);
        if (!entry->linked) {
            MW_TALLY_ADD(&mem->tallies[index].leaving,
                         -(apr_uint64_t)entry->units);
            mw_shard_give(mem, unit);
        }
    }
    mw_shard_unlock(mem, index);
}

static void pin_leave(pin_t *pin)
{
    if (!__atomic_sub_fetch(&pin->buckets, 1, __ATOMIC_ACQ_REL)) {
        mw_pin_release(pin->mem, pin->claim);
        free(pin);
    }
}

static apr_status_t bucket_read(apr_bucket *e, const char **data,
                                apr_size_t *length, apr_read_type_e block)
{
    pinned_t *pinned = e->data;

    (void)block;
    *data = pinned->base + e->start;
    *length = e->length;
    return APR_SUCCESS;
}

static void bucket_destroy(void *data)
{
    pinned_t *pinned = data;

    if (apr_bucket_shared_destroy(pinned)) {
        pin_leave(pinned->pin);
        apr_bucket_free(pinned);
    }
}

static const apr_bucket_type_t bucket_type_pinned = {
    "CACHEMW_PINNED",
    5,
    APR_BUCKET_DATA,
    bucket_destroy,
    bucket_read,
    apr_bucket_setaside_noop,
    apr_bucket_shared_split,
    apr_bucket_shared_copy,
};

static apr_status_t append_pinned(pin_t *pin, const char *base,
                                  apr_size_t length, apr_bucket_brigade *body)
{
    apr_bucket_alloc_t *list = body->bucket_alloc;
    apr_bucket *e = apr_bucket_alloc(sizeof(*e), list);
    pinned_t *pinned = apr_bucket_alloc(sizeof(*pinned), list);

    if (!e || !pinned) {
        if (e) {
            apr_bucket_free(e);
        }
        return APR_ENOMEM;
    }
    APR_BUCKET_INIT(e);
    e->free = apr_bucket_free;
    e->list = list;
    pinned->base = base;
    pinned->pin = pin;
    __atomic_add_fetch(&pin->buckets, 1, __ATOMIC_RELAXED);
    e = apr_bucket_shared_make(e, pinned, 0, length);
    e->type = &bucket_type_pinned;
    APR_BRIGADE_INSERT_TAIL(body, e);
    return APR_SUCCESS;
}

/** Copy adjacent short runs into one bucket, moving on. */
static apr_status_t append_copy(const mw_mem_t *mem, mw_place_t *place,
                                apr_uint64_t *left, apr_bucket_brigade *body)
{
    mw_place_t ahead = *place;
    apr_size_t length = 0;
    char *copy;

    while (length < *left && length < CACHEMW_PIECE_MAX) {
        apr_size_t n = CACHEMW_PIECE_MAX - length;

        if (n > *left - length) {
            n = (apr_size_t)(*left - length);
        }
        if (!mw_chain_piece(mem, &ahead, &n)) {
            return APR_EINCOMPLETE;
        }
        if (length && n >= PIN_RUN_MIN) {
            break;
        }
        length += n;
    }
    copy = mw_copied_append(body, length);
    if (!copy) {
        return APR_ENOMEM;
    }
    *left -= length;
    return mw_chain_read(mem, place, copy, length) ? APR_SUCCESS
                                                   : APR_EINCOMPLETE;
}

apr_status_t mw_pin_buckets(mw_mem_t *mem, mw_mem_claim_t *claim,
                            mw_place_t place, apr_uint64_t length,
                            apr_bucket_brigade *body)
{
    pin_t *pin = malloc(sizeof(*pin));
    apr_status_t rv = APR_SUCCESS;

    if (!pin) {
        mw_pin_release(mem, claim);
        return APR_ENOMEM;
    }
    pin->mem = mem;
    pin->claim = claim;
    pin->buckets = 1;
    while (length && rv == APR_SUCCESS) {
        mw_place_t before = place;
        apr_size_t n = (apr_size_t)length;
        const char *piece = mw_chain_piece(mem, &place, &n);

        if (!piece) {
            rv = APR_EINCOMPLETE;
        }
        else if (n >= PIN_RUN_MIN || n == length) {
            rv = append_pinned(pin, piece, n, body);
            length -= n;
        }
        else {
            place = before;
            rv = append_copy(mem, &place, &length, body);
        }
    }
    pin_leave(pin);
    return rv;
}
