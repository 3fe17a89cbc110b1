/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file glob.h
 * @brief The shell patterns of cachemw_provider_t.keys, over arbitrary bytes.
 */
#ifndef MW_GLOB_H
#define MW_GLOB_H

#include "apr.h"

/**
 * Whether the whole of `data` matches.
 *
 *     *      any bytes, also none, also '/' and NUL
 *     ?      any one byte
 *     [a-z]  one byte of a class; ! or ^ first turns it round; a ] that comes
 *            first belongs to it; an unclosed [ stands for itself
 *     \x     x itself, also within a class
 *
 * Iterative, in constant memory: a pattern of many stars costs no more than
 * each of them tried at each byte.
 */
int mw_glob_matches(const char *pattern, const char *data, apr_size_t length);

#endif
