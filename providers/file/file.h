/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file file.h
 * @brief The store in files: it survives restarts, crashes and power losses.
 */
#ifndef MW_FILE_FILE_H
#define MW_FILE_FILE_H

#include "mod_cachemw.h"

extern const cachemw_provider_t mw_file_provider;

#endif
