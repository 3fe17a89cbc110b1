/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file api_access.h
 * @brief Who may ask the API anything at all.
 */
#ifndef MW_API_ACCESS_H
#define MW_API_ACCESS_H

#include "api.h"

/**
 * The token, and whether the request goes round in a circle (RFC 5842, section
 * 7.2). Who is turned away is counted, and a field that the answer needs is
 * set.
 * @param reason set when it is turned away, to a constant text
 * @return OK, or the HTTP status of the answer
 */
int mw_api_access_check(request_rec *r, const mw_api_t *api,
                        const char **reason);

#endif
