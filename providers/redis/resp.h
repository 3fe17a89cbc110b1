/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file resp.h
 * @brief Commands as bytes, and bytes as replies (RESP2).
 */
#ifndef MW_REDIS_RESP_H
#define MW_REDIS_RESP_H

#include <sys/uio.h>

#include <hiredis/hiredis.h>

#include "apr_tables.h"

#include "mod_cachemw.h"

/** Strings from here on are put where place() says. */
#define MW_REDIS_PLACED 1024

/** Bytes of a batch up to this many at once are copied behind each other;
 *  longer ones are sent from where they are. */
#define MW_REDIS_COPIED 1024

/**
 * Commands for one write. In a pool; `more` is for bodies that are not to be in
 * memory as a whole.
 */
typedef struct mw_redis_batch_t {
    apr_pool_t *pool;
    apr_array_header_t *iov; /**< of struct iovec, in order */
    char *tail;              /**< behind the bytes that were copied last */
    apr_size_t room;         /**< left behind tail */
    int commands;            /**< replies to expect */
    /**
     * Called when all of iov was sent: empty it and append what comes next.
     * NULL, or no pieces afterwards: that was all. What it returns when it
     * fails is kept in `failed`, so that no server is blamed for it.
     */
    apr_status_t (*more)(struct mw_redis_batch_t *batch, void *baton);
    /** Called when the batch is tried again although more was called: append
     *  what it began with. NULL: it cannot be tried again. */
    apr_status_t (*again)(struct mw_redis_batch_t *batch, void *baton);
    void *baton;
    int is_begun;        /**< more was called */
    apr_status_t failed; /**< what more or again returned */
    int is_asking;       /**< see mw_redis_batch_ask() */
    /**
     * For a batch whose last command is a GET, GETRANGE or HMGET: where to put
     * a long string, the one with this index, without a detour. NULL from it: no memory.
     * Called with -1 when a try begins: what was put anywhere is worth nothing.
     */
    char *(*place)(void *baton, int index, apr_size_t len);
    apr_size_t reply_max; /**< bytes of all replies; more is nonsense */
} mw_redis_batch_t;

/** @param reply_max bytes of all replies together */
void mw_redis_batch_init(mw_redis_batch_t *batch, apr_size_t reply_max,
                         apr_pool_t *pool);

/** Append the beginning of a command: how many arguments follow. */
void mw_redis_batch_open(mw_redis_batch_t *batch, int count);
/** Append an argument. Long ones must stay as long as the batch. */
void mw_redis_batch_arg(mw_redis_batch_t *batch, const char *data,
                        apr_size_t len);
/** The same, of a word. */
void mw_redis_batch_word(mw_redis_batch_t *batch, const char *word);
/** The same, of a number. */
void mw_redis_batch_number(mw_redis_batch_t *batch, apr_int64_t number);
/** Append a whole command of words; the last is NULL. */
void mw_redis_batch_words(mw_redis_batch_t *batch, ...)
    __attribute__((sentinel));

/**
 * Put an ASKING in front of the first command, or take it away. The replies
 * begin with the one to it.
 */
void mw_redis_batch_ask(mw_redis_batch_t *batch, int is_asking);

/**
 * Make a batch ready for another try.
 * @return APR_ENOTIMPL: it cannot be; what `again` returned
 */
apr_status_t mw_redis_batch_again(mw_redis_batch_t *batch);

/** Parts of an argument: its length; its bytes; what ends it. */
void mw_redis_batch_length(mw_redis_batch_t *batch, apr_size_t len);
void mw_redis_batch_bytes(mw_redis_batch_t *batch, const char *data,
                          apr_size_t len);
void mw_redis_batch_end(mw_redis_batch_t *batch);

/** A reply. In the pool of its batch. */
typedef struct mw_redis_reply_t {
    int type;            /**< REDIS_REPLY_STRING, _ARRAY, _INTEGER, _NIL,
                              _STATUS, _ERROR */
    apr_int64_t integer; /**< of an integer */
    char *data;          /**< of a string, status, error: len bytes and NUL */
    apr_size_t len;      /**< bytes, or elements of an array */
    struct mw_redis_reply_t **elements; /**< of an array, none is NULL */
} mw_redis_reply_t;

/** Whether a status reply or string is this text. */
int mw_redis_reply_is(const mw_redis_reply_t *reply, const char *text);

/** Kinds of error replies. */
typedef enum mw_redis_error_e {
    MW_REDIS_ERROR_NONE,
    MW_REDIS_ERROR_OTHER,
    MW_REDIS_ERROR_ASK,
    MW_REDIS_ERROR_BUSY,
    MW_REDIS_ERROR_CLUSTERDOWN,
    MW_REDIS_ERROR_DENIED,
    MW_REDIS_ERROR_EXECABORT,
    MW_REDIS_ERROR_LOADING,
    MW_REDIS_ERROR_MASTERDOWN,
    MW_REDIS_ERROR_MAXCLIENTS,
    MW_REDIS_ERROR_MOVED,
    MW_REDIS_ERROR_NOAUTH,
    MW_REDIS_ERROR_NOPERM,
    MW_REDIS_ERROR_NOSCRIPT,
    MW_REDIS_ERROR_OOM,
    MW_REDIS_ERROR_READONLY,
    MW_REDIS_ERROR_TRYAGAIN,
    MW_REDIS_ERROR_WRONGPASS,
    MW_REDIS_ERROR_WRONGTYPE
} mw_redis_error_e;

/** The kind of a reply; NONE: it is no error. */
mw_redis_error_e mw_redis_error_of(const mw_redis_reply_t *reply);

/** The word that such an error begins with; "other". */
const char *mw_redis_error_name(mw_redis_error_e kind);

/** What a slot returns for it: APR_ENOSPC for OOM, EROFS, EACCES, EBUSY, … */
apr_status_t mw_redis_error_status(mw_redis_error_e kind);

/** Most elements of all arrays in the replies to a batch. */
#define MW_REDIS_ELEMENTS 131072

/** What a reader makes replies of: set before it is fed. */
typedef struct mw_redis_making_t {
    apr_pool_t *pool;
    apr_size_t elements; /**< that arrays may still have */
} mw_redis_making_t;

/** A reader of replies: malloc'ed, freed by redisReaderFree(). */
redisReader *mw_redis_reader_make(mw_redis_making_t *making);

#endif
