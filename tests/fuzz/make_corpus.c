/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Writes the seeds of the fuzz target: two responses and a Vary record in
 * several shapes, and requests as "Name: value" lines. After a change of the
 * format, in the directory of the build:
 *
 *     make tests/fuzz/make_corpus
 *     tests/fuzz/make_corpus SOURCE/tests/fuzz/corpus
 *
 * and commit what it wrote.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apr_general.h"
#include "apr_strings.h"

#include "core/entry.h"
#include "core/vary.h"

static const char *directory;

static void seed_write(const char *name, const void *bytes, apr_size_t length,
                       apr_pool_t *pool)
{
    const char *path = apr_pstrcat(pool, directory, "/", name, NULL);
    FILE *file = fopen(path, "wb");

    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file)) {
        perror(path);
        exit(1);
    }
}

static void head_write(const char *name, const mw_head_t *head, int checksum,
                       apr_pool_t *pool)
{
    const void *bytes;
    apr_size_t length;

    if (mw_head_encode(head, checksum, pool, &bytes, &length) != APR_SUCCESS) {
        fprintf(stderr, "%s: not encoded\n", name);
        exit(1);
    }
    seed_write(name, bytes, length, pool);
}

static void record_write(const char *name, const char *vary, int variants,
                         int checksum, apr_pool_t *pool)
{
    apr_table_t *headers = apr_table_make(pool, 1);
    mw_digest_t digest = { { 0 } }, dropped;
    mw_vary_t *record;
    const void *bytes;
    apr_size_t length;
    int star;

    apr_table_setn(headers, "Vary", vary);
    record =
        mw_vary_make(mw_vary_fields(headers, &star, pool),
                     (const unsigned char *)"sixteen byte id.a serial", pool);
    for (; variants; variants--) {
        digest.bytes[0] = (unsigned char)variants;
        mw_vary_add(record, &digest, MW_VARIANTS_MAX, &dropped);
    }
    if (mw_vary_encode(record, checksum, pool, &bytes, &length)
        != APR_SUCCESS) {
        fprintf(stderr, "%s: not encoded\n", name);
        exit(1);
    }
    seed_write(name, bytes, length, pool);
}

static const char *long_value(apr_size_t length, apr_pool_t *pool)
{
    char *value = apr_palloc(pool, length + 1);

    memset(value, 'v', length);
    value[length] = 0;
    return value;
}

static void responses_write(apr_pool_t *pool)
{
    mw_head_t head = { .status = 200 };

    head_write("response-bare", &head, 0, pool);
    head_write("response-bare-checksum", &head, 1, pool);
    head.date = APR_INT64_C(1764000000000000);
    head.expire = APR_INT64_C(1764000060000000);
    head.request_time = head.response_time = head.date;
    head.control = MW_CONTROL_PARSED | MW_CONTROL_MAX_AGE;
    head.max_age = 60;
    head.headers = apr_table_make(pool, 8);
    apr_table_addn(head.headers, "Date", "Mon, 24 Nov 2025 16:00:00 GMT");
    apr_table_addn(head.headers, "Content-Type", "text/html; charset=utf-8");
    apr_table_addn(head.headers, "Content-Length", "1024");
    apr_table_addn(head.headers, "ETag", "\"abc\"");
    apr_table_addn(head.headers, "Link", "</a>; rel=next");
    apr_table_addn(head.headers, "Link", "</b>; rel=prev");
    head_write("response", &head, 0, pool);
    head_write("response-checksum", &head, 1, pool);
    apr_table_addn(head.headers, "content-length", "1024");
    apr_table_addn(head.headers, "X_odd!#$%&'*+.^`|~", "\ttab\x7f\xff");
    apr_table_addn(head.headers, "Transfer-Encoder", "");
    head_write("response-odd", &head, 0, pool);
    apr_table_addn(head.headers, "Long", long_value(5000, pool));
    head_write("response-long", &head, 0, pool);
    apr_table_unset(head.headers, "Long");
    head.vary_serial = 1;
    head.vary_block = "\1\0\0\0a\1\0\0\0\1\0\0\0\n";
    head.vary_block_len = 14;
    head_write("response-variant", &head, 0, pool);
}

static void requests_write(apr_pool_t *pool)
{
    static const char *const requests[] = {
        "Vary: accept-encoding\nAccept-Encoding: gzip, deflate, br, zstd\n"
        "Content-Encoding: gzip\n",
        "Vary: Accept-Encoding, Accept\nAccept-Encoding: x-gzip;q=0.5, *;q=0\n"
        "Accept: text/html;level=1;q=0.7, */*\nContent-Encoding: br, gzip\n",
        "Vary: accept-language,cookie\nAccept-Language: de-DE , en ; q = 0.5\n"
        "Cookie: a=1\nCookie: b=2\n",
        "Vary: accept, *\nAccept: a;p=\"x, \\\" y\"\naccept: B\n",
        "Date: Mon, 24 Nov 2025 16:00:00 GMT\nContent-Length:12\n"
        "Content-Length:12\nETag:\"a\"\n",
        "Accept-Encoding: identity;q=0, gz ip, ,;q=1, foo;x=y;q=0.000\n",
    };
    int i;

    for (i = 0; i < (int)(sizeof(requests) / sizeof(requests[0])); i++) {
        seed_write(apr_psprintf(pool, "request-%d", i + 1), requests[i],
                   strlen(requests[i]), pool);
    }
}

int main(int argc, const char *const *argv)
{
    apr_pool_t *pool;

    if (argc != 2) {
        fputs("usage: make_corpus DIRECTORY\n", stderr);
        return 2;
    }
    directory = argv[1];
    apr_initialize();
    apr_pool_create(&pool, NULL);
    responses_write(pool);
    record_write("record", "accept-encoding", 0, 0, pool);
    record_write("record-checksum", "accept-encoding", 2, 1, pool);
    record_write("record-long", "accept,accept-language,cookie,user-agent", 5,
                 0, pool);
    requests_write(pool);
    apr_terminate();
    return 0;
}
