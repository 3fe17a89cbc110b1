/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <signal.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "apr_signal.h"
#include "apr_thread_proc.h"
#include "ap_listen.h"
#include "ap_mpm.h"
#include "httpd.h"
#include "http_log.h"
#include "http_main.h"
#include "mpm_common.h"

#include "coalesce.h"
#include "sweeper.h"

APLOG_USE_MODULE(cachemw);

/* What `ps` and `top` show; Linux takes 15 characters. */
#define SWEEPER_NAME "cachemw-sweeper"

/* Steps of one store at a time, and the rest before more of them. */
#define SWEEPER_STEPS 5
#define SWEEPER_BREATH APR_TIME_C(1000000)

/* Longest time without a look at the parent. */
#ifdef PR_SET_PDEATHSIG
#define SWEEPER_NAP APR_TIME_C(60000000)
#else
#define SWEEPER_NAP APR_TIME_C(1000000)
#endif

/* Seconds in which it ends, or it is made to. */
#define SWEEPER_LAST 1

/* Who lives that long is well; who does not waits before it comes again. */
#define SWEEPER_WELL APR_TIME_C(60000000)
#define SWEEPER_PAUSE APR_TIME_C(1000000)
#define SWEEPER_PAUSE_MAX APR_TIME_C(300000000)

/* What is done with a store now and then. */
typedef struct turn_t {
    struct turn_t *next;
    mw_store_t *store;
    /* Returns whether there is more to do at once. */
    int (*step)(mw_store_t *store, apr_pool_t *pool);
    apr_interval_time_t rest; /* until the next one */
    apr_int64_t due;          /* monotonic; 0: at once */
} turn_t;

struct mw_sweeper_t {
    mw_stores_t *stores;
    turn_t *turns;
    apr_pool_t *pconf;
    pid_t parent;
    apr_pool_t *pool; /* of the process there is; NULL: there is none */
    apr_proc_t process;
    apr_int64_t begun; /* monotonic */
    apr_int64_t due;   /* monotonic: the next one may begin */
    apr_interval_time_t pause;
};

/* ---- in the process -------------------------------------------------------*/

static volatile sig_atomic_t sweeper_is_told;

/* It ends between two steps. A provider that is stuck is left no time. */
static void sweeper_tell(int signal)
{
    (void)signal;
    if (!sweeper_is_told) {
        sweeper_is_told = 1;
        alarm(SWEEPER_LAST);
    }
}

/* What a terminal or httpd sends to the whole group is for the parent, who
 * passes on what matters. The parent has blocked all for the fork. */
static void sweeper_heed(void)
{
    static const int others[] = {
        SIGHUP, SIGINT, SIGPIPE, SIGXFSZ, AP_SIG_GRACEFUL, AP_SIG_GRACEFUL_STOP
    };
    apr_size_t i;
    sigset_t none;

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        apr_signal(others[i], SIG_IGN);
    }
    apr_signal(SIGCHLD, SIG_DFL);
    apr_signal(SIGALRM, SIG_DFL);
    apr_signal(SIGTERM, sweeper_tell);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Linux forgets the signal when the user changes, so this comes after it. */
static void sweeper_name(void)
{
#ifdef PR_SET_NAME
    prctl(PR_SET_NAME, SWEEPER_NAME);
#endif
#ifdef PR_SET_PDEATHSIG
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
}

static int sweeper_goes_on(const mw_sweeper_t *sweeper)
{
    return !sweeper_is_told && getppid() == sweeper->parent;
}

/* SIGTERM is let in nowhere between the look at it and the sleep. */
static void sweeper_rest(const mw_sweeper_t *sweeper, apr_int64_t until)
{
    sigset_t told, open;
    apr_int64_t left;

    sigemptyset(&told);
    sigaddset(&told, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &told, &open);
    while (sweeper_goes_on(sweeper) && (left = until - mw_monotonic()) > 0) {
        struct timespec nap;

        left = left < SWEEPER_NAP ? left : SWEEPER_NAP;
        nap.tv_sec = left / APR_USEC_PER_SEC;
        nap.tv_nsec = left % APR_USEC_PER_SEC * 1000;
        pselect(0, NULL, NULL, NULL, &nap, &open);
    }
    pthread_sigmask(SIG_SETMASK, &open, NULL);
}

static int step_sweep(mw_store_t *store, apr_pool_t *pool)
{
    cachemw_call_t call = { .pool = pool };
    int more = 0;

    call.now = apr_time_now();
    return mw_store_sweep(store, &call, &more) == APR_SUCCESS && more;
}

static int step_sync(mw_store_t *store, apr_pool_t *pool)
{
    cachemw_call_t call = { .pool = pool };

    call.now = apr_time_now();
    mw_store_sync(store, &call);
    return 0;
}

static int step_locks(mw_store_t *store, apr_pool_t *pool)
{
    cachemw_call_t call = { .pool = pool };

    call.now = apr_time_now();
    mw_coalesce_tend(store, &call);
    return 0;
}

static void turn_take(turn_t *turn, apr_pool_t *pool)
{
    apr_interval_time_t rest = turn->rest;
    int steps = 0;

    if (mw_monotonic() < turn->due) {
        return;
    }
    while (!sweeper_is_told && turn->step(turn->store, pool)) {
        if (++steps == SWEEPER_STEPS) {
            rest = SWEEPER_BREATH;
            break;
        }
    }
    turn->due = mw_monotonic() + rest;
}

/* When the next one is due. */
static apr_int64_t turns_take(turn_t *turns, apr_pool_t *pool)
{
    apr_int64_t due = turns->due;
    turn_t *turn;

    for (turn = turns; turn; turn = turn->next) {
        turn_take(turn, pool);
        due = turn == turns || turn->due < due ? turn->due : due;
    }
    return due;
}

/* Clean-ups of pconf are the parent's: no exit() here. Nor any status of httpd's
 * own, which could stop the server. */
static void __attribute__((noreturn)) sweeper_run(const mw_sweeper_t *sweeper)
{
    apr_pool_t *pchild, *pool;

    ap_close_listeners();
    sweeper_heed();
    apr_pool_create(&pchild, sweeper->pconf);
    apr_pool_tag(pchild, "cachemw_sweeper");
    if (ap_run_drop_privileges(pchild, ap_server_conf) != OK) {
        _exit(1);
    }
    sweeper_name();
    mw_stores_child_init(sweeper->stores, pchild);
    apr_pool_create(&pool, pchild);
    while (sweeper_goes_on(sweeper)) {
        apr_int64_t due = turns_take(sweeper->turns, pool);

        apr_pool_clear(pool);
        sweeper_rest(sweeper, due);
    }
    sweeper_tell(SIGTERM);
    apr_pool_destroy(pchild);
    _exit(0);
}

/* ---- in the parent --------------------------------------------------------*/

/* The kernel may hold it, on a hung disk; the server does not wait for that. */
static void sweeper_end(pid_t pid)
{
    const apr_int64_t begun = mw_monotonic();
    const apr_interval_time_t last = apr_time_from_sec(SWEEPER_LAST);
    apr_interval_time_t waited = 0;

    kill(pid, SIGTERM);
    while (waited < 2 * last && waitpid(pid, NULL, WNOHANG) == 0) {
        if (waited > last + last / 2) {
            kill(pid, SIGKILL);
        }
        apr_sleep(apr_time_from_msec(5));
        waited = mw_monotonic() - begun;
    }
}

/* Returns the seconds until the next one may begin. */
static int sweeper_pause(mw_sweeper_t *sweeper)
{
    const apr_int64_t now = mw_monotonic();
    const apr_interval_time_t pause =
        now - sweeper->begun < SWEEPER_WELL ? sweeper->pause : 0;

    sweeper->due = now + pause;
    sweeper->pause = pause ? pause * 2 : SWEEPER_PAUSE;
    if (sweeper->pause > SWEEPER_PAUSE_MAX) {
        sweeper->pause = SWEEPER_PAUSE_MAX;
    }
    return (int)apr_time_sec(pause);
}

static void sweeper_bury(mw_sweeper_t *sweeper)
{
    const pid_t pid = sweeper->process.pid;
    int state;

    sweeper->process.pid = 0;
    apr_pool_destroy(sweeper->pool);
    sweeper->pool = NULL;
    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS
        && state != AP_MPMQ_STOPPING) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, ap_server_conf,
                     "Process %" APR_PID_T_FMT ", which swept the stores of "
                     "mod_cachemw, has ended: another one follows, after %d s "
                     "at the earliest",
                     pid, sweeper_pause(sweeper));
        mw_sweeper_tend(sweeper);
    }
}

static void sweeper_maintain(int reason, void *baton, apr_wait_t status)
{
    mw_sweeper_t *sweeper = baton;

    (void)status;
    if (getpid() != sweeper->parent || !sweeper->process.pid) {
        return;
    }
    if (reason == APR_OC_REASON_DEATH || reason == APR_OC_REASON_LOST) {
        sweeper_bury(sweeper);
    }
    else if (reason == APR_OC_REASON_UNREGISTER) {
        sweeper_end(sweeper->process.pid);
    }
}

/* Until it has its own handlers, a signal would meet the parent's. */
static pid_t sweeper_fork(const mw_sweeper_t *sweeper)
{
    sigset_t all, before;
    pid_t pid;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0) {
        sweeper_run(sweeper);
    }
    /* leaves errno alone */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

void mw_sweeper_tend(mw_sweeper_t *sweeper)
{
    pid_t pid;

    if (!sweeper || sweeper->pool || mw_monotonic() < sweeper->due) {
        return;
    }
    sweeper->begun = mw_monotonic();
    pid = sweeper_fork(sweeper);
    if (pid < 0) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, errno, ap_server_conf,
                     "No process to sweep the stores of mod_cachemw: for now, "
                     "what has expired in them goes away with traffic only");
        sweeper_pause(sweeper);
        return;
    }
    sweeper->process.pid = pid;
    apr_pool_create(&sweeper->pool, sweeper->pconf);
    apr_proc_other_child_register(&sweeper->process, sweeper_maintain, sweeper,
                                  NULL, sweeper->pool);
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, ap_server_conf,
                 "Process %" APR_PID_T_FMT " sweeps the stores of mod_cachemw",
                 pid);
}

static turn_t *turn_add(mw_sweeper_t *sweeper, mw_store_t *store,
                        int (*step)(mw_store_t *store, apr_pool_t *pool),
                        apr_interval_time_t rest)
{
    turn_t *turn = apr_pcalloc(sweeper->pconf, sizeof(*turn));

    turn->store = store;
    turn->step = step;
    turn->rest = rest;
    turn->next = sweeper->turns;
    sweeper->turns = turn;
    return turn;
}

static void sweeper_add(void *baton, mw_store_t *store)
{
    mw_sweeper_t *sweeper = baton;
    apr_interval_time_t interval;

    if (mw_store_state(store) && mw_store_can_sweep(store)) {
        turn_add(sweeper, store, step_sweep, mw_store_sweep_interval(store));
    }
    if (mw_store_state(store) && mw_store_can_sync(store)) {
        interval = mw_store_sync_interval(store);
        turn_add(sweeper, store, step_sync, interval)->due =
            mw_monotonic() + interval;
    }
    interval = mw_store_state(store) ? mw_coalesce_tend_interval(store) : 0;
    if (interval) {
        turn_add(sweeper, store, step_locks, interval);
    }
}

mw_sweeper_t *mw_sweeper_make(mw_stores_t *stores, apr_pool_t *pconf)
{
    mw_sweeper_t *sweeper = apr_pcalloc(pconf, sizeof(*sweeper));

    sweeper->stores = stores;
    sweeper->pconf = pconf;
    sweeper->parent = getpid();
    mw_stores_each(stores, sweeper_add, sweeper);
    return sweeper->turns ? sweeper : NULL;
}
