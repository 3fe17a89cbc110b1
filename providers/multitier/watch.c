/* SPDX-License-Identifier: Apache-2.0 */

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "providers/common/cond.h"
#include "watch.h"

/* Of one call of watch(): how often the far tier must answer, and what the end
 * of the process may have to wait, save while it connects. */
#define TURN apr_time_from_msec(100)

/* Between attempts to listen. */
#define PAUSE_MIN apr_time_from_msec(100)
#define PAUSE_MAX apr_time_from_sec(1)

typedef enum state_e { STATE_NEW, STATE_HEARS, STATE_LOST } state_e;

/* One who listens: a thread of the process that sweeps. */
typedef struct watch_t {
    mw_tiers_t *tiers;
    int at; /* the tier that is watched */
    pthread_t thread;
    apr_pool_t *memory;
    apr_pool_t *pool;    /* of a turn; below memory, as is */
    apr_pool_t *scratch; /* of a call */
    state_e state;
    unsigned int unsure;  /* tiers before that could not be emptied */
    unsigned int unasked; /* likewise, at the beginning of the last turn */
    unsigned int old;     /* tiers before that must be emptied */
    int is_late;          /* the last turn ended without an answer */
    apr_time_t since;     /* when the turn began that asked */
    apr_uint32_t doubts[MW_TIERS_MAX]; /* as mw_changes_doubts() gave them */
    apr_interval_time_t pause;
} watch_t;

struct mw_watches_t {
    pthread_mutex_t mutex; /* covers is_ending, and writing alive_until */
    pthread_cond_t ending;
    int is_ending;
    apr_time_t offset; /* of the wall clock, from the monotonic one; atomic */
    int n;
    watch_t one[MW_TIERS_MAX];
};

static apr_int64_t clock_now(const mw_tiers_t *tiers)
{
    return tiers->services->deadline_in(tiers->services, NULL, 0);
}

/* --- stores under way ----------------------------------------------------- */

void mw_watch_list(mw_tiers_t *tiers, const cachemw_key_t *key,
                   const cachemw_id_t *id)
{
    mw_heard_t *heard = tiers->heard;
    const apr_uint64_t n =
        __atomic_fetch_add(&heard->next, 1, __ATOMIC_RELAXED);
    mw_listed_t *listed = &heard->listed[n % MW_LISTED];
    apr_uint64_t words[2];

    memcpy(words, id->bytes, sizeof(words));
    __atomic_store_n(&listed->serial, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&listed->key, mw_tiers_hash(key), __ATOMIC_RELAXED);
    __atomic_store_n(&listed->id[0], words[0], __ATOMIC_RELAXED);
    __atomic_store_n(&listed->id[1], words[1], __ATOMIC_RELAXED);
    __atomic_store_n(&listed->serial, n + 1, __ATOMIC_SEQ_CST);
}

/* Take the next entry from *at on that is listed for a key, with this id if
 * there is one, off the list. @return 0: there is none */
static int list_take(mw_heard_t *heard, apr_uint64_t key,
                     const cachemw_id_t *wanted, int *at, cachemw_id_t *id)
{
    for (; *at < MW_LISTED; ++*at) {
        mw_listed_t *listed = &heard->listed[*at];
        apr_uint64_t serial =
            __atomic_load_n(&listed->serial, __ATOMIC_SEQ_CST);
        apr_uint64_t words[2];

        if (!serial || __atomic_load_n(&listed->key, __ATOMIC_RELAXED) != key) {
            continue;
        }
        words[0] = __atomic_load_n(&listed->id[0], __ATOMIC_RELAXED);
        words[1] = __atomic_load_n(&listed->id[1], __ATOMIC_RELAXED);
        memcpy(id->bytes, words, sizeof(words));
        if ((!wanted || !memcmp(id, wanted, sizeof(*id)))
            && __atomic_compare_exchange_n(&listed->serial, &serial, 0, 0,
                                           __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST)) {
            return 1;
        }
    }
    return 0;
}

/* --- what was heard ------------------------------------------------------- */

static cachemw_call_t watch_call(watch_t *watch)
{
    const mw_tiers_t *tiers = watch->tiers;
    cachemw_call_t call = { .pool = watch->scratch };

    apr_pool_clear(watch->scratch);
    call.now = clock_now(tiers)
               + __atomic_load_n(&tiers->watches->offset, __ATOMIC_RELAXED);
    return call;
}

/* Until when the tiers before this one are believed, and which are not. */
static void watch_believe(const watch_t *watch, apr_time_t until)
{
    const mw_tiers_t *tiers = watch->tiers;
    mw_heard_t *heard = tiers->heard;
    int i;

    pthread_mutex_lock(&tiers->watches->mutex);
    __atomic_store_n(&heard->until[watch->at], until, __ATOMIC_RELAXED);
    __atomic_store_n(&heard->doubted[watch->at], watch->unsure,
                     __ATOMIC_RELAXED);
    for (i = 1; i < tiers->n; i++) {
        if (!(tiers->watched & 1u << i)) {
            continue;
        }
        if (heard->doubted[i]) {
            until = 0;
        }
        else if (heard->until[i] < until) {
            until = heard->until[i];
        }
    }
    __atomic_store_n(&heard->alive_until, until, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&tiers->watches->mutex);
}

/* Nobody may bring what it has nearer, so this comes before the notes of the
 * nearer tiers change. */
static void near_doubt(watch_t *watch, int at)
{
    watch->unsure |= 1u << at;
    watch_believe(watch, watch->tiers->heard->until[watch->at]);
}

/* What the tiers before have of a key. From those that are doubted all goes
 * later. */
static void near_drop(watch_t *watch, const cachemw_key_t *key)
{
    mw_tiers_t *tiers = watch->tiers;
    int i;

    for (i = watch->at - 1; i >= 0; i--) {
        const mw_tier_t *tier = &tiers->tier[i];
        const cachemw_call_t call = watch_call(watch);
        cachemw_call_t any_time = call;

        if (mw_tier_is_shared(tiers, i)) {
            continue;
        }
        /* what has expired, too: the clock may be set back */
        any_time.now = 0;
        mw_note_change(tiers, key);
        if (!(watch->unsure & 1u << i)
            && tier->table->exists(tier->self, &any_time, key) != APR_NOTFOUND
            && tier->table->remove(tier->self, &call, key, NULL)
                   != APR_SUCCESS) {
            near_doubt(watch, i);
        }
    }
}

static void near_clear_tier(watch_t *watch, int at)
{
    const mw_tier_t *tier = &watch->tiers->tier[at];
    const cachemw_call_t call = watch_call(watch);

    if (tier->table->clear(tier->self, &call) == APR_SUCCESS) {
        watch->unsure &= ~(1u << at);
    }
    else {
        near_doubt(watch, at);
    }
}

/* @param which a bit for each of them */
static void near_clear(watch_t *watch, unsigned int which)
{
    mw_tiers_t *tiers = watch->tiers;
    int i;

    for (i = watch->at - 1; i >= 0; i--) {
        if ((which & 1u << i) && !mw_tier_is_shared(tiers, i)) {
            mw_note_change_all(tiers);
            near_clear_tier(watch, i);
        }
    }
}

/* Those that are doubted, once more: the notes have changed since then. */
static void near_clear_doubted(watch_t *watch)
{
    const cachemw_services_t *services = watch->tiers->services;
    int i;

    for (i = watch->at - 1; i >= 0; i--) {
        if (!(watch->unsure & 1u << i)) {
            continue;
        }
        near_clear_tier(watch, i);
        if (watch->unsure & 1u << i) {
            services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                          "what is in l%d cannot be removed: it is not asked "
                          "until it is",
                          i + 1);
        }
    }
}

/* What we have stored of it meanwhile is older than that. */
static void listed_drop(watch_t *watch, const cachemw_key_t *key)
{
    mw_tiers_t *tiers = watch->tiers;
    const apr_uint64_t hash = mw_tiers_hash(key);
    const cachemw_services_t *services = tiers->services;
    cachemw_id_t id;
    int at = 0;

    while (list_take(tiers->heard, hash, NULL, &at, &id)) {
        const cachemw_call_t call = watch_call(watch);
        apr_status_t rv = mw_tiers_remove(tiers, &call, key, &id);

        if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
            services->log(services, CACHEMW_LOG_WARNING, rv,
                          "an entry that was stored while another server "
                          "removed or invalidated its key cannot be removed: "
                          "it may stay until it expires");
        }
    }
}

/* What is being stored came before it, and must not stay. The record of
 * variants is amended for each of them. */
static int is_purge(cachemw_change_e what)
{
    return what != CACHEMW_CHANGE_SET && what != CACHEMW_CHANGE_AMENDED;
}

/* In core's purge epochs. */
static void change_enter(const mw_tiers_t *tiers, const cachemw_key_t *key)
{
    const cachemw_services_t *services = tiers->services;

    if (CACHEMW_HAS(services, removed) && services->removed) {
        services->removed(services, key);
    }
}

static void watch_told(void *baton, cachemw_change_e what,
                       const cachemw_key_t *key, const cachemw_id_t *id,
                       int is_own)
{
    watch_t *watch = baton;
    mw_tiers_t *tiers = watch->tiers;
    cachemw_id_t taken;
    int at = 0;

    if (is_own) {
        if (id) {
            list_take(tiers->heard, mw_tiers_hash(key), id, &at, &taken);
        }
        return;
    }
    __atomic_fetch_add(&tiers->heard->messages, 1, __ATOMIC_RELAXED);
    if (is_purge(what)) {
        change_enter(tiers, key);
    }
    if (!key) {
        near_clear(watch, ~0u);
        return;
    }
    near_drop(watch, key);
    if (is_purge(what)) {
        listed_drop(watch, key);
    }
}

/* --- whether we hear ------------------------------------------------------ */

static void watch_hears(watch_t *watch, apr_time_t since)
{
    const cachemw_services_t *services = watch->tiers->services;

    if (watch->old) {
        near_clear(watch, watch->old);
        watch->old = 0;
    }
    watch_believe(watch, since + MW_WATCH_BELIEF);
    if (watch->state == STATE_NEW) {
        services->log(services, CACHEMW_LOG_INFO, APR_SUCCESS,
                      "l%d tells what other servers change", watch->at + 1);
    }
    else if (watch->state == STATE_LOST) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "l%d tells again what other servers change: the tiers "
                      "before it are back in use",
                      watch->at + 1);
    }
    watch->state = STATE_HEARS;
    watch->pause = PAUSE_MIN;
    near_clear_doubted(watch);
}

static void watch_is_lost(watch_t *watch, apr_status_t why)
{
    const cachemw_services_t *services = watch->tiers->services;

    watch_believe(watch, 0);
    if (watch->state != STATE_LOST) {
        services->log(services, CACHEMW_LOG_WARNING, why,
                      "l%d does not tell what other servers change: the tiers "
                      "before it are out of use until it does",
                      watch->at + 1);
    }
    watch->state = STATE_LOST;
}

/* What changed up to now may have been missed. */
static void watch_begins(watch_t *watch)
{
    mw_tiers_t *tiers = watch->tiers;

    if (watch->state == STATE_HEARS) {
        watch_is_lost(watch, APR_SUCCESS);
    }
    __atomic_fetch_add(&tiers->heard->gaps, 1, __ATOMIC_RELAXED);
    change_enter(tiers, NULL);
    near_clear(watch, ~0u);
}

/* --- the thread ----------------------------------------------------------- */

/* @return whether it is to go on */
static int watch_rest(watch_t *watch, apr_interval_time_t pause)
{
    mw_watches_t *watches = watch->tiers->watches;
    const apr_int64_t at = clock_now(watch->tiers) + pause;
    int goes_on;

    pthread_mutex_lock(&watches->mutex);
    while (pause && !watches->is_ending
           && mw_cond_wait(&watches->ending, &watches->mutex, at)) {
    }
    goes_on = !watches->is_ending;
    pthread_mutex_unlock(&watches->mutex);
    return goes_on;
}

/* Of what our own server changes: what a tier kept may have been brought
 * nearer, but not while nobody asked it. */
static void watch_doubt(watch_t *watch)
{
    apr_uint32_t doubts[MW_TIERS_MAX];
    int i;

    mw_changes_doubts(watch->tiers, doubts);
    for (i = 0; i < watch->at; i++) {
        if (doubts[i] != watch->doubts[i] && !(watch->unasked & 1u << i)) {
            watch->old |= ~(~0u << (i + 1));
        }
        watch->doubts[i] = doubts[i];
    }
    watch->unasked = watch->unsure;
}

/* @return how long to wait before the next one */
static apr_interval_time_t watch_turn(watch_t *watch)
{
    mw_tiers_t *tiers = watch->tiers;
    const mw_tier_t *tier = &tiers->tier[watch->at];
    const apr_int64_t begun = clock_now(tiers);
    cachemw_call_t call = watch_call(watch);
    apr_interval_time_t pause;
    apr_status_t rv;

    watch_doubt(watch);
    apr_pool_clear(watch->pool);
    call.pool = watch->pool;
    call.deadline = begun + TURN;
    if (!watch->is_late) {
        watch->since = call.now;
    }
    rv = tier->table->watch(tier->self, &call, watch_told, watch);
    watch->is_late = rv == APR_TIMEUP;
    switch (rv) {
    case APR_SUCCESS:
        watch_hears(watch, watch->since);
        return 0;
    case APR_EINCOMPLETE:
        watch_begins(watch);
        return 0;
    case APR_TIMEUP:
        if (watch->state == STATE_HEARS
            && !mw_watch_believes(tiers->heard->until[watch->at], call.now)) {
            watch_is_lost(watch, rv);
        }
        return 0;
    default:
        watch_is_lost(watch, rv);
        pause = watch->pause;
        watch->pause = pause * 2 < PAUSE_MAX ? pause * 2 : PAUSE_MAX;
        return pause;
    }
}

static void *watch_run(void *data)
{
    watch_t *watch = data;

    while (watch_rest(watch, watch_turn(watch))) {
    }
    return NULL;
}

/* --- life ----------------------------------------------------------------- */

void mw_watch_make(mw_tiers_t *tiers)
{
    const cachemw_services_t *services = tiers->services;
    apr_status_t rv;
    int i;

    tiers->watched = 0;
    for (i = 1; i < tiers->n; i++) {
        const mw_tier_t *tier = &tiers->tier[i];

        if (!tier->table->watch) {
            continue;
        }
        /* one that is off tells nothing: then those before it are not used */
        tiers->watched |= 1u << i;
        rv = tier->table->publish(tier->self);
        if (rv != APR_SUCCESS) {
            services->log(services, CACHEMW_LOG_ERR, rv,
                          "l%d does not tell other servers what this one "
                          "changes there",
                          i + 1);
        }
    }
}

static void watches_stop(mw_watches_t *watches)
{
    int i;

    pthread_mutex_lock(&watches->mutex);
    watches->is_ending = 1;
    pthread_cond_broadcast(&watches->ending);
    pthread_mutex_unlock(&watches->mutex);
    for (i = 0; i < watches->n; i++) {
        pthread_join(watches->one[i].thread, NULL);
        apr_pool_destroy(watches->one[i].memory);
    }
}

/* Before what the threads use goes. */
static apr_status_t watches_end(void *data)
{
    mw_tiers_t *tiers = data;
    mw_watches_t *watches = tiers->watches;

    if (watches) {
        watches_stop(watches);
        pthread_cond_destroy(&watches->ending);
        pthread_mutex_destroy(&watches->mutex);
        free(watches);
        tiers->watches = NULL;
    }
    return APR_SUCCESS;
}

/* Signals are for the main thread. */
static int watch_start(watch_t *watch)
{
    sigset_t all, before;
    int rv;

    if (apr_pool_create(&watch->memory, NULL) != APR_SUCCESS) {
        return APR_ENOMEM;
    }
    apr_pool_create(&watch->pool, watch->memory);
    apr_pool_create(&watch->scratch, watch->memory);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rv = pthread_create(&watch->thread, NULL, watch_run, watch);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rv != 0) {
        apr_pool_destroy(watch->memory);
    }
    return rv;
}

static mw_watches_t *watches_make(void)
{
    mw_watches_t *watches = calloc(1, sizeof(*watches));

    if (watches) {
        pthread_mutex_init(&watches->mutex, NULL);
        mw_cond_init(&watches->ending);
    }
    return watches;
}

/* All are in their places before one begins. */
static apr_status_t watches_begin(mw_tiers_t *tiers, apr_time_t offset)
{
    mw_watches_t *watches = watches_make();
    apr_status_t rv = APR_SUCCESS;
    int i, n = 0;

    if (!watches) {
        return APR_ENOMEM;
    }
    watches->offset = offset;
    for (i = 1; i < tiers->n; i++) {
        if (tiers->watched & 1u << i) {
            watches->one[n].tiers = tiers;
            watches->one[n].at = i;
            watches->one[n++].pause = PAUSE_MIN;
        }
    }
    tiers->watches = watches;
    while (rv == APR_SUCCESS && watches->n < n) {
        rv = watch_start(&watches->one[watches->n]);
        watches->n += rv == APR_SUCCESS;
    }
    if (rv != APR_SUCCESS) {
        watches_end(tiers);
        tiers->services->log(tiers->services, CACHEMW_LOG_WARNING, rv,
                             "no thread can be made that hears what other "
                             "servers change: the tiers before are out of use "
                             "until one is");
    }
    return rv;
}

apr_status_t mw_watch_sweep(void *store, const cachemw_call_t *call, int *more)
{
    mw_tiers_t *tiers = store;
    const apr_time_t offset = call->now - clock_now(tiers);

    *more = 0;
    if (!tiers->watched) {
        return APR_SUCCESS;
    }
    if (!tiers->watches) {
        return watches_begin(tiers, offset);
    }
    __atomic_store_n(&tiers->watches->offset, offset, __ATOMIC_RELAXED);
    return APR_SUCCESS;
}

apr_status_t mw_watch_child_init(mw_tiers_t *tiers, apr_pool_t *pchild)
{
    tiers->watches = NULL;
    if (!tiers->watched) {
        return APR_SUCCESS;
    }
    apr_pool_pre_cleanup_register(pchild, tiers, watches_end);
    return mw_changes_child_init(tiers, pchild);
}

/* --- in all children ------------------------------------------------------ */

unsigned int mw_watch_believed(const mw_tiers_t *tiers, apr_time_t now)
{
    const mw_heard_t *heard = tiers->heard;
    unsigned int believed = ~0u;
    int i;

    for (i = 1; i < tiers->n; i++) {
        if (!(tiers->watched & 1u << i)) {
            continue;
        }
        if (!mw_watch_believes(
                __atomic_load_n(&heard->until[i], __ATOMIC_RELAXED), now)) {
            believed &= ~0u << i;
        }
        believed &= ~__atomic_load_n(&heard->doubted[i], __ATOMIC_RELAXED);
    }
    return believed;
}

void mw_watch_stats(const mw_tiers_t *tiers, apr_time_t now,
                    cachemw_stats_t *stats)
{
    const mw_heard_t *heard = tiers->heard;
    const apr_time_t until =
        __atomic_load_n(&heard->alive_until, __ATOMIC_RELAXED);

    if (!tiers->watched) {
        return;
    }
    stats->extra(stats->baton, "watch_alive", mw_watch_believes(until, now));
    stats->extra(
        stats->baton, "watch_messages",
        (apr_int64_t)__atomic_load_n(&heard->messages, __ATOMIC_RELAXED));
    stats->extra(stats->baton, "watch_gaps",
                 (apr_int64_t)__atomic_load_n(&heard->gaps, __ATOMIC_RELAXED));
    stats->extra(
        stats->baton, "near_bypassed",
        (apr_int64_t)__atomic_load_n(&heard->bypassed, __ATOMIC_RELAXED));
}
