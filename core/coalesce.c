/* SPDX-License-Identifier: Apache-2.0 */

#include <unistd.h>

#include "ap_mpm.h"
#include "apr_optional.h"
#include "apr_strings.h"

#include "coalesce.h"
#include "waiters.h"

#define COALESCE_LOOP_FIELD "CDN-Loop"
#define COALESCE_LOOP_PREFIX "cachemw-"
/* How long it is remembered that a page cannot be stored. */
#define COALESCE_UNSTORABLE APR_INT64_C(10000000)
/* By so much a mark may have ended later than it says. */
#define COALESCE_TICK 32
/* Part of the threads that may wait at once. */
#define COALESCE_PART 4

/* mod_http2's: how many threads of its own a child may have. */
APR_DECLARE_OPTIONAL_FN(void, http2_get_num_workers,
                        (server_rec * s, int *minw, int *maxw));

/** A mark that a request holds. */
struct mw_turn_t {
    mw_turn_t *next; /**< of the same chain */
    mw_request_t *chain;
    request_rec *r;
    int is_watched; /* see mw_coalesce_watch() */
    mw_state_t *state;
    cachemw_key_t key;
    apr_uint64_t token;
};

/* Of this process. */
static mw_waiters_t *waiters;
static int waiters_slot = -1;
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

void mw_coalesce_child_init(server_rec *s)
{
    const apr_uint32_t threads = mpm_number(AP_MPMQ_MAX_THREADS);

    if (waiters == NULL) {
        return;
    }
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

static void unstorable_note(mw_state_t *state, const cachemw_key_t *key)
{
    const apr_int64_t now = mw_monotonic();

    mw_unstorable_note(state, key, now, now + COALESCE_UNSTORABLE);
}

/* Known before anybody is woken by the mark. */
static void turn_tell(const mw_turn_t *turn, mw_fetched_e what)
{
    if (what == MW_FETCHED_UNSTORABLE) {
        unstorable_note(turn->state, &turn->key);
    }
    else if (what == MW_FETCHED_STORED) {
        mw_unstorable_forget(turn->state, &turn->key);
    }
}

static void turn_end(mw_turn_t *turn, mw_fetched_e what)
{
    mw_turn_t **at = &turn->chain->turns;

    turn_tell(turn, what);
    mw_mark_release(turn->state, &turn->key, turn->token, mw_monotonic());
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

static int request_is_from_here(request_rec *r)
{
    const char *field =
        apr_table_getm(r->pool, r->headers_in, COALESCE_LOOP_FIELD);

    return field != NULL && ap_strstr_c(field, mw_waiters_id(waiters)) != NULL;
}

static void request_mark_loop(request_rec *r, mw_request_t *chain)
{
    if (!request_is_from_here(r)) {
        apr_table_mergen(r->headers_in, COALESCE_LOOP_FIELD,
                         loop_member(r->pool));
        chain->has_looped = 1;
    }
}

/* @return 0 when another one has it
 * @param ended set: when another one had it */
static int turn_take(const mw_handle_t *handle, request_rec *r,
                     mw_request_t *chain, apr_int64_t now, apr_int64_t *ended)
{
    const mw_store_settings_t *settings = mw_store_settings(handle->store);
    mw_turn_t *turn = apr_pcalloc(r->pool, sizeof(*turn));

    turn->state = mw_store_state(handle->store);
    turn->token = mw_mark_token(getpid());
    if (mw_mark_take(turn->state, &handle->key, turn->token, now,
                     now + settings->coalesce_timeout, ended)
        != 0) {
        return 0;
    }
    turn->key = handle->key;
    turn->chain = chain;
    turn->r = r;
    turn->next = chain->turns;
    chain->turns = turn;
    apr_pool_cleanup_register(r->pool, turn, turn_drop, apr_pool_cleanup_null);
    request_mark_loop(r, chain);
    return 1;
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

/* Sleep until the mark changes hands. @return 0: it was not to be */
static int turn_wait(const mw_handle_t *handle, const mw_request_t *chain,
                     request_rec *r, apr_int64_t until)
{
    mw_state_t *state = mw_store_state(handle->store);
    const apr_int64_t now = mw_monotonic();

    if (now >= until) {
        mw_store_count(handle->store, MW_COUNT_WAITED_OUT, 1);
        return 0;
    }
    if (chain->turns != NULL
        || (!chain->has_looped && request_is_from_here(r))) {
        return 0;
    }
    if (!mw_waiters_enter(waiters, waiters_slot,
                          r->connection->master != NULL ? waiters_streams
                                                        : waiters_own,
                          waiters_all)) {
        mw_store_count(handle->store, MW_COUNT_CAPPED, 1);
        return 0;
    }
    mw_mark_wait(state, &handle->key, now, until);
    mw_waiters_leave(waiters, waiters_slot);
    return 1;
}

static int is_fresh(const mw_handle_t *handle, request_rec *r, apr_status_t rv)
{
    return rv == APR_SUCCESS && mw_fresh_is(handle, r);
}

/* @return non-zero: go on with what was found, or not
 * @param ended set when nobody had the mark: when another one had it */
static int turn_is_over(mw_handle_t *handle, request_rec *r,
                        mw_request_t *chain, apr_status_t rv,
                        apr_int64_t *ended)
{
    mw_state_t *state = mw_store_state(handle->store);
    const apr_int64_t now = mw_monotonic();

    if (mw_unstorable_is_known(state, &handle->key, now)) {
        return 1;
    }
    if (request_may_lead(r, rv == APR_SUCCESS)
            ? turn_take(handle, r, chain, now, ended)
            : mw_mark_holder(state, &handle->key, now, ended) == 0) {
        return 1;
    }
    return rv == APR_SUCCESS && mw_fresh_extend(handle, r);
}

/* When the look-up began, at the latest, by the clock of the marks. */
static apr_int64_t turn_looked_up(const mw_handle_t *handle)
{
    const apr_int64_t now = mw_monotonic();

    return now - (apr_time_now() - handle->looked_up);
}

/* Another one may have stored the page between the look-up that found none and
 * the look at the mark. */
static apr_status_t turn_look_again(mw_handle_t *handle, request_rec *r,
                                    apr_status_t rv, apr_int64_t ended)
{
    if (ended == 0 || ended + COALESCE_TICK <= turn_looked_up(handle)) {
        return rv;
    }
    rv = mw_lookup_again(handle, r);
    if (is_fresh(handle, r, rv)) {
        mw_coalesce_end(r, MW_FETCHED_NOTHING);
    }
    return rv;
}

apr_status_t mw_coalesce(mw_handle_t *handle, request_rec *r, apr_status_t rv)
{
    const mw_store_settings_t *settings = mw_store_settings(handle->store);
    mw_request_t *chain;
    apr_int64_t until;
    apr_int64_t ended = 0;

    if (waiters == NULL || !settings->coalesce || r->header_only
        || !mw_store_is_usable(handle->store)
        || apr_table_get(r->headers_in, "Authorization") != NULL
        || apr_table_get(r->headers_in, "Upgrade") != NULL
        || !mw_fresh_request_is_plain(r) || is_fresh(handle, r, rv)
        || (rv != APR_SUCCESS && !mw_store_has_missed(handle->store, rv))) {
        return rv;
    }
    chain = chain_of(r);
    until = mw_monotonic() + settings->coalesce_timeout;
    while (!turn_is_over(handle, r, chain, rv, &ended)
           && turn_wait(handle, chain, r, until)) {
        rv = mw_lookup_again(handle, r);
        if (is_fresh(handle, r, rv)) {
            mw_store_count(handle->store, MW_COUNT_COALESCED, 1);
            return rv;
        }
        /* The page is stale as soon as it comes, or the store fails. */
        if (rv == APR_SUCCESS ? handle->head.response_time > r->request_time
                              : !mw_store_has_missed(handle->store, rv)) {
            if (rv == APR_SUCCESS && mw_fresh_never(handle, r)) {
                unstorable_note(mw_store_state(handle->store), &handle->key);
            }
            return rv;
        }
    }
    return turn_look_again(handle, r, rv, ended);
}
