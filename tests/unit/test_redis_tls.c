/* SPDX-License-Identifier: Apache-2.0 */

/* Records that carry nothing: OpenSSL reads on behind them by itself, for as
 * long as there are any. Whoever sends them without end must not keep a call
 * for longer than its deadline. The clock is the test's: it moves on whenever
 * somebody looks at it. */

#include "shared.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "providers/redis/tls.h"

/* About 60 KB of records, which a socket takes at once. */
#define EMPTY_RECORDS 250

#define STEP 1000 /* µs that a look at the clock takes */

static apr_int64_t clock_now = 1;
static int clock_step;

apr_int64_t mw_redis_clock(const mw_redis_t *store)
{
    (void)store;
    return clock_now += clock_step;
}

typedef struct peer_t {
    SSL_CTX *ctx;
    int fd;
    int (*say_nothing)(SSL *ssl); /* one record without data */
    BIO *said;
    int is_done;
} peer_t;

static int ticket_send(SSL *ssl)
{
    return SSL_new_session_ticket(ssl) == 1 && SSL_do_handshake(ssl) == 1;
}

static int key_update_send(SSL *ssl)
{
    return SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1
           && SSL_do_handshake(ssl) == 1;
}

static void certificate_make(SSL_CTX *ctx)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();

    assert_non_null(key);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    assert_true(X509_set_pubkey(cert, key));
    assert_true(X509_sign(cert, key, EVP_sha256()));
    assert_int_equal(SSL_CTX_use_certificate(ctx, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* The handshake, then all records that say nothing and one that says
 * something, in one piece. No cmocka: it is another thread. */
static void *peer_run(void *data)
{
    peer_t *peer = data;
    SSL *ssl = SSL_new(peer->ctx);
    char *bytes;
    long length;
    int i;

    SSL_set_fd(ssl, peer->fd);
    if (SSL_accept(ssl) == 1) {
        peer->said = BIO_new(BIO_s_mem());
        BIO_up_ref(peer->said);
        SSL_set0_wbio(ssl, peer->said);
        for (i = 0; i < EMPTY_RECORDS && peer->say_nothing(ssl); i++) {
        }
        peer->is_done = i == EMPTY_RECORDS && SSL_write(ssl, "+OK\r\n", 5) == 5;
        length = BIO_get_mem_data(peer->said, &bytes);
        peer->is_done &= write(peer->fd, bytes, (size_t)length) == length;
        BIO_free(peer->said);
    }
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    return NULL;
}

typedef struct side_t {
    apr_pool_t *pool;
    mw_redis_t store;
    mw_redis_stream_t stream;
    peer_t peer;
} side_t;

/* Connected, and all that the peer has to say is there to be read. */
static void side_begin(side_t *side, int (*say_nothing)(SSL *ssl))
{
    pthread_t thread;
    int fds[2];

    memset(side, 0, sizeof(*side));
    apr_pool_create(&side->pool, NULL);
    assert_null(mw_redis_tls_make(&side->store, side->pool));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    side->stream.ops = &mw_redis_stream_tls;
    side->stream.fd = fds[0];
    side->stream.store = &side->store;
    side->peer.fd = fds[1];
    side->peer.say_nothing = say_nothing;
    side->peer.ctx = SSL_CTX_new(TLS_server_method());
    certificate_make(side->peer.ctx);
    pthread_create(&thread, NULL, peer_run, &side->peer);
    clock_step = 0;
    assert_int_equal(side->stream.ops->greet(&side->stream, "localhost",
                                             clock_now + 60000000),
                     APR_SUCCESS);
    pthread_join(thread, NULL);
    assert_true(side->peer.is_done);
    clock_step = STEP;
}

static void side_end(side_t *side)
{
    side->stream.ops->end(&side->stream);
    close(side->stream.fd);
    close(side->peer.fd);
    SSL_CTX_free(side->peer.ctx);
    apr_pool_destroy(side->pool);
}

static apr_status_t side_read(side_t *side, int looks)
{
    char buffer[16];
    const struct iovec iov = { buffer, sizeof(buffer) };
    apr_size_t length;

    return side->stream.ops->recv(&side->stream, &iov, 1, &length,
                                  clock_now + looks * STEP);
}

static int left_unread(const side_t *side)
{
    int left = 0;

    assert_int_equal(ioctl(side->stream.fd, FIONREAD, &left), 0);
    return left;
}

static int (*const kinds[])(SSL *ssl) = { ticket_send, key_update_send };

static void test_what_is_behind_them_is_read_in_time(void **state)
{
    side_t side;
    int i;

    (void)state;
    for (i = 0; i < COUNT(kinds); i++) {
        side_begin(&side, kinds[i]);
        assert_int_equal(side_read(&side, 10000), APR_SUCCESS);
        assert_int_equal(left_unread(&side), 0);
        side_end(&side);
    }
}

static void test_reading_ends_at_the_deadline(void **state)
{
    side_t side;

    (void)state;
    side_begin(&side, ticket_send);
    assert_int_equal(side_read(&side, 3), APR_TIMEUP);
    assert_true(left_unread(&side) > 0);
    side_end(&side);
}

/* Before its next use an idle connection is looked at. */
static void test_looking_ends_soon(void **state)
{
    side_t side;

    (void)state;
    side_begin(&side, ticket_send);
    clock_step = 5000;
    side.stream.ops->is_quiet(&side.stream);
    assert_true(left_unread(&side) > 0);
    side_end(&side);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_behind_them_is_read_in_time),
        cmocka_unit_test(test_reading_ends_at_the_deadline),
        cmocka_unit_test(test_looking_ends_soon),
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
