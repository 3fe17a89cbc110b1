# SPDX-License-Identifier: Apache-2.0
"""The store in files while its processes are killed at any instant: no page is
wrong, nobody waits for ever, what is on the disk is what is counted, and the
caps hold all the time.

Locks are held while files are renamed and unlinked, so many of the dead have
one; the index is so small that it has one lock for all."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from conftest import SITE
from harness import settings
from harness.server import processes_of, stands_still, wait_for
from harness.storm import PATIENCE, Storm
from test_file import cache     # noqa: F401
from test_kills import CROWDED, assert_full_hit_rate
from test_status import figures

MAX_BYTES = 8 << 20
FILES = ("file cache_dir=@CACHE@ max_bytes=8M max_entries=400 index_size=256K "
         "max_object_size=2M keep=0 cleanup_interval=1s")


class Watch(threading.Thread):
    """The most that files and temporary files ever took together, seen while
    everything stands still"""

    def __init__(self, server, root):
        super().__init__(daemon=True)
        self.group, self.root = server.pid, root
        self.most, self.looks, self.end = 0, 0, False

    def look(self):
        return sum(os.lstat(os.path.join(dir, name)).st_blocks * 512
                   for dir, _, names in os.walk(self.root) for name in names)

    def run(self):
        while not self.end:
            os.killpg(self.group, signal.SIGSTOP)
            try:
                wait_for(lambda: all(stands_still(x) for x
                                     in processes_of(self.group)),
                         "all to stop")
                self.most = max(self.most, self.look())
                self.looks += 1
            finally:
                os.killpg(self.group, signal.SIGCONT)
            time.sleep(0.2)


def kill_some(server, chance, full):
    """Kill children, and now and then the sweeper, until a half is left."""
    wait_for(lambda: len(server.children()) > full // 2 + 1,
             "httpd to replace the dead")
    killed = 0
    for pid in server.children()[:full // 2]:
        time.sleep(chance.random() * 0.02)
        with contextlib.suppress(ProcessLookupError):   # it may have ended
            os.kill(pid, signal.SIGKILL)
            killed += 1
    for pid in server.sweepers():
        if chance.random() < 0.2:
            os.kill(pid, signal.SIGKILL)
    return killed


def assert_all_space_is_back(server, root):
    def state():
        now = figures(server)
        names = [x for x in root.glob("**/*")
                 if x.is_file() and x.name != "mark"]
        return now["Entries"], now["ReservedBytes"], len(names)

    try:
        wait_for(lambda: state() == ("0", "0", 0), "the space", 30)
    except AssertionError:
        assert state() == ("0", "0", 0), figures(server)


def kill_in_a_storm(httpd, origin, path, cache, kills):     # noqa: F811
    chance = random.Random("files")
    killed = 0
    with Storm() as storm:
        server = httpd(storm.proxied(SITE),
                       {"QUICK": "on", "PROVIDER": CROWDED, "PAGES": FILES,
                        "CACHE": cache})
        full = len(server.children())
        watch = Watch(server, cache / "v1")
        watch.start()
        storm.visitors(server.ports[0], 3, 6)
        time.sleep(1)
        while killed < kills or (watch.looks <= 20 and watch.is_alive()):
            killed += kill_some(server, chance, full)
        seen, slowest, wrong = storm.finish()
        watch.end = True
        watch.join()
    now = figures(server)
    print(f"{settings.mpm}: {killed} killed, {now['Recovered']} recovered, "
          f"{now['DeadChildren']} slots taken back; {dict(seen)}, slowest "
          f"{slowest:.2f} s, {now['Evictions']} evictions; at most "
          f"{watch.most} bytes in {watch.looks} looks")
    assert not wrong, "\n".join(wrong[:3])
    assert slowest < PATIENCE
    assert seen["verified"] > 5 * kills and seen["HIT"] > 0
    assert int(now["Evictions"]) > kills
    assert watch.looks > 20 and watch.most > MAX_BYTES // 2
    assert watch.most <= MAX_BYTES * 101 // 100 + 8192      # 8192: the mark
    assert_all_space_is_back(server, cache / "v1")
    assert_full_hit_rate(server, origin, path)


def test_children_killed_in_a_storm(httpd, origin, path, cache):  # noqa: F811
    kill_in_a_storm(httpd, origin, path, cache, 30)


@pytest.mark.mpm
@pytest.mark.long
def test_many_children_killed_in_a_storm(httpd, origin, path,
                                         cache):            # noqa: F811
    kill_in_a_storm(httpd, origin, path, cache, 300)
