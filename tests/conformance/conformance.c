/* SPDX-License-Identifier: Apache-2.0 */

/* The conformance suite as a program: the drivers for cmocka and for TAP. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "apr_fnmatch.h"
#include "apr_general.h"
#include "apr_strings.h"
#include "apr_tables.h"
#include "conformance.h"
#include "loader.h"
#include "providers/file/file.h"
#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"
#include "reference.h"

#define TESTS_MAX 500

static const char usage[] =
    "usage: conformance [OPTION]... PROVIDER [option=value]...\n"
    "\n"
    "Checks a provider of mod_cachemw against the contract in mod_cachemw.h.\n"
    "\n"
    "  --load FILE.so      load a module that registers providers\n"
    "  --store NAME PROVIDER [option=value]...\n"
    "                      define another store, for a provider that wants one\n"
    "  --core              call through mod_cachemw's core, not the table\n"
    "  --test PATTERN      run the tests whose names match, e.g. '*_expir*'\n"
    "  --list              list the tests and stop\n"
    "  --tap               print TAP\n"
    "  --repeat N          run each test N times, or until it fails\n"
    "  --seconds N         a test that takes longer hangs (default 120)\n"
    "  --verbose           print the stores' log lines on stderr\n"
    "  --help              print this\n"
    "\n"
    "{tmp} in a value becomes a fresh directory, removed afterwards.\n"
    "Built in: file, memory, multitier, reference.\n"
    "\n"
    "  conformance memory size=64M\n"
    "  conformance --load mod_my.so my cache_dir={tmp}\n";

typedef struct settings_t {
    ct_plan_t plan;
    apr_array_header_t *definitions; /* of ct_definition_t */
    apr_array_header_t *patterns;    /* of const char * */
    int tap;
    int list;
    int help;
    int repeat;
    apr_pool_t *pool;
} settings_t;

static int test_is_wanted(const settings_t *settings, const ct_test_t *test)
{
    int i;

    for (i = 0; i < settings->patterns->nelts; i++) {
        if (apr_fnmatch(APR_ARRAY_IDX(settings->patterns, i, const char *),
                        test->name, 0)
            == APR_SUCCESS) {
            return 1;
        }
    }
    return settings->patterns->nelts == 0;
}

static int tests_count(const settings_t *settings)
{
    int n = 0, i;

    for (i = 0; ct_test_at(i) != NULL; i++) {
        n += test_is_wanted(settings, ct_test_at(i));
    }
    return n;
}

static const char *option_value(int argc, const char *const *argv, int *i)
{
    return *i + 1 < argc ? argv[++*i] : NULL;
}

/* PROVIDER [option=value]... from argv[i] on; moves i to its last word. */
static const char *definition_parse(settings_t *settings, const char *name,
                                    int argc, const char *const *argv, int *i)
{
    ct_definition_t *d = apr_array_push(settings->definitions);

    d->name = name;
    d->provider = argv[*i];
    d->words = &argv[*i + 1];
    d->nwords = 0;
    while (*i + 1 < argc && strchr(argv[*i + 1], '=') != NULL
           && argv[*i + 1][0] != '-') {
        d->nwords++;
        ++*i;
    }
    return NULL;
}

static const char *store_parse(settings_t *settings, int argc,
                               const char *const *argv, int *i)
{
    const char *name = option_value(argc, argv, i);

    if (name == NULL || option_value(argc, argv, i) == NULL) {
        return "--store wants a name and a provider";
    }
    return definition_parse(settings, name, argc, argv, i);
}

static const char *switch_parse(settings_t *settings, int argc,
                                const char *const *argv, int *i)
{
    const char *word = argv[*i];
    const char *value;

    if (strcmp(word, "--help") == 0) {
        settings->help = 1;
    }
    else if (strcmp(word, "--tap") == 0) {
        settings->tap = 1;
    }
    else if (strcmp(word, "--list") == 0) {
        settings->list = 1;
    }
    else if (strcmp(word, "--core") == 0) {
        settings->plan.through_core = 1;
    }
    else if (strcmp(word, "--verbose") == 0) {
        settings->plan.verbose = 1;
    }
    else if (strcmp(word, "--store") == 0) {
        return store_parse(settings, argc, argv, i);
    }
    else if ((value = option_value(argc, argv, i)) == NULL) {
        return apr_pstrcat(settings->pool, word, " is unknown or wants a value",
                           NULL);
    }
    else if (strcmp(word, "--load") == 0) {
        return ct_load(value, settings->pool);
    }
    else if (strcmp(word, "--test") == 0) {
        APR_ARRAY_PUSH(settings->patterns, const char *) = value;
    }
    else if (strcmp(word, "--repeat") == 0) {
        settings->repeat = (int)apr_atoi64(value);
    }
    else if (strcmp(word, "--seconds") == 0) {
        settings->plan.seconds = (int)apr_atoi64(value);
    }
    else {
        return apr_pstrcat(settings->pool, "unknown option ", word, NULL);
    }
    return NULL;
}

/* @return NULL, or what is wrong */
static const char *arguments_parse(settings_t *settings, int argc,
                                   const char *const *argv)
{
    const char *error = NULL;
    int tested = 0;
    int i;

    for (i = 1; i < argc && error == NULL; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            error = switch_parse(settings, argc, argv, &i);
        }
        else if (tested) {
            error = apr_pstrcat(settings->pool, argv[i],
                                ": one provider is tested at a time", NULL);
        }
        else {
            tested = 1;
            error = definition_parse(settings, "tested", argc, argv, &i);
        }
    }
    if (error == NULL && !tested && !settings->list && !settings->help) {
        error = "which provider?";
    }
    if (error == NULL && tests_count(settings) == 0) {
        error = "no test has such a name; --list lists them";
    }
    settings->plan.definitions =
        (const ct_definition_t *)settings->definitions->elts;
    settings->plan.ndefinitions = settings->definitions->nelts;
    return error;
}

static int tests_list(const settings_t *settings)
{
    int i;

    for (i = 0; ct_test_at(i) != NULL; i++) {
        if (test_is_wanted(settings, ct_test_at(i))) {
            puts(ct_test_at(i)->name);
        }
    }
    return EXIT_SUCCESS;
}

static void test_run(const settings_t *settings, const ct_test_t *test,
                     ct_result_t *result)
{
    int times = settings->repeat > 1 ? settings->repeat : 1;

    do {
        ct_run(&settings->plan, test, result);
    } while (--times > 0 && result->verdict == CT_PASSED);
}

static void tap_print(int number, const ct_test_t *test,
                      const ct_result_t *result)
{
    printf("%s %d - %s%s%s\n", result->verdict == CT_FAILED ? "not ok" : "ok",
           number, test->name, result->verdict == CT_SKIPPED ? " # SKIP " : "",
           result->verdict == CT_SKIPPED ? result->text : "");
    if (result->verdict == CT_FAILED) {
        printf("# %s\n", result->text);
    }
    fflush(stdout);
}

static int tests_run_tap(const settings_t *settings)
{
    int failed = 0, n = 0, i;
    ct_result_t result;

    printf("1..%d\n", tests_count(settings));
    for (i = 0; ct_test_at(i) != NULL; i++) {
        const ct_test_t *test = ct_test_at(i);

        if (test_is_wanted(settings, test)) {
            test_run(settings, test, &result);
            tap_print(++n, test, &result);
            failed += result.verdict == CT_FAILED;
        }
    }
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

typedef struct cmocka_state_t {
    const settings_t *settings;
    const ct_test_t *test;
} cmocka_state_t;

static void cmocka_run(void **state)
{
    const cmocka_state_t *s = *state;
    ct_result_t result;

    test_run(s->settings, s->test, &result);
    if (result.verdict == CT_FAILED) {
        fail_msg("%s", result.text);
    }
    if (result.verdict == CT_SKIPPED) {
        print_message("%s: %s\n", s->test->name, result.text);
        skip();
    }
}

static int tests_run_cmocka(const settings_t *settings)
{
    static struct CMUnitTest tests[TESTS_MAX];
    static cmocka_state_t states[TESTS_MAX];
    size_t n = 0;
    int i;

    for (i = 0; ct_test_at(i) != NULL && n < TESTS_MAX; i++) {
        if (test_is_wanted(settings, ct_test_at(i))) {
            states[n].settings = settings;
            states[n].test = ct_test_at(i);
            tests[n].name = ct_test_at(i)->name;
            tests[n].test_func = cmocka_run;
            tests[n].initial_state = &states[n];
            n++;
        }
    }
    return _cmocka_run_group_tests("conformance", tests, n, NULL, NULL) == 0
               ? EXIT_SUCCESS
               : EXIT_FAILURE;
}

int main(int argc, const char *const *argv, const char *const *env)
{
    settings_t settings = { .tap = 0 };
    const char *error;

    apr_app_initialize(&argc, &argv, &env);
    apr_pool_create(&settings.pool, NULL);
    settings.definitions =
        apr_array_make(settings.pool, 4, sizeof(ct_definition_t));
    settings.patterns = apr_array_make(settings.pool, 4, sizeof(const char *));
    ct_provider_add("file", &mw_file_provider);
    ct_provider_add("memory", &mw_memory_provider);
    ct_provider_add("multitier", &mw_multitier_provider);
    ct_provider_add("reference", &ct_reference_provider);
    error = arguments_parse(&settings, argc, argv);
    if (error != NULL) {
        fprintf(stderr, "conformance: %s\nconformance --help says more\n",
                error);
        return 2;
    }
    if (settings.help) {
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    if (settings.list) {
        return tests_list(&settings);
    }
    error = ct_plan_check(&settings.plan, settings.pool);
    if (error != NULL) {
        fprintf(stderr, "conformance: %s\n", error);
        return 2;
    }
    return settings.tap ? tests_run_tap(&settings)
                        : tests_run_cmocka(&settings);
}
