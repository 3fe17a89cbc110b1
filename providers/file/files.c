/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "path.h"

/** A directory that is being listed. */
typedef struct listing_t {
    DIR *list;
    apr_uint32_t dir;
} listing_t;

static apr_status_t files_probe(void *baton, const mw_digest_t *digest,
                                mw_index_facts_t *facts)
{
    const mw_file_t *file = baton;
    struct stat info;
    mw_path_t path;

    memset(facts, 0, sizeof(*facts));
    mw_path_make(&path, file->levels, digest);
    if (fstatat(file->root, path.text, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT || errno == ENOTDIR ? APR_SUCCESS : errno;
    }
    if (!S_ISREG(info.st_mode)) {
        /* If it stays it still is no file, and must not hold up the shard. */
        mw_path_unlink(file->root, &path);
        return APR_SUCCESS;
    }
    facts->exists = 1;
    facts->size = (apr_uint64_t)info.st_size;
    facts->expires =
        apr_time_make(info.st_mtim.tv_sec, info.st_mtim.tv_nsec / 1000);
    return APR_SUCCESS;
}

static apr_status_t files_unlink(void *baton, const mw_digest_t *digest)
{
    const mw_file_t *file = baton;
    mw_path_t path;

    mw_path_make(&path, file->levels, digest);
    return mw_path_unlink(file->root, &path);
}

static apr_status_t files_unlink_temps(void *baton, const char *prefix,
                                       int others)
{
    const mw_file_t *file = baton;
    int fd = mw_path_open_temps(file->root);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    apr_status_t rv = APR_SUCCESS;
    struct dirent *item;

    if (!list) {
        rv = errno;
        if (fd >= 0) {
            close(fd);
        }
        return rv == ENOENT ? APR_SUCCESS : rv;
    }
    while ((item = readdir(list))) {
        int is_meant = !strncmp(item->d_name, prefix, strlen(prefix));

        if (item->d_name[0] != '.' && is_meant == !others
            && unlinkat(fd, item->d_name, 0) != 0 && errno != ENOENT
            && errno != EISDIR) {
            rv = errno;
        }
    }
    closedir(list);
    return rv;
}

static apr_status_t files_list(void *baton, apr_uint32_t dir, void **out)
{
    const mw_file_t *file = baton;
    int fd = mw_path_open_dir(file->root, file->levels, dir);
    listing_t *listing;

    if (fd < 0) {
        return errno == ELOOP || errno == ENOTDIR ? APR_ENOENT : errno;
    }
    listing = malloc(sizeof(*listing));
    if (listing) {
        listing->dir = dir;
        listing->list = fdopendir(fd);
        if (listing->list) {
            *out = listing;
            return APR_SUCCESS;
        }
        free(listing);
    }
    close(fd);
    return APR_ENOMEM;
}

/** The number of the directory that a digest's file belongs in. */
static apr_uint32_t digest_dir(int levels, const mw_digest_t *digest)
{
    apr_uint32_t dir = 0;
    int i;

    for (i = 0; i < levels; i++) {
        dir = dir << 8 | digest->bytes[i];
    }
    return dir;
}

static apr_status_t files_next(void *baton, void *data, mw_digest_t *digest)
{
    const mw_file_t *file = baton;
    const listing_t *listing = data;
    struct dirent *item;

    while ((item = readdir(listing->list))) {
        if (!mw_path_parse(item->d_name, digest)) {
            continue;
        }
        if (digest_dir(file->levels, digest) == listing->dir) {
            return APR_SUCCESS;
        }
        /* Nobody would ever look for it here. */
        unlinkat(dirfd(listing->list), item->d_name, 0);
    }
    return APR_ENOENT;
}

static void files_close(void *baton, void *data)
{
    listing_t *listing = data;

    (void)baton;
    closedir(listing->list);
    free(listing);
}

const mw_index_files_t mw_files = {
    .probe = files_probe,
    .unlink = files_unlink,
    .unlink_temps = files_unlink_temps,
    .list = files_list,
    .next = files_next,
    .close = files_close,
};
