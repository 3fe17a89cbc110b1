# SPDX-License-Identifier: Apache-2.0
"""Readers, writers, people who leave, reloads and restarts, all at once.

Every page carries its address, language, version and the sum of its body, so
a mixture is noticed; and who begins to read after a change was confirmed must
see that change or a later one."""

import hashlib
import random
import threading
import time
import zlib

import pytest

from conftest import SITE
from harness import Reply
from harness.origin import cacheable

pytestmark = [pytest.mark.store]

SIZES = [0, 1, 900, 20000, 65536, 180000]


class Site:
    """The pages at the origin and what must hold for them."""

    def __init__(self, origin, path, count):
        self.lock = threading.Lock()
        self.targets = [path(f"p{i}") for i in range(count)]
        self.version = dict.fromkeys(self.targets, 1)
        self.confirmed = dict.fromkeys(self.targets, 1)
        for target in self.targets:
            origin.on(target, self.answer)

    def varies(self, target):
        return self.targets.index(target) % 3 == 0

    def body(self, target, version, lang):
        seed = f"{target} {version} {lang}"
        size = SIZES[zlib.crc32(seed.encode()) % len(SIZES)]
        return random.Random(seed).randbytes(size)

    def answer(self, req):
        target = req.target
        if req.method == "POST":
            with self.lock:
                self.version[target] += 1
                version = self.version[target]
            return Reply(b"%d" % version)
        with self.lock:
            version = self.version[target]
        lang = req.get("X-Lang") or "-"
        if not self.varies(target):
            lang = "-"
        body = self.body(target, version, lang)
        headers = [("X-Target", target), ("X-Version", str(version)),
                   ("X-For", lang), ("X-Sum", hashlib.sha1(body).hexdigest())]
        if self.varies(target):
            headers.append(("Vary", "X-Lang"))
        number = self.targets.index(target)
        framing = "chunked" if number % 2 else "length"
        return cacheable(
            [body[:99], body[99:]] if framing == "chunked" else body,
            0 if number % 5 == 4 else 60, headers=headers, framing=framing,
            etag=f'"{version}-{lang}"')


class Crowd:
    def __init__(self, server, site, seconds, seed):
        self.server, self.site, self.seed = server, site, seed
        self.end = time.monotonic() + seconds
        self.wrong, self.done, self.hits = [], 0, 0

    def run(self, who, number):
        rnd = random.Random(f"{self.seed} {who.__name__} {number}")
        while time.monotonic() < self.end and not self.wrong:
            try:
                who(rnd)
            except Exception as e:
                self.wrong.append(f"{who.__name__}: {type(e).__name__}: {e}")

    def read(self, rnd, headers=()):
        target = rnd.choice(self.site.targets)
        lang = rnd.choice(["de", "fr", "el"])
        least = self.site.confirmed[target]
        res = self.server.get(target, [("X-Lang", lang), *headers])
        self.check(res, target, lang, least)
        self.done += 1
        self.hits += res.cache == "HIT"

    def check(self, res, target, lang, least):
        about = f"{target} {lang} >= {least}: {res}"
        assert res.complete and res.status == 200, about
        assert hashlib.sha1(res.body).hexdigest() == res.get("X-Sum"), about
        assert res.get("X-Target") == target, about
        assert res.get("X-For") == (lang if self.site.varies(target)
                                    else "-"), about
        assert int(res.get("X-Version")) >= least, "an old page: " + about
        assert res.get("ETag") == \
            f'"{res.get("X-Version")}-{res.get("X-For")}"', about

    def reload(self, rnd):
        self.read(rnd, [("Cache-Control", rnd.choice(["no-cache",
                                                      "max-age=0"]))])
        time.sleep(rnd.random() / 100)

    def change(self, rnd):
        target = rnd.choice(self.site.targets)
        res = self.server.ask("POST", target, body=b"x")
        assert res.status == 200, res
        version = int(res.body)
        with self.site.lock:
            if version > self.site.confirmed[target]:
                self.site.confirmed[target] = version
        time.sleep(rnd.random() / 50)

    def leave(self, rnd):
        with self.server.connect() as conn:
            conn.send("GET", rnd.choice(self.site.targets),
                      [("X-Lang", "de")])
            if rnd.random() < 0.7:
                conn.head()
            conn.abort()
        time.sleep(rnd.random() / 100)


def soak(server, origin, path, seconds, seed, restarts=0):
    crowd = Crowd(server, Site(origin, path, 15), seconds, seed)
    people = [(crowd.read, 6), (crowd.reload, 1), (crowd.change, 2),
              (crowd.leave, 1)]
    threads = [threading.Thread(target=crowd.run, args=(who, n))
               for who, count in people for n in range(count)]
    for one in threads:
        one.start()
    try:
        for n in range(restarts):
            wait = crowd.end - time.monotonic() - seconds * (
                1 - (n + 1) / (restarts + 1))
            threading.Event().wait(max(wait, 0))
            server.graceful(wait_old=False)
    finally:
        for one in threads:
            one.join()
    assert not crowd.wrong, "\n".join(crowd.wrong[:3])
    assert crowd.done > 20 and crowd.hits > crowd.done / 20, (crowd.done,
                                                             crowd.hits)


@pytest.mark.mpm
def test_everything_at_once(site, origin, path):
    soak(site, origin, path, 3, "short")


@pytest.mark.mpm
@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_everything_at_once_for_long(httpd, origin, path, quick, seed):
    server = httpd(SITE, {"QUICK": quick})
    soak(server, origin, path, 30, seed, restarts=4)
