/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_atomic.h"

#include "api_room.h"

struct mw_api_room_t {
    apr_uint64_t most;
    apr_uint64_t taken;
};

/* In all rooms. */
static apr_uint64_t room_sum;

void mw_api_room_give(mw_api_room_t *room)
{
    apr_atomic_sub64(&room_sum, room->taken);
    room->taken = 0;
}

static apr_status_t room_end(void *baton)
{
    mw_api_room_give(baton);
    return APR_SUCCESS;
}

mw_api_room_t *mw_api_room_make(apr_uint64_t most, apr_pool_t *pool)
{
    mw_api_room_t *room = apr_pcalloc(pool, sizeof(*room));

    room->most = most;
    apr_pool_cleanup_register(pool, room, room_end, apr_pool_cleanup_null);
    return room;
}

int mw_api_room_take(mw_api_room_t *room, apr_uint64_t bytes)
{
    apr_uint64_t before, now = apr_atomic_read64(&room_sum);

    if (bytes > room->most) {
        return 0;
    }
    /* what does not fit is never added: it would push others out meanwhile */
    do {
        before = now;
        if (before > room->most - bytes) {
            return 0;
        }
        now = apr_atomic_cas64(&room_sum, before + bytes, before);
    } while (now != before);
    room->taken += bytes;
    return 1;
}
