/* SPDX-License-Identifier: Apache-2.0 */

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
    apr_size_t room; /* without the NUL */
    apr_size_t most;
} body_t;

/* The announced length; -1: there is none. */
static apr_int64_t body_announced(const request_rec *r)
{
    const char *field = apr_table_get(r->headers_in, "Content-Length");

    return field && !apr_table_get(r->headers_in, "Transfer-Encoding")
               ? apr_atoi64(field)
               : -1;
}

static void body_make_room(body_t *body, apr_size_t length)
{
    apr_size_t room = 2 * body->room;
    char *text;

    if (length <= body->room - body->length) {
        return;
    }
    if (room < body->length + length) {
        room = body->length + length;
    }
    text = apr_palloc(body->r->pool, room + 1);
    memcpy(text, body->text, body->length);
    body->text = text;
    body->room = room;
}

static int body_add(body_t *body, const char *data, apr_size_t length)
{
    if (length > body->most - body->length) {
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    body_make_room(body, length);
    memcpy(body->text + body->length, data, length);
    body->length += length;
    return OK;
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

int mw_api_body_read(request_rec *r, apr_size_t most, char **text,
                     apr_size_t *length)
{
    const apr_off_t limit = ap_get_limit_req_body(r);
    const apr_int64_t announced = body_announced(r);
    apr_bucket_brigade *bb =
        apr_brigade_create(r->pool, r->connection->bucket_alloc);
    body_t body = { .r = r, .most = most };
    int ended = 0;
    int status = OK;
    apr_status_t rv;

    if (limit > 0 && (apr_uint64_t)limit < most) {
        body.most = (apr_size_t)limit;
    }
    if (announced > (apr_int64_t)body.most) {
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    body.room = announced >= 0 ? (apr_size_t)announced : BODY_START;
    body.text = apr_palloc(r->pool, body.room + 1);
    while (status == OK && !ended) {
        rv = ap_get_brigade(r->input_filters, bb, AP_MODE_READBYTES,
                            APR_BLOCK_READ, HUGE_STRING_LEN);
        status = rv == APR_SUCCESS
                     ? body_take(&body, bb, &ended)
                     : ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
    }
    body.text[body.length] = '\0';
    *text = body.text;
    *length = body.length;
    return status;
}
