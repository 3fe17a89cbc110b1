/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_lib.h"

#include "words.h"

/* What is between quotes, up to the closing one; NULL without it. */
static const char *word_quoted(const char *from, char quote, char **to)
{
    for (; *from && *from != quote; from++) {
        if (*from == '\\' && (from[1] == quote || from[1] == '\\')) {
            from++;
        }
        *(*to)++ = *from;
    }
    return *from ? from + 1 : NULL;
}

/* The word at `from`; where it ends in the text, or NULL. */
static const char *word_read(const char *from, char *to)
{
    int may_quote = 1;
    int has_value = 0;

    while (from && *from && !apr_isspace(*from)) {
        if (may_quote && (*from == '"' || *from == '\'')) {
            from = word_quoted(from + 1, *from, &to);
            may_quote = 0;
            continue;
        }
        may_quote = *from == '=' && !has_value;
        has_value |= may_quote;
        *to++ = *from++;
    }
    *to = '\0';
    return from;
}

apr_array_header_t *mw_words_split(const char *args, apr_pool_t *pool)
{
    apr_array_header_t *words = apr_array_make(pool, 8, sizeof(char *));
    char *word;

    while (apr_isspace(*args)) {
        args++;
    }
    while (*args) {
        word = apr_palloc(pool, strlen(args) + 1);
        args = word_read(args, word);
        if (!args) {
            return NULL;
        }
        APR_ARRAY_PUSH(words, const char *) = word;
        while (apr_isspace(*args)) {
            args++;
        }
    }
    return words;
}
