/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file schema.h
 * @brief Opening the database: create it, know it again, refuse it.
 */
#ifndef MW_SQLITE_SCHEMA_H
#define MW_SQLITE_SCHEMA_H

#include "sqlite.h"

/**
 * Open the database, and make it where there is none.
 * @param conn until, all else zero; db is to be closed in any case, damage and
 *        file are set when the file is to be set aside
 */
apr_status_t mw_sql_schema_open(const mw_sql_t *store, mw_sql_conn_t *conn);

#endif
