/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/file/mark.h"
#include "tests/unit/shared.h"

static const unsigned char monday[16] = "monday";
static const unsigned char tuesday[16] = "tuesday";

typedef struct place_t {
    apr_pool_t *pool;
    char *path;
    int dir;
} place_t;

static int place_setup(void **state)
{
    place_t *place = calloc(1, sizeof(*place));

    apr_pool_create(&place->pool, NULL);
    place->path = shared_temp("mark", place->pool);
    assert_non_null(mkdtemp(place->path));
    place->dir = open(place->path, O_RDONLY | O_DIRECTORY);
    assert_true(place->dir >= 0);
    *state = place;
    return 0;
}

static int place_teardown(void **state)
{
    place_t *place = *state;

    unlinkat(place->dir, "mark", 0);
    close(place->dir);
    rmdir(place->path);
    apr_pool_destroy(place->pool);
    free(place);
    return 0;
}

/* Write n bytes of the mark's file. */
static void place_scribble(const place_t *place, off_t at, apr_size_t n)
{
    int fd = openat(place->dir, "mark", O_RDWR);

    while (n--) {
        unsigned char byte;

        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x40;
        assert_int_equal(pwrite(fd, &byte, 1, at++), 1);
    }
    close(fd);
}

/* Structures have bytes that belong to no member. */
static void assert_mark_equal(const mw_mark_t *a, const mw_mark_t *b)
{
    unsigned char bytes[2][MW_MARK_SIZE];

    mw_mark_encode(a, bytes[0]);
    mw_mark_encode(b, bytes[1]);
    assert_memory_equal(bytes[0], bytes[1], MW_MARK_SIZE);
}

static void test_mark_comes_back(void **state)
{
    const place_t *place = *state;
    mw_mark_t mark, seen;

    memset(&seen, 0, sizeof(seen));
    assert_int_equal(mw_mark_read(place->dir, &seen), APR_ENOENT);
    mw_mark_begin(&mark, monday);
    memset(mark.owner, 1, sizeof(mark.owner));
    memset(mark.secret, 2, sizeof(mark.secret));
    mark.levels = 2;
    for (mark.number = 1; mark.number < 6; mark.number++) {
        mark.epoch++;
        mark.cleared = mark.epoch - 1;
        mark.safe[3] = mark.number;
        assert_int_equal(mw_mark_write(place->dir, &mark, 1), APR_SUCCESS);
        assert_int_equal(mw_mark_read(place->dir, &seen), APR_SUCCESS);
        assert_mark_equal(&seen, &mark);
    }
}

/* A power loss in the middle of writing leaves the mark before. */
static void test_half_a_mark_leaves_the_one_before(void **state)
{
    const place_t *place = *state;
    apr_size_t cut;
    mw_mark_t mark, seen;

    mw_mark_begin(&mark, monday);
    mark.number = 4;
    assert_int_equal(mw_mark_write(place->dir, &mark, 1), APR_SUCCESS);
    for (cut = 0; cut < MW_MARK_SIZE; cut++) {
        mark.number = 5;
        assert_int_equal(mw_mark_write(place->dir, &mark, 1), APR_SUCCESS);
        place_scribble(place, 4096 + (off_t)cut, 1);
        assert_int_equal(mw_mark_read(place->dir, &seen), APR_SUCCESS);
        assert_int_equal(seen.number, 4);
    }
    place_scribble(place, 0, 10);
    assert_int_equal(mw_mark_read(place->dir, &seen), APR_EINCOMPLETE);
}

/* Whoever runs as the web server can write a right checksum, too. */
static void test_levels_that_there_cannot_be_make_no_mark(void **state)
{
    static const apr_uint32_t wrong[] = { 3, 4, 40, 0x7fffffff, 0xffffffff };
    unsigned char bytes[MW_MARK_SIZE];
    mw_mark_t mark, copy;
    int i;

    (void)state;
    mw_mark_begin(&mark, monday);
    for (i = 0; i < 5; i++) {
        mark.levels = wrong[i];
        mw_mark_encode(&mark, bytes);
        assert_int_equal(mw_mark_decode(bytes, &copy), APR_EINCOMPLETE);
    }
    for (mark.levels = 0; mark.levels <= 2; mark.levels++) {
        mw_mark_encode(&mark, bytes);
        assert_int_equal(mw_mark_decode(bytes, &copy), APR_SUCCESS);
        assert_int_equal(copy.levels, mark.levels);
    }
}

static void test_a_link_is_no_mark(void **state)
{
    const place_t *place = *state;
    const char *other = apr_pstrcat(place->pool, place->path, "/other", NULL);
    struct stat info;
    mw_mark_t mark, seen;

    mw_mark_begin(&mark, monday);
    assert_int_equal(symlinkat(other, place->dir, "mark"), 0);
    assert_int_equal(mw_mark_read(place->dir, &seen), APR_EINCOMPLETE);
    assert_int_equal(mw_mark_write(place->dir, &mark, 1), APR_SUCCESS);
    assert_int_not_equal(lstat(other, &info), 0);
    assert_int_equal(mw_mark_read(place->dir, &seen), APR_SUCCESS);
}

static void test_entries_of_this_boot_are_trusted(void **state)
{
    apr_uint64_t stored;
    mw_mark_t mark;

    (void)state;
    mw_mark_begin(&mark, monday);
    stored = mark.epoch;
    assert_true(mw_mark_trusts(&mark, stored));
    mw_mark_continue(&mark, monday);
    assert_true(mark.epoch > stored + 1);
    assert_true(mw_mark_trusts(&mark, stored));
    assert_true(mw_mark_trusts(&mark, mark.epoch));
}

static void test_after_a_boot_what_was_not_safe_is_not_trusted(void **state)
{
    apr_uint64_t safe, later;
    mw_mark_t mark;

    (void)state;
    mw_mark_begin(&mark, monday);
    safe = mark.epoch;
    mark.safe[1] = safe;
    later = mark.epoch = safe + 1;
    assert_true(mw_mark_trusts(&mark, later));
    mw_mark_continue(&mark, tuesday);
    assert_true(mw_mark_trusts(&mark, safe));
    assert_false(mw_mark_trusts(&mark, later));
    assert_false(mw_mark_trusts(&mark, later + 1));
    assert_true(mw_mark_trusts(&mark, mark.epoch));
}

/* However many boots come before somebody looks at them. */
static void test_what_was_not_safe_never_becomes_it(void **state)
{
    apr_uint64_t safe, later;
    int boot;
    mw_mark_t mark;

    (void)state;
    mw_mark_begin(&mark, monday);
    safe = mark.safe[1] = mark.epoch;
    later = safe + 1;
    for (boot = 0; boot < 40; boot++) {
        mw_mark_continue(&mark, boot % 2 ? monday : tuesday);
        assert_true(mw_mark_trusts(&mark, mark.epoch));
        assert_false(mw_mark_trusts(&mark, later));
        assert_int_equal(mw_mark_trusts(&mark, safe), boot + 1 < MW_MARK_BOOTS);
    }
}

static void test_what_was_cleared_is_not_trusted(void **state)
{
    mw_mark_t mark;

    (void)state;
    mw_mark_begin(&mark, monday);
    mark.cleared = mark.epoch++;
    assert_false(mw_mark_trusts(&mark, mark.cleared));
    assert_true(mw_mark_trusts(&mark, mark.epoch));
}

static void test_the_boot_is_the_same_all_day(void **state)
{
    unsigned char a[16], b[16];

    (void)state;
    mw_mark_boot(a);
    mw_mark_boot(b);
    assert_memory_equal(a, b, sizeof(a));
    if (access("/proc/sys/kernel/random/boot_id", R_OK) == 0) {
        memset(b, 0, sizeof(b));
        assert_memory_not_equal(a, b, sizeof(a));
    }
}

int main(void)
{
#define PLACE_TEST(f) \
    cmocka_unit_test_setup_teardown(f, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        PLACE_TEST(test_mark_comes_back),
        PLACE_TEST(test_half_a_mark_leaves_the_one_before),
        PLACE_TEST(test_a_link_is_no_mark),
        cmocka_unit_test(test_levels_that_there_cannot_be_make_no_mark),
        cmocka_unit_test(test_entries_of_this_boot_are_trusted),
        cmocka_unit_test(test_after_a_boot_what_was_not_safe_is_not_trusted),
        cmocka_unit_test(test_what_was_not_safe_never_becomes_it),
        cmocka_unit_test(test_what_was_cleared_is_not_trusted),
        cmocka_unit_test(test_the_boot_is_the_same_all_day),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
