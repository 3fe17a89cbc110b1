/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <sys/un.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "url.h"

#define PORT_REDIS 6379
#define PORT_SENTINEL 26379

/* Of a database: Redis' own configuration decides. */
#define DB_MAX 65535

typedef struct scheme_t {
    const char *prefix;
    mw_redis_scheme_e scheme;
    int is_tls;
    int port;
} scheme_t;

static const scheme_t schemes[] = {
    { "redis://", MW_REDIS_TCP, 0, PORT_REDIS },
    { "rediss://", MW_REDIS_TCP, 1, PORT_REDIS },
    { "unix://", MW_REDIS_UNIX, 0, 0 },
    { "redis+sentinel://", MW_REDIS_SENTINEL, 0, PORT_SENTINEL },
    { "rediss+sentinel://", MW_REDIS_SENTINEL, 1, PORT_SENTINEL },
    { "redis+cluster://", MW_REDIS_CLUSTER, 0, PORT_REDIS },
    { "rediss+cluster://", MW_REDIS_CLUSTER, 1, PORT_REDIS },
};

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c ? strchr(digits, apr_tolower(c)) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* NULL: a % without two digits behind it, or a NUL. */
static const char *part_decode(const char *from, apr_size_t len,
                               apr_pool_t *pool)
{
    char *text = apr_palloc(pool, len + 1);
    char *to = text;
    const char *end = from + len;
    int high, low;

    while (from < end) {
        *to = *from++;
        if (*to == '%') {
            high = end - from >= 2 ? hex_value(from[0]) : -1;
            low = high >= 0 ? hex_value(from[1]) : -1;
            if (low < 0 || (high == 0 && low == 0)) {
                return NULL;
            }
            *to = (char)(high << 4 | low);
            from += 2;
        }
        to++;
    }
    *to = 0;
    return text;
}

/* A decimal number of the whole text; -1: it is none. */
static int number_parse(const char *text, apr_size_t len, int most)
{
    int n = 0;
    apr_size_t i;

    for (i = 0; i < len; i++) {
        if (!apr_isdigit(text[i]) || n > most) {
            return -1;
        }
        n = n * 10 + (text[i] - '0');
    }
    return len > 0 && n <= most ? n : -1;
}

/* "user:password", "user" or ":password". */
static const char *userinfo_parse(const char *text, apr_size_t len,
                                  mw_redis_url_t *url, apr_pool_t *pool)
{
    const char *colon = memchr(text, ':', len);
    apr_size_t user = colon ? (apr_size_t)(colon - text) : len;

    url->user = user ? part_decode(text, user, pool) : NULL;
    url->password = colon ? part_decode(colon + 1, len - user - 1, pool) : NULL;
    if ((user && !url->user) || (colon && !url->password)) {
        return "user and password may have % only before two hexadecimal "
               "digits, not 00";
    }
    return NULL;
}

static int host_is_fit(const char *host)
{
    apr_size_t len = strlen(host);

    return len > 0 && len <= MW_REDIS_HOST_MAX
           && strspn(host,
                     "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                     "0123456789.-_:%")
                  == len;
}

/* "host", "host:port", "[v6]", "[v6]:port". */
static const char *host_parse(const char *text, apr_size_t len, int port,
                              mw_redis_endpoint_t *to, apr_pool_t *pool)
{
    const char *end = text + len;
    const char *behind;

    if (len && *text == '[') {
        behind = memchr(text, ']', len);
        if (!behind) {
            return "an IPv6 address is written in brackets: [::1]:6379";
        }
        to->host = apr_pstrmemdup(pool, text + 1, behind - text - 1);
        behind++;
    }
    else {
        behind = memchr(text, ':', len);
        behind = behind ? behind : end;
        to->host = apr_pstrmemdup(pool, text, behind - text);
    }
    to->port = port;
    if (behind < end) {
        to->port = *behind == ':'
                       ? number_parse(behind + 1, end - behind - 1, 65535)
                       : -1;
    }
    if (to->port < 1) {
        return "a port from 1 to 65535 is expected behind a host, and an IPv6 "
               "address is written in brackets: [::1]:6379";
    }
    return host_is_fit(to->host)
               ? NULL
               : "a host is expected: a name or an address, and percent signs "
                 "before the reserved characters of user and password";
}

static const char *hosts_parse(const char *text, apr_size_t len, int port,
                               mw_redis_url_t *url, apr_pool_t *pool)
{
    const char *end = text + len;
    const char *comma, *error = NULL;

    do {
        if (url->endpoint_count == MW_REDIS_HOSTS_MAX) {
            return apr_psprintf(pool, "at most %d hosts are accepted",
                                MW_REDIS_HOSTS_MAX);
        }
        comma = memchr(text, ',', end - text);
        comma = comma ? comma : end;
        error = host_parse(text, comma - text, port,
                           &url->endpoints[url->endpoint_count++], pool);
        text = comma + 1;
    } while (!error && comma < end);
    if (!error && url->endpoint_count > 1 && url->scheme == MW_REDIS_TCP) {
        error = "one host is expected; several are for redis+sentinel:// and "
                "redis+cluster://";
    }
    return error;
}

static const char *db_parse(const char *text, mw_redis_url_t *url,
                            apr_pool_t *pool)
{
    url->db = number_parse(text, strlen(text), DB_MAX);
    return url->db >= 0 ? NULL
                        : apr_psprintf(pool,
                                       "the number of a database is expected, "
                                       "0 to %d",
                                       DB_MAX);
}

/* "/path?db=n" behind the user. */
static const char *socket_parse(const char *text, mw_redis_url_t *url,
                                apr_pool_t *pool)
{
    const char *query = strchr(text, '?');
    apr_size_t len = query ? (apr_size_t)(query - text) : strlen(text);
    const char *path = part_decode(text, len, pool);

    if (!path || *path != '/' || !path[1]) {
        return "the absolute path of a socket is expected: "
               "unix:///run/redis/redis.sock";
    }
    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        return "the path of a socket is at most 107 bytes long";
    }
    url->endpoints[0].host = path;
    url->endpoint_count = 1;
    if (!query) {
        return NULL;
    }
    if (strncmp(query, "?db=", 4) != 0) {
        return "?db= and a number may follow the path of a socket, nothing "
               "else";
    }
    return db_parse(query + 4, url, pool);
}

/* What is behind the hosts: NULL, "/…". */
static const char *rest_parse(const char *rest, mw_redis_url_t *url,
                              apr_pool_t *pool)
{
    const char *slash;

    if (url->scheme == MW_REDIS_SENTINEL) {
        slash = rest ? strchr(rest + 1, '/') : NULL;
        url->master = rest ? part_decode(rest + 1,
                                         slash ? (apr_size_t)(slash - rest - 1)
                                               : strlen(rest + 1),
                                         pool)
                           : NULL;
        if (!url->master || !*url->master) {
            return "the name of the master is expected behind the hosts: "
                   "redis+sentinel://host:26379/mymaster";
        }
        rest = slash;
    }
    if (!rest || !rest[1]) {
        return NULL;
    }
    if (url->scheme == MW_REDIS_CLUSTER) {
        return "a cluster has no numbered databases: nothing may follow its "
               "hosts";
    }
    return db_parse(rest + 1, url, pool);
}

static const char *authority_parse(const char *text, int port,
                                   mw_redis_url_t *url, apr_pool_t *pool)
{
    const char *slash = strchr(text, '/');
    const char *end = slash ? slash : text + strlen(text);
    const char *at = end;
    const char *error = NULL;

    while (at > text && at[-1] != '@') {
        at--;
    }
    if (at > text) {
        error = userinfo_parse(text, at - text - 1, url, pool);
    }
    if (error) {
        return error;
    }
    if (url->scheme == MW_REDIS_UNIX) {
        return at == end ? socket_parse(end, url, pool)
                         : "a socket has no host: three slashes are expected, "
                           "unix:///path";
    }
    error = hosts_parse(at, end - at, port, url, pool);
    return error ? error : rest_parse(slash, url, pool);
}

const char *mw_redis_url_parse(const char *text, mw_redis_url_t *url,
                               apr_pool_t *pool)
{
    const char *error;
    apr_size_t i, len;

    memset(url, 0, sizeof(*url));
    for (i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        len = strlen(schemes[i].prefix);
        if (!strncmp(text, schemes[i].prefix, len)) {
            url->scheme = schemes[i].scheme;
            url->is_tls = schemes[i].is_tls;
            error = authority_parse(text + len, schemes[i].port, url, pool);
            return error ? apr_pstrcat(pool, "url=", schemes[i].prefix,
                                       "...: ", error, NULL)
                         : NULL;
        }
    }
    return "url= begins with redis://, rediss://, unix://, "
           "redis+sentinel://, rediss+sentinel://, redis+cluster:// or "
           "rediss+cluster://";
}

const char *mw_redis_endpoint_text(const mw_redis_endpoint_t *endpoint,
                                   char text[MW_REDIS_ENDPOINT_MAX])
{
    const int is_v6 = strchr(endpoint->host, ':') != NULL;

    if (!endpoint->port) {
        return apr_cpystrn(text, endpoint->host, MW_REDIS_ENDPOINT_MAX), text;
    }
    apr_snprintf(text, MW_REDIS_ENDPOINT_MAX, is_v6 ? "[%s]:%d" : "%s:%d",
                 endpoint->host, endpoint->port);
    return text;
}
