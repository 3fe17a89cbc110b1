/* SPDX-License-Identifier: Apache-2.0 */

/* `cachemwctl check` with cmocka's output, and one provider more. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "apr_general.h"
#include "ctl/check.h"
#include "ctl/loader.h"
#include "providers/file/file.h"
#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"
#include "reference.h"

#define TESTS_MAX 500

static const char usage[] =
    "usage: conformance [OPTION]... PROVIDER [option=value]...\n"
    "\n"
    "Checks a provider of mod_cachemw against the contract in mod_cachemw.h.\n"
    "\n";

static const char more[] =
    "\n"
    "{tmp} in a value becomes a fresh directory, removed afterwards.\n"
    "Built in: file, memory, multitier, reference.\n"
    "\n"
    "  conformance memory size=64M\n"
    "  conformance --load mod_my.so my cache_dir={tmp}\n";

typedef struct state_t {
    const mw_ctl_t *ctl;
    const ct_plan_t *plan;
    const ct_test_t *test;
} state_t;

static void test_run(void **state)
{
    const state_t *s = *state;
    ct_result_t result;

    mw_check_run(s->ctl, s->plan, s->test, &result);
    if (result.verdict == CT_FAILED) {
        fail_msg("%s", result.text);
    }
    if (result.verdict == CT_SKIPPED) {
        print_message("%s: %s\n", s->test->name, result.text);
        skip();
    }
}

static int tests_run(const mw_ctl_t *ctl, const ct_plan_t *plan)
{
    static struct CMUnitTest tests[TESTS_MAX];
    static state_t states[TESTS_MAX];
    size_t n = 0;
    int i;

    for (i = 0; ct_test_at(i) != NULL && n < TESTS_MAX; i++) {
        if (mw_check_wants(ctl, ct_test_at(i))) {
            states[n].ctl = ctl;
            states[n].plan = plan;
            states[n].test = ct_test_at(i);
            tests[n].name = ct_test_at(i)->name;
            tests[n].test_func = test_run;
            tests[n].initial_state = &states[n];
            n++;
        }
    }
    return _cmocka_run_group_tests("conformance", tests, n, NULL, NULL) == 0
               ? EXIT_SUCCESS
               : EXIT_FAILURE;
}

static int complain(const char *error)
{
    fprintf(stderr, "conformance: %s\nconformance --help says more\n", error);
    return MW_CTL_USAGE;
}

int main(int argc, const char *const *argv, const char *const *env)
{
    mw_ctl_t ctl = { .pool = NULL };
    ct_plan_t plan;
    const char *error;

    apr_app_initialize(&argc, &argv, &env);
    apr_pool_create(&ctl.pool, NULL);
    mw_loader_add("file", &mw_file_provider);
    mw_loader_add("memory", &mw_memory_provider);
    mw_loader_add("multitier", &mw_multitier_provider);
    mw_loader_add("reference", &ct_reference_provider);
    error = mw_ctl_parse(&ctl, MW_CTL_CHECK, argc - 1, argv + 1);
    if (error == NULL && ctl.help) {
        fputs(usage, stdout);
        mw_ctl_print_options(MW_CTL_CHECK, stdout);
        fputs(more, stdout);
        return EXIT_SUCCESS;
    }
    if (error == NULL) {
        error = mw_check_plan(&ctl, &plan);
    }
    if (error != NULL) {
        return complain(error);
    }
    if (ctl.list) {
        mw_check_list(&ctl);
        return EXIT_SUCCESS;
    }
    error = ct_plan_check(&plan, ctl.pool);
    return error != NULL ? complain(error) : tests_run(&ctl, &plan);
}
