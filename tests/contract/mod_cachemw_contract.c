/* SPDX-License-Identifier: Apache-2.0 */

/* Providers of version 1, compiled against the frozen header: one as it was
 * then; one with a table from before that was complete; one from after it; and
 * some that must be refused. The same text must compile against the present
 * header. Each keeps a few small entries for all children. */

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"
#include "apr_strings.h"

#ifdef CONTRACT_PRESENT
#include "mod_cachemw.h"
#else
#include "mod_cachemw-1.h"
#endif

#define BOXES 32
#define BOX_BYTES 65536

typedef struct box_t {
    cachemw_id_t id;
    apr_time_t expires; /* 0: empty */
    apr_size_t key_len;
    apr_size_t head_len;
    apr_size_t body_len;
    char bytes[BOX_BYTES]; /* key, head, body */
} box_t;

typedef struct shelf_t {
    pthread_mutex_t mutex;
    unsigned int next; /* to be used for what is new */
    box_t boxes[BOXES];
} shelf_t;

typedef struct contract_t {
    const cachemw_services_t *services;
    apr_off_t most; /* bytes of an entry */
    shelf_t *shelf;
} contract_t;

static const cachemw_option_t options[] = {
    { .name = "most",
      .type = CACHEMW_SIZE,
      .fallback = "64K",
      .minimum = "1K",
      .maximum = "64K",
      .help = "The largest entry, with its key and head." },
    { .name = NULL },
};

static apr_status_t contract_open(const cachemw_services_t *services,
                                  const cachemw_value_t *values,
                                  apr_pool_t *pconf, void **store,
                                  const char **error)
{
    contract_t *self = apr_pcalloc(pconf, sizeof(*self));

    (void)error;
    self->services = services;
    self->most = values[0].number;
    *store = self;
    return APR_SUCCESS;
}

static apr_status_t mutex_make(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    int rv = pthread_mutexattr_init(&attr);

    if (rv == 0) {
        pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
        rv = pthread_mutex_init(mutex, &attr);
        pthread_mutexattr_destroy(&attr);
    }
    return rv;
}

static apr_status_t contract_post_config(void *store, apr_pool_t *pconf,
                                         apr_uid_t uid, apr_gid_t gid)
{
    contract_t *self = store;
    const cachemw_services_t *services = self->services;
    int is_new;
    void *base;
    apr_status_t rv =
        services->segment(services, sizeof(shelf_t), 1, &base, &is_new);

    (void)pconf, (void)uid, (void)gid;
    if (rv == APR_SUCCESS && is_new) {
        rv = mutex_make(&((shelf_t *)base)->mutex);
    }
    if (rv == APR_SUCCESS) {
        self->shelf = base;
        services->log(services, CACHEMW_LOG_INFO, APR_SUCCESS,
                      "a shelf of %d boxes", BOXES);
    }
    return rv;
}

static apr_status_t shelf_lock(const contract_t *self)
{
    int rv = pthread_mutex_lock(&self->shelf->mutex);

    if (rv == EOWNERDEAD) {
        self->services->count(self->services, CACHEMW_COUNT_RECOVERED, 1);
        rv = pthread_mutex_consistent(&self->shelf->mutex);
    }
    return rv;
}

static void shelf_unlock(const contract_t *self)
{
    pthread_mutex_unlock(&self->shelf->mutex);
}

static box_t *box_find(const contract_t *self, const cachemw_key_t *key)
{
    box_t *box;
    int i;

    for (i = 0; i < BOXES; i++) {
        box = &self->shelf->boxes[i];
        if (box->expires && box->key_len == key->len
            && !memcmp(box->bytes, key->data, key->len)) {
            return box;
        }
    }
    return NULL;
}

static apr_status_t contract_get(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 cachemw_entry_t *entry)
{
    contract_t *self = store;
    apr_status_t rv = shelf_lock(self);
    const box_t *box;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    box = box_find(self, key);
    if (box && box->expires > call->now) {
        entry->id = box->id;
        entry->expires = box->expires;
        entry->head_len = box->head_len;
        entry->head =
            apr_pmemdup(call->pool, box->bytes + box->key_len, box->head_len);
        entry->body_len = (apr_off_t)box->body_len;
        if (entry->body && box->body_len) {
            rv = apr_brigade_write(entry->body, NULL, NULL,
                                   box->bytes + box->key_len + box->head_len,
                                   box->body_len);
        }
    }
    else {
        rv = APR_NOTFOUND;
    }
    shelf_unlock(self);
    return rv;
}

static apr_status_t contract_set(void *store, const cachemw_call_t *call,
                                 const cachemw_key_t *key,
                                 const cachemw_entry_t *entry)
{
    contract_t *self = store;
    apr_size_t room = (apr_size_t)self->most;
    apr_size_t body_len = (apr_size_t)entry->body_len;
    apr_status_t rv;
    box_t *box;

    (void)call;
    if (key->len + entry->head_len > room
        || body_len > room - key->len - entry->head_len) {
        return APR_ENOSPC;
    }
    rv = shelf_lock(self);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    box = box_find(self, key);
    box = box ? box : &self->shelf->boxes[self->shelf->next++ % BOXES];
    box->expires = 0;
    memcpy(box->bytes, key->data, key->len);
    memcpy(box->bytes + key->len, entry->head, entry->head_len);
    if (body_len) {
        rv = apr_brigade_flatten(
            entry->body, box->bytes + key->len + entry->head_len, &body_len);
    }
    box->id = entry->id;
    box->key_len = key->len;
    box->head_len = entry->head_len;
    box->body_len = body_len;
    box->expires = rv == APR_SUCCESS ? entry->expires : 0;
    shelf_unlock(self);
    return rv;
}

static apr_status_t contract_remove(void *store, const cachemw_call_t *call,
                                    const cachemw_key_t *key,
                                    const cachemw_id_t *id)
{
    contract_t *self = store;
    apr_status_t rv = shelf_lock(self);
    box_t *box;

    (void)call;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    box = box_find(self, key);
    if (box && id && memcmp(id, &box->id, sizeof(*id))) {
        rv = APR_NOTFOUND;
    }
    else if (box) {
        box->expires = 0;
    }
    shelf_unlock(self);
    return rv;
}

static apr_status_t contract_stats(void *store, const cachemw_call_t *call,
                                   cachemw_stats_t *stats)
{
    contract_t *self = store;
    apr_status_t rv = shelf_lock(self);
    int i;

    (void)call;
    if (rv != APR_SUCCESS) {
        return rv;
    }
    stats->entries = 0;
    stats->entries_max = BOXES;
    for (i = 0; i < BOXES; i++) {
        stats->entries += self->shelf->boxes[i].expires != 0;
    }
    shelf_unlock(self);
    if (stats->extra) {
        stats->extra(stats->baton, "box_bytes", BOX_BYTES);
    }
    return APR_SUCCESS;
}

#define CONTRACT_SLOTS                                              \
    .options = options, .open = contract_open, .get = contract_get, \
    .set = contract_set, .remove = contract_remove,                 \
    .post_config = contract_post_config, .stats = contract_stats

static const cachemw_provider_t complete = {
    .size = sizeof(cachemw_provider_t),
    CONTRACT_SLOTS,
};

/* From a time when a table ended behind post_config. */
static const cachemw_provider_t smaller = {
    .size = offsetof(cachemw_provider_t, child_init),
    CONTRACT_SLOTS,
};

/* From a time when there was more. */
static const struct {
    cachemw_provider_t first;
    void (*later[16])(void);
} larger = {
    .first = { .size = sizeof(larger), CONTRACT_SLOTS },
    .later = { abort, abort, abort, abort, abort, abort, abort, abort },
};

static const cachemw_provider_t tiny = {
    .size = offsetof(cachemw_provider_t, remove),
    CONTRACT_SLOTS,
};

static const cachemw_provider_t flagged = {
    .size = sizeof(cachemw_provider_t),
    .flags = 0x40000000u,
    CONTRACT_SLOTS,
};

static void provider_register(apr_pool_t *p, const char *name,
                              const char *version,
                              const cachemw_provider_t *table)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, name, version, table);
}

static void register_hooks(apr_pool_t *p)
{
    const char *version = CACHEMW_PROVIDER_VERSION;

    provider_register(p, "contract", version, &complete);
    provider_register(p, "contract_smaller", version, &smaller);
    provider_register(p, "contract_larger", version, &larger.first);
    provider_register(p, "contract_tiny", version, &tiny);
    provider_register(p, "contract_flagged", version, &flagged);
    provider_register(p, "contract_2", "2", &complete);
}

extern module AP_MODULE_DECLARE_DATA cachemw_contract_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(cachemw_contract) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
