/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_lib.h"
#include "apr_strings.h"

#include "core/option_types.h"
#include "core/option_value.h"
#include "core/options.h"

/** Longer names have no closest one. */
#define NAME_MAX_COMPARED 32

/** A place in one of several tables. */
typedef struct place_t {
    const mw_options_t *set;
    int row;
} place_t;

static int row_is_secret(const cachemw_option_t *option)
{
    const mw_option_type_t *type = mw_option_type_of(option->type);

    return type && type->is_secret;
}

static int table_find(const cachemw_option_t *table, const char *name,
                      apr_size_t length)
{
    int i;

    for (i = 0; table && table[i].name; i++) {
        if (!strncmp(table[i].name, name, length) && !table[i].name[length]) {
            return i;
        }
    }
    return -1;
}

/** The row itself, or the one that it is another name of; -1: none */
static int table_resolve(const cachemw_option_t *table, int row)
{
    const char *alias = row < 0 ? NULL : table[row].alias;

    if (!alias) {
        return row;
    }
    row = table_find(table, alias, strlen(alias));
    return row >= 0 && !table[row].alias ? row : -1;
}

static int table_size(const cachemw_option_t *table)
{
    int n = 0;

    while (table && table[n].name) {
        n++;
    }
    return n;
}

static int place_find(place_t *place, const mw_options_t *sets, int nsets,
                      const char *name, apr_size_t length)
{
    int i;

    for (i = 0; i < nsets; i++) {
        place->set = &sets[i];
        place->row = table_find(sets[i].table, name, length);
        if (place->row >= 0) {
            return 1;
        }
    }
    return 0;
}

/* Levenshtein's distance, in one row of the matrix, letters of either case
 * being equal. */
static int name_distance(const char *a, apr_size_t a_len, const char *b)
{
    const apr_size_t b_len = strlen(b);
    int row[NAME_MAX_COMPARED + 1];
    apr_size_t i;
    apr_size_t j;

    if (a_len > NAME_MAX_COMPARED || b_len > NAME_MAX_COMPARED) {
        return NAME_MAX_COMPARED;
    }
    for (j = 0; j <= b_len; j++) {
        row[j] = (int)j;
    }
    for (i = 1; i <= a_len; i++) {
        int diagonal = row[0];

        row[0] = (int)i;
        for (j = 1; j <= b_len; j++) {
            const int above = row[j];
            int best =
                diagonal + (apr_tolower(a[i - 1]) != apr_tolower(b[j - 1]));

            if (above + 1 < best) {
                best = above + 1;
            }
            if (row[j - 1] + 1 < best) {
                best = row[j - 1] + 1;
            }
            row[j] = best;
            diagonal = above;
        }
    }
    return row[b_len];
}

static const char *unknown_message(const mw_options_t *sets, int nsets,
                                   const char *name, apr_size_t length,
                                   apr_pool_t *pool)
{
    const char *known = "";
    const char *closest = NULL;
    int best = length < 5 ? 1 : ((int)length + 1) / 3;
    int i;
    int row;

    for (i = 0; i < nsets; i++) {
        for (row = 0; row < table_size(sets[i].table); row++) {
            const char *candidate = sets[i].table[row].name;
            const int distance = name_distance(name, length, candidate);
            place_t place;

            if (place_find(&place, sets, i, candidate, strlen(candidate))) {
                continue; /* hidden by an earlier table */
            }
            known =
                apr_pstrcat(pool, known, *known ? ", " : "", candidate, NULL);
            if (distance <= best) {
                best = distance - 1;
                closest = candidate;
            }
        }
    }
    if (!*known) {
        known = "none";
    }
    return apr_psprintf(pool, "option '%.*s' is unknown; %s%s%sknown are %s",
                        (int)length, name, closest ? "did you mean '" : "",
                        closest ? closest : "", closest ? "'? " : "", known);
}

/* The second half of a secret with a space in it must not be shown: a word
 * that cannot be used is named by its number when there are secrets. */
static const char *word_show(const mw_options_t *sets, int nsets,
                             const char *const *words, int i, apr_pool_t *pool)
{
    int set;
    int row;

    for (set = 0; set < nsets; set++) {
        for (row = 0; row < table_size(sets[set].table); row++) {
            if (row_is_secret(&sets[set].table[row])) {
                return apr_psprintf(pool, "word %d", i + 1);
            }
        }
    }
    return apr_psprintf(pool, "'%s'", words[i]);
}

/** Whether the word before this one gave a secret. */
static int word_follows_secret(const mw_options_t *sets, int nsets,
                               const char *const *words, int i)
{
    const char *equals = i > 0 ? strchr(words[i - 1], '=') : NULL;
    place_t place;

    if (!equals
        || !place_find(&place, sets, nsets, words[i - 1],
                       equals - words[i - 1])) {
        return 0;
    }
    place.row = table_resolve(place.set->table, place.row);
    return place.row >= 0 && row_is_secret(&place.set->table[place.row]);
}

/** The name by which an earlier word gave the same option; NULL: none did. */
static const char *word_find_earlier(const mw_options_t *sets, int nsets,
                                     const char *const *words, int i,
                                     const place_t *wanted)
{
    const char *equals;
    place_t place;

    while (i-- > 0) {
        equals = strchr(words[i], '=');
        if (equals
            && place_find(&place, sets, nsets, words[i], equals - words[i])
            && place.set == wanted->set
            && table_resolve(place.set->table, place.row) == wanted->row) {
            return place.set->table[place.row].name;
        }
    }
    return NULL;
}

static const char *name_message(const mw_options_t *sets, int nsets,
                                const char *const *words, int i,
                                apr_pool_t *pool)
{
    const char *equals = strchr(words[i], '=');

    if (!equals || equals == words[i]) {
        return apr_psprintf(pool, "%s is not of the form name=value",
                            word_show(sets, nsets, words, i, pool));
    }
    if (word_follows_secret(sets, nsets, words, i)) {
        return apr_psprintf(pool,
                            "word %d, behind a secret, is not an option; a "
                            "value with a space in it needs quotes",
                            i + 1);
    }
    return unknown_message(sets, nsets, words[i], equals - words[i], pool);
}

static const char *word_parse(mw_options_t *sets, int nsets,
                              const char *const *words, int i,
                              const char *cache_dir, apr_pool_t *pool)
{
    const char *equals = strchr(words[i], '=');
    const cachemw_option_t *given;
    const char *earlier;
    cachemw_value_t *value;
    place_t place;

    if (!equals
        || !place_find(&place, sets, nsets, words[i], equals - words[i])) {
        return name_message(sets, nsets, words, i, pool);
    }
    given = &place.set->table[place.row];
    place.row = table_resolve(place.set->table, place.row);
    if (place.row < 0) {
        return apr_psprintf(pool,
                            "option '%s' is another name of '%s', which is "
                            "not in the provider's table",
                            given->name, given->alias);
    }
    earlier = word_find_earlier(sets, nsets, words, i, &place);
    if (earlier) {
        return apr_psprintf(pool, "option '%s' is given twice%s%s%s",
                            given->name,
                            strcmp(earlier, given->name) ? ", first as '" : "",
                            strcmp(earlier, given->name) ? earlier : "",
                            strcmp(earlier, given->name) ? "'" : "");
    }
    value = &place.set->values[place.row];
    value->is_set = 1;
    return mw_value_parse(&place.set->table[place.row], equals + 1, cache_dir,
                          value, pool);
}

static const char *fallback_apply(const cachemw_option_t *option,
                                  const char *cache_dir, cachemw_value_t *value,
                                  apr_pool_t *pool)
{
    const char *error;

    if (option->required) {
        return apr_psprintf(pool, "option '%s' must be given (%s)",
                            option->name, mw_option_type_name(option->type));
    }
    value->is_null = !option->fallback;
    if (!option->fallback) {
        return NULL;
    }
    error = mw_value_parse(option, option->fallback, cache_dir, value, pool);
    return error ? apr_pstrcat(pool, "the default of ", error, NULL) : NULL;
}

static const char *set_complete(mw_options_t *set, const char *cache_dir,
                                apr_pool_t *pool)
{
    const cachemw_option_t *table = set->table;
    const int n = table_size(table);
    const char *error;
    int i;

    for (i = 0; i < n; i++) {
        if (!table[i].alias && !set->values[i].is_set) {
            error = fallback_apply(&table[i], cache_dir, &set->values[i], pool);
            if (error) {
                return error;
            }
        }
    }
    for (i = 0; i < n; i++) {
        const int row = table_resolve(table, i);

        if (row < 0) {
            set->values[i].is_null = 1;
        }
        else {
            set->values[i] = set->values[row];
        }
    }
    return NULL;
}

const char *mw_options_parse(mw_options_t *sets, int nsets,
                             const char *const *words, int nwords,
                             const char *cache_dir, apr_pool_t *pool)
{
    const char *error = NULL;
    int i;

    for (i = 0; i < nsets; i++) {
        sets[i].values = apr_pcalloc(pool, (table_size(sets[i].table) + 1)
                                               * sizeof(*sets[i].values));
    }
    for (i = 0; i < nwords && !error; i++) {
        error = word_parse(sets, nsets, words, i, cache_dir, pool);
    }
    for (i = 0; i < nsets && !error; i++) {
        error = set_complete(&sets[i], cache_dir, pool);
    }
    return error;
}

static const char *reference_line(const cachemw_option_t *option,
                                  apr_pool_t *pool)
{
    const char *range;
    const char *fallback = option->fallback ? option->fallback : "-";

    if (option->alias) {
        return apr_psprintf(pool, "%s\talias\t-\t-\tanother name of %s\n",
                            option->name, option->alias);
    }
    range = mw_value_range(option, pool);
    return apr_psprintf(pool, "%s\t%s\t%s\t%s\t%s\n", option->name,
                        mw_option_type_name(option->type),
                        option->required ? "required" : fallback,
                        *range ? range : "-",
                        option->help ? option->help : "-");
}

const char *mw_options_reference(const cachemw_option_t *table,
                                 apr_pool_t *pool)
{
    const char *text = "";
    int i;

    for (i = 0; i < table_size(table); i++) {
        text = apr_pstrcat(pool, text, reference_line(&table[i], pool), NULL);
    }
    return text;
}
