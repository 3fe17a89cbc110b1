# SPDX-License-Identifier: Apache-2.0
"""Visitors who already have a copy, or want only a part of the page."""

import email
import time

import pytest

from harness import Reply
from harness.origin import cacheable, http_date

pytestmark = [pytest.mark.store]

MODIFIED = int(time.time()) - 100000
BODY = bytes(range(256)) * 40


@pytest.fixture
def cached(site, origin, path):
    page = path()
    origin.page(page, BODY, etag='"v1"', modified=MODIFIED,
                headers=[("Content-Type", "text/x-odd"), ("X-Mark", "m")])
    assert site.get(page).cache == "MISS"
    return page


@pytest.mark.parametrize("name,value", [
    ("If-None-Match", '"v1"'),
    ("If-None-Match", '"v0", "v1", "v2"'),
    ("If-None-Match", 'W/"v1"'),
    ("If-None-Match", "*"),
    ("If-Modified-Since", http_date(MODIFIED)),
    ("If-Modified-Since", http_date(MODIFIED + 50000))])
def test_visitor_with_this_copy_gets_304_from_the_cache(site, origin, cached,
                                                        name, value):
    res = site.get(cached, [(name, value)])
    assert (res.status, res.body, res.cache) == (304, b"", "HIT")
    assert res.get("ETag") == '"v1"'
    assert res.get("Content-Type") is None
    assert origin.count(cached) == 1
    res = site.get(cached)
    assert (res.status, res.cache, res.body) == (200, "HIT", BODY)


def test_304_from_the_cache_leaves_the_connection_usable(site, cached):
    with site.connect() as conn:
        for _ in range(5):
            res = conn.get(cached, [("If-None-Match", '"v1"')])
            assert (res.status, res.body) == (304, b"")
            assert conn.get(cached).body == BODY


@pytest.mark.parametrize("name,value", [
    ("If-None-Match", '"v0"'),
    ("If-None-Match", '"v1 "'),
    ("If-Modified-Since", http_date(MODIFIED - 100)),
    ("If-Modified-Since", "yesterday or so")])
def test_visitor_with_another_copy_gets_the_page(site, cached, name, value):
    for _ in range(2):
        res = site.get(cached, [(name, value)])
        assert (res.status, res.body) == (200, BODY)
    res = site.get(cached)
    assert (res.status, res.cache, res.body) == (200, "HIT", BODY)


def test_condition_that_holds_is_a_hit(site, origin, cached):
    res = site.get(cached, [("If-Match", '"v1"')])
    assert (res.status, res.cache, res.body) == (200, "HIT", BODY)
    assert origin.count(cached) == 1


def test_condition_that_fails_is_for_the_origin_to_judge(site, origin,
                                                         cached):
    origin.on(cached, lambda req: Reply(b"no", status=412)
              if req.get("If-Match") else cacheable(BODY))
    assert site.get(cached, [("If-Match", '"other"')]).status == 412
    assert site.get(cached).body == BODY


# ---- ranges ------------------------------------------------------------------

@pytest.mark.parametrize("value,first,last", [
    ("bytes=0-0", 0, 0), ("bytes=0-99", 0, 99), ("bytes=5000-6000", 5000, 6000),
    ("bytes=10239-", 10239, 10239), ("bytes=10000-", 10000, 10239),
    ("bytes=-7", 10233, 10239), ("bytes=10-99999", 10, 10239)])
def test_part_of_a_cached_page(site, origin, cached, value, first, last):
    res = site.get(cached, [("Range", value)])
    assert (res.status, res.cache) == (206, "HIT")
    assert res.body == BODY[first:last + 1]
    assert res.get("Content-Range") == f"bytes {first}-{last}/{len(BODY)}"
    assert res.get("Content-Length") == str(last - first + 1)
    assert origin.count(cached) == 1
    assert site.get(cached).body == BODY


def test_part_beyond_the_end_is_refused(site, cached):
    res = site.get(cached, [("Range", "bytes=99999-")])
    assert res.status == 416
    assert site.get(cached).body == BODY


def test_several_parts_at_once(site, cached):
    wanted = [(0, 9), (5000, 5009), (10230, 10239)]
    value = "bytes=" + ",".join(f"{a}-{b}" for a, b in wanted)
    res = site.get(cached, [("Range", value)])
    assert (res.status, res.cache) == (206, "HIT")
    raw = b"Content-Type: " + res.get("Content-Type").encode() + b"\r\n\r\n"
    message = email.message_from_bytes(raw + res.body)
    parts = message.get_payload()
    assert [p["Content-Range"] for p in parts] == [
        f"bytes {a}-{b}/{len(BODY)}" for a, b in wanted]
    # the email package rewrites line ends; the bytes are looked for raw
    for a, b in wanted:
        assert BODY[a:b + 1] in res.body


@pytest.mark.parametrize("value,whole", [
    ('"v1"', False), ('"v0"', True), (http_date(MODIFIED), False),
    (http_date(MODIFIED - 5), True)])
def test_part_only_of_this_copy(site, cached, value, whole):
    res = site.get(cached, [("Range", "bytes=3-5"), ("If-Range", value)])
    if whole:
        assert (res.status, res.body) == (200, BODY)
    else:
        assert (res.status, res.body, res.cache) == (206, BODY[3:6], "HIT")
    assert site.get(cached).body == BODY


def test_part_of_a_page_that_is_not_cached_yet(site, origin, path):
    """The origin knows no ranges and sends all of it; the cache keeps all."""
    page = path()
    origin.page(page, BODY)
    res = site.get(page, [("Range", "bytes=3-5")])
    assert (res.status, res.body) in ((206, BODY[3:6]), (200, BODY))
    res = site.get(page)
    assert (res.status, res.cache, res.body) == (200, "HIT", BODY)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_part_sent_by_the_origin_is_never_taken_for_the_page(
        site, origin, path, framing):
    page = path()

    def ranged(req):
        if not req.get("Range"):
            return cacheable(BODY, etag='"v1"')
        return cacheable(BODY[3:6] if framing == "length" else [BODY[3:6]],
                         status=206, etag='"v1"', framing=framing,
                         headers=[("Content-Range",
                                   f"bytes 3-5/{len(BODY)}")])

    origin.on(page, ranged)
    for _ in range(2):
        part = site.get(page, [("Range", "bytes=3-5")])
        assert (part.status, part.body) == (206, BODY[3:6])
    res = site.get(page)
    assert (res.status, res.cache, res.body) == (200, "MISS", BODY)
    res = site.get(page)
    assert (res.status, res.cache, res.body) == (200, "HIT", BODY)
    part = site.get(page, [("Range", "bytes=3-5")])
    assert (part.status, part.cache, part.body) == (206, "HIT", BODY[3:6])


def test_part_the_origin_sends_unasked_is_not_stored(site, origin, path):
    page = path()
    origin.page(page, b"part", status=206,
                headers=[("Content-Range", "bytes 0-3/100")])
    site.get(page)
    origin.page(page, b"whole")
    res = site.get(page)
    assert (res.status, res.body) == (200, b"whole")


def test_unsatisfiable_part_of_a_cold_page_is_not_stored(site, origin, path):
    page = path()
    origin.on(page, lambda req: Reply(
        b"", [("Content-Range", "bytes */10")], status=416)
        if req.get("Range") else cacheable(b"0123456789"))
    assert site.get(page, [("Range", "bytes=50-")]).status == 416
    res = site.get(page)
    assert (res.status, res.body) == (200, b"0123456789")


def test_ranges_of_an_empty_page(site, origin, path):
    page = path()
    origin.page(page, b"")
    site.get(page)
    for value in ("bytes=0-", "bytes=0-10", "bytes=-5"):
        res = site.get(page, [("Range", value)])
        assert res.status in (200, 416) and res.complete
        assert site.get(page).status == 200
