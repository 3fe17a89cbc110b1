/* SPDX-License-Identifier: Apache-2.0 */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "apr_strings.h"

#include "slotmap.h"

#define PORT_MAX 65535

/* Longest error that can be a redirection. */
#define REDIRECT_MAX 512

/* --- keys ----------------------------------------------------------------- */

/* CRC-16/XMODEM, four bits at a time. */
static unsigned int crc16(const char *data, apr_size_t len)
{
    static const unsigned short table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    };
    unsigned int crc = 0;
    apr_size_t i;

    for (i = 0; i < len; i++) {
        unsigned int byte = (unsigned char)data[i];

        crc = (crc << 4 & 0xffff) ^ table[crc >> 12 ^ byte >> 4];
        crc = (crc << 4 & 0xffff) ^ table[crc >> 12 ^ (byte & 15)];
    }
    return crc;
}

int mw_redis_slot(const char *name, apr_size_t len)
{
    const char *open = memchr(name, '{', len);
    const char *close =
        open ? memchr(open + 1, '}', len - (apr_size_t)(open + 1 - name))
             : NULL;

    if (close && close > open + 1) {
        len = (apr_size_t)(close - open - 1);
        name = open + 1;
    }
    return (int)(crc16(name, len) % MW_REDIS_SLOTS);
}

/* --- nodes ---------------------------------------------------------------- */

int mw_redis_endpoint_same(const mw_redis_endpoint_t *one,
                           const mw_redis_endpoint_t *other)
{
    return one->port == other->port && strcmp(one->host, other->host) == 0;
}

static int host_is_address(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, host, address) == 1
           || inet_pton(AF_INET6, host, address) == 1;
}

/* A node that does not know its own address has an empty one: it is where the
 * reply came from. Requests cannot look up names: APR_NOTFOUND. */
static apr_status_t host_set(const char *data, apr_size_t len,
                             const mw_redis_endpoint_t *from, const char **host,
                             apr_pool_t *pool)
{
    if (len == 0) {
        *host = from->host;
        return APR_SUCCESS;
    }
    *host = apr_pstrmemdup(pool, data, len);
    return host_is_address(*host) ? APR_SUCCESS : APR_NOTFOUND;
}

static const mw_redis_reply_t *element(const mw_redis_reply_t *reply,
                                       apr_size_t i, int type)
{
    if (reply->type != REDIS_REPLY_ARRAY || i >= reply->len
        || !reply->elements[i] || reply->elements[i]->type != type) {
        return NULL;
    }
    return reply->elements[i];
}

/* Beside an endpoint that is a name there may be the address. */
static const mw_redis_reply_t *node_ip(const mw_redis_reply_t *node)
{
    const mw_redis_reply_t *more = element(node, 3, REDIS_REPLY_ARRAY);
    const mw_redis_reply_t *name, *value;
    apr_size_t i;

    for (i = 0; more && i + 1 < more->len; i += 2) {
        name = element(more, i, REDIS_REPLY_STRING);
        value = element(more, i + 1, REDIS_REPLY_STRING);
        if (name && value && name->len == 2
            && memcmp(name->data, "ip", 2) == 0) {
            return value;
        }
    }
    return NULL;
}

static apr_status_t node_read(const mw_redis_reply_t *node,
                              const mw_redis_endpoint_t *from,
                              mw_redis_endpoint_t *to, apr_pool_t *pool)
{
    const mw_redis_reply_t *port = element(node, 1, REDIS_REPLY_INTEGER);
    const mw_redis_reply_t *host = element(node, 0, REDIS_REPLY_STRING);
    apr_status_t rv;

    if (!port || port->integer < 1 || port->integer > PORT_MAX) {
        return EPROTO;
    }
    to->port = (int)port->integer;
    if (!host && !element(node, 0, REDIS_REPLY_NIL)) {
        return EPROTO;
    }
    rv = host_set(host ? host->data : NULL, host ? host->len : 0, from,
                  &to->host, pool);
    if (rv == APR_NOTFOUND && (host = node_ip(node)) != NULL) {
        rv = host_set(host->data, host->len, from, &to->host, pool);
    }
    return rv;
}

/* A node has many ranges one behind the other. */
static int node_find(const mw_redis_slotmap_t *map,
                     const mw_redis_endpoint_t *node)
{
    int i;

    for (i = map->count - 1; i >= 0; i--) {
        if (mw_redis_endpoint_same(&map->nodes[i], node)) {
            break;
        }
    }
    return i;
}

static apr_status_t range_read(const mw_redis_reply_t *range,
                               const mw_redis_endpoint_t *from,
                               mw_redis_slotmap_t *map, apr_pool_t *pool)
{
    const mw_redis_reply_t *low = element(range, 0, REDIS_REPLY_INTEGER);
    const mw_redis_reply_t *high = element(range, 1, REDIS_REPLY_INTEGER);
    const mw_redis_reply_t *master = element(range, 2, REDIS_REPLY_ARRAY);
    mw_redis_endpoint_t node;
    apr_status_t rv;
    apr_int64_t slot;
    int i;

    if (!low || !high || !master || low->integer < 0
        || low->integer > high->integer || high->integer >= MW_REDIS_SLOTS) {
        return EPROTO;
    }
    rv = node_read(master, from, &node, pool);
    if (rv != APR_SUCCESS) {
        return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
    }
    i = node_find(map, &node);
    if (i < 0) {
        if (map->count == MW_REDIS_NODES_MAX) {
            return EPROTO;
        }
        i = map->count++;
        map->nodes[i] = node;
    }
    for (slot = low->integer; slot <= high->integer; slot++) {
        if (map->owners[slot]) {
            return EPROTO;
        }
        map->owners[slot] = (apr_uint16_t)(i + 1);
    }
    return APR_SUCCESS;
}

apr_status_t mw_redis_slotmap_parse(const mw_redis_reply_t *reply,
                                    const mw_redis_endpoint_t *from,
                                    mw_redis_slotmap_t *map, apr_pool_t *pool)
{
    apr_status_t rv = APR_SUCCESS;
    const mw_redis_reply_t *range;
    apr_size_t i;

    memset(map, 0, sizeof(*map));
    if (reply->type == REDIS_REPLY_ERROR) {
        return EOPNOTSUPP;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->len > MW_REDIS_SLOTS) {
        return EPROTO;
    }
    map->nodes = apr_palloc(pool, MW_REDIS_NODES_MAX * sizeof(*map->nodes));
    for (i = 0; i < reply->len && rv == APR_SUCCESS; i++) {
        range = element(reply, i, REDIS_REPLY_ARRAY);
        rv = range ? range_read(range, from, map, pool) : EPROTO;
    }
    return map->count ? rv : EPROTO;
}

/* Decimal digits up to `end`, which follows them. @return -1: not such */
static int number_read(const char **text, char end, int most)
{
    const char *c = *text;
    int n = 0;

    do {
        if (*c < '0' || *c > '9') {
            return -1;
        }
        n = n * 10 + (*c - '0');
        if (n > most) {
            return -1;
        }
    } while (*++c != end);
    *text = c;
    return n;
}

apr_status_t mw_redis_redirect_parse(const mw_redis_reply_t *error,
                                     const mw_redis_endpoint_t *from, int *slot,
                                     mw_redis_endpoint_t *to, apr_pool_t *pool)
{
    const char *text = error->data;
    const char *colon;
    apr_status_t rv;

    if (error->type != REDIS_REPLY_ERROR || error->len > REDIRECT_MAX
        || memchr(text, '\0', error->len)) {
        return EPROTO;
    }
    if (strncmp(text, "MOVED ", 6) == 0) {
        text += 6;
    }
    else if (strncmp(text, "ASK ", 4) == 0) {
        text += 4;
    }
    else {
        return EPROTO;
    }
    *slot = number_read(&text, ' ', MW_REDIS_SLOTS - 1);
    colon = strrchr(text, ':');
    if (*slot < 0 || !colon) {
        return EPROTO;
    }
    text++;
    rv = host_set(text, colon - text, from, &to->host, pool);
    text = colon + 1;
    to->port = number_read(&text, '\0', PORT_MAX);
    return to->port > 0 ? rv : EPROTO;
}
