/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "apr_strings.h"
#include "httpd.h"
#include "http_core.h"
#include "http_protocol.h"

#include "api_access.h"
#include "api_entry.h"
#include "providers/common/http_value.h"

/* Longest list of servers: each word of 32 digits, a comma and a blank. */
#define ACCESS_VIA_MAX (MW_API_HOPS_MAX * 34)

/* The time it takes tells nothing of the token. */
static int token_is(const char *expected, const char *token)
{
    unsigned char ours[SHA256_DIGEST_LENGTH];
    unsigned char theirs[SHA256_DIGEST_LENGTH];

    return SHA256((const unsigned char *)expected, strlen(expected), ours)
           && SHA256((const unsigned char *)token, strlen(token), theirs)
           && CRYPTO_memcmp(ours, theirs, sizeof(ours)) == 0;
}

static int token_check(request_rec *r, const mw_api_t *api, const char **reason)
{
    const char *field = apr_table_get(r->headers_in, "Authorization");

    if (api->is_open) {
        return OK;
    }
    if (!api->token) {
        *reason = "no token is configured";
        return HTTP_FORBIDDEN;
    }
    if (field && !strncasecmp(field, "Bearer ", 7)) {
        for (field += 7; *field == ' '; field++) {
            continue;
        }
        if (token_is(api->token, field)) {
            return OK;
        }
    }
    apr_table_setn(r->headers_out, "WWW-Authenticate",
                   "Bearer realm=\"cachemw\"");
    mw_store_log(api->store, CACHEMW_LOG_WARNING, APR_SUCCESS,
                 "API: the token of a request of %s is missing or wrong",
                 r->useragent_ip);
    *reason = "the token is missing or wrong";
    return HTTP_UNAUTHORIZED;
}

static int via_hops(const char *list)
{
    int hops = 1;

    while ((list = ap_strchr_c(list, ','))) {
        hops++;
        list++;
    }
    return hops;
}

/* What a store that is a client, too, sends on must be one that any server can
 * read. */
static int via_check(request_rec *r, const mw_api_t *api, const char **reason)
{
    const char *list = apr_table_getm(r->pool, r->headers_in, MW_HTTP_VIA);

    if (!list) {
        return OK;
    }
    if (list[strspn(list, "0123456789abcdef, \t")]) {
        *reason = MW_HTTP_VIA ": hexadecimal digits are expected";
        return HTTP_BAD_REQUEST;
    }
    if (ap_strstr_c(list, api->tag)) {
        *reason = "the request goes round in a circle";
        return HTTP_LOOP_DETECTED;
    }
    if (strlen(list) > ACCESS_VIA_MAX || via_hops(list) > MW_API_HOPS_MAX) {
        *reason = "the request has come through more than eight servers";
        return HTTP_LOOP_DETECTED;
    }
    return OK;
}

int mw_api_access_check(request_rec *r, const mw_api_t *api,
                        const char **reason)
{
    int status = token_check(r, api, reason);

    if (status == OK) {
        status = via_check(r, api, reason);
    }
    if (status != OK) {
        mw_store_count(api->store, MW_COUNT_API_DENIED, 1);
    }
    return status;
}
