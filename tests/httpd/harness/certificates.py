# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates for servers on loopback, made when a test needs
them."""

import subprocess
from pathlib import Path

HERE = "DNS:localhost,IP:127.0.0.1,IP:::1"


class Authority:
    """A certificate authority of a test's own below DIRECTORY."""

    def __init__(self, directory, name="ca"):
        self.dir = Path(directory)
        self.name = name
        self.openssl("req", "-x509", "-nodes", *self._new(name),
                      "-days", "2", "-out", self.cert(name),
                      "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=keyCertSign")

    def openssl(self, *words):
        subprocess.run(["openssl", *map(str, words)], check=True,
                       capture_output=True, timeout=30)

    def _new(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-keyout", self.key(name), "-subj", f"/CN={name}"]

    @property
    def file(self):
        """what others are to trust"""
        return self.cert(self.name)

    def cert(self, name):
        return self.dir / f"{name}.crt"

    def key(self, name):
        return self.dir / f"{name}.key"

    def issue(self, name, names=HERE, days=2):
        """(certificate, key) of NAME for the subject alternative NAMES; DAYS
        below 0 make one that has expired"""
        request = self.dir / f"{name}.csr"
        self.openssl("req", "-nodes", *self._new(name), "-out", request,
                      "-addext", f"subjectAltName={names}")
        self.openssl("x509", "-req", "-in", request, "-copy_extensions",
                      "copyall", "-days", days, "-CA", self.file,
                      "-CAkey", self.key(self.name), "-out", self.cert(name))
        return self.cert(name), self.key(name)
