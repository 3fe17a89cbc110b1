# SPDX-License-Identifier: Apache-2.0
"""An application that is down: visitors get the last good page, and only
where that is allowed."""

import pytest

from harness import Reply
from harness.origin import cacheable

pytestmark = [pytest.mark.mpm, pytest.mark.store]

BODIES = [b"good", b"good " * 60000]


@pytest.mark.parametrize("body", BODIES, ids=["small", "large"])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_last_good_page_covers_a_failing_application(site, origin, path,
                                                     status, body):
    page = path()
    origin.page(page, body, 0, etag='"v1"',
                headers=[("Content-Type", "text/x-odd"), ("X-Mark", "m")])
    site.get(page)
    origin.on(page, Reply(b"sorry", status=status))
    for _ in range(3):
        res = site.get(page)
        assert (res.status, res.body) == (200, body)
        assert res.complete
        assert res.get("Content-Type") == "text/x-odd"
        assert res.get("X-Mark") == "m"
        assert "111" in res.get("Warning")
    origin.on(page, cacheable(body, etag='"v1"'))
    assert site.get(page).cache == "REVALIDATE"
    res = site.get(page)
    assert (res.cache, res.body, res.get("Warning")) == ("HIT", body, None)


@pytest.mark.parametrize("body", BODIES, ids=["small", "large"])
def test_last_good_page_covers_a_machine_that_is_down(site, flaky, path,
                                                      body):
    page = path("page", "flaky")
    flaky.page(page, body, 0, headers=[("Content-Type", "text/x-odd")])
    site.get(page)
    flaky.close()
    try:
        for _ in range(3):
            res = site.get(page)
            assert (res.status, res.body) == (200, body)
            assert res.complete
            assert res.get("Content-Type") == "text/x-odd"
            assert "111" in res.get("Warning")
        assert site.get(path("never", "flaky")).status == 503
    finally:
        flaky.listen()
    flaky.page(page, b"back")
    assert site.get(page).body == b"back"
    assert site.get(page).cache == "HIT"


def test_last_good_page_covers_an_origin_that_hangs_up(site, origin, path):
    page = path()
    origin.page(page, b"good", 0, etag='"v1"')
    site.get(page)
    origin.on(page, Reply(cut=True))
    res = site.get(page)
    assert (res.status, res.body) == (200, b"good")


@pytest.mark.parametrize("control", ["must-revalidate", "proxy-revalidate"])
def test_page_that_must_be_revalidated_is_never_served_stale(site, origin,
                                                             path, control):
    page = path()
    origin.on(page, Reply(b"good", [("Cache-Control",
                                     f"max-age=0, {control}")], etag='"v1"'))
    site.get(page)
    origin.on(page, Reply(b"sorry", status=503))
    res = site.get(page)
    assert (res.status, res.body) == (503, b"sorry")


def test_must_revalidate_page_is_not_served_by_a_machine_that_is_down(
        site, flaky, path):
    page = path("page", "flaky")
    flaky.on(page, Reply(b"good", [("Cache-Control",
                                    "max-age=0, must-revalidate")],
                         etag='"v1"'))
    site.get(page)
    flaky.close()
    try:
        assert site.get(page).status == 503
    finally:
        flaky.listen()


def test_error_is_shown_when_stale_pages_are_not_wanted(site, origin, path):
    page = path("page", "nostale")
    origin.page(page, b"good", 0, etag='"v1"')
    site.get(page)
    origin.on(page, Reply(b"sorry", status=503))
    for _ in range(2):
        res = site.get(page)
        assert (res.status, res.body) == (503, b"sorry")
    origin.page(page, b"back")
    assert [site.get(page).body for _ in range(2)] == [b"back"] * 2
    assert site.get(page).cache == "HIT"


def test_fresh_page_does_not_need_the_application(site, flaky, path):
    page = path("page", "flaky")
    flaky.page(page, b"good")
    site.get(page)
    flaky.close()
    try:
        res = site.get(page)
        assert (res.cache, res.body) == ("HIT", b"good")
        assert res.get("Warning") is None
    finally:
        flaky.listen()


def test_range_and_head_of_a_stale_page_while_the_application_fails(
        site, origin, path):
    page, body = path(), bytes(range(256)) * 300
    origin.page(page, body, 0, etag='"v1"')
    site.get(page)
    origin.on(page, Reply(b"sorry", status=500))
    with site.connect() as conn:
        head = conn.ask("HEAD", page)
        assert (head.status, head.body) == (200, b"")
        res = conn.get(page, [("Range", "bytes=10-19")])
        assert (res.status, res.body) in ((206, body[10:20]), (200, body))
        assert conn.get(page).body == body
