# SPDX-License-Identifier: Apache-2.0
"""A store that fails in any way costs a miss and a line in the log: visitors
get right and whole pages, or where a body fails half-way a visible cut.

The table is generated: slot x fault x sequence.  The normal run takes a spread
of it, the marked part all of it."""

import hashlib
import itertools
import os
import tempfile
import time

import pytest

from conftest import SITE
from harness import Reply, configtest
from harness.faults import MODULES, PIECES, STORES, faults, write
from harness.origin import cacheable
from harness.server import wait_for
from test_basic import noise

pytestmark = [pytest.mark.errors]

ANY = ["error", "error=ENOMEM", "error=EROFS", "enospc", "notfound",
       "timeout=15", "delay=15"]

# slot: faults that make sense there beside ANY
SLOTS = {
    "get": ["damaged", "damaged head", "truncated head", "truncated body",
            "truncated piece", "otherkey", "otherkey *other*",
            "error=EINCOMPLETE"],
    "read": ["damaged", "truncated", "error=EINCOMPLETE", "error=EOF"],
    "set": ["damaged"],
    "set_begin": ["damaged"],
    "set_write": [],
    "set_commit": [],
    "set_head": ["damaged"],
    "remove": [],
    "exists": [],
    "keys": [],
    "clear": [],
    "sweep": [],
    "stats": [],
}


# ---- pages that tell what they are -------------------------------------------

class Page:
    """A page whose every version carries the sum of its body and its own
    address, so that no mixture passes for right."""

    def __init__(self, origin, target, size, vary=None):
        self.origin, self.target, self.size = origin, target, size
        self.vary, self.version, self.bodies = vary, 0, set()
        self.age, self.extra = 60, {}
        origin.on(target, self.answer)
        self.change()

    def change(self):
        self.version += 1

    def answer(self, req):
        if req.method not in ("GET", "HEAD"):
            return Reply(b"saved")
        if self.extra.get("reply"):
            return self.extra["reply"]
        lang = req.get("X-Lang") or "-"
        body = noise(self.size, f"{self.target} {self.version} {lang}")
        self.bodies.add(body)
        headers = [("X-Sum", hashlib.sha1(body).hexdigest()),
                   ("X-Target", self.target), ("X-For", lang),
                   ("Content-Type", "text/x-odd")]
        if self.vary:
            headers.append(("Vary", self.vary))
        return cacheable(body, self.age, headers=headers,
                         etag=f'"{self.version}-{lang}"')

    def check(self, res, lang="-", may_cut=False, current=False):
        if not res.complete:
            assert may_cut, f"cut: {res}"
            return
        if res.status in (206, 304):
            return
        assert res.status == 200, res
        assert hashlib.sha1(res.body).hexdigest() == res.get("X-Sum"), res
        assert res.get("X-Target") == self.target, res
        assert res.get("X-For") == lang, res
        assert res.get("Content-Type") == "text/x-odd", res
        assert res.get("Content-Length") in (None, str(len(res.body)))
        if current:
            assert res.body == noise(
                self.size, f"{self.target} {self.version} {lang}"), "old page"


def visit(server, page, headers=(), lang=None, **check):
    ask = list(headers) + ([("X-Lang", lang)] if lang else [])
    with server.connect() as conn:
        res = conn.get(page.target, ask + [("Connection", "close")])
        page.check(res, lang or "-", **check)
        conn.is_closed()
    return res


# ---- sequences ---------------------------------------------------------------
# Each: a generator that prepares, yields (the fault begins), and goes on.

def seq_miss(server, page, cut):
    yield
    for _ in range(3):
        visit(server, page, may_cut=cut, current=True)


def seq_hit(server, page, cut):
    visit(server, page)
    yield
    for _ in range(3):
        visit(server, page, may_cut=cut, current=True)


def seq_revalidate(server, page, cut):
    page.age = 0
    visit(server, page)
    yield
    for _ in range(3):
        visit(server, page, may_cut=cut, current=True)


def seq_replace(server, page, cut):
    page.age = 0
    visit(server, page)
    yield
    for _ in range(2):
        page.change()
        visit(server, page, may_cut=cut, current=True)
        visit(server, page, may_cut=cut, current=True)


def seq_head(server, page, cut):
    visit(server, page)
    yield
    for _ in range(2):
        res = server.ask("HEAD", page.target)
        assert (res.status, res.complete, res.body) == (200, True, b"")
        assert res.get("X-Target") == page.target
        assert res.get("Content-Length") in (None, str(page.size))


def seq_condition(server, page, cut):
    visit(server, page)
    yield
    for etag in ('"1--"', '"other"', '"1--"'):
        res = visit(server, page, [("If-None-Match", etag)], may_cut=cut)
        assert res.status in (200, 304) or not res.complete
        assert etag == '"1--"' or res.status != 304


def seq_range(server, page, cut):
    visit(server, page)
    whole = noise(page.size, f"{page.target} {page.version} -")
    yield
    for _ in range(2):
        res = visit(server, page, [("Range", "bytes=10-29")], may_cut=cut)
        if res.status == 206 and res.complete:
            assert res.body == whole[10:30]


def seq_vary(server, page, cut):
    visit(server, page, lang="de")
    yield
    for lang in ("de", "fr", "de", "el", "fr"):
        visit(server, page, lang=lang, may_cut=cut, current=True)


def seq_invalidate(server, page, cut):
    for lang in (None, "de"):
        visit(server, page, lang=lang)
    yield
    assert server.ask("POST", page.target, body=b"x").body == b"saved"
    page.change()
    for lang in (None, "de"):
        visit(server, page, lang=lang, may_cut=cut)


def seq_stale(server, page, cut):
    page.age = 0
    visit(server, page)
    page.extra["reply"] = Reply(b"sorry", status=503)
    yield
    for _ in range(2):
        with server.connect() as conn:
            res = conn.get(page.target)
            if (res.status, res.body) != (503, b"sorry"):
                page.check(res, may_cut=cut)
    page.extra.clear()


def seq_forbidden(server, page, cut):
    page.age = 0
    visit(server, page)
    page.extra["reply"] = Reply(b"private", [("Cache-Control", "no-store")])
    yield
    for _ in range(2):
        assert server.get(page.target).body == b"private"
    page.extra.clear()


SEQUENCES = {f.__name__[4:]: f for f in (
    seq_miss, seq_hit, seq_revalidate, seq_replace, seq_head, seq_condition,
    seq_range, seq_vary, seq_invalidate, seq_stale, seq_forbidden)}

TABLE = [(slot, fault, sequence)
         for slot, more in SLOTS.items() for fault in ANY + more
         for sequence in SEQUENCES]
NEVER_BY_REQUESTS = ("exists", "keys", "clear", "sweep", "stats")


def spread(table):
    """For every slot and fault three sequences, and for every slot and
    sequence some faults; those that no request calls once."""
    chosen = []
    for number, (slot, fault, sequence) in enumerate(table):
        at = list(SEQUENCES).index(sequence)
        if slot in NEVER_BY_REQUESTS:
            wanted = sequence == "hit"
        else:
            wanted = at % 4 == (number // len(SEQUENCES)) % 4
        if wanted:
            chosen.append((slot, fault, sequence))
    return chosen


def name_of(row):
    return "-".join(row).replace(" ", "_")


# ---- the table ---------------------------------------------------------------

def run(server, origin, path, slot, fault, sequence, size, pieces):
    varies = sequence in ("vary", "invalidate")
    page = Page(origin, path(), size, "X-Lang" if varies else None)
    other = Page(origin, path("other"), size // 2)
    visit(server, other)
    always = [PIECES] if pieces else []
    # the way in which the store works between faults
    write(server, *always)
    may_cut = (slot, fault) in (("get", "truncated body"),) or slot == "read"
    steps = SEQUENCES[sequence](server, page, may_cut)
    next(steps)
    with faults(server, f"{slot} {fault}", *always, after=always):
        for _ in steps:
            pass
        if slot == "stats":
            assert server.get("/server-status?auto").status == 200
        visit(server, other, may_cut=may_cut)
    write(server)
    # afterwards all is well again
    for _ in range(2):
        visit(server, page, current=sequence != "invalidate")
        res = visit(server, other, current=True)
    assert res.cache == "HIT"
    res = visit(server, page, current=sequence != "invalidate")
    assert res.cache in (("REVALIDATE", "HIT", "MISS") if page.age == 0
                         else ("HIT",)), res
    # and a new page is cached as ever
    fresh = Page(origin, path("fresh"), size)
    visit(server, fresh)
    assert visit(server, fresh).cache == "HIT"


@pytest.fixture
def server(module_httpd, quick):
    one = module_httpd(SITE, {"QUICK": quick, "PROVIDER": STORES,
                              "KIND": "faulty", "OPTIONS": ""}, extra=MODULES)
    yield one
    write(one)


ROWS = spread(TABLE)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_fault_costs_no_more_than_a_miss(module_httpd, origin, path, row):
    number = ROWS.index(row)
    server = module_httpd(SITE, {
        "QUICK": "on" if number % 2 else "off", "PROVIDER": STORES,
        "KIND": "faulty", "OPTIONS": ""}, extra=MODULES)
    try:
        run(server, origin, path, *row, size=3000 if number % 3 else 150000,
            pieces=row[0] == "read" or number % 5 == 0)
    finally:
        write(server)


@pytest.mark.long
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "pieces"])
@pytest.mark.parametrize("size", [3000, 150000])
@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_every_fault_costs_no_more_than_a_miss(server, origin, path, row,
                                               size, pieces):
    run(server, origin, path, *row, size=size, pieces=pieces)


# ---- particular promises -----------------------------------------------------

def test_change_that_cannot_be_kept_is_not_forgotten(server, origin, path):
    """The store fails while a form is sent: whoever comes later must not get
    the old page as if nothing had happened."""
    for n, lines in enumerate((["set_head error"], ["get error"],
                               ["set error"], ["get damaged"])):
        page = Page(origin, path(f"p{n}"), 3000)
        visit(server, page)
        with faults(server, *lines):
            server.ask("POST", page.target, body=b"x")
            page.change()
        res = visit(server, page)
        assert res.cache != "HIT", lines
        visit(server, page, current=True)


def test_store_that_is_gone_for_good(server, origin, path):
    """All slots fail at once, with many visitors, and the log stays small."""
    pages = [Page(origin, path(f"p{i}"), 5000) for i in range(20)]
    server.new_log()
    with faults(server, *[f"{slot} error" for slot in SLOTS]):
        for _ in range(5):
            for page in pages:
                res = visit(server, page, current=True)
                assert res.cache in ("MISS", None)
        said = [x for x in server.new_log().splitlines() if "cachemw[" in x]
    assert len(said) < 25, "\n".join(said)
    for page in pages:
        visit(server, page, current=True)
        assert visit(server, page).cache == "HIT"


def test_first_failure_is_told_with_store_slot_and_reason(httpd, origin,
                                                          path):
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": STORES,
                          "KIND": "faulty", "OPTIONS": ""}, extra=MODULES)
    page = Page(origin, path(), 3000)
    with faults(server, "get error=EROFS"):
        visit(server, page)
    said = [x for x in server.log().splitlines() if "cachemw[tested]" in x
            and ": get" in x]
    assert len(said) == 1, server.log()
    assert "Read-only file system" in said[0]
    assert page.target not in said[0], "whole keys do not belong in the log"


def test_failures_are_counted_by_kind(httpd, origin, path):
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": STORES,
                          "KIND": "faulty", "OPTIONS": ""}, extra=MODULES)

    def figures():
        text = server.get("/server-status?auto").body.decode()
        return {k.split("CachemwStore-tested-")[1]: v for k, v in (
            x.split(": ", 1) for x in text.splitlines()
            if x.startswith("CachemwStore-tested-"))}

    for number, (lines, key) in enumerate((
            ("get error", "GetErrors"), ("set_begin error", "SetErrors"),
            ("set_commit error", "SetErrors"),
            ("get timeout=10", "Timeouts"), ("get damaged", "Damaged"),
            ("set_begin enospc", "NoSpace"))):
        page = Page(origin, path(f"p{number}"), 3000)
        if "damaged" in lines:
            visit(server, page)
        before = int(figures()[key])
        with faults(server, lines + " count=1"):
            visit(server, page, current=True)
        assert int(figures()[key]) == before + 1, lines


# ---- stores on other machines ------------------------------------------------

@pytest.fixture
def remote(httpd, quick):
    return httpd(SITE, {"QUICK": quick, "PROVIDER": STORES,
                        "KIND": "faulty_remote",
                        "OPTIONS": "timeout=700ms store_timeout=500ms"},
                 extra=MODULES)


def timed(do):
    begin = time.monotonic()
    result = do()
    return result, time.monotonic() - begin


def figure(server, name):
    text = server.get("/server-status?auto").body.decode()
    return text.split(f"CachemwStore-tested-{name}: ")[1].splitlines()[0]


def state(server):
    return figure(server, "State")


def test_slow_store_delays_nobody_beyond_its_timeout(remote, origin, path):
    page = Page(origin, path(), 3000)
    visit(remote, page)
    with faults(remote, "get timeout", "set_begin timeout"):
        for _ in range(2):
            res, seconds = timed(lambda: visit(remote, page, current=True))
            assert res.cache != "HIT"
            assert seconds < 5, f"{seconds:.3f} s"


def test_store_that_is_down_is_left_alone_and_taken_back(remote, origin,
                                                         path):
    page = Page(origin, path(), 3000)
    visit(remote, page)
    assert visit(remote, page).cache == "HIT"
    assert state(remote) == "on"
    with faults(remote, *[f"{slot} timeout" for slot in SLOTS
                          if slot not in ("sweep", "stats")]):
        for _ in range(5):
            visit(remote, page, current=True)
        assert "open" in state(remote)
        # one visitor a second may try, the others do not wait
        before = int(figure(remote, "Timeouts"))
        seconds = timed(lambda: [visit(remote, page, current=True)
                                 for _ in range(30)])[1]
        assert int(figure(remote, "Timeouts")) - before <= seconds + 1
    wait_for(lambda: visit(remote, page, current=True).cache == "HIT",
             "the store to be used again", 15)
    assert state(remote) == "on"
    assert visit(remote, page).cache == "HIT"


def test_misses_are_no_failures(remote, origin, path):
    for number in range(12):
        page = Page(origin, path(f"p{number}"), 300)
        with faults(remote, "get notfound"):
            visit(remote, page)
    assert state(remote) == "on"


def test_store_that_is_full_is_not_down(remote, origin, path):
    page = Page(origin, path("kept"), 300)
    visit(remote, page)
    with faults(remote, "set enospc", "set_begin enospc"):
        for number in range(12):
            visit(remote, Page(origin, path(f"p{number}"), 300))
        assert state(remote) == "on"
        assert visit(remote, page).cache == "HIT"


@pytest.mark.parametrize("slot", ["post_config", "child_init", "open"])
def test_store_that_cannot_begin(httpd, origin, path, slot):
    """The site is served without it, or the mistake is named at the start."""
    page = Page(origin, path(), 3000)
    conf = STORES.replace("faults=@DIR@/faults", "faults=@FAULTS@")
    handle, name = tempfile.mkstemp(prefix="cachemw-faults-")
    try:
        os.write(handle, f"{slot} error=EACCES\n".encode())
        os.fchmod(handle, 0o644)
        os.close(handle)
        more = dict(names={"QUICK": "on", "PROVIDER": conf, "KIND": "faulty",
                           "OPTIONS": "", "FAULTS": name}, extra=MODULES)
        if slot == "open":
            rc, said = configtest(SITE, names={**more["names"], "ORIGIN": 1,
                                               "FLAKY": 2}, extra=MODULES)
            assert rc != 0 and "CachemwStore tested" in said
            return
        server = httpd(SITE, **more)
        for _ in range(3):
            res = visit(server, page, current=True)
            assert res.cache != "HIT"
        said = [x for x in server.log().splitlines() if "cachemw[tested]" in x]
        assert said and "denied" in "\n".join(said), server.log()
    finally:
        os.unlink(name)


@pytest.mark.parametrize("other,shared", [("@DIR@/faults", True),
                                          ("@DIR@/x/../faults", True),
                                          ("@DIR@/others", False)])
def test_stores_do_not_share_a_path(other, shared):
    rc, said = configtest(
        "ServerName x\nListen 127.0.0.1:@PORT@\nCacheEnable cachemw /\n"
        "CachemwStore inner memory\n"
        'CachemwStore one faulty inner=inner "faults=@DIR@/faults"\n'
        f'CachemwStore two faulty inner=inner "faults={other}"\n',
        extra=MODULES)
    assert (rc != 0) == shared, said
    assert ("the same path is used by the store on line" in said) == shared


def test_the_table_covers_what_it_must():
    for kind in ("error", "timeout", "delay", "damaged", "truncated",
                 "otherkey"):
        assert any(kind in fault for _, fault, _ in TABLE)
        assert any(kind in fault for _, fault, _ in ROWS)
    for sequence in ("miss", "hit", "revalidate", "invalidate", "vary"):
        assert any(x == sequence for _, _, x in ROWS)
    assert {x[0] for x in ROWS} == set(SLOTS)
    assert len(set(TABLE)) == len(TABLE) > len(ROWS)
    assert set(itertools.chain(*SLOTS.values())) <= {x[1] for x in ROWS}
