/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "providers/common/sha256.h"

#define SHA256_BLOCK 64

/* FIPS 180-4, section 4.2.2: of the cube roots of the first 64 primes */
static const apr_uint32_t sha256_k[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu,
    0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u, 0xd807aa98u, 0x12835b01u,
    0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u,
    0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu,
    0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u,
    0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u,
    0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u,
    0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u, 0x1e376c08u,
    0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu,
    0x682e6ff3u, 0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u,
    0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u
};

/* section 5.3.3: of the square roots of the first eight */
static const apr_uint32_t sha256_start[8] = { 0x6a09e667u, 0xbb67ae85u,
                                              0x3c6ef372u, 0xa54ff53au,
                                              0x510e527fu, 0x9b05688cu,
                                              0x1f83d9abu, 0x5be0cd19u };

static apr_uint32_t word_rotate(apr_uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static apr_uint32_t word_read(const unsigned char *p)
{
    return (apr_uint32_t)p[0] << 24 | (apr_uint32_t)p[1] << 16
           | (apr_uint32_t)p[2] << 8 | p[3];
}

static void word_write(unsigned char *p, apr_uint32_t x)
{
    p[0] = (unsigned char)(x >> 24);
    p[1] = (unsigned char)(x >> 16);
    p[2] = (unsigned char)(x >> 8);
    p[3] = (unsigned char)x;
}

/* section 6.2.2, step 1 */
static void block_schedule(const unsigned char *block, apr_uint32_t w[64])
{
    apr_uint32_t s0, s1;
    int i;

    for (i = 0; i < 16; i++) {
        w[i] = word_read(block + 4 * i);
    }
    for (; i < 64; i++) {
        s0 = word_rotate(w[i - 15], 7) ^ word_rotate(w[i - 15], 18)
             ^ w[i - 15] >> 3;
        s1 = word_rotate(w[i - 2], 17) ^ word_rotate(w[i - 2], 19)
             ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
}

/* steps 2 to 4; v is a to h in turn: what is h in one round is a in the next */
static void block_add(apr_uint32_t state[8], const unsigned char *block)
{
    apr_uint32_t w[64], v[8], t1, t2, e, a;
    int i;

    block_schedule(block, w);
    memcpy(v, state, sizeof(v));
    for (i = 0; i < 64; i++) {
        e = v[4];
        a = v[0];
        t1 = v[7]
             + (word_rotate(e, 6) ^ word_rotate(e, 11) ^ word_rotate(e, 25))
             + ((e & v[5]) ^ (~e & v[6])) + sha256_k[i] + w[i];
        t2 = (word_rotate(a, 2) ^ word_rotate(a, 13) ^ word_rotate(a, 22))
             + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof(*v));
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++) {
        state[i] += v[i];
    }
}

void mw_sha256(const void *data, apr_size_t length,
               unsigned char digest[MW_SHA256_LEN])
{
    const unsigned char *p = data;
    const apr_uint64_t bits = (apr_uint64_t)length * 8;
    unsigned char last[2 * SHA256_BLOCK] = { 0 };
    apr_uint32_t state[8];
    apr_size_t end;
    int i;

    memcpy(state, sha256_start, sizeof(state));
    for (; length >= SHA256_BLOCK; length -= SHA256_BLOCK) {
        block_add(state, p);
        p += SHA256_BLOCK;
    }
    memcpy(last, p, length);
    last[length] = 0x80;
    end = length + 9 <= SHA256_BLOCK ? SHA256_BLOCK : 2 * SHA256_BLOCK;
    word_write(last + end - 8, (apr_uint32_t)(bits >> 32));
    word_write(last + end - 4, (apr_uint32_t)bits);
    block_add(state, last);
    if (end > SHA256_BLOCK) {
        block_add(state, last + SHA256_BLOCK);
    }
    for (i = 0; i < 8; i++) {
        word_write(digest + 4 * i, state[i]);
    }
}
