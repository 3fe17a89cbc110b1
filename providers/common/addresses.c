/* SPDX-License-Identifier: Apache-2.0 */

#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#include "addresses.h"

/* Attempts at a row that is being written. */
#define ATTEMPTS 100

int mw_address_parse(const char *host, int port, mw_address_t *address)
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

/* --- reading -------------------------------------------------------------- */

/* A copy of the row as it was at one instant; 0: it is being written. */
static int row_copy(const mw_addresses_t *row, mw_addresses_t *copy)
{
    apr_uint32_t serial;
    int i;

    for (i = 0; i < ATTEMPTS; i++) {
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

int mw_addresses_read(const mw_addresses_t *row, int port, mw_address_t *to)
{
    mw_addresses_t copy;
    apr_uint32_t i;

    if (!row_copy(row, &copy) || copy.count > MW_ADDRESSES_MAX) {
        return 0;
    }
    for (i = 0; i < copy.count; i++) {
        const mw_address_kept_t *kept = &copy.kept[i];

        if (kept->length > sizeof(kept->bytes)) {
            return 0;
        }
        memset(&to[i], 0, sizeof(to[i]));
        memcpy(&to[i].socket, kept->bytes, kept->length);
        to[i].length = (socklen_t)kept->length;
        /* of IPv4 and IPv6 it is at the same place */
        ((struct sockaddr_in *)&to[i].socket)->sin_port =
            htons((apr_uint16_t)port);
    }
    return (int)copy.count;
}

/* --- looking up ----------------------------------------------------------- */

static apr_uint32_t host_resolve(const char *host, mw_address_kept_t *kept)
{
    const struct addrinfo hints = { .ai_flags = AI_ADDRCONFIG,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL, *a;
    apr_uint32_t count = 0;

    if (getaddrinfo(host, NULL, &hints, &list) != 0) {
        return 0;
    }
    for (a = list; a && count < MW_ADDRESSES_MAX; a = a->ai_next) {
        if (a->ai_addrlen <= sizeof(kept->bytes)) {
            memcpy(kept[count].bytes, a->ai_addr, a->ai_addrlen);
            kept[count++].length = a->ai_addrlen;
        }
    }
    freeaddrinfo(list);
    return count;
}

/* Only processes that sweep write, and of two generations two at most do so at
 * once: the later one comes again. An odd serial is a dead one's. */
static void row_write(mw_addresses_t *row, const mw_address_kept_t *kept,
                      apr_uint32_t count)
{
    apr_uint32_t serial = __atomic_load_n(&row->serial, __ATOMIC_RELAXED);
    apr_uint32_t odd = (serial | 1) + (serial & 1) * 2;

    if (!(serial & 1) && row->count == count
        && !memcmp(row->kept, kept, count * sizeof(*kept))) {
        return;
    }
    if (__atomic_compare_exchange_n(&row->serial, &serial, odd, 0,
                                    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        __atomic_thread_fence(__ATOMIC_RELEASE);
        row->count = count;
        memcpy(row->kept, kept, count * sizeof(*kept));
        __atomic_compare_exchange_n(&row->serial, &odd, odd + 1, 0,
                                    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
    }
}

int mw_addresses_look_up(mw_addresses_t *row, const char *host)
{
    mw_address_kept_t kept[MW_ADDRESSES_MAX];
    apr_uint32_t count;

    memset(kept, 0, sizeof(kept));
    count = host_resolve(host, kept);
    if (count) {
        row_write(row, kept, count);
    }
    return (int)count;
}
