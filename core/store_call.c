/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_strings.h"

#include "glob.h"
#include "store_private.h"

#define SWEEP_STEP 10000 /* µs */
#define SWEEP_STEP_REMOTE 1000000
#define LOCK_WAIT 250000 /* µs, where no deadline says less */

/** What a slot may answer without it being trouble. */
#define ALLOWS_DAMAGED 0x1u  /* APR_EINCOMPLETE: the caller handles it */
#define ALLOWS_NO_SPACE 0x2u /* APR_ENOSPC */
#define ALLOWS_MISSING 0x4u  /* APR_ENOTIMPL */
#define ALLOWS_WAITING 0x40u /* APR_TIMEUP: it goes on */
#define FOR_STORING 0x8u     /* store_timeout is its deadline */
#define IS_LISTENING 0x80u   /* other calls do not wait for it */
#define IS_UPKEEP 0x10u      /* the breaker is neither asked nor told */
#define IS_A_LOOK 0x20u      /* whoever looks must not see its own failures */
#define ALLOWS_BUSY 0x100u   /* APR_EBUSY */

typedef struct slot_t {
    const char *name;
    mw_counter_e error;
    unsigned int rules;
} slot_t;

static const slot_t slots[MW_SLOTS] = {
    [MW_SLOT_GET] = { "get", MW_COUNT_ERROR_GET, ALLOWS_DAMAGED },
    [MW_SLOT_READ] = { "read", MW_COUNT_ERROR_GET, ALLOWS_DAMAGED },
    [MW_SLOT_EXISTS] = { "exists", MW_COUNT_ERROR_GET, ALLOWS_DAMAGED },
    [MW_SLOT_SET] = { "set", MW_COUNT_ERROR_SET,
                      ALLOWS_NO_SPACE | FOR_STORING },
    [MW_SLOT_SET_BEGIN] = { "set_begin", MW_COUNT_ERROR_SET,
                            ALLOWS_NO_SPACE | FOR_STORING },
    [MW_SLOT_SET_WRITE] = { "set_write", MW_COUNT_ERROR_SET,
                            ALLOWS_NO_SPACE | FOR_STORING },
    [MW_SLOT_SET_COMMIT] = { "set_commit", MW_COUNT_ERROR_SET,
                             ALLOWS_NO_SPACE | FOR_STORING },
    [MW_SLOT_SET_HEAD] = { "set_head", MW_COUNT_ERROR_SET,
                           ALLOWS_DAMAGED | ALLOWS_NO_SPACE | FOR_STORING },
    [MW_SLOT_REMOVE] = { "remove", MW_COUNT_ERROR_OTHER, 0 },
    [MW_SLOT_CLEAR] = { "clear", MW_COUNT_ERROR_OTHER, ALLOWS_MISSING },
    [MW_SLOT_KEYS] = { "keys", MW_COUNT_ERROR_OTHER, ALLOWS_MISSING },
    [MW_SLOT_SWEEP] = { "sweep", MW_COUNT_ERROR_OTHER, IS_UPKEEP },
    [MW_SLOT_SYNC] = { "sync", MW_COUNT_ERROR_OTHER, IS_UPKEEP },
    [MW_SLOT_STATS] = { "stats", MW_COUNT_ERROR_OTHER, IS_UPKEEP | IS_A_LOOK },
    [MW_SLOT_WATCH] = { "watch", MW_COUNT_ERROR_OTHER,
                        ALLOWS_DAMAGED | ALLOWS_WAITING | IS_LISTENING
                            | IS_UPKEEP },
    [MW_SLOT_LOCK] = { "lock", MW_COUNT_ERROR_OTHER,
                       ALLOWS_BUSY | ALLOWS_MISSING | ALLOWS_NO_SPACE },
    [MW_SLOT_UNLOCK] = { "unlock", MW_COUNT_ERROR_OTHER,
                         ALLOWS_MISSING | FOR_STORING }
};

static int status_is_timeout(apr_status_t rv)
{
    return APR_STATUS_IS_TIMEUP(rv) || APR_STATUS_IS_ETIMEDOUT(rv);
}

static int status_is_trouble(apr_status_t rv, unsigned int rules)
{
    switch (rv) {
    case APR_SUCCESS:
    case APR_NOTFOUND:
        return 0;
    case APR_EINCOMPLETE:
        return !(rules & ALLOWS_DAMAGED);
    case APR_ENOSPC:
        return !(rules & ALLOWS_NO_SPACE);
    case APR_ENOTIMPL:
        return !(rules & ALLOWS_MISSING);
    case APR_TIMEUP:
        return !(rules & ALLOWS_WAITING);
    case APR_EBUSY:
        return !(rules & ALLOWS_BUSY);
    default:
        return 1;
    }
}

static void call_log(mw_store_t *store, apr_status_t rv, apr_uint32_t kind,
                     const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void call_log(mw_store_t *store, apr_status_t rv, apr_uint32_t kind,
                     const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    mw_store_log_kind(store, CACHEMW_LOG_WARNING, rv, kind, format, arguments);
    va_end(arguments);
}

/* A slot's lines are of several kinds, so that a stream of one does not hide
 * the first of another. */
static apr_uint32_t call_kind(mw_slot_e slot, apr_status_t rv)
{
    return 1 + 2 * (apr_uint32_t)slot + status_is_timeout(rv);
}

/* --- around a slot -------------------------------------------------------- */

/* Whether the breaker has a say in it. */
static int pass_has_breaker(const mw_pass_t *pass)
{
    return (pass->store->guards & MW_GUARD_REMOTE)
           && !(slots[pass->slot].rules & IS_UPKEEP);
}

static int pass_is_locked(const mw_pass_t *pass)
{
    return (pass->store->guards & MW_GUARD_SERIALIZE)
           && !(slots[pass->slot].rules & IS_LISTENING);
}

static apr_status_t pass_lock(mw_pass_t *pass, apr_int64_t now)
{
    mw_store_t *store = pass->store;
    apr_interval_time_t wait = LOCK_WAIT;
    apr_status_t rv = apr_thread_mutex_trylock(store->mutex);

    if (rv == APR_SUCCESS) {
        return rv;
    }
    if (pass->call->deadline) {
        wait = pass->call->deadline > now ? pass->call->deadline - now : 0;
    }
    rv = apr_thread_mutex_timedlock(store->mutex, wait);
    if (rv != APR_SUCCESS) {
        mw_store_count(store, MW_COUNT_TIMEOUT, 1);
        call_log(store, rv, call_kind(pass->slot, rv),
                 "%s: other calls take too long", slots[pass->slot].name);
    }
    return rv;
}

static void pass_set_deadline(mw_pass_t *pass, apr_int64_t now)
{
    const mw_store_settings_t *settings = &pass->store->settings;

    pass->own = *pass->call;
    pass->own.deadline =
        now
        + ((slots[pass->slot].rules & FOR_STORING) ? settings->store_timeout
                                                   : settings->timeout);
    pass->call = &pass->own;
}

apr_status_t mw_pass_enter_guarded(mw_pass_t *pass)
{
    mw_store_t *store = pass->store;
    unsigned int guards = store->guards;
    apr_int64_t now;
    apr_status_t rv;

    if (guards & MW_GUARD_OFF) {
        return APR_EGENERAL;
    }
    now = mw_monotonic();
    if (guards & MW_GUARD_REMOTE) {
        if (!pass->call->deadline) {
            pass_set_deadline(pass, now);
        }
        else if (pass->call->deadline <= now) {
            /* others used up the time: no failure of this store's */
            mw_store_count(store, MW_COUNT_SKIPPED, 1);
            return APR_TIMEUP;
        }
    }
    if (pass_is_locked(pass)) {
        rv = pass_lock(pass, now);
        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    if (pass_has_breaker(pass) && !mw_breaker_allows(store->state, now)) {
        mw_store_count(store, MW_COUNT_SKIPPED, 1);
        if (pass_is_locked(pass)) {
            apr_thread_mutex_unlock(store->mutex);
        }
        return APR_EGENERAL;
    }
    return APR_SUCCESS;
}

/* Each change is told, unless they are too many. What it is by now is told, for
 * those that were left out have had time to change it again. */
static void breaker_log(mw_store_t *store)
{
    const apr_uint32_t news = mw_breaker_news(store->state, mw_monotonic());
    char more[60] = "";
    char words[MW_REASON_MAX];
    apr_uint32_t kind;
    apr_status_t why;
    apr_int64_t until;

    if (news == 0) {
        return;
    }
    if (news > 1) {
        apr_snprintf(more, sizeof(more),
                     " (changes before that, not logged: %u)", news - 1);
    }
    if (mw_breaker_read(store->state, &why, &until) == MW_BREAKER_CLOSED) {
        call_log(store, APR_SUCCESS, 0, "works again: back in use%s", more);
        return;
    }
    if (!mw_reason_read(store->state, why, &kind, words)) {
        *words = '\0';
    }
    call_log(store, why, 0,
             "%d failures in a row: out of use until a probe works%s%s%s",
             MW_BREAKER_FAILURES, *words ? ": " : "", words, more);
}

static void pass_tell_breaker(mw_store_t *store, apr_status_t rv, int trouble)
{
    apr_uint32_t random;

    if (!trouble) {
        mw_breaker_success(store->state);
    }
    else {
        mw_store_random(&random, sizeof(random));
        mw_breaker_failure(store->state, mw_monotonic(), random, rv);
    }
    if (mw_breaker_has_news(store->state)) {
        breaker_log(store);
    }
}

/* @param words what the provider says of it, or NULL: then perhaps what it said
 *        of the same before */
static void pass_log_trouble(const mw_pass_t *pass, apr_status_t rv,
                             const char *words, apr_uint32_t kind)
{
    const int timeout = status_is_timeout(rv);
    const slot_t *slot = &slots[pass->slot];
    mw_state_t *state = pass->store->state;
    char before[MW_REASON_MAX];

    if (!(slot->rules & IS_A_LOOK)) {
        mw_store_count(pass->store, timeout ? MW_COUNT_TIMEOUT : slot->error,
                       1);
    }
    if (words && state) {
        mw_reason_note(state, rv, kind, words);
    }
    else if (!words && state && mw_reason_read(state, rv, &kind, before)) {
        words = before;
    }
    call_log(pass->store, rv, call_kind(pass->slot, rv) + kind, "%s: %s%s%s",
             slot->name, timeout ? "timed out" : "failed", words ? ": " : "",
             words ? words : "");
}

apr_status_t mw_pass_leave_slowly(mw_pass_t *pass, apr_status_t rv)
{
    mw_store_t *store = pass->store;
    const int trouble = status_is_trouble(rv, slots[pass->slot].rules);
    apr_uint32_t kind = 0;
    const char *words = mw_services_said(store, rv, &kind);

    if (pass_is_locked(pass)) {
        apr_thread_mutex_unlock(store->mutex);
    }
    if (rv == APR_EAGAIN && (store->guards & MW_GUARD_REMOTE)) {
        mw_store_count(store, MW_COUNT_SKIPPED, 1);
        if (pass_has_breaker(pass)) {
            mw_breaker_untried(store->state, mw_monotonic());
        }
        return APR_EGENERAL;
    }
    /* tiers have told of their own */
    if (trouble && !(store->flags & CACHEMW_TIERED)) {
        pass_log_trouble(pass, rv, words, kind);
    }
    if (pass_has_breaker(pass)) {
        pass_tell_breaker(store, rv, trouble);
    }
    /* "not even tried" is what we say, or tiers of theirs */
    return rv == APR_EGENERAL && !(store->flags & CACHEMW_TIERED) ? EIO : rv;
}

void mw_store_share_deadline(const mw_store_t *store, cachemw_call_t *call)
{
    if (mw_store_is_remote(store) && !call->deadline) {
        call->deadline = mw_monotonic() + store->settings.store_timeout;
    }
}

/* --- calls that are little more than their slot ------------------------ */

apr_status_t mw_remove_uncounted(mw_store_t *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_id_t *id)
{
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_REMOVE);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(&pass,
                         store->table.remove(store->self, pass.call, key, id));
}

apr_status_t mw_store_remove(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id)
{
    apr_status_t rv = mw_remove_uncounted(store, call, key, id);

    if (rv == APR_SUCCESS) {
        mw_store_count(store, MW_COUNT_REMOVED, 1);
    }
    return rv;
}

apr_status_t mw_store_clear(mw_store_t *store, const cachemw_call_t *call)
{
    mw_pass_t pass;
    apr_status_t rv;

    /* First: what is committed from here on sees that it changed. */
    if (store->state) {
        mw_epoch_bump_all(store->state);
    }
    rv = mw_pass_enter(&pass, store, call, MW_SLOT_CLEAR);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(&pass, store->table.clear(store->self, pass.call));
}

typedef struct keys_t {
    const char *pattern;
    apr_time_t now;
    cachemw_keys_fn *each;
    void *baton;
    apr_status_t stopped; /* what the caller's function ended it with */
} keys_t;

static apr_status_t keys_filter(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    keys_t *keys = baton;

    if (entry->expires <= keys->now
        || (keys->pattern
            && !mw_glob_matches(keys->pattern, key->data, key->len))) {
        return APR_SUCCESS;
    }
    keys->stopped = keys->each(keys->baton, key, entry);
    return keys->stopped;
}

apr_status_t mw_store_keys(mw_store_t *store, const cachemw_call_t *call,
                           const char *pattern, cachemw_keys_fn *each,
                           void *baton)
{
    keys_t keys = { pattern, call->now, each, baton, APR_SUCCESS };
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_KEYS);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = store->table.keys(store->self, pass.call, pattern, keys_filter, &keys);
    if (keys.stopped != APR_SUCCESS) {
        mw_pass_leave(&pass, APR_SUCCESS);
        return keys.stopped;
    }
    return mw_pass_leave(&pass, rv);
}

apr_status_t mw_store_sweep(mw_store_t *store, const cachemw_call_t *call,
                            int *more)
{
    cachemw_call_t step = *call;
    mw_pass_t pass;
    apr_status_t rv;

    *more = 0;
    if (!step.deadline) {
        step.deadline =
            mw_monotonic()
            + (mw_store_is_remote(store) ? SWEEP_STEP_REMOTE : SWEEP_STEP);
    }
    rv = mw_pass_enter(&pass, store, &step, MW_SLOT_SWEEP);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = mw_pass_leave(&pass, store->table.sweep(store->self, pass.call, more));
    if (rv != APR_SUCCESS) {
        *more = 0;
    }
    return rv;
}

apr_status_t mw_store_sync(mw_store_t *store, const cachemw_call_t *call)
{
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_SYNC);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(&pass, store->table.sync(store->self, pass.call));
}

apr_status_t mw_store_watch(mw_store_t *store, const cachemw_call_t *call,
                            cachemw_watch_fn *each, void *baton)
{
    mw_pass_t pass;
    apr_status_t rv = mw_pass_enter(&pass, store, call, MW_SLOT_WATCH);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(
        &pass, store->table.watch(store->self, pass.call, each, baton));
}

apr_status_t mw_store_stats(mw_store_t *store, const cachemw_call_t *call,
                            cachemw_stats_t *stats)
{
    mw_pass_t pass;
    apr_status_t rv;

    if (stats->size < sizeof(*stats)) {
        return APR_EINVAL;
    }
    stats->entries = -1;
    stats->expired = -1;
    stats->bytes = -1;
    stats->bytes_max = -1;
    stats->entries_max = -1;
    rv = mw_pass_enter(&pass, store, call, MW_SLOT_STATS);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(&pass,
                         store->table.stats(store->self, pass.call, stats));
}

apr_status_t mw_store_lock(mw_store_t *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token,
                           apr_interval_time_t ttl, cachemw_id_t *holder)
{
    mw_pass_t pass;
    apr_status_t rv;

    if (!store->locking) {
        return APR_ENOTIMPL;
    }
    rv = mw_pass_enter(&pass, store, call, MW_SLOT_LOCK);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(&pass, store->table.lock(store->self, pass.call, key,
                                                  token, ttl, holder));
}

apr_status_t mw_store_unlock(mw_store_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_id_t *token)
{
    mw_pass_t pass;
    apr_status_t rv;

    if (!store->locking) {
        return APR_ENOTIMPL;
    }
    rv = mw_pass_enter(&pass, store, call, MW_SLOT_UNLOCK);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_pass_leave(
        &pass, store->table.unlock(store->self, pass.call, key, token));
}
