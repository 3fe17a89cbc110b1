/* SPDX-License-Identifier: Apache-2.0 */

/* What can be wrong with the answer of a slot. */

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apr_strings.h"
#include "broken.h"
#include "tests/conformance/reference.h"

#define right ct_reference_provider

static cachemw_call_t call_at(const cachemw_call_t *call, apr_time_t now)
{
    cachemw_call_t other = *call;

    other.now = now;
    return other;
}

static apr_status_t forgets_expiry_get(void *store, const cachemw_call_t *call,
                                       const cachemw_key_t *key,
                                       cachemw_entry_t *entry)
{
    cachemw_call_t other = call_at(call, 0);

    return right.get(store, &other, key, entry);
}

static apr_status_t expires_late_get(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     cachemw_entry_t *entry)
{
    cachemw_call_t other = call_at(call, call->now - 1);

    return right.get(store, &other, key, entry);
}

static apr_status_t reads_clock_get(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    cachemw_entry_t *entry)
{
    cachemw_call_t other = call_at(call, apr_time_now());

    return right.get(store, &other, key, entry);
}

static apr_status_t miss_fails_get(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   cachemw_entry_t *entry)
{
    apr_status_t rv = right.get(store, call, key, entry);

    return rv == APR_NOTFOUND ? APR_EGENERAL : rv;
}

static apr_status_t leaks_memory_get(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     cachemw_entry_t *entry)
{
    static void *volatile last;

    last = malloc(40);
    return last != NULL ? right.get(store, call, key, entry) : APR_ENOMEM;
}

static apr_status_t leaks_files_get(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    cachemw_entry_t *entry)
{
    return open("/dev/null", O_RDONLY) >= 0 ? right.get(store, call, key, entry)
                                            : APR_EGENERAL;
}

static apr_status_t hangs_get(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry)
{
    (void)store;
    (void)call;
    (void)key;
    (void)entry;
    while (pause() != 0) {
    }
    return APR_EGENERAL;
}

static apr_status_t crashes_get(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                cachemw_entry_t *entry)
{
    (void)store;
    (void)call;
    (void)key;
    (void)entry;
    abort();
}

static apr_status_t leaks_open(const cachemw_services_t *services,
                               const cachemw_value_t *values, apr_pool_t *pconf,
                               void **store, const char **error)
{
    static void *volatile last;

    last = malloc(8000);
    return last != NULL ? right.open(services, values, pconf, store, error)
                        : APR_ENOMEM;
}

static apr_status_t crashes_open(const cachemw_services_t *services,
                                 const cachemw_value_t *values,
                                 apr_pool_t *pconf, void **store,
                                 const char **error)
{
    (void)services;
    (void)values;
    (void)pconf;
    (void)store;
    (void)error;
    abort();
}

static apr_status_t exits_get(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry)
{
    (void)store;
    (void)call;
    (void)key;
    (void)entry;
    _exit(3);
}

/* A buffer of the whole process, without a lock. */
static apr_status_t races_get(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, cachemw_entry_t *entry)
{
    static char buffer[CACHEMW_KEY_MAX];
    static volatile apr_size_t length;
    cachemw_key_t mine = { buffer, 0 };

    memcpy(buffer, key->data, key->len);
    length = key->len;
    sched_yield();
    mine.len = length;
    return right.get(store, call, &mine, entry);
}

/* Keys taken for strings. */
static cachemw_key_t key_cut(const cachemw_key_t *key)
{
    const char *nul = memchr(key->data, '\0', key->len);
    cachemw_key_t cut = *key;

    cut.len = nul != NULL ? (apr_size_t)(nul - key->data) : key->len;
    return cut;
}

static apr_status_t crosses_keys_get(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     cachemw_entry_t *entry)
{
    cachemw_key_t cut = key_cut(key);

    return right.get(store, call, &cut, entry);
}

static apr_status_t crosses_keys_set(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     const cachemw_entry_t *entry)
{
    cachemw_key_t cut = key_cut(key);

    return right.set(store, call, &cut, entry);
}

/* Found by a part of the key, and not compared. */
static cachemw_key_t key_begin(const cachemw_key_t *key)
{
    cachemw_key_t begin = { key->data, key->len < 255 ? key->len : 255 };

    return begin;
}

static apr_status_t cuts_keys_get(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  cachemw_entry_t *entry)
{
    cachemw_key_t begin = key_begin(key);

    return right.get(store, call, &begin, entry);
}

static apr_status_t cuts_keys_set(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_entry_t *entry)
{
    cachemw_key_t begin = key_begin(key);

    return right.set(store, call, &begin, entry);
}

/* What is there now is taken for what was meant. */
static apr_status_t amends_any_set_head(void *store, const cachemw_call_t *call,
                                        const cachemw_key_t *key,
                                        const cachemw_id_t *id,
                                        const cachemw_entry_t *entry)
{
    cachemw_entry_t now;

    memset(&now, 0, sizeof(now));
    if (right.get(store, call, key, &now) == APR_SUCCESS) {
        id = &now.id;
    }
    return right.set_head(store, call, key, id, entry);
}

static apr_status_t keeps_expires_set_head(void *store,
                                           const cachemw_call_t *call,
                                           const cachemw_key_t *key,
                                           const cachemw_id_t *id,
                                           const cachemw_entry_t *entry)
{
    cachemw_entry_t now, other = *entry;

    memset(&now, 0, sizeof(now));
    if (right.get(store, call, key, &now) == APR_SUCCESS) {
        other.expires = now.expires;
    }
    return right.set_head(store, call, key, id, &other);
}

/* A new entry is made of a missing one. */
static apr_status_t revives_set_head(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     const cachemw_id_t *id,
                                     const cachemw_entry_t *entry)
{
    apr_status_t rv = right.set_head(store, call, key, id, entry);
    cachemw_entry_t other = *entry;

    other.id = *id;
    other.body = NULL;
    other.body_len = 0;
    return rv == APR_NOTFOUND ? right.set(store, call, key, &other) : rv;
}

static apr_status_t ignores_id_remove(void *store, const cachemw_call_t *call,
                                      const cachemw_key_t *key,
                                      const cachemw_id_t *id)
{
    (void)id;
    return right.remove(store, call, key, NULL);
}

static apr_status_t misses_remove(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id)
{
    cachemw_entry_t now;

    memset(&now, 0, sizeof(now));
    return right.get(store, call, key, &now) == APR_SUCCESS
               ? right.remove(store, call, key, id)
               : APR_NOTFOUND;
}

static apr_status_t refuses_set(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    cachemw_stats_t stats = { .size = sizeof(stats) };

    right.stats(store, call, &stats);
    return stats.bytes > stats.bytes_max / 2
               ? APR_ENOSPC
               : right.set(store, call, key, entry);
}

static apr_status_t grows_stats(void *store, const cachemw_call_t *call,
                                cachemw_stats_t *stats)
{
    apr_status_t rv = right.stats(store, call, stats);

    if (stats->bytes > 2000000) {
        stats->bytes = stats->bytes_max + 1;
    }
    return rv;
}

static apr_status_t nothing_clear(void *store, const cachemw_call_t *call)
{
    (void)store;
    (void)call;
    return APR_SUCCESS;
}

static apr_status_t nothing_sweep(void *store, const cachemw_call_t *call,
                                  int *more)
{
    (void)store;
    (void)call;
    *more = 0;
    return APR_SUCCESS;
}

static apr_status_t endless_sweep(void *store, const cachemw_call_t *call,
                                  int *more)
{
    apr_status_t rv = right.sweep(store, call, more);

    *more = 1;
    return rv;
}

static apr_status_t wipes_sweep(void *store, const cachemw_call_t *call,
                                int *more)
{
    *more = 0;
    return right.clear(store, call);
}

static apr_status_t twice_keys(void *store, const cachemw_call_t *call,
                               const char *pattern, cachemw_keys_fn *each,
                               void *baton)
{
    right.keys(store, call, pattern, each, baton);
    return right.keys(store, call, pattern, each, baton);
}

static apr_status_t expired_keys(void *store, const cachemw_call_t *call,
                                 const char *pattern, cachemw_keys_fn *each,
                                 void *baton)
{
    cachemw_call_t other = call_at(call, 0);

    return right.keys(store, &other, pattern, each, baton);
}

typedef struct each_t {
    cachemw_keys_fn *each;
    void *baton;
} each_t;

static apr_status_t each_on(void *baton, const cachemw_key_t *key,
                            const cachemw_entry_t *entry)
{
    each_t *on = baton;

    on->each(on->baton, key, entry);
    return APR_SUCCESS;
}

static apr_status_t goes_on_keys(void *store, const cachemw_call_t *call,
                                 const char *pattern, cachemw_keys_fn *each,
                                 void *baton)
{
    each_t on = { each, baton };

    return right.keys(store, call, pattern, each_on, &on);
}

static apr_status_t opens_file_open(const cachemw_services_t *services,
                                    const cachemw_value_t *values,
                                    apr_pool_t *pconf, void **store,
                                    const char **error)
{
    return open("/dev/null", O_RDONLY) >= 0
               ? right.open(services, values, pconf, store, error)
               : APR_EGENERAL;
}

/* Memory of each child's own instead of a shared segment. */
static apr_status_t private_segment(const cachemw_services_t *services,
                                    apr_size_t size, apr_uint64_t layout,
                                    void **base, int *is_new)
{
    (void)services;
    (void)layout;
    *base = calloc(1, size);
    *is_new = 1;
    return *base != NULL ? APR_SUCCESS : APR_ENOMEM;
}

static apr_status_t private_open(const cachemw_services_t *services,
                                 const cachemw_value_t *values,
                                 apr_pool_t *pconf, void **store,
                                 const char **error)
{
    cachemw_services_t *own = apr_pmemdup(pconf, services, sizeof(*services));

    own->segment = private_segment;
    return right.open(own, values, pconf, store, error);
}

/* A lock for all processes that is lost with the one that holds it. */
static pthread_mutex_t *fragile;

static apr_status_t fragile_open(const cachemw_services_t *services,
                                 const cachemw_value_t *values,
                                 apr_pool_t *pconf, void **store,
                                 const char **error)
{
    pthread_mutexattr_t attributes;

    fragile = mmap(NULL, sizeof(*fragile), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fragile == MAP_FAILED) {
        return APR_ENOMEM;
    }
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(fragile, &attributes);
    return right.open(services, values, pconf, store, error);
}

static apr_status_t fragile_set(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    apr_status_t rv;

    pthread_mutex_lock(fragile);
    /* Most of a child's time, so that its death falls into it; then others
     * get the lock, too. */
    apr_sleep(3000);
    rv = right.set(store, call, key, entry);
    pthread_mutex_unlock(fragile);
    apr_sleep(300);
    return rv;
}

static apr_status_t lingering_get(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  cachemw_entry_t *entry)
{
    if (call->deadline != 0) {
        apr_sleep(apr_time_from_sec(3));
    }
    return right.get(store, call, key, entry);
}

static apr_status_t careless_get(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 cachemw_entry_t *entry)
{
    apr_off_t length = entry->body_len;
    apr_status_t rv = right.get(store, call, key, entry);

    entry->body_len = length;
    return rv;
}

const ct_broken_t ct_broken_slots[] = {
    { "forgets_expiry",
      "test_entry_is_gone_exactly_at_expires",
      "exactly at its expires",
      NULL,
      { .get = forgets_expiry_get } },
    { "expires_late",
      "test_entry_is_gone_exactly_at_expires",
      "exactly at its expires",
      NULL,
      { .get = expires_late_get } },
    { "reads_the_clock",
      "test_expiration",
      "two seconds after",
      NULL,
      { .get = reads_clock_get } },
    { "fails_for_a_miss",
      "test_get_nonexistent_key",
      "APR_EGENERAL",
      NULL,
      { .get = miss_fails_get } },
    { "leaks_memory",
      "test_calls_leave_no_memory_behind",
      "memory",
      NULL,
      { .get = leaks_memory_get } },
    { "leaks_memory_in_open",
      "test_open_and_close_leave_no_memory_behind",
      "memory",
      NULL,
      { .open = leaks_open } },
    { "leaks_descriptors",
      "test_calls_leave_no_descriptors_open",
      "descriptors open",
      NULL,
      { .get = leaks_files_get } },
    { "hangs", "test_set_and_get", "hangs", NULL, { .get = hangs_get } },
    { "crashes", "test_set_and_get", "signal 6", NULL, { .get = crashes_get } },
    { "crashes_in_open",
      "test_set_and_get",
      "signal 6, in open of crashes_in_open",
      NULL,
      { .open = crashes_open } },
    { "exits",
      "test_set_and_get",
      "exit status 3",
      NULL,
      { .get = exits_get } },
    { "races",
      "test_threads_mix_all_calls",
      "another key",
      NULL,
      { .get = races_get } },
    { "crosses_keys_at_nul",
      "test_keys_differing_after_nul",
      "behind a NUL byte",
      NULL,
      { .get = crosses_keys_get, .set = crosses_keys_set } },
    { "compares_255_bytes_of_a_key",
      "test_keys_differing_in_last_byte",
      "differ in the last of 256 bytes",
      NULL,
      { .get = cuts_keys_get, .set = cuts_keys_set } },
    { "amends_the_wrong_id",
      "test_set_head_of_an_older_id_changes_nothing",
      "the 304 of an old response",
      NULL,
      { .set_head = amends_any_set_head } },
    { "amends_without_expires",
      "test_set_head_changes_expires",
      "expires",
      NULL,
      { .set_head = keeps_expires_set_head } },
    { "amends_what_is_gone",
      "test_set_head_of_nothing_is_not_found",
      "no entry",
      NULL,
      { .set_head = revives_set_head } },
    { "ignores_the_id_of_remove",
      "test_remove_of_an_older_id_keeps_the_newer",
      "the entry that was there before",
      NULL,
      { .remove = ignores_id_remove } },
    { "does_not_remove_twice",
      "test_remove_twice_succeeds",
      "the second remove",
      NULL,
      { .remove = misses_remove } },
    { "is_full_for_good",
      "test_bytes_stay_within_the_cap",
      "APR_ENOSPC",
      NULL,
      { .set = refuses_set } },
    { "grows_over_its_cap",
      "test_bytes_stay_within_the_cap",
      "its cap is",
      NULL,
      { .stats = grows_stats } },
    { "does_not_clear",
      "test_clear_removes_every_entry",
      "after clear",
      NULL,
      { .clear = nothing_clear } },
    { "does_not_sweep",
      "test_sweep_drops_what_has_expired",
      "after sweep",
      NULL,
      { .sweep = nothing_sweep } },
    { "sweeps_without_an_end",
      "test_sweep_of_an_empty_store",
      "more to do after",
      NULL,
      { .sweep = endless_sweep } },
    { "sweeps_too_much",
      "test_sweep_drops_what_has_expired",
      "after a sweep of other",
      NULL,
      { .sweep = wipes_sweep } },
    { "tells_keys_twice",
      "test_keys_tells_every_entry_once",
      "told 2 times",
      NULL,
      { .keys = twice_keys } },
    { "tells_expired_keys",
      "test_keys_leaves_out_expired_and_removed",
      "has expired",
      NULL,
      { .keys = expired_keys } },
    { "does_not_stop_telling_keys",
      "test_keys_stops_when_told",
      "told to stop",
      NULL,
      { .keys = goes_on_keys } },
    { "touches_files_in_open",
      "test_open_touches_nothing",
      "opened a file",
      NULL,
      { .open = opens_file_open } },
    { "keeps_a_store_per_child",
      "test_processes_share_entries",
      "another child",
      NULL,
      { .open = private_open } },
    { "dies_with_its_lock",
      "test_child_killed_while_storing_harms_no_other",
      "hangs",
      NULL,
      { .open = fragile_open, .set = fragile_set } },
    { "forgets_the_deadline",
      "test_calls_past_their_deadline_return_at_once",
      "whose deadline was past",
      NULL,
      { .get = lingering_get } },
    { "leaves_fields_unset",
      "test_set_and_get",
      "body_len",
      NULL,
      { .get = careless_get } },
    { "keeps_removals_per_child",
      "test_removal_holds_for_all_processes",
      "another child removed",
      NULL,
      { .open = private_open } },
    { .name = NULL }
};
