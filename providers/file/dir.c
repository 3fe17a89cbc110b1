/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dir.h"
#include "path.h"

/**
 * Tries, a millisecond apart, while somebody has the directory or marks it. To
 * mark it durably takes what the disk takes: who begins waits for that, a
 * request does not. What it marks the next sync makes durable.
 */
#define LOCK_TRIES 50
#define LOCK_TRIES_BEGIN 2000

/** Marks in a row, when none of them stays: others do the same. */
#define MARKS_MOST 3

static apr_status_t dir_log(const mw_file_t *file, apr_status_t rv)
{
    static const char after[] = "nothing is found or stored until that is "
                                "put right";

    if (rv == EAGAIN) {
        return rv;
    }
    if (rv == EBUSY) {
        file->services->log(file->services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                            "cache_dir=%s is used by another server, or by "
                            "children of before a restart that have another "
                            "index: nothing is found or stored until they have "
                            "ended",
                            file->path);
    }
    else if (rv == EPERM) {
        file->services->log(file->services, CACHEMW_LOG_WARNING, rv,
                            "%s belongs to another user than the one that "
                            "httpd's children run as, or may not be changed: "
                            "%s",
                            file->root_path, after);
    }
    else if (rv == ELOOP || rv == ENOTDIR) {
        file->services->log(file->services, CACHEMW_LOG_WARNING, rv,
                            "cache_dir=%s is, or has in it, a link or a file "
                            "where a directory is expected: %s",
                            file->path, after);
    }
    else {
        file->services->log(file->services, CACHEMW_LOG_WARNING, rv,
                            "cache_dir=%s cannot be used: %s", file->path,
                            after);
    }
    return rv;
}

/** Made when it is missing. -1: errno says why it cannot be had. */
static int dir_take(int at, const char *name)
{
    int error = mkdirat(at, name, 0700) == 0 ? 0 : errno;
    int fd = openat(at, name, MW_PATH_DIR_FLAGS);

    if (fd < 0 && errno == ENOENT && error && error != EEXIST) {
        errno = error;
    }
    return fd;
}

/**
 * What others have put there is not to be served, and what is cached is nobody
 * else's to read.
 */
static apr_status_t dir_close_to_others(const mw_file_t *file, int root)
{
    struct stat info;

    if (fstat(root, &info) != 0) {
        return errno;
    }
    if (info.st_uid != geteuid()) {
        return EPERM;
    }
    if (!(info.st_mode & 077)) {
        return APR_SUCCESS;
    }
    if (fchmod(root, 0700) != 0) {
        return errno;
    }
    file->services->log(file->services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                        "%s was open to other users (mode %04o): it is not any "
                        "more",
                        file->root_path, (unsigned int)info.st_mode & 07777);
    return APR_SUCCESS;
}

/** Open v1; the last components of its path are made if need be. */
static apr_status_t dir_open(const mw_file_t *file, int *root)
{
    int top, fd;
    apr_status_t rv = APR_SUCCESS;

    top = dir_take(AT_FDCWD, file->path);
    if (top < 0) {
        return errno;
    }
    fd = dir_take(top, MW_PATH_ROOT);
    if (fd < 0) {
        rv = errno;
        close(top);
        return rv;
    }
    close(top);
    rv = dir_close_to_others(file, fd);
    if (rv == APR_SUCCESS && mkdirat(fd, MW_PATH_TEMP, 0700) != 0
        && errno != EEXIST) {
        rv = errno;
    }
    if (rv != APR_SUCCESS) {
        close(fd);
    }
    *root = fd;
    return rv;
}

/** Where there are no such locks, the administrator has to take care. */
static int dir_lock(int root, int how)
{
    return flock(root, how | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static int dir_is_ours(const mw_file_t *file, int root)
{
    mw_mark_t mark;

    return MW_FILE_LOAD(&file->shared->is_loaded)
           && mw_mark_read(root, &mark) == APR_SUCCESS
           && !memcmp(mark.owner, file->shared->owner, sizeof(mark.owner));
}

/**
 * What the mark is to be from now on, of what it was.
 * @param known whether there was one
 */
static apr_status_t mark_next(const mw_file_t *file, mw_mark_t *mark, int known)
{
    const mw_mark_t *own = &file->shared->mark;
    int is_loaded = MW_FILE_LOAD(&file->shared->is_loaded) != 0;
    unsigned char boot[16];
    apr_status_t rv = APR_SUCCESS;

    mw_mark_boot(boot);
    if (!known && is_loaded) {
        *mark = *own;
    }
    else if (!known) {
        mw_mark_begin(mark, boot);
        rv = file->services->random(file->services, mark->secret,
                                    sizeof(mark->secret));
    }
    mw_mark_continue(mark, boot);
    if (mark->levels != (apr_uint32_t)file->levels) {
        /* What was removed meanwhile may be there still, elsewhere. */
        mark->cleared = mark->epoch - 1;
    }
    if (is_loaded && mark->epoch <= own->epoch) {
        mark->epoch = own->epoch + 1;
    }
    memcpy(mark->owner, file->shared->owner, sizeof(mark->owner));
    mark->levels = (apr_uint32_t)file->levels;
    mark->number++;
    return rv;
}

/** @return EAGAIN: somebody is marking it, and the disk takes its time */
static apr_status_t mark_lock(mw_file_t *file, int may_wait)
{
    pthread_mutex_t *mutex = &file->shared->marking;
    int rv = may_wait ? mw_lock(mutex, &file->stuck, MW_LOCK_WAIT_FILES)
                      : pthread_mutex_trylock(mutex);

    if (rv == EOWNERDEAD) {
        pthread_mutex_consistent(mutex);
        rv = 0;
    }
    return rv ? EAGAIN : APR_SUCCESS;
}

static void mark_unlock(mw_file_t *file)
{
    pthread_mutex_unlock(&file->shared->marking);
}

/**
 * The mark on the disk comes last: until it is there the directory is nobody's,
 * and whoever comes after one that died does all of this again.
 */
static apr_status_t mark_change(mw_file_t *file, int root,
                                const mw_mark_t *mark, int may_wait)
{
    mw_file_shared_t *shared = file->shared;
    apr_status_t rv;

    if (MW_FILE_LOAD(&shared->is_loaded)) {
        /* It is another directory, or had another owner meanwhile. Who has
         * the one before could go on with it, and nobody would know. */
        MW_FILE_STORE(&file->place,
                      __atomic_add_fetch(&shared->place, 1, __ATOMIC_ACQ_REL));
        mw_index_clear(file->index);
        mw_index_rescan(file->index);
    }
    shared->mark = *mark;
    rv = mw_mark_write(root, mark, may_wait);
    if (rv == APR_SUCCESS) {
        MW_FILE_STORE(&shared->is_loaded, 1);
    }
    return rv;
}

/** Nobody else has the directory. */
static apr_status_t dir_mark(mw_file_t *file, int root, int may_wait)
{
    mw_mark_t mark;
    apr_status_t rv = mw_mark_read(root, &mark);
    int known = rv == APR_SUCCESS;

    if (!known && rv != APR_ENOENT && rv != APR_EINCOMPLETE) {
        return rv;
    }
    rv = mark_lock(file, may_wait);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = mark_next(file, &mark, known);
    if (rv == APR_SUCCESS) {
        rv = mark_change(file, root, &mark, may_wait);
    }
    mark_unlock(file);
    return rv;
}

/**
 * Lock v1, and mark it as ours if it is nobody's. Turning one lock into the
 * other may lose both: hence the loop, at whose end all is as it must be.
 * @param may_wait for the disk, and while somebody is marking it
 * @return EBUSY: another server has it; EAGAIN: somebody is marking it
 */
static apr_status_t dir_claim(mw_file_t *file, int root, int may_wait)
{
    int most = may_wait ? LOCK_TRIES_BEGIN : LOCK_TRIES;
    apr_status_t rv = EAGAIN;
    int refused = 0;
    int marks = 0;
    int tries;

    for (tries = 0; tries < most && refused < LOCK_TRIES; tries++) {
        if (dir_lock(root, LOCK_SH)) {
            if (dir_is_ours(file, root)) {
                return APR_SUCCESS;
            }
            if (dir_lock(root, LOCK_EX)) {
                rv = marks++ < MARKS_MOST ? dir_mark(file, root, may_wait)
                                          : EBUSY;
                if (rv != APR_SUCCESS) {
                    return rv;
                }
                continue;
            }
            rv = EBUSY;
            refused++;
        }
        else {
            rv = EAGAIN;
        }
        apr_sleep(1000);
    }
    return rv == APR_SUCCESS ? EAGAIN : rv;
}

/** The descriptor keeps its number: other threads may be using it. */
static void dir_settle(mw_file_t *file, int root)
{
    if (file->root < 0) {
        file->root = root;
    }
    else {
        dup3(root, file->root, O_CLOEXEC);
        close(root);
    }
    MW_FILE_STORE(&file->is_ready, 1);
}

/** @param may_wait see dir_claim() */
static apr_status_t dir_enter(mw_file_t *file, int may_wait)
{
    int had_trouble = file->trouble != APR_SUCCESS && file->trouble != EAGAIN;
    int root = -1;
    apr_status_t rv;

    MW_FILE_STORE(&file->is_ready, 0);
    MW_FILE_STORE(&file->place, MW_FILE_LOAD(&file->shared->place));
    rv = dir_open(file, &root);
    if (rv == APR_SUCCESS) {
        rv = dir_claim(file, root, may_wait);
        if (rv != APR_SUCCESS) {
            close(root);
        }
    }
    if (rv != APR_SUCCESS) {
        return dir_log(file, rv);
    }
    if (had_trouble) {
        file->services->log(file->services, CACHEMW_LOG_INFO, APR_SUCCESS,
                            "cache_dir=%s can be used again", file->path);
    }
    dir_settle(file, root);
    return APR_SUCCESS;
}

/** The caller alone is at it. */
static apr_status_t dir_try(mw_file_t *file, apr_time_t now, int may_wait)
{
    apr_status_t rv =
        mw_dir_is_had(file) ? APR_SUCCESS : dir_enter(file, may_wait);

    MW_FILE_STORE(&file->trouble, rv == APR_SUCCESS ? EAGAIN : rv);
    MW_FILE_STORE(&file->tried, now);
    return rv;
}

apr_status_t mw_dir_enter(mw_file_t *file, apr_time_t now)
{
    apr_int64_t tried = MW_FILE_LOAD(&file->tried);
    apr_status_t rv;

    if (!MW_FILE_LOAD(&file->is_ready) && now >= tried
        && now - tried < APR_USEC_PER_SEC) {
        return MW_FILE_LOAD(&file->trouble);
    }
    if (pthread_mutex_trylock(&file->entering) != 0) {
        return MW_FILE_LOAD(&file->trouble);
    }
    rv = dir_try(file, now, 0);
    pthread_mutex_unlock(&file->entering);
    return rv;
}

apr_status_t mw_dir_begin(mw_file_t *file)
{
    file->is_ready = 0;
    file->trouble = EAGAIN;
    if (pthread_mutex_init(&file->entering, NULL) != 0) {
        return APR_ENOMEM;
    }
    dir_try(file, 0, 1);
    return APR_SUCCESS;
}

void mw_dir_doubt(mw_file_t *file)
{
    struct stat here, there;
    apr_uint32_t place;

    if (fstat(file->root, &here) == 0
        && fstatat(AT_FDCWD, file->root_path, &there, AT_SYMLINK_NOFOLLOW) == 0
        && here.st_dev == there.st_dev && here.st_ino == there.st_ino) {
        return;
    }
    if (MW_FILE_LOAD(&file->is_ready)) {
        file->services->log(file->services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                            "%s has been removed or replaced", file->root_path);
        /* Others may find all they look for in the one that they have. */
        place = MW_FILE_LOAD(&file->place);
        __atomic_compare_exchange_n(&file->shared->place, &place, place + 1, 0,
                                    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
        MW_FILE_STORE(&file->tried, MW_DIR_NEVER);
        MW_FILE_STORE(&file->is_ready, 0);
    }
}

void mw_dir_leave(mw_file_t *file)
{
    if (file->root >= 0) {
        close(file->root);
        file->root = -1;
    }
}

/** Make `*to` at least `value`, whoever else does so. */
static void epoch_raise(apr_uint64_t *to, apr_uint64_t value)
{
    apr_uint64_t is = MW_FILE_LOAD(to);

    while (is < value
           && !__atomic_compare_exchange_n(to, &is, value, 0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE)) {
    }
}

/**
 * The present mark with the next number. One writes at a time: who was slow
 * would overwrite a later one.
 */
static apr_status_t mark_note(mw_file_t *file)
{
    mw_mark_t mark;
    apr_status_t rv = mark_lock(file, 1);

    if (rv != APR_SUCCESS) {
        return rv;
    }
    if (mw_dir_is_had(file)) {
        /* A number that was not written is used again: the other copy is the
         * last good one. */
        mw_mark_copy(&mark, &file->shared->mark);
        mark.number++;
        rv = mw_mark_write(file->root, &mark, 1);
        if (rv == APR_SUCCESS) {
            MW_FILE_STORE(&file->shared->mark.number, mark.number);
        }
    }
    else {
        rv = EAGAIN;
    }
    mark_unlock(file);
    return rv;
}

apr_status_t mw_dir_sync(mw_file_t *file)
{
    mw_mark_t *mark = &file->shared->mark;
    apr_uint64_t *safe;
    apr_uint64_t ended;

    ended = MW_FILE_LOAD(&mark->epoch);
    safe = &mark->safe[(ended >> 32) % MW_MARK_BOOTS];
    if (MW_FILE_LOAD(safe) >= MW_FILE_LOAD(&file->shared->stamped)) {
        return APR_SUCCESS;
    }
    ended = __atomic_fetch_add(&mark->epoch, 1, __ATOMIC_ACQ_REL);
    if (syncfs(file->root) != 0) {
        return errno;
    }
    /* One behind: who took the number of the epoch that has just ended may
     * write for another moment. */
    epoch_raise(safe, ended - 1);
    return mark_note(file);
}

apr_uint64_t mw_dir_stamp(mw_file_t *file)
{
    apr_uint64_t epoch = MW_FILE_LOAD(&file->shared->mark.epoch);

    epoch_raise(&file->shared->stamped, epoch);
    return epoch;
}

apr_status_t mw_dir_clear(mw_file_t *file)
{
    mw_mark_t *mark = &file->shared->mark;
    apr_uint64_t ended = __atomic_fetch_add(&mark->epoch, 1, __ATOMIC_ACQ_REL);

    epoch_raise(&mark->cleared, ended);
    return mark_note(file);
}
