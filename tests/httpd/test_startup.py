# SPDX-License-Identifier: Apache-2.0
"""What an administrator sees when he starts the server."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from conftest import SITE, provider_conf
from harness import Httpd, configtest, settings
from harness.server import MODULES, processes_of

PLAIN = """
ServerName cachemw.test
Listen 127.0.0.1:@PORT@
CacheHeader on
@MORE@
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
"""

NO_CACHE = PLAIN.replace("CacheHeader on\n", "")


def of_ours(log):
    return [x for x in log.splitlines() if "cachemw:" in x
            and not re.search(r":(debug|trace\d)\]", x)]


def shared_megabytes(pid):
    """shared anonymous memory that a process has mapped"""
    total = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, mode, *rest = line.split(None, 5)
        if mode[3] == "s":
            first, last = (int(x, 16) for x in span.split("-"))
            total += last - first
    return total / (1 << 20)


@pytest.mark.mpm
def test_one_line_is_enough(httpd, origin, path):
    server = httpd(PLAIN, {"MORE": "CacheEnable cachemw /"},
                   extra=["cachemw"])
    page = path()
    origin.page(page, b"x" * 1000)
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    assert 64 <= shared_megabytes(server.pid) < 80
    assert not [x for x in of_ours(server.log()) if ":warn]" in x]


def test_without_cacheenable_nothing_is_created(httpd):
    before = httpd(PLAIN, {"MORE": ""}, extra=[])
    server = httpd(PLAIN, {"MORE": ""}, extra=["cachemw"])
    assert shared_megabytes(server.pid) < shared_megabytes(before.pid) + 1
    assert of_ours(server.log()) == []


def test_stores_without_cacheenable_are_mentioned_and_not_created(httpd):
    server = httpd(PLAIN, {"MORE": "CachemwStore a memory size=100M\n"
                                   "CachemwProvider a"}, extra=["cachemw"])
    said = [x for x in of_ours(server.log()) if ":warn]" in x]
    assert len(said) == 1 and "CacheEnable cachemw" in said[0], said
    assert shared_megabytes(server.pid) < 50


def test_store_that_nobody_uses_is_mentioned_and_not_created(httpd):
    server = httpd(PLAIN, {"MORE": "CachemwStore used memory size=8M\n"
                                   "CachemwStore unused memory size=100M\n"
                                   "CachemwProvider used\n"
                                   "CacheEnable cachemw /"},
                   extra=["cachemw"])
    said = [x for x in of_ours(server.log()) if ":warn]" in x]
    assert len(said) == 1 and "unused" in said[0], said
    assert shared_megabytes(server.pid) < 60


@pytest.mark.errors
def test_without_mod_cache_one_clear_sentence(httpd, origin, path):
    modules = [x for x in MODULES if x != "cache"]
    rc, said = configtest(NO_CACHE, names={"MORE": "", "ORIGIN": 1},
                          modules=modules, extra=["cachemw"], loglevel="info")
    about = [x for x in said.splitlines() if "cachemw" in x]
    assert len(about) == 1, said
    assert "mod_cache is not loaded" in about[0]
    assert "LoadModule cache_module" in about[0]
    assert "undefined symbol" not in said
    server = httpd(NO_CACHE, {"MORE": ""}, modules=modules,
                   extra=["cachemw"], loglevel="info")
    page = path()
    origin.page(page, b"served all the same")
    assert server.get(page).body == b"served all the same"


@pytest.mark.mpm
def test_order_of_loadmodule_does_not_matter(httpd, origin, path):
    modules = ["cachemw"] + MODULES
    server = httpd(PLAIN, {"MORE": "CacheEnable cachemw /"}, modules=modules,
                   extra=[])
    page = path()
    origin.page(page, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    server.graceful()
    assert server.get(page).cache == "HIT"


def test_configtest_creates_nothing():
    server = Httpd(PLAIN, {"MORE": "CachemwStore a memory size=512M\n"
                                   "CachemwProvider a\n"
                                   "CacheEnable cachemw /", "ORIGIN": 1},
                   extra=["cachemw"])
    try:
        before = sorted(server.dir.rglob("*"))
        rc, said = server.configtest()
        assert rc == 0 and "Syntax OK" in said, said
        assert sorted(server.dir.rglob("*")) == before
    finally:
        server.remove()


@pytest.mark.parametrize("line,hint", [
    ("CacheEnable Cachemw /", "probably meant: write CacheEnable cachemw"),
    ("CacheEnable cachmw /", "probably meant: write CacheEnable cachemw"),
    ("CacheEnable mod_cachemw /", "probably meant: write CacheEnable cachemw"),
    ("CacheEnable memory /", "CachemwProvider"),
    ("CacheEnable Memory /", "CachemwProvider"),
    ("CacheEnable hot /", "hot is a store: CachemwProvider hot, and write "
                          "CacheEnable cachemw"),
    ("CacheEnable disk /", "load mod_cache_disk, or write"),
    ("CacheEnable elsewhere /", "line; write CacheEnable cachemw")])
def test_cacheenable_that_mod_cache_would_silently_ignore(httpd, line, hint):
    server = httpd(PLAIN, {"MORE": "CachemwStore hot memory size=8M\n" + line},
                   extra=["cachemw"])
    said = [x for x in of_ours(server.log()) if ":warn]" in x]
    assert any(line.rsplit(" ", 1)[0] in x and hint in x and
               "httpd.conf" in x for x in said), said


def machine_gigabytes():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") >> 30


@pytest.mark.mpm
@pytest.mark.skipif(machine_gigabytes() >= 1000, reason="has that memory")
def test_size_beyond_the_machine(httpd, origin, path):
    """a system that promises any amount starts with the store, others without
    it; either way the site works, and the log says what to change"""
    server = httpd(PLAIN, {"MORE": "CachemwStore big memory size=1000G\n"
                                   "CachemwProvider big\n"
                                   "CacheEnable cachemw /"}, extra=["cachemw"])
    page = path()
    origin.page(page, b"x")
    assert [server.get(page).body for _ in range(2)] == [b"x", b"x"]
    said = of_ours(server.log())
    assert any("cachemw[big]: open: size=1000G" in x and "expected" in x
               for x in said), said
    if server.get(page).cache != "HIT":
        assert any(":error]" in x and "CachemwStore big on line" in x
                   and "the store is off" in x for x in said), said


def test_only_the_module_record_leaves_the_dso():
    done = subprocess.run(["nm", "-D", "--defined-only", str(settings.module)],
                          capture_output=True, text=True, check=True)
    names = [x.split()[-1] for x in done.stdout.splitlines()]
    assert names == ["cachemw_module"]


def test_names_may_be_used_before_they_are_defined(httpd, origin, path):
    server = httpd(PLAIN, {"MORE": "CacheEnable cachemw /\n"
                                   "CachemwProvider later\n"
                                   "CachemwStore later memory size=8M"},
                   extra=["cachemw"])
    page = path()
    origin.page(page, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]


def test_cacheenable_in_a_location(httpd, origin, path):
    """works with CacheQuickHandler off only, as mod_cache documents it"""
    server = httpd(PLAIN, {"MORE": "CacheQuickHandler off\n"
                                   '<Location "/plain/">\n'
                                   "CacheEnable cachemw\n</Location>"},
                   extra=["cachemw"])
    page, other = path(), path("page", "other")
    for target in (page, other):
        origin.page(target, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    assert [server.get(other).cache for _ in range(2)] == [None, None]


def test_cachedisable_is_obeyed(httpd, origin, path):
    server = httpd(PLAIN, {"MORE": "CacheEnable cachemw /\n"
                                   "CacheDisable /other/"},
                   extra=["cachemw"])
    page, other = path(), path("page", "other")
    for target in (page, other):
        origin.page(target, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    assert [server.get(other).cache for _ in range(2)] == [None, None]


INHERIT = """
ServerName cachemw.test
CacheHeader on
CacheEnable cachemw /
CachemwStore one memory size=8M max_object_size=100
CachemwStore two memory size=8M max_object_size=1000
CachemwProvider one
Listen 127.0.0.1:@PORT@
Listen 127.0.0.1:@PORT2@
Listen 127.0.0.1:@PORT3@
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
<VirtualHost *:@PORT2@>
    ServerName two.test
    CachemwProvider two
    ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
</VirtualHost>
<VirtualHost *:@PORT3@>
    ServerName three.test
    CachemwNamespace something-of-ours
    ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
</VirtualHost>
"""


def test_virtual_host_inherits_the_store_or_has_its_own(module_httpd, origin,
                                                        path):
    server = module_httpd(INHERIT, extra=["cachemw"])
    small, large = path("small"), path("large")
    origin.page(small, b"x" * 50)
    origin.page(large, b"x" * 500)
    for port, largest in ((0, "MISS"), (1, "HIT"), (2, "MISS")):
        assert [server.get(small, port=port).cache
                for _ in range(2)] == ["MISS", "HIT"]
        assert [server.get(large, port=port).cache
                for _ in range(2)] == ["MISS", largest]


COOKIES = SITE.replace("@PROVIDER@", "@PROVIDER@\n"
                       "CacheIgnoreHeaders Set-Cookie")


@pytest.mark.store
def test_cookies_of_the_first_visitor_stay_his(module_httpd, origin, path,
                                               quick):
    server = module_httpd(COOKIES, {"QUICK": quick})
    page = path()
    origin.page(page, b"x", headers=[("Set-Cookie", "session=first"),
                                     ("Set-Cookie", "more=1"),
                                     ("X-Mark", "m")])
    first, second = server.get(page), server.get(page)
    assert first.all("Set-Cookie") == ["session=first", "more=1"]
    assert (second.cache, second.all("Set-Cookie")) == ("HIT", [])
    assert second.get("X-Mark") == "m"


@pytest.mark.store
def test_cookies_stay_out_after_a_304(module_httpd, origin, path, quick):
    server = module_httpd(COOKIES, {"QUICK": quick})
    page = path()
    origin.page(page, b"x", 0, etag='"v1"', headers_304=[
        ("Cache-Control", "max-age=60"), ("Set-Cookie", "session=second")])
    for wanted in ("MISS", "REVALIDATE", "HIT"):
        res = server.get(page)
        assert res.cache == wanted
        if wanted == "HIT":
            assert res.all("Set-Cookie") == []


@pytest.mark.parametrize("what", ["refused", "interrupted"])
def test_start_that_fails_leaves_nothing_behind(what, monkeypatch):
    """of the harness: neither a directory nor a process"""
    pids = []

    def give_up(condition, what):
        pids.append(server.pid)
        raise KeyboardInterrupt(what)

    server = Httpd(PLAIN, {"MORE": "Nonsense" if what == "refused" else "",
                           "ORIGIN": 1})
    if what == "interrupted":
        monkeypatch.setattr("harness.server.wait_for", give_up)
    with pytest.raises((AssertionError, KeyboardInterrupt)):
        with server:
            pass
    assert not server.dir.exists()
    assert not any(processes_of(x) for x in pids)


@pytest.mark.mpm
def test_start_and_stop_leave_nothing_behind(origin):
    def left():
        return {x.split()[1] for kind in ("shm", "sem") for x in
                Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]}

    for _ in range(2):
        server = Httpd(PLAIN, {"MORE": provider_conf(), "ORIGIN": origin.port},
                       extra=["cachemw"]).start()
        server.get("/nothing")
        # stop() fails itself when a process stays or httpd does not end well
        server.remove()
