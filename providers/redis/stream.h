/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file stream.h
 * @brief A connected stream of bytes whose calls end by a deadline.
 *
 * One thread at a time. Nothing here retries, logs or counts.
 */
#ifndef MW_REDIS_STREAM_H
#define MW_REDIS_STREAM_H

#include <sys/uio.h>

#include "names.h"

typedef struct mw_redis_stream_t mw_redis_stream_t;

/**
 * A kind of transport. All return APR_TIMEUP when the deadline has passed, and
 * whatever else is wrong as the system or, for TLS, ECONNABORTED says it. After
 * any but APR_SUCCESS only close may be called, save that recv may be called
 * again after its APR_TIMEUP.
 */
typedef struct mw_redis_stream_ops_t {
    /**
     * The socket, nonblocking, has been connected: TLS's handshake.
     * @param host whom the certificate is to name
     */
    apr_status_t (*greet)(mw_redis_stream_t *stream, const char *host,
                          apr_int64_t deadline);
    /** All bytes of all pieces; iov is changed. */
    apr_status_t (*send)(mw_redis_stream_t *stream, struct iovec *iov,
                         int count, apr_int64_t deadline);
    /**
     * What is there, at least a byte, from the first of the pieces on; perhaps
     * only into that. None of them is empty.
     * @return APR_EOF at the end
     */
    apr_status_t (*recv)(mw_redis_stream_t *stream, const struct iovec *iov,
                         int count, apr_size_t *length, apr_int64_t deadline);
    /** Free what greet made; waits for nothing; before the socket is closed.
     *  May be NULL. */
    void (*end)(mw_redis_stream_t *stream);
    /** Whether an idle stream is still fit for use: nothing to read, not
     *  ended. Does not wait. */
    int (*is_quiet)(mw_redis_stream_t *stream);
} mw_redis_stream_ops_t;

struct mw_redis_stream_t {
    const mw_redis_stream_ops_t *ops;
    int fd; /**< nonblocking, close-on-exec; -1: none */
    const mw_redis_t *store;
    apr_int64_t deadline; /**< of what TLS reads; nobody else's */
    void *tls;            /**< of the TLS transport; else NULL */
    const char *what;     /**< what went wrong in TLS, or NULL; static or
                                    in `reason` */
    char reason[128];
};

extern const mw_redis_stream_ops_t mw_redis_stream_plain;

/**
 * Connect. TLS when the store's URL says so.
 * @param stream ops, fd, tls and what are set
 * @param host for TLS, may be an address
 */
apr_status_t mw_redis_stream_open(mw_redis_stream_t *stream,
                                  const mw_redis_t *store,
                                  const mw_address_t *address, const char *host,
                                  apr_int64_t deadline);

void mw_redis_stream_close(mw_redis_stream_t *stream);

/**
 * Wait until the socket can be read (POLLIN) or written (POLLOUT).
 * @return APR_TIMEUP
 */
apr_status_t mw_redis_stream_wait(const mw_redis_stream_t *stream, short events,
                                  apr_int64_t deadline);

#endif
