/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file conn.h
 * @brief A connection: greeting, and batches of commands with their replies.
 */
#ifndef MW_REDIS_CONN_H
#define MW_REDIS_CONN_H

#include "resp.h"
#include "stream.h"

/** One thread at a time. malloc'ed. */
typedef struct mw_redis_conn_t {
    mw_redis_stream_t stream;
    redisReader *reader;
    mw_redis_making_t making; /**< of the reader's replies */
    const mw_redis_t *store;
    const mw_redis_endpoint_t *endpoint; /**< its pool's */
    mw_address_t address;                /**< that it had then */
    apr_int64_t used;                    /**< when it was given back last */
    unsigned int uses;                   /**< batches that were answered */
    int is_bad;                          /**< close it, do not use it again */
} mw_redis_conn_t;

/** What a new connection says before its first use. */
typedef struct mw_redis_greeting_t {
    const char *user;     /**< NULL: none */
    const char *password; /**< NULL: no AUTH */
    int db;               /**< 0: no SELECT */
    /** One more command of one word, e.g. ROLE, and whether its reply is
     *  right. NULL: none. */
    const char *command;
    apr_status_t (*check)(const mw_redis_reply_t *reply);
} mw_redis_greeting_t;

/**
 * Connect and greet, within connect_timeout and the deadline.
 * @return APR_TIMEUP; APR_EAGAIN: no address yet; the status of the error
 *         reply (EACCES for AUTH); what `check` said; trouble. Counted
 */
apr_status_t mw_redis_conn_open(const mw_redis_t *store,
                                const mw_redis_endpoint_t *endpoint,
                                const mw_redis_greeting_t *greeting,
                                apr_int64_t deadline, mw_redis_conn_t **conn);

void mw_redis_conn_close(mw_redis_conn_t *conn);

/**
 * Send a batch and read its replies.
 * @param replies set to an array of batch->commands replies, in batch->pool;
 *        error replies are replies
 * @return APR_TIMEUP; APR_EOF, ECONNRESET, EPIPE and the like: the connection
 *         has ended; EPROTO: nonsense; APR_EINCOMPLETE: what a batch with
 *         `place` was told is longer than anything of ours. After any but APR_SUCCESS the
 *         connection is bad. Counted but for the ends
 */
apr_status_t mw_redis_conn_batch(mw_redis_conn_t *conn, mw_redis_batch_t *batch,
                                 apr_int64_t deadline,
                                 mw_redis_reply_t ***replies);

/**
 * Send a batch whose replies, and what else the server sends, are read by
 * mw_redis_conn_listen().
 */
apr_status_t mw_redis_conn_send(mw_redis_conn_t *conn, mw_redis_batch_t *batch,
                                apr_int64_t deadline);

/**
 * The next thing that the server sends; waits asleep. conn->making says what
 * it is made of.
 * @param room bytes that may still come before it is whole
 * @return APR_TIMEUP: there is none yet, and what has come of it is kept: go on
 *         with the same making and room; else as mw_redis_conn_batch()
 */
apr_status_t mw_redis_conn_listen(mw_redis_conn_t *conn, apr_size_t *room,
                                  apr_int64_t deadline,
                                  mw_redis_reply_t **reply);

#endif
