/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "apr_strings.h"

#include "core/random.h"
#include "interrupt.h"
#include "load.h"

#define HOST "bench.example:80"
/* What mod_cache hands over at once. */
#define PIECE 8192
#define HOUR apr_time_from_sec(3600)
#define LOOK_EVERY 100000 /* µs */
/* Who has interrupted it waits so long for calls that are under way. µs */
#define LAST_CALLS 1000000

typedef enum phase_e {
    PHASE_START,
    PHASE_WARM,
    PHASE_COUNT,
    PHASE_END
} phase_e;

/* One thread's, in memory of all processes. */
typedef struct slot_t {
    mw_latency_t latency;
    apr_uint64_t done; /* atomic: calls, counted or not */
    apr_uint64_t hits;
    apr_uint64_t failed;
} slot_t;

typedef struct board_t {
    apr_uint32_t phase; /* atomic */
    apr_uint32_t ready; /* atomic: threads */
    slot_t slots[];
} board_t;

typedef struct worker_t {
    const mw_load_plan_t *plan;
    board_t *board;
    slot_t *slot;
    apr_uint32_t number; /* of all threads */
    apr_uint64_t random;
    apr_pool_t *pool;  /* of the thread */
    apr_pool_t *pool1; /* of a call */
    apr_bucket_alloc_t *alloc;
    const void *head;
    apr_size_t head_len;
    pthread_t thread;
} worker_t;

const double *mw_load_zipf(apr_uint32_t n, double exponent, apr_pool_t *pool)
{
    double *table = apr_palloc(pool, n * sizeof(*table));
    double sum = 0;
    apr_uint32_t i;

    for (i = 0; i < n; i++) {
        sum += pow(i + 1, -exponent);
        table[i] = sum;
    }
    for (i = 0; i < n; i++) {
        table[i] /= sum;
    }
    return table;
}

static apr_uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (apr_uint64_t)now.tv_sec * 1000000000u + (apr_uint64_t)now.tv_nsec;
}

static apr_uint64_t random_next(apr_uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * APR_UINT64_C(0x2545f4914f6cdd1d);
}

/* The first one in the table that is not below. */
static apr_uint32_t zipf_find(const double *table, apr_uint32_t n, double value)
{
    apr_uint32_t low = 0, high = n - 1;

    while (low < high) {
        const apr_uint32_t middle = low + (high - low) / 2;

        if (table[middle] < value) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    return low;
}

static apr_uint32_t key_choose(worker_t *worker)
{
    const mw_load_plan_t *plan = worker->plan;
    const apr_uint64_t random = random_next(&worker->random);

    if (plan->zipf) {
        return zipf_find(plan->zipf, plan->keys,
                         (double)(random >> 11) / 9007199254740992.0);
    }
    return (apr_uint32_t)(random % plan->keys);
}

static void key_make(worker_t *worker, apr_uint32_t number, cachemw_key_t *key)
{
    static const char host[] = HOST;
    const char *url = apr_psprintf(
        worker->pool1, HOST "+http://" HOST "/page/%08u.html?", number);
    char *data = (char *)url;

    data[sizeof(host) - 1] = '\0';
    key->data = data;
    key->len = sizeof(host) + strlen(url + sizeof(host));
}

static void call_make(const worker_t *worker, cachemw_call_t *call)
{
    memset(call, 0, sizeof(*call));
    call->pool = worker->pool1;
    call->bucket_alloc = worker->alloc;
    call->now = apr_time_now();
}

static apr_status_t key_set(worker_t *worker, const cachemw_key_t *key)
{
    static const char bytes[PIECE] = "<html>";
    apr_size_t left = worker->plan->body_len;
    cachemw_entry_t entry;
    cachemw_call_t call;
    mw_set_t *set;
    apr_status_t rv;

    call_make(worker, &call);
    mw_store_share_deadline(worker->plan->store, &call);
    memset(&entry, 0, sizeof(entry));
    if (!mw_random_draw(entry.id.bytes, sizeof(entry.id.bytes))) {
        mw_store_random(entry.id.bytes, sizeof(entry.id.bytes));
    }
    entry.head = worker->head;
    entry.head_len = worker->head_len;
    entry.expires = call.now + HOUR;
    entry.body_len = (apr_off_t)left;
    rv = mw_store_set_begin(worker->plan->store, &call, key, key, &entry, &set);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    while (left > 0 && rv == APR_SUCCESS) {
        const apr_size_t n = left < PIECE ? left : PIECE;

        rv = mw_store_set_write(set, bytes, n);
        left -= n;
    }
    if (rv != APR_SUCCESS) {
        mw_store_set_abort(set);
        return rv;
    }
    return mw_store_set_commit(set, &call);
}

static apr_off_t body_read(apr_bucket_brigade *body)
{
    apr_off_t sum = 0;

    while (!APR_BRIGADE_EMPTY(body)) {
        apr_bucket *e = APR_BRIGADE_FIRST(body);
        const char *data;
        apr_size_t n;

        if (apr_bucket_read(e, &data, &n, APR_BLOCK_READ) != APR_SUCCESS) {
            break;
        }
        sum += (apr_off_t)n;
        apr_bucket_delete(e);
    }
    apr_brigade_cleanup(body);
    return sum;
}

static apr_status_t key_get(worker_t *worker, const cachemw_key_t *key)
{
    mw_store_t *store = worker->plan->store;
    apr_bucket_brigade *body = apr_brigade_create(worker->pool1, worker->alloc);
    cachemw_entry_t entry;
    cachemw_call_t call;
    apr_off_t given;
    apr_status_t rv;

    call_make(worker, &call);
    memset(&entry, 0, sizeof(entry));
    entry.body = body;
    rv = mw_store_get(store, &call, key, &entry);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    given = body_read(body);
    while (rv == APR_SUCCESS && given < entry.body_len) {
        rv = mw_store_read(store, &call, key, &entry.id, given,
                           CACHEMW_PIECE_MAX, body);
        given += body_read(body);
    }
    return rv;
}

static apr_status_t key_remove(worker_t *worker, const cachemw_key_t *key)
{
    cachemw_call_t call;

    call_make(worker, &call);
    return mw_store_remove(worker->plan->store, &call, key, NULL);
}

/* One call, and whether it counts. */
static void worker_do(worker_t *worker, apr_uint32_t number, int counts)
{
    const mw_operation_e operation = worker->plan->operation;
    cachemw_key_t key;
    apr_uint64_t begin;
    apr_status_t rv;

    apr_pool_clear(worker->pool1);
    key_make(worker, number, &key);
    begin = clock_ns();
    rv = operation == MW_OPERATION_GET      ? key_get(worker, &key)
         : operation == MW_OPERATION_DELETE ? key_remove(worker, &key)
                                            : key_set(worker, &key);
    if (counts) {
        mw_latency_add(&worker->slot->latency, clock_ns() - begin);
        worker->slot->hits += rv == APR_SUCCESS;
    }
    if (operation == MW_OPERATION_DELETE) {
        key_set(worker, &key);
    }
    if (counts && rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        worker->slot->failed++;
    }
    __atomic_fetch_add(&worker->slot->done, 1, __ATOMIC_RELAXED);
}

static phase_e worker_phase(const worker_t *worker)
{
    return (phase_e)__atomic_load_n(&worker->board->phase, __ATOMIC_ACQUIRE);
}

static void worker_fill(worker_t *worker)
{
    const mw_load_plan_t *plan = worker->plan;
    const apr_uint32_t step = (apr_uint32_t)(plan->processes * plan->threads);
    apr_uint64_t number;

    for (number = worker->number;
         number < plan->keys && worker_phase(worker) != PHASE_END;
         number += step) {
        worker_do(worker, (apr_uint32_t)number, 0);
    }
}

static void worker_load(worker_t *worker)
{
    phase_e phase;

    while ((phase = worker_phase(worker)) != PHASE_END) {
        worker_do(worker, key_choose(worker), phase == PHASE_COUNT);
    }
}

static void *worker_run(void *data)
{
    worker_t *worker = data;

    __atomic_fetch_add(&worker->board->ready, 1, __ATOMIC_RELAXED);
    while (worker_phase(worker) == PHASE_START) {
        apr_sleep(1000);
    }
    if (worker->plan->operation == MW_OPERATION_FILL) {
        worker_fill(worker);
    }
    else {
        worker_load(worker);
    }
    return NULL;
}

/* A response such as there are many. */
static void head_make(worker_t *worker)
{
    apr_table_t *headers = apr_table_make(worker->pool, 8);
    const apr_time_t now = apr_time_now();
    mw_head_t head;

    memset(&head, 0, sizeof(head));
    apr_table_set(headers, "Content-Type", "text/html; charset=utf-8");
    apr_table_set(headers, "Cache-Control", "max-age=3600");
    apr_table_set(headers, "ETag", "\"5f2b-61c3a7e0d4f80\"");
    apr_table_set(headers, "Last-Modified", "Tue, 05 Mar 2024 10:12:14 GMT");
    apr_table_set(
        headers, "Content-Length",
        apr_psprintf(worker->pool, "%" APR_SIZE_T_FMT, worker->plan->body_len));
    head.status = 200;
    head.date = head.request_time = head.response_time = now;
    head.expire = now + HOUR;
    head.headers = headers;
    mw_head_encode(&head, mw_store_wants_checksum(worker->plan->store),
                   worker->pool, &worker->head, &worker->head_len);
}

static void worker_init(worker_t *worker, const mw_load_plan_t *plan,
                        board_t *board, int number)
{
    apr_allocator_t *allocator;

    apr_allocator_create(&allocator);
    apr_pool_create_ex(&worker->pool, NULL, NULL, allocator);
    apr_allocator_owner_set(allocator, worker->pool);
    apr_pool_create(&worker->pool1, worker->pool);
    worker->plan = plan;
    worker->board = board;
    worker->slot = &board->slots[number];
    worker->number = (apr_uint32_t)number;
    worker->alloc = apr_bucket_alloc_create(worker->pool);
    mw_store_random(&worker->random, sizeof(worker->random));
    worker->random |= 1;
    head_make(worker);
}

/* A child of httpd's. @return its exit status */
static int child_run(const mw_load_plan_t *plan, board_t *board, int process)
{
    worker_t *workers = calloc((size_t)plan->threads, sizeof(*workers));
    apr_pool_t *pchild;
    int started = 0, more, i;
    cachemw_call_t call;

    apr_pool_create(&pchild, NULL);
    mw_random_child_init();
    if (!workers || mw_world_child(plan->world, pchild) != APR_SUCCESS) {
        return 1;
    }
    if (mw_store_is_remote(plan->store)) {
        memset(&call, 0, sizeof(call));
        call.pool = pchild;
        call.now = apr_time_now();
        mw_store_sweep(plan->store, &call, &more);
    }
    for (i = 0; i < plan->threads; i++, started++) {
        worker_init(&workers[i], plan, board, process * plan->threads + i);
        if (pthread_create(&workers[i].thread, NULL, worker_run, &workers[i])
            != 0) {
            return 1;
        }
    }
    for (i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        apr_pool_destroy(workers[i].pool);
    }
    apr_pool_destroy(pchild);
    free(workers);
    return 0;
}

/* --- the parent ----------------------------------------------------------- */

typedef struct children_t {
    pid_t *pids;
    int n;
    const char *error; /* the first that one died of */
} children_t;

/* @return how many there are still */
static int children_reap(children_t *children, apr_pool_t *pool)
{
    int left = 0, status, i;

    for (i = 0; i < children->n; i++) {
        pid_t pid;

        if (children->pids[i] <= 0) {
            continue;
        }
        do {
            pid = waitpid(children->pids[i], &status, WNOHANG);
        } while (pid < 0 && errno == EINTR);
        if (pid == 0) {
            left++;
            continue;
        }
        children->pids[i] = 0;
        if (pid > 0 && status != 0 && !children->error) {
            children->error =
                WIFSIGNALED(status)
                    ? apr_psprintf(pool, "a process died by signal %d",
                                   WTERMSIG(status))
                    : "a process could not open the store, or make threads";
        }
    }
    return left;
}

/* Wait for all to end, which they have been told to; not for long when nobody
 * wants the result. */
static void children_end(children_t *children, apr_pool_t *pool)
{
    const apr_int64_t until = mw_monotonic() + LAST_CALLS;
    int i;

    while (children_reap(children, pool) > 0) {
        for (i = 0; i < children->n; i++) {
            if (children->pids[i] > 0
                && (children->error
                    || (mw_interrupted() && mw_monotonic() > until))) {
                kill(children->pids[i], SIGKILL);
            }
        }
        apr_sleep(1000);
    }
}

static apr_uint64_t board_done(const mw_load_plan_t *plan, const board_t *board)
{
    apr_uint64_t done = 0;
    int i;

    for (i = 0; i < plan->processes * plan->threads; i++) {
        done += __atomic_load_n(&board->slots[i].done, __ATOMIC_RELAXED);
    }
    return done;
}

/* Until it is time or, without a time, all have ended. */
static void board_watch(const mw_load_plan_t *plan, const board_t *board,
                        children_t *children, apr_interval_time_t time,
                        apr_pool_t *pool)
{
    const apr_int64_t end = mw_monotonic() + time;
    apr_int64_t last = mw_monotonic(), now, left;
    apr_uint64_t before = board_done(plan, board), done;

    while (children_reap(children, pool) > 0 && !children->error
           && !mw_interrupted()) {
        now = mw_monotonic();
        left = time ? end - now : LOOK_EVERY;
        if (left <= 0) {
            return;
        }
        apr_sleep(left < LOOK_EVERY ? left : LOOK_EVERY);
        now = mw_monotonic();
        done = board_done(plan, board);
        if (now > last) {
            plan->progress(plan->baton, (double)(done - before) * 1e6
                                            / (double)(now - last));
        }
        before = done;
        last = now;
    }
}

static void board_run(const mw_load_plan_t *plan, board_t *board,
                      children_t *children, apr_pool_t *pool)
{
    const apr_uint32_t all = (apr_uint32_t)(plan->processes * plan->threads);

    while (__atomic_load_n(&board->ready, __ATOMIC_ACQUIRE) < all
           && children_reap(children, pool) > 0 && !children->error
           && !mw_interrupted()) {
        apr_sleep(1000);
    }
    __atomic_store_n(&board->phase, PHASE_WARM, __ATOMIC_RELEASE);
    if (plan->operation == MW_OPERATION_FILL) {
        board_watch(plan, board, children, 0, pool);
    }
    else {
        if (plan->warmup > 0) {
            board_watch(plan, board, children, plan->warmup, pool);
        }
        __atomic_store_n(&board->phase, PHASE_COUNT, __ATOMIC_RELEASE);
        board_watch(plan, board, children, plan->time, pool);
    }
    __atomic_store_n(&board->phase, PHASE_END, __ATOMIC_RELEASE);
    children_end(children, pool);
}

static void board_sum(const mw_load_plan_t *plan, const board_t *board,
                      mw_load_result_t *result)
{
    int i;

    memset(result, 0, sizeof(*result));
    for (i = 0; i < plan->processes * plan->threads; i++) {
        const slot_t *slot = &board->slots[i];

        mw_latency_merge(&result->latency, &slot->latency);
        result->hits += slot->hits;
        result->failed += slot->failed;
        if (slot->latency.sum > 0) {
            result->rate +=
                (double)slot->latency.n * 1e9 / (double)slot->latency.sum;
        }
    }
}

const char *mw_load_run(const mw_load_plan_t *plan, mw_load_result_t *result,
                        apr_pool_t *pool)
{
    const apr_size_t size =
        sizeof(board_t)
        + (apr_size_t)(plan->processes * plan->threads) * sizeof(slot_t);
    children_t children = { NULL, plan->processes, NULL };
    board_t *board = mmap(NULL, size, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const pid_t parent = getpid();
    int i;

    if (board == MAP_FAILED) {
        return apr_pstrcat(pool, "no memory for the figures: ", strerror(errno),
                           NULL);
    }
    children.pids = apr_pcalloc(pool, plan->processes * sizeof(pid_t));
    fflush(NULL);
    for (i = 0; i < plan->processes; i++) {
        children.pids[i] = fork();
        if (children.pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            mw_interrupt_ignore();
            _exit(getppid() == parent ? child_run(plan, board, i) : 1);
        }
        if (children.pids[i] < 0) {
            children.error = "cannot fork";
        }
    }
    board_run(plan, board, &children, pool);
    board_sum(plan, board, result);
    munmap(board, size);
    return children.error;
}
