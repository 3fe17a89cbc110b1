/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "apr_strings.h"

#include "resp.h"

/* Of the memory that short pieces are copied to. */
#define BATCH_BLOCK 2048

/* Most arrays inside of each other in an answer to anything that we ask. */
#define REPLY_DEPTH 4

#if HIREDIS_MAJOR >= 1
typedef size_t reader_count_t;
#else
typedef int reader_count_t;
#endif

/* --- commands ------------------------------------------------------------- */

void mw_redis_batch_init(mw_redis_batch_t *batch, apr_size_t reply_max,
                         apr_pool_t *pool)
{
    memset(batch, 0, sizeof(*batch));
    batch->pool = pool;
    batch->iov = apr_array_make(pool, 8, sizeof(struct iovec));
    batch->reply_max = reply_max;
}

static void batch_append(mw_redis_batch_t *batch, const char *data,
                         apr_size_t len)
{
    struct iovec *iov = apr_array_push(batch->iov);

    iov->iov_base = (void *)data;
    iov->iov_len = len;
}

/* Room for some bytes behind those that were copied last. */
static char *batch_room(mw_redis_batch_t *batch, apr_size_t len)
{
    apr_array_header_t *iov = batch->iov;
    struct iovec *last =
        iov->nelts ? &APR_ARRAY_IDX(iov, iov->nelts - 1, struct iovec) : NULL;
    char *to = batch->tail;

    if (len > batch->room) {
        batch->room = BATCH_BLOCK;
        to = apr_palloc(batch->pool, batch->room);
        last = NULL;
    }
    if (last && (char *)last->iov_base + last->iov_len == to) {
        last->iov_len += len;
    }
    else {
        batch_append(batch, to, len);
    }
    batch->tail = to + len;
    batch->room -= len;
    return to;
}

void mw_redis_batch_bytes(mw_redis_batch_t *batch, const char *data,
                          apr_size_t len)
{
    if (len > MW_REDIS_COPIED) {
        batch_append(batch, data, len);
    }
    else if (len) {
        memcpy(batch_room(batch, len), data, len);
    }
}

/* "*3\r\n", "$3\r\n" */
static void batch_count(mw_redis_batch_t *batch, char kind, apr_uint64_t n)
{
    char text[24];
    char *p = text + sizeof(text);

    *--p = '\n';
    *--p = '\r';
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    *--p = kind;
    mw_redis_batch_bytes(batch, p, text + sizeof(text) - p);
}

void mw_redis_batch_open(mw_redis_batch_t *batch, int count)
{
    batch_count(batch, '*', (apr_uint64_t)count);
    batch->commands++;
}

void mw_redis_batch_length(mw_redis_batch_t *batch, apr_size_t len)
{
    batch_count(batch, '$', len);
}

void mw_redis_batch_end(mw_redis_batch_t *batch)
{
    mw_redis_batch_bytes(batch, "\r\n", 2);
}

void mw_redis_batch_arg(mw_redis_batch_t *batch, const char *data,
                        apr_size_t len)
{
    mw_redis_batch_length(batch, len);
    mw_redis_batch_bytes(batch, data, len);
    mw_redis_batch_end(batch);
}

void mw_redis_batch_word(mw_redis_batch_t *batch, const char *word)
{
    mw_redis_batch_arg(batch, word, strlen(word));
}

void mw_redis_batch_number(mw_redis_batch_t *batch, apr_int64_t number)
{
    char text[24];

    apr_snprintf(text, sizeof(text), "%" APR_INT64_T_FMT, number);
    mw_redis_batch_word(batch, text);
}

void mw_redis_batch_words(mw_redis_batch_t *batch, ...)
{
    const char *word;
    va_list words;
    int count = 0;

    va_start(words, batch);
    while (va_arg(words, const char *)) {
        count++;
    }
    va_end(words);
    mw_redis_batch_open(batch, count);
    va_start(words, batch);
    while ((word = va_arg(words, const char *)) != NULL) {
        mw_redis_batch_word(batch, word);
    }
    va_end(words);
}

/* --- another try ---------------------------------------------------------- */

void mw_redis_batch_ask(mw_redis_batch_t *batch, int is_asking)
{
    static const char asking[] = "*1\r\n$6\r\nASKING\r\n";
    apr_array_header_t *iov = batch->iov;
    struct iovec *first;

    if (is_asking == batch->is_asking) {
        return;
    }
    if (is_asking) {
        apr_array_push(iov);
        first = &APR_ARRAY_IDX(iov, 0, struct iovec);
        memmove(first + 1, first, (iov->nelts - 1) * sizeof(*first));
        first->iov_base = (void *)asking;
        first->iov_len = sizeof(asking) - 1;
        batch->commands++;
    }
    else {
        first = &APR_ARRAY_IDX(iov, 0, struct iovec);
        memmove(first, first + 1, --iov->nelts * sizeof(*first));
        batch->commands--;
    }
    batch->is_asking = is_asking;
}

apr_status_t mw_redis_batch_again(mw_redis_batch_t *batch)
{
    const int is_asking = batch->is_asking;

    if (!batch->is_begun) {
        return APR_SUCCESS;
    }
    if (!batch->again || batch->failed != APR_SUCCESS) {
        return APR_ENOTIMPL;
    }
    apr_array_clear(batch->iov);
    batch->commands = 0;
    batch->is_begun = batch->is_asking = 0;
    batch->failed = batch->again(batch, batch->baton);
    mw_redis_batch_ask(batch, is_asking);
    return batch->failed;
}

/* --- replies -------------------------------------------------------------- */

int mw_redis_reply_is(const mw_redis_reply_t *reply, const char *text)
{
    return (reply->type == REDIS_REPLY_STATUS
            || reply->type == REDIS_REPLY_STRING)
           && reply->len == strlen(text)
           && !memcmp(reply->data, text, reply->len);
}

static apr_pool_t *task_pool(const redisReadTask *task)
{
    return ((mw_redis_making_t *)task->privdata)->pool;
}

static mw_redis_reply_t *reply_make(const redisReadTask *task)
{
    mw_redis_reply_t *reply = apr_pcalloc(task_pool(task), sizeof(*reply));

    reply->type = task->type;
    if (task->parent) {
        ((mw_redis_reply_t *)task->parent->obj)->elements[task->idx] = reply;
    }
    return reply;
}

static void *reply_string(const redisReadTask *task, char *data, size_t len)
{
    mw_redis_reply_t *reply = reply_make(task);

    reply->data = apr_pstrmemdup(task_pool(task), data, len);
    reply->len = len;
    return reply;
}

static int task_depth(const redisReadTask *task)
{
    int depth = 0;

    for (; task; task = task->parent) {
        depth++;
    }
    return depth;
}

static void *reply_array(const redisReadTask *task, reader_count_t count)
{
    mw_redis_making_t *making = task->privdata;
    mw_redis_reply_t *reply;

    if ((apr_size_t)count > making->elements
        || task_depth(task) > REPLY_DEPTH) {
        return NULL;
    }
    making->elements -= (apr_size_t)count;
    reply = reply_make(task);
    reply->len = (apr_size_t)count;
    reply->elements = apr_pcalloc(
        making->pool, (reply->len + 1) * sizeof(reply->elements[0]));
    return reply;
}

static void *reply_integer(const redisReadTask *task, long long integer)
{
    mw_redis_reply_t *reply = reply_make(task);

    reply->integer = integer;
    return reply;
}

static void *reply_nil(const redisReadTask *task)
{
    mw_redis_reply_t *reply = reply_make(task);

    /* for hiredis a null array, too, is of type array here */
    reply->type = REDIS_REPLY_NIL;
    return reply;
}

#if HIREDIS_MAJOR >= 1
/* Of RESP3, for which we never ask. */
static void *reply_no_double(const redisReadTask *task, double number,
                             char *data, size_t len)
{
    (void)task, (void)number, (void)data, (void)len;
    return NULL;
}

static void *reply_no_bool(const redisReadTask *task, int flag)
{
    (void)task, (void)flag;
    return NULL;
}
#endif

/* Replies go with their pool. */
static void reply_free(void *reply)
{
    (void)reply;
}

static redisReplyObjectFunctions reply_functions = {
    .createString = reply_string,
    .createArray = reply_array,
    .createInteger = reply_integer,
    .createNil = reply_nil,
#if HIREDIS_MAJOR >= 1
    .createDouble = reply_no_double,
    .createBool = reply_no_bool,
#endif
    .freeObject = reply_free,
};

redisReader *mw_redis_reader_make(mw_redis_making_t *making)
{
    redisReader *reader = redisReaderCreateWithFunctions(&reply_functions);

    if (reader) {
        reader->privdata = making;
    }
    return reader;
}

/* --- error replies -------------------------------------------------------- */

typedef struct error_kind_t {
    const char *word;
    apr_status_t status;
} error_kind_t;

static const error_kind_t error_kinds[] = {
    [MW_REDIS_ERROR_OTHER] = { "other", EREMOTEIO },
    [MW_REDIS_ERROR_ASK] = { "ASK", EBUSY },
    [MW_REDIS_ERROR_BUSY] = { "BUSY", EBUSY },
    [MW_REDIS_ERROR_CLUSTERDOWN] = { "CLUSTERDOWN", EBUSY },
    [MW_REDIS_ERROR_DENIED] = { "DENIED", EACCES },
    [MW_REDIS_ERROR_EXECABORT] = { "EXECABORT", EREMOTEIO },
    [MW_REDIS_ERROR_LOADING] = { "LOADING", EBUSY },
    [MW_REDIS_ERROR_MASTERDOWN] = { "MASTERDOWN", EBUSY },
    [MW_REDIS_ERROR_MAXCLIENTS] = { "MAXCLIENTS", EBUSY },
    [MW_REDIS_ERROR_MOVED] = { "MOVED", EBUSY },
    [MW_REDIS_ERROR_NOAUTH] = { "NOAUTH", EACCES },
    [MW_REDIS_ERROR_NOPERM] = { "NOPERM", EACCES },
    [MW_REDIS_ERROR_NOSCRIPT] = { "NOSCRIPT", EREMOTEIO },
    [MW_REDIS_ERROR_OOM] = { "OOM", APR_ENOSPC },
    [MW_REDIS_ERROR_READONLY] = { "READONLY", EROFS },
    [MW_REDIS_ERROR_TRYAGAIN] = { "TRYAGAIN", EBUSY },
    [MW_REDIS_ERROR_WRONGPASS] = { "WRONGPASS", EACCES },
    [MW_REDIS_ERROR_WRONGTYPE] = { "WRONGTYPE", APR_EINCOMPLETE },
};

/* The kind whose word a text begins with. */
static mw_redis_error_e error_find(const char *text)
{
    const int count = sizeof(error_kinds) / sizeof(error_kinds[0]);
    apr_size_t len = strcspn(text, " \r\n");
    int i;

    for (i = MW_REDIS_ERROR_OTHER + 1; i < count; i++) {
        if (strlen(error_kinds[i].word) == len
            && !memcmp(error_kinds[i].word, text, len)) {
            return (mw_redis_error_e)i;
        }
    }
    return MW_REDIS_ERROR_OTHER;
}

mw_redis_error_e mw_redis_error_of(const mw_redis_reply_t *reply)
{
    static const char script[] = "ERR Error running script";
    static const char clients[] = "ERR max number of clients";
    mw_redis_error_e kind;
    const char *inner;

    if (reply->type != REDIS_REPLY_ERROR) {
        return MW_REDIS_ERROR_NONE;
    }
    kind = error_find(reply->data);
    /* Redis 6 wraps what went wrong in a script: "… 1: -OOM command …" */
    if (kind == MW_REDIS_ERROR_OTHER
        && !strncmp(reply->data, script, strlen(script))) {
        inner = strstr(reply->data, ": -");
        kind = inner ? error_find(inner + 3) : kind;
    }
    if (!strncmp(reply->data, clients, strlen(clients))) {
        kind = MW_REDIS_ERROR_MAXCLIENTS;
    }
    return kind;
}

const char *mw_redis_error_name(mw_redis_error_e kind)
{
    return error_kinds[kind].word;
}

apr_status_t mw_redis_error_status(mw_redis_error_e kind)
{
    return error_kinds[kind].status;
}
