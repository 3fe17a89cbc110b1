/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "apr_strings.h"
#include "ctl/loader.h"
#include "harness.h"

/* The stores of a plan, the tested one last. */
typedef struct world_t {
    mw_world_t stores;
    ct_t *c;
    char last_error[400];
} world_t;

void ct_fail(ct_t *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(c->result.text, sizeof(c->result.text), format, args);
    va_end(args);
    c->result.verdict = CT_FAILED;
    longjmp(c->escape, 1);
}

void ct_skip(ct_t *c, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(c->result.text, sizeof(c->result.text), format, args);
    va_end(args);
    c->result.verdict = CT_SKIPPED;
    longjmp(c->escape, 1);
}

static const char *status_show(apr_status_t rv, char *buffer, apr_size_t size)
{
    static const struct {
        apr_status_t rv;
        const char *name;
    } names[] = {
        { APR_SUCCESS, "APR_SUCCESS" },
        { APR_NOTFOUND, "APR_NOTFOUND (a miss)" },
        { APR_ENOSPC, "APR_ENOSPC (does not fit)" },
        { APR_EINCOMPLETE, "APR_EINCOMPLETE (damaged)" },
        { APR_ENOTIMPL, "APR_ENOTIMPL" },
        { APR_EGENERAL, "APR_EGENERAL" },
    };
    char text[120];
    apr_size_t i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].rv == rv) {
            return names[i].name;
        }
    }
    snprintf(buffer, size, "%d (%s)", (int)rv,
             apr_strerror(rv, text, sizeof(text)));
    return buffer;
}

/* Of a store that says that it has room for none. */
static int keeps_nothing(ct_t *c)
{
    cachemw_stats_t stats = { 0 };

    return c->table.stats != NULL && ct_stats(c, &stats) == APR_SUCCESS
           && stats.entries_max == 0;
}

void ct_status(ct_t *c, apr_status_t rv, apr_status_t wanted,
               const char *format, ...)
{
    char what[400], got[160], want[160];
    va_list args;

    if (rv == wanted) {
        return;
    }
    if (rv == APR_ENOSPC && wanted == APR_SUCCESS && keeps_nothing(c)) {
        ct_skip(c, "the store tells that it keeps no entry");
    }
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    ct_fail(c, "%s returned %s instead of %s", what,
            status_show(rv, got, sizeof(got)),
            status_show(wanted, want, sizeof(want)));
}

void ct_need(ct_t *c, int condition, const char *what)
{
    if (!condition) {
        ct_skip(c, "the provider has no %s", what);
    }
}

void ct_guard(ct_t *c, void (*run)(ct_t *c, void *baton), void *baton)
{
    apr_pool_create(&c->pool, NULL);
    c->alloc = apr_bucket_alloc_create(c->pool);
    if (setjmp(c->escape) == 0) {
        run(c, baton);
    }
}

static void world_log(void *baton, cachemw_level_e level, apr_status_t rv,
                      const char *text)
{
    world_t *world = baton;

    if (world->c->plan->verbose) {
        fprintf(stderr, "# log %d %d: %s\n", (int)level, (int)rv, text);
    }
    if (level == CACHEMW_LOG_ERR) {
        apr_cpystrn(world->last_error, text, sizeof(world->last_error));
    }
}

/* core/store opens the tested provider through a copy of its table whose open
 * is this one: so tests can call the provider's own slots on the same store. */
static ct_t *capturing;

static apr_status_t capture_open(const cachemw_services_t *services,
                                 const cachemw_value_t *values,
                                 apr_pool_t *pconf, void **store,
                                 const char **error)
{
    ct_t *c = capturing;
    apr_status_t rv;

    rv = c->table.open(services, values, pconf, store, error);
    if (rv == APR_SUCCESS) {
        c->raw = *store;
        c->services = services;
    }
    return rv;
}

void ct_table_find(ct_t *c)
{
    const mw_ctl_store_t *d = &c->plan->definitions[c->plan->ndefinitions - 1];
    const cachemw_provider_t *table = mw_loader_find(d->provider);
    apr_size_t size;

    memset(&c->table, 0, sizeof(c->table));
    if (table != NULL) {
        size = table->size < sizeof(*table) ? table->size : sizeof(*table);
        memcpy(&c->table, table, size);
    }
}

static const cachemw_provider_t *capture_table(void *baton, int i,
                                               const cachemw_provider_t *table)
{
    const world_t *world = baton;
    ct_t *c = world->c;
    cachemw_provider_t *copy;

    if (i < c->plan->ndefinitions - 1) {
        return table;
    }
    ct_check(c, c->table.open != NULL, "the table has no open");
    copy = apr_pmemdup(c->pconf, &c->table, sizeof(*copy));
    copy->open = capture_open;
    capturing = c;
    return copy;
}

mw_store_t *ct_other(const ct_t *c, int i)
{
    const world_t *world = c->world;

    return i < c->plan->ndefinitions - 1 ? world->stores.stores[i] : NULL;
}

static world_t *world_make(ct_t *c)
{
    world_t *world = apr_pcalloc(c->pconf, sizeof(*world));

    world->c = c;
    world->stores.definitions = c->plan->definitions;
    world->stores.ndefinitions = c->plan->ndefinitions;
    world->stores.dir = c->site->dir;
    world->stores.cache_dir = c->site->dir;
    world->stores.table = capture_table;
    world->stores.log = world_log;
    world->stores.baton = world;
    return world;
}

void ct_open_only(ct_t *c)
{
    world_t *world;
    const char *error;

    apr_pool_create(&c->pconf, NULL);
    c->world = world = world_make(c);
    *c->site->slot = "open";
    error = mw_world_open(&world->stores, c->pconf);
    *c->site->slot = NULL;
    ct_check(c, error == NULL, "%s", error);
    c->store = world->stores.stores[c->plan->ndefinitions - 1];
    c->body_max = mw_store_settings(c->store)->max_object_size;
}

void ct_open(ct_t *c)
{
    world_t *world;
    apr_status_t rv;

    ct_open_only(c);
    world = c->world;
    *c->site->slot = "post_config";
    rv = mw_world_create(&world->stores, c->site->segments, c->site->parent,
                         c->uid, c->gid);
    *c->site->slot = NULL;
    ct_status(c, rv, APR_SUCCESS, "post_config (last log line: \"%s\")",
              world->last_error);
}

void ct_close(ct_t *c)
{
    world_t *world = c->world;

    mw_world_close(&world->stores);
    apr_pool_destroy(c->pconf);
    c->pconf = NULL;
    c->store = NULL;
    c->raw = NULL;
}

void ct_child_start(ct_t *c)
{
    world_t *world = c->world;
    apr_status_t rv;

    apr_pool_create(&c->pchild, NULL);
    *c->site->slot = "child_init";
    rv = mw_world_child(&world->stores, c->pchild);
    *c->site->slot = NULL;
    ct_status(c, rv, APR_SUCCESS, "%schild_init (last log line: \"%s\")",
              c->uid != 0 ? "as nobody, of whom post_config was told: " : "",
              world->last_error);
}

void ct_child_end(ct_t *c)
{
    apr_pool_destroy(c->pchild);
    c->pchild = NULL;
}

int ct_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    if (dir == NULL) {
        return -1;
    }
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n;
}

static apr_uint64_t memory_used(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

void ct_no_memory_left(ct_t *c, void (*repeat)(ct_t *c, int times), int before,
                       int times, const char *what)
{
    apr_uint64_t used;

    repeat(c, before);
    used = memory_used();
#if defined(__SANITIZE_ADDRESS__)
    /* Its leak checker looks when this process ends. */
    return;
#endif
    if (used == 0) {
        ct_skip(c, "malloc does not tell what it has handed out");
    }
    repeat(c, times);
    ct_check(c, memory_used() < used + 64 * CT_KB,
             "%s left %" APR_UINT64_T_FMT
             " KB of memory behind although their pools were cleared",
             what, (memory_used() - used) / CT_KB);
}
