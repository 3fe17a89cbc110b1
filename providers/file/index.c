/* SPDX-License-Identifier: Apache-2.0 */

#include "index_layout.h"

/** Longer hash chains are not looked through without the lock. */
#define FIND_STEPS 64

/** How often an answer that a change got in the way of is tried again. */
#define FIND_TRIES 8

/** What an adopted file may drive out. */
#define CHECK_VICTIMS 64

static void version_step(mw_index_t *index, apr_uint32_t shard)
{
    __atomic_add_fetch(&index->header->versions[shard], 1, __ATOMIC_SEQ_CST);
}

static apr_uint64_t *tally_of(const mw_index_t *index, apr_uint32_t shard,
                              int queue)
{
    return &index->header->tallies[queue][shard];
}

static void word_add(apr_uint64_t *word, apr_uint64_t more)
{
    __atomic_fetch_add(word, more, __ATOMIC_SEQ_CST);
}

static apr_uint64_t record_worth(const mw_index_record_t *record)
{
    return MW_INDEX_ENTRY + record->blocks;
}

static void queue_push(mw_index_t *index, apr_uint32_t shard, int which,
                       apr_uint32_t number)
{
    mw_index_queue_t *queue = &index->shards[shard].queue[which];
    mw_index_record_t *record = mw_index_record(index, shard, number);

    record->queue = (unsigned char)which;
    record->newer = 0;
    record->older = queue->newest;
    if (queue->newest) {
        mw_index_record(index, shard, queue->newest)->newer = number;
    }
    else {
        queue->oldest = number;
    }
    queue->newest = number;
}

static void queue_remove(mw_index_t *index, apr_uint32_t shard,
                         const mw_index_record_t *record)
{
    mw_index_queue_t *queue = &index->shards[shard].queue[record->queue];

    if (record->newer) {
        mw_index_record(index, shard, record->newer)->older = record->older;
    }
    else {
        queue->newest = record->older;
    }
    if (record->older) {
        mw_index_record(index, shard, record->older)->newer = record->newer;
    }
    else {
        queue->oldest = record->newer;
    }
}

void mw_index_requeue(mw_index_t *index, apr_uint32_t shard,
                      apr_uint32_t number)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    int from = record->queue;

    queue_remove(index, shard, record);
    queue_push(index, shard, MW_INDEX_MAIN, number);
    if (from != MW_INDEX_MAIN) {
        word_add(tally_of(index, shard, MW_INDEX_MAIN), record_worth(record));
        word_add(tally_of(index, shard, from), -record_worth(record));
    }
}

static void chain_link(mw_index_t *index, apr_uint32_t shard,
                       apr_uint32_t number)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    apr_uint32_t *bucket = mw_index_bucket(index, record->digest);

    MW_INDEX_STORE(&record->next, *bucket);
    MW_INDEX_STORE(bucket, number);
}

static void chain_unlink(mw_index_t *index, apr_uint32_t shard,
                         apr_uint32_t number)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    apr_uint32_t *link = mw_index_bucket(index, record->digest);

    while (*link != number) {
        link = &mw_index_record(index, shard, *link)->next;
    }
    MW_INDEX_STORE(link, record->next);
}

/** @return number of the record within the shard; 0: there is none. Locked */
static apr_uint32_t record_find(const mw_index_t *index, apr_uint32_t shard,
                                const apr_uint64_t words[2])
{
    apr_uint32_t number = *mw_index_bucket(index, words);

    while (number) {
        const mw_index_record_t *record = mw_index_record(index, shard, number);

        if (record->digest[0] == words[0] && record->digest[1] == words[1]) {
            break;
        }
        number = record->next;
    }
    return number;
}

/** What a record says, also while it is being changed. */
static void record_tell(const mw_index_record_t *record,
                        mw_index_facts_t *facts)
{
    apr_uint32_t expires = MW_INDEX_LOAD(&record->expires);

    facts->exists = 1;
    facts->size = (apr_uint64_t)MW_INDEX_LOAD(&record->blocks) * MW_INDEX_BLOCK;
    facts->expires = expires == MW_INDEX_NEVER
                         ? APR_INT64_MAX
                         : apr_time_from_sec((apr_time_t)expires);
}

static void record_give(mw_index_t *index, apr_uint32_t shard,
                        apr_uint32_t number)
{
    MW_INDEX_STORE(&mw_index_record(index, shard, number)->next,
                   index->shards[shard].free);
    index->shards[shard].free = number;
}

static apr_uint32_t record_take(mw_index_t *index, apr_uint32_t shard)
{
    mw_index_shard_t *one = &index->shards[shard];
    apr_uint32_t number = one->free;

    if (number) {
        one->free = mw_index_record(index, shard, number)->next;
    }
    else if (one->fresh < index->geometry.records_each) {
        number = ++one->fresh;
    }
    return number;
}

static void record_write(mw_index_t *index, apr_uint32_t shard,
                         apr_uint32_t number, const mw_index_facts_t *facts)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    apr_uint32_t expires = mw_index_seconds(facts->expires);
    apr_uint32_t *due = &index->due[(record - index->records) / MW_INDEX_CHUNK];

    MW_INDEX_STORE(&record->expires, expires);
    MW_INDEX_STORE(&record->round, MW_INDEX_LOAD(&index->header->round));
    if (MW_INDEX_LOAD(due) > expires) {
        MW_INDEX_STORE(due, expires);
    }
    MW_INDEX_STORE(&record->blocks, (apr_uint32_t)mw_index_blocks(facts->size));
}

static void record_insert(mw_index_t *index, apr_uint32_t shard,
                          apr_uint32_t number, const apr_uint64_t words[2],
                          int queue, const mw_index_facts_t *facts)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);

    version_step(index, shard);
    MW_INDEX_STORE(&record->digest[0], words[0]);
    MW_INDEX_STORE(&record->digest[1], words[1]);
    MW_INDEX_STORE(&record->uses, 0);
    record->queue = (unsigned char)queue;
    record_write(index, shard, number, facts);
    word_add(tally_of(index, shard, queue), record_worth(record));
    chain_link(index, shard, number);
    queue_push(index, shard, queue, number);
    version_step(index, shard);
}

static void record_update(mw_index_t *index, apr_uint32_t shard,
                          apr_uint32_t number, const mw_index_facts_t *facts)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    apr_uint64_t before = record->blocks;

    version_step(index, shard);
    record_write(index, shard, number, facts);
    word_add(tally_of(index, shard, record->queue), record->blocks - before);
    version_step(index, shard);
}

static void record_drop(mw_index_t *index, apr_uint32_t shard,
                        apr_uint32_t number)
{
    mw_index_record_t *record = mw_index_record(index, shard, number);
    apr_uint64_t worth = record_worth(record);

    version_step(index, shard);
    MW_INDEX_STORE(&record->blocks, 0);
    chain_unlink(index, shard, number);
    queue_remove(index, shard, record);
    record_give(index, shard, number);
    version_step(index, shard);
    word_add(tally_of(index, shard, record->queue), -worth);
}

static void intent_set(mw_index_t *index, apr_uint32_t shard, int which,
                       const mw_digest_t *digest)
{
    mw_index_intent_t *intent = &index->shards[shard].intents[which];

    intent->digest = *digest;
    __atomic_store_n(&intent->is_valid, 1, __ATOMIC_SEQ_CST);
}

static void intent_end(mw_index_t *index, apr_uint32_t shard, int which)
{
    __atomic_store_n(&index->shards[shard].intents[which].is_valid, 0,
                     __ATOMIC_SEQ_CST);
}

apr_status_t mw_index_unlink(mw_index_t *index, apr_uint32_t shard,
                             apr_uint32_t number)
{
    mw_digest_t digest;
    apr_status_t rv;

    memcpy(&digest, mw_index_record(index, shard, number)->digest,
           sizeof(digest));
    intent_set(index, shard, MW_INDEX_VICTIM, &digest);
    rv = index->files->unlink(index->baton, &digest);
    if (rv == APR_SUCCESS) {
        record_drop(index, shard, number);
    }
    intent_end(index, shard, MW_INDEX_VICTIM);
    return rv;
}

/** A free record, if need be that of an entry that is evicted. */
static apr_uint32_t record_make(mw_index_t *index, apr_uint32_t shard,
                                apr_time_t now)
{
    apr_uint32_t number = record_take(index, shard);

    if (!number
        && (mw_index_evict(index, shard, MW_INDEX_SMALL, now, 0)
            || mw_index_evict(index, shard, MW_INDEX_MAIN, now, 1))) {
        number = record_take(index, shard);
    }
    return number;
}

/**
 * Have the index say what is true of a file.
 * @param queue of a new record
 * @return APR_ENOSPC: there is no record for it, so the file is gone
 */
static apr_status_t facts_apply(mw_index_t *index, apr_uint32_t shard,
                                const mw_digest_t *digest, int queue,
                                const mw_index_facts_t *facts, apr_time_t now)
{
    apr_uint64_t words[2];
    apr_uint32_t number;

    mw_index_words(digest, words);
    number = record_find(index, shard, words);
    if (!facts->exists) {
        if (number) {
            record_drop(index, shard, number);
        }
        return APR_SUCCESS;
    }
    if (number) {
        record_update(index, shard, number, facts);
        return APR_SUCCESS;
    }
    number = record_make(index, shard, now);
    if (!number) {
        apr_status_t rv = index->files->unlink(index->baton, digest);

        return rv == APR_SUCCESS ? APR_ENOSPC : rv;
    }
    record_insert(index, shard, number, words, queue, facts);
    return APR_SUCCESS;
}

/** Learn what became of a file that somebody was at. */
static apr_status_t intent_settle(mw_index_t *index, apr_uint32_t shard,
                                  int which)
{
    mw_digest_t digest = index->shards[shard].intents[which].digest;
    mw_index_facts_t facts;
    apr_status_t rv = index->files->probe(index->baton, &digest, &facts);

    if (rv == APR_SUCCESS) {
        rv = facts_apply(index, shard, &digest, MW_INDEX_MAIN, &facts, 0);
    }
    if (rv == APR_SUCCESS || rv == APR_ENOSPC) {
        intent_end(index, shard, which);
        return APR_SUCCESS;
    }
    return rv;
}

/** Everything but the records themselves is made again. */
static void shard_mend(mw_index_t *index, apr_uint32_t shard)
{
    mw_index_shard_t *one = &index->shards[shard];
    apr_uint32_t *buckets =
        index->buckets + shard * index->geometry.buckets_each;
    apr_uint32_t per = index->geometry.records_each / MW_INDEX_CHUNK;
    apr_uint64_t tallies[MW_INDEX_QUEUES] = { 0, 0 };
    apr_uint32_t i;

    if (!(MW_INDEX_LOAD(&index->header->versions[shard]) & 1)) {
        version_step(index, shard);
    }
    for (i = 0; i < index->geometry.buckets_each; i++) {
        MW_INDEX_STORE(&buckets[i], 0);
    }
    for (i = 0; i < per; i++) {
        MW_INDEX_STORE(&index->due[shard * per + i], 0);
    }
    memset(one->queue, 0, sizeof(one->queue));
    one->free = 0;
    for (i = 1; i <= one->fresh; i++) {
        mw_index_record_t *record = mw_index_record(index, shard, i);

        if (record->blocks) {
            chain_link(index, shard, i);
            queue_push(index, shard, record->queue, i);
            tallies[record->queue] += record_worth(record);
        }
        else {
            record_give(index, shard, i);
        }
    }
    for (i = MW_INDEX_QUEUES; i-- > 0;) {
        __atomic_store_n(tally_of(index, shard, (int)i), tallies[i],
                         __ATOMIC_SEQ_CST);
    }
    version_step(index, shard);
    __atomic_fetch_add(&index->header->recovered, 1, __ATOMIC_RELAXED);
    index->services->count(index->services, CACHEMW_COUNT_RECOVERED, 1);
}

int mw_index_lock(mw_index_t *index, apr_uint32_t shard, int wait)
{
    mw_index_shard_t *one = &index->shards[shard];
    int rv = wait
                 ? mw_lock(&one->lock, &index->stuck[shard], MW_LOCK_WAIT_FILES)
                 : pthread_mutex_trylock(&one->lock);
    int i;

    if (rv == EOWNERDEAD) {
        shard_mend(index, shard);
        pthread_mutex_consistent(&one->lock);
        rv = 0;
    }
    for (i = MW_INDEX_INTENTS; rv == 0 && i-- > 0;) {
        if (MW_INDEX_LOAD(&one->intents[i].is_valid)
            && intent_settle(index, shard, i) != APR_SUCCESS) {
            pthread_mutex_unlock(&one->lock);
            rv = EBUSY;
        }
    }
    return rv == 0;
}

void mw_index_unlock(mw_index_t *index, apr_uint32_t shard)
{
    pthread_mutex_unlock(&index->shards[shard].lock);
}

/** Whether a scan would have found it. */
static int find_is_known(const mw_index_t *index, const mw_digest_t *digest)
{
    const mw_index_scan_t *scan = &index->header->scan;
    apr_uint32_t dir = 0;

    if (MW_INDEX_LOAD(&scan->was_made)) {
        return 1;
    }
    if (index->geometry.dirs > 256) {
        dir = (apr_uint32_t)digest->bytes[0] << 8 | digest->bytes[1];
    }
    else if (index->geometry.dirs > 1) {
        dir = digest->bytes[0];
    }
    return dir < MW_INDEX_LOAD(&scan->dir);
}

static void record_touch(mw_index_record_t *record)
{
    unsigned char uses = MW_INDEX_LOAD(&record->uses);

    if (uses < MW_INDEX_USES_MAX) {
        MW_INDEX_STORE(&record->uses, (unsigned char)(uses + 1));
    }
}

/** One try, which counts if the shard is unchanged afterwards. */
static mw_index_answer_e find_once(mw_index_t *index, apr_uint32_t shard,
                                   const apr_uint64_t words[2],
                                   mw_index_record_t **record,
                                   mw_index_facts_t *facts)
{
    apr_uint32_t number = MW_INDEX_LOAD(mw_index_bucket(index, words));
    int steps;

    for (steps = 0; number && steps < FIND_STEPS; steps++) {
        mw_index_record_t *one = mw_index_record(index, shard, number);

        if (MW_INDEX_LOAD(&one->digest[0]) == words[0]
            && MW_INDEX_LOAD(&one->digest[1]) == words[1]) {
            record_tell(one, facts);
            facts->exists = MW_INDEX_LOAD(&one->round)
                            == MW_INDEX_LOAD(&index->header->round);
            *record = one;
            return MW_INDEX_PRESENT;
        }
        number = MW_INDEX_LOAD(&one->next);
    }
    return number ? MW_INDEX_UNKNOWN : MW_INDEX_ABSENT;
}

mw_index_answer_e mw_index_find(mw_index_t *index, const mw_digest_t *digest,
                                apr_time_t now, mw_index_facts_t *facts)
{
    int is_known = find_is_known(index, digest);
    mw_index_answer_e answer = MW_INDEX_UNKNOWN;
    mw_index_record_t *record = NULL;
    apr_uint64_t words[2];
    apr_uint32_t *version;
    apr_uint32_t before;
    apr_uint32_t shard;
    int tries;

    mw_index_words(digest, words);
    shard = mw_index_shard_of(index, words);
    version = &index->header->versions[shard];
    for (tries = 0; tries < FIND_TRIES; tries++) {
        before = MW_INDEX_LOAD(version);
        answer = find_once(index, shard, words, &record, facts);
        if (!(before & 1) && before == MW_INDEX_LOAD(version)) {
            break;
        }
        answer = MW_INDEX_UNKNOWN;
    }
    if (answer == MW_INDEX_PRESENT) {
        if (!facts->exists || facts->expires <= now) {
            return MW_INDEX_ABSENT;
        }
        record_touch(record);
    }
    return answer == MW_INDEX_ABSENT && !is_known ? MW_INDEX_UNKNOWN : answer;
}

void mw_index_found(mw_index_t *index, apr_uint64_t size)
{
    apr_uint64_t *word = &index->header->scan.unfound;
    apr_uint64_t blocks = mw_index_blocks(size);
    apr_uint64_t old = __atomic_load_n(word, __ATOMIC_SEQ_CST);
    apr_uint64_t rest;

    do {
        apr_uint64_t b = MW_INDEX_BLOCKS(old);
        apr_uint64_t e = MW_INDEX_ENTRIES(old);

        rest = (e ? e - 1 : 0) * MW_INDEX_ENTRY + (b > blocks ? b - blocks : 0);
    } while (!__atomic_compare_exchange_n(word, &old, rest, 0, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
}

/** The file was looked at; the shard is locked. */
static apr_status_t check_apply(mw_index_t *index, apr_uint32_t shard,
                                const mw_digest_t *digest,
                                mw_index_facts_t *facts, apr_time_t now)
{
    apr_uint64_t words[2];
    int is_found;
    apr_status_t rv;

    mw_index_words(digest, words);
    is_found = facts->exists && !record_find(index, shard, words);
    if (facts->exists
        && mw_index_is_over(mw_index_seconds(facts->expires), now)) {
        facts->exists =
            index->files->unlink(index->baton, digest) != APR_SUCCESS;
    }
    rv = facts_apply(index, shard, digest, MW_INDEX_MAIN, facts, now);
    if (is_found && (rv == APR_SUCCESS || rv == APR_ENOSPC)) {
        mw_index_found(index, facts->size);
    }
    return rv;
}

apr_status_t mw_index_check(mw_index_t *index, const mw_digest_t *digest,
                            apr_time_t now)
{
    mw_index_facts_t facts = { .exists = 0 };
    apr_uint64_t words[2];
    apr_uint32_t shard;
    apr_status_t rv;

    mw_index_words(digest, words);
    shard = mw_index_shard_of(index, words);
    if (!mw_index_lock(index, shard, 1)) {
        return APR_TIMEUP;
    }
    intent_set(index, shard, MW_INDEX_CHANGED, digest);
    rv = index->files->probe(index->baton, digest, &facts);
    if (rv == APR_SUCCESS) {
        rv = check_apply(index, shard, digest, &facts, now);
    }
    intent_end(index, shard, MW_INDEX_CHANGED);
    mw_index_unlock(index, shard);
    if (rv == APR_SUCCESS && facts.exists) {
        mw_index_make_room(index, now, CHECK_VICTIMS);
    }
    return rv == APR_ENOSPC ? APR_SUCCESS : rv;
}

/** What the index knows, as mw_index_work_fn gets it. Locked. */
static void facts_known(const mw_index_t *index, apr_uint32_t shard,
                        const apr_uint64_t words[2], mw_index_facts_t *facts)
{
    apr_uint32_t number = record_find(index, shard, words);

    memset(facts, 0, sizeof(*facts));
    if (number) {
        record_tell(mw_index_record(index, shard, number), facts);
    }
}

/** After the work was done, or failed somewhere. Locked. */
static apr_status_t change_apply(mw_index_t *index, apr_uint32_t shard,
                                 const mw_digest_t *digest,
                                 const mw_index_facts_t *facts, apr_time_t now)
{
    apr_uint64_t words[2];
    apr_status_t rv;

    mw_index_words(digest, words);
    rv = facts_apply(index, shard, digest,
                     mw_index_was_here(index, words) ? MW_INDEX_MAIN
                                                     : MW_INDEX_SMALL,
                     facts, now);
    if (rv == APR_SUCCESS || rv == APR_ENOSPC) {
        intent_end(index, shard, MW_INDEX_CHANGED);
    }
    return rv;
}

/**
 * The new file and the one that it replaces may change places: then it is the
 * old one that is there under the temporary name, and has to count as that,
 * too, should this process die.
 */
static void room_widen(mw_index_t *index, mw_index_room_t *room,
                       const mw_index_facts_t *before)
{
    apr_uint64_t blocks = mw_index_blocks(before->size);

    if (before->exists && blocks > room->blocks) {
        word_add(&index->reserved[room->slot - 1], blocks - room->blocks);
        room->blocks = blocks;
    }
}

apr_status_t mw_index_change(mw_index_t *index, const mw_digest_t *digest,
                             mw_index_room_t *room, mw_index_work_fn *work,
                             void *baton, apr_time_t now)
{
    mw_index_facts_t facts;
    mw_index_facts_t before;
    apr_uint64_t words[2];
    apr_uint32_t shard;
    apr_status_t rv;

    mw_index_words(digest, words);
    shard = mw_index_shard_of(index, words);
    if (!mw_index_lock(index, shard, 1)) {
        return APR_TIMEUP;
    }
    facts_known(index, shard, words, &facts);
    before = facts;
    if (room && !room->adds) {
        room_widen(index, room, &before);
    }
    intent_set(index, shard, MW_INDEX_CHANGED, digest);
    rv = work(baton, digest, &facts);
    if (rv != APR_SUCCESS) {
        intent_settle(index, shard, MW_INDEX_CHANGED);
    }
    else if (!room && facts.exists == before.exists && facts.size == before.size
             && facts.expires == before.expires) {
        /* What was cleared is not to be taken for new. */
        intent_end(index, shard, MW_INDEX_CHANGED);
    }
    else {
        rv = change_apply(index, shard, digest, &facts, now);
    }
    mw_index_unlock(index, shard);
    if (rv == APR_SUCCESS && room) {
        mw_index_release(index, room);
    }
    return rv;
}
