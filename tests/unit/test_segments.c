/* SPDX-License-Identifier: Apache-2.0 */

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_general.h"
#include "apr_pools.h"

#include "tests/unit/shared.h"

#define SIZE 100000

/** What each version of a list begins with. */
typedef struct prefix_t {
    apr_uint64_t magic;
    apr_uint32_t version;
    apr_uint32_t size;
} prefix_t;

static mw_segments_t *list_begin(void **memory, apr_pool_t *pool)
{
    mw_segments_t *list;

    if (!*memory) {
        *memory = apr_pcalloc(pool, mw_segments_size());
    }
    list = mw_segments_begin(*memory, pool);
    assert_ptr_equal(list, *memory);
    return list;
}

static unsigned char *segment_get(mw_segments_t *list, const char *name,
                                  apr_size_t size, apr_uint64_t layout,
                                  int expected_new)
{
    void *base;
    int is_new = -1;

    assert_int_equal(mw_segment_get(list, name, size, layout, &base, &is_new),
                     APR_SUCCESS);
    assert_int_equal(is_new, expected_new);
    assert_int_equal((apr_uintptr_t)base % sysconf(_SC_PAGESIZE), 0);
    return base;
}

/** Shared anonymous memory that this process has mapped, in bytes. */
static size_t mapped_bytes(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[4096];
    size_t sum = 0;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        unsigned long first;
        unsigned long last;

        if (strstr(line, "/dev/zero")
            && sscanf(line, "%lx-%lx", &first, &last) == 2) {
            sum += last - first;
        }
    }
    fclose(file);
    return sum;
}

static void bytes_check(const unsigned char *base, size_t size, int byte)
{
    size_t i;

    for (i = 0; i < size; i++) {
        assert_int_equal(base[i], byte);
    }
}

/* A graceful restart keeps what is cached. */
static void test_segments_kept_over_generations(void **state)
{
    mw_segments_t *list;
    void *memory = NULL;
    unsigned char *base;
    int i;

    list = list_begin(&memory, *state);
    base = segment_get(list, "hot", SIZE, 1, 1);
    bytes_check(base, SIZE, 0);
    memset(base, 0x5a, SIZE);
    mw_segments_end(list);
    for (i = 0; i < 5; i++) {
        list = list_begin(&memory, *state);
        assert_ptr_equal(segment_get(list, "hot", SIZE, 1, 0), base);
        bytes_check(base, SIZE, 0x5a);
        mw_segments_end(list);
    }
}

static void test_segments_told_apart(void **state)
{
    mw_segments_t *list;
    void *memory = NULL;
    unsigned char *base;

    list = list_begin(&memory, *state);
    base = segment_get(list, "hot", SIZE, 1, 1);
    assert_ptr_not_equal(segment_get(list, "hot ", SIZE, 1, 1), base);
    assert_ptr_not_equal(segment_get(list, "hot", SIZE + 1, 1, 1), base);
    assert_ptr_not_equal(segment_get(list, "hot", SIZE, 2, 1), base);
    assert_ptr_equal(segment_get(list, "hot", SIZE, 1, 0), base);
    mw_segments_end(list);
}

/* Size or layout changed: an empty segment, and the old one does not stay. */
static void test_segments_replaced_when_changed(void **state)
{
    const size_t before = mapped_bytes();
    mw_segments_t *list;
    void *memory = NULL;
    size_t one;

    list = list_begin(&memory, *state);
    memset(segment_get(list, "hot", SIZE, 1, 1), 0x5a, SIZE);
    mw_segments_end(list);
    one = mapped_bytes();
    assert_true(one >= before + SIZE);

    list = list_begin(&memory, *state);
    bytes_check(segment_get(list, "hot", SIZE, 2, 1), SIZE, 0);
    mw_segments_end(list);
    assert_int_equal(mapped_bytes(), one);

    list = list_begin(&memory, *state);
    bytes_check(segment_get(list, "hot", 2 * SIZE, 2, 1), 2 * SIZE, 0);
    mw_segments_end(list);
    assert_in_range(mapped_bytes() - one, SIZE - 4096, SIZE + 4096);

    list = list_begin(&memory, *state);
    mw_segments_end(list);
    assert_int_equal(mapped_bytes(), before);
}

/* Each configuration names some stores of the one before and some new ones. */
static void test_segments_do_not_pile_up(void **state)
{
    const size_t before = mapped_bytes();
    mw_segments_t *list;
    void *memory = NULL;
    size_t steady = 0;
    int generation;
    int i;

    for (generation = 0; generation < 100; generation++) {
        list = list_begin(&memory, *state);
        for (i = 0; i < 20; i++) {
            char name[16];

            apr_snprintf(name, sizeof(name), "s%d", generation / 2 + i);
            *segment_get(list, name, SIZE, 1,
                         !generation || (i == 19 && generation % 2 == 0)) = 1;
        }
        mw_segments_end(list);
        if (!generation) {
            steady = mapped_bytes();
        }
        assert_int_equal(mapped_bytes(), steady);
    }
    list = list_begin(&memory, *state);
    mw_segments_end(list);
    assert_int_equal(mapped_bytes(), before);
}

/* A child of the old configuration goes on with what it has. */
static void test_segments_children_keep_theirs(void **state)
{
    mw_segments_t *list;
    void *memory = NULL;
    unsigned char *base;
    int pipes[2][2];
    int status;
    char byte;
    pid_t pid;

    assert_int_equal(pipe(pipes[0]), 0);
    assert_int_equal(pipe(pipes[1]), 0);
    list = list_begin(&memory, *state);
    base = segment_get(list, "hot", SIZE, 1, 1);
    mw_segments_end(list);
    pid = fork();
    assert_int_not_equal(pid, -1);
    if (!pid) {
        base[0] = 1;
        if (write(pipes[0][1], "x", 1) != 1
            || read(pipes[1][0], &byte, 1) != 1) {
            _exit(1);
        }
        base[SIZE - 1] = 2;
        _exit(base[0] == 3 ? 0 : 2);
    }
    assert_int_equal(read(pipes[0][0], &byte, 1), 1);
    assert_int_equal(base[0], 1);
    base[0] = 3;
    list = list_begin(&memory, *state);
    mw_segments_end(list);
    assert_int_equal(write(pipes[1][1], "x", 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(pipes[0][0]);
    close(pipes[0][1]);
    close(pipes[1][0]);
    close(pipes[1][1]);
}

/* What another build left is freed, never used. */
static void test_segments_of_another_build_are_dropped(void **state)
{
    const size_t before = mapped_bytes();
    mw_segments_t *list;
    void *memory = NULL;

    list = list_begin(&memory, *state);
    memset(segment_get(list, "hot", SIZE, 1, 1), 0x5a, SIZE);
    mw_segments_end(list);
    ((prefix_t *)memory)->version++;

    list = list_begin(&memory, *state);
    assert_int_equal(mapped_bytes(), before);
    bytes_check(segment_get(list, "hot", SIZE, 1, 1), SIZE, 0);
    mw_segments_end(list);
    ((prefix_t *)memory)->version++;
    ((prefix_t *)memory)->size -= 8;

    assert_null(mw_segments_begin(memory, *state));
    assert_int_equal(mapped_bytes(), before);
    assert_null(mw_segments_begin(memory, *state));
    memory = NULL;
    list = list_begin(&memory, *state);
    segment_get(list, "hot", SIZE, 1, 1);
    mw_segments_end(list);
}

static void test_segments_impossible_sizes(void **state)
{
    mw_segments_t *list;
    void *memory = NULL;
    void *base;
    int is_new;

    list = list_begin(&memory, *state);
    assert_int_equal(mw_segment_get(list, "x", 0, 1, &base, &is_new),
                     APR_EINVAL);
    assert_int_equal(mw_segment_get(list, "x", APR_SIZE_MAX, 1, &base, &is_new),
                     APR_EINVAL);
    assert_int_not_equal(
        mw_segment_get(list, "x", APR_SIZE_MAX / 2, 1, &base, &is_new),
        APR_SUCCESS);
    segment_get(list, "x", 1, 1, 1);
    mw_segments_end(list);
}

#define POOLED(f) \
    cmocka_unit_test_setup_teardown(f, shared_pool_setup, shared_pool_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOLED(test_segments_kept_over_generations),
        POOLED(test_segments_told_apart),
        POOLED(test_segments_replaced_when_changed),
        POOLED(test_segments_do_not_pile_up),
        POOLED(test_segments_children_keep_theirs),
        POOLED(test_segments_of_another_build_are_dropped),
        POOLED(test_segments_impossible_sizes),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
