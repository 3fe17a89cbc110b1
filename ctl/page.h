/* SPDX-License-Identifier: Apache-2.0 */

/**
 * @file page.h
 * @brief Keys and heads of entries as people know them: URL, virtual host,
 *        variant.
 */
#ifndef MW_PAGE_H
#define MW_PAGE_H

#include "core/entry.h"
#include "core/vary.h"

typedef enum mw_page_kind_e {
    MW_PAGE_PLAIN,   /**< a response */
    MW_PAGE_VARIANT, /**< one of several of a URL */
    MW_PAGE_RECORD,  /**< says by what a URL varies; known by its head only */
    MW_PAGE_FOREIGN  /**< not of a page that this mod_cachemw made */
} mw_page_kind_e;

/** What a key says, and then perhaps a head. Texts point into these. */
typedef struct mw_page_t {
    mw_page_kind_e kind;
    int is_api;       /**< a client of the API has put it there */
    const char *host; /**< namespace of the virtual host */
    apr_size_t host_len;
    const char *url; /**< as shown: without the port that its scheme has, or a
                          '?' without anything behind it; in pool */
    char variant[2 * MW_DIGEST_LEN + 1]; /**< of a variant, else empty */
    int has_head;                        /**< head is set */
    mw_head_t head;
    mw_vary_t *vary; /**< of a record */
} mw_page_t;

/** "page", "variant", … */
const char *mw_page_kind(const mw_page_t *page);

/** What a key says. */
void mw_page_of_key(const cachemw_key_t *key, mw_page_t *page,
                    apr_pool_t *pool);

/**
 * What key and head say. Key and head must live as long as page.
 * @return APR_EINCOMPLETE: the head cannot be decoded; what the key says is
 *         there all the same
 */
apr_status_t mw_page_of_entry(const cachemw_key_t *key,
                              const cachemw_entry_t *entry, mw_page_t *page,
                              apr_pool_t *pool);

/**
 * A URL in the form that mod_cache gives to keys: with port and '?'.
 * @param host set to the "name:port" that a virtual host of this name has as its
 *        namespace
 * @return NULL: it is no absolute URL of http or https
 */
const char *mw_page_url_key(const char *url, const char **host,
                            apr_pool_t *pool);

/** Whether it is of this virtual host. @param host NULL: any */
int mw_page_is_of(const mw_page_t *page, const char *host);

/** The plain key of a virtual host's page. */
cachemw_key_t mw_page_key(const char *host, const char *url_key,
                          apr_pool_t *pool);

#endif
