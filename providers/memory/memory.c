/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "blocks.h"
#include "layout.h"
#include "machine.h"
#include "memory.h"
#include "read.h"
#include "set.h"
#include "shard.h"
#include "slots.h"
#include "sweep.h"

/** Bytes for each entry that the default of max_entries allows for. */
#define MEMORY_ENTRY_MIN 512

enum {
    OPTION_SIZE,
    OPTION_MAX_ENTRIES,
    OPTION_MAX_SIZE,
    OPTION_SHARDS,
    OPTION_PREFAULT
};

static const cachemw_option_t memory_options[] = {
    [OPTION_SIZE] = { .name = "size",
                      .type = CACHEMW_SIZE,
                      .fallback = "64M",
                      .minimum = "1M",
                      .maximum = "1024G",
                      .help = "Shared memory for everything in the store." },
    [OPTION_MAX_ENTRIES] = { .name = "max_entries",
                             .type = CACHEMW_INTEGER,
                             .minimum = "1",
                             .maximum = "4294967295",
                             .help =
                                 "Most entries held at once; by default one for each 512 bytes "
                                 "of size." },
    [OPTION_MAX_SIZE] = { .name = "max_size", .alias = "max_entries" },
    [OPTION_SHARDS] = { .name = "shards",
                        .type = CACHEMW_INTEGER,
                        .minimum = "1",
                        .maximum = "256",
                        .help =
                            "Parts of the index with a lock each, a power of two; by "
                            "default 4 to 64, by size." },
    [OPTION_PREFAULT] = { .name = "prefault",
                          .type = CACHEMW_FLAG,
                          .fallback = "off",
                          .help =
                              "Touch all of the memory at start-up instead of as it fills." },
    { .name = NULL },
};

static apr_status_t memory_open(const cachemw_services_t *services,
                                const cachemw_value_t *values,
                                apr_pool_t *pconf, void **store,
                                const char **error)
{
    mw_mem_t *mem = apr_pcalloc(pconf, sizeof(*mem));
    const cachemw_value_t *max_entries = &values[OPTION_MAX_ENTRIES];
    const cachemw_value_t *shards = &values[OPTION_SHARDS];
    apr_uint64_t size = (apr_uint64_t)values[OPTION_SIZE].number;
    apr_uint32_t n = shards->is_null ? 0 : (apr_uint32_t)shards->number;

    if (n & (n - 1)) {
        *error = apr_psprintf(pconf,
                              "shards=%u: a power of two from 1 to 256 is "
                              "expected",
                              n);
        return APR_EINVAL;
    }
    if (size > APR_SIZE_MAX / 2) {
        *error = "size: more than this machine can address";
        return APR_EINVAL;
    }
    mem->services = services;
    mem->prefault = values[OPTION_PREFAULT].number != 0;
    mem->max_entries = max_entries->is_null ? size / MEMORY_ENTRY_MIN
                                            : (apr_uint64_t)max_entries->number;
    mw_mem_plan(&mem->geometry, size, n);
    *store = mem;
    return APR_SUCCESS;
}

/** The children's first writes would otherwise pay for each page. */
static void memory_prefault(const mw_mem_t *mem)
{
    char *page = (char *)mem->header;
    char *end = page + mem->geometry.size;

    for (; page < end; page += 4096) {
        __atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
    }
}

/** The value of size, and what there is of it. */
typedef struct amount_t {
    char asked[24];
    char there[24];
    const char *what;
    int is_enough;
} amount_t;

static void amount_find(const mw_mem_t *mem, amount_t *amount)
{
    mw_machine_t machine;

    mw_machine_memory(&machine, "");
    mw_machine_size(amount->asked, mem->geometry.size);
    mw_machine_size(amount->there, machine.bytes);
    amount->what = machine.what;
    amount->is_enough = mem->geometry.size <= machine.bytes;
}

/** @param is_new see cachemw_services_t::segment */
static apr_status_t memory_allocate(const mw_mem_t *mem, void **base,
                                    int *is_new)
{
    const cachemw_services_t *services = mem->services;
    amount_t amount;
    apr_status_t rv;

    amount_find(mem, &amount);
    rv = services->segment(services, (apr_size_t)mem->geometry.size,
                           mw_mem_layout(&mem->geometry), base, is_new);
    if (rv != APR_SUCCESS) {
        services->log(services, CACHEMW_LOG_ERR, rv,
                      "open: size=%s: the system does not give so much shared "
                      "memory; %s %s: a size from 1M to less than that is "
                      "expected",
                      amount.asked, amount.what, amount.there);
    }
    else if (!amount.is_enough) {
        services->log(
            services, CACHEMW_LOG_WARNING, APR_SUCCESS,
            "open: size=%s is more than there is: %s %s. When so much "
            "is in use, the system ends processes: a size well below "
            "that is expected",
            amount.asked, amount.what, amount.there);
    }
    return rv;
}

static apr_status_t memory_post_config(void *store, apr_pool_t *pconf,
                                       apr_uid_t uid, apr_gid_t gid)
{
    mw_mem_t *mem = store;
    const cachemw_services_t *services = mem->services;
    apr_status_t rv;
    void *base;
    int is_new;

    (void)pconf;
    (void)uid;
    (void)gid;
    rv = memory_allocate(mem, &base, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_mem_map(mem, base);
    if (!is_new && !mw_mem_is_valid(mem)) {
        services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                      "open: the segment is not in the expected state, "
                      "starting with an empty one");
        is_new = 1;
        rv = mw_mem_format(mem, 0);
    }
    else if (is_new) {
        rv = mw_mem_format(mem, 1);
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    MW_MEM_STORE(&mem->header->max_entries, mem->max_entries);
    if (is_new && mem->prefault) {
        memory_prefault(mem);
    }
    services->log(services, CACHEMW_LOG_INFO, APR_SUCCESS,
                  "open: %s segment of %" APR_UINT64_T_FMT " bytes, %u shards",
                  is_new ? "new" : "kept", mem->geometry.size,
                  mem->geometry.shards);
    return APR_SUCCESS;
}

static apr_status_t memory_child_init(void *store, apr_pool_t *pchild)
{
    mw_mem_t *mem = store;
    apr_status_t rv = mw_slot_take(mem, pchild);

    if (rv == APR_SUCCESS && !MW_MEM_LOAD(&mem->owner)) {
        mem->services->log(mem->services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                           "open: more than %u children: this one does not "
                           "store",
                           mem->geometry.slots);
    }
    return rv;
}

static apr_status_t memory_remove(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id)
{
    mw_mem_t *mem = store;
    apr_uint64_t hash = mw_mem_hash(mem, key);
    apr_uint32_t shard = mw_mem_shard_of(mem, hash);
    apr_status_t rv = APR_SUCCESS;
    apr_uint32_t unit;

    if (!mw_shard_lock(mem, shard)) {
        return APR_TIMEUP;
    }
    unit = mw_shard_find(mem, hash, key);
    if (unit && id && mw_mem_entry(mem, unit)->expires > call->now
        && memcmp(&mw_mem_entry(mem, unit)->id, id, sizeof(*id))) {
        rv = APR_NOTFOUND;
    }
    else if (unit) {
        mw_shard_drop(mem, unit);
    }
    mw_shard_unlock(mem, shard);
    return rv;
}

static apr_status_t memory_stats(void *store, const cachemw_call_t *call,
                                 cachemw_stats_t *stats)
{
    mw_mem_t *mem = store;
    mw_mem_tally_t sum;

    (void)call;
    mw_shard_sum(mem, &sum);
    stats->entries = (apr_int64_t)sum.entries;
    stats->entries_max = (apr_int64_t)MW_MEM_LOAD(&mem->header->max_entries);
    stats->bytes = (apr_int64_t)sum.bytes;
    stats->bytes_max = (apr_int64_t)mem->geometry.size;
    if (stats->extra) {
        const mw_mem_header_t *header = mem->header;
        apr_uint64_t free = mw_blocks_free(mem) * mem->unit_size;

        stats->extra(stats->baton, "shards", mem->geometry.shards);
        stats->extra(stats->baton, "free_bytes", (apr_int64_t)free);
        stats->extra(stats->baton, "pinned_bytes", (apr_int64_t)sum.pinned);
        stats->extra(stats->baton, "recovered",
                     (apr_int64_t)MW_MEM_LOAD(&header->recovered));
        stats->extra(stats->baton, "dead_children",
                     (apr_int64_t)MW_MEM_LOAD(&header->deaths));
        stats->extra(stats->baton, "collected_bytes",
                     (apr_int64_t)(MW_MEM_LOAD(&header->collection.freed)
                                   * mem->unit_size));
    }
    return APR_SUCCESS;
}

static apr_off_t memory_object_limit(void *store)
{
    return mw_mem_set_limit(store);
}

const cachemw_provider_t mw_memory_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_IN_MEMORY,
    .options = memory_options,
    .open = memory_open,
    .get = mw_mem_get,
    .remove = memory_remove,
    .post_config = memory_post_config,
    .child_init = memory_child_init,
    .set_head = mw_mem_set_head,
    .set_begin = mw_mem_set_begin,
    .set_write = mw_mem_set_write,
    .set_commit = mw_mem_set_commit,
    .set_abort = mw_mem_set_abort,
    .exists = mw_mem_exists,
    .clear = mw_mem_clear,
    .keys = mw_mem_keys,
    .sweep = mw_mem_sweep,
    .stats = memory_stats,
    .object_limit = memory_object_limit,
};
