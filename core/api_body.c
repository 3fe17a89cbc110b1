/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>

#include "apr_strings.h"
#include "httpd.h"
#include "http_core.h"
#include "http_protocol.h"

#include "api_body.h"

#define BODY_START ((apr_size_t)16384)

typedef struct body_t {
    request_rec *r;
    char *text;
    apr_size_t length;
    apr_size_t size; /* of text */
    apr_size_t most;
    mw_api_room_t *room;
} body_t;

/* The announced length; -1: there is none. */
static apr_int64_t body_announced(const request_rec *r)
{
    const char *field = apr_table_get(r->headers_in, "Content-Length");

    return field && !apr_table_get(r->headers_in, "Transfer-Encoding")
               ? apr_atoi64(field)
               : -1;
}

static int body_grow(body_t *body, apr_size_t size)
{
    char *text;

    if (!mw_api_room_take(body->room, (apr_uint64_t)(size - body->size)
                                          * MW_API_BODY_TIMES)) {
        return HTTP_SERVICE_UNAVAILABLE;
    }
    text = realloc(body->text, size);
    if (!text) {
        return HTTP_SERVICE_UNAVAILABLE;
    }
    body->text = text;
    body->size = size;
    return OK;
}

static int body_add(body_t *body, const char *data, apr_size_t length)
{
    int status = OK;

    if (length > body->most - body->length) {
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    if (length > body->size - body->length) {
        apr_size_t size = 2 * body->size;

        size = size < body->most ? size : body->most;
        status = body_grow(
            body, size < body->length + length ? body->length + length : size);
    }
    if (status == OK) {
        memcpy(body->text + body->length, data, length);
        body->length += length;
    }
    return status;
}

/* Take what has come; its buckets are empty afterwards.
 * @param ended set when that was all */
static int body_take(body_t *body, apr_bucket_brigade *bb, int *ended)
{
    const char *data;
    apr_size_t length;
    apr_bucket *e;
    int status = OK;

    while (status == OK && !*ended && !APR_BRIGADE_EMPTY(bb)) {
        e = APR_BRIGADE_FIRST(bb);
        *ended = APR_BUCKET_IS_EOS(e);
        if (!APR_BUCKET_IS_METADATA(e)) {
            apr_status_t rv =
                apr_bucket_read(e, &data, &length, APR_BLOCK_READ);

            status = rv == APR_SUCCESS
                         ? body_add(body, data, length)
                         : ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
        }
        apr_bucket_delete(e);
    }
    apr_brigade_cleanup(bb);
    return status;
}

static int body_read(body_t *body)
{
    apr_bucket_brigade *bb =
        apr_brigade_create(body->r->pool, body->r->connection->bucket_alloc);
    const apr_int64_t announced = body_announced(body->r);
    int ended = 0;
    int status;

    if (announced > (apr_int64_t)body->most) {
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    status =
        body_grow(body, announced > 0 ? (apr_size_t)announced : BODY_START);
    while (status == OK && !ended) {
        apr_status_t rv =
            ap_get_brigade(body->r->input_filters, bb, AP_MODE_READBYTES,
                           APR_BLOCK_READ, HUGE_STRING_LEN);

        status = rv == APR_SUCCESS
                     ? body_take(body, bb, &ended)
                     : ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
    }
    return status;
}

int mw_api_body_read(request_rec *r, apr_size_t most, mw_api_room_t *room,
                     char **text, apr_size_t *length)
{
    const apr_off_t limit = ap_get_limit_req_body(r);
    body_t body = { .r = r, .most = most, .room = room };
    int status;

    if (limit > 0 && (apr_uint64_t)limit < most) {
        body.most = (apr_size_t)limit;
    }
    status = body_read(&body);
    if (status != OK) {
        free(body.text);
        body.text = NULL;
    }
    *text = body.text;
    *length = body.length;
    return status;
}
