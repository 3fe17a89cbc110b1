/* SPDX-License-Identifier: Apache-2.0 */

#include "broken.h"
#include "tests/conformance/reference.h"

static void slots_merge(cachemw_provider_t *table,
                        const cachemw_provider_t *slots)
{
#define MERGE(slot)                \
    if (slots->slot != NULL) {     \
        table->slot = slots->slot; \
    }
    MERGE(options)
    MERGE(open)
    MERGE(get)
    MERGE(set)
    MERGE(remove)
    MERGE(post_config)
    MERGE(set_head)
    MERGE(read)
    MERGE(set_begin)
    MERGE(set_write)
    MERGE(set_commit)
    MERGE(set_abort)
    MERGE(clear)
    MERGE(keys)
    MERGE(sweep)
    MERGE(stats)
#undef MERGE
}

void ct_broken_table(const ct_broken_t *broken, cachemw_provider_t *table)
{
    *table = ct_reference_provider;
    if (broken->base != NULL) {
        slots_merge(table, broken->base);
    }
    slots_merge(table, &broken->slots);
}
