/* SPDX-License-Identifier: Apache-2.0 */

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "apr_general.h"

#include "index_depot.h"

static apr_uint64_t mixed(apr_uint64_t x)
{
    x = (x ^ x >> 30) * APR_UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * APR_UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/** The number is in the first bytes, so that directories can be listed. */
mw_digest_t digest_of(const depot_t *w, apr_uint32_t number)
{
    apr_uint64_t other = mixed(number);
    mw_digest_t digest;
    int i;

    (void)w;
    for (i = 0; i < 4; i++) {
        digest.bytes[i] = (unsigned char)(number >> 8 * i);
        digest.bytes[4 + i] = (unsigned char)(other >> 8 * i);
    }
    memcpy(digest.bytes + 8, &other, 8);
    return digest;
}

static apr_uint32_t number_of(const mw_digest_t *digest)
{
    return digest->bytes[0] | (apr_uint32_t)digest->bytes[1] << 8
           | (apr_uint32_t)digest->bytes[2] << 16
           | (apr_uint32_t)digest->bytes[3] << 24;
}

static apr_uint64_t file_read(const disk_t *disk, apr_uint32_t number)
{
    return __atomic_load_n(&disk->files[number], __ATOMIC_SEQ_CST);
}

static void file_write(disk_t *disk, apr_uint32_t number, apr_uint64_t blocks,
                       apr_time_t expires)
{
    apr_uint64_t file =
        blocks ? (apr_uint64_t)apr_time_sec(expires) << 32 | blocks : 0;

    __atomic_store_n(&disk->files[number], file, __ATOMIC_SEQ_CST);
}

static void facts_fill(mw_index_facts_t *facts, apr_uint64_t file)
{
    facts->exists = file != 0;
    facts->size = (file & 0xffffffff) * BLOCK;
    facts->expires = apr_time_from_sec((apr_time_t)(file >> 32));
}

/** Before and after whatever changes the disk or looks at it. */
static void disk_step(disk_t *disk)
{
    if (disk->dies_at && --disk->dies_at == 0) {
        raise(SIGKILL);
    }
}

static apr_status_t disk_probe(void *baton, const mw_digest_t *digest,
                               mw_index_facts_t *facts)
{
    disk_t *disk = ((depot_t *)baton)->disk;

    disk_step(disk);
    __atomic_fetch_add(&disk->probes, 1, __ATOMIC_RELAXED);
    facts_fill(facts, file_read(disk, number_of(digest)));
    return disk->probe_fails;
}

static apr_status_t disk_unlink(void *baton, const mw_digest_t *digest)
{
    disk_t *disk = ((depot_t *)baton)->disk;

    if (disk->unlink_fails) {
        return disk->unlink_fails;
    }
    disk_step(disk);
    __atomic_fetch_add(&disk->unlinks, 1, __ATOMIC_RELAXED);
    file_write(disk, number_of(digest), 0, 0);
    disk_step(disk);
    return APR_SUCCESS;
}

static void temp_end(temp_t *temp)
{
    __atomic_store_n(&temp->blocks, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&temp->is_used, 0, __ATOMIC_SEQ_CST);
}

static apr_status_t disk_unlink_temps(void *baton, const char *prefix,
                                      int others)
{
    disk_t *disk = ((depot_t *)baton)->disk;
    int i;

    for (i = 0; i < TEMPS; i++) {
        temp_t *temp = &disk->temps[i];

        if (__atomic_load_n(&temp->is_used, __ATOMIC_SEQ_CST) == 2
            && (strncmp(temp->name, prefix, strlen(prefix)) != 0) == others) {
            disk_step(disk);
            temp_end(temp);
        }
    }
    return APR_SUCCESS;
}

typedef struct listing_t {
    apr_uint32_t next;
    apr_uint32_t step;
} listing_t;

static apr_status_t disk_list(void *baton, apr_uint32_t dir, void **listing)
{
    depot_t *w = baton;
    listing_t *one;

    if (w->disk->list_fails) {
        return w->disk->list_fails;
    }
    one = malloc(sizeof(*one));
    one->step = 1u << 8 * w->config.dir_levels;
    one->next = w->config.dir_levels == 2 ? dir >> 8 | (dir & 255) << 8 : dir;
    *listing = one;
    w->disk->listed++;
    return APR_SUCCESS;
}

static apr_status_t disk_next(void *baton, void *listing, mw_digest_t *digest,
                              mw_index_facts_t *gone)
{
    depot_t *w = baton;
    listing_t *one = listing;

    gone->exists = 0;
    while (one->next < w->disk->count) {
        apr_uint32_t number = one->next;

        one->next += one->step;
        disk_step(w->disk);
        if (file_read(w->disk, number)) {
            *digest = digest_of(w, number);
            return APR_SUCCESS;
        }
    }
    return APR_ENOENT;
}

static void disk_close(void *baton, void *listing)
{
    (void)baton;
    free(listing);
}

static const mw_index_files_t disk_files = {
    .probe = disk_probe,
    .unlink = disk_unlink,
    .unlink_temps = disk_unlink_temps,
    .list = disk_list,
    .next = disk_next,
    .close = disk_close,
};

void depot_open(depot_t *w, apr_int64_t expected)
{
    const char *error = NULL;
    int is_new;

    if (mw_index_create(&w->index, &w->fake.services, &w->config, &disk_files,
                        w, w->pool, &error)
        != APR_SUCCESS) {
        fail_msg("%s", error);
    }
    assert_int_equal(mw_index_post_config(w->index, expected, &is_new), 0);
    apr_pool_create(&w->pchild, w->pool);
    assert_int_equal(mw_index_child_init(w->index, w->pchild), 0);
}

void depot_close(depot_t *w)
{
    apr_pool_destroy(w->pchild);
    w->index = NULL;
}

void depot_restart(depot_t *w, apr_int64_t expected)
{
    depot_close(w);
    fake_drop_segment(&w->fake);
    depot_open(w, expected);
}

depot_t *depot_make(mw_index_config_t config, apr_uint32_t files)
{
    apr_pool_t *pool;
    depot_t *w;

    apr_pool_create(&pool, NULL);
    w = apr_pcalloc(pool, sizeof(*w));
    w->pool = pool;
    w->now = EPOCH;
    w->config = config;
    w->disk = shared_make(sizeof(disk_t) + files * sizeof(apr_uint64_t));
    w->disk->count = files;
    fake_begin(&w->fake, "test");
    depot_open(w, 0);
    return w;
}

void depot_end(depot_t *w)
{
    depot_close(w);
    fake_end(&w->fake);
    munmap(w->disk, sizeof(disk_t) + w->disk->count * sizeof(apr_uint64_t));
    apr_pool_destroy(w->pool);
}

void disk_put(depot_t *w, apr_uint32_t number, apr_uint64_t blocks,
              apr_time_t expires)
{
    file_write(w->disk, number, blocks, expires);
}

apr_uint64_t disk_blocks(const depot_t *w, apr_uint32_t number)
{
    return file_read(w->disk, number) & 0xffffffff;
}

apr_uint64_t disk_used(const depot_t *w)
{
    apr_uint64_t used = 0;
    apr_uint32_t i;

    for (i = 0; i < TEMPS; i++) {
        used += __atomic_load_n(&w->disk->temps[i].blocks, __ATOMIC_SEQ_CST);
    }
    for (i = 0; i < w->disk->count; i++) {
        used += disk_blocks(w, i);
    }
    return used;
}

apr_uint64_t disk_entries(const depot_t *w)
{
    apr_uint64_t entries = 0;
    apr_uint32_t i;

    for (i = 0; i < w->disk->count; i++) {
        entries += disk_blocks(w, i) != 0;
    }
    return entries;
}

static temp_t *temp_make(depot_t *w)
{
    char name[MW_INDEX_TEMP_NAME];
    int i;

    mw_index_temp_name(w->index, name);
    for (i = 0; i < TEMPS; i++) {
        temp_t *temp = &w->disk->temps[i];
        apr_uint32_t nobody = 0;

        if (__atomic_compare_exchange_n(&temp->is_used, &nobody, 1, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            memcpy(temp->name, name, sizeof(name));
            __atomic_store_n(&temp->is_used, 2, __ATOMIC_SEQ_CST);
            return temp;
        }
    }
    return NULL;
}

typedef struct put_t {
    depot_t *w;
    temp_t *temp;
    apr_uint64_t blocks;
    apr_time_t expires;
} put_t;

/** The two change places, then the one that was replaced is unlinked. */
static apr_status_t put_rename(void *baton, const mw_digest_t *digest,
                               mw_index_facts_t *facts)
{
    put_t *put = baton;
    apr_uint32_t number = number_of(digest);
    apr_uint64_t old = disk_blocks(put->w, number);

    disk_step(put->w->disk);
    __atomic_store_n(&put->temp->blocks, 0, __ATOMIC_SEQ_CST);
    file_write(put->w->disk, number, put->blocks, put->expires);
    facts_fill(facts, file_read(put->w->disk, number));
    __atomic_store_n(&put->temp->blocks, old, __ATOMIC_SEQ_CST);
    disk_step(put->w->disk);
    __atomic_store_n(&put->temp->blocks, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&put->temp->is_used, 0, __ATOMIC_SEQ_CST);
    disk_step(put->w->disk);
    return APR_SUCCESS;
}

apr_status_t depot_put(depot_t *w, apr_uint32_t number, apr_uint64_t blocks,
                       apr_time_t expires)
{
    mw_digest_t digest = digest_of(w, number);
    mw_index_room_t room = { 0 };
    put_t put = { w, NULL, blocks, expires };
    apr_status_t rv =
        mw_index_reserve(w->index, &room, (blocks + 1) / 2 * BLOCK, w->now);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    put.temp = temp_make(w);
    if (!put.temp) {
        mw_index_release(w->index, &room);
        return APR_ENOMEM;
    }
    __atomic_store_n(&put.temp->blocks, (blocks + 1) / 2, __ATOMIC_SEQ_CST);
    disk_step(w->disk);
    rv = mw_index_reserve(w->index, &room, blocks * BLOCK, w->now);
    if (rv == APR_SUCCESS) {
        __atomic_store_n(&put.temp->blocks, blocks, __ATOMIC_SEQ_CST);
        rv =
            mw_index_change(w->index, &digest, &room, put_rename, &put, w->now);
    }
    if (rv != APR_SUCCESS) {
        temp_end(put.temp);
        mw_index_release(w->index, &room);
    }
    return rv;
}

int depot_get(depot_t *w, apr_uint32_t number)
{
    mw_digest_t digest = digest_of(w, number);
    mw_index_facts_t facts;
    mw_index_answer_e answer = mw_index_find(w->index, &digest, w->now, &facts);
    apr_uint64_t file;

    if (answer == MW_INDEX_ABSENT) {
        return 0;
    }
    file = file_read(w->disk, number);
    if ((answer == MW_INDEX_UNKNOWN) == (file != 0)) {
        mw_index_check(w->index, &digest, w->now);
    }
    return file && apr_time_from_sec((apr_time_t)(file >> 32)) > w->now;
}

static apr_status_t remove_unlink(void *baton, const mw_digest_t *digest,
                                  mw_index_facts_t *facts)
{
    depot_t *w = baton;

    disk_step(w->disk);
    file_write(w->disk, number_of(digest), 0, 0);
    facts->exists = 0;
    disk_step(w->disk);
    return APR_SUCCESS;
}

apr_status_t depot_remove(depot_t *w, apr_uint32_t number)
{
    mw_digest_t digest = digest_of(w, number);

    return mw_index_change(w->index, &digest, NULL, remove_unlink, w, w->now);
}

void depot_child(depot_t *w)
{
    apr_pool_t *pchild;

    apr_pool_create(&pchild, NULL);
    if (mw_index_child_init(w->index, pchild) != APR_SUCCESS) {
        _exit(2);
    }
}

static void hammer_sweep(depot_t *w)
{
    cachemw_call_t call;
    int more;

    memset(&call, 0, sizeof(call));
    call.now = w->now;
    mw_index_sweep(w->index, &call, &more);
}

void depot_hammer(depot_t *w, apr_uint32_t *seed)
{
    apr_uint32_t n = random_next(seed) % w->disk->count;
    apr_uint32_t what = random_next(seed) % 1000;

    if (what < 600) {
        apr_uint32_t blocks = 1 + random_next(seed) % 8;

        depot_put(w, n, blocks, w->now + 3600 * SECOND);
    }
    else if (what < 900) {
        depot_get(w, n);
    }
    else if (what < 970) {
        depot_remove(w, n);
    }
    else if (what < 997) {
        hammer_sweep(w);
    }
    else if (what < 999) {
        mw_index_rescan(w->index);
    }
    else {
        mw_index_clear(w->index);
    }
}

void depot_sweep(depot_t *w)
{
    cachemw_call_t call;
    int more = 1;
    int i;

    memset(&call, 0, sizeof(call));
    call.now = w->now;
    for (i = 0; more; i++) {
        assert_true(i < 100);
        assert_int_equal(mw_index_sweep(w->index, &call, &more), 0);
    }
}

void depot_assert_exact(depot_t *w)
{
    apr_uint64_t held = mw_index_sum(w->index, MW_INDEX_SMALL)
                        + mw_index_sum(w->index, MW_INDEX_MAIN);
    apr_uint64_t there = 0;
    apr_uint32_t i;

    for (i = 0; i < w->disk->count; i++) {
        mw_digest_t digest = digest_of(w, i);
        mw_index_facts_t facts;
        apr_uint64_t file = file_read(w->disk, i);
        int is_found = mw_index_find(w->index, &digest, w->now, &facts)
                       == MW_INDEX_PRESENT;

        assert_int_equal(is_found, file != 0);
        if (is_found) {
            assert_int_equal(facts.size, (file & 0xffffffff) * BLOCK);
            assert_int_equal(apr_time_sec(facts.expires), file >> 32);
            there += MW_INDEX_ENTRY + (file & 0xffffffff);
        }
    }
    assert_true(held == there);
    assert_true(mw_index_used(w->index) == held);
    assert_int_equal(disk_used(w), MW_INDEX_BLOCKS(there));
}

cachemw_stats_t depot_stats(depot_t *w)
{
    cachemw_stats_t stats;

    memset(&stats, 0, sizeof(stats));
    stats.size = sizeof(stats);
    mw_index_stats(w->index, w->now, &stats);
    return stats;
}
