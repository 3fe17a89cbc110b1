# SPDX-License-Identifier: Apache-2.0
"""Somebody leaves half-way: nobody else ever gets half a page."""

import pytest

from harness import Gate, Reply
from harness.origin import cacheable
from test_basic import noise, pieces

pytestmark = [pytest.mark.mpm, pytest.mark.store]

BODY = noise(600000, 3)


# ---- the client leaves -------------------------------------------------------

@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("leave", ["close", "abort"])
@pytest.mark.parametrize("when", ["headers", "middle"])
def test_visitor_who_leaves_half_way_leaves_no_half_page(
        site, origin, path, framing, leave, when):
    page, gate = path(), Gate()
    parts = pieces(BODY, 50000)
    gated = parts[:6] + [gate] + parts[6:]
    origin.page(page, gated, framing=framing,
                length=len(BODY) if framing == "length" else None)
    conn = site.connect(rcvbuf=4096)
    conn.send("GET", page)
    if when == "middle":
        assert conn.head().status == 200
    gate.wait_reached()
    conn.abort() if leave == "abort" else conn.close()
    gate.open()
    origin.page(page, parts, framing=framing,
                length=len(BODY) if framing == "length" else None)
    for _ in range(3):
        res = site.get(page)
        assert res.complete and res.status == 200
        assert res.body == BODY
    assert res.cache == "HIT"


def test_visitor_who_leaves_a_hit_half_way_does_not_damage_it(site, origin,
                                                              path):
    page = path()
    body = noise(4000000, 4)
    origin.page(page, body)
    site.get(page)
    for _ in range(6):
        with site.connect(rcvbuf=4096) as conn:
            conn.send("GET", page)
            conn.head()
            conn.abort()
    res = site.get(page)
    assert res.complete and res.body == body
    assert res.cache in ("HIT", "MISS")


def test_slow_reader_of_a_hit_gets_all_of_it(site, origin, path):
    """The entry is replaced and invalidated while somebody reads it."""
    page = path()
    old, new = noise(3000000, 5), noise(3000000, 6)
    origin.page(page, old)
    site.get(page)
    with site.connect(rcvbuf=4096) as slow:
        slow.send("GET", page)
        head = slow.head()
        if head.cache != "HIT":
            pytest.fail(f"not a hit: {head}")
        origin.page(page, new)
        assert site.get(page, [("Cache-Control", "no-cache")]).body == new
        site.ask("POST", page, body=b"x")
        assert site.get(page).body == new
        res = slow.body(head)
    assert not res.complete or res.body == old
    assert res.complete, "a reader was cut off by a replacement"


# ---- the origin leaves -------------------------------------------------------

@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("after", [0, 1, 5000, 70000, 400000])
def test_page_that_the_origin_cut_is_seen_as_cut_and_not_kept(
        site, origin, path, framing, after):
    page = path()
    parts = pieces(BODY, 30000)
    whole = cacheable(parts, framing=framing,
                      length=len(BODY) if framing == "length" else None)
    origin.on(page, whole.with_(cut_after=after))
    for _ in range(2):
        res = site.get(page)
        if res.status == 200:
            assert not res.complete, "a cut page looked whole"
            assert res.framing != "close"
            assert BODY.startswith(res.body)
        else:
            assert res.status == 502
    assert origin.count(page) == 2
    origin.on(page, whole)
    res = site.get(page)
    assert res.complete and (res.cache, res.body) == ("MISS", BODY)
    res = site.get(page)
    assert res.complete and (res.cache, res.body) == ("HIT", BODY)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_replacement_that_is_cut_does_not_replace(site, origin, path,
                                                  framing):
    page = path()
    origin.page(page, b"good", 0, etag='"v1"')
    site.get(page)
    parts = pieces(BODY, 30000)
    origin.page(page, parts, framing=framing, cut_after=100000,
                length=len(BODY) if framing == "length" else None)
    res = site.get(page)
    assert not res.complete
    origin.on(page, Reply(b"sorry", status=503))
    res = site.get(page)
    assert (res.status, res.body) in ((200, b"good"), (503, b"sorry"))


def test_page_with_less_than_it_promised_is_not_kept(site, origin, path):
    page = path()
    origin.page(page, b"short", length=4000)
    res = site.get(page)
    assert not res.complete or res.status != 200
    origin.page(page, b"whole")
    assert site.get(page).body == b"whole"
    assert site.get(page).cache == "HIT"


def test_origin_that_says_nothing_is_an_error_that_nobody_keeps(site, origin,
                                                                path):
    page = path()
    origin.on(page, Reply(cut=True))
    assert site.get(page).status == 502
    origin.page(page, b"back")
    assert [site.get(page).cache for _ in range(2)] == ["MISS", "HIT"]


def test_readers_come_while_a_page_is_being_stored(site, origin, path):
    """Nothing of a page can be read before all of it was stored."""
    page, gate = path(), Gate()
    parts = pieces(BODY, 50000)
    origin.page(page, parts[:4] + [gate] + parts[4:], framing="chunked")
    with site.connect() as first:
        first.send("GET", page, [("Connection", "close")])
        gate.wait_reached()
        origin.page(page, parts, framing="chunked")
        for _ in range(3):
            res = site.get(page)
            assert res.complete and res.body == BODY
        gate.open()
        res = first.response()
        assert res.complete and res.body == BODY
        assert first.is_closed()
    res = site.get(page)
    assert (res.cache, res.body) == ("HIT", BODY)


@pytest.mark.parametrize("length", [3, 6, 5000])
def test_handler_that_lies_about_its_length_is_not_believed_later(
        site, path, length):
    """A local handler, not the proxy: nobody has compared before us."""
    page = path("page", "local/asis")
    site.file(page, "Status: 200\nCache-Control: max-age=60\n"
              f"Content-Type: text/plain\nContent-Length: {length}\n\nshort")
    for _ in range(3):
        with site.connect(timeout=5) as conn:
            res = conn.get(page, [("Connection", "close")])
        assert not res.complete or res.body == b"short"
        assert res.cache != "HIT"
