# SPDX-License-Identifier: Apache-2.0
"""A stored body that cannot be read to its end: whoever waits for it must see
a broken transfer, never a complete-looking short page."""

import base64

import pytest

from conftest import SITE
from harness import settings
from harness.faults import MODULES, PIECES, STORES, write
from test_basic import noise

pytestmark = [pytest.mark.errors]

AREAS = """
<Location "/included/">
    SetOutputFilter CACHE;INCLUDES
    Options +Includes
</Location>
<Location "/substituted/">
    SetOutputFilter CACHE;SUBSTITUTE
    Substitute "s/never-there/nor-here/n"
</Location>
"""

GZIP = [("Accept-Encoding", "gzip")]

# compresses to three quarters
LARGE = base64.encodebytes(noise(1000000, 11))
SMALL = LARGE[:3000]

# what happens to the hit: (area, request headers, CacheQuickHandler)
WAYS = {
    "length": ("plain", [], "both"),
    "stored-deflated": ("deflate", GZIP, "both"),
    "deflate": ("after", GZIP, "off"),
    "chunked-includes": ("included", [], "off"),
    "chunked-substitute": ("substituted", [], "off"),
}

READ_FAULTS = ["error", "error=ECONNRESET", "timeout=20", "notfound",
               "damaged", "truncated-get"]


def fault_lines(fault, after):
    if fault == "truncated-get":        # says itself that the rest is gone
        return ["get truncated body"]
    return [f"read {fault} after={after}", PIECES]


@pytest.fixture
def server(module_httpd, quick):
    more = [] if settings.mpm == "prefork" else ["http2"]
    one = module_httpd(SITE + AREAS, {
        "QUICK": quick, "PROVIDER": STORES, "KIND": "faulty", "OPTIONS": ""},
        extra=MODULES + ["substitute"] + more)
    yield one
    write(one)


def way_of(way, quick):
    area, ask, where = WAYS[way]
    if where == "off" and quick == "on":
        return None
    return area, ask


COMBINATIONS = [(way, quick) for way in WAYS for quick in ("on", "off")
                if way_of(way, quick)]
EACH_WAY = pytest.mark.parametrize(
    "way,quick", COMBINATIONS,
    ids=[f"{w}-{'quick' if q == 'on' else 'noquick'}"
         for w, q in COMBINATIONS])
PROTOCOL = pytest.mark.parametrize(
    "protocol", ["h1"] if settings.mpm == "prefork" else ["h1", "h2"])
WHEN = pytest.mark.parametrize("when", ["before-headers", "after-headers"])


def ask(server, protocol, page, headers, method="GET"):
    if protocol == "h2":
        return server.h2(page, headers, method)
    with server.connect() as conn:
        return conn.ask(method, page, headers)


def stored(server, origin, page, body, headers):
    origin.page(page, body, headers=[("Content-Type", "text/html")])
    res = server.get(page, headers)
    assert res.complete and res.text == body
    res = server.get(page, headers)
    assert (res.cache, res.text) == ("HIT", body)
    return res


@EACH_WAY
@PROTOCOL
@pytest.mark.parametrize("size", ["small", "large"])
def test_body_in_pieces_arrives_whole(server, origin, path, protocol, way,
                                      quick, size):
    area, headers = way_of(way, quick)
    page, body = path("page", area), SMALL if size == "small" else LARGE
    stored(server, origin, page, body, headers)
    write(server, PIECES)
    for _ in range(2):
        res = ask(server, protocol, page, headers)
        assert res.complete and res.cache == "HIT"
        assert res.text == body
    for short in ("read truncated", "read truncated count=3 after=2"):
        write(server, short, PIECES)
        res = ask(server, protocol, page, headers)
        assert res.complete and (res.cache, res.text) == ("HIT", body)


@EACH_WAY
@PROTOCOL
@WHEN
@pytest.mark.mpm
@pytest.mark.parametrize("fault", READ_FAULTS)
def test_body_that_fails_is_seen_to_fail(server, origin, path, protocol, way,
                                         quick, when, fault):
    area, headers = way_of(way, quick)
    page = path("page", area)
    body = SMALL if when == "before-headers" else LARGE
    whole = stored(server, origin, page, body, headers).body
    write(server, *fault_lines(fault, 0 if body is SMALL else 8))
    for again in range(2):
        res = ask(server, protocol, page, headers)
        if again and res.cache == "MISS":   # what is damaged was removed
            assert res.complete and res.text == body
            continue
        assert not res.complete, f"looks complete: {res}"
        assert res.framing != "close"
        if body is LARGE and way != "deflate":  # mod_deflate holds all back
            assert res.status == 200 and res.body
        assert b"Bad Gateway" not in res.body
        if way in ("length", "stored-deflated"):
            assert whole.startswith(res.body)
    write(server)
    res = ask(server, protocol, page, headers)
    assert res.complete and res.text == body


@EACH_WAY
@WHEN
def test_nothing_follows_a_cut_on_its_connection(server, origin, path, way,
                                                 quick, when):
    """A pipelined request behind the failing one must not be answered into
    the gap."""
    area, headers = way_of(way, quick)
    page, next_page = path("page", area), path("next")
    stored(server, origin, page, SMALL if when == "before-headers" else LARGE,
           headers)
    origin.page(next_page, b"THE NEXT PAGE")
    server.get(next_page)
    write(server, *fault_lines("error", 0))
    with server.connect() as conn:
        conn.send("GET", page, headers)
        conn.send("GET", next_page)
        res = conn.response()
        assert not res.complete
        assert b"THE NEXT PAGE" not in res.body
        assert conn.is_closed()


@PROTOCOL
def test_head_of_a_page_whose_body_fails(server, origin, path, protocol):
    page = path()
    stored(server, origin, page, LARGE, [])
    write(server, *fault_lines("error", 0))
    res = ask(server, protocol, page, [], "HEAD")
    assert res.complete and (res.status, res.cache) == (200, "HIT")
    res = ask(server, protocol, page, [("If-None-Match", "*")])
    assert res.complete and res.status == 304


@PROTOCOL
@pytest.mark.parametrize("value", ["bytes=900000-900100", "bytes=-10",
                                   "bytes=0-5,900000-900005"])
def test_part_of_a_page_whose_body_fails(server, origin, path, protocol,
                                         value):
    page = path()
    stored(server, origin, page, LARGE, [])
    ask_part = [("Range", value)]
    write(server, PIECES)
    res = ask(server, protocol, page, ask_part)
    assert res.complete and (res.status, res.cache) == (206, "HIT")
    good = res.body
    if "," not in value:
        assert good in LARGE
    write(server, *fault_lines("error", 0))
    res = ask(server, protocol, page, ask_part)
    assert not res.complete, f"looks complete: {res}"


def test_stream_that_fails_does_not_take_others_with_it(server, origin,
                                                        path):
    if settings.mpm == "prefork":
        return
    bad, good = path("bad"), path("good")
    stored(server, origin, bad, LARGE, [])
    origin.page(good, [b"from ", b"the origin"], framing="chunked",
                headers=[("Cache-Control", "no-store")])
    write(server, *fault_lines("error", 8))
    with server.connect2() as conn:
        first, second = conn.send("GET", bad), conn.send("GET", good)
        assert not conn.response(first).complete
        res = conn.response(second)
        assert res.complete and res.body == b"from the origin"
        res = conn.get(good)
        assert res.complete and res.body == b"from the origin"


def test_page_with_a_fragment_that_fails_is_cut(server, origin, path):
    frag = path("frag")
    page = path("page.shtml", "local/ssi")
    server.file(page, f'BEGIN<!--#include virtual="{frag}" -->END')
    origin.page(frag, LARGE)
    assert server.get(page).body == b"BEGIN" + LARGE + b"END"
    write(server, *fault_lines("error", 8))
    res = server.connect().get(page)
    assert not res.complete
    assert not res.body.endswith(b"END")
    write(server)
    assert server.get(page).body == b"BEGIN" + LARGE + b"END"


def test_entry_that_goes_away_while_it_is_read(server, origin, path):
    """Replaced under a reader of pieces: he gets all of the old page or sees
    the cut, never a mixture."""
    page = path()
    old, new = noise(3000000, 21), noise(3000000, 22)
    origin.page(page, old)
    server.get(page)
    write(server, PIECES)
    with server.connect(rcvbuf=4096) as slow:
        slow.send("GET", page)
        head = slow.head()
        assert head.cache == "HIT"
        origin.page(page, new)
        assert server.get(page, [("Cache-Control", "no-cache")]).body == new
        res = slow.body(head)
        assert old.startswith(res.body)
        assert res.complete == (len(res.body) == len(old))
    res = server.get(page)
    assert (res.cache, res.body) == ("HIT", new)


def test_cuts_are_counted_and_logged(httpd, origin, path, quick):
    server = httpd(SITE, {"QUICK": quick, "PROVIDER": STORES,
                          "KIND": "faulty", "OPTIONS": ""}, extra=MODULES)
    page = path()
    stored(server, origin, page, LARGE, [])
    write(server, *fault_lines("error", 8))
    server.new_log()

    def cuts():
        found = server.get("/server-status?auto").body.decode()
        return int(found.split("CachemwStore-tested-CutBodies: ")[1].split()[0])

    before = cuts()
    for _ in range(30):
        assert not server.connect().get(page).complete
    assert cuts() == before + 30
    said = [x for x in server.new_log().splitlines() if "cachemw[" in x]
    assert 1 <= len(said) <= 10, said
