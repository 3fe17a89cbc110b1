# SPDX-License-Identifier: Apache-2.0
"""The provider http with a service that no one here has made httpd know of:
what one web server stores, the others serve; and whatever the service answers,
no visitor notices."""

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import pytest

from conftest import SHARED, SITE
from harness.certificates import Authority
from harness.server import configtest, wait_for
from harness.service import BASE, LONG, TROUBLES, Service
from harness.shared import HOST, assert_hit, assert_hit_again, assert_miss, \
    get, post, store, stored
from harness.strace import strace
from harness.tcpproxy import TcpProxy
from test_status import figures

MODULES = ["cachemw", "cachemw_http"]

STORE = """
CachemwStore pages http base_url=@URL@ @PATIENCE@ @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""

PATIENT = "timeout=5s store_timeout=5s connect_timeout=5s max_retries=0"
HASTY = "timeout=300ms store_timeout=200ms"

# What a busy machine adds to the time of a request.
MARGIN = 3

TOKEN = "Tok3n.of-the_Service~"

pytestmark = [pytest.mark.http]


@pytest.fixture
def start_service():
    made = []

    def start(**more):
        made.append(Service(**more))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture(params=[False, True], ids=["plain", "etags"])
def service(request, start_service):
    return start_service(etags=request.param)


@pytest.fixture
def plain(start_service):
    return start_service()


@pytest.fixture
def make(httpd):
    def start(url, options="", patience=PATIENT, **more):
        return httpd(SHARED, {"QUICK": "on", "PROVIDER": STORE, "URL": url,
                              "OPTIONS": options, "PATIENCE": patience},
                     extra=MODULES, **more)
    return start


def kinds(server, *names):
    found = figures(server)
    return sum(int(found.get(f"Failures-{x}", 0)) for x in names)


def assert_explained(server, service, reason):
    """on the status page, and in one line of the log for each failure"""
    said = f"127.0.0.1, port {service.port}: {reason}"
    assert said in figures(server)["LastError"]
    lines = [x for x in server.log().splitlines() if reason in x]
    assert lines and all(said in x for x in lines), lines
    for line in lines:
        assert re.search("(get|set|exists|remove): (failed|timed out): "
                         "|5 failures in a row", line), line


# ---- several web servers ----------------------------------------------------

@pytest.mark.mpm
def test_servers_share_what_one_has_stored(make, service, origin, path):
    one, other = make(service.url), make(service.url)
    for size in (0, 1, 2, 5000, 65535, 65536, 900000):
        page = path(f"p{size}")
        body = store(one, origin, page, size)
        assert_hit(other, page, body)
        assert_hit(one, page, body)
        assert origin.count(page) == 1


def test_purge_on_one_server_is_one_for_all(make, service, origin, path):
    one, other = make(service.url), make(service.url)
    page = path()
    body = stored(one, origin, page)
    origin.page(page, b"new")
    post(other, page)
    assert get(one, page).body == b"new" != body


def test_a_304_keeps_the_body(make, service, origin, path):
    one, other = make(service.url), make(service.url)
    page = path()
    body = store(one, origin, page, 200000, age=1, etag='"1"')
    time.sleep(2.1)     # HTTP counts seconds
    assert get(other, page).cache == "REVALIDATE"
    assert_hit(one, page, body)
    changes = [fields for method, _, fields in service.requests
               if method == "PUT"]
    assert ("If-Match" in changes[-1]) == service.etags


def test_large_bodies(make, service, origin, path):
    small, large = make(service.url), make(service.url, "max_object_size=16M")
    page = path()
    body = stored(large, origin, page, 9000000)
    assert_miss(small, page, body)
    assert kinds(small, "too-large") == 1
    assert figures(small)["State"] == "on"
    assert_hit(large, page, body)


def test_keys_are_hashed(make, service, origin, path):
    server = make(service.url)
    page = path("with%20blank?and=%00")
    stored(server, origin, page)
    [key] = service.values
    value = service.values[key][0]
    assert key == f"{BASE}/cache/" + hashlib.sha256(
        base64.b64decode(value["key"])).hexdigest()


def test_keys_are_written_out(make, service, origin, path):
    server = make(service.url, "key_encoding=percent")
    page = path("with%20blank?and=x")
    stored(server, origin, page)
    [key] = service.values
    value = service.values[key][0]
    word = key[len(f"{BASE}/cache/"):]
    assert re.fullmatch(r"([\w.~-]|%[0-9a-f]{2})+", word)
    assert unquote(word).encode() == base64.b64decode(value["key"])


def test_connections_are_kept(make, service, origin, path):
    server = make(service.url)
    page = path()
    body = stored(server, origin, page)
    before = service.accepted
    for _ in range(50):
        assert_hit(server, page, body)
    assert service.accepted - before <= len(server.children())


def test_service_starts_anew(make, start_service, origin, path):
    service = start_service()
    server = make(service.url)
    page = path()
    body = stored(server, origin, page)
    service.stop()
    start_service(port=service.port)
    # the idle connection is replaced within the request
    assert_miss(server, page, body)
    assert_hit(server, page, body)
    assert figures(server)["GetErrors"] == "0"


def test_host_by_name(make, service, origin, path):
    server = make(f"http://localhost:{service.port}{BASE}/")
    page = path()
    body = store(server, origin, page)
    wait_for(lambda: get(server, page).cache == "HIT", "the address", 5)
    assert_hit(server, page, body)


def test_requests_look_up_no_names(make, plain, origin, path, tmp_path):
    """for nothing limits how long that takes"""
    server = make(f"http://localhost:{plain.port}{BASE}")
    page = path()
    body = store(server, origin, page)
    wait_for(lambda: get(server, page).cache == "HIT", "the address", 5)

    def connect_anew():
        for _ in range(5):
            plain.drop()
            assert_hit(server, page, body)

    made = strace(server, connect_anew, tmp_path / "trace",
                  "-etrace=connect,openat,open")
    assert f"htons({plain.port})" in made
    assert not re.findall(r'"/etc/[^"]*"', made)


def test_host_that_nobody_knows(make, origin, path):
    server = make(f"http://nowhere.invalid{BASE}")
    page = path()
    for _ in range(10):
        body = store(server, origin, page)
        assert_miss(server, page, body)
    assert figures(server)["State"] == "on"
    wait_for(lambda: "the host nowhere.invalid has no address now"
             in server.log(), "the line in the log")


# ---- proxies ----------------------------------------------------------------

def test_through_a_proxy(make, plain, origin, path):
    server = make(f"http://service.invalid{BASE}",
                  f"proxy=http://127.0.0.1:{plain.port}")
    stored(server, origin, path())
    assert all(target.startswith(f"http://service.invalid{BASE}/cache/")
               for _, target, _ in plain.requests)


def test_environment_s_proxy_is_not_used(make, plain, start_service, origin,
                                         path, monkeypatch):
    wrong = start_service()
    for name in ("http_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{wrong.port}")
    stored(make(plain.url), origin, path())
    assert not wrong.accepted


# ---- the token --------------------------------------------------------------

def token_file(tmp_path, token=TOKEN):
    file = tmp_path / "token"
    file.write_text(token + "\n")
    return f"auth_token_file={file}"


def test_token(make, start_service, origin, path):
    service = start_service(token=TOKEN)
    stored(make(service.url, f"auth_token={TOKEN}"), origin, path())


def test_token_from_a_file(make, start_service, origin, path, tmp_path):
    service = start_service(token=TOKEN)
    stored(make(service.url, token_file(tmp_path)), origin, path())


@pytest.mark.errors
@pytest.mark.parametrize("token", ["", "auth_token=another"])
def test_wrong_token(make, start_service, origin, path, token):
    service = start_service(token=TOKEN)
    server = make(service.url, token)
    page = path()
    for _ in range(3):
        body = store(server, origin, page)
        assert_miss(server, page, body)
    assert kinds(server, "401") > 0
    assert_explained(server, service, "the service answers 401")


@pytest.mark.errors
@pytest.mark.parametrize("trouble", [None, "error 500", "redirects", "resets",
                                     "no JSON", "token refused"])
def test_token_is_shown_nowhere(make, start_service, origin, path, tmp_path,
                                trouble):
    service, other = start_service(token=TOKEN), start_service()
    service.elsewhere = other.url[:-len(BASE)]
    server = make(service.url, token_file(tmp_path), loglevel="trace8")
    stored(server, origin, path())
    service.trouble = trouble
    for i in range(8):
        store(server, origin, path(f"p{i}"))
    for page in ("/server-status", "/server-status?auto"):
        assert TOKEN.encode() not in server.get(page).body
    assert TOKEN not in server.log()
    assert all(TOKEN not in target for _, target, _ in service.requests)
    assert not other.accepted, "a redirect was followed"


def test_token_is_not_in_messages(tmp_path):
    for words in (f"auth_token={TOKEN} {token_file(tmp_path)}",
                  f"auth_token={TOKEN}\x01", f"auth_token={TOKEN} x=1",
                  f"base_url=http://u:{TOKEN}@h/", f"proxy=http://{TOKEN}@h"):
        if "base_url" not in words:
            words = "base_url=http://h " + words
        status, text = check(words)
        assert status != 0 and TOKEN not in text, text


# ---- what a service may do --------------------------------------------------

# What no request gets is a failure, in a row with others; where only lookups
# fail, what is stored in between counts as success.
OPENS = {"resets", "hangs", "redirects", "error 500", "error 503", "error 429",
         "error 412", "long error", "token refused", "endless fields", "endless field",
         "endless interim", "old protocol", "no status", "cut half-way"}
# no failure of the service, but of an entry
MISSES = {"other key", "other JSON", "says too long", "takes nothing"}
# as what it is counted, where that is not plain
KINDS = {"error 412": "4xx", "says too long": "too-large",
         "takes nothing": "422", "other key": "other-key",
         "other JSON": "damaged", "cut half-way": "ended", "resets": "ended",
         "hangs": "timeout", "long error": "500", "token refused": "401",
         "no JSON": "nonsense", "half JSON": "nonsense",
         "no value": "nonsense", "endless body": "endless",
         "endless chunks": "endless", "endless fields": "endless",
         "endless field": "endless", "endless interim": "endless"}


@pytest.mark.errors
@pytest.mark.parametrize("trouble", [x for x in TROUBLES if x != LONG],
                         ids=lambda x: x.replace(" ", "_"))
def test_service_in_trouble_costs_no_more_than_misses(
        make, start_service, origin, path, trouble):
    service, other = start_service(), start_service()
    service.elsewhere = other.url[:-len(BASE)]
    server = make(service.url, patience=HASTY)
    pages = [path(f"p{i}") for i in range(3)]
    bodies = {}
    for i, page in enumerate(pages):
        bodies[page] = store(server, origin, page, (300, 5000, 200000)[i])
        wait_for(lambda: get(server, page).cache == "HIT", "a hit", 20)
    service.trouble = trouble
    for _ in range(5):
        for page in pages:
            began = time.monotonic()
            res = get(server, page)
            assert (res.status, res.body) == (200, bodies[page])
            assert res.cache != "HIT"
            assert time.monotonic() - began < 0.5 + MARGIN
    found = figures(server)
    if trouble in OPENS:
        assert found["State"].startswith("breaker open"), found
    assert (found["GetErrors"] == found["Timeouts"] == "0") \
        == (trouble in MISSES), found
    assert [x for x in found if x.startswith("Failures-")], found
    if trouble in KINDS:
        assert int(found.get(f"Failures-{KINDS[trouble]}", 0)) > 0, found
    assert trouble in MISSES \
        or f"127.0.0.1, port {service.port}: " in found["LastError"], found
    if trouble == "takes nothing":
        assert "the service answers 422: it does not take what" in server.log()
    service.trouble = None
    for page in pages:
        assert_hit_again(server, page, bodies[page])
    assert figures(server)["State"] == "on"
    assert not other.accepted, "a redirect was followed"


@pytest.mark.errors
@pytest.mark.parametrize("trouble", [x for x in TROUBLES if "endless" in x],
                         ids=lambda x: x.replace(" ", "_"))
def test_what_has_no_end_is_not_read_for_long(make, plain, origin, path,
                                              trouble):
    server = make(plain.url, patience="timeout=30s store_timeout=30s")
    page = path()
    body = stored(server, origin, page)
    plain.trouble = trouble
    began = time.monotonic()
    assert get(server, page).body == body
    assert time.monotonic() - began < 15, "until the deadline"
    assert kinds(server, "endless") >= 1
    assert kinds(server, "timeout") == 0
    # a lookup reads 6 MB at most, and both ends have buffers
    assert plain.sent < 30 << 20


@pytest.mark.errors
def test_what_is_too_long_and_ends_is_no_trouble(make, plain, origin, path):
    server = make(plain.url)
    page = path()
    body = stored(server, origin, page)
    plain.trouble = LONG
    for _ in range(8):
        assert_miss(server, page, body)
    assert kinds(server, "too-large") == 8 and kinds(server, "endless") == 0
    found = figures(server)
    assert (found["State"], found["GetErrors"]) == ("on", "0"), found
    plain.trouble = None
    assert_hit(server, page, body)


@pytest.mark.errors
@pytest.mark.parametrize("mode, args", [
    ("refuse", {}), ("hang", {}), ("hang", {"after": 15}), ("reset", {}),
    ("reset", {"after": 15}), ("drip", {"every": 0.05}),
    ("cut", {"after": 15}), ("rubbish", {}), ("delay", {"seconds": 2})],
    ids=lambda x: x if isinstance(x, str) else "half-way" * ("after" in x))
def test_network_fails(make, plain, origin, path, mode, args):
    with TcpProxy(("127.0.0.1", plain.port)) as proxy:
        server = make(f"http://127.0.0.1:{proxy.port}{BASE}", patience=HASTY)
        page = path()
        body = store(server, origin, page)
        wait_for(lambda: get(server, page).cache == "HIT", "a hit", 20)
        proxy.set(mode, **args)
        taken = []
        while figures(server)["State"] == "on":
            assert len(taken) < 20, f"it never opens: {taken}"
            began = time.monotonic()
            res = get(server, page)
            taken.append(time.monotonic() - began)
            assert (res.status, res.body) == (200, body)
        assert max(taken) < 0.5 + MARGIN and min(taken) < 0.9, taken
        proxy.set("pass")
        wait_for(lambda: get(server, page).cache == "HIT", "a hit", 60)


@pytest.mark.errors
def test_service_that_is_not_there(make, origin, path):
    server = make("http://127.0.0.1:1", patience=HASTY)
    page = path()
    for _ in range(5):
        body = store(server, origin, page)
        assert_miss(server, page, body)
    assert kinds(server, "not-connected") > 0


@pytest.mark.errors
def test_connect_timeout(make, origin, path):
    """Where nobody answers at all it is over sooner than `timeout`."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(
            ("127.0.0.1", 0), backlog=0))
        for _ in range(3):      # as many as wait there; the next one hangs
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        server = make(f"http://127.0.0.1:{port}", "max_retries=0",
                      "timeout=30s store_timeout=30s connect_timeout=100ms")
        page = path()
        began = time.monotonic()
        body = store(server, origin, page)
        assert_miss(server, page, body)
        assert time.monotonic() - began < 15
        assert f"127.0.0.1, port {port}: connecting takes too long" \
            in figures(server)["LastError"]


def test_all_connections_are_in_use(make, plain, origin, path):
    """Who gets none in time has a miss, which is no failure of the service."""
    with TcpProxy(("127.0.0.1", plain.port)) as proxy:
        server = make(f"http://127.0.0.1:{proxy.port}{BASE}",
                      "max_connections=1",
                      "timeout=3s store_timeout=3s connect_timeout=3s")
        page = path()
        body = stored(server, origin, page)
        proxy.set("delay", seconds=2)
        before = int(figures(server)["Skipped"])

        def come():
            with ThreadPoolExecutor(12) as visitors:
                for res in visitors.map(lambda _: get(server, page), range(12)):
                    assert (res.status, res.body) == (200, body)
            return kinds(server, "all-in-use")

        wait_for(come, "somebody to get none", 60)
        proxy.set("pass")
        assert int(figures(server)["Skipped"]) > before
        assert_hit_again(server, page, body)


# ---- what lies there may be anything ----------------------------------------

def only(service):
    [key] = service.values
    return key


def change(service, edit):
    """EDIT(value) changes the only value, or returns another one"""
    key = only(service)
    value, tag, until = service.values[key]
    copy = json.loads(json.dumps(value))
    edited = edit(copy)
    service.values[key] = (copy if edited is None else edited, tag, until)


def flip(name):
    def edit(value):
        data = bytearray(base64.b64decode(value[name]))
        data[len(data) // 2] ^= 1
        value[name] = base64.b64encode(data).decode()
    return edit


def put(name, what):
    return lambda value: value.__setitem__(name, what)


MEMBERS = ["format", "key", "id", "expires", "head", "body", "crc32c"]

DAMAGES = {
    **{f"no {x}": lambda v, x=x: v.__delitem__(x) for x in MEMBERS},
    **{f"{x} is null": put(x, None) for x in MEMBERS},
    **{f"{x} is a list": put(x, [1]) for x in MEMBERS},
    **{f"{x} is empty": put(x, "") for x in MEMBERS},
    **{f"another {x}": flip(x) for x in ("key", "head", "body")},
    "another format": put("format", 2),
    "another id": put("id", "0" * 32),
    "an id in capitals": put("id", "A" * 32),
    "expires later": lambda v: put("expires", str(int(v["expires"]) + 1))(v),
    "expires is negative": put("expires", "-5"),
    "expires is huge": put("expires", "9" * 30),
    "body is no base64": put("body", "a!aa"),
    "body with spaces": lambda v: put("body", v["body"][:4] + " "
                                      + v["body"][5:])(v),
    "body without padding": lambda v: put("body", v["body"][:-1])(v),
    "body cut off": lambda v: put("body", v["body"][:400])(v),
    "one more member": put("more", 1),
    "a text": lambda v: "text",
    "a number": lambda v: 5,
    "null": lambda v: 0,
    "an empty object": lambda v: {},
}


def test_damaged_values_are_misses(make, plain, origin, path):
    server = make(plain.url)
    page = path()
    body = stored(server, origin, page)
    for number, (name, damage) in enumerate(DAMAGES.items(), 1):
        change(plain, damage)
        res = get(server, page)
        assert (res.status, res.cache, res.body) == (200, "MISS", body), name
        res = get(server, page)
        assert (res.status, res.cache, res.body) == (200, "HIT", body), name
        assert kinds(server, "damaged", "other-key") == number, name
    found = figures(server)
    assert found["State"] == "on" and found["GetErrors"] == "0"


def test_value_under_the_name_of_another_is_a_miss(make, plain, origin, path):
    server = make(plain.url)
    one, other = path("one"), path("other")
    stored(server, origin, one)
    first = only(plain)
    body = stored(server, origin, other, 6000)
    [second] = set(plain.values) - {first}
    plain.values[second] = plain.values[first]
    assert_miss(server, other, body)
    assert kinds(server, "other-key") == 1


# ---- TLS --------------------------------------------------------------------

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server")
    made.issue("elsewhere", names="DNS:service.example,IP:192.0.2.1")
    made.issue("expired", days=-1)
    return made


@pytest.fixture
def secure(start_service, authority):
    return lambda name="server": start_service(
        tls=(authority.cert(name), authority.key(name)))


@pytest.mark.mpm
def test_pages_are_found_over_tls(make, secure, authority, origin, path):
    service = secure()
    server = make(service.url, f"ca_file={authority.file}")
    for size in (0, 5000, 900000):
        page = path(f"p{size}")
        body = stored(server, origin, page, size)
    before = service.accepted
    for _ in range(20):
        assert_hit(server, page, body)
    assert service.accepted - before <= len(server.children())


def test_service_is_known_by_its_name(make, secure, authority, origin, path):
    service = secure()
    server = make(f"https://localhost:{service.port}{BASE}",
                  f"ca_file={authority.file}")
    page = path()
    store(server, origin, page)
    wait_for(lambda: get(server, page).cache == "HIT", "the address", 5)


@pytest.mark.errors
@pytest.mark.parametrize("certificate, options, reason", [
    ("expired", "ca_file=@CA@", "certificate has expired"),
    ("elsewhere", "ca_file=@CA@", "its certificate is for another host"),
    ("server", "", "unable to get local issuer certificate"),
    ("server", "ca_file=@OTHER@", "unable to get local issuer certificate"),
    (None, "ca_file=@CA@", ""),
], ids=["expired", "another-host", "unknown", "another-authority", "plain"])
def test_wrong_certificates(make, secure, plain, authority, origin, path,
                            tmp_path, certificate, options, reason):
    other = Authority(tmp_path)
    service = secure(certificate) if certificate else plain
    server = make(service.url.replace("http:", "https:"),
                  options.replace("@CA@", str(authority.file))
                  .replace("@OTHER@", str(other.file))
                  + f" auth_token={TOKEN}")
    page = path()
    for _ in range(3):
        body = store(server, origin, page)
        assert_miss(server, page, body)
    assert not service.requests, "the token was sent"
    assert kinds(server, "tls") > 0
    assert_explained(server, service, "TLS: " + reason)


def test_nothing_is_asked_of_the_service(make, secure, origin, path):
    server = make(secure("expired").url, "ssl_verify=off")
    stored(server, origin, path())
    assert "whoever answers" in server.log()


@pytest.mark.errors
def test_authorities_that_cannot_be_read(make, secure, origin, path, tmp_path):
    """A file that is not there is a mistake of the configuration; what is in
    it is looked at when the store begins."""
    file = tmp_path / "empty"
    file.write_text("nothing")
    server = make(secure().url, f"ca_file={file}")
    page = path()
    body = store(server, origin, page)
    assert_miss(server, page, body)
    assert f"ca_file: {file} cannot be used" in server.log()


# ---- trying again -----------------------------------------------------------

def trouble_once(service, trouble, times=1):
    service.trouble_left = times
    service.trouble = trouble


@pytest.mark.errors
def test_storing_is_tried_again(make, plain, origin, path):
    server = make(plain.url, patience="timeout=5s store_timeout=20s")
    page = path()
    origin.page(page, b"x")
    trouble_once(plain, "error 503", 2)     # looking up, and storing
    assert get(server, page).body == b"x"
    wait_for(lambda: kinds(server, "retried") == 1, "another attempt")
    wait_for(lambda: get(server, page).cache == "HIT", "a hit")


@pytest.mark.errors
def test_looking_up_is_not_tried_again(make, plain, origin, path):
    server = make(plain.url, patience="timeout=20s store_timeout=50ms")
    plain.trouble = "error 503"
    page = path()
    for _ in range(3):
        began = time.monotonic()
        store(server, origin, page)
        taken = time.monotonic() - began
        assert taken < 0.4 + MARGIN
    assert kinds(server, "503") > 0 and kinds(server, "retried") == 0


@pytest.mark.errors
@pytest.mark.parametrize("trouble, kind", [
    ("error 503", "503"), ("error 429", "429"), ("cut half-way", "ended")])
def test_looking_up_is_tried_again_when_told_so(make, plain, origin, path,
                                                trouble, kind):
    server = make(plain.url, "retry_reads=on max_retries=1",
                  patience="timeout=20s store_timeout=20s")
    page = path()
    body = stored(server, origin, page)
    trouble_once(plain, trouble)
    assert_hit(server, page, body)
    assert kinds(server, "retried") == kinds(server, kind) == 1


# ---- nothing is left behind -------------------------------------------------

def descriptors(server):
    return sum(len(os.listdir(f"/proc/{pid}/fd"))
               for pid in server.children())


@pytest.mark.errors
@pytest.mark.parametrize("count", [
    1500, pytest.param(100000, marks=pytest.mark.long)])
def test_nothing_is_left_open_where_every_tenth_answer_fails(
        make, plain, origin, path, count):
    server = make(plain.url, "max_connections=4")
    page = path()
    body = stored(server, origin, page)
    plain.fail_every = 10
    conns = [server.connect(host=HOST) for _ in range(4)]
    before, sizes = 0, {}
    for i in range(count):
        if i == 500:
            before, sizes = descriptors(server), memory(server)
        res = conns[i % 4].get(page)
        assert (res.status, res.body) == (200, body)
    after_all = descriptors(server)
    for conn in conns:
        conn.close()
    assert plain.failed > count // 20
    # libcurl has two more for each connection
    assert after_all <= before + 4 * 3 * len(server.children())
    for pid, size in memory(server).items():
        if pid in sizes:
            assert size - sizes[pid] < 16384, "KB more than before"


def memory(server):
    """KB of each child"""
    found = {}
    for pid in server.children():
        text = open(f"/proc/{pid}/status").read()
        found[pid] = int(re.search(r"VmRSS:\s+(\d+)", text)[1])
    return found


def parent(server):
    text = open(f"/proc/{server.pid}/status").read()
    return (len(os.listdir(f"/proc/{server.pid}/fd")),
            int(re.search(r"VmRSS:\s+(\d+)", text)[1]))


def test_graceful_restarts_leave_nothing(make, secure, authority, origin,
                                         path):
    server = make(secure().url, f"ca_file={authority.file}")
    page = path()
    body = stored(server, origin, page)
    for i in range(20):
        if i == 5:
            files, size = parent(server)
        server.graceful()
        assert_hit(server, page, body)
    assert parent(server)[0] <= files
    assert parent(server)[1] - size < 4096, "KB more than before"


def flags_of_sockets_to(port, pids):
    """of the descriptors of processes, as fcntl(2) has them"""
    inodes = {x.split()[9] for x in
              Path("/proc/net/tcp").read_text().splitlines()[1:]
              if x.split()[2].endswith(f":{port:04X}")}
    found = []
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:[") and link[8:-1] in inodes:
                info = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
                found.append(int(re.search(r"flags:\s*(\d+)", info)[1], 8))
    return found


def test_programs_get_no_connection_of_ours(make, plain, origin, path):
    server = make(plain.url)
    page = path()
    assert_hit(server, page, stored(server, origin, page))
    flags = flags_of_sockets_to(plain.port, server.children())
    assert flags and all(x & os.O_CLOEXEC for x in flags), flags


# ---- configuration ----------------------------------------------------------

def check(words):
    return configtest(
        SITE, names={"PROVIDER": f"CachemwStore x http {words}\n"
                     "CachemwProvider x\nCacheEnable cachemw /\n",
                     "QUICK": "on", "ORIGIN": 1, "FLAKY": 1}, extra=MODULES)


MISTAKES = [
    ("", "base_url"),
    ("base_url=ftp://h", "http:// or https:// is expected"),
    ("base_url=http://", "a host is expected"),
    ("base_url=http://h:0", "a port from 1 to 65535"),
    ("base_url=http://h:99999", "a port from 1 to 65535"),
    ("base_url=http://u:p@h", "no user or password"),
    ("base_url=http://h/?x", "a path without query"),
    ("base_url=http://[::1", "in brackets"),
    ("base_url=http://h auth_token=a auth_token_file=@TOKEN@",
     "one of the two is expected"),
    ("base_url=http://h ca_file=/etc/passwd", "base_url=https://host"),
    ("base_url=https://h ca_file=/etc/passwd ssl_verify=off", "is verified"),
    ("base_url=http://h proxy=https://p", "proxy: http://host:port"),
    ("base_url=http://h proxy=http://p/x", "proxy: http://host:port"),
    ("base_url=http://h key_encoding=md5", "sha256"),
    ("base_url=http://h max_object_size=17M", "at most 16M"),
    ("base_url=http://h max_connections=0", "a whole number from 1 to 10000"),
]


def test_mistakes_are_explained(tmp_path):
    (tmp_path / "token").write_text("x\n")
    for words, said in MISTAKES:
        status, text = check(words.replace("@TOKEN@", f"{tmp_path}/token"))
        assert status != 0, words
        assert said in text, text
