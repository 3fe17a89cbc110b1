/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "apr_general.h"
#include "apr_siphash.h"

#include "random.h"

/* Of this process: a keyed function of 1, 2, 3 and so on. */
static unsigned char generator_key[APR_SIPHASH_KSIZE];
static apr_uint64_t generator_drawn;
static int generator_is_seeded;

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

void mw_random_child_init(void)
{
    generator_is_seeded =
        mw_random(generator_key, sizeof(generator_key)) == APR_SUCCESS;
}

int mw_random_draw(void *buffer, apr_size_t length)
{
    unsigned char *to = buffer;

    while (length > 0 && generator_is_seeded) {
        const apr_uint64_t number =
            __atomic_add_fetch(&generator_drawn, 1, __ATOMIC_RELAXED);
        const apr_uint64_t word =
            apr_siphash24(&number, sizeof(number), generator_key);
        const apr_size_t n = length < sizeof(word) ? length : sizeof(word);

        memcpy(to, &word, n);
        to += n;
        length -= n;
    }
    return generator_is_seeded;
}
