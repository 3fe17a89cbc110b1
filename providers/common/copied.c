/* SPDX-License-Identifier: Apache-2.0 */

#include "copied.h"

typedef struct copied_t {
    apr_bucket_refcount refcount; /**< must be first */
    char bytes[];
} copied_t;

static apr_status_t bucket_read(apr_bucket *e, const char **data,
                                apr_size_t *length, apr_read_type_e block)
{
    copied_t *copied = e->data;

    (void)block;
    *data = copied->bytes + e->start;
    *length = e->length;
    return APR_SUCCESS;
}

static void bucket_destroy(void *data)
{
    if (apr_bucket_shared_destroy(data)) {
        apr_bucket_free(data);
    }
}

static const apr_bucket_type_t bucket_type_copied = {
    "CACHEMW_COPIED",
    5,
    APR_BUCKET_DATA,
    bucket_destroy,
    bucket_read,
    apr_bucket_setaside_noop,
    apr_bucket_shared_split,
    apr_bucket_shared_copy,
};

char *mw_copied_append(apr_bucket_brigade *body, apr_size_t length)
{
    apr_bucket_alloc_t *list = body->bucket_alloc;
    copied_t *copied = apr_bucket_alloc(sizeof(*copied) + length, list);
    apr_bucket *e = copied ? apr_bucket_alloc(sizeof(*e), list) : NULL;

    if (!e) {
        if (copied) {
            apr_bucket_free(copied);
        }
        return NULL;
    }
    APR_BUCKET_INIT(e);
    e->type = &bucket_type_copied;
    e->free = apr_bucket_free;
    e->list = list;
    e->data = copied;
    e->start = 0;
    e->length = length;
    copied->refcount.refcount = 1;
    APR_BRIGADE_INSERT_TAIL(body, e);
    return copied->bytes;
}
