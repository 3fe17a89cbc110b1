/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file write.h
 * @brief Writing entries: the streaming slots of the file store, and what
 *        amending has in common with them.
 *
 * What is small is gathered in memory and written at once by set_commit. The
 * superblock comes last, so that a temporary file is no entry yet; then the
 * file is renamed to where it is found. Nothing waits for the disk.
 */
#ifndef MW_FILE_WRITE_H
#define MW_FILE_WRITE_H

#include "view.h"

apr_status_t mw_file_set_begin(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry, void **set);
apr_status_t mw_file_set_write(void *store, const cachemw_call_t *call,
                               void *set, const char *data, apr_size_t length);
apr_status_t mw_file_set_commit(void *store, const cachemw_call_t *call,
                                void *set);
void mw_file_set_abort(void *store, void *set);

/** The largest body that can ever be stored. */
apr_off_t mw_file_object_limit(void *store);

/** Write all of it. */
apr_status_t mw_write_at(int fd, const void *data, apr_size_t length,
                         apr_uint64_t at);

/** When an entry goes: at its expires, or when it is too old. */
apr_time_t mw_write_expires(const mw_file_t *file, apr_time_t stored,
                            apr_time_t expires);

/** Tell in the inode what a scan wants to know: when the entry expires. */
apr_status_t mw_write_times(int fd, apr_time_t stored, apr_time_t expires);

/**
 * What a slot returns for what happened while writing. When something was not
 * there, the directory is looked after.
 */
apr_status_t mw_write_status(mw_file_t *file, apr_status_t rv);

#endif
