# SPDX-License-Identifier: Apache-2.0
"""The modules in examples/, built as a stranger would, out of the tree."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import CONF, Site, ctl
from harness import settings
from harness.server import (can_listen, die_with_parent, free_port,
                            wait_for)

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


def loading(site, **modules):
    """The site's server with modules of these paths, too."""
    site.server.write_conf("".join(
        f'LoadModule {x}_module "{y}"\n' for x, y in modules.items()) + CONF)


@pytest.fixture
def site(origin, memcached_module, memcached):
    one = Site(origin, "memcached", [f"port={memcached.port}"])
    # the stranger's module has to be loaded by its path
    loading(one, cachemw_memcached=memcached_module)
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


class Dripping:
    """A memcached that answers a byte now and then, and never to the end: who
    waits for a line of it is being kept waiting as long as it wants."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = self.listener.getsockname()[1]
        self.asked = self.is_over = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        clients = []
        self.listener.settimeout(0.1)
        while not self.is_over:
            try:
                clients.append(self.listener.accept()[0])
            except TimeoutError:
                pass
            for one in clients:
                try:
                    self.asked |= bool(one.recv(1000, socket.MSG_DONTWAIT))
                except OSError:
                    pass
                try:
                    one.send(b"V")
                except OSError:
                    pass
        for one in (self.listener, *clients):
            one.close()

    def stop(self):
        self.is_over = True
        self.thread.join()


# The last thing that a process does is to wait for its threads: those that are
# left must find their code and what they work with.
LINGER = """
    #include <dlfcn.h>
    #include <dirent.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    #include "httpd.h"
    #include "http_config.h"

    static const char here;

    static int threads(void)
    {
        DIR *dir = opendir("/proc/self/task");
        int n = -2;

        while (readdir(dir)) n++;
        closedir(dir);
        return n;
    }

    static void linger(void)
    {
        FILE *mark = fopen(getenv("LINGER"), "w");
        int i;

        fprintf(mark, "%d", threads());
        fclose(mark);
        for (i = 0; i < 3000 && threads() > 1; i++) usleep(10000);
    }

    static void __attribute__((constructor)) begin(void)
    {
        Dl_info info;

        dladdr(&here, &info);
        dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
        atexit(linger);
    }

    AP_DECLARE_MODULE(linger) = { STANDARD20_MODULE_STUFF };
    """


def test_threads_that_wait_outlive_the_module(origin, memcached_module,
                                              strangers):
    """httpd -X unloads its modules when it ends."""
    memcached = Dripping()
    site = Site(origin, "memcached", [f"port={memcached.port}"])
    server = site.server
    mark = server.dir / "cache" / "mark"
    origin.page("/mc/x", b"page")
    loading(site, cachemw_memcached=memcached_module,
            linger=strangers("mod_linger", LINGER))
    try:
        with subprocess.Popen(
                [*server.command, "-X"], stdin=subprocess.DEVNULL, cwd="/",
                start_new_session=True, preexec_fn=die_with_parent,
                env={**os.environ, "LINGER": str(mark)}) as one:
            try:
                wait_for(lambda: not can_listen(server.addr()), "httpd -X")
                assert site.get("/mc/x").body == b"page"
                assert memcached.asked
                one.terminate()
                wait_for(lambda: mark.exists() or one.poll() is not None,
                         "its end", 60)
                memcached.stop()
                one.wait(60)
            finally:
                one.kill()
        assert int(mark.read_text()) > 1        # one was being kept waiting
        assert one.returncode == 0, server.log()
    finally:
        memcached.stop()
        server.remove()


def test_memcached_restarts_under_load(site, memcached):
    """Visitors get each page whole, while the module comes and goes: also when
    memcached hangs meanwhile."""
    pages = {f"/mc/load/{n}": os.urandom(n) for n in (10, 20000, 90000)}
    for page, body in pages.items():
        site.origin.page(page, body)
    wrong, counts, is_over = [], [0] * 4, threading.Event()

    def visit(number):
        try:
            while not is_over.is_set():
                for page, body in pages.items():
                    res = site.get(page)
                    if (res.status, res.body) != (200, body):
                        wrong.append(f"{page}: {res}")
                    counts[number] += 1
        except Exception as e:
            wrong.append(repr(e))

    def all_went_on():
        before = list(counts)
        wait_for(lambda: wrong or all(x > y + 3 for x, y in
                                      zip(counts, before)), "answers", 60)
    visitors = [threading.Thread(target=visit, args=(x,)) for x in range(4)]
    for one in visitors:
        one.start()
    try:
        for hangs in (False, True, False):
            all_went_on()
            if hangs:
                memcached.signal(signal.SIGSTOP)
            site.server.graceful()
            all_went_on()
            memcached.signal(signal.SIGCONT)
    finally:
        memcached.signal(signal.SIGCONT)
        is_over.set()
        for one in visitors:
            one.join()
    assert not wrong
    site.server.check()


def test_memcached_hangs_when_httpd_stops(site, memcached):
    site.origin.page("/mc/stop", b"page")
    memcached.signal(signal.SIGSTOP)
    assert site.get("/mc/stop").body == b"page"
    site.server.stop()          # looks whether a child has died of something
    memcached.signal(signal.SIGCONT)
    site.server.start()
    wait_for(lambda: site.get("/mc/stop").cache == "HIT", "a hit")
