/* SPDX-License-Identifier: Apache-2.0 */

#include <stddef.h>
#include <string.h>

#include "apr_file_io.h"
#include "apr_strings.h"

#include "core/option_value.h"
#include "ctl.h"
#include "loader.h"

typedef enum kind_e { KIND_VALUE, KIND_LIST, KIND_STORE, KIND_SUBJECT } kind_e;

/* An option of the command line; what it takes is like an option of a store. */
typedef struct switch_t {
    unsigned int commands;
    kind_e kind;
    apr_size_t offset;     /* in mw_ctl_t */
    const char *value;     /* how its value is called; NULL: it has none */
    cachemw_option_t type; /* with its name and help */
} switch_t;

#define AT(member) offsetof(mw_ctl_t, member)
#define FLAG(bits, member, word, text)                      \
    {                                                       \
        .commands = (bits), .offset = AT(member), .type = { \
            .name = (word),                                 \
            .type = CACHEMW_FLAG,                           \
            .help = text                                    \
        }                                                   \
    }
#define TEXT(bits, member, word, called, text)                                 \
    {                                                                          \
        .commands = (bits), .offset = AT(member), .value = (called), .type = { \
            .name = (word),                                                    \
            .type = CACHEMW_STRING,                                            \
            .help = text                                                       \
        }                                                                      \
    }
#define LIST(bits, member, word, called, text)                       \
    {                                                                \
        .commands = (bits), .kind = KIND_LIST, .offset = AT(member), \
        .value = (called), .type = {                                 \
            .name = (word),                                          \
            .type = CACHEMW_STRING,                                  \
            .help = text                                             \
        }                                                            \
    }
#define NUMBER(bits, member, word, called, kind_of, least, most, text)         \
    {                                                                          \
        .commands = (bits), .offset = AT(member), .value = (called), .type = { \
            .name = (word),                                                    \
            .type = (kind_of),                                                 \
            .minimum = (least),                                                \
            .maximum = (most),                                                 \
            .help = text                                                       \
        }                                                                      \
    }
#define STORE(bits, how, word, called, text)                            \
    {                                                                   \
        .commands = (bits), .kind = (how), .value = (called), .type = { \
            .name = (word),                                             \
            .type = CACHEMW_STRING,                                     \
            .help = text                                                \
        }                                                               \
    }

static const switch_t switches[] = {
    TEXT(MW_CTL_GET | MW_CTL_LS | MW_CTL_STAT | MW_CTL_RM, host, "host",
         "NAMESPACE", "of this virtual host, as ls shows it"),
    FLAG(MW_CTL_GET, include, "include",
         "print status and header fields first"),
    LIST(MW_CTL_GET, headers, "header", "'FIELD: VALUE'",
         "of the request, which choose one of several variants"),
    FLAG(MW_CTL_LS, wide, "long",
         "status, stored and fresh until, too: reads each entry's head"),
    FLAG(MW_CTL_LS, all, "all",
         "also the records that say by what a page varies"),
    TEXT(MW_CTL_RM, match, "match", "GLOB",
         "remove all whose URL matches: * ? [a-z] [!x] \\x"),
    FLAG(MW_CTL_CLEAR, yes, "yes", "do not ask"),
    FLAG(MW_CTL_VERIFY, remove, "remove", "remove what is damaged"),
    FLAG(MW_CTL_CHECK, core, "core",
         "call through mod_cachemw's core, not the table"),
    LIST(MW_CTL_CHECK, tests, "test", "GLOB",
         "run the tests whose names match, e.g. '*_expir*'"),
    FLAG(MW_CTL_CHECK, list, "list", "list the tests and stop"),
    NUMBER(MW_CTL_CHECK, repeat, "repeat", "N", CACHEMW_INTEGER, "1", "1000000",
           "run each test so often, or until it fails"),
    STORE(MW_CTL_BENCH, KIND_SUBJECT, "vs", "PROVIDER [option=value]...",
          "another store beside it; may be repeated"),
    TEXT(MW_CTL_BENCH, operations, "ops", "LIST",
         "of set, get, delete (default: set,get,delete)"),
    LIST(MW_CTL_BENCH, sizes, "size", "SIZE",
         "of bodies (default: 1K); may be repeated"),
    NUMBER(MW_CTL_BENCH, keys, "keys", "N", CACHEMW_INTEGER, "1", "100000000",
           "different keys (default: 10000)"),
    NUMBER(MW_CTL_BENCH, zipf, "zipf", "N", CACHEMW_REAL, "0", "5",
           "choose them after Zipf with this exponent (default: all alike)"),
    NUMBER(MW_CTL_BENCH, threads, "threads", "N", CACHEMW_INTEGER, "1", "256",
           "of each process (default: 1)"),
    NUMBER(MW_CTL_BENCH, processes, "processes", "N", CACHEMW_INTEGER, "1",
           "256", "(default: 1)"),
    NUMBER(MW_CTL_BENCH, warmup, "warmup", "DURATION", CACHEMW_DURATION, "0s",
           "1h", "before anything counts (default: 1s)"),
    NUMBER(MW_CTL_CHECK, seconds, "seconds", "N", CACHEMW_INTEGER, "1", "86400",
           "a test that takes longer hangs (default: 120)"),
    NUMBER(MW_CTL_BENCH, seconds, "seconds", "N", CACHEMW_INTEGER, "1", "86400",
           "of each measurement (default: 3)"),
    FLAG(MW_CTL_CHECK | MW_CTL_BENCH, force, "force",
         "also with a store that has entries, which are lost, or cannot tell"),
    FLAG(MW_CTL_BENCH | MW_CTL_LS | MW_CTL_STAT | MW_CTL_VERIFY, json, "json",
         "print JSON"),
    NUMBER(MW_CTL_STORED, timeout, "timeout", "DURATION", CACHEMW_DURATION,
           "1ms", "1d",
           "of each call to a store on another machine (default: 10s)"),
    TEXT(MW_CTL_STORED, user, "user", "NAME",
         "whom root becomes for such a store (default: the web server's)"),
    STORE(MW_CTL_ALL, KIND_STORE, "store", "NAME PROVIDER [option=value]...",
          "define another store, for a provider that wants one"),
    LIST(MW_CTL_ALL, loads, "load", "FILE.so",
         "load a module that registers providers"),
    TEXT(MW_CTL_ALL, modules, "modules", "DIR",
         "where mod_cachemw_PROVIDER.so is (default: " MW_MODULESDIR ")"),
    TEXT(MW_CTL_ALL, cache_dir, "cache-dir", "DIR",
         "what relative paths are below (default: " MW_CACHEDIR ")"),
    FLAG(MW_CTL_ALL, no_color, "no-color", "never use colours"),
    FLAG(MW_CTL_ALL, verbose, "verbose", "print all log lines of the stores"),
    FLAG(MW_CTL_ALL, help, "help", "print this"),
};

#define SWITCHES (sizeof(switches) / sizeof(*switches))

/* The command line, and how far it has been read. */
typedef struct reader_t {
    mw_ctl_t *ctl;
    const char *const *words;
    int nwords;
    int at;
} reader_t;

static const char *reader_next(reader_t *reader)
{
    return reader->at < reader->nwords ? reader->words[reader->at++] : NULL;
}

/* Whether it is option=value. A URL or a pattern hardly ever is. */
static int word_is_option(const char *word)
{
    apr_size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_");

    return n > 0 && word[n] == '=';
}

/* [option=value]... */
static void store_read(reader_t *reader, apr_array_header_t *to,
                       const char *name, const char *provider)
{
    mw_ctl_store_t *store = apr_array_push(to);

    store->name = name;
    store->provider = provider;
    store->words = &reader->words[reader->at];
    store->nwords = 0;
    while (reader->at < reader->nwords
           && word_is_option(reader->words[reader->at])) {
        store->nwords++;
        reader->at++;
    }
}

/* The first one is "store", as there is one mostly. */
static const char *subject_name(const mw_ctl_t *ctl)
{
    return ctl->subjects->nelts == 0
               ? "store"
               : apr_psprintf(ctl->pool, "store%d", ctl->subjects->nelts + 1);
}

static const switch_t *switch_find(unsigned int command, const char *name,
                                   apr_size_t length)
{
    apr_size_t i;

    for (i = 0; i < SWITCHES; i++) {
        if ((switches[i].commands & command)
            && strlen(switches[i].type.name) == length
            && !strncmp(switches[i].type.name, name, length)) {
            return &switches[i];
        }
    }
    return NULL;
}

static const char *switch_value(mw_ctl_t *ctl, const switch_t *found,
                                const char *text)
{
    char *to = (char *)ctl + found->offset;
    cachemw_value_t value;
    const char *error;

    memset(&value, 0, sizeof(value));
    error = mw_value_parse(&found->type, text, "/", &value, ctl->pool);
    if (error) {
        return error;
    }
    switch (found->type.type) {
    case CACHEMW_DURATION:
        *(apr_interval_time_t *)to = value.duration;
        break;
    case CACHEMW_REAL:
        *(double *)to = value.real;
        break;
    case CACHEMW_STRING:
        *(const char **)to = text;
        break;
    default:
        *(apr_int64_t *)to = value.number;
    }
    return NULL;
}

static const char *switch_store(reader_t *reader, const switch_t *found,
                                const char *first)
{
    mw_ctl_t *ctl = reader->ctl;
    const char *provider;

    if (found->kind == KIND_SUBJECT) {
        store_read(reader, ctl->subjects, subject_name(ctl), first);
        return NULL;
    }
    provider = reader_next(reader);
    if (!provider || *provider == '-' || word_is_option(provider)) {
        return apr_psprintf(ctl->pool, "--store %s: which provider?", first);
    }
    store_read(reader, ctl->helpers, first, provider);
    return NULL;
}

static const char *switch_read(reader_t *reader, const char *word)
{
    mw_ctl_t *ctl = reader->ctl;
    apr_size_t length = strcspn(word, "=");
    const switch_t *found = switch_find(ctl->command, word, length);
    const char *value = word[length] ? word + length + 1 : NULL;

    if (!found) {
        return apr_psprintf(ctl->pool, "there is no option --%s here",
                            apr_pstrmemdup(ctl->pool, word, length));
    }
    if (!found->value) {
        *(int *)((char *)ctl + found->offset) = 1;
        return value ? apr_psprintf(ctl->pool, "--%s takes no value",
                                    found->type.name)
                     : NULL;
    }
    if (!value) {
        value = reader_next(reader);
    }
    if (!value) {
        return apr_psprintf(ctl->pool, "--%s wants %s", found->type.name,
                            found->value);
    }
    if (found->kind == KIND_LIST) {
        APR_ARRAY_PUSH(*(apr_array_header_t **)((char *)ctl + found->offset),
                       const char *) = value;
        return NULL;
    }
    return found->kind == KIND_VALUE ? switch_value(ctl, found, value)
                                     : switch_store(reader, found, value);
}

static void ctl_begin(mw_ctl_t *ctl, unsigned int command)
{
    ctl->command = command;
    ctl->helpers = apr_array_make(ctl->pool, 4, sizeof(mw_ctl_store_t));
    ctl->subjects = apr_array_make(ctl->pool, 4, sizeof(mw_ctl_store_t));
    ctl->words = apr_array_make(ctl->pool, 4, sizeof(char *));
    ctl->loads = apr_array_make(ctl->pool, 4, sizeof(char *));
    ctl->tests = apr_array_make(ctl->pool, 4, sizeof(char *));
    ctl->headers = apr_array_make(ctl->pool, 4, sizeof(char *));
    ctl->sizes = apr_array_make(ctl->pool, 4, sizeof(char *));
    ctl->modules = MW_MODULESDIR;
    ctl->cache_dir = MW_CACHEDIR;
    ctl->operations = "set,get,delete";
    ctl->keys = 10000;
    ctl->threads = 1;
    ctl->processes = 1;
    ctl->repeat = 1;
    ctl->timeout = apr_time_from_sec(10);
    ctl->warmup = apr_time_from_sec(1);
}

/* Providers are promised absolute paths. */
static const char *cache_dir_complete(mw_ctl_t *ctl)
{
    char *path;

    if (apr_filepath_merge(&path, NULL, ctl->cache_dir, APR_FILEPATH_NATIVE,
                           ctl->pool)
        != APR_SUCCESS) {
        return apr_pstrcat(ctl->pool, "--cache-dir: \"", ctl->cache_dir,
                           "\" is not a path", NULL);
    }
    ctl->cache_dir = path;
    return NULL;
}

const char *mw_ctl_parse(mw_ctl_t *ctl, unsigned int command, int nwords,
                         const char *const *words)
{
    reader_t reader = { ctl, words, nwords, 0 };
    const char *error = NULL;
    int is_over = 0;
    const char *word;
    int i;

    ctl_begin(ctl, command);
    while (!error && (word = reader_next(&reader))) {
        if (!is_over && !strcmp(word, "--")) {
            is_over = 1;
        }
        else if (!is_over && !strncmp(word, "--", 2)) {
            error = switch_read(&reader, word + 2);
        }
        else if (!is_over && !strcmp(word, "-h")) {
            ctl->help = 1;
        }
        else if (!is_over && ctl->subjects->nelts == 0 && word[0] == '-') {
            error = apr_psprintf(ctl->pool, "there is no option %s here", word);
        }
        else if (!is_over && ctl->subjects->nelts == 0) {
            store_read(&reader, ctl->subjects, subject_name(ctl), word);
        }
        else if (!is_over && word_is_option(word)) {
            error = apr_psprintf(ctl->pool,
                                 "%s does not follow its provider, whose "
                                 "options come right behind it (and what is "
                                 "none, behind --)",
                                 word);
        }
        else {
            APR_ARRAY_PUSH(ctl->words, const char *) = word;
        }
    }
    for (i = 0; i < ctl->loads->nelts && !error; i++) {
        error = mw_loader_load(APR_ARRAY_IDX(ctl->loads, i, const char *),
                               ctl->pool);
    }
    return error ? error : cache_dir_complete(ctl);
}

/* One of the project's, or a stranger's that is called likewise. */
static const char *provider_load(const mw_ctl_t *ctl, const char *name)
{
    const char *file = apr_pstrcat(ctl->pool, ctl->modules, "/mod_cachemw_",
                                   name, ".so", NULL);
    apr_finfo_t info;

    if (mw_loader_find(name) || mw_loader_other_version(name)) {
        return NULL;
    }
    if (name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                          "abcdefghijklmnopqrstuvwxyz0123456789_-.")]) {
        return apr_psprintf(ctl->pool, "\"%s\" is no name of a provider", name);
    }
    if (apr_stat(&info, file, APR_FINFO_TYPE, ctl->pool) == APR_SUCCESS) {
        return mw_loader_load(file, ctl->pool);
    }
    return apr_psprintf(ctl->pool,
                        "there is no provider \"%s\"; there are: %s, and there "
                        "is no %s (--load FILE.so loads another module)",
                        name, mw_loader_names(ctl->pool), file);
}

const char *mw_ctl_load(mw_ctl_t *ctl)
{
    apr_array_header_t *stores =
        apr_array_append(ctl->pool, ctl->helpers, ctl->subjects);
    const char *error = NULL;
    int i;

    for (i = 0; i < stores->nelts && !error; i++) {
        error = provider_load(
            ctl, APR_ARRAY_IDX(stores, i, mw_ctl_store_t).provider);
    }
    return error;
}

apr_array_header_t *mw_ctl_stores(const mw_ctl_t *ctl, int subject)
{
    apr_array_header_t *stores = apr_array_copy(ctl->pool, ctl->helpers);

    APR_ARRAY_PUSH(stores, mw_ctl_store_t) =
        APR_ARRAY_IDX(ctl->subjects, subject, mw_ctl_store_t);
    return stores;
}

void mw_ctl_print_options(unsigned int command, FILE *to)
{
    apr_size_t i;

    for (i = 0; i < SWITCHES; i++) {
        const switch_t *one = &switches[i];

        if (one->commands & command) {
            int n =
                fprintf(to, "  --%s%s%s", one->type.name, one->value ? " " : "",
                        one->value ? one->value : "");

            fprintf(to, "%s%*s%s\n", n > 24 ? "\n" : "", n > 24 ? 26 : 26 - n,
                    "", one->type.help);
        }
    }
}
