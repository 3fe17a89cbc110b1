/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file sqlite.h
 * @brief What the parts of the store in a SQLite database share.
 *
 * A part that talks to SQLite returns SQLite's result codes (int, SQLITE_OK);
 * slots return apr_status_t, translated in one place: mw_sql_status().
 */
#ifndef MW_SQLITE_H
#define MW_SQLITE_H

#include <pthread.h>
#include <sys/stat.h>

#include <sqlite3.h>

#include "mod_cachemw.h"

/** Bytes of a row of a body that is too long for the row of its entry. */
#define MW_SQL_CHUNK CACHEMW_PIECE_MAX

/** Chunks that a set collects before it writes them. */
#define MW_SQL_COLLECT 4

/** Connections of a child: one call uses one, for less than it takes to read a
 *  chunk or to write MW_SQL_COLLECT of them. */
#define MW_SQL_CONNECTIONS 8

/** How long the rows of a set that was not published are left alone. */
#define MW_SQL_UNFINISHED apr_time_from_sec(600)

/** The statements; their texts are in statements.c. */
typedef enum mw_sql_statement_e {
    MW_SQL_BEGIN,
    MW_SQL_COMMIT,
    MW_SQL_ROLLBACK,
    MW_SQL_SAVE,
    MW_SQL_SAVE_UNDO,
    MW_SQL_SAVE_END,
    MW_SQL_GET,
    MW_SQL_GET_HEAD,
    MW_SQL_FIND,
    MW_SQL_READ,
    MW_SQL_INSERT,
    MW_SQL_AMEND,
    MW_SQL_DELETE,
    MW_SQL_OLDEST,
    MW_SQL_EXPIRED,
    MW_SQL_EXPIRED_COUNT,
    MW_SQL_UP_TO,
    MW_SQL_LAST,
    MW_SQL_LIST,
    MW_SQL_BODY_BEGIN,
    MW_SQL_BODY_GROW,
    MW_SQL_BODY_OWN,
    MW_SQL_BODY_LOOSEN,
    MW_SQL_BODY_DELETE,
    MW_SQL_CHUNK_INSERT,
    MW_SQL_LOOSE,
    MW_SQL_LOOSE_BYTES,
    MW_SQL_TABLES,
    MW_SQL_ENTRIES,
    MW_SQL_BYTES,
    MW_SQL_COUNT_BEGIN,
    MW_SQL_COUNT_NEXT,
    MW_SQL_COUNT_STEP,
    MW_SQL_COUNT_END,
    MW_SQL_PAGES,
    MW_SQL_PAGES_FREE,
    MW_SQL_VACUUM,
    MW_SQL_CHANGES,
    MW_SQL_TOUCHED,
    MW_SQL_TOUCH,
    MW_SQL_STATEMENTS
} mw_sql_statement_e;

/** Which file a connection has open. All zero: none. */
typedef struct mw_sql_file_t {
    dev_t dev;
    ino_t ino;
} mw_sql_file_t;

/** A connection. One thread at a time; never seen by the parent. */
typedef struct mw_sql_conn_t {
    struct mw_sql_conn_t *next; /**< of those that nobody uses */
    sqlite3 *db;
    sqlite3_stmt *statements[MW_SQL_STATEMENTS]; /**< NULL: not yet needed */
    mw_sql_file_t file;
    unsigned char seed[16]; /**< of the hash of keys, the database's own */
    apr_int64_t page_size;  /**< bytes */
    apr_int64_t until;      /**< monotonic µs: how long to wait for locks */
    int log_pages;          /**< of the log, as far as this one knows */
    int log_tried;          /**< the same, when a commit last tried to shorten
                                 it; 0: it was not so long since */
    apr_int64_t changes;    /**< by others: a number that differs after each;
                                 0: not yet looked at */
    apr_int64_t touched;    /**< by any who sweep: the same */
    int is_log_stuck;       /**< very long, and cannot be shortened now */
    apr_uint64_t evicted;   /**< by the transaction under way */
    apr_uint64_t expired;   /**< the same */
    int is_bad;             /**< to be closed, not used again */
    const char *damage;     /**< what is wrong with the file, or NULL */
} mw_sql_conn_t;

/** How far a process is with counting all entries. */
typedef struct mw_sql_count_t {
    apr_int64_t done; /**< monotonic µs, when it last had; 0: never */
    int is_under_way;
    int is_above; /**< that there are more than allowed is certain, if it is
                       so */
} mw_sql_count_t;

/** A child's connections. */
typedef struct mw_sql_pool_t {
    pthread_mutex_t mutex; /**< covers what follows; never held over a call */
    pthread_cond_t given;  /**< a connection was given back */
    struct mw_sql_job_t *jobs; /**< of those who wait to write, the first one
                                    first */
    mw_sql_conn_t *idle;       /**< the last used one first */
    int connections;           /**< idle and in use */
    int is_writing;            /**< one thread of a child writes at a time */
    int is_open;          /**< between child_init and the end of the child */
    mw_sql_file_t file;   /**< that the path names, when last looked at */
    apr_int64_t looked;   /**< monotonic µs, when that was */
    apr_int64_t retry;    /**< monotonic µs: no attempt to open before */
    apr_status_t failure; /**< of the last attempt to open */
    apr_uint32_t stores;  /**< entries written; by who is writing */
    mw_sql_count_t count; /**< as committed */
    apr_int64_t synced;   /**< monotonic µs, when the log was last copied; by
                                 who sweeps */
} mw_sql_pool_t;

/** A store. All but pool is set in the parent and does not change. */
typedef struct mw_sql_t {
    const cachemw_services_t *services;
    const char *path;
    const char *table;
    const char *synchronous;
    const char *schema; /**< statements that make the tables */
    const char *texts[MW_SQL_STATEMENTS]; /**< with the name of the table */
    apr_int64_t max_entries;
    apr_int64_t max_bytes;
    apr_interval_time_t busy_timeout;
    int is_look; /**< of somebody else's: never made, nor set aside, and what is
                      damaged is APR_EINCOMPLETE */
    mw_sql_pool_t pool;
} mw_sql_t;

/** Monotonic clock, microseconds. */
apr_int64_t mw_sql_clock(void);

/**
 * What a result of SQLite means for who called a slot. Trouble with the
 * connection is remembered in it: it will be closed, and a database that is
 * damaged, set aside.
 */
apr_status_t mw_sql_status(mw_sql_conn_t *conn, int rc);

#endif
