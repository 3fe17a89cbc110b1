# SPDX-License-Identifier: Apache-2.0
"""Web servers that share a store: a URL has the same key on all of them that
are asked for HOST, whatever their ports are."""

from .origin import noise
from .server import wait_for

HOST = "shared.test:80"


def shared(site):
    """the configuration SITE, for such a server"""
    return site.replace("ServerName cachemw.test", f"ServerName {HOST}") \
        .replace("UseCanonicalPhysicalPort on", "UseCanonicalPhysicalPort off")


def get(server, page, headers=(), **more):
    return server.get(page, headers, host=HOST, **more)


def post(server, page):
    assert server.ask("POST", page, body=b"", host=HOST).status == 200


def is_hit(server, page, body, **more):
    res = server.get(page, **more)
    assert (res.status, res.body) == (200, body)
    return res.cache == "HIT"


def assert_hit(server, page, body):
    res = get(server, page)
    assert (res.status, res.cache, res.body) == (200, "HIT", body)


def assert_hit_again(server, page, body):
    """A hit, of those that may be late on a busy machine."""
    wait_for(lambda: is_hit(server, page, body, host=HOST), "a hit again", 40)


def assert_miss(server, page, body):
    res = get(server, page)
    assert (res.status, res.cache, res.body) == (200, "MISS", body)


def store(server, origin, page, size=5000, **more):
    body = noise(size, size)
    origin.page(page, body, **more)
    assert get(server, page).body == body
    return body


def stored(server, origin, page, size=5000, **more):
    body = store(server, origin, page, size, **more)
    assert_hit(server, page, body)
    return body
