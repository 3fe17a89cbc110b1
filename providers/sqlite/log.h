/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file log.h
 * @brief The write-ahead log: who shortens it, and when.
 *
 * The process that sweeps copies what is in it into the database, once a second
 * when it has MW_SQL_LOG bytes, else every 30 s, and waits for the disk, so that
 * hardly a visitor does. Only where that process is missing, or cannot keep up,
 * who commits does it, from MW_SQL_LOG_FAR on.
 */
#ifndef MW_SQLITE_LOG_H
#define MW_SQLITE_LOG_H

#include "sqlite.h"

/** Bytes of the log from where on the process that sweeps copies it. */
#define MW_SQL_LOG (1024 * 1024)

/** From here on readers are kept out for a moment, or it would grow without
 *  end under readers and writers who never leave a gap. */
#define MW_SQL_LOG_LONG (8 * MW_SQL_LOG)

/** From here on a commit shortens it. */
#define MW_SQL_LOG_FAR (24 * MW_SQL_LOG)

/** From here on, when somebody's transaction keeps it from being shortened,
 *  nothing is stored. */
#define MW_SQL_LOG_MOST (32 * MW_SQL_LOG)

/**
 * After a commit, when nobody waits for it any more: copy the log if it is
 * MW_SQL_LOG_FAR. Waits for the disk, and for others until conn->until.
 */
void mw_sql_log_shorten(mw_sql_conn_t *conn);

/** Whether it is as long as it may be, and cannot be shortened now. */
int mw_sql_log_is_stuck(mw_sql_conn_t *conn);

/** How often mw_sql_sync() is called. µs */
#define MW_SQL_SYNC apr_time_from_sec(1)

/** The slot. */
apr_status_t mw_sql_sync(void *self, const cachemw_call_t *call);

#endif
