# SPDX-License-Identifier: Apache-2.0
"""A page whose lifetime is over is asked for again, cheaply and correctly.

max-age=0 makes a page stale at once, so nothing here waits for the clock."""

import threading
import time

import pytest

from harness import Gate, Reply
from harness.origin import cacheable

pytestmark = [pytest.mark.mpm, pytest.mark.store]

LONG_AGO = time.time() - 100000


def stale(body, **more):
    return cacheable(body, 0, **more)


def fresh_headers(*more):
    return [("Cache-Control", "max-age=60"), *more]


VALIDATORS = {"etag": {"etag": '"v1"'},
              "weak": {"etag": 'W/"v1"'},
              "modified": {"modified": LONG_AGO},
              "both": {"etag": '"v1"', "modified": LONG_AGO}}


@pytest.mark.parametrize("size", [0, 5, 70000, 300000])
@pytest.mark.parametrize("kind", VALIDATORS)
def test_body_survives_a_304_and_many_hits_after_it(site, origin, path, kind,
                                                    size):
    page, body = path(), b"abcde" * (size // 5)
    origin.on(page, stale(
        body, headers=[("Content-Type", "text/x-odd"), ("X-Old", "old"),
                       ("X-Both", "before")],
        headers_304=fresh_headers(("X-New", "new"), ("X-Both", "after")),
        **VALIDATORS[kind]))
    first, second = site.get(page), site.get(page)
    assert (first.cache, second.cache) == ("MISS", "REVALIDATE")
    asked = origin.last(page)
    assert asked.get("If-None-Match") or asked.get("If-Modified-Since")
    hits = [site.get(page) for _ in range(5)]
    assert [x.cache for x in hits] == ["HIT"] * 5
    assert origin.count(page) == 2
    for res in [second] + hits:
        assert res.complete and res.status == 200
        assert res.body == body
        assert res.get("Content-Length") == str(len(body))
        assert res.get("Content-Type") == "text/x-odd"
        assert res.get("X-Old") == "old"
        assert res.get("X-New") == "new"
        assert res.all("X-Both") == ["after"]
        assert res.get("Cache-Control") == "max-age=60"
        if "etag" in VALIDATORS[kind]:
            assert res.get("ETag") == VALIDATORS[kind]["etag"]
        if "modified" in VALIDATORS[kind]:
            assert res.get("Last-Modified")


def test_a_page_can_be_revalidated_again_and_again(site, origin, path):
    page, body = path(), b"steady" * 2000
    origin.on(page, stale(body, etag='"v1"'))
    assert site.get(page).cache == "MISS"
    for _ in range(10):
        res = site.get(page)
        assert (res.cache, res.body) == ("REVALIDATE", body)
        assert origin.last(page).get("If-None-Match") == '"v1"'


def test_repeated_headers_survive_a_304(site, origin, path):
    page = path()
    links = ["</a>", "</b>"]
    origin.on(page, stale(b"x", etag='"v1"', headers_304=fresh_headers(),
                          headers=[("Link", x) for x in links]))
    for wanted in ("MISS", "REVALIDATE", "HIT", "HIT"):
        res = site.get(page)
        assert (res.cache, res.all("Link")) == (wanted, links)


@pytest.mark.parametrize("old,new", [(b"long " * 50000, b"short"),
                                     (b"short", b"long " * 50000),
                                     (b"something", b""), (b"", b"now")])
def test_changed_page_replaces_the_old_one_whole(site, origin, path, old,
                                                 new):
    page = path()
    origin.on(page, stale(old, etag='"v1"', headers=[("X-Old", "1")]))
    assert site.get(page).body == old
    origin.page(page, new, etag='"v2"', headers=[("X-New", "2")])
    changed = site.get(page)
    assert (changed.cache, changed.body) == ("MISS", new)
    hit = site.get(page)
    assert (hit.cache, hit.body) == ("HIT", new)
    for res in (changed, hit):
        assert res.get("ETag") == '"v2"'
        assert (res.get("X-Old"), res.get("X-New")) == (None, "2")
        assert res.get("Content-Length") == str(len(new))


def test_page_without_validator_is_fetched_again(site, origin, path):
    page = path()
    origin.on(page, stale(b"one"))
    site.get(page)
    origin.on(page, cacheable(b"two"))
    assert site.get(page).body == b"two"
    asked = origin.last(page)
    assert asked.get("If-None-Match") is None
    assert asked.get("If-Modified-Since") is None
    assert site.get(page).cache == "HIT"


def test_page_that_became_private_is_forgotten(site, origin, path):
    page = path()
    origin.on(page, stale(b"public", etag='"v1"'))
    site.get(page)
    origin.on(page, Reply(b"private", [("Cache-Control", "no-store")]))
    assert site.get(page).body == b"private"
    assert site.get(page).body == b"private"
    assert origin.last(page).get("If-None-Match") is None
    origin.on(page, Reply(b"broken", status=503))
    assert (site.get(page).status, site.get(page).body) == (503, b"broken")


def test_page_that_was_deleted_is_forgotten(site, origin, path):
    page = path()
    origin.on(page, stale(b"here", etag='"v1"'))
    site.get(page)
    origin.on(page, Reply(b"gone", status=404))
    assert [site.get(page).status for _ in range(2)] == [404, 404]
    assert origin.last(page).get("If-None-Match") is None


def test_304_that_contradicts_the_copy_is_not_believed(site, origin, path):
    page = path()
    origin.on(page, stale(b"one", etag='"v1"'))
    site.get(page)

    def confused(req):
        if req.get("If-None-Match"):
            return Reply(status=304, headers=fresh_headers(("ETag", '"v2"')))
        return cacheable(b"two", etag='"v2"')

    origin.on(page, confused)
    for _ in range(3):
        res = site.get(page)
        assert (res.status, res.body) == (200, b"two")
    assert res.cache == "HIT"


def test_304_that_forbids_storing_removes_the_copy(site, origin, path):
    page = path()
    origin.on(page, stale(b"one", etag='"v1"'))
    site.get(page)

    def changed_mind(req):
        return Reply(b"two", [("Cache-Control", "no-store")],
                     status=304 if req.get("If-None-Match") else 200)

    origin.on(page, changed_mind)
    for _ in range(3):
        res = site.get(page)
        assert (res.status, res.body) == (200, b"two")
        assert res.cache != "HIT"


def test_visitor_with_a_copy_of_a_stale_page_gets_304(site, origin, path):
    page = path()
    origin.on(page, stale(b"body", etag='"v1"', headers_304=fresh_headers()))
    site.get(page)
    res = site.get(page, [("If-None-Match", '"v1"')])
    assert (res.status, res.body, res.cache) == (304, b"", "REVALIDATE")
    res = site.get(page)
    assert (res.status, res.body, res.cache) == (200, b"body", "HIT")


def test_visitor_with_an_older_copy_of_a_stale_page_gets_the_page(
        site, origin, path):
    page = path()
    origin.on(page, stale(b"body", etag='"v1"', headers_304=fresh_headers()))
    site.get(page)
    res = site.get(page, [("If-None-Match", '"v0"')])
    assert (res.status, res.body) == (200, b"body")
    assert site.get(page).body == b"body"


def test_visitor_who_is_ahead_of_the_cache_does_not_confuse_it(site, origin,
                                                               path):
    """The visitor's copy is newer than ours: the origin's 304 is about that
    copy and must not refresh our old one."""
    page = path()
    origin.page(page, b"one", etag='"v1"')
    site.get(page)
    origin.page(page, b"two", etag='"v2"')
    res = site.get(page, [("If-None-Match", '"v2"')])
    assert res.status == 304 or res.body == b"two"
    res = site.get(page)
    assert (res.status, res.get("ETag"), res.body) in (
        (200, '"v2"', b"two"), (200, '"v1"', b"one"))


def test_head_of_a_stale_page_keeps_the_body(site, origin, path):
    page = path()
    origin.on(page, stale(b"the body", etag='"v1"',
                          headers_304=fresh_headers()))
    site.get(page)
    head = site.ask("HEAD", page)
    assert (head.status, head.body) == (200, b"")
    assert head.get("Content-Length") in (None, "8")
    for _ in range(2):
        res = site.get(page)
        assert (res.status, res.body) == (200, b"the body")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_head_with_a_changed_page_does_not_store_an_empty_one(site, origin,
                                                              path, framing):
    page = path()
    origin.on(page, stale(b"one", etag='"v1"'))
    site.get(page)
    origin.page(page, b"two!" if framing == "length" else [b"two!"],
                etag='"v2"', framing=framing)
    head = site.ask("HEAD", page)
    assert (head.status, head.body) == (200, b"")
    for _ in range(2):
        res = site.get(page)
        assert (res.status, res.body) == (200, b"two!")
    assert res.cache == "HIT"


def test_range_of_a_stale_page(site, origin, path):
    page, body = path(), bytes(range(256)) * 500
    origin.on(page, stale(body, etag='"v1"', headers_304=fresh_headers()))
    site.get(page)
    part = site.get(page, [("Range", "bytes=100-199")])
    assert origin.last(page).get("Range") is None
    assert (part.status, part.body) == (206, body[100:200])
    res = site.get(page)
    assert (res.status, res.cache, res.body) == (200, "HIT", body)


def test_visitor_may_demand_a_revalidation(site, origin, path):
    page = path()
    origin.page(page, b"x", etag='"v1"')
    site.get(page)
    res = site.get(page, [("Cache-Control", "max-age=0")])
    assert (res.cache, res.body) == ("REVALIDATE", b"x")
    assert site.get(page).cache == "HIT"


def test_visitor_may_accept_a_stale_page(site, origin, path):
    page = path()
    origin.on(page, stale(b"x", etag='"v1"'))
    site.get(page)
    res = site.get(page, [("Cache-Control", "max-stale=100")])
    assert (res.cache, res.body) == ("HIT", b"x")
    assert "110" in res.get("Warning")
    assert origin.count(page) == 1


@pytest.mark.parametrize("size", [10, 400000])
def test_late_304_of_the_old_page_does_not_amend_the_new_one(site, origin,
                                                             path, size):
    page, gate = path(), Gate()
    old, new = b"1" * size, b"2" * (size + 1)
    origin.on(page, stale(old, etag='"v1"', headers=[("X-Version", "1")]))
    site.get(page)
    origin.on(page, Reply(status=304, gate=gate, headers=fresh_headers(
        ("ETag", '"v1"'), ("X-Version", "1"))))
    with site.connect() as late:
        late.send("GET", page)
        gate.wait_reached()
        origin.page(page, new, etag='"v2"', headers=[("X-Version", "2")])
        assert site.get(page).body == new
        gate.open()
        res = late.response()
        if res.complete:
            assert (res.get("X-Version"), res.body) in (("1", old),
                                                        ("2", new))
    for _ in range(3):
        res = site.get(page)
        assert (res.get("X-Version"), res.body) == ("2", new)
        assert (res.get("ETag"), res.cache) == ('"v2"', "HIT")
        assert res.get("Content-Length") == str(len(new))


def test_many_revalidations_at_once_agree(site, origin, path):
    page, body = path(), b"same" * 5000
    origin.on(page, stale(body, etag='"v1"'))
    site.get(page)
    wrong = []

    def visit():
        with site.connect() as conn:
            for _ in range(10):
                res = conn.get(page)
                if res.body != body or res.status != 200:
                    wrong.append(res)

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
