/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "apr_strings.h"

#include "pool.h"

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

static void conn_free(mw_http_conn_t *conn)
{
    if (conn) {
        curl_easy_cleanup(conn->easy);
        free(conn);
    }
}

/* Certificates, and who may vouch for them. */
static void tls_set(CURL *easy, const mw_http_t *store)
{
    const long verify = store->settings.ssl_verify;
    struct curl_blob ca = { .flags = CURL_BLOB_NOCOPY };

    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, verify);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, verify ? 2L : 0L);
    if (store->ca) {
        ca.data = (void *)store->ca;
        ca.len = strlen(store->ca);
        curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &ca);
    }
}

/* What the environment says of proxies does not count. */
static void proxy_set(CURL *easy, const mw_http_t *store)
{
    const mw_http_url_t *proxy = &store->settings.proxy;

    curl_easy_setopt(easy, CURLOPT_PROXY, proxy->host ? proxy->text : "");
    curl_easy_setopt(easy, CURLOPT_PROXYPORT, (long)proxy->port);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
}

/* Programs that the child starts get none of our sockets. */
static int socket_made(void *baton, curl_socket_t fd, curlsocktype purpose)
{
    (void)baton, (void)purpose;
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? CURL_SOCKOPT_OK
                                               : CURL_SOCKOPT_ERROR;
}

/* What holds for every request. */
static void conn_set(mw_http_conn_t *conn, const mw_http_t *store)
{
    CURL *easy = conn->easy;

    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, conn->error);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, socket_made);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "mod_cachemw");
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)READ_SIZE);
    curl_easy_setopt(easy, CURLOPT_MAXCONNECTS, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)IDLE_MAX);
    curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, (long)LIFETIME_MAX);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    proxy_set(easy, store);
    tls_set(easy, store);
}

static mw_http_conn_t *conn_make(const mw_http_t *store)
{
    mw_http_conn_t *conn = calloc(1, sizeof(*conn));

    if (conn) {
        conn->easy = curl_easy_init();
        if (conn->easy) {
            conn_set(conn, store);
            return conn;
        }
        free(conn);
    }
    return NULL;
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
        curl_easy_setopt(conn->easy, CURLOPT_RESOLVE, &conn->resolve_list);
    }
    return rv;
}

/* --- life ----------------------------------------------------------------- */

static int pool_init(mw_http_pool_t *pool)
{
    pthread_condattr_t attr;
    int rv = pthread_mutex_init(&pool->mutex, NULL);

    if (rv == 0) {
        rv = pthread_condattr_init(&attr);
    }
    if (rv == 0) {
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        rv = pthread_cond_init(&pool->given, &attr);
        pthread_condattr_destroy(&attr);
    }
    return rv == 0;
}

mw_http_pool_t *mw_http_pool_make(const mw_http_t *store)
{
    apr_size_t most = (apr_size_t)store->settings.max_connections;
    mw_http_pool_t *pool =
        calloc(1, sizeof(mw_http_pool_t) + most * sizeof(void *));

    if (!pool || !pool_init(pool)) {
        free(pool);
        return NULL;
    }
    pool->store = store;
    pool->is_over = 1;
    return pool;
}

void mw_http_pool_begin(mw_http_pool_t *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pool->is_over = 0;
    pthread_mutex_unlock(&pool->mutex);
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

static int given_wait(mw_http_pool_t *pool, apr_int64_t deadline)
{
    struct timespec until = { .tv_sec = deadline / APR_USEC_PER_SEC,
                              .tv_nsec = deadline % APR_USEC_PER_SEC * 1000 };

    return pthread_cond_timedwait(&pool->given, &pool->mutex, &until) == 0;
}

/* An idle connection, or the right to make one, with *conn NULL. */
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
    } while (rv != APR_SUCCESS && given_wait(pool, deadline));
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
        return rv;
    }
    if (!*conn) {
        *conn = conn_make(pool->store);
        rv = *conn ? APR_SUCCESS : APR_ENOMEM;
    }
    if (rv == APR_SUCCESS) {
        rv = conn_resolve(*conn, pool->store);
    }
    if (rv != APR_SUCCESS) {
        pool_discard(pool, *conn);
    }
    return rv;
}

void mw_http_pool_give(mw_http_pool_t *pool, mw_http_conn_t *conn)
{
    mw_http_conn_t *old = NULL;

    conn->used = mw_http_clock(pool->store);
    pthread_mutex_lock(&pool->mutex);
    if (pool->is_over) {
        old = conn;
    }
    else {
        if (pool->idle_count
            && conn->used - pool->idle[0]->used > apr_time_from_sec(IDLE_MAX)) {
            old = pool->idle[0];
            memmove(pool->idle, pool->idle + 1,
                    (apr_size_t)--pool->idle_count * sizeof(old));
        }
        pool->idle[pool->idle_count++] = conn;
    }
    pool->connections -= old != NULL;
    pthread_cond_signal(&pool->given);
    pthread_mutex_unlock(&pool->mutex);
    conn_free(old);
}
