# SPDX-License-Identifier: Apache-2.0
"""Fixtures: one origin and one server per configuration, shared by tests that
use paths of their own; after every test the servers are looked at."""

import contextlib
import fnmatch
import itertools
import re
import signal
import sys

import pytest

sys.dont_write_bytecode = True
pytest.register_assert_rewrite("harness")

from harness import Httpd, Origin, settings      # noqa: E402
from harness.redis import Redis                  # noqa: E402
from harness.shared import shared                # noqa: E402

# mod_http2 refuses to work with prefork
collect_ignore = ["test_http2.py", "test_coalesce_http2.py"] \
    if settings.mpm == "prefork" else []

ALLOWED_SKIPS = settings.source / "tests" / "allowed-skips.txt"


# ---- the provider under test ------------------------------------------------

def provider_conf(store=None, enable="/"):
    """Lines that put the store under test behind the URLs below ENABLE."""
    if settings.provider == "cachemw":
        return (f"CachemwProvider {store or settings.store}\n"
                f"CacheEnable cachemw {enable}\n")
    if settings.provider == "disk":
        return ('CacheRoot "@DIR@/cache"\nCacheMaxFileSize 64000000\n'
                "CacheMinFileSize 0\n"
                f"CacheEnable disk {enable}\n")
    return ("CacheSocache shmcb\nCacheSocacheMaxSize 1000000\n"
            f"CacheEnable socache {enable}\n")


def provider_modules():
    return {"cachemw": ["cachemw"], "disk": ["cache_disk"],
            "socache": ["socache_shmcb", "cache_socache"]}[settings.provider]


def h2_modules():
    return [] if settings.mpm == "prefork" else ["http2"]


# ---- the usual server -------------------------------------------------------

SITE = """
ServerName cachemw.test
Listen 127.0.0.1:@PORT@
CacheQuickHandler @QUICK@
CacheHeader on
CacheDetailHeader on
CacheLock off
UseCanonicalPhysicalPort on
@PROVIDER@
CacheDisable /server-status
<IfModule http2_module>
    Protocols h2c http/1.1
    H2Direct on
</IfModule>
ProxyPreserveHost off
ProxyPass "/local/" "!"
ProxyPass "/server-status" "!"
ProxyPass "/flaky/" "http://127.0.0.1:@FLAKY@/flaky/" retry=0
ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
<Location "/nostale/">
    CacheStaleOnError off
</Location>
<Location "/deflate/">
    SetOutputFilter DEFLATE
</Location>
<Location "/bytype/">
    AddOutputFilterByType DEFLATE text/plain
</Location>
<Location "/errordoc/">
    ProxyErrorOverride on
    ErrorDocument 404 /local/words/404.html
</Location>
<Location "/errordoc-kept/">
    ProxyErrorOverride on
    ErrorDocument 404 /local/words-kept/404.html
</Location>
<Directory "@DIR@/htdocs/local/words-kept">
    Header set Cache-Control max-age=60
</Directory>
RewriteEngine on
RewriteRule ^/rewritten/(.*)$ /plain/$1 [PT]
<Directory "@DIR@/htdocs/local/ssi">
    Options +Includes
    SetOutputFilter INCLUDES
    Header set Cache-Control no-store
</Directory>
<Directory "@DIR@/htdocs/local/ssi-cached">
    Options +Includes
    SetOutputFilter INCLUDES
    Header set Cache-Control max-age=60
</Directory>
<Directory "@DIR@/htdocs/local/perdir">
    RewriteEngine on
    RewriteRule ^(.*)\\.old$ $1.txt
</Directory>
<Directory "@DIR@/htdocs/local/negotiated">
    Options +MultiViews
    AddLanguage de .de
    AddLanguage fr .fr
</Directory>
<Directory "@DIR@/htdocs/local/listed">
    Options +Indexes
    IndexOptions FancyIndexing
</Directory>
<Directory "@DIR@/htdocs/local/asis">
    SetHandler send-as-is
</Directory>
<Location "/after/">
    SetOutputFilter CACHE;DEFLATE
</Location>
<Location "/server-status">
    SetHandler server-status
</Location>
"""


SHARED = shared(SITE)


@pytest.fixture(scope="session")
def origin():
    one = Origin()
    yield one
    one.close()


@pytest.fixture(scope="session")
def flaky():
    """A second origin, behind /flaky/, for tests that close it."""
    one = Origin("flaky")
    yield one
    one.close()


_sites = {}


def _site(quick, origin, flaky):
    if quick not in _sites:
        _sites[quick] = Httpd(
            SITE, {"QUICK": quick, "ORIGIN": origin.port,
                   "FLAKY": flaky.port, "PROVIDER": provider_conf()},
            extra=provider_modules() + h2_modules()).start()
    return _sites[quick]


@pytest.fixture(params=["on", "off"], ids=["quick", "noquick"])
def quick(request):
    """CacheQuickHandler: every test that uses it runs with both"""
    return request.param


@pytest.fixture
def site(quick, origin, flaky):
    return _site(quick, origin, flaky)


@pytest.fixture
def quick_site(origin, flaky):
    return _site("on", origin, flaky)


@pytest.fixture
def slow_site(origin, flaky):
    """the server with CacheQuickHandler off"""
    return _site("off", origin, flaky)


_numbers = itertools.count(1)


@pytest.fixture
def path(request):
    """path("page") is a URL path nobody else uses; path("page", "deflate")
    one in another area of the usual server."""
    base = re.sub(r"\W+", "-", request.node.name)[:60]
    base = f"{base}-{next(_numbers)}"
    return lambda name="page", area="plain": f"/{area}/{base}/{name}"


@pytest.fixture
def httpd(request, origin, flaky):
    """httpd(CONF, …): a server of this test's own, stopped at its end"""
    made = []

    def start(conf, names=(), **more):
        names = {"ORIGIN": origin.port, "FLAKY": flaky.port,
                 "PROVIDER": provider_conf(), **dict(names)}
        more.setdefault("extra", provider_modules())
        made.append(Httpd(conf, names, **more))
        return made[-1].start()

    yield start
    for one in made:
        one.remove()


@pytest.fixture
def start_redis():
    """start_redis(…): a Redis server of this test's own; KIND: several"""
    with contextlib.ExitStack() as stack:
        def start(*options, kind=Redis, **more):
            made = kind(*options, **more)
            stack.callback(made.remove)
            return made.start()

        yield start


@pytest.fixture
def redis(start_redis):
    return start_redis()


@pytest.fixture(scope="module")
def module_httpd(origin, flaky):
    """httpd for a whole module: the same CONF and NAMES, the same server"""
    made = {}

    def start(conf, names=(), **more):
        key = repr((conf, sorted(dict(names).items()), sorted(more.items())))
        if key not in made:
            names = {"ORIGIN": origin.port, "FLAKY": flaky.port,
                     "PROVIDER": provider_conf(), **dict(names)}
            more.setdefault("extra", provider_modules())
            made[key] = Httpd(conf, names, **more).start()
        return made[key]

    yield start
    for one in made.values():
        one.remove()


# ---- after every test -------------------------------------------------------

@pytest.fixture(autouse=True)
def nothing_died(request):
    yield
    expected = request.node.get_closest_marker("errors") is not None
    for server in list(Httpd.live):
        server.check(expected)
    for one in ("origin", "flaky"):
        if one in request.fixturenames:
            errors = request.getfixturevalue(one).errors
            found, errors[:] = list(errors), []
            assert not found, f"the test's own script failed: {found}"


@pytest.fixture(scope="session", autouse=True)
def usual_servers_end():
    yield
    for server in _sites.values():
        server.remove()
    _sites.clear()


# ---- being told to stop, tests stop their servers ---------------------------

def pytest_configure(config):
    def interrupt(number, frame):
        raise KeyboardInterrupt(f"signal {number}")

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)


# ---- what is only for one provider is not even collected for another --------

def pytest_collection_modifyitems(config, items):
    if settings.store.split()[0] == "memory":
        return
    away = [x for x in items if x.get_closest_marker("memory")]
    config.hook.pytest_deselected(items=away)
    items[:] = [x for x in items if x not in away]


# ---- a machine that stands still for a second is no fault of the module -----

# What fails here because a store, a client or an origin was given no processor
# in time is run once more. Nothing else is; a process that died or complained
# is held against the run either way, and so are more than a few such tests.
TIMED = {"test_agree", "test_api", "test_api_description",
         "test_api_servers", "test_api_tls", "test_coalesce",
         "test_coalesce_chains",
         "test_coalesce_http2", "test_faulty",
         "test_file_kills", "test_file_upkeep", "test_http_store",
         "test_interrupted", "test_kills", "test_lazy_body", "test_multitier",
         "test_one_fetch", "test_redis", "test_redis_cluster", "test_redis_sentinel",
         "test_redis_tls", "test_remote", "test_restart", "test_soak",
         "test_sqlite", "test_stale_on_error", "test_sweeper"}
MOST_RERUN = 3

_rerun = []


@pytest.hookimpl(trylast=True)
def pytest_itemcollected(item):
    may_be_late = settings.store.split()[0] not in ("memory", "file")
    if may_be_late or item.module.__name__ in TIMED:
        item.add_marker(pytest.mark.flaky(reruns=1))


# ---- skips are allowed by name only -----------------------------------------

_skipped = []


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)
    if report.outcome == "rerun":
        _rerun.append(report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    try:
        lines = ALLOWED_SKIPS.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    allowed = [x.split("#")[0].strip() for x in lines]
    wrong = [x for x in _skipped
             if not any(fnmatch.fnmatch(x, a) for a in allowed if a)]
    trouble = {"skipped, but not named in tests/allowed-skips.txt": wrong,
               "found after a test, even if that was run once more":
                   Httpd.casualties if _rerun else [],
               f"more than {MOST_RERUN} tests had to be run once more":
                   _rerun if len(_rerun) > MOST_RERUN else []}
    for what, where in trouble.items():
        if where:
            print(f"\n{what}:")
            print("\n".join(f"    {x}" for x in where))
            session.exitstatus = max(int(exitstatus), 1)
