/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_strings.h"

#include "core/crc32c.h"
#include "dir.h"
#include "format.h"
#include "load.h"
#include "path.h"
#include "write.h"

/** Bytes gathered before they are written. */
#define WRITE_BUFFER 65536

/** Of a body of unknown length so much is reserved in advance, at most. */
#define WRITE_AHEAD (4 * 1024 * 1024)

/** A set in progress. */
typedef struct set_t {
    mw_digest_t digest;
    mw_path_t path;
    const char *key;
    mw_format_super_t super;
    mw_index_room_t room;
    apr_uint64_t reserved; /**< bytes of the file that there is room for */
    apr_off_t announced;   /**< -1: unknown */
    int fd;                /**< -1: there is no file yet */
    char temp[MW_INDEX_TEMP_NAME];
    unsigned char *buffer;
    apr_size_t size;     /**< of the buffer */
    apr_size_t used;     /**< of the buffer */
    apr_uint64_t offset; /**< in the file, of the buffer */
} set_t;

apr_off_t mw_file_object_limit(void *store)
{
    const mw_file_t *file = store;

    return (apr_off_t)(file->max_bytes / 4);
}

apr_time_t mw_write_expires(const mw_file_t *file, apr_time_t stored,
                            apr_time_t expires)
{
    if (file->max_age && expires - stored > file->max_age) {
        return stored + file->max_age;
    }
    return expires;
}

apr_status_t mw_write_times(int fd, apr_time_t stored, apr_time_t expires)
{
    struct timespec times[2];

    times[0].tv_sec = (time_t)apr_time_sec(stored);
    times[0].tv_nsec = (long)apr_time_usec(stored) * 1000;
    times[1].tv_sec = (time_t)apr_time_sec(expires);
    times[1].tv_nsec = (long)apr_time_usec(expires) * 1000;
    return futimens(fd, times) == 0 ? APR_SUCCESS : errno;
}

apr_status_t mw_write_at(int fd, const void *data, apr_size_t length,
                         apr_uint64_t at)
{
    while (length) {
        ssize_t n = pwrite(fd, data, length, (off_t)at);

        if (n > 0) {
            data = (const char *)data + n;
            at += (apr_uint64_t)n;
            length -= (apr_size_t)n;
        }
        else if (n == 0) {
            return APR_ENOSPC;
        }
        else if (errno != EINTR) {
            return errno;
        }
    }
    return APR_SUCCESS;
}

apr_status_t mw_write_status(mw_file_t *file, apr_status_t rv)
{
    if (rv == ENOENT) {
        mw_dir_doubt(file);
    }
    return rv == EDQUOT || rv == EFBIG ? APR_ENOSPC : rv;
}

/** The same for what can only be the disk: the index has given its room. */
static apr_status_t disk_status(mw_file_t *file, apr_status_t rv)
{
    apr_status_t status = mw_write_status(file, rv);

    if (status == APR_ENOSPC) {
        file->services->log(file->services, CACHEMW_LOG_WARNING, rv,
                            "cache_dir=%s: there is less space than max_bytes "
                            "says; what does not fit is not stored",
                            file->path);
    }
    return status;
}

static apr_status_t temp_make(mw_file_t *file, set_t *set)
{
    mw_index_temp_name(file->index, set->temp);
    set->fd = mw_path_temp(file->root, set->temp);
    return set->fd < 0 ? errno : APR_SUCCESS;
}

/** The body turns out to be a long one: it moves to where it can be mapped. */
static void set_align(set_t *set)
{
    apr_size_t from = (apr_size_t)set->super.body_offset;
    apr_size_t gap;

    mw_format_align(&set->super, MW_INDEX_BLOCK);
    gap = (apr_size_t)set->super.body_offset - from;
    memmove(set->buffer + from + gap, set->buffer + from, set->used - from);
    memset(set->buffer + from, 0, gap);
    set->used += gap;
}

/** Write what has been gathered. */
static apr_status_t set_flush(mw_file_t *file, set_t *set)
{
    apr_status_t rv = set->fd < 0 ? temp_make(file, set) : APR_SUCCESS;

    if (rv == APR_SUCCESS) {
        rv = mw_write_at(set->fd, set->buffer, set->used, set->offset);
    }
    if (rv == APR_SUCCESS) {
        set->offset += set->used;
        set->used = 0;
    }
    return rv;
}

static void set_gather(set_t *set, const void *data, apr_size_t length)
{
    memcpy(set->buffer + set->used, data, length);
    set->used += length;
}

/** Have room for so many bytes of file, and some more while none are known. */
static apr_status_t set_reserve(mw_file_t *file, set_t *set,
                                apr_uint64_t length, apr_time_t now)
{
    apr_uint64_t ahead = set->announced < 0 ? length : 0;
    apr_status_t rv;

    if (length <= set->reserved) {
        return APR_SUCCESS;
    }
    if (ahead > WRITE_AHEAD) {
        ahead = WRITE_AHEAD;
    }
    rv = mw_index_reserve(file->index, &set->room, length + ahead, now);
    if (rv != APR_SUCCESS && ahead) {
        ahead = 0;
        rv = mw_index_reserve(file->index, &set->room, length, now);
    }
    if (rv == APR_SUCCESS) {
        set->reserved = length + ahead;
    }
    return rv;
}

static void set_drop(mw_file_t *file, set_t *set)
{
    if (set->fd >= 0) {
        close(set->fd);
        mw_path_unlink_temp(file->root, set->temp);
        set->fd = -1;
    }
    mw_index_release(file->index, &set->room);
}

/** Gather what comes before the body; the superblock for now as zeros. */
static void set_front(set_t *set, const cachemw_key_t *key,
                      const cachemw_entry_t *entry, apr_pool_t *pool)
{
    apr_size_t front = MW_FORMAT_SUPER + key->len + entry->head_len;

    set->size = front + WRITE_BUFFER;
    if (set->announced >= 0 && set->announced < WRITE_BUFFER) {
        set->size = front + (apr_size_t)set->announced;
    }
    /* The rest is for set_align(). */
    set->buffer = apr_palloc(pool, set->size + MW_INDEX_BLOCK);
    memset(set->buffer, 0, MW_FORMAT_SUPER);
    set->used = MW_FORMAT_SUPER;
    set_gather(set, key->data, key->len);
    set_gather(set, entry->head, entry->head_len);
    set->key = apr_pmemdup(pool, key->data, key->len);
}

apr_status_t mw_file_set_begin(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry, void **out)
{
    mw_file_t *file = store;
    apr_uint64_t length =
        MW_FORMAT_SUPER + key->len + entry->head_len + MW_INDEX_BLOCK;
    apr_status_t rv = mw_dir_need(file, call->now);
    set_t *set;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (entry->body_len > mw_file_object_limit(file)
        || key->len > CACHEMW_KEY_MAX || entry->head_len > CACHEMW_HEAD_MAX) {
        return APR_ENOSPC;
    }
    set = apr_pcalloc(call->pool, sizeof(*set));
    set->fd = -1;
    set->announced = entry->body_len;
    if (set->announced > 0) {
        length += (apr_uint64_t)set->announced;
    }
    rv = set_reserve(file, set, length, call->now);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_load_digest(file, key, &set->digest);
    mw_path_make(&set->path, file->levels, &set->digest);
    mw_format_begin(&set->super, key, entry);
    set->super.stored = call->now;
    set->super.heads[0].expires =
        mw_write_expires(file, call->now, entry->expires);
    set_front(set, key, entry, call->pool);
    *out = set;
    return APR_SUCCESS;
}

apr_status_t mw_file_set_write(void *store, const cachemw_call_t *call,
                               void *data, const char *bytes, apr_size_t length)
{
    mw_file_t *file = store;
    set_t *set = data;
    apr_off_t limit = mw_file_object_limit(file);
    apr_status_t rv;

    if (set->announced >= 0 && set->announced < limit) {
        limit = set->announced;
    }
    if (length > (apr_uint64_t)limit - set->super.body_len) {
        return APR_ENOSPC;
    }
    rv = set_reserve(file, set,
                     set->offset + set->used + length
                         + (set->offset ? 0 : MW_INDEX_BLOCK),
                     call->now);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    set->super.body_len += length;
    set->super.body_crc = mw_crc32c(set->super.body_crc, bytes, length);
    while (length && rv == APR_SUCCESS) {
        apr_size_t n = set->size - set->used;

        if (n > length) {
            n = length;
        }
        set_gather(set, bytes, n);
        bytes += n;
        length -= n;
        if (length) {
            if (set->offset == 0) {
                set_align(set);
            }
            rv = set_flush(file, set);
        }
    }
    return disk_status(file, rv);
}

/** The superblock, which makes an entry of the file. */
static apr_status_t set_finish(mw_file_t *file, set_t *set)
{
    unsigned char bytes[MW_FORMAT_SUPER];
    int is_gathered = set->offset == 0;
    apr_status_t rv;

    set->super.epoch = mw_dir_stamp(file);
    if (is_gathered) {
        mw_format_encode(&set->super, set->key, set->buffer);
    }
    rv = set_flush(file, set);
    if (rv == APR_SUCCESS && !is_gathered) {
        mw_format_encode(&set->super, set->key, bytes);
        rv = mw_write_at(set->fd, bytes, sizeof(bytes), 0);
    }
    if (rv == APR_SUCCESS) {
        rv = mw_write_times(set->fd, set->super.stored,
                            set->super.heads[0].expires);
    }
    return rv;
}

/** What set_publish() works with. */
typedef struct publishing_t {
    int root;
    int dir; /**< where it goes */
    const set_t *set;
} publishing_t;

static apr_status_t publish_work(void *baton, const mw_digest_t *digest,
                                 mw_index_facts_t *facts)
{
    const publishing_t *publishing = baton;
    const set_t *set = publishing->set;
    apr_status_t rv =
        mw_path_publish(publishing->root, set->temp, publishing->dir,
                        &set->path, facts->exists);

    (void)digest;
    if (rv == APR_SUCCESS) {
        facts->exists = 1;
        facts->size = mw_format_size(&set->super);
        facts->expires = set->super.heads[0].expires;
    }
    return rv;
}

static apr_status_t set_publish(mw_file_t *file, set_t *set, apr_time_t now)
{
    publishing_t publishing = { .root = file->root, .set = set };
    apr_status_t rv;

    publishing.dir = mw_path_enter(file->root, &set->path, 1);
    if (publishing.dir < 0) {
        return errno;
    }
    rv = mw_index_change(file->index, &set->digest, &set->room, publish_work,
                         &publishing, now);
    mw_path_leave(file->root, publishing.dir);
    return rv;
}

apr_status_t mw_file_set_commit(void *store, const cachemw_call_t *call,
                                void *data)
{
    mw_file_t *file = store;
    set_t *set = data;
    apr_status_t rv = APR_EGENERAL;

    if (set->announced < 0
        || (apr_uint64_t)set->announced == set->super.body_len) {
        rv = disk_status(file, set_finish(file, set));
    }
    if (rv == APR_SUCCESS) {
        rv = mw_write_status(file, set_publish(file, set, call->now));
    }
    if (rv != APR_SUCCESS) {
        set_drop(file, set);
        return rv;
    }
    close(set->fd);
    return APR_SUCCESS;
}

void mw_file_set_abort(void *store, void *data)
{
    set_drop(store, data);
}
