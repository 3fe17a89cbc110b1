/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "lock.h"
#include "script.h"
#include "servers.h"

#define REPLY_MAX 1024

/* A lock that lives longer is a mistake. */
#define TTL_MAX apr_time_from_sec(3600)

static apr_int64_t ttl_ms(apr_interval_time_t ttl)
{
    ttl = ttl < TTL_MAX ? ttl : TTL_MAX;
    return ttl > 1000 ? (ttl + 999) / 1000 : 1;
}

/* It is somebody's, perhaps the taker's own. */
static apr_status_t lock_extend(mw_redis_t *store, const cachemw_call_t *call,
                                const mw_redis_bytes_t *name,
                                const cachemw_id_t *token, apr_int64_t ms,
                                cachemw_id_t *holder)
{
    const mw_redis_reply_t *reply;
    mw_redis_bytes_t args[2];
    apr_status_t rv;

    args[0].data = (const char *)token->bytes;
    args[0].len = sizeof(token->bytes);
    args[1].data = apr_psprintf(call->pool, "%" APR_INT64_T_FMT, ms);
    args[1].len = strlen(args[1].data);
    rv = mw_redis_script_run(store, call, MW_REDIS_LOCK, name, args, 2, &reply);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (reply->type != REDIS_REPLY_STRING
        || reply->len != sizeof(token->bytes)) {
        return mw_redis_nonsense(store);
    }
    memcpy(holder->bytes, reply->data, sizeof(holder->bytes));
    return memcmp(holder, token, sizeof(*holder)) ? APR_EBUSY : APR_SUCCESS;
}

/* Mostly nobody has it, and then no script need run. */
apr_status_t mw_redis_lock(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token,
                           apr_interval_time_t ttl, cachemw_id_t *holder)
{
    mw_redis_t *store = self;
    const apr_int64_t ms = ttl_ms(ttl);
    mw_redis_reply_t **replies;
    mw_redis_bytes_t name;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_name_lock(store, key, call->pool, &name);
    mw_redis_batch_init(&batch, REPLY_MAX, call->pool);
    mw_redis_batch_open(&batch, 6);
    mw_redis_batch_word(&batch, "SET");
    mw_redis_batch_arg(&batch, name.data, name.len);
    mw_redis_batch_arg(&batch, (const char *)token->bytes,
                       sizeof(token->bytes));
    mw_redis_batch_word(&batch, "NX");
    mw_redis_batch_word(&batch, "PX");
    mw_redis_batch_number(&batch, ms);
    rv = mw_redis_run(store, name.data, name.len, &batch,
                      mw_redis_deadline(store, call), &replies);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (mw_redis_reply_is(replies[0], "OK")) {
        return APR_SUCCESS;
    }
    return replies[0]->type == REDIS_REPLY_NIL
               ? lock_extend(store, call, &name, token, ms, holder)
               : mw_redis_nonsense(store);
}

apr_status_t mw_redis_unlock(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_id_t *token)
{
    mw_redis_t *store = self;
    mw_redis_bytes_t name, arg;

    arg.data = (const char *)token->bytes;
    arg.len = sizeof(token->bytes);
    mw_redis_name_lock(store, key, call->pool, &name);
    return mw_redis_script_try(store, call, MW_REDIS_UNLOCK, &name, &arg, 1);
}
