/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "servers.h"
#include "slotmap.h"

/* Part of the time that is left for asking others than the server of a key. */
#define RUN_RESERVE 4

/* --- running batches ------------------------------------------------------ */

static int error_matters(mw_redis_error_e kind, int is_inside)
{
    switch (kind) {
    case MW_REDIS_ERROR_NONE:
    case MW_REDIS_ERROR_NOSCRIPT:
    case MW_REDIS_ERROR_WRONGTYPE:
        return 0;
    case MW_REDIS_ERROR_OTHER:
        return !is_inside;
    default:
        return 1;
    }
}

static mw_redis_error_e replies_error(mw_redis_reply_t *const *replies,
                                      apr_size_t count, int is_inside,
                                      const mw_redis_reply_t **error)
{
    mw_redis_error_e kind = MW_REDIS_ERROR_NONE;
    apr_size_t i;

    for (i = 0; i < count && kind == MW_REDIS_ERROR_NONE; i++) {
        if (replies[i]->type == REDIS_REPLY_ARRAY && !is_inside) {
            kind =
                replies_error(replies[i]->elements, replies[i]->len, 1, error);
        }
        else if (error_matters(mw_redis_error_of(replies[i]), is_inside)) {
            kind = mw_redis_error_of(replies[i]);
            *error = replies[i];
        }
    }
    return kind;
}

mw_redis_error_e mw_redis_replies_error(mw_redis_reply_t *const *replies,
                                        int count,
                                        const mw_redis_reply_t **error)
{
    *error = NULL;
    return replies_error(replies, (apr_size_t)count, 0, error);
}

/* An error reply is counted, and told as what it means. That it is full is no
 * failure, and would be told by nobody else. */
static apr_status_t error_tell(const mw_redis_t *store,
                               const mw_redis_reason_t *reason)
{
    const cachemw_services_t *services = store->services;
    const apr_status_t rv = mw_redis_error_status(reason->error);
    const char *name = mw_redis_error_name(reason->error);
    char host[MW_REDIS_ENDPOINT_MAX];

    mw_redis_count(store, name);
    mw_redis_endpoint_text(mw_redis_pool_endpoint(reason->pool), host);
    if (rv == APR_ENOSPC) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "%s is full and drops nothing: responses are not stored "
                      "(%s)",
                      host, name);
        return rv;
    }
    services->explain(services, rv, "%s answers by an error (%s)", host, name);
    return rv;
}

/* Once, on one server. The reason is set when that was wrong. */
static apr_status_t run_once(mw_redis_t *store, mw_redis_pool_t *pool,
                             mw_redis_batch_t *batch, apr_int64_t deadline,
                             mw_redis_reply_t ***replies,
                             mw_redis_reason_t *reason)
{
    memset(reason, 0, sizeof(*reason));
    reason->pool = pool;
    reason->rv = mw_redis_pool_batch(pool, batch, deadline, replies);
    if (reason->rv != APR_SUCCESS) {
        return reason->rv;
    }
    reason->error =
        mw_redis_replies_error(*replies, batch->commands, &reason->reply);
    return reason->error == MW_REDIS_ERROR_NONE ? APR_SUCCESS
                                                : error_tell(store, reason);
}

/* Whether another server may be the right one. */
static int reason_redirects(const mw_redis_batch_t *batch,
                            const mw_redis_reason_t *reason)
{
    switch (reason->error) {
    case MW_REDIS_ERROR_ASK:
    case MW_REDIS_ERROR_CLUSTERDOWN:
    case MW_REDIS_ERROR_LOADING:
    case MW_REDIS_ERROR_MASTERDOWN:
    case MW_REDIS_ERROR_MOVED:
    case MW_REDIS_ERROR_READONLY:
    case MW_REDIS_ERROR_TRYAGAIN:
        return 1;
    default:
        return reason->rv != APR_SUCCESS && reason->rv != APR_EAGAIN
               && reason->rv != APR_EINCOMPLETE && batch->failed == APR_SUCCESS;
    }
}

apr_status_t mw_redis_run_at(mw_redis_t *store, mw_redis_pool_t *pool,
                             mw_redis_batch_t *batch, apr_int64_t deadline,
                             mw_redis_reply_t ***replies)
{
    mw_redis_reason_t reason;

    return run_once(store, pool, batch, deadline, replies, &reason);
}

/* Where one of several is asked, time is left to find out whether the others
 * answer, and who serves its keys now. */
static apr_int64_t run_patience(const mw_redis_t *store, apr_int64_t deadline)
{
    apr_int64_t now = mw_redis_clock(store);

    return store->servers->is_many && now < deadline
               ? deadline - (deadline - now) / RUN_RESERVE
               : deadline;
}

/* That one of several does not answer, or its slots move, is not the end of
 * the store, as long as others answer. */
static apr_status_t run_status(const mw_redis_t *store, apr_status_t rv,
                               apr_status_t others)
{
    const int is_of_all = rv == APR_SUCCESS || rv == APR_EINCOMPLETE
                          || rv == APR_ENOSPC || rv == EACCES;

    return is_of_all || !store->servers->is_many || others != APR_SUCCESS
               ? rv
               : APR_EAGAIN;
}

/* From one server to the next. */
static apr_status_t run_from(mw_redis_t *store, int slot, mw_redis_pool_t *pool,
                             mw_redis_batch_t *batch, apr_int64_t deadline,
                             mw_redis_reply_t ***replies)
{
    apr_status_t rv, others = APR_SUCCESS;
    mw_redis_pool_t *next = pool;
    mw_redis_reason_t reason;
    int tries = 0, is_asking;

    do {
        pool = next;
        next = NULL;
        is_asking = 0;
        rv = run_once(store, pool, batch, run_patience(store, deadline),
                      replies, &reason);
        if (rv != APR_SUCCESS && store->servers->redirect
            && reason_redirects(batch, &reason)) {
            others = store->servers->redirect(store, slot, &reason, deadline,
                                              &next, &is_asking);
        }
        if (next
            && (++tries > MW_REDIS_REDIRECTIONS
                || mw_redis_batch_again(batch) != APR_SUCCESS)) {
            mw_redis_pool_unref(next);
            next = NULL;
        }
        if (next) {
            mw_redis_count(store, "redirected");
            mw_redis_batch_ask(batch, is_asking);
        }
        mw_redis_pool_unref(pool);
    } while (next);
    return run_status(store, rv, others);
}

apr_status_t mw_redis_run(mw_redis_t *store, const char *name, apr_size_t len,
                          mw_redis_batch_t *batch, apr_int64_t deadline,
                          mw_redis_reply_t ***replies)
{
    int slot = store->servers->is_many ? mw_redis_slot(name, len) : 0;
    mw_redis_pool_t *pool;
    apr_status_t rv;

    /* that nobody answers in no time says nothing of who is there */
    if (deadline <= mw_redis_clock(store)) {
        return APR_TIMEUP;
    }
    rv = store->servers->find(store, slot, deadline, &pool);
    if (rv == APR_SUCCESS) {
        rv = run_from(store, slot, pool, batch, deadline, replies);
    }
    if (rv == APR_SUCCESS && batch->is_asking) {
        ++*replies;
    }
    return rv;
}

/* --- one alone ------------------------------------------------------------ */

typedef struct standalone_t {
    mw_redis_greeting_t greeting;
    mw_redis_pool_t *pool;
} standalone_t;

/* Other threads may have calls under way: their connections are closed when
 * these are over. */
static apr_status_t standalone_end(void *data)
{
    standalone_t *self = data;

    mw_redis_pool_drop(self->pool);
    return APR_SUCCESS;
}

static standalone_t *standalone_make(const mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    standalone_t *self = calloc(1, sizeof(*self));

    if (!self) {
        return NULL;
    }
    self->greeting.user = url->user;
    self->greeting.password = url->password;
    self->greeting.db = url->db;
    self->pool = mw_redis_pool_make(store, &url->endpoints[0], &self->greeting);
    if (!self->pool) {
        free(self);
        self = NULL;
    }
    return self;
}

static apr_status_t standalone_child_init(mw_redis_t *store, apr_pool_t *pchild)
{
    if (!store->servers_self) {
        store->servers_self = standalone_make(store);
    }
    if (!store->servers_self) {
        return APR_ENOMEM;
    }
    apr_pool_cleanup_register(pchild, store->servers_self, standalone_end,
                              apr_pool_cleanup_null);
    return APR_SUCCESS;
}

static void standalone_close(mw_redis_t *store)
{
    standalone_t *self = store->servers_self;

    if (self) {
        mw_redis_pool_unref(self->pool);
        free(self);
        store->servers_self = NULL;
    }
}

static apr_status_t standalone_find(mw_redis_t *store, int slot,
                                    apr_int64_t deadline,
                                    mw_redis_pool_t **pool)
{
    standalone_t *self = store->servers_self;

    (void)slot, (void)deadline;
    *pool = mw_redis_pool_ref(self->pool);
    return APR_SUCCESS;
}

static apr_status_t standalone_at(mw_redis_t *store, int i,
                                  apr_int64_t deadline, mw_redis_pool_t **pool)
{
    return i == 0 ? standalone_find(store, 0, deadline, pool) : APR_EOF;
}

const mw_redis_servers_ops_t mw_redis_standalone = {
    .child_init = standalone_child_init,
    .close = standalone_close,
    .find = standalone_find,
    .at = standalone_at,
};
