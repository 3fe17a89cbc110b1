/* SPDX-License-Identifier: Apache-2.0 */

#include "core/random.h"
#include "core/waiters.h"

#define WAITERS_SLOTS 8192

/* A slot is one word, so that it changes hands in one step:
 * pid << 32 | requests that wait. */
struct mw_waiters_t {
    apr_uint32_t used; /**< no slot at or behind it was ever taken */
    char id[MW_WAITERS_ID + 4];
    apr_uint64_t slots[WAITERS_SLOTS];
};

static apr_uint64_t slot_of_pid(pid_t pid)
{
    return (apr_uint64_t)(apr_uint32_t)pid << 32;
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

int mw_waiters_open(mw_waiters_t *waiters, pid_t pid)
{
    int i;

    for (i = 0; i < WAITERS_SLOTS; i++) {
        apr_uint64_t nobody = 0;

        if (__atomic_compare_exchange_n(&waiters->slots[i], &nobody,
                                        slot_of_pid(pid), 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
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

        if (slot >> 32 == slot_of_pid(pid) >> 32) {
            __atomic_store_n(&waiters->slots[i], 0, __ATOMIC_SEQ_CST);
        }
    }
}

apr_uint32_t mw_waiters_sum(const mw_waiters_t *waiters)
{
    const apr_uint32_t used = __atomic_load_n(&waiters->used, __ATOMIC_SEQ_CST);
    apr_uint32_t sum = 0;
    apr_uint32_t i;

    for (i = 0; i < used; i++) {
        sum +=
            (apr_uint32_t)__atomic_load_n(&waiters->slots[i], __ATOMIC_SEQ_CST);
    }
    return sum;
}

/* Entered first and counted then: two that come at once may both be refused at
 * the limit, but never both be let in beyond it. */
int mw_waiters_enter(mw_waiters_t *waiters, int slot, apr_uint32_t own,
                     apr_uint32_t all)
{
    apr_uint32_t here;

    if (slot < 0) {
        return 0;
    }
    here = (apr_uint32_t)__atomic_add_fetch(&waiters->slots[slot], 1,
                                            __ATOMIC_SEQ_CST);
    if (here > own || mw_waiters_sum(waiters) > all) {
        mw_waiters_leave(waiters, slot);
        return 0;
    }
    return 1;
}

void mw_waiters_leave(mw_waiters_t *waiters, int slot)
{
    __atomic_sub_fetch(&waiters->slots[slot], 1, __ATOMIC_SEQ_CST);
}
