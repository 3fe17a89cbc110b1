/* SPDX-License-Identifier: Apache-2.0 */

/* Tiers in front of one that other servers change. That one tells what the test
 * has it tell, to the thread that watches it. */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"
#include "providers/multitier/watch.h"
#include "core/store_private.h"
#include "store_fixture.h"

#define EVENTS 16
#define PATIENCE 20 /* s */
#define LATER apr_time_from_sec(3600)

/* What watch() does next: return a status, or tell a change. */
typedef struct event_t {
    apr_status_t rv;
    int is_change;
    cachemw_change_e what;
    const char *key; /* NULL: all */
    char id;         /* 0: none */
    int is_own;
} event_t;

/* The far tier, between the test and the thread. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    event_t events[EVENTS];
    int n, done;
    int returned;      /* calls of watch() */
    apr_status_t rest; /* what those return that have nothing to do */
    int published;
    apr_status_t publish;     /* what publish() returns */
    const event_t *in_commit; /* told in the middle of set_commit */
    mw_tiers_t *crossed;      /* by a change elsewhere, in each set_head */
    char log[4096];
} far = { .mutex = PTHREAD_MUTEX_INITIALIZER,
          .changed = PTHREAD_COND_INITIALIZER };

static struct {
    int clear_fails, remove_fails; /* atomic */
    int is_deadly;                 /* who changes something dies */
    apr_int64_t until;             /* set_head does not return before */
} near;

static cachemw_provider_t far_table, near_table;

static struct {
    fixture_t *f;
    mw_store_t *near, *middle, *far, *store;
    apr_pool_t *pchild;
} tiers;

/* --- the far tier --------------------------------------------------------- */

static void wait_changed(int *seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    if (pthread_cond_timedwait(&far.changed, &far.mutex, &until) == ETIMEDOUT
        && --*seconds == 0) {
        pthread_mutex_unlock(&far.mutex);
        fail_msg("nobody watches");
    }
}

/* Tell it, and wait until a later call has returned: it was heeded. */
static void far_does(event_t event)
{
    int seconds = PATIENCE;
    int returned;

    pthread_mutex_lock(&far.mutex);
    assert_in_range(far.n, 0, EVENTS - 1);
    far.events[far.n++] = event;
    pthread_cond_broadcast(&far.changed);
    while (far.done < far.n) {
        wait_changed(&seconds);
    }
    returned = far.returned + 2;
    while (far.returned < returned) {
        wait_changed(&seconds);
    }
    far.n = far.done = 0;
    pthread_mutex_unlock(&far.mutex);
}

static void far_returns(apr_status_t rv)
{
    far_does((event_t){ .rv = rv });
}

static void far_rests_with(apr_status_t rv)
{
    pthread_mutex_lock(&far.mutex);
    far.rest = rv;
    pthread_mutex_unlock(&far.mutex);
    far_returns(rv);
}

static void far_tells(cachemw_change_e what, const char *key, char id,
                      int is_own)
{
    far_does((event_t){
        .is_change = 1, .what = what, .key = key, .id = id, .is_own = is_own });
}

static void event_tell(const event_t *event, cachemw_watch_fn *each,
                       void *baton)
{
    cachemw_key_t key = fixture_key(event->key ? event->key : "");
    cachemw_id_t id;

    memset(&id, event->id, sizeof(id));
    each(baton, event->what, event->key ? &key : NULL, event->id ? &id : NULL,
         event->is_own);
}

static apr_status_t far_publish(void *store)
{
    (void)store;
    far.published++;
    return far.publish;
}

/* Does not wait for the deadline: the test would have to. */
static apr_status_t far_watch(void *store, const cachemw_call_t *call,
                              cachemw_watch_fn *each, void *baton)
{
    apr_status_t rv = APR_SUCCESS;
    event_t event;

    (void)store;
    (void)call;
    apr_sleep(1000);
    pthread_mutex_lock(&far.mutex);
    if (far.done == far.n) {
        rv = far.rest;
    }
    while (far.done < far.n && rv == APR_SUCCESS) {
        event = far.events[far.done];
        if (event.is_change) {
            pthread_mutex_unlock(&far.mutex);
            event_tell(&event, each, baton);
            pthread_mutex_lock(&far.mutex);
        }
        rv = event.rv;
        far.done++;
    }
    far.returned++;
    pthread_cond_broadcast(&far.changed);
    pthread_mutex_unlock(&far.mutex);
    return rv;
}

static apr_status_t far_set_commit(void *store, const cachemw_call_t *call,
                                   void *set)
{
    const event_t *event = far.in_commit;
    apr_status_t rv = mw_memory_provider.set_commit(store, call, set);

    far.in_commit = NULL;
    if (event) {
        far_does(*event);
    }
    return rv;
}

static apr_status_t far_set_head(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_id_t *id,
                                 const cachemw_entry_t *entry)
{
    if (far.crossed) {
        mw_note_change(far.crossed, key);
    }
    return mw_memory_provider.set_head(store, call, key, id, entry);
}

/* --- the near one --------------------------------------------------------- */

static void near_changes(void)
{
    if (near.is_deadly) {
        _exit(0);
    }
}

static apr_status_t near_clear(void *store, const cachemw_call_t *call)
{
    near_changes();
    return __atomic_load_n(&near.clear_fails, __ATOMIC_SEQ_CST)
               ? EIO
               : mw_memory_provider.clear(store, call);
}

static apr_status_t near_remove(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    near_changes();
    return __atomic_load_n(&near.remove_fails, __ATOMIC_SEQ_CST)
               ? EIO
               : mw_memory_provider.remove(store, call, key, id);
}

static apr_status_t near_set_head(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id,
                                  const cachemw_entry_t *entry)
{
    near_changes();
    while (mw_monotonic() < near.until) {
        apr_sleep(1000);
    }
    return mw_memory_provider.set_head(store, call, key, id, entry);
}

/* It is there when who commits it dies. */
static apr_status_t near_set_commit(void *store, const cachemw_call_t *call,
                                    void *set)
{
    apr_status_t rv = mw_memory_provider.set_commit(store, call, set);

    near_changes();
    return rv;
}

/* --- stores --------------------------------------------------------------- */

static void test_log(void *baton, cachemw_level_e level, apr_status_t rv,
                     const char *text)
{
    apr_size_t used;

    (void)baton, (void)level, (void)rv;
    pthread_mutex_lock(&far.mutex);
    used = strlen(far.log);
    snprintf(far.log + used, sizeof(far.log) - used, "%s\n", text);
    pthread_mutex_unlock(&far.mutex);
}

/* How often the log says this. */
static int logged(const char *text)
{
    const char *at = far.log;
    int n = 0;

    pthread_mutex_lock(&far.mutex);
    while ((at = strstr(at, text)) != NULL) {
        at++;
        n++;
    }
    pthread_mutex_unlock(&far.mutex);
    return n;
}

static mw_store_t *tiers_find(void *baton, const char *name)
{
    (void)baton;
    return !strcmp(name, "near")     ? tiers.near
           : !strcmp(name, "middle") ? tiers.middle
           : !strcmp(name, "far")    ? tiers.far
                                     : NULL;
}

static mw_store_t *store_start(const char *name,
                               const cachemw_provider_t *table,
                               const char *const *options)
{
    tiers.f->name = tiers.f->provider_name = name;
    if (fixture_open(tiers.f, table, options) != APR_SUCCESS) {
        fail_msg("open: %s", tiers.f->error);
    }
    assert_int_equal(mw_store_post_config(tiers.f->store, tiers.f->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(mw_store_child_init(tiers.f->store, tiers.pchild),
                     APR_SUCCESS);
    return tiers.f->store;
}

static int test_setup(void **state)
{
    int rv = fixture_setup(state);

    memset(&tiers, 0, sizeof(tiers));
    memset(&near, 0, sizeof(near));
    far.n = far.done = far.returned = far.published = 0;
    far.rest = far.publish = APR_SUCCESS;
    far.crossed = NULL;
    *far.log = '\0';
    tiers.f = *state;
    tiers.f->host.find = tiers_find;
    tiers.f->host.log = test_log;
    apr_pool_create(&tiers.pchild, NULL);
    far_table = near_table = mw_memory_provider;
    far_table.publish = far_publish;
    far_table.watch = far_watch;
    far_table.set_commit = far_set_commit;
    far_table.set_head = far_set_head;
    near_table.set_commit = near_set_commit;
    near_table.set_head = near_set_head;
    near_table.clear = near_clear;
    near_table.remove = near_remove;
    tiers.near = store_start("near", &near_table, OPTIONS("size=8M"));
    tiers.far = store_start("far", &far_table, OPTIONS("size=8M"));
    tiers.store = store_start("multi", &mw_multitier_provider,
                              OPTIONS("l1=near", "l2=far"));
    return rv;
}

static int test_teardown(void **state)
{
    if (tiers.pchild) {
        apr_pool_destroy(tiers.pchild);
    }
    return fixture_teardown(state);
}

static void sweep_at(apr_time_t now)
{
    cachemw_call_t call = fixture_call(tiers.f);
    int more;

    call.now = now;
    assert_true(mw_store_can_sweep(tiers.store));
    assert_int_equal(mw_store_sweep(tiers.store, &call, &more), APR_SUCCESS);
    assert_int_equal(more, 0);
}

static void sweep(void)
{
    sweep_at(FIXTURE_NOW);
}

/* The near tier is believed. */
static void start(void)
{
    sweep();
    far_returns(APR_EINCOMPLETE);
    far_returns(APR_SUCCESS);
}

static void put(mw_store_t *store, const char *text, char id)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = fixture_entry(id, "head", 0);

    entry.expires = FIXTURE_NOW + 2 * LATER;
    assert_int_equal(mw_store_set(store, &call, &key, &entry), APR_SUCCESS);
}

/* The id of what a store has, 0: nothing.
 * @param pool goes when the answer has been sent */
static char has_in(mw_store_t *store, const char *text, apr_time_t now,
                   apr_pool_t *pool)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = { .body = NULL };

    call.now = now;
    call.pool = pool;
    return mw_store_get(store, &call, &key, &entry) == APR_SUCCESS
               ? (char)entry.id.bytes[0]
               : 0;
}

/* A time at which near tiers are believed, if they are at all. */
static apr_time_t now_heard(void)
{
    const mw_tiers_t *self = tiers.store->self;
    const apr_time_t until =
        __atomic_load_n(&self->heard->until[self->n - 1], __ATOMIC_RELAXED)
        - apr_time_from_msec(100);

    return until > FIXTURE_NOW ? until : FIXTURE_NOW;
}

static char has(mw_store_t *store, const char *text)
{
    apr_pool_t *pool;
    char id;

    apr_pool_create(&pool, NULL);
    id = has_in(store, text, now_heard(), pool);
    apr_pool_destroy(pool);
    return id;
}

static apr_int64_t figure(const char *name)
{
    return fixture_figure(tiers.f, tiers.store, name);
}

/* --- believing ------------------------------------------------------------ */

/* It is off, say: then it tells us nothing either. */
static void test_far_tier_that_cannot_tell_leaves_near_ones_unused(void **state)
{
    (void)state;
    far.publish = EIO;
    tiers.store = store_start("mute", &mw_multitier_provider,
                              OPTIONS("l1=near", "l2=far"));
    assert_int_equal(logged("l2 does not tell other servers"), 1);
    put(tiers.near, "page", 'n');
    put(tiers.far, "page", 'f');
    assert_int_equal(has(tiers.store, "page"), 'f');
}

static void test_near_tier_is_not_asked_before_the_far_one_is_heard(
    void **state)
{
    (void)state;
    assert_int_equal(far.published, 1);
    put(tiers.near, "page", 'n');
    assert_int_equal(has(tiers.store, "page"), 0);
    put(tiers.far, "page", 'f');
    assert_int_equal(has(tiers.store, "page"), 'f');
    assert_int_equal(figure("near_bypassed"), 2);
    assert_int_equal(figure("watch_alive"), 0);
    /* and gets nothing */
    assert_int_equal(has(tiers.near, "page"), 'n');
}

static void test_tiers_that_need_not_agree_listen_to_nobody(void **state)
{
    (void)state;
    tiers.store = store_start("alone", &mw_multitier_provider,
                              OPTIONS("l1=near", "l2=far", "agree=off"));
    assert_int_equal(far.published, 1);
    sweep();
    put(tiers.near, "page", 'n');
    assert_int_equal(has(tiers.store, "page"), 'n');
    assert_int_equal(figure("near_bypassed"), -1);
}

static void sweep_without_threads(void)
{
    cachemw_call_t call = fixture_call(tiers.f);
    pthread_attr_t before, huge;
    int more;

    assert_int_equal(pthread_getattr_default_np(&before), 0);
    assert_int_equal(pthread_attr_init(&huge), 0);
    assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 52), 0);
    assert_int_equal(pthread_setattr_default_np(&huge), 0);
    assert_int_not_equal(mw_store_sweep(tiers.store, &call, &more),
                         APR_SUCCESS);
    assert_int_equal(pthread_setattr_default_np(&before), 0);
    pthread_attr_destroy(&huge);
    pthread_attr_destroy(&before);
}

static void test_thread_that_cannot_be_is_told(void **state)
{
    (void)state;
    sweep_without_threads();
    assert_int_equal(logged("no thread can be made"), 1);
    start();
    assert_int_equal(figure("watch_alive"), 1);
}

static void test_near_tier_begins_empty(void **state)
{
    (void)state;
    put(tiers.near, "page", 'n');
    start();
    assert_int_equal(has(tiers.near, "page"), 0);
    put(tiers.store, "page", 's');
    assert_int_equal(has(tiers.store, "page"), 's');
    assert_int_equal(figure("answered_by_l1"), 1);
    assert_int_equal(figure("watch_alive"), 1);
    assert_int_equal(figure("watch_gaps"), 1);
    assert_int_equal(logged("l2 tells what other servers change"), 1);
}

static void test_belief_ends_when_nothing_is_heard(void **state)
{
    (void)state;
    start();
    put(tiers.near, "page", 'n');
    put(tiers.far, "page", 'f');
    assert_int_equal(has(tiers.store, "page"), 'n');
    assert_int_equal(
        has_in(tiers.store, "page", FIXTURE_NOW + LATER, tiers.f->pool), 'f');
    assert_int_equal(figure("near_bypassed"), 1);
}

static void test_clock_that_is_set_back(void **state)
{
    const apr_time_t back = FIXTURE_NOW - LATER;
    const apr_time_t little = FIXTURE_NOW - apr_time_from_sec(2);

    (void)state;
    start();
    put(tiers.near, "page", 'n');
    put(tiers.far, "page", 'f');
    assert_int_equal(has_in(tiers.store, "page", back, tiers.f->pool), 'f');
    assert_int_equal(has_in(tiers.store, "page", little, tiers.f->pool), 'f');
    assert_int_equal(figure("near_bypassed"), 2);
    sweep_at(back);
    far_returns(APR_SUCCESS);
    assert_int_equal(has_in(tiers.store, "page", back, tiers.f->pool), 'n');
    assert_int_equal(has(tiers.store, "page"), 'f');
}

static void test_belief_ends_when_the_watch_is_lost(void **state)
{
    (void)state;
    start();
    put(tiers.near, "page", 'n');
    put(tiers.far, "page", 'f');
    assert_int_equal(has(tiers.store, "page"), 'n');
    far_rests_with(EIO);
    assert_int_equal(figure("watch_alive"), 0);
    assert_int_equal(has(tiers.store, "page"), 'f');
}

static void test_what_was_missed_is_forgotten(void **state)
{
    (void)state;
    start();
    put(tiers.near, "page", 'n');
    far_returns(EIO);
    assert_int_equal(logged("l2 does not tell what other servers change"), 1);
    far_returns(EIO);
    assert_int_equal(has(tiers.near, "page"), 'n');
    far_returns(APR_EINCOMPLETE);
    assert_int_equal(has(tiers.near, "page"), 0);
    assert_int_equal(logged("l2 tells again what other servers change"), 1);
    assert_int_equal(logged("l2 does not tell what other servers change"), 1);
    assert_int_equal(figure("watch_gaps"), 2);
}

static void test_late_answer_is_no_gap(void **state)
{
    (void)state;
    start();
    put(tiers.near, "page", 'n');
    far_returns(APR_TIMEUP);
    far_returns(APR_SUCCESS);
    assert_int_equal(has(tiers.near, "page"), 'n');
    assert_int_equal(figure("watch_gaps"), 1);
}

static void test_near_tier_that_cannot_be_emptied_is_not_believed(void **state)
{
    (void)state;
    __atomic_store_n(&near.clear_fails, 1, __ATOMIC_SEQ_CST);
    put(tiers.near, "page", 'n');
    start();
    assert_int_equal(has(tiers.store, "page"), 0);
    assert_int_equal(figure("watch_alive"), 0);
    assert_true(logged("cannot be removed") > 0);
    __atomic_store_n(&near.clear_fails, 0, __ATOMIC_SEQ_CST);
    far_returns(APR_SUCCESS);
    assert_int_equal(figure("watch_alive"), 1);
    assert_int_equal(has(tiers.near, "page"), 0);
}

static void test_process_that_ends_waits_for_no_one(void **state)
{
    int returned;

    (void)state;
    start();
    apr_pool_destroy(tiers.pchild);
    tiers.pchild = NULL;
    returned = far.returned;
    apr_sleep(20000);
    assert_int_equal(far.returned, returned);
}

/* --- changes elsewhere ---------------------------------------------------- */

static void test_change_elsewhere_takes_the_near_copy(void **state)
{
    static const cachemw_change_e changes[] = {
        CACHEMW_CHANGE_SET, CACHEMW_CHANGE_AMENDED, CACHEMW_CHANGE_INVALIDATED,
        CACHEMW_CHANGE_REMOVED, CACHEMW_CHANGE_CLEARED
    };
    apr_size_t i;

    (void)state;
    start();
    for (i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        int is_all = changes[i] == CACHEMW_CHANGE_CLEARED;

        put(tiers.near, "page", 'n');
        put(tiers.near, "other", 'n');
        far_tells(changes[i], is_all ? NULL : "page", 'x', 0);
        assert_int_equal(has(tiers.near, "page"), 0);
        assert_int_equal(has(tiers.near, "other"), is_all ? 0 : 'n');
    }
    assert_int_equal(figure("watch_messages"), 5);
    assert_int_equal(figure("watch_gaps"), 1);
}

static void test_change_elsewhere_takes_what_has_expired_too(void **state)
{
    (void)state;
    start();
    put(tiers.near, "page", 'n');
    sweep_at(FIXTURE_NOW + 3 * LATER);
    far_tells(CACHEMW_CHANGE_REMOVED, "page", 0, 0);
    assert_int_equal(has(tiers.near, "page"), 0);
}

static apr_status_t middle_watch(void *store, const cachemw_call_t *call,
                                 cachemw_watch_fn *each, void *baton)
{
    (void)store, (void)call, (void)each, (void)baton;
    apr_sleep(1000);
    return APR_SUCCESS;
}

/* All servers have it, and it tells itself what they change there. */
static void test_watched_tier_loses_nothing_by_another(void **state)
{
    cachemw_provider_t table = far_table;

    (void)state;
    table.watch = middle_watch;
    table.set_commit = mw_memory_provider.set_commit;
    tiers.middle = store_start("middle", &table, OPTIONS("size=8M"));
    tiers.store = store_start("three", &mw_multitier_provider,
                              OPTIONS("l1=near", "l2=middle", "l3=far"));
    start();
    put(tiers.store, "page", 's');
    far_tells(CACHEMW_CHANGE_SET, "page", 'x', 0);
    assert_int_equal(has(tiers.near, "page"), 0);
    assert_int_equal(has(tiers.middle, "page"), 's');
    far_returns(APR_EINCOMPLETE);
    assert_int_equal(has(tiers.middle, "page"), 's');
    assert_int_equal(has(tiers.store, "page"), 's');
}

static void test_change_of_our_own_does_not(void **state)
{
    (void)state;
    start();
    put(tiers.store, "page", 's');
    far_tells(CACHEMW_CHANGE_SET, "page", 's', 1);
    far_tells(CACHEMW_CHANGE_AMENDED, "page", 's', 1);
    far_tells(CACHEMW_CHANGE_INVALIDATED, "page", 's', 1);
    far_tells(CACHEMW_CHANGE_REMOVED, "page", 0, 1);
    far_tells(CACHEMW_CHANGE_CLEARED, NULL, 0, 1);
    assert_int_equal(has(tiers.near, "page"), 's');
    assert_int_equal(figure("watch_messages"), 0);
}

static void test_near_copy_that_stays_takes_all_with_it(void **state)
{
    (void)state;
    start();
    put(tiers.near, "page", 'n');
    __atomic_store_n(&near.clear_fails, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&near.remove_fails, 1, __ATOMIC_SEQ_CST);
    far_tells(CACHEMW_CHANGE_REMOVED, "page", 0, 0);
    assert_true(logged("cannot be removed") > 0);
    __atomic_store_n(&near.clear_fails, 0, __ATOMIC_SEQ_CST);
    far_returns(APR_SUCCESS);
    assert_int_equal(has(tiers.near, "page"), 0);
    assert_int_equal(figure("watch_alive"), 1);
}

/* Others are asked, and filled, as if it were not there. */
static void test_tier_that_cannot_be_emptied_stops_no_other(void **state)
{
    cachemw_call_t call = fixture_call(*state);
    cachemw_key_t key = fixture_key("third");

    tiers.near = store_start("clean", &mw_memory_provider, OPTIONS("size=8M"));
    tiers.middle = store_start("middle", &near_table, OPTIONS("size=8M"));
    tiers.store = store_start("three", &mw_multitier_provider,
                              OPTIONS("l1=near", "l2=middle", "l3=far"));
    start();
    put(tiers.near, "other", 'n');
    put(tiers.middle, "page", 'm');
    put(tiers.far, "page", 'f');
    __atomic_store_n(&near.remove_fails, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&near.clear_fails, 1, __ATOMIC_SEQ_CST);
    far_tells(CACHEMW_CHANGE_SET, "page", 'f', 0);
    assert_true(logged("what is in l2 cannot be removed") > 0);
    assert_int_equal(has(tiers.store, "page"), 'f');
    assert_int_equal(has(tiers.near, "page"), 'f');
    assert_int_equal(has(tiers.store, "other"), 'n');
    assert_int_equal(mw_store_remove(tiers.store, &call, &key, NULL), EIO);
    far_returns(APR_SUCCESS);
    assert_int_equal(has(tiers.store, "other"), 'n');
    far_tells(CACHEMW_CHANGE_SET, "page", 'f', 0);
    assert_int_equal(has(tiers.near, "page"), 0);
    far_returns(APR_EINCOMPLETE);
    assert_int_equal(has(tiers.near, "other"), 0);
    assert_int_equal(has(tiers.middle, "page"), 'm');
    assert_int_equal(has(tiers.store, "page"), 'f');
    assert_int_equal(has(tiers.near, "page"), 'f');
    __atomic_store_n(&near.clear_fails, 0, __ATOMIC_SEQ_CST);
    far_returns(APR_SUCCESS);
    assert_int_equal(has(tiers.middle, "page"), 0);
    assert_int_equal(figure("watch_alive"), 1);
    put(tiers.middle, "third", 'm');
    assert_int_equal(has(tiers.store, "third"), 'm');
}

/* --- changes elsewhere that cross ours ------------------------------------ */

static void test_fill_that_a_change_overtakes(void **state)
{
    apr_pool_t *answer;

    (void)state;
    start();
    put(tiers.far, "page", 'f');
    apr_pool_create(&answer, NULL);
    assert_int_equal(has_in(tiers.store, "page", now_heard(), answer), 'f');
    far_tells(CACHEMW_CHANGE_SET, "page", 'x', 0);
    apr_pool_destroy(answer);
    assert_int_equal(has(tiers.near, "page"), 0);
    assert_int_equal(has(tiers.store, "page"), 'f');
    assert_int_equal(has(tiers.near, "page"), 'f');
}

static mw_set_t *set_begin(const char *text, char id)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = fixture_entry(id, "head", 0);
    mw_set_t *set = NULL;

    call.purge_epoch = mw_epoch_now(mw_store_state(tiers.store));
    assert_int_equal(
        mw_store_set_begin(tiers.store, &call, &key, &key, &entry, &set),
        APR_SUCCESS);
    return set;
}

static apr_status_t set_end(mw_set_t *set)
{
    cachemw_call_t call = fixture_call(tiers.f);

    return mw_store_set_commit(set, &call);
}

static void test_store_that_a_purge_elsewhere_overtakes(void **state)
{
    static const cachemw_change_e purges[] = { CACHEMW_CHANGE_INVALIDATED,
                                               CACHEMW_CHANGE_REMOVED,
                                               CACHEMW_CHANGE_CLEARED };
    mw_set_t *set;
    apr_size_t i;

    (void)state;
    start();
    for (i = 0; i < sizeof(purges) / sizeof(purges[0]); i++) {
        set = set_begin("page", 's');
        far_tells(purges[i],
                  purges[i] == CACHEMW_CHANGE_CLEARED ? NULL : "page", 0, 0);
        assert_int_equal(set_end(set), APR_NOTFOUND);
        assert_int_equal(has(tiers.far, "page"), 0);
        assert_int_equal(has(tiers.near, "page"), 0);
    }
    set = set_begin("page", 's');
    far_returns(APR_EINCOMPLETE);
    assert_int_equal(set_end(set), APR_NOTFOUND);
}

static void test_store_that_a_change_elsewhere_precedes(void **state)
{
    static const cachemw_change_e changes[] = { CACHEMW_CHANGE_SET,
                                                CACHEMW_CHANGE_AMENDED };
    mw_set_t *set;
    apr_size_t i;

    (void)state;
    start();
    for (i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        set = set_begin("page", 's');
        far_tells(changes[i], "page", 'x', 0);
        assert_int_equal(set_end(set), APR_SUCCESS);
        assert_int_equal(has(tiers.far, "page"), 's');
        assert_int_equal(has(tiers.near, "page"), 's');
    }
}

/* As the record of variants, of which each server adds some. */
static void test_amendment_elsewhere_leaves_what_all_share(void **state)
{
    (void)state;
    start();
    assert_int_equal(set_end(set_begin("page", 's')), APR_SUCCESS);
    far_tells(CACHEMW_CHANGE_AMENDED, "page", 's', 0);
    assert_int_equal(has(tiers.far, "page"), 's');
    assert_int_equal(has(tiers.near, "page"), 0);
}

static void test_store_during_which_a_purge_is_heard(void **state)
{
    static const event_t purge = { .is_change = 1,
                                   .what = CACHEMW_CHANGE_REMOVED,
                                   .key = "page" };

    (void)state;
    start();
    far.in_commit = &purge;
    assert_int_equal(set_end(set_begin("page", 's')), APR_NOTFOUND);
    assert_int_equal(has(tiers.far, "page"), 0);
    assert_int_equal(has(tiers.near, "page"), 0);
}

/* Whether it came before ours or after is not known then. */
static void test_store_during_which_another_is_heard(void **state)
{
    static const event_t other = {
        .is_change = 1, .what = CACHEMW_CHANGE_SET, .key = "page", .id = 'x'
    };

    (void)state;
    start();
    far.in_commit = &other;
    assert_int_equal(set_end(set_begin("page", 's')), APR_SUCCESS);
    assert_int_equal(has(tiers.far, "page"), 's');
    assert_int_equal(has(tiers.near, "page"), 0);
}

static void test_store_that_was_there_before_a_purge_was_heard(void **state)
{
    (void)state;
    start();
    assert_int_equal(set_end(set_begin("page", 's')), APR_SUCCESS);
    assert_int_equal(set_end(set_begin("other", 's')), APR_SUCCESS);
    far_tells(CACHEMW_CHANGE_INVALIDATED, "page", 'x', 0);
    assert_int_equal(has(tiers.far, "page"), 0);
    assert_int_equal(has(tiers.near, "page"), 0);
    assert_int_equal(has(tiers.far, "other"), 's');
    assert_int_equal(has(tiers.near, "other"), 's');
}

/* The far tier has told of ours first: so the purge came after it, and did with
 * it what it wanted. */
static void test_purge_that_came_later_has_been_seen_to(void **state)
{
    (void)state;
    start();
    assert_int_equal(set_end(set_begin("page", 's')), APR_SUCCESS);
    far_tells(CACHEMW_CHANGE_SET, "page", 's', 1);
    far_tells(CACHEMW_CHANGE_INVALIDATED, "page", 's', 0);
    assert_int_equal(has(tiers.far, "page"), 's');
    assert_int_equal(has(tiers.near, "page"), 0);
}

/* A purge may have come before it, just as listening began. */
static void test_store_before_near_tiers_are_emptied(void **state)
{
    (void)state;
    start();
    assert_int_equal(set_end(set_begin("page", 's')), APR_SUCCESS);
    far_returns(APR_EINCOMPLETE);
    far_tells(CACHEMW_CHANGE_REMOVED, "page", 0, 0);
    assert_int_equal(has(tiers.far, "page"), 0);
    assert_int_equal(has(tiers.near, "page"), 0);
}

static void test_amendment_that_a_purge_elsewhere_preceded(void **state)
{
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("page");
    cachemw_entry_t entry = fixture_entry('s', "other head", 0);

    (void)state;
    start();
    put(tiers.store, "page", 's');
    far_tells(CACHEMW_CHANGE_SET, "page", 's', 1);
    call = fixture_call(tiers.f);
    assert_int_equal(
        mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry),
        APR_SUCCESS);
    far_tells(CACHEMW_CHANGE_INVALIDATED, "page", 's', 0);
    assert_int_equal(has(tiers.far, "page"), 0);
}

static apr_status_t amend(const char *text, char id, apr_int64_t deadline)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = fixture_entry(id, "other head", 0);

    call.deadline = deadline;
    entry.expires = FIXTURE_NOW + 2 * LATER;
    return mw_store_set_head(tiers.store, &call, &key, &entry.id, &entry);
}

/* What was heard in between may have come first, and what is near be older, also
 * when amending has used up all the time that there is. */
static void test_amendment_that_a_change_elsewhere_crosses(void **state)
{
    const apr_int64_t deadline = mw_monotonic() + apr_time_from_msec(500);
    cachemw_provider_t remote = near_table;

    (void)state;
    remote.flags |= CACHEMW_REMOTE;
    tiers.middle = store_start("middle", &remote, OPTIONS("size=8M"));
    tiers.store = store_start("elsewhere", &mw_multitier_provider,
                              OPTIONS("l1=middle", "l2=far"));
    start();
    put(tiers.store, "page", 's');
    far.crossed = tiers.store->self;
    near.until = deadline;
    assert_int_equal(amend("page", 's', deadline), APR_SUCCESS);
    assert_int_equal(has(tiers.far, "page"), 's');
    assert_int_equal(has(tiers.middle, "page"), 0);
}

/* --- changes that are half done -------------------------------------------- */

/* Perhaps a child that is stopped has the lock. */
static void test_near_tier_that_keeps_what_was_to_go_is_emptied(void **state)
{
    cachemw_call_t call;
    cachemw_key_t key = fixture_key("page");

    (void)state;
    start();
    put(tiers.store, "page", 's');
    __atomic_store_n(&near.remove_fails, 1, __ATOMIC_SEQ_CST);
    call = fixture_call(tiers.f);
    assert_int_not_equal(mw_store_remove(tiers.store, &call, &key, NULL),
                         APR_SUCCESS);
    far_returns(APR_SUCCESS);
    assert_int_equal(has(tiers.near, "page"), 0);
    assert_int_equal(figure("watch_alive"), 1);
    put(tiers.store, "other", 's');
    __atomic_store_n(&near.clear_fails, 1, __ATOMIC_SEQ_CST);
    assert_int_not_equal(mw_store_clear(tiers.store, &call), APR_SUCCESS);
    __atomic_store_n(&near.clear_fails, 0, __ATOMIC_SEQ_CST);
    far_returns(APR_SUCCESS);
    assert_int_equal(has(tiers.near, "other"), 0);
}

static void change_remove(void)
{
    cachemw_call_t call = fixture_call(tiers.f);
    cachemw_key_t key = fixture_key("page");

    mw_store_remove(tiers.store, &call, &key, NULL);
}

static void change_clear(void)
{
    cachemw_call_t call = fixture_call(tiers.f);

    mw_store_clear(tiers.store, &call);
}

static void change_set(void)
{
    put(tiers.store, "page", 'o');
}

static void change_amend(void)
{
    amend("page", 'n', 0);
}

/* What it brings near may have been removed meanwhile. */
static void change_fill(void)
{
    has(tiers.store, "filled");
}

static void change_nothing(void)
{
    _exit(0);
}

#define CHANGES (sizeof(changes) / sizeof(changes[0]))

static void (*const changes[])(void) = { change_nothing, change_remove,
                                         change_clear,   change_set,
                                         change_amend,   change_fill };

/* Children that wait until they are told, for by then there are threads here;
 * or until the test ends. */
static void children_begin(pid_t pids[], int told[])
{
    apr_pool_t *pchild;
    int pipes[2];
    char byte;
    apr_size_t i, k;

    for (i = 0; i < CHANGES; i++) {
        assert_int_equal(pipe(pipes), 0);
        told[i] = pipes[1];
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] != 0) {
            close(pipes[0]);
            continue;
        }
        for (k = 0; k <= i; k++) {
            close(told[k]);
        }
        apr_pool_create(&pchild, NULL);
        mw_store_child_init(tiers.near, pchild);
        mw_store_child_init(tiers.far, pchild);
        mw_store_child_init(tiers.store, pchild);
        near.is_deadly = 1;
        if (read(pipes[0], &byte, 1) == 1) {
            changes[i]();
        }
        _exit(1);
    }
}

static void test_child_that_dies_in_the_middle_of_a_change(void **state)
{
    pid_t pids[CHANGES];
    int told[CHANGES];
    apr_size_t i;
    int status;

    (void)state;
    children_begin(pids, told);
    start();
    for (i = 0; i < CHANGES; i++) {
        put(tiers.far, "page", 'n');
        put(tiers.far, "filled", 'f');
        put(tiers.near, "page", 'n');
        assert_int_equal(write(told[i], "", 1), 1);
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
        far_returns(APR_SUCCESS);
        assert_int_equal(has(tiers.near, "page"), i == 0 ? 'n' : 0);
        assert_int_equal(has(tiers.near, "filled"), 0);
        assert_int_equal(figure("watch_alive"), 1);
        close(told[i]);
    }
    assert_int_equal(figure("watch_gaps"), 1);
}

#define WATCH_TEST(name) \
    cmocka_unit_test_setup_teardown(name, test_setup, test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCH_TEST(test_near_tier_is_not_asked_before_the_far_one_is_heard),
        WATCH_TEST(test_far_tier_that_cannot_tell_leaves_near_ones_unused),
        WATCH_TEST(test_tiers_that_need_not_agree_listen_to_nobody),
        WATCH_TEST(test_thread_that_cannot_be_is_told),
        WATCH_TEST(test_near_tier_begins_empty),
        WATCH_TEST(test_belief_ends_when_nothing_is_heard),
        WATCH_TEST(test_clock_that_is_set_back),
        WATCH_TEST(test_belief_ends_when_the_watch_is_lost),
        WATCH_TEST(test_what_was_missed_is_forgotten),
        WATCH_TEST(test_late_answer_is_no_gap),
        WATCH_TEST(test_near_tier_that_cannot_be_emptied_is_not_believed),
        WATCH_TEST(test_process_that_ends_waits_for_no_one),
        WATCH_TEST(test_change_elsewhere_takes_the_near_copy),
        WATCH_TEST(test_change_elsewhere_takes_what_has_expired_too),
        WATCH_TEST(test_watched_tier_loses_nothing_by_another),
        WATCH_TEST(test_change_of_our_own_does_not),
        WATCH_TEST(test_near_copy_that_stays_takes_all_with_it),
        WATCH_TEST(test_tier_that_cannot_be_emptied_stops_no_other),
        WATCH_TEST(test_fill_that_a_change_overtakes),
        WATCH_TEST(test_store_that_a_purge_elsewhere_overtakes),
        WATCH_TEST(test_store_that_a_change_elsewhere_precedes),
        WATCH_TEST(test_amendment_elsewhere_leaves_what_all_share),
        WATCH_TEST(test_store_during_which_a_purge_is_heard),
        WATCH_TEST(test_store_during_which_another_is_heard),
        WATCH_TEST(test_store_that_was_there_before_a_purge_was_heard),
        WATCH_TEST(test_purge_that_came_later_has_been_seen_to),
        WATCH_TEST(test_store_before_near_tiers_are_emptied),
        WATCH_TEST(test_amendment_that_a_purge_elsewhere_preceded),
        WATCH_TEST(test_amendment_that_a_change_elsewhere_crosses),
        WATCH_TEST(test_near_tier_that_keeps_what_was_to_go_is_emptied),
        WATCH_TEST(test_child_that_dies_in_the_middle_of_a_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
