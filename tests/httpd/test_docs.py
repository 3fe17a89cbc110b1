# SPDX-License-Identifier: Apache-2.0
"""docs/directives.md says what the module's tables say, no more and no less;
and every example can be pasted."""

import re
import subprocess

import pytest

from harness import Httpd, configtest, settings
from harness.server import MODULES

LISTEN = "ServerName x\nListen 127.0.0.1:@PORT@\n"
MODULES_OF_OURS = ["cachemw", "cachemw_http", "cachemw_redis",
                   "cachemw_sqlite"]
PAGE = settings.source / "docs" / "directives.md"


@pytest.fixture(scope="module")
def dump():
    """{section: [(name, type, default, range), …]} as the module prints it"""
    server = Httpd(LISTEN, extra=MODULES_OF_OURS)
    try:
        done = subprocess.run(
            server.command + ["-t", "-D", "DUMP_CACHEMW_OPTIONS"],
            capture_output=True, text=True, check=True, cwd="/")
    finally:
        server.remove()
    sections = {}
    for line in done.stdout.splitlines():
        head = re.fullmatch(r"\[(\w+)\]", line)
        if head:
            rows = sections[head[1]] = []
        else:
            fields = line.split("\t")
            assert len(fields) == 5, line
            assert fields[4] != "-", f"{fields[0]} has no help"
            rows.append(tuple(fields[:4]))
    return sections


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text()


def tables(page):
    """{section: rows} of the tables behind the marks of the page"""
    found = {}
    for mark in re.finditer(r"<!-- options: (\w+) -->\n+((?:\|.*\n)+)", page):
        lines = mark[2].splitlines()
        assert set(lines[1]) <= set("|-: "), lines[1]
        rows = [[x.strip().strip("`") for x in line.strip("|").split("|")]
                for line in lines[2:]]
        assert mark[1] not in found, f"{mark[1]} is there twice"
        found[mark[1]] = [tuple(x[:4]) for x in rows]
        assert all(len(x) == 5 and len(x[4]) > 10 for x in rows), mark[1]
    return found


def test_every_option_is_documented_as_it_is(dump, page):
    documented = tables(page)
    assert sorted(documented) == sorted(dump)
    for section, rows in dump.items():
        assert documented[section] == rows, section


def directives_of_the_module():
    names = set()
    for file in [settings.source / "mod_cachemw.c",
                 *sorted((settings.source / "core").glob("*.[ch]"))]:
        names |= set(re.findall(r'"(Cachemw[A-Z]\w*)"', file.read_text()))
    return names


def test_every_directive_is_documented_and_no_other(page):
    names = directives_of_the_module()
    assert {"CachemwStore", "CachemwProvider", "CachemwNamespace"} <= names
    heads = re.findall(r"^## (Cachemw\w+) Directive$", page, re.M)
    assert sorted(heads) == sorted(names)
    for name in names:
        part = page.split(f"## {name} Directive\n")[1].split("\n## ")[0]
        for row in ("Description", "Syntax", "Default", "Context", "Status",
                    "Module"):
            assert f"| **{row}:** |" in part, f"{name} lacks {row}"
        assert f"`{name} " in part.split("**Syntax:**")[1].split("\n")[0]


def test_every_directive_is_known_to_httpd():
    """… and a name that is not is refused, or this test could not fail."""
    for name, known in [(x, True) for x in directives_of_the_module()] + [
            ("CachemwNothing", False)]:
        server = Httpd(f"ServerName x\nListen 127.0.0.1:@PORT@\n{name}\n",
                       extra=["cachemw"])
        try:
            rc, said = server.configtest()
        finally:
            server.remove()
        assert rc != 0
        assert ("Invalid command" not in said) == known, said


def examples(page):
    """The indented or fenced blocks of the page that are httpd's."""
    page = re.sub(r"^```\w*\n(.*?)^```$",
                  lambda m: re.sub("^", "    ", m[1], flags=re.M), page,
                  flags=re.M | re.S)
    blocks = re.findall(r"(?:^    .*\n(?:[ ]*\n(?=    ))*)+", page, re.M)
    blocks = [re.sub("^    ", "", x, flags=re.M) for x in blocks]
    return [x for x in blocks if re.match(
        r"(?:#.*\n)*(?:LoadModule|(?:Cache|Proxy|Request)\w*|<\w+)\s", x)]


@pytest.mark.parametrize("name,least", [
    ("README.md", 1), ("docs/directives.md", 5), ("docs/operations.md", 0),
    ("docs/http-api.md", 1)])
def test_examples_are_accepted(name, least, tmp_path):
    """Every example passes configtest as it is pasted, but for its LoadModule
    lines and the places of files, together with the stores that the examples
    before it define."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    found = examples((settings.source / name).read_text())
    assert len(found) >= least
    named = {}
    for block in found:
        text = re.sub("^LoadModule.*$", "", block, flags=re.M)
        text = re.sub(r"(token|password|secret|ca)_file=\S+",
                      rf"\1_file={secret}", text)
        own = set(re.findall(r"CachemwStore\s+(\S+)", text))
        used = set(re.findall(r"CachemwProvider\s+(\S+)\s*$", text, re.M))
        extra = "\n".join(v for k, v in named.items() if k not in own)
        extra += "".join(f"\nCachemwStore {x} memory" for x in
                         used - own - set(named) - {"memory"})
        rc, said = configtest(f"{LISTEN}{extra}\n{text}",
                              extra=MODULES_OF_OURS + ["authz_host"])
        assert rc == 0, f"{text}\n{said}"
        for line in re.findall(r"^CachemwStore.*", text, re.M):
            named[line.split()[1]] = line


def test_sample_configuration_is_accepted_and_keeps_cookies_out():
    """conf/cachemw.conf, what a2enmod switches on"""
    sample = settings.source / "conf" / "cachemw.conf.in"
    text = sample.read_text().replace("@CACHEDIR@", "/tmp")
    assert re.search(r"^\s*#?\s*CacheIgnoreHeaders\s+Set-Cookie", text, re.M)
    assert "<IfModule mod_cachemw.c>" in text
    live = re.sub(r"@\w+@", "x", text)
    # every directive that is commented out is correct as well
    awake = re.sub(r"^(\s*)#\s?((?:Cache|<|</)\w+.*)$", r"\1\2", live,
                   flags=re.M)
    without = [x for x in MODULES if x != "cache"]
    for conf in (live, awake):
        for modules in (MODULES, without):
            rc, said = configtest(LISTEN + conf, modules=modules,
                                  loglevel="info",
                                  extra=["cachemw"])
            assert rc == 0, f"{conf}\n{said}"
            assert ("mod_cache is not loaded" in said) == (modules == without)
