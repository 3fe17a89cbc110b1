/* SPDX-License-Identifier: Apache-2.0 */

/* The provider "http": options, life, tables. */

#include <string.h>

#include <curl/curl.h>

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"
#include "apr_strings.h"

#include "core/crc32c.h"
#include "providers/common/http_value.h"

#include "entries.h"
#include "pool.h"

/* A call without a deadline waits for so long. */
#define PATIENCE apr_time_from_sec(60)

/* Longest token in bytes, and file of certificates. */
#define TOKEN_MAX 8000
#define CA_FILE_MAX (4 * 1024 * 1024)

enum {
    OPTION_BASE_URL,
    OPTION_AUTH_TOKEN,
    OPTION_AUTH_TOKEN_FILE,
    OPTION_CONNECT_TIMEOUT,
    OPTION_MAX_CONNECTIONS,
    OPTION_MAX_RETRIES,
    OPTION_RETRY_READS,
    OPTION_KEY_ENCODING,
    OPTION_CA_FILE,
    OPTION_SSL_VERIFY,
    OPTION_PROXY
};

static const char *const encoding_words[] = { "sha256", "percent", NULL };

static const cachemw_option_t http_options[] = {
    [OPTION_BASE_URL] = { .name = "base_url",
                          .type = CACHEMW_STRING,
                          .required = 1,
                          .help = "Where the service is; /cache/ and the key "
                                  "follow." },
    [OPTION_AUTH_TOKEN] = { .name = "auth_token",
                            .type = CACHEMW_SECRET,
                            .help = "The token that is sent with each "
                                    "request." },
    [OPTION_AUTH_TOKEN_FILE] = { .name = "auth_token_file",
                                 .type = CACHEMW_SECRET_FILE,
                                 .help = "The token, in a file." },
    [OPTION_CONNECT_TIMEOUT] = { .name = "connect_timeout",
                                 .type = CACHEMW_DURATION,
                                 .fallback = "100ms",
                                 .minimum = "1ms",
                                 .maximum = "60s",
                                 .help = "How long connecting may take, TLS "
                                         "included." },
    [OPTION_MAX_CONNECTIONS] = { .name = "max_connections",
                                 .type = CACHEMW_INTEGER,
                                 .fallback = "100",
                                 .minimum = "1",
                                 .maximum = "10000",
                                 .help = "Most connections of a child." },
    [OPTION_MAX_RETRIES] = { .name = "max_retries",
                             .type = CACHEMW_INTEGER,
                             .fallback = "2",
                             .minimum = "0",
                             .maximum = "10",
                             .help = "Further attempts after a failure that "
                                     "may pass, 0.5 s later, 1 s, 2 s and so "
                                     "on, as far as the time for the call "
                                     "allows." },
    [OPTION_RETRY_READS] = { .name = "retry_reads",
                             .type = CACHEMW_FLAG,
                             .fallback = "off",
                             .help = "Whether that holds for lookups, too, for "
                                     "which a visitor waits." },
    [OPTION_KEY_ENCODING] = { .name = "key_encoding",
                              .type = CACHEMW_ENUM,
                              .fallback = "sha256",
                              .words = encoding_words,
                              .help = "How a key is written in the URL." },
    [OPTION_CA_FILE] = { .name = "ca_file",
                         .type = CACHEMW_FILE,
                         .help = "Certificates of the only authorities that "
                                 "may vouch for the service (PEM)." },
    [OPTION_SSL_VERIFY] = { .name = "ssl_verify",
                            .type = CACHEMW_FLAG,
                            .fallback = "on",
                            .help = "off: whoever answers is believed to be "
                                    "the service." },
    [OPTION_PROXY] = { .name = "proxy",
                       .type = CACHEMW_STRING,
                       .help = "An HTTP proxy to go through." },
    { .name = NULL },
};

/* --- what all parts use --------------------------------------------------- */

apr_int64_t mw_http_clock(const mw_http_t *store)
{
    return store->services->deadline_in(store->services, NULL, 0);
}

apr_int64_t mw_http_deadline(const mw_http_t *store, const cachemw_call_t *call)
{
    return call->deadline
               ? call->deadline
               : store->services->deadline_in(store->services, NULL, PATIENCE);
}

void mw_http_count(const mw_http_t *store, const char *kind)
{
    store->services->count_kind(store->services, kind, 1);
}

/* --- opening -------------------------------------------------------------- */

static const char *token_read(mw_http_settings_t *to,
                              const cachemw_value_t *values, apr_pool_t *pconf)
{
    const char *token = values[OPTION_AUTH_TOKEN].string;
    const char *file = values[OPTION_AUTH_TOKEN_FILE].string;
    const char *c;

    if (token && file) {
        return "auth_token_file: there is auth_token= already, one of the two "
               "is expected";
    }
    token = token ? token : file;
    if (!token) {
        return NULL;
    }
    for (c = token; *c > ' ' && *c < 0x7f; c++) {
    }
    if (*c || c - token > TOKEN_MAX) {
        return apr_psprintf(pconf,
                            "%s: at most %d letters, digits and signs of ASCII "
                            "without spaces are expected",
                            file ? "auth_token_file" : "auth_token", TOKEN_MAX);
    }
    to->authorization =
        apr_pstrcat(pconf, "Authorization: Bearer ", token, NULL);
    return NULL;
}

static const char *urls_read(mw_http_settings_t *to,
                             const cachemw_value_t *values, apr_pool_t *pconf)
{
    const char *proxy = values[OPTION_PROXY].string;
    const char *error =
        mw_http_url_parse(values[OPTION_BASE_URL].string, &to->base, pconf);

    if (error) {
        return apr_pstrcat(pconf, "base_url: ", error, NULL);
    }
    if (!proxy) {
        return NULL;
    }
    error = mw_http_url_parse(proxy, &to->proxy, pconf);
    if (!error && (to->proxy.is_tls || to->proxy.has_path)) {
        error = "http://host:port is expected";
    }
    return error ? apr_pstrcat(pconf, "proxy: ", error, NULL) : NULL;
}

static const char *settings_read(mw_http_settings_t *to,
                                 const cachemw_value_t *values,
                                 apr_pool_t *pconf)
{
    const char *error = urls_read(to, values, pconf);
    int i;

    if (!error) {
        error = token_read(to, values, pconf);
    }
    if (error) {
        return error;
    }
    for (i = OPTION_CA_FILE; !to->base.is_tls && i <= OPTION_SSL_VERIFY; i++) {
        if (values[i].is_set) {
            return apr_psprintf(pconf,
                                "%s: only connections over TLS have this, with "
                                "base_url=https://host",
                                http_options[i].name);
        }
    }
    to->ca_file = values[OPTION_CA_FILE].string;
    to->ssl_verify = values[OPTION_SSL_VERIFY].number != 0;
    to->connect_timeout = values[OPTION_CONNECT_TIMEOUT].duration;
    to->max_connections = (int)values[OPTION_MAX_CONNECTIONS].number;
    to->max_retries = (int)values[OPTION_MAX_RETRIES].number;
    to->retry_reads = values[OPTION_RETRY_READS].number != 0;
    to->key_encoding = (mw_http_encoding_e)values[OPTION_KEY_ENCODING].number;
    if (to->ca_file && !to->ssl_verify) {
        return "ssl_verify=off: with ca_file= the certificate is verified";
    }
    return NULL;
}

static apr_status_t http_open(const cachemw_services_t *services,
                              const cachemw_value_t *values, apr_pool_t *pconf,
                              void **result, const char **error)
{
    mw_http_t *store = apr_pcalloc(pconf, sizeof(*store));
    mw_http_settings_t *settings = &store->settings;

    store->services = services;
    *error = settings_read(settings, values, pconf);
    if (*error) {
        return APR_EINVAL;
    }
    store->peer = settings->proxy.host ? &settings->proxy : &settings->base;
    *result = store;
    return APR_SUCCESS;
}

static void http_close(void *self)
{
    mw_http_t *store = self;

    if (store->pool) {
        mw_http_pool_free(store->pool);
        store->pool = NULL;
    }
}

/* Read by the parent, which may more than a child. */
static apr_status_t ca_read(mw_http_t *store, apr_pool_t *pconf)
{
    const char *path = store->settings.ca_file;
    const cachemw_services_t *services = store->services;
    apr_file_t *file;
    apr_finfo_t info;
    apr_size_t len = 0;
    char *text = NULL;
    apr_status_t rv =
        apr_file_open(&file, path, APR_FOPEN_READ, APR_FPROT_OS_DEFAULT, pconf);

    if (rv == APR_SUCCESS) {
        rv = apr_file_info_get(&info, APR_FINFO_SIZE, file);
        if (rv == APR_SUCCESS && info.size > CA_FILE_MAX) {
            rv = APR_ENOSPC;
        }
        if (rv == APR_SUCCESS) {
            len = (apr_size_t)info.size;
            text = apr_pcalloc(pconf, len + 1);
            rv = apr_file_read_full(file, text, len, NULL);
        }
        apr_file_close(file);
    }
    if (rv == APR_SUCCESS && !strstr(text, "-----BEGIN ")) {
        rv = APR_EINVAL;
    }
    if (rv != APR_SUCCESS) {
        services->log(services, CACHEMW_LOG_ERR, rv,
                      "ca_file: %s cannot be used: certificates (PEM) are "
                      "expected",
                      path);
    }
    store->ca = text;
    return rv;
}

static apr_status_t addresses_make(mw_http_t *store)
{
    const cachemw_services_t *services = store->services;
    const char *host = store->peer->host;
    apr_uint64_t layout = (apr_uint64_t)MW_ADDRESSES_LAYOUT << 32;
    mw_address_t number;
    void *base;
    int is_new;
    apr_status_t rv;

    if (mw_address_parse(host, store->peer->port, &number)) {
        return APR_SUCCESS;
    }
    rv = services->segment(services, sizeof(mw_addresses_t),
                           layout | mw_crc32c(0, host, strlen(host)), &base,
                           &is_new);
    if (rv == APR_SUCCESS) {
        store->addresses = base;
    }
    return rv;
}

static apr_status_t http_post_config(void *self, apr_pool_t *pconf,
                                     apr_uid_t uid, apr_gid_t gid)
{
    mw_http_t *store = self;
    const cachemw_services_t *services = store->services;
    apr_status_t rv = addresses_make(store);

    (void)uid, (void)gid;
    if (!store->settings.ssl_verify) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "ssl_verify=off: whoever answers in the place of %s is "
                      "believed, and given the token",
                      store->settings.base.host);
    }
    if (rv == APR_SUCCESS && store->settings.ca_file) {
        rv = ca_read(store, pconf);
    }
    return rv;
}

static apr_status_t child_end(void *data)
{
    mw_http_pool_end(data);
    return APR_SUCCESS;
}

/* libcurl is made ready in the child, never in the parent, which loads and
 * unloads modules; the end of the process is its end. */
static apr_status_t http_child_init(void *self, apr_pool_t *pchild)
{
    mw_http_t *store = self;
    const cachemw_services_t *services = store->services;
    apr_status_t rv;

    if (!store->pool) {
        if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
            return APR_EGENERAL;
        }
        store->pool = mw_http_pool_make(store);
    }
    if (!store->pool) {
        return APR_ENOMEM;
    }
    rv = mw_http_pool_begin(store->pool);
    if (rv != APR_SUCCESS) {
        services->log(services, CACHEMW_LOG_ERR, rv,
                      "%s cannot be set up as the options want it",
                      curl_version());
        return rv;
    }
    apr_pool_cleanup_register(pchild, store->pool, child_end,
                              apr_pool_cleanup_null);
    return APR_SUCCESS;
}

static apr_status_t http_sweep(void *self, const cachemw_call_t *call,
                               int *more)
{
    mw_http_t *store = self;
    const cachemw_services_t *services = store->services;

    (void)call;
    *more = 0;
    if (store->addresses
        && !mw_addresses_look_up(store->addresses, store->peer->host)) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "%s: the host %s has no address now",
                      store->settings.proxy.host ? "proxy" : "base_url",
                      store->peer->host);
    }
    return APR_SUCCESS;
}

static apr_off_t http_object_limit(void *self)
{
    (void)self;
    return MW_HTTP_BODY_MAX;
}

static const cachemw_provider_t http_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_REMOTE,
    .options = http_options,
    .max_object_size = "1M",
    .open = http_open,
    .close = http_close,
    .get = mw_http_get,
    .set = mw_http_set,
    .remove = mw_http_remove,
    .post_config = http_post_config,
    .child_init = http_child_init,
    .set_head = mw_http_set_head,
    .exists = mw_http_exists,
    .sweep = http_sweep,
    .object_limit = http_object_limit,
};

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "http",
                         CACHEMW_PROVIDER_VERSION, &http_provider);
}

/* The one symbol that leaves this object. */
extern module AP_MODULE_DECLARE_DATA cachemw_http_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(cachemw_http) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
