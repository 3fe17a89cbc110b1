/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <sys/random.h>

#include "apr_general.h"

#include "random.h"

apr_status_t mw_random(void *buffer, apr_size_t length)
{
    unsigned char *to = buffer;

    while (length > 0) {
        ssize_t got = getrandom(to, length, 0);

        if (got > 0) {
            to += got;
            length -= (apr_size_t)got;
        }
        else if (got < 0 && errno != EINTR) {
            /* no such system call, or a filter forbids it */
            return apr_generate_random_bytes(to, length);
        }
    }
    return APR_SUCCESS;
}
