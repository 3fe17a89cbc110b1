# SPDX-License-Identifier: Apache-2.0
"""Pages that need others of the same server: by includes, internal redirects,
and by a proxy that leads back to it.  Whoever fetches such a page while many
ask for it and for its parts never waits for one who waits for it.

Waiting in vain would show as a delay of WAIT seconds, or as a test that fails
after fewer: all answers come well before."""

import re
import time

import pytest

from harness import Gate, Herd, Reply, meet, settings
from harness.herd import busy_workers
from harness.origin import cacheable
from harness.server import wait_for
from test_basic import noise
from test_coalesce import CONF, HOSTS, asked, names_of, store

pytestmark = [pytest.mark.mpm]

WAIT = "coalesce_timeout=20s"
SOON = 8                            # seconds; well below that

AREAS = """
<Location "/ssi/">
    Options +Includes
    SetOutputFilter INCLUDES
</Location>
<Directory "@DIR@/htdocs/local">
    Header set Cache-Control max-age=60
</Directory>
<Directory "@DIR@/htdocs/local/ssi">
    Options +Includes
    SetOutputFilter INCLUDES
</Directory>
<Directory "@DIR@/htdocs/local/ssi-no-store">
    Options +Includes
    SetOutputFilter INCLUDES
    Header set Cache-Control no-store
</Directory>
DirectorySlash off
<Directory "@DIR@/htdocs/local/index">
    DirectoryIndex index.html
</Directory>
<Directory "@DIR@/htdocs/local/index-away">
    DirectoryIndex missing.html /plain/away/DirectoryIndex@NAME@
</Directory>
<Directory "@DIR@/htdocs/local/perdir">
    RewriteEngine on
    RewriteRule ^(.*)$ /plain/away/$1 [PT]
</Directory>
RewriteEngine on
RewriteRule ^/rewritten/(.*)$ /plain/away/$1 [PT]
<Directory "@DIR@/htdocs/local/negotiated">
    Options +MultiViews
    AddLanguage de .de
    AddLanguage fr .fr
</Directory>
<Directory "@DIR@/htdocs/local/asis">
    SetHandler send-as-is
</Directory>
<Directory "@DIR@/htdocs/local/action">
    Action x-away /plain/away/action virtual
    SetHandler x-away
</Directory>
<Directory "@DIR@/htdocs/local/errors">
    ErrorDocument 404 /local/ssi/error@NAME@.html
</Directory>
"""


def start(make, children=2, threads=80, first="", more=AREAS, quick="on",
          **names):
    names = {**names_of(children, threads, WAIT, quick, more=more),
             "NAME": f"-{quick}", **names}
    return make(first + CONF, names, extra=["cachemw", "actions"])


@pytest.fixture
def server(module_httpd, quick):
    return start(module_httpd, quick=quick)


def slow(body, seconds=0.15, **more):
    """A responder that takes its time"""
    def responder(req):
        time.sleep(seconds)
        return cacheable(body, **more)
    return responder


HTML = [("Content-Type", "text/html")]


def include(*pages):
    return b"".join(b'<!--#include virtual="%s" -->' % x.encode()
                    for x in pages)


class Pages:
    """Pages that include others, kept by httpd or behind the proxy, and what
    they are to look like."""

    def __init__(self, server, origin, path, where):
        self.server, self.origin, self.path = server, origin, path
        self.where, self.bodies = where, {}

    def part(self, name, seconds=0.15):
        page, body = self.path(name), name.encode() * 500
        self.origin.on(page, slow(body, seconds, headers=HTML))
        self.bodies[page] = body
        return page

    def page(self, name, *parts):
        text = b"<" + include(*parts) + b">"
        if self.where == "proxied":
            page = self.path(name, "ssi")
            self.origin.on(page, slow(text, 0.05, headers=HTML))
        else:
            page = self.path(f"{name}.html", f"local/{self.where}")
            self.server.file(page, text)
        self.bodies[page] = b"<" + b"".join(self.bodies[x]
                                            for x in parts) + b">"
        return page

    def all_at_once(self, count=6):
        herd = Herd(self.server)
        for _ in range(count):
            for page in self.bodies:
                herd.send(page)
        for one in herd.end(SOON):
            assert one.is_whole and one.res.status == 200, one.res
            assert one.res.body == self.bodies[one.target], one.target
        for page, body in self.bodies.items():
            res = self.server.get(page)
            assert res.body == body
            if "no-store" not in page:
                assert res.cache == "HIT", page


@pytest.fixture(params=["ssi", "ssi-no-store", "proxied"])
def pages(request, server, origin, path):
    return Pages(server, origin, path, request.param)


# ---- includes ----------------------------------------------------------------

def test_page_that_includes_another_twice(pages):
    part = pages.part("part")
    pages.page("page", part, part)
    pages.all_at_once()


def test_page_that_includes_pages_that_include(pages):
    part = pages.part("part")
    inner = pages.page("inner", part, part)
    middle = pages.page("middle", inner, part)
    pages.page("outer", part, middle, inner)
    pages.all_at_once(5)


def test_pages_that_include_each_others_parts(pages):
    one, two = pages.part("one"), pages.part("two")
    left = pages.page("left", one, two)
    right = pages.page("right", two, one)
    pages.page("both", left, right)
    pages.page("both-again", right, left)
    pages.all_at_once(4)


@pytest.mark.parametrize("where", ["ssi", "proxied"])
def test_who_fetches_a_page_does_not_wait_for_its_parts(server, origin, path,
                                                        where):
    """Another one fetches the part and takes long."""
    pages, gate = Pages(server, origin, path, where), Gate()
    part = pages.part("part")
    page = pages.page("page", part)
    turns = iter([gate])
    origin.on(part, lambda req: cacheable(
        pages.bodies[part], gate=next(turns, None), headers=HTML))
    first = meet(server, part, 1)
    gate.wait_reached()
    meet(server, page, 1).all_right(pages.bodies[page], timeout=SOON)
    assert origin.count(part) == 2
    meet(server, page, 5).all_right(pages.bodies[page], timeout=SOON)
    gate.open()
    first.all_right(pages.bodies[part], timeout=SOON)


def test_part_that_cannot_be_stored(server, origin, path):
    pages = Pages(server, origin, path, "proxied")
    part = pages.part("part")
    origin.on(part, Reply(pages.bodies[part], [
        ("Cache-Control", "no-store"), *HTML]))
    page = pages.page("page", part, part)
    for _ in range(2):
        meet(server, page, 8).all_right(pages.bodies[page], timeout=SOON)


# ---- internal redirects ------------------------------------------------------

def redirected(kind, server, path, quick):
    """(path of a page that leads to another, path of that one, its status)"""
    name = f"{kind}-{quick}"
    front = path(name).rsplit("/", 2)[1]
    target = f"/plain/away/{name}"
    if kind == "DirectoryIndex":
        server.file("/local/index-away/here", b"")
        return "/local/index-away/", target, 200
    if kind == "rewritten":
        return f"/rewritten/{name}", target, 200
    if kind == "perdir":
        server.file("/local/perdir/here", b"")
        return f"/local/perdir/{name}", target, 200
    if kind == "asis":
        page = f"/local/asis/{front}"
        server.file(page, f"Location: {target}\n\n")
        return page, target, 200
    if kind == "error":
        server.file("/local/errors/here", b"")
        server.file(f"/local/ssi/{name}.html", include(target))
        return f"/local/errors/{front}", target, 404
    page = f"/local/action/{front}"
    server.file(page, b"not this")
    return page, f"/plain/away/action{page}", 200


@pytest.mark.parametrize("kind", ["DirectoryIndex", "rewritten", "perdir",
                                  "asis", "action", "error"])
def test_page_that_leads_to_another(server, origin, path, quick, kind):
    page, target, status = redirected(kind, server, path, quick)
    body, gate = noise(20000), Gate()
    origin.page(target, body, gate=gate, headers=HTML)
    fronts, targets = Herd(server), Herd(server)
    for _ in range(8):
        fronts.send(page)
        targets.send(target)
    wait_for(lambda: busy_workers(server) >= 16, "all to be under way")
    asked(origin, target, 1)
    began = time.monotonic()
    gate.open()
    fronts.all_right(body, status, timeout=SOON)
    targets.all_right(body, timeout=SOON)
    assert time.monotonic() - began < SOON
    meet(server, page, 8).all_right(body, status, timeout=SOON)
    assert server.get(target).cache == "HIT"
    # httpd asks no cache about where these lead to from a quick handler
    is_unknown = quick == "on" and kind in ("asis", "action")
    assert origin.count(target) <= (17 if is_unknown else 2)


@pytest.mark.parametrize("name", ["", "index.html"])
def test_index_of_a_directory(server, path, name):
    base = path("", "local/index")
    server.file(base + "index.html", b"the index")
    herd = Herd(server)
    for _ in range(8):
        herd.send(base + name)
        herd.send(base)
    herd.all_right(b"the index", timeout=SOON)


def test_negotiated_page(server, path):
    page = path("page", "local/negotiated")
    for lang in ("de", "fr"):
        server.file(f"{page}.html.{lang}", lang)
    herd = Herd(server)
    for _ in range(8):
        for lang in ("de", "fr"):
            herd.send(page, 1, [("Accept-Language", lang)])
    for one in herd.end(SOON):
        assert one.is_whole and one.res.status == 200, one.res
        assert one.res.text.decode() == dict(one.headers)["Accept-Language"]


# ---- a server that asks itself -----------------------------------------------

# Connections that are kept would each hold a worker.
HOPS = """
ProxyPreserveHost on
ProxyPass "/hop3/" "http://127.0.0.1:@PORT@/hop2/" retry=0 disablereuse=on
ProxyPass "/hop2/" "http://127.0.0.1:@PORT@/hop1/" retry=0 disablereuse=on
ProxyPass "/hop1/" "http://127.0.0.1:@PORT@/plain/" retry=0 disablereuse=on
ProxyPass "/other/" "http://127.0.0.1:@PORT2@/plain/" retry=0 disablereuse=on
"""
BACK = 'ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0'


def hops(make, quick="on", other="", children=1, threads=8):
    return start(make, children, threads, quick=quick, more=HOSTS,
                 first=f"CachemwStore second {store(WAIT)}\n{HOPS}",
                 OTHER=f"{other}\n{BACK}")


def few(make, quick, other=""):
    """8 threads, or 4 processes"""
    return hops(make, quick, other,
                threads=4 if settings.mpm == "prefork" else 8)


def hop(page, number, name="hop"):
    return page.replace("/plain/", f"/{name}{number}/", 1)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_chain_of_proxies_with_few_threads(module_httpd, origin, path, quick,
                                           number):
    """As many as a server without a cache would get through, too."""
    server, page = few(module_httpd, quick), path()
    body = noise(20000)
    origin.on(page, slow(body, 0.3))
    count = (4 if settings.mpm == "prefork" else 8) - number - 1
    if number > 1:
        count = min(count, 1 if settings.mpm == "prefork" else 3)
    herd = meet(server, hop(page, number), max(count, 1))
    herd.all_right(body, timeout=SOON)
    assert server.get(hop(page, number)).cache == "HIT"


@pytest.mark.parametrize("other", ["", "CachemwProvider second"],
                         ids=["one-store", "two-stores"])
def test_page_by_two_paths_with_few_threads(module_httpd, origin, path, quick,
                                            other):
    server = few(module_httpd, quick, other)
    for turn in range(3):
        page, body = path(f"p{turn}"), noise(20000, turn)
        origin.on(page, slow(body))
        herd = Herd(server)
        if settings.mpm == "prefork":
            herd.send(hop(page, "", "other"))
            herd.send(page)
        else:
            for _ in range(2):
                herd.send(hop(page, 1))
                herd.send(hop(page, "", "other"))
                herd.send(page)
        herd.all_right(body, timeout=SOON)
        assert server.get(hop(page, "", "other")).cache == "HIT"


def test_herds_on_every_hop(module_httpd, origin, path, quick):
    server, page = hops(module_httpd, quick, threads=120), path()
    body = noise(20000)
    origin.on(page, slow(body))
    herd = Herd(server)
    for _ in range(6):
        for target in (hop(page, 3), page, hop(page, 2), hop(page, 1),
                       hop(page, "", "other")):
            herd.send(target)
    herd.all_right(body, timeout=SOON)
    assert origin.count(page) <= 6


def test_own_request_that_comes_back_does_not_wait(module_httpd, origin,
                                                   path):
    """while another one's fetch takes long"""
    server = hops(module_httpd, threads=120)
    page, gate = path(), Gate()
    turns = iter([gate])
    origin.on(page, lambda req: cacheable(b"x", gate=next(turns, None)))
    first = meet(server, page, 1)
    gate.wait_reached()
    meet(server, hop(page, 3), 4).all_right(b"x", timeout=SOON)
    assert origin.count(page) == 2
    gate.open()
    first.all_right(b"x", timeout=SOON)


# ---- the field that tells ----------------------------------------------------

MEMBER = "cachemw-[0-9a-f]{16}"


@pytest.mark.parametrize("sent, seen", [
    ([], MEMBER),
    (["foo.example; a=\"b\""], f"foo.example; a=\"b\", {MEMBER}"),
    (["one", "two, three"], f"one, two, three, {MEMBER}")])
def test_origin_sees_who_asks(server, origin, path, sent, seen):
    page = path()
    origin.page(page, b"x")
    res = server.get(page, [("CDN-Loop", x) for x in sent])
    assert res.get("CDN-Loop") is None
    assert re.fullmatch(seen, origin.last(page).get("CDN-Loop"))


def test_origin_behind_three_hops_sees_one_member(module_httpd, origin, path,
                                                  quick):
    server, page = hops(module_httpd, quick, threads=120), path()
    origin.page(page, b"x")
    res = server.get(hop(page, 3), [("CDN-Loop", "foo.example")])
    assert (res.status, res.get("CDN-Loop")) == (200, None)
    assert re.fullmatch(f"foo.example, {MEMBER}",
                        origin.last(page).get("CDN-Loop"))


@pytest.mark.parametrize("field", ["foo.example", "cachemw-0123456789abcdef"])
def test_field_of_somebody_else_changes_nothing(server, origin, path, field):
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 8, [("CDN-Loop", field)])
    herd.wait_busy()
    asked(origin, page, 1)
    assert origin.count(page) == 1
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    assert origin.count(page) == 1


def test_own_field_from_a_client_only_asks_the_origin(server, origin, path):
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    first = meet(server, page, 1)
    asked(origin, page, 1)
    field = [("CDN-Loop", origin.last(page).get("CDN-Loop"))]
    others = meet(server, page, 4, field)
    asked(origin, page, 5)
    gate.open()
    first.all_right(b"x", timeout=SOON)
    others.all_right(b"x", timeout=SOON)
    assert server.get(page, field).cache == "HIT"


@pytest.mark.parametrize("number", ["", 1, 2])
def test_page_that_varies_on_the_field(module_httpd, origin, path, quick,
                                       number):
    """Nobody gets a page that was made for another field."""
    server, page = hops(module_httpd, quick, threads=120), path()
    origin.on(page, lambda req: cacheable(
        req.get("CDN-Loop", "").encode(), headers=[("Vary", "CDN-Loop")]))
    target = hop(page, number) if number else page
    for _ in range(2):
        herd = Herd(server)
        for _ in range(4):
            herd.send(target)
            herd.send(target, 1, [("CDN-Loop", "foo.example")])
        for one in herd.end(SOON):
            wanted = "foo.example" if len(one.headers) > 1 else ""
            assert one.is_whole and one.res.status == 200, one.res
            assert re.fullmatch(f"{wanted}(, )?({MEMBER})?",
                                one.res.body.decode())


@pytest.mark.parametrize("number", ["", 1, 3])
def test_page_that_varies_on_another_field(module_httpd, origin, path, quick,
                                           number):
    server, page = hops(module_httpd, quick, threads=120), path()
    origin.on(page, lambda req: cacheable(
        req.get("Accept-Language").encode(),
        headers=[("Vary", "Accept-Language")]))
    target = hop(page, number) if number else page
    for wanted in ("MISS", "HIT"):
        for lang in ("de", "fr"):
            res = server.get(target, [("Accept-Language", lang)])
            assert (res.cache, res.body) == (wanted, lang.encode())
    assert origin.count(page) == 2


# ---- one connection ----------------------------------------------------------

KINDS = {
    "stored": {},
    "no-store": {"headers": [("Cache-Control", "no-store")]},
    "stale": {"age": 0, "etag": '"v1"'},
    "404": {"status": 404},
    "302": {"status": 302, "age": 0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 100, 300000])
def test_requests_in_a_row_on_one_connection(server, origin, path, kind, size):
    """Sent at once; the first answer may not be read before the second
    request is taken up."""
    page, body = path(), noise(size)
    origin.page(page, body, **KINDS[kind])
    began = time.monotonic()
    with server.connect() as conn:
        for _ in range(5):
            conn.send("GET", page)
        for _ in range(5):
            res = conn.response()
            assert res.complete and res.body == body
        assert conn.get(page).body == body
    assert time.monotonic() - began < SOON


def test_herd_of_connections_with_requests_in_a_row(server, origin, path):
    page, body = path(), noise(5000)
    origin.on(page, slow(body))
    conns = [server.connect() for _ in range(10)]
    began = time.monotonic()
    for conn in conns:
        for _ in range(3):
            conn.send("GET", page)
    for conn in conns:
        for _ in range(3):
            res = conn.response()
            assert res.complete and res.body == body
        conn.close()
    assert time.monotonic() - began < SOON
    assert origin.count(page) == 1
