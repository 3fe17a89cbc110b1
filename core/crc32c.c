/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "core/crc32c.h"
#include "core/wire.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define CRC_HAS_SSE42 1
#include <immintrin.h>
/* compilers that know the functions used below */
#if defined(__clang__) || __GNUC__ >= 9
#define CRC_HAS_FOLDS 1
#endif
#endif

/*
 * The checksum is linear: the entry of a byte is the sum (exclusive or) of the
 * entries of its bits. So each table is written as its eight powers of two.
 */
#define SUM(b, c1, c2, c4, c8, c16, c32, c64, c128)                            \
    (((b)&1 ? c1 : 0) ^ ((b)&2 ? c2 : 0) ^ ((b)&4 ? c4 : 0) ^ ((b)&8 ? c8 : 0) \
     ^ ((b)&16 ? c16 : 0) ^ ((b)&32 ? c32 : 0) ^ ((b)&64 ? c64 : 0)            \
     ^ ((b)&128 ? c128 : 0))
#define SUM4(b, ...)                                  \
    SUM((b), __VA_ARGS__), SUM((b) + 1, __VA_ARGS__), \
        SUM((b) + 2, __VA_ARGS__), SUM((b) + 3, __VA_ARGS__)
#define SUM16(b, ...)                                   \
    SUM4((b), __VA_ARGS__), SUM4((b) + 4, __VA_ARGS__), \
        SUM4((b) + 8, __VA_ARGS__), SUM4((b) + 12, __VA_ARGS__)
#define SUM64(b, ...)                                      \
    SUM16((b), __VA_ARGS__), SUM16((b) + 16, __VA_ARGS__), \
        SUM16((b) + 32, __VA_ARGS__), SUM16((b) + 48, __VA_ARGS__)
#define TABLE(...)                                           \
    {                                                        \
        SUM64(0, __VA_ARGS__), SUM64(64, __VA_ARGS__),       \
            SUM64(128, __VA_ARGS__), SUM64(192, __VA_ARGS__) \
    }

/* tables[n][b]: the checksum register after byte b and n bytes of zero. */
static const apr_uint32_t tables[8][256] = {
    TABLE(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu,
          0x20bd8edeu, 0x417b1dbcu, 0x82f63b78u),
    TABLE(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u,
          0x7f8be302u, 0xff17c604u, 0xfbc3faf9u),
    TABLE(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au,
          0xe144fb14u, 0xc76580d9u, 0x8b277743u),
    TABLE(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du,
          0xd725148bu, 0xaba65fe7u, 0x52a0c93fu),
    TABLE(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u,
          0x1ba8b557u, 0x37516aaeu, 0x6ea2d55cu),
    TABLE(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu,
          0x85f4168du, 0x0e045bebu, 0x1c08b7d6u),
    TABLE(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u,
          0x3d5b83bdu, 0x7ab7077au, 0xf56e0ef4u),
    TABLE(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u,
          0x0d006599u, 0x1a00cb32u, 0x34019664u),
};

static apr_uint32_t byte_add(apr_uint32_t state, unsigned char byte)
{
    return tables[0][(state ^ byte) & 0xff] ^ state >> 8;
}

/* Eight bytes at once, each through the table of its distance to the end. */
static apr_uint32_t eight_add(apr_uint32_t state, const unsigned char *p)
{
    apr_uint32_t low = state ^ mw_wire_get32(p);
    apr_uint32_t high = mw_wire_get32(p + 4);

    return tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff]
           ^ tables[5][low >> 16 & 0xff] ^ tables[4][low >> 24]
           ^ tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff]
           ^ tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
}

#ifdef CRC_HAS_SSE42
/* Bytes of a lane: three go through the processor side by side, for it begins
 * an instruction each cycle and takes three for one. */
#define LANE 1024

/* lanes[n][b]: the register after LANE bytes of zero, of its n-th byte b. */
static const apr_uint32_t lanes[4][256] = {
    TABLE(0xfe314258u, 0xf98ef241u, 0xf6f19273u, 0xe80f5217u, 0xd5f2d2dfu,
          0xae09d34fu, 0x59ffd06fu, 0xb3ffa0deu),
    TABLE(0x6213374du, 0xc4266e9au, 0x8da0abc5u, 0x1ead217bu, 0x3d5a42f6u,
          0x7ab485ecu, 0xf5690bd8u, 0xef3e6141u),
    TABLE(0xdb90b473u, 0xb2cd1e17u, 0x60764adfu, 0xc0ec95beu, 0x84355d8du,
          0x0d86cdebu, 0x1b0d9bd6u, 0x361b37acu),
    TABLE(0x6c366f58u, 0xd86cdeb0u, 0xb535cb91u, 0x6f87e1d3u, 0xdf0fc3a6u,
          0xbbf3f1bdu, 0x720b958bu, 0xe4172b16u),
};

static apr_uint32_t lane_shift(apr_uint64_t state)
{
    return lanes[0][state & 0xff] ^ lanes[1][state >> 8 & 0xff]
           ^ lanes[2][state >> 16 & 0xff] ^ lanes[3][state >> 24 & 0xff];
}

__attribute__((target("sse4.2"))) static apr_uint64_t lanes_add(
    apr_uint64_t state, const unsigned char *p)
{
    apr_uint64_t second = 0, third = 0;
    apr_uint64_t words[3];
    int i;

    for (i = 0; i < LANE; i += 8) {
        memcpy(&words[0], p + i, 8);
        memcpy(&words[1], p + LANE + i, 8);
        memcpy(&words[2], p + 2 * LANE + i, 8);
        state = _mm_crc32_u64(state, words[0]);
        second = _mm_crc32_u64(second, words[1]);
        third = _mm_crc32_u64(third, words[2]);
    }
    return lane_shift(lane_shift(state) ^ second) ^ third;
}

__attribute__((target("sse4.2"))) static apr_uint32_t crc_sse42(
    apr_uint32_t crc, const unsigned char *p, apr_size_t length)
{
    apr_uint64_t state = ~crc;

    for (; length >= 3 * LANE; p += 3 * LANE, length -= 3 * LANE) {
        state = lanes_add(state, p);
    }
    for (; length >= 64; p += 64, length -= 64) {
        apr_uint64_t words[8];

        memcpy(words, p, sizeof(words));
        state = _mm_crc32_u64(state, words[0]);
        state = _mm_crc32_u64(state, words[1]);
        state = _mm_crc32_u64(state, words[2]);
        state = _mm_crc32_u64(state, words[3]);
        state = _mm_crc32_u64(state, words[4]);
        state = _mm_crc32_u64(state, words[5]);
        state = _mm_crc32_u64(state, words[6]);
        state = _mm_crc32_u64(state, words[7]);
    }
    for (; length >= 8; p += 8, length -= 8) {
        apr_uint64_t word;

        memcpy(&word, p, sizeof(word));
        state = _mm_crc32_u64(state, word);
    }
    for (; length; p++, length--) {
        state = _mm_crc32_u8((apr_uint32_t)state, *p);
    }
    return ~(apr_uint32_t)state;
}
#endif

#ifdef CRC_HAS_FOLDS
/* Bytes of a fold: what comes FOLD bytes later is added to what the ones before
 * it come to at that distance, by a product without carry of each half of 16
 * bytes: x^(8 FOLD + 31) and x^(8 FOLD - 33). */
#define FOLD 256
#define FOLD_LOW 0xdcb17aa4
#define FOLD_HIGH 0xb9e02b86

/* What is shorter gains nothing. */
#define FOLD_MIN 1024

#define FOLD_TARGET __attribute__((target("sse4.2,avx512f,vpclmulqdq")))

/* A quarter of it. */
FOLD_TARGET static __m512i quarter_add(__m512i sum, const unsigned char *p)
{
    const __m512i by =
        _mm512_set4_epi64(FOLD_HIGH, FOLD_LOW, FOLD_HIGH, FOLD_LOW);

    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(sum, by, 0x00),
                                     _mm512_clmulepi64_epi128(sum, by, 0x11),
                                     _mm512_loadu_si512(p), 0x96);
}

/* At least FOLD bytes, a multiple of it. Some times as fast as lanes. */
FOLD_TARGET static apr_uint64_t folds_add(apr_uint64_t state,
                                          const unsigned char *p,
                                          apr_size_t length)
{
    apr_uint64_t words[FOLD / 8];
    __m512i sums[4];
    int i;

    memcpy(words, p, FOLD);
    words[0] ^= state;
    memcpy(sums, words, FOLD);
    for (p += FOLD, length -= FOLD; length; p += FOLD, length -= FOLD) {
        sums[0] = quarter_add(sums[0], p);
        sums[1] = quarter_add(sums[1], p + FOLD / 4);
        sums[2] = quarter_add(sums[2], p + FOLD / 2);
        sums[3] = quarter_add(sums[3], p + FOLD / 4 * 3);
    }
    memcpy(words, sums, FOLD);
    for (state = 0, i = 0; i < FOLD / 8; i++) {
        state = _mm_crc32_u64(state, words[i]);
    }
    return state;
}
#endif

apr_uint32_t mw_crc32c_narrow(apr_uint32_t crc, const void *data,
                              apr_size_t length)
{
#ifdef CRC_HAS_SSE42
    if (__builtin_cpu_supports("sse4.2")) {
        return crc_sse42(crc, data, length);
    }
#endif
    return mw_crc32c_portable(crc, data, length);
}

apr_uint32_t mw_crc32c(apr_uint32_t crc, const void *data, apr_size_t length)
{
#ifdef CRC_HAS_FOLDS
    if (length >= FOLD_MIN && __builtin_cpu_supports("avx512f")
        && __builtin_cpu_supports("vpclmulqdq")) {
        apr_size_t folded = length - length % FOLD;

        crc = ~(apr_uint32_t)folds_add(~crc, data, folded);
        data = (const char *)data + folded;
        length -= folded;
    }
#endif
    return mw_crc32c_narrow(crc, data, length);
}

apr_uint32_t mw_crc32c_portable(apr_uint32_t crc, const void *data,
                                apr_size_t length)
{
    const unsigned char *p = data;
    apr_uint32_t state = ~crc;

    for (; length >= 8; p += 8, length -= 8) {
        state = eight_add(state, p);
    }
    for (; length; p++, length--) {
        state = byte_add(state, *p);
    }
    return ~state;
}
