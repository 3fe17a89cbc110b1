# SPDX-License-Identifier: Apache-2.0
"""What a person sees and does to the store of a server, which is running at
that moment or was stopped."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import MODULES, PROGRAM, Site, ctl, site_of, varying
from harness import settings
from harness.server import wait_for

PAGES = {"/a.css": b"a" * 100, "/b.html?x=1": b"b" * 200_000, "/c.css": b""}


def owners(top):
    return {os.path.join(base, name): os.lstat(os.path.join(base, name)).st_uid
            for base, dirs, names in os.walk(top) for name in dirs + names}


def urls(done):
    assert done.status == 0, done
    return sorted(x["url"] for x in done.objects)


# ---- looking -----------------------------------------------------------------

def test_ls_shows_what_a_running_server_has_stored(site):
    site.fill(PAGES)
    assert urls(site.ctl("ls", options=["--json"])) == \
        sorted(site.url(x) for x in PAGES)
    found = site.ctl("ls", "*.css")
    assert found.status == 0
    assert sorted(x.split()[-1] for x in found.lines) == \
        [site.url("/a.css"), site.url("/c.css")]
    assert all(site.host in x for x in found.lines)
    assert site.ctl("ls", "*nothing*").lines == []


def test_ls_has_no_records_of_varying_pages_and_minds_the_host(site):
    site.origin.on("/v", varying)
    site.fill(PAGES)
    site.get("/v", [("Accept-Encoding", "gzip")])
    for words in ([], ["--long"]):
        seen = urls(site.ctl("ls", options=["--json", *words]))
        assert seen == sorted(site.url(x) for x in (*PAGES, "/v")), words
        seen = urls(site.ctl("ls", options=["--json", "--all", *words]))
        assert seen.count(site.url("/v")) == 2, words
    assert len(site.ctl("ls", options=["--host", site.host]).lines) == 4
    assert site.ctl("ls", options=["--host", "other:80"]).lines == []


def test_ls_long_and_json_tell_status_and_times(site):
    before = int(time.time())
    site.fill({"/a.css": b"a" * 100})
    one, = site.ctl("ls", options=["--json", "--long"]).objects
    assert (one["status"], one["size"], one["kind"]) == (200, 100, "page")
    assert one["virtual_host"] == site.host
    when = {x: time.mktime(time.strptime(one[x] + "UTC",
                                         "%Y-%m-%dT%H:%M:%SZ%Z"))
            - time.timezone for x in ("stored", "fresh_until", "expires")}
    assert before <= when["stored"] <= time.time()
    assert 55 <= when["fresh_until"] - when["stored"] <= 62
    assert when["expires"] >= when["fresh_until"]
    line, = site.ctl("ls", options=["--long"]).lines
    assert " 200 " in line


def test_get_prints_the_body_and_the_head(site):
    site.fill(PAGES)
    for page, body in PAGES.items():
        done = site.ctl("get", site.url(page))
        assert (done.status, done.raw) == (0, body), page
    done = site.ctl("get", site.url("/a.css"), options=["--include"])
    head, _, body = done.raw.partition(b"\n\n")
    assert head.startswith(b"HTTP 200\n") and b"Cache-Control: max-age=60" \
        in head and body == PAGES["/a.css"]


def test_get_of_what_is_not_stored_fails(site):
    site.fill({"/a.css": b"a"})     # so that the children have begun theirs
    done = site.ctl("get", site.url("/never"))
    assert done.status == 1 and "is not stored" in done.err and not done.raw


def begin_get(site, page):
    """A get that has begun, and waits for who reads what it prints."""
    one = subprocess.Popen([PROGRAM, "get", "--modules", MODULES, *site.words,
                            site.url(page)], bufsize=0,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return one, one.stdout.read(1)


def test_get_of_what_is_replaced_meanwhile_is_that_to_its_end(site):
    old, new = b"o" * 900_000, b"n" * 900_000
    site.fill({"/big": old})
    one, begun = begin_get(site, "/big")
    with one:
        assert site.ctl("rm", site.url("/big")).out == "1 removed\n"
        site.fill({"/big": new})
        out, err = one.communicate(timeout=60)
    assert (one.returncode, err) == (0, b"")
    assert begun + out == old
    assert site.ctl("get", site.url("/big")).raw == new


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_get_of_what_is_lost_meanwhile_says_so(kind, origin, redis):
    """… as when its time is over, or its store was emptied."""
    redis.ask("FLUSHALL")
    site = site_of(kind, origin, redis)
    body = b"o" * 900_000
    try:
        site.server.start()
        site.fill({"/big": body})
        one, begun = begin_get(site, "/big")
        with one:
            if kind == "redis":
                redis.ask("FLUSHALL")
            else:
                path = site.server.dir / "cache" / "tests.db"
                with sqlite3.connect(path) as base:
                    base.execute("PRAGMA busy_timeout=20000")
                    base.execute("DELETE FROM cache_entries_chunks")
            out, err = one.communicate(timeout=60)
        assert one.returncode == 4 and b"is not whole" in err, err
        assert len(out) < len(body) and body.startswith(begun + out)
    finally:
        site.server.remove()


ENDLESS = r"""
    #include <stdio.h>
    #include "httpd.h"
    #include "http_config.h"
    #include "ap_provider.h"
    #include "mod_cachemw.h"

    static const cachemw_option_t options[] = {
        { .name = "head", .type = CACHEMW_STRING, .help = "A file." },
        { .name = NULL }
    };
    static apr_status_t open_it(const cachemw_services_t *s,
                                const cachemw_value_t *values, apr_pool_t *p,
                                void **store, const char **error)
    {
        *store = (void *)values[0].string;
        return APR_SUCCESS;
    }
    static apr_status_t get(void *store, const cachemw_call_t *call,
                            const cachemw_key_t *key, cachemw_entry_t *entry)
    {
        FILE *file = fopen(store, "rb");
        char *head = apr_palloc(call->pool, 4096);

        entry->head = head;
        entry->head_len = fread(head, 1, 4096, file);
        entry->body_len = 0;
        entry->expires = call->now + APR_USEC_PER_SEC;
        fclose(file);
        return APR_SUCCESS;
    }
    static apr_status_t set(void *store, const cachemw_call_t *call,
                            const cachemw_key_t *key,
                            const cachemw_entry_t *entry)
    {
        return APR_ENOSPC;
    }
    static apr_status_t drop(void *store, const cachemw_call_t *call,
                             const cachemw_key_t *key, const cachemw_id_t *id)
    {
        return APR_SUCCESS;
    }
    static const cachemw_provider_t table = {
        .size = sizeof(cachemw_provider_t), .options = options,
        .open = open_it, .get = get, .set = set, .remove = drop
    };
    static void hooks(apr_pool_t *p)
    {
        ap_register_provider(p, CACHEMW_PROVIDER_GROUP, "endless",
                             CACHEMW_PROVIDER_VERSION, &table);
    }
    AP_DECLARE_MODULE(endless) = { STANDARD20_MODULE_STUFF,
                                   .register_hooks = hooks };
    """


def test_a_variant_that_claims_to_vary_leads_nowhere(origin, strangers):
    """Every key of the store has a record that names two more."""
    site = site_of("sqlite", origin)
    head = site.server.dir / "head"
    try:
        site.server.start()
        site.origin.on("/v", varying)
        for coding in ("gzip", "identity"):
            site.get("/v", [("Accept-Encoding", coding)])
        site.server.stop()
        with sqlite3.connect(site.server.dir / "cache" / "tests.db") as base:
            heads = base.execute("SELECT head FROM cache_entries ORDER BY "
                                 "length(key)").fetchall()
        assert len(heads) == 3
        head.write_bytes(heads[0][0])
        words = ["--load", strangers("mod_endless", ENDLESS), "endless",
                 f"head={head}", site.url("/v")]
        done = ctl("stat", "--json", *words)
        assert done.status == 0, done
        assert [x.get("variants") for x in done.objects] == [2, 2, 2]
        assert sum("variant" in x for x in done.objects) == 2
        assert ctl("rm", *words).out == "3 removed\n"
    finally:
        site.server.remove()


def test_get_and_stat_of_a_page_that_varies(site):
    site.origin.on("/v", varying)
    for coding in ("gzip", "identity"):
        site.get("/v", [("Accept-Encoding", coding)])
    done = site.ctl("get", site.url("/v"),
                    options=["--header", "Accept-Encoding: gzip"])
    assert (done.status, done.raw) == (0, b"zipped"), done
    done = site.ctl("get", site.url("/v"),
                    options=["--header", "Accept-Encoding: identity"])
    assert (done.status, done.raw) == (0, b"plain!!"), done
    done = site.ctl("get", site.url("/v"),
                    options=["--header", "Accept-Encoding: br"])
    assert done.status == 1 and "accept-encoding" in done.err
    done = site.ctl("stat", site.url("/v"))
    assert done.status == 0
    assert "Varies by      accept-encoding" in done.out
    assert "Variants       2" in done.out
    assert "Coding         gzip" in done.out
    kinds = [x["kind"] for x in site.ctl(
        "stat", site.url("/v"), options=["--json"]).objects]
    assert sorted(kinds) == ["variant", "variant", "vary"]


def test_stat_of_an_entry_and_of_the_store(site):
    site.fill(PAGES)
    done = site.ctl("stat", site.url("/b.html?x=1"))
    assert done.status == 0
    for line in (f"URL            {site.url('/b.html?x=1')}",
                 f"Virtual host   {site.host}", "Status         200",
                 "Size           200000"):
        assert line in done.lines, done
    done = site.ctl("stat")
    if done.status == 3:
        assert site.kind == "redis" and "cannot tell figures" in done.err
    else:
        assert any(x.split() == ["entries", "3"] for x in done.lines), done


def test_another_virtual_host_is_found_by_its_url_and_by_its_name(origin):
    site = site_of("file", origin)
    conf = site.server._conf.replace(
        "ProxyPass \"/\"", "CachemwNamespace shop\nProxyPass \"/\"")
    site.server.write_conf(conf)
    try:
        site.server.start()
        site.fill({"/a.css": b"abc"})
        assert site.ctl("get", site.url("/a.css")).raw == b"abc"
        assert site.ctl("get", site.url("/a.css"),
                        options=["--host", "shop"]).raw == b"abc"
        assert site.ctl("get", site.url("/a.css"),
                        options=["--host", "other"]).status == 1
        one, = site.ctl("ls", options=["--json"]).objects
        assert one["virtual_host"] == "shop"
    finally:
        site.server.remove()


def test_json_has_no_characters_that_a_terminal_obeys(origin):
    site = site_of("sqlite", origin)
    try:
        site.server.start()
        site.fill({"/a.css": b"abc"})
        site.server.stop()
        odd = "/\u0085\u202e\u2066\u00e4.css"
        with sqlite3.connect(site.server.dir / "cache" / "tests.db") as base:
            key, = base.execute("SELECT key FROM cache_entries").fetchone()
            base.execute("UPDATE cache_entries SET key = ?", (
                key.replace(b"/a.css", odd.encode()),))
        done = site.ctl("ls", options=["--json"])
        assert done.objects[0]["url"].endswith(odd), done
        assert "/\\u0085\\u202e\\u2066\u00e4.css" in done.raw.decode()
    finally:
        site.server.remove()


# ---- removing ----------------------------------------------------------------

def test_what_rm_removes_the_running_server_fetches_anew(site):
    site.fill(PAGES)
    done = site.ctl("rm", site.url("/a.css"), site.url("/b.html?x=1"))
    assert (done.status, done.out) == (0, "2 removed\n"), done
    for page, want in (("/a.css", "MISS"), ("/b.html?x=1", "MISS"),
                       ("/c.css", "HIT")):
        res = site.get(page)
        assert (res.cache, res.body) == (want, PAGES[page]), page
        assert site.get(page).cache == "HIT"
    assert site.ctl("rm", site.url("/never")).status == 1


def test_rm_by_pattern_and_with_all_variants(site):
    site.fill(PAGES)
    site.origin.on("/v", varying)
    for coding in ("gzip", "identity"):
        site.get("/v", [("Accept-Encoding", coding)])
    assert site.ctl("rm", site.url("/v")).out == "3 removed\n"
    assert site.ctl("rm", options=["--match", "*.css"]).out == "2 removed\n"
    assert urls(site.ctl("ls", options=["--json"])) == \
        [site.url("/b.html?x=1")]


def test_clear_wants_to_be_meant(site):
    site.fill(PAGES)
    done = site.ctl("clear")
    assert done.status == 2 and "--yes" in done.err
    assert len(site.ctl("ls").lines) == 3
    assert site.ctl("clear", options=["--yes"]).status == 0
    assert site.ctl("ls").lines == []
    for page, body in PAGES.items():
        res = site.get(page)
        assert (res.cache, res.body) == ("MISS", body), page
        assert site.get(page).cache == "HIT"


def test_sweep_removes_what_has_expired_and_nothing_else(origin):
    """… and no limit of the tool drops what fits the server's."""
    site = Site(origin, "sqlite",
                ["db_path=@DIR@/cache/tests.db", "max_entries=20000",
                 "cleanup_interval=1h", "keep=1s", "busy_timeout=5s"],
                ["cachemw_sqlite"])
    database = site.server.dir / "cache" / "tests.db"
    try:
        site.server.start()
        site.fill(PAGES)
        with sqlite3.connect(database) as base:
            base.execute("PRAGMA busy_timeout=20000")
            base.execute("UPDATE cache_entries SET expires = 1000000 "
                         "WHERE body_len = 100")
        done = ctl("sweep", "sqlite", f"db_path={database}")
        assert (done.status, done.out) == (0, "1 expired\n"), done
        assert len(ctl("ls", "sqlite", f"db_path={database}").lines) == 2
    finally:
        site.server.remove()


def test_sweep_waits_for_who_writes_and_says_when_it_was_in_vain(tmp_path):
    words = ["sqlite", f"db_path={tmp_path}/tests.db"]
    assert ctl("bench", "--keys", "50", "--seconds", "1", "--warmup", "0s",
               "--ops", "get", *words).status == 0
    with contextlib.closing(sqlite3.connect(
            tmp_path / "tests.db", isolation_level=None)) as base:
        base.execute("UPDATE cache_entries SET expires = 1000000")
        base.execute("BEGIN IMMEDIATE")
        done = ctl("sweep", "--timeout", "200ms", *words)
        assert (done.status, done.out) == (4, "0 expired\n"), done
        assert "cannot be swept" in done.err, done
        with subprocess.Popen([PROGRAM, "sweep", "--modules", MODULES,
                               "--timeout", "60s", *words],
                              stdout=subprocess.PIPE) as one:
            with pytest.raises(subprocess.TimeoutExpired):
                one.wait(1)
            base.execute("COMMIT")
            assert one.communicate(timeout=120)[0] == b"50 expired\n"
            assert one.returncode == 0


# ---- verify ------------------------------------------------------------------

def test_verify_reads_everything(site):
    site.fill(PAGES)
    done = site.ctl("verify")
    assert (done.status, done.out) == \
        (0, "3 entries, 200100 bytes read, 0 damaged\n"), done


def test_verify_names_a_damaged_body_and_changes_nothing(origin):
    site = site_of("file", origin)
    try:
        site.server.start()
        site.fill(PAGES)
        site.server.stop()
        big = max((os.path.join(base, x) for base, _, names in
                   os.walk(site.server.dir / "cache") for x in names),
                  key=os.path.getsize)
        with open(big, "r+b") as file:
            file.seek(150_000)
            file.write(b"X")
        for _ in range(2):
            done = site.ctl("verify")
            assert done.status == 1 and "1 damaged" in done.out
            assert f"damaged: {site.url('/b.html?x=1')}" in done.out
            assert "a damaged entry is not removed" in done.err, done
        done = site.ctl("get", site.url("/b.html?x=1"))
        assert "a damaged entry is not removed" in done.err, done
        assert len(site.ctl("ls").lines) == 3
        done = site.ctl("verify", options=["--remove"])
        assert done.status == 1, done
        assert "a damaged entry is removed" in done.err, done
        assert len(site.ctl("ls").lines) == 2
        assert site.ctl("verify").status == 0
    finally:
        site.server.remove()


def test_verify_names_a_file_whose_beginning_is_damaged(origin):
    site = site_of("file", origin)
    try:
        site.server.start()
        site.fill(PAGES)
        site.server.stop()
        big = max((os.path.join(base, x) for base, _, names in
                   os.walk(site.server.dir / "cache") for x in names),
                  key=os.path.getsize)
        with open(big, "r+b") as file:
            file.write(b"nothing of ours")
        done = site.ctl("verify")
        assert done.status == 1 and "2 entries" in done.out
        assert f"{big} is damaged" in done.err
    finally:
        site.server.remove()


def files_in(site):
    return sorted((os.path.join(base, x) for base, _, names in
                   os.walk(site.server.dir / "cache") for x in names
                   if len(x) == 32), key=os.path.getsize)


def test_verify_goes_on_behind_what_is_no_file(origin):
    """… and can be told to remove what has no beginning."""
    site = site_of("file", origin)
    try:
        site.server.start()
        site.fill({f"/many/{n}": b"x" * 100 for n in range(20)})
        site.server.stop()
        odd = files_in(site)[::5]
        for path in odd:
            os.unlink(path)
            os.mkfifo(path)
        done = site.ctl("verify")
        assert done.status == 1 and "16 entries" in done.out, done
        assert done.err.count("is damaged") == 4
        assert len(site.ctl("ls").lines) == 16
        assert site.ctl("verify", options=["--remove"]).status == 1
        assert not [x for x in odd if os.path.lexists(x)]
        assert site.ctl("verify").status == 0
    finally:
        site.server.remove()


def test_what_cannot_be_read_is_trouble_and_the_rest_is_read(origin):
    site = site_of("file", origin)
    try:
        site.server.start()
        site.fill({f"/many/{n}": b"x" * 100 for n in range(20)})
        site.server.stop()
        paths = files_in(site)
        os.chmod(paths[0], 0)
        os.chmod(os.path.dirname(paths[-1]), 0)
        done = site.ctl("verify")
        assert done.status == 4 and "Permission denied" in done.err, done
        assert paths[0] in done.err
        assert int(done.out.split()[0]) >= 10
        done = site.ctl("clear", options=["--yes"])
        assert done.status == 4 and "Permission denied" in done.err, done
        os.chmod(os.path.dirname(paths[-1]), 0o700)
        assert site.ctl("clear", options=["--yes"]).status == 0
        assert not files_in(site)
    finally:
        site.server.remove()


def test_verify_of_a_damaged_database_changes_nothing(origin):
    """A server sets it aside; who looks names it, and leaves that to the
    server."""
    site = site_of("sqlite", origin)
    base = site.server.dir / "cache" / "tests.db"
    try:
        site.server.start()
        site.fill({f"/many/{n}": b"x" * 3000 for n in range(40)})
        site.server.stop()
        with sqlite3.connect(base) as one:
            one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            root, = one.execute("SELECT rootpage FROM sqlite_master WHERE "
                                "name = 'cache_entries'").fetchone()
        one.close()
        whole = base.read_bytes()
        for at, end in ((4096 * (root - 1), 4096 * root), (100, 4096)):
            base.write_bytes(whole[:at] + b"\xaa" * (end - at) + whole[end:])
            was = base.read_bytes()
            for _ in range(2):
                for words in ([], ["--remove"], ["--json"]):
                    done = site.ctl("verify", options=words)
                    assert done.status == 1, (at, words, done)
                    assert "damaged" in done.err, done
                assert site.ctl("ls").status == 4
            assert base.read_bytes() == was
            assert not [x for x in os.listdir(base.parent) if "aside" in x]
        base.write_bytes(whole)
        assert site.ctl("verify").status == 0
    finally:
        site.server.remove()


def test_tables_of_another_name_are_not_made(tmp_path):
    words = ["sqlite", f"db_path={tmp_path}/tests.db"]
    assert ctl("bench", "--keys", "5", "--seconds", "1", "--warmup", "0s",
               "--ops", "get", *words).status == 0
    for command in ("ls", "verify", "stat", "sweep"):
        done = ctl(command, *words, "table_name=others")
        assert done.status == 4 and "no tables of table_name=others" in \
            done.err, done
    with sqlite3.connect(tmp_path / "tests.db") as base:
        assert base.execute("SELECT count(*) FROM sqlite_master WHERE name "
                            "LIKE 'others%'").fetchone() == (0,)


# ---- beside a server ---------------------------------------------------------

def test_files_stay_the_servers(site):
    """As root nothing may come to be that the children cannot use."""
    site.fill(PAGES)
    top = site.server.dir / "cache"
    before = owners(top)
    for command in ("ls", "verify", "stat", "sweep"):
        site.ctl(command)
    site.ctl("rm", site.url("/a.css"))
    user = settings.run_user[1] if settings.run_user else os.geteuid()
    assert set(owners(top).values()) <= {user}
    assert set(before.values()) <= {user}
    site.server.stop()
    for command in ("ls", "verify", "stat", "sweep"):
        site.ctl(command)
    assert set(owners(top).values()) <= {user}
    site.server.start()
    assert site.get("/c.css").cache == "HIT"


def test_a_look_that_is_stopped_holds_nothing_up(site):
    """Who has paused the output, and killed the tool, has the server go on."""
    site.fill({f"/many/{n}": b"x" * 100 for n in range(40)})
    with subprocess.Popen([PROGRAM, "ls", "--long", "--modules", MODULES,
                           *site.words], stdout=subprocess.PIPE) as one:
        one.stdout.read(1)
        os.kill(one.pid, signal.SIGSTOP)
        try:
            site.fill({f"/more/{n}": b"y" * 1000 for n in range(20)})
            site.server.graceful()
            site.fill({f"/again/{n}": b"z" * 1000 for n in range(20)})
        finally:
            os.kill(one.pid, signal.SIGKILL)
    assert site.get("/many/1").cache == "HIT"
    site.fill({"/last": b"."})


class Visitor(threading.Thread):
    """Asks for pages until it is told to stop; each answer must be right."""

    def __init__(self, site, pages):
        super().__init__(daemon=True)
        self.site, self.pages = site, pages
        self.n = 0
        self.wrong = []
        self.is_over = False

    def run(self):
        try:
            while not self.is_over:
                for page, body in self.pages.items():
                    res = self.site.get(page)
                    if (res.status, res.cache, res.body) != (200, "HIT", body):
                        self.wrong.append(f"{page}: {res}")
                    self.n += 1
        except Exception as e:
            self.wrong.append(repr(e))


def test_visitors_notice_nothing(site, origin):
    """Whatever looks into a store, or is refused, they get all that is there."""
    pages = {f"/busy/{n}": os.urandom(n * 9000) for n in range(12)}
    for page, body in pages.items():
        site.origin.page(page, body, 36000)
        site.get(page)
        assert site.get(page).cache == "HIT"
    fetched = [origin.count(x) for x in pages]
    url = site.url("/busy/3")
    commands = [
        (0, "ls", [], []), (0, "ls", ["--long", "--all"], []),
        (0, "verify", [], []), (0, "verify", ["--remove"], []),
        (0, "stat", [], [url]), (0, "get", [], [url]), (0, "sweep", [], []),
        (1, "rm", [], [site.url("/never")]),
        (2, "clear", [], []), (2, "check", [], []), (2, "bench", [], [])]
    if site.kind != "redis":
        commands.append((0, "stat", [], []))
    visitors = [Visitor(site, pages) for _ in range(3)]
    for one in visitors:
        one.start()
    try:
        for status, command, options, words in commands:
            before = [x.n for x in visitors]
            done = site.ctl(command, *words, options=options)
            assert done.status == status, (command, done)
            wait_for(lambda: all(x.n > y or x.wrong for x, y in
                                 zip(visitors, before)), "answers", 60)
    finally:
        for one in visitors:
            one.is_over = True
        for one in visitors:
            one.join()
    assert not [y for x in visitors for y in x.wrong]
    assert fetched == [origin.count(x) for x in pages]


def test_who_has_read_enough_of_a_list_hears_nothing(site):
    site.fill({f"/many/{n}": b"x" * 100 for n in range(40)})
    line = " ".join(map(str, [PROGRAM, "ls", "--modules", MODULES,
                              *site.words]))
    done = subprocess.run(["bash", "-c", f"{line} | true; {line} >/dev/full"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert done.stderr.splitlines() == \
        ["cachemwctl: cannot write the output: No space left on device"]


def test_a_server_starts_beside_a_look(origin):
    """The tool has no lock on a directory that a server would wait for."""
    site = site_of("file", origin)
    try:
        site.server.start()
        site.fill({f"/many/{n}": b"x" * 100 for n in range(2000)})
        site.server.stop()
        with subprocess.Popen([PROGRAM, "ls", *site.words],
                              stdout=subprocess.PIPE) as one:
            one.stdout.read(1)
            os.kill(one.pid, signal.SIGSTOP)
            try:
                site.server.start()
                assert site.get("/many/1").cache == "HIT"
            finally:
                os.kill(one.pid, signal.SIGKILL)
        assert "is used by another server" not in site.server.log()
    finally:
        site.server.remove()


def opened(pid, path):
    """Whether a process has a file open."""
    try:
        return any(os.readlink(x) == str(path)
                   for x in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def test_no_directory_and_no_database_is_made(tmp_path):
    for words in (["file", f"cache_dir={tmp_path}/none"],
                  ["sqlite", f"db_path={tmp_path}/none.db"]):
        for command in ("ls", "stat", "verify", "sweep"):
            done = ctl(command, *words)
            assert done.status == 4 and "No such file" in done.err, done
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_begins_its_database_is_waited_for(origin):
    site = site_of("sqlite", origin)
    path = site.server.dir / "cache" / "tests.db"
    try:
        site.server.start()
        for _ in range(5):      # a few milliseconds are what it takes
            first = threading.Thread(target=site.get, args=("/a",))
            first.start()
            wait_for(path.exists, "the database")
            for _ in range(4):      # on a machine that stands still
                done = site.ctl("ls")
                if "no server has made" not in done.err:
                    break
            first.join()
            assert done.status == 0, done
            site.server.stop()
            for file in path.parent.glob("tests.db*"):
                file.unlink()
            site.server.start()
    finally:
        site.server.remove()


def test_a_database_that_nobody_begins_is_named(tmp_path):
    path = tmp_path / "tests.db"
    words = ["sqlite", f"db_path={path}"]
    fill = ["bench", "--keys", "5", "--seconds", "1", "--warmup", "0s",
            "--ops", "get", *words]
    assert ctl(*fill).status == 0
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.close()
    whole = path.read_bytes()
    # as the server writes it: nothing, a database, one of ours; no tables
    one = bytearray(whole)
    one[40:44] = one[60:64] = bytes(4)
    for begun in (b"", bytes(one[:68]) + bytes(4) + one[72:], bytes(one)):
        path.write_bytes(begun)
        done = ctl("ls", *words)
        assert done.status == 4 and "no server has made" in done.err, done
        with subprocess.Popen([PROGRAM, "ls", "--modules", MODULES, *words],
                              stdout=subprocess.PIPE) as one:
            wait_for(lambda: one.poll() is not None or opened(one.pid, path),
                     "the look")
            path.write_bytes(whole)
            out, _ = one.communicate(timeout=60)
        assert (one.returncode, len(out.splitlines())) == (0, 5)


def test_a_database_of_somebody_else_is_left_alone(tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as base:
        base.execute("CREATE TABLE important (x)")
    was = other.read_bytes()
    for command in ("ls", "sweep", "verify"):
        done = ctl(command, "sqlite", f"db_path={other}")
        assert done.status == 4 and "no database of mod_cachemw" in done.err
    assert other.read_bytes() == was
    assert [x.name for x in tmp_path.iterdir()] == ["other.db"]


# ---- what cannot be ----------------------------------------------------------

@pytest.mark.parametrize("command", ["ls", "stat", "verify", "sweep"])
def test_memory_says_that_nobody_can_look(command):
    done = ctl(command, "memory", "size=64M")
    assert done.status == 3 and "in the memory of the server" in done.err


def test_http_says_that_it_cannot_list():
    done = ctl("ls", "http", "base_url=http://127.0.0.1:9", "timeout=1s")
    assert done.status == 3 and "cannot list its entries" in done.err


def test_a_service_behind_http_has_what_can_be_asked_for_by_its_url():
    """get, stat and rm of a URL; the service ends with the commands."""
    store = "http base_url={url} timeout=10s store_timeout=10s"
    page = "http://bench.example/page/00000001.html"
    run = f"{PROGRAM} COMMAND --modules {MODULES}"
    script = " && ".join(
        run.replace("COMMAND", x) + f" {store} {y}" for x, y in (
            ("bench --force --keys 3 --seconds 1 --warmup 0s --ops get", ""), ("get", page + " | wc -c"), ("stat", page), ("rm", page)))
    script += f" && ! {run.replace('COMMAND', 'get')} {store} {page}"
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "harness.service", "plain", "--", "sh",
         "-c", script], capture_output=True, text=True, timeout=120,
        env={**os.environ,
             "PYTHONPATH": str(settings.source / "tests" / "httpd")})
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert "1024" in lines and "Status         200" in lines
    assert lines[-1] == "1 removed" and "is not stored" in done.stderr
    assert "looked for under bench.example:80 only: --host" in done.stderr


@pytest.mark.parametrize("command", ["rm", "clear"])
def test_near_tiers_of_servers_are_told(command, origin, redis):
    redis.ask("FLUSHALL")
    words = ["redis", f"url={redis.url}", "timeout=2s"]
    site = Site(origin, "pages", [], ["cachemw_redis"], stores=f"""
CachemwStore near memory
CachemwStore far {" ".join(words)}
CachemwStore pages multitier l1=near l2=far""")

    def is_near(page):
        site.get(page)
        for key in redis.keys():
            if b"{" in key:
                redis.ask("DEL", key)
        return site.get(page).cache == "HIT"

    with contextlib.ExitStack() as stack:
        stack.callback(site.server.remove)
        site.server.start()
        origin.page("/near.html", b"near")
        wait_for(lambda: is_near("/near.html"), "near tiers to be in use")
        site.fill({"/page.html": b"old"})
        origin.page("/page.html", b"new")
        more = [site.url("/page.html")] if command == "rm" else ["--yes"]
        assert ctl(command, *words, *more).status == 0
        wait_for(lambda: site.get("/page.html").body == b"new", "the new page")
        site.server.check()


def test_redis_that_is_away_is_trouble():
    done = ctl("ls", "redis", "url=redis://127.0.0.1:9", "timeout=1s")
    assert done.status == 4 and "refused" in done.err


def test_redis_that_falls_silent_ends_a_list(redis):
    """… which may take as long as it wants, as long as it goes on."""
    redis.ask("FLUSHALL")
    words = ["redis", f"url={redis.url}", "timeout=60s", "store_timeout=60s"]
    assert ctl("bench", "--force", "--keys", "8000", "--seconds", "1",
               "--warmup", "0s", "--ops", "get", "--size", "10",
               *words).status == 0
    with subprocess.Popen([PROGRAM, "ls", "--modules", MODULES, *words],
                          stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as one:
        one.stdout.readline()   # more than a pipe holds is to come
        redis.signal(signal.SIGSTOP)
        try:
            out, err = one.communicate(timeout=120)
        finally:
            redis.signal(signal.SIGCONT)
            one.kill()
        assert 0 < len(out.splitlines()) < 8000
        assert one.returncode == 4 and b"cannot list its entries" in err, err
    assert len(ctl("ls", *words).lines) == 8000


def test_tiers_are_seen_one_by_one(origin):
    stores = ("CachemwStore near memory size=16M\n"
              "CachemwStore far file cache_dir=@DIR@/cache/far")
    site = Site(origin, "multitier", ["l1=near", "l2=far"], stores=stores)
    tiers = ["--store", "near", "memory", "size=16M",
             "--store", "far", "file",
             f"cache_dir={site.server.dir}/cache/far"]
    try:
        site.server.start()
        site.fill(PAGES)
        done = site.ctl("ls", options=["--json", *tiers])
        assert urls(done) == sorted(site.url(x) for x in PAGES)
        assert {x["store"] for x in done.objects} == {"far"}
        assert "near: a store of memory" in done.err
        assert site.ctl("get", site.url("/a.css"),
                        options=tiers).raw == PAGES["/a.css"]
        assert site.ctl("rm", site.url("/a.css"),
                        options=tiers).out == "1 removed\n"
    finally:
        site.server.remove()


# ---- a million ---------------------------------------------------------------

def peak(pid):
    """KB of memory that a process has had at most."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB", text, re.M)[1])


@pytest.fixture
def files(tmp_path):
    """that do not stay: what comes next would begin with removing them"""
    yield tmp_path / "files"
    shutil.rmtree(tmp_path / "files", ignore_errors=True)


@pytest.mark.long
@pytest.mark.parametrize("kind,most", [
    ("file", 30_000), ("sqlite", 30_000),
    ("redis", 300_000)])        # SCAN's names are remembered
def test_ls_of_a_million_entries_streams(kind, most, redis, files, tmp_path):
    """The first line comes long before the last, and memory stays small."""
    count = 1_000_000
    redis.ask("FLUSHALL")
    words = {
        "file": ["file", f"cache_dir={files}", "max_bytes=100G",
                 "index_size=128M", "dir_levels=2"],
        "sqlite": ["sqlite", f"db_path={tmp_path}/tests.db", "max_bytes=100G",
                   f"max_entries={2 * count}", "synchronous=off"],
        "redis": ["redis", f"url={redis.url}", "timeout=60s",
                  "store_timeout=60s"]}[kind]
    filled = ctl("bench", "--force", "--keys", str(count), "--seconds", "1",
                 "--warmup", "0s", "--ops", "get", "--size", "10",
                 "--threads", "2", *words, limit=3600)
    assert filled.status == 0, filled
    if kind != "redis":     # a few were not stored: the disk was slow
        stat, = ctl("stat", "--json", *words).objects
        assert 0.9 * count < stat["entries"] <= count
        count = stat["entries"]
    begin = time.monotonic()
    with subprocess.Popen([PROGRAM, "ls", "--modules", MODULES, *words],
                          stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        first = time.monotonic() - begin
        lines = 1
        for line in one.stdout:
            lines += 1
            if lines == count - 5000:       # it still waits for who reads
                used = peak(one.pid)
    took = time.monotonic() - begin
    print(f"{kind}: {lines} in {took:.1f} s, the first after {first:.3f} s, "
          f"{used} KB")
    assert (one.returncode, lines) == (0, count)
    assert first < took / 10
    assert used < most


def test_clear_is_told_before_and_after(redis):
    """What was fetched before it must not be stored behind the scan, and what
    was read during it must go."""
    with redis.wire() as monitor:
        monitor.ask("MONITOR")
        done = ctl("clear", "--yes", "redis", f"url={redis.url}", "announce=on")
        assert done.status == 0, done
        redis.ask("ECHO", "over")
        seen = []
        while "ECHO" not in seen:
            seen.append(monitor.read().split('"')[1])
    steps = [x for x in seen if x in ("PUBLISH", "SCAN")]
    assert [x for x, _ in itertools.groupby(steps)] \
        == ["PUBLISH", "SCAN", "PUBLISH"]
