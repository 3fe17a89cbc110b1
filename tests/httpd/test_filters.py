# SPDX-License-Identifier: Apache-2.0
"""The cache together with what else makes a page: compression, includes,
directory indexes, rewriting, error documents."""

import re

import pytest

from harness import Reply
from harness.origin import cacheable

pytestmark = [pytest.mark.mpm, pytest.mark.store]

TEXT = b"text that compresses well, line after line\n" * 3000
PLAIN = [("Content-Type", "text/plain")]
GZIP = [("Accept-Encoding", "gzip")]


# ---- compression -------------------------------------------------------------

@pytest.mark.parametrize("area", ["deflate", "bytype"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_compressed_page_is_cached_for_those_who_want_it(site, origin, path,
                                                         area, framing):
    page = path("page", area)
    origin.page(page, TEXT if framing == "length" else [TEXT[:9], TEXT[9:]],
                headers=PLAIN, framing=framing)
    for wanted in ("MISS", "HIT", "HIT"):
        for ask in (GZIP, []):
            res = site.get(page, ask)
            assert res.complete and res.cache == wanted
            assert (res.get("Content-Encoding") == "gzip") == bool(ask)
            assert res.text == TEXT
            assert "Accept-Encoding" in res.get("Vary")
    assert origin.count(page) == 2


def test_compressed_page_is_compressed_once(site, origin, path):
    """The stored bytes are sent; compressing again would change nothing but
    the processor's load, so the body must be the same, byte for byte."""
    page = path("page", "deflate")
    origin.page(page, TEXT, headers=PLAIN)
    bodies = {site.get(page, GZIP).body for _ in range(4)}
    assert len(bodies) == 1
    res = site.get(page, GZIP)
    assert res.cache == "HIT"
    assert res.get("Content-Length") == str(len(res.body))


def test_compressed_page_survives_a_304(site, origin, path):
    page = path("page", "deflate")
    origin.page(page, TEXT, 0, headers=PLAIN, modified=1.7e9,
                headers_304=[("Cache-Control", "max-age=60")])
    for wanted in ("MISS", "REVALIDATE", "HIT", "HIT"):
        for ask in (GZIP, []):
            res = site.get(page, ask)
            assert (res.status, res.cache) == (200, wanted)
            assert (res.get("Content-Encoding") == "gzip") == bool(ask)
            assert res.text == TEXT


def test_compressed_page_is_replaced(site, origin, path):
    page = path("page", "deflate")
    origin.page(page, TEXT, 0, headers=PLAIN, etag='"v1"')
    for ask in (GZIP, []):
        site.get(page, ask)
    origin.page(page, TEXT[::-1], headers=PLAIN, etag='"v2"')
    for wanted in ("MISS", "HIT"):
        for ask in (GZIP, []):
            res = site.get(page, ask)
            assert (res.cache, res.text) == (wanted, TEXT[::-1])


def test_compressed_page_covers_a_failing_application(site, origin, path):
    page = path("page", "deflate")
    origin.page(page, TEXT, 0, headers=PLAIN)
    for ask in (GZIP, []):
        site.get(page, ask)
    origin.on(page, Reply(b"sorry" * 100, headers=PLAIN, status=503))
    for ask in (GZIP, []):
        res = site.get(page, ask)
        assert (res.status, res.text) == (200, TEXT)


def test_part_of_a_compressed_page(site, origin, path):
    page = path("page", "deflate")
    origin.page(page, TEXT, headers=PLAIN)
    whole = site.get(page, GZIP).body
    res = site.get(page, GZIP + [("Range", "bytes=10-19")])
    assert (res.status, res.body) == (206, whole[10:20])
    res = site.get(page, [("Range", "bytes=10-19")])
    assert res.text in (TEXT[10:20], TEXT)


@pytest.mark.parametrize("size", [0, 1, 30, 500000])
def test_page_that_is_compressed_on_its_way_from_the_cache(slow_site, origin,
                                                           path, size):
    """SetOutputFilter CACHE;DEFLATE: stored plain, compressed for each."""
    page, body = path("page", "after"), (TEXT * 4)[:size]
    origin.page(page, body, headers=PLAIN)
    for ask in (GZIP, [], GZIP, []):
        res = slow_site.get(page, ask)
        assert res.complete and res.text == body
        if size > 100:
            assert (res.get("Content-Encoding") == "gzip") == bool(ask)
    assert res.cache == "HIT"
    assert origin.count(page) == 1


def test_page_the_application_compressed_itself(site, origin, path):
    import gzip
    page, packed = path("page", "deflate"), gzip.compress(TEXT)
    origin.page(page, packed, headers=PLAIN + [
        ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")])
    for wanted in ("MISS", "HIT"):
        res = site.get(page, GZIP)
        assert (res.cache, res.body) == (wanted, packed)


# ---- includes ----------------------------------------------------------------

def ssi(site, path, text, area="ssi"):
    name = path("page.shtml", f"local/{area}")
    site.file(name, text)
    return name


def test_fragments_of_a_page_are_cached_on_their_own(site, origin, path):
    one, two = path("one"), path("two")
    origin.page(one, b"<b>1</b>")
    origin.page(two, b"<b>2</b>", framing="chunked")
    origin.on(two, Reply([b"<b>", b"2</b>"], framing="chunked",
                         headers=[("Cache-Control", "max-age=60")]))
    page = ssi(site, path, f'A<!--#include virtual="{one}" -->B'
               f'<!--#include virtual="{two}" -->C'
               f'<!--#include virtual="{one}" -->D')
    for _ in range(4):
        res = site.get(page)
        assert res.complete
        assert res.body == b"A<b>1</b>B<b>2</b>C<b>1</b>D"
    assert (origin.count(one), origin.count(two)) == (1, 1)
    assert site.get(one).cache == "HIT"


def test_stale_and_changing_fragments(site, origin, path):
    frag = path("frag")
    page = ssi(site, path, f'<<!--#include virtual="{frag}" -->>')
    origin.page(frag, b"one", 0, etag='"v1"',
                headers_304=[("Cache-Control", "max-age=0")])
    for _ in range(3):
        assert site.get(page).body == b"<one>"
    assert origin.count(frag) == 3
    origin.page(frag, b"second", 0, etag='"v2"')
    assert site.get(page).body == b"<second>"
    origin.on(frag, Reply(b"sorry", status=503))
    assert site.get(page).body == b"<second>"


def test_page_is_cached_with_its_fragments_inside(site, origin, path):
    frag = path("frag")
    origin.page(frag, b"one" * 30000)
    page = ssi(site, path, f'<<!--#include virtual="{frag}" -->>',
               "ssi-cached")
    first, second = site.get(page), site.get(page)
    assert (first.cache, second.cache) == ("MISS", "HIT")
    assert first.body == second.body == b"<" + b"one" * 30000 + b">"
    assert second.get("Content-Type").startswith("text/html")


def test_large_fragment_from_the_cache(site, origin, path):
    frag, body = path("frag"), TEXT * 8
    origin.page(frag, body)
    page = ssi(site, path, f'<<!--#include virtual="{frag}" -->>')
    for _ in range(3):
        res = site.get(page)
        assert res.complete and res.body == b"<" + body + b">"
    assert origin.count(frag) == 1


def test_missing_fragment_does_not_break_the_page(site, origin, path):
    page = ssi(site, path, f'<<!--#include virtual="{path("none")}" -->>')
    for _ in range(2):
        res = site.get(page)
        assert res.status == 200 and res.complete
        assert res.body.startswith(b"<") and res.body.endswith(b">")


# ---- subrequests that only look ----------------------------------------------

def test_directory_and_its_index_are_cached(site, path):
    index = path("index.html", "local")
    folder = index[:-len("index.html")]
    site.file(index, b"<p>index</p>")
    for wanted in ("MISS", "HIT", "HIT"):
        for target in (index, folder):
            res = site.get(target)
            assert (res.status, res.body) == (200, b"<p>index</p>")
            assert res.get("Content-Type").startswith("text/html")
            if target == index:
                assert res.cache == wanted
    assert site.get(folder).cache == "HIT"


def test_visitor_with_a_copy_of_the_index_asks_for_the_directory(site, path):
    index = path("index.html", "local")
    folder = index[:-len("index.html")]
    site.file(index, b"<p>index</p>")
    etag = site.get(index).get("ETag")
    for _ in range(2):
        res = site.get(folder, [("If-None-Match", etag)])
        assert res.status == 304
        res = site.get(folder, [("If-None-Match", '"other"')])
        assert (res.status, res.body) == (200, b"<p>index</p>")


def test_listing_of_a_directory_with_cached_files(site, path):
    names = [path(f"f{i}.txt", "local/listed") for i in range(5)]
    for name in names:
        site.file(name, name.encode())
        assert [site.get(name).cache for _ in range(2)] == ["MISS", "HIT"]
    folder = names[0].rsplit("/", 1)[0] + "/"
    for _ in range(2):
        res = site.get(folder)
        assert res.status == 200
        assert re.findall(rb'href="(f\d\.txt)"', res.body) == [
            b"f%d.txt" % i for i in range(5)]
    for name in names:
        res = site.get(name)
        assert (res.cache, res.body) == ("HIT", name.encode())


def test_negotiated_file_is_right_for_every_language(site, path):
    base = path("page", "local/negotiated")
    site.file(base + ".html.de", b"deutsch")
    site.file(base + ".html.fr", b"francais")
    for _ in range(3):
        for lang, body in (("de", b"deutsch"), ("fr", b"francais")):
            for target in (base, base + ".html"):
                res = site.get(target, [("Accept-Language", lang)])
                assert (res.status, res.body) == (200, body)
                assert res.get("Content-Language") == lang


def test_file_that_changed_on_disk_after_its_lifetime(site, path):
    page = path("page.txt", "local")
    site.file(page, b"old")
    site.get(page)
    site.file(page, b"changed", age=50000)
    assert site.get(page).body == b"old"        # still fresh
    res = site.get(page, [("Cache-Control", "max-age=0")])
    assert res.body == b"changed"
    assert site.get(page).body == b"changed"


# ---- rewriting and internal redirects ----------------------------------------

def test_rewritten_address_is_cached(site, origin, path):
    page = path()
    alias = page.replace("/plain/", "/rewritten/")
    origin.on(page, lambda req: cacheable(req.target.encode()))
    for wanted in ("MISS", "HIT"):
        res = site.get(alias + "?q=1")
        assert (res.cache, res.body) == (wanted, (page + "?q=1").encode())
        res = site.get(alias + "?q=2")
        assert (res.cache, res.body) == (wanted, (page + "?q=2").encode())
    assert site.get(page + "?q=1").body == (page + "?q=1").encode()


def test_rewritten_address_and_its_target_do_not_damage_each_other(
        site, origin, path):
    page = path()
    alias = page.replace("/plain/", "/rewritten/")
    origin.page(page, b"one", 0, etag='"v1"')
    for target in (alias, page, alias, page):
        res = site.get(target)
        assert (res.status, res.body) == (200, b"one")
    origin.page(page, b"two", etag='"v2"')
    for target in (alias, page, alias, page):
        assert site.get(target).body == b"two"


def test_internal_redirect_within_a_directory(site, path):
    new = path("page.txt", "local/perdir")
    old = new.replace(".txt", ".old")
    site.file(new, b"moved here")
    for _ in range(3):
        for target in (old, new):
            res = site.get(target)
            assert (res.status, res.body) == (200, b"moved here")
    assert res.cache == "HIT"


KEPT = pytest.mark.parametrize("kept", ["", "-kept"], ids=["plain", "kept"])


@KEPT
def test_error_document_never_becomes_the_page(site, origin, path, kept):
    """… nor the page's status the document's, nor the other way round."""
    doc = f"/local/words{kept}/404.html"
    page = path("page", "errordoc" + kept)
    site.file(doc, b"friendly words")
    origin.on(page, Reply(b"raw", status=404))
    for _ in range(3):
        res = site.get(page)
        assert (res.status, res.body) == (404, b"friendly words")
        res = site.get(doc)
        assert (res.status, res.body) == (200, b"friendly words")
    origin.page(page, b"now it exists")
    for _ in range(2):
        res = site.get(page)
        assert (res.status, res.body) == (200, b"now it exists")
    assert res.cache == "HIT"


@KEPT
def test_stale_page_that_ends_in_an_error_document(site, origin, path, kept):
    doc = f"/local/words{kept}/404.html"
    page = path("page", "errordoc" + kept)
    site.file(doc, b"friendly words")
    origin.page(page, b"was here", 0, etag='"v1"')
    site.get(page)
    origin.on(page, Reply(b"raw", status=404))
    for _ in range(2):
        res = site.get(page)
        assert (res.status, res.body) == (404, b"friendly words")
        assert site.get(doc).body == b"friendly words"
    origin.page(page, b"again")
    assert [site.get(page).body for _ in range(2)] == [b"again"] * 2


def test_included_page_that_includes_a_cached_one_is_whole(site, origin, path):
    """mod_cache would take the end of the innermost page for that of the one
    around it, and store what came until then."""
    part = path("part")
    origin.page(part, b"part", headers=[("Content-Type", "text/html")])
    inner, outer = (path(x, "local/ssi-cached") for x in ("i.html", "o.html"))
    twice = f'[<!--#include virtual="{part}" -->]' * 2
    site.file(inner, twice)
    site.file(outer, f'(<!--#include virtual="{inner}" -->)')
    for _ in range(3):
        assert site.get(outer).body == b"([part][part])"
        assert site.get(inner).body == b"[part][part]"
    assert site.get(inner).cache == site.get(outer).cache == "HIT"
