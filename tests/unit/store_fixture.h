/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file store_fixture.h
 * @brief A store over a small provider that does as it is told: fails, lies,
 *        lets something else happen meanwhile. For the tests of core/store*.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "apr_hash.h"
#include "apr_strings.h"

#include "core/store.h"

#define FIXTURE_NOW ((apr_time_t)1700000000 * APR_USEC_PER_SEC)
#define FIXTURE_LINES 64

typedef enum fake_slot_e {
    FAKE_OPEN,
    FAKE_CLOSE,
    FAKE_POST_CONFIG,
    FAKE_CHILD_INIT,
    FAKE_GET,
    FAKE_READ,
    FAKE_SET,
    FAKE_REMOVE,
    FAKE_SET_HEAD,
    FAKE_SET_BEGIN,
    FAKE_SET_WRITE,
    FAKE_SET_COMMIT,
    FAKE_SET_ABORT,
    FAKE_EXISTS,
    FAKE_CLEAR,
    FAKE_KEYS,
    FAKE_SWEEP,
    FAKE_SYNC,
    FAKE_STATS,
    FAKE_LOCK,
    FAKE_UNLOCK,
    FAKE_SLOTS
} fake_slot_e;

typedef enum fake_lie_e {
    FAKE_HONEST,
    FAKE_LONG_BODY,       /**< a byte more than body_len */
    FAKE_SHORT_BODY,      /**< a byte less */
    FAKE_NO_BODY,         /**< none at all */
    FAKE_FOREIGN_BODY,    /**< in a brigade of its own */
    FAKE_METADATA,        /**< an EOS behind the body */
    FAKE_UNKNOWN_LENGTH,  /**< body_len -1 */
    FAKE_LONG_HEAD,       /**< beyond CACHEMW_HEAD_MAX */
    FAKE_NULL_HEAD,       /**< head_len without a head */
    FAKE_EXPIRED,         /**< an entry that expires this very moment */
    FAKE_LONG_PIECE,      /**< read: more than asked for */
    FAKE_EMPTY_PIECE,     /**< read: nothing */
    FAKE_BUCKETS_BUT_FAIL /**< APR_NOTFOUND, yet buckets */
} fake_lie_e;

/** The provider's memory and its orders. */
typedef struct fake_t {
    apr_pool_t *pool;
    apr_hash_t *entries;
    const cachemw_services_t *services;
    const cachemw_value_t *values;
    apr_status_t fail[FAKE_SLOTS]; /**< returned instead of doing it */
    int calls[FAKE_SLOTS];
    cachemw_call_t seen; /**< of the last call, unless during is set */
    apr_off_t announced; /**< body_len of the last set or set_begin */
    apr_size_t piece;    /**< get gives this much of a body; 0: all */
    fake_lie_e lie;
    apr_hash_t *locks;       /**< by key: the token of who has it */
    apr_interval_time_t ttl; /**< of the last lock */
    int open_sets;           /**< begun, neither committed nor aborted */
    apr_off_t limit;         /**< object_limit() */
    void (*during)(fake_slot_e slot); /**< runs inside a slot */
} fake_t;

extern fake_t fake;

/** All slots, local, in pieces and at once. Locks have no end. */
extern const cachemw_provider_t fake_full;
/** open, close, get, set, remove and nothing else. */
extern const cachemw_provider_t fake_small;

typedef struct fixture_t {
    apr_pool_t *pool;
    apr_bucket_alloc_t *alloc;
    mw_host_t host;
    const char *lines[FIXTURE_LINES];
    int nlines;
    mw_store_t *store;
    const char *name; /**< of the next store that is opened; NULL: shop */
    const char *provider_name; /**< likewise; NULL: fake */
    mw_store_t *other; /**< what the host finds under the name "other" */
    const char *error; /**< of fixture_open() */
} fixture_t;

int fixture_setup(void **state);
int fixture_teardown(void **state);

/** A test with a fixture of its own in *state, for its program's table. */
#define TEST(name) \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

/** @name Options of a store that is opened @{ */
#define NONE ((const char *const *)NULL)
#define OPTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })
/** @} */

/** Open only. `options` are name=value words, ended by NULL. */
apr_status_t fixture_open(fixture_t *f, const cachemw_provider_t *table,
                          const char *const *options);
/** Open, post_config and child_init; fails the test when one does. */
mw_store_t *fixture_start(fixture_t *f, const cachemw_provider_t *table,
                          const char *const *options);

/** A call at FIXTURE_NOW, which is not sampled. */
cachemw_call_t fixture_call(const fixture_t *f);
cachemw_key_t fixture_key(const char *text);
/** An entry that expires a minute later; id filled with `id`. */
cachemw_entry_t fixture_entry(char id, const char *head, apr_off_t body_len);
/** Set through the store; the body has `length` times 'x'. */
void fixture_set(fixture_t *f, const char *key, char id, apr_size_t length);
/** The body, flattened, after mw_store_get(); NULL and *rv when it misses. */
const char *fixture_get(fixture_t *f, const char *key, apr_status_t *rv);
apr_uint64_t fixture_sum(const fixture_t *f, mw_counter_e which);
/** What stats() tells under this name; -1: nothing. */
apr_int64_t fixture_figure(const fixture_t *f, mw_store_t *store,
                           const char *name);
/** How many log lines contain `text`. */
int fixture_logged(const fixture_t *f, const char *text);

#endif
