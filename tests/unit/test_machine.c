/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "apr_file_io.h"
#include "apr_general.h"
#include "apr_strings.h"

#include "providers/memory/machine.h"

/** A directory that stands for the root of the file system. */
typedef struct root_t {
    apr_pool_t *pool;
    char path[64];
} root_t;

static int setup(void **state)
{
    root_t *root = calloc(1, sizeof(*root));

    if (!root || apr_pool_create(&root->pool, NULL) != APR_SUCCESS) {
        return 1;
    }
    apr_cpystrn(root->path, "/tmp/cachemw-machine-XXXXXX", sizeof(root->path));
    *state = root;
    return mkdtemp(root->path) == NULL;
}

static void directory_remove(const char *path, apr_pool_t *pool)
{
    apr_finfo_t info;
    apr_dir_t *dir;

    assert_int_equal(apr_dir_open(&dir, path, pool), APR_SUCCESS);
    while (apr_dir_read(&info, APR_FINFO_NAME | APR_FINFO_TYPE, dir)
           == APR_SUCCESS) {
        const char *name = apr_pstrcat(pool, path, "/", info.name, NULL);

        if (info.filetype != APR_DIR) {
            apr_file_remove(name, pool);
        }
        else if (info.name[0] != '.') {
            directory_remove(name, pool);
        }
    }
    apr_dir_close(dir);
    apr_dir_remove(path, pool);
}

static int teardown(void **state)
{
    root_t *root = *state;

    directory_remove(root->path, root->pool);
    apr_pool_destroy(root->pool);
    free(root);
    return 0;
}

static void put(root_t *root, const char *name, const char *text)
{
    char *path = apr_pstrcat(root->pool, root->path, name, NULL);
    char *slash = strrchr(path, '/');
    apr_file_t *file;

    *slash = '\0';
    apr_dir_make_recursive(path, APR_FPROT_OS_DEFAULT, root->pool);
    *slash = '/';
    assert_int_equal(
        apr_file_open(&file, path,
                      APR_FOPEN_WRITE | APR_FOPEN_CREATE | APR_FOPEN_TRUNCATE,
                      APR_FPROT_OS_DEFAULT, root->pool),
        APR_SUCCESS);
    assert_int_equal(apr_file_puts(text, file), APR_SUCCESS);
    apr_file_close(file);
}

static mw_machine_t found(const root_t *root)
{
    mw_machine_t machine;

    mw_machine_memory(&machine, root->path);
    return machine;
}

static void assert_group_allows(const root_t *root, apr_uint64_t bytes)
{
    mw_machine_t machine = found(root);

    assert_int_equal(machine.bytes, bytes);
    assert_string_equal(machine.what, "its control group allows");
}

static void assert_group_allows_all(const root_t *root)
{
    mw_machine_t machine = found(root);

    assert_true(machine.bytes > 1024 * 1024);
    assert_string_equal(machine.what, "the machine has");
}

static void test_machine_without_control_groups(void **state)
{
    assert_group_allows_all(*state);
}

static void test_machine_version_2(void **state)
{
    put(*state, "/proc/self/cgroup", "0::/system.slice/httpd.service\n");
    put(*state, "/sys/fs/cgroup/system.slice/httpd.service/memory.max",
        "max\n");
    assert_group_allows_all(*state);
    put(*state, "/sys/fs/cgroup/system.slice/httpd.service/memory.max",
        "65536\n");
    assert_group_allows(*state, 65536);
}

/* The least counts, of the group and those around it. */
static void test_machine_groups_around(void **state)
{
    put(*state, "/proc/self/cgroup", "0::/a/b/c\n");
    put(*state, "/sys/fs/cgroup/a/b/c/memory.max", "500000\n");
    put(*state, "/sys/fs/cgroup/a/b/memory.max", "max\n");
    put(*state, "/sys/fs/cgroup/a/memory.max", "300000\n");
    put(*state, "/sys/fs/cgroup/memory.max", "400000\n");
    assert_group_allows(*state, 300000);
}

/* The mount shows a container its own group as the root. */
static void test_machine_in_a_container(void **state)
{
    put(*state, "/proc/self/cgroup", "0::/\n");
    put(*state, "/sys/fs/cgroup/memory.max", "70000\n");
    assert_group_allows(*state, 70000);
}

static void test_machine_version_1(void **state)
{
    put(*state, "/proc/self/cgroup",
        "5:devices:/x\n4:hugetlb,memory:/docker/1\n3:cpuset:/y\n0::/z\n");
    put(*state, "/sys/fs/cgroup/devices/x/memory.limit_in_bytes", "1\n");
    put(*state, "/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2\n");
    put(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "9223372036854771712\n");
    assert_group_allows_all(*state);
    put(*state, "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
        "80000\n");
    assert_group_allows(*state, 80000);
}

static void test_machine_lines_that_make_no_sense(void **state)
{
    put(*state, "/proc/self/cgroup", "\n:\n4:memory\n::\nmemory:/\n4:mem:/\n");
    put(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n");
    put(*state, "/sys/fs/cgroup/memory.max", "none\n");
    assert_group_allows_all(*state);
}

static void test_machine_sizes(void **state)
{
    char text[24];

    (void)state;
    mw_machine_size(text, APR_UINT64_C(500) << 30);
    assert_string_equal(text, "500G");
    mw_machine_size(text, APR_UINT64_C(1536) << 20);
    assert_string_equal(text, "1536M");
    mw_machine_size(text, APR_UINT64_C(64) << 20);
    assert_string_equal(text, "64M");
    mw_machine_size(text, APR_UINT64_C(25276510208));
    assert_string_equal(text, "23G");
    mw_machine_size(text, 65536 + 1);
    assert_string_equal(text, "64K");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_machine_without_control_groups),
        TEST(test_machine_version_2),
        TEST(test_machine_groups_around),
        TEST(test_machine_in_a_container),
        TEST(test_machine_version_1),
        TEST(test_machine_lines_that_make_no_sense),
        TEST(test_machine_sizes),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
