# SPDX-License-Identifier: Apache-2.0
"""cachemwctl as a person runs it, beside servers of the tests on httpd."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "httpd"))

from harness import Httpd, Origin, Reply, settings       # noqa: E402
from harness.origin import cacheable                     # noqa: E402
from harness.redis import Redis                          # noqa: E402

# another build's, too: one under sanitizers, say
PROGRAM = Path(os.environ.get("CACHEMW_CTL",
                              settings.build / "ctl" / "cachemwctl"))
MODULES = settings.build / ".libs"
LIMIT = 300         # seconds after which a command hangs


class Done:
    """What a command said and ended with."""

    def __init__(self, done):
        self.status = done.returncode
        self.out = done.stdout.decode(errors="replace")
        self.raw = done.stdout
        self.err = done.stderr.decode(errors="replace")

    def __repr__(self):
        return f"status {self.status}\n{self.out}\n{self.err}"

    @property
    def lines(self):
        return self.out.splitlines()

    @property
    def objects(self):
        return [json.loads(x) for x in self.lines]


def ctl(command, *words, limit=LIMIT, **more):
    """`cachemwctl COMMAND … WORDS`; with the modules of the build."""
    where = [] if command.startswith("-") else ["--modules", MODULES]
    return Done(subprocess.run(
        [PROGRAM, command, *where, *words], capture_output=True,
        stdin=subprocess.DEVNULL, timeout=limit, **more))


CONF = """
ServerName cachemw.test
Listen 127.0.0.1:@PORT@
CacheHeader on
CacheLock off
@STORES@
CachemwProvider @STORE@
CacheEnable cachemw /
CacheDisable /server-status
ProxyPass "/server-status" "!"
<Location "/server-status">
    SetHandler server-status
</Location>
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
"""


class Site:
    """A server with a store, and the words of that for cachemwctl."""

    def __init__(self, origin, provider, words, modules=(), stores=""):
        names = {"ORIGIN": origin.port, "STORE": "", "STORES": stores}
        self.origin = origin
        self.server = Httpd(CONF, names=names, extra=["cachemw", *modules])
        self.words = [provider] + [x.replace("@DIR@", str(self.server.dir))
                                   for x in words]
        self.server._names["STORE"] = " ".join(self.words)
        self.server.write_conf()

    def url(self, page):
        return f"http://cachemw.test:{self.server.ports[0]}{page}"

    @property
    def host(self):
        return "cachemw.test:80"        # as ServerName says, without a port

    def ctl(self, command, *words, options=(), **more):
        return ctl(command, *options, *self.words, *words, **more)

    def get(self, page, headers=()):
        return self.server.get(page, headers)

    def fill(self, pages):
        """Have these stored: {page: body}"""
        for page, body in pages.items():
            self.origin.page(page, body)
            assert self.get(page).body == body
        for page, body in pages.items():
            res = self.get(page)
            assert (res.cache, res.body) == ("HIT", body), page


@pytest.fixture(scope="session")
def origin():
    with contextlib.closing(Origin()) as one:
        yield one


@pytest.fixture(scope="session")
def redis():
    one = Redis()
    try:
        yield one.start()
    finally:
        one.remove()


def site_of(kind, origin, redis=None):
    if kind == "file":
        return Site(origin, "file", ["cache_dir=@DIR@/cache/files"])
    if kind == "sqlite":
        return Site(origin, "sqlite",
                    ["db_path=@DIR@/cache/tests.db", "busy_timeout=5s"],
                    ["cachemw_sqlite"])
    return Site(origin, "redis", [f"url={redis.url}", "timeout=2s",
                                  "store_timeout=2s", "connect_timeout=2s"],
                ["cachemw_redis"])


@pytest.fixture(params=["file", "sqlite", "redis"])
def site(request, origin):
    """A running server; whatever is done to its store, it goes on."""
    redis = request.getfixturevalue("redis") if request.param == "redis" \
        else None
    if redis:
        redis.ask("FLUSHALL")
    made = site_of(request.param, origin, redis)
    made.kind = request.param
    try:
        made.server.start()
        yield made
        made.server.check()
    finally:
        made.server.remove()


def varying(req):
    zipped = "gzip" in (req.get("Accept-Encoding") or "")
    return cacheable(b"zipped" if zipped else b"plain!!", headers=[
        ("Vary", "Accept-Encoding"), ("Content-Type", "text/plain")]
        + ([("Content-Encoding", "gzip")] if zipped else []))


@pytest.fixture
def strangers(tmp_path):
    """Compile C as a module: strangers(name, text) is its file."""
    def make(name, text):
        source = tmp_path / f"{name}.c"
        source.write_text(text)
        made = tmp_path / f"{name}.so"
        apxs = os.environ.get("CACHEMW_APXS", "apxs")
        flags = subprocess.run(
            f"{apxs} -q EXTRA_CPPFLAGS; echo -I$({apxs} -q INCLUDEDIR); "
            "apr-1-config --includes --cppflags",
            shell=True, capture_output=True, text=True).stdout.split()
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, source, *flags,
                        f"-I{settings.source}/include",
                        f"-I{settings.source}/tests/contract"], check=True)
        return made
    return make


__all__ = ["Reply", "Site", "cacheable", "ctl", "varying"]


APXS = os.environ.get("CACHEMW_APXS") or shutil.which("apxs") \
    or shutil.which("apxs2")
APXS_INSTALLED = """#!/bin/sh
# httpd's modules and ours lie in one place, as if ours were installed
if [ "$*" = "-q LIBEXECDIR" ]; then echo '{modules}'; exit; fi
exec '{apxs}' "$@"
"""


@contextlib.contextmanager
def public():
    """A directory for the user, too, whom httpd's children run as. Those of
    pytest are closed to all others again whenever another run of it begins."""
    with tempfile.TemporaryDirectory(prefix="cachemw-ctl-") as where:
        os.chmod(where, 0o755)
        yield Path(where)


@pytest.fixture
def place():
    with public() as where:
        yield where


def install(where):
    """An environment in which mod_cachemw is installed."""
    root, bin_dir, modules = (where / x for x in ("root", "bin", "modules"))
    for one in (bin_dir, modules):
        one.mkdir()
    subprocess.run(["make", "--no-print-directory", "-C", settings.build,
                    "install", f"DESTDIR={root}"],
                   check=True, capture_output=True, timeout=LIMIT)
    libexec = settings.moddir
    for there in (libexec, Path(f"{root}{libexec}")):
        for module in there.glob("*.so"):
            link = modules / module.name
            link.unlink(missing_ok=True)
            link.symlink_to(module)
    wrapper = bin_dir / "apxs"
    wrapper.write_text(APXS_INSTALLED.format(modules=modules, apxs=APXS))
    wrapper.chmod(0o755)
    (header,) = root.rglob("mod_cachemw.h")
    (tool,) = root.rglob("bin/cachemwctl")
    return dict(os.environ, C_INCLUDE_PATH=str(header.parent),
                PATH=f"{bin_dir}:{tool.parent}:{os.environ['PATH']}")


@pytest.fixture(scope="session")
def installed():
    with public() as where:
        yield install(where)
