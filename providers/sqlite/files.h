/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file files.h
 * @brief The database as files: who owns them, whether they are still the
 *        ones that were opened, and how a damaged one is set aside.
 *
 *     cache.db  cache.db-wal  cache.db-shm     SQLite's
 *     cache.db-lock                            ours: see mw_sql_files_lock()
 *     cache.db-aside  cache.db-aside-wal       what was set aside last
 *
 * Nothing here opens an existing database in a child: closing any descriptor of
 * a file lets go all locks that a process has on it, SQLite's too.
 */
#ifndef MW_SQLITE_FILES_H
#define MW_SQLITE_FILES_H

#include "sqlite.h"

/**
 * Parent, perhaps as root: make the directory, and give it and a database of
 * ours that is there to the user whom the children run as. Follows no link in
 * its last component; touches no database of somebody else.
 * @param uid,gid 0: only make the directory
 */
apr_status_t mw_sql_files_prepare(const mw_sql_t *store, apr_uid_t uid,
                                  apr_gid_t gid);

/**
 * Which file the path names now.
 * @param size its size in bytes; may be NULL
 * @return APR_ENOENT: none; APR_EACCES, trouble: no regular file
 */
apr_status_t mw_sql_files_look(const mw_sql_t *store, mw_sql_file_t *file,
                               apr_off_t *size);

/** Whether these are the same file, and there is one. */
int mw_sql_files_same(const mw_sql_file_t *one, const mw_sql_file_t *other);

/**
 * Opening a database and putting another one in its place exclude each other
 * over all processes; else one that has opened the old file could go on with
 * the write-ahead log of the new one. Who opens is LOCK_SH, who creates or
 * sets aside LOCK_EX.
 * @param until monotonic µs: give up then
 * @param fd to be closed to unlock
 * @return APR_TIMEUP, trouble
 */
apr_status_t mw_sql_files_lock(const mw_sql_t *store, int how,
                               apr_int64_t until, int *fd);

/**
 * Make an empty file for a new database, readable by its owner only, and
 * remove what another one may have left beside it. Under LOCK_EX.
 */
apr_status_t mw_sql_files_create(const mw_sql_t *store);

/** Whether the file system has hardly any space left. */
int mw_sql_files_disk_is_full(const mw_sql_t *store);

/**
 * Move a damaged database out of the way, unless somebody did it already.
 * @param file the damaged one
 * @param damage what is wrong with it, for the log
 */
void mw_sql_files_set_aside(const mw_sql_t *store, const mw_sql_file_t *file,
                            const char *damage, apr_int64_t until);

#endif
