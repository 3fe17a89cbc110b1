/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_fnmatch.h"
#include "apr_strings.h"

#include "check.h"
#include "depot.h"
#include "interrupt.h"

int mw_check_wants(const mw_ctl_t *ctl, const ct_test_t *test)
{
    int i;

    for (i = 0; i < ctl->tests->nelts; i++) {
        if (apr_fnmatch(APR_ARRAY_IDX(ctl->tests, i, const char *), test->name,
                        0)
            == APR_SUCCESS) {
            return 1;
        }
    }
    return ctl->tests->nelts == 0;
}

static int tests_count(const mw_ctl_t *ctl)
{
    int n = 0, i;

    for (i = 0; ct_test_at(i); i++) {
        n += mw_check_wants(ctl, ct_test_at(i));
    }
    return n;
}

const char *mw_check_plan(const mw_ctl_t *ctl, ct_plan_t *plan)
{
    const apr_array_header_t *stores;

    memset(plan, 0, sizeof(*plan));
    if (ctl->words->nelts > 0) {
        return apr_psprintf(ctl->pool, "%s: one provider is tested at a time",
                            APR_ARRAY_IDX(ctl->words, 0, const char *));
    }
    if (tests_count(ctl) == 0) {
        return "no test has such a name; --list lists them";
    }
    if (ctl->list) {
        return NULL;
    }
    if (ctl->subjects->nelts == 0) {
        return "which provider?";
    }
    stores = mw_ctl_stores(ctl, 0);
    plan->definitions = (const mw_ctl_store_t *)stores->elts;
    plan->ndefinitions = stores->nelts;
    plan->through_core = ctl->core;
    plan->verbose = ctl->verbose;
    plan->seconds = (int)ctl->seconds;
    return NULL;
}

void mw_check_run(const mw_ctl_t *ctl, const ct_plan_t *plan,
                  const ct_test_t *test, ct_result_t *result)
{
    apr_int64_t times = ctl->repeat;

    do {
        ct_run(plan, test, result);
    } while (--times > 0 && result->verdict == CT_PASSED);
}

void mw_check_list(const mw_ctl_t *ctl)
{
    int i;

    for (i = 0; ct_test_at(i); i++) {
        if (mw_check_wants(ctl, ct_test_at(i))) {
            puts(ct_test_at(i)->name);
        }
    }
}

/* A line of TAP; the text may have several lines. */
static void comment_print(const char *text)
{
    apr_size_t n;

    while (*text) {
        n = strcspn(text, "\n");
        printf("# %.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void result_print(const mw_ctl_t *ctl, int number, const ct_test_t *test,
                         const ct_result_t *result)
{
    const int is_failed = result->verdict == CT_FAILED;

    printf("%s%s%s %d - %s",
           mw_ctl_color(ctl, stdout, is_failed ? MW_CTL_RED : MW_CTL_GREEN),
           is_failed ? "not ok" : "ok", mw_ctl_color(ctl, stdout, MW_CTL_PLAIN),
           number, test->name);
    if (result->verdict == CT_SKIPPED) {
        printf(" # SKIP %.*s", (int)strcspn(result->text, "\n"), result->text);
    }
    putchar('\n');
    if (is_failed) {
        comment_print(result->text);
    }
    fflush(stdout);
}

static int tests_run(const mw_ctl_t *ctl, const ct_plan_t *plan)
{
    const int total = tests_count(ctl);
    int verdicts[3] = { 0, 0, 0 };
    int n = 0, i;

    printf("1..%d\n", total);
    for (i = 0; ct_test_at(i); i++) {
        const ct_test_t *test = ct_test_at(i);
        ct_result_t result;

        if (!mw_check_wants(ctl, test)) {
            continue;
        }
        mw_ctl_progress("%d of %d: %s", n + 1, total, test->name);
        mw_check_run(ctl, plan, test, &result);
        mw_ctl_progress("%s", "");
        if (mw_interrupted()) {
            puts("Bail out! interrupted");
            return mw_interrupted();
        }
        result_print(ctl, ++n, test, &result);
        verdicts[result.verdict]++;
    }
    printf("# %d passed, %d failed, %d skipped\n", verdicts[CT_PASSED],
           verdicts[CT_FAILED], verdicts[CT_SKIPPED]);
    return verdicts[CT_FAILED] > 0 ? MW_CTL_NO : MW_CTL_OK;
}

int mw_ctl_check(mw_ctl_t *ctl)
{
    ct_plan_t plan;
    const char *error = mw_check_plan(ctl, &plan);

    if (error) {
        return mw_ctl_error(MW_CTL_USAGE, "%s", error);
    }
    if (ctl->list) {
        mw_check_list(ctl);
        return MW_CTL_OK;
    }
    error = mw_depot_refuse(ctl, 0);
    if (error) {
        return mw_ctl_error(MW_CTL_USAGE, "%s", error);
    }
    mw_interrupt_catch();
    error = ct_plan_check(&plan, ctl->pool);
    if (error) {
        return mw_interrupted() ? mw_interrupted()
                                : mw_ctl_error(MW_CTL_TROUBLE, "%s", error);
    }
    return tests_run(ctl, &plan);
}
