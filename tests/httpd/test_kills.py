# SPDX-License-Identifier: Apache-2.0
"""Children killed at any instant, and the sweeper, under load: no page is wrong,
nobody waits for ever, no space is lost.

A part of the victims is stopped first, at random instants, until one is met
that holds a lock of the store; then it is killed. To have that often the index
has one lock, and everything is replaced or evicted all the time."""

import os
import random
import signal
import time

import pytest

from conftest import SITE
from harness import settings
from harness.locks import Locks
from harness.server import stands_still, wait_for
from harness.storm import PATIENCE, Storm
from test_basic import noise
from test_status import figures

pytestmark = [pytest.mark.memory]

CROWDED = """
<IfModule mpm_prefork_module>
    StartServers 20
    MinSpareServers 10
    MaxSpareServers 64
    ServerLimit 64
    MaxRequestWorkers 64
</IfModule>
<IfModule !mpm_prefork_module>
    StartServers 12
    ServerLimit 20
    ThreadsPerChild 5
    MinSpareThreads 50
    MaxSpareThreads 100
    MaxRequestWorkers 100
</IfModule>
CachemwStore pages @PAGES@
CachemwProvider pages
CacheEnable cachemw /
"""
MEMORY = """memory size=8M shards=1 max_object_size=2M keep=0 \\
    cleanup_interval=1s"""


class Killer:
    def __init__(self, server, seed):
        self.server = server
        self.locks = Locks(server.pid)
        self.random = random.Random(seed)
        self.full = len(server.children())
        self.killed = 0
        self.dying = set()      # killed, and perhaps still to be seen
        self.blind = 0          # of these, without a look at the locks
        self.holders = 0        # of these, seen with a lock held
        self.in_shard = 0       # of these, with a shard's
        self.locked = 0         # locks that they were seen to hold
        self.mending = 0        # of these, being mended at that moment

    def _pause(self):
        time.sleep(self.random.random() * 0.001)

    def _stopped_with_a_lock(self, pid, locks):
        """Stop PID at a random instant. It stays so if it has the lock."""
        self._pause()
        os.kill(pid, signal.SIGSTOP)
        if self.locks.held(locks, pid)[0]:
            wait_for(lambda: stands_still(pid), f"{pid} to stop")
            if self.locks.held(locks, pid)[0]:
                return True
        os.kill(pid, signal.SIGCONT)
        return False

    def _seek(self, children, seconds):
        """a child that is stopped with a lock held; None: not met"""
        locks = self.locks.shards + self.locks.areas
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid = self.random.choice(children)
            if self._stopped_with_a_lock(pid, locks):
                return pid
        return None

    def _note(self, pid):
        shards, mending = self.locks.held(self.locks.shards, pid)
        areas, more = self.locks.held(self.locks.areas, pid)
        self.holders += 1
        self.in_shard += bool(shards)
        self.locked += shards + areas
        self.mending += mending + more

    def one(self, children, seconds):
        pid = None
        if self.random.random() < 0.6:
            pid = self._seek(children, seconds)
        if pid:
            self._note(pid)
        else:
            self._pause()
            pid = self.random.choice(children)
            self.blind += 1
        os.kill(pid, signal.SIGKILL)
        self.killed += 1
        self.dying.add(pid)
        children.remove(pid)

    def _enough_children(self):
        seen = self.server.children()
        self.dying &= set(seen)     # others may get their numbers
        children = [x for x in seen if x not in self.dying]
        return len(children) > self.full // 2 and children

    def round(self, most, seconds=0.7):
        """Kill until a half is left, then wait until httpd has made more."""
        children = wait_for(self._enough_children, "httpd to replace the dead")
        while len(children) > self.full // 2 and most > 0:
            self.one(children, seconds)
            most -= 1


def assert_all_space_is_back(server, free):
    def state():
        now = figures(server)
        return now["Entries"], now["FreeBytes"], now["PinnedBytes"]

    try:
        wait_for(lambda: state() == ("0", free, "0"), "the space", 30)
    except AssertionError:
        assert state() == ("0", free, "0"), figures(server)


def assert_full_hit_rate(server, origin, path):
    pages = {path(f"p{i}"): noise(20000 + i, i) for i in range(50)}
    for page, body in pages.items():
        origin.page(page, body)
        assert server.get(page).body == body
    for page, body in pages.items():
        res = server.get(page)
        assert (res.cache, res.body) == ("HIT", body)
        assert origin.count(page) == 1


def kill_in_a_storm(httpd, origin, path, kills, held):
    began = time.monotonic()
    with Storm() as storm:
        server = httpd(storm.proxied(SITE),
                       {"QUICK": "on", "PROVIDER": CROWDED,
                        "PAGES": MEMORY})
        free = figures(server)["FreeBytes"]
        killer = Killer(server, "kills")
        storm.visitors(server.ports[0], 3, 6)
        time.sleep(1)
        killer.one(server.sweepers(), 3)
        while killer.killed < kills or killer.holders < held \
                or killer.in_shard < held // 3:
            assert killer.killed < 10 * kills, "too few with a lock held"
            killer.round(kills)
        seen, slowest, wrong = storm.finish()
    killer.locks.close()
    now = figures(server)
    print(f"{settings.mpm}: {killer.killed} killed, {killer.holders} with a "
          f"lock held, {killer.in_shard} with a shard's ({killer.locked} "
          f"locks), {now['Recovered']} "
          f"recovered, {now['DeadChildren']} slots taken back; {dict(seen)}, "
          f"slowest {slowest:.2f} s, {now['Evictions']} evictions, "
          f"{time.monotonic() - began:.0f} s")
    assert not wrong, "\n".join(wrong[:3])
    assert slowest < PATIENCE
    assert seen["verified"] > 10 * kills and seen["HIT"] > seen["verified"] / 20
    assert seen["MISS"] > kills and int(now["Evictions"]) > kills
    assert_all_space_is_back(server, free)
    # what nobody needs is had at last by the collection after the last death
    least = killer.locked - killer.mending
    wait_for(lambda: int(figures(server)["Recovered"]) >= least,
             f"{least} locks to be recovered")
    now = figures(server)
    recovered = int(now["Recovered"])
    assert 0 < recovered <= killer.locked + 2 * killer.blind
    assert abs(int(now["Recoveries"]) - recovered) <= killer.mending + 1
    assert int(now["DeadChildren"]) <= killer.killed
    assert_full_hit_rate(server, origin, path)


def test_children_killed_in_a_storm(httpd, origin, path):
    kill_in_a_storm(httpd, origin, path, 30, 3)


@pytest.mark.mpm
@pytest.mark.long
def test_many_children_killed_in_a_storm(httpd, origin, path):
    kill_in_a_storm(httpd, origin, path, 300, 30)
