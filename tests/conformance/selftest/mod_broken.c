/* SPDX-License-Identifier: Apache-2.0 */

/* All of them as a stranger's module, for cachemwctl to catch. */

#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "broken.h"

#define BROKEN_MAX 100

static void broken_register(apr_pool_t *p, const ct_broken_t *broken)
{
    static cachemw_provider_t tables[BROKEN_MAX];
    static int n;

    for (; broken->name != NULL && n < BROKEN_MAX; broken++, n++) {
        ct_broken_table(broken, &tables[n]);
        ap_register_provider(p, CACHEMW_PROVIDER_GROUP, broken->name,
                             CACHEMW_PROVIDER_VERSION, &tables[n]);
    }
}

static void register_hooks(apr_pool_t *p)
{
    broken_register(p, ct_broken_slots);
    broken_register(p, ct_broken_streams);
    broken_register(p, ct_broken_bodies);
    broken_register(p, ct_broken_pieces);
    broken_register(p, ct_broken_user);
}

extern module AP_MODULE_DECLARE_DATA broken_module
    __attribute__((visibility("default")));

AP_DECLARE_MODULE(broken) = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
