# SPDX-License-Identifier: Apache-2.0
"""A cache service behind HTTP on loopback, that knows nothing of what it keeps:

    GET, PUT, DELETE {url}/cache/{key}      PUT: {"value": …, "timeout": seconds}
                                            GET: {"value": …}, or 404

    with Service(etags=True, token="secret", tls=(cert, key)) as service:
        ... service.url ...
        service.trouble = "redirects"       # what every answer is from now on

    python3 -m harness.service KIND -- COMMAND…

runs COMMAND while a service of KIND (plain, etags, tls) is there, and ends with
its status. {url}, {token} and {ca} stand in its words for what a client needs;
tls wants a token, too."""

import itertools
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from socketserver import StreamRequestHandler, ThreadingTCPServer

from .certificates import Authority
from .server import die_with_parent, free_port

BASE = "/api/v1"


class _Handler(StreamRequestHandler):
    disable_nagle_algorithm = True
    wbufsize = 65536
    timeout = 120

    def setup(self):
        self.service.enter(self.request)
        if self.service.tls:
            self.request = self.service.tls.wrap_socket(self.request,
                                                        server_side=True)
        super().setup()

    @property
    def service(self):
        return self.server.service

    def handle(self):
        self.is_last = False
        try:
            while not self.is_last and self.read():
                self.dispatch()
                self.wfile.flush()
        except (OSError, ValueError):
            pass

    def read(self):
        """the next request; whether there is one"""
        words = self.rfile.readline(65537).split()
        if len(words) != 3:
            return False
        self.command, self.path = words[0].decode(), words[1].decode()
        self.fields = {}
        for line in iter(self.rfile.readline, b"\r\n"):
            name, value = line.split(b":", 1)
            self.fields[name.decode().title()] = value.strip().decode()
        self.content = self.rfile.read(
            int(self.fields.get("Content-Length", 0)))
        return True

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass

    # ---- answers -----------------------------------------------------------

    def answer(self, status, content=b"", fields=()):
        lines = [f"HTTP/1.1 {status} {status}"]
        lines += [f"{name}: {value}" for name, value in fields]
        if status != 204:
            lines += ["Content-Type: application/json",
                      f"Content-Length: {len(content)}"]
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        if self.command != "HEAD" and status != 204:
            self.wfile.write(content)

    def refuse(self, status, reason):
        self.answer(status, json.dumps({"error": reason}).encode())

    # ---- requests ----------------------------------------------------------

    def dispatch(self):
        service = self.service
        service.note(self)
        if self.path.startswith("http://"):     # to a proxy
            self.path = "/" + self.path.split("/", 3)[3]
        if service.fails():
            TROUBLES["resets"](self)
            return
        trouble = service.trouble_now()
        if trouble:
            TROUBLES[trouble](self)
            return
        if service.token and \
                self.fields.get("Authorization") != f"Bearer {service.token}":
            self.refuse(401, "token")
            return
        if not self.path.startswith(f"{BASE}/cache/"):
            self.refuse(404, "path")
            return
        if self.command not in ("GET", "HEAD", "PUT", "DELETE"):
            self.refuse(405, "method")
            return
        getattr(self, "on_" + self.command)(self.path)

    def on_GET(self, key):
        found = self.service.find(key)
        if found is None:
            self.refuse(404, "no such key")
            return
        value, tag, _ = found
        self.answer(200, json.dumps({"value": value}).encode(),
                    [("ETag", tag)] if self.service.etags else [])

    on_HEAD = on_GET

    def on_PUT(self, key):
        try:
            given = json.loads(self.content)
            value, timeout = given["value"], float(given["timeout"])
        except (ValueError, KeyError, TypeError) as error:
            self.refuse(400, str(error))
            return
        if timeout <= 0:
            self.refuse(422, "timeout")
        elif self.service.put(key, value, timeout,
                              self.fields.get("If-Match")):
            self.answer(204)
        else:
            self.refuse(412, "another one")

    def on_DELETE(self, key):
        found = self.service.delete(key, self.fields.get("If-Match"))
        if found is None:
            self.refuse(412, "another one")
        elif found:
            self.answer(204)
        else:
            self.refuse(404, "no such key")


# ---- troubles ---------------------------------------------------------------

def _status(status, content=b"<html>no</html>", fields=()):
    return lambda handler: handler.answer(status, content, fields)


def _raw(data):
    def send(handler):
        handler.wfile.write(data)
        handler.is_last = True
    return send


def _endless(begin, piece):
    def send(handler):
        handler.is_last = True
        handler.wfile.write(begin)
        while not handler.service.is_over:
            handler.service.sent += len(piece)
            handler.wfile.write(piece)
    return send


def _reset(handler):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                  struct.pack("ii", 1, 0))
    handler.is_last = True


def _hang(handler):
    handler.is_last = True
    handler.service.over.wait(30)


def _other_key(handler):
    """The value of any other key than this one."""
    if handler.command != "GET":
        handler.answer(204)
        return
    value = handler.service.any_but(handler.path)
    handler.answer(200, json.dumps({"value": value}).encode())


def _takes_nothing(handler):
    handler.refuse(422 if handler.command == "PUT" else 404, "what is this?")


def _redirect(handler):
    service = handler.service
    handler.answer(307, fields=[("Location", service.elsewhere
                                 + handler.path)])


OK = b"HTTP/1.1 200 OK\r\n"

# longer than what a store with the usual max_object_size reads
LONG = "4 MB"

TROUBLES = {
    "resets": _reset,
    "hangs": _hang,
    "redirects": _redirect,
    "other key": _other_key,
    "error 500": _status(500),
    "error 503": _status(503),
    "error 429": _status(429),
    "error 412": _status(412),
    "takes nothing": _takes_nothing,
    "long error": _status(500, b"x" * 3000000),
    "token refused": _status(401),
    "says 204": _status(204),
    "no JSON": _status(200, b"<html>welcome</html>"),
    "other JSON": _status(200, b'{"value": "text"}'),
    "no value": _status(200, b'{"v": 1}'),
    "many values": _status(200, b'{"value": [' + b"[],[]," * 100000 + b"1]}"),
    "deep JSON": _status(200, b"[" * 1000000),
    "two values": _status(200, b'{"value": 1, "value": 2}'),
    "half JSON": _status(200, b'{"value": {"format": 1, "key": "'),
    "says too long": _raw(OK + b"Content-Length: 99999999999\r\n\r\n{"),
    LONG: _raw(OK + b"\r\n" + b" " * 4_000_000),
    "endless body": _endless(OK + b"\r\n", b"{" * 65536),
    "endless chunks": _endless(OK + b"Transfer-Encoding: chunked\r\n\r\n",
                               b"1000\r\n" + b" " * 4096 + b"\r\n"),
    "endless fields": _endless(OK, b"X-More: " + b"y" * 990 + b"\r\n"),
    "endless field": _endless(OK + b"X-More: ", b"y" * 1000),
    "endless interim": _endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "old protocol": _raw(b'{"value": 1}'),
    "no status": _raw(b"HTTP/1.1\r\n\r\n"),
    "cut half-way": _raw(OK + b'Content-Length: 1000\r\n\r\n{"value": '),
    "compressed": _status(200, b"\x1f\x8b\x08" + b"\0" * 100,
                          [("Content-Encoding", "gzip")]),
}


# ---- the service ------------------------------------------------------------

class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256
    block_on_close = False

    def handle_error(self, request, client_address):
        """what a client did to its connection is its business"""


class Service:
    live = []

    def __init__(self, etags=False, token=None, tls=None, port=None):
        self.etags, self.token = etags, token
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*map(str, tls))
        self.trouble = None         # one of TROUBLES
        self.trouble_left = None    # for so many requests; None: for all
        self.fail_every = 0         # every Nth request is a RST
        self.failed = 0             # so many were
        self.elsewhere = None       # where it redirects to
        self.sent = 0               # bytes of what has no end
        self.accepted = 0           # connections ever
        self.requests = []          # (method, path, fields) as they came
        self.values = {}            # path: (value, etag, until)
        self.over = threading.Event()
        self._numbers = itertools.count(1)
        self._count = itertools.count(1)
        self._lock = threading.Lock()
        self._open = set()
        self.port = port or free_port()
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever,
                                        args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}{BASE}"

    @property
    def is_over(self):
        return self.over.is_set()

    def stop(self):
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        self.drop()

    def drop(self):
        """ends all connections"""
        with self._lock:
            left = list(self._open)
        for sock in left:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    remove = stop

    # ---- for the connections -----------------------------------------------

    def enter(self, sock):
        with self._lock:
            self.accepted += 1
            self._open = {x for x in self._open if x.fileno() >= 0}
            self._open.add(sock)

    def note(self, handler):
        with self._lock:
            if len(self.requests) < 100000:
                self.requests.append((handler.command, handler.path,
                                      handler.fields))

    def trouble_now(self):
        with self._lock:
            trouble = self.trouble
            if trouble and self.trouble_left is not None:
                self.trouble_left -= 1
                if not self.trouble_left:
                    self.trouble = self.trouble_left = None
            return trouble

    def fails(self):
        fails = self.fail_every and next(self._count) % self.fail_every == 0
        self.failed += bool(fails)
        return fails

    # ---- values ------------------------------------------------------------

    def _find(self, key):
        found = self.values.get(key)
        if found and found[2] <= time.monotonic():
            del self.values[key]
            found = None
        return found

    def find(self, key):
        with self._lock:
            return self._find(key)

    def any_but(self, key):
        with self._lock:
            return next((x[0] for k, x in self.values.items() if k != key),
                        None)

    def _matches(self, key, match):
        found = self._find(key)
        return not match or not self.etags or (found and found[1] == match)

    def put(self, key, value, timeout, match=None):
        with self._lock:
            if not self._matches(key, match):
                return False
            self.values[key] = (value, f'"{next(self._numbers)}"',
                                time.monotonic() + timeout)
            return True

    def delete(self, key, match=None):
        """whether it was there; None: another one is"""
        with self._lock:
            if not self._matches(key, match):
                return None
            return self.values.pop(key, None) is not None


# ---- for shell scripts ------------------------------------------------------

def _serve(kind, directory):
    """(the service, names for the command's words)"""
    if kind == "tls":
        authority, token = Authority(directory), "s3cret.T0ken~"
        return Service(tls=authority.issue("server"), token=token), \
            {"ca": authority.file, "token": token}
    return Service(etags=kind == "etags"), {}


def _main(kind, dashes, *command):
    assert dashes == "--" and kind in ("plain", "etags", "tls"), \
        __doc__

    def interrupt(number, frame):
        raise KeyboardInterrupt(f"signal {number}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with tempfile.TemporaryDirectory(prefix="cachemw-certs-") as directory:
        os.chmod(directory, 0o755)
        service, names = _serve(kind, directory)
        with service:
            names["url"] = service.url
            for name, value in names.items():
                command = [x.replace("{%s}" % name, str(value))
                           for x in command]
            return subprocess.run(command, preexec_fn=die_with_parent
                                  ).returncode


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    status = _main(*sys.argv[1:])
    sys.exit(128 - status if status < 0 else status)
