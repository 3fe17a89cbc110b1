/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file addresses.h
 * @brief Addresses of a host, in shared memory.
 *
 * Requests never ask the resolver, which has no deadline: the process that
 * sweeps does, and leaves what it finds in a row. A row is copied under its
 * sequence number, which is odd while it is being written: a reader that meets
 * a writer reads again, some times, then has no address. Addresses stay when
 * the resolver fails.
 */
#ifndef MW_COMMON_ADDRESSES_H
#define MW_COMMON_ADDRESSES_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "apr.h"

/** Addresses kept of a host. */
#define MW_ADDRESSES_MAX 4

/** Changes with the meaning of the bytes of a row. */
#define MW_ADDRESSES_LAYOUT 2

/** Where to connect: what connect(2) takes. */
typedef struct mw_address_t {
    struct sockaddr_storage socket;
    socklen_t length; /**< 0: none */
} mw_address_t;

/** One as it is kept. */
typedef struct mw_address_kept_t {
    unsigned char bytes[sizeof(struct sockaddr_in6)];
    apr_uint32_t length;
} mw_address_kept_t;

/** A row: zero-filled at first, of shared memory. */
typedef struct mw_addresses_t {
    apr_uint32_t serial; /* atomic; odd: being written; 0: never */
    apr_uint32_t count;
    mw_address_kept_t kept[MW_ADDRESSES_MAX];
} mw_addresses_t;

/** Whether a host is an address as it is written, and which. */
int mw_address_parse(const char *host, int port, mw_address_t *address);

/**
 * The addresses of a row, with a port. Does not block. Any thread.
 * @param to MW_ADDRESSES_MAX of them
 * @return how many; 0: none is known yet
 */
int mw_addresses_read(const mw_addresses_t *row, int port, mw_address_t *to);

/**
 * From sweep(): look up a host. May block for as long as the resolver.
 * @return how many it has now; 0: none, and the row stays what it was
 */
int mw_addresses_look_up(mw_addresses_t *row, const char *host);

#endif
