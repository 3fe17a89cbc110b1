/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file ctl.h
 * @brief What a command of cachemwctl gets from its command line, and what it
 *        ends with.
 */
#ifndef MW_CTL_H
#define MW_CTL_H

#include <stdio.h>

#include "apr_tables.h"

#include "world.h"

/** Exit statuses, beside that of mw_interrupted(); the manual has them, too. */
typedef enum mw_ctl_exit_e {
    MW_CTL_OK = 0,
    MW_CTL_NO = 1,      /**< a test failed, nothing found, something damaged */
    MW_CTL_USAGE = 2,   /**< the command line is wrong */
    MW_CTL_UNABLE = 3,  /**< this kind of store cannot do that */
    MW_CTL_TROUBLE = 4, /**< the store cannot be opened, read or reached */
} mw_ctl_exit_e;

/** Commands as bits, for the options that they have. */
#define MW_CTL_CHECK 0x001u
#define MW_CTL_BENCH 0x002u
#define MW_CTL_GET 0x004u
#define MW_CTL_LS 0x008u
#define MW_CTL_STAT 0x010u
#define MW_CTL_RM 0x020u
#define MW_CTL_CLEAR 0x040u
#define MW_CTL_SWEEP 0x080u
#define MW_CTL_VERIFY 0x100u
/** Those that look at what a server left, or is using. */
#define MW_CTL_STORED                                                \
    (MW_CTL_GET | MW_CTL_LS | MW_CTL_STAT | MW_CTL_RM | MW_CTL_CLEAR \
     | MW_CTL_SWEEP | MW_CTL_VERIFY)
#define MW_CTL_ALL (MW_CTL_STORED | MW_CTL_CHECK | MW_CTL_BENCH)

/** A command line. Lists are never NULL. */
typedef struct mw_ctl_t {
    apr_pool_t *pool;
    unsigned int command;         /**< its bit */
    apr_array_header_t *helpers;  /**< of mw_ctl_store_t: --store */
    apr_array_header_t *subjects; /**< of mw_ctl_store_t; several by --vs */
    apr_array_header_t *words;    /**< of const char *: what else there is */

    /** @name Options, as given or their fallbacks: see args.c @{ */
    const char *modules;
    const char *cache_dir;
    const char *host;
    const char *match;
    const char *operations;
    const char *user;
    apr_array_header_t *loads; /**< of const char *, as the next two */
    apr_array_header_t *tests;
    apr_array_header_t *headers;
    apr_array_header_t *sizes; /**< likewise: sizes as texts */
    apr_int64_t keys;
    apr_int64_t threads;
    apr_int64_t processes;
    apr_int64_t repeat;
    apr_int64_t seconds; /**< 0: not given */
    double zipf;         /**< 0: all keys alike */
    apr_interval_time_t timeout;
    apr_interval_time_t warmup;
    int all;
    int core;
    int force;
    int help;
    int include;
    int json;
    int list;
    int no_color;
    int remove;
    int verbose;
    int version;
    int wide;
    int yes;
    /** @} */
} mw_ctl_t;

/** @name The command line: args.c @{ */

/**
 * Read options, stores and other words, and load what --load names.
 * @param command bit of the command, known before
 * @param words what follows its name
 * @return NULL, or what is wrong
 */
const char *mw_ctl_parse(mw_ctl_t *ctl, unsigned int command, int nwords,
                         const char *const *words);

/** Find the providers of all stores, in httpd's modules if need be.
 *  @return NULL, or what is wrong */
const char *mw_ctl_load(mw_ctl_t *ctl);

/** The options of a command, a line each. */
void mw_ctl_print_options(unsigned int command, FILE *to);

/** The stores for a subject: the helpers, then itself. */
apr_array_header_t *mw_ctl_stores(const mw_ctl_t *ctl, int subject);

/** @} */

/** @name Output: output.c @{ */

/** Say on stderr what is wrong. @return status */
int mw_ctl_error(int status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Why stdout cannot be written to any more, as errno; 0: it can. To be asked
 *  right after writing. */
int mw_ctl_output_broken(void);

/** Print log lines of stores: errors and warnings, or all. baton: mw_ctl_t. */
void mw_ctl_log(void *baton, cachemw_level_e level, apr_status_t rv,
                const char *text);

typedef enum mw_ctl_color_e {
    MW_CTL_PLAIN,
    MW_CTL_BOLD,
    MW_CTL_RED,
    MW_CTL_GREEN
} mw_ctl_color_e;

/** What begins a colour; empty where `to` is no terminal or none is wanted. */
const char *mw_ctl_color(const mw_ctl_t *ctl, FILE *to, mw_ctl_color_e color);

/** Whether progress is shown: stderr is a terminal. */
int mw_ctl_has_progress(void);
/** Replace the line of progress on stderr; an empty text takes it away. */
void mw_ctl_progress(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/** As a JSON string with its quotes. Bytes that are not UTF-8 become U+0080 to
 *  U+00FF. */
void mw_ctl_json(FILE *to, const char *text, apr_size_t length);
/** Bytes that somebody else has chosen: what is not printable becomes %XX, so
 *  that no terminal takes it for a command. */
void mw_ctl_text(FILE *to, const char *text, apr_size_t length);

/** "2026-11-23 09:10:11", local; "-" for 0. */
const char *mw_ctl_time(apr_time_t time, apr_pool_t *pool);
/** "12.3K". */
const char *mw_ctl_size(apr_int64_t bytes, apr_pool_t *pool);

/** @} */

/** @name Commands: each returns the exit status @{ */
int mw_ctl_check(mw_ctl_t *ctl);
int mw_ctl_bench(mw_ctl_t *ctl);
int mw_ctl_get(mw_ctl_t *ctl);
int mw_ctl_ls(mw_ctl_t *ctl);
int mw_ctl_stat(mw_ctl_t *ctl);
int mw_ctl_rm(mw_ctl_t *ctl);
int mw_ctl_clear(mw_ctl_t *ctl);
int mw_ctl_sweep(mw_ctl_t *ctl);
int mw_ctl_verify(mw_ctl_t *ctl);
/** @} */

#endif
