/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file mod_cachemw_faulty.c
 * @brief A provider for tests: another store, with faults on demand.
 *
 *     CachemwStore inside memory
 *     CachemwStore tested faulty        inner=inside faults=/tmp/x/faults
 *     CachemwStore remote faulty_remote inner=inside faults=/tmp/x/faults
 *
 * Both pass every call on to the store `inner`, in pieces where they come in
 * pieces. faulty_remote is one that leaves the machine as far as mod_cachemw
 * can tell: deadline and breaker apply to it.
 *
 * `faults` names a file that is read at every call; none, or an empty one,
 * means no faults. Replace it by rename(), so that nobody reads half of it. A
 * line of it is
 *
 *     SLOT FAULT [ARGUMENT] [after=N] [count=N]
 *
 * or a comment that begins with '#'. SLOT is open, post_config, child_init,
 * get, read, set, set_begin, set_write, set_commit, set_head, remove, exists,
 * clear, keys, sweep or stats. The first line that applies is the one: it
 * applies to all calls of its slot but the first N (after), and to N calls in
 * all (count). Calls are counted over all children, from the moment that the
 * file is replaced; those of open are not counted. FAULT is
 *
 *     error            EIO
 *     error=NAME       EIO ECONNREFUSED ECONNRESET EPIPE EACCES ENOMEM EROFS
 *                      EBUSY EMFILE ETIMEDOUT, or of APR EINCOMPLETE ENOTIMPL
 *                      EGENERAL EOF EAGAIN
 *     enospc, notfound the answers with a meaning of their own
 *     timeout [MS]     waits MS milliseconds, else until the call's deadline,
 *                      else 250 ms; then APR_TIMEUP
 *     delay=MS         waits MS milliseconds, then works
 *     late=MS          get: works, then waits MS milliseconds with the answer
 *     damaged [head]   get: a byte of the head is wrong. set, set_begin,
 *                      set_head: it is stored like that.
 *     damaged body     get and read: a byte of the body is wrong. Nobody can
 *                      tell: to check bodies is each provider's own duty
 *     damaged          read: the provider has found out (APR_EINCOMPLETE)
 *     truncated [body] get: half of the body, and no read of the rest works.
 *                      read: half of the piece
 *     truncated head   get: half of the head
 *     truncated piece  get: half of the body, at most 64 KB of it; the rest is
 *                      there to be read, also when inner gives whole bodies
 *     otherkey [GLOB]  get: the entry of some other key that matches
 *
 * A fault of set_write, set_commit or set_begin reaches sets in pieces, one of
 * set the others (Vary records, and everything where inner does not stream).
 * What is wrong with a line is logged, and the line ignored.
 */

#include <pthread.h>
#include <string.h>

#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "faults.h"
#include "mod_cachemw.h"

#define TIMEOUT_DEFAULT 250000 /* µs */
#define DAMAGE_MAX 65536
#define CUT_MAX 64

typedef struct faulty_t {
    const cachemw_services_t *services;
    const cachemw_provider_t *inner;
    void *self; /* the inner store */
    const char *file;
    fault_counts_t *counts; /* NULL before post_config */
    pthread_mutex_t mutex;
    cachemw_id_t cut[CUT_MAX]; /* entries that get truncated; a ring */
    unsigned int ncut;
} faulty_t;

/* --- faults --------------------------------------------------------------- */

/* A signal with a handler does not end it. */
static void wait_out(apr_interval_time_t wait)
{
    const apr_time_t end = apr_time_now() + wait;

    for (; wait > 0; wait = end - apr_time_now()) {
        apr_sleep(wait);
    }
}

/* Wait, and find out what the fault makes of the call: anything but
 * APR_SUCCESS is to be returned. */
static apr_status_t faulty_enter(const faulty_t *faulty, const char *slot,
                                 const cachemw_call_t *call, fault_t *fault)
{
    apr_interval_time_t wait;

    fault_find(faulty->services, faulty->file, faulty->counts, slot, fault);
    wait = fault->wait;
    switch (fault->kind) {
    case FAULT_ERROR:
        return fault->status;
    case FAULT_DELAY:
        wait_out(wait);
        return APR_SUCCESS;
    case FAULT_TIMEOUT:
        if (wait < 0 && call) {
            wait = faulty->services->remaining(faulty->services, call);
        }
        wait_out(wait < 0 ? TIMEOUT_DEFAULT : wait);
        return APR_TIMEUP;
    default:
        return APR_SUCCESS;
    }
}

static int fault_is_of(const fault_t *fault, fault_e kind, const char *what)
{
    return fault->kind == kind && strcmp(fault->what, what) == 0;
}

static void damage_head(cachemw_entry_t *entry, apr_pool_t *pool)
{
    char *head;

    if (entry->head_len > 0) {
        head = apr_pmemdup(pool, entry->head, entry->head_len);
        head[entry->head_len / 2] ^= 0x20;
        entry->head = head;
    }
}

/* A byte of the first bucket from e on. */
static apr_status_t damage_body(apr_bucket_brigade *body, apr_bucket *e)
{
    const char *data;
    char *copy;
    apr_size_t length;
    apr_bucket *wrong;
    apr_status_t rv;

    if (!body || e == APR_BRIGADE_SENTINEL(body)) {
        return APR_SUCCESS;
    }
    if (e->length > DAMAGE_MAX) {
        apr_bucket_split(e, DAMAGE_MAX);
    }
    rv = apr_bucket_read(e, &data, &length, APR_BLOCK_READ);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    wrong = apr_bucket_heap_create(data, length, NULL, body->bucket_alloc);
    if (apr_bucket_read(wrong, &data, &length, APR_BLOCK_READ) == APR_SUCCESS
        && length > 0) {
        copy = (char *)data; /* the bucket's own memory */
        copy[length / 2] ^= 0x20;
    }
    APR_BUCKET_INSERT_BEFORE(e, wrong);
    apr_bucket_delete(e);
    return APR_SUCCESS;
}

/* Keep `length` bytes. */
static void cut_body(apr_bucket_brigade *body, apr_off_t length)
{
    apr_bucket *e = APR_BRIGADE_FIRST(body);

    while (e != APR_BRIGADE_SENTINEL(body)) {
        apr_bucket *next;

        if (length > 0 && (apr_off_t)e->length > length) {
            apr_bucket_split(e, (apr_size_t)length);
        }
        next = APR_BUCKET_NEXT(e);
        if (length == 0) {
            apr_bucket_delete(e);
        }
        else {
            length -= e->length;
        }
        e = next;
    }
}

static void cut_remember(faulty_t *faulty, const cachemw_id_t *id)
{
    pthread_mutex_lock(&faulty->mutex);
    faulty->cut[faulty->ncut++ % CUT_MAX] = *id;
    pthread_mutex_unlock(&faulty->mutex);
}

static int cut_is_known(faulty_t *faulty, const cachemw_id_t *id)
{
    unsigned int i, n;
    int known = 0;

    pthread_mutex_lock(&faulty->mutex);
    n = faulty->ncut < CUT_MAX ? faulty->ncut : CUT_MAX;
    for (i = 0; i < n && !known; i++) {
        known = memcmp(&faulty->cut[i], id, sizeof(*id)) == 0;
    }
    pthread_mutex_unlock(&faulty->mutex);
    return known;
}

typedef struct other_t {
    const cachemw_key_t *not_this;
    cachemw_key_t key;
    apr_pool_t *pool;
} other_t;

static apr_status_t other_found(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    other_t *other = baton;

    (void)entry;
    if (key->len == other->not_this->len
        && memcmp(key->data, other->not_this->data, key->len) == 0) {
        return APR_SUCCESS;
    }
    other->key.data = apr_pmemdup(other->pool, key->data, key->len);
    other->key.len = key->len;
    return APR_EOF;
}

static apr_status_t get_other(faulty_t *faulty, const cachemw_call_t *call,
                              const cachemw_key_t *key, const char *pattern,
                              cachemw_entry_t *entry)
{
    other_t other = { key, { NULL, 0 }, call->pool };
    apr_status_t rv;

    rv = faulty->inner->keys(faulty->self, call, *pattern ? pattern : NULL,
                             other_found, &other);
    if (!other.key.data) {
        return rv == APR_SUCCESS ? APR_NOTFOUND : rv;
    }
    return faulty->inner->get(faulty->self, call, &other.key, entry);
}

/* --- life ----------------------------------------------------------------- */

enum { OPTION_INNER, OPTION_FAULTS };

static const cachemw_option_t faulty_options[] = {
    [OPTION_INNER] = { .name = "inner",
                       .type = CACHEMW_STORE,
                       .required = 1,
                       .help = "The store that does the work." },
    [OPTION_FAULTS] = { .name = "faults",
                        .type = CACHEMW_PATH,
                        .help = "The file that tells what goes wrong." },
    { .name = NULL }
};

static apr_status_t faulty_close_cleanup(void *data)
{
    faulty_t *faulty = data;

    pthread_mutex_destroy(&faulty->mutex);
    return APR_SUCCESS;
}

static apr_status_t faulty_open(const cachemw_services_t *services,
                                const cachemw_value_t *values,
                                apr_pool_t *pconf, void **store,
                                const char **error)
{
    faulty_t *faulty = apr_pcalloc(pconf, sizeof(*faulty));
    fault_t fault;
    apr_status_t rv;

    faulty->services = services;
    faulty->file = values[OPTION_FAULTS].string;
    rv = services->store(services, values[OPTION_INNER].string, &faulty->inner,
                         &faulty->self);
    if (rv != APR_SUCCESS) {
        *error = apr_psprintf(pconf, "inner: there is no store \"%s\"",
                              values[OPTION_INNER].string);
        return rv;
    }
    rv = faulty_enter(faulty, "open", NULL, &fault);
    if (rv != APR_SUCCESS) {
        *error = "the control file wants it to fail";
        return rv;
    }
    pthread_mutex_init(&faulty->mutex, NULL);
    apr_pool_cleanup_register(pconf, faulty, faulty_close_cleanup,
                              apr_pool_cleanup_null);
    *store = faulty;
    return APR_SUCCESS;
}

static void faulty_close(void *store)
{
    (void)store;
}

static apr_status_t faulty_post_config(void *store, apr_pool_t *pconf,
                                       apr_uid_t uid, apr_gid_t gid)
{
    faulty_t *faulty = store;
    fault_t fault;
    void *base;
    int is_new;
    apr_status_t rv;

    (void)pconf, (void)uid, (void)gid;
    rv = faulty->services->segment(faulty->services, fault_counts_size(),
                                   FAULT_COUNTS_LAYOUT, &base, &is_new);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    faulty->counts = base;
    return faulty_enter(faulty, "post_config", NULL, &fault);
}

static apr_status_t faulty_child_init(void *store, apr_pool_t *pchild)
{
    fault_t fault;

    (void)pchild;
    return faulty_enter(store, "child_init", NULL, &fault);
}

/* --- entries -------------------------------------------------------------- */

static apr_status_t get_spoil(faulty_t *faulty, const cachemw_call_t *call,
                              const fault_t *fault, cachemw_entry_t *entry)
{
    apr_bucket_brigade *body = entry->body;

    if (fault_is_of(fault, FAULT_DAMAGED, "body")) {
        return body ? damage_body(body, APR_BRIGADE_FIRST(body)) : APR_SUCCESS;
    }
    if (fault->kind == FAULT_DAMAGED) {
        damage_head(entry, call->pool);
    }
    else if (fault_is_of(fault, FAULT_TRUNCATED, "head")) {
        entry->head_len /= 2;
    }
    else if (fault_is_of(fault, FAULT_TRUNCATED, "piece")) {
        if (body && entry->body_len > 1) {
            cut_body(body, entry->body_len / 2 < CACHEMW_PIECE_MAX
                               ? entry->body_len / 2
                               : CACHEMW_PIECE_MAX);
        }
    }
    else if (fault->kind == FAULT_TRUNCATED && body) {
        cut_remember(faulty, &entry->id);
        cut_body(body, entry->body_len / 2);
    }
    return APR_SUCCESS;
}

static apr_status_t faulty_get(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key, cachemw_entry_t *entry)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "get", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (fault.kind == FAULT_OTHERKEY) {
        return get_other(faulty, call, key, fault.what, entry);
    }
    rv = faulty->inner->get(faulty->self, call, key, entry);
    if (fault.kind == FAULT_LATE) {
        wait_out(fault.wait);
    }
    return rv == APR_SUCCESS ? get_spoil(faulty, call, &fault, entry) : rv;
}

/* What a store without the slot read would give if it had one. */
static apr_status_t read_by_get(faulty_t *faulty, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id, apr_off_t offset,
                                apr_size_t limit, apr_bucket_brigade *body)
{
    cachemw_entry_t entry = { .body_len = 0 };
    apr_bucket *first;
    apr_status_t rv;

    entry.body = apr_brigade_create(call->pool, call->bucket_alloc);
    rv = faulty->inner->get(faulty->self, call, key, &entry);
    if (rv == APR_SUCCESS && memcmp(&entry.id, id, sizeof(*id)) != 0) {
        rv = APR_NOTFOUND;
    }
    if (rv == APR_SUCCESS) {
        rv = apr_brigade_partition(entry.body, offset, &first);
    }
    if (rv != APR_SUCCESS) {
        apr_brigade_destroy(entry.body);
        return rv;
    }
    while (APR_BRIGADE_FIRST(entry.body) != first) {
        apr_bucket_delete(APR_BRIGADE_FIRST(entry.body));
    }
    if (entry.body_len - offset > (apr_off_t)limit) {
        cut_body(entry.body, (apr_off_t)limit);
    }
    APR_BRIGADE_CONCAT(body, entry.body);
    return APR_SUCCESS;
}

static apr_status_t faulty_read(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id, apr_off_t offset,
                                apr_size_t limit, apr_bucket_brigade *body)
{
    faulty_t *faulty = store;
    apr_bucket *last = APR_BRIGADE_LAST(body);
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "read", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (cut_is_known(faulty, id) || fault_is_of(&fault, FAULT_DAMAGED, "")) {
        return APR_EINCOMPLETE;
    }
    if (fault.kind == FAULT_TRUNCATED && limit > 1) {
        limit /= 2;
    }
    rv = faulty->inner->read(faulty->self, call, key, id, offset, limit, body);
    if (rv == APR_NOTFOUND) {
        rv = read_by_get(faulty, call, key, id, offset, limit, body);
    }
    if (rv == APR_SUCCESS && fault.kind == FAULT_DAMAGED) {
        rv = damage_body(body, APR_BUCKET_NEXT(last));
    }
    return rv;
}

static apr_status_t faulty_set(void *store, const cachemw_call_t *call,
                               const cachemw_key_t *key,
                               const cachemw_entry_t *entry)
{
    faulty_t *faulty = store;
    cachemw_entry_t spoilt = *entry;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "set", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (fault.kind == FAULT_DAMAGED) {
        damage_head(&spoilt, call->pool);
    }
    return faulty->inner->set(faulty->self, call, key, &spoilt);
}

static apr_status_t faulty_remove(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "remove", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    return faulty->inner->remove(faulty->self, call, key, id);
}

static apr_status_t faulty_set_head(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    const cachemw_id_t *id,
                                    const cachemw_entry_t *entry)
{
    faulty_t *faulty = store;
    cachemw_entry_t spoilt = *entry;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "set_head", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (fault.kind == FAULT_DAMAGED) {
        damage_head(&spoilt, call->pool);
    }
    return faulty->inner->set_head(faulty->self, call, key, id, &spoilt);
}

/* --- sets in pieces ------------------------------------------------------- */

static apr_status_t faulty_set_begin(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     const cachemw_entry_t *entry, void **set)
{
    faulty_t *faulty = store;
    cachemw_entry_t spoilt = *entry;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "set_begin", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (fault.kind == FAULT_DAMAGED) {
        damage_head(&spoilt, call->pool);
    }
    return faulty->inner->set_begin(faulty->self, call, key, &spoilt, set);
}

static apr_status_t faulty_set_write(void *store, const cachemw_call_t *call,
                                     void *set, const char *data,
                                     apr_size_t length)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "set_write", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    return faulty->inner->set_write(faulty->self, call, set, data, length);
}

static apr_status_t faulty_set_commit(void *store, const cachemw_call_t *call,
                                      void *set)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "set_commit", call, &fault);

    if (rv != APR_SUCCESS) {
        faulty->inner->set_abort(faulty->self, set);
        return rv;
    }
    return faulty->inner->set_commit(faulty->self, call, set);
}

static void faulty_set_abort(void *store, void *set)
{
    faulty_t *faulty = store;

    faulty->inner->set_abort(faulty->self, set);
}

/* --- the others ----------------------------------------------------------- */

static apr_status_t faulty_exists(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "exists", call, &fault);

    return rv == APR_SUCCESS ? faulty->inner->exists(faulty->self, call, key)
                             : rv;
}

static apr_status_t faulty_clear(void *store, const cachemw_call_t *call)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "clear", call, &fault);

    return rv == APR_SUCCESS ? faulty->inner->clear(faulty->self, call) : rv;
}

static apr_status_t faulty_keys(void *store, const cachemw_call_t *call,
                                const char *pattern, cachemw_keys_fn *each,
                                void *baton)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "keys", call, &fault);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    return faulty->inner->keys(faulty->self, call, pattern, each, baton);
}

static apr_status_t faulty_sweep(void *store, const cachemw_call_t *call,
                                 int *more)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "sweep", call, &fault);

    return rv == APR_SUCCESS ? faulty->inner->sweep(faulty->self, call, more)
                             : rv;
}

static apr_status_t faulty_stats(void *store, const cachemw_call_t *call,
                                 cachemw_stats_t *stats)
{
    faulty_t *faulty = store;
    fault_t fault;
    apr_status_t rv = faulty_enter(faulty, "stats", call, &fault);

    return rv == APR_SUCCESS ? faulty->inner->stats(faulty->self, call, stats)
                             : rv;
}

static apr_off_t faulty_object_limit(void *store)
{
    faulty_t *faulty = store;

    return faulty->inner->object_limit(faulty->self);
}

#define FAULTY_SLOTS                                                     \
    .size = sizeof(cachemw_provider_t), .options = faulty_options,       \
    .open = faulty_open, .close = faulty_close, .get = faulty_get,       \
    .set = faulty_set, .remove = faulty_remove,                          \
    .post_config = faulty_post_config, .child_init = faulty_child_init,  \
    .set_head = faulty_set_head, .read = faulty_read,                    \
    .set_begin = faulty_set_begin, .set_write = faulty_set_write,        \
    .set_commit = faulty_set_commit, .set_abort = faulty_set_abort,      \
    .exists = faulty_exists, .clear = faulty_clear, .keys = faulty_keys, \
    .sweep = faulty_sweep, .stats = faulty_stats,                        \
    .object_limit = faulty_object_limit

static const cachemw_provider_t faulty_local = { FAULTY_SLOTS };
static const cachemw_provider_t faulty_remote = { FAULTY_SLOTS,
                                                  .flags = CACHEMW_REMOTE };

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "faulty",
                         CACHEMW_PROVIDER_VERSION, &faulty_local);
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "faulty_remote",
                         CACHEMW_PROVIDER_VERSION, &faulty_remote);
}

/* The one symbol that leaves this object. */
extern module AP_MODULE_DECLARE_DATA cachemw_faulty_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(cachemw_faulty) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
