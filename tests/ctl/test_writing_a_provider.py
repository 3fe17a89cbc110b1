# SPDX-License-Identifier: Apache-2.0
"""docs/writing-a-provider.md, followed literally: its C blocks are files, its
shell blocks are run, against mod_cachemw as `make install` puts it there."""

import re
import subprocess
from pathlib import Path

from harness.server import free_port

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)


def steps(text, port):
    """The page's blocks: one shell script, and the files. What begins with "!"
    has to fail."""
    script, files = "set -eu\n", {}
    for language, name, block in BLOCK.findall(text):
        if language == "sh":
            script += block
        elif language == "c":
            files[name] = files.get(name, "") + block + "\n"
    script = re.sub(r"^! (.*)$", r"if \1; then exit 99; fi", script, flags=re.M)
    return script.replace("8080", str(port)), files


def test_what_it_says_works(installed, place):
    script, files = steps((DOCS / "writing-a-provider.md").read_text(),
                          free_port())
    assert set(files) == {"mod_cachemw_null.c", "mod_cachemw_shelf.c"}
    work = place / "work"
    (work / "provider").mkdir(parents=True)
    for name, text in files.items():
        (work / "provider" / name).write_text(text)
    script = script.replace("mkdir provider &&", "")
    log = place / "log"
    try:
        with log.open("w") as out:
            done = subprocess.run(["/bin/sh", "-c", script], cwd=work,
                                  env=installed, stdout=out,
                                  stderr=subprocess.STDOUT, timeout=900)
    finally:
        pid = work / "provider" / "httpd.pid"
        if pid.exists():
            subprocess.run(["kill", pid.read_text().strip()])
    text = log.read_text()
    assert done.returncode == 0, text[-6000:]
    assert "warning:" not in text
    assert len(re.findall(r"^# \d+ passed, 0 failed", text, re.M)) == 4, text
    assert "X-Cache: MISS" in text and "X-Cache: HIT" in text
    assert "'many' is not a whole number" in text


def test_null_is_the_example():
    """What the page shows is the file in examples/."""
    _, files = steps((DOCS / "writing-a-provider.md").read_text(), 1)
    example = DOCS.parent / "examples" / "null" / "mod_cachemw_null.c"
    assert files["mod_cachemw_null.c"].strip() in example.read_text()
