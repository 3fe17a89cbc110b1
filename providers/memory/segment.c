/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "blocks.h"
#include "layout.h"
#include "providers/common/lock.h"

#define SEGMENT_ALIGN 128u

typedef enum segment_part_e {
    PART_HEADER,
    PART_SHARDS,
    PART_TALLIES,
    PART_AREAS,
    PART_SLOTS,
    PART_SETS,
    PART_PINS,
    PART_BUCKETS,
    PART_URGENCY,
    PART_GHOSTS,
    PART_USES,
    PART_TAKEN,
    PART_MARKS,
    PART_FULL,
    PART_TOUCHED,
    PART_UNITS,
    PARTS
} segment_part_e;

static apr_uint64_t at_least(apr_uint64_t n, apr_uint64_t minimum)
{
    return n < minimum ? minimum : n;
}

static apr_uint64_t at_most(apr_uint64_t n, apr_uint64_t maximum)
{
    return n > maximum ? maximum : n;
}

static apr_uint32_t power_of_two(apr_uint64_t n)
{
    apr_uint32_t p = 1;

    while (p < n) {
        p <<= 1;
    }
    return p;
}

static apr_uint32_t chunk_size(const mw_mem_geometry_t *g)
{
    return (apr_uint32_t)at_most(g->buckets / g->shards, MW_MEM_CHUNK);
}

/** Offsets of all parts; that of PART_UNITS is what the others need. */
static void segment_place(const mw_mem_geometry_t *g,
                          apr_uint64_t offset[PARTS])
{
    apr_uint64_t words = ((apr_uint64_t)g->units + 63) / 64;
    apr_uint64_t size[PARTS] = {
        [PART_HEADER] = sizeof(mw_mem_header_t),
        [PART_SHARDS] = g->shards * sizeof(mw_mem_shard_t),
        [PART_TALLIES] = g->shards * sizeof(mw_mem_tally_t),
        [PART_AREAS] = g->areas * sizeof(mw_mem_area_t),
        [PART_SLOTS] = g->slots * sizeof(mw_slot_t),
        [PART_SETS] = g->sets * sizeof(mw_mem_claim_t),
        [PART_PINS] = g->pins * sizeof(mw_mem_claim_t),
        [PART_BUCKETS] = (apr_uint64_t)g->buckets * sizeof(apr_uint32_t),
        [PART_URGENCY] =
            (apr_uint64_t)g->buckets / chunk_size(g) * sizeof(apr_uint64_t),
        [PART_GHOSTS] = (apr_uint64_t)g->ghosts * sizeof(apr_uint32_t),
        [PART_USES] = words * 16,
        [PART_TAKEN] = words * 8,
        [PART_MARKS] = words * 8,
        [PART_FULL] = (words + 63) / 64 * 8,
        [PART_TOUCHED] = (words + 63) / 64 * 8,
    };
    apr_uint64_t at = 0;
    int i;

    for (i = 0; i < PARTS; i++) {
        offset[i] = at;
        at += size[i] + SEGMENT_ALIGN - 1;
        at -= at % SEGMENT_ALIGN;
    }
}

void mw_mem_plan(mw_mem_geometry_t *g, apr_uint64_t size, apr_uint32_t shards)
{
    apr_uint64_t offset[PARTS];
    apr_uint64_t units;

    memset(g, 0, sizeof(*g));
    g->size = size;
    g->unit_shift = size > APR_UINT64_C(1) << 37 ? 8 : 6;
    if (!shards) {
        shards = power_of_two(at_least(at_most(size >> 22, 64), 4));
    }
    g->shards = shards;
    g->buckets = power_of_two(
        at_least(at_most(size >> 10, APR_UINT64_C(1) << 28), shards * 16));
    g->ghosts = g->buckets;
    g->slots = (apr_uint32_t)at_least(at_most(size >> 16, 1024), 64);
    g->sets = 2 * g->slots;
    g->pins = (apr_uint32_t)at_least(at_most(size >> 15, 65536), 64);
    units = at_most(size >> g->unit_shift, APR_UINT64_C(0xffffffc0));
    g->area_shift = 12;
    while (units >> g->area_shift >= 32) {
        g->area_shift++;
    }
    g->areas = (apr_uint32_t)(units >> g->area_shift) + 1;
    g->units = (apr_uint32_t)units;
    segment_place(g, offset);
    units -= (offset[PART_UNITS] >> g->unit_shift) + 1;
    g->units = (apr_uint32_t)units;
    g->areas = (apr_uint32_t)((units - 1) >> g->area_shift) + 1;
}

apr_uint64_t mw_mem_layout(const mw_mem_geometry_t *geometry)
{
    static const unsigned char key[APR_SIPHASH_KSIZE] = "memory's layout";
    apr_uint64_t facts[] = {
        MW_MEM_MAGIC,
        MW_MEM_LAYOUT,
        sizeof(mw_mem_header_t),
        sizeof(mw_mem_shard_t),
        sizeof(mw_mem_tally_t),
        sizeof(mw_mem_area_t),
        sizeof(mw_slot_t),
        sizeof(mw_mem_entry_t),
        sizeof(pthread_mutex_t),
        apr_siphash24(geometry, sizeof(*geometry), key),
#ifdef MW_VERSION
        apr_siphash24(MW_VERSION, sizeof(MW_VERSION), key),
#endif
    };

    return apr_siphash24(facts, sizeof(facts), key);
}

static apr_uint32_t log_of(apr_uint32_t power)
{
    apr_uint32_t n = 0;

    while (power >>= 1) {
        n++;
    }
    return n;
}

void mw_mem_map(mw_mem_t *mem, void *base)
{
    const mw_mem_geometry_t *g = &mem->geometry;
    apr_uint64_t offset[PARTS];
    char *start = base;

    segment_place(g, offset);
    mem->unit_size = 1u << g->unit_shift;
    mem->shard_shift = 32 - log_of(g->shards);
    mem->buckets_each = g->buckets / g->shards;
    mem->bucket_mask = mem->buckets_each - 1;
    mem->chunk = chunk_size(g);
    mem->ghost_mask = g->ghosts / g->shards - 1;
    mem->header = base;
    mem->shards = (mw_mem_shard_t *)(start + offset[PART_SHARDS]);
    mem->tallies = (mw_mem_tally_t *)(start + offset[PART_TALLIES]);
    mem->areas = (mw_mem_area_t *)(start + offset[PART_AREAS]);
    mem->slots = (mw_slot_t *)(start + offset[PART_SLOTS]);
    mem->sets = (mw_mem_claim_t *)(start + offset[PART_SETS]);
    mem->pins = (mw_mem_claim_t *)(start + offset[PART_PINS]);
    mem->buckets = (apr_uint32_t *)(start + offset[PART_BUCKETS]);
    mem->urgency = (apr_uint64_t *)(start + offset[PART_URGENCY]);
    mem->ghosts = (apr_uint32_t *)(start + offset[PART_GHOSTS]);
    mem->uses = (unsigned char *)(start + offset[PART_USES]);
    mem->taken = (apr_uint64_t *)(start + offset[PART_TAKEN]);
    mem->marks = (apr_uint64_t *)(start + offset[PART_MARKS]);
    mem->full = (apr_uint64_t *)(start + offset[PART_FULL]);
    mem->touched = (apr_uint64_t *)(start + offset[PART_TOUCHED]);
    mem->units = start + offset[PART_UNITS];
}

int mw_mem_is_valid(const mw_mem_t *mem)
{
    const mw_mem_header_t *header = mem->header;

    return header->magic == MW_MEM_MAGIC
           && header->layout == mw_mem_layout(&mem->geometry)
           && !memcmp(&header->geometry, &mem->geometry, sizeof(mem->geometry))
           && __atomic_load_n(&header->ready, __ATOMIC_ACQUIRE);
}

static apr_status_t segment_init_locks(mw_mem_t *mem)
{
    const mw_mem_geometry_t *g = &mem->geometry;
    apr_status_t rv = mw_lock_init(&mem->header->collection.lock);
    apr_uint32_t i;

    for (i = 0; rv == APR_SUCCESS && i < g->shards; i++) {
        rv = mw_lock_init(&mem->shards[i].lock);
    }
    for (i = 0; rv == APR_SUCCESS && i < g->areas; i++) {
        rv = mw_lock_init(&mem->areas[i].lock);
    }
    for (i = 0; rv == APR_SUCCESS && i < g->slots; i++) {
        rv = mw_lock_init(&mem->slots[i].alive);
    }
    return rv;
}

apr_status_t mw_mem_format(mw_mem_t *mem, int is_zero)
{
    mw_mem_header_t *header = mem->header;
    const cachemw_services_t *services = mem->services;
    apr_status_t rv;

    if (!is_zero) {
        memset(header, 0, (apr_size_t)(mem->units - (char *)header));
    }
    header->geometry = mem->geometry;
    header->layout = mw_mem_layout(&mem->geometry);
    rv = services->random(services, header->secret, sizeof(header->secret));
    if (rv == APR_SUCCESS) {
        rv =
            services->random(services, &header->serial, sizeof(header->serial));
    }
    if (rv == APR_SUCCESS) {
        rv = segment_init_locks(mem);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_blocks_format(mem);
    header->magic = MW_MEM_MAGIC;
    __atomic_store_n(&header->ready, 1, __ATOMIC_RELEASE);
    return APR_SUCCESS;
}

void mw_mem_want_collection(mw_mem_t *mem)
{
    MW_MEM_ADD(&mem->header->collection.wanted, 1);
}

void mw_mem_count_recovery(mw_mem_t *mem)
{
    MW_MEM_ADD(&mem->header->recovered, 1);
    mem->services->count(mem->services, CACHEMW_COUNT_RECOVERED, 1);
}
