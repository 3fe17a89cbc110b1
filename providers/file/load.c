/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "apr_siphash.h"

#include "load.h"

/**
 * Readings until one was not disturbed by an amendment: the first two at once,
 * then with pauses, for who writes may have been interrupted.
 */
#define LOAD_TRIES 5
#define LOAD_PAUSE(tries) ((tries) < 2 ? 0 : 250 << (tries)) /* µs */

void mw_load_digest(const mw_file_t *file, const cachemw_key_t *key,
                    mw_digest_t *digest)
{
    const unsigned char *secret = file->shared->mark.secret;

    apr_siphash24_auth(digest->bytes, key->data, key->len, secret);
    apr_siphash24_auth(digest->bytes + APR_SIPHASH_DSIZE, key->data, key->len,
                       secret + APR_SIPHASH_KSIZE);
}

/** One read. @param length set to what there was: less than size is the end */
static apr_status_t bytes_read(int fd, void *to, apr_size_t size,
                               apr_uint64_t at, apr_size_t *length)
{
    ssize_t n;

    do {
        n = pread(fd, to, size, (off_t)at);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EISDIR ? APR_EINCOMPLETE : errno;
    }
    *length = (apr_size_t)n;
    return APR_SUCCESS;
}

apr_status_t mw_load_bytes(int fd, void *to, apr_size_t length, apr_uint64_t at)
{
    while (length) {
        apr_size_t got = 0;
        apr_status_t rv = bytes_read(fd, to, length, at, &got);

        if (rv != APR_SUCCESS || !got) {
            return rv == APR_SUCCESS ? APR_EOF : rv;
        }
        to = (char *)to + got;
        at += got;
        length -= got;
    }
    return APR_SUCCESS;
}

apr_status_t mw_load_super(int fd, mw_format_super_t *super)
{
    unsigned char bytes[MW_FORMAT_SUPER + CACHEMW_KEY_MAX];
    apr_size_t length = 0;
    apr_status_t rv = bytes_read(fd, bytes, sizeof(bytes), 0, &length);

    return rv == APR_SUCCESS ? mw_format_decode(bytes, length, super) : rv;
}

/** @return APR_EAGAIN: something does not match its checksum, perhaps because
 *          it is being written; APR_EINCOMPLETE; trouble */
static apr_status_t load_try(mw_load_t *load, apr_pool_t *pool)
{
    const mw_format_head_t *head;
    apr_status_t rv;
    unsigned char *copy;

    rv = mw_format_decode(load->bytes, load->length, &load->super);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    head = mw_format_head(&load->super);
    if (head->offset + head->length <= load->length) {
        load->head = load->bytes + head->offset;
    }
    else {
        copy = apr_palloc(pool, (apr_size_t)head->length + 1);
        rv = mw_load_bytes(load->fd, copy, head->length, head->offset);
        load->head = copy;
    }
    if (rv != APR_SUCCESS) {
        return rv == APR_EOF ? APR_EINCOMPLETE : rv;
    }
    return mw_format_head_is(head, load->head) ? APR_SUCCESS : APR_EAGAIN;
}

/** Make room for the longest key there is. @return 0: there was */
static int load_widen(mw_load_t *load, apr_pool_t *pool)
{
    if (load->length < load->room
        || load->room >= MW_FORMAT_SUPER + CACHEMW_KEY_MAX) {
        return 0;
    }
    load->room = MW_FORMAT_SUPER + CACHEMW_KEY_MAX;
    load->bytes = apr_palloc(pool, load->room);
    return 1;
}

/** Whether what is whole is also what is wanted, and still good. */
static apr_status_t load_judge(const mw_file_t *file, const cachemw_key_t *key,
                               apr_time_t now, const mw_load_t *load)
{
    const mw_format_super_t *super = &load->super;

    if (key
        && (key->len != super->key_len
            || memcmp(key->data, load->bytes + MW_FORMAT_SUPER, key->len))) {
        return APR_EINCOMPLETE;
    }
    if (!mw_mark_trusts(&file->shared->mark, super->epoch)
        || mw_format_head(super)->expires <= now
        || (file->max_age && super->stored + file->max_age <= now)) {
        return APR_NOTFOUND;
    }
    return APR_SUCCESS;
}

apr_status_t mw_load(const mw_file_t *file, const cachemw_key_t *key,
                     apr_time_t now, apr_pool_t *pool, mw_load_t *load)
{
    apr_status_t rv = APR_EAGAIN;
    int tries;

    for (tries = 0; rv == APR_EAGAIN && tries < LOAD_TRIES; tries++) {
        if (LOAD_PAUSE(tries)) {
            apr_sleep(LOAD_PAUSE(tries));
        }
        rv = bytes_read(load->fd, load->bytes, load->room, 0, &load->length);
        if (rv == APR_SUCCESS) {
            rv = load_try(load, pool);
        }
        if (rv == APR_EINCOMPLETE && load_widen(load, pool)) {
            rv = APR_EAGAIN;
        }
    }
    if (rv == APR_SUCCESS) {
        rv = load_judge(file, key, now, load);
    }
    return rv == APR_EAGAIN ? APR_EINCOMPLETE : rv;
}

void mw_load_tell(const mw_load_t *load, cachemw_entry_t *entry)
{
    const mw_format_head_t *head = mw_format_head(&load->super);

    entry->id = load->super.id;
    entry->head = load->head;
    entry->head_len = head->length;
    entry->expires = head->expires;
    entry->body_len = (apr_off_t)load->super.body_len;
}
