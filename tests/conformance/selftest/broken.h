/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file broken.h
 * @brief Providers that break the contract in one place each.
 *
 * Every one is the reference provider with a few slots replaced, and names
 * the test that must catch it.
 */
#ifndef CT_BROKEN_H
#define CT_BROKEN_H

#include "mod_cachemw.h"

typedef struct ct_broken_t {
    const char *name;      /**< what it does */
    const char *caught_by; /**< the test that must fail; NULL: it is right, and
                                every test must pass */
    const char *saying;    /**< part of what that test says */
    const cachemw_provider_t *base; /**< slots of others like it, or NULL */
    cachemw_provider_t slots;       /**< its own, which win over both */
} ct_broken_t;

/** The whole table of one. */
void ct_broken_table(const ct_broken_t *broken, cachemw_provider_t *table);

/** Each ends with a row without a name. */
extern const ct_broken_t ct_broken_slots[];
extern const ct_broken_t ct_broken_streams[];
extern const ct_broken_t ct_broken_bodies[];
extern const ct_broken_t ct_broken_pieces[];
extern const ct_broken_t ct_broken_user[];

#endif
