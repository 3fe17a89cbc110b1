/* SPDX-License-Identifier: Apache-2.0 */

#include "test_memory_world.h"

static const apr_uint64_t sizes[] = {
    0,     1,     7,     127,    128,    129,    1024,          10240,
    65535, 65536, 65537, 102400, 262143, 262144, (1 << 20) - 1, 1 << 20,
};

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void test_get_gives_what_was_set(void **state)
{
    setting_t setting = { .size = 16 << 20 };
    world_t *w = world_make(setting);
    apr_size_t i;

    (void)state;
    for (i = 0; i < SIZES; i++) {
        const char *key = apr_psprintf(w->pool, "/size/%d", (int)i);
        apr_uint64_t seed = 0;

        assert_int_equal(get(w, key, NULL), APR_NOTFOUND);
        assert_int_equal(put(w, key, i + 1, sizes[i]), APR_SUCCESS);
        assert_int_equal(get(w, key, &seed), APR_SUCCESS);
        assert_int_equal(seed, i + 1);
    }
    for (i = 0; i < SIZES; i++) {
        const char *key = apr_psprintf(w->pool, "/size/%d", (int)i);

        assert_int_equal(get(w, key, NULL), APR_SUCCESS);
        assert_int_equal(del(w, key, NULL), APR_SUCCESS);
        assert_int_equal(get(w, key, NULL), APR_NOTFOUND);
    }
    assert_empty(w);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_gives_what_was_set),
    };

    return cmocka_run_group_tests(tests, group_begin, group_end);
}
