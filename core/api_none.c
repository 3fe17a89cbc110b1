/* SPDX-License-Identifier: Apache-2.0 */

/* In place of api.c where its library was not there. */

#include "api.h"

const char *const mw_api_lacks =
    "this mod_cachemw was built without it, for want of jansson or OpenSSL";

int mw_api_handler(request_rec *r)
{
    (void)r;
    return DECLINED;
}
