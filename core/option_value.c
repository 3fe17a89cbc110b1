/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>
#include <strings.h>

#include "apr_strings.h"

#include "core/option_types.h"
#include "core/option_value.h"

/** "a, b or c" */
static const char *words_list(const char *const *words, apr_pool_t *pool)
{
    const char *list = "";
    int i;

    for (i = 0; words && words[i]; i++) {
        list = apr_pstrcat(pool, list,
                           i == 0         ? ""
                           : words[i + 1] ? ", "
                                          : " or ",
                           words[i], NULL);
    }
    return list;
}

const char *mw_value_range(const cachemw_option_t *option, apr_pool_t *pool)
{
    const mw_option_type_t *type = mw_option_type_of(option->type);

    if (option->type == CACHEMW_ENUM) {
        return words_list(option->words, pool);
    }
    if (!type || !type->is_ordered) {
        return "";
    }
    if (option->minimum && option->maximum) {
        return apr_pstrcat(pool, "from ", option->minimum, " to ",
                           option->maximum, NULL);
    }
    if (option->minimum) {
        return apr_pstrcat(pool, "of at least ", option->minimum, NULL);
    }
    return option->maximum
               ? apr_pstrcat(pool, "of at most ", option->maximum, NULL)
               : "";
}

/** Whether "off" leaves the option unset. */
static int option_has_off(const cachemw_option_t *option,
                          const mw_option_type_t *type)
{
    return type->units && !option->required
           && (!option->fallback || !strcasecmp(option->fallback, "off"));
}

static int value_compare(cachemw_type_e type, const cachemw_value_t *a,
                         const cachemw_value_t *b)
{
    switch (type) {
    case CACHEMW_DURATION:
        return (a->duration > b->duration) - (a->duration < b->duration);
    case CACHEMW_REAL:
        return (a->real > b->real) - (a->real < b->real);
    default:
        return (a->number > b->number) - (a->number < b->number);
    }
}

/** @return NULL, or "is too small", "is too large"; a bound that is not of
 *  the type is a mistake of the table and said so */
static const char *bounds_check(const mw_option_source_t *source,
                                const mw_option_type_t *type,
                                const cachemw_value_t *value)
{
    const cachemw_option_t *option = source->option;
    const char *const bounds[] = { option->minimum, option->maximum };
    static const char *const reasons[] = { "is too small", "is too large" };
    cachemw_value_t bound;
    int i;

    for (i = 0; i < 2; i++) {
        if (!bounds[i]) {
            continue;
        }
        if (type->parse(source, bounds[i], &bound)) {
            return apr_psprintf(source->pool,
                                "cannot be checked: the bound '%s' in the "
                                "provider's table is wrong",
                                bounds[i]);
        }
        if (value_compare(option->type, value, &bound) * (i ? 1 : -1) > 0) {
            return reasons[i];
        }
    }
    return NULL;
}

/** "; did you forget a suffix (64M)?" when that would be accepted */
static const char *suffix_hint(const mw_option_source_t *source,
                               const mw_option_type_t *type, const char *text)
{
    const mw_unit_t *unit;
    cachemw_value_t value;
    const char *guess;

    if (!type->units || !*text || strspn(text, "0123456789.") != strlen(text)) {
        return "";
    }
    for (unit = type->units; unit->suffix; unit++) {
        guess = apr_pstrcat(source->pool, text, unit->suffix, NULL);
        if (!type->parse(source, guess, &value)
            && !bounds_check(source, type, &value)) {
            return apr_pstrcat(source->pool, "; did you forget a suffix (",
                               guess, ")?", NULL);
        }
    }
    return "";
}

static const char *value_message(const mw_option_source_t *source,
                                 const mw_option_type_t *type, const char *text,
                                 const char *why)
{
    const cachemw_option_t *option = source->option;
    const char *range = mw_value_range(option, source->pool);
    const char *shown = "";
    const char *accepted = range;

    if (!type->is_secret) {
        shown = apr_pstrcat(source->pool, "'", text, "' ", NULL);
    }
    if (type->accepted) {
        accepted = apr_pstrcat(source->pool, type->accepted, *range ? " " : "",
                               range, NULL);
    }
    return apr_pstrcat(source->pool, "option '", option->name, "': ", shown,
                       why, "; ", accepted,
                       option_has_off(option, type) ? ", or off," : "",
                       " is accepted", suffix_hint(source, type, text), NULL);
}

const char *mw_value_parse(const cachemw_option_t *option, const char *text,
                           const char *cache_dir, cachemw_value_t *value,
                           apr_pool_t *pool)
{
    const mw_option_source_t source = { option, cache_dir, pool };
    const mw_option_type_t *type = mw_option_type_of(option->type);
    const char *why;

    if (!type) {
        return apr_psprintf(pool,
                            "option '%s': its type %d in the provider's table "
                            "is unknown",
                            option->name, (int)option->type);
    }
    if (option_has_off(option, type) && !strcasecmp(text, "off")) {
        value->is_null = 1;
        value->string = NULL;
        return NULL;
    }
    value->is_null = 0;
    value->string = apr_pstrdup(pool, text);
    why = type->parse(&source, text, value);
    if (!why && type->is_ordered) {
        why = bounds_check(&source, type, value);
    }
    return why ? value_message(&source, type, text, why) : NULL;
}
