/* SPDX-License-Identifier: Apache-2.0 */

#include <pthread.h>
#include <string.h>

#include "apr_sha1.h"
#include "apr_strings.h"

#include "script.h"
#include "servers.h"

/* Of the replies here. */
#define REPLY_MAX 65536

/* Offsets in a header count from 1 here: flags 5, id 9 to 24. While a slot moves
 * from one node of a cluster to another a body may be on the other one: pcall. */
#define BODY_EXPIRE                                                 \
    "local function body_expire(h, ttl)\n"                          \
    "if h:byte(5) % 2 == 1 then\n"                                  \
    "redis.pcall('PEXPIRE', KEYS[1] .. ':' .. h:sub(9, 24), ttl)\n" \
    "end\n"                                                         \
    "end\n"

/* pcall: the name may have something that is no string. */
#define HEADER "local h = redis.pcall('GETRANGE', KEYS[1], 0, "

/* Heads of 304s often have the length of those before them: then nothing but
 * they is written. */
static const char *const script_texts[] = {
    [MW_REDIS_REMOVE] =
        BODY_EXPIRE HEADER "23)\n"
                           "if type(h) == 'string' and #h == 24 then\n"
                           "if ARGV[1] ~= '' and h:sub(9, 24) ~= ARGV[1] then "
                           "return 0 end\n"
                           "body_expire(h, 60000)\n"
                           "end\n"
                           "local n = redis.call('UNLINK', KEYS[1])\n"
                           "if ARGV[2] and (ARGV[1] == '' or n == 1) then\n"
                           "redis.call('PUBLISH', ARGV[2], ARGV[3])\n"
                           "end\n"
                           "return 1\n",
    [MW_REDIS_AMEND] = BODY_EXPIRE
    "local n = tonumber(ARGV[2])\n" HEADER "n + 15)\n"
    "if type(h) ~= 'string' or #h < n + 16 or h:sub(9, 24) ~= ARGV[1] "
    "or struct.unpack('<i8', h, n + 1) <= tonumber(ARGV[5]) then "
    "return 0 end\n"
    "local key_len, head_len = struct.unpack('<I4I4', h, n + 9)\n"
    "local old = key_len + head_len + n - 16\n"
    "if old == #ARGV[3] then\n"
    "redis.call('SETRANGE', KEYS[1], n, ARGV[3])\n"
    "else\n"
    "local all = redis.call('GET', KEYS[1])\n"
    "redis.call('SET', KEYS[1], all:sub(1, n) .. ARGV[3] "
    ".. all:sub(n + old + 1))\n"
    "end\n"
    "redis.call('PEXPIRE', KEYS[1], ARGV[4])\n"
    "body_expire(h, tonumber(ARGV[4]) + 60000)\n"
    "if ARGV[6] then redis.call('PUBLISH', ARGV[6], ARGV[7]) end\n"
    "return 1\n",
    [MW_REDIS_LOCK] = "local holder = redis.pcall('GET', KEYS[1])\n"
                      "if type(holder) == 'string' and #holder == #ARGV[1] "
                      "and holder ~= ARGV[1] then\n"
                      "local left = redis.call('PTTL', KEYS[1])\n"
                      "if left > 0 and left <= 3600000 then\n"
                      "return holder\n"
                      "end\n"
                      "end\n"
                      "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
                      "return ARGV[1]\n",
    [MW_REDIS_UNLOCK] =
        "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n"
        "return redis.call('UNLINK', KEYS[1])\n",
    [MW_REDIS_SHARING] =
        "local t = redis.call('TIME')\n"
        "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
        "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])\n"
        "redis.call('ZADD', KEYS[1], now, ARGV[1])\n"
        "redis.call('PEXPIRE', KEYS[1], ARGV[2])\n"
        "return redis.call('ZCARD', KEYS[1])\n",
};

enum { SCRIPTS = sizeof(script_texts) / sizeof(script_texts[0]) };

static char script_digests[SCRIPTS][2 * APR_SHA1_DIGESTSIZE + 1];
static pthread_once_t script_once = PTHREAD_ONCE_INIT;

static void digests_make(void)
{
    unsigned char digest[APR_SHA1_DIGESTSIZE];
    apr_sha1_ctx_t context;
    int i, j;

    for (i = 0; i < SCRIPTS; i++) {
        apr_sha1_init(&context);
        apr_sha1_update(&context, script_texts[i],
                        (unsigned int)strlen(script_texts[i]));
        apr_sha1_final(digest, &context);
        for (j = 0; j < APR_SHA1_DIGESTSIZE; j++) {
            apr_snprintf(script_digests[i] + 2 * j, 3, "%02x", digest[j]);
        }
    }
}

static void script_add(mw_redis_batch_t *batch, const char *command,
                       const char *script, const mw_redis_bytes_t *name,
                       int count)
{
    mw_redis_batch_open(batch, 4 + count);
    mw_redis_batch_word(batch, command);
    mw_redis_batch_word(batch, script);
    mw_redis_batch_word(batch, "1");
    mw_redis_batch_arg(batch, name->data, name->len);
}

void mw_redis_script_add(mw_redis_batch_t *batch, mw_redis_script_e script,
                         const mw_redis_bytes_t *name, int count)
{
    pthread_once(&script_once, digests_make);
    script_add(batch, "EVALSHA", script_digests[script], name, count);
}

void mw_redis_script_add_text(mw_redis_batch_t *batch, mw_redis_script_e script,
                              const mw_redis_bytes_t *name, int count)
{
    script_add(batch, "EVAL", script_texts[script], name, count);
}

apr_status_t mw_redis_script_run(mw_redis_t *store, const cachemw_call_t *call,
                                 mw_redis_script_e script,
                                 const mw_redis_bytes_t *name,
                                 const mw_redis_bytes_t *args, int count,
                                 const mw_redis_reply_t **reply)
{
    apr_int64_t deadline = mw_redis_deadline(store, call);
    void (*add)(mw_redis_batch_t *, mw_redis_script_e, const mw_redis_bytes_t *,
                int) = mw_redis_script_add;
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;
    int i, tries = 0;

    do {
        mw_redis_batch_init(&batch, REPLY_MAX, call->pool);
        add(&batch, script, name, count);
        for (i = 0; i < count; i++) {
            mw_redis_batch_arg(&batch, args[i].data, args[i].len);
        }
        rv = mw_redis_run(store, name->data, name->len, &batch, deadline,
                          &replies);
        if (rv != APR_SUCCESS) {
            return rv;
        }
        add = mw_redis_script_add_text;
    } while (mw_redis_error_of(replies[0]) == MW_REDIS_ERROR_NOSCRIPT
             && tries++ == 0);
    *reply = replies[0];
    return APR_SUCCESS;
}

apr_status_t mw_redis_script_try(mw_redis_t *store, const cachemw_call_t *call,
                                 mw_redis_script_e script,
                                 const mw_redis_bytes_t *name,
                                 const mw_redis_bytes_t *args, int count)
{
    const mw_redis_reply_t *reply;
    apr_status_t rv =
        mw_redis_script_run(store, call, script, name, args, count, &reply);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (reply->type != REDIS_REPLY_INTEGER) {
        return mw_redis_nonsense(store);
    }
    return reply->integer ? APR_SUCCESS : APR_NOTFOUND;
}
