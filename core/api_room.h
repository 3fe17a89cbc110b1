/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file api_room.h
 * @brief What the requests of one process to the API take in memory, all
 *        together.
 */
#ifndef MW_API_ROOM_H
#define MW_API_ROOM_H

#include "apr_pools.h"

/** What one of them has taken. */
typedef struct mw_api_room_t mw_api_room_t;

/**
 * @param most bytes of all requests of this process
 * @param pool what is taken is given back when it ends, at the latest
 */
mw_api_room_t *mw_api_room_make(apr_uint64_t most, apr_pool_t *pool);

/**
 * Before so many bytes are allocated. Rooms may be used in any threads, each in
 * one at a time.
 * @return 0: with them it would be more than there may be; nothing was taken
 */
int mw_api_room_take(mw_api_room_t *room, apr_uint64_t bytes);

/** All of it is free again. */
void mw_api_room_give(mw_api_room_t *room);

#endif
