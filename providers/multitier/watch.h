/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file watch.h
 * @brief Tiers that agree with those of other servers.
 *
 * Several servers share a far tier, each with near ones of its own. When that
 * far tier can be watched, a thread of the process that sweeps listens to what
 * the others change there, and removes it from the tiers before. As long as it
 * hears, these are believed: until alive_until, 0.9 s after the beginning of
 * the last turn in which the far tier answered. Whoever looks up compares that
 * with the time of its request; after it the near tiers are not asked, as if
 * they were not there. When the thread hears again and may have missed
 * something, they are emptied first. One that cannot be emptied, or from which a
 * key cannot be removed, is doubted: until it has been emptied it alone is not
 * asked.
 *
 * A change elsewhere that crosses one of ours:
 *
 * - a fill: the key's note changes, as for changes of our own; see tiers.h;
 * - a store: what was removed or invalidated is entered in core's purge
 *   epochs, which the store compares when it is committed, and afterwards;
 * - a store that was committed before we heard: each is listed before its
 *   commit, until the far tier has told us of it, too. What is listed for a
 *   key when we hear that this was removed came after that, or comes yet: it is
 *   removed once more. What is told while nobody listens stays listed.
 * - one that sets or amends: whoever commits looks at the note when all tiers
 *   have it.
 *
 * A child that dies in the middle of a change has told others of it, but its own
 * near tiers may still have what was there before: they are emptied.
 */
#ifndef MW_MULTITIER_WATCH_H
#define MW_MULTITIER_WATCH_H

#include "tiers.h"

/** How long near tiers are believed, from the beginning of a turn. */
#define MW_WATCH_BELIEF apr_time_from_msec(900)

/** Nobody who asks is so much older than what was heard last: the wall clock was
 *  set back, and its time tells nothing. */
#define MW_WATCH_WINDOW apr_time_from_sec(2)

/** Whether tiers that are believed until then are, by the wall clock. */
static inline int mw_watch_believes(apr_time_t until, apr_time_t now)
{
    return (apr_uint64_t)until - (apr_uint64_t)now
           <= (apr_uint64_t)MW_WATCH_WINDOW;
}

/** post_config: have what we change told, where tiers can be watched. */
void mw_watch_make(mw_tiers_t *tiers);

/** In a child. */
apr_status_t mw_watch_child_init(mw_tiers_t *tiers, apr_pool_t *pchild);

/** The slot: begins to watch, and knows the time. */
apr_status_t mw_watch_sweep(void *store, const cachemw_call_t *call, int *more);

/** An entry is about to be set, or amended, in all tiers. */
void mw_watch_list(mw_tiers_t *tiers, const cachemw_key_t *key,
                   const cachemw_id_t *id);

/** A bit for each tier that is believed now, when not all are. */
unsigned int mw_watch_believed(const mw_tiers_t *tiers, apr_time_t now);

/** Call `each` with what is known of it. */
void mw_watch_stats(const mw_tiers_t *tiers, apr_time_t now,
                    cachemw_stats_t *stats);

#endif
