/* SPDX-License-Identifier: Apache-2.0 */

#include <string.h>

#include "apr_strings.h"

#include "say.h"

#define SAID_MAGIC "MWS1"

#define SAID_WHAT 4
#define SAID_TAG 5
#define SAID_ID (SAID_TAG + MW_REDIS_TAG)
#define SAID_FIXED (SAID_ID + sizeof(cachemw_id_t))

static const char said_letters[] = {
    [CACHEMW_CHANGE_SET] = 's',         [CACHEMW_CHANGE_AMENDED] = 'a',
    [CACHEMW_CHANGE_REMOVED] = 'r',     [CACHEMW_CHANGE_CLEARED] = 'c',
    [CACHEMW_CHANGE_INVALIDATED] = 'i',
};

/* --- life ----------------------------------------------------------------- */

void mw_redis_say_init(mw_redis_t *store, apr_pool_t *pconf)
{
    mw_redis_say_t *say = apr_pcalloc(pconf, sizeof(*say));

    /* channels are not apart by database */
    say->channel.data = apr_psprintf(
        pconf, "%ssay:%d", store->settings.key_prefix, store->settings.url.db);
    say->channel.len = strlen(say->channel.data);
    store->say = say;
}

/* All children of all generations are one server. */
apr_status_t mw_redis_say_begin(mw_redis_t *store)
{
    const cachemw_services_t *services = store->services;
    const char *word = CACHEMW_HAS(services, via) && services->via
                           ? services->via(services, NULL)
                           : NULL;

    if (!word || strlen(word) < MW_REDIS_TAG) {
        return services->random(services, store->say->tag, MW_REDIS_TAG);
    }
    memcpy(store->say->tag, word, MW_REDIS_TAG);
    return APR_SUCCESS;
}

apr_status_t mw_redis_publish(void *self)
{
    mw_redis_t *store = self;

    store->say->is_on = 1;
    return APR_SUCCESS;
}

/* --- messages ------------------------------------------------------------- */

/* @param bytes gets the mark of all but itself */
static apr_status_t said_mark(const mw_redis_t *store, const char *data,
                              apr_size_t len,
                              unsigned char bytes[MW_REDIS_MARK_MAX])
{
    const mw_redis_bytes_t *channel = &store->say->channel;
    mw_redis_mark_t mark;

    mw_redis_mark_begin(&mark, store->seal);
    mw_redis_mark_add(&mark, channel->data, channel->len + 1);
    mw_redis_mark_add(&mark, data, len);
    return mw_redis_mark_end(&mark, bytes);
}

apr_status_t mw_redis_say_make(const mw_redis_t *store, cachemw_change_e what,
                               const cachemw_key_t *key, const cachemw_id_t *id,
                               apr_pool_t *pool, mw_redis_bytes_t *message)
{
    const apr_size_t key_len = key ? key->len : 0;
    const apr_size_t len = SAID_FIXED + key_len;
    char *to = apr_pcalloc(pool, len + MW_REDIS_MARK_MAX);

    memcpy(to, SAID_MAGIC, SAID_WHAT);
    to[SAID_WHAT] = said_letters[what];
    memcpy(to + SAID_TAG, store->say->tag, MW_REDIS_TAG);
    if (id) {
        memcpy(to + SAID_ID, id->bytes, sizeof(id->bytes));
    }
    if (key_len) {
        memcpy(to + SAID_FIXED, key->data, key_len);
    }
    message->data = to;
    message->len = len + mw_redis_mark_len(store->seal);
    return said_mark(store, to, len, (unsigned char *)to + len);
}

void mw_redis_say_add(const mw_redis_t *store, mw_redis_batch_t *batch,
                      const mw_redis_bytes_t *message)
{
    const mw_redis_bytes_t *channel = &store->say->channel;

    mw_redis_batch_open(batch, 3);
    mw_redis_batch_word(batch, "PUBLISH");
    mw_redis_batch_arg(batch, channel->data, channel->len);
    mw_redis_batch_arg(batch, message->data, message->len);
}

static apr_status_t said_refused(const mw_redis_t *store)
{
    const cachemw_services_t *services = store->services;

    mw_redis_count(store, "strange-message");
    services->log(services, CACHEMW_LOG_WARNING, APR_SUCCESS,
                  "a message on the channel %s is not from a server with our "
                  "secret_file, or without one as we are: ignored",
                  store->say->channel.data);
    return APR_EINCOMPLETE;
}

static int said_check(const mw_redis_t *store, const char *data, apr_size_t len)
{
    const apr_size_t mark_len = mw_redis_mark_len(store->seal);
    unsigned char right[MW_REDIS_MARK_MAX];

    return len >= SAID_FIXED + mark_len
           && len - mark_len <= SAID_FIXED + CACHEMW_KEY_MAX
           && !memcmp(data, SAID_MAGIC, SAID_WHAT)
           && memchr(said_letters, data[SAID_WHAT], sizeof(said_letters))
           && said_mark(store, data, len - mark_len, right) == APR_SUCCESS
           && mw_redis_mark_same(right, data + len - mark_len, mark_len);
}

apr_status_t mw_redis_say_read(const mw_redis_t *store, const char *data,
                               apr_size_t len, mw_redis_said_t *said)
{
    static const cachemw_id_t none;
    const char *letter;

    if (!said_check(store, data, len)) {
        return said_refused(store);
    }
    letter = memchr(said_letters, data[SAID_WHAT], sizeof(said_letters));
    said->what = (cachemw_change_e)(letter - said_letters);
    memcpy(said->id.bytes, data + SAID_ID, sizeof(said->id.bytes));
    said->has_id = memcmp(&said->id, &none, sizeof(none)) != 0;
    said->is_own = !memcmp(data + SAID_TAG, store->say->tag, MW_REDIS_TAG);
    said->key.data = data + SAID_FIXED;
    said->key.len = len - SAID_FIXED - mw_redis_mark_len(store->seal);
    return APR_SUCCESS;
}
