# SPDX-License-Identifier: Apache-2.0
"""Graceful restarts: the cache stays, and nobody notices."""

import os
import re
import statistics
import threading
from pathlib import Path

import pytest

from conftest import SITE, provider_conf
from harness import Gate, settings
from harness.server import wait_for
from harness.storm import Storm
from test_basic import noise, pieces
from test_startup import shared_megabytes

pytestmark = [pytest.mark.mpm, pytest.mark.store]


@pytest.fixture
def server(httpd, quick):
    return httpd(SITE, {"QUICK": quick})


def test_graceful_restart_keeps_the_cache(server, origin, path):
    pages = {path(f"p{i}"): noise(1 + 3000 * i, i) for i in range(20)}
    for page, body in pages.items():
        origin.page(page, body, headers=[("X-Mark", page)])
        assert server.get(page).cache == "MISS"
    varying = path("varying")
    origin.page(varying, b"v", headers=[("Vary", "X-A")])
    server.get(varying, [("X-A", "1")])
    for _ in range(3):
        server.graceful()
        for page, body in pages.items():
            res = server.get(page)
            assert (res.cache, res.body) == ("HIT", body)
            assert res.get("X-Mark") == page
        assert server.get(varying, [("X-A", "1")]).cache == "HIT"


def test_changes_are_not_forgotten_by_a_restart(server, origin, path):
    page = path()
    origin.page(page, b"x", etag='"v1"')
    server.get(page)
    server.ask("POST", page, body=b"x")
    server.graceful()
    assert server.get(page).cache == "REVALIDATE"


def test_restarts_under_load_are_not_noticed(server, origin, path):
    pages = {path(f"p{i}"): noise(40000 * (i % 4) + 10 * i, i)
             for i in range(24)}
    for page, body in pages.items():
        origin.page(page, body)
        server.get(page)
    stop, wrong, done = threading.Event(), [], [0]

    def visit(seed):
        todo = list(pages.items())[seed:] + list(pages.items())[:seed]
        while not stop.is_set():
            for page, body in todo:
                res = server.get(page)
                done[0] += 1
                if not res.complete or res.status != 200 or res.body != body:
                    wrong.append(res)

    threads = [threading.Thread(target=visit, args=(i * 5,))
               for i in range(4)]
    for one in threads:
        one.start()
    try:
        for _ in range(4):
            before = done[0]
            server.graceful(wait_old=False)
            while done[0] < before + 40 and not wrong:
                stop.wait(0.005)
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert not wrong, wrong[:3]
    assert all(origin.count(page) == 1 for page in pages)


def test_reader_of_a_large_page_is_not_cut_by_a_restart(server, origin,
                                                        path):
    page, body = path(), noise(6000000)
    origin.page(page, body)
    server.get(page)
    with server.connect(rcvbuf=4096) as slow:
        slow.send("GET", page)
        head = slow.head()
        assert head.cache == "HIT"
        server.graceful(wait_old=False)
        assert server.get(page).cache == "HIT"
        res = slow.body(head)
        assert res.complete and res.body == body


def test_page_that_arrives_during_a_restart(server, origin, path):
    page, gate = path(), Gate()
    parts = pieces(noise(200000), 20000)
    origin.page(page, parts[:5] + [gate] + parts[5:], framing="chunked")
    with server.connect() as early:
        early.send("GET", page, [("Connection", "close")])
        gate.wait_reached()
        server.graceful(wait_old=False)
        origin.page(page, parts, framing="chunked")
        gate.open()
        res = early.response()
        assert res.complete and res.body == b"".join(parts)
        assert early.is_closed()
    for _ in range(2):
        res = server.get(page)
        assert res.complete and res.body == b"".join(parts)
    assert res.cache == "HIT"


@pytest.mark.memory
def test_restarts_do_not_pile_up_memory(server, origin, path):
    page = path()
    origin.page(page, b"x")
    server.get(page)
    server.graceful()
    before = shared_megabytes(server.pid)
    for _ in range(4):
        server.graceful()
    assert shared_megabytes(server.pid) < before + 1
    assert server.get(page).cache == "HIT"


@pytest.mark.memory
def test_restart_with_another_size_begins_anew_and_frees_the_old(
        httpd, origin, path, quick):
    server = httpd(SITE, {"QUICK": quick,
                          "PROVIDER": provider_conf("memory size=200M")})
    page = path()
    origin.page(page, b"x")
    server.get(page)
    large = shared_megabytes(server.pid)
    server._names["PROVIDER"] = provider_conf("memory size=16M")
    server.write_conf()
    server.new_log()
    server.graceful()
    assert server.get(page).cache == "MISS"
    assert server.get(page).cache == "HIT"
    assert shared_megabytes(server.pid) < large - 150
    assert any("cachemw" in x and "MARK" not in x
               for x in server.new_log().splitlines()
               if "cachemw:" in x), "no line in the log says so"


def private_kilobytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def shm_segments(pid):
    """System V segments that a process made"""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return sum(int(x.split()[4]) == pid for x in lines)


def held(server):
    """What the parent and, on average, a child of a new generation have."""
    server.graceful()
    pids = wait_for(lambda: len(x := server.children()) > 1 and x,
                    "the new generation")
    return {"parent": private_kilobytes(server.pid),
            "child": statistics.median(map(private_kilobytes, pids)),
            "shared": shared_megabytes(server.pid),
            "child shared": max(map(shared_megabytes, pids)),
            "descriptors": descriptors(server.pid),
            "child descriptors": statistics.median(map(descriptors, pids)),
            "segments": shm_segments(server.pid)}


def growth(server, restart, restarts):
    """by how much each figure of `held` grows with so many restarts"""
    for _ in range(3):
        server.graceful()
    before = held(server)
    for number in range(restarts):
        restart(number)
    after = held(server)
    return {k: after[k] - before[k] for k in after}


def restart_under_load(httpd, origin, path, restarts):
    pages = {path(f"p{i}"): noise(5000 * i + 1, i) for i in range(20)}
    for page, body in pages.items():
        origin.page(page, body, 3600)

    with Storm() as storm:
        server = httpd(storm.proxied(SITE),
                       {"QUICK": "on",
                        "PROVIDER": provider_conf("memory size=96M")})

        def visit(cache):
            for page, body in pages.items():
                res = server.get(page)
                assert (res.cache, res.body) == (cache, body)

        def restart(number):
            if number == 0:
                storm.visitors(server.ports[0], 2, 4)
            server.graceful(wait_old=False)
            visit("HIT")
            if number == restarts // 2:
                server._names["PROVIDER"] = provider_conf("memory size=64M")
                server.write_conf()
                server.graceful()
                visit("MISS")
            if number == restarts - 1:
                seen.append(storm.finish())

        seen = []
        visit("MISS")
        ours = growth(server, restart, restarts)
    bare = httpd(SITE, {"QUICK": "on", "PROVIDER": ""}, extra=[])
    plain = growth(bare, lambda number: bare.graceful(), restarts)
    [(counts, slowest, wrong)] = seen
    print(f"{settings.mpm}, {restarts} restarts: {dict(counts)}, slowest "
          f"{slowest:.2f} s; grown with us: {ours}, without: {plain}")
    assert not wrong, "\n".join(wrong[:3])
    assert counts["cut"] == 0 and counts["verified"] > 20 * restarts
    assert ours["parent"] < plain["parent"] + 300 + 2 * restarts
    assert ours["child"] < plain["child"] + 300 + 2 * restarts
    assert -34 < ours["shared"] <= ours["child shared"] + 1 < -28
    for figure in ("descriptors", "child descriptors", "segments"):
        assert ours[figure] <= plain[figure] + 1, figure


@pytest.mark.memory
def test_restarts_under_load_cost_nothing(httpd, origin, path):
    # prefork makes one new process a second at first.
    restart_under_load(httpd, origin, path,
                       3 if settings.mpm == "prefork" else 8)


@pytest.mark.memory
@pytest.mark.long
def test_100_restarts_under_load_cost_nothing(httpd, origin, path):
    restart_under_load(httpd, origin, path, 100)


def test_restart_with_other_directives_keeps_the_stores(httpd, origin, path,
                                                        quick):
    stores = (f"CachemwStore pages {settings.store}\n"
              "CachemwProvider pages\nCacheEnable cachemw /\n")
    server = httpd(SITE, {"QUICK": quick, "PROVIDER": stores})
    page = path()
    origin.page(page, b"x")
    server.get(page)
    server._names["PROVIDER"] = \
        f"CachemwStore another {settings.store_named('another')}\n" + stores.replace(
            "CachemwProvider pages", "CachemwProvider pages\n"
            "CacheDefaultExpire 100")
    server.write_conf()
    server.graceful()
    assert server.get(page).cache == "HIT"


def test_restart_that_switches_the_cache_off_and_on(httpd, origin, path,
                                                    quick):
    server = httpd(SITE, {"QUICK": quick})
    page = path()
    origin.page(page, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    server._names["PROVIDER"] = ""
    server.write_conf()
    server.graceful()
    assert server.get(page).cache is None
    server._names["PROVIDER"] = provider_conf()
    server.write_conf()
    server.graceful()
    server.get(page)
    assert server.get(page).cache == "HIT"
