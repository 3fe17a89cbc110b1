/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_general.h"

#include "store_fixture.h"

typedef struct record_t {
    cachemw_id_t id;
    char *head;
    apr_size_t head_len;
    apr_time_t expires;
    char *body;
    apr_size_t body_len;
} record_t;

typedef struct fake_set_t {
    cachemw_key_t key;
    record_t *record;
    apr_off_t announced;
} fake_set_t;

fake_t fake;

static apr_status_t fake_enter(fake_slot_e slot, const cachemw_call_t *call)
{
    __atomic_add_fetch(&fake.calls[slot], 1, __ATOMIC_RELAXED);
    if (fake.during) {
        fake.during(slot); /* perhaps in several threads at once */
    }
    else if (call) {
        fake.seen = *call;
    }
    return fake.fail[slot];
}

static record_t *record_find(const cachemw_key_t *key, apr_time_t now)
{
    record_t *record = apr_hash_get(fake.entries, key->data, key->len);

    return record && record->expires > now ? record : NULL;
}

static record_t *record_make(const cachemw_entry_t *entry)
{
    record_t *record = apr_pcalloc(fake.pool, sizeof(*record));

    record->id = entry->id;
    record->head = apr_pmemdup(fake.pool, entry->head, entry->head_len);
    record->head_len = entry->head_len;
    record->expires = entry->expires;
    record->body = "";
    return record;
}

static void record_append(record_t *record, const char *data, apr_size_t length)
{
    char *body = apr_palloc(fake.pool, record->body_len + length);

    memcpy(body, record->body, record->body_len);
    memcpy(body + record->body_len, data, length);
    record->body = body;
    record->body_len += length;
}

static void record_publish(const cachemw_key_t *key, record_t *record)
{
    const char *data = apr_pmemdup(fake.pool, key->data, key->len);

    apr_hash_set(fake.entries, data, key->len, record);
}

static void brigade_append(apr_bucket_brigade *body, const char *data,
                           apr_size_t length)
{
    if (length) {
        APR_BRIGADE_INSERT_TAIL(
            body,
            apr_bucket_heap_create(data, length, NULL, body->bucket_alloc));
    }
}

static apr_status_t fake_open(const cachemw_services_t *services,
                              const cachemw_value_t *values, apr_pool_t *pconf,
                              void **store, const char **error)
{
    (void)pconf, (void)error;
    fake.services = services;
    fake.values = values;
    *store = &fake;
    return fake_enter(FAKE_OPEN, NULL);
}

static void fake_close(void *store)
{
    assert_ptr_equal(store, &fake);
    fake_enter(FAKE_CLOSE, NULL);
}

static apr_status_t fake_post_config(void *store, apr_pool_t *pconf,
                                     apr_uid_t uid, apr_gid_t gid)
{
    (void)store, (void)pconf, (void)uid, (void)gid;
    return fake_enter(FAKE_POST_CONFIG, NULL);
}

static apr_status_t fake_child_init(void *store, apr_pool_t *pchild)
{
    (void)store, (void)pchild;
    return fake_enter(FAKE_CHILD_INIT, NULL);
}

static void get_body(apr_bucket_brigade *body, const record_t *record)
{
    apr_size_t length = record->body_len;

    if (fake.piece && fake.piece < length) {
        length = fake.piece;
    }
    if (fake.lie == FAKE_SHORT_BODY) {
        length--;
    }
    if (fake.lie != FAKE_NO_BODY && fake.lie != FAKE_FOREIGN_BODY) {
        brigade_append(body, record->body, length);
    }
    if (fake.lie == FAKE_LONG_BODY) {
        brigade_append(body, "y", 1);
    }
    if (fake.lie == FAKE_METADATA) {
        APR_BRIGADE_INSERT_TAIL(body,
                                apr_bucket_eos_create(body->bucket_alloc));
    }
}

static void get_lie(cachemw_entry_t *entry, const cachemw_call_t *call)
{
    switch (fake.lie) {
    case FAKE_FOREIGN_BODY:
        entry->body = apr_brigade_create(call->pool, call->bucket_alloc);
        brigade_append(entry->body, "foreign", 7);
        break;
    case FAKE_UNKNOWN_LENGTH:
        entry->body_len = -1;
        break;
    case FAKE_LONG_HEAD:
        entry->head_len = CACHEMW_HEAD_MAX + 1;
        break;
    case FAKE_NULL_HEAD:
        entry->head = NULL;
        break;
    case FAKE_EXPIRED:
        entry->expires = call->now;
        break;
    default:
        break;
    }
}

static apr_status_t fake_get(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, cachemw_entry_t *entry)
{
    apr_status_t rv = fake_enter(FAKE_GET, call);
    const record_t *record = record_find(key, call->now);

    (void)store;
    if (fake.lie == FAKE_BUCKETS_BUT_FAIL) {
        brigade_append(entry->body, "rubbish", 7);
        return APR_NOTFOUND;
    }
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (!record) {
        return APR_NOTFOUND;
    }
    entry->id = record->id;
    entry->head = apr_pmemdup(call->pool, record->head, record->head_len);
    entry->head_len = record->head_len;
    entry->expires = record->expires;
    entry->body_len = (apr_off_t)record->body_len;
    if (entry->body) {
        get_body(entry->body, record);
    }
    get_lie(entry, call);
    return APR_SUCCESS;
}

static apr_status_t fake_set(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key,
                             const cachemw_entry_t *entry)
{
    record_t *record = record_make(entry);
    apr_status_t rv = fake_enter(FAKE_SET, call);
    apr_bucket *e;

    (void)store;
    fake.announced = entry->body_len;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    for (e = entry->body ? APR_BRIGADE_FIRST(entry->body) : NULL;
         e && e != APR_BRIGADE_SENTINEL(entry->body); e = APR_BUCKET_NEXT(e)) {
        const char *data;
        apr_size_t length;

        assert_int_equal(apr_bucket_read(e, &data, &length, APR_BLOCK_READ),
                         APR_SUCCESS);
        record_append(record, data, length);
    }
    assert_int_equal(record->body_len, entry->body_len);
    record_publish(key, record);
    return APR_SUCCESS;
}

static apr_status_t fake_remove(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *id)
{
    apr_status_t rv = fake_enter(FAKE_REMOVE, call);
    const record_t *record = record_find(key, 0);

    (void)store;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (record && id && memcmp(&record->id, id, sizeof(*id)) != 0) {
        return APR_NOTFOUND;
    }
    apr_hash_set(fake.entries, key->data, key->len, NULL);
    return APR_SUCCESS;
}

static apr_status_t fake_set_head(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id,
                                  const cachemw_entry_t *entry)
{
    apr_status_t rv = fake_enter(FAKE_SET_HEAD, call);
    record_t *record = record_find(key, call->now);

    (void)store;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (!record || memcmp(&record->id, id, sizeof(*id)) != 0) {
        return APR_NOTFOUND;
    }
    record->head = apr_pmemdup(fake.pool, entry->head, entry->head_len);
    record->head_len = entry->head_len;
    record->expires = entry->expires;
    return APR_SUCCESS;
}

static apr_status_t fake_read(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              apr_off_t offset, apr_size_t limit,
                              apr_bucket_brigade *body)
{
    apr_status_t rv = fake_enter(FAKE_READ, call);
    const record_t *record = record_find(key, call->now);
    apr_size_t length;

    (void)store;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (!record || memcmp(&record->id, id, sizeof(*id)) != 0) {
        return APR_NOTFOUND;
    }
    assert_in_range(offset, 0, record->body_len - 1);
    length = record->body_len - (apr_size_t)offset;
    length = length < limit ? length : limit;
    if (fake.lie == FAKE_LONG_PIECE) {
        brigade_append(body, record->body, limit);
        length = 1;
    }
    if (fake.lie != FAKE_EMPTY_PIECE) {
        brigade_append(body, record->body + offset, length);
    }
    return APR_SUCCESS;
}

static apr_status_t fake_set_begin(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_entry_t *entry, void **set)
{
    fake_set_t *begun = apr_pcalloc(fake.pool, sizeof(*begun));
    apr_status_t rv = fake_enter(FAKE_SET_BEGIN, call);

    (void)store;
    fake.announced = entry->body_len;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    begun->key.data = apr_pmemdup(fake.pool, key->data, key->len);
    begun->key.len = key->len;
    begun->record = record_make(entry);
    begun->announced = entry->body_len;
    fake.open_sets++;
    *set = begun;
    return APR_SUCCESS;
}

static apr_status_t fake_set_write(void *store, const cachemw_call_t *call,
                                   void *set, const char *data,
                                   apr_size_t length)
{
    fake_set_t *begun = set;
    apr_status_t rv = fake_enter(FAKE_SET_WRITE, call);

    (void)store;
    if (rv == APR_SUCCESS) {
        record_append(begun->record, data, length);
    }
    return rv;
}

static apr_status_t fake_set_commit(void *store, const cachemw_call_t *call,
                                    void *set)
{
    fake_set_t *begun = set;
    apr_status_t rv = fake_enter(FAKE_SET_COMMIT, call);

    (void)store;
    fake.open_sets--;
    if (rv == APR_SUCCESS) {
        record_publish(&begun->key, begun->record);
    }
    return rv;
}

static void fake_set_abort(void *store, void *set)
{
    (void)store, (void)set;
    fake_enter(FAKE_SET_ABORT, NULL);
    fake.open_sets--;
}

static apr_status_t fake_exists(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key)
{
    apr_status_t rv = fake_enter(FAKE_EXISTS, call);
    const record_t *record = record_find(key, call->now);

    (void)store;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    return record ? APR_SUCCESS : APR_NOTFOUND;
}

static apr_status_t fake_clear(void *store, const cachemw_call_t *call)
{
    apr_status_t rv = fake_enter(FAKE_CLEAR, call);

    (void)store;
    if (rv == APR_SUCCESS) {
        apr_hash_clear(fake.entries);
    }
    return rv;
}

/* Expired ones too: to leave them out is checked by core. */
static apr_status_t fake_keys(void *store, const cachemw_call_t *call,
                              const char *pattern, cachemw_keys_fn *each,
                              void *baton)
{
    apr_hash_index_t *i;
    apr_status_t rv = fake_enter(FAKE_KEYS, call);

    (void)store, (void)pattern;
    for (i = apr_hash_first(call->pool, fake.entries); i && rv == APR_SUCCESS;
         i = apr_hash_next(i)) {
        const record_t *record = apr_hash_this_val(i);
        cachemw_entry_t entry = { .id = record->id,
                                  .expires = record->expires,
                                  .body_len = (apr_off_t)record->body_len };
        cachemw_key_t key = { apr_hash_this_key(i),
                              (apr_size_t)apr_hash_this_key_len(i) };

        rv = each(baton, &key, &entry);
    }
    return rv;
}

static apr_status_t fake_sweep(void *store, const cachemw_call_t *call,
                               int *more)
{
    (void)store;
    *more = 1;
    return fake_enter(FAKE_SWEEP, call);
}

static apr_status_t fake_sync(void *store, const cachemw_call_t *call)
{
    (void)store;
    return fake_enter(FAKE_SYNC, call);
}

static apr_status_t fake_stats(void *store, const cachemw_call_t *call,
                               cachemw_stats_t *stats)
{
    (void)store;
    stats->entries = apr_hash_count(fake.entries);
    return fake_enter(FAKE_STATS, call);
}

static apr_status_t fake_lock(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_id_t *token,
                              apr_interval_time_t ttl, cachemw_id_t *holder)
{
    const cachemw_id_t *its = apr_hash_get(fake.locks, key->data, key->len);
    apr_status_t rv = fake_enter(FAKE_LOCK, call);

    (void)store;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (its && memcmp(its, token, sizeof(*its)) != 0) {
        *holder = *its;
        return APR_EBUSY;
    }
    fake.ttl = ttl;
    apr_hash_set(fake.locks, apr_pmemdup(fake.pool, key->data, key->len),
                 key->len, apr_pmemdup(fake.pool, token, sizeof(*token)));
    return APR_SUCCESS;
}

static apr_status_t fake_unlock(void *store, const cachemw_call_t *call,
                                const cachemw_key_t *key,
                                const cachemw_id_t *token)
{
    const cachemw_id_t *its = apr_hash_get(fake.locks, key->data, key->len);
    apr_status_t rv = fake_enter(FAKE_UNLOCK, call);

    (void)store;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (!its || memcmp(its, token, sizeof(*its)) != 0) {
        return APR_NOTFOUND;
    }
    apr_hash_set(fake.locks, key->data, key->len, NULL);
    return APR_SUCCESS;
}

static apr_off_t fake_object_limit(void *store)
{
    (void)store;
    return fake.limit;
}

const cachemw_provider_t fake_full = { .size = sizeof(cachemw_provider_t),
                                       .open = fake_open,
                                       .close = fake_close,
                                       .get = fake_get,
                                       .set = fake_set,
                                       .remove = fake_remove,
                                       .post_config = fake_post_config,
                                       .child_init = fake_child_init,
                                       .set_head = fake_set_head,
                                       .read = fake_read,
                                       .set_begin = fake_set_begin,
                                       .set_write = fake_set_write,
                                       .set_commit = fake_set_commit,
                                       .set_abort = fake_set_abort,
                                       .exists = fake_exists,
                                       .clear = fake_clear,
                                       .keys = fake_keys,
                                       .sweep = fake_sweep,
                                       .stats = fake_stats,
                                       .object_limit = fake_object_limit,
                                       .sync = fake_sync,
                                       .lock = fake_lock,
                                       .unlock = fake_unlock };

const cachemw_provider_t fake_small = { .size = sizeof(cachemw_provider_t),
                                        .open = fake_open,
                                        .close = fake_close,
                                        .get = fake_get,
                                        .set = fake_set,
                                        .remove = fake_remove };

/* --- the store and its surroundings --------------------------------------- */

static void host_log(void *baton, cachemw_level_e level, apr_status_t rv,
                     const char *text)
{
    fixture_t *f = baton;

    (void)level, (void)rv;
    assert_in_range(f->nlines, 0, FIXTURE_LINES - 1);
    f->lines[f->nlines++] = apr_pstrdup(f->pool, text);
}

static mw_store_t *host_find(void *baton, const char *name)
{
    fixture_t *f = baton;

    return strcmp(name, "other") == 0 ? f->other : NULL;
}

int fixture_setup(void **state)
{
    apr_pool_t *pool;
    fixture_t *f;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    f = apr_pcalloc(pool, sizeof(*f));
    f->pool = pool;
    f->alloc = apr_bucket_alloc_create(pool);
    f->host.log = host_log;
    f->host.find = host_find;
    f->host.baton = f;
    f->host.segments =
        mw_segments_begin(apr_pcalloc(pool, mw_segments_size()), pool);
    memset(&fake, 0, sizeof(fake));
    fake.pool = pool;
    fake.entries = apr_hash_make(pool);
    fake.locks = apr_hash_make(pool);
    fake.limit = 1024 * 1024;
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    fixture_t *f = *state;

    apr_pool_destroy(f->pool);
    apr_terminate();
    return 0;
}

apr_status_t fixture_open(fixture_t *f, const cachemw_provider_t *table,
                          const char *const *options)
{
    mw_options_t sets[2] = { { table->options, NULL },
                             { mw_store_options, NULL } };
    int n = 0;

    while (options && options[n]) {
        n++;
    }
    f->error = mw_options_parse(sets, 2, options, n, "/nowhere", f->pool);
    if (f->error) {
        return APR_EINVAL;
    }
    return mw_store_open(&f->store, f->name ? f->name : "shop",
                         f->provider_name ? f->provider_name : "fake", table,
                         sets, &f->host, f->pool, &f->error);
}

mw_store_t *fixture_start(fixture_t *f, const cachemw_provider_t *table,
                          const char *const *options)
{
    apr_status_t rv = fixture_open(f, table, options);

    if (rv != APR_SUCCESS) {
        fail_msg("open: %s", f->error);
    }
    assert_int_equal(mw_store_post_config(f->store, f->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(mw_store_child_init(f->store, f->pool), APR_SUCCESS);
    return f->store;
}

cachemw_call_t fixture_call(const fixture_t *f)
{
    cachemw_call_t call = { .pool = f->pool,
                            .bucket_alloc = f->alloc,
                            .now = FIXTURE_NOW };

    return call;
}

cachemw_key_t fixture_key(const char *text)
{
    cachemw_key_t key = { text, strlen(text) };

    return key;
}

cachemw_entry_t fixture_entry(char id, const char *head, apr_off_t body_len)
{
    cachemw_entry_t entry = { .head = head,
                              .head_len = strlen(head),
                              .expires = FIXTURE_NOW + apr_time_from_sec(60),
                              .body_len = body_len };

    memset(&entry.id, id, sizeof(entry.id));
    return entry;
}

void fixture_set(fixture_t *f, const char *text, char id, apr_size_t length)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = fixture_entry(id, "head", (apr_off_t)length);
    char *data = apr_palloc(f->pool, length + 1);

    memset(data, 'x', length);
    entry.body = apr_brigade_create(f->pool, f->alloc);
    brigade_append(entry.body, data, length);
    assert_int_equal(mw_store_set(f->store, &call, &key, &entry), APR_SUCCESS);
    apr_brigade_destroy(entry.body);
}

const char *fixture_get(fixture_t *f, const char *text, apr_status_t *rv)
{
    cachemw_call_t call = fixture_call(f);
    cachemw_key_t key = fixture_key(text);
    cachemw_entry_t entry = { .body = apr_brigade_create(f->pool, f->alloc) };
    char *body;
    apr_size_t length;

    *rv = mw_store_get(f->store, &call, &key, &entry);
    if (*rv != APR_SUCCESS) {
        assert_true(APR_BRIGADE_EMPTY(entry.body));
        return NULL;
    }
    assert_int_equal(apr_brigade_pflatten(entry.body, &body, &length, f->pool),
                     APR_SUCCESS);
    return apr_pstrmemdup(f->pool, body, length);
}

apr_uint64_t fixture_sum(const fixture_t *f, mw_counter_e which)
{
    return mw_state_sum(mw_store_state(f->store), which);
}

int fixture_logged(const fixture_t *f, const char *text)
{
    int i, n = 0;

    for (i = 0; i < f->nlines; i++) {
        n += strstr(f->lines[i], text) != NULL;
    }
    return n;
}

/* --- figures -------------------------------------------------------------- */

typedef struct figure_t {
    const char *name;
    apr_int64_t value;
} figure_t;

static void figure_extra(void *baton, const char *name, apr_int64_t value)
{
    figure_t *figure = baton;

    if (!strcmp(name, figure->name)) {
        figure->value = value;
    }
}

apr_int64_t fixture_figure(const fixture_t *f, mw_store_t *store,
                           const char *name)
{
    figure_t figure = { name, -1 };
    cachemw_call_t call = fixture_call(f);
    cachemw_stats_t stats = { .size = sizeof(stats),
                              .extra = figure_extra,
                              .baton = &figure };

    assert_int_equal(mw_store_stats(store, &call, &stats), APR_SUCCESS);
    return figure.value;
}
