/* SPDX-License-Identifier: Apache-2.0 */

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "apr_strings.h"
#include "harness.h"

/* The stores of a plan beside the tested one, and what core asks of us. */
typedef struct world_t {
    mw_host_t host;
    const ct_plan_t *plan;
    mw_store_t **stores; /* one per definition, the tested one last */
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

void ct_status(ct_t *c, apr_status_t rv, apr_status_t wanted,
               const char *format, ...)
{
    char what[400], got[160], want[160];
    va_list args;

    if (rv == wanted) {
        return;
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

    if (world->plan->verbose) {
        fprintf(stderr, "# log %d %d: %s\n", (int)level, (int)rv, text);
    }
    if (level == CACHEMW_LOG_ERR) {
        apr_cpystrn(world->last_error, text, sizeof(world->last_error));
    }
}

static mw_store_t *world_find(void *baton, const char *name)
{
    world_t *world = baton;
    int i;

    for (i = 0; i < world->plan->ndefinitions; i++) {
        if (world->stores[i] != NULL
            && strcmp(world->plan->definitions[i].name, name) == 0) {
            return world->stores[i];
        }
    }
    return NULL;
}

mw_store_t *ct_other(const ct_t *c, int i)
{
    const world_t *world = c->world;

    return i < c->plan->ndefinitions - 1 ? world->stores[i] : NULL;
}

static world_t *world_make(ct_t *c)
{
    world_t *world = apr_pcalloc(c->pconf, sizeof(*world));

    world->plan = c->plan;
    world->stores = apr_pcalloc(c->pconf, (apr_size_t)c->plan->ndefinitions
                                              * sizeof(*world->stores));
    world->host.log = world_log;
    world->host.find = world_find;
    world->host.temp_dir = c->site->dir;
    world->host.baton = world;
    return world;
}

/* Words with {tmp} put in. */
static const char *const *words_fill(ct_t *c, const ct_definition_t *d)
{
    const char **words;
    const char *mark;
    int i;

    words = apr_pcalloc(c->pconf, (apr_size_t)(d->nwords + 1) * sizeof(*words));
    for (i = 0; i < d->nwords; i++) {
        mark = strstr(d->words[i], "{tmp}");
        words[i] = d->words[i];
        if (mark != NULL) {
            words[i] =
                apr_pstrcat(c->pconf,
                            apr_pstrmemdup(c->pconf, words[i],
                                           (apr_size_t)(mark - words[i])),
                            c->site->dir, mark + strlen("{tmp}"), NULL);
        }
    }
    return words;
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
    const ct_definition_t *d = &c->plan->definitions[c->plan->ndefinitions - 1];
    const cachemw_provider_t *table = ct_provider_find(d->provider);
    apr_size_t size;

    memset(&c->table, 0, sizeof(c->table));
    if (table != NULL) {
        size = table->size < sizeof(*table) ? table->size : sizeof(*table);
        memcpy(&c->table, table, size);
    }
}

static const cachemw_provider_t *capture_table(ct_t *c)
{
    cachemw_provider_t *copy = apr_pmemdup(c->pconf, &c->table, sizeof(*copy));

    ct_check(c, copy->open != NULL, "the table has no open");
    copy->open = capture_open;
    capturing = c;
    return copy;
}

static void store_open(ct_t *c, world_t *world, int i)
{
    const ct_definition_t *d = &c->plan->definitions[i];
    const cachemw_provider_t *table = ct_provider_find(d->provider);
    mw_options_t options[2] = { { NULL, NULL }, { mw_store_options, NULL } };
    const char *error = NULL;
    apr_status_t rv;

    ct_check(c, table != NULL, "there is no provider \"%s\"; there are: %s",
             d->provider, ct_provider_names(c->pool));
    options[0].table = table->options;
    error = mw_options_parse(options, 2, words_fill(c, d), d->nwords,
                             c->site->dir, c->pconf);
    ct_check(c, error == NULL, "%s: %s", d->provider, error);
    if (i == c->plan->ndefinitions - 1) {
        table = capture_table(c);
    }
    rv = mw_store_open(&world->stores[i], d->name, d->provider, table, options,
                       &world->host, c->pconf, &error);
    ct_check(c, rv == APR_SUCCESS, "open of %s: %s", d->provider,
             error != NULL ? error : "failed without an error text");
}

void ct_open_only(ct_t *c)
{
    world_t *world;
    int i;

    apr_pool_create(&c->pconf, NULL);
    c->world = world = world_make(c);
    for (i = 0; i < c->plan->ndefinitions; i++) {
        store_open(c, world, i);
    }
    c->store = world->stores[c->plan->ndefinitions - 1];
    c->body_max = mw_store_settings(c->store)->max_object_size;
}

void ct_open(ct_t *c)
{
    world_t *world;
    apr_status_t rv;
    int i;

    ct_open_only(c);
    world = c->world;
    world->host.segments =
        mw_segments_begin(c->site->segments, c->site->parent);
    for (i = 0; i < c->plan->ndefinitions; i++) {
        rv = mw_store_post_config(world->stores[i], c->pconf, 0, 0);
        ct_status(c, rv, APR_SUCCESS, "post_config (last log line: \"%s\")",
                  world->last_error);
    }
    mw_segments_end(world->host.segments);
}

void ct_close(ct_t *c)
{
    world_t *world = c->world;
    int i;

    for (i = c->plan->ndefinitions - 1; i >= 0; i--) {
        mw_store_close(world->stores[i]);
    }
    apr_pool_destroy(c->pconf);
    c->pconf = NULL;
    c->store = NULL;
    c->raw = NULL;
}

void ct_child_start(ct_t *c)
{
    world_t *world = c->world;
    apr_status_t rv;
    int i;

    apr_pool_create(&c->pchild, NULL);
    for (i = 0; i < c->plan->ndefinitions; i++) {
        rv = mw_store_child_init(world->stores[i], c->pchild);
        ct_status(c, rv, APR_SUCCESS, "child_init (last log line: \"%s\")",
                  world->last_error);
    }
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
