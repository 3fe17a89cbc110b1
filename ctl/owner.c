/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "apr_strings.h"

#include "owner.h"

/* The group of nobody's files. */
#define GROUP_NONE 65534

/* Whether nobody but root can put something here; or, in a directory like
 * /tmp, in the place of what is root's. */
static int directory_is_roots(int dir, int may_be_sticky)
{
    struct stat info;

    return fstat(dir, &info) == 0 && info.st_uid == 0
           && (!(info.st_mode & (S_IWGRP | S_IWOTH))
               || (may_be_sticky && (info.st_mode & S_ISVTX)));
}

static int name_is_link(int dir, const char *name)
{
    struct stat info;

    return fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) == 0
           && S_ISLNK(info.st_mode);
}

int mw_owner_open(const char *path, int flags, int *is_roots, apr_pool_t *pool)
{
    char *state, *name = apr_strtok(apr_pstrdup(pool, path), "/", &state);
    int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    *is_roots = 1;
    while (dir >= 0 && name) {
        char *next = apr_strtok(NULL, "/", &state);
        int how = next ? O_PATH | O_DIRECTORY : flags;
        int error, fd;

        if (geteuid() == 0 && (!next || !directory_is_roots(dir, 0))) {
            how |= O_NOFOLLOW;
        }
        if (!directory_is_roots(dir, next != NULL) || name_is_link(dir, name)) {
            *is_roots = 0;
        }
        fd = openat(dir, name, how | O_CLOEXEC);
        error = errno;
        close(dir);
        errno = error;
        dir = fd;
        name = next;
    }
    return dir;
}

const char *mw_owner_note(mw_owner_t *owner, const char *path, int fd,
                          int is_roots, apr_pool_t *pool)
{
    struct stat info;

    if (fstat(fd, &info) != 0) {
        return apr_pstrcat(pool, path, ": ", strerror(errno), NULL);
    }
    if (S_ISLNK(info.st_mode)
        || (S_ISREG(info.st_mode) && geteuid() == 0 && info.st_nlink != 1)) {
        return apr_pstrcat(
            pool, path, " is a link: whose the store is cannot be told", NULL);
    }
    if (geteuid() == 0 && info.st_uid == 0
        && (!is_roots || (info.st_mode & (S_IWGRP | S_IWOTH)))) {
        return apr_pstrcat(pool, path,
                           " belongs to root, in a place where others can "
                           "write: run this as the user whom httpd's children "
                           "run as",
                           NULL);
    }
    if (owner->path && owner->uid != info.st_uid) {
        return apr_psprintf(pool,
                            "%s and %s belong to different users: look at one "
                            "store after the other",
                            owner->path, path);
    }
    owner->uid = info.st_uid;
    owner->path = path;
    return NULL;
}

const char *mw_owner_elsewhere(mw_owner_t *owner, const char *user,
                               apr_pool_t *pool)
{
    static const char *const web[] = { "www-data", "apache", "nobody" };
    const struct passwd *found = user ? getpwnam(user) : NULL;
    apr_size_t i;

    if (geteuid() != 0) {
        return NULL;
    }
    for (i = 0; !user && !found && i < sizeof(web) / sizeof(*web); i++) {
        found = getpwnam(web[i]);
    }
    if (!found) {
        return apr_psprintf(pool, "--user: there is no user %s",
                            user ? user : "that web servers run as");
    }
    owner->uid = found->pw_uid;
    owner->path = "a store elsewhere";
    return NULL;
}

gid_t mw_owner_group(uid_t uid)
{
    const struct passwd *user = getpwuid(uid);

    return user ? user->pw_gid : GROUP_NONE;
}

int mw_owner_is_other(const mw_owner_t *owner)
{
    return geteuid() == 0 && owner->path && owner->uid != 0;
}

/* The groups that httpd's children have. */
static int groups_set(uid_t uid)
{
    const struct passwd *user = getpwuid(uid);
    const gid_t group = mw_owner_group(uid);

    return (user ? initgroups(user->pw_name, group) : setgroups(1, &group)) == 0
           && setgid(group) == 0;
}

const char *mw_owner_become(const mw_owner_t *owner, apr_pool_t *pool)
{
    if (!mw_owner_is_other(owner)) {
        return NULL;
    }
    if (!groups_set(owner->uid) || setuid(owner->uid) != 0) {
        return apr_psprintf(pool, "cannot become the user of %s: %s",
                            owner->path, strerror(errno));
    }
    return NULL;
}
