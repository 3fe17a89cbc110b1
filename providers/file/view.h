/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file view.h
 * @brief A process's view of a file store, and what its processes share.
 *
 *      cache_dir/v1/xx/<32 hex digits>   an entry (format.h); xx are the first
 *                                        two digits, once for each level
 *      cache_dir/v1/tmp/<name>           an entry that is being written
 *      cache_dir/v1/mark                 see mark.h
 *
 * Directories are made when they are missed. Every process of a server holds a
 * shared lock (flock) on v1 through the descriptor that it reaches all of it
 * by; the mark says whose server that is. A server that finds another one's
 * mark gets the directory when nobody holds the lock any more. So there is
 * never more than one index for the files; and nothing has to be undone when
 * processes are killed.
 */
#ifndef MW_FILE_VIEW_H
#define MW_FILE_VIEW_H

#include <pthread.h>

#include "index.h"
#include "mark.h"
#include "mod_cachemw.h"
#include "providers/common/lock.h"

#define MW_FILE_LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define MW_FILE_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/**
 * In the segment. `mark` is changed under `marking`, save for its epochs, which
 * are atomic; and as a whole under the exclusive lock on the directory, too.
 */
typedef struct mw_file_shared_t {
    pthread_mutex_t marking; /**< robust; who writes the mark */
    apr_uint32_t
        is_loaded; /**< atomic: the mark is set, and ours on the disk */
    unsigned char owner[16];
    mw_mark_t mark;
    apr_uint64_t stamped; /**< atomic: latest epoch that an entry has */
    apr_uint32_t place; /**< atomic: changes when all are to look for it anew */
} mw_file_shared_t;

typedef struct mw_file_t {
    const cachemw_services_t *services;
    mw_index_t *index;
    const char *path;      /**< cache_dir */
    const char *root_path; /**< cache_dir/v1 */
    int levels;
    apr_uint64_t max_bytes;
    apr_interval_time_t max_age; /**< 0: none */
    mw_file_shared_t *shared;    /**< NULL before post_config */
    /** @name Of this process @{ */
    int root;             /**< of v1; -1: never had. Stays the same number */
    int is_ready;         /**< atomic: root is locked and the mark is ours */
    apr_uint32_t place;   /**< atomic: which of the places root is */
    apr_int64_t tried;    /**< atomic: when it was last tried to make it so */
    apr_status_t trouble; /**< atomic: why that failed */
    pthread_mutex_t entering;
    unsigned char stuck; /**< see mw_lock(), of `marking` */
    /** @} */
} mw_file_t;

#endif
