/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "core/wire.h"
#include "mark.h"
#include "path.h"

/* "CMWmark1" */
#define MARK_MAGIC APR_UINT64_C(0x316b72616d574d43)

#define AT_NUMBER 8
#define AT_OWNER 16
#define AT_SECRET 32
#define AT_BOOT 64
#define AT_EPOCH 80
#define AT_CLEARED 88
#define AT_SAFE 96
#define AT_LEVELS 160
#define AT_UNUSED 164
#define AT_CRC 172 /* of all before it */

#define MARK_LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)

/* Each copy has a block of the disk for itself. */
#define MARK_STRIDE 4096

#define BOOT_OF(epoch) ((epoch) >> 32)
#define BOOT_FIRST(boot) ((boot) << 32)

void mw_mark_encode(const mw_mark_t *mark, unsigned char bytes[MW_MARK_SIZE])
{
    int i;

    memset(bytes, 0, MW_MARK_SIZE);
    mw_wire_put64(bytes, MARK_MAGIC);
    mw_wire_put64(bytes + AT_NUMBER, mark->number);
    memcpy(bytes + AT_OWNER, mark->owner, sizeof(mark->owner));
    memcpy(bytes + AT_SECRET, mark->secret, sizeof(mark->secret));
    memcpy(bytes + AT_BOOT, mark->boot, sizeof(mark->boot));
    mw_wire_put64(bytes + AT_EPOCH, mark->epoch);
    mw_wire_put64(bytes + AT_CLEARED, mark->cleared);
    for (i = 0; i < MW_MARK_BOOTS; i++) {
        mw_wire_put64(bytes + AT_SAFE + i * 8, mark->safe[i]);
    }
    mw_wire_put32(bytes + AT_LEVELS, mark->levels);
    mw_wire_put32(bytes + AT_CRC, mw_crc32c(0, bytes, AT_CRC));
}

apr_status_t mw_mark_decode(const unsigned char bytes[MW_MARK_SIZE],
                            mw_mark_t *mark)
{
    int i;

    if (mw_wire_get64(bytes) != MARK_MAGIC
        || mw_wire_get32(bytes + AT_CRC) != mw_crc32c(0, bytes, AT_CRC)
        || mw_wire_get32(bytes + AT_LEVELS) > MW_PATH_LEVELS_MAX) {
        return APR_EINCOMPLETE;
    }
    mark->number = mw_wire_get64(bytes + AT_NUMBER);
    memcpy(mark->owner, bytes + AT_OWNER, sizeof(mark->owner));
    memcpy(mark->secret, bytes + AT_SECRET, sizeof(mark->secret));
    memcpy(mark->boot, bytes + AT_BOOT, sizeof(mark->boot));
    mark->epoch = mw_wire_get64(bytes + AT_EPOCH);
    mark->cleared = mw_wire_get64(bytes + AT_CLEARED);
    for (i = 0; i < MW_MARK_BOOTS; i++) {
        mark->safe[i] = mw_wire_get64(bytes + AT_SAFE + i * 8);
    }
    mark->levels = mw_wire_get32(bytes + AT_LEVELS);
    return APR_SUCCESS;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void mw_mark_boot(unsigned char boot[16])
{
    char text[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text)) : 0;
    unsigned int digits = 0;
    ssize_t i;

    if (fd >= 0) {
        close(fd);
    }
    memset(boot, 0, 16);
    for (i = 0; i < n && digits < 32; i++) {
        int value = hex_value(text[i]);

        if (value >= 0) {
            boot[digits / 2] |= (unsigned char)(value << (digits % 2 ? 0 : 4));
            digits++;
        }
    }
}

void mw_mark_begin(mw_mark_t *mark, const unsigned char boot[16])
{
    memset(mark, 0, sizeof(*mark));
    memcpy(mark->boot, boot, sizeof(mark->boot));
    mark->epoch = BOOT_FIRST(APR_UINT64_C(1)) + 1;
}

void mw_mark_continue(mw_mark_t *mark, const unsigned char boot[16])
{
    apr_uint64_t next = BOOT_OF(mark->epoch) + 1;

    if (memcmp(mark->boot, boot, sizeof(mark->boot)) == 0) {
        /* Those who had it may have begun one more. */
        mark->epoch += 2;
        return;
    }
    memcpy(mark->boot, boot, sizeof(mark->boot));
    mark->safe[next % MW_MARK_BOOTS] = BOOT_FIRST(next);
    mark->epoch = BOOT_FIRST(next) + 1;
}

void mw_mark_copy(mw_mark_t *to, const mw_mark_t *from)
{
    int i;

    to->number = MARK_LOAD(&from->number);
    memcpy(to->owner, from->owner, sizeof(to->owner));
    memcpy(to->secret, from->secret, sizeof(to->secret));
    memcpy(to->boot, from->boot, sizeof(to->boot));
    to->epoch = MARK_LOAD(&from->epoch);
    to->cleared = MARK_LOAD(&from->cleared);
    for (i = 0; i < MW_MARK_BOOTS; i++) {
        to->safe[i] = MARK_LOAD(&from->safe[i]);
    }
    to->levels = from->levels;
}

int mw_mark_trusts(const mw_mark_t *mark, apr_uint64_t epoch)
{
    apr_uint64_t boot = BOOT_OF(epoch);
    apr_uint64_t now = BOOT_OF(MARK_LOAD(&mark->epoch));

    if (epoch <= MARK_LOAD(&mark->cleared) || boot > now
        || now - boot >= MW_MARK_BOOTS) {
        return 0;
    }
    return boot == now || epoch <= MARK_LOAD(&mark->safe[boot % MW_MARK_BOOTS]);
}

/* No link, nor anything that an open would wait for. */
static int mark_open(int dir, int flags)
{
    struct stat info;
    int fd = openat(dir, MW_MARK_NAME,
                    flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

    if (fd >= 0 && (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

apr_status_t mw_mark_read(int dir, mw_mark_t *mark)
{
    unsigned char bytes[MW_MARK_SIZE];
    apr_status_t rv = APR_EINCOMPLETE;
    mw_mark_t copy;
    int i, fd = mark_open(dir, O_RDONLY);

    if (fd < 0) {
        return errno == EINVAL || errno == ELOOP ? APR_EINCOMPLETE : errno;
    }
    for (i = 0; i < 2; i++) {
        if (pread(fd, bytes, sizeof(bytes), i * MARK_STRIDE)
                == (ssize_t)sizeof(bytes)
            && mw_mark_decode(bytes, &copy) == APR_SUCCESS
            && (rv != APR_SUCCESS || copy.number > mark->number)) {
            *mark = copy;
            rv = APR_SUCCESS;
        }
    }
    close(fd);
    return rv;
}

static apr_status_t mark_put(int fd, const mw_mark_t *mark, int is_durable)
{
    unsigned char bytes[MW_MARK_SIZE];
    off_t at = mark->number % 2 ? MARK_STRIDE : 0;
    ssize_t n;

    mw_mark_encode(mark, bytes);
    n = pwrite(fd, bytes, sizeof(bytes), at);
    if (n != (ssize_t)sizeof(bytes)) {
        return n < 0 ? errno : APR_ENOSPC;
    }
    return !is_durable || fdatasync(fd) == 0 ? APR_SUCCESS : errno;
}

apr_status_t mw_mark_write(int dir, const mw_mark_t *mark, int is_durable)
{
    apr_status_t rv;
    int fd = mark_open(dir, O_RDWR | O_CREAT);

    if (fd < 0 && (errno == EINVAL || errno == ELOOP)
        && unlinkat(dir, MW_MARK_NAME, 0) == 0) {
        fd = mark_open(dir, O_RDWR | O_CREAT);
    }
    if (fd < 0) {
        return errno;
    }
    rv = mark_put(fd, mark, is_durable);
    close(fd);
    return rv;
}
