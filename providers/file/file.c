/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_siphash.h"
#include "apr_strings.h"

#include "amend.h"
#include "dir.h"
#include "file.h"
#include "files.h"
#include "format.h"
#include "path.h"
#include "read.h"
#include "write.h"

enum {
    OPTION_CACHE_DIR,
    OPTION_MAX_BYTES,
    OPTION_MAX_ENTRIES,
    OPTION_MAX_FILE_AGE,
    OPTION_DIR_LEVELS,
    OPTION_INDEX_SIZE
};

static const cachemw_option_t file_options[] = {
    [OPTION_CACHE_DIR] = { .name = "cache_dir",
                           .type = CACHEMW_PATH,
                           .fallback = "file",
                           .help =
                               "Directory of the store; what is missing of it "
                               "is made." },
    [OPTION_MAX_BYTES] = { .name = "max_bytes",
                           .type = CACHEMW_SIZE,
                           .fallback = "1G",
                           .minimum = "1M",
                           .maximum = "131072G",
                           .help = "Most space that the files take." },
    [OPTION_MAX_ENTRIES] = { .name = "max_entries",
                             .type = CACHEMW_INTEGER,
                             .minimum = "1",
                             .maximum = "4294967295",
                             .help = "Most entries held at once; by default "
                                     "as many as the index has room for." },
    [OPTION_MAX_FILE_AGE] = { .name = "max_file_age",
                              .type = CACHEMW_DURATION,
                              .minimum = "1s",
                              .help = "Entries older than this go, however "
                                      "long they would be fresh; off by "
                                      "default." },
    [OPTION_DIR_LEVELS] = { .name = "dir_levels",
                            .type = CACHEMW_INTEGER,
                            .fallback = "1",
                            .minimum = "0",
                            .maximum = "2",
                            .help = "Levels of 256 directories each that the "
                                    "files are spread over." },
    [OPTION_INDEX_SIZE] = { .name = "index_size",
                            .type = CACHEMW_SIZE,
                            .fallback = "16M",
                            .minimum = "256K",
                            .maximum = "64G",
                            .help =
                                "Shared memory for the index of all files." },
    { .name = NULL },
};

/** With another directory an index is of no use. */
static apr_uint64_t place_salt(const char *path)
{
    static const unsigned char key[APR_SIPHASH_KSIZE] = { MW_FORMAT_VERSION };

    return apr_siphash24(path, strlen(path), key);
}

static apr_status_t file_open(const cachemw_services_t *services,
                              const cachemw_value_t *values, apr_pool_t *pconf,
                              void **store, const char **error)
{
    mw_file_t *file = apr_pcalloc(pconf, sizeof(*file));
    mw_index_config_t config;

    file->services = services;
    file->path = values[OPTION_CACHE_DIR].string;
    file->root_path = apr_pstrcat(pconf, file->path, "/", MW_PATH_ROOT, NULL);
    file->levels = (int)values[OPTION_DIR_LEVELS].number;
    file->max_bytes = (apr_uint64_t)values[OPTION_MAX_BYTES].number;
    if (!values[OPTION_MAX_FILE_AGE].is_null) {
        file->max_age = values[OPTION_MAX_FILE_AGE].duration;
    }
    file->root = -1;
    config.memory = (apr_uint64_t)values[OPTION_INDEX_SIZE].number;
    config.max_bytes = file->max_bytes;
    config.max_entries = values[OPTION_MAX_ENTRIES].is_null
                             ? 0
                             : (apr_uint64_t)values[OPTION_MAX_ENTRIES].number;
    config.dir_levels = file->levels;
    config.salt = place_salt(file->path);
    *store = file;
    return mw_index_create(&file->index, services, &config, &mw_files, file,
                           pconf, error);
}

/** Children end without it; a tool plays parent and child in one process. */
static void file_close(void *store)
{
    mw_dir_leave(store);
}

static apr_status_t file_post_config(void *store, apr_pool_t *pconf,
                                     apr_uid_t uid, apr_gid_t gid)
{
    mw_file_t *file = store;
    int is_made = 0, is_new = 0;
    apr_status_t rv = mw_dir_make(file, uid, gid, &is_made, pconf);

    if (rv != APR_SUCCESS) {
        /* The children try again, and tell if it is to no avail. */
        file->services->log(file->services, CACHEMW_LOG_WARNING, rv,
                            "open: cache_dir=%s cannot be made or given to "
                            "the user that the server runs as",
                            file->path);
    }
    rv = mw_index_post_config(file->index, is_made ? 0 : -1, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    file->shared = mw_index_shared(file->index);
    if (is_new) {
        rv = mw_lock_init(&file->shared->marking);
    }
    if (is_new && rv == APR_SUCCESS) {
        rv = file->services->random(file->services, file->shared->owner,
                                    sizeof(file->shared->owner));
    }
    file->services->log(file->services, CACHEMW_LOG_INFO, APR_SUCCESS,
                        "open: cache_dir=%s, %s index", file->path,
                        is_new ? "new" : "kept");
    return rv;
}

static apr_status_t file_child_init(void *store, apr_pool_t *pchild)
{
    mw_file_t *file = store;
    apr_status_t rv = mw_dir_begin(file);

    /* the slots of the dead are free once their files have been found */
    return rv == APR_SUCCESS ? mw_index_child_init(file->index, pchild) : rv;
}

static apr_status_t file_clear(void *store, const cachemw_call_t *call)
{
    mw_file_t *file = store;
    apr_status_t rv = mw_dir_need(file, call->now);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = mw_dir_clear(file);
    mw_index_clear(file->index);
    return rv;
}

static apr_status_t file_sweep(void *store, const cachemw_call_t *call,
                               int *more)
{
    mw_file_t *file = store;
    apr_status_t rv;

    mw_dir_doubt(file);
    rv = mw_dir_need(file, call->now);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return mw_index_sweep(file->index, call, more);
}

static apr_status_t file_sync(void *store, const cachemw_call_t *call)
{
    mw_file_t *file = store;
    apr_status_t rv = mw_dir_need(file, call->now);

    return rv == APR_SUCCESS ? mw_dir_sync(file) : rv;
}

static apr_status_t file_stats(void *store, const cachemw_call_t *call,
                               cachemw_stats_t *stats)
{
    mw_file_t *file = store;
    apr_status_t rv = mw_dir_need(file, call->now);

    if (rv == APR_SUCCESS) {
        mw_index_stats(file->index, call->now, stats);
    }
    return rv;
}

const cachemw_provider_t mw_file_provider = {
    .size = sizeof(cachemw_provider_t),
    .options = file_options,
    .max_object_size = "1G",
    .open = file_open,
    .close = file_close,
    .get = mw_file_get,
    .remove = mw_file_remove,
    .post_config = file_post_config,
    .child_init = file_child_init,
    .set_head = mw_file_set_head,
    .set_begin = mw_file_set_begin,
    .set_write = mw_file_set_write,
    .set_commit = mw_file_set_commit,
    .set_abort = mw_file_set_abort,
    .exists = mw_file_exists,
    .clear = file_clear,
    .keys = mw_file_keys,
    .sweep = file_sweep,
    .stats = file_stats,
    .object_limit = mw_file_object_limit,
    .sync = file_sync,
};
