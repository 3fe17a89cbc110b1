/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file format.h
 * @brief What is in a file of the file store, byte for byte.
 *
 *      +------------+
 *      | superblock |  fixed; 144 bytes, little endian
 *      | key        |  whole
 *      | head       |
 *      | body       |
 *      | heads      |  as amendments need room for; may be absent
 *      +------------+
 *
 * The superblock has a fixed part, whose checksum covers the key, too, and two
 * descriptors of heads with a checksum each. The one with the higher number is
 * the present head. An amendment writes a head where the other descriptor's is,
 * or at the end of the file, and then that descriptor: at no instant is the
 * present head, the key or the body touched. A descriptor lies within one page
 * of the file, so nobody ever finds one that was half written and abandoned;
 * but who reads while it is written may see one half.
 *
 * These functions keep no state and trust nothing that they read: any thread,
 * any bytes.
 */
#ifndef MW_FILE_FORMAT_H
#define MW_FILE_FORMAT_H

#include "mod_cachemw.h"

/** Changes with the meaning of anything in a file. */
#define MW_FORMAT_VERSION 1

/** Bytes of a superblock, and of a descriptor in it. */
#define MW_FORMAT_SUPER 144
#define MW_FORMAT_DESCRIPTOR 36

/**
 * Room of a head at the end of the file: a quarter more than it needs, so that
 * heads which grow again and again make the file a few heads longer at most.
 */
#define MW_FORMAT_HEAD_ROOM(length) ((length) + (length) / 4 + 64)

/** A head, and how the superblock describes it. */
typedef struct mw_format_head_t {
    apr_uint32_t number; /**< 0: there is none */
    apr_uint32_t length;
    apr_uint32_t room;   /**< bytes from offset on that are its own */
    apr_uint64_t offset; /**< in the file */
    apr_time_t expires;  /**< of the entry, if this is the present head */
    apr_uint32_t crc;    /**< CRC-32C of the head */
} mw_format_head_t;

typedef struct mw_format_super_t {
    apr_uint32_t key_len;     /**< the key follows the superblock */
    apr_uint32_t body_crc;    /**< CRC-32C of the body */
    apr_uint64_t body_offset; /**< in the file */
    apr_uint64_t body_len;
    cachemw_id_t id;
    apr_time_t stored;
    apr_uint64_t epoch; /**< see mark.h */
    mw_format_head_t heads[2];
} mw_format_super_t;

/**
 * Describe a new entry: one head right behind the key, then the body. What is
 * known only later (body_len, body_crc, stored, epoch) is 0.
 */
void mw_format_begin(mw_format_super_t *super, const cachemw_key_t *key,
                     const cachemw_entry_t *entry);

/**
 * Have the body begin at a multiple of `block`, so that it can be mapped into
 * memory. What is before it is room for the head.
 */
void mw_format_align(mw_format_super_t *super, apr_uint32_t block);

/** Write the superblock for a key of super->key_len bytes. */
void mw_format_encode(const mw_format_super_t *super, const char *key,
                      unsigned char bytes[MW_FORMAT_SUPER]);

/**
 * Read and verify superblock and key.
 * @param bytes the file from its beginning
 * @return APR_EINCOMPLETE: it is damaged, no file of ours or of another
 *         version, or `length` ends before the key does; APR_EAGAIN: a
 *         descriptor is damaged, or is being written at this moment
 */
apr_status_t mw_format_decode(const unsigned char *bytes, apr_size_t length,
                              mw_format_super_t *super);

/** The present head. */
const mw_format_head_t *mw_format_head(const mw_format_super_t *super);

/** Whether these bytes of head->length are the head described. */
int mw_format_head_is(const mw_format_head_t *head, const void *bytes);

/** Bytes that a whole file has at least. */
apr_uint64_t mw_format_size(const mw_format_super_t *super);

/**
 * Find a place for another head, which becomes the present one in `super`.
 * @return which of super->heads it is
 */
int mw_format_amend(mw_format_super_t *super, const cachemw_entry_t *entry);

/** Where in the file descriptor 0 or 1 lies. */
apr_uint64_t mw_format_descriptor_offset(int which);

void mw_format_descriptor_encode(const mw_format_head_t *head,
                                 unsigned char bytes[MW_FORMAT_DESCRIPTOR]);

#endif
