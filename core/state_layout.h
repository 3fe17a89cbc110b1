/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file state_layout.h
 * @brief How mw_state_t lies in its segment; for the files that implement
 *        state.h only.
 *
 *     header | breaker | reason | sharing | store-wide epoch | epochs | marks |
 *     unstorable | limiters | kinds | counters
 *
 * Parts that are written at different occasions are on different cache lines.
 * A change here is a change of MW_STATE_LAYOUT.
 */
#ifndef MW_STATE_LAYOUT_H
#define MW_STATE_LAYOUT_H

#include "apr_siphash.h"
#include "core/state.h"

#define MW_LINE 64
#define MW_ON_LINE __attribute__((aligned(MW_LINE)))

#define MW_STATE_MAGIC APR_UINT64_C(0x31657461745377c5)
#define MW_EPOCHS 1024
#define MW_MARKS 16384
#define MW_UNSTORABLE_SETS 4096
#define MW_UNSTORABLE_WAYS 4
#define MW_LIMITERS 64
#define MW_KINDS 32
#define MW_COUNTER_SLOTS 64

/** Everything that decides is in one word: see breaker.c. */
typedef struct mw_breaker_t {
    apr_uint64_t word;
    apr_int64_t paid;  /**< until when log lines have used up their share */
    apr_uint32_t news; /**< changes since the last line */
    apr_status_t why;
} mw_breaker_t;

#define MW_REASON_WORDS (3 + MW_REASON_MAX / 8)

/** A sum of the rest, a status, a kind, a text: see reason.c. */
typedef struct mw_reason_t {
    apr_uint64_t words[MW_REASON_WORDS];
} mw_reason_t;

/** See marks.c. */
typedef struct mw_mark_t {
    apr_uint64_t claim;
    apr_uint64_t owner;
    apr_uint64_t lock;  /**< name of the lock noted; if */
    apr_uint64_t check; /**< this is that, and the owner's */
} mw_mark_t;

typedef struct mw_limiter_t {
    apr_int64_t next; /**< monotonic: when the next line may be written */
    apr_uint32_t suppressed;
    apr_uint32_t kind; /**< whose it is; 0: free */
} mw_limiter_t;

/** See kinds.c. */
typedef struct mw_kind_t {
    apr_uint64_t n;
    apr_uint32_t claim;
    char name[MW_KIND_NAME_MAX + 1];
} mw_kind_t;

typedef struct mw_counters_t {
    apr_uint64_t n[MW_COUNTERS];
} MW_ON_LINE mw_counters_t;

struct mw_state_t {
    apr_uint64_t magic;
    apr_uint32_t layout;
    apr_uint32_t size;
    unsigned char hash_key[APR_SIPHASH_KSIZE];
    mw_breaker_t breaker MW_ON_LINE;
    mw_reason_t reason MW_ON_LINE;
    apr_uint64_t sharing MW_ON_LINE; /**< until when, and 8 bits: how many */
    apr_uint64_t epoch MW_ON_LINE;
    apr_uint64_t epoch_all;
    apr_uint64_t epochs[MW_EPOCHS] MW_ON_LINE;
    mw_mark_t marks[MW_MARKS] MW_ON_LINE;
    apr_uint64_t unstorable[MW_UNSTORABLE_SETS][MW_UNSTORABLE_WAYS] MW_ON_LINE;
    mw_limiter_t limiters[MW_LIMITERS] MW_ON_LINE;
    mw_kind_t kinds[MW_KINDS] MW_ON_LINE;
    mw_counters_t counters[MW_COUNTER_SLOTS];
};

/** Keyed hash of a key: the same in all processes on the segment. */
apr_uint64_t mw_state_hash(const mw_state_t *state, const cachemw_key_t *key);

#endif
