/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file random.h
 * @brief Randomness from the kernel, and what a child makes of it.
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

/**
 * Seed the generator of this process. Before its threads, and after each fork:
 * two processes with one seed would draw the same.
 */
void mw_random_child_init(void);

/**
 * Fill a buffer from the generator of this process: without a system call, and
 * no easier to guess than its seed. Any thread.
 * @return 0: there is no seed
 */
int mw_random_draw(void *buffer, apr_size_t length);

#endif
