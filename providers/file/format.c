/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "core/crc32c.h"
#include "core/wire.h"
#include "format.h"

/* "CMWfile\n" */
#define FORMAT_MAGIC APR_UINT64_C(0x0a656c6966574d43)

/* Of the superblock. */
#define AT_MAGIC 0
#define AT_VERSION 8
#define AT_KEY_LEN 12
#define AT_BODY_OFFSET 16
#define AT_BODY_LEN 24
#define AT_ID 32
#define AT_STORED 48
#define AT_EPOCH 56
#define AT_BODY_CRC 64
#define AT_CRC 68 /* of all before it, and of the key */
#define AT_HEADS 72

/* Of a descriptor. */
#define AT_HEAD_NUMBER 0
#define AT_HEAD_LENGTH 4
#define AT_HEAD_ROOM 8
#define AT_HEAD_HEAD_CRC 12
#define AT_HEAD_OFFSET 16
#define AT_HEAD_EXPIRES 24
#define AT_HEAD_CRC 32 /* of all before it */

/* No offset or length is beyond this: sums of three do not overflow. */
#define FORMAT_MAX (APR_UINT64_C(1) << 60)

void mw_format_begin(mw_format_super_t *super, const cachemw_key_t *key,
                     const cachemw_entry_t *entry)
{
    mw_format_head_t *head = &super->heads[0];

    memset(super, 0, sizeof(*super));
    super->key_len = (apr_uint32_t)key->len;
    super->body_offset = MW_FORMAT_SUPER + key->len + entry->head_len;
    super->id = entry->id;
    head->number = 1;
    head->length = head->room = (apr_uint32_t)entry->head_len;
    head->offset = MW_FORMAT_SUPER + key->len;
    head->expires = entry->expires;
    head->crc = mw_crc32c(0, entry->head, entry->head_len);
}

void mw_format_align(mw_format_super_t *super, apr_uint32_t block)
{
    mw_format_head_t *head = &super->heads[0];

    super->body_offset += block - 1;
    super->body_offset -= super->body_offset % block;
    head->room = (apr_uint32_t)(super->body_offset - head->offset);
}

void mw_format_descriptor_encode(const mw_format_head_t *head,
                                 unsigned char bytes[MW_FORMAT_DESCRIPTOR])
{
    mw_wire_put32(bytes + AT_HEAD_NUMBER, head->number);
    mw_wire_put32(bytes + AT_HEAD_LENGTH, head->length);
    mw_wire_put32(bytes + AT_HEAD_ROOM, head->room);
    mw_wire_put32(bytes + AT_HEAD_HEAD_CRC, head->crc);
    mw_wire_put64(bytes + AT_HEAD_OFFSET, head->offset);
    mw_wire_put64(bytes + AT_HEAD_EXPIRES, (apr_uint64_t)head->expires);
    mw_wire_put32(bytes + AT_HEAD_CRC, mw_crc32c(0, bytes, AT_HEAD_CRC));
}

void mw_format_encode(const mw_format_super_t *super, const char *key,
                      unsigned char bytes[MW_FORMAT_SUPER])
{
    int i;

    mw_wire_put64(bytes + AT_MAGIC, FORMAT_MAGIC);
    mw_wire_put32(bytes + AT_VERSION, MW_FORMAT_VERSION);
    mw_wire_put32(bytes + AT_KEY_LEN, super->key_len);
    mw_wire_put64(bytes + AT_BODY_OFFSET, super->body_offset);
    mw_wire_put64(bytes + AT_BODY_LEN, super->body_len);
    memcpy(bytes + AT_ID, &super->id, sizeof(super->id));
    mw_wire_put64(bytes + AT_STORED, (apr_uint64_t)super->stored);
    mw_wire_put64(bytes + AT_EPOCH, super->epoch);
    mw_wire_put32(bytes + AT_BODY_CRC, super->body_crc);
    mw_wire_put32(bytes + AT_CRC,
                  mw_crc32c(mw_crc32c(0, bytes, AT_CRC), key, super->key_len));
    for (i = 0; i < 2; i++) {
        mw_format_descriptor_encode(&super->heads[i],
                                    bytes + mw_format_descriptor_offset(i));
    }
}

apr_uint64_t mw_format_descriptor_offset(int which)
{
    return AT_HEADS + (apr_uint64_t)which * MW_FORMAT_DESCRIPTOR;
}

/** @return 0: its checksum is wrong */
static int descriptor_decode(const unsigned char *bytes, mw_format_head_t *head)
{
    head->number = mw_wire_get32(bytes + AT_HEAD_NUMBER);
    head->length = mw_wire_get32(bytes + AT_HEAD_LENGTH);
    head->room = mw_wire_get32(bytes + AT_HEAD_ROOM);
    head->crc = mw_wire_get32(bytes + AT_HEAD_HEAD_CRC);
    head->offset = mw_wire_get64(bytes + AT_HEAD_OFFSET);
    head->expires = (apr_time_t)mw_wire_get64(bytes + AT_HEAD_EXPIRES);
    return mw_wire_get32(bytes + AT_HEAD_CRC)
           == mw_crc32c(0, bytes, AT_HEAD_CRC);
}

/** Whether the room of a head is between key and body, or behind the body. */
static int head_is_placed(const mw_format_super_t *super,
                          const mw_format_head_t *head)
{
    apr_uint64_t end = head->offset + head->room;

    if (!head->number) {
        return !head->length && !head->room && !head->offset;
    }
    return head->length <= head->room && head->length <= CACHEMW_HEAD_MAX
           && head->offset <= FORMAT_MAX
           && ((head->offset >= MW_FORMAT_SUPER + super->key_len
                && end <= super->body_offset)
               || head->offset >= super->body_offset + super->body_len);
}

static int super_makes_sense(const mw_format_super_t *super)
{
    return super->body_offset >= MW_FORMAT_SUPER + super->key_len
           && super->body_offset <= FORMAT_MAX && super->body_len <= FORMAT_MAX
           && super->heads[0].number != super->heads[1].number
           && head_is_placed(super, &super->heads[0])
           && head_is_placed(super, &super->heads[1]);
}

apr_status_t mw_format_decode(const unsigned char *bytes, apr_size_t length,
                              mw_format_super_t *super)
{
    int i;

    if (length < MW_FORMAT_SUPER
        || mw_wire_get64(bytes + AT_MAGIC) != FORMAT_MAGIC
        || mw_wire_get32(bytes + AT_VERSION) != MW_FORMAT_VERSION) {
        return APR_EINCOMPLETE;
    }
    super->key_len = mw_wire_get32(bytes + AT_KEY_LEN);
    if (super->key_len > CACHEMW_KEY_MAX
        || super->key_len > length - MW_FORMAT_SUPER
        || mw_wire_get32(bytes + AT_CRC)
               != mw_crc32c(mw_crc32c(0, bytes, AT_CRC),
                            bytes + MW_FORMAT_SUPER, super->key_len)) {
        return APR_EINCOMPLETE;
    }
    super->body_offset = mw_wire_get64(bytes + AT_BODY_OFFSET);
    super->body_len = mw_wire_get64(bytes + AT_BODY_LEN);
    memcpy(&super->id, bytes + AT_ID, sizeof(super->id));
    super->stored = (apr_time_t)mw_wire_get64(bytes + AT_STORED);
    super->epoch = mw_wire_get64(bytes + AT_EPOCH);
    super->body_crc = mw_wire_get32(bytes + AT_BODY_CRC);
    for (i = 0; i < 2; i++) {
        if (!descriptor_decode(bytes + mw_format_descriptor_offset(i),
                               &super->heads[i])) {
            return APR_EAGAIN;
        }
    }
    return super_makes_sense(super) ? APR_SUCCESS : APR_EINCOMPLETE;
}

const mw_format_head_t *mw_format_head(const mw_format_super_t *super)
{
    return &super->heads[super->heads[1].number > super->heads[0].number];
}

int mw_format_head_is(const mw_format_head_t *head, const void *bytes)
{
    return mw_crc32c(0, bytes, head->length) == head->crc;
}

static apr_uint64_t later(apr_uint64_t a, apr_uint64_t b)
{
    return a > b ? a : b;
}

apr_uint64_t mw_format_size(const mw_format_super_t *super)
{
    const mw_format_head_t *head = mw_format_head(super);

    return later(super->body_offset + super->body_len,
                 head->offset + head->length);
}

/** Behind the body and the rooms of both heads. */
static apr_uint64_t super_end(const mw_format_super_t *super)
{
    apr_uint64_t end = super->body_offset + super->body_len;
    int i;

    for (i = 0; i < 2; i++) {
        end = later(end, super->heads[i].offset + super->heads[i].room);
    }
    return end;
}

int mw_format_amend(mw_format_super_t *super, const cachemw_entry_t *entry)
{
    const mw_format_head_t *now = mw_format_head(super);
    const int which = now == &super->heads[0];
    mw_format_head_t *head = &super->heads[which];
    apr_uint32_t length = (apr_uint32_t)entry->head_len;

    if (!head->number || length > head->room) {
        head->offset = super_end(super);
        head->room = MW_FORMAT_HEAD_ROOM(length);
    }
    head->number = now->number + 1;
    head->length = length;
    head->expires = entry->expires;
    head->crc = mw_crc32c(0, entry->head, entry->head_len);
    return which;
}
