/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file machine.h
 * @brief How much memory there is for this process.
 */
#ifndef MW_MEMORY_MACHINE_H
#define MW_MEMORY_MACHINE_H

#include "apr.h"

/** What of them allows the least. */
typedef struct mw_machine_t {
    apr_uint64_t bytes; /**< all ones: unknown */
    const char *what;   /**< "the machine has", "its control group allows" */
} mw_machine_t;

/**
 * The memory of the machine, or less when a control group of this process, or
 * one around that, has a limit (versions 1 and 2).
 * @param root what the paths below /proc and /sys begin with; "" but in tests
 */
void mw_machine_memory(mw_machine_t *machine, const char *root);

/**
 * Write a size as options have it, rounded down: "1536M".
 * @param text room for 24 bytes
 */
void mw_machine_size(char text[24], apr_uint64_t bytes);

#endif
