/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file api_body.h
 * @brief The body of a request, in one piece.
 */
#ifndef MW_API_BODY_H
#define MW_API_BODY_H

#include "httpd.h"

#include "api_room.h"

/** Memory that a body takes until it is decoded, in its own lengths: itself;
 *  two buffers of jansson's, while a string in it is found; and the string. */
#define MW_API_BODY_TIMES 4

/**
 * Read it all. How long a client may take is httpd's to say: RequestReadTimeout
 * and TimeOut.
 * @param most a longer one is not read to its end; one that says so beforehand
 *        not at all. LimitRequestBody may be less
 * @param room takes MW_API_BODY_TIMES what is read, of an announced length
 *        beforehand
 * @param text the body, malloc'ed, for the caller to free; NULL unless OK
 * @return OK; the HTTP status of what is wrong, HTTP_SERVICE_UNAVAILABLE where
 *         there is no room; AP_FILTER_ERROR: the answer has been sent
 */
int mw_api_body_read(request_rec *r, apr_size_t most, mw_api_room_t *room,
                     char **text, apr_size_t *length);

#endif
