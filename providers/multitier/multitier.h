/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file multitier.h
 * @brief The provider "multitier": stores in front of stores.
 */
#ifndef MW_MULTITIER_H
#define MW_MULTITIER_H

#include "mod_cachemw.h"

extern const cachemw_provider_t mw_multitier_provider;

#endif
