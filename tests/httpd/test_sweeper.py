# SPDX-License-Identifier: Apache-2.0
"""The process that sweeps: there is one, it is nobody's burden, and it goes
when its server goes."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conftest import SITE, provider_conf
from harness import Httpd, settings
from harness.faults import MODULES, STORES, write
from harness.server import can_listen, processes_of, sweeps, wait_for
from test_status import figures

pytestmark = [pytest.mark.mpm]

EVERY_SECOND = """
CachemwStore pages memory size=8M keep=0 cleanup_interval=1s
CachemwProvider pages
CacheEnable cachemw /
"""


@pytest.fixture
def server(httpd):
    return httpd(SITE, {"QUICK": "on"})


def one(server, but=()):
    """the pid of the sweeper, when there is just one"""
    pids = wait_for(lambda: [x for x in server.sweepers() if x not in but],
                    "a sweeper")
    assert len(pids) == 1
    return pids[0]


def status(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return line.split()[1:]
    raise AssertionError(field)


def sockets(pid, port):
    """how many descriptors of PID listen at PORT"""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and int(words[1].split(":")[1], 16) == port:
            inodes.add(f"socket:[{words[9]}]")
    assert inodes
    found = [os.readlink(x) for x in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(x in inodes for x in found)


def settled(server):
    """A sweeper that had its first turn and sleeps."""
    pid = one(server)
    wait_for(lambda: status(pid, "Uid")[0] == status(server.children()[0],
                                                     "Uid")[0]
             and status(pid, "State")[0] == "S", "it to rest")
    return pid


def test_one_sweeper_that_is_httpds_user_and_holds_no_port(server):
    pid = settled(server)
    child = server.children()[0]
    for field in ("Uid", "Gid", "Groups", "NoNewPrivs"):
        assert status(pid, field) == status(child, field)
    if settings.run_user:
        assert status(pid, "Uid") == [str(settings.run_user[1])] * 4
    assert int(status(pid, "PPid")[0]) == server.pid
    assert sockets(server.pid, server.ports[0]) == 1
    assert sockets(pid, server.ports[0]) == 0
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def threads(server):
    """of each child, different numbers only"""
    return {len(list(Path(f"/proc/{pid}/task").iterdir()))
            for pid in server.children()}


def test_children_have_no_thread_more_than_without_us(httpd, server, origin,
                                                      path):
    bare = httpd(SITE, {"QUICK": "on", "PROVIDER": ""}, extra=[])
    page = path()
    origin.page(page, b"x")
    for one in (server, bare):
        for _ in range(2):
            one.get(page)
    time.sleep(1.2)
    # httpd may be starting some of its own yet
    wait_for(lambda: threads(server) == threads(bare), "as many threads")


def test_what_has_expired_goes_away_without_traffic(httpd, origin, path):
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": EVERY_SECOND})
    for number in range(20):
        target = path(f"p{number}")
        origin.page(target, b"x" * 3000, 1)
        server.get(target)
    wait_for(lambda: figures(server)["Expired"] == "20", "the sweep")
    assert figures(server)["Entries"] == "0"


def test_it_sleeps_when_nothing_is_due(server):
    pid = settled(server)

    def sleeps():
        before = status(pid, "voluntary_ctxt_switches")
        time.sleep(3)
        return status(pid, "voluntary_ctxt_switches") == before

    wait_for(sleeps, "it to sleep")


def test_no_store_no_sweeper(httpd):
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": ""})
    assert server.sweepers() == []


def test_configtest_and_a_start_that_fails_leave_none():
    server = Httpd(SITE, {"QUICK": "on", "PROVIDER": provider_conf(),
                          "ORIGIN": 1, "FLAKY": 1}, extra=["cachemw"])
    try:
        assert server.configtest()[0] == 0
        before = {int(x) for x in os.listdir("/proc") if x.isdigit()
                  and sweeps(int(x))}
        with socket.socket() as taken:
            taken.bind(server.addr())
            taken.listen(1)
            done = subprocess.run(server.command + ["-DFOREGROUND"], cwd="/",
                                  capture_output=True, timeout=20)
        assert done.returncode != 0
        assert before >= {int(x) for x in os.listdir("/proc")
                          if x.isdigit() and sweeps(int(x))}
    finally:
        server.remove()


def test_stop_ends_it(server):
    pid, group = settled(server), server.pid
    server.stop()
    assert processes_of(group) == [] and not Path(f"/proc/{pid}").exists()
    assert "which swept the stores" not in server.log()


def test_graceful_stop_ends_it(server):
    group = server.pid
    settled(server)
    Httpd.live.remove(server)
    os.kill(group, signal.SIGWINCH)
    assert server.process.wait(10) == 0
    server.process = None
    wait_for(lambda: not processes_of(group), "all to end", 5)
    assert "which swept the stores" not in server.log()


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGHUP])
def test_restart_replaces_it(server, origin, path, how):
    page = path()
    origin.page(page, b"x")
    server.get(page)
    seen = {settled(server)}
    for _ in range(3):
        if how == signal.SIGUSR1:
            server.graceful()
        else:
            ready = server.log().count("resuming normal operations")
            os.kill(server.pid, signal.SIGHUP)
            wait_for(lambda: server.log().count("resuming normal operations")
                     > ready, "the restart")
        assert not seen & set(server.sweepers())
        seen.add(one(server))
    assert len(seen) == 4
    assert "which swept the stores" not in server.log()
    wait_for(lambda: server.children(), "children")
    assert server.get(page).cache == "HIT"


def test_it_does_not_mind_what_is_for_others(server):
    pid = settled(server)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1,
                   signal.SIGWINCH, signal.SIGPIPE):
        os.kill(pid, number)
    time.sleep(0.2)
    assert server.sweepers() == [pid]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_it_comes_back_and_sweeps(httpd, origin, path, number):
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": EVERY_SECOND})
    pid = settled(server)
    os.kill(pid, number)
    again = one(server, but=[pid])
    assert server.log().count("which swept the stores") == 1
    for count in range(20):
        target = path(f"p{count}")
        origin.page(target, b"x" * 3000, 1)
        server.get(target)
    wait_for(lambda: figures(server)["Entries"] == "0", "the sweep")
    assert server.sweepers() == [again]


def test_one_that_does_not_live_comes_back_ever_later(server):
    dead = []
    for _ in range(3):
        dead.append(one(server, but=dead))
        os.kill(dead[-1], signal.SIGKILL)
    said = [x for x in server.log().splitlines()
            if "which swept the stores" in x]
    wait_for(lambda: server.log().count("which swept the stores") == 3,
             "the lines")
    pauses = [re.search(r"after (\d+) s", x)[1] for x in said[:2]]
    assert pauses == ["0", "1"]


def is_gone(pid):
    try:
        return status(pid, "State")[0] == "Z"
    except OSError:
        return True


def kill_parent(server, sweeper):
    """how long the sweeper outlives its parent; the children are killed"""
    group = server.pid
    Httpd.live.remove(server)
    os.kill(group, signal.SIGKILL)
    server.process.wait()
    server.process = None
    began = time.monotonic()
    wait_for(lambda: is_gone(sweeper), "the sweeper to end", 5)
    took = time.monotonic() - began
    for child in processes_of(group):
        os.kill(child, signal.SIGKILL)
    wait_for(lambda: not processes_of(group), "the children to end")
    return took


def test_parent_killed_it_goes_and_the_port_is_free(server):
    kill_parent(server, settled(server))
    # A process is a zombie before the last of its threads has let go.
    wait_for(lambda: can_listen(server.addr()), "the port to be free")


@pytest.fixture
def stuck(origin, flaky):
    """a server whose sweeper is in a sweep that does not end"""
    server = Httpd(SITE, {"QUICK": "on", "PROVIDER": STORES, "KIND": "faulty",
                          "OPTIONS": "", "ORIGIN": origin.port,
                          "FLAKY": flaky.port}, extra=MODULES)
    write(server, "sweep delay=600000")
    try:
        settled(server.start())
        yield server
    finally:
        server.remove()


def test_sweep_that_is_stuck_delays_no_visitor_and_no_restart(stuck, origin,
                                                              path):
    pid = one(stuck)
    page = path()
    origin.page(page, b"x")
    assert [stuck.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    write(stuck)
    began = time.monotonic()
    stuck.graceful(wait_old=False)
    assert 0.5 < time.monotonic() - began < 10
    assert one(stuck) != pid
    assert stuck.get(page).cache == "HIT"


def test_sweep_that_is_stuck_ends_with_its_parent(stuck):
    assert kill_parent(stuck, one(stuck)) > 0.5


def test_one_that_is_stopped_delays_no_restart(server):
    pid = settled(server)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    server.graceful(wait_old=False)
    assert 1 < time.monotonic() - began < 10
    assert one(server) != pid


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM,
                                 signal.SIGKILL])
def test_server_of_one_process_has_one(origin, flaky, how):
    """httpd -X, and Ctrl-C, which goes to the whole group"""
    server = Httpd(SITE, {"QUICK": "on", "PROVIDER": provider_conf(),
                          "ORIGIN": origin.port, "FLAKY": flaky.port},
                   extra=["cachemw"])
    alone = subprocess.Popen(server.command + ["-X"], cwd="/",
                             stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL,
                             start_new_session=True)
    try:
        sweepers = wait_for(lambda: [x for x in processes_of(alone.pid)
                                     if sweeps(x)], "the sweeper")
        assert server.get("/local/none").status == 404
        os.killpg(alone.pid, how) if how == signal.SIGINT \
            else os.kill(alone.pid, how)
        alone.wait(10)
        wait_for(lambda: not processes_of(alone.pid), "the sweeper to end", 5)
        assert len(sweepers) == 1
    finally:
        for pid in processes_of(alone.pid):
            os.kill(pid, signal.SIGKILL)
        alone.wait()
        server.remove()
