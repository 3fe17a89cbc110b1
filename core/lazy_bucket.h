/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file lazy_bucket.h
 * @brief A bucket of known length whose bytes are fetched piece by piece when
 *        somebody reads it.
 *
 * Its length is exact, so Content-Length and ranges work; it can be split,
 * copied and set aside, and needs no pool of the request. When a piece cannot
 * be had the response cannot be completed: the bucket calls `cut`, which must
 * make sure that the client sees a broken transfer, becomes empty and reports
 * success.
 */
#ifndef MW_LAZY_BUCKET_H
#define MW_LAZY_BUCKET_H

#include "mod_cachemw.h"

/**
 * Fetch a piece.
 * @param pool for the call only
 * @param body gets 1 to limit bytes from offset on, appended, in buckets that do
 *        not depend on pool; anything else counts as a failure
 */
typedef apr_status_t mw_lazy_read_fn(void *source, apr_off_t offset,
                                     apr_size_t limit, apr_bucket_brigade *body,
                                     apr_pool_t *pool);

/**
 * The body cannot be completed.
 * @param bucket the lazy bucket, in a brigade: the place of the fault. It is
 *        emptied afterwards by the caller. Called for each further bucket on
 *        the same source that is read, without another fetch.
 */
typedef void mw_lazy_cut_fn(void *source, apr_bucket *bucket, apr_status_t rv);

typedef struct mw_lazy_t {
    mw_lazy_read_fn *read;
    mw_lazy_cut_fn *cut;
    /** Release the source; once, when the last bucket on it is gone. */
    void (*destroy)(void *source);
} mw_lazy_t;

extern const apr_bucket_type_t mw_bucket_type_lazy;
#define MW_BUCKET_IS_LAZY(e) ((e)->type == &mw_bucket_type_lazy)

/**
 * @param source handed to the functions; owned by the bucket from here on. It
 *        must not depend on a request's pool.
 * @param offset,length the part of the body that it stands for; length > 0
 * @return NULL, and the source is still the caller's, when a bucket cannot be
 *         that long (from 4 GB on where a pointer has 32 bits)
 */
apr_bucket *mw_bucket_lazy_create(const mw_lazy_t *functions, void *source,
                                  apr_off_t offset, apr_off_t length,
                                  apr_bucket_alloc_t *list);

#endif
