# SPDX-License-Identifier: Apache-2.0
"""Stores on other machines: whatever the network does, visitors get right and
whole pages, nobody waits longer than the store's deadlines, and once the
breaker is open nobody waits at all.

One table, run with each backend: the test provider that claims to be remote,
and real ones behind a proxy that makes the trouble."""

import os
import re
import threading
import time

import pytest

from conftest import SITE, h2_modules
from harness import Herd, TcpProxy
from harness.faults import MODULES, PIECES, STORES, write
from harness.origin import Gate, cacheable
from harness.server import wait_for
from harness.strace import strace
from test_basic import noise
from test_faulty import Page, timed, visit

try:
    from harness.redis import Redis
except ImportError:
    Redis = None
try:
    from harness.service import BASE, Service
except ImportError:
    Service = None

pytestmark = [pytest.mark.errors]

TIMEOUT, STORE_TIMEOUT = 0.3, 0.1
OPTIONS = "timeout=300ms store_timeout=100ms"
# What a busy machine adds to the time of a request: to each, and to the
# quickest of some. Who waits for what has no end waits far longer.
MARGIN, LEAST = 3, 0.35


# ---- backends ----------------------------------------------------------------

class Faulty:
    """Each call of the store goes wrong by itself."""

    conf = STORES.replace("@KIND@", "faulty_remote")
    modules = MODULES
    names = {}
    troubles = {
        "refuses": "error=ECONNREFUSED",
        "resets": "error=ECONNRESET",
        "hangs": "timeout",
        "answers rubbish": "error=EGENERAL",
        "fails late": "timeout=250",
    }

    def __init__(self):
        self.always = []

    def attach(self, server):
        self.server = server

    def in_pieces(self):
        """From now on bodies come in pieces."""
        self.always = [PIECES]
        self.end()

    def begin(self, trouble):
        slots = ("get", "read", "set", "set_begin", "set_write", "set_commit",
                 "set_head", "remove", "exists")
        write(self.server, *[f"{x} {self.troubles[trouble]}" for x in slots],
              *self.always)

    def end(self):
        write(self.server, *self.always)

    def remove(self):
        pass


class BehindProxy:
    """A real one, with a network that makes the trouble."""

    files = 1       # descriptors of a connection
    troubles = {
        "refuses": ("refuse", {}),
        "resets": ("reset", {}),
        "resets half-way": ("reset", {"after": 3}),
        "ends half-way": ("cut", {"after": 3}),
        "hangs": ("hang", {}),
        "hangs half-way": ("hang", {"after": 3}),
        "drips": ("drip", {"every": 0.1}),
        "answers rubbish": ("rubbish", {}),
        "answers late": ("delay", {"seconds": 0.5}),
    }

    def __init__(self):
        self.peer = self.start_peer()
        self.proxy = TcpProxy(("127.0.0.1", self.peer.port))
        self.names = {"PROXY": self.proxy.port}

    def attach(self, server):
        self.server = server

    def in_pieces(self):
        """They do."""

    def begin(self, trouble):
        name, args = self.troubles[trouble]
        self.proxy.set(name, **args)

    def end(self):
        self.proxy.set("pass")

    def remove(self):
        self.proxy.stop()
        self.peer.remove()


class RedisBehindProxy(BehindProxy):
    conf = """
CachemwStore tested redis url=redis://127.0.0.1:@PROXY@ @OPTIONS@
CachemwProvider tested
CacheEnable cachemw /
"""
    modules = ["cachemw", "cachemw_redis"]

    def start_peer(self):
        return Redis().start()


class HttpBehindProxy(BehindProxy):
    conf = f"""
CachemwStore tested http base_url=http://127.0.0.1:@PROXY@{BASE} @OPTIONS@
CachemwProvider tested
CacheEnable cachemw /
"""
    modules = ["cachemw", "cachemw_http"]
    files = 3       # libcurl wakes itself by two

    def start_peer(self):
        return Service()


BACKENDS = {"faulty": Faulty}
if Redis is not None:
    BACKENDS["redis"] = RedisBehindProxy
if Service is not None:
    BACKENDS["http"] = HttpBehindProxy
# whose bodies come in pieces: the others have them before the first byte
IN_PIECES = [x for x in BACKENDS if x != "http"]

TABLE = [(name, trouble) for name, backend in BACKENDS.items()
         for trouble in backend.troubles]


@pytest.fixture
def start(httpd):
    """start(NAME of a backend): the backend, with a server on it"""
    made = []

    def make(name, quick="on", options=OPTIONS, conf=SITE):
        backend = BACKENDS[name]()
        made.append(backend)
        backend.attach(httpd(conf, {
            "QUICK": quick, "PROVIDER": backend.conf, "OPTIONS": options,
            **backend.names}, extra=backend.modules))
        return backend

    yield make
    for one in made:
        one.remove()


def figures(server):
    text = server.get("/server-status?auto").body.decode()
    return dict(re.findall(r"^CachemwStore-tested-([\w%-]+): (.*)$", text,
                           re.M))


def lines(server, text):
    return [x for x in server.log().splitlines() if text in x]


def failures(server):
    now = figures(server)
    return [int(now[x]) for x in ("GetErrors", "SetErrors", "OtherErrors",
                                  "Timeouts")]


# ---- the table ---------------------------------------------------------------

@pytest.mark.parametrize("name,trouble", TABLE,
                         ids=[f"{n}-{t}".replace(" ", "_") for n, t in TABLE])
def test_backend_in_trouble_costs_no_more_than_misses(start, quick, origin,
                                                      path, name, trouble):
    backend = start(name, quick)
    server = backend.server
    pages = [Page(origin, path(f"p{i}"), size)
             for i, size in enumerate((300, 3000, 200000))]
    for page in pages:
        visit(server, page)
        wait_for(lambda: visit(server, page).cache == "HIT", "a hit")
    backend.begin(trouble)
    # until the breaker opens
    waited = []
    while figures(server)["State"] == "on":
        assert len(waited) < 20, f"it never opens: {waited}"
        page = pages[len(waited) % len(pages)]
        res, seconds = timed(lambda: visit(server, page, current=True))
        assert seconds < TIMEOUT + STORE_TIMEOUT + MARGIN, waited
        waited.append(seconds)
    said = figures(server)
    assert said["State"].startswith("breaker open")
    assert said["LastError"] and int(said["RetryMilliseconds"]) <= 30000
    assert b"breaker open" in server.get("/server-status").body
    assert min(waited) < TIMEOUT + STORE_TIMEOUT + LEAST, waited
    # from then on: one in a pause may find out whether it works again
    before, begin = failures(server), time.monotonic()
    times = []
    for _ in range(10):
        for page in pages:
            res, seconds = timed(lambda: visit(server, page, current=True))
            assert seconds < TIMEOUT + STORE_TIMEOUT + MARGIN
            assert res.cache != "HIT"
            times.append(seconds)
    tries = [b - a for a, b in zip(before, failures(server))]
    assert max(tries) <= time.monotonic() - begin + 2, tries
    assert min(times) < TIMEOUT, times
    fresh = Page(origin, path("fresh"), 5000)
    assert visit(server, fresh, current=True).cache != "HIT"
    backend.end()
    for page in (*pages, fresh):
        wait_for(lambda: visit(server, page, current=True).cache == "HIT",
                 "hits to resume", 20)
    assert figures(server)["State"] == "on"
    assert len(lines(server, "failures in a row: out of use")) == 1
    assert len(lines(server, "works again: back in use")) == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_many_visitors_while_it_hangs(start, origin, path, name):
    """Who comes at once waits at once: not one after the other."""
    backend = start(name, options="timeout=1s store_timeout=300ms")
    server = backend.server
    pages = [Page(origin, path(f"p{i}"), 3000) for i in range(8)]
    for page in pages:
        visit(server, page)
    backend.begin("hangs")
    taken = []

    def come(page):
        for _ in range(6):
            taken.append(timed(lambda: visit(server, page, current=True))[1])

    visitors = [threading.Thread(target=come, args=(x,)) for x in pages]
    for one in visitors:
        one.start()
    for one in visitors:
        one.join()
    assert len(taken) == 48, "somebody got a wrong page"
    assert max(taken) < 1.3 + MARGIN, taken
    assert sorted(taken)[24] < 1, taken
    backend.end()


@pytest.mark.parametrize("name", BACKENDS)
def test_server_starts_and_serves_without_its_backend(start, origin, path,
                                                      name):
    backend = start(name)
    backend.begin("refuses")
    backend.server.graceful()
    page = Page(origin, path(), 3000)
    for _ in range(8):
        assert visit(backend.server, page, current=True).cache != "HIT"
    backend.end()
    wait_for(lambda: visit(backend.server, page, current=True).cache == "HIT",
             "hits to begin", 20)


# ---- bodies under way --------------------------------------------------------

def slowly(server, page, meanwhile):
    """A hit that stops reading after the first bytes, until MEANWHILE is over.
    On a busy machine the look-up may take too long and be a miss."""
    for _ in range(10):
        with server.connect(rcvbuf=8192) as conn:
            conn.send("GET", page.target, [("Connection", "close")])
            res = conn.head()
            if res.cache != "HIT":
                continue
            begin = time.monotonic()
            meanwhile()
            conn.body(res)
            page.check(res, may_cut=True)
            return res, time.monotonic() - begin
    raise AssertionError(f"no hit: {figures(server)}")


UNDER_WAY = [(n, t) for n, t in TABLE if n in IN_PIECES and "late" not in t]


@pytest.mark.parametrize("name,trouble", UNDER_WAY,
                         ids=[f"{n}-{t}".replace(" ", "_")
                              for n, t in UNDER_WAY])
def test_body_outlasts_a_moment_of_trouble(start, origin, path, name, trouble):
    """Visitors who have begun to read do not notice that it was gone."""
    backend = start(name, options="timeout=300ms store_timeout=5s")
    server = backend.server
    page = Page(origin, path(), 6000000)
    visit(server, page)
    backend.in_pieces()
    wait_for(lambda: visit(server, page).cache == "HIT", "a hit")

    def gone():
        backend.begin(trouble)
        threading.Timer(0.6, backend.end).start()

    res, seconds = slowly(server, page, gone)
    assert res.complete and res.cache == "HIT", server.log()[-3000:]
    assert 0.3 < seconds < 30, "the trouble came too late, or stayed"
    assert figures(server)["CutBodies"] == "0"


@pytest.mark.parametrize("name", IN_PIECES)
def test_body_that_does_not_come_is_cut_in_time(start, origin, path, name):
    backend = start(name, options="timeout=300ms store_timeout=5s "
                    "body_timeout=1s")
    server = backend.server
    page = Page(origin, path(), 6000000)
    visit(server, page)
    backend.in_pieces()
    wait_for(lambda: visit(server, page).cache == "HIT", "a hit")
    res, seconds = slowly(server, page, lambda: backend.begin("hangs"))
    assert not res.complete
    assert seconds < 1 + TIMEOUT + MARGIN
    assert figures(server)["CutBodies"] == "1"


# ---- nothing is left behind --------------------------------------------------

def open_files(server):
    """How many descriptors each child has."""
    return {pid: len(os.listdir(f"/proc/{pid}/fd"))
            for pid in server.children()}


def many_visits(server, pages, count):
    """COUNT requests by four visitors; each answer is looked at."""
    wrong = []

    def come():
        try:
            with server.connect() as conn:
                for number in range(count // 4):
                    page = pages[number % len(pages)]
                    page.check(conn.get(page.target), current=True)
        except Exception as e:
            wrong.append(e)

    visitors = [threading.Thread(target=come) for _ in range(4)]
    for one in visitors:
        one.start()
    for one in visitors:
        one.join()
    assert not wrong, wrong


if len(BACKENDS) > 1:   # with a peer of its own
    @pytest.mark.parametrize("what", ["reply", "connection"])
    @pytest.mark.parametrize("count", [3000, pytest.param(
        100000, marks=pytest.mark.long)])
    @pytest.mark.parametrize("name", [x for x in BACKENDS if x != "faulty"])
    def test_peer_that_fails_every_tenth_leaves_nothing_open(
            start, origin, path, name, count, what):
        backend = start(name)
        server = backend.server
        pages = [Page(origin, path(f"p{i}"), (300, 3000, 100000)[i % 3])
                 for i in range(12)]
        backend.proxy.set("fail", every=10, what=what)
        many_visits(server, pages, 600)
        before, open_before = open_files(server), backend.proxy.connections
        many_visits(server, pages, count)
        after = open_files(server)
        if what == "reply":
            assert backend.proxy.failed >= count // 20, "too few failed"
        for pid in set(before) & set(after):
            # each visitor may have a connection in each child
            assert after[pid] <= before[pid] + 4 * backend.files, \
                (before, after)
        assert backend.proxy.connections <= open_before + 4
        backend.end()


# ---- storing -----------------------------------------------------------------

def last_byte(server, page, **check):
    """Seconds until the whole response is there; the server may be busy with
    the request for longer."""
    with server.connect() as conn:
        begin = time.monotonic()
        res = conn.get(page.target)
        seconds = time.monotonic() - begin
        page.check(res, **check)
    return seconds


SHAPES = {
    "small": dict(size=300),
    "middle": dict(size=30000),
    "large": dict(size=900000),
    "of unknown length": dict(size=30000, framing="chunked"),
}


class Shaped(Page):
    """A page that comes in one of the ways that origins send."""

    def __init__(self, origin, target, size, framing="length"):
        self.framing = framing
        super().__init__(origin, target, size)

    def answer(self, req):
        reply = super().answer(req)
        reply.framing = self.framing
        return reply


@pytest.mark.parametrize("shape", SHAPES, ids=lambda x: x.replace(" ", "_"))
def test_slow_commit_delays_no_byte(start, quick, origin, path, shape):
    """The store takes 600 ms for it, and is given the time."""
    backend = start("faulty", quick, "store_timeout=2s timeout=1s")
    server = backend.server
    write(server, "set_commit delay=600")
    taken = []
    for number in range(3):
        page = Shaped(origin, path(f"p{number}"), **SHAPES[shape])
        taken.append(last_byte(server, page, current=True))
        # who comes at once is not sent to the origin, too
        assert visit(server, page, current=True).cache == "HIT"
        assert len(origin.requests(page.target)) == 1
    assert min(taken) < 0.4, taken


if h2_modules():        # not with prefork
    def test_slow_commit_delays_no_byte_of_a_stream(httpd, origin, path):
        server = httpd(SITE, {"QUICK": "on", "PROVIDER": Faulty.conf,
                              "OPTIONS": "store_timeout=2s timeout=1s"},
                       extra=MODULES + h2_modules())
        write(server, "set_commit delay=600")
        taken = []
        for number in range(3):
            page = Page(origin, path(f"p{number}"), 30000)
            with server.connect2() as conn:
                begin = time.monotonic()
                page.check(conn.ask("GET", page.target), current=True)
                taken.append(time.monotonic() - begin)
            assert visit(server, page, current=True).cache == "HIT"
            assert len(origin.requests(page.target)) == 1
        assert min(taken) < 0.4, taken


@pytest.mark.parametrize("slot", ["set_begin", "set_write"])
def test_slow_storing_delays_no_more_than_its_budget(start, origin, path,
                                                     slot):
    """40 ms for each piece of a body that comes in many."""
    backend = start("faulty", options="")
    server = backend.server
    pages = [Page(origin, path(f"p{i}"), 900000) for i in range(6)]
    usual = min(last_byte(server, x) for x in pages[:3])
    write(server, f"{slot} delay=40")
    slow = min(last_byte(server, x) for x in pages[3:])
    assert slow - usual < 1, (usual, slow)      # all pieces: 4 s
    assert figures(server)["State"] == "on"
    if slot == "set_write":
        assert int(figures(server)["Timeouts"]) >= 1
        write(server)
        assert visit(server, pages[5]).cache == "MISS"


def test_origin_s_slowness_is_not_the_store_s(start, origin, path):
    """A page that takes three times the budget to come is stored."""
    backend = start("faulty", options="store_timeout=400ms")
    page, gates = path(), [Gate() for _ in range(5)]
    parts = [x for gate in gates for x in (gate, noise(1000))]
    origin.on(page, cacheable(parts, framing="chunked"))

    def let_go():
        for gate in gates:
            gate.wait_reached()
            time.sleep(0.25)
            gate.open()

    helper = threading.Thread(target=let_go)
    helper.start()
    assert backend.server.get(page).complete
    helper.join()
    wait_for(lambda: backend.server.get(page).cache == "HIT", "a hit")
    assert len(origin.requests(page)) == 1


def most_written(server, origin, path, body, log):
    """How many pieces, at most, one write of a response to a client has. Where
    its origin is slow it is written as it comes."""
    def visit_some():
        for number in range(30):
            origin.page(path(f"p{number}"), body)
            assert server.get(path(f"p{number}")).body == body

    made = strace(server, visit_some, log, "-etrace=writev")
    heads = re.findall(r'base="HTTP/1\.1 200 .*?\], (\d+)', made)
    assert len(heads) == 30
    return max(int(x) for x in heads)


def test_small_response_is_one_write(start, origin, path, tmp_path):
    """Its end is pushed before it is stored; its beginning waits for that."""
    server = start("faulty").server
    assert most_written(server, origin, path, noise(1000), tmp_path / "t") > 1


def test_pieces_that_come_at_once_are_one_write(start, origin, path, tmp_path):
    server = start("faulty").server
    assert most_written(server, origin, path, noise(90000), tmp_path / "t") > 3


@pytest.mark.parametrize("size", [1, 20])
def test_tiny_chunks_become_few_pieces(start, origin, path, tmp_path, size):
    """Each would keep what it was read into."""
    server = start("faulty", options="store_timeout=60s timeout=60s").server
    page, body = path(), noise(20000)
    parts = [body[i:i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(x), x) for x in parts)
    origin.on(page, cacheable(chunks + b"0\r\n\r\n", framing="close",
                              headers=[("Transfer-Encoding", "chunked")]))
    got = []
    made = strace(server, lambda: got.append(server.get(page)),
                  tmp_path / "t", "-etrace=writev")
    assert got[0].body == body
    pieces = sum(int(x) for x in re.findall(r"\], (\d+)\) *= ", made))
    assert 1 < pieces < len(parts) // 4, made
    assert server.get(page).cache == "HIT"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_what_has_come_is_sent(start, origin, path, framing):
    """Nothing is held that the origin's next words would have to push."""
    server, page, gates = start("faulty").server, path(), [Gate(), Gate()]
    parts = [noise(n, n) for n in (5000, 60000, 300)]
    body = b"".join(parts)
    origin.on(page, cacheable(
        [parts[0], gates[0], parts[1], gates[1], parts[2]], framing=framing,
        length=len(body) if framing == "length" else None))
    with server.connect() as conn:
        conn.send("GET", page)
        had = due = 0
        for gate, part in zip([*gates, Gate()], parts):
            due += len(part)
            while had < due:    # the head, and of chunks theirs, is little
                data = conn.sock.recv(262144)
                assert data
                had += len(data)
            gate.open()
    assert server.get(page).body == body


def test_response_without_a_mark_is_stored_before_it_ends(start, origin, path):
    """Who asks for a new copy gets it the next time, too: nobody would wait
    for that one."""
    backend = start("faulty", options="store_timeout=2s timeout=1s")
    server = backend.server
    page = Page(origin, path(), 3000)
    visit(server, page)
    for _ in range(3):
        page.change()
        write(server, "set_commit delay=100")
        with server.connect() as conn:
            page.check(conn.get(page.target, [("Cache-Control", "no-cache")]),
                       current=True)
            write(server)
            assert visit(server, page, current=True).cache == "HIT"


@pytest.mark.parametrize("size", [300, 20000, 100000])
def test_page_that_others_lead_to_is_stored_once(start, origin, path, size):
    """Both have a mark: the end of the response comes by twice."""
    server = start("faulty", "off", OPTIONS + " coalesce_timeout=20s").server
    body = noise(size)
    for number in range(5):
        target, gate = path(f"p{number}"), Gate()
        page = f"/local/asis{target}"
        server.file(page, f"Location: {target}\n\n")
        origin.page(target, body, gate=gate)
        before = int(figures(server)["Stores"])
        herd = Herd(server)
        herd.send(page)
        gate.wait_reached()     # whoever comes now waits for one of the marks
        for _ in range(3):
            herd.send(page)
            herd.send(target)
        gate.open()
        herd.all_right(body)
        assert server.get(target).cache == "HIT"
        assert origin.count(target) == 1
        assert int(figures(server)["Stores"]) == before + 1
    assert failures(server) == [0] * 4


def test_visitor_who_leaves_at_the_end_leaves_a_stored_page(start, origin,
                                                            path):
    backend = start("faulty", options="store_timeout=2s timeout=1s")
    server = backend.server
    page = Page(origin, path(), 3000)
    write(server, "set_commit delay=200")
    conn = server.connect()
    conn.get(page.target)
    conn.abort()
    assert visit(server, page, current=True).cache == "HIT"
    assert len(origin.requests(page.target)) == 1


@pytest.mark.parametrize("size, conf", [
    (8000000, ""), (60000, "FlushMaxThreshold 4000\nSendBufferSize 4096\n")],
    ids=["large", "threshold"])
def test_client_that_stalls_holds_up_no_other(start, size, conf):
    """What comes in large pieces is committed before the last is passed on."""
    backend = start("faulty", options="store_timeout=2s timeout=1s",
                    conf=SITE + 'CacheIgnoreNoLastMod on\n' + conf)
    server = backend.server
    body = noise(size, 1)
    file = server.dir / "htdocs/local/large"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(body)
    os.utime(file, (1e9, 1e9))
    with server.connect(rcvbuf=4096) as slow:
        slow.send("GET", "/local/large")
        assert slow.head().status == 200
        res = server.get("/local/large")
        assert (res.cache, res.body) == ("HIT", body)
