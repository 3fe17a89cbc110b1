/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file temp.h
 * @brief Directories that {tmp} stands for.
 */
#ifndef MW_TEMP_H
#define MW_TEMP_H

#include "apr_pools.h"

/** Make a fresh one. @return its path, in pool; NULL: errno says why not */
const char *mw_temp_make(apr_pool_t *pool);

/** Remove it, and what is in it. */
void mw_temp_remove(const char *path);

#endif
