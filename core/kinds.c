/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_lib.h"

#include "core/state_layout.h"

/*
 * A place is claimed first, named then, and stays: who dies between leaves one
 * without a name, which nobody uses. Two that claim places for one name at once
 * make two of it, which the reader adds up.
 */
enum { KIND_FREE, KIND_CLAIMED, KIND_NAMED };

/* What has no place of its own any more is counted here. */
#define KIND_REST "other"

static void kind_write_name(char *to, const char *name)
{
    apr_size_t i;

    memset(to, 0, MW_KIND_NAME_MAX + 1);
    for (i = 0; i < MW_KIND_NAME_MAX && name[i]; i++) {
        to[i] = apr_isalnum(name[i]) || name[i] == '-' ? name[i] : '_';
    }
}

/* Whether the place has, or can be given, this name. */
static int kind_take(mw_kind_t *kind, const char *name)
{
    apr_uint32_t claim = __atomic_load_n(&kind->claim, __ATOMIC_ACQUIRE);

    if (claim == KIND_FREE
        && __atomic_compare_exchange_n(&kind->claim, &claim, KIND_CLAIMED, 0,
                                       __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
        memcpy(kind->name, name, sizeof(kind->name));
        __atomic_store_n(&kind->claim, KIND_NAMED, __ATOMIC_RELEASE);
        return 1;
    }
    return claim == KIND_NAMED && !memcmp(kind->name, name, sizeof(kind->name));
}

void mw_kind_count(mw_state_t *state, const char *name, apr_uint64_t n)
{
    char exact[MW_KIND_NAME_MAX + 1];
    int i;

    kind_write_name(exact, name);
    for (i = 0; i < MW_KINDS - 1 && !kind_take(&state->kinds[i], exact); i++) {
    }
    if (i == MW_KINDS - 1) {
        kind_write_name(exact, KIND_REST);
        kind_take(&state->kinds[i], exact);
    }
    __atomic_fetch_add(&state->kinds[i].n, n, __ATOMIC_RELAXED);
}

/* The next place with this name, from i on; MW_KINDS: none. */
static int kind_find(const mw_state_t *state, const char *name, int i)
{
    for (; i < MW_KINDS; i++) {
        const mw_kind_t *kind = &state->kinds[i];

        if (__atomic_load_n(&kind->claim, __ATOMIC_ACQUIRE) == KIND_NAMED
            && (!name || !strcmp(kind->name, name))) {
            break;
        }
    }
    return i;
}

void mw_kinds_each(const mw_state_t *state, mw_kinds_fn *each, void *baton)
{
    int i, j;

    for (i = kind_find(state, NULL, 0); i < MW_KINDS;
         i = kind_find(state, NULL, i + 1)) {
        const char *name = state->kinds[i].name;
        apr_uint64_t sum = 0;

        if (kind_find(state, name, 0) < i) {
            continue;
        }
        for (j = i; j < MW_KINDS; j = kind_find(state, name, j + 1)) {
            sum += __atomic_load_n(&state->kinds[j].n, __ATOMIC_RELAXED);
        }
        each(baton, name, sum);
    }
}
