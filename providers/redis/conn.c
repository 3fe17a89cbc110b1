/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "conn.h"
#include "fields.h"

/* Pieces of one write. */
#define CONN_PIECES 64

/* Bytes of one read. */
#define CONN_READ 16384

/* Of all replies to a greeting. */
#define GREETING_REPLY_MAX 65536

/* --- batches -------------------------------------------------------------- */

/* A copy is sent: sending changes it, and the batch may be tried twice. */
static apr_status_t pieces_send(mw_redis_conn_t *conn,
                                const apr_array_header_t *pieces,
                                apr_int64_t deadline)
{
    struct iovec iov[CONN_PIECES];
    apr_status_t rv = APR_SUCCESS;
    int i, n;

    for (i = 0; rv == APR_SUCCESS && i < pieces->nelts; i += n) {
        n = pieces->nelts - i < CONN_PIECES ? pieces->nelts - i : CONN_PIECES;
        memcpy(iov, &APR_ARRAY_IDX(pieces, i, struct iovec),
               (apr_size_t)n * sizeof(iov[0]));
        rv = conn->stream.ops->send(&conn->stream, iov, n, deadline);
    }
    return rv;
}

static apr_status_t batch_send(mw_redis_conn_t *conn, mw_redis_batch_t *batch,
                               apr_int64_t deadline)
{
    apr_status_t rv = pieces_send(conn, batch->iov, deadline);

    while (rv == APR_SUCCESS && batch->more) {
        if (mw_redis_clock(conn->store) >= deadline) {
            return APR_TIMEUP;
        }
        batch->is_begun = 1;
        rv = batch->failed = batch->more(batch, batch->baton);
        if (rv != APR_SUCCESS || !batch->iov->nelts) {
            break;
        }
        rv = pieces_send(conn, batch->iov, deadline);
    }
    return rv;
}

static void conn_explain(const mw_redis_conn_t *conn, apr_status_t rv)
{
    const cachemw_services_t *services = conn->store->services;
    const char *what =
        conn->reader ? "in the middle of a call" : "it cannot be connected to";
    char host[MW_REDIS_ENDPOINT_MAX];

    mw_redis_endpoint_text(conn->endpoint, host);
    if (conn->stream.what) {
        mw_redis_count(conn->store, "TLS");
        services->explain(services, rv, "%s: %s", host, conn->stream.what);
    }
    else if (rv == EPROTO) {
        services->explain(services, rv, "%s: its answer is no Redis'", host);
    }
    else if (conn->store->tls && conn->reader && !conn->uses
             && !APR_STATUS_IS_TIMEUP(rv)) {
        /* a server refuses a client when that takes itself for connected, and
         * what it says may be lost with the connection */
        services->explain(services, rv,
                          "%s: TLS: it ended the connection before its first "
                          "answer: does it ask for a certificate?",
                          host);
    }
    else {
        services->explain(services, rv, "%s, %s", host, what);
    }
}

/* What has come: NULL if that is no whole reply. */
static apr_status_t reply_parse(mw_redis_conn_t *conn, mw_redis_reply_t **reply)
{
    void *parsed = NULL;

    if (redisReaderGetReply(conn->reader, &parsed) != REDIS_OK) {
        return EPROTO;
    }
    *reply = parsed;
    return APR_SUCCESS;
}

static apr_status_t reader_feed(mw_redis_conn_t *conn, apr_size_t *room,
                                apr_int64_t deadline)
{
    char buffer[CONN_READ];
    const struct iovec iov = { buffer, sizeof(buffer) };
    apr_size_t length;
    apr_status_t rv;

    rv = conn->stream.ops->recv(&conn->stream, &iov, 1, &length, deadline);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (length > *room
        || redisReaderFeed(conn->reader, buffer, length) != REDIS_OK) {
        return EPROTO;
    }
    *room -= length;
    return APR_SUCCESS;
}

static apr_status_t reply_read(mw_redis_conn_t *conn, apr_size_t *room,
                               apr_int64_t deadline, mw_redis_reply_t **reply)
{
    apr_status_t rv = reply_parse(conn, reply);

    while (rv == APR_SUCCESS && !*reply) {
        rv = reader_feed(conn, room, deadline);
        if (rv == APR_SUCCESS) {
            rv = reply_parse(conn, reply);
        }
    }
    return rv;
}

static apr_status_t replies_read(mw_redis_conn_t *conn, mw_redis_batch_t *batch,
                                 apr_int64_t deadline,
                                 mw_redis_reply_t **replies)
{
    apr_size_t room = batch->reply_max;
    apr_status_t rv = APR_SUCCESS;
    int i;

    if (batch->place) {
        return mw_redis_fields_read(conn, batch, deadline, replies);
    }
    conn->making.pool = batch->pool;
    conn->making.elements = MW_REDIS_ELEMENTS;
    for (i = 0; rv == APR_SUCCESS && i < batch->commands; i++) {
        rv = reply_read(conn, &room, deadline, &replies[i]);
    }
    return rv == APR_SUCCESS && conn->reader->pos != conn->reader->len ? EPROTO
                                                                       : rv;
}

apr_status_t mw_redis_conn_batch(mw_redis_conn_t *conn, mw_redis_batch_t *batch,
                                 apr_int64_t deadline,
                                 mw_redis_reply_t ***replies)
{
    apr_status_t rv = batch_send(conn, batch, deadline);

    if (rv == APR_SUCCESS) {
        *replies = apr_palloc(batch->pool,
                              (apr_size_t)batch->commands * sizeof(**replies));
        rv = replies_read(conn, batch, deadline, *replies);
    }
    if (rv == APR_SUCCESS) {
        conn->uses++;
        return APR_SUCCESS;
    }
    conn->is_bad = 1;
    if (rv == APR_EINCOMPLETE) {
        mw_redis_count(conn->store, "damaged");
        return rv;
    }
    conn_explain(conn, rv);
    if (rv == EPROTO || APR_STATUS_IS_TIMEUP(rv)) {
        mw_redis_count(conn->store, rv == EPROTO ? "nonsense" : "timeout");
    }
    return rv;
}

/* --- listening ------------------------------------------------------------ */

apr_status_t mw_redis_conn_send(mw_redis_conn_t *conn, mw_redis_batch_t *batch,
                                apr_int64_t deadline)
{
    apr_status_t rv = batch_send(conn, batch, deadline);

    if (rv != APR_SUCCESS) {
        conn_explain(conn, rv);
    }
    return rv;
}

apr_status_t mw_redis_conn_listen(mw_redis_conn_t *conn, apr_size_t *room,
                                  apr_int64_t deadline,
                                  mw_redis_reply_t **reply)
{
    apr_status_t rv = reply_parse(conn, reply);

    while (rv == APR_SUCCESS && !*reply) {
        /* TLS sleeps by itself, and may hold what the socket does not show */
        if (!conn->stream.tls) {
            rv = mw_redis_stream_wait(&conn->stream, POLLIN, deadline);
        }
        if (rv == APR_SUCCESS) {
            rv = reader_feed(conn, room, deadline);
        }
        if (rv == APR_SUCCESS) {
            rv = reply_parse(conn, reply);
        }
    }
    if (rv != APR_SUCCESS && !APR_STATUS_IS_TIMEUP(rv)) {
        conn_explain(conn, rv);
    }
    return rv;
}

/* --- greeting ------------------------------------------------------------- */

static void greeting_compose(const mw_redis_greeting_t *greeting,
                             mw_redis_batch_t *batch)
{
    if (greeting->password && greeting->user) {
        mw_redis_batch_words(batch, "AUTH", greeting->user, greeting->password,
                             NULL);
    }
    else if (greeting->password) {
        mw_redis_batch_words(batch, "AUTH", greeting->password, NULL);
    }
    if (greeting->db) {
        mw_redis_batch_open(batch, 2);
        mw_redis_batch_word(batch, "SELECT");
        mw_redis_batch_number(batch, greeting->db);
    }
    if (greeting->command) {
        mw_redis_batch_words(batch, greeting->command, NULL);
    }
}

/* @param i which of its commands was answered by an error */
static apr_status_t greeting_refused(const mw_redis_conn_t *conn,
                                     const mw_redis_greeting_t *greeting, int i,
                                     mw_redis_error_e kind)
{
    const cachemw_services_t *services = conn->store->services;
    const apr_status_t rv = mw_redis_error_status(kind);
    const char *name = mw_redis_error_name(kind);
    char host[MW_REDIS_ENDPOINT_MAX];

    mw_redis_count(conn->store, name);
    mw_redis_endpoint_text(conn->endpoint, host);
    if (greeting->password && i == 0) {
        services->explain(services, rv, "%s: it refuses user and password (%s)",
                          host, name);
    }
    else if (greeting->db && i == (greeting->password != NULL)) {
        services->explain(services, rv,
                          "%s: it refuses SELECT %d (%s): is there a database "
                          "of this number?",
                          host, greeting->db, name);
    }
    else {
        services->explain(services, rv, "%s: it refuses %s (%s)", host,
                          greeting->command, name);
    }
    return rv;
}

static apr_status_t greeting_check(const mw_redis_conn_t *conn,
                                   const mw_redis_greeting_t *greeting,
                                   mw_redis_reply_t *const *replies, int count)
{
    const cachemw_services_t *services = conn->store->services;
    char host[MW_REDIS_ENDPOINT_MAX];
    apr_status_t rv = APR_SUCCESS;
    mw_redis_error_e kind;
    int i;

    for (i = 0; i < count; i++) {
        kind = mw_redis_error_of(replies[i]);
        if (kind != MW_REDIS_ERROR_NONE) {
            return greeting_refused(conn, greeting, i, kind);
        }
    }
    if (greeting->check) {
        rv = greeting->check(replies[count - 1]);
    }
    if (rv != APR_SUCCESS) {
        services->explain(
            services, rv, "%s: its answer to %s is not the right one",
            mw_redis_endpoint_text(conn->endpoint, host), greeting->command);
    }
    return rv;
}

static apr_status_t conn_greet(mw_redis_conn_t *conn,
                               const mw_redis_greeting_t *greeting,
                               apr_int64_t deadline)
{
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_pool_t *pool;
    apr_status_t rv;

    if (!greeting->password && !greeting->db && !greeting->command) {
        return APR_SUCCESS;
    }
    rv = apr_pool_create(&pool, NULL);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_redis_batch_init(&batch, GREETING_REPLY_MAX, pool);
    greeting_compose(greeting, &batch);
    rv = mw_redis_conn_batch(conn, &batch, deadline, &replies);
    if (rv == APR_SUCCESS) {
        rv = greeting_check(conn, greeting, replies, batch.commands);
    }
    apr_pool_destroy(pool);
    return rv;
}

/* --- opening -------------------------------------------------------------- */

/* Each new connection to a name of several addresses tries the next one. */
static unsigned int conn_turn;

static apr_status_t conn_open(mw_redis_conn_t *conn, const mw_redis_t *store,
                              const mw_redis_endpoint_t *endpoint,
                              const mw_redis_greeting_t *greeting,
                              apr_int64_t deadline)
{
    apr_status_t rv;

    rv = mw_redis_names_find(
        store, endpoint, __atomic_fetch_add(&conn_turn, 1, __ATOMIC_RELAXED),
        &conn->address);
    if (rv == APR_SUCCESS) {
        rv = mw_redis_stream_open(&conn->stream, store, &conn->address,
                                  endpoint->host, deadline);
    }
    if (rv == APR_EAGAIN) {
        return rv;
    }
    if (rv != APR_SUCCESS) {
        conn_explain(conn, rv);
        return rv;
    }
    conn->reader = mw_redis_reader_make(&conn->making);
    return conn->reader ? conn_greet(conn, greeting, deadline) : APR_ENOMEM;
}

apr_status_t mw_redis_conn_open(const mw_redis_t *store,
                                const mw_redis_endpoint_t *endpoint,
                                const mw_redis_greeting_t *greeting,
                                apr_int64_t deadline, mw_redis_conn_t **result)
{
    apr_int64_t now = mw_redis_clock(store);
    mw_redis_conn_t *conn = calloc(1, sizeof(*conn));
    apr_status_t rv;

    if (!conn) {
        return APR_ENOMEM;
    }
    if (deadline > now + store->settings.connect_timeout) {
        deadline = now + store->settings.connect_timeout;
    }
    conn->store = store;
    conn->endpoint = endpoint;
    conn->stream.fd = -1;
    conn->used = now;
    rv = conn_open(conn, store, endpoint, greeting, deadline);
    if (rv == APR_SUCCESS) {
        *result = conn;
        return APR_SUCCESS;
    }
    if (rv != APR_EAGAIN) {
        mw_redis_count(store, "not-connected");
    }
    mw_redis_conn_close(conn);
    return rv;
}

void mw_redis_conn_close(mw_redis_conn_t *conn)
{
    mw_redis_stream_close(&conn->stream);
    if (conn->reader) {
        redisReaderFree(conn->reader);
    }
    free(conn);
}
