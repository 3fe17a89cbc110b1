/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file entry.h
 * @brief The codec of heads: what mod_cachemw keeps of a response beside its
 *        body.
 *
 * Heads are encoded field by field, little endian, with magic, version, kind
 * and lengths; with a CRC-32C at the end where a store lets bytes leave the
 * server's memory. Any byte string is either decoded completely or refused,
 * and what was decoded is encoded to the same bytes again: there is one form.
 * No function keeps state: any thread.
 */
#ifndef MW_ENTRY_H
#define MW_ENTRY_H

#include "apr_tables.h"
#include "mod_cachemw.h"

#define MW_HEAD_VERSION 3

typedef enum mw_head_kind_e {
    MW_HEAD_RESPONSE = 1, /**< a response; the entry has its body */
    MW_HEAD_VARY = 2,     /**< a Vary record (vary.h); the body is empty */
    MW_HEAD_API = 3       /**< what a client of ours has put (api_entry.h) */
} mw_head_kind_e;

/** @name Bits of mw_head_t.control: directives that the response had. @{ */
#define MW_CONTROL_PARSED 0x00001u
#define MW_CONTROL_CACHE_CONTROL 0x00002u
#define MW_CONTROL_PRAGMA 0x00004u
#define MW_CONTROL_NO_CACHE 0x00008u
#define MW_CONTROL_NO_CACHE_HEADER 0x00010u
#define MW_CONTROL_NO_STORE 0x00020u
#define MW_CONTROL_MAX_AGE 0x00040u
#define MW_CONTROL_MAX_STALE 0x00080u
#define MW_CONTROL_MIN_FRESH 0x00100u
#define MW_CONTROL_NO_TRANSFORM 0x00200u
#define MW_CONTROL_ONLY_IF_CACHED 0x00400u
#define MW_CONTROL_PUBLIC 0x00800u
#define MW_CONTROL_PRIVATE 0x01000u
#define MW_CONTROL_PRIVATE_HEADER 0x02000u
#define MW_CONTROL_MUST_REVALIDATE 0x04000u
#define MW_CONTROL_PROXY_REVALIDATE 0x08000u
#define MW_CONTROL_S_MAXAGE 0x10000u
#define MW_CONTROL_INVALIDATED 0x20000u
/** All of them; another bit is refused. */
#define MW_CONTROL_ALL 0x3ffffu
/** @} */

/** Where every head has its kind, in one byte. */
#define MW_FRAME_KIND 5

/** The latest time in a head. */
#define MW_TIME_MAX (APR_INT64_C(1) << 62)

/** A response's head. Times are apr_time_t (0 to 2^62) or 0 for "none". */
typedef struct mw_head_t {
    int status;        /**< 200 to 599 */
    apr_time_t date;   /**< mod_cache's cache_info.date … */
    apr_time_t expire; /**< fresh until */
    apr_time_t request_time;
    apr_time_t response_time;
    apr_uint32_t control; /**< MW_CONTROL_… */
    apr_int64_t max_age;  /**< the four values of cache_control_t; any */
    apr_int64_t max_stale;
    apr_int64_t min_fresh;
    apr_int64_t s_maxage;
    apr_uint64_t
        vary_serial;        /**< of the Vary record seen at the miss; 0: none */
    const char *vary_block; /**< a variant's normalised request fields: any
                                  bytes, not terminated; NULL if there are
                                  none */
    apr_size_t vary_block_len;
    apr_table_t *headers; /**< the response's header fields; encoding takes
                                  NULL as none, decoding never gives NULL */
    apr_int64_t content_length; /**< decoded: of the field; -1: there is none */
    int is_encoded;  /**< decoded: whether there is a Content-Encoding */
    apr_time_t born; /**< decoded: when its age was 0 (RFC 9111, section
                            4.2.3); may be negative */
} mw_head_t;

/**
 * Encode a response's head.
 * @param checksum non-zero: append a CRC-32C
 * @param bytes,length the result, in pool
 * @return APR_EINVAL when it must not be stored: status, a time or control out
 *         of range; a field whose name is no token (RFC 9110, section 5.6.2)
 *         or whose value has CR or LF; Transfer-Encoding; a Content-Length
 *         that is no number of 1 to 18 digits, or several that differ. APR_ENOSPC above
 *         CACHEMW_HEAD_MAX
 */
apr_status_t mw_head_encode(const mw_head_t *head, int checksum,
                            apr_pool_t *pool, const void **bytes,
                            apr_size_t *length);

/** What kind of head this is if it is one, which decoding tells. */
static APR_INLINE mw_head_kind_e mw_head_kind(const void *bytes,
                                              apr_size_t length)
{
    return length > MW_FRAME_KIND
               ? (mw_head_kind_e)((const unsigned char *)bytes)[MW_FRAME_KIND]
               : 0;
}

/**
 * Decode a response's head. Strings of `head` and of its header table point
 * into `bytes`, which must live as long and stay unchanged.
 * @param body_len length of the entry's body, or -1 to skip the check of it
 *        against a Content-Length field
 * @return APR_EINCOMPLETE for everything that is not exactly what
 *         mw_head_encode() makes; `head` is then undefined
 */
apr_status_t mw_head_decode(const void *bytes, apr_size_t length,
                            apr_off_t body_len, apr_pool_t *pool,
                            mw_head_t *head);

/**
 * The same for bytes of mw_head_encode() that have not left the server's memory
 * since. It has refused characters that no field may have and noted what the
 * fields say of age, body and coding: that is not looked for again. Other bytes
 * are harmless, for no string goes beyond them, but not all are refused.
 */
apr_status_t mw_head_decode_own(const void *bytes, apr_size_t length,
                                apr_off_t body_len, apr_pool_t *pool,
                                mw_head_t *head);

/** Whether these bytes are a token: RFC 9110, section 5.6.2; never empty. */
int mw_is_token(const char *bytes, apr_size_t length);

/** @name For each character: whether tokens have it, and those in lower case @{
 */
#define MW_CHAR_TOKEN 1
#define MW_CHAR_LOWER_TOKEN 2
extern const unsigned char mw_char_class[256];
/** @} */

/** The class of a character. */
static APR_INLINE int mw_char_is(char c, int class)
{
    return mw_char_class[(unsigned char)c] & class;
}

/**
 * @name The frame around the payload of every kind of head, for the codec of
 *       each kind. @{
 */

/** Where the payload begins. */
#define MW_FRAME_START 12

/**
 * A frame for `payload` bytes, in pool, its beginning written.
 * @param length set to the length of the whole
 * @return NULL when that is above CACHEMW_HEAD_MAX
 */
unsigned char *mw_frame_make(mw_head_kind_e kind, apr_size_t payload,
                             int checksum, apr_pool_t *pool,
                             apr_size_t *length);

/** Append the checksum, if the frame has one. The payload is complete. */
void mw_frame_seal(unsigned char *bytes, apr_size_t length);

/**
 * Verify a frame, its checksum included.
 * @param end set to the end of the payload
 * @return the payload; NULL when this is no head of this kind
 */
const unsigned char *mw_frame_open(const void *bytes, apr_size_t length,
                                   mw_head_kind_e kind,
                                   const unsigned char **end);
/** @} */

#endif
