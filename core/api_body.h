/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file api_body.h
 * @brief The body of a request, in one piece.
 */
#ifndef MW_API_BODY_H
#define MW_API_BODY_H

#include "httpd.h"

/**
 * Read it all. How long a client may take is httpd's to say: RequestReadTimeout
 * and TimeOut.
 * @param most a longer one is not read to its end; one that says so beforehand
 *        not at all. LimitRequestBody may be less
 * @param text the body and a NUL, in r->pool
 * @return OK; the HTTP status of what is wrong; AP_FILTER_ERROR: the answer has
 *         been sent
 */
int mw_api_body_read(request_rec *r, apr_size_t most, char **text,
                     apr_size_t *length);

#endif
