/* SPDX-License-Identifier: Apache-2.0 */

#include "http_protocol.h"

#include "cache_request.h"

/* How much of buckets that make memory when they are read (pipes, sockets) one
 * store_body call takes before it lets mod_cache pass on what was taken. All
 * else is taken in one go: filters behind us, the one for ranges above all, work
 * on whole responses only. */
#define SAVE_STEP (128 * 1024)

int mw_save_wanted(request_rec *r, mw_store_t *store, apr_off_t length)
{
    const mw_store_settings_t *settings = mw_store_settings(store);

    /* A response to HEAD has no body to store, and part of one would need a
     * way to put parts together (RFC 9111, section 3.3). */
    if (r->header_only || r->status < 200 || r->status > 599
        || r->status == HTTP_PARTIAL_CONTENT || r->status == HTTP_NOT_MODIFIED
        || apr_table_get(r->headers_out, "Content-Range") != NULL
        || !mw_store_is_usable(store)) {
        return 0;
    }
    if (length > settings->max_object_size
        || (length >= 0 && length < settings->min_object_size)) {
        mw_store_count(store, MW_COUNT_NO_SPACE, 1);
        return 0;
    }
    return 1;
}

/* What is fresh for longer is as good as fresh for ever. */
#define SAVE_LIFETIME_MAX apr_time_from_sec(APR_INT64_C(10) * 365 * 86400)

static apr_time_t save_expires(mw_handle_t *handle, apr_time_t now)
{
    apr_time_t lifetime = handle->head.expire - now;

    if (lifetime < 0) {
        lifetime = 0;
    }
    if (lifetime > SAVE_LIFETIME_MAX) {
        lifetime = SAVE_LIFETIME_MAX;
    }
    return now + lifetime + mw_store_settings(handle->store)->keep;
}

static int save_is_overtaken(const mw_handle_t *handle)
{
    const mw_state_t *state = mw_store_state(handle->store);

    return mw_epoch_is_overtaken(state, mw_epoch_slot(state, &handle->plain),
                                 handle->epoch);
}

/* One of the calls that make up a store. */
static void save_call(const mw_handle_t *handle, request_rec *r,
                      cachemw_call_t *call)
{
    mw_request_call(r, apr_time_now(), call);
    call->deadline = handle->deadline;
}

/* The first of them. */
static void save_call_first(mw_handle_t *handle, request_rec *r,
                            cachemw_call_t *call)
{
    mw_request_call(r, apr_time_now(), call);
    mw_store_share_deadline(handle->store, call);
    handle->deadline = call->deadline;
}

/* What was published although a purge or an invalidation had come: that one
 * could not remove it. */
static apr_status_t save_withdraw(mw_handle_t *handle,
                                  const cachemw_call_t *call,
                                  const cachemw_key_t *key,
                                  const cachemw_id_t *id)
{
    cachemw_call_t own = *call;

    /* This must not be left out when storing took its time. */
    own.deadline = 0;
    mw_store_count(handle->store, MW_COUNT_REFUSED, 1);
    mw_store_remove(handle->store, &own, key, id);
    return APR_NOTFOUND;
}

/* Choose the Vary record that the new variant belongs to: the one there is, if
 * it lists the same fields, or a new one. */
static void save_choose_record(mw_handle_t *handle, request_rec *r,
                               const apr_array_header_t *fields)
{
    unsigned char random[24];
    mw_handle_t there = *handle;

    if (mw_lookup_record(&there, r) == APR_SUCCESS && there.record != NULL
        && mw_vary_same_fields(there.record->fields, fields)) {
        handle->record = there.record;
        return;
    }
    mw_store_random(random, sizeof(random));
    handle->record = mw_vary_make(fields, random, r->pool);
}

/* Whether modules set or changed a varying field after the look-up: then no
 * look-up can tell for whom the response is. A field taken away is no secret of
 * anybody's. */
static int save_was_rewritten(const apr_array_header_t *fields,
                              const apr_table_t *asked, const apr_table_t *sent,
                              apr_pool_t *pool)
{
    int i;

    for (i = 0; i < fields->nelts; i++) {
        const char *name = APR_ARRAY_IDX(fields, i, const char *);
        const char *to = apr_table_getm(pool, sent, name);
        const char *from = apr_table_getm(pool, asked, name);

        if (to != NULL && (from == NULL || strcmp(from, to) != 0)) {
            return 1;
        }
    }
    return 0;
}

/* The request's fields as they were when the cache was asked, before modules
 * changed them on the way to the origin: a later request is looked up by the
 * same (RFC 9111, section 4.1). */
static const apr_table_t *save_asked(const mw_handle_t *looked, request_rec *r)
{
    const mw_request_t *noted = mw_request_noted(r);
    const apr_table_t *asked = looked != NULL  ? looked->asked
                               : noted != NULL ? noted->asked
                                               : NULL;

    return asked != NULL ? asked : r->headers_in;
}

/* @return 0: the response is for one request alone */
static int save_choose_key(mw_handle_t *handle, request_rec *r,
                           const apr_array_header_t *fields)
{
    mw_handle_t *looked = mw_handle_of_lookup(r, &handle->plain);
    const apr_table_t *asked = save_asked(looked, r);
    mw_head_t *head = &handle->head;

    if (save_was_rewritten(fields, asked,
                           looked != NULL ? looked->live : r->headers_in,
                           r->pool)) {
        return 0;
    }
    save_choose_record(handle, r, fields);
    head->vary_block = mw_vary_block(fields, mw_vary_asked(asked),
                                     &head->vary_block_len, r->pool);
    head->vary_serial = handle->record->serial;
    mw_vary_digest(handle->record, head->vary_block, head->vary_block_len,
                   &handle->digest);
    mw_vary_key(&handle->plain, handle->record, &handle->digest, &handle->key,
                r->pool);
    return 1;
}

static apr_status_t save_encode(mw_handle_t *handle, request_rec *r)
{
    return mw_head_encode(&handle->head, mw_store_wants_checksum(handle->store),
                          r->pool, &handle->entry.head,
                          &handle->entry.head_len);
}

apr_status_t mw_save_headers(mw_handle_t *handle, request_rec *r)
{
    cachemw_call_t call;
    apr_array_header_t *fields;
    apr_status_t rv;
    int star = 0;

    save_call_first(handle, r, &call);
    mw_info_to_head(&handle->head, &handle->object.info);
    handle->head.headers = mw_cacheable_headers(r);
    apr_table_unset(handle->head.headers, "Transfer-Encoding");
    fields = mw_vary_fields(handle->head.headers, &star, r->pool);
    if (star) {
        return APR_EINVAL;
    }
    if (fields != NULL && !save_choose_key(handle, r, fields)) {
        return APR_EINVAL;
    }
    if ((rv = save_encode(handle, r)) != APR_SUCCESS) {
        return rv;
    }
    mw_entry_id_draw(&handle->entry.id, &handle->key);
    handle->entry.expires = save_expires(handle, call.now);
    call.purge_epoch = handle->epoch;
    return mw_store_set_begin(handle->store, &call, &handle->key,
                              &handle->plain, &handle->entry, &handle->set);
}

static void save_abort(mw_handle_t *handle)
{
    if (handle->set != NULL) {
        mw_store_set_abort(handle->set);
        handle->set = NULL;
    }
}

/* Read a bucket without holding up what came before it: when it has nothing to
 * give yet, the caller passes a flush on first and comes again.
 * APR_EAGAIN: it flushed. */
static apr_status_t save_read(mw_handle_t *handle, apr_bucket *bucket,
                              apr_bucket_brigade *out, const char **data,
                              apr_size_t *length)
{
    apr_status_t rv = apr_bucket_read(bucket, data, length,
                                      handle->has_waited ? APR_BLOCK_READ
                                                         : APR_NONBLOCK_READ);

    if (APR_STATUS_IS_EAGAIN(rv) && !handle->has_waited) {
        handle->has_waited = 1;
        APR_BRIGADE_INSERT_TAIL(out,
                                apr_bucket_flush_create(out->bucket_alloc));
        return APR_EAGAIN;
    }
    handle->has_waited = 0;
    return rv;
}

static apr_status_t save_write(mw_handle_t *handle, const char *data,
                               apr_size_t length)
{
    if (length == 0) {
        return APR_SUCCESS;
    }
    return handle->set != NULL ? mw_store_set_write(handle->set, data, length)
                               : APR_EGENERAL;
}

/* Store what a file bucket holds through a copy of it that is read and dropped
 * piece by piece: the bucket itself goes on as the file that it is. */
static apr_status_t save_file(mw_handle_t *handle, request_rec *r,
                              apr_bucket *file)
{
    apr_bucket_brigade *pieces = apr_brigade_create(r->pool, file->list);
    apr_status_t rv = APR_SUCCESS;
    apr_bucket *bucket;

    if ((rv = apr_bucket_copy(file, &bucket)) == APR_SUCCESS) {
        APR_BRIGADE_INSERT_TAIL(pieces, bucket);
    }
    while (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(pieces)) {
        const char *data;
        apr_size_t length;

        bucket = APR_BRIGADE_FIRST(pieces);
        rv = apr_bucket_read(bucket, &data, &length, APR_BLOCK_READ);
        if (rv == APR_SUCCESS) {
            rv = save_write(handle, data, length);
        }
        apr_bucket_delete(bucket);
    }
    apr_brigade_destroy(pieces);
    return rv;
}

/* APR_EAGAIN: nothing was taken, and a flush was put into `out`. */
static apr_status_t save_data(mw_handle_t *handle, request_rec *r,
                              apr_bucket *bucket, apr_bucket_brigade *out,
                              apr_size_t *taken)
{
    int makes_memory = bucket->length == (apr_size_t)-1;
    const char *data;
    apr_size_t length;
    apr_status_t rv;

    if (APR_BUCKET_IS_FILE(bucket)) {
        return save_file(handle, r, bucket);
    }
    rv = save_read(handle, bucket, out, &data, &length);
    if (rv == APR_SUCCESS) {
        rv = save_write(handle, data, length);
        *taken += makes_memory ? length : 0;
    }
    return rv;
}

apr_status_t mw_save_body(mw_handle_t *handle, request_rec *r,
                          apr_bucket_brigade *in, apr_bucket_brigade *out)
{
    apr_size_t taken = 0;

    while (!APR_BRIGADE_EMPTY(in) && taken < SAVE_STEP) {
        apr_bucket *bucket = APR_BRIGADE_FIRST(in);
        apr_status_t rv = APR_SUCCESS;

        if (APR_BUCKET_IS_EOS(bucket)) {
            handle->is_complete = 1;
        }
        else if (AP_BUCKET_IS_ERROR(bucket)) {
            handle->is_broken = 1;
        }
        else if (!APR_BUCKET_IS_METADATA(bucket) && !handle->is_complete) {
            rv = save_data(handle, r, bucket, out, &taken);
        }
        if (rv == APR_EAGAIN) {
            return APR_SUCCESS;
        }
        if (rv != APR_SUCCESS) {
            save_abort(handle);
            return rv;
        }
        APR_BUCKET_REMOVE(bucket);
        APR_BRIGADE_INSERT_TAIL(out, bucket);
        if (handle->is_complete) {
            break;
        }
    }
    return APR_SUCCESS;
}

/* Whether what was collected is the whole response as its origin meant it. */
int mw_save_is_whole(const mw_handle_t *handle, request_rec *r)
{
    apr_off_t announced = handle->entry.body_len;

    return handle->set != NULL && handle->is_complete && !handle->is_broken
           && !r->no_cache && !r->connection->aborted
           && (announced < 0 || announced == mw_store_set_length(handle->set));
}

/* Write the record, then make sure that no invalidation came in between: its
 * own change of the record could have been overwritten. */
static apr_status_t save_put_record(mw_handle_t *handle, request_rec *r,
                                    const mw_handle_t *there)
{
    mw_vary_t *record = handle->record;
    cachemw_entry_t entry = { .body_len = 0 };
    cachemw_call_t call;
    apr_status_t rv;

    rv = mw_vary_encode(record, mw_store_wants_checksum(handle->store), r->pool,
                        &entry.head, &entry.head_len);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    save_call(handle, r, &call);
    /* Longer than its variants, so that it need not be written for each. */
    entry.expires = call.now + 2 * (handle->entry.expires - call.now);
    if (entry.expires < there->record_expires) {
        entry.expires = there->record_expires;
    }
    if (there->record == record) {
        rv = mw_store_set_head(handle->store, &call, &handle->plain,
                               &there->record_id, &entry);
    }
    else {
        mw_entry_id_draw(&entry.id, &handle->plain);
        rv = mw_store_set(handle->store, &call, &handle->plain, &entry);
    }
    return save_is_overtaken(handle)
               ? save_withdraw(handle, &call, &handle->plain, NULL)
               : rv;
}

static void save_remove_variant(mw_handle_t *handle, request_rec *r,
                                const mw_digest_t *digest,
                                const cachemw_id_t *id)
{
    cachemw_call_t call;
    cachemw_key_t key;

    save_call(handle, r, &call);
    mw_vary_key(&handle->plain, handle->record, digest, &key, r->pool);
    mw_store_remove(handle->store, &call, &key, id);
}

/* List the variant just stored in the record as it is by now. Somebody else may
 * have made one for the same fields meanwhile: then theirs stays, and our
 * variant goes, for its key is of an epoch that nobody looks for. */
static apr_status_t save_list_variant(mw_handle_t *handle, request_rec *r)
{
    const mw_store_settings_t *settings = mw_store_settings(handle->store);
    mw_handle_t there = *handle;
    mw_digest_t dropped;
    int has_dropped;
    apr_status_t rv;

    there.record_expires = 0;
    if (mw_lookup_record(&there, r) != APR_SUCCESS) {
        there.record = NULL;
    }
    if (there.record != NULL
        && mw_vary_same_fields(there.record->fields, handle->record->fields)) {
        if (memcmp(there.record->epoch, handle->record->epoch,
                   sizeof(there.record->epoch))
            != 0) {
            return APR_NOTFOUND;
        }
        if (mw_vary_lists(there.record, &handle->digest)
            && there.record_expires >= handle->entry.expires) {
            return APR_SUCCESS;
        }
        handle->record = there.record;
    }
    has_dropped = mw_vary_add(handle->record, &handle->digest,
                              settings->max_variants, &dropped);
    rv = save_put_record(handle, r, &there);
    if (rv == APR_SUCCESS && has_dropped) {
        save_remove_variant(handle, r, &dropped, NULL);
    }
    return rv;
}

apr_status_t mw_save_commit(mw_handle_t *handle, request_rec *r)
{
    mw_set_t *set = handle->set;
    cachemw_call_t call;
    apr_status_t rv;

    if (!handle->is_late && !mw_save_is_whole(handle, r)) {
        save_abort(handle);
        return APR_EGENERAL;
    }
    handle->is_late = 0;
    handle->set = NULL;
    handle->deadline = mw_store_set_deadline(set);
    mw_request_call(r, apr_time_now(), &call);
    rv = mw_store_set_commit(set, &call);
    if (rv == APR_SUCCESS && handle->record != NULL) {
        rv = save_list_variant(handle, r);
        if (rv != APR_SUCCESS) {
            save_remove_variant(handle, r, &handle->digest, &handle->entry.id);
        }
    }
    return rv;
}

/* A 304 that names other varying fields than the stored response is about
 * something that cannot be kept under the variant's key. */
static int save_varies_alike(const mw_handle_t *handle, request_rec *r)
{
    int star = 0;
    apr_array_header_t *fields =
        mw_vary_fields(handle->head.headers, &star, r->pool);

    if (star || (fields == NULL) != (handle->record == NULL)) {
        return 0;
    }
    return fields == NULL
           || mw_vary_same_fields(fields, handle->record->fields);
}

apr_status_t mw_save_amended(mw_handle_t *handle, request_rec *r)
{
    /* A 304 may tell how a 200 would have been framed (RFC 9112, section 6.1).
     * mod_cache would send that with the stored body. */
    apr_table_unset(r->headers_out, "Transfer-Encoding");
    apr_table_unset(r->headers_out, "Trailer");
    mw_info_to_head(&handle->head, &handle->object.info);
    handle->head.headers = mw_cacheable_headers(r);
    if (!save_varies_alike(handle, r)) {
        return APR_EINVAL;
    }
    if (handle->record != NULL && handle->asked != NULL
        && save_was_rewritten(handle->record->fields, handle->asked,
                              handle->live, r->pool)) {
        handle->is_private = 1;
        return APR_SUCCESS;
    }
    handle->head.vary_serial = handle->record ? handle->record->serial : 0;
    return save_encode(handle, r);
}

/* Change the head of an entry in place, if neither a newer entry nor a purge or
 * an invalidation has come since it was looked up. */
static apr_status_t save_set_head(mw_handle_t *handle, request_rec *r)
{
    cachemw_call_t call;
    apr_status_t rv;

    if (save_is_overtaken(handle)) {
        mw_store_count(handle->store, MW_COUNT_REFUSED, 1);
        return APR_NOTFOUND;
    }
    save_call_first(handle, r, &call);
    rv = mw_store_set_head(handle->store, &call, &handle->key,
                           &handle->entry.id, &handle->entry);
    return rv == APR_SUCCESS && save_is_overtaken(handle)
               ? save_withdraw(handle, &call, &handle->key, &handle->entry.id)
               : rv;
}

/* The variant now lives longer: so must its record. */
static void save_extend_record(mw_handle_t *handle, request_rec *r)
{
    if (handle->record != NULL
        && handle->record_expires < handle->entry.expires) {
        save_list_variant(handle, r);
    }
}

apr_status_t mw_save_amend(mw_handle_t *handle, request_rec *r)
{
    apr_status_t rv;

    if (handle->is_private) {
        return APR_SUCCESS;
    }
    handle->entry.expires = save_expires(handle, apr_time_now());
    rv = save_set_head(handle, r);
    if (rv == APR_SUCCESS) {
        save_extend_record(handle, r);
    }
    /* What is there by now is newer than what this 304 is about. */
    return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}

apr_status_t mw_save_invalidate(mw_handle_t *handle, request_rec *r)
{
    cachemw_call_t call;
    apr_status_t rv;

    mw_request_call(r, apr_time_now(), &call);
    if (handle->record != NULL) {
        do {
            mw_store_random(&handle->record->serial,
                            sizeof(handle->record->serial));
        } while (handle->record->serial == 0);
        handle->record->invalidated_at = call.now;
        rv = mw_vary_encode(handle->record,
                            mw_store_wants_checksum(handle->store), r->pool,
                            &handle->entry.head, &handle->entry.head_len);
    }
    else {
        handle->head.control |= MW_CONTROL_INVALIDATED;
        rv = save_encode(handle, r);
    }
    call.context = CACHEMW_INVALIDATES;
    if (rv == APR_SUCCESS) {
        rv = mw_store_set_head(handle->store, &call, &handle->plain,
                               &handle->entry.id, &handle->entry);
    }
    /* Rather no copy for bad times than one that passes for fresh. */
    if (rv != APR_SUCCESS && rv != APR_NOTFOUND) {
        rv = mw_store_remove(handle->store, &call, &handle->plain, NULL);
    }
    mw_store_count(handle->store, MW_COUNT_INVALIDATED, 1);
    return rv == APR_NOTFOUND ? APR_SUCCESS : rv;
}
