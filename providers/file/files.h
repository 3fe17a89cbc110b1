/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file files.h
 * @brief What the index has done with files. The baton is a mw_file_t.
 */
#ifndef MW_FILE_FILES_H
#define MW_FILE_FILES_H

#include "view.h"

extern const mw_index_files_t mw_files;

#endif
