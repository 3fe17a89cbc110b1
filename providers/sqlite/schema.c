/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "log.h"
#include "schema.h"
#include "statements.h"

/* Of those that write at once in several processes, each tries often: the
 * waiting times that SQLite brings along grow to 100 ms. */
static int busy_wait(void *baton, int times)
{
    const mw_sql_conn_t *conn = baton;
    struct timespec nap = { 0, times < 4 ? 100000 : 1000000 };

    if (mw_sql_clock() >= conn->until) {
        return 0;
    }
    nanosleep(&nap, NULL);
    return 1;
}

static int schema_number(mw_sql_conn_t *conn, const char *text,
                         apr_int64_t *value)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(conn->db, text, -1, &statement, NULL);

    if (rc == SQLITE_OK) {
        rc = mw_sql_number(conn, statement, value);
    }
    sqlite3_finalize(statement);
    return rc;
}

/* With any other journal who writes keeps readers out. */
static int schema_journal(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    const cachemw_services_t *services = store->services;
    sqlite3_stmt *statement = NULL;
    const char *journal;
    int rc = sqlite3_prepare_v2(conn->db, "PRAGMA journal_mode = WAL", -1,
                                &statement, NULL);

    if (rc == SQLITE_OK) {
        rc = sqlite3_step(statement);
    }
    if (rc == SQLITE_ROW) {
        journal = (const char *)sqlite3_column_text(statement, 0);
        rc = journal && strcmp(journal, "wal") == 0 ? SQLITE_OK : SQLITE_ERROR;
    }
    sqlite3_finalize(statement);
    if (rc == SQLITE_ERROR) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "%s: SQLite cannot keep a write-ahead log here",
                      store->path);
    }
    return rc;
}

/* At each commit of the connection: how long the log is. */
static int schema_note_log(void *baton, sqlite3 *db, const char *name,
                           int pages)
{
    mw_sql_conn_t *conn = baton;

    (void)db;
    (void)name;
    conn->log_pages = pages;
    return SQLITE_OK;
}

/* What a connection has to be told each time; schema_synchronous(), too. */
static int schema_settings(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    char text[400];
    int rc = schema_number(conn, "PRAGMA page_size", &conn->page_size);

    if (rc == SQLITE_OK) {
        rc = schema_journal(store, conn);
    }
    if (rc != SQLITE_OK) {
        return rc;
    }
    sqlite3_wal_hook(conn->db, schema_note_log, conn);
    sqlite3_snprintf(sizeof(text), text,
                     "PRAGMA temp_store = MEMORY;"
                     "PRAGMA mmap_size = 0;"
                     "PRAGMA cache_size = -1024;"
                     "PRAGMA secure_delete = OFF;"
                     "PRAGMA trusted_schema = OFF;"
                     "PRAGMA cell_size_check = ON;"
                     "PRAGMA max_page_count = %lld;"
                     "PRAGMA journal_size_limit = %d;",
                     (sqlite3_int64)(store->max_bytes / conn->page_size),
                     2 * MW_SQL_LOG_LONG);
    return sqlite3_exec(conn->db, text, NULL, NULL, NULL);
}

/* Not before there are tables: who makes them keeps others out. */
static int schema_synchronous(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    char text[40];

    sqlite3_snprintf(sizeof(text), text, "PRAGMA synchronous = %s",
                     store->synchronous);
    return sqlite3_exec(conn->db, text, NULL, NULL, NULL);
}

/* Before the log is begun, which freezes the size of a page; and whose database
 * it is has to be in the file for who looks without SQLite. Nothing is lost yet
 * that the disk should be waited for. */
static int schema_begin(mw_sql_conn_t *conn)
{
    char text[200];

    sqlite3_snprintf(sizeof(text), text,
                     "PRAGMA synchronous = OFF;"
                     "PRAGMA page_size = 4096;"
                     "PRAGMA auto_vacuum = INCREMENTAL;"
                     "PRAGMA application_id = %d;"
                     "PRAGMA user_version = %d;",
                     MW_SQL_APPLICATION, MW_SQL_VERSION);
    return sqlite3_exec(conn->db, text, NULL, NULL, NULL);
}

static int schema_create(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    char end[200];
    int rc = sqlite3_exec(conn->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

    if (rc == SQLITE_OK) {
        rc = sqlite3_exec(conn->db, store->schema, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK) {
        sqlite3_snprintf(
            sizeof(end), end,
            "INSERT OR IGNORE INTO \"%w_state\" "
            "VALUES (1, randomblob(%d), 0, 0, 0, " MW_SQL_UP_TO_NONE ", 0);"
            "PRAGMA application_id = %d;"
            "PRAGMA user_version = %d; COMMIT",
            store->table, (int)sizeof(conn->seed), MW_SQL_APPLICATION,
            MW_SQL_VERSION);
        rc = sqlite3_exec(conn->db, end, NULL, NULL, NULL);
    }
    return rc;
}

static int schema_look(const mw_sql_t *store, mw_sql_conn_t *conn,
                       apr_int64_t *tables)
{
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_TABLES);

    sqlite3_bind_text(statement, 1, store->schema, -1, SQLITE_STATIC);
    return mw_sql_number(conn, statement, tables);
}

static int schema_seed(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    sqlite3_stmt *statement = NULL;
    char text[120];
    int rc;

    sqlite3_snprintf(sizeof(text), text, "SELECT seed FROM \"%w_state\"",
                     store->table);
    rc = sqlite3_prepare_v2(conn->db, text, -1, &statement, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(statement);
    }
    if (rc == SQLITE_ROW
        && sqlite3_column_bytes(statement, 0) == (int)sizeof(conn->seed)) {
        memcpy(conn->seed, sqlite3_column_blob(statement, 0),
               sizeof(conn->seed));
        rc = SQLITE_OK;
    }
    else if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
        rc = SQLITE_CORRUPT;
    }
    sqlite3_finalize(statement);
    return rc;
}

/* Whose database it is; nothing is changed in one of another program. */
static apr_status_t schema_identify(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    const cachemw_services_t *services = store->services;
    apr_int64_t application = 0, version = 0, all = 0;
    int rc = schema_number(conn, "PRAGMA application_id", &application);

    if (rc == SQLITE_OK) {
        rc = schema_number(conn, "PRAGMA user_version", &version);
    }
    if (rc == SQLITE_OK) {
        rc = schema_number(conn, "SELECT count(*) FROM sqlite_master", &all);
    }
    if (rc != SQLITE_OK) {
        return mw_sql_status(conn, rc);
    }
    if (application == MW_SQL_APPLICATION && version > MW_SQL_VERSION) {
        /* Of the servers of an upgrade, the newer one has it. */
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "%s: it was made by a newer version of this module, and "
                      "is left alone: delete it, or use another db_path, if "
                      "that version is not to be used any more",
                      store->path);
        return ENOTSUP;
    }
    if (application == MW_SQL_APPLICATION && version != MW_SQL_VERSION) {
        conn->damage = "it was made by an older version of this module";
        return APR_EINCOMPLETE;
    }
    if (application != MW_SQL_APPLICATION && all) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "%s: it is the database of another program, and left "
                      "alone: db_path wants a file of the store's own",
                      store->path);
        return APR_EACCES;
    }
    return APR_SUCCESS;
}

static int schema_lacks(const mw_sql_t *store)
{
    store->services->log(store->services, CACHEMW_LOG_ERR, APR_SUCCESS,
                         "%s: it has no tables of table_name=%s", store->path,
                         store->table);
    return SQLITE_ERROR;
}

/* An empty database, or one with tables of another name, gets ours. */
static int schema_tables(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    apr_int64_t tables = MW_SQL_TABLES_NONE;
    int rc = schema_settings(store, conn);

    if (rc == SQLITE_OK) {
        rc = schema_look(store, conn, &tables);
    }
    if (rc == SQLITE_OK && tables == MW_SQL_TABLES_NONE) {
        rc = store->is_look ? schema_lacks(store) : schema_create(store, conn);
    }
    if (rc == SQLITE_OK && tables == MW_SQL_TABLES_OTHER) {
        conn->damage = "its tables were changed";
        rc = SQLITE_ERROR;
    }
    if (rc == SQLITE_OK) {
        rc = schema_synchronous(store, conn);
    }
    return rc == SQLITE_OK ? schema_seed(store, conn) : rc;
}

static apr_status_t schema_open_file(const mw_sql_t *store, mw_sql_conn_t *conn,
                                     int is_empty)
{
    apr_status_t rv;
    int rc =
        sqlite3_open_v2(store->path, &conn->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX
                            | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE,
                        NULL);

    if (!conn->db) {
        return APR_ENOMEM;
    }
    if (rc == SQLITE_OK) {
        rc = sqlite3_busy_handler(conn->db, busy_wait, conn);
    }
    if (rc == SQLITE_OK) {
        /* A child that ends does not wait for the disk. */
        rc = sqlite3_db_config(conn->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1,
                               NULL);
    }
    if (rc == SQLITE_OK && is_empty) {
        rc = schema_begin(conn);
    }
    rv = rc == SQLITE_OK ? schema_identify(store, conn)
                         : mw_sql_status(conn, rc);
    return rv == APR_SUCCESS ? mw_sql_status(conn, schema_tables(store, conn))
                             : rv;
}

/* Under the lock of the files. */
static apr_status_t schema_open_locked(const mw_sql_t *store,
                                       mw_sql_conn_t *conn, int may_create)
{
    apr_off_t size = 0;
    apr_status_t rv = mw_sql_files_look(store, &conn->file, &size);

    if (may_create && APR_STATUS_IS_ENOENT(rv)) {
        rv = mw_sql_files_create(store);
        if (rv == APR_SUCCESS) {
            rv = mw_sql_files_look(store, &conn->file, &size);
        }
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return schema_open_file(store, conn, may_create && size == 0);
}

apr_status_t mw_sql_schema_open(const mw_sql_t *store, mw_sql_conn_t *conn)
{
    apr_off_t size = 0;
    apr_status_t rv = mw_sql_files_look(store, &conn->file, &size);
    int is_new = APR_STATUS_IS_ENOENT(rv) || (rv == APR_SUCCESS && size == 0);
    int fd;

    if (store->is_look && is_new) {
        return APR_ENOENT;
    }
    if (rv != APR_SUCCESS && !is_new) {
        return rv;
    }
    rv = mw_sql_files_lock(store, is_new ? LOCK_EX : LOCK_SH, conn->until, &fd);
    if (rv == APR_SUCCESS) {
        rv = schema_open_locked(store, conn, is_new);
        close(fd);
    }
    return rv;
}
