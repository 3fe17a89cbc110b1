# SPDX-License-Identifier: Apache-2.0
"""A private httpd: own directory, ports and configuration."""

import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import client, http2
from .settings import settings

START = 20      # seconds httpd may take to start, restart or stop

MODULES = """authz_core headers negotiation dir autoindex mime alias rewrite
    include filter deflate asis env setenvif status proxy proxy_http
    cache""".split()

HEAD = """\
ServerRoot "@DIR@"
DefaultRuntimeDir "@DIR@/run"
PidFile "@DIR@/run/httpd.pid"
@MODULES@
@USER@
@PRELUDE@
ErrorLog "@DIR@/error.log"
ErrorLogFormat "[%t] [%-m:%l] [pid %P] %7F: %E: %a %M"
LogLevel @LOGLEVEL@
TypesConfig "@DIR@/mime.types"
DocumentRoot "@DIR@/htdocs"
Timeout 20
KeepAlive on
KeepAliveTimeout 20
MaxKeepAliveRequests 0
GracefulShutdownTimeout 5
EnableSendfile off
<IfModule mpm_prefork_module>
    StartServers 6
    MinSpareServers 6
    MaxSpareServers 16
    ServerLimit 40
    MaxRequestWorkers 40
</IfModule>
<IfModule !mpm_prefork_module>
    StartServers 2
    ServerLimit 6
    ThreadsPerChild 12
    MinSpareThreads 12
    MaxSpareThreads 36
    MaxRequestWorkers 48
</IfModule>
<Directory />
    Require all granted
    Options FollowSymLinks
    AllowOverride None
</Directory>
"""

# Lines that no test may cause unless it says so.
CASUALTIES = re.compile(
    r"exit signal|core dumped|segfault|AH0005[012]|AH00545|child died"
    r"|:(emerg|alert|crit)\]|double free|corrupted|stack smashing"
    r"|file .* line \d+, assertion", re.I)


def free_port(taken=()):
    """A port outside the range the kernel gives to clients."""
    for _ in range(200):
        port = random.randrange(18000, 32000)
        if port in taken:
            continue
        try:
            for ip in ("127.0.0.1", "127.0.0.2"):
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((ip, port))
                    sock.listen(1)
            return port
        except OSError:
            continue
    raise RuntimeError("no free port")


def can_listen(address):
    """A killed process is a zombie before its last thread has let go of the
    port."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError:
            return False
        sock.listen(1)
    return True


def wait_for(condition, what, timeout=START):
    """Return CONDITION's first true value; fail when none comes."""
    end = time.monotonic() + timeout
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def die_with_parent():
    """No server may outlive a test program that was killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)      # PR_SET_PDEATHSIG


def processes_of(group):
    """pids whose process group is GROUP, zombies left out"""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        state, _, pgrp = stat.rpartition(")")[2].split()[:3]
        if int(pgrp) == group and state != "Z":
            found.append(int(entry))
    return found


def stands_still(pid):
    """Whether no thread of PID runs, after a SIGSTOP: the first one to take
    that stops the others, which on a busy machine is not at once."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = stat.read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "TZX":
            return False
    return True


def sweeps(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "cachemw-sweeper\n"
    except OSError:
        return False


def load_lines(modules):
    lines = [f'LoadModule mpm_{settings.mpm}_module '
             f'"{settings.moddir}/mod_mpm_{settings.mpm}.so"']
    for name in modules:
        if name in settings.static_modules:
            continue
        path = settings.moddir / f"mod_{name}.so"
        if name.startswith("cachemw"):
            path = settings.dso(name)
        lines.append(f'LoadModule {name}_module "{path}"')
    return "\n".join(lines)


class Httpd:
    """CONF follows the common head.  In it @PORT@, @PORT2@ … are free ports
    (nothing listens but what CONF says), @DIR@ the server's directory, and
    every key of NAMES its value.  MODULES replaces the usual list, EXTRA is
    loaded after it."""

    live = []
    casualties = []     # what check() found, of all servers

    # The event MPM, told to stop, shuts the sockets of connections that a
    # worker may be freeing at that moment: under load about one stop in a
    # thousand ends a child with a segmentation fault in apr_os_sock_get(), and
    # no code of ours is on any stack. So many are put up with in a session;
    # whoever dies before the stop, or in another way, is not.
    stop_races = 2

    def __init__(self, conf, names=(), modules=None, extra=(), files=(),
                 loglevel="info cache:debug", host="cachemw.test"):
        self.host_name = host
        self.dir = Path(tempfile.mkdtemp(prefix="cachemw-httpd-"))
        self.process = None
        self.ports = []
        self._seen = 0
        self._has_run = False
        self._conf = conf
        self._names = dict(names)
        self._modules = list(MODULES if modules is None else modules)
        self._modules += list(extra)
        if "cachemw" in self._modules:
            self._modules += [x for x in settings.more_modules
                              if x not in self._modules]
        self._loglevel = loglevel
        self._make_tree(dict(files))
        self.write_conf()

    def _make_tree(self, files):
        user = settings.run_user
        os.chmod(self.dir, 0o755)
        for name in ("run", "htdocs", "cache"):
            (self.dir / name).mkdir()
        if user:
            os.chown(self.dir / "cache", user[1], user[2])
        (self.dir / "mime.types").write_text(
            "text/html html shtml\ntext/plain txt\ntext/css css\n")
        for name, data in files.items():
            self.file(name, data)

    def file(self, name, data, age=100000):
        """Put a file below the document root, last changed AGE seconds ago."""
        path = self.dir / "htdocs" / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        when = time.time() - age
        os.utime(path, (when, when))

    # ---- configuration ------------------------------------------------------

    def _fill(self, text):
        user = settings.run_user
        names = {"DIR": self.dir, "LOGLEVEL": self._loglevel,
                 "MODULES": load_lines(self._modules),
                 "MODDIR": settings.moddir, "STORE": settings.store,
                 "PRELUDE": settings.prelude if "cachemw" in self._modules
                 else "",
                 "USER": f"User {user[0]}\nGroup #{user[2]}" if user else ""}
        names.update(self._names)
        for number, port in enumerate(self.ports, 1):
            names[f"PORT{'' if number == 1 else number}"] = port
        place = re.compile(r"@([A-Z]+\d*)@")
        while place.search(text):
            text = place.sub(lambda m: str(names[m[1]]), text)
        return text

    def write_conf(self, conf=None):
        if conf is not None:
            self._conf = conf
        wanted = 1 + max([int(n or 1) for n in
                          re.findall(r"@PORT(\d*)@", self._conf)], default=0)
        while len(self.ports) < wanted - 1:
            self.ports.append(free_port(self.ports))
        self.conf_file.write_text(self._fill(HEAD) + self._fill(self._conf),
                                  encoding="latin-1")

    @property
    def conf_file(self):
        return self.dir / "httpd.conf"

    @property
    def command(self):
        return [settings.httpd, "-d", str(self.dir), "-f",
                str(self.conf_file)]

    def configtest(self):
        """(exit status, what httpd said) of `httpd -t`"""
        done = subprocess.run(self.command + ["-t"], capture_output=True,
                              text=True, timeout=START, errors="replace",
                              cwd="/")
        return done.returncode, done.stderr + done.stdout

    # ---- life ---------------------------------------------------------------

    def start(self):
        try:
            return self._start_somewhere()
        except BaseException:
            self._discard()
            raise

    def _start_somewhere(self):
        if self._has_run:       # and may have been killed; keys have the port
            wait_for(lambda: all(can_listen(self.addr(x))
                                 for x in range(len(self.ports))),
                     "its ports to be free")
        for attempt in range(3):
            if self._start():
                self._has_run = True
                Httpd.live.append(self)
                return self
            busy = "could not bind" in self.log()
            if not busy or attempt == 2:
                break
            self.ports = []
            self.write_conf()
        said = (self.dir / "stderr").read_text(errors="replace")
        raise AssertionError(f"httpd did not start:\n{said}\n{self.log()}")

    def _discard(self):
        """End what a failed start left; nobody else will."""
        if self.is_alive:
            os.killpg(self.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(START)
            self.process = None
        self.remove()

    def _start(self):
        begin = self._log_size()
        with open(self.dir / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                self.command + ["-DFOREGROUND"], stdin=subprocess.DEVNULL,
                stdout=stderr, stderr=stderr, start_new_session=True, cwd="/",
                preexec_fn=die_with_parent)
        wait_for(lambda: self.process.poll() is not None or
                 self._serves_since(begin), "httpd to start")
        return self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    @property
    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def graceful(self, wait_old=True):
        """Restart gracefully and wait until the new generation serves, and
        with WAIT_OLD until the old one does not any more."""
        begin = self._log_size()
        old = set(self.children())
        os.kill(self.pid, signal.SIGUSR1)
        wait_for(lambda: not self.is_alive or self._serves_since(begin),
                 "the graceful restart")
        assert self.is_alive, f"httpd died on a graceful restart:\n{self.log()}"
        if wait_old:
            wait_for(lambda: not old & set(self.children()),
                     "the old generation to end")

    def children(self):
        """pids of the processes that serve requests"""
        return [p for p in processes_of(self.pid)
                if p != self.pid and not sweeps(p)]

    def sweepers(self):
        return [p for p in processes_of(self.pid) if sweeps(p)]

    def stop(self):
        """Stop and wait; whatever is left over afterwards is a failure."""
        if self in Httpd.live:
            Httpd.live.remove(self)
        if self.process is None:
            return
        left = []
        if self.is_alive:
            early = [x for x in self.new_log().splitlines()
                     if CASUALTIES.search(x)]
            os.kill(self.pid, signal.SIGTERM)
        else:
            early = []
        try:
            self.process.wait(START)
            left = wait_for(lambda: not processes_of(self.pid) or None,
                            "httpd's children to end", 5) is not True
        except (subprocess.TimeoutExpired, AssertionError):
            left = processes_of(self.pid)
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(START)
        rc, self.process = self.process.returncode, None
        assert not left, f"processes left after the stop: {left}"
        assert not early, "in the error log:\n" + "\n".join(early[:20])
        assert rc == 0, f"httpd ended with {rc}:\n{self.log()[-4000:]}"
        # a death is logged up to a second after it happened
        bad = [x for x in self.new_log().splitlines() if CASUALTIES.search(x)]
        if bad and all("exit signal Segmentation" in x for x in bad):
            Httpd.stop_races -= len(bad)
            bad = [] if Httpd.stop_races >= 0 else bad
        assert not bad, "in the error log:\n" + "\n".join(bad[:20])

    def remove(self):
        try:
            self.stop()
        finally:
            if not os.environ.get("CACHEMW_TEST_KEEP"):
                shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        try:
            if not exc[0]:
                self.check()
        finally:
            self.remove()

    # ---- what happened ------------------------------------------------------

    def log(self):
        try:
            return (self.dir / "error.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _log_size(self):
        try:
            return (self.dir / "error.log").stat().st_size
        except FileNotFoundError:
            return 0

    def _log_since(self, offset):
        try:
            with open(self.dir / "error.log", "rb") as log:
                log.seek(offset)
                return log.read()
        except FileNotFoundError:
            return b""

    def _serves_since(self, offset):
        return b"resuming normal operations" in self._log_since(offset)

    def new_log(self):
        """What was logged since the last call."""
        new = self._log_since(self._seen)
        self._seen += len(new)
        return new.decode(errors="replace")

    def wait_log(self, text, timeout=START):
        return wait_for(lambda: text in self.log(), f"{text!r} in the log",
                        timeout)

    def check(self, errors_expected=False):
        """Fail when a process died or the module complained."""
        new = self.new_log().splitlines()
        if not self.is_alive:
            Httpd.casualties.append("httpd was gone")
            raise AssertionError("httpd is gone:\n" + "\n".join(new[-40:]))
        bad = [x for x in new if CASUALTIES.search(x)]
        if not errors_expected:
            bad += [x for x in new if re.search(r"\[cachemw\w*:error\]", x)]
        Httpd.casualties += bad
        assert not bad, "in the error log:\n" + "\n".join(bad[:20])

    # ---- requests -----------------------------------------------------------

    def addr(self, port=0, ip="127.0.0.1"):
        return ip, self.ports[port]

    def connect(self, port=0, ip="127.0.0.1", **more):
        host = more.pop("host", None) or self.host_name
        if ":" not in host:
            host = f"{host}:{self.ports[port]}"
        return client.Connection(self.addr(port, ip), host=host, **more)

    def ask(self, method, target, headers=(), body=None, host=None, port=0,
            ip="127.0.0.1"):
        """One request on a connection of its own.  It returns when httpd has
        closed that, so the store is over: the commit comes with EOS, which may
        be after the last byte of the body has reached the client."""
        headers = client.pairs(headers) + [("Connection", "close")]
        with self.connect(port, ip, host=host) as conn:
            res = conn.ask(method, target, headers, body)
            assert conn.is_closed(), "httpd kept the connection"
            return res

    def get(self, target, headers=(), **more):
        return self.ask("GET", target, headers, **more)

    def connect2(self, port=0, host=None, **more):
        host = f"{host or self.host_name}:{self.ports[port]}"
        return http2.Connection2(self.addr(port), host, **more)

    def h2(self, target, headers=(), method="GET", body=None, **more):
        with self.connect2(**more) as conn:
            return conn.ask(method, target, headers, body)


def configtest(conf, **more):
    """(exit status, messages) of `httpd -t` on CONF, nothing is started."""
    server = Httpd(conf, **more)
    try:
        return server.configtest()
    finally:
        server.remove()
