/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file sharing.h
 * @brief How many servers share the place: each writes its name into the same
 *        sorted set once a second, by the clock of Redis, and who has not done
 *        so for long is gone. Its key is
 *
 *     key_prefix servers
 *
 * which no entry and no lock has: theirs have a brace behind the prefix.
 */
#ifndef MW_REDIS_SHARING_H
#define MW_REDIS_SHARING_H

#include "redis.h"

/** µs between two calls of the slot. */
#define MW_REDIS_SHARING_INTERVAL apr_time_from_sec(1)

/** The slot `sync`. One script. Trouble is none of the store's: it is counted,
 *  and soon it is unknown who shares the place. */
apr_status_t mw_redis_sharing(void *self, const cachemw_call_t *call);

#endif
