# SPDX-License-Identifier: Apache-2.0
"""Servers with near tiers of their own in front of one Redis: what changes
through one of them is not served from another's near tier, and a near tier
that cannot hear of changes is not believed."""

import os
import random
import signal
import threading
import time

import pytest

from conftest import SHARED
from harness.certificates import Authority
from harness.origin import Gate, cacheable
from harness.redis import Cluster, Sentinels, tls_options
from harness.server import wait_for
from harness.shared import get, post
from harness.tcpproxy import TcpProxy
from test_status import figures

pytestmark = [pytest.mark.redis, pytest.mark.errors]

MODULES = ["cachemw", "cachemw_redis"]
PATIENT = "timeout=5s store_timeout=5s connect_timeout=5s"
HASTY = "timeout=200ms store_timeout=200ms connect_timeout=200ms"
BOUND = 1.0     # seconds that a near copy may outlive a change elsewhere

TIERS = """
CachemwStore near @NEAR@
CachemwStore far redis url=@URL@ @OPTIONS@
CachemwStore pages multitier l1=near l2=far
CachemwProvider pages
CachemwNamespace one
CacheEnable cachemw /
"""
# a store more with a tier of its own in front of the same one
TWINS = TIERS + """
CachemwStore near2 memory
CachemwStore twin multitier l1=near2 l2=far
Listen 127.0.0.2:@PORT@
<VirtualHost 127.0.0.2:@PORT@>
    ServerName shared.test:80
    CachemwProvider twin
    CachemwNamespace one
    ProxyPass "/server-status" "!"
    ProxyPass "/" "http://127.0.0.1:@ORIGIN@/" retry=0
</VirtualHost>
"""
ALONE = """
CachemwStore pages redis url=@URL@ @OPTIONS@
CachemwProvider pages
CachemwNamespace one
CacheEnable cachemw /
"""


@pytest.fixture
def proxy(redis):
    with TcpProxy(("127.0.0.1", redis.port)) as one:
        yield one


@pytest.fixture
def make(httpd):
    def start(url, options=PATIENT, provider=TIERS, near="memory"):
        server = httpd(SHARED, {"QUICK": "on", "PROVIDER": provider,
                                "URL": url, "OPTIONS": options, "NEAR": near},
                       extra=MODULES)
        if provider is not ALONE:
            wait_for(lambda: hears(server), "the watch")
        return server
    return start


def number(server, key, store=None):
    return int(figures(server, store or getattr(server, "store", "pages"))[key])


def hears(server):
    return number(server, "WatchAlive") == 1


def is_near(server, page):
    """whether PAGE is answered by the near tier of SERVER"""
    before = number(server, "AnsweredByL1")
    return get(server, page).cache == "HIT" \
        and number(server, "AnsweredByL1") > before


def wait_near(server, page):
    wait_for(lambda: is_near(server, page), "the page to be near")


class Page:
    """A page of which each version can be told from the others."""

    def __init__(self, origin, target, size=0, **more):
        self.origin, self.target, self.more = origin, target, more
        self.size, self.version = size, 0
        self.change()

    def change(self):
        self.version += 1
        self.body = (b"version %d" % self.version).ljust(self.size)
        self.origin.page(self.target, self.body, age=3600, **self.more)

    def is_new(self, server):
        res = get(server, self.target)
        assert res.status == 200
        return res.body == self.body

    def spread(self, servers):
        for one in servers:
            assert self.is_new(one)
            wait_near(one, self.target)

    def delay(self, server):
        """how long SERVER serves another version than the present one: until
        the last request for which it does begins"""
        begin = now = time.monotonic()
        last = begin
        while not self.is_new(server):
            last = now
            assert now - begin < 20, "waited 20 s for the new version"
            time.sleep(0.005)
            now = time.monotonic()
        return last - begin

    def is_changed(self, servers, change):
        """in time for all of them, which have it near"""
        self.spread(servers)
        self.change()
        change()
        delays = [self.delay(x) for x in servers]
        assert max(delays) < BOUND, delays


def replace(server, page):
    """as a reader does who reloads"""
    res = get(server, page, [("Cache-Control", "no-cache")])
    assert res.status == 200


# ---- changes are told --------------------------------------------------------

@pytest.mark.mpm
@pytest.mark.parametrize("change", [post, replace])
def test_change_through_one_server_is_one_for_all(make, redis, origin, path,
                                                  change):
    servers = [make(redis.url) for _ in range(3)]
    page = Page(origin, path())
    for one in servers:
        page.is_changed(servers, lambda: change(one, page.target))
    for one in servers:
        assert number(one, "WatchMessages") > 0
        assert number(one, "WatchGaps") == 1      # the first one
        assert number(one, "NearBypassed") == 0


class Twin:
    """the other store of a server with TWINS"""
    store = "twin"

    def __init__(self, server):
        self.server = server

    def ask(self, *args, **more):
        return self.server.ask(*args, ip="127.0.0.2", **more)

    def get(self, *args, **more):
        return self.server.get(*args, ip="127.0.0.2", **more)


def test_two_stores_of_a_server_share_a_tier(make, redis, origin, path):
    """Each of them hears of every change."""
    one, two = make(redis.url, provider=TWINS), make(redis.url)
    twin = Twin(one)
    wait_for(lambda: hears(twin), "the other watch")
    pages = [Page(origin, path(f"p{n}")) for n in range(10)]
    for page in pages:
        page.spread([one, twin, two])
    for n, page in enumerate(pages):
        page.change()
        (post, replace)[n % 2](two, page.target)
    for page in pages:
        delays = [page.delay(x) for x in (one, twin)]
        assert max(delays) < BOUND, delays
    for server in (one, twin):
        assert number(server, "WatchMessages") >= len(pages)
        assert number(server, "WatchGaps") == 1


def test_all_variants_change(make, redis, origin, path):
    one, other = make(redis.url), make(redis.url)
    page = path()
    version = [1]

    def answer(request):
        return cacheable(b"%s %d" % (request.get("X-Lang", "").encode(),
                                     version[0]), 3600,
                         headers=[("Vary", "X-Lang")])

    def body(server, lang):
        return get(server, page, [("X-Lang", lang)]).body

    origin.on(page, answer)
    for _ in range(2):
        for server in (one, other):
            for lang in ("de", "fr"):
                assert body(server, lang) == b"%s 1" % lang.encode()
    version[0] = 2
    post(one, page)
    begin = time.monotonic()
    for lang in ("de", "fr"):
        wait_for(lambda: body(other, lang) == b"%s 2" % lang.encode(),
                 "the new version")
    assert time.monotonic() - begin < BOUND


def test_near_hit_asks_redis_nothing(make, redis, origin, path):
    one, other = make(redis.url), make(redis.url)
    page = Page(origin, path())
    page.spread([one, other])
    before = redis.calls()
    for _ in range(50):
        assert get(other, page.target).cache == "HIT"
    after = redis.calls()
    changed = {k for k in after if after[k] != before.get(k)}
    assert changed <= {"ping"}, changed


def test_who_has_no_tiers_tells_if_told_to(make, redis, origin, path):
    tiers = make(redis.url)
    alone = make(redis.url, PATIENT + " announce=on", ALONE)
    page = Page(origin, path())
    for change in (post, replace):
        page.spread([tiers])
        page.change()
        change(alone, page.target)
        assert page.delay(tiers) < BOUND


KINDS = ["unix", "password", "tls", "sealed", "database"]


@pytest.mark.parametrize("kind", KINDS)
def test_however_redis_is_reached(make, start_redis, origin, path, tmp_path,
                                  kind):
    options, suffix, named = PATIENT, "", {}
    if kind == "unix":
        named = {"unix": True}
    elif kind == "password":
        named = {"password": "p@ss:w/%rd", "user": "kate"}
    elif kind == "tls":
        os.chmod(tmp_path, 0o755)
        authority = Authority(tmp_path)
        authority.issue("server")
        named = {"tls": tls_options(authority)}
        options += f" ssl_ca_certs={authority.file}"
    elif kind == "sealed":
        (tmp_path / "secret").write_text("a secret of many bytes")
        options += f" secret_file={tmp_path}/secret"
    else:
        suffix = "/3"
    url = start_redis(**named).url + suffix
    servers = [make(url, options) for _ in range(2)]
    page = Page(origin, path())
    for change in (post, replace):
        page.spread(servers)
        page.change()
        change(servers[0], page.target)
        assert page.delay(servers[1]) < BOUND


def test_nodes_of_a_cluster_tell_each_others_changes(make, start_redis, origin,
                                                     path):
    url = start_redis(kind=Cluster).url
    servers = [make(url) for _ in range(2)]
    pages = [Page(origin, path(f"p{n}")) for n in range(8)]
    for page in pages:
        page.spread(servers)
    for n, page in enumerate(pages):
        page.change()
        (post, replace)[n % 2](servers[0], page.target)
        assert page.delay(servers[1]) < BOUND


def test_node_that_leaves_the_cluster(make, start_redis, origin, path):
    """It goes on answering who listens there, and hears nothing any more."""
    group = start_redis(kind=Cluster)
    servers = [make(group.url) for _ in range(2)]
    old = group.owner(group.servers[0].ask("CLUSTER", "KEYSLOT",
                                           "cachemw:say:0"))
    group.dismiss(old)
    for server in servers:
        wait_for(lambda: number(server, "WatchGaps") > 1, "another node")
        wait_for(lambda: hears(server), "the watch")
    pages = [Page(origin, path(f"p{n}")) for n in range(4)]
    for page in pages:
        page.spread(servers)
        page.change()
        post(servers[0], page.target)
        assert page.delay(servers[1]) < BOUND


def test_watch_follows_the_master(make, start_redis, origin, path):
    group = start_redis(kind=Sentinels)
    servers = [make(group.url) for _ in range(2)]
    page = Page(origin, path())
    page.spread(servers)
    old = group.master
    old.kill()
    group.wait_other_master(old)
    for server in servers:
        wait_for(lambda: get(server, page.target) and hears(server),
                 "the watch of the new master", 60)
    page.change()
    for server in servers:
        replace(server, page.target)
    page.spread(servers)
    page.change()
    post(servers[0], page.target)
    assert page.delay(servers[1]) < BOUND


# ---- what the shared tier does not take --------------------------------------

@pytest.fixture(params=["too-long", "full"])
def narrow(request, make, redis):
    """servers whose far tier does not take what is larger than 1 KB"""
    options = PATIENT
    if request.param == "too-long":
        options += " max_object_size=1K"
    servers = [make(redis.url, options) for _ in range(3)]
    if request.param == "full":
        redis.ask("CONFIG", "SET", "maxmemory", "1")
    return servers


def wait_heard(redis, servers):
    """until all have heard what was told"""
    def strange(server):
        kinds = figures(server, "far")
        return int(kinds.get("Failures-strange-message", 0))

    before = [strange(x) for x in servers]
    redis.ask("PUBLISH", "cachemw:say:0", b"")
    wait_for(lambda: all(strange(x) > n for x, n in zip(servers, before)),
             "a message")


def test_near_copies_stay_where_the_shared_tier_takes_none(narrow, redis,
                                                           origin, path):
    page = Page(origin, path(), 5000)
    for server in narrow:
        assert get(server, page.target).cache == "MISS"
        wait_heard(redis, narrow)
    for server in narrow:
        assert is_near(server, page.target)
        assert number(server, "WatchMessages") == 0
    assert origin.count(page.target) == len(narrow)


@pytest.mark.parametrize("change", [post, replace])
def test_change_of_what_the_shared_tier_does_not_take(narrow, origin, path,
                                                      change):
    page = Page(origin, path(), 5000)
    for one in narrow:
        page.is_changed(narrow, lambda: change(one, page.target))


# ---- messages that are not ours ----------------------------------------------

@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_strange_messages_do_nothing(make, redis, origin, path, tmp_path,
                                     sealed):
    options = PATIENT
    if sealed:
        (tmp_path / "secret").write_text("a secret of many bytes")
        options += f" secret_file={tmp_path}/secret"
    servers = [make(redis.url, options) for _ in range(2)]
    page = Page(origin, path())
    page.spread(servers)
    with redis.wire() as listener:
        listener.ask("SUBSCRIBE", "cachemw:say:0")
        replace(servers[0], page.target)
        true = listener.read()[2]
    wait_for(lambda: number(servers[1], "WatchMessages") >= 2, "the message")
    wait_for(lambda: redis.ask("PUBSUB", "NUMSUB", "cachemw:say:0")[1] == 2,
             "the listener's end")
    page.spread(servers)
    strange = [b"", b"x", b"MWS1", true[:-1], true + b"x",
               b"MWS2" + true[4:], true[:4] + b"q" + true[5:],
               true[:40] + bytes([true[40] ^ 1]) + true[41:],
               true[:4] + b"c" + true[5:], b"y" * 10000]
    if sealed:
        strange.append(true[:-32] + true[-4:])
    for message in strange:
        assert redis.ask("PUBLISH", "cachemw:say:0", message) == 2
    for server in servers:
        wait_for(lambda: number(server, "Failures-strange-message", "far")
                 == len(strange), "the messages")
        assert is_near(server, page.target)
        assert number(server, "WatchGaps") == 1
    page.change()
    post(servers[0], page.target)
    assert page.delay(servers[1]) < BOUND


def test_endless_message_ends_the_connection_only(make, redis, origin, path):
    servers = [make(redis.url) for _ in range(2)]
    page = Page(origin, path())
    redis.ask("PUBLISH", "cachemw:say:0", b"x" * 1000000)
    for server in servers:
        wait_for(lambda: number(server, "WatchGaps") > 1, "the new watch")
        wait_for(lambda: hears(server), "the new watch")
    page.spread(servers)
    page.change()
    post(servers[0], page.target)
    assert page.delay(servers[1]) < BOUND


# ---- a watch that is lost ----------------------------------------------------

@pytest.mark.parametrize("how", ["refuse", "hang"])
def test_near_tier_is_not_believed_when_it_cannot_hear(make, redis, proxy,
                                                       origin, path, how):
    one = make(redis.url)
    cut = make(f"redis://127.0.0.1:{proxy.port}", HASTY)
    page = Page(origin, path())
    page.spread([one, cut])
    proxy.set(how)
    page.change()
    post(one, page.target)
    assert page.delay(cut) < BOUND
    wait_for(lambda: not hears(cut), "the loss to be known")
    assert number(cut, "NearBypassed") > 0
    wait_for(lambda: "l2 does not tell what other servers change" in cut.log(),
             "the log line")
    proxy.set("pass")
    wait_for(lambda: hears(cut), "the watch")
    wait_near(cut, page.target)
    wait_for(lambda: "l2 tells again what other servers change" in cut.log(),
             "the log line")
    assert number(cut, "WatchGaps") > 1
    page.change()
    post(one, page.target)
    assert page.delay(cut) < BOUND


def test_redis_that_always_answers_late(make, redis, proxy, origin, path):
    """Later than the next turn of listening begins."""
    proxy.set("delay", seconds=0.15)
    late = make(f"redis://127.0.0.1:{proxy.port}")
    page = Page(origin, path())
    page.spread([late])
    begin = time.monotonic()
    wait_for(lambda: time.monotonic() - begin > 3, "some turns")
    assert number(late, "WatchGaps") == 1
    assert number(late, "WatchAlive") == 1
    assert is_near(late, page.target)


def test_what_was_missed_is_not_shown_afterwards(make, redis, proxy, origin,
                                                 path):
    """No visitor comes while the connection is cut."""
    one = make(redis.url)
    cut = make(f"redis://127.0.0.1:{proxy.port}")
    page = Page(origin, path())
    page.spread([one, cut])
    gaps = number(cut, "WatchGaps")
    proxy.set("refuse")
    page.change()
    post(one, page.target)
    proxy.set("pass")
    wait_for(lambda: number(cut, "WatchGaps") > gaps, "the new watch")
    assert page.is_new(cut)


def test_redis_that_comes_again_empty(make, redis, origin, path):
    servers = [make(redis.url, HASTY) for _ in range(2)]
    page = Page(origin, path())
    page.spread(servers)
    redis.kill()
    for server in servers:
        wait_for(lambda: not hears(server), "the loss to be known")
        assert get(server, page.target).status == 200
    redis.start()
    for server in servers:
        wait_for(lambda: hears(server), "the watch")
    wait_for(lambda: all(is_near(x, page.target) for x in servers),
             "the page to be near again")
    page.change()
    post(servers[0], page.target)
    assert page.delay(servers[1]) < BOUND


# ---- the process that listens ------------------------------------------------

def test_sweeper_that_stands_still(make, redis, origin, path):
    servers = [make(redis.url) for _ in range(2)]
    page = Page(origin, path())
    page.spread(servers)
    pid, = servers[1].sweepers()
    os.kill(pid, signal.SIGSTOP)
    try:
        page.change()
        post(servers[0], page.target)
        assert page.delay(servers[1]) < BOUND
        wait_for(lambda: not hears(servers[1]), "the loss to be known")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: hears(servers[1]), "the watch")
    wait_near(servers[1], page.target)


def test_sweeper_that_is_killed(make, redis, origin, path):
    servers = [make(redis.url) for _ in range(2)]
    page = Page(origin, path())
    page.spread(servers)
    for _ in range(2):
        pid, = servers[1].sweepers()
        os.kill(pid, signal.SIGKILL)
        page.change()
        post(servers[0], page.target)
        assert page.delay(servers[1]) < BOUND
        wait_for(lambda: [x for x in servers[1].sweepers() if x != pid],
                 "another one")
        wait_for(lambda: hears(servers[1]), "the watch")
        page.spread(servers)
    page.change()
    post(servers[0], page.target)
    assert page.delay(servers[1]) < BOUND


def test_graceful_restarts_under_load(make, redis, origin, path):
    """Nobody is served what was replaced more than a second before."""
    servers = [make(redis.url) for _ in range(2)]
    page = Page(origin, path())
    page.spread(servers)
    history, late, stop = [(time.monotonic(), 1)], [], threading.Event()

    def visit():
        while not stop.is_set():
            begin = time.monotonic()
            body = get(servers[1], page.target).body
            need = max(v for t, v in history if t < begin - BOUND - 0.2) \
                if history[0][0] < begin - BOUND - 0.2 else 1
            if int(body.split()[1]) < need:
                late.append((begin, body, need))
            time.sleep(0.005)

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for one in visitors:
        one.start()
    try:
        for n in range(6):
            page.change()
            post(servers[0], page.target)
            history.append((time.monotonic(), page.version))
            if n % 2:
                servers[1].graceful(wait_old=False)
            assert page.delay(servers[1]) < BOUND
            wait_for(lambda: hears(servers[1]), "the watch")
    finally:
        stop.set()
        for one in visitors:
            one.join()
    assert not late, late[:5]


class Storm:
    """Visitors of all SERVERS at once, and forms that change pages, while
    children die; and at last nobody does any of that."""

    PAGES = 8

    def __init__(self, servers, origin, path):
        self.servers, self.random = servers, random.Random("agree")
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.versions = {path(f"p{n}"): 1 for n in range(self.PAGES)}
        self.posts, self.answers, self.wrong = 0, 0, []
        for page in self.versions:
            origin.on(page, self.answer(page))
        self.threads = [threading.Thread(target=self.repeat, args=(one, n))
                        for one in (self.visit, self.visit, self.change)
                        for n in range(2)]

    def answer(self, page):
        def answer(request):
            with self.lock:
                self.versions[page] += request.method == "POST"
                return cacheable(b"version %d" % self.versions[page], 3600)
        return answer

    def repeat(self, one, seed):
        chance = random.Random(f"{one.__name__} {seed}")
        while not self.stop.is_set() and not self.wrong:
            one(chance.choice(list(self.versions)), chance)
            time.sleep(0.005)

    def ask(self, method, page, chance):
        """whether it was answered: who answers may be killed"""
        server = chance.choice(self.servers)
        try:
            res = server.ask(method, page, host="shared.test:80",
                             body=b"" if method == "POST" else None)
        except ConnectionError:
            return False
        except TimeoutError:
            self.wrong.append(f"no answer to {method} {page}")
            return False
        if res.complete and not (res.status == 200
                                 and res.body.startswith(b"version ")):
            self.wrong.append(f"{method} {page}: {res}")
        self.answers += res.complete
        return res.complete

    def visit(self, page, chance):
        self.ask("GET", page, chance)

    def change(self, page, chance):
        while not self.ask("POST", page, chance) and not self.wrong:
            pass
        self.posts += 1

    def kill(self, processes):
        server = self.random.choice(self.servers)
        pids = wait_for(lambda: processes(server), "a process to kill", 60)
        os.kill(self.random.choice(pids), signal.SIGKILL)

    def run(self, children, sweepers):
        """so many are killed"""
        for one in self.threads:
            one.start()
        while children > 0 and not self.wrong:
            answers = self.answers
            wait_for(lambda: self.answers > answers + 10 or self.wrong,
                     "answers", 60)
            self.kill(lambda server: server.children())
            children -= 1
            if sweepers > 0 and children % 4 == 0:
                self.kill(lambda server: server.sweepers())
                sweepers -= 1
        self.stop.set()
        for one in self.threads:
            one.join(60)
        assert not self.wrong, self.wrong[:3]
        assert not [x for x in self.threads if x.is_alive()]

    def is_new(self, server, page):
        return get(server, page).body == b"version %d" % self.versions[page]


@pytest.mark.mpm
@pytest.mark.parametrize("victims", ["children", "all"])
def test_processes_killed_in_a_storm(make, redis, origin, path, victims):
    servers = [make(redis.url) for _ in range(3)]
    calm = Page(origin, path("calm"))
    calm.spread(servers)
    storm = Storm(servers, origin, path)
    storm.run(24, 0 if victims == "children" else 5)
    for server in servers:
        wait_for(lambda: hears(server), "the watch", 60)
        wait_near(server, calm.target)
    if any(number(x, "WatchGaps") > 1 for x in servers):
        # what is stored while nobody listens may be older than a removal
        for page in storm.versions:
            post(storm.random.choice(servers), page)
    for page in storm.versions:
        for server in servers:
            wait_for(lambda: storm.is_new(server, page), "the last version")
    for page in storm.versions:
        for server in servers:
            wait_near(server, page)
            assert storm.is_new(server, page)
    assert origin.count(calm.target) == 1
    assert storm.posts > 8 and number(servers[0], "WatchMessages") > 0
    wait_for(lambda: not [x for x in redis.keys() if x.endswith(b":lock")],
             "the locks to go", 60)


def test_listening_costs_little(make, redis):
    servers = [make(redis.url) for _ in range(2)]

    def cpu(pid):
        with open(f"/proc/{pid}/stat") as stat:
            words = stat.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    pids = [x for server in servers for x in server.sweepers()]
    before = int(redis.info("stats")["total_commands_processed"])
    begin, used = time.monotonic(), sum(cpu(x) for x in pids)
    wait_for(lambda: time.monotonic() - begin > 2, "two seconds")
    commands = int(redis.info("stats")["total_commands_processed"]) - before
    seconds = time.monotonic() - begin
    # a script's commands count, too, and there is one of five each second
    # and what falls at the edges of the time: twice what is expected
    assert commands / seconds / len(servers) < 42
    assert (sum(cpu(x) for x in pids) - used) / seconds / len(servers) < 0.04


# ---- stores that cross a change ----------------------------------------------

def fetch_slowly(server, origin, page, body, headers=(), vary=()):
    """a request for PAGE that waits at its origin, which will say BODY"""
    gate, got = Gate(), []
    answer = cacheable(body, 3600, headers=list(vary))

    def slow(request):
        gate.pass_through()
        return answer

    origin.on(page, slow)
    thread = threading.Thread(
        target=lambda: got.append(get(server, page, headers)))
    thread.start()
    gate.wait_reached()

    def end():
        gate.open()
        thread.join()
        assert got[0].body == body
    return end


@pytest.mark.parametrize("there", [False, True], ids=["new", "known"])
def test_store_that_a_purge_elsewhere_overtakes(make, redis, origin, path,
                                                there):
    servers = [make(redis.url) for _ in range(3)]
    target = path()
    if there:
        origin.page(target, b"first", age=0)
        get(servers[0], target)
    end = fetch_slowly(servers[0], origin, target, b"old")
    heard = [number(x, "WatchMessages") for x in servers]
    origin.page(target, b"new", age=3600)
    post(servers[1], target)
    wait_for(lambda: number(servers[0], "WatchMessages") > heard[0],
             "the message")
    end()
    for server in servers:
        assert get(server, target).body == b"new"
    assert number(servers[0], "Refused") == 1


def test_store_committed_before_the_purge_is_heard(make, redis, origin, path):
    """The message comes when the old page is in all tiers."""
    servers = [make(redis.url) for _ in range(3)]
    target = path()
    end = fetch_slowly(servers[0], origin, target, b"old")
    pid, = servers[0].sweepers()
    os.kill(pid, signal.SIGSTOP)
    try:
        origin.page(target, b"new", age=3600)
        post(servers[1], target)
        end()
        wait_for(lambda: number(servers[0], "Stores") == 1, "the old page")
        assert get(servers[2], target).body == b"old"
    finally:
        os.kill(pid, signal.SIGCONT)
    for server in servers:
        wait_for(lambda: get(server, target).body == b"new", "the new page")


def test_variants_that_are_stored_at_once(make, redis, origin, path):
    """Each amends the record that both are listed in."""
    servers = [make(redis.url) for _ in range(2)]
    target, vary = path(), [("Vary", "X-Lang")]
    origin.page(target, b"it", age=3600, headers=vary)
    for server in servers:
        assert get(server, target, [("X-Lang", "it")]).body == b"it"
    ends = [fetch_slowly(server, origin, target, lang.encode(), [("X-Lang", lang)],
                         vary)
            for server, lang in zip(servers, ("de", "fr"))]
    heard = number(servers[0], "WatchMessages")
    ends[1]()
    # the variant and the record
    wait_for(lambda: number(servers[0], "WatchMessages") >= heard + 2,
             "the messages")
    ends[0]()
    wait_for(lambda: number(servers[0], "Stores") == 2, "the variant")
    for server in servers:
        assert number(server, "Refused") == 0
        for lang in ("it", "de", "fr"):
            res = get(server, target, [("X-Lang", lang)])
            assert (res.cache, res.body) == ("HIT", lang.encode())
