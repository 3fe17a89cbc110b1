/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>

#include "apr_general.h"

#include "core/spool.h"
#include "tests/unit/shared.h"

#define LIMIT (APR_INT64_C(1) << 40)

typedef struct files_t {
    const char *path; /**< of the file to give; NULL: a new temporary one */
    apr_int32_t flags;
    apr_status_t rv;
    int made;
} files_t;

static apr_status_t file_make(void *baton, apr_file_t **file, apr_pool_t *pool)
{
    files_t *files = baton;

    files->made++;
    if (files->rv != APR_SUCCESS) {
        return files->rv;
    }
    if (files->path) {
        return apr_file_open(file, files->path, files->flags, 0, pool);
    }
    return apr_file_mktemp(file, shared_temp("spool", pool), 0, pool);
}

static apr_bucket_brigade *brigade_make(apr_pool_t *pool)
{
    return apr_brigade_create(pool, apr_bucket_alloc_create(pool));
}

static char *noise_make(apr_size_t length, apr_pool_t *pool)
{
    char *noise = apr_palloc(pool, length + 1);
    apr_uint32_t seed = 4711;
    apr_size_t i;

    for (i = 0; i < length; i++) {
        noise[i] = (char)random_next(&seed);
    }
    return noise;
}

static void body_check(apr_bucket_brigade *body, const char *expected,
                       apr_size_t length)
{
    apr_bucket *bucket;

    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        const char *data;
        apr_size_t n;

        assert_int_equal(apr_bucket_read(bucket, &data, &n, APR_BLOCK_READ),
                         APR_SUCCESS);
        assert_true(n > 0);
        assert_true(n <= length);
        assert_memory_equal(data, expected, n);
        expected += n;
        length -= n;
    }
    assert_int_equal(length, 0);
}

static int descriptors_count(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(directory);
    while (readdir(directory)) {
        n++;
    }
    closedir(directory);
    return n;
}

static void test_spool_empty(void **state)
{
    files_t files = { 0 };
    mw_spool_t *spool = mw_spool_make(0, LIMIT, file_make, &files, *state);
    apr_bucket_brigade *body = brigade_make(*state);

    assert_int_equal(mw_spool_write(spool, "", 0), APR_SUCCESS);
    assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
    assert_true(APR_BRIGADE_EMPTY(body));
    assert_int_equal(files.made, 0);
}

/* Small bodies cost no file, and none is left open. */
static void test_spool_goes_to_a_file_at_the_limit(void **state)
{
    const int descriptors = descriptors_count();
    char *noise = noise_make(100001, *state);
    apr_bucket_brigade *body = brigade_make(*state);
    files_t files = { 0 };
    mw_spool_t *spool = mw_spool_make(100000, LIMIT, file_make, &files, *state);

    assert_int_equal(mw_spool_write(spool, noise, 99999), APR_SUCCESS);
    assert_int_equal(mw_spool_write(spool, noise + 99999, 1), APR_SUCCESS);
    assert_int_equal(files.made, 0);
    assert_int_equal(mw_spool_write(spool, noise + 100000, 1), APR_SUCCESS);
    assert_int_equal(files.made, 1);
    assert_int_equal(descriptors_count(), descriptors + 1);
    assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
    assert_true(APR_BUCKET_IS_FILE(APR_BRIGADE_FIRST(body)));
    body_check(body, noise, 100001);
    apr_brigade_cleanup(body);
    mw_spool_destroy(spool);
    mw_spool_destroy(spool);
    assert_int_equal(descriptors_count(), descriptors);
}

static void test_spool_gives_back_what_was_written(void **state)
{
    static const apr_size_t limits[] = { 0, 1, 4096, 100000, 1 << 20 };
    const apr_size_t length = 600000;
    char *noise = noise_make(length, *state);
    apr_uint32_t seed = 1;
    int i;

    for (i = 0; i < 40; i++) {
        const apr_size_t most = i < 20 ? 30 : 100000;
        apr_bucket_brigade *body = brigade_make(*state);
        files_t files = { 0 };
        mw_spool_t *spool = mw_spool_make(limits[i % COUNT(limits)], LIMIT,
                                          file_make, &files, *state);
        apr_size_t done = 0;

        while (done < length) {
            apr_size_t n = random_next(&seed) % most;

            n = n < length - done ? n : length - done;
            assert_int_equal(mw_spool_write(spool, noise + done, n),
                             APR_SUCCESS);
            done += n;
        }
        assert_int_equal(files.made, limits[i % COUNT(limits)] < length);
        assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
        body_check(body, noise, length);
        apr_brigade_destroy(body);
        mw_spool_destroy(spool);
    }
}

/* Providers may pass each bucket on as one piece. */
static void test_spool_memory_in_small_buckets(void **state)
{
    const apr_size_t length = 1 << 20;
    char *noise = noise_make(length, *state);
    apr_bucket_brigade *body = brigade_make(*state);
    files_t files = { 0 };
    mw_spool_t *spool = mw_spool_make(length, LIMIT, file_make, &files, *state);
    apr_bucket *bucket;
    int buckets = 0;

    assert_int_equal(mw_spool_write(spool, noise, length), APR_SUCCESS);
    assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        assert_in_range(bucket->length, 1, CACHEMW_PIECE_MAX);
        buckets++;
    }
    assert_in_range(buckets, 16, 24);
}

static void test_spool_memory_set_aside_outlives_it(void **state)
{
    const apr_size_t length = 200000;
    char *noise = noise_make(length, *state);
    apr_bucket_brigade *body = brigade_make(*state);
    files_t files = { 0 };
    mw_spool_t *spool = mw_spool_make(length, LIMIT, file_make, &files, *state);
    apr_bucket *bucket;

    assert_int_equal(mw_spool_write(spool, noise, length), APR_SUCCESS);
    assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        assert_int_equal(apr_bucket_setaside(bucket, *state), APR_SUCCESS);
        assert_true(APR_BUCKET_IS_HEAP(bucket));
    }
    mw_spool_destroy(spool);
    body_check(body, noise, length);
}

static void test_spool_refuses_more_than_its_limit(void **state)
{
    static const apr_size_t memory[] = { 0, 100, 1000 };
    char *noise = noise_make(1000, *state);
    apr_bucket_brigade *body = brigade_make(*state);
    int i;

    for (i = 0; i < COUNT(memory); i++) {
        files_t files = { 0 };
        mw_spool_t *spool =
            mw_spool_make(memory[i], 500, file_make, &files, *state);

        assert_int_equal(mw_spool_write(spool, noise, 499), APR_SUCCESS);
        assert_int_equal(mw_spool_write(spool, noise + 499, 1), APR_SUCCESS);
        assert_int_equal(mw_spool_write(spool, noise, 0), APR_SUCCESS);
        assert_int_equal(mw_spool_write(spool, noise, 1), APR_ENOSPC);
        assert_int_equal(mw_spool_write(spool, noise, 0), APR_ENOSPC);
        assert_int_equal(mw_spool_brigade(spool, body), APR_ENOSPC);
        assert_true(APR_BRIGADE_EMPTY(body));
        mw_spool_destroy(spool);
    }
}

/* Half a body must never be stored as a whole one. */
static void test_spool_errors_stay(void **state)
{
    static const struct {
        files_t files;
        apr_status_t rv;
    } cases[] = {
        { { NULL, 0, APR_EACCES, 0 }, APR_EACCES },
        { { "/dev/full", APR_FOPEN_WRITE, 0, 0 }, APR_ENOSPC },
        { { "/dev/null", APR_FOPEN_READ, 0, 0 }, APR_EBADF },
        { { "/dev/full", APR_FOPEN_WRITE | APR_FOPEN_BUFFERED, 0, 0 },
          APR_ENOSPC },
    };
    char *noise = noise_make(1000, *state);
    apr_bucket_brigade *body = brigade_make(*state);
    int i;

    for (i = 0; i < COUNT(cases); i++) {
        files_t files = cases[i].files;
        mw_spool_t *spool =
            mw_spool_make(500, LIMIT, file_make, &files, *state);
        apr_status_t rv = mw_spool_write(spool, noise, 500);

        assert_int_equal(rv, APR_SUCCESS);
        rv = mw_spool_write(spool, noise + 500, 500);
        if (rv == APR_SUCCESS) {
            assert_true(files.flags & APR_FOPEN_BUFFERED);
        }
        else {
            assert_int_equal(rv, cases[i].rv);
            assert_int_equal(mw_spool_write(spool, noise, 1), cases[i].rv);
        }
        assert_int_equal(mw_spool_brigade(spool, body), cases[i].rv);
        assert_true(APR_BRIGADE_EMPTY(body));
        mw_spool_destroy(spool);
    }
}

static void test_spool_writes_nothing_once_it_was_read(void **state)
{
    apr_bucket_brigade *body = brigade_make(*state);
    files_t files = { 0 };
    mw_spool_t *spool = mw_spool_make(500, LIMIT, file_make, &files, *state);

    assert_int_equal(mw_spool_write(spool, "text", 4), APR_SUCCESS);
    assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
    assert_int_equal(mw_spool_write(spool, "more", 4), APR_EINVAL);
    assert_int_equal(mw_spool_brigade(spool, body), APR_EINVAL);
    body_check(body, "text", 4);
}

/* Beyond 2 GB offsets and lengths must still be right. */
static void test_spool_of_five_gigabytes(void **state)
{
    const apr_off_t length = APR_INT64_C(5) << 30;
    const apr_size_t piece = 16 << 20;
    char *zeros = apr_pcalloc(*state, piece);
    apr_bucket_brigade *body = brigade_make(*state);
    files_t files = { .path = "/dev/null", .flags = APR_FOPEN_WRITE };
    mw_spool_t *spool = mw_spool_make(0, length, file_make, &files, *state);
    apr_bucket *bucket;
    apr_off_t done = 0;

    for (; done < length; done += piece) {
        assert_int_equal(mw_spool_write(spool, zeros, piece), APR_SUCCESS);
    }
    assert_int_equal(mw_spool_write(spool, zeros, 1), APR_ENOSPC);

    spool = mw_spool_make(0, length, file_make, &files, *state);
    for (done = 0; done < length; done += piece) {
        assert_int_equal(mw_spool_write(spool, zeros, piece), APR_SUCCESS);
    }
    assert_int_equal(mw_spool_brigade(spool, body), APR_SUCCESS);
    done = 0;
    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        assert_int_equal(bucket->start, done);
        done += bucket->length;
    }
    assert_int_equal(done, length);
}

#define POOLED(f) \
    cmocka_unit_test_setup_teardown(f, shared_pool_setup, shared_pool_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOLED(test_spool_empty),
        POOLED(test_spool_goes_to_a_file_at_the_limit),
        POOLED(test_spool_gives_back_what_was_written),
        POOLED(test_spool_memory_in_small_buckets),
        POOLED(test_spool_memory_set_aside_outlives_it),
        POOLED(test_spool_refuses_more_than_its_limit),
        POOLED(test_spool_errors_stay),
        POOLED(test_spool_writes_nothing_once_it_was_read),
        POOLED(test_spool_of_five_gigabytes),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
