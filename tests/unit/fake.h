/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file fake.h
 * @brief The services that a provider is given, without core: counters and one
 *        segment in memory that forked processes share.
 */
#ifndef TESTS_FAKE_H
#define TESTS_FAKE_H

#include "mod_cachemw.h"

/** Room for any counter. */
#define FAKE_COUNTS 64

typedef struct fake_t {
    cachemw_services_t services; /* first: services get this pointer back */
    apr_uint64_t *counts;        /* FAKE_COUNTS, shared by processes */
    void *base;                  /* the segment; NULL: none yet */
    apr_size_t size;
    apr_uint64_t layout;
    apr_uint64_t patience; /* how often who has a deadline has time left */
} fake_t;

/** Shared, zero-filled memory; NULL: there is none. */
void *fake_map(apr_size_t size);

/** Fill it. Errors are written to stderr, other messages nowhere. */
void fake_begin(fake_t *fake, const char *store_name);

/** As after a stop of the server: the segment is gone. */
void fake_drop_segment(fake_t *fake);

void fake_end(fake_t *fake);

#endif
