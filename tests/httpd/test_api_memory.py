# SPDX-License-Identifier: Apache-2.0
"""What requests to a store behind HTTP take in memory: each of them, and all of
a child together."""

import contextlib
import json
import os
import re

import pytest

from harness import settings
from harness.server import wait_for
from harness.values import envelope, name_of, value
from test_api import AUTH, JSON, figures
from test_basic import noise

KEY = b"shop.test:80\0http://shop.test:80/large?"
LARGE = 16 << 20
MB = 1 << 20

CONF = """
ServerName api.test
Listen 127.0.0.1:@PORT@
<IfModule !mpm_prefork_module>
    ServerLimit 1
    StartServers 1
    MaxRequestWorkers 12
</IfModule>
CachemwStore files file cache_dir=@DIR@/cache/files max_object_size=16M
<Location "/files">
    SetHandler cachemw-api
    CachemwApi files auth_token=open-sesame @MORE@
</Location>
<Location "/server-status">
    SetHandler server-status
</Location>
"""

pytestmark = [pytest.mark.errors]


@pytest.fixture(scope="module")
def large():
    """the text of a PUT, as large as can be"""
    return envelope(value(KEY, noise(LARGE)))


TARGET = "/files/cache/" + name_of(KEY)

# prefork's children have one request at a time
at_once = pytest.mark.skipif(settings.mpm == "prefork", reason="one at a time")


@pytest.fixture
def start(httpd, monkeypatch):
    # freed blocks of this size go back to the system, as they do at first
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    return lambda more="": httpd(CONF, {"MORE": more}, extra=["cachemw"])


def peaks(server):
    """the most memory of each child until now, in bytes"""
    found = {}
    for pid in server.children():
        with open(f"/proc/{pid}/status") as text:
            found[pid] = 1024 * int(re.search(r"VmHWM:\s+(\d+)",
                                              text.read())[1])
    return found


def taken(server, do):
    """how much more than before a child has had while do() was done"""
    for pid in server.children():
        with open(f"/proc/{pid}/clear_refs", "w") as what:
            what.write("5")         # begin anew
    before = peaks(server)
    do()
    return max(size - before[pid] for pid, size in peaks(server).items()
               if pid in before)


def put(server, text, target=TARGET):
    with server.connect() as conn:
        # an answer may be there, and the connection closed, before all is sent
        with contextlib.suppress(ConnectionError):
            conn.send("PUT", target, AUTH + JSON, body=text)
        return conn.response()


def look_up(server):
    with server.connect() as conn:
        return conn.get(TARGET, AUTH)


def put_in_chunks(server, text):
    with server.connect() as conn:
        conn.send("PUT", TARGET,
                  AUTH + JSON + [("Transfer-Encoding", "chunked")])
        with contextlib.suppress(ConnectionError):  # see put()
            for at in range(0, len(text), 50_000):
                part = text[at:at + 50_000]
                conn.raw(b"%x\r\n%s\r\n" % (len(part), part))
            conn.raw(b"0\r\n\r\n")
        return conn.response()


# ---- one ---------------------------------------------------------------------

@pytest.mark.parametrize("way", [put, put_in_chunks])
def test_storing_takes_five_times_the_body(start, large, way):
    server = start()

    def store():
        assert way(server, large).status == 204

    store()
    assert taken(server, store) < 5 * LARGE + 8 * MB


def test_looking_up_takes_the_text_of_the_body(start, large):
    server = start()
    assert put(server, large).status == 204

    def find():
        found = json.loads(look_up(server).body)["value"]
        assert found == json.loads(large)["value"]

    find()
    assert taken(server, find) < LARGE * 4 // 3 + 8 * MB


# ---- all together ------------------------------------------------------------

def begin_put(server, length):
    """a connection whose request waits for so many bytes in the handler"""
    conn = server.connect()
    conn.send("PUT", TARGET,
              AUTH + JSON + [("Expect", "100-continue"),
                             ("Content-Length", str(length))])
    assert conn.reader.line().startswith(b"HTTP/1.1 100 ")
    assert conn.reader.line() == b""
    return conn


def is_busy(res):
    assert (res.status, res.get("Retry-After")) == (503, "1"), res
    assert "memory" in json.loads(res.body)["error"]


@at_once
def test_what_does_not_fit_is_told_when_to_come_again(start, large):
    """One large request has a place of its own; a small one still fits beside
    it, and what has gone makes room."""
    server = start("max_memory=96M")
    other = b"another"
    small = envelope(value(other)), "/files/cache/" + name_of(other)
    for _ in range(3):
        first = begin_put(server, len(large))
        is_busy(put(server, large))
        is_busy(put_in_chunks(server, large))
        assert put(server, *small).status == 204
        first.raw(large)
        assert first.response().status == 204
        first.close()
    left = begin_put(server, len(large))
    left.abort()
    wait_for(lambda: put(server, large).status == 204, "room for another")
    assert int(figures(server, "files")["ApiBusy"]) >= 6


@at_once
def test_what_is_being_sent_takes_room(start, large):
    server = start("max_memory=96M")
    assert put(server, large).status == 204
    slow = []
    for _ in range(20):
        conn = server.connect(rcvbuf=4096)
        conn.send("GET", TARGET, AUTH)
        res = conn.head()
        slow.append(conn)
        if res.status != 200:
            break
    is_busy(conn.body(res))
    assert len(slow) == 5       # of 21 MB
    for conn in slow:
        conn.abort()
    wait_for(lambda: look_up(server).status == 200, "room again")


def figures_of_children(server):
    """(bytes in memory, open files) of each"""
    found = {}
    for pid in server.children():
        with open(f"/proc/{pid}/status") as text:
            size = int(re.search(r"VmRSS:\s+(\d+)", text.read())[1]) * 1024
        found[pid] = size, len(os.listdir(f"/proc/{pid}/fd"))
    return found


def test_requests_leave_nothing(start, large):
    """neither memory, nor files, nor room that they had"""
    server = start("max_memory=96M")
    middle = envelope(value(KEY, noise(100_000)))
    wrong = middle.replace(b'"crc32c"', b'"crc32d"')

    def leave_early():
        conn = server.connect()
        conn.send("PUT", TARGET, AUTH + JSON + [("Content-Length", "1000000")])
        conn.raw(middle)
        conn.abort()

    def leave_while_it_comes():
        conn = server.connect(rcvbuf=4096)
        conn.send("GET", TARGET, AUTH)
        assert conn.head().status == 200
        conn.abort()

    def many(count):
        for _ in range(count):
            assert put(server, middle).status == 204
            assert look_up(server).status == 200
            for body, headers, status in (
                    (wrong, JSON, 422), (middle[:-9], JSON, 400),
                    (middle, [("If-None-Match", "*")] + JSON, 412),
                    (b"x", [], 415),
                    (None, [("Content-Length", "99999999")] + JSON, 413)):
                with server.connect() as conn:
                    assert conn.ask("PUT", TARGET, AUTH + headers,
                                    body=body).status == status
            leave_early()
            leave_while_it_comes()

    many(50)
    before = figures_of_children(server)
    many(150)
    after = figures_of_children(server)
    stayed = before.keys() & after.keys()
    assert stayed
    for pid in stayed:
        assert after[pid][0] - before[pid][0] < 8 * MB
        assert after[pid][1] - before[pid][1] < 20
    wait_for(lambda: put(server, large).status == 204, "all its room")
