# SPDX-License-Identifier: Apache-2.0
"""A page is fetched once and then comes from the cache, byte for byte."""

import hashlib
import time

import pytest

from harness import Reply, settings
from harness.origin import cacheable, http_date, noise

pytestmark = [pytest.mark.mpm, pytest.mark.store]

K = 1024


def pieces(data, size):
    return [data[i:i + size] for i in range(0, len(data), size)]


def miss_then_hit(site, origin, page, body, **ask):
    """Both answers whole and alike; the origin was asked once."""
    first, second = site.get(page, **ask), site.get(page, **ask)
    assert first.complete and second.complete, (first, second)
    assert first.body == second.body == body
    assert (first.cache, second.cache) == ("MISS", "HIT")
    assert origin.count(page) == 1
    return first, second


def test_second_visitor_gets_the_page_from_the_cache(site, origin, path):
    page = path()
    origin.page(page, b"hello", headers=[("Content-Type", "text/x-odd"),
                                         ("X-Other", "kept")])
    first, second = miss_then_hit(site, origin, page, b"hello")
    for res in (first, second):
        assert res.status == 200
        assert res.get("Content-Type") == "text/x-odd"
        assert res.get("X-Other") == "kept"
        assert res.get("Content-Length") == "5"
    assert int(second.get("Age")) < 30


def test_every_child_and_connection_sees_the_page(site, origin, path):
    page = path()
    origin.page(page, b"shared")
    assert site.get(page).cache == "MISS"
    for _ in range(40):
        assert site.get(page).cache == "HIT"
    with site.connect() as conn:
        for _ in range(40):
            res = conn.get(page)
            assert (res.cache, res.body) == ("HIT", b"shared")
    assert origin.count(page) == 1


def test_pipelined_requests_are_answered_in_order(site, origin, path):
    pages = [path(f"p{i}") for i in range(8)]
    for i, page in enumerate(pages):
        origin.page(page, b"body %d" % i)
    for wanted in ("MISS", "HIT"):
        with site.connect() as conn:
            for page in pages:
                conn.send("GET", page)
            for i, page in enumerate(pages):
                res = conn.response()
                assert (res.cache, res.body) == (wanted, b"body %d" % i)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [0, 1, 64 * K - 1, 64 * K, 64 * K + 1,
                                  200 * K, 1000 * K])
def test_body_of_any_size_and_framing_is_kept(site, origin, path, size,
                                              framing):
    page, body = path(), noise(size)
    origin.page(page, pieces(body, 10000) if framing != "length" else body,
                framing=framing)
    miss_then_hit(site, origin, page, body)


def test_many_pages_do_not_mix(site, origin, path):
    pages = {path(f"n{i}"): noise(1 + 97 * i, i) for i in range(120)}
    for page, body in pages.items():
        origin.page(page, body)
        assert site.get(page).body == body
    for page, body in pages.items():
        res = site.get(page)
        assert (res.cache, res.body) == ("HIT", body)


def test_query_strings_are_different_pages(site, origin, path):
    page = path()
    origin.on(page, lambda req: cacheable(req.target.encode()))
    for query in ("", "?", "?a=1", "?a=2", "?a=1&b=2", "?a=%31", "?x\\y|z"):
        for wanted in ("MISS", "HIT") if query != "?" else ("HIT",):
            res = site.get(page + query)
            assert res.cache == wanted, query
            if query not in ("", "?"):
                assert res.body == (page + query).encode()


def test_page_that_may_not_be_cached_is_not(site, origin, path):
    for i, value in enumerate(["no-store", "private", "max-age=60, no-store",
                               "s-maxage=60, private"]):
        page = path(f"p{i}")
        origin.on(page, Reply(b"secret", [("Cache-Control", value)]))
        assert [site.get(page).cache for _ in range(2)] == ["MISS", "MISS"]
        assert origin.count(page) == 2


def test_visitor_who_asks_for_a_fresh_copy_gets_it(site, origin, path):
    page = path()
    origin.page(page, b"one")
    site.get(page)
    origin.page(page, b"two")
    res = site.get(page, [("Cache-Control", "no-cache")])
    assert res.body == b"two"
    assert site.get(page).body == b"two"


def test_visitor_with_no_store_leaves_no_trace(site, origin, path):
    page = path()
    origin.page(page, b"x")
    assert site.get(page, [("Cache-Control", "no-store")]).cache is None
    assert site.get(page).cache == "MISS"


def test_only_if_cached_never_asks_the_origin(site, origin, path):
    page = path()
    origin.page(page, b"x")
    ask = [("Cache-Control", "only-if-cached")]
    assert site.get(page, ask).status == 504
    assert origin.count(page) == 0
    site.get(page)
    assert site.get(page, ask).cache == "HIT"


# ---- HEAD --------------------------------------------------------------------

FRAMINGS = pytest.mark.parametrize("framing", ["length", "chunked", "close"])


@FRAMINGS
def test_head_before_get_leaves_the_page_whole(site, origin, path, framing):
    page = path()
    origin.page(page, b"the body" if framing == "length" else [b"the body"],
                headers=[("X-Mark", "m")], framing=framing)
    head = site.ask("HEAD", page)
    assert (head.status, head.body) == (200, b"")
    assert head.get("Content-Length") == ("8" if framing == "length" else None)
    res = site.get(page)
    assert res.body == b"the body"
    assert site.get(page).body == b"the body"
    assert site.get(page).cache == "HIT"


@FRAMINGS
def test_head_alone_stores_nothing_that_a_get_would_take(site, origin, path,
                                                         framing):
    page = path()
    origin.page(page, b"the body" if framing == "length" else [b"the body"],
                framing=framing)
    for _ in range(3):
        site.ask("HEAD", page)
    assert site.get(page).cache == "MISS"


def test_head_of_a_cached_page_has_its_headers(site, origin, path):
    page = path()
    origin.page(page, noise(70000), headers=[("X-Mark", "m")])
    site.get(page)
    with site.connect() as conn:
        head = conn.ask("HEAD", page)
        assert (head.cache, head.status, head.body) == ("HIT", 200, b"")
        assert head.get("Content-Length") == "70000"
        assert head.get("X-Mark") == "m"
        assert conn.get(page).body == noise(70000)     # still in step
    assert origin.count(page) == 1


# ---- trailers and interim responses ------------------------------------------

def test_trailers_do_not_end_up_in_the_body(site, origin, path):
    page = path()
    origin.page(page, [b"one ", b"two"], framing="chunked",
                headers=[("Trailer", "X-Sum")],
                trailers=[("X-Sum", "12345")])
    miss_then_hit(site, origin, page, b"one two")


def test_interim_responses_are_not_cached(site, origin, path):
    page = path()
    origin.page(page, b"final", interim=[
        (103, [("Link", "</style.css>; rel=preload")]),
        (102, [])])
    first, second = miss_then_hit(site, origin, page, b"final")
    assert (first.status, second.status) == (200, 200)
    assert second.interim == []
    assert second.get("Link") is None


# ---- other statuses ----------------------------------------------------------

@pytest.mark.parametrize("status,more", [
    (203, ()), (300, ()), (301, (("Location", "http://elsewhere.test/x"),)),
    (302, (("Location", "http://elsewhere.test/y"),)), (404, ()), (410, ()),
    (500, ()), (503, ())])
def test_status_with_a_lifetime_is_cached_with_its_headers(site, origin, path,
                                                           status, more):
    page = path()
    origin.page(page, b"status %d" % status, status=status,
                headers=[("X-Mark", str(status)), *more])
    first, second = miss_then_hit(site, origin, page, b"status %d" % status)
    assert first.status == second.status == status
    assert first.get("Location") == second.get("Location")
    assert second.get("X-Mark") == str(status)


def test_error_without_a_lifetime_is_asked_again(site, origin, path):
    page = path()
    origin.on(page, Reply(b"gone for now", status=404))
    assert site.get(page).status == 404
    origin.page(page, b"back")
    assert site.get(page).body == b"back"


def test_no_content_is_cached_as_such(site, origin, path):
    page = path()
    origin.page(page, b"", status=204)
    first, second = site.get(page), site.get(page)
    assert (first.status, second.status) == (204, 204)
    assert first.complete and second.complete
    assert second.body == b""


# ---- headers -----------------------------------------------------------------

def test_repeated_headers_stay_repeated(site, origin, path):
    page = path()
    links = ["</a>; rel=preload", "</b>; rel=preload", "</c,d>; rel=x"]
    origin.page(page, b"x", headers=[("Link", v) for v in links]
                + [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    first, second = miss_then_hit(site, origin, page, b"x")
    assert first.all("Link") == second.all("Link") == links
    assert first.all("Set-Cookie") == second.all("Set-Cookie") == ["a=1",
                                                                  "b=2"]


def test_empty_and_long_header_values_survive(site, origin, path):
    page = path()
    long = "v" * 7000
    origin.page(page, b"x", headers=[("X-Empty", ""), ("X-Long", long)])
    _, second = miss_then_hit(site, origin, page, b"x")
    assert second.get("X-Empty") == ""
    assert second.get("X-Long") == long


def test_a_hundred_headers_survive(site, origin, path):
    page = path()
    many = [(f"X-Number-{i}", f"value {i}") for i in range(90)]
    origin.page(page, b"x", headers=many)
    _, second = miss_then_hit(site, origin, page, b"x")
    assert [(k, v) for k, v in second.headers
            if k.startswith("X-Number")] == many


def test_hop_by_hop_headers_are_not_kept(site, origin, path):
    page = path()
    origin.page(page, b"x", headers=[("Keep-Alive", "timeout=5"),
                                     ("Proxy-Authenticate", "Basic realm=x"),
                                     ("Upgrade", "weird/1")])
    site.get(page)
    res = site.get(page)
    assert res.cache == "HIT"
    for name in ("Proxy-Authenticate", "Transfer-Encoding"):
        assert res.get(name) is None
    assert "weird" not in (res.get("Upgrade") or "")
    assert (res.get("Keep-Alive") or "").count("timeout=5") == 0


def test_every_byte_in_a_response_header_is_kept_or_refused(site, origin,
                                                             path):
    """Whatever httpd lets through on a miss comes back unchanged on a hit."""
    for byte in range(256):
        page = path(f"b{byte:02x}")
        origin.page(page, b"x", headers=[(b"X-Odd", b"a" + bytes([byte])
                                          + b"b")])
        first = site.get(page)
        assert first.complete, byte
        second = site.get(page)
        assert second.complete, byte
        assert first.status == second.status, byte
        assert first.all("X-Odd") == second.all("X-Odd"), byte
        for res in (first, second):
            for name, value in res.headers:
                assert not set(name + value) & set("\r\n\0"), (byte, name)
            assert len(res.all("X-Odd")) <= 1


def test_every_byte_in_a_request_header_is_harmless(site, origin, path):
    for byte in range(256):
        page = path(f"b{byte:02x}")
        origin.page(page, b"x", headers=[("Vary", "X-Odd")])
        odd = [(b"X-Odd", b"a" + bytes([byte]) + b"b")]
        first, second = site.get(page, odd), site.get(page, odd)
        assert first.status == second.status, byte
        if first.status == 200:
            assert second.body == b"x"
            assert second.cache == "HIT", byte


def test_body_with_every_byte_is_kept(site, origin, path):
    page, body = path(), bytes(range(256)) * 3
    origin.page(page, body)
    miss_then_hit(site, origin, page, body)


# ---- keys --------------------------------------------------------------------

@pytest.mark.parametrize("size", [100, 118, 119, 120, 121, 250, 255, 256,
                                  1024, 4096, 8000, 8150])
def test_long_addresses_are_cached_too(site, origin, path, size):
    page = path()
    target = page + "?" + "k" * (size - len(page) - 1)
    origin.on(page, lambda req: cacheable(
        hashlib.sha1(req.target.encode()).digest()))
    body = hashlib.sha1(target.encode()).digest()
    first, second = site.get(target), site.get(target)
    assert (first.cache, second.cache) == ("MISS", "HIT")
    assert first.body == second.body == body
    other = site.get(target[:-1] + "L")
    assert other.cache == "MISS" and other.body != body


def test_address_beyond_the_servers_limit_is_refused(site, path):
    assert site.get(path() + "?" + "k" * 9000).status == 414


def test_escaped_bytes_in_addresses_are_different_pages(site, origin, path):
    page = path()
    for escaped in ("%01", "%7f", "%80", "%ff", "%20", "%3f", "%23", "%0a",
                    "%0d%0a", "a%00b"):
        target = page + "?" + escaped
        origin.page(target, escaped.encode())
        first, second = site.get(target), site.get(target)
        if first.status == 200:
            assert first.body == second.body == escaped.encode()
            assert (first.cache, second.cache) == ("MISS", "HIT")


# ---- time --------------------------------------------------------------------

def test_expires_alone_makes_a_page_cacheable(site, origin, path):
    page = path()
    origin.on(page, Reply(b"x", [("Expires", http_date(time.time() + 600))]))
    miss_then_hit(site, origin, page, b"x")


def test_page_that_is_old_on_arrival_is_not_served_as_fresh(site, origin,
                                                            path):
    page = path()
    origin.page(page, b"x", age=100,
                headers=[("Date", http_date(time.time() - 200))])
    assert [site.get(page).cache for _ in range(2)] == ["MISS", "MISS"]
    assert origin.count(page) == 2


def test_age_of_the_origin_counts(site, origin, path):
    page = path()
    origin.page(page, b"x", age=100, headers=[("Age", "50")])
    site.get(page)
    res = site.get(page)
    assert res.cache == "HIT"
    assert 50 <= int(res.get("Age")) < 80


# ---- requests that are not for a cache ---------------------------------------

def test_answer_to_a_login_is_kept_from_others(site, origin, path):
    page = path()
    origin.on(page, lambda req: cacheable(
        (req.get("Authorization") or "nobody").encode()))
    mine = [("Authorization", "Basic c2VjcmV0")]
    for _ in range(3):
        assert site.get(page, mine).body == b"Basic c2VjcmV0"
    res = site.get(page)
    assert (res.cache, res.body) == ("MISS", b"nobody")
    site.get(page, mine)
    res = site.get(page)
    assert (res.cache, res.body) == ("HIT", b"nobody")


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "PROPFIND"])
def test_other_methods_pass_by(site, origin, path, method):
    page = path()
    origin.on(page, lambda req: cacheable(req.method.encode()))
    assert site.ask(method, page).body == method.encode()
    assert site.get(page).body == b"GET"
    assert site.ask(method, page).body == method.encode()
    assert site.get(page).cache == "HIT"


def test_range_of_sixteen_megabytes_and_all_of_them(module_httpd, origin,
                                                    path, quick):
    """A body larger than any buffer: the same bytes from origin and cache."""
    from conftest import SITE, provider_conf
    site = module_httpd(SITE, {"QUICK": quick, "PROVIDER":
                               provider_conf(settings.large_store)})
    size = 16 * K * K
    for framing in ("length", "chunked"):
        page, body = path(framing), noise(size, 7)
        origin.page(page, pieces(body, 65536) if framing == "chunked"
                    else body, framing=framing)
        miss_then_hit(site, origin, page, body)
        part = site.get(page, [("Range", f"bytes={size - 100}-")])
        assert (part.status, part.cache) == (206, "HIT")
        assert part.body == body[-100:]
