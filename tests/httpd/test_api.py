# SPDX-License-Identifier: Apache-2.0
"""A store behind HTTP, as docs/http-api.md describes it: asked by curl, and by
clients that misbehave."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import h2_modules
from harness import configtest
from harness.curl import curl
from harness.faults import MODULES as FAULTY, write
from harness.server import MODULES, wait_for
from harness.strace import strace
from harness.values import envelope, head, name_of, value
from test_basic import noise

TOKEN = "open-sesame"

CONF = """
ServerName api.test
Listen 127.0.0.1:@PORT@
UseCanonicalPhysicalPort on
CacheQuickHandler @QUICK@
CacheLock off
AllowEncodedSlashes NoDecode
LimitRequestLine 30000
LimitRequestFieldSize 30000
CachemwStore hot memory size=64M
CachemwStore files file cache_dir=@DIR@/cache/files
CachemwStore small memory size=4M max_object_size=1K
CachemwStore away file cache_dir=@DIR@/mime.types/files
CachemwStore warm memory size=16M
CachemwStore tiers multitier l1=warm l2=small
CachemwProvider hot
CachemwNamespace pages
CacheEnable cachemw /
CacheStoreNoStore on
CacheStorePrivate on
CacheIgnoreCacheControl on
CacheIgnoreNoLastMod on
CacheDisable /server-status
<IfModule http2_module>
    Protocols h2c http/1.1
    H2Direct on
</IfModule>
<Location "/hot">
    SetHandler cachemw-api
    CachemwApi hot auth_token=open-sesame
</Location>
<Location "/files">
    SetHandler cachemw-api
    CachemwApi files auth_token=open-sesame
</Location>
<Location "/small">
    SetHandler cachemw-api
    CachemwApi small auth_token=open-sesame
</Location>
<Location "/away">
    SetHandler cachemw-api
    CachemwApi away auth_token=open-sesame
</Location>
<Location "/tiers">
    SetHandler cachemw-api
    CachemwApi tiers auth_token=open-sesame
</Location>
<Location "/open">
    SetHandler cachemw-api
    CachemwApi hot require_token=off
</Location>
<Location "/closed">
    SetHandler cachemw-api
    CachemwApi hot
</Location>
<Location "/nothing">
    SetHandler cachemw-api
</Location>
AliasMatch "^/aliased/" "@DIR@/htdocs/none"
<Location "/aliased">
    SetHandler cachemw-api
    CachemwApi hot auth_token=open-sesame
</Location>
<Location "/limited">
    SetHandler cachemw-api
    CachemwApi hot auth_token=open-sesame
    LimitRequestBody 2000
</Location>
<Location "/server-status">
    SetHandler server-status
</Location>
ProxyPass "/plain/" "http://127.0.0.1:@ORIGIN@/plain/" retry=0
"""

AUTH = [("Authorization", f"Bearer {TOKEN}")]
JSON = [("Content-Type", "application/json")]

pytestmark = [pytest.mark.errors]


@pytest.fixture
def server(module_httpd, request):
    """with CacheQuickHandler on, and off for tests that have `quick`"""
    quick = request.getfixturevalue("quick") \
        if "quick" in request.fixturenames else "on"
    return module_httpd(CONF, {"QUICK": quick},
                        extra=["cachemw"] + h2_modules())


@pytest.fixture
def key(path):
    """a key that nobody else uses, as pages have them"""
    return b"shop.test:80\0http://shop.test:80" + path().encode() + b"?"


class Place:
    """One of the places of the API, for one key."""

    def __init__(self, server, where, key):
        self.url = (f"http://127.0.0.1:{server.ports[0]}/{where}/cache/"
                    + name_of(key))
        self.key = key

    def put(self, made=None, timeout=60, **more):
        made = value(self.key) if made is None else made
        return curl(self.url, data=envelope(made, timeout), token=TOKEN,
                    **more)

    def get(self, *args, **more):
        more.setdefault("token", TOKEN)
        return curl(self.url, *args, **more)

    def delete(self, **more):
        return self.get("-X", "DELETE", **more)


@pytest.fixture
def place(server, key):
    return lambda where="hot": Place(server, where, key)


def is_error(answer, status):
    """STATUS, with a reason as JSON and nothing else"""
    assert answer.status == status, answer
    assert answer.fields["content-type"] == "application/json"
    said = json.loads(answer.body)
    assert list(said) == ["error"] and len(said["error"]) > 5, said
    return said["error"]


def stored(answer):
    assert answer.status == 200, answer
    assert answer.fields["content-type"] == "application/json"
    assert answer.fields["cache-control"] == "no-store"
    said = json.loads(answer.body)
    assert list(said) == ["value"]
    return said["value"]


def figures(server, store="hot"):
    lines = server.get("/server-status?auto").body.decode().splitlines()
    begin = f"CachemwStore-{store}-"
    return {x.split(": ")[0][len(begin):]: x.split(": ")[1] for x in lines
            if x.startswith(begin)}


def counted(server, do, store="hot"):
    before = figures(server, store)
    do()
    after = figures(server, store)
    return {k: int(v) - int(before[k]) for k, v in after.items()
            if v.isdigit() and v != before[k]}


# ---- what it is for ----------------------------------------------------------

@pytest.mark.mpm
@pytest.mark.parametrize("where", ["hot", "files"])
@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 3_000_000])
def test_entry_comes_back_as_it_was_put(place, where, size):
    one = place(where)
    made = value(one.key, noise(size))
    is_error(one.get(), 404)
    done = one.put(made)
    assert done.status == 204 and not done.body
    assert done.fields["etag"] == f'"{made["id"]}"'
    answer = one.get()
    assert stored(answer) == made
    assert answer.fields["etag"] == f'"{made["id"]}"'
    head_only = one.get("-I")
    assert head_only.status == 200
    assert head_only.fields["etag"] == f'"{made["id"]}"'
    assert one.delete().status == 204
    is_error(one.get(), 404)
    assert one.get("-I").status == 404


def test_entry_is_replaced(place):
    one = place()
    one.put(value(one.key, b"old"))
    made = value(one.key, b"new", b"fedcba9876543210")
    assert one.put(made).status == 204
    assert stored(one.get()) == made


def test_deleting_what_is_not_there_is_success(place):
    assert place().delete().status == 204


def test_stores_are_apart(place):
    place("hot").put()
    is_error(place("files").get(), 404)


def test_tiers_in_memory_take_what_clients_put(server, place):
    one = place("tiers")
    made = value(one.key, b"near")
    assert one.put(made).status == 204
    before = figures(server, "tiers")
    assert stored(one.get()) == made
    found = figures(server, "tiers")
    assert int(found["AnsweredByL1"]) == int(before["AnsweredByL1"]) + 1
    assert found["AnsweredByL2"] == before["AnsweredByL2"]


def test_entry_lives_as_long_as_the_client_says_whatever_its_clock_shows(
        place):
    one = place()
    long_ago = value(one.key, expires=1_000_000_000_000_000)    # in 2001
    assert one.put(long_ago, timeout=60).status == 204
    assert stored(one.get()) == long_ago
    in_2100 = value(one.key, expires=4_102_444_800_000_000)
    assert one.put(in_2100, timeout=0.2).status == 204
    wait_for(lambda: one.get().status == 404, "the entry to expire")


@pytest.mark.parametrize("timeout", [1e300, 10**18])
def test_very_long_life_is_life(place, timeout):
    one = place()
    assert one.put(timeout=timeout).status == 204
    assert stored(one.get())


@pytest.mark.mpm
def test_entries_survive_a_graceful_restart(server, place):
    one = place()
    one.put()
    tag = one.get().fields["x-cachemw-api"]
    server.graceful()
    after = one.get()
    assert stored(after)
    assert after.fields["x-cachemw-api"] == tag


# ---- pages and clients of the API never see each other -----------------------

def test_keys_of_pages_and_of_clients_have_nothing_in_common(
        quick, server, origin, path):
    page = path()
    origin.page(page, b"the page")
    url = f"http://api.test:{server.ports[0]}{page}?"
    key = b"pages\0" + url.encode()
    one = Place(server, "hot", key)
    planted = value(key, b"planted")
    assert one.put(planted).status == 204
    for _ in range(2):
        res = server.get(page, host=f"api.test:{server.ports[0]}")
        assert res.body == b"the page"
    assert len(origin.requests(page)) == 1, "the page was not cached"
    is_error(Place(server, "hot", b"pages\0other").get(), 404)
    assert stored(one.get()) == planted


@pytest.mark.mpm
def test_answers_are_never_cached(quick, server, key):
    """… though this server is told to cache everything, and no token is in
    the request."""
    one = Place(server, "open", key)

    def talk():
        for body in (b"one", b"two"):
            made = value(key, body)
            one.put(made)
            for _ in range(2):
                assert stored(one.get(token=None)) == made
        one.delete()
        is_error(one.get(token=None), 404)
        is_error(one.get(token=None), 404)

    seen = counted(server, talk)
    assert seen["ApiHits"] == 4 and seen["ApiMisses"] == 2
    assert "Hits" not in seen and "Stores" not in seen
    assert "Entries" not in seen


# ---- who may -----------------------------------------------------------------

@pytest.mark.parametrize("field", [
    None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer open-sesam",
    "Bearer open-sesame1", "Bearer Open-Sesame", "Basic open-sesame",
    "open-sesame", "Bearer open-sesame open-sesame",
    "Bearer  " + "x" * 20000])
def test_without_the_token_nobody_gets_anywhere(server, place, field):
    one = place()
    one.put()
    headers = JSON + ([] if field is None else [("Authorization", field)])
    target = one.url[one.url.index("/hot"):]
    for method in ("GET", "PUT", "DELETE", "POST"):
        res = server.ask(method, target, headers,
                         body=envelope(value(one.key, b"planted"))
                         if method == "PUT" else None)
        assert res.status == 401, res
        assert res.get("WWW-Authenticate") == 'Bearer realm="cachemw"'
        assert list(json.loads(res.body)) == ["error"]
    assert stored(one.get())["body"] == value(one.key)["body"]


def test_scheme_is_written_as_one_likes(place):
    one = place()
    one.put()
    for word in ("bearer", "BEARER", "Bearer "):
        assert stored(one.get(token=None,
                              headers=[f"Authorization: {word} {TOKEN}"]))


def test_without_a_decision_everything_is_refused(server, place):
    for where in ("closed", "nothing"):
        one = place(where)
        assert "configured" in is_error(one.get(), 403)
        assert "configured" in is_error(one.put(), 403)
    assert place("closed").get(token=None).status == 403


def test_configtest_warns_of_what_refuses_everything():
    lines = "ServerName x\nListen 127.0.0.1:@PORT@\n" + \
        '<Location "/c">\nSetHandler cachemw-api\nCachemwApi memory @MORE@' \
        "\n</Location>\n"
    for more, warned in (("", True), ("require_token=off", False),
                         ("auth_token=x", False)):
        rc, said = configtest(lines.replace("@MORE@", more),
                              extra=["cachemw"])
        assert rc == 0
        assert ("CachemwApi memory on line" in said) == warned, said
        assert ("require_token=off where" in said) == warned


def test_any_byte_in_the_field_does_no_harm(server, place):
    one = place()
    target = one.url[one.url.index("/hot"):].encode()
    for byte in range(256):
        with server.connect() as conn:
            conn.raw(b"GET " + target + b" HTTP/1.1\r\nHost: api.test\r\n"
                     b"X-Cachemw-Api: a" + bytes([byte]) + b"b\r\n"
                     b"Authorization: Bearer open-sesam" + bytes([byte])
                     + b"\r\nConnection: close\r\n\r\n")
            res = conn.response()
        # httpd itself refuses control characters
        wanted = {404} if byte == ord("e") else {400, 401}
        assert res.status in wanted, (byte, res)


def test_ten_thousand_wrong_tokens_are_some_lines_in_the_log(server, place):
    one = place()
    target = one.url[one.url.index("/hot"):]
    server.new_log()
    begin = time.monotonic()
    with server.connect() as conn:
        for number in range(10_000):
            res = conn.get(target, [("Authorization", f"Bearer {number}")])
            assert res.status == 401
    lines = [x for x in server.new_log().splitlines()
             if "missing or wrong" in x]
    assert len(lines) <= 1 + (time.monotonic() - begin) / 10
    assert "9999" not in "".join(lines)
    assert one.put().status == 204


# ---- what is refused ---------------------------------------------------------

BAD_HEAD = head([("Content-Type", "text/plain\r\nSet-Cookie: a=b")])


def wrong(key, **more):
    return envelope({**value(key), **more})


WRONG = {
    "no JSON": (lambda k: b"hello", 400),
    "nothing": (lambda k: b"", 400),
    "half of it": (lambda k: envelope(value(k))[:200], 400),
    "twice": (lambda k: 2 * envelope(value(k)), 400),
    "an array": (lambda k: b"[]", 400),
    "no value": (lambda k: b'{"timeout": 3}', 400),
    "deep": (lambda k: b'{"value": ' + b"[" * 100000, 400),
    "no timeout": (lambda k: json.dumps({"value": value(k)}).encode(), 400),
    "timeout 0": (lambda k: envelope(value(k), 0), 400),
    "timeout -1": (lambda k: envelope(value(k), -1), 400),
    "timeout as text": (lambda k: envelope(value(k), "60"), 400),
    "timeout beyond numbers": (lambda k: envelope(value(k)).replace(
        b'"timeout": 60', b'"timeout": 1e999'), 400),
    "a text as value": (lambda k: envelope("hello"), 422),
    "an unknown format": (lambda k: wrong(k, format=2), 422),
    "a body that is not base64": (lambda k: wrong(k, body="%"), 422),
    "a checksum of something else": (lambda k: wrong(k, crc32c="00000000"),
                                     422),
    "an id too short": (lambda k: wrong(k, id="00"), 422),
    "another key": (lambda k: envelope(value(k + b"x")), 422),
    "an empty key": (lambda k: envelope(value(b"")), 422),
    "a head of nothing": (lambda k: envelope(value(k, head=b"")), 422),
    "a head of noise": (lambda k: envelope(value(k, head=noise(300))), 422),
    "a head with two lines in a field": (
        lambda k: envelope(value(k, head=BAD_HEAD)), 422),
    "a head with a status of 199": (
        lambda k: envelope(value(k, head=head(status=199))), 422),
    "a head with another length": (
        lambda k: envelope(value(k, b"hello", head=head(
            [("Content-Length", "6")], content_length=6))), 422),
    "a head with Transfer-Encoding": (
        lambda k: envelope(value(k, head=head(
            [("Transfer-Encoding", "chunked")]))), 422),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_values_are_refused(server, place, what):
    make, status = WRONG[what]
    one = place()
    good = value(one.key)
    one.put(good)
    seen = counted(server, lambda: is_error(
        curl(one.url, data=make(one.key), token=TOKEN), status))
    assert seen["ApiRefused"] == 1 and "ApiStores" not in seen
    assert stored(one.get()) == good


@pytest.mark.parametrize("kind", [
    "text/plain", "application/jsonx", "application/json+x", "",
    "multipart/form-data; boundary=application/json"])
def test_other_media_types_are_refused(place, kind):
    one = place()
    is_error(one.put(headers=[f"Content-Type: {kind}" if kind
                              else "Content-Type;"]), 415)
    is_error(one.get(), 404)


def test_media_type_may_have_parameters(place):
    assert place().put(headers=[
        "Content-Type: application/JSON; charset=utf-8"]).status == 204


def test_content_coding_is_refused(place):
    is_error(place().put(headers=["Content-Encoding: gzip",
                                  "Content-Type: application/json"]), 415)


@pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "PROPFIND",
                                    "BREW"])
def test_other_methods_are_refused(place, method):
    answer = place().get("-X", method)
    is_error(answer, 405)
    assert answer.fields["allow"] == "GET, HEAD, PUT, DELETE"


@pytest.mark.parametrize("target", [
    "/hot", "/hot/", "/hot/cache", "/hot/cache/", "/hot/cache/a/b",
    "/hot/Cache/a", "/hot/xcache/a", "/hot/stats?/cache/a"])
def test_other_paths_are_no_entries(server, target):
    url = f"http://127.0.0.1:{server.ports[0]}{target}"
    is_error(curl(url, token=TOKEN), 404)
    is_error(curl(url, token=TOKEN, data=envelope(value(b"a"))), 404)


def test_body_beyond_the_store_is_refused(place):
    one = place("small")
    assert one.put(value(one.key, b"x" * 1024)).status == 204
    is_error(one.put(value(one.key, b"x" * 1025)), 413)
    assert len(stored(one.get())["body"]) == 1368


def test_very_long_head_is_refused(place):
    one = place()
    room = (1 << 20) - len(head([("X-Long", "")]))
    longest = head([("X-Long", "x" * room)])
    is_error(one.put(value(one.key, head=longest)), 413)
    is_error(one.get(), 404)


def test_announced_length_is_refused_before_a_byte_of_it_comes(server, place):
    one = place()
    target = one.url[one.url.index("/hot"):]
    with server.connect() as conn:
        conn.raw(f"PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                 f"{TOKEN}\r\nContent-Type: application/json\r\n"
                 "Expect: 100-continue\r\n"
                 f"Content-Length: {1 << 40}\r\n\r\n".encode())
        res = conn.response()
        assert res.status == 413 and not res.interim, res
        assert list(json.loads(res.body)) == ["error"]
        assert conn.is_closed()


@pytest.mark.parametrize("token, kind, status", [
    (TOKEN, "application/json", 413), (TOKEN, "text/plain", 415),
    ("wrong", "application/json", 401)])
def test_body_without_an_end_is_not_read_for_ever(server, place, token, kind,
                                                  status):
    """With the right token as much of it is read as the store could take, with
    a wrong one nothing; the answer comes before the end of the request."""
    one = place("small")
    target = one.url[one.url.index("/small"):]
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with server.connect() as conn:
        conn.raw(f"PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                 f"{token}\r\nContent-Type: {kind}\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(40):
            conn.raw(chunk)
        res = conn.response()
        assert res.status == status
        assert list(json.loads(res.body)) == ["error"]
        assert conn.is_closed()
    assert one.put().status == 204


def test_limit_of_httpd_is_told_as_json(server, place):
    one = place("limited")
    assert one.put(value(one.key, b"x" * 100)).status == 204
    made = envelope(value(one.key, b"x" * 3000))
    is_error(curl(one.url, data=made, token=TOKEN), 413)
    # where no length is announced, httpd comes first, with a page of its own
    assert curl(one.url, "-H", "Transfer-Encoding: chunked", data=made,
                token=TOKEN).status == 413
    assert len(stored(one.get())["body"]) == 136


def test_keys_in_the_path_may_be_escaped_texts(server, path):
    base = f"http://127.0.0.1:{server.ports[0]}/hot/cache/"
    for key, escaped in ((b"http://x/y?z#" + path().encode(), None),
                         (b"a/b c%2F" + path().encode(), None),
                         (bytes(range(1, 256)) + path().encode(), None)):
        escaped = "".join(f"%{x:02X}" for x in key)
        made = value(key)
        put = curl(base + escaped, data=envelope(made), token=TOKEN)
        assert put.status == 204, put
        assert stored(curl(base + escaped, token=TOKEN)) == made
        is_error(curl(base + escaped + "x", token=TOKEN,
                      data=envelope(made)), 422)


def test_one_name_never_stands_for_two_keys(server, path):
    """a key that looks like a digest has to be named by its own"""
    key = name_of(path().encode()).encode()
    base = f"http://127.0.0.1:{server.ports[0]}/hot/cache/"
    made = envelope(value(key))
    is_error(curl(base + key.decode(), data=made, token=TOKEN), 422)
    assert curl(base + name_of(key), data=made, token=TOKEN).status == 204


def test_path_with_a_nul_is_a_miss(server):
    """httpd's own answer: a NUL is in each key of a page, so that clients
    must name them by their digest."""
    url = f"http://127.0.0.1:{server.ports[0]}/hot/cache/a%00b"
    assert curl(url, token=TOKEN).status == 404


def test_long_keys(server):
    base = f"http://127.0.0.1:{server.ports[0]}/aliased/cache/"
    longest = b"k" * 8192
    assert curl(base + longest.decode(), token=TOKEN,
                data=envelope(value(longest))).status == 204
    assert stored(curl(base + longest.decode(), token=TOKEN))
    is_error(curl(base + longest.decode() + "k", token=TOKEN), 414)
    for key, status in ((longest, 204), (longest + b"k", 413)):
        done = curl(base + name_of(key), token=TOKEN,
                    data=envelope(value(key)))
        assert done.status == status, done


# ---- If-Match ----------------------------------------------------------------

@pytest.mark.parametrize("where", ["hot", "files"])
def test_entry_is_amended_if_it_is_the_one_meant(place, where):
    one = place(where)
    old = value(one.key, noise(100_000))
    one.put(old)
    new = value(one.key, noise(100_000), head=head([("X-New", "yes")]))
    done = one.put(new, headers=[f'If-Match: "{old["id"]}"',
                                 "Content-Type: application/json"])
    assert done.status == 204
    assert stored(one.get()) == new


@pytest.mark.parametrize("where", ["hot", "files"])
def test_another_entry_by_now_is_left_alone(place, where):
    one = place(where)
    now = value(one.key, b"now", b"n" * 16)
    before = value(one.key, b"before", b"b" * 16)
    match = [f'If-Match: "{before["id"]}"', "Content-Type: application/json"]
    is_error(one.put(before, headers=match), 412)       # none is there
    is_error(one.delete(headers=match[:1]), 412)
    one.put(now)
    is_error(one.put(before, headers=match), 412)
    is_error(one.delete(headers=match[:1]), 412)
    assert stored(one.get()) == now
    assert one.delete(headers=[f'If-Match: "x", "{now["id"]}"']).status == 204
    is_error(one.get(), 404)


def test_conditional_replacement(place):
    one = place()
    is_error(one.put(headers=["If-Match: *",
                              "Content-Type: application/json"]), 412)
    one.put(value(one.key, b"old", b"o" * 16))
    new = value(one.key, b"new", b"n" * 16)
    assert one.put(new, headers=[f'If-Match: "{"6f" * 16}"',
                                 "Content-Type: application/json"]).status \
        == 204
    assert stored(one.get()) == new
    assert one.delete(headers=["If-Match: *"]).status == 204


NONE_MATCH = "If-None-Match: "


@pytest.mark.parametrize("where", ["hot", "files"])
def test_entry_is_stored_only_if_there_is_none(place, where):
    one = place(where)
    first = value(one.key, b"first", b"1" * 16)
    second = value(one.key, b"second", b"2" * 16)
    any_one = [NONE_MATCH + "*", "Content-Type: application/json"]
    assert one.put(first, headers=any_one).status == 204
    is_error(one.put(second, headers=any_one), 412)
    assert stored(one.get()) == first
    this_one = [NONE_MATCH + f'"{first["id"]}"',
                "Content-Type: application/json"]
    is_error(one.put(second, headers=this_one), 412)
    is_error(one.delete(headers=this_one[:1]), 412)
    assert stored(one.get()) == first
    weakly = [NONE_MATCH + f'"x", W/"{first["id"]}"', any_one[1]]
    is_error(one.put(second, headers=weakly), 412)
    is_error(one.delete(headers=weakly[:1]), 412)
    assert stored(one.get()) == first
    another = [NONE_MATCH + f'"{second["id"]}"', any_one[1]]
    assert one.put(second, headers=another).status == 204
    assert one.delete(headers=this_one[:1]).status == 204
    assert one.delete(headers=any_one[:1]).status == 204
    is_error(one.get(), 404)


def test_entry_that_is_known_is_not_sent_again(place):
    one = place()
    made = value(one.key)
    one.put(made)
    tag = f'"{made["id"]}"'
    for args in ((), ("-I",)):
        for text in (tag, "*", f'"x", W/{tag}'):
            res = one.get(*args, headers=[NONE_MATCH + text])
            assert res.status == 304, res
            assert res.fields["etag"] == tag
            assert args or not res.body
        assert one.get(*args, headers=[NONE_MATCH + '"x"']).status == 200
        assert one.get(*args, headers=["If-Match: " + tag]).status == 200
        assert one.get(*args, headers=['If-Match: "x"']).status == 412
    is_error(one.get(headers=['If-Match: "x"']), 412)
    one.delete()
    for line in (NONE_MATCH + "*", "If-Match: *"):
        is_error(one.get(headers=[line]), 404)


def test_entries_are_whole(place):
    one = place()
    made = value(one.key)
    one.put(made)
    for text in ("bytes=0-9", "bytes=99999999-", "bytes=0-1,5-9"):
        for name in ("Range", "Request-Range"):
            res = one.get(headers=[f"{name}: {text}"])
            assert res.status == 200, res
            assert stored(res) == made


def test_entry_has_no_time_of_modification(place):
    """RFC 9110, section 13.1.4: then such conditions do not count"""
    one = place()
    then = "Thu, 01 Jan 2004 00:00:00 GMT"
    one.put()
    assert one.put(headers=["If-Unmodified-Since: " + then,
                            "Content-Type: application/json"]).status == 204
    assert stored(one.get(headers=["If-Modified-Since: " + then]))


# ---- circles -----------------------------------------------------------------

def test_request_that_comes_from_here_is_refused(place):
    one = place()
    tag = one.get().fields["x-cachemw-api"]
    assert len(tag) == 32
    for text in (tag, f"abc, {tag}", f"{tag},abc"):
        assert "circle" in is_error(
            one.get(headers=[f"X-Cachemw-Api: {text}"]), 508)
    assert "circle" in is_error(
        one.put(headers=[f"X-Cachemw-Api: {tag}",
                         "Content-Type: application/json"]), 508)
    is_error(one.get(headers=["X-Cachemw-Api: " + ", ".join(9 * ["ab"])]),
             508)
    for words in (["0" * 9000], 8 * ["0" * 33]):
        assert "eight" in is_error(
            one.get(headers=["X-Cachemw-Api: " + ", ".join(words)]), 508)
    for text in ("x" * 33, "abc; def", '"abc"'):
        is_error(one.get(headers=[f"X-Cachemw-Api: {text}"]), 400)
    for words in (["abc", "def"], 8 * ["0" * 32]):
        is_error(one.get(headers=["X-Cachemw-Api: " + ", ".join(words)]), 404)


def test_each_server_has_a_tag_of_its_own(server, httpd, place, key):
    other = httpd(CONF, {"QUICK": "on"}, extra=["cachemw"])
    theirs = Place(other, "hot", key).get(token=None)
    ours = place().get(token=None)
    assert ours.status == theirs.status == 401
    assert ours.fields["x-cachemw-api"] != theirs.fields["x-cachemw-api"]


# ---- stores in trouble -------------------------------------------------------

def test_store_that_is_off_is_told(place):
    one = place("away")
    is_error(one.get(), 503)
    is_error(one.put(), 503)
    is_error(one.delete(), 503)


def test_trouble_of_the_store_is_told_and_passes(httpd, key):
    server = httpd("""
        ServerName api.test
        Listen 127.0.0.1:@PORT@
        CachemwStore inside memory
        CachemwStore tested faulty inner=inside faults=@DIR@/faults
        <Location "/hot">
            SetHandler cachemw-api
            CachemwApi tested auth_token=open-sesame
        </Location>""", extra=FAULTY)
    one = Place(server, "hot", key)
    assert one.put().status == 204
    write(server, "get error=EIO", "set error=EIO", "set_begin error=EIO",
          "remove error=EIO")
    is_error(one.get(), 503)
    is_error(one.put(), 503)
    is_error(one.delete(), 503)
    is_error(one.delete(headers=['If-Match: "a"']), 503)
    write(server, "set enospc", "set_begin enospc")
    is_error(one.put(), 507)
    assert stored(one.get())
    write(server, "get damaged")
    assert one.get().status == 404
    write(server)
    assert one.put().status == 204
    assert stored(one.get())


def test_body_that_is_cut_while_it_is_looked_up_is_a_miss(httpd, key):
    """and the entry is removed, as any other that is damaged"""
    server = httpd("""
        ServerName api.test
        Listen 127.0.0.1:@PORT@
        CachemwStore inside file cache_dir=@DIR@/cache/files
        CachemwStore tested faulty inner=inside faults=@DIR@/faults
        <Location "/hot">
            SetHandler cachemw-api
            CachemwApi tested auth_token=open-sesame
        </Location>
        <Location "/server-status">
            SetHandler server-status
        </Location>""", extra=FAULTY)
    one = Place(server, "hot", key)
    assert one.put(value(one.key, noise(300_000))).status == 204
    file, = (x for x in (server.dir / "cache").rglob("*")
             if x.is_file() and x.stat().st_size > 300_000
             and x.read_bytes().endswith(noise(300_000)[-1000:]))
    write(server, "get late=1500")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(one.get)
        time.sleep(0.5)     # it has the file by then; else it finds it cut
        os.truncate(file, 200_000)
        is_error(found.result(), 404)
    write(server)
    assert figures(server, "tested")["Damaged"] == "1"
    is_error(one.get(), 404)
    wait_for(lambda: not file.exists(), "the entry to go")


# ---- clients that misbehave --------------------------------------------------

@pytest.mark.mpm
def test_client_that_leaves_in_the_middle_stores_nothing(server, place):
    one = place()
    target = one.url[one.url.index("/hot"):]
    made = envelope(value(one.key, noise(100_000)))
    for at in (0, 1, 1000, len(made) - 1):
        for leave in ("abort", "close"):
            conn = server.connect()
            conn.raw(f"PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: "
                     f"Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(made)}\r\n\r\n".encode()
                     + made[:at])
            getattr(conn, leave)()
    assert one.put(value(one.key, b"x")).status == 204
    assert stored(one.get())["body"] == value(one.key, b"x")["body"]


def test_slow_client_is_httpds_to_end(httpd, key):
    """RequestReadTimeout: the only wait that is not the store's."""
    server = httpd("""
        ServerName api.test
        Listen 127.0.0.1:@PORT@
        RequestReadTimeout body=1
        <Location "/hot">
            SetHandler cachemw-api
            CachemwApi memory auth_token=open-sesame
        </Location>""", extra=["cachemw", "reqtimeout"])
    one = Place(server, "hot", key)
    target = one.url[one.url.index("/hot"):]
    with server.connect() as conn:
        conn.raw(f"PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                 f"{TOKEN}\r\nContent-Type: application/json\r\n"
                 "Content-Length: 1000\r\n\r\n{".encode())
        res = conn.response()
        assert res.status == 408, res
        assert list(json.loads(res.body)) == ["error"]
        assert conn.is_closed()
    is_error(one.get(), 404)


@pytest.mark.mpm
def test_many_at_once_get_whole_entries(server, place):
    one = place("files")
    target = one.url[one.url.index("/files"):]
    bodies = [noise(20_000 * n, n) for n in range(1, 4)]
    made = {value(one.key, b, bytes([n]) * 16)["id"]: value(
        one.key, b, bytes([n]) * 16, expires=10**15)
        for n, b in enumerate(bodies)}
    failed = []

    def work(number):
        with server.connect() as conn:
            for turn in range(40):
                if (turn + number) % 4 == 0:
                    text = envelope(list(made.values())[turn % 3])
                    res = conn.ask("PUT", target, AUTH + JSON, body=text)
                    good = res.status == 204
                else:
                    res = conn.get(target, AUTH)
                    good = res.status == 404
                    if res.status == 200:
                        got = json.loads(res.body)["value"]
                        good = got == made[got["id"]]
                if not good:
                    failed.append(res)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[:3]


# ---- surroundings ------------------------------------------------------------

def test_files_are_read_and_never_mapped(server, place, tmp_path):
    """One that cannot be read is an error, one that is mapped ends the
    child."""
    one = place("files")
    made = value(one.key, noise(1_000_000))
    one.put(made)
    said = strace(server, lambda: stored(one.get()), tmp_path / "calls",
                  "-etrace=openat,mmap")
    assert f"{server.dir}/cache/files/" in said
    assert "MAP_SHARED" not in said


@pytest.mark.mpm
def test_over_every_protocol(place):
    for option in ["--http1.0", "--http1.1"] + [
            "--http2-prior-knowledge" for _ in h2_modules()]:
        one = place()
        made = value(one.key, noise(300_000))
        done = curl(one.url, option, data=envelope(made), token=TOKEN)
        assert done.status == 204
        assert stored(curl(one.url, option, token=TOKEN)) == made
        is_error(curl(one.url, option, token="wrong"), 401)
        is_error(curl(one.url, option, token=TOKEN, data=b"{}"), 400)
        assert curl(one.url, option, "-X", "DELETE",
                    token=TOKEN).status == 204


def test_service_needs_no_mod_cache(httpd, key):
    server = httpd("""
        ServerName api.test
        Listen 127.0.0.1:@PORT@
        CachemwApi memory auth_token=open-sesame
        <Location "/hot">
            SetHandler cachemw-api
        </Location>""", modules=[x for x in MODULES if x != "cache"],
        extra=["cachemw"], loglevel="info")
    one = Place(server, "hot", key)
    assert one.put().status == 204
    assert stored(one.get())
    assert "mod_cache is not loaded" not in server.log()


def test_configuration_of_inner_sections_replaces_that_of_outer_ones(
        httpd, key):
    server = httpd("""
        ServerName api.test
        Listen 127.0.0.1:@PORT@
        CachemwStore one memory
        CachemwStore two memory
        CachemwApi one auth_token=first
        <Location "/a">
            SetHandler cachemw-api
        </Location>
        <Location "/b">
            SetHandler cachemw-api
            CachemwApi two auth_token=second
        </Location>""")
    urls = {x: Place(server, x, key).url for x in "ab"}
    assert curl(urls["a"], token="first",
                data=envelope(value(key))).status == 204
    assert curl(urls["b"], token="first").status == 401
    assert curl(urls["b"], token="second").status == 404
    assert curl(urls["a"], token="second").status == 401


def test_status_page_counts_the_service_by_itself(quick, server, place):
    one = place()

    def talk():
        one.get()
        one.put()
        one.get()
        one.get("-I")
        one.delete()
        one.get(token="wrong")
        curl(one.url, data=b"", token=TOKEN)

    seen = counted(server, talk)
    seen.pop("Removes")
    seen.pop("Misses", None)    # of mod_cache, where its handler comes first
    assert {k: v for k, v in seen.items() if k[0] != "B"} == {
        "ApiMisses": 1, "ApiStores": 1, "ApiHits": 2, "ApiRemoves": 1,
        "ApiDenied": 1, "ApiRefused": 1}


def test_tokens_are_shown_nowhere(httpd, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("from-a-file\n")
    os.chmod(secret, 0o644)
    server = httpd("""
        ServerName api.test
        Listen 127.0.0.1:@PORT@
        <Location "/hot">
            SetHandler cachemw-api
            CachemwApi memory auth_token=in-the-line
        </Location>
        <Location "/other">
            SetHandler cachemw-api
            CachemwApi memory auth_token_file=@SECRET@
        </Location>
        <Location "/info">
            SetHandler server-info
        </Location>""", {"SECRET": secret}, extra=["cachemw", "info"])
    page = server.get("/info").body.decode()
    assert "CachemwApi" in page and "auth_token=*****" in page
    for word in ("in-the-line", "from-a-file"):
        assert word not in page + server.log()
    for where, token in (("hot", "in-the-line"), ("other", "from-a-file")):
        url = Place(server, where, b"k").url
        assert curl(url, token=token).status == 404
        assert curl(url, token=token + "\\n").status == 401
