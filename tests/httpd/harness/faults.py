# SPDX-License-Identifier: Apache-2.0
"""The control file of the test provider faulty, and stores that use it."""

import os
from contextlib import contextmanager

# get gives at most half a body, the rest comes by read
PIECES = "get truncated piece"

STORES = """
CachemwStore inside @STORE@
CachemwStore tested @KIND@ inner=inside faults=@DIR@/faults @OPTIONS@
CachemwProvider tested
CacheEnable cachemw /
"""

MODULES = ["cachemw", "cachemw_faulty"]


def write(server, *lines):
    """From the next call on the store does as LINES say."""
    new = server.dir / "faults.new"
    new.write_text("".join(f"{x}\n" for x in lines))
    os.chmod(new, 0o644)
    os.replace(new, server.dir / "faults")


@contextmanager
def faults(server, *lines, after=()):
    write(server, *lines)
    try:
        yield
    finally:
        write(server, *after)
