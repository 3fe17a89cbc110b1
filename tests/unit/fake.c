/* SPDX-License-Identifier: Apache-2.0 */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "tests/unit/fake.h"

static fake_t *fake_of(const cachemw_services_t *services)
{
    return (fake_t *)(apr_uintptr_t)services;
}

static void fake_log(const cachemw_services_t *services, cachemw_level_e level,
                     apr_status_t rv, const char *format, ...)
{
    va_list args;

    (void)services;
    (void)rv;
    if (level == CACHEMW_LOG_ERR) {
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
    }
}

static void fake_count(const cachemw_services_t *services, cachemw_count_e what,
                       apr_uint64_t n)
{
    __atomic_fetch_add(&fake_of(services)->counts[what], n, __ATOMIC_RELAXED);
}

static apr_interval_time_t fake_remaining(const cachemw_services_t *services,
                                          const cachemw_call_t *call)
{
    fake_t *fake = fake_of(services);

    if (!call->deadline) {
        return -1;
    }
    return fake->patience && fake->patience-- ? 1 : 0;
}

static apr_status_t fake_random(const cachemw_services_t *services,
                                void *buffer, apr_size_t length)
{
    (void)services;
    return apr_generate_random_bytes(buffer, length);
}

static apr_status_t fake_temp_file(const cachemw_services_t *services,
                                   apr_file_t **file, apr_pool_t *pool)
{
    const char *dir;
    apr_status_t rv = apr_temp_dir_get(&dir, pool);

    (void)services;
    return rv == APR_SUCCESS ? apr_file_mktemp(
               file, apr_pstrcat(pool, dir, "/cachemw-XXXXXX", NULL), 0, pool)
                             : rv;
}

static apr_status_t fake_segment(const cachemw_services_t *services,
                                 apr_size_t size, apr_uint64_t layout,
                                 void **base, int *is_new)
{
    fake_t *fake = fake_of(services);

    *is_new = !fake->base || fake->size != size || fake->layout != layout;
    if (*is_new) {
        fake_drop_segment(fake);
        fake->base = fake_map(size);
        fake->size = size;
        fake->layout = layout;
    }
    *base = fake->base;
    return fake->base ? APR_SUCCESS : APR_ENOMEM;
}

void *fake_map(apr_size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

void fake_begin(fake_t *fake, const char *store_name)
{
    memset(fake, 0, sizeof(*fake));
    fake->counts = fake_map(FAKE_COUNTS * sizeof(*fake->counts));
    fake->services.size = sizeof(fake->services);
    fake->services.store_name = store_name;
    fake->services.log = fake_log;
    fake->services.count = fake_count;
    fake->services.remaining = fake_remaining;
    fake->services.random = fake_random;
    fake->services.temp_file = fake_temp_file;
    fake->services.segment = fake_segment;
}

void fake_drop_segment(fake_t *fake)
{
    if (fake->base) {
        munmap(fake->base, fake->size);
        fake->base = NULL;
    }
}

void fake_end(fake_t *fake)
{
    fake_drop_segment(fake);
    munmap(fake->counts, FAKE_COUNTS * sizeof(*fake->counts));
}
