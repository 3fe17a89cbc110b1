# SPDX-License-Identifier: Apache-2.0
"""The provider redis on real servers: what one web server stores, the others
serve; and whatever Redis answers, no visitor notices."""

import collections
import contextlib
import os
import random
import re
import select
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import SHARED, SITE
from harness import settings
from harness.origin import Gate, cacheable
from harness.redis import Redis, RedisError
from harness.server import configtest, wait_for
from harness.shared import HOST, assert_hit, assert_miss, get, post, store, \
    stored
from harness.strace import strace
from harness.tcpproxy import TcpProxy
from test_basic import noise
from test_status import figures

MODULES = ["cachemw", "cachemw_redis"]

STORE = """
CachemwStore pages redis url=@URL@ @PATIENCE@ @OPTIONS@
CachemwProvider pages
CachemwNamespace @NAMESPACE@
CacheEnable cachemw /
"""

pytestmark = [pytest.mark.redis]


@pytest.fixture
def make(httpd):
    def start(url, options="", namespace="one",
              patience="timeout=5s store_timeout=5s connect_timeout=5s"):
        return httpd(SHARED, {"QUICK": "on", "PROVIDER": STORE, "URL": url,
                              "OPTIONS": options, "NAMESPACE": namespace,
                              "PATIENCE": patience}, extra=MODULES)
    return start


def lives(redis, key):
    return redis.ask("PTTL", key) / 1000


def lines(server):
    return [x for x in server.log().splitlines() if "cachemw[pages]" in x]


def assert_told(server, cause):
    """CAUSE, and nothing that leads astray: in the log and as the last
    error"""
    told = lines(server)
    assert any(cause in x for x in told), told
    assert cause in figures(server)["LastError"]
    assert not any("Internal error" in x for x in told), told


# ---- several web servers ----------------------------------------------------

@pytest.mark.mpm
@pytest.mark.parametrize("size", [0, 1, 5000, 65536, 70000, 131073, 3000000])
def test_servers_share_what_one_has_stored(make, redis, origin, path, size):
    one, other = make(redis.url), make(redis.url)
    page = path()
    body = store(one, origin, page, size)
    assert_hit(other, page, body)
    assert_hit(one, page, body)
    assert origin.count(page) == 1


def test_purge_on_one_server_is_one_for_all(make, redis, origin, path):
    one, other = make(redis.url), make(redis.url)
    page = path()
    stored(one, origin, page)
    origin.page(page, b"new")
    post(other, page)
    assert get(one, page).body == b"new"
    assert_hit(other, page, b"new")


@pytest.mark.parametrize("size", [0, 5000, 100000, 200000])
@pytest.mark.parametrize("more", ["a", "another", ""])
def test_a_304_does_not_send_the_body_again(make, redis, origin, path, size,
                                            more):
    """be the new head as long as the old one or not"""
    one, other = make(redis.url), make(redis.url)
    page, body = path(), noise(size, size)
    origin.on(page, cacheable(
        body, 0, etag='"1"', headers=[("X-One", "b")],
        headers_304=[("Cache-Control", "max-age=9"), ("X-One", more)]))
    assert get(one, page).body == body
    written = int(redis.info("stats")["total_net_input_bytes"])
    assert get(other, page).cache == "REVALIDATE"
    assert int(redis.info("stats")["total_net_input_bytes"]) - written < 50000
    assert_hit(one, page, body)
    assert get(one, page).get("X-One") == more
    assert all(lives(redis, key) > 9 for key in redis.keys())


def test_namespaces_are_apart(make, redis, origin, path):
    one, other = make(redis.url), make(redis.url, namespace="two")
    page = path()
    body = stored(one, origin, page)
    assert_miss(other, page, body)
    assert len(redis.keys()) == 2


def test_prefixes_are_apart(make, redis, origin, path):
    one = make(redis.url, "key_prefix=a*:")
    other = make(redis.url, "key_prefix=ab:")
    page = path()
    body = stored(one, origin, page)
    assert_miss(other, page, body)
    assert sorted(x[:3] for x in redis.keys()) == [b"a*:", b"ab:"]


def test_databases_are_apart(make, redis, origin, path):
    one, other = make(redis.url + "/3"), make(redis.url)
    page = path()
    body = stored(one, origin, page)
    assert len(redis.keys(3)) == 1 and not redis.keys()
    assert_miss(other, page, body)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_user_and_password(make, start_redis, origin, path, unix):
    redis = start_redis(password="p@ss:w/%rd", user="kate", unix=unix)
    stored(make(redis.url), origin, path())


def test_password_from_a_file(make, start_redis, origin, path, tmp_path):
    redis = start_redis(password="secret")
    (tmp_path / "password").write_text("secret\n")
    stored(make(f"redis://{redis.hostport}",
                f"password_file={tmp_path}/password"), origin, path())


def test_passwords_are_shown_nowhere(make, start_redis, origin, path):
    redis = start_redis(password="Geheim1234")
    server = make(redis.url)
    stored(server, origin, path())
    assert b"Geheim1234" not in server.get("/server-status").body
    assert "Geheim1234" not in server.log()


def test_host_by_name(make, redis, origin, path):
    server = make(f"redis://localhost:{redis.port}")
    page = path()
    body = store(server, origin, page)
    wait_for(lambda: get(server, page).cache == "HIT", "the address", 5)
    assert_hit(server, page, body)


def test_requests_look_up_no_names(make, redis, origin, path, tmp_path):
    """for nothing limits how long that takes"""
    server = make(f"redis://localhost:{redis.port}")
    page = path()
    body = store(server, origin, page)
    wait_for(lambda: get(server, page).cache == "HIT", "the address", 5)

    def connect_anew():
        for _ in range(5):
            redis.ask("CLIENT", "KILL", "TYPE", "normal")
            assert_hit(server, page, body)

    made = strace(server, connect_anew, tmp_path / "trace",
                  "-etrace=connect,openat,open")
    assert f"htons({redis.port})" in made
    assert not re.findall(r'"/etc/[^"]*"', made)


# ---- one round trip ---------------------------------------------------------

def test_round_trips(make, redis, origin, path):
    server = make(redis.url)
    stored(server, origin, path("warm"))    # connected from here on
    wait_for(lambda: figures(server).get("Servers") == "1", "its count")

    def used(do):
        before = redis.calls()
        do()
        return {k: n - before.get(k, 0) for k, n in redis.calls().items()
                if n != before.get(k, 0)}

    page = path()
    assert used(lambda: stored(server, origin, page, 20000)) \
        == {"get": 2, "psetex": 1}
    assert used(lambda: assert_hit(server, page, noise(20000, 20000))) \
        == {"get": 1}
    # the mark's last end is no reason to look twice; a pause may seem to be one
    assert any(redis.ask("FLUSHALL") and used(lambda: get(server, page))
               == {"get": 1, "psetex": 1} for _ in range(5))
    # without a look-up nobody knows what is there
    reload = [("Cache-Control", "no-cache")]
    assert used(lambda: server.get(page, reload, host=HOST)) \
        == {"getrange": 1, "psetex": 1}
    page = path("varies")
    body = stored(server, origin, page, 20000, headers=[("Vary", "X-Lang")])
    assert used(lambda: assert_hit(server, page, body)) == {"get": 2}
    page = path("long")
    body = stored(server, origin, page, 200000)
    assert used(lambda: assert_hit(server, page, body)) == {"get": 1, "hmget": 3}
    page = path("HEAD")
    stored(server, origin, page, 20000)
    assert used(lambda: server.ask("HEAD", page, host=HOST)) \
        == {"getrange": 1}


def test_body_of_a_long_entry_outlives_it_for_a_minute(make, redis, origin,
                                                       path):
    server = make(redis.url)
    page = path()
    stored(server, origin, page, 300000)
    old = Parts(redis)
    assert lives(redis, old.body) > lives(redis, old.key) > 600
    origin.page(page, b"other")
    post(server, page)
    assert get(server, page).body == b"other"
    assert_hit(server, page, b"other")
    assert redis.ask("HEXISTS", old.body, "4") == 1
    assert 30 < lives(redis, old.body) <= 60


def test_connections_are_kept(make, redis, origin, path):
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page)
    before = int(redis.info("stats")["total_connections_received"])
    for _ in range(50):
        assert_hit(server, page, body)
    # each ask of the test itself is one
    made = int(redis.info("stats")["total_connections_received"]) - before
    assert made <= 1 + 2 * len(server.children())


# ---- what Redis may do ------------------------------------------------------

def test_flushall_costs_misses(make, redis, origin, path):
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page, 300000)
    redis.ask("FLUSHALL")
    assert_miss(server, page, body)
    assert_hit(server, page, body)


def test_scripts_are_forgotten(make, redis, origin, path):
    server = make(redis.url)
    page = path()
    stored(server, origin, page)
    redis.ask("SCRIPT", "FLUSH")
    origin.page(page, b"other")
    post(server, page)
    assert get(server, page).body == b"other"
    redis.ask("SCRIPT", "FLUSH")
    stored(server, origin, path("next"), 300000)


def test_redis_starts_anew(make, redis, origin, path):
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page)
    redis.kill()
    redis.start()
    # the idle connection is replaced within the request
    assert_miss(server, page, body)
    assert_hit(server, page, body)
    assert int(figures(server).get("Failures-retried", 0)) >= 1


@pytest.mark.parametrize("size", [5000, 3000000])
def test_connection_ends_before_a_page_is_stored(make, redis, origin, path,
                                                 size):
    """Also a body that is not in memory as a whole is sent again."""
    server, page, gate = make(redis.url), path(), Gate()
    body = noise(size, size)
    origin.page(page, body, gate=gate)
    with ThreadPoolExecutor(1) as visitor:
        visit = visitor.submit(get, server, page)
        gate.wait_reached()
        redis.ask("CLIENT", "KILL", "TYPE", "normal")
        gate.open()
        assert visit.result().body == body
    assert_hit(server, page, body)
    assert int(figures(server)["Failures-retried"]) == 1


def test_all_connections_are_in_use(make, redis, origin, path):
    """who gets none in time has a miss, which is no failure of Redis"""
    with TcpProxy(("127.0.0.1", redis.port)) as proxy:
        server = make(f"redis://127.0.0.1:{proxy.port}", "max_connections=1",
                      patience="timeout=3s store_timeout=3s "
                      "connect_timeout=3s")
        page = path()
        body = stored(server, origin, page)
        proxy.set("delay", seconds=2)
        before = int(figures(server)["Skipped"])

        def come():
            with ThreadPoolExecutor(4) as visitors:
                for res in visitors.map(lambda _: get(server, page), range(4)):
                    assert (res.status, res.body) == (200, body)
            return int(figures(server).get("Failures-all-in-use", 0))

        wait_for(come, "somebody to get none", 30)
        proxy.set("pass")
        found = figures(server)
        assert int(found["Skipped"]) > before
        assert_hit(server, page, body)


def test_redis_evicts_all_the_time(make, start_redis, origin, path):
    redis = start_redis("maxmemory 3mb\nmaxmemory-policy allkeys-lru")
    server = make(redis.url)
    pages = {path(f"p{i}"): noise(40000, i) for i in range(60)}
    for page, body in pages.items():
        origin.page(page, body)
        assert get(server, page).body == body
    for page, body in pages.items():
        assert get(server, page).body == body
    assert int(redis.info("stats")["evicted_keys"]) > 0
    found = figures(server)
    assert int(found["GetErrors"]) == int(found["SetErrors"]) == 0, found


def read_slowly(server, page, meanwhile=None):
    """what a visitor gets who has the first bytes of a hit in a small buffer
    while MEANWHILE runs; None: it was no hit"""
    with server.connect(host=HOST, rcvbuf=8192) as conn:
        conn.send("GET", page)
        res = conn.head()
        if meanwhile:
            if res.cache != "HIT":
                return None
            meanwhile()
        return conn.body(res)


def test_redis_evicts_under_load(make, start_redis, origin, path):
    """Entries and the hashes of long bodies go at any moment, also of those
    that are being read: nobody takes what he gets for a whole page unless it
    is."""
    redis = start_redis("maxmemory 8mb\nmaxmemory-policy allkeys-lru")
    server = make(redis.url)
    pages = [(path(f"p{i}"), noise(300000 + 40000 * i, i)) for i in range(20)]
    for page, body in pages:
        origin.page(page, body)
    seen, wrong, is_over = collections.Counter(), [], threading.Event()

    def visit(seed):
        dice = random.Random(seed)
        while not is_over.is_set() and not wrong:
            page, body = pages[int(dice.random() ** 2 * len(pages))]
            res = read_slowly(server, page) if seed % 2 else get(server, page)
            seen[res.cache if res.complete else "cut"] += 1
            if res.status != 200 or not body.startswith(res.body) \
                    or res.complete != (res.body == body) \
                    or not (res.complete or res.cache == "HIT"):
                wrong.append(res)

    with ThreadPoolExecutor(4) as visitors:
        visits = [visitors.submit(visit, i) for i in range(4)]
        try:
            wait_for(lambda: wrong or seen["HIT"] > 200 and int(redis.info(
                "stats")["evicted_keys"]) > 200, "hits and evictions", 120)
        finally:
            is_over.set()
        for one in visits:
            one.result()
    print(dict(seen), redis.info("stats")["evicted_keys"])
    assert not wrong, wrong[:2]
    found = figures(server)
    assert int(found["GetErrors"]) == int(found["SetErrors"]) == 0, found
    assert "Failures-damaged" not in found and found["State"] == "on"


def evict(redis):
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    wait_for(lambda: not redis.keys(), "the eviction")
    redis.ask("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize("lose", [
    evict, lambda redis: redis.ask("FLUSHALL"),
    lambda redis: redis.ask("DEL", Parts(redis).body)],
    ids=["eviction", "FLUSHALL", "eviction-of-the-body"])
def test_long_body_goes_while_it_is_read(make, redis, origin, path, lose):
    """What a visitor has begun to read is cut, so that he sees that it is not
    whole; the next one gets it anew."""
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page, 8000000)
    res = read_slowly(server, page, lambda: lose(redis))
    assert not res.complete and 0 < len(res.body) < len(body)
    assert body.startswith(res.body)
    assert_miss(server, page, body)
    assert_hit(server, page, body)
    found = figures(server)
    assert found["CutBodies"] == "1" and found["State"] == "on"
    assert found["GetErrors"] == found["SetErrors"] == "0", found


def test_redis_is_full(make, start_redis, origin, path):
    redis = start_redis("maxmemory 2mb\nmaxmemory-policy noeviction")
    server = make(redis.url)
    bodies = {}
    for i in range(40):
        page = path(f"p{i}")
        bodies[page] = store(server, origin, page, 100000 + i)
    found = figures(server)
    assert int(found["Failures-OOM"]) > 0
    assert int(found["SetErrors"]) == 0 and found["State"] == "on", found
    hits = sum(get(server, page).cache == "HIT" for page in bodies)
    assert 0 < hits < 40
    told = [x for x in lines(server) if "responses are not stored (OOM)" in x]
    assert 1 <= len(told) < int(found["Failures-OOM"]), told
    assert redis.hostport in told[0]


def refuse_writing(redis, master):
    redis.ask("REPLICAOF", "127.0.0.1", master.port)
    wait_for(lambda: redis.info("replication")["master_link_status"] == "up",
             "the replica")


def test_redis_is_read_only(make, start_redis, origin, path):
    redis, master = start_redis(), start_redis()
    refuse_writing(redis, master)
    server = make(redis.url)
    page = path()
    for _ in range(3):
        body = store(server, origin, page)
        assert_miss(server, page, body)
    assert int(figures(server)["Failures-READONLY"]) > 0
    assert_told(server, f"{redis.hostport} answers by an error (READONLY)")


READER = "user reader on >pw ~* +get +getrange +hmget +ping"


@pytest.mark.parametrize("given, url, kind, said", [
    ({"password": "x"}, "redis://{}", "NOAUTH",
     " answers by an error (NOAUTH)"),
    ({"password": "x"}, "redis://:y@{}", "WRONGPASS",
     ": it refuses user and password (WRONGPASS)"),
    ({"options": READER}, "redis://reader:pw@{}", "NOPERM",
     " answers by an error (NOPERM)"),
    ({}, "redis://{}/99", "other", ": it refuses SELECT 99 (other)"),
], ids=["no-password", "another-password", "may-not-write", "no-database"])
def test_redis_refuses(make, start_redis, origin, path, given, url, kind,
                       said):
    redis = start_redis(**given)
    server = make(url.format(redis.hostport))
    page = path()
    body = store(server, origin, page)
    assert_miss(server, page, body)
    assert int(figures(server)[f"Failures-{kind}"]) > 0
    assert_told(server, redis.hostport + said)


@pytest.mark.parametrize("tests", [
    "test_keys_t*", "test_clear_removes*", "test_set_head_*", "test_remove_*",
    "test_read_*", "test_body_of_*"])
def test_user_of_the_documentation_may_do_what_is_needed(start_redis, tests):
    text = (settings.source / "docs/operations.md").read_text()
    redis = start_redis(re.search(r"^ +(user web on >password .*)$", text,
                                  re.M)[1])
    done = subprocess.run(
        [settings.build / "tests/conformance/conformance", "--test", tests,
         "--load", settings.dso("cachemw_redis"), "redis",
         f"url=redis://web:password@{redis.hostport}/3", "timeout=20s",
         "store_timeout=20s", "connect_timeout=10s",
         "health_check_interval=1ms"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "errorstat_NOPERM" not in redis.info("errorstats")


def test_redis_has_no_place_for_more_clients(make, start_redis, origin, path):
    redis = start_redis("maxclients 1")
    with redis.wire():
        server = make(redis.url)
        page = path()
        body = store(server, origin, page)
        assert_miss(server, page, body)
    found = figures(server)
    # its end may come first
    assert int(found.get("Failures-MAXCLIENTS", 0)) > 0 \
        or redis.hostport in found["LastError"], found


def test_nothing_is_there(make, origin, path):
    port = Redis().port
    server = make(f"redis://127.0.0.1:{port}")
    page = path()
    assert_miss(server, page, store(server, origin, page))
    assert_told(server, f"127.0.0.1:{port}, it cannot be connected to")


def test_something_else_is_there(make, origin, path):
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), one:
                one.recv(1000)
                one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                one.shutdown(socket.SHUT_WR)
                while one.recv(65536):      # or what it says is lost
                    pass

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    try:
        server = make(f"redis://127.0.0.1:{port}")
        page = path()
        assert_miss(server, page, store(server, origin, page))
        assert_told(server, f"127.0.0.1:{port}: its answer is no Redis'")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_connections_are_no_failures(make, redis, origin, path):
    server = make(redis.url)
    stored(server, origin, path())
    assert not [x for x in figures(server) if x.startswith("Failures-")]


def test_redis_is_busy_with_a_script(make, start_redis, origin, path):
    redis = start_redis("busy-reply-threshold 10")
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page)
    with redis.wire() as wire:
        wire.send("EVAL", "while true do end", "0")
        wait_for(lambda: is_busy(redis), "the script to be noticed")
        res = get(server, page)
        assert (res.status, res.body) == (200, body)
        redis.ask("SCRIPT", "KILL")
    assert int(figures(server)["Failures-BUSY"]) > 0
    wait_for(lambda: get(server, page).cache == "HIT", "a hit", 40)


def is_busy(redis):
    try:
        redis.ask("GET", "x")
    except RedisError as reply:
        return str(reply).startswith("BUSY")
    return False


def test_redis_is_loading(make, start_redis, origin, path):
    redis = start_redis("enable-debug-command yes\n"
                        "loading-process-events-interval-bytes 1024")
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page)
    with redis.wire() as wire:
        wire.ask("CONFIG", "SET", "key-load-delay", "20000")
        for i in range(200):
            wire.ask("SET", f"k{i}", "x" * 2000)
        wire.send("DEBUG", "RELOAD")
        while "Failures-LOADING" not in figures(server):
            res = get(server, page)
            assert (res.status, res.body) == (200, body)
        assert wire.read() == "OK"
    assert int(figures(server)["Failures-LOADING"]) > 0


# ---- what lies there may be anything ----------------------------------------

def only_key(redis):
    keys = [x for x in redis.keys()
            if x.startswith(b"cachemw:") and x.endswith(b"}")]
    assert len(keys) == 1
    return keys[0]


class Parts:
    """The header of an entry, and a piece of its body: behind it in its
    string, or in the hash of a long one."""

    def __init__(self, redis, mark=4):
        self.redis, self.mark = redis, mark
        self.key = only_key(redis)
        bodies = [x for x in redis.keys() if x.startswith(self.key + b":")]
        self.body = bodies[0] if bodies else None
        value = redis.ask("GET", self.key)
        lens = struct.unpack_from("<II", value, 32 + mark + 8)
        self.header_len = 32 + mark + 16 + sum(lens) + mark

    def get(self, part):
        if part != "h" and self.body:
            return self.redis.ask("HGET", self.body, part)
        value = self.redis.ask("GET", self.key)
        at = self.header_len
        return value[:at] if part == "h" else value[at:]

    def put(self, part, data):
        if part != "h" and self.body:
            self.redis.ask("HSET", self.body, part, data)
        else:
            whole = {"h": self.get("h"), "0": b"" if self.body
                     else self.get("0"), part: data}
            self.redis.ask("SET", self.key, whole["h"] + whole["0"],
                           "KEEPTTL")


def instead(*command):
    def damage(parts):
        for key in filter(None, (parts.key, parts.body)):
            parts.redis.ask("DEL", key)
            parts.redis.ask(command[0], key, *command[1:])
    return damage


DAMAGES = {
    "no header": lambda e: e.redis.ask("DEL", e.key),
    "no body": lambda e: e.redis.ask("HDEL", e.body, "0") if e.body
    else e.put("0", b""),
    "evicted body": lambda e: e.redis.ask("DEL", e.body or e.key),
    "far too long": lambda e: e.redis.ask("HSET", e.body, "0", b"x" * 2000000)
    if e.body else e.redis.ask("SET", e.key, b"x" * 2000000),
    "too long by a little": lambda e: e.put("0", e.get("0") + bytes(67000)),
    "empty header": lambda e: e.redis.ask("SET", e.key, ""),
    "short header": lambda e: e.redis.ask("SET", e.key, "MWR1"),
    "half a header": lambda e: e.redis.ask("SET", e.key, e.get("h")[:50]),
    "header cut off": lambda e: e.put("h", e.get("h")[:-1]),
    "header with more": lambda e: e.put("h", e.get("h") + b"x"),
    "another header": lambda e: e.put("h", bytes(200)),
    "body cut off": lambda e: e.put("0", e.get("0")[:-1]),
    "body with more": lambda e: e.put("0", b"x" + e.get("0")),
    "empty body": lambda e: e.put("0", b""),
    "other bytes": lambda e: e.put("0", flipped(e.get("0"), 100)),
    "a string": instead("SET", "x"),
    "a list": instead("LPUSH", "x"),
}


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda x: x.replace(" ", "-"))
@pytest.mark.parametrize("size", [5000, 300000])
def test_damaged_entries_are_misses(make, redis, origin, path, damage, size):
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page, size)
    DAMAGES[damage](Parts(redis))
    assert_miss(server, page, body)
    assert_hit(server, page, body)
    found = figures(server)
    assert found["State"] == "on" and int(found["GetErrors"]) == 0, found
    assert "Failures-nonsense" not in found


def test_each_byte_of_an_entry_is_looked_at(make, redis, origin, path):
    server = make(redis.url)
    page = path()
    body = stored(server, origin, page, 50)
    whole = redis.ask("GET", only_key(redis))
    for at in range(0, len(whole), 3):
        redis.ask("SET", only_key(redis), flipped(whole, at), "KEEPTTL")
        assert_miss(server, page, body)     # and is stored anew
        whole = redis.ask("GET", only_key(redis))


def test_entry_under_the_name_of_another_is_a_miss(make, redis, origin, path):
    server = make(redis.url)
    one, other = path("one"), path("other")
    stored(server, origin, one)
    name = only_key(redis)
    body = stored(server, origin, other, 6000)
    [second] = [x for x in redis.keys() if x != name]
    redis.ask("COPY", name, second, "REPLACE")
    assert_miss(server, other, body)
    assert int(figures(server)["Failures-another-key"]) > 0


# ---- signed entries ---------------------------------------------------------

@pytest.fixture
def secrets(tmp_path):
    (tmp_path / "one").write_text("a secret of one, long enough\n")
    (tmp_path / "two").write_text("a secret of two, long enough\n")
    return tmp_path


def test_who_has_the_secret_shares(make, redis, origin, path, secrets):
    one = make(redis.url, f"secret_file={secrets}/one")
    other = make(redis.url, f"secret_file={secrets}/one")
    page = path()
    body = store(one, origin, page, 200000)
    assert_hit(other, page, body)


@pytest.mark.parametrize("theirs, kind", [("", "unsigned"), (
    "secret_file={}/two", "forged")], ids=["unsigned", "forged"])
def test_others_entries_are_misses(make, redis, origin, path, secrets, theirs,
                                   kind):
    ours = make(redis.url, f"secret_file={secrets}/one coalesce_servers=off")
    other = make(redis.url, theirs.format(secrets))
    page = path()
    body = stored(other, origin, page)
    assert_miss(ours, page, body)
    assert int(figures(ours)[f"Failures-{kind}"]) == 1
    told = [x for x in lines(ours) if f"not served ({kind})" in x]
    assert len(told) == 1, lines(ours)
    assert_hit(ours, page, body)


@pytest.mark.parametrize("field", ["h", "0", "3"])
def test_signed_entries_are_changed(make, redis, origin, path, secrets, field):
    server = make(redis.url, f"secret_file={secrets}/one")
    page = path()
    body = stored(server, origin, page, 250000)
    parts = Parts(redis, 32)
    whole = parts.get(field)
    parts.put(field, flipped(whole, len(whole) // 2))
    if field == "3":
        # found out only after the first bytes were sent: nobody takes the
        # response for a whole one
        assert not get(server, page).complete
    else:
        assert_miss(server, page, body)
    assert int(figures(server)["Failures-forged"]) > 0


class Cheat(threading.Thread):
    """In front of a Redis: once `instead` is set, the next connection that
    asks for something gets that and its end; while `flood` is set, each gets
    that without end; once `silent` is 1, the next one gets no answer, and what
    it asked is in `unheard`; all others reach Redis, after before(what they
    ask)."""

    def __init__(self, redis):
        super().__init__(daemon=True)
        self.redis, self.instead, self.told = redis, None, 0
        self.flood = None
        self.before, self.silent, self.unheard = None, 0, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client],
                             daemon=True).start()

    def _serve(self, client):
        with client, socket.create_connection(
                ("127.0.0.1", self.redis.port)) as server:
            ends = {client: server, server: client}
            while True:
                for one in select.select(list(ends), [], [])[0]:
                    data = one.recv(65536)
                    if one is client and data and self.instead:
                        client.sendall(self.instead)
                        self.instead = None
                        self.told += 1
                        return
                    if one is client and data and self.flood:
                        self._pour(client)
                        return
                    if not data:
                        return
                    if one is client and self.silent:
                        self.silent, self.unheard = 0, data
                        while client.recv(65536):
                            pass
                        return
                    if one is client and self.before:
                        self.before(data)
                    ends[one].sendall(data)

    def _pour(self, client):
        self.told += 1
        try:
            while self.flood:
                client.sendall(self.flood * 1000)
        except OSError:
            pass

    def close(self):
        self.flood = None
        self.listener.close()


def test_longer_header_comes_between_two_looks(make, redis, origin, path):
    """Who wants no body asks for the beginning of a header, then for the rest
    of it: by then it may be another one."""
    def come(number, size):
        origin.on(page, cacheable(body, 100, etag='"1"', headers=[
            ("X-Long", f"{number}{'x' * size}")]))
        post(server, page)
        assert get(server, page).body == body
        return redis.ask("GET", only_key(redis))

    cheat = Cheat(redis)
    try:
        server = make(f"redis://127.0.0.1:{cheat.port}")
        page, body = path(), noise(5000, 1)
        second, first = come("2", 7000), come("1", 4500)
        key, asked = only_key(redis), []

        def replace(data):
            if data.count(b"GETRANGE"):
                asked.append(data)
                if len(asked) == 2:
                    redis.ask("SET", key, second, "KEEPTTL")

        cheat.before = replace
        removed = redis.info("commandstats").get("cmdstat_del")
        res = server.ask("HEAD", page, host=HOST)
        assert (res.cache, res.get("X-Long")[0]) == ("HIT", "2")
        assert len(asked) == 3 and first != second
        assert redis.info("commandstats").get("cmdstat_del") == removed
        assert "Failures-damaged" not in figures(server)
    finally:
        cheat.close()


def test_header_that_keeps_growing_is_had_at_the_third_look(make, redis,
                                                            origin, path):
    def come(number, size):
        origin.on(page, cacheable(body, 100, etag='"1"', headers=[
            *[(f"X-Long-{i}", "x" * 7000) for i in range(size)],
            ("X-Number", f"{number}")]))
        post(server, page)
        assert get(server, page).body == body
        return redis.ask("GET", only_key(redis))

    cheat = Cheat(redis)
    try:
        server = make(f"redis://127.0.0.1:{cheat.port}",
                      patience="timeout=5s")
        page, body = path(), noise(5000, 1)
        longer = [come(number, number + 1) for number in range(7)]
        key, asked = only_key(redis), []
        redis.ask("SET", key, longer.pop(0), "KEEPTTL")

        def replace(data):
            if data.count(b"GETRANGE"):
                asked.append(data)
                if longer:
                    redis.ask("SET", key, longer.pop(0), "KEEPTTL")

        cheat.before = replace
        res = server.ask("HEAD", page, host=HOST)
        assert (res.cache, res.get("X-Number")) == ("HIT", "3")
        assert len(asked) == 3
        assert "Failures-damaged" not in figures(server)
    finally:
        cheat.close()


@pytest.mark.parametrize("size", [500, 65536 + 500, 5000])
@pytest.mark.parametrize("pieces", [b"$5000\r\n", b"$3\r\nbad\r\n$5000\r\n"])
def test_what_a_broken_connection_brought_is_forgotten(
        make, redis, origin, path, secrets, size, pieces):
    cheat = Cheat(redis)
    try:
        server = make(f"redis://127.0.0.1:{cheat.port}",
                      f"secret_file={secrets}/one")
        page = path()
        body = stored(server, origin, page, size)
        for _ in range(3):
            cheat.instead = b"*3\r\n$-1\r\n" + pieces + b"EVIL" * 1250
            res = get(server, page)
            assert (res.status, res.body) == (200, body)
        assert cheat.told == 3
    finally:
        cheat.close()


@pytest.mark.parametrize("flood", [
    b">0\r\n", b">1\r\n+x\r\n", b"*0\r\n", b":1\r\n", b"+", b"*1\r\n", b"$-1\r\n",
    b"\r\n", b"*3\r\n$-1\r\n"],
    ids=lambda x: x.decode().replace("\r\n", "."))
def test_answer_without_end_takes_no_longer_than_others(make, redis, origin,
                                                        path, flood):
    cheat = Cheat(redis)
    try:
        server = make(f"redis://127.0.0.1:{cheat.port}",
                      patience="timeout=300ms store_timeout=300ms")
        page = path()
        body = stored(server, origin, page, 200000)
        cheat.flood = flood
        for _ in range(3):
            began = time.monotonic()
            assert_miss(server, page, body)
            assert time.monotonic() - began < 0.6 + 3
        assert cheat.told
        cheat.flood = None
        wait_for(lambda: get(server, page).cache == "HIT", "hits", 20)
    finally:
        cheat.close()


# ---- the network ------------------------------------------------------------

@pytest.mark.parametrize("mode", ["refuse", "hang", "reset", "drip", "cut",
                                  "rubbish"])
def test_network_fails(make, redis, origin, path, mode):
    with TcpProxy(("127.0.0.1", redis.port)) as proxy:
        server = make(f"redis://127.0.0.1:{proxy.port}",
                      patience="timeout=200ms store_timeout=100ms")
        page = path()
        body = stored(server, origin, page)
        proxy.set(mode)
        for _ in range(10):
            began = time.monotonic()
            res = get(server, page)
            assert (res.status, res.body) == (200, body)
            assert time.monotonic() - began < 1.5
        assert figures(server)["State"] != "on"
        proxy.set("pass")
        wait_for(lambda: get(server, page).cache == "HIT", "a hit", 60)


def test_every_tenth_answer_is_a_reset(make, redis, origin, path):
    with TcpProxy(("127.0.0.1", redis.port)) as proxy:
        server = make(f"redis://127.0.0.1:{proxy.port}")
        page = path()
        body = stored(server, origin, page)
        proxy.set("fail", every=10)
        for _ in range(300):
            assert get(server, page).body == body
        assert proxy.connections <= 32 * len(server.children())
        assert figures(server)["State"] == "on"


@pytest.mark.parametrize("count", [
    2000, pytest.param(100000, marks=pytest.mark.long)])
def test_nothing_is_left_open_where_every_tenth_answer_fails(
        make, redis, origin, path, count):
    def descriptors():
        return sum(len(os.listdir(f"/proc/{pid}/fd"))
                   for pid in server.children())

    with TcpProxy(("127.0.0.1", redis.port)) as proxy:
        server = make(f"redis://127.0.0.1:{proxy.port}", "max_connections=4")
        page = path()
        body = stored(server, origin, page)
        proxy.set("fail", every=10)
        conns = [server.connect(host=HOST) for _ in range(4)]
        for i in range(count):
            if i == 500:
                before = descriptors()
            res = conns[i % 4].get(page)
            assert (res.status, res.body) == (200, body)
        after = descriptors()
        for conn in conns:
            conn.close()
        assert proxy.failed > count // 20
        assert proxy.connections <= 4 * len(server.children())
        assert after <= before + 4 * len(server.children())


# ---- options of connections -------------------------------------------------

def test_host_by_ipv6_address(make, start_redis, origin, path):
    redis = start_redis("bind 127.0.0.1 ::1")
    server = make(f"redis://[::1]:{redis.port}")
    stored(server, origin, path())
    redis.stop()
    assert get(server, path("next")).status == 404
    assert_told(server, f"[::1]:{redis.port}")


@pytest.mark.parametrize("options, patience, cache", [
    ("retry_on_timeout=on", "4s", "HIT"),
    ("retry_on_timeout=off", "1s", "MISS"),
    ("health_check_interval=1ms", "4s", "HIT"),
    ("health_check_interval=0", "1s", "MISS")],
    ids=lambda x: x.split("=")[-1])
def test_idle_connection_hangs(make, redis, origin, path, options, patience,
                               cache):
    """The network has forgotten it: with these options it is found out in time
    for another try."""
    cheat = Cheat(redis)
    try:
        server = make(f"redis://127.0.0.1:{cheat.port}", options,
                      patience=f"timeout={patience} store_timeout={patience} "
                      "connect_timeout=2s")
        page = path()
        body = stored(server, origin, page)
        for _ in range(20):
            time.sleep(0.01)        # idle for longer than 1 ms
            cheat.silent = 1
            res = get(server, page)
            assert (res.status, res.body) == (200, body) and not cheat.silent
            # a child that had no connection yet makes one, and asks no PING
            if "1ms" not in options or b"PING" in cheat.unheard:
                break
        assert res.cache == cache
        found = figures(server)
        assert int(found["Failures-timeout"]) > 0
        if "retry" in options:
            assert int(found.get("Failures-retried", 0)) == (cache == "HIT")
    finally:
        cheat.close()


@pytest.mark.parametrize("interval", ["1ms", "1h", "0"])
def test_health_check_interval(make, redis, origin, path, interval):
    """who was idle for so long is asked first whether it still works"""
    server = make(redis.url, f"health_check_interval={interval}")
    page = path()
    body = stored(server, origin, page)

    def pings():
        said = redis.info("commandstats").get("cmdstat_ping", "calls=0,")
        return int(said.split("=")[1].split(",")[0])

    before = pings()
    for _ in range(20):
        time.sleep(0.01)            # idle for longer than 1 ms
        assert_hit(server, page, body)
    assert (pings() > before) == (interval == "1ms")


@pytest.mark.parametrize("flag", ["on", "off"])
def test_socket_keepalive(make, redis, origin, path, flag):
    server = make(redis.url, f"socket_keepalive={flag}")
    stored(server, origin, path())

    def timers():
        """of the idle connections: 02 is that of keep-alive"""
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [x.split() for x in table.readlines()[1:]]
        return {x[5].split(":")[0] for x in rows
                if x[2].endswith(f":{redis.port:04X}") and x[3] == "01"}

    wait_for(lambda: timers() == {"02" if flag == "on" else "00"},
             f"keep-alive to be {flag}")


def test_connect_timeout(make, origin, path):
    """Where nobody answers at all it is over sooner than `timeout`."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(
            ("127.0.0.1", 0), backlog=0))
        for _ in range(3):      # as many as wait there; the next one hangs
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        server = make(f"redis://127.0.0.1:{port}",
                      patience="timeout=30s store_timeout=30s "
                      "connect_timeout=100ms")
        page = path()
        began = time.monotonic()
        body = store(server, origin, page)
        assert_miss(server, page, body)
        assert time.monotonic() - began < 15
        assert_told(server, f"127.0.0.1:{port}, it cannot be connected to")


# ---- configuration ----------------------------------------------------------

@pytest.mark.parametrize("words, said", [
    ("url=http://localhost", "url= begins with redis://, rediss://, unix://, "
     "redis+sentinel://, rediss+sentinel://, redis+cluster:// or "
     "rediss+cluster://"),
    ("url=redis://a,b", "one host is expected"),
    ("url=redis://h:99999", "a port from 1 to 65535"),
    ("url=redis://h/x", "the number of a database"),
    ("url=redis://u:p%4@h", "user and password"),
    ("url=unix://h/p", "three slashes"),
    ("url=redis+sentinel://h", "the name of the master"),
    ("url=redis+cluster://h/1", "no numbered databases"),
    ("url=redis://h key_prefix=a{b", "key_prefix=a{b"),
    ("url=redis://h ssl_cert_reqs=none", "rediss://"),
    ("url=redis://kate@h", "a user without a password"),
    ("max_connections=0", "a whole number from 1 to 10000"),
])
def test_mistakes_are_explained(words, said):
    status, text = configtest(
        SITE, names={"PROVIDER": f"CachemwStore x redis {words}\n"
                     "CachemwProvider x\nCacheEnable cachemw /\n",
                     "QUICK": "on", "ORIGIN": 1, "FLAKY": 1}, extra=MODULES)
    assert status != 0
    assert said in text
