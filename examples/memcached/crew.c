/* SPDX-License-Identifier: Apache-2.0 */

#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "crew.h"

/* How long the end waits for threads: it must be quick. */
#define END_LIMIT 200000

#define NAP 1000

static apr_int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (apr_int64_t)now.tv_sec * APR_USEC_PER_SEC + now.tv_nsec / 1000;
}

static int cond_make(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rv = pthread_condattr_init(&attr);

    if (rv == 0) {
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        rv = pthread_cond_init(cond, &attr);
        pthread_condattr_destroy(&attr);
    }
    return rv;
}

/* At most so long. */
static void cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                      apr_interval_time_t microseconds)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(microseconds / APR_USEC_PER_SEC);
    until.tv_nsec += (long)(microseconds % APR_USEC_PER_SEC) * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(cond, mutex, &until);
}

/* --- jobs ----------------------------------------------------------------- */

void *crew_job_make(crew_t *crew, apr_size_t size,
                    apr_status_t (*run)(crew_job_t *job))
{
    apr_pool_t *pool;
    crew_job_t *job;

    if (apr_pool_create_unmanaged(&pool) != APR_SUCCESS) {
        return NULL;
    }
    job = apr_pcalloc(pool, size);
    job->pool = pool;
    job->crew = crew;
    job->run = run;
    if (cond_make(&job->done) != 0) {
        apr_pool_destroy(pool);
        return NULL;
    }
    return job;
}

void crew_job_free(crew_job_t *job)
{
    pthread_cond_destroy(&job->done);
    apr_pool_destroy(job->pool);
}

int crew_job_is_idle(const crew_job_t *job)
{
    int is_idle;

    pthread_mutex_lock(&job->crew->mutex);
    is_idle = job->is_given_up || job->crew->is_over;
    pthread_mutex_unlock(&job->crew->mutex);
    return is_idle;
}

/* --- the queue: these want the mutex -------------------------------------- */

static void job_append(crew_t *crew, crew_job_t *job)
{
    if (crew->last) {
        crew->last->next = job;
    }
    else {
        crew->first = job;
    }
    crew->last = job;
    crew->queued++;
}

static crew_job_t *job_take(crew_t *crew)
{
    crew_job_t *job = crew->first;

    crew->first = job->next;
    if (!crew->first) {
        crew->last = NULL;
    }
    crew->queued--;
    job->is_begun = 1;
    return job;
}

static void job_drop(crew_t *crew, crew_job_t *job)
{
    crew_job_t **at = &crew->first, *before = NULL;

    while (*at != job) {
        before = *at;
        at = &before->next;
    }
    *at = job->next;
    crew->queued--;
    if (crew->last == job) {
        crew->last = before;
    }
}

static void job_do(crew_t *crew, crew_job_t *job)
{
    apr_status_t rv;

    pthread_mutex_unlock(&crew->mutex);
    rv = job->run(job);
    pthread_mutex_lock(&crew->mutex);
    job->rv = rv;
    job->is_done = 1;
    if (job->is_given_up) {
        crew_job_free(job);
    }
    else {
        pthread_cond_signal(&job->done);
    }
}

/* --- threads -------------------------------------------------------------- */

static void *crew_work(void *arg)
{
    crew_t *crew = arg;

    pthread_mutex_lock(&crew->mutex);
    while (!crew->is_over) {
        if (crew->first) {
            job_do(crew, job_take(crew));
        }
        else {
            crew->idle++;
            pthread_cond_wait(&crew->work, &crew->mutex);
            crew->idle--;
        }
    }
    crew->threads--;
    pthread_cond_signal(&crew->ended);
    pthread_mutex_unlock(&crew->mutex);
    return NULL;
}

/* Another one when there are more jobs than threads that wait for one: with the
 * mutex. Signals are for httpd's threads. */
static void crew_grow(crew_t *crew)
{
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_t thread;

    if (crew->is_over || crew->queued <= crew->idle
        || crew->threads >= crew->threads_max
        || pthread_attr_init(&attr) != 0) {
        return;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attr, crew_work, crew) == 0) {
        crew->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
}

/* httpd -X unloads modules while threads that are being kept waiting are in
 * here: one more handle, which nobody closes, keeps the code where it is. */
static void code_keep(void)
{
    static const char here;
    Dl_info info;

    if (dladdr(&here, &info)) {
        dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    }
}

apr_status_t crew_init(crew_t *crew, int threads_max)
{
    int rv;

    code_keep();
    memset(crew, 0, sizeof(*crew));
    crew->threads_max = threads_max;
    rv = pthread_mutex_init(&crew->mutex, NULL);
    if (rv == 0) {
        rv = cond_make(&crew->work);
    }
    return rv == 0 ? cond_make(&crew->ended) : rv;
}

/* Prefork ends a child in a signal handler, which may have interrupted the very
 * call that has the mutex. */
static int mutex_get(pthread_mutex_t *mutex, apr_int64_t until)
{
    while (pthread_mutex_trylock(mutex) != 0) {
        if (clock_now() >= until) {
            return 0;
        }
        apr_sleep(NAP);
    }
    return 1;
}

int crew_end(crew_t *crew)
{
    const apr_int64_t until = clock_now() + END_LIMIT;
    apr_int64_t now;
    crew_job_t *job;
    int are_gone;

    if (!mutex_get(&crew->mutex, until)) {
        return 0;
    }
    crew->is_over = 1;
    pthread_cond_broadcast(&crew->work);
    for (job = crew->waited_for; job; job = job->other) {
        pthread_cond_signal(&job->done);
    }
    while (crew->threads && (now = clock_now()) < until) {
        cond_wait(&crew->ended, &crew->mutex, until - now);
    }
    are_gone = !crew->threads;
    pthread_mutex_unlock(&crew->mutex);
    return are_gone;
}

static void waited_for_remove(crew_t *crew, crew_job_t *job)
{
    crew_job_t **at = &crew->waited_for;

    while (*at != job) {
        at = &(*at)->other;
    }
    *at = job->other;
}

/* With the mutex: until the job is done, or the deadline. */
static void job_await(crew_t *crew, const cachemw_services_t *services,
                      const cachemw_call_t *call, crew_job_t *job)
{
    apr_interval_time_t left = -1;

    job->other = crew->waited_for;
    crew->waited_for = job;
    while (!job->is_done && !crew->is_over && left != 0) {
        left = services->remaining(services, call);
        if (left != 0) {
            cond_wait(&job->done, &crew->mutex,
                      left < 0 ? apr_time_from_sec(1) : left);
        }
    }
    waited_for_remove(crew, job);
}

apr_status_t crew_run(crew_t *crew, const cachemw_services_t *services,
                      const cachemw_call_t *call, crew_job_t **job)
{
    crew_job_t *mine = *job;
    apr_status_t rv;

    pthread_mutex_lock(&crew->mutex);
    job_append(crew, mine);
    crew_grow(crew);
    if (crew->threads && !crew->is_over) {
        pthread_cond_signal(&crew->work);
        job_await(crew, services, call, mine);
    }
    rv = mine->rv;
    if (!mine->is_done) {
        *job = NULL;
        if (mine->is_begun) {
            mine->is_given_up = 1;
            rv = APR_TIMEUP;
        }
        else {
            job_drop(crew, mine);
            crew_job_free(mine);
            rv = APR_EAGAIN;
        }
    }
    pthread_mutex_unlock(&crew->mutex);
    return rv;
}
