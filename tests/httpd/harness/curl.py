# SPDX-License-Identifier: Apache-2.0
"""curl, the program: a client that nobody here has written."""

import subprocess
import tempfile
from pathlib import Path

LONGEST = 30        # seconds


class Answer:
    def __init__(self, head, body):
        last = head.decode("latin-1").strip().split("\r\n\r\n")[-1]
        first, *fields = last.split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {}
        for line in fields:
            name, _, text = line.partition(":")
            self.fields.setdefault(name.lower(), text.strip())
        self.body = body

    def __repr__(self):
        return f"<{self.status} {self.fields} {self.body[:200]!r}>"


def curl(url, *args, data=None, token=None, headers=()):
    """ask; DATA is the body of a PUT unless ARGS say otherwise"""
    with tempfile.TemporaryDirectory(prefix="cachemw-curl-") as where:
        head, body = Path(where, "head"), Path(where, "body")
        command = ["curl", "-sS", "-q", "--noproxy", "*", "--path-as-is",
                   "--max-time", str(LONGEST), "-D", head, "-o", body]
        if data is not None:
            sent = Path(where, "sent")
            sent.write_bytes(data)
            if not any(x in ("-T", "-X") for x in args):
                command += ["-X", "PUT"]
            command += ["--data-binary", f"@{sent}"]
            if not any(x.lower().startswith("content-type") for x in headers):
                command += ["-H", "Content-Type: application/json"]
        if token is not None:
            command += ["-H", f"Authorization: Bearer {token}"]
        for line in headers:
            command += ["-H", line]
        done = subprocess.run([*command, *args, url], capture_output=True,
                              text=True, timeout=LONGEST + 10)
        assert done.returncode == 0, (done.returncode, done.stderr)
        return Answer(head.read_bytes(),
                      body.read_bytes() if body.exists() else b"")
