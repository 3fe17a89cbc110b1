/* SPDX-License-Identifier: Apache-2.0 */

#include "ghosts.h"

#define GHOST_WAYS 4

static apr_uint32_t *ghost_set(mw_ghosts_t ghosts, apr_uint64_t hash)
{
    return ghosts.table
           + ((apr_uint32_t)hash & ghosts.mask & ~(GHOST_WAYS - 1u));
}

/** Upper half: of the hash; lower half: when, in evictions. */
static apr_uint32_t ghost_print(apr_uint64_t hash)
{
    return (apr_uint32_t)(hash >> 28) & 0xffff0000u;
}

/** The clock is coarser in a larger table, so that 16 bits never go round. */
static apr_uint32_t ghost_now(mw_ghosts_t ghosts, apr_uint32_t clock)
{
    apr_uint32_t grain = (ghosts.mask >> 12) + 1;

    return (clock / grain) & 0xffff;
}

void mw_ghost_add(mw_ghosts_t ghosts, apr_uint32_t *clock, apr_uint64_t hash)
{
    apr_uint32_t *ghost = ghost_set(ghosts, hash);
    apr_uint32_t now = ghost_now(ghosts, ++*clock);
    apr_uint32_t oldest = 0;
    apr_uint32_t greatest = 0;
    apr_uint32_t i;

    for (i = 0; i < GHOST_WAYS; i++) {
        apr_uint32_t age = ghost[i] ? (now - ghost[i]) & 0xffff : 0x10000;

        if (age > greatest) {
            greatest = age;
            oldest = i;
        }
    }
    ghost[oldest] = ghost_print(hash) | now;
}

int mw_ghost_take(mw_ghosts_t ghosts, apr_uint32_t clock, apr_uint64_t hash,
                  apr_uint32_t memory)
{
    apr_uint32_t *ghost = ghost_set(ghosts, hash);
    apr_uint32_t now = ghost_now(ghosts, clock);
    apr_uint32_t limit = ghost_now(ghosts, memory);
    apr_uint32_t i;

    for (i = 0; i < GHOST_WAYS; i++) {
        if (ghost[i] && !((ghost[i] ^ ghost_print(hash)) & 0xffff0000u)) {
            apr_uint32_t age = (now - ghost[i]) & 0xffff;

            ghost[i] = 0;
            return age <= limit;
        }
    }
    return 0;
}
