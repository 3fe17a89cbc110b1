/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "core/spool.h"

#define BLOCK_MIN 4096
#define BLOCK_MAX 65536

typedef struct block_t {
    struct block_t *next;
    apr_size_t used;
    apr_size_t size;
    char data[];
} block_t;

struct mw_spool_t {
    apr_size_t memory_limit;
    apr_off_t limit;
    mw_temp_file_fn *temp_file;
    void *baton;
    apr_off_t length;
    apr_status_t rv;    /**< the first error stays */
    apr_pool_t *memory; /**< of the blocks; NULL: none */
    apr_pool_t *life;   /**< of everything; NULL: destroyed */
    apr_file_t *file;
    block_t *first;
    block_t *last;
};

mw_spool_t *mw_spool_make(apr_size_t memory_limit, apr_off_t limit,
                          mw_temp_file_fn *temp_file, void *baton,
                          apr_pool_t *pool)
{
    mw_spool_t *spool = apr_pcalloc(pool, sizeof(*spool));

    spool->memory_limit = memory_limit;
    spool->limit = limit;
    spool->temp_file = temp_file;
    spool->baton = baton;
    apr_pool_create(&spool->life, pool);
    apr_pool_create(&spool->memory, spool->life);
    return spool;
}

/* Blocks double, so that small bodies take little and large ones few. */
static block_t *block_append(mw_spool_t *spool)
{
    apr_size_t size = spool->last ? 2 * spool->last->size : BLOCK_MIN;
    block_t *block;

    if (size > BLOCK_MAX) {
        size = BLOCK_MAX;
    }
    block = apr_palloc(spool->memory, sizeof(*block) + size);
    block->next = NULL;
    block->used = 0;
    block->size = size;
    *(spool->last ? &spool->last->next : &spool->first) = block;
    spool->last = block;
    return block;
}

static void memory_write(mw_spool_t *spool, const char *data, apr_size_t length)
{
    block_t *block = spool->last;

    while (length) {
        apr_size_t n;

        if (!block || block->used == block->size) {
            block = block_append(spool);
        }
        n = block->size - block->used;
        n = n < length ? n : length;
        memcpy(block->data + block->used, data, n);
        block->used += n;
        data += n;
        length -= n;
    }
}

/** Move what is in memory to a new file. */
static apr_status_t file_begin(mw_spool_t *spool)
{
    const block_t *block;
    apr_status_t rv = spool->temp_file(spool->baton, &spool->file, spool->life);

    for (block = spool->first; block && rv == APR_SUCCESS;
         block = block->next) {
        rv = apr_file_write_full(spool->file, block->data, block->used, NULL);
    }
    spool->first = NULL;
    spool->last = NULL;
    apr_pool_clear(spool->memory);
    return rv;
}

static apr_status_t spool_append(mw_spool_t *spool, const char *data,
                                 apr_size_t length)
{
    apr_status_t rv;

    if ((apr_uint64_t)length > (apr_uint64_t)(spool->limit - spool->length)) {
        return APR_ENOSPC;
    }
    if (!spool->file
        && length <= spool->memory_limit - (apr_size_t)spool->length) {
        memory_write(spool, data, length);
        return APR_SUCCESS;
    }
    if (!spool->file) {
        rv = file_begin(spool);
        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    return apr_file_write_full(spool->file, data, length, NULL);
}

apr_status_t mw_spool_write(mw_spool_t *spool, const char *data,
                            apr_size_t length)
{
    if (spool->rv == APR_SUCCESS) {
        spool->rv = spool_append(spool, data, length);
    }
    if (spool->rv == APR_SUCCESS) {
        spool->length += (apr_off_t)length;
    }
    return spool->rv;
}

apr_status_t mw_spool_brigade(mw_spool_t *spool, apr_bucket_brigade *body)
{
    const block_t *block;
    apr_bucket *bucket;

    if (spool->rv != APR_SUCCESS) {
        return spool->rv;
    }
    spool->rv = APR_EINVAL;
    if (spool->file) {
        apr_status_t rv = apr_file_flush(spool->file);

        if (rv == APR_SUCCESS) {
            apr_brigade_insert_file(body, spool->file, 0, spool->length,
                                    spool->life);
        }
        return rv;
    }
    /* Transient: who keeps one beyond the spool sets it aside and gets a
     * copy. */
    for (block = spool->first; block; block = block->next) {
        bucket = apr_bucket_transient_create(block->data, block->used,
                                             body->bucket_alloc);
        APR_BRIGADE_INSERT_TAIL(body, bucket);
    }
    return APR_SUCCESS;
}

void mw_spool_destroy(mw_spool_t *spool)
{
    if (spool->life) {
        apr_pool_destroy(spool->life);
    }
    spool->life = NULL;
    spool->memory = NULL;
    spool->file = NULL;
    spool->first = NULL;
    spool->last = NULL;
    spool->rv = APR_EINVAL;
}
