/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apr_general.h"

#include "core/namespace.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static int setup(void **state)
{
    return apr_pool_create((apr_pool_t **)state, NULL) != APR_SUCCESS;
}

static int teardown(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

static void test_namespace_is_server_name_and_port(void **state)
{
    mw_site_t sites[] = {
        { .host = "Shop.Example", .port = 8080, .is_main = 1 },
        { .host = "wiki.example" },
        { .host = "wiki.example", .port = 443 },
        { .host = NULL, .port = 1 },
    };

    mw_namespaces_resolve(sites, COUNT(sites), "n", *state);
    assert_string_equal(sites[0].name_space, "shop.example:8080");
    assert_string_equal(sites[1].name_space, "wiki.example:80");
    assert_string_equal(sites[2].name_space, "wiki.example:443");
    assert_string_equal(sites[3].name_space, ":1");
    assert_int_equal(sites[0].rival, -1);
    assert_int_equal(sites[2].rival, -1);
}

/* httpd gives a virtual host without ServerName the main server's. */
static void test_namespace_main_server_gives_way(void **state)
{
    mw_site_t sites[] = {
        { .host = "a", .port = 80, .is_main = 1 },
        { .host = "A" },
    };

    mw_namespaces_resolve(sites, COUNT(sites), "n", *state);
    assert_string_equal(sites[0].name_space, "a:80@main");
    assert_string_equal(sites[1].name_space, "a:80");
    assert_int_equal(sites[0].rival, -1);
    assert_int_equal(sites[1].rival, -1);
}

static void test_namespace_addresses_tell_hosts_apart(void **state)
{
    mw_site_t sites[] = {
        { .host = "a", .address = "10.0.0.1:80" },
        { .host = "a", .address = "10.0.0.2:80" },
        { .host = "a" },
        { .host = "b", .address = "10.0.0.3:80" },
    };

    mw_namespaces_resolve(sites, COUNT(sites), "n", *state);
    assert_string_equal(sites[0].name_space, "a:80@10.0.0.1:80");
    assert_string_equal(sites[1].name_space, "a:80@10.0.0.2:80");
    assert_string_equal(sites[2].name_space, "a:80");
    assert_string_equal(sites[3].name_space, "b:80");
    assert_int_equal(sites[0].rival, -1);
}

/* Else a page of one would come from the other, after a change of order. */
static void test_namespace_equal_hosts_change_with_each_start(void **state)
{
    mw_site_t sites[] = {
        { .host = "b" },
        { .host = "a" },
        { .host = "A" },
        { .host = "a", .port = 80 },
        { .host = "c", .address = "10.0.0.1:80" },
        { .host = "c", .address = "10.0.0.1:80" },
    };

    mw_namespaces_resolve(sites, COUNT(sites), "5f", *state);
    assert_string_equal(sites[0].name_space, "b:80");
    assert_string_equal(sites[1].name_space, "a:80#1.5f");
    assert_string_equal(sites[2].name_space, "a:80#2.5f");
    assert_string_equal(sites[3].name_space, "a:80#3.5f");
    assert_string_equal(sites[4].name_space, "c:80@10.0.0.1:80#1.5f");
    assert_string_equal(sites[5].name_space, "c:80@10.0.0.1:80#2.5f");
    assert_int_equal(sites[0].rival, -1);
    assert_int_equal(sites[1].rival, 2);
    assert_int_equal(sites[2].rival, 1);
    assert_int_equal(sites[3].rival, 1);
    assert_int_equal(sites[5].rival, 4);
}

static void test_namespace_chosen_ones_stay(void **state)
{
    mw_site_t sites[] = {
        { .host = "a", .chosen = "Shop" },
        { .host = "a", .chosen = "Shop", .address = "10.0.0.1:80" },
        { .host = "a" },
        { .host = "x", .chosen = "a:80" },
    };

    mw_namespaces_resolve(sites, COUNT(sites), "n", *state);
    assert_string_equal(sites[0].name_space, "Shop");
    assert_string_equal(sites[1].name_space, "Shop");
    assert_string_equal(sites[2].name_space, "a:80");
    assert_string_equal(sites[3].name_space, "a:80");
    assert_int_equal(sites[0].rival, -1);
    assert_int_equal(sites[2].rival, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_namespace_is_server_name_and_port,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_namespace_main_server_gives_way,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_namespace_addresses_tell_hosts_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_namespace_equal_hosts_change_with_each_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_namespace_chosen_ones_stay, setup,
                                        teardown),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
