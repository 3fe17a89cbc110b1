/* SPDX-License-Identifier: Apache-2.0 */

#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "apr_strings.h"

#include "pool.h"
#include "providers/common/cond.h"

/* Seconds after which an idle connection is closed, and any connection: names
 * get other addresses. */
#define IDLE_MAX 60
#define LIFETIME_MAX 300

/* Bytes of one read. */
#define READ_SIZE 65536

struct mw_http_pool_t {
    const mw_http_t *store;
    pthread_mutex_t mutex; /* covers what follows; never held over a call */
    pthread_cond_t given;
    int is_over;
    int connections;        /* idle and in use */
    int idle_count;         /* of idle */
    mw_http_conn_t *idle[]; /* max_connections; the last used one last */
};

/* --- connections ---------------------------------------------------------- */

/* It and those behind it. */
static void conn_free(mw_http_conn_t *conn)
{
    mw_http_conn_t *next;

    for (; conn; conn = next) {
        next = conn->next;
        curl_easy_cleanup(conn->easy);
        free(conn);
    }
}

/* What follows returns CURLE_OK, or others' bits. */

/* Certificates, and who may vouch for them. */
static int tls_set(CURL *easy, const mw_http_t *store)
{
    const long verify = store->settings.ssl_verify;
    struct curl_blob ca = { .flags = CURL_BLOB_NOCOPY };
    int code = CURLE_OK;

    if (!store->settings.base.is_tls) {
        return CURLE_OK;
    }
    code |= curl_easy_setopt(easy, CURLOPT_SSLVERSION,
                             (long)CURL_SSLVERSION_TLSv1_2);
    code |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, verify);
    code |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, verify ? 2L : 0L);
    if (store->ca) {
        ca.data = (void *)store->ca;
        ca.len = strlen(store->ca);
        code |= curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
        code |= curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        code |= curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &ca);
    }
    return code;
}

/* What the environment says of proxies does not count. */
static int proxy_set(CURL *easy, const mw_http_t *store)
{
    const mw_http_url_t *proxy = &store->settings.proxy;
    int code = CURLE_OK;

    code |=
        curl_easy_setopt(easy, CURLOPT_PROXY, proxy->host ? proxy->text : "");
    code |= curl_easy_setopt(easy, CURLOPT_PROXYPORT, (long)proxy->port);
    code |= curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    code |=
        curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    return code | curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
}

/* Programs that the child starts get none of our sockets. */
static curl_socket_t socket_make(void *baton, curlsocktype purpose,
                                 struct curl_sockaddr *to)
{
    (void)baton, (void)purpose;
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

static int wire_set(CURL *easy)
{
    int code = CURLE_OK;

    code |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    code |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, socket_make);
    code |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    code |= curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)READ_SIZE);
    code |= curl_easy_setopt(easy, CURLOPT_MAXCONNECTS, 1L);
    code |= curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)IDLE_MAX);
    code |=
        curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, (long)LIFETIME_MAX);
    return code | curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
}

/* What holds for every request. */
static int conn_set(mw_http_conn_t *conn, const mw_http_t *store)
{
    CURL *easy = conn->easy;
    int code = wire_set(easy);

    code |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, conn->error);
    code |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    code |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    code |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                             (long)CURL_HTTP_VERSION_1_1);
    code |= curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    code |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "mod_cachemw");
    return code | proxy_set(easy, store) | tls_set(easy, store);
}

/* A handle that did not take all of that is none: it might ask a proxy of the
 * environment's, or believe anybody. */
static apr_status_t conn_make(const mw_http_t *store, mw_http_conn_t **made)
{
    mw_http_conn_t *conn = calloc(1, sizeof(*conn));
    apr_status_t rv = APR_ENOMEM;
    int code;

    *made = conn;
    if (conn) {
        conn->easy = curl_easy_init();
    }
    if (conn && conn->easy) {
        code = conn_set(conn, store);
        if (code == CURLE_OK) {
            return APR_SUCCESS;
        }
        rv = code == CURLE_OUT_OF_MEMORY ? APR_ENOMEM : APR_ENOTIMPL;
    }
    conn_free(conn);
    *made = NULL;
    return rv;
}

/* --- addresses ------------------------------------------------------------ */

/* "host:port:address,address", so that libcurl asks no resolver. */
static apr_status_t resolve_write(const mw_http_t *store, char *text)
{
    const mw_http_url_t *peer = store->peer;
    mw_address_t list[MW_ADDRESSES_MAX];
    char host[64], *at = text, *end = text + MW_HTTP_RESOLVE_MAX;
    int i, n = mw_addresses_read(store->addresses, peer->port, list);

    at += apr_snprintf(at, end - at, "%s:%d:", peer->host, peer->port);
    for (i = 0; i < n; i++) {
        if (getnameinfo((struct sockaddr *)&list[i].socket, list[i].length,
                        host, sizeof(host), NULL, 0, NI_NUMERICHOST)
            != 0) {
            return APR_EAGAIN;
        }
        at += apr_snprintf(at, end - at, strchr(host, ':') ? "%s[%s]" : "%s%s",
                           i ? "," : "", host);
    }
    return n ? APR_SUCCESS : APR_EAGAIN;
}

static apr_status_t conn_resolve(mw_http_conn_t *conn, const mw_http_t *store)
{
    char text[MW_HTTP_RESOLVE_MAX];
    apr_status_t rv;

    if (!store->addresses) {
        return APR_SUCCESS;
    }
    rv = resolve_write(store, text);
    if (rv != APR_SUCCESS && *conn->resolve) {
        return APR_SUCCESS; /* what it knows will do */
    }
    if (rv == APR_SUCCESS && strcmp(text, conn->resolve) != 0) {
        apr_cpystrn(conn->resolve, text, sizeof(conn->resolve));
        conn->resolve_list.data = conn->resolve;
        if (curl_easy_setopt(conn->easy, CURLOPT_RESOLVE, &conn->resolve_list)
            != CURLE_OK) {
            return APR_ENOMEM;
        }
    }
    return rv;
}

/* --- life ----------------------------------------------------------------- */

mw_http_pool_t *mw_http_pool_make(const mw_http_t *store)
{
    apr_size_t most = (apr_size_t)store->settings.max_connections;
    mw_http_pool_t *pool =
        calloc(1, sizeof(mw_http_pool_t) + most * sizeof(void *));

    if (!pool || pthread_mutex_init(&pool->mutex, NULL) != 0
        || mw_cond_init(&pool->given) != 0) {
        free(pool);
        return NULL;
    }
    pool->store = store;
    pool->is_over = 1;
    return pool;
}

apr_status_t mw_http_pool_begin(mw_http_pool_t *pool)
{
    mw_http_conn_t *first;
    apr_status_t rv = conn_make(pool->store, &first);

    if (rv == APR_SUCCESS) {
        conn_free(first); /* it is possible */
        pthread_mutex_lock(&pool->mutex);
        pool->is_over = 0;
        pthread_mutex_unlock(&pool->mutex);
    }
    return rv;
}

void mw_http_pool_end(mw_http_pool_t *pool)
{
    mw_http_conn_t *conn;

    do {
        pthread_mutex_lock(&pool->mutex);
        pool->is_over = 1;
        conn = pool->idle_count ? pool->idle[--pool->idle_count] : NULL;
        pool->connections -= conn != NULL;
        pthread_mutex_unlock(&pool->mutex);
        conn_free(conn);
    } while (conn);
}

void mw_http_pool_free(mw_http_pool_t *pool)
{
    mw_http_pool_end(pool);
    pthread_cond_destroy(&pool->given);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* --- taking and giving ---------------------------------------------------- */

/* An idle connection, or the right to make one, with *conn NULL. Who has waited
 * in vain could do nothing any more with one, but may have taken the wake-up
 * from somebody else. */
static apr_status_t pool_reserve(mw_http_pool_t *pool, apr_int64_t deadline,
                                 mw_http_conn_t **conn)
{
    apr_status_t rv = APR_EAGAIN;

    *conn = NULL;
    pthread_mutex_lock(&pool->mutex);
    do {
        if (pool->idle_count) {
            *conn = pool->idle[--pool->idle_count];
            rv = APR_SUCCESS;
        }
        else if (pool->connections < pool->store->settings.max_connections) {
            pool->connections++;
            rv = APR_SUCCESS;
        }
    } while (rv != APR_SUCCESS
             && mw_cond_wait(&pool->given, &pool->mutex, deadline));
    if (rv != APR_SUCCESS) {
        pthread_cond_signal(&pool->given);
    }
    pthread_mutex_unlock(&pool->mutex);
    return rv;
}

static void pool_discard(mw_http_pool_t *pool, mw_http_conn_t *conn)
{
    conn_free(conn);
    pthread_mutex_lock(&pool->mutex);
    pool->connections--;
    pthread_cond_signal(&pool->given);
    pthread_mutex_unlock(&pool->mutex);
}

apr_status_t mw_http_pool_take(mw_http_pool_t *pool, apr_int64_t deadline,
                               mw_http_conn_t **conn)
{
    apr_status_t rv = pool_reserve(pool, deadline, conn);

    if (rv != APR_SUCCESS) {
        mw_http_count(pool->store, "all-in-use");
        return rv;
    }
    if (!*conn) {
        rv = conn_make(pool->store, conn) == APR_SUCCESS ? APR_SUCCESS
                                                         : APR_ENOMEM;
    }
    if (rv == APR_SUCCESS) {
        rv = conn_resolve(*conn, pool->store);
    }
    if (rv != APR_SUCCESS) {
        pool_discard(pool, *conn);
    }
    return rv;
}

/* Those that nobody has used for too long: at the bottom of the stack. */
static mw_http_conn_t *pool_take_old(mw_http_pool_t *pool, apr_int64_t now)
{
    mw_http_conn_t *old = NULL;
    int i;

    for (i = 0; i < pool->idle_count
                && now - pool->idle[i]->used > apr_time_from_sec(IDLE_MAX);
         i++) {
        pool->idle[i]->next = old;
        old = pool->idle[i];
    }
    pool->idle_count -= i;
    pool->connections -= i;
    memmove(pool->idle, pool->idle + i,
            (apr_size_t)pool->idle_count * sizeof(old));
    return old;
}

void mw_http_pool_give(mw_http_pool_t *pool, mw_http_conn_t *conn)
{
    mw_http_conn_t *old;

    conn->used = mw_http_clock(pool->store);
    pthread_mutex_lock(&pool->mutex);
    if (pool->is_over) {
        pool->connections--;
        old = conn;
    }
    else {
        old = pool_take_old(pool, conn->used);
        pool->idle[pool->idle_count++] = conn;
    }
    pthread_cond_signal(&pool->given);
    pthread_mutex_unlock(&pool->mutex);
    conn_free(old);
}
