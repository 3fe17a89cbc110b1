/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "amend.h"
#include "dir.h"
#include "load.h"
#include "path.h"
#include "write.h"

/** What is done to a file under its shard's lock. */
typedef struct work_t {
    const mw_file_t *file;
    const cachemw_call_t *call;
    const cachemw_key_t *key;
    const cachemw_id_t *id;       /**< of the entry that is meant; NULL: any */
    const cachemw_entry_t *entry; /**< the new head */
    mw_path_t path;
} work_t;

static apr_status_t work_load(const work_t *work, int flags, mw_load_t *load)
{
    apr_status_t rv;

    load->fd = mw_path_open(work->file->root, &work->path, flags);
    if (load->fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? APR_NOTFOUND : errno;
    }
    load->room = MW_LOAD_FRONT;
    load->bytes = apr_palloc(work->call->pool, load->room);
    rv =
        mw_load(work->file, work->key, work->call->now, work->call->pool, load);
    if (rv == APR_SUCCESS
        && memcmp(&load->super.id, work->id, sizeof(*work->id))) {
        rv = APR_EMISMATCH;
    }
    if (rv != APR_SUCCESS) {
        close(load->fd);
    }
    return rv;
}

static apr_status_t remove_work(void *baton, const mw_digest_t *digest,
                                mw_index_facts_t *facts)
{
    const work_t *work = baton;
    mw_load_t load;
    apr_status_t rv;

    (void)digest;
    if (work->id) {
        rv = work_load(work, O_RDONLY, &load);
        if (rv == APR_EMISMATCH) {
            return APR_NOTFOUND;
        }
        if (rv == APR_SUCCESS) {
            close(load.fd);
        }
    }
    rv = mw_path_unlink(work->file->root, &work->path);
    if (rv == APR_SUCCESS) {
        facts->exists = 0;
    }
    return rv;
}

/** The head, then what says that it is there; see format.h. */
static apr_status_t head_write(const mw_load_t *load, int which,
                               const cachemw_entry_t *entry)
{
    const mw_format_head_t *head = &load->super.heads[which];
    unsigned char bytes[MW_FORMAT_DESCRIPTOR];
    apr_status_t rv;

    mw_format_descriptor_encode(head, bytes);
    rv = mw_write_at(load->fd, entry->head, entry->head_len, head->offset);
    if (rv == APR_SUCCESS) {
        rv = mw_write_at(load->fd, bytes, sizeof(bytes),
                         mw_format_descriptor_offset(which));
    }
    return rv;
}

static apr_status_t head_work(void *baton, const mw_digest_t *digest,
                              mw_index_facts_t *facts)
{
    const work_t *work = baton;
    cachemw_entry_t entry = *work->entry;
    struct stat info;
    mw_load_t load;
    apr_status_t rv = work_load(work, O_RDWR, &load);

    (void)digest;
    if (rv != APR_SUCCESS) {
        return rv == APR_EMISMATCH ? APR_NOTFOUND : rv;
    }
    entry.expires =
        mw_write_expires(work->file, load.super.stored, entry.expires);
    rv = head_write(&load, mw_format_amend(&load.super, &entry), &entry);
    if (rv == APR_SUCCESS) {
        rv = mw_write_times(load.fd, load.super.stored, entry.expires);
    }
    if (rv == APR_SUCCESS && fstat(load.fd, &info) != 0) {
        rv = errno;
    }
    if (rv == APR_SUCCESS) {
        facts->exists = 1;
        facts->size = (apr_uint64_t)info.st_size;
        facts->expires = entry.expires;
    }
    close(load.fd);
    return rv;
}

/** @return 0: there is nothing under the key, and the disk need not be asked */
static int work_begin(work_t *work, mw_digest_t *digest)
{
    mw_index_facts_t facts;

    mw_load_digest(work->file, work->key, digest);
    mw_path_make(&work->path, work->file->levels, digest);
    return mw_index_find(work->file->index, digest, 0, &facts)
           != MW_INDEX_ABSENT;
}

apr_status_t mw_file_remove(void *store, const cachemw_call_t *call,
                            const cachemw_key_t *key, const cachemw_id_t *id)
{
    mw_file_t *file = store;
    work_t work = { .file = file, .call = call, .key = key, .id = id };
    mw_digest_t digest;
    apr_status_t rv = mw_dir_need(file, call->now);

    if (rv != APR_SUCCESS || !work_begin(&work, &digest)) {
        return rv;
    }
    return mw_index_change(file->index, &digest, NULL, remove_work, &work,
                           call->now);
}

apr_status_t mw_file_set_head(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              const cachemw_entry_t *entry)
{
    mw_file_t *file = store;
    work_t work = {
        .file = file, .call = call, .key = key, .id = id, .entry = entry
    };
    mw_index_room_t room = { .adds = 1 };
    mw_digest_t digest;
    apr_status_t rv = mw_dir_need(file, call->now);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (!work_begin(&work, &digest)) {
        return APR_NOTFOUND;
    }
    rv = mw_index_reserve(file->index, &room,
                          MW_FORMAT_HEAD_ROOM((apr_uint64_t)entry->head_len)
                              + MW_INDEX_BLOCK,
                          call->now);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = mw_index_change(file->index, &digest, &room, head_work, &work,
                         call->now);
    if (rv != APR_SUCCESS) {
        mw_index_release(file->index, &room);
    }
    return mw_write_status(file, rv);
}
