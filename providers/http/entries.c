/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "providers/common/http_value.h"

#include "entries.h"
#include "request.h"

#define HEX_DIGITS "0123456789abcdef"

/* --- URLs ----------------------------------------------------------------- */

static char *hex_write(char *to, const unsigned char *bytes, apr_size_t len)
{
    apr_size_t i;

    for (i = 0; i < len; i++) {
        *to++ = HEX_DIGITS[bytes[i] >> 4];
        *to++ = HEX_DIGITS[bytes[i] & 15];
    }
    return to;
}

/* RFC 3986, section 2: all but what is unreserved. */
static char *percent_write(char *to, const cachemw_key_t *key)
{
    apr_size_t i;

    for (i = 0; i < key->len; i++) {
        unsigned char c = (unsigned char)key->data[i];

        if (apr_isascii(c) && (apr_isalnum(c) || (c && strchr("-._~", c)))) {
            *to++ = (char)c;
        }
        else {
            *to++ = '%';
            to = hex_write(to, &c, 1);
        }
    }
    return to;
}

/* @return NULL: there was no memory for it */
static const char *url_of(const mw_http_t *store, const cachemw_key_t *key,
                          apr_pool_t *pool)
{
    const char *base = store->settings.base.text;
    apr_size_t len = strlen(base);
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char *url, *end;

    url = apr_palloc(pool, len + sizeof("/cache/") + sizeof(digest) * 2
                               + key->len * 3);
    memcpy(url, base, len);
    memcpy(url + len, "/cache/", 7);
    if (store->settings.key_encoding == MW_HTTP_PERCENT) {
        end = percent_write(url + len + 7, key);
    }
    else if (SHA256((const unsigned char *)key->data, key->len, digest)) {
        end = hex_write(url + len + 7, digest, sizeof(digest));
    }
    else {
        return NULL;
    }
    *end = '\0';
    return url;
}

/* --- get ------------------------------------------------------------------ */

/* Services may write the same JSON with blanks of their own, and with a
 * backslash before a slash: of base64 that is every 64th character. */
#define SPELLING 16 /* part of the text */

static apr_status_t damaged(const mw_http_t *store, const char *kind)
{
    mw_http_count(store, kind);
    return APR_EINCOMPLETE;
}

static apr_status_t text_decode(const mw_http_t *store,
                                const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const mw_http_request_t *request,
                                apr_bucket_brigade *body,
                                mw_http_value_t *value)
{
    const cachemw_services_t *services = store->services;
    const char *reason;
    apr_status_t rv = mw_http_value_decode(request->text, request->len,
                                           services->max_object_size,
                                           call->pool, body, value, &reason);

    switch (rv) {
    case APR_SUCCESS:
        break;
    case APR_EINCOMPLETE:
        return damaged(store, "damaged");
    case APR_ENOSPC:
        /* of a server that takes larger ones */
        mw_http_count(store, "too-large");
        return APR_NOTFOUND;
    case APR_ENOMEM:
        return rv;
    default:
        mw_http_count(store, "nonsense");
        services->explain(services, rv, "%s, port %d: its answer: %s",
                          store->settings.base.host, store->settings.base.port,
                          reason);
        return rv;
    }
    if (value->key.len != key->len
        || memcmp(value->key.data, key->data, key->len) != 0) {
        return damaged(store, "other-key");
    }
    return value->entry.expires <= call->now ? APR_NOTFOUND : APR_SUCCESS;
}

/* The entry of a key, and its ETag. A body of another outcome than success is
 * taken away again. */
static apr_status_t value_get(mw_http_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              apr_bucket_brigade *body, mw_http_value_t *value,
                              char etag[MW_HTTP_ETAG_MAX + 1])
{
    mw_http_request_t request = { .method = MW_HTTP_GET };
    apr_status_t rv;

    request.url = url_of(store, key, call->pool);
    request.most =
        mw_http_value_max(key->len, store->services->max_object_size);
    request.most += request.most / SPELLING;
    rv = mw_http_request_run(store, call, &request);
    if (rv == APR_SUCCESS) {
        rv = text_decode(store, call, key, &request, body, value);
        if (rv != APR_SUCCESS && body) {
            apr_brigade_cleanup(body);
        }
    }
    else if (rv == APR_ENOSPC) {
        rv = APR_NOTFOUND; /* see text_decode() */
    }
    free(request.text);
    if (etag) {
        memcpy(etag, request.etag, sizeof(request.etag));
    }
    return rv;
}

apr_status_t mw_http_get(void *self, const cachemw_call_t *call,
                         const cachemw_key_t *key, cachemw_entry_t *entry)
{
    mw_http_value_t value;
    apr_status_t rv = value_get(self, call, key, entry->body, &value, NULL);

    if (rv == APR_SUCCESS) {
        *entry = value.entry;
    }
    return rv;
}

apr_status_t mw_http_exists(void *self, const cachemw_call_t *call,
                            const cachemw_key_t *key)
{
    mw_http_value_t value;

    return value_get(self, call, key, NULL, &value, NULL);
}

/* --- a GET and what depends on it ----------------------------------------- */

/* One attempt after the other, until the call's time is over. */
typedef struct contest_t {
    cachemw_call_t call; /* its pool is the attempt's */
    int lost;
    int has_asked; /* something was tried */
} contest_t;

static void contest_begin(contest_t *contest, const mw_http_t *store,
                          const cachemw_call_t *call)
{
    contest->call = *call;
    contest->call.deadline = mw_http_deadline(store, call);
    contest->lost = contest->has_asked = 0;
    apr_pool_create(&contest->call.pool, call->pool);
}

/* Somebody was quicker. Two who go on at the same pace would meet again and
 * again. */
static void contest_lose(contest_t *contest, const mw_http_t *store)
{
    const cachemw_services_t *services = store->services;
    apr_uint16_t some = 0;

    apr_pool_clear(contest->call.pool);
    services->random(services, &some, sizeof(some));
    contest->lost += contest->lost < 5;
    apr_sleep(some % (1000 << contest->lost));
}

/* What is not tried after something was is late. */
static apr_status_t contest_end(const contest_t *contest, apr_status_t rv)
{
    return rv == APR_EAGAIN && contest->has_asked ? APR_TIMEUP : rv;
}

/* --- set, remove ---------------------------------------------------------- */

static apr_status_t value_remove(mw_http_t *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key, const char *etag)
{
    mw_http_request_t request = { .method = MW_HTTP_DELETE, .if_match = etag };

    request.url = url_of(store, key, call->pool);
    return mw_http_request_run(store, call, &request);
}

static apr_status_t value_put(mw_http_t *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry, const char *etag)
{
    mw_http_request_t request = { .method = MW_HTTP_PUT, .if_match = etag };
    apr_interval_time_t left = entry->expires - call->now;
    char *text;
    apr_status_t rv;

    if (left <= 0) {
        return value_remove(store, call, key, etag);
    }
    /* whole seconds, as most services take them: `expires` is exact */
    rv = mw_http_value_encode(key, entry, (left - 1) / APR_USEC_PER_SEC + 1,
                              &text, &request.body_len);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    request.body = text;
    request.url = url_of(store, key, call->pool);
    rv = mw_http_request_run(store, call, &request);
    free(text);
    return rv;
}

apr_status_t mw_http_set(void *self, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_entry_t *entry)
{
    return value_put(self, call, key, entry, NULL);
}

/* The entry of a key, if it is `id`. */
static apr_status_t same_get(mw_http_t *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             apr_bucket_brigade *body, mw_http_value_t *value,
                             char etag[MW_HTTP_ETAG_MAX + 1])
{
    apr_status_t rv = value_get(store, call, key, body, value, etag);

    return rv == APR_SUCCESS
                   && memcmp(value->entry.id.bytes, id->bytes,
                             sizeof(id->bytes))
                          != 0
               ? APR_ENOENT
               : rv;
}

apr_status_t mw_http_set_head(void *self, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              const cachemw_entry_t *entry)
{
    apr_bucket_brigade *body =
        apr_brigade_create(call->pool, apr_bucket_alloc_create(call->pool));
    contest_t contest;
    char etag[MW_HTTP_ETAG_MAX + 1];
    mw_http_value_t value;
    apr_status_t rv;

    contest_begin(&contest, self, call);
    for (;;) {
        rv = same_get(self, &contest.call, key, id, body, &value, etag);
        if (rv != APR_SUCCESS) {
            break;
        }
        contest.has_asked = 1;
        value.entry.head = entry->head;
        value.entry.head_len = entry->head_len;
        value.entry.expires = entry->expires;
        /* what somebody amended in between is still this entry */
        rv = value_put(self, &contest.call, key, &value.entry, etag);
        if (rv != APR_NOTFOUND) {
            break;
        }
        apr_brigade_cleanup(body);
        contest_lose(&contest, self);
    }
    apr_brigade_cleanup(body);
    return rv == APR_ENOENT ? APR_NOTFOUND : contest_end(&contest, rv);
}

apr_status_t mw_http_remove(void *self, const cachemw_call_t *call,
                            const cachemw_key_t *key, const cachemw_id_t *id)
{
    contest_t contest;
    char etag[MW_HTTP_ETAG_MAX + 1];
    mw_http_value_t value;
    apr_status_t rv;

    if (!id) {
        return value_remove(self, call, key, NULL);
    }
    contest_begin(&contest, self, call);
    for (;;) {
        rv = same_get(self, &contest.call, key, id, NULL, &value, etag);
        if (rv != APR_SUCCESS) {
            break;
        }
        contest.has_asked = 1;
        rv = value_remove(self, &contest.call, key, etag);
        if (rv != APR_NOTFOUND) {
            break;
        }
        contest_lose(&contest, self);
    }
    switch (rv) {
    case APR_NOTFOUND: /* there is none */
        return APR_SUCCESS;
    case APR_ENOENT: /* there is another one */
    case APR_EINCOMPLETE:
        return APR_NOTFOUND;
    default:
        return contest_end(&contest, rv);
    }
}
