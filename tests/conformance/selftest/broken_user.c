/* SPDX-License-Identifier: Apache-2.0 */

/* What can be wrong with files that root makes for the children. */

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apr_strings.h"
#include "broken.h"
#include "tests/conformance/reference.h"

#define right ct_reference_provider

/* The reference's, and where there are files. */
enum { OPTION_SIZE, OPTION_DIR };

static const cachemw_option_t file_options[] = {
    [OPTION_SIZE] = { .name = "size",
                      .type = CACHEMW_SIZE,
                      .fallback = "4M",
                      .minimum = "1M",
                      .maximum = "1G",
                      .help = "Bytes for entries." },
    [OPTION_DIR] = { .name = "dir",
                     .type = CACHEMW_PATH,
                     .fallback = "files",
                     .help = "Where files are." },
    { .name = NULL },
};

static const char *dir; /* of the store that was opened last */

static apr_status_t keeps_open(const cachemw_services_t *services,
                               const cachemw_value_t *values, apr_pool_t *pconf,
                               void **store, const char **error)
{
    dir = values[OPTION_DIR].string;
    return right.open(services, values, pconf, store, error);
}

static apr_status_t keeps_post_config(void *store, apr_pool_t *pconf,
                                      apr_uid_t uid, apr_gid_t gid)
{
    if (mkdir(dir, 0700) == 0 && uid != 0 && chown(dir, uid, gid) != 0) {
        return APR_EGENERAL;
    }
    return right.post_config(store, pconf, uid, gid);
}

static apr_status_t forgets_post_config(void *store, apr_pool_t *pconf,
                                        apr_uid_t uid, apr_gid_t gid)
{
    (void)uid, (void)gid;
    return keeps_post_config(store, pconf, 0, 0);
}

static apr_status_t keeps_set(void *store, const cachemw_call_t *call,
                              const cachemw_key_t *key,
                              const cachemw_entry_t *entry)
{
    apr_file_t *file;
    apr_status_t rv = apr_file_open(
        &file, apr_pstrcat(call->pool, dir, "/last", NULL),
        APR_FOPEN_WRITE | APR_FOPEN_CREATE, APR_FPROT_OS_DEFAULT, call->pool);

    if (rv == APR_SUCCESS) {
        apr_file_close(file);
        rv = right.set(store, call, key, entry);
    }
    return rv;
}

static const cachemw_provider_t files = {
    .options = file_options,
    .open = keeps_open,
    .set = keeps_set,
    .post_config = keeps_post_config,
};

const ct_broken_t ct_broken_user[] = {
    { "gives_its_directory_to_the_user", NULL, NULL, &files, { .size = 0 } },
    { "forgets_whom_its_directory_is_for",
      "test_children_of_another_user_can_use_the_store",
      "as nobody, of whom post_config was told: set returned 13",
      &files,
      { .post_config = forgets_post_config } },
    { .name = NULL }
};
