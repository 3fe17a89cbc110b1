# SPDX-License-Identifier: Apache-2.0
"""Virtual hosts share a server and perhaps a store, never their pages: asking
one of them with another's Host header must not plant its page there."""

import itertools

import pytest

from conftest import provider_conf
from harness import settings

pytestmark = [pytest.mark.store]

COMMON = """
ServerName main.test
CacheQuickHandler @QUICK@
CacheHeader on
CacheDetailHeader on
@STORES@
Listen 127.0.0.1:@PORT@
Listen 127.0.0.1:@PORT2@
Listen 127.0.0.2:@PORT@
RewriteEngine on
RewriteRule ^/(.*)$ http://127.0.0.1:@ORIGIN@/main/$1 [P]
"""

VHOST = """
<VirtualHost %(address)s>
    %(name)s
    %(own)s
    ProxyPass "/" "http://127.0.0.1:@ORIGIN@/%(label)s/" retry=0
</VirtualHost>
"""

# kind: virtual hosts as (label, address, ServerName, (ip, port number), Host
# that visitors use; {0} and {1} are the ports)
LAYOUTS = {
    "by-port": [
        ("a", "127.0.0.1:@PORT@", "a.test", ("127.0.0.1", 0), "a.test:{0}"),
        ("b", "127.0.0.1:@PORT2@", "b.test", ("127.0.0.1", 1), "b.test:{1}")],
    "one-name-two-ports": [
        ("a", "127.0.0.1:@PORT@", "s.test", ("127.0.0.1", 0), "s.test:{0}"),
        ("b", "127.0.0.1:@PORT2@", "s.test", ("127.0.0.1", 1), "s.test:{1}")],
    "by-address": [
        ("a", "127.0.0.1:@PORT@", "a.test", ("127.0.0.1", 0), "a.test:{0}"),
        ("b", "127.0.0.2:@PORT@", "b.test", ("127.0.0.2", 0), "b.test:{0}")],
    "one-name-two-addresses": [
        ("a", "127.0.0.1:@PORT@", "s.test", ("127.0.0.1", 0), "s.test:{0}"),
        ("b", "127.0.0.2:@PORT@", "s.test", ("127.0.0.2", 0), "s.test:{0}")],
    "no-names-two-addresses": [
        ("a", "127.0.0.1:@PORT@", "", ("127.0.0.1", 0), "s.test:{0}"),
        ("b", "127.0.0.2:@PORT@", "", ("127.0.0.2", 0), "s.test:{0}")],
    "by-name": [
        ("a", "*:@PORT@", "a.test", ("127.0.0.1", 0), "a.test:{0}"),
        ("b", "*:@PORT@", "b.test", ("127.0.0.1", 0), "b.test:{0}"),
        ("c", "*:@PORT2@", "c.test", ("127.0.0.1", 1), "c.test:{1}")],
    "names-with-ports": [
        ("a", "*:@PORT@", "a.test:@PORT@", ("127.0.0.1", 0), "a.test:{0}"),
        ("b", "*:@PORT2@", "a.test:@PORT2@", ("127.0.0.1", 1), "a.test:{1}")],
    "main-server-too": [
        ("b", "127.0.0.2:@PORT@", "b.test", ("127.0.0.2", 0), "b.test:{0}"),
        ("main", None, "main.test", ("127.0.0.1", 0), "main.test:{0}")],
    "main-server-same-name": [
        ("b", "127.0.0.2:@PORT@", "main.test", ("127.0.0.2", 0),
         "main.test:{0}"),
        ("main", None, "main.test", ("127.0.0.1", 0), "main.test:{0}")],
}

STORES = {
    "default": (None, ""),
    "one-named": ("CachemwStore pages {store}\n", "CachemwProvider pages"),
    "one-each": (None, "CachemwProvider {store}"),
    "main-servers": ("CachemwProvider {store}\n", ""),
}


def configuration(layout, stores):
    shared, own = STORES[stores]
    if settings.provider != "cachemw":
        shared, own = provider_conf(), ""
    else:
        shared = (shared or "") + "CacheEnable cachemw /\n"
    conf = COMMON.replace("@STORES@", shared.format(store=settings.store))
    for label, address, name, _, _ in LAYOUTS[layout]:
        if address:
            conf += VHOST % {
                "label": label, "address": address,
                "name": f"ServerName {name}" if name else "",
                "own": own.format(store=settings.store_named(label))}
    return conf


@pytest.mark.parametrize("stores", STORES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_page_is_planted_on_another_virtual_host(module_httpd, origin,
                                                    path, quick, layout,
                                                    stores):
    server = module_httpd(configuration(layout, stores), {"QUICK": quick})
    hosts = LAYOUTS[layout]
    for number, (attacked, via) in enumerate(itertools.permutations(hosts, 2)):
        page = path(f"p{number}")
        for label, *_ in hosts:
            origin.page(f"/{label}{page}", f"of {label}".encode())
        _, _, _, (ip, port), _ = via
        forged = attacked[4].format(*server.ports)
        for _ in range(2):      # plant it, twice
            res = server.get(page, host=forged, ip=ip, port=port)
            assert res.status == 200
            planted = res.body
        label, _, _, (ip, port), host = attacked
        for wanted in ("MISS", "HIT"):
            res = server.get(page, host=host.format(*server.ports), ip=ip,
                             port=port)
            assert res.body == f"of {label}".encode()
            if planted != res.body:
                assert res.cache == wanted


SHARING = COMMON + (VHOST % {
    "label": "a", "address": "127.0.0.1:@PORT@",
    "name": "ServerName a.test", "own": "@OWNA@"}) + (VHOST % {
        "label": "b", "address": "127.0.0.2:@PORT@",
        "name": "ServerName b.test", "own": "@OWNB@"})


def sharing(module_httpd, quick, one, two):
    stores = (f"CachemwStore pages {settings.store}\n"
              "CachemwProvider pages\nCacheEnable cachemw /\n")
    return module_httpd(SHARING.replace("@STORES@", stores),
                        {"QUICK": quick, "OWNA": one, "OWNB": two})


def ask_both(server, origin, page):
    """The same address of both virtual hosts, as two mirrors of one site"""
    for label in "ab":
        origin.page(f"/{label}{page}", f"of {label}".encode())
    host = f"mirror.test:{server.ports[0]}"
    return [server.get(page, host=host, ip=ip).body
            for ip in ("127.0.0.1", "127.0.0.2")]


def test_virtual_hosts_with_one_namespace_share_their_pages(
        module_httpd, origin, path, quick):
    server = sharing(module_httpd, quick, "CachemwNamespace mirrors",
                     "CachemwNamespace mirrors")
    assert ask_both(server, origin, path()) == [b"of a", b"of a"]


def test_virtual_hosts_with_two_namespaces_do_not(module_httpd, origin, path,
                                                  quick):
    server = sharing(module_httpd, quick, "CachemwNamespace mirror-a",
                     "CachemwNamespace mirror-b")
    assert ask_both(server, origin, path()) == [b"of a", b"of b"]


def test_namespace_of_the_main_server_is_not_inherited(
        module_httpd, origin, path, quick):
    server = sharing(module_httpd, quick, "", "")
    assert ask_both(server, origin, path()) == [b"of a", b"of b"]
    conf = "CachemwNamespace everybody\n" + SHARING.replace(
        "@STORES@", f"CachemwProvider {settings.store}\n"
        "CacheEnable cachemw /\n")
    server = module_httpd(conf, {"QUICK": quick, "OWNA": "", "OWNB": ""})
    assert ask_both(server, origin, path()) == [b"of a", b"of b"]


def test_change_on_one_virtual_host_is_not_one_on_the_other(
        module_httpd, origin, path, quick):
    server = module_httpd(configuration("by-address", "one-named"),
                          {"QUICK": quick})
    page = path()
    for label in "ab":
        origin.page(f"/{label}{page}", label.encode(), etag='"v1"')
    host = f"same.test:{server.ports[0]}"
    for ip in ("127.0.0.1", "127.0.0.2"):
        server.get(page, host=host, ip=ip)
    server.ask("POST", page, body=b"x", host=host, ip="127.0.0.1")
    assert server.get(page, host=host, ip="127.0.0.2").cache == "HIT"
    assert server.get(page, host=host, ip="127.0.0.1").cache != "HIT"


def test_hosts_that_cannot_be_told_apart_are_named_in_the_log(httpd, path,
                                                              origin, quick):
    conf = COMMON.replace("@STORES@", "CacheEnable cachemw /")
    for label in "ab":
        conf += VHOST % {"label": label, "address": "*:@PORT@",
                         "name": "ServerName twin.test", "own": ""}
    server = httpd(conf, {"QUICK": quick})
    said = [x for x in server.log().splitlines() if "twin.test" in x
            or "the same ServerName" in x]
    assert len([x for x in said if "CachemwNamespace" in x]) >= 1, said
    page = path()
    origin.page("/a" + page, b"x")
    host = f"twin.test:{server.ports[0]}"
    assert [server.get(page, host=host).cache for _ in range(2)] == ["MISS",
                                                                    "HIT"]
