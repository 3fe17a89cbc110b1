/* SPDX-License-Identifier: Apache-2.0 */

/* Who goes when it is full, and how full full is. */

#include <math.h>

#include "memory_world.h"

static const setting_t four = { .size = 4 << 20 };

static const char *name_of(world_t *w, const char *what, int i)
{
    return apr_psprintf(w->pool, "/%s/%d", what, i);
}

static void fill(world_t *w, const char *what, int n, apr_uint64_t length)
{
    int i;

    for (i = 0; i < n; i++) {
        assert_int_equal(
            world_put(w, name_of(w, what, i), (apr_uint64_t)i, length), 0);
    }
}

static int count_hits(world_t *w, const char *what, int n)
{
    int hits = 0;
    int i;

    for (i = 0; i < n; i++) {
        hits += world_get(w, name_of(w, what, i), NULL) == APR_SUCCESS;
    }
    return hits;
}

static void test_what_is_used_survives_a_flood(void **state)
{
    world_t *w = world_make(four);

    (void)state;
    fill(w, "hot", 500, 1000);
    count_hits(w, "hot", 500);
    count_hits(w, "hot", 500);
    fill(w, "flood", 20000, 1000);
    assert_int_equal(count_hits(w, "hot", 500), 500);
    assert_true(count_hits(w, "flood", 20000) > 1500);
    world_end(w);
}

static void test_a_scan_that_returns_does_not_push_out_the_rest(void **state)
{
    world_t *w = world_make(four);
    int i;

    (void)state;
    fill(w, "hot", 500, 1000);
    count_hits(w, "hot", 500);
    for (i = 0; i < 10; i++) {
        int hits = count_hits(w, "hot", 500);

        assert_int_equal(hits, 500);
        fill(w, "scan", 10000, 1000);
    }
    world_end(w);
}

static void test_what_is_used_no_more_goes(void **state)
{
    world_t *w = world_make(four);
    int i;

    (void)state;
    fill(w, "old", 1000, 1000);
    count_hits(w, "old", 1000);
    count_hits(w, "old", 1000);
    for (i = 0; i < 30; i++) {
        const char *now = name_of(w, "new", i);

        fill(w, now, 300, 1000);
        count_hits(w, now, 300);
        count_hits(w, now, 300);
    }
    assert_true(count_hits(w, "old", 1000) < 100);
    world_end(w);
}

static int queue_of(world_t *w, const char *name)
{
    cachemw_key_t key = world_key(name);
    apr_uint32_t unit = mw_shard_find(w->mem, mw_mem_hash(w->mem, &key), &key);

    return unit ? mw_mem_entry(w->mem, unit)->queue : -1;
}

static void test_who_returns_from_eviction_is_trusted(void **state)
{
    world_t *w = world_make(four);
    int trusted = 0;
    int gone = 0;
    int i;

    (void)state;
    fill(w, "first", 500, 1000);
    assert_int_equal(queue_of(w, "/first/1"), MW_MEM_SMALL);
    fill(w, "flood", 4000, 1000);
    for (i = 0; i < 500; i++) {
        const char *name = name_of(w, "first", i);

        if (queue_of(w, name) < 0) {
            gone++;
            world_put(w, name, 1, 1000);
            trusted += queue_of(w, name) == MW_MEM_MAIN;
        }
    }
    assert_true(gone > 400);
    assert_true(trusted > gone * 4 / 5);
    fill(w, "never", 100, 1000);
    for (i = 0; i < 100; i++) {
        assert_int_equal(queue_of(w, name_of(w, "never", i)), MW_MEM_SMALL);
    }
    world_end(w);
}

static void test_a_hit_writes_at_most_a_count_of_uses(void **state)
{
    world_t *w = world_make(four);
    char *before = apr_palloc(w->pool, w->fake.size);
    apr_size_t changed = 0;
    apr_size_t i;

    (void)state;
    fill(w, "x", 100, 1000);
    memcpy(before, w->fake.base, w->fake.size);
    world_get(w, "/x/7", NULL);
    for (i = 0; i < w->fake.size; i++) {
        changed += before[i] != ((char *)w->fake.base)[i];
    }
    assert_int_equal(changed, 1);
    world_get(w, "/x/7", NULL);
    world_get(w, "/x/7", NULL);
    memcpy(before, w->fake.base, w->fake.size);
    world_get(w, "/x/7", NULL);
    assert_memory_equal(before, w->fake.base, w->fake.size);
    world_end(w);
}

static void assert_shards_are_alike(world_t *w)
{
    apr_uint64_t average = world_units(w, MW_MEM_SMALL) / 8;
    int i;

    for (i = 0; i < 8; i++) {
        apr_uint64_t units = w->mem->tallies[i].units[MW_MEM_SMALL];

        assert_in_range(units, average * 3 / 4, average * 5 / 4);
    }
}

static void test_all_shards_give_their_share(void **state)
{
    setting_t setting = { .size = 8 << 20, .shards = 8 };
    world_t *w = world_make(setting);
    int i;

    (void)state;
    fill(w, "x", 30000, 1000);
    assert_shards_are_alike(w);
    for (i = 0; i < 60000; i++) {
        apr_uint64_t length = i % 50 ? 500 : 16000;

        world_put(w, name_of(w, "mixed", i), (apr_uint64_t)i, length);
        if (i % 1000 == 999) {
            assert_shards_are_alike(w);
        }
    }
    world_end(w);
}

/** (keys + heads + bodies) / size when the first entry is evicted. */
static double fill_to_the_brim(world_t *w, const apr_uint64_t *length, int n)
{
    double last = 0;
    int i = 0;

    while (!w->fake.counts[CACHEMW_COUNT_EVICTED]) {
        cachemw_stats_t stats = world_stats(w);

        last = (double)stats.bytes / (double)stats.bytes_max;
        assert_int_equal(world_put(w, name_of(w, "brim", i), 1, length[i % n]),
                         0);
        i++;
    }
    return last;
}

/** Bodies of these lengths, in turn. */
typedef struct blend_t {
    const char *name;
    apr_uint64_t length[10];
    int n;
} blend_t;

static const blend_t blends[] = {
    { "1 KB", { 1024 }, 1 },
    { "10 KB", { 10240 }, 1 },
    { "100 KB", { 102400 }, 1 },
    /* Wherever rounding is worst. */
    { "odd", { 1024 - 64, 1025, 1040, 1056, 1072 }, 5 },
    { "1 MB", { 1048576 }, 1 },
    { "mixed",
      { 1024, 1024, 1024, 1024, 10240, 10240, 102400, 1024, 1024, 1048576 },
      10 },
};

/** Links that a look-up of an entry follows, on average. */
static double links_followed(const mw_mem_t *mem)
{
    apr_uint64_t entries = 0;
    apr_uint64_t links = 0;
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.buckets; i++) {
        apr_uint32_t unit = mem->buckets[i];
        apr_uint32_t length = 0;

        while (unit) {
            entries++;
            links += ++length;
            unit = mw_mem_entry(mem, unit)->hash_next;
        }
    }
    assert_int_equal(entries, mw_shard_entries(mem));
    return (double)links / (double)entries;
}

/** A quarter of the space can be had for one object when all is taken. */
static void assert_a_quarter_fits(world_t *w)
{
    assert_int_equal(world_put(w, "/quarter", 2, w->fake.size / 4),
                     APR_SUCCESS);
    assert_int_equal(world_get(w, "/quarter", NULL), APR_SUCCESS);
}

static void assert_holds_entries(apr_int64_t size, const blend_t *blend)
{
    setting_t setting = { .size = size };
    world_t *w = world_make(setting);
    double used = fill_to_the_brim(w, blend->length, blend->n);

    print_message("%5d MB of %-6s %.3f, %d entries, links %.2f\n",
                  (int)(size >> 20), blend->name, used,
                  (int)mw_shard_entries(w->mem), links_followed(w->mem));
    assert_true(used >= 0.85);
    /* However many there are: a hit costs the same. */
    assert_true(links_followed(w->mem) < 1.6);
    assert_a_quarter_fits(w);
    world_end(w);
}

/* Of bodies of 1 MB no more than three fit in 4 MB: they come from 64 MB on. */
static void test_most_of_the_space_holds_entries(void **state)
{
    int i;

    (void)state;
    for (i = 0; i < 4; i++) {
        assert_holds_entries(4 << 20, &blends[i]);
    }
    for (i = 0; i < 6; i++) {
        assert_holds_entries(64 << 20, &blends[i]);
    }
}

/** As above, with nearly a million entries. */
static void test_a_large_segment_is_as_good(void **state)
{
    (void)state;
    assert_holds_entries(APR_INT64_C(1) << 30, &blends[0]);
}

/** After any churn a quarter of the space can still be had for one object. */
static void test_fragments_never_refuse_an_object(void **state)
{
    static const apr_uint64_t length[] = { 10,  300,   900, 1500, 4000,
                                           700, 20000, 150, 1200, 100000 };
    setting_t setting = { .size = 16 << 20 };
    world_t *w = world_make(setting);
    cachemw_stats_t stats;
    int i;

    (void)state;
    for (i = 0; i < 60000; i++) {
        char name[32];

        apr_snprintf(name, sizeof(name), "/churn/%d", i * 7919 % 20000);
        assert_int_equal(world_put(w, name, 1, length[i % 10]), 0);
        if (i % 3 == 0) {
            apr_snprintf(name, sizeof(name), "/churn/%d", i * 31 % 20000);
            world_get(w, name, NULL);
        }
    }
    stats = world_stats(w);
    print_message("after churn %.3f\n",
                  (double)stats.bytes / (double)stats.bytes_max);
    assert_true((double)stats.bytes > 0.80 * (double)stats.bytes_max);
    assert_int_equal(world_put(w, "/quarter", 2, w->fake.size / 4), 0);
    assert_int_equal(world_get(w, "/quarter", NULL), APR_SUCCESS);
    world_clear(w);
    world_assert_empty(w);
    world_end(w);
}

/** Runs of all entries with a body of this length, on average. */
static double runs_of(world_t *w, int keys, const apr_uint64_t *length, int n,
                      apr_uint64_t of)
{
    int entries = 0;
    int runs = 0;
    int i;

    for (i = 0; i < keys; i++) {
        cachemw_key_t key = world_key(name_of(w, "runs", i));
        apr_uint32_t unit =
            mw_shard_find(w->mem, mw_mem_hash(w->mem, &key), &key);

        if (unit && length[i % n] == of) {
            entries++;
            for (; unit; unit = mw_mem_run(w->mem, unit)->next) {
                runs++;
            }
        }
    }
    assert_true(entries > 0);
    print_message("%7d bytes: %d entries, %.2f runs each\n", (int)of, entries,
                  (double)runs / entries);
    return (double)runs / entries;
}

/** Small and large bodies come and go: large ones lie in few runs. */
static void test_churn_leaves_long_runs(void **state)
{
    enum { KEYS = 4000, LENGTHS = 20 };
    static const apr_uint64_t length[LENGTHS] = {
        1000, 3000, 700,  102400, 9000,  2000, 1500,    40000,  500,  6000,
        1200, 800,  4100, 102400, 20000, 2500, 1048576, 102400, 5300, 1700,
    };
    setting_t setting = { .size = 64 << 20 };
    world_t *w = world_make(setting);
    apr_uint64_t random = 1;
    int i;

    (void)state;
    for (i = 0; i < 20000; i++) {
        int n;

        random = random * APR_UINT64_C(6364136223846793005) + 1;
        n = (int)(random >> 33) % KEYS;
        if (world_get(w, name_of(w, "runs", n), NULL)) {
            assert_int_equal(world_put(w, name_of(w, "runs", n),
                                       (apr_uint64_t)n, length[n % LENGTHS]),
                             APR_SUCCESS);
        }
    }
    assert_true(runs_of(w, KEYS, length, LENGTHS, 1000) < 1.1);
    assert_true(runs_of(w, KEYS, length, LENGTHS, 102400) < 4);
    assert_true(runs_of(w, KEYS, length, LENGTHS, 1048576) < 30);
    world_end(w);
}

/** An LRU cache of numbers, to compare with. */
typedef struct lru_t {
    int *newer;
    int *older;
    int newest;
    int oldest;
    int held;
    int capacity;
} lru_t;

static lru_t *lru_make(apr_pool_t *pool, int keys, int capacity)
{
    lru_t *lru = apr_pcalloc(pool, sizeof(*lru));
    int i;

    lru->newer = apr_palloc(pool, (apr_size_t)keys * sizeof(int));
    lru->older = apr_palloc(pool, (apr_size_t)keys * sizeof(int));
    for (i = 0; i < keys; i++) {
        lru->newer[i] = -2;
    }
    lru->newest = -1;
    lru->oldest = -1;
    lru->capacity = capacity;
    return lru;
}

static void lru_unlink(lru_t *lru, int key)
{
    int newer = lru->newer[key];
    int older = lru->older[key];

    *(newer >= 0 ? &lru->older[newer] : &lru->newest) = older;
    *(older >= 0 ? &lru->newer[older] : &lru->oldest) = newer;
    lru->newer[key] = -2;
    lru->held--;
}

static int lru_use(lru_t *lru, int key)
{
    int hit = lru->newer[key] != -2;

    if (hit) {
        lru_unlink(lru, key);
    }
    else if (lru->held == lru->capacity) {
        lru_unlink(lru, lru->oldest);
    }
    lru->newer[key] = -1;
    lru->older[key] = lru->newest;
    *(lru->newest >= 0 ? &lru->newer[lru->newest] : &lru->oldest) = key;
    lru->newest = key;
    lru->held++;
    return hit;
}

#define ZIPF_KEYS 20000

/** Cumulated weights of 1/rank^alpha. */
static double *zipf_make(apr_pool_t *pool, double alpha)
{
    double *sum = apr_palloc(pool, ZIPF_KEYS * sizeof(double));
    double total = 0;
    int i;

    for (i = 0; i < ZIPF_KEYS; i++) {
        total += 1 / pow(i + 1, alpha);
        sum[i] = total;
    }
    return sum;
}

static int zipf_draw(const double *sum, apr_uint64_t *random)
{
    double x;
    int low = 0;
    int high = ZIPF_KEYS - 1;

    *random = *random * APR_UINT64_C(6364136223846793005)
              + APR_UINT64_C(1442695040888963407);
    x = (double)(*random >> 11) / 9007199254740992.0 * sum[ZIPF_KEYS - 1];
    while (low < high) {
        int middle = (low + high) / 2;

        if (sum[middle] < x) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return low;
}

/**
 * The share of hits on a trace of 1 KB pages, of our store and of an LRU cache
 * that holds as many.
 * @param floods of 100 requests, so many are for a page never asked for again
 */
static void compare_with_lru(double alpha, int floods, apr_uint64_t random,
                             double *ours, double *lru_hits)
{
    const int requests = 120000;
    world_t *w = world_make(four);
    const double *sum = zipf_make(w->pool, alpha);
    int keys = ZIPF_KEYS + requests;
    int hits[2] = { 0, 0 };
    lru_t *lru;
    int i;

    fill(w, "measure", 5000, 1000);
    lru = lru_make(w->pool, keys, (int)world_stats(w).entries);
    world_clear(w);
    for (i = 0; i < requests; i++) {
        int key = i % 100 < floods ? ZIPF_KEYS + i : zipf_draw(sum, &random);
        char name[32];

        apr_snprintf(name, sizeof(name), "/page/%07d", key);
        if (world_get(w, name, NULL) == APR_SUCCESS) {
            hits[0]++;
        }
        else {
            world_put(w, name, 1, 1000);
        }
        hits[1] += lru_use(lru, key);
    }
    *ours = (double)hits[0] / requests;
    *lru_hits = (double)hits[1] / requests;
    print_message("zipf %.1f, flood %2d%%: %.4f, LRU %.4f\n", alpha, floods,
                  *ours, *lru_hits);
    world_end(w);
}

static void test_more_hits_than_lru(void **state)
{
    double ours;
    double lru;

    (void)state;
    compare_with_lru(0.8, 0, 1, &ours, &lru);
    assert_true(ours > lru);
    compare_with_lru(1.0, 0, 2, &ours, &lru);
    assert_true(ours > lru);
    compare_with_lru(0.8, 50, 3, &ours, &lru);
    assert_true(ours > lru * 1.05);
    compare_with_lru(1.0, 50, 4, &ours, &lru);
    assert_true(ours > lru * 1.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_used_survives_a_flood),
        cmocka_unit_test(test_a_scan_that_returns_does_not_push_out_the_rest),
        cmocka_unit_test(test_what_is_used_no_more_goes),
        cmocka_unit_test(test_who_returns_from_eviction_is_trusted),
        cmocka_unit_test(test_a_hit_writes_at_most_a_count_of_uses),
        cmocka_unit_test(test_all_shards_give_their_share),
        cmocka_unit_test(test_most_of_the_space_holds_entries),
        cmocka_unit_test(test_a_large_segment_is_as_good),
        cmocka_unit_test(test_fragments_never_refuse_an_object),
        cmocka_unit_test(test_churn_leaves_long_runs),
        cmocka_unit_test(test_more_hits_than_lru),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
