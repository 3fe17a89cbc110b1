/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "store_private.h"

#define SETTINGS_OBJECT_SIZE ((apr_off_t)16 * 1024 * 1024)
#define SETTINGS_OBJECT_SIZE_TEXT "16M"

/* A row of a table by name and type, aliases aside: with another type it is
 * another thing. */
static const cachemw_value_t *settings_value(const mw_options_t *options,
                                             const char *name,
                                             cachemw_type_e type)
{
    const cachemw_option_t *row;
    int i;

    for (i = 0; i < 2; i++) {
        for (row = options[i].table; row && row->name; row++) {
            if (!row->alias && row->type == type && !strcmp(row->name, name)) {
                return &options[i].values[row - options[i].table];
            }
        }
    }
    return NULL;
}

static apr_int64_t settings_number(const mw_options_t *options,
                                   const char *name, cachemw_type_e type)
{
    const cachemw_value_t *value = settings_value(options, name, type);

    if (!value || value->is_null) {
        return 0;
    }
    return type == CACHEMW_DURATION ? value->duration : value->number;
}

/* What makes no sense for this store. */
static const char *settings_local(const mw_store_t *store,
                                  const mw_options_t *options, apr_pool_t *pool)
{
    static const char *const names[] = { "timeout", "body_timeout",
                                         "store_timeout" };
    const mw_options_t ours[2] = { { NULL, NULL }, options[1] };
    apr_size_t i;

    for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const cachemw_value_t *value =
            settings_value(ours, names[i], CACHEMW_DURATION);

        if (value && value->is_set && (store->flags & CACHEMW_TIERED)
            && i == 0) {
            return "timeout: each tier has its own";
        }
        if (value && value->is_set && !mw_store_is_remote(store)) {
            return apr_pstrcat(pool, names[i],
                               ": only stores on other machines have one",
                               NULL);
        }
    }
    return NULL;
}

/* The administrator's max_object_size or else the provider's fallback; -1:
 * neither. */
static const char *settings_object_size(const mw_store_t *store,
                                        const mw_options_t *options,
                                        apr_off_t *size, apr_pool_t *pool)
{
    static const cachemw_option_t row[] = {
        { .name = "max_object_size", .type = CACHEMW_SIZE }, { .name = NULL }
    };
    const cachemw_value_t *value =
        settings_value(options, "max_object_size", CACHEMW_SIZE);
    mw_options_t fallback = { row, NULL };
    const char *word, *error;

    *size = -1;
    if (value && !value->is_null) {
        *size = value->number;
        return NULL;
    }
    if (!store->table.max_object_size) {
        return NULL;
    }
    word = apr_pstrcat(pool, "max_object_size=", store->table.max_object_size,
                       NULL);
    error = mw_options_parse(&fallback, 1, &word, 1, "/", pool);
    if (!error) {
        *size = fallback.values[0].number;
    }
    return error;
}

const char *mw_settings_read(mw_store_t *store, const mw_options_t *options,
                             apr_pool_t *pool)
{
    mw_store_settings_t *to = &store->settings;
    const char *error;

    to->keep = settings_number(options, "keep", CACHEMW_DURATION);
    to->min_object_size =
        settings_number(options, "min_object_size", CACHEMW_SIZE);
    to->max_variants =
        (int)settings_number(options, "max_variants", CACHEMW_INTEGER);
    to->cleanup_interval =
        settings_number(options, "cleanup_interval", CACHEMW_DURATION);
    to->timeout = settings_number(options, "timeout", CACHEMW_DURATION);
    to->body_timeout =
        settings_number(options, "body_timeout", CACHEMW_DURATION);
    to->store_timeout =
        settings_number(options, "store_timeout", CACHEMW_DURATION);
    to->coalesce = settings_number(options, "coalesce", CACHEMW_FLAG) != 0;
    to->coalesce_servers = (mw_coalesce_servers_e)settings_number(
        options, "coalesce_servers", CACHEMW_ENUM);
    to->coalesce_timeout =
        settings_number(options, "coalesce_timeout", CACHEMW_DURATION);
    to->announce = settings_number(options, "announce", CACHEMW_FLAG) != 0;
    error = settings_object_size(store, options, &to->max_object_size, pool);
    store->services.max_object_size =
        to->max_object_size < 0 ? SETTINGS_OBJECT_SIZE : to->max_object_size;
    return error;
}

/* Where the administrator says nothing, there is as much time as the most
 * patient tier has. */
static void settings_of_tiers(mw_store_t *store, const mw_options_t *options)
{
    const mw_options_t ours[2] = { { NULL, NULL }, options[1] };
    const cachemw_value_t *value;

    value = settings_value(ours, "body_timeout", CACHEMW_DURATION);
    if (!value->is_set && store->tiers_body_timeout) {
        store->settings.body_timeout = store->tiers_body_timeout;
    }
    value = settings_value(ours, "store_timeout", CACHEMW_DURATION);
    if (!value->is_set && store->tiers_store_timeout) {
        store->settings.store_timeout = store->tiers_store_timeout;
    }
}

/* As an administrator would write it. */
static const char *size_text(apr_off_t size, apr_pool_t *pool)
{
    static const char *const units[] = { "", "K", "M", "G", NULL };
    int i = 0;

    while (size && size % 1024 == 0 && units[i + 1]) {
        size /= 1024;
        i++;
    }
    return apr_psprintf(pool, "%" APR_OFF_T_FMT "%s", size, units[i]);
}

const char *mw_settings_limit(mw_store_t *store, const mw_options_t *options,
                              apr_pool_t *pool)
{
    mw_store_settings_t *to = &store->settings;
    const cachemw_value_t *value =
        settings_value(options, "max_object_size", CACHEMW_SIZE);
    const char *error = settings_local(store, options, pool);
    apr_off_t limit = -1;

    if (error) {
        return error;
    }
    if (to->announce && !store->table.publish) {
        return "announce: only stores that several servers can share and listen"
               " to have this";
    }
    if (store->flags & CACHEMW_TIERED) {
        settings_of_tiers(store, options);
    }
    if (store->table.object_limit) {
        limit = store->table.object_limit(store->self);
    }
    if (value && value->is_set && limit >= 0 && to->max_object_size > limit) {
        return apr_psprintf(
            pool, "max_object_size=%s: at most %s is accepted",
            size_text(to->max_object_size, pool),
            size_text(limit < 1024 ? limit : limit - limit % 1024, pool));
    }
    if (to->max_object_size < 0) {
        to->max_object_size = limit >= 0 ? limit : SETTINGS_OBJECT_SIZE;
    }
    if (limit >= 0 && to->max_object_size > limit) {
        to->max_object_size = limit;
    }
    if (to->min_object_size > to->max_object_size) {
        return apr_psprintf(pool,
                            "min_object_size=%s: at most max_object_size, %s, "
                            "is accepted",
                            size_text(to->min_object_size, pool),
                            size_text(to->max_object_size, pool));
    }
    store->services.max_object_size = to->max_object_size;
    return NULL;
}

static const char *const servers_words[] = { [MW_COALESCE_SERVERS_AUTO] =
                                                 "auto",
                                             [MW_COALESCE_SERVERS_ON] = "on",
                                             [MW_COALESCE_SERVERS_OFF] = "off",
                                             NULL };

const cachemw_option_t mw_store_options[] = {
    { .name = "keep",
      .type = CACHEMW_DURATION,
      .fallback = "1d",
      .minimum = "0",
      .maximum = "365d",
      .help = "How long an entry is kept after it ceased to be fresh, to be"
              " revalidated or served when the origin fails." },
    { .name = "max_object_size",
      .type = CACHEMW_SIZE,
      .minimum = "1",
      .help =
          "The largest body that is stored; the default depends on the"
          " provider, " SETTINGS_OBJECT_SIZE_TEXT " where it says nothing." },
    { .name = "min_object_size",
      .type = CACHEMW_SIZE,
      .fallback = "0",
      .minimum = "0",
      .help = "The smallest body that is stored." },
    { .name = "max_variants",
      .type = CACHEMW_INTEGER,
      .fallback = "32",
      .minimum = "1",
      .maximum = "1024",
      .help = "How many variants (Vary) of one URL are kept; the oldest makes"
              " room." },
    { .name = "cleanup_interval",
      .type = CACHEMW_DURATION,
      .fallback = "300s",
      .minimum = "1s",
      .maximum = "1d",
      .help = "Time between two searches for expired entries." },
    { .name = "timeout",
      .type = CACHEMW_DURATION,
      .fallback = "250ms",
      .minimum = "1ms",
      .maximum = "60s",
      .help = "Stores on other machines: longest time for one operation of a"
              " lookup; after it the request goes to the origin." },
    { .name = "body_timeout",
      .type = CACHEMW_DURATION,
      .fallback = "10s",
      .minimum = "1ms",
      .maximum = "60s",
      .help = "Stores on other machines: longest time that the pieces of one"
              " body are waited for, all together, once its first bytes were"
              " sent; after it the response is cut off." },
    { .name = "store_timeout",
      .type = CACHEMW_DURATION,
      .fallback = "50ms",
      .minimum = "1ms",
      .maximum = "60s",
      .help = "Stores on other machines: longest time that storing one"
              " response is waited for, all together; after it the response"
              " is not stored." },
    { .name = "coalesce",
      .type = CACHEMW_FLAG,
      .fallback = "on",
      .help = "Whether requests for a page that another request is fetching"
              " wait for it." },
    { .name = "coalesce_servers",
      .type = CACHEMW_ENUM,
      .fallback = "auto",
      .words = servers_words,
      .help = "Whether they also wait for one on another server that shares the"
              " store, where the store can tell; auto: while there is one." },
    { .name = "coalesce_timeout",
      .type = CACHEMW_DURATION,
      .fallback = "3s",
      .minimum = "100ms",
      .maximum = "60s",
      .help = "Longest time that a request waits for another one's fetch;"
              " after it the request goes to the origin." },
    { .name = "announce",
      .type = CACHEMW_FLAG,
      .fallback = "off",
      .help = "Whether changes are told to servers that have the store as the"
              " far one of tiers. Who has it so does." },
    { .name = NULL }
};
