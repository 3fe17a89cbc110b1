/* SPDX-License-Identifier: Apache-2.0 */

/* The provider "sqlite": options, life, tables. */

#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"
#include "apr_strings.h"

#include "files.h"
#include "keep.h"
#include "log.h"
#include "pool.h"
#include "read.h"
#include "set.h"
#include "statements.h"
#include "providers/common/look.h"

/* Longer names would not fit where texts are made of them. */
#define TABLE_NAME_MAX 48

enum {
    OPTION_DB_PATH,
    OPTION_TABLE_NAME,
    OPTION_MAX_ENTRIES,
    OPTION_MAX_BYTES,
    OPTION_BUSY_TIMEOUT,
    OPTION_SYNCHRONOUS
};

static const char *const synchronous_words[] = { "off", "normal", "full",
                                                 NULL };

static const cachemw_option_t sqlite_options[] = {
    [OPTION_DB_PATH] = { .name = "db_path",
                         .type = CACHEMW_PATH,
                         .fallback = "cache.db",
                         .help = "The database file." },
    [OPTION_TABLE_NAME] = { .name = "table_name",
                            .type = CACHEMW_STRING,
                            .fallback = "cache_entries",
                            .help =
                                "The table of entries; the names of the others "
                                "begin with it. Letters, digits, underscores." },
    [OPTION_MAX_ENTRIES] = { .name = "max_entries",
                             .type = CACHEMW_INTEGER,
                             .fallback = "10000",
                             .minimum = "1",
                             .maximum = "1000000000",
                             .help = "Most entries held at once; the oldest "
                                     "makes room." },
    [OPTION_MAX_BYTES] = { .name = "max_bytes",
                           .type = CACHEMW_SIZE,
                           .fallback = "256M",
                           .minimum = "1M",
                           .maximum = "1024G",
                           .help = "The largest size of the database file." },
    [OPTION_BUSY_TIMEOUT] = { .name = "busy_timeout",
                              .type = CACHEMW_DURATION,
                              .fallback = "50ms",
                              .minimum = "1ms",
                              .maximum = "60s",
                              .help = "How long to wait for others who write; "
                                      "after it a response is not stored." },
    [OPTION_SYNCHRONOUS] = { .name = "synchronous",
                             .type = CACHEMW_ENUM,
                             .fallback = "normal",
                             .words = synchronous_words,
                             .help =
                                 "SQLite's setting of this name: off leaves "
                                 "it to the system when data reach the "
                                 "disk." },
    { .name = NULL },
};

static const char *table_name_check(const char *name, apr_pool_t *pool)
{
    apr_size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_");

    if (*name && !name[n] && n <= TABLE_NAME_MAX && (*name < '0' || *name > '9')
        && strncasecmp(name, "sqlite_", strlen("sqlite_")) != 0) {
        return NULL;
    }
    return apr_psprintf(pool,
                        "table_name=%s: letters, digits and underscores are "
                        "expected, at most %d, not a digit first nor "
                        "\"sqlite_\"",
                        name, TABLE_NAME_MAX);
}

/* What else is wrong with it may be right when a child tries. */
static const char *path_check(const char *path, apr_pool_t *pool)
{
    apr_finfo_t info;

    if (apr_stat(&info, path, APR_FINFO_TYPE, pool) == APR_SUCCESS
        && info.filetype == APR_DIR) {
        return apr_psprintf(pool,
                            "db_path=%s: this is a directory; a file is "
                            "expected, such as %s/cache.db",
                            path, path[1] ? path : "");
    }
    return NULL;
}

static apr_status_t sqlite_open(const cachemw_services_t *services,
                                const cachemw_value_t *values,
                                apr_pool_t *pconf, void **result,
                                const char **error)
{
    mw_sql_t *store = apr_pcalloc(pconf, sizeof(*store));

    *error = table_name_check(values[OPTION_TABLE_NAME].string, pconf);
    if (!*error) {
        *error = path_check(values[OPTION_DB_PATH].string, pconf);
    }
    if (!*error && !sqlite3_threadsafe()) {
        *error = "this SQLite was built without threads";
    }
    if (*error) {
        return APR_EINVAL;
    }
    store->services = services;
    store->path = values[OPTION_DB_PATH].string;
    store->table = values[OPTION_TABLE_NAME].string;
    store->max_entries = values[OPTION_MAX_ENTRIES].number;
    store->max_bytes = values[OPTION_MAX_BYTES].number;
    store->busy_timeout = values[OPTION_BUSY_TIMEOUT].duration;
    store->synchronous = values[OPTION_SYNCHRONOUS].string;
    mw_sql_texts_make(store, pconf);
    *result = store;
    return APR_SUCCESS;
}

/* What is wrong now may be right when a child tries: it is no reason to go
 * without the store. */
static apr_status_t sqlite_post_config(void *self, apr_pool_t *pconf,
                                       apr_uid_t uid, apr_gid_t gid)
{
    const mw_sql_t *store = self;
    const cachemw_services_t *services = store->services;
    apr_status_t rv = mw_sql_files_prepare(store, uid, gid);

    (void)pconf;
    if (rv != APR_SUCCESS) {
        services->log(services, CACHEMW_LOG_ERR, rv,
                      "db_path=%s: its directory cannot be made or entered",
                      store->path);
    }
    return APR_SUCCESS;
}

static apr_status_t sqlite_child_init(void *self, apr_pool_t *pchild)
{
    mw_sql_pool_begin(self, pchild);
    return APR_SUCCESS;
}

static apr_off_t sqlite_object_limit(void *self)
{
    return mw_sql_set_limit(self);
}

static const cachemw_provider_t sqlite_provider = {
    .size = sizeof(cachemw_provider_t),
    .options = sqlite_options,
    .max_object_size = "16M",
    .open = sqlite_open,
    .get = mw_sql_get,
    .remove = mw_sql_remove,
    .post_config = sqlite_post_config,
    .child_init = sqlite_child_init,
    .set_head = mw_sql_set_head,
    .read = mw_sql_read,
    .set_begin = mw_sql_set_begin,
    .set_write = mw_sql_set_write,
    .set_commit = mw_sql_set_commit,
    .set_abort = mw_sql_set_abort,
    .exists = mw_sql_exists,
    .clear = mw_sql_clear,
    .keys = mw_sql_keys,
    .sweep = mw_sql_sweep,
    .stats = mw_sql_stats,
    .object_limit = sqlite_object_limit,
    .sync = mw_sql_sync,
    .sync_interval = MW_SQL_SYNC,
};

static apr_status_t look_open(const cachemw_services_t *services,
                              const cachemw_value_t *values, apr_pool_t *pconf,
                              void **store, const char **error)
{
    apr_status_t rv = sqlite_open(services, values, pconf, store, error);

    if (rv == APR_SUCCESS) {
        ((mw_sql_t *)*store)->is_look = 1;
    }
    return rv;
}

static apr_status_t look_post_config(void *self, apr_pool_t *pconf,
                                     apr_uid_t uid, apr_gid_t gid)
{
    (void)self, (void)pconf, (void)uid, (void)gid;
    return APR_SUCCESS;
}

static void register_hooks(apr_pool_t *p)
{
    static cachemw_provider_t look;

    look = sqlite_provider;
    look.open = look_open;
    look.post_config = look_post_config;
    ap_register_provider(p, MW_LOOK_GROUP, "sqlite", CACHEMW_PROVIDER_VERSION,
                         &look);
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "sqlite",
                         CACHEMW_PROVIDER_VERSION, &sqlite_provider);
}

/* The one symbol that leaves this object. */
extern module AP_MODULE_DECLARE_DATA cachemw_sqlite_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(cachemw_sqlite) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
