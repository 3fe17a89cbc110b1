/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file chain.h
 * @brief The bytes in a chain of runs as a stream.
 *
 * Reading works on chains that somebody else may give back meanwhile: it never
 * leaves the segment and always ends, but what it read counts only once the
 * entry's serial was seen unchanged afterwards.
 */
#ifndef MW_MEMORY_CHAIN_H
#define MW_MEMORY_CHAIN_H

#include "layout.h"
#include "providers/common/lock.h"

/** A place in a chain: between two bytes. */
typedef struct mw_place_t {
    apr_uint32_t run;
    apr_uint32_t at; /**< bytes from the start of the run */
} mw_place_t;

/** The place behind the record of an entry: its key. */
mw_place_t mw_chain_key(apr_uint32_t entry);

/** The first byte of a chain that has no record. */
mw_place_t mw_chain_start(apr_uint32_t first);

/**
 * The adjacent bytes at a place, and the place behind them.
 * @param length in: at most this many; out: how many, at least 1
 * @return NULL: the chain ends here, or is none
 */
char *mw_chain_piece(const mw_mem_t *mem, mw_place_t *place,
                     apr_size_t *length);

/** Copy out, moving on. @return 0: the chain ended before */
int mw_chain_read(const mw_mem_t *mem, mw_place_t *place, char *to,
                  apr_size_t length);

/** Move on. @return 0: the chain ended before */
int mw_chain_skip(const mw_mem_t *mem, mw_place_t *place, apr_size_t length);

/** Copy in, moving on. @return 0: the chain ended before */
int mw_chain_write(const mw_mem_t *mem, mw_place_t *place, const char *from,
                   apr_size_t length);

/** Whether the key of an entry is this one; their lengths are equal. */
int mw_chain_has_key(const mw_mem_t *mem, apr_uint32_t entry,
                     const cachemw_key_t *key);

/**
 * @name Reading without a lock
 * The thread sanitizer takes the reads in between for races, which the serial
 * makes harmless.
 * @{
 */
#ifdef MW_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
#define MW_CHAIN_UNLOCKED_BEGIN() AnnotateIgnoreReadsBegin(__FILE__, __LINE__)
#define MW_CHAIN_UNLOCKED_END() AnnotateIgnoreReadsEnd(__FILE__, __LINE__)
#else
#define MW_CHAIN_UNLOCKED_BEGIN() ((void)0)
#define MW_CHAIN_UNLOCKED_END() ((void)0)
#endif
/** @} */

#endif
