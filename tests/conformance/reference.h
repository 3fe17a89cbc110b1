/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file reference.h
 * @brief "reference": the simplest provider that keeps the whole contract.
 *
 * One shared segment, one lock, entries one behind the other. Slow, and an
 * example of what each slot owes rather than of how to be good at it. The
 * suite is held against it.
 */
#ifndef CT_REFERENCE_H
#define CT_REFERENCE_H

#include "mod_cachemw.h"

extern const cachemw_provider_t ct_reference_provider;

#endif
