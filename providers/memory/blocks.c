/* SPDX-License-Identifier: Apache-2.0 */

#include "blocks.h"
#include "providers/common/lock.h"

/** Requests from this size on (units) are served from above. */
#define BLOCKS_LARGE 128u

/** Places that a small request looks at for a gap that holds all of it. */
#define BLOCKS_TRIES 128

/** And when it takes part of one as well. */
#define BLOCKS_PIECE_TRIES 16

/** Bytes that a page fault maps, if they are there: see page_read(). */
#define BLOCKS_MAPPED 65536u

#define BLOCKS_ALL (~APR_UINT64_C(0))

/** A gap in an area: adjacent free units. */
typedef struct gap_t {
    apr_uint64_t start;
    apr_uint32_t count;
} gap_t;

static apr_uint32_t words_total(const mw_mem_t *mem)
{
    return (apr_uint32_t)(((apr_uint64_t)mem->geometry.units + 63) / 64);
}

/** First word of an area, and the first behind it. */
static apr_uint32_t area_words(const mw_mem_t *mem, apr_uint32_t area,
                               apr_uint32_t *end)
{
    apr_uint64_t begin = (apr_uint64_t)area << (mem->geometry.area_shift - 6);
    apr_uint64_t after = begin + (1u << (mem->geometry.area_shift - 6));
    apr_uint32_t total = words_total(mem);

    *end = after > total ? total : (apr_uint32_t)after;
    return (apr_uint32_t)begin;
}

static apr_uint32_t area_of(const mw_mem_t *mem, apr_uint32_t unit)
{
    return unit >> mem->geometry.area_shift;
}

static apr_uint64_t bits_of(apr_uint32_t from, apr_uint32_t count)
{
    return (count == 64 ? BLOCKS_ALL : (APR_UINT64_C(1) << count) - 1) << from;
}

/** Keep `full` and `touched` true for a word. */
static void word_changed(mw_mem_t *mem, apr_uint32_t w)
{
    apr_uint64_t bit = APR_UINT64_C(1) << (w & 63);
    apr_uint64_t word = mem->taken[w];

    if (word == BLOCKS_ALL) {
        mem->full[w >> 6] |= bit;
    }
    else {
        mem->full[w >> 6] &= ~bit;
    }
    if (word) {
        mem->touched[w >> 6] |= bit;
    }
    else {
        mem->touched[w >> 6] &= ~bit;
    }
}

/** Derive everything about an area from its bits. */
static void area_derive(mw_mem_t *mem, apr_uint32_t index)
{
    mw_mem_area_t *area = &mem->areas[index];
    apr_uint32_t end;
    apr_uint32_t w = area_words(mem, index, &end);
    apr_uint32_t free = 0;

    area->low = w;
    for (; w < end; w++) {
        word_changed(mem, w);
        free += 64 - (apr_uint32_t)__builtin_popcountll(mem->taken[w]);
    }
    MW_MEM_STORE(&area->free, free);
    MW_MEM_STORE(&area->longest, free);
}

/** @return 0: it cannot be had */
static int area_lock(mw_mem_t *mem, apr_uint32_t index)
{
    mw_mem_area_t *area = &mem->areas[index];
    int rv = mw_lock(&area->lock, &mem->stuck_areas[index], MW_LOCK_WAIT);

    if (rv == EOWNERDEAD) {
        area_derive(mem, index);
        mw_mem_count_recovery(mem);
        mw_mem_want_collection(mem);
        pthread_mutex_consistent(&area->lock);
        rv = 0;
    }
    return rv == 0;
}

static void area_unlock(mw_mem_t *mem, apr_uint32_t index)
{
    pthread_mutex_unlock(&mem->areas[index].lock);
}

void mw_blocks_lock_area(mw_mem_t *mem, apr_uint32_t area)
{
    area_lock(mem, area);
}

static void marks_set(mw_mem_t *mem, apr_uint32_t unit, apr_uint32_t count)
{
    while (count) {
        apr_uint32_t from = unit & 63;
        apr_uint32_t n = 64 - from < count ? 64 - from : count;

        __atomic_fetch_or(&mem->marks[unit >> 6], bits_of(from, n),
                          __ATOMIC_RELAXED);
        unit += n;
        count -= n;
    }
}

static void area_take(mw_mem_t *mem, mw_mem_area_t *area, apr_uint32_t unit,
                      apr_uint32_t count)
{
    if (area->collecting) {
        marks_set(mem, unit, count);
    }
    MW_MEM_STORE(&area->free, area->free - count);
    while (count) {
        apr_uint32_t from = unit & 63;
        apr_uint32_t n = 64 - from < count ? 64 - from : count;

        mem->taken[unit >> 6] |= bits_of(from, n);
        word_changed(mem, unit >> 6);
        unit += n;
        count -= n;
    }
}

/** The gap around a wholly free word, looked at until it has `enough` units. */
static gap_t gap_around(const mw_mem_t *mem, apr_uint32_t begin,
                        apr_uint32_t end, apr_uint32_t w, apr_uint32_t enough)
{
    apr_uint32_t low = w;
    apr_uint32_t high = w + 1;
    gap_t gap;

    while (high < end && !mem->taken[high] && (high - low) * 64 < enough) {
        high++;
    }
    while (low > begin && !mem->taken[low - 1] && (high - low) * 64 < enough) {
        low--;
    }
    gap.start = (apr_uint64_t)low * 64;
    gap.count = (high - low) * 64;
    if (low > begin && mem->taken[low - 1]) {
        apr_uint32_t n = (apr_uint32_t)__builtin_clzll(mem->taken[low - 1]);

        gap.start -= n;
        gap.count += n;
    }
    if (high < end && mem->taken[high]) {
        gap.count += (apr_uint32_t)__builtin_ctzll(mem->taken[high]);
    }
    return gap;
}

/** Units came back: is the gap that they are in now the longest? */
static void area_lengthen(const mw_mem_t *mem, mw_mem_area_t *area,
                          apr_uint32_t unit, apr_uint32_t count)
{
    apr_uint32_t longest = area->longest;
    apr_uint32_t w = (unit + 63) >> 6;
    apr_uint32_t end;
    apr_uint32_t begin =
        area_words(mem, (apr_uint32_t)(area - mem->areas), &end);

    if (longest >= MW_MEM_RUN_MAX || longest >= area->free) {
        return;
    }
    if (w << 6 >= unit + count || mem->taken[w]) {
        w = unit >> 6;
    }
    if (!mem->taken[w]) {
        gap_t gap = gap_around(mem, begin, end, w, MW_MEM_RUN_MAX);

        if (gap.count > longest) {
            MW_MEM_STORE(&area->longest, gap.count);
        }
    }
}

static void area_give(mw_mem_t *mem, mw_mem_area_t *area, apr_uint32_t unit,
                      apr_uint32_t count)
{
    apr_uint32_t at;
    apr_uint32_t n;

    if (unit >> 6 < area->low) {
        area->low = unit >> 6;
    }
    MW_MEM_STORE(&area->free, area->free + count);
    for (at = unit; at < unit + count; at += n) {
        apr_uint32_t from = at & 63;

        n = 64 - from < unit + count - at ? 64 - from : unit + count - at;
        mem->taken[at >> 6] &= ~bits_of(from, n);
        word_changed(mem, at >> 6);
    }
    area_lengthen(mem, area, unit, count);
}

/** The first word at or behind w with a free unit; end: none. */
static apr_uint32_t next_free_word(const mw_mem_t *mem, apr_uint32_t w,
                                   apr_uint32_t end)
{
    while (w < end) {
        apr_uint64_t open = ~mem->full[w >> 6] & (BLOCKS_ALL << (w & 63));

        if (open) {
            w = (w & ~63u) + (apr_uint32_t)__builtin_ctzll(open);
            break;
        }
        w = (w & ~63u) + 64;
    }
    return w < end ? w : end;
}

/** How far a gap that reaches the end of word w - 1 goes on, at most want. */
static apr_uint32_t gap_beyond(const mw_mem_t *mem, apr_uint32_t w,
                               apr_uint32_t end, apr_uint32_t want)
{
    apr_uint32_t n = 0;

    for (; w < end && n < want; w++) {
        if (mem->taken[w]) {
            return n + (apr_uint32_t)__builtin_ctzll(mem->taken[w]);
        }
        n += 64;
    }
    return n;
}

/** The first gap of `want` units that begins in word w, or the longest. */
static gap_t gap_in_word(const mw_mem_t *mem, apr_uint32_t w, apr_uint32_t end,
                         apr_uint32_t want)
{
    apr_uint64_t open = ~mem->taken[w];
    gap_t best = { 0, 0 };

    while (open) {
        apr_uint32_t from = (apr_uint32_t)__builtin_ctzll(open);
        apr_uint64_t rest = ~(open >> from);
        apr_uint32_t n = rest ? (apr_uint32_t)__builtin_ctzll(rest) : 64;

        if (n > 64 - from) {
            n = 64 - from;
        }
        open &= ~bits_of(from, n);
        if (from + n == 64 && n < want) {
            n += gap_beyond(mem, w + 1, end, want - n);
        }
        if (n > best.count) {
            best.start = (apr_uint64_t)w * 64 + from;
            best.count = n;
        }
        if (n >= want) {
            break;
        }
    }
    return best;
}

/**
 * From below; the first that fits among the next few, else the longest of
 * them. For a piece it looks until one is long enough.
 */
static gap_t gap_small(const mw_mem_t *mem, mw_mem_area_t *area,
                       apr_uint32_t end, apr_uint32_t least, apr_uint32_t want)
{
    int most = least < want ? BLOCKS_PIECE_TRIES : BLOCKS_TRIES;
    apr_uint32_t w = next_free_word(mem, area->low, end);
    gap_t best = { 0, 0 };
    int tries;

    area->low = w;
    for (tries = 0;
         w < end && (tries < most || (least < want && best.count < least));
         tries++) {
        gap_t gap = gap_in_word(mem, w, end, want);

        if (gap.count > best.count) {
            best = gap;
        }
        if (best.count >= want) {
            break;
        }
        w = next_free_word(mem, w + 1, end);
    }
    return best;
}

/** The last word before w that is wholly free; begin - 1: none. */
static apr_int64_t last_untouched(const mw_mem_t *mem, apr_int64_t begin,
                                  apr_int64_t w)
{
    while (--w >= begin) {
        apr_uint64_t open =
            ~mem->touched[w >> 6] & bits_of(0, (apr_uint32_t)(w & 63) + 1);

        if (open) {
            w = (w & ~(apr_int64_t)63) + 63 - __builtin_clzll(open);
            return w >= begin ? w : begin - 1;
        }
        w &= ~(apr_int64_t)63;
    }
    return begin - 1;
}

/**
 * From above, of the gaps with a wholly free word: the first that fits, else
 * the longest.
 */
static gap_t gap_large(const mw_mem_t *mem, mw_mem_area_t *area,
                       apr_uint32_t begin, apr_uint32_t end, apr_uint32_t want)
{
    apr_int64_t top = last_untouched(mem, begin, end);
    gap_t best = { 0, 0 };

    while (top >= begin && best.count < want) {
        gap_t gap = gap_around(mem, begin, end, (apr_uint32_t)top, want);

        if (gap.count > best.count) {
            best = gap;
        }
        top = last_untouched(mem, begin, (apr_int64_t)(gap.start >> 6));
    }
    if (best.count < want) {
        MW_MEM_STORE(&area->longest, best.count);
    }
    else {
        best.start += best.count - want;
    }
    return best;
}

/**
 * A page that a process reads before it writes to it comes with those around
 * it that others have written (16, by default); else it comes alone.
 */
static void page_read(const char *at)
{
    (void)*(const volatile char *)at;
}

static void run_map(const mw_mem_t *mem, apr_uint32_t unit, apr_uint32_t count)
{
    const char *at = mw_mem_unit(mem, unit);
    const char *end = mw_mem_unit(mem, unit + count);

    for (at += BLOCKS_MAPPED - (apr_uintptr_t)at % BLOCKS_MAPPED; at < end;
         at += BLOCKS_MAPPED) {
        page_read(at);
    }
}

/** Under the area's lock, so that units are never taken and unreachable. */
static void chain_append(mw_mem_t *mem, mw_chain_t *chain, apr_uint32_t unit,
                         apr_uint32_t count)
{
    mw_mem_run_t *run = mw_mem_run(mem, unit);

    page_read((const char *)run);
    __atomic_store_n(&run->next, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&run->count, count, __ATOMIC_RELEASE);
    if (chain->first) {
        __atomic_store_n(&mw_mem_run(mem, chain->last)->next, unit,
                         __ATOMIC_RELEASE);
    }
    else {
        chain->first = unit;
        __atomic_store_n(&chain->claim->first, unit, __ATOMIC_RELEASE);
    }
    chain->last = unit;
    chain->units += count;
}

static apr_uint32_t area_serve(mw_mem_t *mem, apr_uint32_t index,
                               mw_chain_t *chain, apr_uint32_t least,
                               apr_uint32_t want)
{
    mw_mem_area_t *area = &mem->areas[index];
    gap_t gap = { 0, 0 };
    apr_uint32_t end;
    apr_uint32_t begin;

    if (!area_lock(mem, index)) {
        return 0;
    }
    begin = area_words(mem, index, &end);
    if (want >= BLOCKS_LARGE) {
        gap = gap_large(mem, area, begin, end, want);
    }
    if (gap.count < least && least < BLOCKS_LARGE) {
        gap = gap_small(mem, area, end, least, want);
    }
    if (gap.count > want) {
        gap.count = want;
    }
    if (gap.count < least) {
        gap.count = 0;
    }
    else {
        area_take(mem, area, (apr_uint32_t)gap.start, gap.count);
        chain_append(mem, chain, (apr_uint32_t)gap.start, gap.count);
    }
    area_unlock(mem, index);
    run_map(mem, (apr_uint32_t)gap.start, gap.count);
    return gap.count;
}

/** The area with the longest gap, from `from` on. */
static apr_uint32_t area_with_longest(const mw_mem_t *mem, apr_uint32_t from)
{
    apr_uint32_t areas = mem->geometry.areas;
    apr_uint32_t best = from;
    apr_uint32_t i;

    for (i = 1; i < areas; i++) {
        apr_uint32_t index = from + i < areas ? from + i : from + i - areas;

        if (MW_MEM_LOAD(&mem->areas[index].longest)
            > MW_MEM_LOAD(&mem->areas[best].longest)) {
            best = index;
        }
    }
    return best;
}

apr_uint32_t mw_blocks_take(mw_mem_t *mem, mw_chain_t *chain,
                            apr_uint32_t least, apr_uint32_t want)
{
    apr_uint32_t areas = mem->geometry.areas;
    apr_uint32_t tries;

    if (want > MW_MEM_RUN_MAX) {
        want = MW_MEM_RUN_MAX;
    }
    if (want >= BLOCKS_LARGE) {
        chain->area = area_with_longest(mem, chain->area);
    }
    for (tries = 0; tries < areas; tries++) {
        apr_uint32_t taken = 0;

        if (MW_MEM_LOAD(&mem->areas[chain->area].free) >= least) {
            taken = area_serve(mem, chain->area, chain, least, want);
        }
        if (taken) {
            return taken;
        }
        chain->area = chain->area + 1 < areas ? chain->area + 1 : 0;
    }
    return 0;
}

apr_uint32_t mw_blocks_take_whole(mw_mem_t *mem, mw_chain_t *chain,
                                  apr_uint32_t want)
{
    apr_uint32_t tries;

    if (want > MW_MEM_RUN_MAX) {
        want = MW_MEM_RUN_MAX;
    }
    if (want < BLOCKS_LARGE) {
        return area_serve(mem, chain->area, chain, want, want);
    }
    /* Each area that has none learns of it. */
    for (tries = 0; tries < mem->geometry.areas; tries++) {
        apr_uint32_t taken = 0;

        chain->area = area_with_longest(mem, chain->area);
        if (MW_MEM_LOAD(&mem->areas[chain->area].longest) < want) {
            return 0;
        }
        taken = area_serve(mem, chain->area, chain, want, want);
        if (taken) {
            return taken;
        }
    }
    return 0;
}

void mw_blocks_give(mw_mem_t *mem, apr_uint32_t first)
{
    apr_uint32_t locked = ~0u;

    while (first) {
        mw_mem_run_t *run = mw_mem_run(mem, first);
        apr_uint32_t next = run->next;
        apr_uint32_t index = area_of(mem, first);

        if (index != locked) {
            if (locked != ~0u) {
                area_unlock(mem, locked);
            }
            if (!area_lock(mem, index)) {
                mw_mem_want_collection(mem);
                return;
            }
            locked = index;
        }
        area_give(mem, &mem->areas[index], first, run->count);
        first = next;
    }
    if (locked != ~0u) {
        area_unlock(mem, locked);
    }
}

void mw_blocks_trim(mw_mem_t *mem, apr_uint32_t unit, apr_uint32_t keep)
{
    mw_mem_run_t *run = mw_mem_run(mem, unit);
    apr_uint32_t index = area_of(mem, unit);
    apr_uint32_t count = run->count;

    if (keep >= count || !area_lock(mem, index)) {
        return;
    }
    MW_MEM_STORE(&run->count, keep);
    area_give(mem, &mem->areas[index], unit + keep, count - keep);
    area_unlock(mem, index);
}

apr_uint32_t mw_blocks_count(const mw_mem_t *mem, apr_uint32_t first)
{
    apr_uint32_t units = 0;

    for (; first; first = mw_mem_run(mem, first)->next) {
        units += mw_mem_run(mem, first)->count;
    }
    return units;
}

int mw_blocks_are_stuck(mw_mem_t *mem)
{
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.areas; i++) {
        if (!MW_MEM_LOAD(&mem->stuck_areas[i])) {
            continue;
        }
        if (!area_lock(mem, i)) {
            return 1;
        }
        area_unlock(mem, i);
    }
    return 0;
}

apr_uint64_t mw_blocks_free(const mw_mem_t *mem)
{
    apr_uint64_t free = 0;
    apr_uint32_t i;

    for (i = 0; i < mem->geometry.areas; i++) {
        free += MW_MEM_LOAD(&mem->areas[i].free);
    }
    return free;
}

apr_uint64_t mw_blocks_total(const mw_mem_t *mem)
{
    return mem->geometry.units - 1;
}

void mw_blocks_format(mw_mem_t *mem)
{
    apr_uint32_t units = mem->geometry.units;
    apr_uint32_t i;

    mem->taken[0] |= 1;
    if (units & 63) {
        mem->taken[units >> 6] |= BLOCKS_ALL << (units & 63);
    }
    for (i = 0; i < mem->geometry.areas; i++) {
        area_derive(mem, i);
    }
}

int mw_blocks_collect_begin(mw_mem_t *mem, apr_uint32_t index)
{
    apr_uint32_t end;
    apr_uint32_t w;

    if (!area_lock(mem, index)) {
        return 0;
    }
    mem->areas[index].collecting = 1;
    for (w = area_words(mem, index, &end); w < end; w++) {
        MW_MEM_STORE(&mem->marks[w], 0);
    }
    area_unlock(mem, index);
    return 1;
}

void mw_blocks_mark(mw_mem_t *mem, apr_uint32_t first)
{
    apr_uint32_t units = mem->geometry.units;
    apr_uint32_t budget = units;

    while (first && first < units) {
        mw_mem_run_t *run = mw_mem_run(mem, first);
        apr_uint32_t count = __atomic_load_n(&run->count, __ATOMIC_ACQUIRE);

        if (!count || count > units - first || count > budget) {
            return;
        }
        marks_set(mem, first, count);
        budget -= count;
        first = __atomic_load_n(&run->next, __ATOMIC_ACQUIRE);
    }
}

int mw_blocks_collect_end(mw_mem_t *mem, apr_uint32_t index)
{
    mw_mem_area_t *area = &mem->areas[index];
    apr_uint32_t units = mem->geometry.units;
    apr_uint32_t before;
    apr_uint32_t end;
    apr_uint32_t w;

    if (!area_lock(mem, index)) {
        return 0;
    }
    before = area->free;
    for (w = area_words(mem, index, &end); w < end; w++) {
        mem->taken[w] &= MW_MEM_LOAD(&mem->marks[w]);
    }
    if (index == 0) {
        mem->taken[0] |= 1;
    }
    if ((units & 63) && index == area_of(mem, units - 1)) {
        mem->taken[units >> 6] |= BLOCKS_ALL << (units & 63);
    }
    area->collecting = 0;
    area_derive(mem, index);
    MW_MEM_ADD(&mem->header->collection.freed, area->free - before);
    area_unlock(mem, index);
    return 1;
}
