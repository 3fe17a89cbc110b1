/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "url.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* Of a path, all that RFC 3986, section 3.3, has. */
#define PATH_LETTERS LETTERS "/-._~!$&'()*+,;=:@%"

static const char *port_parse(const char *text, const char *end,
                              mw_http_url_t *url)
{
    int n = 0;

    if (text == end) {
        return NULL;
    }
    if (*text++ != ':' || text == end) {
        return "a colon and a port, or a path, may follow the host";
    }
    for (; text < end; text++) {
        if (!apr_isdigit(*text) || n > 65535) {
            return "a port from 1 to 65535 is expected behind the host";
        }
        n = n * 10 + (*text - '0');
    }
    url->port = n;
    return n >= 1 && n <= 65535
               ? NULL
               : "a port from 1 to 65535 is expected behind the host";
}

/* "host", "host:port", "[v6]", "[v6]:port". */
static const char *authority_parse(const char *text, const char *end,
                                   mw_http_url_t *url, apr_pool_t *pool)
{
    const char *allowed = LETTERS ".-_";
    const char *close;

    if (memchr(text, '@', end - text)) {
        return "no user or password is accepted there: a token is given by "
               "auth_token_file=";
    }
    if (text < end && *text == '[') {
        text++;
        allowed = LETTERS ":.%";
        close = memchr(text, ']', end - text);
        if (!close) {
            return "an IPv6 address is written in brackets: http://[::1]";
        }
        url->host = apr_pstrmemdup(pool, text, close - text);
        close++;
    }
    else {
        close = memchr(text, ':', end - text);
        close = close ? close : end;
        url->host = apr_pstrmemdup(pool, text, close - text);
    }
    if (!*url->host || strlen(url->host) > MW_HTTP_HOST_MAX
        || strspn(url->host, allowed) != strlen(url->host)) {
        return "a host is expected: a name, an address, or an IPv6 address in "
               "brackets";
    }
    return port_parse(close, end, url);
}

const char *mw_http_url_parse(const char *text, mw_http_url_t *url,
                              apr_pool_t *pool)
{
    apr_size_t len = strlen(text);
    const char *error, *host, *path;

    memset(url, 0, sizeof(*url));
    if (len > MW_HTTP_URL_MAX) {
        return apr_psprintf(pool, "at most %d bytes are accepted",
                            MW_HTTP_URL_MAX);
    }
    url->is_tls = !strncmp(text, "https://", 8);
    if (!url->is_tls && strncmp(text, "http://", 7) != 0) {
        return "http:// or https:// is expected at its beginning";
    }
    host = text + (url->is_tls ? 8 : 7);
    url->port = url->is_tls ? 443 : 80;
    path = strchr(host, '/');
    path = path ? path : text + len;
    error = authority_parse(host, path, url, pool);
    if (error) {
        return error;
    }
    if (strspn(path, PATH_LETTERS) != strlen(path)) {
        return "a path without query, fragment, spaces and the like is "
               "expected behind the host";
    }
    while (len && text[len - 1] == '/') {
        len--;
    }
    url->has_path = text + len > path;
    url->text = apr_pstrmemdup(pool, text, len);
    return NULL;
}
