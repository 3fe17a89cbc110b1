/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file statements.h
 * @brief The tables of a store, and the statements on them.
 *
 * With the default table_name:
 *
 *     cache_entries         number  1, 2, 3 … in the order of storing: the
 *                                   smallest is the oldest, evicted first
 *                           hash    of the key, keyed with the state's seed;
 *                                   two keys of one hash replace each other
 *                           id, created, expires (µs since 1970), key, head
 *                           size    bytes of key, head and body
 *                           body    up to MW_SQL_CHUNK bytes; longer ones are
 *                                   in chunks, and this is NULL
 *                           crc     CRC-32C of body
 *     cache_entries_bodies  one row for each body in chunks: id (the entry's),
 *                           size; until is NULL when it belongs to an entry,
 *                           else the time from which on it may be dropped:
 *                           its entry is gone, or not yet published
 *     cache_entries_chunks  (id, n): bytes n * MW_SQL_CHUNK and so on; a row
 *                           is never changed
 *     cache_entries_state   one row: seed; number and size of entries, kept by
 *                           triggers; when they are counted anew, in steps,
 *                           counted is the number of those whose hash is at
 *                           most up_to; touched, for a commit that changes
 *                           nothing else (SQLite skips what changes nothing)
 *     cache_entries_pages   a view for people
 */
#ifndef MW_SQLITE_STATEMENTS_H
#define MW_SQLITE_STATEMENTS_H

#include "sqlite.h"
#include "version.h"

/** What MW_SQL_TABLES, whose ?1 is the text of the schema, says of them. */
enum { MW_SQL_TABLES_NONE, MW_SQL_TABLES_OURS, MW_SQL_TABLES_OTHER };

/** up_to while nothing is being counted: less than any hash. */
#define MW_SQL_UP_TO_NONE "-9223372036854775808"

/** Put store->table into all texts. Parent; memory of pool. */
void mw_sql_texts_make(mw_sql_t *store, apr_pool_t *pool);

/**
 * A prepared statement of a connection, ready to be bound.
 * @return NULL on failure, with the reason in conn->db
 */
sqlite3_stmt *mw_sql_statement(const mw_sql_t *store, mw_sql_conn_t *conn,
                               mw_sql_statement_e which);

/** Bind an id, which stays the caller's, to parameter `n`. */
void mw_sql_bind_id(sqlite3_stmt *statement, int n, const cachemw_id_t *id);

/** Bind a key, which stays the caller's, and its hash: to ?2 and ?1. */
void mw_sql_bind_key(const mw_sql_conn_t *conn, sqlite3_stmt *statement,
                     const cachemw_key_t *key);

/** The id in a column of a row. @return 0: it is none, and `id` is as it was */
int mw_sql_column_id(sqlite3_stmt *statement, int column, cachemw_id_t *id);

/**
 * The next row of a statement, which the caller resets.
 * @param statement NULL: returns the error of the connection
 * @return SQLITE_ROW; SQLITE_NOTFOUND: there is none; trouble
 */
int mw_sql_fetch(mw_sql_conn_t *conn, sqlite3_stmt *statement);

/**
 * Run a statement that gives no row, and reset it.
 * @param statement NULL: returns the error of the connection
 */
int mw_sql_run(mw_sql_conn_t *conn, sqlite3_stmt *statement);

/** The same for one without parameters. */
int mw_sql_do(const mw_sql_t *store, mw_sql_conn_t *conn,
              mw_sql_statement_e which);

/**
 * The number that a statement gives, and reset it.
 * @param value unchanged when there is no row, or NULL in it
 */
int mw_sql_number(mw_sql_conn_t *conn, sqlite3_stmt *statement,
                  apr_int64_t *value);

#endif
