/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file say.h
 * @brief What servers that share a place tell each other: messages of Redis'
 *        publish and subscribe.
 *
 * The channel is
 *
 *     key_prefix say: number of the database
 *
 * and a message
 *
 *     "MWS1"  what 1  tag 16  id 16  key  mark of channel, NUL and all this
 *
 * `what` is a letter, the tag tells whose it is, an id of zeros is none. A mark
 * is a checksum or an HMAC: see seal.h. An old message can be sent again by who
 * has no secret: it has what is near removed, and stores under way refused; that
 * of a clear does so with everything, each time.
 */
#ifndef MW_REDIS_SAY_H
#define MW_REDIS_SAY_H

#include "layout.h"

#define MW_REDIS_TAG 16

/** Most bytes of a message. */
#define MW_REDIS_SAID_MAX (64 + CACHEMW_KEY_MAX + MW_REDIS_MARK_MAX)

/** What open() or post_config() makes of it. */
typedef struct mw_redis_say_t {
    mw_redis_bytes_t channel;
    char tag[MW_REDIS_TAG]; /**< of this server */
    int is_on;              /**< changes are told */
} mw_redis_say_t;

/** open(). */
void mw_redis_say_init(mw_redis_t *store, apr_pool_t *pconf);
/** post_config(): who we are. */
apr_status_t mw_redis_say_begin(mw_redis_t *store);

/** The slot. */
apr_status_t mw_redis_publish(void *self);

/**
 * Make a message, in the pool.
 * @param key,id NULL: none
 */
apr_status_t mw_redis_say_make(const mw_redis_t *store, cachemw_change_e what,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               apr_pool_t *pool, mw_redis_bytes_t *message);

/** Append the command that tells it. */
void mw_redis_say_add(const mw_redis_t *store, mw_redis_batch_t *batch,
                      const mw_redis_bytes_t *message);

/** A message, pointing into what it was read from. */
typedef struct mw_redis_said_t {
    cachemw_change_e what;
    cachemw_key_t key; /**< none with CACHEMW_CHANGE_CLEARED */
    cachemw_id_t id;
    int has_id;
    int is_own;
} mw_redis_said_t;

/** @return APR_EINCOMPLETE: it is not one of ours, which is counted and
 *          logged */
apr_status_t mw_redis_say_read(const mw_redis_t *store, const char *data,
                               apr_size_t len, mw_redis_said_t *said);

#endif
