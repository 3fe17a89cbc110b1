/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file load.h
 * @brief Processes and threads that call a store as httpd's children do, and
 *        how long their calls took.
 */
#ifndef MW_CTL_LOAD_H
#define MW_CTL_LOAD_H

#include "latency.h"
#include "world.h"

typedef enum mw_operation_e {
    MW_OPERATION_FILL,  /**< set each key once; nothing is measured */
    MW_OPERATION_SET,   /**< key by key as chosen */
    MW_OPERATION_GET,   /**< with the whole body */
    MW_OPERATION_DELETE /**< and set again, which is not measured */
} mw_operation_e;

typedef struct mw_load_plan_t {
    mw_world_t *world; /**< after mw_world_create() */
    mw_store_t *store; /**< of these the one to call */
    mw_operation_e operation;
    int processes;
    int threads; /**< of each process */
    apr_size_t body_len;
    apr_uint32_t keys;
    const double *zipf; /**< of mw_load_zipf(); NULL: all keys alike */
    apr_interval_time_t warmup;
    apr_interval_time_t time; /**< of the measurement */
    /** Called now and then meanwhile. @param rate operations per second */
    void (*progress)(void *baton, double rate);
    void *baton;
} mw_load_plan_t;

typedef struct mw_load_result_t {
    mw_latency_t latency;
    double rate;         /**< calls per second, the time within calls counted */
    apr_uint64_t hits;   /**< calls that were done: gets that found it */
    apr_uint64_t failed; /**< what was neither done nor a miss */
} mw_load_result_t;

/** For keys 1 to n, how probable it is that one up to this is chosen. */
const double *mw_load_zipf(apr_uint32_t n, double exponent, apr_pool_t *pool);

/**
 * Run it, or a part of it, if mw_interrupted(). Forks: to be called before
 * threads are made.
 * @return NULL, or what went wrong, in pool
 */
const char *mw_load_run(const mw_load_plan_t *plan, mw_load_result_t *result,
                        apr_pool_t *pool);

#endif
