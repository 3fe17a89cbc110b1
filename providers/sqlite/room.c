/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "room.h"
#include "statements.h"

/* Entries that go in one transaction at most. */
#define ROOM_AT_ONCE 256
/* The same, when there are more of them than allowed: the limit was lowered,
 * which is the sweep's concern, or the count is wrong, as it will find out. */
#define ROOM_ABOVE 2
/* Room made beyond what is needed, so that not every store has to. */
#define ROOM_PAGES 32
/* The part of the space that bodies may keep whose entries made room. */
#define ROOM_LOOSE 10

/* number, id, body_len, and of MW_SQL_FIND more, in this order; resets the
 * statement. */
static int row_fetch(mw_sql_conn_t *conn, sqlite3_stmt *statement,
                     mw_sql_row_t *row)
{
    int rc = mw_sql_fetch(conn, statement);

    memset(row, 0, sizeof(*row));
    if (rc == SQLITE_ROW) {
        row->number = sqlite3_column_int64(statement, 0);
        mw_sql_column_id(statement, 1, &row->id);
        row->body_len = sqlite3_column_int64(statement, 2);
        if (sqlite3_column_count(statement) > 3) {
            row->expires = sqlite3_column_int64(statement, 3);
            row->is_other = !sqlite3_column_int(statement, 4);
        }
    }
    sqlite3_reset(statement);
    return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

int mw_sql_find(const mw_sql_t *store, mw_sql_conn_t *conn,
                const cachemw_key_t *key, mw_sql_row_t *row)
{
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_FIND);
    int rc;

    mw_sql_bind_key(conn, statement, key);
    rc = row_fetch(conn, statement, row);
    return rc == SQLITE_OK && row->is_other ? SQLITE_NOTFOUND : rc;
}

int mw_sql_drop(const mw_sql_t *store, mw_sql_conn_t *conn,
                const cachemw_call_t *call, const mw_sql_row_t *row)
{
    sqlite3_stmt *statement;
    int rc = SQLITE_OK;

    if (row->body_len > MW_SQL_CHUNK) {
        statement = mw_sql_statement(store, conn, MW_SQL_BODY_LOOSEN);
        mw_sql_bind_id(statement, 1, &row->id);
        sqlite3_bind_int64(statement, 2, call->now + CACHEMW_GRACE);
        rc = mw_sql_run(conn, statement);
    }
    if (rc == SQLITE_OK) {
        statement = mw_sql_statement(store, conn, MW_SQL_DELETE);
        sqlite3_bind_int64(statement, 1, row->number);
        rc = mw_sql_run(conn, statement);
    }
    return rc;
}

int mw_sql_drop_found(const mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, mw_sql_statement_e which,
                      apr_int64_t parameter, int limit, int *dropped)
{
    sqlite3_stmt *statement;
    mw_sql_row_t row;
    int rc = SQLITE_OK;

    for (*dropped = 0; *dropped < limit; ++*dropped) {
        statement = mw_sql_statement(store, conn, which);
        if (statement && sqlite3_bind_parameter_count(statement)) {
            sqlite3_bind_int64(statement, 1, parameter);
        }
        rc = row_fetch(conn, statement, &row);
        if (rc == SQLITE_OK) {
            rc = mw_sql_drop(store, conn, call, &row);
        }
        if (rc != SQLITE_OK) {
            break;
        }
    }
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

/* The body that may go first, and when. */
static int loose_find(const mw_sql_t *store, mw_sql_conn_t *conn,
                      cachemw_id_t *id, apr_time_t *until)
{
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_LOOSE);
    int rc = mw_sql_fetch(conn, statement);

    if (rc == SQLITE_ROW && mw_sql_column_id(statement, 0, id)) {
        *until = sqlite3_column_int64(statement, 1);
        rc = SQLITE_OK;
    }
    else if (rc == SQLITE_ROW) {
        rc = SQLITE_CORRUPT;
    }
    sqlite3_reset(statement);
    return rc;
}

int mw_sql_drop_body(const mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_id_t *id)
{
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_BODY_DELETE);

    mw_sql_bind_id(statement, 1, id);
    return mw_sql_run(conn, statement);
}

int mw_sql_drop_loose(const mw_sql_t *store, mw_sql_conn_t *conn,
                      apr_time_t now, int n, int *dropped)
{
    apr_time_t until = 0;
    cachemw_id_t id;
    int rc = SQLITE_OK;

    for (*dropped = 0; *dropped < n; ++*dropped) {
        rc = loose_find(store, conn, &id, &until);
        if (rc == SQLITE_OK && until > now) {
            return SQLITE_OK;
        }
        if (rc == SQLITE_OK) {
            rc = mw_sql_drop_body(store, conn, &id);
        }
        if (rc != SQLITE_OK) {
            break;
        }
    }
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

int mw_sql_room_entries(const mw_sql_t *store, mw_sql_conn_t *conn,
                        apr_int64_t *entries)
{
    int rc;

    *entries = APR_INT64_MIN;
    rc = mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_ENTRIES),
                       entries);
    return rc == SQLITE_OK && *entries == APR_INT64_MIN ? SQLITE_CORRUPT : rc;
}

int mw_sql_room_used(const mw_sql_t *store, mw_sql_conn_t *conn,
                     apr_int64_t *bytes)
{
    apr_int64_t pages = 0, unused = 0;
    int rc = mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_PAGES),
                           &pages);

    if (rc == SQLITE_OK) {
        rc = mw_sql_number(
            conn, mw_sql_statement(store, conn, MW_SQL_PAGES_FREE), &unused);
    }
    *bytes = (pages - unused) * conn->page_size;
    return rc;
}

int mw_sql_room_loose(const mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, apr_int64_t *bytes)
{
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_LOOSE_BYTES);

    sqlite3_bind_int64(statement, 1, call->now + CACHEMW_GRACE);
    return mw_sql_number(conn, statement, bytes);
}

/* Evicted is what is oldest, unless bodies whose entries are gone take up too
 * much of the space: then one of these. */
static int room_drop(const mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, int *dropped)
{
    apr_int64_t loose = 0;
    int rc = mw_sql_drop_loose(store, conn, call->now, ROOM_AT_ONCE, dropped);

    if (rc != SQLITE_OK || *dropped) {
        return rc;
    }
    rc = mw_sql_room_loose(store, conn, call, &loose);
    if (rc == SQLITE_OK && loose <= store->max_bytes / ROOM_LOOSE) {
        rc = mw_sql_drop_found(store, conn, call, MW_SQL_OLDEST, 0, 1, dropped);
        conn->evicted += (apr_uint64_t)*dropped;
    }
    if (rc == SQLITE_OK && !*dropped) {
        rc = mw_sql_drop_loose(store, conn, call->now + CACHEMW_GRACE, 1,
                               dropped);
    }
    return rc;
}

static int room_for_entry(const mw_sql_t *store, mw_sql_conn_t *conn,
                          const cachemw_call_t *call)
{
    apr_int64_t entries, spare = store->max_entries / 1000;
    int wanted, dropped;
    int rc = mw_sql_room_entries(store, conn, &entries);

    if (rc != SQLITE_OK || entries < store->max_entries) {
        return rc;
    }
    wanted = entries > store->max_entries ? ROOM_ABOVE
             : spare < ROOM_AT_ONCE       ? 1 + (int)spare
                                          : ROOM_AT_ONCE;
    rc = mw_sql_drop_found(store, conn, call, MW_SQL_OLDEST, 0, wanted,
                           &dropped);
    conn->evicted += (apr_uint64_t)dropped;
    if (rc == SQLITE_OK && dropped < wanted) {
        /* nothing is left: that is quickly counted */
        rc = mw_sql_do(store, conn, MW_SQL_COUNT_END);
    }
    return rc;
}

static apr_int64_t room_spare(const mw_sql_t *store, const mw_sql_conn_t *conn)
{
    apr_int64_t spare = ROOM_PAGES * conn->page_size;

    return spare < store->max_bytes / 64 ? spare : store->max_bytes / 64;
}

int mw_sql_room_make(const mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, apr_int64_t bytes, int entries)
{
    /* what the rows of a body need, and splitting pages of four tables */
    apr_int64_t wanted = bytes + bytes / 16 + 8 * conn->page_size;
    apr_int64_t most = store->max_bytes, used;
    int dropped = 1;
    int rc = conn->is_log_stuck ? SQLITE_BUSY : SQLITE_OK;

    if (rc == SQLITE_OK && entries) {
        rc = room_for_entry(store, conn, call);
    }
    while (rc == SQLITE_OK) {
        rc = mw_sql_room_used(store, conn, &used);
        if (rc != SQLITE_OK || used + wanted <= most) {
            return rc;
        }
        if (used > store->max_bytes) {
            /* the limit was lowered: more may have to go than one transaction
             * and the visitor who waits for it can bear */
            return SQLITE_FULL;
        }
        if (!dropped) {
            return used + wanted <= store->max_bytes ? SQLITE_OK : SQLITE_FULL;
        }
        most = store->max_bytes - room_spare(store, conn);
        rc = room_drop(store, conn, call, &dropped);
    }
    return rc;
}

int mw_sql_room_evict(const mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, int n)
{
    int dropped;
    int rc =
        mw_sql_drop_found(store, conn, call, MW_SQL_OLDEST, 0, n, &dropped);

    conn->evicted += (apr_uint64_t)dropped;
    if (rc == SQLITE_OK) {
        rc = mw_sql_drop_loose(store, conn, APR_INT64_MAX, n, &dropped);
    }
    return rc;
}
