# SPDX-License-Identifier: Apache-2.0
"""A hit costs no system call that httpd would not make for any answer."""

import re

import pytest

from conftest import SITE
from harness import settings
from harness.server import wait_for
from harness.strace import strace

pytestmark = [pytest.mark.mpm, pytest.mark.memory]

HITS = 1000
# What the threads beside call by the clock: more of it the longer a run takes.
SLEEPS = {"clock_nanosleep", "pselect6", "restart_syscall", "select"}
if settings.mpm != "prefork":
    # How often httpd's own threads wake each other varies by half.
    SLEEPS.add("futex")


def traced(server, run, log):
    """What the children call while run() runs, each by its name."""
    rows = re.findall(r"^ *[\d.]+ +\S+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$",
                      strace(server, run, log, "-c"), re.M)
    return {name: int(calls) for calls, name in rows if name != "total"}


@pytest.mark.parametrize("size", [1000, 10000])
def test_hits_make_no_call_of_their_own(httpd, origin, path, tmp_path, size):
    server = httpd(SITE + "LogLevel warn\n", {"QUICK": "on"})
    page = path()
    origin.page(page, b"x" * size)
    assert server.get(page).cache == "MISS"
    wait_for(lambda: server.get(page).cache == "HIT", "the commit")
    with server.connect() as conn:

        def hits():
            for _ in range(HITS):
                assert conn.get(page).cache == "HIT"

        def others():
            for _ in range(HITS):
                assert conn.ask("OPTIONS", "*").status == 200

        hits()
        usual = traced(server, others, tmp_path / "others")
        made = traced(server, hits, tmp_path / "hits")
    assert made["writev"] >= HITS
    allowed = {name: usual.get(name, 0) + HITS // 2 for name in made}
    more = {name: (calls, allowed[name]) for name, calls in made.items()
            if name not in SLEEPS and calls > allowed[name]}
    assert not more, more
