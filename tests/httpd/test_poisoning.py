# SPDX-License-Identifier: Apache-2.0
"""What one visitor or a strange origin does never becomes another's page."""

import threading

import pytest

from conftest import SITE
from harness import Gate, Reply
from harness.faults import MODULES, PIECES, STORES, write
from harness.origin import cacheable
from test_basic import noise

pytestmark = [pytest.mark.store]

# X-User is made from a cookie behind the cache's back.
KNOWN_USERS = """
SetEnvIf Cookie "sid=([a-z]+)" SID=$1
RequestHeader unset X-User
RequestHeader set X-User %{SID}e env=SID
"""


def for_user(req):
    user = req.get("X-User") or "nobody"
    headers = [("Cache-Control", "max-age=60"), ("Vary", "X-User"),
               ("X-Greeting", "hello " + user)]
    if req.get("If-None-Match"):
        return Reply(b"", headers, status=304)
    return cacheable(b"for " + user.encode(), 60, etag='"v1"',
                     headers=headers[1:])


@pytest.fixture
def users(module_httpd, quick):
    return module_httpd(SITE + KNOWN_USERS, {"QUICK": quick})


def ask_as(server, page, user, *headers):
    if user != "nobody":
        headers += (("Cookie", "sid=" + user),)
    return server.get(page, list(headers))


# ---- fields that httpd itself sets -------------------------------------------

def test_page_of_a_user_that_httpd_recognised_stays_his(users, origin, path):
    page = path()
    origin.on(page, for_user)
    for user in ("alice", "bob", "alice", "mallory"):
        assert ask_as(users, page, user).text == b"for " + user.encode()
    for _ in range(2):
        assert ask_as(users, page, "nobody").text == b"for nobody"


def test_user_who_takes_a_users_name_does_not_get_his_page(users, origin,
                                                           path):
    page = path()
    origin.on(page, for_user)
    ask_as(users, page, "alice", ("Cache-Control", "no-cache"))
    ask_as(users, page, "alice")
    for _ in range(2):
        res = ask_as(users, page, "nobody", ("X-User", "alice"))
        assert res.text == b"for nobody"


def test_user_for_whom_a_fresh_page_was_lost_keeps_his_own(
        module_httpd, origin, path):
    """Between the look at its head and the one at its body."""
    users = module_httpd(SITE + KNOWN_USERS, {
        "QUICK": "on", "PROVIDER": STORES, "KIND": "faulty", "OPTIONS": ""},
        extra=MODULES)
    page = path()
    origin.on(page, for_user)
    write(users)
    assert ask_as(users, page, "nobody").text == b"for nobody"
    # the record, the variant's head, its body
    write(users, "get notfound after=2 count=1")
    mine = ask_as(users, page, "alice", ("If-Modified-Since", "never"))
    write(users)
    assert (mine.text, mine.cache) == (b"for alice", "MISS")
    res = ask_as(users, page, "nobody", ("X-User", "alice"))
    assert res.text == b"for nobody"


def test_reload_by_one_user_changes_nobody_elses_page(users, origin, path):
    page = path()
    origin.on(page, for_user)
    assert ask_as(users, page, "nobody").text == b"for nobody"
    ask_as(users, page, "alice", ("Cache-Control", "max-age=0"))
    ask_as(users, page, "alice", ("Cache-Control", "no-cache"))
    for _ in range(2):
        res = ask_as(users, page, "nobody")
        assert (res.text, res.get("X-Greeting")) == (b"for nobody",
                                                     "hello nobody")


def test_check_of_a_page_that_has_aged_elsewhere_stays_the_users(
        users, origin, path):
    """It expires later, but is stale by its Age."""
    page = path()
    headers = [("Vary", "X-User"), ("X-Greeting", "hello nobody"),
               ("Age", "100")]
    origin.on(page, cacheable(b"for nobody", 60, etag='"v1"', headers=headers))
    ask_as(users, page, "nobody")

    def answer(req):
        reply = for_user(req)
        return reply.with_(headers=[*reply.headers, ("Age", "0")])

    origin.on(page, answer)
    ask_as(users, page, "alice")
    for _ in range(2):
        res = ask_as(users, page, "nobody")
        assert (res.text, res.get("X-Greeting")) == (b"for nobody",
                                                     "hello nobody")


def test_field_that_is_always_taken_away_does_not_prevent_caching(
        module_httpd, quick, origin, path):
    server = module_httpd(SITE + "RequestHeader unset Accept-Encoding\n",
                          {"QUICK": quick})
    page = path()
    origin.page(page, b"v1", headers=[("Vary", "Accept-Encoding")])
    asked = [("Accept-Encoding", "gzip")]
    assert [server.get(page, asked).cache for _ in range(3)] == [
        "MISS", "HIT", "HIT"]
    origin.page(page, b"v2", headers=[("Vary", "Accept-Encoding")])
    server.get(page, asked + [("Cache-Control", "no-cache")])
    res = server.get(page, asked)
    assert (res.cache, res.text) == ("HIT", b"v2"), "the reload was lost"


# ---- what the key does not tell ----------------------------------------------

def test_encoded_question_mark_is_not_the_query_of_another_page(
        site, origin, path):
    page = path("login")
    origin.on(page, lambda req: cacheable(req.target.encode()))
    origin.on(page + "%3Fnext=/a", lambda req: cacheable(b"evil"))
    for _ in range(2):
        site.get(page + "%3Fnext=/a?b=c")
    for _ in range(2):
        assert site.get(page + "?next=/a?b=c").text != b"evil"


def test_answer_to_a_get_with_a_body_is_not_everybodys(site, origin, path):
    page = path()
    origin.on(page, lambda req: cacheable(b"q=" + req.body))
    for _ in range(2):
        assert site.ask("GET", page, body=b"evil").text == b"q=evil"
        assert site.get(page).text == b"q="
    assert site.get(page).cache == "HIT"


# ---- origins -----------------------------------------------------------------

def test_304_that_tells_how_a_200_would_be_framed(site, origin, path):
    """The stored body must not be read as chunks, nor as a second answer."""
    body = b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nOWNED"
    page, after = path(), path("after")
    origin.on(page, cacheable(body, 0, etag='"v1"', headers_304=[
        ("Cache-Control", "max-age=0"), ("Transfer-Encoding", "chunked"),
        ("Trailer", "X-Sum")]))
    origin.page(after, b"the real next page")
    site.get(page)
    for _ in range(3):
        with site.connect() as conn:
            conn.send("GET", page)
            conn.send("GET", after)
            assert conn.response().text == body
            assert conn.response().text == b"the real next page"


@pytest.mark.errors
@pytest.mark.parametrize("fault", ["", "set_head error"])
@pytest.mark.parametrize("vary", [False, True])
def test_304_that_cannot_be_kept_sends_the_whole_body(
        module_httpd, quick, origin, path, fault, vary):
    """mod_cache removes the entry while its body is still to be read."""
    server = module_httpd(
        SITE, {"QUICK": quick, "PROVIDER": STORES, "KIND": "faulty",
               "OPTIONS": ""}, extra=MODULES)
    body = noise(600000, 3)
    said = [("Cache-Control", "max-age=60"), ("ETag", '"v1"')]
    page = path()
    origin.on(page, cacheable(body, 0, etag='"v1"', headers_304=said
                              + [("Vary", "X-Foo")] * vary))
    server.get(page)
    try:
        write(server, *filter(None, [fault, PIECES]))
        for _ in range(3):
            with server.connect() as conn:
                res = conn.ask("GET", page)
            assert res.complete and res.text == body
    finally:
        write(server)


# ---- changes elsewhere -------------------------------------------------------

def test_reload_counts_although_another_page_changes_meanwhile(site, origin,
                                                               path):
    page, other = path(), path("other")
    gate = Gate()
    seen = []

    def answer(req):
        seen.append(1)
        return cacheable(b"v%d" % len(seen),
                         gate=gate if len(seen) == 2 else None)

    origin.on(page, answer)
    origin.page(other, b"other")
    assert site.get(page).text == b"v1"
    reload = threading.Thread(
        target=lambda: site.get(page, [("Cache-Control", "no-cache")]))
    reload.start()
    gate.wait_reached()
    site.ask("POST", other)
    gate.open()
    reload.join()
    assert site.get(page).text == b"v2"
