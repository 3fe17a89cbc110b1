/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_siphash.h"
#include "apr_strings.h"

#include "index_layout.h"

#define SEGMENT_ALIGN 128u
#define SEGMENT_MIN (128 << 10)

/** What an entry takes at most, with its share of all parts. */
#define SEGMENT_EACH 64

typedef enum segment_part_e {
    PART_HEADER,
    PART_SHARDS,
    PART_SLOTS,
    PART_RESERVED,
    PART_BUCKETS,
    PART_GHOSTS,
    PART_DUE,
    PART_RECORDS,
    PARTS
} segment_part_e;

/** @return bytes of all parts */
static apr_uint64_t segment_place(const mw_index_geometry_t *g,
                                  apr_uint64_t offset[PARTS])
{
    apr_uint64_t records = (apr_uint64_t)g->shards * g->records_each;
    apr_uint64_t buckets = (apr_uint64_t)g->shards * g->buckets_each;
    apr_uint64_t size[PARTS] = {
        [PART_HEADER] = sizeof(mw_index_header_t),
        [PART_SHARDS] = g->shards * sizeof(mw_index_shard_t),
        [PART_SLOTS] = g->slots * sizeof(mw_slot_t),
        [PART_RESERVED] = g->slots * sizeof(apr_uint64_t),
        [PART_BUCKETS] = buckets * sizeof(apr_uint32_t),
        [PART_GHOSTS] = buckets * sizeof(apr_uint32_t),
        [PART_DUE] = records / MW_INDEX_CHUNK * sizeof(apr_uint32_t),
        [PART_RECORDS] = records * sizeof(mw_index_record_t),
    };
    apr_uint64_t at = 0;
    int i;

    for (i = 0; i < PARTS; i++) {
        offset[i] = at;
        at += size[i] + SEGMENT_ALIGN - 1;
        at -= at % SEGMENT_ALIGN;
    }
    return at;
}

static apr_uint32_t power_of_two_within(apr_uint64_t n)
{
    apr_uint32_t p = 1;

    while (p <= n / 2) {
        p *= 2;
    }
    return p;
}

/**
 * Shards of less than some hundred entries would evict what is not the oldest
 * by far, so few entries have few shards.
 */
static void segment_plan(mw_index_geometry_t *g,
                         const mw_index_config_t *config)
{
    apr_uint64_t most = config->memory / sizeof(mw_index_record_t);
    apr_uint64_t each;
    apr_uint64_t offset[PARTS];

    memset(g, 0, sizeof(*g));
    g->memory = config->memory;
    g->salt = config->salt;
    g->dirs = 1u << 8 * config->dir_levels;
    g->slots = power_of_two_within(config->memory >> 14);
    g->slots = g->slots < 64 ? 64 : g->slots > 1024 ? 1024 : g->slots;
    if (config->max_entries && most > config->max_entries) {
        most = config->max_entries;
    }
    if (most > config->max_bytes / MW_INDEX_BLOCK) {
        most = config->max_bytes / MW_INDEX_BLOCK;
    }
    g->shards = power_of_two_within(most / 512);
    if (g->shards > MW_INDEX_SHARDS_MAX) {
        g->shards = MW_INDEX_SHARDS_MAX;
    }
    each = config->memory / sizeof(mw_index_record_t) / g->shards;
    if (each > MW_INDEX_EACH_MAX) {
        each = MW_INDEX_EACH_MAX;
    }
    do {
        each -= each % MW_INDEX_CHUNK ? each % MW_INDEX_CHUNK : MW_INDEX_CHUNK;
        g->records_each = (apr_uint32_t)each;
        g->buckets_each = power_of_two_within(each);
    } while (each > MW_INDEX_CHUNK
             && segment_place(g, offset) > config->memory);
}

/** Shards are not filled alike, so a few records must be left over. */
static apr_uint64_t entries_max(const mw_index_geometry_t *g)
{
    return (apr_uint64_t)g->shards * g->records_each / 16 * 15;
}

apr_status_t mw_index_create(mw_index_t **made,
                             const cachemw_services_t *services,
                             const mw_index_config_t *config,
                             const mw_index_files_t *files, void *baton,
                             apr_pool_t *pool, const char **error)
{
    mw_index_t *index = apr_pcalloc(pool, sizeof(*index));

    if (config->memory < SEGMENT_MIN) {
        *error = "the index needs 128K of memory or more";
        return APR_EINVAL;
    }
    if (config->max_bytes > MW_INDEX_BYTES_MAX) {
        *error = "the files may take 128T at most";
        return APR_EINVAL;
    }
    segment_plan(&index->geometry, config);
    index->services = services;
    index->files = files;
    index->baton = baton;
    index->max_blocks = config->max_bytes / MW_INDEX_BLOCK;
    index->max_entries = entries_max(&index->geometry);
    if (config->max_entries > index->max_entries) {
        *error = apr_psprintf(
            pool,
            "max_entries=%" APR_UINT64_T_FMT ": index_size=%" APR_UINT64_T_FMT
            "K has room for %" APR_UINT64_T_FMT
            " entries; for so many it has to be %" APR_UINT64_T_FMT "M",
            config->max_entries, config->memory >> 10, index->max_entries,
            (config->max_entries / 15 * 16 * SEGMENT_EACH >> 20) + 1);
        return APR_EINVAL;
    }
    if (config->max_entries) {
        index->max_entries = config->max_entries;
    }
    *made = index;
    return APR_SUCCESS;
}

static apr_uint64_t segment_layout(const mw_index_geometry_t *geometry)
{
    static const unsigned char key[APR_SIPHASH_KSIZE] = "layout of index";
    apr_uint64_t facts[] = {
        MW_INDEX_MAGIC,
        MW_INDEX_LAYOUT,
        sizeof(mw_index_header_t),
        sizeof(mw_index_shard_t),
        sizeof(mw_slot_t),
        sizeof(mw_index_record_t),
        sizeof(pthread_mutex_t),
        apr_siphash24(geometry, sizeof(*geometry), key),
#ifdef MW_VERSION
        apr_siphash24(MW_VERSION, sizeof(MW_VERSION), key),
#endif
    };

    return apr_siphash24(facts, sizeof(facts), key);
}

static void segment_map(mw_index_t *index, void *base)
{
    apr_uint64_t offset[PARTS];
    char *start = base;

    segment_place(&index->geometry, offset);
    index->header = base;
    index->shards = (mw_index_shard_t *)(start + offset[PART_SHARDS]);
    index->slots = (mw_slot_t *)(start + offset[PART_SLOTS]);
    index->reserved = (apr_uint64_t *)(start + offset[PART_RESERVED]);
    index->buckets = (apr_uint32_t *)(start + offset[PART_BUCKETS]);
    index->ghosts = (apr_uint32_t *)(start + offset[PART_GHOSTS]);
    index->due = (apr_uint32_t *)(start + offset[PART_DUE]);
    index->records = (mw_index_record_t *)(start + offset[PART_RECORDS]);
}

static apr_status_t segment_init_locks(mw_index_t *index)
{
    apr_status_t rv = mw_lock_init(&index->header->scan.lock);
    apr_uint32_t i;

    for (i = 0; rv == APR_SUCCESS && i < index->geometry.shards; i++) {
        rv = mw_lock_init(&index->shards[i].lock);
    }
    for (i = 0; rv == APR_SUCCESS && i < index->geometry.slots; i++) {
        rv = mw_lock_init(&index->slots[i].alive);
    }
    return rv;
}

/** What a scan may find: all that there was room for, when nobody knows. */
static apr_uint64_t unfound_at_most(const mw_index_t *index,
                                    apr_int64_t expected)
{
    apr_uint64_t blocks = mw_index_blocks((apr_uint64_t)expected);
    apr_uint64_t entries = index->max_entries;

    if (!expected) {
        return 0;
    }
    if (expected < 0 || blocks > index->max_blocks) {
        blocks = index->max_blocks;
    }
    if (entries > blocks) {
        entries = blocks;
    }
    return entries * MW_INDEX_ENTRY + blocks;
}

static apr_status_t segment_format(mw_index_t *index, apr_int64_t expected)
{
    mw_index_header_t *header = index->header;
    apr_uint64_t offset[PARTS];
    apr_status_t rv;

    segment_place(&index->geometry, offset);
    memset(header, 0, (apr_size_t)offset[PART_RECORDS]);
    header->geometry = index->geometry;
    header->layout = segment_layout(&index->geometry);
    header->scan.unfound = unfound_at_most(index, expected);
    header->scan.is_active = 1;
    header->scan.has_temps = 1;
    rv = index->services->random(index->services, &header->session,
                                 sizeof(header->session));
    if (rv == APR_SUCCESS) {
        rv = segment_init_locks(index);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    header->magic = MW_INDEX_MAGIC;
    MW_INDEX_STORE(&header->ready, 1);
    return APR_SUCCESS;
}

static int segment_is_valid(const mw_index_t *index)
{
    const mw_index_header_t *header = index->header;

    return header->magic == MW_INDEX_MAGIC
           && header->layout == segment_layout(&index->geometry)
           && !memcmp(&header->geometry, &index->geometry,
                      sizeof(index->geometry))
           && MW_INDEX_LOAD(&header->ready);
}

apr_status_t mw_index_post_config(mw_index_t *index, apr_int64_t expected,
                                  int *is_new)
{
    const cachemw_services_t *services = index->services;
    void *base;
    apr_status_t rv =
        services->segment(services, (apr_size_t)index->geometry.memory,
                          segment_layout(&index->geometry), &base, is_new);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    segment_map(index, base);
    if (!*is_new && !segment_is_valid(index)) {
        *is_new = 1;
    }
    if (*is_new) {
        rv = segment_format(index, expected);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    MW_INDEX_STORE(&index->header->max_blocks, index->max_blocks);
    MW_INDEX_STORE(&index->header->max_entries, index->max_entries);
    return APR_SUCCESS;
}

void *mw_index_shared(mw_index_t *index)
{
    return index->header->shared;
}

void mw_index_prefix(const mw_index_t *index, char prefix[MW_INDEX_TEMP_NAME])
{
    apr_snprintf(prefix, MW_INDEX_TEMP_NAME, "%016" APR_UINT64_T_HEX_FMT "-",
                 index->header->session);
}

static void prefix_print(const mw_index_t *index, char *to, apr_uint32_t slot)
{
    apr_size_t len;

    mw_index_prefix(index, to);
    len = strlen(to);
    apr_snprintf(to + len, MW_INDEX_TEMP_NAME - len, "%u-", slot);
}

static int slot_is_busy(void *baton, apr_uint32_t slot)
{
    mw_index_t *index = baton;

    return MW_INDEX_LOAD(&index->reserved[slot]) != 0;
}

/** What it wrote is gone first, and stops to count then. */
static int slot_bury(void *baton, apr_uint32_t slot)
{
    mw_index_t *index = baton;
    char prefix[MW_INDEX_TEMP_NAME];

    prefix_print(index, prefix, slot);
    if (index->files->unlink_temps(index->baton, prefix, 0) != APR_SUCCESS) {
        return 0;
    }
    __atomic_store_n(&index->reserved[slot], 0, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&index->header->deaths, 1, __ATOMIC_RELAXED);
    return 1;
}

mw_slots_t mw_index_slots(mw_index_t *index)
{
    mw_slots_t slots = { .slots = index->slots,
                         .count = index->geometry.slots,
                         .used = &index->header->slots_used,
                         .owner = &index->owner,
                         .is_busy = slot_is_busy,
                         .bury = slot_bury,
                         .baton = index };

    return slots;
}

void mw_index_temp_name(mw_index_t *index, char name[MW_INDEX_TEMP_NAME])
{
    apr_uint64_t number =
        __atomic_fetch_add(&index->header->temps, 1, __ATOMIC_RELAXED);
    apr_size_t len;

    prefix_print(index, name, MW_INDEX_LOAD(&index->owner) - 1);
    len = strlen(name);
    apr_snprintf(name + len, MW_INDEX_TEMP_NAME - len, "%" APR_UINT64_T_FMT,
                 number);
}

apr_status_t mw_index_child_init(mw_index_t *index, apr_pool_t *pchild)
{
    mw_slots_t slots = mw_index_slots(index);

    apr_pool_cleanup_register(pchild, index, mw_index_scan_leave,
                              apr_pool_cleanup_null);
    return mw_slots_take(&slots, pchild);
}
