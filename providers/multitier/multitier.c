/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "multitier.h"
#include "watch.h"

enum { OPTION_RATIO = MW_TIERS_MAX, OPTION_AGREE };

#define TIER(row, text, ...)                                               \
    [row - 1] = {                                                          \
        .name = "l" #row, .type = CACHEMW_STORE, .help = text, __VA_ARGS__ \
    }
#define TIER_NEXT "A store behind the one of the number before."

static const cachemw_option_t tiers_options[] = {
    TIER(1, "The nearest store, which is asked first.", .required = 1),
    TIER(2, "The store behind it.", .required = 1),
    TIER(3, TIER_NEXT),
    TIER(4, TIER_NEXT),
    TIER(5, TIER_NEXT),
    TIER(6, TIER_NEXT),
    TIER(7, TIER_NEXT),
    TIER(8, TIER_NEXT),
    [OPTION_RATIO] = { .name = "l1_timeout_ratio",
                       .type = CACHEMW_REAL,
                       .fallback = "0.5",
                       .minimum = "0",
                       .maximum = "1",
                       .help = "How long an entry lives in a store, as part of"
                               " the time that is left to it in the store"
                               " behind; at least 60 s, if it is left so"
                               " much." },
    [OPTION_AGREE] = { .name = "agree",
                       .type = CACHEMW_FLAG,
                       .fallback = "on",
                       .help = "Whether what other servers change in a store"
                               " behind is heard of, where that can tell, and"
                               " stores before it are used only while it is." },
    { .name = NULL },
};

/* What is wrong with an option, or NULL. */
static const char *tiers_check(const cachemw_value_t *values, int at,
                               apr_pool_t *pool)
{
    int i;

    if (at > 0 && values[at - 1].is_null) {
        return apr_psprintf(pool, "l%d=%s: there is no l%d", at + 1,
                            values[at].string, at);
    }
    for (i = 0; i < at; i++) {
        if (!strcmp(values[i].string, values[at].string)) {
            return apr_psprintf(pool,
                                "l%d=%s: l%d is the same store; each tier is a"
                                " store of its own",
                                at + 1, values[at].string, i + 1);
        }
    }
    return NULL;
}

/* A store of the configuration. What such a store would hear of those that it
 * is in front of is not passed on. */
static apr_status_t tier_find(mw_tiers_t *tiers, int row, const char *name,
                              apr_pool_t *pool, const char **error)
{
    const cachemw_services_t *services = tiers->services;
    mw_tier_t *tier = &tiers->tier[tiers->n];
    apr_status_t rv =
        services->store(services, name, &tier->table, &tier->self);

    if (rv != APR_SUCCESS) {
        *error = apr_psprintf(pool, "l%d=%s: no store of this name", row, name);
        return rv;
    }
    if (tiers->agrees && (tier->table->flags & CACHEMW_TIERED)
        && !tier->table->watch) {
        *error = apr_psprintf(
            pool,
            "l%d=%s: a store in front of others does not pass on what other"
            " servers change there; name those stores here, or say agree=off",
            row, name);
        return APR_EINVAL;
    }
    tier->largest = tier->table->object_limit(tier->self);
    tiers->nremote += (tier->table->flags & CACHEMW_REMOTE) != 0;
    tiers->n++;
    return APR_SUCCESS;
}

static apr_status_t tiers_open(const cachemw_services_t *services,
                               const cachemw_value_t *values, apr_pool_t *pconf,
                               void **store, const char **error)
{
    mw_tiers_t *tiers = apr_pcalloc(pconf, sizeof(*tiers));
    apr_status_t rv;
    int i;

    tiers->services = services;
    tiers->ratio = values[OPTION_RATIO].real;
    tiers->agrees = values[OPTION_AGREE].number != 0;
    for (i = 0; i < MW_TIERS_MAX; i++) {
        if (values[i].is_null) {
            continue;
        }
        *error = tiers_check(values, i, pconf);
        if (*error) {
            return APR_EINVAL;
        }
        rv = tier_find(tiers, i + 1, values[i].string, pconf, error);
        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    pthread_mutex_init(&tiers->mutex, NULL);
    *store = tiers;
    return APR_SUCCESS;
}

static void tiers_close(void *store)
{
    mw_tiers_t *tiers = store;

    pthread_mutex_destroy(&tiers->mutex);
}

/* The tiers themselves are stores of the configuration, which sees to them. */
static apr_status_t tiers_post_config(void *store, apr_pool_t *pconf,
                                      apr_uid_t uid, apr_gid_t gid)
{
    mw_tiers_t *tiers = store;
    void *base;
    int is_new;
    apr_status_t rv;

    (void)pconf, (void)uid, (void)gid;
    rv = tiers->services->segment(tiers->services, mw_tiers_shared_size(),
                                  MW_TIERS_LAYOUT, &base, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_tiers_share(tiers, base);
    if (tiers->agrees) {
        mw_watch_make(tiers);
    }
    return is_new ? mw_changes_make(tiers->changes) : APR_SUCCESS;
}

static apr_status_t tiers_child_init(void *store, apr_pool_t *pchild)
{
    mw_fills_child_init(store, pchild);
    return mw_watch_child_init(store, pchild);
}

static void stats_extra(mw_tiers_t *tiers, apr_time_t now,
                        cachemw_stats_t *stats)
{
    static const char *const names[] = { [MW_TIERS_FILLED] = "filled",
                                         [MW_TIERS_DROPPED] = "fills_dropped",
                                         [MW_TIERS_OVERTAKEN] =
                                             "fills_overtaken" };
    char name[] = "answered_by_l1";
    int i;

    if (!stats->extra) {
        return;
    }
    for (i = 0; i < tiers->n; i++) {
        name[sizeof(name) - 2] = (char)('1' + i);
        stats->extra(stats->baton, name, mw_tiers_answers(tiers, i));
    }
    for (i = 0; i < MW_TIERS_COUNTS; i++) {
        stats->extra(stats->baton, names[i], mw_tiers_counted(tiers, i));
    }
    mw_watch_stats(tiers, now, stats);
}

/* What is in the others is in the farthest, too. */
static apr_status_t tiers_stats(void *store, const cachemw_call_t *call,
                                cachemw_stats_t *stats)
{
    mw_tiers_t *tiers = store;
    const mw_tier_t *far = &tiers->tier[tiers->n - 1];
    cachemw_stats_t held = { .size = sizeof(held) };

    if (far->table->stats(far->self, call, &held) == APR_SUCCESS) {
        stats->entries = held.entries;
        stats->expired = held.expired;
        stats->bytes = held.bytes;
        stats->bytes_max = held.bytes_max;
        stats->entries_max = held.entries_max;
    }
    stats_extra(tiers, call->now, stats);
    return APR_SUCCESS;
}

/* What one of them takes. */
static apr_off_t tiers_object_limit(void *store)
{
    const mw_tiers_t *tiers = store;
    apr_off_t largest = 0;
    int i;

    for (i = 0; i < tiers->n; i++) {
        if (tiers->tier[i].largest > largest) {
            largest = tiers->tier[i].largest;
        }
    }
    return largest;
}

const cachemw_provider_t mw_multitier_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_TIERED,
    .options = tiers_options,
    .open = tiers_open,
    .close = tiers_close,
    .get = mw_tiers_get,
    .remove = mw_tiers_remove,
    .post_config = tiers_post_config,
    .child_init = tiers_child_init,
    .set_head = mw_tiers_set_head,
    .read = mw_tiers_read,
    .set_begin = mw_tiers_set_begin,
    .set_write = mw_tiers_set_write,
    .set_commit = mw_tiers_set_commit,
    .set_abort = mw_tiers_set_abort,
    .exists = mw_tiers_exists,
    .clear = mw_tiers_clear,
    .keys = mw_tiers_keys,
    .sweep = mw_watch_sweep,
    .stats = tiers_stats,
    .object_limit = tiers_object_limit,
    .lock = mw_tiers_lock,
    .unlock = mw_tiers_unlock,
};
