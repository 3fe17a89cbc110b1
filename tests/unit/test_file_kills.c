/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Processes of a store of files that are killed at any instant: a reader finds
 * an old entry, a new one or none; the directory never has more than it may;
 * nothing is left behind; and what is there outlives the server.
 * FILE_KILLS=N makes it N rounds long.
 */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "apr_general.h"

#include "core/options.h"
#include "providers/file/file.h"
#include "providers/file/index_layout.h"
#include "providers/file/view.h"
#include "tests/unit/shared.h"

#define PROVIDER (&mw_file_provider)
#define KEYS 600
#define BODY_MAX 200000
#define HEAD_LEN 300
#define CHILDREN 4
#define MAX_BYTES (4 << 20)
#define HOUR apr_time_from_sec(3600)
#define STORED_ENOUGH 500
#define FOUND_ENOUGH 100
#define PATIENCE apr_time_from_sec(300)

/** What all processes count together. */
typedef struct counts_t {
    apr_uint64_t wrong;
    apr_uint64_t hits;
    apr_uint64_t stored;
    apr_uint64_t amended;
} counts_t;

typedef struct server_t {
    fake_t fake;
    char *dir;
    counts_t *counts;
    apr_pool_t *own;
    apr_pool_t *pool; /* of a configuration */
    void *store;
} server_t;

static void server_begin(server_t *server)
{
    mw_options_t options = { PROVIDER->options, NULL };
    const char *words[3];
    const char *error;

    apr_pool_create(&server->pool, NULL);
    words[0] = apr_pstrcat(server->pool, "cache_dir=", server->dir, NULL);
    words[1] = "max_bytes=4M";
    words[2] = "index_size=1M";
    error = mw_options_parse(&options, 1, words, 3, "/", server->pool);
    assert_null(error);
    assert_int_equal(PROVIDER->open(&server->fake.services, options.values,
                                    server->pool, &server->store, &error),
                     APR_SUCCESS);
    assert_int_equal(PROVIDER->post_config(server->store, server->pool, 0, 0),
                     APR_SUCCESS);
    assert_int_equal(PROVIDER->child_init(server->store, server->pool),
                     APR_SUCCESS);
}

/** The end of the parent, and of all memory. */
static void server_end(server_t *server)
{
    apr_pool_clear(server->pool);
    PROVIDER->close(server->store);
    apr_pool_destroy(server->pool);
    fake_drop_segment(&server->fake);
}

static server_t *server_make(void)
{
    server_t *server = calloc(1, sizeof(*server));

    apr_pool_create(&server->own, NULL);
    server->dir = shared_temp("kills", server->own);
    assert_non_null(mkdtemp(server->dir));
    server->counts = shared_make(sizeof(counts_t));
    fake_begin(&server->fake, "kills");
    server->fake.services.max_object_size = BODY_MAX;
    server_begin(server);
    return server;
}

/** What a directory has: files and their blocks, the mark left out. */
typedef struct usage_t {
    apr_uint64_t blocks;
    int entries;
    int temps;
} usage_t;

static void usage_add(usage_t *usage, const char *dir, int remove)
{
    DIR *list = opendir(dir);
    struct dirent *item;
    struct stat info;
    char path[512];

    while (list && (item = readdir(list))) {
        if (item->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", dir, item->d_name);
        if (lstat(path, &info) != 0) {
            continue;
        }
        if (S_ISDIR(info.st_mode)) {
            usage_add(usage, path, remove);
        }
        else if (strcmp(item->d_name, "mark") != 0) {
            usage->blocks += mw_index_blocks((apr_uint64_t)info.st_size);
            usage->entries += strlen(item->d_name) == 32;
            usage->temps += strlen(item->d_name) != 32;
        }
        if (remove && !S_ISDIR(info.st_mode)) {
            unlink(path);
        }
    }
    if (list) {
        closedir(list);
    }
    if (remove) {
        rmdir(dir);
    }
}

static usage_t server_usage(const server_t *server)
{
    usage_t usage = { 0, 0, 0 };

    usage_add(&usage, server->dir, 0);
    return usage;
}

static void server_drop(server_t *server)
{
    usage_t usage = { 0, 0, 0 };

    server_end(server);
    usage_add(&usage, server->dir, 1);
    munmap(server->counts, sizeof(counts_t));
    fake_end(&server->fake);
    apr_pool_destroy(server->own);
    free(server);
}

/** One call with a pool of its own. */
typedef struct visit_t {
    apr_pool_t *pool;
    cachemw_call_t call;
    cachemw_key_t key;
    char text[32];
} visit_t;

static void visit_begin(visit_t *visit, apr_uint32_t number)
{
    memset(visit, 0, sizeof(*visit));
    apr_pool_create(&visit->pool, NULL);
    visit->call.pool = visit->pool;
    visit->call.bucket_alloc = apr_bucket_alloc_create(visit->pool);
    visit->call.now = apr_time_now();
    snprintf(visit->text, sizeof(visit->text), "http://kills/%u", number);
    visit->key.data = visit->text;
    visit->key.len = strlen(visit->text);
}

static void visit_end(visit_t *visit)
{
    apr_pool_destroy(visit->pool);
}

/** The id says which body it is; the head which amendment. */
static void bytes_fill(char *to, apr_uint32_t seed, apr_size_t length)
{
    apr_size_t i;

    for (i = 0; i < length; i++) {
        to[i] = (char)(seed * 31 + i * 7 + (i >> 8));
    }
}

static int bytes_are(const char *bytes, apr_uint32_t seed, apr_size_t from,
                     apr_size_t length)
{
    apr_size_t i;

    for (i = from; i < from + length; i++) {
        if (*bytes++ != (char)(seed * 31 + i * 7 + (i >> 8))) {
            return 0;
        }
    }
    return 1;
}

static cachemw_id_t id_make(apr_uint32_t number, apr_uint32_t seed,
                            apr_uint32_t length)
{
    apr_uint32_t words[4] = { number, seed, length, 0 };
    cachemw_id_t id;

    memcpy(id.bytes, words, sizeof(id.bytes));
    return id;
}

static apr_uint32_t length_make(apr_uint32_t seed)
{
    return seed % 16 ? seed % 20000 : seed % BODY_MAX;
}

static apr_status_t put_pieces(const server_t *server, const visit_t *visit,
                               void *set, const char *body, apr_size_t length)
{
    apr_status_t rv = APR_SUCCESS;

    while (length && rv == APR_SUCCESS) {
        apr_size_t n = length < 30000 ? length : 30000;

        rv = PROVIDER->set_write(server->store, &visit->call, set, body, n);
        body += n;
        length -= n;
    }
    return rv;
}

static apr_status_t server_put(server_t *server, apr_uint32_t number,
                               apr_uint32_t seed)
{
    apr_uint32_t length = length_make(seed);
    char *body = malloc(length + 1);
    char head[HEAD_LEN];
    cachemw_entry_t entry = { .id = id_make(number, seed, length),
                              .head = head,
                              .head_len = HEAD_LEN,
                              .body_len = seed % 3 ? (apr_off_t)length : -1 };
    visit_t visit;
    apr_status_t rv;
    void *set;

    bytes_fill(body, seed, length);
    bytes_fill(head, seed, HEAD_LEN);
    visit_begin(&visit, number);
    entry.expires = visit.call.now + HOUR;
    rv = PROVIDER->set_begin(server->store, &visit.call, &visit.key, &entry,
                             &set);
    if (rv == APR_SUCCESS) {
        rv = put_pieces(server, &visit, set, body, length);
        if (rv == APR_SUCCESS) {
            rv = PROVIDER->set_commit(server->store, &visit.call, set);
        }
        else {
            PROVIDER->set_abort(server->store, set);
        }
    }
    visit_end(&visit);
    free(body);
    return rv;
}

/** Whether everything is as it was stored, or amended. */
static int entry_is_right(const cachemw_entry_t *entry, apr_uint32_t number)
{
    apr_uint32_t words[4];
    char *body;
    apr_size_t length;
    apr_pool_t *pool = entry->body->p;

    memcpy(words, entry->id.bytes, sizeof(words));
    return words[0] == number && entry->body_len == (apr_off_t)words[2]
           && words[2] == length_make(words[1])
           && entry->head_len >= HEAD_LEN / 2 && entry->head_len <= 3 * HEAD_LEN
           && bytes_are(entry->head, words[1], 0, entry->head_len)
           && apr_brigade_pflatten(entry->body, &body, &length, pool)
                  == APR_SUCCESS
           && length == words[2] && bytes_are(body, words[1], 0, length);
}

/** @return APR_EGENERAL: what was found is not what was stored */
static apr_status_t server_get(server_t *server, apr_uint32_t number,
                               cachemw_id_t *id)
{
    cachemw_entry_t entry;
    visit_t visit;
    apr_status_t rv;

    visit_begin(&visit, number);
    memset(&entry, 0, sizeof(entry));
    entry.body = apr_brigade_create(visit.pool, visit.call.bucket_alloc);
    rv = PROVIDER->get(server->store, &visit.call, &visit.key, &entry);
    if (rv == APR_SUCCESS) {
        *id = entry.id;
        rv = entry_is_right(&entry, number) ? rv : APR_EGENERAL;
    }
    visit_end(&visit);
    return rv;
}

/** A head of another length, made from the same seed. */
static apr_status_t server_amend(server_t *server, apr_uint32_t number,
                                 apr_uint32_t random)
{
    char head[3 * HEAD_LEN];
    cachemw_entry_t entry;
    apr_uint32_t words[4];
    cachemw_id_t id;
    visit_t visit;
    apr_status_t rv = server_get(server, number, &id);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    memcpy(words, id.bytes, sizeof(words));
    memset(&entry, 0, sizeof(entry));
    entry.head = head;
    entry.head_len = HEAD_LEN / 2 + random % (2 * HEAD_LEN);
    bytes_fill(head, words[1], entry.head_len);
    visit_begin(&visit, number);
    entry.expires = visit.call.now + 2 * HOUR;
    rv =
        PROVIDER->set_head(server->store, &visit.call, &visit.key, &id, &entry);
    visit_end(&visit);
    return rv;
}

static apr_status_t server_sweep(server_t *server)
{
    visit_t visit;
    apr_status_t rv;
    int more;

    visit_begin(&visit, 0);
    rv = PROVIDER->sweep(server->store, &visit.call, &more);
    visit_end(&visit);
    return rv;
}

static void server_remove(server_t *server, apr_uint32_t number)
{
    visit_t visit;

    visit_begin(&visit, number);
    PROVIDER->remove(server->store, &visit.call, &visit.key, NULL);
    visit_end(&visit);
}

static void count(apr_uint64_t *counter, int is_so)
{
    __atomic_fetch_add(counter, (apr_uint64_t)is_so, __ATOMIC_RELAXED);
}

static void hammer(server_t *server, apr_uint32_t *seed)
{
    apr_uint32_t number = random_next(seed) % KEYS;
    apr_uint32_t what = random_next(seed) % 100;
    counts_t *counts = server->counts;
    apr_status_t rv;
    cachemw_id_t id;

    if (what < 40) {
        rv = server_put(server, number, random_next(seed));
        count(&counts->stored, rv == APR_SUCCESS);
    }
    else if (what < 75) {
        rv = server_get(server, number, &id);
        count(&counts->hits, rv == APR_SUCCESS);
        /* Who has the lock may have been stopped for longer than one waits. */
        count(&counts->wrong,
              rv != APR_SUCCESS && rv != APR_NOTFOUND && rv != APR_TIMEUP);
    }
    else if (what < 93) {
        rv = server_amend(server, number, random_next(seed));
        count(&counts->amended, rv == APR_SUCCESS);
    }
    else if (what < 98) {
        server_remove(server, number);
    }
    else {
        server_sweep(server);
    }
}

static pid_t child_start(server_t *server, apr_uint32_t seed)
{
    pid_t pid = fork();
    apr_pool_t *pchild;

    assert_true(pid >= 0);
    if (!pid) {
        apr_pool_create(&pchild, NULL);
        if (PROVIDER->child_init(server->store, pchild) != APR_SUCCESS) {
            _exit(2);
        }
        for (;;) {
            hammer(server, &seed);
        }
    }
    return pid;
}

static apr_uint64_t stored(const server_t *server)
{
    return __atomic_load_n(&server->counts->stored, __ATOMIC_RELAXED);
}

static apr_uint64_t blocks_counted(const server_t *server)
{
    return MW_INDEX_BLOCKS(
        mw_index_used(((const mw_file_t *)server->store)->index));
}

/** At least so many, and until enough was stored to be looked for. */
static void rounds_run(server_t *server, int rounds, apr_uint32_t *seed)
{
    const apr_time_t end = apr_time_now() + PATIENCE;
    const apr_uint64_t enough = stored(server) + STORED_ENOUGH;
    struct timespec pause = { 0, 0 };
    pid_t pids[CHILDREN];
    int i;

    for (i = 0; i < CHILDREN; i++) {
        pids[i] = child_start(server, random_next(seed));
    }
    while (rounds-- > 0 || stored(server) < enough) {
        int victim = (int)(random_next(seed) % CHILDREN);
        apr_uint64_t blocks;

        assert_true(apr_time_now() < end);
        pause.tv_nsec = random_next(seed) % 20000000;
        nanosleep(&pause, NULL);
        for (i = 0; i < CHILDREN; i++) {
            child_stop(pids[i]);
        }
        blocks = server_usage(server).blocks;
        assert_true(blocks <= MAX_BYTES / MW_INDEX_BLOCK * 101 / 100);
        assert_true(blocks <= blocks_counted(server));
        child_kill(pids[victim]);
        pids[victim] = child_start(server, random_next(seed));
        for (i = 0; i < CHILDREN; i++) {
            kill(pids[i], SIGCONT);
        }
    }
    for (i = 0; i < CHILDREN; i++) {
        child_kill(pids[i]);
    }
}

/** Nothing left behind, nothing unknown, nothing wrong. */
static int assert_exact(server_t *server)
{
    usage_t usage;
    int found = 0;
    apr_uint32_t i;

    assert_int_equal(server_sweep(server), APR_SUCCESS);
    assert_int_equal(server_sweep(server), APR_SUCCESS);
    usage = server_usage(server);
    assert_int_equal(usage.temps, 0);
    assert_int_equal(usage.blocks, blocks_counted(server));
    for (i = 0; i < KEYS; i++) {
        cachemw_id_t id;
        apr_status_t rv = server_get(server, i, &id);

        assert_true(rv == APR_SUCCESS || rv == APR_NOTFOUND);
        found += rv == APR_SUCCESS;
    }
    assert_int_equal(usage.entries, found);
    assert_int_equal(server_usage(server).entries, found);
    return found;
}

static int is_enough(const counts_t *counts)
{
    return counts->hits > 1000 && counts->amended > 100;
}

static void test_kills_at_any_instant_leave_what_was_stored(void **state)
{
    const char *text = getenv("FILE_KILLS");
    int rounds = text ? (int)strtol(text, NULL, 10) : 90;
    apr_uint32_t seed = (apr_uint32_t)time(NULL);
    server_t *server = server_make();
    counts_t *counts = server->counts;
    const apr_time_t end = apr_time_now() + PATIENCE;
    int found;

    (void)state;
    printf("seed %u\n", seed);
    for (; rounds > 0 || !is_enough(counts); rounds -= 30) {
        assert_true(rounds > 0 || apr_time_now() < end);
        rounds_run(server, 30, &seed);
        assert_int_equal(counts->wrong, 0);
        if (rounds % 60 < 30) {
            /* The parent died with all its children. */
            server_end(server);
            server_begin(server);
            rounds_run(server, 10, &seed);
        }
        found = assert_exact(server);
        assert_true(found > FOUND_ENOUGH);
        server_end(server);
        server_begin(server);
        assert_int_equal(assert_exact(server), found);
    }
    printf("%d stored, %d hits, %d amended, %d recoveries\n",
           (int)counts->stored, (int)counts->hits, (int)counts->amended,
           (int)server->fake.counts[CACHEMW_COUNT_RECOVERED]);
    server_drop(server);
}

/** Have the directory for oneself, as who marks it does; the disk is slow. */
static pid_t marker_start(const server_t *server)
{
    const char *root = apr_pstrcat(server->own, server->dir, "/v1", NULL);
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        if (flock(open(root, O_RDONLY), LOCK_EX) == 0) {
            raise(SIGSTOP);
            usleep(300000);
        }
        _exit(0);
    }
    child_await_stop(pid);
    return pid;
}

/** Else it would answer misses for a second. */
static void test_who_begins_waits_until_the_directory_is_marked(void **state)
{
    server_t *server = server_make();
    cachemw_id_t id;
    pid_t pid;

    (void)state;
    assert_int_equal(server_put(server, 1, 1), APR_SUCCESS);
    server_end(server);
    pid = marker_start(server);
    assert_int_equal(kill(pid, SIGCONT), 0);
    server_begin(server);
    assert_int_equal(server_get(server, 1, &id), APR_SUCCESS);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    server_drop(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_begins_waits_until_the_directory_is_marked),
        cmocka_unit_test(test_kills_at_any_instant_leave_what_was_stored),
    };

    return cmocka_run_group_tests(tests, shared_group_begin, shared_group_end);
}
