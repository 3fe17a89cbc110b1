# SPDX-License-Identifier: Apache-2.0
"""Many requests at the same time, and what they make of a server."""

import os
import signal
import threading
import time
from pathlib import Path

from .client import TIMEOUT, Cut
from .server import wait_for


class Visit(threading.Thread):
    """One request on a connection of its own: `res` when it is over, `took`
    seconds from its first to its last byte."""

    def __init__(self, server, target, headers=(), method="GET", host=None,
                 port=0):
        super().__init__(daemon=True)
        self.server, self.target, self.method = server, target, method
        self.headers = list(headers) + [("Connection", "close")]
        self.host, self.port = host, port
        self.res, self.took, self.error = None, None, None

    def run(self):
        try:
            with self.server.connect(self.port, host=self.host) as conn:
                began = time.monotonic()
                conn.send(self.method, self.target, self.headers)
                self.res = conn.response(self.method)
                self.took = time.monotonic() - began
        except (Cut, OSError) as e:
            self.error = e

    @property
    def is_whole(self):
        return self.res is not None and self.res.complete


class Herd:
    def __init__(self, server):
        self.server, self.visits = server, []

    def send(self, target, count=1, headers=(), **more):
        """COUNT requests begin; the visits, which may not be over."""
        new = [Visit(self.server, target, headers, **more)
               for _ in range(count)]
        self.visits += new
        for one in new:
            one.start()
        return new

    def wait_busy(self, more=0):
        """Until httpd works on all requests of the herd that are not over
        (and MORE)."""
        def all_are_busy():
            count = len([x for x in self.visits if x.is_alive()])
            return busy_workers(self.server) >= count + more

        wait_for(all_are_busy, "all requests to be under way")

    def end(self, timeout=TIMEOUT):
        """All visits, when they are over."""
        until = time.monotonic() + timeout
        for one in self.visits:
            one.join(max(until - time.monotonic(), 0))
        late = [x.target for x in self.visits if x.is_alive()]
        assert not late, f"no answer in {timeout} s: {len(late)} of " \
            f"{len(self.visits)}, {sorted(set(late))[:5]}"
        return self.visits

    def all_right(self, body=None, status=200, timeout=TIMEOUT):
        """All answers are whole, with this status and BODY."""
        for one in self.end(timeout):
            check(one, body, status)
        return self.visits


def check(visit, body=None, status=200):
    assert visit.error is None, visit.error
    assert visit.res.complete, visit.res
    assert visit.res.status == status, visit.res
    if body is not None and visit.method != "HEAD":
        assert visit.res.body == body, visit.res


def meet(server, target, count, headers=(), **more):
    """A herd that has begun to ask for TARGET."""
    herd = Herd(server)
    herd.send(target, count, headers, **more)
    return herd


def status_of(server):
    lines = server.get("/server-status?auto").body.decode().splitlines()
    return dict(x.split(": ", 1) for x in lines if ": " in x)


def busy_workers(server):
    """without the one that answers this"""
    return int(status_of(server)["BusyWorkers"]) - 1


def owner_of(server, peer):
    """pid of the server's child that has a connection from PEER; to find the
    one that asked an origin"""
    wanted = f":{peer[1]:04X}"
    nodes = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        part = line.split()
        if part[1].endswith(wanted):
            nodes.append(f"socket:[{part[9]}]")
    for pid in server.children():
        for fd in Path("/proc", str(pid), "fd").iterdir():
            try:
                if os.readlink(fd) in nodes:
                    return pid
            except OSError:
                pass
    raise AssertionError(f"no child has a connection from {peer}")


def cpu_seconds(pids):
    """user and system time that these processes have used"""
    ticks = 0
    for pid in pids:
        stat = Path("/proc", str(pid), "stat").read_text()
        ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def kill(server, pid):
    """A violent death, that httpd does not log"""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in server.children(), f"{pid} to be gone")
