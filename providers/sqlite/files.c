/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "statements.h"

/* Entering a directory asks for no right to list it. */
#ifndef O_PATH
#define O_PATH O_RDONLY
#endif

#define PATH_SIZE 4096
#define HEADER_SIZE 100
/* Less than a transaction may need. */
#define DISK_SPARE (MW_SQL_COLLECT * MW_SQL_CHUNK * 2)

/* The path with something behind it. 0: too long. */
static int path_make(char *to, const mw_sql_t *store, const char *suffix)
{
    int n = snprintf(to, PATH_SIZE, "%s%s", store->path, suffix);

    return n > 0 && n < PATH_SIZE;
}

/* --- in the parent -------------------------------------------------------- */

static apr_status_t directory_own(int dir, const char *name, apr_uid_t uid,
                                  apr_gid_t gid)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    apr_status_t rv = APR_SUCCESS;

    if (fd < 0) {
        return errno;
    }
    if (fchown(fd, uid, gid) != 0) {
        rv = errno;
    }
    close(fd);
    return rv;
}

/* Whether only root can have put here what is here. */
static int directory_is_roots(int dir)
{
    struct stat st;

    return fstat(dir, &st) == 0 && st.st_uid == 0
           && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* From one directory into the next, which is made, for the user, when it is
 * missing. Root follows a link only where no user can have put it. */
static apr_status_t directory_enter(int *dir, const char *name, apr_uid_t uid,
                                    apr_gid_t gid)
{
    const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
    const int is_made = mkdirat(*dir, name, 0700) == 0;
    const apr_status_t failure = is_made ? ENOENT : errno;
    apr_status_t rv = APR_SUCCESS;
    int next;

    if (is_made && uid) {
        rv = directory_own(*dir, name, uid, gid);
    }
    next =
        openat(*dir, name,
               geteuid() != 0 || directory_is_roots(*dir) ? flags
                                                          : flags | O_NOFOLLOW);
    if (next < 0) {
        return errno != ENOENT ? errno : failure;
    }
    close(*dir);
    *dir = next;
    return rv;
}

/* Enter the directory of the file, and make what is missing above it. */
static apr_status_t directories_enter(const mw_sql_t *store, apr_uid_t uid,
                                      apr_gid_t gid, int *dir)
{
    char path[PATH_SIZE];
    apr_status_t rv = APR_SUCCESS;
    char *name = path + 1;
    char *slash;

    if (!path_make(path, store, "") || *path != '/') {
        return APR_EBADPATH;
    }
    *dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dir < 0) {
        return errno;
    }
    while (rv == APR_SUCCESS && (slash = strchr(name, '/'))) {
        *slash = '\0';
        rv = *name ? directory_enter(dir, name, uid, gid) : APR_SUCCESS;
        name = slash + 1;
    }
    if (rv != APR_SUCCESS) {
        close(*dir);
    }
    return rv;
}

/* Descriptor of a regular file that has this name only, so that it cannot be
 * one from elsewhere that somebody has linked here. */
static int file_open_own(int dir, const char *name, struct stat *st)
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, st) != 0 || !S_ISREG(st->st_mode) || st->st_nlink != 1) {
        close(fd);
        return -1;
    }
    return fd;
}

/* By its header: an empty file, or one with our application_id. */
static int database_is_ours(int fd)
{
    unsigned char header[HEADER_SIZE];
    ssize_t n = pread(fd, header, sizeof(header), 0);
    apr_uint32_t application;

    if (n != sizeof(header)) {
        return n == 0;
    }
    application = (apr_uint32_t)header[68] << 24
                  | (apr_uint32_t)header[69] << 16
                  | (apr_uint32_t)header[70] << 8 | header[71];
    return application == MW_SQL_APPLICATION;
}

static void file_own(int dir, const char *name, apr_uid_t uid, apr_gid_t gid)
{
    struct stat st;
    int fd = file_open_own(dir, name, &st);

    if (fd < 0) {
        return;
    }
    if (st.st_uid != uid && fchown(fd, uid, gid) != 0) {
        /* The children will say that they cannot open it. */
        errno = 0;
    }
    close(fd);
}

/* After a change of User: the directory goes with the database when both were
 * the former user's and nobody else may enter it. */
static void directory_follow(int dir, uid_t former, apr_uid_t uid,
                             apr_gid_t gid)
{
    struct stat st;

    if (former != uid && fstat(dir, &st) == 0 && st.st_uid == former
        && (st.st_mode & 077) == 0) {
        directory_own(dir, ".", uid, gid);
    }
}

static void database_own(int dir, const char *base, apr_uid_t uid,
                         apr_gid_t gid)
{
    static const char *const suffixes[] = { "",      "-wal",   "-shm",
                                            "-lock", "-aside", "-aside-wal" };
    char name[PATH_SIZE];
    struct stat st;
    int fd = file_open_own(dir, base, &st);
    int is_ours = fd >= 0 && database_is_ours(fd);
    apr_size_t i;

    if (fd >= 0) {
        close(fd);
    }
    if (!is_ours) {
        return;
    }
    directory_follow(dir, st.st_uid, uid, gid);
    for (i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        if (snprintf(name, sizeof(name), "%s%s", base, suffixes[i])
            < (int)sizeof(name)) {
            file_own(dir, name, uid, gid);
        }
    }
}

apr_status_t mw_sql_files_prepare(const mw_sql_t *store, apr_uid_t uid,
                                  apr_gid_t gid)
{
    int dir;
    apr_status_t rv = directories_enter(store, uid, gid, &dir);

    if (rv == APR_SUCCESS) {
        if (uid) {
            database_own(dir, strrchr(store->path, '/') + 1, uid, gid);
        }
        close(dir);
    }
    return rv;
}

/* --- in the children ------------------------------------------------------ */

apr_status_t mw_sql_files_look(const mw_sql_t *store, mw_sql_file_t *file,
                               apr_off_t *size)
{
    struct stat st;

    memset(file, 0, sizeof(*file));
    if (lstat(store->path, &st) != 0) {
        return errno;
    }
    if (!S_ISREG(st.st_mode)) {
        return S_ISLNK(st.st_mode)   ? ELOOP
               : S_ISDIR(st.st_mode) ? EISDIR
                                     : EINVAL;
    }
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    if (size) {
        *size = st.st_size;
    }
    return APR_SUCCESS;
}

int mw_sql_files_same(const mw_sql_file_t *one, const mw_sql_file_t *other)
{
    return one->ino && one->ino == other->ino && one->dev == other->dev;
}

static int lock_open(const char *path)
{
    return open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                0600);
}

apr_status_t mw_sql_files_lock(const mw_sql_t *store, int how,
                               apr_int64_t until, int *fd)
{
    const struct timespec nap = { 0, 1000000 };
    char path[PATH_SIZE];
    apr_status_t rv;

    if (!path_make(path, store, "-lock")) {
        return APR_ENAMETOOLONG;
    }
    *fd = lock_open(path);
    if (*fd < 0 && errno == ENOENT
        && mw_sql_files_prepare(store, 0, 0) == APR_SUCCESS) {
        *fd = lock_open(path);
    }
    if (*fd < 0) {
        return errno;
    }
    while (flock(*fd, how | LOCK_NB) != 0) {
        rv = errno;
        if ((rv != EWOULDBLOCK && rv != EINTR) || mw_sql_clock() >= until) {
            close(*fd);
            return rv == EWOULDBLOCK || rv == EINTR ? APR_TIMEUP : rv;
        }
        nanosleep(&nap, NULL);
    }
    return APR_SUCCESS;
}

static void file_remove(const mw_sql_t *store, const char *suffix)
{
    char path[PATH_SIZE];

    if (path_make(path, store, suffix)) {
        unlink(path);
    }
}

apr_status_t mw_sql_files_create(const mw_sql_t *store)
{
    int fd;

    file_remove(store, "-wal");
    file_remove(store, "-shm");
    file_remove(store, "-journal");
    fd = open(store->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
              0600);
    if (fd < 0) {
        return errno;
    }
    close(fd);
    return APR_SUCCESS;
}

int mw_sql_files_disk_is_full(const mw_sql_t *store)
{
    struct statvfs disk;

    return statvfs(store->path, &disk) == 0
           && (apr_uint64_t)disk.f_bavail * disk.f_frsize < DISK_SPARE;
}

static apr_status_t file_move(const mw_sql_t *store, const char *from,
                              const char *to)
{
    char old[PATH_SIZE], new[PATH_SIZE];

    if (!path_make(old, store, from) || !path_make(new, store, to)) {
        return APR_ENAMETOOLONG;
    }
    return rename(old, new) == 0 ? APR_SUCCESS : errno;
}

void mw_sql_files_set_aside(const mw_sql_t *store, const mw_sql_file_t *file,
                            const char *damage, apr_int64_t until)
{
    const cachemw_services_t *services = store->services;
    mw_sql_file_t now;
    apr_status_t rv;
    int fd;

    rv = mw_sql_files_lock(store, LOCK_EX, until, &fd);
    if (rv != APR_SUCCESS) {
        return;
    }
    if (mw_sql_files_look(store, &now, NULL) == APR_SUCCESS
        && mw_sql_files_same(&now, file)) {
        rv = file_move(store, "", "-aside");
        if (rv == APR_SUCCESS) {
            file_remove(store, "-aside-wal");
            file_move(store, "-wal", "-aside-wal");
            file_remove(store, "-shm");
        }
        services->log(services, CACHEMW_LOG_WARNING, rv,
                      rv == APR_SUCCESS
                          ? "%s: %s: set aside as %s-aside, and a new database "
                            "is begun"
                          : "%s: %s: it cannot be renamed to %s-aside",
                      store->path, damage, store->path);
    }
    close(fd);
}
