/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file crew.h
 * @brief Threads that call a library which blocks, for callers that do not wait
 *        longer than until their deadline.
 *
 * A call becomes a job: it has a copy of all that it needs, in a pool of its
 * own. Who is back in time gets it back; a job that takes longer stays with the
 * crew, which drops it when it ends.
 *
 * A thread that is being kept waiting outlives all that httpd gives back when a
 * process ends: no pool of httpd's, and none that ends with APR, holds anything
 * that it needs. The pools of jobs are unmanaged (apr_pool_create_unmanaged());
 * where the crew lies, and what its jobs work with, must outlive it likewise.
 */
#ifndef CREW_H
#define CREW_H

#include <pthread.h>

#include "mod_cachemw.h"

typedef struct crew_t crew_t;
typedef struct crew_job_t crew_job_t;

struct crew_job_t {
    apr_pool_t *pool;                     /**< holds the job, too */
    apr_status_t (*run)(crew_job_t *job); /**< called on a thread of the crew */

    /** @name The crew's own @{ */
    crew_t *crew;
    crew_job_t *next;  /* in the queue */
    crew_job_t *other; /* that somebody waits for, too */
    pthread_cond_t done;
    int is_begun, is_done;
    int is_given_up;
    apr_status_t rv;
    /** @} */
};

/** Of one process: set up in child_init, in memory that stays until crew_end()
 *  has said that all have gone. All fields are the crew's own. */
struct crew_t {
    pthread_mutex_t mutex;
    pthread_cond_t work;      /* for threads: there is a job, or the end */
    pthread_cond_t ended;     /* for the end: a thread has gone */
    crew_job_t *first, *last; /* not begun yet */
    crew_job_t *waited_for;
    int queued, threads, idle, threads_max;
    int is_over;
};

/** Threads are made as they are needed. From now on the process keeps the code
 *  of this module, also when httpd unloads it. */
apr_status_t crew_init(crew_t *crew, int threads_max);

/**
 * Let them go, and who waits for them. From now on no job is done.
 * @return non-zero when all have gone; else some are being kept waiting, and
 *         what they work with must stay
 */
int crew_end(crew_t *crew);

/** A job of `size` bytes, filled with zeros, that begins with a crew_job_t.
 *  @return NULL: there is no memory */
void *crew_job_make(crew_t *crew, apr_size_t size,
                    apr_status_t (*run)(crew_job_t *job));
void crew_job_free(crew_job_t *job);

/** For a job of several steps: nobody waits for it any more. */
int crew_job_is_idle(const crew_job_t *job);

/**
 * Have a job done.
 * @return what run() returned, and the job is the caller's to free; else the
 *         job is gone and *job is NULL: APR_TIMEUP, at the deadline of the
 *         call, or APR_EAGAIN when until then no thread had time for it
 */
apr_status_t crew_run(crew_t *crew, const cachemw_services_t *services,
                      const cachemw_call_t *call, crew_job_t **job);

#endif
