/* SPDX-License-Identifier: Apache-2.0 */

#include <unistd.h>

#include "ap_mpm.h"
#include "apr_optional.h"
#include "apr_strings.h"

#include "coalesce.h"
#include "fetch_lock.h"
#include "waiters.h"

#define COALESCE_LOOP_FIELD "CDN-Loop"
#define COALESCE_LOOP_PREFIX "cachemw-"
/* How long it is remembered that a page cannot be stored. */
#define COALESCE_UNSTORABLE APR_INT64_C(10000000)
/* By so much a mark may have ended later than it says. */
#define COALESCE_TICK 32
/* Part of the threads that may wait at once. */
#define COALESCE_PART 4
/* Between two looks at what another server fetches: longer each time, and half
 * as much again by chance. */
#define COALESCE_NAP APR_TIME_C(5000)
#define COALESCE_NAP_MAX APR_TIME_C(50000)

/* mod_http2's: how many threads of its own a child may have. */
APR_DECLARE_OPTIONAL_FN(void, http2_get_num_workers,
                        (server_rec * s, int *minw, int *maxw));

/** A mark that a request holds. */
struct mw_turn_t {
    mw_turn_t *next; /**< of the same chain */
    mw_request_t *chain;
    request_rec *r;
    int is_watched; /* see mw_coalesce_watch() */
    mw_fetch_t fetch;
};

/* A request that asks for its turn. */
typedef struct asking_t {
    mw_handle_t *handle;
    request_rec *r;
    mw_request_t *chain;
    mw_turn_t *turn;         /* NULL: it has none */
    apr_int64_t until;       /* when it has waited long enough */
    apr_int64_t ended;       /* when the turn before its own did; 0: never */
    apr_interval_time_t nap; /* the last one; 0: none yet */
    int has_lock;            /* of the store, for its turn */
} asking_t;

/* Of this process. */
static mw_waiters_t *waiters;
static int waiters_slot = -1;
static int is_ending;
static apr_uint32_t waiters_own;
static apr_uint32_t waiters_streams; /* instead of own, for those of HTTP/2 */
static apr_uint32_t waiters_all;

apr_status_t mw_coalesce_create(mw_segments_t *segments)
{
    void *base;
    int is_new;
    apr_status_t rv;

    waiters = NULL;
    if (segments == NULL) {
        return APR_SUCCESS;
    }
    rv = mw_segment_get(segments, "waiters", mw_waiters_size(),
                        MW_WAITERS_LAYOUT, &base, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    waiters = base;
    if (is_new) {
        mw_waiters_init(waiters);
    }
    return APR_SUCCESS;
}

static apr_uint32_t mpm_number(int query)
{
    int number = 0;

    return ap_mpm_query(query, &number) == APR_SUCCESS && number > 0
               ? (apr_uint32_t)number
               : 1;
}

static int mpm_generation(void)
{
    int number = 0;

    ap_mpm_query(AP_MPMQ_GENERATION, &number);
    return number;
}

static apr_uint32_t http2_number(server_rec *s)
{
    APR_OPTIONAL_FN_TYPE(http2_get_num_workers) *get =
        APR_RETRIEVE_OPTIONAL_FN(http2_get_num_workers);
    int least = 0;
    int most = 0;

    if (get != NULL) {
        get(s, &least, &most);
    }
    return most > 0 ? (apr_uint32_t)most : 0;
}

static apr_status_t process_ends(void *data)
{
    (void)data;
    __atomic_store_n(&is_ending, 1, __ATOMIC_RELAXED);
    return APR_SUCCESS;
}

void mw_coalesce_child_init(apr_pool_t *pchild, server_rec *s)
{
    const apr_uint32_t threads = mpm_number(AP_MPMQ_MAX_THREADS);

    if (waiters == NULL) {
        return;
    }
    is_ending = 0;
    apr_pool_pre_cleanup_register(pchild, NULL, process_ends);
    waiters_all = mpm_number(AP_MPMQ_MAX_DAEMONS) * threads / COALESCE_PART;
    waiters_own = threads > 1 ? threads / COALESCE_PART : 1;
    waiters_streams = http2_number(s) / COALESCE_PART;
    if (waiters_streams > waiters_own) {
        waiters_streams = waiters_own;
    }
    waiters_slot = mw_waiters_open(waiters, getpid(), mpm_generation());
}

void mw_coalesce_bury(pid_t pid)
{
    if (waiters != NULL) {
        mw_waiters_close(waiters, pid);
    }
}

void mw_coalesce_bury_in(mw_store_t *store, pid_t pid)
{
    mw_state_t *state = mw_store_state(store);

    if (state != NULL) {
        mw_marks_release_dead(state, pid, mw_monotonic());
    }
}

static mw_request_t *chain_of(request_rec *r)
{
    while (r->prev != NULL || r->main != NULL) {
        r = r->prev != NULL ? r->prev : r->main;
    }
    return mw_request_state(r);
}

/* Whether `first` is the request, or one that was redirected to it. */
static int request_comes_from(const request_rec *r, const request_rec *first)
{
    while (r != NULL && r != first) {
        r = r->prev;
    }
    return r != NULL;
}

static void unstorable_note(mw_store_t *store, const cachemw_key_t *key)
{
    const apr_int64_t now = mw_monotonic();

    mw_unstorable_note(mw_store_state(store), key, now,
                       now + COALESCE_UNSTORABLE);
}

/* All processes of this server are one to others. */
static const cachemw_id_t *server_token(void)
{
    return (const cachemw_id_t *)mw_waiters_id(waiters);
}

/* Known before anybody is woken by the mark. */
static void turn_tell(const mw_turn_t *turn, mw_fetched_e what)
{
    const mw_fetch_t *fetch = &turn->fetch;

    if (what == MW_FETCHED_UNSTORABLE) {
        unstorable_note(fetch->store, &fetch->key);
    }
    else if (what == MW_FETCHED_STORED) {
        mw_unstorable_forget(mw_store_state(fetch->store), &fetch->key);
    }
}

/* Perhaps in the clean-up of the request's pool. */
static void turn_unlock(const mw_turn_t *turn)
{
    cachemw_call_t call = { .now = apr_time_now() };

    if (apr_pool_create(&call.pool, NULL) == APR_SUCCESS) {
        mw_fetch_unlock(&turn->fetch, &call, server_token());
        apr_pool_destroy(call.pool);
    }
}

/* Those who wait here are woken before the store is called, unless one of them
 * is to fetch the page: it would find the lock its own, and lose it then. In a
 * child that ends, prefork's signal handler may be here: the sweeper lets go of
 * the lock. */
static void turn_let_go(const mw_turn_t *turn, mw_fetched_e what)
{
    const mw_fetch_t *fetch = &turn->fetch;
    int has_lock = !__atomic_load_n(&is_ending, __ATOMIC_RELAXED)
                   && mw_fetch_forget(fetch);

    if (has_lock && what == MW_FETCHED_NOTHING) {
        turn_unlock(turn);
        has_lock = 0;
    }
    mw_mark_release(mw_store_state(fetch->store), &fetch->key, fetch->owner,
                    mw_monotonic());
    if (has_lock) {
        turn_unlock(turn);
    }
}

static void turn_end(mw_turn_t *turn, mw_fetched_e what)
{
    mw_turn_t **at = &turn->chain->turns;

    turn_tell(turn, what);
    turn_let_go(turn, what);
    while (*at != NULL && *at != turn) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = turn->next;
    }
}

static mw_fetched_e unstored_means(const request_rec *r)
{
    return r->connection->aborted || r->status == HTTP_NOT_MODIFIED
                   || r->status == HTTP_PARTIAL_CONTENT
               ? MW_FETCHED_NOTHING
               : MW_FETCHED_UNSTORABLE;
}

/* With the request's pool: it was cut off while it was stored, or its response
 * has gone around all filters (a script that writes its own header). */
static apr_status_t turn_drop(void *baton)
{
    mw_turn_t *turn = baton;
    const request_rec *last = turn->r;

    while (last->next != NULL) {
        last = last->next;
    }
    turn_end(turn, mw_handle_of_storing(last) ? MW_FETCHED_NOTHING
                                              : unstored_means(last));
    return APR_SUCCESS;
}

void mw_coalesce_end(request_rec *r, mw_fetched_e what)
{
    mw_turn_t *turn = chain_of(r)->turns;

    while (turn != NULL) {
        mw_turn_t *next = turn->next;

        if (request_comes_from(r, turn->r)) {
            apr_pool_cleanup_kill(turn->r->pool, turn, turn_drop);
            turn_end(turn, what);
        }
        turn = next;
    }
}

void mw_coalesce_end_unstored(request_rec *r)
{
    mw_coalesce_end(r, unstored_means(r));
}

mw_turn_t *mw_coalesce_unwatched(request_rec *r)
{
    mw_turn_t *turn = chain_of(r)->turns;

    while (turn != NULL && (turn->is_watched || turn->r != r)) {
        turn = turn->next;
    }
    return turn;
}

void mw_coalesce_watch(mw_turn_t *turn, int is_watched)
{
    turn->is_watched = is_watched;
}

int mw_coalesce_is_watched(request_rec *r)
{
    const mw_turn_t *turn = chain_of(r)->turns;

    while (turn != NULL
           && !(turn->is_watched && request_comes_from(r, turn->r))) {
        turn = turn->next;
    }
    return turn != NULL;
}

/* An own proxied request comes back with this (RFC 8586). */
static const char *loop_member(apr_pool_t *pool)
{
    return apr_pstrcat(pool, COALESCE_LOOP_PREFIX, mw_waiters_id(waiters),
                       NULL);
}

static int request_is_from(request_rec *r, const char *id)
{
    const char *field =
        apr_table_getm(r->pool, r->headers_in, COALESCE_LOOP_FIELD);

    return field != NULL && ap_strstr_c(field, id) != NULL;
}

static int request_is_from_here(request_rec *r)
{
    return request_is_from(r, mw_waiters_id(waiters));
}

static void request_mark_loop(request_rec *r, mw_request_t *chain)
{
    if (!request_is_from_here(r)) {
        apr_table_mergen(r->headers_in, COALESCE_LOOP_FIELD,
                         loop_member(r->pool));
        chain->has_looped = 1;
    }
}

/* @return 0 when another one has it */
static int turn_take(asking_t *asking, apr_int64_t now)
{
    mw_handle_t *handle = asking->handle;
    request_rec *r = asking->r;
    mw_turn_t *turn = apr_pcalloc(r->pool, sizeof(*turn));
    mw_fetch_t *fetch = &turn->fetch;

    fetch->store = handle->store;
    fetch->key = handle->key;
    fetch->owner = mw_mark_token(getpid());
    fetch->end = now + mw_store_settings(handle->store)->coalesce_timeout;
    if (mw_mark_take(mw_store_state(handle->store), &fetch->key, fetch->owner,
                     now, fetch->end, &asking->ended)
        != 0) {
        return 0;
    }
    turn->chain = asking->chain;
    turn->r = r;
    turn->next = turn->chain->turns;
    turn->chain->turns = turn;
    apr_pool_cleanup_register(r->pool, turn, turn_drop, apr_pool_cleanup_null);
    request_mark_loop(r, turn->chain);
    asking->turn = turn;
    return 1;
}

/* It is not to fetch the page after all. */
static void turn_give_up(asking_t *asking)
{
    mw_turn_t *turn = asking->turn;

    asking->turn = NULL;
    asking->ended = 0;
    if (turn != NULL) {
        apr_pool_cleanup_kill(turn->r->pool, turn, turn_drop);
        turn_end(turn, MW_FETCHED_NOTHING);
    }
}

/* Whether the response to this request can be stored for others: not where the
 * origin may answer with a part or a 304 of the client's own. mod_cache takes
 * conditions away when it has something to revalidate. */
static int request_may_lead(const request_rec *r, int is_found)
{
    const apr_table_t *in = r->headers_in;

    return apr_table_get(in, "Range") == NULL
           && (is_found
               || (apr_table_get(in, "If-None-Match") == NULL
                   && apr_table_get(in, "If-Modified-Since") == NULL
                   && apr_table_get(in, "If-Match") == NULL
                   && apr_table_get(in, "If-Unmodified-Since") == NULL));
}

/* Whether this request may wait, now or at all; then waiting_end() follows. */
static int waiting_begin(const asking_t *asking)
{
    mw_store_t *store = asking->handle->store;

    if (mw_monotonic() >= asking->until) {
        mw_store_count(store, MW_COUNT_WAITED_OUT, 1);
        return 0;
    }
    if (!mw_waiters_enter(waiters, waiters_slot,
                          asking->r->connection->master != NULL
                              ? waiters_streams
                              : waiters_own,
                          waiters_all)) {
        mw_store_count(store, MW_COUNT_CAPPED, 1);
        return 0;
    }
    return 1;
}

static void waiting_end(void)
{
    mw_waiters_leave(waiters, waiters_slot);
}

/* Sleep until the mark changes hands. @return 0: it was not to be */
static int turn_wait(const asking_t *asking)
{
    const mw_request_t *chain = asking->chain;
    const mw_handle_t *handle = asking->handle;

    if (chain->turns != NULL
        || (!chain->has_looped && request_is_from_here(asking->r))
        || !waiting_begin(asking)) {
        return 0;
    }
    mw_mark_wait(mw_store_state(handle->store), &handle->key, mw_monotonic(),
                 asking->until);
    waiting_end();
    return 1;
}

static int is_fresh(const mw_handle_t *handle, request_rec *r, apr_status_t rv)
{
    return rv == APR_SUCCESS && mw_fresh_is(handle, r);
}

/* @return non-zero: go on, with the turn or without */
static int turn_is_over(asking_t *asking, apr_status_t rv)
{
    mw_handle_t *handle = asking->handle;
    mw_state_t *state = mw_store_state(handle->store);
    const apr_int64_t now = mw_monotonic();

    if (mw_unstorable_is_known(state, &handle->key, now)) {
        return 1;
    }
    if (request_may_lead(asking->r, rv == APR_SUCCESS)
            ? turn_take(asking, now)
            : mw_mark_holder(state, &handle->key, now, &asking->ended) == 0) {
        return 1;
    }
    return rv == APR_SUCCESS && mw_fresh_extend(handle, asking->r);
}

/* --- other servers -------------------------------------------------------- */

static void lock_nap(asking_t *asking)
{
    apr_uint32_t random;

    asking->nap = asking->nap ? asking->nap * 2 : COALESCE_NAP;
    if (asking->nap > COALESCE_NAP_MAX) {
        asking->nap = COALESCE_NAP_MAX;
    }
    mw_store_random(&random, sizeof(random));
    apr_sleep(asking->nap + (apr_interval_time_t)(random % (asking->nap / 2)));
}

/* Another server fetches the page. Who holds another mark does not wait, nor
 * who comes from that server: two could wait for each other.
 * @return 0: it was not to be */
static int lock_wait(asking_t *asking, const cachemw_id_t *holder)
{
    const char *id = apr_pstrmemdup(
        asking->r->pool, (const char *)holder->bytes, sizeof(holder->bytes));

    if (asking->turn->next != NULL || request_is_from(asking->r, id)
        || !waiting_begin(asking)) {
        return 0;
    }
    lock_nap(asking);
    waiting_end();
    return 1;
}

/* Who has the turn here asks for that among all servers. Without an answer
 * there is none.
 * @return non-zero: it has slept, and is to look again */
static int lock_is_elsewhere(asking_t *asking, apr_status_t rv)
{
    mw_fetch_t *fetch = &asking->turn->fetch;
    mw_store_t *store = fetch->store;
    cachemw_id_t holder;
    cachemw_call_t call;
    apr_status_t answer;

    if (!mw_fetch_locks(store)) {
        return 0;
    }
    mw_request_call(asking->r, apr_time_now(), &call);
    asking->handle->context = CACHEMW_FARTHEST;
    if (asking->nap) {
        fetch->end =
            mw_monotonic() + mw_store_settings(store)->coalesce_timeout;
    }
    answer = mw_fetch_lock(fetch, &call, server_token(), &holder);
    asking->has_lock = answer == APR_SUCCESS;
    if (answer != APR_EBUSY) {
        if (asking->nap) {
            mw_mark_prolong(mw_store_state(store), &fetch->key, fetch->owner,
                            mw_monotonic(), fetch->end);
        }
        return 0;
    }
    if (rv == APR_SUCCESS && mw_fresh_extend(asking->handle, asking->r)) {
        turn_give_up(asking);
        return 0;
    }
    return lock_wait(asking, &holder);
}

/* --- both ----------------------------------------------------------------- */

/* Not where it turned out meanwhile that the page varies. */
static int turn_is_for(const mw_turn_t *turn, const cachemw_key_t *key)
{
    return turn->fetch.key.len == key->len
           && memcmp(turn->fetch.key.data, key->data, key->len) == 0;
}

/* @return non-zero: go on with what was found, or not; else look again */
static int asking_is_over(asking_t *asking, apr_status_t rv)
{
    if (asking->turn != NULL
        && !turn_is_for(asking->turn, &asking->handle->key)) {
        turn_give_up(asking);
    }
    if (asking->turn == NULL && !turn_is_over(asking, rv)) {
        return !turn_wait(asking);
    }
    return asking->turn == NULL || !lock_is_elsewhere(asking, rv);
}

/* When the look-up began, at the earliest, by the clock of the marks. */
static apr_int64_t turn_looked_up(const mw_handle_t *handle)
{
    const apr_int64_t now = mw_monotonic();

    return now - (apr_time_now() - handle->looked_up);
}

/* Another one may have stored the page between the look-up that found none and
 * the look at the mark, or the store's lock. */
static apr_status_t asking_end(asking_t *asking, apr_status_t rv)
{
    request_rec *r = asking->r;

    if (!asking->has_lock
        && (asking->ended == 0
            || asking->ended + COALESCE_TICK
                   <= turn_looked_up(asking->handle))) {
        return rv;
    }
    rv = mw_lookup_again(asking->handle, r);
    if (is_fresh(asking->handle, r, rv)) {
        mw_coalesce_end(r, MW_FETCHED_NOTHING);
    }
    return rv;
}

/* Whether waiting is of any use for this request and what it found. */
static int request_may_wait(mw_handle_t *handle, request_rec *r,
                            apr_status_t rv)
{
    return waiters != NULL && mw_store_settings(handle->store)->coalesce
           && !r->header_only && mw_store_is_usable(handle->store)
           && apr_table_get(r->headers_in, "Authorization") == NULL
           && apr_table_get(r->headers_in, "Upgrade") == NULL
           && mw_fresh_request_is_plain(r) && !is_fresh(handle, r, rv)
           && (rv == APR_SUCCESS || mw_store_has_missed(handle->store, rv));
}

apr_status_t mw_coalesce(mw_handle_t *handle, request_rec *r, apr_status_t rv)
{
    asking_t asking = { .handle = handle, .r = r };

    if (!request_may_wait(handle, r, rv)) {
        return rv;
    }
    asking.chain = chain_of(r);
    asking.until =
        mw_monotonic() + mw_store_settings(handle->store)->coalesce_timeout;
    while (!asking_is_over(&asking, rv)) {
        rv = mw_lookup_again(handle, r);
        if (is_fresh(handle, r, rv)) {
            mw_store_count(handle->store, MW_COUNT_COALESCED, 1);
            turn_give_up(&asking);
            return rv;
        }
        /* The page is stale as soon as it comes, or the store fails. */
        if (rv == APR_SUCCESS ? handle->head.response_time > r->request_time
                              : !mw_store_has_missed(handle->store, rv)) {
            if (rv == APR_SUCCESS && mw_fresh_never(handle, r)) {
                unstorable_note(handle->store, &handle->key);
            }
            turn_give_up(&asking);
            return rv;
        }
    }
    return asking_end(&asking, rv);
}

/* --- in the process that sweeps ------------------------------------------- */

apr_interval_time_t mw_coalesce_tend_interval(mw_store_t *store)
{
    return waiters != NULL && mw_fetch_can_lock(store)
               ? mw_fetch_tend_interval(store)
               : 0;
}

void mw_coalesce_tend(mw_store_t *store, const cachemw_call_t *call)
{
    mw_fetch_tend(store, call, server_token());
}
