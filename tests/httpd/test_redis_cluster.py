# SPDX-License-Identifier: Apache-2.0
"""A cluster of Redis servers: a page is looked for where its slot is, and
while slots move and masters die no visitor notices."""

import contextlib
import random
import select
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import SITE
from harness import settings
from harness.origin import Gate
from harness.redis import SLOTS, Cluster, Redis
from harness.server import wait_for
from harness.storm import PATIENCE, Storm
from test_basic import noise
from test_redis import assert_told
from test_status import figures

MODULES = ["cachemw", "cachemw_redis"]

STORE = """
CachemwStore pages redis url=@URL@ @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""

pytestmark = [pytest.mark.redis]


@pytest.fixture
def cluster(request):
    one = Cluster(**getattr(request, "param", {})).start()
    yield one
    one.remove()


@pytest.fixture
def make(httpd):
    def start(url, options="", conf=SITE):
        return httpd(conf, {"QUICK": "on", "PROVIDER": STORE, "URL": url,
                            "OPTIONS": options}, extra=MODULES)
    return start


def fill(server, origin, path, count=30):
    pages = {path(f"p{i}"): noise(1 + 3000 * i, i) for i in range(count)}
    for page, body in pages.items():
        origin.page(page, body, etag='"1"')
        assert server.get(page).body == body
    return pages


def caches(server, pages):
    """what X-Cache said of each; every body is right"""
    found = []
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.body) == (200, body), page
        found.append(res.cache)
    return found


def assert_hits_resume(server, origin, path):
    pages = fill(server, origin, path)
    wait_for(lambda: caches(server, pages) == ["HIT"] * len(pages),
             "all pages to be hits", 10)


def assert_told_once(server, began, text):
    """or, as all lines of a kind, once in ten seconds"""
    told = [x for x in server.log().splitlines() if text in x]
    assert 1 <= len(told) <= 1 + (time.monotonic() - began) / 10, server.log()


def hits(server):
    return int(figures(server)["Hits"])


def slots_used(server):
    """slots of SERVER that have keys"""
    return sorted({server.ask("CLUSTER", "KEYSLOT", key)
                   for key in server.keys()})


@pytest.mark.mpm
def test_each_page_is_where_its_slot_is(make, cluster, origin, path):
    server = make(cluster.url)
    pages = fill(server, origin, path)
    assert caches(server, pages) == ["HIT"] * len(pages)
    assert all(one.keys() for one in cluster.masters)
    assert not sum(int(one.info("errorstats").get("errorstat_MOVED",
                                                  "count=0").split("=")[1])
                   for one in cluster.masters)


@pytest.mark.parametrize("is_there, said", [(False, "no answer"),
                                            (True, "other")])
def test_one_node_tells_of_the_others(make, cluster, origin, path, is_there,
                                      said):
    """and a line of the one that does not"""
    wrong = Redis()
    if is_there:
        wrong.start()
    try:
        began = time.monotonic()
        server = make(f"redis+cluster://{wrong.hostport},"
                      f"{cluster.masters[2].hostport}",
                      "timeout=5s store_timeout=5s connect_timeout=5s")
        pages = fill(server, origin, path)
        assert caches(server, pages) == ["HIT"] * len(pages)
        assert_told_once(server, began, f"{wrong.hostport} does not tell who "
                         f"serves which slots ({said}); another node does")
    finally:
        wrong.remove()


def test_one_alone_is_no_cluster(make, origin, path):
    one = Redis().start()
    try:
        server = make(f"redis+cluster://{one.hostport}")
        pages = fill(server, origin, path, 4)
        assert caches(server, pages) == ["MISS"] * 4
        assert_told(server, f"{one.hostport} does not tell who serves which "
                    "slots (other): is it a node of a cluster?")
        assert "Connection refused" not in server.log()
    finally:
        one.remove()


def test_slots_have_moved(make, cluster, origin, path):
    """MOVED: found at once where they are now"""
    server = make(cluster.url)
    pages = fill(server, origin, path)
    first, second = cluster.masters[:2]
    for slot in slots_used(first):
        cluster.move(slot, second)
    assert not first.keys()
    assert caches(server, pages) == ["HIT"] * len(pages)


def test_slots_are_on_the_way(make, cluster, origin, path):
    """ASK: what was carried over already is found there, what was not, here;
    what is new goes there"""
    server = make(cluster.url)
    pages = fill(server, origin, path)
    first, second = cluster.masters[:2]
    slots = slots_used(first)
    for i, slot in enumerate(slots):
        cluster.begin_move(slot, second)
        if i % 2:
            cluster.carry(slot, first, second)
    assert caches(server, pages) == ["HIT"] * len(pages)
    for one in cluster.masters:
        one.ask("FLUSHALL")
    assert caches(server, pages) == ["MISS"] * len(pages)
    assert caches(server, pages) == ["HIT"] * len(pages)
    for slot in slots:
        cluster.carry(slot, first, second)
        cluster.end_move(slot, second)
    assert caches(server, pages) == ["HIT"] * len(pages)


def key_of(cluster, server, page):
    """the one that PAGE has, which is then gone"""
    server.get(page)
    wait_for(lambda: any(one.keys() for one in cluster.masters), "the page")
    key = next(key for one in cluster.masters for key in one.keys())
    for one in cluster.masters:
        one.ask("FLUSHALL")
    return key


def slot_of(cluster, key):
    slot = cluster.masters[0].ask("CLUSTER", "KEYSLOT", key)
    source = cluster.owner(slot)
    return slot, source, next(x for x in cluster.masters if x is not source)


@pytest.mark.parametrize("size", [5000, 3000000])
def test_slot_moves_before_a_page_is_stored(make, cluster, origin, path, size):
    """MOVED and ASK: a body that is not in memory as a whole follows, too"""
    server = make(cluster.url, "timeout=5s store_timeout=5s")
    page, body, gate = path(), noise(size, 1), Gate()
    origin.page(page, body)
    slot, source, target = slot_of(cluster, key_of(cluster, server, page))
    origin.page(page, body, gate=gate)
    with ThreadPoolExecutor(1) as visitor:
        visit = visitor.submit(server.get, page)
        gate.wait_reached()
        cluster.move(slot, target)
        gate.open()
        assert visit.result().body == body
    assert caches(server, {page: body}) == ["HIT"]
    assert target.keys() and not source.keys()
    target.ask("FLUSHALL")
    cluster.begin_move(slot, source)
    assert caches(server, {page: body}) == ["MISS"]
    assert caches(server, {page: body}) == ["HIT"]
    assert source.keys() and not target.keys()


@pytest.mark.parametrize("size", [5000, 3000000])
def test_page_is_changed_while_its_slot_is_on_the_way(make, cluster, origin,
                                                      path, size):
    server = make(cluster.url, "timeout=5s store_timeout=5s")
    page, body = path(), noise(size, 1)
    origin.page(page, body)
    slot, source, target = slot_of(cluster, key_of(cluster, server, page))
    for is_carried in (False, True):
        assert server.get(page).body == body
        assert caches(server, {page: body}) == ["HIT"]
        cluster.begin_move(slot, target)
        if is_carried:
            cluster.carry(slot, source, target)
        body = noise(size, 2 + is_carried)
        origin.page(page, body)
        assert server.ask("POST", page, body=b"").status == 200
        assert caches(server, {page: body}) == ["MISS"]
        assert caches(server, {page: body}) == ["HIT"]
        cluster.carry(slot, source, target)
        cluster.end_move(slot, target)
        source, target = target, source


def test_suite_holds_while_slots_are_on_the_way(cluster):
    """Each entry is asked for twice; what lists and clears finds them where
    they are."""
    first, second = cluster.masters[:2]
    with first.wire() as source, second.wire() as target:
        slots = range(SLOTS // 3)
        ids = cluster.id(first), cluster.id(second)
        for slot in slots:
            target.send("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            source.send("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        assert {wire.read() for wire in (source, target) for _ in slots} \
            == {"OK"}
    for tests in ("test_keys_*", "test_clear*"):
        done = subprocess.run(
            [settings.build / "tests/conformance/conformance", "--test", tests,
             "--load", settings.dso("cachemw_redis"), "redis",
             f"url={cluster.url}", "timeout=20s", "store_timeout=20s",
             "connect_timeout=10s"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert second.info("errorstats").get("errorstat_MOVED")


class Moving:
    """Two nodes of a cluster, in truth one Redis: whenever a scan comes to the
    second node, all that it had has just moved to the first one."""

    def __init__(self, redis):
        self.redis, self.is_first_due = redis, False
        self.scans = []
        self.listeners = [socket.create_server(("127.0.0.1", 0))
                          for _ in range(2)]
        self.ports = [x.getsockname()[1] for x in self.listeners]
        for i in range(2):
            threading.Thread(target=self._accept, args=[i],
                             daemon=True).start()

    def _accept(self, i):
        while True:
            try:
                client, _ = self.listeners[i].accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[i, client],
                             daemon=True).start()

    def _serve(self, i, client):
        with client, contextlib.suppress(OSError), socket.create_connection(
                ("127.0.0.1", self.redis.port)) as server:
            while True:
                for one in select.select([client, server], [], [])[0]:
                    data = one.recv(1 << 20)
                    if not data:
                        return
                    if one is server:
                        client.sendall(data)
                    else:
                        said = self._answer(i, data)
                        (client if said else server).sendall(said or data)

    def _answer(self, i, data):
        """None: Redis itself does"""
        if data.startswith(b"*2\r\n$7\r\nCLUSTER\r\n"):
            return b"*2\r\n" + b"".join(
                b"*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n"
                % (8192 * n, 8192 * n + 8191, self.ports[n])
                for n in range(2))
        if b"\r\n$4\r\nSCAN\r\n" not in data[:16]:
            self.is_first_due = False
            return None
        self.scans.append(i)
        if i == 1:
            self.is_first_due = True
        return None if i == 0 and self.is_first_due \
            else b"*2\r\n$1\r\n0\r\n*0\r\n"

    def close(self):
        for one in self.listeners:
            one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.mark.parametrize("test", ["test_keys_tells_every_entry_once",
                                  "test_keys_of_an_empty_store",
                                  "test_clear_removes_every_entry"])
def test_what_moves_behind_the_scan_is_found(test):
    redis = Redis().start()
    moving = Moving(redis)
    try:
        done = subprocess.run(
            [settings.build / "tests/conformance/conformance", "--test", test,
             "--load", settings.dso("cachemw_redis"), "redis",
             "url=redis+cluster://127.0.0.1:%d" % moving.ports[0],
             "timeout=20s", "store_timeout=20s", "connect_timeout=10s"],
            capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert moving.scans[:4] == [0, 1, 0, 1]
    finally:
        moving.close()
        redis.remove()


def storm_on(make, url, disturb, is_lost=False):
    """While there are visitors, disturb(); nobody of them may notice, and hits
    come back. Where what a master had IS_LOST, the rest of a long body that a
    visitor has begun to read is nowhere: it is cut. @return the server"""
    processes, threads = 2, 3
    with Storm() as storm:
        server = make(url, "keep=0", conf=storm.proxied(SITE))
        storm.visitors(server.ports[0], processes, threads)
        wait_for(lambda: hits(server) > 50, "hits")
        disturb()
        before = hits(server)
        began = time.monotonic()
        wait_for(lambda: hits(server) > before + 50, "hits to resume")
        resumed = time.monotonic() - began
        seen, slowest, wrong = storm.finish()
    print(f"{dict(seen)}; slowest {slowest:.2f} s; hits after {resumed:.2f} s")
    assert not wrong, wrong[:3]
    assert seen["cut"] <= is_lost * processes * threads
    assert slowest < PATIENCE
    return server


@pytest.mark.mpm
def test_slots_move_under_load(make, cluster, origin, path):
    dice = random.Random(1)

    def move():
        end = time.monotonic() + 5
        while time.monotonic() < end:
            source, target = dice.sample(cluster.masters, 2)
            for slot in slots_used(source)[:5]:
                cluster.begin_move(slot, target)
                time.sleep(0.02)
                cluster.carry(slot, source, target)
                time.sleep(0.02)
                cluster.end_move(slot, target)

    server = storm_on(make, cluster.url, move)
    assert_hits_resume(server, origin, path)


@pytest.mark.parametrize("cluster", [{"replicas": 1}], indirect=True)
def test_master_is_killed_and_replaced_under_load(make, cluster, origin, path):
    old, new = cluster.masters[0], cluster.replicas[0]

    def kill():
        old.kill()
        wait_for(lambda: cluster.owner(0) is new, "the replica to take over")

    server = storm_on(make, cluster.url, kill, is_lost=True)
    assert_hits_resume(server, origin, path)
    assert new.keys()


@pytest.mark.mpm
def test_master_is_killed_and_comes_again_under_load(make, cluster, origin,
                                                     path):
    old = cluster.masters[0]

    def kill():
        old.kill()
        time.sleep(3)
        old.start()
        wait_for(lambda: cluster.is_ready(old), "the cluster")

    server = storm_on(make, cluster.url, kill, is_lost=True)
    assert_hits_resume(server, origin, path)


def test_a_third_is_gone(make, cluster, origin, path):
    """the rest goes on: pages of the others are hits all the time"""
    server = make(cluster.url)
    pages = fill(server, origin, path, 60)
    cluster.masters[1].kill()
    for _ in range(3):
        found = caches(server, pages)
        assert found.count("HIT") > 20, found
        assert found.count("HIT") < 60
    assert figures(server)["State"] == "on"


def test_a_third_hangs(make, cluster, origin, path):
    """who asks for what it has waits for a deadline now and then, not more"""
    server = make(cluster.url)
    pages = fill(server, origin, path, 60)
    cluster.masters[1].signal(signal.SIGSTOP)
    try:
        for _ in range(5):
            began = time.monotonic()
            found = caches(server, pages)
            assert found.count("HIT") > 20, found
            assert time.monotonic() - began < 8
        assert figures(server)["State"] == "on"
    finally:
        cluster.masters[1].signal(signal.SIGCONT)
    wait_for(lambda: caches(server, pages) == ["HIT"] * len(pages),
             "all pages to be hits", 10)
    assert "does not answer" in server.log()


def test_all_hang(make, cluster, origin, path):
    """That not one answers but all are away is seen at once: the breaker opens
    as with a single server, and nobody waits longer than the deadlines."""
    server = make(cluster.url, "timeout=800ms store_timeout=800ms")
    pages = fill(server, origin, path, 12)
    wait_for(lambda: caches(server, pages) == ["HIT"] * len(pages),
             "all pages to be hits", 10)
    before = int(figures(server)["Skipped"])
    for one in cluster.masters:
        one.signal(signal.SIGSTOP)
    try:
        taken = []
        for page, body in pages.items():
            if figures(server)["State"] != "on":
                break
            began = time.monotonic()
            assert server.get(page).body == body
            taken.append(time.monotonic() - began)
        assert figures(server)["State"].startswith("breaker open")
        # each has one for finding the page and one for storing it
        assert len(taken) <= 4, taken
        assert int(figures(server)["Skipped"]) - before <= 2
        assert max(taken) < 1.6 + 3, taken
    finally:
        for one in cluster.masters:
            one.signal(signal.SIGCONT)
    wait_for(lambda: caches(server, pages) == ["HIT"] * len(pages),
             "all pages to be hits", 40)


def test_all_are_gone_and_come_again(make, cluster, origin, path):
    server = make(cluster.url)
    pages = fill(server, origin, path, 10)
    for one in cluster.masters:
        one.kill()
    caches(server, pages)
    began = time.monotonic()
    assert caches(server, pages) == ["MISS"] * len(pages)
    assert time.monotonic() - began < 2
    for one in cluster.masters:
        one.start()
    for one in cluster.masters:
        wait_for(lambda: cluster.is_ready(one), "the cluster")
    wait_for(lambda: caches(server, pages) == ["HIT"] * len(pages),
             "all pages to be hits", 40)


@pytest.mark.parametrize("cluster", [{"password": "s3c/ret"}], indirect=True)
def test_nodes_want_a_password(make, cluster, origin, path):
    server = make(cluster.url)
    pages = fill(server, origin, path)
    assert caches(server, pages) == ["HIT"] * len(pages)
