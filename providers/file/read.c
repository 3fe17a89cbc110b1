/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_portable.h"
#include "apr_strings.h"

#include "amend.h"
#include "core/crc32c.h"
#include "dir.h"
#include "load.h"
#include "path.h"
#include "providers/common/copied.h"
#include "read.h"

/** Files up to this size are read in one piece: most with bodies of 64 KB. */
#define READ_WHOLE (CACHEMW_PIECE_MAX + 2 * MW_INDEX_BLOCK)

/** What a look-up goes by. */
typedef struct wanted_t {
    mw_file_t *file;
    const cachemw_call_t *call;
    const cachemw_key_t *key;
    mw_digest_t digest;
    mw_path_t path;
    apr_size_t size; /**< of the file as far as is known; 0: not */
} wanted_t;

static apr_status_t load_open(const wanted_t *wanted, mw_load_t *load)
{
    load->fd = mw_path_open(wanted->file->root, &wanted->path, O_RDONLY);
    if (load->fd < 0) {
        /* A link, or what cannot be opened at all, is no entry. */
        return errno == ELOOP || errno == ENXIO ? APR_EINCOMPLETE : errno;
    }
    return APR_SUCCESS;
}

static apr_status_t read_head(const wanted_t *wanted, mw_load_t *load)
{
    apr_status_t rv = load_open(wanted, load);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    load->room = MW_LOAD_FRONT;
    load->bytes = apr_palloc(wanted->call->pool, load->room);
    rv = mw_load(wanted->file, wanted->key, wanted->call->now,
                 wanted->call->pool, load);
    close(load->fd);
    return rv;
}

/** Of a bucket that has a whole file only the body is left. */
static void body_trim(apr_bucket_brigade *body, const mw_format_super_t *super)
{
    apr_bucket *e = APR_BRIGADE_LAST(body);

    if (!super->body_len) {
        apr_bucket_delete(e);
        return;
    }
    e->start = (apr_off_t)super->body_offset;
    e->length = (apr_size_t)super->body_len;
}

/** @return APR_INCOMPLETE: it has become longer than the index knew */
static apr_status_t read_whole(const wanted_t *wanted, mw_load_t *load,
                               apr_bucket_brigade *body)
{
    const mw_format_super_t *super = &load->super;
    apr_pool_t *pool = wanted->call->pool;
    apr_status_t rv = load_open(wanted, load);
    unsigned char *bytes;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    load->room = wanted->size;
    load->bytes = bytes = (unsigned char *)mw_copied_append(body, load->room);
    rv = bytes
             ? mw_load(wanted->file, wanted->key, wanted->call->now, pool, load)
             : APR_ENOMEM;
    close(load->fd);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (load->bytes != bytes
        || super->body_offset + super->body_len > load->length) {
        return load->length == load->room ? APR_INCOMPLETE : APR_EINCOMPLETE;
    }
    if (mw_crc32c(0, bytes + super->body_offset, (apr_size_t)super->body_len)
        != super->body_crc) {
        return APR_EINCOMPLETE;
    }
    /* The bucket may go before the head does. */
    load->head = apr_pmemdup(pool, load->head, mw_format_head(super)->length);
    body_trim(body, super);
    return APR_SUCCESS;
}

/**
 * Open a file for a bucket. httpd's core wants it to be APR's, which opens by
 * whole paths only, and would follow links: so APR opens the directory, and the
 * file takes its place.
 * @param size set to its length
 */
static apr_status_t file_open(const wanted_t *wanted, apr_file_t **out,
                              mw_load_t *load, apr_uint64_t *size)
{
    apr_pool_t *pool = wanted->call->pool;
    apr_int32_t flags = APR_FOPEN_READ | APR_FOPEN_BINARY;
    apr_file_t *found = NULL;
    struct stat info;
    apr_status_t rv = load_open(wanted, load);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (wanted->call->sendfile) {
        flags |= APR_FOPEN_SENDFILE_ENABLED;
    }
    rv = apr_file_open(out, wanted->file->root_path, flags,
                       APR_FPROT_OS_DEFAULT, pool);
    if (rv == APR_SUCCESS) {
        apr_os_file_put(&found, &load->fd, flags, pool);
        rv = apr_file_dup2(*out, found, pool);
    }
    close(load->fd);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    apr_os_file_get(&load->fd, *out);
    if (fstat(load->fd, &info) != 0) {
        return errno;
    }
    *size = (apr_uint64_t)info.st_size;
    return S_ISREG(info.st_mode) ? APR_SUCCESS : APR_EINCOMPLETE;
}

/** Bodies longer than a bucket can be are several buckets. */
static void body_append(apr_file_t *from, const mw_format_super_t *super,
                        apr_bucket_brigade *body, apr_pool_t *pool)
{
    apr_bucket *e;

    if (super->body_len) {
        e = apr_brigade_insert_file(body, from, (apr_off_t)super->body_offset,
                                    (apr_off_t)super->body_len, pool);
        apr_bucket_file_set_buf_size(e, CACHEMW_PIECE_MAX);
    }
}

static apr_status_t read_open(const wanted_t *wanted, mw_load_t *load,
                              apr_bucket_brigade *body)
{
    apr_pool_t *pool = wanted->call->pool;
    apr_file_t *from = NULL;
    apr_uint64_t size = 0;
    apr_status_t rv = file_open(wanted, &from, load, &size);

    if (rv == APR_SUCCESS) {
        load->room = MW_LOAD_FRONT;
        load->bytes = apr_palloc(pool, load->room);
        rv = mw_load(wanted->file, wanted->key, wanted->call->now, pool, load);
    }
    if (rv == APR_SUCCESS
        && load->super.body_offset + load->super.body_len > size) {
        rv = APR_EINCOMPLETE;
    }
    if (rv == APR_SUCCESS) {
        body_append(from, &load->super, body, pool);
    }
    else if (from) {
        apr_file_close(from);
    }
    return rv;
}

static apr_status_t read_any(const wanted_t *wanted, mw_load_t *load,
                             apr_bucket_brigade *body)
{
    apr_status_t rv;

    if (!body) {
        return read_head(wanted, load);
    }
    if (wanted->size && wanted->size <= READ_WHOLE) {
        rv = read_whole(wanted, load, body);
        if (rv != APR_SUCCESS) {
            apr_brigade_cleanup(body);
        }
        if (rv != APR_INCOMPLETE) {
            return rv;
        }
    }
    return read_open(wanted, load, body);
}

/** The index and the disk do not agree about a file. */
static apr_status_t read_missed(const wanted_t *wanted)
{
    mw_dir_doubt(wanted->file);
    mw_index_check(wanted->file->index, &wanted->digest, wanted->call->now);
    return APR_NOTFOUND;
}

apr_status_t mw_file_get(void *store, const cachemw_call_t *call,
                         const cachemw_key_t *key, cachemw_entry_t *entry)
{
    wanted_t wanted = { .file = store, .call = call, .key = key };
    mw_index_facts_t facts = { 0 };
    mw_index_answer_e answer;
    mw_load_t load;
    apr_status_t rv = mw_dir_need(store, call->now);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_load_digest(wanted.file, key, &wanted.digest);
    answer =
        mw_index_find(wanted.file->index, &wanted.digest, call->now, &facts);
    if (answer == MW_INDEX_ABSENT) {
        return APR_NOTFOUND;
    }
    mw_path_make(&wanted.path, wanted.file->levels, &wanted.digest);
    wanted.size = answer == MW_INDEX_PRESENT ? (apr_size_t)facts.size : 0;
    rv = read_any(&wanted, &load, entry->body);
    if (rv == APR_SUCCESS) {
        if (answer == MW_INDEX_UNKNOWN) {
            mw_index_check(wanted.file->index, &wanted.digest, call->now);
        }
        mw_load_tell(&load, entry);
    }
    else if (rv == ENOENT || rv == ENOTDIR) {
        rv = answer == MW_INDEX_PRESENT ? read_missed(&wanted) : APR_NOTFOUND;
    }
    else if (rv == APR_NOTFOUND) {
        mw_file_remove(store, call, key, &load.super.id);
    }
    return rv;
}

apr_status_t mw_file_exists(void *store, const cachemw_call_t *call,
                            const cachemw_key_t *key)
{
    cachemw_entry_t entry;

    memset(&entry, 0, sizeof(entry));
    return mw_file_get(store, call, key, &entry);
}

/** keys() on its way. */
typedef struct walk_t {
    mw_file_t *file;
    const cachemw_call_t *call;
    apr_pool_t *pool; /**< of one entry */
    cachemw_keys_fn *each;
    void *baton;
} walk_t;

static apr_status_t walk_tell(void *baton, const mw_digest_t *digest)
{
    walk_t *walk = baton;
    cachemw_call_t call = *walk->call;
    wanted_t wanted = { .file = walk->file, .call = &call };
    cachemw_entry_t entry;
    cachemw_key_t key;
    mw_load_t load;
    apr_status_t rv;

    apr_pool_clear(walk->pool);
    call.pool = walk->pool;
    mw_path_make(&wanted.path, walk->file->levels, digest);
    rv = read_head(&wanted, &load);
    if (rv != APR_SUCCESS) {
        /* What is no entry, or none any more, goes on its next look-up. */
        return rv == ENOENT || rv == APR_NOTFOUND || rv == APR_EINCOMPLETE
                   ? APR_SUCCESS
                   : rv;
    }
    memset(&entry, 0, sizeof(entry));
    mw_load_tell(&load, &entry);
    key.data = (const char *)load.bytes + MW_FORMAT_SUPER;
    key.len = load.super.key_len;
    return walk->each(walk->baton, &key, &entry);
}

apr_status_t mw_file_keys(void *store, const cachemw_call_t *call,
                          const char *pattern, cachemw_keys_fn *each,
                          void *baton)
{
    walk_t walk = { .file = store, .call = call, .each = each, .baton = baton };
    apr_status_t rv = mw_dir_need(store, call->now);

    (void)pattern;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    apr_pool_create(&walk.pool, call->pool);
    rv = mw_index_walk(walk.file->index, call->now, walk_tell, &walk);
    apr_pool_destroy(walk.pool);
    return rv;
}
