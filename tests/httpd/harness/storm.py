# SPDX-License-Identifier: Apache-2.0
"""Load from processes of its own: an origin whose pages change with each
fetch, and visitors who verify every byte. Storm starts and ends them.

    python3 -m harness.storm origin
    python3 -m harness.storm visit PORT THREADS SEED

The origin prints its port. Visitors go on until their standard input ends and
print what they saw as JSON."""

import collections
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

from .client import Connection
from .origin import Origin, cacheable

# Nobody may wait longer for a whole answer, or for the end of the connection.
PATIENCE = 15

PAGES = 400
SIZES = [0, 1, 300, 900, 4000, 4000, 9000, 20000, 65536, 70000, 180000]
LARGEST = 1000000
LANGUAGES = ["de", "fr", "el"]


def page(number):
    return f"/storm/{number}"


def varies(number):
    return number % 5 == 0


def content(target, version, lang):
    """the body: another one, of another size, for each version"""
    seed = f"{target} {version} {lang}"
    turn = zlib.crc32(seed.encode())
    size = LARGEST if turn % 60 == 0 else SIZES[turn % len(SIZES)]
    return random.Random(seed).randbytes(size)


def answer(number, versions):
    def reply(req):
        target, version = page(number), str(next(versions))
        lang = req.get("X-Lang") if varies(number) else "-"
        headers = [("X-Target", target), ("X-Version", version),
                   ("X-For", lang)]
        if varies(number):
            headers.append(("Vary", "X-Lang"))
        return cacheable(content(target, version, lang),
                         1 if number % 3 == 0 else 2, headers=headers,
                         framing="length", etag=f'"{version}-{lang}"')

    def in_pieces(req):
        whole = reply(req)
        return whole.with_(body=[whole.body[:999], whole.body[999:]],
                           framing="chunked")

    return in_pieces if number % 4 == 1 else reply


def serve():
    origin = Origin()
    for number in range(PAGES):
        origin.on(page(number), answer(number, itertools.count(1)))
    print(origin.port, flush=True)
    sys.stdin.read()


class Visitor(threading.Thread):
    def __init__(self, addr, seed):
        super().__init__(daemon=True)
        self.addr = addr
        self.random = random.Random(seed)
        self.seen = collections.Counter()
        self.wrong, self.slowest, self.stop = [], 0, False

    def run(self):
        while not self.stop and not self.wrong:
            try:
                with Connection(self.addr, PATIENCE,
                                "cachemw.test:%d" % self.addr[1]) as conn:
                    while not self.stop and self.one(conn):
                        pass
            except TimeoutError:
                self.wrong.append(f"no answer within {PATIENCE} s")
            except ConnectionError:
                self.seen["unanswered"] += 1

    def one(self, conn):
        """One request. @return whether the connection is of further use"""
        number = int(self.random.random() ** 2 * PAGES)
        lang = self.random.choice(LANGUAGES)
        headers = [("X-Lang", lang)]
        if self.random.random() < 0.1:
            headers.append(("Cache-Control", "no-cache"))
        began = time.monotonic()
        res = conn.get(page(number), headers)
        self.slowest = max(self.slowest, time.monotonic() - began)
        if not res.complete:
            # an idle connection may be closed while a request is on its way
            self.seen["cut" if res.status else "unanswered"] += 1
            return False
        self.verify(res, number, lang if varies(number) else "-")
        self.seen["verified"] += 1
        self.seen[res.cache] += 1
        self.seen["bytes"] += len(res.body)
        return res.get("Connection") != "close" and not self.wrong

    def verify(self, res, number, lang):
        version = res.get("X-Version")
        if (res.status != 200 or res.framing not in ("length", "chunked")
                or res.get("X-Target") != page(number)
                or res.get("X-For") != lang
                or res.get("ETag") != f'"{version}-{lang}"'
                or res.body != content(page(number), version, lang)):
            self.wrong.append(f"{page(number)} {lang}: {res}")


def visit(port, threads, seed):
    crowd = [Visitor(("127.0.0.1", port), f"{seed} {i}")
             for i in range(threads)]
    for one in crowd:
        one.start()
    sys.stdin.read()
    for one in crowd:
        one.stop = True
    for one in crowd:
        one.join(2 * PATIENCE)
    print(json.dumps({
        "seen": sum((x.seen for x in crowd), collections.Counter()),
        "slowest": max(x.slowest for x in crowd),
        "wrong": [y for x in crowd for y in x.wrong]
        + ["a visitor still waits" for x in crowd if x.is_alive()]}))


class Storm:
    """Processes that make the load; `finish` says what the visitors saw."""

    def __init__(self):
        self.processes = []
        self.origin = int(self._run("origin").stdout.readline())

    def proxied(self, conf):
        """a configuration with ProxyPass, and one to this origin before it;
        what httpd says of each request would be a gigabyte"""
        return conf.replace(
            'ProxyPass "/" ', 'ProxyPass "/storm/" '
            f'"http://127.0.0.1:{self.origin}/storm/" retry=0\nProxyPass "/" '
            ) + "LogLevel warn\n"

    def __enter__(self):
        return self

    def _run(self, *words):
        self.processes.append(subprocess.Popen(
            [sys.executable, "-m", "harness.storm", *map(str, words)],
            cwd=Path(__file__).parents[1], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}))
        return self.processes[-1]

    def visitors(self, port, count, threads):
        for i in range(count):
            self._run("visit", port, threads, i)

    def finish(self):
        """(Counter of what was seen, slowest answer in s, what was wrong)"""
        seen, slowest, wrong = collections.Counter(), 0, []
        for one in self.processes[1:]:
            one.stdin.close()
        for one in self.processes[1:]:
            said = json.loads(one.stdout.read())
            seen.update(said["seen"])
            slowest = max(slowest, said["slowest"])
            wrong += said["wrong"]
        return seen, slowest, wrong

    def __exit__(self, *exc):
        for one in self.processes:
            one.kill()
            one.wait()
            one.stdin.close()
            one.stdout.close()


if __name__ == "__main__":
    if sys.argv[1] == "origin":
        serve()
    else:
        visit(*(int(x) for x in sys.argv[2:]))
