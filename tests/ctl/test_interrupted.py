# SPDX-License-Identifier: Apache-2.0
"""check and bench are stopped in the middle: nothing is left of them."""

import contextlib
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import PROGRAM
from harness import settings
from harness.server import die_with_parent, wait_for

BROKEN = settings.build / "tests/conformance/selftest/.libs/mod_broken.so"


def session(pid):
    """The processes of a session that live, but for who began it."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return [x for x in found if x != pid]


def obey():
    """Whoever began the tests may have them ignored."""
    die_with_parent()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)


class Running:
    """A command with a terminal for its progress."""

    def __init__(self, tmp_path, *words):
        self.temp = tmp_path
        self.terminal, stderr = pty.openpty()
        self.process = subprocess.Popen(
            [PROGRAM, *words], stdin=subprocess.DEVNULL, stderr=stderr,
            stdout=subprocess.PIPE, start_new_session=True, preexec_fn=obey,
            env={**os.environ, "TMPDIR": str(tmp_path)})
        os.close(stderr)

    def await_progress(self, text):
        seen = b""
        while text not in seen:
            seen += os.read(self.terminal, 4096)

    def signal(self, one, group=True):
        (os.killpg if group else os.kill)(self.process.pid, one)

    def ended(self):
        """Its status and output; all that it has made must be gone."""
        out = self.process.communicate(timeout=120)[0].decode()
        wait_for(lambda: not session(self.process.pid),
                 "the processes to end")
        assert not list(self.temp.iterdir())
        return self.process.returncode, out

    def close(self):
        for pid in [self.process.pid, *session(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        os.close(self.terminal)


@contextlib.contextmanager
def running(tmp_path, *words):
    with contextlib.closing(Running(tmp_path, *words)) as one:
        yield one


BENCH = ["bench", "--warmup", "0s", "--keys", "100", "--processes", "2",
         "--threads", "2"]


@pytest.mark.parametrize("group", [True, False])    # a terminal; kill
@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_bench_prints_what_was_measured_before(tmp_path, one, group):
    for seconds in ("1", "4", "16", "64"):  # a slow one may find it at its end
        with running(tmp_path, *BENCH, "--seconds", seconds, "--ops",
                     "set,get", "file", "cache_dir={tmp}/c") as bench:
            bench.await_progress(b"get, 1.0K")
            bench.signal(one, group)
            status, out = bench.ended()
        if " get " not in out:
            break
    assert status == 128 + one, out
    rows = [x.split() for x in out.splitlines()]
    assert [x[:2] for x in rows] == [["STORE", "OP"], ["file", "set"]], out


def test_bench_of_a_provider_that_hangs_is_stopped(tmp_path):
    with running(tmp_path, *BENCH, "--ops", "get", "--load", BROKEN, "hangs",
                 "size=4M") as bench:
        bench.await_progress(b"get, 1.0K: 0/s")
        bench.signal(signal.SIGINT)
        status, out = bench.ended()
    assert (status, out) == (130, ""), out


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_check_leaves_nothing_behind(tmp_path, one):
    with running(tmp_path, "check", "--load", BROKEN, "--test",
                 "test_set_and_get", "hangs", "size=4M") as check:
        check.await_progress(b"1 of 1: test_set_and_get")
        wait_for(lambda: session(check.process.pid), "the test to begin")
        check.signal(one)
        status, out = check.ended()
    assert status == 128 + one, out
    assert out.splitlines() == ["1..1", "Bail out! interrupted"]


def test_a_check_that_is_killed_takes_its_test_along(tmp_path):
    with running(tmp_path, "check", "--load", BROKEN, "--test",
                 "test_set_and_get", "hangs", "size=4M") as check:
        check.await_progress(b"1 of 1: test_set_and_get")
        wait_for(lambda: session(check.process.pid), "the test to begin")
        check.signal(signal.SIGKILL, False)
        check.process.communicate(timeout=120)
        wait_for(lambda: not session(check.process.pid),
                 "its processes to end")
