/* SPDX-License-Identifier: Apache-2.0 */

/* Names whose addresses change. The resolver is the test's. */

#include "shared.h"

#include <arpa/inet.h>
#include <netdb.h>

#include "providers/redis/names.h"

static const char *told[MW_ADDRESSES_MAX];
static struct sockaddr_in told_sockets[MW_ADDRESSES_MAX];
static struct addrinfo told_list[MW_ADDRESSES_MAX];

int getaddrinfo(const char *host, const char *service,
                const struct addrinfo *hints, struct addrinfo **list)
{
    int i;

    (void)service, (void)hints;
    assert_string_equal(host, "db.test");
    for (i = 0; i < MW_ADDRESSES_MAX && told[i]; i++) {
        memset(&told_sockets[i], 0, sizeof(told_sockets[i]));
        told_sockets[i].sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, told[i], &told_sockets[i].sin_addr),
                         1);
        memset(&told_list[i], 0, sizeof(told_list[i]));
        told_list[i].ai_addr = (struct sockaddr *)&told_sockets[i];
        told_list[i].ai_addrlen = sizeof(told_sockets[i]);
        if (i > 0) {
            told_list[i - 1].ai_next = &told_list[i];
        }
    }
    *list = told_list;
    return i > 0 ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    assert_ptr_equal(list, told_list);
}

static void *segment;

static apr_status_t segment_make(const cachemw_services_t *services,
                                 apr_size_t size, apr_uint64_t layout,
                                 void **base, int *is_new)
{
    (void)services, (void)layout;
    *base = segment = calloc(1, size);
    *is_new = 1;
    return APR_SUCCESS;
}

static void log_nothing(const cachemw_services_t *services,
                        cachemw_level_e level, apr_status_t rv,
                        const char *format, ...)
{
    (void)services, (void)level, (void)rv, (void)format;
}

static const cachemw_services_t services = { .size = sizeof(services),
                                             .segment = segment_make,
                                             .log = log_nothing };

static const mw_redis_endpoint_t endpoint = { "db.test", 6379 };

static void store_make(mw_redis_t *store)
{
    memset(store, 0, sizeof(*store));
    store->services = &services;
    store->settings.url.endpoints[0] = endpoint;
    store->settings.url.endpoint_count = 1;
    assert_int_equal(mw_redis_names_make(store), APR_SUCCESS);
}

/* From now on. */
static void names_are(const mw_redis_t *store, const char *a, const char *b,
                      const char *c, const char *d)
{
    const char *const all[] = { a, b, c, d };

    memcpy(told, all, sizeof(told));
    mw_redis_names_sweep(store);
}

static void test_address_is_left_when_the_name_has_others(void **state)
{
    mw_redis_t store;
    mw_address_t address;

    (void)state;
    store_make(&store);
    names_are(&store, "192.0.2.1", "192.0.2.2", NULL, NULL);
    assert_int_equal(mw_redis_names_find(&store, &endpoint, 1, &address),
                     APR_SUCCESS);
    assert_false(mw_redis_names_left(&store, &endpoint, &address));
    names_are(&store, "192.0.2.2", "192.0.2.3", NULL, NULL);
    assert_false(mw_redis_names_left(&store, &endpoint, &address));
    names_are(&store, "192.0.2.3", NULL, NULL, NULL);
    assert_true(mw_redis_names_left(&store, &endpoint, &address));
    free(segment);
}

/* Who does not know, or may not know all, does not say so. */
static void test_address_is_not_left_in_doubt(void **state)
{
    mw_redis_t store;
    mw_address_t address;

    (void)state;
    store_make(&store);
    assert_int_equal(mw_redis_names_find(&store, &endpoint, 0, &address),
                     APR_EAGAIN);
    names_are(&store, "192.0.2.1", NULL, NULL, NULL);
    assert_int_equal(mw_redis_names_find(&store, &endpoint, 0, &address),
                     APR_SUCCESS);
    names_are(&store, NULL, NULL, NULL, NULL);
    assert_false(mw_redis_names_left(&store, &endpoint, &address));
    names_are(&store, "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5");
    assert_false(mw_redis_names_left(&store, &endpoint, &address));
    store.names = NULL;
    assert_false(mw_redis_names_left(&store, &endpoint, &address));
    free(segment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_is_left_when_the_name_has_others),
        cmocka_unit_test(test_address_is_not_left_in_doubt),
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
