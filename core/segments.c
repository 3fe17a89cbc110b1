/* SPDX-License-Identifier: Apache-2.0 */

#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "apr_shm.h"
#include "apr_strings.h"

#include "core/state.h"

#define MAGIC APR_UINT64_C(0x746e656d67655377)
#define VERSION 1

/*
 * A list is read by the next configuration's copy of this code, which may be
 * another build at another address. All memory and all clean-ups therefore are
 * libapr's, which is never unloaded; not even a pool's tag may be text of ours.
 */
typedef struct segment_t {
    struct segment_t *next;
    apr_pool_t *pool; /**< of this record, its name and its shared memory */
    const char *name;
    apr_size_t size;
    apr_uint64_t layout;
    void *base;
    apr_uint64_t generation; /**< the last that asked for it */
} segment_t;

/** The members up to `pool` stay as they are in all versions: any build can
 *  free what another one has made. */
struct mw_segments_t {
    apr_uint64_t magic;
    apr_uint32_t version;
    apr_uint32_t size;
    apr_pool_t *pool; /**< of all segments; NULL: none */
    segment_t *first;
    apr_uint64_t generation;
};

apr_size_t mw_segments_size(void)
{
    return sizeof(mw_segments_t);
}

mw_segments_t *mw_segments_begin(void *memory, apr_pool_t *parent)
{
    mw_segments_t *list = memory;
    const int is_other = list->magic != MAGIC || list->version != VERSION
                         || list->size != sizeof(*list);

    if (list->magic == MAGIC && is_other) {
        if (list->pool) {
            apr_pool_destroy(list->pool);
        }
        memset(&list->pool, 0, list->size - offsetof(mw_segments_t, pool));
        if (list->size < sizeof(*list)) {
            return NULL;
        }
    }
    if (is_other) {
        memset(list, 0, sizeof(*list));
        list->magic = MAGIC;
        list->version = VERSION;
        list->size = sizeof(*list);
    }
    if (!list->pool && apr_pool_create(&list->pool, parent) != APR_SUCCESS) {
        list->pool = NULL;
    }
    list->generation++;
    return list;
}

static segment_t *segment_find(mw_segments_t *list, const char *name,
                               apr_size_t size, apr_uint64_t layout)
{
    segment_t *segment;

    for (segment = list->first; segment; segment = segment->next) {
        if (segment->size == size && segment->layout == layout
            && !strcmp(segment->name, name)) {
            return segment;
        }
    }
    return NULL;
}

/* APR keeps a word of its own at the start of anonymous memory, so what it
 * gives is not aligned: a page more makes room for that. */
static apr_status_t memory_make(void **base, apr_size_t size, apr_pool_t *pool)
{
    const apr_uintptr_t page = (apr_uintptr_t)sysconf(_SC_PAGESIZE);
    apr_shm_t *shm;
    apr_status_t rv;

    if (!size || size > APR_SIZE_MAX - 2 * page) {
        return APR_EINVAL;
    }
    rv = apr_shm_create(&shm, size + page, NULL, pool);
    if (rv == APR_SUCCESS) {
        *base = (void *)(((apr_uintptr_t)apr_shm_baseaddr_get(shm) + page - 1)
                         & ~(page - 1));
    }
    return rv;
}

static apr_status_t segment_make(mw_segments_t *list, const char *name,
                                 apr_size_t size, apr_uint64_t layout,
                                 segment_t **made)
{
    segment_t *segment;
    apr_pool_t *pool;
    void *base;
    apr_status_t rv;

    rv = apr_pool_create(&pool, list->pool);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = memory_make(&base, size, pool);
    if (rv != APR_SUCCESS) {
        apr_pool_destroy(pool);
        return rv;
    }
    segment = apr_pcalloc(pool, sizeof(*segment));
    segment->pool = pool;
    segment->name = apr_pstrdup(pool, name);
    segment->size = size;
    segment->layout = layout;
    segment->base = base;
    segment->next = list->first;
    list->first = segment;
    *made = segment;
    return APR_SUCCESS;
}

apr_status_t mw_segment_get(mw_segments_t *list, const char *name,
                            apr_size_t size, apr_uint64_t layout, void **base,
                            int *is_new)
{
    segment_t *segment = segment_find(list, name, size, layout);
    apr_status_t rv;

    *is_new = !segment;
    if (!segment) {
        rv = segment_make(list, name, size, layout, &segment);
        if (rv != APR_SUCCESS) {
            return rv;
        }
    }
    segment->generation = list->generation;
    *base = segment->base;
    return APR_SUCCESS;
}

void mw_segments_end(mw_segments_t *list)
{
    segment_t **link = &list->first;
    segment_t *segment;

    while ((segment = *link) != NULL) {
        if (segment->generation == list->generation) {
            link = &segment->next;
        }
        else {
            *link = segment->next;
            apr_pool_destroy(segment->pool);
        }
    }
}
