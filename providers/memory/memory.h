/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file memory.h
 * @brief The store in shared memory: one segment for all children.
 */
#ifndef MW_MEMORY_H
#define MW_MEMORY_H

#include "mod_cachemw.h"

extern const cachemw_provider_t mw_memory_provider;

#endif
