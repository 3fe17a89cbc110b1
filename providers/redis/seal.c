/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "core/crc32c.h"
#include "core/wire.h"

#include "seal.h"

/* What each mark begins with: a context that has taken the key. */
struct mw_redis_seal_t {
    EVP_PKEY *key;
    EVP_MD_CTX *begun;
};

static apr_status_t seal_free(void *data)
{
    mw_redis_seal_t *seal = data;

    EVP_MD_CTX_free(seal->begun);
    EVP_PKEY_free(seal->key);
    return APR_SUCCESS;
}

mw_redis_seal_t *mw_redis_seal_make(const char *secret, apr_pool_t *pool)
{
    mw_redis_seal_t *seal = apr_pcalloc(pool, sizeof(*seal));

    seal->key = EVP_PKEY_new_raw_private_key(
        EVP_PKEY_HMAC, NULL, (const unsigned char *)secret, strlen(secret));
    seal->begun = EVP_MD_CTX_new();
    apr_pool_cleanup_register(pool, seal, seal_free, apr_pool_cleanup_null);
    if (!seal->key || !seal->begun
        || EVP_DigestSignInit(seal->begun, NULL, EVP_sha256(), NULL, seal->key)
               != 1) {
        return NULL;
    }
    return seal;
}

apr_size_t mw_redis_mark_len(const mw_redis_seal_t *seal)
{
    return seal ? MW_REDIS_MARK_MAX : 4;
}

void mw_redis_mark_begin(mw_redis_mark_t *mark, const mw_redis_seal_t *seal)
{
    memset(mark, 0, sizeof(*mark));
    mark->seal = seal;
    if (seal) {
        mark->context = EVP_MD_CTX_new();
        mark->is_bad = !mark->context
                       || EVP_MD_CTX_copy_ex(mark->context, seal->begun) != 1;
    }
}

void mw_redis_mark_add(mw_redis_mark_t *mark, const void *data, apr_size_t len)
{
    if (!mark->seal) {
        mark->crc = mw_crc32c(mark->crc, data, len);
    }
    else if (!mark->is_bad) {
        mark->is_bad = EVP_DigestSignUpdate(mark->context, data, len) != 1;
    }
}

apr_status_t mw_redis_mark_end(mw_redis_mark_t *mark,
                               unsigned char bytes[MW_REDIS_MARK_MAX])
{
    size_t len = MW_REDIS_MARK_MAX;

    if (!mark->seal) {
        mw_wire_put32(bytes, mark->crc);
        return APR_SUCCESS;
    }
    if (!mark->is_bad) {
        mark->is_bad = EVP_DigestSignFinal(mark->context, bytes, &len) != 1
                       || len != MW_REDIS_MARK_MAX;
    }
    EVP_MD_CTX_free(mark->context);
    return mark->is_bad ? APR_EGENERAL : APR_SUCCESS;
}

int mw_redis_mark_same(const void *one, const void *other, apr_size_t len)
{
    return CRYPTO_memcmp(one, other, len) == 0;
}
