/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file mod_cachemw.h
 * @brief The provider contract of mod_cachemw.
 *
 * A provider is a way of keeping HTTP responses: in shared memory, in files,
 * in a database, behind a network protocol. It is a table of functions that a
 * module registers; mod_cachemw opens it once for each store that an
 * administrator configures and calls it for every request that mod_cache
 * looks up or stores there:
 *
 *     #include "httpd.h"
 *     #include "http_config.h"
 *     #include "ap_provider.h"
 *     #include "mod_cachemw.h"
 *
 *     static const cachemw_provider_t my_provider = {
 *         .size = sizeof(cachemw_provider_t),
 *         .options = my_options,
 *         .open = my_open, .close = my_close,
 *         .get = my_get, .set = my_set, .remove = my_remove,
 *     };
 *
 *     static void register_hooks(apr_pool_t *p)
 *     {
 *         ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "my",
 *                              CACHEMW_PROVIDER_VERSION, &my_provider);
 *     }
 *
 *     AP_DECLARE_MODULE(cachemw_my) = {
 *         STANDARD20_MODULE_STUFF, .register_hooks = register_hooks,
 *     };
 *
 * compiled with `apxs -c mod_cachemw_my.c`, and configured, in any order, by
 *
 *     LoadModule cachemw_my_module modules/mod_cachemw_my.so
 *     CachemwStore mine my colour=blue
 *
 * This header is all that a provider needs. It names no symbol of mod_cachemw:
 * what a provider wants from it comes in the services table handed to open().
 *
 * ## What the words mean
 *
 * An *entry* is one stored response: a *head* (opaque bytes, made and read by
 * mod_cachemw), a *body* (opaque bytes) and an *id*, drawn anew for each set.
 * A *key* names an entry: arbitrary bytes, NUL included, 0 to
 * CACHEMW_KEY_MAX of them. *expires* is when storage may forget the entry, an
 * absolute wall-clock time; how long a response is *fresh* in the sense of
 * RFC 9111, section 4.2, is inside the head and no concern of a provider.
 *
 * ## The life of a store
 *
 *     open          parent, also under `httpd -t`: parse only. May read files
 *                   that must be there; creates, locks and connects nothing.
 *     post_config   parent, perhaps as root: shared segments, directories,
 *                   their ownership. No connections. Not under `httpd -t`.
 *     (fork)
 *     child_init    child, after the change of user and chroot:
 *                   connections, threads. Also in the process that sweeps,
 *                   which is a child that serves nothing.
 *     calls         child, any thread; also concurrently in other children.
 *     (child exit)  whatever a child acquired is released by cleanups that the
 *                   provider registers on the child's pool when it acquires
 *                   it; they must be quick. close is NOT called in a child.
 *     close         parent, when the configuration's pool is cleared.
 *
 * A child's clean-ups may run while calls of its other threads are under way,
 * and buckets that a slot returned may be destroyed after them. A backend that
 * cannot be reached is no reason for child_init to fail, for that switches the
 * store off in the child for good: connect on first use, and again.
 *
 * A program without a server (a test, a command line tool) plays the parent and
 * the child in turn in one process: open, post_config, child_init, calls,
 * child's cleanups, close.
 *
 * httpd unloads modules whenever a configuration is dropped, and loads them
 * again at another address: nothing that outlives a configuration (a shared
 * segment, retained data, a file) may hold a pointer, least of all one into
 * code. During a graceful restart the children of two configurations run at
 * once over the same segments and files.
 *
 * ## Threads and processes
 *
 * Every slot but open, post_config, child_init and close is called on any
 * thread of any child, concurrently, unless CACHEMW_SERIALIZE is set; only
 * sweep and sync have a process of their own. Buckets that a slot returned may
 * be read, split and destroyed by other threads than the calling one, but never
 * by two at once; CACHEMW_SERIALIZE does not cover that. A pool is not
 * thread-safe: during calls allocate from the call's pool, never from pconf or
 * pchild.
 * Between two calls a provider holds no lock, statement or checked-out
 * connection on behalf of a request.
 *
 * ## What slots return
 *
 *     APR_SUCCESS      done.
 *     APR_NOTFOUND     a miss: there is no such entry, or it is another one by
 *                      now. Ordinary; never logged.
 *     APR_ENOSPC       the entry does not fit. Counted, not an error.
 *     APR_EINCOMPLETE  what was found is damaged (wrong magic, length, key or
 *                      checksum). mod_cachemw removes it and misses.
 *     APR_ENOTIMPL     clear, keys, lock and unlock only: this provider cannot
 *                      do this.
 *     APR_EBUSY        lock only: another one has it.
 *     APR_EAGAIN       of a CACHEMW_REMOTE provider: nothing was tried, and the
 *                      backend is not to blame. See below.
 *     APR_TIMEUP       the deadline, or the longest wait for a lock, is over:
 *                      trouble, counted by itself.
 *     anything else    trouble: counted, logged at a limited rate, and, for a
 *                      CACHEMW_REMOTE provider, a reason to open the breaker.
 *
 * A miss and a failure are never reported by the same code. Out-parameters
 * have a meaning after APR_SUCCESS only. No outcome of a slot ever becomes an
 * error page.
 *
 * ## Backends on other machines
 *
 * A provider whose calls leave the machine has the flag CACHEMW_REMOTE. Then
 *
 * - each call has a deadline. It is absolute: before each wait for the network
 *   ask remaining() and wait no longer than that, so that a peer which sends a
 *   byte now and then gains nothing. What comes from deadline_in() serves for
 *   shorter steps within a call: connecting, a second attempt on a fresh
 *   connection. At the deadline return APR_TIMEUP, and drop the connection: an
 *   answer may still be on its way.
 * - mod_cachemw has the breaker, for all children together: after five failures
 *   in a row no slot that serves requests is called for a second (sweep, sync,
 *   stats and set_abort still are), then one call is let through to see, and
 *   the pauses become longer, up to 30 seconds. A provider needs nothing of
 *   that kind. Its idle connections may be dead when it is called again.
 * - sets and set_heads have a small budget for the sum of their calls
 *   (store_timeout, 50 ms). set_begin and set_write run while a visitor waits
 *   for the bytes that are stored, set_commit mostly when the last one has been
 *   sent: so do there what has to wait, and what need not in the other two. A
 *   provider with set alone has that by itself: the response is collected
 *   before.
 * - a read that failed is called again, every 100 ms for up to 10 s
 *   (body_timeout), since giving up would cut a response: do not insist.
 * - no slot that requests call resolves names, for nothing limits how long that
 *   takes. Addresses written as numbers are parsed in open; names are resolved
 *   in sweep, which has a process of its own, is called as soon as that has
 *   begun and every 10 seconds at the latest, and goes on while the breaker
 *   is open. It leaves the addresses in a segment, where calls find them: at a
 *   graceful restart two processes may write there for a moment, and either
 *   may die half-way. Old addresses are better than none.
 * - what cannot be tried (no address known yet; all connections in use until
 *   the deadline) is APR_EAGAIN: a miss that the breaker does not hear of. Take
 *   care not to pass on an EAGAIN of a socket by mistake.
 * - the status page shows the last failure as apr_strerror() words it: return
 *   one that says something (APR_ECONNREFUSED, APR_ECONNRESET, APR_EACCES,
 *   EROFS, EPROTO), and add by explain() what it cannot say. What only the
 *   backend can name is counted by count_kind(). A backend that is full is
 *   APR_ENOSPC, not a failure.
 * - whatever comes from a peer is checked before it is believed: shape and
 *   length of an answer, before memory is taken for it. What is no answer at
 *   all is trouble (and the end of the connection), an entry that cannot be
 *   right is APR_EINCOMPLETE.
 * - connections belong to one child, made on first use, never over a fork. The
 *   child's pool closes them.
 *
 * ## What every provider owes
 *
 * - One content: what a call in one child did (set, remove, set_head, clear)
 *   holds for every later call in every child, of either configuration.
 * - Bounded: bytes and entries have a cap that holds under load.
 * - Room: without object_limit and max_object_size a store takes bodies of
 *   16 MB.
 * - An entry at or past its expires is never returned, and goes away by sweep
 *   without traffic.
 * - What was read is verified before it is returned: the full key, the id,
 *   lengths; and a checksum where bytes left our processes (a disk, a
 *   network).
 * - set is atomic for readers: they find the old entry, the new one or none,
 *   also after a crash in the middle.
 * - What get has handed out can be read to its end. A response whose body
 *   cannot is cut off in front of its reader, so replacing, removing, clearing
 *   away, evicting or expiring an entry must not take the body from those who
 *   are being sent it: get gives buckets that keep it, or read finds it by
 *   its id for at least CACHEMW_GRACE after that, as far as the cap on space
 *   allows.
 * - No slot needs a whole body in one piece of memory, save where a foreign
 *   protocol leaves no choice; that is then documented.
 *
 * ## What may grow
 *
 * Within version 1 the tables (cachemw_provider_t, cachemw_services_t) and
 * cachemw_stats_t, which begin with their size, grow at their end. All other
 * structures stay as they are; new members of enumerations are added behind the
 * last. So a provider that was compiled against this header works with any
 * later mod_cachemw of version 1. One that was compiled against a later header
 * works with this one: what its table has beyond ours is not called, and before
 * it uses what is new in ours it asks CACHEMW_HAS(). A provider with a flag
 * that mod_cachemw does not know is refused.
 *
 * ## httpd symbols
 *
 * A provider may use APR and apr-util freely, and of httpd:
 * ap_register_provider, ap_log_* (which refer to ap_get_server_module_loglevel)
 * and the hooks it needs for itself. Tools load a provider without a server
 * and offer stand-ins for these only.
 */
#ifndef MOD_CACHEMW_H
#define MOD_CACHEMW_H

#include <stdarg.h>

#include "apr.h"
#include "apr_buckets.h"
#include "apr_errno.h"
#include "apr_file_io.h"
#include "apr_pools.h"
#include "apr_time.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Group and version for ap_register_provider(). A provider of another version
 *  is refused. */
#define CACHEMW_PROVIDER_GROUP "cachemw"
#define CACHEMW_PROVIDER_VERSION "1"

/** Whether what begins with its own size (a table, cachemw_stats_t) has this
 *  member: for one that was added after a provider's first release. */
#define CACHEMW_HAS(table, member)                                      \
    ((table)->size >= (apr_size_t)((const char *)(&(table)->member + 1) \
                                   - (const char *)(table)))

/** Longest key in bytes. Keys of this length must work. */
#define CACHEMW_KEY_MAX 16384

/** Longest head in bytes; set never hands a longer one. */
#define CACHEMW_HEAD_MAX (1024 * 1024)

/** Most bytes of a body that get or read should return as memory at once. */
#define CACHEMW_PIECE_MAX 65536

/** How long a body stays readable by its id after its entry went. */
#define CACHEMW_GRACE apr_time_from_sec(60)

/** @name Provider flags @{ */
/** Calls leave the machine: a deadline and the circuit breaker apply. */
#define CACHEMW_REMOTE 0x01u
/** Calls are not thread-safe: mod_cachemw holds one mutex per child. */
#define CACHEMW_SERIALIZE 0x02u
/** Entries never leave the server's memory: heads carry no checksum. */
#define CACHEMW_IN_MEMORY 0x04u
/**
 * Calls go on to other stores, those of services->store(), and nowhere else:
 * deadlines, breaker, counts of failures and log lines are theirs. Such a store
 * counts as CACHEMW_REMOTE when one of these is, and as CACHEMW_IN_MEMORY when
 * all are.
 */
#define CACHEMW_TIERED 0x08u
/** @} */

/** @name Key, id, entry @{ */

typedef struct cachemw_key_t {
    const char *data; /**< len bytes, not terminated; never NULL */
    apr_size_t len;   /**< 0 to CACHEMW_KEY_MAX */
} cachemw_key_t;

/** 128 bits that tell one set from every other: drawn by mod_cachemw, opaque.
 *  In part they depend on the key, so that it notices an entry of another
 *  one. */
typedef struct cachemw_id_t {
    unsigned char bytes[16];
} cachemw_id_t;

typedef struct cachemw_entry_t {
    cachemw_id_t id;
    const void *head;         /**< opaque; see each slot for who owns it */
    apr_size_t head_len;      /**< 0 to CACHEMW_HEAD_MAX bytes */
    apr_time_t expires;       /**< absolute wall clock, microseconds */
    apr_off_t body_len;       /**< whole body in bytes; -1: not known yet */
    apr_bucket_brigade *body; /**< see each slot */
    /** mod_cachemw's own note of a get: whether the head lay in the server's
     *  memory, and has been checked before. Providers leave it alone. */
    int is_own;
} cachemw_entry_t;

/** @} */

/**
 * cachemw_call_t::context of a get: what is in this server alone may be out of
 * date, so a CACHEMW_TIERED provider asks first what other servers share. Others
 * need not look at it.
 */
#define CACHEMW_FARTHEST ((const void *)1)

/**
 * cachemw_call_t::context of a set_head: it invalidates the key, so a provider
 * with watch tells CACHEMW_CHANGE_INVALIDATED. Others need not look at it.
 */
#define CACHEMW_INVALIDATES ((const void *)2)

/**
 * What every call carries. Valid during the call only, save where a slot says
 * otherwise.
 */
typedef struct cachemw_call_t {
    /** Memory for results: lives as long as they are used. That of a get for a
     *  request goes when the response has been sent, or given up. */
    apr_pool_t *pool;
    apr_bucket_alloc_t *bucket_alloc; /**< for buckets; NULL if none are made */
    apr_time_t now; /**< the wall clock: providers never read it themselves */
    /**
     * When the call must have returned: monotonic clock, microseconds;
     * 0: no limit. Ask services->remaining() rather than compute with it.
     */
    apr_int64_t deadline;
    /**
     * Of a set: a number that tells which purges and invalidations the request
     * came after. mod_cachemw itself refuses sets that one has overtaken; the
     * number means nothing outside this server.
     */
    apr_uint64_t purge_epoch;
    /**
     * Of a get: non-zero when files behind buckets should be opened with
     * APR_FOPEN_SENDFILE_ENABLED. Whether they may be mapped into memory
     * mod_cachemw tells the buckets itself.
     */
    int sendfile;
    /**
     * NULL, CACHEMW_FARTHEST or CACHEMW_INVALIDATES. Who calls another store
     * on behalf of a call begins with a copy of that.
     */
    const void *context;
} cachemw_call_t;

/** @name Options @{ */

typedef enum cachemw_type_e {
    CACHEMW_INTEGER,     /**< decimal; value.number */
    CACHEMW_SIZE,        /**< bytes, suffixes K M G (1024); value.number */
    CACHEMW_DURATION,    /**< suffixes ms s min h d; without one seconds;
                           value.duration in microseconds */
    CACHEMW_FLAG,        /**< on or off; value.number is 1 or 0 */
    CACHEMW_REAL,        /**< decimal fraction; value.real */
    CACHEMW_STRING,      /**< any text; value.string */
    CACHEMW_ENUM,        /**< one of the words in option.words; value.number is
                           its index and value.string the word */
    CACHEMW_PATH,        /**< absolute, or below the cache directory;
                           value.string is absolute. The store's own: two
                           stores must not share it */
    CACHEMW_FILE,        /**< a file that is only read and may be shared by
                           stores (certificate, key, CA); relative ones are
                           below the cache directory; value.string is
                           absolute. One that is missing, or that the parent
                           cannot read, is refused; children may not be able
                           to: read it in open or post_config */
    CACHEMW_SECRET,      /**< like STRING, but never shown anywhere */
    CACHEMW_SECRET_FILE, /**< path of a file, read once in the parent; its
                           text without trailing newline is value.string,
                           never shown anywhere */
    CACHEMW_STORE        /**< the name of another store; value.string */
} cachemw_type_e;

/**
 * One option of a provider. A table of them ends with a row whose name is
 * NULL. minimum, maximum and fallback are written as an administrator would.
 */
typedef struct cachemw_option_t {
    const char *name; /**< lower case, digits, underscore */
    cachemw_type_e type;
    const char *fallback;     /**< the default as text; NULL: unset */
    const char *minimum;      /**< smallest accepted value; NULL: none */
    const char *maximum;      /**< largest accepted value; NULL: none */
    const char *help;         /**< one sentence for the reference */
    const char *alias;        /**< name of the option that this one is another
                               name of (all else but name is then ignored) */
    const char *const *words; /**< CACHEMW_ENUM: accepted words, NULL at end */
    int required;             /**< non-zero: must be given */
} cachemw_option_t;

/** A parsed value; handed to open() in the order of the option table. */
typedef struct cachemw_value_t {
    int is_set;  /**< given by the administrator (not the fallback) */
    int is_null; /**< neither given nor has the option a fallback; or "off" */
    apr_int64_t number;
    apr_interval_time_t duration;
    double real;
    const char *string; /**< NULL if is_null */
} cachemw_value_t;

/** @} */

/** @name Services: what a provider gets from mod_cachemw @{ */

typedef enum cachemw_level_e {
    CACHEMW_LOG_ERR,     /**< an administrator must act; never limited, so not
                           from what requests call */
    CACHEMW_LOG_WARNING, /**< degraded; limited to a line per 10 s per text */
    CACHEMW_LOG_INFO,    /**< life cycle */
    CACHEMW_LOG_DEBUG    /**< one line per decision */
} cachemw_level_e;

/** Counters that only a provider can count; the others core counts. */
typedef enum cachemw_count_e {
    CACHEMW_COUNT_EVICTED,  /**< entries dropped to make room */
    CACHEMW_COUNT_EXPIRED,  /**< entries dropped because they expired */
    CACHEMW_COUNT_RECOVERED /**< clean-ups after a process that died */
} cachemw_count_e;

typedef struct cachemw_provider_t cachemw_provider_t;
typedef struct cachemw_services_t cachemw_services_t;

/**
 * Handed to open() and valid until close() returned. Functions that take a
 * cachemw_services_t want the pointer that open() got: it knows its store.
 */
struct cachemw_services_t {
    apr_size_t size; /**< of this table; slots beyond it do not exist */

    /** The name of the store, for messages; "(default)" and the like. */
    const char *store_name;

    /**
     * The largest body that this store accepts, in bytes. During open() what
     * the administrator or the table says; final once object_limit() was
     * asked.
     */
    apr_off_t max_object_size;

    /**
     * Log a line "cachemw[store]: text". Any thread, any time. Never bodies,
     * secrets or whole keys.
     * @param rv the status to explain, or APR_SUCCESS
     */
    void (*log)(const cachemw_services_t *services, cachemw_level_e level,
                apr_status_t rv, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

    /** Add to one of the counters shown for the store. Any thread. n may be
     *  0. */
    void (*count)(const cachemw_services_t *services, cachemw_count_e what,
                  apr_uint64_t n);

    /**
     * What is left until the call's deadline, in microseconds: 0 when it is
     * past, -1 when there is none.
     */
    apr_interval_time_t (*remaining)(const cachemw_services_t *services,
                                     const cachemw_call_t *call);

    /** Fill a buffer with random bytes of cryptographic quality. */
    apr_status_t (*random)(const cachemw_services_t *services, void *buffer,
                           apr_size_t length);

    /**
     * A temporary file without a name, open for reading and writing, closed
     * with the pool.
     */
    apr_status_t (*temp_file)(const cachemw_services_t *services,
                              apr_file_t **file, apr_pool_t *pool);

    /**
     * Shared memory for all children, in post_config() only: anonymous,
     * page-aligned, zero-filled when new. It is kept over graceful restarts as
     * long as a store of the same name asks for the same size and layout;
     * then *is_new is 0 and the content is what the running children made of
     * it. All processes see it at the same address.
     * @param layout changes whenever the meaning of the bytes does
     */
    apr_status_t (*segment)(const cachemw_services_t *services, apr_size_t size,
                            apr_uint64_t layout, void **base, int *is_new);

    /**
     * Another store by name, in open() only: its calls go through mod_cachemw
     * like any request's (deadline, breaker, counters). The table returned
     * has every slot, save that publish, watch, lock and unlock are NULL where
     * the store has none; hand them *self as their first argument. Its flags and
     * its object_limit() are those of the store. A call's deadline only ever
     * shortens the store's own. What is not even tried (the breaker is open,
     * the store is off) is APR_EGENERAL.
     * @return APR_NOTFOUND: no store of this name, or it would contain itself
     */
    apr_status_t (*store)(const cachemw_services_t *services, const char *name,
                          const cachemw_provider_t **table, void **self);

    /**
     * A deadline of a provider's own, for a step of a call (connecting, a
     * second attempt) or a wait for a lock: some microseconds from now, but
     * never after the call's.
     * @param call NULL: there is none; then 0 microseconds is what the
     *        monotonic clock shows, for the age of a connection
     * @return fit for cachemw_call_t::deadline
     */
    apr_int64_t (*deadline_in)(const cachemw_services_t *services,
                               const cachemw_call_t *call,
                               apr_interval_time_t microseconds);

    /**
     * Count failures by kind, as the backend names them ("READONLY", "503"):
     * shown for the store, summed over all children, beside what core counts
     * itself, also while the breaker is open. Any thread, from post_config()
     * on.
     * @param kind 1 to 23 letters, digits, '-' and '_'. There is room for 31
     *        different ones, so never a peer's own words
     */
    void (*count_kind)(const cachemw_services_t *services, const char *kind,
                       apr_uint64_t n);

    /**
     * Say why the call that this thread is in will return `rv`: what no status
     * can tell, such as which server it was and what it objects to. The text
     * stands in the log line about the failure, which is limited in rate, and
     * for a CACHEMW_REMOTE provider on the status page, as the last error.
     * Only the latest one counts, and only when the slot returns `rv` and that
     * is trouble: who tries again need not take it back. A failure without is
     * taken for one of the same cause as the last one with the same status.
     * @param format of a text for an administrator, cut at 319 bytes: never a
     *        peer's own words, secrets or whole keys. Failures of one format
     *        share their limit of log lines
     */
    void (*explain)(const cachemw_services_t *services, apr_status_t rv,
                    const char *format, ...)
        __attribute__((format(printf, 3, 4)));

    /**
     * Who asks, for a provider whose backend may be a mod_cachemw, too: what a
     * request sends as X-Cachemw-Api. A random word for this server, the same
     * in all children and over graceful restarts; before it, with commas, those
     * of the servers that this call is made for. A server that finds its own
     * word in it would ask itself, and answers 508.
     * @param call NULL: this server's word alone, which its own answers carry
     * @return in the call's pool; NULL where there is no server (a test, a
     *         tool)
     */
    const char *(*via)(const cachemw_services_t *services,
                       const cachemw_call_t *call);

    /**
     * Something was removed or invalidated by another server: what of it a
     * request of this one is storing now is older than that, and is refused, as
     * it is after a removal here. Before the provider undoes what was stored
     * already. Any thread, from post_config() on.
     * @param key as slots get it; NULL: everything
     */
    void (*removed)(const cachemw_services_t *services,
                    const cachemw_key_t *key);

    /**
     * So many servers, this one included, share the place of the backend: what
     * core needs to know to spare itself the locks where there is no other. Of
     * a provider with lock that finds out, in the process that sweeps.
     * @param servers at least 1
     * @param valid microseconds from now on for which that may be believed;
     *        then it is unknown, as it was at first, and locks are taken
     */
    void (*sharing)(const cachemw_services_t *services, unsigned int servers,
                    apr_interval_time_t valid);
};

/** @} */

/** What stats() tells. Figures that a provider does not know stay -1. */
typedef struct cachemw_stats_t {
    apr_size_t size; /**< of this structure; members beyond it do not exist */
    apr_int64_t entries;     /**< entries held, expired ones included */
    apr_int64_t expired;     /**< of these, past their expires */
    apr_int64_t bytes;       /**< bytes used by keys, heads and bodies */
    apr_int64_t bytes_max;   /**< the cap on bytes */
    apr_int64_t entries_max; /**< the cap on entries */
    /** Further figures, by name: "free_bytes" is shown as FreeBytes and as
     *  Free bytes. Call it as often as wanted; may be NULL. */
    void (*extra)(void *baton, const char *name, apr_int64_t value);
    void *baton;
} cachemw_stats_t;

/**
 * Called by keys() for each entry.
 * @param key valid during the call only
 * @param entry id, expires and body_len; head may be NULL; body is NULL
 * @return anything but APR_SUCCESS ends the iteration and is returned by keys()
 */
typedef apr_status_t cachemw_keys_fn(void *baton, const cachemw_key_t *key,
                                     const cachemw_entry_t *entry);

/** What happened to a key, as servers tell each other. */
typedef enum cachemw_change_e {
    CACHEMW_CHANGE_SET,        /**< it has another entry */
    CACHEMW_CHANGE_AMENDED,    /**< its entry has another head or expires */
    CACHEMW_CHANGE_REMOVED,    /**< it has none, perhaps it had none before */
    CACHEMW_CHANGE_CLEARED,    /**< all keys lose their entries */
    CACHEMW_CHANGE_INVALIDATED /**< its entry has another head, which says that
                                  it is out of date */
} cachemw_change_e;

/**
 * Called by watch() for each change, in the order of the changes of a key.
 * @param key NULL: CACHEMW_CHANGE_CLEARED. Valid during the call only
 * @param id of the entry that was set, amended or invalidated; else NULL
 * @param is_own non-zero: a process of this server did it
 */
typedef void cachemw_watch_fn(void *baton, cachemw_change_e what,
                              const cachemw_key_t *key, const cachemw_id_t *id,
                              int is_own);

/**
 * The table of a provider. It begins with its own size and grows only at its
 * end: a slot that lies beyond size counts as NULL. `store` is what open()
 * returned.
 */
struct cachemw_provider_t {
    apr_size_t size;    /**< sizeof(cachemw_provider_t) */
    unsigned int flags; /**< CACHEMW_REMOTE, _SERIALIZE, _IN_MEMORY, _TIERED; a
                           table with one that is not known is refused */
    const cachemw_option_t *options; /**< may be NULL: no options */
    /**
     * Fallback of the option max_object_size, as text. NULL: what
     * object_limit() tells, and 16M without that slot.
     */
    const char *max_object_size;

    /**
     * Make a store of the values given. Parent, also under `httpd -t`:
     * changes nothing outside its memory.
     * @param values one per row of options, same order; lives as long as pconf
     * @param pconf where the store lives
     * @param store set to the new store
     * @param error on failure set to what is wrong and what would be right,
     *        in pconf; shown to the administrator behind file, line and name
     * @return anything but APR_SUCCESS: httpd does not start, and close is not
     *         called
     */
    apr_status_t (*open)(const cachemw_services_t *services,
                         const cachemw_value_t *values, apr_pool_t *pconf,
                         void **store, const char **error);

    /** Forget the store. Parent only. May be NULL. */
    void (*close)(void *store);

    /**
     * Find an entry.
     * @param entry In: body is an empty brigade for the body, or NULL when the
     *        head alone is wanted. Out: all fields. expires is what set or
     *        set_head gave, or earlier, when the store forgets it earlier. head
     *        lives in call->pool (or longer) and is not changed by anybody.
     *        body holds the whole body, or at least its first byte, with the
     *        rest by read(); a body of length 0 has no buckets. Buckets stay
     *        valid until they are destroyed, also when the entry is replaced or
     *        evicted and when the call's pool is gone; they survive setaside.
     *        Only buckets of APR's file type, which httpd sends by itself, may
     *        have their file in call->pool: setaside moves it to another one.
     * @return APR_SUCCESS, APR_NOTFOUND (none, or at or past expires at
     *         call->now), APR_EINCOMPLETE, trouble
     */
    apr_status_t (*get)(void *store, const cachemw_call_t *call,
                        const cachemw_key_t *key, cachemw_entry_t *entry);

    /**
     * Store an entry, replacing what the key had. Either this slot or all four
     * of the streaming slots must be there; core makes one of the other.
     * @param entry all fields; head, key and body are the caller's and valid
     *        during the call. body_len is known and is the body's length. The
     *        buckets of body may be consumed but remain the caller's to
     *        destroy; body may be NULL when body_len is 0.
     * @return APR_SUCCESS, APR_ENOSPC, trouble; then what the key had before
     *         may be there or not
     */
    apr_status_t (*set)(void *store, const cachemw_call_t *call,
                        const cachemw_key_t *key, const cachemw_entry_t *entry);

    /**
     * Remove an entry.
     * @param id remove it only if it is still this one; NULL: any
     * @return APR_SUCCESS, also when the key had no entry; APR_NOTFOUND when
     *         id was given and the entry is another one (or there is none, if
     *         that is easier to tell); trouble
     */
    apr_status_t (*remove)(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *id);

    /* From here on every slot may be NULL. */

    /**
     * Parent, after the whole configuration is known, perhaps as root.
     * @param uid,gid whom the children will run as (0: no change of user), to
     *        whom belongs what is made here
     * @return trouble switches this store off, with a log line; the server
     *         starts all the same
     */
    apr_status_t (*post_config)(void *store, apr_pool_t *pconf, apr_uid_t uid,
                                apr_gid_t gid);

    /**
     * In each new child, before its first call.
     * @param pchild the child's pool: register clean-ups on it
     * @return trouble switches this store off in this child
     */
    apr_status_t (*child_init)(void *store, apr_pool_t *pchild);

    /**
     * Amend an entry without its body: replace head and expires, keep id and
     * body (RFC 9111, section 4.3.4). Readers see the old or the new head.
     * Missing: core sets the entry anew, body and all.
     * @param entry head, head_len and expires count; id, body and body_len
     *        do not
     * @return APR_NOTFOUND when the entry is not `id` (any more) or has
     *         expired; APR_ENOSPC
     */
    apr_status_t (*set_head)(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id,
                             const cachemw_entry_t *entry);

    /**
     * A further piece of a body. Missing: get must give whole bodies. Pieces
     * are asked for as slowly as a client reads: see CACHEMW_GRACE.
     * @param offset 0 <= offset < body_len
     * @param limit at most this many bytes are wanted, at least 1
     * @param body gets 1 to limit bytes appended, from offset on
     * @return APR_NOTFOUND when the body of `id` is gone; never bytes of
     *         another one
     */
    apr_status_t (*read)(void *store, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_id_t *id,
                         apr_off_t offset, apr_size_t limit,
                         apr_bucket_brigade *body);

    /**
     * @name Streaming: set in pieces. All four or none.
     * Nothing is readable before set_commit. After APR_SUCCESS of set_begin
     * exactly one of set_commit and set_abort follows, perhaps on another
     * thread, with one exception: a process that dies calls neither, and what
     * it had begun must not stay for good. call->pool of set_begin lives until
     * then; other calls bring pools of their own. @{
     */
    /**
     * @param entry id, head, expires; body_len is the announced length or -1;
     *        body is NULL. key and head are valid during this call only.
     */
    apr_status_t (*set_begin)(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry, void **set);
    /** Append a piece. After an error only set_abort is called. */
    apr_status_t (*set_write)(void *store, const cachemw_call_t *call,
                              void *set, const char *data, apr_size_t length);
    /**
     * Publish. Whatever it returns, `set` is gone. An announced body_len that
     * differs from what was written is trouble, and nothing is published.
     */
    apr_status_t (*set_commit)(void *store, const cachemw_call_t *call,
                               void *set);
    /** Drop it without a trace. `set` is gone. May run in a pool cleanup: it
     *  must not wait for anything. */
    void (*set_abort)(void *store, void *set);
    /** @} */

    /** Whether get would find an entry: APR_SUCCESS or APR_NOTFOUND. */
    apr_status_t (*exists)(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key);

    /** Remove every entry. At the deadline what is gone is gone, and APR_TIMEUP
     *  says that it is not all. */
    apr_status_t (*clear)(void *store, const cachemw_call_t *call);

    /**
     * Call `each` for the entries, with no lock held: it may call other slots
     * of this store, such as get and remove. Weakly consistent: what is set or
     * removed meanwhile may be seen or not, everything else is seen once.
     * Expired entries are left out. The memory that it takes does not grow with
     * the bodies. At the deadline APR_TIMEUP says that these were not all.
     * @param pattern shell glob over the key's bytes (* ? [a-z] [!x] and
     *        backslash; * matches anything); a provider may use it to do
     *        less, core filters again. NULL: all
     */
    apr_status_t (*keys)(void *store, const cachemw_call_t *call,
                         const char *pattern, cachemw_keys_fn *each,
                         void *baton);

    /**
     * One bounded step of housekeeping: drop expired entries and what dead
     * processes left. Returns by call->deadline: 10 ms at most, 1 s for a
     * CACHEMW_REMOTE provider, which resolves its names here and may take
     * longer for that alone. Only in the process that sweeps, of which there
     * are two for a moment at a graceful restart. What is not to be had now,
     * such as a lock, waits for the next one, without `more`.
     * @param more set to non-zero when there is more to do at once
     */
    apr_status_t (*sweep)(void *store, const cachemw_call_t *call, int *more);

    /** Fill in what is known. For a page that an administrator looks at, also
     *  while the breaker is open. */
    apr_status_t (*stats)(void *store, const cachemw_call_t *call,
                          cachemw_stats_t *stats);

    /**
     * The largest body that this store can ever take, in bytes: a larger
     * max_object_size is refused at start-up. Parent, right after open().
     */
    apr_off_t (*object_limit)(void *store);

    /**
     * @name Locks: one fetch for all servers that share the store. Both or
     * none, and only where other servers than this one may share it.
     * A lock is no entry: names of both never meet, and neither keys, clear nor
     * stats know of it. Nothing ever depends on one: where it is lost, or two
     * have it, a page is fetched twice. A backend that has room for entries
     * only does without. @{
     */
    /**
     * Take a lock, in one step for all servers, or extend it: who has the same
     * token has the lock already. It ends by itself, whatever becomes of who
     * took it.
     * @param key of the lock: any bytes, as short as one likes
     * @param token of the taker: the same for all processes of a server
     * @param ttl microseconds from now until it ends, at least 1; what is not
     *        a whole unit of the backend's is rounded up
     * @param holder set with APR_EBUSY: the token of who has it
     * @return APR_SUCCESS: the taker's; APR_EBUSY: another one's, at once,
     *         never waited for; trouble: it may be the taker's until it ends
     */
    apr_status_t (*lock)(void *store, const cachemw_call_t *call,
                         const cachemw_key_t *key, const cachemw_id_t *token,
                         apr_interval_time_t ttl, cachemw_id_t *holder);
    /**
     * Let go of a lock, in one step, if it is the token's.
     * @return APR_SUCCESS; APR_NOTFOUND: it is not, or has ended
     */
    apr_status_t (*unlock)(void *store, const cachemw_call_t *call,
                           const cachemw_key_t *key, const cachemw_id_t *token);
    /** @} */

    /**
     * @name For servers that share a backend: both or neither. @{
     *
     * From now on every change that is made through this store (set,
     * set_commit, set_head, remove, clear) tells all who watch the same place
     * of the backend. A change and the telling of it are one step: a process
     * that dies leaves both or none. A remove is told also when there was
     * nothing to remove; one of an id only when it was that. Of expiry and
     * eviction nothing is told. Parent, after post_config() and before the
     * first child; more than once is as good as once.
     */
    apr_status_t (*publish)(void *store);

    /**
     * Listen for changes until call->deadline, a fraction of a second; only
     * connecting may take longer. In the process that sweeps, again and again;
     * what the provider needs for it ends with the child's pool, whose clean-up
     * comes when no call is under way. The breaker has no say in it, and
     * CACHEMW_SERIALIZE does not cover it.
     * @param baton also tells listeners apart, of which a store may have
     *        several: each calls from one thread, and is told everything
     * @return APR_SUCCESS: `each` was called for all changes from the last
     *         APR_EINCOMPLETE up to the beginning of this call, or where those
     *         right before it returned APR_TIMEUP, of the first of these; and
     *         for some later ones. This takes an answer of the backend: what
     *         cannot be proved is not APR_SUCCESS.
     *         APR_EINCOMPLETE: listening has begun, perhaps again. What was
     *         changed before may have been missed.
     *         APR_TIMEUP: it goes on, but the backend has not answered yet.
     *         Trouble: it does not listen. The next call begins anew, with an
     *         APR_EINCOMPLETE
     */
    apr_status_t (*watch)(void *store, const cachemw_call_t *call,
                          cachemw_watch_fn *each, void *baton);
    /** @} */

    /**
     * Have the latest entries withstand a power loss, or, of a CACHEMW_REMOTE
     * provider, find out who shares the backend. Now and then, in the process
     * that sweeps: it may wait for the disk, and the sweeps of all stores wait
     * with it. No request does, and the end of the server neither.
     */
    apr_status_t (*sync)(void *store, const cachemw_call_t *call);

    /** µs between two of these; 0: 30 s. */
    apr_interval_time_t sync_interval;
};

#ifdef __cplusplus
}
#endif

#endif /* MOD_CACHEMW_H */
