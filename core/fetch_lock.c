/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_siphash.h"

#include "fetch_lock.h"

/* A server that vanishes keeps others waiting for this part of what they would
 * wait at most: one of them takes its place, and the rest is for its fetch. */
#define LOCK_PART 4
#define LOCK_MIN APR_TIME_C(300000)

/* How often it is extended in that time. */
#define TEND_PART 3

/* For so long a lock is left to a successor of who died. */
#define TEND_LATE APR_INT64_C(100000)

#define NAME_SIZE 8

/* The same on all servers. Who finds two keys with one name has them wait for
 * each other. */
static apr_uint64_t name_of(const cachemw_key_t *key)
{
    static const unsigned char salt[APR_SIPHASH_KSIZE] = "cachemw fetch 1";

    return apr_siphash24(key->data, key->len, salt);
}

static cachemw_key_t name_key(apr_uint64_t name, char bytes[NAME_SIZE])
{
    const cachemw_key_t key = { bytes, NAME_SIZE };
    int i;

    for (i = 0; i < NAME_SIZE; i++) {
        bytes[i] = (char)(name >> 8 * i);
    }
    return key;
}

static apr_interval_time_t lock_ttl(const mw_store_t *store)
{
    const apr_interval_time_t part =
        mw_store_settings(store)->coalesce_timeout / LOCK_PART;

    return part > LOCK_MIN ? part : LOCK_MIN;
}

static apr_status_t lock_call(mw_store_t *store, const cachemw_call_t *call,
                              apr_uint64_t name, apr_int64_t end,
                              const cachemw_id_t *server, cachemw_id_t *holder)
{
    apr_interval_time_t ttl = lock_ttl(store);
    const apr_interval_time_t left = end - mw_monotonic();
    char bytes[NAME_SIZE];
    const cachemw_key_t key = name_key(name, bytes);

    ttl = left < ttl ? left : ttl;
    return mw_store_lock(store, call, &key, server, ttl > 0 ? ttl : 1, holder);
}

static void unlock_call(mw_store_t *store, const cachemw_call_t *call,
                        apr_uint64_t name, const cachemw_id_t *server)
{
    char bytes[NAME_SIZE];
    const cachemw_key_t key = name_key(name, bytes);

    mw_store_unlock(store, call, &key, server);
}

int mw_fetch_can_lock(const mw_store_t *store)
{
    const mw_store_settings_t *settings = mw_store_settings(store);

    return settings->coalesce
           && settings->coalesce_servers != MW_COALESCE_SERVERS_OFF
           && mw_store_can_lock(store);
}

int mw_fetch_locks(const mw_store_t *store)
{
    return mw_fetch_can_lock(store)
           && (mw_store_settings(store)->coalesce_servers
                   == MW_COALESCE_SERVERS_ON
               || mw_store_sharing(store) != 1);
}

apr_status_t mw_fetch_lock(const mw_fetch_t *fetch, const cachemw_call_t *call,
                           const cachemw_id_t *server, cachemw_id_t *holder)
{
    const apr_uint64_t name = name_of(&fetch->key);
    apr_status_t rv =
        lock_call(fetch->store, call, name, fetch->end, server, holder);

    if (rv == APR_SUCCESS) {
        mw_mark_lock_note(mw_store_state(fetch->store), &fetch->key,
                          fetch->owner, name);
    }
    return rv;
}

int mw_fetch_forget(const mw_fetch_t *fetch)
{
    return mw_mark_lock_forget(mw_store_state(fetch->store), &fetch->key,
                               fetch->owner);
}

void mw_fetch_unlock(const mw_fetch_t *fetch, const cachemw_call_t *call,
                     const cachemw_id_t *server)
{
    unlock_call(fetch->store, call, name_of(&fetch->key), server);
}

apr_interval_time_t mw_fetch_tend_interval(const mw_store_t *store)
{
    return lock_ttl(store) / TEND_PART;
}

/* The mark may be let go while its lock is extended. @return trouble */
static apr_status_t tend_held(mw_store_t *store, const cachemw_call_t *call,
                              const mw_mark_lock_t *lock,
                              const cachemw_id_t *server)
{
    cachemw_id_t holder;
    apr_status_t rv =
        lock_call(store, call, lock->name, lock->end, server, &holder);

    if (rv == APR_SUCCESS
        && !mw_mark_lock_is_noted(mw_store_state(store), lock)) {
        unlock_call(store, call, lock->name, server);
    }
    return rv == APR_EBUSY ? APR_SUCCESS : rv;
}

void mw_fetch_tend(mw_store_t *store, const cachemw_call_t *call,
                   const cachemw_id_t *server)
{
    mw_state_t *state = mw_store_state(store);
    mw_mark_lock_t lock = { 0 };
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS
           && mw_mark_lock_next(state, mw_monotonic(), &lock)) {
        if (lock.is_held) {
            rv = tend_held(store, call, &lock, server);
        }
        else if (lock.end + TEND_LATE < mw_monotonic()
                 && mw_mark_lock_drop(state, &lock)) {
            unlock_call(store, call, lock.name, server);
        }
    }
}
