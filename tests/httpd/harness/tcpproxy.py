# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy on loopback in front of a real server, which does at any moment
as it is told: the network between a web server and its store.

    with TcpProxy(("127.0.0.1", 6379)) as proxy:    # or TcpProxy("/a/socket")
        ... proxy.port ...
        proxy.set("hang")

    pass                as if it were not there
    refuse              the port is closed, open connections are reset
    hang [after=N]      answers are held back (after N bytes), until the next
                        set() lets them go
    reset [after=N]     in the place of the next answer (after N bytes of it) a
                        RST
    cut [after=N]       likewise the end of the stream
    drip [every=0.1]    a byte of the answer each EVERY seconds
    delay [seconds=0.04]    each answer comes so much later
    rubbish [size=64]   requests do not reach the server; each is answered with
                        SIZE random bytes
    fail [every=10] [what="reply"]   every EVERYth answer, over all
                        connections, is a RST; what="connection": every EVERYth
                        connection

What is set holds at once, also for open connections; N is counted for each
connection since then.  An answer is what the server sends after a request."""

import collections
import random
import select
import socket
import struct
import threading
import time

from .server import free_port

MODES = {"pass": {}, "refuse": {}, "hang": {"after": 0},
         "reset": {"after": 0}, "cut": {"after": 0}, "drip": {"every": 0.1},
         "delay": {"seconds": 0.04}, "rubbish": {"size": 64},
         "fail": {"every": 10, "what": "reply"}}

HELD = 1 << 20      # most bytes of answers that a connection holds back


class Mode:
    def __init__(self, name, given):
        self.name = name
        self.args = {**MODES[name], **given}
        assert set(self.args) == set(MODES[name]), f"{name}: {sorted(given)}"

    def __getitem__(self, name):
        return self.args[name]


class _Ended(Exception):
    """The connection is over; its argument says whether by a RST."""


class _Connection(threading.Thread):
    """One client, and the connection to the server that it has for itself."""

    def __init__(self, proxy, client):
        super().__init__(daemon=True)
        self.proxy, self.client, self.server = proxy, client, None
        self.wake, self._waker = socket.socketpair()
        self.mode, self.passed = None, 0    # bytes of answers in this mode
        self.held = collections.deque()     # (when it came, bytes)
        self.next_drip = 0
        self.is_answer = False              # the next bytes begin an answer
        self.is_ended = False               # by the server

    def nudge(self):
        try:
            self._waker.send(b"x")
        except OSError:
            pass

    def run(self):
        is_reset = True
        try:
            self.server = self.proxy.connect()
            while True:
                self.step()
        except _Ended as end:
            is_reset = end.args[0]
        except OSError:
            pass
        finally:
            if is_reset:
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            for sock in (self.client, self.server, self.wake, self._waker):
                if sock is not None:
                    sock.close()
            self.proxy.forget(self)

    def step(self):
        mode = self.proxy.mode
        if mode is not self.mode:
            self.mode, self.passed = mode, 0
        if mode.name == "refuse" or self.proxy.is_stopped:
            raise _Ended(True)
        pause = self.release()
        watched = [self.client, self.wake]
        if self.is_ended and not self.held and mode.name != "hang":
            raise _Ended(False)
        if not self.is_ended and sum(len(x) for _, x in self.held) < HELD:
            watched.append(self.server)
        ready, _, _ = select.select(watched, [], [], pause)
        if self.wake in ready:
            self.wake.recv(64)
        elif self.client in ready:
            self.ask(self.client.recv(65536))
        elif self.server in ready:
            self.answer(self.server.recv(65536))

    def ask(self, data):
        if not data:
            raise _Ended(False)
        self.is_answer = True
        if self.mode.name == "rubbish":
            self.client.sendall(self.proxy.rubbish(self.mode["size"]))
        else:
            self.server.sendall(data)

    def answer(self, data):
        if not data:
            self.is_ended = True
            return
        if self.is_answer:
            self.is_answer = False
            if self.mode.name == "fail" and self.mode["what"] == "reply" \
                    and self.proxy.fails(self.mode):
                raise _Ended(True)
        self.held.append((time.monotonic(), data))

    def release(self):
        """Pass on what may go; how long until more may, or None."""
        while self.held:
            came, data = self.held[0]
            now = time.monotonic()
            if self.mode.name == "delay" and now < came + self.mode["seconds"]:
                return came + self.mode["seconds"] - now
            if self.mode.name == "drip" and now < self.next_drip:
                return self.next_drip - now
            size = self.allowed(len(data))
            self.client.sendall(data[:size])
            self.passed += size
            if size == len(data):
                self.held.popleft()
            else:
                self.held[0] = (came, data[size:])
            if self.mode.name == "drip":
                self.next_drip = now + self.mode["every"]
            elif size < len(data):
                if self.mode.name != "hang":
                    raise _Ended(self.mode.name == "reset")
                return None
        return None

    def allowed(self, size):
        """How much of SIZE bytes may go now."""
        if self.mode.name == "drip":
            return 1
        if self.mode.name in ("hang", "reset", "cut"):
            return min(size, self.mode["after"] - self.passed)
        return size


class TcpProxy:
    def __init__(self, target):
        self.target = target
        self.accepted = 0       # connections ever
        self.failed = 0         # resets by "fail"
        self.mode = Mode("pass", {})
        self.is_stopped = False
        self._random = random.Random(1)
        self._lock = threading.Lock()
        self._open = set()
        self._countdown = 0
        self._listener = self._acceptor = None
        self.port = free_port()
        self._listen()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def connections(self):
        """How many are open now."""
        with self._lock:
            return len(self._open)

    def set(self, name, **args):
        mode = Mode(name, args)
        with self._lock:
            self._countdown = mode.args.get("every", 0)
        self.mode = mode
        if name == "refuse":
            self._unlisten()
        elif self._listener is None:
            self._listen()
        self._nudge()

    def stop(self):
        """Ends all connections; returns when no thread of it is left."""
        self.is_stopped = True
        self._unlisten()
        self._nudge()
        with self._lock:
            left = list(self._open)
        for connection in left:
            try:
                connection.client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.join(5)

    # ---- for the connections -------------------------------------------------

    def connect(self):
        family = socket.AF_UNIX if isinstance(self.target, str) \
            else socket.AF_INET
        sock = socket.socket(family)
        try:
            sock.connect(self.target)
        except OSError:
            sock.close()
            raise
        return sock

    def rubbish(self, size):
        with self._lock:
            return bytes(self._random.randrange(256) for _ in range(size))

    def fails(self, mode):
        """Whether this one is the EVERYth."""
        with self._lock:
            self._countdown -= 1
            if self._countdown > 0:
                return False
            self._countdown = mode["every"]
            self.failed += 1
            return True

    def forget(self, connection):
        with self._lock:
            self._open.discard(connection)

    # ---- the port ------------------------------------------------------------

    def _nudge(self):
        with self._lock:
            for connection in self._open:
                connection.nudge()

    def _listen(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        sock.listen(256)
        self._listener = sock
        self._acceptor = threading.Thread(target=self._accept, args=(sock,),
                                          daemon=True)
        self._acceptor.start()

    def _unlisten(self):
        sock, self._listener = self._listener, None
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
            self._acceptor.join(5)
            sock.close()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            mode = self.mode
            if mode.name == "fail" and mode["what"] == "connection" \
                    and self.fails(mode):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                  struct.pack("ii", 1, 0))
                client.close()
                continue
            connection = _Connection(self, client)
            with self._lock:
                self.accepted += 1
                self._open.add(connection)
                connection.start()
