/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file harness.h
 * @brief What tests are written with: a store to call, time to set, entries
 *        whose content tells what they are, threads and processes.
 *
 * A ct_t belongs to one thread. Functions that fail or skip the test do not
 * return. Threads and children that a test starts get a ct_t of their own;
 * what fails there fails the test when it joins them.
 */
#ifndef CT_HARNESS_H
#define CT_HARNESS_H

#include <setjmp.h>

#include "conformance.h"
#include "core/store.h"

#define CT_HOUR apr_time_from_sec(3600)
#define CT_KB 1024
#define CT_MB (1024 * 1024)

/** What outlives a generation: directory, segments, and one lock. */
typedef struct ct_site_t {
    const char *dir;    /**< the fresh directory {tmp} */
    void *segments;     /**< mw_segments_size() bytes */
    apr_pool_t *parent; /**< for segments */
    /** In memory of all processes of the test: the slot of a store's life that
     *  is under way, for who watches; NULL: none. */
    const char *volatile *slot;
} ct_site_t;

/** The hands of a test, of a thread or of a child. */
typedef struct ct_t {
    const ct_plan_t *plan;
    const ct_site_t *site;

    /** @name The open store; NULL when it is not. @{ */
    apr_pool_t *pconf;
    apr_pool_t *pchild; /**< between ct_child_start() and ct_child_end() */
    mw_store_t *store;
    /** The provider's table; slots beyond its size are NULL. */
    cachemw_provider_t table;
    void *raw; /**< what the provider's open() returned */
    const cachemw_services_t *services;
    apr_off_t body_max; /**< largest body that the store takes */
    void *world;        /**< the other stores and the host; harness's own */
    /** @} */

    apr_pool_t *pool; /**< life of the test, the thread or the child */
    apr_bucket_alloc_t *alloc;
    apr_time_t now;       /**< what the next call carries */
    apr_int64_t deadline; /**< likewise; 0: none */
    const char *salt;     /**< beginning of ct_key()'s keys */
    int emptied;          /**< the store is known to begin empty */
    /** Whom children that are forked become, and post_config is told of; 0:
     *  they stay who they are. */
    apr_uid_t uid;
    apr_gid_t gid;

    int told, hear; /**< descriptors towards the parent, in a child */
    ct_result_t result;
    jmp_buf escape;
} ct_t;

/** @name Verdicts @{ */

void ct_fail(ct_t *c, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
void ct_skip(ct_t *c, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));

/** Fail with a message unless the condition holds. */
#define ct_check(c, condition, ...)  \
    do {                             \
        if (!(condition)) {          \
            ct_fail(c, __VA_ARGS__); \
        }                            \
    } while (0)

/** Fail unless a call returned what it must. */
void ct_status(ct_t *c, apr_status_t rv, apr_status_t wanted,
               const char *format, ...) __attribute__((format(printf, 4, 5)));

/** Skip unless the provider (or core for it) has what a test is about. */
void ct_need(ct_t *c, int condition, const char *what);

/** @} */

/** @name Life @{ */

/** Run a body with verdicts caught in c->result; c->pool lives as long. */
void ct_guard(ct_t *c, void (*run)(ct_t *c, void *baton), void *baton);

/** Fill in c->table: for tests that look at it without opening a store. */
void ct_table_find(ct_t *c);
/** open and post_config of all stores, in the parent. */
void ct_open(ct_t *c);
/** open alone, as under `httpd -t`. */
void ct_open_only(ct_t *c);
/** close and drop the configuration; the children's segments stay. */
void ct_close(ct_t *c);
/** One of the stores beside the tested one; NULL: there are fewer. */
mw_store_t *ct_other(const ct_t *c, int i);
/** Play the child in this process. */
void ct_child_start(ct_t *c);
void ct_child_end(ct_t *c);

/** @} */

/**
 * @name Calls
 * On the provider's slot; through core where it has none, or when the plan says
 * so. They carry c->now, c->deadline, c->pool and c->alloc, and hold the
 * mutex that CACHEMW_SERIALIZE asks for.
 * @{
 */
/**
 * Whether a call without a deadline is to be made again: APR_TIMEUP says that
 * somebody has kept a lock for too long, which happens where more processes
 * want to run than can. All but keys, sweep and the calls of a set are. Ten
 * seconds, then it is an answer like any other: what was lost stays so.
 * @param tries 0 before the first call
 */
int ct_is_late(const ct_t *c, apr_status_t rv, int *tries);

apr_status_t ct_get(ct_t *c, const cachemw_key_t *key, cachemw_entry_t *entry);
apr_status_t ct_read(ct_t *c, const cachemw_key_t *key, const cachemw_id_t *id,
                     apr_off_t offset, apr_size_t limit,
                     apr_bucket_brigade *body);
apr_status_t ct_set(ct_t *c, const cachemw_key_t *key,
                    const cachemw_entry_t *entry);
apr_status_t ct_set_head(ct_t *c, const cachemw_key_t *key,
                         const cachemw_id_t *id, const cachemw_entry_t *entry);
apr_status_t ct_remove(ct_t *c, const cachemw_key_t *key,
                       const cachemw_id_t *id);
apr_status_t ct_exists(ct_t *c, const cachemw_key_t *key);
apr_status_t ct_lock(ct_t *c, const cachemw_key_t *key,
                     const cachemw_id_t *token, apr_interval_time_t ttl,
                     cachemw_id_t *holder);
apr_status_t ct_unlock(ct_t *c, const cachemw_key_t *key,
                       const cachemw_id_t *token);
apr_status_t ct_clear(ct_t *c);
apr_status_t ct_keys(ct_t *c, const char *pattern, cachemw_keys_fn *each,
                     void *baton);
/** @param limit microseconds until the deadline; negative: it is past */
apr_status_t ct_sweep(ct_t *c, apr_interval_time_t limit, int *more);
apr_status_t ct_stats(ct_t *c, cachemw_stats_t *stats);

/** A set in pieces; by core's spool where the provider cannot stream. */
typedef struct ct_set_t {
    apr_pool_t *pool; /**< of set_begin; destroyed by commit and abort */
    void *raw;
    mw_set_t *core;
} ct_set_t;

/** Non-zero when ct_begin() and the others go to the provider's own slots. */
int ct_streams(const ct_t *c);
apr_status_t ct_begin(ct_t *c, const cachemw_key_t *key,
                      const cachemw_entry_t *entry, ct_set_t *set);
apr_status_t ct_write(ct_t *c, ct_set_t *set, const char *data,
                      apr_size_t length);
apr_status_t ct_commit(ct_t *c, ct_set_t *set);
void ct_abort(ct_t *c, ct_set_t *set);

/** Whether get may answer with a first piece only. */
int ct_reads(const ct_t *c);

/** Whether there is something to sweep: the store, or its tiers. */
int ct_sweeps(const ct_t *c);
/** Sweep with 10 ms steps until there is no more to do. */
void ct_sweep_all(ct_t *c);
/** Whether get may tell this expires of an entry that was set with `set`: tiers
 *  may forget earlier than that. */
int ct_expires_fit(const ct_t *c, apr_time_t told, apr_time_t set);
/** Whether stats tells how many entries there are, if anybody does. */
int ct_counts(ct_t *c);
/** Entries held; skips the test when stats does not tell. */
apr_int64_t ct_entries(ct_t *c);

/** @} */

/**
 * @name Items: entries whose head and body follow from their key and version
 * Any mixture of two of them is detected.
 * @{
 */
typedef struct ct_item_t {
    cachemw_key_t key;
    apr_uint32_t version;      /**< of the body */
    apr_uint32_t head_version; /**< starts as version; set_head changes it */
    apr_size_t head_len;
    apr_off_t body_len;
    apr_time_t expires;
    cachemw_id_t id;
} ct_item_t;

/** Below this a head is too short to tell what it is. */
#define CT_HEAD_MIN 64

/** A key, salted where a store cannot be emptied; in c->pool. */
cachemw_key_t ct_key(ct_t *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** A key of exactly these bytes, copied. */
cachemw_key_t ct_key_bytes(ct_t *c, const void *bytes, apr_size_t length);
/** How a key is shown in a message. */
const char *ct_key_show(ct_t *c, const cachemw_key_t *key);

/** An item that expires in an hour, with a head of 200 bytes. */
ct_item_t ct_item(ct_t *c, const cachemw_key_t *key, apr_uint32_t version,
                  apr_off_t body_len);
/** The same key with other content. */
ct_item_t ct_item_next(ct_t *c, const ct_item_t *item, apr_off_t body_len);

/** Its head, in pool. */
const void *ct_item_head(const ct_item_t *item, apr_pool_t *pool);
/** Bytes of its body. */
void ct_item_bytes(const ct_item_t *item, apr_off_t offset, char *buffer,
                   apr_size_t length);
/** The entry to store it, all but its body; head in pool. */
cachemw_entry_t ct_item_entry(const ct_item_t *item, apr_pool_t *pool);

/** Store in one piece and return what set returned. */
apr_status_t ct_try_store(ct_t *c, const ct_item_t *item);
/** Store in one piece; fails unless that succeeds. */
void ct_store(ct_t *c, const ct_item_t *item);
/** Stream in pieces of this many bytes; -1 announced if not `announce`. */
apr_status_t ct_try_stream(ct_t *c, const ct_item_t *item, apr_size_t piece,
                           int announce);
/** Replace head and expires by those of the item. */
apr_status_t ct_amend(ct_t *c, const ct_item_t *item);

/** It must be found, exactly so. @param when for the message: "after …" */
void ct_require(ct_t *c, const ct_item_t *item, const char *when);
/** Nothing may be found under the key, with and without the body. */
void ct_require_miss(ct_t *c, const cachemw_key_t *key, const char *when);
/**
 * Whatever is found under the key must be whole and belong together.
 * @param seen what it was; may be NULL
 * @return 0: nothing was found, or it was replaced while being read
 */
int ct_see(ct_t *c, const cachemw_key_t *key, ct_item_t *seen);
/** What a body's buckets hold must be the item's bytes from offset on.
 *  @return how many bytes that was */
apr_off_t ct_compare(ct_t *c, const ct_item_t *item, apr_off_t offset,
                     apr_bucket_brigade *body, const char *when);

/** @} */

/** @name Threads and processes @{ */

typedef void ct_actor_fn(ct_t *c, int index, void *baton);

/** Run `n` threads and join them; the first failure fails the test. */
void ct_threads(ct_t *c, int n, ct_actor_fn *run, void *baton);

typedef struct ct_child_t {
    pid_t pid;
    int index;
    int result, told, say;
} ct_child_t;

/** Fork a child, which starts (child_init) and runs. */
ct_child_t *ct_spawn(ct_t *c, ct_actor_fn *run, int index, void *baton);
/** Let it end; fails the test when it failed or died. */
void ct_join(ct_t *c, ct_child_t *child);
/** SIGKILL, and reap. */
void ct_kill(ct_t *c, ct_child_t *child);
/** Fork n children at once and join them. */
void ct_children(ct_t *c, int n, ct_actor_fn *run, void *baton);

/** In the child: tell the parent a byte; wait for one. */
void ct_tell(ct_t *c, char what);
char ct_wait(ct_t *c);
/** Whether the parent has said something that ct_wait() would return. */
int ct_heard(const ct_t *c);
/** In the parent. */
void ct_say(ct_t *c, ct_child_t *child, char what);
char ct_hear(ct_t *c, ct_child_t *child);

/** @} */

/** When a test counts as hanging. */
unsigned int ct_seconds(const ct_plan_t *plan);

/** A deterministic stream of numbers for a test's choices. */
apr_uint64_t ct_random(apr_uint64_t *state);

/** Descriptors that this process has open; -1: cannot tell. */
int ct_descriptors(void);

/**
 * Fails when doing something again and again takes more and more memory. Where
 * malloc does not tell what it has handed out, as under checkers, this is
 * skipped, or left to them.
 * @param before times that fill what malloc and libraries keep for themselves
 * @param what "so many calls", of `times`
 */
void ct_no_memory_left(ct_t *c, void (*repeat)(ct_t *c, int times), int before,
                       int times, const char *what);

/** What an actor of ct_mix() may do. */
typedef struct ct_mix_t {
    int rounds;           /**< 0: until ct_heard() */
    int keys;             /**< how many keys all of them work on */
    int clears;           /**< whether it clears now and then */
    apr_off_t length_max; /**< of bodies */
} ct_mix_t;

/**
 * An actor that gets, sets, streams, aborts, amends, removes and sweeps at
 * random, and checks all that it sees. baton: a ct_mix_t.
 */
void ct_mix(ct_t *c, int index, void *baton);

/** The tables of tests, by subject; each ends with a row without a name. */
extern const ct_test_t ct_tests_entries[];
extern const ct_test_t ct_tests_keys[];
extern const ct_test_t ct_tests_streams[];
extern const ct_test_t ct_tests_amend[];
extern const ct_test_t ct_tests_buckets[];
extern const ct_test_t ct_tests_expiry[];
extern const ct_test_t ct_tests_bounds[];
extern const ct_test_t ct_tests_inventory[];
extern const ct_test_t ct_tests_locks[];
extern const ct_test_t ct_tests_life[];
extern const ct_test_t ct_tests_threads[];
extern const ct_test_t ct_tests_processes[];
extern const ct_test_t ct_tests_user[];
extern const ct_test_t ct_tests_guide[];

#define CT_TEST(f) \
    {              \
#f, f, 0   \
    }
#define CT_TEST_AS(f, flags) \
    {                        \
#f, f, flags         \
    }
#define CT_TESTS_END  \
    {                 \
        NULL, NULL, 0 \
    }

#endif
