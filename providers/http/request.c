/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/x509_vfy.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "providers/common/http_value.h"

#include "outcome.h"
#include "pool.h"

/* Of all header fields of an answer, with those of interim ones. */
#define FIELDS_MAX 65536

/* Of an answer whose content nobody wants. */
#define IGNORED_MAX 65536

/* Bytes of memory that an answer begins with. */
#define TEXT_BEGIN 16384

/* The first pause before a further attempt; each next one is twice as long. */
#define BACKOFF apr_time_from_msec(500)

/* --- what comes ----------------------------------------------------------- */

typedef struct answer_t {
    mw_http_request_t *request;
    CURL *easy;
    const char *own; /* this server's name in MW_HTTP_VIA; NULL: it has none */
    apr_size_t fields;
    apr_size_t content;
    apr_size_t room;   /* of request->text */
    int is_too_long;   /* what is in excess is counted, and not kept */
    int is_stopped;    /* nothing more is read */
    mw_http_end_e end; /* then: why */
} answer_t;

static size_t answer_stop(answer_t *answer, mw_http_end_e end)
{
    answer->is_stopped = 1;
    answer->end = end;
    return 0;
}

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
        return answer_stop(answer, MW_HTTP_ENDLESS);
    }
    value = field_value(line, len, "ETag", &value_len);
    if (value && etag_is_strong(value, value_len)) {
        memcpy(request->etag, value, value_len);
        request->etag[value_len] = '\0';
    }
    request->says_when |=
        field_value(line, len, "Retry-After", &value_len) != NULL;
    value = field_value(line, len, MW_HTTP_VIA, &value_len);
    request->is_api |= value != NULL;
    if (value && answer->own && value_len == strlen(answer->own)
        && !memcmp(value, answer->own, value_len)) {
        return answer_stop(answer, MW_HTTP_LOOP);
    }
    return len;
}

/* @param said how much it will be in all; 0: nobody has said so */
static int text_grow(answer_t *answer, apr_size_t len, apr_size_t said)
{
    mw_http_request_t *request = answer->request;
    const apr_size_t most = request->most;
    apr_size_t room = answer->room ? answer->room : said ? said : TEXT_BEGIN;
    char *text;

    while (room < request->len + len) {
        room = room < most / 2 ? room * 2 : most;
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

static size_t text_take(answer_t *answer, const char *data, apr_size_t len)
{
    mw_http_request_t *request = answer->request;
    curl_off_t said = 0;

    if (!request->len) {
        curl_easy_getinfo(answer->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
                          &said);
        if (said > (curl_off_t)request->most) {
            return answer_stop(answer, MW_HTTP_TOO_LARGE);
        }
    }
    if (len > request->most - request->len) {
        answer->is_too_long = 1;
    }
    if (answer->is_too_long) {
        return answer->content / 2 > request->most
                   ? answer_stop(answer, MW_HTTP_ENDLESS)
                   : len;
    }
    if (!text_grow(answer, len, said > 0 ? (apr_size_t)said : 0)) {
        return answer_stop(answer, MW_HTTP_NO_MEMORY);
    }
    memcpy(request->text + request->len, data, len);
    request->len += len;
    return len;
}

static size_t content_take(char *data, size_t size, size_t n, void *baton)
{
    answer_t *answer = baton;
    apr_size_t len = size * n;
    long status = 0;

    curl_easy_getinfo(answer->easy, CURLINFO_RESPONSE_CODE, &status);
    answer->content += len;
    if (answer->request->method == MW_HTTP_GET && status == 200) {
        return text_take(answer, data, len);
    }
    /* what is said at any length has a status */
    return answer->content > IGNORED_MAX ? answer_stop(answer, MW_HTTP_ANSWERED)
                                         : len;
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
        field_add(fields, apr_pstrcat(call->pool, MW_HTTP_VIA ": ", via, NULL));
    }
}

/* @return CURLE_OK, or others' bits */
static int method_set(CURL *easy, const mw_http_request_t *request)
{
    const char *method = request->method == MW_HTTP_PUT      ? "PUT"
                         : request->method == MW_HTTP_DELETE ? "DELETE"
                                                             : NULL;
    int code = CURLE_OK;

    if (request->method == MW_HTTP_PUT) {
        code |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
        code |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                                 (curl_off_t)request->body_len);
    }
    else {
        code |= curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    return code | curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
}

static int request_set(const mw_http_t *store, CURL *easy, answer_t *answer,
                       fields_t *fields, apr_interval_time_t left)
{
    apr_interval_time_t connecting = store->settings.connect_timeout;
    int code = method_set(easy, answer->request);

    connecting = connecting < left ? connecting : left;
    code |= curl_easy_setopt(easy, CURLOPT_URL, answer->request->url);
    code |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fields->list);
    code |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(left / 1000));
    code |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                             (long)(connecting / 1000));
    code |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, field_take);
    code |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, answer);
    code |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, content_take);
    return code | curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
}

static CURLcode request_perform(const mw_http_t *store,
                                const cachemw_call_t *call,
                                mw_http_conn_t *conn, answer_t *answer,
                                apr_interval_time_t left)
{
    fields_t fields;
    CURLcode code = CURLE_OUT_OF_MEMORY;

    fields_make(&fields, store, call, answer->request);
    conn->error[0] = '\0';
    if (request_set(store, conn->easy, answer, &fields, left) == CURLE_OK) {
        code = curl_easy_perform(conn->easy);
    }
    /* they end with this function */
    curl_easy_setopt(conn->easy, CURLOPT_HTTPHEADER, NULL);
    return code;
}

/* --- how it ended --------------------------------------------------------- */

/* What the system says of the connection; 0: nothing. */
static apr_status_t os_status(CURL *easy)
{
    long error = 0;

    curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &error);
    return error != EAGAIN && error != EINPROGRESS && error != EINTR
               ? (apr_status_t)error
               : 0;
}

/* Why TLS was refused, in OpenSSL's words or ours: libcurl's own text may have
 * some of the certificate's in it. */
static const char *tls_reason(const mw_http_conn_t *conn, CURLcode code)
{
    long verified = X509_V_OK;

    if (strncmp(curl_version_info(CURLVERSION_NOW)->ssl_version, "OpenSSL/", 8)
        != 0) {
        return curl_easy_strerror(code);
    }
    if (code != CURLE_PEER_FAILED_VERIFICATION) {
        return conn->error[0] ? conn->error : curl_easy_strerror(code);
    }
    curl_easy_getinfo(conn->easy, CURLINFO_SSL_VERIFYRESULT, &verified);
    /* whether the host is the right one libcurl looks itself */
    return verified == X509_V_OK || verified == X509_V_ERR_UNSPECIFIED
               ? "its certificate is for another host"
               : X509_verify_cert_error_string(verified);
}

/* Until 8.6 libcurl has no memory for a line that is longer than it takes. */
static mw_http_end_e memory_end(const answer_t *answer)
{
    curl_off_t first = 0;

    curl_easy_getinfo(answer->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
    return first && !answer->content ? MW_HTTP_ENDLESS : MW_HTTP_NO_MEMORY;
}

static mw_http_end_e time_end(CURL *easy)
{
    curl_off_t connected = 0;

    curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
    return connected ? MW_HTTP_NOT_IN_TIME : MW_HTTP_NOT_CONNECTED_IN_TIME;
}

static mw_http_end_e answer_end(const answer_t *answer, CURLcode code)
{
    if (answer->is_stopped) {
        return answer->end;
    }
    switch (code) {
    case CURLE_OK:
        return answer->is_too_long ? MW_HTTP_TOO_LARGE : MW_HTTP_ANSWERED;
    case CURLE_OPERATION_TIMEDOUT:
        return time_end(answer->easy);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return MW_HTTP_NOT_CONNECTED;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return MW_HTTP_CUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return MW_HTTP_TLS_REFUSED;
    case CURLE_OUT_OF_MEMORY:
        return memory_end(answer);
#if LIBCURL_VERSION_NUM >= 0x080600
    case CURLE_TOO_LARGE:
        return MW_HTTP_ENDLESS;
#endif
    default:
        return MW_HTTP_NONSENSE;
    }
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
    request->is_api = request->says_when = 0;
    request->etag[0] = '\0';
}

/* @return APR_EAGAIN that does not pass: it was not */
static mw_http_outcome_t request_try(mw_http_t *store,
                                     const cachemw_call_t *call,
                                     mw_http_request_t *request,
                                     apr_int64_t deadline)
{
    mw_http_outcome_t outcome = { .rv = APR_EAGAIN };
    mw_http_conn_t *conn;
    apr_interval_time_t left;
    answer_t answer;
    mw_http_end_e end;
    CURLcode code;
    long made = 0;
    apr_status_t rv = mw_http_pool_take(store->pool, deadline, &conn);

    if (rv != APR_SUCCESS) {
        outcome.rv = rv;
        return outcome;
    }
    left = deadline - mw_http_clock(store);
    if (left < 1000) {
        mw_http_pool_give(store->pool, conn);
        return outcome;
    }
    answer_begin(&answer, store, request, conn->easy);
    code = request_perform(store, call, conn, &answer, left);
    curl_easy_getinfo(conn->easy, CURLINFO_RESPONSE_CODE, &request->status);
    curl_easy_getinfo(conn->easy, CURLINFO_NUM_CONNECTS, &made);
    if (code == CURLE_OK && made) {
        mw_http_count(store, "connected");
    }
    end = answer_end(&answer, code);
    outcome = mw_http_outcome(
        store, request, end, os_status(conn->easy),
        end == MW_HTTP_TLS_REFUSED ? tls_reason(conn, code) : NULL);
    mw_http_pool_give(store->pool, conn);
    return outcome;
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
    mw_http_outcome_t outcome = { .rv = APR_ENOMEM }, again;

    if (request->url) {
        outcome = request_try(store, call, request, deadline);
    }
    while (outcome.may_pass && left-- > 0
           && mw_http_clock(store) + pause < deadline) {
        apr_sleep(pause);
        pause *= 2;
        mw_http_count(store, "retried");
        again = request_try(store, call, request, deadline);
        if (again.rv == APR_EAGAIN && !again.may_pass) {
            break;
        }
        outcome = again;
    }
    return outcome.rv;
}
