/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file check.h
 * @brief The command `check`, as far as another driver of the conformance suite
 *        has it, too.
 */
#ifndef MW_CTL_CHECK_H
#define MW_CTL_CHECK_H

#include "ctl.h"
#include "tests/conformance/conformance.h"

/**
 * Make the plan that a command line asks for.
 * @return NULL, or what is wrong
 */
const char *mw_check_plan(const mw_ctl_t *ctl, ct_plan_t *plan);

/** Whether --test chooses it, or there is none. */
int mw_check_wants(const mw_ctl_t *ctl, const ct_test_t *test);

/** Run it as often as --repeat says, or until it fails. */
void mw_check_run(const mw_ctl_t *ctl, const ct_plan_t *plan,
                  const ct_test_t *test, ct_result_t *result);

/** Print the names of those that are wanted. */
void mw_check_list(const mw_ctl_t *ctl);

#endif
