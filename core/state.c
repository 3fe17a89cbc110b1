/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "apr_general.h"
#include "apr_time.h"

#include "core/state_layout.h"

#define LOG_PERIOD APR_INT64_C(10000000)

#define SHARING_MAX 0xff

static const char *const counter_names[MW_COUNTERS] = {
    [MW_COUNT_HIT] = "Hits",
    [MW_COUNT_MISS] = "Misses",
    [MW_COUNT_STALE] = "Stale",
    [MW_COUNT_REVALIDATED] = "Revalidated",
    [MW_COUNT_STORED] = "Stores",
    [MW_COUNT_REFUSED] = "Refused",
    [MW_COUNT_NO_SPACE] = "NoSpace",
    [MW_COUNT_ABORTED] = "Aborted",
    [MW_COUNT_REMOVED] = "Removes",
    [MW_COUNT_INVALIDATED] = "Invalidations",
    [MW_COUNT_EVICTED] = "Evictions",
    [MW_COUNT_EXPIRED] = "Expired",
    [MW_COUNT_RECOVERED] = "Recoveries",
    [MW_COUNT_CUT] = "CutBodies",
    [MW_COUNT_DAMAGED] = "Damaged",
    [MW_COUNT_TIMEOUT] = "Timeouts",
    [MW_COUNT_ERROR_GET] = "GetErrors",
    [MW_COUNT_ERROR_SET] = "SetErrors",
    [MW_COUNT_ERROR_OTHER] = "OtherErrors",
    [MW_COUNT_SKIPPED] = "Skipped",
    [MW_COUNT_COALESCED] = "Coalesced",
    [MW_COUNT_WAITED_OUT] = "WaitsTimedOut",
    [MW_COUNT_CAPPED] = "WaitsRefused",
    [MW_COUNT_BYTES_SENT] = "BytesSent",
    [MW_COUNT_BYTES_STORED] = "BytesStored",
    [MW_COUNT_API_HIT] = "ApiHits",
    [MW_COUNT_API_MISS] = "ApiMisses",
    [MW_COUNT_API_STORED] = "ApiStores",
    [MW_COUNT_API_REMOVED] = "ApiRemoves",
    [MW_COUNT_API_REFUSED] = "ApiRefused",
    [MW_COUNT_API_DENIED] = "ApiDenied",
    [MW_COUNT_API_BUSY] = "ApiBusy",
    [MW_COUNT_GET_SAMPLES] = "GetSamples",
    [MW_COUNT_GET_MICROSECONDS] = "GetMicroseconds",
    [MW_COUNT_SET_SAMPLES] = "SetSamples",
    [MW_COUNT_SET_MICROSECONDS] = "SetMicroseconds",
};

/** 0 to 63. 2^64 divided by the golden ratio spreads neighbours. */
static inline unsigned int number_spread(apr_uint64_t x)
{
    return (unsigned int)(x * APR_UINT64_C(0x9e3779b97f4a7c15) >> 58);
}

apr_size_t mw_state_size(void)
{
    return sizeof(mw_state_t);
}

void mw_state_init(mw_state_t *state)
{
    apr_uint64_t seed;

    if (state->magic == MW_STATE_MAGIC && state->layout == MW_STATE_LAYOUT
        && state->size == sizeof(*state)) {
        return;
    }
    memset(state, 0, sizeof(*state));
    if (apr_generate_random_bytes(state->hash_key, sizeof(state->hash_key))
        != APR_SUCCESS) {
        /* Guessable, so keys that share a slot can be made up: they cost each
         * other some waiting. No reason to refuse a start. */
        seed = (apr_uint64_t)apr_time_now();
        memcpy(state->hash_key, &seed, sizeof(seed));
    }
    state->layout = MW_STATE_LAYOUT;
    state->size = sizeof(*state);
    state->magic = MW_STATE_MAGIC;
}

apr_uint64_t mw_state_hash(const mw_state_t *state, const cachemw_key_t *key)
{
    return apr_siphash24(key->data, key->len, state->hash_key);
}

/* Any slot is right; threads should merely meet rarely. Each thread has a stack
 * of its own, so the address of a variable tells threads apart for the price of
 * a register, where a thread-local variable of a loaded module costs a call.
 * Children of one parent have their stacks at equal addresses: their pid tells
 * them apart. Inherited over a fork it would be the parent's, which does not
 * count. */
static apr_uint64_t process; /**< 0: not asked for yet */

static inline void slot_add(mw_state_t *state, apr_uint64_t pid,
                            mw_counter_e which, apr_uint64_t n)
{
    char here;
    const apr_uint64_t stack = (apr_uint64_t)(apr_uintptr_t)&here >> 16;
    mw_counters_t *slot = &state->counters[number_spread(pid + stack)];

    __atomic_fetch_add(&slot->n[which], n, __ATOMIC_RELAXED);
}

/* Apart, so that the way that is nearly always taken saves no registers. */
static void __attribute__((noinline, cold))
slot_add_first(mw_state_t *state, mw_counter_e which, apr_uint64_t n)
{
    const apr_uint64_t pid = (apr_uint64_t)getpid() << 20 | 1;

    __atomic_store_n(&process, pid, __ATOMIC_RELAXED);
    slot_add(state, pid, which, n);
}

void mw_state_count(mw_state_t *state, mw_counter_e which, apr_uint64_t n)
{
    const apr_uint64_t pid = __atomic_load_n(&process, __ATOMIC_RELAXED);

    if (!pid) {
        slot_add_first(state, which, n);
        return;
    }
    slot_add(state, pid, which, n);
}

apr_uint64_t mw_state_sum(const mw_state_t *state, mw_counter_e which)
{
    apr_uint64_t sum = 0;
    int i;

    for (i = 0; i < MW_COUNTER_SLOTS; i++) {
        sum += __atomic_load_n(&state->counters[i].n[which], __ATOMIC_RELAXED);
    }
    return sum;
}

const char *mw_counter_name(mw_counter_e which)
{
    return counter_names[which];
}

apr_uint32_t mw_epoch_slot(const mw_state_t *state, const cachemw_key_t *key)
{
    return (apr_uint32_t)mw_state_hash(state, key) % MW_EPOCHS;
}

void mw_sharing_note(mw_state_t *state, unsigned int servers, apr_int64_t until)
{
    __atomic_store_n(&state->sharing,
                     (apr_uint64_t)until << 8
                         | (servers < SHARING_MAX ? servers : SHARING_MAX),
                     __ATOMIC_RELAXED);
}

unsigned int mw_sharing_read(const mw_state_t *state, apr_int64_t now)
{
    const apr_uint64_t word =
        __atomic_load_n(&state->sharing, __ATOMIC_RELAXED);

    return (apr_int64_t)(word >> 8) > now ? word & SHARING_MAX : 0;
}

apr_uint64_t mw_epoch_now(const mw_state_t *state)
{
    return __atomic_load_n(&state->epoch, __ATOMIC_SEQ_CST);
}

/* The number is drawn before it is entered: who notes an epoch that includes
 * it came after the change, whether it is entered yet or not. */
static void epoch_enter(mw_state_t *state, apr_uint64_t *slot)
{
    const apr_uint64_t epoch =
        __atomic_add_fetch(&state->epoch, 1, __ATOMIC_SEQ_CST);
    apr_uint64_t last = __atomic_load_n(slot, __ATOMIC_RELAXED);

    while (last < epoch
           && !__atomic_compare_exchange_n(
               slot, &last, epoch, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
}

void mw_epoch_bump(mw_state_t *state, const cachemw_key_t *key)
{
    epoch_enter(state, &state->epochs[mw_epoch_slot(state, key)]);
}

void mw_epoch_bump_all(mw_state_t *state)
{
    epoch_enter(state, &state->epoch_all);
}

int mw_epoch_is_overtaken(const mw_state_t *state, apr_uint32_t slot,
                          apr_uint64_t epoch)
{
    return __atomic_load_n(&state->epoch_all, __ATOMIC_SEQ_CST) > epoch
           || __atomic_load_n(&state->epochs[slot], __ATOMIC_SEQ_CST) > epoch;
}

/* Two kinds with one limiter would hide each other's lines. */
static mw_limiter_t *limiter_of(mw_state_t *state, apr_uint32_t kind)
{
    const unsigned int home = number_spread(kind);
    mw_limiter_t *limiter;
    unsigned int i;

    for (i = 0; i < MW_LIMITERS; i++) {
        apr_uint32_t owner = 0;

        limiter = &state->limiters[(home + i) % MW_LIMITERS];
        if (__atomic_compare_exchange_n(&limiter->kind, &owner, kind, 0,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)
            || owner == kind) {
            return limiter;
        }
    }
    /* none is free: another kind's, whose last line does not count here */
    limiter = &state->limiters[home];
    __atomic_store_n(&limiter->kind, kind, __ATOMIC_RELAXED);
    __atomic_store_n(&limiter->next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&limiter->suppressed, 0, __ATOMIC_RELAXED);
    return limiter;
}

int mw_log_allowed(mw_state_t *state, apr_uint32_t kind, apr_int64_t now,
                   apr_uint32_t *suppressed)
{
    mw_limiter_t *limiter = limiter_of(state, kind);
    apr_int64_t next = __atomic_load_n(&limiter->next, __ATOMIC_RELAXED);

    *suppressed = 0;
    if (now < next
        || !__atomic_compare_exchange_n(&limiter->next, &next, now + LOG_PERIOD,
                                        0, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
        __atomic_fetch_add(&limiter->suppressed, 1, __ATOMIC_RELAXED);
        return 0;
    }
    *suppressed =
        __atomic_exchange_n(&limiter->suppressed, 0, __ATOMIC_RELAXED);
    return 1;
}

apr_int64_t mw_monotonic(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (apr_int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
