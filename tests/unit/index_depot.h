/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file index_depot.h
 * @brief What the tests of the file provider's index share: a disk without a
 *        disk.
 *
 * The disk is in memory that processes share. Files have numbers, and a file
 * changes by one store, as it does by a rename. Temporary files count until
 * they are unlinked.
 */
#ifndef TESTS_INDEX_DEPOT_H
#define TESTS_INDEX_DEPOT_H

#include "providers/file/index_layout.h"
#include "tests/unit/shared.h"

#define EPOCH APR_INT64_C(1700000000000000)
#define SECOND APR_USEC_PER_SEC
#define BLOCK MW_INDEX_BLOCK
#define TEMPS 1024

typedef struct temp_t {
    apr_uint32_t is_used; /* atomic */
    apr_uint64_t blocks;  /* atomic */
    char name[MW_INDEX_TEMP_NAME];
} temp_t;

typedef struct disk_t {
    apr_uint32_t count; /* files have numbers below */
    apr_uint32_t listed;
    apr_status_t unlink_fails; /* what to answer; 0: do it */
    apr_status_t probe_fails;
    apr_status_t list_fails;
    apr_uint32_t dies_at; /* the calling process, at so many steps from now */
    apr_uint64_t probes;  /* atomic */
    apr_uint64_t unlinks;
    temp_t temps[TEMPS];
    apr_uint64_t files[]; /* atomic: expiry in seconds, and blocks below */
} disk_t;

typedef struct depot_t {
    apr_pool_t *pool;
    apr_pool_t *pchild;
    fake_t fake;
    disk_t *disk;
    mw_index_config_t config;
    mw_index_t *index;
    apr_time_t now;
} depot_t;

/** A disk with room for so many files. */
depot_t *depot_make(mw_index_config_t config, apr_uint32_t files);

/** Open with the configuration that is in the depot; with a child. */
void depot_open(depot_t *w, apr_int64_t expected);

/** The child goes, and the parent forgets the index; the segment stays. */
void depot_close(depot_t *w);

/** As after a stop: the segment is gone, the disk is as it is. */
void depot_restart(depot_t *w, apr_int64_t expected);

void depot_end(depot_t *w);

mw_digest_t digest_of(const depot_t *w, apr_uint32_t number);

/** A file as somebody else may put it there. */
void disk_put(depot_t *w, apr_uint32_t number, apr_uint64_t blocks,
              apr_time_t expires);

/** @return 0: there is none */
apr_uint64_t disk_blocks(const depot_t *w, apr_uint32_t number);

/** All that is there, temporary files included. */
apr_uint64_t disk_used(const depot_t *w);

/** Of files alone. */
apr_uint64_t disk_entries(const depot_t *w);

/** What a set does, all of it. */
apr_status_t depot_put(depot_t *w, apr_uint32_t number, apr_uint64_t blocks,
                       apr_time_t expires);

/** What a get does. @return whether there is a file */
int depot_get(depot_t *w, apr_uint32_t number);

apr_status_t depot_remove(depot_t *w, apr_uint32_t number);

/** Make this process one of the index's, after a fork. */
void depot_child(depot_t *w);

/** One call of any kind, with files of 1 to 8 blocks. */
void depot_hammer(depot_t *w, apr_uint32_t *seed);

/** Sweep until there is nothing more to do. */
void depot_sweep(depot_t *w);

/** Index and disk agree in everything, and nobody has anything reserved. */
void depot_assert_exact(depot_t *w);

cachemw_stats_t depot_stats(depot_t *w);

#endif
