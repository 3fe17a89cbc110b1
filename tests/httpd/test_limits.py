# SPDX-License-Identifier: Apache-2.0
"""min_object_size, max_object_size, keep, and a store that is full."""

import pytest

from conftest import SITE, provider_conf
from harness import Reply, settings
from harness.server import wait_for
from test_basic import noise, pieces

pytestmark = [pytest.mark.store]


def with_options(module_httpd, quick, options):
    return module_httpd(SITE, {"QUICK": quick, "PROVIDER": provider_conf(
        settings.store_with(options))})


def caches(server, page, body):
    """whether a second visitor gets the page from the cache; it must be
    right both times"""
    results = []
    for _ in range(2):
        res = server.get(page)
        assert res.complete and res.body == body
        results.append(res.cache)
    assert results[0] == "MISS"
    return results[1] == "HIT"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size,stored", [
    (0, False), (99, False), (100, True), (101, True), (9999, True),
    (10000, True), (10001, False), (300000, False)])
def test_only_bodies_within_the_limits_are_stored(module_httpd, origin, path,
                                                  quick, size, stored,
                                                  framing):
    server = with_options(module_httpd, quick,
                          "min_object_size=100 max_object_size=10000")
    page, body = path(), noise(size)
    origin.page(page, body if framing == "length" else pieces(body, 3000),
                framing=framing)
    assert caches(server, page, body) == stored


def test_page_that_outgrew_the_limit_is_not_served_from_its_old_copy(
        module_httpd, origin, path, quick):
    server = with_options(module_httpd, quick, "max_object_size=10000")
    page, large = path(), noise(20000)
    origin.page(page, b"small", 0, etag='"v1"')
    server.get(page)
    origin.page(page, large, etag='"v2"')
    for _ in range(2):
        assert server.get(page).body == large
    origin.page(page, pieces(large, 3000), framing="chunked")
    for _ in range(2):
        assert server.get(page).body == large


# Asks for what the cache has, however old, and never touches the origin.
ANY_AGE = [("Cache-Control", "max-stale=100000, only-if-cached")]


def test_stale_page_is_kept_for_a_while(module_httpd, origin, path, quick):
    server = with_options(module_httpd, quick, "keep=1h")
    page = path()
    origin.page(page, b"x", 0, etag='"v1"')
    server.get(page)
    assert server.get(page, ANY_AGE).body == b"x"
    assert server.get(page).cache == "REVALIDATE"


def test_stale_page_is_not_kept_longer_than_wanted(module_httpd, origin,
                                                   path, quick):
    server = with_options(module_httpd, quick, "keep=1s")
    page, fresh = path(), path("fresh")
    origin.page(page, b"x", 0, etag='"v1"')
    origin.page(fresh, b"y")
    server.get(page)
    server.get(fresh)
    wait_for(lambda: server.get(page, ANY_AGE).status == 504,
             "the stale page to go", 5)
    origin.on(page, Reply(b"sorry", status=503))
    assert server.get(page).status == 503
    assert origin.last(page).get("If-None-Match") is None
    assert server.get(fresh).cache == "HIT"


def test_no_keep_no_stale_page(module_httpd, origin, path, quick):
    server = with_options(module_httpd, quick, "keep=0")
    page = path()
    origin.page(page, b"x", 0, etag='"v1"')
    server.get(page)
    origin.on(page, Reply(b"sorry", status=503))
    assert server.get(page).status == 503
    assert origin.last(page).get("If-None-Match") is None


@pytest.mark.memory
@pytest.mark.parametrize("size", [1000, 60000, 200000])
def test_full_store_makes_room_and_stays_within_its_size(
        module_httpd, origin, path, quick, size):
    space = (1 if size == 1000 else 4) << 20
    server = module_httpd(SITE, {"QUICK": quick, "PROVIDER": provider_conf(
        f"memory size={space}")})
    pages = [path(f"p{i}") for i in range(3 * space // size // 2)]
    for i, page in enumerate(pages):
        origin.page(page, noise(size, i))
        res = server.get(page)
        assert res.complete and res.body == noise(size, i)
    kept = 0
    for i, page in enumerate(pages):
        res = server.get(page, [("Cache-Control", "only-if-cached")])
        assert res.status in (200, 504)
        if res.status == 200:
            assert res.complete and res.body == noise(size, i)
            kept += size
    assert kept <= space
    # a small page is outweighed by its address and header fields
    assert kept >= space // (4 if size == 1000 else 2), "kept too little"
    for _ in range(2):
        res = server.get(pages[-1])
    assert res.cache == "HIT", "the newest page found no room"
