/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file look.h
 * @brief A store in files, for who is no process of the server that has it.
 *
 * A server's index is in its own memory, and there is never a second one. This
 * is a provider of the same options that goes without: it takes no lock, reads
 * the mark and changes none, and finds entries in the directories alone. What
 * it removes the server finds gone, as if the files had been removed by hand.
 * It stores nothing, and makes neither directories nor files.
 *
 * keys leaves out what is damaged, but logs each as an error and counts it as
 * MW_FILE_LOOK_DAMAGED. What cannot be read is logged and passed over, and the
 * walk says so at its end. get verifies whole bodies.
 */
#ifndef MW_FILE_LOOK_H
#define MW_FILE_LOOK_H

#include "mod_cachemw.h"

#define MW_FILE_LOOK_DAMAGED "damaged"

/** Its post_config, child_init and calls are for one process, and one call at a
 *  time. */
extern const cachemw_provider_t mw_file_look_provider;

/** Its keys, when what is damaged is to be removed. */
apr_status_t mw_file_look_mend(void *store, const cachemw_call_t *call,
                               const char *pattern, cachemw_keys_fn *each,
                               void *baton);

#endif
