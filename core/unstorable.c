/* SPDX-License-Identifier: Apache-2.0 */

#include "core/state_layout.h"

/*
 * What proved not to be storable, in sets of a few words each:
 *
 *     63                                  20  19        0
 *     +-------------------------------------+-----------+
 *     | until, monotonic, in 32 µs          | key's tag |   0: free
 *     +-------------------------------------+-----------+
 *
 * Losing one costs a short wait, a wrong one (two keys of one set and tag) a
 * request to the origin too many.
 */

#define TAG_BITS 20
#define TICK_BITS 5

static apr_uint64_t entry_tag(apr_uint64_t hash)
{
    return hash & ((APR_UINT64_C(1) << TAG_BITS) - 1);
}

static apr_int64_t entry_until(apr_uint64_t entry)
{
    return (apr_int64_t)(entry >> TAG_BITS << TICK_BITS);
}

/* The word of a key, or else the one in its set that ends first. */
static apr_uint64_t *entry_find(const mw_state_t *state, apr_uint64_t hash)
{
    const apr_uint64_t *set =
        state->unstorable[(hash >> 40) % MW_UNSTORABLE_SETS];
    const apr_uint64_t *first = set;
    int i;

    for (i = 0; i < MW_UNSTORABLE_WAYS; i++) {
        const apr_uint64_t entry = __atomic_load_n(&set[i], __ATOMIC_RELAXED);

        if (entry && entry_tag(entry) == entry_tag(hash)) {
            return (apr_uint64_t *)&set[i];
        }
        if (entry_until(entry)
            < entry_until(__atomic_load_n(first, __ATOMIC_RELAXED))) {
            first = &set[i];
        }
    }
    return (apr_uint64_t *)first;
}

void mw_unstorable_note(mw_state_t *state, const cachemw_key_t *key,
                        apr_int64_t now, apr_int64_t until)
{
    const apr_uint64_t hash = mw_state_hash(state, key);
    apr_uint64_t *word = entry_find(state, hash);
    const apr_uint64_t entry = __atomic_load_n(word, __ATOMIC_RELAXED);

    /* Not each of the many requests for such a page need write. */
    if (entry_tag(entry) != entry_tag(hash)
        || entry_until(entry) - now < (until - now) / 2) {
        __atomic_store_n(word,
                         (apr_uint64_t)until >> TICK_BITS << TAG_BITS
                             | entry_tag(hash),
                         __ATOMIC_RELAXED);
    }
}

int mw_unstorable_is_known(const mw_state_t *state, const cachemw_key_t *key,
                           apr_int64_t now)
{
    const apr_uint64_t hash = mw_state_hash(state, key);
    const apr_uint64_t entry =
        __atomic_load_n(entry_find(state, hash), __ATOMIC_RELAXED);

    return entry_tag(entry) == entry_tag(hash) && now < entry_until(entry);
}

void mw_unstorable_forget(mw_state_t *state, const cachemw_key_t *key)
{
    const apr_uint64_t hash = mw_state_hash(state, key);
    apr_uint64_t *word = entry_find(state, hash);
    apr_uint64_t entry = __atomic_load_n(word, __ATOMIC_RELAXED);

    if (entry && entry_tag(entry) == entry_tag(hash)) {
        __atomic_compare_exchange_n(word, &entry, 0, 0, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED);
    }
}
