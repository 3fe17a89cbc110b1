/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file version.h
 * @brief By what a database is known to be one of ours, also to who looks at
 *        the file without SQLite: both are in its header.
 */
#ifndef MW_SQLITE_VERSION_H
#define MW_SQLITE_VERSION_H

/** Bytes of SQLite's header. */
#define MW_SQL_HEADER 100

/** "cmw1", its application_id: tells our databases from others. */
#define MW_SQL_APPLICATION 0x636d7731
/** Where that is in the file: four bytes, the highest first. */
#define MW_SQL_APPLICATION_AT 68

/** Of its tables, its user_version. */
#define MW_SQL_VERSION 1
#define MW_SQL_VERSION_AT 60

/** Where SQLite counts the changes of tables: 0 before there are any. */
#define MW_SQL_TABLES_AT 40

#endif
