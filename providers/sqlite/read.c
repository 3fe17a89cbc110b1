/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_strings.h"

#include "core/crc32c.h"

#include "pool.h"
#include "read.h"
#include "room.h"
#include "statements.h"

/* Columns of MW_SQL_GET and MW_SQL_GET_HEAD. */
enum { GET_ID, GET_EXPIRES, GET_BODY_LEN, GET_HEAD, GET_CRC, GET_BODY };
/* Columns of MW_SQL_READ. */
enum { READ_CRC, READ_DATA };

/** @return APR_EINCOMPLETE unless the bytes of a column are what was stored */
static apr_status_t column_check(sqlite3_stmt *statement, int crc, int data)
{
    apr_uint32_t wanted = (apr_uint32_t)sqlite3_column_int64(statement, crc);
    const void *bytes = sqlite3_column_blob(statement, data);
    apr_size_t length = (apr_size_t)sqlite3_column_bytes(statement, data);

    return mw_crc32c(0, bytes, length) == wanted ? APR_SUCCESS
                                                 : APR_EINCOMPLETE;
}

/* A part of a column becomes a bucket with bytes of its own. */
static apr_status_t column_append(sqlite3_stmt *statement, int column,
                                  apr_size_t from, apr_size_t length,
                                  apr_bucket_brigade *body)
{
    const char *bytes = sqlite3_column_blob(statement, column);
    apr_bucket *e;

    if (!length) {
        return APR_SUCCESS;
    }
    e = bytes ? apr_bucket_heap_create(bytes + from, length, NULL,
                                       body->bucket_alloc)
              : NULL;
    if (!e) {
        return APR_ENOMEM;
    }
    APR_BRIGADE_INSERT_TAIL(body, e);
    return APR_SUCCESS;
}

/* The body, or its first chunk. */
static apr_status_t get_body(sqlite3_stmt *statement,
                             const cachemw_entry_t *entry)
{
    apr_off_t first =
        entry->body_len < MW_SQL_CHUNK ? entry->body_len : MW_SQL_CHUNK;
    apr_status_t rv;

    if (sqlite3_column_type(statement, GET_BODY) != SQLITE_BLOB
        || sqlite3_column_bytes(statement, GET_BODY) != first) {
        return APR_EINCOMPLETE;
    }
    rv = column_check(statement, GET_CRC, GET_BODY);
    return rv == APR_SUCCESS ? column_append(statement, GET_BODY, 0,
                                             (apr_size_t)first, entry->body)
                             : rv;
}

static apr_status_t get_row(sqlite3_stmt *statement, const cachemw_call_t *call,
                            cachemw_entry_t *entry)
{
    const void *head;

    entry->expires = sqlite3_column_int64(statement, GET_EXPIRES);
    if (entry->expires <= call->now) {
        return APR_NOTFOUND;
    }
    entry->body_len = sqlite3_column_int64(statement, GET_BODY_LEN);
    entry->head_len = (apr_size_t)sqlite3_column_bytes(statement, GET_HEAD);
    if (!mw_sql_column_id(statement, GET_ID, &entry->id) || entry->body_len < 0
        || entry->head_len > CACHEMW_HEAD_MAX) {
        return APR_EINCOMPLETE;
    }
    head = sqlite3_column_blob(statement, GET_HEAD);
    entry->head = head ? apr_pmemdup(call->pool, head, entry->head_len) : "";
    return entry->body ? get_body(statement, entry) : APR_SUCCESS;
}

typedef struct get_t {
    const cachemw_key_t *key;
    cachemw_entry_t *entry;
    apr_status_t rv; /* what the row was worth */
} get_t;

static int get_work(mw_sql_t *store, mw_sql_conn_t *conn,
                    const cachemw_call_t *call, void *baton)
{
    get_t *get = baton;
    sqlite3_stmt *statement = mw_sql_statement(
        store, conn, get->entry->body ? MW_SQL_GET : MW_SQL_GET_HEAD);
    int rc;

    mw_sql_bind_key(conn, statement, get->key);
    rc = mw_sql_fetch(conn, statement);
    if (rc == SQLITE_ROW) {
        get->rv = get_row(statement, call, get->entry);
        rc = SQLITE_OK;
    }
    sqlite3_reset(statement);
    return rc;
}

apr_status_t mw_sql_get(void *self, const cachemw_call_t *call,
                        const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_sql_t *store = self;
    get_t get = { key, entry, APR_SUCCESS };
    apr_status_t rv = mw_sql_consult(store, call, mw_sql_patience(store, call),
                                     get_work, &get);

    return rv == APR_SUCCESS ? get.rv : rv;
}

static apr_status_t read_row(sqlite3_stmt *statement, apr_size_t from,
                             apr_size_t limit, apr_bucket_brigade *body)
{
    apr_size_t length = (apr_size_t)sqlite3_column_bytes(statement, READ_DATA);
    apr_status_t rv;

    if (length <= from || length > MW_SQL_CHUNK) {
        return APR_EINCOMPLETE;
    }
    rv = column_check(statement, READ_CRC, READ_DATA);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    length -= from;
    return column_append(statement, READ_DATA, from,
                         length < limit ? length : limit, body);
}

typedef struct read_t {
    const cachemw_id_t *id;
    apr_off_t offset;
    apr_size_t limit;
    apr_bucket_brigade *body;
    apr_status_t rv; /* what the row was worth */
} read_t;

static int read_work(mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, void *baton)
{
    read_t *read = baton;
    sqlite3_stmt *statement = mw_sql_statement(store, conn, MW_SQL_READ);
    int rc;

    (void)call;
    mw_sql_bind_id(statement, 1, read->id);
    sqlite3_bind_int64(statement, 2, read->offset / MW_SQL_CHUNK);
    rc = mw_sql_fetch(conn, statement);
    if (rc == SQLITE_ROW) {
        read->rv =
            read_row(statement, (apr_size_t)(read->offset % MW_SQL_CHUNK),
                     read->limit, read->body);
        rc = SQLITE_OK;
    }
    sqlite3_reset(statement);
    return rc;
}

apr_status_t mw_sql_read(void *self, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_id_t *id,
                         apr_off_t offset, apr_size_t limit,
                         apr_bucket_brigade *body)
{
    mw_sql_t *store = self;
    read_t read = { id, offset, limit, body, APR_SUCCESS };
    apr_status_t rv = mw_sql_consult(store, call, mw_sql_patience(store, call),
                                     read_work, &read);

    (void)key; /* an id is one entry's for ever */
    return rv == APR_SUCCESS ? read.rv : rv;
}

static int exists_work(mw_sql_t *store, mw_sql_conn_t *conn,
                       const cachemw_call_t *call, void *baton)
{
    mw_sql_row_t row;
    int rc = mw_sql_find(store, conn, baton, &row);

    return rc == SQLITE_OK && row.expires <= call->now ? SQLITE_NOTFOUND : rc;
}

apr_status_t mw_sql_exists(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key)
{
    mw_sql_t *store = self;
    cachemw_key_t wanted = *key;

    return mw_sql_consult(store, call, mw_sql_patience(store, call),
                          exists_work, &wanted);
}
