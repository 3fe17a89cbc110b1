/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>

#include "apr_strings.h"

#include "core/crc32c.h"

#include "room.h"
#include "set.h"
#include "statements.h"
#include "transact.h"

#define SET_BUFFER_MIN 8192
#define SET_BUFFER_MAX ((apr_size_t)MW_SQL_COLLECT * MW_SQL_CHUNK)

/* Every so many stores one also drops some of what has expired. */
#define SET_EXPIRES 64

/* Entries that a step of clear drops. */
#define CLEAR_STEP 256

typedef struct set_t {
    apr_pool_t *pool;
    apr_time_t begun;
    cachemw_key_t key;
    cachemw_entry_t entry; /* body_len: as announced */
    char *buffer;          /* collected and not yet written */
    apr_size_t capacity, length;
    apr_off_t written; /* in chunks of the database */
} set_t;

apr_off_t mw_sql_set_limit(const mw_sql_t *store)
{
    return store->max_bytes / 4;
}

apr_status_t mw_sql_set_begin(void *self, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry, void **result)
{
    const mw_sql_t *store = self;
    apr_off_t limit = mw_sql_set_limit(store);
    set_t *set;

    if (entry->body_len > limit
        || (apr_off_t)(key->len + entry->head_len) > limit) {
        return APR_ENOSPC;
    }
    set = apr_pcalloc(call->pool, sizeof(*set));
    set->pool = call->pool;
    set->begun = call->now;
    set->entry = *entry;
    set->entry.head = apr_pmemdup(call->pool, entry->head, entry->head_len);
    set->key.data = apr_pmemdup(call->pool, key->data, key->len);
    set->key.len = key->len;
    *result = set;
    return APR_SUCCESS;
}

/* --- chunks --------------------------------------------------------------- */

/* A row of bodies for a set that begins, or a note that it goes on. */
static int body_note(const mw_sql_t *store, mw_sql_conn_t *conn,
                     const cachemw_call_t *call, const set_t *set)
{
    sqlite3_stmt *statement = mw_sql_statement(
        store, conn, set->written ? MW_SQL_BODY_GROW : MW_SQL_BODY_BEGIN);
    int rc;

    mw_sql_bind_id(statement, 1, &set->entry.id);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)set->length);
    sqlite3_bind_int64(statement, 3, call->now + MW_SQL_UNFINISHED);
    rc = mw_sql_run(conn, statement);
    if (rc == SQLITE_OK && sqlite3_changes(conn->db) != 1) {
        /* dropped to make room, or because nothing came for so long */
        rc = SQLITE_TOOBIG;
    }
    return rc;
}

static int chunk_insert(const mw_sql_t *store, mw_sql_conn_t *conn,
                        const set_t *set, apr_size_t at)
{
    sqlite3_stmt *statement =
        mw_sql_statement(store, conn, MW_SQL_CHUNK_INSERT);
    apr_size_t length = set->length - at;

    if (length > MW_SQL_CHUNK) {
        length = MW_SQL_CHUNK;
    }
    mw_sql_bind_id(statement, 1, &set->entry.id);
    sqlite3_bind_int64(statement, 2,
                       (set->written + (apr_off_t)at) / MW_SQL_CHUNK);
    sqlite3_bind_int64(statement, 3, mw_crc32c(0, set->buffer + at, length));
    sqlite3_bind_blob64(statement, 4, set->buffer + at, length, SQLITE_STATIC);
    return mw_sql_run(conn, statement);
}

/* What has been collected. */
static int chunks_insert(const mw_sql_t *store, mw_sql_conn_t *conn,
                         const cachemw_call_t *call, const set_t *set)
{
    apr_size_t at;
    int rc = body_note(store, conn, call, set);

    for (at = 0; rc == SQLITE_OK && at < set->length; at += MW_SQL_CHUNK) {
        rc = chunk_insert(store, conn, set, at);
    }
    return rc;
}

static int chunks_work(mw_sql_t *store, mw_sql_conn_t *conn,
                       const cachemw_call_t *call, void *baton)
{
    const set_t *set = baton;
    int rc = mw_sql_room_make(store, conn, call, (apr_int64_t)set->length, 0);

    return rc == SQLITE_OK ? chunks_insert(store, conn, call, set) : rc;
}

static apr_status_t chunks_write(mw_sql_t *store, const cachemw_call_t *call,
                                 set_t *set)
{
    apr_status_t rv = mw_sql_transact(store, call, mw_sql_patience(store, call),
                                      chunks_work, set);

    if (rv == APR_SUCCESS) {
        set->written += (apr_off_t)set->length;
        set->length = 0;
    }
    return rv;
}

/* --- collecting ----------------------------------------------------------- */

static apr_status_t buffer_grow(set_t *set, apr_size_t length)
{
    apr_size_t wanted = set->capacity ? set->capacity : SET_BUFFER_MIN;
    char *buffer;

    if (!set->capacity && set->entry.body_len > 0) {
        wanted = set->entry.body_len < (apr_off_t)SET_BUFFER_MAX
                     ? (apr_size_t)set->entry.body_len
                     : SET_BUFFER_MAX;
    }
    while (wanted < set->length + length && wanted < SET_BUFFER_MAX) {
        wanted *= 2;
    }
    if (wanted > SET_BUFFER_MAX) {
        wanted = SET_BUFFER_MAX;
    }
    if (wanted > set->capacity) {
        buffer = realloc(set->buffer, wanted);
        if (!buffer) {
            return APR_ENOMEM;
        }
        set->buffer = buffer;
        set->capacity = wanted;
    }
    return APR_SUCCESS;
}

apr_status_t mw_sql_set_write(void *self, const cachemw_call_t *call,
                              void *handle, const char *data, apr_size_t length)
{
    mw_sql_t *store = self;
    set_t *set = handle;
    apr_off_t room =
        mw_sql_set_limit(store) - set->written - (apr_off_t)set->length;
    apr_status_t rv = APR_SUCCESS;
    apr_size_t n;

    if ((apr_uint64_t)length > (apr_uint64_t)room) {
        return APR_ENOSPC;
    }
    while (length) {
        /* not before there is more: the last piece goes with the entry */
        if (set->length == SET_BUFFER_MAX) {
            rv = chunks_write(store, call, set);
        }
        if (rv == APR_SUCCESS) {
            rv = buffer_grow(set, length);
        }
        if (rv != APR_SUCCESS) {
            return rv;
        }
        n = set->capacity - set->length;
        n = n < length ? n : length;
        memcpy(set->buffer + set->length, data, n);
        set->length += n;
        data += n;
        length -= n;
    }
    return APR_SUCCESS;
}

/* --- publishing ----------------------------------------------------------- */

static apr_off_t set_body_len(const set_t *set)
{
    return set->written + (apr_off_t)set->length;
}

/* The chunks are the entry's from here on. */
static int body_own(const mw_sql_t *store, mw_sql_conn_t *conn,
                    const cachemw_call_t *call, const set_t *set)
{
    sqlite3_stmt *statement;
    int rc = SQLITE_OK;

    if (set->length) {
        rc = chunks_insert(store, conn, call, set);
    }
    if (rc == SQLITE_OK) {
        statement = mw_sql_statement(store, conn, MW_SQL_BODY_OWN);
        mw_sql_bind_id(statement, 1, &set->entry.id);
        rc = mw_sql_run(conn, statement);
    }
    if (rc == SQLITE_OK && sqlite3_changes(conn->db) != 1) {
        rc = SQLITE_TOOBIG;
    }
    return rc;
}

static int entry_insert(const mw_sql_t *store, mw_sql_conn_t *conn,
                        const cachemw_call_t *call, const set_t *set)
{
    sqlite3_stmt *s = mw_sql_statement(store, conn, MW_SQL_INSERT);
    apr_off_t body_len = set_body_len(set);
    int is_inline = body_len <= MW_SQL_CHUNK;

    mw_sql_bind_key(conn, s, &set->key);
    mw_sql_bind_id(s, 3, &set->entry.id);
    sqlite3_bind_int64(s, 4, set->entry.expires);
    sqlite3_bind_blob64(s, 5, set->entry.head ? set->entry.head : "",
                        set->entry.head_len, SQLITE_STATIC);
    sqlite3_bind_int64(s, 6, call->now);
    sqlite3_bind_int64(
        s, 7, (sqlite3_int64)(set->key.len + set->entry.head_len) + body_len);
    sqlite3_bind_int64(s, 8, body_len);
    if (is_inline) {
        sqlite3_bind_int64(s, 9, mw_crc32c(0, set->buffer, set->length));
        sqlite3_bind_blob64(s, 10, set->length ? set->buffer : "", set->length,
                            SQLITE_STATIC);
    }
    else {
        sqlite3_bind_null(s, 9);
        sqlite3_bind_null(s, 10);
    }
    return mw_sql_run(conn, s);
}

static int replaced_drop(const mw_sql_t *store, mw_sql_conn_t *conn,
                         const cachemw_call_t *call, const cachemw_key_t *key)
{
    mw_sql_row_t row;
    int rc = mw_sql_find(store, conn, key, &row);

    if (rc == SQLITE_OK || (rc == SQLITE_NOTFOUND && row.is_other)) {
        return mw_sql_drop(store, conn, call, &row);
    }
    return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

/* Writers are few enough in a child for a number without order. */
static int expired_drop(mw_sql_t *store, mw_sql_conn_t *conn,
                        const cachemw_call_t *call)
{
    int dropped = 0;
    int rc = SQLITE_OK;

    if (++store->pool.stores % SET_EXPIRES == 0) {
        rc = mw_sql_drop_found(store, conn, call, MW_SQL_EXPIRED, call->now,
                               2 * SET_EXPIRES, &dropped);
        conn->expired += (apr_uint64_t)dropped;
        if (rc == SQLITE_OK) {
            rc = mw_sql_drop_loose(store, conn, call->now, SET_EXPIRES,
                                   &dropped);
        }
    }
    return rc;
}

static int publish_work(mw_sql_t *store, mw_sql_conn_t *conn,
                        const cachemw_call_t *call, void *baton)
{
    const set_t *set = baton;
    int rc = replaced_drop(store, conn, call, &set->key);

    if (rc == SQLITE_OK) {
        rc = expired_drop(store, conn, call);
    }
    if (rc == SQLITE_OK) {
        rc = mw_sql_room_make(
            store, conn, call,
            (apr_int64_t)(set->key.len + set->entry.head_len + set->length), 1);
    }
    if (rc == SQLITE_OK && set_body_len(set) > MW_SQL_CHUNK) {
        rc = body_own(store, conn, call, set);
    }
    return rc == SQLITE_OK ? entry_insert(store, conn, call, set) : rc;
}

static int abort_work(mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, void *baton)
{
    const set_t *set = baton;

    (void)call;
    return mw_sql_drop_body(store, conn, &set->entry.id);
}

/* Nobody is waited for: what cannot be dropped now, a sweep drops. The disk is
 * waited for if each commit waits for it. */
void mw_sql_set_abort(void *self, void *handle)
{
    mw_sql_t *store = self;
    set_t *set = handle;
    const cachemw_call_t call = { .pool = set->pool, .now = set->begun };

    free(set->buffer);
    set->buffer = NULL;
    if (set->written) {
        mw_sql_transact(store, &call, 0, abort_work, set);
    }
}

apr_status_t mw_sql_set_commit(void *self, const cachemw_call_t *call,
                               void *handle)
{
    mw_sql_t *store = self;
    set_t *set = handle;
    apr_status_t rv = APR_EINVAL;

    if (set->entry.body_len < 0 || set->entry.body_len == set_body_len(set)) {
        rv = mw_sql_transact(store, call, mw_sql_patience(store, call),
                             publish_work, set);
    }
    if (rv != APR_SUCCESS) {
        mw_sql_set_abort(store, set);
        return rv;
    }
    free(set->buffer);
    return APR_SUCCESS;
}

/* --- amending and removing ------------------------------------------------ */

typedef struct amend_t {
    const cachemw_key_t *key;
    const cachemw_id_t *id;
    const cachemw_entry_t *entry;
} amend_t;

static int amend_work(mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, void *baton)
{
    const amend_t *amend = baton;
    const cachemw_entry_t *entry = amend->entry;
    sqlite3_stmt *statement;
    mw_sql_row_t row;
    int rc =
        mw_sql_room_make(store, conn, call, (apr_int64_t)entry->head_len, 0);

    if (rc == SQLITE_OK) {
        rc = mw_sql_find(store, conn, amend->key, &row);
    }
    if (rc == SQLITE_OK
        && (row.expires <= call->now
            || memcmp(&row.id, amend->id, sizeof(row.id)) != 0)) {
        rc = SQLITE_NOTFOUND;
    }
    if (rc != SQLITE_OK) {
        return rc;
    }
    statement = mw_sql_statement(store, conn, MW_SQL_AMEND);
    sqlite3_bind_int64(statement, 1, row.number);
    sqlite3_bind_blob64(statement, 2, entry->head ? entry->head : "",
                        entry->head_len, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, entry->expires);
    return mw_sql_run(conn, statement);
}

apr_status_t mw_sql_set_head(void *self, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry)
{
    mw_sql_t *store = self;
    amend_t amend = { key, id, entry };

    return mw_sql_transact(store, call, mw_sql_patience(store, call),
                           amend_work, &amend);
}

typedef struct remove_t {
    const cachemw_key_t *key;
    const cachemw_id_t *id; /* NULL: any */
    int is_another;
} remove_t;

static int remove_work(mw_sql_t *store, mw_sql_conn_t *conn,
                       const cachemw_call_t *call, void *baton)
{
    remove_t *it = baton;
    mw_sql_row_t row;
    int rc = mw_sql_find(store, conn, it->key, &row);

    if (rc != SQLITE_OK) {
        return rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
    }
    it->is_another = it->id && row.expires > call->now
                     && memcmp(&row.id, it->id, sizeof(row.id)) != 0;
    return it->is_another ? SQLITE_OK : mw_sql_drop(store, conn, call, &row);
}

apr_status_t mw_sql_remove(void *self, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id)
{
    mw_sql_t *store = self;
    remove_t it = { key, id, 0 };
    apr_status_t rv = mw_sql_transact(
        store, call, mw_sql_patience_to_remove(store, call), remove_work, &it);

    return rv == APR_SUCCESS && it.is_another ? APR_NOTFOUND : rv;
}

typedef struct clear_t {
    apr_int64_t last; /* the newest entry there was; 0: not yet known */
    int dropped;
} clear_t;

static int clear_work(mw_sql_t *store, mw_sql_conn_t *conn,
                      const cachemw_call_t *call, void *baton)
{
    clear_t *clear = baton;
    int rc = SQLITE_OK;

    if (!clear->last) {
        rc = mw_sql_number(conn, mw_sql_statement(store, conn, MW_SQL_LAST),
                           &clear->last);
    }
    clear->dropped = 0;
    return rc == SQLITE_OK && clear->last
               ? mw_sql_drop_found(store, conn, call, MW_SQL_UP_TO, clear->last,
                                   CLEAR_STEP, &clear->dropped)
               : rc;
}

/* In steps, so that others can store meanwhile. */
apr_status_t mw_sql_clear(void *self, const cachemw_call_t *call)
{
    mw_sql_t *store = self;
    clear_t clear = { 0, 0 };
    apr_status_t rv;

    do {
        rv =
            mw_sql_transact(store, call, mw_sql_patience_to_remove(store, call),
                            clear_work, &clear);
    } while (rv == APR_SUCCESS && clear.dropped == CLEAR_STEP);
    return rv;
}
