/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file memory_hammer.h
 * @brief Many calls of all kinds in random order, everything that comes out
 *        verified. For threads, and for processes that get killed.
 */
#ifndef TESTS_MEMORY_HAMMER_H
#define TESTS_MEMORY_HAMMER_H

#include "memory_world.h"

#define HAMMER_KEYS 300

/** Of so many calls at most one may have waited for a lock in vain. */
#define HAMMER_LATE 50

/** What hammering processes share. */
typedef struct hammer_t {
    apr_uint64_t stop;
    apr_uint64_t seed; /* of the next body */
    apr_uint64_t wrong;
    apr_uint64_t hits;
    apr_uint64_t misses;
    apr_uint64_t late; /* no lock in time: the machine is busy, or one hangs */
    apr_uint64_t stored;
} hammer_t;

apr_uint64_t hammer_random(apr_uint64_t *state);

/** Mostly small, some large enough to be pinned. */
apr_uint64_t hammer_length(apr_uint64_t r);

/** One call of any kind. */
void hammer_once(world_t *w, hammer_t *h, apr_uint64_t *random);

/** Nothing was wrong, and no lock hung. */
void hammer_assert(const hammer_t *h);

#endif
