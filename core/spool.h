/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file spool.h
 * @brief Collects a body of unknown length: in memory up to a limit, from there
 *        on in a temporary file without a name.
 *
 * Used for providers without streaming slots. One thread at a time.
 */
#ifndef MW_SPOOL_H
#define MW_SPOOL_H

#include "mod_cachemw.h"

typedef struct mw_spool_t mw_spool_t;

typedef apr_status_t mw_temp_file_fn(void *baton, apr_file_t **file,
                                     apr_pool_t *pool);

/**
 * @param memory_limit bytes kept in memory before a file is made
 * @param limit more than this is APR_ENOSPC
 * @param temp_file makes the file, in pool
 * @param pool the spool's life; its memory is freed earlier by destroy
 */
mw_spool_t *mw_spool_make(apr_size_t memory_limit, apr_off_t limit,
                          mw_temp_file_fn *temp_file, void *baton,
                          apr_pool_t *pool);

/** @return APR_ENOSPC above the limit; the file's error. An error stays: every
 *  later call returns it. */
apr_status_t mw_spool_write(mw_spool_t *spool, const char *data,
                            apr_size_t length);

/**
 * Append the body to a brigade: memory of at most 64 KB a bucket, or file
 * buckets; both valid until destroy, memory that is set aside for longer. Once
 * only; the spool takes no more writes afterwards.
 */
apr_status_t mw_spool_brigade(mw_spool_t *spool, apr_bucket_brigade *body);

/** Free memory and file now rather than with the pool. Idempotent. */
void mw_spool_destroy(mw_spool_t *spool);

#endif
