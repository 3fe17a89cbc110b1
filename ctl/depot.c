/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apr_strings.h"

#include "depot.h"
#include "loader.h"
#include "owner.h"
#include "providers/file/file.h"
#include "providers/file/look.h"
#include "providers/file/path.h"
#include "providers/sqlite/version.h"

/* Who does not tell by then whether a store has entries does not tell. */
#define LOOK_SECONDS 30

#define DAY ((apr_int64_t)24 * 3600 * APR_USEC_PER_SEC)

/* A server makes a database within milliseconds, if it is not stopped there. */
#define BEGIN_WAIT apr_time_from_sec(5)
#define BEGIN_NAP 10000

static const cachemw_provider_t *provider_of(const mw_ctl_store_t *definition)
{
    return mw_loader_find(definition->provider);
}

/* A world of these definitions, of which none is opened: to parse their
 * words. */
static mw_world_t world_of(const mw_ctl_t *ctl,
                           const apr_array_header_t *definitions)
{
    mw_world_t world;

    memset(&world, 0, sizeof(world));
    world.definitions = (const mw_ctl_store_t *)definitions->elts;
    world.ndefinitions = definitions->nelts;
    world.dir = "{tmp}";
    world.cache_dir = ctl->cache_dir;
    return world;
}

/* --- which stores there are ----------------------------------------------- */

static int definition_find(const apr_array_header_t *definitions,
                           const char *name)
{
    int i;

    for (i = 0; i < definitions->nelts; i++) {
        if (!strcmp(APR_ARRAY_IDX(definitions, i, mw_ctl_store_t).name, name)) {
            return i;
        }
    }
    return -1;
}

/* The stores that a store is made of, in their order; the nearest first. */
static const char *leaves_add(const mw_ctl_t *ctl,
                              const apr_array_header_t *all, int i,
                              apr_array_header_t *leaves)
{
    const mw_ctl_store_t *definition = &APR_ARRAY_IDX(all, i, mw_ctl_store_t);
    const mw_world_t world = world_of(ctl, all);
    const cachemw_provider_t *table = provider_of(definition);
    mw_options_t options[2];
    const char *error = mw_world_parse(&world, i, options, ctl->pool);
    int row, inner;

    if (error) {
        return error;
    }
    if (!(table->flags & CACHEMW_TIERED)) {
        if (definition_find(leaves, definition->name) < 0) {
            APR_ARRAY_PUSH(leaves, mw_ctl_store_t) = *definition;
        }
        return NULL;
    }
    for (row = 0; table->options && table->options[row].name; row++) {
        const cachemw_value_t *value = &options[0].values[row];

        if (table->options[row].alias || value->is_null
            || table->options[row].type != CACHEMW_STORE) {
            continue;
        }
        inner = definition_find(all, value->string);
        if (inner < 0 || inner >= i) {
            return apr_psprintf(
                ctl->pool, "%s=%s: there is no --store %s before it",
                table->options[row].name, value->string, value->string);
        }
        error = leaves_add(ctl, all, inner, leaves);
        if (error) {
            return error;
        }
    }
    return NULL;
}

/* Leave out what ends with the processes that have it. */
static int leaves_lasting(const apr_array_header_t *leaves,
                          apr_array_header_t *lasting)
{
    int i;

    for (i = 0; i < leaves->nelts; i++) {
        const mw_ctl_store_t *leaf = &APR_ARRAY_IDX(leaves, i, mw_ctl_store_t);

        if (provider_of(leaf)->flags & CACHEMW_IN_MEMORY) {
            mw_ctl_error(0,
                         "%s: a store of %s is in the memory of the server's "
                         "processes, where nobody else can look; the server's "
                         "status page shows figures",
                         leaf->name, leaf->provider);
        }
        else {
            APR_ARRAY_PUSH(lasting, mw_ctl_store_t) = *leaf;
        }
    }
    return lasting->nelts;
}

/* --- what must be right before one is opened ------------------------------ */

static apr_uint32_t header_number(const unsigned char *p)
{
    return (apr_uint32_t)p[0] << 24 | (apr_uint32_t)p[1] << 16
           | (apr_uint32_t)p[2] << 8 | p[3];
}

/* A server that is just beginning a database has not written all of it; else
 * it has tables. */
static int database_is_begun(const unsigned char *header, ssize_t n)
{
    const apr_uint32_t application =
        header_number(header + MW_SQL_APPLICATION_AT);

    return n == 0
           || (n == MW_SQL_HEADER
               && header_number(header + MW_SQL_TABLES_AT) == 0
               && header_number(header + MW_SQL_VERSION_AT) == 0
               && (application == 0 || application == MW_SQL_APPLICATION));
}

/* The provider would set aside what it does not know, which is right for a
 * server and its database, not for what somebody has mistyped. */
static const char *database_look(const char *path, int fd, int *is_begun,
                                 apr_pool_t *pool)
{
    unsigned char header[MW_SQL_HEADER] = { 0 };
    const ssize_t n = pread(fd, header, sizeof(header), 0);

    *is_begun = database_is_begun(header, n);
    if (*is_begun) {
        return apr_pstrcat(pool, path,
                           ": no server has made a database of it yet", NULL);
    }
    if (n != MW_SQL_HEADER
        || header_number(header + MW_SQL_APPLICATION_AT)
               != MW_SQL_APPLICATION) {
        return apr_pstrcat(pool, path, " is no database of mod_cachemw", NULL);
    }
    if (header_number(header + MW_SQL_VERSION_AT) != MW_SQL_VERSION) {
        return apr_pstrcat(pool, path,
                           " is of another version of mod_cachemw: restart the "
                           "server with this one first",
                           NULL);
    }
    return NULL;
}

static const char *database_check(const char *path, int fd, apr_pool_t *pool)
{
    const apr_int64_t until = mw_monotonic() + BEGIN_WAIT;
    int is_begun;
    const char *error = database_look(path, fd, &is_begun, pool);

    while (is_begun && mw_monotonic() < until) {
        apr_sleep(BEGIN_NAP);
        error = database_look(path, fd, &is_begun, pool);
    }
    return error;
}

/* What is a store's own is what its server makes, and not the place for it. */
static const char *path_of(const mw_ctl_store_t *leaf, const char *path,
                           apr_pool_t *pool)
{
    return provider_of(leaf) == &mw_file_provider
               ? apr_pstrcat(pool, path, "/" MW_PATH_ROOT, NULL)
               : path;
}

static const char *path_check(const mw_ctl_store_t *leaf, const char *option,
                              const char *path, mw_owner_t *owner,
                              apr_pool_t *pool)
{
    const int is_database = !strcmp(leaf->provider, "sqlite");
    const char *error;
    int is_roots, fd;

    path = path_of(leaf, path, pool);
    fd = mw_owner_open(path, is_database ? O_RDONLY | O_NONBLOCK : O_PATH,
                       &is_roots, pool);
    if (fd < 0) {
        return apr_psprintf(pool, "%s=%s: %s", option, path, strerror(errno));
    }
    error = mw_owner_note(owner, path, fd, is_roots, pool);
    if (!error && is_database) {
        error = database_check(path, fd, pool);
    }
    close(fd);
    return error;
}

/* Whether an option is one that has the store drop what exceeds it. */
static int option_is_cap(const cachemw_option_t *option)
{
    return !option->alias && option->fallback && option->maximum
           && !strncmp(option->name, "max_", strlen("max_"))
           && strcmp(option->name, "max_connections")
           && strcmp(option->name, "max_retries");
}

/* Servers may have it behind tiers of their own. */
static int leaf_tells(const mw_ctl_t *ctl, const mw_ctl_store_t *leaf,
                      const mw_options_t *core)
{
    const cachemw_provider_t *table = provider_of(leaf);
    const cachemw_option_t *row = core->table;

    if (!(ctl->command & (MW_CTL_RM | MW_CTL_CLEAR))
        || !CACHEMW_HAS(table, publish) || !table->publish) {
        return 0;
    }
    while (strcmp(row->name, "announce")) {
        row++;
    }
    return !core->values[row - core->table].is_set;
}

/* Have no limit of ours drop what a server has stored under its own. */
static void leaf_widen(mw_ctl_store_t *leaf, const mw_options_t *options,
                       int tells, apr_pool_t *pool)
{
    const cachemw_option_t *row = options->table;
    const char **words;
    int rows = 0;

    for (; row && row->name; row++) {
        rows++;
    }
    words = apr_pcalloc(pool, (leaf->nwords + rows + 2) * sizeof(*words));
    memcpy(words, leaf->words, leaf->nwords * sizeof(*words));
    for (row = options->table; row && row->name; row++) {
        if (option_is_cap(row)
            && !options->values[row - options->table].is_set) {
            words[leaf->nwords++] =
                apr_pstrcat(pool, row->name, "=", row->maximum, NULL);
        }
    }
    if (tells) {
        words[leaf->nwords++] = "announce=on";
    }
    leaf->words = words;
}

static const char *leaf_prepare(const mw_ctl_t *ctl, apr_array_header_t *leaves,
                                int i, mw_owner_t *owner)
{
    mw_ctl_store_t *leaf = &APR_ARRAY_IDX(leaves, i, mw_ctl_store_t);
    const mw_world_t world = world_of(ctl, leaves);
    const cachemw_option_t *row;
    mw_options_t options[2];
    const char *error = mw_world_parse(&world, i, options, ctl->pool);
    int n;

    for (n = 0; n < leaf->nwords && !error; n++) {
        if (strstr(leaf->words[n], "{tmp}")) {
            error = "{tmp} is for check and bench";
        }
    }
    for (row = options[0].table; row && row->name && !error; row++) {
        const cachemw_value_t *value =
            &options[0].values[row - options[0].table];

        if (row->type == CACHEMW_PATH && !row->alias && !value->is_null) {
            error =
                path_check(leaf, row->name, value->string, owner, ctl->pool);
        }
    }
    if (!error) {
        leaf_widen(leaf, options, leaf_tells(ctl, leaf, &options[1]),
                   ctl->pool);
    }
    return error;
}

/* --- opening -------------------------------------------------------------- */

static apr_status_t remove_nothing(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_id_t *id)
{
    (void)store, (void)call, (void)key, (void)id;
    return APR_NOTFOUND;
}

/* Core removes what is damaged, as for a request. Who only looks does not. */
static const cachemw_provider_t *table_choose(void *baton, int i,
                                              const cachemw_provider_t *table)
{
    const mw_ctl_t *ctl = baton;
    const unsigned int writes = MW_CTL_RM | MW_CTL_CLEAR | MW_CTL_SWEEP;
    cachemw_provider_t *copy;
    apr_size_t size;

    (void)i;
    table = mw_loader_look(table);
    if (ctl->command & writes) {
        return table;
    }
    copy = apr_pcalloc(ctl->pool, sizeof(*copy));
    size = table->size < sizeof(*copy) ? table->size : sizeof(*copy);
    memcpy(copy, table, size);
    copy->size = size;
    if (!ctl->remove) {
        copy->remove = remove_nothing;
    }
    else if (table == &mw_file_look_provider) {
        copy->keys = mw_file_look_mend;
    }
    return copy;
}

static const char *depot_start(mw_depot_t *depot, const mw_owner_t *owner)
{
    mw_ctl_t *ctl = depot->ctl;
    const int is_other = mw_owner_is_other(owner);
    void *segments = apr_pcalloc(ctl->pool, mw_segments_size());
    const char *error = mw_world_open(&depot->world, ctl->pool);
    char reason[200];
    apr_status_t rv;

    if (error) {
        return error;
    }
    rv = mw_world_create(&depot->world, segments, ctl->pool,
                         is_other ? owner->uid : 0,
                         is_other ? mw_owner_group(owner->uid) : 0);
    /* As httpd's children do: no file may come to be that is root's. */
    error = rv == APR_SUCCESS ? mw_owner_become(owner, ctl->pool) : NULL;
    if (error) {
        return error;
    }
    apr_pool_create(&depot->pchild, NULL);
    depot->alloc = apr_bucket_alloc_create(depot->pchild);
    if (rv == APR_SUCCESS) {
        rv = mw_world_child(&depot->world, depot->pchild);
    }
    return rv == APR_SUCCESS
               ? NULL
               : apr_pstrcat(ctl->pool, "the store cannot be opened: ",
                             apr_strerror(rv, reason, sizeof(reason)), NULL);
}

/* There are no names of machines before the first sweep. */
static void depot_resolve(const mw_depot_t *depot)
{
    cachemw_call_t call;
    mw_store_t *store;
    int i, more;

    for (i = 0; (store = mw_depot_store(depot, i)); i++) {
        if (mw_store_is_remote(store)) {
            mw_depot_call(depot, store, 0, depot->pchild, &call);
            mw_store_sweep(store, &call, &more);
        }
    }
}

int mw_depot_open(mw_ctl_t *ctl, int subject, mw_depot_t *depot)
{
    const apr_array_header_t *all = mw_ctl_stores(ctl, subject);
    apr_array_header_t *leaves =
        apr_array_make(ctl->pool, 4, sizeof(mw_ctl_store_t));
    mw_owner_t owner = { 0, NULL };
    const char *error = leaves_add(ctl, all, all->nelts - 1, leaves);
    int i;

    memset(depot, 0, sizeof(*depot));
    depot->ctl = ctl;
    depot->definitions = apr_array_make(ctl->pool, 4, sizeof(mw_ctl_store_t));
    if (error) {
        return mw_ctl_error(MW_CTL_USAGE, "%s", error);
    }
    if (leaves_lasting(leaves, depot->definitions) == 0) {
        return MW_CTL_UNABLE;
    }
    for (i = 0; i < depot->definitions->nelts && !error; i++) {
        error = leaf_prepare(ctl, depot->definitions, i, &owner);
    }
    if (!error && !owner.path) {
        error = mw_owner_elsewhere(&owner, ctl->user, ctl->pool);
    }
    depot->world = world_of(ctl, depot->definitions);
    depot->world.dir = NULL;
    depot->world.table = table_choose;
    depot->world.log = mw_ctl_log;
    depot->world.baton = ctl;
    if (!error) {
        error = depot_start(depot, &owner);
    }
    if (error) {
        return mw_ctl_error(MW_CTL_TROUBLE, "%s", error);
    }
    depot_resolve(depot);
    return MW_CTL_OK;
}

void mw_depot_close(mw_depot_t *depot)
{
    apr_pool_destroy(depot->pchild);
    mw_world_close(&depot->world);
}

void mw_depot_call(const mw_depot_t *depot, mw_store_t *store, int long_one,
                   apr_pool_t *pool, cachemw_call_t *call)
{
    memset(call, 0, sizeof(*call));
    call->pool = pool;
    call->bucket_alloc = depot->alloc;
    call->now = apr_time_now();
    if (long_one) {
        call->deadline = mw_monotonic() + DAY;
    }
    else if (mw_store_is_remote(store)) {
        call->deadline = mw_monotonic() + depot->ctl->timeout;
    }
}

mw_store_t *mw_depot_store(const mw_depot_t *depot, int i)
{
    return i < depot->world.ndefinitions ? depot->world.stores[i] : NULL;
}

int mw_depot_failed(mw_store_t *store, const char *what, apr_status_t rv)
{
    char reason[200];

    if (rv == APR_ENOTIMPL) {
        return mw_ctl_error(MW_CTL_UNABLE, "%s: a store of %s cannot %s",
                            mw_store_name(store), mw_store_provider_name(store),
                            what);
    }
    return mw_ctl_error(
        MW_CTL_TROUBLE, "%s: cannot %s: %s", mw_store_name(store), what,
        rv == APR_EINCOMPLETE ? "it is damaged"
        : rv == APR_EGENERAL  ? "the store is off or cannot be reached"
                              : apr_strerror(rv, reason, sizeof(reason)));
}

/* --- has it entries? ------------------------------------------------------ */

enum { FOUND_NONE, FOUND_SOME, FOUND_UNKNOWN };

static apr_status_t entry_found(void *baton, const cachemw_key_t *key,
                                const cachemw_entry_t *entry)
{
    (void)key, (void)entry;
    *(int *)baton = 1;
    return APR_EOF;
}

/* In a process of its own, which may give up what root may do. */
static int depot_look(mw_ctl_t *ctl)
{
    cachemw_call_t call;
    mw_depot_t depot;
    mw_store_t *store;
    int found = 0;
    apr_status_t rv;

    ctl->command = MW_CTL_LS;
    /* what it is that cannot be told is said by who asks */
    if (!freopen("/dev/null", "w", stderr)
        || dup2(STDERR_FILENO, STDOUT_FILENO) < 0
        || mw_depot_open(ctl, 0, &depot) != MW_CTL_OK) {
        return FOUND_UNKNOWN;
    }
    store = mw_depot_store(&depot, 0);
    mw_depot_call(&depot, store, 0, depot.pchild, &call);
    rv = mw_store_keys(store, &call, NULL, entry_found, &found);
    return found ? FOUND_SOME : rv == APR_SUCCESS ? FOUND_NONE : FOUND_UNKNOWN;
}

static int leaf_look(const mw_ctl_t *ctl, const mw_ctl_store_t *leaf)
{
    mw_ctl_t own = *ctl;
    int status = 0;
    pid_t pid;

    own.helpers = apr_array_make(ctl->pool, 1, sizeof(mw_ctl_store_t));
    own.subjects = apr_array_make(ctl->pool, 1, sizeof(mw_ctl_store_t));
    APR_ARRAY_PUSH(own.subjects, mw_ctl_store_t) = *leaf;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(ctl->command == MW_CTL_CHECK && ctl->seconds
                  ? (unsigned int)ctl->seconds
                  : LOOK_SECONDS);
        _exit(depot_look(&own));
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : FOUND_UNKNOWN;
}

/* What a leaf has on this machine. */
typedef struct place_t {
    int paths;          /* that it is told */
    int exist;          /* of them, or may */
    const char *others; /* see path_of_others() */
} place_t;

/* What there is of a path, where others than root can put something, a link
 * perhaps; or NULL. */
static const char *path_of_others(const char *path, apr_pool_t *pool)
{
    char *there = apr_pstrdup(pool, path);
    int is_roots, fd;
    struct stat info;

    while (lstat(*there ? there : "/", &info) != 0 && *there) {
        *strrchr(there, '/') = '\0';
    }
    fd = mw_owner_open(
        apr_pstrcat(pool, there, S_ISDIR(info.st_mode) ? "/." : "", NULL),
        O_PATH, &is_roots, pool);
    if (fd < 0) {
        return there;
    }
    is_roots = is_roots && fstat(fd, &info) == 0 && info.st_uid == 0;
    close(fd);
    return is_roots ? NULL : there;
}

static const char *place_find(const mw_ctl_t *ctl,
                              const apr_array_header_t *leaves, int i,
                              place_t *place)
{
    const mw_ctl_store_t *leaf = &APR_ARRAY_IDX(leaves, i, mw_ctl_store_t);
    const cachemw_option_t *row;
    mw_world_t world = world_of(ctl, leaves);
    mw_options_t options[2];
    const char *error;
    struct stat info;

    /* the suite has a directory of its own for each test */
    if (ctl->command == MW_CTL_CHECK) {
        world.cache_dir = "/{tmp}";
    }
    error = mw_world_parse(&world, i, options, ctl->pool);
    memset(place, 0, sizeof(*place));
    for (row = options[0].table; !error && row && row->name; row++) {
        const cachemw_value_t *value =
            &options[0].values[row - options[0].table];
        const char *path;

        if (row->type != CACHEMW_PATH || row->alias || value->is_null) {
            continue;
        }
        place->paths++;
        path = path_of(leaf, value->string, ctl->pool);
        if (strstr(path, "{tmp}")) {
            continue;
        }
        place->exist += lstat(path, &info) == 0 || errno != ENOENT;
        if (geteuid() == 0 && !place->others) {
            place->others = path_of_others(path, ctl->pool);
        }
    }
    return error;
}

static const char *leaf_refuse(const mw_ctl_t *ctl,
                               const apr_array_header_t *leaves, int i)
{
    const mw_ctl_store_t *leaf = &APR_ARRAY_IDX(leaves, i, mw_ctl_store_t);
    const unsigned int flags = provider_of(leaf)->flags;
    place_t place;
    const char *error = place_find(ctl, leaves, i, &place);
    int found;

    /* who opens it says what is wrong with its words */
    if (error || (flags & CACHEMW_IN_MEMORY)) {
        return NULL;
    }
    if (place.others) {
        return apr_pstrcat(ctl->pool, place.others,
                           " is not root's alone: root does not test in it; "
                           "give the store a place in {tmp}, or be its user",
                           NULL);
    }
    if (ctl->force || (place.paths && !place.exist)) {
        return NULL;
    }
    found = leaf_look(ctl, leaf);
    if (found == FOUND_SOME) {
        return "this store has entries, which would be lost: give it a place "
               "of its own, such as {tmp}, or say --force";
    }
    /* without a path and on no other machine it is in this process */
    if (found == FOUND_UNKNOWN && (place.exist || (flags & CACHEMW_REMOTE))) {
        return "whether this store has entries, which would be lost, cannot be "
               "told: give it a place of its own, such as {tmp}, or say "
               "--force";
    }
    return NULL;
}

const char *mw_depot_refuse(mw_ctl_t *ctl, int subject)
{
    const apr_array_header_t *all = mw_ctl_stores(ctl, subject);
    apr_array_header_t *leaves =
        apr_array_make(ctl->pool, 4, sizeof(mw_ctl_store_t));
    const char *reason = NULL;
    int i;

    if (leaves_add(ctl, all, all->nelts - 1, leaves) != NULL) {
        return NULL;
    }
    for (i = 0; i < leaves->nelts && !reason; i++) {
        reason = leaf_refuse(ctl, leaves, i);
    }
    return reason;
}
