/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file resp.h
 * @brief Commands as bytes, and bytes as replies (RESP2).
 */
#ifndef MW_REDIS_RESP_H
#define MW_REDIS_RESP_H

#include <sys/uio.h>

#include <hiredis/hiredis.h>

#include "mod_cachemw.h"

/** Arguments up to this many bytes are copied behind each other; longer ones
 *  are sent from where they are. */
#define MW_REDIS_COPIED 512

/**
 * Commands for one write. In a pool; `more` is for bodies that are not to be in
 * memory as a whole.
 */
typedef struct mw_redis_batch_t {
    apr_pool_t *pool;
    apr_array_header_t *iov; /**< of struct iovec, in order */
    char *tail;              /**< bytes of the last piece that may grow */
    apr_size_t room;         /**< left behind tail */
    int commands;            /**< replies to expect */
    /**
     * Called when all of iov was sent: empty it and append what comes next.
     * NULL or no pieces afterwards: that was all. A batch with `more` is not
     * tried twice once it was called.
     */
    apr_status_t (*more)(struct mw_redis_batch_t *batch, void *baton);
    void *baton;
    apr_size_t reply_max; /**< bytes of all replies; more is nonsense */
} mw_redis_batch_t;

/** A pointer and a length. */
typedef struct mw_redis_arg_t {
    const char *data;
    apr_size_t len;
} mw_redis_arg_t;

void mw_redis_batch_init(mw_redis_batch_t *batch, apr_pool_t *pool);

/** Append a command. Arguments longer than MW_REDIS_COPIED are referred to. */
void mw_redis_batch_add(mw_redis_batch_t *batch, const mw_redis_arg_t *args,
                        int count);

/** The same of words without NUL; the last is NULL. */
void mw_redis_batch_words(mw_redis_batch_t *batch, ...)
    __attribute__((sentinel));

/** Append a part of a command: "*<count>", and count the command. */
void mw_redis_batch_open(mw_redis_batch_t *batch, int count);
/** Append an argument: its length, its bytes. */
void mw_redis_batch_arg(mw_redis_batch_t *batch, const char *data,
                        apr_size_t len);
/** Append the length of an argument whose bytes follow by batch_bytes. */
void mw_redis_batch_length(mw_redis_batch_t *batch, apr_size_t len);
/** Append bytes as they are, copied if they are few. */
void mw_redis_batch_bytes(mw_redis_batch_t *batch, const char *data,
                          apr_size_t len);

/** A reply. In the pool of its batch. */
typedef struct mw_redis_reply_t {
    int type;            /**< REDIS_REPLY_STRING, _ARRAY, _INTEGER, _NIL,
                              _STATUS, _ERROR */
    apr_int64_t integer; /**< of an integer */
    const char *data; /**< of a string, status or error: len bytes and a NUL */
    apr_size_t len;   /**< bytes, or elements of an array */
    struct mw_redis_reply_t **elements;
} mw_redis_reply_t;

/** Kinds of error replies. */
typedef enum mw_redis_error_e {
    MW_REDIS_ERROR_NONE = -1,
    MW_REDIS_ERROR_OTHER,
    MW_REDIS_ERROR_OOM,
    MW_REDIS_ERROR_LOADING,
    MW_REDIS_ERROR_READONLY,
    MW_REDIS_ERROR_NOAUTH,
    MW_REDIS_ERROR_WRONGPASS,
    MW_REDIS_ERROR_NOPERM,
    MW_REDIS_ERROR_MOVED,
    MW_REDIS_ERROR_ASK,
    MW_REDIS_ERROR_TRYAGAIN,
    MW_REDIS_ERROR_CLUSTERDOWN,
    MW_REDIS_ERROR_BUSY,
    MW_REDIS_ERROR_NOSCRIPT,
    MW_REDIS_ERROR_WRONGTYPE,
    MW_REDIS_ERROR_MASTERDOWN,
    MW_REDIS_ERROR_KINDS
} mw_redis_error_e;

/** The word that Redis begins such an error with, in lower case; "other". */
const char *mw_redis_error_name(mw_redis_error_e kind);

/** The kind of a reply; NONE: it is no error. EXECABORT is OTHER: what a
 *  queued command was answered tells more. */
mw_redis_error_e mw_redis_error_of(const mw_redis_reply_t *reply);

/** A reader of replies: malloc'ed, freed by redisReaderFree(). Its privdata is
 *  the apr_pool_t * in which replies are made. */
redisReader *mw_redis_reader_make(void);

#endif
