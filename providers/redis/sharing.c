/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "say.h"
#include "script.h"
#include "servers.h"
#include "sharing.h"

/* Who has not been heard of for so long is gone; it may have waited for other
 * stores, or for Redis. */
#define LIFE_MS 15000

/* Who listens asks for nothing that a node which has left the others would
 * refuse: what they say of it is asked for here, and compared there. */
static void servers_refresh(mw_redis_t *store, const cachemw_call_t *call)
{
    mw_redis_pool_t *pool;

    if (store->servers->is_many
        && __atomic_load_n(&store->ears, __ATOMIC_RELAXED)
        && store->servers->at(store, 0, mw_redis_deadline(store, call), &pool)
               == APR_SUCCESS) {
        mw_redis_pool_unref(pool);
    }
}

apr_status_t mw_redis_sharing(void *self, const cachemw_call_t *call)
{
    mw_redis_t *store = self;
    const cachemw_services_t *services = store->services;
    const mw_redis_reply_t *reply;
    mw_redis_bytes_t name, args[2];
    apr_status_t rv;

    servers_refresh(store, call);
    if (!CACHEMW_HAS(services, sharing) || !services->sharing) {
        return APR_SUCCESS;
    }
    name.data =
        apr_pstrcat(call->pool, store->settings.key_prefix, "servers", NULL);
    name.len = strlen(name.data);
    args[0].data = store->say->tag;
    args[0].len = MW_REDIS_TAG;
    args[1].data = apr_itoa(call->pool, LIFE_MS);
    args[1].len = strlen(args[1].data);
    rv = mw_redis_script_run(store, call, MW_REDIS_SHARING, &name, args, 2,
                             &reply);
    if (rv == APR_SUCCESS && reply->type == REDIS_REPLY_INTEGER
        && reply->integer > 0) {
        services->sharing(
            services,
            reply->integer < 1000000 ? (unsigned int)reply->integer : 1000000,
            apr_time_from_msec(LIFE_MS));
    }
    return APR_SUCCESS;
}
