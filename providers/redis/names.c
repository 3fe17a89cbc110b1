/* SPDX-License-Identifier: Apache-2.0 */

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "core/crc32c.h"

#include "names.h"

/* Changes with the meaning of the bytes in the segment. */
#define NAMES_LAYOUT 2

/* Attempts at a row that is being written. */
#define NAMES_ATTEMPTS 100

/* An address of IPv4 or IPv6. */
typedef struct found_t {
    unsigned char bytes[sizeof(struct sockaddr_in6)];
    apr_uint32_t length;
} found_t;

typedef struct row_t {
    apr_uint32_t serial; /* atomic; odd: being written; 0: never */
    apr_uint32_t count;
    found_t found[MW_REDIS_ADDRESSES];
} row_t;

struct mw_redis_names_t {
    row_t rows[MW_REDIS_HOSTS_MAX];
    apr_uint64_t place[MW_REDIS_PLACE_WORDS];
};

/* --- numbers and paths ---------------------------------------------------- */

static apr_status_t path_address(const char *path, mw_redis_address_t *address)
{
    struct sockaddr_un *to = (struct sockaddr_un *)&address->socket;
    apr_size_t len = strlen(path);

    if (len >= sizeof(to->sun_path)) {
        return ENAMETOOLONG;
    }
    to->sun_family = AF_UNIX;
    memcpy(to->sun_path, path, len + 1);
    address->length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return APR_SUCCESS;
}

/* Whether a host is an address as it is written. */
static int number_address(const char *host, int port,
                          mw_redis_address_t *address)
{
    const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST,
                                    .ai_socktype = SOCK_STREAM };
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->socket;
    struct addrinfo *list = NULL;

    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((apr_uint16_t)port);
        address->length = sizeof(*v4);
        return 1;
    }
    /* only IPv6, which may name an interface, is left to be an address */
    if (!strchr(host, ':') || getaddrinfo(host, NULL, &hints, &list) != 0) {
        return 0;
    }
    memcpy(&address->socket, list->ai_addr, list->ai_addrlen);
    address->length = list->ai_addrlen;
    freeaddrinfo(list);
    ((struct sockaddr_in6 *)&address->socket)->sin6_port =
        htons((apr_uint16_t)port);
    return 1;
}

/* --- the table ------------------------------------------------------------ */

static int endpoint_is_name(const mw_redis_endpoint_t *endpoint)
{
    mw_redis_address_t address;

    return endpoint->port
           && !number_address(endpoint->host, endpoint->port, &address);
}

apr_status_t mw_redis_names_make(mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    const cachemw_services_t *services = store->services;
    apr_uint64_t layout = (apr_uint64_t)NAMES_LAYOUT << 32;
    apr_uint32_t crc = 0;
    void *base;
    int i, is_new, names = 0;
    apr_status_t rv;

    for (i = 0; i < url->endpoint_count; i++) {
        const mw_redis_endpoint_t *endpoint = &url->endpoints[i];

        /* with its NUL: "a", "bc" are not "ab", "c" */
        crc = mw_crc32c(crc, endpoint->host, strlen(endpoint->host) + 1);
        names += endpoint_is_name(endpoint);
    }
    if (url->master) {
        crc = mw_crc32c(crc, url->master, strlen(url->master));
    }
    else if (!names) {
        return APR_SUCCESS;
    }
    rv = services->segment(services, sizeof(mw_redis_names_t), layout | crc,
                           &base, &is_new);
    if (rv == APR_SUCCESS) {
        store->names = base;
        store->place = url->master ? store->names->place : NULL;
    }
    return rv;
}

static row_t *row_of(const mw_redis_t *store,
                     const mw_redis_endpoint_t *endpoint)
{
    const mw_redis_url_t *url = &store->settings.url;
    int i;

    for (i = 0; store->names && i < url->endpoint_count; i++) {
        if (!strcmp(url->endpoints[i].host, endpoint->host)) {
            return &store->names->rows[i];
        }
    }
    return NULL;
}

/* A copy of the row as it was at one instant; 0: it is being written. */
static int row_copy(const row_t *row, row_t *copy)
{
    apr_uint32_t serial;
    int i;

    for (i = 0; i < NAMES_ATTEMPTS; i++) {
        serial = __atomic_load_n(&row->serial, __ATOMIC_ACQUIRE);
        *copy = *row;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(serial & 1)
            && serial == __atomic_load_n(&row->serial, __ATOMIC_RELAXED)) {
            return 1;
        }
    }
    return 0;
}

apr_status_t mw_redis_names_find(const mw_redis_t *store,
                                 const mw_redis_endpoint_t *endpoint,
                                 unsigned int n, mw_redis_address_t *address)
{
    const found_t *found;
    const row_t *row;
    row_t copy;

    memset(address, 0, sizeof(*address));
    if (!endpoint->port) {
        return path_address(endpoint->host, address);
    }
    if (number_address(endpoint->host, endpoint->port, address)) {
        return APR_SUCCESS;
    }
    row = row_of(store, endpoint);
    if (!row) {
        return APR_NOTFOUND;
    }
    if (!row_copy(row, &copy) || copy.count == 0
        || copy.count > MW_REDIS_ADDRESSES) {
        return APR_EAGAIN;
    }
    found = &copy.found[n % copy.count];
    if (found->length > sizeof(found->bytes)) {
        return APR_EAGAIN;
    }
    memcpy(&address->socket, found->bytes, found->length);
    address->length = (socklen_t)found->length;
    /* of IPv4 and IPv6 it is at the same place */
    ((struct sockaddr_in *)&address->socket)->sin_port =
        htons((apr_uint16_t)endpoint->port);
    return APR_SUCCESS;
}

/* --- looking up ----------------------------------------------------------- */

static apr_uint32_t name_resolve(const char *host, found_t *found)
{
    const struct addrinfo hints = { .ai_flags = AI_ADDRCONFIG,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL, *a;
    apr_uint32_t count = 0;

    if (getaddrinfo(host, NULL, &hints, &list) != 0) {
        return 0;
    }
    for (a = list; a && count < MW_REDIS_ADDRESSES; a = a->ai_next) {
        if (a->ai_addrlen <= sizeof(found->bytes)) {
            memcpy(found[count].bytes, a->ai_addr, a->ai_addrlen);
            found[count++].length = a->ai_addrlen;
        }
    }
    freeaddrinfo(list);
    return count;
}

/* Only processes that sweep write, and of two generations two at most do so at
 * once: the later one comes again. An odd serial is a dead one's. */
static void row_write(row_t *row, const found_t *found, apr_uint32_t count)
{
    apr_uint32_t serial = __atomic_load_n(&row->serial, __ATOMIC_RELAXED);
    apr_uint32_t odd = (serial | 1) + (serial & 1) * 2;

    if (!(serial & 1) && row->count == count
        && !memcmp(row->found, found, count * sizeof(*found))) {
        return;
    }
    if (__atomic_compare_exchange_n(&row->serial, &serial, odd, 0,
                                    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        __atomic_thread_fence(__ATOMIC_RELEASE);
        row->count = count;
        memcpy(row->found, found, count * sizeof(*found));
        __atomic_compare_exchange_n(&row->serial, &odd, odd + 1, 0,
                                    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    }
}

void mw_redis_names_sweep(const mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    const cachemw_services_t *services = store->services;
    found_t found[MW_REDIS_ADDRESSES];
    apr_uint32_t count;
    int i;

    for (i = 0; store->names && i < url->endpoint_count; i++) {
        if (!endpoint_is_name(&url->endpoints[i])) {
            continue;
        }
        memset(found, 0, sizeof(found));
        count = name_resolve(url->endpoints[i].host, found);
        if (count) {
            row_write(&store->names->rows[i], found, count);
        }
        else {
            services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                          "url: the host %s has no address now",
                          url->endpoints[i].host);
        }
    }
}
