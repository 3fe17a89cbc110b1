/* SPDX-License-Identifier: Apache-2.0 */

#include <pthread.h>
#include <string.h>

#include "apr_sha1.h"
#include "apr_strings.h"

#include "script.h"

/* Offsets in a header count from 1 here: flags 5, id 9 to 24. While a slot
 * moves from one node of a cluster to another neither can rename: then the rest
 * is lost to who reads it, but gone it is. */
#define RETIRE                                                    \
    "local function retire(k, h)\n"                               \
    "if type(h) == 'string' and #h >= 24 and h:byte(5) % 2 == 1 " \
    "then\n"                                                      \
    "local g = k .. ':' .. h:sub(9, 24)\n"                        \
    "if not redis.pcall('RENAME', k, g).err then\n"               \
    "redis.call('PEXPIRE', g, 60000)\n"                           \
    "return 1\n"                                                  \
    "end\n"                                                       \
    "end\n"                                                       \
    "redis.call('UNLINK', k)\n"                                   \
    "return 1\n"                                                  \
    "end\n"

/* pcall: the name may have something that is no hash. */
#define HEADER "local h = redis.pcall('HGET', KEYS[1], 'h')\n"

static const char *const script_texts[] = {
    [MW_REDIS_RETIRE] = RETIRE HEADER "return retire(KEYS[1], h)\n",
    [MW_REDIS_REMOVE] =
        RETIRE HEADER "if ARGV[1] ~= '' and type(h) == 'string' "
                      "and h:sub(9, 24) ~= ARGV[1] then return 0 end\n"
                      "return retire(KEYS[1], h)\n",
    [MW_REDIS_AMEND] =
        HEADER "local n = tonumber(ARGV[2])\n"
               "if type(h) ~= 'string' or h:sub(9, 24) ~= ARGV[1] "
               "or #h < n + 8 "
               "or struct.unpack('<i8', h, n + 1) <= tonumber(ARGV[5]) then "
               "return 0 end\n"
               "redis.call('HSET', KEYS[1], 'h', h:sub(1, n) .. ARGV[3])\n"
               "redis.call('PEXPIRE', KEYS[1], "
               "tonumber(ARGV[4]) + h:byte(5) % 2 * 60000)\n"
               "return 1\n",
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

void mw_redis_script_load(mw_redis_batch_t *batch, mw_redis_script_e script)
{
    mw_redis_batch_words(batch, "SCRIPT", "LOAD", script_texts[script], NULL);
}
