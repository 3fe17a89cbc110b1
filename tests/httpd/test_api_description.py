# SPDX-License-Identifier: Apache-2.0
"""docs/openapi.json says what the handler does, no more and no less: each
answer that it names is provoked and held against its description. And the
configuration of docs/http-api.md works as it is pasted."""

import json
import re
import subprocess

import pytest

from conftest import SHARED
from harness import Httpd, settings
from harness.curl import curl
from harness.faults import MODULES, write
from harness.server import free_port, wait_for
from harness.shared import assert_hit_again, get, store
from harness.values import envelope, name_of, value
from test_basic import noise

pytestmark = [pytest.mark.http, pytest.mark.errors]

DOCS = settings.source / "docs"
TOKEN = "open-sesame"

CONF = """
ServerName api.test
Listen 127.0.0.1:@PORT@
LimitRequestLine 30000
RequestReadTimeout body=1
AliasMatch "^/" "@DIR@/htdocs/none"
CachemwStore inside memory max_object_size=100K
CachemwStore tested faulty inner=inside faults=@DIR@/faults max_object_size=100K
<Location "/api">
    SetHandler cachemw-api
    CachemwApi tested auth_token=open-sesame
</Location>
<Location "/closed">
    SetHandler cachemw-api
    CachemwApi inside
</Location>
"""

FAILURES = [f"{x} error=EIO" for x in ("get", "set", "set_begin", "remove")]


@pytest.fixture(scope="module")
def spec():
    return json.loads((DOCS / "openapi.json").read_text())


@pytest.fixture(scope="module")
def server():
    with Httpd(CONF, extra=[*MODULES, "reqtimeout"]) as one:
        yield one


# ---- the description ---------------------------------------------------------

def resolved(spec, node):
    while "$ref" in node:
        assert node["$ref"].startswith("#/"), node
        found = spec
        for name in node["$ref"][2:].split("/"):
            found = found[name]
        node = found
    return node


def conforms(spec, schema, data):
    """JSON Schema, as much of it as the description uses"""
    schema = resolved(spec, schema)
    known = {"type", "properties", "required", "additionalProperties", "enum",
             "pattern", "format", "description", "minimum", "minLength",
             "exclusiveMinimum"}
    assert set(schema) <= known, set(schema) - known
    kinds = {"object": dict, "string": str, "integer": int,
             "number": (int, float)}
    assert isinstance(data, kinds[schema["type"]]), (schema, data)
    if "enum" in schema:
        assert data in schema["enum"]
    if "pattern" in schema:
        assert re.search(schema["pattern"], data), (schema, data)
    if "minimum" in schema:
        assert data > schema["minimum"] if schema.get("exclusiveMinimum") \
            else data >= schema["minimum"]
    assert len(data) >= schema["minLength"] if "minLength" in schema else True
    if schema["type"] == "object":
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(data), data
        assert schema.get("additionalProperties", True) \
            or set(data) <= set(properties), data
        for name, more in properties.items():
            if name in data:
                conforms(spec, more, data[name])


def everything(node):
    yield node
    for child in (node.values() if isinstance(node, dict) else
                  node if isinstance(node, list) else ()):
        yield from everything(child)


def test_description_is_whole(spec):
    assert spec["openapi"].startswith("3.0.")
    used = set()
    for node in everything(spec):
        if isinstance(node, dict) and "$ref" in node:
            used.add(node["$ref"])
            assert resolved(spec, node)
    for kind in ("parameters", "headers", "schemas", "responses"):
        for name in spec["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, name
    operations = [x for p in spec["paths"].values() for k, x in p.items()
                  if k != "parameters"]
    assert len({x["operationId"] for x in operations}) == len(operations) == 4


# ---- each answer -------------------------------------------------------------

KEY = b"www.example:80\0http://www.example:80/provoked?"
PATH = "/api/cache/" + name_of(KEY)
ENTRY = value(KEY)
OTHER = value(KEY, id=b"f" * 16)
JSON = "Content-Type: application/json"
MATCH = f'If-Match: "{OTHER["id"]}"'
NONE_MATCH = f'If-None-Match: "{ENTRY["id"]}"'
LONG = "/api/cache/" + "k" * 8193


def put(server, data=None, path=PATH, **more):
    return ask(server, path, data=data or envelope(ENTRY), **more)


def ask(server, path, *args, token=TOKEN, **more):
    return curl(f"http://127.0.0.1:{server.ports[0]}{path}", *args,
                token=token, **more)


def in_trouble(server, do):
    write(server, *FAILURES)
    try:
        return do()
    finally:
        write(server)


def full(server):
    write(server, "set enospc", "set_begin enospc")
    try:
        return put(server)
    finally:
        write(server)


def in_a_circle(server, *args, **more):
    tag = ask(server, PATH).fields["x-cachemw-api"]
    headers = [f"X-Cachemw-Api: {tag}"]
    return ask(server, PATH, *args, headers=headers, **more)


def too_slow(server):
    """An answer of curl's kind, made without it: it sends all it has."""
    with server.connect() as conn:
        conn.raw(f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                 f"{TOKEN}\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n{{"
                 .encode())
        res = conn.response()
    res.fields = {k.lower(): v for k, v in res.headers}
    return res


BAD_VIA = ["X-Cachemw-Api: ?"]


def common(*args, **more):
    """What any method may be answered."""
    return {
        400: lambda s: ask(s, PATH, *args, headers=BAD_VIA, **more),
        401: lambda s: ask(s, PATH, *args, **{**more, "token": "wrong"}),
        403: lambda s: ask(s, "/closed/cache/a", *args, **more),
        414: lambda s: ask(s, LONG, *args, **more),
        503: lambda s: in_trouble(s, lambda: ask(s, PATH, *args, **more)),
        508: lambda s: in_a_circle(s, *args, **more),
    }


WAYS = {
    "get": {
        200: lambda s: put(s) and ask(s, PATH),
        304: lambda s: put(s) and ask(s, PATH, headers=[NONE_MATCH]),
        412: lambda s: put(s) and ask(s, PATH, headers=[MATCH]),
        404: lambda s: ask(s, "/api/cache/none"),
        **common(),
    },
    "head": {
        200: lambda s: put(s) and ask(s, PATH, "-I"),
        304: lambda s: put(s) and ask(s, PATH, "-I", headers=[NONE_MATCH]),
        412: lambda s: put(s) and ask(s, PATH, "-I", headers=[MATCH]),
        404: lambda s: ask(s, "/api/cache/none", "-I"),
        **common("-I"),
    },
    "put": {
        204: put,
        404: lambda s: put(s, path="/api/elsewhere"),
        408: too_slow,
        412: lambda s: put(s) and put(s, headers=[MATCH, JSON]),
        413: lambda s: put(s, envelope(value(KEY, noise(200_000)))),
        415: lambda s: put(s, headers=["Content-Type: text/plain"]),
        422: lambda s: put(s, envelope(value(KEY, head=b"?"))),
        507: full,
        **common(data=envelope(ENTRY)),
        400: lambda s: put(s, b"hello"),
    },
    "delete": {
        204: lambda s: ask(s, PATH, "-X", "DELETE"),
        404: lambda s: ask(s, "/api/elsewhere", "-X", "DELETE"),
        412: lambda s: put(s) and ask(s, PATH, "-X", "DELETE",
                                      headers=[MATCH]),
        **common("-X", "DELETE"),
    },
}


def test_description_names_what_is_provoked_here_and_nothing_else(spec):
    [(path, operations)] = spec["paths"].items()
    assert path == "/cache/{key}"
    named = {method: {int(x) for x in operation["responses"]}
             for method, operation in operations.items()
             if method != "parameters"}
    assert named == {k: set(v) for k, v in WAYS.items()}


@pytest.mark.parametrize("method,status", [
    (m, s) for m, ways in WAYS.items() for s in ways])
def test_answer_is_as_described(spec, server, method, status):
    described = resolved(spec, spec["paths"]["/cache/{key}"][method]
                         ["responses"][str(status)])
    answer = WAYS[method][status](server)
    assert answer.status == status, answer
    for name, field in described.get("headers", {}).items():
        field = resolved(spec, field)
        assert name.lower() in answer.fields or not field.get("required")
        if name.lower() in answer.fields:
            conforms(spec, field["schema"], answer.fields[name.lower()])
    assert answer.fields["cache-control"] == "no-store"
    content = described.get("content")
    if content is None:
        assert status in (204, 304) and not answer.body or method == "head"
        return
    [(kind, more)] = content.items()
    assert answer.fields["content-type"] == kind
    conforms(spec, more["schema"], json.loads(answer.body))
    conforms(spec, more["schema"], more["example"])


def test_other_methods_are_answered_as_the_text_says(spec, server):
    assert "405" in spec["info"]["description"]
    for method in ("POST", "PATCH", "OPTIONS"):
        answer = ask(server, PATH, "-X", method)
        assert answer.status == 405
        allowed = {x.strip().lower()
                   for x in answer.fields["allow"].split(",")}
        assert allowed == set(WAYS)


def test_examples_of_requests_are_accepted(spec, server):
    path = spec["paths"]["/cache/{key}"]
    content = path["put"]["requestBody"]["content"]["application/json"]
    example = content["example"]
    conforms(spec, content["schema"], example)
    name = resolved(spec, path["parameters"][0])["example"]
    match = spec["components"]["parameters"]["IfMatch"]["example"]
    done = ask(server, f"/api/cache/{name}",
               data=json.dumps(example).encode())
    assert done.status == 204, done
    got = ask(server, f"/api/cache/{name}")
    shown = path["get"]["responses"]["200"]["content"]["application/json"]
    assert json.loads(got.body) == shown["example"]
    assert ask(server, f"/api/cache/{name}", "-X", "DELETE",
               headers=[f"If-Match: {match}"]).status == 204


def test_text_names_the_same_refusals(spec):
    page = (DOCS / "http-api.md").read_text()
    table = page.split("### What is refused")[1].split("\n### ")[0]
    told = {int(x) for x in re.findall(r"^\| (\d{3}) \|", table, re.M)}
    named = {int(s) for o in spec["paths"]["/cache/{key}"].values()
             if isinstance(o, dict) for s in o["responses"]}
    assert told == {s for s in named if s >= 400} | {405}


def test_handler_has_no_other_answers(spec):
    """what its source can answer, in the names of httpd.h"""
    header = (settings.includedir / "httpd.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(
        r"^#define (HTTP_[A-Z_]+)\s+(\d{3})$", header, re.M)}
    source = "".join(x.read_text() for x in
                     (settings.source / "core").glob("api*.c"))
    given = {numbers[x] for x in re.findall(r"\bHTTP_[A-Z_]+\b", source)}
    named = {int(s) for o in spec["paths"]["/cache/{key}"].values()
             if isinstance(o, dict) for s in o["responses"]}
    assert given == named | {405}


# ---- the example -------------------------------------------------------------

def example(kind):
    page = (DOCS / "http-api.md").read_text()
    block = page.split(f"<!-- example: {kind} -->\n\n")[1]
    lines = re.match(r"(?:(?:    .*)?\n)+", block)[0]
    return re.sub("^    ", "", lines, flags=re.M)


def shell(text, where):
    return subprocess.run(["sh", "-e", "-c", text], cwd=where, text=True,
                          capture_output=True, timeout=60,
                          env={"PATH": "/usr/bin:/bin"})


def test_configuration_of_the_page_works_as_it_is_pasted(httpd, origin, path,
                                                         tmp_path):
    port = free_port()

    def placed(kind):
        text = example(kind).replace("10.1.0.1:8443", f"127.0.0.1:{port}")
        text = text.replace("10.1.0.1", "127.0.0.1")
        text = text.replace("10.1.0.0/16", "127.0.0.0/8")
        text = text.replace("/etc/apache2/", f"{tmp_path}/")
        text = text.replace("cache_dir=", "cache_dir=@DIR@/cache/")
        return re.sub("^LoadModule.*$", "", text, flags=re.M)

    done = shell(placed("secrets"), tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("token", "key", "crt"):
        assert (tmp_path / f"cachemw.{name}").stat().st_mode & 0o77 == 0
    service = httpd("ServerName other.example\n" + placed("service"),
                    extra=["cachemw", "reqtimeout", "ssl", "authz_host"])
    web = [httpd(SHARED, {"QUICK": "on", "PROVIDER": placed("client")},
                 extra=["cachemw", "cachemw_http"]) for _ in range(2)]
    page = path()
    body = store(web[0], origin, page, 100_000)
    # a busy machine may take longer than the usual time for storing
    wait_for(lambda: get(web[1], page).cache == "HIT", "the page", 60)
    assert_hit_again(web[0], page, body)
    assert "cachemw:warn" not in service.log()
    command, said = re.fullmatch(r"(.*?)\n\n(.*)\n*", placed("curl"),
                                 re.S).groups()
    done = shell(command, tmp_path)
    assert done.stdout.strip() == said.strip(), done
