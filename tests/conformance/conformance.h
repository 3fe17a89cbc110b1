/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file conformance.h
 * @brief The conformance suite, as those who run it see it: what to test, the
 *        list of tests, and how one is run.
 *
 * Knows no test framework and prints nothing: drivers turn results into
 * cmocka's output or TAP. Every test is run in a process of its own, so a
 * provider that crashes or hangs fails one test and not the tool.
 */
#ifndef CT_CONFORMANCE_H
#define CT_CONFORMANCE_H

#include "ctl/world.h"

/** What to test. */
typedef struct ct_plan_t {
    /** The last one is tested; the others are there for it, by name. */
    const mw_ctl_store_t *definitions;
    int ndefinitions;
    int through_core; /**< call core/store rather than the provider's table */
    int verbose;      /**< print the store's log lines on stderr */
    int seconds;      /**< a test that takes longer hangs; 0: 120 */
} ct_plan_t;

typedef enum ct_verdict_e { CT_PASSED, CT_FAILED, CT_SKIPPED } ct_verdict_e;

typedef struct ct_result_t {
    ct_verdict_e verdict;
    char text[2000]; /**< what is wrong with the provider, or why skipped */
} ct_result_t;

struct ct_t;

/** The process of this test stays a parent: it forks the children it needs. */
#define CT_PARENT 0x1u
/** The test opens the store itself. */
#define CT_UNOPENED 0x2u

typedef struct ct_test_t {
    const char *name; /**< test_<what>_<behaviour> */
    void (*run)(struct ct_t *c);
    unsigned int flags;
} ct_test_t;

/** The tests in their order; NULL behind the last one. */
const ct_test_t *ct_test_at(int index);

/**
 * Check that the stores of a plan can be opened at all.
 * @return NULL, or what is wrong, in pool
 */
const char *ct_plan_check(const ct_plan_t *plan, apr_pool_t *pool);

/** Run a test on a fresh store, in a process of its own. */
void ct_run(const ct_plan_t *plan, const ct_test_t *test, ct_result_t *result);

#endif
