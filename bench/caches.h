/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file caches.h
 * @brief The caches that are compared: the memory store itself, and exact LRU
 *        and FIFO.
 *
 * The references are given what the store has: as many bytes as its units have
 * together, and each object weighs the units that its record, key, head and
 * body fill. What differs is who goes.
 */
#ifndef BENCH_CACHES_H
#define BENCH_CACHES_H

#include "apr_pools.h"

/** The memory store, with options as in a directive. Exits if it fails. */
typedef struct store_t store_t;

store_t *store_open(apr_pool_t *pool, const char *const *options, int n,
                    apr_uint64_t seed);

/** Look up, and store what was not found. @return whether it was found */
int store_ask(store_t *store, apr_uint32_t object, apr_uint32_t size);

/** Bytes of all units. */
apr_uint64_t store_capacity(const store_t *store);

/** Bytes of the units that an object takes. */
apr_uint32_t store_weight(const store_t *store, apr_uint32_t object,
                          apr_uint32_t size);

void store_close(store_t *store);

/** A queue of objects; LRU when a hit moves to its end, else FIFO. */
typedef struct queue_t queue_t;

/** @param bound objects are below this number */
queue_t *queue_make(apr_pool_t *pool, apr_uint64_t capacity, apr_uint32_t bound,
                    int is_lru);

int queue_ask(queue_t *queue, apr_uint32_t object, apr_uint32_t weight);

#endif
