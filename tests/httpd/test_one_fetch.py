# SPDX-License-Identifier: Apache-2.0
"""Several web servers on one Redis fetch a page once; and whatever becomes of
who fetches it, or of Redis, nobody waits for longer than one server's visitors
wait for each other.

Nothing here is timed but what is about time: coalesce_timeout is far longer than
a test may take, and the origin holds its answers back until the test has seen
what it waits for."""

import os
import signal

import pytest

from conftest import SHARED
from harness import Gate, Herd, Httpd, Reply
from harness.faults import write
from harness.herd import kill, owner_of
from harness.origin import cacheable
from harness.server import wait_for
from harness.shared import HOST, get
from test_basic import noise
from test_coalesce import SOON, Turns, asked
from test_status import figures

pytestmark = [pytest.mark.redis, pytest.mark.errors]

LONG = 20                   # seconds of coalesce_timeout; locks live for a quarter
MODULES = ["cachemw", "cachemw_redis", "cachemw_faulty"]

PATIENT = "timeout=10s store_timeout=10s connect_timeout=10s"

PLAIN = """
CachemwStore pages redis url=@URL@ @PATIENCE@ @OPTIONS@
"""

TIERS = """
CachemwStore near memory size=16M
CachemwStore far redis url=@URL@ @PATIENCE@
CachemwStore pages multitier l1=near l2=far @OPTIONS@
"""

FAULTY = """
CachemwStore far redis url=@URL@ @PATIENCE@
CachemwStore pages faulty_remote inner=far faults=@DIR@/faults @OPTIONS@
"""

CONF = SHARED.replace("@PROVIDER@", """
<IfModule mpm_prefork_module>
    ServerLimit 300
    MaxRequestWorkers 300
    StartServers @READY@
    MinSpareServers @READY@
    MaxSpareServers 300
</IfModule>
<IfModule !mpm_prefork_module>
    ServerLimit 2
    ThreadLimit 150
    StartServers 2
    ThreadsPerChild 150
    MinSpareThreads 1
    MaxSpareThreads 300
    MaxRequestWorkers 300
</IfModule>
@STORES@
CachemwProvider pages
CachemwNamespace one
CacheEnable cachemw /
@MORE@
""")


@pytest.fixture(params=[PLAIN, TIERS], ids=["plain", "tiers"])
def stores(request):
    return request.param


@pytest.fixture
def make(httpd, redis):
    def start(count=1, stores=PLAIN, options="", quick="on", more="",
              patience=PATIENT, within=LONG, ready=10):
        names = {"QUICK": quick, "STORES": stores, "URL": redis.url,
                 "PATIENCE": patience, "PROVIDER": "", "MORE": more,
                 "READY": ready,
                 "OPTIONS": f"coalesce_timeout={within}s {options}"}
        servers = [httpd(CONF, names, extra=MODULES) for _ in range(count)]
        if count > 1:
            wait_sharing(servers, stores, count)
        return servers
    return start


def wait_sharing(servers, stores, count):
    """until each of SERVERS knows that there are COUNT"""
    name = "pages" if stores is PLAIN else "far"
    for server in servers:
        wait_for(lambda: figures(server, name).get("Servers") == str(count),
                 f"{count} servers to be known")


def herds(servers, page, count):
    """COUNT requests, spread over all SERVERS"""
    all_of_them = [Herd(x) for x in servers]
    for i in range(count):
        all_of_them[i % len(servers)].send(page, host=HOST)
    return all_of_them


def locks(redis):
    return [x for x in redis.keys() if x.endswith(b":lock")]


def entries(redis):
    """pages are stored behind the last byte"""
    return [x for x in redis.keys()
            if x != b"cachemw:servers" and not x.endswith(b":lock")]


def scripts(redis):
    """how often a server has found a lock taken, or let go of one"""
    return redis.calls()["evalsha"]


def wait_refused(redis, before, servers):
    """until each of so many has found a lock taken"""
    wait_for(lambda: scripts(redis) >= before + servers,
             "the others to ask for the lock")


def wait_let_go(redis):
    """pages are stored, and locks let go, behind the last byte"""
    wait_for(lambda: not locks(redis), "the locks to go", SOON)


# ---- one fetch ---------------------------------------------------------------

def test_one_fetch_for_all_servers(make, redis, origin, path, stores, quick):
    servers = make(3, stores, quick=quick, ready=100)
    page, gate, body = path(), Gate(), noise(30000)
    origin.page(page, body, gate=gate)
    before = scripts(redis)
    visits = herds(servers, page, 200)
    for herd in visits:
        herd.wait_busy()
    asked(origin, page, 1)
    wait_refused(redis, before, 4)
    gate.open()
    for herd in visits:
        herd.all_right(body)
    assert origin.count(page) == 1
    came = sorted(x.res.cache for herd in visits for x in herd.visits)
    assert came == ["HIT"] * 199 + ["MISS"]
    wait_let_go(redis)


def test_stale_page_is_revalidated_once(make, redis, origin, path, stores):
    servers = make(3, stores)
    page, gate, body = path(), Gate(), noise(3000)
    stale = [("Cache-Control", "max-age=60"), ("Age", "61")]
    origin.on(page, Turns(Reply(body, stale, etag='"a"'),
                          cacheable(body, etag='"b"', gate=gate)))
    assert get(servers[0], page).body == body
    before = scripts(redis)
    visits = herds(servers, page, 30)
    for herd in visits:
        herd.wait_busy()
    asked(origin, page, 2)
    wait_refused(redis, before, 4)
    gate.open()
    for herd in visits:
        herd.all_right(body)
    assert origin.count(page) == 2
    assert origin.last(page).get("If-None-Match") == '"a"'


def test_others_serve_the_stale_page_meanwhile(make, redis, origin, path,
                                               stores):
    servers = make(3, stores)
    page, gate, body = path(), Gate(), noise(3000)
    stale = [("Cache-Control", "max-age=60, stale-while-revalidate=3600"),
             ("Age", "61")]
    origin.on(page, Turns(Reply(body, stale), Reply(body, stale, gate=gate)))
    assert get(servers[0], page).body == body
    visit = Herd(servers[0])
    visit.send(page, host=HOST)
    asked(origin, page, 2)
    for server in servers:
        assert get(server, page).body == body
    assert origin.count(page) == 2
    gate.open()
    visit.all_right(body)


def test_page_that_varies_is_fetched_once_for_each_variant(make, redis, origin,
                                                           path, stores):
    servers = make(3, stores)
    page = path()

    def variant(req):
        language = req.get("Accept-Language")
        return cacheable(language.encode() * 500, headers=[
            ("Vary", "Accept-Language")], gate=gates[language])

    gates = {"de": Gate(), "fr": Gate()}
    origin.on(page, variant)
    gates["de"].open()
    assert get(servers[0], page, headers=[("Accept-Language", "de")]).status \
        == 200
    before = scripts(redis)
    all_of_them = [Herd(x) for x in servers]
    for herd in all_of_them:
        herd.send(page, 10, [("Accept-Language", "fr")], host=HOST)
        herd.wait_busy()
    wait_refused(redis, before, 3)
    gates["fr"].open()
    for herd in all_of_them:
        herd.all_right(b"fr" * 500)
    assert origin.count(page) == 2


# ---- who fetches dies --------------------------------------------------------

def fetcher(servers, origin, page):
    peer = origin.last(page).peer
    for server in servers:
        try:
            return server, owner_of(server, peer)
        except AssertionError:
            pass
    raise AssertionError("no server fetches")


def begin_a_fetch_that_fails(servers, redis, origin, page, body, count):
    lost = Gate()
    origin.on(page, Turns(cacheable(b"lost", gate=lost), cacheable(body)))
    before = scripts(redis)
    visits = herds(servers, page, count)
    for herd in visits:
        herd.wait_busy()
    asked(origin, page, 1)
    wait_refused(redis, before, 4)
    assert origin.count(page) == 1
    return visits, lost, *fetcher(servers, origin, page)


def rest_is_right(visits, body):
    for herd in visits:
        herd.end(LONG + SOON)
    cut = [x for herd in visits for x in herd.visits if not x.is_whole]
    whole = [x for herd in visits for x in herd.visits if x.is_whole]
    assert {x.res.body for x in whole} == {body}
    return {x.server for x in cut}


def test_killed_child_costs_one_more_fetch(make, redis, origin, path, stores):
    servers = make(3, stores)
    page, body = path(), noise(9000)
    visits, lost, server, pid = begin_a_fetch_that_fails(
        servers, redis, origin, page, body, 60)
    kill(server, pid)
    assert rest_is_right(visits, body) == {server}
    assert origin.count(page) == 2
    lost.open()


def test_killed_server_costs_one_more_fetch(make, redis, origin, path, stores):
    servers = make(3, stores)
    page, body = path(), noise(9000)
    visits, lost, server, _ = begin_a_fetch_that_fails(
        servers, redis, origin, page, body, 60)
    os.killpg(server.pid, signal.SIGKILL)
    assert rest_is_right(visits, body) == {server}
    assert origin.count(page) == 2
    lost.open()
    server.process.wait()
    Httpd.live.remove(server)
    server.start()
    assert get(server, page).body == body


def test_lock_of_a_killed_child_is_let_go(make, redis, origin, path, stores):
    server, = make(1, stores, "coalesce_servers=on")
    page, gate = path(), Gate()
    origin.on(page, Turns(cacheable(b"lost", gate=gate), cacheable(b"page")))
    herd = Herd(server)
    herd.send(page, host=HOST)
    asked(origin, page, 1)
    lock, = locks(redis)
    redis.ask("PEXPIRE", lock, 600000)
    kill(server, owner_of(server, origin.last(page).peer))
    wait_for(lambda: not locks(redis), "the lock to go", LONG)
    herd.end()
    gate.open()
    assert get(server, page).body == b"page"


def test_lock_is_extended_while_the_page_is_fetched(make, redis, origin, path,
                                                    stores):
    server, = make(1, stores, "coalesce_servers=on")
    page, gate = path(), Gate()
    origin.page(page, b"page", gate=gate)
    herd = Herd(server)
    herd.send(page, host=HOST)
    asked(origin, page, 1)
    lock, = locks(redis)
    assert 0 < redis.ask("PTTL", lock) <= LONG * 1000 / 4
    redis.ask("PEXPIRE", lock, 2000)
    wait_for(lambda: redis.ask("PTTL", lock) > 2000, "more time", LONG)
    gate.open()
    herd.all_right(b"page")
    wait_let_go(redis)


@pytest.mark.parametrize("more", [(), ("PX", 2 * 3600 * 1000)],
                         ids=["forever", "hours"])
def test_lock_that_no_server_has_set_is_none(make, redis, origin, path, stores,
                                             more):
    server, = make(1, stores, "coalesce_servers=on")
    page, strange, gate = path(), b"x" * 16, Gate()
    origin.page(page, b"page", age=0, gate=gate)
    herd = Herd(server)
    herd.send(page, host=HOST)
    asked(origin, page, 1)
    lock, = locks(redis)
    gate.open()
    herd.all_right(b"page")
    wait_let_go(redis)
    redis.ask("SET", lock, strange, *more)
    gate = Gate()
    origin.page(page, b"page", age=0, gate=gate)
    herd.send(page, host=HOST)
    gate.wait_reached()
    assert redis.ask("GET", lock) not in (None, strange)
    assert 0 < redis.ask("PTTL", lock) <= LONG * 1000 / 4
    gate.open()
    herd.all_right(b"page")
    wait_let_go(redis)


def test_lock_of_a_server_that_vanished_is_waited_for_within_bounds(
        make, redis, origin, path, stores):
    server, = make(1, stores, "coalesce_servers=on", within=3)
    page, gate = path(), Gate()
    origin.page(page, b"page", age=0, gate=gate)
    herd = Herd(server)
    herd.send(page, host=HOST)
    asked(origin, page, 1)
    lock, = locks(redis)
    redis.ask("SET", lock, "another server's", "PX", 600000)
    gate.open()
    herd.all_right(b"page")
    assert redis.ask("GET", lock) == b"another server's"
    redis.ask("DEL", *wait_for(lambda: entries(redis), "the page"))
    server.graceful()               # forgets that it cannot be stored
    origin.page(page, b"page")
    visit, = herd.send(page, host=HOST)
    herd.all_right(b"page")
    assert origin.count(page) == 2
    assert int(figures(server)["WaitsTimedOut"]) >= 1


# ---- waiting would be of no use ----------------------------------------------

def test_page_that_cannot_be_stored_is_not_waited_for(make, redis, origin, path,
                                                      stores):
    """Locks live for longer than these visits may take."""
    servers = make(3, stores)
    page, gate = path(), Gate()
    origin.on(page, Reply(b"mine", [("Cache-Control", "private")], gate=gate))
    before = scripts(redis)
    visits = herds(servers, page, 30)
    for herd in visits:
        herd.wait_busy()
    wait_refused(redis, before, 4)
    gate.open()
    for herd in visits:
        herd.all_right(b"mine", timeout=SOON)
    wait_let_go(redis)


def test_failed_fetch_is_taken_over(make, redis, origin, path, stores):
    servers = make(3, stores)
    page, gate = path(), Gate()
    origin.on(page, Turns(cacheable(noise(90000), cut_after=50000, gate=gate),
                          cacheable(b"page")))
    before = scripts(redis)
    visits = herds(servers, page, 30)
    for herd in visits:
        herd.wait_busy()
    asked(origin, page, 1)
    wait_refused(redis, before, 4)
    gate.open()
    for herd in visits:
        herd.end(SOON)
    bodies = [x.res.body for herd in visits for x in herd.visits if x.is_whole]
    assert len(bodies) >= 29 and set(bodies) == {b"page"}
    assert origin.count(page) == 2


def test_request_by_way_of_another_server_does_not_wait_for_it(make, redis,
                                                               origin, path,
                                                               httpd):
    inner, = make()
    outer, = make(more=f'ProxyPreserveHost on\nProxyPass "/" '
                  f'"http://127.0.0.1:{inner.ports[0]}/"')
    page = path()
    origin.page(page, b"page")
    herd = Herd(outer)
    herd.send(page, host=HOST)
    herd.all_right(b"page", timeout=SOON)
    assert origin.count(page) == 1


def test_each_server_fetches_for_itself_when_told_to(make, redis, origin, path,
                                                     stores):
    servers = make(3, stores, "coalesce_servers=off")
    page, gate = path(), Gate()
    origin.page(page, b"page", gate=gate)
    visits = herds(servers, page, 30)
    asked(origin, page, 3)
    for herd in visits:
        herd.wait_busy()
    assert not locks(redis)
    gate.open()
    for herd in visits:
        herd.all_right(b"page")
    assert origin.count(page) == 3


# ---- there are others, or not ----

def stores_without_locks(server, redis, origin, path, name=""):
    page = path(name)
    origin.page(page, b"page")
    before = redis.calls()
    assert get(server, page).cache == "MISS"
    assert get(server, page).cache == "HIT"
    after = redis.calls()
    return not {"set", "evalsha", "unlink"} & {
        k for k in after if after[k] != before.get(k, 0)}


def test_locks_are_for_servers_that_are_not_alone(make, redis, origin, path,
                                                  stores):
    one, = make(1, stores)
    wait_sharing([one], stores, 1)
    assert stores_without_locks(one, redis, origin, path)
    other, = make(1, stores)
    wait_sharing([one, other], stores, 2)
    assert not stores_without_locks(one, redis, origin, path, "two")
    wait_let_go(redis)
    os.killpg(other.pid, signal.SIGKILL)
    other.process.wait()
    Httpd.live.remove(other)
    for name in redis.ask("ZRANGE", "cachemw:servers", 0, -1):
        redis.ask("ZADD", "cachemw:servers", "XX", 1, name)     # long ago
    wait_sharing([one], stores, 1)
    assert stores_without_locks(one, redis, origin, path, "again")
    other.start()
    wait_sharing([one, other], stores, 2)


def test_restart_makes_no_other_server_of_one(make, redis, origin, path):
    server, = make()
    wait_sharing([server], PLAIN, 1)
    name, = redis.ask("ZRANGE", "cachemw:servers", 0, -1)
    server.graceful()
    before = int(redis.ask("TIME")[0]) * 1000 + 1000
    wait_for(lambda: int(redis.ask("ZSCORE", "cachemw:servers", name))
             > before, "the same name")
    assert redis.ask("ZCARD", "cachemw:servers") == 1
    assert figures(server)["Servers"] == "1"


def test_alone_it_has_locks_when_told_to(make, redis, origin, path, stores):
    server, = make(1, stores, "coalesce_servers=on")
    wait_sharing([server], stores, 1)
    assert not stores_without_locks(server, redis, origin, path)


def test_who_may_not_be_known_has_locks(make, redis, origin, path):
    redis.ask("ACL", "SETUSER", "default", "-zadd")
    server, = make()
    wait_for(lambda: int(figures(server).get("Failures-other", 0))
             + int(figures(server).get("Failures-NOPERM", 0)) > 1, "two refusals")
    assert "Servers" not in figures(server)
    assert not stores_without_locks(server, redis, origin, path)


def test_set_of_servers_is_no_entry(make, redis, origin, path):
    server, = make()
    wait_sharing([server], PLAIN, 1)
    assert 0 < redis.ask("PTTL", "cachemw:servers") <= 15000
    assert redis.ask("ZCARD", "cachemw:servers") == 1


# ---- Redis, or its locks, in trouble -----------------------------------------

def test_without_leave_for_locks_each_server_fetches(make, redis, origin, path,
                                                     stores):
    servers = make(3, stores)
    redis.ask("ACL", "SETUSER", "default", "resetkeys",
              "~cachemw:{" + "?" * 32 + "}")
    page, gate = path(), Gate()
    origin.page(page, b"page", gate=gate)
    visits = herds(servers, page, 9)
    asked(origin, page, 3)
    gate.open()
    for herd in visits:
        herd.all_right(b"page")
    assert origin.count(page) == 3
    assert get(servers[0], page).cache == "HIT"


@pytest.mark.parametrize("fault", ["error", "error=ECONNRESET", "timeout"])
def test_trouble_with_a_lock_is_no_lock(make, origin, path, fault):
    servers = make(2, FAULTY, patience="")
    for server in servers:
        write(server, f"lock {fault}")
    page, gate = path(), Gate()
    origin.page(page, b"page", gate=gate)
    visits = herds(servers, page, 6)
    asked(origin, page, 2)
    gate.open()
    for herd in visits:
        herd.all_right(b"page", timeout=SOON)
    assert origin.count(page) == 2
    assert get(servers[1], page).cache == "HIT"
    told = figures(servers[0])
    assert int(told["Timeouts" if fault == "timeout" else "OtherErrors"]) >= 1


def test_trouble_with_letting_go_harms_nobody(make, origin, path):
    server, = make(1, FAULTY, "coalesce_servers=on", patience="")
    write(server, "unlock error")
    page = path()
    origin.page(page, b"page")
    assert get(server, page).body == b"page"
    assert get(server, page).cache == "HIT"
