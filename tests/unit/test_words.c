/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "core/words.h"

static int setup(void **state)
{
    return apr_pool_create((apr_pool_t **)state, NULL) != APR_SUCCESS;
}

static int teardown(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

/* The words of a directive, each in angle brackets. */
static const char *split(void **state, const char *args)
{
    apr_array_header_t *words = mw_words_split(args, *state);
    const char *text = "";
    int i;

    if (!words) {
        return NULL;
    }
    for (i = 0; i < words->nelts; i++) {
        text = apr_pstrcat(*state, text, "<",
                           APR_ARRAY_IDX(words, i, const char *), ">", NULL);
    }
    return text;
}

static void test_words_are_separated_by_blanks(void **state)
{
    assert_string_equal(split(state, "hot memory size=1G"),
                        "<hot><memory><size=1G>");
    assert_string_equal(split(state, " \thot \t memory  "), "<hot><memory>");
    assert_string_equal(split(state, ""), "");
    assert_string_equal(split(state, "  "), "");
}

static void test_words_quotes_keep_blanks(void **state)
{
    assert_string_equal(split(state, "\"a b\" 'c d'"), "<a b><c d>");
    assert_string_equal(split(state, "path=\"/a b/c\" x=1"),
                        "<path=/a b/c><x=1>");
    assert_string_equal(split(state, "'path=/a b/c' x=1"),
                        "<path=/a b/c><x=1>");
    assert_string_equal(split(state, "path='' \"\""), "<path=><>");
}

static void test_words_a_quote_within_a_word_is_a_letter(void **state)
{
    assert_string_equal(split(state, "token=it's x=1"), "<token=it's><x=1>");
    assert_string_equal(split(state, "token=a=\"b c"), "<token=a=\"b><c>");
}

static void test_words_backslash_keeps_a_quote(void **state)
{
    assert_string_equal(split(state, "t=\"a\\\"b\" u='\\\\'"),
                        "<t=a\"b><u=\\>");
    assert_string_equal(split(state, "t=\"a\\nb\" u=a\\b"),
                        "<t=a\\nb><u=a\\b>");
}

static void test_words_refuses_an_open_quote(void **state)
{
    assert_null(split(state, "hot \"memory"));
    assert_null(split(state, "path='/a b"));
    assert_null(split(state, "path=\"a\\\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_words_are_separated_by_blanks,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_words_quotes_keep_blanks, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_words_a_quote_within_a_word_is_a_letter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_words_backslash_keeps_a_quote,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_words_refuses_an_open_quote, setup,
                                        teardown),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
