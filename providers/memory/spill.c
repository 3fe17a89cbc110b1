/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <unistd.h>

#include "apr_portable.h"

#include "spill.h"

/** Bytes that a process may have in files at once. */
#define SPILL_MIN (APR_UINT64_C(16) << 20)
#define SPILL_MAX (APR_UINT64_C(64) << 20)

struct mw_spill_t {
    apr_bucket_refcount refcount; /**< must be first */
    apr_pool_t *pool;
    apr_file_t *file;
    apr_size_t length;
    mw_mem_t *mem;
    apr_uint64_t reserved; /**< of mem->spilled */
};

static int spill_reserve(mw_mem_t *mem, apr_uint64_t size)
{
    apr_uint64_t limit = mem->geometry.size / 4;

    if (limit < SPILL_MIN) {
        limit = SPILL_MIN;
    }
    else if (limit > SPILL_MAX) {
        limit = SPILL_MAX;
    }
    if (MW_MEM_ADD(&mem->spilled, size) + size <= limit) {
        return 1;
    }
    MW_MEM_ADD(&mem->spilled, -size);
    return 0;
}

void mw_spill_drop(mw_spill_t *spill)
{
    MW_MEM_ADD(&spill->mem->spilled, -spill->reserved);
    apr_pool_destroy(spill->pool);
}

apr_status_t mw_spill_make(mw_mem_t *mem, apr_uint64_t size, mw_spill_t **out)
{
    const cachemw_services_t *services = mem->services;
    mw_spill_t *spill;
    apr_pool_t *pool;
    apr_status_t rv;

    if (!spill_reserve(mem, size)) {
        return APR_NOTFOUND;
    }
    /* No parent: whichever thread destroys the bucket destroys the pool. */
    rv = apr_pool_create_unmanaged_ex(&pool, NULL, NULL);
    if (rv != APR_SUCCESS) {
        MW_MEM_ADD(&mem->spilled, -size);
        return rv;
    }
    spill = apr_pcalloc(pool, sizeof(*spill));
    spill->pool = pool;
    spill->mem = mem;
    spill->reserved = size;
    rv = services->temp_file(services, &spill->file, pool);
    if (rv != APR_SUCCESS) {
        mw_spill_drop(spill);
        return rv;
    }
    *out = spill;
    return APR_SUCCESS;
}

apr_status_t mw_spill_write(mw_spill_t *spill, const char *data,
                            apr_size_t length)
{
    spill->length += length;
    return apr_file_write_full(spill->file, data, length, NULL);
}

/** At a place of its own: buckets of one file may be read by two threads. */
static apr_status_t spill_pread(mw_spill_t *spill, char *to, apr_size_t length,
                                apr_off_t at)
{
    apr_os_file_t fd;
    apr_status_t rv = apr_os_file_get(&fd, spill->file);

    while (rv == APR_SUCCESS && length) {
        ssize_t n = pread(fd, to, length, at);

        if (n > 0) {
            to += n;
            at += n;
            length -= (apr_size_t)n;
        }
        else if (n == 0) {
            rv = APR_EOF;
        }
        else if (errno != EINTR) {
            rv = errno;
        }
    }
    return rv;
}

/** The first piece becomes memory; the rest stays a bucket behind it. */
static apr_status_t bucket_read(apr_bucket *e, const char **data,
                                apr_size_t *length, apr_read_type_e block)
{
    mw_spill_t *spill = e->data;
    apr_size_t n =
        e->length < CACHEMW_PIECE_MAX ? e->length : CACHEMW_PIECE_MAX;
    char *copy = apr_bucket_alloc(n, e->list);
    apr_status_t rv = copy ? spill_pread(spill, copy, n, e->start) : APR_ENOMEM;

    (void)block;
    if (rv == APR_SUCCESS && n < e->length) {
        rv = apr_bucket_split(e, n);
    }
    if (rv != APR_SUCCESS) {
        if (copy) {
            apr_bucket_free(copy);
        }
        return rv;
    }
    apr_bucket_heap_make(e, copy, n, apr_bucket_free);
    if (apr_bucket_shared_destroy(spill)) {
        mw_spill_drop(spill);
    }
    *data = copy;
    *length = n;
    return APR_SUCCESS;
}

static void bucket_destroy(void *data)
{
    if (apr_bucket_shared_destroy(data)) {
        mw_spill_drop(data);
    }
}

static const apr_bucket_type_t bucket_type_spill = {
    "CACHEMW_SPILL",
    5,
    APR_BUCKET_DATA,
    bucket_destroy,
    bucket_read,
    apr_bucket_setaside_noop,
    apr_bucket_shared_split,
    apr_bucket_shared_copy,
};

void mw_spill_append(mw_spill_t *spill, apr_bucket_brigade *body)
{
    apr_bucket *e = apr_bucket_alloc(sizeof(*e), body->bucket_alloc);

    APR_BUCKET_INIT(e);
    e->free = apr_bucket_free;
    e->list = body->bucket_alloc;
    e = apr_bucket_shared_make(e, spill, 0, spill->length);
    e->type = &bucket_type_spill;
    APR_BRIGADE_INSERT_TAIL(body, e);
}
