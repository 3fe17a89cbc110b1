/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_siphash.h"
#include "apr_strings.h"

#include "statements.h"

/* In all texts $ stands for the name of the table. */

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS \"$\" ("
    "number INTEGER PRIMARY KEY, hash INTEGER NOT NULL, id BLOB NOT NULL, "
    "created INTEGER NOT NULL, expires INTEGER NOT NULL, "
    "size INTEGER NOT NULL, body_len INTEGER NOT NULL, crc INTEGER, "
    "key BLOB NOT NULL, head BLOB NOT NULL, body BLOB);"
    "CREATE UNIQUE INDEX IF NOT EXISTS \"$_by_hash\" ON \"$\" (hash);"
    "CREATE INDEX IF NOT EXISTS \"$_by_expires\" ON \"$\" (expires);"
    "CREATE TABLE IF NOT EXISTS \"$_bodies\" ("
    "id BLOB PRIMARY KEY, size INTEGER NOT NULL, until INTEGER) "
    "WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS \"$_by_until\" ON \"$_bodies\" (until, size) "
    "WHERE until IS NOT NULL;"
    "CREATE TABLE IF NOT EXISTS \"$_chunks\" ("
    "id BLOB NOT NULL, n INTEGER NOT NULL, crc INTEGER NOT NULL, "
    "data BLOB NOT NULL, PRIMARY KEY (id, n)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS \"$_state\" ("
    "one INTEGER PRIMARY KEY CHECK (one = 1), seed BLOB NOT NULL, "
    "entries INTEGER NOT NULL, bytes INTEGER NOT NULL, "
    "counted INTEGER NOT NULL, up_to INTEGER NOT NULL, "
    "touched INTEGER NOT NULL);"
    /* Triggers, so that the figures are right and no body is left behind when
     * somebody deletes entries by hand. */
    "CREATE TRIGGER IF NOT EXISTS \"$_set\" AFTER INSERT ON \"$\" BEGIN "
    "UPDATE \"$_state\" SET entries = entries + 1, bytes = bytes + new.size, "
    "counted = counted + (new.hash <= up_to); "
    "END;"
    "CREATE TRIGGER IF NOT EXISTS \"$_amended\" AFTER UPDATE OF size ON \"$\" "
    "BEGIN "
    "UPDATE \"$_state\" SET bytes = bytes + new.size - old.size; "
    "END;"
    "CREATE TRIGGER IF NOT EXISTS \"$_gone\" AFTER DELETE ON \"$\" BEGIN "
    "UPDATE \"$_state\" SET entries = entries - 1, bytes = bytes - old.size, "
    "counted = counted - (old.hash <= up_to); "
    "END;"
    "CREATE TRIGGER IF NOT EXISTS \"$_left\" AFTER DELETE ON \"$\" "
    "WHEN old.body IS NULL BEGIN "
    "UPDATE \"$_bodies\" SET until = 0 WHERE id = old.id AND until IS NULL; "
    "END;"
    "CREATE TRIGGER IF NOT EXISTS \"$_emptied\" AFTER DELETE ON \"$_bodies\" "
    "BEGIN "
    "DELETE FROM \"$_chunks\" WHERE id = old.id; "
    "END;"
    "CREATE VIEW IF NOT EXISTS \"$_pages\" AS SELECT number, "
    "CAST(substr(key, 1, instr(key, x'00') - 1) AS TEXT) AS namespace, "
    "CAST(substr(key, instr(key, x'00') + 1) AS TEXT) AS url, "
    "datetime(created / 1000000, 'unixepoch') AS created, "
    "datetime(expires / 1000000, 'unixepoch') AS expires, size, body_len "
    "FROM \"$\";";

static const char *const texts[MW_SQL_STATEMENTS] = {
    [MW_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [MW_SQL_COMMIT] = "COMMIT",
    [MW_SQL_ROLLBACK] = "ROLLBACK",
    [MW_SQL_SAVE] = "SAVEPOINT job",
    [MW_SQL_SAVE_UNDO] = "ROLLBACK TO job",
    [MW_SQL_SAVE_END] = "RELEASE job",
    [MW_SQL_GET] = "SELECT e.id, e.expires, e.body_len, e.head, "
                   "coalesce(e.crc, c.crc), coalesce(e.body, c.data) "
                   "FROM \"$\" AS e LEFT JOIN \"$_chunks\" AS c "
                   "ON e.body IS NULL AND c.id = e.id AND c.n = 0 "
                   "WHERE e.hash = ?1 AND e.key = ?2",
    [MW_SQL_GET_HEAD] = "SELECT id, expires, body_len, head FROM \"$\" "
                        "WHERE hash = ?1 AND key = ?2",
    [MW_SQL_FIND] = "SELECT number, id, body_len, expires, key = ?2 "
                    "FROM \"$\" WHERE hash = ?1",
    [MW_SQL_READ] = "SELECT crc, data FROM \"$_chunks\" "
                    "WHERE id = ?1 AND n = ?2",
    [MW_SQL_INSERT] = "INSERT INTO \"$\" (hash, key, id, expires, head, "
                      "created, size, body_len, crc, body) "
                      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    [MW_SQL_AMEND] = "UPDATE \"$\" SET head = ?2, expires = ?3, "
                     "size = size - length(head) + length(?2) "
                     "WHERE number = ?1",
    [MW_SQL_DELETE] = "DELETE FROM \"$\" WHERE number = ?1",
    [MW_SQL_OLDEST] = "SELECT number, id, body_len FROM \"$\" "
                      "ORDER BY number LIMIT 1",
    [MW_SQL_EXPIRED] = "SELECT number, id, body_len FROM \"$\" "
                       "WHERE expires <= ?1 ORDER BY expires LIMIT 1",
    [MW_SQL_EXPIRED_COUNT] = "SELECT count(*) FROM (SELECT 1 FROM \"$\" "
                             "WHERE expires <= ?1 LIMIT 100000)",
    [MW_SQL_UP_TO] = "SELECT number, id, body_len FROM \"$\" "
                     "WHERE number <= ?1 ORDER BY number LIMIT 1",
    [MW_SQL_LAST] = "SELECT max(number) FROM \"$\"",
    [MW_SQL_LIST] = "SELECT number, key, id, expires, body_len FROM \"$\" "
                    "WHERE number > ?1 AND expires > ?2 "
                    "ORDER BY number LIMIT ?3",
    [MW_SQL_BODY_BEGIN] = "INSERT INTO \"$_bodies\" (id, size, until) "
                          "VALUES (?1, ?2, ?3)",
    [MW_SQL_BODY_GROW] = "UPDATE \"$_bodies\" SET size = size + ?2, "
                         "until = ?3 WHERE id = ?1",
    [MW_SQL_BODY_OWN] = "UPDATE \"$_bodies\" SET until = NULL WHERE id = ?1",
    [MW_SQL_BODY_LOOSEN] = "UPDATE \"$_bodies\" SET until = ?2 WHERE id = ?1",
    [MW_SQL_BODY_DELETE] = "DELETE FROM \"$_bodies\" WHERE id = ?1",
    [MW_SQL_CHUNK_INSERT] = "INSERT INTO \"$_chunks\" (id, n, crc, data) "
                            "VALUES (?1, ?2, ?3, ?4)",
    [MW_SQL_LOOSE] = "SELECT id, until FROM \"$_bodies\" "
                     "WHERE until IS NOT NULL ORDER BY until LIMIT 1",
    [MW_SQL_LOOSE_BYTES] = "SELECT sum(size) FROM \"$_bodies\" "
                           "WHERE until <= ?1",
    /* Compared as text: a trigger, an index or a view that somebody has put
     * there would be run with our statements, a table that is missing would
     * make all of them fail for ever. */
    [MW_SQL_TABLES] =
        "SELECT CASE WHEN count(*) = 0 THEN 0 "
        "WHEN count(*) = total(instr(wanted, sql) > 0) AND count(*) = "
        "(length(wanted) - length(replace(wanted, 'CREATE ', ''))) / 7 "
        "THEN 1 ELSE 2 END FROM sqlite_master, "
        "(SELECT replace(?1, 'IF NOT EXISTS ', '') AS wanted) "
        "WHERE sql IS NOT NULL AND tbl_name COLLATE NOCASE IN "
        "('$', '$_bodies', '$_chunks', '$_state', '$_pages')",
    [MW_SQL_ENTRIES] = "SELECT entries FROM \"$_state\"",
    [MW_SQL_BYTES] = "SELECT bytes FROM \"$_state\"",
    [MW_SQL_COUNT_BEGIN] = "UPDATE \"$_state\" "
                           "SET up_to = " MW_SQL_UP_TO_NONE ", counted = 0",
    [MW_SQL_COUNT_NEXT] = "SELECT hash FROM \"$\" "
                          "WHERE hash > (SELECT up_to FROM \"$_state\") "
                          "ORDER BY hash LIMIT 1 OFFSET 4095",
    [MW_SQL_COUNT_STEP] =
        "UPDATE \"$_state\" SET up_to = ?1, counted = counted + "
        "(SELECT count(*) FROM \"$\" WHERE hash > up_to AND hash <= ?1)",
    [MW_SQL_COUNT_END] =
        "UPDATE \"$_state\" SET up_to = " MW_SQL_UP_TO_NONE ", counted = 0, "
        "entries = counted + "
        "(SELECT count(*) FROM \"$\" WHERE hash > up_to)",
    [MW_SQL_PAGES] = "PRAGMA page_count",
    [MW_SQL_PAGES_FREE] = "PRAGMA freelist_count",
    [MW_SQL_VACUUM] = "PRAGMA incremental_vacuum(16)",
    [MW_SQL_CHANGES] = "PRAGMA data_version",
    [MW_SQL_TOUCHED] = "SELECT touched FROM \"$_state\"",
    [MW_SQL_TOUCH] = "UPDATE \"$_state\" SET touched = touched + 1",
};

static const char *text_fill(const char *text, const char *table,
                             apr_pool_t *pool)
{
    apr_size_t size = strlen(text) + 1;
    const char *from;
    char *filled, *to;

    for (from = text; *from; from++) {
        size += *from == '$' ? strlen(table) : 0;
    }
    filled = to = apr_palloc(pool, size);
    for (from = text; *from; from++) {
        if (*from == '$') {
            memcpy(to, table, strlen(table));
            to += strlen(table);
        }
        else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return filled;
}

void mw_sql_texts_make(mw_sql_t *store, apr_pool_t *pool)
{
    int i;

    store->schema = text_fill(schema, store->table, pool);
    for (i = 0; i < MW_SQL_STATEMENTS; i++) {
        store->texts[i] = text_fill(texts[i], store->table, pool);
    }
}

sqlite3_stmt *mw_sql_statement(const mw_sql_t *store, mw_sql_conn_t *conn,
                               mw_sql_statement_e which)
{
    sqlite3_stmt **statement = &conn->statements[which];

    if (!*statement
        && sqlite3_prepare_v3(conn->db, store->texts[which], -1,
                              SQLITE_PREPARE_PERSISTENT, statement, NULL)
               != SQLITE_OK) {
        return NULL;
    }
    return *statement;
}

void mw_sql_bind_id(sqlite3_stmt *statement, int n, const cachemw_id_t *id)
{
    sqlite3_bind_blob(statement, n, id, sizeof(*id), SQLITE_STATIC);
}

static apr_int64_t key_hash(const mw_sql_conn_t *conn, const cachemw_key_t *key)
{
    return (apr_int64_t)apr_siphash24(key->data, key->len, conn->seed);
}

void mw_sql_bind_key(const mw_sql_conn_t *conn, sqlite3_stmt *statement,
                     const cachemw_key_t *key)
{
    sqlite3_bind_int64(statement, 1, key_hash(conn, key));
    sqlite3_bind_blob64(statement, 2, key->data, key->len, SQLITE_STATIC);
}

int mw_sql_column_id(sqlite3_stmt *statement, int column, cachemw_id_t *id)
{
    if (sqlite3_column_bytes(statement, column) != (int)sizeof(*id)) {
        return 0;
    }
    memcpy(id, sqlite3_column_blob(statement, column), sizeof(*id));
    return 1;
}

/* Why there is no statement. */
static int statement_error(mw_sql_conn_t *conn)
{
    int rc = sqlite3_extended_errcode(conn->db);

    return rc == SQLITE_OK || rc == SQLITE_ROW ? SQLITE_ERROR : rc;
}

int mw_sql_fetch(mw_sql_conn_t *conn, sqlite3_stmt *statement)
{
    int rc;

    if (!statement) {
        return statement_error(conn);
    }
    rc = sqlite3_step(statement);
    return rc == SQLITE_DONE ? SQLITE_NOTFOUND : rc;
}

int mw_sql_run(mw_sql_conn_t *conn, sqlite3_stmt *statement)
{
    int rc;

    if (!statement) {
        return statement_error(conn);
    }
    do {
        rc = sqlite3_step(statement);
    } while (rc == SQLITE_ROW);
    sqlite3_reset(statement);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int mw_sql_do(const mw_sql_t *store, mw_sql_conn_t *conn,
              mw_sql_statement_e which)
{
    return mw_sql_run(conn, mw_sql_statement(store, conn, which));
}

int mw_sql_number(mw_sql_conn_t *conn, sqlite3_stmt *statement,
                  apr_int64_t *value)
{
    int rc = mw_sql_fetch(conn, statement);

    if (rc == SQLITE_ROW && sqlite3_column_type(statement, 0) != SQLITE_NULL) {
        *value = sqlite3_column_int64(statement, 0);
    }
    sqlite3_reset(statement);
    return rc == SQLITE_ROW || rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}
