/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file status.h
 * @brief The stores on mod_status' page.
 */
#ifndef MW_STATUS_H
#define MW_STATUS_H

#include "httpd.h"

/**
 * status_hook: a table of the stores, or with ?auto lines "Key: value". Never
 * secrets, nor anything of what is stored.
 * @param flags AP_STATUS_…
 */
int mw_status(request_rec *r, int flags);

#endif
