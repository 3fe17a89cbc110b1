# SPDX-License-Identifier: Apache-2.0
"""bench/run: figures for hits only, and nothing left behind."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.settings import settings

BENCH = settings.source / "bench" / "run"


@pytest.fixture
def bench(tmp_path):
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:3]:
        if above.name.startswith("pytest"):
            above.chmod(0o755)
    started = []

    def start(*words):
        process = subprocess.Popen(
            ["/usr/bin/python3", str(BENCH), "--moddir", str(settings.build),
             "--httpd", settings.httpd, "--quick", *words],
            env=dict(os.environ, TMPDIR=str(tmp_path)), text=True,
            # a shell has its background jobs ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)
    assert not list(tmp_path.iterdir())
    assert not using(tmp_path)


def using(folder):
    """Command lines of processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{folder}/".encode() in path.read_bytes():
                found.append(path.read_bytes())
        except OSError:
            pass
    return found


def test_figures_for_hits_and_stores(bench):
    process = bench("--only", "proxy,cachemw-memory")
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert "no figure" not in out
    row = re.compile(r"^cachemw-memory(\s+[\d.]+){6}$", re.M)
    assert len(row.findall(out)) == 2, out


def test_no_figure_when_hits_are_not_hits(bench):
    process = bench("--only", "cachemw-memory,disk,nginx", "--mode", "hit",
                    "--cache-control", "no-store")
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 1, out
    for name in ("cachemw-memory", "disk", "nginx"):
        assert re.search(rf"^{name}\s+no figure: a repeated request is no hit; "
                         r"X-Cache: MISS, MISS", out, re.M), out
        assert not re.search(rf"^{name}\s+[\d.]+\s+[\d.]", out, re.M), out


def test_nothing_is_left_after_ctrl_c(bench, tmp_path):
    process = bench("--only", "cachemw-memory", "--secs", "20")
    end = time.monotonic() + 60
    while time.monotonic() < end and len(using(tmp_path)) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
