/* SPDX-License-Identifier: Apache-2.0 */

/* The master that sentinels name. Its address is in shared memory: who finds
 * another one, moves all children. */

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "apr_strings.h"

#include "core/crc32c.h"
#include "servers.h"
#include "turn.h"

/* Sentinels are not asked again by a child before this has passed. */
#define ASK_PAUSE apr_time_from_msec(100)

/* Of what is left, what asking may take when there is a master already, which
 * may be well though sentinels hang. */
#define DOUBT_SHARE 4

#define ASK_REPLY_MAX 4096

/* An address and port as words, the last of them a checksum: writers do not
 * wait for each other, and one that dies between two words leaves nothing that
 * passes for an address. All zero: none. */
typedef struct place_t {
    apr_uint64_t words[MW_REDIS_PLACE_WORDS];
} place_t;

typedef struct sentinel_t {
    mw_redis_greeting_t greeting; /* of the master */
    mw_redis_turn_t turn;         /* of who asks */
    mw_redis_pool_t *watchers[MW_REDIS_HOSTS_MAX];
    int watcher_count;
    int is_doubtful;         /* whether the master is still it; atomic */
    unsigned int first;      /* which of them to ask first; atomic */
    pthread_mutex_t mutex;   /* covers what follows */
    place_t place;           /* of the pool */
    mw_redis_pool_t *master; /* NULL: none yet, or the child has ended */
    int is_open;
} sentinel_t;

static const mw_redis_greeting_t watcher_greeting;

/* --- places --------------------------------------------------------------- */

static apr_uint64_t place_sum(const place_t *place)
{
    return mw_crc32c(0, place->words,
                     sizeof(place->words) - sizeof(place->words[0]));
}

/* @return EDESTADDRREQ: not an address */
static apr_status_t place_make(const char *host, int port, place_t *place)
{
    const int is_v6 = strchr(host, ':') != NULL;

    memset(place, 0, sizeof(*place));
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, host, place->words) != 1) {
        return EDESTADDRREQ;
    }
    place->words[2] = (apr_uint64_t)port << 1 | (apr_uint64_t)is_v6;
    place->words[3] = place_sum(place);
    return APR_SUCCESS;
}

static void place_endpoint(const place_t *place, char *host, apr_size_t size,
                           mw_redis_endpoint_t *endpoint)
{
    const int is_v6 = (int)(place->words[2] & 1);

    inet_ntop(is_v6 ? AF_INET6 : AF_INET, place->words, host, (socklen_t)size);
    endpoint->host = host;
    endpoint->port = (int)(place->words[2] >> 1);
}

static int place_same(const place_t *one, const place_t *other)
{
    return memcmp(one, other, sizeof(*one)) == 0;
}

static void place_publish(mw_redis_t *store, const place_t *place)
{
    int i;

    for (i = 0; i < MW_REDIS_PLACE_WORDS; i++) {
        __atomic_store_n(&store->place[i], place->words[i], __ATOMIC_RELAXED);
    }
}

/* @return whether there is one */
static int place_load(const mw_redis_t *store, place_t *place)
{
    int i;

    for (i = 0; i < MW_REDIS_PLACE_WORDS; i++) {
        place->words[i] = __atomic_load_n(&store->place[i], __ATOMIC_RELAXED);
    }
    return place->words[2] && place->words[3] == place_sum(place);
}

/* --- asking --------------------------------------------------------------- */

static int port_read(const mw_redis_reply_t *reply)
{
    int port = 0;
    apr_size_t i;

    for (i = 0; i < reply->len && i < 6; i++) {
        if (reply->data[i] < '0' || reply->data[i] > '9') {
            return 0;
        }
        port = port * 10 + (reply->data[i] - '0');
    }
    return reply->len < 6 && port < 65536 ? port : 0;
}

static apr_status_t answer_read(const mw_redis_reply_t *reply, place_t *place)
{
    const mw_redis_reply_t *host, *port;

    if (reply->type != REDIS_REPLY_ARRAY || reply->len != 2) {
        return EDESTADDRREQ;
    }
    host = reply->elements[0];
    port = reply->elements[1];
    if (host->type != REDIS_REPLY_STRING || port->type != REDIS_REPLY_STRING
        || !port_read(port)) {
        return EDESTADDRREQ;
    }
    return place_make(host->data, port_read(port), place);
}

static const char *answer_fault(const mw_redis_reply_t *reply)
{
    const mw_redis_error_e kind = mw_redis_error_of(reply);

    switch (reply->type) {
    case REDIS_REPLY_NIL:
        return "knows no master of this name";
    case REDIS_REPLY_ERROR:
        return kind == MW_REDIS_ERROR_OTHER
                   ? "refuses to name it: is it a sentinel?"
                   : mw_redis_error_name(kind);
    case REDIS_REPLY_ARRAY:
        return "names it by something else than an address: set \"sentinel "
               "announce-hostnames no\" there";
    default:
        return "answers something else than an address";
    }
}

/* @param fault set to what is wrong with the sentinel, when it fails */
static apr_status_t watcher_ask(mw_redis_t *store, int i, apr_int64_t deadline,
                                place_t *place, const char **fault)
{
    sentinel_t *self = store->servers_self;
    const mw_redis_url_t *url = &store->settings.url;
    char host[MW_REDIS_ENDPOINT_MAX];
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_pool_t *pool;
    apr_status_t rv = apr_pool_create(&pool, NULL);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_redis_batch_init(&batch, ASK_REPLY_MAX, pool);
    mw_redis_batch_words(&batch, "SENTINEL", "GET-MASTER-ADDR-BY-NAME",
                         url->master, NULL);
    *fault = "does not answer";
    rv = mw_redis_pool_batch(self->watchers[i], &batch, deadline, &replies);
    if (rv == APR_SUCCESS) {
        rv = answer_read(replies[0], place);
        if (rv != APR_SUCCESS) {
            *fault = answer_fault(replies[0]);
            store->services->explain(
                store->services, rv, "master \"%s\": the sentinel at %s %s",
                url->master, mw_redis_endpoint_text(&url->endpoints[i], host),
                *fault);
        }
    }
    apr_pool_destroy(pool);
    return rv;
}

/* While others answer nobody would hear of it. */
static void watcher_blame(const mw_redis_t *store, int i, const char *fault)
{
    const mw_redis_url_t *url = &store->settings.url;
    char host[MW_REDIS_ENDPOINT_MAX];

    store->services->log(
        store->services, CACHEMW_LOG_WARNING, APR_SUCCESS,
        "master \"%s\": the sentinel at %s %s (another one has named it)",
        url->master, mw_redis_endpoint_text(&url->endpoints[i], host), fault);
}

/* Each may take half of what is left, so that one that hangs leaves time for
 * others. */
static apr_status_t watchers_ask(mw_redis_t *store, apr_int64_t deadline,
                                 place_t *place)
{
    sentinel_t *self = store->servers_self;
    const unsigned int count = (unsigned int)self->watcher_count;
    const unsigned int first = __atomic_load_n(&self->first, __ATOMIC_RELAXED);
    const char *fault = NULL, *first_fault = NULL;
    apr_status_t rv = APR_EAGAIN;
    apr_int64_t now;
    unsigned int i;

    for (i = 0; i < count; i++) {
        now = mw_redis_clock(store);
        if (now >= deadline) {
            return APR_TIMEUP;
        }
        rv = watcher_ask(store, (int)((first + i) % count),
                         i + 1 < count ? now + (deadline - now) / 2 : deadline,
                         place, &fault);
        if (rv == APR_SUCCESS) {
            break;
        }
        first_fault = first_fault ? first_fault : fault;
    }
    if (rv == APR_SUCCESS && first_fault) {
        watcher_blame(store, (int)(first % count), first_fault);
    }
    __atomic_store_n(&self->first, (first + i) % count, __ATOMIC_RELAXED);
    return rv;
}

/* Find out who is the master, unless that was just done. A sentinel that still
 * names the old one may be behind the others: the next time the next is first. */
static apr_status_t master_learn(mw_redis_t *store, apr_int64_t deadline)
{
    sentinel_t *self = store->servers_self;
    place_t place, known;
    apr_status_t rv =
        mw_redis_turn_begin(&self->turn, store, ASK_PAUSE, deadline);

    if (APR_STATUS_IS_EAGAIN(rv)) {
        return APR_SUCCESS;
    }
    if (rv != APR_SUCCESS) {
        store->services->explain(store->services, rv,
                                 "master \"%s\": no sentinel has said in time "
                                 "where it is",
                                 store->settings.url.master);
        return rv;
    }
    rv = watchers_ask(store, deadline, &place);
    if (rv == APR_SUCCESS) {
        __atomic_store_n(&self->is_doubtful, 0, __ATOMIC_RELAXED);
        if (place_load(store, &known) && place_same(&place, &known)) {
            __atomic_fetch_add(&self->first, 1, __ATOMIC_RELAXED);
        }
        else {
            place_publish(store, &place);
        }
    }
    mw_redis_turn_end(&self->turn, store);
    return rv;
}

/* --- the master ----------------------------------------------------------- */

static apr_status_t role_check(const mw_redis_reply_t *reply)
{
    const mw_redis_reply_t *role;

    if (reply->type != REDIS_REPLY_ARRAY || reply->len == 0) {
        return EPROTO;
    }
    role = reply->elements[0];
    return role->type == REDIS_REPLY_STRING && role->len == 6
                   && memcmp(role->data, "master", 6) == 0
               ? APR_SUCCESS
               : APR_ECONNREFUSED;
}

/* The pool of this place, instead of the one of another. */
static apr_status_t master_take(mw_redis_t *store, const place_t *place,
                                mw_redis_pool_t **pool)
{
    sentinel_t *self = store->servers_self;
    mw_redis_pool_t *old = NULL;
    mw_redis_endpoint_t endpoint;
    char host[INET6_ADDRSTRLEN];

    pthread_mutex_lock(&self->mutex);
    if (self->is_open && !(self->master && place_same(&self->place, place))) {
        old = self->master;
        place_endpoint(place, host, sizeof(host), &endpoint);
        self->master = mw_redis_pool_make(store, &endpoint, &self->greeting);
        self->place = *place;
    }
    *pool = self->master;
    if (*pool) {
        mw_redis_pool_ref(*pool);
    }
    pthread_mutex_unlock(&self->mutex);
    if (old) {
        mw_redis_pool_drop(old);
        mw_redis_pool_unref(old);
    }
    return *pool ? APR_SUCCESS : APR_EAGAIN;
}

/* A master that has hung may have left no time to ask: then who comes next
 * asks first. */
static apr_status_t sentinel_find(mw_redis_t *store, int slot,
                                  apr_int64_t deadline, mw_redis_pool_t **pool)
{
    sentinel_t *self = store->servers_self;
    apr_status_t rv = APR_SUCCESS;
    place_t place, later;
    apr_int64_t now;

    (void)slot;
    if (!place_load(store, &place)) {
        rv = master_learn(store, deadline);
        if (rv == APR_SUCCESS && !place_load(store, &place)) {
            rv = APR_EAGAIN; /* whoever asked has told why */
        }
    }
    else if (__atomic_load_n(&self->is_doubtful, __ATOMIC_RELAXED)) {
        now = mw_redis_clock(store);
        master_learn(store, now + (deadline - now) / DOUBT_SHARE);
        if (place_load(store, &later)) {
            place = later;
        }
    }
    return rv == APR_SUCCESS ? master_take(store, &place, pool) : rv;
}

/* Whatever went wrong may be the end of this master. */
static apr_status_t sentinel_redirect(mw_redis_t *store, int slot,
                                      const mw_redis_reason_t *reason,
                                      apr_int64_t deadline,
                                      mw_redis_pool_t **pool, int *is_asking)
{
    sentinel_t *self = store->servers_self;

    (void)is_asking;
    __atomic_store_n(&self->is_doubtful, 1, __ATOMIC_RELAXED);
    if (sentinel_find(store, slot, deadline, pool) != APR_SUCCESS) {
        *pool = NULL;
    }
    else if (*pool == reason->pool) {
        mw_redis_pool_unref(*pool);
        *pool = NULL;
    }
    return APR_SUCCESS;
}

static apr_status_t sentinel_at(mw_redis_t *store, int i, apr_int64_t deadline,
                                mw_redis_pool_t **pool)
{
    return i ? APR_EOF : sentinel_find(store, 0, deadline, pool);
}

/* --- life ----------------------------------------------------------------- */

/* Calls of other threads may be under way: what they refer to stays. */
static apr_status_t sentinel_end(void *data)
{
    sentinel_t *self = data;
    mw_redis_pool_t *master;
    int i;

    pthread_mutex_lock(&self->mutex);
    self->is_open = 0;
    master = self->master;
    self->master = NULL;
    pthread_mutex_unlock(&self->mutex);
    if (master) {
        mw_redis_pool_drop(master);
        mw_redis_pool_unref(master);
    }
    for (i = 0; i < self->watcher_count; i++) {
        mw_redis_pool_drop(self->watchers[i]);
    }
    return APR_SUCCESS;
}

static sentinel_t *sentinel_make(const mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    sentinel_t *self = calloc(1, sizeof(*self));
    int i;

    if (!self) {
        return NULL;
    }
    self->greeting.user = url->user;
    self->greeting.password = url->password;
    self->greeting.db = url->db;
    self->greeting.command = "ROLE";
    self->greeting.check = role_check;
    pthread_mutex_init(&self->mutex, NULL);
    mw_redis_turn_init(&self->turn);
    for (i = 0; i < url->endpoint_count; i++) {
        self->watchers[i] =
            mw_redis_pool_make(store, &url->endpoints[i], &watcher_greeting);
        if (!self->watchers[i]) {
            break;
        }
        self->watcher_count++;
    }
    return self;
}

static apr_status_t sentinel_child_init(mw_redis_t *store, apr_pool_t *pchild)
{
    sentinel_t *self = store->servers_self;

    if (!self) {
        store->servers_self = self = sentinel_make(store);
    }
    if (!self || !self->watcher_count) {
        return APR_ENOMEM;
    }
    self->is_open = 1;
    apr_pool_cleanup_register(pchild, self, sentinel_end,
                              apr_pool_cleanup_null);
    return APR_SUCCESS;
}

static void sentinel_close(mw_redis_t *store)
{
    sentinel_t *self = store->servers_self;
    int i;

    if (!self) {
        return;
    }
    sentinel_end(self);
    for (i = 0; i < self->watcher_count; i++) {
        mw_redis_pool_unref(self->watchers[i]);
    }
    mw_redis_turn_destroy(&self->turn);
    pthread_mutex_destroy(&self->mutex);
    free(self);
    store->servers_self = NULL;
}

const mw_redis_servers_ops_t mw_redis_sentinel = {
    .child_init = sentinel_child_init,
    .close = sentinel_close,
    .find = sentinel_find,
    .redirect = sentinel_redirect,
    .at = sentinel_at,
};
