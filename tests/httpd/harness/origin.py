# SPDX-License-Identifier: Apache-2.0
"""An origin server whose every answer is scripted, per path."""

import email.utils
import random
import socket
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace

from .client import Cut, _Reader, _raw, pairs

HOLD = 30       # seconds after which a forgotten gate fails its test


def noise(size, seed=1):
    """a body that no other seed makes"""
    return random.Random(seed).randbytes(size)


class Gate:
    """A place where an answer waits until the test lets it go on."""

    def __init__(self):
        self._reached = threading.Event()
        self._open = threading.Event()

    def open(self):
        self._open.set()

    def wait_reached(self):
        assert self._reached.wait(HOLD), "nothing reached the gate"

    @property
    def reached(self):
        return self._reached.is_set()

    def pass_through(self):
        self._reached.set()
        assert self._open.wait(HOLD), "the gate was never opened"


def http_date(when):
    return email.utils.formatdate(when, usegmt=True)


@dataclass
class Request:
    method: str
    target: str
    headers: list
    body: bytes = b""
    peer: tuple = ()            # address of who asked
    time: float = 0             # monotonic, when it was asked

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return ", ".join(values) if values else default


@dataclass
class Reply:
    """One answer.  `body` is bytes or an iterable of bytes; an item that is a
    Gate is waited at.  `etag` and `modified` (seconds since 1970) are sent as
    headers and answer conditional requests with 304 and `headers_304`."""

    body: object = b""
    headers: object = ()
    status: int = 200
    reason: str = "Scripted"
    framing: str = "length"     # length, chunked, close
    length: int = None          # a Content-Length that lies
    etag: str = None
    modified: float = None
    headers_304: object = None  # None: the same headers
    interim: object = ()        # (status, headers) sent first
    trailers: object = ()
    cut_after: int = None       # reset the connection after so many bytes
    gate: Gate = None           # waited at before the status line
    cut: bool = False           # say nothing at all, close

    def with_(self, **changes):
        return replace(self, **changes)


def cacheable(body=b"", age=60, **more):
    headers = [("Cache-Control", f"max-age={age}")]
    headers += pairs(more.pop("headers", ()))
    return Reply(body, headers, **more)


@dataclass
class _Page:
    responder: object = None
    seen: list = field(default_factory=list)


class Origin:
    def __init__(self, name="origin"):
        self.name = name
        self.errors = []
        self._lock = threading.Lock()
        self._pages = defaultdict(_Page)
        self._open = set()
        self._listener = None
        self.port = 0
        self.listen()

    # ---- what a test says -------------------------------------------------

    def on(self, path, responder):
        """RESPONDER: a Reply, or a function of the Request that makes one.
        Paths with a query are looked for with it first, then without."""
        with self._lock:
            self._pages[path].responder = responder

    def page(self, path, body=b"", age=60, **more):
        self.on(path, cacheable(body, age, **more))

    def requests(self, path):
        with self._lock:
            return list(self._pages[path].seen)

    def count(self, path):
        return len(self.requests(path))

    def last(self, path):
        return self.requests(path)[-1]

    # ---- life ---------------------------------------------------------------

    def listen(self):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        sock.listen(256)
        self.port = sock.getsockname()[1]
        self._listener = sock
        threading.Thread(target=self._accept, args=(sock,),
                         daemon=True).start()

    def close(self):
        """Connections are refused from here on, open ones are reset."""
        listener, self._listener = self._listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            left = list(self._open)
        for sock in left:
            _reset(sock)

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,),
                             daemon=True).start()

    def _serve(self, sock):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = _Reader(sock)
            while self._one(sock, reader):
                pass
        except (Cut, OSError):
            pass
        except Exception as e:      # a mistake in a script fails its test
            self.errors.append(f"{self.name}: {type(e).__name__}: {e}")
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    # ---- one request --------------------------------------------------------

    def _read(self, reader):
        method, target, _ = reader.line().decode("latin-1").split(" ", 2)
        headers = []
        while True:
            line = reader.line().decode("latin-1")
            if not line:
                break
            name, _, value = line.partition(":")
            headers.append((name, value.strip(" \t")))
        req = Request(method, target, headers)
        body = bytearray()
        if (req.get("Transfer-Encoding") or "").lower() == "chunked":
            while True:
                size = int(reader.line().split(b";")[0], 16)
                if not size:
                    while reader.line():
                        pass
                    break
                reader.exactly(size, body)
                reader.line()
        elif req.get("Content-Length"):
            reader.exactly(int(req.get("Content-Length")), body)
        req.body = bytes(body)
        return req

    def _one(self, sock, reader):
        req = self._read(reader)
        req.peer, req.time = sock.getpeername(), time.monotonic()
        with self._lock:
            plain = req.target.split("?")[0]
            page = self._pages[req.target]
            page.seen.append(req)
            responder = page.responder
            if req.target != plain:
                self._pages[plain].seen.append(req)
                responder = responder or self._pages[plain].responder
        if responder is None:
            reply = Reply(b"no script for this path", status=404)
        else:
            reply = responder(req) if callable(responder) else responder
        return self._send(sock, req, reply)

    def _send(self, sock, req, reply):
        if reply.gate:
            reply.gate.pass_through()
        if reply.cut:
            _reset(sock)
            return False
        for status, headers in reply.interim:
            sock.sendall(_head(status, "Interim", headers))
        headers = pairs(reply.headers)
        if reply.etag:
            headers.append(("ETag", reply.etag))
        if reply.modified is not None:
            headers.append(("Last-Modified", http_date(reply.modified)))
        if reply.status == 200 and _unchanged(req, reply):
            headers = headers if reply.headers_304 is None \
                else pairs(reply.headers_304)
            if reply.etag and not any(k.lower() == "etag" for k, _ in headers):
                headers.append(("ETag", reply.etag))
            sock.sendall(_head(304, "Not Modified", headers))
            return True
        return self._send_body(sock, req, reply, headers)

    def _send_body(self, sock, req, reply, headers):
        chunked = reply.framing == "chunked"
        bodyless = req.method == "HEAD" or reply.status in (204, 304)
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif reply.framing == "length" and reply.status not in (204, 304):
            size = reply.length if reply.length is not None \
                else len(reply.body)
            headers.append(("Content-Length", str(size)))
        closes = reply.framing == "close" or reply.length is not None
        if closes:
            headers.append(("Connection", "close"))
        sock.sendall(_head(reply.status, reply.reason, headers))
        if bodyless:
            return not closes
        left = reply.cut_after
        parts = [reply.body] if isinstance(reply.body, bytes) else reply.body
        for part in parts:
            if isinstance(part, Gate):
                part.pass_through()
                continue
            if left is not None and len(part) >= left:
                part, left = part[:left], 0
            elif left is not None:
                left -= len(part)
            if part:
                sock.sendall(b"%x\r\n%b\r\n" % (len(part), part)
                             if chunked else part)
            if left == 0:
                _finish(sock)
                return False
        if chunked:
            sock.sendall(b"0\r\n" + _fields(reply.trailers) + b"\r\n")
        return not closes


def _unchanged(req, reply):
    given = req.get("If-None-Match")
    if given is not None:
        return reply.etag is not None and reply.etag in given
    since = req.get("If-Modified-Since")
    if since is not None and reply.modified is not None:
        try:
            when = email.utils.parsedate_to_datetime(since).timestamp()
        except ValueError:
            return False
        return int(reply.modified) <= when
    return False


def _fields(headers):
    return b"".join(_raw(k) + b": " + _raw(v) + b"\r\n"
                    for k, v in pairs(headers))


def _head(status, reason, headers):
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, _raw(reason),
                                          _fields(headers))


def _finish(sock):
    """Close so that what was sent still arrives, then an end of file."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _reset(sock):
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                        struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
