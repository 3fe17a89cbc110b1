/* SPDX-License-Identifier: Apache-2.0 */

#include "apr_general.h"

#include "core/lazy_bucket.h"
#include "tests/unit/shared.h"

#define PIECE CACHEMW_PIECE_MAX

/** What a source does when it is asked. */
typedef enum answer_e {
    GIVE_ALL,    /**< as much as wanted, in one bucket */
    GIVE_SOME,   /**< any number of bytes in any number of buckets */
    GIVE_POOLED, /**< memory of the call's pool */
    GIVE_ERROR,  /**< from here on all are failures */
    GIVE_NOTHING,
    GIVE_EMPTY,
    GIVE_TOO_MUCH,
    GIVE_METADATA,
    GIVE_UNKNOWN_LENGTH,
    GIVE_UNREADABLE,
    GIVE_SHORT_FILE,
    GIVE_SHORT_READ,
    GIVE_EMPTY_READ,
    ANSWERS
} answer_e;

typedef struct source_t {
    apr_pool_t *pool;  /**< of the test */
    const char *bytes; /**< NULL: the low byte of the offset's 4 KB page */
    apr_off_t length;
    answer_e answer;
    apr_off_t fail_from; /**< a piece that reaches this offset fails */
    answer_e failure;
    apr_uint32_t seed;
    int reads;
    int pools; /**< of calls, not yet destroyed */
    int destroyed;
    int cuts;
    apr_status_t why;
    apr_bucket *where;
} source_t;

static apr_status_t pool_count_down(void *data)
{
    ((source_t *)data)->pools--;
    return APR_SUCCESS;
}

static apr_status_t pipe_make(apr_bucket_brigade *body, apr_pool_t *pool)
{
    apr_file_t *in;
    apr_file_t *out;

    assert_int_equal(apr_file_pipe_create(&in, &out, pool), APR_SUCCESS);
    APR_BRIGADE_INSERT_TAIL(body,
                            apr_bucket_pipe_create(in, body->bucket_alloc));
    return APR_SUCCESS;
}

static apr_status_t file_make(apr_bucket_brigade *body, const char *path,
                              apr_size_t length, apr_pool_t *pool)
{
    apr_file_t *file;

    assert_int_equal(apr_file_open(&file, path, APR_FOPEN_READ, 0, pool),
                     APR_SUCCESS);
    APR_BRIGADE_INSERT_TAIL(body, apr_bucket_file_create(file, 0, length, pool,
                                                         body->bucket_alloc));
    return APR_SUCCESS;
}

static void bytes_append(source_t *source, apr_off_t offset, apr_size_t length,
                         apr_bucket_brigade *body)
{
    char page[4096];

    if (source->bytes) {
        apr_brigade_write(body, NULL, NULL, source->bytes + offset, length);
        return;
    }
    memset(page, (int)(offset >> 12) & 0xff, sizeof(page));
    length = length < sizeof(page) ? length : sizeof(page);
    apr_brigade_write(body, NULL, NULL, page, length);
}

static void some_append(source_t *source, apr_off_t offset, apr_size_t limit,
                        apr_bucket_brigade *body)
{
    apr_size_t left = 1 + random_next(&source->seed) % limit;

    while (left) {
        const apr_size_t n = 1 + random_next(&source->seed) % left;

        if (random_next(&source->seed) % 4 == 0) {
            APR_BRIGADE_INSERT_TAIL(
                body, apr_bucket_immortal_create("", 0, body->bucket_alloc));
        }
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_heap_create(source->bytes + offset, n, NULL,
                                         body->bucket_alloc));
        offset += n;
        left -= n;
    }
}

/** A bucket that turns out to have fewer bytes when it is read. */
static apr_status_t vanishing_read(apr_bucket *bucket, const char **text,
                                   apr_size_t *length, apr_read_type_e block)
{
    (void)block;
    *text = bucket->data;
    *length = (apr_size_t)bucket->start;
    bucket->length = *length;
    return APR_SUCCESS;
}

static const apr_bucket_type_t vanishing_type = {
    .name = "VANISHING",
    .num_func = 5,
    .is_metadata = APR_BUCKET_DATA,
    .destroy = apr_bucket_destroy_noop,
    .read = vanishing_read,
    .setaside = apr_bucket_setaside_noop,
    .split = apr_bucket_split_notimpl,
    .copy = apr_bucket_copy_notimpl,
};

static void vanishing_append(apr_bucket_brigade *body, apr_size_t before,
                             apr_size_t after)
{
    apr_bucket *bucket =
        apr_bucket_immortal_create("xx", before, body->bucket_alloc);

    bucket->type = &vanishing_type;
    bucket->data = (void *)"xx";
    bucket->start = (apr_off_t)after;
    APR_BRIGADE_INSERT_TAIL(body, bucket);
}

static apr_status_t source_answer(source_t *source, answer_e answer,
                                  apr_off_t offset, apr_size_t limit,
                                  apr_bucket_brigade *body, apr_pool_t *pool)
{
    apr_bucket_alloc_t *list = body->bucket_alloc;

    switch (answer) {
    case GIVE_ALL:
        bytes_append(source, offset, limit, body);
        return APR_SUCCESS;
    case GIVE_SOME:
        some_append(source, offset, limit, body);
        return APR_SUCCESS;
    case GIVE_POOLED:
        APR_BRIGADE_INSERT_TAIL(
            body, apr_bucket_pool_create(
                      apr_pmemdup(pool, source->bytes + offset, limit), limit,
                      pool, list));
        return APR_SUCCESS;
    case GIVE_NOTHING:
        return APR_SUCCESS;
    case GIVE_EMPTY:
        APR_BRIGADE_INSERT_TAIL(body, apr_bucket_immortal_create("", 0, list));
        return APR_SUCCESS;
    case GIVE_TOO_MUCH:
        bytes_append(source, offset, limit, body);
        APR_BRIGADE_INSERT_TAIL(body, apr_bucket_immortal_create("x", 1, list));
        return APR_SUCCESS;
    case GIVE_METADATA:
        APR_BRIGADE_INSERT_TAIL(body, apr_bucket_immortal_create("x", 1, list));
        APR_BRIGADE_INSERT_TAIL(body, apr_bucket_eos_create(list));
        return APR_SUCCESS;
    case GIVE_UNKNOWN_LENGTH:
        return pipe_make(body, pool);
    case GIVE_UNREADABLE:
        return file_make(body, "/", 1, source->pool);
    case GIVE_SHORT_FILE:
        return file_make(body, "/dev/null", 1, source->pool);
    case GIVE_SHORT_READ:
        vanishing_append(body, 100, 1);
        return APR_SUCCESS;
    case GIVE_EMPTY_READ:
        vanishing_append(body, 100, 0);
        return APR_SUCCESS;
    default:
        bytes_append(source, offset, 1, body);
        return APR_TIMEUP;
    }
}

static apr_status_t source_read(void *data, apr_off_t offset, apr_size_t limit,
                                apr_bucket_brigade *body, apr_pool_t *pool)
{
    source_t *source = data;
    const int fails = offset + (apr_off_t)limit > source->fail_from;

    source->reads++;
    source->pools++;
    apr_pool_cleanup_register(pool, source, pool_count_down,
                              apr_pool_cleanup_null);
    assert_int_equal(source->destroyed, 0);
    assert_true(APR_BRIGADE_EMPTY(body));
    assert_in_range(limit, 1, PIECE);
    assert_true(offset >= 0);
    assert_true(offset + (apr_off_t)limit <= source->length);
    return source_answer(source, fails ? source->failure : source->answer,
                         offset, limit, body, pool);
}

static void source_cut(void *data, apr_bucket *bucket, apr_status_t rv)
{
    source_t *source = data;

    assert_true(MW_BUCKET_IS_LAZY(bucket));
    assert_int_equal(source->destroyed, 0);
    source->cuts++;
    source->why = rv;
    source->where = bucket;
    APR_BUCKET_INSERT_AFTER(bucket, apr_bucket_flush_create(bucket->list));
}

static void source_destroy(void *data)
{
    ((source_t *)data)->destroyed++;
}

static const mw_lazy_t functions = {
    .read = source_read,
    .cut = source_cut,
    .destroy = source_destroy,
};

static source_t *source_make(apr_off_t length, answer_e answer,
                             apr_pool_t *pool)
{
    source_t *source = apr_pcalloc(pool, sizeof(*source));

    source->pool = pool;
    source->length = length;
    source->answer = answer;
    source->fail_from = length;
    source->failure = GIVE_ERROR;
    source->seed = (apr_uint32_t)length + answer;
    return source;
}

static const char *noise_make(apr_size_t length, apr_pool_t *pool)
{
    char *noise = apr_palloc(pool, length + 1);
    apr_uint32_t seed = 99;
    apr_size_t i;

    for (i = 0; i < length; i++) {
        noise[i] = (char)random_next(&seed);
    }
    return noise;
}

/** A brigade with one lazy bucket on the whole of a source. */
static apr_bucket_brigade *body_make(source_t *source)
{
    apr_bucket_alloc_t *list = apr_bucket_alloc_create(source->pool);
    apr_bucket_brigade *body = apr_brigade_create(source->pool, list);
    apr_bucket *bucket =
        mw_bucket_lazy_create(&functions, source, 0, source->length, list);

    assert_non_null(bucket);
    APR_BRIGADE_INSERT_TAIL(body, bucket);
    return body;
}

static void body_check(apr_bucket_brigade *body, const char *expected,
                       apr_off_t length)
{
    apr_bucket *bucket;
    apr_off_t known;

    assert_int_equal(apr_brigade_length(body, 0, &known), APR_SUCCESS);
    assert_int_equal(known, length);
    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        const char *data;
        apr_size_t n;

        assert_int_equal(apr_bucket_read(bucket, &data, &n, APR_BLOCK_READ),
                         APR_SUCCESS);
        assert_int_equal(n, bucket->length);
        assert_true((apr_off_t)n <= length);
        assert_memory_equal(data, expected, n);
        expected += n;
        length -= n;
    }
    assert_int_equal(length, 0);
}

static void test_lazy_reads_piece_by_piece(void **state)
{
    static const apr_size_t lengths[] = { 1, PIECE - 1, PIECE, PIECE + 1,
                                          5 * PIECE + 17 };
    static const answer_e answers[] = { GIVE_ALL, GIVE_POOLED, GIVE_SOME };
    int i;
    int j;

    for (i = 0; i < COUNT(lengths); i++) {
        for (j = 0; j < COUNT(answers); j++) {
            source_t *source = source_make(lengths[i], answers[j], *state);
            apr_bucket_brigade *body = body_make(source);

            source->bytes = noise_make(lengths[i], *state);
            assert_int_equal(source->reads, 0);
            body_check(body, source->bytes, lengths[i]);
            assert_int_equal(source->destroyed, 1);
            if (answers[j] != GIVE_SOME) {
                assert_int_equal(source->reads,
                                 (lengths[i] + PIECE - 1) / PIECE);
            }
            apr_brigade_destroy(body);
            assert_int_equal(source->destroyed, 1);
            assert_int_equal(source->pools, 0);
            assert_int_equal(source->cuts, 0);
        }
    }
}

/* Not more than a piece at once is in memory while a client reads. */
static void test_lazy_memory_stays_small(void **state)
{
    const apr_off_t length = 1000 * (apr_off_t)PIECE;
    source_t *source = source_make(length, GIVE_ALL, *state);
    apr_bucket_brigade *body = body_make(source);
    apr_off_t offset = 0;

    while (!APR_BRIGADE_EMPTY(body)) {
        apr_bucket *bucket = APR_BRIGADE_FIRST(body);
        const char *data;
        apr_size_t n;

        assert_int_equal(apr_bucket_read(bucket, &data, &n, APR_BLOCK_READ),
                         APR_SUCCESS);
        assert_int_equal((unsigned char)data[0], (offset >> 12) & 0xff);
        offset += n;
        apr_bucket_delete(bucket);
        assert_true(APR_BRIGADE_EMPTY(body)
                    || MW_BUCKET_IS_LAZY(APR_BRIGADE_FIRST(body)));
        assert_int_equal(source->destroyed, APR_BRIGADE_EMPTY(body));
    }
    assert_int_equal(offset, length);
}

static void test_lazy_survives_setaside_without_its_pool(void **state)
{
    source_t *source = source_make(3 * PIECE, GIVE_ALL, *state);
    apr_bucket_brigade *body = body_make(source);
    apr_bucket *bucket = APR_BRIGADE_FIRST(body);
    apr_pool_t *pool;

    source->bytes = noise_make(source->length, *state);
    apr_pool_create(&pool, *state);
    assert_int_equal(apr_bucket_setaside(bucket, pool), APR_SUCCESS);
    apr_pool_destroy(pool);
    assert_true(MW_BUCKET_IS_LAZY(bucket));
    assert_int_equal(source->reads, 0);
    body_check(body, source->bytes, source->length);
}

static void test_lazy_unread_is_never_fetched(void **state)
{
    source_t *source = source_make(3 * PIECE, GIVE_ALL, *state);
    apr_bucket_brigade *body = body_make(source);
    apr_bucket *copy;

    assert_int_equal(apr_bucket_split(APR_BRIGADE_FIRST(body), 10),
                     APR_SUCCESS);
    assert_int_equal(apr_bucket_copy(APR_BRIGADE_LAST(body), &copy),
                     APR_SUCCESS);
    apr_brigade_destroy(body);
    assert_int_equal(source->destroyed, 0);
    apr_bucket_destroy(copy);
    assert_int_equal(source->destroyed, 1);
    assert_int_equal(source->reads, 0);
}

/** What a brigade should hold, byte for byte. */
typedef struct text_t {
    char bytes[4000000];
    apr_size_t length;
} text_t;

static apr_bucket *bucket_choose(apr_bucket_brigade *body, apr_uint32_t *seed,
                                 apr_size_t *offset)
{
    apr_bucket *bucket;
    int n = 0;

    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        n++;
    }
    n = random_next(seed) % n;
    *offset = 0;
    for (bucket = APR_BRIGADE_FIRST(body); n--;
         bucket = APR_BUCKET_NEXT(bucket)) {
        *offset += bucket->length;
    }
    return bucket;
}

/** Split, copy, drop, read or set aside any bucket of a body. */
static void body_change(apr_bucket_brigade *body, text_t *text,
                        apr_uint32_t *seed)
{
    apr_size_t offset;
    apr_bucket *bucket = bucket_choose(body, seed, &offset);
    const apr_size_t length = bucket->length;
    const char *data;
    apr_bucket *copy;
    apr_size_t n;

    switch (random_next(seed) % 5) {
    case 0:
        if (length > 1) {
            assert_int_equal(
                apr_bucket_split(bucket, 1 + random_next(seed) % (length - 1)),
                APR_SUCCESS);
        }
        break;
    case 1:
        if (text->length + length <= sizeof(text->bytes)) {
            assert_int_equal(apr_bucket_copy(bucket, &copy), APR_SUCCESS);
            APR_BUCKET_INSERT_AFTER(bucket, copy);
            memmove(text->bytes + offset + length, text->bytes + offset,
                    text->length - offset);
            text->length += length;
        }
        break;
    case 2:
        if (length < text->length / 4) {
            apr_bucket_delete(bucket);
            memmove(text->bytes + offset, text->bytes + offset + length,
                    text->length - offset - length);
            text->length -= length;
        }
        break;
    case 3:
        assert_int_equal(apr_bucket_read(bucket, &data, &n, APR_NONBLOCK_READ),
                         APR_SUCCESS);
        assert_memory_equal(data, text->bytes + offset, n);
        break;
    default:
        assert_int_equal(apr_bucket_setaside(bucket, body->p), APR_SUCCESS);
        break;
    }
}

/* Ranges, mod_deflate, a slow client: whatever filters do with the buckets,
 * the client gets the right bytes. */
static void test_lazy_in_any_order(void **state)
{
    const apr_size_t length = 10 * PIECE + 123;
    const char *noise = noise_make(length, *state);
    text_t *text = malloc(sizeof(*text));
    apr_uint32_t seed = 31;
    int round;
    int i;

    assert_non_null(text);
    for (round = 0; round < 40; round++) {
        source_t *source =
            source_make(length, round % 4 ? GIVE_SOME : GIVE_ALL, *state);
        apr_bucket_brigade *body = body_make(source);

        source->bytes = noise;
        memcpy(text->bytes, noise, length);
        text->length = length;
        for (i = 0; i < 100; i++) {
            body_change(body, text, &seed);
        }
        body_check(body, text->bytes, text->length);
        apr_brigade_destroy(body);
        assert_int_equal(source->destroyed, 1);
        assert_int_equal(source->pools, 0);
        assert_int_equal(source->cuts, 0);
    }
    free(text);
}

/** Read all of a body whose source fails; how many bytes came. */
static apr_off_t body_read_until_cut(apr_bucket_brigade *body, source_t *source)
{
    apr_off_t got = 0;
    apr_bucket *bucket;

    for (bucket = APR_BRIGADE_FIRST(body); bucket != APR_BRIGADE_SENTINEL(body);
         bucket = APR_BUCKET_NEXT(bucket)) {
        const char *data;
        apr_size_t n = 99;

        assert_int_equal(apr_bucket_read(bucket, &data, &n, APR_BLOCK_READ),
                         APR_SUCCESS);
        assert_int_equal(n, bucket->length);
        assert_false(MW_BUCKET_IS_LAZY(bucket));
        if (bucket == source->where) {
            assert_int_equal(n, 0);
            assert_true(APR_BUCKET_IS_IMMORTAL(bucket));
            assert_true(APR_BUCKET_IS_FLUSH(APR_BUCKET_NEXT(bucket)));
        }
        assert_memory_equal(data, source->bytes + got, n);
        got += n;
    }
    return got;
}

/* A body that fails half-way is cut at the fault: all bytes before it are
 * right, none follows, and nobody is told that all went well. */
static void test_lazy_cut_at_every_piece(void **state)
{
    const apr_size_t length = 4 * PIECE + 100;
    const char *noise = noise_make(length, *state);
    answer_e failure;
    int piece;

    for (failure = GIVE_ERROR; failure < ANSWERS; failure++) {
        for (piece = 0; piece < 5; piece++) {
            source_t *source = source_make(length, GIVE_ALL, *state);
            apr_bucket_brigade *body = body_make(source);

            source->bytes = noise;
            source->failure = failure;
            source->fail_from = piece * (apr_off_t)PIECE;
            assert_int_equal(body_read_until_cut(body, source),
                             source->fail_from);
            assert_int_equal(source->cuts, 1);
            assert_int_equal(source->reads, piece + 1);
            assert_int_not_equal(source->why, APR_SUCCESS);
            if (failure == GIVE_ERROR) {
                assert_int_equal(source->why, APR_TIMEUP);
            }
            assert_int_equal(source->destroyed, 1);
            assert_int_equal(source->pools, 0);
            apr_brigade_destroy(body);
            assert_int_equal(source->destroyed, 1);
        }
    }
}

/* The rest of a range response must not wait for a dead backend again. */
static void test_lazy_failed_source_is_asked_once(void **state)
{
    source_t *source = source_make(8 * PIECE, GIVE_ALL, *state);
    apr_bucket_brigade *body = body_make(source);
    apr_bucket *bucket;

    source->bytes = noise_make(source->length, *state);
    source->fail_from = PIECE;
    bucket = APR_BRIGADE_FIRST(body);
    assert_int_equal(apr_bucket_split(bucket, 3 * PIECE), APR_SUCCESS);
    assert_int_equal(apr_bucket_split(APR_BUCKET_NEXT(bucket), 3 * PIECE),
                     APR_SUCCESS);
    assert_int_equal(body_read_until_cut(body, source), PIECE);
    assert_int_equal(source->reads, 2);
    assert_int_equal(source->cuts, 3);
    assert_int_equal(source->destroyed, 1);
}

static void test_lazy_beyond_four_gigabytes(void **state)
{
    const apr_off_t length = APR_INT64_C(9) << 30;
    const apr_off_t offset = (APR_INT64_C(17) << 28) + 4096 * 7;
    source_t *source = source_make(length, GIVE_ALL, *state);
    apr_bucket_brigade *body = body_make(source);
    apr_bucket *bucket;
    const char *data;
    apr_off_t known;
    apr_size_t n;

    assert_int_equal(apr_brigade_partition(body, offset, &bucket), APR_SUCCESS);
    assert_int_equal(apr_bucket_read(bucket, &data, &n, APR_BLOCK_READ),
                     APR_SUCCESS);
    assert_int_equal((unsigned char)data[0], (offset >> 12) & 0xff);
    assert_int_equal(apr_brigade_length(body, 0, &known), APR_SUCCESS);
    assert_int_equal(known, length);
    apr_brigade_destroy(body);
    assert_int_equal(source->destroyed, 1);
}

/* The caller keeps a source whose body no bucket can stand for. */
static void test_lazy_impossible_length(void **state)
{
    source_t *source = source_make(1, GIVE_ALL, *state);
    apr_bucket_alloc_t *list = apr_bucket_alloc_create(*state);

    assert_null(mw_bucket_lazy_create(&functions, source, 0, -1, list));
    assert_int_equal(source->destroyed, 0);
}

#define POOLED(f) \
    cmocka_unit_test_setup_teardown(f, shared_pool_setup, shared_pool_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOLED(test_lazy_reads_piece_by_piece),
        POOLED(test_lazy_memory_stays_small),
        POOLED(test_lazy_survives_setaside_without_its_pool),
        POOLED(test_lazy_unread_is_never_fetched),
        POOLED(test_lazy_in_any_order),
        POOLED(test_lazy_cut_at_every_piece),
        POOLED(test_lazy_failed_source_is_asked_once),
        POOLED(test_lazy_beyond_four_gigabytes),
        POOLED(test_lazy_impossible_length),
    };
    int failed;

    apr_initialize();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed;
}
