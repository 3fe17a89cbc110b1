/* SPDX-License-Identifier: Apache-2.0 */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "faults.h"

#define FILE_MAX 16384
#define COUNTS 4096
#define COUNTS_TRIED 16

/* A line of one version of the file has one place, found by its hash. Lines of
 * old versions stay until the table is full; then the last one tried is taken
 * over. */
struct fault_counts_t {
    struct {
        apr_uint64_t line;
        apr_uint32_t calls;
        apr_uint32_t unused;
    } at[COUNTS];
};

typedef struct rule_t {
    fault_t fault;
    apr_uint32_t after;
    apr_uint32_t count; /* 0: for ever */
} rule_t;

static const struct {
    const char *name;
    apr_status_t status;
} statuses[] = { { "EIO", EIO },
                 { "ECONNREFUSED", ECONNREFUSED },
                 { "ECONNRESET", ECONNRESET },
                 { "EPIPE", EPIPE },
                 { "EACCES", EACCES },
                 { "ENOMEM", ENOMEM },
                 { "EROFS", EROFS },
                 { "EBUSY", EBUSY },
                 { "EMFILE", EMFILE },
                 { "ETIMEDOUT", ETIMEDOUT },
                 { "EINCOMPLETE", APR_EINCOMPLETE },
                 { "ENOTIMPL", APR_ENOTIMPL },
                 { "EGENERAL", APR_EGENERAL },
                 { "EOF", APR_EOF },
                 { "EAGAIN", APR_EAGAIN },
                 { NULL, 0 } };

static const char *const slots[] = {
    "open",      "post_config", "child_init", "get",      "read",   "set",
    "set_begin", "set_write",   "set_commit", "set_head", "remove", "exists",
    "clear",     "keys",        "sweep",      "stats",    NULL
};

apr_size_t fault_counts_size(void)
{
    return sizeof(fault_counts_t);
}

static apr_uint64_t hash_add(apr_uint64_t hash, const void *data,
                             apr_size_t length)
{
    const unsigned char *p = data;

    while (length-- > 0) {
        hash = (hash ^ *p++) * APR_UINT64_C(1099511628211);
    }
    return hash;
}

/* How often the line was asked for before. */
static apr_uint32_t counts_next(fault_counts_t *counts, apr_uint64_t line)
{
    apr_size_t i, at = 0;

    line |= 1;
    for (i = 0; i < COUNTS_TRIED; i++) {
        apr_uint64_t found = 0;

        at = (line + i) % COUNTS;
        if (__atomic_compare_exchange_n(&counts->at[at].line, &found, line, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)
            || found == line) {
            return __atomic_fetch_add(&counts->at[at].calls, 1,
                                      __ATOMIC_SEQ_CST);
        }
    }
    __atomic_store_n(&counts->at[at].line, line, __ATOMIC_SEQ_CST);
    __atomic_store_n(&counts->at[at].calls, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int word_in(const char *const *words, const char *word)
{
    for (; *words; words++) {
        if (strcmp(*words, word) == 0) {
            return 1;
        }
    }
    return 0;
}

/* "12" behind "name=" or alone; 0 when it is not a number. */
static int number_parse(const char *text, apr_int64_t *number)
{
    char *end;

    if (!text || !apr_isdigit(*text)) {
        return 0;
    }
    *number = apr_strtoi64(text, &end, 10);
    return *end == '\0';
}

static int status_parse(const char *name, apr_status_t *status)
{
    int i;

    for (i = 0; statuses[i].name; i++) {
        if (strcmp(statuses[i].name, name) == 0) {
            *status = statuses[i].status;
            return 1;
        }
    }
    return 0;
}

/* "error", "delay=20": name and what is behind the '='. */
static const char *fault_parse(char *word, fault_t *fault)
{
    char *value = strchr(word, '=');
    apr_int64_t ms;

    if (value) {
        *value++ = '\0';
    }
    fault->wait = -1;
    fault->what[0] = '\0';
    if (strcmp(word, "error") == 0) {
        fault->kind = FAULT_ERROR;
        fault->status = EIO;
        return !value || status_parse(value, &fault->status)
                   ? NULL
                   : "unknown name of an error";
    }
    if (strcmp(word, "enospc") == 0 || strcmp(word, "notfound") == 0) {
        fault->kind = FAULT_ERROR;
        fault->status = *word == 'e' ? APR_ENOSPC : APR_NOTFOUND;
        return NULL;
    }
    if (strcmp(word, "delay") == 0 || strcmp(word, "late") == 0
        || strcmp(word, "timeout") == 0) {
        fault->kind = *word == 'd'   ? FAULT_DELAY
                      : *word == 'l' ? FAULT_LATE
                                     : FAULT_TIMEOUT;
        if (number_parse(value, &ms)) {
            fault->wait = ms * 1000;
            return NULL;
        }
        return fault->kind == FAULT_TIMEOUT && !value ? NULL
                                                      : "milliseconds wanted";
    }
    if (strcmp(word, "damaged") == 0) {
        fault->kind = FAULT_DAMAGED;
        return NULL;
    }
    if (strcmp(word, "truncated") == 0) {
        fault->kind = FAULT_TRUNCATED;
        return NULL;
    }
    fault->kind = FAULT_OTHERKEY;
    return strcmp(word, "otherkey") == 0 ? NULL : "unknown fault";
}

/* Where a fault makes sense at all. */
static const char *fault_check(const fault_t *fault, const char *slot)
{
    static const char *const whole[] = { "get",      "set",  "set_begin",
                                         "set_head", "read", NULL };
    static const char *const found[] = { "get", "read", NULL };
    int body = strcmp(fault->what, "body") == 0;
    int piece = strcmp(fault->what, "piece") == 0;

    switch (fault->kind) {
    case FAULT_DAMAGED:
        if (!word_in(whole, slot) || (body && !word_in(found, slot))) {
            return "this slot has no such bytes";
        }
        break;
    case FAULT_TRUNCATED:
        if (!word_in(found, slot)) {
            return "only get and read can be cut short";
        }
        if (piece) {
            return strcmp(slot, "get") == 0 ? NULL
                                            : "only get has a first piece";
        }
        break;
    case FAULT_OTHERKEY:
        return strcmp(slot, "get") == 0 ? NULL
                                        : "only get has another key's entry";
    default:
        return *fault->what ? "unknown word behind the fault" : NULL;
    }
    if (*fault->what && !body && strcmp(fault->what, "head") != 0) {
        return "head or body wanted";
    }
    return NULL;
}

/* One line, which is destroyed. */
static const char *rule_parse(char *line, const char **slot, rule_t *rule)
{
    char *state, *word;
    apr_int64_t number;
    const char *error;

    memset(rule, 0, sizeof(*rule));
    *slot = apr_strtok(line, " \t\r", &state);
    if (!*slot || **slot == '#') {
        *slot = NULL;
        return NULL;
    }
    if (!word_in(slots, *slot)) {
        return "unknown slot";
    }
    word = apr_strtok(NULL, " \t\r", &state);
    error = word ? fault_parse(word, &rule->fault) : "no fault";
    while (!error && (word = apr_strtok(NULL, " \t\r", &state)) != NULL) {
        int is_after = strncmp(word, "after=", 6) == 0;

        if (is_after || strncmp(word, "count=", 6) == 0) {
            if (!number_parse(word + 6, &number)) {
                return "a number wanted";
            }
            *(is_after ? &rule->after : &rule->count) = (apr_uint32_t)number;
        }
        else if (rule->fault.kind == FAULT_TIMEOUT
                 && number_parse(word, &number)) {
            rule->fault.wait = number * 1000;
        }
        else {
            apr_cpystrn(rule->fault.what, word, sizeof(rule->fault.what));
        }
    }
    return error ? error : fault_check(&rule->fault, *slot);
}

/* The file's text; 0 when there is none. `version` tells it from others. */
static apr_size_t file_read(const char *file, char *text, apr_uint64_t *version)
{
    struct stat info;
    ssize_t length = -1;
    int fd = open(file, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return 0;
    }
    if (fstat(fd, &info) == 0) {
        length = read(fd, text, FILE_MAX);
        *version = hash_add(APR_UINT64_C(14695981039346656037), &info.st_mtim,
                            sizeof(info.st_mtim));
        *version = hash_add(*version, &info.st_ino, sizeof(info.st_ino));
    }
    close(fd);
    return length > 0 ? (apr_size_t)length : 0;
}

static int rule_applies(const rule_t *rule, fault_counts_t *counts,
                        apr_uint64_t line)
{
    apr_uint32_t before;

    if (!counts) {
        return 1;
    }
    before = counts_next(counts, line);
    return before >= rule->after
           && (rule->count == 0 || before - rule->after < rule->count);
}

void fault_find(const cachemw_services_t *services, const char *file,
                fault_counts_t *counts, const char *slot, fault_t *fault)
{
    char text[FILE_MAX + 1];
    apr_uint64_t version = 0;
    apr_size_t length;
    char *line, *end;
    int number = 0;

    memset(fault, 0, sizeof(*fault));
    length = file ? file_read(file, text, &version) : 0;
    text[length] = '\0';
    for (line = text; line < text + length; line = end + 1) {
        const char *named, *error;
        rule_t rule;

        end = line + strcspn(line, "\n");
        *end = '\0';
        version = hash_add(version, &number, sizeof(number));
        number++;
        error = rule_parse(line, &named, &rule);
        if (error) {
            services->log(services, CACHEMW_LOG_WARNING, APR_EINVAL,
                          "%s: line %d: %s", file, number, error);
        }
        else if (named && strcmp(named, slot) == 0
                 && rule_applies(&rule, counts, version)
                 && fault->kind == FAULT_NONE) {
            *fault = rule.fault;
        }
    }
}
