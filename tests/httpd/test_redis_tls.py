# SPDX-License-Identifier: Apache-2.0
"""Redis behind TLS: who is not the right server, or does not finish what it
began, costs misses and a line in the log that says why; never a visitor's
time."""

import http.client
import os
import socket
import ssl
import threading
import time

import pytest

from conftest import SITE
from harness import settings
from harness.certificates import Authority
from harness.redis import Cluster, Redis, Sentinels, tls_options
from harness.server import configtest, wait_for
from harness.shared import is_hit
from test_basic import noise
from test_redis import assert_told

MODULES = ["cachemw", "cachemw_redis"]

STORE = """
CachemwStore pages redis url=@URL@ connect_timeout=150ms @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""

pytestmark = [pytest.mark.redis]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server")
    made.issue("elsewhere", names="DNS:redis.example,IP:192.0.2.1")
    made.issue("expired", days=-1)
    made.issue("client")
    return made


@pytest.fixture
def redis(authority):
    """redis(certificate, clients, options): a server behind TLS"""
    made = []

    def start(name="server", clients="no", options=""):
        made.append(Redis(options, tls=tls_options(authority, name, clients)))
        return made[-1].start()

    yield start
    for one in made:
        one.remove()


@pytest.fixture
def make(httpd, authority):
    def start(url, options="ssl_ca_certs=@CA@"):
        return httpd(SITE, {"QUICK": "on", "PROVIDER": STORE, "URL": url,
                            "OPTIONS": options, "CA": authority.file,
                            "CERT": authority.cert("client"),
                            "KEY": authority.key("client")}, extra=MODULES)
    return start


def ask(server, origin, path, name="page", size=5000):
    page = path(name)
    body = noise(size, 3)
    origin.page(page, body)
    res = server.get(page)
    assert (res.status, res.body) == (200, body)
    return page, body


def assert_hits(server, origin, path, size=5000):
    """stored at once; a name is looked up soon after the start"""
    page, body = ask(server, origin, path, f"hits-{size}", size)

    wait_for(lambda: is_hit(server, page, body), "a hit", 5)


def assert_misses(server, origin, path, reason):
    for i in range(3):
        page, body = ask(server, origin, path, f"misses-{i}")
        began = time.monotonic()
        res = server.get(page)
        assert (res.status, res.body, res.cache) == (200, body, "MISS")
        assert time.monotonic() - began < 2
    assert_told(server, reason)


# ---- what works -------------------------------------------------------------

@pytest.mark.mpm
@pytest.mark.parametrize("size", [0, 1, 5000, 16384, 70000, 3000000])
def test_pages_are_found_over_tls(make, redis, origin, path, size):
    server = make(redis().url)
    assert_hits(server, origin, path, size)


def test_server_is_known_by_its_name(make, redis, origin, path):
    one = redis()
    server = make(f"rediss://localhost:{one.port}")
    assert_hits(server, origin, path)


def test_client_shows_its_certificate(make, redis, origin, path):
    server = make(redis(clients="yes").url, "ssl_ca_certs=@CA@ "
                  "ssl_certfile=@CERT@ ssl_keyfile=@KEY@")
    assert_hits(server, origin, path)


def test_certificate_and_key_are_in_one_file(make, redis, authority, origin,
                                             path):
    both = authority.dir / "both.pem"
    both.write_bytes(authority.cert("client").read_bytes()
                     + authority.key("client").read_bytes())
    server = make(redis(clients="yes").url,
                  f"ssl_ca_certs=@CA@ ssl_certfile={both}")
    assert_hits(server, origin, path)


def test_key_that_only_root_can_read(make, redis, authority, origin, path):
    key = authority.key("client")
    assert not settings.run_user or not os.stat(key).st_mode & 0o077
    server = make(redis(clients="yes").url, "ssl_ca_certs=@CA@ "
                  "ssl_certfile=@CERT@ ssl_keyfile=@KEY@")
    assert_hits(server, origin, path)


def test_nothing_is_asked_of_the_server(make, redis, origin, path):
    server = make(redis("expired").url, "ssl_cert_reqs=none")
    assert_hits(server, origin, path)


def test_another_name_is_accepted_when_told_so(make, redis, origin, path):
    server = make(redis("elsewhere").url,
                  "ssl_ca_certs=@CA@ ssl_check_hostname=off")
    assert_hits(server, origin, path)


def test_cluster_over_tls(make, authority, origin, path):
    cluster = Cluster(tls=tls_options(authority)).start()
    try:
        server = make(cluster.url)
        for size in range(20):
            assert_hits(server, origin, path, size)
        assert all(one.keys() for one in cluster.masters)
    finally:
        cluster.remove()


def test_sentinels_over_tls(make, authority, origin, path):
    sentinels = Sentinels(tls=tls_options(authority)).start()
    try:
        server = make(sentinels.url)
        assert_hits(server, origin, path)
        assert sentinels.master.keys()
    finally:
        sentinels.remove()


HTTPS = SITE + """
Listen 127.0.0.1:@PORT2@
<VirtualHost 127.0.0.1:@PORT2@>
    SSLEngine on
    SSLCertificateFile @SERVER@.crt
    SSLCertificateKeyFile @SERVER@.key
</VirtualHost>
"""


@pytest.mark.mpm
@pytest.mark.parametrize("name, cache", [("server", "HIT"),
                                         ("expired", "MISS")])
def test_mod_ssl_is_not_disturbed(httpd, redis, authority, origin, path, name,
                                  cache):
    """it has the same OpenSSL: neither what succeeds nor what fails here is
    seen by visitors over HTTPS; not after restarts either"""
    server = httpd(HTTPS, {"QUICK": "on", "PROVIDER": STORE,
                           "URL": redis(name).url, "OPTIONS":
                           f"ssl_ca_certs={authority.file}",
                           "SERVER": authority.dir / "server"},
                   extra=["ssl", "socache_shmcb"] + MODULES)
    trust = ssl.create_default_context(cafile=authority.file)
    for turn in range(3):
        for i in range(10):
            page = path(f"p{turn}-{i}")
            origin.page(page, noise(20000, i))
            visitor = http.client.HTTPSConnection(
                "127.0.0.1", server.ports[1], timeout=10, context=trust)
            for expected in ("MISS", cache):
                visitor.request("GET", page)
                res = visitor.getresponse()
                assert (res.status, res.read()) == (200, noise(20000, i))
                assert res.getheader("X-Cache").split()[0] == expected
            visitor.close()
        server.graceful()
    assert "[ssl:error]" not in server.log()


# ---- who is not the right one -----------------------------------------------

def test_authority_is_another_one(make, redis, origin, path, tmp_path):
    other = Authority(tmp_path, "other")
    server = make(redis().url, f"ssl_ca_certs={other.file}")
    assert_misses(server, origin, path,
                  "the server's certificate: self-signed certificate")


def test_authorities_of_the_system_do_not_know_it(make, redis, origin, path):
    server = make(redis().url, "")
    assert_misses(server, origin, path, "the server's certificate: ")


@pytest.mark.parametrize("requirement", ["required", "optional"])
def test_certificate_names_another_server(make, redis, origin, path,
                                          requirement):
    server = make(redis("elsewhere").url, "ssl_ca_certs=@CA@ "
                  f"ssl_cert_reqs={requirement}")
    assert_misses(server, origin, path,
                  "the server's certificate: IP address mismatch")


def test_certificate_has_expired(make, redis, origin, path):
    server = make(redis("expired").url)
    assert_misses(server, origin, path,
                  "the server's certificate: certificate has expired")


def test_client_has_no_certificate_to_show(make, redis, origin, path):
    server = make(redis(clients="yes").url)
    assert_misses(server, origin, path, "TLS: ")


def test_old_versions_are_not_spoken(make, redis, origin, path):
    one = redis(options='tls-protocols "TLSv1.1"\n'
                'tls-ciphers "ALL:@SECLEVEL=0"')
    server = make(one.url)
    assert_misses(server, origin, path, "TLS: ")


# ---- who does not finish ----------------------------------------------------

class Stopper(threading.Thread):
    """Takes connections, answers their first bytes with SAID, then is silent
    or hangs up."""

    def __init__(self, said, hangs_up):
        super().__init__(daemon=True)
        self.said, self.hangs_up = said, hangs_up
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.kept = []
        self.start()

    @property
    def url(self):
        return "rediss://127.0.0.1:%d" % self.listener.getsockname()[1]

    def run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.kept.append(sock)
            try:
                if sock.recv(4000) and self.said:
                    sock.sendall(self.said)
                if self.hangs_up:
                    sock.close()
            except OSError:
                pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(5)
        for sock in self.kept:
            sock.close()


# the beginning of a record with a ServerHello that never ends
HALF = bytes.fromhex("160303007a020000760303") + bytes(20)


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("said", [b"", HALF], ids=["silent", "half"])
def test_server_stops_in_the_middle_of_the_handshake(make, origin, path, said,
                                                     hangs_up):
    stopper = Stopper(said, hangs_up)
    try:
        server = make(stopper.url)
        assert_misses(server, origin, path, "TLS: the handshake was not "
                      "finished")
    finally:
        stopper.close()


@pytest.mark.parametrize("said", [b"-ERR unknown command\r\n", bytes(500)],
                         ids=["words", "zeros"])
def test_server_speaks_something_else(make, origin, path, said):
    stopper = Stopper(said, False)
    try:
        server = make(stopper.url)
        assert_misses(server, origin, path, "TLS: ")
    finally:
        stopper.close()


def test_server_is_a_plain_one(make, origin, path):
    one = Redis()
    # the socket of a Unix path is the test's own
    one.start()
    try:
        server = make(f"rediss://{one.hostport}")
        assert_misses(server, origin, path, "TLS: ")
        assert not one.keys()
    finally:
        one.remove()


def test_server_comes_again(make, redis, origin, path):
    one = redis()
    server = make(one.url)
    assert_hits(server, origin, path)
    one.kill()
    ask(server, origin, path, "gone")
    one.start()
    page, body = ask(server, origin, path, "back")

    wait_for(lambda: is_hit(server, page, body), "the store to be used again", 15)


# ---- files ------------------------------------------------------------------

@pytest.fixture(scope="module")
def files(authority):
    """places that the rows below name"""
    locked = authority.dir / "locked.key"
    authority.openssl("pkey", "-in", authority.key("client"), "-aes128",
                      "-passout", "pass:secret", "-out", locked)
    return {"CA": authority.file, "CERT": authority.cert("client"),
            "KEY": authority.key("client"), "LOCKED": locked,
            "OTHER": authority.issue("other")[1]}


@pytest.mark.errors
@pytest.mark.parametrize("options, said", [
    ("ssl_ca_certs=/nonexistent/ca.crt",
     "option 'ssl_ca_certs': '/nonexistent/ca.crt' cannot be read (No such "
     "file or directory); a readable file, absolute or below the cache "
     "directory, is accepted"),
    ("ssl_ca_certs=/tmp", "option 'ssl_ca_certs': '/tmp' is not a "
     "regular file; a readable file"),
    ("ssl_ca_certs=@CA@ ssl_certfile=/nonexistent/x",
     "option 'ssl_certfile': '/nonexistent/x'"),
    ("ssl_ca_certs=@CA@ ssl_certfile=@CERT@ ssl_keyfile=/nonexistent/x",
     "option 'ssl_keyfile': '/nonexistent/x'"),
    ("password_file=/nonexistent/x",
     "option 'password_file': '/nonexistent/x'"),
    ("secret_file=/nonexistent/x", "option 'secret_file': '/nonexistent/x'"),
    ("secret_file=/dev/null", "is not a regular file"),
    ("ssl_ca_certs=@KEY@",
     "ssl_ca_certs=@KEY@: certificates in PEM format are expected"),
    ("ssl_ca_certs=@CA@ ssl_certfile=@KEY@ ssl_keyfile=@KEY@",
     "ssl_certfile=@KEY@: a certificate in PEM format is expected"),
    ("ssl_ca_certs=@CA@ ssl_certfile=@CERT@ ssl_keyfile=@CA@",
     "ssl_keyfile=@CA@: the key of ssl_certfile is expected"),
    ("ssl_ca_certs=@CA@ ssl_certfile=@CERT@",
     "ssl_certfile=@CERT@: the key of ssl_certfile is expected"),
    ("ssl_ca_certs=@CA@ ssl_certfile=@CERT@ ssl_keyfile=@OTHER@",
     "ssl_keyfile=@OTHER@: the key of ssl_certfile is expected"),
    ("ssl_ca_certs=@CA@ ssl_certfile=@CERT@ ssl_keyfile=@LOCKED@",
     "ssl_keyfile=@LOCKED@: the key of ssl_certfile is expected, in PEM format "
     "and without a passphrase"),
])
def test_files_that_cannot_be_used_are_refused(files, options, said):
    for name, path in files.items():
        options = options.replace(f"@{name}@", str(path))
        said = said.replace(f"@{name}@", str(path))
    status, text = configtest(
        SITE, names={"PROVIDER": f"CachemwStore x redis url=rediss://h {options}"
                     "\nCachemwProvider x\nCacheEnable cachemw /\n",
                     "QUICK": "on", "ORIGIN": 1, "FLAKY": 1}, extra=MODULES)
    assert status != 0
    assert said in text
    assert "CachemwStore x: " in text
