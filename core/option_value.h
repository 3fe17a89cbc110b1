/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file option_value.h
 * @brief The text of one option becomes a checked value; part of options.h.
 */
#ifndef MW_OPTION_VALUE_H
#define MW_OPTION_VALUE_H

#include "mod_cachemw.h"

/**
 * Parse and check one value.
 * @param option a row that is not an alias
 * @param value is_null and the members of its type are set, and string; the
 *        rest is left alone
 * @param pool where value and message live
 * @return NULL, or the message "option 'name': 'text' is not …; … is accepted"
 */
const char *mw_value_parse(const cachemw_option_t *option, const char *text,
                           const char *cache_dir, cachemw_value_t *value,
                           apr_pool_t *pool);

/** What the range or the words of an option are, for people; "" for none. */
const char *mw_value_range(const cachemw_option_t *option, apr_pool_t *pool);

#endif
