/* SPDX-License-Identifier: Apache-2.0 */

/* Providers that were compiled against the frozen header of version 1 find
 * everything where they left it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "layout.h"
#include "mod_cachemw.h"

/* What alignment may leave free between two members. */
#define PADDING 8

static const layout_row_t *row_find(const char *name)
{
    int i;

    for (i = 0; i < layout_present_count; i++) {
        if (!strcmp(layout_present[i].name, name)) {
            return &layout_present[i];
        }
    }
    return NULL;
}

static int row_is_same(const layout_row_t *then, const layout_row_t *now)
{
    return then->offset == now->offset && then->value == now->value
           && (then->size == now->size
               || (then->grows && now->grows && then->size < now->size))
           && !strcmp(then->text ? then->text : "", now->text ? now->text : "");
}

static void test_everything_is_where_it_was(void **state)
{
    const layout_row_t *now;
    int i;

    (void)state;
    for (i = 0; i < layout_frozen_count; i++) {
        now = row_find(layout_frozen[i].name);
        if (!now || !row_is_same(&layout_frozen[i], now)) {
            fail_msg("%s is not what it is in version 1 of the contract",
                     layout_frozen[i].name);
        }
    }
}

/* A member without a row could move unseen. */
static void test_no_member_is_left_out(void **state)
{
    const layout_row_t *type = NULL, *row;
    size_t end = 0;
    int i, types = 0;

    (void)state;
    for (i = 0; i <= layout_frozen_count; i++) {
        row = i < layout_frozen_count ? &layout_frozen[i] : NULL;
        if (row && strchr(row->name, '.')) {
            assert_non_null(type);
            assert_memory_equal(row->name, type->name, strlen(type->name));
            assert_in_range(row->offset, end, end + PADDING - 1);
            end = row->offset + row->size;
            continue;
        }
        if (type && end) {
            assert_in_range(type->size, end, end + PADDING - 1);
            types++;
        }
        type = row && row->size ? row : NULL;
        end = 0;
    }
    assert_int_equal(types, 9);
}

static void test_tables_tell_what_they_have(void **state)
{
    cachemw_provider_t table = { .size = sizeof(table) };

    (void)state;
    assert_true(CACHEMW_HAS(&table, sync_interval));
    table.size = offsetof(cachemw_provider_t, sync);
    assert_false(CACHEMW_HAS(&table, sync_interval));
    assert_false(CACHEMW_HAS(&table, sync));
    assert_true(CACHEMW_HAS(&table, watch));
    table.size++;
    assert_false(CACHEMW_HAS(&table, sync));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_where_it_was),
        cmocka_unit_test(test_no_member_is_left_out),
        cmocka_unit_test(test_tables_tell_what_they_have),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
