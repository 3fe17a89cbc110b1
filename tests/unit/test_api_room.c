/* SPDX-License-Identifier: Apache-2.0 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "apr_atomic.h"
#include "apr_general.h"

#include "core/api_room.h"

#define MOST APR_UINT64_C(1000)

static int setup(void **state)
{
    apr_pool_t *pool;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    *state = pool;
    return 0;
}

static int teardown(void **state)
{
    apr_pool_destroy(*state);
    apr_terminate();
    return 0;
}

static void test_rooms_have_the_most_together(void **state)
{
    mw_api_room_t *one = mw_api_room_make(MOST, *state);
    mw_api_room_t *other = mw_api_room_make(MOST, *state);

    assert_true(mw_api_room_take(one, MOST - 1));
    assert_false(mw_api_room_take(other, 2));
    assert_true(mw_api_room_take(other, 1));
    assert_false(mw_api_room_take(one, 1));
    assert_true(mw_api_room_take(one, 0));
    mw_api_room_give(one);
    assert_false(mw_api_room_take(one, MOST));
    assert_true(mw_api_room_take(one, MOST - 1));
    assert_false(mw_api_room_take(one, ~APR_UINT64_C(0)));
}

static void test_room_ends_with_its_pool(void **state)
{
    apr_pool_t *pool;
    mw_api_room_t *one = mw_api_room_make(MOST, *state);

    apr_pool_create(&pool, *state);
    assert_true(mw_api_room_take(mw_api_room_make(MOST, pool), MOST));
    assert_false(mw_api_room_take(one, 1));
    apr_pool_destroy(pool);
    assert_true(mw_api_room_take(one, MOST));
}

static volatile apr_uint32_t is_over;

static void *refused(void *room)
{
    apr_uint32_t n = 0;

    while (!apr_atomic_read32(&is_over)) {
        n += mw_api_room_take(room, MOST) != 0;
    }
    return n ? room : NULL;
}

static void test_what_is_refused_pushes_nothing_out(void **state)
{
    mw_api_room_t *first = mw_api_room_make(MOST, *state);
    mw_api_room_t *large = mw_api_room_make(MOST, *state);
    mw_api_room_t *small = mw_api_room_make(MOST, *state);
    int lost = 0, i;
    pthread_t thread;
    void *taken;

    assert_true(mw_api_room_take(first, 1));
    assert_int_equal(pthread_create(&thread, NULL, refused, large), 0);
    for (i = 0; i < 200000; i++) {
        lost += !mw_api_room_take(small, 1);
        mw_api_room_give(small);
    }
    apr_atomic_set32(&is_over, 1);
    pthread_join(thread, &taken);
    assert_null(taken);
    assert_int_equal(lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rooms_have_the_most_together,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_room_ends_with_its_pool, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_what_is_refused_pushes_nothing_out,
                                        setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
