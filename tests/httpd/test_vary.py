# SPDX-License-Identifier: Apache-2.0
"""Pages that come in several forms: each visitor gets the right one, and
visitors who want the same share it."""

import gzip
import itertools

import pytest

from conftest import SITE, provider_conf
from harness import Reply, settings
from harness.origin import cacheable

pytestmark = [pytest.mark.store]

TEXT = b"some text that can be compressed " * 200
ZIPPED = gzip.compress(TEXT, mtime=0)


def by_header(*names, age=60, **more):
    """A page whose body tells the values the origin saw."""
    def answer(req):
        seen = "|".join("&".join(req.all(n)) if req.all(n) else "-"
                        for n in names)
        return cacheable(seen.encode("latin-1"), age,
                         headers=[("Vary", ", ".join(names))], **more)
    return answer


def wants_gzip(value):
    for item in (value or "").lower().replace(" ", "").split(","):
        name, _, q = item.partition(";q=")
        if name in ("gzip", "x-gzip"):
            return float(q or 1) > 0
    return False


def negotiated(req):
    """An application that compresses for who wants it."""
    zipped = wants_gzip(req.get("Accept-Encoding"))
    headers = [("Vary", "Accept-Encoding"), ("Content-Type", "text/plain")]
    if zipped:
        headers.append(("Content-Encoding", "gzip"))
    return cacheable(ZIPPED if zipped else TEXT, headers=headers)


# ---- the right page for each -------------------------------------------------

@pytest.mark.mpm
def test_two_languages_are_two_pages(site, origin, path):
    page = path()
    origin.on(page, by_header("Accept-Language"))
    for wanted in ("MISS", "HIT", "HIT"):
        for lang in ("de", "fr", "de, fr;q=0.5"):
            res = site.get(page, [("Accept-Language", lang)])
            assert (res.cache, res.text) == (wanted, lang.encode())
        res = site.get(page)
        assert (res.cache, res.text) == (wanted, b"-")
    assert origin.count(page) == 4


def test_header_that_is_missing_is_not_one_that_is_empty_elsewhere(
        site, origin, path):
    page = path()
    origin.on(page, by_header("X-A", "X-B"))
    asks = [[], [("X-A", "1")], [("X-B", "1")], [("X-A", "1"), ("X-B", "1")]]
    for wanted in ("MISS", "HIT"):
        for ask in asks:
            seen = dict(ask)
            body = f"{seen.get('X-A', '-')}|{seen.get('X-B', '-')}"
            res = site.get(page, ask)
            assert (res.cache, res.text) == (wanted, body.encode())


@pytest.mark.parametrize("pairs", [
    ([("X-A", "ab"), ("X-B", "c")], [("X-A", "a"), ("X-B", "bc")]),
    ([("X-A", "1"), ("X-B", "")], [("X-A", ""), ("X-B", "1")]),
    ([("X-A", "x"), ("X-B", "-")], [("X-A", "x")]),
    ([("X-A", "aX-Bb")], [("X-A", "a"), ("X-B", "b")]),
    ([("X-A", "a\tX-B: b")], [("X-A", "a"), ("X-B", "b")]),
    ([("X-A", "a|b"), ("X-B", "c")], [("X-A", "a"), ("X-B", "b|c")]),
    ([("X-A", "a,b")], [("X-A", "a"), ("X-B", ",b")]),
    ([("X-A", '"a')], [("X-A", '"a"')])])
def test_values_never_run_into_each_other(site, origin, path, pairs):
    page = path()
    origin.on(page, by_header("X-A", "X-B"))
    for wanted in ("MISS", "HIT"):
        for ask in pairs:
            seen = dict(ask)
            body = f"{seen.get('X-A', '-')}|{seen.get('X-B', '-')}"
            res = site.get(page, ask)
            assert (res.cache, res.text) == (wanted, body.encode("latin-1"))


def test_all_lines_of_a_repeated_header_count(site, origin, path):
    page = path()
    origin.on(page, by_header("X-A"))
    one = [("X-A", "a"), ("X-A", "b")]
    two = [("X-A", "a"), ("X-A", "c")]
    three = [("X-A", "a")]
    for ask in (one, two, three):
        assert site.get(page, ask).cache == "MISS"
    for ask, body in ((one, b"a&b"), (two, b"a&c"), (three, b"a")):
        res = site.get(page, ask)
        assert res.cache == "HIT"
        assert res.text.replace(b", ", b"&") == body


def test_case_of_values_matters_where_nobody_said_it_does_not(site, origin,
                                                              path):
    page = path()
    origin.on(page, by_header("X-Token"))
    for value in ("abc", "ABC", "Abc"):
        res = site.get(page, [("X-Token", value)])
        assert (res.cache, res.text) == ("MISS", value.encode())


def test_every_visitors_cookie_has_its_own_page(site, origin, path):
    page = path()
    origin.on(page, by_header("Cookie"))
    for wanted in ("MISS", "HIT"):
        for user in ("alice", "bob", "alice2"):
            res = site.get(page, [("Cookie", f"session={user}; x=y")])
            assert res.cache == wanted
            assert res.text == f"session={user}; x=y".encode()
    res = site.get(page)
    assert (res.cache, res.text) == ("MISS", b"-")


@pytest.mark.mpm
@pytest.mark.parametrize("value", ["*", "Accept, *", "*, Accept"])
def test_page_that_varies_on_everything_is_never_shared(site, origin, path,
                                                        value):
    page, number = path(), itertools.count(1)
    origin.on(page, lambda req: cacheable(b"%d" % next(number),
                                          headers=[("Vary", value)]))
    for n in (b"1", b"2", b"3"):
        res = site.get(page)
        assert (res.cache, res.text) == ("MISS", n)


def test_star_in_a_second_vary_line_is_never_shared(site, origin, path):
    page, number = path(), itertools.count(1)
    origin.on(page, lambda req: cacheable(
        b"%d" % next(number), headers=[("Vary", "Accept"), ("Vary", "*")]))
    for n in (b"1", b"2", b"3"):
        assert site.get(page).text == n


@pytest.mark.parametrize("vary", ["*", "Accept, *", "Accept\nVary: *"])
def test_star_of_a_local_script_is_obeyed(site, path, vary):
    """What scripts say stands where mod_cache itself does not look for it."""
    page = path("page", "local/asis")
    for number in (b"1", b"2", b"3"):
        site.file(page, b"Status: 200\nCache-Control: max-age=60\nVary: "
                  + vary.encode() + b"\n\n" + number)
        res = site.get(page)
        assert (res.cache, res.body) == ("MISS", number)
        assert "*" in res.get("Vary")


def test_several_vary_lines_all_count(site, origin, path):
    page = path()
    origin.on(page, lambda req: cacheable(
        f"{req.get('X-A')} {req.get('X-B')}".encode(),
        headers=[("Vary", "X-A"), ("Vary", "X-B")]))
    for wanted in ("MISS", "HIT"):
        for a, b in itertools.product("12", "12"):
            res = site.get(page, [("X-A", a), ("X-B", b)])
            assert (res.cache, res.text) == (wanted, f"{a} {b}".encode())


def test_order_and_case_of_vary_do_not_matter(site, origin, path):
    page, form = path(), [0]
    forms = ["X-A, X-B", "x-b ,x-a", "X-B,X-A,X-A", " X-A ,, X-B ,"]

    def answer(req):
        form[0] += 1
        return cacheable(b"%d" % form[0],
                         headers=[("Vary", forms[form[0] % len(forms)])])

    origin.on(page, answer)
    asks = [[("X-A", "1"), ("X-B", str(i))] for i in range(4)]
    bodies = [site.get(page, ask).text for ask in asks]
    for ask, body in zip(asks, bodies):
        res = site.get(page, ask)
        assert (res.cache, res.text) == ("HIT", body)


# ---- what the page varies on changes -----------------------------------------

def test_page_that_begins_to_vary_forgets_the_common_one(site, origin, path):
    page = path()
    origin.page(page, b"for all", 0)
    site.get(page, [("X-A", "1")])
    origin.on(page, by_header("X-A"))
    for value in ("1", "2"):
        res = site.get(page, [("X-A", value)])
        assert res.text == value.encode()
    for value in ("1", "2"):
        res = site.get(page, [("X-A", value)])
        assert (res.cache, res.text) == ("HIT", value.encode())


def test_page_that_stops_varying_is_shared_by_all(site, origin, path):
    page = path()
    origin.on(page, by_header("X-A", age=0))
    site.get(page, [("X-A", "1")])
    site.get(page, [("X-A", "2")])
    origin.page(page, b"for all")
    assert site.get(page, [("X-A", "3")]).text == b"for all"
    for value in ("1", "2", "3", "4"):
        res = site.get(page, [("X-A", value)])
        assert (res.cache, res.text) == ("HIT", b"for all")


def test_page_that_varies_on_something_else(site, origin, path):
    page = path()
    origin.on(page, by_header("X-A"))
    asks = [[("X-A", a), ("X-B", b)] for a in "12" for b in "12"]
    for ask in asks:
        assert site.get(page, ask).text == ask[0][1].encode()
    origin.on(page, by_header("X-B"))
    for ask in asks:
        site.get(page, ask + [("Cache-Control", "no-cache")])
    for ask in asks:
        res = site.get(page, ask)
        assert (res.cache, res.text) == ("HIT", ask[1][1].encode())


def test_304_that_changes_what_the_page_varies_on(site, origin, path):
    page = path()
    origin.on(page, lambda req: cacheable(
        (req.get("X-A") or "-").encode(), 0, etag=f'"{req.get("X-A")}"',
        headers=[("Vary", "X-A")],
        headers_304=[("Cache-Control", "max-age=60"), ("Vary", "X-A, X-B")]))
    for value in ("1", "2"):
        site.get(page, [("X-A", value)])
    for _ in range(3):
        for value in ("1", "2"):
            res = site.get(page, [("X-A", value), ("X-B", "z")])
            assert (res.status, res.text) == (200, value.encode())


@pytest.mark.mpm
def test_forms_are_revalidated_one_by_one(site, origin, path):
    page = path()

    def answer(req):
        lang = req.get("Accept-Language")
        return cacheable(lang.encode() * 9, 0, etag=f'"{lang}"',
                         headers=[("Vary", "Accept-Language")],
                         headers_304=[("Cache-Control", "max-age=60"),
                                      ("Vary", "Accept-Language")])

    origin.on(page, answer)
    for wanted in ("MISS", "REVALIDATE", "HIT", "HIT"):
        for lang in ("de", "fr", "el"):
            res = site.get(page, [("Accept-Language", lang)])
            assert (res.cache, res.text) == (wanted, lang.encode() * 9)
            assert res.get("ETag") == f'"{lang}"'
    assert origin.count(page) == 6


def test_forms_are_replaced_one_by_one(site, origin, path):
    page, version = path(), {"de": 1, "fr": 1}

    def answer(req):
        lang = req.get("Accept-Language")
        return cacheable(f"{lang} {version[lang]}".encode(), 0,
                         headers=[("Vary", "Accept-Language")])

    origin.on(page, answer)
    for lang in version:
        site.get(page, [("Accept-Language", lang)])
    version["de"] = 2
    assert site.get(page, [("Accept-Language", "de")]).text == b"de 2"
    assert site.get(page, [("Accept-Language", "fr")]).text == b"fr 1"
    origin.on(page, Reply(b"sorry", status=503))
    assert site.get(page, [("Accept-Language", "de")]).text == b"de 2"
    assert site.get(page, [("Accept-Language", "fr")]).text == b"fr 1"
    assert site.get(page, [("Accept-Language", "el")]).status == 503


# ---- Accept-Encoding ---------------------------------------------------------

GZIP_SPELLINGS = ["gzip", "GZIP", "gzip;q=1.0", "gzip ; q=0.8", "x-gzip",
                  "gzip, deflate", "deflate,gzip;q=0.5", "gzip,identity;q=0.1"]


@pytest.mark.mpm
def test_eight_spellings_of_one_wish_are_one_page(site, origin, path):
    page = path()
    origin.on(page, negotiated)
    for first, ask in enumerate(GZIP_SPELLINGS):
        res = site.get(page, [("Accept-Encoding", ask)])
        assert res.cache == ("HIT" if first else "MISS"), ask
        assert (res.get("Content-Encoding"), res.text) == ("gzip", TEXT)
    assert origin.count(page) == 1


def test_spellings_in_several_lines_are_the_same_page(site, origin, path):
    page = path()
    origin.on(page, negotiated)
    site.get(page, [("Accept-Encoding", "gzip, br")])
    for ask in ([("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")],
                [("Accept-Encoding", "br;q=0.1,gzip")]):
        assert site.get(page, ask).cache == "HIT"
    assert origin.count(page) == 1


def test_made_up_codings_push_no_page_out(site, origin, path):
    page = path()
    zipped = [("Accept-Encoding", "gzip")]
    origin.on(page, negotiated)
    site.get(page, zipped)
    for n in range(40):
        res = site.get(page, [("Accept-Encoding", f"made-up-{n}")])
        assert (res.get("Content-Encoding"), res.text) == (None, TEXT)
    assert site.get(page, zipped).cache == "HIT"
    assert origin.count(page) == 2


REFUSALS = [None, "", "identity", "gzip;q=0", "gzip; q=0.000", "br", "*;q=0",
            "GZIP;Q=0", "x-gzip;q=0", "deflate"]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("order", ["zipped-first", "plain-first"])
def test_nobody_gets_a_coding_that_he_refuses(site, origin, path, refusal,
                                              order):
    page = path()
    origin.on(page, negotiated)
    plain = [] if refusal is None else [("Accept-Encoding", refusal)]
    zipped = [("Accept-Encoding", "gzip")]
    asks = [zipped, plain] if order == "zipped-first" else [plain, zipped]
    for ask in asks * 2:
        res = site.get(page, ask)
        assert res.text == TEXT
        if ask is plain:
            assert res.get("Content-Encoding") is None
    assert site.get(page, zipped).cache == "HIT"


def test_several_wishes_with_one_refusal_inside(site, origin, path):
    """Acceptable codings are compared as sets, so what is sent must still be
    acceptable to this very visitor."""
    page = path()

    origin.on(page, negotiated)
    assert site.get(page, [("Accept-Encoding", "br, gzip")]).text == TEXT
    res = site.get(page, [("Accept-Encoding", "br, gzip;q=0")])
    assert res.get("Content-Encoding") is None
    assert res.text == TEXT
    res = site.get(page, [("Accept-Encoding", "*, gzip;q=0")])
    assert res.get("Content-Encoding") is None


@pytest.mark.parametrize("more", ["deflate", "exi", "x-odd"])
def test_coding_that_few_know_is_sent_only_to_them(site, origin, path, more):
    """Who names gzip counts as one who wants gzip, whatever else he names; the
    origin may have chosen the other."""
    page = path()

    def rare(req):
        coding = more if more in req.get("Accept-Encoding") else None
        return cacheable(TEXT, headers=[("Vary", "Accept-Encoding")] + (
            [("Content-Encoding", coding)] if coding else []))

    origin.on(page, rare)
    for _ in range(2):
        for ask, coding in ((f"gzip, {more}", more), ("gzip", None),
                            ("gzip;q=0.5", None)):
            res = site.get(page, [("Accept-Encoding", ask)])
            assert res.get("Content-Encoding") in (None, coding), ask


def test_encoding_and_language_together(site, origin, path):
    page = path()

    def answer(req):
        res = negotiated(req)
        lang = req.get("Accept-Language") or "-"
        return res.with_(headers=res.headers + [("Vary", "Accept-Language"),
                                                ("X-Lang", lang)])

    origin.on(page, answer)
    for wanted in ("MISS", "HIT"):
        for lang in ("de", "fr"):
            for enc in ("gzip", "identity"):
                ask = [("Accept-Encoding", enc), ("Accept-Language", lang)]
                res = site.get(page, ask)
                assert (res.cache, res.get("X-Lang"), res.text) == (
                    wanted, lang, TEXT)
                assert (res.get("Content-Encoding") == "gzip") == (
                    enc == "gzip")
    # another spelling of a known wish finds the same page
    assert site.get(page, [("Accept-Encoding", "GZip;q=0.9"),
                           ("Accept-Language", "de")]).cache == "HIT"


# ---- bounds ------------------------------------------------------------------

def test_a_page_has_at_most_max_variants_forms(module_httpd, origin, path,
                                               quick):
    own = module_httpd(SITE, {"QUICK": quick, "PROVIDER": provider_conf(
        settings.store + " max_variants=4")})
    page = path()
    origin.on(page, by_header("X-A"))
    for i in range(12):
        assert own.get(page, [("X-A", f"{i}")]).text == b"%d" % i
    kept = []
    for i in range(12):
        before = origin.count(page)
        res = own.get(page, [("X-A", f"{i}"),
                             ("Cache-Control", "only-if-cached")])
        assert origin.count(page) == before
        if res.status == 200:
            assert res.text == b"%d" % i
            kept.append(i)
    assert 1 <= len(kept) <= 4
    assert 11 in kept, "the newest form is not among the kept ones"


def test_flood_of_forms_leaves_other_pages_alone(site, origin, path):
    page, other = path("flood"), path("other")
    origin.page(other, b"other")
    site.get(other)
    origin.on(page, by_header("User-Agent"))
    for i in range(100):
        assert site.get(page, [("User-Agent", f"bot {i}")]).text == \
            b"bot %d" % i
    assert site.get(page, [("User-Agent", "bot 99")]).cache == "HIT"
    assert site.get(other).cache == "HIT"


def test_a_page_may_vary_on_many_and_long_headers(site, origin, path):
    page = path()
    names = [f"X-Field-{i}" for i in range(20)]
    origin.on(page, by_header(*names))
    ask = [(n, "v" * 300 + n) for n in names]
    other = ask[:-1] + [(names[-1], "w")]
    for wanted in ("MISS", "HIT"):
        for one in (ask, other):
            res = site.get(page, one)
            assert res.cache == wanted
            assert res.text == "|".join(v for _, v in one).encode()
