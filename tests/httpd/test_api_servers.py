# SPDX-License-Identifier: Apache-2.0
"""One httpd is the cache of others: the provider http on one side, the handler
cachemw-api on the other."""

import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import SHARED
from harness import settings
from harness.api import TOKEN, service, url_of
from harness.origin import cacheable
from harness.redis import Redis
from harness.server import wait_for
from harness.shared import assert_hit, assert_hit_again, assert_miss, get, \
    post, store, stored
from test_http_store import MODULES, PATIENT
from test_status import figures

pytestmark = [pytest.mark.http, pytest.mark.errors]

STORE = """
CachemwStore pages http base_url=@URL@ auth_token=@TOKEN@ @PATIENCE@ @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""


KEPT = {
    "memory": "memory size=64M",
    "file": "file cache_dir=@DIR@/cache/files",
    "sqlite": "sqlite db_path=@DIR@/cache/kept.db busy_timeout=5s",
    "redis": "redis url=@REDIS@ " + PATIENT.replace(" max_retries=0", ""),
    "multitier": """multitier l1=near l2=far
        CachemwStore near memory size=64M
        CachemwStore far file cache_dir=@DIR@/cache/far""",
}


@pytest.fixture(params=KEPT)
def kept(request):
    """each provider that keeps something"""
    what = KEPT[request.param]
    if request.param != "redis":
        yield what
        return
    redis = Redis().start()
    yield what.replace("@REDIS@", redis.url)
    redis.remove()


@pytest.fixture
def start_service():
    made = []

    def start(what="memory size=64M", **how):
        modules = [f"cachemw_{kind}" for kind in ("sqlite", "redis", "http")
                   if f"{kind} " in what]
        made.append(service(what, modules, **how))
        return made[-1].start()

    yield start
    for one in made:
        one.remove()


@pytest.fixture
def make(httpd):
    def start(url, options="", token=TOKEN, patience=PATIENT, **more):
        return httpd(SHARED, {"QUICK": "on", "PROVIDER": STORE, "URL": url,
                              "TOKEN": token, "OPTIONS": options,
                              "PATIENCE": patience}, extra=MODULES, **more)
    return start


def counted(server, name):
    return int(figures(server, "kept")[name])


# ---- what it is for ----------------------------------------------------------

@pytest.mark.mpm
def test_what_one_server_stores_the_others_serve(start_service, make, kept,
                                                 origin, path):
    between = start_service(kept)
    one, other = make(url_of(between)), make(url_of(between))
    for size in (0, 1, 5000, 65536, 900_000):
        page = path(f"p{size}")
        body = store(one, origin, page, size)
        assert_hit(other, page, body)
        assert_hit(one, page, body)
        assert origin.count(page) == 1
    assert counted(between, "ApiStores") == 5
    assert counted(between, "ApiHits") == 10
    assert counted(between, "ApiRefused") == 0


def test_large_bodies(start_service, make, kept, origin, path):
    between = start_service(kept)
    one = make(url_of(between), "max_object_size=16M")
    other = make(url_of(between), "max_object_size=16M")
    page = path()
    body = store(one, origin, page, 16 << 20)
    assert_hit(other, page, body)


def test_body_beyond_the_service_is_not_stored(start_service, make, origin,
                                               path):
    between = start_service("memory size=64M max_object_size=10K")
    one = make(url_of(between))
    page = path()
    body = store(one, origin, page, 20_000)
    assert_miss(one, page, body)
    assert figures(one)["State"] == "on"
    assert counted(between, "ApiRefused") == 2


def test_a_304_amends_for_all(start_service, make, kept, origin, path):
    between = start_service(kept)
    one, other = make(url_of(between)), make(url_of(between))
    page = path()
    body = store(one, origin, page, 200_000, age=1, etag='"1"')
    time.sleep(2.1)     # HTTP counts seconds
    assert get(other, page).cache == "REVALIDATE"
    assert_hit(one, page, body)
    assert origin.count(page) == 2


def test_change_on_one_is_one_for_all(start_service, make, kept, origin, path):
    between = start_service(kept)
    one, other = make(url_of(between)), make(url_of(between))
    page = path()
    body = stored(one, origin, page)
    origin.page(page, b"new")
    post(other, page)
    assert get(one, page).body == b"new" != body


@pytest.mark.parametrize("varies", [False, True], ids=["plain", "varies"])
def test_invalidation_is_told_as_such(start_service, make, origin, path,
                                      varies):
    """To whoever has tiers in front of the Redis that the service has."""
    def heard(listener):
        """letters of what the service has told"""
        letters = ""
        listener.send("PING")
        while (reply := listener.read())[0] != b"pong":
            letters += chr(reply[2][4])
        return letters

    redis = Redis().start()
    try:
        one = make(url_of(start_service(KEPT["redis"].replace(
            "@REDIS@", redis.url) + " announce=on")))
        page = path()
        origin.page(page, b"a page", age=3600, etag='"1"',
                    headers=[("Vary", "X-Lang")] if varies else [])
        with redis.wire() as listener:
            listener.ask("SUBSCRIBE", "cachemw:say:0")
            get(one, page)
            assert set(heard(listener)) == {"s"}
            assert get(one, page).cache == "HIT"
            assert one.ask("POST", page, body=b"",
                           host="shared.test:80").status == 200
            assert heard(listener) == "i"
            assert get(one, page).cache == "REVALIDATE"
            assert heard(listener).strip("as") == ""
    finally:
        redis.remove()


def test_variants_are_shared(start_service, make, kept, origin, path):
    between = start_service(kept)
    one, other = make(url_of(between)), make(url_of(between))
    page = path()
    origin.on(page, lambda req: cacheable(
        (req.get("Accept-Language") or "").encode() * 100,
        headers=[("Vary", "Accept-Language")]))

    def ask(server, language):
        return get(server, page, [("Accept-Language", language)])

    for language in ("de", "fr", "de"):
        assert ask(one, language).body == language.encode() * 100
    for server in (other, one):
        for language in ("fr", "de"):
            res = ask(server, language)
            assert (res.cache, res.body) == ("HIT", language.encode() * 100)
    assert origin.count(page) == 2


def test_service_of_a_service(start_service, make, httpd, origin, path):
    last = start_service()
    middle = httpd("""
        ServerName middle.test
        Listen 127.0.0.1:@PORT@
        CachemwStore onward http base_url=@URL@ auth_token=@TOKEN@ @PATIENCE@
        <Location "/shared">
            SetHandler cachemw-api
            CachemwApi onward auth_token=@TOKEN@
        </Location>""", {"URL": url_of(last), "TOKEN": TOKEN,
                         "PATIENCE": PATIENT}, extra=MODULES)
    one, other = make(url_of(middle)), make(url_of(last))
    page = path()
    body = store(one, origin, page, 50_000)
    assert_hit(one, page, body)
    assert_miss(other, page, body)      # what middle keeps has names of its own
    assert counted(last, "ApiStores") == 2


# ---- the provider's duties ---------------------------------------------------

def conformance(url, *more):
    """how many tests of the suite passed"""
    build = settings.build / "tests"
    module = build / "providers/framed/.libs/mod_cachemw_framed.so"
    done = subprocess.run(
        [build / "conformance/conformance",
         "--load", settings.dso("cachemw_http"), "--load", module, *more,
         "--store", "inner", "http", f"base_url={url}", f"auth_token={TOKEN}",
         "timeout=20s", "store_timeout=20s", "connect_timeout=10s",
         "max_object_size=16M", "framed", "inner=inner"],
        capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    return int(re.search(r"\[  PASSED  \] (\d+) test", said)[1])


def test_changes_conform(start_service):
    """What follows from who comes first, over the API: the conformance suite,
    in part. Heads and keys are made such as responses have."""
    between = start_service()
    assert conformance(url_of(between), "--test", "*set_head*",
                       "--test", "*remove*", "--test", "*amend*") >= 10


@pytest.mark.long
@pytest.mark.parametrize("name", ["memory", "file"])
def test_all_conforms(start_service, name):
    between = start_service(KEPT[name] + " max_object_size=16M")
    assert conformance(url_of(between)) >= 110


# ---- trouble -----------------------------------------------------------------

@pytest.mark.parametrize("token", ["wr0ng", TOKEN + "x", TOKEN[:-1]])
def test_wrong_token_costs_misses_and_says_why(start_service, make, origin,
                                               path, token):
    between = start_service()
    one = make(url_of(between), token=token)
    page = path()
    body = store(one, origin, page)
    assert_miss(one, page, body)
    assert "is the token right?" in one.log()
    assert "missing or wrong" in between.log()
    assert counted(between, "ApiDenied") > 0
    assert counted(between, "ApiStores") == 0
    assert token not in between.log()


def test_service_that_goes_and_comes_back(start_service, make, origin, path):
    between = start_service("file cache_dir=@DIR@/cache/files")
    one = make(url_of(between))
    page = path()
    body = stored(one, origin, page)
    between.stop()
    for _ in range(8):
        assert_miss(one, page, body)
    between.start()
    wait_for(lambda: get(one, page).cache == "HIT", "the service to be back")


def test_graceful_restarts_of_the_service_lose_nothing(start_service, make,
                                                       origin, path):
    between = start_service()
    one = make(url_of(between))
    pages = [path(f"p{n}") for n in range(10)]
    bodies = [store(one, origin, x, 3000 * n) for n, x in enumerate(pages, 1)]
    failed, done = [], threading.Event()

    def visit():
        while not done.is_set():
            for page, body in zip(pages, bodies):
                res = get(one, page)
                if (res.status, res.body) != (200, body):
                    failed.append(res)

    thread = threading.Thread(target=visit)
    thread.start()
    for _ in range(3):
        between.graceful()
    done.set()
    thread.join()
    assert not failed, failed[:3]
    for page, body in zip(pages, bodies):
        wait_for(lambda: get(one, page).cache == "HIT", "hits")


def test_killed_children_of_the_service_harm_nobody(start_service, make,
                                                    origin, path):
    between = start_service()
    one = make(url_of(between))
    page = path()
    body = store(one, origin, page, 300_000)
    for _ in range(5):
        for pid in between.children():
            os.kill(pid, signal.SIGKILL)
        res = get(one, page)
        assert (res.status, res.body) == (200, body)
    wait_for(lambda: get(one, page).cache == "HIT", "the service to be back")
    between.new_log()       # full of the children that were killed


def test_long_urls_close_the_store_for_nobody(start_service, make, origin,
                                              path):
    """Keys beyond the service's limit, within the provider's: visitors can ask
    for as many at once as they like."""
    between = start_service()
    one = make(url_of(between), "\nLimitRequestLine 30000")
    page = path()
    body = stored(one, origin, page)
    long = [path(f"p{n}") + "?" + "x" * 8150 for n in range(10)]
    for _ in range(2):
        gate = threading.Barrier(len(long))

        def visit(page):
            gate.wait()
            return get(one, page)

        for x in long:
            origin.page(x, b"long")
        with ThreadPoolExecutor(len(long)) as pool:
            for res in pool.map(visit, long):
                assert (res.status, res.cache, res.body) \
                    == (200, "MISS", b"long")
    found = figures(one)
    assert found["State"] == "on", found
    assert found["SetErrors"] == found["GetErrors"] == "0", found
    assert int(found["NoSpace"]) == int(found["Failures-413"]) == 20, found
    assert_hit(one, page, body)


ONE_CHILD = """
<IfModule !mpm_prefork_module>
    ServerLimit 1
    StartServers 1
    MaxRequestWorkers 12
</IfModule>
"""


def fill_memory(service):
    """a connection whose request takes most of max_memory=96M"""
    conn = service.connect()
    conn.send("PUT", "/shared/cache/x",
              {"Authorization": "Bearer " + TOKEN,
               "Content-Type": "application/json", "Expect": "100-continue",
               "Content-Length": str((16 << 20) // 3 * 4)})
    assert conn.reader.line().startswith(b"HTTP/1.1 100 ")
    return conn


@pytest.mark.skipif(settings.mpm == "prefork", reason="one request at a time")
def test_want_of_memory_closes_the_store_for_nobody(start_service, make, origin,
                                                    path):
    """Visitors of one large page can bring it about."""
    between = start_service(options="max_memory=96M", more=ONE_CHILD)
    one = make(url_of(between), "max_object_size=16M")
    page, large, new = path(), path("large"), path("new")
    body = stored(one, origin, page)
    large_body = stored(one, origin, large, 10 << 20)
    conn = fill_memory(between)
    origin.page(new, large_body)
    for _ in range(8):
        assert_miss(one, large, large_body)
        assert_miss(one, new, large_body)
        assert_hit(one, page, body)
    found = figures(one)
    assert found["State"] == "on", found
    assert found["SetErrors"] == found["GetErrors"] == "0", found
    assert found["Timeouts"] == "0", found
    assert int(found["Skipped"]) == 8, found
    assert int(found["NoSpace"]) == 16, found
    assert int(found["Failures-busy"]) == 24, found
    conn.abort()
    assert_hit_again(one, large, large_body)


def test_who_could_not_ask_a_tier_invites_to_come_again(start_service):
    """What the others have is still to be had."""
    between = start_service("""multitier l1=near l2=far
        CachemwStore near memory size=16M
        CachemwStore far http base_url=http://127.0.0.1:1""")

    def look_up():
        with between.connect() as conn:
            res = conn.get("/shared/cache/x", {"Authorization":
                                               "Bearer " + TOKEN})
        assert res.status == 503
        return res.get("Retry-After")

    assert look_up() is None, "far has failed"
    wait_for(lambda: look_up() == "1", "that far is not asked any more")


# ---- circles -----------------------------------------------------------------

CIRCLE = SHARED.replace("ProxyPass", 'ProxyPass "/shared" "!"\nProxyPass', 1) \
    + """
<Location "/shared">
    SetHandler cachemw-api
    CachemwApi @SERVED@ auth_token=@TOKEN@
</Location>
"""


def circle(httpd, url, served):
    return httpd(CIRCLE, {"QUICK": "on", "PROVIDER": STORE, "URL": url,
                          "SERVED": served, "TOKEN": TOKEN, "OPTIONS": "",
                          "PATIENCE": PATIENT}, extra=MODULES)


def figures_of(server, name):
    lines = server.get("/server-status?auto").body.decode().splitlines()
    begin = f"CachemwStore-{name}-"
    return {x[len(begin):].split(": ")[0]: x.split(": ")[1] for x in lines
            if x.startswith(begin)}


@pytest.mark.parametrize("served", ["pages", "memory"])
def test_server_that_is_its_own_service_notices_at_once(httpd, origin, path,
                                                        served):
    server = circle(httpd, "http://127.0.0.1:@PORT@/shared", served)
    for n in range(10):
        page = path(f"p{n}")
        body = store(server, origin, page)
        assert_miss(server, page, body)
    assert "leads back to this very server" in server.log()
    name = "(default)" if served == "memory" else served
    found = figures(server, "pages")
    # five in a row, and the breaker is open; then one now and then
    assert found["State"].startswith("breaker open"), found
    assert 1 <= int(found["Failures-loop"]) <= 20
    served_to = {k: v for k, v in figures_of(server, name).items()
                 if k.startswith("Api")}
    assert served_to.pop("ApiDenied") == found["Failures-loop"]
    assert set(served_to.values()) == {"0"}


def test_circle_of_two_servers_ends_where_it_began(httpd, origin, path):
    """Each one's pages are kept by the other one, which keeps them by asking
    the first."""
    one = circle(httpd, "http://127.0.0.1:1/shared", "pages")
    other = circle(httpd, f"http://127.0.0.1:{one.ports[0]}/shared", "pages")
    one._names["URL"] = f"http://127.0.0.1:{other.ports[0]}/shared"
    one.write_conf()
    one.graceful()
    for n in range(10):
        page = path(f"p{n}")
        body = store(one, origin, page)
        assert_miss(one, page, body)
    assert "leads back to this very server" in one.log() + other.log()
    # a look-up or a store is one request to the other and one back
    assert int(figures_of(one, "pages")["ApiDenied"]) >= 1
    for server in (one, other):
        found = figures_of(server, "pages")
        asked = sum(int(found[x]) for x in ("ApiHits", "ApiMisses",
                                            "ApiStores", "ApiDenied"))
        assert asked <= 60, found
