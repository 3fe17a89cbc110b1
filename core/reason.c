/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "core/crc32c.h"
#include "core/state_layout.h"

/*
 * Words are written without waiting for who else does: two at once, or one that
 * dies in the middle, leave what does not fit its sum, and that is nothing until
 * the next failure.
 */

enum { SUM, STATUS, KIND, TEXT };

static apr_uint64_t reason_sum(const mw_reason_t *reason)
{
    return mw_crc32c(0, &reason->words[SUM + 1],
                     sizeof(reason->words) - sizeof(reason->words[SUM]));
}

static void reason_load(const mw_state_t *state, mw_reason_t *to)
{
    apr_size_t i;

    for (i = 0; i < MW_REASON_WORDS; i++) {
        to->words[i] =
            __atomic_load_n(&state->reason.words[i], __ATOMIC_RELAXED);
    }
}

/* What is there already is not written: failures come in swarms. */
void mw_reason_note(mw_state_t *state, apr_status_t why, apr_uint32_t kind,
                    const char *text)
{
    mw_reason_t now,
        next = { .words = { [STATUS] = (apr_uint64_t)why, [KIND] = kind } };
    apr_size_t i;

    apr_cpystrn((char *)&next.words[TEXT], text, MW_REASON_MAX);
    next.words[SUM] = reason_sum(&next);
    reason_load(state, &now);
    if (!memcmp(&now, &next, sizeof(now))) {
        return;
    }
    for (i = 0; i < MW_REASON_WORDS; i++) {
        __atomic_store_n(&state->reason.words[i], next.words[i],
                         __ATOMIC_RELAXED);
    }
}

int mw_reason_read(const mw_state_t *state, apr_status_t why,
                   apr_uint32_t *kind, char text[MW_REASON_MAX])
{
    mw_reason_t now;

    reason_load(state, &now);
    memcpy(text, &now.words[TEXT], MW_REASON_MAX);
    text[MW_REASON_MAX - 1] = '\0';
    *kind = (apr_uint32_t)now.words[KIND];
    return now.words[SUM] == reason_sum(&now)
           && now.words[STATUS] == (apr_uint64_t)why && *text;
}
