/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file path.h
 * @brief Names of files below v1, and what is done to files by name. No link
 *        is ever followed.
 */
#ifndef MW_FILE_PATH_H
#define MW_FILE_PATH_H

#include <fcntl.h>

#include "index.h"

#define MW_PATH_ROOT "v1"
#define MW_PATH_TEMP "tmp"

/** For opening a directory that is no link. */
#define MW_PATH_DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/** Digits of an entry's name. */
#define MW_PATH_DIGITS 32

/** Levels of directories that there can be. */
#define MW_PATH_LEVELS_MAX 2

/** Where an entry lies, from v1 on. */
typedef struct mw_path_t {
    char text[8 + MW_PATH_DIGITS + 1]; /**< "ab/cd/abcd…" */
    int name;                          /**< where in it the name begins */
} mw_path_t;

/** @param levels up to MW_PATH_LEVELS_MAX */
void mw_path_make(mw_path_t *path, int levels, const mw_digest_t *digest);

/** The digest that a name of MW_PATH_DIGITS stands for. @return 0: none */
int mw_path_parse(const char *name, mw_digest_t *digest);

/** Whether it is the name of a directory of a level: two digits. */
int mw_path_is_part(const char *name);

/**
 * Open an entry. For reading the times in its inode stay as they are.
 * @param flags O_RDONLY or O_RDWR
 * @return -1 and errno. ELOOP: it, or a directory, is a link
 */
int mw_path_open(int root, const mw_path_t *path, int flags);

/** Open the directory with entries number `dir` of 256 ^ levels. @return -1 */
int mw_path_open_dir(int root, int levels, apr_uint32_t dir);

/**
 * Open the directory that an entry is in, before a lock is taken to work there.
 * @param make whether a missing one is made
 * @return to be closed by mw_path_leave(); -1 and errno: ENOENT, ENOTDIR or
 *         ELOOP: there is no entry
 */
int mw_path_enter(int root, const mw_path_t *path, int make);
void mw_path_leave(int root, int dir);

/**
 * Move a temporary file to its final place.
 * @param replace whether there is probably a file already
 */
apr_status_t mw_path_publish(int root, const char *temp, int dir,
                             const mw_path_t *path, int replace);

/**
 * Remove whatever has an entry's name, if that is no directory with something
 * in it.
 * @return APR_SUCCESS also when there is nothing
 */
apr_status_t mw_path_unlink(int root, const mw_path_t *path);
apr_status_t mw_path_unlink_at(int dir, const mw_path_t *path);

/** Make a temporary file for writing. @return -1 and errno */
int mw_path_temp(int root, const char *name);

apr_status_t mw_path_unlink_temp(int root, const char *name);

/** Open the directory of temporary files. @return -1 and errno */
int mw_path_open_temps(int root);

#endif
