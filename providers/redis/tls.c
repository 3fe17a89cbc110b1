/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "apr_strings.h"

#include "tls.h"

/* Bytes of a record: what fits is sent as one. */
#define RECORD_MAX 16384

/* How long reading what is there already may take. */
#define PEEK_TIME apr_time_from_msec(10)

/* httpd's mod_ssl lives in the same process: nothing here changes what OpenSSL
 * keeps for all, and a thread's queue of errors is left empty. */
struct mw_redis_tls_t {
    SSL_CTX *ctx;
    BIO_METHOD *link; /* a socket that raises no SIGPIPE */
};

static int link_write(BIO *bio, const char *data, int length)
{
    const mw_redis_stream_t *stream = BIO_get_data(bio);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    do {
        n = send(stream->fd, data, length, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        BIO_set_retry_write(bio);
    }
    return (int)n;
}

/* OpenSSL comes again and again for as long as there are records that are no
 * data: that ends with the deadline, too. */
static int link_read(BIO *bio, char *data, int length)
{
    const mw_redis_stream_t *stream = BIO_get_data(bio);
    ssize_t n;

    BIO_clear_retry_flags(bio);
    if (mw_redis_clock(stream->store) >= stream->deadline) {
        BIO_set_retry_read(bio);
        return -1;
    }
    do {
        n = recv(stream->fd, data, length, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        BIO_set_retry_read(bio);
    }
    return (int)n;
}

static long link_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static apr_status_t tls_free(void *self)
{
    mw_redis_tls_t *tls = self;

    SSL_CTX_free(tls->ctx);
    BIO_meth_free(tls->link);
    return APR_SUCCESS;
}

static const char *error_text(void)
{
    const unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    return reason ? reason : "unknown error";
}

/* Nobody is there who could type one. */
static int no_passphrase(char *buffer, int size, int is_writing, void *baton)
{
    (void)buffer, (void)size, (void)is_writing, (void)baton;
    return -1;
}

static const char *ca_load(const mw_redis_settings_t *settings, SSL_CTX *ctx,
                           apr_pool_t *pool)
{
    const char *path = settings->ssl_ca_certs;

    if (!path) {
        return SSL_CTX_set_default_verify_paths(ctx)
                   ? NULL
                   : "the system's certificates of authorities cannot be read: "
                     "give ssl_ca_certs";
    }
    return SSL_CTX_load_verify_locations(ctx, path, NULL)
               ? NULL
               : apr_psprintf(pool,
                              "ssl_ca_certs=%s: certificates in PEM format are "
                              "expected: %s",
                              path, error_text());
}

static const char *cert_load(const mw_redis_settings_t *settings, SSL_CTX *ctx,
                             apr_pool_t *pool)
{
    const char *path = settings->ssl_certfile;

    return SSL_CTX_use_certificate_chain_file(ctx, path) == 1
               ? NULL
               : apr_psprintf(pool,
                              "ssl_certfile=%s: a certificate in PEM format is "
                              "expected: %s",
                              path, error_text());
}

static const char *key_load(const mw_redis_settings_t *settings, SSL_CTX *ctx,
                            apr_pool_t *pool)
{
    const char *path =
        settings->ssl_keyfile ? settings->ssl_keyfile : settings->ssl_certfile;
    const char *option = settings->ssl_keyfile ? "ssl_keyfile" : "ssl_certfile";

    if (SSL_CTX_use_PrivateKey_file(ctx, path, SSL_FILETYPE_PEM) == 1
        && SSL_CTX_check_private_key(ctx) == 1) {
        return NULL;
    }
    return apr_psprintf(pool,
                        "%s=%s: the key of ssl_certfile is expected, in PEM "
                        "format and without a passphrase: %s",
                        option, path, error_text());
}

static const char *files_load(const mw_redis_settings_t *settings, SSL_CTX *ctx,
                              apr_pool_t *pool)
{
    const char *error = NULL;

    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    if (settings->ssl_cert_reqs) {
        error = ca_load(settings, ctx, pool);
    }
    if (!error && settings->ssl_certfile) {
        error = cert_load(settings, ctx, pool);
    }
    if (!error && settings->ssl_certfile) {
        error = key_load(settings, ctx, pool);
    }
    return error;
}

static SSL_CTX *ctx_make(const mw_redis_settings_t *settings)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx) {
        return NULL;
    }
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    /* connections stay idle for long, and a piece that could be sent in part
     * is offered from another place */
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE
                              | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                              | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    /* a server that asks for none is one that a client need not trust */
    SSL_CTX_set_verify(
        ctx, settings->ssl_cert_reqs ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    return ctx;
}

const char *mw_redis_tls_make(mw_redis_t *store, apr_pool_t *pool)
{
    mw_redis_tls_t *tls = apr_pcalloc(pool, sizeof(*tls));
    const char *error;

    ERR_clear_error();
    tls->ctx = ctx_make(&store->settings);
    tls->link = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "cachemw");
    apr_pool_cleanup_register(pool, tls, tls_free, apr_pool_cleanup_null);
    if (tls->ctx && tls->link && BIO_meth_set_write(tls->link, link_write)
        && BIO_meth_set_read(tls->link, link_read)
        && BIO_meth_set_ctrl(tls->link, link_ctrl)) {
        error = files_load(&store->settings, tls->ctx, pool);
    }
    else {
        error = apr_psprintf(pool, "OpenSSL: %s", error_text());
    }
    ERR_clear_error();
    store->tls = tls;
    return error;
}

/* After a failure the peer is told nothing any more. */
static apr_status_t stream_failed(mw_redis_stream_t *stream, apr_status_t rv)
{
    SSL_set_shutdown(stream->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    ERR_clear_error();
    return rv;
}

static apr_status_t stream_refused(mw_redis_stream_t *stream)
{
    const long verdict = SSL_get_verify_result(stream->tls);

    stream->what = stream->reason;
    if (!SSL_is_init_finished(stream->tls) && verdict != X509_V_OK) {
        apr_snprintf(stream->reason, sizeof(stream->reason),
                     "TLS: the server's certificate: %s",
                     X509_verify_cert_error_string(verdict));
    }
    else {
        const int is_other =
            ERR_GET_REASON(ERR_peek_error()) == SSL_R_WRONG_VERSION_NUMBER;

        apr_snprintf(stream->reason, sizeof(stream->reason), "TLS: %s%s",
                     error_text(), is_other ? ": is it a port for TLS?" : "");
    }
    return stream_failed(stream, ECONNABORTED);
}

static int is_end(void)
{
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
    return ERR_GET_REASON(ERR_peek_error())
           == SSL_R_UNEXPECTED_EOF_WHILE_READING;
#else
    return 0;
#endif
}

/* A call of OpenSSL returned `result`, which is not success. APR_SUCCESS: call
 * again. What it has read of a record is kept, for who comes again after a
 * deadline. */
static apr_status_t stream_more(mw_redis_stream_t *stream, int result,
                                apr_int64_t deadline)
{
    const int error = errno;
    apr_status_t rv;

    switch (SSL_get_error(stream->tls, result)) {
    case SSL_ERROR_WANT_READ:
        rv = mw_redis_stream_wait(stream, POLLIN, deadline);
        if (APR_STATUS_IS_TIMEUP(rv)) {
            return rv;
        }
        break;
    case SSL_ERROR_WANT_WRITE:
        rv = mw_redis_stream_wait(stream, POLLOUT, deadline);
        break;
    case SSL_ERROR_ZERO_RETURN:
        rv = APR_EOF;
        break;
    case SSL_ERROR_SYSCALL:
        rv = error ? error : APR_EOF;
        break;
    default:
        if (!is_end()) {
            return stream_refused(stream);
        }
        rv = APR_EOF;
        break;
    }
    return rv == APR_SUCCESS ? APR_SUCCESS : stream_failed(stream, rv);
}

/* Errors of the thread's queue, whoever left them, and errno would be taken
 * for those of the call that follows. */
static SSL *stream_ssl(mw_redis_stream_t *stream)
{
    ERR_clear_error();
    errno = 0;
    return stream->tls;
}

/* Names are asked for and compared, addresses compared only (RFC 6066,
 * section 3). */
static int host_set(SSL *ssl, const char *host,
                    const mw_redis_settings_t *settings)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);
    const int is_address = address != NULL;
    const int is_checked =
        settings->ssl_cert_reqs && settings->ssl_check_hostname;

    ASN1_OCTET_STRING_free(address);
    if (is_address) {
        return !is_checked || X509_VERIFY_PARAM_set1_ip_asc(param, host);
    }
    X509_VERIFY_PARAM_set_hostflags(param,
                                    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, host)
           && (!is_checked || X509_VERIFY_PARAM_set1_host(param, host, 0));
}

static apr_status_t ssl_make(mw_redis_stream_t *stream, const char *host)
{
    const mw_redis_tls_t *tls = stream->store->tls;
    SSL *ssl = SSL_new(tls->ctx);
    BIO *bio = ssl ? BIO_new(tls->link) : NULL;

    if (!bio) {
        SSL_free(ssl);
        ERR_clear_error();
        return APR_ENOMEM;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_connect_state(ssl);
    stream->tls = ssl;
    return host_set(ssl, host, &stream->store->settings) ? APR_SUCCESS
                                                         : APR_EINVAL;
}

static apr_status_t tls_greet(mw_redis_stream_t *stream, const char *host,
                              apr_int64_t deadline)
{
    apr_status_t rv = ssl_make(stream, host);
    int result;

    stream->deadline = deadline;
    while (rv == APR_SUCCESS) {
        result = SSL_do_handshake(stream_ssl(stream));
        if (result == 1) {
            return APR_SUCCESS;
        }
        rv = stream_more(stream, result, deadline);
    }
    if (!stream->what) {
        stream->what = "TLS: the handshake was not finished: is it a port for "
                       "TLS?";
    }
    return rv;
}

static apr_status_t tls_write(mw_redis_stream_t *stream, const char *data,
                              apr_size_t length, apr_int64_t deadline)
{
    apr_status_t rv = APR_SUCCESS;
    int n;

    stream->deadline = deadline;
    while (length > 0 && rv == APR_SUCCESS) {
        n = SSL_write(stream_ssl(stream), data,
                      length < RECORD_MAX ? (int)length : RECORD_MAX);
        if (n > 0) {
            data += n;
            length -= n;
        }
        else {
            rv = stream_more(stream, n, deadline);
        }
    }
    return rv;
}

/* Small pieces are joined: a command is one record. */
static apr_status_t tls_send(mw_redis_stream_t *stream, struct iovec *iov,
                             int count, apr_int64_t deadline)
{
    char joined[RECORD_MAX];
    apr_size_t length = 0;
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; i < count && rv == APR_SUCCESS; i++) {
        if (iov[i].iov_len > sizeof(joined) - length) {
            rv = tls_write(stream, joined, length, deadline);
            length = 0;
        }
        if (iov[i].iov_len > sizeof(joined)) {
            if (rv == APR_SUCCESS) {
                rv = tls_write(stream, iov[i].iov_base, iov[i].iov_len,
                               deadline);
            }
        }
        else {
            memcpy(joined + length, iov[i].iov_base, iov[i].iov_len);
            length += iov[i].iov_len;
        }
    }
    return rv == APR_SUCCESS ? tls_write(stream, joined, length, deadline) : rv;
}

static apr_status_t tls_recv(mw_redis_stream_t *stream, const struct iovec *iov,
                             int count, apr_size_t *length,
                             apr_int64_t deadline)
{
    const apr_size_t size = iov[0].iov_len;
    apr_status_t rv = APR_SUCCESS;
    int n;

    (void)count;
    stream->deadline = deadline;
    while (rv == APR_SUCCESS) {
        n = SSL_read(stream_ssl(stream), iov[0].iov_base,
                     size < INT32_MAX ? (int)size : INT32_MAX);
        if (n > 0) {
            *length = n;
            return APR_SUCCESS;
        }
        rv = stream_more(stream, n, deadline);
    }
    return rv;
}

static void tls_end(mw_redis_stream_t *stream)
{
    SSL *ssl = stream_ssl(stream);

    if (ssl && SSL_is_init_finished(ssl)) {
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    ERR_clear_error();
    stream->tls = NULL;
}

/* What is there to be read may be a ticket for another session, which is no
 * concern of ours. */
static int tls_is_quiet(mw_redis_stream_t *stream)
{
    SSL *ssl = stream_ssl(stream);
    int n, is_quiet;
    char byte;

    stream->deadline = mw_redis_clock(stream->store) + PEEK_TIME;
    n = SSL_peek(ssl, &byte, 1);
    is_quiet = n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ;
    ERR_clear_error();
    return is_quiet;
}

const mw_redis_stream_ops_t mw_redis_stream_tls = {
    .greet = tls_greet,
    .send = tls_send,
    .recv = tls_recv,
    .end = tls_end,
    .is_quiet = tls_is_quiet,
};
