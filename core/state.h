/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file state.h
 * @brief What the children of a server share about a store: counters, breaker,
 *        purge epochs, in-flight marks; and the segments that hold it.
 *
 * Everything here is plain values without pointers, changed by atomic
 * operations: a process may die at any instruction.
 */
#ifndef MW_STATE_H
#define MW_STATE_H

#include <sys/types.h>

#include "mod_cachemw.h"

/** @name Segments, kept over graceful restarts. Parent only. @{ */

/**
 * The list of segments, in memory that outlives a configuration and this
 * module's code (httpd's retained data). It begins with magic, version and
 * size; a list made by a different build is dropped, its segments freed.
 */
typedef struct mw_segments_t mw_segments_t;

/** Bytes that a list needs. Zero-filled means empty. */
apr_size_t mw_segments_size(void);

/**
 * Begin a generation.
 * @param memory zero-filled, or what an earlier call, perhaps of another build,
 *        was given
 * @param parent pool that outlives configurations; each segment gets a
 *        sub-pool of it
 * @return the list, at `memory`; NULL when another build made it smaller than
 *         mw_segments_size(): its segments are freed by now, and the caller
 *         makes a fresh, zero-filled piece and calls again
 */
mw_segments_t *mw_segments_begin(void *memory, apr_pool_t *parent);

/**
 * An anonymous shared segment: page-aligned, zero-filled when new. One of the
 * same name, size and layout that an earlier generation or call asked for is
 * the same one; with another size or layout it is a new one, and the old one
 * goes at the end of the generation (children that have it keep theirs).
 * @param name any text
 * @return APR_SUCCESS; APR_EINVAL for a size that cannot be; APR's error
 */
apr_status_t mw_segment_get(mw_segments_t *list, const char *name,
                            apr_size_t size, apr_uint64_t layout, void **base,
                            int *is_new);

/** End it: free the segments that nobody asked for in this generation. */
void mw_segments_end(mw_segments_t *list);

/** @} */

typedef struct mw_state_t mw_state_t;

#define MW_STATE_LAYOUT 7

/** Bytes that a state needs, at an address that is a multiple of 64. */
apr_size_t mw_state_size(void);

/**
 * Prepare a segment of mw_state_size() bytes: a new one is filled in, one that
 * a configuration before this one has prepared is left alone. Parent only.
 */
void mw_state_init(mw_state_t *state);

/** @name Counters: exact, relaxed, 64 padded slots summed on read. @{ */

typedef enum mw_counter_e {
    MW_COUNT_HIT,
    MW_COUNT_MISS,
    MW_COUNT_STALE, /**< found, but had to be revalidated */
    MW_COUNT_REVALIDATED,
    MW_COUNT_STORED,
    MW_COUNT_REFUSED,  /**< not stored: overtaken by a purge */
    MW_COUNT_NO_SPACE, /**< not stored: too large or no room */
    MW_COUNT_ABORTED,  /**< not stored: client or origin went away */
    MW_COUNT_REMOVED,
    MW_COUNT_INVALIDATED,
    MW_COUNT_EVICTED,
    MW_COUNT_EXPIRED,
    MW_COUNT_RECOVERED,
    MW_COUNT_CUT,     /**< bodies that failed half-way on a hit */
    MW_COUNT_DAMAGED, /**< entries found damaged and removed */
    MW_COUNT_TIMEOUT, /**< errors by kind */
    MW_COUNT_ERROR_GET,
    MW_COUNT_ERROR_SET,
    MW_COUNT_ERROR_OTHER,
    MW_COUNT_SKIPPED,    /**< calls not made: breaker open */
    MW_COUNT_COALESCED,  /**< answered after waiting for another fetch */
    MW_COUNT_WAITED_OUT, /**< waited in vain for coalesce_timeout */
    MW_COUNT_CAPPED,     /**< did not wait: too many others did */
    MW_COUNT_BYTES_SENT, /**< body bytes of hits */
    MW_COUNT_BYTES_STORED,
    MW_COUNT_API_HIT, /**< of clients of the API, not counted above */
    MW_COUNT_API_MISS,
    MW_COUNT_API_STORED,
    MW_COUNT_API_REMOVED,
    MW_COUNT_API_REFUSED, /**< what they sent was wrong */
    MW_COUNT_API_DENIED,  /**< without a right to ask */
    MW_COUNT_API_BUSY,    /**< there was no memory for it */
    MW_COUNT_GET_SAMPLES, /**< calls timed, and their time in µs */
    MW_COUNT_GET_MICROSECONDS,
    MW_COUNT_SET_SAMPLES,
    MW_COUNT_SET_MICROSECONDS,
    MW_COUNTERS
} mw_counter_e;

/** Children only: when a parent has counted, its children share its slot. */
void mw_state_count(mw_state_t *state, mw_counter_e which, apr_uint64_t n);
apr_uint64_t mw_state_sum(const mw_state_t *state, mw_counter_e which);
/** Name of a counter as the status page shows it, e.g. "Hits". */
const char *mw_counter_name(mw_counter_e which);

/** @} */

/** @name Failures by kind, as a provider names them @{ */

/** Longest name in bytes; the rest of a longer one does not count. */
#define MW_KIND_NAME_MAX 23

/**
 * Any process, any thread. What is neither letter, digit nor '-' becomes '_'.
 * After 31 different names others are counted as "other".
 */
void mw_kind_count(mw_state_t *state, const char *name, apr_uint64_t n);

/** @param name valid as long as the state */
typedef void mw_kinds_fn(void *baton, const char *name, apr_uint64_t n);
void mw_kinds_each(const mw_state_t *state, mw_kinds_fn *each, void *baton);

/** @} */

/** @name Breaker: times are monotonic microseconds, not negative, given by the
 *  caller. @{ */

#define MW_BREAKER_FAILURES 5      /**< in a row open it */
#define MW_BREAKER_BACKOFF 1000000 /**< first pause; doubles */
#define MW_BREAKER_BACKOFF_MAX 30000000

typedef enum mw_breaker_e {
    MW_BREAKER_CLOSED,
    MW_BREAKER_OPEN,
    MW_BREAKER_PROBING /**< one call is under way to see whether it works */
} mw_breaker_e;

/**
 * Whether a call may be made. While open: no; after the pause (±20 %) exactly
 * one caller among all children gets a yes and is the probe; a probe that never
 * reports (its process died) is given up after one pause.
 */
int mw_breaker_allows(mw_state_t *state, apr_int64_t now);
/**
 * A call succeeded. While the breaker is open and no probe is under way that
 * does not count; while one is, any call's result is taken for the probe's.
 * @return non-zero when this closed the breaker
 */
int mw_breaker_success(mw_state_t *state);
/** A call was not tried after all: had it been the probe, the next one is. */
void mw_breaker_untried(mw_state_t *state, apr_int64_t now);
/** @param random any number, for the ±20 %. @return non-zero when this opened
 *  a closed breaker */
int mw_breaker_failure(mw_state_t *state, apr_int64_t now, apr_uint32_t random,
                       apr_status_t why);
/** @param why the last failure; @param until when the next probe may go */
mw_breaker_e mw_breaker_read(const mw_state_t *state, apr_status_t *why,
                             apr_int64_t *until);
/** Non-zero: it has opened or closed since mw_breaker_news() told so. */
int mw_breaker_has_news(const mw_state_t *state);
/**
 * Whether its changes are to be told now: ten times at once, then every 10 s,
 * over all children.
 * @return how often it has opened or closed since the last time; 0: nothing to
 *         be told, or not yet
 */
apr_uint32_t mw_breaker_news(mw_state_t *state, apr_int64_t now);

/** Bytes of a reason in words, with the NUL. */
#define MW_REASON_MAX 320

/** Keep the words that came with a failure. @param kind of log lines */
void mw_reason_note(mw_state_t *state, apr_status_t why, apr_uint32_t kind,
                    const char *text);
/** @return non-zero when the last words came with a failure of this status */
int mw_reason_read(const mw_state_t *state, apr_status_t why,
                   apr_uint32_t *kind, char text[MW_REASON_MAX]);

/** @} */

/** @name How many servers share the store's place: see services->sharing() @{ */

/** @param until monotonic: when it is unknown again */
void mw_sharing_note(mw_state_t *state, unsigned int servers,
                     apr_int64_t until);
/** @return 255: at least so many; 0: unknown now */
unsigned int mw_sharing_read(const mw_state_t *state, apr_int64_t now);

/** @} */

/** @name Purge epochs @{ */

/**
 * How many purges and invalidations the store has seen. Note it before the
 * look-up whose miss leads to a store.
 */
apr_uint64_t mw_epoch_now(const mw_state_t *state);
/** A key was purged or invalidated. */
void mw_epoch_bump(mw_state_t *state, const cachemw_key_t *key);
/** All of them were. */
void mw_epoch_bump_all(mw_state_t *state);
/** The hash slot of a key. */
apr_uint32_t mw_epoch_slot(const mw_state_t *state, const cachemw_key_t *key);
/**
 * Whether a key of the slot was purged or invalidated after the epoch was
 * noted: then what was fetched since may be older than that.
 */
int mw_epoch_is_overtaken(const mw_state_t *state, apr_uint32_t slot,
                          apr_uint64_t epoch);

/** @} */

/** @name In-flight marks: who is fetching a key. Hashed; collisions make two
 *  keys share a mark, which costs waiting, never correctness. @{ */

/** Stands for a holder that has not yet written (or died before it could
 *  write) its token. */
#define MW_MARK_UNNAMED (~APR_UINT64_C(0))

/**
 * Take the mark of a key.
 * @param owner token of the taker, another one each time: of mw_mark_token();
 *        neither 0 nor MW_MARK_UNNAMED
 * @param now monotonic; @param expires monotonic: a mark at or past it is free,
 *        give or take 32 µs
 * @param ended NULL, or set when it is taken: when it was let go or ran out
 *        before, give or take 32 µs; 0: never
 * @return 0 when taken; else the token of who holds it (the caller's own when
 *         that is the caller), or MW_MARK_UNNAMED
 */
apr_uint64_t mw_mark_take(mw_state_t *state, const cachemw_key_t *key,
                          apr_uint64_t owner, apr_int64_t now,
                          apr_int64_t expires, apr_int64_t *ended);
/** A new token of this process. */
apr_uint64_t mw_mark_token(pid_t pid);
/** Hold it until then; nothing happens when `owner` does not hold it (any
 *  more). */
void mw_mark_prolong(mw_state_t *state, const cachemw_key_t *key,
                     apr_uint64_t owner, apr_int64_t now, apr_int64_t expires);
/** Let go and wake who waits; nothing happens when `owner` does not hold it
 *  (any more). */
void mw_mark_release(mw_state_t *state, const cachemw_key_t *key,
                     apr_uint64_t owner, apr_int64_t now);
/**
 * Token of who holds it (or MW_MARK_UNNAMED), 0 when free.
 * @param ended NULL, or set when it is free: see mw_mark_take()
 */
apr_uint64_t mw_mark_holder(const mw_state_t *state, const cachemw_key_t *key,
                            apr_int64_t now, apr_int64_t *ended);
/**
 * Sleep, without using the processor, until the mark is let go, has ended or it
 * is `until` (monotonic). At once when nobody holds it at `now`; may also
 * return for no reason.
 */
void mw_mark_wait(mw_state_t *state, const cachemw_key_t *key, apr_int64_t now,
                  apr_int64_t until);
/** Let go of all that a dead process held. One that died before it could write
 *  its token holds its mark to the end. */
void mw_marks_release_dead(mw_state_t *state, pid_t pid, apr_int64_t now);

/** @} */

/**
 * @name Locks of a store (see mod_cachemw.h) that the holders of marks have
 * taken, by name: for who extends them, and lets go of those of the dead. @{
 */

/** The holder of a mark has the lock of this name. Nothing happens when `owner`
 *  does not hold it (any more). */
void mw_mark_lock_note(mw_state_t *state, const cachemw_key_t *key,
                       apr_uint64_t owner, apr_uint64_t name);
/** @return non-zero: it was noted for `owner`. Only one caller is told so: who
 *          lets go of the lock. */
int mw_mark_lock_forget(mw_state_t *state, const cachemw_key_t *key,
                        apr_uint64_t owner);

typedef struct mw_mark_lock_t {
    apr_uint64_t name;
    apr_uint64_t owner; /**< of the mark */
    apr_int64_t end;    /**< monotonic: when the mark ends, or did */
    int is_held;        /**< the owner still holds the mark */
    int at;             /**< where it is noted; private to marks.c */
} mw_mark_lock_t;

/** The next lock that is noted. `lock` is zero-filled for the first one.
 *  @return 0: there are no more */
int mw_mark_lock_next(const mw_state_t *state, apr_int64_t now,
                      mw_mark_lock_t *lock);
/** Whether it is still noted, for whomever. */
int mw_mark_lock_is_noted(const mw_state_t *state, const mw_mark_lock_t *lock);
/** As mw_mark_lock_forget(). */
int mw_mark_lock_drop(mw_state_t *state, const mw_mark_lock_t *lock);

/** @} */

/** @name What proved not to be storable, and need not be waited for. A hint:
 *  any entry may be lost. Times are monotonic. @{ */

/** Remember a key. Writes only when the time left is less than half of what is
 *  asked for. */
void mw_unstorable_note(mw_state_t *state, const cachemw_key_t *key,
                        apr_int64_t now, apr_int64_t until);
int mw_unstorable_is_known(const mw_state_t *state, const cachemw_key_t *key,
                           apr_int64_t now);
/** It was stored after all. */
void mw_unstorable_forget(mw_state_t *state, const cachemw_key_t *key);

/** @} */

/**
 * Whether a log line of this kind may be written now: one per 10 s for each
 * kind, over all children.
 * @param kind any number but 0. Of 64 kinds each is limited by itself; one more
 *        takes the place of another, and its line is written.
 * @param suppressed set to how many were not written since the last one
 */
int mw_log_allowed(mw_state_t *state, apr_uint32_t kind, apr_int64_t now,
                   apr_uint32_t *suppressed);

/** Monotonic clock in microseconds. */
apr_int64_t mw_monotonic(void);

#endif
