# SPDX-License-Identifier: Apache-2.0
"""Somebody saved a change: nobody sees the old page as if it were current."""

import pytest

from harness import Gate, Reply
from harness.origin import cacheable

pytestmark = [pytest.mark.mpm, pytest.mark.store]

METHODS = ["POST", "PUT", "DELETE"]


def page_and_form(origin, page, reply, answer=Reply(b"saved")):
    """REPLY for those who read, ANSWER for those who write."""
    origin.on(page, lambda req: reply if req.method in ("GET", "HEAD")
              else answer)


@pytest.mark.parametrize("method", METHODS)
def test_change_makes_the_page_be_asked_for_again(site, origin, path, method):
    page = path()
    page_and_form(origin, page, cacheable(b"old", etag='"v1"'))
    assert [site.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    res = site.ask(method, page, body=b"change")
    assert (res.status, res.body) == (200, b"saved")
    page_and_form(origin, page, cacheable(b"new", etag='"v2"'))
    res = site.get(page)
    assert res.body == b"new"
    res = site.get(page)
    assert (res.cache, res.body) == ("HIT", b"new")


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_success_counts_as_a_change(site, origin, path, status):
    page = path()
    page_and_form(origin, page, cacheable(b"old", etag='"v1"'),
                  Reply(b"" if status == 204 else b"ok", status=status))
    site.get(page)
    assert site.ask("POST", page, body=b"x").status == status
    assert site.get(page).cache in ("REVALIDATE", "MISS")


@pytest.mark.parametrize("status", [302, 303, 400, 403, 409, 500, 503])
def test_failed_change_leaves_the_page_alone(site, origin, path, status):
    page = path()
    page_and_form(origin, page, cacheable(b"old"),
                  Reply(b"no", status=status))
    site.get(page)
    assert site.ask("POST", page, body=b"x").status == status
    res = site.get(page)
    assert (res.cache, res.body) == ("HIT", b"old")
    assert len([r for r in origin.requests(page) if r.method == "GET"]) == 1


def test_change_of_a_page_nobody_cached_is_harmless(site, origin, path):
    page = path()
    page_and_form(origin, page, cacheable(b"page"))
    for method in METHODS:
        assert site.ask(method, page, body=b"x").status == 200
    assert [site.get(page).cache for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("size", [4, 200000])
def test_unchanged_page_is_kept_with_headers_and_body(site, origin, path,
                                                      size):
    """After the change the origin says 304: nothing was lost meanwhile."""
    page, body = path(), b"keep" * (size // 4)
    page_and_form(origin, page, cacheable(
        body, etag='"v1"', headers=[("Content-Type", "text/x-odd"),
                                    ("X-Mark", "m")]))
    site.get(page)
    site.ask("POST", page, body=b"x")
    res = site.get(page)
    assert res.cache == "REVALIDATE"
    assert origin.last(page).get("If-None-Match") == '"v1"'
    for res in (res, site.get(page)):
        assert (res.status, res.body) == (200, body)
        assert res.get("Content-Type") == "text/x-odd"
        assert res.get("X-Mark") == "m"
        assert res.get("ETag") == '"v1"'
    assert site.get(page).cache == "HIT"


def test_all_languages_are_changed_not_only_the_writers(site, origin, path):
    page, version = path(), [1]

    def localised(req):
        if req.method == "POST":
            return Reply(b"saved")
        lang = req.get("Accept-Language") or "none"
        return cacheable(b"%s %d" % (lang.encode(), version[0]),
                         headers=[("Vary", "Accept-Language")],
                         etag=f'"{lang}{version[0]}"')

    origin.on(page, localised)
    languages = [[("Accept-Language", x)] for x in ("de", "fr", "el")] + [[]]
    for lang in languages:
        assert [site.get(page, lang).cache for _ in range(2)] == ["MISS",
                                                                  "HIT"]
    version[0] = 2
    assert site.ask("POST", page, [("Accept-Language", "tlh")],
                    body=b"x").status == 200
    for lang in languages:
        res = site.get(page, lang)
        assert res.cache != "HIT" and res.body.endswith(b" 2"), res
        res = site.get(page, lang)
        assert res.cache == "HIT" and res.body.endswith(b" 2"), res


def test_all_languages_are_kept_for_revalidation(site, origin, path):
    page = path()

    def localised(req):
        if req.method == "POST":
            return Reply(b"saved")
        lang = req.get("Accept-Language")
        return cacheable(lang.encode(), headers=[("Vary", "Accept-Language"),
                                                 ("X-Lang", lang)],
                         etag=f'"{lang}"')

    origin.on(page, localised)
    for lang in ("de", "fr"):
        site.get(page, [("Accept-Language", lang)])
    site.ask("POST", page, body=b"x")
    for wanted in ("REVALIDATE", "HIT"):
        for lang in ("de", "fr"):
            res = site.get(page, [("Accept-Language", lang)])
            assert (res.cache, res.text) == (wanted, lang.encode())
            assert res.get("X-Lang") == lang


def test_changed_page_still_covers_a_failing_application(site, origin, path):
    page = path()
    page_and_form(origin, page, cacheable(b"old", etag='"v1"'))
    site.get(page)
    site.ask("POST", page, body=b"x")
    origin.on(page, Reply(b"sorry", status=503))
    for _ in range(2):
        res = site.get(page)
        assert (res.status, res.body) == (200, b"old")
        assert "111" in res.get("Warning")


def test_two_changes_in_a_row(site, origin, path):
    page = path()
    page_and_form(origin, page, cacheable(b"old", etag='"v1"'))
    for _ in range(3):
        site.get(page)
        site.ask("POST", page, body=b"x")
        site.ask("PUT", page, body=b"x")
        assert site.get(page).cache == "REVALIDATE"
        assert site.get(page).cache == "HIT"


def test_other_pages_are_not_touched(site, origin, path):
    page, other = path("one"), path("two")
    page_and_form(origin, page, cacheable(b"one"))
    page_and_form(origin, other, cacheable(b"two"))
    page_and_form(origin, page + "?q=1", cacheable(b"three"))
    for target in (page, other, page + "?q=1"):
        site.get(target)
    site.ask("POST", page, body=b"x")
    assert site.get(page).cache != "HIT"
    assert site.get(other).cache == "HIT"
    assert site.get(page + "?q=1").cache == "HIT"


@pytest.mark.parametrize("vary", [False, True], ids=["plain", "vary"])
@pytest.mark.parametrize("cached", [False, True], ids=["cold", "stale"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_page_read_before_the_change_is_not_stored_after_it(
        site, origin, path, framing, cached, vary):
    """A GET begins, the change happens, then the GET's old page arrives: it
    may be shown to its visitor but not to the next."""
    page, gate = path(), Gate()
    more = {"headers": [("Vary", "X-Kind")]} if vary else {}
    if cached:
        page_and_form(origin, page, cacheable(b"oldest", 0, **more))
        site.get(page)
    page_and_form(origin, page, cacheable(
        [b"before ", gate, b"the change"], framing=framing,
        length=17 if framing == "length" else None, **more))
    with site.connect() as early:
        early.send("GET", page, [("Connection", "close")])
        gate.wait_reached()
        page_and_form(origin, page, cacheable(b"after", **more))
        assert site.ask("POST", page, body=b"x").status == 200
        gate.open()
        res = early.response()
        assert res.complete and res.body == b"before the change"
        assert early.is_closed()
    res = site.get(page)
    assert (res.cache, res.body) == ("MISS", b"after")
    res = site.get(page)
    assert (res.cache, res.body) == ("HIT", b"after")


def test_late_304_does_not_undo_a_change(site, origin, path):
    """A revalidation begun before the change ends after it."""
    page, gate = path(), Gate()
    page_and_form(origin, page, cacheable(b"old", 0, etag='"v1"'))
    site.get(page)
    page_and_form(origin, page, Reply(
        status=304, gate=gate, headers=[("Cache-Control", "max-age=60"),
                                        ("ETag", '"v1"')]))
    with site.connect() as early:
        early.send("GET", page)
        gate.wait_reached()
        page_and_form(origin, page, cacheable(b"new", etag='"v2"'))
        assert site.ask("POST", page, body=b"x").status == 200
        gate.open()
        assert early.response().body == b"old"
    assert site.get(page).body == b"new"


@pytest.mark.parametrize("header", ["Location", "Content-Location"])
def test_answer_to_a_form_names_the_changed_page(origin, path, httpd, quick,
                                                 header):
    """mod_cache looks at these when the form was asked for with an absolute
    address; the form itself is in no cache."""
    from conftest import SITE, provider_conf
    enable = provider_conf(enable='"http://cachemw.test:@PORT@/"')
    own = httpd(SITE, {"QUICK": quick, "PROVIDER": enable})
    base = f"http://cachemw.test:{own.ports[0]}"
    form, page = path("form"), path("page")
    origin.page(page, b"old", etag='"v1"')
    origin.on(form, Reply(b"saved", [(header, base + page)]))
    assert [own.get(base + page).cache for _ in range(2)] == ["MISS", "HIT"]
    assert own.ask("POST", base + form, body=b"x").status == 200
    assert own.get(base + page).cache == "REVALIDATE"
