/* SPDX-License-Identifier: Apache-2.0 */

/* What root makes and another user uses, as in httpd. */

#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "apr_strings.h"
#include "ctl/loader.h"
#include "harness.h"

/* Whether a word sets a path that is not below {tmp}, whose owner would still
 * be another one when the test is over. */
static int word_is_path_elsewhere(const cachemw_provider_t *table,
                                  const char *word)
{
    const cachemw_option_t *o;

    for (o = table->options; o != NULL && o->name != NULL; o++) {
        apr_size_t n = strlen(o->name);

        if (o->type == CACHEMW_PATH && strncmp(word, o->name, n) == 0
            && word[n] == '=' && word[n + 1] == '/') {
            return 1;
        }
    }
    return 0;
}

static int plan_has_path_elsewhere(const ct_plan_t *plan)
{
    int i, w;

    for (i = 0; i < plan->ndefinitions; i++) {
        const mw_ctl_store_t *d = &plan->definitions[i];
        const cachemw_provider_t *table = mw_loader_find(d->provider);

        for (w = 0; table != NULL && w < d->nwords; w++) {
            if (word_is_path_elsewhere(table, d->words[w])) {
                return 1;
            }
        }
    }
    return 0;
}

static void user_choose(ct_t *c)
{
    const struct passwd *nobody = getpwnam("nobody");

    if (geteuid() != 0 || nobody == NULL || nobody->pw_uid == 0) {
        ct_skip(c, "only root can have children of another user, nobody");
    }
    if (c->table.flags & CACHEMW_REMOTE) {
        ct_skip(c, "root makes nothing for a store on another machine");
    }
    if (plan_has_path_elsewhere(c->plan)) {
        ct_skip(c, "a path that is not below {tmp} is not given to nobody");
    }
    if (chown(c->site->dir, nobody->pw_uid, nobody->pw_gid) != 0) {
        ct_skip(c, "root cannot give a directory away here");
    }
    c->uid = nobody->pw_uid;
    c->gid = nobody->pw_gid;
}

static void user_act(ct_t *c, int index, void *baton)
{
    const int *round = baton;
    cachemw_key_t key = ct_key(c, "user/%d/%d", *round, index);
    ct_item_t item = ct_item(c, &key, 1, 2000);

    ct_status(c, ct_try_store(c, &item), APR_SUCCESS,
              "as nobody, of whom post_config was told: set");
    ct_require(c, &item, "as nobody, of whom post_config was told");
    ct_status(c, ct_remove(c, &key, NULL), APR_SUCCESS,
              "as nobody, of whom post_config was told: remove");
    if (ct_sweeps(c)) {
        ct_sweep_all(c);
    }
}

/* The second configuration finds what children of the first one have made. */
static void test_children_of_another_user_can_use_the_store(ct_t *c)
{
    int round;

    user_choose(c);
    for (round = 0; round < 2; round++) {
        ct_open(c);
        ct_children(c, 2, user_act, &round);
        ct_close(c);
    }
}

const ct_test_t ct_tests_user[] = {
    CT_TEST_AS(test_children_of_another_user_can_use_the_store, CT_UNOPENED),
    CT_TESTS_END,
};
