/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file shared.h
 * @brief What the tests of shared structures have in common: a state in memory
 *        that forked processes share, threads that start at once, numbers.
 */
#ifndef TESTS_SHARED_H
#define TESTS_SHARED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <cmocka.h>

#include "apr_strings.h"
#include "core/state.h"
#include "tests/unit/fake.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

/** Shared, zero-filled memory; it goes with the process. */
void *shared_make(apr_size_t size);

/** cmocka set-up and tear-down of a group: APR. */
int shared_group_begin(void **state);
int shared_group_end(void **state);

/** cmocka set-up and tear-down: *state is a pool of the test's own. */
int shared_pool_setup(void **state);
int shared_pool_teardown(void **state);

/** What mkdtemp() and apr_file_mktemp() make a name of; obeys TMPDIR. */
char *shared_temp(const char *name, apr_pool_t *pool);

/** cmocka set-up and tear-down: *state is a fresh mw_state_t. */
int shared_state_setup(void **state);
int shared_state_teardown(void **state);

/** A key made of a number, in a buffer of the calling thread. */
cachemw_key_t key_make(unsigned int number);

/** A linear congruential generator; good enough to vary tests. */
apr_uint32_t random_next(apr_uint32_t *seed);

/** Run f(baton, 0 … n-1) on n threads that begin together; wait for all. */
void threads_run(int n, void (*f)(void *baton, int i), void *baton);

/** Run f(baton, 0 … n-1) in n processes; each must end by itself. */
void processes_run(int n, void (*f)(void *baton, int i), void *baton);

/** Stop a child, kill it, and wait until that is so, or it has done it. */
void child_stop(pid_t pid);
void child_await_stop(pid_t pid);
void child_kill(pid_t pid);
void child_await_kill(pid_t pid);

#endif
