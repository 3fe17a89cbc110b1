/* SPDX-License-Identifier: Apache-2.0 */

#include "core/futex.h"
#include "core/state_layout.h"

/*
 * A mark must carry its owner's token (64 bits) and its end, and a process may
 * die between any two instructions. What decides is therefore one word, the
 * claim, that is taken together with its end by one compare-and-swap:
 *
 *     63                                  20  19       1   0
 *     +-------------------------------------+-----------+--------+
 *     | expires, monotonic, in 32 µs, 17 y  | tag       | waited |   0: free
 *     +-------------------------------------+-----------+--------+
 *
 * The tag is a part of the owner's hash. The token itself is written after the
 * claim is won. Who reads it in between (or after its writer died there) sees
 * that the tag does not match the token and answers MW_MARK_UNNAMED; once in
 * half a million times it matches by chance, and the former owner passes for
 * the owner. Nothing waits for the token, so nothing hangs when it never comes:
 * the claim ends by itself.
 *
 * A claim that was let go keeps the time of that as its end, without a tag.
 *
 * Who waits sets the lowest bit first, and sleeps on the claim as it is then:
 * a mark that nobody waits for is released without a system call.
 */

#define TAG_BITS 19
#define TAG_SHIFT 1
#define WAITED APR_UINT64_C(1)
#define TIME_SHIFT (TAG_SHIFT + TAG_BITS)
#define TICK_BITS 5
#define PID_SHIFT 32 /* in a token */

static mw_mark_t *mark_of(const mw_state_t *state, const cachemw_key_t *key)
{
    /* The low bits choose the epoch's slot: take others. */
    const apr_uint64_t hash = mw_state_hash(state, key) >> 32;

    return (mw_mark_t *)&state->marks[hash % MW_MARKS];
}

static apr_uint64_t claim_make(apr_uint64_t owner, apr_int64_t expires)
{
    const apr_uint64_t tick = APR_UINT64_C(1) << TICK_BITS;
    const apr_uint64_t ticks = ((apr_uint64_t)expires + tick - 1) >> TICK_BITS;

    return ticks << TIME_SHIFT
           | (owner * APR_UINT64_C(0x9e3779b97f4a7c15)) >> (64 - TAG_BITS)
                                                               << TAG_SHIFT;
}

static apr_int64_t claim_end(apr_uint64_t claim)
{
    return (apr_int64_t)(claim >> TIME_SHIFT << TICK_BITS);
}

static int claim_holds(apr_uint64_t claim, apr_int64_t now)
{
    return claim && now < claim_end(claim);
}

static int claim_is_of(apr_uint64_t claim, apr_uint64_t owner)
{
    return ((claim ^ claim_make(owner, 0)) & ~WAITED) << (64 - TIME_SHIFT) == 0;
}

static apr_uint64_t owner_read(const mw_mark_t *mark, apr_uint64_t claim)
{
    const apr_uint64_t owner = __atomic_load_n(&mark->owner, __ATOMIC_ACQUIRE);

    return owner && claim_is_of(claim, owner) ? owner : MW_MARK_UNNAMED;
}

/* A slow writer must not overwrite the token of who took the mark after its
 * claim had ended: it swaps against what it saw before it found that the claim
 * was still its own. */
static void owner_write(mw_mark_t *mark, apr_uint64_t claim, apr_uint64_t owner)
{
    apr_uint64_t seen;

    do {
        seen = __atomic_load_n(&mark->owner, __ATOMIC_SEQ_CST);
        if ((__atomic_load_n(&mark->claim, __ATOMIC_SEQ_CST) & ~WAITED)
            != claim) {
            return;
        }
    } while (!__atomic_compare_exchange_n(&mark->owner, &seen, owner, 0,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
}

apr_uint64_t mw_mark_take(mw_state_t *state, const cachemw_key_t *key,
                          apr_uint64_t owner, apr_int64_t now,
                          apr_int64_t expires, apr_int64_t *ended)
{
    mw_mark_t *mark = mark_of(state, key);
    const apr_uint64_t mine = claim_make(owner, expires);
    apr_uint64_t claim = __atomic_load_n(&mark->claim, __ATOMIC_ACQUIRE);

    do {
        if (claim_holds(claim, now)) {
            return owner_read(mark, claim);
        }
    } while (!__atomic_compare_exchange_n(&mark->claim, &claim, mine, 0,
                                          __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE));
    owner_write(mark, mine, owner);
    if (ended != NULL) {
        *ended = claim_end(claim);
    }
    return 0;
}

void mw_mark_prolong(mw_state_t *state, const cachemw_key_t *key,
                     apr_uint64_t owner, apr_int64_t now, apr_int64_t expires)
{
    mw_mark_t *mark = mark_of(state, key);
    const apr_uint64_t mine = claim_make(owner, expires);
    apr_uint64_t claim = __atomic_load_n(&mark->claim, __ATOMIC_ACQUIRE);

    while (claim_holds(claim, now) && owner_read(mark, claim) == owner
           && !__atomic_compare_exchange_n(
               &mark->claim, &claim, mine | (claim & WAITED), 0,
               __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        continue;
    }
}

static void mark_free(mw_mark_t *mark, apr_uint64_t owner, apr_int64_t now)
{
    const apr_uint64_t ended = (apr_uint64_t)now >> TICK_BITS << TIME_SHIFT;
    apr_uint64_t claim = __atomic_load_n(&mark->claim, __ATOMIC_ACQUIRE);

    while (claim && owner_read(mark, claim) == owner) {
        if (__atomic_compare_exchange_n(&mark->claim, &claim, ended, 0,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            if (claim & WAITED) {
                mw_futex_wake(&mark->claim);
            }
            return;
        }
    }
}

void mw_mark_release(mw_state_t *state, const cachemw_key_t *key,
                     apr_uint64_t owner, apr_int64_t now)
{
    mark_free(mark_of(state, key), owner, now);
}

apr_uint64_t mw_mark_token(pid_t pid)
{
    static apr_uint32_t last;

    return (apr_uint64_t)(apr_uint32_t)pid << PID_SHIFT
           | __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

void mw_marks_release_dead(mw_state_t *state, pid_t pid, apr_int64_t now)
{
    int i;

    for (i = 0; i < MW_MARKS; i++) {
        const apr_uint64_t owner =
            __atomic_load_n(&state->marks[i].owner, __ATOMIC_ACQUIRE);

        if (owner >> PID_SHIFT == (apr_uint32_t)pid) {
            mark_free(&state->marks[i], owner, now);
        }
    }
}

void mw_mark_wait(mw_state_t *state, const cachemw_key_t *key, apr_int64_t now,
                  apr_int64_t until)
{
    mw_mark_t *mark = mark_of(state, key);
    apr_uint64_t claim = __atomic_load_n(&mark->claim, __ATOMIC_ACQUIRE);

    do {
        if (!claim_holds(claim, now)) {
            return;
        }
    } while (
        !(claim & WAITED)
        && !__atomic_compare_exchange_n(&mark->claim, &claim, claim | WAITED, 0,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    mw_futex_wait(&mark->claim, claim | WAITED,
                  until < claim_end(claim) ? until : claim_end(claim));
}

apr_uint64_t mw_mark_holder(const mw_state_t *state, const cachemw_key_t *key,
                            apr_int64_t now, apr_int64_t *ended)
{
    const mw_mark_t *mark = mark_of(state, key);
    const apr_uint64_t claim = __atomic_load_n(&mark->claim, __ATOMIC_ACQUIRE);

    if (claim_holds(claim, now)) {
        return owner_read(mark, claim);
    }
    if (ended != NULL) {
        *ended = claim_end(claim);
    }
    return 0;
}

/* --- locks of the store -------------------------------------------------- */

/*
 * The name is two words: itself, and the same mixed with its owner's token. So
 * a note that its writer did not finish, that another one has written into, or
 * that is of an owner before this one is none.
 */

static apr_uint64_t lock_check(apr_uint64_t name, apr_uint64_t owner)
{
    return name ^ owner * APR_UINT64_C(0x9e3779b97f4a7c15);
}

void mw_mark_lock_note(mw_state_t *state, const cachemw_key_t *key,
                       apr_uint64_t owner, apr_uint64_t name)
{
    mw_mark_t *mark = mark_of(state, key);
    const apr_uint64_t claim = __atomic_load_n(&mark->claim, __ATOMIC_ACQUIRE);

    if (owner_read(mark, claim) != owner) {
        return;
    }
    __atomic_store_n(&mark->lock, name, __ATOMIC_SEQ_CST);
    __atomic_store_n(&mark->check, lock_check(name, owner), __ATOMIC_SEQ_CST);
}

static int lock_take_out(mw_mark_t *mark, apr_uint64_t name, apr_uint64_t owner)
{
    apr_uint64_t check = lock_check(name, owner);

    return __atomic_compare_exchange_n(&mark->check, &check, 0, 0,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

int mw_mark_lock_forget(mw_state_t *state, const cachemw_key_t *key,
                        apr_uint64_t owner)
{
    mw_mark_t *mark = mark_of(state, key);

    return lock_take_out(mark, __atomic_load_n(&mark->lock, __ATOMIC_SEQ_CST),
                         owner);
}

int mw_mark_lock_next(const mw_state_t *state, apr_int64_t now,
                      mw_mark_lock_t *lock)
{
    for (; lock->at < MW_MARKS; lock->at++) {
        const mw_mark_t *mark = &state->marks[lock->at];
        const apr_uint64_t check =
            __atomic_load_n(&mark->check, __ATOMIC_SEQ_CST);
        apr_uint64_t claim;

        if (check == 0) {
            continue;
        }
        claim = __atomic_load_n(&mark->claim, __ATOMIC_SEQ_CST);
        lock->owner = __atomic_load_n(&mark->owner, __ATOMIC_SEQ_CST);
        lock->name = __atomic_load_n(&mark->lock, __ATOMIC_SEQ_CST);
        if (check == lock_check(lock->name, lock->owner)) {
            lock->end = claim_end(claim);
            lock->is_held =
                claim_holds(claim, now) && claim_is_of(claim, lock->owner);
            lock->at++;
            return 1;
        }
    }
    return 0;
}

int mw_mark_lock_is_noted(const mw_state_t *state, const mw_mark_lock_t *lock)
{
    const mw_mark_t *mark = &state->marks[lock->at - 1];

    return __atomic_load_n(&mark->check, __ATOMIC_SEQ_CST)
           == lock_check(lock->name,
                         __atomic_load_n(&mark->owner, __ATOMIC_SEQ_CST));
}

int mw_mark_lock_drop(mw_state_t *state, const mw_mark_lock_t *lock)
{
    return lock_take_out(&state->marks[lock->at - 1], lock->name, lock->owner);
}
