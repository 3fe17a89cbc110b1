# SPDX-License-Identifier: Apache-2.0
"""Redis with sentinels: whoever is the master now is used, and no visitor
notices that it was another one before."""

import signal
import time

import pytest

from harness.redis import GROUP, Redis, Sentinels
from harness.server import wait_for
from harness.shared import is_hit
from test_basic import noise
from test_redis import assert_told
from test_redis_cluster import assert_told_once, make, storm_on  # noqa: F401
from test_status import figures

pytestmark = [pytest.mark.redis]


@pytest.fixture
def sentinels():
    one = Sentinels().start()
    yield one
    one.remove()


def assert_hits(server, origin, path, name="page", seconds=15):
    page, body = path(name), noise(5000, 7)
    origin.page(page, body)
    wait_for(lambda: is_hit(server, page, body), f"a hit of {name}", seconds)


@pytest.mark.mpm
def test_master_is_found(make, sentinels, origin, path):
    server = make(sentinels.url)
    page, body = path(), noise(5000, 1)
    origin.page(page, body)
    assert not is_hit(server, page, body)
    assert is_hit(server, page, body)
    assert sentinels.master.keys()


def test_first_sentinels_are_gone(make, sentinels, origin, path):
    sentinels.watchers[0].kill()
    server = make(sentinels.url)
    assert_hits(server, origin, path)
    sentinels.watchers[1].kill()
    server.graceful()
    assert_hits(server, origin, path, "again")


def test_first_sentinel_hangs(make, sentinels, origin, path):
    sentinels.watchers[0].signal(signal.SIGSTOP)
    try:
        server = make(sentinels.url, "timeout=400ms store_timeout=400ms")
        assert_hits(server, origin, path)
    finally:
        sentinels.watchers[0].signal(signal.SIGCONT)


def test_all_sentinels_are_gone(make, sentinels, origin, path):
    """the master that is known is used, whatever happens to its connections"""
    server = make(sentinels.url)
    assert_hits(server, origin, path)
    for one in sentinels.watchers:
        one.signal(signal.SIGSTOP)
    try:
        for i in range(10):
            sentinels.data[0].ask("CLIENT", "KILL", "TYPE", "normal")
            page, body = path(f"p{i}"), noise(5000, i)
            origin.page(page, body)
            assert not is_hit(server, page, body)
            assert is_hit(server, page, body)
    finally:
        for one in sentinels.watchers:
            one.signal(signal.SIGCONT)


def test_sentinels_do_not_know_the_master(make, sentinels, origin, path):
    server = make(sentinels.url.replace(f"/{GROUP}", "/another"))
    for i in range(5):
        page = path(f"p{i}")
        origin.page(page, b"text")
        for _ in range(2):
            assert server.get(page).body == b"text"
    assert_told(server, 'master "another": the sentinel at 127.0.0.1:')
    assert_told(server, "knows no master of this name")
    assert "Connection refused" not in server.log()


@pytest.mark.parametrize("wrong, said", [
    ("nothing", "does not answer"),
    ("master", "refuses to name it: is it a sentinel?"),
    ("another", "knows no master of this name")])
def test_one_sentinel_of_several_is_wrong(make, sentinels, origin, path, wrong,
                                          said):
    """the others are used, and one line in a while tells which it is"""
    other = Redis(sentinel=wrong == "another")
    if wrong == "another":
        other.start()
    try:
        first = sentinels.data[0] if wrong == "master" else other
        began = time.monotonic()
        server = make(sentinels.url.replace("//", f"//{first.hostport},"),
                      "timeout=5s store_timeout=5s connect_timeout=5s")
        assert_hits(server, origin, path)
        assert_told_once(server, began, f'master "{GROUP}": the sentinel at '
                         f"{first.hostport} {said} (another one has named it)")
        assert figures(server)["GetErrors"] == "0"
    finally:
        other.remove()


def test_failover_asked_for(make, sentinels, origin, path):
    """the old master goes on as a replica and says READONLY"""
    server = make(sentinels.url)
    assert_hits(server, origin, path)
    old = sentinels.master
    sentinels.watchers[0].ask("SENTINEL", "FAILOVER", GROUP)
    new = sentinels.wait_other_master(old)
    for i in range(100):
        assert_hits(server, origin, path, f"after-{i}")
        if int(new.info("stats")["keyspace_hits"]) > 0:
            return
        time.sleep(0.1)
    raise AssertionError("the new master is not used")


def test_master_becomes_a_replica_behind_our_back(make, sentinels, origin,
                                                  path):
    """what it still holds is not taken for what its master holds"""
    server = make(sentinels.url)
    assert_hits(server, origin, path)
    old, other = sentinels.data
    for one in sentinels.watchers:
        one.stop()
    other.ask("REPLICAOF", "NO", "ONE")
    old.ask("REPLICAOF", "127.0.0.1", other.port)
    for i in range(20):
        page = path(f"p{i}")
        origin.page(page, b"fresh")
        for _ in range(2):
            assert server.get(page).body == b"fresh"


@pytest.mark.mpm
def test_master_is_killed_under_load(make, sentinels, origin, path):
    old = sentinels.master

    def kill():
        old.kill()
        sentinels.wait_other_master(old)

    server = storm_on(make, sentinels.url, kill, is_lost=True)
    assert_hits(server, origin, path)
    assert sentinels.master is not old


def test_master_hangs_under_load(make, sentinels, origin, path):
    old = sentinels.master

    def hang():
        old.signal(signal.SIGSTOP)
        sentinels.wait_other_master(old)

    try:
        server = storm_on(make, sentinels.url, hang, is_lost=True)
        assert_hits(server, origin, path)
    finally:
        old.signal(signal.SIGCONT)
