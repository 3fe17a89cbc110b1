/* SPDX-License-Identifier: Apache-2.0 */

#include "core/random.h"
#include "core/waiters.h"

#define WAITERS_SLOTS 8192

/* A slot is one word, so that it changes hands in one step:
 *
 *     63    32  31               20  19               0
 *     +-------+--------------------+-------------------+
 *     | pid   | generation, mod 4k | requests waiting  |   0: free
 *     +-------+--------------------+-------------------+
 */
#define PID_SHIFT 32
#define COUNT_BITS 20
#define COUNT_MASK ((APR_UINT64_C(1) << COUNT_BITS) - 1)
#define GENERATION_MASK ((APR_UINT64_C(1) << PID_SHIFT) - 1 - COUNT_MASK)

struct mw_waiters_t {
    apr_uint32_t used; /**< no slot at or behind it was ever taken */
    char id[MW_WAITERS_ID + 4];
    apr_uint64_t slots[WAITERS_SLOTS];
};

static apr_uint64_t slot_make(pid_t pid, int generation)
{
    return (apr_uint64_t)(apr_uint32_t)pid << PID_SHIFT
           | ((apr_uint64_t)generation << COUNT_BITS & GENERATION_MASK);
}

static apr_uint32_t slot_count(apr_uint64_t slot)
{
    return (apr_uint32_t)(slot & COUNT_MASK);
}

apr_size_t mw_waiters_size(void)
{
    return sizeof(mw_waiters_t);
}

void mw_waiters_init(mw_waiters_t *waiters)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[MW_WAITERS_ID] = { 0 };
    int i;

    mw_random(random, sizeof(random));
    for (i = 0; i < MW_WAITERS_ID; i++) {
        waiters->id[i] = digits[random[i] & 15];
    }
}

const char *mw_waiters_id(const mw_waiters_t *waiters)
{
    return waiters->id;
}

static void waiters_raise(mw_waiters_t *waiters, apr_uint32_t used)
{
    apr_uint32_t seen = __atomic_load_n(&waiters->used, __ATOMIC_RELAXED);

    while (seen < used
           && !__atomic_compare_exchange_n(&waiters->used, &seen, used, 0,
                                           __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED)) {
    }
}

int mw_waiters_open(mw_waiters_t *waiters, pid_t pid, int generation)
{
    int i;

    for (i = 0; i < WAITERS_SLOTS; i++) {
        apr_uint64_t nobody = 0;

        if (__atomic_compare_exchange_n(&waiters->slots[i], &nobody,
                                        slot_make(pid, generation), 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
            waiters_raise(waiters, (apr_uint32_t)i + 1);
            return i;
        }
    }
    return -1;
}

void mw_waiters_close(mw_waiters_t *waiters, pid_t pid)
{
    int i;

    for (i = 0; i < WAITERS_SLOTS; i++) {
        const apr_uint64_t slot =
            __atomic_load_n(&waiters->slots[i], __ATOMIC_RELAXED);

        if (slot >> PID_SHIFT == (apr_uint32_t)pid) {
            __atomic_store_n(&waiters->slots[i], 0, __ATOMIC_SEQ_CST);
        }
    }
}

/* How many wait; *live: processes of the generation of `mine`. */
static apr_uint32_t waiters_sum(const mw_waiters_t *waiters, apr_uint64_t mine,
                                apr_uint32_t *live)
{
    const apr_uint32_t used = __atomic_load_n(&waiters->used, __ATOMIC_SEQ_CST);
    apr_uint32_t sum = 0;
    apr_uint32_t i;

    *live = 0;
    for (i = 0; i < used; i++) {
        const apr_uint64_t slot =
            __atomic_load_n(&waiters->slots[i], __ATOMIC_SEQ_CST);

        sum += slot_count(slot);
        *live += slot && !((slot ^ mine) & GENERATION_MASK);
    }
    return sum;
}

apr_uint32_t mw_waiters_sum(const mw_waiters_t *waiters)
{
    apr_uint32_t live;

    return waiters_sum(waiters, 0, &live);
}

/* Entered first and counted then: two that come at once may both be refused at
 * the limit, but never both be let in beyond it. */
int mw_waiters_enter(mw_waiters_t *waiters, int slot, apr_uint32_t own,
                     apr_uint32_t all)
{
    apr_uint64_t mine;
    apr_uint32_t here;
    apr_uint32_t live;
    apr_uint32_t sum;

    if (slot < 0) {
        return 0;
    }
    mine = __atomic_add_fetch(&waiters->slots[slot], 1, __ATOMIC_SEQ_CST);
    here = slot_count(mine);
    sum = waiters_sum(waiters, mine, &live);
    if (sum > all || (here > own && (here > 2 * own || sum > live * own))) {
        mw_waiters_leave(waiters, slot);
        return 0;
    }
    return 1;
}

void mw_waiters_leave(mw_waiters_t *waiters, int slot)
{
    __atomic_sub_fetch(&waiters->slots[slot], 1, __ATOMIC_SEQ_CST);
}
