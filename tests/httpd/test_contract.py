# SPDX-License-Identifier: Apache-2.0
"""A provider that was compiled against version 1 of mod_cachemw.h as that was
frozen works with this mod_cachemw, whatever has been added since; one that
cannot work is refused, and told why."""

import pytest

from conftest import SITE
from harness.server import configtest
from test_basic import noise
from test_status import figures

MODULES = ["cachemw", "cachemw_contract"]

STORE = "CachemwStore pages @KIND@\nCachemwProvider pages\n" \
    "CacheEnable cachemw /\n"


def names(kind):
    return {"QUICK": "on", "PROVIDER": STORE.replace("@KIND@", kind)}


@pytest.mark.mpm
@pytest.mark.parametrize("kind, entries", [
    ("contract", "4"), ("contract_smaller", None), ("contract_larger", "4")])
def test_pages_make_the_round_trip(httpd, origin, path, kind, entries):
    server = httpd(SITE, names(kind), extra=MODULES)
    pages = {path(f"p{size}"): noise(size, size)
             for size in (0, 1, 5000, 50000)}
    for page, body in pages.items():
        origin.page(page, body)
        assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    server.graceful()
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.cache, res.body) == (200, "HIT", body)
    found = figures(server)
    assert found["Provider"] == kind
    assert found.get("Entries") == entries
    assert found.get("BoxBytes") == (entries and "65536")
    large = path("large")
    origin.page(large, noise(70000, 1))
    assert [server.get(large).cache for _ in range(2)] == ["MISS", "MISS"]
    assert int(figures(server)["NoSpace"]) >= 1


def test_a_304_keeps_the_body(httpd, origin, path):
    """without set_head: core sets the entry anew"""
    server = httpd(SITE, names("contract"), extra=MODULES)
    page, body = path(), noise(5000, 7)
    origin.page(page, body, age=0, etag='"e"')
    for _ in range(3):
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
    assert int(figures(server)["Revalidated"]) >= 1


@pytest.mark.errors
@pytest.mark.parametrize("kind, said", [
    ("contract_tiny", "the provider's table says that it has"),
    ("contract_tiny", "bytes, at least"),
    ("contract_flagged", "the provider's table has flags that this mod_cachemw"
     " does not know: 0x40000000"),
    ("contract_2", 'unknown provider "contract_2"'),
    ("contract_2", "its module is for version 2 of mod_cachemw.h, this is "
     "version 1: compile it with this one's"),
    ("contract most=128K", "'128K' is too large"),
])
def test_what_cannot_work_is_refused(kind, said):
    status, text = configtest(
        SITE, names={"ORIGIN": 1, "FLAKY": 1, **names(kind)}, extra=MODULES)
    assert status != 0
    assert said in text
