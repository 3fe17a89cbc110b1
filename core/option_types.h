/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file option_types.h
 * @brief The types that an option can have: how their texts are read. Part of
 *        options.h.
 */
#ifndef MW_OPTION_TYPES_H
#define MW_OPTION_TYPES_H

#include "mod_cachemw.h"

/** A suffix; the last of several has none: what a bare number counts. */
typedef struct mw_unit_t {
    const char *suffix;
    apr_int64_t factor;
} mw_unit_t;

/** What a parser gets beside the text. */
typedef struct mw_option_source_t {
    const cachemw_option_t *option;
    const char *cache_dir;
    apr_pool_t *pool;
} mw_option_source_t;

/**
 * Parse a text of a type; its range is not looked at.
 * @param value the member of the type is set, and `string` by types that change
 *        it
 * @return NULL, or what the text is: "is not a size"
 */
typedef const char *mw_option_parse_fn(const mw_option_source_t *source,
                                       const char *text,
                                       cachemw_value_t *value);

typedef struct mw_option_type_t {
    const char *name;       /**< in the reference */
    const char *accepted;   /**< "… is accepted"; NULL: the words */
    const mw_unit_t *units; /**< suffixes, smallest first; NULL: none */
    mw_option_parse_fn *parse;
    int is_ordered; /**< minimum and maximum count */
    int is_secret;  /**< its text is never shown */
} mw_option_type_t;

/** NULL: there is no such type. */
const mw_option_type_t *mw_option_type_of(cachemw_type_e type);

#endif
