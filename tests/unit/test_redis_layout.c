/* SPDX-License-Identifier: Apache-2.0 */

/* Who may write to a Redis that others use can put together what he finds
 * there in any way: whatever was not stored as it lies there must not be read,
 * with a secret because it cannot be made, without because it is noticed. */

#include "shared.h"

#include "providers/redis/layout.h"

typedef struct world_t {
    apr_pool_t *pool;
    cachemw_services_t services;
    mw_redis_t store;
    const char *counted; /* the last kind */
} world_t;

static world_t *world;

static void world_log(const cachemw_services_t *services, cachemw_level_e level,
                      apr_status_t rv, const char *format, ...)
{
    (void)services, (void)level, (void)rv, (void)format;
}

void mw_redis_count(const mw_redis_t *store, const char *kind)
{
    (void)store;
    world->counted = kind;
}

/* Everything holds with a secret and without. */
static int setup(void **state, const char *secret)
{
    apr_pool_t *pool;

    if (apr_pool_create(&pool, NULL) != APR_SUCCESS) {
        return -1;
    }
    world = apr_pcalloc(pool, sizeof(*world));
    world->pool = pool;
    world->services.log = world_log;
    world->store.services = &world->services;
    world->store.settings.key_prefix = "cachemw:";
    world->store.seal = secret ? mw_redis_seal_make(secret, pool) : NULL;
    *state = world;
    return secret && !world->store.seal ? -1 : 0;
}

static int setup_sealed(void **state)
{
    return setup(state, "a secret of some length");
}

static int setup_plain(void **state)
{
    return setup(state, NULL);
}

static int teardown(void **state)
{
    apr_pool_destroy(((world_t *)*state)->pool);
    return 0;
}

/* --- what lies in Redis --------------------------------------------------- */

/* An entry and all that is stored of it, in memory of its own. */
typedef struct made_t {
    cachemw_key_t key;
    cachemw_entry_t entry;
    mw_redis_bytes_t header;
} made_t;

/* Two of one number differ in nothing but their id. */
static void make(made_t *made, int number, unsigned char id)
{
    apr_pool_t *pool = world->pool;

    memset(made, 0, sizeof(*made));
    made->key.data = apr_psprintf(pool, "http://h/page%d", number);
    made->key.len = strlen(made->key.data);
    made->entry.head = apr_psprintf(pool, "head %d", number);
    made->entry.head_len = strlen(made->entry.head);
    made->entry.expires = 1000 + number;
    made->entry.body_len = 3 * MW_REDIS_PIECE;
    memset(made->entry.id.bytes, id, sizeof(made->entry.id.bytes));
    assert_int_equal(mw_redis_header_make(&world->store, &made->key,
                                          &made->entry, pool, &made->header),
                     APR_SUCCESS);
}

static mw_redis_bytes_t piece_make(const cachemw_id_t *id, apr_uint64_t number,
                                   const char *data)
{
    apr_size_t len = strlen(data);
    char *bytes = apr_palloc(world->pool, len + MW_REDIS_PIECE_END_MAX);
    mw_redis_bytes_t piece = { bytes,
                               len + mw_redis_piece_end_len(&world->store) };
    mw_redis_mark_t mark;

    memcpy(bytes, data, len);
    mw_redis_piece_begin(&world->store, id, number, &mark);
    mw_redis_mark_add(&mark, data, len);
    assert_int_equal(mw_redis_piece_end(id, &mark, bytes + len), APR_SUCCESS);
    return piece;
}

static apr_status_t header_read(const mw_redis_bytes_t *header,
                                cachemw_key_t *key, cachemw_entry_t *entry)
{
    world->counted = NULL;
    return mw_redis_header_read(&world->store, NULL, header->data, header->len,
                                key, entry);
}

static apr_status_t piece_check(const mw_redis_bytes_t *piece,
                                const cachemw_id_t *id, apr_uint64_t number)
{
    apr_size_t end_len = mw_redis_piece_end_len(&world->store);

    world->counted = NULL;
    return mw_redis_piece_check(&world->store, id, number, piece->len - end_len,
                                piece);
}

/* With a secret it is a miss that is told by a line, else damage. */
static void assert_refused(apr_status_t rv)
{
    const int is_sealed = world->store.seal != NULL;

    assert_int_equal(rv, is_sealed ? APR_NOTFOUND : APR_EINCOMPLETE);
    assert_string_equal(world->counted, is_sealed ? "forged" : "damaged");
}

static void assert_header_refused(const mw_redis_bytes_t *header)
{
    cachemw_entry_t entry;
    cachemw_key_t key;

    assert_refused(header_read(header, &key, &entry));
}

/* --- tests ---------------------------------------------------------------- */

static void test_what_was_stored_is_read(void **state)
{
    cachemw_entry_t entry;
    mw_redis_bytes_t piece;
    cachemw_key_t key;
    made_t one;

    (void)state;
    make(&one, 1, 'a');
    assert_int_equal(header_read(&one.header, &key, &entry), APR_SUCCESS);
    assert_int_equal(key.len, one.key.len);
    assert_memory_equal(key.data, one.key.data, key.len);
    assert_int_equal(entry.head_len, one.entry.head_len);
    assert_memory_equal(entry.head, one.entry.head, entry.head_len);
    assert_memory_equal(&entry.id, &one.entry.id, sizeof(entry.id));
    assert_int_equal(entry.expires, one.entry.expires);
    assert_int_equal(entry.body_len, one.entry.body_len);
    piece = piece_make(&one.entry.id, 7, "some data");
    assert_int_equal(piece_check(&piece, &one.entry.id, 7), APR_SUCCESS);
    assert_null(world->counted);
}

/* Flags, id, length, expiry, key, head and marks. */
static void test_each_bit_of_a_header_is_bound(void **state)
{
    cachemw_entry_t entry;
    cachemw_key_t key;
    apr_size_t i;
    made_t one;
    char *bytes;

    (void)state;
    make(&one, 1, 'a');
    bytes = apr_pmemdup(world->pool, one.header.data, one.header.len);
    for (i = 0; i < 8 * one.header.len; i++) {
        const mw_redis_bytes_t header = { bytes, one.header.len };

        bytes[i / 8] ^= (char)(1 << i % 8);
        assert_int_not_equal(header_read(&header, &key, &entry), APR_SUCCESS);
        assert_non_null(world->counted);
        bytes[i / 8] ^= (char)(1 << i % 8);
    }
}

static void test_each_bit_of_a_piece_is_bound(void **state)
{
    mw_redis_bytes_t piece;
    apr_size_t i;
    made_t one;
    char *bytes;

    (void)state;
    make(&one, 1, 'a');
    piece = piece_make(&one.entry.id, 7, "some data");
    bytes = (char *)piece.data;
    for (i = 0; i < 8 * piece.len; i++) {
        bytes[i / 8] ^= (char)(1 << i % 8);
        assert_int_not_equal(piece_check(&piece, &one.entry.id, 7),
                             APR_SUCCESS);
        bytes[i / 8] ^= (char)(1 << i % 8);
    }
    assert_int_equal(piece_check(&piece, &one.entry.id, 7), APR_SUCCESS);
}

/* A body whose pieces have changed places. */
static void test_piece_in_the_place_of_another(void **state)
{
    mw_redis_bytes_t piece;
    made_t one;

    (void)state;
    make(&one, 1, 'a');
    piece = piece_make(&one.entry.id, 0, "the first");
    assert_refused(piece_check(&piece, &one.entry.id, 1));
    assert_refused(piece_check(&piece, &one.entry.id, APR_UINT64_C(1) << 40));
}

/* A page gets the body of another one, which has another id. */
static void test_piece_of_another_entry(void **state)
{
    mw_redis_bytes_t piece;
    made_t one, other;

    (void)state;
    make(&one, 1, 'a');
    make(&other, 1, 'b');
    piece = piece_make(&other.entry.id, 0, "some data");
    assert_int_equal(piece_check(&piece, &one.entry.id, 0), APR_NOTFOUND);
    memcpy((char *)piece.data + strlen("some data"), &one.entry.id,
           sizeof(one.entry.id));
    assert_refused(piece_check(&piece, &one.entry.id, 0));
}

static void test_piece_of_another_length(void **state)
{
    mw_redis_bytes_t piece;
    made_t one;

    (void)state;
    make(&one, 1, 'a');
    piece = piece_make(&one.entry.id, 0, "some data");
    assert_int_equal(mw_redis_piece_check(&world->store, &one.entry.id, 0,
                                          strlen("some data") - 1, &piece),
                     APR_EINCOMPLETE);
    piece.data++;
    piece.len--;
    assert_refused(piece_check(&piece, &one.entry.id, 0));
}

/* The head of one page, or of an older one, with the body of another. */
static void test_second_part_of_another_header(void **state)
{
    apr_size_t kept = mw_redis_header_kept(&world->store);
    mw_redis_bytes_t mixed;
    made_t one, other;

    (void)state;
    make(&one, 1, 'a');
    make(&other, 1, 'b');
    assert_int_equal(one.header.len, other.header.len);
    mixed.data = apr_pmemdup(world->pool, one.header.data, one.header.len);
    mixed.len = one.header.len;
    memcpy((char *)mixed.data + kept, other.header.data + kept,
           mixed.len - kept);
    assert_header_refused(&mixed);
    memcpy((char *)mixed.data, other.header.data, kept);
    memcpy((char *)mixed.data + kept, one.header.data + kept, mixed.len - kept);
    assert_header_refused(&mixed);
}

/* A page of one site under the prefix of another that has the same secret. */
static void test_header_of_another_prefix(void **state)
{
    made_t one;

    (void)state;
    make(&one, 1, 'a');
    world->store.settings.key_prefix = "other:";
    assert_header_refused(&one.header);
    world->store.settings.key_prefix = "cachemw";
    assert_header_refused(&one.header);
    world->store.settings.key_prefix = "";
    assert_header_refused(&one.header);
}

static void test_entry_of_another_key(void **state)
{
    cachemw_entry_t entry;
    made_t one, other;

    (void)state;
    make(&one, 1, 'a');
    make(&other, 2, 'a');
    assert_int_equal(mw_redis_header_read(&world->store, &one.key,
                                          other.header.data, other.header.len,
                                          NULL, &entry),
                     APR_NOTFOUND);
    assert_string_equal(world->counted, "another-key");
}

static void test_other_secrets_and_none(void **state)
{
    mw_redis_seal_t *ours = world->store.seal;
    mw_redis_seal_t *theirs = mw_redis_seal_make("another one", world->pool);
    cachemw_entry_t entry;
    mw_redis_bytes_t piece;
    cachemw_key_t key;
    made_t one;

    (void)state;
    world->store.seal = theirs;
    make(&one, 1, 'a');
    piece = piece_make(&one.entry.id, 0, "some data");
    world->store.seal = ours;
    assert_header_refused(&one.header);
    assert_refused(piece_check(&piece, &one.entry.id, 0));
    world->store.seal = NULL;
    assert_int_equal(header_read(&one.header, &key, &entry), APR_NOTFOUND);
    assert_string_equal(world->counted, "signed");
    make(&one, 1, 'a');
    world->store.seal = ours;
    assert_int_equal(header_read(&one.header, &key, &entry), APR_NOTFOUND);
    assert_string_equal(world->counted, "unsigned");
}

/* No look behind what there is: under valgrind and ASan each is exact. */
static void test_cut_headers_are_refused(void **state)
{
    cachemw_entry_t entry;
    cachemw_key_t key;
    apr_size_t len;
    made_t one;

    (void)state;
    make(&one, 1, 'a');
    for (len = 0; len < one.header.len; len++) {
        mw_redis_bytes_t cut = { malloc(len ? len : 1), len };

        memcpy((char *)cut.data, one.header.data, len);
        assert_int_not_equal(header_read(&cut, &key, &entry), APR_SUCCESS);
        free((char *)cut.data);
    }
}

#define BOTH(f)                                                \
    cmocka_unit_test_setup_teardown(f, setup_plain, teardown), \
        cmocka_unit_test_setup_teardown(f, setup_sealed, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_what_was_stored_is_read),
        BOTH(test_each_bit_of_a_header_is_bound),
        BOTH(test_each_bit_of_a_piece_is_bound),
        BOTH(test_piece_in_the_place_of_another),
        BOTH(test_piece_of_another_entry),
        BOTH(test_piece_of_another_length),
        BOTH(test_second_part_of_another_header),
        BOTH(test_header_of_another_prefix),
        BOTH(test_entry_of_another_key),
        BOTH(test_cut_headers_are_refused),
        cmocka_unit_test_setup_teardown(test_other_secrets_and_none,
                                        setup_sealed, teardown),
    };

    return cmocka_run_group_tests_name("redis_layout", tests,
                                       shared_group_begin, shared_group_end);
}
