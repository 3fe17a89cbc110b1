/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file fields.h
 * @brief The replies that bring bodies, read to where they stay.
 *
 * What hiredis reads is copied twice on its way, through a buffer as large as
 * the reply: too much for bodies. So replies to GET, GETRANGE and HMGET are read
 * here: a string, a nil, an array of these, an error, or a status before.
 */
#ifndef MW_REDIS_FIELDS_H
#define MW_REDIS_FIELDS_H

#include "conn.h"

/**
 * Read the replies to a batch with `place`; long strings end without a NUL.
 * @return as conn->stream.ops->recv; EPROTO: nonsense; APR_EINCOMPLETE: more
 *         than fits, which nobody of us has stored. All but APR_SUCCESS end the
 *         connection
 */
apr_status_t mw_redis_fields_read(mw_redis_conn_t *conn,
                                  mw_redis_batch_t *batch, apr_int64_t deadline,
                                  mw_redis_reply_t **replies);

#endif
