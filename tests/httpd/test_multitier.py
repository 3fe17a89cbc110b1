# SPDX-License-Identifier: Apache-2.0
"""Stores in front of stores: what a near one does not have comes from the one
behind and is near from then on; whichever of them fails costs nothing but
time."""

import itertools
import re

import pytest

from conftest import SITE
from harness import settings
from harness.faults import MODULES, PIECES, faults, write
from harness.server import wait_for
from test_api_memory import MB, taken
from test_faulty import ROWS, SLOTS, TABLE, Page, name_of, run, visit
from test_status import figures

pytestmark = [pytest.mark.errors]

TIERS = """
CachemwStore l1 @L1@
CachemwStore l2 @L2@
CachemwStore tiers multitier l1=l1 l2=l2 @OPTIONS@
CachemwProvider tiers
CacheEnable cachemw /
"""
FILES = "file cache_dir=@DIR@/cache/files max_bytes=64M"
FAULTY = "faulty inner=inside faults=@DIR@/faults\nCachemwStore inside "


def start(httpd, l1="memory", l2=FILES, options="", quick="on", conf=SITE):
    return httpd(conf, {"QUICK": quick, "PROVIDER": TIERS, "L1": l1, "L2": l2,
                        "OPTIONS": options}, extra=MODULES)


def restart(server):
    """files stay, memory does not"""
    server.stop()
    server.start()


def number(server, key, store="tiers"):
    return int(figures(server, store)[key])


def answered(server):
    return [int(v) for k, v in sorted(figures(server, "tiers").items())
            if re.fullmatch(r"AnsweredByL\d", k)]


def lasting(origin, target, size, vary=None):
    page = Page(origin, target, size, vary)
    page.age = 3600
    return page


# ---- which tier answers ------------------------------------------------------

@pytest.mark.mpm
def test_far_hit_is_near_from_then_on(httpd, origin, path, quick):
    server = start(httpd, quick=quick)
    pages = [lasting(origin, path(f"p{size}"), size)
             for size in (0, 1, 1000, 60000, 100000)]
    for page in pages:
        visit(server, page)
    restart(server)
    for n, page in enumerate(pages):
        assert visit(server, page, current=True).cache == "HIT"
        assert answered(server) == [n, n + 1]
        wait_for(lambda: number(server, "Filled") == n + 1, "the near tier")
        assert visit(server, page, current=True).cache == "HIT"
        assert answered(server) == [n + 1, n + 1]
    assert number(server, "Hits") == 2 * len(pages)
    assert number(server, "Hits", "l1") == len(pages)
    # a file that the kernel sends is read once more for the near tier
    assert number(server, "Hits", "l2") == len(pages) + 1
    for page in pages:
        assert origin.count(page.target) == 1


def test_page_that_varies_comes_near(httpd, origin, path, quick):
    server = start(httpd, quick=quick)
    page = lasting(origin, path(), 3000, "X-Lang")
    for lang in ("de", "fr"):
        visit(server, page, lang=lang)
    restart(server)
    for lang in ("de", "fr"):
        assert visit(server, page, lang=lang, current=True).cache == "HIT"
    # the record and two variants
    wait_for(lambda: number(server, "Filled") == 3, "the near tier")
    assert answered(server)[1] == 3
    for lang in ("de", "fr"):
        assert visit(server, page, lang=lang, current=True).cache == "HIT"
    assert answered(server)[1] == 3


def test_conditional_requests_bring_a_page_near(httpd, origin, path, quick):
    server = start(httpd, quick=quick)
    page = lasting(origin, path(), 3000)
    visit(server, page)
    restart(server)
    ask = [("If-None-Match", '"1--"')]
    assert visit(server, page, ask).status == 304
    wait_for(lambda: number(server, "Filled") == 1, "the near tier")
    before = answered(server)[1]
    assert visit(server, page, ask).status == 304
    assert visit(server, page, current=True).cache == "HIT"
    assert answered(server)[1] == before


@pytest.mark.mpm
def test_long_body_comes_near_while_it_is_sent(httpd, origin, path, quick):
    server = start(httpd, "faulty inner=near faults=@DIR@/near\n"
                          "CachemwStore near memory", FAULTY + "memory",
                   quick=quick)
    page = lasting(origin, path(), 3000000)
    write(server, PIECES)
    (server.dir / "near").write_text("set_begin error\n")
    visit(server, page)
    (server.dir / "near").unlink()
    assert visit(server, page, current=True).cache == "HIT"
    assert answered(server) == [0, 1]
    wait_for(lambda: number(server, "Filled") == 1, "the near tier")
    with faults(server, "get error", "read error", after=[PIECES]):
        assert visit(server, page, current=True).cache == "HIT"
    assert answered(server) == [1, 1]


ONE_CHILD = """
ServerLimit 1
StartServers 1
MaxRequestWorkers 12
"""


@pytest.mark.skipif(settings.mpm == "prefork", reason="a child must do it all")
def test_long_body_is_not_in_memory_for_that(httpd, origin, path):
    """What the child maps of the far tier it has read before."""
    server = start(httpd, "faulty inner=near faults=@DIR@/near\n"
                          "CachemwStore near " + FILES,
                   FAULTY + "memory size=64M max_object_size=16M",
                   conf=ONE_CHILD + SITE)
    page = lasting(origin, path(), 16 * MB)

    def fill():
        assert visit(server, page, current=True).cache == "HIT"
        wait_for(lambda: number(server, "Filled") == 1, "the near tier")

    write(server, PIECES)
    (server.dir / "near").write_text("set_begin error\n")
    visit(server, page)
    for _ in range(2):
        assert visit(server, page, current=True).cache == "HIT"
    assert answered(server) == [0, 2]
    (server.dir / "near").unlink()
    assert taken(server, fill) < 4 * MB
    assert answered(server) == [0, 3]
    assert visit(server, page, current=True).cache == "HIT"
    assert answered(server) == [1, 3]


@pytest.mark.parametrize("trouble", ["EAGAIN", "ECONNREFUSED"])
def test_page_that_cannot_be_asked_for_is_removed(httpd, origin, path, quick,
                                                  trouble):
    """A form changes a page which only the far tier has, all of whose
    connections are in use at that moment."""
    server = start(httpd, "memory max_object_size=1000",
                   "faulty_remote inner=inside faults=@DIR@/faults\n"
                   "CachemwStore inside memory", quick=quick)
    page = lasting(origin, path(), 3000)
    visit(server, page)
    assert visit(server, page, current=True).cache == "HIT"
    with faults(server, f"get error={trouble}"):
        server.ask("POST", page.target, body=b"x")
    page.change()
    assert visit(server, page, current=True).cache != "HIT"
    assert visit(server, page, current=True).cache == "HIT"


def test_page_changed_by_a_form_is_not_shown_again(httpd, origin, path, quick):
    """The old one is in the far tier only, then in both."""
    server = start(httpd, quick=quick)
    page = lasting(origin, path(), 3000)
    for _ in range(2):
        visit(server, page)
        restart(server)
        server.ask("POST", page.target, body=b"x")
        page.change()
        assert visit(server, page, current=True).cache != "HIT"
        assert visit(server, page, current=True).cache == "HIT"
        server.ask("POST", page.target, body=b"x")
        page.change()
        assert visit(server, page, current=True).cache != "HIT"
        restart(server)
        assert visit(server, page, current=True).cache == "HIT"


def test_revalidated_page_is_fresh_in_both_tiers(httpd, origin, path, quick):
    server = start(httpd, quick=quick)
    page = Page(origin, path(), 3000)
    page.age = 0
    visit(server, page)
    page.age = 3600
    assert visit(server, page, current=True).cache == "REVALIDATE"
    assert visit(server, page, current=True).cache == "HIT"
    restart(server)
    assert visit(server, page, current=True).cache == "HIT"
    assert answered(server) == [0, 1]


SHARED = """
CacheKeyBaseURL http://shared.test/
ServerName shared.test:80
Listen 127.0.0.1:@PORT@
Listen 127.0.0.1:@PORT2@
CacheQuickHandler on
CacheHeader on
CachemwNamespace pages
CachemwStore l1 memory
CachemwStore l2 file cache_dir=@DIR@/cache/files
CachemwStore tiers multitier l1=l1 l2=l2
CachemwProvider tiers
CacheEnable cachemw /
CacheDisable /server-status
<Location "/server-status">
    SetHandler server-status
</Location>
ExtendedStatus on
ProxyPass "/server-status" "!"
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/"
<VirtualHost 127.0.0.1:@PORT2@>
    ServerName shared.test:80
    CachemwNamespace pages
    CachemwProvider @DIRECT@
    CacheEnable cachemw /
    ProxyPass "/" "http://127.0.0.1:@ORIGIN@/"
</VirtualHost>
"""


@pytest.mark.parametrize("direct", ["l1", "l2"])
def test_tier_is_a_store_of_its_own_as_well(httpd, origin, path, direct):
    """Two virtual hosts that say they share: one uses the tiers, the other
    one of them."""
    server = httpd(SHARED, {"DIRECT": direct}, extra=["cachemw"])
    for size in (1000, 100000):
        first = lasting(origin, path(f"a{size}"), size)
        second = lasting(origin, path(f"b{size}"), size)
        assert server.get(first.target).cache == "MISS"
        res = server.get(first.target, port=1)
        assert res.cache == "HIT"
        first.check(res, current=True)
        assert server.get(second.target, port=1).cache == "MISS"
        for port in (0, 1):
            res = server.get(second.target, port=port)
            assert res.cache == "HIT"
            second.check(res, current=True)
    for store in ("tiers", "l1", "l2"):
        assert number(server, "Damaged", store) == 0


# ---- tiers that fail ---------------------------------------------------------

PLACES = {
    "near": """
CachemwStore inside memory
CachemwStore tested faulty inner=inside faults=@DIR@/faults
CachemwStore other memory
CachemwProvider multitier l1=tested l2=other
CacheEnable cachemw /
""",
    "far": """
CachemwStore inside memory
CachemwStore tested faulty inner=inside faults=@DIR@/faults
CachemwStore other memory size=1M shards=1
CachemwProvider multitier l1=other l2=tested
CacheEnable cachemw /
""",
    "middle": """
CachemwStore inside memory
CachemwStore tested faulty_remote inner=inside faults=@DIR@/faults
CachemwStore before memory size=1M shards=1
CachemwStore behind memory
CachemwProvider multitier l1=before l2=tested l3=behind
CacheEnable cachemw /
""",
    "farthest": """
CachemwStore inside memory
CachemwStore tested faulty_remote inner=inside faults=@DIR@/faults
CachemwStore before memory size=1M shards=1
CachemwStore between memory
CachemwProvider multitier l1=before l2=between l3=tested
CacheEnable cachemw /
""",
}
FAULTS = [(row, place) for n, row in enumerate(ROWS)
          for m, place in enumerate(PLACES) if (n + m) % 3 == 0]


def tiers_with(httpd, place, quick):
    return httpd(SITE, {"QUICK": quick, "PROVIDER": PLACES[place]},
                 extra=MODULES)


def name_of_fault(value):
    return value if isinstance(value, str) else name_of(value)


@pytest.mark.parametrize("row,place", FAULTS, ids=name_of_fault)
def test_fault_of_a_tier_costs_no_more_than_a_miss(module_httpd, origin, path,
                                                   row, place):
    n = ROWS.index(row)
    server = tiers_with(module_httpd, place, "on" if n % 2 else "off")
    try:
        run(server, origin, path, *row, size=3000 if n % 3 else 150000,
            pieces=row[0] == "read" or n % 5 == 0)
    finally:
        write(server)


@pytest.mark.long
@pytest.mark.parametrize("size", [3000, 150000])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_every_fault_of_a_tier_costs_no_more_than_a_miss(
        module_httpd, quick, origin, path, row, place, size):
    server = tiers_with(module_httpd, place, quick)
    try:
        run(server, origin, path, *row, size=size, pieces=size > 3000)
    finally:
        write(server)


@pytest.mark.mpm
@pytest.mark.parametrize("place", PLACES)
def test_site_is_cached_while_a_tier_is_gone(httpd, origin, path, quick,
                                             place):
    server = tiers_with(httpd, place, quick)
    pages = [lasting(origin, path(f"p{n}"), 5000) for n in range(10)]
    for page in pages[:5]:
        visit(server, page)
    with faults(server, *[f"{slot} error" for slot in SLOTS]):
        for page in pages:
            visit(server, page, current=True)
            assert visit(server, page, current=True).cache == "HIT"
        server.ask("POST", pages[0].target, body=b"x")
        pages[0].change()
        assert visit(server, pages[0], current=True).cache != "HIT"
        assert visit(server, pages[0], current=True).cache == "HIT"
    for page in pages[1:]:
        assert visit(server, page, current=True).cache == "HIT"


def test_breaker_of_a_far_tier_leaves_the_near_one_alone(httpd, origin, path,
                                                         quick):
    server = start(httpd, l2="faulty_remote inner=inside faults=@DIR@/faults\n"
                             "CachemwStore inside memory", quick=quick)
    page = lasting(origin, path(), 3000)
    visit(server, page)
    with faults(server, *[f"{slot} error=ECONNREFUSED" for slot in SLOTS
                          if slot not in ("sweep", "stats")]):
        for n in range(10):
            visit(server, lasting(origin, path(f"p{n}"), 300), current=True)
        assert "open" in figures(server, "l2")["State"]
        assert figures(server, "tiers")["State"] == "on"
        before = number(server, "GetErrors", "l2")
        for _ in range(3):
            assert visit(server, page, current=True).cache == "HIT"
        assert number(server, "GetErrors", "l2") == before
        assert number(server, "GetErrors") == 0
    said = [x for x in server.log().splitlines() if "cachemw[tiers]" in x]
    assert not [x for x in said if "failed" in x], said

    def is_back():
        another = path(f"another{next(others)}")
        visit(server, lasting(origin, another, 300), current=True)
        return figures(server, "l2")["State"] == "on"

    others = itertools.count()
    wait_for(is_back, "the far tier to be used again", 60)


def test_slow_far_tier_has_its_timeout_alone(httpd, origin, path, quick):
    """Whoever asks for a page that is near does not wait for it."""
    server = start(httpd, l2="faulty_remote inner=inside faults=@DIR@/faults "
                             "timeout=60s store_timeout=60s\n"
                             "CachemwStore inside memory", quick=quick)
    page = lasting(origin, path(), 3000)
    visit(server, page)
    with faults(server, "get timeout=3600000", "read timeout=3600000"):
        for _ in range(5):
            assert visit(server, page, current=True).cache == "HIT"
