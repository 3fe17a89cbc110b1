/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file layout.h
 * @brief What a compiled provider knows of mod_cachemw.h, as a table: once of
 *        the present header, once of the frozen one.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <stddef.h>

typedef struct layout_row_t {
    const char *name; /**< of a type, "type.member", or of a value */
    size_t offset;    /**< of a member */
    size_t size;      /**< of a type or member */
    long long value;
    const char *text; /**< of a macro that is text */
    int grows;        /**< a type that says its own size */
} layout_row_t;

extern const layout_row_t layout_present[], layout_frozen[];

/** Rows of each table. */
extern const int layout_present_count, layout_frozen_count;

#endif
