/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "core/crc32c.h"

#include "names.h"

struct mw_redis_names_t {
    mw_addresses_t rows[MW_REDIS_HOSTS_MAX];
    apr_uint64_t place[MW_REDIS_PLACE_WORDS];
};

static apr_status_t path_address(const char *path, mw_address_t *address)
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

/* --- the table ------------------------------------------------------------ */

static int endpoint_is_name(const mw_redis_endpoint_t *endpoint)
{
    mw_address_t address;

    return endpoint->port
           && !mw_address_parse(endpoint->host, endpoint->port, &address);
}

apr_status_t mw_redis_names_make(mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    const cachemw_services_t *services = store->services;
    apr_uint64_t layout = (apr_uint64_t)MW_ADDRESSES_LAYOUT << 32;
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

static mw_addresses_t *row_of(const mw_redis_t *store,
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

apr_status_t mw_redis_names_find(const mw_redis_t *store,
                                 const mw_redis_endpoint_t *endpoint,
                                 unsigned int n, mw_address_t *address)
{
    mw_address_t list[MW_ADDRESSES_MAX];
    const mw_addresses_t *row;
    int count;

    memset(address, 0, sizeof(*address));
    if (!endpoint->port) {
        return path_address(endpoint->host, address);
    }
    if (mw_address_parse(endpoint->host, endpoint->port, address)) {
        return APR_SUCCESS;
    }
    row = row_of(store, endpoint);
    if (!row) {
        return APR_NOTFOUND;
    }
    count = mw_addresses_read(row, endpoint->port, list);
    if (!count) {
        return APR_EAGAIN;
    }
    *address = list[n % (unsigned int)count];
    return APR_SUCCESS;
}

int mw_redis_names_left(const mw_redis_t *store,
                        const mw_redis_endpoint_t *endpoint,
                        const mw_address_t *address)
{
    const mw_addresses_t *row = row_of(store, endpoint);
    mw_address_t list[MW_ADDRESSES_MAX];
    const int count = row ? mw_addresses_read(row, endpoint->port, list) : 0;
    int i;

    for (i = 0; i < count; i++) {
        if (list[i].length == address->length
            && !memcmp(&list[i].socket, &address->socket, address->length)) {
            return 0;
        }
    }
    /* of more the resolver may name some at each time */
    return count > 0 && count < MW_ADDRESSES_MAX;
}

void mw_redis_names_sweep(const mw_redis_t *store)
{
    const mw_redis_url_t *url = &store->settings.url;
    const cachemw_services_t *services = store->services;
    int i;

    for (i = 0; store->names && i < url->endpoint_count; i++) {
        const char *host = url->endpoints[i].host;

        if (endpoint_is_name(&url->endpoints[i])
            && !mw_addresses_look_up(&store->names->rows[i], host)) {
            services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                          "url: the host %s has no address now", host);
        }
    }
}
