/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_general.h"
#include "apr_strings.h"
#include "ctl/interrupt.h"
#include "ctl/temp.h"
#include "harness.h"

unsigned int ct_seconds(const ct_plan_t *plan)
{
    return plan->seconds > 0 ? (unsigned int)plan->seconds : 120;
}

const ct_test_t *ct_test_at(int index)
{
    static const ct_test_t *const groups[] = {
        ct_tests_guide,     ct_tests_entries, ct_tests_keys,   ct_tests_streams,
        ct_tests_amend,     ct_tests_buckets, ct_tests_expiry, ct_tests_bounds,
        ct_tests_inventory, ct_tests_locks,   ct_tests_life,   ct_tests_threads,
        ct_tests_processes, ct_tests_user,
    };
    apr_size_t g;
    int i;

    for (g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        for (i = 0; groups[g][i].name != NULL; i++) {
            if (index-- == 0) {
                return &groups[g][i];
            }
        }
    }
    return NULL;
}

static const char *salt_make(ct_t *c)
{
    unsigned char random[8];

    mw_store_random(random, sizeof(random));
    return apr_psprintf(c->pool, "%02x%02x%02x%02x%02x%02x%02x%02x/", random[0],
                        random[1], random[2], random[3], random[4], random[5],
                        random[6], random[7]);
}

/* A store that other tests have used too is emptied, or its old keys avoided.
 */
static void store_empty(ct_t *c)
{
    apr_status_t rv = ct_clear(c);

    c->emptied = rv == APR_SUCCESS;
    c->salt = salt_make(c);
    if (!c->emptied) {
        ct_status(c, rv, APR_ENOTIMPL, "clear of a new store");
    }
}

static void child_empties(ct_t *c, int index, void *baton)
{
    (void)index;
    (void)baton;
    store_empty(c);
    ct_tell(c, c->emptied ? 'y' : 'n');
}

/* The same by a child, for tests whose process stays a parent. */
static void store_empty_by_child(ct_t *c)
{
    ct_child_t *child = ct_spawn(c, child_empties, 0, NULL);

    c->emptied = ct_hear(c, child) == 'y';
    c->salt = salt_make(c);
    ct_join(c, child);
}

static void test_live(ct_t *c, void *baton)
{
    const ct_test_t *test = baton;

    if (!(test->flags & CT_UNOPENED)) {
        ct_open(c);
        if (test->flags & CT_PARENT) {
            store_empty_by_child(c);
        }
        else {
            ct_child_start(c);
            store_empty(c);
        }
    }
    test->run(c);
    if (c->pchild != NULL) {
        ct_child_end(c);
    }
    if (c->pconf != NULL) {
        ct_close(c);
    }
}

/* A day ahead of the real clock: a provider that reads that clock instead of
 * call->now is wrong by a day. */
static void test_process(const ct_plan_t *plan, const ct_test_t *test,
                         const char *dir, const char *volatile *slot, int out)
{
    static ct_t c;
    static ct_site_t site;
    ssize_t n;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mw_interrupt_obey();
    signal(SIGPIPE, SIG_IGN);
    /* what a provider prints is no line of TAP */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    alarm(2 * ct_seconds(plan)); /* should the watcher have gone before */
    apr_pool_create(&site.parent, NULL);
    site.dir = dir;
    site.slot = slot;
    site.segments = calloc(1, mw_segments_size());
    c.plan = plan;
    c.site = &site;
    c.now = apr_time_now() + 24 * CT_HOUR;
    ct_table_find(&c);
    ct_guard(&c, test_live, (void *)test);
    n = write(out, &c.result, sizeof(c.result));
    if (n != (ssize_t)sizeof(c.result) || c.result.verdict != CT_PASSED) {
        _exit(0);
    }
    apr_pool_destroy(c.pool);
    free(site.segments);
    /* exit(), so that a leak checker has its say. */
    exit(0);
}

/* Wait for the result, and for the process to end.
 * @return 0 when it hangs, or nobody wants to know any more */
static int result_await(int in, apr_int64_t until, ct_result_t *result,
                        apr_size_t *have)
{
    struct pollfd poller = { .fd = in, .events = POLLIN };
    char ending;

    for (;;) {
        apr_int64_t left = (until - mw_monotonic()) / 1000;
        ssize_t n;

        if (left <= 0 || mw_interrupted()) {
            return 0;
        }
        if (poll(&poller, 1, (int)left) <= 0) {
            continue;
        }
        if (*have < sizeof(*result)) {
            n = read(in, (char *)result + *have, sizeof(*result) - *have);
        }
        else {
            n = read(in, &ending, 1);
        }
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return 1;
        }
        if (n > 0 && *have < sizeof(*result)) {
            *have += (apr_size_t)n;
        }
        /* What a failed test left running may hold the pipe open. */
        if (*have == sizeof(*result) && result->verdict != CT_PASSED) {
            return 1;
        }
    }
}

static void result_set(ct_result_t *result, const char *format, int number)
{
    result->verdict = CT_FAILED;
    snprintf(result->text, sizeof(result->text), format, number);
}

/* Of one that died or hangs: where, if that is known. */
static void result_add_slot(ct_result_t *result, const ct_plan_t *plan,
                            const char *slot)
{
    const apr_size_t n = strlen(result->text);

    if (slot) {
        snprintf(result->text + n, sizeof(result->text) - n, ", in %s of %s",
                 slot, plan->definitions[plan->ndefinitions - 1].provider);
    }
}

static void test_watch(const ct_plan_t *plan, pid_t pid, int in,
                       const char *volatile *slot, ct_result_t *result)
{
    unsigned int seconds = ct_seconds(plan);
    apr_size_t have = 0;
    int status = 0;
    int ended = result_await(
        in, mw_monotonic() + apr_time_from_sec((apr_int64_t)seconds), result,
        &have);

    /* The whole group: what a test left running must not outlive it. */
    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (mw_interrupted()) {
        result_set(result, "interrupted", 0);
    }
    else if (!ended) {
        result_set(result, "hangs: no result within %d seconds", (int)seconds);
        result_add_slot(result, plan, *slot);
    }
    else if (have < sizeof(*result)) {
        result_set(result,
                   WIFSIGNALED(status)
                       ? "crashed: the process died by signal %d"
                       : "the process ended with exit status %d in the middle",
                   WIFSIGNALED(status) ? WTERMSIG(status)
                                       : WEXITSTATUS(status));
        result_add_slot(result, plan, *slot);
    }
    else if (result->verdict == CT_PASSED && WIFEXITED(status)
             && WEXITSTATUS(status) != 0) {
        result_set(result,
                   "passed, but the process ended with exit status %d: does a "
                   "checker report memory that was left behind?",
                   WEXITSTATUS(status));
    }
}

void ct_run(const ct_plan_t *plan, const ct_test_t *test, ct_result_t *result)
{
    const char *volatile *slot =
        mmap(NULL, sizeof(*slot), PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    apr_pool_t *pool;
    const char *dir;
    int ends[2];
    pid_t pid;

    memset(result, 0, sizeof(*result));
    apr_pool_create(&pool, NULL);
    dir = mw_temp_make(pool);
    if (slot == MAP_FAILED || dir == NULL || pipe(ends) != 0) {
        result_set(result, "no place for temporary files (error %d)", errno);
        apr_pool_destroy(pool);
        return;
    }
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        close(ends[0]);
        test_process(plan, test, dir, slot, ends[1]);
    }
    close(ends[1]);
    if (pid < 0) {
        result_set(result, "cannot fork (error %d)", errno);
    }
    else {
        setpgid(pid, pid);
        test_watch(plan, pid, ends[0], slot, result);
    }
    close(ends[0]);
    mw_temp_remove(dir);
    munmap((void *)slot, sizeof(*slot));
    apr_pool_destroy(pool);
}

static void check_live(ct_t *c)
{
    (void)c;
}

const char *ct_plan_check(const ct_plan_t *plan, apr_pool_t *pool)
{
    static const ct_test_t opens = { "test_opens", check_live, 0 };
    ct_result_t result;

    ct_run(plan, &opens, &result);
    return result.verdict == CT_FAILED ? apr_pstrdup(pool, result.text) : NULL;
}
