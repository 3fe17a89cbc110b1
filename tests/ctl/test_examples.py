# SPDX-License-Identifier: Apache-2.0
"""The modules in examples/, built as a stranger would, out of the tree."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import CONF, Site, ctl
from harness import settings
from harness.server import die_with_parent, free_port, wait_for

EXAMPLES = settings.source / "examples"
LINE = re.compile(r"^# (\d+) passed, (\d+) failed, (\d+) skipped$", re.M)


def module(installed, where, name):
    """Build examples/NAME in a directory of its own."""
    work = where / name
    shutil.copytree(EXAMPLES / name, work)
    # the command that the file itself tells, without what installs it
    text = (work / f"mod_cachemw_{name}.c").read_text()
    words = re.search(r"apxs -i -a (-c .*)", text).group(1).split()
    done = subprocess.run(["apxs", "-Wc,-Wall", "-Wc,-Wextra", *words],
                          cwd=work, env=installed, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning:" not in done.stdout + done.stderr
    return work / ".libs" / f"mod_cachemw_{name}.so"


@pytest.fixture(scope="module")
def null(installed, tmp_path_factory):
    return module(installed, tmp_path_factory.mktemp("null"), "null")


@pytest.fixture(scope="module")
def memcached_module(installed, tmp_path_factory):
    return module(installed, tmp_path_factory.mktemp("mc"), "memcached")


class Memcached:
    def __init__(self, megabytes):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p",
             str(self.port), "-m", str(megabytes)],
            preexec_fn=die_with_parent)
        wait_for(self.answers, "memcached")

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.sendall(b"version\r\n")
                return s.recv(100).startswith(b"VERSION")
        except OSError:
            return False

    def stat(self, name):
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.sendall(b"stats\r\n")
            text = b""
            while not text.endswith(b"END\r\n"):
                text += s.recv(65536)
        return int(re.search(rb"STAT %s (\d+)" % name.encode(), text)[1])

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def memcached():
    if not shutil.which("memcached"):
        pytest.skip("memcached is not installed")
    one = Memcached(2048)
    try:
        yield one
    finally:
        one.stop()


def figures(done):
    assert done.status == 0, done
    return [int(x) for x in LINE.search(done.out).groups()]


def test_null_passes(null):
    passed, failed, _ = figures(ctl("check", "--load", null, "null"))
    assert failed == 0
    assert passed >= 15


@pytest.mark.parametrize("core", [
    (), pytest.param(("--core",), marks=pytest.mark.long)], ids=["table", "core"])
def test_memcached_passes(memcached_module, memcached, core):
    passed, failed, _ = figures(
        ctl("check", "--force", *core, "--load", memcached_module, "memcached",
            f"port={memcached.port}", "timeout=20s", "store_timeout=20s"))
    assert failed == 0
    assert passed >= 100


@pytest.mark.parametrize("option,says", [
    ("host=localhost", "an IPv4 address such as 192.0.2.7 is expected"),
    ("key_prefix=a\tb", "printable characters without blanks"),
    ("port=0", "from 1 to 65535"),
])
def test_memcached_refuses(memcached_module, option, says):
    done = ctl("check", "--force", "--load", memcached_module, "memcached",
               option)
    assert done.status != 0
    assert option.split("=")[0] in done.err and says in done.err, done


@pytest.fixture
def site(origin, memcached_module, memcached):
    one = Site(origin, "memcached", [f"port={memcached.port}"])
    # the stranger's module has to be loaded by its path
    one.server.write_conf(f'LoadModule cachemw_memcached_module '
                          f'"{memcached_module}"\n' + CONF)
    with one.server:
        yield one


def test_memcached_serves(site, memcached):
    """Pages of all lengths come out of it as they went in."""
    pages = {f"/mc/{n}": os.urandom(n) for n in (0, 1, 30000, 100000, 700000)}
    for page, body in pages.items():
        site.origin.page(page, body)

    def is_hit(page, body):
        res = site.get(page)
        assert (res.status, res.body) == (200, body)
        return res.cache == "HIT"
    for page, body in pages.items():
        wait_for(lambda: is_hit(page, body), page)


def test_memcached_connections_are_kept(site, memcached):
    body = os.urandom(5000)
    site.origin.page("/mc/kept", body)
    wait_for(lambda: site.get("/mc/kept").cache == "HIT", "a hit")
    before = memcached.stat("total_connections")
    for _ in range(200):
        assert site.get("/mc/kept").cache == "HIT"
    # each child has its own, which are made as they are needed
    assert memcached.stat("total_connections") - before < 50


def test_memcached_hangs(site, memcached):
    """It answers no more: nobody waits longer than a store may take."""
    body = os.urandom(5000)
    site.origin.page("/mc/hang", body)
    wait_for(lambda: site.get("/mc/hang").cache == "HIT", "a hit")
    memcached.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        for _ in range(20):
            res = site.get("/mc/hang")
            assert (res.status, res.body) == (200, body)
        # each apr_memcache call would take a second
        assert time.monotonic() - began < 15
    finally:
        memcached.signal(signal.SIGCONT)
    wait_for(lambda: site.get("/mc/hang").cache == "HIT", "a hit")


def test_memcached_dies(site, memcached):
    body = os.urandom(5000)
    site.origin.page("/mc/dead", body)
    wait_for(lambda: site.get("/mc/dead").cache == "HIT", "a hit")
    memcached.stop()
    for _ in range(10):
        res = site.get("/mc/dead")
        assert (res.status, res.body) == (200, body)
