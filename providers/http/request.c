/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "pool.h"
#include "request.h"

/* Of all header fields of an answer, with those of interim ones. */
#define FIELDS_MAX 65536

/* Of an answer whose content nobody wants. */
#define IGNORED_MAX 65536

/* Bytes of memory that an answer begins with. */
#define TEXT_BEGIN 16384

/* The first pause before a further attempt; each next one is twice as long. */
#define BACKOFF apr_time_from_msec(500)

/* A service that is another httpd with this module names itself in this. */
#define VIA "X-Cachemw-Api"

/* --- what comes ----------------------------------------------------------- */

typedef enum answer_fault_e {
    FAULT_NONE,
    FAULT_FIELDS, /* endless header fields */
    FAULT_TEXT,   /* endless content */
    FAULT_MEMORY,
    FAULT_LOOP /* it comes from this very server */
} answer_fault_e;

typedef struct answer_t {
    mw_http_request_t *request;
    CURL *easy;
    const char *own; /* this server's name in VIA; NULL: it has none */
    apr_size_t fields;
    apr_size_t ignored;
    apr_size_t room; /* of request->text */
    answer_fault_e fault;
} answer_t;

/* The value of a field by name, without blanks around it; NULL: another one. */
static const char *field_value(const char *line, apr_size_t len,
                               const char *name, apr_size_t *value_len)
{
    apr_size_t n = strlen(name);
    const char *end = line + len;

    if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0) {
        return NULL;
    }
    line += n + 1;
    while (line < end && apr_isspace(*line)) {
        line++;
    }
    while (line < end && apr_isspace(end[-1])) {
        end--;
    }
    *value_len = (apr_size_t)(end - line);
    return line;
}

/* RFC 9110, section 8.8.3. A weak one never matches in If-Match. */
static int etag_is_strong(const char *value, apr_size_t len)
{
    apr_size_t i;

    if (len < 2 || len > MW_HTTP_ETAG_MAX || value[0] != '"'
        || value[len - 1] != '"') {
        return 0;
    }
    for (i = 1; i < len - 1; i++) {
        if (value[i] == '"' || value[i] <= ' ' || value[i] == 0x7f) {
            return 0;
        }
    }
    return 1;
}

static size_t field_take(char *line, size_t size, size_t n, void *baton)
{
    answer_t *answer = baton;
    mw_http_request_t *request = answer->request;
    const char *value;
    apr_size_t len = size * n, value_len;

    answer->fields += len;
    if (answer->fields > FIELDS_MAX) {
        answer->fault = FAULT_FIELDS;
        return 0;
    }
    value = field_value(line, len, "ETag", &value_len);
    if (value && etag_is_strong(value, value_len)) {
        memcpy(request->etag, value, value_len);
        request->etag[value_len] = '\0';
    }
    value = answer->own ? field_value(line, len, VIA, &value_len) : NULL;
    if (value && value_len == strlen(answer->own)
        && !memcmp(value, answer->own, value_len)) {
        answer->fault = FAULT_LOOP;
        return 0;
    }
    return len;
}

static int text_grow(answer_t *answer, apr_size_t len)
{
    mw_http_request_t *request = answer->request;
    apr_size_t room = answer->room ? answer->room : TEXT_BEGIN;
    char *text;

    while (room < request->len + len) {
        room *= 2;
    }
    if (room > answer->room) {
        text = realloc(request->text, room);
        if (!text) {
            return 0;
        }
        request->text = text;
        answer->room = room;
    }
    return 1;
}

static size_t content_take(char *data, size_t size, size_t n, void *baton)
{
    answer_t *answer = baton;
    mw_http_request_t *request = answer->request;
    apr_size_t len = size * n;
    long status = 0;

    curl_easy_getinfo(answer->easy, CURLINFO_RESPONSE_CODE, &status);
    if (request->method != MW_HTTP_GET || status != 200) {
        answer->ignored += len;
        if (answer->ignored > IGNORED_MAX) {
            answer->fault = FAULT_TEXT;
        }
    }
    else if (len > request->most - request->len) {
        answer->fault = FAULT_TEXT;
    }
    else if (!text_grow(answer, len)) {
        answer->fault = FAULT_MEMORY;
    }
    else {
        memcpy(request->text + request->len, data, len);
        request->len += len;
    }
    return answer->fault == FAULT_NONE ? len : 0;
}

/* --- what goes ------------------------------------------------------------ */

#define FIELDS_SENT 7

typedef struct fields_t {
    struct curl_slist list[FIELDS_SENT];
    int count;
} fields_t;

static void field_add(fields_t *fields, const char *text)
{
    struct curl_slist *item = &fields->list[fields->count++];

    item->data = (char *)text;
    item->next = NULL;
    if (fields->count > 1) {
        item[-1].next = item;
    }
}

/* NULL: tools have no server. */
static const char *via_of(const mw_http_t *store, const cachemw_call_t *call)
{
    const cachemw_services_t *services = store->services;

    return services->size >= APR_OFFSETOF(cachemw_services_t, via)
                                 + sizeof(services->via)
                   && services->via
               ? services->via(services, call)
               : NULL;
}

static void fields_make(fields_t *fields, const mw_http_t *store,
                        const cachemw_call_t *call,
                        const mw_http_request_t *request)
{
    const char *via = via_of(store, call);

    fields->count = 0;
    field_add(fields, "Accept: application/json");
    if (request->method == MW_HTTP_PUT) {
        field_add(fields, "Content-Type: application/json");
        field_add(fields, "Expect:");
    }
    if (store->settings.authorization) {
        field_add(fields, store->settings.authorization);
    }
    if (request->if_match && *request->if_match) {
        field_add(fields, apr_pstrcat(call->pool,
                                      "If-Match: ", request->if_match, NULL));
    }
    if (via) {
        field_add(fields, apr_pstrcat(call->pool, VIA ": ", via, NULL));
    }
}

static void method_set(CURL *easy, const mw_http_request_t *request)
{
    if (request->method == MW_HTTP_PUT) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                         (curl_off_t)request->body_len);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PUT");
    }
    else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
                         request->method == MW_HTTP_DELETE ? "DELETE"
                                                           : (char *)NULL);
    }
}

static CURLcode request_perform(const mw_http_t *store,
                                const cachemw_call_t *call,
                                mw_http_conn_t *conn, answer_t *answer,
                                apr_interval_time_t left)
{
    const mw_http_request_t *request = answer->request;
    apr_interval_time_t connecting = store->settings.connect_timeout;
    CURL *easy = conn->easy;
    fields_t fields;
    CURLcode code;

    connecting = connecting < left ? connecting : left;
    fields_make(&fields, store, call, request);
    method_set(easy, request);
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fields.list);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(left / 1000));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(connecting / 1000));
    curl_easy_setopt(
        easy, CURLOPT_MAXFILESIZE_LARGE,
        (curl_off_t)(request->method == MW_HTTP_GET ? request->most : 0));
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, field_take);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, answer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, content_take);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
    conn->error[0] = '\0';
    code = curl_easy_perform(easy);
    /* they end with this function */
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
    return code;
}

/* --- what that means ------------------------------------------------------ */

/* What the system says of the connection, or else. */
static apr_status_t os_status(CURL *easy, apr_status_t otherwise)
{
    long error = 0;

    curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &error);
    return error && error != EAGAIN && error != EINPROGRESS && error != EINTR
               ? (apr_status_t)error
               : otherwise;
}

static apr_status_t failed(const mw_http_t *store, const char *kind,
                           apr_status_t rv)
{
    mw_http_count(store, kind);
    return rv;
}

static apr_status_t fault_status(const mw_http_t *store, answer_fault_e fault)
{
    const cachemw_services_t *services = store->services;

    switch (fault) {
    case FAULT_MEMORY:
        return APR_ENOMEM;
    case FAULT_LOOP:
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "base_url leads back to this very server: a store cannot "
                      "be kept in itself");
        return failed(store, "loop", EDEADLK);
    default:
        return failed(store, "endless", EPROTO);
    }
}

static apr_status_t tls_status(const mw_http_t *store,
                               const mw_http_conn_t *conn, CURLcode code)
{
    const cachemw_services_t *services = store->services;

    services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                  "%s, port %d: TLS: %s", store->peer->host, store->peer->port,
                  conn->error[0] ? conn->error : curl_easy_strerror(code));
    return failed(store, "tls", EACCES);
}

static apr_status_t code_status(const mw_http_t *store,
                                const mw_http_conn_t *conn,
                                const answer_t *answer, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return APR_SUCCESS;
    case CURLE_OPERATION_TIMEDOUT:
        return failed(store, "timeout", APR_TIMEUP);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return failed(store, "not-connected",
                      os_status(conn->easy, ECONNREFUSED));
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return failed(store, "ended", os_status(conn->easy, ECONNRESET));
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return tls_status(store, conn, code);
    case CURLE_FILESIZE_EXCEEDED:
        return failed(store, "too-large", APR_ENOSPC);
    case CURLE_OUT_OF_MEMORY:
        /* what libcurl says of a field that is longer than it takes */
        return failed(store, "endless", EPROTO);
    default:
        return answer->fault == FAULT_NONE ? failed(store, "nonsense", EPROTO)
                                           : fault_status(store, answer->fault);
    }
}

typedef struct meaning_t {
    long status;
    const char *kind;
    apr_status_t rv;
} meaning_t;

/* Those that have a name of their own among the kinds. */
static const meaning_t meanings[] = {
    { 401, "401", EACCES }, { 403, "403", EACCES }, { 404, "404", EPROTO },
    { 422, "422", EPROTO }, { 429, "429", EBUSY },  { 500, "500", EIO },
    { 502, "502", EIO },    { 503, "503", EBUSY },  { 508, "508", EDEADLK },
};

/* Others by their class. */
static const meaning_t classes[] = {
    { 2, "2xx", EPROTO },
    { 3, "3xx", EPROTO },
    { 4, "4xx", EPROTO },
    { 5, "5xx", EIO },
};

static const meaning_t *meaning_of(long status)
{
    static const meaning_t nonsense = { 0, "nonsense", EPROTO };
    apr_size_t i;

    for (i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        if (meanings[i].status == status) {
            return &meanings[i];
        }
    }
    for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (classes[i].status == status / 100) {
            return &classes[i];
        }
    }
    return &nonsense;
}

/* What is no trouble; APR_EGENERAL: it is. */
static apr_status_t status_ordinary(const mw_http_t *store,
                                    const mw_http_request_t *request)
{
    const int is_get = request->method == MW_HTTP_GET;
    const int is_put = request->method == MW_HTTP_PUT;
    const long status = request->status;

    if (is_get ? status == 200 : status >= 200 && status <= 299) {
        return APR_SUCCESS;
    }
    if (status == 404 && !is_put) {
        return is_get ? APR_NOTFOUND : APR_SUCCESS;
    }
    if (status == 414) {
        mw_http_count(store, "414");
        return is_get ? APR_NOTFOUND : is_put ? APR_ENOSPC : APR_SUCCESS;
    }
    if (status == 412 && !is_get) {
        return APR_NOTFOUND;
    }
    if (is_put && (status == 413 || status == 507)) {
        mw_http_count(store, status == 413 ? "413" : "507");
        return APR_ENOSPC;
    }
    return APR_EGENERAL;
}

static apr_status_t status_status(const mw_http_t *store,
                                  const mw_http_request_t *request)
{
    const cachemw_services_t *services = store->services;
    apr_status_t rv = status_ordinary(store, request);
    const meaning_t *meaning;

    if (rv != APR_EGENERAL) {
        return rv;
    }
    meaning = meaning_of(request->status);
    mw_http_count(store, meaning->kind);
    services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                  "the service answers %ld%s", request->status,
                  meaning->rv == EACCES ? ": is the token right?"
                  : meaning->rv == EDEADLK
                      ? ": base_url leads back to this very server"
                      : "");
    return meaning->rv;
}

/* --- attempts ------------------------------------------------------------- */

static void answer_begin(answer_t *answer, mw_http_t *store,
                         mw_http_request_t *request, CURL *easy)
{
    memset(answer, 0, sizeof(*answer));
    answer->request = request;
    answer->easy = easy;
    answer->own = via_of(store, NULL);
    free(request->text);
    request->text = NULL;
    request->len = 0;
    request->status = 0;
    request->etag[0] = '\0';
}

static apr_status_t request_try(mw_http_t *store, const cachemw_call_t *call,
                                mw_http_request_t *request,
                                apr_int64_t deadline)
{
    mw_http_conn_t *conn;
    apr_interval_time_t left;
    answer_t answer;
    CURLcode code;
    long made = 0;
    apr_status_t rv = mw_http_pool_take(store->pool, deadline, &conn);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    left = deadline - mw_http_clock(store);
    if (left < 1000) {
        mw_http_pool_give(store->pool, conn);
        return APR_TIMEUP;
    }
    answer_begin(&answer, store, request, conn->easy);
    code = request_perform(store, call, conn, &answer, left);
    curl_easy_getinfo(conn->easy, CURLINFO_RESPONSE_CODE, &request->status);
    curl_easy_getinfo(conn->easy, CURLINFO_NUM_CONNECTS, &made);
    if (code == CURLE_OK && made) {
        mw_http_count(store, "connected");
    }
    if (answer.fault == FAULT_TEXT && answer.ignored) {
        code = CURLE_OK; /* what it says at such length has a status */
    }
    rv = code_status(store, conn, &answer, code);
    mw_http_pool_give(store->pool, conn);
    return rv == APR_SUCCESS ? status_status(store, request) : rv;
}

/* Whether it may be different in a while. */
static int is_passing(const mw_http_request_t *request, apr_status_t rv)
{
    switch (request->status) {
    case 0:
        return rv != APR_EAGAIN && rv != APR_ENOMEM && rv != EACCES
               && rv != EPROTO && rv != EDEADLK && rv != APR_TIMEUP;
    case 408:
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
        return 1;
    default:
        return 0;
    }
}

apr_status_t mw_http_request_run(mw_http_t *store, const cachemw_call_t *call,
                                 mw_http_request_t *request)
{
    const mw_http_settings_t *settings = &store->settings;
    apr_int64_t deadline = mw_http_deadline(store, call);
    apr_interval_time_t pause = BACKOFF;
    int left = request->method != MW_HTTP_GET || settings->retry_reads
                   ? settings->max_retries
                   : 0;
    apr_status_t rv =
        request->url ? request_try(store, call, request, deadline) : APR_ENOMEM;

    while (rv != APR_SUCCESS && left-- > 0 && is_passing(request, rv)
           && mw_http_clock(store) + pause < deadline) {
        apr_sleep(pause);
        pause *= 2;
        mw_http_count(store, "retried");
        rv = request_try(store, call, request, deadline);
    }
    return rv;
}
