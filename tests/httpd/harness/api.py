# SPDX-License-Identifier: Apache-2.0
"""An httpd whose handler cachemw-api is the cache service of others.

    python3 -m harness.api PROVIDER [option=value ...] -- COMMAND ...

runs COMMAND, with {url} and {token} in its words replaced, beside a service
that keeps everything in a store of PROVIDER."""

import signal
import subprocess
import sys

from .server import Httpd, die_with_parent

TOKEN = "t0ken-of-the.service"

CONF = """
ServerName service.test
Listen 127.0.0.1:@PORT@
CachemwStore kept @KEPT@
<Location "/shared">
    SetHandler cachemw-api
    CachemwApi kept auth_token=@TOKEN@ @OPTIONS@
</Location>
<Location "/server-status">
    SetHandler server-status
</Location>
@MORE@
"""


def url_of(server):
    return f"http://127.0.0.1:{server.ports[0]}/shared"


def service(store, extra=(), options="", more=""):
    return Httpd(CONF, {"KEPT": store, "TOKEN": TOKEN, "OPTIONS": options,
                        "MORE": more},
                 extra=["cachemw", *extra], loglevel="info")


def _main(*words):
    assert "--" in words, __doc__
    at = words.index("--")
    store, command = " ".join(words[:at]), words[at + 1:]

    def interrupt(number, frame):
        raise KeyboardInterrupt(f"signal {number}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with service(store) as server:
        names = {"{url}": url_of(server), "{token}": TOKEN}
        for name, text in names.items():
            command = [x.replace(name, text) for x in command]
        return subprocess.run(command, preexec_fn=die_with_parent).returncode


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
