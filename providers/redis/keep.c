/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>

#include "apr_hash.h"
#include "apr_strings.h"

#include "keep.h"
#include "say.h"
#include "script.h"
#include "servers.h"

/* What one SCAN looks at, about. */
#define SCAN_COUNT "512"

/* Of its reply. */
#define SCAN_REPLY_MAX (1024 * 1024)

/* Headers asked for at once. */
#define KEYS_AT_ONCE 16

/* Of the reply to a command for one name. */
#define CLEAR_REPLY_MAX 1024
#define LISTING_REPLY_MAX (MW_REDIS_HEADER_MAX + 1024)

/* Of the time for clear, what telling others at its end may take. */
#define CLEAR_RESERVE 8

/* Times that all servers of a cluster are scanned: the second finds what was
 * not found before, and while there is such, up to this many. */
#define SCAN_ROUNDS 3

/* --- scanning ------------------------------------------------------------- */

/* A run over all names on one server. */
typedef struct scan_t {
    mw_redis_t *store;
    const cachemw_call_t *call;
    mw_redis_pool_t *pool;
    apr_pool_t *memory; /* cleared with each step */
    const char *pattern;
    mw_redis_reply_t **names; /* found by the last step */
    apr_size_t count;
    int is_over; /* set by the work: nobody wants more */
} scan_t;

/* What is done with scan->names. */
typedef apr_status_t scan_fn(scan_t *scan, void *baton);

/* The reply to SCAN: the next cursor, names. */
static apr_status_t scan_check(const scan_t *scan,
                               const mw_redis_reply_t *reply)
{
    const mw_redis_reply_t *names;
    apr_size_t i;

    if (reply->type != REDIS_REPLY_ARRAY || reply->len != 2
        || reply->elements[0]->type != REDIS_REPLY_STRING
        || reply->elements[0]->len == 0 || reply->elements[0]->len > 20
        || reply->elements[1]->type != REDIS_REPLY_ARRAY) {
        return mw_redis_nonsense(scan->store);
    }
    names = reply->elements[1];
    for (i = 0; i < names->len; i++) {
        if (names->elements[i]->type != REDIS_REPLY_STRING) {
            return mw_redis_nonsense(scan->store);
        }
    }
    return APR_SUCCESS;
}

static apr_status_t scan_step(scan_t *scan, char cursor[24])
{
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, SCAN_REPLY_MAX, scan->memory);
    mw_redis_batch_words(&batch, "SCAN", cursor, "MATCH", scan->pattern,
                         "COUNT", SCAN_COUNT, NULL);
    rv = mw_redis_run_at(scan->store, scan->pool, &batch,
                         mw_redis_step_deadline(scan->store, scan->call),
                         &replies);
    if (rv == APR_SUCCESS) {
        rv = scan_check(scan, replies[0]);
    }
    if (rv == APR_SUCCESS) {
        apr_cpystrn(cursor, replies[0]->elements[0]->data, 24);
        scan->names = replies[0]->elements[1]->elements;
        scan->count = replies[0]->elements[1]->len;
    }
    return rv;
}

static apr_status_t scan_server(scan_t *scan, scan_fn *work, void *baton)
{
    char cursor[24] = "0";
    apr_status_t rv;

    do {
        apr_pool_clear(scan->memory);
        rv = scan_step(scan, cursor);
        if (rv == APR_SUCCESS && scan->count) {
            rv = work(scan, baton);
        }
    } while (rv == APR_SUCCESS && strcmp(cursor, "0") != 0);
    return rv;
}

/* One server of several that is away keeps nobody from the others. */
static apr_status_t scan_all(mw_redis_t *store, const cachemw_call_t *call,
                             scan_fn *work, void *baton)
{
    scan_t scan = { .store = store, .call = call };
    apr_status_t rv = apr_pool_create(&scan.memory, call->pool);
    apr_status_t failed = APR_SUCCESS;
    int i;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    scan.pattern = mw_redis_name_pattern(store, call->pool);
    for (i = 0; rv == APR_SUCCESS && !scan.is_over; i++) {
        rv = store->servers->at(store, i, mw_redis_step_deadline(store, call),
                                &scan.pool);
        if (rv == APR_SUCCESS) {
            apr_status_t its = scan_server(&scan, work, baton);

            failed = failed == APR_SUCCESS ? its : failed;
            mw_redis_pool_unref(scan.pool);
        }
    }
    apr_pool_destroy(scan.memory);
    return failed == APR_SUCCESS && rv != APR_EOF ? rv : failed;
}

/* What moves from one server to another may be behind the scan each time.
 * @param is_found set by the work when there was something new */
static apr_status_t scan_rounds(mw_redis_t *store, const cachemw_call_t *call,
                                scan_fn *work, void *baton, int *is_found)
{
    const int rounds = store->servers->is_many ? SCAN_ROUNDS : 1;
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; rv == APR_SUCCESS && i < rounds && (i < 2 || *is_found); i++) {
        *is_found = 0;
        rv = scan_all(store, call, work, baton);
    }
    return rv;
}

/* --- names that were found ------------------------------------------------ */

/* Append what is to be done with a name.
 * @param is_first nothing was appended before */
typedef void name_fn(mw_redis_batch_t *batch, const mw_redis_reply_t *name,
                     int is_first);

typedef struct names_t {
    name_fn *add;
    apr_size_t reply_max; /* of one */
    mw_redis_reply_t *const *names;
    apr_size_t count;
    apr_pool_t *pool;
} names_t;

/* Whether it was not done only because it must be tried elsewhere or said
 * otherwise. */
static int name_is_due(const mw_redis_reply_t *reply)
{
    switch (mw_redis_error_of(reply)) {
    case MW_REDIS_ERROR_ASK:
    case MW_REDIS_ERROR_MOVED:
    case MW_REDIS_ERROR_NOSCRIPT:
    case MW_REDIS_ERROR_TRYAGAIN:
        return 1;
    default:
        return 0;
    }
}

/* Where its slot is now: some move while SCAN runs. */
static apr_status_t name_run_again(const scan_t *scan, const names_t *names,
                                   apr_size_t i, mw_redis_reply_t **reply)
{
    const mw_redis_reply_t *name = names->names[i];
    mw_redis_reply_t **replies;
    mw_redis_batch_t batch;
    apr_status_t rv;

    mw_redis_batch_init(&batch, names->reply_max, names->pool);
    names->add(&batch, name, 1);
    rv =
        mw_redis_run(scan->store, name->data, name->len, &batch,
                     mw_redis_step_deadline(scan->store, scan->call), &replies);
    *reply = rv == APR_SUCCESS ? replies[0] : *reply;
    return rv;
}

/* @param replies set to one for each name */
static apr_status_t names_run(const scan_t *scan, const names_t *names,
                              mw_redis_reply_t ***replies)
{
    const mw_redis_reply_t *error;
    mw_redis_error_e kind;
    mw_redis_batch_t batch;
    apr_status_t rv;
    apr_size_t i;

    mw_redis_batch_init(&batch, names->count * names->reply_max, names->pool);
    for (i = 0; i < names->count; i++) {
        names->add(&batch, names->names[i], i == 0);
    }
    rv = mw_redis_pool_batch(scan->pool, &batch,
                             mw_redis_step_deadline(scan->store, scan->call),
                             replies);
    for (i = 0; rv == APR_SUCCESS && i < names->count; i++) {
        if (name_is_due((*replies)[i])) {
            rv = name_run_again(scan, names, i, &(*replies)[i]);
        }
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    kind = mw_redis_replies_error(*replies, (int)names->count, &error);
    if (kind != MW_REDIS_ERROR_NONE) {
        mw_redis_count(scan->store, mw_redis_error_name(kind));
    }
    return mw_redis_error_status(kind);
}

/* --- clear ---------------------------------------------------------------- */

/* What is being sent can be read to its end: like any removal. */
static void clear_add(mw_redis_batch_t *batch, const mw_redis_reply_t *name,
                      int is_first)
{
    const mw_redis_bytes_t key = { .data = name->data, .len = name->len };

    if (is_first) {
        mw_redis_script_add_text(batch, MW_REDIS_REMOVE, &key, 1);
    }
    else {
        mw_redis_script_add(batch, MW_REDIS_REMOVE, &key, 1);
    }
    mw_redis_batch_word(batch, "");
}

static apr_status_t clear_work(scan_t *scan, void *baton)
{
    const names_t names = { clear_add, CLEAR_REPLY_MAX, scan->names,
                            scan->count, scan->memory };
    int *is_found = baton;
    mw_redis_reply_t **replies;

    *is_found = 1;
    return names_run(scan, &names, &replies);
}

static apr_status_t clear_all(mw_redis_t *store, const cachemw_call_t *call)
{
    int is_found;

    return scan_rounds(store, call, clear_work, &is_found, &is_found);
}

static apr_status_t clear_tell(mw_redis_t *store, const cachemw_call_t *call)
{
    const mw_redis_bytes_t *channel = &store->say->channel;
    mw_redis_reply_t **ignored;
    mw_redis_bytes_t message;
    mw_redis_batch_t batch;
    apr_status_t rv = mw_redis_say_make(store, CACHEMW_CHANGE_CLEARED, NULL,
                                        NULL, call->pool, &message);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    mw_redis_batch_init(&batch, CLEAR_REPLY_MAX, call->pool);
    mw_redis_say_add(store, &batch, &message);
    return mw_redis_run(store, channel->data, channel->len, &batch,
                        mw_redis_step_deadline(store, call), &ignored);
}

/* Others are told before, so that nothing they fetched earlier is stored behind
 * the scan, and after it, also when that was not all: till then they may have
 * taken what was still there. */
apr_status_t mw_redis_clear(void *self, const cachemw_call_t *call)
{
    mw_redis_t *store = self;
    cachemw_call_t most = *call;
    apr_status_t rv, told;
    apr_int64_t left;

    if (!store->say->is_on) {
        return clear_all(store, call);
    }
    most.deadline = mw_redis_deadline(store, call);
    left = most.deadline - mw_redis_clock(store);
    most.deadline -= left / CLEAR_RESERVE;
    told = clear_tell(store, &most);
    rv = clear_all(store, &most);
    rv = rv == APR_SUCCESS ? told : rv;
    told = clear_tell(store, call);
    return rv == APR_SUCCESS ? told : rv;
}

/* --- keys ----------------------------------------------------------------- */

typedef struct listing_t {
    apr_hash_t *seen; /* names: SCAN may tell one twice */
    int is_found;     /* one that was not among them */
    cachemw_keys_fn *each;
    void *baton;
} listing_t;

/* Damaged entries, and what another server writes there, are left out. */
static apr_status_t listing_tell(scan_t *scan, const listing_t *listing,
                                 const mw_redis_reply_t *header)
{
    cachemw_entry_t entry = { .body = NULL };
    cachemw_key_t key;
    apr_status_t rv;

    if (header->type != REDIS_REPLY_STRING || !header->len
        || mw_redis_header_read(scan->store, NULL, header->data, header->len,
                                &key, &entry)
               != APR_SUCCESS
        || entry.expires <= scan->call->now) {
        return APR_SUCCESS;
    }
    rv = listing->each(listing->baton, &key, &entry);
    scan->is_over = rv != APR_SUCCESS;
    return rv;
}

static void header_add(mw_redis_batch_t *batch, const mw_redis_reply_t *name,
                       apr_size_t len)
{
    const mw_redis_bytes_t key = { .data = name->data, .len = name->len };

    mw_redis_header_ask(batch, &key, len);
}

static void listing_add(mw_redis_batch_t *batch, const mw_redis_reply_t *name,
                        int is_first)
{
    (void)is_first;
    header_add(batch, name, MW_REDIS_HEADER_GUESS);
}

static void listing_add_all(mw_redis_batch_t *batch,
                            const mw_redis_reply_t *name, int is_first)
{
    (void)is_first;
    header_add(batch, name, MW_REDIS_HEADER_MAX);
}

/* A header, of which the beginning is there. */
static apr_status_t listing_step(scan_t *scan, const listing_t *listing,
                                 mw_redis_reply_t *name,
                                 const mw_redis_reply_t *header,
                                 apr_pool_t *pool)
{
    const names_t names = { listing_add_all, LISTING_REPLY_MAX, &name, 1,
                            pool };
    mw_redis_reply_t **replies;
    apr_status_t rv;

    if (header->type == REDIS_REPLY_STRING
        && header->len == MW_REDIS_HEADER_GUESS
        && mw_redis_header_len(scan->store, header->data, header->len)
               > header->len) {
        rv = names_run(scan, &names, &replies);
        if (rv != APR_SUCCESS) {
            return rv;
        }
        header = replies[0];
    }
    return listing_tell(scan, listing, header);
}

static apr_status_t listing_fetch(scan_t *scan, const listing_t *listing,
                                  mw_redis_reply_t *const *them, int count)
{
    names_t names = { listing_add, MW_REDIS_HEADER_GUESS + 1024, them,
                      (apr_size_t)count, NULL };
    apr_status_t rv = apr_pool_create(&names.pool, scan->memory);
    mw_redis_reply_t **replies;
    int i;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = names_run(scan, &names, &replies);
    for (i = 0; rv == APR_SUCCESS && i < count; i++) {
        rv = listing_step(scan, listing, them[i], replies[i], names.pool);
    }
    apr_pool_destroy(names.pool);
    return rv;
}

static apr_status_t listing_work(scan_t *scan, void *baton)
{
    listing_t *listing = baton;
    apr_pool_t *pool = apr_hash_pool_get(listing->seen);
    mw_redis_reply_t *names[KEYS_AT_ONCE];
    apr_status_t rv = APR_SUCCESS;
    apr_size_t i;
    int n = 0;

    for (i = 0; rv == APR_SUCCESS && i < scan->count; i++) {
        mw_redis_reply_t *name = scan->names[i];

        if (!apr_hash_get(listing->seen, name->data, (apr_ssize_t)name->len)) {
            apr_hash_set(listing->seen,
                         apr_pmemdup(pool, name->data, name->len),
                         (apr_ssize_t)name->len, "");
            listing->is_found = 1;
            names[n++] = name;
        }
        if (n == KEYS_AT_ONCE || (n && i + 1 == scan->count)) {
            rv = listing_fetch(scan, listing, names, n);
            n = 0;
        }
    }
    return rv;
}

apr_status_t mw_redis_keys(void *self, const cachemw_call_t *call,
                           const char *pattern, cachemw_keys_fn *each,
                           void *baton)
{
    listing_t listing = { .seen = apr_hash_make(call->pool),
                          .each = each,
                          .baton = baton };

    (void)pattern; /* of keys, not of names: core filters */
    return scan_rounds(self, call, listing_work, &listing, &listing.is_found);
}

/* --- sweep ---------------------------------------------------------------- */

apr_status_t mw_redis_sweep(void *self, const cachemw_call_t *call, int *more)
{
    (void)call;
    *more = 0;
    mw_redis_names_sweep(self);
    return APR_SUCCESS;
}
