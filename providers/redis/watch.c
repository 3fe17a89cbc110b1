/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>

#include "say.h"
#include "servers.h"
#include "slotmap.h"
#include "watch.h"

/* What comes without being whole: more is no message. */
#define EARS_ROOM (2 * MW_REDIS_SAID_MAX)

/* Whose answer takes that long has gone. */
#define EARS_PATIENCE apr_time_from_sec(1)

/* Of an array that is sent to who listens. */
#define EARS_ELEMENTS 8

/* One who listens. */
struct mw_redis_ears_t {
    mw_redis_ears_t *next; /* of another */
    const void *baton;     /* who it is */
    mw_redis_pool_t *pool; /* of the server, referenced; NULL: none */
    mw_redis_conn_t *conn; /* NULL: none */
    apr_pool_t *memory;    /* of the reply that is being read */
    apr_size_t room;       /* for the rest of it */
    int is_listening;      /* the server has said so */
    int is_asked;          /* a PING has no answer yet */
    apr_int64_t since;     /* when it was sent, or the wish to listen */
};

typedef struct mw_redis_ears_t ears_t;

/* --- connecting ----------------------------------------------------------- */

static void ears_close(ears_t *ears)
{
    if (ears->conn) {
        mw_redis_conn_close(ears->conn);
        ears->conn = NULL;
    }
    if (ears->pool) {
        mw_redis_pool_unref(ears->pool);
        ears->pool = NULL;
    }
    if (ears->memory) {
        apr_pool_destroy(ears->memory);
        ears->memory = NULL;
    }
}

static apr_status_t ears_send(mw_redis_t *store, ears_t *ears,
                              const char *command, const char *word,
                              apr_int64_t deadline)
{
    mw_redis_batch_t batch;
    apr_pool_t *pool;
    apr_status_t rv = apr_pool_create(&pool, NULL);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_redis_batch_init(&batch, 0, pool);
    mw_redis_batch_words(&batch, command, word, NULL);
    rv = mw_redis_conn_send(ears->conn, &batch, deadline);
    ears->since = mw_redis_clock(store);
    apr_pool_destroy(pool);
    return rv;
}

static int store_slot(const mw_redis_t *store)
{
    return mw_redis_slot(store->say->channel.data, store->say->channel.len);
}

static apr_status_t ears_open(mw_redis_t *store, ears_t *ears)
{
    const apr_int64_t deadline =
        mw_redis_clock(store) + store->settings.connect_timeout;
    apr_status_t rv =
        store->servers->find(store, store_slot(store), deadline, &ears->pool);

    ears->is_listening = ears->is_asked = 0;
    ears->room = EARS_ROOM;
    if (rv != APR_SUCCESS) {
        ears->pool = NULL;
        return rv;
    }
    rv = apr_pool_create(&ears->memory, NULL);
    if (rv == APR_SUCCESS) {
        rv = mw_redis_pool_connect(ears->pool, deadline, &ears->conn);
    }
    if (rv == APR_SUCCESS) {
        rv = ears_send(store, ears, "SUBSCRIBE", store->say->channel.data,
                       deadline);
    }
    return rv;
}

/* Another server is to be asked by now, and tells of changes there, perhaps
 * under the same name; or none is, while others go on without this one. */
static int ears_are_elsewhere(mw_redis_t *store, const ears_t *ears,
                              apr_int64_t deadline)
{
    mw_redis_pool_t *pool;
    apr_status_t rv =
        store->servers->find(store, store_slot(store), deadline, &pool);
    int is_other;

    if (rv != APR_SUCCESS) {
        return APR_STATUS_IS_EAGAIN(rv);
    }
    is_other = pool != ears->pool
               || mw_redis_names_left(store, ears->conn->endpoint,
                                      &ears->conn->address);
    mw_redis_pool_unref(pool);
    return is_other;
}

/* It does not listen any more: there may be another server by now.
 * @return rv, but not what says that it goes on */
static apr_status_t ears_failed(mw_redis_t *store, ears_t *ears,
                                apr_status_t rv)
{
    const apr_int64_t deadline =
        mw_redis_clock(store) + store->settings.connect_timeout;
    const mw_redis_reason_t reason = { .pool = ears->pool, .rv = rv };
    mw_redis_pool_t *next = NULL;
    int is_asking = 0;

    if (ears->pool && store->servers->redirect) {
        store->servers->redirect(store, store_slot(store), &reason, deadline,
                                 &next, &is_asking);
    }
    if (next) {
        mw_redis_pool_unref(next);
    }
    ears_close(ears);
    if (APR_STATUS_IS_TIMEUP(rv)) {
        store->services->explain(store->services, ETIMEDOUT,
                                 "no answer to who listens for changes");
        rv = ETIMEDOUT;
    }
    return rv;
}

/* --- listening ------------------------------------------------------------ */

typedef struct turn_t {
    mw_redis_t *store;
    ears_t *ears;
    cachemw_watch_fn *each;
    void *baton;
} turn_t;

static void message_tell(const turn_t *turn, const mw_redis_reply_t *text)
{
    mw_redis_said_t said;

    if (mw_redis_say_read(turn->store, text->data, text->len, &said)
        == APR_SUCCESS) {
        turn->each(turn->baton, said.what,
                   said.what == CACHEMW_CHANGE_CLEARED ? NULL : &said.key,
                   said.has_id ? &said.id : NULL, said.is_own);
    }
}

/* @return APR_EINCOMPLETE: from now on */
static apr_status_t reply_heed(const turn_t *turn,
                               const mw_redis_reply_t *reply)
{
    const mw_redis_error_e kind = mw_redis_error_of(reply);
    ears_t *ears = turn->ears;
    mw_redis_reply_t **parts = reply->elements;

    if (kind != MW_REDIS_ERROR_NONE) {
        mw_redis_count(turn->store, mw_redis_error_name(kind));
        turn->store->services->explain(
            turn->store->services, mw_redis_error_status(kind),
            "it does not let us listen to the channel %s (%s)",
            turn->store->say->channel.data, mw_redis_error_name(kind));
        return mw_redis_error_status(kind);
    }
    if (reply->type == REDIS_REPLY_ARRAY && reply->len == 2
        && mw_redis_reply_is(parts[0], "pong") && ears->is_asked) {
        ears->is_asked = 0;
        return APR_SUCCESS;
    }
    if (reply->type == REDIS_REPLY_ARRAY && reply->len == 3
        && mw_redis_reply_is(parts[0], "subscribe") && !ears->is_listening) {
        ears->is_listening = 1;
        return APR_EINCOMPLETE;
    }
    if (reply->type == REDIS_REPLY_ARRAY && reply->len == 3
        && mw_redis_reply_is(parts[0], "message") && ears->is_listening
        && parts[2]->type == REDIS_REPLY_STRING) {
        message_tell(turn, parts[2]);
        return APR_SUCCESS;
    }
    return mw_redis_nonsense(turn->store);
}

/* Until the deadline, APR_TIMEUP, or something else than messages. */
static apr_status_t turn_listen(const turn_t *turn, apr_int64_t deadline)
{
    ears_t *ears = turn->ears;
    mw_redis_reply_t *reply;
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS) {
        if (ears->room == EARS_ROOM) {
            ears->conn->making.pool = ears->memory;
            ears->conn->making.elements = EARS_ELEMENTS;
        }
        rv = mw_redis_conn_listen(ears->conn, &ears->room, deadline, &reply);
        if (rv == APR_SUCCESS) {
            rv = reply_heed(turn, reply);
            apr_pool_clear(ears->memory);
            ears->room = EARS_ROOM;
        }
    }
    return rv;
}

/* What the time that is over has shown. */
static apr_status_t turn_end(const turn_t *turn)
{
    const ears_t *ears = turn->ears;

    if (ears->is_listening && !ears->is_asked) {
        return APR_SUCCESS;
    }
    return mw_redis_clock(turn->store) - ears->since < EARS_PATIENCE
               ? APR_TIMEUP
               : ETIMEDOUT;
}

/* Those of who listens with this baton, which no two threads do. */
static ears_t *ears_find(mw_redis_t *store, const void *baton)
{
    ears_t *ears = __atomic_load_n(&store->ears, __ATOMIC_ACQUIRE);

    while (ears && ears->baton != baton) {
        ears = ears->next;
    }
    if (ears) {
        return ears;
    }
    ears = calloc(1, sizeof(*ears));
    if (ears) {
        ears->baton = baton;
        ears->next = __atomic_load_n(&store->ears, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&store->ears, &ears->next, ears, 0,
                                            __ATOMIC_RELEASE,
                                            __ATOMIC_RELAXED)) {
        }
    }
    return ears;
}

apr_status_t mw_redis_watch(void *self, const cachemw_call_t *call,
                            cachemw_watch_fn *each, void *baton)
{
    mw_redis_t *store = self;
    ears_t *ears = ears_find(store, baton);
    const turn_t turn = { store, ears, each, baton };
    const apr_int64_t deadline = mw_redis_deadline(store, call);
    apr_status_t rv = APR_SUCCESS;

    if (!ears) {
        return APR_ENOMEM;
    }
    if (ears->conn && ears_are_elsewhere(store, ears, deadline)) {
        ears_close(ears);
    }
    if (!ears->conn) {
        rv = ears_open(store, ears);
    }
    else if (ears->is_listening && !ears->is_asked) {
        rv = ears_send(store, ears, "PING", NULL, deadline);
        ears->is_asked = 1;
    }
    if (rv != APR_SUCCESS) {
        return ears_failed(store, ears, rv);
    }
    rv = turn_listen(&turn, deadline);
    if (APR_STATUS_IS_TIMEUP(rv)) {
        rv = turn_end(&turn);
    }
    if (rv == APR_SUCCESS || APR_STATUS_IS_TIMEUP(rv)
        || rv == APR_EINCOMPLETE) {
        return rv;
    }
    return ears_failed(store, ears, rv == ETIMEDOUT ? APR_TIMEUP : rv);
}

/* --- life ----------------------------------------------------------------- */

static apr_status_t ears_end(void *data)
{
    mw_redis_t *store = data;
    ears_t *ears;

    while ((ears = store->ears) != NULL) {
        store->ears = ears->next;
        ears_close(ears);
        free(ears);
    }
    return APR_SUCCESS;
}

void mw_redis_watch_child_init(mw_redis_t *store, apr_pool_t *pchild)
{
    store->ears = NULL;
    apr_pool_cleanup_register(pchild, store, ears_end, apr_pool_cleanup_null);
}
