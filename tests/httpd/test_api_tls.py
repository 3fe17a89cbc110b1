# SPDX-License-Identifier: Apache-2.0
"""One httpd is the cache of others over TLS, with certificates of a private
authority: the provider http and mod_ssl's server on either side."""

import http.client
import ssl

import pytest

from conftest import SHARED, SITE
from harness import Httpd
from harness.api import TOKEN
from harness.certificates import Authority
from harness.curl import curl
from harness.server import wait_for
from harness.shared import HOST, assert_hit, assert_hit_again, assert_miss, \
    store
from harness.values import name_of
from test_basic import noise
from test_http_store import MODULES, PATIENT, kinds
from test_status import figures

pytestmark = [pytest.mark.http, pytest.mark.errors]

SERVICE = """
ServerName service.test
Listen 127.0.0.1:@PORT@
Listen 127.0.0.1:@PORT2@
CachemwStore kept file cache_dir=@DIR@/cache/files max_object_size=16M
<VirtualHost 127.0.0.1:@PORT@>
    SSLEngine on
    SSLCertificateFile @CERTIFICATE@.crt
    SSLCertificateKeyFile @CERTIFICATE@.key
    <Location "/shared">
        SetHandler cachemw-api
        CachemwApi kept auth_token=@TOKEN@
    </Location>
</VirtualHost>
<Location "/server-status">
    SetHandler server-status
</Location>
"""

STORE = """
CachemwStore pages http base_url=@URL@ auth_token=@TOKEN@ @PATIENCE@ @OPTIONS@
CachemwProvider pages
CacheEnable cachemw /
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("service")
    made.issue("elsewhere", names="DNS:service.example,IP:192.0.2.1")
    made.issue("expired", days=-1)
    return made


@pytest.fixture
def start_service(authority):
    made = []

    def start(certificate="service"):
        made.append(Httpd(SERVICE, {"CERTIFICATE": authority.dir / certificate,
                                    "TOKEN": TOKEN},
                          extra=["cachemw", "ssl"]))
        return made[-1].start()

    yield start
    for one in made:
        one.remove()


def url_of(service):
    return f"https://127.0.0.1:{service.ports[0]}/shared"


@pytest.fixture
def make(httpd, authority):
    def start(service, options="", trusted=authority.file, site=SHARED,
              extra=(), **names):
        return httpd(site, {"QUICK": "on", "PROVIDER": STORE,
                            "URL": url_of(service), "TOKEN": TOKEN,
                            "PATIENCE": PATIENT,
                            "OPTIONS": f"ca_file={trusted} {options}",
                            **names}, extra=MODULES + list(extra))
    return start


def counted(service, name):
    lines = service.get("/server-status?auto", port=1).body.decode()
    return int(lines.split(f"CachemwStore-kept-{name}: ")[1].split()[0])


@pytest.mark.mpm
def test_what_one_server_stores_the_others_serve(start_service, make, origin,
                                                 path):
    service = start_service()
    servers = [make(service, "max_object_size=16M") for _ in range(2)]
    one, other = servers
    for size in (0, 1, 5000, 65536, 900_000, 16 << 20):
        page = path(f"p{size}")
        body = store(one, origin, page, size)
        assert_hit(other, page, body)
        assert_hit(one, page, body)
        assert origin.count(page) == 1
    assert counted(service, "ApiStores") == 6
    assert counted(service, "ApiHits") == 12
    for server in servers:
        assert figures(server)["State"] == "on"


def test_connections_are_kept(start_service, make, origin, path):
    """A handshake costs more than a request."""
    service = start_service()
    server = make(service)
    page = path()
    body = store(server, origin, page)
    with server.connect(host=HOST) as conn:
        for _ in range(100):
            res = conn.get(page)
            assert (res.cache, res.body) == ("HIT", body)
    assert kinds(server, "connected") <= len(server.children()) + 1


def test_curl_is_a_client_too(start_service, authority):
    url = f"{url_of(start_service())}/cache/{name_of(b'key')}"
    trust = ["--cacert", str(authority.file)]
    assert curl(url, *trust, token="wrong").status == 401
    assert curl(url, *trust, token=TOKEN).status == 404


@pytest.mark.parametrize("certificate", ["expired", "elsewhere"])
def test_wrong_certificate_is_a_miss(start_service, make, origin, path,
                                     certificate):
    service = start_service(certificate)
    server = make(service)
    page = path()
    body = store(server, origin, page)
    assert_miss(server, page, body)
    assert "certificate" in figures(server)["LastError"]
    assert counted(service, "ApiMisses") + counted(service, "ApiDenied") == 0


def test_other_authority_is_not_believed(start_service, make, origin, path,
                                         tmp_path):
    service = start_service()
    server = make(service, trusted=Authority(tmp_path, "other").file)
    page = path()
    body = store(server, origin, page)
    assert_miss(server, page, body)
    assert kinds(server, "tls") >= 1
    assert counted(service, "ApiMisses") + counted(service, "ApiDenied") == 0


def test_new_certificate_is_taken_up(start_service, make, authority, origin,
                                     path):
    """The service is reloaded; the web servers go on."""
    def shown():
        return ssl.get_server_certificate(("127.0.0.1", service.ports[0]))

    authority.issue("renewed")
    service = start_service("renewed")
    server = make(service)
    page = path()
    body = store(server, origin, page)
    before = shown()
    authority.issue("renewed")
    service.graceful(wait_old=False)
    wait_for(lambda: shown() != before, "the new certificate")
    assert_hit_again(server, page, body)
    assert kinds(server, "tls") == 0


# ---- a web server with TLS of its own ----------------------------------------

HTTPS = SITE + """
Listen 127.0.0.1:@PORT2@
<VirtualHost 127.0.0.1:@PORT2@>
    SSLEngine on
    SSLCertificateFile @OWN@.crt
    SSLCertificateKeyFile @OWN@.key
</VirtualHost>
"""


@pytest.mark.mpm
@pytest.mark.parametrize("certificate, cache", [("service", "HIT"),
                                                ("expired", "MISS")])
def test_mod_ssl_is_not_disturbed(start_service, make, authority, origin, path,
                                  certificate, cache):
    """libcurl has the same OpenSSL in the same child: neither what succeeds
    nor what fails here is seen by visitors over HTTPS; not after restarts
    either"""
    server = make(start_service(certificate), site=HTTPS,
                  extra=["ssl", "socache_shmcb"],
                  OWN=authority.dir / "service")
    trust = ssl.create_default_context(cafile=authority.file)
    for turn in range(3):
        for i in range(10):
            page = path(f"p{turn}-{i}")
            origin.page(page, noise(20_000, i))
            visitor = http.client.HTTPSConnection(
                "127.0.0.1", server.ports[1], timeout=20, context=trust)
            for expected in ("MISS", cache):
                visitor.request("GET", page)
                res = visitor.getresponse()
                assert (res.status, res.read()) == (200, noise(20_000, i))
                assert res.getheader("X-Cache").split()[0] == expected
            visitor.close()
        server.graceful()
    assert "[ssl:error]" not in server.log()
