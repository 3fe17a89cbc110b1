/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file dir.h
 * @brief The directory of a file store: making it, having it, and noticing that
 *        it has gone.
 */
#ifndef MW_FILE_DIR_H
#define MW_FILE_DIR_H

#include "view.h"

/** Before any time. */
#define MW_DIR_NEVER APR_INT64_C(-0x3fffffffffffffff)

/**
 * Parent, in post_config(), perhaps as root: make cache_dir and v1, and give
 * them to `uid` and `gid` (uid 0: leave them). Only what it makes, or what an
 * earlier user of httpd's had, changes its owner (v1 in the directory of neither
 * user nor of root is a stranger's); links are neither followed nor changed, and
 * no file is: the mark goes, so that none of an earlier user's entries is looked
 * for any more.
 * @param is_made set to non-zero when the directory is new, so without files
 * @return trouble
 */
apr_status_t mw_dir_make(const mw_file_t *file, apr_uid_t uid, apr_gid_t gid,
                         int *is_made, apr_pool_t *pool);

/** Each child, first. Trouble with the directory is logged, and no trouble. */
apr_status_t mw_dir_begin(mw_file_t *file);

/**
 * Make the directory ours: opened, locked, marked. Any thread; tried once a
 * second at most by each process.
 * @return otherwise why it cannot be used now, which is logged
 */
apr_status_t mw_dir_enter(mw_file_t *file, apr_time_t now);

/** Whether it is ours, and the one that the other processes have. */
static inline int mw_dir_is_had(mw_file_t *file)
{
    return MW_FILE_LOAD(&file->is_ready)
           && MW_FILE_LOAD(&file->place) == MW_FILE_LOAD(&file->shared->place);
}

static inline apr_status_t mw_dir_need(mw_file_t *file, apr_time_t now)
{
    return mw_dir_is_had(file) ? APR_SUCCESS : mw_dir_enter(file, now);
}

/**
 * Now and then, and when something was not found: look whether the whole
 * directory has gone or been replaced. If so, the next mw_dir_need() of each
 * process makes it anew.
 */
void mw_dir_doubt(mw_file_t *file);

/** Let go of it, when no thread uses it any more. */
void mw_dir_leave(mw_file_t *file);

/** The epoch for an entry that is complete now. */
apr_uint64_t mw_dir_stamp(mw_file_t *file);

/**
 * End the epoch, unless nothing was stored: have the system write back what it
 * holds, and note in the mark what is on the disk. Waits for the disk.
 */
apr_status_t mw_dir_sync(mw_file_t *file);

/** From now on no entry that was stored before is to be believed. Durable. */
apr_status_t mw_dir_clear(mw_file_t *file);

#endif
