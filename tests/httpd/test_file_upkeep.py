# SPDX-License-Identifier: Apache-2.0
"""What becomes of a directory of files that another configuration, another user
or a sudden end has left."""

import contextlib
import http.client
import os
import stat
import struct
import time

import pytest

from conftest import SITE
from harness import Gate, settings
from harness.server import wait_for
from harness.strace import strace
from test_basic import noise
from test_file import (STORE, Store, assert_hits, assert_served,
                       cache, fill, needs_root, store,
                       wait_for_hits)    # noqa: F401
from test_status import figures

MOST = 4 << 20


def configure(store, options):
    store.server.write_conf(SITE.replace(
        "@PROVIDER@", STORE.replace("@OPTIONS@", options)))


# ---- another number of levels ------------------------------------------------

def depths(store):
    """{levels: entries}"""
    found = {}
    for one in store.files():
        level = len(one.relative_to(store.root).parts) - 1
        found[level] = found.get(level, 0) + 1
    return found


def directories(store):
    return sum(len(x[1]) for x in os.walk(store.root))


def used(store):
    """Of what comes and goes meanwhile, too, and never more than there was."""
    total = 0
    for base, _, names in os.walk(store.root):
        for name in names:
            try:
                total += os.stat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def test_another_number_of_levels_leaves_nothing_behind(httpd, origin, path,
                                                        cache):
    store = Store(httpd, cache, "dir_levels=1", "4M")
    pages = {path(f"p{n}"): noise(60000, n) for n in range(80)}
    for page, body in pages.items():
        origin.page(page, body)
    few = dict(list(pages.items())[:20])
    assert_served(store, pages)
    assert set(depths(store)) == {1}
    for levels in (2, 0, 1):
        configure(store, f"dir_levels={levels}")
        store.server.stop()
        before = used(store)
        assert before > MOST / 2
        store.again()
        for page, body in pages.items():
            assert store.server.get(page).body == body
            assert used(store) <= MOST * 1.01
        store.scanned()
        wait_for(lambda: set(depths(store)) == {levels}, "the others to go")
        wait_for_hits(store, few)
        assert_served(store, pages)
        assert figures(store.server)["Entries"] == str(len(store.files()))
        assert directories(store) <= 1 + [0, 256, 2 * len(pages)][levels]


def test_what_lay_elsewhere_does_not_come_again(httpd, origin, path, cache):
    store = Store(httpd, cache, "dir_levels=1")
    pages = fill(store, origin, path)
    kept = {x: x.read_bytes() for x in store.files()}
    for levels in (2, 1):
        configure(store, f"dir_levels={levels}")
        store.server.stop()
        for file, data in kept.items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            os.utime(file, (file.stat().st_atime, 2 ** 31))
            for one in (file.parent, file):
                os.chown(one, store.root.stat().st_uid, -1)
        store.again()
        for page, body in pages.items():
            res = store.server.get(page)
            assert (res.body, res.cache) == (body, "MISS")
        wait_for_hits(store, pages)


@pytest.mark.mpm
def test_another_number_of_levels_while_children_of_before_serve(
        httpd, origin, path, cache):
    store = Store(httpd, cache, "dir_levels=1")
    pages = fill(store, origin, path)
    slow, gate = path("slow"), Gate()
    origin.page(slow, [noise(500000), gate], framing="chunked")
    with store.server.connect() as conn:
        conn.send("GET", slow)
        wait_for(store.temps, "a temporary file")
        configure(store, "dir_levels=2")
        store.server.graceful(wait_old=False)
        assert_served(store, pages)
        assert set(depths(store)) == {1}
        gate.open()
    wait_for_hits(store, pages)
    store.scanned()
    assert depths(store) == {2: len(store.files())}
    assert_hits(store, pages)
    assert figures(store.server)["Entries"] == str(len(store.files()))


# ---- power losses ------------------------------------------------------------

def epoch_of(file):
    return struct.unpack_from("<Q", file.read_bytes(), 56)[0]


def safe_epoch(store):
    """up to which epoch of this boot the mark says that all is on the disk"""
    data = (store.root / "mark").read_bytes()
    copies = [data[at:at + 176] for at in (0, 4096) if len(data) >= at + 176]
    mark = max(copies, key=lambda x: struct.unpack_from("<Q", x, 8)[0])
    boot = struct.unpack_from("<Q", mark, 80)[0] >> 32
    return struct.unpack_from("<Q", mark, 96 + boot % 8 * 8)[0]


@pytest.mark.long
def test_a_power_loss_costs_a_minute_however_seldom_is_cleaned_up(
        httpd, origin, path, cache):
    store = Store(httpd, cache)
    store.server.stop()
    store.server.write_conf(SITE.replace(
        "@PROVIDER@", STORE.replace("cleanup_interval=1s",
                                    "cleanup_interval=1d")))
    store.again()
    page, body = path(), noise(5000)
    origin.page(page, body)
    store.server.get(page)
    epoch = epoch_of(store.files()[0])
    assert safe_epoch(store) < epoch
    begun = time.monotonic()
    wait_for(lambda: safe_epoch(store) >= epoch, "the disk", 90)
    assert time.monotonic() - begun < 75


# ---- sudden ends ------------------------------------------------------------

def after_now():
    """Expiry is kept in seconds."""
    now = time.time()
    wait_for(lambda: time.time() > now + 1.1, "another second")


def is_process(pid):
    """also one that died and that nobody has asked for yet"""
    return os.path.exists(f"/proc/{pid}")


def test_a_child_that_dies_in_a_304_leaves_the_entry(store, origin, path,
                                                     tmp_path):
    page, body = path(), noise(300000)
    origin.page(page, body, age=0, etag='"a"')
    assert store.server.get(page).body == body
    before, children = store.files(), store.server.children()

    def die():
        with contextlib.suppress(OSError, http.client.HTTPException,
                                 AssertionError):
            store.server.get(page)
        wait_for(lambda: not all(map(is_process, children)), "its end")

    strace(store.server, die, tmp_path / "calls",
           "-einject=utimensat:signal=KILL:when=1")
    after_now()
    for _ in range(2):
        res = store.server.get(page)
        assert (res.body, res.cache) == (body, "REVALIDATE")
    assert store.files() == before


def test_a_server_that_ended_in_a_304_leaves_the_entry(store, origin, path):
    pages = fill(store, origin, path)
    store.server.stop()
    for file in store.files():
        with open(file, "r+b") as writing:
            start = writing.read(100)
            writing.seek(0)
            writing.write(start)
    after_now()
    store.again()
    store.scanned()
    assert_hits(store, pages)
    assert all(origin.count(page) == 1 for page in pages)


# ---- whose it is ---------------------------------------------------------------

def test_directory_that_was_open_to_others_is_closed(httpd, origin, path,
                                                     cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    store.server.stop()
    store.root.chmod(0o2775)
    store.again()
    wait_for_hits(store, pages)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    store.server.wait_log("was open to other users (mode 2775)")


@needs_root
def test_directory_of_somebody_else_is_not_used(httpd, origin, path, cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    foreign = store.dir / "foreign"
    foreign.mkdir()
    foreign.chmod(0o777)
    os.chown(foreign, 12345, 12345)
    store.root.rename(store.dir / "old")
    foreign.rename(store.root)
    for _ in range(3):
        assert_served(store, pages)
    store.server.wait_log("belongs to another user")
    wait_for(lambda: {store.server.get(x).cache for x in pages} == {"MISS"},
             "all children to leave it")
    assert list(store.root.iterdir()) == []
    wait_for(lambda: figures(store.server)["State"]
             == "in trouble: Operation not permitted", "it to be told")
    user = settings.run_user
    os.chown(store.root, *(user[1:] if user else (0, 0)))
    wait_for_hits(store, pages)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    wait_for(lambda: figures(store.server)["State"] == "on", "it to be told")


@needs_root
def test_another_users_entries_and_mark_are_not_believed(httpd, origin, path,
                                                         cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    store.server.stop()
    for one in [store.root, *store.root.glob("**/*")]:
        os.chown(one, 12345, 12345)
        one.chmod(0o777)
    store.again()
    for page, body in pages.items():
        assert store.server.get(page).cache == "MISS"
    wait_for_hits(store, pages)
    for one in [store.root, *store.root.glob("**/")]:
        assert stat.S_IMODE(one.stat().st_mode) == 0o700, one


@needs_root
def test_what_a_stranger_puts_in_his_directory_keeps_its_owner(httpd, origin,
                                                               path, cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    store.server.stop()
    entries = [store.root, *store.root.glob("**/*")]
    for one in entries:
        os.chown(one, 12345, 12345)
    os.chown(store.dir, 12346, 12346)
    store.dir.chmod(0o755)
    store.again()
    for page, body in pages.items():
        assert store.server.get(page).body == body
    store.server.wait_log("cannot be used")
    for one in entries:
        assert one.stat().st_uid == 12345, one


@pytest.mark.parametrize("size", [1000, 300000])
def test_no_link_is_followed_to_an_entry(store, origin, path, size):
    page, body = path(), noise(size)
    origin.page(page, body)
    assert_served(store, {page: body})
    assert_hits(store, {page: body})
    file, = store.files()
    away = store.dir / "away"
    file.parent.rename(away)
    file.parent.symlink_to(away)
    kept = (away / file.name).read_bytes()
    assert store.server.get(page).cache == "MISS"
    wait_for_hits(store, {page: body})
    assert not file.parent.is_symlink()
    assert (away / file.name).read_bytes() == kept
