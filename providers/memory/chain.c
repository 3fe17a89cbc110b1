/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "chain.h"

mw_place_t mw_chain_key(apr_uint32_t entry)
{
    mw_place_t place = { entry, sizeof(mw_mem_entry_t) };

    return place;
}

mw_place_t mw_chain_start(apr_uint32_t first)
{
    mw_place_t place = { first, sizeof(mw_mem_run_t) };

    return place;
}

/** Bytes of a run that lies in the segment; 0: it does not. */
static apr_uint32_t run_size(const mw_mem_t *mem, apr_uint32_t unit)
{
    apr_uint32_t count;

    if (!unit || unit >= mem->geometry.units) {
        return 0;
    }
    count = MW_MEM_LOAD(&mw_mem_run(mem, unit)->count);
    if (count > MW_MEM_RUN_MAX || count > mem->geometry.units - unit) {
        return 0;
    }
    return count << mem->geometry.unit_shift;
}

char *mw_chain_piece(const mw_mem_t *mem, mw_place_t *place, apr_size_t *length)
{
    apr_uint32_t size = run_size(mem, place->run);
    apr_uint32_t left;
    char *piece;

    if (size && place->at == size) {
        place->run = __atomic_load_n(&mw_mem_run(mem, place->run)->next,
                                     __ATOMIC_ACQUIRE);
        place->at = sizeof(mw_mem_run_t);
        size = run_size(mem, place->run);
    }
    if (place->at >= size) {
        return NULL;
    }
    left = size - place->at;
    if (*length > left) {
        *length = left;
    }
    piece = mw_mem_unit(mem, place->run) + place->at;
    place->at += (apr_uint32_t)*length;
    return piece;
}

int mw_chain_read(const mw_mem_t *mem, mw_place_t *place, char *to,
                  apr_size_t length)
{
    while (length) {
        apr_size_t n = length;
        const char *piece = mw_chain_piece(mem, place, &n);

        if (!piece) {
            return 0;
        }
        memcpy(to, piece, n);
        to += n;
        length -= n;
    }
    return 1;
}

int mw_chain_skip(const mw_mem_t *mem, mw_place_t *place, apr_size_t length)
{
    while (length) {
        apr_size_t n = length;

        if (!mw_chain_piece(mem, place, &n)) {
            return 0;
        }
        length -= n;
    }
    return 1;
}

int mw_chain_write(const mw_mem_t *mem, mw_place_t *place, const char *from,
                   apr_size_t length)
{
    while (length) {
        apr_size_t n = length;
        char *piece = mw_chain_piece(mem, place, &n);

        if (!piece) {
            return 0;
        }
        memcpy(piece, from, n);
        from += n;
        length -= n;
    }
    return 1;
}

int mw_chain_has_key(const mw_mem_t *mem, apr_uint32_t entry,
                     const cachemw_key_t *key)
{
    mw_place_t place = mw_chain_key(entry);
    const char *with = key->data;
    apr_size_t left = key->len;

    while (left) {
        apr_size_t n = left;
        const char *piece = mw_chain_piece(mem, &place, &n);

        if (!piece || memcmp(piece, with, n)) {
            return 0;
        }
        with += n;
        left -= n;
    }
    return 1;
}
