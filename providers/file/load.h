/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file load.h
 * @brief Reading an entry's file, and believing it only after a look.
 */
#ifndef MW_FILE_LOAD_H
#define MW_FILE_LOAD_H

#include "format.h"
#include "view.h"

/** The beginning of a file, or all of it, and what it says. */
typedef struct mw_load_t {
    int fd;
    unsigned char *bytes; /**< from the file's first byte on */
    apr_size_t room;      /**< for bytes */
    apr_size_t length;    /**< of them there are so many */
    mw_format_super_t super;
    const unsigned char *head; /**< super's present head; in bytes or a pool */
} mw_load_t;

/** Room for the beginning of most files, key and head included. */
#define MW_LOAD_FRONT 8192

/** The digest of a key. After mw_dir_need(). */
void mw_load_digest(const mw_file_t *file, const cachemw_key_t *key,
                    mw_digest_t *digest);

/**
 * Read and verify what fits into load->room, superblock, key and present head,
 * of load->fd. Bodies are not looked at.
 * @param key NULL: any; load->super.key_len bytes of it are in load->bytes
 * @param pool for what does not fit into load->bytes, which then moves there
 * @return APR_EINCOMPLETE: it is damaged, or of another key; APR_NOTFOUND: it
 *         is not to be believed after a boot or a clear, has expired or is too
 *         old; trouble
 */
apr_status_t mw_load(const mw_file_t *file, const cachemw_key_t *key,
                     apr_time_t now, apr_pool_t *pool, mw_load_t *load);

/** What was read of an entry, all but its body. The head is load's. */
void mw_load_tell(const mw_load_t *load, cachemw_entry_t *entry);

/**
 * Read and verify superblock and key, whoever's, of an open file that nobody
 * amends meanwhile.
 * @return APR_EINCOMPLETE or APR_EAGAIN: it is damaged; trouble
 */
apr_status_t mw_load_super(int fd, mw_format_super_t *super);

/** Read exactly. @return APR_EOF: there are fewer bytes; trouble */
apr_status_t mw_load_bytes(int fd, void *to, apr_size_t length,
                           apr_uint64_t at);

#endif
