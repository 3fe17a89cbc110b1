/* SPDX-License-Identifier: Apache-2.0 */

/* What hit_cost.sh counts: hits on the store "memory", as the adapter makes
 * them of what is here below it. The argument says which: plain, varying, or near,
 * which is plain in the near one of two tiers. */

#include "tests/unit/store_fixture.h"

#include "core/vary.h"
#include "providers/memory/memory.h"
#include "providers/multitier/multitier.h"

#define HITS 100
#define BODY 1000

static cachemw_entry_t stored(const fixture_t *f, const void *head,
                              apr_size_t length)
{
    cachemw_entry_t entry = fixture_entry('e', "", 0);

    entry.head = head;
    entry.head_len = length;
    entry.body = apr_brigade_create(f->pool, f->alloc);
    return entry;
}

/* A response of usual size, of what varies if it has a block. */
static void put_response(fixture_t *f, const cachemw_key_t *key,
                         const char *block, apr_size_t block_len)
{
    cachemw_call_t call = fixture_call(f);
    mw_head_t head = { .status = 200, .max_age = 3600 };
    cachemw_entry_t entry;
    const void *bytes;
    apr_size_t length;

    head.vary_block = block;
    head.vary_block_len = block_len;
    head.headers = apr_table_make(f->pool, 8);
    apr_table_addn(head.headers, "Date", "Mon, 24 Nov 2025 16:00:00 GMT");
    apr_table_addn(head.headers, "Server", "nginx/1.22.1");
    apr_table_addn(head.headers, "Content-Type", "text/html; charset=utf-8");
    apr_table_addn(head.headers, "Content-Length", "1000");
    apr_table_addn(head.headers, "Last-Modified",
                   "Mon, 24 Nov 2025 15:00:00 GMT");
    apr_table_addn(head.headers, "ETag", "\"6924712d-3e8\"");
    apr_table_addn(head.headers, "Cache-Control", "max-age=3600");
    apr_table_addn(head.headers, "Accept-Ranges", "bytes");
    assert_int_equal(mw_head_encode(&head, 0, f->pool, &bytes, &length),
                     APR_SUCCESS);
    entry = stored(f, bytes, length);
    entry.body_len = BODY;
    APR_BRIGADE_INSERT_TAIL(entry.body,
                            apr_bucket_pool_create(apr_pcalloc(f->pool, BODY),
                                                   BODY, f->pool, f->alloc));
    assert_int_equal(mw_store_set(f->store, &call, key, &entry), APR_SUCCESS);
}

static void put_record(fixture_t *f, const cachemw_key_t *plain,
                       const apr_table_t *request)
{
    const unsigned char random[24] = "epoch and serial";
    apr_array_header_t *fields = apr_array_make(f->pool, 1, sizeof(char *));
    cachemw_call_t call = fixture_call(f);
    mw_digest_t digest, dropped;
    cachemw_entry_t entry;
    cachemw_key_t key;
    mw_vary_t *record;
    const void *bytes;
    const char *block;
    apr_size_t length;

    APR_ARRAY_PUSH(fields, const char *) = "accept-encoding";
    record = mw_vary_make(fields, random, f->pool);
    block = mw_vary_block(fields, mw_vary_asked(request), &length, f->pool);
    mw_vary_digest(record, block, length, &digest);
    mw_vary_key(plain, record, &digest, &key, f->pool);
    put_response(f, &key, block, length);
    mw_vary_add(record, &digest, 8, &dropped);
    assert_int_equal(mw_vary_encode(record, 0, f->pool, &bytes, &length),
                     APR_SUCCESS);
    entry = stored(f, bytes, length);
    assert_int_equal(mw_store_set(f->store, &call, plain, &entry), APR_SUCCESS);
}

/* One request's look-up; what is counted, with all that it calls. */
static int __attribute__((noinline))
hit(mw_store_t *store, const cachemw_call_t *call, const cachemw_key_t *plain,
    const apr_table_t *request, cachemw_entry_t *entry)
{
    mw_head_t head;
    mw_digest_t digest;
    cachemw_key_t key;
    mw_vary_t *record;
    mw_asked_t asked;
    const char *block;
    apr_size_t length;

    if (mw_store_get(store, call, plain, entry) != APR_SUCCESS) {
        return 0;
    }
    if (mw_head_kind(entry->head, entry->head_len) == MW_HEAD_RESPONSE) {
        return mw_head_decode_own(entry->head, entry->head_len, entry->body_len,
                                  call->pool, &head)
               == APR_SUCCESS;
    }
    if (mw_vary_decode_own(entry->head, entry->head_len, call->pool, &record)
        != APR_SUCCESS) {
        return 0;
    }
    asked = mw_vary_asked(request);
    block = mw_vary_block(record->fields, asked, &length, call->pool);
    mw_vary_digest(record, block, length, &digest);
    mw_vary_key(plain, record, &digest, &key, call->pool);
    return mw_vary_lists(record, &digest)
           && mw_store_get(store, call, &key, entry) == APR_SUCCESS
           && mw_head_decode_own(entry->head, entry->head_len, entry->body_len,
                                 call->pool, &head)
                  == APR_SUCCESS
           && head.vary_block_len == length
           && !memcmp(head.vary_block, block, length)
           && mw_vary_acceptable(asked, NULL);
}

static mw_store_t *stores[2];

static mw_store_t *stores_find(void *baton, const char *name)
{
    (void)baton;
    return stores[strcmp(name, "near") != 0];
}

/* The store that is asked: memory, or two of that. */
static void store_start(fixture_t *f, int is_tiered)
{
    static const char *const options[] = { "size=8M", NULL };
    static const char *const tiers[] = { "l1=near", "l2=far", NULL };

    f->name = "near";
    stores[0] = fixture_start(f, &mw_memory_provider, options);
    if (is_tiered) {
        f->name = "far";
        stores[1] = fixture_start(f, &mw_memory_provider, options);
        f->host.find = stores_find;
        f->name = "tiers";
        fixture_start(f, &mw_multitier_provider, tiers);
    }
}

int main(int argc, char **argv)
{
    const cachemw_key_t plain =
        fixture_key("www.example.com:80/http://www.example.com:80/1k/17.bin?");
    apr_table_t *request;
    void *state;
    fixture_t *f;
    int i;

    if (argc != 2) {
        return 2;
    }
    fixture_setup(&state);
    f = state;
    store_start(f, strcmp(argv[1], "near") == 0);
    request = apr_table_make(f->pool, 4);
    apr_table_addn(request, "Host", "www.example.com");
    apr_table_addn(request, "Accept", "text/html");
    apr_table_addn(request, "Accept-Encoding", "gzip, deflate, br");
    if (strcmp(argv[1], "varying") == 0) {
        put_record(f, &plain, request);
    }
    else {
        put_response(f, &plain, NULL, 0);
    }
    for (i = 0; i < HITS; i++) {
        cachemw_call_t call = fixture_call(f);
        cachemw_entry_t entry;

        memset(&entry, 0, sizeof(entry));
        apr_pool_create(&call.pool, f->pool);
        entry.body = apr_brigade_create(f->pool, f->alloc);
        if (!hit(f->store, &call, &plain, request, &entry)
            || entry.body_len != BODY) {
            return 1;
        }
        apr_brigade_destroy(entry.body);
        apr_pool_destroy(call.pool);
    }
    return 0;
}
