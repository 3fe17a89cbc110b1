/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "apr_escape.h"
#include "apr_lib.h"
#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_protocol.h"

#include "api.h"
#include "api_body.h"
#include "api_entry.h"
#include "config.h"
#include "entry.h"
#include "providers/common/http_value.h"

#define API_METHODS "GET, HEAD, PUT, DELETE"
/* What is thrown away of a body that nobody wants, rather than the
 * connection. */
#define API_DISCARD_MAX 65536
/* What a client may add to a value in blanks. */
#define API_BLANKS 65536
/* Ten years: beyond it nothing is different any more. */
#define API_TIMEOUT_MAX 315360000.0

/* A request. */
typedef struct ask_t {
    request_rec *r;
    const mw_api_t *api;
    mw_store_t *store;
    cachemw_call_t call;
    const char *name; /* of the entry, as the URL has it */
    apr_size_t name_len;
    cachemw_key_t key; /* in the store */
} ask_t;

const char *const mw_api_lacks = NULL;

/* --- answers -------------------------------------------------------------- */

/* Where httpd would read to its end what nobody wants, the connection ends. */
static void answer_without_body(request_rec *r)
{
    const char *length = apr_table_get(r->headers_in, "Content-Length");

    if (apr_table_get(r->headers_in, "Transfer-Encoding")
        || (length && apr_atoi64(length) > API_DISCARD_MAX)) {
        r->connection->keepalive = AP_CONN_CLOSE;
    }
}

static int answer_send(request_rec *r, apr_bucket_brigade *body)
{
    apr_status_t rv;

    APR_BRIGADE_INSERT_TAIL(body,
                            apr_bucket_eos_create(r->connection->bucket_alloc));
    rv = ap_pass_brigade(r->output_filters, body);
    return rv == APR_SUCCESS || r->connection->aborted ? OK : AP_FILTER_ERROR;
}

/* A reason is a text of ours that needs no escaping. The answer is complete, so
 * that httpd adds no page of its own. */
static int answer_refuse(request_rec *r, int status, const char *reason)
{
    apr_bucket_brigade *body =
        apr_brigade_create(r->pool, r->connection->bucket_alloc);
    const char *text =
        apr_pstrcat(r->pool, "{\"error\": \"", reason, "\"}\n", NULL);
    const apr_size_t length = strlen(text);

    r->status = status;
    ap_set_content_type(r, "application/json");
    ap_set_content_length(r, (apr_off_t)length);
    APR_BRIGADE_INSERT_TAIL(body, apr_bucket_pool_create(text, length, r->pool,
                                                         body->bucket_alloc));
    return answer_send(r, body);
}

/* The client's fault, in what it sent. */
static int ask_refuse(const ask_t *ask, int status, const char *reason)
{
    mw_store_count(ask->store, MW_COUNT_API_REFUSED, 1);
    return answer_refuse(ask->r, status, reason);
}

static int ask_miss(const ask_t *ask)
{
    mw_store_count(ask->store, MW_COUNT_API_MISS, 1);
    return answer_refuse(ask->r, HTTP_NOT_FOUND, "there is no such entry");
}

/* Trouble is counted and logged by the store. */
static int ask_fail(const ask_t *ask, apr_status_t rv)
{
    return rv == APR_ENOSPC ? answer_refuse(ask->r, HTTP_INSUFFICIENT_STORAGE,
                                            "the store has no room")
                            : answer_refuse(ask->r, HTTP_SERVICE_UNAVAILABLE,
                                            "the store is in trouble");
}

static int ask_done(const ask_t *ask)
{
    ask->r->status = HTTP_NO_CONTENT;
    return answer_send(
        ask->r, apr_brigade_create(ask->r->pool, ask->call.bucket_alloc));
}

/* --- who may -------------------------------------------------------------- */

/* @return 0: the library has failed */
static int text_digest(const char *text, apr_size_t length,
                       unsigned char digest[SHA256_DIGEST_LENGTH])
{
    return SHA256((const unsigned char *)text, length, digest) != NULL;
}

/* The time it takes tells nothing of the token. */
static int token_is(const char *expected, const char *token)
{
    unsigned char ours[SHA256_DIGEST_LENGTH];
    unsigned char theirs[SHA256_DIGEST_LENGTH];

    return text_digest(expected, strlen(expected), ours)
           && text_digest(token, strlen(token), theirs)
           && CRYPTO_memcmp(ours, theirs, sizeof(ours)) == 0;
}

static int request_has_token(request_rec *r, const mw_api_t *api)
{
    const char *field = apr_table_get(r->headers_in, "Authorization");

    if (!field || strncasecmp(field, "Bearer ", 7)) {
        return 0;
    }
    for (field += 7; *field == ' '; field++) {
        continue;
    }
    return token_is(api->token, field);
}

/* Whether it comes from here, or has come a long way: RFC 5842, section 7.2. */
static int request_is_circular(request_rec *r, const mw_api_t *api)
{
    const char *list = apr_table_getm(r->pool, r->headers_in, MW_HTTP_VIA);
    int hops = list != NULL;
    const char *c;

    for (c = list; c && *c; c++) {
        hops += *c == ',';
    }
    return hops > MW_API_HOPS_MAX || (list && ap_strstr_c(list, api->tag));
}

/* @return DECLINED: it may go on */
static int request_check(request_rec *r, const mw_api_t *api)
{
    int status = DECLINED;
    const char *reason = NULL;

    if (!api->token && !api->is_open) {
        status = HTTP_FORBIDDEN;
        reason = "no token is configured";
    }
    else if (api->token && !request_has_token(r, api)) {
        apr_table_setn(r->headers_out, "WWW-Authenticate",
                       "Bearer realm=\"cachemw\"");
        status = HTTP_UNAUTHORIZED;
        reason = "the token is missing or wrong";
        mw_store_log(api->store, CACHEMW_LOG_WARNING, APR_SUCCESS,
                     "API: the token of a request of %s is missing or wrong",
                     r->useragent_ip);
    }
    else if (request_is_circular(r, api)) {
        status = HTTP_LOOP_DETECTED;
        reason = "the request goes round in a circle";
    }
    if (reason) {
        mw_store_count(api->store, MW_COUNT_API_DENIED, 1);
        answer_without_body(r);
        return answer_refuse(r, status, reason);
    }
    return DECLINED;
}

/* --- what is asked for ---------------------------------------------------- */

/* What follows /cache/ in the URL as it was sent: there the key is one segment,
 * whatever is escaped in it. */
static const char *request_name(const request_rec *r, apr_size_t *length)
{
    static const char before[] = "/cache";
    const apr_size_t path_len = strcspn(r->unparsed_uri, "?#");
    char *path = apr_pstrmemdup(r->pool, r->unparsed_uri, path_len);
    char *slash = strrchr(path, '/');
    const apr_size_t head = sizeof(before) - 1;
    apr_status_t rv;
    char *name;

    if (!slash || (apr_size_t)(slash - path) < head
        || strncmp(slash - head, before, head)) {
        return NULL;
    }
    name = apr_palloc(r->pool, strlen(slash));
    rv = apr_unescape_url(name, slash + 1, APR_ESCAPE_STRING, NULL, NULL, 0,
                          NULL);
    if (rv == APR_NOTFOUND) { /* nothing to unescape */
        name = slash + 1;
    }
    else if (rv != APR_SUCCESS) {
        return NULL;
    }
    *length = strlen(name);
    return *length ? name : NULL;
}

static int key_is_named(const ask_t *ask, const cachemw_key_t *key)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char hex[2 * SHA256_DIGEST_LENGTH + 1];

    if (ask->name_len == sizeof(hex) - 1
        && text_digest(key->data, key->len, digest)) {
        apr_escape_hex(hex, digest, sizeof(digest), 0, NULL);
        if (!memcmp(ask->name, hex, ask->name_len)) {
            return 1;
        }
    }
    return key->len == ask->name_len && !memcmp(ask->name, key->data, key->len);
}

static void ask_set_etag(const ask_t *ask, const cachemw_id_t *id)
{
    char hex[2 * sizeof(id->bytes) + 1];

    apr_escape_hex(hex, id->bytes, sizeof(id->bytes), 0, NULL);
    apr_table_setn(ask->r->headers_out, "ETag",
                   apr_pstrcat(ask->r->pool, "\"", hex, "\"", NULL));
}

/* What the store has, its head as the client gave it. */
static apr_status_t ask_get(const ask_t *ask, apr_bucket_brigade *body,
                            cachemw_entry_t *entry, cachemw_key_t *key)
{
    apr_status_t rv;

    memset(entry, 0, sizeof(*entry));
    entry->body = body;
    rv = mw_store_get(ask->store, &ask->call, &ask->key, entry);
    if (rv == APR_SUCCESS && mw_api_head_decode(entry, key) != APR_SUCCESS) {
        mw_store_damaged(ask->store, &ask->call, &ask->key, &entry->id);
        rv = APR_NOTFOUND;
    }
    return rv;
}

/* --- GET, HEAD ------------------------------------------------------------ */

/* The rest of a body whose beginning is there. Whoever has stored it read all
 * of it into memory, too. */
static apr_status_t get_rest(const ask_t *ask, const cachemw_entry_t *entry)
{
    cachemw_call_t call = ask->call;
    apr_off_t at = 0;
    apr_status_t rv = apr_brigade_length(entry->body, 1, &at);

    if (mw_store_is_remote(ask->store)) {
        call.deadline =
            mw_monotonic() + mw_store_settings(ask->store)->body_timeout;
    }
    while (rv == APR_SUCCESS && at < entry->body_len) {
        rv = mw_store_read(ask->store, &call, &ask->key, &entry->id, at,
                           CACHEMW_PIECE_MAX, entry->body);
        if (rv == APR_SUCCESS) {
            rv = apr_brigade_length(entry->body, 1, &at);
        }
    }
    return rv;
}

static int get_send(const ask_t *ask, const cachemw_key_t *key,
                    const cachemw_entry_t *entry)
{
    apr_bucket_brigade *body =
        apr_brigade_create(ask->r->pool, ask->call.bucket_alloc);
    apr_size_t length;
    apr_status_t rv;
    char *text;

    rv = mw_http_value_encode(key, entry, 0, &text, &length);
    if (rv != APR_SUCCESS) {
        return ask_fail(ask, rv);
    }
    mw_store_count(ask->store, MW_COUNT_API_HIT, 1);
    ask_set_etag(ask, &entry->id);
    ap_set_content_type(ask->r, "application/json");
    ap_set_content_length(ask->r, (apr_off_t)length);
    APR_BRIGADE_INSERT_TAIL(
        body, apr_bucket_heap_create(text, length, free, body->bucket_alloc));
    return answer_send(ask->r, body);
}

static int ask_do_get(const ask_t *ask)
{
    cachemw_entry_t entry;
    cachemw_key_t key;
    apr_bucket_brigade *body =
        apr_brigade_create(ask->r->pool, ask->call.bucket_alloc);
    apr_status_t rv =
        ask_get(ask, ask->r->header_only ? NULL : body, &entry, &key);

    if (rv == APR_SUCCESS && ask->r->header_only) {
        mw_store_count(ask->store, MW_COUNT_API_HIT, 1);
        ask_set_etag(ask, &entry.id);
        ap_set_content_type(ask->r, "application/json");
        return answer_send(ask->r, body);
    }
    if (rv == APR_SUCCESS) {
        rv = get_rest(ask, &entry);
    }
    if (rv == APR_NOTFOUND) {
        return ask_miss(ask);
    }
    return rv == APR_SUCCESS ? get_send(ask, &key, &entry) : ask_fail(ask, rv);
}

/* --- If-Match ------------------------------------------------------------- */

/* Compare it with what is there.
 * @param now what is there
 * @return DECLINED: it holds; else an answer was sent */
static int ask_check_match(const ask_t *ask, cachemw_entry_t *now)
{
    cachemw_key_t key;
    apr_status_t rv = ask_get(ask, NULL, now, &key);

    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        return ask_fail(ask, rv);
    }
    if (rv == APR_SUCCESS) {
        ask_set_etag(ask, &now->id);
    }
    if (rv == APR_NOTFOUND
        || ap_condition_if_match(ask->r, ask->r->headers_out)
               == AP_CONDITION_NOMATCH) {
        return ask_refuse(ask, HTTP_PRECONDITION_FAILED,
                          "it is another entry by now, or gone");
    }
    apr_table_unset(ask->r->headers_out, "ETag");
    return DECLINED;
}

static int ask_is_conditional(const ask_t *ask)
{
    return apr_table_get(ask->r->headers_in, "If-Match") != NULL;
}

static int ask_gone(const ask_t *ask)
{
    return ask_refuse(ask, HTTP_PRECONDITION_FAILED,
                      "it is another entry by now, or gone");
}

/* --- PUT ------------------------------------------------------------------ */

static apr_off_t put_body_max(const ask_t *ask)
{
    const apr_off_t most = mw_store_settings(ask->store)->max_object_size;

    return most < MW_HTTP_BODY_MAX ? most : MW_HTTP_BODY_MAX;
}

/* @return DECLINED: it may be read */
static int put_check_fields(const ask_t *ask)
{
    const char *type = apr_table_get(ask->r->headers_in, "Content-Type");
    const char *coding = apr_table_get(ask->r->headers_in, "Content-Encoding");

    if (!type || strncasecmp(type, "application/json", 16)
        || (type[16] && !strchr("; \t", type[16]))) {
        return ask_refuse(ask, HTTP_UNSUPPORTED_MEDIA_TYPE,
                          "application/json is expected");
    }
    if (coding && strcasecmp(coding, "identity")) {
        return ask_refuse(ask, HTTP_UNSUPPORTED_MEDIA_TYPE,
                          "a content coding is not supported");
    }
    return DECLINED;
}

/* What is sent is an entry that this key may have.
 * @return DECLINED: it is */
static int put_decode(const ask_t *ask, const char *text, apr_size_t length,
                      mw_http_value_t *value)
{
    const char *reason = NULL;
    apr_bucket_brigade *body =
        apr_brigade_create(ask->r->pool, ask->call.bucket_alloc);
    apr_status_t rv = mw_http_value_decode(text, length, put_body_max(ask),
                                           ask->r->pool, body, value, &reason);

    if (rv == APR_ENOMEM) {
        return ask_fail(ask, rv);
    }
    if (rv == APR_ENOSPC) {
        return ask_refuse(ask, HTTP_REQUEST_ENTITY_TOO_LARGE,
                          "the body is larger than the store takes");
    }
    if (rv != APR_SUCCESS) {
        return ask_refuse(ask,
                          rv == APR_EINCOMPLETE ? HTTP_UNPROCESSABLE_ENTITY
                                                : HTTP_BAD_REQUEST,
                          reason);
    }
    if (value->timeout <= 0) {
        return ask_refuse(ask, HTTP_BAD_REQUEST,
                          "timeout: a number above 0 is expected");
    }
    if (value->key.len > MW_API_KEY_MAX) {
        return ask_refuse(ask, HTTP_REQUEST_ENTITY_TOO_LARGE,
                          "key: it has more than 8192 bytes");
    }
    if (!key_is_named(ask, &value->key)) {
        return ask_refuse(ask, HTTP_UNPROCESSABLE_ENTITY,
                          "key: the URL names another one");
    }
    if (!mw_api_head_is_sound(value->entry.head, value->entry.head_len,
                              value->entry.body_len, ask->r->pool)) {
        return ask_refuse(ask, HTTP_UNPROCESSABLE_ENTITY,
                          "head: it cannot be decoded");
    }
    return DECLINED;
}

/* The whole entry, or what is new in one of which the rest is there: an id
 * stands for one body. */
static apr_status_t put_store(const ask_t *ask, const cachemw_entry_t *now,
                              const cachemw_entry_t *entry)
{
    if (now && now->body_len == entry->body_len
        && !memcmp(&now->id, &entry->id, sizeof(entry->id))) {
        return mw_store_set_head(ask->store, &ask->call, &ask->key, &entry->id,
                                 entry);
    }
    return mw_store_set(ask->store, &ask->call, &ask->key, entry);
}

static int put_entry(const ask_t *ask, const mw_http_value_t *value)
{
    const double seconds =
        value->timeout < API_TIMEOUT_MAX ? value->timeout : API_TIMEOUT_MAX;
    cachemw_entry_t entry = value->entry;
    cachemw_entry_t now;
    int answered;
    apr_status_t rv = mw_api_head_encode(
        &value->key, &value->entry, mw_store_wants_checksum(ask->store),
        ask->r->pool, &entry.head, &entry.head_len);

    if (rv != APR_SUCCESS) {
        return ask_refuse(ask, HTTP_REQUEST_ENTITY_TOO_LARGE,
                          "the head is larger than a store takes");
    }
    entry.expires = ask->call.now + (apr_time_t)(seconds * APR_USEC_PER_SEC);
    answered = ask_is_conditional(ask) ? ask_check_match(ask, &now) : DECLINED;
    if (answered != DECLINED) {
        return answered;
    }
    rv = put_store(ask, ask_is_conditional(ask) ? &now : NULL, &entry);
    if (rv == APR_NOTFOUND) {
        return ask_gone(ask);
    }
    if (rv != APR_SUCCESS) {
        return ask_fail(ask, rv);
    }
    mw_store_count(ask->store, MW_COUNT_API_STORED, 1);
    ask_set_etag(ask, &entry.id);
    return ask_done(ask);
}

static int ask_do_put(const ask_t *ask)
{
    const apr_size_t most =
        mw_http_value_max(MW_API_KEY_MAX, put_body_max(ask)) + API_BLANKS;
    mw_http_value_t value;
    apr_size_t length;
    char *text;
    int status = put_check_fields(ask);

    if (status != DECLINED) {
        return status;
    }
    status = mw_api_body_read(ask->r, most, &text, &length);
    if (status == AP_FILTER_ERROR) {
        return status;
    }
    if (status != OK) {
        return ask_refuse(ask, status,
                          status == HTTP_REQUEST_ENTITY_TOO_LARGE
                              ? "the request is larger than the store takes"
                              : "the request ended too early");
    }
    status = put_decode(ask, text, length, &value);
    return status == DECLINED ? put_entry(ask, &value) : status;
}

/* --- DELETE --------------------------------------------------------------- */

static int ask_do_delete(const ask_t *ask)
{
    const int is_conditional = ask_is_conditional(ask);
    cachemw_entry_t now;
    int answered = is_conditional ? ask_check_match(ask, &now) : DECLINED;
    apr_status_t rv;

    if (answered != DECLINED) {
        return answered;
    }
    rv = mw_store_remove(ask->store, &ask->call, &ask->key,
                         is_conditional ? &now.id : NULL);
    if (rv == APR_NOTFOUND) {
        return ask_gone(ask);
    }
    if (rv != APR_SUCCESS) {
        return ask_fail(ask, rv);
    }
    mw_store_count(ask->store, MW_COUNT_API_REMOVED, 1);
    return ask_done(ask);
}

/* --- the handler ---------------------------------------------------------- */

static int ask_do(const ask_t *ask)
{
    request_rec *r = ask->r;

    if (r->method_number != M_PUT) {
        answer_without_body(r);
    }
    switch (r->method_number) {
    case M_GET:
        return ask_do_get(ask);
    case M_PUT:
        return ask_do_put(ask);
    case M_DELETE:
        return ask_do_delete(ask);
    default:
        apr_table_setn(r->headers_out, "Allow", API_METHODS);
        return ask_refuse(ask, HTTP_METHOD_NOT_ALLOWED,
                          API_METHODS " are possible");
    }
}

/* What the client may ask. */
static int request_answer(request_rec *r, const mw_api_t *api)
{
    ask_t ask = { .r = r, .api = api, .store = api->store };

    ask.name = request_name(r, &ask.name_len);
    if (!ask.name || ask.name_len > MW_API_KEY_MAX) {
        answer_without_body(r);
        return ask.name ? ask_refuse(&ask, HTTP_REQUEST_URI_TOO_LARGE,
                                     "the key has more than 8192 bytes")
                        : ask_refuse(&ask, HTTP_NOT_FOUND,
                                     "the path does not end with /cache/{key}");
    }
    ask.key = mw_api_key(ask.name, ask.name_len, r->pool);
    ask.call.pool = r->pool;
    ask.call.bucket_alloc = r->connection->bucket_alloc;
    ask.call.now = apr_time_now();
    return ask_do(&ask);
}

/* No cache keeps what is asked here, mod_cache with all its options neither. */
static void answer_begin(request_rec *r)
{
    r->no_cache = 1;
    apr_table_setn(r->subprocess_env, "no-cache", "1");
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
}

int mw_api_handler(request_rec *r)
{
    const mw_api_dir_t *dir;
    const mw_api_t *api;
    int status;

    if (!r->handler || strcmp(r->handler, MW_API_HANDLER)) {
        return DECLINED;
    }
    dir = ap_get_module_config(r->per_dir_config, &cachemw_module);
    api = dir ? dir->api : NULL;
    answer_begin(r);
    if (!api || !mw_store_state(api->store)) {
        answer_without_body(r);
        return api ? answer_refuse(r, HTTP_SERVICE_UNAVAILABLE,
                                   "the store is off")
                   : answer_refuse(r, HTTP_FORBIDDEN,
                                   "no " MW_DIRECTIVE_API " is configured");
    }
    apr_table_setn(r->headers_out, MW_HTTP_VIA, api->tag);
    status = request_check(r, api);
    if (status != DECLINED) {
        return status;
    }
    mw_store_serve(apr_table_getm(r->pool, r->headers_in, MW_HTTP_VIA));
    status = request_answer(r, api);
    mw_store_serve(NULL);
    return status;
}
