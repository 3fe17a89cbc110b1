# SPDX-License-Identifier: Apache-2.0
"""Real Redis servers on loopback: one, one behind TLS, a master with replicas
and sentinels, a cluster. Each has ports and directories of its own and ends
with the test.

    python3 -m harness.redis KIND -- COMMAND…

runs COMMAND while servers of KIND (standalone, password, unix, tls, sentinel,
cluster) are there, and ends with its status. {url}, {ca}, {cert} and {key}
stand in its words for what a client needs; {cert} and {key} are a client's."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from .certificates import Authority
from .server import die_with_parent, free_port, wait_for

PROGRAM = os.environ.get("CACHEMW_REDIS_SERVER", "redis-server")
SLOTS = 16384
# what the script calls by which servers count each other, and zcard just once
SHARING = ("evalsha", "time", "zremrangebyscore", "zadd", "pexpire", "zcard")
GROUP = "pages"         # what sentinels call the master they watch

COMMON = """\
daemonize no
save ""
appendonly no
repl-diskless-sync yes
repl-diskless-sync-delay 0
"""


class RedisError(Exception):
    """an error reply"""


class Wire:
    """One connection; `ask` sends a command and returns its reply."""

    def __init__(self, address, timeout=10):
        family = socket.AF_UNIX if isinstance(address, str) \
            else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        words = [x if isinstance(x, bytes) else str(x).encode()
                 for x in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%s\r\n" % (len(x), x) for x in words))

    def ask(self, *words):
        self.send(*words)
        reply = self.read()
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if int(rest) < 0:
            return None
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2]
        return [self.read() for _ in range(int(rest))]

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Redis:
    """One process. OPTIONS are lines of redis.conf, in which @DIR@ is the
    server's directory; TLS are more of them, by name. The port stays the same
    over stop and start."""

    live = []

    def __init__(self, options="", password=None, user=None, tls=None,
                 unix=False, sentinel=False):
        self.dir = Path(tempfile.mkdtemp(prefix="cachemw-redis-"))
        os.chmod(self.dir, 0o755)
        self.options = options
        self.password, self.user = password, user
        self.tls, self.unix, self.sentinel = tls, unix, sentinel
        self.process = None
        self.port = free_port()

    # ---- what it is called --------------------------------------------------

    @property
    def path(self):
        return self.dir / "redis.sock"

    @property
    def hostport(self):
        return f"127.0.0.1:{self.port}"

    @property
    def credentials(self):
        if not self.password:
            return ""
        return f"{self.user or ''}:{quote(self.password, safe='')}@"

    @property
    def url(self):
        if self.unix:
            return f"unix://{self.credentials}{self.path}"
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{self.credentials}{self.hostport}"

    # ---- life ---------------------------------------------------------------

    def _conf(self):
        lines = [] if self.sentinel else [COMMON]
        lines += ["bind 127.0.0.1", "protected-mode no", f"dir {self.dir}",
                  f"unixsocket {self.path}", "unixsocketperm 777"]
        if self.tls:
            lines += ["port 0", f"tls-port {self.port}",
                      *(f"{name} {value}" for name, value in self.tls.items())]
        else:
            lines += [f"port {0 if self.unix else self.port}"]
        if self.password and self.user:
            lines += [f"user {self.user} on >{self.password} ~* &* +@all",
                      "user default off"]
        elif self.password:
            lines += [f"requirepass {self.password}"]
        return "\n".join(lines) + "\n" + self.options.replace(
            "@DIR@", str(self.dir)) + "\n"

    def start(self):
        conf = self.dir / "redis.conf"
        if not (self.sentinel and conf.exists()):
            conf.write_text(self._conf())
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, str(conf)] + ["--sentinel"] * self.sentinel,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent, start_new_session=True)
        if self not in Redis.live:
            Redis.live.append(self)
        wait_for(self._answers, "redis-server to start")
        return self

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended:\n{self.log()}")
        try:
            with self.wire() as wire:
                wire.ask("PING")
                return True
        except RedisError as reply:
            return not str(reply).startswith("LOADING")
        except OSError:
            return False

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        """as if the machine had lost power"""
        self._end(signal.SIGKILL)

    def stop(self):
        self._end(signal.SIGTERM)

    def _end(self, number):
        if self.process is None:
            return
        for what in (signal.SIGCONT, number):
            if self.process.poll() is None:
                self.signal(what)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait(5)
        self.process = None

    def remove(self):
        self._end(signal.SIGKILL)
        if self in Redis.live:
            Redis.live.remove(self)
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- being asked --------------------------------------------------------

    def wire(self):
        """a connection for the test itself, past TLS and the password"""
        wire = Wire(str(self.path))
        if self.password:
            wire.ask("AUTH", *([self.user] if self.user else []),
                     self.password)
        return wire

    def ask(self, *words):
        with self.wire() as wire:
            return wire.ask(*words)

    def info(self, section="all"):
        return dict(x.split(":", 1) for x in
                    self.ask("INFO", section).decode().splitlines()
                    if ":" in x)

    def calls(self):
        """how often each command was called, but for those by which servers
        count each other, in any second: INFO, too, is none"""
        calls = {k[8:]: int(re.search(r"calls=(\d+)", v)[1])
                 for k, v in self.info("commandstats").items()
                 if "|" not in k and k != "cmdstat_info"}
        rounds = calls.get("zcard", 0)
        for name in SHARING:
            calls[name] = calls.get(name, 0) - rounds
        return calls

    def keys(self, db=0):
        """all but the set of servers"""
        with self.wire() as wire:
            if db:
                wire.ask("SELECT", db)
            return [x for x in wire.ask("KEYS", "*")
                    if not x.endswith(b"servers")]


def tls_options(authority, name="server", clients="no"):
    """for Redis(tls=…): the certificate NAME; CLIENTS: whether they must have
    one (no, optional, yes)"""
    return {"tls-cert-file": authority.cert(name),
            "tls-key-file": authority.key(name),
            "tls-ca-cert-file": authority.file, "tls-auth-clients": clients}


class Group:
    """Several servers that belong together."""

    def __init__(self):
        self.servers = []

    def add(self, *args, **named):
        self.servers.append(Redis(*args, **named))
        return self.servers[-1]

    def start(self):
        try:
            self._start()
        except BaseException:
            self.remove()
            raise
        return self

    def remove(self):
        for one in self.servers:
            one.remove()
        self.servers = []


class Sentinels(Group):
    """A master, REPLICAS of it and three sentinels that choose another master
    half a second after the first one is gone."""

    def __init__(self, replicas=1, watchers=3, silence=400, tls=None):
        super().__init__()
        self.silence = silence
        secure = "\ntls-replication yes" if tls else ""
        self.data = [self.add("maxmemory-policy allkeys-lfu\n"
                              "repl-timeout 5\nrepl-backlog-size 64mb"
                              + secure, tls=tls) for _ in range(1 + replicas)]
        self.watchers = [self.add(self._watch() + secure, sentinel=True,
                                  tls=tls) for _ in range(watchers)]

    def _watch(self):
        return "\n".join(
            [f"sentinel monitor {GROUP} 127.0.0.1 {self.data[0].port} 2",
             f"sentinel down-after-milliseconds {GROUP} {self.silence}",
             f"sentinel failover-timeout {GROUP} 3000",
             f"sentinel parallel-syncs {GROUP} 5"])

    def _start(self):
        for one in self.data:
            one.start()
        for one in self.data[1:]:
            one.ask("REPLICAOF", "127.0.0.1", self.data[0].port)
        for one in self.data[1:]:
            wait_for(lambda: one.info("replication")["master_link_status"]
                     == "up", "the replica")
        for one in self.watchers:
            one.start()
        self.wait_agreed()

    def wait_agreed(self):
        """until sentinels know each other and the replicas"""
        for one in self.watchers:
            wait_for(lambda: self._knows(one), "the sentinels")

    def _knows(self, one):
        said = one.ask("SENTINEL", "MASTER", GROUP)
        said = dict(zip(said[::2], said[1::2]))
        return (int(said[b"num-slaves"]) >= len(self.data) - 1
                and int(said[b"num-other-sentinels"])
                == len(self.watchers) - 1 and said[b"flags"] == b"master")

    @property
    def url(self):
        return ("rediss" if self.data[0].tls else "redis") + "+sentinel://" \
            + ",".join(x.hostport for x in self.watchers) + f"/{GROUP}"

    def master_port(self):
        return int(self.watchers[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME",
                                        GROUP)[1])

    @property
    def master(self):
        """the one that the sentinels name"""
        port = self.master_port()
        return next(x for x in self.data if x.port == port)

    def wait_other_master(self, old):
        """until the sentinels name another one than OLD, and it agrees"""
        def is_there():
            now = self.master
            return now is not old and now.ask("ROLE")[0] == b"master" and now
        return wait_for(is_there, "the failover", 30)


class Cluster(Group):
    """MASTERS that share the slots; the first ones have REPLICAS, one each."""

    def __init__(self, masters=3, replicas=0, options="", password=None,
                 tls=None):
        super().__init__()
        if tls:
            options += "\ntls-cluster yes\ntls-replication yes"
        for _ in range(masters + replicas):
            self.add("cluster-enabled yes\ncluster-config-file nodes.conf\n"
                     "cluster-node-timeout 1000\n"
                     "cluster-replica-validity-factor 0\n"
                     "cluster-require-full-coverage no\n"
                     f"cluster-port {free_port()}\n{options}",
                     password=password, tls=tls)
        self.masters = self.servers[:masters]
        self.replicas = self.servers[masters:]

    def _start(self):
        for one in self.servers:
            one.start()
        count = len(self.masters)
        for i, one in enumerate(self.masters):
            one.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * i // count,
                    SLOTS * (i + 1) // count - 1)
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for one in self.servers[1:]:
            self._bus(one)
        for one in self.servers:
            wait_for(lambda: self.is_ready(one), "the cluster")
        for master, replica in zip(self.masters, self.replicas):
            replica.ask("CLUSTER", "REPLICATE", self.id(master))
            wait_for(lambda: replica.info("replication")
                     .get("master_link_status") == "up", "the replica")
            for one in self.servers:
                wait_for(lambda: self.id(replica) in
                         self._replicas(one, master), "the replica's news")

    def _bus(self, one):
        first = self.servers[0]
        first.ask("CLUSTER", "MEET", "127.0.0.1", one.port, self.bus(one))

    @staticmethod
    def bus(one):
        return int(one.ask("CONFIG", "GET", "cluster-port")[1])

    @staticmethod
    def id(one):
        return one.ask("CLUSTER", "MYID").decode()

    @staticmethod
    def _replicas(one, master):
        return str(one.ask("CLUSTER", "REPLICAS", Cluster.id(master)))

    def is_ready(self, one):
        said = dict(x.split(":") for x in one.ask("CLUSTER", "INFO").decode()
                    .split())
        return (said["cluster_state"] == "ok"
                and int(said["cluster_known_nodes"]) == len(self.servers)
                and int(said["cluster_slots_assigned"]) == SLOTS)

    @property
    def url(self):
        first = self.servers[0]
        return ("rediss" if first.tls else "redis") + "+cluster://" \
            + first.credentials + ",".join(x.hostport for x in self.masters)

    # ---- slots --------------------------------------------------------------

    def owner(self, slot):
        """the server that serves SLOT, as the first living one sees it"""
        seen = next(x for x in self.servers if x.process is not None)
        for low, high, master, *_ in seen.ask("CLUSTER", "SLOTS"):
            if low <= slot <= high:
                return next(x for x in self.servers if x.port == master[1])
        return None

    def begin_move(self, slot, target):
        """from now on what SLOT has not at its owner is asked for at TARGET"""
        source = self.owner(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        return source

    def carry(self, slot, source, target):
        """the keys of SLOT"""
        with source.wire() as wire:
            while True:
                keys = wire.ask("CLUSTER", "GETKEYSINSLOT", slot, 50)
                if not keys:
                    return
                wire.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000,
                         "REPLACE", "KEYS", *keys)

    def end_move(self, slot, target):
        for one in [target] + [x for x in self.masters if x is not target]:
            if one.process is not None:
                one.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    def move(self, slot, target):
        source = self.begin_move(slot, target)
        self.carry(slot, source, target)
        self.end_move(slot, target)

    def dismiss(self, node):
        """NODE, with what it has, leaves the others, and lives on by itself"""
        target = next(x for x in self.masters if x is not node)
        slots = [slot for low, high, master, *_ in node.ask("CLUSTER", "SLOTS")
                 for slot in range(low, high + 1) if master[1] == node.port]
        node.ask("FLUSHALL")
        name = self.id(target)
        for one in [target] + [x for x in self.servers if x is not target]:
            with one.wire() as wire:
                for slot in slots:
                    wire.send("CLUSTER", "SETSLOT", slot, "NODE", name)
                for slot in slots:
                    assert wire.read() == "OK"
        name = self.id(node)
        for one in self.servers:
            if one is not node:
                one.ask("CLUSTER", "FORGET", name)
        node.ask("CLUSTER", "RESET", "SOFT")


# ---- for shell scripts ------------------------------------------------------

def _serve(kind, directory):
    """(what has url and remove, names for the command's words)"""
    if kind == "tls":
        authority = Authority(directory)
        authority.issue("server")
        cert, key = authority.issue("client")
        one = Redis(tls=tls_options(authority, clients="yes"))
        return one, {"ca": authority.file, "cert": cert, "key": key}
    return {"standalone": Redis, "cluster": Cluster, "sentinel": Sentinels,
            "password": lambda: Redis(user="kate", password="p@ss/w:rd%"),
            "unix": lambda: Redis(unix=True)}[kind](), {}


def _main(kind, dashes, *command):
    assert dashes == "--", __doc__

    def interrupt(number, frame):
        raise KeyboardInterrupt(f"signal {number}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with tempfile.TemporaryDirectory(prefix="cachemw-certs-") as directory:
        os.chmod(directory, 0o755)
        served, names = _serve(kind, directory)
        try:
            names["url"] = served.start().url
            for name, value in names.items():
                command = [x.replace("{%s}" % name, str(value))
                           for x in command]
            return subprocess.run(command, preexec_fn=die_with_parent
                                  ).returncode
        finally:
            served.remove()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    status = _main(*sys.argv[1:])
    sys.exit(128 - status if status < 0 else status)
