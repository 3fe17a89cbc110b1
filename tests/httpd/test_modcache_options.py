# SPDX-License-Identifier: Apache-2.0
"""What mod_cache's own directives promise holds with our store as well."""

import pytest

from conftest import SITE
from harness import Gate, Reply
from harness.origin import cacheable
from test_basic import noise

pytestmark = [pytest.mark.store]


def with_lines(module_httpd, quick, *lines, instead=()):
    conf = SITE.replace("@PROVIDER@", "@PROVIDER@\n" + "\n".join(lines))
    for old, new in instead:
        assert old in conf
        conf = conf.replace(old, new)
    return module_httpd(conf, {"QUICK": quick})


@pytest.mark.parametrize("size", [10, 300000])
def test_with_cachelock_one_revalidates_and_the_others_get_the_stale_page(
        module_httpd, origin, path, quick, size):
    server = with_lines(module_httpd, quick,
                        'CacheLockPath "@DIR@/cache/lock"',
                        instead=[("CacheLock off", "CacheLock on")])
    page, gate = path(), Gate()
    old, new = noise(size, 1), noise(size, 2)
    origin.page(page, old, 0, etag='"v1"')
    server.get(page)
    origin.on(page, cacheable(new, etag='"v2"', gate=gate))
    with server.connect() as first:
        first.send("GET", page, [("Connection", "close")])
        gate.wait_reached()
        for _ in range(3):
            res = server.get(page)
            assert (res.cache, res.body) == ("HIT", old)
            assert "110" in res.get("Warning")
        assert origin.count(page) == 2
        gate.open()
        assert first.response().body == new
        assert first.is_closed()
    res = server.get(page)
    assert (res.cache, res.body, res.get("Warning")) == ("HIT", new, None)


def test_with_cachelock_a_304_lets_the_others_on(module_httpd, origin, path,
                                                 quick):
    server = with_lines(module_httpd, quick,
                        'CacheLockPath "@DIR@/cache/lock"',
                        instead=[("CacheLock off", "CacheLock on")])
    page = path()
    origin.page(page, b"x", 0, etag='"v1"')
    server.get(page)
    for _ in range(3):
        assert server.get(page).cache == "REVALIDATE"
    origin.on(page, Reply(b"sorry", status=503))
    for _ in range(2):
        assert server.get(page).body == b"x"


def test_ignored_query_strings_share_a_page_and_its_changes(
        module_httpd, origin, path, quick):
    server = with_lines(module_httpd, quick, "CacheIgnoreQueryString on")
    page = path()
    origin.on(page, lambda req: cacheable(b"x", etag='"v1"')
              if req.method == "GET" else Reply(b"saved"))
    assert [server.get(page + q).cache for q in ("?a=1", "?b=2", "")] == [
        "MISS", "HIT", "HIT"]
    server.ask("POST", page + "?c=3", body=b"x")
    assert server.get(page + "?d=4").cache == "REVALIDATE"


def test_ignored_session_identifiers_share_a_page(module_httpd, origin, path,
                                                  quick):
    server = with_lines(module_httpd, quick,
                        "CacheIgnoreURLSessionIdentifiers sid")
    page = path()
    origin.page(page, b"x")
    asks = ["?sid=1&a=1", "?sid=2&a=1", "?a=1&sid=3", "?a=1"]
    assert [server.get(page + q).cache for q in asks] == ["MISS"] + ["HIT"] * 3
    assert server.get(page + "?a=2").cache == "MISS"


def test_one_base_url_makes_two_hosts_share_a_page(module_httpd, origin, path,
                                                   quick):
    server = with_lines(module_httpd, quick,
                        "CacheKeyBaseURL http://cachemw.test:1/")
    page = path()
    origin.page(page, b"x")
    assert server.get(page, host="one.test").cache == "MISS"
    assert server.get(page, host="two.test").cache == "HIT"


@pytest.mark.parametrize("control", ['no-cache="X-Secret"',
                                     'private="X-Secret, X-Other"'])
def test_fields_that_are_not_for_others_are_not_kept(site, origin, path,
                                                     control):
    page = path()
    origin.on(page, Reply(b"x", [
        ("Cache-Control", f"max-age=60, {control}"),
        ("X-Secret", "mine"), ("X-Mark", "all")]))
    assert site.get(page).get("X-Secret") == "mine"
    for _ in range(2):
        res = site.get(page)
        assert res.get("X-Mark") == "all"
        if res.cache == "HIT":
            assert res.get("X-Secret") is None
    assert res.cache == "HIT"


def test_lifetimes_of_the_server(module_httpd, origin, path, quick):
    server = with_lines(module_httpd, quick, "CacheIgnoreNoLastMod on",
                        "CacheDefaultExpire 100", "CacheMinExpire 100")
    page, short = path("plain"), path("short")
    origin.on(page, Reply(b"no lifetime at all"))
    origin.page(short, b"almost none", 0)
    for target in (page, short):
        assert server.get(target).cache == "MISS"
    assert server.get(page).cache == "HIT"


def test_canonical_name_makes_all_hosts_one(module_httpd, origin, path, quick):
    server = with_lines(module_httpd, quick, "UseCanonicalName on")
    page = path()
    origin.page(page, b"x")
    assert server.get(page, host="one.test").cache == "MISS"
    assert server.get(page, host="two.test").cache == "HIT"


FORWARD = """
ServerName proxy.test
Listen 127.0.0.1:@PORT@
CacheQuickHandler @QUICK@
CacheHeader on
ProxyRequests on
@PROVIDER@
"""


def test_forward_proxy_keeps_origins_apart(module_httpd, origin, flaky, path,
                                           quick):
    from conftest import provider_conf
    server = module_httpd(FORWARD, {"QUICK": quick, "PROVIDER": provider_conf(
        enable='"http://127.0.0.1:"')})
    page = path()
    for number, one in enumerate((origin, flaky)):
        one.page(page, b"from %d" % number)
    for wanted in ("MISS", "HIT"):
        for number, one in enumerate((origin, flaky)):
            url = f"http://127.0.0.1:{one.port}{page}"
            res = server.get(url, host=f"127.0.0.1:{one.port}")
            assert (res.cache, res.body) == (wanted, b"from %d" % number)


def test_application_can_forbid_it_by_environment(module_httpd, origin, path,
                                                  quick):
    server = with_lines(module_httpd, quick,
                        'SetEnvIf Request_URI "/nocache-please$" no-cache')
    page, other = path("nocache-please"), path("other")
    for target in (page, other):
        origin.page(target, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "MISS"]
    assert [server.get(other).cache for _ in range(2)] == ["MISS", "HIT"]
