/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "apr_escape.h"
#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_protocol.h"

#include "api.h"
#include "api_access.h"
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

/* A request. Functions that may end it give the HTTP status of the answer, and
 * OK where it may go on. */
typedef struct ask_t {
    request_rec *r;
    const mw_api_t *api;
    mw_store_t *store;
    cachemw_call_t call;
    mw_api_room_t *room;
    const char *name; /* of the entry, as the URL has it */
    apr_size_t name_len;
    cachemw_key_t key;   /* in the store */
    cachemw_entry_t now; /* what is there, if conditions ask for it */
    int is_there;        /* and something is */
    int is_read;         /* all of the request */
    const char *reason;  /* of a refusal: a text that needs no escaping */
    apr_bucket_brigade *answer; /* its body */
} ask_t;

const char *const mw_api_lacks = NULL;

/* --- answers -------------------------------------------------------------- */

/* The client's fault, in what it sent. */
static int ask_refuse(ask_t *ask, int status, const char *reason)
{
    mw_store_count(ask->store, MW_COUNT_API_REFUSED, 1);
    ask->reason = reason;
    return status;
}

static int ask_miss(ask_t *ask)
{
    mw_store_count(ask->store, MW_COUNT_API_MISS, 1);
    ask->reason = "there is no such entry";
    return HTTP_NOT_FOUND;
}

/* Nothing was tried: to our clients that is no trouble. */
static void ask_invite(ask_t *ask)
{
    apr_table_setn(ask->r->headers_out, "Retry-After", "1");
}

/* Trouble is counted and logged by the store. Tiers that could not ask one of
 * them, or a store whose connections are all in use, are in none. */
static int ask_fail(ask_t *ask, apr_status_t rv)
{
    if (rv == APR_ENOSPC) {
        ask->reason = "the store has no room";
        return HTTP_INSUFFICIENT_STORAGE;
    }
    if (rv == APR_EGENERAL
        && (mw_store_has_missed(ask->store, rv)
            || mw_store_is_usable(ask->store))) {
        ask_invite(ask);
        ask->reason = "the store could not be asked now";
        return HTTP_SERVICE_UNAVAILABLE;
    }
    ask->reason = "the store is in trouble";
    return HTTP_SERVICE_UNAVAILABLE;
}

static int ask_busy(ask_t *ask)
{
    mw_store_count(ask->store, MW_COUNT_API_BUSY, 1);
    ask_invite(ask);
    ask->reason = "other requests take all the memory that there is for them";
    return HTTP_SERVICE_UNAVAILABLE;
}

static int ask_gone(ask_t *ask)
{
    return ask_refuse(ask, HTTP_PRECONDITION_FAILED,
                      "it is another entry by now, or gone");
}

/* Where httpd would read to its end what nobody wants, the connection ends. */
static void answer_without_body(request_rec *r)
{
    const char *length = apr_table_get(r->headers_in, "Content-Length");

    if (apr_table_get(r->headers_in, "Transfer-Encoding")
        || (length && apr_atoi64(length) > API_DISCARD_MAX)) {
        r->connection->keepalive = AP_CONN_CLOSE;
    }
}

static void answer_explain(ask_t *ask)
{
    const char *text =
        apr_pstrcat(ask->r->pool, "{\"error\": \"", ask->reason, "\"}\n", NULL);
    const apr_size_t length = strlen(text);

    ap_set_content_type(ask->r, "application/json");
    ap_set_content_length(ask->r, (apr_off_t)length);
    APR_BRIGADE_INSERT_TAIL(ask->answer,
                            apr_bucket_pool_create(text, length, ask->r->pool,
                                                   ask->call.bucket_alloc));
}

/* The answer is complete, so that httpd adds no page of its own. */
static int answer_send(ask_t *ask, int status)
{
    request_rec *r = ask->r;
    apr_status_t rv;

    if (!ask->is_read) {
        answer_without_body(r);
    }
    if (ask->reason) {
        answer_explain(ask);
    }
    r->status = status;
    APR_BRIGADE_INSERT_TAIL(ask->answer,
                            apr_bucket_eos_create(ask->call.bucket_alloc));
    rv = ap_pass_brigade(r->output_filters, ask->answer);
    return rv == APR_SUCCESS || r->connection->aborted ? OK : AP_FILTER_ERROR;
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

static int name_is_digest(const ask_t *ask)
{
    return ask->name_len == 2 * SHA256_DIGEST_LENGTH
           && strspn(ask->name, "0123456789abcdef") == ask->name_len;
}

/* One name never stands for two keys. */
static int key_is_named(const ask_t *ask, const cachemw_key_t *key)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char hex[2 * SHA256_DIGEST_LENGTH + 1];

    if (!name_is_digest(ask)) {
        return key->len == ask->name_len
               && !memcmp(ask->name, key->data, key->len);
    }
    if (!SHA256((const unsigned char *)key->data, key->len, digest)) {
        return 0;
    }
    apr_escape_hex(hex, digest, sizeof(digest), 0, NULL);
    return !memcmp(ask->name, hex, ask->name_len);
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

/* --- conditions ----------------------------------------------------------- */

static int ask_is_conditional(const ask_t *ask)
{
    return apr_table_get(ask->r->headers_in, "If-Match")
           || apr_table_get(ask->r->headers_in, "If-None-Match");
}

/* RFC 9110, section 13.1.2: compared weakly, whatever the method. */
static int ask_knows(const ask_t *ask)
{
    const char *known = apr_table_get(ask->r->headers_in, "If-None-Match");

    return known
           && (*known == '*'
               || ap_find_etag_weak(
                   ask->r->pool, known,
                   apr_table_get(ask->r->headers_out, "ETag")));
}

/* RFC 9110, section 13.2.2. An entry has no time of modification: what asks for
 * that is passed over.
 * @param id of what is there; NULL: nothing is */
static int ask_check_conditions(ask_t *ask, const cachemw_id_t *id)
{
    request_rec *r = ask->r;

    if (!id) {
        return apr_table_get(r->headers_in, "If-Match") ? ask_gone(ask) : OK;
    }
    ask_set_etag(ask, id);
    if (ap_condition_if_match(r, r->headers_out) == AP_CONDITION_NOMATCH) {
        return ask_gone(ask);
    }
    if (!ask_knows(ask)) {
        return OK;
    }
    return r->method_number == M_GET ? HTTP_NOT_MODIFIED
                                     : ask_refuse(ask, HTTP_PRECONDITION_FAILED,
                                                  "there is such an entry");
}

/* Before a change: what is there, if that matters. */
static int ask_look(ask_t *ask)
{
    cachemw_key_t key;
    apr_status_t rv;
    int status;

    if (!ask_is_conditional(ask)) {
        return OK;
    }
    rv = ask_get(ask, NULL, &ask->now, &key);
    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        return ask_fail(ask, rv);
    }
    ask->is_there = rv == APR_SUCCESS;
    status = ask_check_conditions(ask, ask->is_there ? &ask->now.id : NULL);
    if (status == OK) {
        apr_table_unset(ask->r->headers_out, "ETag");
    }
    return status;
}

/* --- GET, HEAD ------------------------------------------------------------ */

/* The rest of a body whose beginning is there. */
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
    mw_body_keep_unmapped(entry->body);
    return rv;
}

/* Of a store on another machine the body itself is in memory, too. */
static int get_take_room(ask_t *ask, const cachemw_entry_t *entry)
{
    const apr_uint64_t bytes = (apr_uint64_t)entry->body_len;

    return mw_api_room_take(ask->room,
                            (bytes + entry->head_len) / 3 * 4
                                + (mw_store_is_remote(ask->store) ? bytes : 0));
}

static int get_answer(ask_t *ask, const cachemw_key_t *key,
                      const cachemw_entry_t *entry)
{
    apr_size_t length;
    char *text;
    apr_status_t rv = get_rest(ask, entry);

    if (rv == APR_NOTFOUND) {
        return ask_miss(ask);
    }
    if (rv != APR_SUCCESS) {
        return ask_fail(ask, rv);
    }
    rv = mw_http_value_encode(key, entry, 0, &text, &length);
    if (rv == APR_ENOMEM) {
        return ask_busy(ask);
    }
    if (rv != APR_SUCCESS) { /* its file is shorter, or cannot be read */
        mw_store_damaged(ask->store, &ask->call, &ask->key, &entry->id);
        return ask_miss(ask);
    }
    ap_set_content_length(ask->r, (apr_off_t)length);
    APR_BRIGADE_INSERT_TAIL(
        ask->answer,
        apr_bucket_heap_create(text, length, free, ask->call.bucket_alloc));
    return HTTP_OK;
}

static int ask_do_get(ask_t *ask)
{
    cachemw_entry_t entry;
    cachemw_key_t key;
    apr_bucket_brigade *body =
        apr_brigade_create(ask->r->pool, ask->call.bucket_alloc);
    apr_status_t rv =
        ask_get(ask, ask->r->header_only ? NULL : body, &entry, &key);
    int status;

    if (rv != APR_SUCCESS) {
        return rv == APR_NOTFOUND ? ask_miss(ask) : ask_fail(ask, rv);
    }
    status = ask_check_conditions(ask, &entry.id);
    if (status == OK && !ask->r->header_only) {
        status = get_take_room(ask, &entry) ? get_answer(ask, &key, &entry)
                                            : ask_busy(ask);
    }
    if (status == OK || status == HTTP_OK) {
        ap_set_content_type(ask->r, "application/json");
        status = HTTP_OK;
    }
    if (status == HTTP_OK || status == HTTP_NOT_MODIFIED) {
        mw_store_count(ask->store, MW_COUNT_API_HIT, 1);
    }
    else if (status != HTTP_PRECONDITION_FAILED) {
        apr_table_unset(ask->r->headers_out, "ETag");
    }
    return status;
}

/* --- PUT ------------------------------------------------------------------ */

static apr_off_t put_body_max(const ask_t *ask)
{
    const apr_off_t most = mw_store_settings(ask->store)->max_object_size;

    return most < MW_HTTP_BODY_MAX ? most : MW_HTTP_BODY_MAX;
}

static int put_check_fields(ask_t *ask)
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
    return OK;
}

/* @param text malloc'ed; NULL unless OK */
static int put_read(ask_t *ask, char **text, apr_size_t *length)
{
    const apr_size_t most =
        mw_http_value_max(MW_API_KEY_MAX, put_body_max(ask)) + API_BLANKS;
    const int status = mw_api_body_read(ask->r, most, ask->room, text, length);

    switch (status) {
    case OK:
        ask->is_read = 1;
        return OK;
    case AP_FILTER_ERROR:
        return AP_FILTER_ERROR;
    case HTTP_SERVICE_UNAVAILABLE:
        return ask_busy(ask);
    case HTTP_REQUEST_ENTITY_TOO_LARGE:
        return ask_refuse(ask, status,
                          "the request is larger than the store takes");
    case HTTP_REQUEST_TIME_OUT:
        return ask_refuse(ask, status, "the request did not come in time");
    default:
        return ask_refuse(ask, HTTP_BAD_REQUEST,
                          "the request ended too early, or makes no sense");
    }
}

static int put_decode(ask_t *ask, const char *text, apr_size_t length,
                      apr_bucket_brigade *body, mw_http_value_t *value)
{
    const char *reason = NULL;

    switch (mw_http_value_decode(text, length, put_body_max(ask), ask->r->pool,
                                 body, value, &reason)) {
    case APR_SUCCESS:
        return OK;
    case APR_ENOMEM:
        return ask_busy(ask);
    case APR_ENOSPC:
        return ask_refuse(ask, HTTP_REQUEST_ENTITY_TOO_LARGE,
                          "the body is larger than the store takes");
    case APR_EINCOMPLETE:
        return ask_refuse(ask, HTTP_UNPROCESSABLE_ENTITY, reason);
    default:
        return ask_refuse(ask, HTTP_BAD_REQUEST, reason);
    }
}

/* What is sent is an entry that this key may have. */
static int put_check(ask_t *ask, const mw_http_value_t *value)
{
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
    return OK;
}

/* The whole entry, or what is new in one of which the rest is there: an id
 * stands for one body. */
static apr_status_t put_store(const ask_t *ask, const cachemw_entry_t *entry)
{
    if (ask->is_there && ask->now.body_len == entry->body_len
        && !memcmp(&ask->now.id, &entry->id, sizeof(entry->id))) {
        cachemw_call_t call = ask->call;

        if (mw_api_head_invalidates(&ask->now, entry, ask->r->pool)) {
            call.context = CACHEMW_INVALIDATES;
        }
        return mw_store_set_head(ask->store, &call, &ask->key, &entry->id,
                                 entry);
    }
    return mw_store_set(ask->store, &ask->call, &ask->key, entry);
}

static int put_entry(ask_t *ask, const mw_http_value_t *value)
{
    const double seconds =
        value->timeout < API_TIMEOUT_MAX ? value->timeout : API_TIMEOUT_MAX;
    cachemw_entry_t entry = value->entry;
    int status;
    apr_status_t rv = mw_api_head_encode(
        &value->key, &value->entry, mw_store_wants_checksum(ask->store),
        ask->r->pool, &entry.head, &entry.head_len);

    if (rv != APR_SUCCESS) {
        return ask_refuse(ask, HTTP_REQUEST_ENTITY_TOO_LARGE,
                          "the head is larger than a store takes");
    }
    entry.expires = ask->call.now + (apr_time_t)(seconds * APR_USEC_PER_SEC);
    status = ask_look(ask);
    if (status != OK) {
        return status;
    }
    rv = put_store(ask, &entry);
    if (rv != APR_SUCCESS) {
        return rv == APR_NOTFOUND ? ask_gone(ask) : ask_fail(ask, rv);
    }
    mw_store_count(ask->store, MW_COUNT_API_STORED, 1);
    ask_set_etag(ask, &entry.id);
    return HTTP_NO_CONTENT;
}

/* What it takes in memory is free again when the answer begins. */
static int ask_do_put(ask_t *ask)
{
    apr_bucket_brigade *body =
        apr_brigade_create(ask->r->pool, ask->call.bucket_alloc);
    mw_http_value_t value;
    apr_size_t length;
    char *text = NULL;
    int status = put_check_fields(ask);

    if (status == OK) {
        status = put_read(ask, &text, &length);
    }
    if (status == OK) {
        status = put_decode(ask, text, length, body, &value);
    }
    free(text);
    if (status == OK) {
        status = put_check(ask, &value);
    }
    if (status == OK) {
        status = put_entry(ask, &value);
    }
    apr_brigade_destroy(body);
    mw_api_room_give(ask->room);
    return status;
}

/* --- DELETE --------------------------------------------------------------- */

static int ask_do_delete(ask_t *ask)
{
    const int status = ask_look(ask);
    apr_status_t rv;

    if (status != OK) {
        return status;
    }
    rv = mw_store_remove(ask->store, &ask->call, &ask->key,
                         ask->is_there ? &ask->now.id : NULL);
    if (rv != APR_SUCCESS) {
        return rv == APR_NOTFOUND ? ask_gone(ask) : ask_fail(ask, rv);
    }
    mw_store_count(ask->store, MW_COUNT_API_REMOVED, 1);
    return HTTP_NO_CONTENT;
}

/* --- the handler ---------------------------------------------------------- */

/* Which store, and whether this client may ask it. */
static int ask_begin(ask_t *ask)
{
    const mw_api_dir_t *dir =
        ap_get_module_config(ask->r->per_dir_config, &cachemw_module);

    ask->api = dir ? dir->api : NULL;
    if (!ask->api) {
        ask->reason = "no " MW_DIRECTIVE_API " is configured";
        return HTTP_FORBIDDEN;
    }
    ask->store = ask->api->store;
    ask->room = mw_api_room_make(ask->api->max_memory, ask->r->pool);
    if (!mw_store_state(ask->store)) {
        ask->reason = "the store is off";
        return HTTP_SERVICE_UNAVAILABLE;
    }
    apr_table_setn(ask->r->headers_out, MW_HTTP_VIA, ask->api->tag);
    return mw_api_access_check(ask->r, ask->api, &ask->reason);
}

/* Which entry. */
static int ask_name(ask_t *ask)
{
    ask->name = request_name(ask->r, &ask->name_len);
    if (!ask->name) {
        return ask_refuse(ask, HTTP_NOT_FOUND,
                          "the path does not end with /cache/{key}");
    }
    if (ask->name_len > MW_API_KEY_MAX) {
        return ask_refuse(ask, HTTP_REQUEST_URI_TOO_LARGE,
                          "the key has more than 8192 bytes");
    }
    ask->key = mw_api_key(ask->name, ask->name_len, ask->r->pool);
    return OK;
}

static int ask_do(ask_t *ask)
{
    const int status = ask_name(ask);

    if (status != OK) {
        return status;
    }
    switch (ask->r->method_number) {
    case M_GET:
        return ask_do_get(ask);
    case M_PUT:
        return ask_do_put(ask);
    case M_DELETE:
        return ask_do_delete(ask);
    default:
        apr_table_setn(ask->r->headers_out, "Allow", API_METHODS);
        return ask_refuse(ask, HTTP_METHOD_NOT_ALLOWED,
                          API_METHODS " are possible");
    }
}

/* No cache keeps what is asked here, mod_cache with all its options neither.
 * Entries are whole: httpd would send parts. */
static void answer_begin(ask_t *ask)
{
    request_rec *r = ask->r;

    r->no_cache = 1;
    apr_table_setn(r->subprocess_env, "no-cache", "1");
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    apr_table_unset(r->headers_in, "Range");
    apr_table_unset(r->headers_in, "Request-Range");
    ask->call.pool = r->pool;
    ask->call.bucket_alloc = r->connection->bucket_alloc;
    ask->call.now = apr_time_now();
    ask->answer = apr_brigade_create(r->pool, ask->call.bucket_alloc);
}

int mw_api_handler(request_rec *r)
{
    ask_t ask = { .r = r };
    int status;

    if (!r->handler || strcmp(r->handler, MW_API_HANDLER)) {
        return DECLINED;
    }
    answer_begin(&ask);
    status = ask_begin(&ask);
    if (status == OK) {
        mw_store_serve(apr_table_getm(r->pool, r->headers_in, MW_HTTP_VIA));
        status = ask_do(&ask);
        mw_store_serve(NULL);
    }
    return status == AP_FILTER_ERROR ? status : answer_send(&ask, status);
}
