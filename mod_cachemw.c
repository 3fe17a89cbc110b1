/* SPDX-License-Identifier: Apache-2.0 */

#include "httpd.h"
#include "apr_optional_hooks.h"
#include "ap_provider.h"
#include "http_config.h"
#include "mod_cache.h"
#include "mod_status.h"
#include "mpm_common.h"

#include "core/api.h"
#include "core/cache_adapter.h"
#include "core/config.h"
#include "core/status.h"
#include "providers/file/file.h"
#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"

/* The one symbol that leaves this object. */
extern module AP_MODULE_DECLARE_DATA cachemw_module
    __attribute__((visibility("default")));

static void register_hooks(apr_pool_t *p)
{
    static const char *const cache[] = { "mod_cache.c", NULL };
    /* it may change the root, which only who is forked later sees */
    static const char *const security[] = { "mod_security2.c", NULL };

    ap_register_provider(p, CACHE_PROVIDER_GROUP, "cachemw", "0",
                         &mw_cache_provider);
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "file",
                         CACHEMW_PROVIDER_VERSION, &mw_file_provider);
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "memory",
                         CACHEMW_PROVIDER_VERSION, &mw_memory_provider);
    ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "multitier",
                         CACHEMW_PROVIDER_VERSION, &mw_multitier_provider);

    ap_hook_pre_config(mw_config_pre, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(mw_config_check, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_test_config(mw_config_test, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(mw_config_post, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(mw_config_sweep, security, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_child_init(mw_config_child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_status(mw_config_child_status, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_monitor(mw_config_monitor, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_quick_handler(mw_cache_adapter_note_lookup, NULL, cache,
                          APR_HOOK_FIRST);
    ap_hook_quick_handler(mw_cache_adapter_note_store, cache, NULL,
                          APR_HOOK_FIRST);

    ap_hook_handler(mw_api_handler, NULL, NULL, APR_HOOK_MIDDLE);
    mw_end_register();
    APR_OPTIONAL_HOOK(ap, status_hook, mw_status, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(cachemw) = {
    STANDARD20_MODULE_STUFF,
    .create_dir_config = mw_api_create_dir,
    .merge_dir_config = mw_api_merge_dir,
    .create_server_config = mw_config_create_server,
    .merge_server_config = mw_config_merge_server,
    .cmds = mw_config_commands,
    .register_hooks = register_hooks,
};
