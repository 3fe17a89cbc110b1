/* SPDX-License-Identifier: Apache-2.0 */

#include "core/lazy_bucket.h"

/** What all buckets that were split or copied from one share. */
typedef struct lazy_t {
    apr_bucket_refcount refcount;
    const mw_lazy_t *functions;
    void *source;
    apr_status_t rv; /**< the first failure: nothing is fetched after it */
} lazy_t;

static void lazy_destroy(void *data)
{
    lazy_t *lazy = data;

    if (apr_bucket_shared_destroy(lazy)) {
        lazy->functions->destroy(lazy->source);
        apr_bucket_free(lazy);
    }
}

/** @return the bytes in a brigade, which must be data of known length; 0 when
 *  it is not, or when there are more than limit */
static apr_size_t piece_length(const apr_bucket_brigade *piece,
                               apr_size_t limit)
{
    apr_size_t length = 0;
    apr_bucket *bucket;

    for (bucket = APR_BRIGADE_FIRST(piece);
         bucket != APR_BRIGADE_SENTINEL(piece);
         bucket = APR_BUCKET_NEXT(bucket)) {
        if (APR_BUCKET_IS_METADATA(bucket) || bucket->length > limit - length) {
            return 0;
        }
        length += bucket->length;
    }
    return length;
}

/**
 * Ask the source for a piece.
 * @param piece a ring without a pool; gets buckets that are not empty
 */
static apr_status_t piece_fetch(lazy_t *lazy, apr_off_t offset,
                                apr_size_t limit, apr_bucket_brigade *piece,
                                apr_size_t *length)
{
    apr_bucket_brigade *fetched;
    apr_pool_t *pool;
    apr_status_t rv;

    rv = apr_pool_create(&pool, NULL);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    fetched = apr_brigade_create(pool, piece->bucket_alloc);
    rv = lazy->functions->read(lazy->source, offset, limit, fetched, pool);
    if (rv == APR_SUCCESS) {
        *length = piece_length(fetched, limit);
        rv = *length ? APR_SUCCESS : APR_EINCOMPLETE;
    }
    while (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(fetched)) {
        apr_bucket *bucket = APR_BRIGADE_FIRST(fetched);

        if (bucket->length) {
            APR_BUCKET_REMOVE(bucket);
            APR_BRIGADE_INSERT_TAIL(piece, bucket);
        }
        else {
            apr_bucket_delete(bucket);
        }
    }
    apr_pool_destroy(pool);
    return rv;
}

/** Read the first bucket of a piece; it may turn out to hold less. */
static apr_status_t piece_open(apr_bucket_brigade *piece, apr_size_t fetched,
                               const char **text, apr_size_t *length)
{
    apr_status_t rv =
        apr_bucket_read(APR_BRIGADE_FIRST(piece), text, length, APR_BLOCK_READ);

    if (rv == APR_SUCCESS
        && (!*length || piece_length(piece, fetched) != fetched)) {
        rv = APR_EINCOMPLETE;
    }
    return rv;
}

/* A bucket is known by its address, which the reader goes on from: it takes
 * over what the first bucket of the piece stands for, and the others follow. */
static void bucket_become(apr_bucket *bucket, apr_bucket_brigade *piece)
{
    apr_bucket *first = APR_BRIGADE_FIRST(piece);

    bucket->type->destroy(bucket->data);
    bucket->type = first->type;
    bucket->length = first->length;
    bucket->start = first->start;
    bucket->data = first->data;
    APR_BUCKET_REMOVE(first);
    first->free(first);
    if (!APR_BRIGADE_EMPTY(piece)) {
        APR_RING_SPLICE_AFTER(bucket, APR_BRIGADE_FIRST(piece),
                              APR_BRIGADE_LAST(piece), link);
    }
}

static apr_status_t bucket_cut(apr_bucket *bucket, const char **text,
                               apr_size_t *length)
{
    lazy_t *lazy = bucket->data;

    lazy->functions->cut(lazy->source, bucket, lazy->rv);
    apr_bucket_immortal_make(bucket, "", 0);
    lazy_destroy(lazy);
    *text = "";
    *length = 0;
    return APR_SUCCESS;
}

static apr_status_t lazy_read(apr_bucket *bucket, const char **text,
                              apr_size_t *length, apr_read_type_e block)
{
    lazy_t *lazy = bucket->data;
    const apr_size_t limit =
        bucket->length < CACHEMW_PIECE_MAX ? bucket->length : CACHEMW_PIECE_MAX;
    apr_bucket_brigade piece;
    apr_size_t fetched = 0;

    (void)block;
    piece.p = NULL;
    piece.bucket_alloc = bucket->list;
    APR_RING_INIT(&piece.list, apr_bucket, link);
    if (lazy->rv == APR_SUCCESS) {
        lazy->rv = piece_fetch(lazy, bucket->start, limit, &piece, &fetched);
    }
    if (lazy->rv == APR_SUCCESS) {
        lazy->rv = piece_open(&piece, fetched, text, length);
    }
    if (lazy->rv == APR_SUCCESS && fetched < bucket->length) {
        lazy->rv = apr_bucket_split(bucket, fetched);
    }
    if (lazy->rv != APR_SUCCESS) {
        while (!APR_BRIGADE_EMPTY(&piece)) {
            apr_bucket_delete(APR_BRIGADE_FIRST(&piece));
        }
        return bucket_cut(bucket, text, length);
    }
    bucket_become(bucket, &piece);
    return APR_SUCCESS;
}

apr_bucket *mw_bucket_lazy_create(const mw_lazy_t *functions, void *source,
                                  apr_off_t offset, apr_off_t length,
                                  apr_bucket_alloc_t *list)
{
    apr_bucket *bucket;
    lazy_t *lazy;

    if ((apr_uint64_t)length >= (apr_uint64_t)APR_SIZE_MAX) {
        return NULL;
    }
    lazy = apr_bucket_alloc(sizeof(*lazy), list);
    lazy->functions = functions;
    lazy->source = source;
    lazy->rv = APR_SUCCESS;
    bucket = apr_bucket_alloc(sizeof(*bucket), list);
    APR_BUCKET_INIT(bucket);
    bucket->free = apr_bucket_free;
    bucket->list = list;
    bucket = apr_bucket_shared_make(bucket, lazy, offset, (apr_size_t)length);
    bucket->type = &mw_bucket_type_lazy;
    return bucket;
}

const apr_bucket_type_t mw_bucket_type_lazy = {
    .name = "CACHEMW",
    .num_func = 5,
    .is_metadata = APR_BUCKET_DATA,
    .destroy = lazy_destroy,
    .read = lazy_read,
    .setaside = apr_bucket_setaside_noop,
    .split = apr_bucket_shared_split,
    .copy = apr_bucket_shared_copy,
};
