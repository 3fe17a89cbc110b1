/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The mark of a directory of files while many processes write it: what one of
 * them was told is on the disk, is there, whoever else wrote and died.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/options.h"
#include "providers/file/dir.h"
#include "providers/file/file.h"
#include "tests/unit/shared.h"

#define PROVIDER (&mw_file_provider)
#define WRITERS 4
#define ROUNDS 60

/** What the writers were told. */
typedef struct told_t {
    apr_uint64_t cleared;
    apr_uint64_t stamped;
} told_t;

typedef struct place_t {
    fake_t fake;
    apr_pool_t *pool;
    char *path;
    mw_file_t *file;
    told_t *told;
} place_t;

static volatile int is_held_up;
static int is_lost; /* what is written */
static int fault;   /* of what is written */
static int writes;
static int waits; /* for the disk */

/** In place of the system's, for the mark. */
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    writes++;
    if (is_held_up) {
        is_held_up = 0;
        raise(SIGSTOP);
    }
    if (is_lost) {
        return (ssize_t)length;
    }
    if (fault) {
        /* Part of it may be there. */
        syscall(SYS_pwrite64, fd, bytes, length / 2, at);
        errno = fault;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, length, at);
}

int fdatasync(int fd)
{
    waits++;
    return (int)syscall(SYS_fdatasync, fd);
}

static int is_root;
static ino_t kept_inode; /* of a directory that cannot be given away */
static int given;        /* directories */

/** In place of the system's, for who makes the directory. */
uid_t geteuid(void)
{
    return is_root ? 0 : (uid_t)syscall(SYS_geteuid);
}

int fchown(int fd, uid_t owner, gid_t group)
{
    struct stat info;

    (void)owner, (void)group;
    assert_int_equal(fstat(fd, &info), 0);
    if (info.st_ino == kept_inode) {
        errno = EIO;
        return -1;
    }
    given++;
    return 0;
}

static int place_setup(void **state)
{
    mw_options_t options = { PROVIDER->options, NULL };
    place_t *place = calloc(1, sizeof(*place));
    const char *words[2] = { NULL, "index_size=1M" };
    const char *error;
    void *store;

    apr_pool_create(&place->pool, NULL);
    place->path = shared_temp("dir", place->pool);
    assert_non_null(mkdtemp(place->path));
    place->told = shared_make(sizeof(*place->told));
    fake_begin(&place->fake, "dir");
    words[0] = apr_pstrcat(place->pool, "cache_dir=", place->path, NULL);
    assert_null(mw_options_parse(&options, 1, words, 2, "/", place->pool));
    assert_int_equal(PROVIDER->open(&place->fake.services, options.values,
                                    place->pool, &store, &error),
                     APR_SUCCESS);
    assert_int_equal(PROVIDER->post_config(store, place->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(PROVIDER->child_init(store, place->pool), APR_SUCCESS);
    place->file = store;
    assert_true(mw_dir_is_had(place->file));
    writes = waits = 0;
    *state = place;
    return 0;
}

static void place_delete(const place_t *place)
{
    unlinkat(place->file->root, "mark", 0);
    unlinkat(place->file->root, "tmp", AT_REMOVEDIR);
    rmdir(place->file->root_path);
}

static int place_teardown(void **state)
{
    place_t *place = *state;

    place_delete(place);
    rmdir(place->path);
    PROVIDER->close(place->file);
    apr_pool_destroy(place->pool);
    fake_end(&place->fake);
    free(place);
    return 0;
}

static void raise_to(apr_uint64_t *to, apr_uint64_t value)
{
    apr_uint64_t is = MW_FILE_LOAD(to);

    while (is < value
           && !__atomic_compare_exchange_n(to, &is, value, 0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE)) {
    }
}

static void place_write(place_t *place, apr_uint32_t *seed)
{
    mw_file_t *file = place->file;

    raise_to(&place->told->stamped, mw_dir_stamp(file));
    if (random_next(seed) % 4 == 0) {
        mw_dir_sync(file);
    }
    else {
        apr_uint64_t before = MW_FILE_LOAD(&file->shared->mark.epoch);

        if (mw_dir_clear(file) == APR_SUCCESS) {
            raise_to(&place->told->cleared, before);
        }
    }
}

static void place_write_often(void *baton, int i)
{
    apr_uint32_t seed = (apr_uint32_t)i + 1;
    int n;

    for (n = 0; n < ROUNDS; n++) {
        place_write(baton, &seed);
    }
}

static void assert_told_is_on_disk(const place_t *place)
{
    const mw_file_shared_t *shared = place->file->shared;
    mw_mark_t mark;

    assert_int_equal(mw_mark_read(place->file->root, &mark), APR_SUCCESS);
    assert_true(mark.cleared >= place->told->cleared);
    /* Who died may have written it, and not said so. */
    assert_true(mark.number <= shared->mark.number + 1);
    assert_true(shared->stamped >= place->told->stamped);
    assert_memory_equal(mark.owner, shared->owner, sizeof(mark.owner));
}

static void test_writers_at_once_lose_nothing(void **state)
{
    place_t *place = *state;
    mw_mark_t mark;

    processes_run(WRITERS, place_write_often, place);
    assert_told_is_on_disk(place);
    /* On a slow disk some gave up, whose clears nobody has noted. */
    assert_int_equal(mw_dir_clear(place->file), APR_SUCCESS);
    assert_int_equal(mw_mark_read(place->file->root, &mark), APR_SUCCESS);
    assert_int_equal(mark.number, place->file->shared->mark.number);
    assert_int_equal(mark.cleared, place->file->shared->mark.cleared);
}

static pid_t writer_start(place_t *place, apr_uint32_t seed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    while (!pid) {
        place_write(place, &seed);
    }
    return pid;
}

static void test_writers_that_are_killed_are_in_nobodys_way(void **state)
{
    place_t *place = *state;
    struct timespec pause = { 0, 0 };
    apr_uint32_t seed = (apr_uint32_t)time(NULL);
    pid_t pids[WRITERS];
    int i;

    printf("seed %u\n", seed);
    for (i = 0; i < WRITERS; i++) {
        pids[i] = writer_start(place, random_next(&seed));
    }
    for (i = 0; i < ROUNDS; i++) {
        pause.tv_nsec = random_next(&seed) % 5000000;
        nanosleep(&pause, NULL);
        child_kill(pids[i % WRITERS]);
        pids[i % WRITERS] = writer_start(place, random_next(&seed));
    }
    for (i = 0; i < WRITERS; i++) {
        child_kill(pids[i]);
    }
    assert_told_is_on_disk(place);
    assert_int_equal(mw_dir_clear(place->file), APR_SUCCESS);
    assert_told_is_on_disk(place);
}

/* Between taking a number and writing it, too. */
static void test_a_writer_that_is_held_up_overwrites_nothing(void **state)
{
    place_t *place = *state;
    apr_uint32_t seed = 1;
    pid_t pid = fork();
    int i, status;

    assert_true(pid >= 0);
    if (!pid) {
        is_held_up = 1;
        _exit(mw_dir_clear(place->file) != APR_SUCCESS);
    }
    child_await_stop(pid);
    place->file->stuck = 1; /* so that nobody waits here */
    for (i = 0; i < 8; i++) {
        place_write(place, &seed);
    }
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_told_is_on_disk(place);
    assert_int_equal(mw_dir_clear(place->file), APR_SUCCESS);
    assert_told_is_on_disk(place);
}

/* The epoch that ends is not safe before who took its number is done. */
static void test_two_syncs_make_an_epoch_safe(void **state)
{
    place_t *place = *state;
    mw_file_t *file = place->file;
    apr_uint64_t epoch = mw_dir_stamp(file);
    apr_uint64_t number;
    mw_mark_t mark;

    assert_int_equal(mw_dir_sync(file), APR_SUCCESS);
    assert_int_equal(mw_mark_read(file->root, &mark), APR_SUCCESS);
    assert_true(mark.safe[(epoch >> 32) % MW_MARK_BOOTS] < epoch);
    assert_int_equal(mw_dir_sync(file), APR_SUCCESS);
    assert_int_equal(mw_mark_read(file->root, &mark), APR_SUCCESS);
    assert_int_equal(mark.safe[(epoch >> 32) % MW_MARK_BOOTS], epoch);
    number = mark.number;
    assert_int_equal(mw_dir_sync(file), APR_SUCCESS);
    assert_int_equal(mw_mark_read(file->root, &mark), APR_SUCCESS);
    assert_int_equal(mark.number, number);
}

/* The other copy is the last good one then. */
static void test_a_failed_write_leaves_the_last_mark(void **state)
{
    place_t *place = *state;
    mw_file_t *file = place->file;
    mw_mark_t mark;
    int i;

    assert_int_equal(mw_dir_clear(file), APR_SUCCESS);
    place->told->cleared = file->shared->mark.cleared;
    fault = EIO;
    for (i = 0; i < 3; i++) {
        assert_int_equal(mw_dir_clear(file), EIO);
        assert_told_is_on_disk(place);
    }
    fault = 0;
    assert_int_equal(mw_dir_clear(file), APR_SUCCESS);
    assert_int_equal(mw_mark_read(file->root, &mark), APR_SUCCESS);
    assert_int_equal(mark.cleared, file->shared->mark.cleared);
}

static void test_who_begins_has_a_mark_on_the_disk(void **state)
{
    place_t *place = *state;

    place_delete(place);
    mw_dir_leave(place->file);
    assert_int_equal(mw_dir_begin(place->file), APR_SUCCESS);
    assert_true(mw_dir_is_had(place->file));
    assert_int_equal(writes, 1);
    assert_int_equal(waits, 1);
}

static void test_a_request_marks_without_waiting_for_the_disk(void **state)
{
    place_t *place = *state;
    mw_file_t *file = place->file;

    place_delete(place);
    mw_dir_doubt(file);
    assert_false(mw_dir_is_had(file));
    assert_int_equal(mw_dir_need(file, 0), APR_SUCCESS);
    assert_told_is_on_disk(place);
    assert_int_equal(writes, 1);
    assert_int_equal(waits, 0);
    mw_dir_stamp(file);
    assert_int_equal(mw_dir_sync(file), APR_SUCCESS);
    assert_int_equal(waits, 1);
}

/* It waits for the disk, maybe. */
static void test_a_request_does_not_wait_for_who_marks(void **state)
{
    place_t *place = *state;
    mw_file_t *file = place->file;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        is_held_up = 1;
        mw_dir_clear(file);
        _exit(0);
    }
    child_await_stop(pid);
    place_delete(place);
    mw_dir_doubt(file);
    assert_int_equal(mw_dir_need(file, 0), EAGAIN);
    assert_false(file->stuck);
    child_kill(pid);
    assert_int_equal(mw_dir_need(file, APR_USEC_PER_SEC), APR_SUCCESS);
    assert_told_is_on_disk(place);
}

static void test_a_mark_that_does_not_stay_is_given_up(void **state)
{
    place_t *place = *state;

    place_delete(place);
    mw_dir_leave(place->file);
    is_lost = 1;
    assert_int_equal(mw_dir_begin(place->file), APR_SUCCESS);
    is_lost = 0;
    assert_false(mw_dir_is_had(place->file));
    assert_int_equal(place->file->trouble, EBUSY);
    assert_int_equal(writes, 3);
    assert_int_equal(mw_dir_need(place->file, APR_USEC_PER_SEC), APR_SUCCESS);
}

/* Another user's children could neither read nor write there. */
static void test_a_directory_that_cannot_be_given_away_is_told(void **state)
{
    place_t *place = *state;
    mw_file_t *file = place->file;
    const uid_t other = geteuid() + 1;
    struct stat below;
    int is_made;

    assert_int_equal(mkdirat(file->root, "ab", 0700), 0);
    assert_int_equal(mkdirat(file->root, "ab/cd", 0700), 0);
    assert_int_equal(fstatat(file->root, "ab/cd", &below, 0), 0);
    is_root = 1;
    given = 0;
    assert_int_equal(mw_dir_make(file, other, 0, &is_made, place->pool),
                     APR_SUCCESS);
    assert_in_range(given, 4, 5); /* v1, tmp, ab, cd; the top if not root's */
    kept_inode = below.st_ino;
    assert_int_equal(mw_dir_make(file, other, 0, &is_made, place->pool), EIO);
    kept_inode = 0;
    is_root = 0;
    unlinkat(file->root, "ab/cd", AT_REMOVEDIR);
    unlinkat(file->root, "ab", AT_REMOVEDIR);
}

int main(void)
{
#define PLACE_TEST(f) \
    cmocka_unit_test_setup_teardown(f, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        PLACE_TEST(test_writers_at_once_lose_nothing),
        PLACE_TEST(test_writers_that_are_killed_are_in_nobodys_way),
        PLACE_TEST(test_a_writer_that_is_held_up_overwrites_nothing),
        PLACE_TEST(test_two_syncs_make_an_epoch_safe),
        PLACE_TEST(test_a_failed_write_leaves_the_last_mark),
        PLACE_TEST(test_who_begins_has_a_mark_on_the_disk),
        PLACE_TEST(test_a_request_marks_without_waiting_for_the_disk),
        PLACE_TEST(test_a_request_does_not_wait_for_who_marks),
        PLACE_TEST(test_a_mark_that_does_not_stay_is_given_up),
        PLACE_TEST(test_a_directory_that_cannot_be_given_away_is_told),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
