# SPDX-License-Identifier: Apache-2.0
"""The provider sqlite on a real server: what is stored survives, others may use
the database meanwhile, and whatever happens to its files, no visitor notices."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from conftest import SITE
from harness import Httpd, settings
from harness.server import wait_for
from harness.shared import is_hit
from harness.storm import PATIENCE, Storm
from harness.strace import strace
from test_basic import noise
from test_file_kills import kill_some
from test_kills import CROWDED
from test_status import figures

MODULES = ["cachemw", "cachemw_sqlite"]

STORE = """
CachemwStore pages sqlite db_path=@DB@ cleanup_interval=1s @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""

pytestmark = [pytest.mark.sqlite]


@pytest.fixture
def make(httpd):
    """a store that waits for others as long as a busy machine may need"""
    def start(options="", db="@DIR@/cache/db/cache.db", conf=SITE,
              patience="5s"):
        return httpd(conf, {"QUICK": "on", "PROVIDER": STORE, "DB": db,
                            "OPTIONS": f"busy_timeout={patience} {options}"},
                     extra=MODULES)
    return start


@pytest.fixture
def server(make):
    return make()


def db_of(server, suffix=""):
    return server.dir / "cache" / "db" / f"cache.db{suffix}"


def connect(server):
    return sqlite3.connect(db_of(server), timeout=10, isolation_level=None)


def ask_db(server, text, *values):
    db = connect(server)
    try:
        return db.execute(text, values).fetchall()
    finally:
        db.close()


def fill(server, origin, path, count=20, size=9000):
    pages = {path(f"p{i}"): noise(1 + size * i % 200000, i)
             for i in range(count)}
    for page, body in pages.items():
        origin.page(page, body, etag='"1"')
        assert server.get(page).body == body
    return pages


def assert_hits(server, pages):
    for page, body in pages.items():
        res = server.get(page)
        assert (res.cache, res.body) == ("HIT", body), page


def assert_recovers(server, origin, path, name, seconds=15):
    """a page of its own is stored and found, sooner or later"""
    body = noise(5000, 99)
    page = path(name)
    origin.page(page, body)

    wait_for(lambda: is_hit(server, page, body), "the store to work again", seconds)


def is_counted(server):
    return ask_db(server, "SELECT entries = (SELECT count(*) FROM cache_entries)"
                  " FROM cache_entries_state") == [(1,)]


def assert_sound(server):
    """SQLite finds nothing wrong, and the figures kept are those counted"""
    assert ask_db(server, "PRAGMA integrity_check") == [("ok",)]
    assert is_counted(server)
    assert ask_db(server, "SELECT bytes FROM cache_entries_state") \
        == ask_db(server, "SELECT coalesce(sum(length(key) + length(head)"
                  " + body_len), 0) FROM cache_entries")
    assert ask_db(server, "SELECT count(*) FROM cache_entries_chunks WHERE id"
                  " NOT IN (SELECT id FROM cache_entries_bodies)") == [(0,)]


def crash(server):
    """SIGKILL for the parent, then for whom it leaves behind"""
    Httpd.live.remove(server)
    group = server.pid
    os.kill(group, signal.SIGKILL)
    server.process.wait(10)
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.process = None


# ---- what is stored stays ---------------------------------------------------

@pytest.mark.mpm
def test_content_survives_a_stop(server, origin, path):
    pages = fill(server, origin, path)
    server.stop()
    server.start()
    assert_hits(server, pages)
    assert_sound(server)


@pytest.mark.mpm
def test_content_survives_the_death_of_the_parent(server, origin, path):
    pages = fill(server, origin, path)
    crash(server)
    server.start()
    assert_hits(server, pages)
    assert_sound(server)


def kill_in_a_storm(httpd, origin, path, kills):
    """children and the sweeper, at any instant"""
    chance = random.Random("sqlite")
    killed = 0
    with Storm() as storm:
        server = httpd(storm.proxied(SITE), {
            "QUICK": "on", "PROVIDER": CROWDED, "PAGES": "sqlite "
            "db_path=@DIR@/cache/db/cache.db max_bytes=4M max_entries=300 "
            "keep=0 max_object_size=1M cleanup_interval=1s"}, extra=MODULES)
        full = len(server.children())
        storm.visitors(server.ports[0], 3, 6)
        time.sleep(1)
        while killed < kills:
            killed += kill_some(server, chance, full)
        seen, slowest, wrong = storm.finish()
    print(f"{settings.mpm}: {killed} killed; {dict(seen)}; slowest "
          f"{slowest:.2f} s")
    assert not wrong, wrong[:3]
    assert seen["verified"] > 5 * kills and seen["HIT"] > 0
    assert slowest < PATIENCE
    pages = fill(server, origin, path, size=3000)
    for page, body in pages.items():
        assert server.get(page).body == body, "with 50 ms one may be missing"
    assert_hits(server, pages)
    assert_sound(server)
    server.new_log()            # full of deaths
    assert db_of(server).stat().st_size <= 4 << 20
    assert not db_of(server, "-aside").exists()


@pytest.mark.mpm
def test_children_killed_under_load(httpd, origin, path):
    kill_in_a_storm(httpd, origin, path, 30)


@pytest.mark.long
@pytest.mark.mpm
def test_many_children_killed_under_load(httpd, origin, path):
    kill_in_a_storm(httpd, origin, path, 300)


def test_file_stays_within_max_bytes(make, origin, path):
    server = make("max_bytes=2M")
    for i in range(200):
        page = path(f"p{i}")
        origin.page(page, noise(10000 + 700 * i % 90000, i))
        server.get(page)
        assert db_of(server).stat().st_size <= 2 << 20
    assert server.get(page).cache == "HIT"
    assert server.get(path("p0")).cache == "MISS", "the oldest made room"
    assert int(figures(server)["Evictions"]) > 100
    assert_sound(server)


# ---- others at the database -------------------------------------------------

def test_figures_of_the_store(make, origin, path):
    server = make("max_entries=50")
    for i in range(60):
        page = path(f"p{i}")
        origin.page(page, b"x" * 1000,
                    headers=[("Cache-Control", "max-age=60")])
        server.get(page)
    found = figures(server)
    assert found["Provider"] == "sqlite"
    assert (found["Entries"], found["EntriesMax"]) == ("50", "50")
    assert int(found["ActiveEntries"]) + int(found["Expired"]) >= 50
    assert 50000 < int(found["Bytes"]) < int(found["DatabaseBytes"])
    assert int(found["DatabaseBytes"]) <= int(found["BytesMax"]) == 256 << 20


def documented_queries():
    page = (settings.source / "docs" / "operations.md").read_text()
    part = page.split("### sqlite\n")[1].split("\n## ")[0].split("\n### ")[0]
    found = re.findall(r"^    sqlite3 \S+ (\"[^\"]*\")", part, re.M)
    return [x.strip('"') for x in found]


def test_documented_queries_work_while_the_server_runs(server, origin, path):
    fill(server, origin, path)
    queries = documented_queries()
    assert len(queries) >= 3
    answers = []
    for query in queries:
        done = subprocess.run(["sqlite3", str(db_of(server)), query],
                              capture_output=True, text=True, check=True)
        assert not done.stderr
        answers.append(done.stdout)
    assert any(path("p").rsplit("/", 1)[0] in x for x in answers)
    assert all(answers[:3])


def test_entries_deleted_by_hand_are_gone(server, origin, path):
    pages = fill(server, origin, path)
    page = next(x for x, body in pages.items() if len(body) > 70000)
    done = subprocess.run(
        ["sqlite3", str(db_of(server)), "DELETE FROM cache_entries WHERE "
         f"number IN (SELECT number FROM cache_entries_pages WHERE url LIKE "
         f"'%{page}?')"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.get(page).cache == "MISS"
    assert_hits(server, pages)
    assert_sound(server)


def both_serve(*servers):
    return all(int(figures(x)["Hits"]) > 200 for x in servers)


def touched(server):
    return ask_db(server, "SELECT touched FROM cache_entries_state")[0][0]


def test_two_idle_servers_on_one_file(make, origin, path):
    """do not answer each other's notes of the length of the log"""
    first = make()
    second = make(db=str(db_of(first)))
    for one in (first, second):
        wait_for(one.sweepers, "the sweeper")
    fill(first, origin, path, 3)
    time.sleep(2.5)
    before = touched(first)
    time.sleep(6)
    assert touched(first) <= before + 2
    fill(second, origin, path, 3)
    wait_for(lambda: touched(first) > before, "one to note the change", 10)


def test_two_servers_on_one_file(make, origin, path):
    with Storm() as storm:
        conf = storm.proxied(SITE) + "CachemwNamespace both\n"
        options = "max_bytes=64M max_entries=300 keep=0"
        first = make(options, conf=conf)
        second = make(options, conf=conf, db=str(db_of(first)))
        for one in (first, second):
            storm.visitors(one.ports[0], 1, 4)
        wait_for(lambda: both_serve(first, second), "enough requests", 60)
        seen, slowest, wrong = storm.finish()
    print(f"{dict(seen)}; slowest {slowest:.2f} s")
    assert not wrong, wrong[:3]
    assert seen["cut"] == 0
    assert seen["verified"] > 200 and seen["HIT"] > 0
    for one in (first, second):
        assert "locked" not in one.log() and "-aside" not in one.log()
    page = path()
    origin.page(page, b"shared")
    host = f"cachemw.test:{first.ports[0]}"
    assert first.get(page, host=host).cache == "MISS"
    res = second.get(page, host=host)
    assert (res.cache, res.body) == ("HIT", b"shared")
    assert_sound(first)


class Slow(threading.Thread):
    """reads a page as slowly as it may"""

    def __init__(self, server, page):
        super().__init__(daemon=True)
        self.server, self.page, self.got, self.end = server, page, 0, False

    def run(self):
        with self.server.connect(timeout=60) as conn:
            conn.sock.sendall(f"GET {self.page} HTTP/1.1\r\nHost: "
                              f"cachemw.test:{self.server.ports[0]}\r\n\r\n"
                              .encode())
            while not self.end:
                self.got += len(conn.sock.recv(4000))
                time.sleep(0.05)


def soak(make, origin, path, seconds):
    server = make("max_bytes=64M")
    page = path("large")
    body = noise(8000000, 5)
    origin.page(page, body)
    assert server.get(page).body == body
    readers = [Slow(server, page) for _ in range(6)]
    for one in readers:
        one.start()
    began, n, most = time.monotonic(), 0, 0
    while time.monotonic() < began + seconds \
            or (n < 300 and time.monotonic() < began + 60):
        other = path(f"p{n}")
        origin.page(other, noise(60000, n % 7))
        server.get(other)
        n += 1
        most = max(most, db_of(server, "-wal").stat().st_size)
    for one in readers:
        one.end = True
        one.join(10)
    print(f"{n} stores, the log had at most {most / 1e6:.1f} MB")
    assert n * 60000 > 16 << 20, "too few stores to tell"
    assert most < 34 << 20, "from 32 MB on nothing is stored"
    assert all(x.got > 50000 for x in readers)
    assert_sound(server)


def test_log_stays_small_with_slow_readers(make, origin, path):
    soak(make, origin, path, 6)


@pytest.mark.long
def test_log_stays_small_with_slow_readers_for_long(make, origin, path):
    soak(make, origin, path, 120)


def log_begun(server):
    """how often the log has begun again at its front"""
    return int.from_bytes(db_of(server, "-wal").read_bytes()[12:16], "big")


def test_no_visitor_waits_for_the_disk(server, origin, path):
    """the process that sweeps copies the log into the database, and begins it
    again; who commits between the two, which is rare, does instead"""
    wait_for(server.sweepers, "the sweeper")
    rounds = 6

    def run():
        for one in range(rounds):
            before = log_begun(server)
            for i in range(80):
                page = path(f"p{one}-{i}")
                origin.page(page, noise(20000, i))
                server.get(page)
            wait_for(lambda: log_begun(server) > before,
                     "the log to be copied", 15)

    calls = strace(server, run, server.dir / "strace.log",
                   "--trace=fsync,fdatasync,syncfs,pwrite64")
    assert calls.count("pwrite64(") > 2000, "too few stores to tell"
    assert len(re.findall(r"sync(?:fs)?\(", calls)) < rounds / 2
    assert db_of(server).stat().st_size > 6_000_000
    assert db_of(server, "-wal").stat().st_size < 20 << 20


def test_who_makes_the_database_does_not_wait_for_the_disk(
        server, origin, path):
    """for all others wait for him"""
    fill(server, origin, path, 1)
    os.kill(server.sweepers()[0], signal.SIGSTOP)

    def run():
        db_of(server).unlink()
        assert_recovers(server, origin, path, "after")

    try:
        calls = strace(server, run, server.dir / "strace.log",
                       "--trace=fsync,fdatasync,syncfs,pwrite64")
    finally:
        os.kill(server.sweepers()[0], signal.SIGCONT)
    assert "pwrite64(" in calls
    assert "sync" not in calls


def test_locked_for_long(make, origin, path):
    server = make(patience="50ms")
    pages = fill(server, origin, path)
    db = connect(server)
    db.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert_hits(server, pages)
    for i in range(5):
        page = path(f"new{i}")
        origin.page(page, b"new")
        res = server.get(page)
        assert (res.status, res.cache, res.body) == (200, "MISS", b"new")
    assert time.monotonic() - began < 5
    assert server.get(page).cache == "MISS", "nobody can have stored it"
    server.wait_log("timed out")
    db.execute("ROLLBACK")
    db.close()
    assert_recovers(server, origin, path, "after")
    assert_hits(server, pages)


def test_locked_against_readers_when_it_starts(make, origin, path):
    server = make(patience="50ms")
    pages = fill(server, origin, path)
    for page, body in pages.items():
        assert server.get(page).body == body, "one may not be stored at once"
    server.stop()
    db = connect(server)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN IMMEDIATE")
    server.start()
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.cache, res.body) == (200, "MISS", body)
    db.execute("ROLLBACK")
    db.close()
    assert_recovers(server, origin, path, "after")
    assert_hits(server, pages)


def test_log_stays_small_under_a_transaction_that_is_not_ended(
        make, origin, path):
    """as of a shell that somebody left open"""
    server = make("max_bytes=8M", patience="50ms")
    pages = fill(server, origin, path, 5)
    db = connect(server)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM cache_entries").fetchall()
    for i in range(350):
        page, body = path(f"new{i}"), noise(100000, i)
        origin.page(page, body)
        assert server.get(page).body == body
    assert db_of(server, "-wal").stat().st_size < 36 << 20
    server.wait_log("timed out")
    for page, body in pages.items():
        assert server.get(page).body == body
    db.close()
    assert_recovers(server, origin, path, "after")
    assert_sound(server)


def test_max_bytes_that_was_lowered(make, origin, path):
    """is come down to in steps: no visitor waits for all of them"""
    server = make("max_bytes=200M max_entries=100000")
    fill(server, origin, path, 1)
    server.stop()
    ask_db(server, """INSERT INTO cache_entries (hash, id, created, expires,
        size, body_len, crc, key, head, body)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
                                LIMIT 40000)
        SELECT i, randomblob(16), 1, 9000000000000000, 3100, 3000, 1,
               randomblob(50), randomblob(50), randomblob(3000) FROM n""")
    other = make("max_bytes=2M max_entries=100000", db=str(db_of(server)))
    page = path("new")
    origin.page(page, b"x")
    assert other.get(page).body == b"x"
    assert ask_db(server, "SELECT count(*) > 20000 FROM cache_entries") \
        == [(1,)]
    assert_recovers(other, origin, path, "after", 60)
    assert_sound(server)


# ---- files that are wrong ---------------------------------------------------

def put_file(server, data):
    place = db_of(server)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    for suffix in ("-wal", "-shm"):
        db_of(server, suffix).unlink(missing_ok=True)
    place.write_bytes(data)
    for one in (place.parent, place):
        if settings.run_user:
            os.chown(one, *settings.run_user[1:])


def restart_with(server, change):
    server.stop()
    change()
    server.start()


def test_not_a_database(server, origin, path):
    fill(server, origin, path, 2)
    junk = noise(100000, 1)
    restart_with(server, lambda: put_file(server, junk))
    assert_recovers(server, origin, path, "after")
    assert db_of(server, "-aside").read_bytes() == junk
    assert "it is not a database: set aside" in server.log()


def set_version(server, version):
    ask_db(server, f"PRAGMA user_version = {version}")


def test_older_schema(server, origin, path):
    fill(server, origin, path, 2)
    restart_with(server, lambda: set_version(server, 0))
    assert_recovers(server, origin, path, "after")
    assert "an older version of this module: set aside" in server.log()
    old = sqlite3.connect(db_of(server, "-aside"))
    assert old.execute("SELECT count(*) FROM cache_entries").fetchone() == (2,)
    old.close()


def test_newer_schema(server, origin, path):
    """is left to those who made it, or two versions set each other's aside as
    long as both run"""
    pages = fill(server, origin, path, 2)
    version = ask_db(server, "PRAGMA user_version")[0][0]
    restart_with(server, lambda: set_version(server, version + 1))
    for _ in range(3):
        for page, body in pages.items():
            res = server.get(page)
            assert (res.status, res.cache, res.body) == (200, "MISS", body)
    assert "a newer version of this module, and is left alone" in server.log()
    assert server.log().count("a newer version of this module") < 10
    assert not db_of(server, "-aside").exists()
    restart_with(server, lambda: set_version(server, version))
    assert_hits(server, pages)
    assert_sound(server)


def test_newer_version_takes_over_while_the_older_one_runs(
        server, origin, path):
    """as during a graceful upgrade: what it puts in place stays"""
    pages = fill(server, origin, path, 3)
    version = ask_db(server, "PRAGMA user_version")[0][0]
    newer = db_of(server, ".newer")
    shutil.copy(db_of(server), newer)
    shutil.copy(db_of(server, "-wal"), f"{newer}-wal")
    db = sqlite3.connect(newer, isolation_level=None)
    db.execute(f"PRAGMA user_version = {version + 1}")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    os.chown(newer, db_of(server).stat().st_uid, -1)
    for suffix in ("-wal", "-shm"):
        db_of(server, suffix).unlink()
    os.replace(newer, db_of(server))
    before = db_of(server).read_bytes()
    for _ in range(3):
        for page, body in pages.items():
            res = server.get(page)
            assert (res.status, res.body) == (200, body)
    server.wait_log("a newer version of this module, and is left alone")
    assert db_of(server).read_bytes() == before
    assert not db_of(server, "-aside").exists()
    db_of(server).unlink()
    assert_recovers(server, origin, path, "after")


def test_database_of_another_program_is_left_alone(server, origin, path):
    def change():
        shutil.rmtree(db_of(server).parent)
        put_file(server, b"")
        ask_db(server, "CREATE TABLE accounts (name, money)")
        ask_db(server, "INSERT INTO accounts VALUES ('me', 1)")

    restart_with(server, change)
    before = db_of(server).read_bytes()
    page = path()
    origin.page(page, b"x")
    for _ in range(3):
        assert server.get(page).body == b"x"
    assert db_of(server).read_bytes() == before
    assert "database of another program" in server.log()
    db_of(server).unlink()
    assert_recovers(server, origin, path, "after")


@pytest.mark.parametrize("part", ["header", "all", "behind the header"])
def test_damaged_under_the_running_server(server, origin, path, part):
    pages = fill(server, origin, path, 40)
    ask_db(server, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = db_of(server).stat().st_size
    first, last = {"header": (0, 100), "all": (0, size),
                   "behind the header": (4096, size)}[part]
    with open(db_of(server), "r+b") as file:
        file.seek(first)
        file.write(noise(last - first, 3))
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
    for one in range(3):
        server.graceful()       # nobody has an old page in memory any more
        assert_recovers(server, origin, path, f"after{one}")
    assert db_of(server, "-aside").exists()
    assert "set aside" in server.log()
    assert_sound(server)


@pytest.mark.parametrize("change", [
    "DROP TABLE cache_entries", "DROP TRIGGER cache_entries_gone",
    "DROP INDEX cache_entries_by_hash",
    """CREATE TRIGGER mine AFTER INSERT ON Cache_Entries BEGIN
       UPDATE cache_entries_state SET bytes = (
       WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
       SELECT max(i) FROM n); END"""])
def test_tables_changed_by_somebody_else(server, origin, path, change):
    """would fail, miscount or never end with each request"""
    fill(server, origin, path, 3)
    restart_with(server, lambda: ask_db(server, change))
    assert_recovers(server, origin, path, "after")
    assert "its tables were changed: set aside" in server.log()
    assert_sound(server)


def test_table_dropped_under_the_running_server(server, origin, path):
    pages = fill(server, origin, path, 3)
    ask_db(server, "DROP TABLE cache_entries")
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
    assert_recovers(server, origin, path, "after")
    assert_sound(server)


COUNT_WRONG = "UPDATE cache_entries_state SET entries = "


@pytest.mark.parametrize("change", [
    COUNT_WRONG + "1000000", COUNT_WRONG + "-1000000",
    COUNT_WRONG + "7, counted = -3, up_to = 5",
    "INSERT OR REPLACE INTO cache_entries SELECT * FROM cache_entries"])
def test_count_that_is_wrong(make, origin, path, change):
    """would have everything evicted, or the cap exceeded"""
    server = make("max_entries=100")
    fill(server, origin, path, 30)
    ask_db(server, change)
    assert not is_counted(server)
    for i in range(3):
        assert_recovers(server, origin, path, f"while{i}")
    if ask_db(server, "SELECT entries > 100 FROM cache_entries_state") \
            != [(1,)]:
        server.graceful()       # what sweeps counts first of all
    wait_for(lambda: is_counted(server), "the count to be right", 15)
    assert ask_db(server, "SELECT count(*) > 20 FROM cache_entries") == [(1,)]
    assert_hits(server, fill(server, origin, path, 60))
    assert not db_of(server, "-aside").exists()


def test_entries_are_counted_while_they_change(make, origin, path):
    """in steps, each of which sees what those before it have counted go"""
    server = make("max_entries=30000 keep=0")
    fill(server, origin, path, 1)
    server.stop()
    ask_db(server, f"""INSERT INTO cache_entries (hash, id, created, expires,
        size, body_len, crc, key, head, body)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
                                LIMIT 25000)
        SELECT random(), randomblob(16), 1,
               iif(i % 3, 9000000000000000, {int(time.time() + 4)}000000),
               50, 0, 1, randomblob(30), randomblob(20), x'' FROM n""")
    ask_db(server, COUNT_WRONG + "1")
    server.start()
    for i in range(300):
        page = path(f"new{i}")
        origin.page(page, b"x")
        server.get(page)
    wait_for(lambda: is_counted(server), "the count to be right", 15)
    assert ask_db(server, "SELECT counted, up_to <= -9223372036854775807"
                  " FROM cache_entries_state") == [(0, 1)]
    assert_sound(server)


def test_damaged_entry_is_fetched_again(server, origin, path):
    pages = fill(server, origin, path, 40)
    for table, column in (("cache_entries", "body"),
                          ("cache_entries_chunks", "data")):
        ask_db(server, f"UPDATE {table} SET {column} = CAST(substr({column}, 2)"
               f" || x'00' AS BLOB) WHERE length({column}) > 10")
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
        assert res.cache == ("MISS" if len(body) > 10 else "HIT")
    assert_hits(server, pages)
    assert int(figures(server)["Damaged"]) > 10


@pytest.mark.parametrize("what", ["database", "files", "directory"])
def test_deleted_under_the_running_server(server, origin, path, what):
    pages = fill(server, origin, path)
    if what == "directory":
        shutil.rmtree(db_of(server).parent)
    else:
        for suffix in [""] if what == "database" else ["", "-wal", "-shm",
                                                       "-lock"]:
            db_of(server, suffix).unlink()
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
    wait_for(db_of(server).exists, "a new database", 5)
    assert_recovers(server, origin, path, "after")
    time.sleep(1.1)             # until every child has looked
    for page, body in pages.items():
        assert server.get(page).body == body
    assert_hits(server, pages)
    assert_sound(server)


def need_root():
    if not settings.run_user:
        pytest.skip("only root can change owners")


def test_directory_that_cannot_be_written(server, origin, path):
    need_root()
    pages = fill(server, origin, path)

    def change():
        for one in db_of(server).parent.iterdir():
            one.unlink()
        os.chown(db_of(server).parent, 0, 0)

    restart_with(server, change)
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.cache, res.body) == (200, "MISS", body)
    assert f"db_path={db_of(server)} cannot be opened" in server.log()
    assert "Permission denied" in server.log()
    assert server.log().count("Permission denied") < 10
    os.chown(db_of(server).parent, *settings.run_user[1:])
    assert_recovers(server, origin, path, "after")


def test_files_belong_to_the_user_of_the_children(server, origin, path):
    """also after they were somebody else's"""
    need_root()
    pages = fill(server, origin, path)
    assert ask_db(server, "PRAGMA auto_vacuum") == [(2,)]
    names = ["", "-wal", "-shm", "-lock"]
    places = [db_of(server).parent] + [db_of(server, x) for x in names]

    def check():
        for one in places:
            found = one.lstat()
            assert found.st_uid == settings.run_user[1], one
            assert found.st_mode & 0o077 == 0, one

    check()
    server.stop()
    for one in places:
        if one.exists():
            os.chown(one, 65534, 65534)
    server.start()
    assert_hits(server, pages)
    check()


BESIDE_FILES = """
CachemwStore files file cache_dir=@DIR@/cache/db/files
<VirtualHost 127.0.0.1:1>
    ServerName files.example
    CachemwProvider files
    CacheEnable cachemw /
</VirtualHost>
"""


def test_place_that_another_store_has_made(httpd, origin, path):
    """as both are below the cache directory by default"""
    server = httpd(SITE, {"QUICK": "on", "PROVIDER": BESIDE_FILES + STORE,
                          "DB": "@DIR@/cache/db/cache.db", "OPTIONS": ""},
                   extra=MODULES)
    assert (db_of(server).parent / "files" / "v1").is_dir()
    assert_hits(server, fill(server, origin, path))


def test_link_on_the_way_is_followed_only_where_root_alone_can_put_it(
        make, origin, path):
    """else root would make directories, and give them away, anywhere"""
    need_root()
    top = Path(tempfile.mkdtemp(prefix="cachemw-links-", dir="/var/tmp"))
    try:
        top.chmod(0o755)
        for name in ("roots", "users", "else"):
            (top / name).mkdir()
        for name in ("roots", "users"):
            (top / name / "link").symlink_to(top / "else")
        os.chown(top / "users", *settings.run_user[1:])
        server = make(db=str(top / "users" / "link" / "made" / "cache.db"))
        assert not (top / "else" / "made").exists()
        server.wait_log("its directory cannot be made or entered")
        server.new_log()
        server = make(db=str(top / "roots" / "link" / "made" / "cache.db"))
        assert_recovers(server, origin, path, "page")
        assert (top / "else" / "made" / "cache.db").exists()
        server.stop()
    finally:
        shutil.rmtree(top)


def test_links_are_not_followed(server, origin, path):
    need_root()
    fill(server, origin, path, 1)
    server.stop()
    precious = server.dir / "precious"
    precious.write_bytes(b"")
    linked = server.dir / "linked"
    linked.write_bytes(b"precious")
    for suffix in ("-wal", "-shm"):
        db_of(server, suffix).unlink(missing_ok=True)
    os.link(linked, db_of(server, "-wal"))
    db_of(server, "-shm").symlink_to(precious)
    server.start()
    link = db_of(server, ".link")
    link.symlink_to(precious)
    link.replace(db_of(server))     # at once, or a child makes a new database
    page = path("other")
    origin.page(page, b"x")
    time.sleep(1.1)             # until it looks
    for _ in range(3):
        assert server.get(page).body == b"x"
    for one in (precious, linked):
        assert one.stat().st_uid == 0
    assert (precious.read_bytes(), linked.read_bytes()) == (b"", b"precious")
    db_of(server).unlink()
    assert_recovers(server, origin, path, "after")


@pytest.fixture
def small_disk():
    place = tempfile.mkdtemp(prefix="cachemw-disk-")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=777",
                           "tmpfs", place], capture_output=True)
    if done.returncode:
        os.rmdir(place)
        pytest.skip("no file system can be mounted here")
    yield Path(place)
    subprocess.run(["umount", "-l", place], check=True)
    os.rmdir(place)


def test_full_disk(make, origin, path, small_disk):
    server = make(db=str(small_disk / "cache.db"))
    for i in range(100):
        page, body = path(f"p{i}"), noise(60000, i)
        origin.page(page, body)
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
    assert "the disk is full" in server.log()
    assert server.log().count("the disk is full") < 10
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)],
                   check=True)
    assert_recovers(server, origin, path, "after")


def test_read_only_disk(make, origin, path, small_disk):
    server = make(db=str(small_disk / "cache.db"))
    pages = fill(server, origin, path, 5)
    server.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    server.start()
    for page, body in pages.items():
        res = server.get(page)
        assert (res.status, res.body) == (200, body)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert_recovers(server, origin, path, "after")
