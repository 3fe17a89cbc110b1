/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_strings.h"
#include "harness.h"

typedef struct actor_t {
    ct_t hands;
    ct_actor_fn *run;
    int index;
    void *baton;
    pthread_t thread;
    pthread_barrier_t *start; /* threads begin together, or none would meet */
} actor_t;

static void actor_run(ct_t *c, void *baton)
{
    actor_t *actor = baton;

    actor->run(c, actor->index, actor->baton);
}

static void *actor_thread(void *baton)
{
    actor_t *actor = baton;

    pthread_barrier_wait(actor->start);
    ct_guard(&actor->hands, actor_run, actor);
    return NULL;
}

static void hands_copy(ct_t *to, const ct_t *from)
{
    *to = *from;
    to->pool = NULL;
    to->alloc = NULL;
    memset(&to->result, 0, sizeof(to->result));
}

/* All or none: the barrier waits for every one of them. */
static void threads_start(ct_t *c, actor_t *actors, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        if (pthread_create(&actors[i].thread, NULL, actor_thread, &actors[i])
            != 0) {
            /* The process ends with the test, and those that wait with it. */
            ct_fail(c, "cannot start %d threads here", n);
        }
    }
}

void ct_threads(ct_t *c, int n, ct_actor_fn *run, void *baton)
{
    actor_t *actors = apr_pcalloc(c->pool, (apr_size_t)n * sizeof(*actors));
    pthread_barrier_t *start = apr_palloc(c->pool, sizeof(*start));
    int i;

    pthread_barrier_init(start, NULL, (unsigned int)n);
    for (i = 0; i < n; i++) {
        hands_copy(&actors[i].hands, c);
        actors[i].run = run;
        actors[i].index = i;
        actors[i].baton = baton;
        actors[i].start = start;
    }
    threads_start(c, actors, n);
    for (i = 0; i < n; i++) {
        pthread_join(actors[i].thread, NULL);
        apr_pool_destroy(actors[i].hands.pool);
    }
    pthread_barrier_destroy(start);
    for (i = 0; i < n; i++) {
        ct_result_t *result = &actors[i].hands.result;

        ct_check(c, result->verdict != CT_FAILED, "thread %d: %.1900s", i,
                 result->text);
        if (result->verdict == CT_SKIPPED) {
            ct_skip(c, "%s", result->text);
        }
    }
}

static void user_change(ct_t *c)
{
    if (c->uid == 0) {
        return;
    }
    if (setgroups(0, NULL) != 0 || setgid(c->gid) != 0 || setuid(c->uid) != 0) {
        ct_skip(c, "a process cannot change its user here");
    }
    if (access(c->site->dir, X_OK) != 0) {
        ct_skip(c, "the place for temporary files is not open to all users");
    }
}

static void child_live(ct_t *c, void *baton)
{
    actor_t *actor = baton;

    user_change(c);
    ct_child_start(c);
    actor->run(c, actor->index, actor->baton);
    ct_child_end(c);
}

static void child_main(actor_t *actor, int result)
{
    ct_t *c = &actor->hands;
    ssize_t n;

    alarm(2 * ct_seconds(c->plan));
    ct_guard(c, child_live, actor);
    n = write(result, &c->result, sizeof(c->result));
    _exit(n == (ssize_t)sizeof(c->result) ? 0 : 1);
}

static void pipe_open(ct_t *c, int ends[2])
{
    ct_check(c, pipe(ends) == 0, "cannot make a pipe here");
}

ct_child_t *ct_spawn(ct_t *c, ct_actor_fn *run, int index, void *baton)
{
    ct_child_t *child = apr_pcalloc(c->pool, sizeof(*child));
    int result[2], told[2], say[2];
    actor_t actor;

    pipe_open(c, result);
    pipe_open(c, told);
    pipe_open(c, say);
    memset(&actor, 0, sizeof(actor));
    hands_copy(&actor.hands, c);
    actor.hands.told = told[1];
    actor.hands.hear = say[0];
    actor.run = run;
    actor.index = index;
    actor.baton = baton;
    child->pid = fork();
    ct_check(c, child->pid >= 0, "cannot fork here");
    if (child->pid == 0) {
        close(result[0]);
        close(told[0]);
        close(say[1]);
        child_main(&actor, result[1]);
    }
    close(result[1]);
    close(told[1]);
    close(say[0]);
    child->index = index;
    child->result = result[0];
    child->told = told[0];
    child->say = say[1];
    return child;
}

static int child_reap(ct_child_t *child)
{
    int status = 0;

    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
    }
    close(child->result);
    close(child->told);
    close(child->say);
    return status;
}

void ct_join(ct_t *c, ct_child_t *child)
{
    ct_result_t result;
    apr_size_t have = 0;
    ssize_t n;
    int status;

    while (have < sizeof(result)) {
        n = read(child->result, (char *)&result + have, sizeof(result) - have);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            break;
        }
        have += n > 0 ? (apr_size_t)n : 0;
    }
    status = child_reap(child);
    ct_check(c, !WIFSIGNALED(status), "child %d died by signal %d",
             child->index, WTERMSIG(status));
    ct_check(c, have == sizeof(result) && WEXITSTATUS(status) == 0,
             "child %d ended with exit status %d before its work was done",
             child->index, WEXITSTATUS(status));
    ct_check(c, result.verdict != CT_FAILED, "child %d: %.1900s", child->index,
             result.text);
    if (result.verdict == CT_SKIPPED) {
        ct_skip(c, "%s", result.text);
    }
}

void ct_kill(ct_t *c, ct_child_t *child)
{
    ct_check(c, kill(child->pid, SIGKILL) == 0, "cannot kill child %d",
             child->index);
    child_reap(child);
}

void ct_children(ct_t *c, int n, ct_actor_fn *run, void *baton)
{
    ct_child_t **children =
        apr_pcalloc(c->pool, (apr_size_t)n * sizeof(*children));
    int i;

    for (i = 0; i < n; i++) {
        children[i] = ct_spawn(c, run, i, baton);
    }
    for (i = 0; i < n; i++) {
        ct_join(c, children[i]);
    }
}

void ct_tell(ct_t *c, char what)
{
    ct_check(c, write(c->told, &what, 1) == 1, "the parent is gone");
}

char ct_wait(ct_t *c)
{
    char what = 0;

    ct_check(c, read(c->hear, &what, 1) == 1, "the parent is gone");
    return what;
}

int ct_heard(const ct_t *c)
{
    struct pollfd poller = { .fd = c->hear, .events = POLLIN };

    return poll(&poller, 1, 0) > 0;
}

void ct_say(ct_t *c, ct_child_t *child, char what)
{
    if (write(child->say, &what, 1) != 1) {
        /* Its own verdict says more than a closed pipe does. */
        ct_join(c, child);
        ct_fail(c, "child %d ended early", child->index);
    }
}

char ct_hear(ct_t *c, ct_child_t *child)
{
    char what = 0;

    if (read(child->told, &what, 1) != 1) {
        /* Its own verdict says more than a closed pipe does. */
        ct_join(c, child);
        ct_fail(c, "child %d ended early", child->index);
    }
    return what;
}
