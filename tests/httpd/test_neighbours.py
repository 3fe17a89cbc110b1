# SPDX-License-Identifier: Apache-2.0
"""Our module beside mod_cache_disk and mod_cache_socache for the same URLs:
not advisable, said so at the start, but nothing crashes and pages are right.

The two of them together crash without our help, so each is tried alone.  What
is too large for the first provider goes to the second, so each of them
is asked to remove, revalidate and invalidate what belongs to the other."""

import pytest

from harness import Reply
from harness.origin import cacheable

CONF = """
ServerName cachemw.test
Listen 127.0.0.1:@PORT@
CacheQuickHandler @QUICK@
CacheHeader on
CacheDetailHeader on
CacheStaleOnError @STALE@
CachemwProvider memory size=16M max_object_size=@OURS@
CacheRoot "@DIR@/cache"
CacheMaxFileSize @DISK@
CacheSocache shmcb
CacheSocacheMaxSize @SOCACHE@
@ENABLES@
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
"""

ORDERS = [("cachemw", "disk"), ("disk", "cachemw"), ("cachemw", "socache"),
          ("socache", "cachemw")]

SMALL, LARGE = b"small " * 10, b"large " * 5000


def server_of(module_httpd, order, quick, stale):
    limits = {name: 2000 if at == 0 else 100000
              for at, name in enumerate(order)}
    return module_httpd(CONF, {
        "QUICK": quick, "STALE": stale,
        "OURS": limits.get("cachemw", 100000),
        "DISK": limits.get("disk", 100000),
        "SOCACHE": limits.get("socache", 100000),
        "ENABLES": "\n".join(f"CacheEnable {x} /" for x in order)},
        extra=["cachemw", "cache_disk", "socache_shmcb", "cache_socache"])


@pytest.fixture(params=ORDERS, ids="-".join)
def order(request):
    return request.param


@pytest.fixture(params=["on", "off"], ids=["stale", "nostale"])
def stale(request):
    return request.param


@pytest.fixture
def server(module_httpd, order, quick, stale):
    return server_of(module_httpd, order, quick, stale)


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def body(request):
    return request.param


def test_start_warns_of_the_neighbour(server, order):
    others = [x for x in order if x != "cachemw"]
    said = [x for x in server.log().splitlines()
            if "CacheEnable cachemw" in x and ":warn]" in x]
    assert any(f"CacheEnable {x}" in y for x in others for y in said), said


def test_pages_are_cached(server, origin, path, body):
    page = path()
    origin.page(page, body)
    for wanted in ("MISS", "HIT", "HIT"):
        res = server.get(page)
        assert res.complete and (res.cache, res.body) == (wanted, body)


def test_a_5xx_kills_nobody(server, origin, path, body, stale):
    page = path()
    origin.page(page, body, 0, etag='"v1"')
    server.get(page)
    origin.on(page, Reply(b"sorry", status=503))
    for _ in range(3):
        res = server.get(page)
        assert (res.status, res.body) in ((200, body), (503, b"sorry"))
        if stale == "off":
            assert res.status == 503
    origin.page(page, body)
    assert server.get(page).body == body
    assert server.get(page).cache == "HIT"


def test_a_page_that_is_gone_or_private_kills_nobody(server, origin, path,
                                                     body):
    for n, reply in enumerate([Reply(b"gone", status=404),
                               Reply(b"own", [("Cache-Control",
                                               "private")])]):
        page = path(f"p{n}")
        origin.page(page, body, 0, etag='"v1"')
        server.get(page)
        origin.on(page, reply)
        for _ in range(2):
            assert server.get(page).body == reply.body


def test_a_304_that_cannot_be_used_kills_nobody(server, origin, path, body):
    page = path()
    origin.page(page, body, 0, etag='"v1"')
    server.get(page)
    origin.on(page, lambda req: Reply(
        b"new", [("Cache-Control", "no-store")],
        status=304 if req.get("If-None-Match") else 200))
    for _ in range(2):
        assert server.get(page).body == b"new"


def test_revalidation_and_replacement(server, origin, path, order):
    if "socache" in order:      # answers empty bodies after a 304 itself
        order = None
    for n, body in enumerate((SMALL, LARGE)):
        page = path(f"p{n}")
        origin.page(page, body, 0, etag='"v1"',
                    headers_304=[("Cache-Control", "max-age=0")])
        for _ in range(3):
            res = server.get(page)
            if order:
                assert res.body == body
        origin.page(page, body * 2, etag='"v2"')
        for _ in range(2):
            assert server.get(page).body == body * 2


def test_changes(server, origin, path, body):
    page = path()
    answer = [cacheable(body, etag='"v1"')]
    origin.on(page, lambda req: Reply(b"saved") if req.method != "GET"
              else answer[0])
    server.get(page)
    for method in ("POST", "PUT", "DELETE"):
        answer[0] = cacheable(method.encode(), etag=f'"{method}"')
        server.ask(method, page, body=b"x")
        assert server.get(page).body == method.encode()


def test_variants(server, origin, path, body):
    page = path()
    origin.on(page, lambda req: cacheable(
        body + (req.get("X-A") or "-").encode(), headers=[("Vary", "X-A")]))
    for _ in range(2):
        for value in ("1", "2", "3"):
            res = server.get(page, [("X-A", value)])
            assert res.body == body + value.encode()


def test_a_page_that_the_origin_cut(server, origin, path, body):
    page = path()
    origin.page(page, body, cut_after=len(body) - 5)
    assert not server.get(page).complete
    origin.page(page, body)
    res = server.get(page)
    assert res.complete and res.body == body
