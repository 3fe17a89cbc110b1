/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "layout.h"

/** Longer keys, and those below 16 bytes, go through SipHash. */
#define HASH_SHORT 256

/**
 * Keys come from strangers, so the hash is keyed: with NH, the universal hash
 * of UMAC and VMAC, for the short ones that nearly all are. Two given keys
 * collide for one in 2^64 secrets, and nobody sees secret or hashes. It costs
 * a fifth of SipHash. That no collision is ever served is the comparison's
 * business.
 */
#ifdef __SIZEOF_INT128__

typedef unsigned __int128 wide_t;

static apr_uint64_t load(const char *from)
{
    apr_uint64_t word;

    memcpy(&word, from, sizeof(word));
    return word;
}

static wide_t product(const char *pair, const apr_uint64_t *secret)
{
    return (wide_t)(load(pair) + secret[0]) * (load(pair + 8) + secret[1]);
}

/** Make every bit of the sum count in every bit of the result. */
static apr_uint64_t fold(wide_t sum)
{
    apr_uint64_t x =
        (apr_uint64_t)sum
        ^ (apr_uint64_t)(sum >> 64) * APR_UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 32) * APR_UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * APR_UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

/** 16 bytes at least. */
static APR_INLINE apr_uint64_t hash_short(const apr_uint64_t *secret,
                                          const char *data, apr_size_t len)
{
    wide_t sum = (wide_t)(len + secret[0]) * secret[1];
    apr_size_t at;

    secret += 2;
    for (at = 0; at + 16 <= len; at += 16, secret += 2) {
        sum += product(data + at, secret);
    }
    return fold(sum + product(data + len - 16, secret));
}

#endif

apr_uint64_t mw_mem_hash(const mw_mem_t *mem, const cachemw_key_t *key)
{
    const mw_mem_header_t *header = mem->header;

#ifdef __SIZEOF_INT128__
    if (key->len >= 16 && key->len <= HASH_SHORT) {
        return hash_short(header->secret, key->data, key->len);
    }
#endif
    return apr_siphash24(key->data, key->len,
                         (const unsigned char *)header->secret);
}
