# SPDX-License-Identifier: Apache-2.0
"""A page that many ask for at once is fetched once, and whatever becomes of
that fetch, nobody waits longer than without a cache or gets a wrong page.

Waiting is made visible by gates: the origin holds an answer back until the test
has seen what the other requests do meanwhile.  The time that they may wait is
therefore far longer than a test may take, except where it is the subject."""

import itertools
import threading
import time

import pytest

from conftest import provider_conf
from harness import Gate, Herd, Reply, meet, settings
from harness.faults import MODULES, STORES, write
from harness.herd import busy_workers, cpu_seconds, kill, owner_of, status_of
from harness.origin import cacheable
from harness.server import wait_for
from test_basic import noise, pieces
from test_poisoning import KNOWN_USERS

pytestmark = [pytest.mark.mpm]

CONF = """
ServerName cachemw.test
Listen 127.0.0.1:@PORT@
CacheQuickHandler @QUICK@
CacheHeader on
CacheDetailHeader on
UseCanonicalPhysicalPort on
<IfModule mpm_prefork_module>
    ServerLimit @WORKERS@
    MaxRequestWorkers @WORKERS@
    StartServers @READY@
    MinSpareServers @READY@
    MaxSpareServers @WORKERS@
</IfModule>
<IfModule !mpm_prefork_module>
    ServerLimit @CHILDREN@
    ThreadLimit @THREADS@
    StartServers @CHILDREN@
    ThreadsPerChild @THREADS@
    MinSpareThreads 1
    MaxSpareThreads @WORKERS@
    MaxRequestWorkers @WORKERS@
</IfModule>
@PROVIDER@
CacheDisable /server-status
<Location "/server-status">
    SetHandler server-status
</Location>
ProxyPass "/server-status" "!"
ProxyPass "/local/" "!"
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
@MORE@
"""

LONG = "coalesce_timeout=20s"       # longer than any test here waits
SOON = 8                            # seconds; well below that


def store(options=LONG):
    return f"{settings.store} {options}"


def names_of(children, threads, options=LONG, quick="on", ready=None,
             provider=None, more=""):
    workers = children * threads
    return {"CHILDREN": children, "THREADS": threads, "WORKERS": workers,
            "READY": ready or min(workers, 50), "QUICK": quick,
            "PROVIDER": provider or provider_conf(store(options)),
            "MORE": more}


@pytest.fixture
def server(module_httpd, quick):
    """50 may wait in each of two children, 50 with prefork"""
    return module_httpd(CONF, names_of(2, 200, quick=quick))


@pytest.fixture
def quick_server(module_httpd):
    return module_httpd(CONF, names_of(2, 200))


class Turns:
    """A responder: the first request gets the first reply, and so on, the
    last one for all that follow."""

    def __init__(self, *replies):
        self.replies, self.turn = replies, itertools.count()

    def __call__(self, req):
        return self.replies[min(next(self.turn), len(self.replies) - 1)]


def asked(origin, page, count, within=SOON):
    wait_for(lambda: origin.count(page) >= count,
             f"{count} requests for {page} (now {origin.count(page)}) at the "
             "origin", within)


# ---- one fetch ---------------------------------------------------------------

KINDS = {
    "length": (200, noise(30000), {}),
    "large": (200, noise(900000), {}),
    "chunked": (200, pieces(noise(30000), 5000), {"framing": "chunked"}),
    "empty": (200, b"", {}),
    "404": (404, b"not here", {}),
    "301": (301, b"there", {"headers": [("Location", "/there")]}),
}


def fetch_once(server, origin, page, kind, count):
    status, body, more = KINDS[kind]
    gate = Gate()
    origin.page(page, body, status=status, gate=gate, **more)
    herd = meet(server, page, count)
    herd.wait_busy()
    asked(origin, page, 1)
    assert origin.count(page) == 1
    gate.open()
    herd.all_right(body if isinstance(body, bytes) else b"".join(body), status)
    assert origin.count(page) == 1
    came = sorted(x.res.cache for x in herd.visits)
    assert came == ["HIT"] * (count - 1) + ["MISS"]


def test_herd_makes_one_fetch(server, origin, path):
    fetch_once(server, origin, path(), "length", 40)


@pytest.mark.parametrize("kind", [x for x in KINDS if x != "length"])
def test_herd_makes_one_fetch_of_any_page(quick_server, origin, path, kind):
    fetch_once(quick_server, origin, path(), kind, 20)


@pytest.mark.long
def test_200_visitors_of_a_slow_page_wait_once(httpd, origin, path):
    server = httpd(CONF, names_of(4, 250, "", ready=230))
    page, body = path(), noise(10000)

    def slow(req):
        time.sleep(1)
        return cacheable(body)

    origin.on(page, slow)
    herd = meet(server, page, 200)
    herd.all_right(body)
    assert max(x.took for x in herd.visits) <= 2.5
    assert origin.count(page) == 1


def test_two_herds_do_not_meet(quick_server, origin, path):
    one, two, gate = path("one"), path("two"), Gate()
    origin.page(one, b"one", gate=gate)
    origin.page(two, b"two")
    first = meet(quick_server, one, 10)
    asked(origin, one, 1)
    meet(quick_server, two, 10).all_right(b"two", timeout=SOON)
    gate.open()
    first.all_right(b"one")
    assert (origin.count(one), origin.count(two)) == (1, 1)


def test_switched_off_everybody_asks_the_origin(httpd, origin, path):
    server = httpd(CONF, names_of(2, 40, "coalesce=off"))
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 10)
    asked(origin, page, 10)
    gate.open()
    herd.all_right(b"x")


def test_cache_lock_beside_it(httpd, origin, path):
    server = httpd(CONF, names_of(2, 80, more=(
        'CacheLock on\nCacheLockPath "@DIR@/cache/locks"')))
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 15)
    herd.wait_busy()
    gate.open()
    herd.all_right(b"x")
    assert origin.count(page) == 1


HOSTS = """
Listen 127.0.0.1:@PORT2@
<VirtualHost 127.0.0.1:@PORT2@>
    ServerName other.test
    RequestHeader set X-Site other
    @OTHER@
</VirtualHost>
"""


@pytest.mark.parametrize("other", ["", "CachemwProvider second"],
                         ids=["one-store", "two-stores"])
def test_sites_do_not_wait_for_each_other(httpd, origin, path, other):
    server = httpd(
        f"CachemwStore second {store()}\n{CONF}{HOSTS}",
        {**names_of(2, 80), "OTHER": other})
    page, gate = path(), Gate()
    origin.on(page, lambda req: cacheable(b"two") if req.get("X-Site")
              else cacheable(b"one", gate=gate))
    first = meet(server, page, 10)
    asked(origin, page, 1)
    meet(server, page, 10, port=1,
         host="other.test").all_right(b"two", timeout=SOON)
    gate.open()
    first.all_right(b"one")
    assert origin.count(page) == 2


@pytest.mark.parametrize("order", [("cachemw", "disk"), ("disk", "cachemw")],
                         ids="-".join)
def test_beside_mod_cache_disk_nobody_waits_in_vain(httpd, origin, path,
                                                    order):
    enables = "\n".join(f"CacheEnable {x} /" for x in order)
    server = httpd(
        CONF, names_of(2, 80, provider=f'CachemwProvider {store()}\n'
                       f'CacheRoot "@DIR@/cache"\n{enables}'),
        extra=["cachemw", "cache_disk"])
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 15)
    herd.wait_busy()
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    if order[0] == "cachemw":
        assert origin.count(page) == 1


# ---- the one who fetches is lost ---------------------------------------------

def test_visitor_who_left_before_the_answer_delays_nobody(server, origin,
                                                          path):
    page, gate = path(), Gate()
    origin.on(page, Turns(cacheable(b"x", gate=gate), cacheable(b"x")))
    first = server.connect()
    first.send("GET", page)
    gate.wait_reached()
    herd = meet(server, page, 15)
    herd.wait_busy(1)
    first.abort()
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    assert origin.count(page) <= 2
    assert server.get(page).cache == "HIT"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_visitor_who_left_half_way_delays_nobody(quick_server, origin, path,
                                                 framing):
    page, gate = path(), Gate()
    body = noise(8000000)
    parts = pieces(body, 50000)
    whole = cacheable(parts, framing=framing, length=len(body)
                      if framing == "length" else None)
    origin.on(page, Turns(whole.with_(body=parts[:9] + [gate] + parts[9:]),
                          whole))
    first = quick_server.connect(rcvbuf=4096)
    first.send("GET", page)
    assert first.head().status == 200
    gate.wait_reached()
    herd = meet(quick_server, page, 8)
    herd.wait_busy(1)
    asked(origin, page, 1)
    assert origin.count(page) == 1
    first.abort()
    gate.open()
    herd.all_right(body, timeout=SOON)
    assert origin.count(page) <= 2


def test_waiting_visitors_may_leave(quick_server, origin, path):
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(quick_server, page, 5)
    asked(origin, page, 1)
    leaving = [quick_server.connect() for _ in range(20)]
    for one in leaving:
        one.send("GET", page)
    wait_for(lambda: busy_workers(quick_server) >= 25, "all to wait")
    for one in leaving:
        one.abort()
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    wait_for(lambda: busy_workers(quick_server) == 0, "all to be over")
    assert origin.count(page) == 1


@pytest.mark.parametrize("after", [0, 3000])
def test_fetch_that_the_origin_cut_is_taken_over(server, origin, path, after):
    page, gate = path(), Gate()
    whole = cacheable(noise(30000))
    origin.on(page, Turns(whole.with_(cut_after=after, gate=gate), whole))
    herd = meet(server, page, 15)
    herd.wait_busy()
    gate.open()
    right = [x for x in herd.end(SOON)
             if x.is_whole and x.res.status == 200]
    assert len(right) == 14
    assert all(x.res.body == noise(30000) for x in right)
    assert origin.count(page) == 2


def test_origin_that_is_silent_is_asked_by_another(quick_server, origin,
                                                   path):
    page, gate = path(), Gate()
    origin.on(page, Turns(Reply(cut=True, gate=gate), cacheable(b"x")))
    herd = meet(quick_server, page, 15)
    herd.wait_busy()
    gate.open()
    assert sorted(x.res.status for x in herd.end(SOON)) == \
        [200] * 14 + [502]


def kill_fetcher(server, origin, page, gate, count, within=SOON):
    """Kill the child whose request is at the gate; a herd waits for it."""
    lost = Gate()
    origin.on(page, Turns(cacheable(b"lost", gate=lost),
                          cacheable(noise(9000), gate=gate)))
    herd = Herd(server)
    for _ in range(count):      # one by one, so that all children get some
        herd.send(page)
        threading.Event().wait(0.2 / count)
    herd.wait_busy()
    asked(origin, page, 1)
    assert origin.count(page) == 1
    pid = owner_of(server, origin.last(page).peer)
    kill(server, pid)
    lost.open()
    began = time.monotonic()
    late = herd.send(page, 4)
    asked(origin, page, 2, within)
    late[0].join(0.3)
    gate.open()
    herd.end(SOON)
    return herd, began


def test_killed_child_costs_one_more_fetch(httpd, origin, path):
    server = httpd(CONF, names_of(4, 120))
    page, gate = path(), Gate()
    herd, began = kill_fetcher(server, origin, page, gate, 24)
    whole = [x for x in herd.visits if x.is_whole]
    assert len(whole) > 4, "nobody survived: the test is wrong"
    assert all((x.res.status, x.res.body) == (200, noise(9000))
               for x in whole)
    if settings.mpm == "prefork":
        assert len(whole) == len(herd.visits) - 1
    assert origin.count(page) == 2
    assert server.get(page).cache == "HIT"


@pytest.mark.long
def test_killed_child_among_1000_workers(httpd, origin, path):
    server = httpd(CONF, names_of(4, 250, "", ready=230))
    for n in range(5):
        page, gate = path(f"p{n}"), Gate()
        herd, began = kill_fetcher(server, origin, page, gate, 196, 2.5)
        assert origin.count(page) <= 2
        whole = [x for x in herd.visits if x.is_whole]
        assert len(whole) > 40
        assert all(x.res.body == noise(9000) for x in whole)
        assert time.monotonic() - began < 3.5


ROOM_FOR_NEW_CHILDREN = """
<IfModule !mpm_prefork_module>
    ServerLimit 4
</IfModule>
"""


def test_graceful_restart_while_a_herd_waits(httpd, origin, path):
    server = httpd(CONF, names_of(2, 80, more=ROOM_FOR_NEW_CHILDREN))
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 15)
    herd.wait_busy()
    server.graceful(wait_old=False)
    herd.send(page, 10)
    wait_for(lambda: busy_workers(server) >= 10, "the new ones")
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    assert origin.count(page) <= 2
    assert server.get(page).cache == "HIT"


# ---- what cannot be stored ---------------------------------------------------

BIG = noise(400000)
UNSTORABLE = {
    "no-store": Reply(b"x", [("Cache-Control", "no-store")]),
    "private": Reply(b"x", [("Cache-Control", "private, max-age=60"),
                            ("Set-Cookie", "a=b")]),
    "vary-star": cacheable(b"x", headers=[("Vary", "*")]),
    "500": Reply(b"x", status=500),
    "503": Reply(b"x", [("Retry-After", "1")], status=503),
    "302": Reply(b"x", [("Location", "/there")], status=302),
    "no-lifetime": Reply(b"x"),
    "too-large": cacheable(BIG),
    "too-large-chunked": cacheable(pieces(BIG, 50000), framing="chunked"),
}


def never_queues(server, origin, page, reply, count=12, status=None):
    """While the first request is under way the others wait; when its answer is
    there they ask the origin together, and so do those who come later."""
    first, rest, later = Gate(), Gate(), Gate()
    origin.on(page, Turns(reply.with_(gate=first),
                          *[reply.with_(gate=rest)] * (count - 1),
                          reply.with_(gate=later)))
    body = reply.body if isinstance(reply.body, bytes) \
        else b"".join(reply.body)
    herd = meet(server, page, count)
    herd.wait_busy()
    asked(origin, page, 1)
    assert origin.count(page) == 1
    first.open()
    asked(origin, page, count)
    rest.open()
    herd.all_right(body, status or reply.status, timeout=SOON)
    herd = meet(server, page, count)
    asked(origin, page, 2 * count)
    later.open()
    herd.all_right(body, status or reply.status, timeout=SOON)


@pytest.fixture
def small_server(module_httpd):
    """stores 100 KB at most"""
    return module_httpd(CONF, names_of(
        2, 200, LONG + " max_object_size=100K"))


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_page_that_cannot_be_stored_is_not_queued_for(small_server, origin,
                                                      path, kind):
    never_queues(small_server, origin, path(), UNSTORABLE[kind])


def test_unstorable_page_frees_the_others_before_it_is_over(
        quick_server, origin, path):
    page, gate = path(), Gate()
    reply = Reply([noise(20000), gate, b"end"], framing="chunked",
                  headers=[("Cache-Control", "no-store")])
    origin.on(page, Turns(reply, reply.with_(body=[b"x"])))
    first = meet(quick_server, page, 1)
    gate.wait_reached()
    meet(quick_server, page, 8).all_right(b"x", timeout=SOON)
    gate.open()
    first.all_right(noise(20000) + b"end")


SCRIPT = """#!/bin/sh
echo >> "$0.begun"
gate=first; [ -e "$0.first" ] && gate=rest
until [ -e "$0.$gate" ]; do sleep 0.05; done
printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\nx'
"""


def test_script_that_goes_around_all_filters_is_not_queued_for(httpd):
    """nph-: what it writes goes to the connection as it is"""
    server = httpd(
        CONF, names_of(2, 80, more="""<Directory "@DIR@/htdocs/local">
            Options +ExecCGI
            SetHandler cgi-script
        </Directory>"""),
        extra=["cachemw", "cgi" if settings.mpm == "prefork" else "cgid"])
    server.file("/local/nph-x.cgi", SCRIPT)
    script = server.dir / "htdocs/local/nph-x.cgi"
    begun = script.with_name("nph-x.cgi.begun")
    begun.write_text("")
    for one, mode in (script, 0o755), (begun, 0o666):
        one.chmod(mode)
    herd = meet(server, "/local/nph-x.cgi", 8)
    herd.wait_busy()
    wait_for(lambda: begun.read_text() == "\n", "the first one")
    script.with_name("nph-x.cgi.first").write_text("")
    wait_for(lambda: begun.read_text() == "\n" * 8, "all of them", SOON)
    script.with_name("nph-x.cgi.rest").write_text("")
    herd.all_right(b"x", timeout=SOON)


@pytest.mark.parametrize("fault", ["get error", "set error", "set_begin error",
                                   "set_write enospc", "set_commit error",
                                   "set_commit error=EGENERAL"])
@pytest.mark.errors
def test_store_that_fails_makes_no_queue(httpd, origin, path, fault):
    names = names_of(2, 80, provider=STORES)
    names.update(STORE=settings.store, KIND="faulty", OPTIONS=LONG)
    server = httpd(CONF, names, extra=MODULES)
    write(server, fault, *(["set_commit error"] if "set " in fault else []))
    page, gates = path(), [Gate(), Gate()]
    reply = cacheable(noise(200000))
    origin.on(page, Turns(reply.with_(gate=gates[0]),
                          reply.with_(gate=gates[1])))
    for gate in gates:
        herd = meet(server, page, 9)
        herd.wait_busy()
        gate.open()
        if gate is gates[0]:
            asked(origin, page, 9)
            gates[1].open()
        herd.all_right(noise(200000), timeout=SOON)
    assert origin.count(page) == 18


def together(server, origin, page, reply, meanwhile):
    """Of a herd one fetches, the others wait.  When MEANWHILE is done and that
    fetch is over, they ask the origin together."""
    first, rest = Gate(), Gate()
    origin.on(page, Turns(reply.with_(gate=first), reply.with_(gate=rest)))
    herd = meet(server, page, 9)
    herd.wait_busy()
    asked(origin, page, 1)
    assert origin.count(page) == 1
    meanwhile()
    first.open()
    asked(origin, page, 9)
    rest.open()
    herd.all_right(reply.body, timeout=SOON)


@pytest.mark.errors
def test_store_that_fails_meanwhile_makes_no_queue(httpd, origin, path):
    names = names_of(2, 80, provider=STORES)
    names.update(STORE=settings.store, KIND="faulty", OPTIONS=LONG)
    server = httpd(CONF, names, extra=MODULES)
    together(server, origin, path(), cacheable(noise(3000)),
             lambda: write(server, "get error"))


@pytest.mark.errors
def test_open_breaker_makes_no_queue(httpd, origin, path):
    names = names_of(2, 80, provider=STORES)
    # on a busy machine a look-up on a real server takes longer than it should
    names.update(STORE=settings.store, KIND="faulty_remote",
                 OPTIONS=LONG + " timeout=5s store_timeout=5s")
    server = httpd(CONF, names, extra=MODULES)
    page, other, gate = path(), path("other"), Gate()
    origin.page(other, b"x")

    def go_down():
        write(server, *[f"{slot} error=ECONNREFUSED"
                        for slot in ("get", "set", "set_begin", "set_commit")])
        for n in range(9):
            server.get(f"{other}?{n}")
        assert "open" in status_of(server)["CachemwStore-tested-State"]

    together(server, origin, page, cacheable(noise(3000)), go_down)
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 9)
    asked(origin, page, 18)
    gate.open()
    herd.all_right(b"x", timeout=SOON)


def test_full_store_makes_no_queue(httpd, origin, path):
    """Its space for what is being stored is taken by pages that do not come to
    an end."""
    server = httpd(CONF, names_of(2, 80, provider=provider_conf(
        f"memory size=4M {LONG}")))
    large, slow, gates = noise(900000), Herd(server), [Gate(), Gate(), Gate()]
    for n, gate in enumerate(gates):
        origin.on(path(f"slow{n}"), cacheable(
            [large[:800000], gate, large[800000:]], length=len(large)))
        slow.send(path(f"slow{n}"))
        gate.wait_reached()
    together(server, origin, path(), cacheable(large), lambda: None)
    for gate in gates:
        gate.open()
    slow.all_right(large, timeout=SOON)


# ---- how long, and how many --------------------------------------------------

def waits_at_most(server, origin, page, seconds, most, count=8):
    """All but one wait SECONDS; MOST is less than another limit would be."""
    gate = Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, count)
    asked(origin, page, count, most + SOON)
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    first, *others = [x.time for x in origin.requests(page)]
    assert min(others) - first > seconds / 2
    assert max(others) - first < most


def test_nobody_waits_longer_than_the_timeout(httpd, origin, path):
    server = httpd(CONF, names_of(2, 80, "coalesce_timeout=700ms"))
    waits_at_most(server, origin, path(), 0.7, 2.5)


def test_timeout_is_3_s_unless_said_otherwise(httpd, origin, path):
    server = httpd(CONF, names_of(2, 80, ""))
    waits_at_most(server, origin, path(), 3, 10)


def test_take_overs_do_not_add_up_to_more_than_the_timeout(httpd, origin,
                                                           path):
    server = httpd(CONF, names_of(2, 80, "coalesce_timeout=1s"))
    page = path()

    def dying(req):
        time.sleep(0.4)
        return Reply(cut=True)

    origin.on(page, dying)
    herd = meet(server, page, 30)
    assert all(x.res.status == 502 for x in herd.end())
    assert max(x.took for x in herd.visits) < 30 * 0.4 / 2


def test_100_who_wait_use_no_processor_and_disturb_nobody(httpd, origin,
                                                          path):
    server = httpd(CONF, names_of(1, 440, ready=112))
    page, other, gate = path(), path("other"), Gate()
    origin.page(page, b"x", gate=gate)
    origin.page(other, b"other")
    herd = meet(server, page, 101)
    herd.wait_busy()
    asked(origin, page, 1)
    assert origin.count(page) == 1
    pids = server.children()
    threading.Event().wait(0.5)
    before = cpu_seconds(pids)
    threading.Event().wait(3)
    used = cpu_seconds(pids) - before
    took = []
    for n in range(9):
        began = time.monotonic()
        assert server.get(f"{other}?{n // 2}").body == b"other"
        took.append(time.monotonic() - began)
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    assert origin.count(page) == 1
    assert used < 0.05
    assert sorted(took)[4] < 1, took


def overflow(server, origin, page, count, waiting):
    """Of COUNT requests WAITING wait, the others are at the origin at once."""
    gate = Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, count)
    herd.wait_busy()
    asked(origin, page, count - waiting)
    return herd, gate


def finish(server, origin, page, count, waiting, herd, gate):
    threading.Event().wait(0.2)
    assert origin.count(page) == count - waiting
    gate.open()
    herd.all_right(b"x", timeout=SOON)
    assert origin.count(page) == count - waiting
    wait_for(lambda: busy_workers(server) == 0, "all to be over")


def test_a_quarter_may_wait_and_the_others_go_on(httpd, origin, path):
    """10 of 40; afterwards, after a restart and after a violent death too."""
    server = httpd(CONF, names_of(1, 40, ready=36))

    def again(name):
        args = (server, origin, path(name), 25, 10)
        return args, overflow(*args)

    args, (herd, gate) = again("first")
    other = path("other")
    origin.page(other, b"other")
    assert server.get(other).body == b"other"
    finish(*args, herd, gate)
    server.graceful()
    args, held = again("restarted")
    pid = owner_of(server, origin.last(args[2]).peer)
    kill(server, pid)
    held[1].open()
    held[0].end(SOON)
    wait_for(lambda: len(server.children()) >= (
        36 if settings.mpm == "prefork" else 1)
        and busy_workers(server) == 0, "new children")
    args, held = again("killed")
    finish(*args, *held)


def test_a_quarter_of_each_child(httpd, origin, path):
    """40 who come at once: never more than 20 wait, in whichever of the 4
    children."""
    server = httpd(CONF, names_of(4, 20, ready=60))
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 40)
    herd.wait_busy()
    threading.Event().wait(0.2)
    assert origin.count(page) >= 20
    gate.open()
    herd.all_right(b"x", timeout=SOON)


# ---- stale pages -------------------------------------------------------------

def primed(server, origin, page, control="max-age=0"):
    origin.on(page, Reply(b"old", [("Cache-Control", control)], etag='"v1"'))
    assert server.get(page).body == b"old"


def checked_once(server, origin, page, gate, body):
    """A herd for a stale page: one asks the origin, the others wait for it."""
    herd = meet(server, page, 20)
    herd.wait_busy()
    asked(origin, page, 2)
    assert origin.count(page) == 2
    gate.open()
    herd.all_right(body, timeout=SOON)
    assert origin.count(page) == 2


@pytest.mark.parametrize("change", [False, True], ids=["304", "200"])
def test_stale_page_is_checked_once(server, origin, path, change):
    page, gate = path(), Gate()
    primed(server, origin, page)
    fresh = [("Cache-Control", "max-age=60")]
    origin.on(page, Reply(b"new" if change else b"old", fresh, gate=gate,
                          etag='"v2"' if change else '"v1"'))
    checked_once(server, origin, page, gate, b"new" if change else b"old")
    assert origin.last(page).get("If-None-Match") == '"v1"'


@pytest.mark.parametrize("fields", [[("Age", "100")],
                                    [("Cache-Control", "no-cache")]],
                         ids=["by-age", "no-cache"])
def test_page_that_expires_later_but_is_stale_is_checked_once(
        server, origin, path, fields):
    page, gate = path(), Gate()
    origin.on(page, cacheable(b"old", etag='"v1"', headers=fields))
    server.get(page)
    origin.page(page, b"new", etag='"v2"', gate=gate)
    checked_once(server, origin, page, gate, b"new")


def test_stale_page_is_given_meanwhile_where_it_may(server, origin, path):
    page, gate = path(), Gate()
    primed(server, origin, page, "max-age=0, stale-while-revalidate=60")
    origin.page(page, b"new", etag='"v2"', gate=gate)
    first = meet(server, page, 1)
    gate.wait_reached()
    threading.Event().wait(1.1)
    others = meet(server, page, 20)
    others.all_right(b"old", timeout=SOON)
    assert all(1 <= int(x.res.get("Age")) < 30 for x in others.visits)
    took = []
    for _ in range(5):
        one = meet(server, page, 1)
        one.all_right(b"old")
        took.append(one.visits[0].took)
    assert sorted(took)[2] < 1
    assert origin.count(page) == 2
    gate.open()
    first.all_right(b"new")
    res = server.get(page)
    assert (res.cache, res.body) == ("HIT", b"new")


@pytest.mark.parametrize("control, age", [
    ("max-age=0, stale-while-revalidate=60, must-revalidate", 0),
    ("max-age=0, stale-while-revalidate=60, proxy-revalidate", 0),
    ("s-maxage=0, stale-while-revalidate=60", 0),
    ("max-age=0, stale-while-revalidate=1", 2.1),
    ("max-age=0, stale-while-revalidate=0", 0),
    ("max-age=0, stale-while-revalidate=x", 0),
    ("max-age=0", 0)])
def test_stale_page_is_not_given_where_it_may_not(quick_server, origin, path,
                                                  control, age):
    page, gate = path(), Gate()
    primed(quick_server, origin, page, control)
    threading.Event().wait(age)
    origin.page(page, b"new", etag='"v2"', gate=gate)
    checked_once(quick_server, origin, page, gate, b"new")


def test_stale_page_is_not_given_after_a_change(quick_server, origin, path):
    page, gate = path(), Gate()
    primed(quick_server, origin, page, "max-age=0, stale-while-revalidate=60")
    origin.on(page, Reply(b"saved"))
    assert quick_server.ask("POST", page, body=b"x").status == 200
    origin.page(page, b"new", etag='"v2"', gate=gate)
    herd = meet(quick_server, page, 8)
    herd.wait_busy()
    gate.open()
    herd.all_right(b"new", timeout=SOON)
    assert origin.count(page) == 3


def test_stale_page_while_the_application_fails(server, origin, path):
    page, first, rest = path(), Gate(), Gate()
    primed(server, origin, page)
    sorry = Reply(b"sorry", status=503)
    origin.on(page, Turns(sorry.with_(gate=first), sorry.with_(gate=rest)))
    herd = meet(server, page, 12)
    herd.wait_busy()
    asked(origin, page, 2)
    assert origin.count(page) == 2
    first.open()
    wait_for(lambda: origin.count(page) == 13
             or not any(x.is_alive() for x in herd.visits),
             "all to ask or to be answered", SOON)
    rest.open()
    herd.all_right(b"old", timeout=SOON)


def test_page_that_is_always_stale_makes_no_queue(quick_server, origin, path):
    """Stored, but to be checked for every request"""
    page, first, rest = path(), Gate(), Gate()
    primed(quick_server, origin, page)
    same = Reply(b"old", [("Cache-Control", "max-age=0")], etag='"v1"')
    origin.on(page, Turns(same.with_(gate=first), same.with_(gate=rest)))
    herd = meet(quick_server, page, 12)
    herd.wait_busy()
    first.open()
    wait_for(lambda: origin.count(page) == 13
             or not any(x.is_alive() for x in herd.visits),
             "all to ask or to be answered", SOON)
    rest.open()
    herd.all_right(b"old", timeout=SOON)


@pytest.mark.parametrize("control", ["max-age=0", "no-cache"])
def test_page_that_comes_stale_is_not_queued_for_again(quick_server, origin,
                                                       path, control):
    never_queues(quick_server, origin, path(),
                 Reply(b"x", [("Cache-Control", control)], etag='"v1"'))


def test_page_checked_for_one_visitor_alone_makes_no_queue(httpd, origin,
                                                           path):
    """What httpd makes of a cookie tells visitors apart, not the look-up: a
    304 for one of them amends nothing."""
    server = httpd(CONF, names_of(2, 80, more=KNOWN_USERS))
    page, first, rest = path(), Gate(), Gate()
    vary = ("Vary", "X-User")
    origin.on(page, Reply(b"old", [("Cache-Control", "max-age=0"), vary],
                          etag='"v1"'))
    server.get(page)
    same = Reply(b"old", [("Cache-Control", "max-age=60"), vary], etag='"v1"')
    origin.on(page, Turns(same.with_(gate=first), same.with_(gate=rest)))
    herd = meet(server, page, 12, [("Cookie", "sid=alice")])
    herd.wait_busy()
    asked(origin, page, 2)
    assert origin.count(page) == 2
    first.open()
    asked(origin, page, 13)
    rest.open()
    herd.all_right(b"old", timeout=SOON)


# ---- variants ----------------------------------------------------------------

def by_language(gates=()):
    gates = dict(gates)

    def responder(req):
        lang = req.get("Accept-Language", "")
        return cacheable(lang.encode(), headers=[("Vary", "Accept-Language")],
                         gate=gates.get(lang))
    return responder


def language(lang):
    return [("Accept-Language", lang)]


def speaks(visits):
    for one in visits:
        assert one.is_whole and one.res.status == 200, one.res
        assert one.res.body == dict(one.headers)["Accept-Language"].encode()


def test_herd_of_two_languages(server, origin, path):
    page, gate = path(), Gate()
    origin.on(page, by_language({"de": gate, "fr": gate}))
    herd = Herd(server)
    for _ in range(10):
        herd.send(page, 1, language("de"))
        herd.send(page, 1, language("fr"))
    herd.wait_busy()
    gate.open()
    speaks(herd.end(SOON))
    assert 2 <= origin.count(page) <= 3


def test_variants_do_not_wait_for_each_other(server, origin, path):
    page, gates = path(), {"it": Gate()}
    origin.on(page, by_language(gates))
    server.get(page, language("de"))
    first = meet(server, page, 5, language("it"))
    asked(origin, page, 2)
    others = meet(server, page, 5, language("el"))
    speaks(others.end(SOON))
    gates["it"].open()
    speaks(first.end(SOON))
    assert origin.count(page) == 3


# ---- changes -----------------------------------------------------------------

def changing(gates):
    """Version of the page when it is asked for; GATES: of the n-th GET"""
    state, lock = {"version": 1, "turn": 0}, threading.Lock()

    def responder(req):
        with lock:
            if req.method == "POST":
                state["version"] += 1
                return Reply(b"saved")
            state["turn"] += 1
            gate = gates.get(state["turn"])
            return cacheable(b"version %d" % state["version"], gate=gate)
    return responder


@pytest.mark.parametrize("known", [False, True], ids=["cold", "stale"])
def test_nobody_gets_the_old_page_who_came_after_a_change(
        server, origin, path, known):
    page, gate = path(), Gate()
    if known:
        origin.page(page, b"version 0", 0, etag='"v0"')
        server.get(page)
    origin.on(page, changing({1: gate}))
    herd = meet(server, page, 10)
    herd.wait_busy()
    gate.wait_reached()
    assert server.ask("POST", page, body=b"x").status == 200
    later = meet(server, page, 10)
    wait_for(lambda: busy_workers(server) >= 11
             or not any(x.is_alive() for x in later.visits), "later ones")
    gate.open()
    later.all_right(b"version 2", timeout=SOON)
    for one in herd.all_right(timeout=SOON):
        assert one.res.body in (b"version 1", b"version 2")
    assert server.get(page).body == b"version 2"


# ---- requests of other kinds -------------------------------------------------

@pytest.mark.parametrize("header", [
    ("Cache-Control", "no-cache"), ("Cache-Control", "no-store"),
    ("Cache-Control", "max-age=0"), ("Cache-Control", "min-fresh=5"),
    ("Pragma", "no-cache")])
def test_who_wants_no_stored_page_waits_for_nobody(server, origin, path,
                                                   header):
    page, gate = path(), Gate()
    origin.on(page, Turns(cacheable(b"x", gate=gate), cacheable(b"x")))
    herd = meet(server, page, 1)
    asked(origin, page, 1)
    other = meet(server, page, 1, [header])
    asked(origin, page, 2)
    other.all_right(b"x", timeout=SOON)
    gate.open()
    herd.all_right(b"x", timeout=SOON)


def test_who_wants_another_protocol_neither_waits_nor_is_waited_for(
        server, origin, path):
    page, gate = path(), Gate()
    origin.on(page, lambda req: cacheable(
        b"x", gate=gate if req.get("X-Socket") else None))
    upgrade = [("X-Socket", "1"), ("Upgrade", "websocket"),
               ("Connection", "Upgrade")]
    herd = meet(server, page, 5, upgrade)
    asked(origin, page, 5)
    meet(server, page, 5).all_right(b"x", timeout=SOON)
    gate.open()
    herd.all_right(b"x", timeout=SOON)


def test_nobody_waits_for_who_wants_nothing_stored(server, origin, path):
    page, gate = path(), Gate()
    origin.on(page, Turns(cacheable(b"x", gate=gate), cacheable(b"x")))
    herd = meet(server, page, 1, [("Cache-Control", "no-store")])
    asked(origin, page, 1)
    meet(server, page, 5).all_right(b"x", timeout=SOON)
    gate.open()
    herd.all_right(b"x", timeout=SOON)


def test_only_if_cached_does_not_wait(server, origin, path):
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 1)
    asked(origin, page, 1)
    res = server.get(page, [("Cache-Control", "only-if-cached")])
    assert res.status == 504
    gate.open()
    herd.all_right(b"x", timeout=SOON)


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
def test_other_methods_do_not_wait(quick_server, origin, path, method):
    page, gate = path(), Gate()
    origin.on(page, lambda req: cacheable(
        b"x", gate=gate if req.method == "GET" else None))
    herd = meet(quick_server, page, 1)
    asked(origin, page, 1)
    other = meet(quick_server, page, 3, method=method)
    other.all_right(timeout=SOON)
    gate.open()
    herd.all_right(b"x", timeout=SOON)


def test_parts_and_conditions_in_the_herd(server, origin, path):
    page, gate, body = path(), Gate(), noise(50000)
    origin.page(page, body, etag='"v1"', gate=gate)
    herd = Herd(server)
    whole = herd.send(page, 5)
    asked(origin, page, 1)
    whole += herd.send(page, 3, [("If-None-Match", '"other"')])
    parts = herd.send(page, 5, [("Range", "bytes=100-199")])
    same = herd.send(page, 5, [("If-None-Match", '"v1"')])
    heads = herd.send(page, 3, method="HEAD")
    herd.wait_busy()
    gate.open()
    herd.end(SOON)
    assert all((x.res.status, x.res.body) == (200, body) for x in whole)
    assert all((x.res.status, x.res.body) == (206, body[100:200])
               for x in parts)
    assert all((x.res.status, x.res.body) == (304, b"") for x in same)
    assert all((x.res.status, x.res.body) == (200, b"") for x in heads)
    assert server.get(page).cache == "HIT"


@pytest.mark.parametrize("header", [("Range", "bytes=100-199"),
                                    ("If-None-Match", '"v1"'),
                                    ("Accept-Language", "de")])
def test_page_that_came_between_two_looks(httpd, quick, origin, path, header):
    """Who did not find the page, and whose store says so only when it has been
    fetched and nobody has the mark any more, does not fetch it again."""
    names = names_of(2, 80, quick=quick, provider=STORES)
    names.update(STORE=settings.store, KIND="faulty", OPTIONS=LONG)
    server = httpd(CONF, names, extra=MODULES)
    body, fetched = noise(5000), []
    for number in range(5):
        page, gate = path(f"p{number}"), Gate()
        origin.page(page, body, etag='"v1"', gate=gate)
        first = meet(server, page, 1)
        asked(origin, page, 1)
        write(server, "get late=500 count=1")
        late = meet(server, page, 1, [header])
        first.wait_busy(1)
        gate.open()
        first.all_right(body, timeout=SOON)
        late.end(SOON)
        fetched.append(origin.count(page))
    # the machine may have stood still now and then
    assert fetched.count(1) >= 3, fetched


@pytest.mark.parametrize("header", [("Range", "bytes=100-199"),
                                    ("If-None-Match", '"v1"')])
def test_first_one_who_wants_less_than_the_page(server, origin, path, header):
    page, gate, body = path(), Gate(), noise(50000)
    origin.page(page, body, etag='"v1"', gate=gate)
    first = meet(server, page, 1, [header])
    asked(origin, page, 1)
    herd = meet(server, page, 10)
    herd.wait_busy(1)
    gate.open()
    herd.all_right(body, timeout=SOON)
    first.end(SOON)
    res = first.visits[0].res
    assert (res.status, res.body) in ((200, body), (206, body[100:200]),
                                      (304, b""))
    assert origin.count(page) <= 2


# ---- what an operator sees ---------------------------------------------------

def test_status_counts_who_waited(httpd, origin, path):
    server = httpd(CONF, names_of(2, 80))
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = meet(server, page, 11)
    herd.wait_busy()
    gate.open()
    herd.all_right(b"x")
    counts = {k: v for k, v in status_of(server).items()
              if k.startswith("Cachemw") and "oalesc" in k}
    assert "10" in counts.values(), counts
