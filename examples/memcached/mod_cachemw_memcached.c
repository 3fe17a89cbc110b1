/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A provider for mod_cachemw that keeps responses in memcached, by means of
 * apr_memcache. It is an example of one whose backend is another process,
 * perhaps on another machine, and whose library blocks.
 *
 *     apxs -i -a -c mod_cachemw_memcached.c crew.c
 *
 *     CachemwProvider memcached host=192.0.2.7 port=11211
 *     CacheEnable cachemw /
 *
 * ## What lies in memcached
 *
 *     PREFIX k KEY'S DIGEST      key, id, lengths; head and body if these fit
 *     PREFIX h DIGEST . NUMBER   a piece of a head that does not
 *     PREFIX b ID . NUMBER       a piece of a body that does not
 *
 * The pieces are put there first, so an entry is complete as soon as it can be
 * found. What is replaced or removed loses its first item only: who is still
 * sending the body finds the pieces by the id. (A head can be amended, when the
 * id stays: its pieces go by the head's digest.) They go when their time is over,
 * or when memcached needs the room. Each item ends with a digest of all that it
 * is about, since nothing that comes from another process is believed.
 *
 * ## Deadlines
 *
 * apr_memcache waits a second for each byte and knows of no deadline, so that
 * its calls are made by threads of their own: crew.h. When a child ends some of
 * them may still be waiting: what they work with is left to the system.
 *
 * ## What it does not do
 *
 * apr_memcache believes its server: one that lies about lengths can take
 * memory, or end a child. It is for a memcached that nobody else can reach.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "apr_memcache.h"
#include "apr_sha1.h"
#include "apr_strings.h"
#include "apr_thread_mutex.h"

#include "mod_cachemw.h"

#include "crew.h"

#define MAGIC "CMM1"
#define DIGEST_LEN APR_SHA1_DIGESTSIZE

/* apr_memcache writes an item by one call and never asks how much of it went:
 * it must fit into the buffer of a new connection. The longest key must fit
 * into an item. */
#define ITEM_MAX 32768
#define PIECE_LEN (ITEM_MAX - DIGEST_LEN)

/* Pieces that get() hands out. */
#define AT_ONCE 4

/* memcached takes a longer one for a date. */
#define TTL_MAX (30 * 24 * 3600)

#define PREFIX_MAX 100

/* Microseconds that a connection is kept for. */
#define IDLE_MAX (60 * APR_USEC_PER_SEC)

/* The beginning of a first item; key, perhaps head and body follow. All servers
 * that share a memcached must have the same order of bytes. */
typedef struct first_t {
    char magic[4];
    apr_uint32_t key_len;
    apr_uint32_t head_len;
    apr_uint32_t has_head; /* and it follows */
    apr_int64_t body_len;
    apr_int64_t expires;
    cachemw_id_t id;
    unsigned char head_digest[DIGEST_LEN];
    apr_uint32_t has_body;
} first_t;

/* What the threads of a child work with: in a pool that outlives httpd's. */
typedef struct child_t {
    apr_pool_t *pool;
    crew_t crew;
    const char *prefix;
    apr_pool_t *links; /* of the next two; NULL: all is over */
    apr_memcache_t *memcache;
    apr_memcache_server_t *server;
} child_t;

typedef struct memcached_t {
    const cachemw_services_t *services;
    const char *host;
    apr_port_t port;
    int max_connections;
    const char *prefix;
    child_t *child; /* NULL in the parent */
} memcached_t;

typedef struct piece_t {
    char *data;
    apr_size_t len;
} piece_t;

typedef struct job_t {
    crew_job_t crew; /* the first member */
    child_t *child;
    const char *name; /* of the first item */
    cachemw_key_t key;
    cachemw_id_t id;
    int has_id;
    apr_uint32_t ttl;
    first_t first;
    piece_t item;      /* the first one, without its digest */
    char *head, *body; /* of a set: where they do not fit there; else NULL */
    apr_uint64_t next; /* piece of the body that is wanted */
    int npieces;       /* that many */
    piece_t pieces[AT_ONCE];
} job_t;

/* --- items ---------------------------------------------------------------- */

static char *hex_append(char *to, const unsigned char *bytes, apr_size_t len)
{
    for (; len; len--, bytes++) {
        *to++ = "0123456789abcdef"[*bytes >> 4];
        *to++ = "0123456789abcdef"[*bytes & 15];
    }
    return to;
}

static void digest_of(const void *data, apr_size_t len,
                      unsigned char digest[DIGEST_LEN])
{
    apr_sha1_ctx_t sum;

    apr_sha1_init(&sum);
    apr_sha1_update_binary(&sum, data, (unsigned int)len);
    apr_sha1_final(digest, &sum);
}

static const char *first_name(const char *prefix, const cachemw_key_t *key,
                              apr_pool_t *pool)
{
    char digits[2 * DIGEST_LEN + 1];
    unsigned char digest[DIGEST_LEN];

    digest_of(key->data, key->len, digest);
    *hex_append(digits, digest, sizeof(digest)) = 0;
    return apr_pstrcat(pool, prefix, "k", digits, NULL);
}

static const char *piece_name(const job_t *job, char kind, apr_uint64_t number)
{
    char digits[2 * DIGEST_LEN + 1];
    char *end = kind == 'b'
                    ? hex_append(digits, job->id.bytes, sizeof(job->id.bytes))
                    : hex_append(digits, job->first.head_digest, DIGEST_LEN);

    *end = 0;
    return apr_psprintf(job->crew.pool, "%s%c%s.%" APR_UINT64_T_FMT,
                        job->child->prefix, kind, digits, number);
}

/* Of what an item says, and where. */
static void item_digest(const char *name, const piece_t *item,
                        unsigned char *digest)
{
    apr_sha1_ctx_t sum;

    apr_sha1_init(&sum);
    apr_sha1_update_binary(&sum, (const unsigned char *)name,
                           (unsigned int)strlen(name) + 1);
    apr_sha1_update_binary(&sum, (const unsigned char *)item->data,
                           (unsigned int)item->len);
    apr_sha1_final(digest, &sum);
}

/* What apr_memcache returns, in the words of the contract: any answer that it
 * does not expect is EGENERAL. */
static apr_status_t answer(apr_status_t rv)
{
    if (APR_STATUS_IS_EAGAIN(rv)) {
        return APR_TIMEUP;
    }
    return rv == APR_EGENERAL ? EPROTO : rv;
}

static apr_status_t item_get(const job_t *job, const char *name, piece_t *item)
{
    unsigned char digest[DIGEST_LEN];
    apr_status_t rv = apr_memcache_getp(job->child->memcache, job->crew.pool,
                                        name, &item->data, &item->len, NULL);

    if (rv != APR_SUCCESS) {
        return answer(rv);
    }
    if (item->len < DIGEST_LEN || item->len > ITEM_MAX) {
        return APR_EINCOMPLETE;
    }
    item->len -= DIGEST_LEN;
    item_digest(name, item, digest);
    return memcmp(digest, item->data + item->len, DIGEST_LEN) ? APR_EINCOMPLETE
                                                              : APR_SUCCESS;
}

/* @param item with room for the digest behind it */
static apr_status_t item_set(const job_t *job, const char *name, piece_t *item,
                             apr_uint32_t ttl)
{
    item_digest(name, item, (unsigned char *)item->data + item->len);
    return answer(apr_memcache_set(job->child->memcache, name, item->data,
                                   item->len + DIGEST_LEN, ttl, 0));
}

/* --- pieces --------------------------------------------------------------- */

/* All but the last are full. */
static apr_size_t piece_len(apr_uint64_t all, apr_uint64_t number)
{
    apr_uint64_t left = all - number * PIECE_LEN;

    return left < PIECE_LEN ? (apr_size_t)left : PIECE_LEN;
}

/* They outlive their entry: who has found it may still be sending them. */
static apr_status_t pieces_set(const job_t *job, char kind, const char *data,
                               apr_uint64_t len)
{
    char bytes[ITEM_MAX];
    piece_t piece = { .data = bytes };
    apr_uint32_t ttl = job->ttl + (apr_uint32_t)apr_time_sec(CACHEMW_GRACE);
    apr_uint64_t i;
    apr_status_t rv = APR_SUCCESS;

    for (i = 0; rv == APR_SUCCESS && (apr_uint64_t)i * PIECE_LEN < len; i++) {
        if (crew_job_is_idle(&job->crew)) {
            return APR_TIMEUP;
        }
        piece.len = piece_len(len, i);
        memcpy(bytes, data + i * PIECE_LEN, piece.len);
        rv = item_set(job, piece_name(job, kind, i), &piece, ttl);
    }
    return rv;
}

static apr_status_t piece_get(const job_t *job, char kind, apr_uint64_t number,
                              piece_t *piece)
{
    return crew_job_is_idle(&job->crew)
               ? APR_TIMEUP
               : item_get(job, piece_name(job, kind, number), piece);
}

/* --- what the crew does --------------------------------------------------- */

/* Of what was found under the name of a key. */
static apr_status_t first_check(job_t *job)
{
    first_t *first = &job->first;
    apr_size_t left = job->item.len;

    if (left < sizeof(*first)) {
        return APR_EINCOMPLETE;
    }
    memcpy(first, job->item.data, sizeof(*first));
    left -= sizeof(*first);
    if (memcmp(first->magic, MAGIC, sizeof(first->magic)) || first->body_len < 0
        || first->head_len > CACHEMW_HEAD_MAX || first->key_len > left) {
        return APR_EINCOMPLETE;
    }
    left -= first->key_len;
    if (left
        != (apr_uint64_t)(first->has_head ? first->head_len : 0)
               + (apr_uint64_t)(first->has_body ? first->body_len : 0)) {
        return APR_EINCOMPLETE;
    }
    return first->key_len == job->key.len
                   && !memcmp(job->item.data + sizeof(*first), job->key.data,
                              job->key.len)
               ? APR_SUCCESS
               : APR_NOTFOUND;
}

static apr_status_t first_get(job_t *job)
{
    apr_status_t rv = item_get(job, job->name, &job->item);

    return rv == APR_SUCCESS ? first_check(job) : rv;
}

static apr_status_t head_get(job_t *job)
{
    const first_t *first = &job->first;
    apr_status_t rv = APR_SUCCESS;
    apr_uint64_t i;
    piece_t piece;

    if (first->has_head) {
        job->head = job->item.data + sizeof(*first) + first->key_len;
        return APR_SUCCESS;
    }
    job->head = apr_palloc(job->crew.pool, first->head_len);
    for (i = 0; rv == APR_SUCCESS && i * PIECE_LEN < first->head_len; i++) {
        rv = piece_get(job, 'h', i, &piece);
        if (rv == APR_SUCCESS && piece.len != piece_len(first->head_len, i)) {
            rv = APR_EINCOMPLETE;
        }
        if (rv == APR_SUCCESS) {
            memcpy(job->head + i * PIECE_LEN, piece.data, piece.len);
        }
    }
    return rv;
}

/* The first pieces of the body, or all that there is in the first item. */
static apr_status_t body_get(job_t *job)
{
    apr_uint64_t len = (apr_uint64_t)job->first.body_len;
    apr_status_t rv = APR_SUCCESS;
    int i;

    if (job->first.has_body) {
        job->npieces = 1;
        job->pieces[0].len = (apr_size_t)len;
        job->pieces[0].data = job->item.data + job->item.len - len;
        return APR_SUCCESS;
    }
    job->npieces = 0;
    for (i = 0;
         rv == APR_SUCCESS && i < AT_ONCE && (apr_uint64_t)i * PIECE_LEN < len;
         i++) {
        rv = piece_get(job, 'b', i, &job->pieces[i]);
        if (rv == APR_SUCCESS && job->pieces[i].len != piece_len(len, i)) {
            rv = APR_EINCOMPLETE;
        }
        job->npieces++;
    }
    return rv;
}

static apr_status_t get_run(crew_job_t *crew)
{
    job_t *job = (job_t *)crew;
    apr_status_t rv = first_get(job);

    job->id = job->first.id;
    if (rv == APR_SUCCESS) {
        rv = head_get(job);
    }
    return rv == APR_SUCCESS && job->npieces ? body_get(job) : rv;
}

/* The body may be in the first item. */
static apr_status_t read_run(crew_job_t *crew)
{
    job_t *job = (job_t *)crew;
    apr_status_t rv = piece_get(job, 'b', job->next, &job->pieces[0]);

    if (rv != APR_NOTFOUND || job->next > 0) {
        return rv;
    }
    rv = first_get(job);
    if (rv == APR_SUCCESS
        && (!job->first.has_body
            || memcmp(&job->id, &job->first.id, sizeof(job->id)))) {
        return APR_NOTFOUND;
    }
    return rv == APR_SUCCESS ? body_get(job) : rv;
}

static apr_status_t set_run(crew_job_t *crew)
{
    job_t *job = (job_t *)crew;
    apr_status_t rv = APR_SUCCESS;

    if (job->head) {
        rv = pieces_set(job, 'h', job->head, job->first.head_len);
    }
    if (rv == APR_SUCCESS && job->body) {
        rv = pieces_set(job, 'b', job->body, (apr_uint64_t)job->first.body_len);
    }
    if (rv == APR_SUCCESS && crew_job_is_idle(crew)) {
        rv = APR_TIMEUP;
    }
    return rv == APR_SUCCESS ? item_set(job, job->name, &job->item, job->ttl)
                             : rv;
}

/* Is what is there another entry than the one to be removed? Between this and
 * the removal somebody may store one, which then goes, too: a miss. */
static apr_status_t remove_check(job_t *job)
{
    apr_status_t rv = first_get(job);

    if (rv == APR_SUCCESS) {
        return memcmp(&job->id, &job->first.id, sizeof(job->id)) ? APR_NOTFOUND
                                                                 : APR_SUCCESS;
    }
    return rv == APR_NOTFOUND || rv == APR_EINCOMPLETE ? APR_SUCCESS : rv;
}

static apr_status_t remove_run(crew_job_t *crew)
{
    job_t *job = (job_t *)crew;
    apr_status_t rv = job->has_id ? remove_check(job) : APR_SUCCESS;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = answer(apr_memcache_delete(job->child->memcache, job->name, 0));
    return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}

/* --- jobs ----------------------------------------------------------------- */

static job_t *job_make(memcached_t *self, const cachemw_key_t *key,
                       const cachemw_id_t *id,
                       apr_status_t (*run)(crew_job_t *))
{
    job_t *job = crew_job_make(&self->child->crew, sizeof(*job), run);

    if (job) {
        job->child = self->child;
        job->name = first_name(self->prefix, key, job->crew.pool);
        job->key.data = apr_pmemdup(job->crew.pool, key->data, key->len);
        job->key.len = key->len;
    }
    if (job && id) {
        job->id = *id;
        job->has_id = 1;
    }
    return job;
}

/* @return as crew_run() */
static apr_status_t job_run(memcached_t *self, const cachemw_call_t *call,
                            job_t **job)
{
    const cachemw_services_t *services = self->services;
    crew_job_t *crew = &(*job)->crew;
    apr_status_t rv = crew_run(&self->child->crew, services, call, &crew);

    *job = crew ? *job : NULL;
    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        services->explain(services, rv, "memcached at %s:%d %s", self->host,
                          (int)self->port,
                          rv == EPROTO ? "refused what it was asked for"
                                       : "cannot be reached, or is slow");
    }
    return rv;
}

static void job_end(job_t *job)
{
    if (job) {
        crew_job_free(&job->crew);
    }
}

/* --- slots ---------------------------------------------------------------- */

enum { OPTION_HOST, OPTION_PORT, OPTION_MAX_CONNECTIONS, OPTION_KEY_PREFIX };

static const cachemw_option_t memcached_options[] = {
    [OPTION_HOST] = { .name = "host",
                      .type = CACHEMW_STRING,
                      .fallback = "127.0.0.1",
                      .help = "IPv4 address of memcached." },
    [OPTION_PORT] = { .name = "port",
                      .type = CACHEMW_INTEGER,
                      .fallback = "11211",
                      .minimum = "1",
                      .maximum = "65535",
                      .help = "Port of memcached." },
    [OPTION_MAX_CONNECTIONS] = { .name = "max_connections",
                                 .type = CACHEMW_INTEGER,
                                 .fallback = "16",
                                 .minimum = "1",
                                 .maximum = "1000",
                                 .help = "Most connections of a child, and "
                                         "threads that use them." },
    [OPTION_KEY_PREFIX] = { .name = "key_prefix",
                            .type = CACHEMW_STRING,
                            .fallback = "cachemw:",
                            .help = "What all names in memcached begin with." },
    { .name = NULL },
};

static int prefix_is_good(const char *prefix)
{
    const char *c = prefix;

    while (*c > ' ' && *c <= '~') {
        c++;
    }
    return !*c && c - prefix <= PREFIX_MAX;
}

/* Of a child whose threads have gone: who calls until then has its crew. */
static apr_status_t child_free(void *data)
{
    memcached_t *self = data;

    if (self->child && !self->child->links) {
        apr_pool_destroy(self->child->pool);
    }
    self->child = NULL;
    return APR_SUCCESS;
}

/* A name of a host would be looked up for each new connection, and nothing
 * limits how long that takes. */
static apr_status_t memcached_open(const cachemw_services_t *services,
                                   const cachemw_value_t *values,
                                   apr_pool_t *pconf, void **store,
                                   const char **error)
{
    memcached_t *self = apr_pcalloc(pconf, sizeof(*self));
    struct in_addr address;

    self->services = services;
    self->host = values[OPTION_HOST].string;
    self->port = (apr_port_t)values[OPTION_PORT].number;
    self->max_connections = (int)values[OPTION_MAX_CONNECTIONS].number;
    self->prefix = values[OPTION_KEY_PREFIX].string;
    if (inet_pton(AF_INET, self->host, &address) != 1) {
        *error = apr_psprintf(pconf,
                              "host=%s: an IPv4 address such as 192.0.2.7 is "
                              "expected",
                              self->host);
        return APR_EINVAL;
    }
    if (!prefix_is_good(self->prefix)) {
        *error = apr_psprintf(pconf,
                              "key_prefix=%s: at most %d printable characters "
                              "without blanks are expected",
                              self->prefix, PREFIX_MAX);
        return APR_EINVAL;
    }
    apr_pool_cleanup_register(pconf, self, child_free, apr_pool_cleanup_null);
    *store = self;
    return APR_SUCCESS;
}

/* For apr_memcache a server that failed once is dead for five seconds, and what
 * lies there not found: a failure told as a miss. mod_cachemw's breaker knows
 * better. */
static apr_memcache_server_t *server_choose(void *baton, apr_memcache_t *mc,
                                            const apr_uint32_t hash)
{
    const child_t *child = baton;

    (void)mc, (void)hash;
    return child->server;
}

/* What threads work with stays when they do: the process ends soon. */
static apr_status_t child_end(void *data)
{
    child_t *child = data;

    if (crew_end(&child->crew)) {
        apr_pool_destroy(child->links);
        child->links = NULL;
    }
    return APR_SUCCESS;
}

/* One that nobody else destroys, for several threads. */
static apr_status_t pool_make(apr_pool_t **pool)
{
    apr_allocator_t *allocator;
    apr_thread_mutex_t *mutex;
    apr_status_t rv = apr_allocator_create(&allocator);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = apr_pool_create_unmanaged_ex(pool, NULL, allocator);
    if (rv != APR_SUCCESS) {
        apr_allocator_destroy(allocator);
        return rv;
    }
    apr_allocator_owner_set(allocator, *pool);
    rv = apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, *pool);
    if (rv != APR_SUCCESS) {
        apr_pool_destroy(*pool);
        return rv;
    }
    apr_allocator_mutex_set(allocator, mutex);
    return APR_SUCCESS;
}

static apr_status_t links_make(child_t *child, const memcached_t *self)
{
    const apr_uint32_t most = (apr_uint32_t)self->max_connections;
    apr_status_t rv = apr_pool_create(&child->links, child->pool);

    if (rv == APR_SUCCESS) {
        rv = apr_memcache_create(child->links, 1, 0, &child->memcache);
    }
    if (rv == APR_SUCCESS) {
        rv = apr_memcache_server_create(child->links, self->host, self->port, 0,
                                        most, most, IDLE_MAX, &child->server);
    }
    if (rv == APR_SUCCESS) {
        child->memcache->server_func = server_choose;
        child->memcache->server_baton = child;
        rv = apr_memcache_add_server(child->memcache, child->server);
    }
    return rv;
}

/* Connects nothing: the first call that needs it does. */
static apr_status_t memcached_child_init(void *store, apr_pool_t *pchild)
{
    memcached_t *self = store;
    apr_pool_t *pool;
    child_t *child;
    apr_status_t rv = pool_make(&pool);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    child = apr_pcalloc(pool, sizeof(*child));
    child->pool = pool;
    child->prefix = apr_pstrdup(pool, self->prefix);
    rv = crew_init(&child->crew, self->max_connections);
    if (rv == APR_SUCCESS) {
        rv = links_make(child, self);
    }
    if (rv != APR_SUCCESS) {
        apr_pool_destroy(pool);
        return rv;
    }
    child_free(self);
    self->child = child;
    apr_pool_cleanup_register(pchild, child, child_end, apr_pool_cleanup_null);
    return APR_SUCCESS;
}

/* Buckets may outlive the job: they have copies. */
static void body_append(apr_bucket_brigade *body, const char *data,
                        apr_size_t len)
{
    if (len) {
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_heap_create(data, len, NULL, body->bucket_alloc));
    }
}

static apr_status_t entry_fill(const job_t *job, const cachemw_call_t *call,
                               cachemw_entry_t *entry)
{
    const first_t *first = &job->first;
    int i;

    if (first->expires <= call->now) {
        return APR_NOTFOUND;
    }
    entry->id = first->id;
    entry->expires = first->expires;
    entry->body_len = first->body_len;
    entry->head_len = first->head_len;
    entry->head = apr_pmemdup(call->pool, job->head, first->head_len);
    for (i = 0; entry->body && i < job->npieces; i++) {
        body_append(entry->body, job->pieces[i].data, job->pieces[i].len);
    }
    return APR_SUCCESS;
}

static apr_status_t memcached_get(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  cachemw_entry_t *entry)
{
    job_t *job = job_make(store, key, NULL, get_run);
    apr_status_t rv;

    if (!job) {
        return APR_ENOMEM;
    }
    job->npieces = entry->body != NULL;
    rv = job_run(store, call, &job);
    if (rv == APR_SUCCESS) {
        rv = entry_fill(job, call, entry);
    }
    job_end(job);
    return rv;
}

static apr_status_t memcached_read(void *store, const cachemw_call_t *call,
                                   const cachemw_key_t *key,
                                   const cachemw_id_t *id, apr_off_t offset,
                                   apr_size_t limit, apr_bucket_brigade *body)
{
    job_t *job = job_make(store, key, id, read_run);
    apr_size_t from = (apr_size_t)(offset % PIECE_LEN);
    apr_size_t len;
    apr_status_t rv;

    if (!job) {
        return APR_ENOMEM;
    }
    job->next = (apr_uint64_t)(offset / PIECE_LEN);
    rv = job_run(store, call, &job);
    if (rv == APR_SUCCESS && job->pieces[0].len <= from) {
        rv = APR_EINCOMPLETE;
    }
    if (rv == APR_SUCCESS) {
        len = job->pieces[0].len - from;
        body_append(body, job->pieces[0].data + from,
                    len < limit ? len : limit);
    }
    job_end(job);
    return rv;
}

static apr_status_t memcached_remove(void *store, const cachemw_call_t *call,
                                     const cachemw_key_t *key,
                                     const cachemw_id_t *id)
{
    job_t *job = job_make(store, key, id, remove_run);
    apr_status_t rv;

    if (!job) {
        return APR_ENOMEM;
    }
    rv = job_run(store, call, &job);
    job_end(job);
    return rv;
}

/* The first item, with as much as fits; the rest beside it. */
static apr_status_t job_fill(job_t *job, const cachemw_entry_t *entry)
{
    first_t *first = &job->first;
    apr_size_t len = sizeof(*first) + job->key.len;
    apr_size_t body_len = (apr_size_t)entry->body_len;
    char *to;

    memcpy(first->magic, MAGIC, sizeof(first->magic));
    first->key_len = (apr_uint32_t)job->key.len;
    first->head_len = (apr_uint32_t)entry->head_len;
    first->has_head = entry->head_len <= PIECE_LEN - len;
    if (!first->has_head) {
        digest_of(entry->head, entry->head_len, first->head_digest);
    }
    first->body_len = entry->body_len;
    first->expires = entry->expires;
    first->id = entry->id;
    len += first->has_head ? entry->head_len : 0;
    first->has_body = body_len <= PIECE_LEN - len;
    job->item.data = apr_palloc(job->crew.pool, ITEM_MAX);
    job->item.len = len + (first->has_body ? body_len : 0);
    memcpy(job->item.data, first, sizeof(*first));
    memcpy(job->item.data + sizeof(*first), job->key.data, job->key.len);
    to = job->item.data + sizeof(*first) + job->key.len;
    if (!first->has_head) {
        to = job->head = apr_palloc(job->crew.pool, entry->head_len);
    }
    memcpy(to, entry->head, entry->head_len);
    to = job->item.data + len;
    if (!first->has_body) {
        to = job->body = apr_palloc(job->crew.pool, body_len);
    }
    return body_len ? apr_brigade_flatten(entry->body, to, &body_len)
                    : APR_SUCCESS;
}

static apr_status_t memcached_set(void *store, const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_entry_t *entry)
{
    apr_interval_time_t left = entry->expires - call->now;
    job_t *job;
    apr_status_t rv;

    if (left <= 0) {
        return memcached_remove(store, call, key, NULL);
    }
    job = job_make(store, key, &entry->id, set_run);
    if (!job) {
        return APR_ENOMEM;
    }
    left = (left + APR_USEC_PER_SEC - 1) / APR_USEC_PER_SEC;
    job->ttl = (apr_uint32_t)(left < TTL_MAX - 60 ? left : TTL_MAX - 60);
    rv = job_fill(job, entry);
    if (rv == APR_SUCCESS) {
        rv = job_run(store, call, &job);
    }
    job_end(job);
    return rv;
}

static const cachemw_provider_t memcached_provider = {
    .size = sizeof(cachemw_provider_t),
    .flags = CACHEMW_REMOTE,
    .options = memcached_options,
    .max_object_size = "1M",
    .open = memcached_open,
    .get = memcached_get,
    .set = memcached_set,
    .remove = memcached_remove,
    .child_init = memcached_child_init,
    .read = memcached_read,
};

static void register_hooks(apr_pool_t *p)
{
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "memcached",
                         CACHEMW_PROVIDER_VERSION, &memcached_provider);
}

AP_DECLARE_MODULE(cachemw_memcached) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
