/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file api_entry.h
 * @brief How a store keeps what clients of the API put there.
 *
 * Their key is kept under one that no page has, and beside their head what they
 * get back exactly, though the store needs none of it: the key, and when the
 * entry expires by their clock. By the store's it expires when the time to live
 * is over that came with it.
 */
#ifndef MW_API_ENTRY_H
#define MW_API_ENTRY_H

#include "mod_cachemw.h"

/** Longest key of a client, in the URL and in the value. */
#define MW_API_KEY_MAX 8192

/**
 * The key in the store: a NUL, "api", a NUL, and what the URL names. The key of
 * a page begins with a namespace, which is never empty.
 */
cachemw_key_t mw_api_key(const char *name, apr_size_t length, apr_pool_t *pool);

/**
 * What is stored as the entry's head.
 * @param entry as the client gave it: head, head_len and expires count
 * @param checksum as mw_store_wants_checksum()
 * @param bytes,length the result, in pool; not in entry
 * @return APR_ENOSPC: too long for a head
 */
apr_status_t mw_api_head_encode(const cachemw_key_t *key,
                                const cachemw_entry_t *entry, int checksum,
                                apr_pool_t *pool, const void **bytes,
                                apr_size_t *length);

/**
 * The reverse.
 * @param entry its head, as the store gave it, becomes the client's, and its
 *        expires; both point into the old head, as the key does
 * @return APR_EINCOMPLETE: it is no such head
 */
apr_status_t mw_api_head_decode(cachemw_entry_t *entry, cachemw_key_t *key);

/** Services that a head may have come through, each within the next. */
#define MW_API_HOPS_MAX 8

/**
 * Whether a response, or a choice of variants, is in a head, whatever services
 * it has come through: none of it is believed before.
 * @param body_len -1: not known
 */
int mw_api_head_is_sound(const void *head, apr_size_t head_len,
                         apr_off_t body_len, apr_pool_t *pool);

/**
 * Whether an entry that gets another head is invalidated by that: a response
 * whose new head says so, or a choice of variants whose serial is another one.
 * Both heads are sound.
 */
int mw_api_head_invalidates(const cachemw_entry_t *old,
                            const cachemw_entry_t *entry, apr_pool_t *pool);

#endif
