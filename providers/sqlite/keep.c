/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "keep.h"
#include "pool.h"
#include "room.h"
#include "statements.h"
#include "transact.h"

/* Entries of one step of a sweep, and bodies. */
#define SWEEP_ENTRIES 32
/* A server's sweep waits for no one: it comes again. */
#define SWEEP_WAIT 1000
/* How often all entries are counted. µs */
#define COUNT_INTERVAL ((apr_int64_t)3600 * 1000000)
/* What stays free in the file, as part of max_bytes. */
#define SWEEP_FREE 4

/* --- keys ----------------------------------------------------------------- */

/* Entries that are listed at once. */
#define LIST_MAX 64

typedef struct listed_t {
    cachemw_key_t key;
    cachemw_entry_t entry;
} listed_t;

typedef struct list_t {
    apr_pool_t *pool; /* of the keys */
    apr_int64_t last; /* entries behind this one come next */
    int n;
    listed_t listed[LIST_MAX];
} list_t;

/* Columns of MW_SQL_LIST. */
enum { LIST_NUMBER, LIST_KEY, LIST_ID, LIST_EXPIRES, LIST_BODY_LEN };

static void list_note(sqlite3_stmt *statement, listed_t *to, apr_pool_t *pool)
{
    const void *key = sqlite3_column_blob(statement, LIST_KEY);

    memset(to, 0, sizeof(*to));
    to->key.len = (apr_size_t)sqlite3_column_bytes(statement, LIST_KEY);
    to->key.data = key ? apr_pmemdup(pool, key, to->key.len) : "";
    mw_sql_column_id(statement, LIST_ID, &to->entry.id);
    to->entry.expires = sqlite3_column_int64(statement, LIST_EXPIRES);
    to->entry.body_len = sqlite3_column_int64(statement, LIST_BODY_LEN);
}

static int list_work(mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, void *baton)
{
    list_t *list = baton;
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_LIST);
    int rc;

    sqlite3_bind_int64(statement, 1, list->last);
    sqlite3_bind_int64(statement, 2, call->now);
    sqlite3_bind_int(statement, 3, LIST_MAX);
    list->n = 0;
    while ((rc = mw_sql_fetch(conn, statement)) == SQLITE_ROW
           && list->n < LIST_MAX) {
        list->last = sqlite3_column_int64(statement, LIST_NUMBER);
        list_note(statement, &list->listed[list->n++], list->pool);
    }
    sqlite3_reset(statement);
    return rc == SQLITE_ROW || rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

/* Nothing is held while `each` runs, which may take long. */
apr_status_t mw_sql_keys(void *self, const cachemw_call_t *call,
                         const char *pattern, cachemw_keys_fn *each,
                         void *baton)
{
    mw_sql_t *store = self;
    list_t list = { .last = 0 };
    apr_status_t rv = apr_pool_create(&list.pool, call->pool);
    int i;

    (void)pattern; /* core filters */
    if (rv != APR_SUCCESS) {
        return rv;
    }
    do {
        apr_pool_clear(list.pool);
        rv = mw_sql_consult(store, call, mw_sql_patience(store, call),
                            list_work, &list);
        for (i = 0; rv == APR_SUCCESS && i < list.n; i++) {
            rv = each(baton, &list.listed[i].key, &list.listed[i].entry);
        }
    } while (rv == APR_SUCCESS && list.n == LIST_MAX);
    apr_pool_destroy(list.pool);
    return rv;
}

/* --- sweep ---------------------------------------------------------------- */

typedef struct sweep_t {
    mw_sql_count_t before, count; /* the latter once the step is committed */
    int more;
} sweep_t;

/* The next part of them. Triggers keep the count right, unless somebody sets it
 * by hand or stores with INSERT OR REPLACE, which runs none of them; and who
 * relied on a wrong one could fill the disk, or have everything evicted. */
static int count_step(const mw_sql_t *store, mw_sql_conn_t *conn,
                      mw_sql_count_t *count)
{
    sqlite3_stmt *next, *step;
    int rc = count->is_under_way ? SQLITE_OK
                                 : mw_sql_do(store, conn, MW_SQL_COUNT_BEGIN);

    if (rc != SQLITE_OK) {
        return rc;
    }
    count->is_under_way = 1;
    next = mw_sql_statement(store, conn, MW_SQL_COUNT_NEXT);
    rc = mw_sql_fetch(conn, next);
    if (rc == SQLITE_ROW) {
        step = mw_sql_statement(store, conn, MW_SQL_COUNT_STEP);
        sqlite3_bind_int64(step, 1, sqlite3_column_int64(next, 0));
        sqlite3_reset(next);
        return mw_sql_run(conn, step);
    }
    sqlite3_reset(next);
    if (rc == SQLITE_NOTFOUND) {
        count->done = mw_sql_clock();
        count->is_above = 1;
        count->is_under_way = 0;
        rc = mw_sql_do(store, conn, MW_SQL_COUNT_END);
    }
    return rc;
}

/* Also when there are more than allowed, before any of them goes. */
static int count_is_due(mw_sql_count_t *count, int is_above)
{
    count->is_above &= is_above;
    return !count->done || mw_sql_clock() - count->done > COUNT_INTERVAL
           || is_above > count->is_above;
}

/* Limits that were lowered, too. */
static int sweep_excess(mw_sql_t *store, mw_sql_conn_t *conn,
                        const cachemw_call_t *call, sweep_t *sweep)
{
    apr_int64_t entries, used = 0;
    int dropped = 0;
    int rc = mw_sql_room_entries(store, conn, &entries);

    if (rc == SQLITE_OK
        && count_is_due(&sweep->count, entries > store->max_entries)) {
        sweep->more = 1;
        return count_step(store, conn, &sweep->count);
    }
    if (rc == SQLITE_OK) {
        rc = mw_sql_room_used(store, conn, &used);
    }
    if (rc == SQLITE_OK
        && (entries > store->max_entries || used > store->max_bytes)) {
        rc = mw_sql_drop_found(store, conn, call, MW_SQL_OLDEST, 0,
                               SWEEP_ENTRIES, &dropped);
        conn->evicted += (apr_uint64_t)dropped;
        sweep->more |= dropped > 0;
    }
    return rc;
}

/* Pages that nobody needs go back to the file system, but for some that will
 * be needed soon. */
static int sweep_vacuum(const mw_sql_t *store, mw_sql_conn_t *conn, int *more)
{
    apr_int64_t unused = 0, left = 0;
    int rc = mw_sql_number(
        conn, mw_sql_statement(store, conn, MW_SQL_PAGES_FREE), &unused);

    if (rc != SQLITE_OK
        || unused * conn->page_size <= store->max_bytes / SWEEP_FREE) {
        return rc;
    }
    rc = mw_sql_do(store, conn, MW_SQL_VACUUM);
    if (rc == SQLITE_OK) {
        rc = mw_sql_number(
            conn, mw_sql_statement(store, conn, MW_SQL_PAGES_FREE), &left);
    }
    /* none go when somebody has set auto_vacuum otherwise */
    *more |= left < unused;
    return rc;
}

static int sweep_work(mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, void *baton)
{
    sweep_t *sweep = baton;
    int dropped = 0;
    int rc = mw_sql_drop_found(store, conn, call, MW_SQL_EXPIRED, call->now,
                               SWEEP_ENTRIES, &dropped);

    sweep->count = sweep->before;
    sweep->more = dropped == SWEEP_ENTRIES;
    conn->expired += (apr_uint64_t)dropped;
    if (rc == SQLITE_OK) {
        rc = mw_sql_drop_loose(store, conn, call->now, SWEEP_ENTRIES, &dropped);
        sweep->more |= dropped == SWEEP_ENTRIES;
    }
    if (rc == SQLITE_OK) {
        rc = sweep_excess(store, conn, call, sweep);
    }
    return rc == SQLITE_OK ? sweep_vacuum(store, conn, &sweep->more) : rc;
}

static apr_status_t sweep_step(mw_sql_t *store, const cachemw_call_t *call,
                               int *more)
{
    mw_sql_pool_t *pool = &store->pool;
    sweep_t sweep = { .more = 0 };
    apr_status_t rv;

    pthread_mutex_lock(&pool->mutex);
    sweep.before = pool->count;
    pthread_mutex_unlock(&pool->mutex);
    rv = mw_sql_transact(store, call,
                         store->is_look
                             ? store->services->remaining(store->services, call)
                             : SWEEP_WAIT,
                         sweep_work, &sweep);
    if (rv == APR_SUCCESS) {
        pthread_mutex_lock(&pool->mutex);
        pool->count = sweep.count;
        pthread_mutex_unlock(&pool->mutex);
    }
    *more = rv == APR_SUCCESS && sweep.more;
    return rv;
}

apr_status_t mw_sql_sweep(void *self, const cachemw_call_t *call, int *more)
{
    mw_sql_t *store = self;
    const cachemw_services_t *services = store->services;
    apr_status_t rv;

    do {
        rv = sweep_step(store, call, more);
    } while (rv == APR_SUCCESS && *more
             && services->remaining(services, call) > SWEEP_WAIT);
    return (APR_STATUS_IS_TIMEUP(rv) && !store->is_look) || rv == APR_NOTFOUND
               ? APR_SUCCESS
               : rv;
}

/* --- stats ---------------------------------------------------------------- */

typedef struct figures_t {
    apr_int64_t entries, bytes, expired, used, pages, loose;
    apr_int64_t page_size;
} figures_t;

static int figures_work(mw_sql_t *store, mw_sql_conn_t *conn,
                        const cachemw_call_t *call, void *baton)
{
    figures_t *figures = baton;
    sqlite3_stmt *statement =
        mw_sql_statement(store, conn, MW_SQL_EXPIRED_COUNT);
    int rc;

    figures->page_size = conn->page_size;
    sqlite3_bind_int64(statement, 1, call->now);
    rc = mw_sql_number(conn, statement, &figures->expired);
    if (rc == SQLITE_OK) {
        rc = mw_sql_room_entries(store, conn, &figures->entries);
    }
    if (rc == SQLITE_OK) {
        rc = mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_BYTES),
                           &figures->bytes);
    }
    if (rc == SQLITE_OK) {
        rc = mw_sql_room_loose(store, conn, call, &figures->loose);
    }
    if (rc == SQLITE_OK) {
        rc = mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_PAGES),
                           &figures->pages);
    }
    return rc == SQLITE_OK ? mw_sql_room_used(store, conn, &figures->used) : rc;
}

static void figures_tell(const mw_sql_t *store, const figures_t *figures,
                         cachemw_stats_t *stats)
{
    apr_int64_t bytes = figures->pages * figures->page_size;

    stats->entries = figures->entries;
    stats->entries_max = store->max_entries;
    stats->expired = figures->expired;
    stats->bytes = figures->bytes;
    stats->bytes_max = store->max_bytes;
    if (stats->extra) {
        stats->extra(stats->baton, "active_entries",
                     figures->entries - figures->expired);
        stats->extra(stats->baton, "database_bytes", bytes);
        stats->extra(stats->baton, "database_bytes_free",
                     bytes - figures->used);
        stats->extra(stats->baton, "loose_bytes", figures->loose);
    }
}

apr_status_t mw_sql_stats(void *self, const cachemw_call_t *call,
                          cachemw_stats_t *stats)
{
    mw_sql_t *store = self;
    figures_t figures = { .entries = 0 };
    apr_status_t rv = mw_sql_consult(store, call, mw_sql_patience(store, call),
                                     figures_work, &figures);

    if (rv == APR_SUCCESS) {
        figures_tell(store, &figures, stats);
    }
    return rv;
}
