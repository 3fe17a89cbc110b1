/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"
#include "tls.h"

apr_status_t mw_redis_stream_wait(const mw_redis_stream_t *stream, short events,
                                  apr_int64_t deadline)
{
    struct pollfd poll_fd = { .fd = stream->fd, .events = events };
    apr_int64_t left;
    int n;

    do {
        left = deadline - mw_redis_clock(stream->store);
        if (left <= 0) {
            return APR_TIMEUP;
        }
        /* at most a millisecond too long: a wait of none would spin */
        n = poll(&poll_fd, 1, (int)((left + 999) / 1000));
    } while (n < 0 && errno == EINTR);
    return n > 0 ? APR_SUCCESS : n == 0 ? APR_TIMEUP : errno;
}

/* How long a plain socket waits in recvmsg: as SO_RCVTIMEO, which may be rounded
 * up by some milliseconds. */
#define PLAIN_WAIT 20000

/* --- plain ---------------------------------------------------------------- */

static apr_status_t plain_greet(mw_redis_stream_t *stream, const char *host,
                                apr_int64_t deadline)
{
    const struct timeval wait = { .tv_usec = PLAIN_WAIT };
    int flags = fcntl(stream->fd, F_GETFL);

    (void)host, (void)deadline;
    return flags != -1 && fcntl(stream->fd, F_SETFL, flags & ~O_NONBLOCK) == 0
                   && setsockopt(stream->fd, SOL_SOCKET, SO_RCVTIMEO, &wait,
                                 sizeof(wait))
                          == 0
               ? APR_SUCCESS
               : errno;
}

/* Move on behind n bytes. */
static void iov_skip(struct iovec **iov, int *count, apr_size_t n)
{
    while (*count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        ++*iov;
        --*count;
    }
    if (n) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

static apr_status_t plain_send(mw_redis_stream_t *stream, struct iovec *iov,
                               int count, apr_int64_t deadline)
{
    apr_status_t rv = APR_SUCCESS;

    iov_skip(&iov, &count, 0);
    while (rv == APR_SUCCESS && count > 0) {
        struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
        ssize_t n = sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n >= 0) {
            iov_skip(&iov, &count, (apr_size_t)n);
        }
        else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            rv = mw_redis_stream_wait(stream, POLLOUT, deadline);
        }
        else if (errno != EINTR) {
            rv = errno;
        }
    }
    return rv;
}

/* Nearly always there is nothing yet, so it waits in the system's call rather
 * than in a poll before it; but not when that could last past the deadline. */
static apr_status_t plain_recv(mw_redis_stream_t *stream,
                               const struct iovec *iov, int count,
                               apr_size_t *length, apr_int64_t deadline)
{
    struct msghdr message = { .msg_iov = (struct iovec *)iov,
                              .msg_iovlen = count };
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS) {
        apr_int64_t left = deadline - mw_redis_clock(stream->store);
        int is_patient = left > 2 * PLAIN_WAIT;
        ssize_t n;

        if (left <= 0) {
            return APR_TIMEUP;
        }
        n = recvmsg(stream->fd, &message, is_patient ? 0 : MSG_DONTWAIT);

        if (n >= 0) {
            *length = (apr_size_t)n;
            return n > 0 ? APR_SUCCESS : APR_EOF;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            rv = is_patient ? APR_SUCCESS
                            : mw_redis_stream_wait(stream, POLLIN, deadline);
        }
        else if (errno != EINTR) {
            rv = errno;
        }
    }
    return rv;
}

static int plain_is_quiet(mw_redis_stream_t *stream)
{
    char byte;
    ssize_t n = recv(stream->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

const mw_redis_stream_ops_t mw_redis_stream_plain = {
    .greet = plain_greet,
    .send = plain_send,
    .recv = plain_recv,
    .is_quiet = plain_is_quiet,
};

/* --- connecting ----------------------------------------------------------- */

static void socket_tune(const mw_redis_stream_t *stream, int family)
{
    const int on = 1;

    if (family == AF_UNIX) {
        return;
    }
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (stream->store->settings.socket_keepalive) {
        setsockopt(stream->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    }
}

static apr_status_t socket_connect(const mw_redis_stream_t *stream,
                                   const mw_address_t *address,
                                   apr_int64_t deadline)
{
    apr_status_t rv;
    int error = 0;
    socklen_t size = sizeof(error);

    if (connect(stream->fd, (const struct sockaddr *)&address->socket,
                address->length)
        == 0) {
        return APR_SUCCESS;
    }
    /* of a Unix socket EAGAIN means that its queue is full */
    if (errno != EINPROGRESS && errno != EINTR) {
        return errno == EAGAIN ? ECONNREFUSED : errno;
    }
    rv = mw_redis_stream_wait(stream, POLLOUT, deadline);
    if (rv == APR_SUCCESS
        && getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
    }
    return rv == APR_SUCCESS ? error : rv;
}

apr_status_t mw_redis_stream_open(mw_redis_stream_t *stream,
                                  const mw_redis_t *store,
                                  const mw_address_t *address, const char *host,
                                  apr_int64_t deadline)
{
    int family = address->socket.ss_family;
    apr_status_t rv;

    memset(stream, 0, sizeof(*stream));
    stream->store = store;
    stream->ops = store->tls ? &mw_redis_stream_tls : &mw_redis_stream_plain;
    stream->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (stream->fd < 0) {
        return errno;
    }
    socket_tune(stream, family);
    rv = socket_connect(stream, address, deadline);
    if (rv == APR_SUCCESS) {
        rv = stream->ops->greet(stream, host, deadline);
    }
    if (rv != APR_SUCCESS) {
        mw_redis_stream_close(stream);
    }
    return rv;
}

void mw_redis_stream_close(mw_redis_stream_t *stream)
{
    if (stream->fd < 0) {
        return;
    }
    if (stream->ops->end) {
        stream->ops->end(stream);
    }
    close(stream->fd);
    stream->fd = -1;
}
