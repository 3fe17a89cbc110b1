/* SPDX-License-Identifier: Apache-2.0 */

#include "httpd.h"
#include "http_log.h"
#include "mod_watchdog.h"

#include "config.h"
#include "watchdog.h"

APLOG_USE_MODULE(cachemw);

#define WATCHDOG_NAME "_cachemw_"
#define WATCHDOG_STEP APR_TIME_C(10000)
/* Steps of one store at a time: a child that ends waits for them. */
#define WATCHDOG_STEPS 5

/* A store's turn. Each process has its own copy. */
typedef struct turn_t {
    struct turn_t *next;
    mw_store_t *store;
    apr_int64_t due; /* monotonic; 0: at once */
} turn_t;

typedef struct turns_t {
    apr_pool_t *pconf;
    turn_t *first;
} turns_t;

static void watchdog_add(void *baton, mw_store_t *store)
{
    turns_t *turns = baton;
    turn_t *turn;

    if (mw_store_state(store) && mw_store_settings(store)->cleanup_interval) {
        turn = apr_pcalloc(turns->pconf, sizeof(*turn));
        turn->store = store;
        turn->next = turns->first;
        turns->first = turn;
    }
}

static int watchdog_step(mw_store_t *store, apr_pool_t *pool)
{
    cachemw_call_t call = { .pool = pool };
    int more = 0;

    call.now = apr_time_now();
    call.deadline = mw_monotonic() + WATCHDOG_STEP;
    return mw_store_sweep(store, &call, &more) == APR_SUCCESS && more;
}

static void watchdog_run(turn_t *turn, apr_pool_t *pool)
{
    int steps;

    if (mw_monotonic() < turn->due) {
        return;
    }
    for (steps = 0; steps < WATCHDOG_STEPS; steps++) {
        if (!watchdog_step(turn->store, pool)) {
            turn->due = mw_monotonic()
                        + mw_store_settings(turn->store)->cleanup_interval;
            return;
        }
    }
}

/* Anything but APR_SUCCESS would end the sweeps of this child for ever. */
static apr_status_t watchdog_call(int state, void *data, apr_pool_t *pool)
{
    const turns_t *turns = data;
    turn_t *turn;

    if (state == AP_WATCHDOG_STATE_RUNNING) {
        for (turn = turns->first; turn; turn = turn->next) {
            watchdog_run(turn, pool);
        }
    }
    return APR_SUCCESS;
}

void mw_watchdog_register(apr_pool_t *pconf, server_rec *s)
{
    APR_OPTIONAL_FN_TYPE(ap_watchdog_get_instance) *get_instance =
        APR_RETRIEVE_OPTIONAL_FN(ap_watchdog_get_instance);
    APR_OPTIONAL_FN_TYPE(ap_watchdog_register_callback) *register_callback =
        APR_RETRIEVE_OPTIONAL_FN(ap_watchdog_register_callback);
    turns_t *turns = apr_pcalloc(pconf, sizeof(*turns));
    ap_watchdog_t *watchdog;
    apr_status_t rv;

    turns->pconf = pconf;
    mw_config_each_store(watchdog_add, turns);
    if (!turns->first) {
        return;
    }
    if (!get_instance || !register_callback) {
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                     "mod_watchdog is not loaded: what has expired in the "
                     "stores of mod_cachemw goes away with traffic only");
        return;
    }
    rv = get_instance(&watchdog, WATCHDOG_NAME, 0, 1, pconf);
    if (rv == APR_SUCCESS) {
        rv = register_callback(watchdog, AP_WD_TM_INTERVAL, turns,
                               watchdog_call);
    }
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, rv, s,
                     "The stores of mod_cachemw have no watchdog: what has "
                     "expired in them goes away with traffic only");
    }
}
