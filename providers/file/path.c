/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef SYS_openat2
#include <linux/openat2.h>
#endif

#include "path.h"

#define TEMP_SIZE (sizeof(MW_PATH_TEMP) + MW_INDEX_TEMP_NAME)

static const char hex[] = "0123456789abcdef";

/** The digits of a byte. @return behind them */
static char *hex_put(char *to, unsigned char byte)
{
    *to++ = hex[byte >> 4];
    *to++ = hex[byte & 15];
    return to;
}

void mw_path_make(mw_path_t *path, int levels, const mw_digest_t *digest)
{
    char *to = path->text;
    int i;

    for (i = 0; i < levels && i < MW_PATH_LEVELS_MAX; i++) {
        to = hex_put(to, digest->bytes[i]);
        *to++ = '/';
    }
    path->name = (int)(to - path->text);
    for (i = 0; i < (int)sizeof(digest->bytes); i++) {
        to = hex_put(to, digest->bytes[i]);
    }
    *to = '\0';
}

int mw_path_parse(const char *name, mw_digest_t *digest)
{
    int i;

    if (strlen(name) != MW_PATH_DIGITS || strspn(name, hex) != MW_PATH_DIGITS) {
        return 0;
    }
    for (i = 0; i < MW_PATH_DIGITS; i += 2) {
        digest->bytes[i / 2] =
            (unsigned char)((strchr(hex, name[i]) - hex) << 4
                            | (strchr(hex, name[i + 1]) - hex));
    }
    return 1;
}

int mw_path_is_part(const char *name)
{
    return strlen(name) == 2 && strspn(name, hex) == 2;
}

/** Component by component, for kernels that cannot do better. */
static int beneath_walk(int root, const char *path, int flags)
{
    const char *slash = strchr(path, '/');
    int at, fd, error;
    char part[8];

    if (!slash) {
        return openat(root, path, flags | O_NOFOLLOW, 0600);
    }
    snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
    at = openat(root, part, MW_PATH_DIR_FLAGS);
    if (at < 0) {
        return -1;
    }
    fd = beneath_walk(at, slash + 1, flags);
    error = errno;
    close(at);
    errno = error;
    return fd;
}

/** Open without following a link anywhere in the path. */
static int beneath_open(int root, const char *path, int flags)
{
#ifdef SYS_openat2
    struct open_how how;
    long fd;

    memset(&how, 0, sizeof(how));
    how.flags = (unsigned int)(flags | O_CLOEXEC);
    how.mode = flags & O_CREAT ? 0600 : 0;
    how.resolve = RESOLVE_NO_SYMLINKS;
    fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    /* Old kernels do not know it, and some system-call filters refuse it. */
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) {
        return (int)fd;
    }
#endif
    return beneath_walk(root, path, flags | O_CLOEXEC);
}

int mw_path_open(int root, const mw_path_t *path, int flags)
{
    int fd;

    /* Nobody may make an open wait by putting a pipe there. */
    flags |= O_NONBLOCK;
    if ((flags & O_ACCMODE) != O_RDONLY) {
        return beneath_open(root, path->text, flags);
    }
    fd = beneath_open(root, path->text, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM) {
        fd = beneath_open(root, path->text, flags);
    }
    return fd;
}

int mw_path_open_dir(int root, int levels, apr_uint32_t dir)
{
    char text[8];

    if (levels == 0) {
        return openat(root, ".", MW_PATH_DIR_FLAGS);
    }
    if (levels == 1) {
        snprintf(text, sizeof(text), "%02x", dir & 0xff);
    }
    else {
        snprintf(text, sizeof(text), "%02x/%02x", dir >> 8 & 0xff, dir & 0xff);
    }
    return beneath_open(root, text, O_RDONLY | O_DIRECTORY);
}

/** Make a directory; what is there and is none has no business there. */
static apr_status_t dir_make(int at, const char *name)
{
    struct stat info;

    if (mkdirat(at, name, 0700) == 0) {
        return APR_SUCCESS;
    }
    if (errno != EEXIST) {
        return errno;
    }
    if (fstatat(at, name, &info, AT_SYMLINK_NOFOLLOW) == 0
        && !S_ISDIR(info.st_mode)) {
        unlinkat(at, name, 0);
        if (mkdirat(at, name, 0700) != 0 && errno != EEXIST) {
            return errno;
        }
    }
    return APR_SUCCESS;
}

void mw_path_leave(int root, int dir)
{
    if (dir != root) {
        close(dir);
    }
}

static apr_status_t entry_dir_make(int root, const mw_path_t *path)
{
    apr_status_t rv = APR_SUCCESS;
    int at = root, from, next;
    char part[4];

    for (from = 0; from < path->name && rv == APR_SUCCESS; from += 3) {
        snprintf(part, sizeof(part), "%.2s", path->text + from);
        rv = dir_make(at, part);
        next = rv == APR_SUCCESS ? openat(at, part, MW_PATH_DIR_FLAGS) : -1;
        if (rv == APR_SUCCESS && next < 0) {
            rv = errno;
        }
        mw_path_leave(root, at);
        at = next;
    }
    if (at >= 0) {
        mw_path_leave(root, at);
    }
    return rv;
}

int mw_path_enter(int root, const mw_path_t *path, int make)
{
    char text[8];
    int dir;

    if (!path->name) {
        return root;
    }
    snprintf(text, sizeof(text), "%.*s", path->name - 1, path->text);
    dir = beneath_open(root, text, O_RDONLY | O_DIRECTORY);
    if (dir < 0 && make
        && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) {
        errno = entry_dir_make(root, path);
        if (errno == APR_SUCCESS) {
            dir = beneath_open(root, text, O_RDONLY | O_DIRECTORY);
        }
    }
    return dir;
}

/** Where a temporary file is, from v1 on. */
static void temp_path(char path[TEMP_SIZE], const char *name)
{
    snprintf(path, TEMP_SIZE, "%s/%s", MW_PATH_TEMP, name);
}

/**
 * Of a rename over a file ext4 has the new one written to the disk at once,
 * which may wait. So the two change places where that can be had.
 */
static apr_status_t entry_replace(int root, const char *from, int dir,
                                  const char *to)
{
#ifdef RENAME_EXCHANGE
    if (renameat2(root, from, dir, to, RENAME_EXCHANGE) == 0) {
        return unlinkat(root, from, 0) == 0 ? APR_SUCCESS : errno;
    }
#endif
    return renameat(root, from, dir, to) == 0 ? APR_SUCCESS : errno;
}

apr_status_t mw_path_publish(int root, const char *temp, int dir,
                             const mw_path_t *path, int replace)
{
    char from[TEMP_SIZE];
    const char *to = path->text + path->name;

    temp_path(from, temp);
    if (replace) {
        return entry_replace(root, from, dir, to);
    }
    if (renameat(root, from, dir, to) == 0) {
        return APR_SUCCESS;
    }
    if (errno != EISDIR || unlinkat(dir, to, AT_REMOVEDIR) != 0) {
        return errno;
    }
    return renameat(root, from, dir, to) == 0 ? APR_SUCCESS : errno;
}

apr_status_t mw_path_unlink_at(int dir, const mw_path_t *path)
{
    const char *name = path->text + path->name;

    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT) {
        return APR_SUCCESS;
    }
    if (errno != EISDIR) {
        return errno;
    }
    return unlinkat(dir, name, AT_REMOVEDIR) == 0 ? APR_SUCCESS : errno;
}

apr_status_t mw_path_unlink(int root, const mw_path_t *path)
{
    int dir = mw_path_enter(root, path, 0);
    apr_status_t rv;

    if (dir < 0) {
        /* Behind a link there is nothing of ours. */
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
                   ? APR_SUCCESS
                   : errno;
    }
    rv = mw_path_unlink_at(dir, path);
    mw_path_leave(root, dir);
    return rv;
}

int mw_path_temp(int root, const char *name)
{
    char path[TEMP_SIZE];
    const int flags = O_WRONLY | O_CREAT | O_EXCL;
    int fd;

    temp_path(path, name);
    fd = beneath_open(root, path, flags);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)
        && dir_make(root, MW_PATH_TEMP) == APR_SUCCESS) {
        fd = beneath_open(root, path, flags);
    }
    return fd;
}

apr_status_t mw_path_unlink_temp(int root, const char *name)
{
    char path[TEMP_SIZE];

    temp_path(path, name);
    return unlinkat(root, path, 0) == 0 || errno == ENOENT ? APR_SUCCESS
                                                           : errno;
}

int mw_path_open_temps(int root)
{
    return openat(root, MW_PATH_TEMP, MW_PATH_DIR_FLAGS);
}
