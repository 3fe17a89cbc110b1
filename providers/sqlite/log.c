/* SPDX-License-Identifier: Apache-2.0 */

#include "log.h"
#include "pool.h"
#include "statements.h"

/* Who syncs waits that long for a moment without others, µs. */
#define SYNC_WAIT 50000
/* What a power loss costs at most when little is stored, µs. */
#define SYNC_INTERVAL ((apr_int64_t)30 * 1000000)

static int log_pages(const mw_sql_conn_t *conn, apr_int64_t bytes)
{
    return (int)(bytes / conn->page_size);
}

/* How many pages the log has, and whether all are in the database. */
static int log_copy(mw_sql_conn_t *conn, int mode, int *is_copied)
{
    int pages = 0, copied = -1;
    int rc = sqlite3_wal_checkpoint_v2(conn->db, NULL, mode, &pages, &copied);

    if (rc == SQLITE_OK) {
        conn->log_pages = pages;
    }
    *is_copied = rc == SQLITE_OK && copied == pages;
    return rc;
}

/* At first others may go on meanwhile. */
void mw_sql_log_shorten(mw_sql_conn_t *conn)
{
    const int far = log_pages(conn, MW_SQL_LOG_FAR);
    const int pages = conn->log_pages;
    int is_copied;

    if (pages < far) {
        conn->log_tried = 0;
    }
    else if (pages - conn->log_tried > far / 24) {
        conn->log_tried = pages;
        log_copy(conn,
                 pages < far + far / 6 ? SQLITE_CHECKPOINT_PASSIVE
                                       : SQLITE_CHECKPOINT_RESTART,
                 &is_copied);
    }
}

/* Somebody's transaction, perhaps of a shell that was forgotten, may still read
 * what is only in the log, and without a limit that would fill the disk. */
int mw_sql_log_is_stuck(mw_sql_conn_t *conn)
{
    const int most = log_pages(conn, MW_SQL_LOG_MOST);
    int is_copied;

    if (conn->log_pages < most) {
        return 0;
    }
    log_copy(conn, SQLITE_CHECKPOINT_PASSIVE, &is_copied);
    return conn->log_pages >= most && !is_copied;
}

static int sync_touched(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    return mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_TOUCHED),
                         &conn->touched);
}

/* A commit that changes hardly anything tells how long the log is. */
static int sync_touch(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    int rc = mw_sql_do(store, conn, MW_SQL_TOUCH);

    return rc == SQLITE_OK ? sync_touched(store, conn) : rc;
}

/* Unless nobody else has committed anything, or a server that sweeps the same
 * database has noticed: two that answered each other would never end. */
static int sync_measure(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    const apr_int64_t touched = conn->touched;
    apr_int64_t version = 0;
    int rc = mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_CHANGES),
                           &version);

    if (rc != SQLITE_OK || version == conn->changes) {
        return rc;
    }
    rc = sync_touched(store, conn);
    if (rc == SQLITE_OK && (conn->touched == touched || !conn->changes)) {
        rc = sync_touch(store, conn);
    }
    if (rc == SQLITE_OK) {
        conn->changes = version;
    }
    return rc;
}

/* The log begins again at its front with the first commit after all of it has
 * been copied, and that commit waits for the disk: seldom is it a visitor's, who
 * came just after the copy. */
static int sync_work(mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, void *baton)
{
    apr_int64_t *synced = &store->pool.synced;
    const apr_int64_t now = mw_sql_clock();
    int is_copied = 0;
    int rc = sync_measure(store, conn);

    (void)call;
    (void)baton;
    if (rc != SQLITE_OK || conn->log_pages <= 1
        || (conn->log_pages < log_pages(conn, MW_SQL_LOG)
            && now - *synced < SYNC_INTERVAL)) {
        return rc;
    }
    *synced = now;
    rc = log_copy(conn, SQLITE_CHECKPOINT_PASSIVE, &is_copied);
    if (rc == SQLITE_OK && !is_copied
        && conn->log_pages >= log_pages(conn, MW_SQL_LOG_LONG)) {
        rc = log_copy(conn, SQLITE_CHECKPOINT_RESTART, &is_copied);
    }
    return rc == SQLITE_OK && is_copied ? sync_touch(store, conn) : rc;
}

apr_status_t mw_sql_sync(void *self, const cachemw_call_t *call)
{
    apr_status_t rv = mw_sql_consult(self, call, SYNC_WAIT, sync_work, NULL);

    /* others are in the way: it comes again */
    return APR_STATUS_IS_TIMEUP(rv) || rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}
