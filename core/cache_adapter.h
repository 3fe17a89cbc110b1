/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file cache_adapter.h
 * @brief mod_cache's ten callbacks over our stores.
 *
 * mod_cache finds the table under CACHE_PROVIDER_GROUP, "cachemw", "0". None of
 * the callbacks ever makes a request fail: what goes wrong is a miss, or a
 * response that is not stored.
 */
#ifndef MW_CACHE_ADAPTER_H
#define MW_CACHE_ADAPTER_H

#include "httpd.h"
#include "mod_cache.h"

extern const cache_provider mw_cache_provider;

/**
 * Look up mod_cache's functions. They are found at run time because a strong
 * reference would keep this module from loading before or without mod_cache.
 * @return non-zero when mod_cache is there
 */
int mw_cacheable_bind(void);

/** With the hooks: registers the filter that sees what never passes those of
 *  mod_cache. */
void mw_end_register(void);

/** Quick handler that runs before mod_cache's and notes subrequest look-ups;
 *  always DECLINED. */
int mw_cache_adapter_note_lookup(request_rec *r, int lookup);

/** Quick handler that runs after mod_cache's, so for no hit of its: notes the
 *  purge epoch and, where mod_cache stores a response without having looked it
 *  up, what was asked; always DECLINED. */
int mw_cache_adapter_note_store(request_rec *r, int lookup);

/** cache_status hook: counts revalidations. */
int mw_cache_adapter_status(cache_handle_t *h, request_rec *r,
                            apr_table_t *headers, ap_cache_status_e status,
                            const char *reason);

#endif
