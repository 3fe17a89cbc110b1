# SPDX-License-Identifier: Apache-2.0
"""The same sequences over HTTP/2."""

import pytest

from harness import Reply
from harness.origin import cacheable
from test_basic import noise, pieces
from test_filters import GZIP, PLAIN, TEXT

pytestmark = [pytest.mark.store]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 65536, 3000000])
def test_page_over_http2(site, origin, path, size, framing):
    page, body = path(), noise(size)
    origin.page(page, body if framing == "length" else pieces(body, 20000),
                framing=framing, headers=[("X-Mark", "m")])
    for wanted in ("MISS", "HIT", "HIT"):
        res = site.h2(page)
        assert res.complete and res.status == 200
        assert (res.cache, res.body) == (wanted, body)
        assert res.get("x-mark") == "m"
    assert site.get(page).cache == "HIT"
    assert origin.count(page) == 1


def test_revalidation_over_http2(site, origin, path):
    page, body = path(), noise(200000)
    origin.page(page, body, 0, etag='"v1"',
                headers_304=[("Cache-Control", "max-age=60")])
    for wanted in ("MISS", "REVALIDATE", "HIT", "HIT"):
        res = site.h2(page)
        assert res.complete and (res.cache, res.body) == (wanted, body)


def test_stale_page_over_http2_while_the_application_fails(site, origin,
                                                           path):
    page, body = path(), noise(200000)
    origin.page(page, body, 0)
    site.h2(page)
    origin.on(page, Reply(b"sorry", status=503))
    for _ in range(2):
        res = site.h2(page)
        assert res.complete and (res.status, res.body) == (200, body)


def test_head_condition_and_range_over_http2(site, origin, path):
    page, body = path(), noise(100000)
    origin.page(page, body, etag='"v1"')
    site.h2(page)
    assert site.h2(page).cache == "HIT"     # HEAD would not wait for the store
    head = site.h2(page, method="HEAD")
    assert head.complete
    assert (head.status, head.cache) == (200, "HIT")
    assert head.get("content-length") == "100000"
    res = site.h2(page, [("If-None-Match", '"v1"')])
    assert (res.status, res.body, res.cache) == (304, b"", "HIT")
    res = site.h2(page, [("Range", "bytes=70000-70009")])
    assert (res.status, res.body) == (206, body[70000:70010])
    assert origin.count(page) == 1


def test_compressed_page_over_http2(site, origin, path):
    page = path("page", "deflate")
    origin.page(page, TEXT, headers=PLAIN)
    for wanted in ("MISS", "HIT"):
        for ask in (GZIP, []):
            res = site.h2(page, ask)
            assert res.complete and (res.cache, res.text) == (wanted, TEXT)


def test_languages_over_http2(site, origin, path):
    page = path()
    origin.on(page, lambda req: cacheable(
        req.get("Accept-Language").encode(),
        headers=[("Vary", "Accept-Language")]))
    for wanted in ("MISS", "HIT"):
        for lang in ("de", "fr"):
            res = site.h2(page, [("Accept-Language", lang)])
            assert (res.cache, res.body) == (wanted, lang.encode())


def test_change_over_http2(site, origin, path):
    page = path()
    origin.on(page, lambda req: Reply(b"saved") if req.method == "POST"
              else cacheable(b"page", etag='"v1"'))
    site.h2(page)
    assert site.h2(page, method="POST", body=b"x").status == 200
    assert [site.h2(page).cache for _ in range(2)] == ["REVALIDATE", "HIT"]


def test_trailers_and_interim_responses_over_http2(site, origin, path):
    page = path()
    origin.page(page, [b"one ", b"two"], framing="chunked",
                trailers=[("X-Sum", "1")],
                interim=[(103, [("Link", "</s.css>; rel=preload")])])
    for wanted in ("MISS", "HIT"):
        res = site.h2(page)
        assert res.complete
        assert (res.status, res.cache, res.body) == (200, wanted, b"one two")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("after", [1, 400000])
def test_page_that_the_origin_cut_over_http2(site, origin, path, framing,
                                             after):
    page, body = path(), noise(600000)
    whole = cacheable(pieces(body, 30000), framing=framing,
                      length=len(body) if framing == "length" else None)
    origin.on(page, whole.with_(cut_after=after))
    res = site.h2(page)
    assert res.status != 200 or not res.complete
    origin.on(page, whole)
    for wanted in ("MISS", "HIT"):
        res = site.h2(page)
        assert res.complete and (res.cache, res.body) == (wanted, body)
