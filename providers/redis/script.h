/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file script.h
 * @brief What Redis has to do in one step: compare, then change. Lua.
 *
 * Each has one key: the name of an entry, of a lock, or of the set of servers.
 */
#ifndef MW_REDIS_SCRIPT_H
#define MW_REDIS_SCRIPT_H

#include "layout.h"

typedef enum mw_redis_script_e {
    /** Remove what is there, if it has the id in the first argument, or that
     *  is empty. 1: done, or nothing was there; 0: it is another one. With two
     *  more, a channel and a message, others are told: not of an id that was
     *  gone */
    MW_REDIS_REMOVE,
    /** Id, how much of the header to keep, the rest of a header, ms to live,
     *  the time now in µs; a channel and a message, or neither. 1: done; 0: it
     *  is another one or gone */
    MW_REDIS_AMEND,
    /** Of a lock: token, ms to live. The token that has it from now on: that
     *  one, when nobody had it or the same */
    MW_REDIS_LOCK,
    /** Of a lock: token. 1: it had it, and has not any more; 0: it had not */
    MW_REDIS_UNLOCK,
    /** Of the set of servers: a name, how many ms one stays in it. How many are
     *  in it */
    MW_REDIS_SHARING
} mw_redis_script_e;

/** Append EVALSHA with the name; `count` arguments are for the caller to
 *  append. */
void mw_redis_script_add(mw_redis_batch_t *batch, mw_redis_script_e script,
                         const mw_redis_bytes_t *name, int count);

/** The same with the text of the script, for a server that does not know it. */
void mw_redis_script_add_text(mw_redis_batch_t *batch, mw_redis_script_e script,
                              const mw_redis_bytes_t *name, int count);

/**
 * Run a script where its name is, whether the server knows it or not.
 * @param reply what it answers, in the call's pool
 * @return see mw_redis_run()
 */
apr_status_t mw_redis_script_run(mw_redis_t *store, const cachemw_call_t *call,
                                 mw_redis_script_e script,
                                 const mw_redis_bytes_t *name,
                                 const mw_redis_bytes_t *args, int count,
                                 const mw_redis_reply_t **reply);

/** The same of a script that answers 1 or 0. @return APR_NOTFOUND: 0 */
apr_status_t mw_redis_script_try(mw_redis_t *store, const cachemw_call_t *call,
                                 mw_redis_script_e script,
                                 const mw_redis_bytes_t *name,
                                 const mw_redis_bytes_t *args, int count);

#endif
