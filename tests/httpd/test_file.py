# SPDX-License-Identifier: Apache-2.0
"""The store in files: what is stored is there after any end of the server, and
whatever happens to its directory costs misses and log lines, nothing else."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import zlib
from pathlib import Path

import pytest

from conftest import SITE
from harness import Gate, Httpd, Reply, settings
from harness.server import processes_of, wait_for
from harness.strace import strace
from test_basic import noise
from test_status import figures

STORE = """
CachemwStore pages file cache_dir=@CACHE@ max_bytes=@MOST@ cleanup_interval=1s @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""
SIZES = [0, 1, 1000, 30000, 70000, 1000000]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Store:
    """a server with a store in files, and a look at these"""

    def __init__(self, httpd, dir, options="", most="64M"):
        self.dir = Path(dir)
        self.server = httpd(SITE, {"QUICK": "on", "PROVIDER": STORE,
                                   "CACHE": self.dir, "MOST": most,
                                   "OPTIONS": options})

    @property
    def root(self):
        return self.dir / "v1"

    def files(self):
        """entries by their path"""
        return sorted(x for x in self.root.glob("**/" + "[0-9a-f]" * 32)
                      if not x.is_dir())

    def temps(self):
        return sorted((self.root / "tmp").iterdir())

    def again(self):
        """The same server after it ended, at the same port."""
        self.server.start()

    def scanned(self):
        wait_for(lambda: figures(self.server)["ScannedPercent"] == "100",
                 "the scan")


@pytest.fixture
def cache(tmp_path):
    """where the cache directory is to be, in one that httpd's user enters"""
    for part in [tmp_path, *tmp_path.parents]:
        if part.stat().st_uid == os.geteuid() and part != Path("/tmp"):
            with contextlib.suppress(OSError):
                part.chmod(part.stat().st_mode | 0o011)
    user = settings.run_user
    if user:
        os.chown(tmp_path, user[1], user[2])
    return tmp_path / "cache"


@pytest.fixture
def store(httpd, cache):
    return Store(httpd, cache)


def fill(store, origin, path):
    """{page: body} of pages that are stored"""
    pages = {path(f"p{n}"): noise(n, n) for n in SIZES}
    for page, body in pages.items():
        origin.page(page, body)
        assert store.server.get(page).body == body
    return pages


def assert_hits(store, pages):
    for page, body in pages.items():
        res = store.server.get(page)
        assert res.complete and res.body == body
        assert res.cache == "HIT", page


def assert_misses_then_hits(store, pages):
    for page, body in pages.items():
        res = store.server.get(page)
        assert res.complete and (res.status, res.body) == (200, body)
        assert res.cache == "MISS", page
    assert_hits(store, pages)


def assert_served(store, pages):
    for page, body in pages.items():
        res = store.server.get(page)
        assert res.complete and (res.status, res.body) == (200, body)


def wait_for_hits(store, pages):
    """Until the store has recovered all answers are right, and then hits."""

    def all_hit():
        assert_served(store, pages)
        return all(store.server.get(x).cache == "HIT" for x in pages)

    wait_for(all_hit, "everything to be stored")


# ---- what lies on the disk ---------------------------------------------------

def test_directory_and_files_are_the_users_own(store, origin, path):
    fill(store, origin, path)
    user = settings.run_user
    uid = user[1] if user else os.geteuid()
    assert len(store.files()) == len(SIZES)
    for one in [store.dir, *store.dir.glob("**/*")]:
        info = one.lstat()
        assert info.st_uid == uid, one
        assert stat.S_IMODE(info.st_mode) == \
            (0o700 if one.is_dir() else 0o600), one
    assert store.temps() == []


def test_one_file_per_entry_and_few_directories(store, origin, path):
    for n in range(300):
        page = path(f"{n}")
        origin.page(page, b"x")
        store.server.get(page)
    assert len(store.files()) == 300
    assert len([x for x in store.root.iterdir() if x.is_dir()]) <= 257


def test_a_304_does_not_write_the_body_anew(store, origin, path):
    page, body = path(), noise(1000000)
    origin.page(page, body, age=0, etag='"a"')
    store.server.get(page)
    file, = store.files()
    inode = file.stat().st_ino
    content = file.read_bytes()
    for _ in range(5):
        assert store.server.get(page).body == body
    file, = store.files()
    assert file.stat().st_ino == inode
    assert file.read_bytes().index(body) == content.index(body)
    assert file.stat().st_size < len(content) + 8192


# ---- ends of the server ------------------------------------------------------

def test_content_outlives_a_stop(store, origin, path):
    pages = fill(store, origin, path)
    store.server.stop()
    store.again()
    assert_hits(store, pages)
    store.scanned()
    assert figures(store.server)["Entries"] == str(len(pages))
    assert_hits(store, pages)
    assert all(origin.count(page) == 1 for page in pages)


def kill_all(server):
    """SIGKILL of the parent first, as the system does when memory is short."""
    group = server.pid
    os.kill(group, signal.SIGKILL)
    server.process.wait()
    for pid in processes_of(group):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not processes_of(group), "everything to end")
    server.process = None
    Httpd.live.remove(server)


def test_content_outlives_sigkill_of_the_parent(store, origin, path):
    pages = fill(store, origin, path)
    kill_all(store.server)
    store.again()
    assert_hits(store, pages)


def test_what_a_killed_server_left_half_written_goes(store, origin, path):
    page, gate = path(), Gate()
    origin.page(page, [noise(500000), gate], framing="chunked")
    with store.server.connect() as conn:
        conn.send("GET", page)
        wait_for(store.temps, "a temporary file")
        kill_all(store.server)
    gate.open()
    assert store.temps()
    store.again()
    wait_for(lambda: not store.temps(), "the temporary file to go")
    store.scanned()
    now = figures(store.server)
    assert (now["Entries"], now["ReservedBytes"]) == ("0", "0")


def test_content_outlives_restarts(store, origin, path):
    pages = fill(store, origin, path)
    store.server.graceful()
    assert_hits(store, pages)
    assert figures(store.server)["Entries"] == str(len(pages))


def test_another_index_waits_for_children_of_before(httpd, origin, path, cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    slow, gate = path("slow"), Gate()
    origin.page(slow, [noise(500000), gate], framing="chunked")
    with store.server.connect() as conn:
        conn.send("GET", slow)
        wait_for(store.temps, "a temporary file")
        store.server.write_conf(SITE.replace(
            "@PROVIDER@", STORE.replace("@OPTIONS@", "index_size=8M")))
        store.server.graceful(wait_old=False)
        assert_served(store, pages)
        assert all(store.server.get(x).cache == "MISS" for x in pages)
        store.server.wait_log("children of before a restart")
        gate.open()
    wait_for_hits(store, pages)


# ---- damage ------------------------------------------------------------------

def cut(file):
    with open(file, "r+b") as f:
        f.truncate(file.stat().st_size - 1)


def empty(file):
    file.write_bytes(b"")


def foreign(file):
    file.write_bytes(b"Dear diary, " * 10000)


def newer(file):
    data = bytearray(file.read_bytes())
    data[8] += 1
    file.write_bytes(data)


def flipped(at):
    def flip(file):
        data = bytearray(file.read_bytes())
        data[at % len(data)] ^= 0x10
        file.write_bytes(data)
    flip.__name__ = f"flipped {at}"
    return flip


def link(file):
    copy = file.with_name("copy")
    file.rename(copy)
    file.symlink_to(copy)


def directory(file):
    file.unlink()
    file.mkdir()


def pipe(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("damage", [
    cut, empty, foreign, newer, flipped(0), flipped(30), flipped(75),
    flipped(150), flipped(300), link, directory, pipe],
    ids=lambda x: x.__name__.replace(" ", "-"))
@pytest.mark.parametrize("size", [1000, 200000])
def test_damaged_file_is_a_miss(store, origin, path, damage, size):
    page, body = path(), noise(size)
    origin.page(page, body)
    store.server.get(page)
    file, = store.files()
    damage(file)
    if settings.run_user and file.exists() and not file.is_symlink():
        os.chown(file, *settings.run_user[1:])
    assert_misses_then_hits(store, {page: body})
    file, = store.files()
    assert file.is_file() and not file.is_symlink()


def test_damaged_small_body_is_a_miss(store, origin, path):
    page, body = path(), noise(5000)
    origin.page(page, body)
    store.server.get(page)
    file, = store.files()
    flipped(-2000)(file)
    assert_misses_then_hits(store, {page: body})


def test_another_entrys_file_is_a_miss(store, origin, path):
    pages = {path("a"): noise(900, 1), path("b"): noise(900, 2)}
    for page, body in pages.items():
        origin.page(page, body)
    a, b = pages
    store.server.get(a)
    first, = store.files()
    content = first.read_bytes()
    store.server.get(b)
    second, = set(store.files()) - {first}
    second.write_bytes(content)
    assert_hits(store, {a: pages[a]})
    assert_misses_then_hits(store, {b: pages[b]})


# ---- hostile surroundings ----------------------------------------------------

def test_deleted_directory_comes_again(store, origin, path):
    pages = fill(store, origin, path)
    shutil.rmtree(store.dir)
    wait_for_hits(store, pages)
    assert len(store.files()) == len(pages)


@pytest.mark.parametrize("what", ["root", "tmp", "levels", "mark", "content"])
def test_parts_of_the_directory_deleted(store, origin, path, what):
    pages = fill(store, origin, path)
    if what == "root":
        shutil.rmtree(store.root)
    elif what == "tmp":
        shutil.rmtree(store.root / "tmp")
    elif what == "mark":
        (store.root / "mark").unlink()
    else:
        for one in store.root.iterdir():
            if len(one.name) == 2:
                shutil.rmtree(one)
                if what == "content":
                    one.symlink_to("/etc")
    wait_for_hits(store, pages)
    more = path("more")
    origin.page(more, noise(5000))
    assert_misses_then_hits(store, {more: noise(5000)})


def test_start_with_its_temporary_directory_gone(httpd, origin, path, cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    store.server.stop()
    shutil.rmtree(store.root / "tmp")
    store.again()
    assert_hits(store, pages)
    # until all is known what is stored may drive out what is
    store.scanned()
    page, body = path("new"), noise(5000)
    origin.page(page, body)
    wait_for_hits(store, {page: body})
    assert_hits(store, pages)


def test_directory_with_something_in_it_at_an_entrys_name(store, origin, path):
    page, body = path("one"), noise(5000)
    origin.page(page, body)
    store.scanned()
    assert_served(store, {page: body})
    there, = store.files()
    there.unlink()
    there.mkdir()
    (there / "notes").write_text("mine")
    for _ in range(3):
        assert_served(store, {page: body})
    others = {path(f"o{n}"): noise(100, n) for n in range(200)}
    for other, content in others.items():
        origin.page(other, content)
    assert_misses_then_hits(store, others)
    assert (there / "notes").read_text() == "mine"


def test_directory_moved_away(httpd, origin, path, cache):
    store = Store(httpd, cache)
    pages = {path(f"s{n}"): noise(1000, n) for n in range(10)}
    for page, body in pages.items():
        origin.page(page, body)
    assert_misses_then_hits(store, pages)
    old = cache / "old"
    store.root.rename(old)
    kept = sorted(old.glob("**/*"))
    store.server.wait_log("has been removed or replaced")

    def all_hit():
        assert_served(store, pages)
        return (len(store.files()) == len(pages)
                and all(store.server.get(x).cache == "HIT" for x in pages))

    wait_for(all_hit, "everything to be stored where the directory was")
    assert sorted(old.glob("**/*")) == kept


@needs_root
def test_full_disk(httpd, origin, path, cache):
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs",
                    str(cache)], check=True)
    try:
        store = Store(httpd, cache / "files")
        pages = {path(f"p{n}"): noise(300000, n) for n in range(20)}
        for page, body in pages.items():
            origin.page(page, body)
        assert_served(store, pages)
        assert_served(store, pages)
        store.server.wait_log("there is less space than max_bytes says")
        assert 5 <= len(store.files()) <= 10
        assert store.temps() == []
        subprocess.run(["mount", "-o", "remount,size=30m", str(cache)],
                       check=True)
        assert_served(store, pages)
        assert_hits(store, pages)
        store.server.stop()
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


@needs_root
def test_read_only_file_system(httpd, origin, path, cache):
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m,mode=755", "tmpfs",
                    str(cache)], check=True)
    try:
        store = Store(httpd, cache / "files")
        pages = fill(store, origin, path)
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        assert_hits(store, pages)
        more = {path("more"): noise(5000)}
        for page, body in more.items():
            origin.page(page, body)
        assert_served(store, more)
        assert_served(store, more)
        store.server.wait_log("Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(cache)], check=True)
        assert_served(store, more)
        assert_hits(store, {**pages, **more})
        store.server.stop()
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


@needs_root
def test_directory_that_may_not_be_entered(httpd, origin, path, cache):
    outer = cache.parent / "closed"
    outer.mkdir(mode=0o700)
    store = Store(httpd, outer / "cache")
    page, body = path(), noise(5000)
    origin.page(page, body)
    assert_served(store, {page: body})
    assert store.server.get(page).cache == "MISS"
    store.server.wait_log("cannot be used")
    assert "Permission denied" in store.server.log()
    outer.chmod(0o755)
    wait_for_hits(store, {page: body})


def test_second_server_waits_for_the_first(httpd, origin, path, cache):
    first = Store(httpd, cache)
    pages = fill(first, origin, path)
    second = Store(httpd, cache)
    assert_served(second, pages)
    assert all(second.server.get(x).cache == "MISS" for x in pages)
    second.server.wait_log("is used by another server")
    assert_hits(first, pages)
    assert figures(first.server)["Entries"] == str(len(pages))
    first.server.stop()
    wait_for_hits(second, pages)
    second.scanned()
    assert figures(second.server)["Entries"] == str(len(second.files()))


def test_cache_dir_that_is_a_link_is_refused(httpd, origin, path, cache):
    target = cache.parent / "target"
    target.mkdir()
    before = target.stat()
    cache.symlink_to(target)
    store = Store(httpd, cache)
    page, body = path(), noise(5000)
    origin.page(page, body)
    assert_served(store, {page: body})
    store.server.wait_log("a link or a file where a directory is expected")
    assert list(target.iterdir()) == []
    assert target.stat().st_uid == before.st_uid


@needs_root
def test_another_user_gets_the_directories_but_no_link(httpd, origin, path,
                                                       cache):
    victim = cache.parent / "victim"
    victim.mkdir()
    (victim / "file").write_text("root's")
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    store.server.stop()
    other = 12345
    for one in [store.dir, *store.dir.glob("**/*")]:
        os.chown(one, other, other)
    shutil.rmtree(store.root / "00", ignore_errors=True)
    (store.root / "00").symlink_to(victim)
    os.link(victim / "file", store.root / "hard")
    os.chown(victim / "file", 0, 0)
    store.again()
    uid = settings.run_user[1]
    assert store.dir.stat().st_uid == store.root.stat().st_uid == uid
    assert (store.root / "tmp").stat().st_uid == uid
    for one in [victim, victim / "file", store.root / "00"]:
        assert one.lstat().st_uid == 0, one
    wait_for_hits(store, pages)
    assert [x.name for x in victim.iterdir()] == ["file"]


def test_old_names_that_are_none_are_left_alone(httpd, origin, path, cache):
    store = Store(httpd, cache)
    pages = fill(store, origin, path)
    notes = store.root / "notes.txt"
    notes.write_text("mine")
    store.server.stop()
    store.again()
    store.scanned()
    assert_hits(store, pages)
    assert notes.read_text() == "mine"


# ---- bounds ------------------------------------------------------------------

def disk_used(store):
    return sum((x.stat().st_blocks * 512 for x in
                store.files() + store.temps()), 0)


def test_bytes_on_the_disk_stay_below_the_cap(httpd, origin, path, cache):
    store = Store(httpd, cache, "max_entries=500")
    for n in range(700):
        page = path(f"{n}")
        origin.page(page, noise(100 + n * 37 % 30000, n))
        store.server.get(page)
        if n % 50 == 0:
            assert disk_used(store) <= 64 << 20
    assert len(store.files()) <= 505
    assert int(figures(store.server)["Entries"]) == len(store.files())


def test_expired_entries_go_without_traffic(httpd, origin, path, cache):
    store = Store(httpd, cache, "keep=0")
    page = path()
    origin.page(page, b"x", age=1)
    store.server.get(page)
    wait_for(lambda: figures(store.server)["Expired"] == "1", "the sweep")
    assert figures(store.server)["Stores"] == "1"
    assert store.files() == []


def test_max_file_age(httpd, origin, path, cache):
    store = Store(httpd, cache, "max_file_age=2s")
    page = path()
    origin.page(page, b"x", age=1000)
    wait_for(lambda: store.server.get(page).cache == "HIT", "a hit")
    wait_for(lambda: store.server.get(page).cache == "MISS", "the age")


# ---- what a hit costs --------------------------------------------------------

def calls_of(server, run, log):
    return strace(server, run, log, "-y").splitlines()


def store_calls(store, lines):
    """names of the calls that have to do with the cache directory"""
    found = [re.match(r"\d+ +(\w+)\(", x) for x in lines
             if str(store.dir) in x]
    return [m[1] for m in found if m]


def test_a_small_hit_is_one_open_one_read_and_one_close(store, origin, path,
                                                        tmp_path):
    page, body = path(), noise(5000)
    origin.page(page, body)
    store.server.get(page)
    assert_hits(store, {page: body})
    lines = calls_of(store.server,
                     lambda: assert_hits(store, {page: body}),
                     tmp_path / "calls")
    assert store_calls(store, lines) in (["openat2", "pread64", "close"],
                                         ["openat", "pread64", "close"])


def test_a_large_hit_writes_and_renames_nothing(store, origin, path, tmp_path):
    page, body = path(), noise(500000)
    origin.page(page, body)
    store.server.get(page)
    lines = calls_of(store.server,
                     lambda: assert_hits(store, {page: body}),
                     tmp_path / "calls")
    calls = store_calls(store, lines)
    assert calls.count("openat") == 1
    assert not set(calls) & {"write", "pwrite64", "rename", "renameat",
                             "renameat2", "unlinkat", "getdents64", "fsync",
                             "fdatasync", "syncfs", "utimensat"}
    assert len(calls) < 12, calls


def test_a_miss_makes_no_call_once_the_scan_is_done(store, origin, path,
                                                    tmp_path):
    store.scanned()
    page = path()
    origin.on(page, Reply(b"x", [("Cache-Control", "no-store")]))
    lines = calls_of(store.server, lambda: store.server.get(page),
                     tmp_path / "calls")
    assert store_calls(store, lines) == []


# ---- large -------------------------------------------------------------------

def rss_kb(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+)", text, re.M)[1])


def fetch(server, page):
    """(X-Cache, length, checksum) of a body that is too long to be kept"""
    with socket.create_connection(server.addr(), timeout=60) as sock:
        sock.sendall(b"GET %s HTTP/1.0\r\nHost: cachemw.test:%d\r\n\r\n"
                     % (page.encode(), server.ports[0]))
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        head, _, data = data.partition(b"\r\n\r\n")
        length, crc = len(data), zlib.crc32(data)
        while data := sock.recv(1 << 20):
            length += len(data)
            crc = zlib.crc32(data, crc)
    return re.search(rb"^X-Cache: (\w+)", head, re.M)[1], length, crc


@pytest.mark.long
@pytest.mark.parametrize("files", ["EnableMMAP on", "EnableMMAP off",
                                   "EnableSendfile on"])
def test_a_gigabyte_costs_no_memory(httpd, origin, path, cache, files):
    store = Store(httpd, cache, f"max_object_size=2G\n{files}", "8G")
    piece, times = noise(1 << 20), 1024
    crc = 0
    for _ in range(times):
        crc = zlib.crc32(piece, crc)
    small, page = path("small"), path("large")
    origin.page(small, piece)
    for _ in range(8):
        store.server.get(small)
    origin.page(page, [piece] * times, framing="chunked")
    before = {pid: rss_kb(pid) for pid in store.server.children()}
    assert fetch(store.server, page) == (b"MISS", times << 20, crc)
    assert fetch(store.server, page) == (b"HIT", times << 20, crc)
    for pid in store.server.children():
        assert rss_kb(pid) - before[pid] < 8192
