/* SPDX-License-Identifier: Apache-2.0 */

/* The table itself, and the life of a store from open to close. */

#include <dirent.h>
#include <string.h>

#include "apr_strings.h"
#include "harness.h"

static void test_table_has_what_is_required(ct_t *c)
{
    const cachemw_provider_t *t = &c->table;
    int streaming = (t->set_begin != NULL) + (t->set_write != NULL)
                    + (t->set_commit != NULL) + (t->set_abort != NULL);

    ct_check(c,
             t->size >= APR_OFFSETOF(cachemw_provider_t, remove)
                 && t->size % sizeof(void *) == 0,
             "the table's size is %" APR_SIZE_T_FMT
             ", which is none of a cachemw_provider_t",
             t->size);
    ct_check(c, t->open != NULL, "the table has no open");
    ct_check(c, t->get != NULL, "the table has no get");
    ct_check(c, t->remove != NULL, "the table has no remove");
    ct_check(c, streaming == 0 || streaming == 4,
             "the table has %d of the four streaming slots", streaming);
    ct_check(c, t->set != NULL || streaming == 4,
             "the table has neither set nor the streaming slots");
    ct_check(c,
             (t->flags
              & ~(unsigned int)(CACHEMW_REMOTE | CACHEMW_SERIALIZE
                                | CACHEMW_IN_MEMORY | CACHEMW_TIERED))
                 == 0,
             "the table has unknown flags: 0x%x", t->flags);
    ct_check(c, (t->lock == NULL) == (t->unlock == NULL),
             "of lock and unlock the table has only one");
    ct_check(c, (t->publish == NULL) == (t->watch == NULL),
             "of publish and watch the table has only one");
}

static int name_is_good(const char *name)
{
    apr_size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

    return n > 0 && name[n] == '\0';
}

static void test_options_are_well_formed(ct_t *c)
{
    const cachemw_option_t *o;

    for (o = c->table.options; o != NULL && o->name != NULL; o++) {
        ct_check(c, name_is_good(o->name),
                 "option \"%s\": a name has lower case letters, digits and "
                 "underscores",
                 o->name);
        if (o->alias == NULL) {
            ct_check(c, o->help != NULL && o->help[0] != '\0',
                     "option \"%s\" has no help", o->name);
            ct_check(c, o->type >= CACHEMW_INTEGER && o->type <= CACHEMW_STORE,
                     "option \"%s\" has an unknown type", o->name);
            ct_check(c, o->type != CACHEMW_ENUM || o->words != NULL,
                     "option \"%s\" has no words to choose from", o->name);
        }
    }
}

static int dir_is_empty(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;

    if (dir == NULL) {
        return 0;
    }
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n <= 2;
}

static void test_open_touches_nothing(ct_t *c)
{
    int before = ct_descriptors();

    ct_open_only(c);
    ct_check(c, dir_is_empty(c->site->dir),
             "open made a file or directory; that is post_config's work: open "
             "also runs under `httpd -t`");
    ct_check(c, ct_descriptors() == before,
             "open opened a file or a connection; that is for post_config and "
             "child_init");
}

static void opened_and_closed(ct_t *c, int times)
{
    int i;

    for (i = 0; i < times; i++) {
        ct_open_only(c);
        ct_close(c);
    }
}

static void test_open_and_close_leave_nothing(ct_t *c)
{
    int before;

    opened_and_closed(c, 1);
    before = ct_descriptors();
    opened_and_closed(c, 50);
    ct_check(c, ct_descriptors() == before,
             "50 times open and close left %d descriptors open",
             ct_descriptors() - before);
}

static void test_open_and_close_leave_no_memory_behind(ct_t *c)
{
    ct_no_memory_left(c, opened_and_closed, 200, 400,
                      "400 times open and close");
}

static void life_live(ct_t *c, int round)
{
    cachemw_key_t key = ct_key_bytes(c, "life", 4);
    ct_item_t item = ct_item(c, &key, (apr_uint32_t)round, 1000);

    ct_open(c);
    ct_child_start(c);
    ct_see(c, &key, NULL);
    ct_store(c, &item);
    ct_require(c, &item, "after set in a store that was opened again");
    ct_child_end(c);
    ct_close(c);
}

static void test_life_can_be_lived_again(ct_t *c)
{
    int before, i;

    life_live(c, 0);
    life_live(c, 1);
    before = ct_descriptors();
    for (i = 2; i < 30; i++) {
        life_live(c, i);
    }
    ct_check(c, ct_descriptors() <= before,
             "28 lives of a store left %d descriptors open",
             ct_descriptors() - before);
}

/* Between two configurations nobody is there to look; a segment or a file may
 * be found again or not, but never with wrong content. */
static void test_content_of_an_earlier_life_is_right_or_gone(ct_t *c)
{
    cachemw_key_t keys[50];
    int i;

    for (i = 0; i < 50; i++) {
        ct_item_t item;

        keys[i] = ct_key(c, "page/%d", i);
        item = ct_item(c, &keys[i], (apr_uint32_t)i, i * 1000);
        ct_store(c, &item);
    }
    ct_child_end(c);
    ct_close(c);
    ct_open(c);
    ct_child_start(c);
    for (i = 0; i < 50; i++) {
        ct_see(c, &keys[i], NULL);
    }
}

static void test_child_lets_go_quickly(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page");
    ct_item_t item = ct_item(c, &key, 1, 1000);
    apr_int64_t begin;

    ct_store(c, &item);
    begin = mw_monotonic();
    ct_child_end(c);
    ct_check(c, mw_monotonic() - begin < 1000000,
             "the clean-ups on the child's pool took more than a second");
}

/* Whatever they answer; and nothing is broken for later calls. */
static void test_calls_past_their_deadline_return_at_once(ct_t *c)
{
    cachemw_key_t key = ct_key(c, "page"), other = ct_key(c, "other");
    ct_item_t item = ct_item(c, &key, 1, 30000);
    ct_item_t second = ct_item(c, &other, 1, 30000);
    apr_int64_t begin = mw_monotonic();
    cachemw_entry_t entry;

    ct_store(c, &item);
    c->deadline = begin - 1000000;
    begin = mw_monotonic();
    memset(&entry, 0, sizeof(entry));
    ct_get(c, &key, &entry);
    ct_try_store(c, &second);
    ct_exists(c, &key);
    ct_remove(c, &other, NULL);
    ct_check(c, mw_monotonic() - begin < 2000000,
             "calls whose deadline was past took %" APR_INT64_T_FMT " ms",
             (mw_monotonic() - begin) / 1000);
    c->deadline = 0;
    ct_see(c, &other, NULL);
    ct_require(c, &item, "after calls whose deadline was past");
}

const ct_test_t ct_tests_life[] = {
    CT_TEST_AS(test_table_has_what_is_required, CT_UNOPENED),
    CT_TEST_AS(test_options_are_well_formed, CT_UNOPENED),
    CT_TEST_AS(test_open_touches_nothing, CT_UNOPENED),
    CT_TEST_AS(test_open_and_close_leave_nothing, CT_UNOPENED),
    CT_TEST_AS(test_open_and_close_leave_no_memory_behind, CT_UNOPENED),
    CT_TEST_AS(test_life_can_be_lived_again, CT_UNOPENED),
    CT_TEST(test_content_of_an_earlier_life_is_right_or_gone),
    CT_TEST(test_child_lets_go_quickly),
    CT_TEST(test_calls_past_their_deadline_return_at_once),
    CT_TESTS_END,
};
