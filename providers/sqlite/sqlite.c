/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <time.h>

#include "sqlite.h"

apr_int64_t mw_sql_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (apr_int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static apr_status_t status_of_system(mw_sql_conn_t *conn, apr_status_t other)
{
    int error = conn->db ? sqlite3_system_errno(conn->db) : 0;

    return error ? error : other;
}

apr_status_t mw_sql_status(mw_sql_conn_t *conn, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
        return APR_SUCCESS;
    case SQLITE_NOTFOUND:
        return APR_NOTFOUND;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return APR_TIMEUP;
    case SQLITE_FULL:
    case SQLITE_TOOBIG:
        return APR_ENOSPC;
    }
    conn->is_bad = 1;
    switch (rc & 0xff) {
    case SQLITE_CORRUPT:
        conn->damage = "the database is damaged";
        return APR_EGENERAL;
    case SQLITE_NOTADB:
        conn->damage = "it is not a database";
        return APR_EGENERAL;
    case SQLITE_NOMEM:
        return APR_ENOMEM;
    case SQLITE_READONLY:
        return status_of_system(conn, EROFS);
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        return status_of_system(conn, APR_EACCES);
    case SQLITE_IOERR:
        return status_of_system(conn, EIO);
    default:
        return APR_EGENERAL;
    }
}
