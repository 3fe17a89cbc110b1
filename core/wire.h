/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file wire.h
 * @brief Little-endian integers in bytes of any alignment.
 *
 * The caller has checked that the bytes are there.
 */
#ifndef MW_WIRE_H
#define MW_WIRE_H

#include "apr.h"

static APR_INLINE apr_uint32_t mw_wire_get32(const unsigned char *p)
{
    return p[0] | (apr_uint32_t)p[1] << 8 | (apr_uint32_t)p[2] << 16
           | (apr_uint32_t)p[3] << 24;
}

static APR_INLINE apr_uint64_t mw_wire_get64(const unsigned char *p)
{
    return mw_wire_get32(p) | (apr_uint64_t)mw_wire_get32(p + 4) << 32;
}

static APR_INLINE void mw_wire_put16(unsigned char *p, apr_uint32_t n)
{
    p[0] = (unsigned char)n;
    p[1] = (unsigned char)(n >> 8);
}

static APR_INLINE void mw_wire_put32(unsigned char *p, apr_uint32_t n)
{
    mw_wire_put16(p, n);
    mw_wire_put16(p + 2, n >> 16);
}

static APR_INLINE void mw_wire_put64(unsigned char *p, apr_uint64_t n)
{
    mw_wire_put32(p, (apr_uint32_t)n);
    mw_wire_put32(p + 4, (apr_uint32_t)(n >> 32));
}

#endif
