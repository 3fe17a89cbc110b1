# SPDX-License-Identifier: Apache-2.0
"""A mistake in the configuration is named so that it can be mended: file,
line, directive, option, value, and what would be accepted.

Each row: what is wrong, the configuration, what the message must contain.  A
line with the mark <- is the one that the message must name.  {secret} etc. are
paths of files that the test makes."""

import os

import pytest

from harness import Httpd

ENABLE = "CacheEnable cachemw /"

TABLE = [
    # ---- the directives themselves ----
    ("store without provider", "CachemwStore hot <-",
     ["CachemwStore", "NAME PROVIDER [option=value ...]"]),
    ("store without anything", "CachemwStore <-",
     ["CachemwStore", "NAME PROVIDER [option=value ...]"]),
    ("provider without anything", "CachemwProvider <-",
     ["CachemwProvider", "NAME, or PROVIDER [option=value ...]"]),
    ("namespace without anything", "CachemwNamespace <-",
     ["CachemwNamespace"]),
    ("two namespaces in one line", "CachemwNamespace a b <-",
     ["CachemwNamespace"]),
    ("open quote in a store", 'CachemwStore hot memory size="64M <-',
     ["CachemwStore", "quote"]),
    ("open quote in a provider", "CachemwProvider memory size='64M <-",
     ["CachemwProvider", "quote"]),
    ("comment behind a store", "CachemwStore hot memory   # it's large <-",
     ["CachemwStore", "comments need a line of their own"]),
    ("comment behind a provider", "CachemwProvider hot #named <-",
     ["CachemwProvider", "comments need a line of their own"]),
    ("comment behind a namespace", "CachemwNamespace a # b <-",
     ["CachemwNamespace", "comments need a line of their own"]),
    ("misspelt directive", "CachemwStores hot memory <-",
     ["CachemwStores"]),
    ("two providers in one server",
     "CachemwProvider memory\nCachemwProvider memory size=1M <-",
     ["CachemwProvider", "already", "line"]),
    ("two namespaces in one server",
     "CachemwNamespace a\nCachemwNamespace b <-",
     ["CachemwNamespace", "already", "line"]),

    # ---- where they may stand ----
    ("store in a virtual host",
     "<VirtualHost *:1>\nCachemwStore hot memory <-\n</VirtualHost>",
     ["CachemwStore", "VirtualHost"]),
    ("store in a location",
     '<Location "/">\nCachemwStore hot memory <-\n</Location>',
     ["CachemwStore", "directory context", "outside of all sections"]),
    ("provider in a location",
     '<Location "/">\nCachemwProvider memory <-\n</Location>',
     ["CachemwProvider", "directory context", "one store"]),
    ("provider in a directory",
     '<Directory "/">\nCachemwProvider memory <-\n</Directory>',
     ["CachemwProvider", "directory context"]),
    ("namespace in a location",
     '<Location "/">\nCachemwNamespace a <-\n</Location>',
     ["CachemwNamespace", "directory context", "one namespace"]),

    # ---- names ----
    ("store with a provider's name", "CachemwStore memory memory <-",
     ["CachemwStore memory", "name of a provider"]),
    ("store defined twice",
     "CachemwStore hot memory\nCachemwStore hot memory size=1M <-",
     ["CachemwStore hot", "already", "line"]),
    ("store with a slash in its name", "CachemwStore ho/t memory <-",
     ["CachemwStore ho/t", "letters, digits"]),
    ("store with an empty name", 'CachemwStore "" memory <-',
     ["CachemwStore", "letters, digits"]),
    ("store with a very long name", "CachemwStore " + "h" * 300
     + " memory <-", ["CachemwStore", "letters, digits"]),
    ("store with a name that is not ASCII", "CachemwStore h\xf6t memory <-",
     ["CachemwStore", "letters, digits"]),
    ("namespace with a blank", 'CachemwNamespace "a b" <-',
     ["CachemwNamespace", "visible ASCII"]),
    ("empty namespace", 'CachemwNamespace "" <-',
     ["CachemwNamespace", "takes one argument"]),
    ("very long namespace", "CachemwNamespace " + "n" * 256 + " <-",
     ["CachemwNamespace", "255"]),
    ("namespace that is not ASCII", "CachemwNamespace \xe4 <-",
     ["CachemwNamespace", "visible ASCII"]),

    # ---- the service ----
    ("service without anything", "CachemwApi <-",
     ["CachemwApi", "NAME [option=value ...]"]),
    ("service of an option", "CachemwApi auth_token=x <-",
     ["CachemwApi", "NAME [option=value ...]"]),
    ("service of an unknown store",
     "CachemwStore hot memory\nCachemwApi hto auth_token=x <-",
     ["CachemwApi hto", "no store of this name", "hot"]),
    ("service of a provider that is no store",
     '<Location "/">\nCachemwApi file auth_token=x <-\n</Location>',
     ["CachemwApi file", "no store of this name; stores: none"]),
    ("service with an unknown option", "CachemwApi memory token=x <-",
     ["CachemwApi memory", "token", "auth_token_file"]),
    ("service with two tokens",
     "CachemwApi memory auth_token=x auth_token_file=/etc/passwd <-",
     ["CachemwApi memory", "auth_token_file", "one of them"]),
    ("service with a token that counts for nothing",
     "CachemwApi memory auth_token=x require_token=off <-",
     ["CachemwApi memory", "require_token=off"]),
    ("service with an empty token", "CachemwApi memory auth_token= <-",
     ["CachemwApi memory", "auth_token"]),
    ("service with a token in two words",
     'CachemwApi memory auth_token="a b" <-',
     ["CachemwApi memory", "visible ASCII"]),
    ("two services in a section",
     '<Location "/">\nCachemwApi memory\nCachemwApi memory <-\n</Location>',
     ["CachemwApi", "this section", "already", "line"]),

    # ---- providers ----
    ("unknown provider", "CachemwStore hot memry <-",
     ["CachemwStore hot", '"memry"', "providers: ", "memory"]),
    ("provider in the wrong case", "CachemwStore hot Memory <-",
     ["CachemwStore hot", '"Memory"', "memory"]),
    ("unknown name in a server", "CachemwProvider edge <-",
     ["CachemwProvider edge", "stores: ", "providers: ", "memory"]),
    ("unknown name, known ones are told",
     "CachemwStore hot memory\nCachemwStore shared memory\n"
     "CachemwProvider hto <-",
     ["CachemwProvider hto", "hot, shared"]),
    ("unknown name in a virtual host",
     "<VirtualHost *:1>\nCachemwProvider edge <-\n</VirtualHost>",
     ["CachemwProvider edge", "providers: ", "memory"]),
    ("redis, whose module is not loaded",
     "CachemwStore shared redis url=redis://one <-",
     ["CachemwStore shared", "redis needs: LoadModule "
      "cachemw_redis_module modules/mod_cachemw_redis.so"]),
    ("sqlite, whose module is not loaded",
     "CachemwProvider sqlite db_path=wiki.db <-",
     ["CachemwProvider sqlite", "sqlite needs: LoadModule "
      "cachemw_sqlite_module modules/mod_cachemw_sqlite.so"]),
    ("http, whose module is not loaded", "CachemwProvider http <-",
     ["CachemwProvider http", "http needs: LoadModule "
      "cachemw_http_module modules/mod_cachemw_http.so"]),
    ("more entries than the index of files has room for",
     "CachemwStore pages file index_size=256K max_entries=1000000 <-\n"
     "CachemwProvider pages\nCacheEnable cachemw /",
     ["CachemwStore pages", "max_entries=1000000", "index_size=256K"]),
    ("one directory, written with and without a slash",
     "CachemwStore pages file cache_dir=/nowhere/a\n"
     "CachemwStore other file cache_dir=/nowhere/a/ <-\n",
     ["CachemwStore other", "cache_dir=/nowhere/a", "same path"]),
    ("a directory in another store's",
     "CachemwStore pages file cache_dir=/nowhere/a\n"
     "CachemwStore other file cache_dir=/nowhere/a/v1/../b <-\n",
     ["CachemwStore other: cache_dir=/nowhere/a/b lies in "
      "cache_dir=/nowhere/a of CachemwStore pages"]),
    ("a directory around another store's",
     "CachemwStore pages file cache_dir=/nowhere/a/b\n"
     "CachemwStore other file cache_dir=/nowhere/a <-\n",
     ["CachemwStore other: cache_dir=/nowhere/a has in it "
      "cache_dir=/nowhere/a/b of CachemwStore pages"]),
    ("one tier alone", "CachemwStore both multitier l1=hot <-\n"
     "CachemwStore hot memory", ["CachemwStore both", "l2"]),
    ("a tier that is no store", "CachemwStore hot memory\n"
     "CachemwStore both multitier l1=hot l2=cold <-",
     ["CachemwStore both: l2=cold: no store of this name", "hot"]),
    ("a tier that is itself", "CachemwStore hot memory\n"
     "CachemwStore both multitier l1=hot l2=both <-",
     ["CachemwStore both: l2=both", "cannot contain itself: both -> both"]),
    ("tiers in a ring", "CachemwStore hot memory\n"
     "CachemwStore a multitier l1=hot l2=b\n"
     "CachemwStore b multitier l1=hot l2=a <-",
     ["CachemwStore b: l2=a", "cannot contain itself: a -> b -> a"]),
    ("one store as two tiers", "CachemwStore hot memory\n"
     "CachemwStore both multitier l1=hot l2=hot <-",
     ["CachemwStore both: l2=hot: l1 is the same store"]),
    ("tiers of a tier", "CachemwStore hot memory\nCachemwStore cold memory\n"
     "CachemwStore warm memory\nCachemwStore a multitier l1=hot l2=cold\n"
     "CachemwStore b multitier l1=warm l2=a <-",
     ["CachemwStore b: l2=a: a store in front of others", "agree=off"]),
    ("a gap between tiers", "CachemwStore hot memory\n"
     "CachemwStore cold memory\n"
     "CachemwStore both multitier l1=hot l2=cold l4=memory <-",
     ["CachemwStore both: l4=memory: there is no l3"]),
    ("a ratio of more than all", "CachemwStore hot memory\n"
     "CachemwProvider multitier l1=memory l2=hot l1_timeout_ratio=1.5 <-",
     ["CachemwProvider multitier", "l1_timeout_ratio", "'1.5'"]),
    ("a timeout of tiers", "CachemwStore hot memory\n"
     "CachemwStore both multitier l1=memory l2=hot timeout=1s <-",
     ["CachemwStore both: timeout: each tier has its own"]),
    ("options at the use of a named store",
     "CachemwStore hot memory\nCachemwProvider hot size=1M <-",
     ["CachemwProvider hot", "CachemwStore", "line"]),

    # ---- options ----
    ("unknown option", "CachemwStore hot memory colour=blue <-",
     ["CachemwStore hot", "'colour'", "size", "max_entries", "keep"]),
    ("misspelt option", "CachemwStore hot memory max_entrys=5 <-",
     ["CachemwStore hot", "'max_entrys'", "did you mean 'max_entries'"]),
    ("misspelt common option", "CachemwProvider memory max_objectsize=1M <-",
     ["CachemwProvider memory", "did you mean 'max_object_size'"]),
    ("option of another provider", "CachemwProvider memory db_path=x <-",
     ["CachemwProvider memory", "'db_path'", "size"]),
    ("word without equals sign", "CachemwStore hot memory 64M <-",
     ["CachemwStore hot", "'64M'", "name=value"]),
    ("word without a name", "CachemwStore hot memory =64M <-",
     ["CachemwStore hot", "name=value"]),
    ("option given twice", "CachemwStore hot memory size=1M size=2M <-",
     ["CachemwStore hot", "'size'", "twice"]),
    ("option given twice by its alias",
     "CachemwStore hot memory max_entries=10 max_size=20 <-",
     ["CachemwStore hot", "'max_size'", "twice", "'max_entries'"]),
    ("blank around the equals sign", "CachemwStore hot memory size= 64M <-",
     ["CachemwStore hot", "'size'", "''", "size"]),

    # ---- values ----
    ("size with a wrong suffix", "CachemwStore hot memory size=64X <-",
     ["CachemwStore hot", "'size'", "'64X'", "K, M or G", "1M", "1024G"]),
    ("size without a number", "CachemwStore hot memory size=big <-",
     ["'size'", "'big'", "K, M or G"]),
    ("empty size", "CachemwStore hot memory size= <-",
     ["'size'", "''", "K, M or G"]),
    ("negative size", "CachemwStore hot memory size=-64M <-",
     ["'size'", "'-64M'", "K, M or G"]),
    ("size with a fraction", "CachemwStore hot memory size=1.5G <-",
     ["'size'", "'1.5G'", "K, M or G"]),
    ("size with its suffix forgotten", "CachemwStore hot memory size=64 <-",
     ["'size'", "'64'", "too small", "1M", "64M"]),
    ("size too large", "CachemwStore hot memory size=9999999G <-",
     ["'size'", "'9999999G'", "too large", "1024G"]),
    ("size beyond all numbers",
     "CachemwStore hot memory size=99999999999999999999999G <-",
     ["'size'", "too large"]),
    ("size zero", "CachemwStore hot memory size=0 <-",
     ["'size'", "'0'", "too small", "1M"]),
    ("hexadecimal", "CachemwStore hot memory size=0x100000 <-",
     ["'size'", "'0x100000'"]),
    ("entries with a suffix", "CachemwStore hot memory max_entries=10K <-",
     ["'max_entries'", "'10K'", "whole number"]),
    ("no entries", "CachemwStore hot memory max_entries=0 <-",
     ["'max_entries'", "'0'", "too small", "1"]),
    ("shards that are no power of two", "CachemwStore hot memory shards=3 <-",
     ["CachemwStore hot", "shards=3", "power of two"]),
    ("too many shards", "CachemwStore hot memory shards=512 <-",
     ["'shards'", "'512'", "256"]),
    ("flag that is no flag", "CachemwStore hot memory prefault=maybe <-",
     ["'prefault'", "'maybe'", "on or off"]),
    ("duration with a wrong suffix", "CachemwStore hot memory keep=5weeks <-",
     ["'keep'", "'5weeks'", "ms, s, min, h or d"]),
    ("duration with a blank", 'CachemwStore hot memory "keep=5 h" <-',
     ["'keep'", "'5 h'", "ms, s, min, h or d"]),
    ("duration in m, which could be two things",
     "CachemwStore hot memory keep=5m <-",
     ["'keep'", "'5m'", "min"]),
    ("duration too long", "CachemwStore hot memory keep=400d <-",
     ["'keep'", "'400d'", "too large", "365d"]),
    ("negative duration", "CachemwStore hot memory keep=-1s <-",
     ["'keep'", "'-1s'"]),
    ("cleanup interval too short",
     "CachemwStore hot memory cleanup_interval=10ms <-",
     ["'cleanup_interval'", "'10ms'", "too small", "1s"]),
    ("no variants", "CachemwStore hot memory max_variants=0 <-",
     ["'max_variants'", "'0'", "from 1 to 1024"]),
    ("too many variants", "CachemwStore hot memory max_variants=5000 <-",
     ["'max_variants'", "'5000'", "1024"]),
    ("object size zero", "CachemwStore hot memory max_object_size=0 <-",
     ["'max_object_size'", "'0'", "too small"]),
    ("largest object larger than the store takes",
     "CachemwStore hot memory size=1M max_object_size=512M <-",
     ["CachemwStore hot", "max_object_size=512M: at most 256K is accepted"]),
    ("smallest object larger than the largest",
     "CachemwStore hot memory min_object_size=2M max_object_size=1M <-",
     ["CachemwStore hot",
      "min_object_size=2M: at most max_object_size, 1M, is accepted"]),
    ("timeout of a local store", "CachemwStore hot memory timeout=1s <-",
     ["CachemwStore hot", "timeout", "other machines"]),
    ("mistake in a provider in place",
     "CachemwProvider memory size=64Q <-",
     ["CachemwProvider memory", "'size'", "'64Q'"]),
    ("mistake in a virtual host's provider",
     "<VirtualHost *:1>\nCachemwProvider memory keep=x <-\n</VirtualHost>",
     ["CachemwProvider memory", "'keep'", "'x'"]),
    ("mistake in a store that nobody uses",
     "CachemwStore hot memory size=64Q <-",
     ["CachemwStore hot", "'64Q'"]),
]


def write(conf):
    """The text without the mark, and the number of the marked line."""
    lines = (ENABLE + "\n" + conf).split("\n")
    marked = [i for i, x in enumerate(lines) if x.endswith(" <-")]
    assert len(marked) == 1, conf
    lines[marked[0]] = lines[marked[0]][:-3]
    return "\n".join(lines) + "\n", marked[0] + 1


@pytest.fixture(scope="module")
def server():
    one = Httpd('ServerName x\nListen 127.0.0.1:@PORT@\nInclude '
                '"@DIR@/mistake.conf"\n', extra=["cachemw"])
    yield one
    one.remove()


@pytest.mark.parametrize("what,conf,wanted", TABLE,
                         ids=[x[0].replace(" ", "-") for x in TABLE])
def test_mistake_is_named(server, what, conf, wanted):
    text, line = write(conf)
    file = server.dir / "mistake.conf"
    file.write_bytes(text.encode("latin-1"))
    rc, said = server.configtest()
    assert rc != 0, f"taken for correct: {conf}"
    assert "Syntax OK" not in said
    assert f"line {line} of {file}" in said, said
    about = said[said.index(f"line {line} of {file}"):]
    for words in wanted:
        assert words in about, f"{words!r} is not said in:\n{said}"


@pytest.mark.sqlite
@pytest.mark.parametrize("first,second", [
    ("file cache_dir=/nowhere/a", "sqlite db_path=/nowhere/a/v1/x.db"),
    ("sqlite db_path=/nowhere/a/v1/x.db", "file cache_dir=/nowhere/a"),
], ids=["database-second", "directory-second"])
def test_a_database_in_another_stores_directory_is_named(first, second):
    server = Httpd(f"ServerName x\nListen 127.0.0.1:@PORT@\n{ENABLE}\n"
                   f"CachemwStore pages {first}\nCachemwStore other {second}\n",
                   extra=["cachemw", "cachemw_sqlite"])
    try:
        rc, said = server.configtest()
    finally:
        server.remove()
    lies = "lies in" if second.startswith("sqlite") else "has in it"
    assert rc != 0
    assert (f"CachemwStore other: {second.split()[1]} {lies} "
            f"{first.split()[1]} of CachemwStore pages") in said


@pytest.mark.sqlite
def test_a_directory_as_a_database_is_named():
    server = Httpd(f"ServerName x\nListen 127.0.0.1:@PORT@\n{ENABLE}\n"
                   "CachemwProvider sqlite db_path=@DIR@\n",
                   extra=["cachemw", "cachemw_sqlite"])
    try:
        rc, said = server.configtest()
        place = server.dir
    finally:
        server.remove()
    assert rc != 0
    assert (f"CachemwProvider sqlite: db_path={place}: this is a directory; a "
            f"file is expected, such as {place}/cache.db") in said


def test_the_table_is_large_enough():
    assert len(TABLE) >= 40
    assert len({x[0] for x in TABLE}) == len(TABLE)


def test_all_names_that_are_missing_are_told_at_once(server):
    """What is found only when all is read does not come one by one."""
    file = server.dir / "mistake.conf"
    file.write_text(f"{ENABLE}\nCachemwProvider nobody\n<VirtualHost *:1>\n"
                    "CachemwProvider noone\n</VirtualHost>\n")
    rc, said = server.configtest()
    assert rc != 0
    assert f"line 2 of {file}" in said and f"line 4 of {file}" in said
    assert "nobody" in said and "noone" in said


GOOD = [
    "CachemwStore a memory",
    "CachemwStore a.b-c_D9 memory size=1M",
    "CachemwStore a memory size=64m max_entries=1000 keep=1h",
    'CachemwStore "a" "memory" size="64M"',
    "CachemwStore a memory 'size=64M' max_size=1000",
    "CachemwStore a memory keep=0 min_object_size=0",
    "CachemwStore a memory keep=1.5h cleanup_interval=90",
    "CachemwStore a memory keep=500ms",
    "CachemwStore a memory keep=2min max_object_size=1G size=16G",
    "CachemwStore a memory prefault=off shards=64",
    "CachemwProvider memory\n<VirtualHost *:1>\nCachemwProvider a\n"
    "</VirtualHost>\nCachemwStore a memory",
    "CachemwProvider memory max_variants=4",
    "CachemwNamespace " + "n" * 255,
    "<IfModule mod_cachemw.c>\nCachemwProvider memory\n</IfModule>",
]


@pytest.mark.parametrize("conf", GOOD)
def test_what_is_correct_is_accepted(server, conf):
    (server.dir / "mistake.conf").write_text(f"{ENABLE}\n{conf}\n")
    rc, said = server.configtest()
    assert rc == 0 and "Syntax OK" in said, said


def test_mistake_stops_the_start_and_leaves_a_running_server_running(
        httpd, origin, path):
    server = httpd(
        "ServerName x\nListen 127.0.0.1:@PORT@\nCacheHeader on\n"
        'IncludeOptional "@DIR@/extra.*"\n'
        f'{ENABLE}\nProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0\n',
        extra=["cachemw"])
    page = path()
    origin.page(page, b"x")
    assert [server.get(page).cache for _ in range(2)] == ["MISS", "HIT"]
    (server.dir / "extra.conf").write_text("CachemwProvider memory size=Q\n")
    rc, said = server.configtest()
    assert rc != 0 and "'Q'" in said
    os.remove(server.dir / "extra.conf")
    server.graceful()
    assert server.get(page).cache == "HIT"
