/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file layout.h
 * @brief How entries lie in Redis.
 *
 * One string for each entry, for nothing else is as cheap to store and to get: a
 * value that comes in one long argument becomes a string without being copied.
 * Its name is
 *
 *     key_prefix { 32 hexadecimal digits }
 *
 * by a hash of the key; the braces keep what belongs to an entry in one slot of
 * a cluster. It holds a header and, if the body has at most MW_REDIS_SHORT
 * bytes, that, as one piece:
 *
 *     header   "MWR1"  flags 4  id 16  body_len 8  mark of all this
 *              expires 8  key_len 4  head_len 4  key  head
 *              mark of "MWRH", key_prefix, NUL, id and all from expires
 *              on
 *     piece    data  id 16  mark of "MWRP", number of the piece 8, id, data
 *
 * Numbers are little endian. A mark is a checksum or an HMAC: see seal.h. There
 * is no piece of an empty body. Amending an entry replaces what is behind the
 * first mark of the header.
 *
 * Longer bodies are in a hash, so that they are read in pieces. Its name is
 *
 *     key_prefix { 32 hexadecimal digits } : id
 *
 * and its fields 0, 1, ... are the pieces of MW_REDIS_PIECE bytes each, the
 * last one shorter. It stays for CACHEMW_GRACE when its entry goes. An entry
 * whose hash was evicted is a miss: get() looks there, too.
 *
 * A lock is a string, the token of who has it, which expires with the lock. Its
 * name is
 *
 *     key_prefix { 32 hexadecimal digits } :lock
 *
 * which is neither as long as that of an entry nor as that of a hash.
 */
#ifndef MW_REDIS_LAYOUT_H
#define MW_REDIS_LAYOUT_H

#include "resp.h"
#include "seal.h"

#define MW_REDIS_PIECE CACHEMW_PIECE_MAX

/** Pieces of a long body that get() asks for. */
#define MW_REDIS_AT_ONCE 2

/** Longest body that is in the string with its header. */
#define MW_REDIS_SHORT ((apr_off_t)2 * MW_REDIS_PIECE)

/** Bytes of a header besides marks, key and head. */
#define MW_REDIS_HEADER_FIXED 48

/** Most bytes of a header, and of a piece of a long body. */
#define MW_REDIS_HEADER_MAX                                     \
    (MW_REDIS_HEADER_FIXED + CACHEMW_KEY_MAX + CACHEMW_HEAD_MAX \
     + 2 * MW_REDIS_MARK_MAX)
#define MW_REDIS_PIECE_MAX (MW_REDIS_PIECE + MW_REDIS_PIECE_END_MAX)

/** Bytes to ask for when the header alone is wanted: most are shorter. */
#define MW_REDIS_HEADER_GUESS 4096

/** Bytes of a header that say whether its entry is long, and its id. */
#define MW_REDIS_HEADER_ID_END 24

/** Some bytes. */
typedef struct mw_redis_bytes_t {
    const char *data;
    apr_size_t len;
} mw_redis_bytes_t;

/** The name of an entry, in the pool. */
void mw_redis_name(const mw_redis_t *store, const cachemw_key_t *key,
                   apr_pool_t *pool, mw_redis_bytes_t *name);

/** The name of the hash of its body. */
void mw_redis_name_body(const mw_redis_bytes_t *name, const cachemw_id_t *id,
                        apr_pool_t *pool, mw_redis_bytes_t *body);

/** The name of a lock, in the pool. */
void mw_redis_name_lock(const mw_redis_t *store, const cachemw_key_t *key,
                        apr_pool_t *pool, mw_redis_bytes_t *name);

/** The glob that names of entries match and no others, e.g. for SCAN. */
const char *mw_redis_name_pattern(const mw_redis_t *store, apr_pool_t *pool);

/** Pieces of a long body. */
apr_uint64_t mw_redis_pieces(apr_off_t body_len);

/** Whether a header of which nothing was checked, perhaps only its beginning,
 *  is of a long body, and then its id. */
int mw_redis_header_is_long(const char *data, apr_size_t len, cachemw_id_t *id);

/** Append a command for the first bytes of an entry; of none it gets "". */
void mw_redis_header_ask(mw_redis_batch_t *batch, const mw_redis_bytes_t *name,
                         apr_size_t len);

/**
 * Bytes of a header of which at least MW_REDIS_HEADER_GUESS bytes are there, or
 * all; nothing was checked. 0: it is none.
 */
apr_size_t mw_redis_header_len(const mw_redis_t *store, const char *data,
                               apr_size_t len);

/** Bytes of a header up to where amending begins. */
apr_size_t mw_redis_header_kept(const mw_redis_t *store);

/**
 * Make a header.
 * @param header its bytes, in the pool
 */
apr_status_t mw_redis_header_make(const mw_redis_t *store,
                                  const cachemw_key_t *key,
                                  const cachemw_entry_t *entry,
                                  apr_pool_t *pool, mw_redis_bytes_t *header);

/**
 * Read a header.
 * @param key NULL: any; else whose it must be
 * @param len of it and what is behind it: see mw_redis_header_len()
 * @param found set to the key, pointing into data; may be NULL
 * @param entry id, head (pointing into data), head_len, expires, body_len
 * @return APR_NOTFOUND: of another key, or with or without seal against what
 *         this store wants, or with a false one; APR_EINCOMPLETE: damaged.
 *         Counted
 */
apr_status_t mw_redis_header_read(const mw_redis_t *store,
                                  const cachemw_key_t *key, const char *data,
                                  apr_size_t len, cachemw_key_t *found,
                                  cachemw_entry_t *entry);

/** What is behind the data of a piece: id and mark. */
#define MW_REDIS_PIECE_END_MAX (16 + MW_REDIS_MARK_MAX)
apr_size_t mw_redis_piece_end_len(const mw_redis_t *store);

/** Begin the mark of a piece; its data are added by the caller. */
void mw_redis_piece_begin(const mw_redis_t *store, const cachemw_id_t *id,
                          apr_uint64_t number, mw_redis_mark_t *mark);
/** Make what is behind its data. */
apr_status_t mw_redis_piece_end(const cachemw_id_t *id, mw_redis_mark_t *mark,
                                char end[MW_REDIS_PIECE_END_MAX]);

/**
 * Check a piece.
 * @param data_len bytes that its data must have
 * @return APR_NOTFOUND: of another id, or with a false seal; APR_EINCOMPLETE:
 *         damaged. Counted
 */
apr_status_t mw_redis_piece_check(const mw_redis_t *store,
                                  const cachemw_id_t *id, apr_uint64_t number,
                                  apr_size_t data_len,
                                  const mw_redis_bytes_t *piece);

#endif
