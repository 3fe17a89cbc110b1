/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_strings.h"

#include "dir.h"
#include "path.h"

/** Who had a directory, and who gets it. */
typedef struct change_t {
    uid_t from;
    uid_t to;
    gid_t group;
} change_t;

/**
 * Make what is missing above the last component, as one makes directories. The
 * one that the store is in is the user's: other stores may be put there, too.
 */
static apr_status_t parents_make(const char *path, const change_t *change,
                                 apr_pool_t *pool)
{
    const char *slash = path;

    while ((slash = strchr(slash + 1, '/'))) {
        const char *parent =
            apr_pstrmemdup(pool, path, (apr_size_t)(slash - path));
        int is_made = mkdir(parent, 0755) == 0;

        if (!is_made && errno != EEXIST) {
            return errno;
        }
        if (is_made && !strchr(slash + 1, '/') && change->to && geteuid() == 0
            && lchown(parent, change->to, change->group) != 0) {
            return errno;
        }
    }
    return APR_SUCCESS;
}

/** Give away a directory that is the earlier user's, and close it to others. */
static apr_status_t owner_change(int dir, const change_t *change)
{
    struct stat info;

    if (fstat(dir, &info) != 0) {
        return errno;
    }
    if (info.st_uid != change->from) {
        return APR_SUCCESS;
    }
    return fchown(dir, change->to, change->group) == 0 && fchmod(dir, 0700) == 0
               ? APR_SUCCESS
               : errno;
}

/** Give away the directories in a directory, down to `depth`. */
static apr_status_t tree_change(int dir, const change_t *change, int depth)
{
    int copy = openat(dir, ".", MW_PATH_DIR_FLAGS);
    DIR *list = copy >= 0 ? fdopendir(copy) : NULL;
    apr_status_t rv = APR_SUCCESS;
    struct dirent *item;

    if (!list) {
        rv = errno;
        if (copy >= 0) {
            close(copy);
        }
        return rv;
    }
    while (rv == APR_SUCCESS && (errno = 0, item = readdir(list))) {
        int fd;

        if (item->d_name[0] == '.' || strlen(item->d_name) == MW_PATH_DIGITS) {
            continue;
        }
        fd = openat(dir, item->d_name, MW_PATH_DIR_FLAGS);
        if (fd >= 0) {
            rv = depth > 0 ? tree_change(fd, change, depth - 1) : APR_SUCCESS;
            if (rv == APR_SUCCESS) {
                rv = owner_change(fd, change);
            }
            close(fd);
        }
        else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
            rv = errno;
        }
    }
    if (rv == APR_SUCCESS) {
        rv = errno; /* of the last readdir() */
    }
    closedir(list);
    return rv;
}

/**
 * Whether v1 may be had from its owner. In a stranger's directory it may be
 * anybody's that the stranger has put there, and not an earlier user's.
 */
static int owner_is_believed(const struct stat *top, const change_t *change)
{
    return top->st_uid == 0 || top->st_uid == change->from
           || top->st_uid == change->to;
}

/** As root: top is cache_dir, root is v1 in it. */
static apr_status_t owners_change(int top, int root, int is_top_made,
                                  int is_made, change_t *change)
{
    struct stat top_info, root_info;
    apr_status_t rv = APR_SUCCESS;

    if (fstat(top, &top_info) != 0 || fstat(root, &root_info) != 0) {
        return errno;
    }
    change->from = root_info.st_uid;
    if (change->from == change->to
        || (!is_made && !owner_is_believed(&top_info, change))) {
        return APR_SUCCESS;
    }
    if (is_top_made || (top_info.st_uid == change->from && change->from != 0)) {
        rv = fchown(top, change->to, change->group) == 0 ? APR_SUCCESS : errno;
    }
    /* Without the earlier user's mark the names of entries are others. */
    if (rv == APR_SUCCESS && unlinkat(root, MW_MARK_NAME, 0) != 0
        && errno != ENOENT) {
        rv = errno;
    }
    if (rv == APR_SUCCESS) {
        rv = tree_change(root, change, 2);
    }
    if (rv == APR_SUCCESS) {
        rv = owner_change(root, change);
    }
    return rv;
}

apr_status_t mw_dir_make(const mw_file_t *file, apr_uid_t uid, apr_gid_t gid,
                         int *is_made, apr_pool_t *pool)
{
    change_t change = { .to = uid, .group = gid };
    int is_top_made, root, top;
    apr_status_t rv = parents_make(file->path, &change, pool);

    *is_made = 0;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    is_top_made = mkdir(file->path, 0700) == 0;
    top = open(file->path, MW_PATH_DIR_FLAGS);
    if (top < 0) {
        return errno;
    }
    *is_made = mkdirat(top, MW_PATH_ROOT, 0700) == 0;
    /* What is missing in it the children make, as who they are. */
    root = openat(top, MW_PATH_ROOT, MW_PATH_DIR_FLAGS);
    if (root < 0) {
        rv = errno;
    }
    else if (uid && geteuid() == 0) {
        rv = owners_change(top, root, is_top_made, *is_made, &change);
    }
    close(top);
    if (root >= 0) {
        close(root);
    }
    return rv;
}
