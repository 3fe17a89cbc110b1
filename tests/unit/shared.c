/* SPDX-License-Identifier: Apache-2.0 */

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_file_io.h"
#include "apr_general.h"

#include "providers/common/lock.h"
#include "tests/unit/shared.h"

#ifdef MW_TSAN
/* Its search for deadlocks knows 64 locks a thread; slots are more. */
const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
    return "detect_deadlocks=0";
}
#endif

#define THREADS_MAX 64

typedef struct runner_t {
    pthread_barrier_t *barrier;
    void (*f)(void *baton, int i);
    void *baton;
    int i;
} runner_t;

void *shared_make(apr_size_t size)
{
    void *memory = fake_map(size);

    assert_non_null(memory);
    return memory;
}

int shared_group_begin(void **state)
{
    (void)state;
    return apr_initialize();
}

int shared_group_end(void **state)
{
    (void)state;
    apr_terminate();
    return 0;
}

char *shared_temp(const char *name, apr_pool_t *pool)
{
    const char *dir;

    assert_int_equal(apr_temp_dir_get(&dir, pool), APR_SUCCESS);
    return apr_pstrcat(pool, dir, "/cachemw-", name, "-XXXXXX", NULL);
}

int shared_pool_setup(void **state)
{
    apr_pool_t *pool;

    apr_pool_create(&pool, NULL);
    *state = pool;
    return 0;
}

int shared_pool_teardown(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

int shared_state_setup(void **state)
{
    *state = shared_make(mw_state_size());
    mw_state_init(*state);
    return 0;
}

int shared_state_teardown(void **state)
{
    return munmap(*state, mw_state_size());
}

cachemw_key_t key_make(unsigned int number)
{
    static __thread char text[32];
    cachemw_key_t key;

    key.data = text;
    key.len = apr_snprintf(text, sizeof(text), "site:80%c/page/%u", 0, number);
    return key;
}

apr_uint32_t random_next(apr_uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static void *runner_main(void *data)
{
    runner_t *runner = data;

    pthread_barrier_wait(runner->barrier);
    runner->f(runner->baton, runner->i);
    return NULL;
}

void threads_run(int n, void (*f)(void *baton, int i), void *baton)
{
    runner_t runners[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    pthread_barrier_t barrier;
    int i;

    assert_in_range(n, 1, THREADS_MAX);
    assert_int_equal(pthread_barrier_init(&barrier, NULL, n), 0);
    for (i = 0; i < n; i++) {
        runners[i] = (runner_t){ &barrier, f, baton, i };
        assert_int_equal(
            pthread_create(&threads[i], NULL, runner_main, &runners[i]), 0);
    }
    for (i = 0; i < n; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    pthread_barrier_destroy(&barrier);
}

void processes_run(int n, void (*f)(void *baton, int i), void *baton)
{
    pid_t pids[THREADS_MAX];
    int status;
    int i;

    assert_in_range(n, 1, THREADS_MAX);
    for (i = 0; i < n; i++) {
        pids[i] = fork();
        assert_int_not_equal(pids[i], -1);
        if (!pids[i]) {
            f(baton, i);
            _exit(0);
        }
    }
    for (i = 0; i < n; i++) {
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

void child_await_stop(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
}

void child_stop(pid_t pid)
{
    assert_int_equal(kill(pid, SIGSTOP), 0);
    child_await_stop(pid);
}

void child_await_kill(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void child_kill(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    child_await_kill(pid);
}
