/* SPDX-License-Identifier: Apache-2.0 */

/* Records that carry nothing: OpenSSL reads on behind them by itself, for as
 * long as there are any. Whoever sends them without end must not keep a call
 * for longer than its deadline. And who listens misses nothing, however records
 * come. The clock is the test's: it moves on whenever somebody looks at it. */

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

#include "providers/redis/conn.h"
#include "providers/redis/fields.h"
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

/* --- what a connection needs, and nobody here calls ----------------------- */

apr_status_t mw_redis_names_find(const mw_redis_t *store,
                                 const mw_redis_endpoint_t *endpoint,
                                 unsigned int turn, mw_address_t *address)
{
    (void)store, (void)endpoint, (void)turn, (void)address;
    return APR_EGENERAL;
}

apr_status_t mw_redis_fields_read(mw_redis_conn_t *conn,
                                  mw_redis_batch_t *batch, apr_int64_t deadline,
                                  mw_redis_reply_t **replies)
{
    (void)conn, (void)batch, (void)deadline, (void)replies;
    return APR_EGENERAL;
}

void mw_redis_count(const mw_redis_t *store, const char *kind)
{
    (void)store, (void)kind;
}

/* --- the peer ------------------------------------------------------------- */

#define SAID "+OK\r\n"

typedef struct peer_t {
    SSL_CTX *ctx;
    int fd;
    int (*say_nothing)(SSL *ssl); /* one record without data; NULL: none */
    int says;                     /* records that say something */
    int held;                     /* bytes of the last that come later */
    BIO *said;
    char later[64];
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

/* All records that say nothing, then those that do. */
static int peer_say(peer_t *peer, SSL *ssl)
{
    int i;

    for (i = 0; peer->say_nothing && i < EMPTY_RECORDS; i++) {
        if (!peer->say_nothing(ssl)) {
            return 0;
        }
    }
    for (i = 0; i < peer->says; i++) {
        if (SSL_write(ssl, SAID, 5) != 5) {
            return 0;
        }
    }
    return 1;
}

/* The handshake, then all that is said in one piece. No cmocka: it is another
 * thread. */
static void *peer_run(void *data)
{
    peer_t *peer = data;
    SSL *ssl = SSL_new(peer->ctx);
    char *bytes;
    long length;

    SSL_set_fd(ssl, peer->fd);
    if (SSL_accept(ssl) == 1) {
        peer->said = BIO_new(BIO_s_mem());
        BIO_up_ref(peer->said);
        SSL_set0_wbio(ssl, peer->said);
        peer->is_done = peer_say(peer, ssl);
        length = BIO_get_mem_data(peer->said, &bytes) - peer->held;
        peer->is_done &= write(peer->fd, bytes, (size_t)length) == length;
        memcpy(peer->later, bytes + length, (size_t)peer->held);
        BIO_free(peer->said);
    }
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    return NULL;
}

typedef struct side_t {
    apr_pool_t *pool;
    mw_redis_t store;
    mw_redis_conn_t conn;
    mw_redis_stream_t *stream; /* of conn */
    apr_size_t room;
    peer_t peer;
} side_t;

/* Connected, and all that the peer has to say is there to be read. */
static void side_begin(side_t *side, peer_t peer)
{
    pthread_t thread;
    int fds[2];

    memset(side, 0, sizeof(*side));
    side->peer = peer;
    side->stream = &side->conn.stream;
    side->conn.store = &side->store;
    side->room = 1000;
    apr_pool_create(&side->pool, NULL);
    assert_null(mw_redis_tls_make(&side->store, side->pool));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    side->stream->ops = &mw_redis_stream_tls;
    side->stream->fd = fds[0];
    side->stream->store = &side->store;
    side->peer.fd = fds[1];
    side->peer.ctx = SSL_CTX_new(TLS_server_method());
    certificate_make(side->peer.ctx);
    pthread_create(&thread, NULL, peer_run, &side->peer);
    clock_step = 0;
    assert_int_equal(side->stream->ops->greet(side->stream, "localhost",
                                              clock_now + 60000000),
                     APR_SUCCESS);
    pthread_join(thread, NULL);
    assert_true(side->peer.is_done);
    clock_step = STEP;
}

static void side_end(side_t *side)
{
    side->stream->ops->end(side->stream);
    close(side->stream->fd);
    close(side->peer.fd);
    if (side->conn.reader) {
        redisReaderFree(side->conn.reader);
    }
    SSL_CTX_free(side->peer.ctx);
    apr_pool_destroy(side->pool);
}

static apr_status_t side_read(side_t *side, int looks)
{
    char buffer[16];
    const struct iovec iov = { buffer, sizeof(buffer) };
    apr_size_t length;

    return side->stream->ops->recv(side->stream, &iov, 1, &length,
                                   clock_now + looks * STEP);
}

static int left_unread(const side_t *side)
{
    int left = 0;

    assert_int_equal(ioctl(side->stream->fd, FIONREAD, &left), 0);
    return left;
}

static int (*const kinds[])(SSL *ssl) = { ticket_send, key_update_send };

static void test_what_is_behind_them_is_read_in_time(void **state)
{
    side_t side;
    int i;

    (void)state;
    for (i = 0; i < COUNT(kinds); i++) {
        side_begin(&side, (peer_t){ .say_nothing = kinds[i], .says = 1 });
        assert_int_equal(side_read(&side, 10000), APR_SUCCESS);
        assert_int_equal(left_unread(&side), 0);
        side_end(&side);
    }
}

static void test_reading_ends_at_the_deadline(void **state)
{
    side_t side;

    (void)state;
    side_begin(&side, (peer_t){ .say_nothing = ticket_send, .says = 1 });
    assert_int_equal(side_read(&side, 3), APR_TIMEUP);
    assert_true(left_unread(&side) > 0);
    assert_int_equal(side_read(&side, 10000), APR_SUCCESS);
    side_end(&side);
}

/* Before its next use an idle connection is looked at. */
static void test_looking_ends_soon(void **state)
{
    side_t side;

    (void)state;
    side_begin(&side, (peer_t){ .say_nothing = ticket_send, .says = 1 });
    clock_step = 5000;
    side.stream->ops->is_quiet(side.stream);
    assert_true(left_unread(&side) > 0);
    side_end(&side);
}

/* --- listening ------------------------------------------------------------ */

/* What a turn of listening comes to. */
static apr_status_t side_listen(side_t *side)
{
    mw_redis_reply_t *reply;
    apr_status_t rv;

    if (!side->conn.reader) {
        side->conn.making.pool = side->pool;
        side->conn.making.elements = 1;
        side->conn.reader = mw_redis_reader_make(&side->conn.making);
    }
    rv = mw_redis_conn_listen(&side->conn, &side->room, clock_now + 50 * STEP,
                              &reply);
    if (rv == APR_SUCCESS) {
        assert_true(mw_redis_reply_is(reply, "OK"));
    }
    return rv;
}

/* OpenSSL has all of them after the first: the socket shows nothing. */
static void test_records_that_came_together_are_heard(void **state)
{
    side_t side;
    int i;

    (void)state;
    side_begin(&side, (peer_t){ .says = 3 });
    for (i = 0; i < 3; i++) {
        assert_int_equal(side_listen(&side), APR_SUCCESS);
        assert_int_equal(left_unread(&side), 0);
    }
    assert_int_equal(side_listen(&side), APR_TIMEUP);
    side_end(&side);
}

static void test_record_that_crosses_the_end_of_a_turn_is_heard(void **state)
{
    side_t side;
    int i;

    (void)state;
    side_begin(&side, (peer_t){ .says = 2, .held = 7 });
    assert_int_equal(side_listen(&side), APR_SUCCESS);
    for (i = 0; i < 3; i++) {
        assert_int_equal(side_listen(&side), APR_TIMEUP);
    }
    assert_int_equal(write(side.peer.fd, side.peer.later, 7), 7);
    assert_int_equal(side_listen(&side), APR_SUCCESS);
    side_end(&side);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_behind_them_is_read_in_time),
        cmocka_unit_test(test_reading_ends_at_the_deadline),
        cmocka_unit_test(test_looking_ends_soon),
        cmocka_unit_test(test_records_that_came_together_are_heard),
        cmocka_unit_test(test_record_that_crosses_the_end_of_a_turn_is_heard),
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
