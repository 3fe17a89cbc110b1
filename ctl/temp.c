/* SPDX-License-Identifier: Apache-2.0 */

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "apr_file_io.h"
#include "apr_strings.h"

#include "temp.h"

static int file_remove(const char *path, const struct stat *info, int type,
                       struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

const char *mw_temp_make(apr_pool_t *pool)
{
    const char *temp = NULL;

    if (apr_temp_dir_get(&temp, pool) != APR_SUCCESS) {
        return NULL;
    }
    return mkdtemp(apr_pstrcat(pool, temp, "/cachemw-XXXXXX", NULL));
}

void mw_temp_remove(const char *path)
{
    nftw(path, file_remove, 16, FTW_DEPTH | FTW_PHYS);
}
