/* SPDX-License-Identifier: Apache-2.0 */

#include "glob.h"

/* One member of a class, a backslash before it taken off. */
static const char *glob_member(const char *p, unsigned char *member)
{
    if (*p == '\\' && p[1] != '\0') {
        p++;
    }
    *member = (unsigned char)*p;
    return p + 1;
}

/* p is behind the '['. Behind the ']', or NULL when there is none. */
static const char *glob_class(const char *p, unsigned char c, int *matches)
{
    const char *first;
    unsigned char low, high;
    int inverted = (*p == '!' || *p == '^');

    p += inverted;
    *matches = inverted;
    for (first = p; *p != ']' || p == first;) {
        if (*p == '\0') {
            return NULL;
        }
        p = glob_member(p, &low);
        high = low;
        if (*p == '-' && p[1] != ']' && p[1] != '\0') {
            p = glob_member(p + 1, &high);
        }
        if (low <= c && c <= high) {
            *matches = !inverted;
        }
    }
    return p + 1;
}

/* One element of the pattern, not '*', against one byte: behind the element,
 * or NULL when it does not match. */
static const char *glob_step(const char *p, unsigned char c)
{
    const char *end;
    int matches;

    switch (*p) {
    case '\0':
        return NULL;
    case '?':
        return p + 1;
    case '[':
        end = glob_class(p + 1, c, &matches);
        if (end) {
            return matches ? end : NULL;
        }
        break;
    case '\\':
        if (p[1] != '\0') {
            p++;
        }
        break;
    default:
        break;
    }
    return (unsigned char)*p == c ? p + 1 : NULL;
}

int mw_glob_matches(const char *pattern, const char *data, apr_size_t length)
{
    const char *end = data + length;
    const char *star = NULL, *retry = NULL;

    /* Only the last star seen needs another try: whatever an earlier one
     * could swallow more, this one can. */
    while (data < end) {
        const char *next;

        if (*pattern == '*') {
            star = ++pattern;
            retry = data;
            continue;
        }
        next = glob_step(pattern, (unsigned char)*data);
        if (next) {
            pattern = next;
            data++;
        }
        else if (star) {
            pattern = star;
            data = ++retry;
        }
        else {
            return 0;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}
