/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file memory_world.h
 * @brief What the tests of the memory provider share: a server without a
 *        server.
 *
 * A world has one segment, which outlives stores like httpd's retained one, and
 * the time. Bodies are made from a seed and checked byte by byte, so that a
 * body that is wrong, mixed or short anywhere is seen.
 */
#ifndef TESTS_MEMORY_WORLD_H
#define TESTS_MEMORY_WORLD_H

#include "providers/memory/blocks.h"
#include "providers/memory/chain.h"
#include "providers/memory/collect.h"
#include "providers/memory/layout.h"
#include "providers/memory/memory.h"
#include "providers/memory/shard.h"
#include "providers/memory/slots.h"
#include "tests/unit/shared.h"

#define PROVIDER (&mw_memory_provider)
#define EPOCH APR_INT64_C(1700000000000000)
#define SECOND APR_USEC_PER_SEC

typedef struct world_t {
    apr_pool_t *pool;
    fake_t fake;
    mw_mem_t *mem;
    apr_pool_t *pchild;
    apr_time_t now;
} world_t;

/** Options as core would hand them in; 0: not given. */
typedef struct setting_t {
    apr_int64_t size;
    apr_int64_t max_entries;
    apr_int64_t shards;
    int prefault;
} setting_t;

/** A store on the segment, after post_config; without a child. */
void *world_open(world_t *w, setting_t setting);

/** A world with a store whose child this process is. */
world_t *world_make(setting_t setting);

void world_end(world_t *w);

/** One call: a pool and a bucket allocator of its own. */
typedef struct visit_t {
    cachemw_call_t call;
    cachemw_entry_t entry;
} visit_t;

void visit_begin(world_t *w, visit_t *v);
void visit_end(visit_t *v);

cachemw_key_t world_key(const char *text);
/** The id that the entry made from a seed has. */
cachemw_id_t world_id(apr_uint64_t n);

/** Bytes of the body with this seed, which differ at every place and seed. */
void body_fill(char *to, apr_uint64_t seed, apr_uint64_t from,
               apr_size_t length);

/** @return how many bytes of a brigade are those of the body from `from` on */
apr_uint64_t body_verify_at(apr_bucket_brigade *body, apr_uint64_t seed,
                            apr_uint64_t from);

apr_uint64_t body_verify(apr_bucket_brigade *body, apr_uint64_t seed);

#define HEAD_LEN 250

/** Heads are made from the seed, too; an amended one may be longer. */
void head_fill(char *head, apr_uint64_t seed, apr_size_t length);

int head_verify(const char *head, apr_uint64_t seed, apr_size_t length);

/** Store in pieces of `piece` bytes. The id is made from the seed. */
apr_status_t world_put_pieces(world_t *w, mw_mem_t *mem, cachemw_key_t key,
                              apr_uint64_t seed, apr_uint64_t length,
                              apr_time_t expires, apr_size_t piece,
                              int announced);

/** Store for an hour. */
apr_status_t world_put(world_t *w, const char *key, apr_uint64_t seed,
                       apr_uint64_t length);

/**
 * Look up and verify everything: the id names the seed, the seed makes head and
 * body. @return APR_EGENERAL when anything is not as it was stored
 */
apr_status_t world_get_from(world_t *w, mw_mem_t *mem, cachemw_key_t key,
                            apr_uint64_t *seed);

apr_status_t world_get(world_t *w, const char *key, apr_uint64_t *seed);

apr_status_t world_remove(world_t *w, const char *key, const cachemw_id_t *id);

void world_clear(world_t *w);

/** Sweep until there is nothing more to do. */
void world_sweep(world_t *w);

cachemw_stats_t world_stats(world_t *w);

/** Units in a queue, over all shards. */
apr_uint64_t world_units(const world_t *w, int queue);

/** Nothing is held: entries, bytes, units, claims. */
void world_assert_empty(world_t *w);

#endif
