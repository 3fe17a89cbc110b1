# SPDX-License-Identifier: Apache-2.0
"""What requests to a store behind HTTP take in memory: each of them, and all of
a child together."""

import json
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
def start(httpd):
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
        return conn.ask("PUT", target, AUTH + JSON, body=text)


def put_in_chunks(server, text):
    with server.connect() as conn:
        conn.send("PUT", TARGET,
                  AUTH + JSON + [("Transfer-Encoding", "chunked")])
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

    def look_up():
        with server.connect() as conn:
            res = conn.get(TARGET, AUTH)
        assert json.loads(res.body)["value"] == json.loads(large)["value"]

    look_up()
    assert taken(server, look_up) < LARGE * 4 // 3 + 8 * MB


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

    def look_up():
        with server.connect() as again:
            return again.get(TARGET, AUTH)

    wait_for(lambda: look_up().status == 200, "room again")
