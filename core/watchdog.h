/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file watchdog.h
 * @brief Housekeeping without traffic: sweeps of the stores, in one child at a
 *        time, from mod_watchdog.
 */
#ifndef MW_WATCHDOG_H
#define MW_WATCHDOG_H

#include "httpd.h"

/**
 * post_config: have the stores in use swept, each once per cleanup_interval.
 * Without mod_watchdog a line in the log says that nothing is swept.
 */
void mw_watchdog_register(apr_pool_t *pconf, server_rec *s);

#endif
