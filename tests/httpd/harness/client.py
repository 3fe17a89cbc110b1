# SPDX-License-Identifier: Apache-2.0
"""HTTP clients that tell a whole response from a cut one."""

import socket
import struct
import zlib
from dataclasses import dataclass, field

TIMEOUT = 30


@dataclass
class Response:
    status: int = 0
    reason: str = ""
    headers: list = field(default_factory=list)
    body: bytes = b""
    complete: bool = True
    why: str = ""               # what was missing, when not complete
    framing: str = "none"       # none, length, chunked, close, h2
    interim: list = field(default_factory=list)
    trailers: list = field(default_factory=list)

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return ", ".join(values) if values else default

    @property
    def cache(self):
        """HIT, MISS, REVALIDATE, INVALIDATE or None: what mod_cache did"""
        value = self.get("X-Cache")
        return value.split()[0] if value else None

    @property
    def text(self):
        """the body without its content coding"""
        coding = self.get("Content-Encoding")
        if coding in ("gzip", "x-gzip"):
            return zlib.decompress(self.body, 31)
        return self.body

    def __repr__(self):
        body = self.body[:60] + (b"..." if len(self.body) > 60 else b"")
        return (f"<{self.status} {self.get('X-Cache')} {self.framing} "
                f"{len(self.body)} bytes {body!r} "
                f"{'complete' if self.complete else 'CUT: ' + self.why} "
                f"{self.headers}>")


class Cut(Exception):
    """The peer stopped before the message was whole."""


class _Reader:
    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray()

    def _more(self):
        try:
            data = self.sock.recv(262144)
        except ConnectionError as e:
            raise Cut(f"connection reset: {e}") from e
        if not data:
            raise Cut("connection closed")
        self.buffer += data

    def line(self):
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                line = bytes(self.buffer[:end + 1])
                del self.buffer[:end + 1]
                return line.rstrip(b"\r\n")
            self._more()

    def exactly(self, size, into):
        """Append SIZE bytes to INTO; what came before a cut is there too."""
        left = size
        while left:
            if not self.buffer:
                self._more()
            part = self.buffer[:left]
            into += part
            del self.buffer[:len(part)]
            left -= len(part)

    def to_close(self, into):
        while True:
            into += self.buffer
            self.buffer.clear()
            data = self.sock.recv(262144)
            if not data:
                return
            self.buffer += data


def _raw(value):
    return value if isinstance(value, bytes) else value.encode("latin-1")


def pairs(headers):
    return list(headers.items() if hasattr(headers, "items") else headers)


class Connection:
    """One TCP connection; requests may be sent ahead (a pipeline)."""

    def __init__(self, addr, timeout=TIMEOUT, host=None, rcvbuf=None):
        self.host = host or "%s:%d" % addr
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect(addr)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = _Reader(self.sock)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, method, target, headers=(), body=None, host=None):
        lines = [b"%s %s HTTP/1.1" % (_raw(method), _raw(target)),
                 b"Host: " + _raw(host or self.host)]
        lines += [_raw(k) + b": " + _raw(v) for k, v in pairs(headers)]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        self.raw(b"\r\n".join(lines) + b"\r\n\r\n" + (body or b""))

    def ask(self, method, target, headers=(), body=None, host=None):
        self.send(method, target, headers, body, host)
        return self.response(method)

    def get(self, target, headers=(), host=None):
        return self.ask("GET", target, headers, host=host)

    def _head(self):
        status = self.reader.line().decode("latin-1")
        parts = status.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/"):
            raise Cut(f"no status line but {status[:80]!r}")
        headers = self._fields()
        return int(parts[1]), parts[2] if len(parts) > 2 else "", headers

    def _fields(self):
        found = []
        while True:
            line = self.reader.line().decode("latin-1")
            if not line:
                return found
            name, colon, value = line.partition(":")
            if not colon:
                raise Cut(f"header line without a colon: {line[:80]!r}")
            found.append((name, value.strip(" \t")))

    def head(self):
        """Read the status line and the headers only; body() continues."""
        res = Response()
        while True:
            try:
                status, reason, headers = self._head()
            except Cut as e:
                res.complete, res.why = False, str(e)
                return res
            if 100 <= status < 200 and status != 101:
                res.interim.append((status, headers))
                continue
            res.status, res.reason, res.headers = status, reason, headers
            return res

    def body(self, res, method="GET"):
        body = bytearray()
        try:
            self._body(res, method, body)
        except Cut as e:
            res.complete, res.why = False, str(e)
        res.body = bytes(body)
        return res

    def _body(self, res, method, body):
        if method == "HEAD" or res.status in (204, 304):
            return
        if (res.get("Transfer-Encoding") or "").lower() == "chunked":
            res.framing = "chunked"
            self._chunks(res, body)
        elif res.get("Content-Length") is not None:
            res.framing = "length"
            lengths = set(res.all("Content-Length"))
            if len(lengths) != 1:
                raise Cut(f"contradicting lengths {lengths}")
            self.reader.exactly(int(lengths.pop()), body)
        else:
            res.framing = "close"
            try:
                self.reader.to_close(body)
            except ConnectionError as e:
                raise Cut(f"connection reset: {e}") from e

    def _chunks(self, res, body):
        while True:
            line = self.reader.line().split(b";")[0].strip()
            try:
                size = int(line, 16)
            except ValueError:
                raise Cut(f"bad chunk size {line[:40]!r}") from None
            if size == 0:
                res.trailers = self._fields()
                return
            self.reader.exactly(size, body)
            if self.reader.line():
                raise Cut("chunk longer than announced")

    def response(self, method="GET"):
        res = self.head()
        return self.body(res, method) if res.complete else res

    def is_closed(self):
        """True when the server has closed its side; waits for that."""
        try:
            return not self.reader.buffer and self.sock.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()

    def abort(self):
        """Leave with a reset, as a crashed or impatient client does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                             struct.pack("ii", 1, 0))
        self.sock.close()
