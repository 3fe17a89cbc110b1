/* SPDX-License-Identifier: Apache-2.0 */

/* A cluster: each child keeps a map of who serves which slots, as a node told
 * it, and asks again when somebody says otherwise or does not answer. */

#include <stdlib.h>
#include <string.h>

#include "servers.h"
#include "slotmap.h"
#include "turn.h"

/* The map is not asked for again by a child before these have passed: when
 * somebody has moved slots, and when a node does not answer. */
#define MOVED_PAUSE apr_time_from_sec(1)
#define DOWN_PAUSE apr_time_from_msec(200)

/* How long a node that does not answer is left alone. */
#define DOWN apr_time_from_msec(500)

/* Failures that make a node one that does not answer, and after how long
 * without another they are forgotten. */
#define DOWN_FAILURES 3
#define FORGOTTEN apr_time_from_sec(10)

/* Nodes that are asked for the map before giving up. */
#define SOURCES_MAX 4

typedef struct node_t {
    mw_redis_pool_t *pool;
    int is_down;
    int failures;
    apr_int64_t failed; /* when that was, the last time */
    apr_int64_t probed; /* when one call was let through although it is down */
} node_t;

typedef struct cluster_t {
    mw_redis_greeting_t greeting;
    mw_redis_turn_t turn; /* of who asks for the map */
    mw_redis_pool_t *seeds[MW_REDIS_HOSTS_MAX];
    int seed_count;
    unsigned int source;   /* where to begin to ask; atomic */
    apr_status_t told;     /* what asking for the map came to; atomic */
    pthread_mutex_t mutex; /* covers what follows; never held over a call */
    int is_open;
    int count; /* of nodes; the masters of the map come first */
    node_t nodes[MW_REDIS_NODES_MAX];
    apr_uint16_t owners[MW_REDIS_SLOTS]; /* 1 + index in nodes; 0: nobody */
    node_t others[MW_REDIS_NODES_MAX];   /* of whose turn it is */
} cluster_t;

/* --- nodes ---------------------------------------------------------------- */

/* Whether to try. One call at a time finds out whether a node that was down is
 * there again; that nothing is heard of it for a while means that it is. */
static int node_admits(node_t *node, apr_int64_t now)
{
    if (!node->is_down) {
        return 1;
    }
    if (now - node->failed < DOWN || now - node->probed < DOWN) {
        return 0;
    }
    if (node->probed > node->failed) {
        node->is_down = 0;
        node->failures = DOWN_FAILURES - 1;
    }
    else {
        node->probed = now;
    }
    return 1;
}

/* Whether others are better to be asked for the map. */
static int node_is_doubtful(const node_t *node, apr_int64_t now)
{
    return node->is_down || (node->failures && now - node->failed < DOWN);
}

/* The mutex is held. @return NULL: there is none */
static node_t *node_find(cluster_t *self, const mw_redis_endpoint_t *endpoint)
{
    int i;

    for (i = 0; i < self->count; i++) {
        if (mw_redis_endpoint_same(mw_redis_pool_endpoint(self->nodes[i].pool),
                                   endpoint)) {
            return &self->nodes[i];
        }
    }
    return NULL;
}

/* The same by its pool. */
static node_t *node_of(cluster_t *self, const mw_redis_pool_t *pool)
{
    int i;

    for (i = 0; i < self->count; i++) {
        if (self->nodes[i].pool == pool) {
            return &self->nodes[i];
        }
    }
    return NULL;
}

/* The node of an endpoint, made unless it is there: its pool, referenced.
 * @param slot the node is its master now; -1: of none
 * @return NULL: there is no room, or the child ends */
static mw_redis_pool_t *node_take(mw_redis_t *store,
                                  const mw_redis_endpoint_t *endpoint, int slot)
{
    cluster_t *self = store->servers_self;
    mw_redis_pool_t *pool = NULL;
    node_t *node;

    pthread_mutex_lock(&self->mutex);
    node = self->is_open ? node_find(self, endpoint) : NULL;
    if (!node && self->is_open && self->count < MW_REDIS_NODES_MAX) {
        pool = mw_redis_pool_make(store, endpoint, &self->greeting);
        if (pool) {
            node = &self->nodes[self->count++];
            memset(node, 0, sizeof(*node));
            node->pool = pool;
        }
    }
    if (node) {
        pool = mw_redis_pool_ref(node->pool);
        if (slot >= 0) {
            self->owners[slot] = (apr_uint16_t)(node - self->nodes + 1);
        }
    }
    pthread_mutex_unlock(&self->mutex);
    return pool;
}

/* --- the map -------------------------------------------------------------- */

/* The mutex is held. Nodes of a map in `others`: those that are known keep
 * their pools. @return how many could be made */
static int others_make(mw_redis_t *store, const mw_redis_slotmap_t *map)
{
    cluster_t *self = store->servers_self;
    const node_t *known;
    node_t *node;
    int i;

    for (i = 0; i < map->count; i++) {
        node = &self->others[i];
        memset(node, 0, sizeof(*node));
        known = node_find(self, &map->nodes[i]);
        if (known) {
            *node = *known;
            mw_redis_pool_ref(node->pool);
            continue;
        }
        node->pool = mw_redis_pool_make(store, &map->nodes[i], &self->greeting);
        if (!node->pool) {
            break;
        }
    }
    return i;
}

/* The mutex is held. @return how many are in `others` now */
static int others_swap(cluster_t *self, const mw_redis_slotmap_t *map)
{
    const int count = self->count;
    int i;

    for (i = 0; i < count || i < map->count; i++) {
        const node_t node = self->nodes[i];

        self->nodes[i] = self->others[i];
        self->others[i] = node;
    }
    self->count = map->count;
    memcpy(self->owners, map->owners, sizeof(self->owners));
    return count;
}

/* Those that are not in use any more close their connections. */
static void others_drop(cluster_t *self, int count)
{
    int i, is_gone;

    for (i = 0; i < count; i++) {
        pthread_mutex_lock(&self->mutex);
        is_gone = !node_of(self, self->others[i].pool);
        pthread_mutex_unlock(&self->mutex);
        if (is_gone) {
            mw_redis_pool_drop(self->others[i].pool);
        }
        mw_redis_pool_unref(self->others[i].pool);
    }
}

/* Whose turn it is has `others` alone. */
static void map_adopt(mw_redis_t *store, const mw_redis_slotmap_t *map)
{
    cluster_t *self = store->servers_self;
    int count;

    pthread_mutex_lock(&self->mutex);
    count = others_make(store, map);
    if (count == map->count && self->is_open) {
        count = others_swap(self, map);
    }
    pthread_mutex_unlock(&self->mutex);
    others_drop(self, count);
}

static const char *map_fault(const mw_redis_reply_t *reply)
{
    const mw_redis_error_e kind = mw_redis_error_of(reply);

    return kind == MW_REDIS_ERROR_NONE ? "nonsense" : mw_redis_error_name(kind);
}

/* @param fault set to what is wrong with the source, when it fails */
static apr_status_t map_ask(mw_redis_t *store, mw_redis_pool_t *source,
                            apr_int64_t deadline, const char **fault)
{
    const mw_redis_endpoint_t *from = mw_redis_pool_endpoint(source);
    char host[MW_REDIS_ENDPOINT_MAX];
    mw_redis_reply_t **replies;
    mw_redis_slotmap_t *map;
    mw_redis_batch_t batch;
    apr_pool_t *pool;
    apr_status_t rv = apr_pool_create(&pool, NULL);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_redis_batch_init(&batch, MW_REDIS_SLOTMAP_REPLY_MAX, pool);
    mw_redis_batch_words(&batch, "CLUSTER", "SLOTS", NULL);
    *fault = "no answer";
    rv = mw_redis_pool_batch(source, &batch, deadline, &replies);
    if (rv == APR_SUCCESS) {
        map = apr_palloc(pool, sizeof(*map));
        rv = mw_redis_slotmap_parse(replies[0], from, map, pool);
        if (rv == APR_SUCCESS) {
            map_adopt(store, map);
        }
        else {
            *fault = map_fault(replies[0]);
            store->services->explain(
                store->services, rv,
                "%s does not tell who serves which slots (%s): is it a node of "
                "a cluster?",
                mw_redis_endpoint_text(from, host), *fault);
        }
    }
    apr_pool_destroy(pool);
    return rv;
}

/* The n-th whom to ask: nodes that answer, then those of the URL.
 * @return referenced; NULL: there are no more */
static mw_redis_pool_t *source_take(mw_redis_t *store, unsigned int n)
{
    cluster_t *self = store->servers_self;
    const unsigned int begin = __atomic_load_n(&self->source, __ATOMIC_RELAXED);
    const apr_int64_t now = mw_redis_clock(store);
    mw_redis_pool_t *pool = NULL;
    unsigned int tried = 0;
    const node_t *node;
    int i;

    pthread_mutex_lock(&self->mutex);
    for (i = 0; i < self->count && tried < SOURCES_MAX && !pool; i++) {
        node =
            &self->nodes[(begin + (unsigned int)i) % (unsigned int)self->count];
        if (!node_is_doubtful(node, now) && tried++ == n) {
            pool = mw_redis_pool_ref(node->pool);
        }
    }
    pthread_mutex_unlock(&self->mutex);
    n -= pool ? 0 : tried;
    if (!pool && n < (unsigned int)self->seed_count) {
        pool = mw_redis_pool_ref(
            self->seeds[(begin + n) % (unsigned int)self->seed_count]);
    }
    return pool;
}

/* While others answer nobody would hear of it. */
static void source_blame(const mw_redis_t *store, const mw_redis_pool_t *source,
                         const char *fault)
{
    char host[MW_REDIS_ENDPOINT_MAX];

    store->services->log(
        store->services, CACHEMW_LOG_WARNING, APR_SUCCESS,
        "%s does not tell who serves which slots (%s); another node does",
        mw_redis_endpoint_text(mw_redis_pool_endpoint(source), host), fault);
}

/* Each may take half of what is left, so that one that hangs leaves time for
 * others. */
static apr_status_t sources_ask(mw_redis_t *store, apr_int64_t deadline)
{
    cluster_t *self = store->servers_self;
    mw_redis_pool_t *first = NULL;
    const char *fault = NULL, *first_fault = NULL;
    apr_status_t rv = APR_TIMEUP;
    mw_redis_pool_t *source;
    apr_int64_t now;
    unsigned int n;

    for (n = 0; rv != APR_SUCCESS; n++) {
        now = mw_redis_clock(store);
        source = now < deadline ? source_take(store, n) : NULL;
        if (!source) {
            break;
        }
        rv = map_ask(store, source, now + (deadline - now) / 2, &fault);
        if (rv != APR_SUCCESS && !first) {
            first = source;
            first_fault = fault;
        }
        else {
            mw_redis_pool_unref(source);
        }
    }
    if (first) {
        if (rv == APR_SUCCESS) {
            source_blame(store, first, first_fault);
        }
        mw_redis_pool_unref(first);
    }
    __atomic_add_fetch(&self->source, 1, __ATOMIC_RELAXED);
    return rv;
}

static apr_status_t map_told(const cluster_t *self)
{
    return __atomic_load_n(&self->told, __ATOMIC_RELAXED);
}

/* Ask for the map, unless that was just done.
 * @param first whom to ask before all others, or NULL */
static apr_status_t map_refresh(mw_redis_t *store, mw_redis_pool_t *first,
                                apr_interval_time_t pause, apr_int64_t deadline)
{
    cluster_t *self = store->servers_self;
    apr_status_t rv = mw_redis_turn_begin(&self->turn, store, pause, deadline);
    const char *fault;

    if (APR_STATUS_IS_EAGAIN(rv)) {
        return map_told(self);
    }
    if (rv != APR_SUCCESS) {
        store->services->explain(store->services, rv,
                                 "no node of the cluster has said in time who "
                                 "serves which slots");
        return rv;
    }
    if (!first || map_ask(store, first, deadline, &fault) != APR_SUCCESS) {
        rv = sources_ask(store, deadline);
    }
    __atomic_store_n(&self->told, rv, __ATOMIC_RELAXED);
    mw_redis_turn_end(&self->turn, store);
    return rv;
}

/* --- finding -------------------------------------------------------------- */

/* @return APR_EAGAIN: nobody serves this slot, its node is down, or there is no
 *         map; whoever asked for one has told why */
static apr_status_t owner_take(mw_redis_t *store, int slot,
                               mw_redis_pool_t **pool)
{
    cluster_t *self = store->servers_self;
    const apr_int64_t now = mw_redis_clock(store);
    apr_status_t rv;
    node_t *node;

    pthread_mutex_lock(&self->mutex);
    node = self->owners[slot] ? &self->nodes[self->owners[slot] - 1] : NULL;
    rv = APR_EAGAIN;
    if (node && node_admits(node, now)) {
        *pool = mw_redis_pool_ref(node->pool);
        rv = APR_SUCCESS;
    }
    pthread_mutex_unlock(&self->mutex);
    return rv;
}

static apr_status_t cluster_find(mw_redis_t *store, int slot,
                                 apr_int64_t deadline, mw_redis_pool_t **pool)
{
    const cluster_t *self = store->servers_self;
    apr_status_t rv = owner_take(store, slot, pool);

    if (rv == APR_SUCCESS
        || !__atomic_load_n(&self->is_open, __ATOMIC_RELAXED)) {
        return rv;
    }
    rv = map_refresh(store, NULL, DOWN_PAUSE, deadline);
    return rv == APR_SUCCESS ? owner_take(store, slot, pool) : rv;
}

/* --- redirections --------------------------------------------------------- */

static void node_failed(mw_redis_t *store, const mw_redis_reason_t *reason)
{
    cluster_t *self = store->servers_self;
    const apr_int64_t now = mw_redis_clock(store);
    int was_down = 0, is_down = 0;
    node_t *node;

    pthread_mutex_lock(&self->mutex);
    node = node_of(self, reason->pool);
    if (node) {
        if (now - node->failed > FORGOTTEN) {
            node->failures = 0;
        }
        was_down = node->is_down;
        node->failures +=
            APR_STATUS_IS_ECONNREFUSED(reason->rv) ? DOWN_FAILURES : 1;
        node->failed = now;
        is_down = node->is_down = node->failures >= DOWN_FAILURES;
    }
    pthread_mutex_unlock(&self->mutex);
    if (is_down && !was_down) {
        const mw_redis_endpoint_t *endpoint =
            mw_redis_pool_endpoint(reason->pool);

        store->services->log(store->services, CACHEMW_LOG_WARNING, reason->rv,
                             "the node at %s, port %d does not answer: what it "
                             "has are misses",
                             endpoint->host, endpoint->port);
    }
}

/* Another node than the one that went wrong, if the map names one. */
static mw_redis_pool_t *owner_other(mw_redis_t *store, int slot,
                                    const mw_redis_pool_t *wrong)
{
    mw_redis_pool_t *pool;

    if (owner_take(store, slot, &pool) != APR_SUCCESS) {
        return NULL;
    }
    if (pool == wrong) {
        mw_redis_pool_unref(pool);
        return NULL;
    }
    return pool;
}

/* The node that is named takes this slot at once; whether others have moved,
 * too, it is asked now and then. */
static mw_redis_pool_t *moved_follow(mw_redis_t *store,
                                     const mw_redis_reason_t *reason,
                                     apr_int64_t deadline)
{
    mw_redis_endpoint_t to;
    mw_redis_pool_t *next = NULL;
    apr_pool_t *pool;
    int slot;

    if (apr_pool_create(&pool, NULL) != APR_SUCCESS) {
        return NULL;
    }
    if (mw_redis_redirect_parse(reason->reply,
                                mw_redis_pool_endpoint(reason->pool), &slot,
                                &to, pool)
        == APR_SUCCESS) {
        next = node_take(store, &to,
                         reason->error == MW_REDIS_ERROR_MOVED ? slot : -1);
    }
    if (reason->error == MW_REDIS_ERROR_MOVED) {
        map_refresh(store, next, MOVED_PAUSE, deadline);
    }
    apr_pool_destroy(pool);
    return next;
}

/* A node has no answer. Who has no time left to ask believes what others were
 * told. */
static apr_status_t others_ask(mw_redis_t *store,
                               const mw_redis_reason_t *reason,
                               apr_int64_t deadline)
{
    if (reason->rv != APR_SUCCESS) {
        node_failed(store, reason);
    }
    return mw_redis_clock(store) < deadline
               ? map_refresh(store, NULL, DOWN_PAUSE, deadline)
               : map_told(store->servers_self);
}

static apr_status_t cluster_redirect(mw_redis_t *store, int slot,
                                     const mw_redis_reason_t *reason,
                                     apr_int64_t deadline,
                                     mw_redis_pool_t **pool, int *is_asking)
{
    apr_status_t rv = APR_SUCCESS;

    switch (reason->error) {
    case MW_REDIS_ERROR_ASK:
        *is_asking = 1;
        *pool = moved_follow(store, reason, deadline);
        break;
    case MW_REDIS_ERROR_MOVED:
        *pool = moved_follow(store, reason, deadline);
        if (!*pool) {
            *pool = owner_other(store, slot, reason->pool);
        }
        break;
    case MW_REDIS_ERROR_TRYAGAIN:
        break;
    default:
        rv = others_ask(store, reason, deadline);
        *pool = owner_other(store, slot, reason->pool);
        break;
    }
    return rv;
}

/* --- all of them ---------------------------------------------------------- */

static apr_status_t cluster_at(mw_redis_t *store, int i, apr_int64_t deadline,
                               mw_redis_pool_t **pool)
{
    cluster_t *self = store->servers_self;
    apr_status_t rv = APR_SUCCESS;

    if (i == 0) {
        rv = map_refresh(store, NULL, 0, deadline);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    pthread_mutex_lock(&self->mutex);
    rv = APR_EOF;
    if (i < self->count) {
        *pool = mw_redis_pool_ref(self->nodes[i].pool);
        rv = APR_SUCCESS;
    }
    pthread_mutex_unlock(&self->mutex);
    return rv;
}

/* --- life ----------------------------------------------------------------- */

/* Nodes are dropped by the last user; calls of other threads may be under
 * way. */
static apr_status_t cluster_end(void *data)
{
    cluster_t *self = data;
    mw_redis_pool_t *pool;
    int i;

    pthread_mutex_lock(&self->mutex);
    __atomic_store_n(&self->is_open, 0, __ATOMIC_RELAXED);
    memset(self->owners, 0, sizeof(self->owners));
    while (self->count > 0) {
        pool = self->nodes[--self->count].pool;
        mw_redis_pool_drop(pool);
        mw_redis_pool_unref(pool);
    }
    pthread_mutex_unlock(&self->mutex);
    for (i = 0; i < self->seed_count; i++) {
        mw_redis_pool_drop(self->seeds[i]);
    }
    return APR_SUCCESS;
}

static cluster_t *cluster_make(const mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    cluster_t *self = calloc(1, sizeof(*self));
    int i;

    if (!self) {
        return NULL;
    }
    self->greeting.user = url->user;
    self->greeting.password = url->password;
    pthread_mutex_init(&self->mutex, NULL);
    mw_redis_turn_init(&self->turn);
    for (i = 0; i < url->endpoint_count; i++) {
        self->seeds[i] =
            mw_redis_pool_make(store, &url->endpoints[i], &self->greeting);
        if (!self->seeds[i]) {
            break;
        }
        self->seed_count++;
    }
    return self;
}

static apr_status_t cluster_child_init(mw_redis_t *store, apr_pool_t *pchild)
{
    cluster_t *self = store->servers_self;

    if (!self) {
        store->servers_self = self = cluster_make(store);
    }
    if (!self || !self->seed_count) {
        return APR_ENOMEM;
    }
    self->is_open = 1;
    apr_pool_cleanup_register(pchild, self, cluster_end, apr_pool_cleanup_null);
    return APR_SUCCESS;
}

static void cluster_close(mw_redis_t *store)
{
    cluster_t *self = store->servers_self;
    int i;

    if (!self) {
        return;
    }
    cluster_end(self);
    for (i = 0; i < self->seed_count; i++) {
        mw_redis_pool_unref(self->seeds[i]);
    }
    mw_redis_turn_destroy(&self->turn);
    pthread_mutex_destroy(&self->mutex);
    free(self);
    store->servers_self = NULL;
}

const mw_redis_servers_ops_t mw_redis_cluster = {
    .child_init = cluster_child_init,
    .close = cluster_close,
    .find = cluster_find,
    .redirect = cluster_redirect,
    .at = cluster_at,
    .is_many = 1,
};
