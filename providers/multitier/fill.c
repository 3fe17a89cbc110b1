/* SPDX-License-Identifier: Apache-2.0 */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apr_strings.h"

#include "tiers.h"

/*
 * Nothing that takes time is done before the answer has been sent: until then
 * the body's first bytes are kept, which are all of a small one. They go to
 * the tiers when the next piece is read, or at the end. So at most these bytes
 * of a body are here and in the answer at once.
 */
struct mw_fill_t {
    mw_tiers_t *tiers;
    mw_fill_t *next;       /* of those whose bodies are being read */
    cachemw_call_t call;   /* its pool is the fill's own */
    apr_int64_t began;     /* monotonic, when call.now was */
    apr_pool_t *scratch;   /* of one call */
    cachemw_key_t key;     /* a copy, as is the head */
    cachemw_entry_t entry; /* as it is in the tier that it was found in */
    apr_uint64_t note;
    int from;
    unsigned int wanted; /* a bit for each tier that is to have it */
    int is_listed;
    int is_to_be_got; /* the body was not in the answer */
    int is_started;   /* tiers have been asked to take it */

    char *kept;      /* the first bytes, of malloc; NULL: none, or gone on */
    apr_size_t room; /* for them */
    apr_off_t length;
    unsigned int open; /* a bit for each tier that takes it */
    void *sets[MW_TIERS_MAX];
    apr_time_t expires[MW_TIERS_MAX];

    /* under the mutex */
    int is_busy; /* a piece is being read */
    int is_over; /* the answer is */
};

/* --- into the tiers ------------------------------------------------------- */

static int fill_is_overtaken(const mw_fill_t *fill)
{
    return mw_note_read(fill->tiers, &fill->key) != fill->note;
}

/* The time of the look-up and what has passed since. */
static apr_time_t fill_now(const mw_fill_t *fill)
{
    const cachemw_services_t *services = fill->tiers->services;

    return fill->call.now + services->deadline_in(services, NULL, 0)
           - fill->began;
}

static const cachemw_call_t *fill_call(mw_fill_t *fill, cachemw_call_t *own)
{
    apr_pool_clear(fill->scratch);
    *own = fill->call;
    own->pool = fill->scratch;
    own->now = fill_now(fill);
    return own;
}

/* Whether somebody else was faster. */
static int fill_is_there(mw_fill_t *fill, int at)
{
    const mw_tier_t *tier = &fill->tiers->tier[at];
    cachemw_call_t own;

    return tier->table->exists(tier->self, fill_call(fill, &own), &fill->key)
           != APR_NOTFOUND;
}

static void fill_open_tier(mw_fill_t *fill, int at)
{
    const mw_tier_t *tier = &fill->tiers->tier[at];
    cachemw_entry_t entry = fill->entry;
    cachemw_call_t call = fill->call;

    /* a tier elsewhere is asked at the end: somebody may be waiting now */
    if (!(tier->table->flags & CACHEMW_REMOTE) && fill_is_there(fill, at)) {
        return;
    }
    call.now = fill_now(fill);
    entry.expires = fill->expires[at];
    if (tier->table->set_begin(tier->self, &call, &fill->key, &entry,
                               &fill->sets[at])
        == APR_SUCCESS) {
        fill->open |= 1u << at;
    }
}

static void fill_open(mw_fill_t *fill)
{
    int i;

    fill->expires[fill->from] = fill->entry.expires;
    mw_tiers_expire(fill->tiers, fill_now(fill), fill->from, fill->expires);
    for (i = fill->from - 1; i >= 0; i--) {
        if (fill->wanted & 1u << i) {
            fill_open_tier(fill, i);
        }
    }
}

static void fill_close(mw_fill_t *fill)
{
    int i;

    for (i = 0; fill->open; i++) {
        const mw_tier_t *tier = &fill->tiers->tier[i];

        if (fill->open & 1u << i) {
            tier->table->set_abort(tier->self, fill->sets[i]);
            fill->open &= ~(1u << i);
        }
    }
}

static void fill_write(mw_fill_t *fill, const char *data, apr_size_t length)
{
    cachemw_call_t own;
    int i;

    for (i = 0; i < fill->from; i++) {
        const mw_tier_t *tier = &fill->tiers->tier[i];

        if ((fill->open & 1u << i)
            && tier->table->set_write(tier->self, fill_call(fill, &own),
                                      fill->sets[i], data, length)
                   != APR_SUCCESS) {
            tier->table->set_abort(tier->self, fill->sets[i]);
            fill->open &= ~(1u << i);
        }
    }
}

/* What was kept goes on. */
static void fill_start(mw_fill_t *fill)
{
    if (fill->is_started) {
        return;
    }
    fill->is_started = 1;
    if (!fill_is_overtaken(fill)) {
        fill_open(fill);
    }
    if (fill->kept) {
        fill_write(fill, fill->kept, (apr_size_t)fill->length);
    }
    free(fill->kept);
    fill->kept = NULL;
}

/* Whether it is still wanted there: the body may have taken its time. */
static int fill_is_wanted(mw_fill_t *fill, int at)
{
    return fill->expires[at] > fill_now(fill)
           && (!(fill->tiers->tier[at].table->flags & CACHEMW_REMOTE)
               || !fill_is_there(fill, at));
}

/* A commit that has failed elsewhere may have been done all the same. */
static void fill_commit(mw_fill_t *fill, int at)
{
    const mw_tier_t *tier = &fill->tiers->tier[at];
    apr_uint32_t change = mw_change_begin(fill->tiers);
    cachemw_call_t own;
    apr_status_t rv;

    fill->open &= ~(1u << at);
    rv = tier->table->set_commit(tier->self, fill_call(fill, &own),
                                 fill->sets[at]);
    if (fill_is_overtaken(fill)) {
        mw_tiers_count(fill->tiers, MW_TIERS_OVERTAKEN);
        mw_change_check(fill->tiers, at,
                        tier->table->remove(tier->self, fill_call(fill, &own),
                                            &fill->key, &fill->entry.id));
    }
    else if (rv == APR_SUCCESS) {
        mw_tiers_count(fill->tiers, MW_TIERS_FILLED);
    }
    mw_change_end(fill->tiers, change);
}

/* All of the body has gone to the tiers. */
static void fill_publish(mw_fill_t *fill)
{
    int i;

    for (i = fill->from - 1; i >= 0; i--) {
        if (!(fill->open & 1u << i) || !fill_is_wanted(fill, i)) {
            continue;
        }
        if (fill_is_overtaken(fill)) {
            mw_tiers_count(fill->tiers, MW_TIERS_OVERTAKEN);
            return;
        }
        fill_commit(fill, i);
    }
}

/* --- bodies --------------------------------------------------------------- */

/* 0: it is too long, or cannot be read. */
static int body_keep(mw_fill_t *fill, apr_bucket_brigade *body)
{
    apr_bucket *e;
    const char *data;
    apr_size_t length;

    for (e = APR_BRIGADE_FIRST(body); e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        if (apr_bucket_read(e, &data, &length, APR_BLOCK_READ) != APR_SUCCESS
            || length > fill->room - (apr_size_t)fill->length) {
            return 0;
        }
        memcpy(fill->kept + fill->length, data, length);
        fill->length += (apr_off_t)length;
    }
    return 1;
}

/* The buckets from `first` on go to the tiers. Whether files may be mapped, see
 * EnableMMAP, is not known here. */
static void body_add(mw_fill_t *fill, apr_bucket_brigade *body,
                     apr_bucket *first)
{
    apr_bucket *e;
    const char *data;
    apr_size_t length;

    for (e = first; fill->open && e != APR_BRIGADE_SENTINEL(body);
         e = APR_BUCKET_NEXT(e)) {
        if (APR_BUCKET_IS_FILE(e)) {
            apr_bucket_file_enable_mmap(e, 0);
        }
        if (apr_bucket_read(e, &data, &length, APR_BLOCK_READ) != APR_SUCCESS) {
            fill_close(fill);
        }
        else {
            fill_write(fill, data, length);
            fill->length += (apr_off_t)length;
        }
    }
}

/* The answer had no body, or one that only the kernel has read: once more, but
 * only where a tier takes it. */
static void body_get(mw_fill_t *fill)
{
    const mw_tier_t *tier = &fill->tiers->tier[fill->from];
    cachemw_call_t call = fill->call;
    cachemw_entry_t entry = { .body = NULL };

    if (!fill->open) {
        return;
    }
    call.now = fill_now(fill);
    call.bucket_alloc = apr_bucket_alloc_create(call.pool);
    entry.body = apr_brigade_create(call.pool, call.bucket_alloc);
    if (tier->table->get(tier->self, &call, &fill->key, &entry) == APR_SUCCESS
        && memcmp(&entry.id, &fill->entry.id, sizeof(entry.id)) == 0) {
        body_add(fill, entry.body, APR_BRIGADE_FIRST(entry.body));
    }
}

/* --- life ----------------------------------------------------------------- */

static void fill_free(mw_fill_t *fill)
{
    free(fill->kept);
    __atomic_fetch_sub(&fill->tiers->nfills, 1, __ATOMIC_RELAXED);
    apr_pool_destroy(fill->call.pool);
}

/* The answer has been sent, or given up. */
static void fill_finish(mw_fill_t *fill)
{
    const int is_ending =
        __atomic_load_n(&fill->tiers->is_ending, __ATOMIC_RELAXED);

    if (fill->is_to_be_got && !is_ending) {
        fill_start(fill);
        body_get(fill);
    }
    if (fill->length == fill->entry.body_len && !is_ending) {
        fill_start(fill);
        fill_publish(fill);
    }
    fill_close(fill);
    fill_free(fill);
}

static void fill_unlist(mw_fill_t *fill)
{
    mw_fill_t **at = &fill->tiers->fills;

    while (*at != fill) {
        at = &(*at)->next;
    }
    *at = fill->next;
}

/* When the child ends, nothing of it matters any more, and this may be running
 * in a handler of a signal, which came while the mutex was held: prefork
 * destroys its pools there. */
static apr_status_t fill_over(void *baton)
{
    mw_fill_t *fill = baton;
    mw_tiers_t *tiers = fill->tiers;
    int is_busy;

    if (__atomic_load_n(&tiers->is_ending, __ATOMIC_RELAXED)) {
        return APR_SUCCESS;
    }
    pthread_mutex_lock(&tiers->mutex);
    if (fill->is_listed) {
        fill_unlist(fill);
    }
    is_busy = fill->is_busy;
    fill->is_over = 1;
    pthread_mutex_unlock(&tiers->mutex);
    /* else whoever reads finishes it */
    if (!is_busy) {
        fill_finish(fill);
    }
    return APR_SUCCESS;
}

mw_fill_t *mw_fill_take_piece(mw_tiers_t *tiers, const cachemw_id_t *id,
                              apr_off_t offset)
{
    mw_fill_t *fill;

    if (!__atomic_load_n(&tiers->fills, __ATOMIC_RELAXED)) {
        return NULL;
    }
    pthread_mutex_lock(&tiers->mutex);
    fill = tiers->fills;
    while (fill
           && (fill->is_busy || fill->length != offset
               || memcmp(&fill->entry.id, id, sizeof(*id)) != 0)) {
        fill = fill->next;
    }
    if (fill) {
        fill->is_busy = 1;
    }
    pthread_mutex_unlock(&tiers->mutex);
    return fill;
}

int mw_fill_from(const mw_fill_t *fill)
{
    return fill->from;
}

/* One of files is not to come into memory for it. */
static int body_has_file(const apr_bucket_brigade *body,
                         const apr_bucket *first)
{
    const apr_bucket *e = first;

    while (e != APR_BRIGADE_SENTINEL(body) && !APR_BUCKET_IS_FILE(e)) {
        e = APR_BUCKET_NEXT(e);
    }
    return e != APR_BRIGADE_SENTINEL(body);
}

static void fill_add(mw_fill_t *fill, apr_bucket_brigade *body,
                     apr_bucket *first)
{
    fill_start(fill);
    if (body_has_file(body, first)) {
        fill_close(fill);
    }
    body_add(fill, body, first);
}

void mw_fill_end_piece(mw_fill_t *fill, apr_bucket_brigade *body,
                       apr_bucket *first)
{
    mw_tiers_t *tiers = fill->tiers;
    int is_over;

    if (first) {
        fill_add(fill, body, first);
    }
    pthread_mutex_lock(&tiers->mutex);
    fill->is_busy = 0;
    is_over = fill->is_over;
    pthread_mutex_unlock(&tiers->mutex);
    if (is_over) {
        fill_finish(fill);
    }
}

/* Another request of this process has begun with it. */
static int fill_is_known(mw_tiers_t *tiers, const cachemw_id_t *id)
{
    mw_fill_t *fill;

    pthread_mutex_lock(&tiers->mutex);
    fill = tiers->fills;
    while (fill && memcmp(&fill->entry.id, id, sizeof(*id)) != 0) {
        fill = fill->next;
    }
    pthread_mutex_unlock(&tiers->mutex);
    return fill != NULL;
}

static mw_fill_t *fill_make(mw_tiers_t *tiers, const cachemw_call_t *call,
                            const cachemw_key_t *key,
                            const cachemw_entry_t *entry)
{
    apr_pool_t *pool;
    mw_fill_t *fill;

    if (__atomic_fetch_add(&tiers->nfills, 1, __ATOMIC_RELAXED) >= MW_FILLS_MAX
        || apr_pool_create(&pool, NULL) != APR_SUCCESS) {
        __atomic_fetch_sub(&tiers->nfills, 1, __ATOMIC_RELAXED);
        mw_tiers_count(tiers, MW_TIERS_DROPPED);
        return NULL;
    }
    fill = apr_pcalloc(pool, sizeof(*fill));
    fill->tiers = tiers;
    fill->call.pool = pool;
    fill->call.now = call->now;
    fill->began = tiers->services->deadline_in(tiers->services, NULL, 0);
    apr_pool_create(&fill->scratch, pool);
    fill->key.data = apr_pmemdup(pool, key->data, key->len);
    fill->key.len = key->len;
    fill->entry = *entry;
    fill->entry.head = apr_pmemdup(pool, entry->head, entry->head_len);
    fill->entry.body = NULL;
    return fill;
}

/* What of the body is in the answer. 0: it cannot be filled in. */
static int fill_keep(mw_fill_t *fill, const cachemw_entry_t *entry)
{
    apr_off_t length = entry->body_len;

    if (length == 0) {
        return 1;
    }
    if (!entry->body
        || body_has_file(entry->body, APR_BRIGADE_FIRST(entry->body))) {
        fill->is_to_be_got = 1;
        return length <= (apr_off_t)MW_FILL_MEMORY;
    }
    fill->room = length < (apr_off_t)MW_FILL_MEMORY ? (apr_size_t)length
                                                    : MW_FILL_MEMORY;
    fill->kept = malloc(fill->room);
    return fill->kept && body_keep(fill, entry->body);
}

void mw_fill_begin(mw_tiers_t *tiers, const cachemw_call_t *call,
                   const cachemw_key_t *key, const cachemw_entry_t *entry,
                   int from, unsigned int missed, apr_uint64_t note)
{
    mw_fill_t *fill;

    missed &= mw_tiers_fit(tiers, entry->body_len);
    if (!missed || fill_is_known(tiers, &entry->id)
        || !(fill = fill_make(tiers, call, key, entry))) {
        return;
    }
    fill->from = from;
    fill->wanted = missed;
    fill->note = note;
    if (!fill_keep(fill, entry)) {
        fill_free(fill);
        return;
    }
    if (fill->length < entry->body_len && !fill->is_to_be_got) {
        pthread_mutex_lock(&tiers->mutex);
        fill->is_listed = 1;
        fill->next = tiers->fills;
        tiers->fills = fill;
        pthread_mutex_unlock(&tiers->mutex);
    }
    apr_pool_pre_cleanup_register(call->pool, fill, fill_over);
}

static apr_status_t fills_end(void *baton)
{
    mw_tiers_t *tiers = baton;

    __atomic_store_n(&tiers->is_ending, 1, __ATOMIC_RELAXED);
    return APR_SUCCESS;
}

void mw_fills_child_init(mw_tiers_t *tiers, apr_pool_t *pchild)
{
    tiers->process = (apr_uint64_t)getpid() << 20;
    tiers->fills = NULL;
    tiers->nfills = 0;
    tiers->is_ending = 0;
    apr_pool_pre_cleanup_register(pchild, tiers, fills_end);
}
