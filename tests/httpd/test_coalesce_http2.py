# SPDX-License-Identifier: Apache-2.0
"""One fetch for many streams of HTTP/2, which mod_http2 works on in threads of
its own, and six of a connection at a time until it trusts that."""

import threading
import time

import pytest

from harness import Gate
from harness.origin import cacheable
from test_basic import noise
from test_coalesce import CONF, Turns, asked, names_of

pytestmark = [pytest.mark.mpm]

H2 = """
Protocols h2c http/1.1
H2Direct on
H2MinWorkers 16
H2MaxWorkers @STREAMS@
"""
WAIT = "coalesce_timeout=20s"
SOON = 8                            # seconds; well below that
AT_ONCE = 5                         # streams of a connection
PAUSE = 0.3                         # for those who should not ask to do so


def start(make, workers=128, children=1, threads=400, quick="on",
          options=WAIT):
    names = {**names_of(children, threads, options, quick, more=H2),
             "STREAMS": workers}
    return make(CONF, names, extra=["cachemw", "http2"])


class Streams(threading.Thread):
    """One connection, COUNT streams for the same page; the answers and how
    long all of them took"""

    def __init__(self, server, page, count=AT_ONCE):
        super().__init__(daemon=True)
        self.server, self.page, self.count = server, page, count
        self.answers, self.took = [], None
        self.start()

    def run(self):
        began = time.monotonic()
        with self.server.connect2() as conn:
            streams = [conn.send("GET", self.page) for _ in range(self.count)]
            self.answers = [conn.response(x) for x in streams]
        self.took = time.monotonic() - began


def all_right(visits, body, within=SOON):
    until = time.monotonic() + within
    for one in visits:
        one.join(max(until - time.monotonic(), 0))
        assert len(one.answers) == one.count, f"no answer in {within} s"
        for res in one.answers:
            assert res.complete and (res.status, res.body) == (200, body)


@pytest.mark.parametrize("count", [AT_ONCE, 30])
def test_streams_wait_for_one_of_them(module_httpd, origin, path, quick,
                                      count):
    server = start(module_httpd, quick=quick)
    page, gate, body = path(), Gate(), noise(30000)
    origin.page(page, body, gate=gate)
    herd = [Streams(server, page, count)]
    gate.wait_reached()
    threading.Event().wait(PAUSE)
    assert origin.count(page) == 1
    gate.open()
    all_right(herd, body)
    assert origin.count(page) == 1


def test_streams_of_many_connections_wait_for_one(module_httpd, origin, path,
                                                  quick):
    """and other pages do not"""
    server = start(module_httpd, quick=quick)
    page, other, gate, body = path(), path("other"), Gate(), noise(30000)
    origin.page(page, body, gate=gate)
    origin.page(other, b"other")
    herd = [Streams(server, page) for _ in range(6)]
    gate.wait_reached()
    threading.Event().wait(PAUSE)
    assert server.h2(other).body == b"other"
    assert server.get(other).body == b"other"
    assert origin.count(page) == 1
    gate.open()
    all_right(herd, body)
    assert origin.count(page) == 1


def test_stream_for_another_page_of_the_same_connection(module_httpd, origin,
                                                        path):
    server = start(module_httpd)
    page, other, gate = path(), path("other"), Gate()
    origin.page(page, b"x", gate=gate)
    origin.page(other, b"other")
    with server.connect2() as conn:
        streams = [conn.send("GET", page) for _ in range(AT_ONCE)]
        began = time.monotonic()
        assert conn.get(other).body == b"other"
        assert time.monotonic() - began < SOON
        gate.open()
        for one in streams:
            assert conn.response(one).body == b"x"
    assert origin.count(page) == 1


def test_100_streams_disturb_nobody(module_httpd, origin, path):
    """At most a quarter of mod_http2's workers wait."""
    server = start(module_httpd)
    page, other, gate, body = path(), path("other"), Gate(), noise(30000)
    origin.page(page, body, gate=gate)
    origin.page(other, b"other")
    herd = [Streams(server, page) for _ in range(20)]
    asked(origin, page, 100 - 128 // 4)
    threading.Event().wait(PAUSE)
    assert origin.count(page) == 100 - 128 // 4
    took = []
    for n in range(9):
        began = time.monotonic()
        assert server.h2(f"{other}?{n // 2}").body == b"other"
        took.append(time.monotonic() - began)
    gate.open()
    all_right(herd, body)
    assert sorted(took)[4] < 1, took


def test_streams_wait_no_longer_than_the_timeout(httpd, origin, path):
    server = start(httpd, options="coalesce_timeout=700ms")
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = [Streams(server, page)]
    asked(origin, page, AT_ONCE, SOON)
    gate.open()
    all_right(herd, b"x")
    times = sorted(x.time for x in origin.requests(page))
    assert 0.35 < times[-1] - times[0] < 2.5    # less than the default


def test_stream_that_fetches_is_reset(module_httpd, origin, path, quick):
    """Others are on another connection: mod_http2 now and then refuses the
    other streams of this one."""
    server = start(module_httpd, quick=quick)
    page, gate, body = path(), Gate(), noise(300000)
    origin.on(page, Turns(cacheable([body[:99], gate, body[99:]],
                                    framing="chunked"), cacheable(body)))
    with server.connect2() as conn:
        first = conn.send("GET", page)
        gate.wait_reached()
        herd = Streams(server, page)
        threading.Event().wait(PAUSE)
        assert origin.count(page) == 1
        conn.reset(first)
        gate.open()
        all_right([herd], body)
    assert origin.count(page) <= 2
    assert server.get(page).cache == "HIT"


@pytest.mark.parametrize("leaves", ["abort", "reset"])
def test_streams_that_wait_may_leave(module_httpd, origin, path, leaves):
    server = start(module_httpd)
    page, gate = path(), Gate()
    origin.page(page, b"x", gate=gate)
    herd = [Streams(server, page)]
    gate.wait_reached()
    conn = server.connect2()
    streams = [conn.send("GET", page) for _ in range(AT_ONCE)]
    threading.Event().wait(PAUSE)
    if leaves == "reset":
        for one in streams:
            conn.reset(one)
    conn.close()
    gate.open()
    all_right(herd, b"x")
    assert origin.count(page) == 1
    assert server.h2(page).cache == "HIT"


def test_child_goes_on_when_connections_were_lost(module_httpd, origin, path):
    """20 times: no stream stays counted as one that waits"""
    server = start(module_httpd)
    for n in range(20):
        page, gate = path(f"p{n}"), Gate()
        origin.page(page, b"x", gate=gate)
        conn = server.connect2()
        for _ in range(AT_ONCE):
            conn.send("GET", page)
        gate.wait_reached()
        conn.close()
        gate.open()
    page, gate = path("last"), Gate()
    origin.page(page, b"x", gate=gate)
    herd = [Streams(server, page) for _ in range(5)]
    gate.wait_reached()
    threading.Event().wait(PAUSE)
    assert origin.count(page) == 1
    gate.open()
    all_right(herd, b"x")
