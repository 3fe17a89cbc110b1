/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/crc32c.h"
#include "core/wire.h"
#include "providers/file/format.h"

#define KEY "shop.example:80\0http://shop.example/page?"
#define KEY_LEN (sizeof(KEY) - 1)
#define FILE_MAX 20000

/* A file as the store writes it, in memory. */
typedef struct file_t {
    unsigned char bytes[FILE_MAX];
    apr_size_t length;
    mw_format_super_t super;
} file_t;

/* What a reader makes of a file. */
typedef struct seen_t {
    apr_status_t rv;
    const unsigned char *head;
    mw_format_super_t super;
} seen_t;

static const cachemw_key_t key = { KEY, KEY_LEN };

static cachemw_entry_t entry_make(const char *head, apr_time_t expires)
{
    cachemw_entry_t entry;

    memset(&entry, 0, sizeof(entry));
    memset(&entry.id, 0x5a, sizeof(entry.id));
    entry.head = head;
    entry.head_len = strlen(head);
    entry.expires = expires;
    return entry;
}

static void file_make(file_t *file, const cachemw_entry_t *entry,
                      const char *body)
{
    mw_format_super_t *super = &file->super;

    memset(file, 0, sizeof(*file));
    mw_format_begin(super, &key, entry);
    super->body_len = strlen(body);
    super->body_crc = mw_crc32c(0, body, strlen(body));
    super->stored = 1000;
    super->epoch = 77;
    mw_format_encode(super, key.data, file->bytes);
    memcpy(file->bytes + MW_FORMAT_SUPER, key.data, key.len);
    memcpy(file->bytes + super->heads[0].offset, entry->head, entry->head_len);
    memcpy(file->bytes + super->body_offset, body, strlen(body));
    file->length = (apr_size_t)mw_format_size(super);
}

/* The two writes of an amendment, of which `done` are made. */
static void file_amend(file_t *file, const cachemw_entry_t *entry, int done)
{
    int which = mw_format_amend(&file->super, entry);
    const mw_format_head_t *head = &file->super.heads[which];

    assert_true(head->offset + head->length <= FILE_MAX);
    if (done > 0) {
        memcpy(file->bytes + head->offset, entry->head, entry->head_len);
        if (file->length < head->offset + head->length) {
            file->length = (apr_size_t)(head->offset + head->length);
        }
    }
    if (done > 1) {
        mw_format_descriptor_encode(
            head, file->bytes + mw_format_descriptor_offset(which));
    }
}

/* A copy in memory of exactly this length, so that checkers see what is read
 * beyond its end. */
static seen_t file_see(const unsigned char *bytes, apr_size_t length)
{
    unsigned char *copy = malloc(length ? length : 1);
    seen_t seen;

    memcpy(copy, bytes, length);
    seen.head = NULL;
    seen.rv = mw_format_decode(copy, length, &seen.super);
    if (seen.rv == APR_SUCCESS && mw_format_size(&seen.super) > length) {
        seen.rv = APR_EINCOMPLETE;
    }
    if (seen.rv == APR_SUCCESS) {
        const mw_format_head_t *head = mw_format_head(&seen.super);

        if (!mw_format_head_is(head, copy + head->offset)) {
            seen.rv = APR_EINCOMPLETE;
        }
        seen.head = bytes + head->offset;
    }
    free(copy);
    return seen;
}

static void file_check(const file_t *file, const cachemw_entry_t *entry,
                       const char *body)
{
    seen_t seen = file_see(file->bytes, file->length);
    const mw_format_head_t *head;

    assert_int_equal(seen.rv, APR_SUCCESS);
    head = mw_format_head(&seen.super);
    assert_int_equal(head->length, entry->head_len);
    assert_memory_equal(seen.head, entry->head, entry->head_len);
    assert_true(head->expires == entry->expires);
    assert_memory_equal(&seen.super.id, &entry->id, sizeof(entry->id));
    assert_int_equal(seen.super.key_len, key.len);
    assert_int_equal(seen.super.body_len, strlen(body));
    assert_memory_equal(file->bytes + seen.super.body_offset, body,
                        strlen(body));
    assert_int_equal(seen.super.body_crc, mw_crc32c(0, body, strlen(body)));
    assert_true(seen.super.stored == 1000);
    assert_int_equal(seen.super.epoch, 77);
}

static void test_what_was_written_is_read(void **state)
{
    cachemw_entry_t entry = entry_make("head of the page", 5000);
    cachemw_entry_t empty = entry_make("", 6000);
    file_t file;

    (void)state;
    file_make(&file, &entry, "body of the page");
    file_check(&file, &entry, "body of the page");
    file_make(&file, &empty, "");
    file_check(&file, &empty, "");
}

/* A file of a server of another version must be told from ours for good. */
static void test_beginning_of_a_file_stays(void **state)
{
    cachemw_entry_t entry = entry_make("head", 1);
    file_t file;

    (void)state;
    file_make(&file, &entry, "body");
    assert_memory_equal(file.bytes, "CMWfile\n\1\0\0\0", 12);
    mw_wire_put32(file.bytes + 8, MW_FORMAT_VERSION + 1);
    assert_int_equal(file_see(file.bytes, file.length).rv, APR_EINCOMPLETE);
}

static void truncations_check(const file_t *file)
{
    apr_size_t length;

    for (length = 0; length < file->length; length++) {
        assert_int_equal(file_see(file->bytes, length).rv, APR_EINCOMPLETE);
    }
}

static void test_a_file_that_was_cut_anywhere_is_none(void **state)
{
    cachemw_entry_t entry = entry_make("head of the page", 5000);
    cachemw_entry_t amended = entry_make("another head of the page", 7000);
    file_t file;

    (void)state;
    file_make(&file, &entry, "body of the page");
    truncations_check(&file);
    file_amend(&file, &amended, 2);
    truncations_check(&file);
}

/* Flip each bit of bytes that count. */
static void flips_check(file_t *file, apr_size_t from, apr_size_t to)
{
    apr_size_t at;
    int bit;

    for (at = from; at < to; at++) {
        for (bit = 0; bit < 8; bit++) {
            file->bytes[at] ^= (unsigned char)(1 << bit);
            assert_int_not_equal(file_see(file->bytes, file->length).rv,
                                 APR_SUCCESS);
            file->bytes[at] ^= (unsigned char)(1 << bit);
        }
    }
}

static void test_a_flipped_bit_in_superblock_key_or_head_is_seen(void **state)
{
    cachemw_entry_t entry = entry_make("head of the page", 5000);
    cachemw_entry_t amended = entry_make("another head of the page", 7000);
    const mw_format_head_t *head;
    file_t file;

    (void)state;
    file_make(&file, &entry, "body of the page");
    flips_check(&file, 0, MW_FORMAT_SUPER + KEY_LEN + entry.head_len);
    file_amend(&file, &amended, 2);
    head = mw_format_head(&file.super);
    flips_check(&file, 0, MW_FORMAT_SUPER + KEY_LEN);
    flips_check(&file, (apr_size_t)head->offset,
                (apr_size_t)head->offset + head->length);
}

static void test_any_byte_in_place_of_another_is_seen(void **state)
{
    cachemw_entry_t entry = entry_make("head of the page", 5000);
    apr_size_t at;
    int byte;
    file_t file;

    (void)state;
    file_make(&file, &entry, "body of the page");
    for (at = 0; at < MW_FORMAT_SUPER + KEY_LEN + entry.head_len; at++) {
        const unsigned char is = file.bytes[at];

        for (byte = 0; byte < 256; byte++) {
            file.bytes[at] = (unsigned char)byte;
            assert_int_equal(file_see(file.bytes, file.length).rv
                                 == APR_SUCCESS,
                             byte == is);
        }
        file.bytes[at] = is;
    }
}

/* Whoever amends may be killed between the writes, or in the middle of the
 * first; and the next amendment comes all the same. */
static void test_an_amendment_is_there_or_not(void **state)
{
    cachemw_entry_t old = entry_make("head of the page", 5000);
    cachemw_entry_t lost = entry_make("head that does not come", 6000);
    cachemw_entry_t amended = entry_make("another head", 7000);
    mw_format_super_t before;
    file_t file;
    int round;

    (void)state;
    file_make(&file, &old, "body of the page");
    for (round = 0; round < 10; round++) {
        before = file.super;
        file_amend(&file, &lost, round % 2);
        file_check(&file, &old, "body of the page");
        file.super = before;
        file_amend(&file, &amended, 2);
        file_check(&file, &amended, "body of the page");
        file_amend(&file, &old, 2);
        file_check(&file, &old, "body of the page");
    }
}

/* The unfinished descriptor is no reason to take the older one: it may be that
 * the newer one was the present one and has been damaged. */
static void test_half_a_descriptor_is_read_again(void **state)
{
    cachemw_entry_t entry = entry_make("head of the page", 5000);
    cachemw_entry_t amended = entry_make("another head", 7000);
    unsigned char whole[MW_FORMAT_SUPER];
    apr_size_t at, from;
    file_t file;

    (void)state;
    file_make(&file, &entry, "body of the page");
    memcpy(whole, file.bytes, sizeof(whole));
    file_amend(&file, &amended, 2);
    from = (apr_size_t)mw_format_descriptor_offset(1);
    for (at = from + 1; at < from + MW_FORMAT_DESCRIPTOR; at++) {
        unsigned char half[FILE_MAX];
        seen_t seen;

        memcpy(half, file.bytes, file.length);
        memcpy(half + at, whole + at, from + MW_FORMAT_DESCRIPTOR - at);
        seen = file_see(half, file.length);
        if (memcmp(half, file.bytes, MW_FORMAT_SUPER)) {
            assert_int_equal(seen.rv, APR_EAGAIN);
        }
    }
}

static void test_heads_that_grow_leave_the_file_short(void **state)
{
    static char text[4000];
    cachemw_entry_t entry = entry_make("head", 5000);
    apr_size_t length;
    file_t file;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    file_make(&file, &entry, "body of the page");
    for (length = 1; length < 1700; length++) {
        entry = entry_make(text + sizeof(text) - 1 - length,
                           (apr_time_t)(5000 + length));
        file_amend(&file, &entry, 2);
        file_check(&file, &entry, "body of the page");
    }
    assert_true(file.length < 12 * 1700);
    length = file.length;
    while (entry.head_len > 0) {
        entry.head_len--;
        file_amend(&file, &entry, 2);
        file_check(&file, &entry, "body of the page");
    }
    assert_int_equal(file.length, length);
}

/* Checksums can be made by anybody: nothing that they cover is trusted. */
static void test_places_that_cannot_be_are_refused(void **state)
{
    cachemw_entry_t entry = entry_make("head of the page", 5000);
    mw_format_super_t good, bad[12];
    file_t file;
    apr_size_t i;

    (void)state;
    file_make(&file, &entry, "body of the page");
    good = file.super;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bad[i] = good;
    }
    bad[0].body_offset = 3;
    bad[1].body_offset = APR_UINT64_C(0xfffffffffffffff0);
    bad[2].body_len = APR_UINT64_C(0xfffffffffffffff0);
    bad[3].heads[0].length = good.heads[0].room + 1;
    bad[4].heads[0].length = 0xfffffff0u;
    bad[5].heads[0].offset = 0;
    bad[6].heads[0].offset = good.body_offset;
    bad[7].heads[0].offset = APR_UINT64_C(0xfffffffffffffff0);
    bad[8].heads[0].number = 0;
    bad[9].heads[1] = good.heads[0];
    bad[10].heads[0].room = 0xffffffffu;
    bad[11].heads[0].offset = good.heads[0].offset - 1;
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        mw_format_encode(&bad[i], key.data, file.bytes);
        assert_int_equal(file_see(file.bytes, file.length).rv, APR_EINCOMPLETE);
    }
    mw_format_encode(&good, key.data, file.bytes);
    file_check(&file, &entry, "body of the page");
}

static void test_a_key_that_is_too_long_is_refused(void **state)
{
    cachemw_entry_t entry = entry_make("head", 5000);
    file_t file;

    (void)state;
    file_make(&file, &entry, "body");
    file.super.key_len = CACHEMW_KEY_MAX + 1;
    mw_wire_put32(file.bytes + 12, CACHEMW_KEY_MAX + 1);
    assert_int_equal(file_see(file.bytes, FILE_MAX).rv, APR_EINCOMPLETE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_beginning_of_a_file_stays),
        cmocka_unit_test(test_a_file_that_was_cut_anywhere_is_none),
        cmocka_unit_test(test_a_flipped_bit_in_superblock_key_or_head_is_seen),
        cmocka_unit_test(test_any_byte_in_place_of_another_is_seen),
        cmocka_unit_test(test_an_amendment_is_there_or_not),
        cmocka_unit_test(test_half_a_descriptor_is_read_again),
        cmocka_unit_test(test_heads_that_grow_leave_the_file_short),
        cmocka_unit_test(test_places_that_cannot_be_are_refused),
        cmocka_unit_test(test_a_key_that_is_too_long_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
