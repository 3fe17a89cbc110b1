/* SPDX-License-Identifier: Apache-2.0 */

/* The provider "redis": options, life, tables. */

#include <errno.h>
#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"
#include "apr_strings.h"

#include "get.h"
#include "keep.h"
#include "lock.h"
#include "say.h"
#include "seal.h"
#include "servers.h"
#include "set.h"
#include "sharing.h"
#include "tls.h"
#include "watch.h"

/* A call without a deadline waits for so long, and a step of a long one. */
#define PATIENCE apr_time_from_sec(10)

/* Longest prefix in bytes. */
#define PREFIX_MAX 200

/* A transaction with it is well below what Redis takes of one client. */
#define OBJECT_MAX ((apr_off_t)512 * 1024 * 1024)

enum {
    OPTION_URL,
    OPTION_PASSWORD_FILE,
    OPTION_MAX_CONNECTIONS,
    OPTION_CONNECT_TIMEOUT,
    OPTION_RETRY_ON_TIMEOUT,
    OPTION_SOCKET_KEEPALIVE,
    OPTION_HEALTH_CHECK_INTERVAL,
    OPTION_KEY_PREFIX,
    OPTION_SECRET_FILE,
    OPTION_SSL_CA_CERTS,
    OPTION_SSL_CERTFILE,
    OPTION_SSL_KEYFILE,
    OPTION_SSL_CERT_REQS,
    OPTION_SSL_CHECK_HOSTNAME
};

static const char *const cert_reqs_words[] = { "none", "optional", "required",
                                               NULL };

static const cachemw_option_t redis_options[] = {
    [OPTION_URL] = { .name = "url",
                     .type = CACHEMW_STRING,
                     .fallback = "redis://localhost:6379/0",
                     .help = "Where Redis is, and who we are there." },
    [OPTION_PASSWORD_FILE] = { .name = "password_file",
                               .type = CACHEMW_SECRET_FILE,
                               .help = "The password, in a file rather than in "
                                       "the URL." },
    [OPTION_MAX_CONNECTIONS] = { .name = "max_connections",
                                 .type = CACHEMW_INTEGER,
                                 .fallback = "32",
                                 .minimum = "1",
                                 .maximum = "10000",
                                 .help = "Most connections of a child to one "
                                         "server." },
    [OPTION_CONNECT_TIMEOUT] = { .name = "connect_timeout",
                                 .type = CACHEMW_DURATION,
                                 .fallback = "100ms",
                                 .minimum = "1ms",
                                 .maximum = "60s",
                                 .help =
                                     "How long connecting may take, TLS and "
                                     "log-in included." },
    [OPTION_RETRY_ON_TIMEOUT] = { .name = "retry_on_timeout",
                                  .type = CACHEMW_FLAG,
                                  .fallback = "off",
                                  .help = "Try again on a new connection when "
                                          "half of the time has passed." },
    [OPTION_SOCKET_KEEPALIVE] = { .name = "socket_keepalive",
                                  .type = CACHEMW_FLAG,
                                  .fallback = "on",
                                  .help = "TCP's keep-alive on connections." },
    [OPTION_HEALTH_CHECK_INTERVAL] = { .name = "health_check_interval",
                                       .type = CACHEMW_DURATION,
                                       .fallback = "30s",
                                       .minimum = "0",
                                       .maximum = "1d",
                                       .help =
                                           "A connection that was idle for "
                                           "longer is tried with PING "
                                           "before its next use; 0: never." },
    [OPTION_KEY_PREFIX] = { .name = "key_prefix",
                            .type = CACHEMW_STRING,
                            .fallback = "cachemw:",
                            .help = "What the names of all keys begin with." },
    [OPTION_SECRET_FILE] = { .name = "secret_file",
                             .type = CACHEMW_SECRET_FILE,
                             .help = "A secret that entries are signed with; "
                                     "others are not served." },
    [OPTION_SSL_CA_CERTS] = { .name = "ssl_ca_certs",
                              .type = CACHEMW_FILE,
                              .help = "Certificates of the authorities that "
                                      "may vouch for the server (PEM)." },
    [OPTION_SSL_CERTFILE] = { .name = "ssl_certfile",
                              .type = CACHEMW_FILE,
                              .help = "Our own certificate (PEM)." },
    [OPTION_SSL_KEYFILE] = { .name = "ssl_keyfile",
                             .type = CACHEMW_FILE,
                             .help = "Its private key (PEM)." },
    [OPTION_SSL_CERT_REQS] = { .name = "ssl_cert_reqs",
                               .type = CACHEMW_ENUM,
                               .fallback = "required",
                               .words = cert_reqs_words,
                               .help = "Whether the server's certificate must "
                                       "be valid." },
    [OPTION_SSL_CHECK_HOSTNAME] = { .name = "ssl_check_hostname",
                                    .type = CACHEMW_FLAG,
                                    .fallback = "on",
                                    .help = "Whether it must name the host of "
                                            "the URL." },
    { .name = NULL },
};

/* --- what all parts use --------------------------------------------------- */

apr_int64_t mw_redis_clock(const mw_redis_t *store)
{
    return store->services->deadline_in(store->services, NULL, 0);
}

apr_int64_t mw_redis_step_deadline(const mw_redis_t *store,
                                   const cachemw_call_t *call)
{
    return store->services->deadline_in(store->services, call, PATIENCE);
}

apr_int64_t mw_redis_deadline(const mw_redis_t *store,
                              const cachemw_call_t *call)
{
    return call->deadline ? call->deadline
                          : mw_redis_step_deadline(store, call);
}

void mw_redis_count(const mw_redis_t *store, const char *kind)
{
    store->services->count_kind(store->services, kind, 1);
}

apr_status_t mw_redis_nonsense(const mw_redis_t *store)
{
    mw_redis_count(store, "nonsense");
    store->services->explain(store->services, EPROTO,
                             "an answer that makes no sense");
    return EPROTO;
}

/* --- opening -------------------------------------------------------------- */

static const mw_redis_servers_ops_t *const servers_of[] = {
    [MW_REDIS_TCP] = &mw_redis_standalone,
    [MW_REDIS_UNIX] = &mw_redis_standalone,
    [MW_REDIS_SENTINEL] = &mw_redis_sentinel,
    [MW_REDIS_CLUSTER] = &mw_redis_cluster,
};

static const char *settings_read(mw_redis_settings_t *to,
                                 const cachemw_value_t *values,
                                 apr_pool_t *pconf)
{
    const char *error =
        mw_redis_url_parse(values[OPTION_URL].string, &to->url, pconf);

    if (error) {
        return error;
    }
    if (!values[OPTION_PASSWORD_FILE].is_null) {
        if (to->url.password) {
            return "password_file: there is a password in url= already, one of "
                   "the two is expected";
        }
        to->url.password = values[OPTION_PASSWORD_FILE].string;
    }
    if (to->url.user && !to->url.password) {
        return "url: a user without a password; it is expected behind the "
               "user, user:password@, or in password_file=";
    }
    to->max_connections = (int)values[OPTION_MAX_CONNECTIONS].number;
    to->connect_timeout = values[OPTION_CONNECT_TIMEOUT].duration;
    to->retry_on_timeout = values[OPTION_RETRY_ON_TIMEOUT].number != 0;
    to->socket_keepalive = values[OPTION_SOCKET_KEEPALIVE].number != 0;
    to->health_check_interval = values[OPTION_HEALTH_CHECK_INTERVAL].duration;
    to->key_prefix = values[OPTION_KEY_PREFIX].string;
    to->secret = values[OPTION_SECRET_FILE].string;
    if (to->secret && strlen(to->secret) < 16) {
        return "secret_file: a secret of at least 16 bytes is expected";
    }
    /* a brace would begin the part that decides on the slot */
    if (strpbrk(to->key_prefix, "{}") || strlen(to->key_prefix) > PREFIX_MAX) {
        return apr_psprintf(pconf,
                            "key_prefix=%s: a text of at most %d bytes without "
                            "braces is expected",
                            to->key_prefix, PREFIX_MAX);
    }
    return NULL;
}

static const char *ssl_read(mw_redis_settings_t *to,
                            const cachemw_value_t *values, apr_pool_t *pconf)
{
    int i;

    to->ssl_ca_certs = values[OPTION_SSL_CA_CERTS].string;
    to->ssl_certfile = values[OPTION_SSL_CERTFILE].string;
    to->ssl_keyfile = values[OPTION_SSL_KEYFILE].string;
    to->ssl_cert_reqs =
        (mw_redis_cert_reqs_e)values[OPTION_SSL_CERT_REQS].number;
    to->ssl_check_hostname = values[OPTION_SSL_CHECK_HOSTNAME].number != 0;
    for (i = OPTION_SSL_CA_CERTS;
         !to->url.is_tls && i <= OPTION_SSL_CHECK_HOSTNAME; i++) {
        if (values[i].is_set) {
            return apr_psprintf(pconf,
                                "%s: only connections over TLS have this, with "
                                "url=rediss://host",
                                redis_options[i].name);
        }
    }
    if (to->ssl_keyfile && !to->ssl_certfile) {
        return "ssl_keyfile: the certificate of this key is expected, too, in "
               "ssl_certfile";
    }
    return NULL;
}

static apr_status_t redis_open(const cachemw_services_t *services,
                               const cachemw_value_t *values, apr_pool_t *pconf,
                               void **result, const char **error)
{
    mw_redis_t *store = apr_pcalloc(pconf, sizeof(*store));

    store->services = services;
    *error = settings_read(&store->settings, values, pconf);
    if (!*error) {
        *error = ssl_read(&store->settings, values, pconf);
    }
    if (!*error && store->settings.url.is_tls) {
        *error = mw_redis_tls_make(store, pconf);
    }
    if (!*error && store->settings.secret) {
        store->seal = mw_redis_seal_make(store->settings.secret, pconf);
        *error = store->seal ? NULL
                             : "secret_file: OpenSSL has no HMAC-SHA-256 for "
                               "this secret";
    }
    if (*error) {
        return APR_EINVAL;
    }
    mw_redis_say_init(store, pconf);
    store->servers = servers_of[store->settings.url.scheme];
    *result = store;
    return APR_SUCCESS;
}

static void redis_close(void *self)
{
    mw_redis_t *store = self;

    store->servers->close(store);
}

static apr_status_t redis_post_config(void *self, apr_pool_t *pconf,
                                      apr_uid_t uid, apr_gid_t gid)
{
    apr_status_t rv = mw_redis_say_begin(self);

    (void)pconf, (void)uid, (void)gid;
    return rv == APR_SUCCESS ? mw_redis_names_make(self) : rv;
}

static apr_status_t redis_child_init(void *self, apr_pool_t *pchild)
{
    mw_redis_t *store = self;
    apr_status_t rv = store->servers->child_init(store, pchild);

    if (rv == APR_SUCCESS) {
        mw_redis_watch_child_init(store, pchild);
    }
    return rv;
}

static apr_off_t redis_object_limit(void *self)
{
    (void)self;
    return OBJECT_MAX;
}

static const cachemw_provider_t redis_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_REMOTE,
    .options = redis_options,
    .max_object_size = "16M",
    .open = redis_open,
    .close = redis_close,
    .get = mw_redis_get,
    .set = mw_redis_set,
    .remove = mw_redis_remove,
    .post_config = redis_post_config,
    .child_init = redis_child_init,
    .set_head = mw_redis_set_head,
    .read = mw_redis_read,
    .exists = mw_redis_exists,
    .clear = mw_redis_clear,
    .keys = mw_redis_keys,
    .sweep = mw_redis_sweep,
    .object_limit = redis_object_limit,
    .publish = mw_redis_publish,
    .watch = mw_redis_watch,
    .lock = mw_redis_lock,
    .unlock = mw_redis_unlock,
    .sync = mw_redis_sharing,
    .sync_interval = MW_REDIS_SHARING_INTERVAL,
};

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "redis",
                         CACHEMW_PROVIDER_VERSION, &redis_provider);
}

/* The one symbol that leaves this object. */
extern module AP_MODULE_DECLARE_DATA cachemw_redis_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(cachemw_redis) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
