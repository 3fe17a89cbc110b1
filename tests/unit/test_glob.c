/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "core/glob.h"

static const struct {
    const char *pattern, *yes, *no;
} cases[] = {
    { "abc", "abc", "abcd" },
    { "abc", "abc", "ab" },
    { "*", "", NULL },
    { "*", "any/thing?", NULL },
    { "", "", "a" },
    { "?", "a", "" },
    { "?", "/", "ab" },
    { "a*c", "ac", "acb" },
    { "a*c", "abcbc", "abcb" },
    { "*b*b*", "abab", "ab" },
    { "**a**", "a", "b" },
    { "[a-c]x", "bx", "dx" },
    { "[!a-c]x", "dx", "bx" },
    { "[^a-c]x", "dx", "ax" },
    { "[]a]", "]", "b" },
    { "[!]a]", "b", "]" },
    { "[a-]", "-", "b" },
    { "[a\\]b]", "]", "\\" },
    { "[\\a-\\c]", "b", "\\" },
    { "[ab", "[ab", "a" },
    { "[", "[", "a" },
    { "\\*", "*", "a" },
    { "\\[a]", "[a]", "a" },
    { "a\\", "a\\", "a" },
    { "[c-a]", NULL, "b" },
    { "*/static/*.[jc]s*", "http://a:80/static/x/y.js?v=1", "/static/x.html" },
};

static int matches(const char *pattern, const char *text)
{
    return mw_glob_matches(pattern, text, strlen(text));
}

static void test_glob_syntax(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *pattern = cases[i].pattern;

        if (cases[i].yes && !matches(pattern, cases[i].yes)) {
            fail_msg("'%s' should match '%s'", pattern, cases[i].yes);
        }
        if (cases[i].no && matches(pattern, cases[i].no)) {
            fail_msg("'%s' should not match '%s'", pattern, cases[i].no);
        }
    }
}

static void test_glob_matches_any_byte(void **state)
{
    char text[3] = { 'a', 0, 'b' };
    int c;

    (void)state;
    for (c = 0; c < 256; c++) {
        text[1] = (char)c;
        assert_true(mw_glob_matches("a?b", text, 3));
        assert_true(mw_glob_matches("a*b", text, 3));
        assert_int_equal(mw_glob_matches("a[\x80-\xff]b", text, 3), c >= 0x80);
    }
    assert_true(mw_glob_matches("shop:80*", "shop:80\0http://x/?", 18));
    assert_false(mw_glob_matches("a", "a\0", 2));
}

/* Backtracking over every star would take 2^40 steps here. */
static void test_glob_many_stars_end(void **state)
{
    char text[4000];

    (void)state;
    memset(text, 'a', sizeof(text));
    assert_false(mw_glob_matches("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
                                 text, sizeof(text)));
    assert_false(mw_glob_matches("*[a]*[[[[[[[[[[[b", text, sizeof(text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glob_syntax),
        cmocka_unit_test(test_glob_matches_any_byte),
        cmocka_unit_test(test_glob_many_stars_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
