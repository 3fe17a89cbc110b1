/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file room.h
 * @brief What goes to make room. All within a transaction that writes.
 */
#ifndef MW_SQLITE_ROOM_H
#define MW_SQLITE_ROOM_H

#include "sqlite.h"

/** An entry, as far as one must know it to drop it. */
typedef struct mw_sql_row_t {
    apr_int64_t number;
    cachemw_id_t id;
    apr_int64_t body_len;
    apr_time_t expires; /**< by mw_sql_find() only */
    int is_other;       /**< the same: another key with the same hash */
} mw_sql_row_t;

/**
 * Find an entry, expired or not.
 * @return SQLITE_NOTFOUND: none, but row->is_other tells of one to be replaced
 */
int mw_sql_find(const mw_sql_t *store, mw_sql_conn_t *conn,
                const cachemw_key_t *key, mw_sql_row_t *row);

/**
 * Drop an entry. A body in chunks stays readable for CACHEMW_GRACE, for those
 * who are being sent it.
 */
int mw_sql_drop(const mw_sql_t *store, mw_sql_conn_t *conn,
                const cachemw_call_t *call, const mw_sql_row_t *row);

/**
 * Drop what a statement finds, one entry for each time it is run, at most
 * `limit` of them.
 * @param parameter its ?1, if it has one
 * @param dropped gets how many there were
 */
int mw_sql_drop_found(const mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, mw_sql_statement_e which,
                      apr_int64_t parameter, int limit, int *dropped);

/** Drop at most n bodies that belong to no entry, and whose time has come. */
int mw_sql_drop_loose(const mw_sql_t *store, mw_sql_conn_t *conn,
                      apr_time_t now, int n, int *dropped);

/** Drop a body, now. */
int mw_sql_drop_body(const mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_id_t *id);

/**
 * Make room for so many bytes, and an entry: first goes what nobody can read
 * any more, then the oldest entries.
 * @return SQLITE_FULL: so much room there is not, or the limit was lowered
 *         and the store is above it; SQLITE_BUSY: conn->is_log_stuck
 */
int mw_sql_room_make(const mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, apr_int64_t bytes,
                     int entries);

/** Drop the n oldest entries and all bodies that belong to none. */
int mw_sql_room_evict(const mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, int n);

/** Bytes of bodies whose entries are gone, and that may still be read. */
int mw_sql_room_loose(const mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, apr_int64_t *bytes);

/** Entries as the triggers count them: whoever looks may find fewer. */
int mw_sql_room_entries(const mw_sql_t *store, mw_sql_conn_t *conn,
                        apr_int64_t *entries);

/** Bytes of the pages that are in use. */
int mw_sql_room_used(const mw_sql_t *store, mw_sql_conn_t *conn,
                     apr_int64_t *bytes);

#endif
