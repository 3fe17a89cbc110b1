/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "fields.h"

/* Most elements of an array. */
#define FIELDS_MAX 64

/* Bytes that are read beside a long string, and the longest line. */
#define INPUT_SIZE 16384

typedef struct input_t {
    mw_redis_conn_t *conn;
    mw_redis_batch_t *batch;
    apr_int64_t deadline;
    apr_size_t room; /* for what may still come */
    apr_size_t from, to;
    char buffer[INPUT_SIZE];
} input_t;

/* Read on: into `len` bytes at data, if there are any, then the buffer. What
 * is in the buffer has been used up, or is moved to its front. */
static apr_status_t input_more(input_t *in, char *data, apr_size_t len,
                               apr_size_t *placed)
{
    struct iovec iov[2] = { { data, len }, { NULL, 0 } };
    apr_size_t length;
    apr_status_t rv;

    memmove(in->buffer, in->buffer + in->from, in->to - in->from);
    in->to -= in->from;
    in->from = 0;
    iov[1].iov_base = in->buffer + in->to;
    iov[1].iov_len = sizeof(in->buffer) - in->to;
    rv = in->conn->stream.ops->recv(&in->conn->stream, len ? iov : iov + 1,
                                    len ? 2 : 1, &length, in->deadline);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (length > in->room) {
        return APR_EINCOMPLETE;
    }
    in->room -= length;
    *placed = length < len ? length : len;
    in->to += length - *placed;
    return APR_SUCCESS;
}

/* A line without its end, which is overwritten with NUL. */
static apr_status_t line_read(input_t *in, char **line)
{
    apr_size_t seen = 0;
    apr_size_t placed;
    apr_status_t rv;
    char *end;

    for (;;) {
        end = memchr(in->buffer + in->from + seen, '\n',
                     in->to - in->from - seen);
        if (end) {
            break;
        }
        seen = in->to - in->from;
        if (seen == sizeof(in->buffer)) {
            return EPROTO;
        }
        rv = input_more(in, NULL, 0, &placed);
        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    *line = in->buffer + in->from;
    in->from = (apr_size_t)(end + 1 - in->buffer);
    if (end == *line || end[-1] != '\r') {
        return EPROTO;
    }
    end[-1] = 0;
    return APR_SUCCESS;
}

/* The number behind the first letter of a line; -1: of "-1" or nonsense. */
static apr_int64_t line_number(const char *line)
{
    apr_int64_t n = 0;

    if (!*++line) {
        return -1;
    }
    for (; *line; line++) {
        if (!apr_isdigit(*line) || n > APR_INT32_MAX) {
            return -1;
        }
        n = n * 10 + (*line - '0');
    }
    return n;
}

/* `len` bytes, some of which may be in the buffer. */
static apr_status_t data_read(input_t *in, char *data, apr_size_t len)
{
    apr_size_t n = in->to - in->from;
    apr_status_t rv = APR_SUCCESS;

    n = n < len ? n : len;
    memcpy(data, in->buffer + in->from, n);
    in->from += n;
    while (rv == APR_SUCCESS && n < len) {
        apr_size_t placed = 0;

        rv = input_more(in, data + n, len - n, &placed);
        n += placed;
    }
    return rv;
}

static apr_status_t string_read(input_t *in, int index, apr_size_t len,
                                mw_redis_reply_t *reply)
{
    mw_redis_batch_t *batch = in->batch;
    char *line;
    apr_status_t rv;

    if (len > in->room + (in->to - in->from)) {
        return APR_EINCOMPLETE;
    }
    reply->type = REDIS_REPLY_STRING;
    reply->len = len;
    if (len < MW_REDIS_PLACED) {
        reply->data = apr_palloc(batch->pool, len + 1);
        reply->data[len] = 0;
    }
    else {
        reply->data = batch->place(batch->baton, index, len);
    }
    if (!reply->data) {
        return APR_ENOMEM;
    }
    rv = data_read(in, reply->data, len);
    if (rv == APR_SUCCESS) {
        rv = line_read(in, &line);
    }
    return rv == APR_SUCCESS && *line ? EPROTO : rv;
}

/* What follows a line. */
static apr_status_t element_read(input_t *in, int index, const char *line,
                                 mw_redis_reply_t *reply)
{
    apr_int64_t len = line_number(line);

    if (!strcmp(line, "$-1")) {
        reply->type = REDIS_REPLY_NIL;
        return APR_SUCCESS;
    }
    return *line == '$' && len >= 0
               ? string_read(in, index, (apr_size_t)len, reply)
               : EPROTO;
}

static apr_status_t array_read(input_t *in, apr_int64_t count,
                               mw_redis_reply_t *reply)
{
    mw_redis_reply_t *elements;
    apr_status_t rv = APR_SUCCESS;
    char *line;
    int i;

    if (count < 0 || count > FIELDS_MAX) {
        return EPROTO;
    }
    reply->type = REDIS_REPLY_ARRAY;
    reply->len = (apr_size_t)count;
    elements =
        apr_pcalloc(in->batch->pool, (apr_size_t)count * sizeof(*elements) + 1);
    reply->elements = apr_palloc(
        in->batch->pool, (apr_size_t)count * sizeof(reply->elements[0]) + 1);
    for (i = 0; rv == APR_SUCCESS && i < count; i++) {
        reply->elements[i] = &elements[i];
        rv = line_read(in, &line);
        if (rv == APR_SUCCESS) {
            rv = element_read(in, i, line, &elements[i]);
        }
    }
    return rv;
}

static apr_status_t reply_read(input_t *in, mw_redis_reply_t *reply)
{
    char *line;
    apr_status_t rv = line_read(in, &line);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (*line == '*') {
        return array_read(in, line_number(line), reply);
    }
    if (*line != '-' && *line != '+') {
        return element_read(in, 0, line, reply);
    }
    reply->type = *line == '-' ? REDIS_REPLY_ERROR : REDIS_REPLY_STATUS;
    reply->data = apr_pstrdup(in->batch->pool, line + 1);
    reply->len = strlen(reply->data);
    return APR_SUCCESS;
}

apr_status_t mw_redis_fields_read(mw_redis_conn_t *conn,
                                  mw_redis_batch_t *batch, apr_int64_t deadline,
                                  mw_redis_reply_t **replies)
{
    mw_redis_reply_t *all =
        apr_pcalloc(batch->pool, (apr_size_t)batch->commands * sizeof(*all));
    apr_status_t rv = APR_SUCCESS;
    input_t in;
    int i;

    batch->place(batch->baton, -1, 0);
    in.conn = conn;
    in.batch = batch;
    in.deadline = deadline;
    in.room = batch->reply_max;
    in.from = in.to = 0;
    for (i = 0; rv == APR_SUCCESS && i < batch->commands; i++) {
        replies[i] = &all[i];
        rv = reply_read(&in, &all[i]);
    }
    return rv == APR_SUCCESS && in.from != in.to ? EPROTO : rv;
}
