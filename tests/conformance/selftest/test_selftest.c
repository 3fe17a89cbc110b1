/* SPDX-License-Identifier: Apache-2.0 */

/* Whether the suite can fail: every broken provider must be caught by the test
 * that is about its fault, and right ones must pass everything. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "apr_general.h"
#include "apr_strings.h"
#include "broken.h"
#include "tests/conformance/conformance.h"
#include "ctl/loader.h"
#include "tests/conformance/reference.h"

#define BROKEN_MAX 100

static const ct_test_t *test_find(const char *name)
{
    int i;

    for (i = 0; ct_test_at(i) != NULL; i++) {
        if (strcmp(ct_test_at(i)->name, name) == 0) {
            return ct_test_at(i);
        }
    }
    fail_msg("there is no test %s", name);
    return NULL;
}

/* A plan for a provider under its own name. */
static void plan_make(ct_plan_t *plan, mw_ctl_store_t *definition,
                      const char *provider)
{
    static const char *const words[] = { "size=4M" };

    memset(plan, 0, sizeof(*plan));
    memset(definition, 0, sizeof(*definition));
    definition->name = "tested";
    definition->provider = provider;
    definition->words = words;
    definition->nwords = 1;
    plan->definitions = definition;
    plan->ndefinitions = 1;
}

/* What cannot be seen under a checker, or by others than root. */
static int may_be_skipped(const ct_broken_t *broken)
{
    return strstr(broken->caught_by, "memory") != NULL
           || strstr(broken->caught_by, "another_user") != NULL;
}

/* A fault between threads or processes shows by chance: what one run in a
 * hundred misses, three in a row do not. */
static void run_until_caught(const ct_plan_t *plan, const ct_broken_t *broken,
                             ct_result_t *result)
{
    int i;

    for (i = 0; i < 3; i++) {
        ct_run(plan, test_find(broken->caught_by), result);
        if (result->verdict != CT_PASSED) {
            return;
        }
    }
}

static void test_broken_provider_is_caught(void **state)
{
    const ct_broken_t *broken = *state;
    mw_ctl_store_t definition;
    ct_result_t result;
    ct_plan_t plan;

    plan_make(&plan, &definition, broken->name);
    plan.seconds = strcmp(broken->saying, "hangs") == 0 ? 4 : 0;
    run_until_caught(&plan, broken, &result);
    if (result.verdict == CT_SKIPPED && may_be_skipped(broken)) {
        print_message("%s\n", result.text);
        skip();
    }
    if (result.verdict != CT_FAILED) {
        fail_msg("a provider that %s passes %s", broken->name,
                 broken->caught_by);
    }
    if (strstr(result.text, broken->saying) == NULL) {
        fail_msg("%s says of a provider that %s: \"%s\", which is not about "
                 "\"%s\"",
                 broken->caught_by, broken->name, result.text, broken->saying);
    }
    definition.provider = "reference";
    plan.seconds = 0;
    ct_run(&plan, test_find(broken->caught_by), &result);
    if (result.verdict == CT_FAILED) {
        fail_msg("%s blames the reference provider: %s", broken->caught_by,
                 result.text);
    }
}

static void test_right_provider_passes(void **state)
{
    const ct_broken_t *right = *state;
    mw_ctl_store_t definition;
    ct_result_t result;
    ct_plan_t plan;
    int i;

    plan_make(&plan, &definition, right->name);
    for (i = 0; ct_test_at(i) != NULL; i++) {
        ct_run(&plan, ct_test_at(i), &result);
        if (result.verdict == CT_FAILED) {
            fail_msg("%s blames a provider that %s: %s", ct_test_at(i)->name,
                     right->name, result.text);
        }
    }
}

static void load_fails(const char *file, const char *saying)
{
    apr_pool_t *pool;
    const char *error;

    apr_pool_create(&pool, NULL);
    error = mw_loader_load(file, pool);
    if (error == NULL) {
        fail_msg("%s was loaded", file);
    }
    else if (strstr(error, saying) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", error, saying);
    }
    apr_pool_destroy(pool);
}

static const char *built_file(const char *name)
{
    static char path[4096];
    const char *build = getenv("CACHEMW_BUILD");

    apr_snprintf(path, sizeof(path), "%s/%s", build != NULL ? build : ".",
                 name);
    return path;
}

static void test_load_of_no_module_says_why(void **state)
{
    (void)state;
    load_fails("/nonexistent/mod_x.so", "cannot read /nonexistent/mod_x.so");
    load_fails("/dev/null", "/dev/null");
}

/* It wants a server around it: all of that is named, not just the first. */
static void test_load_names_all_symbols_that_are_not_offered(void **state)
{
    (void)state;
    load_fails(built_file(".libs/mod_cachemw.so"), "ap_lookup_provider");
    load_fails(built_file(".libs/mod_cachemw.so"),
               "ap_add_output_filter_handle");
}

static void test_load_finds_a_strangers_provider(void **state)
{
    mw_ctl_store_t definition;
    ct_result_t result;
    ct_plan_t plan;
    apr_pool_t *pool;
    const char *error;

    (void)state;
    apr_pool_create(&pool, NULL);
    error = mw_loader_load(built_file("tests/conformance/selftest/.libs/"
                                      "mod_stranger.so"),
                           pool);
    if (error != NULL) {
        fail_msg("%s", error);
    }
    assert_non_null(mw_loader_find("stranger"));
    plan_make(&plan, &definition, "stranger");
    ct_run(&plan, test_find("test_set_and_get"), &result);
    if (result.verdict != CT_PASSED) {
        fail_msg("%s", result.text);
    }
    apr_pool_destroy(pool);
}

static size_t broken_add(struct CMUnitTest *tests, size_t n,
                         const ct_broken_t *broken)
{
    static cachemw_provider_t tables[BROKEN_MAX];
    static char names[BROKEN_MAX][80];

    for (; broken->name != NULL && n < BROKEN_MAX; broken++, n++) {
        ct_broken_table(broken, &tables[n]);
        mw_loader_add(broken->name, &tables[n]);
        snprintf(names[n], sizeof(names[n]), "test_%s_%s",
                 broken->caught_by != NULL ? "catches" : "passes",
                 broken->name);
        tests[n].name = names[n];
        tests[n].test_func = broken->caught_by != NULL
                                 ? test_broken_provider_is_caught
                                 : test_right_provider_passes;
        tests[n].initial_state = (void *)broken;
    }
    return n;
}

int main(int argc, const char *const *argv, const char *const *env)
{
    static struct CMUnitTest tests[BROKEN_MAX + 3] = {
        cmocka_unit_test(test_load_of_no_module_says_why),
        cmocka_unit_test(test_load_names_all_symbols_that_are_not_offered),
        cmocka_unit_test(test_load_finds_a_strangers_provider),
    };
    size_t n = 3;

    apr_app_initialize(&argc, &argv, &env);
    mw_loader_add("reference", &ct_reference_provider);
    n = broken_add(tests, n, ct_broken_slots);
    n = broken_add(tests, n, ct_broken_streams);
    n = broken_add(tests, n, ct_broken_bodies);
    n = broken_add(tests, n, ct_broken_pieces);
    n = broken_add(tests, n, ct_broken_user);
    return _cmocka_run_group_tests("selftest", tests, n, NULL, NULL);
}
