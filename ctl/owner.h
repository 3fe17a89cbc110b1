/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file owner.h
 * @brief Whose a store is, and becoming that user. What says so can have been
 *        put there by the web server's user, who must not decide as whom root
 *        runs.
 */
#ifndef MW_OWNER_H
#define MW_OWNER_H

#include <sys/stat.h>

#include "apr_pools.h"

/** Whom the stores belong to. Begins with all zero. */
typedef struct mw_owner_t {
    uid_t uid;
    const char *path; /**< of a store; NULL: none has one */
} mw_owner_t;

/**
 * Open what a path names, going down from the root. For root, a link is
 * followed only in a directory that nobody else can write to, and never as the
 * last component.
 * @param path absolute
 * @param flags O_PATH among them: only to look at what it is
 * @param is_roots set to whether nobody but root can have put it there
 * @return -1 and errno
 */
int mw_owner_open(const char *path, int flags, int *is_roots, apr_pool_t *pool);

/**
 * Note that a store is this, opened by mw_owner_open().
 * @return NULL, or why that cannot be, in pool
 */
const char *mw_owner_note(mw_owner_t *owner, const char *path, int fd,
                          int is_roots, apr_pool_t *pool);

/**
 * Note, for root, whose stores are that have no path here.
 * @param user NULL: one that web servers run as, the first that there is
 * @return NULL, or that there is none, in pool
 */
const char *mw_owner_elsewhere(mw_owner_t *owner, const char *user,
                               apr_pool_t *pool);

/** The group that a user has in the system's list. */
gid_t mw_owner_group(uid_t uid);

/** Whether root is to become somebody. */
int mw_owner_is_other(const mw_owner_t *owner);

/** Do it, for good. @return NULL, or why it cannot be, in pool */
const char *mw_owner_become(const mw_owner_t *owner, apr_pool_t *pool);

#endif
