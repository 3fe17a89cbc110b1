/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file mark.h
 * @brief The mark of a directory: whose it is, and which entries are surely on
 *        the disk.
 *
 * Each entry carries the number of the *epoch* in which it was stored. The
 * sync slot ends an epoch, has the system write what it holds back,
 * and notes in the mark how far everything is on the disk. The high 32 bits of
 * an epoch count the boots of the machine: after a boot, an entry of an earlier
 * one is trusted only as far as the mark says. So a store never waits for the
 * disk, and a power loss costs what was stored since the last two syncs.
 *
 * The mark lies twice in its file and is written in turns, in place: a full
 * disk does not hinder it, and one of the two is always whole.
 */
#ifndef MW_FILE_MARK_H
#define MW_FILE_MARK_H

#include "apr.h"
#include "apr_errno.h"

/** Boots that entries are remembered over; what is older is not trusted. */
#define MW_MARK_BOOTS 8

#define MW_MARK_SIZE 176

/** The file in v1. */
#define MW_MARK_NAME "mark"

typedef struct mw_mark_t {
    apr_uint64_t number;      /**< the higher one counts */
    unsigned char owner[16];  /**< of the server that has the directory */
    unsigned char secret[32]; /**< keys the names of files */
    unsigned char boot[16];   /**< of the machine; all 0: not known */
    apr_uint64_t epoch;       /**< present */
    apr_uint64_t cleared;     /**< entries up to this epoch are none */
    /** For boot b at [b % MW_MARK_BOOTS]: up to this epoch all is on disk. */
    apr_uint64_t safe[MW_MARK_BOOTS];
    apr_uint32_t levels; /**< of directories */
} mw_mark_t;

/** Encode with a checksum. */
void mw_mark_encode(const mw_mark_t *mark, unsigned char bytes[MW_MARK_SIZE]);

/** @return APR_EINCOMPLETE: damaged, of another version, or with levels that
 *          there cannot be */
apr_status_t mw_mark_decode(const unsigned char bytes[MW_MARK_SIZE],
                            mw_mark_t *mark);

/** What identifies this boot of the machine; all 0 where nothing does. */
void mw_mark_boot(unsigned char boot[16]);

/** A mark for a directory that has none: no owner, epoch 1 of boot 1. */
void mw_mark_begin(mw_mark_t *mark, const unsigned char boot[16]);

/**
 * Take over a mark that another process has left: a new epoch, which nothing
 * on the disk has; after a boot, what was not safe is not trusted any more.
 */
void mw_mark_continue(mw_mark_t *mark, const unsigned char boot[16]);

/** Copy a mark whose number and epochs others may be changing. */
void mw_mark_copy(mw_mark_t *to, const mw_mark_t *from);

/** Whether an entry of an epoch is to be believed, while others change it. */
int mw_mark_trusts(const mw_mark_t *mark, apr_uint64_t epoch);

/**
 * Read the mark of a directory.
 * @return APR_ENOENT; APR_EINCOMPLETE: both copies are damaged; trouble
 */
apr_status_t mw_mark_read(int dir, mw_mark_t *mark);

/**
 * Write it; makes the file.
 * @param is_durable waits for the disk; otherwise a power loss may undo it
 */
apr_status_t mw_mark_write(int dir, const mw_mark_t *mark, int is_durable);

#endif
