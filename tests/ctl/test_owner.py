# SPDX-License-Identifier: Apache-2.0
"""Whoever the web server's children run as can write to its stores, and must
not get anything out of root who looks at them."""

import os
import pwd
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from conftest import MODULES, PROGRAM, ctl
from harness import settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
COMMANDS = ("ls", "stat", "verify", "sweep")


def fill(*words):
    done = ctl("bench", "--keys", "5", "--seconds", "1", "--warmup", "0s",
               "--ops", "get", *words)
    assert done.status == 0, done


def store_in(kind, where):
    return {"file": ["file", f"cache_dir={where}/files"],
            "sqlite": ["sqlite", f"db_path={where}/files/tests.db"]}[kind]


def give(path, uid):
    for base, dirs, names in os.walk(path):
        for name in [base, *dirs, *names]:
            os.lchown(os.path.join(base, name), uid, -1)


@pytest.fixture
def user():
    return settings.run_user[1]


@pytest.fixture(params=["file", "sqlite"])
def store(request, place):
    """A store of root's, in a directory of root's"""
    (place / "files").mkdir(mode=0o755)
    words = store_in(request.param, place)
    fill(*words)
    return words


def refused(words, saying):
    for command in COMMANDS:
        done = ctl(command, *words)
        assert done.status == 4 and saying in done.err, (command, done)


@needs_root
def test_what_is_roots_where_only_root_writes_is_looked_at(store):
    assert len(ctl("ls", *store).lines) == 5


@needs_root
def test_root_stays_root_nowhere_else(store, place, user):
    os.chown(place / "files", user, -1)
    refused(store, "belongs to root, in a place where others can write")
    os.chown(place / "files", 0, -1)
    (place / "files").chmod(0o777)
    refused(store, "belongs to root, in a place where others can write")
    (place / "files").chmod(0o755)
    os.chown(place, user, -1)
    refused(store, "belongs to root, in a place where others can write")


@needs_root
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_the_users_link_leads_root_nowhere(kind, place, user):
    (place / "roots").mkdir(mode=0o755)
    (place / "roots" / "files").mkdir(mode=0o755)
    fill(*store_in(kind, place / "roots"))
    mine = place / "mine"
    mine.mkdir(mode=0o755)
    os.chown(mine, user, -1)
    (mine / "files").symlink_to(place / "roots" / "files")
    refused(store_in(kind, mine), "Not a directory")
    (mine / "files").unlink()
    (mine / "files").mkdir()
    os.chown(mine / "files", user, -1)
    name = {"file": "v1", "sqlite": "tests.db"}[kind]
    (mine / "files" / name).symlink_to(place / "roots" / "files" / name)
    refused(store_in(kind, mine),
            {"file": "is a link", "sqlite": "symbolic links"}[kind])


@needs_root
def test_a_second_name_of_a_database_is_not_believed(place, user):
    (place / "files").mkdir(mode=0o755)
    words = store_in("sqlite", place)
    fill(*words)
    os.link(place / "files" / "tests.db", place / "files" / "other.db")
    refused(words, "is a link")


@needs_root
def test_a_users_store_is_looked_at_as_that_user(store, place, user):
    give(place / "files", user)
    for command in COMMANDS:
        assert ctl(command, *store).status == 0
    assert len(ctl("ls", *store).lines) == 5
    for base, dirs, names in os.walk(place / "files"):
        for name in dirs + names:
            assert os.lstat(os.path.join(base, name)).st_uid == user


@needs_root
def test_an_administrators_link_is_followed(store, place, user):
    give(place / "files", user)
    (place / "link").mkdir()
    (place / "link" / "files").symlink_to(place / "files")
    assert len(ctl("ls", *store_in(store[0], place / "link")).lines) == 5


@needs_root
@pytest.mark.parametrize("options", [
    "file cache_dir={0}/his/new", "sqlite db_path={0}/his/new/x.db",
    "file cache_dir={0}/his/link/in", "sqlite db_path={0}/his/link/x.db"])
def test_root_tests_nowhere_where_a_user_leads_it(place, user, options):
    (place / "his").mkdir()
    (place / "elsewhere").mkdir()
    (place / "his/link").symlink_to(place / "elsewhere")
    give(place / "his", user)
    words = options.format(place).split()
    for command in ("check", "--test", "test_set_and_get"), ("bench",):
        done = ctl(*command, *words)
        assert done.status == 2, done
        assert "is not root's alone: root does not test in it" in done.err
    assert not list((place / "elsewhere").iterdir())
    assert [x.name for x in (place / "his").iterdir()] == ["link"]


def test_cache_directory_may_be_named_from_here(place):
    words = ["--cache-dir", "some", "file"]
    done = ctl("bench", "--keys", "5", "--seconds", "1", "--warmup", "0s",
               "--ops", "get", *words, cwd=place)
    assert done.status == 0, done
    assert len(ctl("ls", *words, cwd=place).lines) == 5
    assert (place / "some" / "file").is_dir()


@needs_root
def test_check_uses_no_cache_directory_but_its_own(place, user):
    (place / "file").mkdir()
    give(place, user)
    done = ctl("check", "--cache-dir", place, "--test",
               "test_set_and_get", "file")
    assert done.status == 0, done
    assert not list((place / "file").iterdir())


def who_connects(place, *options):
    """(user, groups) of the tool at the moment when it talks to Redis."""
    path = str(place / "redis.sock")
    password = place / "password"
    password.write_text("for root only")
    password.chmod(0o400)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.chmod(path, 0o777)
        server.listen(1)
        server.settimeout(60)
        with subprocess.Popen(
                [PROGRAM, "ls", "--modules", MODULES, *options, "redis",
                 f"url=unix://{path}", f"password_file={password}"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
            try:
                client, _ = server.accept()
                with client:
                    pid, uid, _ = struct.unpack("3i", client.getsockopt(
                        socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                    assert b"for root only" in client.recv(1000)
                    status = Path(f"/proc/{pid}/status").read_text()
            finally:
                one.kill()
    os.unlink(path)
    groups = re.search(r"^Groups:(.*)$", status, re.M)[1].split()
    return uid, sorted(map(int, groups))


@needs_root
def test_root_asks_other_machines_as_the_web_servers_user(place, user):
    """… or whom it is told, once it has read the files that only root may."""
    other = pwd.getpwnam("daemon")
    for options, who in (([], pwd.getpwuid(user)),
                         (["--user", other.pw_name], other)):
        assert who_connects(place, *options) == (
            who.pw_uid, sorted(os.getgrouplist(who.pw_name, who.pw_gid)))
    assert who_connects(place, "--user", "root")[0] == 0
    done = ctl("ls", "--user", "no-such-user", "redis", "url=redis://127.0.0.1")
    assert done.status == 4 and "there is no user no-such-user" in done.err


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def test_a_forged_mark_is_no_mark(place):
    fill("file", f"cache_dir={place}/files")
    mark = place / "files" / "v1" / "mark"
    was = mark.read_bytes()
    for levels in (3, 40, 0x7fffffff, 0xffffffff):
        data = bytearray(was)
        for at in (0, 4096):
            if len(data) < at + 176 or not data[at]:
                continue
            struct.pack_into("<I", data, at + 160, levels)
            struct.pack_into("<I", data, at + 172,
                             crc32c(data[at:at + 172]))
        mark.write_bytes(data)
        for command in ("get", *COMMANDS):
            words = ["http://example.org/"] if command == "get" else []
            done = ctl(command, "file", f"cache_dir={place}/files", *words)
            assert done.status == 4, (command, levels, done)
    mark.write_bytes(was)
    assert len(ctl("ls", "file", f"cache_dir={place}/files").lines) == 5
