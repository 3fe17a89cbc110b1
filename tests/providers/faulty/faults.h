/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file faults.h
 * @brief The control file of the provider faulty: which call goes wrong, how,
 *        and how often.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include "mod_cachemw.h"

typedef enum fault_e {
    FAULT_NONE,
    FAULT_ERROR,     /**< return status */
    FAULT_TIMEOUT,   /**< use up the time, then APR_TIMEUP */
    FAULT_DELAY,     /**< wait, then work */
    FAULT_LATE,      /**< work, then wait */
    FAULT_DAMAGED,   /**< bytes of it are wrong */
    FAULT_TRUNCATED, /**< a part of it is missing */
    FAULT_OTHERKEY   /**< another key's entry */
} fault_e;

typedef struct fault_t {
    fault_e kind;
    apr_status_t status;      /**< FAULT_ERROR */
    apr_interval_time_t wait; /**< of TIMEOUT, DELAY, LATE; -1: not given */
    char what[256];           /**< the argument of the others; "" for none */
} fault_t;

/** Shared memory that counts the calls of each line; zero-filled when new. */
typedef struct fault_counts_t fault_counts_t;
apr_size_t fault_counts_size(void);
#define FAULT_COUNTS_LAYOUT 1

/**
 * The fault of this call of a slot: that of the first line of the file that
 * applies to it now. Every line that names the slot counts the call. Lines
 * that are wrong are logged and count for nothing.
 * @param file NULL, or missing: no faults
 * @param counts NULL: `after` and `count` are not looked at
 */
void fault_find(const cachemw_services_t *services, const char *file,
                fault_counts_t *counts, const char *slot, fault_t *fault);

#endif
