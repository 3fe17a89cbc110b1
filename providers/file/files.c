/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "load.h"
#include "path.h"

/** A directory, and how far below v1 it is. */
typedef struct frame_t {
    DIR *list;
    int level;
    char name[3]; /**< of one below those with entries */
} frame_t;

/**
 * A directory that is being listed. Once there may have been another number of
 * levels: then entries lie above or below those that have them now. So the
 * first of the directories in one is listed together with that one, and what
 * is in a directory for entries is gone through. The last frame is at hand.
 */
typedef struct listing_t {
    apr_uint32_t dir;
    int depth;
    frame_t frames[MW_PATH_LEVELS_MAX + 1];
} listing_t;

/**
 * When an entry expires by the times of its file. Whoever wrote into it and
 * died before these were set left those of the write, which are both the same:
 * then the head says it.
 */
static apr_time_t expires_of(const mw_file_t *file, const mw_path_t *path,
                             const struct stat *info)
{
    apr_time_t expires =
        apr_time_make(info->st_mtim.tv_sec, info->st_mtim.tv_nsec / 1000);
    mw_format_super_t super;
    int fd;

    if (info->st_mtim.tv_sec != info->st_ctim.tv_sec
        || info->st_mtim.tv_nsec != info->st_ctim.tv_nsec) {
        return expires;
    }
    fd = mw_path_open(file->root, path, O_RDONLY);
    if (fd >= 0) {
        if (mw_load_super(fd, &super) == APR_SUCCESS) {
            expires = mw_format_head(&super)->expires;
        }
        close(fd);
    }
    return expires;
}

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
    facts->expires = expires_of(file, &path, &info);
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

/** Takes over the descriptor. */
static apr_status_t listing_push(listing_t *listing, int fd, int level)
{
    frame_t *frame = &listing->frames[listing->depth];

    frame->list = fdopendir(fd);
    if (!frame->list) {
        close(fd);
        return APR_ENOMEM;
    }
    frame->level = level;
    frame->name[0] = '\0';
    listing->depth++;
    return APR_SUCCESS;
}

/** The directory, and those above that are not listed with another one. */
static apr_status_t listing_begin(listing_t *listing, const mw_file_t *file)
{
    apr_uint32_t dir = listing->dir;
    apr_status_t rv = APR_SUCCESS;
    int level = file->levels;

    for (;;) {
        int fd = mw_path_open_dir(file->root, level, dir);

        if (fd >= 0) {
            rv = listing_push(listing, fd, level);
        }
        else if (errno != ENOENT && errno != ELOOP && errno != ENOTDIR) {
            rv = errno;
        }
        if (rv != APR_SUCCESS || level == 0 || (dir & 0xff) != 0) {
            return rv;
        }
        dir >>= 8;
        level--;
    }
}

/** An empty one below those with entries is of no use any more. */
static void listing_pop(listing_t *listing)
{
    const frame_t *frame = &listing->frames[--listing->depth];

    closedir(frame->list);
    if (frame->name[0]) {
        unlinkat(dirfd(frame[-1].list), frame->name, AT_REMOVEDIR);
    }
}

static void files_close(void *baton, void *data)
{
    listing_t *listing = data;

    (void)baton;
    while (listing->depth) {
        closedir(listing->frames[--listing->depth].list);
    }
    free(listing);
}

static apr_status_t files_list(void *baton, apr_uint32_t dir, void **out)
{
    listing_t *listing = calloc(1, sizeof(*listing));
    apr_status_t rv;

    if (!listing) {
        return APR_ENOMEM;
    }
    listing->dir = dir;
    rv = listing_begin(listing, baton);
    if (rv == APR_SUCCESS && !listing->depth) {
        rv = APR_ENOENT;
    }
    if (rv != APR_SUCCESS) {
        files_close(baton, listing);
        return rv;
    }
    *out = listing;
    return APR_SUCCESS;
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

/** Nobody would ever look for it there. */
static void stray_remove(int dir, const char *name, mw_index_facts_t *gone)
{
    struct stat info;

    if (fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) == 0
        && unlinkat(dir, name, 0) == 0) {
        gone->exists = S_ISREG(info.st_mode);
        gone->size = (apr_uint64_t)info.st_size;
    }
}

static void listing_descend(listing_t *listing, const char *name)
{
    const frame_t *at = &listing->frames[listing->depth - 1];
    int fd = openat(dirfd(at->list), name, MW_PATH_DIR_FLAGS);

    if (fd >= 0 && listing_push(listing, fd, at->level + 1) == APR_SUCCESS) {
        memcpy(listing->frames[listing->depth - 1].name, name, 3);
    }
}

static apr_status_t files_next(void *baton, void *data, mw_digest_t *digest,
                               mw_index_facts_t *gone)
{
    const mw_file_t *file = baton;
    listing_t *listing = data;

    gone->exists = 0;
    while (listing->depth) {
        const frame_t *frame = &listing->frames[listing->depth - 1];
        const struct dirent *item = readdir(frame->list);

        if (!item) {
            listing_pop(listing);
            return APR_EAGAIN;
        }
        if (mw_path_parse(item->d_name, digest)) {
            if (frame->level == file->levels
                && digest_dir(file->levels, digest) == listing->dir) {
                return APR_SUCCESS;
            }
            stray_remove(dirfd(frame->list), item->d_name, gone);
            return APR_EAGAIN;
        }
        if (frame->level >= file->levels && frame->level < MW_PATH_LEVELS_MAX
            && mw_path_is_part(item->d_name)) {
            listing_descend(listing, item->d_name);
        }
    }
    return APR_ENOENT;
}

const mw_index_files_t mw_files = {
    .probe = files_probe,
    .unlink = files_unlink,
    .unlink_temps = files_unlink_temps,
    .list = files_list,
    .next = files_next,
    .close = files_close,
};
