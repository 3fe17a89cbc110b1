/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file options.h
 * @brief Typed option tables: words of a directive become checked values.
 */
#ifndef MW_OPTIONS_H
#define MW_OPTIONS_H

#include "mod_cachemw.h"

/** A table and the values parsed for it (one per row, same order). */
typedef struct mw_options_t {
    const cachemw_option_t *table; /**< NULL: no options */
    cachemw_value_t *values;       /**< set by mw_options_parse() */
} mw_options_t;

/**
 * Parse `name=value` words against several tables at once (the provider's and
 * the ones that core adds to each store); the first table that knows a name
 * gets it.
 * @param sets tables in; values out, allocated in pool
 * @param words not changed; results may point into them
 * @param cache_dir relative CACHEMW_PATH, CACHEMW_FILE and CACHEMW_SECRET_FILE
 *        values are below it
 * @param pool where values live; errors too
 * @return NULL, or what is wrong: option, value and what is accepted, without
 *         a trailing full stop. Unknown names list the known ones; a name
 *         given twice (also by its alias) is an error; a word without '=' is
 *         an error. Files of CACHEMW_SECRET_FILE are read here (regular, at
 *         most 64 KB, not empty, no NUL; a newline at the end, LF or CR LF, is
 *         dropped); their content and CACHEMW_SECRET values are never part of
 *         a message.
 *
 * A size or duration that is not required and has no fallback (or the fallback
 * "off") takes "off" too: is_set is 1 and is_null is 1. Besides the member of
 * its type each value has the text in `string`. The row of an alias gets a
 * copy of the value of the option that it names.
 */
const char *mw_options_parse(mw_options_t *sets, int nsets,
                             const char *const *words, int nwords,
                             const char *cache_dir, apr_pool_t *pool);

/** Name of a type as the reference shows it: "size", "duration", … */
const char *mw_option_type_name(cachemw_type_e type);

/**
 * The reference of a table as text, a line per option: name, type, default,
 * range, help, separated by tabs; "-" where there is none. The type of an
 * alias is "alias", the default of what must be given "required".
 */
const char *mw_options_reference(const cachemw_option_t *table,
                                 apr_pool_t *pool);

#endif
