/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file words.h
 * @brief The arguments of a directive as words.
 */
#ifndef MW_WORDS_H
#define MW_WORDS_H

#include "apr_tables.h"

/**
 * Split at blanks. Single or double quotes around a word, or around the value
 * behind a word's first '=', keep blanks within it; inside of them a backslash
 * keeps a quote or a backslash from its meaning.
 * @return of const char *, in pool; NULL when a quote is not closed
 */
apr_array_header_t *mw_words_split(const char *args, apr_pool_t *pool);

#endif
