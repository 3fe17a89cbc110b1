/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_portable.h"
#include "apr_strings.h"

#include "core/crc32c.h"
#include "dir.h"
#include "file.h"
#include "load.h"
#include "look.h"
#include "path.h"

static apr_status_t look_post_config(void *store, apr_pool_t *pconf,
                                     apr_uid_t uid, apr_gid_t gid)
{
    mw_file_t *file = store;

    (void)uid, (void)gid;
    file->shared = apr_pcalloc(pconf, sizeof(*file->shared));
    return APR_SUCCESS;
}

static apr_status_t root_close(void *store)
{
    mw_dir_leave(store);
    return APR_SUCCESS;
}

static apr_status_t look_child_init(void *store, apr_pool_t *pchild)
{
    mw_file_t *file = store;
    mw_mark_t *mark = &file->shared->mark;
    unsigned char boot[16];
    struct stat info;
    apr_status_t rv;

    file->root = open(file->root_path, MW_PATH_DIR_FLAGS);
    if (file->root < 0) {
        return errno;
    }
    apr_pool_cleanup_register(pchild, file, root_close, apr_pool_cleanup_null);
    if (fstat(file->root, &info) != 0 || info.st_uid != geteuid()) {
        return EPERM;
    }
    rv = mw_mark_read(file->root, mark);
    if (rv == APR_SUCCESS) {
        /* what a server would believe that began now */
        mw_mark_boot(boot);
        mw_mark_continue(mark, boot);
        file->levels = (int)mark->levels;
    }
    return rv;
}

/* --- an entry ------------------------------------------------------------- */

/** @param path of the file, which is left open. @param key NULL: any */
static apr_status_t entry_open(const mw_file_t *file, const mw_path_t *path,
                               const cachemw_call_t *call,
                               const cachemw_key_t *key, mw_load_t *load)
{
    struct stat info;
    apr_status_t rv;

    load->fd = mw_path_open(file->root, path, O_RDONLY);
    if (load->fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? APR_NOTFOUND
               : errno == ELOOP || errno == ENXIO  ? APR_EINCOMPLETE
                                                   : errno;
    }
    load->room = MW_LOAD_FRONT;
    load->bytes = apr_palloc(call->pool, load->room);
    rv = fstat(load->fd, &info) == 0 && S_ISREG(info.st_mode)
             ? mw_load(file, key, call->now, call->pool, load)
             : APR_EINCOMPLETE;
    if (rv != APR_SUCCESS) {
        close(load->fd);
    }
    return rv;
}

/** The same of a key. */
static apr_status_t entry_find(const mw_file_t *file,
                               const cachemw_call_t *call,
                               const cachemw_key_t *key, mw_path_t *path,
                               mw_load_t *load)
{
    mw_digest_t digest;

    mw_load_digest(file, key, &digest);
    mw_path_make(path, file->levels, &digest);
    return entry_open(file, path, call, key, load);
}

static apr_status_t body_verify(const mw_load_t *load)
{
    const mw_format_super_t *super = &load->super;
    apr_uint64_t at = super->body_offset;
    apr_uint64_t left = super->body_len;
    apr_uint32_t crc = 0;
    apr_status_t rv = APR_SUCCESS;
    char bytes[16384];

    while (left && rv == APR_SUCCESS) {
        apr_size_t n = left < sizeof(bytes) ? (apr_size_t)left : sizeof(bytes);

        rv = mw_load_bytes(load->fd, bytes, n, at);
        crc = mw_crc32c(crc, bytes, n);
        at += n;
        left -= n;
    }
    if (rv == APR_EOF || (rv == APR_SUCCESS && crc != super->body_crc)) {
        return APR_EINCOMPLETE;
    }
    return rv;
}

static apr_status_t fd_close(void *fd)
{
    close((int)(apr_uintptr_t)fd);
    return APR_SUCCESS;
}

static apr_status_t body_append(const mw_load_t *load,
                                const cachemw_call_t *call,
                                apr_bucket_brigade *body)
{
    const mw_format_super_t *super = &load->super;
    apr_os_file_t fd = load->fd;
    apr_file_t *from = NULL;
    apr_status_t rv = body_verify(load);

    if (rv != APR_SUCCESS || !super->body_len) {
        close(load->fd);
        return rv;
    }
    apr_pool_cleanup_register(call->pool, (void *)(apr_uintptr_t)fd, fd_close,
                              apr_pool_cleanup_null);
    rv = apr_os_file_put(&from, &fd, APR_FOPEN_READ, call->pool);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    apr_brigade_insert_file(body, from, (apr_off_t)super->body_offset,
                            (apr_off_t)super->body_len, call->pool);
    return APR_SUCCESS;
}

static apr_status_t look_get(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_path_t path;
    mw_load_t load;
    apr_status_t rv = entry_find(store, call, key, &path, &load);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_load_tell(&load, entry);
    if (entry->body) {
        return body_append(&load, call, entry->body);
    }
    close(load.fd);
    return APR_SUCCESS;
}

static apr_status_t look_set(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_entry_t *entry)
{
    (void)store, (void)call, (void)key, (void)entry;
    return APR_ENOTIMPL;
}

static apr_status_t look_remove(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    const mw_file_t *file = store;
    mw_path_t path;
    mw_load_t load;

    if (entry_find(file, call, key, &path, &load) == APR_SUCCESS) {
        close(load.fd);
        if (id && memcmp(&load.super.id, id, sizeof(*id)) != 0) {
            return APR_NOTFOUND;
        }
    }
    return mw_path_unlink(file->root, &path);
}

/* --- all entries ---------------------------------------------------------- */

/** What is done with each file that has an entry's name. */
typedef struct walk_t walk_t;
typedef apr_status_t walk_fn(walk_t *walk, const mw_path_t *path);

struct walk_t {
    const mw_file_t *file;
    const cachemw_call_t *call;
    apr_pool_t *pool; /**< of one entry */
    walk_fn *each;
    void *baton;
    apr_status_t failed; /**< what could not be read, and was passed over */
};

/** @param name of what cannot be read or removed, from v1 on */
static void walk_fail(walk_t *walk, const char *name, apr_status_t rv)
{
    const cachemw_services_t *services = walk->file->services;

    services->log(services, CACHEMW_LOG_ERR, rv, "%s/%s", walk->file->root_path,
                  name);
    walk->failed = rv;
}

static apr_status_t walk_file(walk_t *walk, const char *name)
{
    mw_digest_t digest;
    mw_path_t path;

    if (!mw_path_parse(name, &digest)) {
        return APR_SUCCESS;
    }
    apr_pool_clear(walk->pool);
    mw_path_make(&path, walk->file->levels, &digest);
    return walk->each(walk, &path);
}

/** Takes over the descriptor. */
static apr_status_t walk_directory(walk_t *walk, int fd, int level)
{
    DIR *list = fdopendir(fd);
    apr_status_t rv = APR_SUCCESS;
    const struct dirent *item;
    int below;

    if (!list) {
        close(fd);
        return APR_ENOMEM;
    }
    while (rv == APR_SUCCESS && (errno = 0, item = readdir(list))) {
        if (level == walk->file->levels) {
            rv = walk_file(walk, item->d_name);
        }
        else if (mw_path_is_part(item->d_name)) {
            below = openat(dirfd(list), item->d_name, MW_PATH_DIR_FLAGS);
            if (below >= 0) {
                rv = walk_directory(walk, below, level + 1);
            }
            else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
                walk_fail(walk, item->d_name, errno);
            }
        }
    }
    if (rv == APR_SUCCESS && errno) {
        walk_fail(walk, "", errno);
    }
    closedir(list);
    return rv;
}

static apr_status_t walk_all(void *store, const cachemw_call_t *call,
                             walk_fn *each, void *baton)
{
    walk_t walk = { store, call, NULL, each, baton, APR_SUCCESS };
    int fd = openat(walk.file->root, ".", MW_PATH_DIR_FLAGS);
    apr_status_t rv;

    if (fd < 0) {
        return errno;
    }
    rv = apr_pool_create(&walk.pool, call->pool);
    if (rv != APR_SUCCESS) {
        close(fd);
        return rv;
    }
    rv = walk_directory(&walk, fd, 0);
    apr_pool_destroy(walk.pool);
    return rv == APR_SUCCESS ? walk.failed : rv;
}

static void walk_damaged(const walk_t *walk, const mw_path_t *path)
{
    const cachemw_services_t *services = walk->file->services;

    services->count_kind(services, MW_FILE_LOOK_DAMAGED, 1);
    services->log(services, CACHEMW_LOG_ERR, APR_SUCCESS, "%s/%s is damaged",
                  walk->file->root_path, path->text);
}

typedef struct listing_t {
    cachemw_keys_fn *each;
    void *baton;
    int mends; /**< removes what is damaged */
} listing_t;

static apr_status_t listing_tell(walk_t *walk, const mw_path_t *path)
{
    const listing_t *listing = walk->baton;
    cachemw_call_t call = *walk->call;
    cachemw_entry_t entry;
    cachemw_key_t key;
    mw_load_t load;
    apr_status_t rv;
    int is_whole;

    call.pool = walk->pool;
    rv = entry_open(walk->file, path, &call, NULL, &load);
    is_whole = rv == APR_SUCCESS;
    if (rv == APR_EINCOMPLETE) {
        walk_damaged(walk, path);
        rv = listing->mends ? mw_path_unlink(walk->file->root, path)
                            : APR_NOTFOUND;
    }
    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        walk_fail(walk, path->text, rv);
        return APR_SUCCESS;
    }
    if (rv != APR_SUCCESS || !is_whole) {
        return APR_SUCCESS;
    }
    close(load.fd);
    memset(&entry, 0, sizeof(entry));
    mw_load_tell(&load, &entry);
    key.data = (const char *)load.bytes + MW_FORMAT_SUPER;
    key.len = load.super.key_len;
    return listing->each(listing->baton, &key, &entry);
}

static apr_status_t look_keys(void *store, const cachemw_call_t *call,
                              const char *pattern, cachemw_keys_fn *each,
                              void *baton)
{
    listing_t listing = { each, baton, 0 };

    (void)pattern;
    return walk_all(store, call, listing_tell, &listing);
}

apr_status_t mw_file_look_mend(void *store, const cachemw_call_t *call,
                               const char *pattern, cachemw_keys_fn *each,
                               void *baton)
{
    listing_t listing = { each, baton, 1 };

    (void)pattern;
    return walk_all(store, call, listing_tell, &listing);
}

static apr_status_t clear_file(walk_t *walk, const mw_path_t *path)
{
    const apr_status_t rv = mw_path_unlink(walk->file->root, path);

    if (rv != APR_SUCCESS) {
        walk_fail(walk, path->text, rv);
    }
    return APR_SUCCESS;
}

static apr_status_t look_clear(void *store, const cachemw_call_t *call)
{
    return walk_all(store, call, clear_file, NULL);
}

/** What a look-up would not find, or not believe. A damaged one stays for who
 *  wants to see it. */
static apr_status_t sweep_file(walk_t *walk, const mw_path_t *path)
{
    const cachemw_services_t *services = walk->file->services;
    cachemw_call_t call = *walk->call;
    mw_load_t load;
    apr_status_t rv;

    call.pool = walk->pool;
    rv = entry_open(walk->file, path, &call, NULL, &load);
    if (rv == APR_SUCCESS) {
        close(load.fd);
    }
    else if (rv == APR_NOTFOUND
             && mw_path_unlink(walk->file->root, path) == APR_SUCCESS) {
        services->count(services, CACHEMW_COUNT_EXPIRED, 1);
    }
    return APR_SUCCESS;
}

static apr_status_t look_sweep(void *store, const cachemw_call_t *call,
                               int *more)
{
    *more = 0;
    return walk_all(store, call, sweep_file, NULL);
}

static apr_status_t stats_file(walk_t *walk, const mw_path_t *path)
{
    cachemw_stats_t *stats = walk->baton;
    struct stat info;

    if (fstatat(walk->file->root, path->text, &info, AT_SYMLINK_NOFOLLOW)
        == 0) {
        stats->entries++;
        stats->bytes += (apr_int64_t)info.st_size;
    }
    return APR_SUCCESS;
}

static apr_status_t look_stats(void *store, const cachemw_call_t *call,
                               cachemw_stats_t *stats)
{
    stats->entries = 0;
    stats->bytes = 0;
    return walk_all(store, call, stats_file, stats);
}

static apr_status_t look_open(const cachemw_services_t *services,
                              const cachemw_value_t *values, apr_pool_t *pconf,
                              void **store, const char **error)
{
    return mw_file_provider.open(services, values, pconf, store, error);
}

const cachemw_provider_t mw_file_look_provider = {
    .size = sizeof(cachemw_provider_t),
    .max_object_size = "1G",
    .open = look_open,
    .get = look_get,
    .set = look_set,
    .remove = look_remove,
    .post_config = look_post_config,
    .child_init = look_child_init,
    .clear = look_clear,
    .keys = look_keys,
    .sweep = look_sweep,
    .stats = look_stats,
};
