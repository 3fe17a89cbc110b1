/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <unistd.h>

#include "slots.h"

/** What the clean-up of a process knows. */
typedef struct tenancy_t {
    mw_slots_t slots;
    apr_uint32_t slot;
    pid_t pid;
} tenancy_t;

static apr_uint32_t word_read(const apr_uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void word_write(apr_uint32_t *word, apr_uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/**
 * Lock the mutex of a slot that nobody alive has. Its last owner may have left
 * something, or whoever wanted to end that, so it is free of it by then.
 * @return not 0: somebody has it, or there is something left
 */
static int slot_lock(const mw_slots_t *slots, apr_uint32_t slot)
{
    mw_slot_t *one = &slots->slots[slot];
    int rv = pthread_mutex_trylock(&one->alive);
    int is_free = 1;

    if (rv && rv != EOWNERDEAD) {
        return rv;
    }
    if (rv == EOWNERDEAD || word_read(&one->taken)) {
        is_free = slots->bury(slots->baton, slot);
        word_write(&one->taken, !is_free);
    }
    if (rv == EOWNERDEAD) {
        pthread_mutex_consistent(&one->alive);
    }
    if (!is_free) {
        pthread_mutex_unlock(&one->alive);
        return EBUSY;
    }
    return 0;
}

void mw_slots_bury(const mw_slots_t *slots)
{
    apr_uint32_t used = __atomic_load_n(slots->used, __ATOMIC_ACQUIRE);
    apr_uint32_t i;

    for (i = 0; i < used; i++) {
        if (word_read(&slots->slots[i].taken) && slot_lock(slots, i) == 0) {
            pthread_mutex_unlock(&slots->slots[i].alive);
        }
    }
}

/**
 * While something is still being sent or stored, perhaps by a thread that runs
 * until the process ends, the mutex stays locked: the end of the process passes
 * it on.
 */
static apr_status_t slot_leave(void *data)
{
    tenancy_t *tenancy = data;
    const mw_slots_t *slots = &tenancy->slots;
    mw_slot_t *slot = &slots->slots[tenancy->slot];

    if (tenancy->pid != getpid()) {
        return APR_SUCCESS;
    }
    if (word_read(slots->owner) == tenancy->slot + 1) {
        word_write(slots->owner, 0);
    }
    if (!slots->is_busy(slots->baton, tenancy->slot)) {
        word_write(&slot->taken, 0);
        if (pthread_mutex_unlock(&slot->alive) != 0) {
            word_write(&slot->taken, 1);
        }
    }
    return APR_SUCCESS;
}

static void slots_used_raise(const mw_slots_t *slots, apr_uint32_t to)
{
    apr_uint32_t used = word_read(slots->used);

    while (used < to
           && !__atomic_compare_exchange_n(
               slots->used, &used, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    }
}

apr_status_t mw_slots_take(const mw_slots_t *slots, apr_pool_t *pchild)
{
    tenancy_t *tenancy = apr_palloc(pchild, sizeof(*tenancy));
    apr_uint32_t i;
    int rv = EBUSY;

    for (i = 0; i < slots->count && rv; i++) {
        rv = slot_lock(slots, i);
    }
    if (rv) {
        word_write(slots->owner, 0);
        return rv == EBUSY ? APR_SUCCESS : rv;
    }
    slots_used_raise(slots, i);
    word_write(&slots->slots[i - 1].taken, 1);
    word_write(slots->owner, i);
    tenancy->slots = *slots;
    tenancy->slot = i - 1;
    tenancy->pid = getpid();
    apr_pool_cleanup_register(pchild, tenancy, slot_leave,
                              apr_pool_cleanup_null);
    return APR_SUCCESS;
}
