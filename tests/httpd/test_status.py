# SPDX-License-Identifier: Apache-2.0
"""What an administrator can see of the stores on mod_status' page."""

import html.parser
import re

import pytest

from conftest import SITE
from harness import Reply
from harness.origin import cacheable
from harness.server import wait_for
from test_basic import noise

STORES = """
CachemwStore pages memory size=8M max_variants=4 @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""


@pytest.fixture
def server(httpd, quick):
    return httpd(SITE, {"QUICK": quick, "PROVIDER": STORES, "OPTIONS": ""})


def figures(server, store="pages"):
    res = server.get("/server-status?auto")
    assert res.status == 200
    found = {}
    for line in res.body.decode().splitlines():
        m = re.fullmatch(rf"CachemwStore-{store}-([\w.%-]+): (.*)", line)
        if m:
            assert m[1] not in found, f"{m[1]} is there twice"
            found[m[1]] = m[2]
    return found


def counted(server, do):
    """By how much each figure changed while DO ran."""
    before = figures(server)
    do()
    after = figures(server)
    return {k: int(after[k]) - int(before.get(k, 0)) for k in after
            if re.fullmatch(r"-?\d+", after[k])
            and after[k] != before.get(k)}


def test_all_figures_are_there_before_the_first_visitor(server):
    found = figures(server)
    for name in ("Hits", "Misses", "Stale", "Revalidated", "Stores",
                 "Removes", "Invalidations", "Evictions", "Expired", "Bytes",
                 "BytesMax", "Entries", "GetErrors", "SetErrors",
                 "OtherErrors", "Timeouts", "Damaged", "BytesSent"):
        assert name in found, name
        if name != "BytesMax" and name != "Bytes":
            assert found[name] == "0", name
    assert found["Provider"] == "memory"
    assert found["State"] == "on"
    assert 0 < int(found["BytesMax"]) <= 8 << 20


def test_page_that_its_origin_cut_is_counted_once(server, origin, path):
    page = path()
    origin.on(page, cacheable(noise(300000), cut_after=100000))
    seen = counted(server, lambda: server.get(page))
    assert seen["Aborted"] == 1
    assert "Stores" not in seen and "NoSpace" not in seen


def test_miss_store_and_hits_are_counted(server, origin, path):
    page = path()
    origin.page(page, noise(5000))
    seen = counted(server, lambda: server.get(page))
    assert seen["Misses"] == 1 and seen["Stores"] == 1
    assert seen["Entries"] == 1 and "Hits" not in seen
    assert seen["Bytes"] >= 5000 and seen["BytesStored"] == 5000
    seen = counted(server, lambda: [server.get(page) for _ in range(5)])
    assert seen["Hits"] == 5
    assert seen["BytesSent"] == 25000
    assert "Misses" not in seen and "Stores" not in seen
    assert "Entries" not in seen


def test_requests_that_are_not_stored_are_counted_as_misses(server, origin,
                                                            path):
    page = path()
    origin.on(page, Reply(b"x", [("Cache-Control", "no-store")]))
    seen = counted(server, lambda: server.get(page))
    assert seen["Misses"] == 1
    assert "Stores" not in seen and "Entries" not in seen


def test_revalidation_is_counted(server, origin, path):
    page = path()
    origin.page(page, b"x", 0, etag='"v1"',
                headers_304=[("Cache-Control", "max-age=60")])
    server.get(page)
    seen = counted(server, lambda: server.get(page))
    assert seen["Revalidated"] == 1
    assert "Entries" not in seen and "Hits" not in seen


def test_change_is_counted(server, origin, path):
    page = path()
    origin.on(page, lambda req: Reply(b"saved") if req.method == "POST"
              else cacheable(b"x", etag='"v1"'))
    server.get(page)
    seen = counted(server, lambda: server.ask("POST", page, body=b"x"))
    assert seen["Invalidations"] == 1
    assert "Hits" not in seen


def test_evictions_are_counted_and_bytes_stay_within_the_maximum(
        server, origin, path):
    def fill():
        for i in range(60):
            page = path(f"p{i}")
            origin.page(page, noise(200000, i))
            server.get(page)

    seen = counted(server, fill)
    found = figures(server)
    assert seen["Evictions"] > 0
    assert seen["Stores"] == 60
    assert int(found["Bytes"]) <= int(found["BytesMax"]) <= 8 << 20
    assert int(found["Entries"]) == 60 - seen["Evictions"]


def test_body_too_large_for_the_store_is_counted(server, origin, path):
    page = path()
    origin.page(page, noise(4 << 20))
    seen = counted(server, lambda: server.get(page))
    assert "Stores" not in seen and "Entries" not in seen
    assert seen["Misses"] == 1


def test_origin_that_went_away_is_counted(server, origin, path):
    page = path()
    origin.page(page, noise(100000), cut_after=50000)
    seen = counted(server, lambda: server.get(page))
    assert "Stores" not in seen and "Entries" not in seen


def test_expired_pages_go_away_without_visitors(httpd, origin, path):
    server = httpd(SITE, {
        "QUICK": "on", "PROVIDER": STORES,
        "OPTIONS": "keep=1s cleanup_interval=1s"})
    for i in range(20):
        page = path(f"p{i}")
        origin.page(page, noise(1000, i), 0)
        server.get(page)
    assert int(figures(server)["Entries"]) >= 1
    wait_for(lambda: figures(server)["Entries"] == "0",
             "expired pages to be swept", 10)
    assert int(figures(server)["Expired"]) >= 20
    assert figures(server)["Misses"] == "20"


def test_counters_survive_a_graceful_restart(server, origin, path):
    page = path()
    origin.page(page, b"x")
    for _ in range(3):
        server.get(page)
    before = figures(server)
    server.graceful()
    after = figures(server)
    assert before["Hits"] == after["Hits"] == "2"
    assert before["Entries"] == after["Entries"]


class Text(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.heads, self.inside = [], [], None

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "h2", "h3"):
            self.inside = tag
            (self.cells if tag == "td" else self.heads).append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            (self.cells if self.inside == "td" else self.heads)[-1] += data


def test_page_for_people_shows_the_same(server, origin, path):
    page = path()
    origin.page(page, noise(5000))
    for _ in range(4):
        server.get(page)
    res = server.get("/server-status")
    assert res.status == 200 and res.complete
    text = Text()
    text.feed(res.body.decode())
    assert "pages" in text.heads
    cells = dict(zip(text.cells, text.cells[1:]))
    found = figures(server)
    for label, key in (("Hits", "Hits"), ("Misses", "Misses"),
                       ("Stored", "Stores"), ("Entries", "Entries"),
                       ("Expired", "Expired")):
        assert cells[label] == found[key], label
    assert cells["Hits"] == "3"


def test_every_store_has_its_figures(httpd, origin, path):
    conf = SITE + """
<VirtualHost *:@PORT2@>
    ServerName two.test
    CachemwProvider memory size=4M
    ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
</VirtualHost>
Listen 127.0.0.1:@PORT2@
"""
    server = httpd(conf, {"QUICK": "on", "PROVIDER": STORES, "OPTIONS": ""})
    page = path()
    origin.page(page, b"x")
    for _ in range(2):
        server.get(page)
        server.get(page, port=1)
    res = server.get("/server-status?auto").body.decode()
    hits = re.findall(r"^CachemwStore-(\S+)-Hits: (\d+)$", res, re.M)
    assert sorted(n for _, n in hits) == ["1", "1"]
    assert len({name for name, _ in hits}) == 2
    assert "pages" in {name for name, _ in hits}


def test_page_without_a_store_says_nothing(httpd):
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": ""})
    res = server.get("/server-status?auto")
    assert res.status == 200 and b"Cachemw" not in res.body
