/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file layout_rows.h
 * @brief The rows of a table of layout.h, for whichever header was included.
 *        Each type is followed by its members, in order. What a later header
 *        adds needs no row.
 */
#ifndef LAYOUT_ROWS_H
#define LAYOUT_ROWS_H

#include "layout.h"

#define TYPE(type)                          \
    {                                       \
        .name = #type, .size = sizeof(type) \
    }
#define GROWS(type)                                     \
    {                                                   \
        .name = #type, .size = sizeof(type), .grows = 1 \
    }
#define MEMBER(type, member)                                         \
    {                                                                \
        .name = #type "." #member, .offset = offsetof(type, member), \
        .size = sizeof(((type *)0)->member)                          \
    }
#define VALUE(constant)                                   \
    {                                                     \
        .name = #constant, .value = (long long)(constant) \
    }
#define TEXT(constant)                      \
    {                                       \
        .name = #constant, .text = constant \
    }

const layout_row_t LAYOUT[] = {
    TEXT(CACHEMW_PROVIDER_GROUP),
    TEXT(CACHEMW_PROVIDER_VERSION),
    VALUE(CACHEMW_KEY_MAX),
    VALUE(CACHEMW_HEAD_MAX),
    VALUE(CACHEMW_PIECE_MAX),
    VALUE(CACHEMW_GRACE),
    VALUE(CACHEMW_REMOTE),
    VALUE(CACHEMW_SERIALIZE),
    VALUE(CACHEMW_IN_MEMORY),
    VALUE(CACHEMW_TIERED),
    TYPE(cachemw_type_e),
    VALUE(CACHEMW_INTEGER),
    VALUE(CACHEMW_SIZE),
    VALUE(CACHEMW_DURATION),
    VALUE(CACHEMW_FLAG),
    VALUE(CACHEMW_REAL),
    VALUE(CACHEMW_STRING),
    VALUE(CACHEMW_ENUM),
    VALUE(CACHEMW_PATH),
    VALUE(CACHEMW_FILE),
    VALUE(CACHEMW_SECRET),
    VALUE(CACHEMW_SECRET_FILE),
    VALUE(CACHEMW_STORE),
    TYPE(cachemw_level_e),
    VALUE(CACHEMW_LOG_ERR),
    VALUE(CACHEMW_LOG_WARNING),
    VALUE(CACHEMW_LOG_INFO),
    VALUE(CACHEMW_LOG_DEBUG),
    TYPE(cachemw_count_e),
    VALUE(CACHEMW_COUNT_EVICTED),
    VALUE(CACHEMW_COUNT_EXPIRED),
    VALUE(CACHEMW_COUNT_RECOVERED),
    TYPE(cachemw_key_t),
    MEMBER(cachemw_key_t, data),
    MEMBER(cachemw_key_t, len),
    TYPE(cachemw_id_t),
    MEMBER(cachemw_id_t, bytes),
    TYPE(cachemw_entry_t),
    MEMBER(cachemw_entry_t, id),
    MEMBER(cachemw_entry_t, head),
    MEMBER(cachemw_entry_t, head_len),
    MEMBER(cachemw_entry_t, expires),
    MEMBER(cachemw_entry_t, body_len),
    MEMBER(cachemw_entry_t, body),
    MEMBER(cachemw_entry_t, is_own),
    TYPE(cachemw_call_t),
    MEMBER(cachemw_call_t, pool),
    MEMBER(cachemw_call_t, bucket_alloc),
    MEMBER(cachemw_call_t, now),
    MEMBER(cachemw_call_t, deadline),
    MEMBER(cachemw_call_t, purge_epoch),
    MEMBER(cachemw_call_t, sendfile),
    MEMBER(cachemw_call_t, context),
    TYPE(cachemw_option_t),
    MEMBER(cachemw_option_t, name),
    MEMBER(cachemw_option_t, type),
    MEMBER(cachemw_option_t, fallback),
    MEMBER(cachemw_option_t, minimum),
    MEMBER(cachemw_option_t, maximum),
    MEMBER(cachemw_option_t, help),
    MEMBER(cachemw_option_t, alias),
    MEMBER(cachemw_option_t, words),
    MEMBER(cachemw_option_t, required),
    TYPE(cachemw_value_t),
    MEMBER(cachemw_value_t, is_set),
    MEMBER(cachemw_value_t, is_null),
    MEMBER(cachemw_value_t, number),
    MEMBER(cachemw_value_t, duration),
    MEMBER(cachemw_value_t, real),
    MEMBER(cachemw_value_t, string),
    GROWS(cachemw_services_t),
    MEMBER(cachemw_services_t, size),
    MEMBER(cachemw_services_t, store_name),
    MEMBER(cachemw_services_t, max_object_size),
    MEMBER(cachemw_services_t, log),
    MEMBER(cachemw_services_t, count),
    MEMBER(cachemw_services_t, remaining),
    MEMBER(cachemw_services_t, random),
    MEMBER(cachemw_services_t, temp_file),
    MEMBER(cachemw_services_t, segment),
    MEMBER(cachemw_services_t, store),
    MEMBER(cachemw_services_t, deadline_in),
    MEMBER(cachemw_services_t, count_kind),
    MEMBER(cachemw_services_t, explain),
    MEMBER(cachemw_services_t, via),
    GROWS(cachemw_stats_t),
    MEMBER(cachemw_stats_t, size),
    MEMBER(cachemw_stats_t, entries),
    MEMBER(cachemw_stats_t, expired),
    MEMBER(cachemw_stats_t, bytes),
    MEMBER(cachemw_stats_t, bytes_max),
    MEMBER(cachemw_stats_t, entries_max),
    MEMBER(cachemw_stats_t, extra),
    MEMBER(cachemw_stats_t, baton),
    GROWS(cachemw_provider_t),
    MEMBER(cachemw_provider_t, size),
    MEMBER(cachemw_provider_t, flags),
    MEMBER(cachemw_provider_t, options),
    MEMBER(cachemw_provider_t, max_object_size),
    MEMBER(cachemw_provider_t, open),
    MEMBER(cachemw_provider_t, close),
    MEMBER(cachemw_provider_t, get),
    MEMBER(cachemw_provider_t, set),
    MEMBER(cachemw_provider_t, remove),
    MEMBER(cachemw_provider_t, post_config),
    MEMBER(cachemw_provider_t, child_init),
    MEMBER(cachemw_provider_t, set_head),
    MEMBER(cachemw_provider_t, read),
    MEMBER(cachemw_provider_t, set_begin),
    MEMBER(cachemw_provider_t, set_write),
    MEMBER(cachemw_provider_t, set_commit),
    MEMBER(cachemw_provider_t, set_abort),
    MEMBER(cachemw_provider_t, exists),
    MEMBER(cachemw_provider_t, clear),
    MEMBER(cachemw_provider_t, keys),
    MEMBER(cachemw_provider_t, sweep),
    MEMBER(cachemw_provider_t, stats),
    MEMBER(cachemw_provider_t, object_limit),
    MEMBER(cachemw_provider_t, lock),
    MEMBER(cachemw_provider_t, unlock),
    MEMBER(cachemw_provider_t, publish),
    MEMBER(cachemw_provider_t, watch),
    MEMBER(cachemw_provider_t, sync),
    MEMBER(cachemw_provider_t, sync_interval),
};

const int LAYOUT_COUNT = sizeof(LAYOUT) / sizeof(LAYOUT[0]);

#endif
